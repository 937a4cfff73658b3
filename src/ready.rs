//! `sluicegate ready`: asks a running gateway whether it can serve, for health checks.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::process::ExitCode;
use std::time::Duration;

/// For the connection and for the answer, each.
const TIMEOUT: Duration = Duration::from_secs(2);

/// What a health check wants to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// Every pool has an endpoint up (`/ready`).
    Ready,
    /// The process takes connections and answers (`/health`), whatever its endpoints do. A gateway that drains takes
    /// no connections any more.
    Alive,
}

impl Question {
    fn path(self) -> &'static str {
        match self {
            Self::Ready => "/ready",
            Self::Alive => "/health",
        }
    }

    fn no(self) -> &'static str {
        match self {
            Self::Ready => "not ready",
            Self::Alive => "not alive",
        }
    }
}

/// Exit status 0 when the gateway at `url` says yes, with 200; else 1, and the reason on stderr.
pub fn check(url: &str, question: Question) -> ExitCode {
    match ask(url, question.path()) {
        Ok(200) => ExitCode::SUCCESS,
        Ok(status) => {
            eprintln!("{}: {url} answered {status}", question.no());
            ExitCode::FAILURE
        }
        Err(problem) => {
            eprintln!("{}: {url}: {problem}", question.no());
            ExitCode::FAILURE
        }
    }
}

fn ask(url: &str, path: &str) -> Result<u16, String> {
    let authority = url
        .strip_prefix("http://")
        .ok_or("write it with http://, which the admin listener speaks; https:// is not supported")?
        .trim_end_matches('/');
    let authority = match authority.rsplit_once(':') {
        Some((_, port)) if port.parse::<u16>().is_ok() => authority.to_owned(),
        _ => format!("{authority}:80"),
    };
    let address = authority
        .to_socket_addrs()
        .map_err(|e| e.to_string())?
        .next()
        .ok_or("it does not resolve")?;
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT).map_err(|e| e.to_string())?;
    let exchange = |stream: &mut TcpStream| -> std::io::Result<Vec<u8>> {
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut head = vec![0; 64];
        let read = stream.read(&mut head)?;
        head.truncate(read);
        Ok(head)
    };
    let head = exchange(&mut stream).map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&head);
    text.split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .ok_or_else(|| "the answer is not HTTP".to_owned())
}
