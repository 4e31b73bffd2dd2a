//! What does `/proc/PID/stat` say of a process? Its parent, when it started, and the CPU time of the
//! children that it has waited for.

use std::{fs, io};

use super::invalid;

/// The fields of proc_pid_stat(5) that are of use here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    /// The parent's number; 0 for those without one.
    pub parent: u32,
    /// When it started, in clock ticks since boot: with its number it names a process for good.
    pub started: u64,
    /// User and system time of all descendants that were waited for, in nanoseconds, cut to a clock tick
    /// (10 ms) each.
    pub reaped_ns: u64,
}

impl Stat {
    pub(super) fn read(pid: u32) -> io::Result<Stat> {
        let file = format!("/proc/{pid}/stat");
        // A program's name may be any bytes, so this is no text for sure.
        let bytes = fs::read(&file)?;
        Stat::parse(&String::from_utf8_lossy(&bytes), ns_per_tick()).ok_or_else(|| invalid(&file))
    }

    fn parse(text: &str, ns_per_tick: u64) -> Option<Stat> {
        // The second field is the program's name in parentheses, and may hold spaces and parentheses.
        let (_, after_name) = text.rsplit_once(')')?;
        let fields: Vec<&str> = after_name.split_ascii_whitespace().collect();
        // proc(5) counts from 1, and two fields are gone.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let reaped_ticks = field(16)?.checked_add(field(17)?)?;
        Some(Stat {
            parent: u32::try_from(field(4)?).ok()?,
            started: field(22)?,
            reaped_ns: reaped_ticks.checked_mul(ns_per_tick)?,
        })
    }
}

fn ns_per_tick() -> u64 {
    1_000_000_000 / rustix::param::clock_ticks_per_second().max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LINE: &str = "1234 (odd ) name)) S 1 1234 1234 0 -1 4194560 100 0 0 0 7 3 250 50 20 0 1 0 98765 1000000 200 \
                        18446744073709551615";

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let stat = Stat::parse(LINE, 10_000_000).unwrap();
        assert_eq!(
            stat,
            Stat {
                parent: 1,
                started: 98_765,
                reaped_ns: 3_000_000_000
            }
        );
    }

    #[test]
    fn this_process_has_a_parent() {
        let stat = Stat::read(std::process::id()).unwrap();
        assert_eq!(stat.parent, std::os::unix::process::parent_id());
        assert!(0 < stat.started);
    }

    proptest! {
        #[test]
        fn no_contents_make_it_panic(cut in 0..LINE.len(), junk in "[0-9 ()a-z-]{0,60}") {
            let _ = Stat::parse(&LINE[..cut], 10_000_000);
            let _ = Stat::parse(&format!("{}{junk}", &LINE[..cut]), 10_000_000);
            let _ = Stat::parse(&junk, u64::MAX);
        }
    }
}
