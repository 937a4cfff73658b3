//! The engine against what a real vLLM 0.32 sent, byte for byte; identifiers and times are masked.
//!
//! Each file of `tests/transcripts/` is a request (its line, then perhaps header fields, then the body),
//! `===`, and the answer. There, lines of the head end in CRLF, and each event is one chunk.

#![allow(clippy::unwrap_used, reason = "a test may fail by a panic")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use loadtest::engine::{Engine, EngineError, Fault, QueueFull, Script};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How the real engine was started, or what had happened to it.
fn script(name: &str) -> Script {
    let answer: Arc<[String]> = Arc::from(["The".to_owned(), " 🚀".to_owned()]);
    let mut script = Script {
        answer: Some(answer),
        max_model_len: 8192,
        ..Script::default()
    };
    match name {
        "chat-stream-usage" | "chat-orca" => script.prompt_tokens_details = true,
        "chat" => (script.prompt_tokens_details, script.request_id_headers) = (true, true),
        "abort-end" => script.fault = Some(Fault::Abort { after: 1 }),
        "core-died" | "messages-core-died" => {
            script.fault = Some(Fault::Error {
                after: 1,
                error: EngineError::CoreDead,
            })
        }
        "shutting-down" => {
            script.fault = Some(Fault::Error {
                after: 0,
                error: EngineError::ShuttingDown,
            })
        }
        "unauthorized" | "messages-x-api-key" => script.api_key = Some("secret".to_owned()),
        "embeddings" | "score" | "rerank" => script.embeddings = Some(2),
        "queue-full-status" | "messages-queue-full" => {
            (script.max_running, script.max_queued) = (Some(0), Some(0))
        }
        "queue-full-event" => {
            (script.max_running, script.max_queued) = (Some(0), Some(0));
            script.queue_full = QueueFull::Event;
        }
        _ => {}
    }
    script
}

/// Sends the request and reads until the answer is whole, which is when the engine falls silent.
async fn exchange(engine: &Engine, request: &str) -> Vec<u8> {
    let (head, body) = match request.split_once("\n{") {
        Some((head, body)) => (head, format!("{{{body}")),
        None => (request, String::new()),
    };
    let head = head.trim_end().replace('\n', "\r\n");
    let fields = if body.is_empty() {
        String::new()
    } else {
        format!(
            "Content-Type: application/json\r\nContent-Length: {}\r\n",
            body.len()
        )
    };
    let mut stream = TcpStream::connect(engine.addr()).await.unwrap();
    stream
        .write_all(format!("{head}\r\nHost: engine\r\n{fields}\r\n{body}").as_bytes())
        .await
        .unwrap();
    let mut answer = Vec::new();
    while let Ok(Ok(count)) =
        timeout(Duration::from_millis(300), stream.read_buf(&mut answer)).await
    {
        if count == 0 {
            break;
        }
    }
    answer
}

/// Writes an answer as the transcripts have it, and checks that each event is one chunk.
fn readable(answer: &[u8]) -> String {
    let text = String::from_utf8(answer.to_vec()).unwrap();
    let (head, mut body) = text.split_once("\r\n\r\n").unwrap();
    let mut out = format!("{}\n\n", head.replace("\r\n", "\n"));
    if !head.contains("transfer-encoding: chunked") {
        return out + body;
    }
    loop {
        let (size, rest) = body.split_once("\r\n").unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        let (event, rest) = rest.split_at(size);
        body = rest.strip_prefix("\r\n").expect("a chunk ends in CRLF");
        if size == 0 {
            assert_eq!(body, "", "the last chunk ends the answer");
            return out;
        }
        assert!(
            event.ends_with("\n\n") && event.matches("\n\n").count() == 1,
            "one event a chunk: {event:?}"
        );
        out.push_str(event);
    }
}

/// Replaces what differs from run to run.
fn mask(text: &str, length: bool) -> String {
    let mut out = String::new();
    for line in text.split_inclusive('\n') {
        let line = match line.split_once(": ") {
            Some(("date", _)) => "date: DATE\n".to_owned(),
            Some(("x-request-id", _)) => "x-request-id: ID\n".to_owned(),
            Some(("content-length", _)) if length => "content-length: LENGTH\n".to_owned(),
            _ => line.to_owned(),
        };
        let ids = [
            "chatcmpl-",
            "cmpl-",
            "modelperm-",
            "resp_",
            "msg_",
            "embd-",
            "score-",
        ];
        let line = ids.iter().fold(line, |line, id| {
            replace_until(&line, &format!("\"{id}"), '"', "\"ID\"")
        });
        let line = replace_until(&line, "\"created\":", ',', "\"created\":0,");
        out.push_str(&replace_until(
            &line,
            "\"created_at\":",
            ',',
            "\"created_at\":0,",
        ));
    }
    out
}

fn replace_until(text: &str, start: &str, end: char, with: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(start) {
        let (before, found) = rest.split_at(at);
        let after = found[start.len()..]
            .find(end)
            .map_or("", |end| &found[start.len() + end + 1..]);
        out.push_str(before);
        out.push_str(with);
        rest = after;
    }
    out + rest
}

/// One file; what differs, if anything does.
async fn check(path: PathBuf) -> Option<String> {
    let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
    let file = std::fs::read_to_string(&path).unwrap();
    let (request, expected) = file.split_once("===\n").unwrap();
    let engine = Engine::start(script(&name)).await.unwrap();
    let answer = readable(&exchange(&engine, request.trim_end()).await);
    let answer = mask(&answer, expected.contains("content-length: LENGTH"));
    (answer != expected)
        .then(|| format!("{name}\n--- expected\n{expected}\n--- answered\n{answer}"))
}

#[tokio::test]
async fn the_engine_answers_as_the_transcripts_of_real_vllm_do() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let mut checks = JoinSet::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "http")
        {
            checks.spawn(check(path));
        }
    }
    let results = checks.join_all().await;
    let checked = results.len();
    let differ: Vec<_> = results.into_iter().flatten().collect();
    assert!(differ.is_empty(), "{}", differ.join("\n\n"));
    assert!(checked > 20);
}
