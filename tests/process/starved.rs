//! Without room for its log, or without file descriptors: requests go on, and what is lost is counted.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use loadtest::engine::{Engine, Script};
use nix::sys::signal::{SIGHUP, SIGTERM, SIGUSR1};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::gateway::{Gateway, PATIENCE, Start};
use crate::wire::{Wire, ask, metric, request};

const BODY: &str = r#"{"model":"DeepSeek-R1","prompt":"Hi"}"#;
const DROPPED: &str = "sluicegate_log_lines_dropped_total";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_costs_log_lines_and_nothing_else() {
    let engine = Engine::start(Script::default()).await.unwrap();
    let gateway = Start::new(&[engine.authority()], "access_log: { path: /dev/full }\n").run();
    for _ in 0..20 {
        assert_eq!(
            ask(gateway.public, "POST", "/v1/completions", BODY)
                .await
                .status,
            200
        );
    }
    let begun = Instant::now();
    while metric(gateway.admin, DROPPED, "").await < 20.0 {
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "lost lines are counted"
        );
        sleep(Duration::from_millis(20)).await;
    }
    // Said once, not with every line.
    assert_eq!(gateway.log.count("the access log cannot be written"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipe_that_nobody_reads_costs_log_lines_and_nothing_else() {
    let engine = Engine::start(Script::default()).await.unwrap();
    let start = Start::new(&[engine.authority()], "access_log: { path: log.fifo }\n");
    let path = start.directory().path().join("log.fifo");
    mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    // Somebody has it open and does not read.
    let _reader = fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(&path)
        .unwrap();
    let mut gateway = start.run();
    // A line holds its path: what the pipe and the buffer before it take is soon there.
    let target = format!("/{}", "a".repeat(60_000));
    let mut wire = Wire::to(gateway.public).await;
    let mut slowest = Duration::ZERO;
    for _ in 0..300 {
        let begun = Instant::now();
        wire.send(request("GET", &target, "", "")).await;
        assert_eq!(wire.answer().await.unwrap().status, 404);
        slowest = slowest.max(begun.elapsed());
    }
    assert!(
        slowest < Duration::from_secs(1),
        "a request took {slowest:?}"
    );
    assert!(metric(gateway.admin, DROPPED, "").await > 0.0);
    assert_eq!(
        ask(gateway.public, "POST", "/v1/completions", BODY)
            .await
            .status,
        200
    );
    // Nor does it hold up the end.
    let begun = Instant::now();
    gateway.signal(SIGTERM);
    let status = gateway.ended(Duration::from_secs(8)).expect("it ends");
    assert!(
        status.success() && begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_descriptors_it_neither_spins_nor_ends_and_recovers() {
    let engine = Engine::start(Script::default()).await.unwrap();
    let mut gateway = Start::new(&[engine.authority()], "").open_files(80).run();
    assert_eq!(
        ask(gateway.public, "POST", "/v1/completions", BODY)
            .await
            .status,
        200
    );
    let mut held = exhaust(&gateway).await;
    let before = gateway.cpu();
    sleep(Duration::from_secs(1)).await;
    let used = gateway.cpu() - before;
    assert!(
        used < Duration::from_millis(300),
        "{used:?} of CPU in a second of waiting"
    );
    assert!(gateway.is_running());
    // A connection it has is served; that it cannot reach an engine is no fault of the engine's.
    held[0]
        .send(request("POST", "/v1/completions", "", BODY))
        .await;
    let status = held[0].answer().await.expect("an answer").status;
    assert!([200, 502, 503].contains(&status), "{status}");
    drop(held);
    let begun = Instant::now();
    loop {
        let mut wire = Wire::to(gateway.public).await;
        wire.send(request("POST", "/v1/completions", "", BODY))
            .await;
        if wire
            .answer()
            .await
            .is_some_and(|answer| answer.status == 200)
        {
            break;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(3),
            "it does not recover"
        );
        sleep(Duration::from_millis(50)).await;
    }
    for _ in 0..20 {
        assert_eq!(
            ask(gateway.public, "POST", "/v1/completions", BODY)
                .await
                .status,
            200
        );
    }
}

/// Connects until the gateway has no descriptor left.
async fn exhaust(gateway: &Gateway) -> Vec<Wire<TcpStream>> {
    let mut held = Vec::new();
    for _ in 0..120 {
        held.push(Wire::to(gateway.public).await);
    }
    gateway.log.wait_for(1, "accept failed");
    held
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_descriptors_engines_stay_in_and_the_state_of_before_stays() {
    let engine = Engine::start(Script::default()).await.unwrap();
    let keys = format!(
        "access_log: {{ path: access.log }}\npools:\n  default:\n    endpoints: [\"{}\"]\n    \
         health: {{ interval: 1s, timeout: 1s, fall: 1 }}\n",
        engine.authority()
    );
    let gateway = Start::with_keys(&keys).open_files(80).run();
    let access_log = gateway.directory.path().join("access.log");
    let mut held = exhaust(&gateway).await;
    gateway.signal(SIGUSR1);
    gateway.log.wait_for(1, "cannot be reopened");
    gateway.rewrite(&format!("{keys}limits: {{ n: 3 }}\n"));
    gateway.signal(SIGHUP);
    gateway.log.wait_for(1, "reload refused");
    // Probes of two seconds, none of which finds a descriptor, and a request likewise.
    sleep(Duration::from_millis(2200)).await;
    held[0]
        .send(request("POST", "/v1/completions", "", BODY))
        .await;
    let status = held[0].answer().await.expect("an answer").status;
    assert_eq!(status, 503);
    held[1].send(request("GET", "/ready", "", "")).await;
    assert_eq!(held[1].answer().await.expect("an answer").status, 200);
    drop(held);
    let begun = Instant::now();
    let mut asked = Wire::to(gateway.public).await;
    loop {
        asked
            .send(request("POST", "/v1/completions", "", BODY))
            .await;
        if asked.answer().await.expect("an answer").status == 200 {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "it does not recover");
        sleep(Duration::from_millis(50)).await;
    }
    let value = async |name, labels| metric(gateway.admin, name, labels).await;
    assert_eq!(value("sluicegate_ejections_total", "").await, 0.0);
    assert_eq!(value("sluicegate_endpoint_up", "").await, 1.0);
    assert!(value("sluicegate_refused_total", "accept_failed").await > 1.0);
    // One line in ten seconds, however many workers there are.
    assert_eq!(gateway.log.count("accept failed"), 1);
    let begun = Instant::now();
    while !fs::read_to_string(&access_log)
        .unwrap()
        .contains("\"status\":503")
    {
        assert!(begun.elapsed() < PATIENCE, "the old file is not written");
        sleep(Duration::from_millis(20)).await;
    }
    assert!(
        gateway
            .reload(&format!("{keys}limits: {{ n: 3 }}\n"))
            .contains("limits")
    );
}
