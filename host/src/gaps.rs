//! When does a thread that wants to run not run? A loop on one cpu reads the clock without pause: where two readings lie
//! far apart, something else had the cpu: a task, an interrupt, the hypervisor.

use std::{
    hint::spin_loop,
    io,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use crate::{
    clock::now_ns,
    pinning::{PinError, pin_current_thread},
    threads,
};

/// What is shorter is no gap: the clock itself takes 50 ns, a timer interrupt some microseconds.
pub const GAP_MIN: Duration = Duration::from_micros(5);
/// So many gaps are kept of one look; what comes after is left out, and counted.
const KEPT_MAX: usize = 1 << 18;
/// The loop asks that often whether it shall stop.
const LOOKS_A_STOP: u32 = 1 << 12;

/// The gaps of one cpu.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gaps {
    /// Which cpu.
    pub cpu: u32,
    /// How long the loop ran, gaps included, in ns.
    pub span_ns: u64,
    /// The gaps, in their order, in ns; each at least [`GAP_MIN`].
    pub gaps_ns: Vec<u64>,
    /// How many more there were.
    pub left_out: u64,
}

/// A cpu could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum GapsError {
    /// It can't be had.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// No thread can be started.
    #[error("{0}")]
    Thread(io::Error),
}

/// Looks at these cpus at once for `length`, or until `stop` says so: a thread on each spins.
///
/// # Errors
/// A cpu can't be had, or no thread.
pub fn watch(
    cpus: &[u32],
    length: Duration,
    stop: &(dyn Fn() -> bool + Sync),
) -> Result<Vec<Gaps>, GapsError> {
    let (ready, given_up) = (AtomicUsize::new(0), AtomicBool::new(false));
    let spin = |cpu| {
        let pinned = pin_current_thread(cpu);
        given_up.fetch_or(pinned.is_err(), Ordering::SeqCst);
        // Written to before the look, so that no page of it comes late.
        let mut gaps_ns = vec![0; KEPT_MAX];
        gaps_ns.clear();
        ready.fetch_add(1, Ordering::SeqCst);
        pinned?;
        // All begin together; while somebody is missing, the cpu is left to him.
        while ready.load(Ordering::SeqCst) < cpus.len() && !given_up.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        let mut gaps = Gaps {
            cpu,
            gaps_ns,
            ..Gaps::default()
        };
        if !given_up.load(Ordering::SeqCst) {
            look(&mut gaps, length, stop);
        }
        Ok(gaps)
    };
    thread::scope(|scope| {
        let spin = &spin;
        let mut spinning = Vec::new();
        for &cpu in cpus {
            let thread = threads::spawn_scoped(scope, format!("gaps-{cpu}"), move || spin(cpu));
            spinning.push(thread.map_err(|error| {
                // Nobody waits for the one that is missing.
                given_up.store(true, Ordering::SeqCst);
                GapsError::Thread(io::Error::other(error))
            })?);
        }
        let gaps = spinning
            .into_iter()
            .map(|thread| thread.join().expect("a loop over the clock does not panic"));
        gaps.collect()
    })
}

fn look(gaps: &mut Gaps, length: Duration, stop: &dyn Fn() -> bool) {
    let gap_min = GAP_MIN.as_nanos() as u64;
    let start = now_ns();
    let end = start + length.as_nanos() as u64;
    let (mut last, mut looks) = (start, 0u32);
    while last < end {
        let now = now_ns();
        let gap = now - last;
        if gap_min <= gap {
            match gaps.gaps_ns.len() < KEPT_MAX {
                true => gaps.gaps_ns.push(gap),
                false => gaps.left_out += 1,
            }
        }
        last = now;
        looks += 1;
        if looks % LOOKS_A_STOP == 0 && stop() {
            break;
        }
        spin_loop();
    }
    gaps.span_ns = last - start;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_has_its_length_and_gaps_that_fit_into_it() {
        let cpu = crate::cpus::allowed()
            .expect("a mask")
            .first()
            .expect("one");
        let length = Duration::from_millis(50);
        let gaps = watch(&[cpu], length, &|| false).expect("it can be looked at");
        let [gaps] = gaps.as_slice() else {
            panic!("one cpu")
        };
        assert_eq!((gaps.cpu, gaps.left_out), (cpu, 0));
        assert!(length.as_nanos() as u64 <= gaps.span_ns, "{gaps:?}");
        assert!(gaps.gaps_ns.iter().sum::<u64>() <= gaps.span_ns);
        assert!(gaps.gaps_ns.iter().all(|&gap| 5_000 <= gap));
        let stopped = watch(&[cpu], Duration::from_secs(600), &|| true).expect("it can");
        assert!(stopped[0].span_ns < 60_000_000_000);
    }

    #[test]
    fn a_cpu_that_is_not_there_is_an_error_for_all() {
        let cpu = crate::cpus::allowed()
            .expect("a mask")
            .first()
            .expect("one");
        let error =
            watch(&[cpu, 8191], Duration::from_secs(60), &|| false).expect_err("no such cpu");
        assert!(error.to_string().contains("cpu 8191"), "{error}");
    }
}
