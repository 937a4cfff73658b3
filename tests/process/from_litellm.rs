//! The same requests through the real LiteLLM with a file and through Sluicegate with what
//! `sluicegate import` makes of it. What the engines were asked and what the clients were told may
//! differ only where docs/from-litellm.md says so: each difference below is a place in that page.
//!
//! `tests/clients/litellm.sh` installs LiteLLM, names it in `LITELLM` and runs this; `.ci/full` does so.

use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::gateway::{Directory, Gateway, Lines, PROGRAM, Start, ended};
use crate::recorder::{Received, Recorder};
use crate::wire::{Answer, Wire};

mod allowed;
mod requests;

use allowed::{ALLOWED, Side};
use requests::{Case, cases};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/from-litellm.md");
const GUIDE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/import/litellm/files/guide.yaml"
);
/// Twelve seconds on a quiet machine.
const PATIENCE: Duration = Duration::from_secs(240);
/// LiteLLM does not start with one that is published.
pub const KEY: &str = "sk-T3wQzK8mX1vB6nR4cY9dLpEa";

/// A running LiteLLM; stopped when dropped.
struct LiteLlm {
    child: Child,
    address: SocketAddr,
    log: Lines,
}

impl LiteLlm {
    fn start(program: &Path, config: &Path) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let mut child = Command::new(program)
            .arg("--config")
            .arg(config)
            .args(["--host", "127.0.0.1", "--port", &address.port().to_string()])
            .env("LITELLM_MASTER_KEY", KEY)
            .env("ENGINE_KEY", "sk-of-the-engine")
            .env("OPENAI_API_KEY", "sk-of-the-environment")
            // It looks for prices on the network, and reports that it runs.
            .env("LITELLM_LOCAL_MODEL_COST_MAP", "True")
            .env("LITELLM_TELEMETRY", "False")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Lines::of(child.stderr.take().unwrap());
        let begun = Instant::now();
        while std::net::TcpStream::connect(address).is_err() {
            let status = child.try_wait().unwrap();
            assert!(
                status.is_none(),
                "LiteLLM ended: {status:?}: {:#?}",
                log.all()
            );
            assert!(
                begun.elapsed() < PATIENCE,
                "LiteLLM does not listen: {:#?}",
                log.all()
            );
            thread::sleep(Duration::from_millis(50));
        }
        Self {
            child,
            address,
            log,
        }
    }
}

impl Drop for LiteLlm {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM);
        if ended(&mut self.child, Duration::from_secs(20)).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if thread::panicking() {
            eprintln!("LiteLLM's log:\n{}", self.log.all().join("\n"));
        }
    }
}

/// The guide's file with these engines, an alias, and a second model on a third engine.
fn written(engines: &[Recorder]) -> String {
    let guide = fs::read_to_string(GUIDE).unwrap();
    let [first, second, third] = engines else {
        panic!("three engines")
    };
    let embed = format!(
        "  - model_name: embed\n    litellm_params:\n      model: hosted_vllm/bge-m3\n      \
         api_base: http://{}/v1\n      api_key: os.environ/ENGINE_KEY\n\nrouter_settings:\n  \
         model_group_alias: {{ r1: DeepSeek-R1 }}\n",
        third.authority()
    );
    let replaced = guide
        .replace("vllm-model0:8000", &first.authority())
        .replace("vllm-model1:8000", &second.authority())
        .replace("router_settings:\n", &embed);
    assert!(replaced.contains("r1:") && replaced.contains(&second.authority()));
    replaced
}

