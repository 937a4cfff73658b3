//! A simulated inference engine: answers as real vLLM does, on loopback, and misbehaves on demand.
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! use loadtest::engine::{Cut, Engine, Fault, Script};
//! let engine = Engine::start(Script { tokens: 100, ..Script::default() }).await?;
//! engine.fail_next(1, Fault::Cut { after: 30, how: Cut::Reset });
//! // … send requests to engine.url() …
//! assert_eq!(engine.in_flight(), 0);
//! # Ok(()) }
//! ```
//!
//! Heads, events and errors are those of vLLM 0.32 behind uvicorn, to the byte
//! (`tests/transcripts/`); the server is written on sockets because no HTTP library writes them so,
//! and none breaks the rules where a script asks for it.

mod background;
mod connection;
mod errors;
mod faults;
mod generation;
mod http;
mod io;
mod metrics;
mod render;
mod request;
mod responder;
mod routes;
mod script;
mod server;
mod shared;
mod store;
mod stream;
pub mod text;
mod tokenizer;
mod websocket;

use std::io::Result;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpSocket;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use shared::{Active, Shared, State, lock};

pub use script::{
    Cut, Death, EngineError, Fault, Flavour, Health, Listen, QueueFull, Recorded, Script,
};

/// How long [`Engine::settled`] waits.
const SETTLES: Duration = Duration::from_secs(5);

/// A running engine. Dropping it ends it and its connections.
#[derive(Debug)]
pub struct Engine {
    shared: Arc<Shared>,
    /// Where it listens, its port known.
    listen: Listen,
    acceptor: Mutex<Option<JoinHandle<()>>>,
    /// Keeps the port while nothing listens there, or another process might.
    port: Mutex<Option<TcpSocket>>,
}

