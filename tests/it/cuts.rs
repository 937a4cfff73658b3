//! A stream that breaks after it began: the client is told, and no protocol lets it look complete.

use crate::support::{
    Answer, Client, Cut, Death, End, Engine, EngineError, Fault, Gateway, H2, H2End, Puppet,
    Script, Then, chat, chat_body, engine_with, h2_post, post, sse_head,
};

const CONTENT: usize = 3;

async fn cutting(fault: Fault) -> (Engine, Gateway) {
    let engine = engine_with(Script {
        fault: Some(fault),
        ..Script::default()
    })
    .await;
    let gateway = Gateway::with_tls(&format!("endpoints: [\"{}\"]", engine.authority())).await;
    (engine, gateway)
}

/// The events of a body, without `data: `. Anything else is a failure.
fn events(body: &str) -> Vec<&str> {
    let events = body
        .split("\n\n")
        .filter(|event| !event.trim_matches('\n').is_empty());
    events
        .map(|event| {
            event
                .trim_start_matches('\n')
                .strip_prefix("data: ")
                .expect(event)
        })
        .collect()
}

/// Content came, then exactly one error event, and that was the last.
fn assert_told(body: &str, code: &str) {
    let events = events(body);
    let errors: Vec<_> = events
        .iter()
        .filter(|event| event.contains("\"error\""))
        .collect();
    assert_eq!(errors.len(), 1, "{body}");
    let last: serde_json::Value = serde_json::from_str(events.last().unwrap()).expect(body);
    assert_eq!(
        last["error"]["code"].to_string().trim_matches('"'),
        code,
        "{body}"
    );
    assert!(last["error"]["message"].is_string());
    let content = events
        .iter()
        .filter(|event| event.contains("\"content\":\"") && !event.contains("assistant"));
    assert_eq!(content.count(), CONTENT, "{body}");
    assert!(
        !body.contains("[DONE]") && !body.contains("abort"),
        "{body}"
    );
}

