//! What may differ, and where the page says so.

/// Whose line it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    LiteLlm,
    Sluicegate,
}

/// A place in docs/from-litellm.md, and what is different by it.
#[derive(Debug)]
pub struct Allowed {
    /// The anchor.
    pub id: &'static str,
    /// None is any.
    pub cases: &'static [&'static str],
    pub side: Side,
    /// How the line begins, the number of the engine's request left out.
    pub line: &'static str,
}

impl Allowed {
    pub fn covers(&self, case: &str, side: Side, line: &str) -> bool {
        (self.cases.is_empty() || self.cases.contains(&case))
            && self.side == side
            && unnumbered(line).starts_with(self.line)
    }
}

/// `engine 0 asked` without the number.
fn unnumbered(line: &str) -> String {
    let mut words: Vec<&str> = line.splitn(3, ' ').collect();
    if words.len() == 3 && words[1].parse::<usize>().is_ok() {
        words.remove(1);
    }
    words.join(" ")
}

const fn litellm(id: &'static str, cases: &'static [&'static str], line: &'static str) -> Allowed {
    Allowed {
        id,
        cases,
        side: Side::LiteLlm,
        line,
    }
}

const fn sluicegate(
    id: &'static str,
    cases: &'static [&'static str],
    line: &'static str,
) -> Allowed {
    Allowed {
        id,
        cases,
        side: Side::Sluicegate,
        line,
    }
}

const REFUSED: &[&str] = &["wrong key", "no key"];
const MISNAMED: &[&str] = &["wrong model", "the engine's own name"];
const ANTHROPIC: &[&str] = &["messages of Anthropic"];
const FAILED: &[&str] = &["400", "500"];

pub static ALLOWED: &[Allowed] = &[
    litellm(
        "engine-key",
        &[],
        "engine authorization Bearer sk-of-the-environment",
    ),
    sluicegate("engine-key", &[], "engine authorization none"),
    litellm("wrong-key", &["wrong key"], "client status 400"),
    litellm(
        "wrong-key",
        &["wrong key"],
        "client error type \"no_db_connection\"",
    ),
    litellm("wrong-key", &["wrong key"], "client error code \"400\""),
    litellm(
        "wrong-key",
        &["wrong key"],
        "client error message \"No connected db.\"",
    ),
    litellm("wrong-key", &["no key"], "client status 500"),
    litellm("wrong-key", &["no key"], "client type text/plain"),
    litellm(
        "wrong-key",
        &["no key"],
        "client text Internal Server Error",
    ),
    sluicegate("wrong-key", REFUSED, "client status 401"),
    sluicegate("wrong-key", &["no key"], "client type application/json"),
    sluicegate(
        "wrong-key",
        REFUSED,
        "client error type \"authentication_error\"",
    ),
    sluicegate(
        "wrong-key",
        REFUSED,
        "client error code \"invalid_api_key\"",
    ),
    sluicegate("wrong-key", REFUSED, "client error message "),
    litellm("wrong-model", &["wrong model"], "client status 400"),
    litellm("wrong-model", &["wrong model"], "client error code \"400\""),
    litellm("wrong-model", &["wrong model"], "client error message "),
    sluicegate("wrong-model", MISNAMED, "client status 404"),
    sluicegate(
        "wrong-model",
        MISNAMED,
        "client error code \"model_not_found\"",
    ),
    sluicegate("wrong-model", MISNAMED, "client error message "),
    litellm(
        "codes",
        &["no model", "no json"],
        "client error code \"400\"",
    ),
    litellm("codes", &["no model", "no json"], "client error message "),
    sluicegate(
        "codes",
        &["no model"],
        "client error code \"missing_model\"",
    ),
    sluicegate("codes", &["no json"], "client error code \"invalid_json\""),
    sluicegate("codes", &["no model", "no json"], "client error message "),
    // LiteLLM's answer is an engine's; ours is the refusal above.
    litellm("own-names", &["the engine's own name"], "client "),
    litellm("own-names", &["the engine's own name"], "engine "),
    sluicegate(
        "own-names",
        &["the engine's own name"],
        "client error type \"invalid_request_error\"",
    ),
    sluicegate("user", &["chat with everything"], "engine body user: "),
    sluicegate("fields", &["fields"], "engine x-own 1"),
    litellm("messages", ANTHROPIC, "engine asked POST /v1/responses"),
    litellm("messages", ANTHROPIC, "engine body include: "),
    litellm("messages", ANTHROPIC, "engine body input: "),
    litellm("messages", ANTHROPIC, "engine body max_output_tokens: "),
    sluicegate("messages", ANTHROPIC, "engine asked POST /v1/messages"),
    sluicegate("messages", ANTHROPIC, "engine body max_tokens: "),
    sluicegate("messages", ANTHROPIC, "engine body messages: "),
    litellm("health", &["health"], "engine asked POST"),
    litellm("health", &["health"], "engine authorization "),
    litellm("health", &["health"], "engine body "),
    litellm("engines-errors", FAILED, "client error code \""),
    litellm("engines-errors", FAILED, "client error message \"litellm."),
    litellm(
        "engines-errors",
        &["500"],
        "client error type \"internal_server_error\"",
    ),
    sluicegate("engines-errors", FAILED, "client error code "),
    sluicegate("engines-errors", FAILED, "client error message "),
    sluicegate(
        "engines-errors",
        &["500"],
        "client error type \"InternalServerError\"",
    ),
    litellm("retries", &["500"], "engine asked POST"),
    litellm("retries", &["500"], "engine body "),
];
