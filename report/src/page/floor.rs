//! What an echo costs the kernel at least, to look at: by the number of connections, with its intervals.

use echometer_host::units::show_ns;

use crate::{
    file::floor::FloorFile,
    page::{
        chart::{Axis, Chart, Point, Scale, Series, Unit},
        frame::Frame,
        model::Page,
        table::{Cell, Table},
    },
};

/// The page of a floor.
pub(crate) fn page(floor: &FloorFile) -> Page {
    let title = format!("What an echo of {} B costs the kernel", floor.message_size);
    let mut page = Frame {
        kind: "floor",
        title,
        started_at: &floor.started_at,
        cut_short: floor.cut_short,
        sentence: &floor.sentence,
        verdict: None,
        machine: &floor.machine,
        doctor: &floor.doctor,
        commands: &[],
    }
    .page();
    page.trust.warnings.extend(floor.caveats.iter().cloned());
    page.commands = vec![(String::new(), floor.command.clone())];
    page.charts = vec![chart(floor)];
    page.charts.retain(|chart| !chart.is_empty());
    page.tables = vec![table(floor)];
    let blocks = floor.rows.iter().map(|row| row.blocks.len()).max();
    page.facts = [
        ("how", floor.method.clone()),
        ("on cpu", floor.cpu.to_string()),
        ("bytes in a message", floor.message_size.to_string()),
        ("blocks", blocks.unwrap_or_default().to_string()),
        ("each row in a block", show_ns(floor.duration_ns)),
        ("seed", floor.seed.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    page
}

fn chart(floor: &FloorFile) -> Chart {
    let points = floor.rows.iter().filter_map(|row| {
        let mut point = Point::at(f64::from(row.connections), row.cpu_ns_per_message?);
        point.low = row.ci_low;
        point.high = row.ci_high;
        Some(point)
    });
    Chart {
        id: "floor".into(),
        title: "The floor over connections".into(),
        caption: "CPU time per echo and side, minus two empty system calls, with its interval. More connections are more \
                  memory to touch."
            .into(),
        x: Axis {
            label: "connections".into(),
            scale: Scale::Log,
            unit: Unit::Number,
        },
        y: Axis {
            label: "CPU per message".into(),
            scale: Scale::Linear,
            unit: Unit::Ns,
        },
        series: vec![Series {
            name: "floor".into(),
            points: points.collect(),
            dots: true,
            ..Series::default()
        }],
        marks: Vec::new(),
        figures: table(floor),
    }
}

fn table(floor: &FloorFile) -> Table {
    let mut table = Table::new(
        "The floor",
        [
            "connections",
            "CPU per message",
            "from",
            "to",
            "two empty system calls",
            "echoes",
        ],
    );
    for row in &floor.rows {
        table.push(vec![
            Cell::count(Some(f64::from(row.connections))),
            Cell::ns(row.cpu_ns_per_message),
            Cell::ns(row.ci_low),
            Cell::ns(row.ci_high),
            Cell::ns(row.two_syscalls_ns),
            Cell::count(Some(row.echoes as f64)),
        ]);
    }
    table
}
