//! How each command that our pages show is checked.

/// How a command is checked.
pub enum Check {
    /// It is run, and what it prints has these words in it.
    Runs(&'static str),
    /// Another test runs it: the file, and the test's name; or a script of which all counts, or one function.
    RunBy(&'static str, &'static str),
    /// It is not run.
    Not(Reason),
}

/// Why a command is not run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// It needs Docker. `tests/compose` checks the files.
    Docker,
    /// It changes the host, or asks what it is: packages, services, kernel settings, files beneath /etc.
    Host,
    /// It takes minutes, and a quiet machine. `.ci/full` is for that.
    Minutes,
    /// A person's hands.
    Editor,
}

impl Reason {
    /// Whether a command can have this reason at all.
    pub fn fits(self, command: &str) -> bool {
        match self {
            Self::Docker => command.starts_with("docker "),
            Self::Host => {
                let words: Vec<&str> = command.split_whitespace().collect();
                let hosts = [
                    "sudo",
                    "apt-get",
                    "install",
                    "ip",
                    "journalctl",
                    "sysctl",
                    "systemctl",
                ];
                let reads = ["/proc/", "/sys/"];
                hosts.contains(&words[0])
                    || words
                        .iter()
                        .any(|word| reads.iter().any(|place| word.starts_with(place)))
            }
            Self::Minutes => command.starts_with("cargo ") || command.contains("loadtest "),
            Self::Editor => {
                let command = command.trim_start_matches("sudo ");
                command.starts_with("editor ") || command.starts_with("$EDITOR ")
            }
        }
    }
}

use Check::{Not, RunBy, Runs};
use Reason::{Docker, Editor, Host, Minutes};

const EVERY_TEST: &str = "every_test_runs_and_its_series_hold_what_the_engines_counted";

