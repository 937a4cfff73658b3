//! Prometheus metrics.
//!
//! Everything a request touches is resolved beforehand into [`PoolMetrics`] and
//! [`EndpointMetrics`]: counting is an atomic add, without a lookup of labels. What is a state and
//! not an event (requests in flight, endpoints up, connections, held bodies) is not counted a
//! second time but read at the scrape from those who own it.

mod families;
mod intervals;
mod models;
mod scrape;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::{
    Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
    TextEncoder,
};

pub use intervals::Intervals;
pub use models::{KeyMetrics, ModelMetrics};
pub use scrape::{EndpointSample, QueueSample, Sources};

use super::ConnectionCounts;
use families::{counter, counters, gauge, gauges, histogram, histograms};

/// In the place of an endpoint, for a request that none answered.
const NO_ENDPOINT: &str = "none";
/// In the place of a pool, for a request that was answered before it was known which.
const NO_POOL: &str = "none";

/// All metrics of the process, in a registry of their own.
pub struct Metrics {
    /// Of the public listeners; `connections` and `connections_total` are read from here.
    pub connection_counts: Arc<ConnectionCounts>,
    /// Lines of the access log that were lost.
    pub log_lines_dropped: IntCounter,
    /// Spans that did not get to their receiver.
    pub spans_dropped: IntCounter,
    /// The gateway's own share of a request, in seconds.
    pub overhead: Histogram,
    /// The number of the configuration in force.
    pub config_epoch: IntGauge,
    registry: Registry,
    requests: IntCounterVec,
    request_duration: HistogramVec,
    models: models::Families,
    queue_wait: HistogramVec,
    continuations: IntCounterVec,
    retries: IntCounterVec,
    upstream_connections: IntCounterVec,
    refused: IntCounterVec,
    retry_budget_exhausted: IntCounterVec,
    suspects: IntCounterVec,
    certificate_expiry: IntGaugeVec,
    config_reloads: IntCounterVec,
    sources: Arc<OnceLock<Sources>>,
    no_pool: OnceLock<PoolMetrics>,
}

/// The handles of one pool.
pub struct PoolMetrics {
    pub request_duration: Histogram,
    pub queue_wait: Histogram,
    pub retry_budget_exhausted: IntCounter,
    pub suspects: IntCounter,
    unanswered: Codes,
    pool: Arc<str>,
    continuations: IntCounterVec,
    retries: IntCounterVec,
}

/// The handles of one endpoint in one pool.
pub struct EndpointMetrics {
    pub connections_new: IntCounter,
    pub connections_reused: IntCounter,
    codes: Codes,
}

impl Metrics {
    /// `version` is that of `build_info`.
    pub fn new(version: &str) -> Self {
        let registry = Registry::new();
        let r = &registry;
        gauges(r, "build_info").with_label_values(&[version]).set(1);
        let connection_counts = Arc::new(ConnectionCounts::default());
        let sources = Arc::new(OnceLock::new());
        scrape::register(r, Arc::clone(&connection_counts), Arc::clone(&sources));
        let config_reloads = counters(r, "config_reloads_total");
        // Both exist from the start, so that a first failure is an increase.
        for result in ["success", "failure"] {
            config_reloads.with_label_values(&[result]);
        }
        Self {
            connection_counts,
            log_lines_dropped: counter(r, "log_lines_dropped_total"),
            spans_dropped: counter(r, "spans_dropped_total"),
            overhead: histogram(r, "overhead_seconds", OVERHEAD),
            config_epoch: gauge(r, "config_epoch"),
            requests: counters(r, "requests_total"),
            request_duration: histograms(r, "request_duration_seconds", DURATION),
            models: models::Families::register(r),
            queue_wait: histograms(r, "queue_wait_seconds", QUEUE_WAIT),
            continuations: counters(r, "continuations_total"),
            retries: counters(r, "retries_total"),
            upstream_connections: counters(r, "upstream_connections_total"),
            refused: counters(r, "refused_total"),
            retry_budget_exhausted: counters(r, "retry_budget_exhausted_total"),
            suspects: counters(r, "suspects_total"),
            certificate_expiry: gauges(r, "certificate_expiry_timestamp_seconds"),
            config_reloads,
            sources,
            no_pool: OnceLock::new(),
            registry,
        }
    }

    /// Says where states are read at each scrape; the first call counts.
    pub fn read_from(&self, sources: Sources) {
        let _ = self.sources.set(sources);
    }

    /// The handles of a pool; the same series however often it is asked for.
    pub fn pool(&self, pool: &str) -> PoolMetrics {
        PoolMetrics {
            request_duration: self.request_duration.with_label_values(&[pool]),
            queue_wait: self.queue_wait.with_label_values(&[pool]),
            retry_budget_exhausted: self.retry_budget_exhausted.with_label_values(&[pool]),
            suspects: self.suspects.with_label_values(&[pool]),
            unanswered: Codes::new(&self.requests, pool, NO_ENDPOINT),
            pool: pool.into(),
            continuations: self.continuations.clone(),
            retries: self.retries.clone(),
        }
    }

    /// The handles for requests whose pool is not known; without any the series do not exist.
    pub fn no_pool(&self) -> &PoolMetrics {
        self.no_pool.get_or_init(|| self.pool(NO_POOL))
    }

    /// The handles of an endpoint; the same series however often it is asked for.
    pub fn endpoint(&self, pool: &str, endpoint: &str) -> EndpointMetrics {
        let connections = |state| {
            self.upstream_connections
                .with_label_values(&[pool, endpoint, state])
        };
        EndpointMetrics {
            connections_new: connections("new"),
            connections_reused: connections("reused"),
            codes: Codes::new(&self.requests, pool, endpoint),
        }
    }

