//! What to say of a key that does not exist.

use super::diagnostic::shown;
use super::parse::Entry;
use super::reader::Reader;
use super::schema::{self, HABITS, KEYS};

/// Notes a mistake if `section` has no such key.
pub(super) fn check(reader: &Reader<'_>, entry: &Entry, section: &'static str, path: &str) {
    let name = &*entry.key;
    if schema::find(section, name).is_some() || names_are_free(section) {
        return;
    }
    let mut path = path.to_owned();
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(&shown(name));
    let (message, help) = if schema::is_later(section, name) {
        (
            "is not supported yet",
            "this version has no such feature: remove the key".to_owned(),
        )
    } else {
        ("unknown key", remedy(section, name))
    };
    reader.problem(entry.at, &path, message, help);
}

/// Whether the operator chooses the names of the section's keys.
fn names_are_free(section: &str) -> bool {
    matches!(section, "pools" | "models")
}

fn remedy(section: &'static str, name: &str) -> String {
    let whole = schema::names(section).find(|own| {
        let rest = own.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with('_'))
    });
    if let Some(whole) = whole {
        return format!("did you mean {whole}?");
    }
    if let Some((_, here)) = HABITS.iter().find(|(habit, _)| *habit == name) {
        return format!("here it is called {here}");
    }
    if let Some(near) = nearest(name, schema::names(section)) {
        return format!("did you mean {near}?");
    }
    if let Some(part) = schema::names(section).find(|own| own.len() > 3 && name.contains(own)) {
        return format!("did you mean {part}?");
    }
    let elsewhere = KEYS.iter().find_map(|key| {
        let (within, other) = schema::split(key.path);
        (other == name).then_some(within)
    });
    match elsewhere {
        Some("") => format!("{name} belongs at the top of the file, without indentation"),
        Some(within) => {
            let within = within.replace('*', "NAME").replace("[]", "");
            format!("{name} belongs in {within}")
        }
        None => {
            let names: Vec<&str> = schema::names(section).collect();
            format!("the keys here are {}", names.join(", "))
        }
    }
}

/// The name that `text` was probably meant to be.
pub(super) fn nearest<'a>(text: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // The comparison takes time by the square of the length.
    if text.len() > 64 {
        return None;
    }
    let text = text.to_lowercase().replace('-', "_");
    names
        .map(|name| (strsim::damerau_levenshtein(&text, name), name))
        .filter(|(distance, name)| *distance <= (name.len() / 3).min(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_meant() {
        for (text, meant) in [
            ("endpoint", "endpoints"),
            ("end-points", "endpoints"),
            ("Listen", "listen"),
            ("acces_log", "access_log"),
            ("timeout", "timeouts"),
        ] {
            assert_eq!(nearest(text, schema::names("")), Some(meant), "{text}");
        }
        assert_eq!(nearest("upstream", schema::names("")), None);
        assert_eq!(nearest(&"x".repeat(100_000), schema::names("")), None);
    }

    #[test]
    fn says_where_a_key_belongs() {
        assert_eq!(remedy("", "policy"), "policy belongs in pools.NAME");
        assert_eq!(
            remedy("pools.*", "listen"),
            "listen belongs at the top of the file, without indentation"
        );
        assert_eq!(
            remedy("", "proxy_send_timeout"),
            "here it is called timeouts.send"
        );
        assert_eq!(
            remedy("models.*", "upstream"),
            "did you mean upstream_model?"
        );
        assert_eq!(
            remedy("keys[]", "upstream_model"),
            "upstream_model belongs in models.NAME"
        );
        assert!(remedy("log", "zzz").contains("level, format"));
    }

    #[test]
    fn every_habit_leads_to_a_key() {
        for (_, here) in HABITS {
            let first = here.split([' ', '.']).next().unwrap();
            assert!(
                KEYS.iter().any(|key| schema::split(key.path).1 == first),
                "{here}"
            );
        }
    }
}
