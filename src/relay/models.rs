//! `/v1/models`, answered from what the configuration names and the engines last said.

use std::sync::Arc;

use pingora::http::RequestHeader;

use crate::config::similar;
use crate::local::models::{Offer, available};
use crate::openai::models::{Catalog, Form, list, one};
use crate::openai::{ApiError, Call, Dialect, Own, paths};
use crate::snapshot::Snapshot;

use super::Stop;
use super::ctx::RequestCtx;
use super::intake::path_of;
use super::local::{JSON, whole};
use super::request::split_target;
use super::respond::Local;

/// Near names in an answer about a model that does not exist.
const SUGGESTIONS: usize = 3;

/// Answers a call of the gateway's own with what the client's key may use.
pub fn answer(
    snapshot: &Snapshot,
    request: &RequestHeader,
    ctx: &RequestCtx,
    call: Call,
    own: Own,
) -> Result<Local, Stop> {
    let tenant = ctx.tenant.as_deref();
    let may = |name: &str| tenant.is_none_or(|tenant| tenant.may_use(name));
    let catalogs = catalogs(snapshot);
    let offers: Vec<Offer<'_>> = catalogs
        .iter()
        .map(|(pool, asked_for, catalog)| Offer {
            pool: *pool,
            asked_for: *asked_for,
            listed: &catalog.models,
        })
        .collect();
    let entries = available(&snapshot.config.models, &offers, &may);
    let form = match call.dialect {
        Dialect::Messages => Form::Anthropic,
        _ => Form::OpenAi,
    };
    let body = match own {
        Own::Models => list(&entries, form),
        Own::Model => {
            let (_, target) = split_target(request.raw_path());
            let name = paths::model_of(path_of(target)).unwrap_or_default();
            let Some(entry) = entries.iter().find(|entry| entry.id == name) else {
                let near = similar(&name, entries.iter().map(|entry| entry.id), SUGGESTIONS);
                let near = near.into_iter().map(str::to_owned).collect();
                return Err(Stop::Refused(ApiError::model_not_found(&name, near)));
            };
            one(entry, form)
        }
    };
    Ok(whole(200, JSON, body))
}

/// The last answer of every endpoint that has given one, with its pool and its own `model`.
fn catalogs(snapshot: &Snapshot) -> Vec<(usize, Option<&str>, Arc<Catalog>)> {
    let mut catalogs = Vec::new();
    for (index, pool) in snapshot.pools.iter().enumerate() {
        for endpoint in &pool.endpoints {
            if let Some(catalog) = endpoint.state.catalog.get() {
                catalogs.push((index, endpoint.model.as_deref(), catalog));
            }
        }
    }
    catalogs
}
