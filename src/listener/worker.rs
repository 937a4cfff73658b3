//! The worker threads: accept, limit, hand over, serve.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use log::{error, warn};
use parking_lot::Mutex;
use pingora::apps::ServerApp;
use pingora::listeners::tls::Acceptor;
use pingora::protocols::{ALPN, Stream};
use pingora::server::ShutdownWatch;
use pingora_proxy::HttpProxy;
use tokio::sync::{mpsc, watch};

use crate::proxy::Gateway;
use crate::telemetry::Seldom;

use super::beats::Beats;
use super::bell::Bell;
use super::bind::{Bound, BoundSocket, stop_listening};
use super::client::one_client;
use super::connection::{ClientClaim, ClientCounts, Connection, Role};
use super::ending::Ending;
use super::io::{ClientIo, ClientSocket};

/// How far one worker may run ahead of the emptiest before it hands new connections over.
const LEAD: usize = 4;
/// After EMFILE: time for descriptors to come free, in place of a spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often all workers together complain of it.
const COMPLAINT: Duration = Duration::from_secs(10);
/// Connections that one worker takes from a listener's backlog before it closes it.
const LAST_ACCEPTS: usize = 4096;
/// How often a worker shows that it runs. It also keeps one timer armed, because a timer that enters an empty wheel
/// wakes tokio's driver by a syscall.
const TICK: Duration = Duration::from_millis(500);

/// What every worker serves with.
pub struct Service {
    pub proxy: Arc<HttpProxy<Gateway>>,
    pub gateway: Arc<crate::server::Shared>,
}

/// One listener as a worker needs it.
struct Listener {
    bound: Bound,
    acceptor: Option<Arc<Acceptor>>,
    /// One for each worker that accepts: the last to stop closes the socket for whoever else has it.
    workers: Arc<()>,
}

/// The running workers. Dropping the handle does not stop them.
pub struct Workers {
    threads: Vec<JoinHandle<()>>,
    ending: watch::Sender<Ending>,
    /// The same as Pingora wants it: whether there is an end.
    draining: watch::Sender<bool>,
    /// Dropped to end the runtimes, whatever still runs.
    end: watch::Sender<bool>,
    loads: Arc<[AtomicUsize]>,
    accepting: Arc<AtomicUsize>,
    beats: Beats,
}

impl Workers {
    /// Closes the listening sockets and idle connections; requests in hand go on.
    pub fn drain(&self) {
        self.end(Ending::Stopping);
    }

    /// Leaves the listening sockets to another process, which has them too. Connections end with their next answer.
    pub fn hand_over(&self) {
        self.end(Ending::HandedOver);
    }

    /// Closes the listening sockets, which others have and will not leave to this process again.
    pub fn give_up_sockets(&self) {
        self.end(Ending::Replaced);
    }

    /// Takes up the listening sockets again. The connections that were open end all the same.
    pub fn serve_again(&self) {
        self.end(Ending::No);
    }

    fn end(&self, ending: Ending) {
        self.ending.send_replace(ending);
        self.draining.send_replace(ending != Ending::No);
    }

    pub fn beats(&self) -> Beats {
        self.beats.clone()
    }

    /// Whether a listening socket is still accepted on. Once none is, [`connections`](Self::connections) has all that
    /// were accepted.
    pub fn accept(&self) -> bool {
        self.accepting.load(Acquire) > 0
    }

    /// Connections still open.
    pub fn connections(&self) -> usize {
        self.loads.iter().map(|l| l.load(Relaxed)).sum()
    }

    /// Ends every thread, cutting what still runs.
    pub fn stop(self) {
        self.end(Ending::Stopping);
        self.end.send_replace(true);
        for thread in self.threads {
            if thread.join().is_err() {
                error!("a worker thread panicked");
            }
        }
    }
}

