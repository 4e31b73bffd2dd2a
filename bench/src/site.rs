//! What does every measurement set up first, and what does it leave where it came to nothing?

use std::{io, time::Duration};

use echometer_host::{
    fitness::{self, Finding, Purpose, Use},
    limits,
    machine::Facts,
    priority::{Priority, raised},
};
use echometer_loadgen::Plan;
use echometer_report::{file::quiet::QuietEntry, folder::ResultFolder};

use crate::{
    flags::{MachineSettings, OutputSettings},
    measure::priority::client_priority,
    place::{
        placement::{Placement, place},
        quiet::{Spared, quieter},
    },
    serve::{
        arm::{Arm, Spec},
        launcher::Launcher,
    },
};

/// What an arm takes in a block besides load: starting and stopping a server, connecting. For the first guess of the time
/// left.
pub(crate) const START_AND_STOP: Duration = Duration::from_millis(100);
/// Descriptors of a process besides those of its connections.
const OTHER_DESCRIPTORS: u64 = 256;

/// Where a measurement takes place.
#[derive(Debug)]
pub(crate) struct Site {
    /// Which cpus both sides have.
    pub placement: Placement,
    /// Starts the servers.
    pub launcher: Launcher,
    /// What the machine is.
    pub machine: Facts,
}

impl Site {
    /// Places both sides, and finds what starts `servers`.
    ///
    /// # Errors
    /// A cpu can't be had, or a server's program isn't there.
    pub(crate) fn prepare(machine: &MachineSettings, servers: &[Arm]) -> anyhow::Result<Self> {
        let placement = place_for(machine, servers)?;
        Self::at(placement, machine.priority, servers)
    }

    /// The same where it is known already which cpus both sides have.
    ///
    /// # Errors
    /// A server's program isn't there, or a right to raise it is missing.
    pub(crate) fn at(
        placement: Placement,
        priority: Priority,
        servers: &[Arm],
    ) -> anyhow::Result<Self> {
        // Before anything starts: may we?
        raised(priority, || ())?;
        Ok(Self {
            launcher: Launcher {
                priority,
                ..Launcher::beside_this_program(servers, &placement.server)?
            },
            placement,
            machine: Facts::read(),
        })
    }

    /// The load as it will be made here: one thread per cpu of the client.
    ///
    /// # Errors
    /// It can't be made, or not with so many descriptors: servers inherit the limit, and each needs one per connection
    /// as the client does. `at_once` is how many connections there are at a time, over all servers.
    pub(crate) fn load(&self, load: &Plan, at_once: u64) -> anyhow::Result<Plan> {
        let load = Plan {
            workers: self.placement.client.iter().map(Some).collect(),
            ..load.clone()
        };
        load.validate()?;
        raise_descriptors(at_once)?;
        Ok(load)
    }

    /// The folder of the result: as asked for, else the next one of this `command`. No `main_file` is overwritten.
    ///
    /// # Errors
    /// It can't be made, or there is such a result in it.
    pub(crate) fn folder(
        &self,
        output: &OutputSettings,
        machine: &MachineSettings,
        command: &str,
        main_file: &str,
    ) -> anyhow::Result<ResultFolder> {
        ResultFolder::create(
            output.out.as_deref(),
            machine.name.as_deref(),
            &self.machine,
            command,
            main_file,
        )
    }
}

/// Where both sides run, as was asked or as the topology suggests.
///
/// # Errors
/// A cpu can't be had.
pub(crate) fn place_for(machine: &MachineSettings, servers: &[Arm]) -> anyhow::Result<Placement> {
    place(
        machine.server_cpus.as_ref(),
        machine.client_cpus.as_ref(),
        servers.iter().any(|arm| arm.spec.is_local()),
    )
}

/// Where both sides of an open loop of `load` run: where nobody named cpus, a short look at them says who gets which. What it
/// showed is given, too.
///
/// # Errors
/// A cpu can't be had.
pub(crate) fn placed_quietly(
    machine: &MachineSettings,
    servers: &[Arm],
    load: &Plan,
) -> anyhow::Result<(Placement, Option<QuietEntry>)> {
    let chosen = place_for(machine, servers)?;
    match machine.server_cpus.is_some() || machine.client_cpus.is_some() {
        true => Ok((chosen, None)),
        false => quieter(chosen, spared(machine.priority, load)),
    }
}

/// Servers at real-time priority are disturbed by no task; a client that is not is.
fn spared(servers: Priority, load: &Plan) -> Spared {
    match (servers, client_priority(servers, load)) {
        (Priority::Rt, Priority::None) => Spared::Client,
        _ => Spared::Server,
    }
}

/// Lets this process and its servers have so many connections at once.
///
/// # Errors
/// The limit can't be raised so far.
pub(crate) fn raise_descriptors(connections: u64) -> anyhow::Result<()> {
    limits::raise_nofile(connections + OTHER_DESCRIPTORS)?;
    Ok(())
}

/// Hands on how a measurement ended. One that failed before it had anything to keep (`is_empty`) leaves no trace; `also`
/// takes away what else it wrote. Where only files could not be written that is given back: there are figures to show.
///
/// # Errors
/// `outcome`'s, where there is nothing to show or it is not about files.
pub(crate) fn finish(
    outcome: anyhow::Result<()>,
    is_empty: bool,
    folder: &ResultFolder,
    also: impl FnOnce(),
) -> anyhow::Result<Option<anyhow::Error>> {
    let Err(error) = outcome else {
        return Ok(None);
    };
    if is_empty {
        also();
        folder.discard_if_empty();
    } else if error.chain().any(<dyn std::error::Error>::is::<io::Error>) {
        return Ok(Some(error));
    }
    Err(error)
}

/// What a result file keeps of this: the findings for its cpus and its servers, without those that need watching.
/// Which cpus the two sides share is said elsewhere, and remote servers' machines can't be looked at.
#[must_use]
pub(crate) fn findings<'a>(
    servers: impl IntoIterator<Item = &'a Arm>,
    placement: &Placement,
    machine: &Facts,
) -> Vec<Finding> {
    let rings = servers
        .into_iter()
        .any(|arm| matches!(&arm.spec, Spec::Engine { engine, .. } if engine == "uring"));
    let purpose = Purpose {
        cpus: placement
            .server
            .iter()
            .chain(placement.client.iter())
            .collect(),
        cpus_min: 1,
        connections: None,
        engine: if rings { Use::Uring } else { Use::Epoll },
    };
    fitness::at_a_glance(machine, purpose)
}
