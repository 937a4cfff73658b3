//! Where a configuration comes from: a file, a text, the command line.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::diagnostic::{Diagnostic, Diagnostics, Severity};
use super::other_file::{self, ReadOther};
use super::parse::{self, Entry, LARGEST_FILE, Mistake, Node, Position, Scalar, Value};
use super::reader::Reader;
use super::{Config, decode, validate};

/// Reads the file at `path`. Relative paths in it begin at its directory; `env` looks up the
/// variables that it names.
///
/// # Errors
/// Everything that is wrong with it, or that it cannot be read.
pub fn load(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, Diagnostics> {
    let name = path.display().to_string();
    let bytes = read(path)
        .map_err(|(message, help)| whole(&name, Position::NOWHERE, message, help.to_owned()))?;
    // The gateway may be started from another directory than it is reloaded in.
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let base = absolute.parent().unwrap_or(Path::new("/"));
    let mut config = parse_bytes(bytes, &name, base, env, &other_file::read)?;
    config.file = Some(path.to_owned());
    Ok(config)
}

/// [`parse_with`] of what a file holds.
pub(super) fn parse_bytes(
    bytes: Vec<u8>,
    file: &str,
    base: &Path,
    env: &dyn Fn(&str) -> Option<String>,
    read_other: &ReadOther<'_>,
) -> Result<Config, Diagnostics> {
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let at = Position::after(&String::from_utf8_lossy(valid));
        let help = "save the file as UTF-8".to_owned();
        whole(file, at, "is not UTF-8 here".to_owned(), help)
    })?;
    parse_with(&text, file, base, env, read_other)
}

/// Reads a configuration from `text`, and the file of keys that it may name. `file` is how messages
/// name it, `base` where relative paths begin.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse_str(
    text: &str,
    file: &str,
    base: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Config, Diagnostics> {
    parse_with(text, file, base, env, &other_file::read)
}

/// [`parse_str`] with the files that it names read by `read_other`.
pub(super) fn parse_with(
    text: &str,
    file: &str,
    base: &Path,
    env: &dyn Fn(&str) -> Option<String>,
    read_other: &ReadOther<'_>,
) -> Result<Config, Diagnostics> {
    let reader = Reader::new(file, base, env, read_other);
    let (root, twice) = parse::tree(text)
        .map_err(|mistake| whole(file, mistake.at, mistake.message, mistake.help))?;
    for Mistake {
        at,
        path,
        message,
        help,
    } in twice
    {
        reader.problem(at, &path, message, help);
    }
    read_tree(reader, &root)
}

/// The configuration of a gateway without a file: `listen` and `endpoints` as they would be
/// written in one, no pid file, and the admin listener at `admin`, which may be `off`. Where it is
/// not given it takes a free port of 127.0.0.1.
///
/// # Errors
/// Everything that is wrong with the arguments.
pub fn from_command_line(
    listen: &[String],
    endpoints: &[String],
    admin: Option<&str>,
) -> Result<Config, Diagnostics> {
    let node = |value| Node {
        at: Position::NOWHERE,
        value,
    };
    let scalar = |text: &str, plain| {
        node(Value::Scalar(Scalar {
            text: text.into(),
            plain,
            literal: true,
        }))
    };
    let list = |items: &[String]| {
        node(Value::List(
            items.iter().map(|item| scalar(item, false)).collect(),
        ))
    };
    let entry = |key: &str, node| Entry {
        key: key.into(),
        at: Position::NOWHERE,
        node,
    };
    let mut entries = vec![
        match admin {
            Some("off") => entry("admin", scalar("null", true)),
            address => entry("admin", scalar(address.unwrap_or("127.0.0.1:0"), false)),
        },
        entry("pid_file", scalar("null", true)),
    ];
    if !listen.is_empty() {
        entries.push(entry("listen", list(listen)));
    }
    if endpoints.is_empty() {
        let help = "name them at the end, as in: sluicegate --listen :8080 node0:8000 node1:8000";
        let message = "there are no endpoints to send requests to".into();
        return Err(whole(
            "command line",
            Position::NOWHERE,
            message,
            help.into(),
        ));
    }
    entries.push(entry("endpoints", list(endpoints)));
    // Relative socket paths are the shell's.
    let base = std::env::current_dir().unwrap_or_default();
    let reader = Reader::new("command line", &base, &|_| None, &other_file::read);
    read_tree(reader, &node(Value::Map(entries))).map_err(as_options)
}

/// Names the options in place of the keys.
fn as_options(mistakes: Diagnostics) -> Diagnostics {
    let named = mistakes.into_iter().map(|mut mistake| {
        for key in ["listen", "admin"] {
            if mistake.path.starts_with(key) {
                mistake.path = format!("--{key}");
            }
        }
        mistake
    });
    Diagnostics::new(named.collect(), 0)
}

fn read_tree(reader: Reader<'_>, root: &Node) -> Result<Config, Diagnostics> {
    let mut config = decode::config(&reader.root(root));
    validate::validate(&config, &reader);
    (config.places, config.remarks) = reader.finish()?;
    Ok(config)
}

/// What the file holds, or why that cannot be said and what to do.
fn read(path: &Path) -> Result<Vec<u8>, (String, &'static str)> {
    let mut bytes = Vec::new();
    // One more than is allowed, so that a device or a huge file ends too.
    let read = File::open(path)
        .and_then(|file| file.take(LARGEST_FILE as u64 + 1).read_to_end(&mut bytes));
    match read {
        Ok(_) => Ok(bytes),
        Err(error) => {
            let help = match error.kind() {
                std::io::ErrorKind::NotFound => "write the file, or name another with -c",
                std::io::ErrorKind::PermissionDenied => "let the gateway's user read it",
                _ => "name a readable file with -c",
            };
            Err((format!("cannot be read: {error}"), help))
        }
    }
}

fn whole(file: &str, at: Position, message: String, help: String) -> Diagnostics {
    Diagnostics::from(Diagnostic {
        severity: Severity::Error,
        file: file.to_owned(),
        line: at.line,
        column: at.column,
        path: String::new(),
        message,
        help,
    })
}