/// Starts `threads` workers on the bound sockets. Each has its own handle on every socket, and accepts
/// as soon as this returns.
pub fn start(
    threads: usize,
    bound: &[(Bound, Option<Arc<Acceptor>>)],
    service: &Arc<Service>,
) -> io::Result<Workers> {
    let (ending, ending_watch) = watch::channel(Ending::No);
    let (draining, drain_watch) = watch::channel(false);
    let (end, end_watch) = watch::channel(false);
    let loads: Arc<[AtomicUsize]> = (0..threads).map(|_| AtomicUsize::new(0)).collect();
    let accepting = Arc::default();
    let beats = Beats::new(threads, Instant::now());
    let clients = Arc::new(ClientCounts::default());
    let complaints = Arc::new(Mutex::new(Seldom::new(COMPLAINT)));
    let (senders, receivers): (Vec<_>, Vec<_>) =
        (0..threads).map(|_| mpsc::unbounded_channel()).unzip();
    let senders: Arc<[_]> = senders.into();
    let mut handles = Vec::with_capacity(threads);
    let of_each: Vec<_> = bound.iter().map(|_| Arc::new(())).collect();
    for (index, inbox) in receivers.into_iter().enumerate() {
        let mut listeners = Vec::with_capacity(bound.len());
        for ((one, acceptor), workers) in bound.iter().zip(&of_each) {
            listeners.push(Listener {
                bound: one.try_clone()?,
                acceptor: acceptor.clone(),
                workers: Arc::clone(workers),
            });
        }
        let worker = Arc::new(Worker {
            index,
            service: Arc::clone(service),
            loads: Arc::clone(&loads),
            accepting: Arc::clone(&accepting),
            clients: Arc::clone(&clients),
            others: Arc::clone(&senders),
            ending: ending_watch.clone(),
            draining: drain_watch.clone(),
            beats: beats.clone(),
            complaints: Arc::clone(&complaints),
        });
        let mut end = end_watch.clone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let thread = std::thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(move || {
                crate::upstream::set_worker(index);
                runtime.block_on(async move {
                    worker.run(listeners, inbox);
                    // An error means the sender is gone, which ends the worker as well.
                    let _ = end.wait_for(|end| *end).await;
                });
                runtime.shutdown_timeout(Duration::from_millis(100));
            })?;
        handles.push(thread);
    }
    Ok(Workers {
        threads: handles,
        ending,
        draining,
        end,
        loads,
        accepting,
        beats,
    })
}

/// A connection on its way to the worker that will serve it.
struct Accepted {
    socket: AcceptedSocket,
    peer: Option<std::net::SocketAddr>,
    role: Role,
    acceptor: Option<Arc<Acceptor>>,
    claim: Option<ClientClaim>,
    open: OpenGuard,
}

enum AcceptedSocket {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
    Here(ClientSocket),
}

/// Counts one connection on a worker until dropped.
struct OpenGuard(Arc<[AtomicUsize]>, usize);

impl OpenGuard {
    fn new(loads: &Arc<[AtomicUsize]>, index: usize) -> Self {
        loads[index].fetch_add(1, Relaxed);
        Self(Arc::clone(loads), index)
    }
}

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.0[self.1].fetch_sub(1, Relaxed);
    }
}

struct Worker {
    index: usize,
    service: Arc<Service>,
    loads: Arc<[AtomicUsize]>,
    /// Listening sockets that are accepted on, of all workers.
    accepting: Arc<AtomicUsize>,
    clients: Arc<ClientCounts>,
    others: Arc<[mpsc::UnboundedSender<Accepted>]>,
    ending: watch::Receiver<Ending>,
    draining: ShutdownWatch,
    beats: Beats,
    complaints: Arc<Mutex<Seldom>>,
}

impl Worker {
    fn run(
        self: &Arc<Self>,
        listeners: Vec<Listener>,
        mut inbox: mpsc::UnboundedReceiver<Accepted>,
    ) {
        for listener in listeners {
            let worker = Arc::clone(self);
            tokio::spawn(async move { worker.accept_from(listener).await });
        }
        let worker = Arc::clone(self);
        tokio::spawn(async move {
            while let Some(accepted) = inbox.recv().await {
                worker.serve(accepted);
            }
        });
        let (beats, index) = (self.beats.clone(), self.index);
        tokio::spawn(async move {
            let mut tick = tokio::time::interval(TICK);
            loop {
                tick.tick().await;
                beats.beat(index, Instant::now());
            }
        });
    }

    async fn accept_from(self: &Arc<Self>, listener: Listener) {
        let Listener {
            bound,
            acceptor,
            workers,
        } = listener;
        let (role, mut socket) = (bound.role, bound.socket);
        let mut ending = self.ending.clone();
        loop {
            let accepting = match Accepting::new(socket) {
                Ok(accepting) => accepting,
                Err(e) => return error!("cannot accept connections: {e}"),
            };
            self.accepting.fetch_add(1, Release);
            let end = self.accept_until_end(&accepting, role, &acceptor).await;
            self.accepting.fetch_sub(1, Release);
            // Not polled meanwhile: who connects is the other process's.
            socket = match accepting.into_std() {
                Ok(socket) => socket,
                Err(e) => return error!("a listening socket could not be kept: {e}"),
            };
            if end == Ending::Stopping {
                // A process before this one, which finishes what it has, keeps the socket as well.
                if Arc::into_inner(workers).is_some() {
                    stop_listening(&socket);
                }
                return;
            }
            let after = ending.wait_for(|ending| *ending != Ending::HandedOver);
            if !after.await.is_ok_and(|after| *after == Ending::No) {
                return;
            }
        }
    }

