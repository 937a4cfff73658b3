//! What holds for every file that is given for a configuration, whatever its bytes.
//!
//! Taken: shown with all defaults, it reads back as the same, and no secret is shown. Refused: each
//! message is one printable line that says what is wrong, how to mend it and where in the file, and
//! holds neither a secret nor what came from the environment.

use std::io;
use std::path::Path;

use super::other_file::OtherFile;
use super::parse::{self, Node, Value};
use super::source::parse_bytes;
use super::{Config, Diagnostics, parse_str};

/// A value that stands for a secret wherever a file has it.
pub const MARKER: &str = "hunter2-S3CRET";
/// What every variable holds where there is an environment.
const VARIABLE: &str = "qk7-from-outside";
const FILE: &str = "fuzz.yaml";

/// The first promise that `file` breaks, if any.
pub fn broken(file: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(file);
    let hides = hides_secrets(file);
    for environment in [None, Some(VARIABLE)] {
        let env = |_: &str| environment.map(str::to_owned);
        let base = Path::new("/etc/sluicegate");
        let outcome = parse_bytes(file.to_vec(), FILE, base, &env, &other_file);
        let again = parse_bytes(file.to_vec(), FILE, base, &env, &other_file);
        if outcome != again {
            return Some(format!("read twice: {outcome:?} and {again:?}"));
        }
        let wrong = match &outcome {
            Ok(config) => of_a_taken_file(config, hides),
            Err(mistakes) => {
                let quotable = environment.is_none() || text.contains(VARIABLE);
                of_a_refused_file(mistakes, &text, hides, !quotable)
            }
        };
        if wrong.is_some() {
            return wrong;
        }
    }
    None
}

/// The one file beside it that a configuration can name.
fn other_file(path: &Path) -> io::Result<OtherFile> {
    if !path.ends_with("keys.yaml") {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(OtherFile {
        bytes: format!("- {{ name: a, key: {MARKER} }}\n").into_bytes(),
        is_public: true,
    })
}

fn of_a_taken_file(config: &Config, hides: bool) -> Option<String> {
    let shown = config.to_yaml();
    if hides && (shown.contains(MARKER) || format!("{config:?}").contains(MARKER)) {
        return Some(format!("shows a secret:\n{shown}"));
    }
    // Every path in it is absolute, and every variable filled in; its secrets are not.
    let filled = shown.replace("key: \"***", "key: \"filled-in");
    let mut again = match parse_str(&filled, "shown", Path::new("/elsewhere"), &|_| None) {
        Ok(again) => again,
        Err(mistakes) => return Some(format!("shown, it is refused: {mistakes}\n{shown}")),
    };
    if again.to_yaml() != shown {
        return Some(format!("shown twice:\n{shown}\nand\n{}", again.to_yaml()));
    }
    for (pool, was) in again.pools.iter_mut().zip(&config.pools) {
        for (endpoint, was) in pool.endpoints.iter_mut().zip(&was.endpoints) {
            if endpoint.api_key.is_some() == was.api_key.is_some() {
                endpoint.api_key.clone_from(&was.api_key);
            }
        }
    }
    let keys = again.keys.iter_mut().flatten();
    for (key, was) in keys.zip(config.keys.iter().flatten()) {
        key.hash = was.hash;
    }
    (again != *config).then(|| format!("shown, it reads as {again:?}\nand was {config:?}"))
}

fn of_a_refused_file(
    mistakes: &Diagnostics,
    text: &str,
    hides_marker: bool,
    hides_variable: bool,
) -> Option<String> {
    if mistakes.is_empty() {
        return Some("refused without a word".into());
    }
    let lines = lines(text);
    for mistake in mistakes {
        let said = mistake.to_string();
        let line = mistake.line.checked_sub(1).and_then(|i| lines.get(i));
        let wrong = match line {
            None => "points at no line of the file",
            Some(line) if !(1..=line.chars().count() + 1).contains(&mistake.column) => {
                "points beyond the line"
            }
            _ if mistake.message.trim().is_empty() => "does not say what is wrong",
            _ if mistake.help.trim().is_empty() => "does not say how to mend it",
            _ if said.contains(char::is_control) => "is not one printable line",
            _ if hides_marker && said.contains(MARKER) => "shows a secret",
            _ if hides_variable && said.contains(VARIABLE) => "shows what came from outside",
            _ => continue,
        };
        return Some(format!("a message {wrong}: {mistake:?}"));
    }
    None
}

/// The lines as YAML has them, and the empty one after the last break.
fn lines(text: &str) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(end) = rest.find(['\n', '\r']) {
        lines.push(&rest[..end]);
        let taken = if rest[end..].starts_with("\r\n") {
            2
        } else {
            1
        };
        rest = &rest[end + taken..];
    }
    lines.push(rest);
    lines
}

/// Whether the marker stands in the file, and only where secrets do. What is no YAML, or has a key
/// twice, is not judged.
pub fn hides_secrets(file: &[u8]) -> bool {
    let text = String::from_utf8_lossy(file);
    let written = text.matches(MARKER).count();
    let Ok((root, _)) = parse::tree(&text) else {
        return false;
    };
    let secret: usize = endpoints(&root)
        .into_iter()
        .flatten()
        .map(|endpoint| match &endpoint.value {
            Value::Map(_) => {
                let url = child(endpoint, "url").map_or(0, passwords);
                child(endpoint, "api_key").map_or(0, markers) + url
            }
            _ => passwords(endpoint),
        })
        .sum();
    let secret = secret + keys(&root).iter().map(secrets_of_a_key).sum::<usize>();
    written > 0 && written == secret
}

fn keys(root: &Node) -> &[Node] {
    match child(root, "keys").map(|keys| &keys.value) {
        Some(Value::List(items)) => items,
        _ => &[],
    }
}

fn secrets_of_a_key(key: &Node) -> usize {
    let secrets = ["key", "sha256"].into_iter();
    secrets
        .map(|name| child(key, name).map_or(0, markers))
        .sum()
}

fn endpoints(root: &Node) -> Vec<&[Node]> {
    let pools = match child(root, "pools").map(|pools| &pools.value) {
        Some(Value::Map(pools)) => pools.iter().map(|entry| &entry.node).collect(),
        _ => Vec::new(),
    };
    let all = pools.into_iter().chain([root]);
    all.filter_map(|pool| match &child(pool, "endpoints")?.value {
        Value::List(items) => Some(items.as_slice()),
        _ => None,
    })
    .collect()
}

fn child<'a>(node: &'a Node, name: &str) -> Option<&'a Node> {
    match &node.value {
        Value::Map(entries) => {
            let entry = entries.iter().find(|entry| *entry.key == *name)?;
            Some(&entry.node)
        }
        _ => None,
    }
}

/// Markers in the values beneath `node`; keys are no secrets.
fn markers(node: &Node) -> usize {
    match &node.value {
        Value::Scalar(scalar) => scalar.text.matches(MARKER).count(),
        Value::List(items) => items.iter().map(markers).sum(),
        Value::Map(entries) => entries.iter().map(|entry| markers(&entry.node)).sum(),
    }
}

/// Markers in the password of a URL.
fn passwords(node: &Node) -> usize {
    match &node.value {
        Value::Scalar(scalar) => {
            let password = (scalar.text.split_once("://"))
                .and_then(|(_, rest)| rest.split_once('@'))
                .map_or("", |(user, _)| user);
            password.matches(MARKER).count()
        }
        _ => 0,
    }
}
