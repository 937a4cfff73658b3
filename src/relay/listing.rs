//! Endpoints as `/endpoints` and the answers to orders show them.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use tokio::time::Instant;

use crate::config::Engine;
use crate::local::endpoints::{EndpointView, LoadView, render};
use crate::openai::models::Catalog;
use crate::pool::{Endpoint, EndpointState, EndpointStatus, Pool};
use crate::snapshot::Snapshot;

/// One endpoint at the moment of the question.
struct Listed<'a> {
    /// `None` = in no pool any more.
    place: Option<(&'a Pool, &'a Endpoint)>,
    state: Arc<EndpointState>,
    name: Arc<str>,
    status: EndpointStatus,
    why: Option<String>,
    catalog: Option<Arc<Catalog>>,
}

/// Every endpoint of the configuration once a pool, and those that are leaving.
pub fn all(snapshot: &Snapshot) -> Bytes {
    let now = Instant::now();
    let mut list: Vec<_> = every(snapshot)
        .map(|place| Listed::at(place, now))
        .collect();
    let leaving = snapshot.leaving().map(|state| {
        let name = Arc::clone(&state.settings().name);
        Listed::new(None, state, name, now)
    });
    list.extend(leaving);
    shown(&list, now)
}

/// These alone.
pub fn some<'a>(places: impl IntoIterator<Item = (&'a Pool, &'a Endpoint)>) -> Bytes {
    let now = Instant::now();
    let places = places.into_iter();
    let list: Vec<_> = places.map(|place| Listed::at(place, now)).collect();
    shown(&list, now)
}

/// Every endpoint of the configuration, once a pool.
pub fn every(snapshot: &Snapshot) -> impl Iterator<Item = (&Pool, &Endpoint)> {
    let pools = snapshot.pools.iter();
    pools.flat_map(|pool| {
        pool.endpoints
            .iter()
            .map(move |endpoint| (&**pool, endpoint))
    })
}

impl<'a> Listed<'a> {
    fn at(place: (&'a Pool, &'a Endpoint), now: Instant) -> Self {
        let endpoint = place.1;
        let (state, name) = (Arc::clone(&endpoint.state), Arc::clone(&endpoint.name));
        Self::new(Some(place), state, name, now)
    }

    fn new(
        place: Option<(&'a Pool, &'a Endpoint)>,
        state: Arc<EndpointState>,
        name: Arc<str>,
        now: Instant,
    ) -> Self {
        let status = state.status(now);
        Self {
            place,
            name,
            why: status.why(),
            catalog: state.catalog.get(),
            status,
            state,
        }
    }

    fn view(&self, now: Instant) -> EndpointView<'_> {
        let endpoint = self.place.map(|(_, endpoint)| endpoint);
        let engine = match self.place {
            Some((pool, endpoint)) => pool.engine_of(endpoint),
            None => self.state.catalog.engine(),
        };
        let next_probe = self.status.next_probe;
        EndpointView {
            pool: self.place.map(|(pool, _)| &*pool.name),
            endpoint: &self.name,
            url: self.state.url(),
            engine: engine.map(Engine::as_str),
            models: (self.catalog.iter())
                .flat_map(|catalog| catalog.names())
                .collect(),
            state: self.status.state.as_str(),
            reason: self.why.as_deref(),
            since: self.status.since,
            in_flight: u64::from(self.status.in_flight),
            weight: endpoint.map_or(0, |endpoint| endpoint.weight),
            max_in_flight: endpoint.and_then(|endpoint| endpoint.max_in_flight),
            queued: (self.place).map_or(0, |(pool, _)| pool.queue.depth() as u64),
            backup: endpoint.is_some_and(|endpoint| endpoint.backup),
            // Nobody probes what has left.
            next_probe: next_probe
                .filter(|_| endpoint.is_some())
                .map(|at| at.duration_since(SystemTime::now()).unwrap_or_default()),
            idle_connections: self.state.idle.len(),
            load: (self.state.report.get())
                .map(|report| LoadView::of(&report.load, now.duration_since(report.at))),
        }
    }
}

fn shown(list: &[Listed<'_>], now: Instant) -> Bytes {
    render(&list.iter().map(|one| one.view(now)).collect::<Vec<_>>())
}
