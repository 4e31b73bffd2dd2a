//! The plan of a sweep: every point with every arm is a cell, and cells that meet the same load on the same cpus form a
//! group. Pure: what the machine is like comes in as values.

use std::time::Duration;

use echometer_loadgen::{
    Plan,
    plan::{Load, Wait},
};

use crate::{
    levels::{Axis, Change, Level},
    place::{layouts::Layout, placement::Placement},
    serve::arm::{Arm, Spec},
};

/// All that a sweep measures.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Grid {
    /// What is varied: one or two keys, every one with its levels.
    pub axes: Vec<Axis>,
    /// The arms' names as typed, the baseline first.
    pub arms: Vec<String>,
    /// Every combination of levels, the last key changing fastest.
    pub points: Vec<Point>,
    /// Every arm at every point: cell `point * arms + arm`.
    pub cells: Vec<Cell>,
    /// Cells that are measured together.
    pub groups: Vec<Group>,
}

/// One combination of levels.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Point {
    /// One per key.
    pub levels: Vec<Level>,
    /// `connections=50`, or `connections=50 size=64`.
    pub label: String,
    /// Where both sides stand, where that is what is varied.
    pub layout: Option<Layout>,
}

/// One arm at one point.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Cell {
    /// Index of its point.
    pub point: usize,
    /// Index of its arm.
    pub arm: usize,
    /// Index of its group.
    pub group: usize,
    /// The server that is started; its name is the cell's, unique and fit for a file: `03-uring`.
    pub server: Arm,
}

/// Cells under the same load on the same cpus. They take turns in slices; one group is measured after the other.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Group {
    /// The load, its workers placed.
    pub load: Plan,
    /// Where both sides run.
    pub placement: Placement,
    /// On how many cpus a server can be busy at once, for its share.
    pub server_width: usize,
    /// Indices of its cells.
    pub cells: Vec<usize>,
}

/// What a sweep starts from, before any level changes it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Base {
    /// One arm or more.
    pub arms: Vec<Arm>,
    /// The load. Its workers are placed here.
    pub load: Plan,
    /// Where both sides run, where no level says otherwise.
    pub placement: Placement,
    /// The layouts of this machine; empty where pinning is not varied.
    pub layouts: Vec<Layout>,
}

impl Grid {
    /// Plans a sweep.
    ///
    /// # Errors
    /// A sentence for the user: an arm that can't be changed so, a layout that this machine does not have, a load that
    /// can't be.
    pub(crate) fn plan(axes: &[Axis], base: &Base) -> Result<Grid, String> {
        let axes: Vec<Axis> = axes
            .iter()
            .map(|axis| with_layouts(axis, &base.layouts))
            .collect();
        let mut grid = Grid {
            points: points(&axes, &base.layouts)?,
            axes,
            arms: base.arms.iter().map(|arm| arm.name.clone()).collect(),
            cells: Vec::new(),
            groups: Vec::new(),
        };
        for (index, point) in grid.points.iter().enumerate() {
            for (arm, spec) in base.arms.iter().enumerate() {
                let mut server = spec.clone();
                let mut load = base.load.clone();
                let mut placement = base.placement.clone();
                let mut server_width = placement.server.len();
                for level in &point.levels {
                    level.change.apply_to_arm(&mut server)?;
                    level.change.apply_to_load(&mut load);
                    if let Change::ServerCpus(cpus) = &level.change {
                        server_width = cpus.len();
                        placement.server.clone_from(cpus);
                    }
                    if let Change::ServerFlag { flag, value } = &level.change
                        && *flag == "--threads"
                    {
                        let threads = value.parse().unwrap_or(usize::MAX);
                        server_width = threads.min(placement.server.len());
                    }
                }
                load.workers = placement.client.iter().map(Some).collect();
                if let Some(layout) = &point.layout {
                    server_width = 1;
                    place(layout, &mut server, &mut load, &mut placement);
                }
                load.validate().map_err(|error| {
                    format!("at {}: {}: {}", point.label, error.flag, error.reason)
                })?;
                server.name = format!("{:02}-{}", index + 1, spec.name);
                let cell = grid.cells.len();
                let group = grid.groups.iter().position(|group| {
                    group.load == load
                        && group.placement == placement
                        && group.server_width == server_width
                        && takes_turns(&load, &server)
                        && group
                            .cells
                            .iter()
                            .all(|&cell| takes_turns(&load, &grid.cells[cell].server))
                });
                let group = group.unwrap_or_else(|| {
                    grid.groups.push(Group {
                        load,
                        placement,
                        server_width,
                        cells: Vec::new(),
                    });
                    grid.groups.len() - 1
                });
                grid.groups[group].cells.push(cell);
                grid.cells.push(Cell {
                    point: index,
                    arm,
                    group,
                    server,
                });
            }
        }
        Ok(grid)
    }

