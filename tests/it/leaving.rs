//! A client that leaves frees its endpoint at once, in every phase, and that is nobody's fault.

use std::time::Duration;

use crate::support::{
    Client, Engine, Gateway, H2, Puppet, Script, chat, chat_body, engine, engine_with, h2_post,
    in_turn, letters, padded, pool, post, sse_head, until,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Fin,
    HalfClose,
    Rst,
}

const EVERY_WAY: [How; 3] = [How::Fin, How::HalfClose, How::Rst];

/// Returns what must be kept for the way of leaving to be that one.
async fn leave(mut client: Client, how: How) -> Option<Client> {
    match how {
        How::Fin => None,
        How::Rst => {
            client.reset();
            None
        }
        How::HalfClose => {
            client.half_close().await;
            Some(client)
        }
    }
}

async fn freed(gateway: &Gateway, engine: &Engine) {
    until("the engine to be told", || engine.in_flight() == 0).await;
    gateway.quiet().await;
    assert_eq!((gateway.faults(0), gateway.state(0)), (0, "up"));
    let left = "sluicegate_requests_total{code=\"499\",endpoint=\"ENGINE\",pool=\"default\"}";
    let series = left.replace("ENGINE", &engine.authority());
    until("499 to be counted", || gateway.metric(&series) > 0.0).await;
}

