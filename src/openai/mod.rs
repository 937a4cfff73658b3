//! What the gateway knows of the APIs it carries: which paths are inference, what a request's body
//! asks for, what an error looks like, and what the events of a streamed answer mean. Pure: bytes
//! in, facts out.

pub mod continuation;
pub mod error;
pub mod models;
pub mod paths;
pub mod query;
pub mod rename;
pub mod request;
pub mod sse;
pub mod usage;

pub use error::{ApiError, RateLimit};
pub use paths::{BodyKind, Call, Own, Verdict};
pub use rename::Rename;
pub use usage::Usage;

/// The API a call speaks, which decides what its stream's events mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// OpenAI's chat completions.
    Chat,
    /// OpenAI's (legacy) completions.
    Completions,
    /// Anthropic's messages.
    Messages,
    /// OpenAI's responses.
    Responses,
    /// Anything else: any event is content, and only `[DONE]` is a known end.
    Other,
}
