use bytes::Bytes;

use super::bodies::{disagreement, scan};
use super::*;

mod properties;

fn one(body: &str) -> Result<Peeked, BodyFault> {
    if let Some(difference) = disagreement(body.as_bytes()) {
        panic!("{body}: {difference}");
    }
    scan([body.as_bytes()])
}

fn taken(body: &str) -> Peeked {
    one(body).unwrap_or_else(|fault| panic!("{body}: {fault}"))
}

fn refused(body: &str) -> BodyFault {
    match one(body) {
        Err(fault) => fault,
        Ok(peeked) => panic!("{body}: {peeked:?}"),
    }
}

fn model(body: &str) -> Option<String> {
    taken(body).model.map(|text| text.value)
}

#[test]
fn the_openai_sdk_puts_the_model_first() {
    let body = r#"{"model":"DeepSeek-R1","stream":true,"messages":[{"role":"user","content":"Say \"hi\""}],"max_tokens":16,"stream_options":{"include_usage":true},"user":"u-1"}"#;
    let peeked = taken(body);
    let options = body.find(r#"{"include"#).unwrap();
    let expected = Peeked {
        object: 0..body.len(),
        is_empty_object: false,
        model: Some(Text {
            value: "DeepSeek-R1".into(),
            range: 9..22,
        }),
        stream: Some(true),
        max_tokens: Some(16),
        completions: 1,
        stream_options: StreamOptions::Object {
            range: options..options + r#"{"include_usage":true}"#.len(),
            is_empty: false,
        },
        include_usage: Some((true, options + 17..options + 21)),
        continuous_usage: None,
        prompts: 1,
        encoded: 0,
        user: Some("u-1".into()),
        previous_response_id: None,
        steering: None,
        onward: peeked.onward.clone(),
    };
    assert_eq!(peeked, expected);
}

#[test]
fn the_anthropic_sdk_puts_the_model_behind_the_messages() {
    let peeked = taken(
        r#"{"max_tokens": 64, "messages": [{"role": "user", "content": [{"type": "text", "text": "{\"model\":\"no\"}"}]}], "model": "claude", "stream": true}"#,
    );
    assert_eq!(peeked.model.unwrap().value, "claude");
    assert_eq!((peeked.max_tokens, peeked.stream), (Some(64), Some(true)));
}

#[test]
fn the_last_of_equal_keys_counts() {
    assert_eq!(model(r#"{"model":"a","model":"b"}"#).as_deref(), Some("b"));
    assert_eq!(
        model(r#"{"model":"a","\u006dode\u006C":"b"}"#).as_deref(),
        Some("b")
    );
    assert_eq!(model(r#"{"model":"a","model":null}"#), None);
    assert_eq!(model(r#"{"model":7,"model":"b"}"#).as_deref(), Some("b"));
    let peeked = taken(
        r#"{"stream":true,"stream_options":{"include_usage":true},"stream_options":{"continuous_usage_stats":true}}"#,
    );
    assert_eq!(peeked.include_usage, None);
    assert!(matches!(peeked.continuous_usage, Some((true, _))));
    assert_eq!(taken(r#"{"n":8,"n":2}"#).completions, 2);
}

#[test]
fn only_the_top_level_is_read() {
    for body in [
        r#"{"metadata":{"model":"a","stream":"?"},"messages":[{"model":"b"},["model","c"]]}"#,
        r#"{"x":[{"model":"a"}],"y":{"y":{"model":"a"}}}"#,
        r#"{"x":"\"model\":\"a\"","y":"\\","z":"\\\"model\\\""}"#,
        r#"{"stream_options":{"model":"a"},"sampling_params":{"model":"a"}}"#,
        r#"{"modell":"a","mode":"a","":"a","\\model":"a","model ":"a"}"#,
        r#"{"model\u0000":"a"}"#,
    ] {
        assert_eq!(model(body), None, "{body}");
    }
}

#[test]
fn a_name_may_be_written_with_any_escape() {
    for (raw, name) in [
        (r#""gpt\/4""#, "gpt/4"),
        (r#""\u0041\u00fc\ud83d\ude00""#, "Aü😀"),
        (r#""\"\\\b\f\n\r\t""#, "\"\\\u{8}\u{c}\n\r\t"),
        (r#""modèle-日本""#, "modèle-日本"),
        (r#""""#, ""),
    ] {
        assert_eq!(
            model(&format!(r#"{{ "model" : {raw} }}"#)).as_deref(),
            Some(name)
        );
    }
}

#[test]
fn values_are_read_as_the_engines_read_them() {
    for (value, stream) in [
        ("true", Some(true)),
        ("false", Some(false)),
        ("null", None),
        ("1", Some(true)),
        ("0.0", Some(false)),
        (r#""yes""#, Some(true)),
        (r#""False""#, Some(false)),
        (r#""\u006fff""#, Some(false)),
    ] {
        assert_eq!(
            taken(&format!(r#"{{"stream":{value}}}"#)).stream,
            stream,
            "{value}"
        );
    }
    for (value, tokens) in [
        ("16", Some(16)),
        ("16.0", Some(16)),
        ("1.6e1", Some(16)),
        ("160E-1", Some(16)),
        (r#""16""#, Some(16)),
        (r#"" 16.0 ""#, Some(16)),
        ("true", Some(1)),
        ("-5", Some(0)),
        ("-0", Some(0)),
        ("-1e300", Some(0)),
        ("1e300", Some(u64::MAX)),
        ("1e999", Some(u64::MAX)),
        ("18446744073709551616", Some(u64::MAX)),
        ("123456789012345678901234567890123456789", Some(u64::MAX)),
        ("null", None),
    ] {
        assert_eq!(
            taken(&format!(r#"{{"max_tokens":{value}}}"#)).max_tokens,
            tokens,
            "{value}"
        );
    }
}

#[test]
fn the_largest_limit_of_tokens_counts() {
    let fields = [
        r#""sampling_params":{"max_new_tokens":4}"#,
        r#""max_output_tokens":3"#,
        r#""max_tokens":2"#,
        r#""max_completion_tokens":1"#,
    ];
    for (first, tokens) in (0..fields.len()).zip([4, 3, 2, 1]) {
        let body = format!("{{{}}}", fields[first..].join(","));
        assert_eq!(taken(&body).max_tokens, Some(tokens), "{body}");
    }
    let body = r#"{"max_completion_tokens":null,"max_tokens":5}"#;
    assert_eq!(taken(body).max_tokens, Some(5));
}

#[test]
fn completions_are_the_largest_of_all_counts() {
    for (body, completions) in [
        ("{}", 1),
        (r#"{"n":0}"#, 1),
        (r#"{"n":-3}"#, 1),
        (r#"{"n":3,"best_of":5}"#, 5),
        (r#"{"n":"7"}"#, 7),
        (r#"{"sampling_params":{"n":9}}"#, 9),
        (
            r#"{"sampling_params":[{"n":2},{"n":9,"n":1},{"max_new_tokens":4}]}"#,
            9,
        ),
        (r#"{"sampling_params":[[{"n":2}]]}"#, 1),
        (r#"{"sampling_params":{"x":{"n":2},"y":[{"n":2}]}}"#, 1),
        (r#"{"sampling_params":{"n":9},"sampling_params":null}"#, 1),
        (r#"{"sampling_params":7}"#, 1),
    ] {
        let peeked = scan([body.as_bytes()]).unwrap();
        assert_eq!(peeked.completions, completions, "{body}");
    }
}

#[test]
fn values_that_no_engine_takes_are_refused_with_their_field() {
    for (body, field) in [
        (r#"{"model":7}"#, "model"),
        (r#"{"model":["a"]}"#, "model"),
        (r#"{"model":{"name":"a"}}"#, "model"),
        (r#"{"model":"\ud800"}"#, "model"),
        (r#"{"model":"\ud800\u0041"}"#, "model"),
        (r#"{"model":"\udc00"}"#, "model"),
        (r#"{"Model":"a"}"#, "model"),
        (r#"{"model":"a","MODEL":"b"}"#, "model"),
        (r#"{"stream":"perhaps"}"#, "stream"),
        (r#"{"stream":2}"#, "stream"),
        (r#"{"stream":[true]}"#, "stream"),
        (r#"{"stream":{}}"#, "stream"),
        (r#"{"n":1.5}"#, "n"),
        (r#"{"n":"many"}"#, "n"),
        (r#"{"n":"1_0"}"#, "n"),
        (r#"{"n":"inf"}"#, "n"),
        (r#"{"n":[1]}"#, "n"),
        (r#"{"n":1,"best_of":{}}"#, "best_of"),
        (r#"{"max_tokens":0.5}"#, "max_tokens"),
        (r#"{"sampling_params":[{"n":[]}]}"#, "sampling_params.n"),
        (r#"{"stream_options":[]}"#, "stream_options"),
        (r#"{"stream_options":true}"#, "stream_options"),
        (
            r#"{"stream_options":{"include_usage":[]}}"#,
            "stream_options.include_usage",
        ),
        (r#"{"previous_response_id":5}"#, "previous_response_id"),
    ] {
        let fault = scan([body.as_bytes()]).unwrap_err();
        assert_eq!(
            (fault.param(), fault.code()),
            (Some(field), "invalid_value"),
            "{body}"
        );
        assert!(fault.to_string().contains("byte"), "{fault}");
    }
    let long = format!(r#"{{"max_tokens":{}}}"#, "1".repeat(65));
    assert_eq!(refused(&long).param(), Some("max_tokens"));
}

#[test]
fn names_are_bounded_once_decoded() {
    let body = |name: &str| format!(r#"{{"messages":[],"model":"{name}"}}"#);
    let name = "é".repeat(512);
    assert_eq!(model(&body(&name)), Some(name));
    assert_eq!(
        model(&body(&r"\u0061".repeat(1024))),
        Some("a".repeat(1024))
    );
    for name in [
        "a".repeat(1025),
        r"\u0061".repeat(1025),
        "a".repeat(1 << 20),
    ] {
        assert_eq!(
            refused(&body(&name)),
            BodyFault::TooLong {
                at: 23,
                field: "model",
                limit: 1024
            }
        );
    }
    // The user is nothing that is acted on.
    let peeked = taken(&format!(r#"{{"user":"{}"}}"#, "a".repeat(1025)));
    assert_eq!(peeked.user, None);
    assert_eq!(taken(r#"{"user":5}"#).user, None);
}

#[test]
fn huge_keys_are_passed_over() {
    let key = "k".repeat(10_000_000);
    let body = format!(r#"{{"{key}":1,"model":"a","{key}model":"b"}}"#);
    let mut scanner = Scanner::new();
    for piece in body.as_bytes().chunks(16 * 1024) {
        scanner.feed(piece);
    }
    assert_eq!(scanner.finish().unwrap().model.unwrap().value, "a");
    let escaped = format!(r#"{{"{}":1,"model":"a"}}"#, r"\u006d".repeat(5000));
    assert_eq!(model(&escaped).as_deref(), Some("a"));
}

#[test]
fn what_is_no_json_is_refused_where_it_stops_being_json() {
    for (body, at, expected) in [
        (
            r#"{"a":1,}"#,
            7,
            "a key in double quotes (behind the last member stands no comma)",
        ),
        (r#"{,}"#, 1, "a key in double quotes or `}`"),
        (r#"{'a':1}"#, 1, "a key in double quotes or `}`"),
        (r#"{a:1}"#, 1, "a key in double quotes or `}`"),
        (r#"{"a" 1}"#, 5, "`:`"),
        (r#"{"a":}"#, 5, "a value"),
        (r#"{"a":'b'}"#, 5, "a value"),
        (r#"{"a":NaN}"#, 5, "a value"),
        (r#"{"a":+1}"#, 5, "a value"),
        (r#"{"a":.5}"#, 5, "a value"),
        (r#"{"a":[1,]}"#, 8, "a value"),
        (r#"{"a":[,1]}"#, 6, "a value or `]`"),
        (r#"{"a":[1 2]}"#, 8, "`,` or `]`"),
        (r#"{"a":[1}"#, 7, "`,` or `]`"),
        (r#"{"a":{"b":1]}"#, 11, "`,` or `}`"),
        (r#"{"a":1"b":2}"#, 6, "`,` or `}`"),
        (r#"{"a":01}"#, 6, "`,` or `}`"),
        (r#"{"a":-}"#, 6, "a digit"),
        (r#"{"a":1.}"#, 7, "a digit"),
        (r#"{"a":1e+}"#, 8, "a digit"),
        (r#"{"a":[1,2,-01]}"#, 12, "`,` or `]`"),
        (r#"{"a":tru}"#, 8, "`true`, `false` or `null`"),
        (r#"{"a":True}"#, 5, "a value"),
        (r#"{"a":nulll}"#, 9, "`,` or `}`"),
        (r#"{"a":1}}"#, 7, "nothing behind the object"),
        (r#"{"a":1}{}"#, 7, "nothing behind the object"),
        (r#"{} x"#, 3, "nothing behind the object"),
        (r#"{/**/}"#, 1, "a key in double quotes or `}`"),
    ] {
        let found = body.as_bytes()[at];
        let fault = refused(body);
        assert_eq!(
            fault,
            BodyFault::Unexpected {
                at,
                found,
                expected
            },
            "{body}"
        );
        assert_eq!((fault.code(), fault.param()), ("invalid_json", None));
    }
}

#[test]
fn what_is_no_object_is_told_so() {
    for (body, at, found) in [
        ("[]", 0, b'['),
        (" \"a\"", 1, b'"'),
        ("7", 0, b'7'),
        ("null", 0, b'n'),
        ("model=a&stream=true", 0, b'm'),
    ] {
        assert_eq!(
            refused(body),
            BodyFault::NotAnObject { at, found },
            "{body}"
        );
    }
    let gzip = b"\x1f\x8b\x08\0\0\0".as_slice();
    assert_eq!(
        scan([gzip]),
        Err(BodyFault::NotAnObject { at: 0, found: 0x1f })
    );
    assert_eq!(refused(""), BodyFault::Empty);
    assert_eq!(refused(" \r\n\t"), BodyFault::Empty);
}

#[test]
fn other_encodings_are_named() {
    assert_eq!(refused("\u{feff}{}"), BodyFault::ByteOrderMark);
    let utf16: Vec<u16> = "{\"model\":\"a\"}".encode_utf16().collect();
    let little: Vec<u8> = utf16.iter().flat_map(|unit| unit.to_le_bytes()).collect();
    let big: Vec<u8> = utf16.iter().flat_map(|unit| unit.to_be_bytes()).collect();
    let utf32: Vec<u8> = utf16
        .iter()
        .flat_map(|&unit| u32::from(unit).to_le_bytes())
        .collect();
    let marked = |mark: &[u8], text: &[u8]| [mark, text].concat();
    for (body, at) in [
        (little.clone(), 1),
        (big.clone(), 0),
        (utf32, 1),
        (marked(b"\xff\xfe", &little), 0),
        (marked(b"\xfe\xff", &big), 0),
        (b"{\"a\":1}\0".to_vec(), 7),
    ] {
        assert_eq!(disagreement(&body), None);
        assert_eq!(scan([&*body]), Err(BodyFault::WideEncoding { at }));
    }
}

#[test]
fn what_is_cut_short_is_refused() {
    let body = r#"{"model":"a","p":[1,-2.5e+3,true,false,null,"x\"\\"],"o":{}}"#;
    for length in 1..body.len() {
        assert_eq!(refused(&body[..length]), BodyFault::CutShort { length });
    }
    let padded = format!("\n {body} \t\n");
    assert_eq!(taken(&padded).object, 2..2 + body.len());
}

#[test]
fn nesting_is_bounded() {
    let nested = |depth: usize| {
        format!(
            r#"{{"a":{}1{}}}"#,
            "[".repeat(depth - 1),
            "]".repeat(depth - 1)
        )
    };
    taken(&nested(128));
    assert_eq!(refused(&nested(129)), BodyFault::TooDeep { at: 5 + 127 });
    let objects = format!("{}1{}", r#"{"a":"#.repeat(128), "}".repeat(128));
    taken(&objects);
    let bomb = r#"{"a":"#.repeat(10_000);
    assert_eq!(refused(&bomb), BodyFault::TooDeep { at: 128 * 5 });
    let mixed = format!("{}1{}", r#"{"a":["#.repeat(64), "]}".repeat(64));
    taken(&mixed);
    assert_eq!(
        refused(&format!("{}1{}", r#"{"a":["#.repeat(64), "}]".repeat(64))).code(),
        "invalid_json"
    );
}

#[test]
fn strings_that_are_read_must_be_json() {
    for (body, fault) in [
        (
            "{\"model\":\"a\nb\"}",
            BodyFault::ControlCharacter { at: 11, found: 10 },
        ),
        (
            "{\"mo\tdel\":1}",
            BodyFault::ControlCharacter { at: 4, found: 9 },
        ),
        (r#"{"model":"a\x"}"#, BodyFault::BadEscape { at: 11 }),
        (r#"{"model":"\u12g4"}"#, BodyFault::BadEscape { at: 10 }),
        (r#"{"\q":1}"#, BodyFault::BadEscape { at: 2 }),
    ] {
        assert_eq!(refused(body), fault);
    }
    // The others are the engine's to judge.
    taken("{\"prompt\":\"a\nb\\q\\u12\",\"o\":{\"\\q\":\"\\q\"}}");
    let latin1 = b"{\"model\":\"\xe9\"}".as_slice();
    assert_eq!(
        scan([latin1]),
        Err(BodyFault::NotUnicode {
            at: 9,
            field: "model"
        })
    );
    assert!(scan([b"{\"prompt\":\"\xe9\"}".as_slice()]).is_ok());
}

#[test]
fn steering_fields_are_found_at_the_top_alone() {
    for (name, why) in STEERING {
        assert!(!why.is_empty() && name.len() <= 31);
        let body = format!(r#"{{"model":"a","{name}":{{}},"x":1}}"#);
        assert_eq!(taken(&body).steering, Some(*name));
        for value in ["null", "false"] {
            assert_eq!(taken(&format!(r#"{{"{name}":{value}}}"#)).steering, None);
        }
        let nested = format!(r#"{{"tools":[{{"{name}":1}}],"sampling_params":{{"{name}":1}}}}"#);
        assert_eq!(taken(&nested).steering, None);
    }
    let body = r#"{"\u0072id":"x","lora_path":["a"]}"#;
    assert_eq!(taken(body).steering, Some("rid"));
}

#[test]
fn steering_fields_are_found_among_the_arguments_of_vllms_sampler() {
    for (body, found) in [
        (
            r#"{"vllm_xargs":{"kv_transfer_params":{"remote_host":"x"}}}"#,
            Some("kv_transfer_params"),
        ),
        (
            r#"{"vllm_xargs":{"a":1,"\u0072id":"x"},"model":"a"}"#,
            Some("rid"),
        ),
        (
            r#"{"vllm_xargs":{"kv_transfer_params":null,"request_id":false}}"#,
            None,
        ),
        (r#"{"vllm_xargs":{"a":{"rid":"x"}},"x":{"rid":"x"}}"#, None),
        (r#"{"vllm_xargs":[{"rid":"x"}]}"#, None),
        (r#"{"vllm_xargs":7}"#, None),
    ] {
        assert_eq!(taken(body).steering, found, "{body}");
    }
}

#[test]
fn the_prompts_of_a_list_are_counted() {
    for (body, prompts) in [
        (r#"{"prompt":"one"}"#, 1),
        (r#"{"prompt":[]}"#, 1),
        (r#"{"prompt":["a"]}"#, 1),
        (r#"{"prompt":["a", "b" ,"c"],"x":["d","e"]}"#, 3),
        (r#"{"prompt":[1,2,3,4]}"#, 1),
        (r#"{"prompt":[[1,2],[3],[]]}"#, 3),
        (r#"{"prompt":[["a","b"],["c"]]}"#, 2),
        (r#"{"text":["a","b"],"sampling_params":{"n":2}}"#, 2),
        (r#"{"input_ids":[[1],[2]]}"#, 2),
        (r#"{"prompt":["a","b","c"],"prompt":["a"]}"#, 3),
        (r#"{"prompt":["a"],"prompt":["b"]}"#, 1),
        (r#"{"text":{"format":{"type":"text"}}}"#, 1),
        (r#"{"messages":[{"prompt":["a","b"]}]}"#, 1),
    ] {
        assert_eq!(taken(body).prompts, prompts, "{body}");
    }
}

#[test]
fn a_picture_is_told_from_text_of_its_length() {
    let picture = "iVBORw0KGgo".repeat(1000);
    let over = picture.len() - ENCODED;
    let data = format!("data:image/png;base64,{picture}");
    let escaped = data.replace('/', r"\/");
    for (text, encoded) in [
        (picture.clone(), over),
        (data.clone(), data.len() - ENCODED),
        (escaped.clone(), escaped.len() - ENCODED),
        (picture[..ENCODED].to_owned(), 0),
        (picture[..ENCODED + 1].to_owned(), 1),
        ("Once upon a time ".repeat(1000), 0),
        ("Es war einmal, ".repeat(1000), 0),
        ("从前有座山山上有座庙庙里有个老和尚".repeat(1000), 0),
        (format!(" {picture}"), 0),
        (format!("{picture} and so on"), 0),
    ] {
        let body = format!(r#"{{"x":[{{"url":"{text}"}}],"y":"{text}"}}"#);
        assert_eq!(taken(&body).encoded, 2 * encoded, "{}", &body[..80]);
    }
}

#[test]
fn no_name_is_twice_in_the_table_of_steering_fields() {
    let mut names: Vec<_> = STEERING.iter().map(|(name, _)| name).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), STEERING.len());
}

#[test]
fn token_ids_are_read_a_block_at_a_time_as_one_by_one() {
    let ids = |separator: &str, count: u32| {
        let ids: Vec<String> = (0..count)
            .map(|i| (i * 7919 % 128_000).to_string())
            .collect();
        ids.join(separator)
    };
    for separator in [",", ", ", " ,", ",\n", ",  "] {
        taken(&format!(
            r#"{{"prompt":[{}],"model":"a"}}"#,
            ids(separator, 300)
        ));
    }
    // Each fault at each place in a block.
    for fault in [
        "01", "1 2", "1,,2", ", 1", "--1", "1-", "00", "1]2", "1;2", "x", "1.", "0 0",
    ] {
        for before in 1..40 {
            let body = format!(
                r#"{{"prompt":[{},{fault},{}]}}"#,
                ids(",", before),
                ids(",", 40)
            );
            assert_eq!(refused(&body).code(), "invalid_json", "{body}");
        }
    }
    for fine in [
        "0",
        "10",
        "-1",
        "1.5",
        "\"a\"",
        "[1,2]",
        "null",
        "{\"n\":[1]}",
    ] {
        for before in 1..40 {
            taken(&format!(
                r#"{{"prompt":[{},{fine},{}]}}"#,
                ids(",", before),
                ids(", ", 40)
            ));
        }
    }
}

fn edited(body: &str, edits: &[Edit]) -> String {
    let pieces: Vec<Bytes> = body
        .as_bytes()
        .chunks(3)
        .map(Bytes::copy_from_slice)
        .collect();
    let (pieces, length) = apply(&pieces, edits);
    let edited = String::from_utf8(pieces.concat()).unwrap();
    assert_eq!(edited.len(), length);
    edited
}

#[test]
fn only_the_name_is_changed() {
    let body = r#"{ "model" : "a\u0062c", "x": [ ] }"#;
    let rename = taken(body).rename("d\"é\n").unwrap();
    assert_eq!(
        edited(body, &[rename]),
        "{ \"model\" : \"d\\\"é\\u000a\", \"x\": [ ] }"
    );
    assert_eq!(taken(body).rename("abc"), None);
    assert_eq!(taken("{}").rename("abc"), None);
}

#[test]
fn usage_is_asked_for_where_it_was_not() {
    for (body, with) in [
        (
            r#"{"stream":true}"#,
            r#"{"stream_options":{"include_usage":true},"stream":true}"#,
        ),
        (
            r#" { "stream":true,"stream_options": {} }"#,
            r#" { "stream":true,"stream_options": {"include_usage":true} }"#,
        ),
        (
            r#"{"stream":true,"stream_options":{ "a":1}}"#,
            r#"{"stream":true,"stream_options":{"include_usage":true, "a":1}}"#,
        ),
        (
            r#"{"stream_options":null,"stream":true}"#,
            r#"{"stream_options":{"include_usage":true},"stream":true}"#,
        ),
        (
            r#"{"stream_options":{"include_usage":false},"stream":1}"#,
            r#"{"stream_options":{"include_usage":true},"stream":1}"#,
        ),
        (
            r#"{"stream_options":{"include_usage": null },"stream":true}"#,
            r#"{"stream_options":{"include_usage": true },"stream":true}"#,
        ),
        // Without the chunk there would have been no count in every event either.
        (
            r#"{"stream":true,"stream_options":{"continuous_usage_stats":true,"include_usage":false}}"#,
            r#"{"stream":true,"stream_options":{"continuous_usage_stats":false,"include_usage":true}}"#,
        ),
        (
            r#"{"stream":true,"stream_options":{"continuous_usage_stats": 1 }}"#,
            r#"{"stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats": false }}"#,
        ),
    ] {
        let ask = taken(body).ask_for_usage();
        assert_eq!(edited(body, &ask), with);
    }
    for body in [
        "{}",
        r#"{"stream":false}"#,
        r#"{"stream_options":{"include_usage":false}}"#,
        r#"{"stream":true,"stream_options":{"include_usage":true}}"#,
    ] {
        assert_eq!(taken(body).ask_for_usage(), [], "{body}");
    }
}

#[test]
fn edits_share_the_bytes_that_stay() {
    let body = Bytes::from_static(br#"{"stream":true,"model":"a"}"#);
    let peeked = scan([&*body]).unwrap();
    let edits: Vec<_> = peeked
        .rename("b")
        .into_iter()
        .chain(peeked.ask_for_usage())
        .collect();
    let (pieces, _) = apply(std::slice::from_ref(&body), &edits);
    assert_eq!(pieces.len(), 5);
    for (piece, offset) in [(0, 0), (2, 1), (4, 26)] {
        assert_eq!(pieces[piece].as_ptr(), body[offset..].as_ptr());
    }
    assert_eq!(apply(&[], &edits).0.len(), 2);
}

/// What of `{"stream":true,"messages":[{}],MEMBERS}` stands in the way of going on elsewhere.
fn onward(members: &str) -> Onward {
    taken(&format!(
        "{{\"stream\":true,\"messages\":[{{}}],{members}}}"
    ))
    .onward
}

#[test]
fn what_is_known_to_be_safe_does_not_bar_going_on() {
    for safe in [
        r#""temperature":0.5,"top_p":1,"top_k":-1,"min_p":0,"seed":1,"user":"u","ignore_eos":true"#,
        r#""max_tokens":5,"max_completion_tokens":5,"min_tokens":2,"repetition_penalty":1.1"#,
        r#""logit_bias":{"1":2},"metadata":{"a":"b"},"chat_template_kwargs":{"x":{}},"stop":["a"]"#,
        r#""n":1,"best_of":1,"frequency_penalty":0,"presence_penalty":0.0,"logprobs":false,"echo":false"#,
        r#""response_format":{"type":"text"},"top_logprobs":0,"what_ever":null,"n":null"#,
        r#""tools":[],"tool_choice":"auto","stream_options":{"include_usage":true,"other":1}"#,
    ] {
        assert!(!onward(safe).is_barred, "{safe}");
    }
    for other in [
        r#""n":2"#,
        r#""max_tokens":5,"max_completion_tokens":6"#,
        r#""best_of":2"#,
        r#""frequency_penalty":0.1"#,
        r#""presence_penalty":"0""#,
        r#""logprobs":true"#,
        r#""logprobs":0"#,
        r#""top_logprobs":2"#,
        r#""echo":true"#,
        r#""response_format":{"type":"json_object"}"#,
        r#""response_format":{"type":"text","json_schema":{}}"#,
        r#""response_format":"text""#,
        r#""guided_json":{}"#,
        r#""what_ever":false"#,
        r#""":1"#,
        r#""tool_choice":"required""#,
        r#""tool_choice":{"type":"function"}"#,
        r#""prompt":["a","b"]"#,
        r#""prompt":[1,2]"#,
        r#""stream_options":{"continuous_usage_stats":true}"#,
        r#""max_output_tokens":1"#,
        r#""sampling_params":{}"#,
        r#""a_name_that_is_longer_than_any_that_is_known":1"#,
    ] {
        assert!(onward(other).is_barred, "{other}");
    }
}

#[test]
fn images_are_seen_in_messages() {
    let media = |message: &str| {
        let body = format!("{{\"messages\":[{{\"role\":\"user\"}},{message}]}}");
        taken(&body).onward.has_media
    };
    for text in [
        r#"{"content":"image_url"}"#,
        r#"{"content":[{"type":"text","text":"a","cache_control":{"type":"x"}},{"text":"b"}]}"#,
        r#"{"content":null,"tool_calls":[{"id":"1","type":"function","function":{"name":"f"}}]}"#,
    ] {
        assert!(!media(text), "{text}");
    }
    for other in [
        r#"{"content":[{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"x"}}]}"#,
        r#"{"content":[{"input_audio":{}}]}"#,
        r#"{"content":[{"type":"refusal"}]},{"content":"a"}"#,
    ] {
        assert!(media(other), "{other}");
    }
}

#[test]
fn what_another_engine_is_told_is_found() {
    let body = r#"{"messages":[{"content":"]"}],"stop":["a","]"],"stream":true,"logit_bias":{"1":{}},"seed":7,"min_tokens":3}"#;
    let onward = taken(body).onward;
    let text = |range: &Option<std::ops::Range<usize>>| range.clone().map(|range| &body[range]);
    assert_eq!(text(&onward.messages), Some(r#"[{"content":"]"}]"#));
    let carried: Vec<_> = CARRIED
        .iter()
        .zip(&onward.carried)
        .filter_map(|(name, range)| Some((*name, text(range)?)))
        .collect();
    assert_eq!(
        carried,
        [
            ("seed", "7"),
            ("logit_bias", r#"{"1":{}}"#),
            ("stop", r#"["a","]"]"#)
        ]
    );
    assert_eq!((onward.min_tokens, onward.may_call_tools), (Some(3), false));
    let may = |members: &str| self::onward(members).may_call_tools;
    assert!(may(r#""tools":[{}]"#) && may(r#""tools":[{}],"tool_choice":"auto""#));
    assert!(!may(r#""tools":[{}],"tool_choice":"none""#) && !may(r#""tools":null"#));
    let body = r#"{"prompt":"a\"b","messages":[],"max_completion_tokens":4}"#;
    let onward = taken(body).onward;
    assert_eq!(onward.prompt.map(|range| &body[range]), Some(r#""a\"b""#));
    assert_eq!(onward.messages, None);
    assert!(onward.max_completion_tokens && !onward.max_tokens);
}
