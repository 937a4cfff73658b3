//! The least of HTTP: one GET on a connection, and a server that has one text.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::gateway::PATIENCE;

/// The status and the body.
pub fn get(address: SocketAddr, target: &str) -> (u16, String) {
    ask(address, &format!("GET {target}"), "")
}

pub fn post(address: SocketAddr, target: &str, body: &str) -> (u16, String) {
    ask(address, &format!("POST {target}"), body)
}

/// In HTTP/1.0, whose answers have no chunks.
fn ask(address: SocketAddr, what: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = body.len();
    let head = format!("{what} HTTP/1.0\r\nHost: {address}\r\nContent-Length: {length}\r\n\r\n");
    stream
        .write_all(format!("{head}{body}").as_bytes())
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

pub fn percent_encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// An exporter, or anything else that answers everything with one text, until it is dropped.
pub struct Exporter {
    pub address: SocketAddr,
    text: Arc<Mutex<String>>,
    serving: JoinHandle<()>,
}

impl Exporter {
    pub async fn start(text: &str) -> Self {
        Self::of("text/plain; version=0.0.4; charset=utf-8", text).await
    }

    pub async fn of(kind: &'static str, text: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let text = Arc::new(Mutex::new(text.to_owned()));
        let shown = Arc::clone(&text);
        let serving = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let body = shown.lock().unwrap().clone();
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\
                     Connection: close\r\n\r\n{body}",
                    body.len()
                );
                // Whoever leaves early is none of our concern.
                if read_request(&mut stream).await.is_ok() {
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
            }
        });
        Self {
            address,
            text,
            serving,
        }
    }

    pub fn show(&self, text: &str) {
        text.clone_into(&mut self.text.lock().unwrap());
    }
}

/// To its end: what is left unread when a connection is closed resets it, and the answer with it.
async fn read_request(stream: &mut tokio::net::TcpStream) -> std::io::Result<()> {
    let mut request = Vec::new();
    loop {
        if stream.read_buf(&mut request).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let text = String::from_utf8_lossy(&request).to_ascii_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head.split("content-length: ").nth(1);
        let length = length.and_then(|rest| rest.lines().next()?.parse().ok());
        if body.len() >= length.unwrap_or(0) {
            return Ok(());
        }
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
