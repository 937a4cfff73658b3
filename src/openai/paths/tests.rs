use proptest::prelude::*;

use super::*;

fn inference() -> Expose {
    Expose::Inference { extra: Vec::new() }
}

fn with(extra: &[(Option<&str>, &str, bool)]) -> Expose {
    Expose::Inference {
        extra: extra
            .iter()
            .map(|&(method, path, prefix)| ExtraPath {
                method: method.map(str::to_owned),
                path: path.to_owned(),
                prefix,
            })
            .collect(),
    }
}

fn exposed(expose: &Expose, method: &str, path: &str) -> bool {
    matches!(lookup(expose, method, path.as_bytes()), Verdict::Exposed(_))
}

fn call(expose: &Expose, method: &str, path: &str) -> Call {
    match lookup(expose, method, path.as_bytes()) {
        Verdict::Exposed(call) => call,
        other => panic!("{method} {path}: {other:?}"),
    }
}

#[test]
fn inference_calls_are_exposed_with_their_dialect() {
    let (list, one) = (Some(Own::Models), Some(Own::Model));
    for (method, path, dialect, prefix, own) in [
        ("POST", "/v1/chat/completions", Chat, "", None),
        ("POST", "/v1/completions", Completions, "", None),
        ("POST", "/v1/messages", Messages, "", None),
        ("POST", "/v1/responses", Responses, "", None),
        ("POST", "/chat/completions", Chat, "/v1", None),
        ("GET", "/v1/models", Other, "", list),
        ("HEAD", "/v1/models", Other, "", list),
        ("GET", "/models", Other, "", list),
        ("GET", "/v1/models/a", Other, "", one),
        ("HEAD", "/models/a/b", Other, "", one),
        ("GET", "/v1/responses/resp_12-3", Responses, "", None),
        ("POST", "/v1/responses/resp_12/cancel", Other, "", None),
        ("POST", "/generate", Other, "", None),
        ("GET", "/v1/realtime", Other, "", None),
        ("GET", "/realtime", Other, "/v1", None),
    ] {
        let call = call(&inference(), method, path);
        assert_eq!(
            call,
            Call {
                repeatable: true,
                dialect,
                prefix,
                own,
                body: call.body,
                websocket: path.ends_with("/realtime"),
            },
            "{method} {path}"
        );
    }
}

#[test]
fn administration_of_the_engines_is_not_exposed() {
    for path in [
        "/",
        "",
        "*",
        "/v1",
        "/v1/",
        "/metrics",
        "/health",
        "/version",
        "/load",
        "/pause",
        "/resume",
        "/sleep",
        "/wake_up",
        "/reset_prefix_cache",
        "/collective_rpc",
        "/flush_cache",
        "/server_info",
        "/get_server_info",
        "/update_weights_from_disk",
        "/v1/load_lora_adapter",
        "/v1/unload_lora_adapter",
        "/inference/v1/generate",
        "/start_profile",
        "/abort_request",
        "/abort_requests",
        "/v1/loads",
        "/invocations",
        "/api/generate",
        "/openapi.json",
        "/docs",
        "/v1/files",
        "/v1/chat/completions/render",
        "/v1/realtime/sessions",
    ] {
        for method in ["GET", "POST", "PUT", "DELETE"] {
            assert_eq!(
                lookup(&inference(), method, path.as_bytes()),
                Verdict::NotExposed,
                "{method} {path}"
            );
        }
    }
}

#[test]
fn a_path_that_could_be_read_as_another_is_not_exposed() {
    let everything_below_v1 = with(&[(None, "/v1/", true), (None, "/", true)]);
    for path in [
        "/v1/chat//completions",
        "//v1/chat/completions",
        "/v1/./chat/completions",
        "/v1/../flush_cache",
        "/v1/chat%2Fcompletions",
        "/v1/%63hat/completions",
        "/v1/chat/completions;x=1",
        "/v1\\chat\\completions",
        "/v1/chat/completions\u{e9}",
        "/v1/chat/ completions",
        "/v1/chat/completions\t",
        "/v1/\"x",
        "/v1/<x>",
        "/v1/x^",
        "/v1/`x",
        "/v1/{x}",
        "/v1/x|y",
        "/v1/x#y",
        "/v1/[x]",
        "/v1/..",
        "/v1/.",
        "v1/chat/completions",
        "/v1/responses/..",
        "/v1/responses/%2e%2e",
        "/v1/responses/a;b",
    ] {
        for expose in [&inference(), &everything_below_v1] {
            for method in ["GET", "POST"] {
                assert_eq!(
                    lookup(expose, method, path.as_bytes()),
                    Verdict::NotExposed,
                    "{method} {path}"
                );
            }
        }
    }
    assert_eq!(
        lookup(&inference(), "POST", b"/v1/chat/completions/"),
        Verdict::NotExposed
    );
    assert_eq!(
        lookup(&inference(), "GET", b"/v1/responses/"),
        Verdict::NotExposed
    );
    assert_eq!(
        lookup(&inference(), "GET", b"/v1/responses/a/b"),
        Verdict::NotExposed
    );
}

#[test]
fn a_known_path_with_another_method_names_the_methods_it_has() {
    for (method, path, allow) in [
        ("GET", "/v1/chat/completions", "POST"),
        ("post", "/v1/chat/completions", "POST"),
        ("POST", "/v1/models", "GET, HEAD"),
        ("DELETE", "/v1/responses/resp_1", "GET, HEAD"),
        ("GET", "/v1/responses/resp_1/cancel", "POST"),
    ] {
        let verdict = lookup(&inference(), method, path.as_bytes());
        assert_eq!(
            verdict,
            Verdict::MethodNotAllowed(allow.into()),
            "{method} {path}"
        );
    }
}

