//! Connections to one endpoint between two exchanges.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::connection::Connection;

/// Threads told apart; more share places.
const PLACES: usize = 16;

thread_local! {
    static PLACE: Cell<usize> = const { Cell::new(0) };
}

/// Says which worker this thread is. A connection is polled by the runtime that opened it, so one that
/// is reused on its own worker spares a wake-up across threads for every event.
pub fn set_worker(index: usize) {
    PLACE.set(index % PLACES);
}

/// The place of this thread's connections.
pub(super) fn place() -> usize {
    PLACE.get()
}

/// The idle connections of one endpoint, last in, first out, so that a quiet endpoint keeps few of
/// them warm; those of the same worker first. Connections are closed outside the lock.
#[derive(Debug, Default)]
pub struct IdlePool {
    /// By worker; the longest idle at the front.
    places: [Mutex<VecDeque<Idle>>; PLACES],
    count: AtomicUsize,
}

#[derive(Debug)]
struct Idle {
    since: Instant,
    connection: Connection,
}

impl IdlePool {
    pub fn new() -> Self {
        Self::default()
    }

    /// The connection that was used last, unless it has been idle for `idle` or longer, was closed
    /// by the peer, or has bytes waiting that no request asked for: those are closed, and the next
    /// is looked at.
    pub fn take(&self, now: Instant, idle: Duration) -> Option<Connection> {
        let own = place();
        for place in (0..PLACES).map(|step| (own + step) % PLACES) {
            while self.count.load(Relaxed) > 0 {
                let Some(mut picked) = self.places[place].lock().pop_back() else {
                    break;
                };
                self.count.fetch_sub(1, Relaxed);
                if picked.is_fit(now, idle) {
                    return Some(picked.connection);
                }
            }
        }
        None
    }

    /// Keeps a connection for the next exchange, if it is [reusable](Connection::reusable). Beyond
    /// `cap`, the longest idle ones of its worker are closed (nginx `keepalive`); if it has none, this
    /// one.
    pub fn put(&self, mut connection: Connection, now: Instant, cap: usize) {
        if cap == 0 || !connection.reusable() {
            return;
        }
        connection.renew();
        let mut idle = self.places[connection.place()].lock();
        idle.push_back(Idle {
            since: now,
            connection,
        });
        let count = self.count.fetch_add(1, Relaxed) + 1;
        let beyond = count.saturating_sub(cap).min(idle.len());
        let surplus: Vec<Idle> = idle.drain(..beyond).collect();
        self.count.fetch_sub(surplus.len(), Relaxed);
        drop(idle);
        drop(surplus);
    }

    /// Closes the connections that [`take`](Self::take) would not give out; returns how many.
    pub fn sweep(&self, now: Instant, limit: Duration) -> usize {
        let mut unfit = Vec::new();
        for place in &self.places {
            let mut idle = place.lock();
            for _ in 0..idle.len() {
                let Some(mut next) = idle.pop_front() else {
                    break;
                };
                if next.is_fit(now, limit) {
                    idle.push_back(next);
                } else {
                    unfit.push(next);
                }
            }
        }
        self.count.fetch_sub(unfit.len(), Relaxed);
        unfit.len()
    }

    /// Closes all.
    pub fn clear(&self) {
        for place in &self.places {
            let all = std::mem::take(&mut *place.lock());
            self.count.fetch_sub(all.len(), Relaxed);
        }
    }

    pub fn len(&self) -> usize {
        self.count.load(Relaxed)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Idle {
    fn is_fit(&mut self, now: Instant, limit: Duration) -> bool {
        now.saturating_duration_since(self.since) < limit && self.connection.is_silent()
    }
}

#[cfg(test)]
mod tests;
