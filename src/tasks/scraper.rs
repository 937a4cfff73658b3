//! Asks the engines how loaded they are, every few seconds: vLLM and SGLang by their `/metrics`, SGLang also by
//! `/v1/loads`, which needs no switch there. Other endpoints are not asked.
//!
//! What an endpoint says has no part in its health but for one thing: while its tokens go on being counted, it is
//! not [hung](super::hung).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout_at};

use crate::config::Engine;
use crate::engine::{Exposition, Load};
use crate::pool::{EndpointState, Settings};
use crate::snapshot::SnapshotCell;

use super::per_endpoint::{self, Whom, jittered};
use super::request::{self, Failure, Question};

/// Between two reports, give or take a tenth. Sooner where `health.stall` is short: what stands still for that long
/// has to be seen standing a few times.
const EVERY: Duration = Duration::from_secs(3);
const LOOKS_IN_A_STALL: u32 = 5;
const SOONEST: Duration = Duration::from_millis(20);
/// After a failure, doubling up to [`SELDOM`].
const AFTER_FAILURE: Duration = Duration::from_secs(5);
/// Where there is no such page, it may be there after the engine's next start.
const SELDOM: Duration = Duration::from_secs(300);
/// Of a page, in bytes; vLLM's has 72 KB a scheduler, and is not kept.
const LONGEST_PAGE: usize = 16 << 20;
/// Of an answer of `/v1/loads`, in bytes.
const LONGEST_LOADS: usize = 256 << 10;
/// Endpoints asked at the same time.
const AT_ONCE: usize = 64;

/// Where an engine says how loaded it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    Metrics,
    Loads,
}

impl Page {
    fn path(self) -> &'static str {
        match self {
            Self::Metrics => "/metrics",
            Self::Loads => "/v1/loads",
        }
    }

    /// Those that an engine may have, the better last. A hung scheduler keeps `/v1/loads` waiting.
    fn of(engine: Option<Engine>) -> &'static [Self] {
        match engine {
            Some(Engine::Vllm) => &[Self::Metrics],
            Some(Engine::Sglang) => &[Self::Metrics, Self::Loads],
            Some(Engine::OpenAi) | None => &[],
        }
    }
}

/// Asks an endpoint for one of its pages.
#[async_trait]
pub trait Scrape: Send + Sync + 'static {
    /// Has its answer by `deadline`; after that it is dropped.
    async fn scrape(
        &self,
        endpoint: &EndpointState,
        page: Page,
        deadline: Instant,
    ) -> Result<Load, Failure>;
}

/// GET on a fresh connection.
#[derive(Debug, Default, Clone, Copy)]
pub struct HttpScrape;

#[async_trait]
impl Scrape for HttpScrape {
    async fn scrape(
        &self,
        endpoint: &EndpointState,
        page: Page,
        deadline: Instant,
    ) -> Result<Load, Failure> {
        let accept = match page {
            Page::Metrics => "text/plain",
            Page::Loads => "application/json",
        };
        let question = Question {
            path: page.path(),
            accept,
            json: None,
        };
        let reply = request::ask(endpoint, question, deadline).await?;
        match page {
            Page::Metrics if reply.head.status == 200 => {
                let mut exposition = Exposition::new();
                let read = reply.read(LONGEST_PAGE, |piece| exposition.feed(piece));
                read.await?;
                Ok(exposition.finish())
            }
            Page::Metrics => Err(Failure::Status(reply.head.status)),
            Page::Loads => {
                let answer = reply.whole(LONGEST_LOADS).await?;
                Load::of_loads(&answer).map_err(|odd| Failure::Odd(odd.to_string()))
            }
        }
    }
}

/// Keeps every endpoint's report up to date, as snapshots come and go, until `shutdown`.
pub async fn run(
    cell: Arc<SnapshotCell>,
    scrape: Arc<dyn Scrape>,
    shutdown: impl Future<Output = ()>,
) {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let follow = |endpoint| follow(endpoint, Arc::clone(&scrape), Arc::clone(&places));
    per_endpoint::keep(
        &cell,
        Whom::HoldingToo,
        "a look at an engine's load",
        follow,
        shutdown,
    )
    .await;
}

async fn follow(endpoint: Arc<EndpointState>, scrape: Arc<dyn Scrape>, places: Arc<Semaphore>) {
    let mut sources = [Page::Metrics, Page::Loads].map(Source::new);
    loop {
        let settings = endpoint.settings();
        sleep(jittered(every(settings.health.stall))).await;
        let pages = Page::of(endpoint.engine());
        // Those who hold requests are asked also while they are out: they may be working on them.
        if !endpoint.is_up() && endpoint.in_flight() == 0 {
            continue;
        }
        let mut said = None;
        // What has gone on, had by then.
        let asked = Instant::now();
        for source in &mut sources {
            if !pages.contains(&source.page) || Instant::now() < source.next {
                continue;
            }
            let _place = places.acquire().await;
            let deadline = Instant::now() + settings.health.timeout;
            let answer = timeout_at(deadline, scrape.scrape(&endpoint, source.page, deadline));
            match answer.await.unwrap_or(Err(Failure::TimedOut)) {
                Ok(load) => {
                    source.after_failure = AFTER_FAILURE;
                    said = Some(said.map_or(load, |before| load.or(before)));
                }
                Err(failure) => source.failed(&failure, &settings),
            }
        }
        if let Some(load) = said {
            endpoint.report.set(load, asked);
        }
    }
}

fn every(stall: Duration) -> Duration {
    EVERY.min(stall / LOOKS_IN_A_STALL).max(SOONEST)
}

/// One of an endpoint's pages, and when it may be asked for.
struct Source {
    page: Page,
    next: Instant,
    after_failure: Duration,
}

impl Source {
    fn new(page: Page) -> Self {
        Self {
            page,
            next: Instant::now(),
            after_failure: AFTER_FAILURE,
        }
    }

    fn failed(&mut self, failure: &Failure, settings: &Settings) {
        let (name, path) = (&settings.name, self.page.path());
        log::debug!("endpoint {name} does not say how loaded it is: GET {path}: {failure}");
        let wait = match failure {
            // It does not have the page, or does not show it to us.
            Failure::Status(400..=499) => SELDOM,
            // Whether it hangs is judged by what it counted within `stall`.
            _ => self.after_failure.min(settings.health.stall),
        };
        self.after_failure = (self.after_failure * 2).min(SELDOM);
        self.next = Instant::now() + jittered(wait);
    }
}

#[cfg(test)]
mod tests;