#[test]
fn a_model_name_is_decoded_once_and_cannot_climb() {
    for (name, decoded) in [
        ("DeepSeek-R1", "DeepSeek-R1"),
        ("deepseek-ai/DeepSeek-R1", "deepseek-ai/DeepSeek-R1"),
        ("deepseek-ai%2FDeepSeek-R1", "deepseek-ai/DeepSeek-R1"),
        ("a:b@c", "a:b@c"),
        ("%E6%A8%A1", "模"),
    ] {
        for path in [format!("/v1/models/{name}"), format!("/models/{name}")] {
            assert!(exposed(&inference(), "GET", &path), "{path}");
            assert_eq!(model_of(path.as_bytes()).as_deref(), Some(decoded));
        }
    }
    assert_eq!(model_of(b"/v1/models/%E6%A8"), None);
    assert_eq!(model_of(b"/v1/models"), None);
    for name in [
        "",
        "..",
        "%2e%2e",
        "%2E%2E%2Fserver_info",
        "../flush_cache",
        "a/../b",
        "a%2f..%2fb",
        "a//b",
        "a%2F%2Fb",
        "%252e%252e",
        "%",
        "%4",
        "%zz",
        "a%00",
        "a%0d%0ab",
        "a%5cb",
        "a\\b",
        "a%3Fb",
        "a%23b",
        "a;b",
        "a%3bb",
        "a/",
        "a%2F",
        "a b",
        "%2F",
        "/a",
    ] {
        assert!(
            !exposed(&inference(), "GET", &format!("/v1/models/{name}")),
            "{name}"
        );
    }
    assert!(!exposed(
        &inference(),
        "GET",
        &format!("/v1/models/{}", "a".repeat(513))
    ));
}

#[test]
fn extra_paths_open_exactly_what_they_say() {
    let expose = with(&[
        (Some("GET"), "/version", false),
        (None, "/pooling", false),
        (Some("POST"), "/x/", true),
        (Some("DELETE"), "/v1/responses/r", false),
    ]);
    assert!(exposed(&expose, "GET", "/version") && exposed(&expose, "HEAD", "/version"));
    assert_eq!(
        lookup(&expose, "POST", b"/version"),
        Verdict::MethodNotAllowed("GET".into())
    );
    assert_eq!(
        lookup(&expose, "PATCH", b"/v1/responses/r"),
        Verdict::MethodNotAllowed("GET, HEAD, DELETE".into())
    );
    assert!(!exposed(&expose, "GET", "/version/x") && !exposed(&expose, "GET", "/versionx"));
    assert!(exposed(&expose, "POST", "/x/a/b/") && exposed(&expose, "POST", "/x/"));
    assert!(!exposed(&expose, "POST", "/x") && !exposed(&expose, "POST", "/x/../flush_cache"));
    assert!(
        !call(&expose, "POST", "/pooling").repeatable
            && call(&expose, "PUT", "/pooling").repeatable
    );
}

#[test]
fn all_exposes_everything_as_it_came() {
    for path in ["/flush_cache", "/a/../b//%2Fd%41", "/", "*"] {
        assert!(!call(&Expose::All, "POST", path).repeatable);
        assert!(call(&Expose::All, "GET", path).repeatable);
    }
    let chat = call(&Expose::All, "POST", "/v1/chat/completions");
    assert!(chat.repeatable && chat.dialect == Chat);
    assert_eq!(call(&Expose::All, "POST", "/chat/completions").prefix, "");
    assert!(!call(&Expose::All, "PATCH", "/v1/models").repeatable);
    for path in ["/v1/models", "/models", "/v1/models/a"] {
        assert_eq!(call(&Expose::All, "GET", path).own, None);
    }
}

proptest! {
    #[test]
    fn whatever_is_exposed_stays_below_its_prefix_after_decoding_and_normalising(path in "/v1/(models/)?[a-c/.%2eEfF5;\\\\]{0,16}") {
        let expose = with(&[(None, "/v1/", true)]);
        if exposed(&expose, "GET", &path) {
            let mut decoded = path.clone();
            for _ in 0..3 {
                decoded = decoded.replace("%2e", ".").replace("%2E", ".").replace("%2f", "/").replace("%2F", "/");
                decoded = decoded.replace("%25", "%").replace('\\', "/");
            }
            prop_assert!(!decoded.split('/').any(|segment| segment == ".."), "{path}");
        }
    }
}

#[test]
fn what_a_body_is_goes_by_the_path() {
    for (method, path, body) in [
        ("POST", "/v1/chat/completions", BodyKind::Json),
        ("POST", "/embeddings", BodyKind::Json),
        ("POST", "/v1/audio/transcriptions", BodyKind::Form),
        ("POST", "/v1/audio/speech", BodyKind::Json),
        ("POST", "/v1/responses/resp_1/cancel", BodyKind::Any),
        ("GET", "/v1/models", BodyKind::Any),
    ] {
        assert_eq!(call(&inference(), method, path).body, body, "{path}");
        assert_eq!(call(&Expose::All, method, path).body, body, "{path}");
    }
    assert_eq!(call(&Expose::All, "POST", "/pause").body, BodyKind::Any);
}
