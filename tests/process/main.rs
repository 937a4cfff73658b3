//! The program itself, as a process: bad input byte by byte, signals, the command line, real clients.
//!
//! The tables have one row a line, whatever its length: that is how they are read.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::too_many_lines, reason = "a table is as long as it is")]

mod bad_engines;
mod bad_http2;
mod bad_requests;
mod certificates;
mod command_line;
mod demo;
mod from_litellm;
mod from_nginx;
mod gateway;
mod high_availability;
mod hung;
mod network;
mod programs;
mod real_clients;
mod recorder;
mod reload_storm;
mod signals;
mod slow_clients;
mod starved;
mod survive;
mod systemd;
mod upgrade;
mod wire;
