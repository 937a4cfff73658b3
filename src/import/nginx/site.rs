//! A file as nginx sees it: servers, their locations, and where these send requests.

use super::notes::Notes;
use super::tree::{Directive, constants, quoted};

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
    pub locations: Vec<Location<'a>>,
}

pub(super) struct Location<'a> {
    pub directive: &'a Directive,
    pub pattern: Pattern<'a>,
    /// Its own directives, those around it, the server's and the whole site's.
    pub levels: Vec<&'a [Directive]>,
    /// Where it sends requests.
    pub target: Option<Target<'a>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    /// The `set` that its variable came from.
    pub set: Option<&'a str>,
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
        let servers = inside.iter().filter(|d| d.name == "server");
        let servers = servers
            .map(|server| Server {
                directive: server,
                locations: locations(&[server.children(), inside], notes),
            })
            .collect();
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
    /// The directives of a name that are in force: those of the innermost level that has any.
    pub fn effective(&self, name: &str) -> Vec<&'a Directive> {
        effective(&self.levels, name)
    }

    /// The last of them.
    pub fn setting(&self, name: &str) -> Option<&'a Directive> {
        self.effective(name).pop()
    }

    /// Whether its own block has it.
    pub fn own(&self, name: &str) -> Option<&'a Directive> {
        self.levels.first()?.iter().find(|d| d.name == name)
    }

    pub fn is_root(&self) -> bool {
        self.pattern == Pattern::Prefix("/")
    }
}

/// The directives of a name that are in force where `levels` begins.
pub(super) fn effective<'a>(levels: &[&'a [Directive]], name: &str) -> Vec<&'a Directive> {
    for level in levels {
        let here: Vec<_> = level.iter().filter(|d| d.name == name).collect();
        if !here.is_empty() {
            return here;
        }
    }
    Vec::new()
}

/// The locations right in the first of `levels`, and those within them.
fn locations<'a>(levels: &[&'a [Directive]], notes: &mut Notes) -> Vec<Location<'a>> {
    let mut found = Vec::new();
    let Some(here) = levels.first() else {
        return found;
    };
    for directive in here.iter().filter(|d| d.name == "location") {
        let Some(pattern) = pattern(directive) else {
            notes.mistake(directive, "write a path, or = ~ ~* ^~ and a path");
            continue;
        };
        let mut levels = levels.to_vec();
        levels.insert(0, directive.children());
        let target = target(&levels, notes);
        let inner = locations(&levels, notes);
        found.push(Location {
            directive,
            pattern,
            levels,
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

/// Where the location whose levels these are sends requests.
fn target<'a>(levels: &[&'a [Directive]], notes: &mut Notes) -> Option<Target<'a>> {
    let proxy_pass = levels.first()?.iter().rfind(|d| d.name == "proxy_pass")?;
    let [url] = proxy_pass.args.as_slice() else {
        notes.mistake(proxy_pass, "write one URL, as in http://vllm_pool");
        return None;
    };
    let constants = constants(levels.iter().copied());
    let variable = (constants.iter()).find(|(name, _)| {
        url.contains(&format!("${name}")) || url.contains(&format!("${{{name}}}"))
    });
    let full = match variable {
        None => url.clone(),
        Some((name, value)) => url
            .replace(&format!("${{{name}}}"), value)
            .replace(&format!("${name}"), value),
    };
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
        let what = format!("{} has no http:// or https://; write it", quoted(&full));
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
        notes.mistake(proxy_pass, format!("{} has no host", quoted(&full)));
        return None;
    }
    Some(Target {
        proxy_pass,
        set: variable.map(|(name, _)| *name),
        tls,
        authority,
        uri: (!uri.is_empty()).then(|| uri.to_owned()),
    })
}
