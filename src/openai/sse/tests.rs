use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::json;

use super::streams::{LIMIT, Whole, broken};
use super::*;

fn watch<'a>(dialect: Dialect, pieces: impl IntoIterator<Item = &'a [u8]>) -> (Whole, Ending) {
    streams::watch(SseScanner::new(dialect, LIMIT), pieces)
}

fn one(dialect: Dialect, stream: &str) -> (Whole, Ending) {
    watch(dialect, [stream.as_bytes()])
}

fn chat(delta: &serde_json::Value, finish: Option<&str>) -> String {
    choice(0, delta, finish)
}

fn choice(index: u32, delta: &serde_json::Value, finish: Option<&str>) -> String {
    let choices = json!([{ "index": index, "delta": delta, "logprobs": null, "finish_reason": finish, "token_ids": null }]);
    let event =
        json!({ "id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": choices });
    format!("data: {event}\n\n")
}

fn role() -> String {
    chat(&json!({ "role": "assistant", "content": "" }), None)
}

fn text(content: &str) -> String {
    chat(&json!({ "content": content }), None)
}

fn finish(reason: &str) -> String {
    chat(&json!({}), Some(reason))
}

const DONE: &str = "data: [DONE]\n\n";
const FULL: &str = "data: {\"error\": {\"message\": \"The engine is currently busy and cannot accept new requests. \
                    Please try again later or on a different instance.\", \"type\": \"Service Unavailable\", \
                    \"param\": null, \"code\": 503}}\n\n";
const DEAD: &str = "data: {\"error\": {\"message\": \"EngineCore encountered an issue. See stack trace (above) for \
                    the root cause.\", \"type\": \"InternalServerError\", \"param\": null, \"code\": 500}}\n\n";

#[test]
fn a_chat_stream_starts_with_its_first_content_and_ends_with_its_finish() {
    let mut scanner = SseScanner::new(Dialect::Chat, LIMIT);
    let seen = scanner.feed(role().as_bytes());
    assert!(!seen.started && seen.data_events == 1 && seen.content_events == 0);
    let seen = scanner.feed(b": keep-alive\n\n");
    assert_eq!(seen, Seen::default());
    let seen = scanner.feed(text("The").as_bytes());
    assert!(seen.started && !seen.ended && seen.content_events == 1);
    let seen = scanner.feed(format!("{}{}", text(" gateway"), finish("stop")).as_bytes());
    assert!(seen.ended && !seen.done && seen.content_events == 2);
    let seen = scanner.feed(b"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":4}}\n\n");
    assert!(seen.ended && seen.data_events == 1);
    let seen = scanner.feed(DONE.as_bytes());
    assert!(
        seen.done && seen.ended && seen.error.is_none() && seen.incomplete == 0 && seen.faulty == 0
    );
    assert_eq!(scanner.finish(), Ending::Whole);
}

#[test]
fn what_starts_a_chat_stream() {
    for delta in [
        json!({ "content": "x" }),
        json!({ "content": " " }),
        json!({ "content": [{ "type": "text", "text": "x" }] }),
        json!({ "role": "assistant", "content": "x" }),
        json!({ "content": null, "reasoning": "x" }),
        json!({ "content": "", "reasoning_content": "x" }),
        json!({ "tool_calls": [{ "index": 0, "function": { "name": "f", "arguments": "" } }] }),
        json!({ "refusal": "no" }),
    ] {
        assert!(one(Dialect::Chat, &chat(&delta, None)).0.started, "{delta}");
    }
    for stream in [
        finish("stop"),
        DONE.into(),
        "data: not json\n\n".into(),
        "data: 7\n\n".into(),
    ] {
        assert!(one(Dialect::Chat, &stream).0.started, "{stream}");
    }
}

