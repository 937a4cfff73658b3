//! The guide's other commands. Its containers and packages cannot be had in a test; the host's tools are.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use loadtest::engine::Script;
use serde_json::Value;

use crate::gateway::PATIENCE;
use crate::programs::find;
use crate::world::{World, quick, repository};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_through_nginxs_port_and_through_litellms() {
    let (Some(_), Some(_)) = (find("curl"), find("jq")) else {
        return;
    };
    let world = World::start(quick()).await;
    let said = world.succeed(
        r#"curl http://localhost/v1/completions \
  -H "Content-Type: application/json" \
  -d '{"model": "DeepSeek-R1", "prompt": "What is AMD Instinct?", "max_tokens": 256, "temperature": 0.0}'"#,
    );
    let answer: Value = serde_json::from_str(&said).unwrap();
    assert_ne!(answer["choices"][0]["text"], "", "{said}");
    assert_eq!(answer["model"], "DeepSeek-R1", "{said}");

    // A gateway without keys takes any: the same lines, once it has some, must refuse others.
    let said = world.succeed(
        r#"curl http://localhost:4000/v1/completions \
  -H "Content-Type: application/json" \
  -H "Authorization: Bearer sk-1234" \
  -d '{"model": "DeepSeek-R1", "prompt": "What is AMD Instinct?", "max_tokens": 256, "temperature": 0.0}'"#,
    );
    let keyed: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(keyed["choices"], answer["choices"]);

    let said = world.succeed(
        "curl -X 'GET' \\
      'http://localhost:4000/health' \\
      -H 'accept: application/json' \\
      -H 'Authorization: Bearer sk-1234' | jq",
    );
    let health: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        (&health["healthy_count"], &health["unhealthy_count"]),
        (&2.into(), &0.into())
    );
    let healthy = health["healthy_endpoints"].as_array().unwrap();
    for (endpoint, engine) in healthy.iter().zip(&world.engines) {
        assert_eq!(endpoint["api_base"], format!("{}/v1", engine.url()));
    }
}

const POSTDATA: &str = "\
cat > postdata << EOF
{\"model\": \"DeepSeek-R1\", \"prompt\": \"What is AMD Instinct?\", \"max_tokens\": 256, \"temperature\": 0.0}
EOF
";

/// ab needs a descriptor a connection. It speaks HTTP/1.0, and takes an answer of another length for a failure.
const OPEN_FILES: &str = "ulimit -n 4096\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ab_with_two_thousand_clients_with_kept_connections_and_with_a_key() {
    let Some(_) = find("ab") else { return };
    let world = World::start(Script {
        fixed: true,
        ..Script::default()
    })
    .await;
    for (requests, line) in [
        // A fifth of the guide's requests, but all of its clients; tests/clients/ab.sh has the whole.
        (
            4_000,
            "ab -n 4000 -c 2000 -T application/json -p postdata http://localhost:80/v1/completions",
        ),
        // Not the guide's: connections are kept.
        (
            2_000,
            "ab -k -n 2000 -c 500 -T application/json -p postdata http://localhost:80/v1/completions",
        ),
        (
            1_000,
            "ab -n 1000 -c 100 -T application/json -p postdata -H \"Authorization: Bearer sk-1234\" http://localhost:4000/v1/completions",
        ),
    ] {
        let before = world.completed().await;
        let said = world.succeed(&format!("{OPEN_FILES}{POSTDATA}{line}"));
        let count = |what: &str| -> u64 {
            let line = said.lines().find(|line| line.starts_with(what));
            line.map_or(0, |line| {
                line.split_whitespace().last().unwrap().parse().unwrap()
            })
        };
        assert_eq!(count("Complete requests:"), requests, "{said}");
        assert_eq!(count("Failed requests:"), 0, "{said}");
        assert_eq!(count("Non-2xx responses:"), 0, "{said}");
        assert_eq!(world.completed().await - before, requests, "{said}");
        let kept = if line.contains(" -k ") { requests } else { 0 };
        assert_eq!(count("Keep-Alive requests:"), kept, "{said}");
    }
}

#[test]
fn the_body_that_ab_sends_is_shipped() {
    let shipped = std::fs::read_to_string(repository("loadtest/apache/postdata")).unwrap();
    let written = POSTDATA.lines().nth(1).unwrap();
    assert_eq!(shipped.trim_end(), written);
}

/// Ended when dropped.
struct Exporter(Child);

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// nginx's exporter as a container of the guide has it, with its one argument.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginxs_exporter_scrapes_stub_status() {
    let Some(exporter) = find("prometheus-nginx-exporter") else {
        return;
    };
    let world = World::start(quick()).await;
    let answered = 5;
    for _ in 0..answered {
        world.succeed("curl -sf http://localhost/health");
    }
    let argument = "--nginx.scrape-uri=http://localhost/stub_status";
    let argument = argument.replace("localhost", &world.gateway.public.to_string());
    let address = free_address();
    let child = Command::new(exporter)
        .args([argument, format!("--web.listen-address={address}")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _exporter = Exporter(child);
    let begun = Instant::now();
    while TcpStream::connect(address).is_err() {
        assert!(begun.elapsed() < PATIENCE, "the exporter does not listen");
        std::thread::sleep(Duration::from_millis(10));
    }
    let page = world.succeed(&format!("curl -sf http://{address}/metrics"));
    let value = |name: &str| -> f64 {
        let line = page
            .lines()
            .find(|line| line.starts_with(&format!("{name} ")));
        let line = line.unwrap_or_else(|| panic!("no {name} in {page}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert_eq!(value("nginx_up"), 1.0, "{page}");
    // Its own besides: the first when it starts, if its version does that, and the one we asked for.
    let counted = value("nginx_http_requests_total") - f64::from(answered);
    assert!((1.0..=2.0).contains(&counted), "{page}");
    assert_eq!(
        value("nginx_connections_handled"),
        value("nginx_connections_accepted"),
        "{page}"
    );
}

/// The exporter does not say which port it got, so it is given one that was free a moment ago.
fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap()
}
