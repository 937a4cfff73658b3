//! Connections to one endpoint between two exchanges.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::connection::Connection;

/// The idle connections of one endpoint, last in, first out, so that a quiet endpoint keeps few of
/// them warm. Connections are closed outside the lock.
#[derive(Debug, Default)]
pub struct IdlePool {
    /// The longest idle at the front.
    idle: Mutex<VecDeque<Idle>>,
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
        loop {
            let mut picked = self.idle.lock().pop_back()?;
            if picked.is_fit(now, idle) {
                return Some(picked.connection);
            }
        }
    }

    /// Keeps a connection for the next exchange, if it is [reusable](Connection::reusable). Beyond
    /// `cap`, the longest idle ones are closed (nginx `keepalive`).
    pub fn put(&self, mut connection: Connection, now: Instant, cap: usize) {
        if cap == 0 || !connection.reusable() {
            return;
        }
        connection.renew();
        let mut idle = self.idle.lock();
        let beyond = (idle.len() + 1).saturating_sub(cap);
        let surplus: Vec<Idle> = idle.drain(..beyond).collect();
        idle.push_back(Idle {
            since: now,
            connection,
        });
        drop(idle);
        drop(surplus);
    }

    /// Closes the connections that [`take`](Self::take) would not give out; returns how many.
    pub fn sweep(&self, now: Instant, limit: Duration) -> usize {
        let mut unfit = Vec::new();
        let mut idle = self.idle.lock();
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
        drop(idle);
        unfit.len()
    }

    /// Closes all.
    pub fn clear(&self) {
        let all = std::mem::take(&mut *self.idle.lock());
        drop(all);
    }

    pub fn len(&self) -> usize {
        self.idle.lock().len()
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
