//! A hundred reloads under load, each of which adds, drops or reweights endpoints or changes the
//! certificate: no request is lost, no stream is cut, no connection is closed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use loadtest::engine::{Engine, Script};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::sleep;

use crate::certificates::{Certificate, LISTEN, connect, shown};
use crate::gateway::Start;
use crate::wire::{Wire, metric, request};

const RELOADS: usize = 100;
const ENGINES: usize = 5;
const ANSWER: &str =
    r#"{"model":"DeepSeek-R1","messages":[{"role":"user","content":"Hi"}],"max_tokens":1}"#;
const STREAM: &str =
    r#"{"model":"DeepSeek-R1","messages":[{"role":"user","content":"Hi"}],"stream":true}"#;

/// What came of all requests together.
#[derive(Default)]
struct Tally {
    stop: AtomicBool,
    answers: AtomicUsize,
    streams: AtomicUsize,
    failures: std::sync::Mutex<Vec<String>>,
}

/// One request after the other on one connection, until told to stop.
async fn closed_loop<S: AsyncRead + AsyncWrite + Unpin>(
    mut wire: Wire<S>,
    tally: Arc<Tally>,
    streams: bool,
) {
    while !tally.stop.load(Relaxed) {
        let body = if streams { STREAM } else { ANSWER };
        wire.send(request("POST", "/v1/chat/completions", "", body))
            .await;
        let failure = match wire.answer().await {
            None => "the connection ended".to_owned(),
            Some(answer) if answer.status != 200 || !answer.is_whole => format!("{answer:?}"),
            Some(answer) if streams && !answer.body.ends_with(b"data: [DONE]\n\n") => {
                "cut".to_owned()
            }
            Some(_) => {
                let count = if streams {
                    &tally.streams
                } else {
                    &tally.answers
                };
                count.fetch_add(1, Relaxed);
                continue;
            }
        };
        return tally.failures.lock().unwrap().push(failure);
    }
}

fn keys(engines: &[Engine], random: &mut fastrand::Rng, reload: usize) -> String {
    let mut list = String::new();
    // Engine 0 always stays, so that there is one; the others come and go.
    for (n, engine) in engines.iter().enumerate() {
        if n == 0 || random.bool() {
            let weight = random.u32(1..10);
            let backup = n > 0 && random.u8(..6) == 0;
            list += &format!(
                "      - {{ url: \"{}\", weight: {weight}, backup: {backup} }}\n",
                engine.authority()
            );
        }
    }
    let policy = if reload.is_multiple_of(2) {
        "least_inflight"
    } else {
        "round_robin"
    };
    format!("pools:\n  default:\n    policy: {policy}\n    endpoints:\n{list}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_reloads_loses_no_request_and_cuts_no_stream() {
    let mut engines = Vec::new();
    for _ in 0..ENGINES {
        let script = Script {
            tokens: 40,
            ttft: Duration::from_millis(5),
            itl: Duration::from_millis(10),
            ..Script::default()
        };
        engines.push(Engine::start(script).await.unwrap());
    }
    let mut random = fastrand::Rng::with_seed(7);
    let certificates: Vec<_> = (0..RELOADS / 10 + 1).map(|_| Certificate::new()).collect();
    let start = Start::with_keys(&keys(&engines, &mut random, 0)).listen(format!(
        "[\"127.0.0.1:0\", {}]",
        LISTEN.replace("127.0.0.1", "127.0.0.2")
    ));
    certificates[0].install(start.directory());
    let gateway = start.run();
    let tls = gateway.listeners[1];

    let tally = Arc::new(Tally::default());
    let mut clients = Vec::new();
    for n in 0..24 {
        let streams = n % 2 == 0;
        let tally = Arc::clone(&tally);
        if n % 3 == 0 {
            let stream = connect(tls, &[&certificates[0]], "http/1.1").await.unwrap();
            clients.push(tokio::spawn(closed_loop(
                Wire::over(stream),
                tally,
                streams,
            )));
        } else {
            let wire = Wire::to(gateway.public).await;
            clients.push(tokio::spawn(closed_loop(wire, tally, streams)));
        }
    }
    for reload in 0..RELOADS {
        let changed = reload % 10 == 0;
        let certificate = &certificates[reload / 10 + 1];
        if changed {
            certificate.install(&gateway.directory);
        }
        let keys = keys(&engines, &mut random, reload);
        tokio::task::block_in_place(|| gateway.reload(&keys));
        if changed {
            let stream = connect(tls, &[certificate], "http/1.1")
                .await
                .expect("the new certificate");
            assert_eq!(shown(&stream), certificate.der);
        }
        sleep(Duration::from_millis(20)).await;
    }
    tally.stop.store(true, Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    assert_eq!(*tally.failures.lock().unwrap(), Vec::<String>::new());
    let (answers, streams) = (tally.answers.load(Relaxed), tally.streams.load(Relaxed));
    assert!(
        answers > 100 && streams > 50,
        "{answers} answers, {streams} streams"
    );
    assert_eq!(
        metric(gateway.admin, "sluicegate_config_reloads_total", "success").await,
        RELOADS as f64
    );
    assert_eq!(
        metric(gateway.admin, "sluicegate_endpoint_in_flight", "").await,
        0.0
    );
    for engine in &engines {
        assert_eq!((engine.in_flight(), engine.left()), (0, 0));
    }
}

/// Half of a certificate's change, as a tool that writes one file after the other leaves it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_does_not_fit_its_key_changes_nothing() {
    let engine = Engine::start(Script::default()).await.unwrap();
    let (old, new) = (Certificate::new(), Certificate::new());
    let keys = format!("endpoints: [\"{}\"]\n", engine.authority());
    let start = Start::with_keys(&keys).listen(LISTEN);
    old.install(start.directory());
    let gateway = start.run();
    let saved = std::fs::read(gateway.directory.path().join("key.pem")).unwrap();
    new.install(&gateway.directory);
    std::fs::write(gateway.directory.path().join("key.pem"), saved).unwrap();
    gateway.signal(nix::sys::signal::SIGHUP);
    gateway
        .log
        .wait_for(1, "reload refused; the configuration of before serves on");
    gateway.log.wait_for(1, "it is not the key of ");
    assert_eq!(
        shown(&connect(gateway.public, &[&old], "h2").await.unwrap()),
        old.der
    );
    new.install(&gateway.directory);
    let reloaded = tokio::task::block_in_place(|| gateway.reload(&keys));
    assert!(reloaded.contains(": new certificate for "), "{reloaded}");
    assert_eq!(
        shown(&connect(gateway.public, &[&new], "h2").await.unwrap()),
        new.der
    );
}
