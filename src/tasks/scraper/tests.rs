use std::collections::HashMap;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::*;
use crate::config::Config;
use crate::openai::models::Catalog;
use crate::pool::ProbeFailure;
use crate::pool::testing::{config, settings, target};
use crate::snapshot::{Resolved, Snapshot};
use crate::upstream::{Address, ReadError, Target};

const SECOND: Duration = Duration::from_secs(1);

/// Answers as told, in virtual time, and notes when it was asked for what.
#[derive(Default)]
struct Script {
    asked: Mutex<Vec<(Page, Instant)>>,
    /// What a page answers with, where it is not the count of questions so far.
    statuses: Mutex<HashMap<&'static str, u16>>,
}

#[async_trait]
impl Scrape for Script {
    async fn scrape(&self, _: &EndpointState, page: Page, _: Instant) -> Result<Load, Failure> {
        let count = {
            let mut asked = self.asked.lock();
            asked.push((page, Instant::now()));
            asked.len() as u64
        };
        let status = self.statuses.lock().get(page.path()).copied();
        match status {
            Some(0) => std::future::pending().await,
            Some(1) => Err(Failure::Read(ReadError::Closed)),
            Some(status) => Err(Failure::Status(status)),
            None if page == Page::Loads => Ok(Load {
                running: Some(count),
                ..Load::default()
            }),
            None => Ok(Load {
                running: Some(1_000_000),
                generation_tokens: Some(count),
                ..Load::default()
            }),
        }
    }
}

impl Script {
    fn answer(&self, page: Page, status: u16) {
        self.statuses.lock().insert(page.path(), status);
    }

    /// How often each page was asked for since the last call: `/v1/loads` and `/metrics`.
    fn counts(&self) -> (usize, usize) {
        let asked = std::mem::take(&mut *self.asked.lock());
        let loads = asked.iter().filter(|(page, _)| *page == Page::Loads);
        let loads = loads.count();
        (loads, asked.len() - loads)
    }
}

