//! A client that sends exactly the bytes it is told to, and sees exactly what comes back.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// An answer as it came.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
    /// False when the connection ended inside the body, or with it where it has no length.
    pub is_whole: bool,
}

/// What the other side did when it ought to say nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    Closes,
    Resets,
    Stays,
    SaysMore,
}

pub struct Wire<S> {
    stream: S,
    read: Vec<u8>,
}

impl Wire<TcpStream> {
    pub async fn to(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub fn over(stream: S) -> Self {
        Self {
            stream,
            read: Vec::new(),
        }
    }

    /// Sends. That the other side is gone shows when its answer is read.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.try_send(bytes.as_ref()).await;
    }

    pub async fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// FIN, while the other direction stays open.
    pub async fn half_close(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// The next answer; `None` when the connection ended before its head was whole. 1xx are answers.
    pub async fn answer(&mut self) -> Option<Answer> {
        self.answer_to("POST").await
    }

    pub async fn answer_to(&mut self, method: &str) -> Option<Answer> {
        match timeout(PATIENCE, self.read_answer(method)).await {
            Ok(answer) => answer,
            Err(_) => panic!("no answer: {:?}", String::from_utf8_lossy(&self.read)),
        }
    }

    /// The head of the next answer; the rest is left to [`Self::body`].
    pub async fn head(&mut self) -> Option<(u16, String)> {
        loop {
            let mut fields = [httparse::EMPTY_HEADER; 64];
            let mut parsed = httparse::Response::new(&mut fields);
            match parsed
                .parse(&self.read)
                .expect("the gateway answers in HTTP")
            {
                httparse::Status::Complete(end) => {
                    let status = parsed.code.unwrap();
                    let head = String::from_utf8(self.read.drain(..end).collect()).unwrap();
                    return Some((status, head));
                }
                httparse::Status::Partial => {
                    if !self.fill().await {
                        return None;
                    }
                }
            }
        }
    }

    async fn read_answer(&mut self, method: &str) -> Option<Answer> {
        let (status, head) = self.head().await?;
        Some(self.body(method, status, head).await)
    }

    /// The rest of an answer whose head was read.
    pub async fn body(&mut self, method: &str, status: u16, head: String) -> Answer {
        let field = |name: &str| {
            head.lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(n, _)| n.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.trim().to_owned())
        };
        let mut body = Vec::new();
        let has_body = method != "HEAD" && status >= 200 && status != 204 && status != 304;
        let is_whole = if !has_body {
            true
        } else if field("transfer-encoding").is_some() {
            self.read_chunks(&mut body).await
        } else if let Some(length) = field("content-length") {
            self.read_exactly(length.parse().unwrap(), &mut body).await
        } else {
            while self.fill().await {}
            body.append(&mut self.read);
            false
        };
        Answer {
            status,
            head,
            body,
            is_whole,
        }
    }

    async fn read_chunks(&mut self, body: &mut Vec<u8>) -> bool {
        loop {
            let Some(line) = self.read_line().await else {
                return false;
            };
            let size = usize::from_str_radix(&line, 16).unwrap();
            if !self.read_exactly(size, body).await || self.read_line().await.as_deref() != Some("")
            {
                return false;
            }
            if size == 0 {
                return true;
            }
        }
    }

    async fn read_line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.read.windows(2).position(|two| two == b"\r\n") {
                let line = self.read.drain(..end + 2).take(end).collect();
                return Some(String::from_utf8(line).unwrap());
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    async fn read_exactly(&mut self, length: usize, into: &mut Vec<u8>) -> bool {
        while self.read.len() < length {
            if !self.fill().await {
                into.append(&mut self.read);
                return false;
            }
        }
        into.extend(self.read.drain(..length));
        true
    }

    async fn fill(&mut self) -> bool {
        self.stream
            .read_buf(&mut self.read)
            .await
            .is_ok_and(|n| n > 0)
    }

    /// What happens within `limit`.
    pub async fn then(&mut self, limit: Duration) -> Then {
        if !self.read.is_empty() {
            return Then::SaysMore;
        }
        match timeout(limit, self.stream.read_buf(&mut self.read)).await {
            Err(_) => Then::Stays,
            Ok(Ok(0)) => Then::Closes,
            Ok(Ok(_)) => Then::SaysMore,
            Ok(Err(_)) => Then::Resets,
        }
    }
}

/// One request on a connection of its own.
pub async fn ask(address: SocketAddr, method: &str, target: &str, body: &str) -> Answer {
    let mut wire = Wire::to(address).await;
    wire.send(request(method, target, "Connection: close\r\n", body))
        .await;
    wire.answer_to(method).await.expect("an answer")
}

/// A request as it should be, with these further fields (each with its CRLF).
pub fn request(method: &str, target: &str, fields: &str, body: &str) -> String {
    let length = match body.is_empty() {
        true => String::new(),
        false => format!(
            "Content-Type: application/json\r\nContent-Length: {}\r\n",
            body.len()
        ),
    };
    format!("{method} {target} HTTP/1.1\r\nHost: gateway\r\n{fields}{length}\r\n{body}")
}

/// What a metric of the admin listener counts, over all its labels that hold `label`.
pub async fn metric(admin: SocketAddr, name: &str, label: &str) -> f64 {
    let answer = ask(admin, "GET", "/metrics", "").await;
    let text = String::from_utf8(answer.body).unwrap();
    text.lines()
        .filter(|line| line.starts_with(name) && line.contains(label))
        .filter(|line| matches!(line.as_bytes()[name.len()], b' ' | b'{'))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}
