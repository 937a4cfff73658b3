//! What holds for every stream that is gone on with, whatever its bytes: it comes to the same whether its events are
//! read or compared, all at once or one by one, and what the client is shown is whole events.

use bytes::Bytes;

use super::super::Dialect;
use super::super::request::Scanner;
use super::{Alike, Kept, Plan};

const ASKED: &[u8] =
    br#"{"messages":[{}],"prompt":null,"stream":true,"stream_options":{"include_usage":true}}"#;

/// What does not hold, if anything, of a stream of these events that another engine goes on with.
pub fn broken(first: &[u8], then: &[u8], asks_for_ids: bool) -> Option<String> {
    let mut scanner = Scanner::new();
    let asked = ASKED.to_vec();
    let asked = String::from_utf8(asked)
        .ok()?
        .replace("\"prompt\":null,", "");
    scanner.feed(asked.as_bytes());
    let asked_for = scanner.finish().ok()?;
    let plan = Plan::of(&asked_for, Dialect::Chat, &[Bytes::from(asked)])?;
    let (mut whole, mut single) = (
        Kept::new(&plan, asks_for_ids),
        Kept::new(&plan, asks_for_ids),
    );
    for stretch in [first, then] {
        let Some(end) = memchr::memmem::rfind(stretch, b"\n\n") else {
            continue;
        };
        let events = Bytes::copy_from_slice(&stretch[..end + 2]);
        let shown = whole.take(&events);
        let mut one_by_one = Vec::new();
        for event in each(&events) {
            let mut out = Vec::new();
            match single.take_alike(event, &mut out) {
                Alike::No => out = single.take(&Bytes::copy_from_slice(event)).to_vec(),
                Alike::AsTheyAre(_) => out = event.to_vec(),
                Alike::Rewritten(_) => {}
            }
            one_by_one.extend_from_slice(&out);
        }
        if shown != one_by_one {
            return Some(format!(
                "at once: {}; one by one: {}",
                String::from_utf8_lossy(&shown),
                String::from_utf8_lossy(&one_by_one)
            ));
        }
        if format!("{:?}", whole.usage()) != format!("{:?}", single.usage())
            || whole.can_go_on() != single.can_go_on()
            || whole.produced() != single.produced()
        {
            return Some("what is kept is not the same".to_owned());
        }
        if !whole.can_go_on() {
            return None;
        }
        whole.cross();
        single.cross();
    }
    None
}

/// The events, each with its blank line, and what is left behind them: one more end of a line.
fn each(events: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = events;
    std::iter::from_fn(move || {
        let ends = [&b"\n\n"[..], b"\r\n\r\n", b"\r\r"];
        let found = ends
            .iter()
            .filter_map(|end| Some(memchr::memmem::find(rest, end)? + end.len()));
        let (event, others) = rest.split_at(found.min().unwrap_or(rest.len()));
        rest = others;
        (!event.is_empty()).then_some(event)
    })
}
