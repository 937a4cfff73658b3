//! Spans as a receiver gets them, decoded by OpenTelemetry's own types, and the context that engines get.

use std::collections::HashMap;

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind, status::StatusCode};
use prost::Message;

use crate::support::{
    Client, Engine, Fault, Gateway, Puppet, Script, Then, chat, engine, engine_with, get, in_turn,
    post,
};

const DROPPED: &str = "sluicegate_spans_dropped_total";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

fn parent(flags: &str) -> String {
    format!("traceparent: 00-{TRACE}-{PARENT}-{flags}")
}

/// An empty answer: all was taken.
async fn receiver() -> Puppet {
    let answer =
        "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
    Puppet::answering(answer, Then::Keep).await
}

fn tracing(receiver: &Puppet, sample: f64) -> String {
    let otlp = receiver.authority();
    format!("tracing: {{ otlp: \"http://{otlp}\", sample: {sample} }}")
}

/// A gateway of which every request is recorded.
async fn traced(receiver: &Puppet, pools: &str) -> Gateway {
    Gateway::start(&format!("{pools}\n{}", tracing(receiver, 1.0))).await
}

fn one(engine: &Engine) -> String {
    format!("endpoints: [\"{}\"]", engine.authority())
}

/// Every span that came, in the order it was sent, and what it is of.
fn received(receiver: &Puppet) -> Vec<Span> {
    let mut spans = Vec::new();
    for (head, body) in receiver.requests() {
        assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("Content-Type: application/x-protobuf\r\n"));
        let request = ExportTraceServiceRequest::decode(&body[..]).unwrap();
        for resource_spans in request.resource_spans {
            let resource = attributes(&resource_spans.resource.unwrap().attributes);
            assert_eq!(resource["service.name"], "sluicegate");
            assert_eq!(resource["service.version"], env!("CARGO_PKG_VERSION"));
            for scope_spans in resource_spans.scope_spans {
                assert_eq!(scope_spans.scope.unwrap().name, "sluicegate");
                spans.extend(scope_spans.spans);
            }
        }
    }
    spans
}

