//! Load: bounded, on loopback, with honest latencies.
//!
//! Under open arrivals every time is counted from when the request should have begun, so that a target that
//! stalls is charged for all who would have waited (coordinated omission). Texts are held against what the
//! simulated engine must say to the prompt; a stream that is cut, merged or repeated is a failure.

mod arrivals;
pub(crate) mod client;
mod exchange;
mod report;
pub(crate) mod sse;
pub(crate) mod target;
mod timeline;

use std::io::{Error, ErrorKind, Result};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hyper::{Request, Version};
use serde_json::json;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::engine::text::Context;
use client::Pool;
use exchange::{Failure, Sample, Template, exchange};
use report::Tally;
use target::Target;

pub(crate) use exchange::explain;

pub use arrivals::{Arrivals, Schedule, Spacing};
pub use report::{Curves, Report, Times};
pub use target::Trust;
pub use timeline::{Interval, Quantiles};

/// No run is longer.
pub const LONGEST_RUN: Duration = Duration::from_secs(3600);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Http10,
    Http11,
    /// Negotiated by ALPN on https, by prior knowledge on http.
    Http2,
}

/// What to send, how often, and when to stop.
#[derive(Debug, Clone)]
pub struct Plan {
    /// `http://HOST:PORT` or `https://…`; a path in it precedes the API's.
    pub url: String,
    pub arrivals: Arrivals,
    /// New requests begin for so long, at most [`LONGEST_RUN`].
    pub duration: Duration,
    /// At most so many requests begin.
    pub requests: u64,
    pub stream: bool,
    /// Size of the prompt.
    pub prompt_bytes: usize,
    pub max_tokens: Option<usize>,
    /// Sent as the model; `None` sends none.
    pub model: Option<String>,
    pub api_key: Option<String>,
    pub protocol: Protocol,
    pub keep_alive: bool,
    pub trust: Trust,
    /// Of one request, from its real start.
    pub timeout: Duration,
    /// Under open arrivals: requests beyond are counted as dropped.
    pub max_in_flight: usize,
    /// Of open arrivals and of the prompts.
    pub seed: u64,
    /// Hold the texts against the simulated engine's. Switch it off for other engines.
    pub verify: bool,
    /// Allow a target that is not this machine.
    pub allow_remote: bool,
}

impl Plan {
    /// 64 clients for 30 seconds, short prompts, not streamed.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            arrivals: Arrivals::Closed { clients: 64 },
            duration: Duration::from_secs(30),
            requests: u64::MAX,
            stream: false,
            prompt_bytes: 100,
            max_tokens: None,
            model: Some("DeepSeek-R1".to_owned()),
            api_key: None,
            protocol: Protocol::Http11,
            keep_alive: true,
            trust: Trust::default(),
            timeout: Duration::from_secs(60),
            max_in_flight: 10_000,
            seed: 1,
            verify: true,
            allow_remote: false,
        }
    }

    fn describe(&self) -> String {
        let kind = if self.stream { "streams" } else { "requests" };
        format!(
            "{} {kind}, {} byte prompts, to {}",
            self.arrivals, self.prompt_bytes, self.url
        )
    }

    /// The prompts take turns.
    fn templates(&self, target: &Target) -> Result<Vec<Template>> {
        (0..8).map(|number| self.template(target, number)).collect()
    }

    fn template(&self, target: &Target, number: u64) -> Result<Template> {
        let prompt = prompt(
            self.seed.wrapping_mul(31).wrapping_add(number),
            self.prompt_bytes,
        );
        let expected = self
            .verify
            .then(|| Context::chat([("user", prompt.as_str())]));
        let mut body =
            json!({ "messages": [{ "role": "user", "content": prompt }], "stream": self.stream });
        if let Some(model) = &self.model {
            body["model"] = json!(model);
        }
        if let Some(max_tokens) = self.max_tokens {
            body["max_tokens"] = json!(max_tokens);
        }
        let path = format!("{}/v1/chat/completions", target.prefix);
        let (uri, version) = match self.protocol {
            Protocol::Http10 => (path, Version::HTTP_10),
            Protocol::Http11 => (path, Version::HTTP_11),
            Protocol::Http2 => {
                let scheme = if target.tls.is_some() {
                    "https"
                } else {
                    "http"
                };
                (
                    format!("{scheme}://{}{path}", target.authority),
                    Version::HTTP_2,
                )
            }
        };
        let mut request = Request::post(uri)
            .version(version)
            .header("content-type", "application/json");
        if self.protocol != Protocol::Http2 {
            request = request.header("host", &target.authority);
            if self.keep_alive && self.protocol == Protocol::Http10 {
                request = request.header("connection", "keep-alive");
            } else if !self.keep_alive {
                request = request.header("connection", "close");
            }
        }
        if let Some(key) = &self.api_key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let request = request
            .body(())
            .map_err(|error| Error::new(ErrorKind::InvalidInput, error))?;
        Ok(Template {
            request,
            body: Bytes::from(body.to_string()),
            stream: self.stream,
            expected,
        })
    }
}

