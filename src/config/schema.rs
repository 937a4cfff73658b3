//! Every key there is, what it holds, and its default. The only place a default is written.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Duration;

use super::parse::{self, Node};

#[derive(Clone, Copy)]
pub(super) struct Key {
    /// As `pools.*.endpoints[].url`: `*` is a name of the operator's, `[]` an item of a list.
    pub path: &'static str,
    pub kind: Kind,
    /// As it would be written in the file; `None` where the key must be given, or follows from
    /// its neighbours.
    pub default: Option<&'static str>,
    pub nullable: bool,
}

#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// A mapping of the keys beneath it.
    Section,
    /// A mapping that may change some of the keys of another section for a pool.
    Overrides(&'static str),
    /// What has a form of its own.
    Value,
    /// Like `Value`, and never shown.
    Secret,
    /// Bounds are included.
    Duration(Duration, Duration),
    /// Bounds in bytes, included.
    Size(u64, u64),
    /// Bounds are included.
    Count(u64, u64),
    /// From 0 to this.
    Ratio(f64),
}

use Kind::{Count, Overrides, Ratio, Secret, Section, Size, Value};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Long enough for any engine, short enough to tell a slip of the keyboard.
const DAY: Duration = Duration::from_secs(24 * 3600);
const HOUR: Duration = Duration::from_secs(3600);

const fn key(path: &'static str, kind: Kind, default: &'static str) -> Key {
    Key {
        path,
        kind,
        default: Some(default),
        nullable: false,
    }
}

/// A key that has no default.
const fn given(path: &'static str, kind: Kind) -> Key {
    Key {
        path,
        kind,
        default: None,
        nullable: false,
    }
}

const fn or_null(key: Key) -> Key {
    Key {
        nullable: true,
        ..key
    }
}

/// A duration of at least a millisecond.
const fn time(path: &'static str, longest: Duration, default: &'static str) -> Key {
    key(
        path,
        Kind::Duration(Duration::from_millis(1), longest),
        default,
    )
}

