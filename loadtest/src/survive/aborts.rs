//! Clients that leave, in every phase of a request: how soon their engine hears of it, and whether anything is
//! counted that is over.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{Error, Result};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;
use serde_json::json;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::SETTLES;
use super::gateway::Trial;
use super::watch;
use crate::compare::Gateway;
use crate::compare::gateway::Caller;
use crate::engine::{Engine, Script};

/// From the request to the first token: time in which to leave.
const TTFT: Duration = Duration::from_millis(40);
const ITL: Duration = Duration::from_millis(10);
/// Within which an engine must have heard of it, 99 times of 100.
const SOON_MS: f64 = 50.0;

/// A run.
#[derive(Debug, Clone)]
pub struct AbortSettings {
    pub gateway: Gateway,
    pub aborts: u64,
    pub engines: usize,
    /// Clients at the same time.
    pub clients: usize,
    /// Further keys of Sluicegate's pool, as YAML has them between braces.
    pub pool: String,
    /// For configurations and logs.
    pub directory: PathBuf,
}

/// When a client leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Half of the head was sent.
    Head,
    /// The head and half of the body.
    Body,
    /// Everything, and nothing came yet.
    Waiting,
    /// In the middle of a stream.
    Stream,
    /// Before an answer in one piece.
    Whole,
}

impl Phase {
    const ALL: [Self; 5] = [
        Self::Head,
        Self::Body,
        Self::Waiting,
        Self::Stream,
        Self::Whole,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Head => "in its head",
            Self::Body => "in its body",
            Self::Waiting => "before the first byte",
            Self::Stream => "in a stream",
            Self::Whole => "before a whole answer",
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, Serialize)]
pub struct Aborts {
    pub gateway: String,
    pub version: String,
    pub aborts: u64,
    pub seconds: f64,
    /// By phase: how many left, and how many of these an engine heard of.
    pub phases: Vec<(String, u64, u64)>,
    /// From a client's leaving to the end of its connection at the engine, in milliseconds.
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    /// Requests that the gateway, or an engine, still counted when all clients had left.
    pub left_over: u64,
    /// Bytes of bodies that the gateway still counted.
    pub body_bytes: u64,
    /// Clients that could not connect.
    pub refused: u64,
}

impl Aborts {
    pub fn survived(&self) -> bool {
        let is_clean = self.left_over == 0 && self.body_bytes == 0 && self.refused == 0;
        is_clean && self.p99_ms <= SOON_MS
    }

    pub fn markdown(&self) -> String {
        let mut text = format!(
            "| {} | left | heard of by an engine |\n|---|---:|---:|\n",
            self.gateway
        );
        for (phase, left, heard) in &self.phases {
            _ = writeln!(text, "| {phase} | {left} | {heard} |");
        }
        _ = writeln!(
            text,
            "\n{} aborts in {:.0} s; the engine's connection ended after {:.1} ms (p50), {:.1} ms (p99), {:.1} ms \
             (max); in flight afterwards: {}; bytes of bodies: {}; refused connections: {}",
            self.aborts,
            self.seconds,
            self.p50_ms,
            self.p99_ms,
            self.max_ms,
            self.left_over,
            self.body_bytes,
            self.refused
        );
        text
    }
}

/// Who left, and when.
#[derive(Debug, Default)]
struct Left {
    begun: AtomicU64,
    refused: AtomicU64,
    /// By request: the phase, and the moment.
    at: Mutex<HashMap<u64, (Phase, Instant)>>,
    counts: [AtomicU64; Phase::ALL.len()],
}

