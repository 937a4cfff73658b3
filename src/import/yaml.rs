//! Configuration as a person would write it: short things on one line.

use std::fmt::Write;

use crate::config::escape;

/// Lines are at most this long where there is a choice.
const WIDTH: usize = 100;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Yaml {
    /// A word or a number that needs no quotes.
    Plain(String),
    /// Text of any kind.
    Text(String),
    /// What an environment variable of this name holds.
    Variable(String),
    List(Vec<Yaml>),
    Map(Vec<(&'static str, Yaml)>),
    /// A mapping whose keys are names of the operator's.
    Named(Vec<(String, Yaml)>),
}

impl Yaml {
    pub fn plain(value: &(impl ToString + ?Sized)) -> Self {
        Self::Plain(value.to_string())
    }

    pub fn text(value: &(impl ToString + ?Sized)) -> Self {
        Self::Text(value.to_string())
    }

    /// A file with these keys.
    pub fn document(keys: &[(&'static str, Yaml)]) -> String {
        let mut out = String::new();
        block_map(&mut out, keys, 0);
        out
    }

    fn is_leaf(&self) -> bool {
        matches!(self, Self::Plain(_) | Self::Text(_) | Self::Variable(_))
    }

    /// On one line; `None` where that would be hard to read.
    fn flow(&self, room: usize) -> Option<String> {
        let line = match self {
            Self::Plain(text) => text.clone(),
            Self::Text(text) => quoted(text),
            Self::Variable(name) => format!("\"${{{name}}}\""),
            Self::List(items) => {
                let items: Option<Vec<_>> = items.iter().map(|item| item.flow(room)).collect();
                format!("[{}]", items?.join(", "))
            }
            Self::Map(keys) => flow_map(keys.iter().map(|(key, value)| (*key, value)), room)?,
            Self::Named(keys) => {
                let names: Vec<_> = keys.iter().map(|(name, _)| scalar(name)).collect();
                let values = keys.iter().map(|(_, value)| value);
                flow_map(names.iter().map(String::as_str).zip(values), room)?
            }
        };
        (self.is_leaf() || line.len() <= room).then_some(line)
    }

    /// Whether a line holds it without a mapping in a mapping or a list of mappings.
    fn is_flat(&self) -> bool {
        match self {
            Self::Plain(_) | Self::Text(_) | Self::Variable(_) => true,
            Self::List(items) => items.iter().all(Yaml::is_leaf),
            Self::Map(keys) => keys.iter().all(|(_, value)| value.is_leaf()),
            Self::Named(keys) => keys.iter().all(|(_, value)| value.is_leaf()),
        }
    }
}

fn flow_map<'a>(keys: impl Iterator<Item = (&'a str, &'a Yaml)>, room: usize) -> Option<String> {
    let keys: Option<Vec<_>> = keys
        .map(|(key, value)| Some(format!("{key}: {}", value.flow(room)?)))
        .collect();
    Some(match keys?.as_slice() {
        [] => "{}".to_owned(),
        keys => format!("{{ {} }}", keys.join(", ")),
    })
}

fn block_map<K: AsRef<str>>(out: &mut String, keys: &[(K, Yaml)], depth: usize) {
    for (key, value) in keys {
        let (key, indent) = (key.as_ref(), depth * 2);
        let _ = write!(out, "{:indent$}{key}:", "");
        block_value(out, value, indent + key.len() + 2, depth);
    }
}

/// What stands after a key's colon; `used` columns are taken.
fn block_value(out: &mut String, value: &Yaml, used: usize, depth: usize) {
    if value.is_flat()
        && let Some(line) = value.flow(WIDTH.saturating_sub(used))
    {
        let _ = writeln!(out, " {line}");
        return;
    }
    out.push('\n');
    match value {
        Yaml::Map(keys) => block_map(out, keys, depth + 1),
        Yaml::Named(keys) => {
            let keys: Vec<_> = (keys.iter())
                .map(|(name, value)| (scalar(name), value.clone()))
                .collect();
            block_map(out, &keys, depth + 1);
        }
        Yaml::List(items) => {
            for item in items {
                let indent = (depth + 1) * 2;
                // An item is short: an address, an endpoint.
                let line = item.flow(usize::MAX).unwrap_or_default();
                let _ = writeln!(out, "{:indent$}- {line}", "");
            }
        }
        Yaml::Plain(_) | Yaml::Text(_) | Yaml::Variable(_) => {}
    }
}

/// As a YAML scalar that reads back, in a configuration, as this text and nothing else.
pub(crate) fn quoted(text: &str) -> String {
    scalar(&escape(text))
}

/// A YAML scalar that is this text and nothing else.
fn scalar(text: &str) -> String {
    let is_safe = |c: char| c.is_ascii_alphanumeric() || "_-./:@+".contains(c);
    // What follows a colon directly is no value to YAML, and a word that begins with a letter or a
    // slash is no number. The words that are more than words are few.
    let is_plain = text.chars().all(is_safe)
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && !text.ends_with(':')
        && !matches!(
            text.to_ascii_lowercase().as_str(),
            "null" | "true" | "false" | "yes" | "no" | "on" | "off" | "y" | "n"
        );
    // An IPv4 address with a port is neither a number nor a time of YAML 1.1.
    let is_address = text.parse::<std::net::SocketAddrV4>().is_ok()
        || text.parse::<std::net::Ipv4Addr>().is_ok()
        || text.parse::<ipnet::Ipv4Net>().is_ok();
    if is_plain || is_address {
        return text.to_owned();
    }
    let mut line = String::with_capacity(text.len() + 2);
    line.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => line.extend(['\\', c]),
            ' '..='~' => line.push(c),
            c if c.is_alphanumeric() => line.push(c),
            c => {
                let _ = write!(line, "\\U{:08x}", u32::from(c));
            }
        }
    }
    line.push('"');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(items: &[&str]) -> Yaml {
        Yaml::List(items.iter().map(Yaml::text).collect())
    }

    #[test]
    fn what_is_short_stands_on_one_line() {
        let pool = Yaml::Map(vec![
            ("endpoints", list(&["node0:8000", "[::1]:8000"])),
            ("health", Yaml::Map(vec![("eject_for", Yaml::plain("30s"))])),
        ]);
        let keys = [
            ("listen", Yaml::plain(&80)),
            ("pools", Yaml::Map(vec![("default", pool)])),
        ];
        assert_eq!(
            Yaml::document(&keys),
            "listen: 80\npools:\n  default:\n    endpoints: [node0:8000, \"[::1]:8000\"]\n    \
             health: { eject_for: 30s }\n"
        );
    }

    #[test]
    fn a_long_list_and_a_list_of_mappings_take_a_line_for_each() {
        let names: Vec<String> = (0..12)
            .map(|n| format!("inference-node-{n}:8000"))
            .collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let long = Yaml::document(&[("endpoints", list(&names))]);
        assert_eq!(long.lines().count(), 13, "{long}");
        let endpoint = Yaml::Map(vec![
            ("url", Yaml::text("node0:8000")),
            ("weight", Yaml::plain(&2)),
        ]);
        let text = Yaml::document(&[("endpoints", Yaml::List(vec![endpoint]))]);
        assert_eq!(text, "endpoints:\n  - { url: node0:8000, weight: 2 }\n");
    }

    #[test]
    fn an_item_of_a_list_is_there_however_long_it_is() {
        let path = |name| format!("/etc/letsencrypt/live/gateway.example.com/{name}.pem");
        let tls = Yaml::Map(vec![
            ("certificate", Yaml::text(&path("fullchain"))),
            ("key", Yaml::text(&path("privkey"))),
        ]);
        let listener = Yaml::Map(vec![("address", Yaml::plain(&443)), ("tls", tls)]);
        let text = Yaml::document(&[("listen", Yaml::List(vec![Yaml::plain(&80), listener]))]);
        assert_eq!(
            text,
            format!(
                "listen:\n  - 80\n  - {{ address: 443, tls: {{ certificate: {}, key: {} }} }}\n",
                path("fullchain"),
                path("privkey")
            )
        );
    }

    #[test]
    fn variables_and_names_of_the_operators_are_told_from_text() {
        let model = Yaml::Map(vec![("upstream_model", Yaml::text("a/b"))]);
        let keys = [
            ("key", Yaml::Variable("KEY".into())),
            ("text", Yaml::text("${KEY}")),
            (
                "models",
                Yaml::Named(vec![
                    ("on".into(), model.clone()),
                    ("a: ${b}".into(), model),
                ]),
            ),
        ];
        assert_eq!(
            Yaml::document(&keys),
            "key: \"${KEY}\"\ntext: \"$${KEY}\"\nmodels:\n  \"on\": { upstream_model: a/b }\n  \
             \"a: ${b}\": { upstream_model: a/b }\n"
        );
    }

    proptest::proptest! {
        #[test]
        fn text_reads_back_as_it_was(text in ".{0,40}") {
            let yaml = Yaml::document(&[("a", list(&[&text])), ("b", Yaml::text(&text))]);
            let read: serde_json::Value = serde_saphyr::from_str(&yaml).unwrap();
            // `$${` stands for `${` in a configuration.
            let expected = text.replace("${", "$${");
            proptest::prop_assert_eq!(read["a"][0].as_str(), Some(&*expected), "{}", yaml);
            proptest::prop_assert_eq!(read["b"].as_str(), Some(&*expected), "{}", yaml);
        }
    }
}
