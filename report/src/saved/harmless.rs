//! What a foreign file says, made fit for a terminal: control characters and those that turn the direction of text are
//! shown by name instead of obeyed. A file could else move the cursor, rewrite lines above it or rename the window.

use std::borrow::Cow;

use serde_json::Value;

/// The text, with `\\u{1b}` for an escape. Line feeds stay.
#[must_use]
pub fn harmless(text: &str) -> Cow<'_, str> {
    if !text.contains(is_obeyed) {
        return Cow::Borrowed(text);
    }
    let shown = text.chars().flat_map(|char| match is_obeyed(char) {
        true => char.escape_default().collect::<Vec<_>>(),
        false => vec![char],
    });
    Cow::Owned(shown.collect())
}

/// Makes every text in it harmless, names of fields too: they are names of arms and levels.
pub fn disarm(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Cow::Owned(shown) = harmless(text) {
                *text = shown;
            }
        }
        Value::Array(values) => values.iter_mut().for_each(disarm),
        Value::Object(fields) => {
            fields.values_mut().for_each(disarm);
            if fields.keys().any(|name| name.contains(is_obeyed)) {
                let all = std::mem::take(fields).into_iter();
                *fields = all
                    .map(|(name, value)| (harmless(&name).into_owned(), value))
                    .collect();
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Whether a terminal does something else with it than show it. (The last two ranges turn the direction of text.)
fn is_obeyed(char: char) -> bool {
    char.is_control() && char != '\n'
        || matches!(char, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_shown() {
        for (text, shown) in [
            (
                "plain, \u{e9}\u{2192}\nand two lines",
                "plain, \u{e9}\u{2192}\nand two lines",
            ),
            ("\x1b]0;owned\x07\x1b[2J", "\\u{1b}]0;owned\\u{7}\\u{1b}[2J"),
            ("over\rwritten\tby\x7f", "over\\rwritten\\tby\\u{7f}"),
            ("C1: \u{9b}31m", "C1: \\u{9b}31m"),
            ("\u{202e}desrever", "\\u{202e}desrever"),
        ] {
            assert_eq!(harmless(text), shown);
        }
    }

    #[test]
    fn names_of_fields_are_texts_too() {
        let mut value = json!({"a\u{1b}": ["b\u{7}", 1, null], "c": {"d": "e\u{8}"}});
        disarm(&mut value);
        assert_eq!(
            value,
            json!({"a\\u{1b}": ["b\\u{7}", 1, null], "c": {"d": "e\\u{8}"}})
        );
    }
}
