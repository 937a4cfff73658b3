//! Clients that ask, read to the end, and ask again.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Incoming;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::answer::{Answer, End};
use super::ask::Ask;
use super::tally::Tally;
use crate::compare::gateway::Caller;
use crate::load::client::Pool;
use crate::load::explain;
use crate::load::sse::Splitter;
use crate::load::target::{Target, Trust};

/// After a failure: a gateway that refuses everything must not turn clients into busy loops.
const CALM: Duration = Duration::from_millis(200);
/// The finest clock there is.
const TICK: Duration = Duration::from_millis(1);

/// What all clients of a run share.
pub(super) struct Clients {
    caller: Caller,
    authority: String,
    /// Of streams, kept alive as a client library does.
    kept: Pool,
    /// A connection for each request.
    fresh: Pool,
    /// The longest silence that a client bears.
    patience: Duration,
    tokens: usize,
    stopping: AtomicBool,
    begun: AtomicU64,
    /// Streams that have had content and run.
    pub open: AtomicU64,
    pub tally: Mutex<Tally>,
}

impl Clients {
    pub(super) fn new(
        authority: &str,
        caller: Caller,
        patience: Duration,
        tokens: usize,
    ) -> Result<Arc<Self>, String> {
        let url = format!("http://{authority}");
        let target = Target::resolve(&url, &Trust::Any, false, false)?;
        Ok(Arc::new(Self {
            caller,
            authority: authority.to_owned(),
            kept: Pool::new(target.clone(), false, true),
            fresh: Pool::new(target, false, false),
            patience,
            tokens,
            stopping: AtomicBool::new(false),
            begun: AtomicU64::new(0),
            open: AtomicU64::new(0),
            tally: Mutex::default(),
        }))
    }

