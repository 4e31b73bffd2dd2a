//! `echometer man`, `echometer completions` and the grouped `--help`: all from the one description of the flags.

use std::{fs, path::Path, process::ExitCode};

use anyhow::Context;
use clap::Command;
use clap_complete::Shell;

use echometer_host::files::write_whole;

use crate::{
    invocation::Invocation,
    screen::stdout::printed,
    show::flags::{CompletionsFlags, ManFlags},
};

/// The commands by what their reader wants to do. A command that is in none of these stands at the end.
const GROUPS: [(&str, &[&str]); 5] = [
    (
        "Compare servers",
        &["compare", "sweep", "curve", "find-rate", "storm"],
    ),
    ("Understand an echo", &["trace", "floor"]),
    ("Trust the figures", &["doctor", "jitter", "selftest"]),
    ("Keep and share results", &["report", "merge", "export"]),
    ("Shell and manual", &["completions", "man"]),
];

const EXAMPLES: &str = "\
Examples:
  echometer doctor                              is this machine fit to measure?
  echometer compare epoll uring                 which is cheaper here, and how sure is it?
  echometer compare epoll 'mine=./serve {port}' your own server against ours
  echometer report results/DATE/MACHINE/compare-001";

/// `echometer completions`.
///
/// # Errors
/// stdout can't be written to.
pub(crate) fn show_completions(
    flags: &CompletionsFlags,
    how: &Invocation,
) -> anyhow::Result<ExitCode> {
    printed(&completions(how.parser.clone(), flags.shell))
}

/// `echometer man`. The inner error is one of usage.
///
/// # Errors
/// A page can't be written, nor can stdout.
pub(crate) fn show_man(
    flags: &ManFlags,
    how: &Invocation,
) -> anyhow::Result<Result<ExitCode, String>> {
    let parser = how.parser.clone();
    let text = match &flags.out {
        Some(folder) => write_man(&parser, folder)?,
        None => match man(&parser, flags.command.as_deref()) {
            Ok(text) => text,
            Err(text) => return Ok(Err(text)),
        },
    };
    printed(&text).map(Ok)
}

/// `command` with its subcommands listed by what one wants to do with them, and with examples.
#[must_use]
pub(super) fn grouped(command: Command) -> Command {
    let mut list = String::new();
    let mut named: Vec<&str> = Vec::new();
    let visible = || command.get_subcommands().filter(|one| !one.is_hide_set());
    for (heading, names) in GROUPS {
        let lines: Vec<String> = names
            .iter()
            .filter_map(|name| visible().find(|one| one.get_name() == *name))
            .map(line)
            .collect();
        if !lines.is_empty() {
            list.push_str(&format!("{heading}:\n{}\n\n", lines.join("\n")));
        }
        named.extend(names);
    }
    let rest: Vec<String> = visible()
        .filter(|one| !named.contains(&one.get_name()))
        .map(line)
        .collect();
    if !rest.is_empty() {
        list.push_str(&format!("Others:\n{}\n\n", rest.join("\n")));
    }
    command
        // Without clap's own list of the commands, which has no groups.
        .help_template(format!(
            "{{about}}\n\n{{usage-heading}} {{usage}}\n\n{list}Options:\n{{options}}{{after-help}}"
        ))
        .after_help(format!("{EXAMPLES}\n\nechometer COMMAND --help says all of a command; exit codes stand there, too."))
        .disable_help_subcommand(true)
}

fn line(command: &Command) -> String {
    let about = command
        .get_about()
        .map(ToString::to_string)
        .unwrap_or_default();
    // What comes before the details is enough in a list; the command's own help has the rest.
    let end = about.find(':').or_else(|| about.find('?').map(|at| at + 1));
    let short = &about[..end.unwrap_or(about.len())];
    format!("  {:<12} {short}", command.get_name())
}

/// The completions for a shell.
#[must_use]
pub(super) fn completions(mut command: Command, shell: Shell) -> String {
    let mut bytes = Vec::new();
    clap_complete::generate(shell, &mut command, "echometer", &mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The manual in roff: of one command, or of all of them one after the other.
///
/// # Errors
/// A sentence for the user: there is no such command.
pub(super) fn man(command: &Command, of: Option<&str>) -> Result<String, String> {
    let pages = pages(command);
    let Some(of) = of else {
        return Ok(pages.into_iter().map(|(_, roff)| roff).collect());
    };
    let name = format!("echometer-{of}");
    match pages.into_iter().find(|(page, _)| *page == name) {
        Some((_, roff)) => Ok(roff),
        None => Err(format!("there is no command '{of}': see echometer --help")),
    }
}

/// Writes a file per page, and says how many.
///
/// # Errors
/// The folder or a file can't be written.
pub(super) fn write_man(command: &Command, folder: &Path) -> anyhow::Result<String> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let pages = pages(command);
    for (name, roff) in &pages {
        let path = folder.join(format!("{name}.1"));
        write_whole(&path, roff.as_bytes())?;
    }
    Ok(format!("{} pages in {}\n", pages.len(), folder.display()))
}

/// The pages' names and roff: echometer's, then each command's.
fn pages(command: &Command) -> Vec<(String, String)> {
    let mut command = command.clone();
    command.build();
    let mut pages = vec![("echometer".to_owned(), roff(command.clone()))];
    for one in command.get_subcommands().filter(|one| !one.is_hide_set()) {
        let name = format!("echometer-{}", one.get_name());
        // Building has given it the display name `echometer-compare`, which becomes the page's title.
        pages.push((name, roff(one.clone())));
    }
    pages
}

fn roff(command: Command) -> String {
    let mut bytes = Vec::new();
    clap_mangen::Man::new(command)
        .manual("Echometer")
        .source(concat!("echometer ", env!("CARGO_PKG_VERSION")))
        .render(&mut bytes)
        .expect("a vector takes all that is written to it");
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;

    #[test]
    fn every_command_stands_in_one_group() {
        let command = Cli::parser();
        let named: Vec<&str> = GROUPS
            .iter()
            .flat_map(|(_, names)| names.iter().copied())
            .collect();
        for one in command.get_subcommands().filter(|one| !one.is_hide_set()) {
            let times = named.iter().filter(|name| **name == one.get_name()).count();
            assert_eq!(times, 1, "{}", one.get_name());
        }
        let help = command.clone().render_help().to_string();
        assert!(help.contains("Compare servers:\n  compare "), "{help}");
        assert!(
            !help.contains("Others:") && !help.contains("_guard"),
            "{help}"
        );
        assert!(help.contains("Examples:"), "{help}");
        assert_eq!(help.matches("\n  compare ").count(), 1, "{help}");
    }

    #[test]
    fn each_shell_and_each_page_knows_the_commands() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let text = completions(Cli::parser(), shell);
            assert!(
                text.contains("doctor") && text.contains("server-cpus"),
                "{shell}"
            );
        }
        let page = man(&Cli::parser(), Some("compare")).expect("there is one");
        let source = concat!("\"echometer ", env!("CARGO_PKG_VERSION"), "\" Echometer");
        let title = page.lines().find(|line| line.starts_with(".TH "));
        let title = title.expect("a page has a title");
        assert!(
            title.starts_with(".TH echometer-compare 1") && title.ends_with(source),
            "{title}"
        );
        assert!(page.contains("margin"));
        let all = man(&Cli::parser(), None).expect("there are some");
        assert!(all.contains(".TH echometer 1") && all.contains(".TH echometer-doctor 1"));
        assert!(man(&Cli::parser(), Some("x")).is_err());
    }
}
