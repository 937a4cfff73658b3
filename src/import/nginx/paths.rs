//! Locations: what of them is `expose`, and what the gateway does about the others.

use std::collections::HashSet;

use crate::config::{Expose, is_extra_path};
use crate::import::yaml::Yaml;
use crate::openai;

use super::choice::Choice;
use super::listen;
use super::notes::Notes;
use super::roles::{Role, authority, is_own, own_paths, role};
use super::site::{Location, Pattern, Site};
use super::tree::quoted;

/// Inference paths, so many that what begins any of them begins one of these.
const INFERENCE: [&str; 18] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/messages/count_tokens",
    "/v1/responses/id",
    "/v1/embeddings",
    "/v1/models/name",
    "/v1/score",
    "/v1/rerank",
    "/v1/audio/transcriptions",
    "/v1/audio/speech",
    "/v1/tokenize",
    "/v1/detokenize",
    "/v2/rerank",
    "/chat/completions",
    "/completions",
    "/embeddings",
    "/models/name",
    "/generate",
];

/// What the site's locations come to.
pub(super) struct Paths<'a> {
    /// The value of `expose`; `None` is the default.
    pub expose: Option<Yaml>,
    /// Every path is exposed.
    pub is_all: bool,
    /// Where nginx shows its counts.
    pub status: Vec<&'a Location<'a>>,
}

/// A location whose paths must not be opened by what is exposed.
struct Shut<'a> {
    location: &'a Location<'a>,
    role: Role,
}

/// Reads every location of the servers that are carried.
pub(super) fn paths<'a>(site: &'a Site<'a>, choice: &Choice<'a>, notes: &mut Notes) -> Paths<'a> {
    let is_carried = |server: &&super::site::Server<'_>| {
        (choice.servers.iter()).any(|carried| std::ptr::eq(*carried, *server))
    };
    let mut status = Vec::new();
    let mut shut = Vec::new();
    let mut others = Vec::new();
    for server in site.servers.iter().filter(is_carried) {
        for location in server.locations.iter().filter(|l| !choice.has(l)) {
            let role = role(location);
            match role {
                // Its other ports would show it to everyone who reaches them.
                Role::Status if listen::is_for_this_host(server) => notes.differs(
                    location.directive,
                    "this machine alone may read it, which is what status_allow has unless it is written",
                ),
                Role::Status => status.push(location),
                Role::Own => {}
                Role::Other => others.push(location),
                Role::Elsewhere => {
                    let authority = authority(location);
                    notes.not_carried(location.directive, format!(
                        "it sends requests to {authority}, and a gateway has one pool so far: run another gateway, with what `--upstream {}` prints",
                        authority.trim_matches('"')
                    ));
                }
                Role::Rewritten => notes.not_carried(
                    location.directive,
                    "its requests are sent on by another path, or redirected, and paths are passed as they come",
                ),
                Role::Closed | Role::Answer => {}
            }
            if matches!(
                role,
                Role::Elsewhere | Role::Rewritten | Role::Closed | Role::Answer
            ) {
                shut.push(Shut { location, role });
            }
            if role != Role::Status
                && let Some(how) = own_paths(location)
            {
                notes.differs(location.directive, how);
            }
        }
    }
    for location in &choice.locations {
        if let Some(how) = own_paths(location) {
            notes.differs(location.directive, how);
        }
    }
    let (expose, is_all) = expose(choice, &shut, notes);
    for location in others {
        notes.not_carried(
            location.directive,
            if is_all {
                "the gateway sends no files, and answers its own paths alone: who asks for this path reaches the engines (expose: all)"
            } else {
                "the gateway sends no files, and answers its own paths alone"
            },
        );
    }
    Paths {
        expose,
        is_all,
        status,
    }
}

