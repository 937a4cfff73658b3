//! Keys: who may ask, for what and how much, and that no client's key goes further than the gateway.

use serde_json::{Value, json};

use crate::support::{
    Answer, Client, Engine, Gateway, Puppet, Request, Script, engine, engine_with, get, post,
    sse_head, until,
};

const KEYS: &str = "keys:\n  - { name: team-a, key: sk-team-a-0123456789abcdef }\n  \
                    - { name: team-b, key: sk-team-b-0123456789abcdef, models: [qwen] }\n";

async fn guarded(more: &str) -> (Engine, Gateway) {
    let engine = engine().await;
    let yaml = format!("endpoints: [\"{}\"]\n{more}", engine.authority());
    (engine, Gateway::start(&yaml).await)
}

fn body(model: &str, max_tokens: u64) -> String {
    json!({ "model": model, "messages": [{ "role": "user", "content": "Hi" }], "max_tokens": max_tokens })
        .to_string()
}

fn chat(model: &str) -> Request {
    post("/v1/chat/completions", body(model, 16))
}

fn with(key: &str, request: Request) -> Request {
    request.field(&format!("Authorization: Bearer {key}"))
}

fn code(answer: &Answer) -> (u16, String) {
    let error: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let code = error["error"]["code"].as_str().unwrap_or_default();
    (answer.status, code.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_known_key_is_let_in_and_no_engine_sees_it() {
    let (engine, gateway) = guarded(KEYS).await;
    let invalid = (401, "invalid_api_key".to_owned());
    let good = "sk-team-a-0123456789abcdef";
    for bad in [
        chat("DeepSeek-R1"),
        with("sk-team-a-0123456789abcdee", chat("DeepSeek-R1")),
        with("", chat("DeepSeek-R1")),
        with(&"x".repeat(10_000), chat("DeepSeek-R1")),
        chat("DeepSeek-R1").field(&format!("Authorization: Basic {good}")),
        chat("DeepSeek-R1").field(&format!("X-Api-Key: {good}x")),
        // Two keys are none: nobody could tell which counts.
        with(good, with("other", chat("DeepSeek-R1"))),
        get("/v1/models"),
    ] {
        assert_eq!(code(&gateway.ask(&bad).await), invalid, "{bad:?}");
    }
    assert_eq!(engine.inferences().len(), 0);
    for good in [
        with(good, chat("DeepSeek-R1")),
        chat("DeepSeek-R1").field(&format!("authorization: bearer   {good}")),
        chat("DeepSeek-R1").field(&format!("X-Api-Key: {good}")),
    ] {
        assert_eq!(gateway.ask(&good).await.status, 200);
    }
    for seen in engine.inferences() {
        assert_eq!(seen.header("authorization"), None);
        assert_eq!(seen.header("x-api-key"), None);
    }
    for local in ["/health", "/ready", "/stub_status", "/metrics"] {
        assert_eq!(gateway.ask(&get(local)).await.status, 200, "{local}");
    }
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_gets_its_own_key() {
    let engine = engine_with(Script {
        api_key: Some("engine-secret".into()),
        ..Script::default()
    })
    .await;
    let gateway = Gateway::start(&format!(
        "endpoints: [{{ url: \"{}\", api_key: engine-secret }}]\n{KEYS}",
        engine.authority()
    ))
    .await;
    let answer = gateway
        .ask(&with("sk-team-a-0123456789abcdef", chat("DeepSeek-R1")))
        .await;
    assert_eq!(answer.status, 200);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_for_its_models() {
    let (engine, gateway) = guarded(&format!(
        "{KEYS}models: {{ qwen: {{ upstream_model: DeepSeek-R1 }}, large: {{ upstream_model: DeepSeek-R1 }}, q: qwen }}"
    ))
    .await;
    let b = "sk-team-b-0123456789abcdef";
    assert_eq!(gateway.ask(&with(b, chat("qwen"))).await.status, 200);
    assert_eq!(gateway.ask(&with(b, chat("q"))).await.status, 200);
    let (status, code_of) = code(&gateway.ask(&with(b, chat("large"))).await);
    assert_eq!((status, &*code_of), (403, "model_not_allowed"));
    // A path that names no model takes a key for all of them.
    let nameless = post("/detokenize", "{\"tokens\":[1]}");
    assert_ne!(gateway.ask(&with(b, nameless.clone())).await.status, 200);
    assert_eq!(engine.inferences().len(), 2);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_a_minute_are_counted_and_told() {
    let key = "sk-limited-0123456789abcdef";
    let (engine, gateway) = guarded(&format!(
        "keys: [{{ name: limited, key: {key}, requests_per_minute: 3 }}]"
    ))
    .await;
    for left in ["2", "1", "0"] {
        let answer = gateway.ask(&with(key, chat("DeepSeek-R1"))).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.field("x-ratelimit-limit-requests"), Some("3"));
        assert_eq!(answer.field("x-ratelimit-remaining-requests"), Some(left));
        assert!(answer.field("x-ratelimit-reset-requests").is_some());
    }
    let refused = gateway.ask(&with(key, chat("DeepSeek-R1"))).await;
    assert_eq!(code(&refused), (429, "rate_limit_exceeded".into()));
    let wait: u64 = refused.field("retry-after").unwrap().parse().unwrap();
    assert!((1..=20).contains(&wait), "{wait}");
    assert_eq!(refused.field("x-ratelimit-remaining-requests"), Some("0"));
    assert_eq!(engine.inferences().len(), 3);
    gateway.quiet().await;
    let result = |result| {
        gateway.metric(&format!(
            "sluicegate_key_requests_total{{key=\"limited\",result=\"{result}\"}}"
        ))
    };
    assert_eq!((result("complete"), result("rate_limited")), (3.0, 1.0));
    // What was used stays used over a reload.
    let yaml = format!(
        "endpoints: [\"{}\"]\nkeys: [{{ name: limited, key: {key}, requests_per_minute: 3 }}]",
        engine.authority()
    );
    gateway.reload(&yaml).await;
    let refused = gateway.ask(&with(key, chat("DeepSeek-R1"))).await;
    assert_eq!(refused.status, 429);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_a_minute_are_charged_on_entry_and_settled_to_what_was_used() {
    let key = "sk-limited-0123456789abcdef";
    let (_engine, gateway) = guarded(&format!(
        "keys: [{{ name: limited, key: {key}, tokens_per_minute: 2000 }}]"
    ))
    .await;
    let remaining = |answer: &Answer| -> u64 {
        let field = answer.field("x-ratelimit-remaining-tokens");
        field.unwrap().parse().unwrap()
    };
    let request = |max| with(key, post("/v1/chat/completions", body("DeepSeek-R1", max)));
    // 1 500 at most, and about 20 in the end.
    let first = gateway.ask(&request(1500)).await;
    assert_eq!(first.status, 200);
    assert!(remaining(&first) < 500, "{}", remaining(&first));
    gateway.quiet().await;
    let second = gateway.ask(&request(1500)).await;
    assert_eq!(
        second.status,
        200,
        "{}",
        String::from_utf8_lossy(&second.body)
    );
    gateway.quiet().await;
    let third = gateway.ask(&request(100_000)).await;
    assert_eq!(third.status, 429);
    let message = String::from_utf8_lossy(&third.body).into_owned();
    assert!(message.contains("2000"), "{message}");
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_picture_costs_what_it_takes_to_see_it_and_each_prompt_of_a_list_its_answer() {
    let key = "sk-limited-0123456789abcdef";
    let (engine, gateway) = guarded(&format!(
        "keys: [{{ name: limited, key: {key}, tokens_per_minute: 3000 }}]"
    ))
    .await;
    let picture = format!(
        "data:image/jpeg;base64,{}",
        "/9j/4AAQSkZJRgABAQ".repeat(60_000)
    );
    let content = json!([
        { "type": "text", "text": "What is this?" },
        { "type": "image_url", "image_url": { "url": picture } },
    ]);
    let asked = json!({ "model": "DeepSeek-R1", "messages": [{ "role": "user", "content": content }], "max_tokens": 16 });
    let seen = with(key, post("/v1/chat/completions", asked.to_string()));
    assert_eq!(gateway.ask(&seen).await.status, 200);
    gateway.quiet().await;
    // As much text is more than a minute's.
    let text = body("DeepSeek-R1", 16).replace("Hi", &"Once upon a time ".repeat(60_000));
    let refused = gateway
        .ask(&with(key, post("/v1/chat/completions", text)))
        .await;
    assert_eq!(code(&refused).0, 429);
    assert_eq!(refused.field("retry-after"), None);
    let prompts = |count: usize| {
        let asked =
            json!({ "model": "DeepSeek-R1", "prompt": vec!["Hi"; count], "max_tokens": 800 });
        with(key, post("/v1/completions", asked.to_string()))
    };
    let refused = gateway.ask(&prompts(4)).await;
    assert_eq!(
        (code(&refused).0, refused.field("retry-after")),
        (429, None)
    );
    assert_eq!(engine.inferences().len(), 1);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_stream_is_charged_while_it_goes_on() {
    let key = "sk-limited-0123456789abcdef";
    let mut puppet = Puppet::start().await;
    let gateway = Gateway::start(&format!(
        "endpoints: [\"{}\"]\nkeys: [{{ name: limited, key: {key}, tokens_per_minute: 6000 }}]",
        puppet.authority()
    ))
    .await;
    let stream = json!({ "model": "DeepSeek-R1", "messages": [], "stream": true });
    let mut client = Client::connect(gateway.address).await;
    client
        .send(with(key, post("/v1/chat/completions", stream.to_string())).bytes())
        .await;
    let mut exchange = puppet.next().await;
    exchange.write(sse_head()).await;
    for n in 0..3000 {
        exchange
            .event(&format!(
                "{{\"choices\":[{{\"delta\":{{\"content\":\"{n}\"}}}}]}}"
            ))
            .await;
    }
    client.head().await;
    client.body_until("\"2999\"").await;
    // 1 024 were charged on entry, and 3 000 were seen.
    let short = with(key, chat("DeepSeek-R1"));
    let asking = tokio::spawn({
        let address = gateway.address;
        async move { crate::support::ask(address, &short).await }
    });
    puppet
        .next()
        .await
        .answer_json("{\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":4}}")
        .await;
    let left: u64 = asking
        .await
        .unwrap()
        .field("x-ratelimit-remaining-tokens")
        .unwrap()
        .parse()
        .unwrap();
    assert!((2000..4500).contains(&left), "{left}");
    exchange.event("[DONE]").await;
    exchange.last_chunk().await;
    client.rest().await;
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_at_the_same_time_are_limited_and_given_back_however_they_end() {
    let key = "sk-limited-0123456789abcdef";
    let (engine, gateway) = guarded(&format!(
        "keys: [{{ name: limited, key: {key}, max_in_flight: 1 }}]"
    ))
    .await;
    engine.hold();
    let mut first = Client::connect(gateway.address).await;
    first.send(with(key, chat("DeepSeek-R1")).bytes()).await;
    engine.wait_for_arrivals(1).await;
    let second = gateway.ask(&with(key, chat("DeepSeek-R1"))).await;
    assert_eq!(code(&second), (429, "rate_limit_exceeded".into()));
    drop(first);
    until("the engine to be told", || engine.in_flight() == 0).await;
    gateway.quiet().await;
    engine.release();
    let third = gateway.ask(&with(key, chat("DeepSeek-R1"))).await;
    assert_eq!(third.status, 200);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_keys_leave_nothing_behind() {
    let (engine, gateway) = guarded(KEYS).await;
    let series = || gateway.shared().metrics.render().lines().count();
    let wrong = |n: u32| with(&format!("sk-wrong-{n}"), chat("DeepSeek-R1"));
    assert_eq!(gateway.ask(&wrong(0)).await.status, 401);
    gateway.quiet().await;
    let refused = "sluicegate_refused_total{reason=\"invalid_api_key\"}";
    gateway.wait_for_metric(refused, 1.0).await;
    gateway
        .wait_for_metric(
            "sluicegate_request_duration_seconds_count{pool=\"default\"}",
            1.0,
        )
        .await;
    let before = series();
    for n in 1..300 {
        assert_eq!(gateway.ask(&wrong(n)).await.status, 401);
    }
    assert_eq!(series(), before);
    assert_eq!(engine.inferences().len(), 0);
    gateway.finish().await;
}
