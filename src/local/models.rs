//! Which models there are for a client: those of the configuration, and those that the engines say they
//! serve.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::config::{Model, Models};
use crate::openai::models::{Entry, Listed};

/// The owner of a model of which no engine has said whose it is.
const OWNER: &str = "sluicegate";

/// What one endpoint serves.
#[derive(Debug, Clone, Copy)]
pub struct Offer<'a> {
    /// Index into the configuration's pools.
    pub pool: usize,
    /// The endpoint's own `model`, which it is asked for by whatever name a client uses.
    pub asked_for: Option<&'a str>,
    /// What it last said.
    pub listed: &'a [Listed],
}

/// The models of the configuration in the order of the file, then its aliases. Where `models` is not
/// configured, or has `"*"`, what the engines list comes after them, by name. Each name once, and only those
/// that the client's key `may` use.
pub fn available<'a>(
    models: &'a Models,
    offers: &[Offer<'a>],
    may: &dyn Fn(&str) -> bool,
) -> Vec<Entry<'a>> {
    let known = Known::new(offers);
    let mut entries = Vec::new();
    let mut seen = HashSet::new();
    let named = (models.list.iter()).map(|model| (&*model.name, model));
    let aliases = (models.aliases.iter())
        .filter_map(|alias| Some((&*alias.name, models.list.get(alias.model)?)));
    for (name, model) in named.chain(aliases) {
        if seen.insert(name) && (may(name) || may(&model.name)) {
            entries.push(known.of(model).entry(name));
        }
    }
    let pools = match &models.wildcard {
        Some(wildcard) => Some(wildcard.pool),
        None if models.is_configured() => return entries,
        None => None,
    };
    let mut others: BTreeMap<&str, Facts<'a>> = BTreeMap::new();
    for offer in offers {
        if pools.is_some_and(|pool| pool != offer.pool) {
            continue;
        }
        for model in offer.listed {
            others.entry(&model.id).or_default().add(Facts::from(model));
        }
    }
    let others = others.into_iter();
    entries.extend(
        others
            .filter(|(name, _)| !seen.contains(name) && may(name))
            .map(|(name, facts)| facts.entry(name)),
    );
    entries
}

/// What engines say of a model.
#[derive(Debug, Clone, Copy, Default)]
struct Facts<'a> {
    owned_by: Option<&'a str>,
    max_model_len: Option<u64>,
}

impl<'a> From<&'a Listed> for Facts<'a> {
    fn from(model: &'a Listed) -> Self {
        Self {
            owned_by: model.owned_by.as_deref(),
            max_model_len: model.max_model_len,
        }
    }
}

impl<'a> Facts<'a> {
    /// A request may meet either engine: the smaller length holds.
    fn add(&mut self, other: Facts<'a>) {
        self.owned_by = self.owned_by.or(other.owned_by);
        self.max_model_len = match (self.max_model_len, other.max_model_len) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
    }

    fn entry(self, id: &'a str) -> Entry<'a> {
        Entry {
            id,
            owned_by: self.owned_by.unwrap_or(OWNER),
            max_model_len: self.max_model_len,
        }
    }
}

/// What is known of the models of each pool.
#[derive(Default)]
struct Known<'a> {
    /// By pool and the engines' name.
    named: HashMap<(usize, &'a str), Facts<'a>>,
    /// By pool: of the endpoints with a `model` of their own, which serve it under every name.
    under_any_name: HashMap<usize, Facts<'a>>,
}

impl<'a> Known<'a> {
    fn new(offers: &[Offer<'a>]) -> Self {
        let mut known = Self::default();
        for offer in offers {
            for model in offer.listed {
                let facts = match offer.asked_for {
                    None => known.named.entry((offer.pool, &*model.id)).or_default(),
                    Some(name) if *name == *model.id => {
                        known.under_any_name.entry(offer.pool).or_default()
                    }
                    Some(_) => continue,
                };
                facts.add(Facts::from(model));
            }
        }
        known
    }

    fn of(&self, model: &Model) -> Facts<'a> {
        let upstream = model.upstream_model.as_ref().unwrap_or(&model.name);
        let mut facts = Facts::default();
        for found in [
            self.named.get(&(model.pool, &**upstream)),
            self.under_any_name.get(&model.pool),
        ] {
            facts.add(found.copied().unwrap_or_default());
        }
        facts
    }
}

#[cfg(test)]
mod tests;
