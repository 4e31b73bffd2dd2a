//! Fields of result files that are read as they come: sweeps, searches and storms. A field that is absent is unknown.

use serde_json::Value;

use echometer_host::{fitness::Finding, machine::Facts};

use crate::report::page::{Page, TrustShown, machine_rows};

/// The parts that all these files have: sentence, verdict, machine, doctor, commands.
pub(super) fn page(kind: &str, title: String, file: &Value) -> Page {
    let facts: Option<Facts> = serde_json::from_value(file["machine"].clone()).ok();
    let findings: Option<Vec<Finding>> = serde_json::from_value(file["doctor"].clone()).ok();
    let cut = file["cut_short"].as_bool() == Some(true);
    let mut warnings = texts(&file["verdict"]["warnings"]);
    warnings.extend(texts(&file["warnings"]));
    if cut {
        warnings.insert(0, "it was cut short: what is whole is shown".to_owned());
    }
    let word = file["verdict"]["status"]
        .as_str()
        .or(file["verdict"].as_str())
        .unwrap_or_default();
    Page {
        kind: kind.to_owned(),
        title,
        subtitle: file["started_at"].as_str().unwrap_or_default().to_owned(),
        sentence: file["sentence"].as_str().unwrap_or_default().to_owned(),
        trust: TrustShown {
            word: word.to_owned(),
            good: word == "valid",
            reasons: texts(&file["verdict"]["reasons"]),
            warnings,
        },
        machine: facts.as_ref().map(machine_rows).unwrap_or_default(),
        findings: findings.unwrap_or_default(),
        commands: commands(&file["commands"]),
        ..Page::default()
    }
}

/// A number, by a path such as `["connect_ns", "p99"]`.
pub(super) fn number(value: &Value, path: &[&str]) -> Option<f64> {
    path.iter().fold(value, |value, key| &value[*key]).as_f64()
}

/// The texts of a list.
pub(super) fn texts(value: &Value) -> Vec<String> {
    let list = value.as_array().into_iter().flatten();
    list.filter_map(|text| Some(text.as_str()?.to_owned()))
        .collect()
}

/// A level or a name as text, whatever it is in the file.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

fn commands(value: &Value) -> Vec<(String, String)> {
    let list = value.as_array().into_iter().flatten();
    list.map(|entry| match entry {
        Value::String(text) => (String::new(), text.clone()),
        entry => (shown(&entry["of"]), shown(&entry["command"])),
    })
    .collect()
}
