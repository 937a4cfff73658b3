//! What is answered, counted and recorded.

use std::time::Duration;

use loadtest::engine::{Cut, Engine, Fault, Flavour, Health, Listen, Script, text};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::sleep;

use crate::client::{CHAT, chat, events, post, read, send};

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
