//! The gateway in this process, between raw clients and engines that misbehave on demand.
//!
//! Every test ends with [`support::Gateway::finish`], which insists that nothing is left in flight.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

mod access_log;
mod bodies;
mod called_away;
mod catalog;
mod choosing;
mod client_timeouts;
mod connection;
mod continuing;
mod continuing_or_not;
mod costs;
mod cuts;
mod drain;
mod draining;
mod expose;
mod headers;
mod health;
mod heartbeat;
mod hung;
mod keepalive;
mod keys;
mod leaving;
mod limits;
mod local_paths;
mod metrics;
mod models;
mod moving;
mod moving_limits;
mod pingora;
mod presence;
mod queueing;
mod reload;
mod response_headers;
mod responses;
mod sse;
mod storm;
mod suspects;
mod tracing;
mod upstream_timeouts;
mod usage;
mod websocket;
