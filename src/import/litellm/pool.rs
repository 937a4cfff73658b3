//! A group of deployments as a pool.

use std::collections::HashMap;
use std::time::Duration;

use crate::config::{Config, show_duration};
use crate::import::yaml::Yaml;

use super::deployments::{Deployment, Group, Times};
use super::notes::Notes;
use super::settings::{Settings, Strategy};
use super::tree::Word;
use super::weights::weights;

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
pub(super) struct Pool {
    endpoints: Vec<Endpoint>,
    max_in_flight: Option<u64>,
    retries: Option<u64>,
    pub times: Times,
    verify: bool,
    ca: Option<String>,
    eject_after: Option<u64>,
    eject_for: Option<Duration>,
}

impl Pool {
    /// Whether its engines call a model by different names.
    pub fn has_names(&self) -> bool {
        self.endpoints
            .iter()
            .any(|endpoint| endpoint.model.is_some())
    }

    /// Its keys, without the times that all pools have.
    pub fn keys(&self, has_common_times: bool, defaults: &Config) -> Vec<(&'static str, Yaml)> {
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

pub(super) fn timeouts(times: Times, defaults: &Config) -> Vec<(&'static str, Yaml)> {
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
pub(super) struct Common {
    pub max_in_flight: Option<u64>,
    pub eject_after: Option<u64>,
    pub eject_for: Option<Duration>,
    pub ca: Option<String>,
}

/// The pool of a group, and what its engines call the model where all call it the same and clients
/// do not.
pub(super) fn pool(
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
