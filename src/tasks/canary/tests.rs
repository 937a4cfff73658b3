use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::openai::models::Catalog;
use crate::pool::testing::{settings, target};
use crate::upstream::{Address, Target};

const SECOND: Duration = Duration::from_secs(1);

fn node(address: Address) -> EndpointState {
    let target = Target {
        address,
        ..target(8000)
    };
    EndpointState::new(target, settings("node:8000"), Instant::now())
}

/// What becomes of a canary that is answered so, and the canary.
async fn answered(answer: &'static str) -> (Sign, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = node(Address::Tcp(listener.local_addr().unwrap()));
    let said = br#"{"data":[{"id":"R1","owned_by":"vllm"},{"id":"lora"}]}"#;
    endpoint
        .catalog
        .set(Catalog::parse(said).unwrap(), "node:8000");
    let engine = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = Vec::new();
        while !asked.ends_with(b"}") {
            assert_ne!(stream.read_buf(&mut asked).await.unwrap(), 0);
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
        if answer.is_empty() {
            std::future::pending::<()>().await;
        }
        String::from_utf8(asked).unwrap()
    });
    let limit = if answer.is_empty() {
        SECOND / 10
    } else {
        SECOND * 10
    };
    let sign = HttpCanary.send(&endpoint, Instant::now() + limit).await;
    if answer.is_empty() {
        return (sign, String::new());
    }
    (sign, engine.await.unwrap())
}

#[tokio::test]
async fn it_asks_for_one_token() {
    let (sign, asked) = answered("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await;
    assert_eq!(sign, Sign::Alive);
    let (head, body) = asked.split_once("\r\n\r\n").unwrap();
    assert!(
        head.starts_with("POST /v1/completions HTTP/1.1\r\nHost: node:8000\r\n"),
        "{head}"
    );
    assert!(
        head.contains("\r\nContent-Type: application/json\r\n"),
        "{head}"
    );
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    let expected = json!({ "model": "R1", "prompt": "1", "max_tokens": 1, "temperature": 0 });
    assert_eq!(body, expected);
}

#[tokio::test]
async fn every_answer_has_its_meaning() {
    for (answer, sign) in [
        ("HTTP/1.1 404 X\r\ncontent-length: 0\r\n\r\n", Sign::Alive),
        ("HTTP/1.1 401 X\r\ncontent-length: 9\r\n\r\n", Sign::Alive),
        (
            "HTTP/1.1 500 X\r\ncontent-length: 2\r\n\r\n{}",
            Sign::Fails(500),
        ),
        ("HTTP/1.1 503 X\r\n\r\n{\"error\":\"no\"}", Sign::Fails(503)),
        (
            "HTTP/1.1 503 X\r\n\r\n\"The request queue is full.\"",
            Sign::Full,
        ),
        (
            "HTTP/1.1 302 X\r\ncontent-length: 0\r\n\r\n",
            Sign::Fails(302),
        ),
        // Cut short.
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n{}",
            Sign::Silent,
        ),
        ("SSH-2.0-OpenSSH\r\n\r\n", Sign::Silent),
        ("", Sign::Silent),
    ] {
        assert_eq!(answered(answer).await.0, sign, "{answer}");
    }
}

#[tokio::test]
async fn nobody_there_is_another_matter() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = node(Address::Tcp(listener.local_addr().unwrap()));
    drop(listener);
    let sign = HttpCanary.send(&endpoint, Instant::now() + SECOND).await;
    assert_eq!(sign, Sign::Refused);
}

#[test]
fn an_unknown_model_is_left_out() {
    let endpoint = node(Address::Tcp(([127, 0, 0, 1], 1).into()));
    assert!(!may_be_sent(&endpoint));
    let body: serde_json::Value = serde_json::from_slice(&body(&endpoint)).unwrap();
    assert_eq!(body.get("model"), None);
    let mut settings = (*endpoint.settings()).clone();
    settings.engine = Some(Engine::Sglang);
    endpoint.configure(&Arc::new(settings), Instant::now());
    assert!(may_be_sent(&endpoint));
}

#[test]
fn a_short_stall_has_little_patience() {
    assert_eq!(patience(SECOND * 30), SECOND * 10);
    assert_eq!(patience(SECOND * 4), SECOND * 2);
}
