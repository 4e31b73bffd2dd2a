//! The real servers of a comparison, as the slices see them: started afresh for each block, their CPU clocks read at
//! drained points, the cpus under them watched.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use echometer_host::{
    clock,
    counters::cpu_times,
    process::{TreeClock, usage},
};

use crate::{
    arm::Arm,
    results::log_name,
    server_process::{Launcher, ServerProcess},
    slices::{Arms, CpuTimes, Usage},
};

/// All arms' servers.
#[derive(Debug)]
pub struct Servers {
    launcher: Launcher,
    arms: Vec<Arm>,
    folder: PathBuf,
    running: Vec<Option<Running>>,
    started: Vec<Option<Started>>,
}

/// How an arm's server was started last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// The command line; `None` for a server that was running already.
    pub command: Option<String>,
    /// What it said when it was ready; foreign servers say nothing that we know of.
    pub ready_line: Option<String>,
}

#[derive(Debug)]
struct Running {
    server: ServerProcess,
    log: PathBuf,
    /// `None` for a server that is not ours.
    clock: Option<TreeClock>,
}

impl Servers {
    /// Servers for `arms`, none of them started. Their logs go into `folder`, which exists.
    #[must_use]
    pub fn new(launcher: Launcher, arms: Vec<Arm>, folder: PathBuf) -> Self {
        let running = arms.iter().map(|_| None).collect();
        let started = arms.iter().map(|_| None).collect();
        Self { launcher, arms, folder, running, started }
    }

    /// How the arms' servers were started last, in the arms' order; `None` for one that never was.
    #[must_use]
    pub fn started(&self) -> &[Option<Started>] {
        &self.started
    }

    fn pid(&self, arm: usize) -> Option<u32> {
        Some(self.running[arm].as_ref()?.server.group.as_ref()?.pid())
    }
}

impl Arms for Servers {
    fn start(&mut self, block: usize, arm: usize) -> Result<SocketAddr, String> {
        let log = self.folder.join(log_name(block, &self.arms[arm].name));
        let server = self.launcher.start(&self.arms[arm], &log).map_err(|error| error.to_string())?;
        let clock = match &server.group {
            Some(group) => Some(
                TreeClock::new(group.pid()).map_err(|error| format!("has a CPU clock that can't be read: {error}"))?,
            ),
            None => None,
        };
        let address = server.address;
        self.started[arm] =
            Some(Started { command: server.command.clone(), ready_line: server.ready_line.clone() });
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
        Some(Usage { context_switches: usage.switches(), rss_bytes: usage.rss_bytes })
    }

    fn server_cpus(&mut self) -> CpuTimes {
        // Where /proc/stat can't be read, nothing is known of the cpus, and nothing is said.
        let all = cpu_times().unwrap_or_default();
        let ours = self.launcher.server_cpus.iter().filter_map(|cpu| all.get(&cpu));
        ours.fold(CpuTimes::default(), |sum, cpu| CpuTimes {
            busy_ns: sum.busy_ns + cpu.busy_ns() + cpu.steal_ns,
            softirq_ns: sum.softirq_ns + cpu.softirq_ns,
            steal_ns: sum.steal_ns + cpu.steal_ns,
        })
    }

    fn stop(&mut self, arm: usize) {
        if let Some(Running { server, log, .. }) = self.running[arm].take() {
            drop(server);
            // Only what has something to say is kept.
            if std::fs::metadata(&log).is_ok_and(|log| log.len() == 0) {
                let _ = std::fs::remove_file(&log);
            }
        }
    }

    fn now_ns(&mut self) -> u64 {
        clock::now_ns()
    }
}