/// Values as text.
fn attributes(list: &[KeyValue]) -> HashMap<String, String> {
    let text = |pair: &KeyValue| match pair.value.as_ref().unwrap().value.as_ref().unwrap() {
        Value::StringValue(text) => text.clone(),
        Value::BoolValue(value) => value.to_string(),
        Value::IntValue(value) => value.to_string(),
        Value::DoubleValue(value) => format!("{value:.9}"),
        other => panic!("{other:?}"),
    };
    let map: HashMap<String, String> = list.iter().map(|p| (p.key.clone(), text(p))).collect();
    assert_eq!(map.len(), list.len(), "no key comes twice");
    map
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The `traceparent` of the last request: trace, span and flags.
fn context_of(engine: &Engine) -> (String, String, String) {
    let inferences = engine.inferences();
    let fields = inferences.last().unwrap().header_all("traceparent");
    let [field] = fields[..] else {
        panic!("{fields:?}")
    };
    let parts: Vec<&str> = field.split('-').collect();
    let [version, trace, span, flags] = parts[..] else {
        panic!("{field}")
    };
    assert_eq!((version, trace.len(), span.len()), ("00", 32, 16));
    (trace.to_owned(), span.to_owned(), flags.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_a_span_with_one_beneath_it_for_its_try() {
    let (engine, receiver) = (engine().await, receiver().await);
    let gateway = traced(&receiver, &one(&engine)).await;
    let answer = gateway.ask(&chat(true).field("X-Request-Id: mine-1")).await;
    assert_eq!(answer.status, 200);
    let (trace, span, flags) = context_of(&engine);
    gateway.finish().await;

    let spans = received(&receiver);
    let [own, tried] = &spans[..] else {
        panic!("{spans:?}")
    };
    assert_eq!(own.name, "chat DeepSeek-R1");
    assert_eq!(own.kind(), SpanKind::Server);
    assert_eq!(hex(&own.trace_id), trace);
    assert!(own.parent_span_id.is_empty());
    assert_eq!(flags, "03");
    assert!(own.status.is_none());
    let of_own = attributes(&own.attributes);
    for (key, value) in [
        ("gen_ai.operation.name", "chat"),
        ("gen_ai.provider.name", "openai"),
        ("gen_ai.request.model", "DeepSeek-R1"),
        ("gen_ai.request.stream", "true"),
        ("http.request.method", "POST"),
        ("http.response.status_code", "200"),
        ("url.path", "/v1/chat/completions"),
        ("url.scheme", "http"),
        ("network.protocol.version", "1.1"),
        ("client.address", "127.0.0.1"),
        ("sluicegate.request_id", "mine-1"),
        ("sluicegate.pool", "default"),
        ("sluicegate.endpoint", &engine.authority()),
        ("sluicegate.attempts", "1"),
        ("sluicegate.end", "complete"),
    ] {
        assert_eq!(of_own.get(key).map(String::as_str), Some(value), "{key}");
    }
    let number = |key: &str| of_own[key].parse::<f64>().unwrap();
    assert!(number("gen_ai.usage.input_tokens") > 0.0);
    assert!(number("gen_ai.usage.output_tokens") > 0.0);
    assert!(number("gen_ai.response.time_to_first_chunk") > 0.0);
    assert!(number("sluicegate.overhead") > 0.0);
    assert!(!of_own.contains_key("error.type"));

    assert_eq!(tried.name, "POST");
    assert_eq!(tried.kind(), SpanKind::Client);
    assert_eq!(tried.trace_id, own.trace_id);
    assert_eq!(tried.parent_span_id, own.span_id);
    assert_eq!(hex(&tried.span_id), span, "the engine's own are beneath it");
    let of_tried = attributes(&tried.attributes);
    assert_eq!(of_tried["server.address"], "127.0.0.1");
    assert!(engine.authority().ends_with(&of_tried["server.port"]));
    assert_eq!(of_tried["http.response.status_code"], "200");
    assert!(own.start_time_unix_nano <= tried.start_time_unix_nano);
    assert!(tried.start_time_unix_nano < tried.end_time_unix_nano);
    assert!(tried.end_time_unix_nano <= own.end_time_unix_nano);

    let everything = format!("{spans:?}");
    assert!(!everything.contains("Say something"), "{everything}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_records_is_the_parent_whatever_the_sample_is() {
    let (engine, receiver) = (engine().await, receiver().await);
    let yaml = format!("{}\n{}", one(&engine), tracing(&receiver, 0.0));
    let gateway = Gateway::start(&yaml).await;
    let request = chat(false)
        .field(&parent("01"))
        .field("tracestate: a=1")
        .field("tracestate: b=2");
    assert_eq!(gateway.ask(&request).await.status, 200);
    let (trace, span, flags) = context_of(&engine);
    assert_eq!((trace.as_str(), flags.as_str()), (TRACE, "01"));
    let states = engine.inferences()[0].header_all("tracestate").join("|");
    assert_eq!(states, "a=1|b=2");
    gateway.finish().await;

    let spans = received(&receiver);
    assert_eq!(hex(&spans[0].trace_id), TRACE);
    assert_eq!(hex(&spans[0].parent_span_id), PARENT);
    assert_eq!(spans[0].trace_state, "a=1,b=2");
    assert_eq!(hex(&spans[1].span_id), span);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_does_not_record_is_passed_on_as_it_came() {
    let (engine, receiver) = (engine().await, receiver().await);
    let gateway = traced(&receiver, &one(&engine)).await;
    let request = chat(false).field(&parent("00")).field("tracestate: a=1");
    assert_eq!(gateway.ask(&request).await.status, 200);
    let got = (TRACE.to_owned(), PARENT.to_owned(), "00".to_owned());
    assert_eq!(context_of(&engine), got);
    assert_eq!(engine.inferences()[0].header_all("tracestate"), ["a=1"]);
    gateway.finish().await;
    assert_eq!(received(&receiver), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_context_begins_a_trace_anew() {
    let (engine, receiver) = (engine().await, receiver().await);
    let gateway = traced(&receiver, &one(&engine)).await;
    for broken in [
        parent("0"),
        parent("01")
            .to_uppercase()
            .replace("TRACEPARENT", "traceparent"),
    ] {
        let request = chat(false).field(&broken).field("tracestate: a=1");
        assert_eq!(gateway.ask(&request).await.status, 200);
        let (trace, ..) = context_of(&engine);
        assert_ne!(trace, TRACE);
        let inferences = engine.inferences();
        let state = inferences.last().unwrap().header_all("tracestate");
        assert!(state.is_empty(), "a state belongs to its parent");
    }
    gateway.finish().await;
    assert_eq!(received(&receiver).len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_is_told_that_a_trace_is_not_recorded() {
    let (engine, receiver) = (engine().await, receiver().await);
    let yaml = format!("{}\n{}", one(&engine), tracing(&receiver, 0.0));
    let gateway = Gateway::start(&yaml).await;
    assert_eq!(gateway.ask(&chat(false)).await.status, 200);
    let (trace, _, flags) = context_of(&engine);
    assert_ne!(trace, "0".repeat(32));
    assert_eq!(flags, "02");
    gateway.finish().await;
    assert_eq!(received(&receiver), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_tracing_the_fields_pass_whatever_they_hold() {
    let engine = engine().await;
    let gateway = Gateway::start(&one(&engine)).await;
    let request = chat(false).field("traceparent: x").field("tracestate: ==");
    assert_eq!(gateway.ask(&request).await.status, 200);
    let seen = &engine.inferences()[0];
    assert_eq!(seen.header_all("traceparent"), ["x"]);
    assert_eq!(seen.header_all("tracestate"), ["=="]);
    gateway.ask(&chat(false)).await;
    assert!(engine.inferences()[1].header_all("traceparent").is_empty());
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_try_is_a_span_and_says_what_it_died_of() {
    let bad = engine_with(Script {
        fault: Some(Fault::Status(500)),
        ..Script::default()
    })
    .await;
    let (good, receiver) = (engine().await, receiver().await);
    let pools = in_turn(&bad.authority(), &good.authority(), "");
    let gateway = traced(&receiver, &pools).await;
    assert_eq!(gateway.ask(&chat(false)).await.status, 200);
    let spans_told = [context_of(&bad).1, context_of(&good).1];
    assert_ne!(spans_told[0], spans_told[1]);
    gateway.finish().await;

    let spans = received(&receiver);
    let ids: Vec<String> = spans.iter().map(|span| hex(&span.span_id)).collect();
    assert_eq!(ids[1..], spans_told);
    let of: Vec<_> = spans.iter().map(|s| attributes(&s.attributes)).collect();
    assert_eq!(of[0]["sluicegate.attempts"], "2");
    assert!(!of[0].contains_key("error.type"));
    assert_eq!(of[1]["error.type"], "500");
    assert_eq!(spans[1].status.as_ref().unwrap().code(), StatusCode::Error);
    assert!(!of[1].contains_key("http.request.resend_count"));
    assert_eq!(of[2]["http.request.resend_count"], "1");
    assert_eq!(of[2]["sluicegate.endpoint"], good.authority());
    assert!(spans[2].status.is_none());
    assert!(spans[1].end_time_unix_nano <= spans[2].start_time_unix_nano);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_a_span_and_what_monitoring_asks_is_none() {
    let (engine, receiver) = (engine().await, receiver().await);
    let gateway = traced(&receiver, &one(&engine)).await;
    gateway.ask(&get("/health")).await;
    gateway.ask(&get("/metrics")).await;
    assert_eq!(
        gateway.ask(&get("/reset_prefix_cache?key=x")).await.status,
        404
    );
    let body = "{\"model\":\"m\",";
    let broken = post("/v1/embeddings", body);
    assert_eq!(gateway.ask(&broken).await.status, 400);
    gateway.finish().await;
    let mut spans = received(&receiver);
    // Two connections end in either order.
    spans.sort_by(|a, b| a.name.cmp(&b.name));
    let names: Vec<&str> = spans.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(names, ["GET", "POST"]);
    let of = attributes(&spans[0].attributes);
    assert_eq!(of["url.path"], "/reset_prefix_cache", "without its query");
    assert_eq!(of["error.type"], "path_not_exposed");
    assert!(spans[0].status.is_none(), "it is the client's mistake");
    assert_eq!(
        attributes(&spans[1].attributes)["error.type"],
        "invalid_json"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_ends_the_spans() {
    let mut engine = Puppet::start().await;
    let receiver = receiver().await;
    let pools = format!("endpoints: [\"{}\"]", engine.authority());
    let gateway = traced(&receiver, &pools).await;
    let mut client = Client::connect(gateway.address).await;
    client.send(chat(true).bytes()).await;
    let mut exchange = engine.next().await;
    drop(client);
    exchange.gone().await;
    gateway.finish().await;
    let spans = received(&receiver);
    assert_eq!(spans.len(), 2);
    for span in &spans {
        assert_eq!(attributes(&span.attributes)["error.type"], "client_left");
        assert!(span.status.is_none());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_client_chooses_is_bounded() {
    let (engine, receiver) = (engine().await, receiver().await);
    let gateway = traced(&receiver, &one(&engine)).await;
    let model = "ä".repeat(500);
    let body = format!("{{\"model\":\"{model}\",\"messages\":[],\"stream\":false}}");
    gateway.ask(&post("/v1/chat/completions", body)).await;
    let path = format!("/x{}", "é".repeat(10_000));
    gateway.ask(&get(&path)).await;
    gateway.finish().await;
    let spans = received(&receiver);
    let [own, _, refused] = &spans[..] else {
        panic!("{spans:?}")
    };
    assert_eq!(own.name, format!("chat {}", "ä".repeat(61)));
    assert_eq!(attributes(&own.attributes)["gen_ai.request.model"], model);
    assert!(attributes(&refused.attributes)["url.path"].len() <= 1024);
    assert!(refused.encoded_len() < 4096);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_receiver_is_asked_again_with_the_same_spans() {
    let (engine, mut receiver) = (engine().await, Puppet::start().await);
    let gateway = traced(&receiver, &one(&engine)).await;
    assert_eq!(gateway.ask(&chat(false)).await.status, 200);
    let busy = "HTTP/1.1 503 X\r\nretry-after: 0\r\ncontent-length: 0\r\n\r\n";
    receiver.next().await.answer(busy).await;
    receiver
        .next()
        .await
        .answer("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        .await;
    gateway.finish().await;
    let requests = receiver.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0].1, requests[1].1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_that_a_receiver_does_not_take_are_counted() {
    let partial = ExportTraceServiceResponse {
        partial_success: Some(ExportTracePartialSuccess {
            rejected_spans: 1,
            error_message: "too old".into(),
        }),
    };
    let body = partial.encode_to_vec();
    let mut in_part = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    in_part.extend(body);
    let refused = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n".to_vec();
    for (answer, lost) in [(refused, 2.0), (in_part, 1.0)] {
        let engine = engine().await;
        let receiver = Puppet::answering(answer, Then::Keep).await;
        let gateway = traced(&receiver, &one(&engine)).await;
        assert_eq!(gateway.ask(&chat(false)).await.status, 200);
        gateway.wait_for_metric(DROPPED, lost).await;
        gateway.finish().await;
        assert_eq!(receiver.requests().len(), 1, "it is not asked again");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_is_not_there_holds_nothing_up() {
    let (engine, mut receiver) = (engine().await, receiver().await);
    let gateway = traced(&receiver, &one(&engine)).await;
    receiver.refuse().await;
    for _ in 0..20 {
        assert_eq!(gateway.ask(&chat(false)).await.status, 200);
    }
    let shared = std::sync::Arc::clone(gateway.shared());
    gateway.finish().await;
    let metrics = shared.metrics.render();
    assert!(metrics.contains(&format!("{DROPPED} 40\n")), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_turns_tracing_on_and_to_another_receiver_and_off() {
    let engine = engine().await;
    let (first, second) = (receiver().await, receiver().await);
    let gateway = Gateway::start(&one(&engine)).await;
    gateway.ask(&chat(false)).await;
    for receiver in [&first, &second] {
        let yaml = format!("{}\n{}", one(&engine), tracing(receiver, 1.0));
        gateway.reload(&yaml).await;
        gateway.ask(&chat(false)).await;
        gateway.quiet().await;
    }
    gateway.reload(&one(&engine)).await;
    gateway.ask(&chat(false)).await;
    crate::support::until("both to have their spans", || {
        [&first, &second].iter().all(|r| received(r).len() == 2)
    })
    .await;
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_timing_is_for_clients_that_ask() {
    let engine = engine().await;
    let gateway = Gateway::start(&one(&engine)).await;
    assert!(
        gateway
            .ask(&chat(true))
            .await
            .field("server-timing")
            .is_none()
    );
    for stream in [true, false] {
        let answer = gateway
            .ask(&chat(stream).field("X-Sluicegate-Timing: 1"))
            .await;
        let told = answer.field("server-timing").unwrap().to_owned();
        let mut names = Vec::new();
        for metric in told.split(", ") {
            let (name, duration) = metric.split_once(";dur=").unwrap();
            let duration: f64 = duration.parse().unwrap();
            assert!((0.0..10_000.0).contains(&duration), "{told}");
            names.push(name);
        }
        // On a connection that was open there is nothing to connect.
        names.retain(|name| *name != "connect");
        assert_eq!(names, ["queue", "ttfb", "gateway"], "{told}");
        let seen = engine.inferences();
        let passed = seen.last().unwrap().header("x-sluicegate-timing");
        assert!(passed.is_none());
    }
    let refused = get("/nowhere").field("X-Sluicegate-Timing: 1");
    let answer = gateway.ask(&refused).await;
    assert!(
        answer
            .field("server-timing")
            .unwrap()
            .contains("gateway;dur=")
    );
    gateway.finish().await;
}
