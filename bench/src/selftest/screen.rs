//! A selftest on the screen: what is being looked at on stderr, each truth on stdout as soon as it is known.

use std::io::{self, IsTerminal, Write};

use anyhow::Context;

use echometer_host::output::unless_closed;
use echometer_report::{
    file::selftest::Selftest,
    folder::{REPORT_NAME, ResultFolder, json},
    text::{columns::coloured, selftest as report},
};

use crate::{flags::OutputSettings, selftest::step::Step};

/// Where a selftest is shown.
pub(super) struct Screen {
    json: bool,
    progress: Progress,
    /// The first error of stdout. Truths come in a callback, which has no one to tell.
    error: Option<io::Error>,
}

enum Progress {
    /// One line that is wiped away again.
    Line,
    /// A line per truth.
    Plain,
    Silent,
}

impl Screen {
    pub(super) fn new(output: &OutputSettings) -> Self {
        let progress = match (output.quiet, io::stderr().is_terminal()) {
            (true, _) => Progress::Silent,
            (false, true) => Progress::Line,
            (false, false) => Progress::Plain,
        };
        Self {
            json: output.json,
            progress,
            error: None,
        }
    }

    pub(super) fn show(&mut self, step: &Step<'_>) {
        match step {
            Step::Begin { number, of, item } => {
                let again = if item.attempt == 1 { "" } else { ", again" };
                let client = format!("{:?}", item.client).to_lowercase();
                self.say(&format!(
                    "[{number}/{of}] {}, {client} client{again}",
                    item.truth.title()
                ));
            }
            Step::End(selftest) => {
                self.wipe();
                if self.json {
                    return;
                }
                if let [first] = selftest.truths.as_slice() {
                    self.print(&report::heading(selftest));
                    self.print(&coloured(&report::outcome(first)));
                } else if let Some(last) = selftest.truths.last() {
                    self.print(&coloured(&report::outcome(last)));
                }
            }
        }
    }

    /// The sentence and the file to open; or the file itself.
    pub(super) fn finish(
        mut self,
        selftest: &Selftest,
        folder: &ResultFolder,
    ) -> anyhow::Result<()> {
        self.wipe();
        if self.json {
            self.print(&json(selftest));
        } else {
            self.print(&format!("\n{}", report::ending(selftest)));
            let report = folder.join(REPORT_NAME);
            self.print(&format!(
                "\nopen: {} (data: selftest.json beside it)\n",
                report.display()
            ));
        }
        unless_closed(self.error.map_or(Ok(()), Err)).context("cannot write to stdout")
    }

    fn print(&mut self, text: &str) {
        if self.error.is_none() {
            let mut stdout = anstream::stdout().lock();
            let written = stdout
                .write_all(text.as_bytes())
                .and_then(|()| stdout.flush());
            self.error = written.err();
        }
    }

    /// Progress is a courtesy: where stderr is gone, it is not missed.
    fn say(&self, text: &str) {
        let mut stderr = io::stderr().lock();
        let _ = match self.progress {
            Progress::Line => write!(stderr, "\r\x1b[K{text}").and_then(|()| stderr.flush()),
            Progress::Plain => writeln!(stderr, "{text}"),
            Progress::Silent => Ok(()),
        };
    }

    fn wipe(&self) {
        if let Progress::Line = self.progress {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
