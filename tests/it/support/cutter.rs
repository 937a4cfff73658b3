use std::net::SocketAddr;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::{Engine, Request};

/// Stands in front of an engine: answers a request with the first bytes of what the engine answers, as many as its
/// `user` says, and then ends the connection.
pub struct Cutter {
    address: SocketAddr,
    acceptor: JoinHandle<()>,
}

/// How the connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CutBy {
    Fin,
    Rst,
}

impl Cutter {
    pub async fn before(engine: &Engine, by: CutBy) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let engine = engine.authority();
        let acceptor = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let engine = engine.clone();
                tokio::spawn(async move {
                    // Whoever is gone needs no answer.
                    let _ = serve(client, &engine, by).await;
                });
            }
        });
        Self { address, acceptor }
    }

    pub fn authority(&self) -> String {
        self.address.to_string()
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

async fn serve(mut client: TcpStream, engine: &str, by: CutBy) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    loop {
        let mut request = Vec::new();
        while !is_whole(&request) {
            if client.read_buf(&mut request).await? == 0 {
                return Ok(());
            }
        }
        let answer = whole_answer(engine, &request).await?;
        let limit = limit_of(&request).unwrap_or(usize::MAX);
        if limit >= answer.len() {
            client.write_all(&answer).await?;
            continue;
        }
        client.write_all(&answer[..limit]).await?;
        if by == CutBy::Rst {
            // What was sent must arrive before the reset throws it away.
            tokio::time::sleep(Duration::from_millis(5)).await;
            SockRef::from(&client).set_linger(Some(Duration::ZERO))?;
        }
        return Ok(());
    }
}

/// The bytes by which an engine answers.
pub async fn raw_answer(engine: &Engine, request: &Request) -> Vec<u8> {
    let answer = whole_answer(&engine.authority(), &request.bytes()).await;
    answer.expect("the engine answers")
}

async fn whole_answer(engine: &str, request: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(engine).await?;
    stream.write_all(request).await?;
    let mut answer = Vec::new();
    loop {
        if stream.read_buf(&mut answer).await? == 0 || is_whole(&answer) {
            return Ok(answer);
        }
    }
}

/// A message is whole by its length or its last chunk.
fn is_whole(message: &[u8]) -> bool {
    let Some(end) = memchr::memmem::find(message, b"\r\n\r\n") else {
        return false;
    };
    let head = String::from_utf8_lossy(&message[..end]).to_ascii_lowercase();
    if head.contains("transfer-encoding: chunked") {
        return message.ends_with(b"\r\n0\r\n\r\n");
    }
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.map_or(0, |length| length.parse().expect("a length"));
    message.len() >= end + 4 + length
}

fn limit_of(request: &[u8]) -> Option<usize> {
    let at = memchr::memmem::find(request, b"\"user\":\"")? + 8;
    let digits = request[at..].split(|&byte| byte == b'"').next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}
