//! The requests that go through both, and what the engines answer.

use crate::recorder::End;

/// The guide's file as it is printed, and as its repository has it.
const PRINTED: &str = "guide";
const REPOSITORY: &str = "guide-repository";
/// One behind a load balancer.
const BEHIND: &str = "real-ip";

pub struct Case {
    pub name: &'static str,
    pub file: &'static str,
    pub bytes: Vec<u8>,
    /// The methods of the answers that are read, 1xx included.
    pub answers: &'static [&'static str],
    /// With gateways of its own.
    pub alone: bool,
    /// With engines that refuse connections.
    pub are_dead: bool,
}

fn case(name: &'static str, answers: &'static [&'static str], bytes: impl Into<Vec<u8>>) -> Case {
    Case {
        name,
        file: PRINTED,
        bytes: bytes.into(),
        answers,
        alone: false,
        are_dead: false,
    }
}

/// A request with these lines after its first, each without its end.
fn request(first: &str, fields: &[&str], body: &str) -> String {
    let mut text = format!("{first}\r\n");
    for field in fields {
        text += field;
        text += "\r\n";
    }
    text + "\r\n" + body
}

fn post(path: &str, body: &str) -> String {
    let length = format!("Content-Length: {}", body.len());
    let json = "Content-Type: application/json";
    request(
        &format!("POST {path} HTTP/1.1"),
        &["Host: gateway", json, &length],
        body,
    )
}

fn get(path: &str, fields: &[&str]) -> String {
    let mut all = vec!["Host: gateway"];
    all.extend(fields);
    request(&format!("GET {path} HTTP/1.1"), &all, "")
}

const CHAT: &str = r#"{"model":"m","messages":[{"role":"user","content":"Hi"}]}"#;
const STREAM: &str = r#"{"model":"m","messages":[{"role":"user","content":"Hi"}],"stream":true}"#;
const EVENT: &str = r#"data: {"id":"1","choices":[{"index":0,"delta":{"content":"a"}}]}"#;

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

/// What engines answer to targets that are not answered `{}`.
pub fn replies() -> Vec<(&'static str, Vec<u8>, End)> {
    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    let events = chunk(&format!("{EVENT}\n\n")) + &chunk("data: [DONE]\n\n");
    let body = "{\"error\":{}}";
    let error = |status: &str| {
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    vec![
        ("/head", "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 12345\r\n\r\n".into(), End::Keep),
        ("/v1/chat/completions?stream", format!("{head}{events}0\r\n\r\n").into(), End::Keep),
        ("/v1/chat/completions?cut", format!("{head}{}", chunk(&format!("{EVENT}\n\n"))).into(), End::Close),
        ("/v1/chat/completions?500", error("500 Internal Server Error").into(), End::Keep),
        ("/v1/chat/completions?400", error("400 Bad Request").into(), End::Keep),
        ("/v1/chat/completions?503", error("503 Service Unavailable").into(), End::Keep),
        ("/v1/chat/completions?closes", Vec::new(), End::Close),
        ("/admin?closes", Vec::new(), End::Close),
        ("/two-lengths", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello".into(), End::Close),
        ("/204", "HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n".into(), End::Keep),
        ("/304", "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n".into(), End::Keep),
        ("/redirect", "HTTP/1.1 307 Temporary Redirect\r\nLocation: /v1/models\r\nContent-Length: 0\r\n\r\n".into(), End::Keep),
        ("/no-length", "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nuntil the end".into(), End::Close),
        ("/fields", "HTTP/1.1 200 OK\r\nServer: uvicorn\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nConnection: X-Gone\r\nX-Gone: 1\r\nKeep-Alive: timeout=5\r\nX-Accel-Buffering: no\r\nVia: 1.1 x\r\nX-Twice: 1\r\nX-Twice: 2\r\nSet-Cookie: a=b\r\nContent-Length: 2\r\n\r\nok".into(), End::Keep),
    ]
}

/// Every case, those that hurt an engine last.
pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        case(
            "get",
            &["GET"],
            get(
                "/v1/models?a=b",
                &[
                    "User-Agent: test",
                    "Accept: */*",
                    "Authorization: Bearer sk-1234",
                ],
            ),
        ),
        case("chat", &["POST"], post("/v1/chat/completions", CHAT)),
        case(
            "chunked body",
            &["POST"],
            request(
                "POST /v1/chat/completions HTTP/1.1",
                &["Host: gateway", "Transfer-Encoding: chunked"],
                "5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
            ),
        ),
        case(
            "expect 100",
            &["POST", "POST"],
            request(
                "POST /v1/completions HTTP/1.1",
                &["Host: gateway", "Expect: 100-continue", "Content-Length: 2"],
                "{}",
            ),
        ),
        case(
            "empty post",
            &["POST"],
            request(
                "POST /v1/completions HTTP/1.1",
                &["Host: gateway", "Content-Length: 0"],
                "",
            ),
        ),
        case(
            "put",
            &["PUT"],
            request(
                "PUT /some/where HTTP/1.1",
                &["Host: gateway", "Content-Length: 1"],
                "x",
            ),
        ),
        case(
            "delete",
            &["DELETE"],
            request("DELETE /some/where HTTP/1.1", &["Host: gateway"], ""),
        ),
        case(
            "options",
            &["OPTIONS"],
            request(
                "OPTIONS /v1/chat/completions HTTP/1.1",
                &["Host: gateway", "Origin: http://a"],
                "",
            ),
        ),
        case(
            "unknown method",
            &["PURGE"],
            request("PURGE /x HTTP/1.1", &["Host: gateway"], ""),
        ),
        case(
            "head",
            &["HEAD"],
            request("HEAD /head HTTP/1.1", &["Host: gateway"], ""),
        ),
        case(
            "path with escapes",
            &["GET"],
            get("/a/../b//%2Fd%41/./;x?x=%2F&y=a+b%20c", &[]),
        ),
        case(
            "path with bytes",
            &["GET"],
            get("/\u{e4}/\"x\"?\u{2603}", &[]),
        ),
        case(
            "absolute form",
            &["GET"],
            request(
                "GET http://Foo.bar:99/v1/models?x=1 HTTP/1.1",
                &["Host: Foo.bar:99"],
                "",
            ),
        ),
        case(
            "absolute form of another host",
            &["GET"],
            request(
                "GET http://Foo.bar:99/v1/models?x=1 HTTP/1.1",
                &["Host: other"],
                "",
            ),
        ),
        case(
            "host with port",
            &["GET"],
            request(
                "GET /v1/models HTTP/1.1",
                &["Host: GW.Example.COM:18080"],
                "",
            ),
        ),
        case(
            "host of IPv6",
            &["GET"],
            request("GET /v1/models HTTP/1.1", &["Host: [::1]:80"], ""),
        ),
        case(
            "one hop's fields",
            &["GET"],
            get(
                "/v1/models",
                &[
                    "Connection: keep-alive, X-Nominated",
                    "X-Nominated: 1",
                    "Keep-Alive: timeout=5",
                    "TE: trailers",
                    "Upgrade: websocket",
                    "Proxy-Connection: keep-alive",
                    "Proxy-Authorization: Basic eA==",
                    "Trailer: X-A",
                ],
            ),
        ),
        case(
            "forwarded",
            &["GET"],
            get(
                "/v1/models",
                &[
                    "X-Forwarded-For: 1.1.1.1",
                    "X-Forwarded-For: 2.2.2.2, 3.3.3.3",
                    "X-Real-IP: 9.9.9.9",
                    "X-Forwarded-Proto: https",
                ],
            ),
        ),
        case(
            "own request id",
            &["GET"],
            get("/v1/models", &["X-Request-Id: abc-123"]),
        ),
        case(
            "underscore",
            &["GET"],
            get("/v1/models", &["X_Under: 1", "X-Over: 2"]),
        ),
        case("close", &["GET"], get("/v1/models", &["Connection: close"])),
        case(
            "http/1.0",
            &["GET"],
            request("GET /v1/models HTTP/1.0", &["Host: gateway"], ""),
        ),
        case(
            "http/1.0 kept",
            &["GET"],
            request(
                "GET /v1/models HTTP/1.0",
                &["Host: gateway", "Connection: Keep-Alive"],
                "",
            ),
        ),
        case(
            "http/1.0 without host",
            &["GET"],
            request("GET /v1/models HTTP/1.0", &[], ""),
        ),
        case(
            "http/1.0 stream",
            &["POST"],
            request(
                "POST /v1/chat/completions?stream HTTP/1.0",
                &[
                    "Host: gateway",
                    &format!("Content-Length: {}", STREAM.len()),
                ],
                STREAM,
            ),
        ),
        case(
            "pipelined",
            &["GET", "GET"],
            get("/one", &[]) + &get("/two", &[]),
        ),
        case(
            "stream",
            &["POST"],
            post("/v1/chat/completions?stream", STREAM),
        ),
        case("4xx", &["POST"], post("/v1/chat/completions?400", CHAT)),
        case("204", &["GET"], get("/204", &[])),
        case("304", &["GET"], get("/304", &["If-None-Match: \"x\""])),
        case("redirect", &["GET"], get("/redirect", &[])),
        case("answer without length", &["GET"], get("/no-length", &[])),
        case("answer's fields", &["GET"], get("/fields", &[])),
        case(
            "body of 1 MiB",
            &["POST"],
            post("/v1/completions", &"x".repeat(1 << 20)),
        ),
        case(
            "body over 1 MiB",
            &["POST"],
            post("/v1/completions", &"x".repeat((1 << 20) + 1)),
        ),
        case(
            "head of 20 KB",
            &["GET"],
            get("/v1/models", &[&format!("X-Long: {}", "x".repeat(20_000))]),
        ),
        case(
            "head of 100 KB",
            &["GET"],
            get("/v1/models", &[&format!("X-Long: {}", "x".repeat(100_000))]),
        ),
        case("two hosts", &["GET"], get("/v1/models", &["Host: other"])),
        case(
            "no host",
            &["GET"],
            request("GET /v1/models HTTP/1.1", &["Accept: */*"], ""),
        ),
        case(
            "host that is none",
            &["GET"],
            request("GET /v1/models HTTP/1.1", &["Host: a b"], ""),
        ),
        case(
            "length and chunks",
            &["POST"],
            request(
                "POST /v1/completions HTTP/1.1",
                &[
                    "Host: gateway",
                    "Content-Length: 5",
                    "Transfer-Encoding: chunked",
                ],
                "0\r\n\r\n",
            ),
        ),
        case(
            "two lengths",
            &["POST"],
            request(
                "POST /v1/completions HTTP/1.1",
                &["Host: gateway", "Content-Length: 2", "Content-Length: 2"],
                "{}",
            ),
        ),
        case(
            "bad chunk",
            &["POST"],
            request(
                "POST /v1/completions HTTP/1.1",
                &["Host: gateway", "Transfer-Encoding: chunked"],
                "zz\r\nhello\r\n0\r\n\r\n",
            ),
        ),
        case(
            "nominated host",
            &["GET"],
            get("/v1/models", &["Connection: host, x-forwarded-for"]),
        ),
        case(
            "trace",
            &["TRACE"],
            request("TRACE /x HTTP/1.1", &["Host: gateway"], ""),
        ),
        case("health", &["GET"], get("/health", &[])),
        case(
            "health by HEAD",
            &["HEAD"],
            request("HEAD /health HTTP/1.1", &["Host: gateway"], ""),
        ),
        case("health by POST", &["POST"], post("/health", "{}")),
        case("beneath health", &["GET"], get("/health/x", &[])),
        case("health in disguise", &["GET"], get("/x/..//%68ealth", &[])),
        case(
            "the gateway's paths",
            &["GET", "GET", "GET"],
            get("/ready", &[]) + &get("/stub_status", &[]) + &get("/metrics", &[]),
        ),
    ];
    cases.push(Case {
        file: REPOSITORY,
        ..case(
            "metrics of nginx",
            &["GET"],
            get("/metrics", &["Connection: close"]),
        )
    });
    cases.push(Case {
        file: BEHIND,
        ..case(
            "behind a proxy",
            &["GET"],
            get("/v1/models", &["X-Forwarded-For: 192.0.2.1"]),
        )
    });
    let alone = [
        case("500", &["POST"], post("/v1/chat/completions?500", CHAT)),
        case("503", &["POST"], post("/v1/chat/completions?503", CHAT)),
        case(
            "engine closes",
            &["POST"],
            post("/v1/chat/completions?closes", CHAT),
        ),
        case(
            "engine closes another call",
            &["POST"],
            post("/admin?closes", "{}"),
        ),
        case("engine has two lengths", &["GET"], get("/two-lengths", &[])),
        case(
            "stream is cut",
            &["POST"],
            post("/v1/chat/completions?cut", STREAM),
        ),
    ];
    cases.extend(alone.into_iter().map(|case| Case {
        alone: true,
        ..case
    }));
    cases.push(Case {
        are_dead: true,
        ..case("no engine", &["POST"], post("/v1/chat/completions", CHAT))
    });
    cases
}
