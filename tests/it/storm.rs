//! Clients that break off in every way at every moment leave nothing behind.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::support::{
    Client, Cut, Engine, EngineError, Fault, Gateway, H2, Script, chat, chat_body, engine_with,
    h2_post, letters, pool, post, until,
};

const AT_ONCE: usize = 40;

/// One client that breaks off. `kind` and `moment` are random.
async fn break_off(gateway: &Gateway, kind: u32, moment: Duration) {
    let mut client = Client::connect(gateway.address).await;
    match kind {
        // Leaves with FIN or with RST, at any moment of a stream or of an answer.
        0..=3 => {
            // A gateway that is done with us may have closed already.
            let _ = client.try_send(chat(kind.is_multiple_of(2)).bytes()).await;
            tokio::time::sleep(moment).await;
            if kind < 2 {
                client.reset();
            }
        }
        // Leaves inside its body, sized or in chunks.
        4 | 5 => {
            let large = post("/v1/completions", letters(200_000, u64::from(kind)));
            let large = if kind == 4 { large } else { large.chunked(999) };
            let bytes = large.bytes();
            let part = bytes.len() / 100 * (moment.as_micros() % 100) as usize;
            let _ = client.try_send(&bytes[..part]).await;
        }
        // Leaves inside its head.
        6 => {
            let head = chat(true).head();
            let _ = client.try_send(&head[..head.len() / 2]).await;
        }
        // Says nothing more, and half-closes.
        _ => {
            let _ = client.try_send(chat(true).bytes()).await;
            client.half_close().await;
            tokio::time::sleep(moment).await;
        }
    }
}

/// Streams that are reset on one connection, then the connection itself.
async fn break_off_h2(gateway: &Gateway, moments: Vec<Duration>) {
    let mut h2 = H2::connect(gateway).await;
    let body = chat_body(true);
    let mut streams = Vec::new();
    for moment in moments {
        let request = h2_post("/v1/chat/completions", body.len(), true);
        let (answer, mut stream) = h2.open(request, false).await;
        let is_half = moment.as_micros().is_multiple_of(3);
        let part = if is_half {
            &body.as_bytes()[..20]
        } else {
            body.as_bytes()
        };
        let _ = stream.send_data(part.to_vec().into(), !is_half);
        tokio::time::sleep(moment / 4).await;
        match moment.as_micros() % 2 {
            0 => stream.send_reset(h2::Reason::CANCEL),
            _ => streams.push((answer, stream)),
        }
    }
    h2.abort();
}

async fn storm(gateway: &Arc<Gateway>, aborts: usize, seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut broken = 0;
    let mut tasks = JoinSet::new();
    while broken < aborts {
        while tasks.len() >= AT_ONCE {
            tasks.join_next().await.unwrap().unwrap();
        }
        let gateway = Arc::clone(gateway);
        let moment = |rng: &mut fastrand::Rng| Duration::from_micros(rng.u64(0..4_000));
        if rng.u32(0..60) == 0 {
            let moments: Vec<_> = (0..20).map(|_| moment(&mut rng)).collect();
            broken += moments.len();
            tasks.spawn(async move { break_off_h2(&gateway, moments).await });
        } else {
            let (kind, moment) = (rng.u32(0..8), moment(&mut rng));
            broken += 1;
            tasks.spawn(async move { break_off(&gateway, kind, moment).await });
        }
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

async fn engines(faulty: bool) -> Vec<Engine> {
    let slow = Script {
        ttft: Duration::from_millis(1),
        itl: Duration::from_micros(200),
        record: 16,
        ..Script::default()
    };
    let mut engines = Vec::new();
    for fault in [
        None,
        Some(Fault::Cut {
            after: 3,
            how: Cut::Reset,
        }),
        Some(Fault::Error {
            after: 0,
            error: EngineError::CoreDead,
        }),
    ] {
        let fault = fault.filter(|_| faulty);
        engines.push(
            engine_with(Script {
                fault,
                ..slow.clone()
            })
            .await,
        );
    }
    engines
}

async fn weather(aborts: usize, faulty: bool, seed: u64) {
    let engines = engines(faulty).await;
    let endpoints: Vec<_> = engines
        .iter()
        .map(|e| format!("\"{}\"", e.authority()))
        .collect();
    let keys = "health: { eject_after: 1000 }, retry_budget: { ratio: 2 }";
    let gateway = Gateway::with_tls(&pool(&endpoints, keys)).await;
    let gateway = Arc::new(gateway);
    storm(&gateway, aborts, seed).await;
    gateway.quiet().await;
    for index in 0..engines.len() {
        assert_eq!(gateway.endpoint(index).in_flight(), 0);
    }
    let cancelled: u64 = engines.iter().map(Engine::left).sum();
    assert!(
        cancelled > aborts as u64 / 50,
        "the storm reached the engines: {cancelled}"
    );
    for engine in &engines {
        until("the engines to be idle", || engine.in_flight() == 0).await;
    }
    until("every connection to close", || {
        gateway.shared().metrics.connection_counts.now().active == 0
    })
    .await;
    let now = gateway.shared().metrics.connection_counts.now();
    assert_eq!((now.reading, now.writing, now.waiting), (0, 0, 0));
    // And it serves on.
    engines
        .iter()
        .for_each(|engine| engine.set(Script::default()));
    assert_eq!(gateway.ask(&chat(false)).await.status, 200);
    Arc::into_inner(gateway).unwrap().finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_aborts_leave_nothing_in_flight() {
    weather(2_000, false, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_aborts_in_front_of_failing_engines_leave_nothing_in_flight() {
    weather(1_000, true, 2).await;
}
