//! The real servers of a comparison, as the slices see them: started afresh for each block, their CPU clocks read at
//! drained points, the cpus under them watched.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use echometer_host::{
    clock,
    counters::cpu_times,
    process::{TreeClock, thread_cpu_ns, usage},
};
use echometer_report::folder::{ResultFolder, log_name};

use crate::{
    measure::sides::{Arms, CpuTimes, Started, Usage},
    serve::{
        arm::{Arm, Spec},
        launcher::{LET_GO_TIMEOUT, Launcher, ServerProcess},
        stray::{left_listening, listens_outside},
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
    /// Who was left behind, in sentences.
    strays: Vec<String>,
}

#[derive(Debug)]
struct Running {
    server: ServerProcess,
    log: PathBuf,
    /// `None` for a server that is not ours, or left its group.
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
            strays: Vec::new(),
        }
    }

    /// Throws away what the servers wrote: of a comparison that never began there is nothing to keep.
    pub(crate) fn discard_logs(&mut self) {
        for log in self.logs.drain(..) {
            // Those without a word are gone already.
            let _ = fs::remove_file(log);
        }
    }

    /// Whether the server of an arm could leave its process group: ours never do.
    fn may_leave(&self, arm: usize) -> bool {
        matches!(self.arms[arm].spec, Spec::Command { .. })
    }

    /// The process of an arm's server; `None` while it does not run, and for one that is not ours.
    #[must_use]
    pub(crate) fn pid(&self, arm: usize) -> Option<u32> {
        Some(self.running[arm].as_ref()?.server.group.as_ref()?.pid())
    }
}

impl Drop for Servers {
    /// Whatever becomes of the result, nobody is left behind without a word.
    fn drop(&mut self) {
        for arm in 0..self.arms.len() {
            self.stop(arm);
        }
        for stray in &self.strays {
            // With stderr gone there is nobody to be told.
            let _ = writeln!(io::stderr(), "note: {stray}");
        }
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
        let address = server.address;
        let mut remarks = Vec::new();
        let mut clock = None;
        if let Some(group) = &server.group {
            if self.may_leave(arm) && listens_outside(address, group.pid()) {
                remarks.push(
                    "runs outside of the process group that was started (it daemonised): its CPU time and memory are \
                     unknown"
                        .to_owned(),
                );
            } else {
                let tree = TreeClock::new(group.pid())
                    .map_err(|error| format!("has a CPU clock that can't be read: {error}"))?;
                clock = Some(tree);
            }
        }
        self.started[arm] = Some(Started {
            command: server.command.clone(),
            ready_line: server.ready_line.clone(),
            remarks,
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

    fn thread_cpu_ns(&mut self, arm: usize) -> BTreeMap<u32, u64> {
        self.pid(arm).map(thread_cpu_ns).unwrap_or_default()
    }

    fn usage(&mut self, arm: usize) -> Option<Usage> {
        // Without a clock it isn't the server that has this process id.
        self.running[arm].as_ref()?.clock.as_ref()?;
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
        let Some(Running { server, log, .. }) = self.running[arm].take() else {
            return;
        };
        let address = server.address;
        drop(server);
        discard_if_empty(&log);
        if self.may_leave(arm)
            && let Some(stray) = left_listening(address, LET_GO_TIMEOUT)
            && let Some(started) = &mut self.started[arm]
        {
            self.strays.push(format!("{} {stray}", self.arms[arm].name));
            started.remarks.push(stray);
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
