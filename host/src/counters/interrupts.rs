//! What interrupted which cpu, and how often? `/proc/interrupts` and `/proc/softirqs`, by the kernel's names.

use std::{collections::BTreeMap, io};

use super::{invalid, read};

/// Counts since boot: by name, then by cpu.
pub type ByName = BTreeMap<String, BTreeMap<u32, u64>>;

/// Interrupts of devices, timers and other cpus.
///
/// # Errors
/// The file can't be read, or has another form.
pub fn interrupts() -> io::Result<ByName> {
    counted("/proc/interrupts")
}

/// Soft interrupts: what the kernel does later on behalf of interrupts, such as the receive side of the network.
///
/// # Errors
/// As [`interrupts`].
pub fn softirqs() -> io::Result<ByName> {
    counted("/proc/softirqs")
}

/// What `now` counts on `cpu` beyond `earlier`, the most first.
#[must_use]
pub fn counted_since(now: &ByName, earlier: &ByName, cpu: u32) -> Vec<(String, u64)> {
    let of = |counts: &ByName, name: &str| counts.get(name)?.get(&cpu).copied();
    let mut counts: Vec<(String, u64)> = now
        .keys()
        .filter_map(|name| {
            let count = of(now, name)?.saturating_sub(of(earlier, name).unwrap_or(0));
            (0 < count).then(|| (name.clone(), count))
        })
        .collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts
}

fn counted(file: &str) -> io::Result<ByName> {
    parse(&read(file)?).ok_or_else(|| invalid(file))
}

/// A head that names the cpus, then lines: a label, a count for each cpu, perhaps words.
fn parse(text: &str) -> Option<ByName> {
    let mut lines = text.lines();
    let cpus: Option<Vec<u32>> = lines
        .next()?
        .split_ascii_whitespace()
        .map(|head| head.strip_prefix("CPU")?.parse().ok())
        .collect();
    let cpus = cpus.filter(|cpus| !cpus.is_empty())?;
    let mut counts = ByName::new();
    for line in lines {
        let Some((label, rest)) = line.split_once(':') else {
            continue;
        };
        let words: Vec<&str> = rest.split_ascii_whitespace().collect();
        let numbers: Vec<u64> = words
            .iter()
            .map_while(|word| word.parse().ok())
            .take(cpus.len())
            .collect();
        // Counts that are not per cpu, such as ERR, are of no cpu.
        if numbers.len() < cpus.len() {
            continue;
        }
        let label = label.trim();
        let words = &words[cpus.len()..];
        let name = match label.parse::<u32>() {
            // "24:  0 9  PCI-MSIX-0000:00:03.0 0-edge  virtio1-input.0": the device is the last.
            Ok(_) => format!("{label} {}", words.last().copied().unwrap_or_default())
                .trim_end()
                .to_owned(),
            Err(_) if words.is_empty() => label.to_owned(),
            Err(_) => words.join(" "),
        };
        counts.insert(name, cpus.iter().copied().zip(numbers).collect());
    }
    Some(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_named_and_counted_by_cpu() {
        let text = "            CPU0       CPU2       \n  4:          7          9   IO-APIC   4-edge      ttyS0\nLOC:       1000       2000   Local timer interrupts\nERR:          3\n";
        let before = parse(text).expect("it is one");
        assert_eq!(before["4 ttyS0"], [(0, 7), (2, 9)].into());
        assert_eq!(before.len(), 2);
        let after =
            parse(&text.replace(" 2000", " 2500").replace("   9 ", "  12 ")).expect("it is one");
        assert_eq!(
            counted_since(&after, &before, 2),
            [
                ("Local timer interrupts".to_owned(), 500),
                ("4 ttyS0".to_owned(), 3)
            ]
        );
        assert_eq!(counted_since(&after, &before, 0), []);
        let soft =
            parse("                    CPU0\n          HI:          5\n      NET_RX:        800\n")
                .expect("it is one");
        assert_eq!(soft["NET_RX"], [(0, 800)].into());
        assert_eq!(parse("nothing"), None);
    }

    #[test]
    fn this_machine_has_some() {
        assert!(!interrupts().expect("procfs").is_empty());
        assert!(softirqs().expect("procfs").contains_key("TIMER"));
    }
}
