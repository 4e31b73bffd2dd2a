//! What every engine promises, as tests over real sockets: each test is a function of the engine's name, and the list
//! at the end runs all of them for all engines.

mod addresses;
mod cornered;
mod delays;
mod limits;
mod many;
mod metrics;
mod ordinary;
mod patience;
mod peers;
mod process;
mod restarts;
mod sandbox;
mod stopping;
mod streams;
mod support;
mod trials;
mod waiting;

/// What an engine does not promise, and why; docs/engines.md has the same table. A test named here is not run for the
/// engine, a part of one is left out.
const EXCEPTIONS: &[Exception] = &[
    Exception {
        engines: &["tokio", "tokio-uring", "blocking"],
        promises: &[
            "a_fixed_delay_is_that_long",
            "a_fixed_delay_keeps_the_order",
            "an_exponential_delay_keeps_the_order",
            "a_freeze_stops_all_echoing",
            "what_a_freeze_held_back_all_comes",
            "busy_burns_cpu",
            "who_queues_while_the_server_is_busy_is_not_reset",
            "spinning_burns_and_a_hybrid_comes_to_rest",
            "a_long_listen_queue_holds_nobody_up",
            "small_pieces_that_are_kept_back_take_no_more_memory",
        ],
        why: "baselines keep to what their runtimes do: --delay and --wait are refused",
    },
    Exception {
        engines: &["tokio-uring"],
        promises: &[
            "a_unix_path_is_served",
            "the_mode_of_a_unix_path_is_by_the_umask",
            "a_passed_descriptor_holds_nobody_up",
        ],
        why: "the runtime cannot accept from a unix listener that it did not bind: refused",
    },
    Exception {
        engines: &["tokio", "tokio-uring"],
        promises: &["a_slow_reader_has_the_whole_drain_time"],
        why: "a write that has begun keeps the time limit that it began with",
    },
    Exception {
        engines: &["tokio-uring"],
        promises: &["what_is_given_up_ends_in_a_reset"],
        why: "the runtime's sockets lend no descriptor on which an option could be set",
    },
    Exception {
        engines: &["tokio-uring"],
        promises: &["slow_readers_become_no_threads"],
        why: "the runtime's writes wait in the kernel, and its rings are not ours to bound",
    },
    Exception {
        engines: &["tokio", "tokio-uring"],
        promises: &[LARGE_SOCKETS_ARE_SEEN_TO_MOVE],
        why: "the runtime's time limit is for one write, and asks nobody what the socket still holds",
    },
    Exception {
        engines: &["tokio"],
        promises: &["a_shared_queue_is_shared_fairly"],
        why: "the runtime wakes all workers for each connection, and the quickest takes it",
    },
    Exception {
        engines: &["tokio", "tokio-uring", "blocking"],
        promises: &[IDLE_IS_SMALL],
        why: "a task and its buffer, or a thread and its stack, stay with each connection",
    },
    Exception {
        engines: &["tokio", "tokio-uring", "blocking"],
        promises: &[STALLS_ARE_COUNTED],
        why: "the runtime waits for a full socket by itself, so the engine can't count it",
    },
    Exception {
        engines: &["uring_zc"],
        promises: &[STALLS_ARE_COUNTED],
        why: "a zero-copy send is in flight until the peer has its bytes, and none follows it: no socket gets full",
    },
    Exception {
        engines: &["tokio", "tokio-uring"],
        promises: &[ENTERS_ARE_COUNTED],
        why: "the runtime makes the system calls, unseen: `enters` is 0",
    },
];

/// Parts of tests: an idle connection costs a few bytes of the server's memory.
const IDLE_IS_SMALL: &str = "an_idle_connection_is_small";
/// A send that finds the socket full is in `send_stalls`.
const STALLS_ARE_COUNTED: &str = "stalls_are_counted";
/// A peer that reads what a large socket holds, where no write ends meanwhile.
const LARGE_SOCKETS_ARE_SEEN_TO_MOVE: &str = "large_sockets_are_seen_to_move";
/// System calls are in `enters`.
const ENTERS_ARE_COUNTED: &str = "enters_are_counted";

struct Exception {
    engines: &'static [&'static str],
    promises: &'static [&'static str],
    why: &'static str,
}

