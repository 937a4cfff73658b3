use serde_json::json;

use super::*;

fn every_error() -> Vec<ApiError> {
    let retry_after = Duration::from_millis(1500);
    vec![
        ApiError::InvalidValue {
            param: Some("n"),
            problem: "n must be at most 16".into(),
        },
        ApiError::InvalidJson {
            problem: "it ends within a string".into(),
        },
        ApiError::MissingModel,
        ApiError::InvalidApiKey { presented: true },
        ApiError::model_not_allowed(Some("r1")),
        ApiError::NotAllowedHere {
            address: IpAddr::from([10, 0, 0, 7]),
            key: "status_allow",
        },
        ApiError::model_not_found("r2", vec!["r1".to_owned()]),
        ApiError::response_not_found("resp_1"),
        ApiError::OrderRefused {
            problem: "Use the unix socket.",
        },
        ApiError::endpoint_not_found("node0", vec!["node0:8000".to_owned()]),
        ApiError::UpgradeUnderWay {
            retry_after: Duration::from_secs(2),
        },
        ApiError::StillDrained {
            endpoint: "node0:8000".to_owned(),
        },
        ApiError::path_not_exposed("POST", b"/flush_cache"),
        ApiError::method_not_allowed("GET", "POST".into()),
        ApiError::RequestTimeout,
        ApiError::RequestTooLarge { limit: 64 << 20 },
        ApiError::RateLimitExceeded {
            limit: RateLimit::Requests(600),
            retry_after,
        },
        ApiError::HeaderTooLarge { limit: 64 << 10 },
        ApiError::Internal,
        ApiError::UpstreamFailed,
        ApiError::SuspectRequest,
        ApiError::NotAStream,
        ApiError::Overloaded { retry_after },
        ApiError::OutOfBodyMemory { retry_after },
        ApiError::NoEndpointAvailable {
            retry_after: Duration::ZERO,
        },
        ApiError::UpstreamTimeout {
            after: Duration::from_secs(300),
        },
    ]
}

#[test]
fn the_rows_are_the_contract() {
    let rows: Vec<_> = every_error()
        .iter()
        .map(|e| (e.status(), e.kind(), e.code(), e.retry_after()))
        .collect();
    assert_eq!(
        rows,
        [
            (400, "invalid_request_error", "invalid_value", None),
            (400, "invalid_request_error", "invalid_json", None),
            (400, "invalid_request_error", "missing_model", None),
            (401, "authentication_error", "invalid_api_key", None),
            (403, "permission_error", "model_not_allowed", None),
            (403, "permission_error", "not_allowed_here", None),
            (404, "invalid_request_error", "model_not_found", None),
            (404, "invalid_request_error", "response_not_found", None),
            (403, "permission_error", "not_allowed_here", None),
            (404, "invalid_request_error", "endpoint_not_found", None),
            (503, "server_error", "upgrade_under_way", Some(2)),
            (409, "invalid_request_error", "still_drained", None),
            (404, "invalid_request_error", "path_not_exposed", None),
            (405, "invalid_request_error", "method_not_allowed", None),
            (408, "invalid_request_error", "request_timeout", None),
            (413, "invalid_request_error", "request_too_large", None),
            (429, "rate_limit_error", "rate_limit_exceeded", Some(2)),
            (431, "invalid_request_error", "header_too_large", None),
            (500, "server_error", "internal_error", None),
            (502, "server_error", "upstream_failed", None),
            (502, "server_error", "upstream_failed", None),
            (502, "server_error", "upstream_failed", None),
            (503, "server_error", "overloaded", Some(2)),
            (503, "server_error", "overloaded", Some(2)),
            (503, "server_error", "no_endpoint_available", Some(1)),
            (504, "server_error", "upstream_timeout", None),
        ]
    );
}

#[test]
fn a_body_has_openais_four_fields() {
    for error in every_error() {
        let body: Value = serde_json::from_slice(&error.body(Dialect::Chat)).unwrap();
        let object = body["error"].as_object().unwrap();
        assert_eq!(object.len(), 4);
        assert_eq!(object["message"], error.to_string());
        assert_eq!(object["code"], error.code());
        assert_eq!(object["type"], error.kind());
        assert_eq!(object["param"], json!(error.param()));
    }
}

#[test]
fn the_fields_come_in_openais_order() {
    assert_eq!(
        ApiError::RequestTimeout.body(Dialect::Other),
        "{\"error\":{\"message\":\"The request did not arrive in time. Send it again.\",\
         \"type\":\"invalid_request_error\",\"param\":null,\"code\":\"request_timeout\"}}"
    );
}

#[test]
fn a_404_names_the_key_that_would_expose_the_path() {
    let error = ApiError::path_not_exposed("GET", b"/metrics/x");
    assert!(error.to_string().contains("`expose`") && error.to_string().contains("/metrics/x"));
}

#[test]
fn what_a_client_sent_is_cut_and_escaped() {
    let path = [b"/\"\\\x01\xff".as_slice(), "é".repeat(100_000).as_bytes()].concat();
    let error = ApiError::path_not_exposed(&"M".repeat(1000), &path);
    let ApiError::PathNotExposed { method, path } = &error else {
        unreachable!()
    };
    assert_eq!((method.chars().count(), path.chars().count()), (128, 128));
    let body: Value = serde_json::from_slice(&error.body(Dialect::Chat)).unwrap();
    assert!(
        body["error"]["message"]
            .as_str()
            .unwrap()
            .contains("/\"\\\u{1}\u{fffd}é")
    );
}

