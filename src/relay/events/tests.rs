use std::sync::Arc;

use proptest::prelude::*;

use super::super::memory::{BodyMemory, Charge};
use super::*;
use crate::openai::continuation::{Kept, Plan};
use crate::openai::request::Scanner;

const ONE: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\n";
const STOP: &str =
    "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
const ABORT: &str =
    "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"abort\"}]}\n\n";
const ERROR: &str = "data: {\"error\":{\"message\":\"core died\",\"code\":500}}\n\n";
const DONE: &str = "data: [DONE]\n\n";
const USAGE: &str =
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":4,\"completion_tokens\":2}}\n\n";

/// What is shown of `stream` when it comes cut at `cuts`, and how it failed or ended.
fn shown(stream: &str, cuts: &[usize]) -> (String, Option<Failed>, Option<Ending>) {
    watched(stream, cuts, UsageAsked::AsItComes).0
}

/// The same, with the tokens that were counted.
fn watched(
    stream: &str,
    cuts: &[usize],
    asked: UsageAsked,
) -> ((String, Option<Failed>, Option<Ending>), Option<Usage>) {
    let mut events = Events::new(Dialect::Chat, 4096, asked, None);
    let mut shown = Vec::new();
    let mut from = 0;
    for to in cuts.iter().copied().chain([stream.len()]) {
        let passed = events.take(Bytes::copy_from_slice(&stream.as_bytes()[from..to]));
        shown.extend_from_slice(&passed.shown);
        if passed.failed.is_some() {
            let shown = String::from_utf8(shown).unwrap();
            return ((shown, passed.failed, None), events.usage());
        }
        from = to;
    }
    let (ending, rest) = events.finish();
    shown.extend_from_slice(&events.dress_renamed(rest));
    let shown = String::from_utf8(shown).unwrap();
    ((shown, None, Some(ending)), events.usage())
}

fn cut_anywhere(stream: String) -> impl Strategy<Value = (String, Vec<usize>)> {
    let cuts = prop::collection::btree_set(0..=stream.len(), 0..6);
    cuts.prop_map(move |cuts| (stream.clone(), cuts.into_iter().collect()))
}

proptest! {
    #[test]
    fn a_whole_stream_is_shown_whole_however_it_is_cut(
        (stream, cuts) in cut_anywhere([ONE, ": keep-alive\n\n", ONE, STOP, DONE].concat()),
    ) {
        prop_assert_eq!(shown(&stream, &cuts), (stream, None, Some(Ending::Whole)));
    }

    #[test]
    fn a_count_that_only_the_gateway_asked_for_is_hidden_however_it_is_cut(
        (stream, cuts) in cut_anywhere([ONE, ONE, STOP, USAGE, DONE].concat()),
    ) {
        let counted = Usage { prompt: Some(4), completion: Some(2), cached: None };
        let (shown, usage) = watched(&stream, &cuts, UsageAsked::ByGateway);
        prop_assert_eq!(shown, ([ONE, ONE, STOP, DONE].concat(), None, Some(Ending::Whole)));
        prop_assert_eq!(usage, Some(counted));
        let (shown, usage) = watched(&stream, &cuts, UsageAsked::AsItComes);
        prop_assert_eq!(shown, (stream, None, Some(Ending::Whole)));
        prop_assert_eq!(usage, Some(counted));
    }

    #[test]
    fn a_count_in_every_event_is_known_when_the_stream_breaks_off(
        (stream, cuts) in cut_anywhere(
            (1..4).map(|n| format!(
                "data: {{\"choices\":[{{\"delta\":{{\"content\":\"a\"}}}}],\"usage\":{{\"completion_tokens\":{n}}}}}\n\n"
            )).collect::<String>()
        ),
    ) {
        let (_, usage) = watched(&stream, &cuts, UsageAsked::InEveryEvent);
        prop_assert_eq!(usage.and_then(|usage| usage.completion), Some(3));
    }

    #[test]
    fn an_error_event_is_the_last_that_is_shown(
        (stream, cuts) in cut_anywhere([ONE, ERROR, DONE].concat()),
    ) {
        let failed = Failed::Error { by_client: false };
        prop_assert_eq!(shown(&stream, &cuts), ([ONE, ERROR].concat(), Some(failed), None));
    }

    #[test]
    fn an_abort_is_not_shown(
        (stream, cuts) in cut_anywhere([ONE, ABORT, DONE].concat()),
    ) {
        prop_assert_eq!(shown(&stream, &cuts), (ONE.to_owned(), Some(Failed::Abort), None));
    }

    #[test]
    fn of_a_stream_that_breaks_off_whole_events_are_shown(
        (stream, cuts) in cut_anywhere([ONE, ONE].concat()),
        broken in 1..STOP.len(),
    ) {
        let broken = [&stream, &STOP[..broken]].concat();
        // One LF short of its end it may still be a line that goes on.
        let expected = (stream, None, Some(Ending::Cut));
        prop_assert_eq!(shown(&broken, &cuts), expected);
    }
}

