use std::collections::HashMap;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::*;
use crate::pool::testing::config;
use crate::snapshot::Snapshot;

/// A name server in memory. `None` = never answers; not there at all = fails.
#[derive(Default)]
struct Zone {
    names: Mutex<HashMap<String, Option<Vec<[u8; 4]>>>>,
    asked: Mutex<Vec<(String, Instant)>>,
}

#[async_trait]
impl Resolve for Zone {
    async fn lookup(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        self.asked.lock().push((host.to_owned(), Instant::now()));
        let answer = self.names.lock().get(host).cloned();
        match answer {
            Some(Some(ips)) => Ok(ips.into_iter().map(|ip| (ip, port).into()).collect()),
            Some(None) => std::future::pending().await,
            None => Err(io::Error::other("no such name")),
        }
    }
}

impl Zone {
    fn set(&self, host: &str, answer: Option<&[[u8; 4]]>) {
        self.names
            .lock()
            .insert(host.to_owned(), answer.map(<[_]>::to_vec));
    }

    fn times(&self, since: Instant) -> Vec<u64> {
        let asked = self.asked.lock().drain(..).collect::<Vec<_>>();
        asked
            .iter()
            .map(|(_, at)| at.duration_since(since).as_secs())
            .collect()
    }
}

const A: [u8; 4] = [10, 0, 0, 1];
const B: [u8; 4] = [10, 0, 0, 2];

struct Scene {
    cell: Arc<SnapshotCell>,
    zone: Arc<Zone>,
    stop: Option<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<()>,
}

/// As the gateway starts: one round before the first snapshot, then the task.
async fn start(config: Config, zone: Zone) -> Scene {
    let zone = Arc::new(zone);
    let resolver: Arc<dyn Resolve> = Arc::clone(&zone) as _;
    let round = resolve(&config, &resolver).await;
    let mut failing = Failing::default();
    failing.note(&round);
    let (snapshot, _) = Snapshot::build(Arc::new(config), &round.resolved, None).unwrap();
    let cell = Arc::new(SnapshotCell::new(snapshot));
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(run(Arc::clone(&cell), resolver, failing, async {
        let _ = stopped.await;
    }));
    Scene {
        cell,
        zone,
        stop: Some(stop),
        task,
    }
}

impl Scene {
    fn names(&self) -> Vec<String> {
        let snapshot = self.cell.load();
        let endpoints = snapshot.default_pool().endpoints.iter();
        endpoints
            .map(|endpoint| endpoint.name.to_string())
            .collect()
    }
}

async fn seconds(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_moves_is_followed() {
    let zone = Zone::default();
    zone.set("node0", Some(&[A]));
    let scene = start(config(&["node0:8000", "10.9.9.9:8000"]), zone).await;
    let before = Arc::clone(scene.cell.load().endpoints().next().unwrap());
    scene.zone.set("node0", Some(&[B, A]));
    seconds(29).await;
    assert_eq!(scene.names(), ["node0:8000", "10.9.9.9:8000"]);
    seconds(2).await;
    assert_eq!(
        scene.names(),
        [
            "node0:8000@10.0.0.1",
            "node0:8000@10.0.0.2",
            "10.9.9.9:8000"
        ]
    );
    assert!(Arc::ptr_eq(
        &before,
        scene.cell.load().endpoints().next().unwrap()
    ));
    assert_eq!(
        (scene.cell.load().epoch, scene.cell.load().generation),
        (1, 2)
    );
    // The same answer in another order is no news.
    scene.zone.set("node0", Some(&[A, B, A]));
    seconds(60).await;
    assert_eq!(scene.cell.load().generation, 2);
}

#[tokio::test(start_paused = true)]
async fn a_failing_name_keeps_its_addresses_and_is_asked_more_often() {
    let zone = Zone::default();
    zone.set("node0", Some(&[A]));
    let scene = start(config(&["node0:8000"]), zone).await;
    let began = Instant::now();
    scene.zone.asked.lock().clear();
    scene.zone.names.lock().clear();
    seconds(100).await;
    assert_eq!(scene.names(), ["node0:8000"]);
    assert_eq!(scene.cell.load().generation, 1);
    // Every 30 s, then after 2, 4, 8, 16 and again every 30.
    assert_eq!(scene.zone.times(began), [30, 32, 36, 44, 60, 90]);
    scene.zone.set("node0", Some(&[A]));
    seconds(60).await;
    assert_eq!(scene.zone.times(began), [120, 150]);
}

#[tokio::test(start_paused = true)]
async fn a_name_that_did_not_resolve_at_the_start_comes_in_soon() {
    let scene = start(config(&["late:8000"]), Zone::default()).await;
    assert!(!scene.cell.load().endpoints().next().unwrap().is_resolved());
    scene.zone.set("late", Some(&[A]));
    seconds(2).await;
    assert!(scene.cell.load().endpoints().next().unwrap().is_resolved());
}

#[tokio::test(start_paused = true)]
async fn a_name_that_a_reload_could_not_resolve_comes_in_soon_too() {
    let zone = Zone::default();
    zone.set("node0", Some(&[A]));
    let scene = start(config(&["node0:8000"]), zone).await;
    seconds(5).await;
    let next = config(&["node0:8000", "late:8000"]);
    scene
        .cell
        .apply(Arc::new(next), &Resolved::default())
        .unwrap();
    seconds(1).await;
    scene.zone.set("late", Some(&[B]));
    seconds(5).await;
    assert!(
        scene
            .cell
            .load()
            .endpoints()
            .all(|endpoint| endpoint.is_resolved())
    );
}

#[tokio::test(start_paused = true)]
async fn one_name_that_hangs_does_not_hold_up_the_others_for_long() {
    let zone = Zone::default();
    zone.set("node0", Some(&[A]));
    zone.set("hung", None);
    let began = Instant::now();
    let scene = start(config(&["node0:8000", "hung:8000"]), zone).await;
    assert_eq!(began.elapsed(), LOOKUP_TIMEOUT);
    assert_eq!(
        scene
            .cell
            .load()
            .endpoints()
            .filter(|state| state.is_resolved())
            .count(),
        1
    );
}

#[tokio::test(start_paused = true)]
async fn another_pause_takes_effect_at_once() {
    let zone = Zone::default();
    zone.set("node0", Some(&[A]));
    let mut first = config(&["node0:8000"]);
    first.resolve = Duration::MAX;
    let scene = start(first, zone).await;
    seconds(3_600).await;
    let began = Instant::now();
    scene.zone.asked.lock().clear();
    let mut next = config(&["node0:8000"]);
    next.resolve = Duration::from_secs(10);
    scene
        .cell
        .apply(Arc::new(next), &Resolved::default())
        .unwrap();
    seconds(25).await;
    assert_eq!(scene.zone.times(began), [0, 10, 20]);
}

#[tokio::test(start_paused = true)]
async fn it_ends_at_shutdown_even_in_the_middle_of_a_look_up() {
    let zone = Zone::default();
    zone.set("node0", Some(&[A]));
    let mut scene = start(config(&["node0:8000"]), zone).await;
    scene.zone.set("node0", None);
    seconds(32).await;
    scene.stop.take().unwrap().send(()).unwrap();
    tokio::time::timeout(Duration::from_millis(1), scene.task)
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn the_system_knows_localhost() {
    let found = SystemResolver::default()
        .lookup("localhost", 8000)
        .await
        .unwrap();
    assert!(found.contains(&([127, 0, 0, 1], 8000).into()), "{found:?}");
}
