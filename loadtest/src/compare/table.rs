//! Medians, quartiles and ratios of what was measured, as a table.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use serde::{Deserialize, Serialize};

/// One line of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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
    /// With its unit.
    pub fn label(self) -> &'static str {
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

    /// What a good value is.
    pub(super) fn better(self) -> Better {
        match self {
            Self::RateKeepAlive | Self::RateNewConnections => Better::Higher,
            // Below these two runs of the same thing differ, too.
            Self::AddedLatencyP50 => Better::Less { least: 0.05 },
            Self::AddedLatencyP99 | Self::AddedGapP99 => Better::Less { least: 0.5 },
            Self::MergedEvents => Better::Less { least: 1.0 },
            Self::Failed => Better::None,
            _ => Better::Lower,
        }
    }

    /// Whether a ratio says anything: differences and counts of failures have none.
    fn has_ratio(self) -> bool {
        matches!(self.better(), Better::Lower | Better::Higher)
    }
}

/// Which values of a figure are better, and how two are compared.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Better {
    /// By ratio.
    Lower,
    /// By ratio.
    Higher,
    /// By difference, for it may be 0 or below; less than `least` is none.
    Less { least: f64 },
    /// There should be none at all.
    None,
}

/// What was measured: a value a round. A round without the figure has none.
#[derive(Debug, Default)]
pub struct Results {
    values: BTreeMap<Figure, BTreeMap<String, BTreeMap<usize, f64>>>,
}

/// The middle of a sample and its quarters.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
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

/// One figure of one gateway.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    pub figure: Figure,
    pub gateway: String,
    pub value: Spread,
    /// To the base, of the values of the same round; `None` of the base itself and where it says nothing.
    pub ratio: Option<Spread>,
    /// What `value` is of, a value a round.
    pub rounds: Vec<f64>,
    /// What `ratio` is of.
    pub ratios: Vec<f64>,
}

impl Cell {
    /// Whether all that was summed up is there.
    pub(super) fn is_whole(&self) -> bool {
        !self.rounds.is_empty() && self.ratio.is_some() != self.ratios.is_empty()
    }
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

    /// The ratios to `base` round by round, so that what a round suffered it suffered in both.
    fn ratios(&self, figure: Figure, gateway: &str, base: &str) -> Vec<f64> {
        let of = |gateway| self.values.get(&figure)?.get(gateway);
        match of(gateway).zip(of(base)) {
            Some((ours, theirs)) if figure.has_ratio() && gateway != base => (ours.iter())
                .filter_map(|(round, value)| Some(value / theirs.get(round)?))
                .filter(|ratio| ratio.is_finite())
                .collect(),
            _ => Vec::new(),
        }
    }

    /// Every cell and its rounds.
    pub fn cells(&self, base: &str) -> Vec<Cell> {
        let of_figure = |(figure, gateways): (&Figure, &BTreeMap<_, BTreeMap<usize, f64>>)| {
            let cell = |(gateway, rounds): (&String, &BTreeMap<usize, f64>)| {
                // JSON has no word for what is not finite.
                let rounds: Vec<f64> = rounds.values().copied().filter(|v| v.is_finite()).collect();
                let ratios = self.ratios(*figure, gateway, base);
                Some(Cell {
                    figure: *figure,
                    gateway: gateway.clone(),
                    value: Spread::of(rounds.clone())?,
                    ratio: Spread::of(ratios.clone()),
                    rounds,
                    ratios,
                })
            };
            gateways.iter().filter_map(cell).collect::<Vec<_>>()
        };
        self.values.iter().flat_map(of_figure).collect()
    }
}

/// A Markdown table with a column for each gateway: median, and the ratio with its quartiles.
pub(super) fn table(cells: &[Cell], gateways: &[&str]) -> String {
    let mut text = format!("| | {} |\n|---|", gateways.join(" | "));
    text.push_str(&"---|".repeat(gateways.len()));
    for of_figure in cells.chunk_by(|a, b| a.figure == b.figure) {
        _ = write!(text, "\n| {} |", of_figure[0].figure.label());
        for gateway in gateways {
            _ = match of_figure.iter().find(|cell| cell.gateway == *gateway) {
                None => write!(text, " - |"),
                Some(cell) => match cell.ratio {
                    Some(ratio) => write!(text, " {} ({ratio}) |", number(cell.value.median)),
                    None => write!(text, " {} |", number(cell.value.median)),
                },
            };
        }
    }
    text.push('\n');
    text
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

pub(super) fn number(value: f64) -> String {
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
        let cells = results.cells("nginx");
        assert_eq!(
            table(&cells, &["nginx", "ours"]),
            "| | nginx | ours |\n|---|---|---|\n| CPU µs a short request | 20.00 | 24.00 (1.20×, 1.10-1.20) |\n\
             | failed requests | - | 0 |\n"
        );
        assert_eq!(cells[1].ratios, [1.2, 1.2, 1.0]);
        assert_eq!(cells[1].ratio.unwrap().n, 3);
        assert_eq!((cells[0].ratio, &cells[0].ratios), (None, &Vec::new()));
    }
}
