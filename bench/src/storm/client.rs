//! The load generator's storm, as the backlog laboratory sees it.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use echometer_host::signals::Stop;
use echometer_loadgen::{
    Plan, Target,
    storm::{self, StormPlan},
};

use crate::storm::{StormError, StormLoad, StormTally};

/// How long a connect may take, and then its echo: five SYNs are sent again in that time.
pub(crate) const TIME_LIMIT: Duration = Duration::from_secs(10);

/// Makes storms of one kind.
#[derive(Debug)]
pub(crate) struct LoadgenStorm {
    plan: StormPlan,
    stop: Stop,
}

impl LoadgenStorm {
    /// Storms of `load`'s connections at its pace. A request on `stop` ends one early.
    #[must_use]
    pub(crate) fn new(load: Plan, stop: Stop) -> Self {
        let plan = StormPlan {
            client: load,
            time_limit: TIME_LIMIT,
        };
        Self { plan, stop }
    }
}

impl StormLoad for LoadgenStorm {
    fn storm(&mut self, address: SocketAddr) -> Result<StormTally, StormError> {
        let storm = storm::run(&self.plan, &Target::from(address), Some(&self.stop))
            .map_err(|error| StormError::Failed(format!("could not be stormed: {error}")))?;
        if storm.stopped_early {
            return Err(StormError::Stopped);
        }
        let mut failed: BTreeMap<String, u64> = storm
            .failures
            .iter()
            .map(|(kind, count)| (kind.name().to_owned(), count))
            .collect();
        let silent = (storm.connects - storm.echoed).saturating_sub(storm.failures.total());
        if silent != 0 {
            failed.insert("no-echo".to_owned(), silent);
        }
        let syn_retransmits = (1_u32..)
            .zip(&storm.syn_retransmits[1..])
            .filter(|(_, count)| **count != 0)
            .map(|(times, count)| (times, *count))
            .collect();
        Ok(StormTally {
            connects: storm.connects,
            failed,
            connect: storm.connect_ns,
            first_echo: storm.first_echo_ns,
            syn_retransmits,
        })
    }
}
