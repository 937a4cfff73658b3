use std::net::SocketAddr;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{Certificate, Request, get, within};

/// A connection, with TLS or without.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A client that speaks WebSocket (RFC 6455).
pub struct WebSocket {
    stream: Box<dyn Stream>,
    input: Vec<u8>,
    /// The head of the answer to the handshake, blank line included.
    pub head: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    Text = 1,
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

/// A whole handshake, with the key of RFC 6455's example.
pub fn handshake(target: &str) -> Request {
    get(target)
        .field("Connection: Upgrade")
        .field("Upgrade: websocket")
        .field("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
        .field("Sec-WebSocket-Version: 13")
}

impl WebSocket {
    /// Sends the request and reads the head of what comes back.
    pub async fn ask(address: SocketAddr, request: &Request) -> Self {
        Self::over(connect(address).await, request).await
    }

    /// The same over TLS, with HTTP/1.1.
    pub async fn ask_tls(
        address: SocketAddr,
        certificate: &Certificate,
        request: &Request,
    ) -> Self {
        let name = ServerName::try_from("localhost").expect("a name");
        let connector = TlsConnector::from(certificate.client(&[b"http/1.1"]));
        let stream = within("TLS", connector.connect(name, connect(address).await)).await;
        Self::over(stream.expect("a handshake"), request).await
    }

    /// Insists on a 101.
    pub async fn open(address: SocketAddr, request: &Request) -> Self {
        let socket = Self::ask(address, request).await;
        assert_eq!(socket.status(), 101, "{}", socket.head);
        socket
    }

    async fn over(stream: impl Stream + 'static, request: &Request) -> Self {
        let mut socket = Self {
            stream: Box::new(stream),
            input: Vec::new(),
            head: String::new(),
        };
        socket.send(request.bytes()).await;
        let end = loop {
            if let Some(at) = memchr::memmem::find(&socket.input, b"\r\n\r\n") {
                break at + 4;
            }
            assert!(
                socket.read().await,
                "{:?}",
                String::from_utf8_lossy(&socket.input)
            );
        };
        let head = socket.input.drain(..end).collect();
        socket.head = String::from_utf8(head).expect("a head in ASCII");
        socket
    }

    pub fn status(&self) -> u16 {
        let status = self.head.split(' ').nth(1);
        status
            .and_then(|status| status.parse().ok())
            .expect("a status line")
    }

    /// The value of the only field of this name in the answer's head.
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut values = self.head.lines().filter_map(|line| {
            let (field, value) = line.split_once(": ")?;
            field.eq_ignore_ascii_case(name).then_some(value)
        });
        let value = values.next();
        assert_eq!(values.next(), None, "{}", self.head);
        value
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within("sending", async {
            self.stream.write_all(bytes.as_ref()).await?;
            self.stream.flush().await
        })
        .await
        .expect("the gateway reads");
    }

    pub async fn send_frame(&mut self, opcode: Opcode, payload: &[u8]) {
        self.send(frame(opcode, payload)).await;
    }

    /// The next frame, as servers send them.
    pub async fn frame(&mut self) -> (u8, Vec<u8>) {
        self.fill(2).await;
        assert_eq!(self.input[1] & 0x80, 0, "a server masks nothing");
        let (length, at) = match self.input[1] {
            126 => {
                self.fill(4).await;
                (
                    u64::from(u16::from_be_bytes([self.input[2], self.input[3]])),
                    4,
                )
            }
            127 => {
                self.fill(10).await;
                let bytes = self.input[2..10].try_into().expect("eight bytes");
                (u64::from_be_bytes(bytes), 10)
            }
            short => (u64::from(short), 2),
        };
        let end = at + usize::try_from(length).expect("a length");
        self.fill(end).await;
        let frame: Vec<u8> = self.input.drain(..end).collect();
        (frame[0] & 0xf, frame[at..].to_vec())
    }

    /// Exactly so many bytes, whatever they are.
    pub async fn raw(&mut self, length: usize) -> Vec<u8> {
        self.fill(length).await;
        self.input.drain(..length).collect()
    }

    /// Everything until the gateway ends the connection; whether it did so without a reset.
    pub async fn rest(mut self) -> (Vec<u8>, bool) {
        let read = within("the end", self.stream.read_to_end(&mut self.input)).await;
        (self.input, read.is_ok())
    }

    /// Ends our half of the connection.
    pub async fn half_close(&mut self) {
        self.stream.shutdown().await.expect("a connection");
    }

    /// Both halves, to be used at once.
    pub fn split(
        self,
    ) -> (
        impl AsyncRead + Unpin + Send,
        impl AsyncWrite + Unpin + Send,
    ) {
        tokio::io::split(self.stream)
    }

    async fn fill(&mut self, length: usize) {
        while self.input.len() < length {
            assert!(self.read().await, "the connection ended");
        }
    }

    async fn read(&mut self) -> bool {
        let read = within("bytes", self.stream.read_buf(&mut self.input)).await;
        read.expect("a connection") > 0
    }
}

/// A whole frame, masked as clients must.
pub fn frame(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = vec![0x80 | opcode as u8];
    match u16::try_from(payload.len()) {
        Ok(short @ ..126) => frame.push(0x80 | short as u8),
        Ok(middle) => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&middle.to_be_bytes());
        }
        Err(_) => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&MASK);
    frame.extend(
        payload
            .iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    frame
}

async fn connect(address: SocketAddr) -> TcpStream {
    let stream = within("connecting", TcpStream::connect(address)).await;
    let stream = stream.expect("a listener");
    stream.set_nodelay(true).expect("TCP_NODELAY");
    stream
}
