//! What a sweep varies: `--over KEY=V,V`, read once into an [`Axis`] of [`Level`]s, each a change of the load, of the
//! server's flags or of where both run.

use std::fmt;

use echometer_host::{cpus::CpuList, units};
use echometer_loadgen::plan::{
    Arrivals, CONNECTIONS_MAX, Load, MESSAGE_SIZE_MAX, PIPELINE_MAX, Plan,
};

use crate::{
    place::layouts::LayoutKind,
    serve::arm::{Arm, Spec},
};

/// What can be varied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// The load's connections.
    Connections,
    /// The load's bytes per message.
    Size,
    /// The load's messages in flight per connection.
    Pipeline,
    /// The rate of an open loop.
    Rate,
    /// The server's listen backlog.
    Backlog,
    /// The server's receive buffers.
    BufferSize,
    /// The cpus that the server runs on.
    Cpus,
    /// How the server waits.
    Wait,
    /// The features of the uring engine.
    Uring,
    /// On which cpus both sides run, seen from each other.
    Pinning,
    /// How many workers the server has.
    ServerThreads,
}

/// All keys, in the order of the help.
pub(crate) const KEYS: [Key; 11] = [
    Key::Connections,
    Key::Size,
    Key::Pipeline,
    Key::Rate,
    Key::Backlog,
    Key::BufferSize,
    Key::Cpus,
    Key::Wait,
    Key::Uring,
    Key::Pinning,
    Key::ServerThreads,
];

/// One key and the values that it takes, in the order in which they were typed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Axis {
    /// What is varied.
    pub key: Key,
    /// At least one, no two alike. `pinning=auto` is none yet: the machine has to be asked first.
    pub levels: Vec<Level>,
}

/// One value of a key.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Level {
    /// As typed.
    pub text: String,
    /// What it means.
    pub change: Change,
}

/// What a level changes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Change {
    /// [`Plan::connections`].
    Connections(u32),
    /// [`Plan::message_size`].
    Size(u32),
    /// [`Plan::pipeline`].
    Pipeline(u32),
    /// The rate of an open loop, per second.
    Rate(f64),
    /// A flag of the server.
    ServerFlag {
        /// Its name, `--backlog`.
        flag: &'static str,
        /// Its value.
        value: String,
    },
    /// Where the server runs.
    ServerCpus(CpuList),
    /// Where both sides run.
    Layout(LayoutKind),
}

/// The value of `--over pinning=` that stands for all layouts of the machine.
pub(crate) const AUTO: &str = "auto";

/// Reads all `--over` of a command: one or two, of different keys.
///
/// # Errors
/// A sentence for the user.
pub(crate) fn parse_axes<T: AsRef<str>>(texts: &[T]) -> Result<Vec<Axis>, String> {
    let axes: Vec<Axis> = texts
        .iter()
        .map(|text| parse_axis(text.as_ref()))
        .collect::<Result<_, _>>()?;
    match axes.as_slice() {
        [] => Err("--over: name what is varied, such as --over connections=1,50,1000".to_owned()),
        [_] => Ok(axes),
        [one, other] if one.key == other.key => Err(format!(
            "--over: {} is varied twice: give all its values in one --over",
            one.key
        )),
        // Both decide where the server runs, or how its workers are placed there.
        [one, other] if one.key.places() && other.key.places() => Err(format!(
            "--over: {} and {} both say where the server runs: vary one of them",
            one.key, other.key
        )),
        [_, _] => Ok(axes),
        _ => Err(
            "--over: at most two keys: a table of more can't be read; run several sweeps"
                .to_owned(),
        ),
    }
}