/// A text of so many bytes that no other seed has.
pub fn prompt(seed: u64, bytes: usize) -> String {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut text = format!("{seed:x}");
    while text.len() < bytes {
        text.push(' ');
        for _ in 0..random.usize(2..9) {
            text.push(random.lowercase());
        }
    }
    text.truncate(bytes.max(1));
    text
}

/// How far a run is, for a progress bar.
#[derive(Debug, Default)]
pub struct Progress {
    pub finished: AtomicU64,
    pub failed: AtomicU64,
}

struct Run {
    plan: Plan,
    pool: Pool,
    templates: Vec<Template>,
    tally: Mutex<Tally>,
    start: Instant,
    begun: AtomicU64,
    progress: Arc<Progress>,
}

/// Runs a plan to its end.
///
/// # Errors
/// When the plan is wrong or its target is not this machine. Requests that fail are in the report.
pub async fn run(plan: Plan) -> Result<Report> {
    run_with(plan, Arc::default()).await
}

/// [`run`], showing its progress.
///
/// # Errors
/// As [`run`].
pub async fn run_with(mut plan: Plan, progress: Arc<Progress>) -> Result<Report> {
    plan.duration = plan.duration.min(LONGEST_RUN);
    let http2 = plan.protocol == Protocol::Http2;
    let target = Target::resolve(&plan.url, &plan.trust, http2, plan.allow_remote)
        .map_err(|error| Error::new(ErrorKind::InvalidInput, error))?;
    let templates = plan.templates(&target)?;
    let pool = Pool::new(target, http2, plan.keep_alive);
    let (tally, begun) = (Mutex::new(Tally::new()), AtomicU64::new(0));
    let start = Instant::now();
    let run = Arc::new(Run {
        plan,
        pool,
        templates,
        tally,
        start,
        begun,
        progress,
    });
    match run.plan.arrivals {
        Arrivals::Closed { clients } => run.closed(clients, start).await,
        Arrivals::Open {
            per_second,
            spacing,
        } => {
            run.open(Schedule::new(per_second, spacing, run.plan.seed), start)
                .await
        }
    }
    let elapsed = start.elapsed();
    let tally = run.tally.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(tally.report(run.plan.describe(), elapsed, run.pool.totals()))
}

impl Run {
    async fn closed(self: &Arc<Self>, clients: usize, start: Instant) {
        let mut tasks = JoinSet::new();
        for _ in 0..clients {
            let run = Arc::clone(self);
            tasks.spawn(async move {
                while start.elapsed() < run.plan.duration {
                    let number = run.begun.fetch_add(1, Relaxed);
                    if number >= run.plan.requests {
                        break;
                    }
                    run.one(number, Instant::now()).await;
                }
            });
        }
        while tasks.join_next().await.is_some() {}
    }

    async fn open(self: &Arc<Self>, schedule: Schedule, start: Instant) {
        let slots = Arc::new(Semaphore::new(
            self.plan.max_in_flight.min(Semaphore::MAX_PERMITS),
        ));
        let mut tasks = JoinSet::new();
        let mut due = clock(schedule, start, self.plan.duration);
        while let Some(intended) = due.recv().await {
            let number = self.begun.fetch_add(1, Relaxed);
            if number >= self.plan.requests {
                break;
            }
            while tasks.try_join_next().is_some() {}
            let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
                self.count(&Sample {
                    failure: Some(Failure::Dropped),
                    ..Sample::default()
                });
                continue;
            };
            let run = Arc::clone(self);
            tasks.spawn(async move {
                run.one(number, intended).await;
                drop(slot);
            });
        }
        while tasks.join_next().await.is_some() {}
    }

    async fn one(&self, number: u64, intended: Instant) {
        let template = &self.templates[number as usize % self.templates.len()];
        let start = Instant::now();
        let sample = timeout(self.plan.timeout, exchange(&self.pool, template, intended)).await;
        let sample = sample.unwrap_or_else(|_| Sample {
            duration: intended.elapsed(),
            service: start.elapsed(),
            failure: Some(Failure::Timeout),
            ..Sample::default()
        });
        self.count(&sample);
    }

    fn count(&self, sample: &Sample) {
        self.progress.finished.fetch_add(1, Relaxed);
        if sample.failure.is_some() {
            self.progress.failed.fetch_add(1, Relaxed);
        }
        self.tally
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .add(sample, self.start.elapsed());
    }
}

/// Sends each time of the schedule when it has come. A thread of its own, because the runtime's timers are
/// a millisecond coarse, which is longer than what is measured.
pub(crate) fn clock(
    schedule: Schedule,
    start: Instant,
    duration: Duration,
) -> mpsc::UnboundedReceiver<Instant> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for at in schedule.take_while(|at| *at < duration) {
            let intended = start + at;
            let now = Instant::now();
            if intended > now {
                std::thread::sleep(intended - now);
            }
            // Closed: enough requests were sent.
            if sender.send(intended).is_err() {
                return;
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_have_their_size_and_differ() {
        for bytes in [1, 10, 1000, 220_000] {
            assert_eq!(prompt(1, bytes).len(), bytes);
        }
        assert_ne!(prompt(1, 50), prompt(2, 50));
    }
}
