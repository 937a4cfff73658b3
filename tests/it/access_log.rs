//! One line for every request, with what is known of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::support::{
    Client, Cut, Engine, Fault, Gateway, H2, Script, TempDir, chat, chat_body, engine, engine_with,
    get, h2_post, in_turn, post, until,
};

/// In this order.
const FIELDS: [&str; 26] = [
    "time",
    "request_id",
    "client",
    "key",
    "method",
    "path",
    "protocol",
    "status",
    "model",
    "pool",
    "endpoint",
    "attempts",
    "stream",
    "bytes_in",
    "bytes_out",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "tokens_estimated",
    "queue_ms",
    "connect_ms",
    "ttft_ms",
    "duration_ms",
    "overhead_us",
    "end",
    "error",
];

struct Log {
    directory: TempDir,
}

impl Log {
    fn new() -> Self {
        Self {
            directory: TempDir::new(),
        }
    }

    fn path(&self) -> PathBuf {
        self.directory.file("access.log")
    }

    fn yaml(&self, format: &str) -> String {
        format!(
            "\naccess_log: {{ path: {}, format: {format} }}",
            self.path().display()
        )
    }

    async fn lines(&self, gateway: &Gateway, count: usize) -> Vec<String> {
        lines_of(&self.path(), gateway, count).await
    }
}

/// The lines of a log, once there are so many.
async fn lines_of(path: &Path, gateway: &Gateway, count: usize) -> Vec<String> {
    let read = || std::fs::read_to_string(path).unwrap_or_default();
    until(&format!("{count} lines"), || {
        gateway.shared().flush_access_log(Duration::from_secs(1));
        read().lines().count() >= count
    })
    .await;
    let lines: Vec<_> = read().lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), count, "{lines:#?}");
    lines
}

fn json(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))
}

/// The keys of an object without objects in it, in the order they are written.
fn keys(line: &str) -> Vec<&str> {
    let mut keys = Vec::new();
    let mut rest = line.strip_prefix('{').unwrap();
    while let Some((key, after)) = rest
        .strip_prefix('"')
        .and_then(|rest| rest.split_once("\":"))
    {
        keys.push(key);
        let mut values = serde_json::Deserializer::from_str(after).into_iter::<Value>();
        values.next().unwrap().unwrap();
        rest = after[values.byte_offset()..]
            .strip_prefix(',')
            .unwrap_or_default();
    }
    keys
}

