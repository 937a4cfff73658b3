//! The clients people use, through the gateway to a simulated engine. `sh .ci/setup tests`
//! installs them; where one is missing its test says so and passes, but not in CI.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use loadtest::engine::{Engine, Script};

use crate::certificates::{Certificate, LISTEN};
use crate::gateway::{Directory, Gateway, Start};
use crate::programs::{find, lacks, run};

fn script(name: &str) -> String {
    format!("{}/tests/clients/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Python, where it has these modules; else says that it has not.
fn python_with(modules: &str) -> Option<PathBuf> {
    let python = find("python3")?;
    let import = format!("import {modules}");
    let has_them = Command::new(&python).args(["-c", &import]).output();
    if has_them.is_ok_and(|output| output.status.success()) {
        return Some(python);
    }
    lacks(modules);
    None
}

async fn started() -> (Gateway, Engine) {
    let script = Script {
        ttft: Duration::from_millis(5),
        itl: Duration::from_millis(1),
        ..Script::default()
    };
    let engine = Engine::start(script).await.unwrap();
    let gateway = Start::new(&[engine.authority()], "access_log: null\n").run();
    (gateway, engine)
}

async fn started_with_tls() -> (Gateway, Engine) {
    let engine = Engine::start(Script::default()).await.unwrap();
    let start = Start::new(&[engine.authority()], "access_log: null\n").listen(LISTEN);
    Certificate::new().install(start.directory());
    (start.run(), engine)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_in_every_version_of_http() {
    let Some(curl) = find("curl") else { return };
    let (plain, engine) = started().await;
    let (tls, _engine) = started_with_tls().await;
    let body = format!("@{}", script("request.json"));
    let stream =
        r#"{"model":"DeepSeek-R1","messages":[{"role":"user","content":"Hi"}],"stream":true}"#;
    let json = "Content-Type: application/json";
    for (version, url) in [
        ("--http1.0", format!("http://{}", plain.public)),
        ("--http1.1", format!("http://{}", plain.public)),
        (
            "--http1.1",
            format!("https://localhost:{}", tls.public.port()),
        ),
        (
            "--http2",
            format!("https://localhost:{}", tls.public.port()),
        ),
    ] {
        let url = format!("{url}/v1/chat/completions");
        let asked = run(
            &curl,
            &[
                "-sSfk",
                version,
                "-H",
                json,
                "-d",
                &body,
                "-w",
                "%{http_version}",
                &url,
            ],
        );
        assert!(asked.contains("\"chat.completion\""), "{asked}");
        let is_h2 = version == "--http2";
        assert_eq!(asked.ends_with('2'), is_h2, "{asked}");
        // An answer whose end is missing makes curl fail.
        let streamed = run(&curl, &["-sSfkN", version, "-H", json, "-d", stream, &url]);
        assert!(streamed.trim_end().ends_with("data: [DONE]"), "{streamed}");
        let head = run(
            &curl,
            &[
                "-sSfkI",
                version,
                &url.replace("/v1/chat/completions", "/health"),
            ],
        );
        assert!(head.contains(" 200"), "{head}");
    }
    // Beyond 1 MiB curl waits for a 100; the connection serves the next request too.
    let directory = Directory::new();
    let prompt = "a".repeat(2 << 20);
    let long = directory.write(
        "long.json",
        &format!(r#"{{"model":"DeepSeek-R1","prompt":"{prompt}","max_tokens":1}}"#),
    );
    let long = format!("@{}", long.display());
    let url = format!("http://{}/v1/completions", plain.public);
    let said = run(
        &curl,
        &[
            "-sSfv", "-H", json, "-d", &long, &url, "--next", "-sSfv", "-H", json, "-d", &long,
            &url,
        ],
    );
    assert!(
        said.contains("100 Continue") && said.contains("Re-using existing connection"),
        "{said}"
    );
    let received = engine.inferences();
    assert!(
        received
            .iter()
            .any(|request| request.body_len > 2 << 20 && request.header("expect").is_none())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrk() {
    let Some(wrk) = find("wrk") else { return };
    let (gateway, _engine) = started().await;
    let url = format!("http://{}/v1/chat/completions", gateway.public);
    let said = run(
        &wrk,
        &["-t1", "-c50", "-d2s", "-s", &script("wrk.lua"), &url],
    );
    assert!(said.contains("requests in"), "{said}");
    assert!(
        !said.contains("Non-2xx") && !said.contains("Socket errors"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h2load_over_tls() {
    let Some(h2load) = find("h2load") else { return };
    let (gateway, _engine) = started_with_tls().await;
    let url = format!("https://{}/v1/chat/completions", gateway.public);
    let body = script("request.json");
    let said = run(
        &h2load,
        &[
            "-n",
            "1000",
            "-c",
            "10",
            "-m",
            "20",
            "-d",
            &body,
            "-H",
            "content-type: application/json",
            &url,
        ],
    );
    assert!(said.contains("Application protocol: h2"), "{said}");
    assert!(
        said.contains("1000 succeeded, 0 failed, 0 errored"),
        "{said}"
    );
    assert!(said.contains("status codes: 1000 2xx"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_openai_sdk() {
    let Some(python) = python_with("openai") else {
        return;
    };
    let (gateway, _engine) = started().await;
    let base = format!("http://{}/v1", gateway.public);
    let said = run(&python, &[&script("openai_sdk.py"), &base]);
    assert_eq!(said.trim(), "ok");
}

/// Two models, one of them with an alias, and keys for the first.
const MODELS: &str = "access_log: null\nmodels:\n  public: { upstream_model: DeepSeek-R1 }\n  p: public\n  \
    private: { upstream_model: DeepSeek-R1 }\nkeys:\n  \
    - { name: a, key: sk-a-0123456789abcdef, models: [public], requests_per_minute: 100 }\n  \
    - { name: limited, key: sk-limited-0123456789abcdef, requests_per_minute: 2 }\n";

/// An SDK's script against a gateway with models and keys.
async fn an_sdk_with_keys(module: &str, name: &str, path: &str) {
    let Some(python) = python_with(module) else {
        return;
    };
    let engine = Engine::start(Script::default()).await.unwrap();
    let gateway = Start::new(&[engine.authority()], MODELS).run();
    let base = format!("http://{}{path}", gateway.public);
    let said = run(&python, &[&script(name), &base, "sk-a-0123456789abcdef"]);
    assert_eq!(said.trim(), "ok");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_openai_sdk_with_keys() {
    an_sdk_with_keys("openai", "openai_keys.py", "/v1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_anthropic_sdk() {
    an_sdk_with_keys("anthropic", "anthropic_sdk.py", "").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_client_and_the_sdk_that_speaks_through_it() {
    let Some(python) = python_with("openai, websockets") else {
        return;
    };
    let engine = Engine::start(Script::default()).await.unwrap();
    let plain = Start::new(&[engine.authority()], MODELS).run();
    let start = Start::new(&[engine.authority()], MODELS).listen(LISTEN);
    Certificate::new().install(start.directory());
    let certificate = start.directory().path().join("chain.pem");
    let tls = start.run();
    let (script, key) = (script("realtime.py"), "sk-a-0123456789abcdef");
    let base = format!("http://{}/v1", plain.public);
    assert_eq!(run(&python, &[&script, &base, key]).trim(), "ok");
    let base = format!("https://localhost:{}/v1", tls.public.port());
    let certificate = certificate.to_str().unwrap();
    let said = run(&python, &[&script, &base, key, certificate]);
    assert_eq!(said.trim(), "ok");
    assert!(engine.wait_for_in_flight(0, Duration::from_secs(5)).await);
}

/// What an SDK does by itself when it is refused, or is not answered: against models that come to be there.
async fn an_sdks_own_retries(module: &str) {
    let Some(python) = python_with(module) else {
        return;
    };
    let mut engines = Vec::new();
    for _ in 0..4 {
        engines.push(Engine::start(Script::default()).await.unwrap());
    }
    let [public, down, held, mute] = &engines[..] else {
        unreachable!("there are four");
    };
    let mut pools = String::from("access_log: null\npools:\n");
    let names = ["public", "down", "held", "mute"];
    for (name, engine) in names.iter().zip(&engines) {
        let health = "health: { interval: 100ms, timeout: 100ms, rise: 1 }";
        pools += &format!(
            "  {name}: {{ endpoints: [\"{}\"], {health} }}\n",
            engine.authority()
        );
    }
    // Nobody listens at that port of TCP, which is for a service long gone.
    pools += "  nobody: { endpoints: [\"127.0.0.1:1\"] }\nmodels:\n";
    for name in names.iter().chain(&["nobody"]) {
        pools += &format!("  {name}: {{ pool: {name}, upstream_model: DeepSeek-R1 }}\n");
    }
    pools += "keys:\n  - { name: a, key: sk-a-0123456789abcdef }\n  \
              - { name: limited, key: sk-limited-0123456789abcdef, requests_per_minute: 60 }\n";
    down.refuse().await;
    held.hold();
    mute.hold();
    let gateway = Start::with_keys(&pools).run();
    let base = format!("http://{}", gateway.public);
    let arguments = [script("sdk_retries.py"), module.to_owned(), base];
    let said = tokio::task::spawn_blocking(move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        run(&python, &arguments)
    });
    let changes = async {
        let refused = "sluicegate_refused_total{reason=\"no_endpoint_available\"}";
        // The first is of `nobody`.
        while sample(gateway.admin, refused).await < 2.0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        down.restart().await.unwrap();
        held.wait_for_arrivals(2).await;
        held.release();
    };
    let (said, ()) = tokio::join!(said, changes);
    assert_eq!(said.unwrap().trim(), "ok");
    // Who gave up is not waited for.
    for engine in &engines {
        assert!(engine.wait_for_in_flight(0, Duration::from_secs(5)).await);
    }
    assert_eq!((mute.left(), held.left()), (3, 1));
    assert!(public.completed() >= 61);
}

/// A read timeout that is shorter than the prefill, with and without a heartbeat.
async fn an_sdk_that_waits_for_a_long_prefill(module: &str) {
    let Some(python) = python_with(module) else {
        return;
    };
    let mut yaml = String::from("access_log: null\npools:\n");
    let mut engines = Vec::new();
    for (name, keys) in [
        ("silent", ""),
        ("beating", ", heartbeat: 300ms"),
        (
            "late",
            ", heartbeat: 300ms, retries: 0, timeouts: { first_byte: 2s }",
        ),
    ] {
        let engine = Engine::start(Script::default()).await.unwrap();
        engine.hold();
        yaml += &format!(
            "  {name}: {{ endpoints: [\"{}\"]{keys} }}\n",
            engine.authority()
        );
        engines.push(engine);
    }
    yaml += "models:\n";
    for name in ["silent", "beating", "late"] {
        yaml += &format!("  {name}: {{ pool: {name}, upstream_model: DeepSeek-R1 }}\n");
    }
    let gateway = Start::with_keys(&yaml).run();
    let base = format!("http://{}", gateway.public);
    let arguments = [script("sdk_heartbeat.py"), module.to_owned(), base];
    let said = tokio::task::spawn_blocking(move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        run(&python, &arguments)
    });
    let changes = async {
        engines[0].wait_for_arrivals(1).await;
        while engines[0].left() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        engines[1].release();
    };
    let (said, ()) = tokio::join!(said, changes);
    assert_eq!(said.unwrap().trim(), "ok");
    assert_eq!((engines[1].completed(), engines[1].left()), (1, 0));
    for engine in &engines {
        assert!(engine.wait_for_in_flight(0, Duration::from_secs(5)).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_openai_sdk_waits_for_a_long_prefill() {
    an_sdk_that_waits_for_a_long_prefill("openai").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_anthropic_sdk_waits_for_a_long_prefill() {
    an_sdk_that_waits_for_a_long_prefill("anthropic").await;
}

/// A sample of the gateway's metrics; 0 where it is not there.
async fn sample(admin: std::net::SocketAddr, series: &str) -> f64 {
    let ask = || -> std::io::Result<String> {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(admin)?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    let text = tokio::task::block_in_place(ask).unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_openai_sdks_own_retries() {
    an_sdks_own_retries("openai").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_anthropic_sdks_own_retries() {
    an_sdks_own_retries("anthropic").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k6() {
    let Some(k6) = find("k6") else { return };
    let (gateway, _engine) = started().await;
    let url = format!("URL=http://{}", gateway.public);
    // It fails by its own thresholds.
    let said = run(
        &k6,
        &[
            "run",
            "--quiet",
            "--no-usage-report",
            "-e",
            &url,
            &script("k6.js"),
        ],
    );
    assert!(
        said.contains("checks_succeeded") || said.contains("checks"),
        "{said}"
    );
}
