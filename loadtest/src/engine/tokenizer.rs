//! `/tokenize`, `/detokenize` and the counting of messages.

use serde_json::{Map, Value};

use super::errors::ErrorAnswer;
use super::request::{Api, Fields, object};
use super::script::{Flavour, Script};
use super::text;

/// `/tokenize`: the tokens of a prompt or of a chat.
pub(super) fn tokenize(script: &Script, body: &[u8]) -> Result<String, ErrorAnswer> {
    let fields: Map<String, Value> = serde_json::from_slice(body)
        .map_err(|_| ErrorAnswer::validation(script.flavour, "{'type': 'json_invalid'}", "body"))?;
    let fields = Fields {
        fields: &fields,
        script,
    };
    let mut ids = Vec::new();
    if fields.get("messages").is_some() {
        ids = fields.chat(true)?.ids;
    } else {
        let prompt = fields
            .get("prompt")
            .and_then(Value::as_str)
            .ok_or_else(|| fields.missing("prompt"))?;
        if (fields.get("add_special_tokens")).and_then(Value::as_bool) != Some(false) {
            ids.push(text::BOS);
        }
        text::tokenize(prompt.as_bytes(), |id| ids.push(id));
    }
    let list = serde_json::to_string(&ids).unwrap_or_default();
    Ok(format!(
        r#"{{"count":{},"max_model_len":{},"tokens":{list},"token_strs":null}}"#,
        ids.len(),
        script.max_model_len
    ))
}

/// `/v1/messages/count_tokens`.
pub(super) fn count_tokens(
    script: &Script,
    content_type: Option<&str>,
    body: &[u8],
) -> Result<String, ErrorAnswer> {
    let fields = object(script, content_type, body)?;
    let fields = Fields {
        fields: &fields,
        script,
    };
    let count = fields.conversation()?.context.length;
    fields
        .check_model()
        .map_err(|error| Api::Messages.error(error))?;
    Ok(format!(
        r#"{{"input_tokens":{count},"context_management":{{"original_input_tokens":{count}}}}}"#
    ))
}

/// `/detokenize`: the text of tokens.
pub(super) fn detokenize(script: &Script, body: &[u8]) -> Result<String, ErrorAnswer> {
    let flavour: Flavour = script.flavour;
    let fields: Value = serde_json::from_slice(body)
        .map_err(|_| ErrorAnswer::validation(flavour, "{'type': 'json_invalid'}", "body"))?;
    let Some(ids) = fields.get("tokens").and_then(Value::as_array) else {
        return Err(ErrorAnswer::validation(
            flavour,
            "{'type': 'missing', 'loc': 'body.tokens'}",
            "body.tokens",
        ));
    };
    let mut bytes = Vec::new();
    for id in ids.iter().filter_map(Value::as_u64) {
        text::decode(u32::try_from(id).unwrap_or(text::EOS), &mut bytes);
    }
    Ok(format!(
        r#"{{"prompt":{}}}"#,
        Value::from(String::from_utf8_lossy(&bytes))
    ))
}
