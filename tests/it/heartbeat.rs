//! Signs of life for whoever waits for a stream, and what becomes of failures behind a head that has gone.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::support::{
    Client, Cut, End, Exchange, Fault, Gateway, H2, H2End, Puppet, Request, Script, chat,
    chat_body, engine, h2_post, in_turn, pool, post, sse_head, until, within,
};

/// Often, so that the tests are quick.
const BEATS: &str = "heartbeat: 20ms";
const COMMENT: &str = ": heartbeat\n\n";
const CONTENT: &str = r#"{"choices":[{"index":0,"delta":{"content":"a"}}]}"#;
const FINISH: &str = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;

/// A pool of one endpoint; with TLS and an access log.
async fn before(authority: &str, keys: &str) -> Gateway {
    let yaml = pool(&[format!("\"{authority}\"")], keys);
    let log = "access_log: { path: access.log, format: json }";
    Gateway::with_tls(&format!("{yaml}\n{log}\n")).await
}

/// The one line of the log.
async fn line(gateway: &Gateway) -> Value {
    let path = gateway.directory().join("access.log");
    let mut text = String::new();
    until("a line", || {
        gateway.shared().flush_access_log(Duration::from_secs(1));
        text = std::fs::read_to_string(&path).unwrap_or_default();
        text.ends_with('\n')
    })
    .await;
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// A stream over h2 whose head has come.
async fn begun(h2: &mut H2) -> (http::Response<h2::RecvStream>, h2::SendStream<Bytes>) {
    let body = chat_body(true);
    let request = h2_post("/v1/chat/completions", body.len(), true);
    let (answer, mut stream) = h2.open(request, false).await;
    stream.send_data(body.into(), true).unwrap();
    let answer = within("a head", answer).await.unwrap();
    assert_eq!(answer.status(), 200);
    (answer, stream)
}

/// A client that has got a head and two comments.
async fn beating(gateway: &Gateway, request: &Request) -> Client {
    let mut client = Client::connect(gateway.address).await;
    client.send(request.bytes()).await;
    beats(&mut client).await;
    client
}

async fn beats(client: &mut Client) {
    let head = client.head().await;
    assert_eq!(head.status, 200);
    for (name, value) in [
        ("content-type", "text/event-stream"),
        ("cache-control", "no-cache"),
        ("x-accel-buffering", "no"),
        ("server", "sluicegate"),
    ] {
        assert_eq!(head.all(name), [value], "{name}");
    }
    assert_eq!(head.all("x-request-id").len(), 1);
    assert_eq!(head.field("content-length"), None);
    let mut body = String::new();
    while body.len() < 2 * COMMENT.len() {
        let piece = client.piece().await.unwrap().unwrap();
        body.push_str(std::str::from_utf8(&piece).unwrap());
    }
    assert_only_comments(&body);
}

#[track_caller]
fn assert_only_comments(body: &str) {
    assert_eq!(body.replace(COMMENT, ""), "");
}

/// A whole stream of one token.
async fn speak(exchange: &mut Exchange) {
    exchange.write(sse_head()).await;
    for data in [CONTENT, FINISH, "[DONE]"] {
        exchange.event(data).await;
    }
    exchange.last_chunk().await;
}

fn spoken() -> String {
    [CONTENT, FINISH, "[DONE]"]
        .map(|data| format!("data: {data}\n\n"))
        .concat()
}

/// What a client gets behind its first comments: without those that came before it was told to stop.
fn behind_comments(body: &[u8]) -> String {
    let text = std::str::from_utf8(body).unwrap();
    let mut rest = text;
    while let Some(next) = rest.strip_prefix(COMMENT) {
        rest = next;
    }
    rest.to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn comments_come_until_the_first_event_over_every_protocol() {
    let mut puppet = Puppet::start().await;
    let gateway = Gateway::with_tls(&pool(&[format!("\"{}\"", puppet.authority())], BEATS)).await;
    for version in ["HTTP/1.1", "HTTP/1.0"] {
        let mut client = beating(&gateway, &chat(true).version(version)).await;
        let mut exchange = puppet.next().await;
        // Neither the engine's head nor its own comments nor a role are content.
        exchange.write(sse_head()).await;
        exchange.write("e\r\n: keep-alive\n\n\r\n").await;
        beats_only(&mut client).await;
        exchange.event(CONTENT).await;
        let body = client.body_until("\"a\"").await;
        let shown = format!(": keep-alive\n\ndata: {CONTENT}\n\n");
        assert_eq!(behind_comments(body.as_bytes()), shown);
        assert!(client.is_silent_for(Duration::from_millis(100)).await);
        exchange.event(FINISH).await;
        exchange.event("[DONE]").await;
        exchange.last_chunk().await;
        let (rest, end) = client.rest().await;
        let rest = String::from_utf8(rest).unwrap();
        assert_eq!(rest, format!("data: {FINISH}\n\ndata: [DONE]\n\n"));
        let expected = match version {
            "HTTP/1.1" => End::Framed,
            _ => End::Closed,
        };
        assert_eq!(end, expected, "{version}");
        drop(exchange);
        if version == "HTTP/1.1" {
            // The connection serves on.
            client.send(chat(true).bytes()).await;
            beats(&mut client).await;
            speak(&mut puppet.next().await).await;
            let (rest, end) = client.rest().await;
            assert_eq!((behind_comments(&rest), end), (spoken(), End::Framed));
        }
    }
    let mut h2 = H2::connect(&gateway).await;
    let (answer, _stream) = begun(&mut h2).await;
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let mut body = answer.into_body();
    let mut text = Vec::new();
    while text.len() < 2 * COMMENT.len() {
        text.extend_from_slice(&within("data", body.data()).await.unwrap().unwrap());
    }
    assert_only_comments(std::str::from_utf8(&text).unwrap());
    speak(&mut puppet.next().await).await;
    while let Some(data) = within("data", body.data()).await {
        text.extend_from_slice(&data.unwrap());
    }
    assert_eq!(behind_comments(&text), spoken());
    gateway.finish().await;
}

/// Two more comments, and nothing else.
async fn beats_only(client: &mut Client) {
    for _ in 0..2 {
        let piece = client.piece().await.unwrap().unwrap();
        assert_only_comments(std::str::from_utf8(&piece).unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_stream_gets_none_and_neither_does_a_pool_without() {
    let mut puppet = Puppet::start().await;
    let embeddings = || {
        post(
            "/v1/embeddings",
            r#"{"model":"m","input":"a","stream":true}"#,
        )
    };
    let unsaid = || post("/v1/chat/completions", r#"{"model":"m","messages":[]}"#);
    for (keys, request) in [
        ("", chat(true)),
        ("heartbeat: null", chat(true)),
        (BEATS, chat(false)),
        (BEATS, unsaid()),
        (BEATS, embeddings()),
        ("heartbeat: 1h", chat(true)),
    ] {
        let gateway = before(&puppet.authority(), keys).await;
        let mut client = Client::connect(gateway.address).await;
        client.send(request.bytes()).await;
        let exchange = puppet.next().await;
        assert!(client.is_silent_for(Duration::from_millis(100)).await);
        let refusal = r#"{"error":{"message":"no","code":400}}"#;
        exchange
            .answer(format!(
                "HTTP/1.1 400 X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{refusal}",
                refusal.len()
            ))
            .await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.text()), (400, refusal), "{keys}");
        assert!(answer.keeps_alive());
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_time_to_the_first_token_is_the_engines() {
    let mut puppet = Puppet::start().await;
    let gateway = before(&puppet.authority(), BEATS).await;
    let mut client = beating(&gateway, &chat(true)).await;
    let mut exchange = puppet.next().await;
    beats_only(&mut client).await;
    speak(&mut exchange).await;
    let (rest, _) = client.rest().await;
    let line = line(&gateway).await;
    assert!(line["ttft_ms"].as_f64().unwrap() >= 80.0, "{line}");
    assert_eq!(
        (&line["status"], &line["end"], &line["error"]),
        (&json!(200), &json!("complete"), &Value::Null)
    );
    assert_eq!(line["stream"], json!(true));
    // The four comments that were counted off are in it.
    let bytes = 4 * COMMENT.len() + rest.len();
    assert_eq!(line["bytes_out"], json!(bytes));
    let ttft = "sluicegate_ttft_seconds_count{model=\"other\",pool=\"default\"}";
    assert_eq!(gateway.metric(ttft), 1.0);
    gateway.finish().await;
}

/// The only engine has as many requests as it may have: one, and its client.
async fn full(keys: &str) -> (Gateway, Puppet, Client, Exchange) {
    let mut puppet = Puppet::start().await;
    let keys = format!("max_in_flight: 1, {keys} {BEATS}");
    let gateway = before(&puppet.authority(), &keys).await;
    let mut first = Client::connect(gateway.address).await;
    first.send(chat(false).bytes()).await;
    let held = puppet.next().await;
    (gateway, puppet, first, held)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waits_in_the_queue_is_kept_alive() {
    let (gateway, mut puppet, mut first, held) = full("").await;
    let mut second = beating(&gateway, &chat(true)).await;
    assert_eq!(
        gateway.metric("sluicegate_queue_depth{pool=\"default\"}"),
        1.0
    );
    let leaving = beating(&gateway, &chat(true)).await;
    let depth = "sluicegate_queue_depth{pool=\"default\"}";
    gateway.wait_for_metric(depth, 2.0).await;
    drop(leaving);
    gateway.wait_for_metric(depth, 1.0).await;
    held.answer_json(r#"{"choices":[]}"#).await;
    assert_eq!(first.answer().await.status, 200);
    speak(&mut puppet.next().await).await;
    let (rest, end) = second.rest().await;
    assert_eq!((behind_comments(&rest), end), (spoken(), End::Framed));
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waited_for_too_long_is_told_so_in_an_event() {
    let queue = "queue: { size: 9, timeout: 500ms },";
    let (gateway, _puppet, first, held) = full(queue).await;
    let mut second = beating(&gateway, &chat(true)).await;
    let (rest, end) = second.rest().await;
    let error = event(&behind_comments(&rest), "");
    assert_eq!(error["error"]["code"], "overloaded");
    let message = error["error"]["message"].as_str().unwrap();
    assert!(
        message.ends_with("Send the request again in 1 s."),
        "{message}"
    );
    assert_eq!(end, End::Closed, "no last chunk");
    let line = line(&gateway).await;
    assert_eq!(
        (&line["status"], &line["end"], &line["error"]),
        (&json!(200), &json!("refused"), &json!("overloaded")),
    );
    let refused = "sluicegate_refused_total{reason=\"overloaded\"}";
    gateway.wait_for_metric(refused, 1.0).await;
    let counted = "sluicegate_requests_total{code=\"503\",endpoint=\"none\",pool=\"default\"}";
    assert_eq!(gateway.metric(counted), 1.0);
    drop((first, held));
    gateway.finish().await;
}

/// The data of the only event there is.
#[track_caller]
fn event(body: &str, name: &str) -> Value {
    let data = body.trim_matches('\n').strip_prefix(name);
    let data = data
        .and_then(|event| event.strip_prefix("data: "))
        .expect(body);
    serde_json::from_str(data).expect(body)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_still_moves_on() {
    let (mut bad, mut good) = (Puppet::start().await, Puppet::start().await);
    let yaml = in_turn(&bad.authority(), &good.authority(), BEATS);
    let gateway = Gateway::start(&yaml).await;
    let mut client = beating(&gateway, &chat(true)).await;
    let mut exchange = bad.next().await;
    // As far as a stream may come without content.
    exchange.write(sse_head()).await;
    exchange
        .event(r#"{"choices":[{"index":0,"delta":{"role":"assistant"}}]}"#)
        .await;
    beats_only(&mut client).await;
    exchange.reset();
    let mut exchange = good.next().await;
    beats_only(&mut client).await;
    speak(&mut exchange).await;
    let (rest, end) = client.rest().await;
    assert_eq!((behind_comments(&rest), end), (spoken(), End::Framed));
    assert_eq!(gateway.retries("connection_lost"), 1.0);
    gateway.finish().await;
}

/// Paths, bodies, and the name of an error event in the API's dialect.
const DIALECTS: [(&str, &str, &str); 4] = [
    (
        "/v1/chat/completions",
        r#"{"model":"m","messages":[],"stream":true}"#,
        "",
    ),
    (
        "/v1/completions",
        r#"{"model":"m","prompt":"a","stream":true}"#,
        "",
    ),
    (
        "/v1/messages",
        r#"{"model":"m","max_tokens":1,"messages":[],"stream":true}"#,
        "event: error\n",
    ),
    (
        "/v1/responses",
        r#"{"model":"m","input":"a","stream":true}"#,
        "event: error\n",
    ),
];

fn json_answer(status: u16, body: &str) -> String {
    format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// What an engine answers with once its client has had a comment comes to an error event: its data, and the line in
/// the log.
async fn failing(path: &str, body: &str, name: &str, answer: &str) -> (Value, Value, f64) {
    let mut puppet = Puppet::start().await;
    let gateway = before(&puppet.authority(), &format!("retries: 0, {BEATS}")).await;
    let mut client = beating(&gateway, &post(path, body)).await;
    let mut exchange = puppet.next().await;
    exchange.write(answer).await;
    let (rest, end) = client.rest().await;
    assert_eq!(end, End::Closed, "{path} {answer}: no last chunk");
    let data = event(&behind_comments(&rest), name);
    let line = line(&gateway).await;
    assert_eq!(
        (&line["status"], &line["stream"]),
        (&json!(200), &json!(true))
    );
    let code = answer.split(' ').nth(1).unwrap();
    let code = if code == "200" { "502" } else { code };
    let series = format!(
        "sluicegate_requests_total{{code=\"{code}\",endpoint=\"{}\",pool=\"default\"}}",
        puppet.authority()
    );
    let counted = gateway.metric(&series);
    drop(exchange);
    gateway.finish().await;
    (data, line, counted)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_engine_refuses_is_an_event_in_the_apis_dialect() {
    let said =
        r#"{"error":{"message":"too long","type":"BadRequestError","param":null,"code":400}}"#;
    for (path, body, name) in DIALECTS {
        for status in [400, 500] {
            let (data, line, counted) = failing(path, body, name, &json_answer(status, said)).await;
            assert_eq!(data["error"]["message"], "too long", "{path}");
            match path {
                "/v1/messages" => {
                    let kind = if status == 400 {
                        "invalid_request_error"
                    } else {
                        "api_error"
                    };
                    let error = json!({ "type": kind, "message": "too long" });
                    assert_eq!(data, json!({ "type": "error", "error": error }));
                }
                "/v1/responses" => {
                    assert_eq!(
                        (&data["type"], &data["code"]),
                        (&json!("error"), &json!(400))
                    );
                }
                _ => assert_eq!(data, serde_json::from_str::<Value>(said).unwrap()),
            }
            assert_eq!(
                (&line["end"], &line["error"], counted),
                (&json!("failed"), &json!("engine_error"), 1.0)
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_no_stream_is_an_event_too() {
    let whole = r#"{"choices":[{"index":0,"message":{"content":"a"},"finish_reason":"stop"}]}"#;
    let coded = "HTTP/1.1 200 X\r\ncontent-type: text/event-stream\r\ncontent-encoding: gzip\r\n\
                 content-length: 5\r\n\r\n\x1f\x1b\x08\x00\x00";
    let half = "HTTP/1.1 200 X\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\na";
    let json = json_answer(200, whole);
    for (path, body, name) in DIALECTS {
        for answer in [&*json, coded, half] {
            let (data, line, counted) = failing(path, body, name, answer).await;
            let message = data["error"]["message"].as_str().unwrap();
            assert!(
                message.contains("did not answer with a stream"),
                "{message}"
            );
            assert_eq!(
                (&line["end"], &line["error"], counted),
                (&json!("failed"), &json!("not_a_stream"), 1.0)
            );
        }
    }
    let html = "HTTP/1.1 404 X\r\ncontent-type: text/html\r\ncontent-length: 6\r\n\r\n<html>";
    let (path, body, name) = DIALECTS[0];
    let (data, _, counted) = failing(path, body, name, html).await;
    assert_eq!(
        data["error"]["message"],
        "The inference server answered 404."
    );
    assert_eq!(counted, 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_event_in_place_of_content_is_the_last_event() {
    let mut puppet = Puppet::start().await;
    let gateway = before(&puppet.authority(), &format!("retries: 0, {BEATS}")).await;
    let mut client = beating(&gateway, &chat(true)).await;
    let mut exchange = puppet.next().await;
    exchange.write(sse_head()).await;
    let error = r#"{"error":{"message":"EngineCore died","type":"InternalServerError","param":null,"code":500}}"#;
    exchange.event(error).await;
    let (rest, end) = client.rest().await;
    let data = event(&behind_comments(&rest), "");
    assert_eq!(data, serde_json::from_str::<Value>(error).unwrap());
    assert_eq!(end, End::Closed);
    drop(exchange);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_gateway_gives_up_is_an_event_over_every_protocol() {
    let mut puppet = Puppet::start().await;
    let keys = format!("retries: 0, timeouts: {{ first_byte: 150ms }}, {BEATS}");
    let gateway = before(&puppet.authority(), &keys).await;
    for (version, expected) in [("HTTP/1.1", End::Closed), ("HTTP/1.0", End::Reset)] {
        let mut client = beating(&gateway, &chat(true).version(version)).await;
        let exchange = puppet.next().await;
        let (rest, end) = client.rest().await;
        let data = event(&behind_comments(&rest), "");
        assert_eq!(data["error"]["code"], "upstream_timeout", "{version}");
        assert_eq!(end, expected, "{version}");
        drop(exchange);
    }
    let mut h2 = H2::connect(&gateway).await;
    let body = chat_body(true);
    let request = h2_post("/v1/chat/completions", body.len(), true);
    let answer = h2.ask(request, body.as_bytes());
    let (answer, exchange) = tokio::join!(answer, puppet.next());
    let data = event(&behind_comments(&answer.body), "");
    assert_eq!(data["error"]["code"], "upstream_timeout");
    assert_eq!(answer.end, H2End::Reset(h2::Reason::INTERNAL_ERROR));
    drop(exchange);
    let counted = format!(
        "sluicegate_requests_total{{code=\"504\",endpoint=\"{}\",pool=\"default\"}}",
        puppet.authority()
    );
    gateway.wait_for_metric(&counted, 3.0).await;
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_between_two_comments_frees_its_engine() {
    for way in ["fin", "reset", "half-close", "h2"] {
        let engine = engine().await;
        engine.hold();
        let gateway = before(&engine.authority(), BEATS).await;
        if way == "h2" {
            let mut h2 = H2::connect(&gateway).await;
            let (_answer, mut stream) = begun(&mut h2).await;
            stream.send_reset(h2::Reason::CANCEL);
            until("the engine to be told", || engine.in_flight() == 0).await;
        } else {
            let mut client = beating(&gateway, &chat(true)).await;
            engine.wait_for_arrivals(1).await;
            match way {
                "fin" => drop(client),
                "reset" => client.reset(),
                _ => client.half_close().await,
            }
            until("the engine to be told", || engine.in_flight() == 0).await;
        }
        let line = line(&gateway).await;
        assert_eq!(
            (&line["status"], &line["end"]),
            (&json!(499), &json!("client_left")),
            "{way}"
        );
        assert!(line["bytes_out"].as_u64() >= Some(COMMENT.len() as u64));
        assert_eq!(gateway.faults(0), 0);
        gateway.finish().await;
    }
}

/// An h2 client with a window of one comment, which has got that.
async fn slow_reader(gateway: &Gateway) -> (H2, h2::RecvStream) {
    let (address, certificate) = gateway.tls.as_ref().unwrap();
    let window = u32::try_from(COMMENT.len()).unwrap();
    let mut h2 = H2::with_window(*address, certificate, window).await;
    let body = chat_body(true);
    let request = h2_post("/v1/chat/completions", body.len(), true);
    let (answer, mut stream) = h2.open(request, false).await;
    stream.send_data(body.into(), true).unwrap();
    let mut body = within("a head", answer).await.unwrap().into_body();
    let first = within("a comment", body.data()).await.unwrap().unwrap();
    assert_eq!(first, COMMENT);
    (h2, body)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_take_its_comments_holds_its_engine_for_a_while_only() {
    let engine = engine().await;
    engine.hold();
    let yaml = pool(&[format!("\"{}\"", engine.authority())], BEATS);
    let yaml = format!("{yaml}\nclient: {{ send_timeout: 200ms }}\n");
    let gateway = Gateway::with_tls(&yaml).await;
    let client = slow_reader(&gateway).await;
    engine.wait_for_arrivals(1).await;
    until("the engine to be told", || engine.in_flight() == 0).await;
    drop(client);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_takes_its_comments_late_gets_the_whole_answer() {
    let mut puppet = Puppet::start().await;
    let gateway = Gateway::with_tls(&pool(&[format!("\"{}\"", puppet.authority())], BEATS)).await;
    let (_h2, mut body) = slow_reader(&gateway).await;
    let mut exchange = puppet.next().await;
    speak(&mut exchange).await;
    // Nobody reads: the answer waits behind a comment that is stuck.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut text = Vec::new();
    let mut taken = COMMENT.len();
    loop {
        body.flow_control().release_capacity(taken).unwrap();
        let Some(data) = within("data", body.data()).await else {
            break;
        };
        let data = data.unwrap();
        taken = data.len();
        text.extend_from_slice(&data);
    }
    assert_eq!(behind_comments(&text), spoken());
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_began_with_comments_goes_on_elsewhere() {
    let keys = format!("engine: vllm, {BEATS}");
    let ask = json!({
        "model": "DeepSeek-R1", "messages": [{ "role": "user", "content": "Say something." }], "stream": true,
        "max_tokens": 100, "temperature": 0,
    });
    let request = post("/v1/chat/completions", ask.to_string());
    let (first, second) = (engine().await, engine().await);
    let yaml = in_turn(&first.authority(), &second.authority(), &keys);
    let gateway = Gateway::start(&yaml).await;
    let text = |body: &str| -> String {
        let events = body
            .split("\n\n")
            .filter_map(|event| event.strip_prefix("data: "));
        let parsed = events.filter_map(|data| serde_json::from_str::<Value>(data).ok());
        parsed
            .filter_map(|json| {
                json["choices"][0]["delta"]["content"]
                    .as_str()
                    .map(str::to_owned)
            })
            .collect()
    };
    let uncut = gateway.ask(&request).await;
    first.set(Script {
        fault: Some(Fault::Cut {
            after: 5,
            how: Cut::Reset,
        }),
        ..Script::default()
    });
    first.hold();
    let mut client = beating(&gateway, &request).await;
    first.release();
    let (rest, end) = client.rest().await;
    let rest = behind_comments(&rest);
    assert_eq!(end, End::Framed, "{rest}");
    assert_eq!(text(&rest), text(uncut.text()));
    assert!(
        rest.ends_with("data: [DONE]\n\n") && !rest.contains("token_ids\":["),
        "{rest}"
    );
    assert_eq!(gateway.continuations("ids"), 1.0);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_of_a_keys_limits_is_in_the_head() {
    let engine = engine().await;
    engine.hold();
    let yaml = pool(&[format!("\"{}\"", engine.authority())], BEATS);
    let key = "keys: [{ name: a, key: sk-a-0123456789abcdef, requests_per_minute: 60 }]";
    let gateway = Gateway::start(&format!("{yaml}\n{key}\n")).await;
    let mut client = Client::connect(gateway.address).await;
    let request = chat(true).field("Authorization: Bearer sk-a-0123456789abcdef");
    client.send(request.bytes()).await;
    let head = client.head().await;
    assert_eq!(head.field("x-ratelimit-limit-requests"), Some("60"));
    assert_eq!(head.field("x-ratelimit-remaining-requests"), Some("59"));
    engine.release();
    let (_, end) = client.rest().await;
    assert_eq!(end, End::Framed);
    gateway.finish().await;
}