#[test]
fn what_does_not_start_a_chat_stream() {
    for delta in [
        json!({}),
        json!(null),
        json!({ "role": "assistant" }),
        json!({ "role": "assistant", "content": null, "reasoning": null, "tool_calls": [] }),
        json!({ "content": "", "reasoning_content": "" }),
    ] {
        assert!(
            !one(Dialect::Chat, &chat(&delta, None)).0.started,
            "{delta}"
        );
    }
    for stream in [
        ": keep-alive\n\n",
        "\n\n\n",
        "event: ping\ndata: {}\n\n",
        "data:\n\n",
        "data: \n\n",
        "id: 3\nretry: 10\n\n",
        "data: {\"choices\":[]}\n\n",
        "data: {\"choices\":null}\n\n",
        "data: {}\n\n",
        "data: {\"x\":1}",
        FULL,
        "",
        "\u{feff}",
        "data: [DONE]\n",
    ] {
        assert!(!one(Dialect::Chat, stream).0.started, "{stream}");
    }
}

#[test]
fn completions_start_with_text() {
    let event = |text: &str, finish: &str| {
        format!(
            "data: {{\"object\":\"text_completion\",\"choices\":[{{\"index\":0,\"text\":\"{text}\",\"finish_reason\":{finish}}}]}}\n\n"
        )
    };
    assert!(!one(Dialect::Completions, &event("", "null")).0.started);
    assert!(one(Dialect::Completions, &event("a", "null")).0.started);
    let (whole, ending) = one(
        Dialect::Completions,
        &(event("a", "null") + &event("b", "\"length\"")),
    );
    assert!(whole.ended && !whole.done);
    assert_eq!(ending, Ending::Whole);
}

#[test]
fn a_first_event_that_is_an_error_does_not_start_the_stream_nor_does_the_done_behind_it() {
    let (whole, ending) = one(Dialect::Chat, &format!("{FULL}{DONE}"));
    let error = whole.error.unwrap();
    assert_eq!((error.status, error.overloaded), (Some(503), true));
    assert!(
        error
            .body
            .starts_with(b"{\"error\": {\"message\": \"The engine")
    );
    assert!(!whole.started && !whole.ended && whole.done && whole.data == 2 && whole.content == 0);
    assert_eq!(ending, Ending::Cut);
}

#[test]
fn every_shape_of_error_is_known() {
    for (event, status, overloaded) in [
        (DEAD.to_owned(), Some(500), false),
        ("data: {\"error\":{\"message\":\"m\",\"code\":\"429\"}}\n\n".into(), Some(429), true),
        ("data: {\"error\":\"Unauthorized\"}\n\n".into(), None, false),
        ("data: {\"error\":{\"message\":\"The request queue is full.\"}}\n\n".into(), None, true),
        ("data: {\"object\":\"error\",\"message\":\"m\",\"type\":\"BadRequest\",\"param\":null,\"code\":400}\n\n".into(), Some(400), false),
        ("data: {\"error\":{\"object\":\"error\",\"message\":\"m\",\"type\":\"x\",\"code\":503}}\n\n".into(), Some(503), true),
        ("event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"m\"}}\n\n".into(), Some(529), true),
        ("event: error\ndata: {\"message\":\"m\"}\n\n".into(), None, false),
        ("event: error\ndata: broken\n\n".into(), None, false),
        ("data: {\"error\":{\"type\":\"server_error\",\"code\":\"upstream_failed\"}}\n\n".into(), Some(500), false),
        ("data: {\"choices\":[],\"error\":{\"code\":502}}\n\n".into(), Some(502), false),
        ("data: {\"error\":\ndata: {\"code\":502}}\n\n".into(), Some(502), false),
        ("data: {\"error\":{\"code\":200}}\n\n".into(), None, false),
    ] {
        for dialect in [Dialect::Chat, Dialect::Completions, Dialect::Messages, Dialect::Responses, Dialect::Other] {
            for before in ["", &text("x")] {
                let (whole, ending) = one(dialect, &format!("{before}{event}"));
                let error = whole.error.expect(&event);
                assert_eq!((error.status, error.overloaded), (status, overloaded), "{event}");
                assert!(serde_json::from_slice::<serde_json::Value>(&error.body).unwrap().is_object());
                assert_eq!(ending, Ending::Cut);
            }
        }
    }
}

