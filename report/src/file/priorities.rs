//! At which priority both sides ran.

use serde::{Deserialize, Serialize};

use echometer_host::priority::Priority;

/// At which priority both sides ran.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Priorities {
    /// Of the servers that were started.
    pub servers: Priority,
    /// Of the client's threads: as the servers', but never above others where they spin.
    pub client: Priority,
}

impl Priorities {
    /// "servers and client at SCHED_RR 1"; `None` where nobody is raised.
    #[must_use]
    pub fn words(&self) -> Option<String> {
        let servers = self.servers.kernel_name()?;
        Some(match self.client.kernel_name() {
            Some(client) if client == servers => format!("servers and client at {servers}"),
            Some(client) => format!("servers at {servers}, client at {client}"),
            None => format!("servers at {servers}"),
        })
    }

    /// The same as the end of an enumeration: ", servers at SCHED_RR 1", or nothing.
    #[must_use]
    pub fn clause(&self) -> String {
        self.words()
            .map_or_else(String::new, |words| format!(", {words}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_is_raised_is_named() {
        let both = |servers, client| Priorities { servers, client }.clause();
        assert_eq!(both(Priority::None, Priority::None), "");
        assert_eq!(
            both(Priority::Rt, Priority::None),
            ", servers at SCHED_RR 1"
        );
        assert_eq!(
            both(Priority::Nice, Priority::Nice),
            ", servers and client at nice -20"
        );
    }
}
