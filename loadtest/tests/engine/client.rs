//! A client on a socket: what arrives, and how the connection ends.

use std::time::Duration;

use loadtest::engine::{Engine, Fault, Script};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub(crate) const CHAT: &str =
    r#"{"model":"DeepSeek-R1","messages":[{"role":"user","content":"hello"}],"stream":STREAM}"#;

pub(crate) fn post(body: &str) -> String {
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: e\r\nX-Case: kept\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

pub(crate) fn chat(stream: bool) -> String {
    post(&CHAT.replace("STREAM", if stream { "true" } else { "false" }))
}

/// How a connection ended for its client.
#[derive(Debug, PartialEq)]
pub(crate) enum Ended {
    Fin,
    Rst,
    Open,
}

pub(crate) async fn send(engine: &Engine, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(engine.addr()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

pub(crate) async fn read(stream: &mut TcpStream) -> (String, Ended) {
    let mut bytes = Vec::new();
    let ended = loop {
        match timeout(Duration::from_millis(150), stream.read_buf(&mut bytes)).await {
            Err(_) => break Ended::Open,
            Ok(Ok(0)) => break Ended::Fin,
            Ok(Ok(_)) => {}
            Ok(Err(_)) => break Ended::Rst,
        }
    };
    (String::from_utf8_lossy(&bytes).into_owned(), ended)
}

pub(crate) async fn fault(fault: Fault, stream: bool) -> (String, Ended) {
    let engine = Engine::start(Script {
        tokens: 8,
        ..Script::default()
    })
    .await
    .unwrap();
    engine.fail_next(1, fault);
    read(&mut send(&engine, &chat(stream)).await).await
}

pub(crate) fn events(answer: &str) -> usize {
    answer.matches("\"delta\":{\"content\":\" ").count()
}

/// A POST of JSON to any path.
pub(crate) fn post_to(path: &str, body: &str) -> String {
    post(body).replacen("/v1/chat/completions", path, 1)
}

/// The answer's body; what is chunked is put together.
pub(crate) fn body(answer: &str) -> String {
    let (head, mut rest) = answer.split_once("\r\n\r\n").unwrap();
    if !head.contains("transfer-encoding: chunked") {
        return rest.to_owned();
    }
    let mut out = String::new();
    while let Some((size, chunk)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        out.push_str(&chunk[..size]);
        rest = &chunk[size + 2..];
    }
    out
}

/// The events of a stream that names them, as `(name, data)`.
pub(crate) fn named_events(answer: &str) -> Vec<(String, Value)> {
    let event = |event: &str| {
        let (name, data) = event.split_once('\n').unwrap();
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        let name = name.strip_prefix("event: ").unwrap().to_owned();
        assert_eq!(data["type"], name.as_str());
        (name, data)
    };
    body(answer).split_terminator("\n\n").map(event).collect()
}

/// Sends one request on a connection of its own and reads until the engine falls silent.
pub(crate) async fn exchange(engine: &Engine, request: &str) -> (String, Ended) {
    read(&mut send(engine, request).await).await
}

/// The status and the JSON of an answer that is not streamed.
pub(crate) async fn json(engine: &Engine, request: &str) -> (u16, Value) {
    let (answer, _) = exchange(engine, request).await;
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(&body(&answer)).unwrap())
}
