//! What can go wrong on the upstream leg. Every text is for the log: it may name addresses and
//! files, so it must not reach a client.

use std::fmt;
use std::io;

/// Why there is no connection.
#[derive(Debug)]
pub enum ConnectError {
    /// Nothing listens there (ECONNREFUSED; ENOENT for a unix socket).
    Refused,
    /// No connection, TLS included, within the time given.
    TimedOut,
    /// No way leads there: the host is gone, or the network is.
    Unreachable(io::Error),
    /// The backlog of a unix socket is full (EAGAIN). The listener is alive.
    Busy,
    /// The transport stood, the TLS handshake failed.
    Tls(io::Error),
    Io(io::Error),
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnectError::Refused => f.write_str("connection refused"),
            ConnectError::TimedOut => f.write_str("connecting timed out"),
            ConnectError::Busy => {
                f.write_str("the backlog is full, or this machine is out of files or ports")
            }
            ConnectError::Unreachable(error) => write!(f, "unreachable: {error}"),
            ConnectError::Tls(error) => write!(f, "TLS handshake failed: {error}"),
            ConnectError::Io(error) => write!(f, "cannot connect: {error}"),
        }
    }
}

impl std::error::Error for ConnectError {}

impl ConnectError {
    pub(super) fn from_io(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => ConnectError::Refused,
            // This machine is out of files, ports or memory, which says nothing of the engine.
            _ if is_our_own(&error) => ConnectError::Busy,
            io::ErrorKind::TimedOut => ConnectError::TimedOut,
            io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown => ConnectError::Unreachable(error),
            _ if error.raw_os_error() == Some(libc::EHOSTDOWN) => ConnectError::Unreachable(error),
            io::ErrorKind::WouldBlock => ConnectError::Busy,
            _ => ConnectError::Io(error),
        }
    }
}

fn is_our_own(error: &io::Error) -> bool {
    use libc::{EADDRNOTAVAIL, EMFILE, ENFILE, ENOBUFS, ENOMEM};
    let ours = [EMFILE, ENFILE, EADDRNOTAVAIL, ENOBUFS, ENOMEM];
    error
        .raw_os_error()
        .is_some_and(|code| ours.contains(&code))
}

/// Why an answer cannot be read any further. None of these leaves a connection that can be reused.
#[derive(Debug)]
pub enum ReadError {
    /// The peer closed before the answer was complete (for TLS: also without close_notify).
    Closed,
    /// The peer reset the connection.
    Reset,
    Io(io::Error),
    /// The peer does not speak HTTP as we insist on it; the text says which rule it broke.
    Malformed(&'static str),
    /// The head is over [`HeadLimits`](super::decoder::HeadLimits).
    HeadTooLarge,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::Closed => f.write_str("closed before the answer was complete"),
            ReadError::Reset => f.write_str("connection reset"),
            ReadError::Io(error) => write!(f, "cannot read: {error}"),
            ReadError::Malformed(rule) => write!(f, "malformed answer: {rule}"),
            ReadError::HeadTooLarge => f.write_str("the head of the answer is too large"),
        }
    }
}

impl std::error::Error for ReadError {}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => ReadError::Reset,
            // rustls: the transport ended without close_notify, which an attacker can do as well.
            io::ErrorKind::UnexpectedEof => ReadError::Closed,
            _ => ReadError::Io(error),
        }
    }
}

/// The part of [`ReadError`] that bytes alone can cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeError {
    Closed,
    Malformed(&'static str),
    HeadTooLarge,
}

impl From<DecodeError> for ReadError {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::Closed => ReadError::Closed,
            DecodeError::Malformed(rule) => ReadError::Malformed(rule),
            DecodeError::HeadTooLarge => ReadError::HeadTooLarge,
        }
    }
}

/// What a request head may not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadError {
    /// Not a token (RFC 9110 §5.6.2).
    Method,
    /// Empty, or with a space, a control character or DEL.
    Target,
    /// The name of a field is not a token.
    Name,
    /// A control character other than tab in a field's value.
    Value,
    /// Content-Length and Transfer-Encoding are only written by
    /// [`RequestHead::finish`](super::request_head::RequestHead::finish).
    Framing,
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HeadError::Method => "the method is not a token",
            HeadError::Target => {
                "the request target is empty or holds a space or a control character"
            }
            HeadError::Name => "the name of a header field is not a token",
            HeadError::Value => "the value of a header field holds a control character",
            HeadError::Framing => {
                "Content-Length and Transfer-Encoding are not the caller's to set"
            }
        })
    }
}

impl std::error::Error for HeadError {}
