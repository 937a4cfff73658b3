//! Models: names, aliases, pools, and the engines' own names for them.

use serde_json::{Value, json};

use crate::support::{
    Answer, Engine, Gateway, Puppet, Script, Then, engine_with, get, in_turn, pool, post,
};

async fn serving(model: &str) -> Engine {
    engine_with(Script {
        model: model.into(),
        ..Script::default()
    })
    .await
}

fn body(model: &Value, stream: bool) -> String {
    // As OpenAI's SDK orders them.
    let mut body = json!({ "messages": [{ "role": "user", "content": "{\"model\":\"x\"}" }] });
    body["stream"] = stream.into();
    if !model.is_null() {
        body["model"] = model.clone();
    }
    body.to_string()
}

async fn chat(gateway: &Gateway, model: &Value, stream: bool) -> Answer {
    let request = post("/v1/chat/completions", body(model, stream));
    gateway.ask(&request).await
}

fn error(answer: &Answer) -> (u16, Value) {
    let error: Value = serde_json::from_slice(&answer.body).unwrap();
    (answer.status, error["error"].clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_model_goes_to_its_pool_by_its_engines_name() {
    let (large, small) = (serving("deepseek-ai/R1").await, serving("qwen").await);
    let gateway = Gateway::start(&format!(
        "pools: {{ large: {{ endpoints: [\"{}\"] }}, small: {{ endpoints: [\"{}\"] }} }}\n\
         models:\n  DeepSeek-R1: {{ pool: large, upstream_model: deepseek-ai/R1 }}\n  r1: DeepSeek-R1\n  \
         qwen: {{ pool: small }}\n",
        large.authority(),
        small.authority()
    ))
    .await;
    for stream in [false, true] {
        for (model, status) in [("DeepSeek-R1", 200), ("r1", 200), ("qwen", 200)] {
            let answer = chat(&gateway, &model.into(), stream).await;
            let text = String::from_utf8_lossy(&answer.body);
            assert_eq!(answer.status, status, "{model}: {text}");
            let own = if model == "qwen" {
                "qwen"
            } else {
                "deepseek-ai/R1"
            };
            assert!(text.contains(&format!("\"model\":\"{own}\"")), "{text}");
        }
    }
    assert_eq!((large.inferences().len(), small.inferences().len()), (4, 2));
    assert_eq!(chat(&gateway, &"nothing".into(), false).await.status, 404);
    // Nothing but the name is changed.
    let received = large.inferences()[0].body.clone().unwrap();
    let expected = body(&"deepseek-ai/R1".into(), false);
    assert_eq!(received, expected.as_bytes());
    gateway.quiet().await;
    let requests = |model, pool| {
        gateway.metric(&format!(
            "sluicegate_e2el_seconds_count{{model=\"{model}\",pool=\"{pool}\"}}"
        ))
    };
    assert_eq!(requests("DeepSeek-R1", "large"), 4.0);
    assert_eq!(requests("qwen", "small"), 2.0);
    // No pool's answers are those that came to none.
    let refused = "sluicegate_requests_total{code=\"404\",endpoint=\"none\",pool=\"none\"}";
    assert_eq!(gateway.metric(refused), 1.0);
    for (pool, count) in [("large", 4.0), ("small", 2.0), ("none", 1.0)] {
        let series = format!("sluicegate_request_duration_seconds_count{{pool=\"{pool}\"}}");
        assert_eq!(gateway.metric(&series), count, "{series}");
    }
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_is_none_is_refused_with_the_nearest() {
    let engine = serving("qwen").await;
    let gateway = Gateway::start(&format!(
        "endpoints: [\"{}\"]\nmodels: {{ DeepSeek-R1: {{}}, r1: DeepSeek-R1, qwen: {{}} }}",
        engine.authority()
    ))
    .await;
    let (status, error_of) = error(&chat(&gateway, &"DeepSeek-R2".into(), false).await);
    assert_eq!(
        (status, &error_of["code"]),
        (404, &"model_not_found".into())
    );
    assert_eq!(error_of["param"], "model");
    assert!(
        error_of["message"]
            .as_str()
            .unwrap()
            .contains("DeepSeek-R1")
    );
    let (status, error_of) = error(&chat(&gateway, &Value::Null, false).await);
    assert_eq!((status, &error_of["code"]), (400, &"missing_model".into()));
    let long = "m".repeat(1 << 20);
    let (status, _) = error(&chat(&gateway, &long.into(), false).await);
    assert_eq!(status, 400);
    assert_eq!(engine.inferences().len(), 0);
    for junk in 0..200 {
        chat(&gateway, &format!("junk-{junk}").into(), false).await;
    }
    assert!(!gateway.shared().metrics.render().contains("junk"));
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_not_named_goes_to_the_star() {
    let (named, rest) = (serving("qwen").await, serving("anything").await);
    let gateway = Gateway::start(&format!(
        "pools: {{ a: {{ endpoints: [\"{}\"] }}, b: {{ endpoints: [\"{}\"] }} }}\n\
         models: {{ qwen: {{ pool: a }}, \"*\": {{ pool: b }} }}",
        named.authority(),
        rest.authority()
    ))
    .await;
    assert_eq!(chat(&gateway, &"anything".into(), false).await.status, 200);
    assert_eq!(chat(&gateway, &"qwen".into(), false).await.status, 200);
    assert_eq!((named.inferences().len(), rest.inferences().len()), (1, 1));
    gateway.quiet().await;
    let series = "sluicegate_e2el_seconds_count{model=\"other\",pool=\"b\"}";
    assert_eq!(gateway.metric(series), 1.0);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_may_have_a_name_of_its_own_for_the_model_also_on_the_second_try() {
    let (first, second) = (serving("one").await, serving("two").await);
    let endpoints = [
        format!("{{ url: \"{}\", model: one }}", first.authority()),
        format!(
            "{{ url: \"{}\", model: two, backup: true }}",
            second.authority()
        ),
    ];
    let gateway = Gateway::start(&format!(
        "{}\nmodels: {{ public: {{}} }}",
        pool(&endpoints, "")
    ))
    .await;
    assert_eq!(chat(&gateway, &"public".into(), false).await.status, 200);
    first.fail_next(1, crate::support::Fault::Status(500));
    assert_eq!(chat(&gateway, &"public".into(), true).await.status, 200);
    let model = |engine: &Engine| -> Value {
        let inferences = engine.inferences();
        let body = inferences.last().unwrap().body.clone().unwrap();
        serde_json::from_slice::<Value>(&body).unwrap()["model"].clone()
    };
    assert_eq!(
        (model(&first), model(&second)),
        ("one".into(), "two".into())
    );
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_public_name_is_put_back_into_answers_and_events() {
    let engine = serving("deepseek-ai/R1").await;
    let gateway = Gateway::start(&format!(
        "endpoints: [\"{}\"]\n\
         models: {{ r1: {{ upstream_model: deepseek-ai/R1, rename_response: true }} }}",
        engine.authority()
    ))
    .await;
    for stream in [false, true] {
        let answer = chat(&gateway, &"r1".into(), stream).await;
        let text = String::from_utf8(answer.body.clone()).unwrap();
        assert_eq!(answer.status, 200);
        assert!(text.contains("\"model\":\"r1\""), "{text}");
        assert!(!text.contains("deepseek-ai/R1"), "{text}");
        if !stream {
            let length = answer.body.len().to_string();
            assert_eq!(answer.field("content-length"), Some(&*length));
        }
    }
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_spoke_of_the_bytes_before_does_not_speak_of_those_after() {
    let body = "{\"model\":\"deepseek-ai/R1\"}";
    let whole = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nETag: \"a\"\r\nContent-Digest: sha-256=:x:\r\nX-Kept: 1\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    for renames in [true, false] {
        let puppet = Puppet::answering(&whole, Then::Keep).await;
        let gateway = Gateway::start(&format!(
            "endpoints: [\"{}\"]\n\
             models: {{ r1: {{ upstream_model: deepseek-ai/R1, rename_response: {renames} }} }}",
            puppet.authority()
        ))
        .await;
        let answer = chat(&gateway, &"r1".into(), false).await;
        assert_eq!(
            answer.text().contains("\"r1\""),
            renames,
            "{}",
            answer.text()
        );
        for name in ["etag", "content-digest"] {
            assert_eq!(answer.field(name).is_none(), renames, "{name}");
        }
        assert_eq!(answer.field("x-kept"), Some("1"));
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_form_names_its_model_too() {
    let puppet = Puppet::answering(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
        Then::Keep,
    )
    .await;
    let gateway = Gateway::start(&format!(
        "endpoints: [\"{}\"]\nmodels: {{ whisper: {{ upstream_model: openai/whisper-large }} }}",
        puppet.authority()
    ))
    .await;
    let form = |models: &[&str]| {
        let mut body = String::new();
        for model in models {
            body += &format!(
                "--XX\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n{model}\r\n"
            );
        }
        body += "--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\nRIFF\r\n--XX--\r\n";
        post("/v1/audio/transcriptions", body)
            .field("Content-Type: multipart/form-data; boundary=XX")
    };
    assert_eq!(gateway.ask(&form(&["whisper"])).await.status, 200);
    let sent = puppet.requests().pop().unwrap().1;
    let sent = String::from_utf8(sent).unwrap();
    assert!(
        sent.contains("name=\"model\"\r\n\r\nopenai/whisper-large\r\n--XX"),
        "{sent}"
    );
    assert!(sent.contains("RIFF"));
    assert_eq!(
        gateway.ask(&form(&["whisper", "whisper"])).await.status,
        400
    );
    assert_eq!(gateway.ask(&form(&["nothing"])).await.status, 404);
    assert_eq!(gateway.ask(&form(&[])).await.status, 400);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_never_reaches_an_engine() {
    let engine = serving("qwen").await;
    let gateway = Gateway::start(&in_turn(&engine.authority(), "127.0.0.1:9", "")).await;
    let deep = "[".repeat(100_000);
    for bad in [
        "",
        "{",
        "[]",
        "{\"model\":\"qwen\"} x",
        "\u{feff}{}",
        "{\"model\":7}",
        "{\"model\":\"qwen\",}",
        &deep,
    ] {
        let answer = gateway.ask(&post("/v1/chat/completions", bad)).await;
        assert_eq!(answer.status, 400, "{bad:.40}");
    }
    let coded = post("/v1/chat/completions", body(&"qwen".into(), false));
    let coded = coded.field("Content-Encoding: gzip");
    assert_eq!(gateway.ask(&coded).await.status, 400);
    for (field, value) in [("n", 17), ("best_of", 100), ("n", 1_u64 << 40)] {
        let mut many: Value = serde_json::from_str(&body(&"qwen".into(), false)).unwrap();
        many[field] = value.into();
        let answer = gateway
            .ask(&post("/v1/chat/completions", many.to_string()))
            .await;
        let (status, error_of) = error(&answer);
        assert_eq!((status, &error_of["code"]), (400, &"invalid_value".into()));
        assert!(error_of["message"].as_str().unwrap().contains("limits.n"));
    }
    let steering = json!({ "model": "qwen", "kv_transfer_params": {}, "messages": [] }).to_string();
    let (status, error_of) = error(&gateway.ask(&post("/v1/chat/completions", steering)).await);
    assert_eq!(status, 400);
    assert!(
        error_of["message"]
            .as_str()
            .unwrap()
            .contains("kv_transfer_params")
    );
    assert_eq!(engine.inferences().len(), 0);
    assert_eq!(gateway.ask(&get("/v1/models")).await.status, 200);
    gateway.finish().await;
}
