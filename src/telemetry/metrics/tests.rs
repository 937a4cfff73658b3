use std::io::Write;
use std::process::{Command, Stdio};

use super::families::{FAMILIES, PREFIX};
use super::*;
use crate::openai::Usage;
use crate::telemetry::access_log::End;

fn filled() -> (Metrics, PoolMetrics, EndpointMetrics) {
    let metrics = Metrics::new("1.2.3");
    metrics.read_from(Sources {
        endpoints: Box::new(|| {
            let sample = |endpoint: &str, up| EndpointSample {
                pool: "default".into(),
                endpoint: endpoint.into(),
                in_flight: 3,
                up,
                draining: !up,
                removals: if up { vec![("refused", 1)] } else { Vec::new() },
            };
            vec![sample("node0:8000", true), sample("node1:8000", false)]
        }),
        queues: Box::new(|| {
            let pool = "default".into();
            vec![QueueSample { pool, depth: 5 }]
        }),
        body_bytes: Box::new(|| 42),
    });
    let (pool, endpoint) = (
        metrics.pool("default"),
        metrics.endpoint("default", "node0:8000"),
    );
    endpoint.count(200);
    endpoint.count(200);
    endpoint.count(418);
    endpoint.connections_new.inc();
    pool.count_unanswered(503);
    pool.retried("reset");
    pool.continued("ids");
    pool.observe_duration(Duration::from_millis(300));
    pool.queue_wait.observe(0.2);
    let model = metrics.model("default", "other");
    model.observe_ttft(Duration::from_millis(30));
    model.observe_end(
        Duration::from_millis(230),
        Some(Duration::from_millis(30)),
        Some(11),
    );
    let mut intervals = Intervals::default();
    intervals.note(Duration::from_millis(20), 1);
    model.add_intervals(&intervals);
    let usage = Usage {
        prompt: Some(7),
        completion: Some(11),
        cached: None,
    };
    model.add_tokens(usage);
    let key = metrics.key("team-a");
    key.add_tokens(usage);
    key.count(End::Complete, false);
    key.count(End::Refused, true);
    metrics.overhead.observe(0.000_07);
    metrics.refused("path_not_exposed");
    metrics.certificate_expires(
        "0.0.0.0:443",
        UNIX_EPOCH + Duration::from_secs(1_800_000_000),
    );
    metrics.config_reloaded(true);
    metrics.config_epoch.set(2);
    (metrics, pool, endpoint)
}

fn ours(text: &str) -> Vec<&str> {
    text.lines()
        .filter(|line| line.starts_with(PREFIX))
        .collect()
}

