//! What is counted for a model of a pool, and for a key.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, Registry};

use super::families::{self, counters, histograms};
use super::intervals::{IntervalHistogram, IntervalHistograms, Intervals};
use crate::openai::Usage;
use crate::telemetry::access_log::End;

/// From a cache hit on an idle GPU to a queue that is minutes long.
const TTFT: &[f64] = &[
    0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0,
    300.0,
];

/// A token's share of the time, so much like the time between two events.
const TPOT: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5,
    1.0, 2.5,
];

/// From one embedding to a long reasoning answer.
const E2EL: &[f64] = super::DURATION;

/// Of tokens.
const KINDS: [&str; 3] = ["prompt", "completion", "cached"];

/// The families whose series belong to a model or a key.
pub(super) struct Families {
    ttft: HistogramVec,
    intervals: IntervalHistograms,
    tpot: HistogramVec,
    e2el: HistogramVec,
    tokens: IntCounterVec,
    key_tokens: IntCounterVec,
    key_requests: IntCounterVec,
}

/// The handles of one model in one pool.
pub struct ModelMetrics {
    pool: Arc<str>,
    model: Arc<str>,
    ttft: Histogram,
    intervals: Arc<IntervalHistogram>,
    tpot: Histogram,
    e2el: Histogram,
    tokens: Tokens,
}

/// The handles of one key.
pub struct KeyMetrics {
    key: Arc<str>,
    tokens: Tokens,
    requests: IntCounterVec,
    complete: OnceLock<IntCounter>,
    gone: AtomicBool,
}

impl fmt::Debug for KeyMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyMetrics").finish_non_exhaustive()
    }
}

struct Tokens([IntCounter; KINDS.len()]);

impl Tokens {
    fn add(&self, usage: Usage) {
        let counts = [usage.prompt, usage.completion, usage.cached];
        for (counter, count) in self.0.iter().zip(counts) {
            counter.inc_by(count.unwrap_or(0));
        }
    }
}

impl Families {
    pub(super) fn register(r: &Registry) -> Self {
        Self {
            ttft: histograms(r, "ttft_seconds", TTFT),
            intervals: IntervalHistograms::register(r, "itl_seconds"),
            tpot: histograms(r, "tpot_seconds", TPOT),
            e2el: histograms(r, "e2el_seconds", E2EL),
            tokens: counters(r, "tokens_total"),
            key_tokens: counters(r, "key_tokens_total"),
            key_requests: counters(r, "key_requests_total"),
        }
    }

    pub(super) fn model(&self, pool: &str, model: &str) -> ModelMetrics {
        let labels = [pool, model];
        ModelMetrics {
            pool: pool.into(),
            model: model.into(),
            ttft: self.ttft.with_label_values(&labels),
            intervals: self.intervals.with(&labels),
            tpot: self.tpot.with_label_values(&labels),
            e2el: self.e2el.with_label_values(&labels),
            tokens: Tokens(KINDS.map(|kind| self.tokens.with_label_values(&[pool, model, kind]))),
        }
    }

    pub(super) fn key(&self, key: &str) -> KeyMetrics {
        KeyMetrics {
            key: key.into(),
            tokens: Tokens(KINDS.map(|kind| self.key_tokens.with_label_values(&[key, kind]))),
            requests: self.key_requests.clone(),
            complete: OnceLock::new(),
            gone: AtomicBool::new(false),
        }
    }

    pub(super) fn forget_model(&self, gone: &ModelMetrics) {
        let labels = [&*gone.pool, &*gone.model];
        // Labels that were never used: nothing to remove.
        for histograms in [&self.ttft, &self.tpot, &self.e2el] {
            let _ = histograms.remove_label_values(&labels);
        }
        self.intervals.remove(&labels);
        families::remove(
            &self.tokens,
            &[("pool", &gone.pool), ("model", &gone.model)],
        );
    }

    pub(super) fn forget_key(&self, gone: &KeyMetrics) {
        gone.gone.store(true, Relaxed);
        families::remove(&self.key_tokens, &[("key", &gone.key)]);
        families::remove(&self.key_requests, &[("key", &gone.key)]);
    }
}

impl ModelMetrics {
    /// From the request's head to its first content event.
    pub fn observe_ttft(&self, ttft: Duration) {
        self.ttft.observe(ttft.as_secs_f64());
    }

    /// An answer that came to its end: from the request's head to there, and what a token after the
    /// first took of it (vLLM's TPOT: (E2EL - TTFT) / (completion tokens - 1)).
    pub fn observe_end(&self, e2el: Duration, ttft: Option<Duration>, completion: Option<u64>) {
        self.e2el.observe(e2el.as_secs_f64());
        if let (Some(ttft), Some(tokens @ 2..)) = (ttft, completion) {
            #[expect(clippy::cast_precision_loss, reason = "no answer has 2^52 tokens")]
            let rest = (tokens - 1) as f64;
            self.tpot
                .observe(e2el.saturating_sub(ttft).as_secs_f64() / rest);
        }
    }

    /// What a stream has counted between its events.
    pub fn add_intervals(&self, intervals: &Intervals) {
        self.intervals.add(intervals);
    }

    pub fn add_tokens(&self, usage: Usage) {
        self.tokens.add(usage);
    }
}

impl KeyMetrics {
    /// A request of this key ended; `limited`: its limits refused it.
    pub fn count(&self, end: End, limited: bool) {
        if self.gone.load(Relaxed) {
            return;
        }
        let of = |result: &str| self.requests.with_label_values(&[&*self.key, result]);
        match end {
            End::Complete => self.complete.get_or_init(|| of(end.as_str())).inc(),
            _ if limited => of("rate_limited").inc(),
            _ => of(end.as_str()).inc(),
        }
    }

    pub fn add_tokens(&self, usage: Usage) {
        self.tokens.add(usage);
    }
}
