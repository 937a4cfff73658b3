//! WebSocket on `/v1/realtime`: the handshake, the tunnel, and every way in which the two end.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{
    Certificate, Client, End, Engine, Exchange, Gateway, H2, Opcode, Puppet, Request, Then,
    TlsNode, WebSocket, ask, engine, get, handshake, in_turn, noise, pool, until, within,
};

const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
const KEY: &str = "sk-team-a-0123456789abcdef";
const CLOSE: u8 = Opcode::Close as u8;

async fn before(engine: &Engine, more: &str) -> Gateway {
    Gateway::start(&format!("endpoints: [\"{}\"]\n{more}", engine.authority())).await
}

/// An open tunnel to an engine in the hands of the test.
async fn tunnel(more: &str) -> (Gateway, Puppet, WebSocket, Exchange) {
    let mut engine = Puppet::start().await;
    let gateway = Gateway::start(&format!("endpoints: [\"{}\"]\n{more}", engine.authority())).await;
    let address = gateway.address;
    let opening =
        tokio::spawn(async move { WebSocket::open(address, &handshake("/v1/realtime")).await });
    let mut exchange = engine.next().await;
    exchange.write(SWITCHING).await;
    (gateway, engine, opening.await.unwrap(), exchange)
}

fn lines(gateway: &Gateway) -> Vec<Value> {
    gateway.shared().flush_access_log(Duration::from_secs(1));
    let log = std::fs::read_to_string(gateway.directory().join("access.log")).unwrap_or_default();
    log.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The line of the only request, once it is there.
async fn line(gateway: &Gateway) -> Value {
    until("a line in the log", || !lines(gateway).is_empty()).await;
    let mut lines = lines(gateway);
    assert_eq!(lines.len(), 1, "{lines:#?}");
    lines.remove(0)
}

const LOG: &str = "access_log: { path: access.log, format: json }";

async fn greeted(socket: &mut WebSocket) {
    let (opcode, event) = socket.frame().await;
    let event: Value = serde_json::from_slice(&event).unwrap();
    assert_eq!(
        (opcode, &event["type"]),
        (1, &Value::from("session.created"))
    );
}

/// Speaks for a while, and says good-bye as RFC 6455 has it.
async fn converse(mut socket: WebSocket) {
    greeted(&mut socket).await;
    for length in [0, 5, 125, 126, 70_000, 1 << 20] {
        let payload = noise(length, length as u64);
        socket.send_frame(Opcode::Binary, &payload).await;
        assert!(
            socket.frame().await == (Opcode::Binary as u8, payload),
            "{length}"
        );
    }
    socket.send_frame(Opcode::Ping, b"are you there").await;
    assert_eq!(
        socket.frame().await,
        (Opcode::Pong as u8, b"are you there".to_vec())
    );
    let append = br#"{"type":"input_audio_buffer.append","audio":"AAAA"}"#;
    socket.send_frame(Opcode::Text, append).await;
    let commit = br#"{"type":"input_audio_buffer.commit","final":true}"#;
    socket.send_frame(Opcode::Text, commit).await;
    let (_, done) = socket.frame().await;
    let done: Value = serde_json::from_slice(&done).unwrap();
    assert_eq!(done["text"], format!("{} bytes", append.len()));
    socket
        .send_frame(Opcode::Close, &1000_u16.to_be_bytes())
        .await;
    assert_eq!(socket.frame().await, (CLOSE, vec![3, 232]));
    assert_eq!(socket.rest().await, (Vec::new(), true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_pass_both_ways_as_they_are() {
    let engine = engine().await;
    let gateway = before(&engine, LOG).await;
    let request = handshake("/v1/realtime?intent=transcription")
        .field("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits")
        .field("Origin: https://app.example");
    let socket = WebSocket::open(gateway.address, &request).await;
    assert_eq!(
        socket.field("sec-websocket-accept"),
        Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    );
    assert_eq!(socket.field("upgrade"), Some("websocket"));
    assert_eq!(socket.field("connection"), Some("Upgrade"));
    assert_eq!(socket.field("server"), Some("sluicegate"));
    assert!(socket.field("x-request-id").is_some());
    for absent in [
        "content-length",
        "transfer-encoding",
        "sec-websocket-protocol",
    ] {
        assert_eq!(socket.field(absent), None, "{absent}");
    }
    assert_eq!(
        (engine.in_flight(), gateway.endpoint(0).in_flight()),
        (1, 1)
    );
    converse(socket).await;

    let seen = engine
        .requests()
        .into_iter()
        .find(|one| one.target.starts_with("/v1/realtime"));
    let seen = seen.unwrap();
    assert_eq!(seen.target, "/v1/realtime?intent=transcription");
    for (name, value) in [
        ("upgrade", "websocket"),
        ("connection", "Upgrade"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-version", "13"),
        (
            "sec-websocket-extensions",
            "permessage-deflate; client_max_window_bits",
        ),
        ("origin", "https://app.example"),
        ("x-real-ip", "127.0.0.1"),
    ] {
        assert_eq!(seen.header_all(name), [value], "{name}");
    }
    assert_eq!(seen.header("content-length"), None);
    let line = line(&gateway).await;
    for (name, value) in [
        ("status", Value::from(101)),
        ("stream", true.into()),
        ("end", "complete".into()),
        ("error", Value::Null),
        ("path", "/v1/realtime".into()),
        ("attempts", 1.into()),
        ("completion_tokens", Value::Null),
    ] {
        assert_eq!(line[name], value, "{line}");
    }
    let moved = |name: &str| line[name].as_u64().unwrap();
    assert!(
        moved("bytes_in") > 1 << 20 && moved("bytes_out") > 1 << 20,
        "{line}"
    );
    // How long it was open is no latency.
    assert_eq!(
        gateway.metric("sluicegate_request_duration_seconds_count{pool=\"default\"}"),
        0.0
    );
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_on_both_sides_is_the_same() {
    let engine = engine().await;
    let certificate = Certificate::new();
    let node = TlsNode::before(engine.addr(), &certificate).await;
    let gateway = Gateway::with_tls(&format!(
        "pools: {{ default: {{ endpoints: [\"https://{}\"], tls: {{ verify: false }} }} }}",
        node.authority()
    ))
    .await;
    let (address, certificate) = gateway.tls.as_ref().unwrap();
    let socket = WebSocket::ask_tls(*address, certificate, &handshake("/v1/realtime")).await;
    assert_eq!(socket.status(), 101);
    converse(socket).await;
    // h2 has no such upgrade: the request is one like any other, and the engine knows no such page.
    let plain = http::Request::get("https://gateway.example/v1/realtime")
        .body(())
        .unwrap();
    let answer = H2::connect(&gateway).await.ask(plain, b"").await;
    assert_eq!(answer.status(), 404);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_side_waits_for_the_other_to_read() {
    const BYTES: usize = 8 << 20;
    let (gateway, _engine, client, mut exchange) = tunnel("").await;
    let (up, down) = (noise(BYTES, 1), noise(BYTES, 2));
    let (mut reader, mut writer) = client.split();
    let (sent_up, sent_down) = (up.clone(), down.clone());
    // Each writes all of it before it reads the first byte.
    let engine = tokio::spawn(async move {
        exchange.write(&sent_down).await;
        let got = exchange.raw(BYTES).await;
        (exchange, got)
    });
    let writing = tokio::spawn(async move {
        writer.write_all(&sent_up).await.unwrap();
        writer
    });
    let mut got = vec![0; BYTES];
    within("all of it", reader.read_exact(&mut got))
        .await
        .unwrap();
    assert!(got == down);
    let (exchange, got) = engine.await.unwrap();
    assert!(got == up);
    drop((exchange, writing.await.unwrap(), reader));
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sent_behind_the_head_follows_the_101() {
    let mut engine = Puppet::start().await;
    let gateway = Gateway::start(&format!("endpoints: [\"{}\"]", engine.authority())).await;
    let mut client = Client::connect(gateway.address).await;
    let mut bytes = handshake("/v1/realtime").bytes();
    bytes.extend_from_slice(b"first ");
    client.send(bytes).await;
    let mut exchange = engine.next().await;
    client.send("second ").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    client.send("third").await;
    // Nothing of it is the engine's before it has agreed to read it so.
    assert_eq!(engine.requests().len(), 1);
    exchange.write(format!("{SWITCHING}welcome")).await;
    assert_eq!(exchange.raw(18).await, b"first second third");
    let head = client.head().await;
    assert_eq!(head.status, 101);
    assert_eq!(client.raw(7).await, b"welcome");
    drop((client, exchange));
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_given_in_each_of_three_ways_and_go_no_further() {
    let engine = engine().await;
    let gateway = before(&engine, &format!("keys: [{{ name: team-a, key: {KEY} }}]")).await;
    let protocols = format!(
        "Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.{KEY}, openai-beta.realtime-v1"
    );
    for (field, agreed) in [
        (format!("Authorization: Bearer {KEY}"), None),
        (format!("x-api-key: {KEY}"), None),
        (protocols, Some("realtime")),
        (
            format!("Sec-WebSocket-Protocol: openai-insecure-api-key.{KEY}"),
            None,
        ),
    ] {
        let request = handshake("/v1/realtime").field(&field);
        let socket = WebSocket::open(gateway.address, &request).await;
        assert_eq!(socket.field("sec-websocket-protocol"), agreed, "{field}");
        converse(socket).await;
    }
    for seen in engine.requests() {
        let head = String::from_utf8_lossy(&seen.head);
        assert!(!head.contains(KEY) && !head.contains("insecure"), "{head}");
    }
    let offered: Vec<_> = (engine.requests().iter())
        .filter_map(|seen| seen.header("sec-websocket-protocol").map(str::to_owned))
        .collect();
    assert_eq!(offered, ["realtime, openai-beta.realtime-v1"]);

    let refused = [
        handshake("/v1/realtime"),
        handshake("/v1/realtime").field("Sec-WebSocket-Protocol: openai-insecure-api-key.wrong"),
        handshake("/v1/realtime").field("Sec-WebSocket-Protocol: openai-insecure-api-key."),
        handshake("/v1/realtime")
            .field(&format!("Authorization: Bearer {KEY}"))
            .field("Sec-WebSocket-Protocol: openai-insecure-api-key.other"),
        // Elsewhere it is no key.
        get("/v1/models").field(&format!(
            "Sec-WebSocket-Protocol: openai-insecure-api-key.{KEY}"
        )),
    ];
    for request in refused {
        assert_eq!(gateway.ask(&request).await.status, 401, "{request:?}");
    }
    // Not a handshake, and the key in it goes no further all the same.
    engine.clear_requests();
    let plain = get("/v1/realtime").field(&format!(
        "Sec-WebSocket-Protocol: openai-insecure-api-key.{KEY}"
    ));
    assert_eq!(gateway.ask(&plain).await.status, 404);
    assert!(
        engine
            .requests()
            .iter()
            .all(|seen| seen.header("sec-websocket-protocol").is_none())
    );
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_holds_one_place_for_as_long_as_it_is_open() {
    let engine = engine().await;
    let keys = format!("keys: [{{ name: team-a, key: {KEY}, max_in_flight: 1 }}]");
    let gateway = before(&engine, &keys).await;
    let request = handshake("/v1/realtime").field(&format!("Authorization: Bearer {KEY}"));
    let mut open = WebSocket::open(gateway.address, &request).await;
    greeted(&mut open).await;
    assert_eq!(gateway.ask(&request).await.status, 429);
    drop(open);
    gateway.quiet().await;
    until("the key's place to be free", || engine.in_flight() == 0).await;
    converse(WebSocket::open(gateway.address, &request).await).await;
    gateway.finish().await;

    let endpoint = format!("{{ url: \"{}\", max_in_flight: 1 }}", engine.authority());
    let gateway = Gateway::start(&pool(&[endpoint], "queue: null")).await;
    let open = WebSocket::open(gateway.address, &handshake("/v1/realtime")).await;
    let answer = gateway.ask(&handshake("/v1/realtime")).await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "overloaded"));
    drop(open);
    gateway.quiet().await;
    converse(WebSocket::open(gateway.address, &handshake("/v1/realtime")).await).await;
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_model_stands_in_the_query() {
    let (one, two) = (engine().await, engine().await);
    let gateway = Gateway::start(&format!(
        "pools: {{ a: {{ endpoints: [\"{}\"] }}, b: {{ endpoints: [{{ url: \"{}\", model: \"own name\" }}] }} }}\n\
         models: {{ voice: {{ pool: a, upstream_model: mistralai/Voxtral-Mini }}, v: voice, other: {{ pool: b }} }}\n\
         keys:\n  - {{ name: all, key: {KEY} }}\n  - {{ name: some, key: sk-some-0123456789abcdef, models: [voice] }}",
        one.authority(),
        two.authority()
    ))
    .await;
    let with = |key: &str, query: &str| {
        handshake(&format!("/v1/realtime{query}")).field(&format!("Authorization: Bearer {key}"))
    };
    for (query, engine, expected) in [
        ("?model=voice", &one, "?model=mistralai%2FVoxtral-Mini"),
        (
            "?model=v&a=%20",
            &one,
            "?model=mistralai%2FVoxtral-Mini&a=%20",
        ),
        (
            "?x&%6dodel=v%6fice",
            &one,
            "?x&%6dodel=mistralai%2FVoxtral-Mini",
        ),
        ("?model=other", &two, "?model=own%20name"),
    ] {
        converse(WebSocket::open(gateway.address, &with(KEY, query)).await).await;
        let seen = engine
            .requests()
            .into_iter()
            .rfind(|one| one.target.contains("realtime"));
        assert_eq!(
            seen.unwrap().target,
            format!("/v1/realtime{expected}"),
            "{query}"
        );
    }
    for (key, query, status, code) in [
        (KEY, "?model=voise", 404, "model_not_found"),
        (KEY, "?model=a&model=voice", 400, "invalid_value"),
        (KEY, "?model=%ff", 400, "invalid_value"),
        (KEY, "", 400, "missing_model"),
        (
            "sk-some-0123456789abcdef",
            "?model=other",
            403,
            "model_not_allowed",
        ),
    ] {
        let answer = gateway.ask(&with(key, query)).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (status, code),
            "{query}"
        );
    }
    let short = handshake("/realtime?model=voice").field("x-api-key: sk-some-0123456789abcdef");
    converse(WebSocket::open(gateway.address, &short).await).await;
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_fails_before_its_101_is_left_for_another() {
    let second = engine().await;
    let no_101 = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
    let busy = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
    for (first, then) in [
        (busy, Then::Keep),
        (no_101, Then::Keep),
        ("", Then::Close),
        ("", Then::Reset),
    ] {
        let first = Puppet::answering(first, then).await;
        let gateway = Gateway::start(&in_turn(&first.authority(), &second.authority(), "")).await;
        converse(WebSocket::open(gateway.address, &handshake("/v1/realtime")).await).await;
        assert_eq!(first.requests().len(), 1);
        gateway.finish().await;
    }
    let mut dead = Puppet::start().await;
    dead.refuse().await;
    let gateway = Gateway::start(&in_turn(
        &dead.authority(),
        &second.authority(),
        "health: { fall: 100 }",
    ))
    .await;
    converse(WebSocket::open(gateway.address, &handshake("/v1/realtime")).await).await;
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_says_no_is_heard() {
    let answer = "HTTP/1.1 403 Forbidden\r\nX-Why: not today\r\ncontent-length: 2\r\n\r\nno";
    let engine = Puppet::answering(answer, Then::Keep).await;
    let gateway = Gateway::start(&format!("endpoints: [\"{}\"]", engine.authority())).await;
    let mut client = Client::connect(gateway.address).await;
    for _ in 0..2 {
        let answer = client.ask(&handshake("/v1/realtime")).await;
        assert_eq!(
            (answer.status, answer.text(), answer.end),
            (403, "no", End::Framed)
        );
        assert_eq!(answer.field("x-why"), Some("not today"));
        assert_eq!(answer.field("upgrade"), None);
    }
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whichever_side_ends_ends_both() {
    // The client's half: the engine has all of it, and then the end.
    let (gateway, _engine, mut client, mut exchange) = tunnel(LOG).await;
    client.send("last words").await;
    client.half_close().await;
    assert_eq!(exchange.raw(10).await, b"last words");
    exchange.gone().await;
    assert_eq!(client.rest().await, (Vec::new(), true));
    assert_eq!(line(&gateway).await["end"], "complete");
    gateway.finish().await;

    // What it still says nobody needs, but it is not cut off before it has read.
    let (gateway, _engine, mut client, mut exchange) = tunnel("").await;
    client.half_close().await;
    until("the tunnel to be over", || {
        gateway.endpoint(0).in_flight() == 0
    })
    .await;
    for _ in 0..3 {
        assert!(exchange.try_write("too late").await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(exchange);
    gateway.finish().await;

    // The engine's.
    let (gateway, _engine, client, mut exchange) = tunnel(LOG).await;
    exchange.write("last words").await;
    exchange.half_close().await;
    assert_eq!(client.rest().await, (b"last words".to_vec(), true));
    exchange.gone().await;
    assert_eq!(line(&gateway).await["end"], "complete");
    gateway.finish().await;

    // The engine resets.
    let (gateway, _engine, client, exchange) = tunnel(LOG).await;
    exchange.reset();
    assert_eq!(client.rest().await.0, b"");
    let line = line(&gateway).await;
    assert_eq!(
        (&line["end"], &line["status"]),
        (&"upstream_cut".into(), &101.into())
    );
    // A client can make an engine do that: it is no fault of the node.
    assert_eq!(gateway.faults(0), 0);
    gateway.finish().await;

    // The engine is gone, and left it open.
    let (gateway, mut engine, client, mut exchange) = tunnel("").await;
    engine.refuse().await;
    assert_eq!(gateway.ask(&handshake("/v1/realtime")).await.status, 503);
    assert_eq!(client.rest().await.0, b"");
    exchange.gone().await;
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_resets_frees_the_engine() {
    let mut engine = Puppet::start().await;
    let gateway = Gateway::start(&format!("endpoints: [\"{}\"]\n{LOG}", engine.authority())).await;
    let mut client = Client::connect(gateway.address).await;
    client.send(handshake("/v1/realtime").bytes()).await;
    let mut exchange = engine.next().await;
    exchange.write(SWITCHING).await;
    assert_eq!(client.head().await.status, 101);
    client.reset();
    exchange.gone().await;
    let line = line(&gateway).await;
    assert_eq!(
        (&line["end"], &line["status"]),
        (&"client_left".into(), &101.into())
    );
    gateway.finish().await;

    // One that leaves before the 101 is a client that left.
    let gateway = Gateway::start(&format!("endpoints: [\"{}\"]\n{LOG}", engine.authority())).await;
    let mut client = Client::connect(gateway.address).await;
    client.send(handshake("/v1/realtime").bytes()).await;
    let mut exchange = engine.next().await;
    drop(client);
    exchange.gone().await;
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_and_a_reader_that_does_not_read_come_to_an_end() {
    let quick = "timeouts: { read: 300ms }\n";
    let (gateway, _engine, mut client, mut exchange) = tunnel(&format!("{quick}{LOG}")).await;
    // Any byte of either side counts, a ping's too.
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        client.send("x").await;
        exchange.raw(1).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        exchange.write("y").await;
        client.raw(1).await;
    }
    client.rest().await;
    exchange.gone().await;
    let line = line(&gateway).await;
    assert_eq!(
        (&line["end"], &line["error"]),
        (&"upstream_cut".into(), &"read_timeout".into())
    );
    assert_eq!(gateway.faults(0), 0);
    gateway.finish().await;

    let (gateway, _engine, _client, mut exchange) = tunnel("client: { send_timeout: 300ms }").await;
    exchange.flood(&noise(1 << 20, 3)).await;
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_outlives_a_reload_and_holds_a_shutdown_up() {
    let engine = engine().await;
    let other = Engine::start(Default::default()).await.unwrap();
    let gateway = before(&engine, "").await;
    let mut socket = WebSocket::open(gateway.address, &handshake("/v1/realtime")).await;
    greeted(&mut socket).await;
    gateway
        .reload(&format!("endpoints: [\"{}\"]", other.authority()))
        .await;
    socket.send_frame(Opcode::Text, b"still here").await;
    assert_eq!(socket.frame().await, (1, b"still here".to_vec()));
    // It is what is in flight, for as long as the grace lasts.
    assert!(!gateway.server().drain(Duration::from_millis(200)).await);
    socket.send_frame(Opcode::Text, b"still here").await;
    assert_eq!(socket.frame().await, (1, b"still here".to_vec()));
    let drained = gateway.server().drain(Duration::from_secs(8));
    let leaving = async {
        socket.send_frame(Opcode::Close, &[]).await;
        assert_eq!(socket.frame().await.0, CLOSE);
        drop(socket);
    };
    assert!(tokio::join!(drained, leaving).0);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_whole_handshake_is_no_websocket() {
    let engine = engine().await;
    let gateway = before(&engine, "").await;
    let upgrade = |target: &str| {
        get(target)
            .field("Connection: Upgrade")
            .field("Upgrade: websocket")
    };
    let keyed = |request: Request| {
        request
            .field("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
            .field("Sec-WebSocket-Version: 13")
    };
    let whole = || keyed(upgrade("/v1/realtime"));
    let only = |connection: &str, upgrade: &str| {
        keyed(
            get("/v1/realtime")
                .field(&format!("Connection: {connection}"))
                .field(&format!("Upgrade: {upgrade}")),
        )
    };
    // What the engine is asked then is a plain GET, which it knows no page for.
    for (why, request, status) in [
        ("POST", whole().method("POST"), 405),
        ("PUT", whole().method("PUT"), 405),
        ("HEAD", whole().method("HEAD"), 404),
        ("a body", whole().body("hello"), 404),
        ("HTTP/1.0", whole().version("HTTP/1.0"), 404),
        (
            "h2c",
            only("Upgrade, HTTP2-Settings", "h2c").field("HTTP2-Settings: AAMAAABkAAQAAP__"),
            404,
        ),
        ("a list", only("Upgrade", "websocket, h2c"), 404),
        ("two fields", whole().field("Upgrade: websocket"), 404),
        ("two fields that differ", whole().field("Upgrade: h2c"), 404),
        ("not nominated", only("keep-alive", "websocket"), 404),
        (
            "no Connection",
            keyed(get("/v1/realtime").field("Upgrade: websocket")),
            404,
        ),
        ("another path", keyed(upgrade("/v1/responses/resp_1")), 404),
        ("a path below", keyed(upgrade("/v1/realtime/")), 404),
        ("an odd path", keyed(upgrade("/v1//realtime")), 404),
        ("an encoded path", keyed(upgrade("/v1/real%74ime")), 404),
    ] {
        engine.clear_requests();
        let answer = gateway.ask(&request).await;
        assert_eq!(answer.status, status, "{why}: {}", answer.text());
        for seen in engine.requests() {
            let head = String::from_utf8_lossy(&seen.head).to_ascii_lowercase();
            assert!(!head.contains("upgrade"), "{why}: {head}");
        }
    }
    // What the handshake itself lacks is for the engine to say.
    for (why, request) in [
        (
            "no key",
            upgrade("/v1/realtime").field("Sec-WebSocket-Version: 13"),
        ),
        (
            "the key is nominated away",
            only("Upgrade, Sec-WebSocket-Key", "websocket"),
        ),
    ] {
        assert_eq!(gateway.ask(&request).await.status, 400, "{why}");
    }
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_that_fails_hides_no_request_from_the_gateway() {
    let engine = engine().await;
    let gateway = before(&engine, "").await;
    let hidden = get("/server_info").bytes();
    for first in [
        // The engine refuses it.
        get("/v1/realtime")
            .field("Connection: Upgrade")
            .field("Upgrade: websocket")
            .field("Sec-WebSocket-Version: 777"),
        // It is none.
        handshake("/v1/realtime").field("Upgrade: h2c"),
        handshake("/v1/realtime?model=%zz"),
    ] {
        let mut client = Client::connect(gateway.address).await;
        client.send([first.bytes(), hidden.clone()].concat()).await;
        assert!((400..500).contains(&client.answer().await.status));
        let second = client.answer().await;
        assert_eq!(
            (second.status, second.code().as_str()),
            (404, "path_not_exposed")
        );
    }
    assert!(
        engine
            .requests()
            .iter()
            .all(|seen| seen.target != "/server_info")
    );
    // The body of a request that is no handshake is that body, whatever it looks like.
    let body = [&hidden[..], b"GET /version HTTP/1.1\r\n\r\n"].concat();
    let request = handshake("/v1/realtime").body(body);
    assert_eq!(ask(gateway.address, &request).await.status, 404);
    assert!(
        engine
            .requests()
            .iter()
            .all(|seen| !seen.target.contains("server_info") && seen.target != "/version")
    );
    gateway.finish().await;
}
