//! All pools, and the models and aliases that they serve.

use std::collections::{HashMap, HashSet};

use crate::config::Config;
use crate::import::yaml::Yaml;

use super::deployments::{Group, Times};
use super::notes::Notes;
use super::pool::{Common, Pool, pool, timeouts};
use super::settings::Settings;
use super::tree::{Field, Word};

/// Every name that no other model has.
pub(super) const WILDCARD: &str = "*";

struct Model {
    name: String,
    pool: usize,
    upstream: Option<Word>,
    rename: bool,
}

/// Pools, models and the times that all pools share.
pub(super) struct Served {
    pools: Vec<(String, Pool)>,
    models: Vec<Model>,
    aliases: Vec<(String, String)>,
}

impl Served {
    pub fn of(
        groups: &[Group<'_>],
        settings: &Settings<'_>,
        list: &Field<'_>,
        notes: &mut Notes,
    ) -> Self {
        let mut served = Self {
            pools: Vec::new(),
            models: Vec::new(),
            aliases: Vec::new(),
        };
        if groups.iter().any(|group| group.deployments.len() > 1) {
            settings.say_unwritten_strategy(list, notes);
        }
        let mut deployments = groups.iter().flat_map(|group| &group.deployments);
        if deployments.any(|d| !d.has_timeout) {
            settings.say_unwritten_timeout(list, notes);
        }
        let common = Common {
            max_in_flight: settings.max_in_flight(notes),
            eject_after: settings.eject_after(notes),
            eject_for: settings.eject_for(notes),
            ca: settings.ca(),
        };
        let mut numbers: HashMap<Pool, usize> = HashMap::new();
        let mut names = HashSet::new();
        for group in groups {
            let (pool, upstream) = pool(group, settings, &common, notes);
            let number = *numbers.entry(pool.clone()).or_insert_with(|| {
                served.pools.push((pool_name(group.name, &mut names), pool));
                served.pools.len() - 1
            });
            let has_names = served.pools[number].1.has_names();
            served.models.push(Model {
                name: group.name.to_owned(),
                pool: number,
                rename: has_names || upstream.is_some(),
                upstream,
            });
        }
        served.aliases(settings, notes);
        served
    }

    /// `model_group_alias`.
    fn aliases(&mut self, settings: &Settings<'_>, notes: &mut Notes) {
        let Some(field) = settings.router("model_group_alias") else {
            return;
        };
        if !field.is_map() {
            notes.mistake(&field, "is no mapping; write { ALIAS: MODEL }");
            return;
        }
        for alias in field.entries() {
            let target = if alias.is_map() {
                if let Some(hidden) = alias.get("hidden").filter(|f| f.flag() != Some(false)) {
                    notes.differs(&hidden, "/v1/models shows it");
                }
                alias.get("model")
            } else {
                Some(alias.clone())
            };
            let Some(target) = target.as_ref().and_then(Field::scalar) else {
                notes.mistake(&alias, "names no model; write ALIAS: MODEL");
                continue;
            };
            if alias.key == WILDCARD || target == alias.key {
                notes.not_carried(&alias, "an alias is one name, for a model of another");
                continue;
            }
            let Some(model) = self.models.iter_mut().find(|m| m.name == target) else {
                notes.not_carried(
                    &alias,
                    "no deployment that is carried over has such a model_name",
                );
                continue;
            };
            if target == WILDCARD {
                notes.not_carried(&alias, "an alias is for a model that has a name");
                continue;
            }
            // Engines know the model by one name; LiteLLM answers with the one that was asked for.
            model.rename = true;
            self.aliases.push((alias.key.to_owned(), target.to_owned()));
            if self.models.iter().any(|m| m.name == alias.key) {
                notes.differs(
                    &alias,
                    "it is the model_name of deployments as well, which LiteLLM then never asks; they are left out",
                );
                self.models.retain(|m| m.name != alias.key);
            }
        }
        // The target of one alias may have been left out for another.
        self.aliases
            .retain(|(_, target)| self.models.iter().any(|m| m.name == *target));
        self.drop_unused();
    }

    fn drop_unused(&mut self) {
        let mut number = 0;
        while number < self.pools.len() {
            if self.models.iter().any(|m| m.pool == number) {
                number += 1;
                continue;
            }
            self.pools.remove(number);
            for model in &mut self.models {
                if model.pool > number {
                    model.pool -= 1;
                }
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.models.is_empty()
    }

    /// `timeouts` for all pools, where all have the same.
    pub fn timeouts(&self, defaults: &Config) -> Vec<(&'static str, Yaml)> {
        match self.common_times() {
            Some(times) => timeouts(times, defaults),
            None => Vec::new(),
        }
    }

    fn common_times(&self) -> Option<Times> {
        let first = self.pools.first()?.1.times;
        let is_common = self.pools.iter().all(|(_, pool)| pool.times == first);
        is_common.then_some(first)
    }

    /// `endpoints` or `pools`.
    pub fn pools(&self, defaults: &Config) -> (&'static str, Yaml) {
        let has_common = self.common_times().is_some();
        let mut pools: Vec<_> = (self.pools.iter())
            .map(|(name, pool)| (name.clone(), pool.keys(has_common, defaults)))
            .collect();
        match &mut *pools {
            [(_, keys)] => match &mut **keys {
                [(key, endpoints)] => (*key, endpoints.clone()),
                _ => {
                    let only = Yaml::Map(std::mem::take(keys));
                    ("pools", Yaml::Map(vec![("default", only)]))
                }
            },
            _ => {
                let pools = pools
                    .into_iter()
                    .map(|(name, keys)| (name, Yaml::Map(keys)))
                    .collect();
                ("pools", Yaml::Named(pools))
            }
        }
    }

    /// `models`.
    pub fn models(&self) -> Yaml {
        let several = self.pools.len() > 1;
        let mut models = Vec::new();
        for model in &self.models {
            let mut keys = Vec::new();
            if several {
                keys.push(("pool", Yaml::text(&self.pools[model.pool].0)));
            }
            if let Some(upstream) = &model.upstream {
                keys.push(("upstream_model", upstream.yaml()));
            }
            if model.rename {
                keys.push(("rename_response", Yaml::plain("true")));
            }
            models.push((model.name.clone(), Yaml::Map(keys)));
            let own = self
                .aliases
                .iter()
                .filter(|(_, target)| *target == model.name);
            models.extend(own.map(|(alias, target)| (alias.clone(), Yaml::text(target))));
        }
        Yaml::Named(models)
    }
}

/// A name for a pool: the model's, as far as a pool may have it.
fn pool_name(model: &str, taken: &mut HashSet<String>) -> String {
    const LONGEST: usize = 56;
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let name: String = match model {
        WILDCARD => "others".to_owned(),
        model => (model.chars().take(LONGEST))
            .map(|c| if allowed(c) { c } else { '-' })
            .collect(),
    };
    let numbered = (2..).map(|number| format!("{name}-{number}"));
    let free = std::iter::once(name.clone())
        .chain(numbered)
        .find(|name| !taken.contains(name))
        .unwrap_or(name);
    taken.insert(free.clone());
    free
}
