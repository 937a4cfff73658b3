//! Finds engines that have gone, while nobody asks them anything.
//!
//! A vLLM that is told to end closes its listener and the connections that are not in use, and leaves its streams open and
//! silent; nobody would learn of it before the next connect, which may be a probe seconds later. So two things are
//! watched that cost a request nothing. To every engine known for vLLM or SGLang one connection is kept that is never
//! used: when it ends, it is opened again at once. And where requests are open and nothing has come for a moment, a
//! connect is made and closed again. Whichever of these is refused takes the endpoint out, as any connect that is
//! refused; nothing else that comes of them counts.
//!
//! Other endpoints are kept no connection: a server that serves one at a time would serve nobody else.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::pool::{EndpointState, Fault};
use crate::snapshot::SnapshotCell;
use crate::upstream::{ConnectError, Connection, reach};

use super::canary::may_be_sent;
use super::per_endpoint::{self, Whom};

/// How often is looked whether there is something to do.
const EVERY: Duration = Duration::from_millis(350);
/// Nothing has come for so long: the engine may be gone.
const QUIET: Duration = Duration::from_millis(350);
/// Between two connects to one that stays silent.
const AGAIN: Duration = Duration::from_millis(650);
/// No connect takes longer that is to be refused.
const PATIENCE: Duration = Duration::from_secs(1);
/// A kept connection that ended sooner was not wanted: the next is opened after a pause that doubles.
const WANTED: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Watches every endpoint, as snapshots come and go, until `shutdown`.
pub async fn run(cell: Arc<SnapshotCell>, shutdown: impl Future<Output = ()>) {
    let what = "a look whether an engine is there";
    per_endpoint::keep(&cell, Whom::HoldingToo, what, watch, shutdown).await;
}

async fn watch(endpoint: Arc<EndpointState>) {
    let mut line = Line::new(Instant::now());
    let mut next_look = Instant::now();
    loop {
        let now = Instant::now();
        if endpoint.is_refusing() {
            // Its probes see to it.
            line.kept = None;
        } else {
            let mut found = Ok(());
            if line.is_wanted(&endpoint, now) {
                found = line.open(&endpoint).await;
            } else if endpoint.is_quiet(now, QUIET) && now >= next_look {
                next_look = now + AGAIN;
                found = reach(&endpoint.target, PATIENCE).await;
            }
            if matches!(found, Err(ConnectError::Refused)) {
                endpoint.fault(Fault::ConnectRefused, Instant::now());
            }
        }
        tokio::select! {
            () = line.ended() => {}
            () = sleep(EVERY) => {}
        }
    }
}

/// The connection that is kept and never used.
struct Line {
    kept: Option<Connection>,
    since: Instant,
    /// Not opened again before then.
    next: Instant,
    pause: Duration,
}

impl Line {
    fn new(now: Instant) -> Self {
        Self {
            kept: None,
            since: now,
            next: now,
            pause: Duration::ZERO,
        }
    }

    fn is_wanted(&self, endpoint: &EndpointState, now: Instant) -> bool {
        self.kept.is_none()
            && now >= self.next
            && may_be_sent(endpoint)
            && (endpoint.is_up() || endpoint.is_draining())
    }

    async fn open(&mut self, endpoint: &EndpointState) -> Result<(), ConnectError> {
        let opened = Connection::connect(&endpoint.target, PATIENCE).await;
        self.since = Instant::now();
        match opened {
            Ok(connection) => self.kept = Some(connection),
            Err(error) => {
                self.put_off();
                return Err(error);
            }
        }
        Ok(())
    }

    /// Resolves when it has ended; never where there is none.
    async fn ended(&mut self) {
        let Some(kept) = &mut self.kept else {
            return std::future::pending().await;
        };
        kept.ended().await;
        self.kept = None;
        if self.since.elapsed() < WANTED {
            self.put_off();
        } else {
            self.pause = Duration::ZERO;
            self.next = Instant::now();
        }
    }

    fn put_off(&mut self) {
        self.pause = (self.pause * 2).clamp(EVERY, LONGEST_PAUSE);
        self.next = Instant::now() + self.pause;
    }
}

#[cfg(test)]
mod tests;
