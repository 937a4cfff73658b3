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
    assert_eq!((&health["healthy_count"], &health["unhealthy_count"]), (&2.into(), &0.into()));
    let healthy = health["healthy_endpoints"].as_array().unwrap();
    for (endpoint, engine) in healthy.iter().zip(&world.engines) {
        assert_eq!(endpoint["api_base"], format!("{}/v1", engine.url()));
    }
}

const POSTDATA: &str = "\
cat > postdata << EOF
{\"model\": \"DeepSeek-R1\", \"prompt\": \"What is AMD Instinct?\", \"max_tokens\": 256, \"temperature\": 0.0}
