//! The gateway in this process, between raw clients and engines that misbehave on demand.
//!
//! Every test ends with [`support::Gateway::finish`], which insists that nothing is left in flight.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;
mod bodies;
mod connection;
mod headers;
mod response_headers;
mod choosing;
mod sse;
mod storm;
mod cuts;
mod moving;
mod moving_limits;
mod client_timeouts;
mod keepalive;
mod leaving;
mod upstream_timeouts;