/// Runs all of them.
///
/// # Errors
/// What could not be started.
pub async fn aborts(settings: &AbortSettings, say: impl Fn(&str)) -> Result<Aborts> {
    let script = Script {
        ttft: TTFT,
        itl: ITL,
        tokens: 1000,
        departures: true,
        record: 0,
        ..Script::default()
    };
    let mut engines = Vec::new();
    for _ in 0..settings.engines.max(1) {
        engines.push(Engine::start(script.clone()).await?);
    }
    let trial = trial(settings, &engines).await?;
    let left = Arc::new(Left::default());
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..settings.clients.max(1) {
        let (left, address) = (Arc::clone(&left), trial.address);
        let (caller, aborts) = (settings.gateway.kind.caller(), settings.aborts);
        tasks.spawn(async move {
            loop {
                let number = left.begun.fetch_add(1, Relaxed);
                if number >= aborts {
                    return;
                }
                if leave(number, address, caller, &left).await.is_err() {
                    left.refused.fetch_add(1, Relaxed);
                    sleep(Duration::from_millis(10)).await;
                }
            }
        });
    }
    let mut heard = Heard::new();
    let mut said = 0;
    while !tasks.is_empty() {
        _ = timeout(Duration::from_millis(100), tasks.join_next()).await;
        heard.take(&engines, &left);
        let tenth = left.begun.load(Relaxed) * 10 / settings.aborts.max(1);
        if tenth > said {
            said = tenth;
            say(&format!(
                "{} aborts",
                left.begun.load(Relaxed).min(settings.aborts)
            ));
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let (left_over, body_bytes) = left_over(&engines, &trial).await;
    heard.take(&engines, &left);
    let quantile = |quantile| heard.times.value_at_quantile(quantile) as f64 / 1e3;
    Ok(Aborts {
        gateway: settings.gateway.name.clone(),
        version: settings.gateway.version(),
        aborts: settings.aborts,
        seconds,
        phases: (Phase::ALL.iter().zip(&left.counts).zip(heard.counts))
            .map(|((phase, left), heard)| (phase.name().to_owned(), left.load(Relaxed), heard))
            .collect(),
        p50_ms: quantile(0.5),
        p99_ms: quantile(0.99),
        max_ms: heard.times.max() as f64 / 1e3,
        left_over,
        body_bytes,
        refused: left.refused.load(Relaxed),
    })
}

/// Starting blocks until the gateway answers, which asks its engines, which run here.
async fn trial(settings: &AbortSettings, engines: &[Engine]) -> Result<Trial> {
    let addresses: Vec<_> = engines.iter().map(Engine::addr).collect();
    let (gateway, pool) = (settings.gateway.clone(), settings.pool.clone());
    let directory: PathBuf = Path::new(&settings.directory).join(&gateway.name);
    std::fs::create_dir_all(&directory)?;
    tokio::task::spawn_blocking(move || Trial::start(&gateway, addresses, &pool, &directory))
        .await
        .map_err(Error::other)?
}

/// What engines noticed.
struct Heard {
    /// Microseconds.
    times: Histogram<u64>,
    counts: [u64; Phase::ALL.len()],
}

impl Heard {
    fn new() -> Self {
        Self {
            times: Histogram::new_with_bounds(1, 60_000_000, 3).expect("fixed bounds are valid"),
            counts: [0; Phase::ALL.len()],
        }
    }

    fn take(&mut self, engines: &[Engine], left: &Left) {
        let mut at = left.at.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, noticed) in engines.iter().flat_map(Engine::take_departures) {
            let number = id.strip_prefix("abort-").and_then(|text| text.parse().ok());
            if let Some((phase, left)) = number.and_then(|number: u64| at.remove(&number)) {
                let time = noticed.saturating_duration_since(left);
                self.times
                    .saturating_record((time.as_micros() as u64).max(1));
                self.counts[phase as usize] += 1;
            }
        }
    }
}

/// One client: asks, and leaves when its phase has come.
async fn leave(number: u64, address: SocketAddr, caller: Caller, left: &Left) -> Result<()> {
    let mut random = fastrand::Rng::with_seed(number);
    let phase = Phase::ALL[random.usize(..Phase::ALL.len())];
    let mut stream = TcpStream::connect(address).await?;
    let (head, body) = request(number, address, caller, phase != Phase::Whole);
    let sent = match phase {
        Phase::Head => head[..head.len() / 2].to_owned(),
        Phase::Body => format!("{head}{}", &body[..body.len() / 2]),
        _ => format!("{head}{body}"),
    };
    stream.write_all(sent.as_bytes()).await?;
    if phase == Phase::Stream {
        let mut buffer = [0; 4096];
        _ = timeout(SETTLES, stream.read(&mut buffer)).await;
    }
    // Up to the first token; in a stream, anywhere between two.
    sleep(TTFT.mul_f64(random.f64() * 0.9)).await;
    let count = &left.counts[phase as usize];
    count.fetch_add(1, Relaxed);
    // Under the lock, so that the engine's word cannot be read before ours.
    let mut at = left.at.lock().unwrap_or_else(PoisonError::into_inner);
    match random.u8(..3) {
        // FIN, RST, and FIN while the other half stays open for a moment.
        0 => {}
        1 => SockRef::from(&stream).set_linger(Some(Duration::ZERO))?,
        _ => SockRef::from(&stream).shutdown(std::net::Shutdown::Write)?,
    }
    at.insert(number, (phase, Instant::now()));
    drop(stream);
    Ok(())
}

fn request(number: u64, address: SocketAddr, caller: Caller, stream: bool) -> (String, String) {
    let body = json!({
        "model": caller.model,
        "messages": [{ "role": "user", "content": format!("leaving {number}") }],
        "max_tokens": 500,
        "stream": stream,
    });
    let body = body.to_string();
    let key = (caller.key).map_or_else(String::new, |key| {
        format!("Authorization: Bearer {key}\r\n")
    });
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: {address}\r\nX-Request-Id: abort-{number}\r\n{key}\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    (head, body)
}

/// Requests in flight, and bytes of bodies, once there was time to notice the end.
async fn left_over(engines: &[Engine], trial: &Trial) -> (u64, u64) {
    let begun = Instant::now();
    loop {
        let of_engines: usize = engines.iter().map(Engine::in_flight).sum();
        let (admin, is_ours) = (trial.admin, trial.is_ours());
        let text = tokio::task::spawn_blocking(move || match is_ours {
            true => watch::get(admin, "/metrics").unwrap_or_default(),
            false => String::new(),
        });
        let text = text.await.unwrap_or_default();
        let own = watch::sum(&text, "sluicegate_endpoint_in_flight", "") as u64;
        let bytes = watch::sum(&text, "sluicegate_body_bytes", "") as u64;
        let left = own + of_engines as u64;
        if left + bytes == 0 || begun.elapsed() > SETTLES {
            return (left, bytes);
        }
        sleep(Duration::from_millis(20)).await;
    }
}
