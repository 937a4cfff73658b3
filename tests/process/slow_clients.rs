//! Clients that are slow on purpose, stop reading, or leave: each costs a bounded time and memory.

use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

use crate::gateway::{Gateway, Start};
use crate::recorder::{End, Recorder, good};
use crate::wire::{Then, Wire, ask, request};

const LIMITS: &str =
    "client: { header_timeout: 1s, body_timeout: 1s, send_timeout: 1s, idle_timeout: 2s }\n";

async fn started(keys: &str) -> (Gateway, Recorder) {
    let engine = Recorder::start().await;
    let gateway = Start::new(&[engine.authority()], keys).run();
    (gateway, engine)
}

/// Sends byte after byte until the other side ends it; returns after how long it did.
async fn trickle(wire: &mut Wire<tokio::net::TcpStream>, bytes: &[u8]) -> Duration {
    let begun = Instant::now();
    for byte in bytes.iter().cycle() {
        if wire.try_send(&[*byte]).await.is_err()
            || wire.then(Duration::from_millis(40)).await != Then::Stays
        {
            return begun.elapsed();
        }
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "it may trickle for ever"
        );
    }
    unreachable!()
}

fn about(took: Duration, expected: Duration) {
    let (least, most) = (
        expected - Duration::from_millis(150),
        expected + Duration::from_millis(1500),
    );
    assert!(
        took > least && took < most,
        "{took:?}, not about {expected:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_must_be_whole_in_time_however_its_bytes_trickle() {
    let (gateway, engine) = started(LIMITS).await;
    let second = Duration::from_secs(1);
    let first_head = async {
        let mut wire = Wire::to(gateway.public).await;
        wire.send("GET /v1/models HTTP/1.1\r\nHost: a\r\n").await;
        about(trickle(&mut wire, b"X-A: 1\r\n").await, second);
    };
    let silent = async {
        let mut wire = Wire::to(gateway.public).await;
        let begun = Instant::now();
        assert_eq!(wire.then(Duration::from_secs(5)).await, Then::Closes);
        about(begun.elapsed(), second);
    };
    let second_head = async {
        let mut wire = Wire::to(gateway.public).await;
        wire.send(request("GET", "/health", "", "")).await;
        assert_eq!(wire.answer().await.unwrap().status, 200);
        sleep(Duration::from_millis(1300)).await;
        wire.send("GET /v1/models HTTP/1.1\r\n").await;
        about(trickle(&mut wire, b"X-A: 1\r\n").await, second);
    };
    let idle = async {
        let mut wire = Wire::to(gateway.public).await;
        wire.send(request("GET", "/health", "", "")).await;
        assert_eq!(wire.answer().await.unwrap().status, 200);
        let begun = Instant::now();
        assert_eq!(wire.then(Duration::from_secs(6)).await, Then::Closes);
        about(begun.elapsed(), 2 * second);
    };
    // HTTP/1.0 without keep-alive is closed behind its answer, not after idle_timeout.
    let old = async {
        let mut wire = Wire::to(gateway.public).await;
        wire.send("GET /health HTTP/1.0\r\n\r\n").await;
        assert_eq!(wire.answer().await.unwrap().status, 200);
        assert_eq!(wire.then(Duration::from_millis(900)).await, Then::Closes);
    };
    tokio::join!(first_head, silent, second_head, idle, old);
    assert!(engine.received().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_stops_coming_is_a_408_and_one_that_trickles_is_served() {
    let (gateway, engine) = started(LIMITS).await;
    let stops = async |fields: &str, part: &str| {
        let mut wire = Wire::to(gateway.public).await;
        wire.send(format!(
            "POST /v1/completions HTTP/1.1\r\nHost: a\r\n{fields}\r\n{part}"
        ))
        .await;
        let begun = Instant::now();
        let mut answer = wire.answer().await.expect("an answer");
        if answer.status == 100 {
            answer = wire.answer().await.expect("an answer");
        }
        about(begun.elapsed(), Duration::from_secs(1));
        assert_eq!(answer.status, 408);
        assert!(answer.body.windows(15).any(|w| w == b"request_timeout"));
        assert_eq!(wire.then(Duration::from_secs(3)).await, Then::Closes);
    };
    let trickles = async {
        let mut wire = Wire::to(gateway.public).await;
        wire.send("POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n")
            .await;
        for byte in b"{       }" {
            sleep(Duration::from_millis(200)).await;
            wire.send([*byte]).await;
        }
        assert_eq!(wire.answer().await.unwrap().status, 200);
    };
    tokio::join!(
        stops("Content-Length: 10\r\n", "{   "),
        stops("Transfer-Encoding: chunked\r\n", "5\r\n{   }\r\n"),
        stops("Transfer-Encoding: chunked\r\n", "5\r\n{   }\r\n0\r\n"),
        stops("Expect: 100-continue\r\nContent-Length: 10\r\n", ""),
        trickles,
    );
    let received: Vec<_> = engine.received().iter().map(|r| r.in_short()).collect();
    assert_eq!(received, ["POST /v1/completions {       }"]);
    engine.assert_well_formed();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_stops_reading_is_let_go_and_so_is_its_engine() {
    let (gateway, engine) = started(LIMITS).await;
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n\r\n";
    engine.reply("/v1/completions", head, End::Forever(&[b'x'; 16 * 1024]));
    let before = gateway.resident();
    let mut wires = Vec::new();
    for _ in 0..10 {
        let mut wire = Wire::to(gateway.public).await;
        wire.send(request("POST", "/v1/completions", "", "{   }"))
            .await;
        wires.push(wire);
    }
    engine.wait_for(10).await;
    let begun = Instant::now();
    assert!(
        engine.wait_until_left(Duration::from_secs(8)).await,
        "engines serve clients that do not read"
    );
    assert!(begun.elapsed() > Duration::from_millis(500));
    let grown = gateway.resident().saturating_sub(before);
    assert!(
        grown < 16 << 10,
        "{grown} KiB for 10 clients that do not read"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_takes_its_request_with_it() {
    let (gateway, engine) = started("").await;
    // In the middle of its head, and of its body: no engine hears of it.
    for part in [
        "POST /v1/comp",
        "POST /v1/completions HTTP/1.1\r\nHost: a\r\n",
        "POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf",
        "POST /v1/completions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{   }\r\n0\r\n",
    ] {
        let mut wire = Wire::to(gateway.public).await;
        wire.send(part).await;
        sleep(Duration::from_millis(50)).await;
        drop(wire);
    }
    sleep(Duration::from_millis(200)).await;
    assert!(engine.received().is_empty());
    // While its engine works: the connection to it ends, which is how engines cancel. A half-close is
    // leaving too, as for nginx and uvicorn.
    engine.reply("/v1/completions", "", End::Keep);
    for half in [false, true] {
        let before = engine.received().len();
        let mut wire = Wire::to(gateway.public).await;
        wire.send(request("POST", "/v1/completions", "", "{   }"))
            .await;
        engine.wait_for(before + 1).await;
        if half {
            wire.half_close().await;
        } else {
            drop(wire);
        }
        assert!(engine.wait_until_left(Duration::from_secs(2)).await);
    }
    gateway.output.wait_for(2, "\"status\":499");
    engine.assert_well_formed();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_without_end_cost_bounded_memory() {
    let (gateway, engine) = started("limits: { header: 64KiB }\n").await;
    // Warm: threads, arenas and buffers that stay.
    for _ in 0..50 {
        ask(gateway.public, "POST", "/v1/completions", "{   }").await;
    }
    let before = gateway.resident();
    let mut wires = Vec::new();
    for _ in 0..200 {
        let mut wire = Wire::to(gateway.public).await;
        wire.send(format!(
            "GET /v1/models HTTP/1.1\r\nHost: a\r\nX-A: {}",
            "a".repeat(60 << 10)
        ))
        .await;
        wires.push(wire);
    }
    sleep(Duration::from_millis(500)).await;
    let of_clients = gateway.resident().saturating_sub(before);
    assert!(
        of_clients < 48 << 10,
        "{of_clients} KiB for 200 heads of 60 KiB"
    );
    drop(wires);

    engine.reply(
        "/v1/completions",
        "HTTP/1.1 200 OK\r\n",
        End::Forever(b"X-A: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n"),
    );
    engine.reply(
        "/v1/chat/completions",
        "",
        End::Forever(b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    );
    engine.reply(
        "/v1/embeddings",
        "HTTP/1.1 200 ",
        End::Forever(b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
    );
    let mut asking = Vec::new();
    for n in 0..200 {
        let public = gateway.public;
        let target = ["/v1/completions", "/v1/chat/completions", "/v1/embeddings"][n % 3];
        asking.push(tokio::spawn(async move {
            ask(public, "POST", target, "{   }").await.status
        }));
    }
    for status in asking {
        assert_eq!(
            timeout(Duration::from_secs(20), status)
                .await
                .unwrap()
                .unwrap(),
            502
        );
    }
    let of_engines = gateway.resident().saturating_sub(before);
    assert!(
        of_engines < 64 << 10,
        "{of_engines} KiB for 200 endless heads of an engine"
    );
    engine.reply("/v1/completions", good("{}"), End::Keep);
    assert_eq!(
        ask(gateway.public, "POST", "/v1/completions", "{   }")
            .await
            .status,
        200
    );
}