async fn one(script: Script) -> (Engine, Gateway) {
    let engine = engine_with(script).await;
    let gateway = Gateway::with_tls(&format!("endpoints: [\"{}\"]", engine.authority())).await;
    (engine, gateway)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_waiting_for_the_first_byte() {
    for how in EVERY_WAY {
        for stream in [false, true] {
            let (engine, gateway) = one(Script::default()).await;
            engine.hold();
            let mut client = Client::connect(gateway.address).await;
            client.send(chat(stream).bytes()).await;
            engine.wait_for_arrivals(1).await;
            assert_eq!(gateway.endpoint(0).in_flight(), 1);
            let _client = leave(client, how).await;
            freed(&gateway, &engine).await;
            assert_eq!((engine.left(), engine.completed()), (1, 0), "{how:?}");
            gateway.finish().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_the_middle_of_a_stream() {
    for how in EVERY_WAY {
        // Slow enough that no write would find it out, as long as a write is what must find it out.
        let slow = Script {
            itl: Duration::from_secs(20),
            ..Script::default()
        };
        let (engine, gateway) = one(slow).await;
        let mut client = Client::connect(gateway.address).await;
        client.send(chat(true).bytes()).await;
        client.head().await;
        client.body_until("\"content\":\" ").await;
        let _client = leave(client, how).await;
        freed(&gateway, &engine).await;
        assert_eq!(engine.left(), 1, "{how:?}");
        gateway.finish().await;
    }
}

/// An event in pieces goes another way than one that is whole; the client is watched on both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_an_event_in_pieces() {
    for how in EVERY_WAY {
        let mut puppet = Puppet::start().await;
        let gateway = Gateway::start(&pool(&[format!("\"{}\"", puppet.authority())], "")).await;
        let mut client = Client::connect(gateway.address).await;
        client.send(chat(true).bytes()).await;
        let mut exchange = puppet.next().await;
        exchange.write(sse_head()).await;
        let event = r#"{"choices":[{"index":0,"delta":{"content":"a"}}]}"#;
        exchange.event(event).await;
        client.head().await;
        client.piece().await.unwrap();
        exchange.write("6\r\ndata: \r\n").await;
        exchange
            .write(format!("{:x}\r\n{event}\n\n\r\n", event.len() + 2))
            .await;
        client.piece().await.unwrap();
        let _client = leave(client, how).await;
        // Nothing is written any more, so nothing but the watch can tell.
        exchange.gone().await;
        gateway.quiet().await;
        assert_eq!(gateway.faults(0), 0, "{how:?}");
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_connecting() {
    for how in EVERY_WAY {
        let (mut silent, good) = (Puppet::start().await, engine().await);
        let gateway = Gateway::start(&in_turn(&silent.authority(), &good.authority(), "")).await;
        silent.swallow_connects().await;
        let mut client = Client::connect(gateway.address).await;
        client.send(chat(true).bytes()).await;
        until("a lease", || gateway.endpoint(0).in_flight() == 1).await;
        let _client = leave(client, how).await;
        // Long before the connect times out.
        gateway.quiet().await;
        assert_eq!(
            (gateway.faults(0), good.inferences().len()),
            (0, 0),
            "{how:?}"
        );
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_its_body_is_passed_to_an_engine_that_does_not_read() {
    for how in EVERY_WAY {
        let puppet = Puppet::start().await;
        let gateway = Gateway::start(&pool(&[format!("\"{}\"", puppet.authority())], "")).await;
        puppet.stop_reading();
        let mut client = Client::connect(gateway.address).await;
        client
            .send(post("/v1/completions", padded(16 << 20)).bytes())
            .await;
        until("a lease", || gateway.endpoint(0).in_flight() == 1).await;
        let _client = leave(client, how).await;
        gateway.quiet().await;
        assert_eq!(gateway.faults(0), 0, "{how:?}");
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_the_middle_of_its_body_no_engine_hears_of_it() {
    for how in EVERY_WAY {
        for chunked in [false, true] {
            let (engine, gateway) = one(Script::default()).await;
            let mut client = Client::connect(gateway.address).await;
            let request = post("/v1/completions", letters(300_000, 5));
            let bytes = if chunked {
                request.chunked(5_000).bytes()
            } else {
                request.bytes()
            };
            client.send(&bytes[..200_000]).await;
            until("bytes to be held", || {
                gateway.shared().body_memory.total() > 100_000
            })
            .await;
            let _client = leave(client, how).await;
            gateway.quiet().await;
            assert_eq!(engine.inferences().len(), 0, "{how:?}");
            gateway.finish().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_h2_by_a_reset_of_the_stream_or_the_end_of_the_connection() {
    for whole_connection in [false, true] {
        for started in [false, true] {
            let slow = Script {
                itl: Duration::from_secs(20),
                ..Script::default()
            };
            let (engine, gateway) = one(slow).await;
            if !started {
                engine.hold();
            }
            let mut h2 = H2::connect(&gateway).await;
            let body = chat_body(true);
            let request = h2_post("/v1/chat/completions", body.len(), true);
            let (answer, mut stream) = h2.open(request, false).await;
            stream.send_data(body.into(), true).unwrap();
            engine.wait_for_arrivals(1).await;
            let mut begun = None;
            if started {
                begun = Some(answer.await.unwrap());
            }
            assert_eq!(gateway.endpoint(0).in_flight(), 1);
            if whole_connection {
                h2.abort();
            } else {
                stream.send_reset(h2::Reason::CANCEL);
            }
            freed(&gateway, &engine).await;
            assert_eq!(engine.left(), 1);
            drop(begun);
            gateway.finish().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_h2_in_the_middle_of_its_body() {
    for whole_connection in [false, true] {
        let (engine, gateway) = one(Script::default()).await;
        let mut h2 = H2::connect(&gateway).await;
        let request = h2_post("/v1/completions", 50_000, true);
        let (_answer, mut stream) = h2.open(request, false).await;
        let begun = padded(50_000)[..20_000].to_vec();
        stream.send_data(begun.into(), false).unwrap();
        until("bytes to be held", || {
            gateway.shared().body_memory.total() == 20_000
        })
        .await;
        if whole_connection {
            h2.abort();
        } else {
            stream.send_reset(h2::Reason::CANCEL);
        }
        gateway.quiet().await;
        assert_eq!(engine.inferences().len(), 0);
        gateway.finish().await;
    }
}

/// A pipelined request hides the end behind it until a write fails: the engine is freed then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_pipelined_request() {
    let (engine, gateway) = one(Script {
        itl: Duration::from_millis(5),
        tokens: 10_000,
        ..Script::default()
    })
    .await;
    let mut client = Client::connect(gateway.address).await;
    client
        .send([chat(true).bytes(), chat(true).bytes()].concat())
        .await;
    client.head().await;
    client.body_until("\"content\":\" ").await;
    client.reset();
    freed(&gateway, &engine).await;
    gateway.finish().await;
}