/// What `sluicegate import` prints for a file, which it lists the differences of.
fn imported(path: &Path) -> String {
    let output = Command::new(PROGRAM)
        .arg("import")
        .arg(path)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

async fn engines() -> Vec<Recorder> {
    let mut engines = Vec::new();
    for _ in 0..3 {
        engines.push(Recorder::start().await);
    }
    engines
}

/// Everything that matters of a case, a line each.
async fn observe(case: &Case, gateway: SocketAddr, engines: &[Recorder]) -> Vec<String> {
    let mut before = Vec::new();
    for engine in engines {
        for (target, bytes) in &case.replies {
            engine.reply(target, bytes.clone(), crate::recorder::End::Keep);
        }
        before.push(engine.received().len());
    }
    let mut wire = Wire::to(gateway).await;
    wire.send(&case.bytes).await;
    let answer = wire.answer_to(case.method).await.expect("an answer");
    let mut lines = told(&answer);
    let received = engines.iter().zip(before).flat_map(|(engine, before)| {
        let all = engine.received();
        all[before..].to_vec()
    });
    // Both ask the engines now and then which models they have.
    let received: Vec<_> = received.filter(|r| r.method != "GET").collect();
    for (index, request) in received.iter().enumerate() {
        lines.extend(asked(index, request));
    }
    lines
}

/// What an engine was asked, a line for each field of the body.
fn asked(index: usize, request: &Received) -> Vec<String> {
    let mut lines = vec![
        format!("engine {index} asked {} {}", request.method, request.target),
        format!(
            "engine {index} authorization {}",
            request.field("authorization").unwrap_or("none")
        ),
    ];
    if let Some(own) = request.field("x-own") {
        lines.push(format!("engine {index} x-own {own}"));
    }
    match serde_json::from_slice::<Value>(&request.body) {
        Ok(Value::Object(fields)) => lines.extend(
            fields
                .iter()
                .map(|(name, value)| format!("engine {index} body {name}: {value}")),
        ),
        _ => lines.push(format!(
            "engine {index} body {}",
            String::from_utf8_lossy(&request.body)
        )),
    }
    lines
}

/// What the client was told: of JSON what clients read, of a stream its text and how it ended.
fn told(answer: &Answer) -> Vec<String> {
    let mut lines = vec![format!("client status {}", answer.status)];
    let field = |name: &str| {
        let lines = answer.head.lines().filter_map(|line| line.split_once(':'));
        let mut own = lines.filter(|(n, _)| n.eq_ignore_ascii_case(name));
        own.next().map(|(_, value)| value.trim().to_owned())
    };
    let kind = field("content-type").unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default();
    lines.push(format!("client type {kind}"));
    let text = String::from_utf8_lossy(&answer.body);
    if kind == "text/event-stream" {
        let events: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("data: "))
            .collect();
        let mut content = String::new();
        let mut rest = BTreeSet::new();
        for event in &events {
            let Ok(event) = serde_json::from_str::<Value>(event) else {
                rest.insert(format!("client ends with {event}"));
                continue;
            };
            rest.insert(format!("client model {}", event["model"]));
            let choice = &event["choices"][0];
            content += choice["delta"]["content"].as_str().unwrap_or_default();
            if let Some(finish) = choice["finish_reason"].as_str() {
                rest.insert(format!("client finish {finish}"));
            }
            if event["usage"].is_object() {
                rest.insert(format!("client usage {}", event["usage"]["total_tokens"]));
            }
        }
        lines.push(format!("client content {content}"));
        lines.extend(rest);
        return lines;
    }
    let Ok(json) = serde_json::from_slice::<Value>(&answer.body) else {
        lines.push(format!("client text {}", text.escape_debug()));
        return lines;
    };
    for (name, at) in [
        ("model", "/model"),
        ("object", "/object"),
        ("role", "/choices/0/message/role"),
        ("content", "/choices/0/message/content"),
        ("call", "/choices/0/message/tool_calls/0/function/arguments"),
        ("text", "/choices/0/text"),
        ("finish", "/choices/0/finish_reason"),
        ("answer", "/content/0/text"),
        ("stop reason", "/stop_reason"),
        ("output", "/output/0/content/0/text"),
        ("input tokens", "/usage/input_tokens"),
        ("output tokens", "/usage/output_tokens"),
        ("embedding", "/data/0/embedding"),
        ("prompt tokens", "/usage/prompt_tokens"),
        ("completion tokens", "/usage/completion_tokens"),
        ("error type", "/error/type"),
        ("error code", "/error/code"),
        ("error message", "/error/message"),
        ("healthy", "/healthy_count"),
        ("unhealthy", "/unhealthy_count"),
    ] {
        if let Some(value) = json.pointer(at).filter(|value| !value.is_null()) {
            lines.push(format!("client {name} {value}"));
        }
    }
    let mut ids: Vec<&str> = (json["data"].as_array().into_iter().flatten())
        .filter_map(|item| item["id"].as_str())
        .collect();
    ids.sort_unstable();
    lines.extend(ids.into_iter().map(|id| format!("client has {id}")));
    lines
}

