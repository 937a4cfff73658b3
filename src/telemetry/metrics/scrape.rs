//! States that are read from their owners when somebody scrapes.

use std::sync::{Arc, OnceLock};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use super::families::opts;
use crate::telemetry::ConnectionCounts;

/// Who knows the states. Called at each scrape, from the scraping task: must not block.
pub struct Sources {
    /// Every endpoint of the configuration in force, once a pool.
    pub endpoints: Box<dyn Fn() -> Vec<EndpointSample> + Send + Sync>,
    /// The queue of every pool of the configuration in force.
    pub queues: Box<dyn Fn() -> Vec<QueueSample> + Send + Sync>,
    /// Bytes of all bodies held.
    pub body_bytes: Box<dyn Fn() -> u64 + Send + Sync>,
}

/// One endpoint at the moment of the scrape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSample {
    pub pool: Arc<str>,
    pub endpoint: Arc<str>,
    pub in_flight: u64,
    pub up: bool,
    pub draining: bool,
    /// How often it was taken out, by reason.
    pub removals: Vec<(&'static str, u64)>,
}

/// A pool's queue at the moment of the scrape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueSample {
    pub pool: Arc<str>,
    pub depth: u64,
}

struct States {
    connections: Arc<ConnectionCounts>,
    sources: Arc<OnceLock<Sources>>,
    descs: Vec<Desc>,
}

/// Registers what is read at the scrape, and the process's own metrics.
pub(super) fn register(
    registry: &Registry,
    connections: Arc<ConnectionCounts>,
    sources: Arc<OnceLock<Sources>>,
) {
    let fresh = Families::new();
    let descs = fresh
        .collectors()
        .into_iter()
        .flat_map(|collector| collector.desc().into_iter().cloned())
        .collect();
    let states = States {
        connections,
        sources,
        descs,
    };
    registry
        .register(Box::new(states))
        .expect("the table's names are unique");
    #[cfg(target_os = "linux")]
    registry
        .register(Box::new(
            prometheus::process_collector::ProcessCollector::for_self(),
        ))
        .expect("no other metric begins with process_");
}

impl Collector for States {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // Made anew each time, so that what is gone leaves no series behind.
        let families = Families::new();
        let now = self.connections.now();
        for (state, count) in [
            ("reading", now.reading),
            ("writing", now.writing),
            ("waiting", now.waiting),
        ] {
            families
                .connections
                .with_label_values(&[state])
                .set(signed(count));
        }
        families.connections_total.inc_by(now.accepts);
        if let Some(sources) = self.sources.get() {
            families.body_bytes.set(signed((sources.body_bytes)()));
            for QueueSample { pool, depth } in (sources.queues)() {
                let series = families.queue_depth.with_label_values(&[&*pool]);
                series.set(signed(depth));
            }
            for sample in (sources.endpoints)() {
                let labels = [&*sample.pool, &*sample.endpoint];
                families
                    .in_flight
                    .with_label_values(&labels)
                    .set(signed(sample.in_flight));
                families
                    .up
                    .with_label_values(&labels)
                    .set(i64::from(sample.up));
                families
                    .draining
                    .with_label_values(&labels)
                    .set(i64::from(sample.draining));
                for (reason, count) in &sample.removals {
                    let labels = [&*sample.pool, &*sample.endpoint, reason];
                    families.ejections.with_label_values(&labels).inc_by(*count);
                }
            }
        }
        families
            .collectors()
            .into_iter()
            .flat_map(Collector::collect)
            .collect()
    }
}

struct Families {
    body_bytes: IntGauge,
    connections: IntGaugeVec,
    connections_total: IntCounter,
    draining: IntGaugeVec,
    ejections: IntCounterVec,
    in_flight: IntGaugeVec,
    queue_depth: IntGaugeVec,
    up: IntGaugeVec,
}

impl Families {
    fn new() -> Self {
        const VALID: &str = "the table's names and labels are valid";
        let gauges = |name| {
            let (opts, labels) = opts(name);
            IntGaugeVec::new(opts, labels).expect(VALID)
        };
        let counters = |name| {
            let (opts, labels) = opts(name);
            IntCounterVec::new(opts, labels).expect(VALID)
        };
        Self {
            body_bytes: IntGauge::with_opts(opts("body_bytes").0).expect(VALID),
            connections: gauges("connections"),
            connections_total: IntCounter::with_opts(opts("connections_total").0).expect(VALID),
            draining: gauges("endpoint_draining"),
            ejections: counters("ejections_total"),
            in_flight: gauges("endpoint_in_flight"),
            queue_depth: gauges("queue_depth"),
            up: gauges("endpoint_up"),
        }
    }

    fn collectors(&self) -> [&dyn Collector; 8] {
        [
            &self.body_bytes,
            &self.connections,
            &self.connections_total,
            &self.draining,
            &self.ejections,
            &self.in_flight,
            &self.queue_depth,
            &self.up,
        ]
    }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
