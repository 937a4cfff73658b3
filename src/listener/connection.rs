//! What is known about one client connection, shared by its socket, its requests and its deadline.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::config::Limits;
use crate::telemetry::ConnectionCounts;
use crate::telemetry::connections::{ConnectionGuard, RequestGuard};

use super::ending::Ending;

/// A deadline may be late by this part of its timeout.
const SLACK: u64 = 8;

/// A head over its limit is answered with 431 up to twice the limit and this; what goes on is closed.
const HEAD_SLACK: u64 = 64 * 1024;

/// Whom a listener serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Public,
    Admin,
}

/// What a connection is doing, as nginx's stub_status counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Between requests, or fresh and silent.
    Waiting = 0,
    /// A request head has begun to arrive.
    Reading = 1,
    /// At least one request is being answered.
    Writing = 2,
}

/// What becomes of the bytes written to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Writes {
    /// They gather until a flush.
    Gathered = 0,
    /// Flushes are held back too, so that a head and the bytes behind it leave together.
    Held = 1,
    /// They are sent at once: Pingora does not flush between the pieces of a body with a length.
    Prompt = 2,
}

/// One client connection. Every request on it, h1 or h2, finds it through the socket's digest.
#[derive(Debug)]
pub struct Connection {
    pub role: Role,
    /// `None` for a Unix socket.
    pub peer: Option<SocketAddr>,
    pub tls: bool,
    header_timeout_ms: AtomicU32,
    phase: AtomicU8,
    requests: AtomicU32,
    /// Milliseconds since the process clock began; 0 = no deadline.
    deadline_ms: AtomicU64,
    /// When [`Self::outstayed`] looks again.
    looks_ms: AtomicU64,
    /// Tells it to look now.
    sooner: Notify,
    /// Bytes handed to the session that reads requests, and those of them that are known to be of requests
    /// that were read.
    delivered: AtomicU64,
    accounted: AtomicU64,
    /// What was delivered when the head that is being read began, and what may come until it is whole.
    head_from: AtomicU64,
    head_bytes: u64,
    writes: AtomicU8,
    reset_on_close: AtomicBool,
    http2: AtomicBool,
    /// At least one request was answered.
    has_served: AtomicBool,
    draining: AtomicBool,
    /// It is not kept for a next request.
    is_last: AtomicBool,
    /// Only of the public listeners, as stub_status counts them.
    counts: Option<Arc<ConnectionCounts>>,
    _open: Option<ConnectionGuard>,
}

impl Connection {
    pub fn new(
        role: Role,
        peer: Option<SocketAddr>,
        tls: bool,
        header_timeout: Duration,
        limits: &Limits,
        counts: Option<Arc<ConnectionCounts>>,
    ) -> Self {
        let connection = Self {
            role,
            peer,
            tls,
            header_timeout_ms: AtomicU32::new(clamp_ms(header_timeout)),
            phase: AtomicU8::new(Phase::Waiting as u8),
            requests: AtomicU32::new(0),
            deadline_ms: AtomicU64::new(0),
            looks_ms: AtomicU64::new(0),
            sooner: Notify::new(),
            delivered: AtomicU64::new(0),
            accounted: AtomicU64::new(0),
            head_from: AtomicU64::new(0),
            head_bytes: (limits.header as u64).saturating_mul(2) + HEAD_SLACK,
            writes: AtomicU8::new(Writes::Gathered as u8),
            reset_on_close: AtomicBool::new(false),
            http2: AtomicBool::new(false),
            has_served: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            is_last: AtomicBool::new(false),
            _open: counts.as_ref().map(ConnectionCounts::connection),
            counts,
        };
        connection.close_after(header_timeout);
        connection
    }

    /// Bytes have arrived while no request was known: a head begins, and must be whole in time.
    pub(super) fn bytes_arrived(&self, bytes: usize) {
        let before = self.delivered.fetch_add(bytes as u64, Relaxed);
        // Between its requests an h2 client sends frames (PING, WINDOW_UPDATE) that begin none.
        let may_begin = !(self.http2.load(Relaxed) && self.has_served.load(Relaxed));
        if may_begin && self.phase.load(Relaxed) == Phase::Waiting as u8 {
            self.phase.store(Phase::Reading as u8, Relaxed);
            self.head_from.store(before, Relaxed);
            if let Some(counts) = &self.counts {
                counts.reading_began();
            }
            let timeout = u64::from(self.header_timeout_ms.load(Relaxed));
            self.close_after(Duration::from_millis(timeout));
        }
    }

