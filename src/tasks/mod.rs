//! What runs beside the requests.

pub mod canary;
pub mod catalog;
pub mod drainer;
pub mod hung;
pub mod per_endpoint;
pub mod pid_file;
pub mod presence;
pub mod prober;
pub mod request;
pub mod resolver;
pub mod scraper;
pub mod series;
pub mod signals;
pub mod supervisor;
pub mod sweeper;
pub mod systemd;
pub mod upgrade;
pub mod watchdog;
