//! Locations: what of them is `expose`, and what the gateway does about the others.

use crate::config::{Expose, is_extra_path};
use crate::import::yaml::Yaml;
use crate::local;
use crate::openai;

use super::choice::{Choice, is_restricted, keeps_paths};
use super::listen;
use super::notes::Notes;
use super::site::{Location, Pattern, Site};
use super::tree::Directive;

/// What a location that is not carried is for.
enum Role {
    /// Requests go to another pool.
    Elsewhere(String),
    /// They go to this one, by another path.
    Rewritten,
    /// nginx' own counts.
    Status,
    /// It keeps clients out.
    Closed,
    /// The gateway answers the path itself.
    Own,
    /// It answers, or has files.
    Other,
}

/// What the site's locations come to.
pub(super) struct Paths<'a> {
    /// The value of `expose`; `None` is the default.
    pub expose: Option<Yaml>,
    /// Where nginx shows its counts.
    pub status: Vec<&'a Location<'a>>,
}

/// Reads every location of the servers that are carried.
pub(super) fn paths<'a>(site: &'a Site<'a>, choice: &Choice<'a>, notes: &mut Notes) -> Paths<'a> {
    let is_carried = |server: &&super::site::Server<'_>| {
        (choice.servers.iter()).any(|carried| std::ptr::eq(*carried, *server))
    };
    let mut status = Vec::new();
    let mut closed = Vec::new();
    for server in site.servers.iter().filter(is_carried) {
        for location in server.locations.iter().filter(|l| !choice.has(l)) {
            match role(location) {
                Role::Elsewhere(authority) => {
                    let authority = authority.escape_debug();
                    notes.not_carried(location.directive, format!(
                        "it sends requests to {authority}, and a gateway has one pool so far: run another gateway, with what `--upstream {authority}` prints"
                    ));
                    closed.push(location);
                }
                Role::Rewritten => {
                    notes.not_carried(
                        location.directive,
                        "it sends requests on by another path, and paths are passed as they come",
                    );
                    closed.push(location);
                }
                // Its other ports would show it to everyone who reaches them.
                Role::Status if listen::is_for_this_host(server) => notes.differs(
                    location.directive,
                    "this machine alone may read it, which is what status_allow has unless it is written",
                ),
                Role::Status => status.push(location),
                Role::Closed => closed.push(location),
                Role::Own => notes.differs(location.directive, own_path(location)),
                Role::Other => notes.not_carried(
                    location.directive,
                    "the gateway answers its own paths alone, and sends no files",
                ),
            }
        }
    }
    Paths {
        expose: expose(choice, &closed, notes),
        status,
    }
}

fn role(location: &Location<'_>) -> Role {
    if location.own("stub_status").is_some() {
        return Role::Status;
    }
    if is_own_path(location) {
        return Role::Own;
    }
    // An internal page of nginx' own, as for errors, closes nothing.
    let is_page = location.own("internal").is_some() && location.own("proxy_pass").is_none();
    if is_restricted(location) && !is_page {
        return Role::Closed;
    }
    if let Some(target) = &location.target {
        return if keeps_paths(location) || location.pattern == Pattern::Named {
            Role::Elsewhere(target.authority.clone())
        } else {
            Role::Rewritten
        };
    }
    // What nginx answered itself must not reach an engine now.
    let refuses = location.own("return").is_some();
    // A proxy_pass that cannot be followed may send requests anywhere.
    if refuses || location.own("proxy_pass").is_some() {
        Role::Closed
    } else {
        Role::Other
    }
}

fn is_own_path(location: &Location<'_>) -> bool {
    matches!(location.pattern, Pattern::Prefix(path) | Pattern::Exact(path)
        if local::route(path.as_bytes(), "GET", false).is_some())
}

fn own_path(location: &Location<'_>) -> &'static str {
    match location.pattern {
        Pattern::Prefix("/health") | Pattern::Exact("/health") => {
            "the gateway answers /health itself, and nothing that goes on after it: 200, \"healthy\", one Content-Type"
        }
        Pattern::Prefix("/metrics") | Pattern::Exact("/metrics") => {
            "the gateway answers /metrics itself, with Prometheus' text, for status_allow"
        }
        Pattern::Prefix("/stub_status") | Pattern::Exact("/stub_status") => {
            "the gateway answers /stub_status itself, for status_allow"
        }
        _ => "the gateway answers this path itself",
    }
}

/// What clients reach.
fn expose(choice: &Choice<'_>, closed: &[&Location<'_>], notes: &mut Notes) -> Option<Yaml> {
    let has_root = choice.locations.iter().any(|l| l.is_root());
    // `expose` is the same on every address, so one server that does not pass every path decides.
    let mut narrower = false;
    for server in choice.servers.iter().filter(|_| has_root) {
        if !(server.locations.iter()).any(|l| choice.has(l) && l.is_root()) {
            narrower = true;
            notes.differs(
                server.directive,
                "expose: all would open every path here too, as another server does, so it is left out; the inference paths are open",
            );
        }
    }
    if has_root && closed.is_empty() && !narrower {
        return Some(Yaml::plain("all"));
    }
    for location in closed {
        if is_inference(location) {
            notes.not_carried(
                location.directive,
                "clients reach this path now: the inference paths cannot be shut",
            );
            continue;
        }
        notes.differs(
            location.directive,
            if has_root {
                "expose: all would open this path, so it is left out; the inference paths are open, also where they are beneath this one"
            } else {
                "the inference paths are open, also where they are beneath this one"
            },
        );
    }
    if has_root {
        return None;
    }
    let mut paths: Vec<String> = Vec::new();
    let mut add = |path: String| {
        if !paths.contains(&path) {
            paths.push(path);
        }
    };
    for location in &choice.locations {
        let at: &Directive = location.directive;
        match location.pattern {
            Pattern::Exact(path) if can_be_exposed(path) => add(path.to_owned()),
            Pattern::Prefix(path) if can_be_exposed(path) => {
                match path.strip_suffix('/') {
                    Some(_) => add(format!("{path}*")),
                    None => {
                        add(path.to_owned());
                        add(format!("{path}/*"));
                        notes.differs(at, format!("{path} and what is beneath {path}/, and no path that goes on otherwise"));
                    }
                }
            }
            Pattern::Regex(_) => {
                notes.not_carried(at, "a pattern is no path; write the paths into expose")
            }
            Pattern::Exact(_) | Pattern::Prefix(_) => {
                notes.not_carried(at, "a path with such characters cannot be exposed")
            }
            Pattern::Named => notes.not_carried(at, "there are no redirects within the gateway"),
        }
    }
    if let Some(first) = choice.locations.first() {
        notes.differs(
            first.directive,
            "clients reach the inference paths besides what expose has",
        );
    }
    (!paths.is_empty()).then(|| Yaml::List(paths.iter().map(Yaml::text).collect()))
}

/// Whether the location is for a path that is open whatever `expose` says.
fn is_inference(location: &Location<'_>) -> bool {
    let (Pattern::Exact(path) | Pattern::Prefix(path)) = location.pattern else {
        return false;
    };
    let by_default = Expose::Inference { extra: Vec::new() };
    let verdict = |method| openai::paths::lookup(&by_default, method, path.as_bytes());
    ["GET", "POST"]
        .into_iter()
        .any(|method| matches!(verdict(method), openai::Verdict::Exposed(_)))
}

/// What `expose` takes for a path (its own rules are narrower than a location's).
fn can_be_exposed(path: &str) -> bool {
    path.starts_with('/') && !path.contains('*') && is_extra_path(path)
}
