//! Whole answers. The first byte says whether the request was a HEAD.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sluicegate_fuzz::upstream::decoder::RequestKind;
use sluicegate_fuzz::upstream::differential::disagreement;

fuzz_target!(|input: &[u8]| {
    let Some((kind, text)) = input.split_first() else {
        return;
    };
    let request = if *kind == b'H' {
        RequestKind::Head
    } else {
        RequestKind::Other
    };
    if let Some(difference) = disagreement(request, text) {
        panic!("{difference}");
    }
});
