//! Which cpus are there, and which may we use? Sets of cpu numbers in the notation that Linux itself
//! writes (`0,2-5`), the process's affinity mask, and the cpus that are online.

use std::{collections::BTreeSet, fmt, fs, io, str::FromStr};

use rustix::thread::{CpuSet, sched_getaffinity};
use serde::{Deserialize, Serialize};

/// Highest number a cpu may have. Linux is built for at most 8,192 cpus (`NR_CPUS` on x86-64); the bound
/// keeps a mistyped `0-4000000000` from filling memory.
pub const CPU_MAX: u32 = 8_191;

/// The cpus that this process was allowed when it started: the affinity mask of its main thread.
///
/// The main thread is asked rather than the calling one, so that a worker that has pinned itself still
/// sees what the process may use.
///
/// # Errors
/// `sched_getaffinity` fails (`EINVAL` on a kernel configured for more than 1,024 cpus).
pub fn allowed() -> io::Result<CpuList> {
    Ok(CpuList::from_mask(&sched_getaffinity(Some(
        rustix::process::getpid(),
    ))?))
}

/// The cpus on which the calling thread may run now.
///
/// # Errors
/// As for [`allowed`].
pub fn allowed_to_this_thread() -> io::Result<CpuList> {
    Ok(CpuList::from_mask(&sched_getaffinity(None)?))
}

/// The cpus that are switched on, from `/sys/devices/system/cpu/online`.
///
/// # Errors
/// The file cannot be read (no sysfs in this container) or holds something other than a cpu list.
pub fn online() -> io::Result<CpuList> {
    const ONLINE: &str = "/sys/devices/system/cpu/online";
    let text = fs::read_to_string(ONLINE)
        .map_err(|error| io::Error::new(error.kind(), format!("{ONLINE}: {error}")))?;
    CpuList::from_kernel(&text)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("{ONLINE}: {error}")))
}

/// A set of cpu numbers, sorted and without repetition.
///
/// Written and read as Linux does: `0,2-5`. In files it is that text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct CpuList(Vec<u32>);

impl CpuList {
    /// The cpu numbers in rising order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = u32> + '_ {
        self.0.iter().copied()
    }

    /// How many cpus are in the set.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the set holds no cpu.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `cpu` is in the set.
    #[must_use]
    pub fn contains(&self, cpu: u32) -> bool {
        self.0.binary_search(&cpu).is_ok()
    }

    /// The lowest cpu of the set.
    #[must_use]
    pub fn first(&self) -> Option<u32> {
        self.0.first().copied()
    }

    /// The cpus that are in both sets.
    #[must_use]
    pub fn intersection(&self, other: &CpuList) -> CpuList {
        self.iter().filter(|&cpu| other.contains(cpu)).collect()
    }

    /// The cpus of this set that are not in `other`.
    #[must_use]
    pub fn difference(&self, other: &CpuList) -> CpuList {
        self.iter().filter(|&cpu| !other.contains(cpu)).collect()
    }

    /// Reads a list as the kernel writes it: like [`FromStr`], but an empty text is an empty set
    /// (`/sys/devices/system/cpu/isolated` is often empty).
    ///
    /// # Errors
    /// The text is no cpu list.
    pub fn from_kernel(text: &str) -> Result<CpuList, CpuListError> {
        if text.trim().is_empty() {
            Ok(CpuList::default())
        } else {
            text.trim().parse()
        }
    }

    fn from_mask(mask: &CpuSet) -> CpuList {
        (0..CpuSet::MAX_CPU)
            .filter(|&cpu| mask.is_set(cpu))
            .map(|cpu| cpu as u32)
            .collect()
    }
}

impl FromIterator<u32> for CpuList {
    fn from_iter<I: IntoIterator<Item = u32>>(cpus: I) -> CpuList {
        CpuList(
            cpus.into_iter()
                .collect::<BTreeSet<u32>>()
                .into_iter()
                .collect(),
        )
    }
}

/// Why a text is no cpu list; names the part that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CpuListError {
    /// Nothing was given.
    #[error("the cpu list is empty: give cpu numbers and ranges such as `0,2-5`")]
    Empty,
    /// A part is neither a number nor a range.
    #[error("`{0}` is neither a cpu number nor a range: write cpu lists as `0,2-5`")]
    NotANumber(String),
    /// A range runs downwards.
    #[error("the cpu range `{0}` runs downwards: put its lower end first")]
    Reversed(String),
    /// A number is beyond [`CPU_MAX`].
    #[error("cpu `{0}` is too large: Linux numbers cpus from 0 to {CPU_MAX}")]
    TooLarge(String),
}

impl FromStr for CpuList {
    type Err = CpuListError;