pub(super) static KEYS: &[Key] = &[
    key("listen", Value, "80"),
    given("listen[].address", Value),
    or_null(key("listen[].tls", Section, "null")),
    given("listen[].tls.certificate", Value),
    given("listen[].tls.key", Value),
    // True with tls, false without.
    given("listen[].http2", Value),
    or_null(key(
        "admin",
        Value,
        "[127.0.0.1:9180, unix:/run/sluicegate/admin.sock]",
    )),
    key("status_allow", Value, "[127.0.0.0/8, \"::1\"]"),
    key("trusted_proxies", Value, "[]"),
    key("threads", Count(1, 1024), "auto"),
    or_null(key("pid_file", Value, "/run/sluicegate/sluicegate.pid")),
    time("resolve", HOUR, "30s"),
    key(
        "shutdown_grace",
        Kind::Duration(Duration::ZERO, DAY),
        "300s",
    ),
    key("log", Section, "{}"),
    key("log.level", Value, "info"),
    key("log.format", Value, "text"),
    or_null(key("access_log", Section, "{}")),
    key("access_log.path", Value, "\"-\""),
    key("access_log.format", Value, "json"),
    key("expose", Value, "inference"),
    key("limits", Section, "{}"),
    key("limits.connections", Count(1, 10_000_000), "65535"),
    or_null(key(
        "limits.connections_per_client",
        Count(1, 10_000_000),
        "null",
    )),
    key("limits.header", Size(KIB, MIB), "64KiB"),
    key("limits.body", Size(KIB, 64 * GIB), "64MiB"),
    key("limits.response_header", Size(KIB, MIB), "64KiB"),
    key("limits.answer", Size(0, GIB), "1MiB"),
    key("limits.event", Size(4 * KIB, GIB), "4MiB"),
    key("limits.body_memory", Size(MIB, 1024 * GIB), "1GiB"),
    key("limits.n", Count(1, 1_000_000), "16"),
    key("client", Section, "{}"),
    time("client.header_timeout", HOUR, "60s"),
    time("client.body_timeout", HOUR, "60s"),
    time("client.send_timeout", HOUR, "60s"),
    time("client.idle_timeout", DAY, "65s"),
    key("timeouts", Section, "{}"),
    time("timeouts.connect", HOUR, "5s"),
    time("timeouts.first_byte", DAY, "300s"),
    time("timeouts.read", DAY, "300s"),
    time("timeouts.send", DAY, "60s"),
    key("keepalive", Section, "{}"),
    time("keepalive.idle", HOUR, "4s"),
    key("keepalive.connections", Count(0, 65536), "256"),
    // Short for a pool named default, which may be given in its place.
    given("endpoints", Value),
    given("pools", Section),
    given("pools.*", Section),
    given("pools.*.endpoints", Value),
    given("pools.*.endpoints[].url", Value),
    key("pools.*.endpoints[].weight", Count(1, 1000), "1"),
    or_null(key(
        "pools.*.endpoints[].max_in_flight",
        Count(1, 1_000_000),
        "null",
    )),
    key("pools.*.endpoints[].backup", Value, "false"),
    key("pools.*.endpoints[].drain", Value, "false"),
    or_null(key("pools.*.endpoints[].api_key", Secret, "null")),
    or_null(key("pools.*.endpoints[].model", Value, "null")),
    key("pools.*.engine", Value, "auto"),
    key("pools.*.policy", Value, "least_inflight"),
    or_null(key("pools.*.max_in_flight", Count(1, 1_000_000), "null")),
    or_null(key("pools.*.queue", Section, "{}")),
    key("pools.*.queue.size", Count(1, 100_000), "1024"),
    time("pools.*.queue.timeout", HOUR, "60s"),
    key("pools.*.retries", Count(0, 10), "3"),
    key("pools.*.retry_budget", Section, "{}"),
    key("pools.*.retry_budget.ratio", Ratio(10.0), "0.2"),
    key(
        "pools.*.retry_budget.min_per_second",
        Count(0, 100_000),
        "10",
    ),
    or_null(key(
        "pools.*.drain_timeout",
        Kind::Duration(Duration::ZERO, DAY),
        "null",
    )),
    or_null(time("pools.*.heartbeat", HOUR, "null")),
    key("pools.*.continue_streams", Value, "true"),
    key("pools.*.tls", Section, "{}"),
    or_null(key("pools.*.tls.ca", Value, "null")),
    key("pools.*.tls.verify", Value, "true"),
    or_null(key("pools.*.tls.server_name", Value, "null")),
    key("pools.*.health", Section, "{}"),
    key("pools.*.health.path", Value, "/health"),
    time("pools.*.health.interval", HOUR, "5s"),
    time("pools.*.health.timeout", HOUR, "2s"),
    key("pools.*.health.fall", Count(1, 100), "3"),
    key("pools.*.health.rise", Count(1, 100), "2"),
    key("pools.*.health.eject_after", Count(1, 1000), "3"),
    time("pools.*.health.eject_for", HOUR, "10s"),
    time("pools.*.health.stall", HOUR, "30s"),
    key("pools.*.timeouts", Overrides("timeouts"), "{}"),
    // Without it every model goes to the only pool.
    given("models", Section),
    given("models.*", Section),
    // The only one, where there is but one.
    given("models.*.pool", Value),
    or_null(key("models.*.upstream_model", Value, "null")),
    key("models.*.rename_response", Value, "false"),
    // Without it nobody needs a key.
    given("keys", Value),
    given("keys.file", Value),
    given("keys[].name", Value),
    // One of these two.
    given("keys[].key", Secret),
    given("keys[].sha256", Secret),
    key("keys[].models", Value, "[\"*\"]"),
    or_null(key(
        "keys[].requests_per_minute",
        Count(1, 1_000_000_000),
        "null",
    )),
    or_null(key(
        "keys[].tokens_per_minute",
        Count(1, 1_000_000_000_000),
        "null",
    )),
    or_null(key("keys[].max_in_flight", Count(1, 1_000_000), "null")),
    key("keys[].admin", Value, "false"),
    key("tracing", Section, "{}"),
    or_null(key("tracing.otlp", Value, "null")),
    key("tracing.sample", Ratio(1.0), "0.01"),
];