/// Asks for a stream over every protocol, and wants each to break off unclean after `code`.
async fn assert_cut(fault: Fault, code: &str) {
    let (engine, gateway) = cutting(fault.clone()).await;
    for (version, end) in [("HTTP/1.1", End::Closed), ("HTTP/1.0", End::Reset)] {
        let answer = gateway.ask(&chat(true).version(version)).await;
        assert_eq!(
            (answer.status, answer.end),
            (200, end),
            "{fault:?} {version}"
        );
        assert_told(answer.text(), code);
    }
    let body = chat_body(true);
    let mut h2 = H2::connect(&gateway).await;
    let request = || h2_post("/v1/chat/completions", body.len(), true);
    let answer = h2.ask(request(), body.as_bytes()).await;
    assert_told(answer.text(), code);
    assert_eq!(
        answer.end,
        H2End::Reset(h2::Reason::INTERNAL_ERROR),
        "{fault:?}"
    );
    // The connection and its other streams go on.
    engine.set(Script::default());
    assert_eq!(h2.ask(request(), body.as_bytes()).await.end, H2End::Whole);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_reset_is_cut() {
    assert_cut(
        Fault::Cut {
            after: CONTENT,
            how: Cut::Reset,
        },
        "upstream_failed",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_closed_is_cut() {
    assert_cut(
        Fault::Cut {
            after: CONTENT,
            how: Cut::Close,
        },
        "upstream_failed",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_end_without_finish_reason_is_a_cut() {
    assert_cut(
        Fault::Cut {
            after: CONTENT,
            how: Cut::Clean,
        },
        "upstream_failed",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunk_that_is_broken_is_a_cut() {
    assert_cut(Fault::BadChunk { after: CONTENT }, "upstream_failed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_finish_reason_of_abort_is_a_cut() {
    assert_cut(Fault::Abort { after: CONTENT }, "upstream_failed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_event_of_the_engine_is_passed_on_and_is_the_last() {
    let error = EngineError::CoreDead;
    assert_cut(
        Fault::Error {
            after: CONTENT,
            error,
        },
        "500",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_cut_in_the_middle_does_not_hide_the_error() {
    let (_engine, gateway) = cutting(Fault::Cut {
        after: CONTENT,
        how: Cut::InEvent,
    })
    .await;
    let answer = gateway.ask(&chat(true)).await;
    assert_eq!((answer.status, answer.end), (200, End::Closed));
    // Nothing of the event that broke off: every one that came can be read.
    let events: Vec<serde_json::Value> = events(answer.text())
        .iter()
        .map(|event| serde_json::from_str(event).expect(event))
        .collect();
    assert_eq!(events.last().unwrap()["error"]["code"], "upstream_failed");
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_dies_cuts_its_streams_in_every_way_it_can() {
    for death in [Death::Close, Death::Reset, Death::Abort, Death::Error] {
        let slow = Script {
            itl: std::time::Duration::from_millis(2),
            tokens: 10_000,
            ..Script::default()
        };
        let engine = engine_with(slow).await;
        let gateway = Gateway::start(&format!("endpoints: [\"{}\"]", engine.authority())).await;
        let mut client = Client::connect(gateway.address).await;
        client.send(chat(true).bytes()).await;
        client.head().await;
        client.body_until("\"content\":\" ").await;
        engine.kill(death).await;
        let (body, end) = client.rest().await;
        let body = String::from_utf8(body).unwrap();
        assert_eq!(end, End::Closed, "{death:?}: no last chunk");
        assert!(
            body.trim_end()
                .lines()
                .last()
                .unwrap()
                .contains("\"error\""),
            "{death:?}: {body}"
        );
        gateway.finish().await;
    }
}

/// Everything of a broken stream in one segment with its head.
async fn at_once(events: &str) -> Answer {
    let wire = format!("{}{:x}\r\n{events}\r\n0\r\n\r\n", sse_head(), events.len());
    let puppet = Puppet::answering(wire, Then::Keep).await;
    let gateway = Gateway::start(&format!("endpoints: [\"{}\"]", puppet.authority())).await;
    let answer = gateway.ask(&chat(true)).await;
    gateway.finish().await;
    answer
}

const TOKEN: &str =
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"},\"finish_reason\":null}]}\n\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_comes_whole_and_broken_is_cut_as_well() {
    let abort = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"abort\"}]}\n\n";
    let error = "data: {\"error\": {\"message\": \"dead\", \"type\": \"X\", \"param\": null, \"code\": 500}}\n\n";
    let done = "data: [DONE]\n\n";
    for (tail, code) in [
        (String::new(), "upstream_failed"),
        (format!("{abort}{done}"), "upstream_failed"),
        (format!("{error}{done}"), "500"),
    ] {
        let answer = at_once(&format!("{TOKEN}{TOKEN}{TOKEN}{tail}")).await;
        assert_eq!((answer.status, answer.end), (200, End::Closed), "{tail}");
        assert_told(answer.text(), code);
    }
}

/// Short enough that what the client is told would make it whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_with_a_length_is_cut_as_well() {
    for missing in [20, 1000] {
        let wire = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {}\r\n\r\n{}",
            3 * TOKEN.len() + missing,
            TOKEN.repeat(3),
        );
        let puppet = Puppet::answering(wire, Then::Close).await;
        let gateway = Gateway::start(&format!("endpoints: [\"{}\"]", puppet.authority())).await;
        let answer = gateway.ask(&chat(true)).await;
        assert_eq!((answer.status, answer.end), (200, End::Closed), "{missing}");
        assert_told(answer.text(), "upstream_failed");
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_end_with_a_finish_reason_is_an_end() {
    let last = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
    let answer = at_once(&format!("{TOKEN}{last}")).await;
    assert_eq!(
        (answer.end, answer.text()),
        (End::Framed, format!("{TOKEN}{last}").as_str())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn anthropics_dialect_gets_its_own_error_event() {
    let mut puppet = Puppet::start().await;
    let gateway = Gateway::start(&format!("endpoints: [\"{}\"]", puppet.authority())).await;
    let mut client = Client::connect(gateway.address).await;
    client.send(post("/v1/messages", "{}").bytes()).await;
    let mut exchange = puppet.next().await;
    exchange.write(sse_head()).await;
    let event = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\
                 \"delta\":{\"type\":\"text_delta\",\"text\":\"a\"}}\n\n";
    exchange
        .write(format!("{:x}\r\n{event}\r\n", event.len()))
        .await;
    client.head().await;
    client.body_until(event).await;
    exchange.reset();
    let (rest, end) = client.rest().await;
    let rest = String::from_utf8(rest).unwrap();
    assert!(
        rest.trim_start().starts_with("event: error\ndata: {\"") && rest.ends_with("}\n\n"),
        "{rest}"
    );
    assert_eq!(end, End::Closed);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_counts_against_the_endpoint_and_is_logged_as_one() {
    let (_engine, gateway) = cutting(Fault::Cut {
        after: CONTENT,
        how: Cut::Close,
    })
    .await;
    let _ = gateway.ask(&chat(true)).await;
    gateway.quiet().await;
    assert_eq!(gateway.faults(0), 1);
    gateway.finish().await;
}
