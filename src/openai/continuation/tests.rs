use bytes::Bytes;
use proptest::prelude::*;

use super::super::request::{Edit, Peeked, Scanner, apply};
use super::super::{Dialect, Usage};
use super::*;

fn peeked(body: &str) -> Peeked {
    let mut scanner = Scanner::new();
    scanner.feed(body.as_bytes());
    scanner.finish().unwrap()
}

fn plan(body: &str, dialect: Dialect) -> Option<Plan> {
    Plan::of(
        &peeked(body),
        dialect,
        &[Bytes::copy_from_slice(body.as_bytes())],
    )
}

const CHAT: &str = r#"{"model":"m","messages":[{"role":"user","content":"x"}],"stream":true,"max_tokens":10,"stream_options":{"include_usage":true},"temperature":0.5,"logit_bias":{"1":2}}"#;

fn chat_event(text: &str, ids: &str) -> String {
    event(
        &format!(r#"{{"content":{}}}"#, serde_json::json!(text)),
        "null",
        ids,
    )
}

fn event(delta: &str, finish: &str, ids: &str) -> String {
    format!(
        "data: {{\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":7,\"model\":\"m\",\"choices\":[{{\"index\":0,\"delta\":{delta},\"logprobs\":null,\"finish_reason\":{finish},\"token_ids\":{ids}}}]}}\n\n"
    )
}

fn role(prompt_ids: &str) -> String {
    event(r#"{"role":"assistant","content":""}"#, "null", "null").replace(
        "}\n\n",
        &format!(",\"prompt_token_ids\":{prompt_ids}}}\n\n"),
    )
}

fn completion(text: &str, finish: &str, ids: &str) -> String {
    format!(
        "data: {{\"id\":\"other\",\"object\":\"text_completion\",\"created\":9,\"model\":\"m2\",\"choices\":[{{\"index\":0,\"text\":{},\"logprobs\":null,\"finish_reason\":{finish},\"stop_reason\":null,\"prompt_token_ids\":null,\"token_ids\":{ids}}}]}}\n\n",
        serde_json::json!(text)
    )
}

fn take(kept: &mut Kept, events: &str) -> String {
    let shown = kept.take(&Bytes::copy_from_slice(events.as_bytes()));
    String::from_utf8(shown.to_vec()).unwrap()
}

fn begun(body: &str, events: &[String]) -> (Plan, Kept) {
    let plan = plan(body, Dialect::Chat).unwrap();
    let mut kept = Kept::new(&plan, true);
    take(&mut kept, &role("[1,2,3]"));
    for event in events {
        take(&mut kept, event);
    }
    (plan, kept)
}

#[test]
fn text_behind_the_seam_takes_memory_too() {
    let text = "流".repeat(200);
    let two = chat_event(&text, "[7,8]");
    let (_, one) = begun(CHAT, std::slice::from_ref(&two));
    let (_, many) = begun(CHAT, &vec![two; 20]);
    assert_eq!(many.produced(), 0, "the seam has not moved");
    let more = many.memory() - one.memory();
    assert!(more >= 19 * text.len(), "{more}");
}

#[test]
fn a_stream_carries_little_whatever_its_request_says() {
    let with = |member: &str| CHAT.replace(r#""logit_bias":{"1":2}"#, member);
    let long = "x".repeat(64 * 1024);
    let told = plan(&with(r#""user":"u""#), Dialect::Chat).unwrap();
    let untold = plan(&with(&format!(r#""user":"{long}""#)), Dialect::Chat).unwrap();
    assert!(told.by_ids && untold.by_ids);
    assert_eq!(told.memory() - untold.memory(), r#","user":"u""#.len());
    let bias = with(&format!(
        r#""logit_bias":{{"1":2{}}}"#,
        " ".repeat(64 * 1024)
    ));
    let bias_plan = plan(&bias, Dialect::Chat).unwrap();
    assert!(!Plan::allows_ids(&peeked(&bias), Dialect::Chat));
    assert_eq!(
        (bias_plan.by_ids, bias_plan.by_text, bias_plan.memory()),
        (false, true, 0)
    );
    let stops = with(&format!(r#""stop":["{long}"]"#));
    assert!(!Plan::allows_ids(&peeked(&stops), Dialect::Chat));
    assert!(plan(&stops, Dialect::Chat).is_none());
}

#[test]
fn whose_ids_were_not_asked_for_goes_on_by_text_or_not_at_all() {
    let by_text = plan(CHAT, Dialect::Chat).unwrap().without_ids().unwrap();
    assert_eq!((by_text.by_ids, by_text.memory()), (false, 0));
    let stops = CHAT.replace("\"stream\"", "\"stop\":\"abc\",\"stream\"");
    assert!(plan(&stops, Dialect::Chat).unwrap().without_ids().is_none());
}

#[test]
fn without_ids_nobody_knows_how_many_tokens_there_are() {
    let stops = CHAT.replace("\"stream\"", "\"stop\":\"abc\",\"stream\"");
    let thought = event(r#"{"reasoning":"hm"}"#, "null", "[7]");
    let (_, kept) = begun(&stops, &[thought, chat_event("a", "[8]")]);
    assert!(kept.is_by_ids() && kept.has_given_up());
    let prompt_alone = Usage {
        prompt: Some(3),
        ..Usage::default()
    };
    assert_eq!(kept.usage(), prompt_alone);
    // Those before are known, and those that follow have an event each.
    let (_, mut kept) = begun(CHAT, &[chat_event("a", "[7]"), chat_event("bc", "[8,9]")]);
    kept.give_up();
    assert_eq!((kept.usage(), kept.at_least()), (prompt_alone, 3));
    let (_, mut kept) = begun(CHAT, &[chat_event("a", "[7]"), chat_event("b", "[8]")]);
    kept.cross();
    take(&mut kept, &completion("c", "null", "[9]"));
    kept.give_up();
    for text in ["d", "", "e"] {
        take(&mut kept, &completion(text, "null", "[9]"));
    }
    assert_eq!((kept.usage(), kept.at_least()), (prompt_alone, 5));
}

#[test]
fn what_is_given_up_is_shown_and_not_kept() {
    let (_, mut kept) = begun(CHAT, &[chat_event("a", "[7]"), chat_event("bc", "[8,9]")]);
    kept.cross();
    kept.give_up();
    let before = kept.memory();
    // What the client has already is skipped all the same.
    assert_eq!(take(&mut kept, &completion("b", "null", "[8]")), "");
    let text = "x".repeat(1000);
    for _ in 0..50 {
        let shown = take(&mut kept, &completion(&format!("c{text}"), "null", "[9]"));
        assert!(shown.contains(&text));
    }
    assert!(kept.memory() < before + 1000, "{}", kept.memory());
    assert_eq!(kept.text_to_tokenize(), None);
}

#[test]
fn ids_are_taken_out_and_nothing_else() {
    let mut kept = Kept::new(&plan(CHAT, Dialect::Chat).unwrap(), true);
    assert_eq!(take(&mut kept, &role("[1,2,3]")), role("null"));
    assert_eq!(
        take(&mut kept, &chat_event("a", "[7]")),
        chat_event("a", "null")
    );
    // Without ids it would have no event.
    assert_eq!(take(&mut kept, &event("{}", "null", "[8]")), "");
    assert_eq!(take(&mut kept, ": keep-alive\n\n"), ": keep-alive\n\n");
    let end = |ids| event("{}", "\"stop\"", ids);
    assert!(kept.can_go_on() && kept.is_by_ids());
    assert_eq!(take(&mut kept, &end("[9]")), end("null"));
    assert!(!kept.can_go_on() && kept.is_finished());
    let usage = Usage {
        prompt: Some(3),
        completion: Some(3),
        cached: None,
    };
    assert_eq!(kept.usage(), usage);
    let ending = String::from_utf8(kept.ending().to_vec()).unwrap();
    assert!(
        ending.contains(r#""usage":{"prompt_tokens":3,"total_tokens":6,"completion_tokens":3}"#)
    );
    assert!(ending.ends_with("data: [DONE]\n\n"));
    assert_eq!(kept.ending(), "");
}

#[test]
fn the_next_engine_is_told_the_ids_and_what_is_left() {
    let events = [chat_event("a", "[7]"), event("{}", "null", "[8]")];
    let (plan, kept) = begun(CHAT, &events);
    assert_eq!(plan.room(&kept, None), Some(9));
    assert_eq!(plan.room(&kept, Some(6)), Some(2));
    let body = plan.by_ids(&kept, Some("m\"2"), 9);
    assert_eq!(
        body,
        r#"{"model":"m\"2","prompt":[1,2,3,7],"max_tokens":9,"stream":true,"stream_options":{"include_usage":true},"return_token_ids":true,"temperature":0.5,"logit_bias":{"1":2}}"#
    );
    let unbounded = CHAT.replace(r#""max_tokens":10,"#, r#""min_tokens":3,"#);
    let (plan, kept) = begun(&unbounded, &events);
    assert_eq!(
        (plan.room(&kept, None), plan.room(&kept, Some(10))),
        (None, Some(6))
    );
    let body = plan.by_ids(&kept, None, 6);
    assert!(body.starts_with(br#"{"prompt":[1,2,3,7],"max_tokens":6,"min_tokens":2,"#));
}

#[test]
fn what_another_engine_says_has_the_form_of_the_first() {
    let (_, mut kept) = begun(CHAT, &[chat_event("a", "[7]"), chat_event("bc", "[8,9]")]);
    assert_eq!(kept.produced(), 1);
    kept.cross();
    // What the client has already comes once more.
    assert_eq!(take(&mut kept, &completion("b", "null", "[8]")), "");
    let next = take(&mut kept, &completion("cd\n", "null", "[9]"));
    assert!(next.starts_with(
        r#"data: {"id":"c","object":"chat.completion.chunk","created":7,"model":"m","choices":[{"index":0,"delta":{"content":"d\n"},"logprobs":null,"finish_reason":null}]}"#
    ));
    let end = take(&mut kept, &completion("", "\"stop\"", "[0]"));
    assert!(
        end.contains(r#""delta":{},"logprobs":null,"finish_reason":"stop","stop_reason":null"#)
    );
    let usage = "data: {\"id\":\"x\",\"choices\":[],\"usage\":{\"prompt_tokens\":4,\"total_tokens\":7,\"completion_tokens\":3}}\n\n";
    let usage = take(&mut kept, usage);
    assert!(
        usage.contains(r#""usage":{"prompt_tokens":3,"total_tokens":7,"completion_tokens":4}"#)
    );
    assert_eq!(take(&mut kept, "data: [DONE]\n\n"), "data: [DONE]\n\n");
    assert_eq!(kept.ending(), "");
}

#[test]
fn another_answer_is_not_shown() {
    let (_, mut kept) = begun(CHAT, &[chat_event("a", "[7]"), chat_event("bc", "[8,9]")]);
    kept.cross();
    assert_eq!(take(&mut kept, &completion("x", "null", "[8]")), "");
    assert!(kept.has_diverged() && !kept.can_go_on());
    let usage = "data: {\"id\":\"x\",\"choices\":[],\"usage\":{\"prompt_tokens\":4,\"total_tokens\":7,\"completion_tokens\":3}}\n\n";
    for behind in [
        completion("y", "null", "[8]").as_str(),
        ": keep-alive\n\n",
        usage,
        "data: [DONE]\n\n",
    ] {
        assert_eq!(take(&mut kept, behind), "");
    }
    // Its end is that of nothing the client has.
    assert!(kept.ending().ends_with(b"data: [DONE]\n\n"));
}

#[test]
fn the_end_of_another_answer_is_none_of_this_one() {
    let (_, mut kept) = begun(CHAT, &[chat_event("a", "[7]"), chat_event("bc", "[8,9]")]);
    kept.cross();
    assert_eq!(take(&mut kept, &completion("x", "\"stop\"", "[8]")), "");
    assert!(kept.has_diverged() && !kept.is_finished());
}

#[test]
fn reasoning_ends_at_its_marker_wherever_that_is_cut() {
    let thought = event(r#"{"reasoning":"hm"}"#, "null", "[7]");
    let rest = " so</think>\n42";
    for cut in 0..=rest.len() {
        let (_, mut kept) = begun(CHAT, std::slice::from_ref(&thought));
        kept.cross();
        let shown = take(&mut kept, &completion(&rest[..cut], "null", "[8]"))
            + &take(&mut kept, &completion(&rest[cut..], "\"stop\"", "[9]"));
        let all = |name: &str| -> String {
            let key = format!("\"{name}\":\"");
            let values = shown.split(&key).skip(1);
            values.filter_map(|rest| rest.split('"').next()).collect()
        };
        assert_eq!(
            (all("reasoning").as_str(), all("content").as_str()),
            (" so", "\\n42"),
            "{shown}"
        );
    }
}

#[test]
fn reasoning_may_end_with_a_token_without_text() {
    let thought = event(r#"{"reasoning":"hm"}"#, "null", "[7]");
    let (_, mut kept) = begun(CHAT, std::slice::from_ref(&thought));
    assert!(kept.needs_end_of_reasoning());
    kept.reasoning_ends_with(99);
    kept.cross();
    let shown = [(" so", "[8]"), ("", "[99]"), ("42", "[9]")]
        .map(|(text, id)| take(&mut kept, &completion(text, "null", id)))
        .concat();
    assert!(shown.contains(r#"{"reasoning":" so"}"#) && shown.contains(r#"{"content":"42"}"#));
    // Also of a stream that is given up by then.
    let (_, mut kept) = begun(CHAT, std::slice::from_ref(&thought));
    kept.reasoning_ends_with(99);
    kept.cross();
    kept.give_up();
    take(&mut kept, &completion("", "null", "[99]"));
    let shown = take(&mut kept, &completion("42", "null", "[9]"));
    assert!(shown.contains(r#"{"content":"42"}"#), "{shown}");
    // Together with other tokens nobody can tell where it stood.
    let (_, mut kept) = begun(CHAT, &[thought]);
    kept.reasoning_ends_with(99);
    kept.cross();
    assert_eq!(take(&mut kept, &completion("a42", "null", "[8,99,9]")), "");
    assert!(kept.has_diverged());
}

#[test]
fn a_call_of_a_tool_ends_what_can_be_gone_on_with() {
    let (_, mut kept) = begun(CHAT, &[chat_event("a", "[7]")]);
    let call = event(r#"{"tool_calls":[{"index":0}]}"#, "null", "[8]");
    assert_eq!(take(&mut kept, &call), call.replace("[8]", "null"));
    assert!(!kept.can_go_on());
    // Ids stay hidden.
    assert_eq!(
        take(&mut kept, &chat_event("b", "[9]")),
        chat_event("b", "null")
    );
}

#[test]
fn by_text_the_request_gets_the_answer_so_far() {
    let plan = plan(CHAT, Dialect::Chat).unwrap();
    let mut kept = Kept::new(&plan, false);
    for event in [
        role("null"),
        chat_event("a\"", "null"),
        chat_event("b", "null"),
    ] {
        assert_eq!(take(&mut kept, &event), event);
    }
    assert!(kept.can_go_on() && !kept.is_by_ids());
    let changed = |edits: Vec<Edit>, body: &str| {
        let (pieces, _) = apply(&[Bytes::copy_from_slice(body.as_bytes())], &edits);
        String::from_utf8(pieces.concat()).unwrap()
    };
    let body = changed(plan.by_text(&peeked(CHAT), &kept).unwrap(), CHAT);
    let expected = CHAT
        .replace(r#""x"}]"#, r#""x"},{"role":"assistant","content":"a\"b"}]"#)
        .replace(
            "2}}",
            r#"2},"continue_final_message":true,"add_generation_prompt":false,"max_tokens":8}"#,
        );
    assert_eq!(body, expected);
    let asked = r#"{"prompt":"x\n","stream":true}"#;
    let plan = super::tests::plan(asked, Dialect::Completions).unwrap();
    let mut kept = Kept::new(&plan, false);
    take(&mut kept, &completion("a\"", "null", "null"));
    let body = changed(plan.by_text(&peeked(asked), &kept).unwrap(), asked);
    assert_eq!(body, r#"{"prompt":"x\na\"","stream":true,"max_tokens":15}"#);
}

#[test]
fn what_may_go_on_and_how() {
    let of = |body: &str, dialect| plan(body, dialect).map(|plan| (plan.by_ids, plan.by_text));
    let chat = |members: &str| {
        of(
            &format!(r#"{{"stream":true,"messages":[{{}}]{members}}}"#),
            Dialect::Chat,
        )
    };
    assert_eq!(chat(""), Some((true, true)));
    assert_eq!(chat(r#","stop":["a","bc"]"#), Some((true, false)));
    assert_eq!(chat(r#","stop":[]"#), Some((true, true)));
    assert_eq!(chat(r#","tools":[{}]"#), Some((false, true)));
    assert_eq!(chat(r#","tools":[{}],"stop":"a""#), None);
    assert_eq!(chat(r#","stop":7"#), None);
    assert_eq!(chat(r#","n":2"#), None);
    assert_eq!(chat(r#","prompt":"x""#), None);
    assert_eq!(of(r#"{"messages":[{}]}"#, Dialect::Chat), None);
    assert_eq!(of(r#"{"stream":true,"messages":[]}"#, Dialect::Chat), None);
    let prompt = r#"{"stream":true,"prompt":"x"}"#;
    assert_eq!(of(prompt, Dialect::Completions), Some((true, true)));
    assert_eq!(of(prompt, Dialect::Other), None);
}

proptest! {
    #[test]
    fn what_is_compared_comes_to_the_same_as_what_is_read(
        tokens in prop::collection::vec(
            (
                prop_oneof!["[a-z\"\\\\ ]{0,6}", Just("é🚀".to_owned()), Just(String::new())],
                prop::collection::vec(0u32..300_000, 1..3),
            ),
            1..20,
        ),
        groups in prop::collection::vec(1usize..4, 20),
        with_ids in any::<bool>(),
        stops in any::<bool>(),
    ) {
        let body = match stops && with_ids {
            true => CHAT.replace("\"stream\"", "\"stop\":\"abc\",\"stream\""),
            false => CHAT.to_owned(),
        };
        let plan = plan(&body, Dialect::Chat).unwrap();
        let (mut read, mut compared) = (Kept::new(&plan, with_ids), Kept::new(&plan, with_ids));
        let first = role(if with_ids { "[1,2]" } else { "null" });
        prop_assert_eq!(take(&mut read, &first), take(&mut compared, &first));
        let mut tokens = tokens.as_slice();
        for group in groups {
            let (now, later) = tokens.split_at(group.min(tokens.len()));
            tokens = later;
            let events = |(text, ids): &(String, Vec<u32>)| {
                let ids = format!("{ids:?}").replace(' ', "");
                chat_event(text, if with_ids { &ids } else { "null" })
            };
            let piece: String = now.iter().map(events).collect();
            let expected = take(&mut read, &piece);
            let mut out = Vec::new();
            let got = match compared.take_alike(piece.as_bytes(), &mut out) {
                Alike::No => take(&mut compared, &piece),
                Alike::AsTheyAre(_) => piece,
                Alike::Rewritten(_) => String::from_utf8(out).unwrap(),
            };
            prop_assert_eq!(got, expected);
            prop_assert_eq!(read.ids(), compared.ids());
            prop_assert_eq!(read.text(), compared.text());
            prop_assert_eq!(read.produced(), compared.produced());
            prop_assert_eq!(read.usage(), compared.usage());
        }
    }

    #[test]
    fn no_events_break_a_promise(
        kinds in prop::collection::vec((0usize..9, "[a-z<>/\"\\\\ ]{0,4}", 0u32..300, 1usize..3), 1..16),
        then in 0usize..16,
        with_ids in any::<bool>(),
    ) {
        let any = |(kind, text, id, count): &(usize, String, u32, usize)| {
            let ids = format!("{:?}", vec![*id; *count]).replace(' ', "");
            match kind {
                0 => role("[1,2]"),
                1 | 2 => chat_event(text, &ids),
                3 => event(&format!(r#"{{"reasoning":{}}}"#, serde_json::json!(text)), "null", &ids),
                4 | 5 => completion(text, "null", &ids),
                6 => completion(text, "\"stop\"", &ids),
                7 => "data: [DONE]\n\n".to_owned(),
                _ => format!(": {}\r\n\r\n", text.len()),
            }
        };
        let events: Vec<String> = kinds.iter().map(any).collect();
        let (first, then) = events.split_at(then.min(events.len()));
        let first = role("[1,2]") + &first.concat();
        let broken = splices::broken(first.as_bytes(), then.concat().as_bytes(), with_ids);
        prop_assert_eq!(broken, None);
    }
}

#[test]
fn ids_of_others_are_forgotten_where_nobody_went_on_from_them() {
    let events = [
        chat_event("a", "[7]"),
        chat_event("bc", "[8,9]"),
        chat_event("d", "[10]"),
        chat_event("ef", "[11,12]"),
    ];
    for tried_behind in 0..=events.len() {
        let (plan, mut kept) = begun(CHAT, &events[..tried_behind]);
        let mark = kept.mark();
        if kept.text_to_tokenize().is_some() {
            kept.tokenized(&[20, 21, 22]);
        }
        kept.back_to(mark);
        for event in &events[tried_behind..] {
            take(&mut kept, event);
        }
        let (_, untried) = begun(CHAT, &events);
        let body = |kept: &Kept| plan.by_ids(kept, None, 5);
        assert_eq!(body(&kept), body(&untried), "{tried_behind}");
        assert_eq!(kept.usage(), untried.usage(), "{tried_behind}");
        assert_eq!(kept.text_to_tokenize(), untried.text_to_tokenize());
        assert_eq!(kept.text_to_tokenize(), Some("ef"));
    }
}
