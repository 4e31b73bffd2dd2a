//! What a log is read as, and what is refused.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use hdrhistogram::serialization::{Serializer, V2Serializer};
use proptest::prelude::*;

use super::*;

fn filled(values: &[u64]) -> Histogram<u64> {
    let mut histogram = echometer_loadgen::recorder::histogram();
    for value in values {
        histogram.record(*value).expect("within 60 s");
    }
    histogram
}

fn parse(bytes: &[u8]) -> Result<Log, Reason> {
    Log::from_file(io::Cursor::new(bytes.to_vec()), None)
}

fn log(tag: &str, start_s: u64, values: &[u64]) -> Log {
    Log::of(vec![Interval {
        tag: tag.into(),
        start: Duration::from_secs(start_s),
        length: Duration::from_secs(1),
        histogram: Encoded::of(&filled(values)).expect("few values"),
    }])
}

#[test]
fn what_is_written_is_read() {
    let mut one = log("latency", 1_700_000_000, &[1, 100, 59_999_999_999]);
    one.intervals
        .extend(log("service", 1_700_000_001, &[5]).intervals);
    let read = parse(&one.to_bytes().expect("a vector takes all")).expect("it is whole");
    assert_eq!(read, one);
    assert_eq!(read.tags(), ["latency", "service"]);
    assert_eq!(read.whole("latency").expect("it is there").len(), 3);
    assert_eq!(read.whole("x"), None);
}

/// As HdrHistogram_c and wrk2 write it: not deflated, without a tag, times from the start, carriage returns.
#[test]
fn another_tools_log_is_read() {
    let mut plain = Vec::new();
    V2Serializer::new()
        .serialize(&filled(&[7, 7, 9_000]), &mut plain)
        .expect("a vector takes all");
    let text = format!(
        "#[Histogram log format version 1.2]\n#[StartTime: 1700000000.000 (seconds since epoch), whenever]\n\
         \"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n\
         0.500,1.000,9.0,{}\r\n",
        BASE64_STANDARD.encode(plain)
    );
    let log = parse(text.as_bytes()).expect("it is whole");
    let [line] = log.intervals.as_slice() else {
        panic!("one line")
    };
    assert_eq!(line.histogram.histogram(), filled(&[7, 7, 9_000]));
    assert_eq!(line.start, Duration::from_millis(1_700_000_000_500));
    assert_eq!(log.tags(), [""]);
}

#[test]
fn what_is_no_whole_log_is_named() {
    let whole = log("latency", 0, &[1, 2, 3]).to_bytes().expect("bytes");
    let text = String::from_utf8(whole.clone()).expect("text");
    let last = text.lines().last().expect("a line");
    let said = |bytes: &[u8]| parse(bytes).expect_err("it is refused").to_string();
    assert!(said(&whole[..whole.len() - 9]).contains("truncated: line 6, histogram: expected"));
    assert!(said(text.replace(last, "").trim_end().as_bytes()).contains("truncated"));
    assert!(said(b"").contains("holds no histogram"));
    assert!(said(b"\xff\xfe").contains("foreign: it is no text"));
    assert!(said(b"hello\n").contains("foreign: it is no HdrHistogram log"));
    assert!(
        said(text.replace("version 1.3", "version 2.0").as_bytes())
            .contains("newer than this program")
    );
    assert!(
        said(format!("{text}nonsense\n").as_bytes())
            .contains("damaged: line 7, line: expected a start")
    );
    let damaged = text.replace(last, &last.replace("HISTF", "HISTX"));
    assert!(
        said(damaged.as_bytes()).contains("line 6, histogram"),
        "{}",
        said(damaged.as_bytes())
    );
}

#[test]
fn histograms_of_any_shape_add_up_to_every_count() {
    let mut coarse = Histogram::<u64>::new(2).expect("a shape");
    for value in [1, 1_000, 123_456_789_012] {
        coarse.record(value).expect("it grows");
    }
    let fine = filled(&[1, 2, 3]);
    let parts = [&coarse, &fine].map(|part| Encoded::of(part).expect("few values"));
    let total = sum(parts.iter()).expect("few").expect("there are two");
    assert_eq!((total.len(), total.sigfig()), (6, 3));
    assert_eq!(total.count_at(1), 2);
    assert!(123_000_000_000 <= total.max());
    assert_eq!(sum(std::iter::empty()), Ok(None));
}

