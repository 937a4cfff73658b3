//! What a reload changes of models and keys, and what it cannot change.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Config, Key, Listen, Models};

/// Changes of one kind that are named; of more, the number is given.
const NAMED: usize = 16;

/// Models, aliases and keys that are new (`+model r1`), gone (`-key team-a`) or different (`key team-b`).
pub fn changed_names(old: &Config, new: &Config) -> Vec<String> {
    let mut changes = Vec::new();
    let (before, after) = (said_of_models(old), said_of_models(new));
    compare("model", &before, &after, &mut changes);
    match (&old.keys, &new.keys) {
        (None, None) => {}
        (Some(_), None) => changes.push("keys: everybody may send requests".to_owned()),
        (before, after) => {
            if before.is_none() {
                changes.push("keys: nobody without one may send requests".to_owned());
            }
            let (before, after) = (by_name(before.as_deref()), by_name(after.as_deref()));
            compare("key", &before, &after, &mut changes);
        }
    }
    changes
}

fn by_name(keys: Option<&[Key]>) -> Vec<(Arc<str>, Key)> {
    let keys = keys.unwrap_or_default().iter();
    keys.map(|key| (Arc::clone(&key.name), key.clone()))
        .collect()
}

/// Everything that is configured of each public name. Pools go by their names: their numbers change
/// with those before them.
fn said_of_models(config: &Config) -> Vec<(Arc<str>, impl PartialEq + use<>)> {
    let Models {
        list,
        aliases,
        wildcard,
    } = &config.models;
    let pool = |index: usize| config.pools.get(index).map(|pool| Arc::clone(&pool.name));
    let models = list.iter().chain(wildcard).map(|model| {
        let said = (
            pool(model.pool),
            model.upstream_model.clone(),
            model.rename_response,
            None,
        );
        (Arc::clone(&model.name), said)
    });
    let aliases = aliases.iter().map(|alias| {
        let target = list.get(alias.model).map(|model| Arc::clone(&model.name));
        (Arc::clone(&alias.name), (None, None, false, target))
    });
    models.chain(aliases).collect()
}

fn compare<T: PartialEq>(
    kind: &str,
    old: &[(Arc<str>, T)],
    new: &[(Arc<str>, T)],
    changes: &mut Vec<String>,
) {
    let before: HashMap<&str, &T> = old.iter().map(|(name, said)| (&**name, said)).collect();
    let after: HashMap<&str, &T> = new.iter().map(|(name, said)| (&**name, said)).collect();
    let names = |list: &[(Arc<str>, T)], is_told: &dyn Fn(&str, &T) -> bool| -> Vec<Arc<str>> {
        let told = list.iter().filter(|(name, said)| is_told(name, said));
        told.map(|(name, _)| Arc::clone(name)).collect()
    };
    let added = names(new, &|name, _| !before.contains_key(name));
    let removed = names(old, &|name, _| !after.contains_key(name));
    let changed = names(new, &|name, said| {
        before.get(name).is_some_and(|was| *was != said)
    });
    for (sign, names) in [("+", added), ("-", removed), ("", changed)] {
        let named = names.iter().take(NAMED);
        changes.extend(named.map(|name| format!("{sign}{kind} {name}")));
        if let Some(more @ 1..) = names.len().checked_sub(NAMED) {
            changes.push(format!("{sign}{more} more {kind}s"));
        }
    }
}

/// The keys that differ and take effect only after a restart: sockets are bound and threads started
/// once. Certificates are not among them: their paths and contents are taken by a reload.
pub fn restart_needed(old: &Config, new: &Config) -> Vec<String> {
    let mut keys = Vec::new();
    let mut differs = |key: &str, differs: bool| {
        if differs {
            keys.push(key.to_owned());
        }
    };
    differs("listen", !same_sockets(&old.listen, &new.listen));
    differs("admin", !same_sockets(&old.admin, &new.admin));
    differs("threads", old.threads != new.threads);
    differs("pid_file", old.pid_file != new.pid_file);
    keys
}

/// The order of the list does not matter.
fn same_sockets(old: &[Listen], new: &[Listen]) -> bool {
    let socket = |l: &Listen| (l.address.clone(), l.tls.is_some(), l.http2);
    old.len() == new.len()
        && old
            .iter()
            .all(|l| new.iter().any(|other| socket(l) == socket(other)))
}
