//! What time is it? Monotonic nanoseconds for measuring, thread CPU time for accounting, and the
//! calendar for naming results.

use rustix::time::{ClockId, Timespec, clock_gettime};

/// `CLOCK_MONOTONIC` in nanoseconds since an unspecified start (on Linux: boot).
///
/// Read through the vDSO, so it costs some 20-50 ns and no system call where the clocksource allows it
/// (`tsc`, `kvm-clock`). All threads and processes of the machine see the same clock, which is what lets
/// workers agree on a schedule.
#[inline]
#[must_use]
pub fn now_ns() -> u64 {
    nanoseconds(clock_gettime(ClockId::Monotonic))
}

/// CPU time used by the calling thread, user and system, in nanoseconds (`CLOCK_THREAD_CPUTIME_ID`).
///
/// This one is a system call: read it at the ends of a stretch of work, not for each message.
#[must_use]
pub fn thread_cpu_ns() -> u64 {
    nanoseconds(clock_gettime(ClockId::ThreadCPUTime))
}

/// Today, in UTC.
///
/// A clock set before 1970 reads as 1970-01-01.
#[must_use]
pub fn wall_date() -> Date {
    wall_time().date
}

/// Now, in UTC, to the second. See [`wall_date`] for its bounds.
#[must_use]
pub fn wall_time() -> DateTime {
    DateTime::from_unix_s(wall_unix_ns() / 1_000_000_000)
}

/// `CLOCK_REALTIME` in nanoseconds since 1970-01-01 UTC; 0 for a clock set before that.
#[must_use]
pub fn wall_unix_ns() -> u64 {
    nanoseconds(clock_gettime(ClockId::Realtime))
}

/// How far `CLOCK_REALTIME` is ahead of `CLOCK_MONOTONIC`, in nanoseconds; 0 for a wall clock that is behind it.
///
/// Good to half of what three clock reads take, some 100 ns. It changes only when the wall clock is set: corrections of
/// its rate go to both.
#[must_use]
pub fn wall_ahead_ns() -> u64 {
    // Of a few, the one that took the least: the others were interrupted.
    let tries = (0..5).map(|_| {
        let before = now_ns();
        let wall = wall_unix_ns();
        let after = now_ns();
        (
            after - before,
            wall.saturating_sub(before + (after - before) / 2),
        )
    });
    tries.min().map_or(0, |(_, ahead)| ahead)
}

/// A day of the Gregorian calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date {
    /// Year, 1970 or later.
    pub year: u64,
    /// Month, 1 to 12.
    pub month: u8,
    /// Day of the month, 1 to 31.
    pub day: u8,
}

impl Date {
    /// `20260814`: the name of a day's folder of results.
    #[must_use]
    pub fn compact(&self) -> String {
        format!("{:04}{:02}{:02}", self.year, self.month, self.day)
    }

    /// The date that lies `days` days after 1970-01-01.
    ///
    /// The arithmetic counts in eras of 400 years (146,097 days) that begin on 1 March, so that the leap
    /// day is the last of its year: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms",
    /// `civil_from_days`.
    fn from_days(days: u64) -> Date {
        const DAYS_PER_ERA: u64 = 146_097;
        const DAYS_FROM_0000_03_01_TO_1970: u64 = 719_468;
        let shifted = days + DAYS_FROM_0000_03_01_TO_1970;
        let era = shifted / DAYS_PER_ERA;
        let day_of_era = shifted % DAYS_PER_ERA;
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 {
            month_from_march + 3
        } else {
            month_from_march - 9
        };
        Date {
            year: era * 400 + year_of_era + u64::from(month <= 2),
            month: month as u8,
            day: day as u8,
        }
    }
}

impl std::fmt::Display for Date {
    /// `2026-08-14`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

/// A second of the UTC calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DateTime {
    /// The day.
    pub date: Date,
    /// Hour, 0 to 23.
    pub hour: u8,
    /// Minute, 0 to 59.
    pub minute: u8,
    /// Second, 0 to 59 (POSIX time has no leap seconds).
    pub second: u8,
}

impl DateTime {
    /// The calendar second that is `seconds` after 1970-01-01T00:00:00Z.
    #[must_use]
    pub fn from_unix_s(seconds: u64) -> DateTime {
        let of_day = seconds % 86_400;
        DateTime {
            date: Date::from_days(seconds / 86_400),
            hour: (of_day / 3_600) as u8,
            minute: (of_day / 60 % 60) as u8,
            second: (of_day % 60) as u8,
        }
    }
}

impl std::fmt::Display for DateTime {
    /// RFC 3339: `2026-08-14T09:05:00Z`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}T{:02}:{:02}:{:02}Z",
            self.date, self.hour, self.minute, self.second
        )
    }
}

/// Negative seconds (a wall clock before 1970) become 0; 584 years fit above it.
#[inline]
fn nanoseconds(time: Timespec) -> u64 {
    u64::try_from(time.tv_sec).map_or(0, |seconds| seconds * 1_000_000_000 + time.tv_nsec as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monotonic_time_never_goes_back_and_moves_on() {
        let start = now_ns();
        let mut last = start;
        for _ in 0..10_000 {
            let now = now_ns();
            assert!(last <= now);
            last = now;
        }
        assert!(start < last);
    }

    #[test]
    fn thread_cpu_time_counts_work_and_not_waiting() {
        let before = thread_cpu_ns();
        let deadline = now_ns() + 5_000_000;
        while now_ns() < deadline {}
        let worked = thread_cpu_ns() - before;
        assert!(0 < worked, "a busy thread used no CPU");

        let before = thread_cpu_ns();
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        receiver
            .recv_timeout(std::time::Duration::from_millis(50))
            .expect_err("nobody sends");
        drop(sender);
        let waited = thread_cpu_ns() - before;
        assert!(
            waited < 25_000_000,
            "a thread that waited 50 ms was charged {waited} ns"
        );
    }

    #[test]
    fn calendar_agrees_with_known_days() {
        let text = |unix_s| DateTime::from_unix_s(unix_s).to_string();
        assert_eq!(text(0), "1970-01-01T00:00:00Z");
        assert_eq!(text(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(text(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(text(1_000_000_000), "2001-09-09T01:46:40Z");
        assert_eq!(text(1_709_164_800), "2024-02-29T00:00:00Z");
        assert_eq!(text(4_107_542_400), "2100-03-01T00:00:00Z");
        assert_eq!(
            DateTime::from_unix_s(1_709_164_800).date.compact(),
            "20240229"
        );
    }

    /// Walks every day of 600 years beside the plainest possible calendar.
    #[test]
    fn calendar_agrees_with_counting_days() {
        let (mut year, mut month, mut day) = (1970_u64, 1_u8, 1_u8);
        for days in 0..600 * 365 {
            assert_eq!(Date::from_days(days), Date { year, month, day });
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let month_length = match month {
                2 if leap => 29,
                2 => 28,
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            day += 1;
            if month_length < day {
                (month, day) = (month + 1, 1);
            }
            if month == 13 {
                (year, month) = (year + 1, 1);
            }
        }
    }

    #[test]
    fn the_wall_clock_is_read_in_utc() {
        let std_s = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .expect("this machine's clock is past 1970")
            .as_secs();
        let ours_s = wall_unix_ns() / 1_000_000_000;
        assert!(std_s <= ours_s && ours_s <= std_s + 1);
        assert!(DateTime::from_unix_s(std_s) <= wall_time());
        assert!(DateTime::from_unix_s(std_s).date <= wall_date());
    }
}
