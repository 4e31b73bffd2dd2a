//! Names of files that are made of what a result says.

use std::collections::HashSet;

/// `name`, or `name-2`, `name-3`, ...: the first that is not taken; takes it. Arms `A` and `a` are two.
#[must_use]
pub fn free_name(name: String, taken: &mut HashSet<String>) -> String {
    let numbered = (2_u32..).map(|number| format!("{name}-{number}"));
    let free = std::iter::once(name.clone())
        .chain(numbered)
        .find(|name| !taken.contains(name))
        .unwrap_or(name);
    taken.insert(free.clone());
    free
}

/// Letters, digits, dots and dashes, and no more of them than a file's name may have; `untagged` for nothing.
#[must_use]
pub fn file_name(text: &str) -> String {
    const CHARS_MAX: usize = 100;

    let plain = |char: char| match char {
        'a'..='z' | '0'..='9' | '.' => char,
        'A'..='Z' => char.to_ascii_lowercase(),
        _ => '-',
    };
    let name: String = text.chars().take(CHARS_MAX).map(plain).collect();
    let words: Vec<&str> = name.split('-').filter(|word| !word.is_empty()).collect();
    let name = words.join("-").trim_matches(['-', '.']).to_owned();
    if name.is_empty() {
        "untagged".to_owned()
    } else {
        name
    }
}
