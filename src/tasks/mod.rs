//! What runs beside the requests.

pub mod prober;
pub mod resolver;
pub mod series;
pub mod supervisor;
pub mod sweeper;
