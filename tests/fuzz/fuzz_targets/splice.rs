//! Streams that another engine goes on with: the events of two engines, apart by a line of four hyphens. The first
//! byte says whether token ids were asked for.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sluicegate_fuzz::openai::continuation::splices::broken;

fuzz_target!(|input: &[u8]| {
    let Some((kind, events)) = input.split_first() else {
        return;
    };
    let at = memchr::memmem::find(events, b"----\n");
    let (first, then) = match at {
        Some(at) => (&events[..at], &events[at + 5..]),
        None => (events, &b""[..]),
    };
    if let Some(promise) = broken(first, then, kind % 2 == 1) {
        panic!("{promise}");
    }
});