/// 1 to 1,000, once each.
const T: &str = "HISTFAAAACl4nJNpmSzMwMD8kgECmKE0I5DpZrBjAYP9B6gI0ygYBaNg2AMAGPsNBw==";

fn text(text: &str) -> Log {
    parse(text.as_bytes()).unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

fn refused(text: &str) -> String {
    let error = parse(text.as_bytes()).expect_err(text).to_string();
    assert_eq!(error.lines().count(), 1, "{error}");
    error
}

fn starts_ms(log: &Log) -> Vec<u128> {
    let starts = log.intervals.iter().map(|one| one.start.as_millis());
    starts.collect()
}

fn data(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

/// `tests/data` is made by `scripts/foreign-logs.sh`: by each tool's own library, with what that library says.
#[test]
fn logs_of_other_tools_hold_what_these_tools_say() {
    for (log, said) in [
        ("java.hlog", "java.json"),
        ("java.hlog.gz", "java.json"),
        ("java-v1.hlog", "java-v1.json"),
        ("python.hlog", "python.json"),
        ("js.hlog", "js.json"),
        ("c.hlog", "c.json"),
    ] {
        let read = Log::read(&data(log), None).expect("it is whole");
        let said = std::fs::read_to_string(data(said)).expect("it is there");
        let said: serde_json::Value = serde_json::from_str(&said).expect("it is JSON");
        let starts: Vec<u128> = serde_json::from_value(said["starts_ms"].clone()).expect("times");
        assert_eq!(starts_ms(&read), starts, "{log}");
        let tags = said["tags"].as_object().expect("tags");
        assert_eq!(read.tags().len(), tags.len(), "{log}");
        for (tag, figures) in tags {
            let whole = read.whole(tag).expect("the tool has this tag");
            let quantile = |quantile| whole.value_at_quantile(quantile);
            let seen = serde_json::json!({
                "count": whole.len(),
                "p50": quantile(0.5),
                "p99": quantile(0.99),
                "p99.9": quantile(0.999),
                "max": whole.max(),
            });
            assert_eq!(&seen, figures, "{log} {tag:?}");
        }
        let length = |one: &Interval| one.length.as_millis();
        assert!(
            read.intervals
                .iter()
                .all(|one| matches!(length(one), 1_000 | 1_007)),
            "{log}"
        );
    }
    let error = Log::read(&data("java-double.hlog"), None).expect_err("it is none of integers");
    let right = "line 1, histogram: expected one of integers (HIST), V2 or V1, found a DoubleHistogram (DHIST)";
    assert!(error.to_string().contains(right), "{error}");
}

/// F.31: lines that other tools write were refused.
#[test]
fn what_says_nothing_is_skipped_and_numbers_are_any_floats() {
    let legend = "StartTimestamp,Interval_Length,Interval_Max,Interval_Compressed_Histogram";
    for whole in [
        format!("0.0,1.0,1.0,{T}"),
        format!("\n\n0,1,1,{T}\n\n"),
        format!("\u{feff}0.0,1.0,1.0,{T}\n"),
        format!("\u{feff}#[StartTime: 0]\n0.0,1.0,1.0,{T}\n"),
        format!("{legend}\n 0.0 , 1e0,+1.,{T}\r\n"),
        format!("\"{}\"\n.0,1.,1E3,{T}\n", legend.replace(',', "\",\"")),
        format!("#\n# a comment\n#[MaxValueDivisor: 1000000.000]\n0.0,1.0,1.0,{T}\n"),
        format!("  \t\n0.0,1.0,NaN,{T}"),
        format!("Tag=,0.0,1.0,1.0,{T}"),
    ] {
        let log = text(&whole);
        assert_eq!(log.intervals.len(), 1, "{whole}");
        let one = &log.intervals[0];
        assert_eq!((one.tag.as_str(), one.length), ("", Duration::from_secs(1)));
        let values = one.histogram.histogram();
        assert_eq!((values.len(), values.max()), (1_000, 1_000));
        assert_eq!(values.value_at_quantile(0.5), 500);
        assert_eq!(values.value_at_quantile(0.99), 990);
    }
    let text = format!("# caf\u{e9}\n0.0,1.0,1.0,{T}\n");
    let latin: Vec<u8> = text.chars().map(|char| char as u8).collect();
    assert_eq!(parse(&latin).expect("only a comment").intervals.len(), 1);
}

/// F.31: two hosts an hour apart came together in one interval, because their bases were taken for comments.
#[test]
fn a_base_is_read_however_it_is_spelt_or_refused_with_its_line() {
    for base in [
        "#[BaseTime: 1700000000 (seconds since epoch)]",
        "#[BaseTime: 1700000000.000 (seconds since epoch)]",
        "#[BaseTime: 1.7e9 (seconds since epoch)]",
        "#[BaseTime:1700000000]",
        "# [basetime: 1700000000, whenever]",
        "#[StartTime: 1700000000 (seconds since epoch), Tue Nov 14]",
        "#[StartTime: 1700000000.0]",
        "#[Start Time = 1700000000]",
    ] {
        let log = text(&format!("{base}\n1.5,1,1,{T}\n"));
        assert_eq!(starts_ms(&log), [1_700_000_001_500], "{base}");
    }
    for base in ["BaseTime", "StartTime"] {
        for said in [
            "",
            "yesterday",
            "1,7",
            "-5",
            "inf",
            "1e30",
            "18446744073709551615",
        ] {
            if said == "1,7" {
                continue; // A number and a comma behind it, as in the long form.
            }
            let error = refused(&format!("#\n#[{base}: {said}]\n0,1,1,{T}\n"));
            assert!(
                error.starts_with(&format!("is damaged: line 2, {base}: expected seconds")),
                "{error}"
            );
        }
    }
    // A start may lie before the base, and not before 1970.
    let log = text(&format!("#[BaseTime: 100]\n0,1,1,{T}\n-2.5,1,1,{T}\n"));
    assert_eq!(starts_ms(&log), [100_000, 97_500]);
    let bytes = log.to_bytes().expect("it can be written");
    let written = String::from_utf8(bytes).expect("text");
    assert!(
        !written.contains(",-") && !written.contains("\n-"),
        "{written}"
    );
    assert_eq!(starts_ms(&text(&written)), [100_000, 97_500]);
    assert!(refused(&format!("#[BaseTime: 1]\n-2,1,1,{T}\n")).contains("line 2, start: expected"));
    // The head of a log behind another is its own.
    let two =
        format!("#[BaseTime: 100]\n0,1,1,{T}\n#[StartTime: 3700]\n#[BaseTime: 3700]\n0,1,1,{T}\n");
    assert_eq!(starts_ms(&text(&two)), [100_000, 3_700_000]);
}

/// F.32: hdr-histogram-js writes 0 for offset and ratio.
#[test]
fn a_histogram_of_javascript_is_read() {
    let log =
        text("0.0,1.0,1.0,HISTFAAAACh4nJNpmSzMwMD8koGBgZGBgYGZAQIYoTQTnM80CkbBKBj2AABQcwoL\n");
    let values = log.whole("").expect("it is there");
    assert_eq!((values.len(), values.max()), (1_000, 1_000));
    assert_eq!(values.value_at_quantile(0.5), 500);
}

/// F.33: what was behind a histogram on its line was lost.
#[test]
fn two_histograms_on_a_line_are_refused() {
    let bytes = BASE64_STANDARD.decode(T).expect("base64");
    let encoded = |bytes: &[u8]| BASE64_STANDARD.encode(bytes);
    let twice = [&bytes[..], &bytes[..]].concat();
    let mut longer = bytes.clone();
    longer[7] += 1;
    let behind = |more: &[u8]| {
        let mut all = [&bytes[..], more].concat();
        let length = (all.len() - 8) as u32;
        all[4..8].copy_from_slice(&length.to_be_bytes());
        encoded(&all)
    };
    for histogram in [
        format!("{T}{T}"),
        encoded(&twice),
        behind(&bytes),
        behind(b"\0"),
        encoded(&longer),
        encoded(&bytes[..bytes.len() - 1]),
        encoded(&bytes[..40]),
        format!("{T},{T}"),
        format!("{T} 1.0,1.0,1.0,{T}"),
        format!("{T}0.0,1.0,1.0,{T}"),
        encoded(b"HIST"),
        encoded(&[0; 60]),
        String::new(),
    ] {
        let error = refused(&format!("#x\n0.0,1.0,1.0,{histogram}\n"));
        assert!(
            error.starts_with("is damaged: line 2, "),
            "{histogram}: {error}"
        );
    }
    // The same for a plain one: lengths agree, and its counts end with it.
    let mut plain = Vec::new();
    inflate(&bytes[8..], &mut plain);
    assert_eq!(
        text(&format!("0,1,1,{}\n", encoded(&plain)))
            .whole("")
            .expect("it is there")
            .len(),
        1_000
    );
    plain.push(2);
    assert!(refused(&format!("0,1,1,{}\n", encoded(&plain))).contains("as it says"));
    plain[7] += 1;
    assert_eq!(
        text(&format!("0,1,1,{}\n", encoded(&plain)))
            .whole("")
            .expect("it is there")
            .len(),
        1_001
    );
    // What swallowed a histogram before it came to be parsed: a line break that was lost.
    for head in [
        "#[MaxValueDivisor: 1.0]",
        "\"StartTimestamp\",\"Interval_Length\",",
    ] {
        let error = refused(&format!("{head}0.0,1.0,1.0,{T}\n"));
        assert!(error.contains("line 1, "), "{error}");
    }
    assert_eq!(
        text(&format!("#0.0,1.0,1.0,{T}\n0,1,1,{T}\n"))
            .whole("")
            .expect("it is there")
            .len(),
        1_000
    );
}

fn inflate(deflated: &[u8], into: &mut Vec<u8>) {
    io::Read::read_to_end(&mut flate2::bufread::ZlibDecoder::new(deflated), into)
        .expect("it is whole");
}

/// F.34: a tag as it stands; who has none stays without.
#[test]
fn tags_are_read_as_they_stand_and_written_as_they_are() {
    let log = text(&format!(
        "Tag=read op,0,1,1,{T}\nTag=a=b,0,1,1,{T}\n0,1,1,{T}\n"
    ));
    assert_eq!(log.tags(), ["read op", "a=b", ""]);
    let error = log.to_bytes().expect_err("no reader would take it");
    assert!(error.to_string().contains("the tag \"read op\""), "{error}");
    assert!(refused(&format!("Tag=a,b,0,1,1,{T}\n")).contains("line 1, line: expected a start"));
    assert!(refused("#[BaseTime: 1]\nTag=a\n").contains("line 2"));
}

/// F.37: 2^64 s made it panic, and counts were held at 2^64.
#[test]
fn no_time_and_no_count_is_too_large_to_be_refused() {
    for large in [
        "18446744073709551615",
        "1e300",
        "9223372036854775807",
        "253402300800",
        "-1e19",
    ] {
        let start = refused(&format!("{large},1,1,{T}\n"));
        assert!(start.contains("line 1, start: expected"), "{start}");
        let length = refused(&format!("0,{large},1,{T}\n"));
        assert!(length.contains("line 1, length: expected"), "{length}");
    }
    for field in ["nan", "inf", "-inf", "", "0x10", "1s", "1 2"] {
        assert!(refused(&format!("{field},1,1,{T}\n")).contains("start: expected"));
        assert!(refused(&format!("0,{field},1,{T}\n")).contains("length: expected"));
    }
    assert!(refused(&format!("0,-1,1,{T}\n")).contains("length: expected 0 s or more"));
    assert!(refused(&format!("0,1,x,{T}\n")).contains("maximum: expected a number"));
    let mut many = filled(&[]);
    many.record_n(7, i64::MAX as u64).expect("it fits");
    let full = Encoded::of(&many).expect("the most that there can be");
    assert_eq!(full.histogram().count_at(7), i64::MAX as u64);
    let mut two = log("latency", 0, &[1]);
    two.intervals[0].histogram = full.clone();
    two.intervals.extend(log("other", 0, &[1]).intervals);
    let bytes = two.to_bytes().expect("each can be written");
    let error = parse(&bytes)
        .expect_err("together they can't be counted")
        .to_string();
    assert!(
        error.contains("line 7, histogram: expected 2^63 - 1 values at most"),
        "{error}"
    );
    assert_eq!(sum([&full, &full].into_iter()), Err(TooMany));
    many.record_n(8, 1).expect("it fits");
    Encoded::of(&many).expect_err("one too many");
}

/// F.38: a second column that is the end.
#[test]
fn ends_in_the_second_column_are_seen() {
    let lines = |pairs: &[(&str, &str)]| -> String {
        let line = |(start, second): &(&str, &str)| format!("{start},{second},1,{T}\n");
        pairs.iter().map(line).collect()
    };
    let lengths = |log: &Log| -> Vec<u128> {
        let lengths = log.intervals.iter().map(|one| one.length.as_millis());
        lengths.collect()
    };
    for ends in [
        &[("0", "1"), ("1", "2"), ("2", "3")][..],
        &[("5.0", "6"), ("6.001", "7"), ("7", "8.000")],
        &[("1700000000", "1700000001")],
        &[("1700000000", "1700000001"), ("1700000007", "1700000008")],
    ] {
        let log = text(&lines(ends));
        assert!(
            lengths(&log).iter().all(|ms| (999..=1_000).contains(ms)),
            "{ends:?}"
        );
        assert!(
            log.notes[0].contains("taken for the ends"),
            "{:?}",
            log.notes
        );
    }
    for (all, noted) in [
        (&[("0", "1"), ("1", "1"), ("2", "1")][..], 0),
        (&[("0", "1"), ("1", "2"), ("3", "1")], 0),
        (&[("1700000000", "1"), ("1700000001", "1")], 0),
        (&[("0", "10"), ("1", "10"), ("2", "10")], 1),
    ] {
        let log = text(&lines(all));
        let said: Vec<u128> = all
            .iter()
            .map(|(_, s)| 1_000 * s.parse::<u128>().unwrap())
            .collect();
        assert_eq!(lengths(&log), said);
        assert_eq!(log.notes.len(), noted, "{all:?} {:?}", log.notes);
    }
}

/// F.39: the unit of a log that doesn't say its own.
#[test]
fn values_in_another_unit_are_made_ns() {
    let bytes = format!("0,1,1,{T}\n").into_bytes();
    let read = |unit| Log::from_file(io::Cursor::new(bytes.clone()), Some(unit)).expect("whole");
    for unit in [Unit::Us, Unit::Ms, Unit::S] {
        let log = read(unit);
        assert_eq!((log.read_as(), log.own_unit), (unit, false));
        let whole = log.whole("").expect("it is there");
        assert_eq!(whole.len(), 1_000);
        for (quantile, value) in [(0.5, 500), (0.99, 990), (1.0, 1_000)] {
            let (seen, right) = (whole.value_at_quantile(quantile), value * unit.ns());
            assert!(
                right <= seen && seen - right <= right / 100_000,
                "{unit} {seen}"
            );
        }
    }
    let own = log("latency", 0, &[5]).to_bytes().expect("bytes");
    let log = Log::from_file(io::Cursor::new(own), Some(Unit::S)).expect("whole");
    assert_eq!((log.read_as(), log.own_unit), (Unit::Ns, true));
    assert_eq!(log.whole("latency").expect("it is there").max(), 5);
}

/// F.36: 5,000 lines took 2.2 GB. What is kept of a line is what it was.
#[test]
fn a_long_log_is_kept_as_small_as_it_came() {
    let bytes: String = (0..5_000)
        .map(|second| format!("{second},1,1,{T}\n"))
        .collect();
    let log = text(&bytes);
    assert_eq!(log.whole("").expect("it is there").len(), 5_000_000);
    assert!(size_of::<Interval>() + T.len() < 256);
    // A line, a file, or tags without an end.
    let endless = || io::Read::chain(&b"#[BaseTime: 1]\n"[..], io::repeat(b'x'));
    let error = Log::from_file(endless(), None)
        .expect_err("no end")
        .to_string();
    assert!(
        error.contains("line 2, line: expected 96 MiB at most"),
        "{error}"
    );
    let tags: String = (0..2_000)
        .map(|tag| {
            let wide = BASE64_STANDARD.encode(wide_histogram());
            format!("Tag={tag},0,1,1,{wide}\n")
        })
        .collect();
    assert!(refused_large(&tags).contains("tags take more than 512 MiB"));
}

/// One value in the largest shape there is, 50 MB unpacked.
fn wide_histogram() -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in [0x1c84_9313_u32, 1, 0, 5] {
        bytes.extend(number.to_be_bytes());
    }
    bytes.extend(1_u64.to_be_bytes());
    bytes.extend(i64::MAX.to_be_bytes());
    bytes.extend(1_f64.to_be_bytes());
    bytes.push(2);
    bytes
}

fn refused_large(text: &str) -> String {
    match parse(text.as_bytes()) {
        Err(reason @ Reason::Large(_)) => reason.to_string(),
        other => panic!("{other:?}"),
    }
}

/// Every count of a log, whatever its tags.
fn counts(log: &Log) -> std::collections::BTreeMap<u64, u64> {
    let mut all = std::collections::BTreeMap::new();
    for interval in &log.intervals {
        for step in interval.histogram.histogram().iter_recorded() {
            *all.entry(step.value_iterated_to()).or_default() += step.count_at_value();
        }
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    /// Never a panic, and never a wrong count without an error: only deflated histograms carry a check sum, so those.
    #[test]
    fn a_real_log_with_damage_holds_every_count_or_is_refused(
        which in 0usize..5,
        at in any::<proptest::sample::Index>(),
        kind in 0u8..5,
        byte: u8,
        more in any::<proptest::sample::Index>(),
    ) {
        let name = ["java.hlog", "java.hlog.gz", "java-v1.hlog", "python.hlog", "js.hlog"][which];
        let mut bytes = std::fs::read(data(name)).expect("it is there");
        let right = counts(&parse(&bytes).expect("it is whole"));
        let at = at.index(bytes.len());
        match kind {
            // A comment sign at its begin takes a line out on purpose.
            0 if byte == b'#' => return Ok(()),
            0 => bytes[at] = byte,
            1 => { bytes.remove(at); }
            2 if byte == b'#' => return Ok(()),
            2 => bytes.insert(at, byte),
            3 => bytes[at] ^= 1 << (byte % 8),
            _ => {
                let until = (at + 1 + more.index(20)).min(bytes.len());
                // A whole line, or none.
                if bytes[at..until].contains(&b'\n') {
                    return Ok(());
                }
                bytes.drain(at..until);
            }
        }
        if kind == 3 && bytes[at] == b'#' {
            return Ok(());
        }
        if let Ok(read) = parse(&bytes) {
            prop_assert_eq!(counts(&read), right, "{} {} {}", name, kind, at);
            let _ = read.to_bytes();
        }
    }

    #[test]
    fn no_bytes_of_a_histogram_make_it_panic(
        at in 0usize..60,
        byte: u8,
        other in 0usize..60,
        another: u8,
        v1: bool,
    ) {
        let mut plain = Vec::new();
        inflate(&BASE64_STANDARD.decode(T).expect("base64")[8..], &mut plain);
        if v1 {
            plain[3] = 0x81;
        }
        let index = at % plain.len();
        plain[index] = byte;
        let index = other % plain.len();
        plain[index] = another;
        if let Ok(histogram) = Encoded::check(plain, 1, &mut Vec::new()) {
            prop_assert_eq!(histogram.histogram().len(), histogram.len());
        }
    }

    #[test]
    fn any_histogram_of_any_shape_comes_back(
        digits in 0u8..=5,
        low in 1u64..100_000,
        values in proptest::collection::vec((0u64..1 << 40, 1u64..1_000_000), 0..50),
    ) {
        let mut histogram = Histogram::<u64>::new_with_bounds(low, 1 << 41, digits).expect("a shape");
        for (value, count) in values {
            histogram.record_n(value, count).expect("it fits");
        }
        let read = Encoded::of(&histogram).expect("few values");
        prop_assert_eq!(read.histogram(), histogram);
        prop_assert_eq!(read.shape().memory(), 8 * read.histogram().distinct_values() as u64);
    }
}