#[test]
fn what_only_mentions_errors_is_none() {
    for content in [
        "error",
        "\"error\"",
        "{\"error\":{\"code\":500}}",
        "\\\"error\\\":",
        "\"object\":\"error\"",
    ] {
        let stream = format!("{}{}{}", text("x"), text(content), text(content));
        let (whole, _) = one(Dialect::Chat, &stream);
        assert!(whole.error.is_none() && whole.content == 3, "{content}");
        assert!(
            one(Dialect::Chat, &text(content)).0.error.is_none(),
            "{content}"
        );
    }
    for event in [
        "{\"error\":null,\"choices\":[]}",
        "{\"error\":false}",
        "{\"error\":{}}",
        "{\"a\":{\"error\":{\"code\":500}}}",
    ] {
        assert!(
            one(Dialect::Chat, &format!("data: {event}\n\n"))
                .0
                .error
                .is_none(),
            "{event}"
        );
    }
}

#[test]
fn a_text_that_reads_like_an_end_or_an_error_is_content_behind_others_like_it() {
    let texts = ["a", "error", "finish_reason", "[DONE]", "", "stop", "b"];
    let stream: String = texts.map(text).concat();
    let (whole, ending) = one(Dialect::Chat, &stream);
    assert_eq!((whole.content, whole.data), (7, 7));
    assert!(whole.error.is_none() && !whole.ended && !whole.aborted);
    assert_eq!(ending, Ending::Cut);
    for (end, is_whole) in [
        (finish("stop"), true),
        (finish("abort"), false),
        (DEAD.into(), false),
    ] {
        let (whole, _) = one(Dialect::Chat, &format!("{stream}{end}"));
        assert_eq!(whole.ended, is_whole);
        assert_eq!(whole.aborted || whole.error.is_some(), !is_whole);
    }
    // A choice that has finished goes by more than its last event.
    let second = |content| choice(1, &json!({ "content": content }), None);
    let choices = [second("a"), second("b"), finish("stop"), second("c")].concat();
    assert_eq!(one(Dialect::Chat, &choices).0.content, 4);
}

#[test]
fn an_abort_is_neither_an_end_nor_a_start() {
    for reason in ["abort", "error"] {
        let abort = chat(&json!({ "content": "" }), Some(reason));
        let (whole, ending) = one(Dialect::Chat, &format!("{abort}{DONE}"));
        assert!(whole.aborted && !whole.started && !whole.ended && whole.done);
        assert_eq!(ending, Ending::Cut);
        let (whole, ending) = one(Dialect::Chat, &format!("{}{abort}{DONE}", text("x")));
        assert!(whole.aborted && whole.started && !whole.ended);
        assert_eq!(ending, Ending::Cut);
    }
}

#[test]
fn the_bytes_from_a_fault_on_are_counted_back_over_pieces() {
    let mut scanner = SseScanner::new(Dialect::Chat, LIMIT);
    let (head, tail) = DEAD.split_at(30);
    assert_eq!(
        scanner
            .feed(format!("{}{head}", text("x")).as_bytes())
            .incomplete,
        30
    );
    let seen = scanner.feed(format!("{tail}{DONE}").as_bytes());
    assert_eq!(seen.faulty, DEAD.len() + DONE.len());
    assert_eq!(scanner.feed(text("x").as_bytes()).faulty, 0);
}

#[test]
fn an_answer_of_several_choices_ends_with_the_last_of_them() {
    let role = |index| choice(index, &json!({ "role": "assistant", "content": "" }), None);
    let text = |index| choice(index, &json!({ "content": "x" }), None);
    let end = |index| choice(index, &json!({}), Some("stop"));
    let both = format!("{}{}{}{}", role(0), role(1), text(0), end(0));
    assert!(!one(Dialect::Chat, &both).0.ended);
    assert_eq!(one(Dialect::Chat, &both).1, Ending::Cut);
    assert!(
        one(Dialect::Chat, &(both.clone() + &text(1) + &end(1)))
            .0
            .ended
    );
    // A second choice that shows up only after the first has finished.
    let late = format!("{}{}{}", text(0), end(0), text(1));
    assert!(!one(Dialect::Chat, &late).0.ended);
    assert!(one(Dialect::Chat, &(late + &end(1))).0.ended);
}

