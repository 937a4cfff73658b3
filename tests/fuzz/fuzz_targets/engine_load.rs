//! What engines say of their load: any bytes, as a page of `/metrics` and as an answer of `/v1/loads`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sluicegate_fuzz::loads::broken;

fuzz_target!(|answer: &[u8]| {
    if let Some(broken) = broken(answer) {
        panic!("{broken}");
    }
});
