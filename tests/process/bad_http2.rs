//! What HTTP/2 clients send that is wrong, frame by frame. No library writes such frames, so they are
//! written here: field lists without compression, and just enough reading to see what became of them.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::client::TlsStream;

use crate::bad_requests::assert_no_complaints;
use crate::certificates::{Certificate, LISTEN, connect};
use crate::gateway::{Gateway, Start};
use crate::recorder::Recorder;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// RFC 7541 §6.2.2: literals that nobody keeps.
fn fields(list: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in list {
        block.push(0);
        for text in [name, value] {
            integer(&mut block, text.len());
            block.extend(text.as_bytes());
        }
    }
    block
}

/// RFC 7541 §5.1, with a prefix of 7 bits and no Huffman code.
fn integer(block: &mut Vec<u8>, mut value: usize) {
    if value < 127 {
        return block.push(value as u8);
    }
    block.push(127);
    value -= 127;
    while value >= 128 {
        block.push((value % 128 + 128) as u8);
        value /= 128;
    }
    block.push(value as u8);
}

/// A request on stream 1, with this body; no body ends it with its head.
fn request(list: &[(&str, &str)], body: Option<&[u8]>) -> Vec<u8> {
    let end = if body.is_none() { END_STREAM } else { 0 };
    let mut frames = frame(HEADERS, END_HEADERS | end, 1, &fields(list));
    if let Some(body) = body {
        frames.extend(frame(DATA, END_STREAM, 1, body));
    }
    frames
}

const GET: [(&str, &str); 4] = [
    (":method", "GET"),
    (":scheme", "https"),
    (":authority", "a"),
    (":path", "/v1/things"),
];
const POST: [(&str, &str); 4] = [
    (":method", "POST"),
    (":scheme", "https"),
    (":authority", "a"),
    (":path", "/v1/completions"),
];

/// The request for things with further fields.
fn get(more: &[(&str, &str)]) -> Vec<u8> {
    request(&[&GET, more].concat(), None)
}

/// The request for things with one of its own four replaced, or without it.
fn with(name: &str, value: Option<&str>) -> Vec<u8> {
    let mut list: Vec<_> = GET.to_vec();
    let at = list.iter().position(|(n, _)| *n == name).unwrap();
    match value {
        Some(value) => list[at].1 = value,
        None => drop(list.remove(at)),
    }
    request(&list, None)
}

fn post(more: &[(&str, &str)], body: Option<&[u8]>) -> Vec<u8> {
    request(&[&POST, more].concat(), body)
}

/// What came back for stream 1, or for the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Status(u16),
    /// RST_STREAM before any status, with this code.
    StreamError(u32),
    /// GOAWAY with a code, or the end of the connection.
    ConnectionError,
    Nothing,
}

struct Http2 {
    stream: TlsStream<TcpStream>,
    read: Vec<u8>,
}

impl Http2 {
    async fn to(gateway: &Gateway, certificate: &Certificate) -> Self {
        let stream = connect(gateway.public, &[certificate], "h2").await.unwrap();
        let mut http2 = Self {
            stream,
            read: Vec::new(),
        };
        http2
            .send(&[PREFACE, &frame(SETTINGS, 0, 0, b"")].concat())
            .await;
        http2
    }

    async fn send(&mut self, bytes: &[u8]) {
        // That the other side is gone shows when it is read.
        let _ = self.stream.write_all(bytes).await;
        let _ = self.stream.flush().await;
    }

