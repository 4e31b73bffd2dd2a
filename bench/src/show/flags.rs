//! The flags of the commands on saved results: `report`, `merge`, `export`, `completions` and `man`.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use echometer_report::{render::Format, saved::hlog::Unit};

/// The flags of `echometer report`.
#[derive(Debug, Args)]
pub(crate) struct ReportFlags {
    /// A result: its folder, its JSON file, or a histogram log of any tool (HdrHistogram V2 or V1, gzip too)
    #[arg(value_name = "RESULT", value_hint = ValueHint::AnyPath)]
    pub result: PathBuf,

    /// Write it there [default: report.html in the result's folder; other forms go to stdout]
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub out: Option<PathBuf>,

    /// In which form [default: by the name of FILE, else html]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub format: Option<Format>,

    /// Write each figure into this folder as SVG instead
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, conflicts_with_all = ["out", "format"])]
    pub svg: Option<PathBuf>,

    /// What the values of a histogram log are in, where it doesn't say so itself [default: ns]
    #[arg(long, value_enum, value_name = "UNIT")]
    pub unit: Option<Unit>,
}

/// The flags of `echometer merge`.
#[derive(Debug, Args)]
pub(crate) struct MergeFlags {
    /// Histogram logs of any tool (HdrHistogram V2 or V1, gzip too)
    #[arg(value_name = "LOG", required = true, num_args = 1.., value_hint = ValueHint::FilePath)]
    pub logs: Vec<PathBuf>,

    /// The new log; it must not be there yet
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub out: PathBuf,

    /// What the values of a log are in, where it doesn't say so itself [default: ns]
    #[arg(long, value_enum, value_name = "UNIT")]
    pub unit: Option<Unit>,
}

/// The flags of `echometer export`.
#[derive(Debug, Args)]
pub(crate) struct ExportFlags {
    /// A result: its folder, its JSON file, or a histogram log of any tool
    #[arg(value_name = "RESULT", value_hint = ValueHint::AnyPath)]
    pub result: PathBuf,

    /// Write into this folder, over nothing that is there [default: export/ in the result's folder]
    #[arg(long, short, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub out: Option<PathBuf>,

    /// What the values of a histogram log are in, where it doesn't say so itself [default: ns]
    #[arg(long, value_enum, value_name = "UNIT")]
    pub unit: Option<Unit>,
}

/// The flags of `echometer completions`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsFlags {
    /// For which shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// The flags of `echometer man`.
#[derive(Debug, Args)]
pub(crate) struct ManFlags {
    /// Of this command [default: of echometer itself, then of every command]
    #[arg(value_name = "COMMAND")]
    pub command: Option<String>,

    /// Write one file per page into this folder: echometer.1, echometer-compare.1, ...
    #[arg(long, short, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub out: Option<PathBuf>,
}

pub(crate) const REPORT_EXAMPLES: &str = "\
Examples:
  echometer report results/20261123/my-machine/compare-001      writes report.html there
  echometer report compare-001 --format text                    as it was printed
  echometer report compare-001 --format markdown | xclip        for an issue
  echometer report compare-001 -o table.csv                     the form by the file's name
  echometer report run/run.hlog --format text                   any tool's histogram log
  echometer report compare-001 --svg figures                    the charts for a paper

The page is one file: it opens from disk, asks the network for nothing, and holds
the raw data to be saved again.
Exit codes: 0 ok, 1 a file that is truncated, damaged, foreign or newer.";

pub(crate) const MERGE_EXAMPLES: &str = "\
Examples:
  echometer merge host-a/run.hlog host-b/run.hlog -o both.hlog
  echometer report both.hlog

Counts are added up exactly, tag by tag and interval by interval. What is written
is in ns.
Exit codes: 0 ok, 1 a log that is truncated, damaged, foreign or newer, or OUT is
there already.";

pub(crate) const EXPORT_EXAMPLES: &str = "\
Examples:
  echometer export results/20261123/my-machine/compare-001      into its folder export/
  echometer export run --out /tmp/figures

For each histogram NAME.hgrm (percentile spectrum, ms) and NAME.csv (every bucket,
ns), for each table table-NAME.csv.
Exit codes: 0 ok, 1 a file that is truncated, damaged, foreign or newer, or one of
those to write is there already.";

pub(crate) const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  echometer completions bash > ~/.local/share/bash-completion/completions/echometer
  echometer completions zsh > ~/.zfunc/_echometer
  echometer completions fish > ~/.config/fish/completions/echometer.fish";

pub(crate) const MAN_EXAMPLES: &str = "\
Examples:
  echometer man compare | man --local-file -
  echometer man --out ~/.local/share/man/man1";
