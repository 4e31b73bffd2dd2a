use proptest::prelude::*;

use super::*;

const SIZE: u32 = 10;

fn write_all(flow: &mut Flow, now_ns: u64) -> Vec<(Run, Vec<Written>)> {
    let mut runs = Vec::new();
    loop {
        let mut written = Vec::new();
        match flow.next_run(usize::MAX, now_ns, |message| written.push(message)) {
            Some(run) => runs.push((run, written)),
            None => return runs,
        }
    }
}

fn answers(flow: &mut Flow, connection: usize, bytes: usize, now_ns: u64) -> Vec<Message> {
    let mut answered = Vec::new();
    flow.received(connection, bytes, now_ns, |message| answered.push(message))
        .unwrap();
    answered
}

#[test]
fn a_message_from_due_to_answer() {
    let mut flow = Flow::new(2, 0, Sizes::fixed(SIZE), 4, Origin::Due);
    flow.due(1, 100);
    let runs = write_all(&mut flow, 130);
    assert_eq!(
        runs[0].0,
        Run {
            connection: 1,
            offset: 0,
            bytes: 10
        }
    );
    assert_eq!(
        runs[0].1,
        [Written {
            due_ns: 100,
            queue_ns: 0,
            send_lag_ns: 30
        }]
    );
    flow.begin_turn();
    flow.sent(1, 131);
    assert_eq!(answers(&mut flow, 1, 4, 150), []);
    assert_eq!(
        answers(&mut flow, 1, 6, 180),
        [Message {
            due_ns: 100,
            written_ns: 130
        }]
    );
    assert_eq!(
        flow.counts(),
        Counts {
            sent: 1,
            answered: 1,
            lost: 0,
            unsent: 0
        }
    );
}

#[test]
fn closed_loop_counts_from_the_write() {
    let mut flow = Flow::new(1, 0, Sizes::fixed(SIZE), 1, Origin::Write);
    flow.due(0, 5);
    let runs = write_all(&mut flow, 70);
    assert_eq!(
        runs[0].1,
        [Written {
            due_ns: 70,
            queue_ns: 0,
            send_lag_ns: 0
        }]
    );
    assert_eq!(
        answers(&mut flow, 0, 10, 90),
        [Message {
            due_ns: 70,
            written_ns: 70
        }]
    );
}

#[test]
fn beyond_the_pipeline_a_message_queues_and_that_is_no_send_lag() {
    let mut flow = Flow::new(1, 0, Sizes::fixed(SIZE), 2, Origin::Due);
    for due in [10, 20, 30] {
        flow.due(0, due);
    }
    assert_eq!(write_all(&mut flow, 40)[0].0.bytes, 20);
    flow.begin_turn();
    flow.sent(0, 41);
    assert_eq!(flow.queued, 1);
    assert_eq!(answers(&mut flow, 0, 10, 500).len(), 1);
    // Free at 500, written at 520: 470 of queue, 20 of lag.
    let runs = write_all(&mut flow, 520);
    assert_eq!(
        runs[0].1,
        [Written {
            due_ns: 30,
            queue_ns: 470,
            send_lag_ns: 20
        }]
    );
    assert_eq!(runs[0].0.offset, 20);
}

#[test]
fn a_full_socket_is_queue_and_a_send_that_went_at_once_is_not() {
    let mut flow = Flow::new(1, 0, Sizes::fixed(SIZE), 100, Origin::Due);
    flow.due(0, 10);
    write_all(&mut flow, 10);
    flow.due(0, 15);
    assert!(
        write_all(&mut flow, 16).is_empty(),
        "one send in flight per connection"
    );
    flow.begin_turn();
    flow.sent(0, 20);
    // Learnt in the first harvest: the connection was free all the while, we were late.
    assert_eq!(
        write_all(&mut flow, 21)[0].1,
        [Written {
            due_ns: 15,
            queue_ns: 0,
            send_lag_ns: 6
        }]
    );
    flow.begin_turn();
    flow.due(0, 30);
    flow.begin_turn();
    flow.sent(0, 90);
    assert_eq!(
        write_all(&mut flow, 92)[0].1,
        [Written {
            due_ns: 30,
            queue_ns: 60,
            send_lag_ns: 2
        }]
    );
}

#[test]
fn a_lost_connection_hands_its_load_to_the_others() {
    let mut flow = Flow::new(2, 0, Sizes::fixed(SIZE), 1, Origin::Due);
    flow.due(0, 1);
    flow.due(0, 2);
    write_all(&mut flow, 3);
    let mut ends = Vec::new();
    flow.lose(0, |end, message| ends.push((end, message.due_ns)));
    flow.lose(0, |_, _| panic!("it is lost already"));
    assert_eq!(ends, [(End::Written, 1), (End::Unsent, 2)]);
    assert!(flow.due(0, 4));
    assert_eq!(write_all(&mut flow, 5)[0].0.connection, 1);
    flow.lose(1, |_, _| {});
    assert!(!flow.due(1, 6), "nobody is left");
    assert_eq!(
        flow.counts(),
        Counts {
            sent: 2,
            answered: 0,
            lost: 2,
            unsent: 2
        }
    );
}

