//! Requests that wait for a place in their pool: every endpoint that could take them is at its
//! `max_in_flight`.
//!
//! Whoever frees a place, or changes what may be chosen, hands it on: [`Queue::offer`] takes the lease for
//! the one who has waited longest of those who can use it, so that nobody gets in between. A queue
//! outlives reloads: who waits in it is served by the endpoints of the newest epoch.

mod line;
mod wait;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Lease, Pool, Tried, Unavailable};
use crate::balance::RequestFacts;
use line::{Line, Ticket};
pub use wait::{NoPlace, catch_up, lease_at_once, lease_or_wait};

/// What a client is told to wait where nobody does, so that nothing is known of how long it takes.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Different sets of endpoints tried that one look along the line remembers.
const KINDS: usize = 16;

/// The queue of one pool, in all its epochs.
pub struct Queue {
    /// The length of the line, for a look without the lock.
    depth: AtomicUsize,
    inner: Mutex<Inner>,
}

struct Inner {
    line: Line<Waiting>,
    /// The pool of the newest epoch that has it.
    newest: Weak<Pool>,
    /// Whose endpoints serve those who wait, and are watched; `Some` for as long as anybody waits.
    serving: Option<Arc<Pool>>,
    rng: fastrand::Rng,
}

struct Waiting {
    wish: Wish,
    reply: oneshot::Sender<Reply>,
}

/// Which endpoints may serve a request.
struct Wish {
    facts: RequestFacts,
    /// By the indexes of the pool that serves.
    tried: Tried,
    /// The only one, by [`EndpointState::id`](super::EndpointState::id); then `tried` says so too.
    only: Option<u64>,
}

type Reply = Result<Lease, NoPlace>;

/// What comes of entering.
enum Entered {
    Waits(Ticket, oneshot::Receiver<Reply>),
    /// It need not wait, or must not.
    Settled(Reply),
}

impl Queue {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            depth: AtomicUsize::new(0),
            inner: Mutex::new(Inner {
                line: Line::new(now),
                newest: Weak::new(),
                serving: None,
                rng: fastrand::Rng::new(),
            }),
        }
    }

    /// How many wait.
    pub fn depth(&self) -> usize {
        self.depth.load(Ordering::Acquire)
    }

    /// From now on `pool` serves those who wait.
    pub(crate) fn move_to(self: &Arc<Self>, pool: &Arc<Pool>, now: Instant) {
        let mut inner = self.inner.lock();
        inner.newest = Arc::downgrade(pool);
        let Some(before) = inner.serving.clone() else {
            return;
        };
        inner.serving = Some(Arc::clone(pool));
        for Waiting { wish, .. } in inner.line.each() {
            wish.tried = moved(&wish.tried, wish.only, &before, pool);
        }
        self.watch(pool);
        self.unwatch(&before);
        let unclaimed = inner.offer(now);
        self.release(inner, unclaimed);
    }

    /// The pool of the newest epoch, where that is not `pool`.
    fn newer_than(&self, pool: &Arc<Pool>) -> Option<Arc<Pool>> {
        let newest = self.inner.lock().newest.upgrade()?;
        (!Arc::ptr_eq(&newest, pool)).then_some(newest)
    }

    /// Something may have become free, or be so no more.
    pub(super) fn offer(self: &Arc<Self>, now: Instant) {
        let mut inner = self.inner.lock();
        let unclaimed = inner.offer(now);
        self.release(inner, unclaimed);
    }

    /// For a request of `pool` that may have to wait: a lease all the same, or a place at the end of the line.
    fn enter(self: &Arc<Self>, pool: &Arc<Pool>, mut wish: Wish, now: Instant) -> Entered {
        let mut inner = self.inner.lock();
        let is_first = inner.line.is_empty();
        if is_first && pool.waits.is_none() {
            let retry_after = RETRY_AFTER;
            return Entered::Settled(Err(NoPlace::Busy { retry_after }));
        }
        let serving = match &inner.serving {
            Some(serving) => Arc::clone(serving),
            None => inner.newest.upgrade().unwrap_or_else(|| Arc::clone(pool)),
        };
        if !Arc::ptr_eq(pool, &serving) {
            wish.tried = moved(&wish.tried, wish.only, pool, &serving);
        }
        if is_first {
            self.watch(&serving);
            inner.serving = Some(Arc::clone(&serving));
        }
        let unclaimed = inner.offer(now);
        // What is free now is of no use to anybody before it.
        let lease = serving.lease(&wish.facts, &wish.tried, now, &mut inner.rng);
        let entered = match lease {
            Ok(lease) => Entered::Settled(Ok(lease)),
            Err(Unavailable::AllDown) => Entered::Settled(Err(NoPlace::AllDown)),
            Err(Unavailable::AllTried) => Entered::Settled(Err(NoPlace::AllTried)),
            Err(Unavailable::AllAtCap) => inner.join(pool, wish, now),
        };
        self.release(inner, unclaimed);
        entered
    }

    /// Its client has left, or it has been served.
    fn leave(self: &Arc<Self>, ticket: Ticket, now: Instant) {
        let mut inner = self.inner.lock();
        let left = inner.line.leave(ticket, now);
        self.release(inner, Vec::new());
        drop(left);
    }

    /// It has waited for `timeout`. How long until there is room; `None`: it has got a reply in this moment.
    fn give_up(
        self: &Arc<Self>,
        ticket: Ticket,
        timeout: Duration,
        now: Instant,
    ) -> Option<Duration> {
        let mut inner = self.inner.lock();
        let left = inner.line.give_up(ticket);
        let clears_in = inner.line.clears_in(now, timeout);
        self.release(inner, Vec::new());
        left.map(|_| clears_in)
    }

    /// Every way out of the lock after a change. `unclaimed`: a lease gives its place back when it is
    /// dropped, which takes the lock.
    fn release(self: &Arc<Self>, mut inner: MutexGuard<'_, Inner>, unclaimed: Vec<Reply>) {
        self.depth.store(inner.line.len(), Ordering::Release);
        let closed = if inner.line.is_empty() {
            inner.serving.take()
        } else {
            None
        };
        if let Some(pool) = &closed {
            self.unwatch(pool);
        }
        drop(inner);
        drop((closed, unclaimed));
    }

    fn watch(self: &Arc<Self>, pool: &Pool) {
        for endpoint in &pool.endpoints {
            endpoint.state.places.watch(self);
        }
    }

    fn unwatch(self: &Arc<Self>, pool: &Pool) {
        for endpoint in &pool.endpoints {
            endpoint.state.places.unwatch(self);
        }
    }
}

