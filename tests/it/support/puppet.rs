use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use super::within;

/// An engine that does exactly what the test says, byte by byte. `GET /health` it answers itself, and the
/// gateway's own `GET /v1/models` with [`Puppet::serve`].
pub struct Puppet {
    shared: Arc<Shared>,
    address: SocketAddr,
    inbox: mpsc::UnboundedReceiver<Exchange>,
    acceptor: JoinHandle<()>,
    socket: Socket,
    stuffing: Vec<TcpStream>,
}

#[derive(Default)]
struct Shared {
    /// What every request is answered with; else it is handed to the test.
    canned: Option<(Vec<u8>, Then)>,
    requests: Mutex<Vec<(String, Vec<u8>)>>,
    accepts: AtomicU64,
    health: AtomicU16,
    probes: AtomicU64,
    questions: AtomicU64,
    /// The models it says that it serves; 404 where it says nothing.
    catalog: Mutex<Option<String>>,
    is_deaf: AtomicBool,
    deaf: Notify,
    reads_nothing: AtomicBool,
    answers_heads: AtomicBool,
}

/// What becomes of the connection after a canned answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    Keep,
    Close,
    Reset,
}

/// One request in the hands of the test. Dropping it closes the connection.
pub struct Exchange {
    wire: Wire,
    shared: Arc<Shared>,
    outbox: mpsc::UnboundedSender<Exchange>,
}

struct Wire {
    stream: TcpStream,
    input: Vec<u8>,
}

/// The head of a stream of events in chunks.
pub fn sse_head() -> &'static str {
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
}

impl Puppet {
    /// Hands every request to the test.
    pub async fn start() -> Self {
        Self::launch(None)
    }

    /// Answers every request with these bytes.
    pub async fn answering(bytes: impl AsRef<[u8]>, then: Then) -> Self {
        Self::launch(Some((bytes.as_ref().to_vec(), then)))
    }

    fn launch(canned: Option<(Vec<u8>, Then)>) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket
            .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
            .expect("a free port");
        socket.listen(1024).expect("a listener");
        socket.set_nonblocking(true).expect("a listener");
        let listener = socket.try_clone().expect("a socket");
        let listener = TcpListener::from_std(listener.into()).expect("a listener");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            canned,
            health: AtomicU16::new(200),
            ..Shared::default()
        });
        let (outbox, inbox) = mpsc::unbounded_channel();
        let acceptor = tokio::spawn(accept(listener, Arc::clone(&shared), outbox));
        Self {
            shared,
            address,
            inbox,
            acceptor,
            socket,
            stuffing: Vec::new(),
        }
    }

    pub fn authority(&self) -> String {
        self.address.to_string()
    }

    /// The next request, whole.
    pub async fn next(&mut self) -> Exchange {
        within("a request", self.inbox.recv())
            .await
            .expect("the puppet lives")
    }

    /// Heads and bodies of the requests so far, probes aside.
    pub fn requests(&self) -> Vec<(String, Vec<u8>)> {
        self.shared.requests.lock().expect("no panic").clone()
    }

    /// Connections, but those of [`Self::questions`].
    pub fn accepts(&self) -> u64 {
        self.shared.accepts.load(Relaxed) - self.questions()
    }

    /// How often the gateway asked what it serves.
    pub fn questions(&self) -> u64 {
        self.shared.questions.load(Relaxed)
    }

    pub fn probes(&self) -> u64 {
        self.shared.probes.load(Relaxed)
    }

    /// What `GET /health` is answered with; 0: nothing.
    pub fn set_health(&self, status: u16) {
        self.shared.health.store(status, Relaxed);
    }

    /// What the gateway's own `GET /v1/models` is answered with, from now on.
    pub fn serve(&self, json: &str) {
        *self.shared.catalog.lock().expect("no panic") = Some(json.to_owned());
    }

    /// Closes the listener; open connections go on.
    pub async fn refuse(&mut self) {
        self.acceptor.abort();
        // Its end, not its result, matters.
        let _ = (&mut self.acceptor).await;
        self.socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        // So that no other process listens there instead.
        self.socket.set_reuse_address(true).expect("a socket");
        let _ = self.socket.bind(&self.address.into());
    }

    /// From now on connections are accepted and not read from.
    pub fn stop_reading(&self) {
        self.shared.reads_nothing.store(true, Relaxed);
    }

    /// From now on a head is answered with 413 and the connection closed, whatever follows.
    pub fn answer_heads(&self) {
        self.shared.answers_heads.store(true, Relaxed);
    }

    /// From now on connects get no answer: the backlog is full, and nobody accepts.
    pub async fn swallow_connects(&mut self) {
        self.shared.is_deaf.store(true, Relaxed);
        self.shared.deaf.notify_one();
        // Makes the backlog as short as can be, so that it is soon full.
        self.socket.listen(1).expect("a listener");
        loop {
            let connect = TcpStream::connect(self.address);
            match tokio::time::timeout(Duration::from_millis(100), connect).await {
                Ok(connected) => self.stuffing.push(connected.expect("a listener")),
                Err(_) => return,
            }
        }
    }
}

impl Drop for Puppet {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

async fn accept(
    listener: TcpListener,
    shared: Arc<Shared>,
    outbox: mpsc::UnboundedSender<Exchange>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept(), if !shared.is_deaf.load(Relaxed) => accepted,
            () = shared.deaf.notified() => continue,
        };
        let (stream, _) = accepted.expect("a connection");
        shared.accepts.fetch_add(1, Relaxed);
        let wire = Wire {
            stream,
            input: Vec::new(),
        };
        tokio::spawn(serve(wire, Arc::clone(&shared), outbox.clone()));
    }
}

