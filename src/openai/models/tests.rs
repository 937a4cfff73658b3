use serde_json::{Value, json};

use super::*;

/// As vLLM 0.32 writes it.
const VLLM: &str = r#"{"object":"list","data":[{"id":"DeepSeek-R1","object":"model","created":1795529293,"owned_by":"vllm","root":"/data/models/DeepSeek-R1","parent":null,"max_model_len":8192,"permission":[{"id":"modelperm-1","object":"model_permission"}]},{"id":"sql-lora","object":"model","created":1795529293,"owned_by":"vllm","root":"/data/lora","parent":"DeepSeek-R1","max_model_len":null,"permission":[]}]}"#;
const SGLANG: &str = r#"{"object":"list","data":[{"id":"Qwen3","object":"model","created":1,"owned_by":"sglang","root":"Qwen3","parent":null,"max_model_len":40960}]}"#;

fn listed(id: &str, owned_by: Option<&str>, max_model_len: Option<u64>) -> Listed {
    Listed {
        id: Arc::from(id),
        owned_by: owned_by.map(Arc::from),
        max_model_len,
    }
}

#[test]
fn an_engine_is_known_by_its_signature() {
    let vllm = Catalog::parse(VLLM.as_bytes()).unwrap();
    assert!(vllm.is_signed("vllm") && !vllm.is_signed("sglang"));
    assert_eq!(
        vllm.models,
        [
            listed("DeepSeek-R1", Some("vllm"), Some(8192)),
            listed("sql-lora", Some("vllm"), None)
        ]
    );
    assert_eq!(
        vllm.names().collect::<Vec<_>>(),
        ["DeepSeek-R1", "sql-lora"]
    );
    let sglang = Catalog::parse(SGLANG.as_bytes()).unwrap();
    assert!(sglang.is_signed("sglang") && !sglang.is_signed("vllm"));
    for (other, names) in [
        (
            r#"{"data":[{"id":"a","owned_by":"library"},{"id":"b"}]}"#,
            &["a", "b"][..],
        ),
        // One that has loaded nothing yet.
        (r#"{"object":"list","data":[]}"#, &[]),
    ] {
        let other = Catalog::parse(other.as_bytes()).unwrap();
        assert!(!other.is_signed("vllm") && !other.is_signed("sglang"));
        assert_eq!(other.names().collect::<Vec<_>>(), names);
    }
}

#[test]
fn what_is_no_list_is_odd() {
    let deep = format!("{{\"data\":{}", "[".repeat(1 << 20));
    for (answer, odd) in [
        ("", Odd::NotJson),
        ("<html>", Odd::NotJson),
        (&deep, Odd::NotJson),
        (&VLLM[..VLLM.len() - 1], Odd::NotJson),
        ("[]", Odd::NotAList),
        ("null", Odd::NotAList),
        (r#"{"object":"error","message":"not here"}"#, Odd::NotAList),
        (r#"{"data":{"id":"a"}}"#, Odd::NotAList),
        (r#"{"data":[{}]}"#, Odd::NoModel),
        (
            r#"{"data":["a",{"id":7},{"id":""},{"id":"a\nb"}]}"#,
            Odd::NoModel,
        ),
    ] {
        assert_eq!(Catalog::parse(answer.as_bytes()), Err(odd), "{answer:.80}");
    }
}

#[test]
fn an_odd_entry_does_not_hide_the_others() {
    let long = "x".repeat(257);
    let answer = json!({ "data": [
        null, { "id": long }, { "id": "a", "owned_by": 7, "max_model_len": -1 },
        { "id": "a", "max_model_len": 5 }, { "id": "b", "owned_by": "b\u{0}", "max_model_len": "9" },
        { "id": "c", "owned_by": "sglang", "max_model_len": 1.5 },
    ]});
    let catalog = Catalog::parse(answer.to_string().as_bytes()).unwrap();
    assert_eq!(
        catalog.models,
        [
            listed("a", None, None),
            listed("b", None, None),
            listed("c", Some("sglang"), None)
        ]
    );
}

#[test]
fn a_list_has_an_end() {
    let data: Vec<Value> = (0..2000).map(|n| json!({ "id": n.to_string() })).collect();
    let answer = json!({ "data": data }).to_string();
    assert_eq!(
        Catalog::parse(answer.as_bytes()).unwrap().models.len(),
        1024
    );
}

const TWO: [Entry<'static>; 2] = [
    Entry {
        id: "DeepSeek-R1",
        owned_by: "vllm",
        max_model_len: Some(8192),
    },
    Entry {
        id: "a/\"b\"",
        owned_by: "sluicegate",
        max_model_len: None,
    },
];

fn value(json: &Bytes) -> Value {
    serde_json::from_slice(json).unwrap()
}

#[test]
fn openais_list() {
    assert_eq!(
        value(&list(&TWO, Form::OpenAi)),
        json!({ "object": "list", "data": [
            { "id": "DeepSeek-R1", "object": "model", "created": CREATED, "owned_by": "vllm", "max_model_len": 8192 },
            { "id": "a/\"b\"", "object": "model", "created": CREATED, "owned_by": "sluicegate" },
        ]})
    );
    assert_eq!(
        &list(&[], Form::OpenAi)[..],
        br#"{"object":"list","data":[]}"#
    );
    assert_eq!(
        value(&one(&TWO[0], Form::OpenAi)),
        value(&list(&TWO, Form::OpenAi))["data"][0]
    );
}

#[test]
fn anthropics_list() {
    let model = |id| json!({ "type": "model", "id": id, "display_name": id, "created_at": "2023-02-28T18:56:42Z" });
    assert_eq!(
        value(&list(&TWO, Form::Anthropic)),
        json!({
            "data": [model("DeepSeek-R1"), model("a/\"b\"")],
            "has_more": false, "first_id": "DeepSeek-R1", "last_id": "a/\"b\"",
        })
    );
    assert_eq!(
        value(&list(&[], Form::Anthropic)),
        json!({ "data": [], "has_more": false, "first_id": null, "last_id": null })
    );
    assert_eq!(value(&one(&TWO[1], Form::Anthropic)), model("a/\"b\""));
}
