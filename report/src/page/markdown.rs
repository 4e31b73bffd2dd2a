//! A result as Markdown, for issues and pages: the sentence, the verdict, the tables.

use std::fmt::Write as _;

use crate::page::{model::Page, table::Table};

/// The whole page but for its charts and raw data.
#[must_use]
pub(crate) fn markdown(page: &Page) -> String {
    let mut text = format!("## {}\n\n", escaped(&page.title));
    if !page.subtitle.is_empty() {
        let _ = writeln!(text, "{}\n", escaped(&page.subtitle));
    }
    if !page.sentence.is_empty() {
        let _ = writeln!(text, "**{}**\n", escaped(&page.sentence));
    }
    if !page.trust.word.is_empty() {
        let _ = writeln!(text, "Verdict: {}\n", escaped(&page.trust.word));
    }
    let remarks = page.trust.reasons.iter().chain(&page.trust.warnings);
    let before = text.len();
    for remark in remarks {
        let _ = writeln!(text, "- {}", escaped(remark));
    }
    if before < text.len() {
        text.push('\n');
    }
    for made in &page.tables {
        let _ = writeln!(text, "### {}\n\n{}", escaped(&made.title), table(made));
    }
    if !page.commands.is_empty() {
        text.push_str("### Commands\n\n");
        for (of, command) in &page.commands {
            let of = if of.is_empty() {
                String::new()
            } else {
                format!("# {of}\n")
            };
            // A line that is not indented would be Markdown, and whatever a file says might stand in it.
            let block = format!("{of}{command}").replace(['\r', '\n'], "\n    ");
            let _ = writeln!(text, "    {block}");
        }
    }
    text
}

/// A table.
#[must_use]
pub(crate) fn table(table: &Table) -> String {
    let row = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut text = row(table.columns.iter().map(|column| escaped(column)).collect());
    let alignment = (0..table.columns.len()).map(|column| match table.is_numeric(column) {
        true => "---:".to_owned(),
        false => "---".to_owned(),
    });
    text.push_str(&row(alignment.collect()));
    for cells in &table.rows {
        text.push_str(&row(cells.iter().map(|cell| escaped(&cell.text)).collect()));
    }
    text
}

/// What Markdown would take for its own marks, in a table's cell above all.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '|' | '*' | '_' | '`' | '<' | '[' | '\\' => out.extend(['\\', char]),
            '\n' | '\r' => out.push(' '),
            char => out.push(char),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::table::Cell;

    #[test]
    fn a_command_of_several_lines_stays_code() {
        let page = Page {
            commands: vec![("a\nb".into(), "serve 'one\n<img src=x>'".into())],
            ..Page::default()
        };
        assert!(
            markdown(&page)
                .ends_with("### Commands\n\n    # a\n    b\n    serve 'one\n    <img src=x>'\n"),
            "{}",
            markdown(&page)
        );
    }

    #[test]
    fn a_tables_cells_stay_cells() {
        let mut made = Table::new("t", ["name", "time"]);
        made.push(vec![Cell::text("a|b *"), Cell::ns(Some(2_000.0))]);
        assert_eq!(
            table(&made),
            "| name | time |\n| --- | ---: |\n| a\\|b \\* | 2.00 us |\n"
        );
    }
}
