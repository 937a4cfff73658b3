//! Medians, quartiles and ratios of what was measured, as a table.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use serde::Serialize;

/// One line of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Figure {
    CpuShort,
    CpuToken,
    CpuPrompt,
    KbStream,
    KbStreamLongPrompt,
    IdleMb,
    RateKeepAlive,
    RateNewConnections,
    LatencyP50,
    LatencyP99,
    AddedLatencyP50,
    AddedLatencyP99,
    GapP99,
    AddedGapP99,
    MergedEvents,
    StartMs,
    ReloadMs,
    Failed,
}

impl Figure {
    fn label(self) -> &'static str {
        match self {
            Self::CpuShort => "CPU µs a short request",
            Self::CpuToken => "CPU µs a streamed token",
            Self::CpuPrompt => "CPU µs a long prompt",
            Self::KbStream => "KB a stream, second wave",
            Self::KbStreamLongPrompt => "KB a stream, second wave, 100 KB prompts",
            Self::IdleMb => "idle memory, MB",
            Self::RateKeepAlive => "requests/s, keep-alive",
            Self::RateNewConnections => "requests/s, new connections",
            Self::LatencyP50 => "latency p50 at half load, ms",
            Self::LatencyP99 => "latency p99 at half load, ms",
            Self::AddedLatencyP50 => "added latency p50, ms",
            Self::AddedLatencyP99 => "added latency p99, ms",
            Self::GapP99 => "gap p99, ms",
            Self::AddedGapP99 => "added gap p99, ms",
            Self::MergedEvents => "events merged with another, %",
            Self::StartMs => "start to first answer, ms",
            Self::ReloadMs => "reload with 200 endpoints, ms",
            Self::Failed => "failed requests",
        }
    }

    /// Whether a ratio says anything: differences and counts of failures have none.
    fn has_ratio(self) -> bool {
        !matches!(
            self,
            Self::AddedLatencyP50
                | Self::AddedLatencyP99
                | Self::AddedGapP99
                | Self::MergedEvents
                | Self::Failed
        )
    }
}

/// What was measured: a value a round. A round without the figure has none.
#[derive(Debug, Default)]
pub struct Results {
    values: BTreeMap<Figure, BTreeMap<String, BTreeMap<usize, f64>>>,
}

/// The middle of a sample and its quarters.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    pub median: f64,
    pub lower: f64,
    pub upper: f64,
    /// Rounds.
    pub n: usize,
}

impl Spread {
    /// `None` of nothing.
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.retain(|value| value.is_finite());
        values.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let place = share * (values.len() - 1) as f64;
            let (below, above) = (
                values[place.floor() as usize],
                values[place.ceil() as usize],
            );
            below + (above - below) * place.fract()
        };
        (!values.is_empty()).then(|| Self {
            median: at(0.5),
            lower: at(0.25),
            upper: at(0.75),
            n: values.len(),
        })
    }
}

/// One cell, for JSON.
#[derive(Debug, Serialize)]
struct Cell {
    figure: Figure,
    gateway: String,
    value: Spread,
    /// Of the values of the same round.
    ratio: Option<Spread>,
    rounds: Vec<f64>,
}

impl Results {
    pub(super) fn add(&mut self, figure: Figure, gateway: &str, round: usize, value: f64) {
        let of_gateway = self
            .values
            .entry(figure)
            .or_default()
            .entry(gateway.to_owned())
            .or_default();
        // Several plans add to the failures of one round.
        if figure == Figure::Failed {
            *of_gateway.entry(round).or_default() += value;
        } else {
            of_gateway.insert(round, value);
        }
    }

    pub(super) fn value(&self, figure: Figure, gateway: &str, round: usize) -> Option<f64> {
        self.values.get(&figure)?.get(gateway)?.get(&round).copied()
    }

    fn spread(&self, figure: Figure, gateway: &str) -> Option<Spread> {
        Spread::of(
            self.values
                .get(&figure)?
                .get(gateway)?
                .values()
                .copied()
                .collect(),
        )
    }

    /// The ratio to `base` round by round, so that what a round suffered it suffered in both.
    fn ratio(&self, figure: Figure, gateway: &str, base: &str) -> Option<Spread> {
        if !figure.has_ratio() || gateway == base {
            return None;
        }
        let of = self.values.get(&figure)?;
        let (ours, theirs) = (of.get(gateway)?, of.get(base)?);
        Spread::of(
            ours.iter()
                .filter_map(|(round, value)| Some(value / theirs.get(round)?))
                .collect(),
        )
    }

    /// A Markdown table: median, and the ratio to `base` with its quartiles.
    pub fn table(&self, gateways: &[String], base: &str) -> String {
        let mut text = String::from("| |");
        for gateway in gateways {
            _ = write!(text, " {gateway} |");
        }
        text.push_str("\n|---|");
        text.push_str(&"---|".repeat(gateways.len()));
        for figure in self.values.keys() {
            _ = write!(text, "\n| {} |", figure.label());
            for gateway in gateways {
                let value = self
                    .spread(*figure, gateway)
                    .map_or_else(|| "-".to_owned(), |spread| number(spread.median));
                _ = match self.ratio(*figure, gateway, base) {
                    Some(ratio) => write!(text, " {value} ({ratio}) |"),
                    None => write!(text, " {value} |"),
                };
            }
        }
        text.push('\n');
        text
    }

    /// Every cell and its rounds.
    pub fn json(&self, base: &str) -> serde_json::Value {
        let mut cells = Vec::new();
        for (figure, gateways) in &self.values {
            for (gateway, rounds) in gateways {
                let Some(value) = self.spread(*figure, gateway) else {
                    continue;
                };
                let ratio = self.ratio(*figure, gateway, base);
                let rounds = rounds.values().copied().collect();
                cells.push(Cell {
                    figure: *figure,
                    gateway: gateway.clone(),
                    value,
                    ratio,
                    rounds,
                });
            }
        }
        serde_json::to_value(cells).unwrap_or_default()
    }
}

/// `1.15×, 1.09-1.20`: the median ratio and its quartiles.
impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2}×", self.median)?;
        if self.n > 1 {
            write!(f, ", {:.2}-{:.2}", self.lower, self.upper)?;
        }
        Ok(())
    }
}

fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => format!("{value:.0}"),
        size if size >= 100.0 => format!("{value:.1}"),
        0.0 => "0".to_owned(),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_lie_between_the_values() {
        let spread = Spread::of(vec![4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!(
            (spread.lower, spread.median, spread.upper, spread.n),
            (1.75, 2.5, 3.25, 4)
        );
        assert_eq!(Spread::of(vec![]), None);
        assert_eq!(Spread::of(vec![7.0]).unwrap().upper, 7.0);
    }

    #[test]
    fn ratios_are_those_of_the_same_round() {
        let mut results = Results::default();
        for (round, (nginx, ours)) in [(10.0, 12.0), (20.0, 24.0), (40.0, 40.0)]
            .into_iter()
            .enumerate()
        {
            results.add(Figure::CpuShort, "nginx", round, nginx);
            results.add(Figure::CpuShort, "ours", round, ours);
            results.add(Figure::Failed, "ours", round, 0.0);
        }
        let table = results.table(&["nginx".to_owned(), "ours".to_owned()], "nginx");
        assert_eq!(
            table,
            "| | nginx | ours |\n|---|---|---|\n| CPU µs a short request | 20.00 | 24.00 (1.20×, 1.10-1.20) |\n\
             | failed requests | - | 0 |\n"
        );
        assert_eq!(results.json("nginx")[1]["ratio"]["n"], 3);
    }
}
