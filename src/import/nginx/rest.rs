//! Every directive that nothing else has looked at: said why it is not carried, or that it asks for
//! nothing. None is passed over in silence.

use super::choice::Choice;
use super::notes::Notes;
use super::site::{Location, Pattern, Site};
use super::table::{self, Fate};
use super::tree::Directive;

/// Walks the whole file.
pub(super) fn rest(
    directives: &[Directive],
    site: &Site<'_>,
    choice: &Choice<'_>,
    notes: &mut Notes,
) {
    for directive in directives {
        match directive.name.as_str() {
            "events" => directive.children().iter().for_each(|d| one(d, notes)),
            "http" => {}
            // The file is the inside of `http`.
            _ if std::ptr::eq(directives, site.directives) => {}
            _ => one(directive, notes),
        }
    }
    for directive in site.directives {
        match directive.name.as_str() {
            "server" => server(directive, choice, notes),
            "upstream" => upstream(directive, choice, notes),
            _ => one(directive, notes),
        }
    }
    for location in &choice.locations {
        inside(location.directive, choice, notes);
    }
}

fn server(directive: &Directive, choice: &Choice<'_>, notes: &mut Notes) {
    let is_carried = |server: &&super::site::Server<'_>| std::ptr::eq(server.directive, directive);
    let Some(server) = choice.servers.iter().find(|s| is_carried(s)) else {
        let authority = &choice.target.authority;
        notes.not_carried(
            directive,
            format!("it sends no requests to {authority}, so nothing listens on its addresses; its directives are not looked at"),
        );
        return;
    };
    for directive in directive.children().iter().filter(|d| d.name != "location") {
        one(directive, notes);
    }
    for location in server.locations.iter().filter(|l| !choice.has(l)) {
        if location.own("stub_status").is_some() {
            for directive in location.directive.children() {
                status(directive, location, notes);
            }
        } else if nests(location) {
            // Its block is named; those within it that are carried are not.
            continue;
        }
    }
}

fn nests(location: &Location<'_>) -> bool {
    location.pattern != Pattern::Named
}

/// The inside of a location that shows nginx' counts, but for who may read them.
fn status(directive: &Directive, location: &Location<'_>, notes: &mut Notes) {
    let silent = match directive.name.as_str() {
        "allow" | "deny" => true,
        // Who asks for counts is not logged.
        "access_log" => directive.arg(0) == "off",
        "location" => location.own("location").is_some(),
        _ => false,
    };
    if !silent {
        one(directive, notes);
    }
}

fn upstream(directive: &Directive, choice: &Choice<'_>, notes: &mut Notes) {
    let is_carried = choice.upstream.is_some_and(|u| std::ptr::eq(u, directive));
    if is_carried {
        directive.children().iter().for_each(|d| one(d, notes));
        return;
    }
    let name = directive.arg(0);
    notes.not_carried(
        directive,
        format!(
            "a gateway has one pool so far, {}; `--upstream {name}` prints the one for this",
            choice.target.authority
        ),
    );
}

/// The inside of a location that is carried.
fn inside(location: &Directive, choice: &Choice<'_>, notes: &mut Notes) {
    for directive in location.children().iter().filter(|d| d.name != "location") {
        match directive.name.as_str() {
            "set" if choice.target.set == Some(directive.arg(0).trim_start_matches('$')) => {}
            _ => one(directive, notes),
        }
    }
}

fn one(directive: &Directive, notes: &mut Notes) {
    let name = directive.name.as_str();
    match table::find(name).map(|entry| entry.fate) {
        // Where it is used, it is not looked at again.
        Some(Fate::Carried) if name == "set" => {
            notes.not_carried(directive, "there are no variables");
        }
        Some(Fate::Carried) if name == "log_format" => {
            notes.not_carried(directive, "the access log is json or combined");
        }
        Some(Fate::Carried) => {}
        Some(Fate::Same(values, why)) => {
            if !values.contains(&directive.args.join(" ").as_str()) {
                notes.not_carried(directive, why);
            }
        }
        Some(Fate::Not(why)) => notes.not_carried(directive, why),
        None => notes.not_carried(directive, table::why_not(name)),
    }
}