    /// A whole request head is here: no deadline of ours runs while it is answered.
    pub fn request_started(&self, header_timeout: Duration) {
        self.header_timeout_ms
            .store(clamp_ms(header_timeout), Relaxed);
        if self.requests.fetch_add(1, Relaxed) == 0 {
            self.leave(self.phase.swap(Phase::Writing as u8, Relaxed));
            self.deadline_ms.store(0, Relaxed);
        }
    }

    /// `bytes` of what was handed to the session are of a request that was read. Fewer than there were is
    /// no harm.
    pub fn account(&self, bytes: usize) {
        self.accounted.fetch_add(bytes as u64, Relaxed);
    }

    /// How many bytes the session may hold beyond the requests accounted for, at most.
    pub fn ahead(&self) -> usize {
        let delivered = self.delivered.load(Relaxed);
        let ahead = delivered.saturating_sub(self.accounted.load(Relaxed));
        usize::try_from(ahead).unwrap_or(usize::MAX)
    }

    /// A head has come to many times its limit and has not ended: Pingora would hold up to 1 MiB of it.
    pub(super) fn head_is_endless(&self) -> bool {
        let bytes = || self.delivered.load(Relaxed) - self.head_from.load(Relaxed);
        self.phase.load(Relaxed) == Phase::Reading as u8
            && !self.http2.load(Relaxed)
            && bytes() > self.head_bytes
    }

    /// Counts one more request, until the guard is dropped.
    pub fn count_request(&self) -> Option<RequestGuard> {
        self.counts.as_ref().map(ConnectionCounts::request)
    }

    /// The last request in hand is done: the connection may idle for `idle_timeout`.
    pub fn request_finished(&self, idle_timeout: Duration) {
        self.has_served.store(true, Relaxed);
        if self.requests.fetch_sub(1, Relaxed) == 1 {
            self.leave(self.phase.swap(Phase::Waiting as u8, Relaxed));
            self.close_after(idle_timeout);
        }
    }

    /// From now on. All requests of an h2 connection share it, so there it stays as it is.
    pub fn set_writes(&self, writes: Writes) {
        self.writes.store(writes as u8, Relaxed);
    }

    pub(super) fn writes(&self) -> Writes {
        match self.writes.load(Relaxed) {
            0 => Writes::Gathered,
            1 => Writes::Held,
            _ => Writes::Prompt,
        }
    }

    /// Ends the connection with RST in place of FIN: the only way to tell an HTTP/1.0 client that a
    /// close-delimited answer is not whole.
    pub fn reset_on_close(&self) {
        self.reset_on_close.store(true, Relaxed);
    }

    pub(super) fn must_reset(&self) -> bool {
        self.reset_on_close.load(Relaxed)
    }

    pub fn phase(&self) -> Phase {
        match self.phase.load(Relaxed) {
            0 => Phase::Waiting,
            1 => Phase::Reading,
            _ => Phase::Writing,
        }
    }

    pub(super) fn speaks_http2(&self) {
        self.http2.store(true, Relaxed);
    }

    /// The gateway takes no new connections: an answer whose head is yet to be sent is the connection's last.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    /// So is one whose head was sent: the connection closes behind it, though its client has not been told.
    pub fn closes_unannounced(&self) -> bool {
        self.is_last.load(Relaxed)
    }

    /// Nothing more is to come. A connection that has not had its first request may have it on the way,
    /// and an h2 client is told by GOAWAY.
    pub(super) fn is_over(&self) -> bool {
        self.closes_unannounced()
            && self.has_served.load(Relaxed)
            && self.phase() == Phase::Waiting
            && !self.http2.load(Relaxed)
    }

    /// Notes when the gateway comes to its end; never resolves.
    pub(super) async fn end_with(&self, mut ending: watch::Receiver<Ending>) {
        // An error means that the sender is gone, and the worker with it.
        let _ = ending.wait_for(|ending| *ending != Ending::No).await;
        self.draining.store(true, Relaxed);
        let _ = ending.wait_for(|ending| *ending == Ending::Stopping).await;
        self.is_last.store(true, Relaxed);
        // The task is polled once more, so that a read that waits for the next request ends.
        tokio::task::yield_now().await;
        std::future::pending().await
    }

