//! Clients that cost little: plain sockets, one task a connection, nothing allocated per answer.

use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::gateway::Caller;
use crate::load::{self, Schedule};

pub(super) const SHORT_PROMPT: usize = 60;

const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A chat request that asks for so many tokens.
pub(super) fn post(
    address: SocketAddr,
    caller: Caller,
    prompt_bytes: usize,
    max_tokens: usize,
    stream: bool,
) -> Vec<u8> {
    let prompt = load::prompt(prompt_bytes as u64, prompt_bytes);
    let model = caller.model;
    let body = format!(
        r#"{{"model":"{model}","messages":[{{"role":"user","content":"{prompt}"}}],"max_tokens":{max_tokens},"stream":{stream}}}"#
    );
    let authorization = (caller.key).map_or_else(String::new, |key| {
        format!("Authorization: Bearer {key}\r\n")
    });
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: {address}\r\nUser-Agent: loadtest\r\nAccept: */*\r\n\
         Content-Type: application/json\r\n{authorization}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// The same request, its connection closed by the server after the answer.
pub(super) fn closing(request: &[u8]) -> Vec<u8> {
    let head = memchr::memmem::find(request, b"\r\n\r\n").unwrap_or(request.len());
    [&request[..head], b"\r\nConnection: close", &request[head..]].concat()
}

/// Whether one request is answered with 200 now.
pub(super) async fn answers(address: SocketAddr, request: &[u8]) -> bool {
    let once = async {
        let mut stream = connect(address).await?;
        exchange(&mut stream, request, &mut Vec::new()).await
    };
    matches!(timeout(Duration::from_secs(2), once).await, Ok(Ok(_)))
}

async fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Sends a request and reads its answer to the end; an answer that is not 200 is an error. False when the
/// connection closes after it.
async fn exchange(stream: &mut TcpStream, request: &[u8], buffer: &mut Vec<u8>) -> Result<bool> {
    stream.write_all(request).await?;
    buffer.clear();
    loop {
        if stream.read_buf(buffer).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if let Some(end) = answer_end(buffer)?
            && buffer.len() >= end
        {
            return Ok(!closes(buffer));
        }
    }
}

/// Where the answer ends, once its head is there; `usize::MAX` while that is not known.
fn answer_end(buffer: &[u8]) -> Result<Option<usize>> {
    let Some(head) = memchr::memmem::find(buffer, b"\r\n\r\n") else {
        return Ok(None);
    };
    if buffer.get(9..12) != Some(b"200") {
        return Err(Error::other("not 200"));
    }
    let fields = &buffer[..head];
    let length = fields.split(|byte| *byte == b'\n').find_map(|line| {
        let (name, value) = line.split_at_checked(15)?;
        name.eq_ignore_ascii_case(b"content-length:")
            .then(|| std::str::from_utf8(value).ok()?.trim().parse().ok())?
    });
    Ok(match length {
        Some(length) => Some(head + 4 + usize::min(length, 1 << 30)),
        None if buffer.ends_with(b"\r\n0\r\n\r\n") => Some(buffer.len()),
        None => Some(usize::MAX),
    })
}

/// Whether the head of an answer announces the end of its connection.
fn closes(answer: &[u8]) -> bool {
    let head = memchr::memmem::find(answer, b"\r\n\r\n").unwrap_or(answer.len());
    answer[..head]
        .split(|byte| *byte == b'\n')
        .any(|line| line.trim_ascii().eq_ignore_ascii_case(b"connection: close"))
}

/// What clients count while they run.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Whole answers, or events.
    pub done: AtomicU64,
    pub failed: AtomicU64,
    /// Events that came in one read with another.
    pub merged: AtomicU64,
    /// Streams that have had an event.
    pub open: AtomicU64,
}

/// Clients at work; they stop when this is dropped.
pub(super) struct Clients {
    pub counts: Arc<Counts>,
    /// Microseconds: gaps between the events of a stream, recorded while `timing`; or latencies.
    pub times: Arc<Mutex<Histogram<u64>>>,
    pub timing: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

impl Clients {
    fn new() -> Self {
        let times = Histogram::new_with_bounds(1, 60_000_000, 3).expect("fixed bounds are valid");
        Self {
            counts: Arc::default(),
            times: Arc::new(Mutex::new(times)),
            timing: Arc::default(),
            tasks: JoinSet::new(),
        }
    }

    /// So many clients, each sends these requests in turn, the next when the last is answered, at most `limit` in all.
    pub(super) fn closed(
        address: SocketAddr,
        requests: &[Vec<u8>],
        clients: usize,
        keep_alive: bool,
        limit: u64,
    ) -> Self {
        let mut running = Self::new();
        let requests: Arc<[Vec<u8>]> = Arc::from(requests);
        let begun = Arc::new(AtomicU64::new(0));
        for _ in 0..clients {
            let (requests, begun) = (Arc::clone(&requests), Arc::clone(&begun));
            let counts = Arc::clone(&running.counts);
            running.tasks.spawn(async move {
                let (mut connection, mut buffer) = (None, Vec::with_capacity(4096));
                loop {
                    let number = begun.fetch_add(1, Relaxed);
                    if number >= limit {
                        return;
                    }
                    let request = &requests[number as usize % requests.len()];
                    let answer = one(address, &mut connection, request, &mut buffer);
                    if matches!(timeout(ANSWER_TIMEOUT, answer).await, Ok(Ok(()))) {
                        counts.done.fetch_add(1, Relaxed);
                    } else {
                        counts.failed.fetch_add(1, Relaxed);
                        // A gateway that refuses everything must not turn this into a busy loop.
                        sleep(Duration::from_millis(10)).await;
                    }
                    if !keep_alive {
                        connection = None;
                    }
                }
            });
        }
        running
    }

    /// Requests that begin on this schedule whatever the answers do, at most `limit` connections at a time. Their
    /// latencies count from when they should have begun.
    pub(super) fn open(
        address: SocketAddr,
        request: &[u8],
        schedule: Schedule,
        duration: Duration,
        limit: usize,
    ) -> Self {
        let mut running = Self::new();
        let request: Arc<[u8]> = Arc::from(request);
        let (counts, times) = (Arc::clone(&running.counts), Arc::clone(&running.times));
        running.tasks.spawn(async move {
            let idle = Arc::new(Mutex::new(Vec::new()));
            let slots = Arc::new(Semaphore::new(limit));
            let mut due = load::clock(schedule, Instant::now(), duration);
            let mut tasks = JoinSet::new();
            while let Some(intended) = due.recv().await {
                // Waiting here is charged to those who wait: their times are already running.
                let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
                    break;
                };
                while tasks.try_join_next().is_some() {}
                let (request, idle) = (Arc::clone(&request), Arc::clone(&idle));
                let (counts, times) = (Arc::clone(&counts), Arc::clone(&times));
                tasks.spawn(async move {
                    let mut connection = pop(&idle);
                    let mut buffer = Vec::with_capacity(1024);
                    let answer = one(address, &mut connection, &request, &mut buffer);
                    if matches!(timeout(ANSWER_TIMEOUT, answer).await, Ok(Ok(()))) {
                        counts.done.fetch_add(1, Relaxed);
                        record(&times, intended.elapsed());
                        lock(&idle).extend(connection);
                    } else {
                        counts.failed.fetch_add(1, Relaxed);
                    }
                    drop(slot);
                });
            }
            while tasks.join_next().await.is_some() {}
        });
        running
    }

    /// So many streams, opened over `ramp`, each read until this is dropped.
    pub(super) fn streams(
        address: SocketAddr,
        request: &[u8],
        streams: usize,
        ramp: Duration,
    ) -> Self {
        let mut running = Self::new();
        let request: Arc<[u8]> = Arc::from(request);
        for number in 0..streams {
            let request = Arc::clone(&request);
            let (counts, times, timing) = (
                Arc::clone(&running.counts),
                Arc::clone(&running.times),
                Arc::clone(&running.timing),
            );
            let delay = ramp.mul_f64(number as f64 / streams as f64);
            running.tasks.spawn(async move {
                sleep(delay).await;
                if read_stream(address, &request, &counts, &times, &timing)
                    .await
                    .is_err()
                {
                    counts.failed.fetch_add(1, Relaxed);
                }
            });
        }
        running
    }

    /// A quantile of the times, in milliseconds.
    pub(super) fn time(&self, quantile: f64) -> f64 {
        lock(&self.times).value_at_quantile(quantile) as f64 / 1e3
    }

    /// Waits until all have finished by themselves.
    pub(super) async fn finish(&mut self) {
        while self.tasks.join_next().await.is_some() {}
    }

    /// Waits until so many streams have had an event or failed.
    pub(super) async fn wait_for_open(&self, streams: u64, limit: Duration) {
        let start = Instant::now();
        let settled = || self.counts.open.load(Relaxed) + self.counts.failed.load(Relaxed);
        while settled() < streams && start.elapsed() < limit {
            sleep(Duration::from_millis(10)).await;
        }
    }

    pub(super) async fn stop(mut self) {
        self.tasks.abort_all();
        self.finish().await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn pop(idle: &Mutex<Vec<TcpStream>>) -> Option<TcpStream> {
    lock(idle).pop()
}

fn record(times: &Mutex<Histogram<u64>>, time: Duration) {
    lock(times).saturating_record((time.as_micros() as u64).max(1));
}

/// One request on the connection kept from before, or on a new one; it is kept for the next if that is allowed.
async fn one(
    address: SocketAddr,
    connection: &mut Option<TcpStream>,
    request: &[u8],
    buffer: &mut Vec<u8>,
) -> Result<()> {
    let mut stream = match connection.take() {
        Some(stream) => stream,
        None => connect(address).await?,
    };
    if exchange(&mut stream, request, buffer).await? {
        *connection = Some(stream);
    }
    Ok(())
}

/// Reads a stream for as long as it lasts, which should be for ever.
async fn read_stream(
    address: SocketAddr,
    request: &[u8],
    counts: &Counts,
    times: &Mutex<Histogram<u64>>,
    timing: &AtomicBool,
) -> Result<()> {
    let mut stream = connect(address).await?;
    stream.write_all(request).await?;
    let mut buffer = Vec::with_capacity(2048);
    let mut last: Option<Instant> = None;
    let mut ended_in_newline = false;
    loop {
        buffer.clear();
        if stream.read_buf(&mut buffer).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let events = count_events(&buffer, ended_in_newline);
        ended_in_newline = buffer.ends_with(b"\n");
        if events == 0 {
            continue;
        }
        let now = Instant::now();
        match last {
            None => _ = counts.open.fetch_add(1, Relaxed),
            Some(last) if timing.load(Relaxed) => {
                record(times, now - last);
            }
            Some(_) => {}
        }
        // The first read holds the role event and the first token, as the engine sent them.
        if last.is_some() {
            counts.merged.fetch_add(events - 1, Relaxed);
        }
        counts.done.fetch_add(events, Relaxed);
        last = Some(now);
    }
}

/// Ends of events in a piece of a stream. Nothing but an event's end has two newlines in a row: heads have
/// carriage returns between them, texts are escaped.
fn count_events(piece: &[u8], after_newline: bool) -> u64 {
    let inside = memchr::memmem::find_iter(piece, b"\n\n").count() as u64;
    inside + u64::from(after_newline && piece.first() == Some(&b'\n'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_an_answer_is_known_by_its_length_or_its_last_chunk() {
        let end = |text: &str| answer_end(text.as_bytes()).unwrap();
        assert_eq!(end("HTTP/1.1 200 OK\r\ncontent-le"), None);
        let head = "HTTP/1.1 200 OK\r\nX: y\r\ncontent-Length: 5\r\n\r\n";
        assert_eq!(end(&format!("{head}ab")), Some(head.len() + 5));
        assert_eq!(
            end("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n"),
            Some(usize::MAX)
        );
        let whole = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n";
        assert_eq!(end(whole), Some(whole.len()));
        assert!(answer_end(b"HTTP/1.1 502 Bad Gateway\r\n\r\n").is_err());
    }

    #[test]
    fn events_are_counted_over_the_seams_of_reads() {
        let wire = b"1a\r\ndata: {\"a\"}\n\n\r\n1a\r\ndata: {\"b\"}\n\n\r\n";
        for at in 1..wire.len() {
            let (a, b) = wire.split_at(at);
            assert_eq!(
                count_events(a, false) + count_events(b, a.ends_with(b"\n")),
                2,
                "cut at {at}"
            );
        }
    }
}
