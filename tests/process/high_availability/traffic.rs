//! A client that asks all the time.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::scene::{ADDRESS, Scene};
use crate::network::until;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Status(u16),
    None(String),
}

/// A client that asks all the time, each time over a new connection.
pub struct Traffic {
    /// When each was asked and what came.
    answers: Arc<Mutex<Vec<(Instant, Answer)>>>,
    is_over: Arc<AtomicBool>,
    client: Option<thread::JoinHandle<()>>,
}

impl Traffic {
    pub fn of(scene: &Scene) -> Self {
        let answers = Arc::new(Mutex::new(Vec::new()));
        let is_over = Arc::new(AtomicBool::new(false));
        let (into, end) = (Arc::clone(&answers), Arc::clone(&is_over));
        let client = scene.client.spawn(move || {
            while !end.load(Relaxed) {
                let asked = Instant::now();
                let answer = match ask() {
                    Ok(status) => Answer::Status(status),
                    Err(problem) => Answer::None(problem.to_string()),
                };
                into.lock().unwrap().push((asked, answer));
                thread::sleep(Duration::from_millis(20));
            }
        });
        Self {
            answers,
            is_over,
            client: Some(client),
        }
    }

    pub fn last(&self) -> Option<Answer> {
        let answers = self.answers.lock().unwrap();
        answers.last().map(|(_, answer)| answer.clone())
    }

    /// What came to the requests of `from` and later.
    pub fn since(&self, from: Instant) -> Vec<(Duration, Answer)> {
        let answers = self.answers.lock().unwrap();
        answers
            .iter()
            .filter(|(asked, _)| *asked >= from)
            .map(|(asked, answer)| (asked.duration_since(from), answer.clone()))
            .collect()
    }

    /// Until something answers again with `status`: how long after `from` that was asked.
    pub fn answered_after(&self, from: Instant, status: u16) -> Duration {
        let mut after = None;
        until("clients are answered again", || {
            let answers = self.since(from);
            after = answers
                .iter()
                .find(|(_, answer)| *answer == Answer::Status(status))
                .map(|(asked, _)| *asked);
            after.is_some()
        });
        after.unwrap()
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.is_over.store(true, Relaxed);
        if let Some(client) = self.client.take() {
            let _ = client.join();
        }
        if thread::panicking() {
            eprintln!("what the client saw: {:#?}", self.answers.lock().unwrap());
        }
    }
}

pub fn request(stream: bool) -> String {
    let body = format!(
        r#"{{"model":"DeepSeek-R1","messages":[{{"role":"user","content":"Hi"}}],"max_tokens":{},"stream":{stream}}}"#,
        if stream { 10_000 } else { 1 }
    );
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// One request, and the status of its whole answer.
fn ask() -> std::io::Result<u16> {
    let address = SocketAddr::from((ADDRESS, 80));
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_millis(300))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(request(false).as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok());
    status.ok_or_else(|| std::io::Error::other("closed without an answer"))
}
