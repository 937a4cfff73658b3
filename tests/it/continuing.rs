//! A stream whose engine fails goes on at another one, and its client sees one answer.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    Answer, Cut, CutBy, Cutter, Death, End, Engine, EngineError, Fault, Flavour, Gateway, Puppet,
    Request, Script, engine_with, in_turn, pool, post, raw_answer, sse_head, until,
};

/// Nothing is ejected, however often it is cut.
pub const KEYS: &str = "engine: vllm, health: { eject_after: 1000, interval: 1h }, \
                    retry_budget: { ratio: 10, min_per_second: 1000 }";

/// What a client makes of a stream.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Told {
    pub text: String,
    pub reasoning: String,
    ids: Vec<String>,
    roles: usize,
    finish: Vec<String>,
    usage: Vec<(u64, u64, u64)>,
    pub done: usize,
    pub errors: usize,
}

fn told(answer: &Answer) -> Told {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let mut told = Told::default();
    for event in answer
        .text()
        .split("\n\n")
        .filter(|event| !event.trim().is_empty())
    {
        let data = event
            .trim_start_matches('\n')
            .strip_prefix("data: ")
            .expect(event);
        if data == "[DONE]" {
            told.done += 1;
            continue;
        }
        assert_eq!(told.done, 0, "something behind [DONE]: {event}");
        let json: Value = serde_json::from_str(data).expect(data);
        if json.get("error").is_some() {
            told.errors += 1;
            continue;
        }
        // Each once, and none of the gateway's own wishes.
        let id = format!(
            "{} {} {} {}",
            json["id"], json["object"], json["created"], json["model"]
        );
        if told.ids.last() != Some(&id) {
            told.ids.push(id);
        }
        assert!(json["prompt_token_ids"].is_null(), "{data}");
        if let Some(usage) = json.get("usage").filter(|usage| !usage.is_null()) {
            let count = |name: &str| usage[name].as_u64().expect(data);
            told.usage.push((
                count("prompt_tokens"),
                count("completion_tokens"),
                count("total_tokens"),
            ));
        }
        for choice in json["choices"].as_array().expect(data) {
            assert!(choice["token_ids"].is_null(), "{data}");
            assert!(choice["prompt_token_ids"].is_null(), "{data}");
            let delta = &choice["delta"];
            let text = delta["content"].as_str().or(choice["text"].as_str());
            told.text.push_str(text.unwrap_or_default());
            told.reasoning
                .push_str(delta["reasoning"].as_str().unwrap_or_default());
            told.roles += usize::from(delta.get("role").is_some());
            told.finish
                .extend(choice["finish_reason"].as_str().map(str::to_owned));
        }
    }
    told
}

/// The same, without what two answers never have in common.
pub fn content(answer: &Answer) -> Told {
    let told = told(answer);
    assert_eq!(told.ids.len(), 1, "{}", answer.text());
    Told {
        ids: Vec::new(),
        ..told
    }
}

pub async fn speaking(tokens: usize) -> Engine {
    engine_with(Script {
        tokens,
        ..Script::default()
    })
    .await
}

/// A request whose answer is cut after so many bytes.
fn cut_at(at: usize, path: &str, body: &Value) -> Request {
    let mut body = body.clone();
    body["user"] = at.to_string().into();
    post(path, body.to_string())
}

pub fn chat(members: &Value) -> Value {
    let mut body = json!({
        "model": "DeepSeek-R1", "messages": [{ "role": "user", "content": "Say something." }], "stream": true,
        "stream_options": { "include_usage": true }, "max_tokens": 100,
    });
    let added = members.as_object().unwrap().clone();
    body.as_object_mut().unwrap().extend(added);
    body
}

fn completion(members: &Value) -> Value {
    let mut body = chat(members);
    body.as_object_mut().unwrap().remove("messages");
    body["prompt"] = "Say something.".into();
    body
}

