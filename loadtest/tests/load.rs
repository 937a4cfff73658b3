//! Load against engines that behave and engines that do not.
#![allow(clippy::unwrap_used, reason = "a test may fail by a panic")]
#![cfg(feature = "load")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use loadtest::engine::{Cut, Engine, EngineError, Fault, Script};
use loadtest::load::{Arrivals, Plan, Protocol, Spacing, run};
use tokio::net::TcpListener;

async fn engine(script: Script) -> (Engine, Plan) {
    let engine = Engine::start(script).await.unwrap();
    let plan = Plan {
        arrivals: Arrivals::Closed { clients: 8 },
        requests: 200,
        duration: Duration::from_secs(10),
        ..Plan::new(engine.url())
    };
    (engine, plan)
}

#[tokio::test]
async fn a_good_engine_passes_on_every_protocol_it_speaks() {
    for (protocol, keep_alive, stream, connections) in [
        (Protocol::Http11, true, false, 1..=8),
        (Protocol::Http11, true, true, 1..=8),
        (Protocol::Http11, false, true, 200..=200),
        (Protocol::Http10, false, false, 200..=200),
    ] {
        let (engine, plan) = engine(Script::default()).await;
        let report = run(Plan {
            protocol,
            keep_alive,
            stream,
            ..plan
        })
        .await
        .unwrap();
        assert_eq!((report.requests, report.failed), (200, 0), "{report}");
        assert!(
            connections.contains(&engine.accepts()),
            "{} connections",
            engine.accepts()
        );
        assert_eq!(report.connections, engine.accepts());
        assert_eq!(report.tokens, 200 * 16);
        assert_eq!(engine.requests().len(), 200);
    }
}

#[tokio::test]
async fn each_way_of_failing_is_told_from_the_others() {
    for (fault, name) in [
        (
            Fault::Cut {
                after: 3,
                how: Cut::Close,
            },
            "truncated",
        ),
        (
            Fault::Cut {
                after: 3,
                how: Cut::Reset,
            },
            "truncated",
        ),
        (
            Fault::Cut {
                after: 3,
                how: Cut::Clean,
            },
            "truncated",
        ),
        (
            Fault::Error {
                after: 3,
                error: EngineError::CoreDead,
            },
            "error_event",
        ),
        (Fault::Abort { after: 3 }, "aborted"),
        (Fault::Status(503), "status_503"),
        (Fault::ResetOnBody, "no_answer"),
        (Fault::Silence, "timeout"),
    ] {
        let (engine, plan) = engine(Script::default()).await;
        engine.fail_next(2, fault);
        let timeout = Duration::from_millis(500);
        let report = run(Plan {
            stream: true,
            requests: 20,
            timeout,
            ..plan
        })
        .await
        .unwrap();
        assert_eq!(
            (report.failed, report.failures.get(name)),
            (2, Some(&2)),
            "{name}: {report}"
        );
    }
}

#[tokio::test]
async fn a_text_that_is_not_the_engines_is_noticed() {
    let (_engine, plan) = engine(Script {
        answer: Some(vec![" something".to_owned()].into()),
        ..Script::default()
    })
    .await;
    for stream in [false, true] {
        let report = run(Plan {
            stream,
            requests: 5,
            ..plan.clone()
        })
        .await
        .unwrap();
        assert_eq!(report.failures["wrong_text"], 5);
        let report = run(Plan {
            stream,
            requests: 5,
            verify: false,
            ..plan.clone()
        })
        .await
        .unwrap();
        assert_eq!(report.failed, 0);
    }
}

#[tokio::test]
async fn a_stall_is_charged_to_all_who_would_have_come_during_it() {
    let (engine, plan) = engine(Script::default()).await;
    let arrivals = Arrivals::Open {
        per_second: 200.0,
        spacing: Spacing::Uniform,
    };
    let plan = Plan {
        arrivals,
        duration: Duration::from_secs(1),
        requests: u64::MAX,
        ..plan
    };
    let (report, ()) = tokio::join!(run(plan), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        engine.hold();
        tokio::time::sleep(Duration::from_millis(400)).await;
        engine.release();
    });
    let report = report.unwrap();
    assert!((150..=200).contains(&report.requests), "{report}");
    assert!(
        report.http_req_duration.p95 > 300.0 && report.http_req_duration.p90 > 200.0,
        "{report}"
    );
    assert!(report.http_req_duration.med < 200.0, "{report}");
}

#[tokio::test]
async fn streams_are_timed_event_by_event() {
    let script = Script {
        ttft: Duration::from_millis(50),
        itl: Duration::from_millis(20),
        ..Script::default()
    };
    let (_engine, plan) = engine(script).await;
    let report = run(Plan {
        stream: true,
        requests: 8,
        ..plan
    })
    .await
    .unwrap();
    assert!((50.0..200.0).contains(&report.ttft.med), "{report}");
    assert!((18.0..40.0).contains(&report.itl.med), "{report}");
    // A machine that is busy may merge some of the 128.
    assert!(report.merged_events < 13, "{report}");
}

#[tokio::test]
async fn load_does_not_leave_this_machine() {
    let error = run(Plan::new("http://192.0.2.1:80")).await.unwrap_err();
    assert!(error.to_string().contains("--allow-remote"), "{error}");
}

/// An HTTP/2 server that answers everything with an empty object and counts its connections.
async fn http2_server() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            count.fetch_add(1, Relaxed);
            let service = service_fn(async |request: Request<Incoming>| {
                let body = request.into_body().collect().await?;
                assert!(!body.to_bytes().is_empty());
                Ok::<_, hyper::Error>(Response::new(Full::new(Bytes::from_static(b"{}"))))
            });
            let connection = http2::Builder::new(TokioExecutor::new());
            tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
        }
    });
    (url, connections)
}

#[tokio::test]
async fn http2_shares_a_connection() {
    let (url, connections) = http2_server().await;
    let plan = Plan {
        arrivals: Arrivals::Closed { clients: 20 },
        requests: 300,
        protocol: Protocol::Http2,
        verify: false,
        ..Plan::new(url)
    };
    let report = run(plan).await.unwrap();
    assert_eq!((report.requests, report.failed), (300, 0), "{report}");
    assert_eq!(connections.load(Relaxed), 1);
}
