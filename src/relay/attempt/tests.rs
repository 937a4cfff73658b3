//! Pooled connections over half an hour of a clock that only the test moves: sweeper, pool, tries and
//! an engine that closes what has been idle for five seconds, as uvicorn does.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::advance;

use super::*;
use crate::balance::RequestFacts;
use crate::pool::testing::config;
use crate::pool::{Pool, Tried};
use crate::relay::give_back;
use crate::snapshot::{Resolved, Snapshot, SnapshotCell};
use crate::tasks::sweeper;
use crate::telemetry::Metrics;

const HALF_AN_HOUR: Duration = Duration::from_secs(30 * 60);
/// uvicorn's `--timeout-keep-alive`.
const PATIENCE: Duration = Duration::from_secs(5);
const STEP: Duration = Duration::from_millis(250);
const SWEPT_EVERY: Duration = Duration::from_millis(500);
const HEAD: &[u8] = b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 0\r\n\r\n";

/// Time stands still but for [`pass`]. A paused clock would run on whenever all wait for a socket;
/// it does not while something blocks.
struct StoppedClock {
    _release: std::sync::mpsc::Sender<()>,
}

impl StoppedClock {
    fn stop() -> Self {
        let (release, held) = std::sync::mpsc::channel();
        // The error is the end of the test.
        tokio::task::spawn_blocking(move || held.recv().is_ok());
        Self { _release: release }
    }
}

/// Lets time pass, and everyone do what is theirs to do in it.
async fn pass(duration: Duration) {
    let end = Instant::now() + duration;
    while Instant::now() < end {
        advance(STEP.min(end - Instant::now())).await;
        settle().await;
    }
}

/// What is written to a Unix socket is there at once, so a few turns of the reactor are enough.
async fn settle() {
    for _ in 0..4 {
        tokio::task::yield_now().await;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closed {
    ByGateway,
    ByEngine,
}

/// What the engine saw.
#[derive(Default)]
struct Seen {
    accepted: AtomicU32,
    answered: AtomicU32,
    /// Who closed each connection, and how long it had been idle then.
    closed: Mutex<VecDeque<(Closed, Duration)>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Engine {
    Uvicorn,
    /// Closes a connection at the moment its second request arrives.
    ClosesUnderTheRequest,
}

async fn serve(listener: UnixListener, engine: Engine, seen: Arc<Seen>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        seen.accepted.fetch_add(1, Relaxed);
        tokio::spawn(one_connection(stream, engine, Arc::clone(&seen)));
    }
}

async fn one_connection(mut stream: UnixStream, engine: Engine, seen: Arc<Seen>) {
    let answer =
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
    let mut request = [0; HEAD.len()];
    for turn in 0_u32.. {
        let since = Instant::now();
        let closed = match timeout(PATIENCE, stream.read_exact(&mut request)).await {
            Err(_elapsed) => Closed::ByEngine,
            Ok(Err(_end)) => Closed::ByGateway,
            Ok(Ok(_)) if turn > 0 && engine == Engine::ClosesUnderTheRequest => return,
            Ok(Ok(_)) => {
                seen.answered.fetch_add(1, Relaxed);
                stream.write_all(answer).await.unwrap();
                continue;
            }
        };
        seen.closed.lock().push_back((closed, since.elapsed()));
        return;
    }
}

/// A gateway's way to one engine.
struct World {
    pool: Arc<Pool>,
    metrics: EndpointMetrics,
    limits: Limits,
    memory: Arc<BodyMemory>,
    seen: Arc<Seen>,
    socket: PathBuf,
    _tasks: JoinSet<()>,
    _clock: StoppedClock,
}

impl World {
    fn new(engine: Engine, idle: Duration) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let clock = StoppedClock::stop();
        let number = NUMBER.fetch_add(1, Relaxed);
        let name = format!("sluicegate-idle-{}-{number}.sock", std::process::id());
        let socket = std::env::temp_dir().join(name);
        let seen = Arc::new(Seen::default());
        let listener = UnixListener::bind(&socket).unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, engine, Arc::clone(&seen)));
        let mut config = config(&[&format!("unix:{}", socket.display())]);
        config.keepalive.idle = idle;
        let limits = config.limits.clone();
        let build = Snapshot::build(Arc::new(config), &Resolved::default(), None);
        let cell = Arc::new(SnapshotCell::new(build.unwrap().0));
        let pool = Arc::clone(cell.load().default_pool());
        tasks.spawn(sweeper::run(cell, std::future::pending()));
        Self {
            pool,
            metrics: Metrics::new("0").endpoint("default", "engine"),
            limits,
            memory: Arc::default(),
            seen,
            socket,
            _tasks: tasks,
            _clock: clock,
        }
    }

    /// A request that must succeed; what it came on is still in its hands.
    async fn begin(&self) -> (Lease, Answer) {
        let mut rng = fastrand::Rng::with_seed(1);
        let (facts, tried) = (RequestFacts::default(), Tried::new());
        let lease = (self.pool)
            .lease(&facts, &tried, Instant::now(), &mut rng)
            .expect("the endpoint is up");
        let exchange = Exchange {
            call: Call {
                repeatable: true,
                dialect: crate::openai::Dialect::Chat,
                prefix: "",
                own: None,
                body: crate::openai::BodyKind::Json,
                websocket: false,
            },
            kind: RequestKind::Other,
            body: &[],
            limits: &self.limits,
            memory: &self.memory,
            holder: None,
            usage: UsageAsked::default(),
            rename: None,
            may_go_on: false,
            choices: 1,
            only: None,
        };
        let Ok(answer) = attempt(&lease, &exchange, HEAD, &self.metrics, &mut || false).await
        else {
            panic!("a request failed");
        };
        assert!(answer.is_whole && answer.head.status == 200);
        (lease, answer)
    }

    /// Whether it came on a fresh connection.
    async fn request(&self) -> bool {
        let (lease, answer) = self.begin().await;
        let is_fresh = answer.connect.is_some();
        give_back(&lease, answer.connection, Instant::now());
        settle().await;
        is_fresh
    }

    fn idle(&self) -> usize {
        self.pool.endpoints[0].state.idle.len()
    }

    fn accepted(&self) -> u32 {
        self.seen.accepted.load(Relaxed)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.socket);
    }
}

