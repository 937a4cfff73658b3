//! What clients send that is wrong, what they get, and what an engine then receives.
//!
//! Each row is one connection. The engine keeps every byte, so that a request which it could read in two
//! ways, or half of one, fails the row whatever the client was told (RFC 9112 §11.2).

use std::time::Duration;

use crate::gateway::{Gateway, Start};
use crate::recorder::Recorder;
use crate::wire::{Then, Wire};

/// A request whose head ends with these fields (each with its CRLF), and what follows the head.
fn post(fields: &str, body: &str) -> Vec<u8> {
    format!("POST /v1/completions HTTP/1.1\r\nHost: gateway\r\n{fields}\r\n{body}").into_bytes()
}

fn get(target: &str, fields: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: gateway\r\n{fields}\r\n").into_bytes()
}

struct Row {
    name: &'static str,
    send: Vec<u8>,
    answers: &'static [u16],
    then: After,
    engine: &'static [&'static str],
}

/// What becomes of the connection after the answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    /// It serves the next request.
    Serves,
    Ends,
    /// It ends, and the answer may be lost with it: the client was still sending.
    EndsWithOrWithout,
}

fn row(name: &'static str, send: impl Into<Vec<u8>>) -> Row {
    Row {
        name,
        send: send.into(),
        answers: &[],
        then: After::Ends,
        engine: &[],
    }
}

impl Row {
    fn gets(mut self, answers: &'static [u16], then: After) -> Row {
        (self.answers, self.then) = (answers, then);
        self
    }

    fn refused(self, status: &'static [u16]) -> Row {
        self.gets(status, After::Ends)
    }

    fn engine(mut self, received: &'static [&'static str]) -> Row {
        self.engine = received;
        self
    }
}

