//! What engines answer that is wrong, and what clients get: a 502 or another engine's answer, never half
//! of one or the rest of another's. A connection on which it happened is not used again.

use std::time::Duration;

use crate::gateway::{Gateway, Start};
use crate::recorder::{End, Recorder, good};
use crate::wire::{Wire, request};

struct Row {
    name: &'static str,
    bytes: Vec<u8>,
    then: End,
    client: Client,
    /// It is as it should be, and its connection takes the next request.
    kept: bool,
}

/// What the client gets of it when there is no other engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    /// 502 in OpenAI's JSON.
    BadGateway,
    /// This answer, whole.
    Whole(u16, &'static str),
    /// An answer that began, and that no client can take for a whole one. What had come of a sized one
    /// may still have been held back.
    Cut,
}

use Client::{BadGateway, Cut, Whole};
use End::{Close, Forever, Keep, Reset};

fn row(name: &'static str, bytes: impl Into<Vec<u8>>, then: End, client: Client) -> Row {
    Row {
        name,
        bytes: bytes.into(),
        then,
        client,
        kept: false,
    }
}

impl Row {
    fn kept(self) -> Self {
        Self { kept: true, ..self }
    }
}

fn json(fields: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{fields}\r\n{body}")
}

fn text(fields: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n{fields}\r\n{body}")
}

const EVENT: &str = "data: {\"choices\":[{\"index\":0,\"text\":\"a\",\"finish_reason\":null}]}\n\n";

fn stream(rest: &str) -> String {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n";
    format!("{head}{:x}\r\n{EVENT}\r\n{rest}", EVENT.len())
}

