use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use testing::{endpoint, endpoints, pool, state};

fn lease(pool: &Arc<Pool>, tried: &Tried, rng: &mut fastrand::Rng) -> Result<Lease, Unavailable> {
    pool.lease(&RequestFacts::default(), tried, Instant::now(), rng)
}

fn tried(indexes: &[usize]) -> Tried {
    let mut tried = Tried::new();
    for index in indexes {
        tried.insert(*index);
    }
    tried
}

fn rng() -> fastrand::Rng {
    fastrand::Rng::with_seed(11)
}

fn fail_probe(endpoint: &Endpoint, failure: ProbeFailure) {
    for _ in 0..3 {
        endpoint.state.probed(Err(failure), Instant::now());
    }
    assert!(!endpoint.state.is_up());
}

fn eject(endpoint: &Endpoint) {
    for _ in 0..3 {
        endpoint.state.fault(Fault::ErrorEvent, Instant::now());
    }
    assert!(!endpoint.state.is_up());
}

#[test]
fn a_lease_counts_for_as_long_as_it_lives() {
    let now = Instant::now();
    let pool = pool(PolicyName::LeastInflight, endpoints(1, now), now);
    let state = Arc::clone(&pool.endpoints[0].state);
    let first = lease(&pool, &Tried::new(), &mut rng()).unwrap();
    let second = lease(&pool, &Tried::new(), &mut rng()).unwrap();
    assert_eq!(state.in_flight(), 2);
    drop(first);
    assert_eq!(state.in_flight(), 1);
    second.settle(Outcome::Neutral, now);
    assert_eq!((state.in_flight(), state.requests()), (0, 2));
}

/// The streams that end with it eject it before the request that it dies of is heard of.
#[test]
fn one_that_is_ejected_for_its_faults_can_die_of_a_request() {
    let now = Instant::now();
    let pool = pool(PolicyName::LeastInflight, endpoints(1, now), now);
    let lease = lease(&pool, &Tried::new(), &mut rng()).unwrap();
    let state = Arc::clone(&pool.endpoints[0].state);
    eject(&pool.endpoints[0]);
    assert!(state.lost_alone(now));
    state.fault(Fault::ConnectRefused, now);
    assert!(state.fate().fell.is_some());
    drop(lease);
}

#[test]
fn an_outcome_reaches_the_health() {
    let now = Instant::now();
    let pool = pool(PolicyName::LeastInflight, endpoints(1, now), now);
    let settle = |outcome| {
        lease(&pool, &Tried::new(), &mut rng())
            .unwrap()
            .settle(outcome, now);
        pool.endpoints[0].state.status(now).consecutive_faults
    };
    assert_eq!(settle(Outcome::Failed(Fault::ReadTimedOut)), 1);
    assert_eq!(settle(Outcome::Neutral), 1);
    assert_eq!(settle(Outcome::Abandoned), 1);
    assert_eq!(settle(Outcome::Completed), 0);
    assert_eq!(settle(Outcome::Failed(Fault::ConnectRefused)), 1);
    assert!(!pool.ready(now));
}

#[test]
fn load_is_spread_one_by_one() {
    let now = Instant::now();
    let pool = pool(PolicyName::LeastInflight, endpoints(4, now), now);
    let mut rng = rng();
    let leases: Vec<_> = (0..40)
        .map(|_| lease(&pool, &Tried::new(), &mut rng).unwrap())
        .collect();
    for endpoint in &pool.endpoints {
        assert_eq!(endpoint.state.in_flight(), 10);
    }
    drop(leases);
}

#[test]
fn a_backup_serves_only_when_no_other_is_left() {
    let now = Instant::now();
    let mut list = endpoints(2, now);
    list[0].backup = true;
    list[1].max_in_flight = Some(2);
    let pool = pool(PolicyName::LeastInflight, list, now);
    let mut rng = rng();
    let one = lease(&pool, &Tried::new(), &mut rng).unwrap();
    let two = lease(&pool, &Tried::new(), &mut rng).unwrap();
    assert_eq!((one.index(), two.index()), (1, 1));
    let three = lease(&pool, &Tried::new(), &mut rng).unwrap();
    assert_eq!(three.index(), 0);
    drop(one);
    assert_eq!(lease(&pool, &tried(&[1]), &mut rng).unwrap().index(), 0);
    assert_eq!(lease(&pool, &Tried::new(), &mut rng).unwrap().index(), 1);
}

