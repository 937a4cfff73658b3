//! The tests for k6, run by the real k6 in a shortened form, and the series that they leave in a real InfluxDB.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Output;

use loadtest::engine::{Cut, Fault, Script};
use serde_json::{Value, json};

use crate::influx::Influx;
use crate::programs::{find, run};
use crate::world::{World, quick, repository};

/// The guide's preparation.
const PREPARATION: &str = "\
cd ~/llm-cluster/monitoring/scripts
cat > .env << EOL
export OPENAI_URL=http://localhost:4000  # Use your LiteLLM or Nginx endpoint
export API_KEY=sk-1234                   # API key if required by your gateway
export MODEL_NAME=DeepSeek-R1            # Your deployed model name
EOL
";
/// Before each of its lines.
const SOURCE: &str = "cd ~/llm-cluster/monitoring/scripts
source .env
";

/// The line, the test's name, and a scale that makes it last some seconds.
const LINES: [(&str, &str, f64); 5] = [
    (
        "k6 run --out influxdb=http://localhost:8086/k6 chat-completions-test.js",
        "chat-completions",
        0.1,
    ),
    (
        "k6 run --out influxdb=http://localhost:8086/k6 ramp-up-test.js",
        "ramp-up",
        0.03,
    ),
    (
        "k6 run --out influxdb=http://localhost:8086/k6 stress-test.js",
        "stress",
        0.008,
    ),
    (
        "k6 run --out influxdb=http://localhost:8086/k6 prompt-length-test.js",
        "prompt-length",
        0.1,
    ),
    // Ours.
    (
        "k6 run --out influxdb=http://localhost:8086/k6 streaming-test.js",
        "streaming",
        0.1,
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_test_runs_and_its_series_hold_what_the_engines_counted() {
    let (Some(_), Some(influxd)) = (find("k6"), find("influxd")) else {
        return;
    };
    let world = World::start(quick()).await.with(Influx::start(&influxd));
    let summaries = run_all(&world);
    let influx = world.influx.as_ref().unwrap();

    let mut requests = 0;
    for (_, test, _) in LINES {
        let of_test = format!("WHERE testid = '{test}'");
        let summary = &summaries[test]["metrics"];
        let count = summary["http_reqs"]["count"].as_u64().unwrap();
        requests += count;
        for measurement in ["http_reqs", "http_req_duration", "tokens_per_second"] {
            let query = format!("SELECT count(\"value\") FROM \"{measurement}\" {of_test}");
            assert_eq!(influx.number(&query), count as f64, "{query}");
        }
        let checks = influx.number(&format!(
            "SELECT count(\"value\") FROM \"checks\" {of_test}"
        ));
        assert_eq!(checks, 2.0 * count as f64, "{test}: {summary}");
        let passed = influx.number(&format!("SELECT sum(\"value\") FROM \"checks\" {of_test}"));
        assert_eq!(passed, checks, "{test}: {summary}");
    }
    assert!(requests > 200, "{requests}: {summaries:#?}");
    assert_eq!(world.completed().await, requests);
    let tokens = influx.number("SELECT sum(\"value\") FROM \"completion_tokens\"");
    assert_eq!(tokens, world.tokens() as f64);
    let total = influx.number("SELECT sum(\"value\") FROM \"total_tokens\"");
    let prompts = influx.number("SELECT sum(\"value\") FROM \"prompt_tokens\"");
    assert_eq!(total, prompts + tokens);

    for length in ["short", "medium", "long"] {
        let query = format!("SELECT count(\"value\") FROM \"{length}_prompt_response_time\"");
        assert_eq!(influx.number(&query), 5.0, "{query}");
    }
    // Both are the engines', and what the way costs.
    let script = quick();
    for (measurement, least) in [("ttft", script.ttft), ("tpot", script.itl)] {
        let least = least.as_secs_f64() * 1000.0;
        let streams = summaries["streaming"]["metrics"]["http_reqs"]["count"].as_f64();
        let query = |what: &str| {
            influx.number(&format!(
                "SELECT {what}(\"value\") FROM \"{measurement}\" WHERE testid = 'streaming'"
            ))
        };
        assert_eq!(Some(query("count")), streams, "{measurement}");
        let median = query("median");
        assert!(
            (0.9 * least..least + 200.0).contains(&median),
            "{measurement}: {median} ms, the engines' is {least} ms"
        );
    }
    the_dashboard_is_filled(influx);
}

/// Every query of the dashboard that is shipped for these tests finds what it asks for.
fn the_dashboard_is_filled(influx: &Influx) {
    let directory = repository("conf/monitoring");
    let Some(dashboard) = find_file(&directory, "k6.json") else {
        assert!(!directory.exists(), "conf/monitoring has no k6.json");
        return;
    };
    let dashboard: Value =
        serde_json::from_str(&std::fs::read_to_string(dashboard).unwrap()).unwrap();
    let mut queries = Vec::new();
    collect_queries(&dashboard, &mut queries);
    assert!(queries.len() > 10, "{queries:?}");
    for query in queries {
        // As Grafana fills in its variables; every other one with all of its values.
        let filled = query
            .replace("$timeFilter", "time > now() - 1h")
            .replace("$__interval_ms", "10000")
            .replace("$__interval", "10s")
            .replace("$testid", ".*");
        let series = influx.query(&filled);
        let rows = series
            .iter()
            .flat_map(|series| series["values"].as_array().unwrap());
        let values: Vec<&Value> = rows.flat_map(|row| &row.as_array().unwrap()[1..]).collect();
        assert!(!values.is_empty(), "nothing for {query}");
        let is_list = query.starts_with("SHOW");
        assert!(
            is_list || values.iter().all(|value| value.is_number()),
            "{query}: {series:?}"
        );
    }
}

fn find_file(directory: &Path, name: &str) -> Option<PathBuf> {
    let entries = std::fs::read_dir(directory).ok()?;
    entries
        .flatten()
        .map(|entry| entry.path())
        .find_map(|path| {
            if path.is_dir() {
                find_file(&path, name)
            } else {
                path.ends_with(name).then_some(path)
            }
        })
}

/// Those of its panels, and of its variables.
fn collect_queries(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            let query = fields.get("query").and_then(Value::as_str);
            into.extend(
                query
                    .filter(|query| query.starts_with("SELECT") || query.starts_with("SHOW"))
                    .map(str::to_owned),
            );
            fields
                .values()
                .for_each(|value| collect_queries(value, into));
        }
        Value::Array(values) => values.iter().for_each(|value| collect_queries(value, into)),
        _ => {}
    }
}

