//! The servers of an `upstream`, with their parameters.

use std::collections::HashMap;
use std::time::Duration;

use crate::config::is_endpoint;

use super::choice::Choice;
use super::notes::Notes;
use super::tree::{Directive, quoted};
use super::value;

/// Servers of an upstream.
const MOST_SERVERS: usize = 5000;
/// Weights beyond it are brought down together.
const HEAVIEST: u64 = 1000;

/// One, as it is written.
pub(super) struct Server<'a> {
    pub at: &'a Directive,
    pub url: String,
    pub weight: u64,
    pub max_conns: u64,
    pub max_fails: Option<u64>,
    pub fail_timeout: Option<Duration>,
    pub backup: bool,
}

pub(super) fn servers<'a>(upstream: &'a Directive, notes: &mut Notes) -> Vec<Server<'a>> {
    let mut all: Vec<Server<'a>> = Vec::new();
    let mut by_url: HashMap<String, usize> = HashMap::new();
    for directive in upstream.named("server") {
        let Some(server) = server(directive, notes) else {
            continue;
        };
        if let Some(same) = by_url.get(&server.url).and_then(|i| all.get_mut(*i)) {
            same.weight = same.weight.saturating_add(server.weight);
            let what = format!("{} is there already, and has both weights", server.url);
            notes.differs(directive, what);
            continue;
        }
        if all.len() >= MOST_SERVERS {
            let what = format!("has more than {MOST_SERVERS} servers");
            notes.mistake(upstream, what);
            break;
        }
        by_url.insert(server.url.clone(), all.len());
        all.push(server);
    }
    all
}

/// `None` where it gets no requests, or after a mistake.
fn server<'a>(directive: &'a Directive, notes: &mut Notes) -> Option<Server<'a>> {
    let mut server = Server {
        at: directive,
        url: url(directive.arg(0), directive, notes)?,
        weight: 1,
        max_conns: 0,
        max_fails: None,
        fail_timeout: None,
        backup: false,
    };
    let mut down = false;
    for parameter in directive.args.iter().skip(1) {
        let (name, text) = parameter.split_once('=').unwrap_or((parameter, ""));
        let mut wrong = |form: &str| {
            let what = format!("{} cannot be read; write {form}", quoted(parameter));
            notes.mistake(directive, what);
        };
        match name {
            "weight" => match value::count(text) {
                Some(weight) if weight > 0 => server.weight = weight,
                _ => wrong("weight=2"),
            },
            "max_conns" => match value::count(text) {
                Some(most) => server.max_conns = most,
                None => wrong("max_conns=256"),
            },
            "max_fails" => match value::count(text) {
                Some(most) => server.max_fails = Some(most),
                None => wrong("max_fails=3"),
            },
            "fail_timeout" => match value::time(text) {
                Some(time) => server.fail_timeout = Some(time),
                None => wrong("fail_timeout=10s"),
            },
            "backup" => server.backup = true,
            "down" | "drain" => down = true,
            // Names are always looked up again.
            "resolve" => {}
            "slow_start" => notes.differs(
                directive,
                "slow_start: an endpoint that comes back gets its full share over ten seconds",
            ),
            "route" | "service" => notes.not_carried(
                directive,
                format!("{name}: the gateway has nothing like it"),
            ),
            _ => notes.mistake(
                directive,
                format!("{} is no parameter of a server", quoted(parameter)),
            ),
        }
    }
    if down {
        notes.differs(directive, format!("{} is down, and left out", server.url));
        return None;
    }
    Some(server)
}

/// The endpoint of a `proxy_pass` that names no upstream.
pub(super) fn alone<'a>(choice: &Choice<'a>, notes: &mut Notes) -> Vec<Server<'a>> {
    let at = choice.target.proxy_pass;
    let url = url_of(&choice.target.authority, choice.target.tls, at, notes);
    (url.into_iter())
        .map(|url| Server {
            at,
            url,
            weight: 1,
            max_conns: 0,
            max_fails: None,
            fail_timeout: None,
            backup: false,
        })
        .collect()
}

fn url(address: &str, at: &Directive, notes: &mut Notes) -> Option<String> {
    url_of(address, false, at, notes)
}

/// `HOST:PORT` as an endpoint without its scheme; nginx takes port 80 (443) where there is none.
fn url_of(address: &str, tls: bool, at: &Directive, notes: &mut Notes) -> Option<String> {
    if let Some(path) = address.strip_prefix("unix:") {
        if path.starts_with('/') {
            return Some(address.to_owned());
        }
    } else if !address.is_empty() && !address.contains(['/', '@', '$', ' ']) {
        let has_port = match address.rsplit_once(':') {
            Some((host, _)) => !host.is_empty() && !address.ends_with(']'),
            None => false,
        };
        let default = if tls { 443 } else { 80 };
        let url = if has_port {
            address.to_ascii_lowercase()
        } else {
            format!("{address}:{default}")
        };
        if is_endpoint(&url) {
            return Some(url);
        }
    }
    let what = format!(
        "{} is no address of a server; write HOST:PORT or unix:/path",
        quoted(address)
    );
    notes.mistake(at, what);
    None
}

/// Brings weights into the range that there is, in proportion.
pub(super) fn lighten(servers: &mut [Server<'_>], notes: &mut Notes) {
    let heaviest = servers.iter().map(|s| s.weight).max().unwrap_or(1);
    if heaviest <= HEAVIEST {
        return;
    }
    for server in servers {
        let share = u128::from(server.weight) * u128::from(HEAVIEST) / u128::from(heaviest);
        server.weight = u64::try_from(share).unwrap_or(HEAVIEST).max(1);
        notes.differs(
            server.at,
            format!(
                "weights go up to {HEAVIEST}: this one is {} in proportion",
                server.weight
            ),
        );
    }
}
