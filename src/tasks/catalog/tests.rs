use std::collections::VecDeque;
use std::future::{pending, ready};

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::*;
use crate::config::{Config, Engine};
use crate::pool::testing::{config, settings, target};
use crate::pool::{Fault, ProbeFailure};
use crate::snapshot::{Resolved, Snapshot};

const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// Answers as told, in virtual time, and notes when it was asked. With nothing left to tell it is vLLM
/// with `R1`.
#[derive(Default)]
struct Script {
    asked: Mutex<Vec<(String, Instant)>>,
    answers: Mutex<VecDeque<Answer>>,
}

#[derive(Clone, Copy)]
enum Answer {
    Serves(&'static str, &'static str),
    Status(u16),
    Never,
    Panic,
}

fn catalog(owned_by: &str, model: &str) -> Catalog {
    let answer = serde_json::json!({ "data": [{ "id": model, "owned_by": owned_by }] });
    Catalog::parse(answer.to_string().as_bytes()).unwrap()
}

#[async_trait]
impl Ask for Script {
    async fn ask(&self, endpoint: &EndpointState, _: Instant) -> Result<Catalog, Failure> {
        let name = endpoint.settings().name.to_string();
        self.asked.lock().push((name, Instant::now()));
        let answer = self.answers.lock().pop_front();
        match answer.unwrap_or(Answer::Serves("vllm", "R1")) {
            Answer::Serves(owned_by, model) => Ok(catalog(owned_by, model)),
            Answer::Status(status) => Err(Failure::Status(status)),
            Answer::Never => pending().await,
            Answer::Panic => panic!("as the script says"),
        }
    }
}

