use serde_json::json;

use super::*;

fn every_error() -> Vec<ApiError> {
    let retry_after = Duration::from_millis(1500);
    vec![
        ApiError::InvalidValue {
            param: Some("n"),
            problem: "n must be at most 16".into(),
        },
        ApiError::NotAllowedHere {
            address: IpAddr::from([10, 0, 0, 7]),
            key: "status_allow",
        },
        ApiError::path_not_exposed("POST", b"/flush_cache"),
        ApiError::method_not_allowed("GET", "POST".into()),
        ApiError::RequestTimeout,
        ApiError::RequestTooLarge { limit: 64 << 20 },
        ApiError::HeaderTooLarge { limit: 64 << 10 },
        ApiError::Internal,
        ApiError::UpstreamFailed,
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
            (403, "permission_error", "not_allowed_here", None),
            (404, "invalid_request_error", "path_not_exposed", None),
            (405, "invalid_request_error", "method_not_allowed", None),
            (408, "invalid_request_error", "request_timeout", None),
            (413, "invalid_request_error", "request_too_large", None),
            (431, "invalid_request_error", "header_too_large", None),
            (500, "server_error", "internal_error", None),
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
        let body: Value = serde_json::from_slice(&error.body()).unwrap();
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
        ApiError::RequestTimeout.body(),
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
    let body: Value = serde_json::from_slice(&error.body()).unwrap();
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
