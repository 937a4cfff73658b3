//! What an engine sees of a request: nginx's fields, and nothing that belongs to the client's connection.

use crate::support::{
    Client, Engine, Fault, Gateway, H2, Request, chat, chat_body, engine, get, h2_post, post,
};

async fn one_engine() -> (Engine, Gateway) {
    let engine = engine().await;
    let gateway = Gateway::start(&format!("endpoints: [\"{}\"]", engine.authority())).await;
    (engine, gateway)
}

/// The head of `request` as the engine got it, the request id masked.
async fn seen(engine: &Engine, gateway: &Gateway, request: &Request) -> String {
    engine.clear_requests();
    let answer = gateway.ask(request).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let inferences = engine.inferences();
    let head = String::from_utf8(inferences[0].head.to_vec()).unwrap();
    let id = inferences[0].header("x-request-id").unwrap();
    head.replace(id, "ID")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_head_is_built_to_the_byte() {
    let (engine, gateway) = one_engine().await;
    let length = chat_body(false).len();
    let head = seen(
        &engine,
        &gateway,
        &chat(false).field("X-Mine: 1").field("user-agent: me"),
    )
    .await;
    assert_eq!(
        head,
        format!(
            "POST /v1/chat/completions HTTP/1.1\r\nHost: gateway.example\r\nX-Real-IP: 127.0.0.1\r\n\
             X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Request-Id: ID\r\n\
             X-Mine: 1\r\nuser-agent: me\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n"
        )
    );
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn host_is_lower_case_without_port() {
    let (engine, gateway) = one_engine().await;
    for (sent, expected) in [
        ("Host: GW.Example.COM:18080", "gw.example.com"),
        ("Host: [::1]:80", "[::1]"),
        ("Host: [::1]", "[::1]"),
        ("Host: 10.0.0.1", "10.0.0.1"),
        ("host:    gw   ", "gw"),
    ] {
        seen(&engine, &gateway, &chat(false).field(sent)).await;
        assert_eq!(
            engine.inferences()[0].header_all("host"),
            [expected],
            "{sent}"
        );
    }
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_host_the_engine_is_told_its_own_name() {
    let (engine, gateway) = one_engine().await;
    let request = chat(false).version("HTTP/1.0").without_host();
    seen(&engine, &gateway, &request).await;
    assert_eq!(
        engine.inferences()[0].header_all("host"),
        [engine.authority()]
    );
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_absolute_target_is_taken_apart() {
    let (engine, gateway) = one_engine().await;
    let target = "http://Foo.bar:99/v1/chat/completions?x=1&y=%20";
    let request = post(target, chat_body(false)).field("Host: Foo.bar:99");
    let head = seen(&engine, &gateway, &request).await;
    let expected = "POST /v1/chat/completions?x=1&y=%20 HTTP/1.1\r\nHost: foo.bar\r\n";
    assert!(head.starts_with(expected), "{head}");
    let old = post(target, chat_body(false))
        .version("HTTP/1.0")
        .without_host();
    assert!(seen(&engine, &gateway, &old).await.starts_with(expected));
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_absolute_target_that_disagrees_with_host_is_refused() {
    let (engine, gateway) = one_engine().await;
    let request = post("http://foo.bar/v1/chat/completions", chat_body(false)).field("Host: other");
    assert_eq!(gateway.ask(&request).await.status, 400);
    assert_eq!(engine.inferences().len(), 0);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn path_and_query_pass_as_they_came() {
    let (engine, gateway) = one_engine().await;
    gateway
        .reload(&format!(
            "endpoints: [\"{}\"]\nexpose: all",
            engine.authority()
        ))
        .await;
    for target in [
        "/a/../b//%2Fd%41?x=%2F&y=a+b",
        "//double",
        "/%7Euser/;v=1",
        "/v1/models?",
        "/x?y?z=/../",
    ] {
        engine.clear_requests();
        assert_eq!(
            gateway.ask(&get(target)).await.status,
            if target == "/v1/models?" { 200 } else { 404 }
        );
        let requests = engine.requests();
        assert!(
            requests.iter().any(|request| request.target == target),
            "{target}: {requests:?}"
        );
    }
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forwarding_fields_are_the_gateways_own() {
    let (engine, gateway) = one_engine().await;
    let request = chat(false)
        .field("X-Forwarded-For: 1.1.1.1")
        .field("X-Real-IP: 9.9.9.9")
        .field("x-forwarded-for: 2.2.2.2, 3.3.3.3")
        .field("X-Forwarded-Proto: https");
    seen(&engine, &gateway, &request).await;
    let received = &engine.inferences()[0];
    assert_eq!(
        received.header_all("x-forwarded-for"),
        ["1.1.1.1, 2.2.2.2, 3.3.3.3, 127.0.0.1"]
    );
    assert_eq!(received.header_all("x-real-ip"), ["127.0.0.1"]);
    assert_eq!(received.header_all("x-forwarded-proto"), ["http"]);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trusted_proxy_may_say_that_its_client_spoke_tls() {
    let engine = engine().await;
    let yaml = format!(
        "endpoints: [\"{}\"]\ntrusted_proxies: [127.0.0.0/8]",
        engine.authority()
    );
    let gateway = Gateway::start(&yaml).await;
    gateway
        .ask(&chat(false).field("X-Forwarded-Proto: https"))
        .await;
    assert_eq!(
        engine.inferences()[0].header_all("x-forwarded-proto"),
        ["https"]
    );
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_told_to_the_engine_and_h2_needs_no_host() {
    let engine = engine().await;
    let gateway = Gateway::with_tls(&format!("endpoints: [\"{}\"]", engine.authority())).await;
    let body = chat_body(false);
    let mut request = h2_post("/v1/chat/completions", body.len(), true);
    request.headers_mut().insert("x-mine", "1".parse().unwrap());
    let answer = H2::connect(&gateway)
        .await
        .ask(request, body.as_bytes())
        .await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let received = &engine.inferences()[0];
    assert_eq!(received.header_all("host"), ["gateway.example"]);
    assert_eq!(received.header_all("x-forwarded-proto"), ["https"]);
    assert_eq!(received.header_all("x-mine"), ["1"]);
    assert!(
        received
            .headers
            .iter()
            .all(|(name, _)| !name.starts_with(':'))
    );
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_belongs_to_one_hop_stays_there() {
    let (engine, gateway) = one_engine().await;
    let request = chat(false)
        .field("Connection: keep-alive, X-Gone, close-not")
        .field("X-Gone: 1")
        .field("Close-Not: 1")
        .field("Keep-Alive: timeout=5")
        .field("TE: trailers")
        .field("Trailer: X-Sum")
        .field("Upgrade: websocket")
        .field("HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA")
        .field("Proxy-Connection: keep-alive")
        .field("Proxy-Authorization: Basic eDp5")
        .field("Expect: something-else")
        .field("X_Under: 1")
        .field("Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        .field("X-Stays: 1");
    let head = seen(&engine, &gateway, &request).await.to_ascii_lowercase();
    for gone in [
        "connection:",
        "x-gone",
        "close-not",
        "keep-alive",
        "te:",
        "trailer",
        "upgrade",
        "http2",
        "proxy-",
        "expect",
        "transfer-encoding",
        "x_under",
    ] {
        let found = head.split("\r\n").find(|line| line.starts_with(gone));
        assert_eq!(found, None, "{gone}");
    }
    for kept in [
        "x-stays: 1\r\n",
        "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n",
    ] {
        assert!(head.contains(kept), "{kept}");
    }
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connection_may_not_nominate_what_the_gateway_goes_by() {
    let (engine, gateway) = one_engine().await;
    for name in [
        "Host",
        "content-length",
        "X-Forwarded-For",
        "x-forwarded-proto",
        "close, Host",
    ] {
        let answer = gateway
            .ask(&chat(false).field(&format!("Connection: {name}")))
            .await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (400, "invalid_value"),
            "{name}"
        );
    }
    assert_eq!(engine.inferences().len(), 0);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_is_dropped_and_the_request_relayed_without_it() {
    let (engine, gateway) = one_engine().await;
    gateway
        .reload(&format!(
            "endpoints: [\"{}\"]\nexpose: [GET /version]",
            engine.authority()
        ))
        .await;
    let mut client = Client::connect(gateway.address).await;
    let request = chat(false)
        .field("Connection: Upgrade")
        .field("Upgrade: h2c");
    assert_eq!(client.ask(&request).await.status, 200);
    let websocket = get("/version")
        .field("Connection: Upgrade")
        .field("Upgrade: websocket")
        .field("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
        .field("Sec-WebSocket-Version: 13");
    let mut client = Client::connect(gateway.address).await;
    assert_eq!(client.ask(&websocket).await.status, 200);
    assert!(
        engine
            .requests()
            .iter()
            .all(|request| request.header("upgrade").is_none())
    );
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fit_request_id_is_kept_and_another_made_anew() {
    let (engine, gateway) = one_engine().await;
    let longest = "a".repeat(128);
    for id in ["abc-DEF_1.2", longest.as_str()] {
        engine.clear_requests();
        let answer = gateway
            .ask(&chat(false).field(&format!("X-Request-Id: {id}")))
            .await;
        assert_eq!(answer.all("x-request-id"), [id]);
        assert_eq!(engine.inferences()[0].header_all("x-request-id"), [id]);
    }
    let too_long = "a".repeat(129);
    for id in ["", "a b", "a/b", "a\"b", "ä", too_long.as_str()] {
        engine.clear_requests();
        let answer = gateway
            .ask(&chat(false).field(&format!("X-Request-Id: {id}")))
            .await;
        let made = answer.field("x-request-id").unwrap();
        assert_eq!(engine.inferences()[0].header_all("x-request-id"), [made]);
        assert!(
            made.len() == 32 && made.bytes().all(|b| b.is_ascii_hexdigit()),
            "{id}: {made}"
        );
    }
    let ids = [
        gateway.ask(&chat(false)).await,
        gateway.ask(&chat(false)).await,
    ];
    assert_ne!(ids[0].field("x-request-id"), ids[1].field("x-request-id"));
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoints_key_replaces_the_clients_and_reaches_no_other() {
    let (keyed, open) = (engine().await, engine().await);
    let yaml = format!(
        "pools: {{ default: {{ policy: round_robin, endpoints: \
         [{{ url: \"{}\", api_key: sk-of-the-engine }}, \"{}\"] }} }}",
        keyed.authority(),
        open.authority()
    );
    let gateway = Gateway::start(&yaml).await;
    let request = chat(false)
        .field("Authorization: Bearer sk-of-the-client")
        .field("x-api-key: sk-2")
        .field("Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.sk-3");
    for _ in 0..4 {
        assert_eq!(gateway.ask(&request).await.status, 200);
    }
    assert_eq!((keyed.inferences().len(), open.inferences().len()), (2, 2));
    for received in keyed.inferences() {
        assert_eq!(
            received.header_all("authorization"),
            ["Bearer sk-of-the-engine"]
        );
        assert_eq!(received.header("x-api-key"), None);
        assert_eq!(received.header_all("sec-websocket-protocol"), ["realtime"]);
    }
    for received in open.inferences() {
        assert_eq!(
            received.header_all("authorization"),
            ["Bearer sk-of-the-client"]
        );
        assert_eq!(received.header_all("x-api-key"), ["sk-2"]);
        assert_eq!(
            received.header_all("sec-websocket-protocol"),
            ["realtime, openai-insecure-api-key.sk-3"]
        );
    }
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moving_from_a_keyed_endpoint_leaves_its_key_behind() {
    let (keyed, open) = (engine().await, engine().await);
    keyed.fail_next(1, Fault::Status(500));
    let yaml = format!(
        "pools: {{ default: {{ endpoints: [{{ url: \"{}\", api_key: sk-of-the-engine }}, \
         {{ url: \"{}\", backup: true }}] }} }}",
        keyed.authority(),
        open.authority()
    );
    let gateway = Gateway::start(&yaml).await;
    assert_eq!(
        gateway
            .ask(&chat(false).field("Authorization: Bearer mine"))
            .await
            .status,
        200
    );
    assert_eq!(
        keyed.inferences()[0].header_all("authorization"),
        ["Bearer sk-of-the-engine"]
    );
    assert_eq!(
        open.inferences()[0].header_all("authorization"),
        ["Bearer mine"]
    );
    gateway.finish().await;
}