    /// The cell of an arm at a point.
    #[must_use]
    pub(crate) fn cell(&self, point: usize, arm: usize) -> usize {
        point * self.arms.len() + arm
    }

    /// What one block takes, about: `overhead` is what a server's start and stop take.
    #[must_use]
    pub(crate) fn block_time(&self, overhead: Duration) -> Duration {
        self.cells
            .iter()
            .map(|cell| {
                let load = &self.groups[cell.group].load;
                load.duration + load.warmup + overhead
            })
            .sum()
    }

    /// The most connections that are open at once, on one side.
    #[must_use]
    pub(crate) fn connections_max(&self) -> u64 {
        let open = |group: &Group| u64::from(group.load.connections) * group.cells.len() as u64;
        self.groups.iter().map(open).max().unwrap_or(0)
    }
}

/// Whether a server can rest while others are measured in its group: a loop of slices that is closed, and a server that
/// sleeps when there is nothing to do.
fn takes_turns(load: &Plan, server: &Arm) -> bool {
    load.load == Load::Closed && !server.spec.never_sleeps()
}

/// `pinning=auto` stands for all layouts of the machine.
fn with_layouts(axis: &Axis, layouts: &[Layout]) -> Axis {
    let levels = match axis.levels.is_empty() {
        false => axis.levels.clone(),
        true => layouts
            .iter()
            .map(|layout| Level {
                text: layout.kind.name().to_owned(),
                change: Change::Layout(layout.kind),
            })
            .collect(),
    };
    Axis {
        key: axis.key,
        levels,
    }
}

fn points(axes: &[Axis], layouts: &[Layout]) -> Result<Vec<Point>, String> {
    let mut combinations: Vec<Vec<Level>> = vec![Vec::new()];
    for axis in axes {
        combinations = combinations
            .into_iter()
            .flat_map(|levels| {
                axis.levels.iter().map(move |level| {
                    let mut levels = levels.clone();
                    levels.push(level.clone());
                    levels
                })
            })
            .collect();
    }
    combinations
        .into_iter()
        .map(|levels| {
            let label: Vec<String> = axes
                .iter()
                .zip(&levels)
                .map(|(axis, level)| format!("{}={}", axis.key, level.text))
                .collect();
            let wanted = levels.iter().find_map(|level| match level.change {
                Change::Layout(kind) => Some(kind),
                _ => None,
            });
            let layout = wanted
                .map(|kind| {
                    let found = layouts.iter().find(|layout| layout.kind == kind).cloned();
                    found.ok_or_else(|| {
                        let known: Vec<&str> =
                            layouts.iter().map(|layout| layout.kind.name()).collect();
                        format!(
                            "--over pinning: this machine has no layout {kind}; it has {}",
                            known.join(", ")
                        )
                    })
                })
                .transpose()?;
            Ok(Point {
                levels,
                label: label.join(" "),
                layout,
            })
        })
        .collect()
}

/// One worker each, so that the layouts differ in nothing but the place.
fn place(layout: &Layout, server: &mut Arm, load: &mut Plan, placement: &mut Placement) {
    placement.server.clone_from(&layout.server);
    placement.client = match layout.client {
        Some(cpu) => [cpu].into_iter().collect(),
        None => layout.server.clone(),
    };
    load.workers = vec![layout.client];
    if let Spec::Engine { flags, .. } = &mut server.spec
        && layout.client.is_none()
    {
        // One worker per cpu would be pinned; `--threads` alone pins nothing.
        flags.extend(["--threads", "1"].map(str::to_owned));
    }
    // A client that spins would not let a server on its own cpu run.
    load.wait = Wait::Block;
}

#[cfg(test)]
mod tests {
    use echometer_host::cpus::CpuList;

    use super::*;
    use crate::{levels::parse_axes, place::layouts::LayoutKind, serve::arm::parse_arms};

    fn list(text: &str) -> CpuList {
        text.parse().expect("a test's list")
    }

