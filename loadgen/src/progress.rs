//! Progress on a terminal: one line on stderr, redrawn when an interval is complete. It is drawn by the collecting
//! thread, never by a worker.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use echometer_host::units::{show_duration, show_ns, show_rate};
use echometer_loadgen::{Plan, file::IntervalRow};

/// The line, or nothing where nobody looks.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// A line for a run of `plan`; silent unless `shown`.
    pub(crate) fn new(plan: &Plan, shown: bool) -> Progress {
        if !shown {
            return Progress(ProgressBar::hidden());
        }
        let length_ms = plan.duration.as_millis() as u64;
        let bar = ProgressBar::with_draw_target(Some(length_ms), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{bar:24} {msg}")
            .expect("the template is a constant and well-formed");
        bar.set_style(style);
        let warmup = show_duration(plan.warmup);
        bar.set_message(format!("connecting, then {warmup} of warm-up"));
        bar.tick();
        Progress(bar)
    }

    /// An interval is complete.
    pub(crate) fn show(&mut self, row: &IntervalRow) {
        let quantile = |value: Option<u64>| value.map_or("-".to_owned(), show_ns);
        let (p50, p99) = (quantile(row.latency_ns.p50), quantile(row.latency_ns.p99));
        let rate = show_rate(row.rate_per_s);
        self.0.set_position(row.end_ns / 1_000_000);
        self.0.set_message(format!(
            "{} {rate}/s p50 {p50} p99 {p99}",
            show_ns(row.end_ns)
        ));
    }

    /// Takes the line away.
    pub(crate) fn clear(&mut self) {
        self.0.finish_and_clear();
    }
}