async fn logged(script: Script) -> (Log, Engine, Gateway) {
    let (log, engine) = (Log::new(), engine_with(script).await);
    let yaml = format!(
        "endpoints: [\"{}\"]{}",
        engine.authority(),
        log.yaml("json")
    );
    let gateway = Gateway::with_tls(&yaml).await;
    (log, engine, gateway)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_has_every_field_in_its_place() {
    let (log, engine, gateway) = logged(Script::default()).await;
    let request =
        post("/v1/chat/completions?secret=1", chat_body(false)).field("X-Request-Id: r-1");
    let answer = gateway.ask(&request).await;
    let lines = log.lines(&gateway, 1).await;
    assert_eq!(keys(&lines[0]), FIELDS);
    let line = json(&lines[0]);
    let usage = serde_json::from_slice::<Value>(&answer.body).unwrap()["usage"].clone();
    assert!(usage["completion_tokens"].is_u64());
    assert!(line["time"].as_str().unwrap().ends_with('Z'));
    for (field, value) in [
        ("request_id", Value::from("r-1")),
        ("client", "127.0.0.1".into()),
        ("key", Value::Null),
        ("method", "POST".into()),
        ("path", "/v1/chat/completions".into()),
        ("protocol", "HTTP/1.1".into()),
        ("status", 200.into()),
        ("model", "other".into()),
        ("pool", "default".into()),
        ("endpoint", engine.authority().into()),
        ("attempts", 1.into()),
        ("stream", false.into()),
        ("bytes_in", chat_body(false).len().into()),
        ("bytes_out", answer.body.len().into()),
        ("prompt_tokens", usage["prompt_tokens"].clone()),
        ("completion_tokens", usage["completion_tokens"].clone()),
        ("cached_tokens", Value::Null),
        ("tokens_estimated", false.into()),
        ("queue_ms", Value::Null),
        ("ttft_ms", Value::Null),
        ("end", "complete".into()),
        ("error", Value::Null),
    ] {
        assert_eq!(line[field], value, "{field}");
    }
    assert!(
        line["connect_ms"].is_f64() && line["overhead_us"].is_u64(),
        "{line}"
    );
    let duration = line["duration_ms"].as_f64().unwrap();
    assert!(duration > 0.0 && duration < 5_000.0);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_streams_line_has_its_time_to_first_token() {
    let ttft = Duration::from_millis(40);
    let (log, _engine, gateway) = logged(Script {
        ttft,
        ..Script::default()
    })
    .await;
    let body = chat_body(true);
    let request = h2_post("/v1/chat/completions", body.len(), true);
    let answer = H2::connect(&gateway)
        .await
        .ask(request, body.as_bytes())
        .await;
    let line = json(&log.lines(&gateway, 1).await[0]);
    assert_eq!(
        (&line["stream"], &line["protocol"]),
        (&true.into(), &"HTTP/2.0".into())
    );
    assert_eq!(line["bytes_out"], answer.body.len());
    let (first, duration) = (
        line["ttft_ms"].as_f64().unwrap(),
        line["duration_ms"].as_f64().unwrap(),
    );
    assert!(first >= 40.0 && first <= duration, "{line}");
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_went_on_elsewhere_has_one_line_and_costs_its_tokens_once() {
    for asks_for_usage in [true, false] {
        let log = Log::new();
        let first = engine_with(Script {
            fault: Some(Fault::Cut {
                after: 5,
                how: Cut::Close,
            }),
            ..Script::default()
        })
        .await;
        let second = engine().await;
        let keys = "engine: vllm";
        let yaml = in_turn(&first.authority(), &second.authority(), keys) + &log.yaml("json");
        let gateway = Gateway::start(&yaml).await;
        let mut body: Value = serde_json::from_str(&chat_body(true)).unwrap();
        body["max_tokens"] = 100.into();
        body["stream_options"]["include_usage"] = asks_for_usage.into();
        let answer = gateway
            .ask(&post("/v1/chat/completions", body.to_string()))
            .await;
        assert_eq!(answer.text().contains("usage"), asks_for_usage);
        let line = json(&log.lines(&gateway, 1).await[0]);
        let fields = [
            "attempts",
            "prompt_tokens",
            "completion_tokens",
            "end",
            "error",
        ];
        let [attempts, prompt, completion, end, error] = fields.map(|field| line[field].clone());
        assert_eq!(
            (attempts, prompt, completion),
            (2.into(), 8.into(), 17.into())
        );
        assert_eq!((end, error), ("complete".into(), Value::Null), "{line}");
        assert_eq!(line["endpoint"], second.authority());
        assert_eq!(line["tokens_estimated"], false);
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_end_has_its_name() {
    let (log, engine, gateway) = logged(Script::default()).await;
    let (mut n, mut ends) = (0, Vec::new());
    let mut next = async |what: &'static str| {
        n += 1;
        let line = json(log.lines(&gateway, n).await.last().unwrap());
        let [status, end, error] = ["status", "end", "error"].map(|field| line[field].clone());
        ends.push((
            what,
            status.as_u64().unwrap(),
            end.as_str().unwrap().to_owned(),
            error,
        ));
    };
    engine.fail_next(1, Fault::Status(422));
    gateway.ask(&chat(false)).await;
    next("the engine refuses").await;
    gateway.ask(&get("/flush_cache")).await;
    next("we refuse").await;
    engine.fail_next(1, Fault::Status(500));
    gateway.ask(&chat(false)).await;
    next("the engine fails").await;
    engine.fail_next(1, Fault::ResetOnHead);
    gateway.ask(&chat(false).field("Connection: close")).await;
    // On a pooled connection that is a stale one: asked again, well.
    next("the engine is asked again").await;
    engine.fail_next(
        1,
        Fault::Cut {
            after: 3,
            how: Cut::Close,
        },
    );
    gateway.ask(&chat(true)).await;
    next("the engine breaks off").await;
    engine.hold();
    let mut client = Client::connect(gateway.address).await;
    client.send(chat(true).bytes()).await;
    engine.wait_for_arrivals(1).await;
    drop(client);
    next("the client leaves").await;
    let named: Vec<_> = ends
        .iter()
        .map(|(what, status, end, _)| (*what, *status, end.as_str()))
        .collect();
    assert_eq!(
        named,
        [
            ("the engine refuses", 422, "complete"),
            ("we refuse", 404, "refused"),
            ("the engine fails", 500, "failed"),
            ("the engine is asked again", 200, "complete"),
            ("the engine breaks off", 200, "upstream_cut"),
            ("the client leaves", 499, "client_left"),
        ]
    );
    assert!(
        ends[1].3 == "path_not_exposed" && ends[4].3 == "connection_lost",
        "{ends:?}"
    );
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attempts_are_counted_and_the_last_endpoint_is_named() {
    let (log, bad, good) = (Log::new(), engine().await, engine().await);
    let yaml = in_turn(&bad.authority(), &good.authority(), "") + &log.yaml("json");
    let gateway = Gateway::start(&yaml).await;
    bad.fail_next(1, Fault::Status(500));
    gateway.ask(&chat(false)).await;
    let line = json(&log.lines(&gateway, 1).await[0]);
    assert_eq!(
        (&line["attempts"], &line["endpoint"]),
        (&2.into(), &good.authority().into())
    );
    bad.stop().await;
    good.stop().await;
    gateway.ask(&chat(false)).await;
    let line = json(&log.lines(&gateway, 2).await[1]);
    assert_eq!(
        (&line["status"], &line["attempts"]),
        (&503.into(), &2.into())
    );
    assert_eq!(
        (&line["end"], &line["error"]),
        (&"failed".into(), &"no_endpoint_available".into())
    );
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gateways_own_paths_leave_no_line_unless_they_are_refused() {
    let (log, _engine, gateway) = logged(Script::default()).await;
    for path in ["/health", "/ready", "/metrics", "/stub_status"] {
        assert_eq!(gateway.ask(&get(path)).await.status, 200);
    }
    assert_eq!(
        gateway
            .ask(&get("/metrics").field("X-Forwarded-For: 10.0.0.1"))
            .await
            .status,
        403
    );
    let line = json(&log.lines(&gateway, 1).await[0]);
    assert_eq!(
        (&line["path"], &line["status"]),
        (&"/metrics".into(), &403.into())
    );
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_clients_send_cannot_break_a_line() {
    let (log, _engine, gateway) = logged(Script::default()).await;
    for target in ["/a\"b", "/\u{1b}[31m", "/%0a{\"x\":1}", "/\u{fe}\u{ff}"] {
        // Some are refused before there is a request.
        let mut client = Client::connect(gateway.address).await;
        let _ = client.try_send(get(target).bytes()).await;
        let _ = client
            .try_send(get("/end").field("Connection: close").bytes())
            .await;
        let _ = client.rest_of_connection().await;
    }
    gateway.ask(&chat(false)).await;
    gateway.quiet().await;
    gateway.shared().flush_access_log(Duration::from_secs(1));
    let text = std::fs::read(log.path()).unwrap();
    let text = String::from_utf8(text).expect("the log is UTF-8");
    for line in text.lines() {
        assert_eq!(keys(line), FIELDS);
    }
    assert!(text.bytes().all(|byte| byte >= b' ' || byte == b'\n'));
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn combined_is_nginxs() {
    let (log, engine) = (Log::new(), engine().await);
    let yaml = format!(
        "endpoints: [\"{}\"]{}",
        engine.authority(),
        log.yaml("combined")
    );
    let gateway = Gateway::start(&yaml).await;
    let request = post("/v1/chat/completions?a=b", chat_body(false))
        .field("User-Agent: me \"quoted\"")
        .field("Referer: http://from/");
    let answer = gateway.ask(&request).await;
    gateway.ask(&get("/nothing")).await;
    let lines = log.lines(&gateway, 2).await;
    let (before, rest) = lines[0].split_once(" [").unwrap();
    let (time, rest) = rest.split_once("] ").unwrap();
    assert_eq!(before, "127.0.0.1 - -");
    assert!(time.len() == 26 && time.ends_with(" +0000"), "{time}");
    let length = answer.body.len();
    assert_eq!(
        rest,
        format!(
            "\"POST /v1/chat/completions?a=b HTTP/1.1\" 200 {length} \"http://from/\" \
             \"me \\x22quoted\\x22\""
        )
    );
    assert!(
        lines[1].contains("] \"GET /nothing HTTP/1.1\" 404 ") && lines[1].ends_with(" \"-\" \"-\"")
    );
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_was_moved_away_is_opened_anew() {
    let (log, _engine, gateway) = logged(Script::default()).await;
    gateway
        .ask(&chat(false).field("X-Request-Id: before"))
        .await;
    log.lines(&gateway, 1).await;
    let moved = log.directory.file("access.log.1");
    std::fs::rename(log.path(), &moved).unwrap();
    gateway
        .ask(&chat(false).field("X-Request-Id: between"))
        .await;
    assert!(lines_of(&moved, &gateway, 2).await[1].contains("between"));
    gateway.shared().reopen_access_log();
    gateway.ask(&chat(false).field("X-Request-Id: after")).await;
    assert!(log.lines(&gateway, 1).await[0].contains("after"));
    assert_eq!(lines_of(&moved, &gateway, 2).await.len(), 2);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_can_change_the_log() {
    let (log, engine, gateway) = logged(Script::default()).await;
    gateway.ask(&chat(false)).await;
    log.lines(&gateway, 1).await;
    let other = Log::new();
    gateway
        .reload(&format!(
            "endpoints: [\"{}\"]{}",
            engine.authority(),
            other.yaml("json")
        ))
        .await;
    gateway.ask(&chat(false)).await;
    other.lines(&gateway, 1).await;
    gateway
        .reload(&format!("endpoints: [\"{}\"]", engine.authority()))
        .await;
    gateway.ask(&chat(false)).await;
    gateway.quiet().await;
    assert_eq!(
        (
            log.lines(&gateway, 1).await.len(),
            other.lines(&gateway, 1).await.len()
        ),
        (1, 1)
    );
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_nobody_reads_holds_no_request_up() {
    let directory = TempDir::new();
    let pipe = directory.file("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    // A reader that never reads.
    let _reader = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&pipe)
        .unwrap();
    let engine = engine().await;
    let yaml = format!(
        "endpoints: [\"{}\"]\naccess_log: {{ path: {}, format: json }}",
        engine.authority(),
        pipe.display()
    );
    let gateway = Gateway::start(&yaml).await;
    let mut client = Client::connect(gateway.address).await;
    let long = format!("/nothing/{}", "x".repeat(60_000));
    for _ in 0..170 {
        assert_eq!(client.ask(&get(&long)).await.status, 404);
    }
    gateway.quiet().await;
    assert!(gateway.metric("sluicegate_log_lines_dropped_total") > 0.0);
    gateway.finish().await;
}
