//! A kernel that refuses: for the moment, time after time, and then the ring rests between its attempts and does not spin;
//! or for good, as the default profiles of container engines do, and then the error says who forbids it and what helps.
//! The refusals are a seccomp filter's, on a thread of the test's own, which they go with.

use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use echometer_ring::{Config, Errno, Feature, Features, Payload, Ring, SetupError};
use rustix::time::{ClockId, clock_gettime};

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn small() -> Config {
    Config {
        entries: 8,
        cq_entries: 64,
        slots: 4,
        buffers: 8,
        buffer_size: 64,
        ..Config::default()
    }
}

#[test]
fn a_submit_that_is_refused_over_and_over_rests() {
    let refused = std::thread::spawn(|| {
        let mut ring = Ring::new(&small()).expect("a ring");
        answer(libc::SYS_io_uring_enter, None, libc::EAGAIN);
        let (began, busy) = (Instant::now(), cpu_time());
        while began.elapsed() < Duration::from_millis(500) {
            ring.submit().expect("it is for the moment");
        }
        let busy = cpu_time() - busy;
        let (counts, why) = (ring.counts(), ring.last_refusal());
        // Nothing of it is in flight, and its end must not take long.
        drop(ring);
        (busy, counts.refusals, why)
    });
    let (busy, refusals, why) = refused.join().expect("no panic");
    assert!(10 < refusals, "{refusals}");
    assert_eq!(why, Some(Errno::AGAIN));
    assert!(busy < Duration::from_millis(250), "{busy:?} of 500 ms");
}

#[test]
fn a_full_queue_that_is_refused_over_and_over_rests_and_then_is_an_error() {
    let refused = std::thread::spawn(|| {
        let mut ring = Ring::new(&small()).expect("a ring");
        let mut far = Vec::new();
        let slots: Vec<_> = (0..4)
            .map(|_| {
                let (near, peer) = UnixStream::pair().expect("a pair");
                far.push(peer);
                ring.adopt(near.into()).expect("a slot")
            })
            .collect();
        answer(libc::SYS_io_uring_enter, None, libc::EBUSY);
        let busy = cpu_time();
        for slot in &slots {
            ring.recv(*slot);
            ring.shutdown_write(*slot);
            let bytes = Box::from([1; 8]);
            ring.send(*slot, Payload::Heap { bytes, start: 0 });
        }
        let busy = cpu_time() - busy;
        (busy, ring.submit().is_err())
    });
    let (busy, failed) = refused.join().expect("no panic");
    assert!(failed, "entries were lost, and the ring has to say so");
    assert!(busy < Duration::from_secs(1), "{busy:?} of about 5 s");
}

/// The confining comes last: what was set up before it has to be given back.
#[test]
fn a_ring_that_can_t_be_confined_leaves_nothing_behind() {
    let descriptors = std::thread::spawn(|| {
        let config = Config {
            // A registered ring marks the number of the operation that is looked for below.
            features: Features::default()
                .with(Feature::Restrictions)
                .without(Feature::RegisteredRing),
            ..small()
        };
        drop(Ring::new(&config).expect("a ring"));
        /// `IORING_REGISTER_RESTRICTIONS`
        const REGISTER_RESTRICTIONS: u32 = 11;
        answer(
            libc::SYS_io_uring_register,
            Some(REGISTER_RESTRICTIONS),
            libc::EINVAL,
        );
        let open = || std::fs::read_dir("/proc/self/fd").expect("/proc").count();
        let before = open();
        for _ in 0..20 {
            assert!(Ring::new(&config).is_err());
        }
        (before, open())
    });
    let (before, after) = descriptors.join().expect("no panic");
    assert!(after < before + 10, "{before} descriptors became {after}");
}

#[test]
fn a_seccomp_filter_is_named_with_its_cure() {
    let denied = std::thread::spawn(|| {
        answer(libc::SYS_io_uring_setup, None, libc::EPERM);
        Ring::new(&Config::default()).map(drop)
    });
    let error = denied.join().expect("the thread ends").unwrap_err();
    assert!(matches!(error, SetupError::Denied { .. }), "{error:?}");
    assert!(error.is_unavailable(), "so that auto falls back");
    let text = error.to_string();
    assert!(
        text.contains("seccomp") && text.contains("seccomp=unconfined"),
        "{text}"
    );
}

/// Makes a call answer with an error on this thread, or only where its second argument is `argument` (seccomp(2), a filter
/// on the call's number).
fn answer(call: libc::c_long, argument: Option<u32>, errno: i32) {
    let jump = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let load = |offset| jump(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0);
    let equal = |k, jf| jump(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, k, 0, jf);
    let end = |k| jump(libc::BPF_RET | libc::BPF_K, k, 0, 0);
    // `struct seccomp_data`: the number of the call, then at 16 its arguments, 8 bytes each; the low half of the second.
    let mut filter = match argument {
        None => vec![load(0), equal(call as u32, 1)],
        Some(value) => vec![load(0), equal(call as u32, 3), load(24), equal(value, 1)],
    };
    filter.push(end(libc::SECCOMP_RET_ERRNO | errno as u32));
    filter.push(end(libc::SECCOMP_RET_ALLOW));
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: both calls only change what this thread may do; the program and its filter outlive the second, which
    // copies them.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let mode = libc::SECCOMP_MODE_FILTER;
        assert_eq!(
            libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program),
            0
        );
    }
}
