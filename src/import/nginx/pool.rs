//! An `upstream`, or the one address of a `proxy_pass`, as a pool.

use std::path::Path;
use std::time::Duration;

use crate::config::Config;
use crate::import::yaml::Yaml;

use super::choice::Choice;
use super::listen::absolute;
use super::notes::Notes;
use super::servers::{Server, alone, lighten, servers};
use super::settings::{LONGEST_HOUR, show_time};
use super::tree::quoted;
use super::value;

/// `health.eject_after` has no "never".
const NEVER: u64 = 1000;
/// nginx's own default.
const NGINX_QUEUE_TIMEOUT: Duration = Duration::from_secs(60);
/// Most that `queue.size` may be.
const MOST_QUEUED: u64 = 100_000;

/// The keys of the pool, and those for all pools that its upstream has.
pub(super) struct Pool {
    pub keys: Vec<(&'static str, Yaml)>,
    pub keepalive: Vec<(&'static str, Yaml)>,
}

pub(super) struct Surroundings<'a> {
    pub choice: &'a Choice<'a>,
    pub defaults: &'a Config,
    /// Where relative files begin.
    pub base: &'a Path,
    /// nginx counts for each of its workers where an upstream has no `zone`.
    pub many_workers: bool,
    /// Sent to every endpoint in place of the client's.
    pub api_key: Option<String>,
    pub retries: Option<u64>,
}

pub(super) fn pool(with: &Surroundings<'_>, notes: &mut Notes) -> Pool {
    let choice = with.choice;
    let mut servers = match choice.upstream {
        Some(upstream) => servers(upstream, notes),
        None => alone(choice, notes),
    };
    if servers.is_empty() {
        let at = choice.upstream.unwrap_or(choice.target.proxy_pass);
        notes.mistake(at, "has no server that is not down; write at least one");
    }
    lighten(&mut servers, notes);
    let has_zone = choice
        .upstream
        .is_some_and(|u| u.named("zone").next().is_some());
    let mut items = Vec::new();
    for server in &servers {
        if server.max_conns > 0 && with.many_workers && !has_zone {
            notes.differs(server.at, "max_conns without zone counts for each worker of nginx; max_in_flight counts for the gateway");
        }
        items.push(endpoint(server, with));
    }
    let mut keys = vec![("endpoints", Yaml::List(items))];
    if let Some(policy) = policy(choice, servers.len(), notes) {
        keys.push(("policy", Yaml::plain(policy)));
    }
    if let Some(queue) = queue(choice, &servers, with.defaults, notes) {
        keys.push(("queue", queue));
    }
    if let Some(retries) = with.retries {
        keys.push(("retries", Yaml::plain(&retries)));
    }
    if choice.target.tls {
        let tls = tls(choice, with.base, notes);
        if !tls.is_empty() {
            keys.push(("tls", Yaml::Map(tls)));
        }
    }
    let health = health(&servers, with.defaults, notes);
    if !health.is_empty() {
        keys.push(("health", Yaml::Map(health)));
    }
    Pool {
        keys,
        keepalive: keepalive(choice, with.defaults, notes),
    }
}

fn endpoint(server: &Server<'_>, with: &Surroundings<'_>) -> Yaml {
    let scheme = if with.choice.target.tls && !server.url.starts_with("unix:") {
        "https://"
    } else {
        ""
    };
    let url = Yaml::text(&format!("{scheme}{}", server.url));
    let mut keys = vec![("url", url.clone())];
    if server.weight != 1 {
        keys.push(("weight", Yaml::plain(&server.weight)));
    }
    if server.max_conns > 0 {
        keys.push((
            "max_in_flight",
            Yaml::plain(&server.max_conns.min(1_000_000)),
        ));
    }
    if server.backup {
        keys.push(("backup", Yaml::plain(&true)));
    }
    if let Some(key) = &with.api_key {
        keys.push(("api_key", Yaml::text(key)));
    }
    match keys.len() {
        1 => url,
        _ => Yaml::Map(keys),
    }
}

/// What chooses an endpoint; `None` is the default, fewest requests in flight.
fn policy(choice: &Choice<'_>, servers: usize, notes: &mut Notes) -> Option<&'static str> {
    let upstream = choice.upstream?;
    let mut policy = (servers > 1).then_some("round_robin");
    for method in upstream.children() {
        let why = match method.name.as_str() {
            "least_conn" => {
                policy = None;
                continue;
            }
            "random" if method.args.is_empty() => {
                "a random choice: fewest requests in flight are better informed (policy: least_inflight)"
            }
            "random" => {
                "two at random: the fewest requests in flight of all are taken, ties at random (policy: least_inflight)"
            }
            "ip_hash" | "hash" | "sticky" => {
                "a client is not sent to the same engine each time; the one with the fewest requests in flight is taken (policy: least_inflight)"
            }
            "least_time" => {
                "the engine with the fewest requests in flight is taken, whatever its speed (policy: least_inflight)"
            }
            _ => continue,
        };
        notes.not_carried(method, why);
        policy = None;
    }
    policy
}

/// Where requests wait while every server is at its `max_conns`; without the directive nginx fails them.
fn queue(
    choice: &Choice<'_>,
    servers: &[Server<'_>],
    defaults: &Config,
    notes: &mut Notes,
) -> Option<Yaml> {
    let Some(directive) = choice.upstream.and_then(|u| u.named("queue").last()) else {
        let has_cap = servers.iter().any(|server| server.max_conns > 0);
        return has_cap.then(|| Yaml::plain("null"));
    };
    let size = value::count(directive.arg(0)).filter(|size| *size > 0);
    let time = match directive.arg(1) {
        "" => Some(NGINX_QUEUE_TIMEOUT),
        timeout => timeout.strip_prefix("timeout=").and_then(value::time),
    };
    let (Some(size), Some(time)) = (size, time) else {
        notes.mistake(directive, "cannot be read; write queue 100 timeout=60s");
        return None;
    };
    let default = defaults.pools[0].queue.as_ref();
    let mut keys = Vec::new();
    let size = size.min(MOST_QUEUED);
    if default.is_none_or(|queue| queue.size as u64 != size) {
        keys.push(("size", Yaml::plain(&size)));
    }
    let time = time.clamp(Duration::from_millis(1), LONGEST_HOUR);
    if default.is_none_or(|queue| queue.timeout != time) {
        keys.push(("timeout", Yaml::plain(&show_time(time))));
    }
    (!keys.is_empty()).then_some(Yaml::Map(keys))
}

/// How the engines' certificates are judged.
fn tls(choice: &Choice<'_>, base: &Path, notes: &mut Notes) -> Vec<(&'static str, Yaml)> {
    let mut keys = Vec::new();
    let verify = choice.setting("proxy_ssl_verify", notes);
    if verify.is_none_or(|d| d.arg(0) != "on") {
        keys.push(("verify", Yaml::plain("false")));
    }
    if let Some(ca) = choice.setting("proxy_ssl_trusted_certificate", notes) {
        keys.push(("ca", Yaml::text(&absolute(base, ca.arg(0)))));
    }
    match choice.setting("proxy_ssl_name", notes) {
        Some(name) if name.arg(0).contains('$') => {
            notes.not_carried(
                name,
                "the name is in a variable; write it into pools.default.tls.server_name",
            );
        }
        Some(name) => keys.push(("server_name", Yaml::text(name.arg(0)))),
        // nginx asks for the name in the proxy_pass.
        None if choice.upstream.is_some() => {
            keys.push(("server_name", Yaml::text(&choice.target.authority)));
        }
        None => {}
    }
    keys
}

/// What nginx has for each server, and the pool for all.
fn health(
    servers: &[Server<'_>],
    defaults: &Config,
    notes: &mut Notes,
) -> Vec<(&'static str, Yaml)> {
    let default = &defaults.pools[0].health;
    let mut keys = Vec::new();
    let fails: Vec<_> = servers
        .iter()
        .filter_map(|s| Some((s.at, s.max_fails?)))
        .collect();
    if let Some(most) = fails.iter().map(|(_, n)| *n).max() {
        // None is never.
        let never = fails.iter().any(|(_, n)| *n == 0);
        let most = if never { NEVER } else { most.min(NEVER) };
        for (at, own) in &fails {
            if *own == 0 {
                notes.differs(at, format!("max_fails=0 is eject_after: {NEVER}; failed probes and refused connections still take it out"));
            } else if *own != most {
                notes.differs(
                    at,
                    format!("max_fails={own}: health.eject_after is {most}, for every endpoint"),
                );
            }
        }
        if most != u64::from(default.eject_after) {
            keys.push(("eject_after", Yaml::plain(&most)));
        }
    }
    let times: Vec<_> = servers
        .iter()
        .filter_map(|s| Some((s.at, s.fail_timeout?)))
        .collect();
    if let Some(longest) = times.iter().map(|(_, t)| *t).max() {
        let time = longest.clamp(Duration::from_millis(1), LONGEST_HOUR);
        for (at, own) in &times {
            if *own != time {
                notes.differs(
                    at,
                    format!(
                        "fail_timeout={}: health.eject_for is {}, for every endpoint, and grows",
                        show_time(*own),
                        show_time(time)
                    ),
                );
            }
        }
        if time != default.eject_for {
            keys.push(("eject_for", Yaml::plain(&show_time(time))));
        }
    }
    keys
}

/// Idle connections towards the engines.
fn keepalive(
    choice: &Choice<'_>,
    defaults: &Config,
    notes: &mut Notes,
) -> Vec<(&'static str, Yaml)> {
    let mut keys = Vec::new();
    let Some(upstream) = choice.upstream else {
        return keys;
    };
    let default = &defaults.keepalive;
    if let Some(idle) = upstream.named("keepalive_timeout").last() {
        match value::time(idle.arg(0)) {
            None => notes.mistake(idle, format!("{} is no time; write 60s", quoted(idle.arg(0)))),
            Some(time) if time.is_zero() || time > default.idle => notes.differs(idle, format!(
                "idle connections are closed after {} (keepalive.idle): engines close theirs after 5s",
                show_time(default.idle)
            )),
            Some(time) if time < default.idle => {
                keys.push(("idle", Yaml::plain(&show_time(time))));
            }
            Some(_) => {}
        }
    }
    if let Some(connections) = upstream.named("keepalive").last() {
        match value::count(connections.arg(0)) {
            None => {
                let what = format!(
                    "{} is no number; write keepalive 32",
                    quoted(connections.arg(0))
                );
                notes.mistake(connections, what);
            }
            Some(number) => {
                let kept = (default.connections as u64).max(number.min(65_536));
                notes.differs(connections, format!(
                    "each endpoint has {kept} idle connections at most (keepalive.connections), nginx as many in each worker for the upstream as a whole"
                ));
                if kept != default.connections as u64 {
                    keys.push(("connections", Yaml::plain(&kept)));
                }
            }
        }
    }
    keys
}
