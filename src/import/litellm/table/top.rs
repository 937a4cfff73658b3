//! What stands at the top of a file.

use super::Fate::{self, Carried, Not, Unguarded};
use super::why::{CALLBACKS, GUARDRAILS, MCP, REDIS, STORES};

pub(super) const TOP: &[(&str, Fate)] = &[
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
