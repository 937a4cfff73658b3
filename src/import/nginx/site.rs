//! A file as nginx sees it: servers, their locations, and where these send requests.

use super::notes::Notes;
use super::scope::Scope;
use super::tree::{Directive, quoted};

/// More are a mistake, or somebody who wants to see how long this takes.
const MOST_LOCATIONS: usize = 1000;

/// What the `http` block holds.
pub(super) struct Site<'a> {
    /// The block, or the file's first directive where the file is the inside of one.
    pub http: &'a Directive,
    /// What is right in it.
    pub directives: &'a [Directive],
    pub servers: Vec<Server<'a>>,
}

pub(super) struct Server<'a> {
    pub directive: &'a Directive,
    pub scope: Scope<'a>,
    pub locations: Vec<Location<'a>>,
}

pub(super) struct Location<'a> {
    pub directive: &'a Directive,
    pub pattern: Pattern<'a>,
    pub scope: Scope<'a>,
    /// Where it sends requests.
    pub target: Option<Target<'a>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Pattern<'a> {
    Prefix(&'a str),
    Exact(&'a str),
    Regex(&'a str),
    /// `@name`, for redirects within nginx.
    Named,
}

/// What a `proxy_pass` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target<'a> {
    pub proxy_pass: &'a Directive,
    /// Variables in it, which are constants.
    pub set: Vec<&'a str>,
    pub tls: bool,
    /// The name of an upstream, or an address.
    pub authority: String,
    /// What takes the place of the location's prefix.
    pub uri: Option<String>,
}

impl<'a> Site<'a> {
    /// Finds the site of a file. One without `http` is what sites have in `conf.d`.
    pub fn of(directives: &'a [Directive], notes: &mut Notes) -> Option<Self> {
        let mut blocks = directives.iter().filter(|d| d.name == "http");
        let (http, inside) = match (blocks.next(), blocks.next()) {
            (Some(_), Some(second)) => {
                notes.mistake(second, "is a second http block; join the two");
                return None;
            }
            (Some(http), None) => (http, http.children()),
            (None, _) => (directives.first()?, directives),
        };
        let all = Scope::of(inside);
        let mut left = MOST_LOCATIONS;
        let servers = inside.iter().filter(|d| d.name == "server");
        let servers = servers.map(|server| {
            let scope = all.inner(server.children());
            Server {
                directive: server,
                locations: locations(&scope, &mut left, notes),
                scope,
            }
        });
        let servers = servers.collect();
        if left == 0 {
            notes.mistake(http, format!("has {MOST_LOCATIONS} locations or more"));
            return None;
        }
        Some(Self {
            http,
            directives: inside,
            servers,
        })
    }

    pub fn upstreams(&self) -> impl Iterator<Item = &'a Directive> {
        self.directives.iter().filter(|d| d.name == "upstream")
    }

    pub fn upstream(&self, name: &str) -> Option<&'a Directive> {
        self.upstreams()
            .find(|upstream| upstream.arg(0).eq_ignore_ascii_case(name))
    }
}

impl<'a> Location<'a> {
    /// Whether its own block has it.
    pub fn own(&self, name: &str) -> Option<&'a Directive> {
        self.scope.own(name).first().copied()
    }

    pub fn is_root(&self) -> bool {
        self.pattern == Pattern::Prefix("/")
    }
}

/// The locations right in a block, and those within them. No more than are `left`.
fn locations<'a>(scope: &Scope<'a>, left: &mut usize, notes: &mut Notes) -> Vec<Location<'a>> {
    let mut found = Vec::new();
    for directive in scope.own("location") {
        if *left == 0 {
            break;
        }
        *left -= 1;
        let Some(pattern) = pattern(directive) else {
            notes.mistake(directive, "write a path, or = ~ ~* ^~ and a path");
            continue;
        };
        let scope = scope.inner(directive.children());
        // Checked also where nothing gets there.
        let target = target(&scope, notes).filter(|_| !scope.answers());
        let inner = locations(&scope, left, notes);
        found.push(Location {
            directive,
            pattern,
            scope,
            target,
        });
        found.extend(inner);
    }
    found
}

fn pattern(location: &Directive) -> Option<Pattern<'_>> {
    let of = |sign: &str, path| match sign {
        "=" => Some(Pattern::Exact(path)),
        "^~" => Some(Pattern::Prefix(path)),
        "~" | "~*" => Some(Pattern::Regex(path)),
        _ => None,
    };
    match location.args.as_slice() {
        [sign, path] => of(sign, path),
        [only] => ["=", "^~", "~*", "~"]
            .into_iter()
            .find_map(|sign| of(sign, only.strip_prefix(sign)?))
            .or(Some(match only.strip_prefix('@') {
                Some(_) => Pattern::Named,
                None => Pattern::Prefix(only),
            })),
        _ => None,
    }
}

/// Where the location whose scope this is sends requests.
fn target<'a>(scope: &Scope<'a>, notes: &mut Notes) -> Option<Target<'a>> {
    let proxy_pass = *scope.own("proxy_pass").last()?;
    let [url] = proxy_pass.args.as_slice() else {
        notes.mistake(proxy_pass, "write one URL, as in http://vllm_pool");
        return None;
    };
    let (full, set) = scope.filled_in(url);
    if full.contains('$') {
        notes.not_carried(
            proxy_pass,
            "where it sends requests is in a variable; write the upstream's name",
        );
        return None;
    }
    let (tls, rest) = if let Some(rest) = full.strip_prefix("http://") {
        (false, rest)
    } else if let Some(rest) = full.strip_prefix("https://") {
        (true, rest)
    } else {
        let what = format!(
            "{} has no http:// or https://; write it",
            quoted(without_query(&full))
        );
        notes.mistake(proxy_pass, what);
        return None;
    };
    let (authority, uri) = match rest.strip_prefix("unix:") {
        Some(path) => match path.split_once(':') {
            Some((path, uri)) => (format!("unix:{path}"), uri),
            None => (rest.to_owned(), ""),
        },
        None => {
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            (rest[..end].to_owned(), &rest[end..])
        }
    };
    if authority.is_empty() || authority == "unix:" {
        let what = format!("{} has no host", quoted(without_query(&full)));
        notes.mistake(proxy_pass, what);
        return None;
    }
    if authority.contains('@') {
        notes.mistake(proxy_pass, "has a user before \"@\", which nginx does not take either; write proxy_set_header Authorization, and the host alone here");
        return None;
    }
    Some(Target {
        proxy_pass,
        set,
        tls,
        authority,
        uri: (!uri.is_empty()).then(|| uri.to_owned()),
    })
}

/// What may be shown of a URL: a query may hold a key.
fn without_query(url: &str) -> &str {
    url.split_once('?').map_or(url, |(before, _)| before)
}