/// What clients reach, and whether that is every path.
fn expose(choice: &Choice<'_>, shut: &[Shut<'_>], notes: &mut Notes) -> (Option<Yaml>, bool) {
    let has_root = choice.locations.iter().any(|l| l.is_root());
    // `expose` is the same on every address, so one server that does not pass every path decides.
    let mut is_narrower = false;
    for server in choice.servers.iter().filter(|_| has_root) {
        if !(server.locations.iter()).any(|l| choice.has(l) && l.is_root()) {
            is_narrower = true;
            notes.differs(
                server.directive,
                "expose: all would open every path here too, as another server does, so it is left out; the inference paths are open",
            );
        }
    }
    if has_root && shut.is_empty() && !is_narrower {
        return (Some(Yaml::plain("all")), true);
    }
    for shut in shut {
        about_shut(shut, has_root, notes);
    }
    if is_narrower {
        return (None, false);
    }
    let mut paths: Vec<String> = Vec::new();
    let mut add = |path: String| {
        if !paths.contains(&path) && !is_own(&path) {
            paths.push(path);
        }
    };
    for location in choice.locations.iter().filter(|l| !l.is_root()) {
        let at = location.directive;
        match location.pattern {
            Pattern::Exact(path) if can_be_exposed(path) => add(path.to_owned()),
            Pattern::Prefix(path) if can_be_exposed(path) => {
                if let Some(within) = (shut.iter()).find(|shut| would_be_opened(shut, path)) {
                    let within = &within.location.directive;
                    notes.differs(at, format!(
                        "it is not in expose, which would open what the location of line {} has; the inference paths are open",
                        within.at.line
                    ));
                    continue;
                }
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
    if !has_root && let Some(first) = choice.locations.first() {
        notes.opens(
            first.directive,
            "clients reach the inference paths besides what expose has",
        );
    }
    elsewhere(choice, notes);
    let list = (!paths.is_empty()).then(|| Yaml::List(paths.iter().map(Yaml::text).collect()));
    (list, false)
}

/// What becomes of the paths of a location that keeps `expose` from being `all`.
fn about_shut(shut: &Shut<'_>, has_root: bool, notes: &mut Notes) {
    let at = shut.location.directive;
    let is_guard = shut.role == Role::Closed;
    if is_inference(shut.location) {
        match shut.role {
            Role::Closed => notes.unguarded(
                at,
                "clients reach this path now: the inference paths cannot be shut",
            ),
            _ => notes.differs(
                at,
                "the endpoints get such requests: the inference paths cannot be shut",
            ),
        }
        return;
    }
    let shown = if has_root {
        "expose: all would open it, so that is left out: what is no inference path is 404"
    } else {
        "what is no inference path, and not in expose, is 404"
    };
    let health = if shut.role == Role::Answer {
        "; who asks whether the gateway is there can ask for /health"
    } else {
        ""
    };
    match is_above_inference(shut.location) {
        Some(true) => {
            let how = format!(
                "{shown}; the inference paths are open, those beneath this one too{health}"
            );
            if is_guard {
                notes.opens(at, how);
            } else {
                notes.differs(at, how);
            }
        }
        Some(false) => notes.differs(at, format!("{shown}{health}")),
        None => notes.differs(
            at,
            format!(
                "{shown}; the inference paths are open, those that the pattern has too{health}"
            ),
        ),
    }
}

/// Servers that open paths to clients of the others.
fn elsewhere(choice: &Choice<'_>, notes: &mut Notes) {
    for server in &choice.servers {
        let own = server.locations.iter().filter(|l| choice.has(l));
        let own: HashSet<Pattern<'_>> = own.map(|l| l.pattern).collect();
        let of_others = choice.locations.iter().find_map(|l| match l.pattern {
            Pattern::Exact(path) | Pattern::Prefix(path) if !own.contains(&l.pattern) => {
                Some((path, l.directive.at.line))
            }
            _ => None,
        });
        if let Some((path, line)) = of_others {
            notes.opens(
                server.directive,
                format!(
                    "expose is the same on every address: the location {} of line {line} is open here, too",
                    quoted(path)
                ),
            );
        }
    }
}

/// Whether exposing what begins with `prefix` would open paths of the location that are shut.
fn would_be_opened(shut: &Shut<'_>, prefix: &str) -> bool {
    match shut.location.pattern {
        // It is open whatever is exposed.
        Pattern::Exact(path) => path.starts_with(prefix) && !is_inference(shut.location),
        Pattern::Prefix(path) => path.starts_with(prefix),
        // Patterns come before prefixes.
        Pattern::Regex(_) => true,
        Pattern::Named => false,
    }
}

/// Whether inference paths lie beneath the location; `None` where it is a pattern.
fn is_above_inference(location: &Location<'_>) -> Option<bool> {
    match location.pattern {
        Pattern::Prefix(path) => Some(INFERENCE.iter().any(|known| known.starts_with(path))),
        Pattern::Exact(_) | Pattern::Named => Some(false),
        Pattern::Regex(_) => None,
    }
}

/// Whether the location is for a path that is open whatever `expose` says.
fn is_inference(location: &Location<'_>) -> bool {
    let (Pattern::Exact(path) | Pattern::Prefix(path)) = location.pattern else {
        return false;
    };
    is_inference_path(path)
}

fn is_inference_path(path: &str) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inference_paths_are_some_of_the_gateways() {
        assert!(INFERENCE.iter().all(|path| is_inference_path(path)));
    }
}