#[test]
fn more_than_was_sent_is_surplus() {
    let mut flow = Flow::new(1, 0, Sizes::fixed(SIZE), 1, Origin::Due);
    assert_eq!(flow.received(0, 1, 5, |_| {}), Err(Surplus));
    flow.due(0, 5);
    write_all(&mut flow, 5);
    let mut answered = 0;
    assert_eq!(flow.received(0, 11, 6, |_| answered += 1), Err(Surplus));
    assert_eq!(answered, 1);
}

#[test]
fn messages_of_a_mix_are_cut_by_their_own_sizes() {
    let mix = "10:50%,1000:50%".parse().unwrap();
    let sizes = Sizes::mixed(&mix, 3);
    let expected: Vec<usize> = (0..20).map(|n| sizes.of(6, n) as usize).collect();
    assert!(expected.contains(&10) && expected.contains(&1_000));
    let mut flow = Flow::new(2, 5, sizes, 100, Origin::Due);
    (0..20).for_each(|due_ns| {
        flow.due(1, due_ns);
    });
    let mut written = 0;
    let mut runs = Vec::new();
    while let Some(run) = flow.next_run(2_500, 50, |_| written += 1) {
        assert!(run.bytes <= 2_500);
        runs.push(run.bytes);
        flow.sent(1, 50);
    }
    let total: usize = expected.iter().sum();
    assert_eq!((written, runs.iter().sum::<usize>()), (20, total));
    assert!(1 < runs.len());
    // Byte by byte, each is answered with its own last byte.
    let mut ends = Vec::new();
    for byte in 1..=total {
        if !answers(&mut flow, 1, 1, 60).is_empty() {
            ends.push(byte);
        }
    }
    let sums = expected.iter().scan(0, |sum, size| {
        *sum += size;
        Some(*sum)
    });
    assert_eq!(ends, sums.collect::<Vec<_>>());
    // One message alone may be longer than a run.
    flow.due(1, 70);
    assert_ne!(flow.next_run(1, 70, |_| {}), None);
}

#[test]
fn a_life_ends_after_its_messages_and_the_rest_waits_for_the_next() {
    let mut flow = Flow::new(1, 0, Sizes::fixed(SIZE), 4, Origin::Due);
    flow.begin_closed(0);
    (0..5).for_each(|due_ns| {
        flow.due(0, due_ns);
    });
    assert!(write_all(&mut flow, 10).is_empty(), "not open yet");
    flow.opened(0, 3, 40);
    let runs = write_all(&mut flow, 45);
    assert_eq!((runs.len(), runs[0].0.bytes), (1, 30));
    assert_eq!(
        (runs[0].1[2].queue_ns, runs[0].1[2].send_lag_ns),
        (38, 5),
        "the wait for the connection is queue"
    );
    assert_eq!(answers(&mut flow, 0, 30, 50).len(), 3);
    assert!(
        !flow.is_spent(0) && flow.owes_nothing(0),
        "the send is not confirmed"
    );
    flow.sent(0, 50);
    assert!(flow.is_spent(0) && flow.has_queued(0));
    // In the next life one more is written, and lost; what waits is not.
    flow.opened(0, 1, 60);
    assert_eq!(write_all(&mut flow, 61)[0].0.offset, 30);
    let mut ends = Vec::new();
    flow.interrupt(0, |end, message| ends.push((end, message.due_ns)));
    assert_eq!(ends, [(End::Written, 3)]);
    flow.opened(0, NO_END, 70);
    assert_eq!(write_all(&mut flow, 71)[0].1[0].due_ns, 4);
    assert_eq!(answers(&mut flow, 0, 10, 80).len(), 1);
    let counts = flow.counts();
    assert_eq!((counts.sent, counts.answered, counts.lost), (5, 4, 1));
}

#[test]
fn what_waits_can_be_withdrawn() {
    let mut flow = Flow::new(1, 0, Sizes::fixed(SIZE), 2, Origin::Write);
    (0..5).for_each(|due_ns| {
        flow.due(0, due_ns);
    });
    write_all(&mut flow, 10);
    flow.withdraw(0);
    assert_eq!((flow.in_flight, flow.queued), (2, 0));
    assert_eq!(answers(&mut flow, 0, 20, 20).len(), 2);
    assert!(flow.is_idle(0) && flow.counts().unsent == 0);
    flow.sent(0, 20);
    flow.due(0, 30);
    assert_eq!(write_all(&mut flow, 31)[0].0.offset, 20);
    flow.withdraw(0);
    assert_eq!(answers(&mut flow, 0, 10, 40).len(), 1);
}

