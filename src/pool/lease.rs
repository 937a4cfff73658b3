use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use tokio::time::Instant;

use super::{Endpoint, Fault, Pool};

/// A request's place on an endpoint. The endpoint's in-flight count is one higher for exactly as
/// long as this exists, however the request ends: dropping is all it takes.
#[derive(Debug)]
#[must_use = "dropping the lease gives the place back"]
pub struct Lease {
    pool: Arc<Pool>,
    index: usize,
    /// Recalls of the endpoint that the request is not to be told of (any more).
    pub(super) recalls_seen: AtomicU32,
    is_answered: AtomicBool,
    was_lost: AtomicBool,
}

/// How an exchange with an endpoint ended, as far as the endpoint is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It answered well, to the end.
    Completed,
    /// It is at fault. A 5xx is reported through [`EndpointState::fault`](super::EndpointState::fault)
    /// later, when another endpoint has answered the same request well; until then it is neutral.
    Failed(Fault),
    /// Neither for nor against it: a 4xx, a full queue, a 5xx that nobody has disproved.
    Neutral,
    /// The client left.
    Abandoned,
}

impl Lease {
    /// The caller has counted it already, see [`EndpointState::take`](super::EndpointState).
    pub(super) fn new(pool: Arc<Pool>, index: usize) -> Self {
        let recalls = pool.endpoints[index].state.recalls.count();
        Self {
            pool,
            index,
            recalls_seen: AtomicU32::new(recalls),
            is_answered: AtomicBool::new(false),
            was_lost: AtomicBool::new(false),
        }
    }

    pub fn endpoint(&self) -> &Endpoint {
        &self.pool.endpoints[self.index]
    }

    /// Its place in the pool, for [`Tried::insert`](super::Tried::insert).
    pub fn index(&self) -> usize {
        self.index
    }

    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// The endpoint has begun to answer.
    pub fn answered(&self) {
        if !self.is_answered.swap(true, Ordering::Relaxed) {
            self.state.places.answered();
        }
    }

    /// The endpoint had the request, on a connection kept from before, and closed it without a word.
    pub fn lost(&self) {
        self.was_lost.store(true, Ordering::Relaxed);
    }

    /// See [`Self::lost`].
    pub fn was_lost(&self) -> bool {
        self.was_lost.load(Ordering::Relaxed)
    }

    /// Gives the place back and says how it went.
    pub fn settle(self, outcome: Outcome, now: Instant) {
        match outcome {
            Outcome::Completed => self.state.success(now),
            Outcome::Failed(fault) => self.state.fault(fault, now),
            Outcome::Neutral | Outcome::Abandoned => {}
        }
    }
}

impl Deref for Lease {
    type Target = Endpoint;

    fn deref(&self) -> &Endpoint {
        self.endpoint()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.answered();
        self.endpoint().state.give_back();
    }
}