/// Reads one `KEY=V,V`.
///
/// Values are separated by `;` where the text holds one, else by `,`: a value may then hold commas.
///
/// # Errors
/// A sentence for the user.
pub(crate) fn parse_axis(text: &str) -> Result<Axis, String> {
    let (key, values) = text.split_once('=').ok_or_else(|| {
        format!("--over {text}: write KEY=V,V, such as --over connections=1,50,1000")
    })?;
    let key = KEYS
        .into_iter()
        .find(|known| known.name() == key.trim())
        .ok_or_else(|| {
            let known: Vec<&str> = KEYS.iter().map(|key| key.name()).collect();
            format!("--over: there is no key '{key}': {}", known.join(", "))
        })?;
    let separator = if values.contains(';') { ';' } else { ',' };
    let texts: Vec<&str> = values.split(separator).map(str::trim).collect();
    if key == Key::Pinning && texts == [AUTO] {
        return Ok(Axis {
            key,
            levels: Vec::new(),
        });
    }
    let levels: Vec<Level> = texts
        .iter()
        .map(|text| {
            let change = key
                .change(text)
                .map_err(|why| format!("--over {key}: '{text}': {why}"))?;
            Ok(Level {
                text: (*text).to_owned(),
                change,
            })
        })
        .collect::<Result<_, String>>()?;
    for (index, level) in levels.iter().enumerate() {
        if levels[..index]
            .iter()
            .any(|earlier| earlier.change == level.change)
        {
            return Err(format!("--over {key}: {} stands there twice", level.text));
        }
    }
    Ok(Axis { key, levels })
}