/// All at once; the summary of each.
fn run_all(world: &World) -> BTreeMap<&'static str, Value> {
    world.succeed(PREPARATION);
    std::thread::scope(|scope| {
        let runs = LINES.map(|(line, test, scale)| {
            scope.spawn(move || {
                let summary = world.path(&format!("{test}.json"));
                let environment = [
                    ("TIME_SCALE", scale.to_string()),
                    ("K6_SUMMARY_EXPORT", summary.display().to_string()),
                ];
                let output = world.shell(&format!("{SOURCE}{line}"), &environment);
                let said = String::from_utf8_lossy(&output.stdout);
                let complaints = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{line}: {said}{complaints}");
                let summary = std::fs::read_to_string(summary).unwrap();
                (test, serde_json::from_str(&summary).unwrap())
            })
        });
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    })
}

/// Like the guide's table of its tests: who asks, for how long, and what must hold.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_settings_stages_and_thresholds_are_the_guides() {
    let Some(k6) = find("k6") else { return };
    let inspect = |test: &str, settings: &[&str]| -> Value {
        let script = repository(format!("loadtest/k6/{test}-test.js"));
        let script = script.display().to_string();
        let said = run(&k6, &[&["inspect"], settings, &[&script]].concat());
        serde_json::from_str(&said).unwrap()
    };
    let stages = |stages: &[(&str, u32)]| -> Value {
        let stages = stages
            .iter()
            .map(|(duration, target)| json!({ "duration": duration, "target": target }));
        stages.collect()
    };
    let thresholds = |duration: &str, failed: &str| json!({ "http_req_duration": [duration], "http_req_failed": [failed] });

    let chat = inspect("chat-completions", &[]);
    assert_eq!(
        (&chat["vus"], &chat["duration"]),
        (&json!(5), &json!("1m0s"))
    );
    assert_eq!(chat["thresholds"], thresholds("p(95)<5000", "rate<0.01"));

    let ramp_up = inspect("ramp-up", &[]);
    let expected = stages(&[
        ("30s", 5),
        ("1m0s", 5),
        ("30s", 10),
        ("1m0s", 10),
        ("30s", 0),
    ]);
    assert_eq!(ramp_up["stages"], expected);
    assert_eq!(
        ramp_up["thresholds"],
        thresholds("p(95)<10000", "rate<0.05")
    );

    let stress = inspect("stress", &[]);
    let expected = stages(&[
        ("1m0s", 10),
        ("3m0s", 10),
        ("2m0s", 20),
        ("3m0s", 20),
        ("2m0s", 30),
        ("3m0s", 30),
        ("1m0s", 0),
    ]);
    assert_eq!(stress["stages"], expected);
    assert_eq!(stress["thresholds"], thresholds("p(95)<15000", "rate<0.1"));

    let length = inspect("prompt-length", &[]);
    assert_eq!(
        (&length["vus"], &length["iterations"]),
        (&json!(3), &json!(15))
    );
    let expected = json!({ "http_req_duration": ["p(90)<10000"] });
    assert_eq!(length["thresholds"], expected);

    // And with settings.
    let settings = [
        "-e",
        "TIME_SCALE=0.5",
        "-e",
        "VU_SCALE=0.1",
        "-e",
        "MAX_DURATION_MS=800",
    ];
    let ramp_up = inspect("ramp-up", &settings);
    let expected = stages(&[("15s", 1), ("30s", 1), ("15s", 1), ("30s", 1), ("15s", 0)]);
    assert_eq!(ramp_up["stages"], expected);
    assert_eq!(
        ramp_up["thresholds"]["http_req_duration"],
        json!(["p(95)<800"])
    );
    let settings = [
        "-e",
        "MAX_TTFT_MS=300",
        "-e",
        "MAX_FAILED_RATE=0.05",
        "-e",
        "TEST_ID=two-nodes",
    ];
    let streaming = inspect("streaming", &settings);
    assert_eq!(streaming["thresholds"]["ttft"], json!(["p(95)<300"]));
    assert_eq!(streaming["thresholds"]["checks"], json!(["rate>0.95"]));
    assert_eq!(streaming["tags"], json!({ "testid": "two-nodes" }));
}

