use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use crate::config::{Config, Url};

/// What host names resolve to: for each (host, port) its addresses, sorted, never none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolved {
    addresses: BTreeMap<(String, u16), Vec<SocketAddr>>,
}

impl Resolved {
    /// An empty answer is no answer: the name keeps what it had.
    pub fn insert(&mut self, host: &str, port: u16, mut addresses: Vec<SocketAddr>) {
        addresses.sort_unstable();
        addresses.dedup();
        if !addresses.is_empty() {
            self.addresses.insert((host.to_owned(), port), addresses);
        }
    }

    /// Empty when not known. An address in place of a name is its own answer.
    pub fn lookup(&self, host: &str, port: u16) -> Vec<SocketAddr> {
        if let Ok(ip) = host.parse::<IpAddr>() {
            return vec![SocketAddr::new(ip, port)];
        }
        self.addresses
            .get(&(host.to_owned(), port))
            .cloned()
            .unwrap_or_default()
    }

    /// These answers for the names of `config`, and `previous`'s where there is none.
    pub(super) fn over(&self, previous: &Resolved, config: &Config) -> Resolved {
        let addresses = names(config)
            .into_iter()
            .filter_map(|name| {
                let found = self
                    .addresses
                    .get(&name)
                    .or_else(|| previous.addresses.get(&name))?;
                Some((name, found.clone()))
            })
            .collect();
        Resolved { addresses }
    }
}

/// The (host, port) pairs that must be looked up: those that are no addresses.
pub fn names(config: &Config) -> BTreeSet<(String, u16)> {
    let endpoints = config.pools.iter().flat_map(|pool| &pool.endpoints);
    endpoints
        .filter_map(|endpoint| match &endpoint.url {
            Url::Tcp { host, port, .. } if host.parse::<IpAddr>().is_err() => {
                Some((host.clone(), *port))
            }
            _ => None,
        })
        .collect()
}
