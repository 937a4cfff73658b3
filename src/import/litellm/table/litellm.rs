//! `litellm_settings`.

use super::Fate::{self, Carried, Not, Same, Unguarded};
use super::why::{
    BODY, CACHE, CALLBACKS, DATABASE, FALLBACKS, GUARDRAILS, MCP, OTEL, PRICES, REDIS, STORES, UI,
};

pub(super) const LITELLM: &[(&str, Fate)] = &[
    ("num_retries", Carried),
    ("request_timeout", Carried),
    ("allowed_fails", Carried),
    ("ssl_verify", Carried),
    ("json_logs", Carried),
    ("drop_params", Not(BODY)),
    ("additional_drop_params", Not(BODY)),
    ("modify_params", Not(BODY)),
    (
        "always_include_stream_usage",
        Not(
            "a client that wants its stream counted asks for stream_options.include_usage; the gateway counts every stream for itself",
        ),
    ),
    ("callbacks", Carried),
    ("success_callback", Carried),
    ("failure_callback", Carried),
    ("service_callback*", Not(CALLBACKS)),
    (
        "audit_log_callbacks",
        Unguarded("who changed what is not kept: the configuration is a file; keep it in git"),
    ),
    (
        "store_audit_logs",
        Unguarded("who changed what is not kept: the configuration is a file; keep it in git"),
    ),
    (
        "turn_off_message_logging",
        Same(&["true", "True"], "prompts and answers are never logged"),
    ),
    (
        "redact_user_api_key_info",
        Same(
            &["true", "True"],
            "keys are logged by their name, never themselves",
        ),
    ),
    (
        "redact_messages_in_exceptions",
        Same(&["true", "True"], "prompts and answers are never logged"),
    ),
    (
        "set_verbose",
        Same(&["false", "False"], "log.level: debug says more"),
    ),
    (
        "suppress_debug_info",
        Same(&["true", "True"], "log.level: debug says more"),
    ),
    (
        "log_raw_request_response",
        Same(&["false", "False"], "prompts and answers are never logged"),
    ),
    ("cache", Same(&["false", "False"], CACHE)),
    ("cache_params", Not(CACHE)),
    ("enable_redis_auth_cache", Not(REDIS)),
    (
        "enable_caching_on_provider_specific_optional_params",
        Not(CACHE),
    ),
    ("fallbacks", Not(FALLBACKS)),
    ("default_fallbacks", Not(FALLBACKS)),
    ("context_window_fallbacks", Not(FALLBACKS)),
    ("content_policy_fallbacks", Not(FALLBACKS)),
    (
        "cooldown_time",
        Not("LiteLLM reads it within router_settings alone"),
    ),
    (
        "enable_preview_features",
        Not("the gateway has nothing like it"),
    ),
    (
        "force_ipv4",
        Not("an endpoint that has several addresses is several endpoints"),
    ),
    (
        "telemetry",
        Same(&["false", "False"], "nothing is reported to anybody"),
    ),
    (
        "max_budget",
        Unguarded("the gateway counts tokens, not money: bound keys by keys[].tokens_per_minute"),
    ),
    ("budget_duration", Not(PRICES)),
    (
        "max_internal_user_budget",
        Unguarded("there are no users but the keys: bound them by keys[].tokens_per_minute"),
    ),
    (
        "max_user_budget",
        Unguarded("there are no users but the keys: bound them by keys[].tokens_per_minute"),
    ),
    (
        "max_end_user_budget",
        Unguarded("there are no users but the keys: bound them by keys[].tokens_per_minute"),
    ),
    (
        "max_end_user_budget_id",
        Unguarded("there are no users but the keys: bound them by keys[].tokens_per_minute"),
    ),
    ("default_internal_user_params", Not(DATABASE)),
    ("default_team_*", Not(DATABASE)),
    ("default_key_generate_params", Not(DATABASE)),
    (
        "upperbound_key_generate_params",
        Not("`sluicegate key` makes keys; what each may do stands in `keys`"),
    ),
    (
        "key_generation_settings",
        Not("`sluicegate key` makes keys; what each may do stands in `keys`"),
    ),
    ("guardrails", Unguarded(GUARDRAILS)),
    ("post_call_rules", Unguarded(GUARDRAILS)),
    ("pre_call_rules", Unguarded(GUARDRAILS)),
    ("banned_keywords_list", Unguarded(GUARDRAILS)),
    (
        "blocked_user_list",
        Unguarded("users within a key are not told apart: give each a key of its own"),
    ),
    ("llamaguard_*", Unguarded(GUARDRAILS)),
    ("google_moderation_*", Unguarded(GUARDRAILS)),
    ("openai_moderations_*", Unguarded(GUARDRAILS)),
    ("presidio_*", Unguarded(GUARDRAILS)),
    ("public_model_groups*", Not(UI)),
    (
        "model_group_settings",
        Not("the gateway has nothing like it"),
    ),
    ("priority_reservation*", Not("there are no priorities yet")),
    (
        "ssl_certificate",
        Not("the gateway shows engines no certificate of its own"),
    ),
    (
        "ssl_*",
        Not("TLS towards engines has ca, verify and server_name of a pool's tls"),
    ),
    ("langfuse_*", Not(CALLBACKS)),
    ("s3_*", Not(CALLBACKS)),
    ("gcs_*", Not(CALLBACKS)),
    ("datadog_*", Not(CALLBACKS)),
    ("otel*", Not(OTEL)),
    (
        "prometheus_*",
        Not("metrics have the labels model, pool, endpoint and key; see docs/monitoring.md"),
    ),
    (
        "require_auth_for_metrics_endpoint",
        Same(
            &["true", "True"],
            "/metrics is for the addresses of status_allow, whatever key is shown",
        ),
    ),
    (
        "custom_provider_map",
        Not("every endpoint is an OpenAI-compatible server"),
    ),
    ("mcp_*", Not(MCP)),
    ("vector_store_registry", Not(STORES)),
    ("disable_*", Not("the gateway has nothing like it")),
];
