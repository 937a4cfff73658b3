//! What stands in `model_list`.

use super::Fate::{self, Carried, Not, Same, Unguarded};
use super::why::{BODY, GUARDRAILS, HEALTH, PRICES, PROVIDER, RPM, TAGS};

pub(super) const DEPLOYMENT: &[(&str, Fate)] = &[
    ("model_name", Carried),
    ("litellm_params", Carried),
    ("model_info", Carried),
    ("rpm", Not(RPM)),
    ("tpm", Not(RPM)),
];

pub(super) const PARAMS: &[(&str, Fate)] = &[
    ("model", Carried),
    ("custom_llm_provider", Carried),
    ("api_base", Carried),
    ("base_url", Carried),
    ("api_key", Carried),
    ("weight", Carried),
    ("rpm", Carried),
    ("tpm", Carried),
    ("itpm", Not(RPM)),
    ("otpm", Not(RPM)),
    ("max_parallel_requests", Carried),
    ("timeout", Carried),
    ("request_timeout", Carried),
    ("stream_timeout", Carried),
    ("num_retries", Carried),
    ("ssl_verify", Carried),
    (
        "timeout_by_service_tier",
        Not("a pool has one first_byte and one read for all requests"),
    ),
    (
        "stream_timeout_by_service_tier",
        Not("a pool has one first_byte and one read for all requests"),
    ),
    (
        "max_retries",
        Not("a request is sent again to another endpoint, as often as the pool's retries say"),
    ),
    ("drop_params", Not(BODY)),
    ("additional_drop_params", Not(BODY)),
    ("allowed_openai_params", Not(BODY)),
    ("use_chat_completions_api", Not(BODY)),
    (
        "merge_reasoning_content_in_choices",
        Same(
            &["false", "False"],
            "an answer passes as the engine gives it",
        ),
    ),
    (
        "litellm_credential_name",
        Not("credentials stand at each endpoint: write api_base and api_key there"),
    ),
    (
        "extra_headers",
        Not("header fields of one's own are not added"),
    ),
    ("headers", Not("header fields of one's own are not added")),
    ("extra_body", Not("the gateway adds nothing to a body")),
    (
        "organization",
        Not("header fields of one's own are not added"),
    ),
    ("api_version", Not(PROVIDER)),
    ("region_name", Not(PROVIDER)),
    ("azure_*", Not(PROVIDER)),
    ("aws_*", Not(PROVIDER)),
    ("vertex_*", Not(PROVIDER)),
    ("gcs_*", Not(PROVIDER)),
    ("watsonx_*", Not(PROVIDER)),
    ("tenant_id", Not(PROVIDER)),
    ("client_id", Not(PROVIDER)),
    ("client_secret", Not(PROVIDER)),
    (
        "configurable_clientside_auth_params",
        Not("a client cannot choose an engine's address or key"),
    ),
    ("input_cost_*", Not(PRICES)),
    ("output_cost_*", Not(PRICES)),
    ("cache_creation_*", Not(PRICES)),
    ("cache_read_*", Not(PRICES)),
    (
        "max_budget",
        Unguarded("the gateway counts tokens, not money: bound a key by keys[].tokens_per_minute"),
    ),
    ("budget_duration", Not(PRICES)),
    (
        "default_api_key_rpm_limit",
        Unguarded("write it into each key: keys[].requests_per_minute"),
    ),
    (
        "default_api_key_tpm_limit",
        Unguarded("write it into each key: keys[].tokens_per_minute"),
    ),
    ("tags", Not(TAGS)),
    ("tag_regex", Not(TAGS)),
    (
        "order",
        Not(
            "all endpoints of a pool are chosen among; those with backup: true are used only while no other can be",
        ),
    ),
    (
        "keepalive_seconds",
        Not("nothing is sent to a client before the engine's first content"),
    ),
    ("mock_response", Not("every answer is an engine's")),
    ("model_info", Carried),
    ("guardrails", Unguarded(GUARDRAILS)),
    (
        "use_in_pass_through",
        Not("paths beyond the inference paths are opened by expose, for all endpoints"),
    ),
    (
        "use_litellm_proxy",
        Not("it is for LiteLLM in front of another LiteLLM"),
    ),
    (
        "auto_router_*",
        Not("a request goes to the model that it names"),
    ),
    (
        "complexity_router_*",
        Not("a request goes to the model that it names"),
    ),
    (
        "adaptive_router_*",
        Not("a request goes to the model that it names"),
    ),
    (
        "quality_router_*",
        Not("a request goes to the model that it names"),
    ),
    (
        "cache_control_injection_points",
        Not("the gateway adds nothing to a body"),
    ),
];

pub(super) const INFO: &[(&str, Fate)] = &[
    (
        "id",
        Not("endpoints go by their address; a client cannot ask for one"),
    ),
    ("blocked", Carried),
    (
        "mode",
        Same(
            &["chat", "completion", "embedding", "rerank", "responses"],
            "what an engine can do is the engine's to say",
        ),
    ),
    ("base_model", Not(PRICES)),
    ("input_cost_*", Not(PRICES)),
    ("output_cost_*", Not(PRICES)),
    ("cache_*", Not(PRICES)),
    (
        "max_tokens",
        Not("the engine knows its limits, and refuses what is beyond them"),
    ),
    (
        "max_input_tokens",
        Not("the engine knows its limits, and refuses what is beyond them"),
    ),
    (
        "max_output_tokens",
        Not("the engine knows its limits, and refuses what is beyond them"),
    ),
    (
        "supports_*",
        Not("/v1/models says what the engine says of a model"),
    ),
    (
        "supported_*",
        Not("/v1/models says what the engine says of a model"),
    ),
    (
        "access_groups",
        Unguarded("keys name models, not groups of them: list the models in keys[].models"),
    ),
    (
        "access_windows",
        Unguarded("a model is served at all times"),
    ),
    (
        "team_id",
        Unguarded(
            "there are no teams: list the model in keys[].models of those who may use it, and leave it out of the others'",
        ),
    ),
    (
        "team_public_model_name",
        Not("there are no teams: clients use model_name"),
    ),
    ("health_check_*", Not(HEALTH)),
    ("disable_background_health_check", Not(HEALTH)),
    (
        "allowed_fails",
        Not("it is one for a pool: health.eject_after"),
    ),
    (
        "allowed_fails_policy",
        Not("every fault of a node counts alike: health.eject_after"),
    ),
];
