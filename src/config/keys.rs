//! `keys`: whom requests are taken from.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use super::diagnostic::{Fault, quoted, shown};
use super::models::{WILDCARD, name as model_name};
use super::other_file::{self, OtherFile};
use super::parse::{self, Mistake, Node, Position, Value};
use super::reader::{Field, Reader, what};
use super::schema::{MOST_KEYS, MOST_MODELS};
use super::section::{Section, file_path};
use super::similar::similar;
use super::weak::{self, Hash};
use super::{Key, KeyModels, Models, Secret};

const FORM: &str = "write a list, as in [{ name: team-a, sha256: \"…\" }], or { file: keys.yaml }";
const OPEN: &str = "remove the key `keys` to take requests from everybody";
const NAME_FORM: &str = "write at most 64 letters, digits, spaces and signs";
const KEY_FORM: &str = "write it as \"${TEAM_A_KEY}\"";
const HASH_FORM: &str =
    "write the hash that `sluicegate key` prints, which has 64 digits and letters from a to f";
const BETTER: &str = "take one that `sluicegate key` makes";
/// In characters.
const LONGEST_NAME: usize = 64;

/// `None` where everybody may send requests. Empty only after a mistake.
pub(super) fn keys(root: &Section<'_>, models: &Models) -> Option<Vec<Key>> {
    let field = root.written("keys")?;
    let reader = root.reader;
    let keys = match &field.node.value {
        Value::List(_) => list(reader, &field, models),
        Value::Map(_) => from_file(&reader.section(field.node, "keys", field.path), models),
        Value::Scalar(_) => {
            let (message, help) = if field.node.is_null() {
                ("cannot be null".to_owned(), format!("{FORM}; {OPEN}"))
            } else if field.node.is_empty() {
                ("has no value".to_owned(), format!("{FORM}; {OPEN}"))
            } else {
                let message = format!("is {} where a list belongs", what(field.node));
                (message, FORM.to_owned())
            };
            reader.problem_at("keys", message, help);
            Vec::new()
        }
    };
    Some(keys)
}

/// The keys of the file that `section` names. What is wrong in it is told with its own name and lines.
fn from_file(section: &Section<'_>, models: &Models) -> Vec<Key> {
    const FILE_FORM: &str = "write the path of a file that holds a list of keys";
    let reader = section.reader;
    let Some(field) = section.written("file") else {
        section.require("file", FORM);
        return Vec::new();
    };
    let Ok(Some(path)) = reader.scalar(&field, FILE_FORM, |text| file_path(reader, text)) else {
        return Vec::new();
    };
    let Value::Scalar(written) = &field.node.value else {
        return Vec::new();
    };
    let problem = |message: String, help: &str| {
        let message = format!("{} {message}", quoted(&written.text));
        reader.problem(field.node.at, &field.path, message, help);
    };
    let OtherFile { bytes, is_public } = match (reader.read_other)(&path) {
        Ok(file) => file,
        Err(error) => {
            let help = match error.kind() {
                ErrorKind::NotFound => "write the file, or list the keys here",
                ErrorKind::PermissionDenied => "let the gateway's user read it",
                _ => "name a file that can be read",
            };
            problem(format!("cannot be read: {error}"), help);
            return Vec::new();
        }
    };
    if is_public {
        let message = format!("{} can be read by everyone", quoted(&written.text));
        let help = "take the right away: chmod o-r";
        reader.remark(field.node.at, &field.path, message, help);
    }
    // As the operator would name it: as this file was named, and never by what a variable holds.
    let directory = Path::new(reader.file).parent().unwrap_or(Path::new(""));
    let name = directory.join(shown(&written.text)).display().to_string();
    let inner = Reader::new(&name, reader.base, reader.env, reader.read_other);
    let keys = match tree(bytes, &inner) {
        Some(tree) => of_tree(&inner, &tree, models),
        None => Vec::new(),
    };
    reader.take_over(inner);
    keys
}

/// What a file of keys holds; `None` after a mistake that was noted.
fn tree(bytes: Vec<u8>, reader: &Reader<'_>) -> Option<Node> {
    let problem = |at, path: &str, message: String, help: String| {
        reader.problem(at, path, message, help);
    };
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let at = Position::after(&String::from_utf8_lossy(valid));
            let help = "save the file as UTF-8".to_owned();
            problem(at, "", "is not UTF-8 here".to_owned(), help);
            return None;
        }
    };
    match parse::tree_within(&text, other_file::LARGEST) {
        Ok((tree, twice)) => {
            for Mistake {
                at,
                path,
                message,
                help,
            } in twice
            {
                problem(at, &format!("keys{path}"), message, help);
            }
            Some(tree)
        }
        Err(mistake) => {
            problem(mistake.at, "", mistake.message, mistake.help);
            None
        }
    }
}

