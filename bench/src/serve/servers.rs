//! The real servers of a comparison, as the slices see them: started afresh for each block, their CPU clocks read at
//! drained points, the cpus under them watched.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use echometer_host::{
    clock,
    counters::cpu_times,
    process::{TreeClock, usage},
};
use echometer_report::folder::{ResultFolder, log_name};

use crate::{
    measure::sides::{Arms, CpuTimes, Started, Usage},
    serve::{
        arm::Arm,
        launcher::{Launcher, ServerProcess},
    },
};

/// All arms' servers.
#[derive(Debug)]
pub(crate) struct Servers {
    launcher: Launcher,
    arms: Vec<Arm>,
    folder: ResultFolder,
    running: Vec<Option<Running>>,
    started: Vec<Option<Started>>,
    /// Every log that was made, in order.
    logs: Vec<PathBuf>,
}

#[derive(Debug)]
struct Running {
    server: ServerProcess,
    log: PathBuf,
    /// `None` for a server that is not ours.
    clock: Option<TreeClock>,
}

impl Servers {
    /// Servers for `arms`, none of them started. Their logs go into the result's `folder`.
    #[must_use]
    pub(crate) fn new(launcher: Launcher, arms: Vec<Arm>, folder: ResultFolder) -> Self {
        let running = arms.iter().map(|_| None).collect();
        let started = arms.iter().map(|_| None).collect();
        Self {
            launcher,
            arms,
            folder,
            running,
            started,
            logs: Vec::new(),
        }
    }

    /// Throws away what the servers wrote: of a comparison that never began there is nothing to keep.
    pub(crate) fn discard_logs(&mut self) {
        for log in self.logs.drain(..) {
            // Those without a word are gone already.
            let _ = fs::remove_file(log);
        }
    }

    /// The process of an arm's server; `None` while it does not run, and for one that is not ours.
    #[must_use]
    pub(crate) fn pid(&self, arm: usize) -> Option<u32> {
        Some(self.running[arm].as_ref()?.server.group.as_ref()?.pid())
    }
}

impl Arms for Servers {
    fn start(&mut self, block: usize, arm: usize) -> Result<SocketAddr, String> {
        let log = self.folder.join(log_name(block, &self.arms[arm].name));
        self.logs.push(log.clone());
        let server = self
            .launcher
            .start(&self.arms[arm], &log)
            .map_err(|error| {
                discard_if_empty(&log);
                error.to_string()
            })?;
        let clock = match &server.group {
            Some(group) => Some(
                TreeClock::new(group.pid())
                    .map_err(|error| format!("has a CPU clock that can't be read: {error}"))?,
            ),
            None => None,
        };
        let address = server.address;
        self.started[arm] = Some(Started {
            command: server.command.clone(),
            ready_line: server.ready_line.clone(),
        });
        self.running[arm] = Some(Running { server, log, clock });
        Ok(address)
    }

    fn ended(&mut self, arm: usize, patience: Duration) -> Option<String> {
        self.running[arm].as_mut()?.server.ended(patience)
    }

    fn cpu_ns(&mut self, arm: usize) -> Option<u64> {
        Some(self.running[arm].as_mut()?.clock.as_mut()?.read_ns())
    }

    fn usage(&mut self, arm: usize) -> Option<Usage> {
        let usage = usage(self.pid(arm)?).ok()?;
        Some(Usage {
            context_switches: usage.switches(),
            rss_bytes: usage.rss_bytes,
        })
    }

    fn server_cpus(&mut self) -> CpuTimes {
        // Where /proc/stat can't be read, nothing is known of the cpus, and nothing is said.
        let all = cpu_times().unwrap_or_default();
        let ours = self
            .launcher
            .server_cpus
            .iter()
            .filter_map(|cpu| all.get(&cpu));
        ours.fold(CpuTimes::default(), |sum, cpu| CpuTimes {
            busy_ns: sum.busy_ns + cpu.busy_ns() + cpu.steal_ns,
            softirq_ns: sum.softirq_ns + cpu.softirq_ns,
            steal_ns: sum.steal_ns + cpu.steal_ns,
        })
    }

    fn stop(&mut self, arm: usize) {
        if let Some(Running { server, log, .. }) = self.running[arm].take() {
            drop(server);
            discard_if_empty(&log);
        }
    }

    fn started(&self, arm: usize) -> Option<Started> {
        self.started[arm].clone()
    }

    fn now_ns(&mut self) -> u64 {
        clock::now_ns()
    }
}

/// Of what the servers wrote only that is kept which says something.
fn discard_if_empty(log: &Path) {
    if fs::metadata(log).is_ok_and(|log| log.len() == 0) {
        let _ = fs::remove_file(log);
    }
}
