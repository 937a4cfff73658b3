//! `models`: which name is served by which pool.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::diagnostic::{Fault, quoted, shown};
use super::parse::{Entry, NOTHING, Value};
use super::reader::{Field, what};
use super::schema::MOST_MODELS;
use super::section::Section;
use super::similar::similar;
use super::{Alias, Model, Models, Pool};

/// Every other name.
pub(super) const WILDCARD: &str = "*";
pub(super) const UPSTREAM_FORM: &str =
    "write the name that the engine has for the model, or null for the one that clients use";

const FORM: &str = "write a mapping of names, as in { DeepSeek-R1: {} }";
const ALIAS_FORM: &str = "write the name of a model, or a mapping, as in { pool: default }";
/// In bytes.
const LONGEST_NAME: usize = 256;

pub(super) fn models(root: &Section<'_>, pools: &[Pool]) -> Models {
    let reader = root.reader;
    let mut models = Models::default();
    let Some(field) = root.written("models") else {
        return models;
    };
    let Value::Map(entries) = &field.node.value else {
        let message = format!("is {} where a mapping belongs", what(field.node));
        reader.problem_at("models", message, FORM);
        return models;
    };
    if entries.is_empty() {
        let help = format!("{FORM}, or remove the key: every model then goes to the only pool");
        reader.problem_at("models", "names no model", help);
    }
    if entries.len() > MOST_MODELS {
        let message = format!("has {} names", entries.len());
        reader.problem_at("models", message, format!("write at most {MOST_MODELS}"));
    }
    let mut aliases = Vec::new();
    for entry in entries.iter().take(MOST_MODELS) {
        let path = format!("models.{}", shown(&entry.key));
        reader.mark(&path, entry.node.at);
        if let Err(fault) = name(&entry.key) {
            let message = format!("{} {}", quoted(&entry.key), fault.what);
            reader.problem(entry.at, "models", message, "give the model another name");
        }
        let is_alias = matches!(entry.node.value, Value::Scalar(_)) && !entry.node.is_null();
        if is_alias {
            aliases.push((entry, path));
        } else {
            let model = model(root, entry, path, pools);
            if *entry.key == *WILDCARD {
                models.wildcard = Some(model);
            } else {
                models.list.push(model);
            }
        }
    }
    models.aliases = resolved(root, &models.list, &aliases);
    models
}

fn model(root: &Section<'_>, entry: &Entry, path: String, pools: &[Pool]) -> Model {
    let reader = root.reader;
    let node = if entry.node.is_null() {
        &NOTHING
    } else {
        &entry.node
    };
    let section = reader.section(node, "models.*", path);
    Model {
        name: Arc::from(&*entry.key),
        pool: pool(&section, pools),
        upstream_model: section.nullable("upstream_model", UPSTREAM_FORM, name),
        rename_response: section.switch("rename_response").unwrap_or(false),
    }
}

/// The number of the pool that it names, or of the only one.
fn pool(section: &Section<'_>, pools: &[Pool]) -> usize {
    const ANY: usize = 0;
    let form = || match pools {
        [only] => format!("the only pool is {}: remove the key", only.name),
        _ => {
            let names: Vec<&str> = pools.iter().take(8).map(|pool| &*pool.name).collect();
            let more = if pools.len() > names.len() {
                ", …"
            } else {
                ""
            };
            format!("write one of the pools: {}{more}", names.join(", "))
        }
    };
    let Some(field) = section.written("pool") else {
        // Of what is no mapping, and of pools that could not be read, something has been said.
        if pools.len() > 1 && !section.is_something_else() {
            (section.reader).problem_at(&section.path, "does not say which pool serves it", form());
        }
        return ANY;
    };
    let found = section.reader.scalar(&field, &form(), |text| {
        if let Some(found) = pools.iter().position(|pool| *pool.name == *text) {
            return Ok(found);
        }
        let fault = Fault::new("is no pool");
        let names = pools.iter().map(|pool| &*pool.name);
        Err(match similar(text, names, 1).first() {
            Some(near) => fault.fix(format!("did you mean {near}?")),
            None => fault,
        })
    });
    found.ok().flatten().unwrap_or(ANY)
}

/// The aliases that lead to one of `list`.
fn resolved(root: &Section<'_>, list: &[Model], aliases: &[(&Entry, String)]) -> Vec<Alias> {
    let reader = root.reader;
    let models: HashMap<&str, usize> = (list.iter().enumerate())
        .map(|(i, model)| (&*model.name, i))
        .collect();
    let names: HashSet<&str> = aliases.iter().map(|(entry, _)| &*entry.key).collect();
    let mut resolved = Vec::with_capacity(aliases.len());
    for (entry, path) in aliases {
        if *entry.key == *WILDCARD {
            let help = "write a mapping, as in { pool: default, upstream_model: DeepSeek-R1 }";
            reader.problem(entry.node.at, path, "\"*\" cannot be an alias", help);
            continue;
        }
        let field = Field::item(&entry.node, path.clone());
        let model = reader.scalar(&field, ALIAS_FORM, |target| {
            if let Some(&model) = models.get(target) {
                return Ok(model);
            }
            if target == WILDCARD {
                return Err(Fault::new("is no name").fix("write the name of one model"));
            }
            if names.contains(target) {
                return Err(Fault::new("is an alias itself").fix("write the model's own name"));
            }
            let fault = Fault::new("is no model");
            if reader.is_full() {
                return Err(fault);
            }
            let near = similar(target, list.iter().map(|model| &*model.name), 1);
            Err(match near.first() {
                Some(near) => fault.fix(format!("did you mean {}?", quoted(near))),
                None => fault,
            })
        });
        // After a mistake too, so that a key for this name is none.
        resolved.push(Alias {
            name: Arc::from(&*entry.key),
            model: model.ok().flatten().unwrap_or_default(),
        });
    }
    resolved
}

/// A model's name, whoever has given it.
pub(super) fn name(text: &str) -> Result<Arc<str>, Fault> {
    if text.is_empty() {
        Err(Fault::new("is empty"))
    } else if text.len() > LONGEST_NAME {
        Err(Fault::new(format!(
            "is longer than {LONGEST_NAME} bytes, which no model's name may be"
        )))
    } else if text.contains(char::is_control) {
        Err(Fault::new(
            "has a line break or another control character, which no model's name may have",
        ))
    } else {
        Ok(Arc::from(text))
    }
}
