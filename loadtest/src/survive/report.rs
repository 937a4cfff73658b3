//! What came of a run: one column a gateway, and the same as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::events::{FaultRecord, HeldSample};
use super::growth::Growth;
use super::tally::{Counts, Silence};

/// One gateway through the whole schedule.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    pub gateway: String,
    pub version: String,
    pub seconds: f64,
    pub counts: Counts,
    /// Failures in their own words, and how often.
    pub reasons: BTreeMap<String, u64>,
    pub silence: Silence,
    pub faults: Vec<FaultRecord>,
    pub reloads: u32,
    pub upgrades: u32,
    /// Of the gateway's metrics, since its process began: an upgrade begins anew.
    pub metrics: BTreeMap<String, f64>,
    /// Requests that the gateway, or an engine, still counted when all clients had ended.
    pub left_over: u64,
    /// What models, keys and paths that do not exist got: how often each status; 0 is no answer.
    pub junk: BTreeMap<u16, u64>,
    pub growth: Growth,
    /// Growth is a failure.
    pub must_be_flat: bool,
    pub samples: Vec<HeldSample>,
}

impl Outcome {
    /// Nobody noticed anything, and nothing stayed behind.
    pub fn survived(&self) -> bool {
        let is_flat = self.growth.is_flat() || !self.must_be_flat;
        let is_whole = self.counts.failures() == 0 && !self.junk.contains_key(&0);
        is_whole && is_flat && self.left_over == 0 && self.counts.streams > 0
    }

    /// The longest it took to call an engine out after such a fault, in milliseconds.
    fn slowest(&self, is_one: impl Fn(&str) -> bool) -> Option<u64> {
        let faults = self.faults.iter().filter(|fault| is_one(fault.fault));
        faults.filter_map(|fault| fault.out_after_ms).max()
    }

    /// Faults of this kind after which the engine was never called out.
    fn unseen(&self) -> usize {
        (self.faults.iter())
            .filter(|fault| fault.out_after_ms.is_none())
            .count()
    }
}

/// The rows of the table, of one gateway.
fn rows(outcome: &Outcome) -> Vec<(&'static str, String)> {
    let Outcome { counts, growth, .. } = outcome;
    let milliseconds = |value: Option<u64>| value.map_or("-".to_owned(), |value| value.to_string());
    let metric = |name| match outcome.metrics.get(name) {
        Some(value) => format!("{value}"),
        None => "-".to_owned(),
    };
    let crash = outcome.slowest(|fault| fault != "hang");
    let hang = outcome.slowest(|fault| fault == "hang");
    vec![
        ("streams", counts.streams.to_string()),
        (
            "short requests, each on a new connection",
            counts.requests.to_string(),
        ),
        ("faults", outcome.faults.len().to_string()),
        ("reloads", outcome.reloads.to_string()),
        ("upgrades", outcome.upgrades.to_string()),
        ("refused connections", counts.refused.to_string()),
        ("lost requests", counts.lost.to_string()),
        ("cut streams", counts.cut.to_string()),
        ("wrong texts", counts.wrong_texts.to_string()),
        ("malformed answers", counts.malformed.to_string()),
        ("longest silence, ms", outcome.silence.max_ms.to_string()),
        (
            "longest silence of a stream, p99, ms",
            outcome.silence.p99_ms.to_string(),
        ),
        ("crash to ejection, slowest, ms", milliseconds(crash)),
        ("hang to ejection, slowest, ms", milliseconds(hang)),
        ("faults without an ejection", outcome.unseen().to_string()),
        ("continuations", metric("continuations")),
        ("retries", metric("retries")),
        ("junk requests, by status", junk(&outcome.junk)),
        ("resident memory, MB: second quarter, last", growth.memory()),
        ("open files: second quarter, last", growth.files()),
        ("metric series: second quarter, last", growth.series()),
        ("in flight after the end", outcome.left_over.to_string()),
    ]
}

fn junk(statuses: &BTreeMap<u16, u64>) -> String {
    if statuses.is_empty() {
        return "-".to_owned();
    }
    let each: Vec<_> = (statuses.iter())
        .map(|(status, count)| format!("{status} ×{count}"))
        .collect();
    each.join(", ")
}

/// A Markdown table, then the failures in words.
pub fn markdown(outcomes: &[Outcome]) -> String {
    let mut text = "| ".to_owned();
    for outcome in outcomes {
        _ = write!(text, "| {} ", outcome.gateway);
    }
    text.push_str("|\n|---");
    text.push_str(&"|---:".repeat(outcomes.len()));
    text.push_str("|\n");
    let columns: Vec<_> = outcomes.iter().map(rows).collect();
    let names = columns.first().into_iter().flatten().map(|(name, _)| *name);
    for (row, name) in names.enumerate() {
        _ = write!(text, "| {name} ");
        for column in &columns {
            _ = write!(text, "| {} ", column[row].1);
        }
        text.push_str("|\n");
    }
    for outcome in outcomes {
        for (reason, count) in &outcome.reasons {
            _ = write!(text, "\n{}, {count} times {reason}", outcome.gateway);
        }
    }
    text
}
