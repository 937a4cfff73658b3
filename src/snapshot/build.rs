use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, Weak};

use tokio::time::Instant;

use super::scopes::Scopes;
use super::{Resolved, Snapshot};
use crate::admission::Keyring;
use crate::config::{self, Config, Url};
use crate::pool::{Endpoint, EndpointState, Pool, Settings};
use crate::routing::Routes;
use crate::telemetry::metrics::EndpointMetrics;
use crate::upstream::{Address, Target, TlsClient, TlsError};

/// What makes two endpoints of different pools or epochs the same one. The TLS settings are part of
/// it, because idle connections are: one made without verification must not serve a pool that
/// verifies. The in-flight count is shared over them, see [`EndpointState::counting_with`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    url: Url,
    /// `None` = a unix socket, or a name that has never resolved.
    address: Option<SocketAddr>,
    tls: Option<TlsKey>,
}

impl Identity {
    pub(super) fn url(&self) -> &Url {
        &self.url
    }
}

/// What a TLS client is made of, the CA file by its content: a reload takes a file that changed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct TlsKey {
    server_name: String,
    ca: Option<(PathBuf, Arc<[u8]>)>,
    verify: bool,
}

/// Why a snapshot cannot be built. The configuration it was for is not taken.
#[derive(Debug)]
pub enum BuildError {
    /// A configuration without a pool.
    NoPool,
    Ca {
        file: PathBuf,
        error: io::Error,
    },
    Tls {
        endpoint: String,
        error: TlsError,
    },
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BuildError::NoPool => f.write_str("there is no pool"),
            BuildError::Ca { file, error } => {
                write!(f, "cannot read the CA file {}: {error}", file.display())
            }
            BuildError::Tls { endpoint, error } => write!(f, "TLS for {endpoint}: {error}"),
        }
    }
}

impl std::error::Error for BuildError {}

pub(super) struct Builder<'a> {
    previous: Option<&'a Snapshot>,
    /// The configuration is the one `previous` has, so no file is read again.
    same_config: bool,
    resolved: Resolved,
    now: Instant,
    endpoints: Vec<(Arc<EndpointState>, Arc<Settings>)>,
    listed: HashSet<u64>,
    known: HashMap<Identity, Weak<EndpointState>>,
    ca_files: HashMap<PathBuf, Arc<[u8]>>,
    tls_clients: HashMap<TlsKey, Arc<TlsClient>>,
}

impl<'a> Builder<'a> {
    pub(super) fn new(
        config: &Arc<Config>,
        resolved: &Resolved,
        previous: Option<&'a Snapshot>,
    ) -> Self {
        let known = previous.map(|previous| {
            let alive = previous
                .known
                .iter()
                .filter(|(_, state)| state.strong_count() > 0);
            alive
                .map(|(identity, state)| (identity.clone(), Weak::clone(state)))
                .collect()
        });
        Self {
            previous,
            same_config: previous.is_some_and(|previous| Arc::ptr_eq(&previous.config, config)),
            resolved: match previous {
                Some(previous) => resolved.over(&previous.resolved, config),
                None => resolved.over(&Resolved::default(), config),
            },
            now: Instant::now(),
            endpoints: Vec::new(),
            listed: HashSet::new(),
            known: known.unwrap_or_default(),
            ca_files: HashMap::new(),
            tls_clients: HashMap::new(),
        }
    }

