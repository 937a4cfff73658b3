//! Clients that are bad in every way at once: what they take is bounded, and a good client does not notice them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::net::{TcpSocket, TcpStream};
use tokio::time::sleep;

use crate::gateway::Start;
use crate::recorder::{End, Recorder, good};
use crate::wire::{Wire, metric, request};

const KEYS: &str = "\
limits: { connections: 500, connections_per_client: 450, header: 64KiB, body: 1MiB, answer: 1MiB, event: 1MiB, body_memory: 32MiB }
client: { header_timeout: 20s, body_timeout: 20s, send_timeout: 20s, idle_timeout: 20s }
";
/// Resident memory in KiB that all of them may cost: the bodies, the heads, and what a connection takes.
const MOST: u64 = 96 << 10;

/// A connection from another address than the crowd's.
async fn from(address: [u8; 4], to: SocketAddr) -> Wire<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((address, 0))).unwrap();
    Wire::over(socket.connect(to).await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_of_bad_clients_takes_bounded_memory_and_nobodys_place() {
    let engine = Recorder::start().await;
    let gateway = Start::new(&[engine.authority()], KEYS).run();
    let endless = "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n\r\n";
    engine.reply(
        "/v1/completions?endless",
        endless,
        End::Forever(&[b'x'; 16 * 1024]),
    );
    engine.reply("/v1/completions", good("{}"), End::Keep);
    let public = gateway.public;
    let mut calm = from([127, 0, 0, 2], public).await;
    calm.send(request("POST", "/v1/completions", "", "{   }"))
        .await;
    assert_eq!(calm.answer().await.unwrap().status, 200);
    let before = gateway.resident();

    let mut crowd = Vec::new();
    // Bodies that stop in the middle, more of them than there is memory for.
    let half = format!("{{\"prompt\":\"{}", "a".repeat(700 << 10));
    for _ in 0..100 {
        let mut wire = Wire::to(public).await;
        let head = "POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 1048576\r\n\r\n";
        wire.send(format!("{head}{half}")).await;
        crowd.push(wire);
    }
    // Answers that nobody reads.
    for _ in 0..100 {
        let mut wire = Wire::to(public).await;
        wire.send(request("POST", "/v1/completions?endless", "", "{ }"))
            .await;
        crowd.push(wire);
    }
    // Heads that do not end.
    for _ in 0..100 {
        let mut wire = Wire::to(public).await;
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\nX-A: {}", "a".repeat(60 << 10));
        wire.send(head).await;
        crowd.push(wire);
    }
    // Silence, and more connections than one client may have.
    for _ in 0..200 {
        crowd.push(Wire::to(public).await);
    }
    let begun = Instant::now();
    while metric(
        gateway.admin,
        "sluicegate_refused_total",
        "connections_per_client",
    )
    .await
        < 1.0
    {
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "nobody is refused"
        );
        sleep(Duration::from_millis(20)).await;
    }
    sleep(Duration::from_secs(1)).await;

    for _ in 0..20 {
        let begun = Instant::now();
        calm.send(request("POST", "/v1/completions", "", "{   }"))
            .await;
        assert_eq!(calm.answer().await.unwrap().status, 200);
        assert!(
            begun.elapsed() < Duration::from_secs(1),
            "{:?}",
            begun.elapsed()
        );
    }
    let grown = gateway.resident().saturating_sub(before);
    println!("{grown} KiB for a crowd of {}", crowd.len());
    assert!(grown < MOST, "{grown} KiB");
    let bodies = metric(gateway.admin, "sluicegate_body_bytes", "").await;
    assert!(
        bodies <= f64::from(16 << 20),
        "{bodies} bytes of bodies of one address"
    );
    let refused = metric(gateway.admin, "sluicegate_refused_total", "overloaded").await;
    assert!(refused >= 50.0, "{refused} bodies were refused");
    drop(crowd);
    assert!(engine.wait_until_left(Duration::from_secs(8)).await);
    let begun = Instant::now();
    while metric(gateway.admin, "sluicegate_body_bytes", "").await > 0.0 {
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "bodies are still counted"
        );
        sleep(Duration::from_millis(20)).await;
    }
}
