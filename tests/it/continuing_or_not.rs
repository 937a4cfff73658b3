//! Streams that are to go on elsewhere while that is not certain: how, where, and whether at all.

use std::time::Duration;

use serde_json::{Value, json};

use crate::continuing::{KEYS, bounded, chat, content, speaking};
use crate::support::{
    Client, Cut, End, Exchange, Fault, Flavour, Gateway, Puppet, Script, Then, engine_with,
    in_turn, pool, post, sse_head, until,
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

/// An event of the first engine, which tells the ids of its tokens.
fn event(delta: impl Into<Value>, ids: impl Into<Value>) -> Value {
    let (delta, ids) = (delta.into(), ids.into());
    json!({
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 7, "model": "DeepSeek-R1",
        "choices": [{ "index": 0, "delta": delta, "finish_reason": null, "token_ids": ids }],
    })
}

fn role() -> Value {
    let mut role = event(json!({ "role": "assistant", "content": "" }), Value::Null);
    role["prompt_token_ids"] = json!([1, 2, 500, 3]);
    role
}

/// An event of one that goes on.
fn more(text: &str, ids: impl Into<Value>, finish: impl Into<Value>) -> Value {
    let (ids, finish) = (ids.into(), finish.into());
    json!({
        "id": "cmpl-1", "object": "text_completion", "created": 9, "model": "DeepSeek-R1",
        "choices": [{ "index": 0, "text": text, "finish_reason": finish, "token_ids": ids }],
    })
}

fn chunks(events: &[Value]) -> String {
    let events = events.iter().map(|event| format!("data: {event}\n\n"));
    let chunks = events.map(|event| format!("{:x}\r\n{event}\r\n", event.len()));
    chunks.collect()
}

const LAST_CHUNK: &str = "0\r\n\r\n";

/// Two engines, the first of which has the request of the client.
async fn asked_of_two() -> (Puppet, Exchange, Puppet, Gateway, Client) {
    let (mut first, second) = (Puppet::start().await, Puppet::start().await);
    let urls = in_turn(&first.authority(), &second.authority(), KEYS);
    let gateway = Gateway::start(&urls).await;
    let mut client = Client::connect(gateway.address).await;
    client.send(bounded().bytes()).await;
    let exchange = first.next().await;
    (first, exchange, second, gateway, client)
}

/// The answer ends with these bytes, of which the client is shown that text.
async fn ends(mut exchange: Exchange, bytes: String, client: &mut Client, text: &str) {
    exchange.write(bytes).await;
    exchange.event("[DONE]").await;
    exchange.last_chunk().await;
    let body = client.body_until("[DONE]").await;
    assert!(body.contains(text), "{body}");
    assert_eq!(client.rest().await.1, End::Framed);
}

/// What came with the end of an answer that is none is shown before another has gone on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_words_before_a_cut_do_not_wait() {
    for comes_whole in [true, false] {
        let (_first, mut exchange, mut second, gateway, mut client) = asked_of_two().await;
        let head = sse_head();
        let begin = chunks(&[role(), event(json!({ "content": "Well" }), json!([7]))]);
        let last = chunks(&[event(json!({ "content": ", so far" }), json!([8]))]);
        if comes_whole {
            let all = format!("{head}{begin}{last}{LAST_CHUNK}");
            exchange.write(all).await;
            client.head().await;
        } else {
            exchange.write(format!("{head}{begin}")).await;
            client.head().await;
            client.body_until("Well").await;
            exchange.write(format!("{last}{LAST_CHUNK}")).await;
        }
        let next = second.next().await;
        client.body_until(", so far").await;
        let end = chunks(&[
            more(" and", json!([9]), Value::Null),
            more(" no further", json!([10]), json!("stop")),
        ]);
        ends(next, format!("{head}{end}"), &mut client, " no further").await;
        gateway.finish().await;
    }
}

/// In the middle of a reasoning the ids of its end are to be known, and not every engine has to tell them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reasoning_goes_on_when_one_of_the_others_does_not_tell_its_end() {
    let words = ["Let", " me", " see", "</think>", "It is", " 42"];
    let third = engine_with(Script {
        answer: Some(words.map(str::to_owned).into()),
        ..Script::default()
    })
    .await;
    let not_found = "HTTP/1.1 404 X\r\ncontent-length: 0\r\n\r\n";
    let second = Puppet::answering(not_found, Then::Keep).await;
    let mut first = Puppet::start().await;
    let urls = [
        format!("\"{}\"", first.authority()),
        format!(
            "{{ url: \"{}\", max_in_flight: 1, backup: true }}",
            second.authority()
        ),
        format!("{{ url: \"{}\", backup: true }}", third.authority()),
    ];
    let gateway = Gateway::start(&pool(&urls, KEYS)).await;
    let snapshot = gateway.shared().snapshot.load_full();
    let place = snapshot.pools[0].lease(
        &Default::default(),
        &sluicegate::pool::Tried::all_but(1, 3),
        tokio::time::Instant::now(),
        &mut fastrand::Rng::new(),
    );
    let address = gateway.address;
    let asked = tokio::spawn(async move { crate::support::ask(address, &bounded()).await });
    let mut exchange = first.next().await;
    let begin = [
        role(),
        event(json!({ "reasoning": "Let" }), json!([1000])),
        event(json!({ "reasoning": " me" }), json!([1001])),
    ];
    exchange
        .write(format!("{}{}", sse_head(), chunks(&begin)))
        .await;
    drop(exchange);
    let told = content(&asked.await.unwrap());
    assert_eq!((told.errors, told.done), (0, 1));
    assert_eq!(told.reasoning, "Let me see");
    assert!(second.requests()[0].0.starts_with("POST /tokenize "));
    drop(place);
    gateway.finish().await;
}

/// What another said before it said something else is not said by the one that is asked then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_new_before_a_divergence_is_shown() {
    for comes_at_once in [true, false] {
        let (_first, mut exchange, mut second, gateway, mut client) = asked_of_two().await;
        let head = sse_head();
        let begin = chunks(&[role(), event(json!({ "reasoning": "Let" }), json!([1000]))]);
        exchange.write(format!("{head}{begin}")).await;
        drop(exchange);
        client.head().await;
        second
            .next()
            .await
            .answer_json(r#"{"tokens":[1003]}"#)
            .await;
        let mut next = second.next().await;
        // Where its reasoning ends in these nobody can tell.
        let (new, other) = (
            more(" me see", json!([1001, 1002]), Value::Null),
            more("", json!([1004, 1003]), Value::Null),
        );
        if comes_at_once {
            next.write(format!("{head}{}", chunks(&[new, other]))).await;
        } else {
            let before = more(" ...", json!([1005]), Value::Null);
            next.write(format!("{head}{}", chunks(&[before]))).await;
            client.body_until(" ...").await;
            next.write(chunks(&[new, other])).await;
        }
        second
            .next()
            .await
            .answer_json(r#"{"tokens":[1001,1002]}"#)
            .await;
        let last = second.next().await;
        client.body_until(" me see").await;
        let end = [
            more("</think>", json!([1003]), Value::Null),
            more("42", json!([1006]), json!("stop")),
        ];
        ends(last, format!("{head}{}", chunks(&end)), &mut client, "42").await;
        gateway.finish().await;
    }
}
