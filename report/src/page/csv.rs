//! A result as CSV (RFC 4180): its main table, numbers in base units (ns, 1/s, bytes, shares of 1) and not for people.

use crate::page::{
    Page,
    table::{Cell, Table},
};

/// The page's main table.
#[must_use]
pub fn csv(page: &Page) -> String {
    page.tables.first().map_or_else(String::new, table)
}

/// A table.
#[must_use]
pub fn table(table: &Table) -> String {
    let judged = !table.reasons.is_empty();
    let heads = table.columns.iter().map(String::as_str);
    let mut text = line(heads.chain(judged.then_some("reason")));
    for (index, row) in table.rows.iter().enumerate() {
        let mut cells: Vec<String> = row.iter().map(bare).collect();
        cells.extend(table.reasons.get(index).cloned());
        text.push_str(&line(cells.iter().map(String::as_str)));
    }
    text
}

fn bare(cell: &Cell) -> String {
    match cell.number {
        Some(number) => number.to_string(),
        None if cell.text == "-" => String::new(),
        None => cell.text.clone(),
    }
}

fn line<'a>(cells: impl Iterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = cells
        .map(|cell| match cell.contains(['"', ',', '\n', '\r']) {
            true => format!("\"{}\"", cell.replace('"', "\"\"")),
            false => cell.to_owned(),
        })
        .collect();
    format!("{}\n", quoted.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_bare_and_words_are_quoted_where_they_must_be() {
        let mut made = Table::new("t", ["a", "b, c"]);
        made.push(vec![Cell::ns(Some(1_500.0)), Cell::text("say \"x\"")]);
        made.push(vec![Cell::none(), Cell::ratio(Some(0.5))]);
        assert_eq!(table(&made), "a,\"b, c\"\n1500,\"say \"\"x\"\"\"\n,0.5\n");
    }
}
