//! The tree of a file, as a [`Config`]: one function a section.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;
use log::LevelFilter;

use super::diagnostic::{Fault, quoted};
use super::listen::{self, Audience};
use super::parse::Value;
use super::reader::Field;
use super::schema::MOST_LISTENERS;
use super::section::{Named, Section, file_path};
use super::{
    AccessLog, AccessLogFormat, ClientTimeouts, Config, Expose, Keepalive, Limits, Listen,
    ListenAddress, ListenTls, Log, LogFormat, Places, Remarks, Timeouts, expose, keys, models,
    pools, tracing,
};

/// Reads every key. After a mistake the result holds defaults in its place and is not to be used.
pub(super) fn config(root: &Section<'_>) -> Config {
    let limits = root.section("limits");
    let client = root.section("client");
    let keepalive = root.section("keepalive");
    let inherited = timeouts(&root.section("timeouts"), None);
    let pools = pools::pools(root, &inherited);
    let models = models::models(root, &pools);
    let keys = keys::keys(root, &models);
    Config {
        file: None,
        listen: listeners(root),
        admin: admin(root),
        status_allow: networks(root, "status_allow"),
        trusted_proxies: networks(root, "trusted_proxies"),
        threads: root.count_or_none("threads"),
        pid_file: root.path("pid_file", "write the path of a file, or null for none"),
        resolve: root.duration("resolve"),
        shutdown_grace: root.duration("shutdown_grace"),
        log: log(&root.section("log")),
        access_log: access_log(root),
        expose: expose(root),
        limits: Limits {
            connections: limits.count("connections"),
            connections_per_client: limits.count_or_none("connections_per_client"),
            header: limits.size("header"),
            body: limits.size("body"),
            response_header: limits.size("response_header"),
            answer: limits.size("answer"),
            event: limits.size("event"),
            body_memory: limits.size("body_memory"),
            n: limits.count("n"),
        },
        client: ClientTimeouts {
            header_timeout: client.duration("header_timeout"),
            body_timeout: client.duration("body_timeout"),
            send_timeout: client.duration("send_timeout"),
            idle_timeout: client.duration("idle_timeout"),
        },
        keepalive: Keepalive {
            idle: keepalive.duration("idle"),
            connections: keepalive.count("connections"),
        },
        pools,
        models,
        keys,
        tracing: tracing::tracing(&root.section("tracing")),
        places: Places::default(),
        remarks: Remarks::default(),
    }
}

/// Upstream timeouts; a pool takes what it does not have itself from `inherited`.
pub(super) fn timeouts(section: &Section<'_>, inherited: Option<&Timeouts>) -> Timeouts {
    let read = |name: &str, inherited: Option<std::time::Duration>| match inherited {
        Some(inherited) if !section.has(name) => inherited,
        _ => section.duration(name),
    };
    Timeouts {
        connect: read("connect", inherited.map(|t| t.connect)),
        first_byte: read("first_byte", inherited.map(|t| t.first_byte)),
        read: read("read", inherited.map(|t| t.read)),
        send: read("send", inherited.map(|t| t.send)),
    }
}

fn listeners(root: &Section<'_>) -> Vec<Listen> {
    let Some(field) = root.written("listen").or_else(|| root.default("listen")) else {
        return Vec::new();
    };
    let items = root.reader.items(&field, MOST_LISTENERS);
    if items.is_empty() {
        root.reader
            .problem_at("listen", "is empty", "write at least one address");
    }
    items
        .iter()
        .map(|item| match &item.node.value {
            Value::Map(_) => secured(root, item),
            _ => plain(root, item, Audience::Public),
        })
        .collect()
}

/// A listener written as a mapping.
fn secured(root: &Section<'_>, item: &Field<'_>) -> Listen {
    let reader = root.reader;
    reader.mark(&item.path, item.node.at);
    let section = reader.section(item.node, "listen[]", item.path.clone());
    let tls = section.section_or_null("tls").map(|tls| ListenTls {
        certificate: (tls.path("certificate", "write the path of a PEM file with the chain"))
            .unwrap_or_default(),
        key: (tls.path("key", "write the path of a PEM file with the private key"))
            .unwrap_or_default(),
    });
    let http2 = if section.has("http2") {
        section.switch("http2").unwrap_or(false)
    } else {
        tls.is_some()
    };
    let audience = Audience::Public;
    let address = section.nullable("address", audience.form(), |text| {
        listen::parse(text, reader.base, audience)
    });
    Listen {
        address: address.unwrap_or(UNREADABLE),
        tls,
        http2,
    }
}

/// Stands for an address that could not be read, so that those after it keep their number.
const UNREADABLE: ListenAddress =
    ListenAddress::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0));

fn plain(root: &Section<'_>, item: &Field<'_>, audience: Audience) -> Listen {
    let reader = root.reader;
    reader.mark(&item.path, item.node.at);
    let address = reader.scalar(item, audience.form(), |text| {
        listen::parse(text, reader.base, audience)
    });
    Listen {
        address: address.ok().flatten().unwrap_or(UNREADABLE),
        tls: None,
        http2: false,
    }
}

