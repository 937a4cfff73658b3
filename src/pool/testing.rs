//! Endpoints and pools for tests.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Endpoint, EndpointState, Pool, Settings};
use crate::config::{self, Keepalive, PolicyName, Timeouts, UpstreamTls};
use crate::upstream::{Address, Target};

/// The defaults, without the stall detection.
pub(crate) fn health() -> config::Health {
    config::Health {
        path: "/health".to_owned(),
        interval: Duration::from_secs(5),
        timeout: Duration::from_secs(2),
        fall: 3,
        rise: 2,
        eject_after: 3,
        eject_for: Duration::from_secs(10),
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
        endpoints: Vec::new(),
        policy,
        retries: 3,
        retry_budget: config::RetryBudget {
            ratio: 0.2,
            min_per_second: 10,
        },
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
        api_key: None,
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
        api_key: None,
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