impl Engine {
    /// Starts an engine on the current Tokio runtime. It accepts connections when this returns.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn start(script: Script) -> Result<Self> {
        let listener = server::bind(&script.listen).await?;
        let listen = listener.address()?;
        let shared = Shared::new(script);
        let acceptor = tokio::spawn(server::accept(Arc::clone(&shared), listener));
        Ok(Self {
            shared,
            listen,
            acceptor: Mutex::new(Some(acceptor)),
            port: Mutex::default(),
        })
    }

    /// The address of an engine on TCP.
    ///
    /// # Panics
    /// When it listens on a unix socket.
    pub fn addr(&self) -> SocketAddr {
        match &self.listen {
            Listen::Tcp(address) => *address,
            Listen::Unix(path) => panic!("the engine listens on unix:{}", path.display()),
        }
    }

    /// `127.0.0.1:PORT` or `unix:/path`, as a gateway's configuration has it.
    pub fn authority(&self) -> String {
        match &self.listen {
            Listen::Tcp(address) => address.to_string(),
            Listen::Unix(path) => format!("unix:{}", path.display()),
        }
    }

    /// `http://127.0.0.1:PORT`, or `unix:/path`.
    pub fn url(&self) -> String {
        match &self.listen {
            Listen::Tcp(address) => format!("http://{address}"),
            Listen::Unix(_) => self.authority(),
        }
    }

    /// Connections accepted since the start.
    pub fn accepts(&self) -> u64 {
        self.shared.accepts.load(Relaxed)
    }

    /// Connections open now.
    pub fn connections(&self) -> usize {
        lock(&self.shared.connections).len()
    }

    /// Inference requests between arrival and the end of their answer.
    pub fn in_flight(&self) -> usize {
        self.shared.in_flight.load(Relaxed)
    }

    /// Answers that ended as the engine meant them to.
    pub fn completed(&self) -> u64 {
        self.shared.completed.load(Relaxed)
    }

    /// Answers ended by their client's leaving.
    pub fn left(&self) -> u64 {
        self.shared.left.load(Relaxed)
    }

    /// Whose clients left since the last call, by `X-Request-Id`, and when that was noticed
    /// ([`Script::departures`]).
    pub fn take_departures(&self) -> Vec<(String, Instant)> {
        std::mem::take(&mut lock(&self.shared.departures))
    }

    /// Tokens generated since the start.
    pub fn tokens(&self) -> u64 {
        self.shared.metrics.generation_tokens.load(Relaxed)
    }

    /// The last requests as they were received, on any path, oldest first ([`Script::record`]).
    pub fn requests(&self) -> Vec<Recorded> {
        lock(&self.shared.recorder).all()
    }

    /// The last requests to the generating paths, oldest first.
    pub fn inferences(&self) -> Vec<Recorded> {
        let inference = |request: &Recorded| {
            let path = request.target.split('?').next().unwrap_or_default();
            request.method == "POST" && routes::is_inference(path, None)
        };
        self.requests().into_iter().filter(inference).collect()
    }

    /// Forgets the requests received so far.
    pub fn clear_requests(&self) {
        lock(&self.shared.recorder).clear();
    }

    /// From now on no request gets its first token: streams get their head and wait, others get nothing.
    /// [`Self::wait_for_arrivals`] counts from here.
    pub fn hold(&self) {
        self.shared.arrivals.send_replace(0);
        self.shared.state.send_replace(State::Held);
    }

    /// From now on no request gets any token, as when the GPU hangs. `/health` still answers 200, and `/metrics`
    /// the same figures over and over; SGLang's `/v1/loads` asks the scheduler, and says nothing.
    pub fn freeze(&self) {
        let page = self.shared.metrics_page(&self.script());
        *lock(&self.shared.frozen_page) = Some(page);
        self.shared.state.send_replace(State::Frozen);
    }

    /// Ends [`Self::hold`] and [`Self::freeze`].
    pub fn release(&self) {
        *lock(&self.shared.frozen_page) = None;
        self.shared.state.send_replace(State::Running);
    }

    /// Waits until so many inference requests were received whole since the start or the last [`Self::hold`].
    pub async fn wait_for_arrivals(&self, count: usize) {
        let mut arrivals = self.shared.arrivals.subscribe();
        // The sender lives as long as the engine.
        _ = arrivals.wait_for(|arrived| *arrived >= count).await;
    }

    /// Waits until so many answers are in the making, at most `limit`; false when the time ran out.
    pub async fn wait_for_in_flight(&self, count: usize, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        while self.in_flight() != count {
            if Instant::now() >= end {
                return false;
            }
            sleep(Duration::from_millis(1)).await;
        }
        true
    }

    /// Waits, for a few seconds at most, until no answer is in the making. An answer is counted after its
    /// last byte, which a client may have first: to be called before [`Self::completed`] is compared.
    pub async fn settled(&self) -> &Self {
        self.wait_for_in_flight(0, SETTLES).await;
        self
    }

    /// The script in force.
    pub fn script(&self) -> Arc<Script> {
        self.shared.script()
    }

    /// Changes the script for requests that arrive from now on. The address stays.
    pub fn set(&self, script: Script) {
        *lock(&self.shared.active) = Active::new(script);
    }

    /// Makes the next `count` inference requests (or connections, for faults of those) meet `fault`.
    pub fn fail_next(&self, count: usize, fault: Fault) {
        lock(&self.shared.faults).extend(std::iter::repeat_n(fault, count));
    }

    /// Forgets the faults that did not strike yet.
    pub fn clear_faults(&self) {
        lock(&self.shared.faults).clear();
    }

    /// Closes the listener: new connections are refused, open ones go on. [`Self::restart`] opens it again.
    pub async fn refuse(&self) {
        let acceptor = lock(&self.acceptor).take();
        if let Some(acceptor) = acceptor {
            acceptor.abort();
            // Its end, not its result, matters: the socket is closed then.
            _ = acceptor.await;
        }
        match &self.listen {
            Listen::Unix(path) => _ = std::fs::remove_file(path),
            Listen::Tcp(address) => *lock(&self.port) = server::bound(*address).ok(),
        }
    }

    /// Dies: the listener closes, open connections end as told. Returns when they have; after
    /// [`Death::Freeze`] they stay.
    pub async fn kill(&self, death: Death) {
        self.refuse().await;
        // What it remembered was in its memory.
        self.shared.responses.clear();
        match death {
            Death::Close | Death::Reset => self.drop_connections(death == Death::Reset).await,
            Death::Freeze => _ = self.shared.state.send_replace(State::Dying(death)),
            Death::Abort | Death::Error => {
                self.shared.state.send_replace(State::Dying(death));
                self.wait_for_in_flight(0, Duration::from_secs(5)).await;
                self.drop_connections(false).await;
            }
        }
    }

    /// Stops: closes the listener and every connection.
    pub async fn stop(&self) {
        self.kill(Death::Close).await;
    }

    /// Comes back on the same address, after [`Self::refuse`] or a death. Connections left by a freeze end.
    ///
    /// # Errors
    /// When the address cannot be bound again.
    pub async fn restart(&self) -> Result<()> {
        self.refuse().await;
        if matches!(*self.shared.state.borrow(), State::Dying(_)) {
            self.drop_connections(false).await;
            self.shared.state.send_replace(State::Running);
        }
        let listener = server::bind(&self.listen).await?;
        *lock(&self.port) = None;
        let acceptor = tokio::spawn(server::accept(Arc::clone(&self.shared), listener));
        *lock(&self.acceptor) = Some(acceptor);
        Ok(())
    }

    async fn drop_connections(&self, reset: bool) {
        self.shared.resetting.store(reset, Relaxed);
        self.abort_connections();
        let end = Instant::now() + Duration::from_secs(5);
        while self.connections() > 0 && Instant::now() < end {
            sleep(Duration::from_millis(1)).await;
        }
        self.shared.resetting.store(false, Relaxed);
    }

    fn abort_connections(&self) {
        for connection in lock(&self.shared.connections).values() {
            connection.abort();
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(acceptor) = lock(&self.acceptor).take() {
            acceptor.abort();
        }
        self.abort_connections();
        self.shared.responses.clear();
        if let Listen::Unix(path) = &self.listen {
            _ = std::fs::remove_file(path);
        }
    }
}