fn admin(root: &Section<'_>) -> Vec<Listen> {
    let Some(field) = root.written("admin").or_else(|| root.default("admin")) else {
        return Vec::new();
    };
    if field.node.is_null() {
        return Vec::new();
    }
    if let Value::Scalar(scalar) = &field.node.value
        && matches!(&*scalar.text, "off" | "false" | "no" | "none")
    {
        let message = format!("{} is no address to listen on", quoted(&scalar.text));
        root.reader
            .problem_at("admin", message, "write null to switch it off");
        return Vec::new();
    }
    let items = root.reader.items(&field, MOST_LISTENERS);
    if items.is_empty() {
        root.reader
            .problem_at("admin", "is empty", "write null to switch it off");
    }
    items
        .iter()
        .map(|item| plain(root, item, Audience::Admin))
        .collect()
}

fn networks(root: &Section<'_>, name: &str) -> Vec<IpNet> {
    const FORM: &str = "write an address or a network, as in 10.0.0.0/8";
    let Some(field) = root.written(name).or_else(|| root.default(name)) else {
        return Vec::new();
    };
    if !matches!(field.node.value, Value::List(_)) {
        root.reader.problem_at(
            name,
            "is not a list",
            "write a list of addresses and networks, as in [127.0.0.1, 10.0.0.0/8]",
        );
        return Vec::new();
    }
    (field.items().iter())
        .filter_map(|item| root.reader.scalar(item, FORM, network).ok().flatten())
        .collect()
}

fn network(text: &str) -> Result<IpNet, Fault> {
    let net = match text.parse::<IpNet>() {
        Ok(net) => net,
        Err(_) => match text.parse::<IpAddr>() {
            Ok(address) => address.into(),
            Err(_) => return Err(Fault::new("is neither an address nor a network")),
        },
    };
    // Clients that come as ::ffff:a.b.c.d are judged as a.b.c.d.
    match net {
        IpNet::V6(v6) if v6.addr().to_ipv4_mapped().is_some() => {
            Err(Fault::new("is an IPv4 network in IPv6's dress").fix("write it as an IPv4 network"))
        }
        _ => Ok(net.trunc()),
    }
}

fn log(section: &Section<'_>) -> Log {
    Log {
        level: section.choice("level").unwrap_or(LevelFilter::Info),
        format: section.choice("format").unwrap_or(LogFormat::Text),
    }
}

fn access_log(root: &Section<'_>) -> Option<AccessLog> {
    if let Some(field) = root.written("access_log")
        && let Value::Scalar(scalar) = &field.node.value
        && !field.node.is_null()
        && !field.node.is_empty()
    {
        let fix = match &*scalar.text {
            "off" | "false" | "no" | "none" => "write null to switch it off".to_owned(),
            path => format!("write {{ path: {} }}", quoted(path)),
        };
        let message = "is a single value where a mapping belongs";
        root.reader.problem_at("access_log", message, fix);
        return None;
    }
    let section = root.section_or_null("access_log")?;
    let path = section.nullable("path", "write the path of a file, or \"-\"", |text| {
        if text == "-" {
            Ok(None)
        } else {
            file_path(section.reader, text).map(Some)
        }
    });
    Some(AccessLog {
        path: path.flatten(),
        format: section.choice("format").unwrap_or(AccessLogFormat::Json),
    })
}

fn expose(root: &Section<'_>) -> Expose {
    let Some(field) = root.written("expose").or_else(|| root.default("expose")) else {
        return Expose::Inference { extra: Vec::new() };
    };
    if matches!(field.node.value, Value::List(_)) {
        let items = field.items();
        let extra = (items.iter())
            .filter_map(|item| {
                (root.reader.scalar(item, expose::FORM, expose::parse).ok()).flatten()
            })
            .collect();
        return Expose::Inference { extra };
    }
    let value = root.reader.scalar(&field, expose::FORM, |text| match text {
        "all" => Ok(Expose::All),
        "inference" => Ok(Expose::Inference { extra: Vec::new() }),
        _ => match expose::parse(text) {
            Ok(_) => Err(Fault::new("is not in a list").fix(format!("write [{}]", quoted(text)))),
            Err(_) => Err(Fault::new("is not known here")),
        },
    });
    match value {
        Ok(Some(expose)) => expose,
        _ => Expose::Inference { extra: Vec::new() },
    }
}

impl Named for LevelFilter {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("error", Self::Error),
        ("warn", Self::Warn),
        ("info", Self::Info),
        ("debug", Self::Debug),
        ("trace", Self::Trace),
    ];
    const OTHERS: &'static [(&'static str, &'static str)] = &[
        ("warning", "is called warn here"),
        ("notice", "is called info here"),
        ("crit", "is called error here"),
        ("off", "is not possible: errors are always said"),
    ];
}

impl Named for LogFormat {
    const NAMES: &'static [(&'static str, Self)] = &[("text", Self::Text), ("json", Self::Json)];
}

impl Named for AccessLogFormat {
    const NAMES: &'static [(&'static str, Self)] =
        &[("json", Self::Json), ("combined", Self::Combined)];
}
