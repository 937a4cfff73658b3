//! Configuration files: any bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sluicegate_fuzz::config::promises::broken;

fuzz_target!(|file: &[u8]| {
    if let Some(promise) = broken(file) {
        panic!("{promise}");
    }
});
