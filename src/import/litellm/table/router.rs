//! `router_settings`.

use super::Fate::{self, Carried, Not, Same, Unguarded};
use super::why::{AFFINITY, ALERTS, CACHE, FALLBACKS, GUARDRAILS, HEALTH, REDIS, STORES, TAGS};

pub(super) const ROUTER: &[(&str, Fate)] = &[
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
        Not("whoever waits for an endpoint gets a place when it is free"),
    ),
    (
        "default_priority",
        Not("requests wait for an endpoint in the order in which they came"),
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
