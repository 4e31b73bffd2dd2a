//! Which cpu is quiet? A short look at those that could be taken, before latencies are compared: the noisier of two cpus
//! is not the server's. With a server at real-time priority tasks disturb it no more, but they disturb a client that spins:
//! then the client has the quieter one.

use std::time::Duration;

use anyhow::Context;

use echometer_host::{
    cpus::{self, CpuList},
    gaps,
    topology::Topology,
    units::show_ns,
};
use echometer_report::file::quiet::{QuietCpu, QuietEntry};
use echometer_statistics::mean_wait;

use crate::place::placement::{Placement, partner};

/// How long each candidate is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// So many candidates are looked at.
const CANDIDATES_MAX: usize = 8;
/// A cpu has to be quieter by this factor to be taken instead of the topology's choice.
const FACTOR: f64 = 2.0;
/// A mean wait up to this is quiet enough: a timer's interrupts make some 10 ns.
const QUIET_NS: f64 = 100.0;

/// Which side is to have the quieter cpu.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spared {
    /// The servers.
    Server,
    /// The client: the servers run above what disturbs.
    Client,
}

/// Looks at the cpus that could be taken instead of `chosen`, which the topology did, and places both sides anew where
/// another one is clearly quieter. A placement of several cpus, or of one side only, stays.
///
/// # Errors
/// A cpu can't be looked at.
pub(crate) fn quieter(
    chosen: Placement,
    spared: Spared,
) -> anyhow::Result<(Placement, Option<QuietEntry>)> {
    if chosen.server.len() != 1 || chosen.client.len() != 1 || chosen.server == chosen.client {
        return Ok((chosen, None));
    }
    let allowed = cpus::allowed().context("cannot read this process's cpu mask")?;
    let topology = Topology::read_or(&allowed);
    let candidates = candidates(&topology, &allowed, &chosen);
    let mut seen: Vec<QuietCpu> = Vec::new();
    for round in rounds(&candidates) {
        for gaps in gaps::watch(&round, LOOK, &|| false)? {
            if seen.iter().all(|seen| seen.cpu != gaps.cpu) {
                seen.push(QuietCpu {
                    cpu: gaps.cpu,
                    mean_wait_ns: mean_wait(&gaps.gaps_ns, gaps.span_ns),
                    longest_ns: gaps.gaps_ns.iter().copied().max().unwrap_or(0),
                });
            }
        }
    }
    let (placement, moved) = decide(&topology, &allowed, chosen, spared, &seen);
    Ok((
        placement,
        Some(QuietEntry {
            look_ns: LOOK.as_nanos() as u64,
            cpus: seen,
            moved,
        }),
    ))
}

/// The topology's choice first, then cpus that are as strong.
fn candidates(topology: &Topology, allowed: &CpuList, chosen: &Placement) -> Vec<u32> {
    let both: Vec<u32> = chosen.server.iter().chain(chosen.client.iter()).collect();
    let strength = |cpu| topology.cpu(cpu).map(|cpu| cpu.kind.strength());
    let wanted = both.first().map(|&cpu| strength(cpu));
    let others = allowed
        .iter()
        .filter(|cpu| !both.contains(cpu) && Some(strength(*cpu)) == wanted);
    both.iter()
        .copied()
        .chain(others)
        .take(CANDIDATES_MAX)
        .collect()
}

/// Where both sides go, and why not where they were.
fn decide(
    topology: &Topology,
    allowed: &CpuList,
    chosen: Placement,
    spared: Spared,
    seen: &[QuietCpu],
) -> (Placement, Option<String>) {
    let (side, who) = match spared {
        Spared::Server => (&chosen.server, "the server"),
        Spared::Client => (&chosen.client, "the client"),
    };
    let now = seen.iter().find(|cpu| side.contains(cpu.cpu));
    let quietest = seen
        .iter()
        .min_by(|a, b| a.mean_wait_ns.total_cmp(&b.mean_wait_ns));
    let (Some(now), Some(best)) = (now, quietest) else {
        return (chosen, None);
    };
    if now.mean_wait_ns < FACTOR * best.mean_wait_ns.max(QUIET_NS) || now.cpu == best.cpu {
        return (chosen, None);
    }
    let one = |cpu| CpuList::from_iter([cpu]);
    // The other side stays, if it can; else it goes where the topology says, rather not onto the noisy cpu.
    let other = match spared {
        Spared::Server => &chosen.client,
        Spared::Client => &chosen.server,
    };
    let other = match other.contains(best.cpu) {
        false => other.first(),
        true => partner(topology, &allowed.difference(&one(now.cpu)), &one(best.cpu))
            .or_else(|| partner(topology, allowed, &one(best.cpu))),
    };
    let Some(other) = other else {
        return (chosen, None);
    };
    let moved = format!(
        "{who} runs on cpu {} and not on cpu {}: a look of {} showed gaps up to {} there, and up to {} here (see `echometer \
         jitter`)",
        best.cpu,
        now.cpu,
        show_ns(LOOK.as_nanos() as u64),
        show_ns(now.longest_ns),
        show_ns(best.longest_ns),
    );
    let (server, client) = match spared {
        Spared::Server => (best.cpu, other),
        Spared::Client => (other, best.cpu),
    };
    let placement = Placement {
        server: one(server),
        client: one(client),
    };
    (placement, Some(moved))
}

