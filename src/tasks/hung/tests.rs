use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::oneshot;

use super::*;
use crate::balance::RequestFacts;
use crate::config::{Config, Engine};
use crate::engine::Load;
use crate::pool::testing::config;
use crate::pool::{Lease, ProbeFailure, State, Tried};
use crate::snapshot::Resolved;

const SECOND: Duration = Duration::from_secs(1);

/// Answers as told, in virtual time, and notes whom it was sent to and when.
struct Script {
    sign: Mutex<Sign>,
    sent: Mutex<Vec<(u64, Instant)>>,
}

#[async_trait]
impl Canary for Script {
    async fn send(&self, endpoint: &EndpointState, _: Instant) -> Sign {
        self.sent.lock().push((endpoint.id, Instant::now()));
        let sign = *self.sign.lock();
        match sign {
            Sign::Silent => std::future::pending().await,
            sign => sign,
        }
    }
}

struct Scene {
    cell: Arc<SnapshotCell>,
    script: Arc<Script>,
    began: Instant,
    _stop: oneshot::Sender<()>,
}

fn vllm(urls: &[&str]) -> Config {
    let mut config = config(urls);
    config.pools[0].engine = Some(Engine::Vllm);
    config
}

fn start(config: Config, sign: Sign) -> Scene {
    let (snapshot, _) = Snapshot::build(Arc::new(config), &Resolved::default(), None).unwrap();
    let cell = Arc::new(SnapshotCell::new(snapshot));
    let script = Arc::new(Script {
        sign: Mutex::new(sign),
        sent: Mutex::default(),
    });
    let (stop, stopped) = oneshot::channel::<()>();
    let canary: Arc<dyn Canary> = Arc::clone(&script) as _;
    tokio::spawn(run(Arc::clone(&cell), canary, async {
        let _ = stopped.await;
    }));
    Scene {
        cell,
        script,
        began: Instant::now(),
        _stop: stop,
    }
}

impl Scene {
    /// Takes a place on the endpoint with this index.
    fn lease(&self, index: usize) -> Lease {
        let pool = Arc::clone(self.cell.load().default_pool());
        let tried = Tried::all_but(index, pool.endpoints.len());
        let mut rng = fastrand::Rng::with_seed(1);
        let facts = RequestFacts::default();
        pool.lease(&facts, &tried, Instant::now(), &mut rng)
            .unwrap()
    }

    fn state(&self, index: usize) -> State {
        let snapshot = self.cell.load();
        let endpoint = &snapshot.default_pool().endpoints[index];
        endpoint.state.status(Instant::now()).state
    }

    /// When canaries were sent since the last call, in seconds from the start.
    fn sent(&self) -> Vec<u64> {
        let sent = std::mem::take(&mut *self.script.sent.lock());
        let after = |at: &Instant| at.duration_since(self.began).as_secs();
        sent.iter().map(|(_, at)| after(at)).collect()
    }
}

async fn pass(seconds: u64) {
    tokio::time::sleep(SECOND * u32::try_from(seconds).unwrap()).await;
}

fn counted(tokens: u64) -> Load {
    Load {
        generation_tokens: Some(tokens),
        ..Load::default()
    }
}

const TWO: [&str; 2] = ["10.0.0.1:8000", "10.0.0.2:8000"];

