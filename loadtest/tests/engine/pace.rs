//! When things come: gates, queues, beats, and clients that leave or stay.

use std::time::Duration;

use loadtest::engine::{Engine, Fault, Script};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::client::{Ended, chat, read, send};

#[tokio::test]
async fn gates_hold_requests_until_they_are_released() {
    let engine = Engine::start(Script::default()).await.unwrap();
    engine.hold();
    let mut streams = Vec::new();
    for _ in 0..5 {
        streams.push(send(&engine, &chat(true)).await);
    }
    engine.wait_for_arrivals(5).await;
    assert_eq!(engine.in_flight(), 5);
    let mut head = [0; 4096];
    let count = streams[0].read(&mut head).await.unwrap();
    assert!(
        head[..count].ends_with(b"\r\n\r\n"),
        "the head comes at once, and no event"
    );
    engine.release();
    for stream in &mut streams {
        assert!(read(stream).await.0.contains("[DONE]"));
    }
    engine.settled().await;
    assert_eq!((engine.in_flight(), engine.completed()), (0, 5));
}

#[tokio::test]
async fn a_client_that_leaves_frees_the_engine_at_once() {
    let script = Script {
        ttft: Duration::from_secs(60),
        ..Script::default()
    };
    let engine = Engine::start(script).await.unwrap();
    for stream in [true, false] {
        let connection = send(&engine, &chat(stream)).await;
        assert!(engine.wait_for_in_flight(1, Duration::from_secs(1)).await);
        drop(connection);
        assert!(engine.wait_for_in_flight(0, Duration::from_secs(1)).await);
    }
    let mut half = send(&engine, &chat(true)).await;
    engine.wait_for_arrivals(3).await;
    half.shutdown().await.unwrap();
    assert!(engine.wait_for_in_flight(0, Duration::from_secs(1)).await);
    assert_eq!(engine.left(), 3);
}

#[tokio::test]
async fn idle_connections_are_closed_and_reused_ones_can_be_stale() {
    let script = Script {
        keep_alive: Duration::from_millis(50),
        ..Script::default()
    };
    let engine = Engine::start(script).await.unwrap();
    let mut stream = send(&engine, &chat(false)).await;
    assert_eq!(read(&mut stream).await.1, Ended::Fin, "closed when idle");
    let mut fresh = TcpStream::connect(engine.addr()).await.unwrap();
    assert_eq!(
        read(&mut fresh).await.1,
        Ended::Open,
        "a connection without a request may stay"
    );
    engine.set(Script::default());
    engine.fail_next(1, Fault::CloseOnReuse);
    let mut stream = send(&engine, &chat(false)).await;
    assert_eq!(read(&mut stream).await.1, Ended::Open);
    stream.write_all(chat(false).as_bytes()).await.unwrap();
    let (answer, ended) = read(&mut stream).await;
    assert!(answer.is_empty() && ended != Ended::Open);
}

#[tokio::test]
async fn a_queue_has_room_for_so_many_and_its_streams_get_comments() {
    let script = Script {
        max_running: Some(1),
        max_queued: Some(1),
        itl: Duration::from_millis(20),
        comments: Some(Duration::from_millis(60)),
        ..Script::default()
    };
    let engine = Engine::start(script).await.unwrap();
    let mut first = send(&engine, &chat(true)).await;
    engine.wait_for_arrivals(1).await;
    let mut second = send(&engine, &chat(true)).await;
    engine.wait_for_arrivals(2).await;
    sleep(Duration::from_millis(20)).await;
    let (third, _) = read(&mut send(&engine, &chat(true)).await).await;
    assert!(third.starts_with("HTTP/1.1 503 "), "{third}");
    assert!(read(&mut first).await.0.contains("[DONE]"));
    let (second, _) = read(&mut second).await;
    assert!(
        second.contains(": keep-alive\n\n") && second.contains("[DONE]"),
        "{second}"
    );
}

#[tokio::test]
async fn tokens_come_on_the_beat() {
    let script = Script {
        ttft: Duration::from_millis(100),
        itl: Duration::from_millis(20),
        tokens: 10,
        ..Script::default()
    };
    let engine = Engine::start(script).await.unwrap();
    let start = Instant::now();
    let (answer, _) = read(&mut send(&engine, &chat(true)).await).await;
    let took = start.elapsed() - Duration::from_millis(150);
    assert!((280..400).contains(&took.as_millis()), "{took:?}");
    assert_eq!(engine.tokens(), 11);
    assert!(answer.contains("[DONE]"));
}
