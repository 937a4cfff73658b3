//! The whole configuration as text, for `-T`: every key with the value that is in force.

use std::fmt::{Display, Write};

use super::environment;
use super::section::Named;
use super::units::{show_duration, show_size};
use super::{Config, Endpoint, Expose, HIDDEN, KeyModels, Listen, Pool};

impl Config {
    /// The effective configuration as YAML that reads back as the same once its secrets are filled in: they are `***`,
    /// which is refused. What came from the environment is filled in.
    pub fn to_yaml(&self) -> String {
        let mut yaml = Yaml::default();
        self.listeners(&mut yaml);
        yaml.list("status_allow", self.status_allow.iter().map(text));
        yaml.list("trusted_proxies", self.trusted_proxies.iter().map(text));
        yaml.key(0, "threads", self.threads.map_or("auto".into(), number));
        let pid_file = self.pid_file.as_ref().map(|path| text(path.display()));
        yaml.key(0, "pid_file", or_null(pid_file));
        yaml.key(0, "resolve", show_duration(&self.resolve));
        yaml.key(0, "shutdown_grace", show_duration(&self.shutdown_grace));
        yaml.section(0, "log");
        yaml.key(1, "level", name(self.log.level));
        yaml.key(1, "format", name(self.log.format));
        match &self.access_log {
            None => yaml.key(0, "access_log", "null"),
            Some(log) => {
                let path = log.path.as_ref().map(|path| text(path.display()));
                yaml.section(0, "access_log");
                yaml.key(1, "path", path.unwrap_or_else(|| text("-")));
                yaml.key(1, "format", name(log.format));
            }
        }
        match &self.expose {
            Expose::All => yaml.key(0, "expose", "all"),
            Expose::Inference { extra } if extra.is_empty() => yaml.key(0, "expose", "inference"),
            Expose::Inference { extra } => yaml.list("expose", extra.iter().map(text)),
        }
        self.sections(&mut yaml);
        yaml.section(0, "pools");
        for pool in &self.pools {
            one_pool(&mut yaml, pool);
        }
        self.models(&mut yaml);
        self.keys(&mut yaml);
        let tracing = &self.tracing;
        yaml.section(0, "tracing");
        yaml.key(1, "otlp", or_null(tracing.otlp.as_ref().map(text)));
        yaml.key(1, "sample", tracing.sample);
        yaml.0
    }

    fn listeners(&self, yaml: &mut Yaml) {
        yaml.section(0, "listen");
        for Listen {
            address,
            tls,
            http2,
        } in &self.listen
        {
            yaml.line(1, format_args!("- address: {}", text(address)));
            match tls {
                None => yaml.key(2, "tls", "null"),
                Some(tls) => {
                    yaml.section(2, "tls");
                    yaml.key(3, "certificate", text(tls.certificate.display()));
                    yaml.key(3, "key", text(tls.key.display()));
                }
            }
            yaml.key(2, "http2", http2);
        }
        if self.admin.is_empty() {
            yaml.key(0, "admin", "null");
        } else {
            yaml.list("admin", self.admin.iter().map(|l| text(&l.address)));
        }
    }

    fn sections(&self, yaml: &mut Yaml) {
        let limits = &self.limits;
        yaml.section(0, "limits");
        yaml.key(1, "connections", limits.connections);
        let per_client = limits.connections_per_client.map(number);
        yaml.key(1, "connections_per_client", or_null(per_client));
        for (key, bytes) in [
            ("header", limits.header),
            ("body", limits.body),
            ("response_header", limits.response_header),
            ("answer", limits.answer),
            ("event", limits.event),
            ("body_memory", limits.body_memory),
        ] {
            yaml.key(1, key, show_size(bytes as u64));
        }
        yaml.key(1, "n", limits.n);
        let client = &self.client;
        yaml.section(0, "client");
        for (key, duration) in [
            ("header_timeout", client.header_timeout),
            ("body_timeout", client.body_timeout),
            ("send_timeout", client.send_timeout),
            ("idle_timeout", client.idle_timeout),
        ] {
            yaml.key(1, key, show_duration(&duration));
        }
        // Each pool below has its own, which may be those of this section.
        yaml.section(0, "keepalive");
        yaml.key(1, "idle", show_duration(&self.keepalive.idle));
        yaml.key(1, "connections", self.keepalive.connections);
    }

    fn models(&self, yaml: &mut Yaml) {
        let models = &self.models;
        if !models.is_configured() {
            return;
        }
        yaml.section(0, "models");
        for model in models.list.iter().chain(&models.wildcard) {
            yaml.section(1, &in_quotes(&model.name));
            let pool = self.pools.get(model.pool).map(|pool| text(&pool.name));
            yaml.key(2, "pool", or_null(pool));
            let upstream = model.upstream_model.as_ref().map(text);
            yaml.key(2, "upstream_model", or_null(upstream));
            yaml.key(2, "rename_response", model.rename_response);
        }
        for alias in &models.aliases {
            let target = models.list.get(alias.model).map(|model| text(&model.name));
            yaml.key(1, &in_quotes(&alias.name), or_null(target));
        }
    }

