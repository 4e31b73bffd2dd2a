//! Do processes wait for a cpu? Pressure stall information (PSI): the share of time in which somebody
//! was ready to run and could not.

use std::io;

use serde::{Deserialize, Serialize};

use super::{invalid, read};

/// Reads the cpu pressure of the whole machine.
///
/// # Errors
/// The kernel has no pressure accounting (`CONFIG_PSI`, or `psi=1` is missing on its command line).
pub fn cpu_pressure() -> io::Result<Pressure> {
    const CPU: &str = "/proc/pressure/cpu";
    Pressure::parse(&read(CPU)?).ok_or_else(|| invalid(CPU))
}

/// Pressure on a resource (Documentation/accounting/psi.rst).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Pressure {
    /// Time in which at least one task was stalled, in nanoseconds since boot; the kernel counts in
    /// microseconds.
    pub some_ns: u64,
    /// The share of the last ten seconds in which at least one task was stalled, 0 to 1.
    pub some_last_10_s: f64,
}

impl Pressure {
    /// The line `some avg10=0.12 avg60=0.18 avg300=0.38 total=6195627`.
    fn parse(text: &str) -> Option<Pressure> {
        let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
        let field = |name: &str| {
            some.split(' ')
                .find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
        };
        let total_us: u64 = field("total")?.parse().ok()?;
        let percent: f64 = field("avg10")?
            .parse()
            .ok()
            .filter(|percent| (0.0..=100.0).contains(percent))?;
        Some(Pressure {
            some_ns: total_us.checked_mul(1_000)?,
            some_last_10_s: percent / 100.0,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_the_line_of_some() {
        let text = "some avg10=25.00 avg60=0.18 avg300=0.38 total=6195627\nfull avg10=1.00 avg60=0.00 avg300=0.00 total=9\n";
        assert_eq!(
            Pressure::parse(text),
            Some(Pressure {
                some_ns: 6_195_627_000,
                some_last_10_s: 0.25
            })
        );
        for odd in [
            "",
            "full avg10=0.00 total=0",
            "some avg10=NaN total=1",
            "some avg10=0.00 total=-1",
            "some total=1",
        ] {
            assert_eq!(Pressure::parse(odd), None, "{odd}");
        }
    }

    #[test]
    fn pressure_is_read_where_the_kernel_keeps_it() {
        match cpu_pressure() {
            Ok(first) => assert!(first.some_ns <= cpu_pressure().unwrap().some_ns),
            Err(error) => assert!(
                error.to_string().starts_with("/proc/pressure/cpu"),
                "{error}"
            ),
        }
    }

    proptest! {
        #[test]
        fn no_contents_make_it_panic(text in "(some |avg10=|total=| |[0-9.]{0,25}|\\n|\\PC){0,20}") {
            let _ = Pressure::parse(&text);
        }
    }
}