#[tokio::test(start_paused = true)]
async fn half_an_hour_of_silence_leaves_no_connection_and_the_next_request_gets_a_fresh_one() {
    for idle in [1, 4, 10].map(Duration::from_secs) {
        let world = World::new(Engine::Uvicorn, idle);
        let mut burst = Vec::new();
        for _ in 0..8 {
            burst.push(world.begin().await);
        }
        for (lease, answer) in burst {
            give_back(&lease, answer.connection, Instant::now());
        }
        settle().await;
        assert_eq!((world.idle(), world.accepted()), (8, 8));

        let begun = Instant::now();
        pass(idle.min(PATIENCE) - STEP).await;
        assert_eq!(world.idle(), 8, "none is closed before its time");
        pass(STEP + SWEPT_EVERY).await;
        assert_eq!(
            world.idle(),
            0,
            "all are closed within a round of the sweeper"
        );
        let closed = std::mem::take(&mut *world.seen.closed.lock());
        assert_eq!(closed.len(), 8);
        for (by, after) in closed {
            if idle < PATIENCE {
                assert_eq!(by, Closed::ByGateway);
                assert!(after >= idle && after <= idle + SWEPT_EVERY, "{after:?}");
            } else {
                assert_eq!((by, after), (Closed::ByEngine, PATIENCE));
            }
        }
        pass(HALF_AN_HOUR - begun.elapsed()).await;
        assert_eq!(begun.elapsed(), HALF_AN_HOUR);

        assert_eq!((world.idle(), world.accepted()), (0, 8));
        assert!(world.request().await, "a fresh connection");
        assert!(!world.request().await, "the same again");
        assert_eq!((world.idle(), world.accepted()), (1, 9));
    }
}

#[tokio::test(start_paused = true)]
async fn half_an_hour_of_now_and_then_reuses_what_is_young_enough_and_fails_no_request() {
    for (seed, idle) in [(1, 4), (2, 5), (3, 10)] {
        let idle = Duration::from_secs(idle);
        let world = World::new(Engine::Uvicorn, idle);
        let mut rng = fastrand::Rng::with_seed(seed);
        let begun = Instant::now();
        assert!(world.request().await);
        let (mut requests, mut fresh) = (1, 1);
        while begun.elapsed() < HALF_AN_HOUR {
            // Exactly the limit is among them.
            let gap = STEP * rng.u32(0..40);
            pass(gap).await;
            let is_fresh = world.request().await;
            assert_eq!(is_fresh, gap >= idle.min(PATIENCE), "{gap:?} at {idle:?}");
            requests += 1;
            fresh += u32::from(is_fresh);
            assert_eq!(world.idle(), 1);
        }
        assert!(
            fresh > 100 && requests - fresh > 20,
            "{fresh} of {requests}"
        );
        assert_eq!(world.accepted(), fresh);
        assert_eq!(
            world.seen.answered.load(Relaxed),
            requests,
            "none came twice"
        );
        if idle + SWEPT_EVERY <= PATIENCE {
            let closed = world.seen.closed.lock();
            assert!(closed.iter().all(|(by, _)| *by == Closed::ByGateway));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn half_an_hour_of_requests_that_meet_the_engines_close_fails_none() {
    let world = World::new(Engine::ClosesUnderTheRequest, Duration::from_secs(4));
    let begun = Instant::now();
    let mut requests = 0;
    while begun.elapsed() < HALF_AN_HOUR {
        assert!(world.request().await, "the first try died on a pooled one");
        requests += 1;
        pass(Duration::from_secs(1)).await;
    }
    assert_eq!(requests, 1800);
    assert_eq!(world.accepted(), requests);
    assert_eq!(world.metrics.connections_reused.get(), 1799);
    assert_eq!(world.metrics.connections_new.get(), 1800);
}
