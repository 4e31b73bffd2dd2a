//! Which Linux is this? Its release, and a comparison of versions for the few places where a kernel's
//! behaviour has changed without any other sign. What the kernel can be asked for is asked for instead.

use std::fs;

/// The release, such as `6.18.2-arch1`; none if `/proc` does not say.
#[must_use]
pub fn release() -> Option<String> {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    Some(text.trim().to_owned()).filter(|release| !release.is_empty())
}

/// Major and minor version of `release`: (6, 18) for `6.18.2-arch1`.
#[must_use]
pub fn version_of(release: &str) -> Option<(u32, u32)> {
    let mut parts = release
        .split(|char: char| !char.is_ascii_digit())
        .map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

/// Whether this kernel's version is `major.minor` or later; false where the version is unknown.
#[must_use]
pub fn is_at_least(major: u32, minor: u32) -> bool {
    release()
        .and_then(|release| version_of(&release))
        .is_some_and(|version| (major, minor) <= version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_releases() {
        assert_eq!(version_of("6.18.2-arch1"), Some((6, 18)));
        assert_eq!(version_of("5.15-generic"), Some((5, 15)));
        assert_eq!(version_of("6.1"), Some((6, 1)));
        assert_eq!(version_of("6.12-rc3+"), Some((6, 12)));
        for odd in ["", "6", "six.one", ".6.1", "99999999999.1"] {
            assert_eq!(version_of(odd), None, "{odd}");
        }
    }

    #[test]
    fn this_kernel_runs_rust_and_is_not_from_the_future() {
        // Rust's standard library asks for Linux 3.2.
        assert!(release().is_some() && is_at_least(3, 2));
        assert!(!is_at_least(1_000, 0));
    }
}
