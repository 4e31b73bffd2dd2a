//! Golden texts: what a rendering looked like when somebody last looked at it. With `ECHOMETER_BLESS=1` in the
//! environment the tests write what they see; then look at the difference before it is committed.

use std::{fs, path::Path};

/// Compares with `report/tests/golden/<name>`.
pub(crate) fn check(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    if std::env::var_os("ECHOMETER_BLESS").is_some() {
        fs::write(&path, text).expect("the golden file can be written");
    }
    let golden =
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(
        text,
        golden,
        "{} (ECHOMETER_BLESS=1 writes it anew)",
        path.display()
    );
}
