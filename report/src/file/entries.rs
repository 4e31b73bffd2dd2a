//! What the files of several kinds hold: arms and command lines.

use serde::{Deserialize, Serialize};

/// One arm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArmEntry {
    /// Unique among the arms.
    pub name: String,
    /// What it is, as it can be typed again.
    pub spec: String,
    /// What our own server said when it was ready: engine, threads, cpus, backlog, features.
    pub ready_line: Option<String>,
}

/// One command line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandEntry {
    /// `echometer`, or the arm's name.
    pub of: String,
    /// As a shell would take it.
    pub command: String,
}

impl CommandEntry {
    /// The bench's own command line, which is the first of a result's.
    #[must_use]
    pub fn bench(command_line: &str) -> Self {
        Self {
            of: "echometer".to_owned(),
            command: command_line.to_owned(),
        }
    }

    /// Writes down behind the bench's own line how the servers were started last, each under its name. One that was
    /// running already has no line.
    pub fn list_servers<'a>(
        commands: &mut Vec<Self>,
        servers: impl IntoIterator<Item = (&'a String, &'a String)>,
    ) {
        commands.truncate(1);
        commands.extend(servers.into_iter().map(|(name, command)| Self {
            of: name.clone(),
            command: command.clone(),
        }));
    }
}

/// The words that name an engine of `echometer-server`; anything else is a command.
///
/// Which of them the installed server really has, it says itself when it is started. The list repeats the names of the
/// server's own table, because nothing here is built with the server (and its runtimes); a test of the bench compares
/// the two.
pub const ENGINES: [&str; 6] = ["auto", "uring", "epoll", "tokio-uring", "tokio", "blocking"];