#[tokio::test(start_paused = true)]
async fn an_idle_endpoint_is_not_asked() {
    let scene = start(vllm(&TWO), Sign::Silent);
    pass(3600).await;
    assert!(scene.sent().is_empty());
    assert_eq!(scene.state(0), State::Up);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_silent_and_does_not_answer_a_canary_is_ejected() {
    let scene = start(vllm(&TWO), Sign::Silent);
    pass(100).await;
    let lease = scene.lease(0);
    pass(20).await;
    // It goes on, once.
    lease.state.progressed(Instant::now());
    pass(29).await;
    assert!(scene.sent().is_empty());
    pass(10).await;
    assert_eq!((scene.sent(), scene.state(0)), (vec![150], State::Up));
    pass(2).await;
    assert_eq!(scene.state(0), State::Ejected);
    assert_eq!(lease.state.removals(), [("hung", 1)]);
    let reason = lease.state.status(Instant::now()).reason.unwrap();
    assert_eq!(reason.as_str(), "hung");
    assert_eq!(scene.state(1), State::Up);
    // It still holds the request.
    pass(80).await;
    assert_eq!(scene.sent(), [190, 230]);
    assert_eq!(lease.state.removals(), [("hung", 1)]);
    drop(lease);
    pass(300).await;
    assert!(scene.sent().is_empty());
}

#[tokio::test(start_paused = true)]
async fn any_answer_is_a_sign_of_life() {
    for (sign, counts, is_out) in [
        (Sign::Alive, true, false),
        (Sign::NotSent, true, false),
        (Sign::Full, false, false),
        (Sign::Full, true, true),
        (Sign::Fails(500), false, true),
    ] {
        let scene = start(vllm(&TWO), sign);
        let lease = scene.lease(0);
        if counts {
            lease.state.report.set(counted(7), Instant::now());
        }
        pass(100).await;
        assert_eq!(scene.sent().len(), 3, "once a stall");
        let state = scene.state(0);
        assert_eq!(state == State::Ejected, is_out, "{sign:?}: {state:?}");
    }
    let scene = start(vllm(&TWO), Sign::Refused);
    let lease = scene.lease(0);
    pass(31).await;
    assert_eq!(scene.state(0), State::Down);
    assert_eq!(lease.state.removals(), [("connect_refused", 1)]);
}

#[tokio::test(start_paused = true)]
async fn one_whose_counters_go_on_is_busy() {
    let scene = start(vllm(&TWO), Sign::Silent);
    let lease = scene.lease(0);
    let mut load = counted(0);
    // A prompt of a minute, with others going on, then one alone, whose tokens fill the cache.
    for second in 0..120_u32 {
        pass(1).await;
        match second {
            0..60 => load.generation_tokens = Some(u64::from(second)),
            _ => load.kv_usage = Some(f64::from(second) / 1000.0),
        }
        lease.state.report.set(load, Instant::now());
    }
    pass(20).await;
    assert_eq!((scene.sent(), scene.state(0)), (vec![], State::Up));
    for _ in 0..25 {
        pass(1).await;
        lease.state.report.set(load, Instant::now());
    }
    assert_eq!((scene.sent(), scene.state(0)), (vec![150], State::Ejected));
}

#[tokio::test(start_paused = true)]
async fn it_may_go_on_while_it_is_asked() {
    let scene = start(vllm(&TWO), Sign::Silent);
    let lease = scene.lease(0);
    pass(35).await;
    assert_eq!(scene.sent(), [30]);
    lease.state.progressed(Instant::now());
    pass(20).await;
    assert_eq!((scene.sent(), scene.state(0)), (vec![], State::Up));
}

#[tokio::test(start_paused = true)]
async fn the_last_one_stays() {
    let scene = start(vllm(&TWO), Sign::Silent);
    let both = [scene.lease(0), scene.lease(1)];
    pass(60).await;
    let states = [scene.state(0), scene.state(1)];
    assert!(
        states.contains(&State::Up) && states.contains(&State::Ejected),
        "{states:?}"
    );
    pass(300).await;
    assert_eq!(states, [scene.state(0), scene.state(1)], "and it stays");
    drop(both);
    let alone = start(vllm(&TWO[..1]), Sign::Silent);
    let lease = alone.lease(0);
    pass(300).await;
    assert_eq!(alone.state(0), State::Up);
    drop(lease);
}

#[tokio::test(start_paused = true)]
async fn others_are_not_asked() {
    for engine in [None, Some(Engine::OpenAi)] {
        let mut config = config(&TWO);
        config.pools[0].engine = engine;
        let scene = start(config, Sign::Silent);
        let lease = scene.lease(0);
        pass(300).await;
        assert_eq!((scene.sent(), scene.state(0)), (vec![], State::Up));
        drop(lease);
    }
}

#[tokio::test(start_paused = true)]
async fn another_stall_takes_effect() {
    let scene = start(vllm(&TWO), Sign::Silent);
    let lease = scene.lease(0);
    pass(1).await;
    let mut config = vllm(&TWO);
    config.pools[0].health.stall = SECOND * 4;
    scene
        .cell
        .apply(Arc::new(config), &Resolved::default())
        .unwrap();
    pass(6).await;
    assert_eq!((scene.sent(), scene.state(0)), (vec![4], State::Ejected));
    drop(lease);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_out_already_is_asked_for_the_sake_of_its_requests() {
    let scene = start(vllm(&TWO), Sign::Silent);
    let lease = scene.lease(0);
    let unwell = Err(ProbeFailure::Status(500));
    lease.state.probed(unwell, Instant::now());
    assert_eq!(scene.state(0), State::Down);
    pass(39).await;
    assert_eq!((scene.sent(), scene.state(0)), (vec![30], State::Down));
    assert!(recalled(&lease).await.is_none());
    pass(2).await;
    assert_eq!(recalled(&lease).await, Some(Fault::Hung));
    assert_eq!(lease.state.removals(), [("probe", 1)]);
}

#[tokio::test(start_paused = true)]
async fn one_that_answers_no_probe_is_not_asked_as_well() {
    for failure in [ProbeFailure::TimedOut, ProbeFailure::ConnectTimedOut] {
        let scene = start(vllm(&TWO), Sign::Alive);
        let lease = scene.lease(0);
        lease.state.probed(Err(failure), Instant::now());
        assert_eq!(scene.state(0), State::Down);
        pass(29).await;
        assert!(recalled(&lease).await.is_none());
        pass(2).await;
        assert_eq!(recalled(&lease).await, Some(Fault::Hung));
        assert_eq!((scene.sent(), scene.state(0)), (vec![], State::Down));
    }
}

async fn recalled(lease: &Lease) -> Option<Fault> {
    tokio::time::timeout(Duration::ZERO, lease.recalled())
        .await
        .ok()
}

#[tokio::test(start_paused = true)]
async fn one_that_has_left_the_file_is_watched_for_as_long_as_it_holds_requests() {
    let scene = start(vllm(&TWO), Sign::Silent);
    let lease = scene.lease(0);
    let rest = Arc::new(vllm(&TWO[1..]));
    scene.cell.apply(rest, &Resolved::default()).unwrap();
    pass(45).await;
    assert_eq!(scene.sent(), [30]);
    assert_eq!(recalled(&lease).await, Some(Fault::Hung));
    drop(lease);
    pass(300).await;
    assert!(scene.sent().is_empty());
    assert_eq!(scene.cell.load().all_endpoints().count(), 1);
}
