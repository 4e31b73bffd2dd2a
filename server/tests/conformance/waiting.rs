//! What a worker does while there is nothing to do: `--wait`.

use std::thread;
use std::time::{Duration, Instant};

use crate::support::{Process, connect_to, echo};

pub(crate) fn spinning_burns_and_a_hybrid_comes_to_rest(engine: &str) {
    for (wait, spins) in [("spin", true), ("hybrid:200us", false)] {
        let server = Process::start(engine, &["--threads", "1", "--wait", wait]);
        let mut stream = connect_to(server.address);
        for _ in 0..100 {
            echo(&mut stream, b"spinning or not, it is served");
        }
        let (before, began) = (server.cpu_time(), Instant::now());
        thread::sleep(Duration::from_millis(500));
        let (used, passed) = (server.cpu_time() - before, began.elapsed());
        // A spinning one gets what others leave it of two cpus, where tests run side by side.
        assert_eq!(
            passed / 10 < used,
            spins,
            "--wait {wait}: {used:?} of CPU in {passed:?}"
        );
        echo(&mut stream, b"and it wakes");
    }
}