    fn base(arms: &[&str]) -> Base {
        let layout = |kind, server: &str, client| Layout {
            kind,
            server: list(server),
            client,
        };
        Base {
            arms: parse_arms(arms).expect("test arms"),
            load: Plan::default(),
            placement: Placement {
                server: list("0"),
                client: list("1"),
            },
            layouts: vec![
                layout(LayoutKind::Unpinned, "0-1", None),
                layout(LayoutKind::SameCpu, "0", Some(0)),
                layout(LayoutKind::SameL3, "0", Some(1)),
            ],
        }
    }

    fn planned(over: &[&str], arms: &[&str]) -> Result<Grid, String> {
        Grid::plan(&parse_axes(over).expect("test axes"), &base(arms))
    }

    fn labels(grid: &Grid) -> Vec<&str> {
        grid.points
            .iter()
            .map(|point| point.label.as_str())
            .collect()
    }

    #[test]
    fn every_arm_is_at_every_point() {
        let grid = planned(&["connections=1,50", "size=64,4KiB"], &["epoll", "uring"])
            .expect("it can be planned");
        assert_eq!(
            labels(&grid),
            [
                "connections=1 size=64",
                "connections=1 size=4KiB",
                "connections=50 size=64",
                "connections=50 size=4KiB"
            ]
        );
        assert_eq!((grid.cells.len(), grid.groups.len()), (8, 4));
        let cell = &grid.cells[grid.cell(3, 1)];
        assert_eq!(
            (cell.point, cell.arm, cell.server.name.as_str()),
            (3, 1, "04-uring")
        );
        let load = &grid.groups[cell.group].load;
        assert_eq!((load.connections, load.message_size), (50, 4096));
        assert_eq!(load.workers, [Some(1)]);
        assert_eq!(grid.groups[0].cells, [0, 1], "arms at one point take turns");
    }

    #[test]
    fn flags_of_the_server_take_turns_under_one_load() {
        let grid = planned(&["uring=+bundle;-direct;+bundle,-direct"], &["uring"])
            .expect("it can be planned");
        assert_eq!(grid.groups.len(), 1);
        assert_eq!(grid.groups[0].cells, [0, 1, 2]);
        assert_eq!(
            grid.cells[2].server.spec.to_string(),
            "uring:--uring +bundle,-direct"
        );
    }

    #[test]
    fn servers_that_never_sleep_are_alone() {
        let grid =
            planned(&["wait=block,spin,hybrid:50us"], &["uring"]).expect("it can be planned");
        let groups: Vec<usize> = grid.cells.iter().map(|cell| cell.group).collect();
        assert_eq!(groups, [0, 1, 0]);
    }

    #[test]
    fn open_loops_are_alone() {
        let grid = planned(&["rate=1k,2k"], &["epoll", "uring"]).expect("it can be planned");
        assert_eq!(grid.groups.len(), 4);
    }

    #[test]
    fn layouts_are_the_machines_own_and_place_both_sides() {
        let grid = planned(&["pinning=auto"], &["uring"]).expect("it can be planned");
        assert_eq!(
            labels(&grid),
            ["pinning=unpinned", "pinning=same-cpu", "pinning=same-l3"]
        );
        let unpinned = &grid.groups[0];
        assert_eq!(unpinned.load.workers, [None]);
        assert_eq!(unpinned.placement.server, list("0-1"));
        assert_eq!(grid.cells[0].server.spec.to_string(), "uring:--threads 1");
        let same = &grid.groups[1];
        assert_eq!(
            (same.load.workers.as_slice(), &same.placement.server),
            ([Some(0)].as_slice(), &list("0"))
        );
        let error = planned(&["pinning=other-node"], &["uring"]).expect_err("there is one node");
        assert!(
            error.contains("no layout other-node") && error.contains("same-l3"),
            "{error}"
        );
    }

    #[test]
    fn cpus_move_the_server() {
        let grid = planned(&["cpus=0;0,1"], &["uring"]).expect("it can be planned");
        assert_eq!(grid.groups[1].placement.server, list("0-1"));
        assert_eq!(grid.groups[1].server_width, 2);
    }

    #[test]
    fn what_can_t_be_changed_is_said() {
        let error = planned(&["backlog=1,2"], &["tcp:host:1"]).expect_err("it runs already");
        assert!(error.contains("running already"), "{error}");
    }

    #[test]
    fn times_and_connections_add_up() {
        let grid = planned(&["connections=10,20"], &["epoll", "uring"]).expect("it can be planned");
        // Plan::default: 2 s of warm-up, 10 s measured.
        assert_eq!(grid.block_time(Duration::ZERO), Duration::from_secs(48));
        assert_eq!(grid.connections_max(), 40);
    }
}
