//! What the guide's reader has, on one machine: a gateway, engines of three kinds, and the exporters of a node.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use loadtest::engine::{Engine, Flavour, Script};

use crate::dashboards::monitoring;
use crate::gateway::{Gateway, Start};
use crate::http::Exporter;
use crate::prometheus::{Targets, listening};

/// As AMD's device-metrics-exporter writes it for a node of two GPUs.
pub const AMD: &str = include_str!("amd-exporter.txt");
/// As NVIDIA's dcgm-exporter writes it.
const NVIDIA: &str = include_str!("nvidia-exporter.txt");
/// The model of the pool `default` and that of the pool `small`.
pub const MODEL: &str = "DeepSeek-R1";
pub const SMALL: &str = "gpt-oss-20b";
/// Without limits.
pub const TEAM: &str = "sk-team-a-0123456789abcdef";
/// May ask [`PER_MINUTE`] times a minute.
pub const BATCH: &str = "sk-batch-0123456789abcdef";
pub const PER_MINUTE: u64 = 300;
/// Tokens of every answer of the small model, by kind.
pub const SMALL_TOKENS: [(&str, f64); 3] =
    [("prompt", 80.0), ("completion", 20.0), ("cached", 60.0)];

/// As vLLM wrote it when the share of its cache had another name.
const OLD_VLLM: &str = include_str!("old-vllm.txt");

pub struct Cluster {
    pub vllm: [Engine; 2],
    pub sglang: Engine,
    pub gateway: Gateway,
    pub amd_exporter: Exporter,
    nvidia_exporter: Exporter,
    old_vllm: Exporter,
    /// The engine of the small model, which the simulated ones are not: it has most of each prompt in its cache.
    small: Exporter,
    node_exporter: NodeExporter,
}

impl Cluster {
    pub async fn start(node_exporter: &Path) -> Self {
        let vllm = [
            Engine::start(engine(Flavour::Vllm)).await.unwrap(),
            Engine::start(engine(Flavour::Vllm)).await.unwrap(),
        ];
        let sglang = Engine::start(engine(Flavour::Sglang)).await.unwrap();
        let endpoints = [&vllm[0], &vllm[1], &sglang].map(|engine| engine.authority());
        let small = Exporter::of("application/json", &small_answer()).await;
        let start = Start::with_keys(&keys(&endpoints, small.address, Mood::Usual)).listen(
            "[\"127.0.0.1:0\", { address: \"127.0.0.2:0\", tls: { certificate: chain.pem, key: key.pem } }]",
        );
        certify(start.directory().path(), 90);
        Self {
            vllm,
            sglang,
            gateway: start.run(),
            amd_exporter: Exporter::start(AMD).await,
            nvidia_exporter: Exporter::start(NVIDIA).await,
            old_vllm: Exporter::start(OLD_VLLM).await,
            small,
            node_exporter: NodeExporter::start(node_exporter),
        }
    }

    pub fn engines(&self) -> [&Engine; 3] {
        [&self.vllm[0], &self.vllm[1], &self.sglang]
    }

    pub fn old_vllm(&self) -> SocketAddr {
        self.old_vllm.address
    }

    pub fn keys(&self, mood: Mood) -> String {
        let endpoints = self.engines().map(Engine::authority);
        keys(&endpoints, self.small.address, mood)
    }

    /// `targets.yml` as an operator of these would write it.
    pub fn targets(&self) -> Targets {
        let file = format!(
            "- {{ labels: {{ role: gateway }}, targets: [\"{}\"] }}\n\
             - {{ labels: {{ role: vllm, gpu: amd }}, targets: [\"{}\", \"{}\"] }}\n\
             - {{ labels: {{ role: vllm, gpu: nvidia }}, targets: [\"{}\"] }}\n\
             - {{ labels: {{ role: sglang, gpu: amd }}, targets: [\"{}\"] }}\n",
            self.gateway.public,
            self.vllm[0].authority(),
            self.vllm[1].authority(),
            self.old_vllm.address,
            self.sglang.authority()
        );
        Targets {
            file,
            node_exporter: self.node_exporter.address.port(),
            amd_exporter: self.amd_exporter.address.port(),
            nvidia_exporter: self.nvidia_exporter.address.port(),
        }
    }
}

/// How the gateway is configured.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    Usual,
    /// One request an endpoint, and a log that cannot be written.
    Narrow,
}

/// The time to the first token and between two, of an engine that does well.
pub const TTFT: Duration = Duration::from_millis(250);
const ITL: Duration = Duration::from_millis(10);

pub fn engine(flavour: Flavour) -> Script {
    Script {
        flavour,
        ttft: TTFT,
        itl: ITL,
        tokens: 30,
        ..Script::default()
    }
}

/// Puts a certificate where the gateway looks; a reload takes it.
pub fn certify(directory: &Path, days: i64) {
    let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.not_after = time::OffsetDateTime::now_utc() + time::Duration::days(days);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    std::fs::write(directory.join("chain.pem"), certificate.pem()).unwrap();
    std::fs::write(directory.join("key.pem"), key.serialize_pem()).unwrap();
}

fn small_answer() -> String {
    let tokens = SMALL_TOKENS.map(|(_, count)| count as u64);
    let [prompt, completion, cached] = tokens;
    serde_json::json!({
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": SMALL,
        "choices": [{
            "index": 0,
            "message": { "role": "assistant", "content": "Yes." },
            "finish_reason": "stop",
        }],
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": { "cached_tokens": cached },
        },
    })
    .to_string()
}

fn keys(endpoints: &[String; 3], small: SocketAddr, mood: Mood) -> String {
    let (log, cap) = match mood {
        Mood::Usual => ("access.log", "null"),
        Mood::Narrow => ("/dev/full", "1"),
    };
    let [first, second, third] = endpoints;
    format!(
        "access_log: {{ path: {log} }}\n\
         {}\n\
         models: {{ {MODEL}: {{ pool: default }}, {SMALL}: {{ pool: small }} }}\n\
         keys:\n\
         \x20 - {{ name: team-a, key: {TEAM} }}\n\
         \x20 - {{ name: batch, key: {BATCH}, requests_per_minute: {PER_MINUTE} }}\n\
         pools:\n\
         \x20 small: {{ engine: openai, endpoints: [\"{small}\"] }}\n\
         \x20 default:\n\
         \x20   endpoints: [\"{first}\", \"{second}\", \"{third}\"]\n\
         \x20   max_in_flight: {cap}\n\
         \x20   queue: {{ size: 1 }}\n\
         \x20   retries: 2\n\
         \x20   retry_budget: {{ ratio: 0.01, min_per_second: 4 }}\n\
         \x20   health: {{ interval: 1s, timeout: 1s, fall: 2, rise: 1, eject_after: 3, eject_for: 1s }}\n",
        shipped_status_allow()
    )
}

/// The line of the configuration that is shipped.
fn shipped_status_allow() -> String {
    let path = monitoring().join("../sluicegate.yaml");
    let text = std::fs::read_to_string(path).unwrap();
    let line = text.lines().find(|line| line.starts_with("status_allow:"));
    line.expect("conf/sluicegate.yaml says who may read /metrics")
        .to_owned()
}

/// The real one, of this machine; ended when dropped.
struct NodeExporter {
    child: Child,
    address: SocketAddr,
}

impl NodeExporter {
    fn start(program: &Path) -> Self {
        let (child, _, address) = listening(&mut Command::new(program));
        Self { child, address }
    }
}

impl Drop for NodeExporter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
