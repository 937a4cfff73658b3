//! Faults and deaths of chats.

use std::time::Duration;

use loadtest::engine::{Cut, Death, Engine, EngineError, Fault, Script};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::client::{Ended, chat, events, fault, read, send};

#[tokio::test]
async fn each_fault_shows_as_it_should() {
    let whole = |answer: &str| answer.contains("[DONE]");
    let (answer, ended) = fault(
        Fault::Cut {
            after: 3,
            how: Cut::Close,
        },
        true,
    )
    .await;
    assert!(
        events(&answer) == 3
            && !whole(&answer)
            && !answer.ends_with("0\r\n\r\n")
            && ended == Ended::Fin
    );
    let (answer, ended) = fault(
        Fault::Cut {
            after: 3,
            how: Cut::Reset,
        },
        true,
    )
    .await;
    assert!(events(&answer) == 3 && ended == Ended::Rst);
    let (answer, ended) = fault(
        Fault::Cut {
            after: 3,
            how: Cut::Clean,
        },
        true,
    )
    .await;
    assert!(
        events(&answer) == 3
            && !whole(&answer)
            && answer.ends_with("0\r\n\r\n")
            && ended == Ended::Open
    );
    let (answer, ended) = fault(
        Fault::Cut {
            after: 3,
            how: Cut::InEvent,
        },
        true,
    )
    .await;
    assert!(events(&answer) == 3 && !answer.ends_with("\n\n\r\n") && ended == Ended::Fin);
    let (answer, ended) = fault(
        Fault::Cut {
            after: 3,
            how: Cut::Silence,
        },
        true,
    )
    .await;
    assert!(events(&answer) == 3 && ended == Ended::Open);
    let (answer, _) = fault(
        Fault::Cut {
            after: 0,
            how: Cut::Silence,
        },
        true,
    )
    .await;
    assert!(answer.ends_with("chunked\r\n\r\n"), "{answer}");
    let (answer, _) = fault(
        Fault::Error {
            after: 0,
            error: EngineError::Busy,
        },
        true,
    )
    .await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("\"code\": 503") && whole(&answer)
    );
    let (answer, _) = fault(
        Fault::Error {
            after: 0,
            error: EngineError::Busy,
        },
        false,
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 503 "));
    let (answer, _) = fault(Fault::Abort { after: 2 }, true).await;
    assert!(
        events(&answer) == 2 && answer.contains("\"finish_reason\":\"abort\"") && whole(&answer)
    );
    let (answer, ended) = fault(Fault::BadChunk { after: 2 }, true).await;
    assert!(events(&answer) == 2 && answer.contains("zz\r\n") && ended == Ended::Fin);
    let (answer, ended) = fault(Fault::CloseDelimited, true).await;
    assert!(
        !answer.contains("chunked") && answer.ends_with("data: [DONE]\n\n") && ended == Ended::Fin
    );
}

#[tokio::test]
async fn faults_of_the_head_and_of_the_framing_show_as_they_should() {
    assert_eq!(
        fault(Fault::ResetOnBody, true).await,
        (String::new(), Ended::Rst)
    );
    assert_eq!(
        fault(Fault::CloseOnBody, true).await,
        (String::new(), Ended::Fin)
    );
    assert_eq!(fault(Fault::CloseOnAccept, true).await.0, "");
    assert_eq!(
        fault(Fault::Silence, true).await,
        (String::new(), Ended::Open)
    );
    assert!(!fault(Fault::GarbageHead, true).await.0.contains("HTTP/1.1"));
    assert!(
        fault(Fault::SwitchingProtocols, true)
            .await
            .0
            .starts_with("HTTP/1.1 101 ")
    );
    let (answer, _) = fault(Fault::Informational { times: 2 }, false).await;
    assert!(answer.matches("103 Early Hints").count() == 2 && answer.contains("HTTP/1.1 200 OK"));
    let (answer, _) = fault(Fault::TwoLengths, false).await;
    assert_eq!(answer.matches("content-length").count(), 2);
    let (answer, _) = fault(Fault::LengthAndChunked, false).await;
    assert!(answer.contains("content-length") && answer.contains("chunked"));
    let (answer, ended) = fault(Fault::LengthTooLong, false).await;
    assert!(answer.contains("content-length") && ended == Ended::Fin);
    let (answer, _) = fault(Fault::BytesAfterEnd, false).await;
    assert!(answer.ends_with("smuggled"));
    let (answer, _) = fault(Fault::Status(504), true).await;
    assert!(answer.starts_with("HTTP/1.1 504 Gateway Timeout"));
    let (answer, _) = fault(Fault::Split { size: 3 }, true).await;
    assert!(events(&answer) > 3 && answer.contains("[DONE]"));
    let (answer, _) = fault(
        Fault::SlowHead {
            gap: Duration::from_millis(1),
        },
        false,
    )
    .await;
    assert!(answer.contains("chat.completion"));
}

#[tokio::test]
async fn a_dying_engine_ends_its_streams_in_the_ways_vllm_does() {
    for (death, end, ended) in [
        (Death::Close, None, Ended::Fin),
        (Death::Reset, None, Ended::Rst),
        (Death::Freeze, None, Ended::Open),
        (
            Death::Abort,
            Some("\"finish_reason\":\"abort\""),
            Ended::Fin,
        ),
        (
            Death::Error,
            Some("EngineCore encountered an issue"),
            Ended::Fin,
        ),
    ] {
        let script = Script {
            tokens: 1000,
            itl: Duration::from_millis(5),
            ..Script::default()
        };
        let engine = Engine::start(script).await.unwrap();
        let mut stream = send(&engine, &chat(true)).await;
        let mut start = [0; 2000];
        stream.read_exact(&mut start).await.unwrap();
        engine.kill(death).await;
        assert!(
            TcpStream::connect(engine.addr()).await.is_err(),
            "{death:?}: the port is closed"
        );
        let (rest, how) = read(&mut stream).await;
        assert_eq!(how, ended, "{death:?}");
        assert_eq!(rest.contains("[DONE]"), end.is_some(), "{death:?}");
        assert!(
            end.is_none_or(|end| rest.contains(end)),
            "{death:?}: {rest}"
        );
        engine.restart().await.unwrap();
        assert!(
            engine.wait_for_in_flight(0, Duration::from_secs(1)).await,
            "{death:?}"
        );
        let mut again = send(&engine, &chat(true)).await;
        assert!(again.read(&mut start).await.unwrap() > 0);
    }
}
