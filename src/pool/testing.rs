//! Endpoints and pools for tests.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Endpoint, EndpointState, Pool, Settings};
use crate::config::{self, Config, Keepalive, PolicyName, Timeouts, UpstreamTls, Url};
use crate::snapshot::Resolved;
use crate::upstream::{Address, Target};

/// The defaults.
pub(crate) fn health() -> config::Health {
    config::Health {
        path: "/health".to_owned(),
        interval: Duration::from_secs(5),
        timeout: Duration::from_secs(2),
        fall: 3,
        rise: 2,
        eject_after: 3,
        eject_for: Duration::from_secs(10),
        stall: Duration::from_secs(30),
    }
}

pub(crate) fn keepalive() -> Keepalive {
    Keepalive {
        idle: Duration::from_secs(4),
        connections: 256,
    }
}

pub(crate) fn pool_config(policy: PolicyName) -> config::Pool {
    config::Pool {
        name: Arc::from("default"),
        engine: None,
        endpoints: Vec::new(),
        policy,
        max_in_flight: None,
        queue: Some(config::Queue {
            size: 1024,
            timeout: Duration::from_secs(60),
        }),
        retries: 3,
        retry_budget: config::RetryBudget {
            ratio: 0.2,
            min_per_second: 10,
        },
        drain_timeout: None,
        heartbeat: None,
        continue_streams: config::ContinueStreams::ByIds,
        tls: UpstreamTls {
            ca: None,
            verify: true,
            server_name: None,
        },
        health: health(),
        timeouts: Timeouts {
            connect: Duration::from_secs(5),
            first_byte: Duration::from_secs(300),
            read: Duration::from_secs(300),
            send: Duration::from_secs(60),
        },
    }
}

pub(crate) fn settings(name: &str) -> Arc<Settings> {
    Arc::new(Settings {
        name: Arc::from(name),
        health: health(),
        engine: None,
        api_key: None,
        drain: false,
        drain_timeout: None,
    })
}

pub(crate) fn target(port: u16) -> Target {
    Target {
        address: Address::Tcp((Ipv4Addr::LOCALHOST, port).into()),
        authority: format!("node:{port}"),
        tls: None,
    }
}

pub(crate) fn state(now: Instant) -> Arc<EndpointState> {
    Arc::new(EndpointState::new(target(8000), settings("node:8000"), now))
}

pub(crate) fn endpoint(state: &Arc<EndpointState>) -> Endpoint {
    Endpoint {
        state: Arc::clone(state),
        name: Arc::clone(&state.settings().name),
        weight: 1,
        max_in_flight: None,
        backup: false,
        drain: false,
        api_key: None,
        model: None,
        metrics: Arc::default(),
    }
}

/// That many endpoints of weight 1, proven to be up.
pub(crate) fn endpoints(count: usize, now: Instant) -> Vec<Endpoint> {
    (0..count)
        .map(|_| {
            let state = state(now);
            state.success(now);
            endpoint(&state)
        })
        .collect()
}

pub(crate) fn pool(policy: PolicyName, endpoints: Vec<Endpoint>, now: Instant) -> Arc<Pool> {
    let config = pool_config(policy);
    Arc::new(Pool::new(&config, &keepalive(), endpoints, None, now))
}

/// A configuration with this one pool of these endpoints.
pub(crate) fn config(urls: &[&str]) -> Config {
    let mut pool = pool_config(PolicyName::LeastInflight);
    pool.endpoints = urls.iter().map(|url| config_endpoint(url)).collect();
    Config {
        file: None,
        places: config::Places::default(),
        remarks: config::Remarks::default(),
        listen: Vec::new(),
        admin: Vec::new(),
        status_allow: Vec::new(),
        trusted_proxies: Vec::new(),
        threads: None,
        pid_file: None,
        resolve: Duration::from_secs(30),
        shutdown_grace: Duration::from_secs(300),
        log: config::Log {
            level: log::LevelFilter::Info,
            format: config::LogFormat::Text,
        },
        access_log: None,
        expose: config::Expose::All,
        limits: config::Limits {
            connections: 65535,
            connections_per_client: None,
            header: 64 << 10,
            body: 64 << 20,
            response_header: 64 << 10,
            answer: 1 << 20,
            event: 4 << 20,
            body_memory: 1 << 30,
            n: 16,
        },
        client: config::ClientTimeouts {
            header_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(60),
            send_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(65),
        },
        keepalive: keepalive(),
        pools: vec![pool],
        tracing: config::Tracing {
            otlp: None,
            sample: 0.0,
        },
        models: config::Models::default(),
        keys: None,
    }
}

/// `host:port`, `https://host:port` or `unix:/path`.
pub(crate) fn config_endpoint(url: &str) -> config::Endpoint {
    let url = match url.strip_prefix("unix:") {
        Some(path) => Url::Unix(path.into()),
        None => {
            let rest = url.strip_prefix("https://");
            let (host, port) = rest.unwrap_or(url).rsplit_once(':').unwrap();
            Url::Tcp {
                tls: rest.is_some(),
                host: host.trim_matches(['[', ']']).to_owned(),
                port: port.parse().unwrap(),
            }
        }
    };
    config::Endpoint {
        url,
        weight: 1,
        max_in_flight: None,
        backup: false,
        drain: false,
        api_key: None,
        model: None,
    }
}

/// Answers in place of a name server: `host`, port 8000, and its IPv4 addresses.
pub(crate) fn resolved(answers: &[(&str, &[[u8; 4]])]) -> Resolved {
    let mut resolved = Resolved::default();
    for (host, addresses) in answers {
        let addresses = addresses.iter().map(|ip| (*ip, 8000).into()).collect();
        resolved.insert(host, 8000, addresses);
    }
    resolved
}
