//! Pools and their endpoints.

use std::sync::Arc;

use super::diagnostic::{Fault, shown};
use super::parse::{NOTHING, Value};
use super::reader::Field;
use super::schema::{MOST_ENDPOINTS, MOST_POOLS};
use super::section::{Named, Section};
use super::{
    ContinueStreams, Endpoint, Engine, Health, PolicyName, Pool, Queue, RetryBudget, Secret,
    Timeouts, UpstreamTls, Url, decode, endpoint_url, models,
};

/// The pool that a file without `pools` has.
pub(super) const DEFAULT: &str = "default";

const ENDPOINTS_FORM: &str = "write a list, as in [node0:8000, node1:8000]";

pub(super) fn pools(root: &Section<'_>, inherited: &Timeouts) -> Vec<Pool> {
    let reader = root.reader;
    match (root.has("endpoints"), root.has("pools")) {
        (true, true) => {
            // Both are read, for the mistakes in them.
            let _ = shorthand(root, inherited);
            reader.problem_at(
                "endpoints",
                "is short for a pool named default, and there are pools as well",
                "move these endpoints into one of the pools",
            );
            named(root, inherited)
        }
        (true, false) => shorthand(root, inherited).into_iter().collect(),
        (false, true) => named(root, inherited),
        (false, false) => {
            if root.is_something_else() {
                return Vec::new();
            }
            reader.problem_at(
                "",
                "there are no endpoints to send requests to",
                "write at least \"endpoints: [node0:8000, node1:8000]\", and above it \"listen: 80\"",
            );
            Vec::new()
        }
    }
}

fn shorthand(root: &Section<'_>, inherited: &Timeouts) -> Option<Pool> {
    let field = root.written("endpoints")?;
    let pool = (root.reader).section(&NOTHING, "pools.*", format!("pools.{DEFAULT}"));
    let mut pool = without_endpoints(&pool, DEFAULT, inherited);
    pool.endpoints = endpoints(root, &field, None);
    Some(pool)
}

fn named(root: &Section<'_>, inherited: &Timeouts) -> Vec<Pool> {
    let reader = root.reader;
    let all = root.section("pools");
    let entries = all.entries();
    if all.is_mapping() && entries.is_empty() {
        reader.problem_at(
            "pools",
            "there is no pool",
            "write { default: { endpoints: [node0:8000, node1:8000] } }",
        );
    }
    if let Some(second) = entries.get(1)
        && !root.has("models")
    {
        let name = shown(&second.key);
        reader.problem(
            second.at,
            &all.path_of(&name),
            "is a second pool, and nothing says which model goes where",
            format!(
                "write models: {{ NAME: {{ pool: {name} }} }} with every model, or keep one pool"
            ),
        );
    }
    let mut pools = Vec::new();
    if entries.len() > MOST_POOLS {
        let message = format!("has {} pools", entries.len());
        reader.problem_at("pools", message, format!("write at most {MOST_POOLS}"));
    }
    for entry in entries.iter().take(MOST_POOLS) {
        let name = &*shown(&entry.key);
        let path = all.path_of(name);
        if !is_pool_name(&entry.key) {
            reader.problem(
                entry.at,
                "pools",
                format!("\"{name}\" cannot be a pool's name"),
                "a name has at most 64 letters, digits, \"-\", \"_\" and \".\"",
            );
        }
        reader.mark(&path, entry.node.at);
        let section = reader.section(&entry.node, "pools.*", path);
        let mut pool = without_endpoints(&section, name, inherited);
        let cap = pool.max_in_flight;
        match section.written("endpoints") {
            Some(field) => pool.endpoints = endpoints(&section, &field, cap),
            None => section.require("endpoints", ENDPOINTS_FORM),
        }
        pools.push(pool);
    }
    pools
}

fn is_pool_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

fn without_endpoints(section: &Section<'_>, name: &str, inherited: &Timeouts) -> Pool {
    let budget = section.section("retry_budget");
    let tls = section.section("tls");
    let health = section.section("health");
    Pool {
        name: Arc::from(name),
        engine: section.choice("engine").unwrap_or_default(),
        endpoints: Vec::new(),
        policy: (section.choice("policy")).unwrap_or(PolicyName::LeastInflight),
        max_in_flight: section.count_or_none("max_in_flight"),
        queue: section.section_or_null("queue").map(|queue| Queue {
            size: queue.count("size"),
            timeout: queue.duration("timeout"),
        }),
        retries: section.count("retries"),
        retry_budget: RetryBudget {
            ratio: budget.ratio("ratio"),
            min_per_second: budget.count("min_per_second"),
        },
        drain_timeout: section.duration_or_none("drain_timeout"),
        heartbeat: section.duration_or_none("heartbeat"),
        continue_streams: (section.choice("continue_streams")).unwrap_or(ContinueStreams::ByIds),
        tls: UpstreamTls {
            ca: tls.path(
                "ca",
                "write the path of a PEM file, or null for the system's",
            ),
            verify: tls.switch("verify").unwrap_or(true),
            server_name: tls.nullable(
                "server_name",
                "write the name in the certificate, or null for the endpoint's host",
                server_name,
            ),
        },
        health: Health {
            path: (health.nullable("path", "write a path, as in /health", health_path))
                .unwrap_or_default(),
            interval: health.duration("interval"),
            timeout: health.duration("timeout"),
            fall: health.count("fall"),
            rise: health.count("rise"),
            eject_after: health.count("eject_after"),
            eject_for: health.duration("eject_for"),
            stall: health.duration("stall"),
        },
        timeouts: decode::timeouts(&section.section("timeouts"), Some(inherited)),
    }
}