#[test]
fn a_comment_behind_a_count_is_no_count() {
    let stream = [ONE, STOP, USAGE, ": keep-alive\n\n", DONE].concat();
    let behind = [ONE, STOP, USAGE].concat().len();
    let (shown, _) = watched(&stream, &[behind], UsageAsked::ByGateway);
    let expected = [ONE, STOP, ": keep-alive\n\n", DONE].concat();
    assert_eq!(shown, (expected, None, Some(Ending::Whole)));
}

#[test]
fn what_a_message_says_at_its_start_is_no_count_of_its_answer() {
    let mut events = Events::new(Dialect::Messages, 4096, UsageAsked::AsItComes, None);
    let start =
        r#"{"type":"message_start","message":{"usage":{"input_tokens":7,"output_tokens":0}}}"#;
    let text = r#"{"type":"content_block_delta","delta":{"type":"text_delta","text":"a"}}"#;
    let end = r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":5}}"#;
    for data in [start, text, text] {
        events.take(format!("data: {data}\n\n").into());
    }
    let begun = events.usage().unwrap();
    assert_eq!((begun.prompt, begun.completion), (Some(7), None));
    assert_eq!(events.content(), 2);
    events.take(format!("data: {end}\n\n").into());
    assert_eq!(events.usage().unwrap().completion, Some(5));
}

#[test]
fn an_end_without_its_blank_line_is_shown() {
    let stream = [ONE, STOP, "data: [DONE]"].concat();
    assert_eq!(
        shown(&stream, &[]),
        (stream.clone(), None, Some(Ending::Whole))
    );
}

#[test]
fn what_is_too_long_to_be_read_is_shown_as_it_comes() {
    let mut events = Events::new(Dialect::Chat, 16, UsageAsked::AsItComes, None);
    assert_eq!(events.take("data: 123".into()).shown, "");
    assert_eq!(
        events.take("4567890123".into()).shown,
        "data: 1234567890123"
    );
    assert_eq!(events.take("45".into()).shown, "45");
}

#[test]
fn what_is_too_long_to_be_read_is_not_counted() {
    let mut events = Events::new(Dialect::Chat, 200, UsageAsked::AsItComes, None);
    events.take(ONE.into());
    assert!(!events.is_unread());
    events.take(format!("data: {}\n\n", "x".repeat(200)).into());
    assert!(events.is_unread());
    events.take(USAGE.into());
    assert_eq!((events.counted(), events.content()), (None, 1));
}

fn plan() -> Plan {
    let body = r#"{"messages":[{}],"stream":true}"#;
    let mut scanner = Scanner::new();
    scanner.feed(body.as_bytes());
    let asked = scanner.finish().unwrap();
    let pieces = [Bytes::from_static(body.as_bytes())];
    Plan::of(&asked, Dialect::Chat, &pieces).unwrap()
}

#[test]
fn what_is_there_for_a_stream_besides_is_charged() {
    let memory = Arc::new(BodyMemory::default());
    for (limit, fits) in [(1 << 20, true), (4000, false)] {
        let charge = Charge::new(&memory, None);
        let kept = Continuable::new(Kept::new(&plan(), true), 5000, charge, limit);
        assert_eq!(kept.kept.has_given_up(), !fits);
        assert_eq!(memory.total() >= 5000, fits);
        drop(kept);
        assert_eq!(memory.total(), 0);
    }
}

#[test]
fn without_room_nothing_is_kept_and_ids_stay_hidden() {
    let plan = plan();
    let event = |delta: &str, members: &str| {
        format!(
            "data: {{\"id\":\"c\",\"object\":\"o\",\"created\":1,\"model\":\"m\",\"choices\":[{{\"index\":0,\"delta\":{delta},\"finish_reason\":null}}]{members}}}\n\n"
        )
    };
    let first = |ids| {
        event(
            r#"{"role":"assistant"}"#,
            &format!(",\"prompt_token_ids\":{ids}"),
        )
    };
    for (limit, fits) in [(1 << 20, true), (100, false)] {
        let memory = Arc::new(BodyMemory::default());
        let charge = Charge::new(&memory, None);
        let mut events = Events::new(Dialect::Chat, 4096, UsageAsked::AsItComes, None);
        events.keep(Box::new(Continuable::new(
            Kept::new(&plan, true),
            0,
            charge,
            limit,
        )));
        let passed = events.take(Bytes::from(first("[1,2,3]")));
        assert_eq!(passed.shown, first("null"));
        assert_eq!((events.can_go_on(), memory.total() > 0), (fits, fits));
        // Every token is counted by its id, else every event.
        for _ in 0..4 {
            let token = event(r#"{"content":"a"}"#, "");
            let token = token.replace("null}]", "null,\"token_ids\":[7,8]}]");
            events.take(Bytes::from(token));
        }
        let completion = events.counted().unwrap().completion;
        assert_eq!(completion, fits.then_some(8));
        assert_eq!(events.at_least(), 4);
        drop(events);
        assert_eq!(memory.total(), 0);
    }
}
