//! The sources of what is fuzzed, without the rest of the gateway, so that an instrumented build takes
//! seconds rather than minutes.

#[path = "../../../src/config/mod.rs"]
#[allow(
    dead_code,
    unused_imports,
    reason = "the gateway uses what the target does not"
)]
pub mod config;

#[path = "../../../src/openai/mod.rs"]
#[allow(
    dead_code,
    unused_imports,
    reason = "the gateway uses what the targets do not"
)]
pub mod openai;

#[path = "../../../src/engine/mod.rs"]
#[allow(
    dead_code,
    unused_imports,
    reason = "the gateway uses what the target does not"
)]
pub mod engine;

pub mod loads;

#[path = "../../../src/upstream"]
pub mod upstream {
    #![allow(dead_code, reason = "the targets need the decoder only")]

    pub mod chunked;
    pub mod decoder;
    #[path = "../../tests/fuzz/src/differential.rs"]
    pub mod differential;
    pub mod error;
    pub mod request_head;
    pub mod response_head;
}
