//! Asks every endpoint what it serves (`GET /v1/models`): before the gateway says that it is ready, when
//! an endpoint comes (back) up, when there is another snapshot, and every minute.
//!
//! It goes over the gateway's own upstream leg, as the [prober](super::prober) does. What an endpoint
//! answers has no part in its health; one that is down, or answers with something else, is known by what it
//! said last.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::openai::models::Catalog;
use crate::pool::EndpointState;
use crate::snapshot::SnapshotCell;

use super::per_endpoint::{self, Whom, jittered};
use super::request::{self, Failure, Question};

const PATH: &str = "/v1/models";
/// Between two answers, give or take a tenth.
const EVERY: Duration = Duration::from_secs(60);
/// After the first failure in a row, doubling up to [`EVERY`].
const AFTER_FAILURE: Duration = Duration::from_secs(5);
/// How long the gateway's start waits after the probes for those that are still to answer.
const GRACE: Duration = Duration::from_millis(250);
/// Of an answer, in bytes.
const LONGEST: usize = 1 << 20;
/// Endpoints asked at the same time: so many answers may be in memory.
const AT_ONCE: usize = 64;

/// Asks an endpoint what it serves.
#[async_trait]
pub trait Ask: Send + Sync + 'static {
    /// Has its answer by `deadline`; after that it is dropped.
    async fn ask(&self, endpoint: &EndpointState, deadline: Instant) -> Result<Catalog, Failure>;
}

/// GET on a fresh connection.
#[derive(Debug, Default, Clone, Copy)]
pub struct HttpAsk;

#[async_trait]
impl Ask for HttpAsk {
    async fn ask(&self, endpoint: &EndpointState, deadline: Instant) -> Result<Catalog, Failure> {
        let question = Question {
            path: PATH,
            accept: "application/json",
            json: None,
        };
        let reply = request::ask(endpoint, question, deadline).await?;
        let answer = reply.whole(LONGEST).await?;
        Catalog::parse(&answer).map_err(|odd| Failure::Odd(odd.to_string()))
    }
}

/// Asks every endpoint of the current snapshot once, while `probes` go on and a moment longer, `at_most`
/// in all. To be awaited before the gateway says it is ready, so that its first answers know what there is.
pub async fn first_round(
    cell: &SnapshotCell,
    ask: &Arc<dyn Ask>,
    at_most: Duration,
    probes: impl Future<Output = ()>,
) {
    let deadline = Instant::now() + at_most;
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let one = |endpoint: Arc<EndpointState>| {
        let (ask, places) = (Arc::clone(ask), Arc::clone(&places));
        async move {
            if let Err(failure) = once(&endpoint, &*ask, &places).await {
                note(&endpoint, &failure);
            }
        }
    };
    let mut asking = pin!(per_endpoint::once(cell, one));
    let mut probes = pin!(probes);
    tokio::select! {
        () = &mut asking => return probes.await,
        () = &mut probes => {}
    }
    let left = deadline.saturating_duration_since(Instant::now());
    // Whoever takes longer is asked again when the gateway runs.
    let _ = timeout(left.min(GRACE), asking).await;
}

/// Keeps what is known of every endpoint up to date, as snapshots come and go, until `shutdown`.
pub async fn run(cell: Arc<SnapshotCell>, ask: Arc<dyn Ask>, shutdown: impl Future<Output = ()>) {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let follow = |endpoint| {
        let (ask, places) = (Arc::clone(&ask), Arc::clone(&places));
        follow(endpoint, ask, places, cell.changes())
    };
    per_endpoint::keep(
        &cell,
        Whom::Listed,
        "a look at an engine's models",
        follow,
        shutdown,
    )
    .await;
}

async fn follow(
    endpoint: Arc<EndpointState>,
    ask: Arc<dyn Ask>,
    places: Arc<Semaphore>,
    mut snapshots: watch::Receiver<u64>,
) {
    let mut wait = match endpoint.catalog.get() {
        Some(_) => jittered(EVERY),
        None => Duration::ZERO,
    };
    let mut after_failure = AFTER_FAILURE;
    let mut said_why = false;
    loop {
        tokio::select! {
            () = sleep(wait) => {}
            () = endpoint.recovered.notified() => {}
            changed = snapshots.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
        if !endpoint.is_up() {
            // Asked as soon as it is.
            wait = jittered(EVERY);
            continue;
        }
        let Err(failure) = once(&endpoint, &*ask, &places).await else {
            (wait, after_failure) = (jittered(EVERY), AFTER_FAILURE);
            continue;
        };
        wait = jittered(after_failure);
        after_failure = (after_failure * 2).min(EVERY);
        if let (Failure::Status(status @ (401 | 403)), false) = (&failure, said_why) {
            said_why = true;
            let name = &endpoint.settings().name;
            log::warn!(
                "endpoint {name} answers {status} to GET {PATH}, so what it serves is not known: give it its `api_key`"
            );
        } else {
            note(&endpoint, &failure);
        }
    }
}

/// Asks once; takes the answer, or leaves everything as it is.
async fn once(endpoint: &EndpointState, ask: &dyn Ask, places: &Semaphore) -> Result<(), Failure> {
    let _place = places.acquire().await;
    let settings = endpoint.settings();
    let deadline = Instant::now() + settings.health.timeout;
    let answer = timeout_at(deadline, ask.ask(endpoint, deadline)).await;
    let catalog = answer.unwrap_or(Err(Failure::TimedOut))?;
    endpoint.catalog.set(catalog, &settings.name);
    Ok(())
}

fn note(endpoint: &EndpointState, failure: &Failure) {
    let name = &endpoint.settings().name;
    log::debug!("endpoint {name} does not say what it serves: GET {PATH}: {failure}");
}

#[cfg(test)]
mod tests;