#[test]
fn it_says_why_there_is_none() {
    let now = Instant::now();
    let mut list = endpoints(2, now);
    for endpoint in &mut list {
        endpoint.max_in_flight = Some(1);
    }
    let pool = pool(PolicyName::LeastInflight, list, now);
    let mut rng = rng();
    let mut none = |tried: &Tried| lease(&pool, tried, &mut rng).unwrap_err();
    assert_eq!(none(&tried(&[0, 1])), Unavailable::AllTried);
    let held = lease(&pool, &tried(&[1]), &mut fastrand::Rng::new()).unwrap();
    assert_eq!(held.index(), 0);
    assert_eq!(none(&tried(&[1])), Unavailable::AllAtCap);
    let other = lease(&pool, &Tried::new(), &mut fastrand::Rng::new()).unwrap();
    assert_eq!(other.index(), 1);
    assert_eq!(none(&Tried::new()), Unavailable::AllAtCap);
    for endpoint in &pool.endpoints {
        endpoint.state.fault(Fault::ConnectRefused, now);
    }
    assert_eq!(none(&Tried::new()), Unavailable::AllDown);
    assert_eq!(none(&tried(&[0, 1])), Unavailable::AllDown);
}

#[test]
fn an_empty_pool_is_down() {
    let now = Instant::now();
    let pool = pool(PolicyName::RoundRobin, Vec::new(), now);
    let none = lease(&pool, &Tried::new(), &mut rng()).unwrap_err();
    assert_eq!(none, Unavailable::AllDown);
    assert!(!pool.ready(now));
}

#[test]
fn panic_uses_the_least_bad_that_accepts_connections() {
    let now = Instant::now();
    let pool = pool(PolicyName::LeastInflight, endpoints(4, now), now);
    let [refused, timed_out, ejected, busy] = &*pool.endpoints else {
        unreachable!()
    };
    refused.state.fault(Fault::ConnectRefused, now);
    fail_probe(timed_out, ProbeFailure::ConnectTimedOut);
    eject(ejected);
    let mut rng = rng();
    // One is up: no panic, even when it has been tried.
    assert_eq!(
        lease(&pool, &tried(&[3]), &mut rng).unwrap_err(),
        Unavailable::AllTried
    );
    fail_probe(busy, ProbeFailure::TimedOut);
    assert_eq!(lease(&pool, &Tried::new(), &mut rng).unwrap().index(), 3);
    assert_eq!(lease(&pool, &tried(&[3]), &mut rng).unwrap().index(), 2);
    assert_eq!(
        lease(&pool, &tried(&[2, 3]), &mut rng).unwrap_err(),
        Unavailable::AllTried
    );
    busy.state.fault(Fault::ConnectTimedOut, now);
    ejected.state.fault(Fault::ConnectTimedOut, now);
    assert_eq!(
        lease(&pool, &Tried::new(), &mut rng).unwrap_err(),
        Unavailable::AllDown
    );
    assert!(!pool.ready(now));
}

#[test]
fn an_endpoint_that_came_back_ramps_up() {
    let now = Instant::now();
    let pool = pool(PolicyName::RoundRobin, endpoints(2, now), now);
    let back = &pool.endpoints[1].state;
    back.fault(Fault::ConnectRefused, now);
    back.probed(Ok(()), now);
    back.probed(Ok(()), now);
    assert!(back.is_up());
    let share = |at: Instant| {
        let mut rng = rng();
        let picks = (0..1100).map(|_| {
            let facts = RequestFacts::default();
            pool.lease(&facts, &Tried::new(), at, &mut rng)
                .unwrap()
                .index()
        });
        picks.sum::<usize>()
    };
    // 100 of 1100 thousandths, then 1000 of 2000.
    assert_eq!(share(now), 100);
    assert_eq!(share(now + Duration::from_secs(10)), 550);
}

#[test]
fn two_pools_share_one_count_and_one_cap() {
    let now = Instant::now();
    let shared = state(now);
    let pools = [(); 2].map(|()| {
        let mut endpoint = endpoint(&shared);
        endpoint.max_in_flight = Some(1);
        pool(PolicyName::RoundRobin, vec![endpoint], now)
    });
    let held = lease(&pools[0], &Tried::new(), &mut rng()).unwrap();
    let none = lease(&pools[1], &Tried::new(), &mut rng()).unwrap_err();
    assert_eq!(none, Unavailable::AllAtCap);
    drop(held);
    drop(lease(&pools[1], &Tried::new(), &mut rng()).unwrap());
}

