//! Recalls what is still open on endpoints that have drained for as long as `drain_timeout` allows.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::pool::{EndpointState, Fault, Pool};
use crate::snapshot::{Snapshot, SnapshotCell};

/// How often is looked; a `drain_timeout` may be late by this.
const EVERY: Duration = Duration::from_millis(500);
/// What could not go elsewhere when it was first recalled is asked again after this.
const AGAIN: Duration = Duration::from_secs(10);

/// Watches every endpoint, also those that only requests still hold, until `shutdown`.
pub async fn run(cell: Arc<SnapshotCell>, shutdown: impl Future<Output = ()>) {
    tokio::pin!(shutdown);
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut recalled = HashMap::new();
    loop {
        tokio::select! {
            () = &mut shutdown => return,
            _ = ticks.tick() => look(&cell.load(), &mut recalled, Instant::now()),
        }
    }
}

/// `recalled`: when each was, by [`EndpointState::id`].
fn look(snapshot: &Snapshot, recalled: &mut HashMap<u64, Instant>, now: Instant) {
    recalled.retain(|_, at| now.saturating_duration_since(*at) < AGAIN);
    for state in snapshot.all_endpoints() {
        if state.outstays_drain(now)
            && !recalled.contains_key(&state.id)
            && has_where_to_go(snapshot, &state)
        {
            recalled.insert(state.id, now);
            log::info!(
                "endpoint {} has drained for its drain_timeout: {} requests go elsewhere if they can",
                state.settings().name,
                state.in_flight()
            );
            state.recall(Fault::Drained);
        }
    }
}

/// Whether another endpoint can take over. Of one that has left the configuration nobody knows which could.
fn has_where_to_go(snapshot: &Snapshot, state: &EndpointState) -> bool {
    let has_it = |pool: &&Arc<Pool>| pool.endpoints.iter().any(|one| one.state.id == state.id);
    let mut pools = snapshot.pools.iter().filter(has_it).peekable();
    // Itself, it is not up.
    pools.peek().is_none() || pools.any(|pool| pool.endpoints.iter().any(|one| one.state.is_up()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::RequestFacts;
    use crate::pool::testing::config;
    use crate::pool::{Lease, Tried};
    use crate::snapshot::Resolved;

    const TIMEOUT: Duration = Duration::from_secs(60);

    fn cell(urls: &[&str]) -> SnapshotCell {
        let mut config = config(urls);
        config.pools[0].drain_timeout = Some(TIMEOUT);
        let built = Snapshot::build(Arc::new(config), &Resolved::default(), None);
        SnapshotCell::new(built.unwrap().0)
    }

    fn lease(cell: &SnapshotCell) -> Lease {
        let pool = Arc::clone(cell.load().default_pool());
        let mut rng = fastrand::Rng::with_seed(1);
        let facts = RequestFacts::default();
        pool.lease(&facts, &Tried::new(), Instant::now(), &mut rng)
            .unwrap()
    }

    async fn is_recalled(lease: &Lease) -> bool {
        let recalled = tokio::time::timeout(Duration::ZERO, lease.recalled());
        recalled.await == Ok(Fault::Drained)
    }

    #[tokio::test(start_paused = true)]
    async fn who_outstays_is_recalled_again_and_again() {
        let cell = cell(&["10.0.0.1:8000", "10.0.0.2:8000"]);
        let (now, mut recalled) = (Instant::now(), HashMap::new());
        let lease = lease(&cell);
        let mut look = |after| look(&cell.load(), &mut recalled, now + after);
        look(TIMEOUT);
        assert!(!is_recalled(&lease).await, "it does not drain");
        lease.state.drain(now);
        look(TIMEOUT - Duration::from_millis(1));
        assert!(!is_recalled(&lease).await);
        look(TIMEOUT);
        assert!(is_recalled(&lease).await);
        look(TIMEOUT + EVERY);
        assert!(!is_recalled(&lease).await);
        look(TIMEOUT + AGAIN);
        assert!(is_recalled(&lease).await);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_recalled_who_has_nowhere_to_go() {
        let cell = cell(&["10.0.0.1:8000"]);
        let (now, mut recalled) = (Instant::now(), HashMap::new());
        let lease = lease(&cell);
        lease.state.drain(now);
        look(&cell.load(), &mut recalled, now + TIMEOUT);
        assert!(!is_recalled(&lease).await);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_has_left_the_configuration_is_recalled_too() {
        let cell = cell(&["10.0.0.1:8000"]);
        let (now, mut recalled) = (Instant::now(), HashMap::new());
        let lease = lease(&cell);
        let other = Arc::new(config(&["10.0.0.2:8000"]));
        cell.apply(other, &Resolved::default()).unwrap();
        look(&cell.load(), &mut recalled, now + TIMEOUT);
        assert!(is_recalled(&lease).await);
    }
}
