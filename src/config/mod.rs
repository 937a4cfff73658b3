//! The configuration: what an operator may write, checked and with every default filled in.
//!
//! [`load`] reads a file into a [`Config`] or reports every mistake at once. Nothing here touches
//! the network but [`Config::check`], which does what `-t` does beyond reading the file.
//!
//! The way of a file: `parse` (YAML to a tree with positions), `reader` (a tree by the rules of
//! `schema`), `decode` and `pools` (sections to types), `validate` (rules between keys).

mod check;
mod decode;
mod diagnostic;
mod effective;
mod endpoint_url;
mod environment;
mod expose;
mod listen;
mod parse;
mod pools;
mod reader;
mod reload;
mod schema;
mod section;
mod source;
mod units;
mod unknown_key;
mod validate;

pub use check::{LookUp, look_up};
pub use diagnostic::{Diagnostic, Diagnostics, Severity};
pub use reader::Places;
pub use reload::restart_needed;
pub use source::{from_command_line, load, parse_str};

pub(crate) use endpoint_url::is_endpoint;
pub(crate) use environment::escape;
pub(crate) use expose::is_extra_path;
pub(crate) use units::{show_duration, show_size};

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

/// A whole configuration. Every field holds its effective value.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The file it came from; `None` when it came from the command line.
    pub file: Option<PathBuf>,
    /// Public listeners (nginx `listen`), at least one.
    pub listen: Vec<Listen>,
    /// Admin listeners; empty when switched off.
    pub admin: Vec<Listen>,
    /// Who may read `/stub_status`, `/metrics` and `/health`'s JSON on the public listeners.
    pub status_allow: Vec<IpNet>,
    /// Peers whose `X-Forwarded-*` are believed (nginx `set_real_ip_from`).
    pub trusted_proxies: Vec<IpNet>,
    /// Worker threads; `None` = one per CPU (nginx `worker_processes auto`).
    pub threads: Option<usize>,
    pub pid_file: Option<PathBuf>,
    /// How often host names are looked up again.
    pub resolve: Duration,
    /// How long TERM, QUIT and an upgrade let requests in flight finish.
    pub shutdown_grace: Duration,
    pub log: Log,
    /// `None` = no access log.
    pub access_log: Option<AccessLog>,
    pub expose: Expose,
    pub limits: Limits,
    pub client: ClientTimeouts,
    /// Idle upstream connections, per endpoint.
    pub keepalive: Keepalive,
    /// At least one; exactly one until `models` exists.
    pub pools: Vec<Pool>,
    /// Where the file has what, for messages; empty when there was no file. Any two are equal.
    pub places: Places,
}

/// One listening address.
#[derive(Debug, Clone, PartialEq)]
pub struct Listen {
    pub address: ListenAddress,
    pub tls: Option<ListenTls>,
    /// HTTP/2 by ALPN; only with `tls`.
    pub http2: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// PEM files; relative paths are already joined to the configuration file's directory.
#[derive(Debug, Clone, PartialEq)]
pub struct ListenTls {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    pub level: log::LevelFilter,
    pub format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Clone, PartialEq)]
pub struct AccessLog {
    /// `None` = standard output (`"-"`).
    pub path: Option<PathBuf>,
    pub format: AccessLogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessLogFormat {
    Json,
    Combined,
}

/// Which paths of the engines are reachable through the public listeners.
#[derive(Debug, Clone, PartialEq)]
pub enum Expose {
    /// Every path, as the guide's nginx.
    All,
    /// The inference paths, and these.
    Inference { extra: Vec<ExtraPath> },
}

/// `[METHOD ]/path`, exact, or a prefix when it ended in `/*`.
#[derive(Debug, Clone, PartialEq)]
pub struct ExtraPath {
    pub method: Option<String>,
    /// Without the trailing `*` of a prefix (so `/x/*` is stored as `/x/`).
    pub path: String,
    pub prefix: bool,
}

/// Sizes in bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    pub connections: usize,
    pub connections_per_client: Option<usize>,
    pub header: usize,
    pub body: usize,
    pub response_header: usize,
    pub answer: usize,
    pub event: usize,
    pub body_memory: usize,
}

/// nginx: `client_header_timeout`, `client_body_timeout`, `send_timeout`, `keepalive_timeout`.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientTimeouts {
    pub header_timeout: Duration,
    pub body_timeout: Duration,
    pub send_timeout: Duration,
    pub idle_timeout: Duration,
}

/// Upstream timeouts of a pool.
#[derive(Debug, Clone, PartialEq)]
pub struct Timeouts {
    pub connect: Duration,
    /// Until the first content event of an SSE answer, else until the head.
    pub first_byte: Duration,
    /// Between two content events of SSE, else between two reads.
    pub read: Duration,
    pub send: Duration,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Keepalive {
    pub idle: Duration,
    /// Idle connections kept per endpoint (nginx `keepalive`).
    pub connections: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    pub name: Arc<str>,
    pub endpoints: Vec<Endpoint>,
    pub policy: PolicyName,
    /// What its endpoints have that have no `max_in_flight` of their own.
    pub max_in_flight: Option<u32>,
    /// Further tries per request, on other endpoints.
    pub retries: u32,
    pub retry_budget: RetryBudget,
    pub tls: UpstreamTls,
    pub health: Health,
    pub timeouts: Timeouts,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyName {
    LeastInflight,
    RoundRobin,
}

#[derive(Debug, Clone, PartialEq)]
pub struct RetryBudget {
    /// Retries allowed per request, 0.2 = one in five.
    pub ratio: f64,
    pub min_per_second: u32,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Endpoint {
    pub url: Url,
    /// 1 to 1000; the share of load relative to its pool.
    pub weight: u32,
    /// The pool's `max_in_flight` where the endpoint has none; `None` = no cap.
    pub max_in_flight: Option<u32>,
    pub backup: bool,
    /// Sent as `Authorization: Bearer` in place of the client's.
    pub api_key: Option<Secret>,
}

/// Where an endpoint is. `Display` gives the normal form: `http://host:8000`, `unix:/path`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Url {
    Tcp {
        tls: bool,
        /// Lower case; a name, an IPv4 address, or an IPv6 address without brackets.
        host: String,
        port: u16,
    },
    Unix(PathBuf),
}

#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamTls {
    /// PEM of the authorities to trust in place of the system's.
    pub ca: Option<PathBuf>,
    pub verify: bool,
    /// SNI and the name the certificate must carry, in place of the endpoint's host.
    pub server_name: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Health {
    pub path: String,
    pub interval: Duration,
    pub timeout: Duration,
    pub fall: u32,
    pub rise: u32,
    pub eject_after: u32,
    pub eject_for: Duration,
}

/// A value that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(value: String) -> Self {
        Self(value)
    }

    /// The value itself, for the one place that must send it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

#[cfg(any(test, fuzzing))]
#[path = "../../tests/fuzz/src/promises.rs"]
pub mod promises;
#[cfg(test)]
mod tests;
