//! What a client sees of an engine's answer.

use crate::support::{Client, End, Gateway, H2, H2End, Puppet, Then, get, h2_post, post};

async fn behind(answer: &str) -> (Puppet, Gateway) {
    let puppet = Puppet::answering(answer, Then::Keep).await;
    let yaml = format!(
        "endpoints: [\"{}\"]\nexpose: [/thing, /events]",
        puppet.authority()
    );
    let gateway = Gateway::start(&yaml).await;
    (puppet, gateway)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answers_head_passes_without_what_belongs_to_one_hop() {
    let (_puppet, gateway) = behind(
        "HTTP/1.1 200 Fine\r\nDate: yesterday\r\nServer: uvicorn\r\nContent-Type: text/x\r\n\
         Content-Length: 2\r\nConnection: keep-alive, X-Gone\r\nKeep-Alive: timeout=5\r\nX-Gone: 1\r\n\
         Proxy-Authenticate: Basic\r\nTrailer: X-Sum\r\nX-Accel-Redirect: /secret\r\nX-Pad: p\r\n\
         Via: 1.1 other\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Stays: 1\r\nX-Request-Id: theirs\r\n\r\nok",
    )
    .await;
    let answer = gateway
        .ask(&get("/thing").field("X-Request-Id: mine"))
        .await;
    assert_eq!(
        (answer.version.as_str(), answer.status, answer.text()),
        ("HTTP/1.1", 200, "ok")
    );
    assert_eq!(answer.all("server"), ["sluicegate"]);
    assert_eq!(answer.all("content-type"), ["text/x"]);
    assert_eq!(answer.all("content-length"), ["2"]);
    assert_eq!(answer.all("via"), ["1.1 other"]);
    assert_eq!(answer.all("set-cookie"), ["a=1", "b=2"]);
    assert_eq!(answer.all("x-stays"), ["1"]);
    assert_eq!(answer.all("x-request-id"), ["mine"]);
    let dates = answer.all("date");
    assert!(dates.len() == 1 && dates[0].ends_with(" GMT"), "{dates:?}");
    for gone in [
        "keep-alive",
        "x-gone",
        "proxy-authenticate",
        "trailer",
        "x-accel-redirect",
        "x-pad",
    ] {
        assert_eq!(answer.field(gone), None, "{gone}");
    }
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn head_keeps_the_length_and_has_no_body() {
    let (puppet, gateway) =
        behind("HTTP/1.1 200 OK\r\ncontent-length: 5000\r\ncontent-type: text/x\r\n\r\n").await;
    let mut client = Client::connect(gateway.address).await;
    for _ in 0..2 {
        let answer = client.ask(&get("/thing").method("HEAD")).await;
        assert_eq!(
            (answer.status, answer.field("content-length")),
            (200, Some("5000"))
        );
        assert!(answer.keeps_alive());
    }
    assert!(
        puppet.requests()[0]
            .0
            .starts_with("HEAD /thing HTTP/1.1\r\n")
    );
    assert_eq!(puppet.accepts() - puppet.probes(), 1);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statuses_without_a_body_have_none_and_keep_both_connections() {
    for (status, length) in [(204, None), (304, Some("12"))] {
        let field = length.map_or(String::new(), |length| {
            format!("content-length: {length}\r\n")
        });
        let (puppet, gateway) = behind(&format!(
            "HTTP/1.1 {status} X\r\n{field}etag: \"v\"\r\n\r\n"
        ))
        .await;
        let mut client = Client::connect(gateway.address).await;
        for _ in 0..2 {
            let answer = client.ask(&get("/thing")).await;
            assert_eq!(
                (answer.status, answer.field("etag")),
                (status, Some("\"v\""))
            );
            assert_eq!(answer.field("content-length"), length);
            assert_eq!(answer.field("transfer-encoding"), None);
            assert!(answer.keeps_alive() && answer.body.is_empty());
        }
        assert_eq!(puppet.accepts() - puppet.probes(), 1);
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_of_unknown_length_is_framed_for_each_client() {
    let mut puppet = Puppet::start().await;
    let yaml = format!("endpoints: [\"{}\"]\nexpose: [/thing]", puppet.authority());
    let gateway = Gateway::start(&yaml).await;
    for (version, connection) in [
        ("HTTP/1.1", "keep-alive"),
        ("HTTP/1.0", "close"),
        ("HTTP/1.0", "keep-alive"),
    ] {
        let mut client = Client::connect(gateway.address).await;
        let request = get("/thing")
            .version(version)
            .field(&format!("Connection: {connection}"));
        client.send(request.bytes()).await;
        let mut exchange = puppet.next().await;
        exchange
            .write("HTTP/1.1 200 OK\r\ncontent-type: text/x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")
            .await;
        let head = client.head().await;
        assert_eq!(client.body_until("abc").await, "abc");
        exchange
            .answer("4;x=y\r\ndefg\r\n0\r\nX-Sum: 1\r\n\r\n")
            .await;
        let (rest, end) = client.rest().await;
        assert_eq!(
            (head.field("content-length"), rest.as_slice()),
            (None, &b"defg"[..])
        );
        let chunked = version == "HTTP/1.1";
        assert_eq!(
            head.field("transfer-encoding"),
            chunked.then_some("chunked")
        );
        assert_eq!(end, if chunked { End::Framed } else { End::Closed });
    }
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_ends_with_its_connection_is_passed_whole_and_not_pooled() {
    let puppet = Puppet::answering(
        "HTTP/1.1 200 OK\r\ncontent-type: text/x\r\n\r\nabc",
        Then::Close,
    )
    .await;
    let yaml = format!("endpoints: [\"{}\"]\nexpose: [/thing]", puppet.authority());
    let gateway = Gateway::start(&yaml).await;
    for _ in 0..2 {
        let answer = gateway.ask(&get("/thing")).await;
        assert_eq!((answer.text(), answer.end), ("abc", End::Framed));
    }
    assert_eq!(puppet.accepts() - puppet.probes(), 2);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h2_has_no_field_of_h1s_framing() {
    let puppet = Puppet::answering(
        "HTTP/1.1 200 OK\r\ncontent-type: text/x\r\ntransfer-encoding: chunked\r\n\
         connection: keep-alive\r\nX-Mixed-Case: 1\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        Then::Keep,
    )
    .await;
    let yaml = format!("endpoints: [\"{}\"]\nexpose: [/thing]", puppet.authority());
    let gateway = Gateway::with_tls(&yaml).await;
    let answer = H2::connect(&gateway)
        .await
        .ask(h2_post("/thing", 0, false), b"")
        .await;
    assert_eq!(
        (answer.status(), answer.text(), answer.end),
        (200, "abc", H2End::Whole)
    );
    assert_eq!(answer.field("x-mixed-case"), Some("1"));
    assert_eq!(answer.field("server"), Some("sluicegate"));
    assert!(answer.field("x-request-id").is_some());
    assert_eq!(
        (
            answer.field("transfer-encoding"),
            answer.field("connection")
        ),
        (None, None)
    );
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_4xx_passes_to_the_byte() {
    let body = r#"{"detail":  [ "spaced" ]}"#;
    let (_puppet, gateway) = behind(&format!(
        "HTTP/1.1 422 Unprocessable Content\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ))
    .await;
    let answer = gateway.ask(&post("/thing", "{}")).await;
    assert_eq!((answer.status, answer.text()), (422, body));
    gateway.finish().await;
}
