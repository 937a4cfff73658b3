//! The commands of AMD's guide "Multi-node inference load balancing", as they stand there, and those of our own pages.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod checks;
mod commands;
mod docs;
#[path = "../process/gateway.rs"]
#[allow(dead_code, reason = "the tests of the process use all of it")]
mod gateway;
mod influx;
mod k6;
#[path = "../process/programs.rs"]
#[allow(dead_code, reason = "the tests of the process use all of it")]
mod programs;
mod run_by;
mod world;
