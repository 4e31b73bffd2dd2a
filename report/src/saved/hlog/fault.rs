//! What is wrong with a line: which field, what was expected, what stands there. One form for every fault.

use std::fmt;

use crate::saved::harmless::harmless;

/// A field that is not as the format has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    field: &'static str,
    expected: String,
    found: String,
}

/// More of what was found tells nobody more.
const FOUND_CHARS_MAX: usize = 40;

impl Fault {
    /// `found` is quoted from the file, and may be anything.
    pub(super) fn new(
        field: &'static str,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        let (expected, found) = (expected.into(), found.into());
        Self {
            field,
            expected,
            found,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, form: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            field, expected, ..
        } = self;
        let mut found: String = self.found.chars().take(FOUND_CHARS_MAX).collect();
        if found.len() < self.found.len() {
            found.push_str("...");
        }
        let found = harmless(&found);
        write!(form, "{field}: expected {expected}, found {found}")
    }
}