/// `section` is where `field` was found.
fn endpoints(section: &Section<'_>, field: &Field<'_>, cap: Option<u32>) -> Vec<Endpoint> {
    let reader = section.reader;
    let items = match &field.node.value {
        Value::List(_) => reader.items(field, MOST_ENDPOINTS),
        _ => {
            reader.problem(field.node.at, &field.path, "is not a list", ENDPOINTS_FORM);
            return Vec::new();
        }
    };
    if items.is_empty() {
        reader.problem(
            field.node.at,
            &field.path,
            "is empty: there is nothing to send requests to",
            ENDPOINTS_FORM,
        );
    }
    (items.iter())
        .map(|item| {
            // One that cannot be read is stood for by a unique name: those after it keep their
            // number.
            endpoint(section, item, cap)
                .unwrap_or_else(|| plain(Url::Unix(item.path.clone().into()), cap))
        })
        .collect()
}

fn plain(url: Url, max_in_flight: Option<u32>) -> Endpoint {
    Endpoint {
        url,
        weight: 1,
        max_in_flight,
        backup: false,
        drain: false,
        api_key: None,
        model: None,
    }
}

/// `None` after a mistake that was noted.
fn endpoint(section: &Section<'_>, item: &Field<'_>, cap: Option<u32>) -> Option<Endpoint> {
    let reader = section.reader;
    let parse = |text: &str| endpoint_url::parse(text, reader.base);
    reader.mark(&item.path, item.node.at);
    let Value::Map(entries) = &item.node.value else {
        let url = reader.scalar(item, endpoint_url::FORM, parse).ok()??;
        return Some(plain(url, cap));
    };
    // `node0: 8000`, which YAML takes for a mapping.
    if let [entry] = entries.as_slice()
        && super::schema::find("pools.*.endpoints[]", &entry.key).is_none()
        && let Value::Scalar(port) = &entry.node.value
        && port.text.parse::<u16>().is_ok()
    {
        let fix = format!(
            "write {}:{} without the space",
            shown(&entry.key),
            &*port.text
        );
        reader.problem(item.node.at, &item.path, "is a mapping", fix);
        return None;
    }
    let section = reader.section(item.node, "pools.*.endpoints[]", item.path.clone());
    let url = section.nullable("url", endpoint_url::FORM, parse);
    let weight = section.count("weight");
    let max_in_flight = section.count_or_none("max_in_flight").or(cap);
    let backup = section.switch("backup").unwrap_or(false);
    let drain = section.switch("drain").unwrap_or(false);
    let api_key = section.nullable("api_key", "write it as \"${ENGINE_KEY}\"", Secret::parse);
    let model = section.nullable("model", models::UPSTREAM_FORM, models::name);
    Some(Endpoint {
        url: url?,
        weight,
        max_in_flight,
        backup,
        drain,
        api_key,
        model,
    })
}

fn health_path(text: &str) -> Result<String, Fault> {
    if !text.starts_with('/') {
        Err(
            Fault::new("does not begin with \"/\"").fix(match text.split_once("://") {
                Some(_) => "write the path alone: the endpoint's address is known".to_owned(),
                None => format!("write /{text}"),
            }),
        )
    } else if text.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
        Ok(text.to_owned())
    } else {
        Err(Fault::new("has a character that a path cannot have"))
    }
}

fn server_name(text: &str) -> Result<String, Fault> {
    match rustls_pki_types::ServerName::try_from(text) {
        Ok(_) => Ok(text.to_ascii_lowercase()),
        Err(_) => Err(Fault::new("is neither a host name nor an address")),
    }
}

impl Named for Option<Engine> {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("auto", None),
        ("vllm", Some(Engine::Vllm)),
        ("sglang", Some(Engine::Sglang)),
        ("openai", Some(Engine::OpenAi)),
    ];
    const OTHERS: &'static [(&'static str, &'static str)] = &[
        ("ollama", "is called openai here"),
        ("llama.cpp", "is called openai here"),
        ("tgi", "is called openai here"),
        ("tensorrt-llm", "is called openai here"),
    ];
}

impl Named for ContinueStreams {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("true", Self::ByIds),
        ("text", Self::ByText),
        ("false", Self::Never),
    ];
    const OTHERS: &'static [(&'static str, &'static str)] = &[
        ("ids", "is called true here"),
        ("off", "is called false here"),
        ("none", "is called false here"),
    ];
}

impl Named for PolicyName {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("least_inflight", Self::LeastInflight),
        ("round_robin", Self::RoundRobin),
    ];
    const OTHERS: &'static [(&'static str, &'static str)] = &[
        ("power_of_two", "is not supported yet"),
        ("session", "is not supported yet"),
        ("least_delay", "is not supported yet"),
        ("least_conn", "is called least_inflight here"),
        ("leastconn", "is called least_inflight here"),
        ("least-busy", "is called least_inflight here"),
        ("roundrobin", "is called round_robin here"),
        ("simple-shuffle", "is called round_robin here"),
    ];
}