    fn from_str(text: &str) -> Result<CpuList, CpuListError> {
        if text.trim().is_empty() {
            return Err(CpuListError::Empty);
        }
        let mut cpus = BTreeSet::new();
        for part in text.split(',').map(str::trim) {
            let (low, high) = match part.split_once('-') {
                Some((low, high)) => (cpu_number(low, part)?, cpu_number(high, part)?),
                None => (cpu_number(part, part)?, cpu_number(part, part)?),
            };
            if high < low {
                return Err(CpuListError::Reversed(part.to_owned()));
            }
            cpus.extend(low..=high);
        }
        Ok(CpuList(cpus.into_iter().collect()))
    }
}

/// Digits only: `u32::from_str` would also take `+1`.
fn cpu_number(digits: &str, part: &str) -> Result<u32, CpuListError> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(CpuListError::NotANumber(part.to_owned()));
    }
    match digits.parse() {
        Ok(cpu) if cpu <= CPU_MAX => Ok(cpu),
        _ => Err(CpuListError::TooLarge(digits.to_owned())),
    }
}

impl fmt::Display for CpuList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, run) in self
            .0
            .chunk_by(|left, right| left + 1 == *right)
            .enumerate()
        {
            let comma = if index == 0 { "" } else { "," };
            match run {
                [cpu] => write!(f, "{comma}{cpu}")?,
                [first, .., last] => write!(f, "{comma}{first}-{last}")?,
                [] => {}
            }
        }
        Ok(())
    }
}

impl From<CpuList> for String {
    fn from(cpus: CpuList) -> String {
        cpus.to_string()
    }
}

impl TryFrom<String> for CpuList {
    type Error = CpuListError;

    /// For files, where an empty set is written as an empty text.
    fn try_from(text: String) -> Result<CpuList, CpuListError> {
        CpuList::from_kernel(&text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_the_notation_of_linux() {
        let list: CpuList = "0,2-5".parse().unwrap();
        assert_eq!(list.iter().collect::<Vec<_>>(), [0, 2, 3, 4, 5]);
        assert_eq!(list.to_string(), "0,2-5");
        assert!(list.contains(4) && !list.contains(1));
        assert_eq!((list.len(), list.first()), (5, Some(0)));
        assert_eq!(
            " 3 , 1-2,2\n".parse::<CpuList>().unwrap().to_string(),
            "1-3"
        );
        assert_eq!("0,1".parse::<CpuList>().unwrap().to_string(), "0-1");
        assert!(CpuList::from_kernel("\n").unwrap().is_empty());
    }

    #[test]
    fn names_the_part_that_is_wrong() {
        let error = |text: &str| text.parse::<CpuList>().unwrap_err();
        assert_eq!(error(""), CpuListError::Empty);
        assert_eq!(error("0,a-3"), CpuListError::NotANumber("a-3".into()));
        assert_eq!(error("0,,1"), CpuListError::NotANumber(String::new()));
        assert_eq!(error("-1"), CpuListError::NotANumber("-1".into()));
        assert_eq!(error("+1"), CpuListError::NotANumber("+1".into()));
        assert_eq!(error("1-"), CpuListError::NotANumber("1-".into()));
        assert_eq!(error("1-2-3"), CpuListError::NotANumber("1-2-3".into()));
        assert_eq!(error("7,5-2"), CpuListError::Reversed("5-2".into()));
        assert_eq!(
            error("0-4000000000"),
            CpuListError::TooLarge("4000000000".into())
        );
        assert_eq!(
            error("99999999999999999999"),
            CpuListError::TooLarge("99999999999999999999".into())
        );
        assert!(error("0,a-3").to_string().contains("`a-3`"));
    }

    #[test]
    fn set_operations() {
        let (left, right): (CpuList, CpuList) = ("0-3".parse().unwrap(), "2-5".parse().unwrap());
        assert_eq!(left.intersection(&right).to_string(), "2-3");
        assert_eq!(left.difference(&right).to_string(), "0-1");
    }

    #[test]
    fn this_machine_allows_a_cpu_that_is_online() {
        let (allowed, online) = (allowed().unwrap(), online().unwrap());
        assert!(!allowed.is_empty());
        assert_eq!(allowed.difference(&online), CpuList::default());
        assert!(!allowed_to_this_thread().unwrap().is_empty());
    }

    proptest! {
        #[test]
        fn text_and_set_agree(cpus in proptest::collection::btree_set(0..=CPU_MAX, 1..50)) {
            let list: CpuList = cpus.iter().copied().collect();
            prop_assert_eq!(list.to_string().parse::<CpuList>().unwrap(), list.clone());
            prop_assert!(list.iter().eq(cpus));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[0-9, +a-]{0,24}|\\PC{0,16}") {
            if let Ok(list) = text.parse::<CpuList>() {
                prop_assert_eq!(list.to_string().parse::<CpuList>().unwrap(), list);
            }
        }
    }
}
