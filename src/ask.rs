//! One question to a running gateway, over TCP or its unix socket. For the commands that ask one.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

/// For the connection, for each read and for each write.
const TIMEOUT: Duration = Duration::from_secs(2);
/// More than a list of every endpoint that a configuration may have.
const LONGEST_ANSWER: u64 = 256 << 20;

/// Where a gateway is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Door {
    /// `host:port`.
    Tcp(String),
    Unix(PathBuf),
}

/// The whole of an answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

impl Door {
    /// Reads `http://HOST[:PORT]` or `unix:/path`.
    ///
    /// # Errors
    /// Another scheme.
    pub fn parse(url: &str) -> Result<Self, String> {
        if let Some(path) = url.strip_prefix("unix:") {
            return Ok(Self::Unix(path.into()));
        }
        let authority = url
            .strip_prefix("http://")
            .ok_or("write it with http://, or as unix:/path; https:// is not supported")?
            .trim_end_matches('/');
        Ok(Self::Tcp(match authority.rsplit_once(':') {
            Some((_, port)) if port.parse::<u16>().is_ok() => authority.to_owned(),
            _ => format!("{authority}:80"),
        }))
    }

    /// Sends one request without a body, with these fields, each a whole line without its end. Blocks.
    ///
    /// # Errors
    /// Nobody is there, or it does not speak HTTP; `TimedOut` where no answer came in time.
    pub fn ask(&self, method: &str, path: &str, fields: &[String]) -> io::Result<Answer> {
        let asked = match self {
            Self::Tcp(authority) => connect(authority)
                .and_then(|stream| exchange(stream, authority, method, path, fields)),
            Self::Unix(file) => {
                let connected = UnixStream::connect(file).and_then(|stream| {
                    stream.set_read_timeout(Some(TIMEOUT))?;
                    stream.set_write_timeout(Some(TIMEOUT))?;
                    Ok(stream)
                });
                connected.and_then(|stream| exchange(stream, "localhost", method, path, fields))
            }
        };
        asked.map_err(in_words)
    }
}

/// A socket's own timeout is "Resource temporarily unavailable".
fn in_words(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            let told = format!("no answer within {} s", TIMEOUT.as_secs());
            io::Error::new(io::ErrorKind::TimedOut, told)
        }
        _ => error,
    }
}

fn connect(authority: &str) -> io::Result<TcpStream> {
    let address = authority
        .to_socket_addrs()?
        .next()
        .ok_or_else(|| io::Error::other("it does not resolve"))?;
    let stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    Ok(stream)
}

/// As it is written: `http://127.0.0.1:9180`.
impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(authority) => write!(f, "http://{authority}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

fn exchange(
    mut stream: impl Read + Write,
    host: &str,
    method: &str,
    path: &str,
    fields: &[String],
) -> io::Result<Answer> {
    let length = if method == "POST" {
        "Content-Length: 0\r\n"
    } else {
        ""
    };
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{length}{fields}\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let read = stream.take(LONGEST_ANSWER).read_to_end(&mut answer);
    parse(&answer).ok_or_else(|| match read {
        Err(e) => e,
        Ok(_) => io::Error::other("the answer is not HTTP"),
    })
}

fn parse(answer: &[u8]) -> Option<Answer> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut fields);
    let end = match head.parse(answer) {
        Ok(httparse::Status::Complete(end)) => end,
        _ => return None,
    };
    Some(Answer {
        status: head.code?,
        body: answer[end..].to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doors() {
        let tcp = |authority: &str| Ok(Door::Tcp(authority.to_owned()));
        assert_eq!(Door::parse("http://gw1"), tcp("gw1:80"));
        assert_eq!(Door::parse("http://[::1]:9180/"), tcp("[::1]:9180"));
        assert_eq!(Door::parse("unix:/run/x"), Ok(Door::Unix("/run/x".into())));
        assert!(Door::parse("https://gw1").is_err());
        assert!(Door::parse("gw1:9180").is_err());
        for url in ["http://127.0.0.1:9180", "unix:/run/x"] {
            assert_eq!(Door::parse(url).unwrap().to_string(), url);
        }
    }

    #[test]
    fn one_that_is_silent_is_late() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(Duration::from_millis(1)))
            .unwrap();
        let error = in_words(exchange(ours, "localhost", "GET", "/", &[]).unwrap_err());
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(error.to_string(), "no answer within 2 s");
    }

    #[test]
    fn answers() {
        let answer = parse(b"HTTP/1.1 409 Conflict\r\nA: b\r\n\r\nbody").unwrap();
        assert_eq!((answer.status, &answer.body[..]), (409, &b"body"[..]));
        assert!(parse(b"SSH-2.0-OpenSSH\r\n").is_none());
        assert!(parse(b"HTTP/1.1 200").is_none());
    }
}
