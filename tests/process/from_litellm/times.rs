//! What LiteLLM's `timeout` is: its pages and its program say two things.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{KEY, LiteLlm, imported};
use crate::gateway::{Directory, Start};
use crate::wire::Wire;

/// An engine that begins a stream at once and then writes an event each half second, six in all; of
/// a request that is no stream nothing ever comes.
async fn slow_engine() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = vec![0; 64 * 1024];
                let length = client.read(&mut request).await.unwrap_or(0);
                let request = String::from_utf8_lossy(&request[..length]).into_owned();
                let says = |bytes: &str| bytes.as_bytes().to_vec();
                if request.starts_with("GET") {
                    let _ = client.write_all(&says(&crate::recorder::good("{}"))).await;
                } else if request.contains("\"stream\":true") {
                    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
                    let event = r#"data: {"id":"1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"a"}}]}"#;
                    let mut sent = client.write_all(&says(head)).await;
                    for _ in 0..6 {
                        sent = sent.and(client.write_all(&says(&format!("{event}\n\n"))).await);
                        tokio::time::sleep(Duration::from_millis(500)).await;
                    }
                    let _ = sent.and(client.write_all(&says("data: [DONE]\n\n")).await);
                } else {
                    std::future::pending::<()>().await;
                }
            });
        }
    });
    address
}

/// A stream of three seconds passes a `timeout` of two; an engine that says nothing does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timeout_is_each_wait_and_not_the_whole() {
    let Some(program) = std::env::var_os("LITELLM").map(PathBuf::from) else {
        eprintln!("left out: tests/clients/litellm.sh installs LiteLLM and runs this");
        return;
    };
    let directory = Directory::new();
    let engine = slow_engine().await;
    let config = directory.write(
        "config.yaml",
        &format!(
            "model_list:\n  - model_name: m\n    litellm_params: {{ model: openai/m, api_base: \"http://{engine}/v1\", \
             api_key: k }}\nrouter_settings: {{ timeout: 2, num_retries: 0 }}\n"
        ),
    );
    let litellm = tokio::task::block_in_place(|| LiteLlm::start(&program, &config));
    let yaml = imported(&config);
    let gateway = Start::with_keys(yaml.split_once('\n').unwrap().1)
        .environment("LITELLM_MASTER_KEY", KEY)
        .run();
    for gateway in [litellm.address, gateway.public] {
        let ask = async |rest: &str| {
            let body =
                format!(r#"{{"model":"m","messages":[{{"role":"user","content":"Hi"}}]{rest}}}"#);
            let mut wire = Wire::to(gateway).await;
            wire.send(format!(
                "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\n\
                 Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ))
            .await;
            wire.answer().await.expect("an answer")
        };
        let stream = ask(r#","stream":true"#).await;
        let text = String::from_utf8_lossy(&stream.body).into_owned();
        assert_eq!(stream.status, 200, "{text}");
        assert_eq!(text.matches("\"content\":\"a\"").count(), 6, "{text}");
        assert!(text.contains("data: [DONE]"), "{text}");
        let begun = Instant::now();
        let silent = ask("").await;
        assert!(matches!(silent.status, 408 | 504), "{}", silent.status);
        let waited = begun.elapsed();
        assert!(
            waited > Duration::from_millis(1900) && waited < Duration::from_secs(8),
            "{waited:?}"
        );
    }
}