async fn serve(mut wire: Wire, shared: Arc<Shared>, outbox: mpsc::UnboundedSender<Exchange>) {
    if shared.reads_nothing.load(Relaxed) {
        // Only a reset is seen without reading: with FIN this waits for the end of the test.
        let _ = wire.stream.ready(Interest::ERROR).await;
        return;
    }
    if shared.answers_heads.load(Relaxed) {
        let answer = "HTTP/1.1 413 X\r\nconnection: close\r\ncontent-length: 5\r\n\r\nlarge";
        let _ = wire.read().await;
        let _ = wire.stream.write_all(answer.as_bytes()).await;
        let _ = wire.stream.shutdown().await;
        // Takes what still comes, so that no RST overtakes the answer.
        while wire.read().await.is_some() {
            wire.input.clear();
        }
        return;
    }
    while let Some((head, body)) = wire.request().await {
        if head.starts_with("GET /health ") {
            shared.probes.fetch_add(1, Relaxed);
            match shared.health.load(Relaxed) {
                0 => std::future::pending().await,
                status => {
                    let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n");
                    if wire.stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            }
            continue;
        }
        if is_asked_by_the_gateway(&head) {
            shared.questions.fetch_add(1, Relaxed);
            let catalog = shared.catalog.lock().expect("no panic").clone();
            let answer = match catalog {
                Some(json) => json_answer(&json),
                None => "HTTP/1.1 404 X\r\ncontent-length: 0\r\n\r\n".to_owned(),
            };
            if wire.stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
            continue;
        }
        shared.requests.lock().expect("no panic").push((head, body));
        let Some((answer, then)) = &shared.canned else {
            let exchange = Exchange {
                wire,
                shared,
                outbox: outbox.clone(),
            };
            // An error means that the test is over.
            let _ = outbox.send(exchange);
            return;
        };
        let written = wire.stream.write_all(answer).await;
        match then {
            Then::Keep if written.is_ok() => {}
            Then::Reset => return wire.reset(),
            _ => return,
        }
    }
}

/// The gateway's own question, and not one that it passes on.
fn is_asked_by_the_gateway(head: &str) -> bool {
    head.starts_with("GET /v1/models ") && head.contains("\r\nUser-Agent: sluicegate\r\n")
}

impl Wire {
    /// The next request with its body, which must have a length. `None` when the connection is over.
    async fn request(&mut self) -> Option<(String, Vec<u8>)> {
        let end = loop {
            match memchr::memmem::find(&self.input, b"\r\n\r\n") {
                Some(at) => break at + 4,
                None => self.read().await?,
            }
        };
        let head: Vec<u8> = self.input.drain(..end).collect();
        let head = String::from_utf8(head).expect("a head in UTF-8");
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("Content-Length: "))
            .map_or(0, |length| length.parse().expect("a length"));
        while self.input.len() < length {
            self.read().await?;
        }
        Some((head, self.input.drain(..length).collect()))
    }

    async fn read(&mut self) -> Option<()> {
        self.input.reserve(64 * 1024);
        match self.stream.read_buf(&mut self.input).await {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(()),
        }
    }

    fn reset(self) {
        SockRef::from(&self.stream)
            .set_linger(Some(Duration::ZERO))
            .expect("SO_LINGER");
    }
}

impl Exchange {
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let written = self.wire.stream.write_all(bytes.as_ref());
        within("writing", written).await.expect("the gateway reads");
    }

    /// Whether the connection still takes bytes.
    pub async fn try_write(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        within("writing", self.wire.stream.write_all(bytes.as_ref()))
            .await
            .is_ok()
    }

    /// Exactly so many bytes of what follows the request.
    pub async fn raw(&mut self, length: usize) -> Vec<u8> {
        within("bytes behind the request", async {
            while self.wire.input.len() < length {
                self.wire.read().await.expect("the gateway goes on");
            }
        })
        .await;
        self.wire.input.drain(..length).collect()
    }

    /// Ends the puppet's half of the connection.
    pub async fn half_close(&mut self) {
        self.wire.stream.shutdown().await.expect("a connection");
    }

    /// One event as one chunk.
    pub async fn event(&mut self, data: &str) {
        let event = format!("data: {data}\n\n");
        self.write(format!("{:x}\r\n{event}\r\n", event.len()))
            .await;
    }

    /// The end of a body in chunks.
    pub async fn last_chunk(&mut self) {
        self.write("0\r\n\r\n").await;
    }

    /// Writes until the gateway closes.
    pub async fn flood(&mut self, bytes: &[u8]) {
        within("the gateway to close", async {
            while self.wire.stream.write_all(bytes).await.is_ok() {}
        })
        .await;
    }

    /// Waits until the gateway closes the connection.
    pub async fn gone(&mut self) {
        within("the gateway to close", async {
            while self.wire.read().await.is_some() {}
        })
        .await;
    }

    /// Answers and lets the connection serve on.
    pub async fn answer(mut self, bytes: impl AsRef<[u8]>) {
        self.write(bytes).await;
        tokio::spawn(serve(self.wire, self.shared, self.outbox));
    }

    pub async fn answer_json(self, body: &str) {
        self.answer(json_answer(body)).await;
    }

    pub fn reset(self) {
        self.wire.reset();
    }
}

fn json_answer(body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}
