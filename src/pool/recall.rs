//! Calling back whatever is open on an endpoint that will not finish it.
//!
//! Some engines die without closing anything: streams on a hung core, or on a vLLM that was told to end, stay
//! open and silent for ever. Whoever learns of it recalls the endpoint, and every request and stream that
//! holds a [`Lease`](super::Lease) on it goes elsewhere.

use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{EndpointState, Fault, Lease};

/// The recalls of one endpoint.
#[derive(Debug, Default)]
pub(super) struct Recalls {
    count: AtomicU32,
    /// Each reason there was, with the count at its last recall.
    reasons: Mutex<Vec<(Fault, u32)>>,
    called: Notify,
}

/// Of several that were not heard of the gravest counts: whoever heeds it need not hear the others.
fn gravity(why: Fault) -> u8 {
    match why {
        Fault::Drained => 0,
        Fault::ConnectRefused => 1,
        _ => 2,
    }
}

impl Recalls {
    /// Recalls so far: what a lease begins with.
    pub(super) fn count(&self) -> u32 {
        self.count.load(Ordering::Acquire)
    }

    fn call(&self, why: Fault) {
        let mut reasons = self.reasons.lock();
        let count = self.count() + 1;
        reasons.retain(|(known, _)| *known != why);
        reasons.push((why, count));
        self.count.store(count, Ordering::Release);
        drop(reasons);
        self.called.notify_waiters();
    }

    /// Ready when there are more than `seen`; with the gravest reason of those, and how many there are.
    async fn called_after(&self, seen: u32) -> (Fault, u32) {
        loop {
            // Told of every call from here on, also before it is polled.
            let called = pin!(self.called.notified());
            if self.count() != seen {
                let reasons = self.reasons.lock();
                let unseen = reasons.iter().filter(|(_, at)| *at > seen);
                if let Some((why, _)) = unseen.max_by_key(|(why, _)| gravity(*why)) {
                    return (*why, self.count());
                }
            }
            called.await;
        }
    }
}

impl EndpointState {
    /// Wakes every request and stream that is open on it. What has not started goes to another endpoint; a
    /// stream that has is cut as if it had met `why`, and continued where it can be. Says nothing of the
    /// endpoint's health: that is the caller's to know.
    ///
    /// A connect that is refused does so by itself, once an outage. With [`Fault::Drained`] what can neither
    /// be moved nor continued stays where it is.
    pub fn recall(&self, why: Fault) {
        self.recalls.call(why);
    }
}

impl Lease {
    /// Ready once the endpoint has been recalled since the lease was taken, or since it was last ready; with
    /// the gravest reason since then. Costs nothing until it is polled.
    pub async fn recalled(&self) -> Fault {
        let recalls = &self.endpoint().state.recalls;
        let seen = self.recalls_seen.load(Ordering::Relaxed);
        let (why, count) = recalls.called_after(seen).await;
        self.recalls_seen.store(count, Ordering::Relaxed);
        why
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::sync::Arc;
    use std::task::{Context, Poll, Waker};

    use tokio::time::Instant;

    use super::*;
    use crate::balance::RequestFacts;
    use crate::config::PolicyName;
    use crate::pool::{Pool, ProbeFailure, Tried, testing};

    fn pool() -> Arc<Pool> {
        let now = Instant::now();
        testing::pool(PolicyName::RoundRobin, testing::endpoints(1, now), now)
    }

    fn lease(pool: &Arc<Pool>) -> Lease {
        let mut rng = fastrand::Rng::with_seed(1);
        pool.lease(
            &RequestFacts::default(),
            &Tried::new(),
            Instant::now(),
            &mut rng,
        )
        .unwrap()
    }

    fn now(recalled: impl Future<Output = Fault>) -> Option<Fault> {
        let mut cx = Context::from_waker(Waker::noop());
        match pin!(recalled).poll(&mut cx) {
            Poll::Ready(why) => Some(why),
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_recall_reaches_every_lease_once_and_none_that_comes_later() {
        let pool = pool();
        let (one, other) = (lease(&pool), lease(&pool));
        assert_eq!(now(one.recalled()), None);
        let waits = one.recalled();
        pool.endpoints[0].state.recall(Fault::Hung);
        assert_eq!(now(waits), Some(Fault::Hung));
        assert_eq!(now(other.recalled()), Some(Fault::Hung));
        assert_eq!(now(one.recalled()), None);
        let later = lease(&pool);
        assert_eq!(now(later.recalled()), None);
        pool.endpoints[0].state.recall(Fault::Drained);
        for lease in [one, other, later] {
            assert_eq!(now(lease.recalled()), Some(Fault::Drained));
        }
    }

    #[test]
    fn of_recalls_that_were_not_heard_the_gravest_counts() {
        let pool = pool();
        let state = &pool.endpoints[0].state;
        let grave = [Fault::Hung, Fault::ConnectRefused, Fault::Drained];
        for (at, graver) in grave.iter().enumerate() {
            for milder in &grave[at + 1..] {
                for both in [[graver, milder], [milder, graver]] {
                    let lease = lease(&pool);
                    both.iter().for_each(|why| state.recall(**why));
                    assert_eq!(now(lease.recalled()), Some(*graver), "{both:?}");
                    assert_eq!(now(lease.recalled()), None, "{both:?}");
                    // One that was heard says nothing of those that follow.
                    state.recall(*milder);
                    assert_eq!(now(lease.recalled()), Some(*milder), "{both:?}");
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_recall_wakes_who_waits() {
        let pool = pool();
        let lease = lease(&pool);
        let state = Arc::clone(&pool.endpoints[0].state);
        let waits = tokio::spawn(async move { lease.recalled().await });
        tokio::task::yield_now().await;
        state.recall(Fault::Drained);
        assert_eq!(waits.await.unwrap(), Fault::Drained);
    }

    #[test]
    fn a_connect_that_is_refused_recalls_once_an_outage() {
        let pool = pool();
        let state = &pool.endpoints[0].state;
        let at = Instant::now();
        let lease = lease(&pool);
        for other in [Fault::ConnectTimedOut, Fault::ConnectFailed] {
            state.fault(other, at);
            assert_eq!(now(lease.recalled()), None, "{other:?}");
        }
        state.fault(Fault::ConnectRefused, at);
        assert_eq!(now(lease.recalled()), Some(Fault::ConnectRefused));
        state.fault(Fault::ConnectRefused, at);
        // An old stream that ends well is no end of the outage.
        state.success(at);
        state.probed(Err(ProbeFailure::Refused), at);
        assert_eq!(now(lease.recalled()), None);
        state.probed(Ok(()), at);
        state.probed(Err(ProbeFailure::Refused), at);
        assert_eq!(now(lease.recalled()), Some(Fault::ConnectRefused));
    }

    #[test]
    fn an_ejected_endpoint_that_then_refuses_is_recalled() {
        let pool = pool();
        let state = &pool.endpoints[0].state;
        let lease = lease(&pool);
        let at = Instant::now();
        for _ in 0..3 {
            state.fault(Fault::ConnectionLost, at);
        }
        assert!(!state.is_up());
        assert_eq!(now(lease.recalled()), None);
        state.probed(Err(ProbeFailure::Refused), at);
        assert_eq!(now(lease.recalled()), Some(Fault::ConnectRefused));
    }
}