fn of_tree(reader: &Reader<'_>, tree: &Node, models: &Models) -> Vec<Key> {
    if let Value::List(_) = &tree.value {
        return list(reader, &Field::item(tree, "keys".to_owned()), models);
    }
    let help = "write a list, as in - { name: team-a, sha256: \"…\" }, and nothing around it";
    if tree.is_empty() || tree.is_null() {
        reader.problem(tree.at, "", "the file holds no key", help);
    } else {
        let message = format!("the file is {} where a list belongs", what(tree));
        reader.problem(tree.at, "", message, help);
    }
    Vec::new()
}

fn list<'a>(reader: &'a Reader<'a>, field: &Field<'a>, models: &Models) -> Vec<Key> {
    let items = reader.items(field, MOST_KEYS);
    if items.is_empty() {
        let message = "is empty: nobody could send a request";
        let help = format!("{FORM}; {OPEN}");
        reader.problem(field.node.at, &field.path, message, help);
    }
    let known = known_names(models);
    // Who has a name or a secret already.
    let mut names: HashMap<Arc<str>, &str> = HashMap::new();
    let mut hashes: HashMap<Hash, (&str, String)> = HashMap::new();
    let mut keys = Vec::with_capacity(items.len());
    for item in &items {
        reader.mark(&item.path, item.node.at);
        let section = reader.section(item.node, "keys[]", item.path.clone());
        let name = section.nullable("name", NAME_FORM, key_name);
        if let Some(name) = &name {
            match names.entry(Arc::clone(name)) {
                Slot::Vacant(slot) => {
                    slot.insert(&item.path);
                }
                Slot::Occupied(first) => reader.problem_at(
                    &section.path_of("name"),
                    format!("is the name of {} too", first.get()),
                    "give each key a name of its own: limits and metrics go by it",
                ),
            }
        }
        let hash = secret(&section);
        if let Some((field, hash)) = &hash {
            let own = written_name(&section);
            match hashes.entry(*hash) {
                Slot::Vacant(slot) => {
                    slot.insert((&item.path, own));
                }
                Slot::Occupied(first) => {
                    let (path, other) = first.get();
                    reader.problem_at(
                        &section.path_of(field),
                        format!("{own} has the same secret as {other} ({path})"),
                        "give each a secret of its own: nobody can tell the two apart",
                    );
                }
            }
        }
        let admin = section.switch("admin").unwrap_or(false);
        keys.push(Key {
            // What could not be read is stood for: the configuration is not used.
            name: name.unwrap_or_else(|| Arc::from("")),
            hash: hash.map_or([0; 32], |(_, hash)| hash),
            models: key_models(&section, known.as_ref(), admin),
            requests_per_minute: section.count_or_none("requests_per_minute"),
            tokens_per_minute: section.count_or_none("tokens_per_minute"),
            max_in_flight: section.count_or_none("max_in_flight"),
            admin,
        });
    }
    keys
}

/// A key's name as the file has it, for messages: what a variable holds is not shown.
fn written_name(section: &Section<'_>) -> String {
    match section.written("name").map(|field| &field.node.value) {
        Some(Value::Scalar(scalar)) => quoted(&scalar.text),
        _ => section.path.clone(),
    }
}

/// Whether a key may have the name `text`.
///
/// # Errors
/// What is wrong with it, as in `is longer than 64 characters`.
pub fn check_key_name(text: &str) -> Result<(), String> {
    match key_name(text) {
        Ok(_) => Ok(()),
        Err(fault) => Err(fault.what),
    }
}

fn key_name(text: &str) -> Result<Arc<str>, Fault> {
    if text.is_empty() {
        Err(Fault::new("is empty"))
    } else if text.chars().nth(LONGEST_NAME).is_some() {
        Err(Fault::new(format!(
            "is longer than {LONGEST_NAME} characters"
        )))
    } else if !(text.chars()).all(|c| matches!(c, ' '..='~') || c.is_alphanumeric()) {
        Err(Fault::new("has a character that cannot be printed"))
    } else if text.trim() != text {
        Err(Fault::new("begins or ends with a space"))
    } else {
        Ok(Arc::from(text))
    }
}

