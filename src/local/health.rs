//! `/health`, `/ready` and their aliases.

use bytes::Bytes;
use serde::Serialize;

/// The guide's answer to `/health`, `text/plain`: the gateway is alive, whatever its endpoints do.
pub const HEALTHY: &[u8] = b"healthy\n";

/// LiteLLM's answer to `/health/liveliness`, a JSON string.
pub const ALIVE: &[u8] = b"\"I'm alive!\"";

/// One endpoint in LiteLLM's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health<'a> {
    /// The model's name at the endpoint; `None` where it is not known.
    pub model: Option<&'a str>,
    /// The endpoint's URL, without a path.
    pub url: &'a str,
    pub healthy: bool,
}

/// LiteLLM's answer to `/health`, `application/json`.
pub fn litellm(endpoints: &[Health<'_>]) -> Bytes {
    #[derive(Serialize)]
    struct Entry {
        model: String,
        api_base: String,
    }
    #[derive(Serialize)]
    struct Answer {
        healthy_endpoints: Vec<Entry>,
        unhealthy_endpoints: Vec<Entry>,
        healthy_count: usize,
        unhealthy_count: usize,
    }
    let entries = |healthy| -> Vec<Entry> {
        let chosen = endpoints
            .iter()
            .filter(|endpoint| endpoint.healthy == healthy);
        chosen
            .map(|endpoint| Entry {
                model: format!("openai/{}", endpoint.model.unwrap_or("*")),
                api_base: format!("{}/v1", endpoint.url),
            })
            .collect()
    };
    let (healthy, unhealthy) = (entries(true), entries(false));
    let answer = Answer {
        healthy_count: healthy.len(),
        unhealthy_count: unhealthy.len(),
        healthy_endpoints: healthy,
        unhealthy_endpoints: unhealthy,
    };
    Bytes::from(serde_json::to_vec(&answer).unwrap_or_default())
}

/// The answer to `/ready`, `text/plain`: 200 when every pool has an endpoint up, else 503 with the
/// names of those that have none. A gateway without pools is not ready.
pub fn ready<'a>(pools: impl IntoIterator<Item = (&'a str, bool)>) -> (u16, Bytes) {
    let (mut count, mut missing) = (0, Vec::new());
    for (pool, up) in pools {
        count += 1;
        if !up {
            missing.push(pool);
        }
    }
    if count > 0 && missing.is_empty() {
        return (200, Bytes::from_static(b"ready\n"));
    }
    (
        503,
        Bytes::from(format!(
            "not ready: no endpoint is up in {}\n",
            missing.join(", ")
        )),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn litellms_list_has_its_shape() {
        let endpoints = [
            Health {
                model: Some("DeepSeek-R1"),
                url: "http://node0:8000",
                healthy: true,
            },
            Health {
                model: None,
                url: "http://node1:8000",
                healthy: false,
            },
        ];
        let answer: serde_json::Value = serde_json::from_slice(&litellm(&endpoints)).unwrap();
        assert_eq!(
            answer,
            json!({
                "healthy_endpoints": [{ "model": "openai/DeepSeek-R1", "api_base": "http://node0:8000/v1" }],
                "unhealthy_endpoints": [{ "model": "openai/*", "api_base": "http://node1:8000/v1" }],
                "healthy_count": 1,
                "unhealthy_count": 1,
            })
        );
    }

    #[test]
    fn ready_needs_an_endpoint_up_in_every_pool() {
        assert_eq!(ready([("a", true), ("b", true)]).0, 200);
        let (status, body) = ready([("a", true), ("b", false), ("c", false)]);
        assert_eq!(
            (status, &body[..]),
            (503, b"not ready: no endpoint is up in b, c\n".as_slice())
        );
        assert_eq!(ready([]).0, 503);
    }
}
