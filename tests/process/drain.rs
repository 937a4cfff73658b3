//! `sluicegate drain` and `undrain`, as an operator uses them.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use loadtest::engine::{Engine, Script};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::gateway::{Gateway, Lines, PROGRAM, Start, ended};
use crate::wire::{Answer, Wire, request};

const STREAM: &str =
    r#"{"model":"DeepSeek-R1","messages":[{"role":"user","content":"Hi"}],"stream":true}"#;

/// Two engines, of which the first has everything while it is in use, and a gateway whose file names a unix socket of
/// its own.
async fn scene() -> (Engine, Engine, Gateway) {
    let engine = || async { Engine::start(Script::default()).await.unwrap() };
    let (one, two) = (engine().await, engine().await);
    let endpoints = format!(
        "[\"{}\", {{ url: \"{}\", backup: true }}]",
        one.authority(),
        two.authority()
    );
    let start = Start::with_keys(&format!(
        "pools: {{ default: {{ endpoints: {endpoints} }} }}\n"
    ));
    let socket = start.directory().path().join("admin.sock");
    let admin = format!("[127.0.0.1:0, \"unix:{}\"]", socket.display());
    (one, two, start.admin(admin).run())
}

fn command(gateway: &Gateway, arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command
        .args(arguments)
        .arg("-c")
        .arg(&gateway.file)
        .stdin(Stdio::null())
        .env_remove("SLUICEGATE_ADMIN_KEY");
    command
}

fn run(gateway: &Gateway, arguments: &[&str]) -> (Option<i32>, String) {
    said(&tokio::task::block_in_place(|| {
        command(gateway, arguments).output().unwrap()
    }))
}

fn said(output: &Output) -> (Option<i32>, String) {
    let both = [&output.stdout[..], &output.stderr].concat();
    (output.status.code(), String::from_utf8(both).unwrap())
}

/// Runs it and reads what it prints as it comes.
fn begin(gateway: &Gateway, arguments: &[&str]) -> (Child, Lines) {
    let mut child = command(gateway, arguments)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = Lines::of(child.stdout.take().unwrap());
    (child, lines)
}

async fn stream(gateway: &Gateway, engine: &Engine) -> Wire<tokio::net::TcpStream> {
    engine.hold();
    let mut wire = Wire::to(gateway.public).await;
    wire.send(request("POST", "/v1/chat/completions", "", STREAM))
        .await;
    engine.wait_for_arrivals(1).await;
    wire
}

