//! Arms: what stands in a comparison. `[NAME=]SPEC`, where SPEC is one of our engines with its flags, the address of
//! a server that is already running, or any command that starts an echo server.

use std::{collections::HashSet, fmt};

use echometer_report::file::entries::{ArmEntry, ENGINES};

/// Flags of `echometer-server` that the bench sets itself.
const RESERVED_FLAGS: [&str; 3] = ["--listen", "--engine", "--stats"];

/// One arm of a comparison, ready to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Arm {
    /// `[A-Za-z0-9_.-]+`, unique among the arms of a comparison: it names files and table columns.
    pub name: String,
    /// What serves.
    pub spec: Spec,
}

/// What serves in an arm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Spec {
    /// An engine of `echometer-server`, started afresh for each block.
    Engine {
        /// One of [`ENGINES`].
        engine: String,
        /// Further flags of the server.
        flags: Vec<String>,
    },
    /// A server that is already running, perhaps on another machine. Its CPU can't be read.
    Remote {
        /// A name, an IPv4 address or an IPv6 address (without brackets).
        host: String,
        /// Not 0.
        port: u16,
    },
    /// A program and its arguments, started afresh for each block, without a shell. `{port}` and `{cpus}` in any
    /// word are replaced.
    Command {
        /// At least the program.
        words: Vec<String>,
    },
}

/// Why a text is no arm. Each says how to write it instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ArmError {
    /// Nothing after the name, or nothing at all.
    #[error("arm '{0}' names no server: give an engine ({engines}), tcp:HOST:PORT or a command", engines = ENGINES.join(", "))]
    Empty(String),
    /// A quote that is never closed.
    #[error("arm '{0}' has a quote that is not closed")]
    Quote(String),
    /// `tcp:` without a host, or with a port that is none.
    #[error(
        "arm '{0}' is no address: write tcp:HOST:PORT, such as tcp:10.0.0.2:7777 or tcp:[::1]:7777"
    )]
    Address(String),
    /// A flag that would contradict what the bench sets.
    #[error("arm '{arm}' sets {flag}, which the bench sets itself: leave it away")]
    Reserved {
        /// The arm as typed.
        arm: String,
        /// The flag.
        flag: String,
    },
    /// Two arms were given the same name.
    #[error("two arms are named '{0}': give one of them another name, as in NAME=SPEC")]
    Twice(String),
}

/// Reads all arms of a comparison. Arms without a name get one from what they are; where several would get the same,
/// the later ones are numbered: `uring`, `uring-2`.
///
/// # Errors
/// A text that is no arm, or a name given twice: usage errors.
pub(crate) fn parse_arms<T: AsRef<str>>(texts: &[T]) -> Result<Vec<Arm>, ArmError> {
    let parts: Vec<(Option<&str>, Spec)> = texts
        .iter()
        .map(|text| parse(text.as_ref()))
        .collect::<Result<_, _>>()?;
    let mut taken = HashSet::new();
    for name in parts.iter().filter_map(|(name, _)| *name) {
        if !taken.insert(name.to_owned()) {
            return Err(ArmError::Twice(name.to_owned()));
        }
    }
    let named = parts.into_iter().map(|(given, spec)| {
        let name = given.map_or_else(
            || free_name(&spec.default_name(), &mut taken),
            str::to_owned,
        );
        Arm { name, spec }
    });
    Ok(named.collect())
}

/// Splits `[NAME=]SPEC`: a name stands directly before the first `=` and has no other characters than names have,
/// so that `./server --port={port}` is a command and not an arm named `./server --port`.
fn parse(text: &str) -> Result<(Option<&str>, Spec), ArmError> {
    match text.split_once('=') {
        Some((name, spec)) if is_name(name) => Ok((Some(name), parse_spec(spec, text)?)),
        _ => Ok((None, parse_spec(text, text)?)),
    }
}