    /// The handles of a model in a pool; the same series however often it is asked for.
    pub fn model(&self, pool: &str, model: &str) -> ModelMetrics {
        self.models.model(pool, model)
    }

    /// The handles of a key; the same series however often it is asked for.
    pub fn key(&self, key: &str) -> KeyMetrics {
        self.models.key(key)
    }

    /// Takes a model that has left a pool out of the exposition.
    pub fn forget_model(&self, gone: &ModelMetrics) {
        self.models.forget_model(gone);
    }

    /// The same for a key.
    pub fn forget_key(&self, gone: &KeyMetrics) {
        self.models.forget_key(gone);
    }

    /// Takes an endpoint that has left a pool out of the exposition. What is still counted through
    /// its handles is not shown.
    pub fn forget_endpoint(&self, gone: &EndpointMetrics) {
        gone.codes.gone.store(true, Relaxed);
        for counters in [&self.requests, &self.upstream_connections] {
            families::remove(
                counters,
                &[
                    ("pool", &gone.codes.pool),
                    ("endpoint", &gone.codes.endpoint),
                ],
            );
        }
    }

    /// The same for a pool and what was counted for it alone.
    pub fn forget_pool(&self, gone: &PoolMetrics) {
        gone.unanswered.gone.store(true, Relaxed);
        for counters in [
            &self.requests,
            &self.continuations,
            &self.retries,
            &self.retry_budget_exhausted,
            &self.suspects,
        ] {
            families::remove(counters, &[("pool", &gone.pool)]);
        }
        // Labels that were never used: nothing to remove.
        let _ = self.request_duration.remove_label_values(&[&*gone.pool]);
        let _ = self.queue_wait.remove_label_values(&[&*gone.pool]);
    }

    /// A request was refused before it reached a pool; the reason is an error's `code`, or the
    /// name of a limit.
    pub fn refused(&self, reason: &'static str) {
        self.refused.with_label_values(&[reason]).inc();
    }

    pub fn config_reloaded(&self, succeeded: bool) {
        let result = if succeeded { "success" } else { "failure" };
        self.config_reloads.with_label_values(&[result]).inc();
    }

    /// The moment at which the listener's certificate expires.
    pub fn certificate_expires(&self, listener: &str, at: SystemTime) {
        let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.certificate_expiry
            .with_label_values(&[listener])
            .set(i64::try_from(seconds).unwrap_or(i64::MAX));
    }

    /// All metrics in Prometheus' text format (`text/plain; version=0.0.4`).
    pub fn render(&self) -> String {
        let mut text = String::with_capacity(16 * 1024);
        if let Err(error) = TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text) {
            log::error!("metrics cannot be rendered: {error}");
        }
        text
    }
}

impl PoolMetrics {
    /// A request of this pool was sent again; the reason is what the try before it died of.
    pub fn retried(&self, reason: &'static str) {
        if !self.unanswered.gone.load(Relaxed) {
            self.retries.with_label_values(&[&*self.pool, reason]).inc();
        }
    }

    /// A stream of this pool was cut; how it went on, or why not.
    pub fn continued(&self, result: &'static str) {
        if self.unanswered.gone.load(Relaxed) {
            return;
        }
        self.continuations
            .with_label_values(&[&*self.pool, result])
            .inc();
    }

    /// A request of this pool ended with `code` without an endpoint's answer.
    pub fn count_unanswered(&self, code: u16) {
        self.unanswered.count(code);
    }

    pub fn observe_duration(&self, duration: Duration) {
        self.request_duration.observe(duration.as_secs_f64());
    }
}

impl EndpointMetrics {
    /// A request ended with `code`, answered by this endpoint; 499 where the client left.
    pub fn count(&self, code: u16) {
        self.codes.count(code);
    }
}

/// Status codes worth a slot of their own.
const COMMON: [u16; 14] = [
    200, 400, 401, 404, 405, 408, 413, 422, 429, 499, 500, 502, 503, 504,
];

/// `requests_total` of one endpoint: a slot a common code, which is made at its first use so that
/// codes that never occur are not shown.
struct Codes {
    pool: Arc<str>,
    endpoint: Arc<str>,
    slots: [OnceLock<IntCounter>; COMMON.len()],
    requests: IntCounterVec,
    gone: AtomicBool,
}

impl Codes {
    fn new(requests: &IntCounterVec, pool: &str, endpoint: &str) -> Self {
        Self {
            pool: pool.into(),
            endpoint: endpoint.into(),
            slots: Default::default(),
            requests: requests.clone(),
            gone: AtomicBool::new(false),
        }
    }

    fn count(&self, code: u16) {
        match COMMON.iter().position(|&common| common == code) {
            Some(slot) if self.slots[slot].get().is_some() || !self.gone.load(Relaxed) => {
                self.slots[slot].get_or_init(|| self.resolve(code)).inc();
            }
            None if !self.gone.load(Relaxed) => self.resolve(code).inc(),
            _ => {}
        }
    }

    fn resolve(&self, code: u16) -> IntCounter {
        self.requests.with_label_values(&[
            &*self.pool,
            &*self.endpoint,
            itoa::Buffer::new().format(code),
        ])
    }
}

/// From one embedding to a long reasoning answer.
const DURATION: &[f64] = &[
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 180.0, 300.0,
    600.0,
];

/// To beyond the longest wait that `queue.timeout` allows by default.
const QUEUE_WAIT: &[f64] = &[
    0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0,
];

const OVERHEAD: &[f64] = &[
    0.000_05, 0.000_1, 0.000_2, 0.000_3, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25,
    0.5, 1.0,
];

#[cfg(test)]
mod tests;
