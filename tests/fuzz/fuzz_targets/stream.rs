//! Streamed answers. The first byte says in which dialect, and whether each event may bring a count of tokens.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sluicegate_fuzz::openai::Dialect;
use sluicegate_fuzz::openai::sse::streams::broken;

const DIALECTS: [Dialect; 5] = [
    Dialect::Chat,
    Dialect::Completions,
    Dialect::Messages,
    Dialect::Responses,
    Dialect::Other,
];

fuzz_target!(|input: &[u8]| {
    let Some((kind, stream)) = input.split_first() else {
        return;
    };
    let kind = usize::from(*kind);
    let dialect = DIALECTS[kind % DIALECTS.len()];
    let reads_each = kind / DIALECTS.len() % 2 == 1;
    if let Some(promise) = broken(dialect, reads_each, stream) {
        panic!("{promise}");
    }
});