    /// Accepts for as long as it may; gives what ended that.
    async fn accept_until_end(
        self: &Arc<Self>,
        socket: &Accepting,
        role: Role,
        acceptor: &Option<Arc<Acceptor>>,
    ) -> Ending {
        let mut ending = self.ending.clone();
        loop {
            let accepted = tokio::select! {
                accepted = socket.accept() => accepted,
                ended = ending.wait_for(|ending| !ending.accepts(role)) => {
                    match ended.as_deref() {
                        // Who waits is accepted by the process that has the socket now.
                        Ok(end @ (Ending::HandedOver | Ending::Replaced)) => return *end,
                        _ => break,
                    }
                }
            };
            match accepted {
                Ok((socket, peer)) => self.place(socket, peer, role, acceptor.clone()),
                Err(e) if is_of_one_connection(&e) => {}
                // The process that had it meanwhile has closed it for good.
                Err(e) if e.kind() == io::ErrorKind::InvalidInput => return Ending::Stopping,
                Err(e) => {
                    self.accept_failed(&e);
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        // Those who are connected already may have sent their request.
        for _ in 0..LAST_ACCEPTS {
            let Ok(Ok((socket, peer))) =
                tokio::time::timeout(Duration::ZERO, socket.accept()).await
            else {
                break;
            };
            self.place(socket, peer, role, acceptor.clone());
        }
        Ending::Stopping
    }

    /// Whoever connects waits in the backlog until there are descriptors again.
    fn accept_failed(&self, error: &io::Error) {
        self.service.gateway.metrics.refused("accept_failed");
        if let Some(unsaid) = self.complaints.lock().now(Instant::now()) {
            let more = match unsaid {
                0 => String::new(),
                _ => format!(" ({unsaid} more times since the last such line)"),
            };
            warn!("accept failed: {error}{more}; new connections wait until files are closed");
        }
    }

    /// Keeps the connection, or gives it to the worker with the fewest.
    fn place(
        self: &Arc<Self>,
        socket: ClientSocket,
        peer: Option<std::net::SocketAddr>,
        role: Role,
        acceptor: Option<Arc<Acceptor>>,
    ) {
        let gateway = &self.service.gateway;
        let snapshot = gateway.snapshot.load();
        let limits = &snapshot.config.limits;
        let open: usize = self.loads.iter().map(|l| l.load(Relaxed)).sum();
        if role == Role::Public && open >= limits.connections {
            gateway.metrics.refused("connections");
            gateway.metrics.connection_counts.refused_connection();
            return;
        }
        let mut claim = None;
        if let (Role::Public, Some(limit), Some(peer)) = (role, limits.connections_per_client, peer)
        {
            claim = self.clients.claim(one_client(peer.ip()), limit);
            if claim.is_none() {
                gateway.metrics.refused("connections_per_client");
                gateway.metrics.connection_counts.refused_connection();
                return;
            }
        }
        let mine = self.loads[self.index].load(Relaxed);
        let (emptiest, least) = self
            .loads
            .iter()
            .map(|l| l.load(Relaxed))
            .enumerate()
            .min_by_key(|&(_, load)| load)
            .unwrap_or((self.index, mine));
        let target = if mine > least + LEAD {
            emptiest
        } else {
            self.index
        };
        let mut accepted = Accepted {
            socket: AcceptedSocket::Here(socket),
            peer,
            role,
            acceptor,
            claim,
            open: OpenGuard::new(&self.loads, target),
        };
        if target == self.index {
            return self.serve(accepted);
        }
        let AcceptedSocket::Here(socket) = accepted.socket else {
            return;
        };
        let moved = match socket {
            ClientSocket::Tcp(s) => s.into_std().map(AcceptedSocket::Tcp),
            ClientSocket::Unix(s) => s.into_std().map(AcceptedSocket::Unix),
        };
        match moved {
            Ok(socket) => {
                accepted.socket = socket;
                // A worker whose inbox is closed is shutting down, and so is the connection.
                let _ = self.others[target].send(accepted);
            }
            Err(e) => warn!("a connection could not be handed over: {e}"),
        }
    }

    fn serve(self: &Arc<Self>, accepted: Accepted) {
        let Accepted {
            socket,
            peer,
            role,
            acceptor,
            claim,
            open,
        } = accepted;
        let socket = match socket {
            AcceptedSocket::Here(socket) => Ok(socket),
            AcceptedSocket::Tcp(s) => tokio::net::TcpStream::from_std(s).map(ClientSocket::Tcp),
            AcceptedSocket::Unix(s) => tokio::net::UnixStream::from_std(s).map(ClientSocket::Unix),
        };
        let socket = match socket {
            Ok(socket) => socket,
            Err(e) => return warn!("a connection was lost before it was served: {e}"),
        };
        if let ClientSocket::Tcp(socket) = &socket {
            // Fails only on a socket that is gone already.
            let _ = socket.set_nodelay(true);
        }
        let gateway = &self.service.gateway;
        let snapshot = gateway.snapshot.load();
        let connection = Arc::new(Connection::new(
            role,
            peer,
            acceptor.is_some(),
            snapshot.config.client.header_timeout,
            &snapshot.config.limits,
            (role == Role::Public).then(|| Arc::clone(&gateway.metrics.connection_counts)),
        ));
        let proxy = Arc::clone(&self.service.proxy);
        let (draining, ending) = (self.draining.clone(), self.ending.clone());
        tokio::spawn(async move {
            let _held = (claim, open);
            let io = match ClientIo::new(socket, Arc::clone(&connection)) {
                Ok(io) => io,
                Err(e) => return warn!("a connection could not be set up: {e}"),
            };
            let serving = serve_stream(io, acceptor, proxy, &draining, &connection);
            unless(serving, async {
                tokio::select! {
                    biased;
                    () = connection.outstayed() => {}
                    () = connection.end_with(ending) => {}
                }
            })
            .await;
        });
    }
}

/// Runs `serving` until it is done or `end` is. The task is woken for every piece of an answer; `end` is polled
/// only when one of its own wakers called.
async fn unless(serving: impl Future<Output = ()>, end: impl Future<Output = ()>) {
    let (mut serving, mut end) = (pin!(serving), pin!(end));
    let mut bell = Bell::new();
    poll_fn(|cx| {
        if serving.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        match bell.has_rung(cx) {
            Some(mut cx) => end.as_mut().poll(&mut cx),
            None => Poll::Pending,
        }
    })
    .await;
}

async fn serve_stream(
    io: ClientIo,
    acceptor: Option<Arc<Acceptor>>,
    proxy: Arc<HttpProxy<Gateway>>,
    draining: &ShutdownWatch,
    connection: &Connection,
) {
    let mut stream: Stream = match acceptor {
        None => Box::new(io),
        // Boxed, so that plain connections do not carry the room for a handshake.
        Some(acceptor) => match Box::pin(acceptor.tls_handshake(io)).await {
            Ok(stream) => Box::new(stream),
            Err(e) => return log::debug!("TLS handshake failed: {e}"),
        },
    };
    if matches!(stream.selected_alpn_proto(), Some(ALPN::H2)) {
        connection.speaks_http2();
    }
    while let Some(next) = proxy.process_new(stream, draining).await {
        stream = next;
    }
}

enum Accepting {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

impl Accepting {
    fn new(socket: BoundSocket) -> io::Result<Self> {
        match socket {
            BoundSocket::Tcp(s) => tokio::net::TcpListener::from_std(s).map(Self::Tcp),
            BoundSocket::Unix(s) => tokio::net::UnixListener::from_std(s).map(Self::Unix),
        }
    }

    fn into_std(self) -> io::Result<BoundSocket> {
        match self {
            Self::Tcp(listener) => listener.into_std().map(BoundSocket::Tcp),
            Self::Unix(listener) => listener.into_std().map(BoundSocket::Unix),
        }
    }

    async fn accept(&self) -> io::Result<(ClientSocket, Option<std::net::SocketAddr>)> {
        match self {
            Self::Tcp(listener) => {
                let (socket, peer) = listener.accept().await?;
                Ok((ClientSocket::Tcp(socket), Some(peer)))
            }
            Self::Unix(listener) => {
                let (socket, _) = listener.accept().await?;
                Ok((ClientSocket::Unix(socket), None))
            }
        }
    }
}

/// Errors of the connection that was being accepted, not of the listening socket (accept(2)).
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}
