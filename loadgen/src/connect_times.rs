//! What is remembered of connections being made: how long each took, how often its SYN was sent again, and how long
//! after its start the first echo came.

use hdrhistogram::Histogram;

use crate::summary::{VALUE_NS_MAX, histogram};

/// SYN retransmissions are told apart up to this number; more are counted with it. (`tcp_syn_retries` is 6 by default,
/// and the kernel gives up after that many.)
pub const SYN_RETRANSMITS_MAX: usize = 7;

/// A connect that took less cannot have had its SYN sent again: the kernel's first wait is a second
/// (`TCP_TIMEOUT_INIT`), and with a timer's grain of some ms in mind half of that is far enough below.
pub(crate) const RETRANSMIT_NS_MIN: u64 = 500_000_000;

/// The connects of a stretch, or of the opening of a session.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnectTimes {
    /// From before connect(2), or the request for it, until the connection was seen to be there, ns.
    pub connect_ns: Histogram<u64>,
    /// From the same instant until the first answer on the connection, ns. A connection that was open before the
    /// stretch has none.
    pub first_echo_ns: Histogram<u64>,
    /// Those of `connect_ns` whose SYN was sent again: at index n - 1 those with n retransmissions (`TCP_INFO`), the
    /// last for that many and more. `None` where there was no such connect.
    pub by_syn_retransmits: [Option<Box<Histogram<u64>>>; SYN_RETRANSMITS_MAX],
}

impl Default for ConnectTimes {
    fn default() -> ConnectTimes {
        ConnectTimes {
            connect_ns: histogram(),
            first_echo_ns: histogram(),
            by_syn_retransmits: Default::default(),
        }
    }
}

impl ConnectTimes {
    /// A connection was made in `took_ns`, after its SYN was sent again `syn_retransmits` times.
    pub fn connected(&mut self, took_ns: u64, syn_retransmits: u32) {
        let took_ns = took_ns.min(VALUE_NS_MAX);
        self.connect_ns.saturating_record(took_ns);
        if let Some(index) = (syn_retransmits as usize).checked_sub(1) {
            self.by_syn_retransmits[index.min(SYN_RETRANSMITS_MAX - 1)]
                .get_or_insert_with(|| Box::new(histogram()))
                .saturating_record(took_ns);
        }
    }

    /// The first answer on a connection came `took_ns` after its connect began.
    pub fn first_echo(&mut self, took_ns: u64) {
        self.first_echo_ns
            .saturating_record(took_ns.min(VALUE_NS_MAX));
    }

    /// How many connects were made at the n-th retransmission of their SYN: index 0 those that needed none.
    pub fn syn_retransmits(&self) -> [u64; SYN_RETRANSMITS_MAX + 1] {
        let mut counts = [0; SYN_RETRANSMITS_MAX + 1];
        for (count, histogram) in counts[1..].iter_mut().zip(&self.by_syn_retransmits) {
            *count = histogram.as_ref().map_or(0, |histogram| histogram.len());
        }
        counts[0] = self.connect_ns.len() - counts[1..].iter().sum::<u64>();
        counts
    }

    /// Adds another's figures to these.
    pub fn add(&mut self, other: &ConnectTimes) {
        let one_shape = "all of our histograms are of one shape";
        self.connect_ns.add(&other.connect_ns).expect(one_shape);
        self.first_echo_ns
            .add(&other.first_echo_ns)
            .expect(one_shape);
        for (mine, theirs) in self
            .by_syn_retransmits
            .iter_mut()
            .zip(&other.by_syn_retransmits)
        {
            match (mine, theirs) {
                (Some(mine), Some(theirs)) => mine.add(&**theirs).expect(one_shape),
                (mine @ None, Some(theirs)) => *mine = Some(theirs.clone()),
                (_, None) => {}
            }
        }
    }

    /// Empties it for its next use. Only what was used is touched.
    pub fn clear(&mut self) {
        for histogram in [&mut self.connect_ns, &mut self.first_echo_ns] {
            if !histogram.is_empty() {
                histogram.reset();
            }
        }
        self.by_syn_retransmits = Default::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retransmissions_are_told_apart_and_add_up() {
        let mut connects = ConnectTimes::default();
        for (took_ms, again) in [(1, 0), (2, 0), (1_030, 1), (2_040, 2), (50_000, 9)] {
            connects.connected(took_ms * 1_000_000, again);
        }
        connects.first_echo(3);
        assert_eq!(connects.syn_retransmits(), [2, 1, 1, 0, 0, 0, 0, 1]);
        let mut sum = ConnectTimes::default();
        sum.add(&connects);
        sum.add(&connects);
        assert_eq!(sum.syn_retransmits(), [4, 2, 2, 0, 0, 0, 0, 2]);
        assert_eq!((sum.connect_ns.len(), sum.first_echo_ns.len()), (10, 2));
        let once = sum.by_syn_retransmits[0].as_ref().unwrap();
        assert!(once.max().abs_diff(1_030_000_000) < 1_000_000);
        sum.clear();
        assert_eq!(sum.syn_retransmits(), [0; 8]);
    }
}
