//! What every request, task and listener shares.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;

use crate::admission::Tenant;
use crate::pool::{Endpoint, Pool};
use crate::relay::{Bindings, BodyMemory, Suspects};
use crate::snapshot::{ModelScope, SnapshotCell};
use crate::telemetry::metrics::{
    EndpointMetrics, EndpointSample, KeyMetrics, ModelMetrics, PoolMetrics, QueueSample, Sources,
};
use crate::telemetry::tracing::Tracer;
use crate::telemetry::{AccessLog, Metrics};

/// The state of the process: one of each.
pub struct Shared {
    pub snapshot: Arc<SnapshotCell>,
    pub metrics: Metrics,
    pub body_memory: Arc<BodyMemory>,
    pub bindings: Bindings,
    pub suspects: Suspects,
    access_log: ArcSwapOption<AccessLog>,
    tracer: ArcSwapOption<Tracer>,
    draining: AtomicBool,
    /// Held while an order of an operator is followed.
    pub orders: Mutex<Orders>,
}

/// Whose orders are followed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Orders {
    /// This process's.
    #[default]
    Taken,
    /// Another has been told of all that there were, and may take over at any moment.
    HandedOver,
}

impl Shared {
    pub fn new(snapshot: SnapshotCell, metrics: Metrics, access_log: Option<AccessLog>) -> Self {
        let snapshot = Arc::new(snapshot);
        let body_memory = Arc::new(BodyMemory::default());
        let (endpoints_of, bodies) = (Arc::clone(&snapshot), Arc::clone(&body_memory));
        let queues_of = Arc::clone(&snapshot);
        metrics.read_from(Sources {
            endpoints: Box::new(move || samples(&endpoints_of)),
            queues: Box::new(move || queues(&queues_of)),
            body_bytes: Box::new(move || bodies.total() as u64),
        });
        metrics.config_epoch.set(1);
        Self {
            snapshot,
            metrics,
            body_memory,
            bindings: Bindings::default(),
            suspects: Suspects::default(),
            access_log: ArcSwapOption::from_pointee(access_log),
            tracer: ArcSwapOption::empty(),
            draining: AtomicBool::new(false),
            orders: Mutex::default(),
        }
    }

    pub fn pool_metrics<'a>(&self, pool: &'a Pool) -> &'a PoolMetrics {
        pool.metrics.get_or_init(|| self.metrics.pool(&pool.name))
    }

    pub fn endpoint_metrics<'a>(&self, pool: &Pool, endpoint: &'a Endpoint) -> &'a EndpointMetrics {
        endpoint
            .metrics
            .get_or_init(|| self.metrics.endpoint(&pool.name, &endpoint.name))
    }

    pub fn model_metrics<'a>(&self, scope: &'a ModelScope) -> &'a ModelMetrics {
        scope
            .metrics
            .get_or_init(|| self.metrics.model(&scope.pool, &scope.model))
    }

    pub fn key_metrics<'a>(&self, tenant: &'a Tenant) -> &'a KeyMetrics {
        tenant
            .metrics
            .get_or_init(|| self.metrics.key(&tenant.name))
    }

    /// From now on every answer closes its connection.
    pub fn start_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    pub fn log(&self, record: impl FnOnce(&AccessLog)) {
        if let Some(log) = &*self.access_log.load() {
            record(log);
        }
    }

    pub fn replace_access_log(&self, access_log: Option<AccessLog>) {
        self.access_log.store(access_log.map(Arc::new));
    }

    /// Where spans go; `None` where none are wanted.
    pub fn tracer(&self) -> Option<Arc<Tracer>> {
        self.tracer.load_full()
    }

    pub fn replace_tracer(&self, tracer: Option<Arc<Tracer>>) {
        self.tracer.store(tracer);
    }

    /// Opens the file again after it was moved away (USR1).
    pub fn reopen_access_log(&self) {
        self.log(|log| {
            // It says itself what went wrong, and goes on with the old file.
            let _ = log.reopen();
        });
    }

    /// Waits for the last lines, at most as long as given.
    pub fn flush_access_log(&self, at_most: Duration) {
        self.log(|log| {
            if !log.flush(at_most) {
                log::warn!("the last lines of the access log could not be written in time");
            }
        });
    }
}

fn samples(cell: &SnapshotCell) -> Vec<EndpointSample> {
    let snapshot = cell.load();
    let each = snapshot.pools.iter().flat_map(|pool| {
        pool.endpoints.iter().map(|endpoint| EndpointSample {
            pool: Arc::clone(&pool.name),
            endpoint: Arc::clone(&endpoint.name),
            in_flight: u64::from(endpoint.state.in_flight()),
            up: endpoint.state.is_up(),
            draining: endpoint.state.is_draining(),
            removals: endpoint.state.removals(),
        })
    });
    each.collect()
}

fn queues(cell: &SnapshotCell) -> Vec<QueueSample> {
    let snapshot = cell.load();
    let each = snapshot.pools.iter().map(|pool| QueueSample {
        pool: Arc::clone(&pool.name),
        depth: pool.queue.depth() as u64,
    });
    each.collect()
}
