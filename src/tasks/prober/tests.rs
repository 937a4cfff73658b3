use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::oneshot;

use super::*;
use crate::config::Config;
use crate::pool::testing::{config, resolved, settings, target};
use crate::pool::{Fault, State};
use crate::snapshot::{Resolved, Snapshot};
use crate::upstream::{Address, Target};

const MILLI: Duration = Duration::from_millis(1);

/// Answers as told, in virtual time, and notes when it was asked for what.
#[derive(Default)]
struct Script {
    asked: Mutex<Vec<(String, Instant)>>,
    answers: Mutex<VecDeque<Answer>>,
    /// When it was asked for a proof.
    proofs: Mutex<Vec<Instant>>,
    /// How the next proofs fail.
    unproven: Mutex<VecDeque<ProbeFailure>>,
}

#[derive(Clone, Copy)]
enum Answer {
    Now(Result<(), ProbeFailure>),
    Never,
    Panic,
}

#[async_trait]
impl Probe for Script {
    async fn probe(&self, endpoint: &EndpointState, _: Instant) -> Result<(), ProbeFailure> {
        let name = endpoint.settings().name.to_string();
        self.asked.lock().push((name, Instant::now()));
        let answer = self.answers.lock().pop_front();
        match answer.unwrap_or(Answer::Now(Ok(()))) {
            Answer::Now(result) => result,
            Answer::Never => std::future::pending().await,
            Answer::Panic => panic!("as the script says"),
        }
    }

    async fn prove(&self, _: &EndpointState) -> Result<(), ProbeFailure> {
        self.proofs.lock().push(Instant::now());
        match self.unproven.lock().pop_front() {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }
}

impl Script {
    fn then(&self, answers: &[Answer]) {
        self.answers.lock().extend(answers);
    }

    /// The times of the probes since the last call, from `since` on, in milliseconds.
    fn times(&self, since: Instant) -> Vec<u128> {
        let asked = self.asked.lock().drain(..).collect::<Vec<_>>();
        asked
            .iter()
            .map(|(_, at)| at.duration_since(since).as_millis())
            .collect()
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.asked.lock().drain(..).map(|(name, _)| name).collect();
        names.sort();
        names.dedup();
        names
    }
}

struct Scene {
    cell: Arc<SnapshotCell>,
    script: Arc<Script>,
    stop: Option<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<()>,
}

fn cell(config: Config) -> Arc<SnapshotCell> {
    let (snapshot, _) = Snapshot::build(Arc::new(config), &Resolved::default(), None).unwrap();
    Arc::new(SnapshotCell::new(snapshot))
}

fn start(config: Config, answers: &[Answer]) -> Scene {
    let cell = cell(config);
    let script = Arc::new(Script::default());
    script.then(answers);
    let (stop, stopped) = oneshot::channel::<()>();
    let probe: Arc<dyn Probe> = Arc::clone(&script) as _;
    let task = tokio::spawn(run(Arc::clone(&cell), probe, async {
        let _ = stopped.await;
    }));
    Scene {
        cell,
        script,
        stop: Some(stop),
        task,
    }
}

impl Scene {
    fn endpoint(&self) -> Arc<EndpointState> {
        Arc::clone(self.cell.load().endpoints().next().unwrap())
    }

