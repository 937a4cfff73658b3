//! Groups of deployments as pools and models.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use crate::config::{Config, show_duration};
use crate::import::yaml::Yaml;

use super::deployments::{Deployment, Group, Times};
use super::notes::Notes;
use super::settings::{Settings, Strategy};
use super::tree::{Field, Word};
use super::weights::weights;

/// Every name that no other model has.
pub(super) const WILDCARD: &str = "*";

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Endpoint {
    url: Word,
    weight: u64,
    max_in_flight: Option<u64>,
    backup: bool,
    api_key: Option<Word>,
    /// Where the endpoints of a pool have different names for a model.
    model: Option<Word>,
}

/// What the models of a pool share. Two groups with the same have one pool.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Pool {
    endpoints: Vec<Endpoint>,
    max_in_flight: Option<u64>,
    retries: Option<u64>,
    times: Times,
    verify: bool,
    ca: Option<String>,
    eject_after: Option<u64>,
    eject_for: Option<Duration>,
}

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
            let has_names = served.pools[number]
                .1
                .endpoints
                .iter()
                .any(|e| e.model.is_some());
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

impl Pool {
    fn keys(&self, has_common_times: bool, defaults: &Config) -> Vec<(&'static str, Yaml)> {
        let endpoints = self.endpoints.iter().map(Endpoint::yaml).collect();
        let mut keys = vec![("endpoints", Yaml::List(endpoints))];
        if let Some(most) = self.max_in_flight {
            keys.push(("max_in_flight", Yaml::plain(&most)));
        }
        let default = &defaults.pools[0];
        if let Some(retries) = self.retries.filter(|n| *n != u64::from(default.retries)) {
            keys.push(("retries", Yaml::plain(&retries)));
        }
        let mut tls = Vec::new();
        if !self.verify {
            tls.push(("verify", Yaml::plain("false")));
        }
        if let Some(ca) = &self.ca {
            tls.push(("ca", Yaml::text(ca)));
        }
        let mut health = Vec::new();
        if let Some(after) = self.eject_after {
            health.push(("eject_after", Yaml::plain(&after)));
        }
        if let Some(time) = self.eject_for {
            health.push(("eject_for", Yaml::plain(&show_duration(&time))));
        }
        let times = if has_common_times {
            Vec::new()
        } else {
            timeouts(self.times, defaults)
        };
        for (key, inner) in [("tls", tls), ("health", health), ("timeouts", times)] {
            if !inner.is_empty() {
                keys.push((key, Yaml::Map(inner)));
            }
        }
        keys
    }
}

impl Endpoint {
    fn yaml(&self) -> Yaml {
        let url = self.url.yaml();
        let mut keys = vec![("url", url.clone())];
        if self.weight != 1 {
            keys.push(("weight", Yaml::plain(&self.weight)));
        }
        if let Some(most) = self.max_in_flight {
            keys.push(("max_in_flight", Yaml::plain(&most)));
        }
        if self.backup {
            keys.push(("backup", Yaml::plain("true")));
        }
        if let Some(key) = &self.api_key {
            keys.push(("api_key", key.yaml()));
        }
        if let Some(model) = &self.model {
            keys.push(("model", model.yaml()));
        }
        match keys.len() {
            1 => url,
            _ => Yaml::Map(keys),
        }
    }
}

fn timeouts(times: Times, defaults: &Config) -> Vec<(&'static str, Yaml)> {
    let ours = &defaults.pools[0].timeouts;
    [
        ("first_byte", times.first_byte, ours.first_byte),
        ("read", times.read, ours.read),
    ]
    .into_iter()
    .filter_map(|(key, time, default)| {
        let time = time.filter(|time| *time != default)?;
        Some((key, Yaml::plain(&show_duration(&time))))
    })
    .collect()
}

/// What every pool has.
struct Common {
    max_in_flight: Option<u64>,
    eject_after: Option<u64>,
    eject_for: Option<Duration>,
    ca: Option<String>,
}

