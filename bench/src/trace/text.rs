//! A trace as text of at most 80 columns: a line per step, below it what came of it and what it would have said on
//! failure; on demand a sentence for who sees it for the first time.

use std::fmt::Write as _;

use echometer_host::units::show_ns;
use echometer_report::text::columns::paragraph;

use crate::trace::steps::{Step, Trace};

/// Where the words below a step begin.
const INDENT: usize = 11;

/// The whole trace; with `explain` each kind of step is explained once.
#[must_use]
pub(crate) fn text(trace: &Trace, explain: bool) -> String {
    let mut text = heading(trace);
    let mut known = Vec::new();
    for step in &trace.steps {
        let first = !known.contains(&step.kind);
        known.push(step.kind);
        text.push_str(&line(step));
        wrap(&mut text, "-> ", &step.saw);
        // A demonstration is about what is said, and not about what might have been.
        if trace.demo.is_none() && step.error.is_none() {
            wrap(&mut text, "or ", step.kind.otherwise());
        }
        if explain && first {
            wrap(&mut text, "", step.kind.lesson());
        }
    }
    text.push('\n');
    paragraph(&mut text, "", &trace.sentence);
    text
}

fn heading(trace: &Trace) -> String {
    let mut text = String::new();
    let what = match (&trace.demo, &trace.address) {
        (Some(demo), _) => format!("{demo}, shown with {}: both sides", trace.target),
        (None, None) => format!("one connection with {}: both sides", trace.target),
        (None, Some(address)) if trace.target.ends_with(address.as_str()) => {
            format!("one connection to {address}: the client's side")
        }
        (None, Some(address)) => {
            format!(
                "one connection to {} at {address}: the client's side",
                trace.target
            )
        }
    };
    paragraph(&mut text, "", &what);
    let _ = writeln!(
        text,
        "\n{:>9}  {:<8}{:<15}{:<24}{:<8}{:>9}",
        "at", "side", "step", "by", "file", "took"
    );
    text
}

fn line(step: &Step) -> String {
    let file = step.file.as_deref().unwrap_or("-");
    format!(
        "{:>9}  {:<8}{:<15}{:<24}{:<8}{:>9}\n",
        show_ns(step.at_ns),
        step.side.label(),
        step.kind.label(),
        step.operation,
        file,
        show_ns(step.took_ns),
    )
}

fn wrap(text: &mut String, mark: &str, words: &str) {
    paragraph(text, &format!("{}{mark}", " ".repeat(INDENT)), words);
}