#[rustfmt::skip]
fn rows() -> Vec<Row> {
    let chunked = "Transfer-Encoding: chunked\r\n";
    let smuggled = good("smuggled");
    vec![
        row("nothing", "", Close, BadGateway),
        row("nothing, reset", "", Reset, BadGateway),
        row("garbage", "\x16\x03\x01\x00\x00 this is not HTTP\r\n\r\n", Close, BadGateway),
        row("garbage without end", "", Forever(b"garbage garbage garbage "), BadGateway),
        row("half a head", "HTTP/1.1 200 OK\r\nContent-Le", Close, BadGateway),
        row("head without end", "HTTP/1.1 200 OK\r\n", Forever(b"X-A: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n"), BadGateway),
        row("field without end", "HTTP/1.1 200 OK\r\nX-A: ", Forever(&[b'a'; 1024]), BadGateway),
        row("1xx without end", "", Forever(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"), BadGateway),
        row("a few 1xx", format!("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nX: 1\r\n\r\n{}", good("{}")), Keep, Whole(200, "{}")).kept(),
        row("101", "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n\x01\x02", Keep, BadGateway),
        row("HTTP/0.9", "{}", Close, BadGateway),
        row("HTTP/2.0", "HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\n{}", Keep, BadGateway),
        row("status of two digits", "HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\n{}", Keep, BadGateway),
        row("status 099", "HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\n{}", Keep, BadGateway),
        row("folded field", json("X-A: 1\r\n 2\r\nContent-Length: 2\r\n", "{}"), Keep, BadGateway),
        row("blank before the colon", json("Content-Length : 2\r\n", "{}"), Keep, BadGateway),
        row("NUL in a value", json("X-A: \0\r\nContent-Length: 2\r\n", "{}"), Keep, BadGateway),
        row("bare CR in a value", json("X-A: 1\rX-B: 2\r\nContent-Length: 2\r\n", "{}"), Keep, BadGateway),
        row("two lengths", json("Content-Length: 2\r\nContent-Length: 3\r\n", "{}\n"), Keep, BadGateway),
        row("two equal lengths", json("Content-Length: 2\r\nContent-Length: 2\r\n", "{}"), Keep, BadGateway),
        row("list of lengths", json("Content-Length: 2, 2\r\n", "{}"), Keep, BadGateway),
        row("signed length", json("Content-Length: +2\r\n", "{}"), Keep, BadGateway),
        row("length beyond 64 bits", json("Content-Length: 18446744073709551618\r\n", "{}"), Keep, BadGateway),
        row("length and chunks", json("Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", "2\r\n{}\r\n0\r\n\r\n"), Keep, BadGateway),
        row("another coding", json("Transfer-Encoding: gzip, chunked\r\n", "2\r\n{}\r\n0\r\n\r\n"), Keep, BadGateway),
        row("chunked twice", json("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "2\r\n{}\r\n0\r\n\r\n"), Keep, BadGateway),
        row("chunks in HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", Close, BadGateway),
        row("length too long", json("Content-Length: 12\r\n", "{}"), Close, BadGateway),
        row("length too long, reset", json("Content-Length: 12\r\n", "{}"), Reset, BadGateway),
        // What is left over is not the next answer: the connection is not used again.
        row("length too short", json("Content-Length: 2\r\n", "{}{}"), Keep, Whole(200, "{}")),
        row("an answer nobody asked for", format!("{}{smuggled}", good("{}")), Keep, Whole(200, "{}")),
        row("an answer behind chunks", json(chunked, &format!("2\r\n{{}}\r\n0\r\n\r\n{smuggled}")), Keep, Whole(200, "{}")),
        row("a body with 204", format!("HTTP/1.1 204 No Content\r\n\r\n{smuggled}"), Keep, Whole(204, "")),
        row("a body with 304", format!("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n{smuggled}"), Keep, Whole(304, "")),
        row("chunk size that is no number", json(chunked, "zz\r\n{}\r\n0\r\n\r\n"), Keep, BadGateway),
        row("no chunk size", json(chunked, "\r\n{}\r\n0\r\n\r\n"), Keep, BadGateway),
        row("chunk size beyond 64 bits", json(chunked, "10000000000000002\r\n{}\r\n0\r\n\r\n"), Keep, BadGateway),
        row("no CRLF behind a chunk", json(chunked, "2\r\n{}X\r\n0\r\n\r\n"), Keep, BadGateway),
        row("line feeds between chunks", json(chunked, "2\n{}\n0\n\n"), Keep, BadGateway),
        row("no last chunk", json(chunked, "2\r\n{}\r\n"), Close, BadGateway),
        row("half a last chunk", json(chunked, "2\r\n{}\r\n0\r\n"), Close, BadGateway),
        row("extension without end", json(chunked, "2;"), Forever(&[b'a'; 1024]), BadGateway),
        row("trailers without end", json(chunked, "2\r\n{}\r\n0\r\n"), Forever(b"X-A: aaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n"), BadGateway),
        // Ways of saying a length that two readers could take for two.
        row("negative length", json("Content-Length: -2\r\n", "{}"), Keep, BadGateway),
        row("hexadecimal length", json("Content-Length: 0x2\r\n", "{}"), Keep, BadGateway),
        row("empty length", json("Content-Length: \r\n", "{}"), Keep, BadGateway),
        row("length of words", json("Content-Length: two\r\n", "{}"), Keep, BadGateway),
        row("length and a comma", json("Content-Length: 2,\r\n", "{}"), Keep, BadGateway),
        row("two lengths, one in small letters", json("Content-Length: 2\r\ncontent-length: 9\r\n", "{}"), Keep, BadGateway),
        row("length with a unit", json("Content-Length: 2 bytes\r\n", "{}"), Keep, BadGateway),
        row("chunks and length", json("Transfer-Encoding: chunked\r\nContent-Length: 2\r\n", "2\r\n{}\r\n0\r\n\r\n"), Keep, BadGateway),
        row("identity", json("Transfer-Encoding: identity\r\nContent-Length: 2\r\n", "{}"), Keep, BadGateway),
        row("chunked, then another", json("Transfer-Encoding: chunked, identity\r\n", "2\r\n{}\r\n0\r\n\r\n"), Keep, BadGateway),
        row("unknown coding", json("Transfer-Encoding: xchunked\r\n", "2\r\n{}\r\n0\r\n\r\n"), Keep, BadGateway),
        row("empty coding", json("Transfer-Encoding: \r\nContent-Length: 2\r\n", "{}"), Keep, BadGateway),
        row("quoted coding", json("Transfer-Encoding: \"chunked\"\r\n", "2\r\n{}\r\n0\r\n\r\n"), Keep, BadGateway),
        row("coding behind a vertical tab", json("Transfer-Encoding: \x0bchunked\r\n", "2\r\n{}\r\n0\r\n\r\n"), Keep, BadGateway),
        row("coding with a parameter", json("Transfer-Encoding: chunked;a=b\r\n", "2\r\n{}\r\n0\r\n\r\n"), Keep, BadGateway),
        row("coding, blank before the colon", json("Transfer-Encoding : chunked\r\nContent-Length: 2\r\n", "{}"), Keep, BadGateway),
        row("coding in capitals", json("TRANSFER-ENCODING: CHUNKED\r\n", "2\r\n{}\r\n0\r\n\r\n"), Keep, Whole(200, "{}")).kept(),
        row("length with leading zeros", json("Content-Length: 0002\r\n", "{}"), Keep, Whole(200, "{}")).kept(),
        row("signed chunk size", json(chunked, "+2\r\n{}\r\n0\r\n\r\n"), Keep, BadGateway),
        row("negative chunk size", json(chunked, "-2\r\n{}\r\n0\r\n\r\n"), Keep, BadGateway),
        row("chunk size with 0x", json(chunked, "0x2\r\n{}\r\n0\r\n\r\n"), Keep, BadGateway),
        row("chunk size with an underscore", json(chunked, "0_2\r\n{}\r\n0\r\n\r\n"), Keep, BadGateway),
        row("blank before the chunk size", json(chunked, " 2\r\n{}\r\n0\r\n\r\n"), Keep, BadGateway),
        row("chunk size of the largest 64 bits", json(chunked, "ffffffffffffffff\r\n{}\r\n0\r\n\r\n"), Keep, BadGateway),
        row("chunk longer than its size", json(chunked, "1\r\n{}\r\n0\r\n\r\n"), Keep, BadGateway),
        row("chunk shorter than its size", json(chunked, "3\r\n{}\r\n0\r\n\r\n"), Keep, BadGateway),
        row("bare CR behind a chunk size", json(chunked, "2\r{}\r\n0\r\n\r\n"), Keep, BadGateway),
        row("line feed in a chunk's extension", json(chunked, "2;a\nb\r\n{}\r\n0\r\n\r\n"), Keep, BadGateway),
        row("extensions", json(chunked, "2;a=b\r\n{}\r\n0;c\r\n\r\n"), Keep, Whole(200, "{}")).kept(),
        row("trailers are dropped", json(chunked, "2\r\n{}\r\n0\r\nContent-Length: 9\r\nSet-Cookie: a\r\n\r\n"), Keep, Whole(200, "{}")).kept(),
        // Heads that could hide another answer.
        row("bare line feeds", "HTTP/1.1 200 OK\nContent-Length: 2\n\n{}", Keep, BadGateway),
        row("bare line feed in a value", json("X-A: 1\nX-B: 2\r\nContent-Length: 2\r\n", "{}"), Keep, BadGateway),
        row("no colon", json("X-A\r\nContent-Length: 2\r\n", "{}"), Keep, BadGateway),
        row("no name", json(": 1\r\nContent-Length: 2\r\n", "{}"), Keep, BadGateway),
        row("blank in a name", json("X A: 1\r\nContent-Length: 2\r\n", "{}"), Keep, BadGateway),
        row("NUL in a name", json("X\0A: 1\r\nContent-Length: 2\r\n", "{}"), Keep, BadGateway),
        row("first field folded", "HTTP/1.1 200 OK\r\n Content-Length: 9\r\nContent-Length: 2\r\n\r\n{}", Keep, BadGateway),
        row("status of four digits", "HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\n{}", Keep, BadGateway),
        row("no status", "HTTP/1.1  \r\nContent-Length: 2\r\n\r\n{}", Keep, BadGateway),
        row("empty lines first", format!("\r\n\r\n{}", good("{}")), Keep, BadGateway),
        row("1xx with a body", format!("HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\nhello{}", good("{}")), Keep, BadGateway),
        row("204 in chunks", format!("HTTP/1.1 204 No Content\r\n{chunked}\r\n2\r\n{{}}\r\n0\r\n\r\n{smuggled}"), Keep, Whole(204, "")),
        row("205 with a length", format!("HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n{smuggled}"), Keep, Whole(205, "")),
        row("until the end of the connection", json("", "{}"), Close, Whole(200, "{}")),
        // Begun, because only JSON is held until it is whole.
        row("text that is short", text("Content-Length: 12\r\n", "half"), Close, Cut),
        row("text in chunks that break", text(chunked, "4\r\nhalf\r\nzz\r\n"), Keep, Cut),
        row("stream that breaks", stream("zz\r\n"), Keep, Cut),
        row("stream without a last chunk", stream(""), Close, Cut),
        row("stream that ends too early", stream("0\r\n\r\n"), Keep, Cut),
        row("stream without an event", "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Keep, BadGateway),
    ]
}

/// Neither retried for ever nor ejected: every row finds the same gateway.
const STEADY: &str = "\
threads: 1
pools:
  default:
    endpoints: [ENDPOINTS]
    policy: round_robin
    retry_budget: { ratio: 1.0, min_per_second: 1000 }
    health: { interval: 1h, eject_after: 1000 }
";

fn gateway(engines: &[&Recorder]) -> Gateway {
    let endpoints: Vec<_> = engines.iter().map(|e| e.authority()).collect();
    Start::with_keys(&STEADY.replace("ENDPOINTS", &crate::gateway::quoted(&endpoints))).run()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_no_other_engine_it_is_a_502_and_the_connection_is_not_used_again() {
    let engine = Recorder::start().await;
    let gateway = gateway(&[&engine]);
    let mut wrong = Vec::new();
    for (n, row) in rows().into_iter().enumerate() {
        let target = format!("/v1/completions?row={n}");
        engine.reply(&target, row.bytes, row.then);
        let mut wire = Wire::to(gateway.public).await;
        wire.send(request("POST", &target, "", "{   }")).await;
        let answer = wire.answer().await;
        let whole = answer.as_ref().filter(|answer| answer.is_whole);
        let body = whole.map(|answer| String::from_utf8_lossy(&answer.body).into_owned());
        let got = whole.map(|answer| answer.status).zip(body.as_deref());
        let is_right = match row.client {
            BadGateway => {
                got.is_some_and(|(status, body)| status == 502 && body.contains("upstream_failed"))
            }
            Whole(status, body) => got == Some((status, body)),
            Cut => got.is_none(),
        };
        if !is_right {
            wrong.push(format!("{}: {:?}, but {answer:?}", row.name, row.client));
        }
        // The next request is answered with its own answer: to the same client, where its connection stands.
        if !matches!(row.client, Whole(..)) {
            wire = Wire::to(gateway.public).await;
        }
        wire.send(request("POST", "/v1/completions", "", "{ }"))
            .await;
        let next = wire.answer().await.expect(row.name);
        if next.body != b"{}" {
            wrong.push(format!("{}: the next request got {next:?}", row.name));
        }
        let received = engine.received();
        let [.., bad, fine] = &received[..] else {
            panic!("{}: the engine got {received:?}", row.name);
        };
        let is_used_again = bad.connection == fine.connection;
        if is_used_again != row.kept {
            wrong.push(format!(
                "{}: connection used again: {is_used_again}",
                row.name
            ));
        }
    }
    engine.assert_well_formed();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_another_engine_the_client_never_hears_of_it() {
    let (bad, fine) = (Recorder::start().await, Recorder::start().await);
    let gateway = gateway(&[&bad, &fine]);
    let mut met = 0;
    let rows = rows();
    let all = rows.iter().filter(|row| row.client == BadGateway).count();
    for (n, row) in rows
        .into_iter()
        .enumerate()
        .filter(|(_, row)| row.client == BadGateway)
    {
        let target = format!("/v1/completions?row={n}");
        bad.reply(&target, row.bytes, row.then);
        // Turn by turn: one of the two meets the bad engine first.
        for _ in 0..2 {
            let mut wire = Wire::to(gateway.public).await;
            wire.send(request("POST", &target, "", "{   }")).await;
            let answer = wire.answer().await.expect(row.name);
            assert_eq!(
                (answer.status, &answer.body[..]),
                (200, &b"{}"[..]),
                "{}",
                row.name
            );
        }
        met += bad.received().iter().filter(|r| r.target == target).count();
    }
    assert!(
        met >= all * 3 / 4,
        "only {met} requests of {all} rows met the bad engine"
    );
    bad.assert_well_formed();
    fine.assert_well_formed();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_leaves_before_the_request_was_read_counts() {
    let engine = Recorder::start().await;
    let gateway = gateway(&[&engine]);
    let refusal = "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";
    engine.reply("/v1/completions", refusal, Close);
    let mut wire = Wire::to(gateway.public).await;
    wire.send(request(
        "POST",
        "/v1/completions",
        "",
        &format!("{{\"a\":\"{}\"}}", "a".repeat(4 << 20)),
    ))
    .await;
    assert_eq!(wire.answer().await.unwrap().status, 413);
    tokio::time::sleep(Duration::from_millis(50)).await;
    engine.assert_well_formed();
}
