//! Engines leave their administration on the port of inference: none of it passes unless the
//! configuration says so.

use crate::support::{Client, Gateway, chat_body, engine, get, post};

/// vLLM's paths for operators, and SGLang's, as their documentation lists them.
const BLOCKED: &[&str] = &[
    // vLLM
    "/pause",
    "/resume",
    "/is_paused",
    "/scale_elastic_ep",
    "/is_scaling_elastic_ep",
    "/init_weight_transfer_engine",
    "/update_weights",
    "/get_world_size",
    "/abort_requests",
    "/invocations",
    "/pooling",
    "/classify",
    "/generative_scoring",
    "/load",
    "/version",
    "/tokenizer_info",
    "/ping",
    "/v1/load_lora_adapter",
    "/v1/unload_lora_adapter",
    "/inference/v1/generate",
    "/server_info",
    "/reset_prefix_cache",
    "/reset_mm_cache",
    "/reset_encoder_cache",
    "/sleep",
    "/wake_up",
    "/is_sleeping",
    "/collective_rpc",
    "/start_profile",
    "/stop_profile",
    "/docs",
    "/openapi.json",
    // SGLang
    "/flush_cache",
    "/slow_down",
    "/pause_generation",
    "/continue_generation",
    "/abort_request",
    "/update_weights_from_disk",
    "/update_weights_from_tensor",
    "/update_weights_from_distributed",
    "/get_weights_by_name",
    "/init_weights_update_group",
    "/release_memory_occupation",
    "/resume_memory_occupation",
    "/set_internal_state",
    "/get_internal_state",
    "/load_lora_adapter",
    "/unload_lora_adapter",
    "/open_session",
    "/close_session",
    "/configure_logging",
    "/freeze_gc",
    "/hicache/storage-backend",
    "/get_server_info",
    "/model_info",
    "/get_model_info",
    "/dumper",
    "/v1/loads",
    "/get_load",
    "/health_generate",
    "/api/chat",
    "/api/generate",
    "/vertex_generate",
    "/",
];