/// The pool of a group, and what its engines call the model where all call it the same and clients
/// do not.
fn pool(
    group: &Group<'_>,
    settings: &Settings<'_>,
    common: &Common,
    notes: &mut Notes,
) -> (Pool, Option<Word>) {
    let deployments = distinct(group, notes);
    let shares = weights(&deployments, settings.strategy == Strategy::Shuffle, notes);
    let is_own = |word: &Word| match word {
        // Every name is passed on as it comes.
        Word::Text(text) => text.is_empty() || *text == group.name,
        Word::Variable(_) => false,
    };
    let first = &deployments[0].server.model;
    let is_one_name = deployments.iter().all(|d| d.server.model == *first);
    let model = |d: &Deployment<'_>| {
        (!is_one_name).then(|| match &d.server.model {
            Word::Text(text) if text.is_empty() => Word::Text(group.name.to_owned()),
            word => word.clone(),
        })
    };
    let endpoints = (deployments.iter().zip(shares))
        .map(|(deployment, share)| Endpoint {
            url: deployment.server.url.clone(),
            weight: share.weight,
            max_in_flight: deployment.max_in_flight,
            backup: share.backup,
            api_key: deployment.api_key.clone(),
            model: model(deployment).filter(|word| !is_own(word)),
        })
        .collect();
    let is_https = deployments.iter().any(|d| d.server.is_https);
    let pool = Pool {
        endpoints,
        max_in_flight: common.max_in_flight,
        retries: retries(&deployments, settings, notes),
        times: times(&deployments, settings.defaults, notes),
        verify: !is_https || verify(&deployments, settings, notes),
        ca: common.ca.clone().filter(|_| is_https),
        eject_after: common.eject_after,
        eject_for: common.eject_for,
    };
    let upstream = (is_one_name && !is_own(first)).then(|| first.clone());
    (pool, upstream)
}

/// The deployments, without those whose server another one has already.
fn distinct<'g, 'a>(group: &'g Group<'a>, notes: &mut Notes) -> Vec<&'g Deployment<'a>> {
    let mut seen: HashMap<&Word, &Deployment<'_>> = HashMap::new();
    let mut distinct = Vec::new();
    for deployment in &group.deployments {
        match seen.get(&deployment.server.url) {
            None => {
                seen.insert(&deployment.server.url, deployment);
                distinct.push(deployment);
            }
            Some(first) => notes.not_carried(
                &deployment.at,
                format!(
                    "{} has the same server (line {}): a pool has each once; a larger share is a weight",
                    first.at.path, first.at.at.line
                ),
            ),
        }
    }
    distinct
}

/// The most of the deployments' retries, for the whole pool.
fn retries(
    deployments: &[&Deployment<'_>],
    settings: &Settings<'_>,
    notes: &mut Notes,
) -> Option<u64> {
    if deployments.iter().all(|d| d.retries.is_none()) {
        return settings.num_retries;
    }
    let default = u64::from(settings.defaults.pools[0].retries);
    let of = |d: &Deployment<'_>| d.retries.or(settings.num_retries).unwrap_or(default);
    let most = deployments.iter().map(|d| of(d)).max()?;
    for deployment in deployments.iter().filter(|d| of(d) != most) {
        if let Some(field) = deployment.params.get("num_retries") {
            notes.differs(
                &field,
                format!("retries is {most}, for every endpoint of the pool"),
            );
        }
    }
    Some(most)
}

/// The longest of the deployments' times, for the whole pool.
fn times(deployments: &[&Deployment<'_>], defaults: &Config, notes: &mut Notes) -> Times {
    let ours = &defaults.pools[0].timeouts;
    let most = |of: fn(&Times) -> Option<Duration>, ours: Duration| {
        let all = || deployments.iter().map(|d| of(&d.times));
        // Where one has nothing written, ours is in force for it.
        let is_written = all().any(|time| time.is_some());
        is_written.then(|| all().map(|time| time.unwrap_or(ours)).max())?
    };
    let all = Times {
        first_byte: most(|t| t.first_byte, ours.first_byte),
        read: most(|t| t.read, ours.read),
    };
    for deployment in deployments.iter().filter(|d| d.times != all) {
        for key in ["timeout", "request_timeout", "stream_timeout"] {
            let field = deployment.params.get(key);
            if let Some(field) = field.filter(|field| field.number().is_some()) {
                notes.differs(
                    &field,
                    "a pool has one first_byte and one read: the longest of its deployments",
                );
            }
        }
    }
    all
}

/// Whether engines have to show a certificate that can be trusted: all of a pool, or none.
fn verify(deployments: &[&Deployment<'_>], settings: &Settings<'_>, notes: &mut Notes) -> bool {
    let of = |d: &Deployment<'_>| d.verify.unwrap_or(settings.verify());
    let https = || deployments.iter().filter(|d| d.server.is_https);
    let is_verified = https().any(|d| of(d));
    for deployment in https().filter(|d| of(d) != is_verified) {
        if let Some(field) = deployment.params.get("ssl_verify") {
            notes.differs(
                &field,
                "other deployments of the model are verified: the pool verifies all (tls.verify)",
            );
        }
    }
    is_verified
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
