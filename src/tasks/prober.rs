//! Active health checks: asks every endpoint for `health.path`, when its
//! [health](crate::pool::health) says it is time, and one that has been out also for a proof that it serves.
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
use tokio::time::{Instant, sleep_until, timeout};

use crate::pool::{EndpointState, ProbeFailure};
use crate::snapshot::SnapshotCell;
use crate::upstream::ConnectError;

use super::canary::{self, Canary, HttpCanary, Sign};
use super::catalog::{Ask, HttpAsk};
use super::per_endpoint::{self, Whom};
use super::request::{self, Failure, Question};
use super::scraper::{HttpScrape, Page, Scrape};

/// No start waits longer for the first probes, whatever `health.timeout` allows one: systemd, and a process that is to
/// be replaced, wait for the start.
pub const FIRST_ROUND: Duration = Duration::from_secs(10);

/// Asks an endpoint whether it is well.
#[async_trait]
pub trait Probe: Send + Sync + 'static {
    /// Has its answer by `deadline`; after that the prober drops it and takes it for
    /// [`ProbeFailure::TimedOut`].
    async fn probe(&self, endpoint: &EndpointState, deadline: Instant) -> Result<(), ProbeFailure>;

    /// Asks an endpoint that is well, and has been out, to prove that it serves. Takes a few seconds at most.
    async fn prove(&self, endpoint: &EndpointState) -> Result<(), ProbeFailure>;
}

/// GET `health.path` on a fresh connection; well means a 2xx head. A fresh one, because an idle one
/// proves nothing of the listener.
#[derive(Debug, Default, Clone, Copy)]
pub struct HttpProbe;

#[async_trait]
impl Probe for HttpProbe {
    async fn probe(&self, endpoint: &EndpointState, deadline: Instant) -> Result<(), ProbeFailure> {
        let settings = endpoint.settings();
        let question = Question {
            path: &settings.health.path,
            accept: "*/*",
            json: None,
        };
        match request::ask(endpoint, question, deadline).await {
            Ok(reply) if (200..300).contains(&reply.head.status) => Ok(()),
            Ok(reply) => Err(ProbeFailure::Status(reply.head.status)),
            Err(failure) => Err(failure_of(&failure)),
        }
    }

    async fn prove(&self, endpoint: &EndpointState) -> Result<(), ProbeFailure> {
        prove(endpoint).await
    }
}

/// It must say what it serves and answer one [canary]; a refusal is an answer, and so is that its counters go on while
/// the canary waits behind what others sent. One that is not known for vLLM or SGLang is asked neither.
async fn prove(endpoint: &EndpointState) -> Result<(), ProbeFailure> {
    if !canary::may_be_sent(endpoint) {
        return Ok(());
    }
    let settings = endpoint.settings();
    let deadline = Instant::now() + settings.health.timeout;
    match HttpAsk.ask(endpoint, deadline).await {
        Ok(catalog) => endpoint.catalog.set(catalog, &settings.name),
        Err(Failure::Status(400..=499)) => {}
        Err(Failure::Connect(ConnectError::Busy)) => return Err(ProbeFailure::Busy),
        Err(_) => return Err(ProbeFailure::NoModels),
    }
    // It may be another one than before.
    if !canary::may_be_sent(endpoint) {
        return Ok(());
    }
    let figures = || async {
        let deadline = Instant::now() + settings.health.timeout;
        HttpScrape.scrape(endpoint, Page::Metrics, deadline).await
    };
    let before = figures().await;
    let deadline = Instant::now() + canary::patience(settings.health.stall);
    match HttpCanary.send(endpoint, deadline).await {
        Sign::Alive | Sign::Full => Ok(()),
        Sign::NotSent => Err(ProbeFailure::Busy),
        Sign::Refused => Err(ProbeFailure::Refused),
        Sign::Fails(_) => Err(ProbeFailure::NoCanary),
        Sign::Silent => match (before, figures().await) {
            (Ok(before), Ok(after)) if after.has_gone_on(&before) => Ok(()),
            _ => Err(ProbeFailure::NoCanary),
        },
    }
}

fn failure_of(failure: &Failure) -> ProbeFailure {
    match failure {
        Failure::Unsendable(_) => ProbeFailure::Unsendable,
        Failure::Connect(ConnectError::Refused) => ProbeFailure::Refused,
        Failure::Connect(ConnectError::TimedOut) => ProbeFailure::ConnectTimedOut,
        Failure::Connect(ConnectError::Unreachable(_)) => ProbeFailure::Unreachable,
        Failure::Connect(ConnectError::Busy) => ProbeFailure::Busy,
        Failure::Connect(ConnectError::Tls(_) | ConnectError::Io(_)) => ProbeFailure::ConnectFailed,
        Failure::TimedOut => ProbeFailure::TimedOut,
        Failure::Status(status) => ProbeFailure::Status(*status),
        Failure::Read(_) | Failure::TooLong(_) | Failure::Odd(_) => ProbeFailure::BadResponse,
    }
}

/// Probes every endpoint of the current snapshot once, all at the same time, and returns when each
/// has its verdict, or after [`FIRST_ROUND`]. To be awaited before the gateway says it is
/// ready: a new endpoint is usable until a probe says otherwise, and this is that probe.
pub async fn first_round(cell: &SnapshotCell, probe: &Arc<dyn Probe>) {
    let one = |endpoint: Arc<EndpointState>| {
        let probe = Arc::clone(probe);
        async move { once(&endpoint, &*probe).await }
    };
    let round = per_endpoint::once(cell, one);
    if timeout(FIRST_ROUND, round).await.is_err() {
        log::warn!(
            "endpoints have not answered their first probe within {} s; it goes on in service",
            FIRST_ROUND.as_secs()
        );
    }
}

/// Keeps one loop per endpoint going, as snapshots come and go, until `shutdown`.
pub async fn run(
    cell: Arc<SnapshotCell>,
    probe: Arc<dyn Probe>,
    shutdown: impl Future<Output = ()>,
) {
    let watch = |endpoint| watch(endpoint, Arc::clone(&probe));
    per_endpoint::keep(&cell, Whom::Listed, "a health check", watch, shutdown).await;
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
            () = sleep_until(next) => once(&endpoint, &*probe).await,
            () = rescheduled => {}
        }
    }
}

async fn once(endpoint: &EndpointState, probe: &dyn Probe) {
    let at_most = endpoint.settings().health.timeout;
    let began = Instant::now();
    endpoint.probe_started(began);
    let verdict = timeout(at_most, probe.probe(endpoint, began + at_most)).await;
    let mut verdict = verdict.unwrap_or(Err(ProbeFailure::TimedOut));
    if verdict.is_ok() && endpoint.would_be_let_in(Instant::now()) {
        verdict = probe.prove(endpoint).await;
    }
    endpoint.probed(verdict, Instant::now());
}

#[cfg(test)]
mod tests;