#[test]
fn choices_that_were_asked_for_are_missed() {
    let text = |index| choice(index, &json!({ "content": "x" }), None);
    let end = |index| choice(index, &json!({}), Some("stop"));
    let first = format!("{}{}", text(0), end(0));
    let both = format!("{first}{}{}", text(1), end(1));
    let ending = |expected, stream: &str| {
        let mut scanner = SseScanner::new(Dialect::Chat, LIMIT);
        scanner.expect(expected);
        scanner.feed(stream.as_bytes());
        scanner.finish()
    };
    assert_eq!(ending(1, &first), Ending::Whole);
    assert_eq!(ending(2, &first), Ending::Cut);
    assert_eq!(ending(2, &both), Ending::Whole);
    // The engine itself says that it is all.
    assert_eq!(ending(2, &format!("{first}{DONE}")), Ending::Whole);
    let many: String = (0..100).map(|index| text(index) + &end(index)).collect();
    assert_eq!(ending(100, &many), Ending::Whole);
}

#[test]
fn anthropics_events() {
    let start = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"content\":[],\"stop_reason\":null}}\n\n";
    let block = "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n";
    let tool = "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"tool_use\",\"id\":\"t\",\"name\":\"f\",\"input\":{}}}\n\n";
    let empty = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"\"}}\n\n";
    let delta = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"a\"}}\n\n";
    let ping = "event: ping\ndata: {\"type\":\"ping\"}\n\n";
    let usage = "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\",\"stop_sequence\":null},\"usage\":{\"output_tokens\":1}}\n\n";
    let stop = "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
    for named in [true, false] {
        let stream = |events: &[&str]| {
            let stream = events.concat();
            if named {
                stream
            } else {
                stream
                    .lines()
                    .filter(|line| !line.starts_with("event"))
                    .collect::<Vec<_>>()
                    .join("\n")
                    + "\n"
            }
        };
        assert!(
            !one(Dialect::Messages, &stream(&[start, ping, block, empty]))
                .0
                .started
        );
        assert!(
            one(Dialect::Messages, &stream(&[start, block, delta]))
                .0
                .started
        );
        assert!(one(Dialect::Messages, &stream(&[start, tool])).0.started);
        let (whole, ending) = one(
            Dialect::Messages,
            &stream(&[start, block, delta, ping, usage]),
        );
        assert!(whole.ended && !whole.done && whole.content == 2 && whole.data == 5);
        assert_eq!(ending, Ending::Whole);
        assert!(one(Dialect::Messages, &stream(&[start, usage])).0.started);
        let (whole, ending) = one(Dialect::Messages, &stream(&[start, usage, stop]));
        assert!(whole.done && !whole.aborted && ending == Ending::Whole);
        // As vLLM ends a message that it has given up.
        let given_up = usage.replace("\"end_turn\"", "null");
        for events in [
            &[start, block, delta, stop][..],
            &[start, delta, &given_up, stop],
        ] {
            let (whole, ending) = one(Dialect::Messages, &stream(events));
            assert!(whole.aborted && !whole.ended && ending == Ending::Cut);
        }
        assert_eq!(
            one(Dialect::Messages, &stream(&[start, block, delta])).1,
            Ending::Cut
        );
    }
}