/// What k6 exits with when a threshold was crossed.
const CROSSED: Option<i32> = Some(99);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_test_fails_when_it_should() {
    let Some(_) = find("k6") else { return };
    let broken = Script {
        fault: Some(Fault::Cut {
            after: 3,
            how: Cut::Clean,
        }),
        ..quick()
    };
    let (good, broken) = (World::start(quick()).await, World::start(broken).await);
    let run = |world: &World, test: &str, settings: &[(&str, &str)]| -> Output {
        world.succeed(PREPARATION);
        let mut environment = vec![("TIME_SCALE", "0.01".to_owned())];
        environment.extend(
            settings
                .iter()
                .map(|(name, value)| (*name, (*value).to_owned())),
        );
        world.shell(&format!("{SOURCE}k6 run {test}-test.js"), &environment)
    };
    let said = |output: &Output| {
        String::from_utf8_lossy(&[&*output.stdout, &*output.stderr].concat()).into_owned()
    };

    let slow = run(&good, "prompt-length", &[("MAX_DURATION_MS", "1")]);
    assert_eq!(slow.status.code(), CROSSED, "{}", said(&slow));

    // Each of its streams has status 200, and breaks.
    let broken = run(&broken, "streaming", &[]);
    assert_eq!(broken.status.code(), CROSSED, "{}", said(&broken));
    assert!(
        said(&broken).contains("✗ is a complete stream"),
        "{}",
        said(&broken)
    );

    // Asked directly, an engine sends its head before the first token.
    let url = good.engines[0].url();
    let mut line = format!("{SOURCE}OPENAI_URL={url}/v1/ k6 run streaming-test.js");
    let direct = good.shell(&line, &[("TIME_SCALE", "0.01".into())]);
    assert!(direct.status.success(), "{}", said(&direct));
    assert!(
        said(&direct).contains("ttft and tpot are left out"),
        "{}",
        said(&direct)
    );
    assert!(
        said(&direct).contains("ttft.") && said(&direct).contains("avg=0s"),
        "{}",
        said(&direct)
    );

    line = format!("{SOURCE}k6 run stress-test.js");
    for (setting, complaint) in [
        (("TIME_SCALE", "fast"), "TIME_SCALE=fast is no number"),
        (("VU_SCALE", "0"), "VU_SCALE=0 must be above 0"),
        (("MAX_FAILED_RATE", "1%"), "MAX_FAILED_RATE=1% is no number"),
    ] {
        let refused = good.shell(&line, &[(setting.0, setting.1.into())]);
        assert!(
            !refused.status.success() && said(&refused).contains(complaint),
            "{}",
            said(&refused)
        );
    }
}

/// The helper is more than the five tests use: embeddings, and settings of a client.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_helper_asks_for_embeddings() {
    let Some(_) = find("k6") else { return };
    let world = World::start(quick()).await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(reader.read_line(&mut head).unwrap(), 0);
        }
        let head = head.to_lowercase();
        let (_, length) = head.split_once("content-length: ").unwrap();
        let length = length.split_once("\r\n").unwrap().0.parse().unwrap();
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let answer = r#"{"object":"list","data":[],"usage":{"prompt_tokens":2,"total_tokens":2}}"#;
        let length = answer.len();
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{answer}"
        )
        .unwrap();
        (head, serde_json::from_slice::<Value>(&body).unwrap())
    });
    let script = "\
cd ~/llm-cluster/monitoring/scripts
cat > embeddings.js << EOL
import { createClient } from './helpers/openaiGeneric.js';
export const options = { thresholds: { checks: ['rate==1'] } };
const client = createClient({ headers: { 'X-Team': 'search' }, options: { model: 'e5' } });
export default function () {
  client.embed({ input: ['one', 'two'] });
}
EOL
DEBUG=1 API_KEY=sk-9 k6 run embeddings.js";
    let output = world.shell(script, &[("OPENAI_URL", url)]);
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("/v1/embeddings: 200 in "), "{said}");
    let (head, body) = server.join().unwrap();
    assert!(head.starts_with("post /v1/embeddings http/1.1"), "{head}");
    assert!(
        head.contains("authorization: bearer sk-9") && head.contains("x-team: search"),
        "{head}"
    );
    assert_eq!(body, json!({ "model": "e5", "input": ["one", "two"] }));
}