/// Looks in rounds of two cpus at once; see [`crate::jitter`] for why. An odd one out has the first beside it.
#[must_use]
pub(crate) fn rounds(cpus: &[u32]) -> Vec<Vec<u32>> {
    let mut rounds: Vec<Vec<u32>> = cpus.chunks(2).map(<[u32]>::to_vec).collect();
    if let (Some(last), Some(&first)) = (rounds.last_mut(), cpus.first())
        && last.len() == 1
        && last[0] != first
    {
        last.push(first);
    }
    rounds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cpu_has_one_beside_it_where_there_are_two() {
        assert_eq!(rounds(&[0, 1]), [[0, 1]]);
        assert_eq!(rounds(&[2, 3, 5]), [[2, 3], [5, 2]]);
        assert_eq!(rounds(&[7]), [[7]]);
        assert!(rounds(&[]).is_empty());
    }

    fn list(text: &str) -> CpuList {
        text.parse().expect("a test's list")
    }

    fn decided(
        allowed: &str,
        spared: Spared,
        waits_ns: &[f64],
    ) -> (String, String, Option<String>) {
        let allowed = list(allowed);
        let topology = Topology {
            cpus: allowed
                .iter()
                .map(echometer_host::topology::Cpu::unknown)
                .collect(),
        };
        let chosen = Placement {
            server: list("0"),
            client: list("1"),
        };
        let seen: Vec<QuietCpu> = (0..)
            .zip(waits_ns)
            .map(|(cpu, &mean_wait_ns)| QuietCpu {
                cpu,
                mean_wait_ns,
                longest_ns: 2_000_000,
            })
            .collect();
        let (placement, moved) = decide(&topology, &allowed, chosen, spared, &seen);
        (
            placement.server.to_string(),
            placement.client.to_string(),
            moved,
        )
    }

    fn placed(allowed: &str, spared: Spared, waits_ns: &[f64]) -> (String, String) {
        let (server, client, moved) = decided(allowed, spared, waits_ns);
        assert_eq!(
            moved.is_some(),
            (server.as_str(), client.as_str()) != ("0", "1")
        );
        (server, client)
    }

    fn on(server: &str, client: &str) -> (String, String) {
        (server.to_owned(), client.to_owned())
    }

    #[test]
    fn only_a_clearly_quieter_cpu_moves_anybody() {
        let server = Spared::Server;
        assert_eq!(placed("0-1", server, &[20_000.0, 15.0]), on("1", "0"));
        assert_eq!(
            placed("0-1", server, &[20_000.0, 11_000.0]),
            on("0", "1"),
            "less than twice"
        );
        assert_eq!(
            placed("0-1", server, &[150.0, 5.0]),
            on("0", "1"),
            "both are quiet"
        );
        assert_eq!(
            placed("0-1", server, &[15.0, 20_000.0]),
            on("0", "1"),
            "it is where it should be"
        );
        assert_eq!(
            placed("0-2", server, &[20_000.0, 15.0, 900.0]),
            on("1", "2"),
            "not onto the noisy one"
        );
        assert_eq!(
            placed("0-2", server, &[20_000.0, 900.0, 15.0]),
            on("2", "1"),
            "the client stays"
        );
        assert_eq!(placed("0-1", server, &[]), on("0", "1"));
    }

    #[test]
    fn above_the_noise_it_is_the_client_that_is_spared() {
        let client = Spared::Client;
        assert_eq!(placed("0-1", client, &[20_000.0, 15.0]), on("0", "1"));
        assert_eq!(placed("0-1", client, &[15.0, 20_000.0]), on("1", "0"));
        let (.., moved) = decided("0-1", client, &[15.0, 20_000.0]);
        let moved = moved.expect("it is said");
        assert!(
            moved.starts_with("the client runs on cpu 0 and not on cpu 1: "),
            "{moved}"
        );
    }
}
