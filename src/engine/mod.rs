//! What engines say of themselves, beyond OpenAI's API.

mod exposition;
mod load;

pub use exposition::Exposition;
pub use load::{Load, OddLoads};

/// Whether an engine refuses a request only because its queue is full, in vLLM's and SGLang's own words; a 503 may
/// mean other things.
pub fn says_queue_is_full(status: u16, answer: &[u8]) -> bool {
    status == 503
        && [&b"currently busy"[..], b"queue is full"]
            .iter()
            .any(|words| memchr::memmem::find(answer, words).is_some())
}
