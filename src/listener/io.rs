//! The client's socket as Pingora sees it.
//!
//! Writes gather until a flush, so that a head and its body leave in one send; nothing is read ahead,
//! so an open stream holds no read buffer.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use bytes::BufMut;
use pingora::http::ResponseHeader;
use pingora::protocols::l4::socket::SocketAddr as PingoraAddr;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    TimingDigest, UniqueID, UniqueIDType,
};
use socket2::SockRef;
use std::os::fd::AsRawFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::{Connection, Writes};

/// Bytes gathered before they are sent without waiting for a flush.
const GATHER_BYTES: usize = 4 * 1024;

/// A client's socket, with the state of its connection.
#[derive(Debug)]
pub struct ClientIo {
    socket: ClientSocket,
    /// Gathered and not yet sent; `sent` bytes of it are already gone.
    out: Vec<u8>,
    sent: usize,
    connection: Arc<Connection>,
    socket_digest: Arc<SocketDigest>,
    proxy_digest: Arc<ProxyDigest>,
}

#[derive(Debug)]
pub enum ClientSocket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl ClientIo {
    pub fn new(socket: ClientSocket, connection: Arc<Connection>) -> io::Result<Self> {
        let fd = match &socket {
            ClientSocket::Tcp(s) => s.as_raw_fd(),
            ClientSocket::Unix(s) => s.as_raw_fd(),
        };
        let socket_digest = SocketDigest::from_raw_fd(fd);
        // Spares Pingora a getpeername for every connection.
        let _ = socket_digest
            .peer_addr
            .set(connection.peer.map(PingoraAddr::Inet));
        let response = ResponseHeader::build_no_case(200, Some(0)).map_err(io::Error::other)?;
        let proxy_digest =
            ProxyDigest::new(Box::new(response), Some(Box::new(Arc::clone(&connection))));
        Ok(Self {
            socket,
            out: Vec::new(),
            sent: 0,
            connection,
            socket_digest: Arc::new(socket_digest),
            proxy_digest: Arc::new(proxy_digest),
        })
    }

    /// Reads what has come into `buf`, behind the back of the session that owns this socket, which must
    /// not expect these bytes.
    ///
    /// # Errors
    /// `WouldBlock` when nothing has come.
    pub fn try_read_past(&self, buf: &mut impl BufMut) -> io::Result<usize> {
        match &self.socket {
            ClientSocket::Tcp(s) => s.try_read_buf(buf),
            ClientSocket::Unix(s) => s.try_read_buf(buf),
        }
    }

    /// Waits until [`Self::try_read_past`] may have something to read.
    pub async fn readable(&self) -> io::Result<()> {
        match &self.socket {
            ClientSocket::Tcp(s) => s.readable().await,
            ClientSocket::Unix(s) => s.readable().await,
        }
    }

    /// Ready when the client has sent something, has closed its side, or is gone; a read then tells. May be
    /// ready without cause.
    pub fn poll_heard(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.socket {
            ClientSocket::Tcp(s) => s.poll_read_ready(cx),
            ClientSocket::Unix(s) => s.poll_read_ready(cx),
        }
    }

    /// Whether bytes that the session wrote are still here, and must go first.
    pub fn has_gathered(&self) -> bool {
        !self.out.is_empty()
    }

    /// Sends what the socket takes of `bytes` now, behind the back of the session that owns it. Only while
    /// [`Self::has_gathered`] is false.
    ///
    /// # Errors
    /// `WouldBlock` when it takes nothing; [`Self::poll_sendable`] then waits.
    pub fn try_send_past(&self, bytes: &[u8]) -> io::Result<usize> {
        match &self.socket {
            ClientSocket::Tcp(s) => s.try_write(bytes),
            ClientSocket::Unix(s) => s.try_write(bytes),
        }
    }

    /// Ready when [`Self::try_send_past`] may have room.
    pub fn poll_sendable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.socket {
            ClientSocket::Tcp(s) => s.poll_write_ready(cx),
            ClientSocket::Unix(s) => s.poll_write_ready(cx),
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.out.len() {
            let pending = &self.out[self.sent..];
            let n = ready!(match &mut self.socket {
                ClientSocket::Tcp(s) => Pin::new(s).poll_write(cx, pending),
                ClientSocket::Unix(s) => Pin::new(s).poll_write(cx, pending),
            })?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += n;
        }
        // Given back: events go out without gathering, and a stream may be open for minutes.
        self.out = Vec::new();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }

