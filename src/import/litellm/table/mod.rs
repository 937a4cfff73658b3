//! What becomes of each key, as data.

mod deployments;
mod general;
mod litellm;
mod router;
mod top;
pub(super) mod why;

use deployments::{DEPLOYMENT, INFO, PARAMS};
use general::GENERAL;
use litellm::LITELLM;
use router::ROUTER;
use top::TOP;

/// Where keys stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Top,
    Deployment,
    Params,
    Info,
    Router,
    Litellm,
    General,
}

/// What becomes of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// There is code for it, which says itself what is different.
    Carried,
    /// With one of these values it asks for what the gateway does anyway; why not with others.
    Same(&'static [&'static str], &'static str),
    /// Why not.
    Not(&'static str),
    /// What kept clients out or held them back is lost; what to do about it.
    Unguarded(&'static str),
}

/// The fate of a key; of one that has no entry, by how it begins, and by where it stands.
pub(super) fn fate(place: Place, key: &str) -> Fate {
    let table = match place {
        Place::Top => TOP,
        Place::Deployment => DEPLOYMENT,
        Place::Params => PARAMS,
        Place::Info => INFO,
        Place::Router => ROUTER,
        Place::Litellm => LITELLM,
        Place::General => GENERAL,
    };
    let exact = table.iter().find(|(name, _)| *name == key);
    let prefix = || {
        (table.iter())
            .filter(|(name, _)| name.ends_with('*'))
            .find(|(name, _)| key.starts_with(name.trim_end_matches('*')))
    };
    exact
        .or_else(prefix)
        .map_or_else(|| unknown(place, key), |(_, fate)| *fate)
}

fn unknown(place: Place, key: &str) -> Fate {
    match place {
        Place::Top if ROUTER.iter().any(|(name, _)| *name == key) => Fate::Not(
            "LiteLLM reads it within router_settings alone, not beside it: put two spaces before it",
        ),
        Place::Top if GENERAL.iter().any(|(name, _)| *name == key) => Fate::Not(
            "LiteLLM reads it within general_settings alone, not beside it: put two spaces before it",
        ),
        Place::Params => Fate::Not(
            "LiteLLM adds it to every request that does not have it; the gateway adds nothing to a body: set it at the engine, or in the clients",
        ),
        Place::Router => Fate::Not("it is no setting of LiteLLM's router, which ignores it"),
        Place::Deployment => Fate::Not("LiteLLM knows no such key of a deployment, and ignores it"),
        _ => Fate::Not("the gateway has nothing like it"),
    }
}

/// All of them, for tests.
#[cfg(test)]
pub(super) const ALL: &[(Place, &[(&str, Fate)])] = &[
    (Place::Top, TOP),
    (Place::Deployment, DEPLOYMENT),
    (Place::Params, PARAMS),
    (Place::Info, INFO),
    (Place::Router, ROUTER),
    (Place::Litellm, LITELLM),
    (Place::General, GENERAL),
];
