//! Every directive that nothing else has looked at: said why it is not carried, or that it asks for
//! nothing. None is passed over in silence.

use super::choice::Choice;
use super::notes::Notes;
use super::site::Site;
use super::table::{self, Fate};
use super::tree::Directive;

/// Walks the whole file.
pub(super) fn rest(
    directives: &[Directive],
    site: &Site<'_>,
    choice: &Choice<'_>,
    notes: &mut Notes,
) {
    all(directives, site, choice, notes);
    // A file without `http` is the inside of one.
    if !std::ptr::eq(directives, site.directives) {
        all(site.directives, site, choice, notes);
    }
    for location in &choice.locations {
        all(location.directive.children(), site, choice, notes);
    }
}

fn all(directives: &[Directive], site: &Site<'_>, choice: &Choice<'_>, notes: &mut Notes) {
    for directive in directives {
        one(directive, site, choice, notes);
    }
}

/// A directive, and what is in its block where that is carried. Locations are not looked into here.
fn one(directive: &Directive, site: &Site<'_>, choice: &Choice<'_>, notes: &mut Notes) {
    match directive.name.as_str() {
        "events" => all(directive.children(), site, choice, notes),
        "server" => server(directive, site, choice, notes),
        "upstream" => upstream(directive, site, choice, notes),
        "set" if (choice.target.set).contains(&directive.arg(0).trim_start_matches('$')) => {}
        "set" => notes.not_carried(directive, "there are no variables"),
        "log_format" => notes.not_carried(directive, "the access log is json or combined"),
        _ => by_table(directive, notes),
    }
}

fn by_table(directive: &Directive, notes: &mut Notes) {
    match table::find(&directive.name).map(|entry| entry.fate) {
        Some(Fate::Carried) => {}
        Some(Fate::Same(values, why)) => {
            if !values.contains(&directive.args.join(" ").as_str()) {
                notes.not_carried(directive, why);
            }
        }
        Some(Fate::Not(why)) => notes.not_carried(directive, why),
        None => notes.not_carried(directive, table::why_not(&directive.name)),
    }
}

fn server(directive: &Directive, site: &Site<'_>, choice: &Choice<'_>, notes: &mut Notes) {
    let mut carried = choice.servers.iter();
    let Some(server) = carried.find(|s| std::ptr::eq(s.directive, directive)) else {
        let authority = choice.target.authority.escape_debug();
        notes.not_carried(
            directive,
            format!("it sends no requests to {authority}, so nothing listens on its addresses; its directives are not looked at"),
        );
        return;
    };
    all(directive.children(), site, choice, notes);
    // Any other location that is not carried has a line of its own.
    for location in &server.locations {
        if location.own("stub_status").is_some() {
            for inner in location.directive.children() {
                status(inner, site, choice, notes);
            }
        }
    }
}

/// The inside of a location that shows nginx' counts.
fn status(directive: &Directive, site: &Site<'_>, choice: &Choice<'_>, notes: &mut Notes) {
    match directive.name.as_str() {
        // Who may read them has been said.
        "allow" | "deny" => {}
        "access_log" if directive.arg(0) != "off" => {
            notes.not_carried(directive, "who asks for counts is not logged");
        }
        _ => one(directive, site, choice, notes),
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
            let (ours, name) = (choice.target.authority.escape_debug(), name.escape_debug());
            format!(
                "a gateway has one pool so far, {ours}; `--upstream {name}` prints the one for this"
            )
        } else {
            "no location sends requests to it".to_owned()
        },
    );
}
