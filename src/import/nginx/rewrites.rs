//! `rewrite`: what becomes of paths that nginx changes before it sends a request on.

use super::notes::Notes;
use super::site::{Location, Pattern};
use super::tree::{Directive, quoted};

/// Notes one that is in force where requests go to the pool. `is_all` is whether every path is exposed.
pub(super) fn rewrite(rewrite: &Directive, is_all: bool, notes: &mut Notes) {
    if is_redirect(rewrite) {
        notes.not_carried(rewrite, "clients are not redirected");
        return;
    }
    if is_same(rewrite) {
        return;
    }
    let to = quoted(path_of(rewrite));
    notes.not_carried(rewrite, if is_all {
        format!("paths are passed as they come: the engine is asked for what the client wrote, not for {to}; let clients ask for that")
    } else {
        format!("paths are passed as they come, and what is neither an inference path nor in expose is 404: let clients ask for {to}")
    });
}

/// Whether the path of every request of the location is changed, or redirected: then the engine has none of
/// the location's own paths.
pub(super) fn renames_all(location: &Location<'_>) -> bool {
    let mut renaming = (location.scope.own("rewrite").iter()).filter(|r| !is_same(r));
    renaming.any(|rewrite| covers(rewrite.arg(0), location.pattern))
}

/// Whether the pattern of a `rewrite` fits every path of a location, in the ways that are in use.
fn covers(regex: &str, location: Pattern<'_>) -> bool {
    let rest = regex.strip_prefix('^').unwrap_or(regex);
    let (prefix, is_whole) = match location {
        Pattern::Prefix(path) => (path, false),
        Pattern::Exact(path) => (path, true),
        Pattern::Regex(_) | Pattern::Named => ("", false),
    };
    let literal = prefix.trim_end_matches('/');
    let plain = rest.replace('\\', "");
    let is_rest = |rest: &str| {
        let rest = rest.strip_suffix('$').unwrap_or(rest);
        let rest = rest.strip_prefix('/').unwrap_or(rest);
        let rest = rest.strip_prefix('?').unwrap_or(rest);
        matches!(rest, "(.*)" | ".*" | "(.+)" | ".+" | "(/.*)" | "(/|$)(.*)")
            // Without "$" the pattern fits what goes on after it, too.
            || (rest.is_empty() && (is_whole || !regex.ends_with('$')))
    };
    is_rest(&plain) || plain.strip_prefix(literal).is_some_and(is_rest)
}

fn is_redirect(rewrite: &Directive) -> bool {
    let to = rewrite.arg(1);
    matches!(rewrite.arg(2), "redirect" | "permanent")
        || ["http://", "https://", "$scheme"]
            .iter()
            .any(|start| to.starts_with(start))
}

/// Whether the path stays what it was.
fn is_same(rewrite: &Directive) -> bool {
    matches!(
        (rewrite.arg(0), rewrite.arg(1)),
        (_, "$uri" | "$request_uri")
            | ("^(.*)$" | "^(.*)" | "(.*)", "$1")
            | ("^/(.*)$" | "^/(.*)", "/$1")
    )
}

/// The new path, without a query, which may hold a key.
fn path_of(rewrite: &Directive) -> &str {
    let to = rewrite.arg(1);
    to.split_once('?').map_or(to, |(path, _)| path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_renames_every_path_of_its_location() {
        let api = Pattern::Prefix("/api/");
        for (regex, location, expected) in [
            ("^/api/(.*)$", api, true),
            ("^/api/(.*)", api, true),
            ("^/api(/.*)$", api, true),
            ("^/api(/|$)(.*)", api, true),
            ("/api/(.*)", api, true),
            ("^/api/?(.*)$", api, true),
            ("^/api", api, true),
            ("^/api/$", api, false),
            ("^/api/old/(.*)$", api, false),
            ("^(.*)$", api, true),
            (".*", api, true),
            ("^", api, true),
            ("^/other/(.*)$", api, false),
            ("^/(.*)$", Pattern::Prefix("/"), true),
            ("^/old/(.*)$", Pattern::Prefix("/"), false),
            ("^/v1\\.0/(.*)$", Pattern::Prefix("/v1.0/"), true),
            ("^/x$", Pattern::Exact("/x"), true),
            ("^/y$", Pattern::Exact("/x"), false),
            ("^/x/(.*)$", Pattern::Regex("^/x/"), false),
            ("^(.*)$", Pattern::Regex("^/x/"), true),
            ("", api, true),
        ] {
            assert_eq!(covers(regex, location), expected, "{regex} {location:?}");
        }
    }
}