    pub(super) fn build(mut self, config: &Arc<Config>) -> Result<Snapshot, BuildError> {
        if config.pools.is_empty() {
            return Err(BuildError::NoPool);
        }
        let mut pools = Vec::with_capacity(config.pools.len());
        for pool in &config.pools {
            let mut endpoints = Vec::with_capacity(pool.endpoints.len());
            for endpoint in &pool.endpoints {
                self.add(pool, endpoint, &mut endpoints)?;
            }
            let before = self.previous.and_then(|previous| {
                previous
                    .pools
                    .iter()
                    .find(|before| before.name == pool.name)
            });
            pools.push(Arc::new(Pool::new(
                pool,
                &config.keepalive,
                endpoints,
                before.map(|before| &**before),
                self.now,
            )));
        }
        let epoch = self
            .previous
            .map_or(1, |previous| previous.epoch + u64::from(!self.same_config));
        let routes = Routes::build(config);
        let keyring = config.keys.as_deref().map(|keys| {
            let before = self.previous.and_then(|previous| previous.keyring.as_ref());
            Keyring::build(keys, before, self.now)
        });
        Ok(Snapshot {
            scopes: Scopes::build(&routes, &pools, self.previous.map(|one| &one.scopes)),
            routes,
            keyring,
            epoch,
            generation: self.previous.map_or(1, |previous| previous.generation + 1),
            config: Arc::clone(config),
            pools,
            resolved: self.resolved,
            endpoints: self.endpoints,
            known: self.known,
            ca_files: self.ca_files,
            tls_clients: self.tls_clients,
        })
    }

    /// Adds what `endpoint` stands for to `list`: one endpoint per address of its host.
    fn add(
        &mut self,
        pool: &config::Pool,
        endpoint: &config::Endpoint,
        list: &mut Vec<Endpoint>,
    ) -> Result<(), BuildError> {
        let authority = authority(&endpoint.url);
        let addresses = match &endpoint.url {
            Url::Tcp { host, port, .. } => self.resolved.lookup(host, *port),
            Url::Unix(_) => Vec::new(),
        };
        let several = addresses.len() > 1;
        let addresses = if addresses.is_empty() {
            vec![None]
        } else {
            addresses.into_iter().map(Some).collect()
        };
        for address in addresses {
            let name = match address {
                Some(address) if several => format!("{authority}@{}", address.ip()),
                _ => authority.clone(),
            };
            let settings = Arc::new(Settings {
                name: Arc::from(name),
                health: pool.health.clone(),
                engine: pool.engine,
                api_key: endpoint.api_key.clone(),
                drain: endpoint.drain,
                drain_timeout: pool.drain_timeout,
            });
            let state = self.state(pool, endpoint, address, &settings)?;
            list.push(Endpoint {
                name: Arc::clone(&settings.name),
                weight: endpoint.weight,
                max_in_flight: endpoint.max_in_flight,
                backup: endpoint.backup,
                drain: endpoint.drain,
                api_key: endpoint.api_key.clone(),
                model: endpoint.model.clone(),
                metrics: self.metrics(&pool.name, &settings.name),
                state: Arc::clone(&state),
            });
            if self.listed.insert(state.id) {
                self.endpoints.push((state, settings));
            } else if endpoint.drain {
                self.drain(&state);
            }
        }
        Ok(())
    }

    /// The counters of the endpoint of that name in the epoch before, so that a request of any earlier one counts where
    /// this one does.
    fn metrics(&self, pool: &str, endpoint: &str) -> Arc<OnceLock<EndpointMetrics>> {
        let pools = self.previous.iter().flat_map(|previous| &previous.pools);
        let mut endpoints = pools
            .filter(|before| *before.name == *pool)
            .flat_map(|before| &before.endpoints);
        let before = endpoints.find(|before| *before.name == *endpoint);
        before.map_or_else(Arc::default, |before| Arc::clone(&before.metrics))
    }

    /// One pool's word is enough for all that have the endpoint.
    fn drain(&mut self, state: &EndpointState) {
        let mut listed = self.endpoints.iter_mut();
        if let Some((_, settings)) = listed.find(|(listed, _)| listed.id == state.id) {
            Arc::make_mut(settings).drain = true;
        }
    }