fn is_complete(answer: &Answer) -> bool {
    answer.status == 200 && answer.is_whole && answer.body.ends_with(b"data: [DONE]\n\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_drained_restarted_and_taken_in_again() {
    let (one, two, gateway) = scene().await;
    let mut wire = stream(&gateway, &one).await;
    let node = one.authority();
    let (mut drain, lines) = begin(&gateway, &["drain", &node, "--wait"]);
    tokio::task::block_in_place(|| {
        lines.wait_for(1, &format!("{node} drains: 1 in flight"));
        assert!(
            ended(&mut drain, Duration::from_millis(300)).is_none(),
            "it waits"
        );
    });
    let mut other = Wire::to(gateway.public).await;
    for _ in 0..2 {
        other
            .send(request("POST", "/v1/chat/completions", "", STREAM))
            .await;
        assert!(is_complete(&other.answer().await.unwrap()));
    }
    one.release();
    assert!(is_complete(&wire.answer().await.unwrap()));
    tokio::task::block_in_place(|| {
        let status = ended(&mut drain, Duration::from_secs(10)).unwrap();
        assert_eq!(status.code(), Some(0));
        lines.wait_for(1, &format!("{node} has no requests any more"));
    });
    assert_eq!((one.inferences().len(), two.inferences().len()), (1, 2));

    one.stop().await;
    one.restart().await.unwrap();
    let (status, text) = run(&gateway, &["undrain", &node, "--wait"]);
    assert_eq!(status, Some(0), "{text}");
    assert!(text.contains(&format!("{node} is up")), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_ends_the_waiting_the_endpoint_drains_on() {
    let (one, _two, gateway) = scene().await;
    let _wire = stream(&gateway, &one).await;
    let node = one.authority();
    let (status, text) = run(&gateway, &["drain", &node, "--wait", "--timeout", "300ms"]);
    assert_eq!(status, Some(3), "{text}");
    assert!(
        text.contains(&format!("not yet: {node} drains: 1 in flight")),
        "{text}"
    );

    let (mut drain, lines) = begin(&gateway, &["drain", &node, "--wait"]);
    tokio::task::block_in_place(|| {
        lines.wait_for(1, "1 in flight");
        kill(Pid::from_raw(drain.id() as i32), Signal::SIGINT).unwrap();
        let status = ended(&mut drain, Duration::from_secs(10)).unwrap();
        assert_eq!(status.signal(), Some(Signal::SIGINT as i32));
    });
    // Somebody else takes it back.
    let (mut drain, lines) = begin(&gateway, &["drain", &node, "--wait"]);
    tokio::task::block_in_place(|| lines.wait_for(1, "1 in flight"));
    let (status, text) = run(&gateway, &["undrain", &node]);
    assert_eq!(status, Some(0), "{text}");
    tokio::task::block_in_place(|| {
        let status = ended(&mut drain, Duration::from_secs(10)).unwrap();
        assert_eq!(status.code(), Some(1));
    });
    one.release();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_done_is_said() {
    let (one, _two, gateway) = scene().await;
    let (status, text) = run(&gateway, &["drain", "127.0.0.1"]);
    assert_eq!(status, Some(1));
    assert!(
        text.contains(&one.authority()),
        "the names there are: {text}"
    );
    let (status, text) = run(&gateway, &["undrain", "node99:1", "--wait"]);
    assert_eq!(status, Some(1), "{text}");
    assert!(text.contains("no endpoint `node99:1`"), "{text}");
    assert_eq!(run(&gateway, &["drain"]).0, Some(2));
    let (status, text) = run(&gateway, &["drain", "a:1", "--wait", "--timeout", "10"]);
    assert_eq!(status, Some(2));
    assert!(text.contains("has no unit"), "{text}");

    // Over TCP the gateway wants a key, and here there are none.
    let url = format!("http://{}", gateway.admin);
    let node = one.authority();
    let over_tcp = || {
        let output = Command::new(PROGRAM)
            .args(["drain", &node, "--admin", &url])
            .env("SLUICEGATE_ADMIN_KEY", "a-key-of-nobody")
            .output();
        said(&tokio::task::block_in_place(|| output.unwrap()))
    };
    let (status, text) = over_tcp();
    assert_eq!(status, Some(1));
    assert!(text.contains("unix socket"), "{text}");
    gateway.reload(&format!(
        "endpoints: [\"{node}\"]\nkeys: [{{ name: ops, key: a-key-of-nobody, admin: true }}]\n"
    ));
    let (status, text) = over_tcp();
    assert_eq!(status, Some(0), "{text}");
    assert!(
        text.contains(&format!("{node} drains: 0 in flight")),
        "{text}"
    );
    drop(gateway);
    let (status, text) = over_tcp();
    assert_eq!(status, Some(1));
    assert!(text.contains("is it running?"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_outlives_an_upgrade() {
    let (one, two, gateway) = scene().await;
    let node = one.authority();
    assert_eq!(run(&gateway, &["drain", &node]).0, Some(0));
    tokio::task::block_in_place(|| gateway.upgrade());
    let mut wire = Wire::to(gateway.public).await;
    for _ in 0..4 {
        wire.send(request("POST", "/v1/chat/completions", "", STREAM))
            .await;
        assert!(is_complete(&wire.answer().await.unwrap()));
    }
    assert_eq!((one.inferences().len(), two.inferences().len()), (0, 4));
    let (status, text) = run(&gateway, &["undrain", &node, "--wait"]);
    assert_eq!(status, Some(0), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_gives_orders_over_the_unix_socket() {
    let (one, _two, gateway) = scene().await;
    let socket = gateway.directory.path().join("admin.sock");
    let url = format!("http://localhost/endpoints/{}/drain", one.authority());
    let output = tokio::task::block_in_place(|| {
        Command::new("curl")
            .args(["-sS", "-X", "POST", "--unix-socket"])
            .arg(&socket)
            .arg(url)
            .output()
            .unwrap()
    });
    let (status, text) = said(&output);
    assert_eq!(status, Some(0), "{text}");
    assert!(text.contains("\"reason\":\"by command\""), "{text}");
}