#[test]
fn openais_responses() {
    let event =
        |kind: &str, rest: &str| format!("event: {kind}\ndata: {{\"type\":\"{kind}\"{rest}}}\n\n");
    let created = event(
        "response.created",
        ",\"response\":{\"status\":\"in_progress\",\"error\":null}",
    ) + &event("response.in_progress", ",\"response\":{}")
        + &event(
            "response.output_item.added",
            ",\"item\":{\"type\":\"message\",\"content\":[]}",
        )
        + &event(
            "response.content_part.added",
            ",\"part\":{\"type\":\"output_text\",\"text\":\"\"}",
        )
        + &event("response.output_text.delta", ",\"delta\":\"\"");
    let delta = event("response.output_text.delta", ",\"delta\":\"a\"");
    assert!(!one(Dialect::Responses, &created).0.started);
    assert!(
        one(Dialect::Responses, &(created.clone() + &delta))
            .0
            .started
    );
    let call = event(
        "response.output_item.added",
        ",\"item\":{\"type\":\"function_call\",\"name\":\"f\"}",
    );
    assert!(
        one(Dialect::Responses, &(created.clone() + &call))
            .0
            .started
    );
    assert_eq!(
        one(Dialect::Responses, &(created.clone() + &delta)).1,
        Ending::Cut
    );
    for end in ["response.completed", "response.incomplete"] {
        let (whole, ending) = one(
            Dialect::Responses,
            &(created.clone() + &delta + &event(end, ",\"response\":{\"error\":null}")),
        );
        assert!(whole.done && whole.ended && whole.error.is_none());
        assert_eq!(ending, Ending::Whole);
    }
    let failed = event(
        "response.failed",
        ",\"response\":{\"error\":{\"code\":\"server_error\",\"message\":\"m\"}}",
    );
    let (whole, ending) = one(Dialect::Responses, &(created + &failed));
    let error = whole.error.unwrap();
    assert_eq!(error.status, Some(500));
    assert_eq!(
        &error.body[..],
        br#"{"error":{"message":"m","type":"server_error","param":null,"code":"server_error"}}"#
    );
    assert!(whole.done && !whole.ended && !whole.started);
    assert_eq!(ending, Ending::Cut);
}

#[test]
fn an_unknown_dialect_starts_with_any_data_and_has_no_known_end() {
    let (whole, ending) = one(
        Dialect::Other,
        "data: {\"text\":\"\",\"meta_info\":{\"finish_reason\":null}}\n\n",
    );
    assert!(whole.started && !whole.ended);
    assert_eq!(ending, Ending::Unknown);
    assert_eq!(
        one(Dialect::Other, "data: {}\n\ndata: [DONE]\n\n").1,
        Ending::Whole
    );
}

#[test]
fn an_event_beyond_the_limit_makes_the_scanner_blind_and_frees_its_memory() {
    let long = text(&"x".repeat(300));
    for pieces in [vec![long.as_bytes()], long.as_bytes().chunks(7).collect()] {
        let mut scanner = SseScanner::new(Dialect::Chat, 256);
        assert!(!scanner.feed(role().as_bytes()).overflow);
        let last = pieces
            .into_iter()
            .map(|piece| scanner.feed(piece))
            .last()
            .unwrap();
        assert!(last.overflow && last.started && last.incomplete == 0);
        assert!(scanner.feed(FULL.as_bytes()).error.is_none());
        assert_eq!(
            (scanner.partial.capacity(), scanner.finish()),
            (0, Ending::Unknown)
        );
    }
}

#[test]
fn an_endless_line_is_bounded() {
    let mut scanner = SseScanner::new(Dialect::Chat, 1000);
    for _ in 0..100 {
        scanner.feed(&[b'x'; 64]);
        assert!(scanner.partial.capacity() <= 2048);
    }
    assert!(scanner.feed(b"x").overflow);
}

fn event() -> impl Strategy<Value = String> {
    let block = "event: content_block_delta\ndata: {\"delta\":{\"text\":\"a\"}}\n\n";
    let failed = "event: response.failed\ndata: {\"response\":{\"error\":{\"code\":500}}}\n\n";
    prop_oneof![
        ".{0,12}".prop_map(|content| text(&content)),
        Just(role()),
        Just(finish("stop")),
        Just(finish("abort")),
        prop::sample::select(vec![
            DONE,
            FULL,
            DEAD,
            ": keep-alive\n\n",
            "data:x\n\n",
            "data\n\n",
            "\n",
            "id: 1\ndata: 1\n\n",
            block,
            failed,
            "data: {\"error\":\ndata: {\"code\":400}}\n\n",
            "event: ping\ndata: {}\n\n",
            "event: message_stop\ndata: {}\n\n",
            ": a comment\nevent: x\ndata: {}\n\n",
            "event: error\ndata: {}\n\n",
            "event: error\n\n",
        ])
        .prop_map(str::to_owned),
    ]
}