    /// Sends what was gathered and `bufs` in one call; returns how much of `bufs` was taken.
    fn poll_send_with(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        const SLICES: usize = 16;
        if bufs.iter().all(|buf| buf.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        loop {
            let gathered = self.out.len() - self.sent;
            let mut slices = [IoSlice::new(&[]); SLICES];
            let mut used = 0;
            if gathered > 0 {
                slices[0] = IoSlice::new(&self.out[self.sent..]);
                used = 1;
            }
            for buf in bufs.iter().take(SLICES - used) {
                slices[used] = IoSlice::new(buf);
                used += 1;
            }
            let n = ready!(match &mut self.socket {
                ClientSocket::Tcp(s) => Pin::new(s).poll_write_vectored(cx, &slices[..used]),
                ClientSocket::Unix(s) => Pin::new(s).poll_write_vectored(cx, &slices[..used]),
            })?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            if n < gathered {
                self.sent += n;
                continue;
            }
            self.out = Vec::new();
            self.sent = 0;
            if n > gathered {
                return Poll::Ready(Ok(n - gathered));
            }
        }
    }

    fn gather(&mut self, bufs: &[IoSlice<'_>], at_most: usize) -> usize {
        let mut taken = 0;
        for buf in bufs {
            let n = buf.len().min(at_most - taken);
            self.out.extend_from_slice(&buf[..n]);
            taken += n;
            if taken == at_most {
                break;
            }
        }
        taken
    }
}

impl Drop for ClientIo {
    fn drop(&mut self) {
        if self.connection.must_reset()
            && let ClientSocket::Tcp(socket) = &self.socket
        {
            // A socket that is already gone needs no reset.
            let _ = SockRef::from(socket).set_linger(Some(std::time::Duration::ZERO));
        }
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        if this.connection.head_is_endless() {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        let read = match &mut this.socket {
            ClientSocket::Tcp(s) => Pin::new(s).poll_read(cx, buf),
            ClientSocket::Unix(s) => Pin::new(s).poll_read(cx, buf),
        };
        ready!(or_end(read, &this.connection))?;
        let arrived = buf.filled().len() - before;
        if arrived > 0 {
            this.connection.bytes_arrived(arrived);
        }
        Poll::Ready(Ok(()))
    }
}

/// While the gateway drains, waiting for a next request is the end.
fn or_end(read: Poll<io::Result<()>>, connection: &Connection) -> Poll<io::Result<()>> {
    match read {
        Poll::Pending if connection.is_over() => Poll::Ready(Ok(())),
        read => read,
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let gathers = this.connection.writes() != Writes::Prompt;
        if gathers && this.out.len() + buf.len() <= GATHER_BYTES {
            this.out.extend_from_slice(buf);
            return Poll::Ready(Ok(buf.len()));
        }
        this.poll_send_with(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let total: usize = bufs.iter().map(|b| b.len()).sum();
        if this.connection.writes() == Writes::Held && this.out.len() + total <= GATHER_BYTES {
            return Poll::Ready(Ok(this.gather(bufs, GATHER_BYTES)));
        }
        this.poll_send_with(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.connection.writes() == Writes::Held {
            return Poll::Ready(Ok(()));
        }
        this.poll_send(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        if this.connection.must_reset() {
            return Poll::Ready(Ok(()));
        }
        match &mut this.socket {
            ClientSocket::Tcp(s) => Pin::new(s).poll_shutdown(cx),
            ClientSocket::Unix(s) => Pin::new(s).poll_shutdown(cx),
        }
    }
}

#[async_trait]
impl Shutdown for ClientIo {
    async fn shutdown(&mut self) {
        // The peer may be gone already; there is nobody to tell.
        let _ = tokio::io::AsyncWriteExt::shutdown(self).await;
    }
}

impl UniqueID for ClientIo {
    fn id(&self) -> UniqueIDType {
        match &self.socket {
            ClientSocket::Tcp(s) => s.as_raw_fd(),
            ClientSocket::Unix(s) => s.as_raw_fd(),
        }
    }
}

impl Ssl for ClientIo {}

impl Peek for ClientIo {}

impl GetTimingDigest for ClientIo {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for ClientIo {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        Some(Arc::clone(&self.proxy_digest))
    }
}

impl GetSocketDigest for ClientIo {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(Arc::clone(&self.socket_digest))
    }
}
