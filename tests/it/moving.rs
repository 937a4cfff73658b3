//! A failure that comes before the client was shown anything is another endpoint's turn.

use std::time::{Duration, Instant};

use crate::support::{
    Client, Cut, Death, End, Engine, EngineError, Fault, Gateway, Puppet, QueueFull, Script, Then,
    chat, chat_body, engine, engine_with, get, in_turn, pool, post,
};

/// No connection is kept to see whether an endpoint is there.
const ALONE: &str = "engine: openai";

async fn assert_moved(fault: Fault, stream: bool, reason: &str) {
    let bad = engine_with(Script {
        fault: Some(fault.clone()),
        ..Script::default()
    })
    .await;
    let good = engine().await;
    // What the gateway may ask for of its own is not asked for, so that the body passes unchanged.
    let keys = "continue_streams: false";
    let gateway = Gateway::start(&in_turn(&bad.authority(), &good.authority(), keys)).await;
    let what = format!("{fault:?}, stream: {stream}");
    let answer = gateway.ask(&chat(stream)).await;
    assert_eq!(answer.status, 200, "{what}: {}", answer.text());
    assert!(answer.keeps_alive(), "{what}");
    if stream {
        assert!(answer.text().ends_with("data: [DONE]\n\n"), "{what}");
        assert!(!answer.text().contains("error"), "{what}");
    } else {
        assert_eq!(
            answer.json()["choices"][0]["finish_reason"],
            "stop",
            "{what}"
        );
    }
    assert_eq!(good.inferences().len(), 1, "{what}");
    assert_eq!(
        good.inferences()[0].body.as_deref(),
        Some(chat_body(stream).as_bytes()),
        "{what}"
    );
    assert_eq!(gateway.retries(reason), 1.0, "{what}");
    assert_eq!(gateway.faults(0), 1, "{what}");
    gateway.finish().await;
}

macro_rules! moves {
    ($($name:ident: [$($fault:expr),* $(,)?], $streams:expr, $reason:expr;)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            for fault in [$($fault),*] {
                for stream in $streams {
                    assert_moved(fault.clone(), stream, $reason).await;
                }
            }
        }
    )*};
}

const WHOLE_OR_STREAM: [bool; 2] = [false, true];

