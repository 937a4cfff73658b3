//! The engine's faults, deaths, gates and counters, seen by a raw client.

#![allow(clippy::unwrap_used, reason = "a test may fail by a panic")]

use std::time::Duration;

use loadtest::engine::{
    Cut, Death, Engine, EngineError, Fault, Flavour, Health, Listen, Script, text,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, sleep, timeout};

const CHAT: &str =
    r#"{"model":"DeepSeek-R1","messages":[{"role":"user","content":"hello"}],"stream":STREAM}"#;

fn post(body: &str) -> String {
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: e\r\nX-Case: kept\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn chat(stream: bool) -> String {
    post(&CHAT.replace("STREAM", if stream { "true" } else { "false" }))
}

/// How a connection ended for its client.
#[derive(Debug, PartialEq)]
enum Ended {
    Fin,
    Rst,
    Open,
}

async fn send(engine: &Engine, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(engine.addr()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

async fn read(stream: &mut TcpStream) -> (String, Ended) {
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

async fn fault(fault: Fault, stream: bool) -> (String, Ended) {
    let engine = Engine::start(Script {
        tokens: 8,
        ..Script::default()
    })
    .await
    .unwrap();
    engine.fail_next(1, fault);
    read(&mut send(&engine, &chat(stream)).await).await
}

fn events(answer: &str) -> usize {
    answer.matches("\"delta\":{\"content\":\" ").count()
}

#[tokio::test]
async fn each_fault_shows_as_it_should() {
    let whole = |answer: &str| answer.contains("[DONE]");
    let (answer, ended) = fault(
        Fault::Cut {
            after: 3,
            how: Cut::Close,
        },
        true,
    )
    .await;
    assert!(
        events(&answer) == 3
            && !whole(&answer)
            && !answer.ends_with("0\r\n\r\n")
            && ended == Ended::Fin
    );
    let (answer, ended) = fault(
        Fault::Cut {
            after: 3,
            how: Cut::Reset,
        },
        true,
    )
    .await;
    assert!(events(&answer) == 3 && ended == Ended::Rst);
    let (answer, ended) = fault(
        Fault::Cut {
            after: 3,
            how: Cut::Clean,
        },
        true,
    )
    .await;
    assert!(
        events(&answer) == 3
            && !whole(&answer)
            && answer.ends_with("0\r\n\r\n")
            && ended == Ended::Open
    );
    let (answer, ended) = fault(
        Fault::Cut {
            after: 3,
            how: Cut::InEvent,
        },
        true,
    )
    .await;
    assert!(events(&answer) == 3 && !answer.ends_with("\n\n\r\n") && ended == Ended::Fin);
    let (answer, ended) = fault(
        Fault::Cut {
            after: 3,
            how: Cut::Silence,
        },
        true,
    )
    .await;
    assert!(events(&answer) == 3 && ended == Ended::Open);
    let (answer, _) = fault(
        Fault::Cut {
            after: 0,
            how: Cut::Silence,
        },
        true,
    )
    .await;
    assert!(answer.ends_with("chunked\r\n\r\n"), "{answer}");
    let (answer, _) = fault(
        Fault::Error {
            after: 0,
            error: EngineError::Busy,
        },
        true,
    )
    .await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("\"code\": 503") && whole(&answer)
    );
    let (answer, _) = fault(
        Fault::Error {
            after: 0,
            error: EngineError::Busy,
        },
        false,
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 503 "));
    let (answer, _) = fault(Fault::Abort { after: 2 }, true).await;
    assert!(
        events(&answer) == 2 && answer.contains("\"finish_reason\":\"abort\"") && whole(&answer)
    );
    let (answer, ended) = fault(Fault::BadChunk { after: 2 }, true).await;
    assert!(events(&answer) == 2 && answer.contains("zz\r\n") && ended == Ended::Fin);
    let (answer, ended) = fault(Fault::CloseDelimited, true).await;
    assert!(
        !answer.contains("chunked") && answer.ends_with("data: [DONE]\n\n") && ended == Ended::Fin
    );
}

#[tokio::test]
async fn faults_of_the_head_and_of_the_framing_show_as_they_should() {
    assert_eq!(
        fault(Fault::ResetOnBody, true).await,
        (String::new(), Ended::Rst)
    );
    assert_eq!(
        fault(Fault::CloseOnBody, true).await,
        (String::new(), Ended::Fin)
    );
    assert_eq!(fault(Fault::CloseOnAccept, true).await.0, "");
    assert_eq!(
        fault(Fault::Silence, true).await,
        (String::new(), Ended::Open)
    );
    assert!(!fault(Fault::GarbageHead, true).await.0.contains("HTTP/1.1"));
    assert!(
        fault(Fault::SwitchingProtocols, true)
            .await
            .0
            .starts_with("HTTP/1.1 101 ")
    );
    let (answer, _) = fault(Fault::Informational { times: 2 }, false).await;
    assert!(answer.matches("103 Early Hints").count() == 2 && answer.contains("HTTP/1.1 200 OK"));
    let (answer, _) = fault(Fault::TwoLengths, false).await;
    assert_eq!(answer.matches("content-length").count(), 2);
    let (answer, _) = fault(Fault::LengthAndChunked, false).await;
    assert!(answer.contains("content-length") && answer.contains("chunked"));
    let (answer, ended) = fault(Fault::LengthTooLong, false).await;
    assert!(answer.contains("content-length") && ended == Ended::Fin);
    let (answer, _) = fault(Fault::BytesAfterEnd, false).await;
    assert!(answer.ends_with("smuggled"));
    let (answer, _) = fault(Fault::Status(504), true).await;
    assert!(answer.starts_with("HTTP/1.1 504 Gateway Timeout"));
    let (answer, _) = fault(Fault::Split { size: 3 }, true).await;
    assert!(events(&answer) > 3 && answer.contains("[DONE]"));
    let (answer, _) = fault(
        Fault::SlowHead {
            gap: Duration::from_millis(1),
        },
        false,
    )
    .await;
    assert!(answer.contains("chat.completion"));
}

#[tokio::test]
async fn a_dying_engine_ends_its_streams_in_the_ways_vllm_does() {
    for (death, end, ended) in [
        (Death::Close, None, Ended::Fin),
        (Death::Reset, None, Ended::Rst),
        (Death::Freeze, None, Ended::Open),
        (
            Death::Abort,
            Some("\"finish_reason\":\"abort\""),
            Ended::Fin,
        ),
        (
            Death::Error,
            Some("EngineCore encountered an issue"),
            Ended::Fin,
        ),
    ] {
        let script = Script {
            tokens: 1000,
            itl: Duration::from_millis(5),
            ..Script::default()
        };
        let engine = Engine::start(script).await.unwrap();
        let mut stream = send(&engine, &chat(true)).await;
        let mut start = [0; 2000];
        stream.read_exact(&mut start).await.unwrap();
        engine.kill(death).await;
        assert!(
            TcpStream::connect(engine.addr()).await.is_err(),
            "{death:?}: the port is closed"
        );
        let (rest, how) = read(&mut stream).await;
        assert_eq!(how, ended, "{death:?}");
        assert_eq!(rest.contains("[DONE]"), end.is_some(), "{death:?}");
        assert!(
            end.is_none_or(|end| rest.contains(end)),
            "{death:?}: {rest}"
        );
        engine.restart().await.unwrap();
        assert!(
            engine.wait_for_in_flight(0, Duration::from_secs(1)).await,
            "{death:?}"
        );
        let mut again = send(&engine, &chat(true)).await;
        assert!(again.read(&mut start).await.unwrap() > 0);
    }
}

#[tokio::test]
async fn gates_hold_requests_until_they_are_released() {
    let engine = Engine::start(Script::default()).await.unwrap();
    engine.hold();
    let mut streams = Vec::new();
    for _ in 0..5 {
        streams.push(send(&engine, &chat(true)).await);
    }
    engine.wait_for_arrivals(5).await;
    assert_eq!(engine.in_flight(), 5);
    let mut head = [0; 4096];
    let count = streams[0].read(&mut head).await.unwrap();
    assert!(
        head[..count].ends_with(b"\r\n\r\n"),
        "the head comes at once, and no event"
    );
    engine.release();
    for stream in &mut streams {
        assert!(read(stream).await.0.contains("[DONE]"));
    }
    engine.settled().await;
    assert_eq!((engine.in_flight(), engine.completed()), (0, 5));
}

#[tokio::test]
async fn a_client_that_leaves_frees_the_engine_at_once() {
    let script = Script {
        ttft: Duration::from_secs(60),
        ..Script::default()
    };
    let engine = Engine::start(script).await.unwrap();
    for stream in [true, false] {
        let connection = send(&engine, &chat(stream)).await;
        assert!(engine.wait_for_in_flight(1, Duration::from_secs(1)).await);
        drop(connection);
        assert!(engine.wait_for_in_flight(0, Duration::from_secs(1)).await);
    }
    let mut half = send(&engine, &chat(true)).await;
    engine.wait_for_arrivals(3).await;
    half.shutdown().await.unwrap();
    assert!(engine.wait_for_in_flight(0, Duration::from_secs(1)).await);
    assert_eq!(engine.left(), 3);
}

#[tokio::test]
async fn requests_are_recorded_as_they_came() {
    let engine = Engine::start(Script::default()).await.unwrap();
    let mut stream = send(&engine, &(chat(false) + &chat(false))).await;
    let chunked = "POST /v1/completions?x=1 HTTP/1.1\r\nHost: e\r\nTransfer-Encoding: chunked\r\n\
                   content-type: application/json\r\n\r\n5\r\n{\"pro\r\nb\r\nmpt\":\"abc\"}\r\n0\r\n\r\n";
    stream.write_all(chunked.as_bytes()).await.unwrap();
    let (answers, _) = read(&mut stream).await;
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 3, "{answers}");
    let requests = engine.requests();
    assert_eq!(requests.len(), 3);
    assert_eq!(
        requests[0].headers[1],
        ("X-Case".to_owned(), "kept".to_owned())
    );
    assert_eq!(
        requests[0].body.as_deref(),
        Some(CHAT.replace("STREAM", "false").as_bytes())
    );
    assert_eq!(requests[2].target, "/v1/completions?x=1");
    assert_eq!(requests[2].body_hash, text::hash(br#"{"prompt":"abc"}"#));
    assert!(
        requests
            .iter()
            .all(|request| request.connection == 1 && request.complete)
    );
    assert_eq!(engine.accepts(), 1);
}

#[tokio::test]
async fn idle_connections_are_closed_and_reused_ones_can_be_stale() {
    let script = Script {
        keep_alive: Duration::from_millis(50),
        ..Script::default()
    };
    let engine = Engine::start(script).await.unwrap();
    let mut stream = send(&engine, &chat(false)).await;
    assert_eq!(read(&mut stream).await.1, Ended::Fin, "closed when idle");
    let mut fresh = TcpStream::connect(engine.addr()).await.unwrap();
    assert_eq!(
        read(&mut fresh).await.1,
        Ended::Open,
        "a connection without a request may stay"
    );
    engine.set(Script::default());
    engine.fail_next(1, Fault::CloseOnReuse);
    let mut stream = send(&engine, &chat(false)).await;
    assert_eq!(read(&mut stream).await.1, Ended::Open);
    stream.write_all(chat(false).as_bytes()).await.unwrap();
    let (answer, ended) = read(&mut stream).await;
    assert!(answer.is_empty() && ended != Ended::Open);
}

#[tokio::test]
async fn a_queue_has_room_for_so_many_and_its_streams_get_comments() {
    let script = Script {
        max_running: Some(1),
        max_queued: Some(1),
        itl: Duration::from_millis(20),
        comments: Some(Duration::from_millis(60)),
        ..Script::default()
    };
    let engine = Engine::start(script).await.unwrap();
    let mut first = send(&engine, &chat(true)).await;
    engine.wait_for_arrivals(1).await;
    let mut second = send(&engine, &chat(true)).await;
    engine.wait_for_arrivals(2).await;
    sleep(Duration::from_millis(20)).await;
    let (third, _) = read(&mut send(&engine, &chat(true)).await).await;
    assert!(third.starts_with("HTTP/1.1 503 "), "{third}");
    assert!(read(&mut first).await.0.contains("[DONE]"));
    let (second, _) = read(&mut second).await;
    assert!(
        second.contains(": keep-alive\n\n") && second.contains("[DONE]"),
        "{second}"
    );
}

#[tokio::test]
async fn tokens_come_on_the_beat() {
    let script = Script {
        ttft: Duration::from_millis(100),
        itl: Duration::from_millis(20),
        tokens: 10,
        ..Script::default()
    };
    let engine = Engine::start(script).await.unwrap();
    let start = Instant::now();
    let (answer, _) = read(&mut send(&engine, &chat(true)).await).await;
    let took = start.elapsed() - Duration::from_millis(150);
    assert!((280..400).contains(&took.as_millis()), "{took:?}");
    assert_eq!(engine.tokens(), 11);
    assert!(answer.contains("[DONE]"));
}

#[tokio::test]
async fn an_answer_cut_and_continued_by_ids_on_another_engine_is_the_uncut_one() {
    let (a, b) = (
        Engine::start(Script::default()).await.unwrap(),
        Engine::start(Script::default()).await.unwrap(),
    );
    let body =
        r#"{"messages":[{"role":"user","content":"go on"}],"stream":true,"return_token_ids":true}"#;
    let ids = |answer: &str, field: &str| -> Vec<u64> {
        let lists = answer
            .split(field)
            .skip(1)
            .filter_map(|rest| rest.strip_prefix('[')?.split(']').next());
        lists
            .flat_map(|list| list.split(',').map(|id| id.parse().unwrap()))
            .collect()
    };
    let text_of = |answer: &str, field: &str| -> String {
        let texts = answer
            .split(field)
            .skip(1)
            .filter(|rest| rest.starts_with('"'));
        texts
            .map(|rest| {
                serde_json::Deserializer::from_str(rest)
                    .into_iter::<String>()
                    .next()
                    .unwrap()
                    .unwrap()
            })
            .collect()
    };
    let (whole, _) = read(&mut send(&a, &post(body)).await).await;
    let expected = text_of(&whole, "\"content\":");
    for (after, inside_character) in [(6, false), (7, true)] {
        a.fail_next(
            1,
            Fault::Cut {
                after,
                how: Cut::Close,
            },
        );
        let (cut, _) = read(&mut send(&a, &post(body)).await).await;
        let prompt = [
            ids(&cut, "\"prompt_token_ids\":"),
            ids(&cut, "\"token_ids\":"),
        ]
        .concat();
        let body = format!(r#"{{"prompt":{prompt:?},"max_tokens":1000,"stream":true}}"#);
        let request = post(&body).replace("chat/", "");
        let (rest, _) = read(&mut send(&b, &request).await).await;
        let (shown, rest_of_it) = (text_of(&cut, "\"content\":"), text_of(&rest, "\"text\":"));
        if inside_character {
            // vLLM's detokenizer says the prompt again then.
            assert!(rest_of_it.starts_with("go on") && rest_of_it.contains(&shown));
        } else {
            assert_eq!(shown + &rest_of_it, expected);
        }
        assert!(rest.contains("\"finish_reason\":\"stop\""));
    }
}

#[tokio::test]
async fn a_unix_socket_works_and_health_can_fail() {
    let path = std::env::temp_dir().join(format!("engine-{}.sock", std::process::id()));
    let script = Script {
        listen: Listen::Unix(path.clone()),
        health: Health::Status(503),
        ..Script::default()
    };
    let engine = Engine::start(script).await.unwrap();
    let mut stream = UnixStream::connect(&path).await.unwrap();
    stream
        .write_all(b"GET /health HTTP/1.0\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "));
    drop(engine);
    assert!(!path.exists());
}

#[tokio::test]
async fn the_metrics_say_what_happens_in_the_words_of_each_engine() {
    for (flavour, path, running, done) in [
        (
            Flavour::Vllm,
            "/metrics",
            "vllm:num_requests_running{",
            "vllm:generation_tokens_total{",
        ),
        (
            Flavour::Sglang,
            "/metrics",
            "sglang:num_running_reqs{",
            "sglang:generation_tokens_total{",
        ),
        (Flavour::Sglang, "/v1/loads", "\"num_running_reqs\":3,", ""),
    ] {
        let engine = Engine::start(Script {
            flavour,
            ..Script::default()
        })
        .await
        .unwrap();
        engine.hold();
        let mut streams = Vec::new();
        for _ in 0..3 {
            streams.push(send(&engine, &chat(true)).await);
        }
        engine.wait_for_arrivals(3).await;
        sleep(Duration::from_millis(20)).await;
        let page = async || {
            let request = format!("GET {path} HTTP/1.1\r\nConnection: close\r\n\r\n");
            read(&mut send(&engine, &request).await).await.0
        };
        let value = |page: &str, name: &str| -> Option<String> {
            let line = page.lines().find(|line| line.starts_with(name))?;
            line.rsplit_once(' ').map(|(_, value)| value.to_owned())
        };
        let held = page().await;
        if done.is_empty() {
            assert!(held.contains(running), "{held}");
            continue;
        }
        assert_eq!(value(&held, running).as_deref(), Some("3.0"), "{held}");
        engine.release();
        for stream in &mut streams {
            assert!(read(stream).await.0.contains("[DONE]"));
        }
        let after = page().await;
        assert_eq!(value(&after, running).as_deref(), Some("0.0"));
        assert_eq!(value(&after, done).as_deref(), Some("51.0"), "{after}");
    }
}

#[tokio::test]
async fn every_token_has_an_event_where_characters_are_whole() {
    let script = Script {
        whole_characters: true,
        tokens: 300,
        ..Script::default()
    };
    let engine = Engine::start(script).await.unwrap();
    let (answer, _) = read(&mut send(&engine, &chat(true)).await).await;
    assert_eq!(events(&answer), 300);
}