#[test]
fn an_event_is_in_the_dialect_of_its_stream() {
    let event =
        |dialect| String::from_utf8(ApiError::UpstreamFailed.event(dialect).to_vec()).unwrap();
    assert!(event(Dialect::Chat).starts_with("data: {\"error\":{"));
    let messages = event(Dialect::Messages);
    assert!(messages.starts_with("event: error\ndata: {"));
    let data: Value = serde_json::from_str(messages.split_once("data: ").unwrap().1).unwrap();
    assert_eq!(
        (&data["type"], &data["error"]["type"]),
        (&json!("error"), &json!("api_error"))
    );
    let responses = event(Dialect::Responses);
    let data: Value = serde_json::from_str(responses.split_once("data: ").unwrap().1).unwrap();
    assert_eq!(
        (&data["code"], &data["error"]["code"]),
        (&json!("upstream_failed"), &json!("upstream_failed"))
    );
    for dialect in [
        Dialect::Chat,
        Dialect::Completions,
        Dialect::Messages,
        Dialect::Responses,
        Dialect::Other,
    ] {
        assert!(event(dialect).ends_with("}\n\n") && event(dialect).matches('\n').count() <= 3);
    }
}

#[test]
fn a_body_of_messages_has_anthropics_shape_and_types() {
    let kinds: Vec<String> = every_error()
        .iter()
        .map(|error| {
            let body: Value = serde_json::from_slice(&error.body(Dialect::Messages)).unwrap();
            let object = body["error"].as_object().unwrap();
            assert_eq!((body.as_object().unwrap().len(), object.len()), (2, 2));
            assert_eq!(body["type"], "error");
            assert_eq!(object["message"], error.to_string());
            format!("{} {}", error.status(), object["type"].as_str().unwrap())
        })
        .collect();
    assert_eq!(
        kinds,
        [
            "400 invalid_request_error",
            "400 invalid_request_error",
            "400 invalid_request_error",
            "401 authentication_error",
            "403 permission_error",
            "403 permission_error",
            "404 not_found_error",
            "404 not_found_error",
            "403 permission_error",
            "404 not_found_error",
            "503 overloaded_error",
            "409 invalid_request_error",
            "404 not_found_error",
            "405 invalid_request_error",
            "408 invalid_request_error",
            "413 request_too_large",
            "429 rate_limit_error",
            "431 invalid_request_error",
            "500 api_error",
            "502 api_error",
            "502 api_error",
            "502 api_error",
            "503 overloaded_error",
            "503 overloaded_error",
            "503 overloaded_error",
            "504 api_error",
        ]
    );
}

#[test]
fn a_401_says_how_to_authenticate() {
    let none = ApiError::InvalidApiKey { presented: false };
    assert_eq!(none.www_authenticate(), Some("Bearer"));
    assert!(none.to_string().contains("`x-api-key: KEY`"));
    let wrong = ApiError::InvalidApiKey { presented: true };
    assert_eq!(
        wrong.www_authenticate(),
        Some("Bearer error=\"invalid_token\"")
    );
    for error in every_error() {
        assert_eq!(error.status() == 401, error.www_authenticate().is_some());
    }
}

#[test]
fn a_model_that_does_not_exist_is_answered_with_near_names() {
    let said = |near: &[&str]| {
        let near = near.iter().map(|&name| name.to_owned()).collect();
        ApiError::model_not_found(&"m".repeat(1 << 20), near).to_string()
    };
    let start = format!("The model `{}` does not exist. ", "m".repeat(128));
    for (near, end) in [
        (&[][..], "GET /v1/models lists those that you may use."),
        (&["a"], "Did you mean `a`?"),
        (&["a", "b"], "Did you mean `a` or `b`?"),
        (&["a", "b", "c"], "Did you mean `a`, `b` or `c`?"),
    ] {
        assert_eq!(said(near), format!("{start}{end}"));
    }
}

#[test]
fn a_429_says_which_limit_and_how_long() {
    let said = |limit, millis| {
        let retry_after = Duration::from_millis(millis);
        ApiError::RateLimitExceeded { limit, retry_after }.to_string()
    };
    assert_eq!(
        said(RateLimit::Requests(600), 2500),
        "The API key has had its 600 requests a minute. Send the request again in 3 s."
    );
    assert_eq!(
        said(RateLimit::Tokens(200_000), 0),
        "The API key has had its 200000 tokens a minute. Send the request again in 1 s."
    );
    assert_eq!(
        said(RateLimit::InFlight(64), 1000),
        "The API key has as many requests in flight as it may have, 64. Send the request again in 1 s."
    );
    let (limit, asked) = (1000, 1040);
    assert_eq!(
        said(RateLimit::OneRequest { limit, asked }, 0),
        "Request too large for the API key's tokens a minute: Limit 1000, Requested 1040. Shorten the prompt or lower \
         `max_tokens` (1024 are counted where there is none)."
    );
}

#[test]
fn a_field_that_is_refused_is_named() {
    let steering = ApiError::steering_field("kv_transfer_params");
    assert_eq!(steering.param(), Some("kv_transfer_params"));
    assert!(steering.to_string().contains("`kv_transfer_params`"));
    let many = ApiError::too_many_completions(100, 16);
    assert_eq!((many.param(), many.code()), (Some("n"), "invalid_value"));
    assert!(many.to_string().contains("`limits.n`"));
}