/// Addresses of `listen`, and of `admin`. They are compared with each other.
pub(super) const MOST_LISTENERS: usize = 256;
pub(super) const MOST_POOLS: usize = 256;
/// Of one pool.
pub(super) const MOST_ENDPOINTS: usize = 4096;
/// Models and aliases.
pub(super) const MOST_MODELS: usize = 10_000;
pub(super) const MOST_KEYS: usize = 10_000;

/// Keys of versions to come: written today they get this answer, not a guess at what was meant.
pub(super) static LATER: &[&str] = &["keys[].priority", "keys[].weight"];

/// What nginx and LiteLLM call it, and where it is here.
pub(super) static HABITS: &[(&str, &str)] = &[
    ("api_keys", "keys"),
    ("callbacks", "tracing"),
    ("client_body_timeout", "client.body_timeout"),
    ("client_header_timeout", "client.header_timeout"),
    ("client_max_body_size", "limits.body"),
    ("error_log", "log"),
    ("fail_timeout", "health.eject_for"),
    ("keepalive_timeout", "client.idle_timeout"),
    ("large_client_header_buffers", "limits.header"),
    ("max_conns", "max_in_flight of an endpoint"),
    ("master_key", "keys"),
    ("max_fails", "health.eject_after"),
    ("max_parallel_requests", "max_in_flight of a key"),
    ("model_group_alias", "models"),
    ("model_list", "models"),
    ("num_retries", "retries"),
    ("otel_exporter", "tracing"),
    ("pid", "pid_file"),
    ("proxy_connect_timeout", "timeouts.connect"),
    (
        "proxy_read_timeout",
        "timeouts.read and timeouts.first_byte",
    ),
    ("proxy_send_timeout", "timeouts.send"),
    ("routing_strategy", "policy"),
    ("rpm", "requests_per_minute of a key"),
    ("send_timeout", "client.send_timeout"),
    ("server", "endpoints"),
    ("servers", "endpoints"),
    ("set_real_ip_from", "trusted_proxies"),
    ("success_callback", "tracing"),
    ("tpm", "tokens_per_minute of a key"),
    ("upstream", "pools"),
    ("upstreams", "pools"),
    ("worker_connections", "limits.connections"),
    ("worker_processes", "threads"),
    ("workers", "threads"),
];

/// The key at `section.name`; the whole file is the section "".
pub(super) fn find(section: &str, name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| split(key.path) == (section, name))
}

/// The names of a section's keys.
pub(super) fn names(section: &str) -> impl Iterator<Item = &'static str> {
    KEYS.iter().filter_map(move |key| {
        let (within, name) = split(key.path);
        (within == section && name != "*").then_some(name)
    })
}

pub(super) fn is_later(section: &str, name: &str) -> bool {
    LATER.iter().any(|path| split(path) == (section, name))
}

/// A path as the section and the name within it.
pub(super) fn split(path: &'static str) -> (&'static str, &'static str) {
    path.rsplit_once('.').unwrap_or(("", path))
}

/// A key's default as if it had been read from the file.
pub(super) fn default_node(key: &'static Key) -> Option<&'static Node> {
    static NODES: LazyLock<HashMap<&'static str, Node>> = LazyLock::new(|| {
        KEYS.iter()
            .filter_map(|key| Some((key.path, parse::tree(key.default?).ok()?.0)))
            .collect()
    });
    NODES.get(key.path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_is_listed_twice_and_every_section_is_listed() {
        let mut seen = std::collections::HashSet::new();
        for key in KEYS {
            assert!(seen.insert(key.path), "{}", key.path);
        }
        for key in KEYS {
            let mut section = split(key.path).0;
            while !section.is_empty() && !section.ends_with("[]") {
                assert!(seen.contains(section), "{section}");
                section = split(section).0;
            }
        }
        for path in LATER {
            assert!(!seen.contains(path), "{path} exists now");
        }
    }

    #[test]
    fn every_default_is_valid_yaml() {
        for key in KEYS {
            assert_eq!(
                key.default.is_some(),
                default_node(key).is_some(),
                "{}",
                key.path
            );
        }
    }

    #[test]
    fn a_person_can_still_learn_all_keys() {
        let holds_a_value = |key: &&Key| !matches!(key.kind, Section | Overrides(_));
        let keys = KEYS.iter().filter(holds_a_value).count();
        assert!(keys <= 90, "{keys} keys");
    }
}
