use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use crate::pool::Pool;
use crate::routing::Routes;
use crate::telemetry::metrics::ModelMetrics;

/// A model of a pool, as it is counted.
pub struct ModelScope {
    pub pool: Arc<str>,
    /// The name in the configuration, or `other`.
    pub model: Arc<str>,
    /// Filled at its first use.
    pub metrics: OnceLock<ModelMetrics>,
}

impl fmt::Debug for ModelScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelScope")
            .field("pool", &self.pool)
            .field("model", &self.model)
            .finish_non_exhaustive()
    }
}

/// Those of one snapshot, by pool and model.
pub(super) struct Scopes(Vec<HashMap<Arc<str>, Arc<ModelScope>>>);

impl Scopes {
    /// One that is in `previous` is the same here, so that a request of any earlier snapshot counts where
    /// this one does, for as long as there is the model.
    pub(super) fn build(routes: &Routes, pools: &[Arc<Pool>], previous: Option<&Scopes>) -> Self {
        let known: HashMap<_, _> = (previous.into_iter().flat_map(Scopes::all))
            .map(|scope| ((&scope.pool, &scope.model), scope))
            .collect();
        let mut scopes = vec![HashMap::new(); pools.len()];
        for (pool, label) in routes.targets() {
            let name = &pools[pool].name;
            let scope = match known.get(&(name, label)) {
                Some(&scope) => Arc::clone(scope),
                None => Arc::new(ModelScope {
                    pool: Arc::clone(name),
                    model: Arc::clone(label),
                    metrics: OnceLock::new(),
                }),
            };
            scopes[pool].insert(Arc::clone(label), scope);
        }
        Self(scopes)
    }

    pub(super) fn find(&self, pool: usize, label: &str) -> Option<&Arc<ModelScope>> {
        self.0.get(pool)?.get(label)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<ModelScope>> {
        self.0.iter().flat_map(HashMap::values)
    }
}
