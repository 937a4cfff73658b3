//! nginx' configuration as ours.
//!
//! In the order of the work: `files`, `lexer` and `parser` read a `tree`, `check` finds what nginx would refuse
//! (by `names` and `table`), `site` (with `scope`) is the file as nginx sees it, `choice` the part of it that
//! becomes the gateway (`targets` asks whether a name was meant for another); `listen`, `paths` (with `roles`),
//! `pool` (with `servers`), `settings`, `retries`, `fields`, `logs` and `process` carry it over; `rest` (with `vhosts`,
//! `rewrites`, `guards`) says what became of every other directive.

mod arity;
mod check;
mod choice;
mod fields;
mod files;
mod guards;
mod lexer;
mod listen;
mod logs;
mod names;
mod notes;
mod parser;
mod paths;
mod pool;
mod process;
mod rest;
mod retries;
mod rewrites;
mod roles;
mod scope;
mod servers;
mod settings;
mod site;
mod table;
mod targets;
mod tree;
mod value;
mod vhosts;

use std::path::Path;

use crate::config::{self, Config};

use super::yaml::Yaml;
use super::{Broken, Imported};
use choice::Choice;
use notes::Notes;
use settings::{Keys, Settings};
use site::Site;

/// Reads the nginx.conf at `path` and what it includes. Of several upstreams that locations send
/// requests to, `upstream` names the one that is wanted.
///
/// # Errors
/// What nginx would refuse, or what no configuration can be made of; each with file and line.
pub fn import(path: &Path, upstream: Option<&str>) -> Result<Imported, Broken> {
    let tree = files::read(path).map_err(|e| Broken::one(format!("{}: {}", e.at, e.what)))?;
    let mut notes = Notes::default();
    check::check(&tree.directives, &mut notes);
    if let Some(lines) = notes.broken() {
        return Err(Broken { lines });
    }
    if tree.directives.is_empty() {
        return Err(Broken::one(format!(
            "{}: holds no directive; name the nginx.conf",
            path.display()
        )));
    }
    for missed in &tree.missed {
        notes.say(&missed.include, &missed.why);
    }
    let made = Site::of(&tree.directives, &mut notes).and_then(|site| {
        targets::check(&site, &mut notes);
        let choice = Choice::of(&site, upstream, &mut notes)?;
        let keys = Maker {
            directives: &tree.directives,
            site: &site,
            choice: &choice,
            defaults: &defaults(),
            base: &directory(path),
        }
        .make(&mut notes);
        Some(Yaml::document(&keys))
    });
    if let Some(mut lines) = notes.broken() {
        // What was not found may be what is missed.
        let missed = tree.missed.iter().filter(|missed| !missed.is_needless);
        lines.extend(missed.map(|m| format!("{}: include: {}", m.include.at, m.why)));
        return Err(Broken { lines });
    }
    let Some(yaml) = made else {
        return Err(Broken::one(format!(
            "{}: nothing can be made of it",
            path.display()
        )));
    };
    accepted(path, &yaml)?;
    Ok(Imported {
        yaml,
        notes: notes.lines(),
    })
}

/// What is made must be what the gateway takes.
fn accepted(path: &Path, yaml: &str) -> Result<(), Broken> {
    let name = format!("{}: as sluicegate.yaml", path.display());
    let read = config::parse_str(yaml, &name, Path::new("/"), &|_| None);
    read.map(|_| ()).map_err(|mistakes| Broken {
        lines: mistakes.iter().map(ToString::to_string).collect(),
    })
}

/// A configuration in which nothing but an endpoint is written.
fn defaults() -> Config {
    config::parse_str("endpoints: [\"a:1\"]\n", "", Path::new("/"), &|_| None)
        .expect("an endpoint is a configuration")
}

/// Where relative files begin.
fn directory(path: &Path) -> std::path::PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    absolute.parent().unwrap_or(Path::new("/")).to_owned()
}

struct Maker<'a> {
    directives: &'a [tree::Directive],
    site: &'a Site<'a>,
    choice: &'a Choice<'a>,
    defaults: &'a Config,
    base: &'a Path,
}

impl Maker<'_> {
    /// The keys of the file, in the order a person would write them.
    fn make(&self, notes: &mut Notes) -> Keys {
        let settings = Settings {
            choice: self.choice,
            defaults: self.defaults,
            http: self.site.http,
        };
        let process = process::process(self.directives, self.defaults, notes);
        let paths = paths::paths(self.site, self.choice, notes);
        let pool = pool::pool(
            &pool::Surroundings {
                choice: self.choice,
                defaults: self.defaults,
                base: self.base,
                many_workers: process.many_workers,
                api_key: fields::request_fields(self.choice, notes),
                retries: settings.retries(notes),
            },
            notes,
        );
        let mut limits = process.limits;
        limits.extend(settings.limits(notes));
        let mut keys = Keys::new();
        let listen = listen::listen(self.choice, self.base, notes);
        keys.push(("listen", listen));
        // One pool that has nothing but endpoints needs no name.
        match pool.keys.as_slice() {
            [only] => keys.push(only.clone()),
            _ => keys.push(("pools", Yaml::Map(vec![("default", Yaml::Map(pool.keys))]))),
        }
        keys.extend(paths.expose.map(|expose| ("expose", expose)));
        let status = process::status_allow(&paths.status, notes);
        keys.extend(status.map(|networks| ("status_allow", networks)));
        let proxies = settings.trusted_proxies(notes);
        keys.extend(proxies.map(|networks| ("trusted_proxies", networks)));
        keys.extend(process.keys);
        keys.extend(process::resolve(self.choice, self.defaults, notes));
        keys.extend(logs::log(self.directives, self.choice, notes).map(|level| ("log", level)));
        keys.extend(logs::access_log(self.choice, notes).map(|log| ("access_log", log)));
        for (name, section) in [
            ("limits", limits),
            ("client", settings.client(notes)),
            ("timeouts", settings.timeouts(notes)),
            ("keepalive", pool.keepalive),
        ] {
            if !section.is_empty() {
                keys.push((name, Yaml::Map(section)));
            }
        }
        rest::rest(self.directives, self.site, self.choice, paths.is_all, notes);
        keys
    }
}

#[cfg(test)]
mod tests;
