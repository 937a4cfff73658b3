//! `/endpoints`: every endpoint and why it is in the state it is in.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde::{Serialize, Serializer};

use crate::engine::Load;
use crate::telemetry::rfc3339;

/// One endpoint in one pool, as it is shown.
#[derive(Debug, Clone, Serialize)]
pub struct EndpointView<'a> {
    /// `None` = no pool of the configuration has it any more; it still holds requests.
    pub pool: Option<&'a str>,
    pub endpoint: &'a str,
    pub url: String,
    /// `vllm`, `sglang`, `openai`; `None` = not known yet.
    pub engine: Option<&'a str>,
    /// The names it serves models by, as far as is known.
    pub models: Vec<&'a str>,
    /// `up`, `ramping`, `down`, `ejected`, `draining`.
    pub state: &'a str,
    /// What put it into this state.
    pub reason: Option<&'a str>,
    #[serde(serialize_with = "time")]
    pub since: SystemTime,
    pub in_flight: u64,
    pub weight: u32,
    pub max_in_flight: Option<u32>,
    /// Requests that wait in the queue of its pool.
    pub queued: u64,
    pub backup: bool,
    #[serde(rename = "next_probe_ms", serialize_with = "milliseconds")]
    pub next_probe: Option<Duration>,
    pub idle_connections: usize,
    /// What it said last of its own load.
    pub load: Option<LoadView>,
}

/// An endpoint's own figures; `None` = it does not say.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct LoadView {
    pub running: Option<u64>,
    pub waiting: Option<u64>,
    pub prompt_tokens: Option<u64>,
    pub generation_tokens: Option<u64>,
    /// 0 to 1.
    pub kv_usage: Option<f64>,
    #[serde(rename = "age_ms", serialize_with = "in_milliseconds")]
    pub age: Duration,
}

impl LoadView {
    pub fn of(load: &Load, age: Duration) -> Self {
        Self {
            running: load.running,
            waiting: load.waiting,
            prompt_tokens: load.prompt_tokens,
            generation_tokens: load.generation_tokens,
            kv_usage: load.kv_usage,
            age,
        }
    }
}

/// A JSON array, one endpoint a line.
pub fn render(endpoints: &[EndpointView<'_>]) -> Bytes {
    let mut out = b"[".to_vec();
    for (index, endpoint) in endpoints.iter().enumerate() {
        out.extend_from_slice(if index == 0 { b"\n" } else { b",\n" });
        out.extend(serde_json::to_vec(endpoint).unwrap_or_default());
    }
    out.extend_from_slice(b"\n]\n");
    Bytes::from(out)
}

fn time<S: Serializer>(at: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&rfc3339(*at))
}

fn milliseconds<S: Serializer>(
    duration: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => in_milliseconds(duration, serializer),
        None => serializer.serialize_none(),
    }
}

fn in_milliseconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn an_endpoint_is_shown_with_all_it_has() {
        let view = EndpointView {
            pool: Some("default"),
            endpoint: "node0:8000",
            url: "http://node0:8000".to_owned(),
            engine: Some("vllm"),
            models: vec!["DeepSeek-R1", "r1"],
            state: "ejected",
            reason: Some("5 faults in a row"),
            since: UNIX_EPOCH + Duration::from_millis(1_795_509_909_123),
            in_flight: 3,
            weight: 1,
            max_in_flight: None,
            queued: 4,
            backup: false,
            next_probe: Some(Duration::from_millis(1500)),
            idle_connections: 2,
            load: None,
        };
        assert_eq!(
            String::from_utf8(render(std::slice::from_ref(&view)).to_vec()).unwrap(),
            "[\n{\"pool\":\"default\",\"endpoint\":\"node0:8000\",\"url\":\"http://node0:8000\",\
             \"engine\":\"vllm\",\"models\":[\"DeepSeek-R1\",\"r1\"],\"state\":\"ejected\",\
             \"reason\":\"5 faults in a row\",\"since\":\"2026-11-24T08:45:09.123Z\",\"in_flight\":3,\"weight\":1,\
             \"max_in_flight\":null,\"queued\":4,\"backup\":false,\"next_probe_ms\":1500,\"idle_connections\":2,\
             \"load\":null}\n]\n"
        );
        let load = Load {
            running: Some(12),
            generation_tokens: Some(98_765),
            kv_usage: Some(0.5),
            ..Load::default()
        };
        let busy = EndpointView {
            load: Some(LoadView::of(&load, Duration::from_millis(2100))),
            ..view.clone()
        };
        let shown = String::from_utf8(render(&[busy]).to_vec()).unwrap();
        let expected = "\"load\":{\"running\":12,\"waiting\":null,\"prompt_tokens\":null,\
             \"generation_tokens\":98765,\"kv_usage\":0.5,\"age_ms\":2100}}\n]\n";
        assert!(shown.ends_with(expected), "{shown}");
        let two: Vec<serde_json::Value> =
            serde_json::from_slice(&render(&[view.clone(), view])).unwrap();
        assert_eq!(two.len(), 2);
        assert_eq!(&render(&[])[..], b"[\n]\n");
    }
}
