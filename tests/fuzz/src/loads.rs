//! What holds for every page of `/metrics` and every answer of `/v1/loads`, whatever its bytes.

use super::engine::{Exposition, Load};

/// The first promise that is broken for `answer`, if any.
pub fn broken(answer: &[u8]) -> Option<String> {
    let whole = read(answer, answer.len().max(1));
    for size in [1, 2, 7, 61] {
        let pieces = read(answer, size);
        if pieces != whole {
            return Some(format!("whole: {whole:?}, in pieces of {size}: {pieces:?}"));
        }
    }
    let loads = Load::of_loads(answer).unwrap_or_default();
    [whole, loads].into_iter().find_map(out_of_range)
}

fn read(page: &[u8], size: usize) -> Load {
    let mut reading = Exposition::new();
    for piece in page.chunks(size) {
        reading.feed(piece);
    }
    reading.finish()
}

fn out_of_range(load: Load) -> Option<String> {
    let is_fine = load.kv_usage.is_none_or(|share| (0.0..=1.0).contains(&share));
    // Nothing has happened between a report and the same report.
    let is_still = !load.has_gone_on(&load);
    (!is_fine || !is_still).then(|| format!("{load:?}"))
}
