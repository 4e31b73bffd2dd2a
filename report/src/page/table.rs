//! Tables: text for people, with the number behind it where there is one, so that a page can sort by it and a CSV file
//! hold it.

use serde::Serialize;

use echometer_host::units::{show_count, show_ns};

/// A table.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Table {
    /// What it shows.
    pub title: String,
    /// The columns' heads.
    pub columns: Vec<String>,
    /// As many cells per row as there are columns.
    pub rows: Vec<Vec<Cell>>,
    /// Why each row has no better verdict: none at all, or one per row. A page says it once beside the table; in a data
    /// file, which has no place beside, it is the last column.
    #[serde(skip)]
    pub reasons: Vec<String>,
}

/// A cell.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Cell {
    /// For people.
    pub text: String,
    /// In the base unit: ns, 1/s, bytes, a share.
    pub number: Option<f64>,
}

impl Table {
    /// An empty table.
    #[must_use]
    pub fn new<T: Into<String>>(title: &str, columns: impl IntoIterator<Item = T>) -> Self {
        Self {
            title: title.to_owned(),
            columns: columns.into_iter().map(Into::into).collect(),
            rows: Vec::new(),
            reasons: Vec::new(),
        }
    }

    /// Adds a row.
    pub fn push(&mut self, row: Vec<Cell>) {
        debug_assert_eq!(row.len(), self.columns.len(), "{}", self.title);
        self.rows.push(row);
    }

    /// Adds a row with a verdict, and the reason for it, if there is one.
    pub fn push_judged(&mut self, row: Vec<Cell>, reason: Option<&str>) {
        self.push(row);
        self.reasons.push(reason.unwrap_or_default().to_owned());
    }

    /// Whether a column holds numbers, and is to be aligned at its right.
    #[must_use]
    pub fn is_numeric(&self, column: usize) -> bool {
        self.rows
            .iter()
            .any(|row| row.get(column).is_some_and(|cell| cell.number.is_some()))
    }
}

impl Cell {
    /// Words.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            number: None,
        }
    }

    /// What is not known.
    #[must_use]
    pub fn none() -> Self {
        Self::text("-")
    }

    /// A time in ns.
    #[must_use]
    pub fn ns(ns: Option<f64>) -> Self {
        Self::shown(ns, |ns| show_ns(ns.round().max(0.0) as u64))
    }

    /// A whole number.
    #[must_use]
    pub fn count(count: Option<f64>) -> Self {
        Self::shown(count, |count| show_count(count.round().max(0.0) as u64))
    }

    /// A ratio: `x0.985`.
    #[must_use]
    pub fn ratio(ratio: Option<f64>) -> Self {
        Self::shown(ratio, |ratio| format!("x{ratio:.3}"))
    }

    /// A number as `show` says it, or nothing.
    #[must_use]
    pub fn shown(number: Option<f64>, show: impl Fn(f64) -> String) -> Self {
        let number = number.filter(|number| number.is_finite());
        Self {
            text: number.map_or_else(|| "-".to_owned(), show),
            number,
        }
    }
}
