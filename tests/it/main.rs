//! The gateway in this process, between raw clients and engines that misbehave on demand.
//!
//! Every test ends with [`support::Gateway::finish`], which insists that nothing is left in flight.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
#![allow(clippy::too_many_lines, reason = "tables of cases are long")]

mod bodies;
mod choosing;
mod client_timeouts;
mod connection;
mod cuts;
mod headers;
mod keepalive;
mod leaving;
mod moving;
mod moving_limits;
mod response_headers;
mod sse;
mod storm;
mod support;
mod upstream_timeouts;