    fn keys(&self, yaml: &mut Yaml) {
        let Some(keys) = &self.keys else {
            return;
        };
        yaml.section(0, "keys");
        for (i, key) in keys.iter().enumerate() {
            yaml.line(1, format_args!("- name: {}", text(&key.name)));
            // A weak secret can be found from its hash. No two keys may have the same.
            yaml.key(2, "key", text(format_args!("{HIDDEN}{i}")));
            let models: Vec<String> = match &key.models {
                KeyModels::All => vec![text("*")],
                KeyModels::Some(names) => names.iter().map(text).collect(),
            };
            yaml.key(2, "models", format_args!("[{}]", models.join(", ")));
            let limit = |limit: Option<u64>| or_null(limit.map(number));
            yaml.key(2, "requests_per_minute", limit(key.requests_per_minute));
            yaml.key(2, "tokens_per_minute", limit(key.tokens_per_minute));
            yaml.key(2, "max_in_flight", or_null(key.max_in_flight.map(number)));
            yaml.key(2, "admin", key.admin);
        }
    }
}

fn one_pool(yaml: &mut Yaml, pool: &Pool) {
    yaml.section(1, &pool.name);
    yaml.key(2, "engine", name(pool.engine));
    yaml.section(2, "endpoints");
    for endpoint in &pool.endpoints {
        one_endpoint(yaml, endpoint);
    }
    yaml.key(2, "policy", name(pool.policy));
    yaml.key(2, "max_in_flight", or_null(pool.max_in_flight.map(number)));
    match &pool.queue {
        None => yaml.key(2, "queue", "null"),
        Some(queue) => {
            yaml.section(2, "queue");
            yaml.key(3, "size", queue.size);
            yaml.key(3, "timeout", show_duration(&queue.timeout));
        }
    }
    yaml.key(2, "retries", pool.retries);
    yaml.section(2, "retry_budget");
    yaml.key(3, "ratio", pool.retry_budget.ratio);
    yaml.key(3, "min_per_second", pool.retry_budget.min_per_second);
    let drain_timeout = pool.drain_timeout.as_ref().map(show_duration);
    yaml.key(2, "drain_timeout", or_null(drain_timeout));
    let heartbeat = pool.heartbeat.as_ref().map(show_duration);
    yaml.key(2, "heartbeat", or_null(heartbeat));
    yaml.key(2, "continue_streams", name(pool.continue_streams));
    let tls = &pool.tls;
    yaml.section(2, "tls");
    yaml.key(
        3,
        "ca",
        or_null(tls.ca.as_ref().map(|path| text(path.display()))),
    );
    yaml.key(3, "verify", tls.verify);
    yaml.key(
        3,
        "server_name",
        or_null(tls.server_name.as_ref().map(text)),
    );
    let health = &pool.health;
    yaml.section(2, "health");
    yaml.key(3, "path", text(&health.path));
    yaml.key(3, "interval", show_duration(&health.interval));
    yaml.key(3, "timeout", show_duration(&health.timeout));
    yaml.key(3, "fall", health.fall);
    yaml.key(3, "rise", health.rise);
    yaml.key(3, "eject_after", health.eject_after);
    yaml.key(3, "eject_for", show_duration(&health.eject_for));
    yaml.key(3, "stall", show_duration(&health.stall));
    let timeouts = &pool.timeouts;
    yaml.section(2, "timeouts");
    for (key, duration) in [
        ("connect", timeouts.connect),
        ("first_byte", timeouts.first_byte),
        ("read", timeouts.read),
        ("send", timeouts.send),
    ] {
        yaml.key(3, key, show_duration(&duration));
    }
}

fn one_endpoint(yaml: &mut Yaml, endpoint: &Endpoint) {
    yaml.line(3, format_args!("- url: {}", text(&endpoint.url)));
    yaml.key(4, "weight", endpoint.weight);
    yaml.key(
        4,
        "max_in_flight",
        or_null(endpoint.max_in_flight.map(number)),
    );
    yaml.key(4, "backup", endpoint.backup);
    yaml.key(4, "drain", endpoint.drain);
    let api_key = endpoint.api_key.as_ref().map(|_| text(HIDDEN));
    yaml.key(4, "api_key", or_null(api_key));
    yaml.key(4, "model", or_null(endpoint.model.as_ref().map(text)));
}

#[derive(Default)]
struct Yaml(String);

impl Yaml {
    fn line(&mut self, depth: usize, content: impl Display) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{:depth$}{content}", "", depth = depth * 2);
    }

    fn key(&mut self, depth: usize, key: &str, value: impl Display) {
        self.line(depth, format_args!("{key}: {value}"));
    }

    fn section(&mut self, depth: usize, key: &str) {
        self.line(depth, format_args!("{key}:"));
    }

    fn list(&mut self, key: &str, items: impl Iterator<Item = String>) {
        let items: Vec<String> = items.collect();
        self.key(0, key, format_args!("[{}]", items.join(", ")));
    }
}

fn or_null(value: Option<String>) -> String {
    value.unwrap_or_else(|| "null".into())
}

fn number<T: Display>(n: T) -> String {
    n.to_string()
}

fn name<T: Named + PartialEq>(value: T) -> &'static str {
    T::NAMES
        .iter()
        .find_map(|(name, known)| (*known == value).then_some(*name))
        .unwrap_or_default()
}

/// In double quotes, with YAML's escapes, and the environment kept out.
fn text(value: impl Display) -> String {
    in_quotes(&environment::escape(&value.to_string()))
}

/// In double quotes, with YAML's escapes. A mapping's keys are not looked at for variables.
fn in_quotes(value: &str) -> String {
    let mut quoted = String::with_capacity(value.len() + 2);
    quoted.push('"');
    for c in value.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            ' '..='~' => quoted.push(c),
            c if c.is_alphanumeric() => quoted.push(c),
            c => {
                let _ = write!(quoted, "\\U{:08x}", u32::from(c));
            }
        }
    }
    quoted.push('"');
    quoted
}
