//! Every directive that nothing else has looked at: said why it is not carried, or that it asks for
//! nothing. None is passed over in silence.

use super::choice::Choice;
use super::guards;
use super::notes::Notes;
use super::rewrites;
use super::site::Site;
use super::table::{self, Fate};
use super::tree::{Directive, quoted};
use super::vhosts::{self, Taken};

/// Walks the whole file. `is_all` is whether every path is exposed.
pub(super) fn rest(
    directives: &[Directive],
    site: &Site<'_>,
    choice: &Choice<'_>,
    is_all: bool,
    notes: &mut Notes,
) {
    let walk = Walk {
        site,
        choice,
        is_all,
        taken: Taken::by(choice),
    };
    walk.all(directives, notes);
    // A file without `http` is the inside of one.
    if !std::ptr::eq(directives, site.directives) {
        walk.all(site.directives, notes);
    }
    for location in &choice.locations {
        walk.all(location.directive.children(), notes);
    }
}

struct Walk<'a> {
    site: &'a Site<'a>,
    choice: &'a Choice<'a>,
    is_all: bool,
    taken: Taken,
}

impl Walk<'_> {
    fn all(&self, directives: &[Directive], notes: &mut Notes) {
        for directive in directives {
            self.one(directive, notes);
        }
    }

    /// A directive, and what is in its block where that is carried. Locations are not looked into here.
    fn one(&self, directive: &Directive, notes: &mut Notes) {
        match directive.name.as_str() {
            "events" => self.all(directive.children(), notes),
            "server" => self.server(directive, notes),
            "upstream" => upstream(directive, self.site, self.choice, notes),
            "set"
                if (self.choice.target.set).contains(&directive.arg(0).trim_start_matches('$')) => {
            }
            "set" => notes.not_carried(directive, "there are no variables"),
            "log_format" => notes.not_carried(directive, "the access log is json or combined"),
            "rewrite" => rewrites::rewrite(directive, self.is_all, notes),
            "if" if guards::is_guard(directive) => notes.unguarded(
                directive,
                "there are no conditions: requests that this one refuses are served",
            ),
            _ => by_table(directive, notes),
        }
    }

    fn server(&self, directive: &Directive, notes: &mut Notes) {
        let is_it = |server: &&super::site::Server<'_>| std::ptr::eq(server.directive, directive);
        let Some(server) = self.site.servers.iter().find(is_it) else {
            return;
        };
        if !(self.choice.servers.iter()).any(|carried| std::ptr::eq(*carried, server)) {
            vhosts::not_carried(server, &self.taken, self.choice, notes);
            return;
        }
        self.all(directive.children(), notes);
        // Any other location that is not carried has a line of its own.
        for location in &server.locations {
            if location.own("stub_status").is_some() {
                for inner in location.directive.children() {
                    self.status(inner, notes);
                }
            }
        }
    }

    /// The inside of a location that shows nginx' counts.
    fn status(&self, directive: &Directive, notes: &mut Notes) {
        match directive.name.as_str() {
            // Who may read them has been said.
            "allow" | "deny" => {}
            "access_log" if directive.arg(0) != "off" => {
                notes.not_carried(directive, "who asks for counts is not logged");
            }
            _ => self.one(directive, notes),
        }
    }
}

fn by_table(directive: &Directive, notes: &mut Notes) {
    let why = match table::find(&directive.name).map(|entry| entry.fate) {
        Some(Fate::Carried) => return,
        Some(Fate::Same(values, _)) if values.contains(&directive.args.join(" ").as_str()) => {
            return;
        }
        Some(Fate::Same(_, why) | Fate::Not(why)) => why,
        None => table::why_not(&directive.name),
    };
    if guards::is_guard(directive) {
        notes.unguarded(directive, why);
    } else {
        notes.not_carried(directive, why);
    }
}

fn upstream(directive: &Directive, site: &Site<'_>, choice: &Choice<'_>, notes: &mut Notes) {
    if choice.upstream.is_some_and(|u| std::ptr::eq(u, directive)) {
        for inner in directive.children() {
            if inner.name == "resolver" {
                notes.not_carried(inner, "names are looked up by the system's resolver");
            } else {
                by_table(inner, notes);
            }
        }
        return;
    }
    let name = directive.arg(0);
    let mut locations = site.servers.iter().flat_map(|server| &server.locations);
    let is_used = locations.any(|location| {
        let target = location.target.as_ref();
        target.is_some_and(|t| t.authority.eq_ignore_ascii_case(name))
    });
    notes.not_carried(
        directive,
        if is_used {
            let (ours, name) = (quoted(&choice.target.authority), name.escape_debug());
            format!(
                "a gateway has one pool so far, {ours}; `--upstream {name}` prints the one for this"
            )
        } else {
            "no location sends requests to it".to_owned()
        },
    );
}