fn parse_spec(spec: &str, arm: &str) -> Result<Spec, ArmError> {
    // The blanks at which words are split, and no other: a command may end in any character that it likes.
    let spec = spec.trim_matches([' ', '\t', '\n']);
    if let Some(address) = spec.strip_prefix("tcp:") {
        return parse_remote(address).ok_or_else(|| ArmError::Address(arm.to_owned()));
    }
    let (engine, flags) = spec.split_once(':').unwrap_or((spec, ""));
    if ENGINES.contains(&engine) {
        let flags = split_words(flags, arm)?;
        let reserved = flags.iter().find(|flag| {
            RESERVED_FLAGS.iter().any(|reserved| {
                flag.split_once('=').map_or(flag.as_str(), |(name, _)| name) == *reserved
            })
        });
        return match reserved {
            Some(flag) => Err(ArmError::Reserved {
                arm: arm.to_owned(),
                flag: flag.clone(),
            }),
            None => Ok(Spec::Engine {
                engine: engine.to_owned(),
                flags,
            }),
        };
    }
    let words = split_words(spec, arm)?;
    match words.first() {
        Some(program) if !program.is_empty() => Ok(Spec::Command { words }),
        _ => Err(ArmError::Empty(arm.to_owned())),
    }
}

fn parse_remote(address: &str) -> Option<Spec> {
    let (host, port) = address.rsplit_once(':')?;
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    // Without brackets an IPv6 address can't be told from a name and a port.
    let host = bare.or_else(|| (!host.contains([':', '[', ']'])).then_some(host))?;
    let port = port.parse().ok().filter(|&port: &u16| port != 0)?;
    let plausible = !host.is_empty() && !host.contains(char::is_whitespace);
    plausible.then(|| Spec::Remote {
        host: host.to_owned(),
        port,
    })
}

fn split_words(text: &str, arm: &str) -> Result<Vec<String>, ArmError> {
    shell_words::split(text).map_err(|_| ArmError::Quote(arm.to_owned()))
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(is_name_char)
}

fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-')
}

/// `base`, or `base-2`, `base-3`, ...: the first that is not taken; takes it.
fn free_name(base: &str, taken: &mut HashSet<String>) -> String {
    let numbered = (2_usize..).map(|number| format!("{base}-{number}"));
    let name = std::iter::once(base.to_owned())
        .chain(numbered)
        .find(|name| !taken.contains(name));
    let name = name.expect("the numbers never end");
    taken.insert(name.clone());
    name
}

impl Arm {
    /// As it stands in a result; its server was not started yet.
    #[must_use]
    pub(crate) fn entry(&self) -> ArmEntry {
        ArmEntry {
            name: self.name.clone(),
            spec: self.spec.to_string(),
            ready_line: None,
        }
    }
}

impl Spec {
    /// The name of an arm to which the user gave none: the engine, the program's file name, the address.
    fn default_name(&self) -> String {
        let text = match self {
            Self::Engine { engine, .. } => engine.clone(),
            Self::Remote { host, port } => format!("{host}-{port}"),
            Self::Command { words } => words[0].rsplit('/').next().unwrap_or_default().to_owned(),
        };
        let name: String = text
            .chars()
            .map(|c| if is_name_char(c) { c } else { '-' })
            .collect();
        if name.is_empty() {
            "arm".to_owned()
        } else {
            name
        }
    }

    /// Whether it burns its core while nobody talks to it, as asked for: such an arm can't rest while another is
    /// measured.
    #[must_use]
    pub(crate) fn never_sleeps(&self) -> bool {
        let Self::Engine { flags, .. } = self else {
            return false;
        };
        let mut values = flags
            .iter()
            .zip(flags.iter().skip(1))
            .map(|(flag, value)| (flag.as_str(), value.as_str()));
        let mut joined = flags.iter().filter_map(|flag| flag.split_once('='));
        let spins = |(flag, value): (&str, &str)| match flag {
            "--wait" => value == "spin",
            "--uring" => value
                .split(',')
                .any(|feature| feature.trim_start_matches('+') == "sqpoll"),
            _ => false,
        };
        values.any(spins) || joined.any(spins)
    }