impl Script {
    /// The times of the questions since the last call, from `since` on, in seconds, rounded.
    fn times(&self, since: Instant) -> Vec<u64> {
        let asked = self.asked.lock().drain(..).collect::<Vec<_>>();
        let each = asked.iter();
        each.map(|(_, at)| (at.duration_since(since) + SECOND / 2).as_secs())
            .collect()
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.asked.lock().drain(..).map(|(name, _)| name).collect();
        names.sort();
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

fn script(answers: &[Answer]) -> Arc<Script> {
    let script = Arc::new(Script::default());
    script.answers.lock().extend(answers);
    script
}

fn start(config: Config, answers: &[Answer]) -> Scene {
    let (cell, script) = (cell(config), script(answers));
    let (stop, stopped) = oneshot::channel::<()>();
    let ask: Arc<dyn Ask> = Arc::clone(&script) as _;
    let task = tokio::spawn(run(Arc::clone(&cell), ask, async {
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

    /// The engine and its first model, as last said.
    fn known(&self) -> Option<(Engine, String)> {
        let endpoint = self.endpoint();
        let model = endpoint.catalog.get()?.names().next()?.to_owned();
        Some((endpoint.catalog.engine()?, model))
    }
}

fn vllm() -> Option<(Engine, String)> {
    Some((Engine::Vllm, "R1".to_owned()))
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_is_asked_at_once_and_then_every_minute() {
    let began = Instant::now();
    let scene = start(
        config(&["10.0.0.1:8000"]),
        &[Answer::Serves("vllm", "R1"), Answer::Serves("sglang", "V3")],
    );
    tokio::time::sleep(MILLI).await;
    assert_eq!(scene.known(), vllm());
    tokio::time::sleep(SECOND * 67).await;
    assert_eq!(scene.known(), Some((Engine::Sglang, "V3".to_owned())));
    tokio::time::sleep(SECOND * 533).await;
    let times = scene.script.times(began);
    assert_eq!(times[0], 0);
    assert!((10..=12).contains(&times.len()), "{times:?}");
    for pair in times.windows(2) {
        assert!((53..=67).contains(&(pair[1] - pair[0])), "{times:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_changes_nothing_and_is_tried_again_ever_later() {
    let mut answers = vec![Answer::Serves("vllm", "R1")];
    answers.extend([Answer::Status(404), Answer::Never, Answer::Status(401)]);
    answers.extend([Answer::Status(500); 3]);
    let scene = start(config(&["10.0.0.1:8000"]), &answers);
    let began = Instant::now();
    tokio::time::sleep(SECOND * 300).await;
    assert_eq!(scene.known(), vllm());
    let times = scene.script.times(began);
    let gaps: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // One of them takes the two seconds that it may.
    for (gap, expected) in gaps.iter().zip([60, 5, 12, 20, 40, 60, 60]) {
        assert!(gap.abs_diff(expected) <= expected / 10 + 1, "{gaps:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_comes_back_is_asked_at_once_and_known_meanwhile() {
    let scene = start(config(&["10.0.0.1:8000"]), &[]);
    tokio::time::sleep(SECOND).await;
    let endpoint = scene.endpoint();
    endpoint.probed(Err(ProbeFailure::Refused), Instant::now());
    scene.script.times(Instant::now() - SECOND * 60);
    tokio::time::sleep(SECOND * 300).await;
    // Down: left alone.
    assert_eq!(scene.script.names(), [""; 0]);
    assert_eq!(scene.known(), vllm());
    scene
        .script
        .answers
        .lock()
        .push_back(Answer::Serves("vllm", "V3"));
    let back = Instant::now();
    endpoint.probed(Ok(()), back);
    endpoint.probed(Ok(()), back);
    tokio::time::sleep(MILLI * 10).await;
    assert_eq!(scene.script.times(back), [0]);
    assert_eq!(scene.known(), Some((Engine::Vllm, "V3".to_owned())));
}

#[tokio::test(start_paused = true)]
async fn a_fault_that_does_not_take_it_out_asks_nothing() {
    let scene = start(config(&["10.0.0.1:8000"]), &[]);
    tokio::time::sleep(SECOND).await;
    scene.script.names();
    scene.endpoint().fault(Fault::Status(500), Instant::now());
    scene.endpoint().success(Instant::now());
    tokio::time::sleep(SECOND * 50).await;
    assert_eq!(scene.script.names(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn asking_follows_the_snapshots() {
    let scene = start(config(&["10.0.0.1:8000", "lost:8000"]), &[]);
    tokio::time::sleep(MILLI).await;
    assert_eq!(scene.script.names(), ["10.0.0.1:8000"]);
    let next = config(&["10.0.0.1:8000", "10.0.0.2:8000"]);
    scene
        .cell
        .apply(Arc::new(next), &Resolved::default())
        .unwrap();
    assert_eq!(scene.known(), vllm());
    tokio::time::sleep(MILLI).await;
    // The old one too: its key may be another.
    assert_eq!(scene.script.names(), ["10.0.0.1:8000", "10.0.0.2:8000"]);
    let next = config(&["10.0.0.2:8000"]);
    scene
        .cell
        .apply(Arc::new(next), &Resolved::default())
        .unwrap();
    // The one that goes may hear of the change before it is ended.
    tokio::time::sleep(MILLI).await;
    scene.script.names();
    tokio::time::sleep(SECOND * 200).await;
    let names = scene.script.names();
    assert!(names.len() > 2 && names.iter().all(|name| name == "10.0.0.2:8000"));
}

#[tokio::test(start_paused = true)]
async fn one_that_panics_is_begun_again_and_shutdown_ends_it() {
    let mut scene = start(config(&["10.0.0.1:8000"]), &[Answer::Panic]);
    tokio::time::sleep(MILLI * 100).await;
    assert_eq!(scene.known(), vllm());
    scene.stop.take().unwrap().send(()).unwrap();
    timeout(MILLI, scene.task).await.unwrap().unwrap();
}

/// How long the start waits, and which of two endpoints it then knows.
async fn round(
    answers: &[Answer],
    probes: impl Future<Output = ()>,
    at_most: Duration,
) -> (Duration, [bool; 2]) {
    let cell = cell(config(&["10.0.0.1:8000", "10.0.0.2:8000", "lost:8000"]));
    let ask: Arc<dyn Ask> = script(answers);
    let began = Instant::now();
    first_round(&cell, &ask, at_most, probes).await;
    let snapshot = cell.load();
    let known: Vec<_> = snapshot
        .endpoints()
        .map(|endpoint| endpoint.catalog.get().is_some())
        .collect();
    assert!(!known[2]);
    (began.elapsed(), [known[0], known[1]])
}

#[tokio::test(start_paused = true)]
async fn the_start_waits_for_the_probes_and_hardly_longer() {
    let (takes, known) = round(&[], ready(()), SECOND).await;
    assert_eq!((takes, known), (Duration::ZERO, [true, true]));
    let hangs = [Answer::Serves("vllm", "R1"), Answer::Never];
    let (takes, known) = round(&hangs, ready(()), SECOND).await;
    assert_eq!((takes, known), (GRACE, [true, false]));
    let (takes, known) = round(&hangs, sleep(SECOND), SECOND).await;
    assert_eq!((takes, known), (SECOND, [true, false]));
    let (takes, known) = round(&[], sleep(SECOND), SECOND).await;
    assert_eq!((takes, known), (SECOND, [true, true]));
    let (takes, _) = round(&hangs, ready(()), MILLI * 100).await;
    assert_eq!(takes, MILLI * 100);
}

/// What the real question makes of one answer, and what it sent.
async fn answered(answer: Vec<u8>) -> (Result<Catalog, String>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 4096];
        let read = stream.read(&mut request).await.unwrap();
        // Whoever has heard enough hangs up.
        let _ = stream.write_all(&answer).await;
        if answer.is_empty() {
            let _ = stream.read(&mut request[read..]).await;
        }
        String::from_utf8_lossy(&request[..read]).into_owned()
    });
    let mut settings = (*settings("node0:8000")).clone();
    settings.api_key = Some(crate::config::Secret::new("k3y".to_owned()));
    let state = EndpointState::new(target(port), Arc::new(settings), Instant::now());
    let asked = HttpAsk.ask(&state, Instant::now() + MILLI * 300).await;
    let asked = asked.map_err(|failure| failure.to_string());
    (asked, server.await.unwrap())
}

fn with_length(body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

#[tokio::test]
async fn an_answer_is_read_to_its_end() {
    let body = r#"{"object":"list","data":[{"id":"R1","owned_by":"vllm"}]}"#;
    let (asked, request) = answered(with_length(body)).await;
    assert_eq!(asked.as_ref(), Ok(&catalog("vllm", "R1")));
    let (_, port) = request.split_once("Host: node:").unwrap();
    let (port, _) = port.split_once('\r').unwrap();
    assert_eq!(
        request,
        format!(
            "GET /v1/models HTTP/1.1\r\nHost: node:{port}\r\nUser-Agent: sluicegate\r\n\
             Accept: application/json\r\nConnection: close\r\nAuthorization: Bearer k3y\r\n\r\n"
        )
    );
    let (one, two) = body.split_at(20);
    let chunks = format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{one}\r\n{:x}\r\n{two}\r\n0\r\n\r\n",
        one.len(),
        two.len()
    );
    assert_eq!(answered(chunks.into_bytes()).await.0, asked);
    // As long as may be, and one byte more.
    let spaces = |length: usize| format!("{body}{}", " ".repeat(length - body.len()));
    assert_eq!(answered(with_length(&spaces(LONGEST))).await.0, asked);
    let (longer, _) = answered(with_length(&spaces(LONGEST + 1))).await;
    let said = "the answer is longer than 1048576 bytes";
    assert_eq!(longer, Err(said.to_owned()));
}

#[tokio::test]
async fn anything_else_is_a_failure() {
    for (answer, said) in [
        (
            &b"HTTP/1.1 401 X\r\nContent-Length: 0\r\n\r\n"[..],
            "status 401",
        ),
        (b"HTTP/1.1 204 X\r\n\r\n", "status 204"),
        (b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n", "status 302"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntrue",
            "the answer is no list of models",
        ),
        (b"", "no answer in time"),
    ] {
        assert_eq!(answered(answer.to_vec()).await.0, Err(said.to_owned()));
    }
    for cut in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n{\"data\":[]}"[..],
        b"HTTP/1.1 200 ",
        b"SSH-2.0-OpenSSH\r\n\r\n",
    ] {
        assert!(answered(cut.to_vec()).await.0.is_err());
    }
}
