//! What each signal does to the process, and what it leaves alone.

use std::fs;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use loadtest::engine::{Engine, Script};
use nix::sys::signal::Signal::{self, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::certificates::{Certificate, LISTEN, connect};
use crate::gateway::{Gateway, PROGRAM, Start, quoted};
use crate::wire::{Answer, Then, Wire, ask, metric, request};

const STREAM: &str =
    r#"{"model":"DeepSeek-R1","messages":[{"role":"user","content":"Hi"}],"stream":true}"#;
const SECOND: Duration = Duration::from_secs(1);

/// An engine whose streams last `tokens` × 20 ms.
async fn engine(tokens: usize) -> Engine {
    let itl = Duration::from_millis(20);
    Engine::start(Script {
        tokens,
        itl,
        ..Script::default()
    })
    .await
    .unwrap()
}

/// A stream that has begun.
struct Stream(Wire<TcpStream>, String);

impl Stream {
    async fn begin(gateway: &Gateway) -> Self {
        let mut wire = Wire::to(gateway.public).await;
        wire.send(request("POST", "/v1/chat/completions", "", STREAM))
            .await;
        let (status, head) = wire.head().await.expect("a head");
        assert_eq!(status, 200);
        Self(wire, head)
    }

    async fn rest(mut self) -> Answer {
        self.0.body("POST", 200, self.1).await
    }
}

fn is_complete(answer: &Answer) -> bool {
    answer.is_whole && answer.body.ends_with(b"data: [DONE]\n\n")
}

/// An idle connection that has had one answer.
async fn idle(gateway: &Gateway) -> Wire<TcpStream> {
    let mut wire = Wire::to(gateway.public).await;
    wire.send(request("GET", "/health", "", "")).await;
    assert_eq!(wire.answer().await.unwrap().status, 200);
    wire
}

/// Waits beside the runtime.
async fn ended(gateway: &mut Gateway, within: Duration) -> Option<ExitStatus> {
    tokio::task::block_in_place(|| gateway.ended(within))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hup_takes_a_valid_file_and_nothing_of_an_invalid_one() {
    let (first, second) = (engine(4).await, engine(4).await);
    let gateway = Start::new(&[first.authority()], "").run();
    let chat = async || ask(gateway.public, "POST", "/v1/chat/completions", STREAM).await;
    assert!(is_complete(&chat().await));
    let of = |e: &Engine| e.inferences().len();
    assert_eq!((of(&first), of(&second)), (1, 0));

    let line = gateway.reload(&format!(
        "endpoints: [\"{}\"]\nlog: {{ level: info }}\n",
        second.authority()
    ));
    assert!(line.contains(&format!("+{}", second.authority())), "{line}");
    assert!(line.contains(&format!("-{}", first.authority())), "{line}");
    assert!(is_complete(&chat().await));
    assert_eq!((of(&first), of(&second)), (1, 1));
    assert_eq!(
        metric(gateway.admin, "sluicegate_config_reloads_total", "success").await,
        1.0
    );
    let epoch = metric(gateway.admin, "sluicegate_config_epoch", "").await;

    // Three mistakes, each with its place; and no file at all.
    gateway
        .rewrite("endpoints: [\"127.0.0.1:1\"]\nendpoint: x\nlimits: { body: huge }\nretries: 9\n");
    gateway.signal(SIGHUP);
    gateway
        .log
        .wait_for(1, "reload refused; the configuration of before serves on");
    let file = gateway.file.display();
    for place in [
        ":5:1: endpoint: ",
        ":6:17: limits.body: ",
        ":7:1: retries: ",
    ] {
        assert_eq!(gateway.log.count(&format!("{file}{place}")), 1, "{place}");
    }
    fs::remove_file(&gateway.file).unwrap();
    gateway.signal(SIGHUP);
    gateway
        .log
        .wait_for(2, "reload refused; the configuration of before serves on");
    assert!(is_complete(&chat().await));
    assert_eq!((of(&first), of(&second)), (1, 2));
    assert_eq!(
        metric(gateway.admin, "sluicegate_config_epoch", "").await,
        epoch
    );
    assert_eq!(
        metric(gateway.admin, "sluicegate_config_reloads_total", "failure").await,
        2.0
    );

    // What needs a restart is named, and the rest is taken.
    gateway.reload(&format!(
        "endpoints: [\"{}\"]\nthreads: 7\n",
        first.authority()
    ));
    assert_eq!(
        gateway
            .log
            .count("these changes take effect after an upgrade (-s upgrade) or a restart: threads"),
        1
    );
    assert!(is_complete(&chat().await));
    assert_eq!((of(&first), of(&second)), (2, 2));
}

/// Its secrets are in no line of the log, wrong or right.
#[test]
fn hup_reads_the_file_of_keys_again() {
    const SECRET: &str = "m4Vq9XcT2bLw7RzC";
    let keys = "endpoints: [\"127.0.0.1:9\"]\nkeys: { file: keys.yaml }\n";
    let start = Start::with_keys(keys);
    let file = start.directory().write(
        "keys.yaml",
        &format!("- {{ name: team-a, key: {SECRET} }}\n"),
    );
    let gateway = start.run();
    fs::write(
        &file,
        format!("- {{ name: team-a, key: {SECRET}, max_in_flight: 1 }}\n- {{ name: team-b, key: sk-1234 }}\n"),
    )
    .unwrap();
    let line = gateway.reload(keys);
    assert!(line.ends_with(": +key team-b, key team-a"), "{line}");
    let weak = gateway.log.wait_for(1, "keys.yaml:2:");
    assert!(
        weak.contains(
            "warning: keys[1].key: the secret of \"team-b\" is a key that documents show"
        ),
        "{weak}"
    );

    fs::write(&file, format!("- {{ name: team-a, sha256: {SECRET} }}\n")).unwrap();
    gateway.signal(SIGHUP);
    gateway.log.wait_for(1, "reload refused");
    gateway.log.wait_for(1, "keys.yaml:1:27: keys[0].sha256: ");
    fs::remove_file(&file).unwrap();
    gateway.signal(SIGHUP);
    gateway.log.wait_for(2, "reload refused");
    gateway
        .log
        .wait_for(1, "keys.file: \"keys.yaml\" cannot be read: ");
    assert_eq!(gateway.log.count(SECRET), 0, "{:#?}", gateway.log.all());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn usr1_opens_the_access_log_anew() {
    let engine = engine(4).await;
    let start = Start::new(&[engine.authority()], "access_log: { path: access.log }\n");
    let path = start.directory().path().join("access.log");
    let rotated = start.directory().path().join("access.log.1");
    let gateway = start.run();
    let lines =
        |path: &std::path::Path| fs::read_to_string(path).unwrap_or_default().lines().count();
    let wait_for = async |path: &std::path::Path, count: usize| {
        let begun = Instant::now();
        while lines(path) != count {
            assert!(
                begun.elapsed() < 5 * SECOND,
                "{} lines in {}",
                lines(path),
                path.display()
            );
            sleep(Duration::from_millis(10)).await;
        }
    };
    ask(gateway.public, "POST", "/v1/chat/completions", STREAM).await;
    wait_for(&path, 1).await;
    fs::rename(&path, &rotated).unwrap();
    // Until it is told, it writes to the file it has.
    ask(gateway.public, "POST", "/v1/chat/completions", STREAM).await;
    wait_for(&rotated, 2).await;
    gateway.signal(SIGUSR1);
    gateway.log.wait_for(1, "reopening the access log");
    ask(gateway.public, "POST", "/v1/chat/completions", STREAM).await;
    wait_for(&path, 1).await;
    assert_eq!(lines(&rotated), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn term_and_quit_end_an_idle_gateway_at_once() {
    let engine = engine(4).await;
    for signal in [SIGTERM, SIGQUIT] {
        let mut gateway = Start::new(&[engine.authority()], "").run();
        let (mut one, mut other) = (idle(&gateway).await, idle(&gateway).await);
        assert!(is_complete(&Stream::begin(&gateway).await.rest().await));
        assert!(gateway.pid_file().exists());
        let begun = Instant::now();
        gateway.signal(signal);
        let status = ended(&mut gateway, 5 * SECOND).await.expect("it ends");
        assert!(
            status.success() && begun.elapsed() < SECOND,
            "{signal}: {status} after {:?}",
            begun.elapsed()
        );
        assert_eq!(one.then(SECOND).await, Then::Closes);
        assert_eq!(other.then(SECOND).await, Then::Closes);
        assert!(!gateway.pid_file().exists());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn term_and_quit_wait_for_streams_and_take_nothing_new() {
    for signal in [SIGTERM, SIGQUIT] {
        let engine = engine(60).await;
        let mut gateway = Start::new(&[engine.authority()], "").run();
        let mut waiting = idle(&gateway).await;
        let silent = TcpStream::connect(gateway.public).await.unwrap();
        let stream = Stream::begin(&gateway).await;
        gateway.signal(signal);
        gateway.log.wait_for(1, "draining");
        let begun = Instant::now();
        while TcpStream::connect(gateway.public).await.is_ok() {
            assert!(begun.elapsed() < SECOND / 2, "it accepts while it drains");
            sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(
            waiting.then(SECOND).await,
            Then::Closes,
            "idle connections close at once"
        );
        assert!(gateway.is_running());
        let answer = stream.rest().await;
        assert!(
            is_complete(&answer),
            "{:?}",
            String::from_utf8_lossy(&answer.body)
        );
        let status = ended(&mut gateway, 2 * SECOND)
            .await
            .expect("it ends behind the last stream");
        assert!(status.success());
        assert_eq!(engine.left(), 0);
        drop(silent);
    }
}

/// Whoever was connected when TERM came may have its request on the way: nothing of it, half of its head,
/// half of its body.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_was_on_its_way_when_term_came_is_answered() {
    let whole = request("POST", "/v1/chat/completions", "", STREAM);
    for sent in [0, 20, whole.len() - STREAM.len(), whole.len() - 1] {
        half_sent(&whole, sent).await;
    }
}

async fn half_sent(whole: &str, sent: usize) {
    let engine = engine(4).await;
    let mut gateway = Start::new(&[engine.authority()], "").run();
    let mut wire = Wire::to(gateway.public).await;
    wire.send(&whole[..sent]).await;
    gateway.signal(SIGTERM);
    gateway.log.wait_for(1, "draining");
    sleep(Duration::from_millis(300)).await;
    wire.send(&whole[sent..]).await;
    let answer = wire.answer().await.expect("an answer");
    assert!(is_complete(&answer));
    assert!(
        answer
            .head
            .to_ascii_lowercase()
            .contains("connection: close"),
        "{}",
        answer.head
    );
    assert!(ended(&mut gateway, 2 * SECOND).await.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_finishes_its_streams_and_then_goes_away() {
    let engine = engine(40).await;
    let certificate = Certificate::new();
    let start = Start::new(&[engine.authority()], "").listen(LISTEN);
    certificate.install(start.directory());
    let mut gateway = start.run();
    let connection = async || {
        let stream = connect(gateway.public, &[&certificate], "h2")
            .await
            .unwrap();
        let (sender, connection) = h2::client::handshake(stream).await.unwrap();
        (sender.ready().await.unwrap(), tokio::spawn(connection))
    };
    let (_silent, silent_end) = connection().await;
    let (mut sender, end) = connection().await;
    let request = http::Request::post("https://localhost/v1/chat/completions")
        .header("content-type", "application/json")
        .body(())
        .unwrap();
    let (answer, mut body) = sender.send_request(request, false).unwrap();
    body.send_data(STREAM.into(), true).unwrap();
    let answer = answer.await.unwrap();
    gateway.signal(SIGTERM);
    gateway.log.wait_for(1, "draining");
    let mut events = answer.into_body();
    let mut text = Vec::new();
    while let Some(data) = events.data().await {
        let data = data.expect("the stream is not cut");
        events.flow_control().release_capacity(data.len()).unwrap();
        text.extend_from_slice(&data);
    }
    assert!(text.ends_with(b"data: [DONE]\n\n"));
    for end in [silent_end, end] {
        // How is the client's luck: it may be writing when the gateway closes.
        let _ = end.await.unwrap();
    }
    let status = ended(&mut gateway, 2 * SECOND).await.expect("it ends");
    assert!(status.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn int_and_a_second_term_stop_at_once_and_cut_uncleanly() {
    for signals in [&[SIGINT][..], &[SIGTERM, SIGTERM], &[SIGQUIT, SIGINT]] {
        let engine = engine(500).await;
        let mut gateway = Start::new(&[engine.authority()], "").run();
        let stream = Stream::begin(&gateway).await;
        for (n, signal) in signals.iter().enumerate() {
            if n > 0 {
                gateway.log.wait_for(1, "draining");
                assert!(gateway.is_running());
            }
            gateway.signal(*signal);
        }
        let begun = Instant::now();
        let status = ended(&mut gateway, 5 * SECOND).await.expect("it ends");
        assert!(
            status.success() && begun.elapsed() < SECOND,
            "{signals:?}: {status} after {:?}",
            begun.elapsed()
        );
        assert!(
            !stream.rest().await.is_whole,
            "a cut stream does not look whole"
        );
        assert!(!gateway.pid_file().exists());
        assert!(engine.wait_for_in_flight(0, SECOND).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_lasts_no_longer_than_shutdown_grace() {
    let engine = engine(500).await;
    let mut gateway = Start::new(&[engine.authority()], "shutdown_grace: 1s\n").run();
    let stream = Stream::begin(&gateway).await;
    let begun = Instant::now();
    gateway.signal(SIGTERM);
    assert!(
        ended(&mut gateway, 5 * SECOND)
            .await
            .expect("it ends")
            .success()
    );
    assert!(
        begun.elapsed() > SECOND * 9 / 10 && begun.elapsed() < 3 * SECOND,
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(
        gateway.log.count("requests are still in hand and are cut"),
        1
    );
    assert!(!stream.rest().await.is_whole);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signals_go_through_the_pid_file() {
    let engine = engine(4).await;
    let mut gateway = Start::new(&[engine.authority()], "").run();
    let pid = fs::read_to_string(gateway.pid_file()).unwrap();
    assert_eq!(pid.trim(), gateway.pid().to_string());
    let order = |order: &str| {
        Command::new(PROGRAM)
            .arg("-c")
            .arg(&gateway.file)
            .args(["-s", order])
            .output()
            .unwrap()
    };
    let (reload, reopen) = (order("reload"), order("reopen"));
    assert!(reload.status.success() && reopen.status.success());
    gateway.log.wait_for(1, " reloaded: ");
    gateway.log.wait_for(1, "reopening the access log");
    assert!(!order("nonsense").status.success());
    let quit = order("quit");
    assert!(quit.status.success(), "{quit:?}");
    let file = gateway.file.clone();
    assert!(
        ended(&mut gateway, 2 * SECOND)
            .await
            .expect("it ends")
            .success()
    );
    // Nobody is left to be told.
    let told = Command::new(PROGRAM)
        .arg("-c")
        .arg(file)
        .args(["-s", "stop"])
        .output()
        .unwrap();
    assert_eq!(told.status.code(), Some(1));
    assert!(
        String::from_utf8(told.stderr)
            .unwrap()
            .contains("sluicegate.pid")
    );

    let mut gateway = Start::new(&[engine.authority()], "").run();
    let stop = Command::new(PROGRAM)
        .arg("-c")
        .arg(&gateway.file)
        .args(["-s", "stop"])
        .output()
        .unwrap();
    assert!(stop.status.success());
    assert!(
        ended(&mut gateway, 2 * SECOND)
            .await
            .expect("it ends")
            .success()
    );
}

/// Every signal in a row, a hundred times, while it serves: it ends only by those that end it, and by a successor.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shower_of_signals_ends_nothing() {
    let engine = engine(50).await;
    let mut gateway = Start::new(&[engine.authority()], "").run();
    let stream = Stream::begin(&gateway).await;
    for _ in 0..100 {
        for signal in [SIGHUP, SIGUSR1, Signal::SIGPIPE] {
            gateway.signal(signal);
        }
    }
    assert!(is_complete(&stream.rest().await));
    assert!(gateway.is_running());
    let keys = format!("endpoints: [{}]\n", quoted(&[engine.authority()]));
    gateway.reload(&keys);

    let stream = Stream::begin(&gateway).await;
    for _ in 0..100 {
        for signal in [SIGHUP, SIGUSR1, SIGUSR2] {
            gateway.signal(signal);
        }
    }
    gateway.log.wait_for(1, " serves now; ");
    assert!(is_complete(&stream.rest().await));
    assert_eq!(ask(gateway.public, "GET", "/health", "").await.status, 200);
    assert_ne!(gateway.serving(), Some(gateway.pid()));
    gateway.signal(SIGTERM);
    assert!(
        ended(&mut gateway, 2 * SECOND)
            .await
            .expect("it ends")
            .success()
    );
}
