use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::{Request, within};

/// A client on a bare socket, which sees what an HTTP library would hide.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    input: Vec<u8>,
    body: Framing,
}

/// Where the body of the answer being read ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Sized(usize),
    Chunked,
    UntilClose,
}

/// How an answer, or a connection, came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By its framing: the connection is still there.
    Framed,
    /// FIN.
    Closed,
    /// RST.
    Reset,
}

/// A whole answer, or what came of it.
#[derive(Debug, Clone)]
pub struct Answer {
    pub version: String,
    pub status: u16,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub end: End,
}

/// Sends one request on a connection of its own.
pub async fn ask(address: SocketAddr, request: &Request) -> Answer {
    Client::connect(address).await.ask(request).await
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::connect_from("127.0.0.1", address).await
    }

    /// From another address of this machine.
    pub async fn connect_from(source: &str, address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        let source = SocketAddr::new(source.parse().expect("an address"), 0);
        socket.bind(source).expect("an address of this machine");
        Self::over(
            within("connecting", socket.connect(address))
                .await
                .expect("a listener"),
        )
    }

    /// With a receive buffer so small that the gateway soon has to wait for its reader.
    pub async fn slow_reader(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a small buffer");
        Self::over(
            within("connecting", socket.connect(address))
                .await
                .expect("a listener"),
        )
    }

    fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("TCP_NODELAY");
        Self {
            stream,
            input: Vec::new(),
            body: Framing::Sized(0),
        }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within("sending", self.stream.write_all(bytes.as_ref()))
            .await
            .expect("the gateway reads");
    }

    /// Sends as much as the gateway takes before it closes.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        within("sending", self.stream.write_all(bytes.as_ref())).await
    }

    pub async fn ask(&mut self, request: &Request) -> Answer {
        self.send(request.bytes()).await;
        self.answer_to(request).await
    }

    pub async fn answer_to(&mut self, request: &Request) -> Answer {
        let mut answer = self.head().await;
        if request.is_head_method() {
            self.body = Framing::Sized(0);
        }
        answer.end = loop {
            match self.piece().await {
                Ok(Some(piece)) => answer.body.extend_from_slice(&piece),
                Ok(None) => break End::Framed,
                Err(end) => break end,
            }
        };
        answer
    }

    /// The next answer, which is not to HEAD.
    pub async fn answer(&mut self) -> Answer {
        self.answer_to(&super::get("/")).await
    }

    /// The head of the next answer; its body is read by [`Self::piece`].
    pub async fn head(&mut self) -> Answer {
        let end = loop {
            if let Some(at) = memchr::memmem::find(&self.input, b"\r\n\r\n") {
                break at + 4;
            }
            if let Err(end) = self.read().await {
                panic!("{end:?} after {:?}", String::from_utf8_lossy(&self.input));
            }
        };
        let text: Vec<u8> = self.input.drain(..end).collect();
        let text = String::from_utf8(text).expect("a head in ASCII");
        let mut lines = text.split("\r\n");
        let line = lines.next().unwrap_or_default();
        let mut parts = line.splitn(3, ' ');
        let version = parts.next().unwrap_or_default().to_owned();
        let status = parts.next().and_then(|s| s.parse().ok());
        let fields = lines
            .filter(|line| !line.is_empty())
            .map(|line| line.split_once(": ").unwrap_or((line, "")))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let status = status.unwrap_or_else(|| panic!("no status line: {line:?}"));
        let answer = Answer {
            version,
            status,
            fields,
            body: Vec::new(),
            end: End::Framed,
        };
        self.body = answer.framing();
        answer
    }

    /// The next piece of the body: a chunk, or what one read brings. `None` at its framed end.
    pub async fn piece(&mut self) -> Result<Option<Vec<u8>>, End> {
        match self.body {
            Framing::Sized(0) => Ok(None),
            Framing::Sized(left) => {
                self.fill(1).await?;
                let take = left.min(self.input.len());
                self.body = Framing::Sized(left - take);
                Ok(Some(self.input.drain(..take).collect()))
            }
            Framing::UntilClose => {
                self.fill(1).await?;
                Ok(Some(std::mem::take(&mut self.input)))
            }
            Framing::Chunked => self.chunk().await,
        }
    }

    async fn chunk(&mut self) -> Result<Option<Vec<u8>>, End> {
        let line = loop {
            match memchr::memmem::find(&self.input, b"\r\n") {
                Some(at) => break at,
                None => self.read().await?,
            }
        };
        let size = std::str::from_utf8(&self.input[..line]).expect("a chunk size");
        let size = usize::from_str_radix(size, 16).expect("a chunk size");
        self.fill(line + 2 + size + 2).await?;
        let chunk = self.input[line + 2..line + 2 + size].to_vec();
        assert_eq!(
            &self.input[line + 2 + size..][..2],
            b"\r\n",
            "a chunk ends in CRLF"
        );
        self.input.drain(..line + 2 + size + 2);
        if size > 0 {
            return Ok(Some(chunk));
        }
        self.body = Framing::Sized(0);
        Ok(None)
    }

    /// Everything of the body up to and with `text`.
    pub async fn body_until(&mut self, text: &str) -> String {
        let mut body = Vec::new();
        while memchr::memmem::find(&body, text.as_bytes()).is_none() {
            match self.piece().await {
                Ok(Some(piece)) => body.extend_from_slice(&piece),
                end => panic!(
                    "{end:?} before {text:?}, after {:?}",
                    String::from_utf8_lossy(&body)
                ),
            }
        }
        String::from_utf8(body).expect("text")
    }

    /// The rest of the body and how it ended.
    pub async fn rest(&mut self) -> (Vec<u8>, End) {
        let mut body = Vec::new();
        loop {
            match self.piece().await {
                Ok(Some(piece)) => body.extend_from_slice(&piece),
                Ok(None) => return (body, End::Framed),
                Err(end) => return (body, end),
            }
        }
    }

    /// Reads until the gateway ends the connection.
    pub async fn rest_of_connection(&mut self) -> End {
        loop {
            if let Err(end) = self.read().await {
                return end;
            }
        }
    }

    /// The bytes one read brings, whatever they are.
    pub async fn read_once(&mut self) -> Vec<u8> {
        self.read().await.expect("bytes");
        std::mem::take(&mut self.input)
    }

    /// Exactly so many bytes, whatever they are.
    pub async fn raw(&mut self, length: usize) -> Vec<u8> {
        self.fill(length).await.expect("bytes");
        self.input.drain(..length).collect()
    }

    /// Waits for the gateway to end the connection; it may not send a byte before that.
    pub async fn ended(&mut self) -> End {
        assert!(
            self.input.is_empty(),
            "{:?}",
            String::from_utf8_lossy(&self.input)
        );
        match self.read().await {
            Err(end) => end,
            Ok(()) => panic!("bytes: {:?}", String::from_utf8_lossy(&self.input)),
        }
    }

    /// Whether nothing comes for a moment, neither bytes nor the end.
    pub async fn is_silent_for(&mut self, moment: Duration) -> bool {
        let mut byte = [0];
        tokio::time::timeout(moment, self.stream.peek(&mut byte))
            .await
            .is_err()
    }

    /// Ends our half of the connection.
    pub async fn half_close(&mut self) {
        self.stream.shutdown().await.expect("a connection");
    }

    /// Leaves with RST. Dropping the client leaves with FIN.
    pub fn reset(self) {
        SockRef::from(&self.stream)
            .set_linger(Some(Duration::ZERO))
            .expect("SO_LINGER");
    }

    async fn fill(&mut self, length: usize) -> Result<(), End> {
        while self.input.len() < length {
            self.read().await?;
        }
        Ok(())
    }

    async fn read(&mut self) -> Result<(), End> {
        self.input.reserve(16 * 1024);
        match within("an answer", self.stream.read_buf(&mut self.input)).await {
            Ok(0) => Err(End::Closed),
            Ok(_) => Ok(()),
            Err(e) if e.kind() == ErrorKind::ConnectionReset => Err(End::Reset),
            Err(e) => panic!("reading an answer: {e}"),
        }
    }
}

impl Answer {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    pub fn all(&self, name: &str) -> Vec<&str> {
        self.fields
            .iter()
            .filter(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect()
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {:?}", self.text()))
    }

    /// `error.code` of OpenAI's JSON.
    pub fn code(&self) -> String {
        self.json()["error"]["code"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// Whether the connection may carry another request.
    pub fn keeps_alive(&self) -> bool {
        self.end == End::Framed && self.field("connection") != Some("close")
    }

    fn framing(&self) -> Framing {
        let length = self.field("content-length");
        if matches!(self.status, 100..=199 | 204 | 304) {
            return Framing::Sized(0);
        }
        match (self.field("transfer-encoding"), length) {
            (Some("chunked"), None) => Framing::Chunked,
            (None, Some(length)) => Framing::Sized(length.parse().expect("a length")),
            (None, None) => Framing::UntilClose,
            both => panic!("ambiguous framing: {both:?}"),
        }
    }
}
