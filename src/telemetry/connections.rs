//! Counts of the public listeners' connections and requests, as nginx's stub_status has them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counted for the life of the process; what is open is held by guards.
#[derive(Debug, Default)]
pub struct ConnectionCounts {
    accepts: AtomicU64,
    handled: AtomicU64,
    requests: AtomicU64,
    closed: AtomicU64,
    answered: AtomicU64,
    reading: AtomicU64,
}

/// An open connection; dropped when it closes.
#[derive(Debug)]
pub struct ConnectionGuard(Arc<ConnectionCounts>);

/// A request between its head and the end of its answer.
#[derive(Debug)]
pub struct RequestGuard(Arc<ConnectionCounts>);

/// The counts at one moment, consistent with each other.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Connections {
    pub accepts: u64,
    /// Accepted and served, not closed at once for a limit.
    pub handled: u64,
    pub requests: u64,
    pub active: u64,
    pub reading: u64,
    pub writing: u64,
    pub waiting: u64,
}

impl ConnectionCounts {
    /// A connection was accepted and is served.
    pub fn connection(self: &Arc<Self>) -> ConnectionGuard {
        self.accepts.fetch_add(1, Relaxed);
        self.handled.fetch_add(1, Relaxed);
        ConnectionGuard(Arc::clone(self))
    }

    /// A connection was accepted and closed at once, for a limit.
    pub fn refused_connection(&self) {
        self.accepts.fetch_add(1, Relaxed);
    }

    /// A request's head is complete.
    pub fn request(self: &Arc<Self>) -> RequestGuard {
        self.requests.fetch_add(1, Relaxed);
        RequestGuard(Arc::clone(self))
    }

    /// A head has begun to arrive.
    pub fn reading_began(&self) {
        self.reading.fetch_add(1, Relaxed);
    }

    /// It is complete, or its connection is gone.
    pub fn reading_ended(&self) {
        self.reading.fetch_sub(1, Relaxed);
    }

    /// Reads the counts. What is open is the difference of two counters that only grow, of which
    /// the smaller is read first; several h2 requests on one connection leave none waiting.
    pub fn now(&self) -> Connections {
        let (closed, answered) = (self.closed.load(Relaxed), self.answered.load(Relaxed));
        let (handled, requests) = (self.handled.load(Relaxed), self.requests.load(Relaxed));
        let active = handled.saturating_sub(closed);
        let writing = requests.saturating_sub(answered).min(active);
        let reading = self.reading.load(Relaxed).min(active - writing);
        Connections {
            accepts: self.accepts.load(Relaxed).max(handled),
            handled,
            requests,
            active,
            reading,
            writing,
            waiting: active - writing - reading,
        }
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.0.closed.fetch_add(1, Relaxed);
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.0.answered.fetch_add(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guards_give_back_what_they_took() {
        let counts = Arc::new(ConnectionCounts::default());
        let connections: Vec<_> = (0..3).map(|_| counts.connection()).collect();
        counts.refused_connection();
        let request = counts.request();
        let expected = Connections {
            accepts: 4,
            handled: 3,
            requests: 1,
            active: 3,
            reading: 0,
            writing: 1,
            waiting: 2,
        };
        assert_eq!(counts.now(), expected);
        drop((request, connections));
        let idle = Connections {
            active: 0,
            writing: 0,
            waiting: 0,
            ..expected
        };
        assert_eq!(counts.now(), idle);
    }

    #[test]
    fn many_requests_on_one_connection_leave_none_waiting() {
        let counts = Arc::new(ConnectionCounts::default());
        let _open = counts.connection();
        let _requests: Vec<_> = (0..5).map(|_| counts.request()).collect();
        let now = counts.now();
        assert_eq!((now.active, now.writing, now.waiting), (1, 1, 0));
    }
}
