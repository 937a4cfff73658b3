//! An engine that keeps every byte it receives, and answers as it is told.
//!
//! It reads requests by the narrowest rules there are. Whatever it cannot read so is a request that two
//! engines might read differently, and fails the test.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Duration, Instant, sleep};

/// A request, whole.
#[derive(Debug, Clone)]
pub struct Received {
    pub method: String,
    pub target: String,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Numbers the connections from 0.
    pub connection: usize,
}

impl Received {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// `POST /v1/completions hello`
    pub fn in_short(&self) -> String {
        let body = String::from_utf8_lossy(&self.body);
        format!("{} {} {body}", self.method, self.target)
            .trim_end()
            .to_owned()
    }
}

/// What is written in place of an answer.
#[derive(Debug, Clone)]
pub struct Reply {
    pub bytes: Vec<u8>,
    pub then: End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The connection takes another request.
    Keep,
    Close,
    Reset,
    /// Then these again and again, until the gateway closes.
    Forever(&'static [u8]),
}

#[derive(Default)]
struct State {
    captures: Vec<Vec<u8>>,
    received: Vec<Received>,
    malformed: Vec<String>,
    closed: usize,
    replies: HashMap<String, Reply>,
    /// A request needs no Host.
    takes_no_host: bool,
}

/// A running engine; its connections end with the runtime.
#[derive(Clone)]
pub struct Recorder {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Recorder {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let recorder = Self {
            address: listener.local_addr().unwrap(),
            state: Arc::default(),
        };
        let accepting = recorder.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let number = {
                    let mut state = accepting.state.lock().unwrap();
                    state.captures.push(Vec::new());
                    state.captures.len() - 1
                };
                let serving = accepting.clone();
                tokio::spawn(async move {
                    serving.serve(stream, number).await;
                    serving.state.lock().unwrap().closed += 1;
                });
            }
        });
        recorder
    }

    pub fn authority(&self) -> String {
        self.address.to_string()
    }

    /// A request without Host is no mistake, from now on.
    pub fn take_no_host(&self) {
        self.state.lock().unwrap().takes_no_host = true;
    }

    /// What requests for this target get, from now on.
    pub fn reply(&self, target: &str, bytes: impl Into<Vec<u8>>, then: End) {
        let reply = Reply {
            bytes: bytes.into(),
            then,
        };
        self.state
            .lock()
            .unwrap()
            .replies
            .insert(target.into(), reply);
    }

    /// Every request so far but the gateway's own, in the order they became whole.
    pub fn received(&self) -> Vec<Received> {
        let state = self.state.lock().unwrap();
        state
            .received
            .iter()
            .filter(|r| r.field("user-agent") != Some("sluicegate"))
            .cloned()
            .collect()
    }

    /// Waits until there are `count` of them.
    pub async fn wait_for(&self, count: usize) -> Vec<Received> {
        for _ in 0..4000 {
            let received = self.received();
            if received.len() >= count {
                return received;
            }
            sleep(Duration::from_millis(5)).await;
        }
        panic!("{count} requests did not come: {:?}", self.received());
    }

    /// Waits until the gateway has closed every connection.
    pub async fn wait_until_left(&self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        loop {
            let open = {
                let state = self.state.lock().unwrap();
                state.captures.len() - state.closed
            };
            if open == 0 || Instant::now() > end {
                return open == 0;
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Everything received is whole requests, and nothing else.
    pub fn assert_well_formed(&self) {
        let state = self.state.lock().unwrap();
        assert_eq!(state.malformed, Vec::<String>::new());
        for capture in &state.captures {
            let mut rest = &capture[..];
            while !rest.is_empty() {
                match parse(rest, state.takes_no_host) {
                    Ok(Some((_, length))) => rest = &rest[length..],
                    other => panic!(
                        "{other:?}: half-formed: {:?}",
                        String::from_utf8_lossy(rest)
                    ),
                }
            }
        }
    }

    async fn serve(&self, mut stream: TcpStream, number: usize) {
        let mut buffer = vec![0; 64 * 1024];
        let mut pending = Vec::new();
        loop {
            let read = match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(read) => read,
            };
            self.state.lock().unwrap().captures[number].extend_from_slice(&buffer[..read]);
            pending.extend_from_slice(&buffer[..read]);
            loop {
                let takes_no_host = self.state.lock().unwrap().takes_no_host;
                match parse(&pending, takes_no_host) {
                    Ok(None) => break,
                    Ok(Some((mut request, length))) => {
                        pending.drain(..length);
                        request.connection = number;
                        if !self.answer(&mut stream, request).await {
                            return;
                        }
                    }
                    Err(why) => {
                        let what = String::from_utf8_lossy(&pending).into_owned();
                        self.state
                            .lock()
                            .unwrap()
                            .malformed
                            .push(format!("{why}: {what:?}"));
                        return;
                    }
                }
            }
        }
    }

    /// Whether the connection goes on.
    async fn answer(&self, stream: &mut TcpStream, request: Received) -> bool {
        let reply = {
            let mut state = self.state.lock().unwrap();
            let reply = state.replies.get(&request.target).cloned();
            state.received.push(request);
            reply.unwrap_or_else(|| Reply {
                bytes: good("{}").into_bytes(),
                then: End::Keep,
            })
        };
        let written = stream.write_all(&reply.bytes).await;
        match reply.then {
            End::Keep => written.is_ok(),
            End::Close => false,
            End::Reset => {
                stream.set_zero_linger().unwrap();
                false
            }
            End::Forever(bytes) => {
                while stream.write_all(bytes).await.is_ok() {
                    tokio::task::yield_now().await;
                }
                false
            }
        }
    }
}

/// An answer as it should be.
pub fn good(body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

/// The first request of `bytes` and its length; `None` when it is not whole.
fn parse(bytes: &[u8], takes_no_host: bool) -> Result<Option<(Received, usize)>, &'static str> {
    let Some(head_end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(&bytes[..head_end]).map_err(|_| "head is not UTF-8")?;
    let mut lines = head.split("\r\n");
    let first: Vec<_> = lines.next().ok_or("no request line")?.split(' ').collect();
    let [method, target, "HTTP/1.1"] = first[..] else {
        return Err("request line");
    };
    if method.is_empty() || !target.starts_with('/') && target != "*" {
        return Err("method or target");
    }
    let mut fields = Vec::new();
    for line in lines {
        let (name, value) = line
            .split_once(": ")
            .ok_or("field without a colon and a blank")?;
        let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if name.is_empty() || !name.bytes().all(is_token) {
            return Err("field name");
        }
        if value.bytes().any(|b| b < b' ' && b != b'\t' || b == 0x7f) || value.trim() != value {
            return Err("field value");
        }
        fields.push((name.to_owned(), value.to_owned()));
    }
    let of = |name: &str| -> Vec<&str> {
        let of_name = fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        of_name.map(|(_, value)| value.as_str()).collect()
    };
    if of("host").len() != 1 && !(takes_no_host && of("host").is_empty()) {
        return Err("not one Host");
    }
    if !of("transfer-encoding").is_empty() {
        return Err("Transfer-Encoding");
    }
    let length = match of("content-length")[..] {
        [] => 0,
        [one] if one.bytes().all(|b| b.is_ascii_digit()) => one.parse().map_err(|_| "length")?,
        _ => return Err("not one plain Content-Length"),
    };
    let end = head_end + 4 + length;
    if bytes.len() < end {
        return Ok(None);
    }
    let request = Received {
        method: method.to_owned(),
        target: target.to_owned(),
        body: bytes[head_end + 4..end].to_vec(),
        connection: 0,
        fields,
    };
    Ok(Some((request, end)))
}
