//! What is done for each endpoint by itself.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;

use crate::pool::EndpointState;
use crate::snapshot::SnapshotCell;

/// Does `work` once for every endpoint that has an address, all at the same time.
pub async fn once<F>(cell: &SnapshotCell, work: impl Fn(Arc<EndpointState>) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut running = JoinSet::new();
    for endpoint in cell.load().endpoints() {
        if endpoint.is_resolved() {
            running.spawn(work(Arc::clone(endpoint)));
        }
    }
    while running.join_next().await.is_some() {}
}

/// Which endpoints something is done for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whom {
    /// Those of the configuration.
    Listed,
    /// Also those that it has no more, for as long as they hold requests.
    HoldingToo,
}

/// How often is looked whether those that have left the configuration still hold requests.
const LEAVING: Duration = Duration::from_secs(1);

/// Keeps one `work` going for every endpoint that has an address, as snapshots come and go, until
/// `shutdown`. One that panics is begun again; `what` it is the log says.
pub async fn keep<F>(
    cell: &SnapshotCell,
    whom: Whom,
    what: &str,
    work: impl Fn(Arc<EndpointState>) -> F,
    shutdown: impl Future<Output = ()>,
) where
    F: Future<Output = ()> + Send + 'static,
{
    tokio::pin!(shutdown);
    let mut changes = cell.changes();
    let mut tasks = Tasks::default();
    loop {
        changes.mark_unchanged();
        let leaving = tasks.follow(cell, whom, &work);
        tokio::select! {
            () = &mut shutdown => return,
            changed = changes.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = sleep(LEAVING), if leaving => {}
            Some(ended) = tasks.all.join_next() => {
                if let Err(error) = ended && error.is_panic() {
                    log::error!("{what} panicked and is begun again: {error}");
                }
            }
        }
    }
}

/// `duration`, give or take a tenth, so that gateways and endpoints do not fall into step.
pub fn jittered(duration: Duration) -> Duration {
    duration.mul_f64(0.9 + fastrand::f64() * 0.2)
}

#[derive(Default)]
struct Tasks {
    all: JoinSet<()>,
    /// By [`EndpointState::id`].
    running: HashMap<u64, AbortHandle>,
}

impl Tasks {
    /// Whether any of them is for an endpoint that has left the configuration.
    fn follow<F>(
        &mut self,
        cell: &SnapshotCell,
        whom: Whom,
        work: &impl Fn(Arc<EndpointState>) -> F,
    ) -> bool
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let snapshot = cell.load();
        let leaving: Vec<_> = match whom {
            Whom::Listed => Vec::new(),
            Whom::HoldingToo => snapshot.leaving().collect(),
        };
        let wanted = || snapshot.endpoints().chain(&leaving);
        self.running.retain(|id, task| {
            let wanted = wanted().any(|endpoint| endpoint.id == *id);
            if !wanted {
                task.abort();
            }
            wanted && !task.is_finished()
        });
        for endpoint in wanted() {
            if endpoint.is_resolved() && !self.running.contains_key(&endpoint.id) {
                let task = self.all.spawn(work(Arc::clone(endpoint)));
                self.running.insert(endpoint.id, task);
            }
        }
        !leaving.is_empty()
    }
}
