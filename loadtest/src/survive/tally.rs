//! What the clients of a run met, counted.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::answer::End;

/// Ten minutes, in milliseconds.
const LONGEST: u64 = 600_000;
/// Reasons that are told in words.
const EXAMPLES: usize = 20;

/// Ends, counted, and the longest silences of streams.
#[derive(Debug)]
pub(super) struct Tally {
    pub counts: Counts,
    /// Milliseconds, of each stream its longest.
    silences: Histogram<u64>,
    /// How often each failure was met, in its own words.
    reasons: BTreeMap<String, u64>,
    junk: BTreeMap<u16, u64>,
}

/// What is counted of clients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    pub streams: u64,
    /// Short requests, each on a new connection.
    pub requests: u64,
    /// Connections that were not made.
    pub refused: u64,
    /// Without anything of an answer.
    pub lost: u64,
    /// Broken off after they had begun.
    pub cut: u64,
    pub wrong_texts: u64,
    /// The right text with a wrong id, role, usage or end.
    pub malformed: u64,
}

impl Counts {
    pub fn failures(&self) -> u64 {
        self.refused + self.lost + self.cut + self.wrong_texts + self.malformed
    }
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            counts: Counts::default(),
            silences: Histogram::new_with_bounds(1, LONGEST, 3).expect("fixed bounds are valid"),
            reasons: BTreeMap::new(),
            junk: BTreeMap::new(),
        }
    }
}

impl Tally {
    pub(super) fn add(&mut self, is_stream: bool, end: &End, silence: Duration) {
        let counts = &mut self.counts;
        if is_stream {
            counts.streams += 1;
            let silence = (silence.as_millis() as u64).max(1);
            self.silences.saturating_record(silence);
        } else {
            counts.requests += 1;
        }
        let (count, name, reason) = match end {
            End::Whole => return,
            End::Refused(reason) => (&mut counts.refused, "refused", reason),
            End::Lost(reason) => (&mut counts.lost, "lost", reason),
            End::Cut(reason) => (&mut counts.cut, "cut", reason),
            End::Wrong(reason) => (&mut counts.wrong_texts, "wrong text", reason),
            End::Malformed(reason) => (&mut counts.malformed, "malformed", reason),
        };
        *count += 1;
        let reason = format!("{name}: {reason}");
        if self.reasons.len() < EXAMPLES || self.reasons.contains_key(&reason) {
            *self.reasons.entry(reason).or_default() += 1;
        }
    }

    /// A request for what does not exist got this status; 0 is no answer.
    pub(super) fn add_junk(&mut self, status: u16) {
        *self.junk.entry(status).or_default() += 1;
    }

    pub(super) fn junk(&self) -> BTreeMap<u16, u64> {
        self.junk.clone()
    }

    pub(super) fn reasons(&self) -> BTreeMap<String, u64> {
        self.reasons.clone()
    }

    /// The longest of all, and what 99 of 100 streams did not exceed, in milliseconds.
    pub(super) fn silence(&self) -> Silence {
        Silence {
            max_ms: self.silences.max(),
            p99_ms: self.silences.value_at_quantile(0.99),
        }
    }
}

/// The longest that a stream said nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Silence {
    pub max_ms: u64,
    pub p99_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_has_its_count_and_its_words() {
        let mut tally = Tally::default();
        let reason = || "x".to_owned();
        for end in [
            End::Whole,
            End::Lost(reason()),
            End::Cut(reason()),
            End::Cut(reason()),
            End::Wrong(reason()),
            End::Malformed(reason()),
        ] {
            tally.add(true, &end, Duration::from_millis(20));
        }
        tally.add(false, &End::Refused(reason()), Duration::ZERO);
        let expected = Counts {
            streams: 6,
            requests: 1,
            refused: 1,
            lost: 1,
            cut: 2,
            wrong_texts: 1,
            malformed: 1,
        };
        assert_eq!(tally.counts, expected);
        assert_eq!(tally.counts.failures(), 6);
        assert_eq!(tally.reasons().get("cut: x"), Some(&2));
        assert_eq!(tally.silence().max_ms, 20);
    }
}
