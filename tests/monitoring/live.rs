//! Every expression that is shipped, under load and while things go wrong, held against what the load counted.

use std::collections::BTreeSet;
use std::time::Duration;

use loadtest::engine::{Fault, Flavour};
use loadtest::load::{Arrivals, Plan, Report, Spacing, run};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::cluster::{AMD, BATCH, Cluster, Mood, PER_MINUTE, SMALL, TEAM, certify, engine};
use crate::compared::{Window, panel_query};
use crate::dashboards::{Board, boards, with_variables};
use crate::files::{alerts, recorded};
use crate::http::get;
use crate::programs::find;
use crate::prometheus::{Prometheus, Series, now, shortened};

/// What stands for `$__rate_interval`: ten scrapes.
pub const WINDOW: &str = "5s";
pub const CLIENTS: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_expression_has_values_and_they_are_what_the_load_counted() {
    let (Some(prometheus), Some(node_exporter)) =
        (find("prometheus"), find("prometheus-node-exporter"))
    else {
        return;
    };
    let cluster = Cluster::start(&node_exporter).await;
    let prometheus = Prometheus::start(&prometheus, &cluster.targets());
    let boards = boards();

    warm_up(&cluster, &prometheus).await;
    let begun = now();
    let report = measured(&cluster).await;
    let ended = now();
    let total = "sum(sluicegate_requests_total)";
    let counted = (report.requests + WARM) as f64;
    prometheus.until(total, |sum| sum == Some(counted)).await;
    let window = Window::since(&prometheus, &boards, begun);
    window.has_the_load(&report, ended);
    window.has_the_model_and_the_key(&report);
    // Those on `up` aside: a machine that is busy with something else can miss a scrape.
    let quiet =
        "ALERTS{alertstate=\"firing\", alertname!~\"SluicegateDown|EngineDown|TargetDown\"}";
    let firing = prometheus.range(quiet, begun, ended);
    assert!(firing.is_empty(), "alerts on a quiet day: {firing:#?}");

    another_model_and_a_limited_key(&cluster, &prometheus, &boards).await;
    let background = tokio::spawn(run(background(&cluster)));
    go_wrong(&cluster, &prometheus).await;
    let until = now();
    for board in boards.iter().filter(|board| board.source() == "prometheus") {
        shows_something(&prometheus, board, begun, until);
    }
    ejections_are_counted_from_the_first(&prometheus, &boards, until - begun);
    for record in recorded() {
        assert_finite(&record, &prometheus.range(&record, begun, until));
    }
    old_names_are_known(&prometheus, &cluster, &boards);
    go_down(cluster, &prometheus).await;
    background.abort();
    let fired = prometheus.range("ALERTS{alertstate=\"firing\"}", begun, now() + 1.0);
    let mut fired: BTreeSet<_> = fired.iter().map(|s| text(&s.labels["alertname"])).collect();
    let mut all: BTreeSet<_> = alerts().into_iter().collect();
    // Wants engines that die under the same request, which may happen here or not; promtool has its rule.
    assert!(all.remove("SluicegateSuspect"));
    fired.remove("SluicegateSuspect");
    assert_eq!(fired, all);
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Requests that are made before the measured ones.
const WARM: u64 = 12;

/// Gives every series its first sample, which no rate sees, and waits until Prometheus has it.
async fn warm_up(cluster: &Cluster, prometheus: &Prometheus) {
    prometheus
        .until("count(up == 1)", |up| up == Some(8.0))
        .await;
    let report = run(Plan {
        arrivals: Arrivals::Closed { clients: 6 },
        requests: WARM,
        stream: true,
        ..plan(cluster)
    });
    let report = report.await.unwrap();
    assert_eq!((report.requests, report.failed), (WARM, 0), "{report}");
    let all = "count(sluicegate_requests_total{code=\"200\"})";
    prometheus.until(all, |count| count == Some(3.0)).await;
    let sum = "sum(sluicegate_requests_total)";
    prometheus
        .until(sum, |count| count == Some(WARM as f64))
        .await;
}

fn plan(cluster: &Cluster) -> Plan {
    Plan {
        duration: Duration::from_secs(12),
        api_key: Some(TEAM.to_owned()),
        ..Plan::new(format!("http://{}", cluster.gateway.public))
    }
}

async fn measured(cluster: &Cluster) -> Report {
    let report = run(Plan {
        arrivals: Arrivals::Closed { clients: CLIENTS },
        stream: true,
        ..plan(cluster)
    });
    let report = report.await.unwrap();
    assert_eq!(report.failed, 0, "{report}");
    assert!(report.requests > 100, "{report}");
    report
}

/// So many a second whatever becomes of them, for as long as the rest takes.
fn background(cluster: &Cluster) -> Plan {
    Plan {
        arrivals: Arrivals::Open {
            per_second: 20.0,
            spacing: Spacing::Uniform,
        },
        duration: Duration::from_secs(120),
        stream: true,
        ..plan(cluster)
    }
}

/// A model of another pool, asked by a key that its limit refuses in part.
async fn another_model_and_a_limited_key(
    cluster: &Cluster,
    prometheus: &Prometheus,
    boards: &[Board],
) {
    let plan = Plan {
        model: Some(SMALL.to_owned()),
        api_key: Some(BATCH.to_owned()),
        // Its answers are no simulated engine's.
        verify: false,
        ..plan(cluster)
    };
    let load = async |plan: Plan, before: u64| {
        let report = run(plan).await.unwrap();
        let limited = report.failures.get("status_429").copied();
        assert_eq!(limited, Some(report.failed), "{report}");
        let counted = before + report.requests;
        let total = "sum(sluicegate_key_requests_total{key=\"batch\"})";
        let is_counted = |sum| sum == Some(counted as f64);
        prometheus.until(total, is_counted).await;
        report
    };
    // What may be asked in a minute may be asked at once; then so much as comes back.
    let used_up = Plan {
        arrivals: Arrivals::Closed { clients: 2 },
        requests: PER_MINUTE + 50,
        ..plan.clone()
    };
    let used_up = load(used_up, 0).await;
    // The window has whole seconds: it begins up to one earlier than the load.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let begun = now();
    let twice_what_comes_back = Plan {
        arrivals: Arrivals::Open {
            per_second: 2.0 * PER_MINUTE as f64 / 60.0,
            spacing: Spacing::Uniform,
        },
        ..plan
    };
    let report = load(twice_what_comes_back, used_up.requests).await;
    let window = Window::since(prometheus, boards, begun);
    window.has_the_small_model_and_the_limited_key(&report);
}

/// One thing after the other goes wrong, until its alert fires, and is mended.
async fn go_wrong(cluster: &Cluster, prometheus: &Prometheus) {
    let gateway = &cluster.gateway;
    for _ in 0..3 {
        assert_eq!(get(gateway.public, "/not/a/path").0, 404);
    }
    for engine in cluster.engines() {
        engine.fail_next(1000, Fault::Status(500));
    }
    for alert in [
        "SluicegateRetryBudgetExhausted",
        "SluicegateFailing",
        "SluicegateRetrying",
    ] {
        prometheus.until_fires(alert).await;
    }
    for engine in cluster.engines() {
        engine.clear_faults();
    }

    // All is well again.
    let p90 = "pool:sluicegate_ttft_seconds:p90_5m";
    prometheus
        .until(p90, |p90| p90.is_some_and(|p90| p90 < 0.5))
        .await;
    let slow = Duration::from_millis(1500);
    let flavours = [Flavour::Vllm, Flavour::Vllm, Flavour::Sglang];
    for (one, flavour) in cluster.engines().into_iter().zip(flavours) {
        let mut script = engine(flavour);
        script.ttft = slow;
        one.set(script);
    }
    prometheus.until_fires("SluicegateSlowFirstToken").await;
    for (one, flavour) in cluster.engines().into_iter().zip(flavours) {
        one.set(engine(flavour));
    }

    gateway.rewrite("endpoint: [node0:8000]\n");
    gateway.signal(Signal::SIGHUP);
    prometheus.until_fires("SluicegateReloadRefused").await;

    certify(gateway.directory.path(), 5);
    gateway.reload(&cluster.keys(Mood::Narrow));
    for alert in [
        "SluicegateCertificateExpires",
        "SluicegateLogLinesDropped",
        "SluicegateRefusing",
        "SluicegateQueueing",
    ] {
        prometheus.until_fires(alert).await;
    }
    certify(gateway.directory.path(), 90);
    gateway.reload(&cluster.keys(Mood::Usual));

    let sick = AMD.lines().map(|line| match line.strip_suffix(" 1") {
        Some(healthy) if line.starts_with("amd_gpu_health") => format!("{healthy} 0\n"),
        _ => format!("{line}\n"),
    });
    cluster.amd_exporter.show(&sick.collect::<String>());
    prometheus.until_fires("GpuUnhealthy").await;
    cluster.amd_exporter.show(AMD);

    let up = format!(
        "sluicegate_endpoint_up{{endpoint=\"{}\"}}",
        cluster.sglang.authority()
    );
    for _ in 0..3 {
        cluster.sglang.stop().await;
        prometheus.until(&up, |up| up == Some(0.0)).await;
        cluster.sglang.restart().await.unwrap();
        prometheus.until(&up, |up| up == Some(1.0)).await;
    }
    prometheus.until_fires("SluicegateEjections").await;
    // It fires for as long as the endpoint is down, and no longer.
    cluster.sglang.stop().await;
    prometheus.until_fires("SluicegateEndpointDown").await;
    cluster.sglang.restart().await.unwrap();
    prometheus.until(&up, |up| up == Some(1.0)).await;
}

/// What takes everything else with it: the engines, the exporters, the gateway.
async fn go_down(cluster: Cluster, prometheus: &Prometheus) {
    for engine in cluster.engines() {
        engine.stop().await;
    }
    prometheus.until_fires("SluicegateNoEndpoint").await;
    prometheus.until_fires("EngineDown").await;
    drop(cluster);
    prometheus.until_fires("SluicegateDown").await;
    prometheus.until_fires("TargetDown").await;
}

/// The panel that has nothing to show for as long as nobody waits: a quantile of nothing.
const SOMETIMES: &str = "Time in the queue";

/// Every panel and every variable of a dashboard has values.
fn shows_something(prometheus: &Prometheus, board: &Board, from: f64, to: f64) {
    for query in board.queries() {
        let promql = shortened(&with_variables(query.text, WINDOW));
        let mut series = prometheus.range(&promql, from, to);
        if query.panel == SOMETIMES {
            for one in &mut series {
                one.points.retain(|point| point.1.is_finite());
            }
            series.retain(|one| !one.points.is_empty());
        }
        assert_finite(&query.to_string(), &series);
    }
    for query in board.variable_queries() {
        let inside = query
            .strip_prefix("label_values(")
            .and_then(|q| q.strip_suffix(')'));
        let (selector, label) = inside.and_then(|q| q.rsplit_once(", ")).unwrap();
        let series = prometheus.series(&with_variables(selector, WINDOW));
        let with_label = series.iter().filter(|series| series[label].is_string());
        assert!(
            with_label.count() > 0,
            "{}: {query} has no values",
            board.file
        );
    }
}

fn assert_finite(what: &str, series: &[Series]) {
    assert!(!series.is_empty(), "{what} is empty");
    for one in series {
        let wrong = one.points.iter().find(|point| !point.1.is_finite());
        assert!(wrong.is_none(), "{what} has {wrong:?} in {}", one.labels);
    }
}

/// Over a window in which all of them came, the panel has as many as the gateway counted; `increase` would lack one of
/// each endpoint and reason.
fn ejections_are_counted_from_the_first(prometheus: &Prometheus, boards: &[Board], window: f64) {
    let query = panel_query(boards, "gateway", "Ejections", "A");
    let shown = prometheus.sum(&with_variables(query, &format!("{}s", window.floor())));
    let counted = prometheus.sum("sum(sluicegate_ejections_total)");
    assert!(counted >= Some(3.0), "{counted:?}");
    assert_eq!(shown, counted, "{query}");
}

/// The cache's share of an engine that gives it the old name.
fn old_names_are_known(prometheus: &Prometheus, cluster: &Cluster, boards: &[Board]) {
    let query = panel_query(boards, "vLLM_Dashboard", "Cache used", "A");
    let series = prometheus.query(&with_variables(query, WINDOW));
    let old = cluster.old_vllm().to_string();
    let old = series
        .iter()
        .find(|series| series.labels["instance"] == old.as_str());
    assert_eq!(old.expect("the engine is shown").points[0].1, 0.25);
    assert_eq!(series.len(), 3, "{series:#?}");
}
