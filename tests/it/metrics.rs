//! What `/metrics` says after traffic that is known, and that the tools of others can read it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::{
    Client, Fault, Gateway, Script, ask, chat, engine, engine_with, get, in_turn, post, until,
};

const PROMTOOL: &str = "/usr/bin/promtool";
const EXPORTER: &str = "/usr/bin/prometheus-nginx-exporter";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn known_traffic_gives_known_samples() {
    let (first, second) = (engine().await, engine().await);
    let gateway = Gateway::start(&in_turn(&first.authority(), &second.authority(), "")).await;
    first.fail_next(1, Fault::Status(500));
    assert_eq!(gateway.ask(&chat(false)).await.status, 200);
    for stream in [true, true, false] {
        assert_eq!(gateway.ask(&chat(stream)).await.status, 200);
    }
    assert_eq!(
        gateway
            .ask(&post("/v1/completions", "{\"prompt\":7}"))
            .await
            .status,
        400
    );
    assert_eq!(gateway.ask(&get("/flush_cache")).await.status, 404);
    assert_eq!(gateway.ask(&get("/health")).await.status, 200);
    gateway.quiet().await;
    let (one, two) = (first.authority(), second.authority());
    for (series, value) in [
        (
            format!(
                "sluicegate_requests_total{{code=\"200\",endpoint=\"{one}\",pool=\"default\"}}"
            ),
            3.0,
        ),
        (
            format!(
                "sluicegate_requests_total{{code=\"200\",endpoint=\"{two}\",pool=\"default\"}}"
            ),
            1.0,
        ),
        (
            format!(
                "sluicegate_requests_total{{code=\"400\",endpoint=\"{one}\",pool=\"default\"}}"
            ),
            1.0,
        ),
        (
            "sluicegate_request_duration_seconds_count{pool=\"default\"}".into(),
            5.0,
        ),
        (
            "sluicegate_ttft_seconds_count{model=\"other\",pool=\"default\"}".into(),
            2.0,
        ),
        (
            "sluicegate_retries_total{pool=\"default\",reason=\"status\"}".into(),
            1.0,
        ),
        (
            "sluicegate_refused_total{reason=\"path_not_exposed\"}".into(),
            1.0,
        ),
        (
            format!("sluicegate_endpoint_up{{endpoint=\"{one}\",pool=\"default\"}}"),
            1.0,
        ),
        (
            format!("sluicegate_endpoint_in_flight{{endpoint=\"{one}\",pool=\"default\"}}"),
            0.0,
        ),
        ("sluicegate_connections_total".into(), 7.0),
        ("sluicegate_body_bytes".into(), 0.0),
        ("sluicegate_config_epoch".into(), 1.0),
    ] {
        gateway.wait_for_metric(&series, value).await;
    }
    assert!(gateway.metric("sluicegate_overhead_seconds_count") >= 3.0);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn time_to_first_token_is_that_of_the_engine() {
    let ttft = Duration::from_millis(150);
    let engine = engine_with(Script {
        ttft,
        itl: Duration::from_millis(10),
        ..Script::default()
    })
    .await;
    let gateway = Gateway::start(&format!("endpoints: [\"{}\"]", engine.authority())).await;
    assert_eq!(gateway.ask(&chat(true)).await.status, 200);
    gateway.quiet().await;
    let bucket = |le: &str| {
        let series = "sluicegate_ttft_seconds_bucket{model=\"other\",pool=\"default\",le=\"LE\"}";
        gateway.metric(&series.replace("LE", le))
    };
    gateway
        .wait_for_metric(
            "sluicegate_ttft_seconds_count{model=\"other\",pool=\"default\"}",
            1.0,
        )
        .await;
    assert_eq!((bucket("0.1"), bucket("0.5")), (0.0, 1.0));
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_flight_is_shown_while_it_is() {
    let engine = engine().await;
    engine.hold();
    let gateway = Gateway::start(&format!("endpoints: [\"{}\"]", engine.authority())).await;
    let mut client = Client::connect(gateway.address).await;
    let request = chat(true);
    client.send(request.bytes()).await;
    engine.wait_for_arrivals(1).await;
    let in_flight = format!(
        "sluicegate_endpoint_in_flight{{endpoint=\"{}\",pool=\"default\"}}",
        engine.authority()
    );
    assert_eq!(gateway.metric(&in_flight), 1.0);
    assert_eq!(
        gateway.metric("sluicegate_body_bytes"),
        request.framed_body().len() as f64
    );
    assert_eq!(
        gateway.metric("sluicegate_connections{state=\"writing\"}"),
        1.0
    );
    engine.release();
    assert_eq!(client.answer().await.status, 200);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promtool_finds_nothing_to_say() {
    if !Path::new(PROMTOOL).exists() {
        return eprintln!("skipped: there is no {PROMTOOL}");
    }
    let engine = engine().await;
    let gateway = Gateway::with_tls(&format!("endpoints: [\"{}\"]", engine.authority())).await;
    for stream in [true, false] {
        gateway.ask(&chat(stream)).await;
    }
    gateway.ask(&get("/nothing")).await;
    let page = ask(gateway.admin, &get("/metrics")).await;
    assert_eq!(
        page.field("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    let mut child = Command::new(PROMTOOL)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&page.body).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
    gateway.finish().await;
}

/// A process that is ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginxs_exporter_reads_stub_status() {
    if !Path::new(EXPORTER).exists() {
        return eprintln!("skipped: there is no {EXPORTER}");
    }
    let engine = engine().await;
    let gateway = Gateway::start(&format!("endpoints: [\"{}\"]", engine.authority())).await;
    for _ in 0..3 {
        assert_eq!(gateway.ask(&chat(false)).await.status, 200);
    }
    let address = free_port();
    let exporter = Command::new(EXPORTER)
        .arg(format!(
            "-nginx.scrape-uri=http://{}/stub_status",
            gateway.address
        ))
        .arg(format!("-web.listen-address={address}"))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut exporter = Running(exporter);
    until("the exporter to listen", || {
        std::net::TcpStream::connect(address).is_ok()
    })
    .await;
    let request = get("/metrics").field("Connection: close");
    let page = ask(address, &request).await;
    let page = page.text();
    let value = |name: &str| {
        let line = page
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse::<f64>().ok())
    };
    if value("nginx_up") != Some(1.0) {
        exporter.0.kill().unwrap();
        let mut said = String::new();
        exporter
            .0
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut said)
            .unwrap();
        panic!("{said}\n{page}");
    }
    let requests = value("nginx_http_requests_total").unwrap();
    let accepted = value("nginx_connections_accepted").unwrap();
    assert!(requests >= 4.0 && accepted >= 4.0, "{page}");
    assert_eq!(value("nginx_connections_handled"), Some(accepted));
    // The scrape counts itself.
    assert_eq!(value("nginx_connections_writing"), Some(1.0));
    drop(exporter);
    gateway.finish().await;
}
