//! Chunked bodies behind a head that is always good.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sluicegate_fuzz::upstream::decoder::RequestKind;
use sluicegate_fuzz::upstream::differential::disagreement;

fuzz_target!(|body: &[u8]| {
    let text = [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".as_slice(),
        body,
    ]
    .concat();
    if let Some(difference) = disagreement(RequestKind::Other, &text) {
        panic!("{difference}");
    }
});