moves! {
    a_connection_lost_moves_the_request: [
        Fault::CloseOnBody, Fault::ResetOnBody, Fault::ResetOnHead,
    ], WHOLE_OR_STREAM, "connection_lost";
    a_5xx_moves_the_request: [
        Fault::Status(500), Fault::Status(502), Fault::Status(504),
    ], WHOLE_OR_STREAM, "status";
    an_error_event_in_place_of_content_moves_the_request: [
        Fault::Error { after: 0, error: EngineError::CoreDead },
        Fault::Error { after: 0, error: EngineError::ShuttingDown },
    ], [true], "error_event";
    an_abort_in_place_of_content_moves_the_request: [Fault::Abort { after: 0 }], WHOLE_OR_STREAM, "error_event";
    an_answer_that_is_not_http_moves_the_request: [
        Fault::GarbageHead, Fault::EndlessHead, Fault::TwoLengths, Fault::LengthAndChunked,
        Fault::BadChunk { after: 0 }, Fault::SwitchingProtocols,
    ], WHOLE_OR_STREAM, "bad_response";
    a_stream_cut_before_content_moves_the_request: [
        Fault::Cut { after: 0, how: Cut::Reset },
        Fault::Cut { after: 0, how: Cut::Close },
        Fault::Cut { after: 0, how: Cut::Clean },
        Fault::Cut { after: 0, how: Cut::InEvent },
    ], [true], "connection_lost";
    a_held_answer_cut_in_the_middle_is_asked_for_again: [
        Fault::Cut { after: 50, how: Cut::Reset },
        Fault::Cut { after: 50, how: Cut::Close },
        Fault::LengthTooLong,
    ], [false], "connection_lost";
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connect_refused_moves_the_request_and_takes_the_endpoint_out() {
    let (bad, good) = (engine().await, engine().await);
    let gateway = Gateway::start(&in_turn(&bad.authority(), &good.authority(), ALONE)).await;
    bad.refuse().await;
    for _ in 0..3 {
        assert_eq!(gateway.ask(&chat(true)).await.status, 200);
    }
    assert_eq!(
        (gateway.retries("connect_refused"), gateway.state(0)),
        (1.0, "down")
    );
    assert_eq!((bad.inferences().len(), good.inferences().len()), (0, 3));
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn informational_answers_are_skipped() {
    let informing = engine_with(Script {
        fault: Some(Fault::Informational { times: 5 }),
        ..Script::default()
    });
    let engine = informing.await;
    let gateway = Gateway::start(&pool(&[format!("\"{}\"", engine.authority())], ALONE)).await;
    for stream in WHOLE_OR_STREAM {
        assert_eq!(gateway.ask(&chat(stream)).await.status, 200);
    }
    assert_eq!(
        engine.accepts(),
        3,
        "a probe, a question, and one connection for both"
    );
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_503_that_does_not_speak_of_a_queue_is_a_fault() {
    let body = "upstream connect error";
    let answer = format!(
        "HTTP/1.1 503 X\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let (bad, good) = (Puppet::answering(answer, Then::Keep).await, engine().await);
    let gateway = Gateway::start(&in_turn(&bad.authority(), &good.authority(), "")).await;
    assert_eq!(gateway.ask(&chat(true)).await.status, 200);
    assert_eq!((gateway.retries("status"), gateway.faults(0)), (1.0, 1));
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_after_an_answer_are_never_another_answer() {
    for fault in [Fault::BytesAfterEnd, Fault::LengthTooShort] {
        let odd = engine_with(Script {
            fault: Some(fault.clone()),
            // Over before anybody looks whether it is still there.
            tokens: 2,
            ..Script::default()
        })
        .await;
        let gateway = Gateway::start(&pool(&[format!("\"{}\"", odd.authority())], ALONE)).await;
        let mut client = Client::connect(gateway.address).await;
        for _ in 0..3 {
            // As long as was declared, as nginx does.
            let answer = client.ask(&chat(false)).await;
            assert_eq!((answer.status, answer.end), (200, End::Framed), "{fault:?}");
            assert!(answer.text().starts_with("{\"id\":"), "{fault:?}");
            assert!(!answer.text().contains("smuggled"), "{fault:?}");
        }
        assert_eq!(
            odd.accepts(),
            5,
            "{fault:?}: a probe, a question, and no connection used twice"
        );
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stale_pooled_connection_costs_nothing() {
    let stale = engine_with(Script {
        fault: Some(Fault::CloseOnReuse),
        ..Script::default()
    })
    .await;
    let other = engine().await;
    let gateway = Gateway::start(&in_turn(&stale.authority(), &other.authority(), "")).await;
    for stream in [false, true, false] {
        assert_eq!(gateway.ask(&chat(stream)).await.status, 200);
    }
    assert_eq!(
        (
            stale.settled().await.completed(),
            other.settled().await.completed()
        ),
        (3, 0)
    );
    assert_eq!(
        (gateway.faults(0), gateway.retries("connection_lost")),
        (0, 0.0)
    );
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_closes_its_idle_connections_loses_no_request() {
    let keep_alive = Duration::from_millis(5);
    let engine = engine_with(Script {
        keep_alive,
        ..Script::default()
    })
    .await;
    let gateway = Gateway::start(&pool(&[format!("\"{}\"", engine.authority())], "")).await;
    let mut client = Client::connect(gateway.address).await;
    for n in 0..60 {
        // Around the moment at which the engine closes.
        tokio::time::sleep(Duration::from_micros(4_500 + n * 20)).await;
        assert_eq!(client.ask(&chat(false)).await.status, 200);
    }
    assert_eq!(gateway.faults(0), 0);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_4xx_passes_and_is_nobodys_fault() {
    let (first, second) = (engine().await, engine().await);
    let gateway = Gateway::start(&in_turn(&first.authority(), &second.authority(), "")).await;
    for status in [400, 401, 404, 409, 422, 429] {
        for stream in WHOLE_OR_STREAM {
            first.fail_next(1, Fault::Status(status));
            let answer = gateway.ask(&chat(stream)).await;
            assert_eq!(answer.status, status);
            assert_eq!(answer.json()["error"]["code"], status, "vLLM's own body");
            assert!(answer.keeps_alive());
        }
    }
    let unknown = post(
        "/v1/chat/completions",
        chat_body(false).replace("DeepSeek-R1", "other"),
    );
    assert_eq!(gateway.ask(&unknown).await.status, 404);
    assert_eq!(
        (
            second.inferences().len(),
            gateway.faults(0),
            gateway.state(0)
        ),
        (0, 0, "up")
    );
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_moves_the_request_and_is_nobodys_fault() {
    for queue_full in [QueueFull::Status, QueueFull::Event] {
        let busy = Script {
            max_running: Some(1),
            max_queued: Some(0),
            queue_full,
            ..Script::default()
        };
        let (full, free) = (engine_with(busy).await, engine().await);
        full.hold();
        let gateway = Gateway::start(&in_turn(&full.authority(), &free.authority(), "")).await;
        let mut running = Client::connect(gateway.address).await;
        running.send(chat(true).bytes()).await;
        full.wait_for_arrivals(1).await;
        for stream in WHOLE_OR_STREAM {
            assert_eq!(
                gateway.ask(&chat(stream)).await.status,
                200,
                "{queue_full:?}"
            );
        }
        assert_eq!(
            (
                free.settled().await.completed(),
                gateway.retries("queue_full")
            ),
            (2, 2.0)
        );
        assert_eq!((gateway.faults(0), gateway.state(0)), (0, "up"));
        full.release();
        assert_eq!(running.answer().await.status, 200);
        gateway.finish().await;
    }
}

/// Counts what reaches two engines that fail in a way that could have done the work.
async fn unrepeatable(answer: &str, then: Then, status: u16) {
    let first = Puppet::answering(answer, then).await;
    let second =
        Puppet::answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", Then::Keep).await;
    let yaml = format!(
        "{}\nexpose: [/pause]",
        in_turn(&first.authority(), &second.authority(), "")
    );
    let gateway = Gateway::start(&yaml).await;
    assert_eq!(gateway.ask(&post("/pause", "{}")).await.status, status);
    assert_eq!((first.requests().len(), second.requests().len()), (1, 0));
    // What only reads is repeated.
    assert_eq!(gateway.ask(&get("/pause")).await.status, 200);
    assert_eq!((first.requests().len(), second.requests().len()), (2, 1));
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_post_that_is_no_inference_is_not_sent_twice() {
    unrepeatable("", Then::Reset, 502).await;
    unrepeatable("", Then::Close, 502).await;
    unrepeatable("garbage", Then::Close, 502).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_post_that_is_no_inference_is_moved_when_nothing_was_sent() {
    let (mut first, second) = (
        Puppet::start().await,
        Puppet::answering("HTTP/1.1 204 X\r\n\r\n", Then::Keep).await,
    );
    let yaml = format!(
        "{}\nexpose: [/pause]",
        in_turn(&first.authority(), &second.authority(), "")
    );
    let gateway = Gateway::start(&yaml).await;
    first.refuse().await;
    assert_eq!(gateway.ask(&post("/pause", "{}")).await.status, 204);
    gateway.finish().await;
}

/// On a pooled connection nobody can tell a request that was never read from one that was carried out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_post_that_is_no_inference_is_not_risked_on_a_pooled_connection() {
    let mut puppet = Puppet::start().await;
    let endpoint = format!("\"{}\"", puppet.authority());
    let gateway = Gateway::start(&format!("{}\nexpose: [/pause]", pool(&[endpoint], ""))).await;
    for request in [chat(false), post("/pause", "{}")] {
        let mut client = Client::connect(gateway.address).await;
        client.send(request.bytes()).await;
        puppet.next().await.answer_json("{}").await;
        assert_eq!(client.answer().await.status, 200);
    }
    assert_eq!(puppet.accepts() - puppet.probes(), 2);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_dies_moves_all_its_unstarted_requests() {
    let (dying, good) = (engine().await, engine().await);
    dying.hold();
    let gateway = Gateway::start(&in_turn(&dying.authority(), &good.authority(), "")).await;
    let mut clients = Vec::new();
    for n in 0..10 {
        let mut client = Client::connect(gateway.address).await;
        client.send(chat(n % 2 == 0).bytes()).await;
        clients.push(client);
    }
    dying.wait_for_arrivals(10).await;
    dying.kill(Death::Reset).await;
    for mut client in clients {
        let answer = client.answer().await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    assert_eq!(good.settled().await.completed(), 10);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_every_endpoint_down_the_answer_comes_at_once() {
    let engines: [Engine; 2] = [engine().await, engine().await];
    let gateway = Gateway::start(&in_turn(
        &engines[0].authority(),
        &engines[1].authority(),
        "",
    ))
    .await;
    for engine in &engines {
        engine.stop().await;
    }
    // The first finds it out, the others know.
    for n in 0..5 {
        let begun = Instant::now();
        let answer = gateway.ask(&chat(n % 2 == 0)).await;
        assert!(
            begun.elapsed() < Duration::from_millis(100),
            "{:?}",
            begun.elapsed()
        );
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (503, "no_endpoint_available")
        );
        assert_eq!(answer.field("retry-after"), Some("1"));
        assert!(answer.keeps_alive());
    }
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_too_long_to_hold_can_only_be_cut() {
    let mut puppet = Puppet::start().await;
    let yaml = format!(
        "endpoints: [\"{}\"]\nlimits: {{ answer: 10B }}",
        puppet.authority()
    );
    let gateway = Gateway::start(&yaml).await;
    let mut client = Client::connect(gateway.address).await;
    client.send(chat(false).bytes()).await;
    let mut exchange = puppet.next().await;
    exchange
        .write("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n14\r\n")
        .await;
    exchange.write("01234567890123456789\r\n").await;
    client.head().await;
    assert_eq!(client.body_until("9012").await.len(), 20);
    exchange.reset();
    assert_eq!(client.rest().await, (Vec::new(), End::Closed));
    gateway.finish().await;
}
