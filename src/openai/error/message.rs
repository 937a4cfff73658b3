//! What each error says, and what to do about it.

use std::fmt;

use super::{ApiError, RateLimit};

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidValue { problem, .. } => f.write_str(problem),
            Self::InvalidJson { problem } => f.write_str(problem),
            Self::MissingModel => f.write_str(
                "The request names no model. Name one as `model` in its body; GET /v1/models lists them.",
            ),
            Self::InvalidApiKey { presented: false } => f.write_str(
                "No API key was sent. Send one as `Authorization: Bearer KEY` or as `x-api-key: KEY`.",
            ),
            Self::InvalidApiKey { presented: true } => f.write_str(
                "The API key is not known here. Check it, or ask those who run the gateway for one.",
            ),
            Self::ModelNotAllowed { model: Some(model) } => write!(
                f,
                "The API key may not use the model `{model}`. GET /v1/models lists those that it may use."
            ),
            Self::ModelNotAllowed { model: None } => f.write_str(
                "The request names no model, which takes an API key for all of them (`models: [\"*\"]` in the \
                 gateway's configuration).",
            ),
            Self::ResponseNotFound { id } => write!(
                f,
                "There is no response `{id}` here. It was made with another key, by a server that is gone, or too long \
                 ago. Send the whole conversation instead."
            ),
            Self::ModelNotFound { model, suggestions } => {
                write!(f, "The model `{model}` does not exist. ")?;
                suggest(f, suggestions, "GET /v1/models lists those that you may use.")
            }
            Self::EndpointNotFound { name, suggestions } => {
                write!(f, "There is no endpoint `{name}`. ")?;
                suggest(f, suggestions, "GET /endpoints lists them.")
            }
            Self::OrderRefused { problem } => f.write_str(problem),
            Self::StillDrained { endpoint } => write!(
                f,
                "The configuration drains {endpoint}. Take `drain: true` out of it and reload."
            ),
            Self::RateLimitExceeded { limit, .. } => self.again(f, limit),
            Self::NotAllowedHere { address, key } => write!(
                f,
                "{address} may not read this. Add the address to `{key}` in the gateway's configuration, \
                 or ask the admin listener."
            ),
            // Engines have no such path, and nothing would be gained by exposing theirs.
            Self::PathNotExposed { method, path } if path == "/endpoints" => write!(
                f,
                "{method} {path} is answered on the `admin` listener alone. Ask there."
            ),
            Self::PathNotExposed { method, path } => write!(
                f,
                "{method} {path} is not exposed. Check the path; if it is meant to be reached, add it to \
                 `expose` in the gateway's configuration."
            ),
            Self::MethodNotAllowed { method, allow } => {
                write!(f, "{method} is not allowed for this path. Use {allow}.")
            }
            Self::RequestTimeout => f.write_str("The request did not arrive in time. Send it again."),
            Self::RequestTooLarge { limit } => write!(
                f,
                "The request body is larger than {limit} bytes. Send a shorter one, or raise `limits.body` in \
                 the gateway's configuration."
            ),
            Self::HeaderTooLarge { limit } => write!(
                f,
                "The request's header fields are larger than {limit} bytes. Send fewer or shorter ones, or raise \
                 `limits.header` in the gateway's configuration."
            ),
            Self::Internal => {
                f.write_str("The gateway failed. Send the request again; if it fails again, report the request's id.")
            }
            Self::UpstreamFailed => {
                f.write_str("The inference servers that were asked failed. Send the request again.")
            }
            Self::SuspectRequest => f.write_str(
                "Two inference servers died while they worked on this request alone, so it is sent to no other for \
                 ten minutes. Change it before you send it again, and report it.",
            ),
            Self::NotAStream => f.write_str(
                "The inference server did not answer with a stream of events. Send the request without `stream`, or \
                 ask those who run the gateway.",
            ),
            Self::Overloaded { .. } => self.again(f, "All inference servers are busy."),
            Self::OutOfBodyMemory { .. } => self.again(
                f,
                "The gateway holds as many requests as `limits.body_memory` allows.",
            ),
            Self::NoEndpointAvailable { .. } => {
                self.again(f, "No inference server is available.")
            }
            Self::UpgradeUnderWay { .. } => f.write_str(
                "An upgrade of the gateway is under way, and the new process would not know of this order. Give it \
                 again in a few seconds.",
            ),
            Self::UpstreamTimeout { after } => write!(
                f,
                "The inference server sent nothing for {after:?}. Send the request again, or raise `timeouts` in \
                 the gateway's configuration."
            ),
        }
    }
}

impl ApiError {
    /// With the time to send it again: an event of a stream has no `Retry-After`.
    fn again(&self, f: &mut fmt::Formatter<'_>, problem: impl fmt::Display) -> fmt::Result {
        problem.fmt(f)?;
        match self.retry_after() {
            Some(seconds) => write!(f, " Send the request again in {seconds} s."),
            None => Ok(()),
        }
    }
}

/// `otherwise`: what to say where nothing was found.
fn suggest(f: &mut fmt::Formatter<'_>, found: &[String], otherwise: &str) -> fmt::Result {
    match found.split_last() {
        None => f.write_str(otherwise),
        Some((last, [])) => write!(f, "Did you mean `{last}`?"),
        Some((last, rest)) => write!(f, "Did you mean `{}` or `{last}`?", rest.join("`, `")),
    }
}

/// That it is reached.
impl fmt::Display for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Requests(most) => {
                write!(f, "The API key has had its {most} requests a minute.")
            }
            Self::Tokens(most) => write!(f, "The API key has had its {most} tokens a minute."),
            Self::InFlight(most) => write!(
                f,
                "The API key has as many requests in flight as it may have, {most}."
            ),
            Self::OneRequest { limit, asked } => write!(
                f,
                "Request too large for the API key's tokens a minute: Limit {limit}, Requested {asked}. Shorten the \
                 prompt or lower `max_tokens` (1024 are counted where there is none)."
            ),
        }
    }
}