fn stream() -> impl Strategy<Value = Vec<u8>> {
    let ends = prop::sample::select(vec!["\n", "\r\n", "\r"]);
    let whole = (any::<bool>(), vec((event(), ends), 0..8)).prop_map(|(mark, events)| {
        let mut stream = if mark {
            "\u{feff}".to_owned()
        } else {
            String::new()
        };
        for (event, end) in events {
            stream.push_str(&event.replace('\n', end));
        }
        stream.into_bytes()
    });
    let cut = (whole, 0..40_usize).prop_map(|(mut stream, missing)| {
        stream.truncate(stream.len().saturating_sub(missing / 2));
        stream
    });
    prop_oneof![
        cut,
        "[a-c:\\n\\r ]{0,40}|(data|data:|\\n|\\r|\u{feff}| ){0,12}".prop_map(String::into_bytes)
    ]
}

fn dialect() -> impl Strategy<Value = Dialect> {
    prop::sample::select(vec![
        Dialect::Chat,
        Dialect::Completions,
        Dialect::Messages,
        Dialect::Responses,
        Dialect::Other,
    ])
}

fn cut(stream: &[u8], lengths: &[usize]) -> Vec<Vec<u8>> {
    let mut rest = stream;
    let mut pieces = Vec::new();
    for &length in lengths.iter().cycle().take(stream.len() + 1) {
        let (piece, tail) = rest.split_at(length.min(rest.len()));
        pieces.push(piece.to_vec());
        rest = tail;
    }
    pieces.push(rest.to_vec());
    pieces
}

#[test]
fn an_answer_in_one_piece_that_was_given_up_is_known_by_its_reason_alone() {
    let whole = |text: &str, reason: &str| {
        let choice = json!({ "index": 0, "message": { "content": text }, "finish_reason": reason });
        json!({ "choices": [choice] }).to_string()
    };
    for (text, reason, expected) in [
        ("half", "abort", true),
        ("half", "error", true),
        ("whole", "stop", false),
        ("\"finish_reason\":\"abort\"", "length", false),
        ("abort", "stop", false),
    ] {
        let body = whole(text, reason);
        assert_eq!(gave_up(Dialect::Chat, body.as_bytes()), expected, "{body}");
        assert!(!gave_up(Dialect::Other, body.as_bytes()));
    }
    assert!(!gave_up(Dialect::Completions, b"[\"abort\"]"));
}

proptest! {
    #[test]
    fn what_holds_for_every_stream(dialect in dialect(), reads_each: bool, stream in stream()) {
        prop_assert_eq!(broken(dialect, reads_each, &stream), None);
    }

    #[test]
    fn no_content_passes_for_an_error_or_an_end(
        contents in vec(prop_oneof![
            any::<String>(),
            "(\"|\\\\|error|finish_reason|abort|:|\\{|\\}|\\[DONE\\]|data: |\n|,|stop|null| ){0,14}",
        ], 1..6),
        lengths in vec(1..40_usize, 1..4),
    ) {
        let events: Vec<String> = contents.iter().flat_map(|content| [
            text(content),
            chat(&json!({ "reasoning": content }), None),
            chat(&json!({ "tool_calls": [{ "function": { "arguments": content } }] }), None),
        ]).collect();
        let stream = events.concat();
        let pieces = cut(stream.as_bytes(), &lengths);
        let (whole, ending) = watch(Dialect::Chat, pieces.iter().map(Vec::as_slice));
        prop_assert!(whole.error.is_none() && !whole.ended && !whole.aborted && !whole.done);
        prop_assert_eq!(usize::try_from(whole.data).unwrap(), events.len());
        prop_assert_eq!(ending, Ending::Cut);
        let (whole, ending) = one(Dialect::Chat, &(stream + &finish("stop") + DONE));
        prop_assert!(whole.ended && whole.done && whole.error.is_none());
        prop_assert_eq!(ending, Ending::Whole);
    }

    #[test]
    fn no_bytes_make_it_panic(dialect in dialect(), pieces in vec(vec(any::<u8>(), 0..64), 0..8)) {
        watch(dialect, pieces.iter().map(Vec::as_slice));
    }
}
