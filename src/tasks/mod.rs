//! What runs beside the requests.

pub mod catalog;
pub mod per_endpoint;
pub mod prober;
pub mod request;
pub mod resolver;
pub mod series;
pub mod supervisor;
pub mod sweeper;
