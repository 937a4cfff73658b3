//! Streams that are to go on elsewhere while that is not certain: how, where, and whether at all.

use std::time::Duration;

use serde_json::{Value, json};

use crate::continuing::{KEYS, bounded, chat, content, speaking};
use crate::support::{
    Client, Cut, Fault, Flavour, Gateway, Puppet, Script, Then, engine_with, in_turn, pool, post,
    sse_head, until,
};

/// How a stream goes on may not be known when it begins to be shown, and by text it needs the request's own body.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_begins_with_nothing_goes_on_by_text() {
    let mut first = Puppet::start().await;
    let second = engine_with(Script {
        flavour: Flavour::Sglang,
        ..Script::default()
    })
    .await;
    let keys = KEYS.replace("vllm", "sglang");
    let yaml = in_turn(&first.authority(), &second.authority(), &keys);
    let gateway = Gateway::start(&format!("{yaml}\nlimits: {{ event: 4KiB }}")).await;
    let mut client = Client::connect(gateway.address).await;
    client.send(bounded().bytes()).await;
    let mut exchange = first.next().await;
    exchange.write(sse_head()).await;
    // More than is held.
    let comment = ": keep-alive\n\n";
    for _ in 0..400 {
        exchange
            .write(format!("{:x}\r\n{comment}\r\n", comment.len()))
            .await;
    }
    assert_eq!(client.head().await.status, 200);
    let event = |delta: &str| {
        format!(
            r#"{{"id":"c","object":"chat.completion.chunk","created":7,"model":"DeepSeek-R1","choices":[{{"index":0,"delta":{{{delta}}},"finish_reason":null}}]}}"#
        )
    };
    exchange
        .event(&event(r#""role":"assistant","content":"""#))
        .await;
    exchange.event(&event(r#""content":"So far""#)).await;
    client.body_until("So far").await;
    drop(exchange);
    let (body, _) = client.rest().await;
    assert!(body.ends_with(b"data: [DONE]\n\n"));
    assert_eq!(gateway.continuations("text"), 1.0);
    let asked = second.inferences()[0].body.clone().unwrap();
    let asked: Value = serde_json::from_slice(&asked).unwrap();
    assert_eq!(asked["messages"][1]["content"], "So far", "{asked}");
    gateway.finish().await;
}

/// A draining endpoint is left for another that takes the stream, and not before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_nobody_takes_stays_where_it_is_drained() {
    let slow = Script {
        itl: Duration::from_millis(10),
        tokens: 300,
        ..Script::default()
    };
    let first = engine_with(slow).await;
    // Whatever it is asked for, it refuses.
    let second = Puppet::answering(
        "HTTP/1.1 400 X\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}",
        Then::Keep,
    )
    .await;
    let keys = format!("{KEYS}, drain_timeout: 100ms");
    let gateway = Gateway::start(&in_turn(&first.authority(), &second.authority(), &keys)).await;
    let mut client = Client::connect(gateway.address).await;
    let ask = chat(&json!({ "max_tokens": 300 })).to_string();
    client.send(post("/v1/chat/completions", ask).bytes()).await;
    client.head().await;
    client.body_until("content").await;
    gateway.endpoint(0).drain(tokio::time::Instant::now());
    until("the other to be asked", || !second.requests().is_empty()).await;
    let (body, _) = client.rest().await;
    let text = String::from_utf8(body).unwrap();
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    assert!(!text.contains("\"error\""), "{text}");
    assert_eq!(first.settled().await.completed(), 1);
    for result in ["ids", "text", "failed", "refused"] {
        assert_eq!(gateway.continuations(result), 0.0, "{result}");
    }
    gateway.finish().await;
}

/// A place is waited for while a reload brings an endpoint that cannot have the stream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_a_reload_brings_is_judged_like_the_others() {
    let cut = Fault::Cut {
        after: 5,
        how: Cut::Close,
    };
    let first = engine_with(Script {
        fault: Some(cut),
        ..Script::default()
    })
    .await;
    let (second, short) = (
        speaking(16).await,
        engine_with(Script {
            max_model_len: 10,
            ..Script::default()
        })
        .await,
    );
    let second_url = format!(
        "{{ url: \"{}\", max_in_flight: 1, backup: true }}",
        second.authority()
    );
    let urls = [format!("\"{}\"", first.authority()), second_url];
    let gateway = Gateway::start(&pool(&urls, KEYS)).await;
    let snapshot = gateway.shared().snapshot.load_full();
    // The only one.
    let place = snapshot.pools[0].lease(
        &Default::default(),
        &sluicegate::pool::Tried::all_but(1, 2),
        tokio::time::Instant::now(),
        &mut fastrand::Rng::new(),
    );
    let address = gateway.address;
    // As long as the model can: how long that is, the gateway has to know of an endpoint.
    let request = post(
        "/v1/chat/completions",
        chat(&json!({ "max_tokens": null })).to_string(),
    );
    let asked = tokio::spawn(async move { crate::support::ask(address, &request).await });
    until("the stream to wait", || {
        snapshot.pools[0].queue.depth() == 1
    })
    .await;
    let more = [
        urls[0].clone(),
        urls[1].clone(),
        format!("\"{}\"", short.authority()),
    ];
    gateway.reload(&pool(&more, KEYS)).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(short.inferences().len(), 0);
    drop(place);
    let told = content(&asked.await.unwrap());
    assert_eq!((told.errors, told.done), (0, 1));
    assert_eq!(short.inferences().len(), 0);
    gateway.finish().await;
}

/// The ids of a prompt come in one event, which has to be read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_are_asked_for_where_their_event_is_read_for_certain() {
    for (max_model_len, length, asks) in [
        (1 << 20, 100, true),
        (1 << 20, 3000, false),
        (2000, 3000, true),
    ] {
        let script = || Script {
            max_model_len,
            record: 64,
            record_body: 8192,
            ..Script::default()
        };
        let engines = [engine_with(script()).await, engine_with(script()).await];
        let [first, second] = engines.each_ref().map(|engine| engine.authority());
        let yaml = in_turn(&first, &second, KEYS);
        let gateway = Gateway::start(&format!("{yaml}\nlimits: {{ event: 16KiB }}")).await;
        for index in 0..2 {
            let known = || gateway.endpoint(index).catalog.get().is_some();
            until("the engine to say what it serves", known).await;
        }
        let mut body = chat(&json!({}));
        body["messages"][0]["content"] = "wording ".repeat(length / 8).into();
        let answer = gateway
            .ask(&post("/v1/chat/completions", body.to_string()))
            .await;
        assert_eq!(content(&answer).done, 1);
        let asked = engines[0].inferences()[0].body.clone().unwrap();
        let asked: Value = serde_json::from_slice(&asked).unwrap();
        let found = asked.get("return_token_ids").is_some();
        assert_eq!(
            found, asks,
            "{length} bytes, a model of {max_model_len} tokens"
        );
        gateway.finish().await;
    }
}
