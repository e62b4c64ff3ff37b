//! What was measured: one number for each round, and how it is read.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a number is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Key {
    pub(crate) scenario: String,
    /// For example `msg/s`.
    pub(crate) metric: String,
    /// For example `1 KiB, 64 publishers`.
    pub(crate) case: String,
    pub(crate) subject: String,
}

/// All numbers of a run. A round in which a subject failed has none.
#[derive(Debug, Default)]
pub(crate) struct Results {
    rows: Vec<Row>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Row {
    #[serde(flatten)]
    pub(crate) key: Key,
    pub(crate) rounds: BTreeMap<usize, f64>,
}

impl Results {
    pub(crate) const fn from_rows(rows: Vec<Row>) -> Self {
        Self { rows }
    }

    pub(crate) fn rows(&self) -> &[Row] {
        &self.rows
    }

    pub(crate) fn add(&mut self, key: Key, round: usize, value: f64) {
        let row = match self.rows.iter_mut().position(|row| row.key == key) {
            Some(at) => &mut self.rows[at],
            None => {
                self.rows.push(Row {
                    key,
                    rounds: BTreeMap::new(),
                });
                let last = self.rows.len() - 1;
                &mut self.rows[last]
            }
        };
        row.rounds.insert(round, value);
    }

    pub(crate) fn row(
        &self,
        scenario: &str,
        metric: &str,
        case: &str,
        subject: &str,
    ) -> Option<&Row> {
        self.rows.iter().find(|row| {
            let key = &row.key;
            key.scenario == scenario
                && key.metric == metric
                && key.case == case
                && key.subject == subject
        })
    }
}

impl Row {
    pub(crate) fn median(&self) -> f64 {
        quantile(self.rounds.values().copied(), 0.5)
    }

    /// Distance between the quartiles, as a part of the median.
    pub(crate) fn spread(&self) -> f64 {
        let at = |q| quantile(self.rounds.values().copied(), q);
        (at(0.75) - at(0.25)) / at(0.5)
    }

    /// The median of the ratios to `base`, round by round: what disturbs both in a round cancels out.
    pub(crate) fn ratio(&self, base: &Self) -> f64 {
        let ratios = self.rounds.iter().filter_map(|(round, value)| {
            let base = base.rounds.get(round)?;
            Some(value / base)
        });
        quantile(ratios, 0.5)
    }
}

/// Between neighbours by their distance; not a number if there are no values.
fn quantile(values: impl Iterator<Item = f64>, q: f64) -> f64 {
    let mut values: Vec<f64> = values.filter(|value| value.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    let Some(last) = values.len().checked_sub(1) else {
        return f64::NAN;
    };
    let place = q * last as f64;
    let (below, part) = (place.floor() as usize, place.fract());
    let above = (below + 1).min(last);
    values[below] * (1.0 - part) + values[above] * part
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(values: &[f64]) -> Row {
        let text = String::new;
        Row {
            key: Key {
                scenario: text(),
                metric: text(),
                case: text(),
                subject: text(),
            },
            rounds: values.iter().copied().enumerate().collect(),
        }
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        let (ours, peer) = (row(&[10.0, 40.0, 90.0]), row(&[5.0, 10.0, 30.0]));
        assert_eq!(ours.median(), 40.0);
        assert_eq!(ours.ratio(&peer), 3.0);
        assert!((ours.spread() - 1.0).abs() < 1e-9);
        assert!(row(&[]).median().is_nan());
    }
}
