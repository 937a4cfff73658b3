//! conf/monitoring: the files, and every expression in them against a real Prometheus that scrapes a real gateway,
//! simulated engines, text as AMD's and NVIDIA's exporters write it and a real node exporter.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::too_many_lines, reason = "a story has as many steps as it has")]

mod bridge;
mod cluster;
mod compared;
mod dashboards;
mod files;
#[path = "../process/gateway.rs"]
#[allow(dead_code, reason = "shared with tests that use all of it")]
mod gateway;
mod http;
#[path = "../guide/influx.rs"]
mod influx;
mod live;
mod load_tests;
#[path = "../process/programs.rs"]
#[allow(dead_code, reason = "shared with tests that use all of it")]
mod programs;
mod prometheus;
