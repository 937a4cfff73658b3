mod epochs;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use proptest::prelude::*;

use super::*;
use crate::config::{self, PolicyName};
use crate::pool::testing::{endpoint, endpoints, keepalive, pool_config, state};
use crate::pool::{Endpoint, EndpointState, Fault, ProbeFailure};

const SECOND: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(60);

/// A pool whose endpoints have one place each, where so many may wait.
fn pool(mut list: Vec<Endpoint>, size: usize, previous: Option<&Pool>) -> Arc<Pool> {
    for endpoint in &mut list {
        endpoint.max_in_flight = Some(1);
    }
    uncapped(list, size, previous)
}

fn uncapped(list: Vec<Endpoint>, size: usize, previous: Option<&Pool>) -> Arc<Pool> {
    let mut config = pool_config(PolicyName::LeastInflight);
    config.queue = (size > 0).then_some(config::Queue {
        size,
        timeout: TIMEOUT,
    });
    let now = Instant::now();
    let pool = Arc::new(Pool::new(&config, &keepalive(), list, previous, now));
    pool.queue.move_to(&pool, now);
    pool
}

fn states(pool: &Pool) -> Vec<Arc<EndpointState>> {
    let endpoints = pool.endpoints.iter();
    endpoints.map(|one| Arc::clone(&one.state)).collect()
}

fn in_flight(pool: &Pool) -> Vec<u32> {
    let endpoints = pool.endpoints.iter();
    endpoints.map(|one| one.state.in_flight()).collect()
}

fn watchers(pool: &Pool) -> usize {
    let endpoints = pool.endpoints.iter();
    endpoints.map(|one| one.state.places.watchers()).sum()
}

/// What became of a request.
#[derive(Debug)]
struct Placed {
    reply: Reply,
    waited: Option<Duration>,
    tried: Tried,
}

/// A request that asks for a place.
struct Asking(Pin<Box<dyn Future<Output = Placed>>>);

impl Asking {
    fn tried(pool: &Arc<Pool>, tried: &[usize]) -> Self {
        let mut indexes = Tried::new();
        for index in tried {
            indexes.insert(*index);
        }
        Self::of(pool, indexes, None)
    }

    fn only(pool: &Arc<Pool>, index: usize) -> Self {
        let tried = Tried::all_but(index, pool.endpoints.len());
        Self::of(pool, tried, Some(pool.endpoints[index].state.id))
    }

    fn of(pool: &Arc<Pool>, mut tried: Tried, only: Option<u64>) -> Self {
        let mut pool = Arc::clone(pool);
        let mut asking = Self(Box::pin(async move {
            let mut waited = None;
            let facts = RequestFacts::default();
            let mut rng = fastrand::Rng::with_seed(5);
            let reply =
                lease_or_wait(&mut pool, &mut tried, only, &facts, &mut waited, &mut rng).await;
            if let Ok(lease) = &reply {
                assert!(Arc::ptr_eq(&pool, lease.pool()));
            }
            Placed {
                reply,
                waited,
                tried,
            }
        }));
        asking.waits_or_is_kept();
        asking
    }

    fn new(pool: &Arc<Pool>) -> Self {
        Self::tried(pool, &[])
    }

    /// Polled once at its start, a request stands in line; what comes of it is for `poll`.
    fn waits_or_is_kept(&mut self) {
        if let Poll::Ready(placed) = self.poll() {
            self.0 = Box::pin(std::future::ready(placed));
        }
    }

    fn poll(&mut self) -> Poll<Placed> {
        self.0
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
    }

    #[track_caller]
    fn waits(&mut self) {
        assert!(self.poll().is_pending());
    }

    #[track_caller]
    fn placed(&mut self) -> Placed {
        match self.poll() {
            Poll::Ready(placed) => placed,
            Poll::Pending => panic!("it still waits"),
        }
    }

    #[track_caller]
    fn lease(&mut self) -> Lease {
        self.placed().reply.unwrap()
    }

    #[track_caller]
    fn refused(&mut self) -> NoPlace {
        self.placed().reply.unwrap_err()
    }
}

fn one_place() -> Arc<Pool> {
    pool(endpoints(1, Instant::now()), 9, None)
}