/// What might be read as an exposed path, or climb out of one.
const TRICKS: &[&str] = &[
    "/v1/%63hat/completions",
    "/v1/chat%2Fcompletions",
    "//v1/chat/completions",
    "/v1//chat/completions",
    "/v1/./chat/completions",
    "/v1/x/../chat/completions",
    "/v1/chat/completions/",
    "/v1/chat/completions;a=b",
    "/v1/chat\\completions",
    "/v1/chat/completions%00",
    "/v1/chat/completions%20",
    "/V1/chat/completions",
    "/v1/chat/completions/../../../flush_cache",
    "/v1/models/../../flush_cache",
    "/v1/models/..%2F..%2Fflush_cache",
    "/v1/models/%2e%2e/%2e%2e/flush_cache",
    "/v1/models/a%252f..",
    "/v1/models/a%00",
    "/%66lush_cache",
    "/flush_cache?x=/v1/chat/completions",
    "/x/%2e%2e/flush_cache",
    "/x/../flush_cache",
    "/x//y",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_but_inference_passes_by_default() {
    let engine = engine().await;
    let gateway = Gateway::start(&format!("endpoints: [\"{}\"]", engine.authority())).await;
    let mut client = Client::connect(gateway.address).await;
    for path in BLOCKED {
        for request in [
            get(path),
            get(path).method("DELETE"),
            get(path).method("PURGE"),
        ] {
            let answer = client.ask(&request).await;
            assert_eq!(
                (answer.status, answer.code().as_str()),
                (404, "path_not_exposed"),
                "{path}"
            );
            assert!(answer.text().contains("`expose`"), "the key is named");
            assert!(answer.keeps_alive());
        }
        let answer = gateway.ask(&post(path, "{}")).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (404, "path_not_exposed"),
            "{path}"
        );
    }
    assert!(
        engine
            .requests()
            .iter()
            .all(|request| request.header("user-agent") == Some("sluicegate"))
    );
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_spelling_gets_around_the_list() {
    let engine = engine().await;
    let yaml = format!("endpoints: [\"{}\"]\nexpose: [/x/*]", engine.authority());
    let gateway = Gateway::start(&yaml).await;
    for path in TRICKS {
        for request in [get(path), post(path, chat_body(false))] {
            let answer = gateway.ask(&request).await;
            assert_eq!(
                (answer.status, answer.code().as_str()),
                (404, "path_not_exposed"),
                "{path}"
            );
        }
        let absolute = get(&format!("http://gateway.example{path}"));
        let status = gateway.ask(&absolute).await.status;
        // A target of that form with `#` or `\` may already not be one.
        assert!(matches!(status, 400 | 404), "{path}: {status}");
    }
    assert!(
        engine
            .requests()
            .iter()
            .all(|request| request.header("user-agent") == Some("sluicegate"))
    );
    gateway.finish().await;
}

/// What is judged is what is sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fragment_is_taken_off_before_the_path_is_judged() {
    let engine = engine().await;
    let gateway = Gateway::start(&format!(
        "endpoints: [\"{}\"]\nexpose: [GET /version]",
        engine.authority()
    ))
    .await;
    let fragment = get("/version#/../../flush_cache");
    assert_eq!(gateway.ask(&fragment).await.status, 200);
    assert_eq!(gateway.ask(&get("/flush_cache#/version")).await.status, 404);
    assert_eq!(engine.requests().last().unwrap().target, "/version");
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_passes_when_told_so() {
    let engine = engine().await;
    let gateway = Gateway::start(&format!(
        "endpoints: [\"{}\"]\nexpose: all",
        engine.authority()
    ))
    .await;
    for path in BLOCKED {
        engine.clear_requests();
        let status = gateway.ask(&post(path, "{}")).await.status;
        assert!(matches!(status, 200 | 404 | 405), "{path}: {status}");
        let passed = engine.requests();
        assert!(
            passed
                .iter()
                .any(|r| r.target == *path && r.method == "POST"),
            "{path}: {passed:?}"
        );
    }
    // The gateway's own paths stay its own, as in the guide's nginx.
    assert_eq!(gateway.ask(&get("/health")).await.text(), "healthy\n");
    assert!(
        gateway
            .ask(&get("/metrics"))
            .await
            .text()
            .contains("sluicegate_")
    );
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_known_path_with_another_method_is_told_which() {
    let engine = engine().await;
    let gateway = Gateway::start(&format!("endpoints: [\"{}\"]", engine.authority())).await;
    for (request, allow) in [
        (get("/v1/chat/completions"), "POST"),
        (get("/v1/completions?x=1").method("DELETE"), "POST"),
        (get("/chat/completions").method("PUT"), "POST"),
        (get("/v1/models").method("OPTIONS"), "GET, HEAD"),
    ] {
        let answer = gateway.ask(&request).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (405, "method_not_allowed")
        );
        assert_eq!(answer.field("allow"), Some(allow));
    }
    let traced = gateway.ask(&get("/v1/models").method("TRACE")).await;
    assert_eq!(traced.status, 405);
    assert!(
        engine
            .requests()
            .iter()
            .all(|request| request.header("user-agent") == Some("sluicegate"))
    );
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn extra_paths_open_what_they_name_and_no_more() {
    let engine = engine().await;
    let yaml = format!(
        "endpoints: [\"{}\"]\nexpose: [\"GET /version\", /load, \"POST /admin/*\"]",
        engine.authority()
    );
    let gateway = Gateway::start(&yaml).await;
    for (request, status) in [
        (get("/version"), 200),
        (get("/version?x=1"), 200),
        (post("/version", "{}"), 405),
        (get("/version/"), 404),
        (get("/versions"), 404),
        (get("/load"), 200),
        (post("/load", "{}"), 405),
        (post("/admin/a/b", "{}"), 404),
        (get("/admin/a"), 405),
        (post("/admin", "{}"), 404),
        (post("/v1/chat/completions", chat_body(false)), 200),
    ] {
        let answer = gateway.ask(&request).await;
        assert_eq!(
            answer.status,
            status,
            "{}",
            String::from_utf8_lossy(&request.head())
        );
    }
    // The engine's own 404 and 405, not ours.
    let targets: Vec<_> = engine
        .requests()
        .into_iter()
        .map(|r| format!("{} {}", r.method, r.target))
        .collect();
    assert!(
        targets.contains(&"POST /admin/a/b".to_owned())
            && targets.contains(&"POST /load".to_owned())
    );
    assert!(
        !targets.contains(&"GET /admin/a".to_owned())
            && !targets.contains(&"POST /version".to_owned())
    );
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn short_forms_reach_the_engine_in_full() {
    let engine = engine().await;
    let gateway = Gateway::start(&format!("endpoints: [\"{}\"]", engine.authority())).await;
    assert_eq!(
        gateway
            .ask(&post("/chat/completions?a=b", chat_body(false)))
            .await
            .status,
        200
    );
    let targets: Vec<_> = engine.requests().into_iter().map(|r| r.target).collect();
    assert!(
        targets.contains(&"/v1/chat/completions?a=b".to_owned()),
        "{targets:?}"
    );
    gateway.finish().await;
}
