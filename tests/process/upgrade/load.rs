//! Upgrades under load.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use loadtest::engine::{Engine, Script};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::*;
use crate::certificates::{Certificate, LISTEN, connect};
use crate::wire::{ask, metric};

const UPGRADES: usize = 5;

trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// How a client gets to the gateway.
#[derive(Clone)]
enum Way {
    Plain(SocketAddr),
    Tls(SocketAddr, Arc<Certificate>),
    Unix(PathBuf),
}

impl Way {
    async fn connect(&self) -> io::Result<Wire<Box<dyn Socket>>> {
        Ok(Wire::over(match self {
            Self::Plain(address) => Box::new(TcpStream::connect(address).await?),
            Self::Tls(address, certificate) => {
                Box::new(connect(*address, &[certificate], "http/1.1").await?)
            }
            Self::Unix(path) => Box::new(UnixStream::connect(path).await?),
        }))
    }
}

#[derive(Default)]
struct Tally {
    stop: AtomicBool,
    answers: AtomicUsize,
    streams: AtomicUsize,
    connects: AtomicUsize,
    failures: std::sync::Mutex<Vec<String>>,
}

impl Tally {
    /// One request after the other, each once. A connection is used again unless its answer said that it is the last.
    async fn client(self: Arc<Self>, way: Way, streams: bool, reuses: bool) {
        let mut kept = None;
        while !self.stop.load(Relaxed) {
            if let Err(failure) = self.request(&way, streams, reuses, &mut kept).await {
                return self.failures.lock().unwrap().push(failure);
            }
        }
    }