    /// Whether the process is ours to start, stop and watch.
    #[must_use]
    pub(crate) fn is_local(&self) -> bool {
        !matches!(self, Self::Remote { .. })
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Engine { engine, flags } if flags.is_empty() => f.write_str(engine),
            Self::Engine { engine, flags } => write!(f, "{engine}:{}", shell_words::join(flags)),
            Self::Remote { host, port } if host.contains(':') => write!(f, "tcp:[{host}]:{port}"),
            Self::Remote { host, port } => write!(f, "tcp:{host}:{port}"),
            Self::Command { words } => f.write_str(&shell_words::join(words)),
        }
    }
}

impl fmt::Display for Arm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.spec)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one(text: &str) -> Arm {
        parse_arms(&[text]).expect("a valid arm").remove(0)
    }

    fn words(text: &[&str]) -> Vec<String> {
        text.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn engines_with_and_without_flags() {
        assert_eq!(
            one("uring"),
            Arm {
                name: "uring".to_owned(),
                spec: Spec::Engine {
                    engine: "uring".to_owned(),
                    flags: Vec::new()
                },
            }
        );
        assert_eq!(
            one("uring:--wait hybrid:50us").spec,
            Spec::Engine {
                engine: "uring".to_owned(),
                flags: words(&["--wait", "hybrid:50us"]),
            }
        );
        assert_eq!(one("fast=uring:--buffer-size=64KiB").name, "fast");
        assert_eq!(one("tokio-uring").name, "tokio-uring");
    }

    #[test]
    fn a_name_stands_directly_before_the_first_equals_sign() {
        assert_eq!(
            one("a=false"),
            Arm {
                name: "a".to_owned(),
                spec: Spec::Command {
                    words: words(&["false"])
                }
            }
        );
        assert_eq!(
            one("./serve --port={port}").spec,
            Spec::Command {
                words: words(&["./serve", "--port={port}"])
            }
        );
        assert_eq!(one("./serve --port={port}").name, "serve");
        assert_eq!(
            one("v1.2_x-y=./s {port} --a=b").spec,
            Spec::Command {
                words: words(&["./s", "{port}", "--a=b"])
            }
        );
        assert_eq!(one("uring:--cpus=0").name, "uring");
        assert_eq!(
            one("x=y=z").spec,
            Spec::Command {
                words: words(&["y=z"])
            }
        );
    }

    #[test]
    fn commands_follow_shell_quoting_without_a_shell() {
        assert_eq!(
            one(r#"n='my server' "a b" $HOME"#).spec,
            Spec::Command {
                words: words(&["my server", "a b", "$HOME"])
            }
        );
        assert_eq!(one("'/opt/my server' {port}").name, "my-server");
    }

    #[test]
    fn remote_addresses() {
        let remote = |host: &str, port| Spec::Remote {
            host: host.to_owned(),
            port,
        };
        assert_eq!(one("tcp:10.0.0.2:7777").spec, remote("10.0.0.2", 7777));
        assert_eq!(one("tcp:10.0.0.2:7777").name, "10.0.0.2-7777");
        assert_eq!(one("v6=tcp:[::1]:80").spec, remote("::1", 80));
        assert_eq!(
            one("tcp:db.example.org:80").to_string(),
            "db.example.org-80=tcp:db.example.org:80"
        );
        for bad in [
            "tcp:",
            "tcp:host",
            "tcp:host:0",
            "tcp:host:99999",
            "tcp::80",
            "tcp:::1:80",
            "tcp:[::1:80",
            "tcp:a b:80",
        ] {
            assert_eq!(
                parse_arms(&[bad]),
                Err(ArmError::Address(bad.to_owned())),
                "{bad}"
            );
        }
    }

    #[test]
    fn arms_alike_are_numbered_and_given_names_go_first() {
        let names = |texts: &[&str]| -> Vec<String> {
            parse_arms(texts)
                .expect("valid")
                .into_iter()
                .map(|arm| arm.name)
                .collect()
        };
        assert_eq!(
            names(&["uring", "uring", "uring:--nagle"]),
            ["uring", "uring-2", "uring-3"]
        );
        assert_eq!(names(&["uring", "uring=epoll"]), ["uring-2", "uring"]);
        assert_eq!(
            names(&["epoll", "epoll-2=uring", "epoll"]),
            ["epoll", "epoll-2", "epoll-3"]
        );
        assert_eq!(
            parse_arms(&["a=uring", "a=epoll"]),
            Err(ArmError::Twice("a".to_owned()))
        );
    }

    #[test]
    fn errors_say_what_to_write() {
        for empty in ["", "  ", "a=", "a= ", "''"] {
            let error = parse_arms(&[empty]).expect_err("no server");
            assert_eq!(error, ArmError::Empty(empty.to_owned()));
            assert!(
                error.to_string().contains("uring") && error.to_string().contains("tcp:HOST:PORT")
            );
        }
        assert_eq!(
            parse_arms(&["a='x"]),
            Err(ArmError::Quote("a='x".to_owned()))
        );
        for flag in ["--listen", "--engine=epoll"] {
            let text = format!("uring:{flag} x");
            let error = parse_arms(&[&text]).expect_err("set by the bench");
            assert_eq!(
                error,
                ArmError::Reserved {
                    arm: text,
                    flag: flag.to_owned()
                }
            );
        }
    }

    #[test]
    fn arms_that_never_sleep_are_known() {
        for spinning in [
            "uring:--wait spin",
            "epoll:--wait=spin",
            "uring:--uring +bundle,+sqpoll",
            "uring:--uring=sqpoll",
        ] {
            assert!(one(spinning).spec.never_sleeps(), "{spinning}");
        }
        for sleeping in [
            "uring",
            "uring:--wait block",
            "uring:--uring -sqpoll",
            "uring:--wait hybrid:50us",
            "./x --wait spin",
        ] {
            assert!(!one(sleeping).spec.never_sleeps(), "{sleeping}");
        }
    }

    fn name() -> impl Strategy<Value = String> {
        "[A-Za-z0-9_.-]{1,12}"
    }

    fn spec() -> impl Strategy<Value = Spec> {
        let engine = (
            prop::sample::select(&ENGINES[..]),
            prop::collection::vec("[^-]{1,8}|-[a-z]", 0..4),
        )
            .prop_map(|(engine, flags)| Spec::Engine {
                engine: engine.to_owned(),
                flags,
            });
        let host = prop_oneof![
            "[a-z][a-z0-9.-]{0,20}",
            Just("::1".to_owned()),
            Just("fe80::2".to_owned())
        ];
        let remote = (host, 1..=u16::MAX).prop_map(|(host, port)| Spec::Remote { host, port });
        let command = (
            r"[./][a-z ='\\]{0,10}",
            prop::collection::vec(any::<String>(), 0..4),
        )
            .prop_map(|(program, rest)| Spec::Command {
                words: std::iter::once(program).chain(rest).collect(),
            });
        prop_oneof![engine, remote, command]
    }

    proptest! {
        /// What is printed, as in the results, can be typed again and means the same.
        #[test]
        fn display_is_read_back(name in name(), spec in spec()) {
            let arm = Arm { name, spec };
            prop_assert_eq!(one(&arm.to_string()), arm);
        }

        #[test]
        fn no_text_makes_it_panic_and_names_are_names(texts in prop::collection::vec(any::<String>(), 0..6)) {
            if let Ok(arms) = parse_arms(&texts) {
                prop_assert_eq!(arms.len(), texts.len());
                let names: HashSet<&str> = arms.iter().map(|arm| arm.name.as_str()).collect();
                prop_assert_eq!(names.len(), arms.len());
                prop_assert!(names.into_iter().all(is_name));
            }
        }
    }
}
