//! Which of a file's locations become the gateway: those that send requests to one pool.

use super::notes::Notes;
use super::rewrites;
use super::site::{Location, Pattern, Server, Site, Target};
use super::tree::{Directive, quoted};

/// The pool, and who sends requests to it.
pub(super) struct Choice<'a> {
    pub target: Target<'a>,
    /// Its block; `None` where the `proxy_pass` has an address.
    pub upstream: Option<&'a Directive>,
    /// At least one.
    pub servers: Vec<&'a Server<'a>>,
    /// At least one.
    pub locations: Vec<&'a Location<'a>>,
}

impl<'a> Choice<'a> {
    /// The pool named `wanted`, else that of the first server that sends requests anywhere, by its
    /// location `/` if it can.
    pub fn of(site: &'a Site<'a>, wanted: Option<&str>, notes: &mut Notes) -> Option<Self> {
        let all = site.servers.iter().flat_map(|server| &server.locations);
        let proxied: Vec<_> = all.filter(|l| l.target.is_some()).collect();
        let first = match wanted {
            Some(name) => proxied.iter().find(|l| goes_to(l, name)).copied(),
            None => (site.servers.iter())
                .find_map(|server| principal(server))
                .or(proxied.first().copied()),
        };
        let Some(target) = first.and_then(|location| location.target.clone()) else {
            nothing_to_choose(site, wanted, notes);
            return None;
        };
        let is_in = |location: &&Location<'_>| {
            goes_to(location, &target.authority)
                && location
                    .target
                    .as_ref()
                    .is_some_and(|t| t.tls == target.tls)
                && keeps_paths(location)
        };
        let all: Vec<_> = proxied.iter().copied().filter(is_in).collect();
        // What lets in some clients alone is not opened to all, unless there is nothing else.
        let open: Vec<_> = all.iter().copied().filter(|l| !is_restricted(l)).collect();
        let carried = if open.is_empty() { all } else { open };
        if carried.is_empty() {
            let what = "puts another path in place of the location's, and no location sends requests on as they are: paths cannot be changed";
            notes.mistake(target.proxy_pass, what);
            return None;
        }
        let servers = site.servers.iter().filter(|server| {
            (server.locations.iter()).any(|l| carried.iter().any(|c| std::ptr::eq(*c, l)))
        });
        Some(Self {
            upstream: site.upstream(&target.authority),
            servers: servers.collect(),
            locations: carried,
            target,
        })
    }

    /// What is in force at `/`, or else at the first location. Others that are in force elsewhere are
    /// noted: there is one for all.
    pub fn effective(&self, name: &str, notes: &mut Notes) -> Vec<&'a Directive> {
        let first = self.locations.iter().find(|l| l.is_root());
        let Some(first) = first.or(self.locations.first()) else {
            return Vec::new();
        };
        let ours = first.scope.effective(name).to_vec();
        let mut seen: Vec<usize> = ours.iter().map(|d| d.number).collect();
        for other in self.locations.iter().flat_map(|l| l.scope.effective(name)) {
            if !seen.contains(&other.number) {
                seen.push(other.number);
                notes.not_carried(other, "there is one for all locations, and it is another's");
            }
        }
        ours
    }

    /// The last of them.
    pub fn setting(&self, name: &str, notes: &mut Notes) -> Option<&'a Directive> {
        self.effective(name, notes).pop()
    }

    pub fn has(&self, location: &Location<'_>) -> bool {
        self.locations.iter().any(|l| std::ptr::eq(*l, location))
    }
}

fn nothing_to_choose(site: &Site<'_>, wanted: Option<&str>, notes: &mut Notes) {
    if let Some(name) = wanted {
        let what = format!(
            "no location sends requests to {}; name an upstream that a proxy_pass has",
            quoted(name)
        );
        notes.mistake(site.http, what);
        return;
    }
    let all = site.servers.iter().flat_map(|server| &server.locations);
    for location in all {
        let Some(proxy_pass) = location.own("proxy_pass") else {
            continue;
        };
        if location.scope.answers() {
            notes.mistake(
                proxy_pass,
                "is never reached: a return here, or right in the server, answers before it; remove one of the two",
            );
        } else if proxy_pass.arg(0).contains('$') {
            notes.mistake(
                proxy_pass,
                "where it sends requests is in a variable; write the upstream's name or the address",
            );
        }
    }
    if !notes.has_mistakes() {
        notes.mistake(
            site.http,
            "no location has a proxy_pass: there is nothing to be a gateway for",
        );
    }
}

/// The location of a server that stands for it.
fn principal<'a>(server: &'a Server<'a>) -> Option<&'a Location<'a>> {
    let mut proxied = server
        .locations
        .iter()
        .filter(|l| l.target.is_some() && keeps_paths(l));
    let first = proxied.next()?;
    let root = std::iter::once(first).chain(proxied).find(|l| l.is_root());
    Some(root.unwrap_or(first))
}

fn goes_to(location: &Location<'_>, name: &str) -> bool {
    (location.target.as_ref()).is_some_and(|t| t.authority.eq_ignore_ascii_case(name))
}

/// Whether its own block, or a location around it, keeps some clients out.
pub(super) fn is_restricted(location: &Location<'_>) -> bool {
    let rules = |names: &[&str]| location.scope.effective_in_locations(names);
    let is_on = |name| (rules(&[name]).last()).is_some_and(|d| d.arg(0) != "off");
    rules(&["allow", "deny"]).iter().any(|d| d.name == "deny")
        || ["auth_basic", "auth_request", "auth_jwt", "internal"]
            .into_iter()
            .any(is_on)
}

/// Whether the engine gets the path that the client sent.
pub(super) fn keeps_paths(location: &Location<'_>) -> bool {
    let Some(uri) = location.target.as_ref().map(|t| t.uri.as_deref()) else {
        return false;
    };
    match (uri, location.pattern) {
        (None, _) => !rewrites::renames_all(location),
        (Some(uri), Pattern::Prefix(path) | Pattern::Exact(path)) => uri == path,
        (Some(_), Pattern::Regex(_) | Pattern::Named) => false,
    }
}