/// What only one of them has.
fn different(litellm: Vec<String>, ours: &[String]) -> Vec<(Side, String)> {
    let mut rest = ours.to_vec();
    let mut different = Vec::new();
    for line in litellm {
        match rest.iter().position(|other| *other == line) {
            Some(index) => drop(rest.remove(index)),
            None => different.push((Side::LiteLlm, line)),
        }
    }
    different.extend(rest.into_iter().map(|line| (Side::Sluicegate, line)));
    different
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_imported_file_does_what_litellm_does_but_for_what_the_page_lists() {
    let Some(program) = std::env::var_os("LITELLM").map(PathBuf::from) else {
        eprintln!("left out: tests/clients/litellm.sh installs LiteLLM and runs this");
        return;
    };
    let directory = Directory::new();
    let litellm_engines = engines().await;
    let config = directory.write("config.yaml", &written(&litellm_engines));
    let litellm = tokio::task::block_in_place(|| LiteLlm::start(&program, &config));
    let our_engines = engines().await;
    // The same file, but for the engines' addresses.
    let yaml = imported(&directory.write("ours.yaml", &written(&our_engines)));
    let listen = "listen: 0.0.0.0:4000\n";
    assert!(yaml.starts_with(listen), "{yaml}");
    // Its port comes from the system.
    let gateway: Gateway = Start::with_keys(&yaml[listen.len()..])
        .environment("LITELLM_MASTER_KEY", KEY)
        .environment("ENGINE_KEY", "sk-of-the-engine")
        .run();

    let page = fs::read_to_string(PAGE).unwrap();
    let cases = cases();
    let mut seen: BTreeSet<(usize, &str)> = BTreeSet::new();
    let mut unexpected = Vec::new();
    for case in &cases {
        let theirs = observe(case, litellm.address, &litellm_engines).await;
        let ours = observe(case, gateway.public, &our_engines).await;
        if std::env::var_os("SHOW").is_some() {
            eprintln!("{}\n  {theirs:#?}\n  {ours:#?}", case.name);
        }
        for (side, line) in different(theirs, &ours) {
            let known: Vec<_> = (ALLOWED.iter().enumerate())
                .filter(|(_, allowed)| allowed.covers(case.name, side, &line))
                .map(|(index, _)| (index, case.name))
                .collect();
            if known.is_empty() {
                unexpected.push(format!("{}: {side:?}: {line}", case.name));
            }
            seen.extend(known);
        }
    }
    assert!(
        unexpected.is_empty(),
        "differences that docs/from-litellm.md does not have:\n{}",
        unexpected.join("\n")
    );
    for (index, allowed) in ALLOWED.iter().enumerate() {
        assert!(
            page.contains(&format!("<a id=\"{}\"></a>", allowed.id)),
            "docs/from-litellm.md has no {}",
            allowed.id
        );
        let is_seen = match allowed.cases {
            [] => seen.iter().any(|(i, _)| *i == index),
            all => all.iter().all(|case| seen.contains(&(index, case))),
        };
        assert!(is_seen, "it is not different any more: {allowed:?}");
    }
}

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

/// Of a file of LiteLLM's the command prints the configuration, and says what it left out.
#[test]
fn the_command_imports_a_config_yaml() {
    let run = |arguments: &[&str]| {
        let output = Command::new(PROGRAM)
            .arg("import")
            .args(arguments)
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    };
    let (code, out, err) = run(&[GUIDE]);
    assert_eq!(code, Some(0), "{err}");
    assert!(
        out.contains("endpoints: [vllm-model0:8000, vllm-model1:8000]"),
        "{out}"
    );
    assert!(
        err.starts_with(&format!("{GUIDE}:4: api_key: differs: ")),
        "{err}"
    );
    let (code, out, err) = run(&["--strict", GUIDE]);
    assert_eq!((code, &*out), (Some(1), ""));
    assert!(err.contains("no configuration is printed (--strict)"));
    let (code, out, err) = run(&["--upstream", "a", GUIDE]);
    assert_eq!((code, &*out), (Some(1), ""));
    assert!(err.contains("leave out --upstream"), "{err}");

    // What is printed passes -t where its variables are set.
    let (_, yaml, _) = run(&[GUIDE]);
    let directory = Directory::new();
    let file = directory.write("sluicegate.yaml", &yaml);
    let test = |key: Option<&str>| {
        let mut command = Command::new(PROGRAM);
        command.arg("-t").arg("-c").arg(&file);
        match key {
            Some(key) => command.env("LITELLM_MASTER_KEY", key),
            None => command.env_remove("LITELLM_MASTER_KEY"),
        };
        let output = command.output().unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (passes, said) = test(Some(KEY));
    assert!(passes && said.contains("successful"), "{said}");
    let (passes, said) = test(None);
    assert!(!passes && said.contains("LITELLM_MASTER_KEY"), "{said}");
}
