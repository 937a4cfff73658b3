//! k6.json against a real InfluxDB that holds what k6 writes: a measurement for each of its metrics, a point for each
//! sample.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::Value;

use crate::dashboards::{Board, boards};
use crate::http::post;
use crate::influx::Influx;
use crate::programs::find;
use crate::prometheus::now;

/// Of the last seconds, one request in each. All passed but the last.
const REQUESTS: u64 = 20;

#[test]
fn every_query_of_the_k6_dashboard_returns_what_k6_wrote() {
    let Some(influxd) = find("influxd") else {
        return;
    };
    let influx = Influx::start(&influxd);
    influx.query("CREATE DATABASE k6");
    let (status, said) = post(influx.address, "/write?db=k6&precision=s", &points());
    assert_eq!(status, 204, "{said}");

    let boards = boards();
    let board = boards.iter().find(|board| board.file == "k6.json").unwrap();
    for query in board.queries() {
        let series = influx.query(&with_variables(query.text));
        assert!(!series.is_empty(), "{query} is empty");
        for one in series {
            let rows = one["values"].as_array().unwrap();
            let values = rows.iter().flat_map(|row| &row.as_array().unwrap()[1..]);
            assert!(values.clone().count() > 0, "{query}: {one}");
            assert!(values.into_iter().all(Value::is_number), "{query}: {one}");
        }
    }
    let total = |panel| influx.number(&with_variables(text(board, panel)));
    assert_eq!(total("Requests"), REQUESTS as f64);
    assert_eq!(total("Iterations"), REQUESTS as f64);
    assert_eq!(total("Failed"), 1.0 / REQUESTS as f64);
    assert_eq!(total("Checks passed"), 1.0 - 1.0 / REQUESTS as f64);
    assert_eq!(total("Tokens"), (REQUESTS * 46) as f64);
    // One a second.
    let rate = influx.query(&with_variables(text(board, "Requests a second")));
    assert_eq!(rate.len(), 2, "one series a status: {rate:?}");
    assert_eq!(rate[0]["values"][0][1], 1.0, "{rate:?}");
    for query in board.variable_queries() {
        let values = influx.query(query);
        assert_eq!(values[0]["values"][0][1], "chat", "{query}: {values:?}");
    }
}

#[test]
fn the_k6_dashboard_knows_every_metric_of_the_scripts() {
    let boards = boards();
    let board = boards.iter().find(|board| board.file == "k6.json").unwrap();
    let asked: BTreeSet<_> = board
        .queries()
        .iter()
        .map(|query| query.text.split("FROM \"").nth(1).unwrap())
        .map(|rest| rest.split('"').next().unwrap().to_owned())
        .collect();
    let written: BTreeSet<_> = METRICS.iter().map(|metric| metric.0.to_owned()).collect();
    assert_eq!(asked, written);
}

fn text<'a>(board: &'a Board, panel: &str) -> &'a str {
    let queries = board.queries();
    queries.iter().find(|q| q.panel == panel).unwrap().text
}

/// As Grafana fills them in, for the last minutes, a point a second and every test.
fn with_variables(query: &str) -> String {
    let query = query
        .replace("$timeFilter", "time > now() - 5m")
        .replace("$__interval_ms", "1000")
        .replace("$__interval", "1s")
        .replace("$testid", ".*");
    assert!(!query.replace("$/", "").contains('$'), "{query}");
    query
}

/// Every metric, and the value of a sample that went well and of one that did not.
const METRICS: [(&str, f64, f64); 23] = [
    ("http_reqs", 1.0, 1.0),
    ("http_req_failed", 0.0, 1.0),
    ("http_req_duration", 431.5, 12.0),
    ("http_req_blocked", 0.01, 0.01),
    ("http_req_connecting", 0.0, 0.2),
    ("http_req_sending", 0.04, 0.04),
    ("http_req_waiting", 430.0, 11.0),
    ("http_req_receiving", 1.4, 0.1),
    ("checks", 1.0, 0.0),
    ("vus", 5.0, 5.0),
    ("iterations", 1.0, 1.0),
    ("iteration_duration", 2431.5, 2012.0),
    ("data_received", 2048.0, 300.0),
    ("data_sent", 512.0, 512.0),
    ("prompt_tokens", 16.0, 16.0),
    ("completion_tokens", 30.0, 30.0),
    ("total_tokens", 46.0, 46.0),
    ("tokens_per_second", 69.5, 69.5),
    ("ttft", 151.0, 151.0),
    ("tpot", 10.2, 10.2),
    ("short_prompt_response_time", 400.0, 400.0),
    ("medium_prompt_response_time", 410.0, 410.0),
    ("long_prompt_response_time", 450.0, 450.0),
];

/// In InfluxDB's line protocol, tagged as k6 tags them.
fn points() -> String {
    let mut points = String::new();
    let last = now() as u64;
    for back in 0..REQUESTS {
        let (status, second) = (if back == 0 { 503 } else { 200 }, last - back);
        for (metric, good, bad) in METRICS {
            let tags = match metric {
                "checks" => r",check=is\ status\ 200".to_owned(),
                "vus" | "iterations" | "iteration_duration" => String::new(),
                _ => format!(",method=POST,name=chat,proto=HTTP/1.1,status={status}"),
            };
            let value = if back == 0 { bad } else { good };
            writeln!(
                points,
                "{metric},scenario=default,testid=chat{tags} value={value} {second}"
            )
            .unwrap();
        }
    }
    points
}
