use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::line::Ticket;
use super::{Entered, Queue, RETRY_AFTER, Reply, Wish, moved};
use crate::balance::RequestFacts;
use crate::pool::{Lease, Pool, Tried, Unavailable};

/// Why a request gets no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoPlace {
    /// See [`Unavailable::AllDown`].
    AllDown,
    /// See [`Unavailable::AllTried`].
    AllTried,
    /// All are at their `max_in_flight`, and there is no queue, or it is full, or the request has waited in
    /// it for as long as it may.
    Busy {
        /// Until there is room, as far as can be told.
        retry_after: Duration,
    },
}

/// Takes a lease as [`Pool::lease`] does, or waits in the pool's queue until there is one. Dropping the
/// future leaves the queue.
///
/// `only`: the one endpoint, by [`EndpointState::id`](crate::pool::EndpointState::id), that can serve the
/// request; `tried` has all the others then. A request that has waited, or that its own epoch has no place for, may be
/// served by a newer one: `pool` and `tried` are that one's then. The time it has waited is added to `waited`.
///
/// # Errors
/// See [`NoPlace`].
pub async fn lease_or_wait(
    pool: &mut Arc<Pool>,
    tried: &mut Tried,
    only: Option<u64>,
    facts: &RequestFacts,
    waited: &mut Option<Duration>,
    rng: &mut fastrand::Rng,
) -> Result<Lease, NoPlace> {
    let now = Instant::now();
    // While somebody waits, whoever comes goes behind.
    if pool.queue.depth() == 0 {
        match lease(pool, tried, only, facts, rng) {
            Ok(lease) => return Ok(lease),
            Err(Unavailable::AllDown) => return Err(NoPlace::AllDown),
            Err(Unavailable::AllTried) => return Err(NoPlace::AllTried),
            Err(Unavailable::AllAtCap) => {}
        }
    }
    let wish = Wish {
        facts: facts.clone(),
        tried: tried.clone(),
        only,
    };
    let lease = match pool.queue.enter(pool, wish, now) {
        Entered::Settled(reply) => reply?,
        Entered::Waits(ticket, reply) => {
            let timeout = pool.waits.as_ref().map(|waits| waits.timeout);
            let place = Place {
                queue: Arc::clone(&pool.queue),
                ticket,
                reply,
                since: now,
                timeout: timeout.unwrap_or_default(),
                waited,
            };
            place.served().await?
        }
    };
    if !Arc::ptr_eq(pool, lease.pool()) {
        adopt(pool, tried, only, Arc::clone(lease.pool()));
    }
    Ok(lease)
}

/// The same without waiting, and not before those who wait.
///
/// # Errors
/// See [`NoPlace`].
pub fn lease_at_once(
    pool: &mut Arc<Pool>,
    tried: &mut Tried,
    only: Option<u64>,
    facts: &RequestFacts,
    rng: &mut fastrand::Rng,
) -> Result<Lease, NoPlace> {
    let busy = NoPlace::Busy {
        retry_after: RETRY_AFTER,
    };
    if pool.queue.depth() > 0 {
        return Err(busy);
    }
    lease(pool, tried, only, facts, rng).map_err(|none| match none {
        Unavailable::AllDown => NoPlace::AllDown,
        Unavailable::AllTried => NoPlace::AllTried,
        Unavailable::AllAtCap => busy,
    })
}

/// Makes `pool` the one of the newest epoch, with what was `tried` of it; false where it is that already.
pub fn catch_up(pool: &mut Arc<Pool>, tried: &mut Tried, only: Option<u64>) -> bool {
    let Some(newest) = pool.queue.newer_than(pool) else {
        return false;
    };
    adopt(pool, tried, only, newest);
    true
}

fn adopt(pool: &mut Arc<Pool>, tried: &mut Tried, only: Option<u64>, newer: Arc<Pool>) {
    *tried = moved(tried, only, pool, &newer);
    *pool = newer;
}

/// [`Pool::lease`], of the newest epoch where the request's own has none: its endpoints may all have left since.
fn lease(
    pool: &mut Arc<Pool>,
    tried: &mut Tried,
    only: Option<u64>,
    facts: &RequestFacts,
    rng: &mut fastrand::Rng,
) -> Result<Lease, Unavailable> {
    loop {
        match pool.lease(facts, tried, Instant::now(), rng) {
            Err(_) if catch_up(pool, tried, only) => {}
            leased => return leased,
        }
    }
}

/// A place in the line. Dropping it leaves the line; a lease that was already given goes to the next.
struct Place<'a> {
    queue: Arc<Queue>,
    ticket: Ticket,
    reply: oneshot::Receiver<Reply>,
    since: Instant,
    timeout: Duration,
    waited: &'a mut Option<Duration>,
}

impl Place<'_> {
    async fn served(mut self) -> Reply {
        if let Ok(reply) = timeout_at(self.since + self.timeout, &mut self.reply).await {
            return reply.unwrap_or(Err(NoPlace::AllDown));
        }
        let now = Instant::now();
        match self.queue.give_up(self.ticket, self.timeout, now) {
            Some(retry_after) => Err(NoPlace::Busy { retry_after }),
            None => self.reply.try_recv().unwrap_or(Err(NoPlace::AllDown)),
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let now = Instant::now();
        let time = now.saturating_duration_since(self.since);
        *self.waited = Some(self.waited.unwrap_or_default() + time);
        self.queue.leave(self.ticket, now);
    }
}
