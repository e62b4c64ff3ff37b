//! Results as Markdown tables.

use std::fmt::Write as _;

use crate::results::{Results, Row};

/// All tables of one scenario, one for each metric; ratios are to the subject named `base`.
pub(crate) fn tables(results: &Results, scenario: &str, base: &str) -> String {
    let mut out = String::new();
    let rows = || {
        results
            .rows()
            .iter()
            .filter(|row| row.key.scenario == scenario)
    };
    for metric in distinct(rows().map(|row| &*row.key.metric)) {
        let rows = || rows().filter(|row| row.key.metric == metric);
        let cases = distinct(rows().map(|row| &*row.key.case));
        let subjects = distinct(rows().map(|row| &*row.key.subject));
        let _ = writeln!(out, "\n**{scenario}: {metric}**\n");
        let _ = writeln!(out, "| | {} |", cases.join(" | "));
        let _ = writeln!(out, "|---|{}", "---:|".repeat(cases.len()));
        for subject in subjects {
            let _ = write!(out, "| {subject} |");
            for case in &cases {
                let find = |subject| results.row(scenario, metric, case, subject);
                let _ = write!(out, " {} |", cell(find(subject), find(base)));
            }
            out.push('\n');
        }
    }
    out
}

fn cell(row: Option<&Row>, base: Option<&Row>) -> String {
    let Some(row) = row.filter(|row| row.median().is_finite()) else {
        return "–".to_owned();
    };
    let mut cell = number(row.median());
    let spread = row.spread();
    if row.rounds.len() > 1 && spread.is_finite() && row.median() != 0.0 {
        let _ = write!(cell, " ±{:.0}%", spread * 100.0);
    }
    if let Some(base) = base.filter(|base| base.key != row.key) {
        let ratio = row.ratio(base);
        if ratio.is_finite() {
            let _ = write!(cell, " (×{})", number(ratio));
        }
    }
    cell
}

/// Three digits, with k and M.
pub(crate) fn number(value: f64) -> String {
    let magnitude = value.abs();
    match magnitude {
        0.0 => "0".to_owned(),
        m if m >= 1e6 => format!("{:.2}M", value / 1e6),
        m if m >= 1e4 => format!("{:.1}k", value / 1e3),
        m if m >= 100.0 => format!("{value:.0}"),
        m if m >= 10.0 => format!("{value:.1}"),
        m if m >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// Each once, in the order of their first appearance.
pub(crate) fn distinct<'a>(items: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut seen = Vec::new();
    for item in items {
        if !seen.contains(&item) {
            seen.push(item);
        }
    }
    seen
}