    /// The state of that identity, found again or new.
    fn state(
        &mut self,
        pool: &config::Pool,
        endpoint: &config::Endpoint,
        address: Option<SocketAddr>,
        settings: &Arc<Settings>,
    ) -> Result<Arc<EndpointState>, BuildError> {
        let identity = Identity {
            url: endpoint.url.clone(),
            address,
            tls: self.tls_key(pool, &endpoint.url)?,
        };
        let tls = match &identity.tls {
            Some(key) => Some(self.tls_client(key, &settings.name)?),
            None => None,
        };
        if let Some(state) = self.known.get(&identity).and_then(Weak::upgrade) {
            return Ok(state);
        }
        let authority = match &endpoint.url {
            Url::Tcp { .. } => authority(&endpoint.url),
            // What nginx sends to a unix socket.
            Url::Unix(_) => "localhost".to_owned(),
        };
        let (address, resolved) = match (&endpoint.url, address) {
            (Url::Unix(path), _) => (Address::Unix(path.clone()), true),
            (_, Some(address)) => (Address::Tcp(address), true),
            // Never connected to: the state is down for as long as it exists.
            (_, None) => (Address::Tcp((Ipv4Addr::UNSPECIFIED, 0).into()), false),
        };
        let target = Target {
            address,
            authority,
            tls,
        };
        let mut state = if resolved {
            EndpointState::new(target, Arc::clone(settings), self.now)
        } else {
            EndpointState::unresolved(target, Arc::clone(settings), self.now)
        };
        if let Some(twin) = self.twin(&identity) {
            state = state.counting_with(&twin);
        }
        let state = Arc::new(state);
        self.known.insert(identity, Arc::downgrade(&state));
        Ok(state)
    }

    /// The same engine with other TLS settings.
    fn twin(&self, identity: &Identity) -> Option<Arc<EndpointState>> {
        identity.tls.as_ref()?;
        self.known
            .iter()
            .filter(|(other, _)| other.url == identity.url && other.address == identity.address)
            .find_map(|(_, state)| state.upgrade())
    }

    fn tls_key(&mut self, pool: &config::Pool, url: &Url) -> Result<Option<TlsKey>, BuildError> {
        let Url::Tcp {
            tls: true, host, ..
        } = url
        else {
            return Ok(None);
        };
        let ca = match &pool.tls.ca {
            Some(file) => Some((file.clone(), self.ca_file(file)?)),
            None => None,
        };
        Ok(Some(TlsKey {
            server_name: pool.tls.server_name.clone().unwrap_or_else(|| host.clone()),
            ca,
            verify: pool.tls.verify,
        }))
    }

    fn ca_file(&mut self, file: &Path) -> Result<Arc<[u8]>, BuildError> {
        if let Some(content) = self.ca_files.get(file) {
            return Ok(Arc::clone(content));
        }
        let kept = self
            .previous
            .filter(|_| self.same_config)
            .and_then(|previous| previous.ca_files.get(file));
        let content = match kept {
            Some(content) => Arc::clone(content),
            None => std::fs::read(file)
                .map(Arc::from)
                .map_err(|error| BuildError::Ca {
                    file: file.to_owned(),
                    error,
                })?,
        };
        self.ca_files.insert(file.to_owned(), Arc::clone(&content));
        Ok(content)
    }

    fn tls_client(&mut self, key: &TlsKey, endpoint: &str) -> Result<Arc<TlsClient>, BuildError> {
        if let Some(client) = self.tls_clients.get(key) {
            return Ok(Arc::clone(client));
        }
        let kept = self
            .previous
            .and_then(|previous| previous.tls_clients.get(key));
        let client = match kept {
            Some(client) => Arc::clone(client),
            None => {
                let ca = key.ca.as_ref().map(|(file, _)| file.as_path());
                let client = TlsClient::new(&key.server_name, ca, key.verify);
                Arc::new(client.map_err(|error| BuildError::Tls {
                    endpoint: endpoint.to_owned(),
                    error,
                })?)
            }
        };
        self.tls_clients.insert(key.clone(), Arc::clone(&client));
        Ok(client)
    }
}

/// `node0:8000`, `[::1]:8000`, `unix:/path`.
fn authority(url: &Url) -> String {
    match url {
        Url::Tcp { host, port, .. } if host.contains(':') => format!("[{host}]:{port}"),
        Url::Tcp { host, port, .. } => format!("{host}:{port}"),
        Url::Unix(path) => format!("unix:{}", path.display()),
    }
}
