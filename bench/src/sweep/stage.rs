//! What a sweep plays on: for each group of cells servers, a client and an open-loop load. The real one starts processes
//! and watches how the scheduler moves them; the tests have one that is made up.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    process,
    time::{Duration, Instant},
};

use echometer_host::{
    priority::{Priority, raised},
    process::{migrations, process_run_delay_ns},
    signals::Stop,
};
use echometer_loadgen::Fleet;
use echometer_report::{file::sweep::Movement, folder::ResultFolder};

use crate::{
    measure::{
        fleet_client::FleetClient,
        open_run::{Loadgen, OpenLoad},
        priority::client_priority,
        sides::{Arms, Client, CpuTimes, Started, Usage},
    },
    place::placement::Placement,
    serve::{arm::Arm, launcher::Launcher, servers::Servers},
    sweep::grid::Group,
};

/// The load generator names its worker threads so.
const CLIENT_THREADS: &str = "load-";

/// Where a group of cells is measured.
pub(crate) trait Stage {
    /// Makes load in slices.
    type Client: Client;
    /// Starts and watches the servers of a group; numbers are positions in the group.
    type Servers: Arms + Moves;
    /// Makes open-loop load.
    type Load: OpenLoad;

    /// A client for the cells of a group, connected to none.
    ///
    /// # Errors
    /// A sentence that says why there is none.
    fn client(&mut self, group: &Group) -> Result<Self::Client, String>;

    /// Servers for the cells of a group, none of them started.
    fn servers(&mut self, placement: &Placement, servers: Vec<Arm>) -> Self::Servers;

    /// Open-loop load.
    fn load(&mut self) -> &mut Self::Load;
}

/// Sees how the scheduler moves servers and client about.
pub(crate) trait Moves {
    /// Between the first and the last look at the usage of the `arm`-th server since it was started; `None` where it
    /// can't be read.
    fn movement(&self, arm: usize) -> Option<Movement>;
}

/// Processes of this machine.
pub(crate) struct Machine {
    launcher: Launcher,
    folder: ResultFolder,
    load: Loadgen,
    priority: Priority,
}

impl Machine {
    /// `launcher` starts the servers, wherever a group says; their logs go into `folder`.
    #[must_use]
    pub(crate) fn new(launcher: Launcher, folder: ResultFolder, stop: Stop) -> Self {
        let priority = launcher.priority;
        Self {
            launcher,
            folder,
            load: Loadgen { stop, priority },
            priority,
        }
    }
}

impl Stage for Machine {
    type Client = FleetClient;
    type Servers = Watched;
    type Load = Loadgen;

    fn client(&mut self, group: &Group) -> Result<FleetClient, String> {
        let priority = client_priority(self.priority, &group.load);
        let fleet = raised(priority, || Fleet::start(&group.load))
            .map_err(|error| error.to_string())?
            .map_err(|error| error.to_string())?;
        Ok(FleetClient::new(fleet, group.cells.len()))
    }

    fn servers(&mut self, placement: &Placement, servers: Vec<Arm>) -> Watched {
        let launcher = Launcher {
            server_cpus: placement.server.clone(),
            ..self.launcher.clone()
        };
        let looks = vec![None; servers.len()];
        Watched {
            servers: Servers::new(launcher, servers, self.folder.clone()),
            looks,
        }
    }

    fn load(&mut self) -> &mut Loadgen {
        &mut self.load
    }
}

/// Servers whose moves are noted at each look at their usage.
#[derive(Debug)]
pub(crate) struct Watched {
    servers: Servers,
    /// The first look since the start, and the last.
    looks: Vec<Option<(Look, Look)>>,
}

#[derive(Debug, Clone, Copy)]
struct Look {
    at: Instant,
    server_migrations: Option<u64>,
    client_migrations: Option<u64>,
    server_run_delay_ns: Option<u64>,
}

impl Look {
    fn now(server: u32) -> Look {
        Look {
            at: Instant::now(),
            server_migrations: migrations(server, "").ok(),
            client_migrations: migrations(process::id(), CLIENT_THREADS).ok(),
            server_run_delay_ns: process_run_delay_ns(server).ok(),
        }
    }
}

impl Moves for Watched {
    fn movement(&self, arm: usize) -> Option<Movement> {
        let (first, last) = self.looks[arm]?;
        // A count that went back has lost threads that ended.
        let since = |first: Option<u64>, last: Option<u64>| last?.checked_sub(first?);
        Some(Movement {
            span_ns: (last.at - first.at).as_nanos() as u64,
            server_migrations: since(first.server_migrations, last.server_migrations),
            client_migrations: since(first.client_migrations, last.client_migrations),
            server_run_delay_ns: since(first.server_run_delay_ns, last.server_run_delay_ns),
        })
    }
}

impl Arms for Watched {
    fn start(&mut self, block: usize, arm: usize) -> Result<SocketAddr, String> {
        self.looks[arm] = None;
        self.servers.start(block, arm)
    }

    fn ended(&mut self, arm: usize, patience: Duration) -> Option<String> {
        self.servers.ended(arm, patience)
    }

    fn cpu_ns(&mut self, arm: usize) -> Option<u64> {
        self.servers.cpu_ns(arm)
    }

    fn thread_cpu_ns(&mut self, arm: usize) -> BTreeMap<u32, u64> {
        self.servers.thread_cpu_ns(arm)
    }

    fn usage(&mut self, arm: usize) -> Option<Usage> {
        if let Some(pid) = self.servers.pid(arm) {
            let now = Look::now(pid);
            let first = self.looks[arm].map_or(now, |(first, _)| first);
            self.looks[arm] = Some((first, now));
        }
        self.servers.usage(arm)
    }

    fn server_cpus(&mut self) -> CpuTimes {
        self.servers.server_cpus()
    }

    fn stop(&mut self, arm: usize) {
        self.servers.stop(arm);
    }

    fn started(&self, arm: usize) -> Option<Started> {
        self.servers.started(arm)
    }

    fn now_ns(&mut self) -> u64 {
        self.servers.now_ns()
    }
}