/// Cuts the answer to `body` at every `step`-th byte and wants what the uncut answer has; `exact`: its counts, too.
async fn assert_whole(path: &str, body: &Value, keys: &str, by: CutBy, step: usize, exact: bool) {
    let engine = speaking(14).await;
    let cutter = Cutter::before(&engine, by).await;
    let gateway = Gateway::start(&in_turn(&cutter.authority(), &engine.authority(), keys)).await;
    let uncut = gateway.ask(&cut_at(usize::MAX, path, body)).await;
    let expected = content(&uncut);
    assert_eq!(
        (expected.done, expected.finish.len()),
        (1, 1),
        "{}",
        uncut.text()
    );
    // What the engine says to the gateway, ids included.
    let mut asked = body.clone();
    asked["return_token_ids"] = true.into();
    // The gateway's ids of requests, which the engine's answers have, are longer.
    let length = raw_answer(&engine, &post(path, asked.to_string()))
        .await
        .len()
        + 512;
    let mut at = 0;
    while at <= length {
        let asked = (at..=length).step_by(step).take(64);
        let answers = asked.clone().map(|at| {
            let (request, address) = (cut_at(at, path, body), gateway.address);
            tokio::spawn(async move { crate::support::ask(address, &request).await })
        });
        for (answer, cut) in answers.collect::<Vec<_>>().into_iter().zip(asked.clone()) {
            let answer = answer.await.unwrap();
            assert_eq!(
                answer.end,
                End::Framed,
                "cut at {cut} of {length}: {}",
                answer.text()
            );
            let mut told = content(&answer);
            if !exact {
                told.usage.clone_from(&expected.usage);
            }
            assert_eq!(
                told,
                expected,
                "cut at {cut} of {length}: {}",
                answer.text()
            );
        }
        at = asked.last().unwrap() + step;
        // One that is whole, so that the cutter is not ejected.
        assert_eq!(
            content(&gateway.ask(&cut_at(usize::MAX, path, body)).await),
            expected
        );
    }
    assert_eq!(
        gateway.continuations("failed") + gateway.continuations("refused"),
        0.0
    );
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chat_cut_at_any_byte_is_whole() {
    assert_whole(
        "/v1/chat/completions",
        &chat(&json!({})),
        KEYS,
        CutBy::Fin,
        1,
        true,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_completion_cut_at_any_byte_is_whole() {
    assert_whole(
        "/v1/completions",
        &completion(&json!({})),
        KEYS,
        CutBy::Fin,
        1,
        true,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_reset_is_whole() {
    assert_whole(
        "/v1/chat/completions",
        &chat(&json!({})),
        KEYS,
        CutBy::Rst,
        97,
        true,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stop_strings_hold_wherever_the_stream_is_cut() {
    for stop in [
        json!(["never said", "xyz"]),
        json!(" t"),
        json!(["é", "a 🚀 b"]),
    ] {
        let body = chat(&json!({ "stop": stop, "max_tokens": 12, "temperature": 0 }));
        assert_whole("/v1/chat/completions", &body, KEYS, CutBy::Fin, 7, true).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_text_a_chat_goes_on_as_it_would_have() {
    let keys = format!("{KEYS}, continue_streams: text");
    let body = chat(&json!({}));
    assert_whole("/v1/chat/completions", &body, &keys, CutBy::Fin, 3, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_text_a_completion_goes_on_as_it_would_have() {
    let keys = format!("{KEYS}, continue_streams: text");
    let body = completion(&json!({ "max_tokens": 9 }));
    assert_whole("/v1/completions", &body, &keys, CutBy::Fin, 5, false).await;
}

/// A gateway before two engines, the first of which fails so.
async fn failing(fault: Fault, keys: &str) -> (Engine, Engine, Gateway) {
    let first = engine_with(Script {
        fault: Some(fault),
        ..Script::default()
    })
    .await;
    let second = speaking(16).await;
    let gateway = Gateway::start(&in_turn(&first.authority(), &second.authority(), keys)).await;
    (first, second, gateway)
}

pub fn bounded() -> Request {
    post("/v1/chat/completions", chat(&json!({})).to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_gives_up_in_its_own_words_is_not_believed() {
    for fault in [
        Fault::Abort { after: 5 },
        Fault::Error {
            after: 5,
            error: EngineError::CoreDead,
        },
        Fault::Error {
            after: 5,
            error: EngineError::ShuttingDown,
        },
        Fault::BadChunk { after: 5 },
        Fault::Cut {
            after: 5,
            how: Cut::Clean,
        },
    ] {
        let (first, second, gateway) = failing(fault.clone(), KEYS).await;
        let told_of = content(&gateway.ask(&bounded()).await);
        first.set(Script::default());
        assert_eq!(
            told_of,
            content(&gateway.ask(&bounded()).await),
            "{fault:?}"
        );
        assert_eq!((told_of.errors, told_of.done, told_of.roles), (0, 1, 1));
        assert_eq!(gateway.continuations("ids"), 1.0, "{fault:?}");
        let asked = &second.inferences()[0];
        assert_eq!(asked.target, "/v1/completions");
        let body: Value = serde_json::from_slice(asked.body.as_deref().unwrap()).unwrap();
        assert_eq!(body["max_tokens"], 95, "{body}");
        assert_eq!(body["prompt"].as_array().unwrap().len(), 8 + 5);
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_engine_is_left_when_it_has_been_silent_for_too_long() {
    let cut = Fault::Cut {
        after: 5,
        how: Cut::Silence,
    };
    let keys = format!("{KEYS}, timeouts: {{ read: 200ms }}");
    let (_first, _second, gateway) = failing(cut, &keys).await;
    let told = content(&gateway.ask(&bounded()).await);
    assert_eq!((told.errors, told.done, told.finish.len()), (0, 1, 1));
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_connect_moves_every_stream_of_the_endpoint() {
    for death in [
        Death::Freeze,
        Death::Close,
        Death::Reset,
        Death::Abort,
        Death::Error,
    ] {
        let slow = || Script {
            itl: Duration::from_millis(5),
            tokens: 60,
            ..Script::default()
        };
        let (first, second) = (engine_with(slow()).await, engine_with(slow()).await);
        let both = [first.authority(), second.authority()].map(|url| format!("\"{url}\""));
        let keys = format!("policy: round_robin, {KEYS}");
        let gateway = Gateway::start(&pool(&both, &keys)).await;
        let streams: Vec<_> = (0..12)
            .map(|_| {
                let address = gateway.address;
                tokio::spawn(async move { crate::support::ask(address, &bounded()).await })
            })
            .collect();
        until("streams to flow", || {
            first.in_flight() + second.in_flight() == 12
        })
        .await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        first.kill(death).await;
        // Some request, or a probe, is refused.
        assert_eq!(content(&gateway.ask(&bounded()).await).done, 1);
        let at = tokio::time::Instant::now();
        gateway
            .endpoint(0)
            .probed(Err(sluicegate::pool::ProbeFailure::Refused), at);
        let mut texts = Vec::new();
        for stream in streams {
            texts.push(content(&stream.await.unwrap()));
        }
        assert!(
            texts.iter().all(|told| *told == texts[0]),
            "{death:?} {texts:?}"
        );
        assert_eq!((texts[0].errors, texts[0].done), (0, 1), "{death:?}");
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_may_be_cut_as_often_as_it_may_be_retried() {
    let mut engines = Vec::new();
    for _ in 0..3 {
        engines.push(speaking(16).await);
    }
    let all = |count| {
        let engines: &[Engine] = &engines;
        let fault = Fault::Cut {
            after: 4,
            how: Cut::Close,
        };
        engines
            .iter()
            .for_each(|engine| engine.fail_next(count, fault.clone()));
        let urls = engines
            .iter()
            .map(|engine| format!("\"{}\"", engine.authority()));
        urls.collect::<Vec<_>>()
    };
    let gateway = Gateway::start(&pool(&all(1), KEYS)).await;
    let told_of = content(&gateway.ask(&bounded()).await);
    // The third may be one that has been cut already.
    assert!(gateway.continuations("ids") >= 2.0);
    assert_eq!(told_of, content(&gateway.ask(&bounded()).await));
    gateway.finish().await;
    let keys = format!("{KEYS}, retries: 1");
    let gateway = Gateway::start(&pool(&all(2), &keys)).await;
    let answer = gateway.ask(&bounded()).await;
    assert_eq!((told(&answer).errors, answer.end), (1, End::Closed));
    assert_eq!(
        (
            gateway.continuations("ids"),
            gateway.continuations("failed")
        ),
        (1.0, 1.0)
    );
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_gone_on_with_ends_with_an_error() {
    let cut = Fault::Cut {
        after: 5,
        how: Cut::Close,
    };
    for members in [
        json!({ "n": 2 }),
        json!({ "logprobs": true }),
        json!({ "response_format": { "type": "json_object" } }),
        json!({ "frequency_penalty": 0.5 }),
        json!({ "some_new_field": true }),
    ] {
        let (first, _second, gateway) = failing(cut.clone(), KEYS).await;
        let request = post("/v1/chat/completions", chat(&members).to_string());
        let answer = gateway.ask(&request).await;
        assert_eq!(answer.end, End::Closed, "{members}: {}", answer.text());
        assert_eq!(told(&answer).errors, 1, "{members}");
        let asked = first.inferences()[0].body.clone().unwrap();
        assert!(!String::from_utf8_lossy(&asked).contains("return_token_ids"));
        gateway.finish().await;
    }
    let off = format!("{KEYS}, continue_streams: false");
    let openai = KEYS.replace("vllm", "openai");
    for keys in [off.as_str(), openai.as_str()] {
        let (_first, _second, gateway) = failing(cut.clone(), keys).await;
        let answer = gateway.ask(&bounded()).await;
        assert_eq!(
            (answer.end, told(&answer).errors),
            (End::Closed, 1),
            "{keys}"
        );
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_and_responses_end_with_their_own_error() {
    let messages = json!({
        "model": "DeepSeek-R1", "max_tokens": 100, "stream": true, "messages": [{ "role": "user", "content": "x" }],
    });
    let responses = json!({ "model": "DeepSeek-R1", "stream": true, "input": "x" });
    for (path, body, error) in [
        ("/v1/messages", messages, "event: error"),
        ("/v1/responses", responses, "\"error\""),
    ] {
        let cut = Fault::Cut {
            after: 5,
            how: Cut::Close,
        };
        let (_first, second, gateway) = failing(cut, KEYS).await;
        let answer = gateway.ask(&post(path, body.to_string())).await;
        assert_eq!(answer.end, End::Closed);
        assert!(answer.text().contains(error), "{}", answer.text());
        assert_eq!(second.inferences().len(), 0);
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reasoning_stays_reasoning() {
    let words = ["Let", " me", " see", "</think>", "\n\n", "It is", " 42"];
    let second = engine_with(Script {
        answer: Some(words.map(str::to_owned).into()),
        ..Script::default()
    })
    .await;
    let event = |delta: Value, id: u32| {
        json!({
            "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 7, "model": "DeepSeek-R1",
            "choices": [{ "index": 0, "delta": delta, "finish_reason": null, "token_ids": [id] }],
        })
        .to_string()
    };
    let events = [
        event(json!({ "reasoning": "Let" }), 1000),
        event(json!({ "reasoning": " me" }), 1001),
        event(json!({ "reasoning": " see" }), 1002),
        event(json!({}), 1003),
        event(json!({ "content": "\n\n" }), 1004),
        event(json!({ "content": "It is" }), 1005),
    ];
    let mut role: Value =
        serde_json::from_str(&event(json!({ "role": "assistant", "content": "" }), 0)).unwrap();
    role["prompt_token_ids"] = json!([1, 2, 500, 3]);
    role["choices"][0]["token_ids"] = Value::Null;
    for cut in 1..=events.len() {
        let mut first = Puppet::start().await;
        let keys = format!("{KEYS}, timeouts: {{ first_byte: 5s }}");
        let urls = in_turn(&first.authority(), &second.authority(), &keys);
        let gateway = Gateway::start(&urls).await;
        let address = gateway.address;
        let asked = tokio::spawn(async move { crate::support::ask(address, &bounded()).await });
        let mut exchange = first.next().await;
        exchange.write(sse_head()).await;
        exchange.event(&role.to_string()).await;
        for event in &events[..cut] {
            exchange.event(event).await;
        }
        drop(exchange);
        let told = content(&asked.await.unwrap());
        assert_eq!(
            (told.reasoning.as_str(), told.text.as_str()),
            ("Let me see", "\n\nIt is 42"),
            "cut behind {cut}"
        );
        assert_eq!(told.usage, [(4, 8, 12)], "cut behind {cut}");
        assert_eq!((told.roles, told.done, told.errors), (1, 1, 0));
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_limit_an_answer_may_be_as_long_as_the_model_can() {
    let cut = Fault::Cut {
        after: 5,
        how: Cut::Close,
    };
    let (_first, second, gateway) = failing(cut, KEYS).await;
    let known = || gateway.endpoint(1).catalog.get().is_some();
    until("the engine to say what it serves", known).await;
    let mut body = chat(&json!({}));
    body.as_object_mut().unwrap().remove("max_tokens");
    let answer = gateway
        .ask(&post("/v1/chat/completions", body.to_string()))
        .await;
    assert_eq!(content(&answer).done, 1);
    let asked = second.inferences()[0].body.clone().unwrap();
    let asked: Value = serde_json::from_slice(&asked).unwrap();
    let (prompt, most) = (
        asked["prompt"].as_array().unwrap().len(),
        asked["max_tokens"].as_u64(),
    );
    assert_eq!(most, Some((1 << 20) - prompt as u64));
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sglang_goes_on_by_text() {
    let cut = Fault::Cut {
        after: 5,
        how: Cut::Close,
    };
    let sglang = |fault| Script {
        flavour: Flavour::Sglang,
        fault,
        ..Script::default()
    };
    let (first, second) = (
        engine_with(sglang(Some(cut))).await,
        engine_with(sglang(None)).await,
    );
    let keys = KEYS.replace("vllm", "sglang");
    let gateway = Gateway::start(&in_turn(&first.authority(), &second.authority(), &keys)).await;
    let told_of = content(&gateway.ask(&bounded()).await);
    first.set(sglang(None));
    let uncut = content(&gateway.ask(&bounded()).await);
    assert_eq!(
        (told_of.text, told_of.roles, told_of.done),
        (uncut.text, 1, 1)
    );
    let asked = second.inferences()[0].body.clone().unwrap();
    let asked: Value = serde_json::from_slice(&asked).unwrap();
    assert_eq!(
        (
            &asked["continue_final_message"],
            &asked["add_generation_prompt"]
        ),
        (&json!(true), &json!(false))
    );
    assert_eq!(asked["messages"].as_array().unwrap().len(), 2);
    assert_eq!(gateway.continuations("text"), 1.0);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_an_event_of_several_tokens_the_ids_are_asked_for() {
    let second = speaking(16).await;
    let chunk = |delta: Value, members: Value| {
        let mut event = json!({
            "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 7, "model": "DeepSeek-R1",
            "choices": [{ "index": 0, "delta": delta, "finish_reason": null }],
        });
        let members = members.as_object().unwrap().clone();
        for (name, value) in members {
            match name.as_str() {
                "token_ids" => event["choices"][0][name] = value,
                _ => event[name] = value,
            }
        }
        event.to_string()
    };
    // What the second engine says: the first words of it come from the first, several tokens an event.
    let body = chat(&json!({}));
    let mut asked = body.clone();
    asked["return_token_ids"] = true.into();
    let raw = raw_answer(&second, &post("/v1/chat/completions", asked.to_string())).await;
    let raw = String::from_utf8_lossy(&raw).into_owned();
    let events: Vec<Value> = (raw.split("data: ").skip(1))
        .filter_map(|event| serde_json::from_str(event.split("\n\n").next()?).ok())
        .collect();
    let ids = |event: &Value| {
        event["choices"][0]["token_ids"]
            .as_array()
            .cloned()
            .unwrap_or_default()
    };
    let text = |event: &Value| {
        event["choices"][0]["delta"]["content"]
            .as_str()
            .unwrap_or("")
            .to_owned()
    };
    let prompt = events[0]["prompt_token_ids"].clone();
    let group = |from: usize, to: usize| {
        let of = &events[from..to];
        let ids: Vec<Value> = of.iter().flat_map(ids).collect();
        chunk(
            json!({ "content": of.iter().map(text).collect::<String>() }),
            json!({ "token_ids": ids }),
        )
    };
    let uncut: String = events.iter().map(text).collect();
    let other = chunk(
        json!({ "content": " another word" }),
        json!({ "token_ids": [120, 121] }),
    );
    for (temperature, last, asks) in [
        (json!(0.7), group(4, 7), true),
        (json!(0), group(4, 7), false),
        (Value::Null, group(4, 7), true),
        // The next engine does not say this once more, although it does not draw.
        (json!(0), other, true),
    ] {
        second.clear_requests();
        let mut first = Puppet::start().await;
        let urls = in_turn(&first.authority(), &second.authority(), KEYS);
        let gateway = Gateway::start(&urls).await;
        let address = gateway.address;
        let request = chat(&json!({ "temperature": temperature }));
        let request = post("/v1/chat/completions", request.to_string());
        let asked = tokio::spawn(async move { crate::support::ask(address, &request).await });
        let mut exchange = first.next().await;
        exchange.write(sse_head()).await;
        let role = json!({ "role": "assistant", "content": "" });
        exchange
            .event(&chunk(role, json!({ "prompt_token_ids": prompt })))
            .await;
        exchange.event(&group(1, 4)).await;
        exchange.event(&last).await;
        drop(exchange);
        let told = content(&asked.await.unwrap());
        assert_eq!((told.done, told.errors, told.finish.len()), (1, 0, 1));
        match last.contains("another") {
            true => assert!(told.text.contains(" another word"), "{}", told.text),
            false => assert_eq!(told.text, uncut),
        }
        let requests = second.requests();
        let tokenized = requests
            .iter()
            .filter(|request| request.target == "/tokenize")
            .count();
        assert_eq!(tokenized, usize::from(asks), "{temperature}");
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_model_keeps_the_name_that_the_client_knows() {
    // In the middle, and behind the finish_reason.
    for at in (1500..6000).step_by(250) {
        let first = speaking(16).await;
        let first = Cutter::before(&first, CutBy::Fin).await;
        let second = engine_with(Script {
            model: "other".into(),
            ..Script::default()
        })
        .await;
        let endpoints = format!(
            "\"{}\", {{ url: \"{}\", backup: true, model: other }}",
            first.authority(),
            second.authority()
        );
        let yaml = format!(
            "pools: {{ default: {{ endpoints: [{endpoints}], {KEYS} }} }}\nmodels: {{ r1: {{ upstream_model: DeepSeek-R1, rename_response: true }} }}"
        );
        let gateway = Gateway::start(&yaml).await;
        let request = post(
            "/v1/chat/completions",
            chat(&json!({ "model": "r1", "user": at.to_string() })).to_string(),
        );
        let answer = gateway.ask(&request).await;
        let told = told(&answer);
        assert_eq!(told.ids.len(), 1, "{}", answer.text());
        assert!(told.ids[0].ends_with("\"r1\""), "{:?}", told.ids);
        assert_eq!((told.done, told.usage.len(), told.errors), (1, 1, 0));
        gateway.finish().await;
    }
}