    /// Resolves once the connection has outstayed a deadline.
    pub(super) async fn outstayed(&self) {
        loop {
            let now = clock_ms();
            let deadline = self.deadline_ms.load(Relaxed);
            if deadline != 0 && deadline <= now {
                return;
            }
            // With no deadline set we look again after the shortest one that could be set meanwhile.
            let wait = match deadline {
                0 => u64::from(self.header_timeout_ms.load(Relaxed)).clamp(50, 5_000),
                _ => deadline - now,
            };
            self.looks_ms.store(now + wait, Relaxed);
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(wait)) => {}
                () = self.sooner.notified() => {}
            }
        }
    }

    fn close_after(&self, timeout: Duration) {
        let timeout = u64::from(clamp_ms(timeout)).max(1);
        let deadline = clock_ms().saturating_add(timeout);
        self.deadline_ms.store(deadline, Relaxed);
        // A timer that is a little late is not worth a wake-up for every request.
        if self.looks_ms.load(Relaxed) > deadline.saturating_add(timeout / SLACK) {
            self.sooner.notify_one();
        }
    }

    fn leave(&self, phase: u8) {
        if phase == Phase::Reading as u8
            && let Some(counts) = &self.counts
        {
            counts.reading_ended();
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.leave(self.phase.load(Relaxed));
    }
}

fn clamp_ms(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

/// Milliseconds since the first call, never 0.
fn clock_ms() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let elapsed = Instant::now().saturating_duration_since(*START.get_or_init(Instant::now));
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX - 1) + 1
}

/// Open connections per client (see [`super::one_client`]), kept only while `limits.connections_per_client` is set.
#[derive(Debug, Default)]
pub struct ClientCounts(Mutex<HashMap<IpAddr, usize>>);

/// One client's claim on a connection; given back when dropped.
#[derive(Debug)]
pub struct ClientClaim(Arc<ClientCounts>, IpAddr);

impl ClientCounts {
    /// `None` when the client already has `limit` connections.
    pub fn claim(self: &Arc<Self>, client: IpAddr, limit: usize) -> Option<ClientClaim> {
        let mut open = self.0.lock();
        let count = open.entry(client).or_insert(0);
        if *count >= limit {
            return None;
        }
        *count += 1;
        Some(ClientClaim(Arc::clone(self), client))
    }
}

impl Drop for ClientClaim {
    fn drop(&mut self) {
        let mut open = self.0.0.lock();
        if let Some(count) = open.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(60);

    fn connection() -> Connection {
        let yaml = "endpoints: [a:1]\nlimits: { header: 2KiB }";
        let base = std::path::Path::new(".");
        let config = crate::config::parse_str(yaml, "a.yaml", base, &|_| None).unwrap();
        Connection::new(Role::Public, None, false, TIMEOUT, &config.limits, None)
    }

    #[test]
    fn bytes_between_requests_begin_a_head_but_on_an_h2_connection_that_has_served() {
        for (http2, expected) in [(false, Phase::Reading), (true, Phase::Waiting)] {
            let connection = connection();
            if http2 {
                connection.speaks_http2();
            }
            connection.bytes_arrived(10);
            assert_eq!(connection.phase(), Phase::Reading);
            connection.request_started(TIMEOUT);
            assert_eq!(connection.phase(), Phase::Writing);
            connection.request_finished(TIMEOUT);
            connection.bytes_arrived(10);
            assert_eq!(connection.phase(), expected, "http2: {http2}");
        }
    }

    #[test]
    fn what_is_ahead_is_never_less_than_what_was_delivered_and_not_used() {
        let connection = connection();
        connection.bytes_arrived(150);
        connection.account(100);
        assert_eq!(connection.ahead(), 50);
        connection.account(50);
        connection.bytes_arrived(20);
        assert_eq!(connection.ahead(), 20);
    }

    #[test]
    fn the_connections_of_one_network_are_one_clients() {
        let clients = Arc::new(ClientCounts::default());
        let claim =
            |address: &str| clients.claim(super::super::one_client(address.parse().unwrap()), 2);
        let first = claim("2001:db8::1").unwrap();
        let _second = claim("2001:db8::ffff:2").unwrap();
        assert!(claim("2001:db8::3").is_none());
        let _other = claim("2001:db8:0:1::3").unwrap();
        drop(first);
        assert!(claim("2001:db8::4").is_some());
    }

    #[test]
    fn a_head_is_endless_by_its_own_bytes_not_by_those_of_requests_before() {
        let connection = connection();
        for _ in 0..3 {
            connection.bytes_arrived(10);
            connection.request_started(TIMEOUT);
            connection.bytes_arrived(1 << 20);
            connection.request_finished(TIMEOUT);
            assert!(!connection.head_is_endless());
        }
        connection.bytes_arrived(4096 + 64 * 1024);
        assert!(!connection.head_is_endless());
        connection.bytes_arrived(1);
        assert!(connection.head_is_endless());
    }
}
