//! Finds engines that hang: they accept requests and answer `GET /health`, but nothing comes of it.
//!
//! An endpoint that holds requests, none of which has gone on for `health.stall`, and whose own counters have stood
//! still for as long, is sent one [canary](super::canary). What does not answer that is ejected, and its requests go
//! elsewhere. What answers is busy, however slow, and is left alone for another `stall`. One that is down because it
//! answers no probe needs no canary.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::pool::{EndpointState, Fault, Look, Silence};
use crate::snapshot::{Snapshot, SnapshotCell};

use super::canary::{self, Canary, Sign};
use super::per_endpoint::{self, Whom};

/// Watches every endpoint, as snapshots come and go, until `shutdown`.
pub async fn run(
    cell: Arc<SnapshotCell>,
    canary: Arc<dyn Canary>,
    shutdown: impl Future<Output = ()>,
) {
    let turn = Arc::new(Mutex::new(()));
    let watch = |endpoint| {
        let watcher = Watcher {
            endpoint,
            cell: Arc::clone(&cell),
            canary: Arc::clone(&canary),
            turn: Arc::clone(&turn),
            was_spared: false,
        };
        watcher.watch(cell.changes())
    };
    per_endpoint::keep(
        &cell,
        Whom::HoldingToo,
        "a look for a hung engine",
        watch,
        shutdown,
    )
    .await;
}

struct Watcher {
    endpoint: Arc<EndpointState>,
    cell: Arc<SnapshotCell>,
    canary: Arc<dyn Canary>,
    /// Of those who eject: two that hang at the same time must not each count on the other.
    turn: Arc<Mutex<()>>,
    /// The log says it once.
    was_spared: bool,
}

impl Watcher {
    async fn watch(mut self, mut snapshots: watch::Receiver<u64>) {
        let mut silence = Silence::default();
        loop {
            let stall = self.endpoint.settings().health.stall;
            let since = self.endpoint.silent_since();
            let since = since.filter(|_| canary::may_be_sent(&self.endpoint));
            match silence.look(since, stall, Instant::now()) {
                Look::At(then) => tokio::select! {
                    () = sleep_until(then) => {}
                    // `stall` may be another.
                    changed = snapshots.changed() => if changed.is_err() { return },
                },
                Look::Ask => {
                    let sign = self.ask(stall).await;
                    silence.asked(Instant::now());
                    // It may have gone on meanwhile.
                    if self.endpoint.silent_since() == since {
                        self.judge(sign);
                    }
                }
            }
        }
    }

    async fn ask(&self, stall: Duration) -> Sign {
        if self.endpoint.answers_no_probe() {
            return Sign::Silent;
        }
        let deadline = Instant::now() + canary::patience(stall);
        let sign = self.canary.send(&self.endpoint, deadline);
        timeout_at(deadline, sign).await.unwrap_or(Sign::Silent)
    }

    fn judge(&mut self, sign: Sign) {
        let (endpoint, now) = (&self.endpoint, Instant::now());
        let name = &endpoint.settings().name;
        let counts = || {
            let report = endpoint.report.get();
            report.is_some_and(|report| report.load.has_counters())
        };
        let hangs = match sign {
            Sign::Alive | Sign::NotSent => false,
            // One that does not count may be working on what fills its queue.
            Sign::Full => counts(),
            Sign::Fails(_) | Sign::Silent => true,
            Sign::Refused => return endpoint.fault(Fault::ConnectRefused, now),
        };
        if !hangs {
            self.was_spared = false;
            log::debug!("endpoint {name} is slow, and does not hang: {sign:?}");
            return;
        }
        let turn = Arc::clone(&self.turn);
        let _turn = turn.lock();
        if has_another(&self.cell.load(), endpoint) {
            self.was_spared = false;
            log::warn!("endpoint {name} hangs: its requests make no progress, nor did a canary");
            endpoint.hung(now);
        } else if !std::mem::replace(&mut self.was_spared, true) {
            log::warn!(
                "endpoint {name} hangs: its requests make no progress, nor did a canary; it stays in, because no other endpoint of its pool is up"
            );
        }
    }
}

/// Whether every pool that has this endpoint has another one that is up.
fn has_another(snapshot: &Snapshot, endpoint: &EndpointState) -> bool {
    let is_it = |other: &EndpointState| other.id == endpoint.id;
    let mut pools = snapshot.pools.iter();
    pools.all(|pool| {
        let mut all = pool.endpoints.iter().map(|endpoint| &endpoint.state);
        let has_it = all.clone().any(|state| is_it(state));
        !has_it || all.any(|state| !is_it(state) && state.is_up())
    })
}

#[cfg(test)]
mod tests;
