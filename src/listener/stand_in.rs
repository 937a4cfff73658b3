//! Taking a client's connection from the session that owns it.
//!
//! Pingora gives the connection away only with the session itself, which it still needs to end the request. So
//! the session is put in the place of another one, of the same request, on a connection that is nothing.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::{Buf, Bytes};
use pingora::Result;
use pingora::protocols::http::ServerSession;
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, Ssl, Stream, UniqueID,
    UniqueIDType,
};
use pingora::{Error, ErrorType};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The connection under an HTTP/1 session. What the session has read of it and not given away is lost, and so
/// is what it has not flushed. From here on `session` knows the request's head and nothing else.
///
/// # Errors
/// It is another session than one of HTTP/1.
pub async fn take_connection(session: &mut ServerSession) -> Result<Stream> {
    let head = match session {
        ServerSession::H1(h1) => h1.get_headers_raw_bytes(),
        _ => return Error::e_explain(ErrorType::InternalError, "not a session of HTTP/1"),
    };
    let mut stand_in = ServerSession::new_http1(Box::new(StandIn { head }));
    stand_in.read_request().await?;
    stand_in.set_keepalive(None);
    match std::mem::replace(session, stand_in) {
        ServerSession::H1(h1) => Ok(h1.into_inner()),
        _ => Error::e_explain(ErrorType::InternalError, "not a session of HTTP/1"),
    }
}

/// A connection that holds the head of a request, then is at its end, and takes whatever is written.
#[derive(Debug)]
struct StandIn {
    head: Bytes,
}

impl AsyncRead for StandIn {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let length = buf.remaining().min(self.head.len());
        buf.put_slice(&self.head[..length]);
        self.head.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for StandIn {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[async_trait]
impl Shutdown for StandIn {
    async fn shutdown(&mut self) {}
}

impl UniqueID for StandIn {
    fn id(&self) -> UniqueIDType {
        -1
    }
}

impl Ssl for StandIn {}

impl Peek for StandIn {}

impl GetTimingDigest for StandIn {
    fn get_timing_digest(&self) -> Vec<Option<pingora::protocols::TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for StandIn {
    fn get_proxy_digest(
        &self,
    ) -> Option<std::sync::Arc<pingora::protocols::raw_connect::ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for StandIn {
    fn get_socket_digest(&self) -> Option<std::sync::Arc<pingora::protocols::SocketDigest>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::listener::{Connection, Role};

    #[tokio::test]
    async fn the_session_keeps_the_request_and_the_connection_goes_on() {
        let (ours, mut theirs) = tokio::net::UnixStream::pair().unwrap();
        let yaml = "endpoints: [a:1]";
        let base = std::path::Path::new(".");
        let config = crate::config::parse_str(yaml, "a.yaml", base, &|_| None).unwrap();
        let timeout = std::time::Duration::from_secs(60);
        let connection = Connection::new(Role::Public, None, false, timeout, &config.limits, None);
        let socket = crate::listener::io::ClientSocket::Unix(ours);
        let io = crate::listener::ClientIo::new(socket, connection.into()).unwrap();
        let mut session = ServerSession::new_http1(Box::new(io));
        let head = b"GET /v1/realtime?a=1 HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nX-Odd-Case: 1\r\n\r\n";
        theirs.write_all(head).await.unwrap();
        assert!(session.read_request().await.unwrap());
        let before = session.req_header().clone();

        let mut taken = take_connection(&mut session).await.unwrap();
        let after = session.req_header();
        assert_eq!(after.raw_path(), before.raw_path());
        assert_eq!(after.headers, before.headers);
        theirs.write_all(b"ping").await.unwrap();
        let mut bytes = [0; 4];
        taken.read_exact(&mut bytes).await.unwrap();
        taken.write_all(b"pong").await.unwrap();
        taken.flush().await.unwrap();
        theirs.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"pong");
        // Whatever Pingora does with what is left does nothing.
        assert!(session.finish().await.unwrap().is_none());
    }
}