#[test]
fn everything_counted_is_shown() {
    let (metrics, _pool, _endpoint) = filled();
    let _open = metrics.connection_counts.connection();
    let text = metrics.render();
    for line in [
        r#"sluicegate_requests_total{code="200",endpoint="node0:8000",pool="default"} 2"#,
        r#"sluicegate_requests_total{code="418",endpoint="node0:8000",pool="default"} 1"#,
        r#"sluicegate_requests_total{code="503",endpoint="none",pool="default"} 1"#,
        r#"sluicegate_request_duration_seconds_bucket{pool="default",le="0.5"} 1"#,
        r#"sluicegate_ttft_seconds_bucket{model="other",pool="default",le="0.025"} 0"#,
        r#"sluicegate_ttft_seconds_count{model="other",pool="default"} 1"#,
        r#"sluicegate_itl_seconds_bucket{model="other",pool="default",le="0.015"} 0"#,
        r#"sluicegate_itl_seconds_bucket{model="other",pool="default",le="0.02"} 1"#,
        r#"sluicegate_itl_seconds_bucket{model="other",pool="default",le="+Inf"} 1"#,
        r#"sluicegate_itl_seconds_sum{model="other",pool="default"} 0.02"#,
        r#"sluicegate_tpot_seconds_bucket{model="other",pool="default",le="0.015"} 0"#,
        r#"sluicegate_tpot_seconds_bucket{model="other",pool="default",le="0.02"} 1"#,
        r#"sluicegate_e2el_seconds_bucket{model="other",pool="default",le="0.25"} 1"#,
        r#"sluicegate_tokens_total{kind="completion",model="other",pool="default"} 11"#,
        r#"sluicegate_key_tokens_total{key="team-a",kind="prompt"} 7"#,
        r#"sluicegate_key_requests_total{key="team-a",result="complete"} 1"#,
        r#"sluicegate_key_requests_total{key="team-a",result="rate_limited"} 1"#,
        r#"sluicegate_overhead_seconds_bucket{le="0.0001"} 1"#,
        r#"sluicegate_endpoint_in_flight{endpoint="node0:8000",pool="default"} 3"#,
        r#"sluicegate_endpoint_up{endpoint="node1:8000",pool="default"} 0"#,
        r#"sluicegate_ejections_total{endpoint="node0:8000",pool="default",reason="refused"} 1"#,
        r#"sluicegate_retries_total{pool="default",reason="reset"} 1"#,
        r#"sluicegate_upstream_connections_total{endpoint="node0:8000",pool="default",state="new"} 1"#,
        r#"sluicegate_upstream_connections_total{endpoint="node0:8000",pool="default",state="reused"} 0"#,
        r#"sluicegate_refused_total{reason="path_not_exposed"} 1"#,
        r#"sluicegate_retry_budget_exhausted_total{pool="default"} 0"#,
        r"sluicegate_log_lines_dropped_total 0",
        r#"sluicegate_certificate_expiry_timestamp_seconds{listener="0.0.0.0:443"} 1800000000"#,
        r#"sluicegate_connections{state="waiting"} 1"#,
        r#"sluicegate_connections{state="reading"} 0"#,
        r"sluicegate_connections_total 1",
        r"sluicegate_body_bytes 42",
        r"sluicegate_config_epoch 2",
        r#"sluicegate_config_reloads_total{result="success"} 1"#,
        r#"sluicegate_config_reloads_total{result="failure"} 0"#,
        r#"sluicegate_build_info{version="1.2.3"} 1"#,
    ] {
        assert!(
            text.lines().any(|shown| shown == line),
            "{line}\nin\n{text}"
        );
    }
    assert!(text.contains("\nprocess_resident_memory_bytes "));
}

#[test]
fn the_table_is_what_is_shown() {
    let text = filled().0.render();
    for family in FAMILIES {
        assert!(
            text.contains(&format!(
                "# HELP {PREFIX}_{} {}\n",
                family.name, family.help
            )),
            "{}",
            family.name
        );
        assert!(family.help.ends_with('.'));
    }
    let shown = text
        .lines()
        .filter(|line| line.starts_with(&format!("# TYPE {PREFIX}_")))
        .count();
    assert_eq!(shown, FAMILIES.len());
    assert!(FAMILIES.len() <= 40);
}

#[test]
fn what_has_left_is_forgotten_and_comes_back_at_zero() {
    let (metrics, pool, endpoint) = filled();
    let other = metrics.endpoint("default", "node1:8000");
    other.count(200);
    metrics.forget_endpoint(&endpoint);
    endpoint.count(200);
    endpoint.count(502);
    endpoint.count(418);
    let text = metrics.render();
    let left: Vec<_> = ours(&text)
        .into_iter()
        .filter(|line| line.contains("node0"))
        // Read from their owners at the scrape, which know themselves who is gone.
        .filter(|line| {
            !line.starts_with("sluicegate_endpoint_") && !line.starts_with("sluicegate_ejections_")
        })
        .collect();
    assert_eq!(left, Vec::<&str>::new());
    assert!(text.contains(
        r#"sluicegate_requests_total{code="200",endpoint="node1:8000",pool="default"} 1"#
    ));
    metrics.endpoint("default", "node0:8000").count(200);
    assert!(metrics.render().contains(
        r#"sluicegate_requests_total{code="200",endpoint="node0:8000",pool="default"} 1"#
    ));
    metrics.forget_pool(&pool);
    metrics.forget_model(&metrics.model("default", "other"));
    metrics.forget_key(&metrics.key("team-a"));
    pool.retried("status");
    pool.continued("ids");
    let text = metrics.render();
    for gone in [
        "sluicegate_retries_total{",
        "sluicegate_continuations_total{",
        "model=\"other\"",
        "key=\"team-a\"",
    ] {
        assert!(!text.contains(gone), "{gone} in\n{text}");
    }
}

#[test]
fn promtool_finds_nothing_to_complain_about() {
    let text = filled().0.render();
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = promtool else {
        return;
    };
    promtool
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && said.is_empty(), "{said}");
}