    /// The next frame: kind, stream and payload.
    async fn frame(&mut self) -> Option<(u8, u32, Vec<u8>)> {
        loop {
            if self.read.len() >= 9 {
                let length =
                    u32::from_be_bytes([0, self.read[0], self.read[1], self.read[2]]) as usize;
                if self.read.len() >= 9 + length {
                    let head: Vec<u8> = self.read.drain(..9).collect();
                    let payload = self.read.drain(..length).collect();
                    let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
                    return Some((head[3], stream, payload));
                }
            }
            match self.stream.read_buf(&mut self.read).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    async fn outcome(&mut self) -> Outcome {
        self.outcome_within(Duration::from_secs(5)).await
    }

    async fn outcome_within(&mut self, limit: Duration) -> Outcome {
        let end = Instant::now() + limit;
        loop {
            let Ok(frame) = tokio::time::timeout_at(end, self.frame()).await else {
                return Outcome::Nothing;
            };
            match frame {
                None => return Outcome::ConnectionError,
                Some((HEADERS, 1, block)) => return Outcome::Status(status(&block)),
                Some((RST_STREAM, 1, code)) => {
                    return Outcome::StreamError(u32::from_be_bytes(code[..4].try_into().unwrap()));
                }
                // Last stream and code.
                Some((GOAWAY, _, what)) if what[4..8] != [0; 4] => return Outcome::ConnectionError,
                Some(_) => {}
            }
        }
    }
}

/// The status at the front of a block: one of the seven of the static table, or its name and three
/// digits, plain or in Huffman's code (RFC 7541 appendix A and B).
fn status(block: &[u8]) -> u16 {
    const STATIC: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    // The table may be resized first.
    let block = &block[block.iter().position(|b| b & 0xe0 != 0x20).unwrap()..];
    if (0x88..=0x8e).contains(&block[0]) {
        return STATIC[usize::from(block[0] - 0x88)];
    }
    assert!(
        matches!(block[0], 0x48 | 0x08 | 0x18),
        "no status first: {block:?}"
    );
    let value = &block[2..2 + usize::from(block[1] & 0x7f)];
    if block[1] & 0x80 == 0 {
        return std::str::from_utf8(value).unwrap().parse().unwrap();
    }
    let bits = value
        .iter()
        .fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
    let mut left = value.len() * 8;
    let mut take = |count: usize| {
        left -= count;
        (bits >> left & ((1 << count) - 1)) as u16
    };
    (0..3).fold(0, |number, _| {
        let five = take(5);
        let digit = if five < 3 {
            five
        } else {
            (five << 1 | take(1)) - 0x19 + 3
        };
        number * 10 + digit
    })
}

use Outcome::{ConnectionError, Nothing, Status, StreamError};
/// RFC 9113 §7.
const PROTOCOL_ERROR: Outcome = StreamError(1);

async fn started(keys: &str) -> (Gateway, Certificate, Recorder) {
    let engine = Recorder::start().await;
    let certificate = Certificate::new();
    let keys = &format!("expose: [GET /v1/things]\n{keys}");
    let start = Start::new(&[engine.authority()], keys).listen(LISTEN);
    certificate.install(start.directory());
    (start.run(), certificate, engine)
}

type Row = (&'static str, Vec<u8>, Outcome, &'static [&'static str]);

async fn check(keys: &str, rows: Vec<Row>) {
    let (gateway, certificate, engine) = started(keys).await;
    let mut wrong = Vec::new();
    for (name, frames, expected, received) in rows {
        let before = engine.received().len();
        let mut http2 = Http2::to(&gateway, &certificate).await;
        http2.send(&frames).await;
        let outcome = http2.outcome().await;
        if outcome != expected {
            wrong.push(format!("{name}: {outcome:?}, not {expected:?}"));
        }
        let got: Vec<_> = engine.received()[before..]
            .iter()
            .map(|r| r.in_short())
            .collect();
        if got != received {
            wrong.push(format!("{name}: the engine got {got:?}, not {received:?}"));
        }
    }
    let mut http2 = Http2::to(&gateway, &certificate).await;
    http2.send(&get(&[])).await;
    assert_eq!(http2.outcome().await, Status(200), "it serves on");
    engine.assert_well_formed();
    assert_no_complaints(&gateway);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[rustfmt::skip]
async fn fields_that_http2_forbids() {
    let things: &[_] = &["GET /v1/things"];
    let nothing: &[_] = &[];
    let long = "a".repeat(20_000);
    let rows: Vec<Row> = vec![
        ("as it should be", get(&[]), Status(200), things),
        ("no :path", with(":path", None), PROTOCOL_ERROR, nothing),
        ("no :method", with(":method", None), PROTOCOL_ERROR, nothing),
        ("no :scheme", with(":scheme", None), PROTOCOL_ERROR, nothing),
        ("no :authority and no host", with(":authority", None), Status(400), nothing),
        ("host in place of :authority", request(&[GET[0], GET[1], GET[3], ("host", "a")], None), Status(200), things),
        ("two :path", get(&[(":path", "/v1/things")]), PROTOCOL_ERROR, nothing),
        ("two :method", get(&[(":method", "POST")]), PROTOCOL_ERROR, nothing),
        ("pseudo-field behind a field", request(&[GET[0], GET[1], GET[2], ("x-a", "1"), GET[3]], None), PROTOCOL_ERROR, nothing),
        ("unknown pseudo-field", get(&[(":protocol-of-mine", "1")]), ConnectionError, nothing),
        ("pseudo-field of answers", get(&[(":status", "200")]), PROTOCOL_ERROR, nothing),
        ("capitals in a name", get(&[("X-A", "1")]), ConnectionError, nothing),
        ("blank in a name", get(&[("x a", "1")]), ConnectionError, nothing),
        ("colon in a name", get(&[("x:a", "1")]), ConnectionError, nothing),
        ("CRLF in a name", get(&[("x-a\r\nhost", "1")]), ConnectionError, nothing),
        ("CRLF in a value", get(&[("x-a", "1\r\nhost: evil")]), ConnectionError, nothing),
        ("line feed in a value", get(&[("x-a", "1\n2")]), ConnectionError, nothing),
        ("NUL in a value", get(&[("x-a", "1\0")]), ConnectionError, nothing),
        ("connection", get(&[("connection", "close")]), PROTOCOL_ERROR, nothing),
        ("keep-alive", get(&[("keep-alive", "1")]), PROTOCOL_ERROR, nothing),
        ("proxy-connection", get(&[("proxy-connection", "close")]), PROTOCOL_ERROR, nothing),
        ("upgrade", get(&[("upgrade", "websocket")]), PROTOCOL_ERROR, nothing),
        ("transfer-encoding", post(&[("transfer-encoding", "chunked")], Some(b"0\r\n\r\n")), PROTOCOL_ERROR, nothing),
        ("te other than trailers", get(&[("te", "gzip")]), PROTOCOL_ERROR, nothing),
        ("te: trailers", get(&[("te", "trailers")]), Status(200), things),
        (":authority and another host", get(&[("host", "b")]), Status(400), nothing),
        (":authority and the same host", get(&[("host", "a")]), Status(200), things),
        (":authority with a user", with(":authority", Some("user@a")), Status(400), nothing),
        (":authority with a path", with(":authority", Some("a/v1")), PROTOCOL_ERROR, nothing),
        (":authority with CRLF", with(":authority", Some("a\r\nx: 1")), PROTOCOL_ERROR, nothing),
        (":path without a slash", with(":path", Some("v1/things")), PROTOCOL_ERROR, nothing),
        (":path empty", with(":path", Some("")), PROTOCOL_ERROR, nothing),
        (":path in absolute form", with(":path", Some("http://b/v1/things")), PROTOCOL_ERROR, nothing),
        (":path with a blank", with(":path", Some("/v1/things HTTP/1.1")), PROTOCOL_ERROR, nothing),
        (":path with CRLF", with(":path", Some("/v1/things HTTP/1.1\r\nX-A: 1")), PROTOCOL_ERROR, nothing),
        (":path with dot segments", with(":path", Some("/v1/../v1/things")), Status(404), nothing),
        (":method with CRLF", with(":method", Some("GET / HTTP/1.1\r\nX: 1\r\n\r\nGET")), ConnectionError, nothing),
        (":method in small letters", with(":method", Some("get")), Status(405), nothing),
        (":scheme that is none", with(":scheme", Some("https://x")), PROTOCOL_ERROR, nothing),
        ("CONNECT", request(&[(":method", "CONNECT"), (":authority", "a:443")], None), Status(405), nothing),
        ("fields beyond 64 KiB", {
            let list: Vec<_> = GET.into_iter().chain([("x-a", &long[..]); 4]).collect();
            let block = fields(&list);
            let mut frames = frame(HEADERS, END_STREAM, 1, &block[..16_000]);
            let rest: Vec<_> = block[16_000..].chunks(16_000).collect();
            for (n, part) in rest.iter().enumerate() {
                let flags = if n + 1 == rest.len() { END_HEADERS } else { 0 };
                frames.extend(frame(CONTINUATION, flags, 1, part));
            }
            frames
        }, Status(431), nothing),
    ];
    check("", rows).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[rustfmt::skip]
async fn bodies_and_frames_that_http2_forbids() {
    let hello: &[_] = &["POST /v1/completions {   }"];
    let nothing: &[_] = &[];
    let without_end = |list: &[(&str, &str)], more: &[Vec<u8>]| {
        let head = frame(HEADERS, END_HEADERS, 1, &fields(&[&POST, list].concat()));
        [head, more.concat()].concat()
    };
    let rows: Vec<Row> = vec![
        ("as it should be", post(&[("content-length", "5")], Some(b"{   }")), Status(200), hello),
        ("without a length", post(&[], Some(b"{   }")), Status(200), hello),
        ("length too long", post(&[("content-length", "9")], Some(b"{   }")), PROTOCOL_ERROR, nothing),
        ("length too short", post(&[("content-length", "3")], Some(b"{   }")), PROTOCOL_ERROR, nothing),
        ("length and no body", post(&[("content-length", "5")], None), PROTOCOL_ERROR, nothing),
        ("two lengths", post(&[("content-length", "5"), ("content-length", "6")], Some(b"{   }")), PROTOCOL_ERROR, nothing),
        ("signed length", post(&[("content-length", "+5")], Some(b"{   }")), PROTOCOL_ERROR, nothing),
        ("body beyond the limit, declared", post(&[("content-length", "2000")], Some(&[b'a'; 2000])), Status(413), nothing),
        ("body beyond the limit", post(&[], Some(&[b'a'; 2000])), Status(413), nothing),
        ("body that stops", without_end(&[], &[frame(DATA, 0, 1, b"{  ")]), Status(408), nothing),
        ("trailers are dropped", without_end(&[], &[
            frame(DATA, 0, 1, b"{   }"),
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields(&[("x-a", "1")])),
        ]), Status(200), hello),
        // They are dropped, like any.
        ("trailers with a pseudo-field", without_end(&[], &[
            frame(DATA, 0, 1, b"{   }"),
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields(&[(":path", "/")])),
        ]), Status(200), hello),
        ("trailers that do not end", without_end(&[], &[
            frame(DATA, 0, 1, b"{   }"),
            frame(HEADERS, END_HEADERS, 1, &fields(&[("x-a", "1")])),
        ]), PROTOCOL_ERROR, nothing),
        ("data of a stream that was never begun", frame(DATA, END_STREAM, 1, b"{   }"), ConnectionError, nothing),
        ("stream 0", frame(HEADERS, END_HEADERS | END_STREAM, 0, &fields(&GET)), ConnectionError, nothing),
        ("even stream", frame(HEADERS, END_HEADERS | END_STREAM, 2, &fields(&GET)), ConnectionError, nothing),
        ("data inside a head", [
            frame(HEADERS, END_STREAM, 1, &fields(&GET)),
            frame(DATA, END_STREAM, 1, b"{   }"),
        ].concat(), ConnectionError, nothing),
        ("frame beyond its limit", frame(DATA, 0, 1, &[0; 20_000]), ConnectionError, nothing),
        ("window of 0", [get(&[]), frame(WINDOW_UPDATE, 0, 0, &[0; 4])].concat(), ConnectionError, nothing),
        ("settings of odd size", frame(SETTINGS, 0, 0, &[0; 5]), ConnectionError, nothing),
        ("no field block", frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0xff; 8]), ConnectionError, nothing),
        ("HTTP/1.1 in place of frames", b"GET /v1/things HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), ConnectionError, nothing),
    ];
    check("limits: { body: 1KiB }\nclient: { body_timeout: 1s }\n", rows).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_frames_are_ended() {
    let (gateway, certificate, engine) = started("client: { header_timeout: 1s }\n").await;
    let before = gateway.resident();
    // RFC 9113 §10.5: requests taken back at once, each a request to an engine otherwise.
    let rapid_reset = async {
        let mut http2 = Http2::to(&gateway, &certificate).await;
        for n in 0..5_000 {
            let stream = n * 2 + 1;
            let head = frame(HEADERS, END_HEADERS, stream, &fields(&POST));
            http2
                .send(&[head, frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat())
                .await;
        }
        loop {
            match http2.outcome().await {
                ConnectionError => return,
                Nothing => panic!("a flood of resets goes on"),
                _ => {}
            }
        }
    };
    let endless_head = async {
        let mut http2 = Http2::to(&gateway, &certificate).await;
        http2
            .send(&frame(HEADERS, END_STREAM, 1, &fields(&GET)))
            .await;
        let part = fields(&[("x-a", &"a".repeat(16_000))]);
        for _ in 0..2_000 {
            http2.send(&frame(CONTINUATION, 0, 1, &part)).await;
        }
        assert_eq!(http2.outcome().await, ConnectionError);
    };
    let empty_continuations = async {
        let mut http2 = Http2::to(&gateway, &certificate).await;
        http2
            .send(&frame(HEADERS, END_STREAM, 1, &fields(&GET)))
            .await;
        for _ in 0..20_000 {
            http2.send(&frame(CONTINUATION, 0, 1, b"")).await;
        }
        assert_eq!(http2.outcome().await, ConnectionError);
    };
    timeout(Duration::from_secs(30), async {
        tokio::join!(rapid_reset, endless_head, empty_continuations)
    })
    .await
    .expect("floods end");
    let grown = gateway.resident().saturating_sub(before);
    assert!(grown < 32 << 10, "{grown} KiB");
    assert!(
        engine.received().len() < 200,
        "{} requests",
        engine.received().len()
    );
    let mut http2 = Http2::to(&gateway, &certificate).await;
    http2.send(&get(&[])).await;
    assert_eq!(http2.outcome().await, Status(200));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_preface_leaves_no_line_in_the_log() {
    let (gateway, certificate, _engine) = started("").await;
    for bytes in [&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], b"PRI", b"\0"] {
        let mut stream = connect(gateway.public, &[&certificate], "h2")
            .await
            .unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_no_complaints(&gateway);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_without_a_request_ends_in_time() {
    let (gateway, certificate, engine) = started("client: { header_timeout: 1s }\n").await;
    let ends = |name: &'static str, limit: u64| {
        let begun = Instant::now();
        move || {
            let took = begun.elapsed();
            assert!(took < Duration::from_secs(limit), "{name} took {took:?}");
        }
    };
    let no_handshake = async {
        let end = ends("no handshake", 4);
        let mut stream = TcpStream::connect(gateway.public).await.unwrap();
        stream.write_all(&[0x16, 3, 1]).await.unwrap();
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap_or(0), 0);
        end();
    };
    let no_preface = async {
        let end = ends("no preface", 4);
        let mut stream = connect(gateway.public, &[&certificate], "h2")
            .await
            .unwrap();
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all).await;
        end();
    };
    let no_request = async {
        let end = ends("no request", 5);
        let mut http2 = Http2::to(&gateway, &certificate).await;
        assert_eq!(
            http2.outcome_within(Duration::from_secs(10)).await,
            ConnectionError
        );
        end();
    };
    let half_a_head = async {
        let end = ends("half a head", 5);
        let mut http2 = Http2::to(&gateway, &certificate).await;
        http2
            .send(&frame(HEADERS, END_STREAM, 1, &fields(&GET)))
            .await;
        assert_eq!(
            http2.outcome_within(Duration::from_secs(10)).await,
            ConnectionError
        );
        end();
    };
    tokio::join!(no_handshake, no_preface, no_request, half_a_head);
    assert!(engine.received().is_empty());
    assert_no_complaints(&gateway);
}