    async fn request(
        &self,
        way: &Way,
        streams: bool,
        reuses: bool,
        kept: &mut Option<Wire<Box<dyn Socket>>>,
    ) -> Result<(), String> {
        let (mut wire, is_new) = match kept.take() {
            Some(wire) => (wire, false),
            None => {
                self.connects.fetch_add(1, Relaxed);
                (way.connect().await.map_err(|e| e.to_string())?, true)
            }
        };
        let body = if streams { STREAM } else { ANSWER };
        let fields = if reuses { "" } else { "Connection: close\r\n" };
        wire.send(request("POST", "/v1/chat/completions", fields, body))
            .await;
        let answer = wire.answer().await;
        let answer = answer.ok_or(format!("the connection ended, new: {is_new}"))?;
        let is_good = if streams {
            self.streams.fetch_add(1, Relaxed);
            is_complete(&answer)
        } else {
            self.answers.fetch_add(1, Relaxed);
            answer.status == 200 && answer.is_whole
        };
        if !is_good {
            return Err(format!("{answer:?}"));
        }
        if !closes(&answer) {
            *kept = Some(wire);
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upgrades_lose_no_request_and_cut_no_stream() {
    let engine = Engine::start(Script {
        tokens: 40,
        ttft: Duration::from_millis(5),
        itl: Duration::from_millis(10),
        ..Script::default()
    })
    .await
    .unwrap();
    let certificate = Arc::new(Certificate::new());
    let start = Start::new(&[engine.authority()], "").listen(format!(
        "[\"127.0.0.1:0\", {}, \"unix:g.sock\"]",
        LISTEN.replace("127.0.0.1", "127.0.0.2")
    ));
    certificate.install(start.directory());
    let mut gateway = start.run();
    let ways = [
        Way::Plain(gateway.listeners[0]),
        Way::Tls(gateway.listeners[1], certificate),
        Way::Unix(gateway.directory.path().join("g.sock")),
    ];
    let tally = Arc::new(Tally::default());
    let clients: Vec<_> = (0..24)
        .map(|n| {
            let way = ways[n % 3].clone();
            let client = Arc::clone(&tally).client(way, n / 3 % 2 == 0, n / 6 % 2 == 0);
            tokio::spawn(client)
        })
        .collect();
    let mut pids = vec![gateway.pid()];
    for upgrade in 0..UPGRADES {
        // A while of service between them: a hundred requests.
        let answered = || tally.answers.load(Relaxed) + tally.streams.load(Relaxed);
        let before = answered();
        tokio::task::block_in_place(|| {
            wait_until("requests between upgrades", || {
                answered() > before + 100 || !tally.failures.lock().unwrap().is_empty()
            });
            let pid = gateway.upgrade();
            assert!(!pids.contains(&pid), "upgrade {upgrade}: {pids:?}, {pid}");
            pids.push(pid);
        });
    }
    tally.stop.store(true, Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    assert_eq!(*tally.failures.lock().unwrap(), Vec::<String>::new());
    let (answers, streams) = (tally.answers.load(Relaxed), tally.streams.load(Relaxed));
    eprintln!(
        "{answers} answers, {streams} streams, {} connects",
        tally.connects.load(Relaxed)
    );
    assert!(answers > 100 && streams > 10);
    // With their clients gone, all but the last have nothing to stay for.
    let status = tokio::task::block_in_place(|| gateway.ended(PATIENCE));
    assert!(status.expect("the first ends").success());
    let last = pids.pop().unwrap();
    tokio::task::block_in_place(|| {
        wait_until("the old ones end", || !pids.iter().any(|pid| runs(*pid)));
    });
    assert!(runs(last) && gateway.serving() == Some(last));
    let in_flight = metric(gateway.admin, "sluicegate_endpoint_in_flight", "").await;
    assert_eq!(in_flight, 0.0);
    assert_eq!((engine.in_flight(), engine.left()), (0, 0));
    gateway.signal_serving(nix::sys::signal::SIGTERM);
    tokio::task::block_in_place(|| wait_until("the last one ends", || !runs(last)));
    assert!(!gateway.pid_file().exists());
    assert!(!gateway.directory.path().join("g.sock").exists());
}

/// The connection of a stream that was open, one that idles, and one that has said nothing yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_stays_until_its_next_answer() {
    let engine = engine(60).await;
    let mut gateway = Start::new(&[engine.authority()], "").run();
    let mut waiting = idle(&gateway).await;
    let mut silent = Wire::to(gateway.public).await;
    let mut stream = Stream::begin(&gateway).await;
    let mut watched = Wire::to(gateway.admin).await;
    watched.send(request("GET", "/ready", "", "")).await;
    assert_eq!(watched.answer().await.unwrap().status, 200);
    let pid = tokio::task::block_in_place(|| gateway.upgrade());
    assert_ne!(pid, gateway.pid());

    assert!(is_complete(&stream.rest().await));
    let Stream(mut streamed, _) = stream;
    for wire in [&mut waiting, &mut silent, &mut streamed] {
        assert_eq!(wire.then(SECOND / 10).await, crate::wire::Then::Stays);
        wire.send(request("POST", "/v1/chat/completions", "", ANSWER))
            .await;
        let answer = wire.answer().await.expect("an answer");
        assert!(answer.status == 200 && closes(&answer), "{}", answer.head);
        assert_eq!(wire.then(SECOND).await, crate::wire::Then::Closes);
    }
    // Whoever asks the old process whether to send requests here is not told that it ends.
    watched.send(request("GET", "/ready", "", "")).await;
    let ready = watched.answer().await.unwrap();
    assert!(ready.status == 200 && closes(&ready), "{}", ready.head);
    let status = tokio::task::block_in_place(|| gateway.ended(PATIENCE));
    assert!(status.expect("it ends behind the last").success());
    assert_eq!(gateway.log.count(" cut"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_hold_the_old_process_for_their_idle_timeout_and_the_grace() {
    let engine = engine(4).await;
    for keys in ["client: { idle_timeout: 1s }\n", "shutdown_grace: 1s\n"] {
        let mut gateway = Start::new(&[engine.authority()], keys).run();
        let mut waiting = idle(&gateway).await;
        tokio::task::block_in_place(|| gateway.upgrade());
        let status = tokio::task::block_in_place(|| gateway.ended(5 * SECOND));
        assert!(status.expect("it ends").success(), "{keys}");
        assert_eq!(waiting.then(SECOND).await, crate::wire::Then::Closes);
        assert_eq!(gateway.log.count(" cut"), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_finishes_its_streams_on_the_old_process() {
    let engine = engine(40).await;
    let certificate = Certificate::new();
    let start = Start::new(&[engine.authority()], "").listen(LISTEN);
    certificate.install(start.directory());
    let mut gateway = start.run();
    let stream = connect(gateway.public, &[&certificate], "h2")
        .await
        .unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    let end = tokio::spawn(connection);
    let mut sender = sender.ready().await.unwrap();
    let request = http::Request::post("https://localhost/v1/chat/completions")
        .header("content-type", "application/json")
        .body(())
        .unwrap();
    let (answer, mut body) = sender.send_request(request, false).unwrap();
    body.send_data(STREAM.into(), true).unwrap();
    let answer = answer.await.unwrap();
    tokio::task::block_in_place(|| gateway.upgrade());
    let mut events = answer.into_body();
    let mut text = Vec::new();
    while let Some(data) = events.data().await {
        let data = data.expect("the stream is not cut");
        events.flow_control().release_capacity(data.len()).unwrap();
        text.extend_from_slice(&data);
    }
    assert!(text.ends_with(b"data: [DONE]\n\n"));
    // GOAWAY, and then the end.
    let _ = end.await.unwrap();
    let status = tokio::task::block_in_place(|| gateway.ended(PATIENCE));
    assert!(status.expect("it ends").success());
}

/// A process with nothing to finish goes at once, but not before the last that it has accepted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_comes_last_to_an_idle_gateway_is_answered() {
    let engine = engine(4).await;
    let gateway = Start::new(&[engine.authority()], "").run();
    let public = gateway.public;
    let is_over = Arc::new(AtomicBool::new(false));
    let over = Arc::clone(&is_over);
    let asking = tokio::spawn(async move {
        while !over.load(Relaxed) {
            assert_eq!(ask(public, "GET", "/health", "").await.status, 200);
        }
    });
    for _ in 0..10 {
        tokio::task::block_in_place(|| gateway.upgrade());
    }
    is_over.store(true, Relaxed);
    asking.await.unwrap();
}
