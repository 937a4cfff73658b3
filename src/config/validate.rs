//! Rules between keys. A rule is one function.

use std::net::IpAddr;

use super::pools::DEFAULT;
use super::reader::{Places, Reader};
use super::units::show_size;
use super::{Config, Listen, ListenAddress, Pool, Url};

/// Notes every rule that `config` breaks.
pub(super) fn validate(config: &Config, reader: &Reader<'_>) {
    addresses_are_listened_on_once(config, reader);
    http2_needs_tls(config, reader);
    held_bytes_fit_into_memory(config, reader);
    for pool in &config.pools {
        endpoints_are_listed_once(pool, reader);
        endpoints_are_not_the_gateway(config, pool, reader);
    }
}

/// The key of a listener, as it was written: alone or in a list.
pub(super) fn listener_path(name: &str, index: usize, places: &impl Fn(&str) -> bool) -> String {
    let item = format!("{name}[{index}]");
    if places(&item) { item } else { name.to_owned() }
}

/// The key of a pool's endpoint, as it was written.
pub(super) fn endpoint_path(pool: &str, index: usize, places: &impl Fn(&str) -> bool) -> String {
    if pool == DEFAULT && !places("pools") && places("endpoints") {
        format!("endpoints[{index}]")
    } else {
        format!("pools.{pool}.endpoints[{index}]")
    }
}

fn addresses_are_listened_on_once(config: &Config, reader: &Reader<'_>) {
    let public = config.listen.iter().enumerate().map(|l| ("listen", l));
    let admin = config.admin.iter().enumerate().map(|l| ("admin", l));
    let all: Vec<(String, &Listen)> = public
        .chain(admin)
        .map(|(name, (i, l))| (listener_path(name, i, &|path| reader.knows(path)), l))
        .collect();
    for (i, (path, listen)) in all.iter().enumerate() {
        if let Some((first, _)) =
            (all[..i].iter()).find(|(_, l)| l.address.overlaps(&listen.address))
        {
            reader.problem_at(
                path,
                format!("takes the same address as {first}"),
                "keep one of the two, or give one another port",
            );
        }
    }
}

fn http2_needs_tls(config: &Config, reader: &Reader<'_>) {
    for (i, listen) in config.listen.iter().enumerate() {
        if listen.http2 && listen.tls.is_none() {
            let path = listener_path("listen", i, &|path| reader.knows(path));
            reader.problem_at(
                &format!("{path}.http2"),
                "needs tls: HTTP/2 is agreed on in the TLS handshake",
                "add tls: { certificate, key }, or remove http2",
            );
        }
    }
}

fn held_bytes_fit_into_memory(config: &Config, reader: &Reader<'_>) {
    let limits = &config.limits;
    let share = limits.body_memory / 2;
    for (name, value) in [
        ("body", limits.body),
        ("answer", limits.answer),
        ("event", limits.event),
    ] {
        if value > share {
            let whole = show_size(limits.body_memory as u64);
            reader.problem_at(
                &format!("limits.{name}"),
                format!("is more than half of limits.body_memory ({whole}), which is all that one client may take"),
                format!("write {} or less, or raise limits.body_memory", show_size(share as u64)),
            );
        }
    }
}

fn endpoints_are_listed_once(pool: &Pool, reader: &Reader<'_>) {
    let mut seen = std::collections::HashMap::new();
    for (i, endpoint) in pool.endpoints.iter().enumerate() {
        let path = endpoint_path(&pool.name, i, &|path| reader.knows(path));
        match seen.get(&endpoint.url) {
            None => {
                seen.insert(&endpoint.url, path);
            }
            Some(first) => reader.problem_at(
                &path,
                format!("is the same endpoint as {first}"),
                "remove one of the two; to give it a larger share, write a weight",
            ),
        }
    }
}

/// A request that is sent to the gateway itself would go round until every connection is taken.
fn endpoints_are_not_the_gateway(config: &Config, pool: &Pool, reader: &Reader<'_>) {
    let own = |url: &Url, listen: &ListenAddress| match (url, listen) {
        (Url::Unix(path), ListenAddress::Unix(own)) => path == own,
        (Url::Tcp { host, port, .. }, ListenAddress::Tcp(own)) => {
            own.port() == *port && own.port() != 0 && reaches(host, own.ip())
        }
        _ => false,
    };
    for (i, endpoint) in pool.endpoints.iter().enumerate() {
        if config
            .listen
            .iter()
            .chain(&config.admin)
            .any(|l| own(&endpoint.url, &l.address))
        {
            let path = endpoint_path(&pool.name, i, &|path| reader.knows(path));
            reader.problem_at(
                &path,
                "is an address that the gateway itself listens on",
                "write the engine's address, or let the gateway listen on another port",
            );
        }
    }
}

/// Whether this machine's `host` is certainly served by a listener on `own`.
fn reaches(host: &str, own: IpAddr) -> bool {
    let ip = match host.parse::<IpAddr>() {
        Ok(ip) => ip,
        Err(_) if host == "localhost" => match own {
            IpAddr::V4(_) => IpAddr::from([127, 0, 0, 1]),
            IpAddr::V6(_) => IpAddr::from(std::net::Ipv6Addr::LOCALHOST),
        },
        Err(_) => return false,
    };
    ip == own || (ip.is_loopback() && own.is_unspecified() && ip.is_ipv4() == own.is_ipv4())
}

impl Reader<'_> {
    fn knows(&self, path: &str) -> bool {
        self.with_places(|places: &Places| places.has(path))
    }
}