impl Inner {
    /// Gives what is free to those who can use it, the longest waiting first, and sends away those who
    /// wait in vain. Returns the replies that nobody took.
    fn offer(&mut self, now: Instant) -> Vec<Reply> {
        let mut unclaimed = Vec::new();
        let Some(pool) = self.serving.clone() else {
            return unclaimed;
        };
        let mut last = None;
        // What was of no use to one is of none to the next that may use the same: a line of many has few of those.
        let mut in_vain: Vec<Tried> = Vec::new();
        while let Some((ticket, Waiting { wish, .. })) = self.line.behind(last) {
            if in_vain.contains(&wish.tried) {
                last = Some(ticket);
                continue;
            }
            let reply = match pool.lease(&wish.facts, &wish.tried, now, &mut self.rng) {
                Ok(lease) => Ok(lease),
                // Nobody behind it can use more endpoints than one that may use all.
                Err(Unavailable::AllAtCap) if wish.tried.is_empty() => break,
                Err(Unavailable::AllAtCap) => {
                    if in_vain.len() < KINDS {
                        in_vain.push(wish.tried.clone());
                    }
                    last = Some(ticket);
                    continue;
                }
                Err(Unavailable::AllDown) => Err(NoPlace::AllDown),
                Err(Unavailable::AllTried) => Err(NoPlace::AllTried),
            };
            let left = match reply {
                Ok(_) => self.line.leave(ticket, now),
                Err(_) => self.line.give_up(ticket),
            };
            if let Some(waiting) = left {
                unclaimed.extend(waiting.reply.send(reply).err());
            }
        }
        unclaimed
    }

    fn join(&mut self, pool: &Pool, wish: Wish, now: Instant) -> Entered {
        let (size, timeout) = match &pool.waits {
            Some(waits) => (waits.size, waits.timeout),
            None => (0, RETRY_AFTER),
        };
        let (reply, replied) = oneshot::channel();
        match self.line.enter(Waiting { wish, reply }, size, now) {
            Some(ticket) => Entered::Waits(ticket, replied),
            None => Entered::Settled(Err(NoPlace::Busy {
                retry_after: self.line.clears_in(now, timeout),
            })),
        }
    }
}

/// `tried` by the indexes of another epoch's pool.
fn moved(tried: &Tried, only: Option<u64>, from: &Pool, to: &Pool) -> Tried {
    let index_of = |id: u64| to.endpoints.iter().position(|one| one.state.id == id);
    let mut moved = match only {
        None => Tried::new(),
        Some(only) => Tried::all_but(index_of(only).unwrap_or(usize::MAX), to.endpoints.len()),
    };
    for (index, endpoint) in from.endpoints.iter().enumerate() {
        let id = endpoint.state.id;
        if tried.contains(index) && only.is_none_or(|only| only == id) {
            moved.extend(index_of(id));
        }
    }
    moved
}

#[cfg(test)]
mod tests;
