//! Simulated inference engines, and load for trying and measuring gateways in front of them.
//!
//! - [`engine`]: an engine that answers as vLLM does, in this process or as `loadtest engine`.
//! - [`load`]: a load generator on hyper, with honest latencies, as `loadtest load`.
//! - [`compare`]: several gateways against the same engines and the same plan, as `loadtest compare`; and against
//!   what they were in an earlier one.
//! - [`survive`]: what clients notice while engines die, hang and come back, as `loadtest survive`.
//! - [`html`]: what came of either, as a page.
//!
//! The crate knows neither the gateway it measures nor the proxy library that one is built on.

#[cfg(feature = "load")]
pub mod compare;
pub mod engine;
#[cfg(feature = "load")]
pub mod html;
#[cfg(feature = "load")]
pub mod load;
#[cfg(feature = "load")]
pub mod survive;