struct Scene {
    cell: Arc<SnapshotCell>,
    script: Arc<Script>,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

fn start(config: Config) -> Scene {
    let (snapshot, _) = Snapshot::build(Arc::new(config), &Resolved::default(), None).unwrap();
    let cell = Arc::new(SnapshotCell::new(snapshot));
    let script = Arc::new(Script::default());
    let (stop, stopped) = oneshot::channel::<()>();
    let scrape: Arc<dyn Scrape> = Arc::clone(&script) as _;
    let task = tokio::spawn(run(Arc::clone(&cell), scrape, async {
        let _ = stopped.await;
    }));
    Scene {
        cell,
        script,
        stop,
        task,
    }
}

impl Scene {
    fn endpoint(&self) -> Arc<EndpointState> {
        Arc::clone(self.cell.load().endpoints().next().unwrap())
    }
}

fn one(engine: Option<Engine>) -> Config {
    let mut config = config(&["10.0.0.1:8000"]);
    config.pools[0].engine = engine;
    config
}

#[tokio::test(start_paused = true)]
async fn a_known_engine_is_asked_every_few_seconds() {
    let scene = start(one(Some(Engine::Vllm)));
    tokio::time::sleep(SECOND * 31).await;
    let times: Vec<_> = (scene.script.asked.lock().iter())
        .map(|(_, at)| *at)
        .collect();
    assert!((9..=11).contains(&times.len()), "{}", times.len());
    for pair in times.windows(2) {
        let gap = pair[1] - pair[0];
        assert!(
            gap >= SECOND * 27 / 10 && gap <= SECOND * 33 / 10,
            "{gap:?}"
        );
    }
    let report = scene.endpoint().report.get().unwrap();
    assert_eq!(report.load.generation_tokens, Some(times.len() as u64));
    assert_eq!(report.moved, report.at);
    assert_eq!(scene.script.counts().0, 0, "vLLM has no /v1/loads");
    scene.stop.send(()).unwrap();
    scene.task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn sglang_says_it_in_two_places() {
    let scene = start(one(Some(Engine::Sglang)));
    tokio::time::sleep(SECOND * 4).await;
    let load = scene.endpoint().report.get().unwrap().load;
    assert_eq!((load.running, load.generation_tokens), (Some(2), Some(1)));
    // Without --enable-metrics there is no page.
    scene.script.answer(Page::Metrics, 404);
    tokio::time::sleep(SECOND * 250).await;
    let (loads, metrics) = scene.script.counts();
    assert!(loads > 70, "{loads}");
    assert!(metrics <= 3, "{metrics}");
    tokio::time::sleep(SECOND * 600).await;
    let (_, metrics) = scene.script.counts();
    assert!((1..=3).contains(&metrics), "it may have been started anew");
}

#[tokio::test(start_paused = true)]
async fn others_are_not_asked() {
    for engine in [None, Some(Engine::OpenAi)] {
        let scene = start(one(engine));
        tokio::time::sleep(SECOND * 60).await;
        assert_eq!(scene.script.counts(), (0, 0));
        assert_eq!(scene.endpoint().report.get(), None);
        let said = br#"{"data":[{"id":"R1","owned_by":"vllm"}]}"#;
        let catalog = Catalog::parse(said).unwrap();
        scene.endpoint().catalog.set(catalog, "node0:8000");
        tokio::time::sleep(SECOND * 10).await;
        let (_, metrics) = scene.script.counts();
        assert_eq!(metrics > 0, engine.is_none(), "{engine:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_engine_keeps_its_last_report() {
    let scene = start(one(Some(Engine::Vllm)));
    tokio::time::sleep(SECOND * 4).await;
    let before = scene.endpoint().report.get().unwrap();
    for answer in [0, 1, 500] {
        scene.script.counts();
        scene.script.answer(Page::Metrics, answer);
        tokio::time::sleep(SECOND * 300).await;
        let (_, metrics) = scene.script.counts();
        // At least once a stall, as that is how long it may stand still.
        assert!((8..=14).contains(&metrics), "{answer}: {metrics}");
        assert_eq!(scene.endpoint().report.get(), Some(Arc::clone(&before)));
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_out_and_holds_nothing_is_left_alone() {
    let scene = start(one(Some(Engine::Vllm)));
    let endpoint = scene.endpoint();
    endpoint.probed(Err(ProbeFailure::Refused), Instant::now());
    tokio::time::sleep(SECOND * 30).await;
    assert_eq!(scene.script.counts(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_short_stall_needs_more_looks() {
    assert_eq!(every(SECOND * 30), SECOND * 3);
    assert_eq!(every(SECOND), SECOND / 5);
    assert_eq!(every(Duration::ZERO), SOONEST);
}

/// What comes of an engine that answers so, and what it was asked.
async fn answered(page: Page, answer: Vec<u8>) -> (Result<Load, Failure>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = Target {
        address: Address::Tcp(listener.local_addr().unwrap()),
        ..target(0)
    };
    let endpoint = EndpointState::new(target, settings("node:8000"), Instant::now());
    let engine = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = vec![0; 4096];
        let read = stream.read(&mut asked).await.unwrap();
        let _ = stream.write_all(&answer).await;
        String::from_utf8(asked[..read].to_vec()).unwrap()
    });
    let deadline = Instant::now() + SECOND * 10;
    let load = HttpScrape.scrape(&endpoint, page, deadline).await;
    (load, engine.await.unwrap())
}

#[tokio::test]
async fn pages_are_asked_for_over_the_gateways_own_leg() {
    let page =
        b"HTTP/1.1 200 OK\r\ncontent-length: 31\r\n\r\nvllm:num_requests_running 7.0\r\n".to_vec();
    let (load, asked) = answered(Page::Metrics, page).await;
    assert_eq!(load.unwrap().running, Some(7));
    assert!(asked.starts_with("GET /metrics HTTP/1.1\r\n"), "{asked}");
    assert!(asked.contains("\r\nAccept: text/plain\r\n"), "{asked}");
    let loads = b"HTTP/1.1 200 OK\r\n\r\n{\"loads\":[{\"num_running_reqs\":3}]}".to_vec();
    let (load, asked) = answered(Page::Loads, loads).await;
    assert_eq!(load.unwrap().running, Some(3));
    assert!(asked.starts_with("GET /v1/loads HTTP/1.1\r\n"), "{asked}");
    for answer in [
        "HTTP/1.1 404 X\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\n<html>",
    ] {
        let (load, _) = answered(Page::Loads, answer.into()).await;
        assert!(load.is_err(), "{answer}");
    }
    let mut endless = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
    endless.resize(LONGEST_LOADS + 100, b' ');
    let (load, _) = answered(Page::Loads, endless).await;
    assert!(
        matches!(load, Err(Failure::TooLong(LONGEST_LOADS))),
        "{load:?}"
    );
}