/// Runs the suite for each engine: a module named so, for the engine of that name.
macro_rules! engines {
    ($($(#[$attribute:meta])* $module:ident: $engine:literal,)*) => { $(
        $(#[$attribute])*
        mod $module {
            const ENGINE: &str = $engine;
            suite!();
        }
    )* };
}

macro_rules! suite {
    () => {
        tests! { streams:
            any_size_comes_back_byte_for_byte
            two_hundred_interleaved_connections_keep_their_bytes
            one_byte_at_a_time
            a_buffer_of_a_few_bytes_is_enough
            v6_is_served
            workers_share_the_connections
            a_shared_queue_is_shared_fairly
        }
        tests! { addresses:
            a_unix_path_is_served
            the_mode_of_a_unix_path_is_by_the_umask
            a_passed_descriptor_holds_nobody_up
            v4_reaches_a_v6_address_by_choice
            the_backlog_is_what_the_ready_line_says
            socket_options_are_set_and_read_back
        }
        tests! { peers:
            a_slow_reader_is_bounded_and_harms_nobody
            slow_readers_leave_buffers_for_others
            slow_readers_that_were_cut_off_leave_buffers_for_others
            more_active_connections_than_buffers_are_all_served
            firehoses_take_turns_at_a_small_pool
            a_half_close_with_megabytes_pending_loses_nothing
            a_reset_ends_only_its_own_connection
            a_reset_of_a_slow_reader_is_noticed
            a_firehose_leaves_turns_for_others
            urgent_data_does_not_hold_up_what_follows
            connections_that_come_and_go_are_counted
            who_waits_does_not_spin
        }
        tests! { stopping:
            a_stop_under_load_accounts_for_every_byte
            a_stop_without_connections_is_immediate
            who_waits_in_the_queue_is_not_reset
            who_queues_while_the_server_is_busy_is_not_reset
            a_peer_that_never_closes_is_cut_off_at_the_drain_time
            a_slow_reader_has_the_whole_drain_time
            a_stop_at_the_worst_moment_ends_in_order
            a_second_signal_ends_at_once
            signals_that_come_together_are_one
        }
        tests! { limits:
            one_connection_too_many_is_closed_at_once
            the_descriptor_limit_is_waited_out
            nobody_is_let_in_where_there_is_no_place
            an_idle_connection_is_closed_and_a_busy_one_is_not
            a_stuck_peer_is_idle_too
            early_connections_take_nothing_from_the_start
        }
        tests! { patience:
            a_steady_slow_reader_is_not_idle
            what_is_given_up_ends_in_a_reset
            slow_readers_become_no_threads
            a_stall_makes_nobody_idle
            a_long_listen_queue_holds_nobody_up
            small_pieces_take_no_more_memory
            small_pieces_that_are_kept_back_take_no_more_memory
        }
        tests! { many:
            ten_thousand_connections_are_served_and_cheap_while_idle
        }
        tests! { delays:
            a_fixed_delay_is_that_long
            a_fixed_delay_keeps_the_order
            an_exponential_delay_keeps_the_order
            a_freeze_stops_all_echoing
            what_a_freeze_held_back_all_comes
            busy_burns_cpu
        }
        tests! { metrics:
            the_metrics_can_be_read_while_a_load_runs
        }
        tests! { waiting:
            spinning_burns_and_a_hybrid_comes_to_rest
        }
        tests! { restarts:
            the_next_server_finds_the_address_free
        }
        tests! { process:
            the_ready_line_says_what_runs
            a_taken_port_is_an_error_with_a_cure
            the_counters_are_written_at_exit
        }
    };
}

macro_rules! tests {
    ($module:ident: $($test:ident)*) => { $(
        #[test]
        fn $test() {
            match crate::exception(ENGINE, stringify!($test)) {
                None => crate::$module::$test(ENGINE),
                Some(why) => println!("{ENGINE} does not promise this: {why}"),
            }
        }
    )* };
}

/// Why the engine does not promise this, if it does not.
fn exception(engine: &str, promise: &str) -> Option<&'static str> {
    let of = |exception: &&Exception| {
        exception.engines.contains(&engine) && exception.promises.contains(&promise)
    };
    EXCEPTIONS.iter().find(of).map(|exception| exception.why)
}

// Macros are named before they are used, so the list stands at the end.
engines! {
    epoll: "epoll",
    uring: "uring",
    // The ring as kernels of several ages would have it: `support::RINGS`.
    uring_none: "uring_none",
    uring_6_1: "uring_6_1",
    uring_6_12: "uring_6_12",
    uring_all: "uring_all",
    uring_zc: "uring_zc",
    #[cfg(feature = "tokio")]
    tokio: "tokio",
    #[cfg(feature = "tokio-uring")]
    tokio_uring: "tokio-uring",
    blocking: "blocking",
}
