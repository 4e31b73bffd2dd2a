//! Job files: a sweep's command line as TOML, so that it can be kept, changed and repeated. The keys are the long names
//! of the flags, `arms` and `over` are lists; what a file may hold is therefore what the command line may.

use std::{ffi::OsString, fs, path::Path};

use anyhow::{Context, bail};
use clap::parser::ValueSource;
use toml::{Table, Value};

use crate::invocation::Invocation;

/// The subcommand that takes job files.
const SWEEP: &str = "sweep";
/// The list of arms.
const ARMS: &str = "arms";
/// Flags about one run and not about what is measured: they are not part of a job.
const NOT_PART: [&str; 6] = ["out", "json", "quiet", "dry_run", "seed", "color"];

/// The command line with a job file (`sweep job.toml`) replaced by what it holds; any other stays as it is. Flags that
/// stand beside the file are kept.
///
/// # Errors
/// The file can't be read, or is no job: with the cause.
pub(crate) fn expand(words: Vec<OsString>) -> anyhow::Result<Vec<OsString>> {
    // Only flags of all commands may stand before it.
    let Some(command) = (1..words.len().min(4)).find(|&at| words[at] == SWEEP) else {
        return Ok(words);
    };
    let first = command + 1;
    let is_job = |word: &OsString| {
        let path = Path::new(word);
        path.extension()
            .is_some_and(|extension| extension == "toml")
            && path.is_file()
    };
    let Some(position) = words.iter().skip(first).position(is_job) else {
        return Ok(words);
    };
    let position = first + position;
    let path = Path::new(&words[position]);
    let text = fs::read_to_string(path)
        .with_context(|| format!("cannot read the job {}", path.display()))?;
    let job = read(&text).with_context(|| format!("{} is no job", path.display()))?;
    let mut expanded: Vec<OsString> = words[..first].to_vec();
    expanded.extend(job.into_iter().map(OsString::from));
    let others = words[first..]
        .iter()
        .enumerate()
        .filter(|(index, _)| first + index != position);
    expanded.extend(others.map(|(_, word)| word.clone()));
    Ok(expanded)
}

/// The job that repeats a command line, with `seed`, which may have come from the clock.
///
/// # Errors
/// The words are no command line.
pub(crate) fn write(how: &Invocation, seed: u64) -> anyhow::Result<String> {
    let matches = how.parser.clone().try_get_matches_from(&how.words)?;
    let Some((SWEEP, matches)) = matches.subcommand() else {
        bail!("a job is a sweep's");
    };
    let command = how.parser.clone();
    let sweep = command
        .find_subcommand(SWEEP)
        .context("there is no sweep command")?;
    let mut job = Table::new();
    for flag in sweep.get_arguments() {
        let id = flag.get_id().as_str();
        if NOT_PART.contains(&id)
            || !matches.try_contains_id(id).unwrap_or(false)
            || matches.value_source(id) != Some(ValueSource::CommandLine)
        {
            continue;
        }
        let values: Vec<Value> = matches
            .get_raw(id)
            .into_iter()
            .flatten()
            .map(|value| Value::String(value.to_string_lossy().into_owned()))
            .collect();
        let key = flag.get_long().map_or(ARMS, |long| long).to_owned();
        let list = key == ARMS || flag.get_action().takes_values() && 1 < values.len();
        let value = match values.as_slice() {
            _ if !flag.get_action().takes_values() => Value::Boolean(true),
            [only] if !list => only.clone(),
            _ => Value::Array(values),
        };
        job.insert(key, value);
    }
    // Below 2^53, as seeds from the clock are; one that was typed may be larger, and is kept as text.
    let seed = match i64::try_from(seed) {
        Ok(seed) => Value::Integer(seed),
        Err(_) => Value::String(seed.to_string()),
    };
    job.insert("seed".to_owned(), seed);
    Ok(format!(
        "# Repeats the sweep beside it: echometer sweep job.toml\n{}",
        toml::to_string_pretty(&job).context("a job that has no form as TOML")?
    ))
}

/// The words of a job, to stand behind `sweep`.
fn read(text: &str) -> anyhow::Result<Vec<String>> {
    let job: Table = toml::from_str(text)?;
    let (mut flags, mut arms) = (Vec::new(), Vec::new());
    for (key, value) in &job {
        let values = match value {
            Value::Array(values) => values.as_slice(),
            one => std::slice::from_ref(one),
        };
        for value in values {
            let word = match value {
                Value::String(text) => text.clone(),
                Value::Integer(number) => number.to_string(),
                Value::Float(number) => number.to_string(),
                // `verify = false` is what leaving it away is.
                Value::Boolean(wanted) => {
                    if *wanted {
                        flags.push(format!("--{key}"));
                    }
                    continue;
                }
                _ => bail!("{key} is neither text nor number nor a list of these"),
            };
            match key.as_str() {
                ARMS => arms.push(word),
                // As one word, so that a value may begin with a dash.
                _ => flags.push(format!("--{key}={word}")),
            }
        }
    }
    // An arm may look like a flag only to those who don't read this.
    flags.extend(arms);
    Ok(flags)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        shell_words::split(line)
            .expect("a test's line")
            .into_iter()
            .map(OsString::from)
            .collect()
    }

    fn how(words: Vec<OsString>) -> Invocation {
        Invocation {
            command_line: String::new(),
            words,
            parser: crate::cli::Cli::parser(),
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let line = "echometer sweep --over 'uring=+bundle;-direct' --over connections=1,50 -s 4KiB -d 1s --verify \
                    --blocks 7 --out here --quiet --client-cpus 1 uring 'mine=./srv {port}'";
        let text = write(&how(words(line)), 99).expect("a command line");
        for expected in [
            "seed = 99",
            "size = \"4KiB\"",
            "verify = true",
            "client-cpus = \"1\"",
        ] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        assert!(!text.contains("here") && !text.contains("quiet"), "{text}");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("job.toml");
        fs::write(&path, &text).expect("it is writable");
        let again = expand(words(&format!(
            "echometer sweep {} --dry-run",
            path.display()
        )))
        .expect("it is a job");
        assert!(again.contains(&OsString::from("--dry-run")));
        let text_again = write(&how(again), 99).expect("a command line");
        assert_eq!(text_again, text, "a job repeats itself");
    }

    #[test]
    fn other_command_lines_stay_as_they_are() {
        for line in [
            "echometer",
            "echometer compare a.toml b",
            "echometer sweep nowhere.toml uring",
        ] {
            assert_eq!(expand(words(line)).expect("nothing to read"), words(line));
        }
    }

    #[test]
    fn what_is_no_job_is_said() {
        for (text, words) in [("arms = ", "TOML"), ("over = { a = 1 }", "neither")] {
            let error = format!("{:#}", read(text).expect_err(text));
            assert!(error.contains(words), "{error}");
        }
        let job =
            read("arms = ['uring']\nverify = false\nblocks = 6\nmargin = 0.05").expect("a job");
        assert_eq!(job, ["--blocks=6", "--margin=0.05", "uring"]);
    }
}
