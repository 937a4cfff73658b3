//! Forms. The first line is the Content-Type, without `multipart/form-data`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sluicegate_fuzz::openai::request::forms::broken;

fuzz_target!(|input: &[u8]| {
    let line = input.iter().position(|&byte| byte == b'\n');
    let (parameters, body) = input.split_at(line.unwrap_or(input.len()));
    let content_type = [b"multipart/form-data", parameters].concat();
    if let Some(promise) = broken(&content_type, body.get(1..).unwrap_or_default()) {
        panic!("{promise}");
    }
});
