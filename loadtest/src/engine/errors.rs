//! The error bodies of vLLM and SGLang.

use serde_json::json;

use super::script::{EngineError, Flavour};

/// An error answer: a status and a JSON body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ErrorAnswer {
    pub status: u16,
    pub body: String,
    /// The `allow` field of a 405.
    pub allow: Option<&'static str>,
    /// Type and message as JSON, where the API's own code made the error and not the framework around it.
    own: Option<(String, String)>,
}

impl ErrorAnswer {
    fn new(status: u16, body: String) -> Self {
        Self {
            status,
            body,
            allow: None,
            own: None,
        }
    }

    /// FastAPI's own 404.
    pub(super) fn not_found() -> Self {
        Self::new(404, r#"{"detail":"Not Found"}"#.to_owned())
    }

    /// FastAPI's own 405.
    pub(super) fn method_not_allowed(allow: &'static str) -> Self {
        let body = r#"{"detail":"Method Not Allowed"}"#.to_owned();
        Self {
            allow: Some(allow),
            ..Self::new(405, body)
        }
    }

    /// The key is missing or wrong: `error` is a string here.
    pub(super) fn unauthorized() -> Self {
        Self::new(401, r#"{"error":"Unauthorized"}"#.to_owned())
    }

    /// An error of the API: status and code are the same number.
    pub(super) fn api(
        flavour: Flavour,
        status: u16,
        kind: &str,
        message: &str,
        param: Option<&str>,
    ) -> Self {
        let (message, kind, param) = (json!(message), json!(kind), json!(param));
        let own = Some((kind.to_string(), message.to_string()));
        let body = match flavour {
            Flavour::Vllm => format!(
                r#"{{"error":{{"message":{message},"type":{kind},"param":{param},"code":{status}}}}}"#
            ),
            Flavour::Sglang => format!(
                r#"{{"object":"error","message":{message},"type":{kind},"param":{param},"code":{status}}}"#
            ),
        };
        Self {
            own,
            ..Self::new(status, body)
        }
    }

    /// The same in Anthropic's form. What the framework refuses keeps its own: a body that does not fit the schema
    /// never reaches the code that would translate.
    pub(super) fn in_messages(self) -> Self {
        match &self.own {
            None => self,
            Some((kind, message)) => Self::new(
                self.status,
                format!(r#"{{"type":"error","error":{{"type":{kind},"message":{message}}}}}"#),
            ),
        }
    }

    /// A value the engine refuses.
    pub(super) fn bad_request(flavour: Flavour, message: &str, param: Option<&str>) -> Self {
        Self::api(flavour, 400, "BadRequestError", message, param)
    }

    /// A body that does not fit the schema: its type has a blank.
    pub(super) fn validation(flavour: Flavour, detail: &str, param: &str) -> Self {
        let message = format!("1 validation error:\n  {detail}");
        Self {
            own: None,
            ..Self::api(flavour, 400, "Bad Request", &message, Some(param))
        }
    }

    /// No or another content type; no `param`, for the error has no place.
    pub(super) fn media_type(flavour: Flavour) -> Self {
        let message =
            "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed";
        Self {
            own: None,
            ..Self::api(flavour, 400, "Bad Request", message, None)
        }
    }

    /// A response that this engine did not make, or does not remember.
    pub(super) fn no_response(flavour: Flavour, id: &str) -> Self {
        let message = format!("Response with id '{id}' not found.");
        let (kind, param) = ("invalid_request_error", Some("response_id"));
        Self::api(flavour, 404, kind, &message, param)
    }

    pub(super) fn unknown_model(flavour: Flavour, model: &str, served: &str) -> Self {
        let message = format!("The model `{model}` does not exist. Valid aliases: {served}.");
        Self::api(flavour, 404, "NotFoundError", &message, Some("model"))
    }

    /// The engine's own failure.
    pub(super) fn of_engine(flavour: Flavour, error: EngineError) -> Self {
        let (status, kind, message) = words(error);
        Self::api(flavour, status, kind, message, None)
    }

    /// What an engine, or something on its host, says with this status.
    pub(super) fn of_status(flavour: Flavour, status: u16) -> Self {
        match status {
            500 => Self::of_engine(flavour, EngineError::CoreDead),
            503 => Self::of_engine(flavour, EngineError::Busy),
            _ => Self::api(
                flavour,
                status,
                super::http::phrase(status),
                super::http::phrase(status),
                None,
            ),
        }
    }
}

fn words(error: EngineError) -> (u16, &'static str, &'static str) {
    match error {
        EngineError::CoreDead => (
            500,
            "InternalServerError",
            "EngineCore encountered an issue. See stack trace (above) for the root cause.",
        ),
        EngineError::Busy => (
            503,
            "Service Unavailable",
            "The engine is currently busy and cannot accept new requests. Please try again later or on a different \
             instance.",
        ),
        EngineError::ShuttingDown => (
            500,
            "InternalServerError",
            "cannot schedule new futures after shutdown",
        ),
    }
}

/// The error inside a stream of `OpenAI`'s APIs. Its JSON is spaced, unlike that of all other events.
pub(super) fn error_event(error: EngineError) -> String {
    let (code, kind, message) = words(error);
    format!(
        "data: {{\"error\": {{\"message\": \"{message}\", \"type\": \"{kind}\", \"param\": null, \"code\": {code}}}}}\n\n"
    )
}

/// The error inside a stream of messages. vLLM reads its own chat stream to make it, and what it says is that it
/// could not read [`error_event`].
pub(super) fn messages_error_event(error: EngineError) -> String {
    let (code, _, message) = words(error);
    let start: String = message.chars().take(2).collect();
    let missing = format!(
        "Field required [type=missing, input_value={{'error': {{'message': '{start}...am': None, 'code': {code}}}}}, \
         input_type=dict]\n    For further information visit https://errors.pydantic.dev/2.14/v/missing"
    );
    let said = format!(
        "2 validation errors for ChatCompletionStreamResponse\nmodel\n  {missing}\nchoices\n  {missing}"
    );
    format!(
        "event: error\ndata: {{\"type\":\"error\",\"error\":{{\"type\":\"internal_error\",\"message\":{}}}}}\n\n",
        json!(said)
    )
}
