//! The flags of `echometer doctor`.

use clap::{Args, ValueEnum};

use echometer_host::{
    cpus::CpuList,
    fitness::{Purpose, Use},
    units,
};

/// The flags of `echometer doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorFlags {
    /// What will be measured: rings have demands of their own
    #[arg(
        long = "for",
        value_enum,
        value_name = "ENGINE",
        default_value = "uring"
    )]
    engine: EngineFlag,

    /// The cpus of server and client: 0, 2-5 [default: all that this process may use]
    #[arg(long, value_name = "LIST")]
    cpus: Option<CpuList>,

    /// How many connections there will be
    #[arg(long, short, value_name = "N", value_parser = units::count, default_value = "1000")]
    connections: u64,

    /// Print JSON (schema echometer.doctor/1)
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum EngineFlag {
    Uring,
    Epoll,
}

impl DoctorFlags {
    /// What the machine shall be fit for.
    #[must_use]
    pub(crate) fn purpose(&self) -> Purpose {
        Purpose {
            cpus: self.cpus.clone().unwrap_or_default(),
            connections: Some(self.connections),
            cpus_min: 2,
            engine: match self.engine {
                EngineFlag::Uring => Use::Uring,
                EngineFlag::Epoll => Use::Epoll,
            },
        }
    }
}

pub(crate) const EXAMPLES: &str = "\
Examples:
  echometer doctor                            io_uring on every cpu of this process
  echometer doctor --for epoll --cpus 2-3     for an epoll server and its client
  echometer doctor -c 20k                     are there ports and descriptors for so many?

Takes a second, needs no privileges, changes nothing. scripts/tune-host.sh shows
what it would change, and changes it with --apply.
Exit codes: 0 no FAIL, 3 a FAIL.";