/// The hash of a key's secret, and which of the two ways it was written in. A weak secret is remarked on.
fn secret(section: &Section<'_>) -> Option<(&'static str, Hash)> {
    let reader = section.reader;
    let (field, hash, weakness) = match (section.has("key"), section.has("sha256")) {
        (true, true) => {
            let help = "keep one of the two";
            reader.problem_at(&section.path, "has both key and sha256", help);
            return None;
        }
        (false, false) => {
            if section.is_mapping() {
                let help = "write sha256: and the hash that `sluicegate key` prints, or key: \"${TEAM_A_KEY}\"";
                reader.problem_at(&section.path, "has neither key nor sha256", help);
            }
            return None;
        }
        (true, false) => {
            let (hash, weakness) = section.nullable("key", KEY_FORM, of_plain)?;
            ("key", hash, weakness)
        }
        (false, true) => {
            let hash = section.nullable("sha256", HASH_FORM, of_hex)?;
            ("sha256", hash, weak::of_hash(&hash))
        }
    };
    if let Some(weakness) = weakness {
        let path = section.path_of(field);
        let message = format!("the secret of {} {weakness}", written_name(section));
        reader.remark(reader.place(&path), &path, message, BETTER);
    }
    Some((field, hash))
}

/// A secret, hashed, and what is weak in it.
fn of_plain(text: &str) -> Result<(Hash, Option<&'static str>), Fault> {
    let secret = Secret::parse(text)?;
    let text = secret.reveal();
    Ok((weak::hash(text), weak::of_secret(text)))
}

fn of_hex(text: &str) -> Result<Hash, Fault> {
    let digits = text.strip_prefix("sha256:").unwrap_or(text).as_bytes();
    let mut hash = [0; 32];
    if digits.len() != hash.len() * 2 {
        return Err(Fault::new("is not as long as a SHA-256"));
    }
    for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).ok();
        match pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            // The standard library would take a sign.
            Some(value) if digits.iter().all(u8::is_ascii_hexdigit) => *byte = value,
            _ => return Err(Fault::new("has a character that no SHA-256 has")),
        }
    }
    if hash == weak::hash("") {
        return Err(Fault::new("is the hash of nothing at all").fix(BETTER));
    }
    Ok(hash)
}

/// The names that a key may be for; `None` = any.
fn known_names(models: &Models) -> Option<Vec<&str>> {
    if !models.is_configured() || models.wildcard.is_some() {
        return None;
    }
    let list = models.list.iter().map(|model| &*model.name);
    let aliases = models.aliases.iter().map(|alias| &*alias.name);
    let mut names: Vec<&str> = list.chain(aliases).collect();
    names.sort_unstable();
    Some(names)
}

fn key_models(section: &Section<'_>, known: Option<&Vec<&str>>, admin: bool) -> KeyModels {
    const MODELS_FORM: &str = "write names of models, or [\"*\"] for all";
    let reader = section.reader;
    let Some(field) = section.written("models") else {
        return KeyModels::All;
    };
    let items = reader.items(&field, MOST_MODELS);
    if items.is_empty() && !admin {
        let message = "is empty: nothing could be done with this key";
        reader.problem(field.node.at, &field.path, message, MODELS_FORM);
    }
    let mut names: Vec<String> = Vec::with_capacity(items.len());
    let mut seen = std::collections::HashSet::new();
    let mut all = false;
    for item in &items {
        let name = reader.scalar(item, MODELS_FORM, |text| {
            if text == WILDCARD {
                return Ok(None);
            }
            let name = model_name(text)?;
            match known {
                Some(known) if known.binary_search(&text).is_err() => {
                    let fault = Fault::new("is no model");
                    if reader.is_full() {
                        return Err(fault);
                    }
                    let near = similar(text, known.iter().copied(), 1);
                    Err(match near.first() {
                        Some(near) => fault.fix(format!("did you mean {}?", quoted(near))),
                        None => fault,
                    })
                }
                _ => Ok(Some(name)),
            }
        });
        match name {
            Ok(Some(None)) => all = true,
            Ok(Some(Some(name))) if seen.insert(Arc::clone(&name)) => {
                names.push((*name).to_owned())
            }
            _ => {}
        }
    }
    if all {
        KeyModels::All
    } else {
        KeyModels::Some(names)
    }
}
