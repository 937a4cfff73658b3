//! Connections: HTTP/1 and HTTP/2 by hyper, kept and used again as a client library would.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::target::Target;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Streams on one HTTP/2 connection, as many servers allow at least.
const STREAMS: usize = 100;

/// What the socket did, shared with the requests that run on it.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    /// Reads that brought bytes.
    pub reads: AtomicU64,
    pub received: AtomicU64,
    pub sent: AtomicU64,
}

/// Counts what passes.
struct Counting<S> {
    stream: S,
    traffic: Arc<Traffic>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counting<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let count = buffer.filled().len() - before;
        if count > 0 {
            self.traffic.reads.fetch_add(1, Relaxed);
            self.traffic.received.fetch_add(count as u64, Relaxed);
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counting<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(count)) = result {
            self.traffic.sent.fetch_add(count as u64, Relaxed);
        }
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, pieces);
        if let Poll::Ready(Ok(count)) = result {
            self.traffic.sent.fetch_add(count as u64, Relaxed);
        }
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>, Arc<AtomicUsize>),
}

/// A connection lent to one request.
pub(crate) struct Connection {
    sender: Sender,
    pub traffic: Arc<Traffic>,
    /// How long it took to connect; `None` for a connection used again.
    pub connect: Option<Duration>,
}

impl Connection {
    pub(crate) async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> hyper::Result<Response<Incoming>> {
        match &mut self.sender {
            Sender::Http1(sender) => sender.send_request(request).await,
            Sender::Http2(sender, _) => sender.send_request(request).await,
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Sender::Http2(_, streams) = &self.sender {
            streams.fetch_sub(1, Relaxed);
        }
    }
}

/// An HTTP/2 connection that takes more streams.
struct Shared {
    sender: http2::SendRequest<Full<Bytes>>,
    streams: Arc<AtomicUsize>,
    traffic: Arc<Traffic>,
}

/// The connections of a run.
pub(crate) struct Pool {
    target: Target,
    http2: bool,
    keep_alive: bool,
    idle: Mutex<Vec<Connection>>,
    shared: tokio::sync::Mutex<Vec<Shared>>,
    /// Of every connection ever made.
    all: Mutex<Vec<Arc<Traffic>>>,
}

impl Pool {
    pub(crate) fn new(target: Target, http2: bool, keep_alive: bool) -> Self {
        Self {
            target,
            http2,
            keep_alive,
            idle: Mutex::default(),
            shared: tokio::sync::Mutex::default(),
            all: Mutex::default(),
        }
    }

    /// Connections made, bytes received, bytes sent.
    pub(crate) fn totals(&self) -> (u64, u64, u64) {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let sum = |of: fn(&Traffic) -> &AtomicU64| {
            all.iter().map(|traffic| of(traffic).load(Relaxed)).sum()
        };
        (
            all.len() as u64,
            sum(|traffic| &traffic.received),
            sum(|traffic| &traffic.sent),
        )
    }

    /// A connection kept from before, or a new one.
    pub(crate) async fn get(&self) -> io::Result<Connection> {
        if self.http2 {
            return self.get_shared().await;
        }
        while let Some(mut connection) = self.pop_idle() {
            connection.connect = None;
            if matches!(&connection.sender, Sender::Http1(sender) if sender.is_ready()) {
                return Ok(connection);
            }
        }
        self.connect().await
    }

    fn pop_idle(&self) -> Option<Connection> {
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop()
    }

    async fn get_shared(&self) -> io::Result<Connection> {
        let mut shared = self.shared.lock().await;
        shared.retain(|connection| !connection.sender.is_closed());
        let free = shared
            .iter()
            .find(|connection| connection.streams.load(Relaxed) < STREAMS);
        if self.keep_alive
            && let Some(Shared {
                sender,
                streams,
                traffic,
            }) = free
        {
            streams.fetch_add(1, Relaxed);
            return Ok(Connection {
                sender: Sender::Http2(sender.clone(), Arc::clone(streams)),
                traffic: Arc::clone(traffic),
                connect: None,
            });
        }
        let connection = self.connect().await?;
        if let Sender::Http2(sender, streams) = &connection.sender {
            let (sender, streams) = (sender.clone(), Arc::clone(streams));
            shared.push(Shared {
                sender,
                streams,
                traffic: Arc::clone(&connection.traffic),
            });
        }
        Ok(connection)
    }

    /// Takes back a connection whose answer was read whole.
    pub(crate) async fn put(&self, mut connection: Connection) {
        if let (true, Sender::Http1(sender)) = (self.keep_alive, &mut connection.sender)
            && sender.ready().await.is_ok()
        {
            self.idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(connection);
        }
    }

    async fn connect(&self) -> io::Result<Connection> {
        let start = Instant::now();
        let connect = async {
            let stream = TcpStream::connect(self.target.address).await?;
            stream.set_nodelay(true)?;
            match &self.target.tls {
                None => self.handshake(stream).await,
                Some((tls, name)) => {
                    self.handshake(tls.connect(name.clone(), stream).await?)
                        .await
                }
            }
        };
        let (sender, traffic) = timeout(CONNECT_TIMEOUT, connect)
            .await
            .map_err(|_| io::ErrorKind::TimedOut)??;
        self.all
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Arc::clone(&traffic));
        Ok(Connection {
            sender,
            traffic,
            connect: Some(start.elapsed()),
        })
    }

    async fn handshake<S>(&self, stream: S) -> io::Result<(Sender, Arc<Traffic>)>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let traffic = Arc::new(Traffic::default());
        let io = TokioIo::new(Counting {
            stream,
            traffic: Arc::clone(&traffic),
        });
        // The connection's end is seen by the requests on it.
        let sender = if self.http2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), io)
                .await
                .map_err(io::Error::other)?;
            tokio::spawn(async { _ = connection.await });
            Sender::Http2(sender, Arc::new(AtomicUsize::new(1)))
        } else {
            let (sender, connection) = http1::handshake(io).await.map_err(io::Error::other)?;
            tokio::spawn(async { _ = connection.await });
            Sender::Http1(sender)
        };
        Ok((sender, traffic))
    }
}
