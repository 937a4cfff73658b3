//! What the gateway tells about itself: metrics, the access log, its own log.

pub mod access_log;
pub mod connections;
mod escape;
pub mod logging;
pub mod metrics;
mod seldom;
mod timestamp;
pub mod tracing;

pub use access_log::AccessLog;
pub use connections::ConnectionCounts;
pub use metrics::Metrics;
pub use seldom::Seldom;
pub use timestamp::rfc3339;
