//! A client's connection: kept or closed as HTTP/1.0 and 1.1 have it, pipelined, asked to continue.

use crate::support::{
    Client, End, Engine, Gateway, H2, Request, chat, chat_body, engine, get, h2_answer, h2_post,
    post,
};

async fn one_engine() -> (Engine, Gateway) {
    let engine = engine().await;
    let gateway = Gateway::start(&format!("endpoints: [\"{}\"]", engine.authority())).await;
    (engine, gateway)
}

fn http_10(request: Request) -> Request {
    request.version("HTTP/1.0")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_11_is_kept_alive_until_the_client_says_close() {
    let (_engine, gateway) = one_engine().await;
    let mut client = Client::connect(gateway.address).await;
    for stream in [false, true, false] {
        let answer = client.ask(&chat(stream)).await;
        assert_eq!((answer.status, answer.end), (200, End::Framed));
        assert!(answer.keeps_alive());
    }
    let answer = client.ask(&chat(false).field("Connection: close")).await;
    assert_eq!(
        (answer.status, answer.field("connection")),
        (200, Some("close"))
    );
    assert_eq!(client.ended().await, End::Closed);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_10_closes_by_itself() {
    let (engine, gateway) = one_engine().await;
    for stream in [false, true] {
        let mut client = Client::connect(gateway.address).await;
        let answer = client.ask(&http_10(chat(stream))).await;
        assert_eq!((answer.status, answer.version.as_str()), (200, "HTTP/1.1"));
        assert_eq!(answer.field("transfer-encoding"), None);
        if stream {
            assert!(answer.text().ends_with("data: [DONE]\n\n") && answer.end == End::Closed);
        } else {
            assert_eq!(answer.json()["object"], "chat.completion");
            assert_eq!(client.ended().await, End::Closed);
        }
    }
    assert!(
        engine
            .inferences()
            .iter()
            .all(|request| request.version == "HTTP/1.1")
    );
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_10_with_keep_alive_is_kept_where_the_length_is_known() {
    let (_engine, gateway) = one_engine().await;
    let mut client = Client::connect(gateway.address).await;
    let ask = |stream| http_10(chat(stream)).field("Connection: Keep-Alive");
    for _ in 0..3 {
        let answer = client.ask(&ask(false)).await;
        assert_eq!((answer.status, answer.end), (200, End::Framed));
        let said = answer.field("connection").map(str::to_ascii_lowercase);
        assert_eq!(said.as_deref(), Some("keep-alive"), "ab waits for this");
    }
    let answer = client.ask(&ask(true)).await;
    assert_eq!(answer.field("transfer-encoding"), None);
    assert!(answer.text().ends_with("data: [DONE]\n\n"));
    assert_eq!(
        answer.end,
        End::Closed,
        "the end of a stream is the end of the connection"
    );
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelined_requests_are_answered_in_order() {
    let (engine, gateway) = one_engine().await;
    let mut client = Client::connect(gateway.address).await;
    let ask = |n: usize, stream| chat(stream).field(&format!("X-Request-Id: r{n}"));
    let models = get("/v1/models").field("X-Request-Id: r3");
    let local = get("/health").field("X-Request-Id: r4");
    let refused = get("/nothing").field("X-Request-Id: r5");
    let all = [
        ask(0, false).bytes(),
        ask(1, true).bytes(),
        ask(2, false).chunked(7).bytes(),
        models.bytes(),
        local.bytes(),
        refused.bytes(),
        ask(6, false).bytes(),
    ];
    client.send(all.concat()).await;
    for (n, status) in [200, 200, 200, 200, 200, 404, 200].into_iter().enumerate() {
        let answer = client.answer().await;
        assert_eq!(answer.field("x-request-id"), Some(format!("r{n}").as_str()));
        assert_eq!((answer.status, answer.end), (status, End::Framed));
    }
    let ids: Vec<_> = engine
        .inferences()
        .iter()
        .map(|r| r.header("x-request-id").unwrap().to_owned())
        .collect();
    assert_eq!(ids, ["r0", "r1", "r2", "r6"]);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_comes_while_another_is_answered_waits_its_turn() {
    let (engine, gateway) = one_engine().await;
    engine.hold();
    let mut client = Client::connect(gateway.address).await;
    client
        .send(chat(true).field("X-Request-Id: first").bytes())
        .await;
    engine.wait_for_arrivals(1).await;
    // Byte by byte, so that the gateway's watch for a client that leaves meets every cut.
    for byte in chat(false).field("X-Request-Id: second").bytes() {
        client.send([byte]).await;
    }
    engine.release();
    for id in ["first", "second"] {
        let answer = client.answer().await;
        assert_eq!(
            (answer.status, answer.field("x-request-id")),
            (200, Some(id))
        );
    }
    assert_eq!(
        engine.inferences()[1].body.as_deref(),
        Some(chat_body(false).as_bytes())
    );
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn continue_is_said_before_the_body_is_sent() {
    let (engine, gateway) = one_engine().await;
    let mut client = Client::connect(gateway.address).await;
    let request = chat(false).field("Expect: 100-continue");
    client.send(request.head()).await;
    let head = client.head().await;
    assert_eq!(
        (head.status, head.fields.len()),
        (100, 0),
        "{:?}",
        head.fields
    );
    client.send(request.framed_body()).await;
    assert_eq!(client.answer().await.status, 200);
    assert_eq!(engine.inferences()[0].header("expect"), None);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn continue_is_not_said_to_what_will_be_refused() {
    let (engine, gateway) = one_engine().await;
    let too_large = post("/v1/completions", "x").field("Content-Length: 67108865");
    for (request, status, code) in [
        (post("/flush_cache", "x"), 404, "path_not_exposed"),
        (post("/v1/models", "x"), 405, "method_not_allowed"),
        (too_large, 413, "request_too_large"),
    ] {
        let mut client = Client::connect(gateway.address).await;
        client
            .send(request.field("Expect: 100-continue").head())
            .await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code));
        assert_eq!(answer.field("connection"), Some("close"));
    }
    assert_eq!(engine.inferences().len(), 0);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_speaks_http_11_too() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let engine = engine().await;
    let gateway = Gateway::with_tls(&format!("endpoints: [\"{}\"]", engine.authority())).await;
    let (address, certificate) = gateway.tls.as_ref().unwrap();
    for protocols in [&[][..], &[&b"http/1.1"[..]][..]] {
        let connector = tokio_rustls::TlsConnector::from(certificate.client(protocols));
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        let mut stream = connector.connect(name, stream).await.unwrap();
        let request = chat(false).field("Connection: close");
        stream.write_all(&request.bytes()).await.unwrap();
        let mut answer = String::new();
        // A server may close without close_notify; what was read counts.
        let _ = stream.read_to_string(&mut answer).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }
    assert!(
        engine
            .inferences()
            .iter()
            .all(|r| r.header("x-forwarded-proto") == Some("https"))
    );
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_h2_connection_carries_many_requests_at_once() {
    let engine = engine().await;
    let gateway = Gateway::with_tls(&format!("endpoints: [\"{}\"]", engine.authority())).await;
    engine.hold();
    let mut h2 = H2::connect(&gateway).await;
    let body = chat_body(true);
    let mut answers = Vec::new();
    for _ in 0..20 {
        let request = h2_post("/v1/chat/completions", body.len(), true);
        let (answer, mut stream) = h2.open(request, false).await;
        stream.send_data(body.clone().into(), true).unwrap();
        answers.push(answer);
    }
    engine.wait_for_arrivals(20).await;
    assert_eq!(gateway.endpoint(0).in_flight(), 20);
    engine.release();
    for answer in answers {
        let answer = h2_answer(answer).await;
        assert!(answer.text().ends_with("data: [DONE]\n\n"));
    }
    gateway.finish().await;
}
