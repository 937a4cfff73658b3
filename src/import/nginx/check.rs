//! Whether nginx would know the directives, and take them where they stand.

use super::arity;
use super::names;
use super::notes::Notes;
use super::table;
use super::tree::Directive;

/// Where a directive stands, as [`table::Entry::places`] has it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Main,
    /// A file that is the inside of an `http` block.
    Fragment,
    Inside(char),
}

/// Notes every directive that nginx would refuse.
pub(super) fn check(directives: &[Directive], notes: &mut Notes) {
    // A module may bring directives of its own.
    let has_modules = directives.iter().any(|d| d.name == "load_module");
    let is_fragment = !directives.iter().any(|d| d.name == "http")
        && directives
            .iter()
            .any(|d| matches!(&*d.name, "server" | "upstream"));
    let place = if is_fragment {
        Place::Fragment
    } else {
        Place::Main
    };
    level(directives, place, has_modules, notes);
}

fn level(directives: &[Directive], place: Place, has_modules: bool, notes: &mut Notes) {
    for directive in directives {
        let name = &*directive.name;
        if !names::is_known(name) {
            if !has_modules && !names::is_of_others(name) {
                // Looking for what was meant takes a while.
                let what = if notes.is_full() {
                    String::new()
                } else {
                    unknown(name)
                };
                notes.mistake(directive, what);
            }
            continue;
        }
        if !is_allowed(name, place) {
            notes.mistake(directive, "is not allowed here");
            continue;
        }
        if let Some(fault) = arity::fault(directive) {
            notes.mistake(directive, fault);
            continue;
        }
        let in_upstream = place == Place::Inside('u');
        let is_block = names::is_block(name) && !(name == "server" && in_upstream);
        match (is_block, &directive.block) {
            (true, None) => notes.mistake(directive, "has no block; write \"{\" after it"),
            (false, Some(_)) => {
                notes.mistake(
                    directive,
                    "is not a block: a \";\" is missing before the \"{\"",
                );
            }
            (true, Some(inside)) if !names::is_opaque(name) => {
                let inner = match name {
                    "events" => 'e',
                    "http" => 'h',
                    "server" => 's',
                    "upstream" => 'u',
                    "if" => 'i',
                    _ => 'l',
                };
                level(inside, Place::Inside(inner), has_modules, notes);
            }
            _ => {}
        }
    }
}

fn is_allowed(name: &str, place: Place) -> bool {
    let Some(entry) = table::find(name) else {
        return true;
    };
    let has = |c| entry.places.contains(c);
    entry.places.is_empty()
        || match place {
            Place::Main => has('m'),
            Place::Fragment => has('h') || has('m'),
            Place::Inside('i') => has('i') || has('l'),
            Place::Inside(c) => has(c),
        }
}

fn unknown(name: &str) -> String {
    match names::nearest(name) {
        Some(near) => format!("is no directive of nginx; did you mean {near}?"),
        None => "is no directive of nginx; remove it".to_owned(),
    }
}
