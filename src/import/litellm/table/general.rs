//! `general_settings`.

use super::Fate::{self, Carried, Not, Same, Unguarded};
use super::why::{ALERTS, CALLBACKS, DATABASE, HEALTH, MCP, OTEL, REDIS, SPEND, TAGS, UI};

pub(super) const GENERAL: &[(&str, Fate)] = &[
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
        Not("write it into queue.size of the pools, which have a queue each"),
    ),
    (
        "admission_queue_timeout_seconds",
        Not("write it into queue.timeout of the pools"),
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
    ("otel", Not(OTEL)),
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
