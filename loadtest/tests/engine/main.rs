//! The engine's faults, deaths, gates, counters and APIs, seen by a raw client.

#![allow(clippy::unwrap_used, reason = "a test may fail by a panic")]

mod answers;
mod client;
mod faults;
mod messages;
mod numbers;
mod pace;
mod responses;
