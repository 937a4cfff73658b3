//! What becomes of each key, as data.

/// Where keys stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Top,
    Deployment,
    Params,
    Info,
    Router,
    Litellm,
    General,
}

/// What becomes of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// There is code for it, which says itself what is different.
    Carried,
    /// With one of these values it asks for what the gateway does anyway; why not with others.
    Same(&'static [&'static str], &'static str),
    /// Why not.
    Not(&'static str),
    /// What kept clients out or held them back is lost; what to do about it.
    Unguarded(&'static str),
}

use Fate::{Carried, Not, Same, Unguarded};

/// The fate of a key; of one that has no entry, by how it begins, and by where it stands.
pub(super) fn fate(place: Place, key: &str) -> Fate {
    let table = match place {
        Place::Top => TOP,
        Place::Deployment => DEPLOYMENT,
        Place::Params => PARAMS,
        Place::Info => INFO,
        Place::Router => ROUTER,
        Place::Litellm => LITELLM,
        Place::General => GENERAL,
    };
    let exact = table.iter().find(|(name, _)| *name == key);
    let prefix = || {
        (table.iter())
            .filter(|(name, _)| name.ends_with('*'))
            .find(|(name, _)| key.starts_with(name.trim_end_matches('*')))
    };
    exact
        .or_else(prefix)
        .map_or_else(|| unknown(place, key), |(_, fate)| *fate)
}

fn unknown(place: Place, key: &str) -> Fate {
    match place {
        Place::Top if ROUTER.iter().any(|(name, _)| *name == key) => Not(
            "LiteLLM reads it within router_settings alone, not beside it: put two spaces before it",
        ),
        Place::Top if GENERAL.iter().any(|(name, _)| *name == key) => Not(
            "LiteLLM reads it within general_settings alone, not beside it: put two spaces before it",
        ),
        Place::Params => Not(
            "LiteLLM adds it to every request that does not have it; the gateway adds nothing to a body: set it at the engine, or in the clients",
        ),
        Place::Router => Not("it is no setting of LiteLLM's router, which ignores it"),
        Place::Deployment => Not("LiteLLM knows no such key of a deployment, and ignores it"),
        _ => Not("the gateway has nothing like it"),
    }
}

const FALLBACKS: &str =
    "a request stays with its model: when none of its endpoints answers, the client gets the error";
const BODY: &str =
    "a request's body passes as it is: the engine takes, ignores or refuses what it does not know";
const CALLBACKS: &str = "nothing is sent anywhere: metrics are at /metrics, and the access log has a line for each request";
const REDIS: &str = "one process has the counts of all endpoints, and shares them with nobody";
const GUARDRAILS: &str = "prompts and answers are not looked at: what it refuses or masks reaches engines and clients; keep LiteLLM, or check in the clients";
const PRICES: &str = "the gateway counts tokens, not money";
const PROVIDER: &str = "it is for a provider that is no OpenAI-compatible server";
const DATABASE: &str =
    "there is no database: keys stand in `keys`, and a reload (SIGHUP) takes changes";
const UI: &str = "there is no user interface to log in to";
const RPM: &str = "an endpoint has no limit of requests or tokens a minute: max_in_flight bounds its requests at the same time, keys[].requests_per_minute and keys[].tokens_per_minute what a key may ask for";
const HEALTH: &str =
    "each endpoint is asked for /health every 5s (health.interval), which costs no tokens";
const CACHE: &str = "answers are not cached; engines keep the prefixes of prompts";
const AFFINITY: &str = "a client is not sent to the same engine each time: the one with the fewest requests in flight is taken";
const MCP: &str = "the gateway passes on inference, and has no tools of its own";
const STORES: &str = "the gateway passes on inference, and searches nothing";
const ALERTS: &str = "conf/monitoring has alerts for Prometheus";
const TAGS: &str =
    "requests are not told apart by tags: every endpoint of a model may get each of them";
const SPEND: &str =
    "nobody's spending is kept: tokens are counted at /metrics, for each model and key";

const TOP: &[(&str, Fate)] = &[
    ("model_list", Carried),
    ("router_settings", Carried),
    ("litellm_settings", Carried),
    ("general_settings", Carried),
    ("environment_variables", Carried),
    ("include", Carried),
    (
        "credential_list",
        Not("credentials stand at each endpoint: write them into api_key"),
    ),
    ("callback_settings", Not(CALLBACKS)),
    ("guardrails", Unguarded(GUARDRAILS)),
    ("policies", Unguarded(GUARDRAILS)),
    ("policy_attachments", Unguarded(GUARDRAILS)),
    ("mcp_servers", Not(MCP)),
    ("mcp_*", Not(MCP)),
    ("search_tools", Not(STORES)),
    ("vector_store_registry", Not(STORES)),
    ("vector_stores", Not(STORES)),
    ("prompts", Not("the gateway adds nothing to a body")),
    (
        "files_settings",
        Not("files are not among the inference paths"),
    ),
    (
        "finetune_settings",
        Not("fine-tuning is not among the inference paths"),
    ),
    (
        "assistant_settings",
        Not("assistants are not among the inference paths"),
    ),
    ("coordination_redis", Not(REDIS)),
];

const DEPLOYMENT: &[(&str, Fate)] = &[
    ("model_name", Carried),
    ("litellm_params", Carried),
    ("model_info", Carried),
    ("rpm", Not(RPM)),
    ("tpm", Not(RPM)),
];

const PARAMS: &[(&str, Fate)] = &[
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

const INFO: &[(&str, Fate)] = &[
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

const ROUTER: &[(&str, Fate)] = &[
    ("routing_strategy", Carried),
    ("num_retries", Carried),
    ("timeout", Carried),
    ("stream_timeout", Carried),
    ("allowed_fails", Carried),
    ("cooldown_time", Carried),
    ("disable_cooldowns", Carried),
    ("model_group_alias", Carried),
    ("default_max_parallel_requests", Carried),
    (
        "routing_strategy_args",
        Not("the policies have no settings of their own"),
    ),
    (
        "routing_groups",
        Not("a pool has one policy, for all its models"),
    ),
    ("fallbacks", Not(FALLBACKS)),
    ("default_fallbacks", Not(FALLBACKS)),
    ("context_window_fallbacks", Not(FALLBACKS)),
    ("content_policy_fallbacks", Not(FALLBACKS)),
    ("max_fallbacks", Not(FALLBACKS)),
    (
        "enable_weighted_failover",
        Same(
            &["true", "True"],
            "a request that fails goes to another endpoint of its model",
        ),
    ),
    (
        "retry_policy",
        Not(
            "every fault of a node is retried alike, as often as retries says; an engine's 4xx passes",
        ),
    ),
    (
        "model_group_retry_policy",
        Not(
            "every fault of a node is retried alike, as often as retries says; an engine's 4xx passes",
        ),
    ),
    (
        "allowed_fails_policy",
        Not("every fault of a node counts alike: health.eject_after"),
    ),
    (
        "retry_after",
        Same(&["0"], "a request is sent to another endpoint at once"),
    ),
    ("redis_*", Not(REDIS)),
    ("cache_responses", Same(&["false", "False"], CACHE)),
    ("cache_kwargs", Not(REDIS)),
    ("caching_groups", Not(CACHE)),
    ("client_ttl", Not("connections are kept as keepalive says")),
    (
        "polling_interval",
        Not(
            "there is no queue yet: where all endpoints are at their max_in_flight the client gets a 503",
        ),
    ),
    (
        "default_priority",
        Not(
            "there is no queue yet: where all endpoints are at their max_in_flight the client gets a 503",
        ),
    ),
    (
        "default_litellm_params",
        Not("the gateway adds nothing to a body"),
    ),
    (
        "set_verbose",
        Same(&["false", "False"], "log.level: debug says more"),
    ),
    ("debug_level", Not("log.level: debug says more")),
    (
        "enable_pre_call_checks",
        Same(
            &["false", "False"],
            "prompts are not counted beforehand: the engine refuses one that is too long",
        ),
    ),
    (
        "optional_pre_call_checks",
        Not("prompts are not looked at beforehand"),
    ),
    ("enable_tag_filtering", Same(&["false", "False"], TAGS)),
    ("tag_filtering_match_any", Not(TAGS)),
    ("tag_routing_prefix", Not(TAGS)),
    ("plugins", Not("there are no plugins")),
    (
        "provider_budget_config",
        Unguarded("the gateway counts tokens, not money: bound keys by keys[].tokens_per_minute"),
    ),
    ("alerting_config", Not(ALERTS)),
    (
        "router_general_settings",
        Not("the gateway has nothing like it"),
    ),
    ("deployment_affinity_ttl_seconds", Not(AFFINITY)),
    ("model_group_affinity_config", Not(AFFINITY)),
    (
        "ignore_invalid_deployments",
        Same(
            &["true", "True"],
            "a deployment that cannot be carried is left out, with a line that says so",
        ),
    ),
    (
        "enable_health_check_routing",
        Same(
            &["true", "True"],
            "an endpoint that fails its probes gets no requests",
        ),
    ),
    ("health_check_*", Not(HEALTH)),
    ("background_health_check_model_groups", Not(HEALTH)),
    (
        "assistants_config",
        Not("assistants are not among the inference paths"),
    ),
    ("search_tools", Not(STORES)),
    ("guardrail_list", Unguarded(GUARDRAILS)),
    ("fallback_*", Not(FALLBACKS)),
    (
        "auto_router_*",
        Not("a request goes to the model that it names"),
    ),
];

const LITELLM: &[(&str, Fate)] = &[
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
    ("otel*", Not(CALLBACKS)),
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

const GENERAL: &[(&str, Fate)] = &[
    ("master_key", Carried),
    ("max_request_size_mb", Carried),
    (
        "dangerously_permit_weak_or_unset_master_key",
        Not("`sluicegate -t` warns of a weak key; one has to be there"),
    ),
    (
        "allowed_ips",
        Unguarded(
            "clients are not told apart by address: every address may send requests with a key; keep others out by a firewall",
        ),
    ),
    (
        "custom_auth*",
        Unguarded("clients are known by their key alone: write one for each into `keys`"),
    ),
    (
        "enable_jwt_auth",
        Unguarded("clients are known by their key alone: write one for each into `keys`"),
    ),
    (
        "litellm_jwtauth",
        Unguarded("clients are known by their key alone: write one for each into `keys`"),
    ),
    (
        "enable_oauth2*",
        Unguarded("clients are known by their key alone: write one for each into `keys`"),
    ),
    (
        "oauth2_config_mappings",
        Unguarded("clients are known by their key alone: write one for each into `keys`"),
    ),
    (
        "allow_user_auth",
        Unguarded("clients are known by their key alone: write one for each into `keys`"),
    ),
    (
        "enforce_rbac",
        Unguarded("there are no roles: what a key may do is models and admin"),
    ),
    (
        "role_permissions",
        Unguarded("there are no roles: what a key may do is models and admin"),
    ),
    (
        "allowed_routes",
        Unguarded("a key may use every inference path"),
    ),
    (
        "admin_only_routes",
        Unguarded(
            "a key may use every inference path; what changes the gateway is on the admin listener",
        ),
    ),
    (
        "public_routes",
        Not("every path needs a key but /health, /ready and their like"),
    ),
    (
        "enforced_params",
        Unguarded("requests are not required to have a field"),
    ),
    (
        "enforce_user_param",
        Unguarded("requests are not required to have a field"),
    ),
    ("reject_clientside_metadata_tags", Not(TAGS)),
    (
        "litellm_key_header_name",
        Not("a key is taken from Authorization and x-api-key"),
    ),
    (
        "global_max_parallel_requests",
        Unguarded("write max_in_flight at the pools or the endpoints"),
    ),
    (
        "max_parallel_requests",
        Unguarded("write it into each key: keys[].max_in_flight"),
    ),
    (
        "max_in_flight_requests_per_worker",
        Unguarded("write max_in_flight at the pools or the endpoints"),
    ),
    (
        "max_queued_requests_per_worker",
        Not(
            "there is no queue yet: where all endpoints are at their max_in_flight the client gets a 503",
        ),
    ),
    (
        "admission_queue_timeout_seconds",
        Not(
            "there is no queue yet: where all endpoints are at their max_in_flight the client gets a 503",
        ),
    ),
    (
        "max_response_size_mb",
        Not("an answer has no largest size: it passes as it comes"),
    ),
    (
        "user_url_*",
        Unguarded(
            "addresses within a prompt (image_url) are the engine's to look up, or to refuse",
        ),
    ),
    (
        "provider_url_destination_allowed_hosts",
        Not("a client cannot choose where its request goes"),
    ),
    (
        "allow_client_side_credentials",
        Same(
            &["false", "False"],
            "a client cannot choose an engine's address or key",
        ),
    ),
    (
        "use_x_forwarded_for",
        Not("name the proxies in front of the gateway in trusted_proxies"),
    ),
    (
        "trusted_proxy_ranges",
        Not("name the proxies in front of the gateway in trusted_proxies"),
    ),
    (
        "forward_client_headers_to_llm_api",
        Same(
            &["true", "True"],
            "a client's fields reach the engine, but for its key and what is for one connection",
        ),
    ),
    (
        "forward_openai_org_id",
        Same(
            &["true", "True"],
            "a client's fields reach the engine, but for its key and what is for one connection",
        ),
    ),
    (
        "forward_llm_provider_auth_headers",
        Not("a client's key never reaches an engine"),
    ),
    (
        "cancel_on_disconnect",
        Same(
            &["true", "True"],
            "the engine's work ends as soon as its client has left",
        ),
    ),
    (
        "completion_model",
        Not("a request goes to the model that it names; \"*\" in models takes every other name"),
    ),
    (
        "pass_through_endpoints",
        Not("paths beyond the inference paths are opened by expose, towards the engines alone"),
    ),
    (
        "infer_model_from_keys",
        Not("/v1/models has the models of the configuration"),
    ),
    (
        "database_url",
        Not(
            "the keys that LiteLLM has in it are not imported, and stop working: make new ones with `sluicegate key`, and write them into `keys`",
        ),
    ),
    ("database_*", Not(DATABASE)),
    (
        "store_model_in_db",
        Same(
            &["false", "False"],
            "the models that LiteLLM has in its database are not imported: write them into `models`",
        ),
    ),
    ("supported_db_objects", Not(DATABASE)),
    ("disable_spend_logs", Same(&["true", "True"], SPEND)),
    (
        "disable_error_logs",
        Not("the access log has a line for each request"),
    ),
    ("disable_*", Not("the gateway has nothing like it")),
    (
        "store_prompts_in_spend_logs",
        Same(&["false", "False"], "prompts and answers are never logged"),
    ),
    ("spend_*", Not(SPEND)),
    ("maximum_*", Not(SPEND)),
    ("proxy_batch_write_at", Not(SPEND)),
    ("proxy_budget_*", Not(SPEND)),
    ("use_redis_transaction_buffer", Not(REDIS)),
    ("coordination_redis", Not(REDIS)),
    ("fail_closed_*", Not(REDIS)),
    (
        "allow_requests_on_db_unavailable",
        Same(&["true", "True"], DATABASE),
    ),
    (
        "key_management_*",
        Not("secrets come from the environment: put them there before the gateway starts"),
    ),
    (
        "use_google_kms",
        Not("secrets come from the environment: put them there before the gateway starts"),
    ),
    (
        "use_azure_key_vault",
        Not("secrets come from the environment: put them there before the gateway starts"),
    ),
    ("background_health_checks", Not(HEALTH)),
    ("health_check_*", Not(HEALTH)),
    ("use_shared_health_check", Not(HEALTH)),
    (
        "enable_health_check_routing",
        Same(
            &["true", "True"],
            "an endpoint that fails its probes gets no requests",
        ),
    ),
    ("background_health_check_model_groups", Not(HEALTH)),
    ("alert*", Not(ALERTS)),
    ("ui_*", Not(UI)),
    ("custom_sso", Not(UI)),
    ("custom_ui_*", Not(UI)),
    (
        "custom_key_*",
        Not("`sluicegate key` makes keys; what each may do stands in `keys`"),
    ),
    ("password_policy_*", Not(UI)),
    ("max_failed_login_*", Not(UI)),
    ("failed_login_*", Not(UI)),
    ("mcp_*", Not(MCP)),
    ("otel", Not(CALLBACKS)),
    ("tracing", Not(CALLBACKS)),
    (
        "user_header_*",
        Not("users within a key are not told apart: give each a key of its own"),
    ),
    ("user_api_key_cache_*", Not(DATABASE)),
    (
        "proxy_config_reload_interval_seconds",
        Not("a reload (SIGHUP) takes the file"),
    ),
    ("plugins", Not(UI)),
];

/// All of them, for tests.
#[cfg(test)]
pub(super) const ALL: &[(Place, &[(&str, Fate)])] = &[
    (Place::Top, TOP),
    (Place::Deployment, DEPLOYMENT),
    (Place::Params, PARAMS),
    (Place::Info, INFO),
    (Place::Router, ROUTER),
    (Place::Litellm, LITELLM),
    (Place::General, GENERAL),
];
