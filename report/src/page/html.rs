//! A result as one HTML file that needs nothing else: no network, no server, no other file. The template is filled by
//! minijinja, which escapes every word; the charts are drawn by uPlot from data in the page.

use anyhow::Context;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use minijinja::{Environment, context};
use serde::Serialize;

use crate::page::{RawFile, chart::Forest, model::Page};

/// The name ends in `.html`, so that everything put into it is escaped.
const TEMPLATE: (&str, &str) = ("report.html", include_str!("../../assets/report.html"));
const STYLE: &str = include_str!("../../assets/report.css");
const SCRIPT: &str = include_str!("../../assets/report.js");
const UPLOT_STYLE: &str = include_str!("../../assets/uplot/uPlot.min.css");
const UPLOT: &str = include_str!("../../assets/uplot/uPlot.iife.min.js");
const UPLOT_LICENCE: &str = include_str!("../../assets/uplot/LICENSE");

/// The whole page.
///
/// # Errors
/// The template does not fit the page, which is a fault of this program.
pub(crate) fn html(page: &Page) -> anyhow::Result<String> {
    let mut environment = Environment::new();
    environment
        .add_template(TEMPLATE.0, TEMPLATE.1)
        .context("the report's template is damaged")?;
    let template = environment
        .get_template(TEMPLATE.0)
        .context("the report's template is missing")?;
    let numeric: Vec<Vec<bool>> = page
        .tables
        .iter()
        .map(|table| {
            (0..table.columns.len())
                .map(|column| table.is_numeric(column))
                .collect()
        })
        .collect();
    let forests: Vec<DrawnForest> = page.forests.iter().map(DrawnForest::of).collect();
    let files: Vec<Download> = page.files.iter().map(Download::of).collect();
    let charts = serde_json::to_string(&page.charts).context("the charts have no JSON form")?;
    template
        .render(context! {
            page,
            numeric,
            forests,
            files,
            // Inside a script element only `<` could end it or begin a comment; JSON has it in strings alone.
            charts => charts.replace('<', "\\u003c"),
            style => STYLE,
            script => SCRIPT,
            uplot_style => UPLOT_STYLE,
            uplot => UPLOT,
            uplot_licence => UPLOT_LICENCE,
            version => env!("CARGO_PKG_VERSION"),
        })
        .context("the report's template does not fit its data")
}

/// A file as a link that holds it.
#[derive(Serialize)]
struct Download {
    name: String,
    /// Without the folders: what the browser saves it as.
    save_as: String,
    bytes: usize,
    url: String,
}

impl Download {
    fn of(file: &RawFile) -> Self {
        Self {
            name: file.name.clone(),
            save_as: file.name.replace('/', "-"),
            bytes: file.bytes.len(),
            url: format!(
                "data:application/octet-stream;base64,{}",
                BASE64_STANDARD.encode(&file.bytes)
            ),
        }
    }
}

/// A forest with its places worked out, in per cent of the width.
#[derive(Serialize)]
struct DrawnForest {
    id: String,
    title: String,
    caption: String,
    margin_from: f64,
    margin_width: f64,
    ticks: Vec<(f64, String)>,
    rows: Vec<DrawnRow>,
}

#[derive(Serialize)]
struct DrawnRow {
    label: String,
    verdict: String,
    text: String,
    at: Option<f64>,
    from: Option<f64>,
    to: Option<f64>,
}

impl DrawnForest {
    fn of(forest: &Forest) -> Self {
        let place = |ratio: f64| (forest.place(ratio) * 1e4).round() / 1e2;
        let (from, to) = (place(1.0 - forest.margin), place(1.0 + forest.margin));
        let rows = forest.rows.iter().map(|row| DrawnRow {
            label: row.label.clone(),
            verdict: row.verdict.clone(),
            text: match (row.ratio, row.low, row.high) {
                (Some(ratio), Some(low), Some(high)) => {
                    format!("{ratio:.3} ({low:.3} to {high:.3})")
                }
                (Some(ratio), _, _) => format!("{ratio:.3} (no interval)"),
                _ => "unknown".to_owned(),
            },
            at: row.ratio.map(place),
            from: row.low.map(place),
            to: row.high.map(place),
        });
        Self {
            id: forest.id.clone(),
            title: forest.title.clone(),
            caption: forest.caption.clone(),
            margin_from: from,
            margin_width: to - from,
            ticks: forest
                .ticks()
                .into_iter()
                .map(|tick| (place(tick), short(tick)))
                .collect(),
            rows: rows.collect(),
        }
    }
}

/// `0.9`, `1`, `1.02`.
fn short(ratio: f64) -> String {
    let text = format!("{ratio:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::{
        chart,
        model::TrustShown,
        table::{Cell, Table},
    };

    #[test]
    fn whatever_the_words_are_they_stay_words() {
        let nasty = "</script><img src=x onerror=alert(1)>";
        let mut table = Table::new(nasty, [nasty]);
        table.push(vec![Cell::text(nasty)]);
        let values = {
            let mut histogram = echometer_loadgen::recorder::histogram();
            (1..=100).for_each(|value| histogram.record(value).expect("it fits"));
            histogram
        };
        let page = Page {
            title: nasty.into(),
            subtitle: nasty.into(),
            sentence: nasty.into(),
            trust: TrustShown {
                word: nasty.into(),
                good: false,
                reasons: vec![nasty.into()],
                warnings: vec![nasty.into()],
            },
            charts: vec![chart::spectrum(&[(nasty.into(), &values)])],
            tables: vec![table],
            facts: vec![(nasty.into(), nasty.into())],
            machine: vec![(nasty.into(), nasty.into())],
            commands: vec![(nasty.into(), nasty.into())],
            files: vec![RawFile {
                name: "a\"b.json".into(),
                bytes: nasty.into(),
            }],
            files_left_out: vec![nasty.into()],
            ..Page::default()
        };
        let html = html(&page).expect("the template fits");
        assert!(!html.contains("<img"), "a word became an element");
        assert!(html.contains("&lt;img") && html.contains("\\u003cimg"));
    }

    #[test]
    fn nothing_is_asked_of_the_network() {
        let html = html(&Page::default()).expect("the template fits");
        assert!(html.contains("default-src 'none'"));
        for outside in ["src=\"", "@import", "url(", "href=\"http"] {
            assert!(!html.replace(UPLOT, "").contains(outside), "{outside}");
        }
    }
}
