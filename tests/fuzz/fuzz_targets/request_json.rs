//! JSON bodies of requests: any bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sluicegate_fuzz::openai::request::bodies::disagreement;

fuzz_target!(|body: &[u8]| {
    if let Some(difference) = disagreement(body) {
        panic!("{difference}");
    }
});
