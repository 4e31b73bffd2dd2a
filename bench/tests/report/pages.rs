//! Every kind of page, opened from disk in a headless Chromium: it draws, sorts, takes keys, fits a phone, and asks
//! nothing of anybody.
//!
//! Without a browser these tests say so and pass, unless `CI` is set. With `ECHOMETER_SCREENSHOTS=DIR` each page is
//! written there as it looked by day, by night and on a phone.

use std::{
    env, fs,
    io::{self, Write as _},
    path::Path,
};

use serde_json::Value;

use crate::{browser::Browser, fixtures};

/// The largest that a page may be.
const BYTES_MAX: usize = 1_000_000;

/// How many pixels of each chart have any ink.
const INK: &str = "[...document.querySelectorAll('.canvas canvas')].map((canvas) => {
    const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
    let ink = 0;
    for (let at = 3; at < pixels.length; at += 4) ink += pixels[at] > 0;
    return ink;
})";

/// Sorts each table by its first column of numbers and gives the numbers, upwards and downwards.
const SORTED: &str = "[...document.querySelectorAll('main > section > .wide > table.sortable')].flatMap((table) => {
    const column = [...table.rows[1].cells].findIndex((cell) => cell.dataset.number !== undefined);
    if (column < 0) return [];
    const read = () => [...table.tBodies[0].rows].map((row) => row.cells[column].dataset.number).filter((text) => text !== undefined).map(Number);
    const click = () => table.rows[0].cells[column].querySelector('button').click();
    click();
    const up = read();
    const state = table.rows[0].cells[column].getAttribute('aria-sort');
    click();
    return [{ up, down: read(), state }];
})";

#[test]
fn every_kind_of_page_opens_from_disk_and_works() {
    let Some(mut browser) = Browser::start() else {
        assert!(
            env::var_os("CI").is_none(),
            "no Chromium is installed, and in CI the pages must be opened: apt-get install chromium"
        );
        // Past the harness, which keeps what a test that passes has printed to itself.
        let said =
            "SKIPPED: no Chromium is installed, so NO PAGE WAS OPENED: apt-get install chromium";
        writeln!(io::stderr(), "{said}").expect("stderr is open");
        return;
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    for fixture in fixtures::all(folder.path()) {
        let page = folder.path().join(format!("{}.html", fixture.name));
        fixtures::report(&[fixture.path.as_os_str(), "-o".as_ref(), page.as_os_str()]);
        let bytes = fs::read(&page).expect("it was written").len();
        assert!(bytes < BYTES_MAX, "{}: {bytes} bytes", fixture.name);
        looks_well_by_day(&mut browser, &page, &fixture);
        looks_well_by_night_and_on_a_phone(&mut browser, &page, fixture.name);
    }
}

fn looks_well_by_day(browser: &mut Browser, page: &Path, fixture: &fixtures::Fixture) {
    let name = fixture.name;
    let mut tab = browser.open(page, 1_000, false);
    let ink = tab.evaluate(INK);
    let ink: Vec<u64> = ink
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(Value::as_u64)
        .collect();
    assert_eq!(ink.len(), fixture.charts, "{name}: charts");
    assert!(
        ink.iter().all(|pixels| 1_000 < *pixels),
        "{name}: a chart is empty: {ink:?}"
    );
    let dots = tab.evaluate("document.querySelectorAll('svg.track circle').length");
    assert_eq!(dots, fixture.ratios, "{name}: ratios");
    // What one looks for comes in this order.
    let order = "[...document.querySelectorAll('.sentence, #verdict, section.forest, section.chart, #data')].map((part) => part.id || part.className)";
    let order: Vec<String> = serde_json::from_value(tab.evaluate(order)).expect("texts");
    assert_eq!(
        order.first().map(String::as_str),
        Some("sentence"),
        "{name}"
    );
    if fixture.has_verdict {
        assert_eq!(
            order.get(1).map(String::as_str),
            Some("verdict"),
            "{name}: {order:?}"
        );
    }

    let tables = tab.evaluate(SORTED);
    let tables = tables.as_array().expect("a list");
    assert!(!tables.is_empty(), "{name}: nothing to sort");
    for table in tables {
        let numbers = |key: &str| -> Vec<f64> {
            serde_json::from_value(table[key].clone()).expect("numbers")
        };
        let (up, down) = (numbers("up"), numbers("down"));
        assert!(up.is_sorted(), "{name}: {up:?}");
        assert!(down.iter().rev().is_sorted(), "{name}: {down:?}");
        assert_eq!(
            (up.len(), &table["state"]),
            (down.len(), &"ascending".into()),
            "{name}"
        );
    }

    // The chart takes the keyboard's focus, and an arrow shows the next point's figures.
    if 0 < fixture.charts {
        let legend = "document.querySelector('.canvas .u-legend').textContent";
        tab.evaluate("document.querySelector('.canvas').focus()");
        let before = tab.evaluate(legend);
        tab.press("ArrowRight", 39);
        let after = tab.evaluate(&format!(
            "new Promise((done) => setTimeout(() => done({legend}), 50))"
        ));
        assert_ne!(before, after, "{name}: the keyboard moves nothing");
        let figures = tab.evaluate("[...document.querySelectorAll('.chart details table')].every((table) => table.rows.length > 1)");
        assert_eq!(figures, true, "{name}: a chart without its figures");
    }

    // The raw data are in the page: a link gives back the very bytes.
    let first = "(() => { const link = document.querySelector('.files a'); return [link.textContent, atob(link.href.split(',')[1]).length]; })()";
    let link = tab.evaluate(first);
    let file = match fixture.path.is_dir() {
        true => fixture.path.join(link[0].as_str().expect("a name")),
        false => fixture.path.clone(),
    };
    assert_eq!(
        link[1],
        fs::metadata(file).expect("it is there").len(),
        "{name}"
    );
    let before = tab.evaluate("getComputedStyle(document.body).backgroundColor");
    tab.evaluate("document.getElementById('theme').click()");
    assert_ne!(
        before,
        tab.evaluate("getComputedStyle(document.body).backgroundColor"),
        "{name}: the button"
    );
    tab.evaluate("document.getElementById('theme').click()");
    assert_eq!(tab.complaints(), Vec::<String>::new(), "{name}");
    keep(&tab.screenshot(), name, "day");
}

fn looks_well_by_night_and_on_a_phone(browser: &mut Browser, page: &Path, name: &str) {
    let mut tab = browser.open(page, 1_000, true);
    assert_eq!(
        tab.evaluate("getComputedStyle(document.body).backgroundColor"),
        "rgb(13, 17, 23)",
        "{name}: dark where the system is dark"
    );
    keep(&tab.screenshot(), name, "night");
    let mut tab = browser.open(page, 360, false);
    let width = tab.evaluate("document.documentElement.scrollWidth");
    assert_eq!(width, 360, "{name}: the page is wider than a phone");
    assert_eq!(tab.complaints(), Vec::<String>::new(), "{name} on a phone");
    keep(&tab.screenshot(), name, "phone");
}

fn keep(png: &[u8], name: &str, how: &str) {
    if let Some(folder) = env::var_os("ECHOMETER_SCREENSHOTS") {
        let path = Path::new(&folder).join(format!("{name}-{how}.png"));
        fs::write(&path, png).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}