impl Key {
    /// Its name on the command line.
    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Size => "size",
            Self::Pipeline => "pipeline",
            Self::Rate => "rate",
            Self::Backlog => "backlog",
            Self::BufferSize => "buffer-size",
            Self::Cpus => "cpus",
            Self::Wait => "wait",
            Self::Uring => "uring",
            Self::Pinning => "pinning",
            Self::ServerThreads => "server-threads",
        }
    }

    /// The flag of `echometer-server` that it sets, if it does.
    const fn server_flag(self) -> Option<&'static str> {
        match self {
            Self::Backlog => Some("--backlog"),
            Self::BufferSize => Some("--buffer-size"),
            Self::Wait => Some("--wait"),
            Self::Uring => Some("--uring"),
            Self::ServerThreads => Some("--threads"),
            _ => None,
        }
    }

    /// Whether it decides where the server runs.
    const fn places(self) -> bool {
        matches!(self, Self::Cpus | Self::Pinning | Self::ServerThreads)
    }

    fn change(self, text: &str) -> Result<Change, String> {
        if text.is_empty() {
            return Err("an empty value".to_owned());
        }
        let at_most = |number: u64, most: u32, what: &str| match u32::try_from(number) {
            Ok(0) => Err(format!("0 {what} are too few: give 1 or more")),
            Ok(number) if number <= most => Ok(number),
            _ => Err(format!("at most {most} {what}")),
        };
        Ok(match self {
            Self::Connections => Change::Connections(at_most(
                units::count(text)?,
                CONNECTIONS_MAX,
                "connections",
            )?),
            Self::Size => Change::Size(at_most(units::size(text)?, MESSAGE_SIZE_MAX, "bytes")?),
            Self::Pipeline => {
                Change::Pipeline(at_most(units::count(text)?, PIPELINE_MAX, "messages")?)
            }
            Self::Rate => Change::Rate(units::rate(text)?),
            Self::Cpus => {
                let cpus: CpuList = text.parse().map_err(|error| format!("{error}"))?;
                if cpus.is_empty() {
                    return Err("an empty list of cpus".to_owned());
                }
                Change::ServerCpus(cpus)
            }
            Self::Pinning => Change::Layout(text.parse()?),
            Self::Backlog | Self::BufferSize | Self::Wait | Self::Uring | Self::ServerThreads => {
                // The server knows best what it understands; what is a number everywhere is looked at here. Counts go
                // on in digits: not every server reads `1k`, and ours doesn't either.
                let value = match self {
                    Self::Backlog => {
                        at_most(units::count(text)?, i32::MAX as u32, "places")?.to_string()
                    }
                    Self::ServerThreads => {
                        at_most(units::count(text)?, 1_024, "threads")?.to_string()
                    }
                    Self::BufferSize => {
                        units::size(text)?;
                        text.to_owned()
                    }
                    _ => text.to_owned(),
                };
                Change::ServerFlag {
                    flag: self
                        .server_flag()
                        .expect("these keys are flags of the server"),
                    value,
                }
            }
        })
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Change {
    /// Changes the load, where it is the load's to change.
    pub(crate) fn apply_to_load(&self, load: &mut Plan) {
        match self {
            Self::Connections(connections) => load.connections = *connections,
            Self::Size(bytes) => load.message_size = *bytes,
            Self::Pipeline(depth) => load.pipeline = *depth,
            Self::Rate(rate_per_s) => {
                let arrivals = match load.load {
                    Load::Open { arrivals, .. } => arrivals,
                    Load::Closed => Arrivals::Poisson,
                };
                load.load = Load::Open {
                    rate_per_s: *rate_per_s,
                    arrivals,
                };
            }
            Self::ServerFlag { .. } | Self::ServerCpus(_) | Self::Layout(_) => {}
        }
    }

    /// Changes the arm, where it is the server's to change: a flag of our engines; in a command the text `{KEY}` (the
    /// flag's name in braces) is replaced.
    ///
    /// # Errors
    /// A sentence for the user: this arm can't be changed so.
    pub(crate) fn apply_to_arm(&self, arm: &mut Arm) -> Result<(), String> {
        let name = arm.name.clone();
        // What the arm itself says would hide the level, or contradict it.
        let clashes: &[&str] = match self {
            Self::ServerFlag { flag, .. } if *flag == "--threads" => &["--threads", "--cpus"],
            Self::ServerFlag { flag, .. } => &[flag],
            Self::ServerCpus(_) | Self::Layout(_) => &["--cpus", "--threads"],
            _ => &[],
        };
        if let Spec::Engine { flags, .. } = &arm.spec {
            let mut set = flags.iter().map(|typed| {
                typed
                    .split_once('=')
                    .map_or(typed.as_str(), |(name, _)| name)
            });
            if let Some(flag) = set.find(|flag| clashes.contains(flag)) {
                return Err(format!(
                    "--over: arm '{name}' sets {flag} itself: leave it away there"
                ));
            }
        }
        match (self, &mut arm.spec) {
            (Self::ServerFlag { flag, value }, Spec::Engine { engine, flags }) => {
                if *flag == "--uring" && !matches!(engine.as_str(), "uring" | "auto") {
                    return Err(format!(
                        "--over uring: arm '{name}' is the engine {engine}, which has no such features: leave it away"
                    ));
                }
                // As one word where it would pass for a flag itself: `-direct`.
                match value.starts_with('-') {
                    true => flags.push(format!("{flag}={value}")),
                    false => flags.extend([(*flag).to_owned(), value.clone()]),
                }
            }
            (Self::ServerFlag { flag, value }, Spec::Command { words }) => {
                let place = format!("{{{}}}", flag.trim_start_matches('-'));
                if !words.iter().any(|word| word.contains(&place)) {
                    return Err(format!(
                        "--over: arm '{name}' is a command, and nobody knows how to set its {}: put {place} where the \
                         value goes",
                        flag.trim_start_matches('-'),
                    ));
                }
                for word in words {
                    *word = word.replace(&place, value);
                }
            }
            (
                Self::ServerFlag { .. } | Self::ServerCpus(_) | Self::Layout(_),
                Spec::Remote { .. },
            ) => {
                return Err(format!(
                    "--over: arm '{name}' is running already, and can't be changed: vary the load, or name a server \
                     that is started here"
                ));
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::arm::parse_arms;

    fn texts(axis: &Axis) -> Vec<&str> {
        axis.levels
            .iter()
            .map(|level| level.text.as_str())
            .collect()
    }

    fn arm(text: &str) -> Arm {
        parse_arms(&[text]).expect("a test's arm").remove(0)
    }

    #[test]
    fn values_are_split_at_commas_or_where_there_is_one_at_semicolons() {
        let axis = parse_axis("connections=1, 50,1k").expect("valid");
        assert_eq!(texts(&axis), ["1", "50", "1k"]);
        assert_eq!(axis.levels[2].change, Change::Connections(1_000));
        let axis = parse_axis("uring=+bundle;+bundle,-direct").expect("valid");
        assert_eq!(texts(&axis), ["+bundle", "+bundle,-direct"]);
        let axis = parse_axis("cpus=0;0,2-3").expect("valid");
        assert_eq!(
            axis.levels[1].change,
            Change::ServerCpus("0,2-3".parse().expect("a list"))
        );
    }

    #[test]
    fn what_is_wrong_is_said_with_its_cure() {
        for (text, words) in [
            ("connections", "KEY=V,V"),
            ("colour=red", "there is no key 'colour'"),
            ("connections=0", "1 or more"),
            ("connections=1,,2", "empty value"),
            ("connections=50,1,50", "twice"),
            ("backlog=1k,1000", "twice"),
            ("size=1GiB", "at most"),
            ("backlog=many", "backlog: 'many'"),
            ("cpus=x", "x"),
            ("pinning=sideways", "unpinned"),
            ("rate=0", "rate"),
        ] {
            let error = parse_axis(text).expect_err(text);
            assert!(error.contains(words), "{text}: {error}");
        }
        for (axes, words) in [
            (vec![], "name what is varied"),
            (vec!["size=1,2", "size=3"], "varied twice"),
            (vec!["cpus=0", "pinning=auto"], "both say where"),
            (vec!["size=1,2", "pipeline=1,2", "rate=1k"], "at most two"),
        ] {
            let error = parse_axes(&axes).expect_err("wrong");
            assert!(error.contains(words), "{axes:?}: {error}");
        }
    }

    #[test]
    fn loads_are_changed_where_the_level_says() {
        let mut load = Plan::default();
        for text in ["connections=7", "size=1KiB", "pipeline=3", "rate=20k"] {
            parse_axis(text).expect("valid").levels[0]
                .change
                .apply_to_load(&mut load);
        }
        assert_eq!(
            (load.connections, load.message_size, load.pipeline),
            (7, 1024, 3)
        );
        assert_eq!(load.rate_per_s(), Some(20_000.0));
    }

    #[test]
    fn servers_are_changed_by_flag_or_by_placeholder() {
        let backlog = parse_axis("backlog=16").expect("valid").levels[0]
            .change
            .clone();
        let mut ours = arm("uring:--wait block");
        backlog.apply_to_arm(&mut ours).expect("a flag");
        assert_eq!(ours.spec.to_string(), "uring:--wait block --backlog 16");
        let mut theirs = arm("./srv {port} -b {backlog}");
        backlog.apply_to_arm(&mut theirs).expect("a placeholder");
        assert_eq!(theirs.spec.to_string(), "./srv {port} -b 16");
        for (text, words) in [
            ("./srv {port}", "{backlog}"),
            ("tcp:h:1", "running already"),
            ("uring:--backlog 9", "itself"),
        ] {
            let error = backlog.apply_to_arm(&mut arm(text)).expect_err(text);
            assert!(error.contains(words), "{error}");
        }
        for (text, words) in [
            ("backlog=1k", "epoll:--backlog 1000"),
            ("server-threads=1k", "epoll:--threads 1000"),
            ("buffer-size=4KiB", "epoll:--buffer-size 4KiB"),
        ] {
            let mut ours = arm("epoll");
            parse_axis(text).expect("valid").levels[0]
                .change
                .apply_to_arm(&mut ours)
                .expect("a flag");
            assert_eq!(ours.spec.to_string(), words, "the server reads no k");
        }
        let features = parse_axis("uring=-direct").expect("valid").levels[0]
            .change
            .clone();
        assert!(features.apply_to_arm(&mut arm("epoll")).is_err());
        features
            .apply_to_arm(&mut arm("uring"))
            .expect("it has them");
    }
}
