//! Reasons that several keys share.

pub(in crate::import::litellm) const FALLBACKS: &str =
    "a request stays with its model: when none of its endpoints answers, the client gets the error";
pub(in crate::import::litellm) const BODY: &str =
    "a request's body passes as it is: the engine takes, ignores or refuses what it does not know";
pub(in crate::import::litellm) const CALLBACKS: &str = "spans alone are sent, to where `tracing` says; metrics are at /metrics, and the access log has a line for each request";
pub(in crate::import::litellm) const OTEL: &str = "spans go out over OTLP/HTTP where the file says so: write `tracing: { otlp: \"http://HOST:4318\" }`, with what stands in OTEL_EXPORTER_OTLP_ENDPOINT or OTEL_ENDPOINT; their attributes have OpenTelemetry's names for generative AI";
pub(in crate::import::litellm) const REDIS: &str =
    "one process has the counts of all endpoints, and shares them with nobody";
pub(in crate::import::litellm) const GUARDRAILS: &str = "prompts and answers are not looked at: what it refuses or masks reaches engines and clients; keep LiteLLM, or check in the clients";
pub(in crate::import::litellm) const PRICES: &str = "the gateway counts tokens, not money";
pub(in crate::import::litellm) const PROVIDER: &str =
    "it is for a provider that is no OpenAI-compatible server";
pub(in crate::import::litellm) const DATABASE: &str =
    "there is no database: keys stand in `keys`, and a reload (SIGHUP) takes changes";
pub(in crate::import::litellm) const UI: &str = "there is no user interface to log in to";
pub(in crate::import::litellm) const RPM: &str = "an endpoint has no limit of requests or tokens a minute: max_in_flight bounds its requests at the same time, keys[].requests_per_minute and keys[].tokens_per_minute what a key may ask for";
pub(in crate::import::litellm) const HEALTH: &str =
    "each endpoint is asked for /health every 5s (health.interval), which costs no tokens";
pub(in crate::import::litellm) const CACHE: &str =
    "answers are not cached; engines keep the prefixes of prompts";
pub(in crate::import::litellm) const AFFINITY: &str = "a client is not sent to the same engine each time: the one with the fewest requests in flight is taken";
pub(in crate::import::litellm) const MCP: &str =
    "the gateway passes on inference, and has no tools of its own";
pub(in crate::import::litellm) const STORES: &str =
    "the gateway passes on inference, and searches nothing";
pub(in crate::import::litellm) const ALERTS: &str = "conf/monitoring has alerts for Prometheus";
pub(in crate::import::litellm) const TAGS: &str =
    "requests are not told apart by tags: every endpoint of a model may get each of them";
pub(in crate::import::litellm) const SPEND: &str =
    "nobody's spending is kept: tokens are counted at /metrics, for each model and key";
