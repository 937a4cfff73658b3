use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::Value;

use super::super::bodies::{disagreement, scan};
use super::super::{Edit, apply};

/// A field that is read, with a value that it may have.
fn member_of_good_type() -> impl Strategy<Value = String> {
    let text = prop::sample::select(vec!["\"a\"", "\"\\u00e9\\\"b\"", "\"\"", "null"]);
    let count = prop::sample::select(vec![
        "1",
        "0",
        "-3",
        "16.0",
        "2e1",
        "\"7\"",
        "null",
        "true",
        "99999999999999",
    ]);
    let truth = prop::sample::select(vec!["true", "false", "null", "1", "\"off\""]);
    let options = (
        prop::sample::select(vec!["include_usage", "continuous_usage_stats", "x"]),
        truth.clone(),
        any::<bool>(),
    );
    let options = options.prop_map(|(name, truth, has_two)| {
        let second = if has_two { ", \"y\": [{}]" } else { "" };
        format!("{{ \"{name}\": {truth}{second} }}")
    });
    let options =
        prop_oneof![4 => options, 1 => Just("null".to_owned()), 1 => Just("{ }".to_owned())];
    let params = (
        prop::sample::select(vec!["n", "max_new_tokens", "x"]),
        count.clone(),
    );
    let params = params.prop_map(|(name, count)| format!("{{\"{name}\":{count}}}"));
    let params = prop_oneof![
        params.clone(),
        vec(params, 0..3).prop_map(|list| format!("[{}]", list.join(", "))),
    ];
    let named = |names: &[&'static str]| prop::sample::select(names.to_vec());
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    prop_oneof![
        (
            named(&["model", "\\u006dodel", "user", "previous_response_id"]),
            text
        )
            .prop_map(owned),
        (named(&["stream", "str\\u0065am"]), truth).prop_map(owned),
        (
            named(&[
                "n",
                "best_of",
                "max_tokens",
                "max_completion_tokens",
                "max_output_tokens"
            ]),
            count
        )
            .prop_map(owned),
        options.prop_map(|value| ("stream_options".to_owned(), value)),
        params.prop_map(|value| ("sampling_params".to_owned(), value)),
    ]
    .prop_map(|(name, value)| format!("\"{name}\": {value}"))
}

/// JSON of any shape, written in any way, with the names that matter at every depth.
fn json_text() -> impl Strategy<Value = String> {
    let blank = || "[ \n\r\t]{0,2}";
    let character = prop_oneof![
        8 => "[a-zA-Z0-9 {}\\[\\],:é日😀]{0,6}",
        1 => Just(r#"\""#.to_owned()),
        1 => Just(r"\\".to_owned()),
        1 => r"\\[bfnrt/]",
        1 => r"\\u00[2-7][0-9a-fA-F]",
        1 => Just(r"\ud83d\ude00".to_owned()),
    ];
    let string = vec(character, 0..5).prop_map(|parts| format!("\"{}\"", parts.concat()));
    let number = prop_oneof![
        4 => (-20..200_i32).prop_map(|number| number.to_string()),
        1 => "-?(0|[1-9][0-9]{0,4})(\\.[0-9]{1,3})?([eE][+-]?[0-9]{1,2})?",
    ];
    let word = prop::sample::select(vec!["true", "false", "null"]).prop_map(str::to_owned);
    let leaf = prop_oneof![3 => string.clone(), 2 => number, 2 => word];
    let names = [
        "model",
        "\\u006dodel",
        "mode\\u006C",
        "stream",
        "max_tokens",
        "max_completion_tokens",
        "max_output_tokens",
        "n",
        "best_of",
        "user",
        "previous_response_id",
        "stream_options",
        "sampling_params",
        "include_usage",
        "continuous_usage_stats",
        "max_new_tokens",
        "rid",
        "lora_path",
        "vllm_xargs",
        "prompt",
        "messages",
    ];
    let key = prop_oneof![
        5 => prop::sample::select(names.to_vec()).prop_map(|name| format!("\"{name}\"")),
        1 => string,
    ];
    let member_of = move |value: BoxedStrategy<String>| {
        (blank(), key.clone(), blank(), blank(), value, blank())
            .prop_map(|(a, key, b, c, value, d)| format!("{a}{key}{b}:{c}{value}{d}"))
    };
    let member = member_of.clone();
    let value = leaf.prop_recursive(4, 24, 5, move |inner| {
        let inner = inner.boxed();
        let element =
            (blank(), inner.clone(), blank()).prop_map(|(a, value, b)| format!("{a}{value}{b}"));
        prop_oneof![
            vec(element, 0..6).prop_map(|elements| format!("[{}]", elements.join(","))),
            vec(member(inner), 0..6).prop_map(|members| format!("{{{}}}", members.join(","))),
        ]
    });
    let good = prop_oneof![
        vec(member_of_good_type(), 0..6),
        vec(
            prop_oneof![3 => member_of_good_type(), 1 => member_of(value.boxed())],
            0..9
        ),
    ];
    (blank(), good, blank()).prop_map(|(a, members, b)| format!("{a}{{{}}}{b}", members.join(",")))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_json_is_read_as_serde_json_reads_it(body in json_text()) {
        prop_assert!(serde_json::from_str::<Value>(&body).is_ok());
        prop_assert_eq!(disagreement(body.as_bytes()), None);
    }

    #[test]
    fn a_damaged_body_is_judged_as_serde_json_judges_it(
        body in json_text(),
        at in any::<prop::sample::Index>(),
        byte in prop_oneof![any::<u8>(), prop::sample::select(b"\"\\{}[],:0-.e \n".to_vec())],
        way in 0..3,
    ) {
        let mut body = body.into_bytes();
        let at = at.index(body.len());
        match way {
            0 => body[at] = byte,
            1 => body.insert(at, byte),
            _ => drop(body.remove(at)),
        }
        prop_assert_eq!(disagreement(&body), None);
    }

    #[test]
    fn every_cutting_reads_alike(body in json_text(), backslashes in 0..9_usize, cuts in vec(any::<prop::sample::Index>(), 0..12)) {
        let tail = format!(r#","x":"{}\"","model":"end"}}"#, r"\\".repeat(backslashes));
        let body = body.trim().trim_end_matches('}').to_owned() + &tail;
        let body = body.as_bytes();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len())).collect();
        cuts.extend([0, body.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|cut| &body[cut[0]..cut[1]]);
        prop_assert_eq!(scan(pieces), scan([body]));
    }

    #[test]
    fn edits_leave_every_other_byte(
        body in vec(any::<u8>(), 0..60),
        pieces in 1..9_usize,
        edits in vec((0..4_usize, 0..9_usize, vec(any::<u8>(), 0..5)), 0..5),
    ) {
        let mut expected = Vec::new();
        let mut list = Vec::new();
        let mut position = 0;
        for (kept, dropped, with) in edits {
            let start = (position + kept).min(body.len());
            let end = (start + dropped).min(body.len());
            expected.extend_from_slice(&body[position..start]);
            expected.extend_from_slice(&with);
            position = end;
            list.push(Edit { range: start..end, with: with.into() });
        }
        expected.extend_from_slice(&body[position..]);
        let cut: Vec<Bytes> = body.chunks(pieces).map(Bytes::copy_from_slice).collect();
        let (edited, length) = apply(&cut, &list);
        prop_assert_eq!(length, expected.len());
        prop_assert_eq!(edited.concat(), expected);
    }
}