#[tokio::test(start_paused = true)]
async fn a_freed_place_goes_to_who_waits_longest() {
    let pool = one_place();
    let held = Asking::new(&pool).lease();
    let [mut a, mut b, mut c] = [(); 3].map(|()| Asking::new(&pool));
    assert_eq!(pool.queue.depth(), 3);
    tokio::time::advance(SECOND).await;
    for one in [&mut a, &mut b, &mut c] {
        one.waits();
    }
    drop(held);
    assert_eq!((pool.queue.depth(), in_flight(&pool)), (2, vec![1]));
    let a = a.placed();
    assert_eq!(a.waited, Some(SECOND));
    b.waits();
    drop(a);
    c.waits();
    drop(b.lease());
    let last = c.lease();
    assert_eq!((pool.queue.depth(), watchers(&pool)), (0, 0));
    drop(last);
    assert_eq!(in_flight(&pool), [0]);
    // Who finds a place has not waited.
    assert_eq!(Asking::new(&pool).placed().waited, None);
}

#[tokio::test(start_paused = true)]
async fn whoever_comes_while_others_wait_goes_behind() {
    let pool = one_place();
    let held = Asking::new(&pool).lease();
    let mut first = Asking::new(&pool);
    drop(held);
    // It has its place already, if it does not know yet.
    let mut second = Asking::new(&pool);
    second.waits();
    drop(first.lease());
    drop(second.lease());
    assert_eq!(in_flight(&pool), [0]);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_before_can_use_is_had_at_once() {
    let pool = pool(endpoints(2, Instant::now()), 9, None);
    let first = Asking::only(&pool, 0).lease();
    // For the first endpoint alone, and it waits in front of all.
    let mut bound = Asking::only(&pool, 0);
    let mut moved = Asking::tried(&pool, &[0]);
    assert_eq!(moved.lease().index(), 1);
    let second = Asking::new(&pool).lease();
    assert_eq!(second.index(), 1);
    let mut behind = Asking::new(&pool);
    bound.waits();
    behind.waits();
    drop(second);
    bound.waits();
    assert_eq!(behind.lease().index(), 1);
    drop(first);
    assert_eq!(bound.lease().index(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_leaves_loses_nobodys_place() {
    let pool = one_place();
    let held = Asking::new(&pool).lease();
    let a = Asking::new(&pool);
    let b = Asking::new(&pool);
    let mut c = Asking::new(&pool);
    drop(b);
    assert_eq!(pool.queue.depth(), 2);
    drop(held);
    // The first has got its place and leaves without a look at it.
    drop(a);
    drop(c.lease());
    assert_eq!((pool.queue.depth(), in_flight(&pool)), (0, vec![0]));
    assert_eq!(watchers(&pool), 0);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_tells_when_there_is_room() {
    let pool = pool(endpoints(1, Instant::now()), 3, None);
    let mut held = Asking::new(&pool).lease();
    let mut line: Vec<_> = (0..3).map(|_| Asking::new(&pool)).collect();
    let busy = |retry_after| NoPlace::Busy { retry_after };
    // Nobody has left yet; in a minute nobody of these waits.
    assert_eq!(Asking::new(&pool).refused(), busy(TIMEOUT));
    for _ in 0..2 {
        tokio::time::advance(2 * SECOND).await;
        drop(held);
        held = line.remove(0).lease();
        line.push(Asking::new(&pool));
    }
    assert_eq!(Asking::new(&pool).refused(), busy(6 * SECOND));
    tokio::time::advance(4 * SECOND).await;
    assert_eq!(Asking::new(&pool).refused(), busy(12 * SECOND));
    drop((line, held));
    assert_eq!((pool.queue.depth(), in_flight(&pool)), (0, vec![0]));
}

#[tokio::test(start_paused = true)]
async fn without_a_queue_nobody_waits() {
    let pool = pool(endpoints(1, Instant::now()), 0, None);
    let held = Asking::new(&pool).lease();
    let busy = NoPlace::Busy {
        retry_after: RETRY_AFTER,
    };
    assert_eq!(Asking::new(&pool).refused(), busy);
    assert_eq!(watchers(&pool), 0);
    drop(held);
    drop(Asking::new(&pool).lease());
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_than_the_timeout() {
    let pool = one_place();
    let held = Asking::new(&pool).lease();
    let mut early = Asking::new(&pool);
    tokio::time::advance(SECOND).await;
    let mut late = Asking::new(&pool);
    tokio::time::advance(TIMEOUT - SECOND).await;
    let placed = early.placed();
    let busy = NoPlace::Busy {
        retry_after: TIMEOUT,
    };
    assert_eq!(placed.reply.unwrap_err(), busy);
    assert_eq!(placed.waited, Some(TIMEOUT));
    late.waits();
    assert_eq!(pool.queue.depth(), 1);
    drop(held);
    // In the same moment as its time is over it has got its place.
    tokio::time::advance(SECOND).await;
    drop(late.lease());
    assert_eq!(in_flight(&pool), [0]);
}

#[tokio::test(start_paused = true)]
async fn all_down_sends_everybody_away_at_once() {
    let pool = pool(endpoints(2, Instant::now()), 9, None);
    let held = [Asking::new(&pool).lease(), Asking::new(&pool).lease()];
    let mut any = Asking::new(&pool);
    let mut moved = Asking::tried(&pool, &[0]);
    let now = Instant::now();
    pool.endpoints[0].state.fault(Fault::ConnectRefused, now);
    any.waits();
    moved.waits();
    pool.endpoints[1].state.fault(Fault::ConnectRefused, now);
    assert_eq!(any.refused(), NoPlace::AllDown);
    assert_eq!(moved.refused(), NoPlace::AllDown);
    assert_eq!((pool.queue.depth(), watchers(&pool)), (0, 0));
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn who_has_tried_all_that_are_left_waits_no_more() {
    let pool = pool(endpoints(2, Instant::now()), 9, None);
    let held = [Asking::new(&pool).lease(), Asking::new(&pool).lease()];
    let mut moved = Asking::tried(&pool, &[0]);
    let now = Instant::now();
    pool.endpoints[1].state.fault(Fault::ConnectRefused, now);
    assert_eq!(moved.refused(), NoPlace::AllTried);
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_recovers_serves_the_queue() {
    let pool = pool(endpoints(2, Instant::now()), 9, None);
    let away = &pool.endpoints[1].state;
    away.fault(Fault::ConnectRefused, Instant::now());
    let held = Asking::new(&pool).lease();
    let mut waiting = Asking::new(&pool);
    for _ in 0..2 {
        waiting.waits();
        away.probed(Ok(()), Instant::now());
    }
    assert_eq!(waiting.lease().index(), 1);
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn endpoints_out_by_their_probes_serve_it_when_no_other_is_left() {
    let pool = pool(endpoints(2, Instant::now()), 9, None);
    let [sick, well] = &pool.endpoints[..] else {
        unreachable!()
    };
    let now = Instant::now();
    for _ in 0..3 {
        sick.state.probed(Err(ProbeFailure::TimedOut), now);
    }
    let held = Asking::new(&pool).lease();
    let mut waiting = Asking::new(&pool);
    waiting.waits();
    well.state.fault(Fault::ConnectRefused, now);
    assert_eq!(waiting.lease().index(), 0);
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn a_place_that_another_pool_frees_is_had() {
    let now = Instant::now();
    let shared = state(now);
    shared.success(now);
    let [one, two] = [(); 2].map(|()| pool(vec![endpoint(&shared)], 9, None));
    let held = Asking::new(&one).lease();
    let mut line: Vec<_> = [&two, &one, &two, &one].map(Asking::new).into();
    drop(held);
    // Pools take turns, each in its order.
    let mut served = Vec::new();
    while !line.is_empty() {
        let ready = line.iter_mut().position(|one| {
            let polled = one.poll();
            let found = polled.is_ready();
            if let Poll::Ready(placed) = polled {
                one.0 = Box::pin(std::future::ready(placed));
            }
            found
        });
        let lease = line.remove(ready.unwrap()).lease();
        served.push(Arc::ptr_eq(lease.pool(), &one));
    }
    assert_eq!(served.iter().filter(|is_one| **is_one).count(), 2);
    assert!(
        served[0] != served[1] && served[2] != served[3],
        "{served:?}"
    );
    assert_eq!((in_flight(&one), watchers(&one)), (vec![0], 0));
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Ask,
    /// A request that has been on the endpoint before.
    AskAgain(usize),
    Only(usize),
    End(usize),
    Leave(usize),
    Down(usize),
    Up(usize),
    Later,
    Reload,
}

fn step() -> impl Strategy<Value = Step> {
    let any = 0usize..24;
    prop_oneof![
        8 => Just(Step::Ask),
        2 => (0usize..3).prop_map(Step::AskAgain),
        1 => (0usize..3).prop_map(Step::Only),
        6 => any.clone().prop_map(Step::End),
        3 => any.prop_map(Step::Leave),
        1 => (0usize..3).prop_map(Step::Down),
        2 => (0usize..3).prop_map(Step::Up),
        1 => Just(Step::Later),
        1 => Just(Step::Reload),
    ]
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().unwrap()
}

async fn check(steps: Vec<Step>) {
    let mut pool = pool(endpoints(3, Instant::now()), 8, None);
    let mut waiting: Vec<(bool, Asking)> = Vec::new();
    let mut held: Vec<Lease> = Vec::new();
    for step in steps {
        let now = Instant::now();
        match step {
            Step::Ask => waiting.push((true, Asking::new(&pool))),
            Step::AskAgain(index) => waiting.push((false, Asking::tried(&pool, &[index]))),
            Step::Only(index) => waiting.push((false, Asking::only(&pool, index))),
            Step::End(at) if at < held.len() => drop(held.remove(at)),
            Step::Leave(at) if at < waiting.len() => drop(waiting.remove(at)),
            Step::End(_) | Step::Leave(_) => {}
            Step::Down(at) => pool.endpoints[at].state.fault(Fault::ConnectRefused, now),
            Step::Up(at) => {
                for _ in 0..2 {
                    pool.endpoints[at].state.probed(Ok(()), now);
                }
            }
            Step::Later => tokio::time::advance(TIMEOUT / 3).await,
            Step::Reload => {
                let mut list: Vec<_> = states(&pool).iter().map(endpoint).collect();
                list.rotate_left(1);
                pool = self::pool(list, 8, Some(&pool));
            }
        }
        let mut still: Vec<(bool, Asking)> = Vec::new();
        let mut any_waits = false;
        for (anywhere, mut asking) in waiting {
            match asking.poll() {
                Poll::Ready(placed) => {
                    // Only the time that is over, or the endpoints it may use, set one before another.
                    let served = placed.reply.is_ok();
                    assert!(!(served && anywhere && any_waits), "{step:?}: out of turn");
                    held.extend(placed.reply.ok());
                }
                Poll::Pending => {
                    any_waits |= anywhere;
                    still.push((anywhere, asking));
                }
            }
        }
        waiting = still;
        assert_eq!(pool.queue.depth(), waiting.len(), "{step:?}");
        let taken: u32 = in_flight(&pool).iter().sum();
        assert_eq!(taken as usize, held.len(), "{step:?}");
        assert!(in_flight(&pool).iter().all(|count| *count <= 1), "{step:?}");
        // Nobody waits for what is free.
        if any_waits {
            let free = |one: &&Endpoint| one.state.is_up() && one.state.in_flight() == 0;
            assert_eq!(pool.endpoints.iter().filter(free).count(), 0, "{step:?}");
        }
    }
    drop(held);
    for (_, mut asking) in waiting {
        drop(asking.poll());
    }
    assert_eq!((pool.queue.depth(), in_flight(&pool)), (0, vec![0, 0, 0]));
    assert_eq!(watchers(&pool), 0);
}

proptest! {
    #[test]
    fn no_place_and_no_turn_is_lost(steps in prop::collection::vec(step(), 0..120)) {
        runtime().block_on(check(steps));
    }
}

/// Threads that ask, hold, wait and leave at random, of two pools that share an engine.
#[test]
fn it_is_exact_under_contention() {
    let now = Instant::now();
    let shared = state(now);
    let pools: Vec<_> = (0..2)
        .map(|_| {
            let mut list = vec![endpoint(&shared), endpoint(&state(now))];
            for endpoint in &mut list {
                endpoint.max_in_flight = Some(2);
            }
            uncapped(list, 64, None)
        })
        .collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_time()
        .build()
        .unwrap();
    let tasks: Vec<_> = (0..16_u64)
        .map(|seed| {
            let mut pool = Arc::clone(&pools[usize::from(seed % 2 == 0)]);
            runtime.spawn(async move {
                let mut rng = fastrand::Rng::with_seed(seed);
                for _ in 0..400 {
                    let patience = Duration::from_micros(rng.u64(..300));
                    let (mut tried, mut waited) = (Tried::new(), None);
                    let facts = RequestFacts::default();
                    let mut own = rng.fork();
                    let asking =
                        lease_or_wait(&mut pool, &mut tried, None, &facts, &mut waited, &mut own);
                    let placed = match rng.u8(..4) {
                        // Waits for as long as it takes: a wakeup that is lost would hang here.
                        0 => Some(asking.await),
                        _ => tokio::time::timeout(patience, asking).await.ok(),
                    };
                    if let Some(placed) = placed {
                        let lease = placed.unwrap();
                        assert!(lease.state.in_flight() <= 2);
                        if rng.bool() {
                            tokio::task::yield_now().await;
                        }
                    }
                }
            })
        })
        .collect();
    runtime.block_on(async {
        for task in tasks {
            let ended = tokio::time::timeout(Duration::from_secs(50), task).await;
            ended.expect("nobody waits for ever").unwrap();
        }
    });
    for pool in &pools {
        assert_eq!((pool.queue.depth(), in_flight(pool)), (0, vec![0, 0]));
        assert_eq!(watchers(pool), 0);
    }
}
