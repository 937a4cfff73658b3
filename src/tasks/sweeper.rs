//! Closes upstream connections that have been idle for too long, or that the engine has closed.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::snapshot::SnapshotCell;

/// How often. An idle connection lives at most `keepalive.idle` and this; with the defaults 4.5 s, so
/// that it is gone before uvicorn closes its side after 5.
const EVERY: Duration = Duration::from_millis(500);

/// Sweeps every endpoint's idle connections, also of those that only draining requests still hold,
/// until `shutdown`.
pub async fn run(cell: Arc<SnapshotCell>, shutdown: impl Future<Output = ()>) {
    tokio::pin!(shutdown);
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = &mut shutdown => return,
            _ = ticks.tick() => {
                let snapshot = cell.load_full();
                let idle = snapshot.config.keepalive.idle;
                let now = Instant::now();
                for endpoint in snapshot.all_endpoints() {
                    endpoint.idle.sweep(now.into(), idle);
                }
            }
        }
    }
}