/// What may happen, in an order chosen by proptest.
#[derive(Clone, Debug)]
enum Step {
    Due(u32),
    Write(u32),
    Sent(u32),
    Reply(u32, usize),
    Lose(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let connection = 0u32..4;
    let step = prop_oneof![
        6 => connection.clone().prop_map(Step::Due),
        4 => (1u32..6).prop_map(Step::Write),
        4 => connection.clone().prop_map(Step::Sent),
        6 => (connection.clone(), 1usize..60).prop_map(|(connection, bytes)| Step::Reply(connection, bytes)),
        1 => connection.prop_map(Step::Lose),
    ];
    prop::collection::vec(step, 1..400)
}

proptest! {
    /// Against a model that holds plain queues: no message is lost, doubled, reordered or answered early, and the
    /// limits hold, whatever happens in whatever order.
    #[test]
    fn every_message_is_accounted_for(steps in steps(), pipeline in 1u32..5) {
        let mut flow = Flow::new(4, 0, Sizes::fixed(SIZE), pipeline, Origin::Due);
        let mut now_ns = 0;
        let mut due = 0u64;
        let mut lost = [false; 4];
        let mut sending = [false; 4];
        // Due times of what waits, and of what is in flight with the bytes of the first reply.
        let mut waiting: [VecDeque<u64>; 4] = Default::default();
        let mut flying: [VecDeque<u64>; 4] = Default::default();
        let mut reply_bytes = [0usize; 4];
        for step in steps {
            now_ns += 7;
            flow.begin_turn();
            match step {
                Step::Due(connection) => {
                    let queued_before: Vec<u32> = flow.connections.iter().map(|c| c.queued).collect();
                    due += 1;
                    prop_assert_eq!(flow.due(connection, now_ns), lost != [true; 4]);
                    let took = flow.connections.iter().zip(&queued_before).position(|(c, before)| c.queued != *before);
                    if let Some(took) = took {
                        prop_assert!(took == connection as usize || lost[connection as usize]);
                        prop_assert!(!lost[took]);
                        waiting[took].push_back(now_ns);
                    }
                }
                Step::Write(messages_max) => {
                    let mut written = Vec::new();
                    if let Some(run) = flow.next_run((messages_max * SIZE) as usize, now_ns, |message| written.push(message)) {
                        let c = run.connection;
                        prop_assert!(!lost[c] && !sending[c], "no second send in flight");
                        sending[c] = true;
                        prop_assert!(!written.is_empty() && written.len() <= messages_max as usize);
                        prop_assert_eq!(run.bytes, written.len() * SIZE as usize);
                        for message in written {
                            prop_assert_eq!(Some(message.due_ns), waiting[c].pop_front());
                            prop_assert_eq!(message.due_ns + message.queue_ns + message.send_lag_ns, now_ns);
                            flying[c].push_back(message.due_ns);
                        }
                        prop_assert!(flying[c].len() <= pipeline as usize);
                    } else {
                        for c in 0..4 {
                            let could = !waiting[c].is_empty() && !sending[c] && flying[c].len() < pipeline as usize;
                            prop_assert!(!could, "a message was left behind on connection {}", c);
                        }
                    }
                }
                Step::Sent(connection) => {
                    let c = connection as usize;
                    if sending[c] && !lost[c] {
                        sending[c] = false;
                        flow.sent(c, now_ns);
                    }
                }
                Step::Reply(connection, bytes) => {
                    let c = connection as usize;
                    let owed = flying[c].len() * SIZE as usize - reply_bytes[c];
                    let bytes = bytes.min(owed);
                    if bytes != 0 {
                        let answered = answers(&mut flow, c, bytes, now_ns);
                        reply_bytes[c] += bytes;
                        prop_assert_eq!(answered.len(), reply_bytes[c] / SIZE as usize);
                        reply_bytes[c] %= SIZE as usize;
                        for message in answered {
                            prop_assert_eq!(Some(message.due_ns), flying[c].pop_front());
                            prop_assert!(message.due_ns <= message.written_ns && message.written_ns <= now_ns);
                        }
                    }
                }
                Step::Lose(connection) => {
                    let c = connection as usize;
                    let mut ends = Vec::new();
                    flow.lose(c, |end, message| ends.push((end, message.due_ns)));
                    let expected: Vec<_> = flying[c].drain(..).map(|due| (End::Written, due))
                        .chain(waiting[c].drain(..).map(|due| (End::Unsent, due)))
                        .collect();
                    prop_assert_eq!(ends, expected);
                    lost[c] = true;
                    reply_bytes[c] = 0;
                }
            }
            let counts = flow.counts();
            prop_assert_eq!(counts.sent, counts.answered + counts.lost + flow.in_flight);
            prop_assert_eq!(due, counts.sent + flow.queued + counts.unsent);
            prop_assert_eq!(flow.in_flight as usize, flying.iter().map(VecDeque::len).sum::<usize>());
        }
        let mut outstanding = 0;
        for c in 0..4 {
            outstanding += flow.abandon(c, |_, _| {});
        }
        let counts = flow.counts();
        prop_assert_eq!(counts.sent, counts.answered + counts.lost + outstanding);
        prop_assert_eq!(due, counts.sent + counts.unsent);
    }
}