/// Sends every row, and compares what came of it.
async fn check(gateway: &Gateway, engine: &Recorder, rows: Vec<Row>) {
    let mut wrong = Vec::new();
    for row in rows {
        let before = engine.received().len();
        let mut wire = Wire::to(gateway.public).await;
        wire.send(&row.send).await;
        let mut answers = Vec::new();
        while answers.len() < row.answers.len() {
            match wire.answer().await {
                Some(answer) => answers.push(answer.status),
                None => break,
            }
        }
        let lost = row.then == After::EndsWithOrWithout && answers.is_empty();
        if !lost && answers != row.answers {
            wrong.push(format!(
                "{}: answers {answers:?}, not {:?}",
                row.name, row.answers
            ));
        }
        if row.then == After::Serves {
            wire.send(get("/health", "")).await;
            match wire.answer().await {
                Some(answer) if answer.body == b"healthy\n" => {}
                other => wrong.push(format!("{}: the next request got {other:?}", row.name)),
            }
        } else {
            let then = wire.then(Duration::from_secs(3)).await;
            if !matches!(then, Then::Closes | Then::Resets) {
                wrong.push(format!("{}: then the connection {then:?}", row.name));
            }
        }
        let received = engine.received();
        let received: Vec<_> = received[before..].iter().map(|r| r.in_short()).collect();
        if received != row.engine {
            wrong.push(format!(
                "{}: the engine got {received:?}, not {:?}",
                row.name, row.engine
            ));
        }
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    engine.assert_well_formed();
    assert_no_complaints(gateway);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What a client does wrong is in the access log, if anywhere: it must not fill the other one.
pub fn assert_no_complaints(gateway: &Gateway) {
    let lines = gateway.log.all();
    let complaints = |line: &&String| line.contains(" ERROR ") || line.contains(" WARN ");
    assert_eq!(lines.iter().find(complaints), None);
}

async fn started(keys: &str) -> (Gateway, Recorder) {
    let engine = Recorder::start().await;
    let things = match keys.contains("expose:") {
        true => "",
        false => "expose: [GET /v1/things]\n",
    };
    let keys = &format!("{things}{keys}");
    let gateway = Start::new(&[engine.authority()], keys).run();
    (gateway, engine)
}

const HELLO: &[&str] = &["POST /v1/completions {   }"];
use After::{Ends, EndsWithOrWithout, Serves};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[rustfmt::skip]
async fn bodies_that_could_be_read_in_two_ways() {
    let (gateway, engine) = started("").await;
    let chunked = "Transfer-Encoding: chunked\r\n";
    let rows = vec![
        // RFC 9112 §6.3: the chunks count, the length goes, the connection ends. nginx refuses with 400.
        row("length and chunks", post("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", "5\r\n{   }\r\n0\r\n\r\n"))
            .gets(&[200], Ends)
            .engine(HELLO),
        row("chunks and length, a request behind", post(
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            "5\r\n{   }\r\n0\r\n\r\nGET /v1/things HTTP/1.1\r\nHost: a\r\n\r\n",
        ))
            .gets(&[200], Ends)
            .engine(HELLO),
        // RFC 9110 §8.6 lets a recipient take equal ones for one. The engine gets exactly one.
        row("two equal lengths", post("Content-Length: 5\r\nContent-Length: 5\r\n", "{   }"))
            .gets(&[200], Serves)
            .engine(HELLO),
        row("a list of equal lengths", post("Content-Length: 5, 5\r\n", "{   }")).gets(&[200], Serves).engine(HELLO),
        row("two different lengths", post("Content-Length: 5\r\nContent-Length: 6\r\n", "hello!")).refused(&[400]),
        row("a list of different lengths", post("Content-Length: 5, 6\r\n", "hello!")).refused(&[400]),
        row("signed length", post("Content-Length: +5\r\n", "{   }")).refused(&[400]),
        row("negative length", post("Content-Length: -5\r\n", "{   }")).refused(&[400]),
        row("hexadecimal length", post("Content-Length: 0x5\r\n", "{   }")).refused(&[400]),
        row("empty length", post("Content-Length: \r\n", "{   }")).refused(&[400]),
        row("length of words", post("Content-Length: five\r\n", "{   }")).refused(&[400]),
        row("length beyond 64 bits", post("Content-Length: 18446744073709551621\r\n", "{   }")).refused(&[400]),
        row("length and a comma", post("Content-Length: 5,\r\n", "{   }")).refused(&[400]),
        row("unknown coding", post("Transfer-Encoding: xchunked\r\n", "5\r\n{   }\r\n0\r\n\r\n")).refused(&[400]),
        row("identity", post("Transfer-Encoding: identity\r\nContent-Length: 5\r\n", "{   }")).refused(&[400]),
        row("chunked, then another", post("Transfer-Encoding: chunked, identity\r\n", "5\r\n{   }\r\n0\r\n\r\n"))
            .refused(&[400]),
        row("another, then chunked", post("Transfer-Encoding: gzip, chunked\r\n", "5\r\n{   }\r\n0\r\n\r\n"))
            .refused(&[400]),
        row("chunked twice in one field", post("Transfer-Encoding: chunked, chunked\r\n", "5\r\n{   }\r\n0\r\n\r\n"))
            .refused(&[400]),
        row("chunked in two fields", post(
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "5\r\n{   }\r\n0\r\n\r\n",
        ))
            .refused(&[400]),
        row("a field between", post(
            "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
            "5\r\n{   }\r\n0\r\n\r\n",
        ))
            .refused(&[400]),
        row("an empty coding", post("Transfer-Encoding: \r\nContent-Length: 5\r\n", "{   }")).refused(&[400]),
        row("quoted coding", post("Transfer-Encoding: \"chunked\"\r\n", "0\r\n\r\n")).refused(&[400]),
        row("vertical tab before the coding", post("Transfer-Encoding: \x0bchunked\r\n", "0\r\n\r\n")).refused(&[400]),
        row("blank before the colon", post("Transfer-Encoding : chunked\r\nContent-Length: 5\r\n", "{   }"))
            .refused(&[400]),
        row("coding in capitals", post("TRANSFER-ENCODING: CHUNKED\r\n", "5\r\n{   }\r\n0\r\n\r\n"))
            .gets(&[200], Serves)
            .engine(HELLO),
        // Engines behind WSGI would take it for the real one; nginx drops it too.
        row("coding with an underscore", post("Transfer_Encoding: chunked\r\nContent-Length: 5\r\n", "{   }"))
            .gets(&[200], Serves)
            .engine(HELLO),
        row("chunks in HTTP/1.0", "POST /v1/completions HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{   }\r\n0\r\n\r\n")
            .refused(&[400]),
        row("size that is no number", post(chunked, "zz\r\n{   }\r\n0\r\n\r\n")).refused(&[400]),
        // Pingora takes an empty size for 0 and the rest for trailers; the engine gets one whole request.
        row("no size", post(chunked, "\r\n{   }\r\n0\r\n\r\n")).gets(&[400], Serves),
        row("negative size", post(chunked, "-5\r\n{   }\r\n0\r\n\r\n")).refused(&[400]),
        row("signed size", post(chunked, "+5\r\n{   }\r\n0\r\n\r\n")).refused(&[400]),
        row("size with 0x", post(chunked, "0x5\r\n{   }\r\n0\r\n\r\n")).refused(&[400]),
        row("size with an underscore", post(chunked, "0_5\r\n{   }\r\n0\r\n\r\n")).refused(&[400]),
        row("blank before the size", post(chunked, " 5\r\n{   }\r\n0\r\n\r\n")).refused(&[400]),
        row("size beyond 64 bits", post(chunked, "10000000000000005\r\n{   }\r\n0\r\n\r\n")).refused(&[400]),
        row("size of the largest 64 bits", post(chunked, "ffffffffffffffff\r\n{   }\r\n0\r\n\r\n")).refused(&[400]),
        row("size line without end", post(chunked, &"0".repeat(20_000))).refused(&[400]),
        row("no CRLF behind a chunk", post(chunked, "5\r\n{   }X\r\n0\r\n\r\n")).refused(&[400]),
        row("chunk longer than its size", post(chunked, "3\r\n{   }\r\n0\r\n\r\n")).refused(&[400]),
        row("bare line feeds between chunks", post(chunked, "5\n{   }\n0\n\n")).refused(&[400]),
        row("bare CR in a size line", post(chunked, "5\r{   }\r\n0\r\n\r\n")).refused(&[400]),
        row("extensions", post(chunked, "5;name=value;other=\"quoted\"\r\n{   }\r\n0;last\r\n\r\n"))
            .gets(&[200], Serves)
            .engine(HELLO),
        // Pingora reads an extension up to its CRLF, as RFC 9112 §7.1.1 has it.
        row("line feed in an extension", post(chunked, "5;a\nb\r\n{   }\r\n0\r\n\r\n"))
            .gets(&[200], Serves)
            .engine(HELLO),
        row("trailers are dropped", post(chunked, "5\r\n{   }\r\n0\r\nHost: other\r\nContent-Length: 9\r\n\r\n"))
            .gets(&[200], Serves)
            .engine(HELLO),
        row("size with leading zeros", post(chunked, "0000000005\r\n{   }\r\n000\r\n\r\n"))
            .gets(&[200], Serves)
            .engine(HELLO),
        // RFC 9112 §7.1.1 allows blanks there.
        row("size and a blank", post(chunked, "5 \r\n{   }\r\n0\r\n\r\n")).gets(&[200], Serves).engine(HELLO),
        row("size and a tab", post(chunked, "5\t\r\n{   }\r\n0\r\n\r\n")).gets(&[200], Serves).engine(HELLO),
        row("line feed behind a chunk", post(chunked, "5\r\n{   }\n0\r\n\r\n")).refused(&[400]),
        // Whatever stands there is dropped unread.
        row("a request in the trailers", post(chunked, "5\r\n{   }\r\n0\r\nGET /v1/things HTTP/1.1\r\n\r\n"))
            .gets(&[200], Serves)
            .engine(HELLO),
        row("coding with a parameter", post("Transfer-Encoding: chunked;a=b\r\n", "5\r\n{   }\r\n0\r\n\r\n")).refused(&[400]),
        row("coding and a comma", post("Transfer-Encoding: chunked,\r\n", "5\r\n{   }\r\n0\r\n\r\n")).refused(&[400]),
        row("comma and coding", post("Transfer-Encoding: ,chunked\r\n", "5\r\n{   }\r\n0\r\n\r\n")).refused(&[400]),
        row("coding behind a blank of 8 bits", post("Transfer-Encoding: \u{a0}chunked\r\n", "0\r\n\r\n")).refused(&[400]),
        row("coding, NUL in its name", post("Transfer-Encoding\0: chunked\r\nContent-Length: 5\r\n", "{   }")).refused(&[400]),
        row("coding behind a tab", post("Transfer-Encoding:\tchunked\r\n", "5\r\n{   }\r\n0\r\n\r\n"))
            .gets(&[200], Serves)
            .engine(HELLO),
        row("coding in one field of two", post("Transfer-Encoding: chunked\r\ntransfer-encoding: x\r\n", "5\r\n{   }\r\n0\r\n\r\n"))
            .refused(&[400]),
        row("length, blank before the colon", post("Content-Length : 5\r\n", "{   }")).refused(&[400]),
        row("lengths, one with a blank before the colon", post("Content-Length: 5\r\nContent-Length : 9\r\n", "{   }")).refused(&[400]),
        row("length with a unit", post("Content-Length: 5 bytes\r\n", "{   }")).refused(&[400]),
        row("length with an underscore", post("Content-Length: 5\r\nContent_Length: 9\r\n", "{   }"))
            .gets(&[200], Serves)
            .engine(HELLO),
        row("length with leading zeros", post("Content-Length: 0005\r\n", "{   }")).gets(&[200], Serves).engine(HELLO),
        row("a body that is a request", post("Content-Length: 37\r\n", "GET /v1/things HTTP/1.1\r\nHost: abcd\r\n\r\n"))
            .gets(&[400], Serves),
        row("a request in the body of a GET", [get("/v1/things", "Content-Length: 36\r\n"), get("/v1/smuggled", "X: 1\r\n")[..36].to_vec()].concat())
            .gets(&[200], Serves)
            .engine(&["GET /v1/things GET /v1/smuggled HTTP/1.1\r\nHost: gat"]),
        row("no body at all", post("", "")).gets(&[400], Serves),
        row("body of a GET", get("/v1/things", "Content-Length: 5\r\n").into_iter().chain(*b"{   }").collect::<Vec<_>>())
            .gets(&[200], Serves)
            .engine(&["GET /v1/things {   }"]),
        row("garbage behind the body", post("Content-Length: 5\r\n", "{   }\x01\x02garbage\r\n\r\n"))
            .gets(&[200, 400], Ends)
            .engine(HELLO),
        row("a request behind the body", post("Content-Length: 5\r\n", "{   }GET /v1/things HTTP/1.1\r\nHost: a\r\n\r\n"))
            .gets(&[200, 200], Serves)
            .engine(&["POST /v1/completions {   }", "GET /v1/things"]),
        row("three requests at once", [post("Content-Length: 2\r\n", "{}"), post("Content-Length: 3\r\n", "{ }"), get("/health", "")].concat())
            .gets(&[200, 200, 200], Serves)
            .engine(&["POST /v1/completions {}", "POST /v1/completions { }"]),
        row("a request behind a refused one", [post("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"), get("/v1/things", "")].concat())
            .refused(&[400]),
    ];
    check(&gateway, &engine, rows).await;
    for request in engine.received() {
        assert_eq!(request.field("Transfer_Encoding"), None, "{request:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[rustfmt::skip]
async fn heads_that_are_not_http() {
    let (gateway, engine) = started("").await;
    let head = |line: &str| format!("{line}\r\nHost: gateway\r\n\r\n");
    let many = |count: usize| get("/v1/things", &(0..count - 1).map(|n| format!("x{n}: 1\r\n")).collect::<String>());
    let tls = [&[0x16, 3, 1, 0, 0xf8, 1, 0, 0, 0xf4, 3, 3][..], &[0x5a; 240], b"\r\n\r\n"].concat();
    let rows = vec![
        row("folded field", post("X-A: 1\r\n Content-Length: 5\r\nContent-Length: 5\r\n", "{   }")).refused(&[400]),
        row("folded with a tab", post("X-A: 1\r\n\t2\r\n", "")).refused(&[400]),
        row("first field folded", "GET /v1/things HTTP/1.1\r\n Host: a\r\nHost: b\r\n\r\n").refused(&[400]),
        // RFC 9112 §2.2 allows it, nginx takes it. The engine gets CRLF.
        row("bare line feeds", "GET /v1/things HTTP/1.1\nHost: a\n\n")
            .gets(&[200], Serves)
            .engine(&["GET /v1/things"]),
        row("bare line feeds, then a body", "POST /v1/completions HTTP/1.1\nHost: a\nContent-Length: 5\n\n{   }")
            .gets(&[200], Serves)
            .engine(HELLO),
        row("bare CR in a value", post("X-A: 1\rContent-Length: 5\r\n", "{   }")).refused(&[400]),
        row("bare CR at a line's end", "GET /v1/things HTTP/1.1\rHost: a\r\r").gets(&[400], Ends),
        row("NUL in a value", post("X-A: 1\0\r\n", "")).refused(&[400]),
        row("DEL in a value", post("X-A: 1\x7f\r\n", "")).refused(&[400]),
        row("NUL in a name", post("X\0A: 1\r\n", "")).refused(&[400]),
        row("no name", post(": 1\r\n", "")).refused(&[400]),
        row("no colon", post("X-A\r\n", "")).refused(&[400]),
        row("blank in a name", post("X A: 1\r\n", "")).refused(&[400]),
        row("parenthesis in a name", post("X(A): 1\r\n", "")).refused(&[400]),
        row("bytes beyond ASCII in a value", post("X-A: \u{e9}\r\nContent-Length: 5\r\n", "{   }")).gets(&[200], Serves).engine(HELLO),
        row("method in small letters", head("get /v1/things HTTP/1.1")).gets(&[405], Serves),
        row("unknown method", head("PURGE /v1/things HTTP/1.1")).gets(&[405], Serves),
        row("method that is no token", head("G@T /v1/things HTTP/1.1")).refused(&[400]),
        row("TRACE", head("TRACE /v1/things HTTP/1.1")).gets(&[405], Serves),
        row("CONNECT", "CONNECT engine:443 HTTP/1.1\r\nHost: engine:443\r\n\r\n").refused(&[405]),
        row("OPTIONS *", head("OPTIONS * HTTP/1.1")).gets(&[404], Serves),
        row("no blank", head("GET/v1/thingsHTTP/1.1")).refused(&[400]),
        row("two blanks", head("GET  /v1/things HTTP/1.1")).gets(&[400], Serves),
        row("no version", head("GET /v1/things")).refused(&[400]),
        row("HTTP/0.9", "GET /v1/things\r\n\r\n").refused(&[400]),
        row("HTTP/1.2", head("GET /v1/things HTTP/1.2")).refused(&[400]),
        row("HTTP/2.0 in words", head("GET /v1/things HTTP/2.0")).refused(&[400]),
        row("HTTP in small letters", head("GET /v1/things http/1.1")).refused(&[400]),
        row("HTTP/11", head("GET /v1/things HTTP/11")).refused(&[400]),
        row("preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").refused(&[400]),
        row("TLS", tls).refused(&[400]),
        row("another protocol", "SSH-2.0-OpenSSH_9.6\r\n\r\n").refused(&[400]),
        row("empty lines first", "\r\n\r\nGET /v1/things HTTP/1.1\r\nHost: a\r\n\r\n")
            .gets(&[200], Serves)
            .engine(&["GET /v1/things"]),
        row("256 fields", many(256)).gets(&[200], Serves).engine(&["GET /v1/things"]),
        row("257 fields", many(257)).refused(&[400]),
        row("head of 60 KiB", get("/v1/things", &format!("X-A: {}\r\n", "a".repeat(60 << 10))))
            .gets(&[200], Serves)
            .engine(&["GET /v1/things"]),
        row("head beyond 64 KiB", get("/v1/things", &format!("X-A: {}\r\n", "a".repeat(65 << 10)))).gets(&[431], Serves),
        row("many fields beyond 64 KiB", get("/v1/things", &format!("X-A: {}\r\n", "a".repeat(800)).repeat(90)))
            .gets(&[431], Serves),
        row("head beyond 1 MiB", get("/v1/things", &format!("X-A: {}\r\n", "a".repeat(1 << 21))))
            .gets(&[400], EndsWithOrWithout),
        row("unknown expectation is ignored, as nginx does", post("Expect: the-unexpected\r\nContent-Length: 5\r\n", "{   }"))
            .gets(&[200], Serves)
            .engine(HELLO),
        row("a client that does not wait for its 100", post("Expect: 100-continue\r\nContent-Length: 5\r\n", "{   }"))
            .gets(&[100, 200], Serves)
            .engine(HELLO),
        row("HTTP/1.0 knows no 100", "POST /v1/completions HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n{   }")
            .gets(&[200], Ends)
            .engine(HELLO),
    ];
    check(&gateway, &engine, rows).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[rustfmt::skip]
async fn targets_and_hosts() {
    let (gateway, engine) = started("").await;
    let host = |lines: &str| format!("GET /v1/things HTTP/1.1\r\n{lines}\r\n");
    let rows = vec![
        row("no Host", host("")).gets(&[400], Serves),
        row("no Host in HTTP/1.0", "GET /v1/things HTTP/1.0\r\n\r\n").gets(&[200], Ends).engine(&["GET /v1/things"]),
        row("two Hosts", host("Host: a\r\nHost: b\r\n")).refused(&[400]),
        row("two equal Hosts", host("Host: a\r\nHost: a\r\n")).refused(&[400]),
        row("empty Host", host("Host:\r\n")).gets(&[400], Serves),
        row("Host with a blank", host("Host: a b\r\n")).gets(&[400], Serves),
        row("Host with a slash", host("Host: a/b\r\n")).gets(&[400], Serves),
        row("Host with a user", host("Host: user@a\r\n")).refused(&[400]),
        row("list of Hosts", host("Host: a, b\r\n")).gets(&[400], Serves),
        row("folded Host", host("Host: a\r\n b\r\n")).refused(&[400]),
        row("absolute form", "GET http://a:9/v1/things?x=1 HTTP/1.1\r\nHost: a:9\r\n\r\n")
            .gets(&[200], Serves)
            .engine(&["GET /v1/things?x=1"]),
        row("absolute form, capitals", "GET HTTP://a/v1/things HTTP/1.1\r\nHost: a\r\n\r\n")
            .gets(&[200], Serves)
            .engine(&["GET /v1/things"]),
        // nginx lets the target win (RFC 9112 §3.2.2); refusing is as safe.
        row("absolute form, another Host", "GET http://a/v1/things HTTP/1.1\r\nHost: b\r\n\r\n").refused(&[400]),
        row("absolute form with a user", "GET http://u@a/v1/things HTTP/1.1\r\nHost: a\r\n\r\n").refused(&[400]),
        row("absolute form of another scheme", "GET ftp://a/v1/things HTTP/1.1\r\nHost: a\r\n\r\n")
            .gets(&[200], Serves)
            .engine(&["GET /v1/things"]),
        row("address behind what is no scheme", "GET x?u=http://a/v1/things HTTP/1.1\r\nHost: a\r\n\r\n").refused(&[400]),
        row("authority form", "GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n").gets(&[400], Serves),
        row("target without a slash", "GET v1/things HTTP/1.1\r\nHost: a\r\n\r\n").gets(&[400], Serves),
        row("blank in the target", get("/v1/mo dels", "")).gets(&[404], Serves),
        row("version twice", get("/v1/things HTTP/1.1", "")).refused(&[400]),
        row("control character in the target", get("/v1/things\x01", "")).gets(&[404], Serves),
        row("tab in the target", get("/v1/\tthings", "")).gets(&[404], Serves),
        row("bare CR in the target", get("/v1/things\rX-A: 1", "")).gets(&[404], Serves),
        row("NUL in the query", get("/v1/things?a=\0", "")).gets(&[200], Serves).engine(&["GET /v1/things?a=%00"]),
        // Pingora drops it.
        row("fragment", get("/v1/things#x", "")).gets(&[200], Serves).engine(&["GET /v1/things"]),
        row("encoded CRLF in the query stays encoded", get("/v1/things?a=%0d%0aX:1", ""))
            .gets(&[200], Serves)
            .engine(&["GET /v1/things?a=%0d%0aX:1"]),
        row("encoded letter", get("/v1/%74hings", "")).gets(&[404], Serves),
        row("dot segments", get("/v1/../v1/things", "")).gets(&[404], Serves),
        row("two slashes", get("//v1/things", "")).gets(&[404], Serves),
        row("back slash", get("/v1\\things", "")).gets(&[404], Serves),
        row("path parameter", get("/v1/things;x", "")).gets(&[404], Serves),
        row("administration of an engine", "POST /sleep HTTP/1.1\r\nHost: a\r\n\r\n").gets(&[404], Serves),
        row("long target", get(&format!("/{}", "a".repeat(60 << 10)), "")).gets(&[404], Serves),
        // No URI of the http crate is longer.
        row("target beyond 64 KiB", get(&format!("/{}", "a".repeat(65 << 10)), "")).refused(&[400]),
        row("Connection names Host", post("Connection: host\r\n", "")).gets(&[400], Serves),
        row("Connection names Content-Length", post("Connection: content-length\r\nContent-Length: 5\r\n", "{   }"))
            .refused(&[400]),
        row("Connection names X-Forwarded-For", post("Connection: close, X-Forwarded-For\r\n", "")).refused(&[400]),
    ];
    check(&gateway, &engine, rows).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[rustfmt::skip]
async fn bodies_beyond_the_limit() {
    let (gateway, engine) = started("limits: { body: 1KiB }\n").await;
    // Of what is JSON so far, or it would be refused for that.
    let chunk = format!("200\r\n{}\r\n", " ".repeat(512));
    let rows = vec![
        row("declared", post("Content-Length: 1025\r\n", &"a".repeat(1025))).refused(&[413]),
        row("declared and never sent", post("Content-Length: 99999999\r\n", "")).refused(&[413]),
        row("declared in a list", post("Content-Length: 1025, 1025\r\n", &"a".repeat(1025))).refused(&[413]),
        row("declared behind an expectation", post("Expect: 100-continue\r\nContent-Length: 1025\r\n", "")).refused(&[413]),
        row("in chunks", post("Transfer-Encoding: chunked\r\n", &chunk.repeat(3))).refused(&[413]),
        row("in one chunk that never ends", post("Transfer-Encoding: chunked\r\n", &format!("fffffff\r\n{}", "a".repeat(2048))))
            .refused(&[413]),
        row("in many small chunks", post("Transfer-Encoding: chunked\r\n", &"1\r\n \r\n".repeat(1025))).refused(&[413]),
        row("exactly the limit", post("Content-Length: 5\r\n", "{   }")).gets(&[200], Serves).engine(HELLO),
    ];
    check(&gateway, &engine, rows).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[rustfmt::skip]
async fn what_a_plain_proxy_lets_through_is_well_formed_all_the_same() {
    let (gateway, engine) = started("expose: all\n").await;
    let head = |line: &str| format!("{line}\r\nHost: gateway\r\n\r\n");
    let rows = vec![
        row("blank in the target", head("GET /a b HTTP/1.1")).gets(&[200], Serves).engine(&["GET /a%20b"]),
        row("bare CR in the target", head("GET /a\rX-A:1 HTTP/1.1")).gets(&[200], Serves).engine(&["GET /a%0DX-A:1"]),
        row("encoded control characters", head("GET /a%0d%0ab HTTP/1.1")).gets(&[200], Serves).engine(&["GET /a%0d%0ab"]),
        row("unknown method", head("PURGE /a HTTP/1.1")).gets(&[200], Serves).engine(&["PURGE /a"]),
        row("TRACE", head("TRACE /a HTTP/1.1")).gets(&[405], Serves),
        row("OPTIONS *", head("OPTIONS * HTTP/1.1")).gets(&[200], Serves).engine(&["OPTIONS *"]),
        row("upgrade", "GET /a HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            .gets(&[200], Serves)
            .engine(&["GET /a"]),
        row("upgrade to h2c", "GET /a HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n")
            .gets(&[200], Serves)
            .engine(&["GET /a"]),
    ];
    check(&gateway, &engine, rows).await;
    for request in engine.received() {
        for gone in ["connection", "upgrade", "http2-settings", "te", "trailer", "expect", "keep-alive"] {
            assert_eq!(request.field(gone), None, "{request:?}");
        }
    }
}

/// Pingora makes such a head longer than it came, so that its length says nothing of what came behind it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_behind_an_escaped_target_is_never_a_request() {
    let (gateway, engine) = started("expose: all\n").await;
    let smuggled = "POST /v1/completions HTTP/1.1\r\nHost: b\r\nContent-Length: 5\r\n\r\n{   }";
    let body = format!("{smuggled}{}", "a".repeat(300));
    let blanks = " ".repeat(100);
    for target in ["?a=", "#", "?#"].map(|part| format!("/v1/chat/completions{part}{blanks}b")) {
        for before in [
            "",
            &format!("GET /v1/things#{blanks}b HTTP/1.1\r\nHost: a\r\n\r\n"),
        ] {
            let count = engine.received().len() + 1 + usize::from(!before.is_empty());
            let mut wire = Wire::to(gateway.public).await;
            if !before.is_empty() {
                wire.send(before).await;
                assert_eq!(wire.answer().await.unwrap().status, 200);
            }
            let length = body.len();
            let head =
                format!("POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
            wire.send(format!("{head}{smuggled}")).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            wire.send(&body[smuggled.len()..]).await;
            assert_eq!(wire.answer().await.unwrap().status, 200, "{target}");
            let received = engine.received();
            assert_eq!(received.len(), count, "{target}");
            assert_eq!(received[count - 1].body, body.as_bytes(), "{target}");
        }
    }
    engine.assert_well_formed();
}

/// The whole head is judged before the 100, so that no client sends 64 MiB to be refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_100_goes_before_a_refusal() {
    let (gateway, _engine) = started("limits: { body: 1KiB }\n").await;
    for (target, fields, status) in [
        ("/v1/completions", "Content-Length: 1025\r\n", 413),
        ("/v1/nothing", "Content-Length: 5\r\n", 404),
        ("/v1/things", "Content-Length: 5\r\n", 405),
    ] {
        let mut wire = Wire::to(gateway.public).await;
        wire.send(format!(
            "POST {target} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n{fields}\r\n"
        ))
        .await;
        assert_eq!(wire.answer().await.unwrap().status, status, "{target}");
    }
}