#[test]
fn a_cap_holds_against_racing_threads_of_two_pools() {
    let now = Instant::now();
    let shared: Vec<_> = (0..3).map(|_| state(now)).collect();
    let pools = [PolicyName::LeastInflight, PolicyName::RoundRobin].map(|policy| {
        let list = shared.iter().map(|state| Endpoint {
            max_in_flight: Some(2),
            ..endpoint(state)
        });
        pool(policy, list.collect(), now)
    });
    let exceeded = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (pool, shared, exceeded) = (&pools[thread % 2], &shared, &exceeded);
            scope.spawn(move || {
                let mut rng = fastrand::Rng::with_seed(thread as u64);
                let mut held = Vec::new();
                for _ in 0..3_000 {
                    match lease(pool, &Tried::new(), &mut rng) {
                        Ok(lease) => held.push(lease),
                        Err(why) => assert_eq!(why, Unavailable::AllAtCap),
                    }
                    if shared.iter().any(|state| state.in_flight() > 2) {
                        exceeded.store(true, Ordering::Relaxed);
                    }
                    if held.len() > 2 || rng.bool() {
                        held.pop();
                    }
                }
            });
        }
    });
    assert!(!exceeded.load(Ordering::Relaxed));
    assert!(shared.iter().all(|state| state.in_flight() == 0));
}

#[derive(Debug, Clone)]
enum Step {
    Lease { tried: u8 },
    Drop(usize),
    Settle(usize, Outcome),
    Break(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => any::<u8>().prop_map(|tried| Step::Lease { tried }),
        2 => any::<usize>().prop_map(Step::Drop),
        2 => (any::<usize>(), prop::sample::select(vec![
            Outcome::Completed,
            Outcome::Neutral,
            Outcome::Abandoned,
            Outcome::Failed(Fault::ConnectionLost),
        ])).prop_map(|(which, outcome)| Step::Settle(which, outcome)),
        1 => any::<usize>().prop_map(Step::Break),
    ]
}

proptest! {
    #[test]
    fn in_flight_is_the_number_of_live_leases(
        steps in prop::collection::vec(step(), 0..200),
        caps in prop::collection::vec(prop::option::of(1u32..4), 1..6),
        round_robin: bool,
    ) {
        let now = Instant::now();
        let mut list = endpoints(caps.len(), now);
        for (endpoint, cap) in list.iter_mut().zip(&caps) {
            endpoint.max_in_flight = *cap;
        }
        let policy = if round_robin { PolicyName::RoundRobin } else { PolicyName::LeastInflight };
        let pool = pool(policy, list, now);
        let mut rng = rng();
        let mut live: Vec<Lease> = Vec::new();
        for step in steps {
            match step {
                Step::Lease { tried: bits } => {
                    let indexes: Vec<_> = (0..8).filter(|bit| bits & (1 << bit) != 0).collect();
                    let tried = tried(&indexes);
                    if let Ok(lease) = lease(&pool, &tried, &mut rng) {
                        prop_assert!(!tried.contains(lease.index()));
                        // Only in panic may one that is out be picked.
                        prop_assert!(lease.state.is_up() || !pool.ready(now));
                        live.push(lease);
                    }
                }
                Step::Drop(which) if !live.is_empty() => {
                    let at = which % live.len();
                    drop(live.swap_remove(at));
                }
                Step::Settle(which, outcome) if !live.is_empty() => {
                    let at = which % live.len();
                    live.swap_remove(at).settle(outcome, now);
                }
                Step::Break(which) => {
                    let at = which % pool.endpoints.len();
                    pool.endpoints[at].state.fault(Fault::ConnectRefused, now);
                }
                Step::Drop(_) | Step::Settle(..) => {}
            }
            for (index, endpoint) in pool.endpoints.iter().enumerate() {
                let held = live.iter().filter(|lease| lease.index() == index).count();
                prop_assert_eq!(endpoint.state.in_flight() as usize, held);
                prop_assert!(endpoint.max_in_flight.is_none_or(|cap| held <= cap as usize));
            }
        }
        drop(live);
        prop_assert!(pool.endpoints.iter().all(|endpoint| endpoint.state.in_flight() == 0));
    }
}
