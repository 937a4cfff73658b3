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
mod keys;
mod listen;
mod models;
pub(crate) mod other_file;
pub(crate) mod parse;
mod pools;
mod reader;
mod reload;
mod schema;
mod section;
mod similar;
mod source;
mod tracing;
mod units;
mod unknown_key;
mod validate;
mod weak;

pub use check::{LookUp, look_up};
pub use diagnostic::{Diagnostic, Diagnostics, Severity};
pub use keys::check_key_name;
pub use reader::{Places, Remarks};
pub use reload::{changed_names, restart_needed};
pub use source::{from_command_line, load, parse_str};
pub use tracing::{OtlpUrl, Tracing};

pub(crate) use diagnostic::shown;
pub(crate) use endpoint_url::is_endpoint;
pub(crate) use environment::{escape, is_name as is_variable};
pub(crate) use expose::is_extra_path;
pub(crate) use similar::similar;
pub(crate) use units::{show_duration, show_size};

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

/// Reads a duration as the configuration writes it: `30s`.
///
/// # Errors
/// What is wrong with it, and how it is written.
pub fn duration(text: &str) -> Result<Duration, String> {
    units::duration(text).map_err(|fault| format!("{}; {}", fault.what, units::DURATION_FORM))
}

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
    /// At least one; exactly one where `models` is not configured.
    pub pools: Vec<Pool>,
    pub models: Models,
    /// Whom requests are taken from; `None` = from everybody. Never an empty list.
    pub keys: Option<Vec<Key>>,
    pub tracing: Tracing,
    /// Where the file has what, for messages; empty when there was no file. Any two are equal.
    pub places: Places,
    /// What reading it found worth a word and no mistake. Any two are equal.
    pub remarks: Remarks,
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
    /// Completions that one request may ask for.
    pub n: u64,
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
    /// What its endpoints run; `None` = each is asked.
    pub engine: Option<Engine>,
    pub endpoints: Vec<Endpoint>,
    pub policy: PolicyName,
    /// What its endpoints have that have no `max_in_flight` of their own.
    pub max_in_flight: Option<u32>,
    /// Where requests wait when all its endpoints are at theirs; `None` = nowhere.
    pub queue: Option<Queue>,
    /// Further tries per request, on other endpoints.
    pub retries: u32,
    pub retry_budget: RetryBudget,
    /// How long the streams of a draining endpoint may stay there; `None` = until they end.
    pub drain_timeout: Option<Duration>,
    /// So long without anything for the client of a stream that has not begun, and it gets a comment; `None` = never.
    pub heartbeat: Option<Duration>,
    pub continue_streams: ContinueStreams,
    pub tls: UpstreamTls,
    pub health: Health,
    pub timeouts: Timeouts,
}

/// What an endpoint runs: whose ways beyond OpenAI's API may be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    Vllm,
    Sglang,
    /// Anything else that speaks OpenAI's API.
    OpenAi,
}

impl Engine {
    /// As the configuration and `/endpoints` write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Vllm => "vllm",
            Self::Sglang => "sglang",
            Self::OpenAi => "openai",
        }
    }
}

/// What becomes of a stream whose endpoint fails after it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContinueStreams {
    /// It goes on elsewhere: by token ids where the engine gives them, else by text.
    ByIds,
    /// It goes on elsewhere by text; no engine is asked for token ids.
    ByText,
    /// It ends with an error.
    Never,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyName {
    LeastInflight,
    RoundRobin,
}

/// Where requests wait for an endpoint below its `max_in_flight`.
#[derive(Debug, Clone, PartialEq)]
pub struct Queue {
    /// Most that wait at a time.
    pub size: usize,
    /// Longest that one waits.
    pub timeout: Duration,
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
    /// Gets no new requests.
    pub drain: bool,
    /// Sent as `Authorization: Bearer` in place of the client's.
    pub api_key: Option<Secret>,
    /// What the engine calls the model, where it differs from what the others of its pool do.
    pub model: Option<Arc<str>>,
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
    /// So long without an event, while it holds requests, makes it one to be asked whether it hangs.
    pub stall: Duration,
}

/// Which model is served where. All of it empty: not configured, and every model goes to the only pool.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Models {
    /// As they stand in the file, without `"*"`.
    pub list: Vec<Model>,
    pub aliases: Vec<Alias>,
    /// `"*"`: where every other name goes. Its own name is `*`.
    pub wildcard: Option<Model>,
}

impl Models {
    pub fn is_configured(&self) -> bool {
        !(self.list.is_empty() && self.wildcard.is_none())
    }
}

/// One public name. No other model and no alias has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    pub name: Arc<str>,
    /// Index into [`Config::pools`].
    pub pool: usize,
    /// What the engines call it, where that differs from its name. An endpoint's own
    /// [`Endpoint::model`] comes before it.
    pub upstream_model: Option<Arc<str>>,
    /// Whether answers name it as the client did.
    pub rename_response: bool,
}

/// A second public name of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Alias {
    pub name: Arc<str>,
    /// Index into [`Models::list`].
    pub model: usize,
}

/// Who may send requests, and how many. The secret itself is not kept.
#[derive(Clone, PartialEq)]
pub struct Key {
    /// Unique; shown in logs and metrics.
    pub name: Arc<str>,
    /// SHA-256 of the secret (FIPS 180-4). No two keys have the same.
    pub hash: [u8; 32],
    pub models: KeyModels,
    pub requests_per_minute: Option<u64>,
    pub tokens_per_minute: Option<u64>,
    /// Requests at the same time.
    pub max_in_flight: Option<u32>,
    /// May do what changes the gateway's state.
    pub admin: bool,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A weak secret can be found from its hash.
        f.debug_struct("Key")
            .field("name", &self.name)
            .field("models", &self.models)
            .field("requests_per_minute", &self.requests_per_minute)
            .field("tokens_per_minute", &self.tokens_per_minute)
            .field("max_in_flight", &self.max_in_flight)
            .field("admin", &self.admin)
            .finish_non_exhaustive()
    }
}

/// The models that a key is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyModels {
    /// `"*"`: every model, and what names none.
    All,
    /// Names of models and aliases, in the order of the file, each once.
    Some(Vec<String>),
}

/// What a secret is shown as. None may begin so: what `-T` prints, and somebody saves, would be a file whose secrets
/// everybody knows.
const HIDDEN: &str = "***";
const OF_A_DUMP: &str = "is what -T prints in place of a secret";

/// A value that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(value: String) -> Self {
        Self(value)
    }

    /// One that can be sent in a header field (RFC 9110 section 5.5), as a bearer token.
    fn parse(text: &str) -> Result<Self, diagnostic::Fault> {
        let problem = if text.is_empty() {
            // Which "Authorization: Bearer" and no more would have.
            "is empty"
        } else if text.starts_with(HIDDEN) {
            OF_A_DUMP
        } else if !text.bytes().all(|b| b.is_ascii_graphic()) {
            "has a space, a line break or another character that cannot be sent in a header"
        } else {
            return Ok(Self::new(text.to_owned()));
        };
        Err(diagnostic::Fault::new(problem))
    }

    /// The value itself, for the one place that must send it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(HIDDEN)
    }
}

#[cfg(any(test, fuzzing))]
#[path = "../../tests/fuzz/src/promises.rs"]
pub mod promises;
#[cfg(test)]
mod tests;
