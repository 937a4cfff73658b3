//! `GET /v1/models`, and what the gateway knows of its engines for it.

use serde_json::{Value, json};

use crate::support::{
    Answer, Client, Engine, Flavour, Gateway, Puppet, Script, TempDir, ask, engine, engine_with,
    get, pool, post, until,
};

async fn serving(model: &str, max_model_len: usize) -> Engine {
    engine_with(Script {
        model: model.into(),
        max_model_len,
        ..Script::default()
    })
    .await
}

fn two_pools(large: &Engine, small: &Engine, models: &str) -> String {
    format!(
        "pools: {{ large: {{ endpoints: [\"{}\"] }}, small: {{ endpoints: [\"{}\"] }} }}\nmodels: {models}",
        large.authority(),
        small.authority()
    )
}

fn names(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, 200);
    let list = answer.json();
    let data = list["data"].as_array().unwrap().clone();
    let name = |model: &Value| model["id"].as_str().unwrap().to_owned();
    data.iter().map(name).collect()
}

async fn listed(gateway: &Gateway) -> Vec<String> {
    names(&gateway.ask(&get("/v1/models")).await)
}

/// What an engine was asked by others than the gateway itself.
fn passed_on(engine: &Engine) -> usize {
    let requests = engine.requests();
    let by_clients = |r: &&crate::support::Recorded| r.header("user-agent") != Some("sluicegate");
    requests.iter().filter(by_clients).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_engines_lists_are_joined_without_what_is_the_nodes_own() {
    let engines = [
        serving("DeepSeek-R1", 8192).await,
        serving("DeepSeek-R1", 4096).await,
    ];
    let urls = engines.each_ref().map(|e| format!("\"{}\"", e.authority()));
    let gateway = Gateway::start(&pool(&urls, "")).await;
    let model = json!({
        "id": "DeepSeek-R1", "object": "model", "created": 1_677_610_602, "owned_by": "vllm", "max_model_len": 4096,
    });
    let list = json!({ "object": "list", "data": [model] });
    for path in ["/v1/models", "/models", "/v1/models?limit=20"] {
        let answer = gateway.ask(&get(path)).await;
        assert_eq!((answer.status, answer.json()), (200, list.clone()));
        assert_eq!(answer.field("content-type"), Some("application/json"));
        assert!(answer.keeps_alive());
    }
    for path in [
        "/v1/models/DeepSeek-R1",
        "/models/DeepSeek-R1",
        "/v1/models/DeepSeek%2DR%31",
    ] {
        let answer = gateway.ask(&get(path)).await;
        assert_eq!((answer.status, answer.json()), (200, model.clone()));
    }
    let head = gateway.ask(&get("/v1/models").method("HEAD")).await;
    let length = list.to_string().len().to_string();
    assert_eq!(
        (head.status, head.field("content-length")),
        (200, Some(&*length))
    );
    let missing = gateway.ask(&get("/v1/models/DeepSeek-R2")).await;
    assert_eq!(
        (missing.status, missing.code().as_str()),
        (404, "model_not_found")
    );
    assert!(missing.text().contains("Did you mean `DeepSeek-R1`?"));
    let posted = gateway.ask(&post("/v1/models", "{}")).await;
    assert_eq!(
        (posted.status, posted.field("allow")),
        (405, Some("GET, HEAD"))
    );
    // A body that nobody asked for is in nobody's way.
    let with_body = post("/v1/models", "{}").method("GET");
    assert_eq!(gateway.ask(&with_body).await.json(), list);
    assert!(engines.iter().all(|engine| passed_on(engine) == 0));
    // As it was, when they are gone.
    for (index, engine) in engines.iter().enumerate() {
        engine.stop().await;
        gateway.endpoint(index).probed(
            Err(sluicegate::pool::ProbeFailure::Refused),
            tokio::time::Instant::now(),
        );
    }
    assert_eq!(gateway.state(0), "down");
    assert_eq!(gateway.ask(&get("/v1/models")).await.json(), list);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_anthropics_api_get_its_form() {
    let engine = serving("R1", 8192).await;
    let gateway = Gateway::start(&format!("endpoints: [\"{}\"]", engine.authority())).await;
    let anthropic = |path| get(path).field("Anthropic-Version: 2023-06-01");
    let model = json!({
        "type": "model", "id": "R1", "display_name": "R1", "created_at": "2023-02-28T18:56:42Z",
    });
    let list = gateway.ask(&anthropic("/v1/models?limit=1000")).await;
    assert_eq!(
        list.json(),
        json!({ "data": [model], "has_more": false, "first_id": "R1", "last_id": "R1" })
    );
    let one = gateway.ask(&anthropic("/v1/models/R1")).await;
    assert_eq!(one.json(), model);
    let missing = gateway.ask(&anthropic("/v1/models/x")).await;
    assert_eq!(missing.status, 404);
    assert_eq!(missing.json()["error"]["type"], "not_found_error");
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn configured_names_are_listed_in_place_of_the_engines_own() {
    let (large, small) = (
        serving("deepseek-ai/R1", 8192).await,
        serving("qwen", 100).await,
    );
    let models = "{ DeepSeek-R1: { pool: large, upstream_model: deepseek-ai/R1 }, r1: DeepSeek-R1, a: { pool: small } }";
    let gateway = Gateway::start(&two_pools(&large, &small, models)).await;
    let list = gateway.ask(&get("/v1/models")).await;
    assert_eq!(names(&list), ["DeepSeek-R1", "a", "r1"]);
    let data = list.json()["data"].clone();
    let facts = |at: usize| {
        let model = &data[at];
        (model["owned_by"].clone(), model["max_model_len"].clone())
    };
    assert_eq!(facts(0), (json!("vllm"), json!(8192)));
    // No engine of its pool has it.
    assert_eq!(facts(1), (json!("sluicegate"), Value::Null));
    assert_eq!(facts(2), (json!("vllm"), json!(8192)));
    let hidden = gateway.ask(&get("/v1/models/deepseek-ai/R1")).await;
    assert_eq!(hidden.status, 404);
    let models =
        "{ DeepSeek-R1: { pool: large, upstream_model: deepseek-ai/R1 }, \"*\": { pool: small } }";
    gateway.reload(&two_pools(&large, &small, models)).await;
    assert_eq!(listed(&gateway).await, ["DeepSeek-R1", "qwen"]);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_asked_for_and_shows_what_it_may_use() {
    let engine = serving("R1", 8192).await;
    let gateway = Gateway::start(&format!(
        "endpoints: [\"{}\"]\nmodels: {{ R1: {{}}, V3: {{}}, deep: R1, \"*\": {{}} }}\nkeys:\n\
         \x20 - {{ name: all, key: sk-all-0123456789abcdef }}\n\
         \x20 - {{ name: one, key: sk-one-0123456789abcdef, models: [R1] }}\n\
         \x20 - {{ name: none, key: sk-none-0123456789abcdef, models: [], admin: true }}\n",
        engine.authority()
    ))
    .await;
    let with = |key: &str, path| {
        get(path).field(&format!("Authorization: Bearer sk-{key}-0123456789abcdef"))
    };
    for (key, expected) in [
        ("all", &["R1", "V3", "deep"][..]),
        ("one", &["R1", "deep"]),
        ("none", &[]),
    ] {
        let list = gateway.ask(&with(key, "/v1/models")).await;
        assert_eq!(names(&list), expected, "{key}");
    }
    for (request, expected) in [
        (get("/v1/models"), (401, "invalid_api_key")),
        (get("/v1/models/R1"), (401, "invalid_api_key")),
        (with("nobody", "/models"), (401, "invalid_api_key")),
        (with("one", "/v1/models/V3"), (404, "model_not_found")),
    ] {
        let answer = gateway.ask(&request).await;
        assert_eq!((answer.status, answer.code().as_str()), expected);
    }
    assert!(gateway.ask(&with("one", "/v1/models/deep")).await.status == 200);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_any_engine_has_answered_there_is_no_model_and_then_there_is() {
    let engine = serving("R1", 8192).await;
    engine.stop().await;
    let yaml = pool(
        &[format!("\"{}\"", engine.authority())],
        "health: { interval: 20ms }",
    );
    let gateway = Gateway::start(&yaml).await;
    let answer = gateway.ask(&get("/v1/models")).await;
    assert_eq!(answer.json(), json!({ "object": "list", "data": [] }));
    let shown = ask(gateway.admin, &get("/endpoints")).await.json();
    assert_eq!(
        (&shown[0]["engine"], &shown[0]["models"]),
        (&Value::Null, &json!([]))
    );
    let known = || {
        let catalog = gateway.endpoint(0).catalog.get();
        catalog.map(|catalog| catalog.names().map(str::to_owned).collect::<Vec<_>>())
    };
    engine.restart().await.unwrap();
    until("it to be known", || known().is_some()).await;
    assert_eq!(listed(&gateway).await, ["R1"]);
    // It comes back as another.
    engine.stop().await;
    gateway.wait_for_state(0, &["down"]).await;
    engine.set(Script {
        model: "V3".into(),
        flavour: Flavour::Sglang,
        ..Script::default()
    });
    engine.restart().await.unwrap();
    until("the other to be known", || {
        known().is_some_and(|names| names == ["V3"])
    })
    .await;
    assert_eq!(listed(&gateway).await, ["V3"]);
    let shown = ask(gateway.admin, &get("/endpoints")).await.json();
    assert_eq!(
        (&shown[0]["engine"], &shown[0]["models"]),
        (&json!("sglang"), &json!(["V3"]))
    );
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_configurations_word_for_the_engine_goes_before_its_own() {
    let engine = engine().await;
    let urls = [format!("\"{}\"", engine.authority())];
    let gateway = Gateway::start(&pool(&urls, "")).await;
    let shown = async || ask(gateway.admin, &get("/endpoints")).await.json()[0]["engine"].clone();
    assert_eq!(shown().await, "vllm");
    gateway.reload(&pool(&urls, "engine: openai")).await;
    assert_eq!(shown().await, "openai");
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_is_asked_with_its_own_key() {
    let engine = engine_with(Script {
        api_key: Some("k3y".into()),
        ..Script::default()
    })
    .await;
    let with = |more: &str| {
        pool(
            &[format!("{{ url: \"{}\"{more} }}", engine.authority())],
            "",
        )
    };
    let gateway = Gateway::start(&with("")).await;
    assert_eq!(listed(&gateway).await, [""; 0]);
    // A reload asks again.
    gateway.reload(&with(", api_key: k3y")).await;
    let known = || gateway.endpoint(0).catalog.get().is_some();
    until("it to be known", known).await;
    assert_eq!(listed(&gateway).await, [engine.script().model.clone()]);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_odd_answer_is_no_answer() {
    let puppet = Puppet::start().await;
    puppet.serve("{\"data\":[{\"id\":\"R1\"}]}");
    let yaml = |policy| pool(&[format!("\"{}\"", puppet.authority())], policy);
    let gateway = Gateway::start(&yaml("")).await;
    assert_eq!(listed(&gateway).await, ["R1"]);
    puppet.serve("{\"detail\":\"Not Found\"}");
    let asked = puppet.questions();
    gateway.reload(&yaml("policy: round_robin")).await;
    until("it to be asked again", || puppet.questions() > asked).await;
    assert_eq!(listed(&gateway).await, ["R1"]);
    assert_eq!(gateway.state(0), "up");
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_expose_all_an_engine_answers_as_behind_nginx() {
    let engine = engine().await;
    let gateway = Gateway::start(&format!(
        "endpoints: [\"{}\"]\nexpose: all",
        engine.authority()
    ))
    .await;
    let answer = gateway.ask(&get("/v1/models")).await;
    assert!(answer.json()["data"][0]["root"].is_string());
    assert_eq!(gateway.ask(&get("/models")).await.status, 404);
    assert_eq!(passed_on(&engine), 2);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_logged_and_counted_like_other_calls() {
    let engine = engine().await;
    let directory = TempDir::new();
    let path = directory.file("access.log");
    let gateway = Gateway::start(&format!(
        "endpoints: [\"{}\"]\naccess_log: {{ path: {} }}",
        engine.authority(),
        path.display()
    ))
    .await;
    // On one connection the lines come in the order of the requests.
    let mut client = Client::connect(gateway.address).await;
    let answer = client.ask(&get("/v1/models")).await;
    client.ask(&get("/v1/models/nothing")).await;
    let lines = || {
        let shared = gateway.shared();
        shared.flush_access_log(std::time::Duration::from_secs(1));
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let parsed = text.lines().map(serde_json::from_str);
        parsed
            .collect::<Result<Vec<Value>, _>>()
            .unwrap_or_default()
    };
    until("two lines", || lines().len() == 2).await;
    let lines = lines();
    let expected = json!(["/v1/models", 200, 0, answer.body.len(), "complete"]);
    let of = |line: &Value| {
        ["path", "status", "attempts", "bytes_out", "end"].map(|key| line[key].clone())
    };
    assert_eq!(json!(of(&lines[0])), expected);
    assert_eq!(lines[1]["error"], "model_not_found");
    for code in ["200", "404"] {
        let series = format!(
            "sluicegate_requests_total{{code=\"{code}\",endpoint=\"none\",pool=\"default\"}}"
        );
        assert_eq!(gateway.metric(&series), 1.0, "{series}");
    }
    gateway.finish().await;
}
