//! What the locations that are not carried are for.

use crate::local;

use super::choice::{is_restricted, keeps_paths};
use super::guards::is_refusal;
use super::site::{Location, Pattern};
use super::tree::quoted;

/// The paths that the gateway answers itself.
const OWN: [&str; 7] = [
    "/health",
    "/ready",
    "/health/readiness",
    "/health/liveliness",
    "/health/liveness",
    "/stub_status",
    "/metrics",
];

/// What a location that is not carried is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Requests go to another pool.
    Elsewhere,
    /// They go to this one, by another path.
    Rewritten,
    /// nginx' own counts.
    Status,
    /// It keeps clients out.
    Closed,
    /// nginx answers by itself.
    Answer,
    /// The gateway answers the path itself.
    Own,
    /// It has files, or what is spoken to otherwise than in HTTP.
    Other,
}

pub(super) fn role(location: &Location<'_>) -> Role {
    if location.own("stub_status").is_some() {
        return Role::Status;
    }
    let is_restricted = is_restricted(location);
    let is_own = match location.pattern {
        Pattern::Exact(path) => is_own(path),
        // What goes on after it would be open.
        Pattern::Prefix(path) => is_own(path) && !is_restricted,
        Pattern::Regex(_) | Pattern::Named => false,
    };
    if is_own {
        return Role::Own;
    }
    // An internal page of nginx' own, as for errors, closes nothing.
    let is_page = location.own("internal").is_some() && location.own("proxy_pass").is_none();
    if is_restricted && !is_page {
        return Role::Closed;
    }
    if location.target.is_some() {
        return if keeps_paths(location) || location.pattern == Pattern::Named {
            Role::Elsewhere
        } else {
            Role::Rewritten
        };
    }
    // What nginx answered itself must not reach an engine now.
    match location.own("return") {
        Some(answer) if is_refusal(answer) => Role::Closed,
        Some(_) => Role::Answer,
        // One that cannot be followed may send requests anywhere.
        None if location.own("proxy_pass").is_some() => Role::Closed,
        None => Role::Other,
    }
}

pub(super) fn is_own(path: &str) -> bool {
    local::route(path.as_bytes(), "GET", false).is_some()
}

/// What the gateway does about paths of its own that a location is for; `None` where it has none of them.
pub(super) fn own_paths(location: &Location<'_>) -> Option<String> {
    let covers = |own: &&&str| match location.pattern {
        Pattern::Exact(path) => **own == path,
        // What is for every path says nothing of these.
        Pattern::Prefix(path) => path != "/" && own.starts_with(path),
        // Read without an engine for patterns: its words have to do.
        Pattern::Regex(pattern) => own
            .rsplit('/')
            .next()
            .is_some_and(|word| pattern.contains(word)),
        Pattern::Named => false,
    };
    let paths: Vec<&str> = OWN.iter().filter(covers).copied().collect();
    let (first, further) = paths.split_first()?;
    let unsent = if location.target.is_some() {
        "; no such request is sent on"
    } else {
        ""
    };
    Some(match (location.pattern, further) {
        (Pattern::Regex(_), _) => format!(
            "where the pattern has {}, the gateway answers that itself{unsent}",
            paths.join(" or ")
        ),
        (Pattern::Prefix(path), _) if path == *first => format!(
            "the gateway answers {path} itself, and nothing that goes on after it: {}{unsent}",
            answer(path)
        ),
        (_, []) => format!(
            "the gateway answers {first} itself: {}{unsent}",
            answer(first)
        ),
        _ => format!("the gateway answers {} itself{unsent}", paths.join(" and ")),
    })
}

/// What it is that the gateway answers.
fn answer(path: &str) -> &'static str {
    match path {
        "/health" => "200, \"healthy\", one Content-Type",
        "/metrics" => {
            "its own counts, as Prometheus' text, for status_allow (the engines' are at their own ports)"
        }
        "/stub_status" => "its own counts, as nginx' text, for status_allow",
        "/ready" | "/health/readiness" => "200 if an endpoint can take requests, else 503",
        _ => "200",
    }
}

/// Where the location sends requests, as a message has it.
pub(super) fn authority(location: &Location<'_>) -> String {
    (location.target.as_ref()).map_or_else(String::new, |target| quoted(&target.authority))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_own_paths_is_the_gateways() {
        assert!(OWN.iter().all(|path| is_own(path)));
        assert!(!is_own("/endpoints") && !is_own("/v1/models"));
    }
}