/// Blanks are one blank, comments are gone, and lines that go on are one line.
pub const CHECKS: &[(&str, Check)] = &[
    // README.md
    ("sh .ci/setup && cargo run -- demo", RunBy(".ci/run", "")),
    ("sh .ci/test", RunBy(".ci/run", "")),
    ("cargo build --release", Not(Minutes)),
    (
        "./target/release/sluicegate --listen :8080 node0:8000 node1:8000",
        RunBy("tests/clients/ab.sh", ""),
    ),
    // docs/guide.md, the hosts
    (
        "sudo install -m 644 conf/pool/90-numa.conf /etc/sysctl.d/",
        Not(Host),
    ),
    ("sudo sysctl --system", Not(Host)),
    ("cat /proc/sys/kernel/numa_balancing", Not(Host)),
    ("cd conf/pool", Runs("")),
    ("cp .env.example .env", Runs("")),
    ("editor .env", Not(Editor)),
    (
        "docker run --rm -v /srv/models:/models --entrypoint hf vllm/vllm-openai-rocm:v0.31.0 download deepseek-ai/DeepSeek-R1 --local-dir /models/DeepSeek-R1",
        Not(Docker),
    ),
    ("docker compose up -d --wait", Not(Docker)),
    (
        "docker compose --env-file a.env --project-name a up -d --wait",
        Not(Docker),
    ),
    (
        "docker compose --env-file b.env --project-name b up -d --wait",
        Not(Docker),
    ),
    (
        "docker compose --project-name exporters -f docker-compose.exporters.yml up -d",
        Not(Docker),
    ),
    (
        "docker compose -f docker-compose.sglang.yml up -d --wait",
        Not(Docker),
    ),
    ("curl http://node0:8000/v1/models", Runs("DeepSeek-R1")),
    ("cargo install --locked cargo-deb", Not(Minutes)),
    ("sh systemd/debian/build", RunBy(".ci/full", "package")),
    (
        "sudo apt install ./target/debian/*.deb",
        RunBy("tests/package/trial", ""),
    ),
    ("sudo editor /etc/sluicegate/sluicegate.yaml", Not(Editor)),
    ("sudo sluicegate -t", RunBy("tests/package/trial", "")),
    (
        "sudo systemctl reload sluicegate",
        RunBy("tests/package/trial", ""),
    ),
    (
        "sluicegate import /etc/nginx/nginx.conf > sluicegate.yaml",
        Runs("worker_processes"),
    ),
    (
        "sluicegate key --name team-a",
        Runs("- { name: team-a, sha256: "),
    ),
    ("cd conf/gateway", Runs("")),
    ("editor config/sluicegate.yaml", Not(Editor)),
    ("docker compose up -d --build", Not(Docker)),
    ("docker compose up -d", Not(Docker)),
    ("curl http://localhost/health", Runs("healthy")),
    ("curl http://localhost/ready", Runs("ready")),
    (
        "curl http://127.0.0.1:9180/endpoints",
        Runs("\"in_flight\""),
    ),
    (
        "curl -H 'accept: application/json' http://localhost/health | jq",
        Runs("\"healthy_count\": 2"),
    ),
    ("cd conf/monitoring", Runs("")),
    ("editor prometheus/targets.yml", Not(Editor)),
    (
        "curl http://localhost/metrics",
        Runs("sluicegate_endpoint_up{"),
    ),
    (
        "curl http://localhost/stub_status",
        Runs("Active connections:"),
    ),
    // Testing
    (
        r#"curl http://localhost/v1/completions -H "Content-Type: application/json" -d '{"model": "DeepSeek-R1", "prompt": "What is AMD Instinct?", "max_tokens": 256, "temperature": 0.0}'"#,
        Runs("\"text_completion\""),
    ),
    (
        r#"curl -N http://localhost/v1/chat/completions -H "Content-Type: application/json" -d '{"model": "DeepSeek-R1", "messages": [{"role": "user", "content": "What is AMD Instinct?"}], "max_tokens": 64, "stream": true}'"#,
        Runs("data: [DONE]"),
    ),
    ("sudo apt-get install apache2-utils", Not(Host)),
    ("cd loadtest/apache", Runs("")),
    ("ulimit -n 4096", Runs("")),
    (
        "ab -n 1000 -c 100 -T application/json -p postdata http://localhost/v1/completions",
        Runs("Failed requests:        0"),
    ),
    (
        "ab -n 20000 -c 2000 -T application/json -p postdata http://localhost:80/v1/completions",
        RunBy("tests/clients/ab.sh", ""),
    ),
    (
        "docker run --rm --network=host --ulimit nofile=4096 -v ${PWD}/loadtest/apache:/apache:ro httpd:2.4 ab -n 1000 -c 100 -T application/json -p /apache/postdata http://localhost/v1/completions",
        Not(Docker),
    ),
    ("cd loadtest/k6", Runs("")),
    ("source .env", Runs("")),
    (
        "k6 run chat-completions-test.js",
        Runs("✓ has valid JSON response"),
    ),
    (
        "k6 run --out influxdb=http://localhost:8086/k6 chat-completions-test.js",
        RunBy("tests/guide/k6.rs", EVERY_TEST),
    ),
    (
        "k6 run --out influxdb=http://localhost:8086/k6 ramp-up-test.js",
        RunBy("tests/guide/k6.rs", EVERY_TEST),
    ),
    (
        "k6 run --out influxdb=http://localhost:8086/k6 stress-test.js",
        RunBy("tests/guide/k6.rs", EVERY_TEST),
    ),
    (
        "k6 run --out influxdb=http://localhost:8086/k6 prompt-length-test.js",
        RunBy("tests/guide/k6.rs", EVERY_TEST),
    ),
    (
        "k6 run --out influxdb=http://localhost:8086/k6 streaming-test.js",
        RunBy("tests/guide/k6.rs", EVERY_TEST),
    ),
    (
        "docker run --rm -i --network=host -v ${PWD}/loadtest/k6:/scripts -e OPENAI_URL=http://localhost -e API_KEY=sk-1234 -e MODEL_NAME=DeepSeek-R1 grafana/k6:1.1.0 run --out influxdb=http://localhost:8086/k6 /scripts/chat-completions-test.js",
        Not(Docker),
    ),
    // Getting more out of it
    ("cargo build --profile dist --workspace", Not(Minutes)),
    (
        "./target/dist/loadtest compare --gateway nginx --gateway haproxy --gateway sluicegate=./target/dist/sluicegate --plans all",
        RunBy(".ci/full", "compare"),
    ),
    (
        "sluicegate --listen :8081 node1:8000",
        RunBy("tests/clients/ab.sh", ""),
    ),
    (
        "OPENAI_URL=http://localhost:8081 TEST_ID=fp8-tp4 k6 run --out influxdb=http://localhost:8086/k6 streaming-test.js",
        Runs("✓ is a complete stream"),
    ),
    (
        "./target/dist/loadtest compare --gateway nginx --gateway sluicegate=./target/dist/sluicegate --plans short,token --save base.json",
        Not(Minutes),
    ),
    (
        "./target/dist/loadtest compare --gateway nginx --gateway sluicegate=./target/dist/sluicegate --plans short,token --against base.json",
        RunBy(
            "loadtest/tests/compare.rs",
            "what_cannot_be_compared_exits_2_before_anything_is_measured",
        ),
    ),
    // docs/from-litellm.md
    (
        "sluicegate import config.yaml > sluicegate.yaml",
        RunBy(
            "tests/process/from_litellm.rs",
            "the_command_imports_a_config_yaml",
        ),
    ),
    ("editor .env config/sluicegate.llm.yaml", Not(Editor)),
    (
        "docker compose -f docker-compose.llm.yml up -d --build",
        Not(Docker),
    ),
    // docs/high-availability.md
    ("apt-get install keepalived", Not(Host)),
    (
        "install -m 644 conf/ha/keepalived.conf /etc/keepalived/keepalived.conf",
        Not(Host),
    ),
    (
        "install -m 755 conf/ha/end-connections /etc/keepalived/end-connections",
        Not(Host),
    ),
    (
        "install -m 644 conf/ha/90-sluicegate-ha.conf /etc/sysctl.d/90-sluicegate-ha.conf",
        Not(Host),
    ),
    ("sysctl --system", Not(Host)),
    ("systemctl enable --now keepalived", Not(Host)),
    ("journalctl --unit keepalived --boot", Not(Host)),
    ("ip address show to 10.2.0.10", Not(Host)),
    ("systemctl stop keepalived", Not(Host)),
    // docs/tuning.md
    (
        "install -m 644 conf/gateway/90-sluicegate.conf /etc/sysctl.d/90-sluicegate.conf",
        Not(Host),
    ),
    (
        "install -m 644 conf/pool/90-numa.conf /etc/sysctl.d/90-numa.conf",
        Not(Host),
    ),
    ("grep . /sys/class/drm/card*/device/numa_node", Not(Host)),
    // docs/monitoring.md
    ("editor .env prometheus/targets.yml", Not(Editor)),
    // docs/operations.md
    ("curl 127.0.0.1:9180/endpoints", Runs("\"in_flight\"")),
    (
        "sluicegate drain node0:8000 --wait",
        RunBy(
            "tests/process/drain.rs",
            "a_node_is_drained_restarted_and_taken_in_again",
        ),
    ),
    (
        "sluicegate undrain node0:8000 --wait",
        RunBy(
            "tests/process/drain.rs",
            "a_node_is_drained_restarted_and_taken_in_again",
        ),
    ),
    (
        "curl -X POST --unix-socket /run/sluicegate/admin.sock http://localhost/endpoints/node0:8000/drain",
        RunBy(
            "tests/process/drain.rs",
            "curl_gives_orders_over_the_unix_socket",
        ),
    ),
    // loadtest/README.md
    ("cargo build --profile dist -p loadtest", Not(Minutes)),
    (
        "loadtest engine --listen 8000",
        RunBy("tests/clients/ab.sh", ""),
    ),
    (
        "loadtest load --url http://127.0.0.1:8080 --arrivals open:200/s --stream --max-tokens 100 --duration 30s",
        Not(Minutes),
    ),
    (
        "loadtest compare --gateway sluicegate=target/dist/sluicegate --gateway nginx --gateway haproxy --plans all --rounds 5",
        Not(Minutes),
    ),
    (
        "loadtest compare --gateway nginx --gateway sluicegate-llm=target/dist/sluicegate --gateway smg=venv/bin/smg --gateway vllm-router=venv/bin/vllm-router --gateway litellm=venv/bin/litellm --plans short,token,prompt,latency --logs on --save everything.json",
        Not(Minutes),
    ),
    (
        "loadtest compare --gateway nginx --gateway sluicegate=target/dist/sluicegate --save base.json",
        Not(Minutes),
    ),
    (
        "loadtest compare --gateway nginx --gateway sluicegate=target/dist/sluicegate --against base.json --html page.html",
        Not(Minutes),
    ),
    (
        "loadtest compare --from now.json --against base.json --threshold 5%",
        RunBy(
            "loadtest/tests/compare.rs",
            "a_regression_exits_1_and_the_page_says_so",
        ),
    ),
    (
        "loadtest survive --gateway sluicegate=target/dist/sluicegate",
        RunBy(".ci/full", "survive"),
    ),
    (
        "loadtest survive --gateway sluicegate=target/dist/sluicegate --gateway nginx --json survive.json",
        RunBy(".ci/full", "survive"),
    ),
    (
        "loadtest survive --gateway sluicegate=target/dist/sluicegate --upgrades 20 --reloads 200",
        RunBy(".ci/full", "survive"),
    ),
    (
        "loadtest survive --gateway sluicegate-llm=target/dist/sluicegate --soak",
        RunBy(".ci/full", "survive"),
    ),
    (
        "loadtest survive --gateway sluicegate=target/dist/sluicegate --aborts 100000",
        RunBy(".ci/full", "survive"),
    ),
];
