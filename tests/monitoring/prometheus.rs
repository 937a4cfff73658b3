//! A real Prometheus with the configuration that is shipped: other targets, shorter times, nothing else.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::dashboards::monitoring;
use crate::gateway::{Directory, Lines};
use crate::http::{get, percent_encoded};

/// Between two scrapes, two evaluations, and two points of a range.
pub const STEP: &str = "500ms";
/// What is true shows within a scrape and an evaluation; this is for a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(45);

/// What stands for the windows of the rules, so that a minute of traffic has a past. The longer ones have to hold what a
/// machine that is busy with something else takes for all that goes wrong.
pub const SHORTENED: [(&str, &str); 9] = [
    ("[5m]", "[5s]"),
    ("[10m]", "[4s]"),
    ("[1h]", "[8s]"),
    ("[15m]", "[25s]"),
    ("[7d]", "[60s]"),
    ("offset 15m", "offset 25s"),
    ("offset 7d", "offset 5s"),
    ("interval: 15s", "interval: 500ms"),
    ("interval: 5m", "interval: 500ms"),
];

/// Where what is scraped listens.
pub struct Targets {
    /// `targets.yml`.
    pub file: String,
    pub node_exporter: u16,
    pub amd_exporter: u16,
    pub nvidia_exporter: u16,
}

/// Ended when dropped.
pub struct Prometheus {
    child: Child,
    address: SocketAddr,
    _directory: Directory,
}

/// A series and its points: seconds and values.
#[derive(Debug)]
pub struct Series {
    pub labels: Value,
    pub points: Vec<(f64, f64)>,
}

impl Prometheus {
    /// Starts it; it answers when this returns.
    pub fn start(program: &Path, targets: &Targets) -> Self {
        let directory = Directory::new();
        let shipped = |name: &str| {
            let path = monitoring().join("prometheus").join(name);
            fs::read_to_string(path).unwrap()
        };
        let config = shipped("prometheus.yml");
        // The two exporters of GPUs have one port, on hosts of their own.
        let (before, nvidia) = config.split_once("job_name: nvidia_gpu_metrics").unwrap();
        let gpu_port = |jobs: &str, port: u16| jobs.replace("$1:5000", &format!("$1:{port}"));
        let config = [
            &*gpu_port(before, targets.amd_exporter),
            &gpu_port(nvidia, targets.nvidia_exporter),
        ]
        .join("job_name: nvidia_gpu_metrics")
        .replace("$1:9100", &format!("$1:{}", targets.node_exporter));
        let config = directory.write("prometheus.yml", &shortened(&config));
        directory.write("targets.yml", &targets.file);
        for name in ["rules.yml", "alerts.yml"] {
            directory.write(name, &at_once(&shortened(&shipped(name))));
        }
        let data = directory.path().join("data");
        let (child, log, address) = listening(
            Command::new(program)
                .arg(format!("--config.file={}", config.display()))
                .arg(format!("--storage.tsdb.path={}", data.display())),
        );
        log.wait_for(1, "Server is ready");
        Self {
            child,
            address,
            _directory: directory,
        }
    }

    /// The value now of each series.
    pub fn query(&self, query: &str) -> Vec<Series> {
        let answer = self.ask(&format!("query?query={}", percent_encoded(query)));
        series(&answer["data"]["result"])
    }

    /// The sum of all series now; `None` when there is none.
    pub fn sum(&self, query: &str) -> Option<f64> {
        let series = self.query(query);
        let values = series.iter().map(|series| series.points[0].1);
        (!series.is_empty()).then(|| values.sum())
    }

    /// Every series between two moments.
    pub fn range(&self, query: &str, from: f64, to: f64) -> Vec<Series> {
        let query = percent_encoded(query);
        let target = format!("query_range?query={query}&start={from}&end={to}&step={STEP}");
        series(&self.ask(&target)["data"]["result"])
    }

    /// The series that a selector finds.
    pub fn series(&self, selector: &str) -> Vec<Value> {
        let answer = self.ask(&format!("series?match[]={}", percent_encoded(selector)));
        answer["data"].as_array().unwrap().clone()
    }

    /// Waits until the sum of a query's series is as it should be.
    pub async fn until(&self, query: &str, right: impl Fn(Option<f64>) -> bool) {
        let begun = Instant::now();
        loop {
            let sum = self.sum(query);
            if right(sum) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{query} stays at {sum:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until an alert fires.
    pub async fn until_fires(&self, alert: &str) {
        let query = format!("ALERTS{{alertname=\"{alert}\", alertstate=\"firing\"}}");
        self.until(&query, |firing| firing.is_some()).await;
    }

    fn ask(&self, target: &str) -> Value {
        let (status, body) = get(self.address, &format!("/api/v1/{target}"));
        assert_eq!(status, 200, "{target}: {body}");
        serde_json::from_str(&body).unwrap()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Unix time in seconds.
pub fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs_f64()
}

pub fn shortened(text: &str) -> String {
    let mut text = text.to_owned();
    for (long, short) in SHORTENED {
        text = text.replace(long, short);
    }
    text
}

/// The rules without the time that an alert waits before it fires.
fn at_once(rules: &str) -> String {
    let is_wait = |line: &&str| line.trim_start().starts_with("for: ");
    let lines: Vec<_> = rules.lines().filter(|line| !is_wait(line)).collect();
    lines.join("\n")
}

fn series(result: &Value) -> Vec<Series> {
    let point = |value: &Value| {
        let text = value[1].as_str().unwrap();
        (value[0].as_f64().unwrap(), text.parse().unwrap())
    };
    let series = result.as_array().unwrap().iter();
    series
        .map(|series| Series {
            labels: series["metric"].clone(),
            points: match series["values"].as_array() {
                Some(values) => values.iter().map(point).collect(),
                None => vec![point(&series["value"])],
            },
        })
        .collect()
}

/// Starts a program of Prometheus' family on a free port, which it says in its log.
pub fn listening(command: &mut Command) -> (Child, Lines, SocketAddr) {
    let mut child = command
        .arg("--web.listen-address=127.0.0.1:0")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = Lines::of(child.stderr.take().unwrap());
    let line = log.wait_for(1, "\"Listening on\"");
    let address = line
        .split_whitespace()
        .find_map(|word| word.strip_prefix("address="));
    let address = address.unwrap().parse().unwrap();
    (child, log, address)
}
