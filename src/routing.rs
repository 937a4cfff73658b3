//! Which pool serves the model that a request names, and what the engines call it. Pure.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use crate::config::{self, Config, similar};
use crate::openai::ApiError;

/// The label of requests whose model's name is not in the configuration.
pub const OTHER: &str = "other";
/// Every model, as a key's right.
const ALL: &str = "*";
/// Near names in an answer about a model that does not exist.
const SUGGESTIONS: usize = 3;
/// Names that are looked at for one such answer.
const LOOKED_AT: usize = 1000;

/// The routes of one configuration.
#[derive(Debug)]
pub struct Routes {
    /// By public name: models and aliases.
    named: HashMap<Arc<str>, Target>,
    /// Models in the order of the file, then aliases.
    names: Vec<Arc<str>>,
    /// Where other names go: `"*"`, or the only pool where `models` is not configured.
    others: Option<Target>,
    /// Where goes what has no model by its nature.
    unnamed: Option<Target>,
}

#[derive(Debug, Clone)]
struct Target {
    pool: usize,
    label: Arc<str>,
    upstream_model: Option<Arc<str>>,
    rename_response: bool,
}

impl Target {
    fn route(&self) -> Route<'_> {
        Route {
            pool: self.pool,
            label: &self.label,
            upstream_model: self.upstream_model.as_ref(),
            rename_response: self.rename_response,
        }
    }
}

/// Where a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route<'a> {
    /// Index into the configuration's pools.
    pub pool: usize,
    /// For metrics and the log: the configured name, of an alias its model's; else [`OTHER`].
    pub label: &'a Arc<str>,
    /// What is written in place of the name in the request. `None`: that name passes as it is. An
    /// endpoint's own `model` comes before it.
    pub upstream_model: Option<&'a Arc<str>>,
    /// Whether answers name the model as the client did.
    pub rename_response: bool,
}

impl Route<'static> {
    /// For what is there in one pool alone, and names no model.
    pub fn to_pool(pool: usize) -> Self {
        static LABEL: LazyLock<Arc<str>> = LazyLock::new(|| OTHER.into());
        Self {
            pool,
            label: &LABEL,
            upstream_model: None,
            rename_response: false,
        }
    }
}

/// Why a request goes nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoRoute {
    /// It names no model, and none serves every name.
    Missing,
    Unknown {
        model: String,
        /// At most three names that the key may use, the nearest first.
        suggestions: Vec<String>,
    },
    /// `None`: it names no model, which needs a key for all of them.
    NotAllowed { model: Option<String> },
}

impl From<NoRoute> for ApiError {
    fn from(why: NoRoute) -> Self {
        match why {
            NoRoute::Missing => Self::MissingModel,
            NoRoute::Unknown { model, suggestions } => Self::model_not_found(&model, suggestions),
            NoRoute::NotAllowed { model } => Self::model_not_allowed(model.as_deref()),
        }
    }
}

impl Routes {
    pub fn build(config: &Config) -> Self {
        let models = &config.models;
        let mut routes = Self {
            named: HashMap::with_capacity(models.list.len() + models.aliases.len()),
            names: Vec::with_capacity(models.list.len() + models.aliases.len()),
            others: models.wildcard.as_ref().map(anonymous),
            unnamed: None,
        };
        for model in &models.list {
            let target = Target {
                label: Arc::clone(&model.name),
                ..anonymous(model)
            };
            routes.add(&model.name, target);
        }
        for alias in &models.aliases {
            let Some(model) = models.list.get(alias.model) else {
                continue;
            };
            // The engines know nothing of an alias.
            let upstream = model.upstream_model.as_ref().unwrap_or(&model.name);
            let target = Target {
                label: Arc::clone(&model.name),
                upstream_model: Some(Arc::clone(upstream)),
                ..anonymous(model)
            };
            routes.add(&alias.name, target);
        }
        let first = Target {
            pool: 0,
            label: Arc::from(OTHER),
            upstream_model: None,
            rename_response: false,
        };
        if !models.is_configured() {
            routes.others = Some(first.clone());
        }
        let only = (config.pools.len() == 1).then_some(first);
        routes.unnamed = routes.others.clone().or(only);
        routes
    }

    fn add(&mut self, name: &Arc<str>, target: Target) {
        self.named.insert(Arc::clone(name), target);
        self.names.push(Arc::clone(name));
    }

    /// Where a request for `model` goes; `None` = its body names none. `may` says whether its key may
    /// use a name, `*` being all of them.
    ///
    /// # Errors
    /// Why it goes nowhere. That a model exists is told to a key that may not use it.
    pub fn resolve<'a>(
        &'a self,
        model: Option<&str>,
        may: &dyn Fn(&str) -> bool,
    ) -> Result<Route<'a>, NoRoute> {
        let Some(model) = model else {
            return unnamed(self.others.as_ref(), may);
        };
        let not_allowed = || NoRoute::NotAllowed {
            model: Some(model.to_owned()),
        };
        if let Some(target) = self.named.get(model) {
            return if allowed(model, target, may) {
                Ok(target.route())
            } else {
                Err(not_allowed())
            };
        }
        match &self.others {
            Some(target) if may(model) => Ok(target.route()),
            Some(_) => Err(not_allowed()),
            None => Err(NoRoute::Unknown {
                model: model.to_owned(),
                suggestions: self.near(model, may),
            }),
        }
    }

    /// Where a request goes that has no model by its nature, such as the GET of an engine's own page:
    /// where every name goes, or to the only pool. It takes a key for all models.
    ///
    /// # Errors
    /// [`NoRoute::Missing`] where several pools are left to choose from.
    pub fn without_model(&self, may: &dyn Fn(&str) -> bool) -> Result<Route<'_>, NoRoute> {
        unnamed(self.unnamed.as_ref(), may)
    }

    /// The public names in the order of the file, aliases last.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|name| &**name)
    }

    /// Every pool and label that a route may have, some of them more than once.
    pub fn targets(&self) -> impl Iterator<Item = (usize, &Arc<str>)> {
        let unnamed = self.others.iter().chain(&self.unnamed);
        let all = self.named.values().chain(unnamed);
        all.map(|target| (target.pool, &target.label))
    }

    fn near(&self, model: &str, may: &dyn Fn(&str) -> bool) -> Vec<String> {
        let usable = self.names().take(LOOKED_AT).filter(|name| {
            let target = self.named.get(*name);
            target.is_some_and(|target| allowed(name, target, may))
        });
        let near = similar(model, usable, SUGGESTIONS);
        near.into_iter().map(str::to_owned).collect()
    }
}

/// A model as its clients' names do not tell.
fn anonymous(model: &config::Model) -> Target {
    Target {
        pool: model.pool,
        label: Arc::from(OTHER),
        upstream_model: model.upstream_model.clone(),
        rename_response: model.rename_response,
    }
}

/// A key for a model may use its aliases.
fn allowed(name: &str, target: &Target, may: &dyn Fn(&str) -> bool) -> bool {
    may(name) || may(&target.label)
}

fn unnamed<'a>(
    target: Option<&'a Target>,
    may: &dyn Fn(&str) -> bool,
) -> Result<Route<'a>, NoRoute> {
    match target {
        None => Err(NoRoute::Missing),
        Some(target) if may(ALL) => Ok(target.route()),
        Some(_) => Err(NoRoute::NotAllowed { model: None }),
    }
}

#[cfg(test)]
mod tests;