    /// No further request begins.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Relaxed);
    }

    /// So many clients, the first requests spread over `ramp`, each asking anew when it has its answer.
    pub(super) fn streams(self: &Arc<Self>, count: usize, ramp: Duration, tasks: &mut JoinSet<()>) {
        for number in 0..count {
            let clients = Arc::clone(self);
            let delay = ramp.mul_f64(number as f64 / count as f64);
            tasks.spawn(async move {
                sleep(delay).await;
                while !clients.stopping.load(Relaxed) {
                    let number = clients.begun.fetch_add(1, Relaxed);
                    let ask = Ask::stream(number, clients.caller, clients.tokens);
                    if clients.one(&ask, &clients.kept).await != End::Whole {
                        sleep(CALM).await;
                    }
                }
            });
        }
    }

    /// Short requests at this rate, each on a connection of its own, whatever became of those before.
    pub(super) fn connects(self: &Arc<Self>, per_second: f64, tasks: &mut JoinSet<()>) {
        if per_second <= 0.0 {
            return;
        }
        let clients = Arc::clone(self);
        tasks.spawn(async move {
            let mut running = JoinSet::new();
            let mut tick = tokio::time::interval(Duration::from_secs_f64(1.0 / per_second));
            while !clients.stopping.load(Relaxed) {
                tick.tick().await;
                while running.try_join_next().is_some() {}
                let clients = Arc::clone(&clients);
                running.spawn(async move {
                    let number = clients.begun.fetch_add(1, Relaxed);
                    let ask = Ask::short(number, clients.caller);
                    clients.one(&ask, &clients.fresh).await;
                });
            }
            while running.join_next().await.is_some() {}
        });
    }

    /// Requests with a model, a key or a path that nobody knows, each another one, evenly over this time.
    pub(super) fn junk(self: &Arc<Self>, count: u64, over: Duration, tasks: &mut JoinSet<()>) {
        let clients = Arc::clone(self);
        tasks.spawn(async move {
            let mut tick = tokio::time::interval((over / count.max(1) as u32).max(TICK));
            for number in 0..count {
                tick.tick().await;
                if clients.stopping.load(Relaxed) {
                    return;
                }
                let status = clients.junk_one(number).await.unwrap_or(0);
                let mut tally = clients.tally.lock().unwrap_or_else(PoisonError::into_inner);
                tally.add_junk(status);
            }
        });
    }

    async fn junk_one(&self, number: u64) -> Option<u16> {
        let mut ask = Ask::short(number, self.caller);
        let (mut key, mut path) = (
            self.caller.key.map(str::to_owned),
            ask.api.path().to_owned(),
        );
        match number % 3 {
            0 => {
                ask.body = ask
                    .body
                    .replace(self.caller.model, &format!("junk-{number}"))
            }
            1 => key = Some(format!("sk-junk-{number}")),
            _ => path = format!("/v1/junk/{number}"),
        }
        let request = self.request(&ask, &path, key.as_deref(), false);
        let answer = async {
            let mut connection = self.kept.get().await.ok()?;
            let head = connection.send(request).await.ok()?;
            let status = head.status().as_u16();
            head.into_body().collect().await.ok()?;
            self.kept.put(connection).await;
            Some(status)
        };
        timeout(self.patience, answer).await.ok()?
    }

    async fn one(&self, ask: &Ask, pool: &Pool) -> End {
        let start = Instant::now();
        let mut answer = Answer::new(&ask.expected, start);
        let broken = self.exchange(ask, pool, &mut answer).await;
        let end = match broken {
            Err(end) => end,
            Ok(broken) => answer.end(broken, ask.stream, Instant::now()),
        };
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        tally.add(ask.stream, &end, answer.longest_silence);
        end
    }

    /// Asks and reads; how the body ended, or why there was none.
    async fn exchange(
        &self,
        ask: &Ask,
        pool: &Pool,
        answer: &mut Answer<'_>,
    ) -> Result<Option<String>, End> {
        let (head, connection) = loop {
            let mut connection = pool
                .get()
                .await
                .map_err(|error| End::Refused(error.to_string()))?;
            let closes = std::ptr::eq(pool, &self.fresh);
            let request = self.request(ask, ask.api.path(), self.caller.key, closes);
            let sent = connection.send(request);
            match timeout(self.patience, sent).await {
                Err(_) => return Err(End::Lost(format!("no answer for {:?}", self.patience))),
                // A kept connection that had been closed meanwhile: nothing was sent.
                Ok(Err(error)) if connection.connect.is_none() && error.is_canceled() => {}
                Ok(Err(error)) => return Err(End::Lost(explain(&error))),
                Ok(Ok(head)) => break (head, connection),
            }
        };
        let status = head.status();
        let mut body = head.into_body();
        if status != 200 {
            let text = whole(&mut body).await;
            return Err(End::Lost(format!("{status}: {text}")));
        }
        let broken = if ask.stream {
            self.read_stream(&mut body, answer).await
        } else {
            let read = timeout(self.patience, body.collect()).await;
            match read {
                Ok(Ok(body)) => {
                    answer.take(&body.to_bytes(), Instant::now());
                    None
                }
                Ok(Err(error)) => Some(explain(&error)),
                Err(_) => Some("silence".to_owned()),
            }
        };
        if broken.is_none() {
            pool.put(connection).await;
        }
        Ok(broken)
    }

    async fn read_stream(&self, body: &mut Incoming, answer: &mut Answer<'_>) -> Option<String> {
        let mut splitter = Splitter::default();
        let _open = Open::new(&self.open);
        loop {
            // Comments keep a connection alive, not a client's patience.
            match timeout_at(answer.last + self.patience, body.frame()).await {
                Err(_) => return Some(format!("silence for {:?}", self.patience)),
                Ok(None) if splitter.is_inside_event() => {
                    return Some("it ends inside an event".to_owned());
                }
                Ok(None) => return None,
                Ok(Some(Err(error))) => return Some(explain(&error)),
                Ok(Some(Ok(frame))) => {
                    let now = Instant::now();
                    if let Some(data) = frame.data_ref() {
                        splitter.feed(data, |event| answer.take(event, now));
                    }
                }
            }
        }
    }

    fn request(
        &self,
        ask: &Ask,
        path: &str,
        key: Option<&str>,
        closes: bool,
    ) -> Request<Full<Bytes>> {
        let mut request = Request::post(path)
            .header("host", &self.authority)
            .header("content-type", "application/json");
        if let Some(key) = key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        if closes {
            request = request.header("connection", "close");
        }
        let body = Full::new(Bytes::from(ask.body.clone()));
        // Nothing in it is from outside.
        request.body(body).unwrap_or_default()
    }
}

async fn whole(body: &mut Incoming) -> String {
    match timeout(CALM, body.collect()).await {
        Ok(Ok(body)) => {
            let bytes = body.to_bytes();
            String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned()
        }
        _ => String::new(),
    }
}

struct Open<'a>(&'a AtomicU64);

impl<'a> Open<'a> {
    fn new(count: &'a AtomicU64) -> Self {
        count.fetch_add(1, Relaxed);
        Self(count)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