    fn state(&self) -> State {
        self.endpoint().status(Instant::now()).state
    }
}

fn near(time: u128, expected: u128) -> bool {
    time.abs_diff(expected) <= expected / 10 + 2
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_is_asked_at_once_and_then_every_interval() {
    let began = Instant::now();
    let scene = start(config(&["10.0.0.1:8000"]), &[]);
    tokio::time::sleep(MILLI * 26_000).await;
    let times = scene.script.times(began);
    assert_eq!(times[0], 0);
    assert!((5..=6).contains(&times.len()), "{times:?}");
    for pair in times.windows(2) {
        assert!(near(pair[1] - pair[0], 5_000), "{times:?}");
    }
    assert_eq!(scene.state(), State::Up);
}

#[tokio::test(start_paused = true)]
async fn a_refused_endpoint_is_followed_closely_until_it_is_back() {
    let began = Instant::now();
    let refused = Answer::Now(Err(ProbeFailure::Refused));
    let scene = start(config(&["10.0.0.1:8000"]), &[refused; 4]);
    tokio::time::sleep(MILLI * 10).await;
    assert_eq!(scene.state(), State::Down);
    tokio::time::sleep(MILLI * 4_000).await;
    let times = scene.script.times(began);
    let gaps: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // Refused four times, then well, twice.
    for (gap, expected) in gaps.iter().zip([200, 400, 800, 1_600, 200]) {
        assert!(near(*gap, expected), "{gaps:?}");
    }
    assert_eq!(gaps.len(), 5);
    assert_eq!(scene.state(), State::Ramping);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_was_out_proves_itself_once_before_it_is_back() {
    let began = Instant::now();
    let refused = Answer::Now(Err(ProbeFailure::Refused));
    let scene = start(config(&["10.0.0.1:8000"]), &[refused]);
    tokio::time::sleep(MILLI * 1_000).await;
    assert_eq!(scene.state(), State::Ramping);
    let proofs = std::mem::take(&mut *scene.script.proofs.lock());
    assert_eq!(proofs.len(), 1, "with the probe that lets it in");
    assert!(near(proofs[0].duration_since(began).as_millis(), 400));
    tokio::time::sleep(MILLI * 60_000).await;
    assert_eq!(scene.script.proofs.lock().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_well_and_does_not_serve_stays_out_and_is_asked_ever_less_often() {
    let refused = Answer::Now(Err(ProbeFailure::Refused));
    let scene = start(config(&["10.0.0.1:8000"]), &[refused]);
    let failures = [ProbeFailure::NoCanary; 9];
    scene.script.unproven.lock().extend(failures);
    tokio::time::sleep(MILLI * 25_000).await;
    assert_eq!(scene.state(), State::Down);
    let reason = scene.endpoint().status(Instant::now()).reason.unwrap();
    assert_eq!(reason.as_str(), "probe_canary");
    let proofs = scene.script.proofs.lock().clone();
    let gaps: Vec<_> = (proofs.windows(2))
        .map(|pair| (pair[1] - pair[0]).as_millis())
        .collect();
    for (gap, expected) in gaps.iter().zip([400, 800, 1_600, 3_200, 5_000, 5_000]) {
        assert!(near(*gap, expected), "{gaps:?}");
    }
    tokio::time::sleep(MILLI * 45_000).await;
    assert_eq!(
        scene.state(),
        State::Up,
        "once it serves, and after its ramp"
    );
    assert_eq!(scene.script.proofs.lock().len(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_hangs_fails_after_the_timeout() {
    let scene = start(config(&["10.0.0.1:8000"]), &[Answer::Never]);
    tokio::time::sleep(MILLI * 1_999).await;
    assert_eq!(scene.state(), State::Up);
    tokio::time::sleep(MILLI * 2).await;
    assert_eq!(scene.state(), State::Down);
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_is_asked_about_at_once() {
    let scene = start(config(&["10.0.0.1:8000"]), &[]);
    tokio::time::sleep(MILLI * 1_000).await;
    scene.script.times(Instant::now());
    let lost = Instant::now();
    scene.endpoint().fault(Fault::ConnectionLost, lost);
    tokio::time::sleep(MILLI * 10).await;
    assert_eq!(scene.script.times(lost), [0]);
}

#[tokio::test(start_paused = true)]
async fn an_ejected_endpoint_is_left_alone_until_its_time() {
    let scene = start(config(&["10.0.0.1:8000"]), &[]);
    tokio::time::sleep(MILLI * 1_000).await;
    scene.script.times(Instant::now());
    let ejected = Instant::now();
    for _ in 0..3 {
        scene.endpoint().fault(Fault::Status(500), ejected);
    }
    assert_eq!(scene.state(), State::Ejected);
    tokio::time::sleep(MILLI * 12_100).await;
    let times = scene.script.times(ejected);
    assert!((8_000..=12_001).contains(&times[0]), "{times:?}");
    assert!(scene.endpoint().is_up());
}

#[tokio::test(start_paused = true)]
async fn probing_follows_the_snapshots() {
    let scene = start(config(&["10.0.0.1:8000", "lost:8000"]), &[]);
    tokio::time::sleep(MILLI * 6_000).await;
    assert_eq!(scene.script.names(), ["10.0.0.1:8000"]);

    let next = config(&["10.0.0.2:8000", "10.0.0.3:8000"]);
    scene
        .cell
        .apply(Arc::new(next), &Resolved::default())
        .unwrap();
    tokio::time::sleep(MILLI * 20_000).await;
    assert_eq!(scene.script.names(), ["10.0.0.2:8000", "10.0.0.3:8000"]);

    let next = config(&["lost:8000"]);
    let found = resolved(&[("lost", &[[10, 0, 0, 9]])]);
    scene.cell.apply(Arc::new(next), &found).unwrap();
    tokio::time::sleep(MILLI * 10).await;
    assert_eq!(scene.script.names(), ["lost:8000"]);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_panics_is_begun_again() {
    let scene = start(config(&["10.0.0.1:8000"]), &[Answer::Panic]);
    tokio::time::sleep(MILLI * 100).await;
    assert!(scene.script.times(Instant::now() - MILLI * 100).len() >= 2);
    assert_eq!(scene.state(), State::Up);
}

#[tokio::test(start_paused = true)]
async fn it_ends_at_shutdown() {
    let mut scene = start(config(&["10.0.0.1:8000"]), &[Answer::Never]);
    tokio::time::sleep(MILLI * 10).await;
    scene.stop.take().unwrap().send(()).unwrap();
    tokio::time::timeout(MILLI, scene.task)
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_first_round_gives_every_endpoint_its_verdict_in_time() {
    let cell = cell(config(&["10.0.0.1:8000", "10.0.0.2:8000", "lost:8000"]));
    let script = Arc::new(Script::default());
    script.then(&[Answer::Now(Ok(())), Answer::Never]);
    let probe: Arc<dyn Probe> = Arc::clone(&script) as _;
    let began = Instant::now();
    first_round(&cell, &probe).await;
    let timeout = cell.load().config.pools[0].health.timeout;
    assert_eq!(began.elapsed(), timeout);
    assert_eq!(up(&cell), [true, false, false]);
}

#[tokio::test(start_paused = true)]
async fn a_start_does_not_wait_for_a_probe_that_may_take_a_minute() {
    let mut config = config(&["10.0.0.1:8000", "10.0.0.2:8000"]);
    config.pools[0].health.timeout = MILLI * 60_000;
    let cell = cell(config);
    let script = Arc::new(Script::default());
    script.then(&[Answer::Now(Ok(())), Answer::Never]);
    let probe: Arc<dyn Probe> = Arc::clone(&script) as _;
    let began = Instant::now();
    first_round(&cell, &probe).await;
    assert_eq!(began.elapsed(), FIRST_ROUND);
    // Nobody knows yet; and it is probed at once when the gateway runs.
    assert_eq!(up(&cell), [true, true]);
    let snapshot = cell.load();
    let late = snapshot.endpoints().nth(1).unwrap();
    assert!(late.next_probe().unwrap() <= Instant::now());
}

fn up(cell: &SnapshotCell) -> Vec<bool> {
    let snapshot = cell.load();
    snapshot
        .endpoints()
        .map(|endpoint| endpoint.is_up())
        .collect()
}

/// What the real probe makes of one answer, and what it sent.
async fn answered(bytes: &'static [u8]) -> (Result<(), ProbeFailure>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 4096];
        let read = stream.read(&mut request).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        if bytes.is_empty() {
            // Hangs for as long as it is asked.
            let _ = stream.read(&mut request[read..]).await;
        }
        String::from_utf8_lossy(&request[..read]).into_owned()
    });
    let mut settings = (*settings("node0:8000")).clone();
    settings.health.path = "/health?deep=1".to_owned();
    settings.api_key = Some(crate::config::Secret::new("k3y".to_owned()));
    let state = EndpointState::new(target(port), Arc::new(settings), Instant::now());
    let verdict = HttpProbe.probe(&state, Instant::now() + MILLI * 300).await;
    (verdict, server.await.unwrap())
}

#[tokio::test]
async fn the_verdict_is_the_status() {
    let (verdict, request) = answered(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(verdict, Ok(()));
    let port = request.split("Host: node:").nth(1).unwrap();
    let port = port.split('\r').next().unwrap();
    assert_eq!(
        request,
        format!(
            "GET /health?deep=1 HTTP/1.1\r\nHost: node:{port}\r\nUser-Agent: sluicegate\r\n\
             Accept: */*\r\nConnection: close\r\nAuthorization: Bearer k3y\r\n\r\n"
        )
    );
    for (answer, expected) in [
        (&b"HTTP/1.1 204 No Content\r\n\r\n"[..], Ok(())),
        // The body does not matter, not even that it is missing.
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", Ok(())),
        (b"HTTP/1.0 200 OK\r\n\r\nfine", Ok(())),
        (
            b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
            Err(ProbeFailure::Status(503)),
        ),
        (
            b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n",
            Err(ProbeFailure::Status(302)),
        ),
        (b"SSH-2.0-OpenSSH\r\n\r\n", Err(ProbeFailure::BadResponse)),
        (b"HTTP/1.1 200 ", Err(ProbeFailure::BadResponse)),
        (b"", Err(ProbeFailure::TimedOut)),
    ] {
        assert_eq!(answered(answer).await.0, expected);
    }
}

fn at(address: Address) -> EndpointState {
    let target = Target {
        address,
        authority: "localhost".to_owned(),
        tls: None,
    };
    EndpointState::new(target, settings("node0:8000"), Instant::now())
}

#[tokio::test]
async fn nobody_there_is_refused() {
    let port = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let deadline = Instant::now() + MILLI * 500;
    let state = at(Address::Tcp(port));
    assert_eq!(
        HttpProbe.probe(&state, deadline).await,
        Err(ProbeFailure::Refused)
    );
    let state = at(Address::Unix("/nonexistent/engine.sock".into()));
    assert_eq!(
        HttpProbe.probe(&state, deadline).await,
        Err(ProbeFailure::Refused)
    );
}

#[tokio::test]
async fn a_unix_socket_is_probed_too() {
    let directory = std::env::temp_dir().join(format!("sluicegate-prober-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("engine.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    });
    let state = at(Address::Unix(path));
    let verdict = HttpProbe.probe(&state, Instant::now() + MILLI * 1000).await;
    server.await.unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
    assert_eq!(verdict, Ok(()));
}

#[tokio::test]
async fn what_cannot_stand_in_a_request_is_not_sent() {
    let state = at(Address::Tcp(([127, 0, 0, 1], 1).into()));
    let mut settings = (*state.settings()).clone();
    settings.health.path = "/a b".to_owned();
    state.configure(&Arc::new(settings), Instant::now());
    let verdict = HttpProbe.probe(&state, Instant::now() + MILLI * 100).await;
    assert_eq!(verdict, Err(ProbeFailure::Unsendable));
}
