//! Active health checks: asks every endpoint for `health.path`, when its
//! [health](crate::pool::health) says it is time.
//!
//! The request goes over the gateway's own upstream leg and not over `pingora-load-balancing`'s
//! `HttpHealthCheck`. That one can be called from a prober of one's own, and would do for plain HTTP
//! over TCP, but not for the rest. It verifies TLS by rules of its own (a root store that it loads
//! itself, an underscore in the first label of the server name sent as a hyphen), so a node can be up
//! for its probes and out of reach for requests, or the reverse. `HttpHealthCheck::new` reads the
//! system's roots twice for each endpoint, also for plain HTTP (20 ms each in a debug build), and
//! panics when a single one of them is not to rustls' liking. And it gives a unix socket that is
//! gone (ENOENT) and one whose backlog is full (EAGAIN) the same error type, of which only the first
//! may take a node out at once. A probe has to travel as requests do: same connect, same TLS client,
//! same parser and limits.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::pool::{EndpointState, ProbeFailure};
use crate::snapshot::SnapshotCell;
use crate::upstream::{ConnectError, Connection, HeadLimits};

use super::{per_endpoint, request};

/// Asks an endpoint whether it is well.
#[async_trait]
pub trait Probe: Send + Sync + 'static {
    /// Has its answer by `deadline`; after that the prober drops it and takes it for
    /// [`ProbeFailure::TimedOut`].
    async fn probe(&self, endpoint: &EndpointState, deadline: Instant) -> Result<(), ProbeFailure>;
}

/// GET `health.path` on a fresh connection; well means a 2xx head. A fresh one, because an idle one
/// proves nothing of the listener.
#[derive(Debug, Default, Clone, Copy)]
pub struct HttpProbe;

#[async_trait]
impl Probe for HttpProbe {
    async fn probe(&self, endpoint: &EndpointState, deadline: Instant) -> Result<(), ProbeFailure> {
        let path = &endpoint.settings().health.path;
        let head = request::get(endpoint, path, "*/*").map_err(|_| ProbeFailure::Unsendable)?;
        let left = deadline.saturating_duration_since(Instant::now());
        let mut connection =
            Connection::connect(&endpoint.target, left)
                .await
                .map_err(|error| match error {
                    ConnectError::Refused => ProbeFailure::Refused,
                    ConnectError::TimedOut => ProbeFailure::ConnectTimedOut,
                    ConnectError::Busy => ProbeFailure::Busy,
                    ConnectError::Tls(_) | ConnectError::Io(_) => ProbeFailure::ConnectFailed,
                })?;
        let exchange = async {
            // An early answer makes the sending fail, and is an answer.
            let _ = connection.send(&head, &[]).await;
            connection.read_head(HeadLimits::default()).await
        };
        match timeout_at(deadline, exchange).await {
            Err(_) => Err(ProbeFailure::TimedOut),
            Ok(Err(_)) => Err(ProbeFailure::BadResponse),
            Ok(Ok(head)) if (200..300).contains(&head.status) => Ok(()),
            Ok(Ok(head)) => Err(ProbeFailure::Status(head.status)),
        }
    }
}

/// Probes every endpoint of the current snapshot once, all at the same time, and returns when each
/// has its verdict, `at_most` later at the latest. To be awaited before the gateway says it is
/// ready: a new endpoint is usable until a probe says otherwise, and this is that probe.
pub async fn first_round(cell: &SnapshotCell, probe: &Arc<dyn Probe>, at_most: Duration) {
    let one = |endpoint: Arc<EndpointState>| {
        let probe = Arc::clone(probe);
        async move { once(&endpoint, &*probe, at_most).await }
    };
    per_endpoint::once(cell, one).await;
}

/// Keeps one loop per endpoint going, as snapshots come and go, until `shutdown`.
pub async fn run(
    cell: Arc<SnapshotCell>,
    probe: Arc<dyn Probe>,
    shutdown: impl Future<Output = ()>,
) {
    let watch = |endpoint| watch(endpoint, Arc::clone(&probe));
    per_endpoint::keep(&cell, "a health check", watch, shutdown).await;
}

async fn watch(endpoint: Arc<EndpointState>, probe: Arc<dyn Probe>) {
    loop {
        let rescheduled = endpoint.rescheduled.notified();
        let Some(next) = endpoint.next_probe() else {
            rescheduled.await;
            continue;
        };
        tokio::select! {
            biased;
            () = sleep_until(next) => {
                let at_most = endpoint.settings().health.timeout;
                once(&endpoint, &*probe, at_most).await;
            }
            () = rescheduled => {}
        }
    }
}

async fn once(endpoint: &EndpointState, probe: &dyn Probe, at_most: Duration) {
    let at_most = at_most.min(endpoint.settings().health.timeout);
    let began = Instant::now();
    endpoint.probe_started(began);
    let verdict = timeout(at_most, probe.probe(endpoint, began + at_most)).await;
    endpoint.probed(
        verdict.unwrap_or(Err(ProbeFailure::TimedOut)),
        Instant::now(),
    );
}

#[cfg(test)]
mod tests;
