//! What is this machine's folder called? A name made of its cpu, their number and its kernel, so that the
//! same kind of machine gets the same one, and its owner's name for it stays at home.

use super::Facts;
use crate::{cpus::CpuList, kernel};

/// Longest slug: folder names may have 255 bytes, and a table wants fewer.
const LENGTH_MAX: usize = 80;

/// `amd-epyc-2cpu-linux-6.18`: only `a-z`, `0-9`, `.` and `-`, never empty, at most 80 bytes.
///
/// Of the kernel's release only the version is taken, because the rest may name whoever built it.
#[must_use]
pub fn slug(facts: &Facts) -> String {
    let model = facts
        .cpu_model
        .as_deref()
        .map(model_words)
        .filter(|words| !words.is_empty());
    let model = model.unwrap_or_else(|| words(&facts.architecture).join("-"));
    let cpus = facts
        .cpus_online
        .as_ref()
        .map(CpuList::len)
        .filter(|&count| 0 < count);
    let cpus = cpus.map_or("unknown-cpus".to_owned(), |count| format!("{count}cpu"));
    let version = facts.kernel.as_deref().and_then(kernel::version_of);
    let linux = version.map_or("linux".to_owned(), |(major, minor)| {
        format!("linux-{major}.{minor}")
    });

    let room = LENGTH_MAX - cpus.len() - linux.len() - 2;
    let model = model[..model.len().min(room)]
        .trim_matches(['-', '.'])
        .to_owned();
    [model, cpus, linux]
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join("-")
}

/// `Intel(R) Xeon(R) Platinum 8375C CPU @ 2.90GHz` is `intel-xeon-platinum-8375c`.
fn model_words(model: &str) -> String {
    let plain = ["(r)", "(tm)", "(c)"]
        .iter()
        .fold(model.to_lowercase(), |text, mark| text.replace(mark, " "));
    // What follows is the frequency, or the graphics beside the cpu.
    let name = plain
        .split(" @")
        .next()
        .unwrap_or_default()
        .split(" with ")
        .next()
        .unwrap_or_default();
    let is_noise =
        |word: &String| matches!(word.as_str(), "cpu" | "processor") || word.ends_with("-core");
    words(name)
        .into_iter()
        .filter(|word| !is_noise(word))
        .collect::<Vec<_>>()
        .join("-")
}

/// Words of ASCII letters, digits, dots and hyphens; everything else parts them.
fn words(text: &str) -> Vec<String> {
    let keeps = |char: char| char.is_ascii_alphanumeric() || char == '.' || char == '-';
    let words = text
        .split(|char: char| !keeps(char))
        .map(|word| word.trim_matches(['-', '.']).to_lowercase());
    words.filter(|word| !word.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn named(model: &str, cpus: u32, kernel: &str) -> String {
        slug(&Facts {
            cpu_model: Some(model.to_owned()),
            cpus_online: Some((0..cpus).collect()),
            kernel: Some(kernel.to_owned()),
            ..Facts::default()
        })
    }

    #[test]
    fn models_are_shortened_to_their_names() {
        assert_eq!(named("AMD EPYC", 2, "6.18.2"), "amd-epyc-2cpu-linux-6.18");
        let xeon = "Intel(R) Xeon(R) Platinum 8375C CPU @ 2.90GHz";
        assert_eq!(
            named(xeon, 64, "5.15.0-1019-aws"),
            "intel-xeon-platinum-8375c-64cpu-linux-5.15"
        );
        let ryzen = "AMD Ryzen 9 7950X 16-Core Processor            ";
        assert_eq!(
            named(ryzen, 32, "6.1.0"),
            "amd-ryzen-9-7950x-32cpu-linux-6.1"
        );
        let laptop = "AMD Ryzen 7 5800U with Radeon Graphics";
        assert_eq!(
            named(laptop, 16, "6.12-rc3"),
            "amd-ryzen-7-5800u-16cpu-linux-6.12"
        );
        let arm = "ARM implementer 0x41 part 0xd0c";
        assert_eq!(
            named(arm, 4, "6.8.0"),
            "arm-implementer-0x41-part-0xd0c-4cpu-linux-6.8"
        );
    }

    #[test]
    fn what_follows_the_version_stays_at_home() {
        assert_eq!(named("X", 1, "6.18.44-alice-laptop"), "x-1cpu-linux-6.18");
    }

    #[test]
    fn an_unknown_machine_has_a_name_too() {
        let facts = Facts {
            architecture: "x86_64".into(),
            ..Facts::default()
        };
        assert_eq!(slug(&facts), "x86-64-unknown-cpus-linux");
        assert_eq!(slug(&Facts::default()), "unknown-cpus-linux");
    }

    proptest! {
        #[test]
        fn any_machine_gets_a_name_fit_for_a_folder(model in "\\PC{0,120}", cpus in 0_u32..5_000, kernel in "\\PC{0,20}") {
            let slug = named(&model, cpus, &kernel);
            prop_assert!(!slug.is_empty() && slug.len() <= LENGTH_MAX);
            prop_assert!(slug.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte)));
            prop_assert!(slug.starts_with(|char: char| char.is_ascii_alphanumeric()));
        }
    }
}
