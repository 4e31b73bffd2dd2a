//! A page as text of at most 80 columns: for logs, which no command of ours has printed.

use std::fmt::Write as _;

use crate::{
    page::{model::Page, table::Table},
    text::columns::{COLUMNS, paragraph},
};

/// Blanks between columns.
const GAP: usize = 2;

/// The page's words and main table; ends with the sentence.
#[must_use]
pub(crate) fn text(page: &Page) -> String {
    let mut text = String::new();
    let header = match page.subtitle.is_empty() {
        true => page.title.clone(),
        false => format!("{}; {}", page.title, page.subtitle),
    };
    paragraph(&mut text, "", &header);
    text.push('\n');
    let reasons = page
        .trust
        .reasons
        .iter()
        .map(|reason| format!("not valid: {reason}"));
    let warnings = page
        .trust
        .warnings
        .iter()
        .map(|warning| format!("warning: {warning}"));
    let remarks: Vec<String> = reasons.chain(warnings).collect();
    for remark in &remarks {
        paragraph(&mut text, "- ", remark);
    }
    if !remarks.is_empty() {
        text.push('\n');
    }
    if let Some(made) = page.tables.first() {
        let _ = writeln!(text, "{}", table(made));
    }
    paragraph(&mut text, "", &page.sentence);
    text
}

/// A table as wide as its cells. Columns that don't fit beside the first go into a table of their own below.
#[must_use]
pub(crate) fn table(table: &Table) -> String {
    let widths: Vec<usize> = (0..table.columns.len())
        .map(|column| {
            let cells = table.rows.iter().filter_map(|row| row.get(column));
            let widest = cells.map(|cell| cell.text.chars().count()).max();
            widest
                .unwrap_or(0)
                .max(table.columns[column].chars().count())
        })
        .collect();
    let mut parts: Vec<Vec<usize>> = Vec::new();
    let Some(first) = widths.first() else {
        return String::new();
    };
    for (column, width) in widths.iter().enumerate().skip(1) {
        let taken =
            |part: &Vec<usize>| first + part.iter().map(|at| widths[*at] + GAP).sum::<usize>();
        match parts.last_mut() {
            Some(part) if taken(part) + GAP + width <= COLUMNS => part.push(column),
            _ => parts.push(vec![column]),
        }
    }
    if parts.is_empty() {
        parts.push(Vec::new());
    }
    let mut text = String::new();
    for part in parts {
        let columns: Vec<usize> = [0].into_iter().chain(part).collect();
        let heads: Vec<&str> = columns
            .iter()
            .map(|column| table.columns[*column].as_str())
            .collect();
        line(&mut text, table, &columns, &widths, &heads);
        for row in &table.rows {
            let cells: Vec<&str> = columns
                .iter()
                .map(|column| row.get(*column).map_or("", |cell| cell.text.as_str()))
                .collect();
            line(&mut text, table, &columns, &widths, &cells);
        }
        text.push('\n');
    }
    text.pop();
    text
}

fn line(text: &mut String, table: &Table, columns: &[usize], widths: &[usize], cells: &[&str]) {
    let mut line = String::new();
    for (column, cell) in columns.iter().zip(cells) {
        let width = widths[*column];
        if !line.is_empty() {
            line.push_str(&" ".repeat(GAP));
        }
        match table.is_numeric(*column) {
            true => write!(line, "{cell:>width$}"),
            false => write!(line, "{cell:<width$}"),
        }
        .expect("a string takes all that is written to it");
    }
    // A column of long words may be wider than the page by itself; its lines are cut, and CSV has them whole.
    let shown: String = line.trim_end().chars().take(COLUMNS).collect();
    text.push_str(shown.trim_end());
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::table::Cell;

    #[test]
    fn columns_that_do_not_fit_go_below() {
        let columns: Vec<String> = (0..12).map(|column| format!("column {column}")).collect();
        let mut made = Table::new("t", columns);
        let mut row = vec![Cell::text("name")];
        row.extend((1..12).map(|number| Cell::ns(Some(f64::from(number) * 1e3))));
        made.push(row);
        let text = table(&made);
        assert!(
            text.lines().all(|line| line.chars().count() <= COLUMNS),
            "{text}"
        );
        assert_eq!(
            text.matches("name").count(),
            2,
            "each part begins with the first column:\n{text}"
        );
        assert!(
            (1..12).all(|column| text.contains(&format!("column {column}"))),
            "{text}"
        );
    }
}
