//! An engine whose process is stopped: the kernel goes on accepting connections for it, and nobody answers them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use loadtest::engine::{Engine, Script};
use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::gateway::{PATIENCE, Start};

const STALL: Duration = Duration::from_secs(2);

async fn asked(gateway: SocketAddr) -> TcpStream {
    let body =
        r#"{"model":"DeepSeek-R1","messages":[{"role":"user","content":"x"}],"stream":true}"#;
    let mut stream = TcpStream::connect(gateway).await.unwrap();
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// Reads until `part` has come.
async fn read_until(stream: &mut TcpStream, part: &str) -> String {
    let mut text = Vec::new();
    let reading = async {
        while !String::from_utf8_lossy(&text).contains(part) {
            assert_ne!(stream.read_buf(&mut text).await.unwrap(), 0);
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.unwrap();
    String::from_utf8(text).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_process_is_found_out_and_its_requests_move_on() {
    let behind = Engine::start(Script {
        tokens: 100_000,
        itl: Duration::from_millis(5),
        ..Script::default()
    });
    let behind = behind.await.unwrap();
    // A process that speaks as the engine behind it does, and has no counters.
    let node = Start::new(&[behind.authority()], "").run();
    let other = Engine::start(Script::default()).await.unwrap();
    let health = "{ interval: 10s, eject_for: 500ms, stall: 2s }";
    let gateway = Start::with_keys(&format!(
        "pools: {{ default: {{ engine: vllm, health: {health}, endpoints: [\"{}\", {{ url: \"{}\", backup: true }}] }} }}\n",
        node.public,
        other.authority()
    ))
    .run();
    let mut started = asked(gateway.public).await;
    read_until(&mut started, "delta").await;
    node.signal(Signal::SIGSTOP);
    let stopped = Instant::now();
    let mut unstarted = asked(gateway.public).await;
    let answer = read_until(&mut unstarted, "data: [DONE]").await;
    let took = stopped.elapsed();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(took >= STALL && took <= 2 * STALL, "{took:?}");
    gateway
        .log
        .wait_for(1, &format!("endpoint {} is ejected", node.public));
    assert_eq!(gateway.log.count(" hangs: "), 1);
    node.signal(Signal::SIGCONT);
    gateway
        .log
        .wait_for(1, &format!("endpoint {} is up again", node.public));
    drop((started, unstarted));
}
