use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::*;
use crate::upstream::Address;

const LIMITS: HeadLimits = HeadLimits {
    bytes: 64 * 1024,
    fields: 256,
};
const QUESTION: &[u8] = b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n";

/// A listener on loopback, and how to reach it.
pub(in crate::upstream) async fn peer() -> (Target, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let target = Target {
        address: Address::Tcp(address),
        authority: address.to_string(),
        tls: None,
    };
    (target, listener)
}

/// A fresh connection and the peer's end of it.
async fn pair() -> (Connection, TcpStream) {
    let (target, listener) = peer().await;
    let connection = Connection::connect(&target, Duration::from_secs(5))
        .await
        .unwrap();
    (connection, listener.accept().await.unwrap().0)
}

/// Asks, lets the peer answer, and reads all of the answer's body.
pub(in crate::upstream) async fn exchange(
    connection: &mut Connection,
    socket: &mut TcpStream,
    answer: &[u8],
) -> Vec<u8> {
    connection.send(QUESTION, &[]).await.unwrap();
    let mut question = [0; QUESTION.len()];
    socket.read_exact(&mut question).await.unwrap();
    assert_eq!(question, QUESTION);
    socket.write_all(answer).await.unwrap();
    connection.read_head(LIMITS).await.unwrap();
    rest(connection).await.unwrap()
}

async fn rest(connection: &mut Connection) -> Result<Vec<u8>, ReadError> {
    let mut body = Vec::new();
    while let Some(piece) = connection.read_body().await? {
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

/// Sends a question and closes after the answer.
async fn answered(answer: &[u8]) -> Connection {
    let (mut connection, mut socket) = pair().await;
    connection.send(QUESTION, &[]).await.unwrap();
    socket.read_exact(&mut [0; QUESTION.len()]).await.unwrap();
    socket.write_all(answer).await.unwrap();
    connection
}

#[tokio::test]
async fn a_request_arrives_as_head_and_pieces_in_order() {
    let (mut connection, mut socket) = pair().await;
    let mut body: Vec<Bytes> = (0..200_u8)
        .map(|n| Bytes::from(vec![n; usize::from(n) * 700]))
        .collect();
    body.insert(3, Bytes::new());
    body.push(Bytes::new());
    let expected = [b"head".as_slice(), &body.concat()].concat();
    let length = expected.len();
    let reader = tokio::spawn(async move {
        let mut read = vec![0; length];
        socket.read_exact(&mut read).await.unwrap();
        (read, socket)
    });
    connection.send(b"head", &body).await.unwrap();
    let (read, _socket) = reader.await.unwrap();
    assert!(read == expected);
}

#[tokio::test]
async fn one_exchange_at_a_time() {
    let (mut connection, mut socket) = pair().await;
    exchange(
        &mut connection,
        &mut socket,
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    )
    .await;
    let refused = connection.send(QUESTION, &[]).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
}

#[tokio::test]
async fn payload_that_came_with_the_head_needs_no_read() {
    let mut connection = answered(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").await;
    assert!(!connection.received_any());
    let head = connection.read_head(LIMITS).await.unwrap();
    assert_eq!(head.status, 200);
    assert!(connection.received_any() && !connection.body_is_done() && !connection.reusable());
    assert_eq!(connection.content_length(), Some(5));
    assert_eq!(
        connection.buffered_body().unwrap().as_deref(),
        Some(b"hello".as_slice())
    );
    assert!(connection.body_is_done() && connection.reusable());
    assert!(connection.buffered_body().unwrap().is_none());
    assert!(connection.read_body().await.unwrap().is_none());
}

#[tokio::test]
async fn the_chunks_of_one_read_come_as_one_piece() {
    let (mut connection, mut socket) = pair().await;
    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    connection.send(QUESTION, &[]).await.unwrap();
    socket.write_all(head).await.unwrap();
    connection.read_head(LIMITS).await.unwrap();
    assert!(connection.buffered_body().unwrap().is_none());
    socket
        .write_all(b"3\r\none\r\n3\r\ntwo\r\n5\r\nthree\r\n1\r\n")
        .await
        .unwrap();
    assert_eq!(
        connection.read_body().await.unwrap().unwrap(),
        "onetwothree"
    );
    socket.write_all(b"!\r\n0\r\n\r\n").await.unwrap();
    assert_eq!(connection.read_body().await.unwrap().unwrap(), "!");
    assert!(connection.body_is_done() && connection.reusable());
}

#[tokio::test]
async fn a_large_answer_arrives_whole() {
    let body: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    for chunked in [false, true] {
        let (mut connection, mut socket) = pair().await;
        let answer = if chunked {
            let chunks = body.chunks(1000).flat_map(|chunk| {
                [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat()
            });
            let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            head.iter()
                .copied()
                .chain(chunks)
                .chain(*b"0\r\n\r\n")
                .collect()
        } else {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            [head.as_bytes(), &body].concat()
        };
        connection.send(QUESTION, &[]).await.unwrap();
        let writer = tokio::spawn(async move {
            socket.write_all(&answer).await.unwrap();
            socket
        });
        connection.read_head(LIMITS).await.unwrap();
        assert!(rest(&mut connection).await.unwrap() == body);
        assert!(connection.reusable());
        writer.await.unwrap();
    }
}

#[tokio::test]
async fn payload_before_a_broken_chunk_is_handed_out_before_the_error() {
    let mut connection =
        answered(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\nx").await;
    connection.read_head(LIMITS).await.unwrap();
    assert_eq!(connection.buffered_body().unwrap().unwrap(), "one");
    assert!(matches!(
        connection.buffered_body(),
        Err(ReadError::Malformed(_))
    ));
    assert!(matches!(
        connection.read_body().await,
        Err(ReadError::Malformed(_))
    ));
    assert!(!connection.reusable());
}

#[tokio::test]
async fn an_answer_to_head_has_no_body() {
    let (mut connection, mut socket) = pair().await;
    connection.expect(RequestKind::Head);
    let body = exchange(
        &mut connection,
        &mut socket,
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
    )
    .await;
    assert!(body.is_empty() && connection.reusable());
    assert_eq!(connection.content_length(), Some(5));
}

#[tokio::test]
async fn an_answer_without_length_runs_until_the_close_and_is_not_reusable() {
    let (mut connection, mut socket) = pair().await;
    connection.send(QUESTION, &[]).await.unwrap();
    socket.read_exact(&mut [0; QUESTION.len()]).await.unwrap();
    socket
        .write_all(b"HTTP/1.1 200 OK\r\n\r\nhello")
        .await
        .unwrap();
    drop(socket);
    connection.read_head(LIMITS).await.unwrap();
    assert_eq!(rest(&mut connection).await.unwrap(), b"hello");
    assert!(connection.body_is_done() && !connection.reusable());
}

#[tokio::test]
async fn interim_answers_are_skipped_and_101_is_refused() {
    let mut connection =
        answered(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(connection.read_head(LIMITS).await.unwrap().status, 204);
    assert!(connection.reusable());
    let mut connection = answered(b"HTTP/1.1 101 Switching Protocols\r\n\r\n").await;
    assert!(matches!(
        connection.read_head(LIMITS).await,
        Err(ReadError::Malformed(_))
    ));
    assert!(!connection.reusable());
}

#[tokio::test]
async fn bytes_after_the_end_make_a_connection_unfit() {
    let mut connection =
        answered(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n").await;
    connection.read_head(LIMITS).await.unwrap();
    assert_eq!(rest(&mut connection).await.unwrap(), b"ok");
    assert!(connection.body_is_done() && !connection.reusable());
}

#[tokio::test]
async fn a_head_over_the_limit_is_too_large() {
    let mut connection = answered(b"HTTP/1.1 200 OK\r\nServer: uvicorn\r\n\r\n").await;
    let limits = HeadLimits {
        bytes: 20,
        ..LIMITS
    };
    assert!(matches!(
        connection.read_head(limits).await,
        Err(ReadError::HeadTooLarge)
    ));
}

#[tokio::test]
async fn a_close_without_an_answer_is_told_from_one_in_the_middle() {
    let (mut connection, mut socket) = pair().await;
    connection.send(QUESTION, &[]).await.unwrap();
    socket.read_exact(&mut [0; QUESTION.len()]).await.unwrap();
    drop(socket);
    assert!(matches!(
        connection.read_head(LIMITS).await,
        Err(ReadError::Closed)
    ));
    assert!(!connection.received_any());

    let mut connection = answered(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell").await;
    connection.read_head(LIMITS).await.unwrap();
    assert_eq!(connection.read_body().await.unwrap().unwrap(), "hell");
    assert!(matches!(
        connection.read_body().await,
        Err(ReadError::Closed)
    ));
    assert!(connection.received_any() && !connection.reusable());
}

#[tokio::test]
async fn a_reset_is_told_from_a_close() {
    let (mut connection, socket) = pair().await;
    connection.send(QUESTION, &[]).await.unwrap();
    socket2::SockRef::from(&socket)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(socket);
    assert!(matches!(
        connection.read_head(LIMITS).await,
        Err(ReadError::Reset)
    ));
}

/// More than the buffers of two sockets take.
fn large_body() -> Vec<Bytes> {
    vec![Bytes::from(vec![b'x'; 64 * 1024]); 256]
}

#[tokio::test]
async fn an_answer_before_the_request_was_read_is_found_after_the_write_failed() {
    let (mut connection, mut socket) = pair().await;
    let answering = tokio::spawn(async move {
        socket.read_exact(&mut [0; 1000]).await.unwrap();
        socket
            .write_all(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig")
            .await
            .unwrap();
        // Closing with bytes unread resets the connection.
    });
    assert!(connection.send(QUESTION, &large_body()).await.is_err());
    answering.await.unwrap();
    assert_eq!(connection.read_head(LIMITS).await.unwrap().status, 413);
    assert_eq!(rest(&mut connection).await.unwrap(), b"big");
    assert!(!connection.reusable());
}

#[tokio::test]
async fn an_answer_of_a_peer_that_reads_no_further_is_found_while_the_write_blocks() {
    let (mut connection, mut socket) = pair().await;
    socket
        .write_all(b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n")
        .await
        .unwrap();
    let sent = timeout(
        Duration::from_secs(10),
        connection.send(QUESTION, &large_body()),
    )
    .await;
    assert!(sent.unwrap().is_err());
    assert_eq!(connection.read_head(LIMITS).await.unwrap().status, 429);
    assert!(
        connection.body_is_done() && !connection.reusable(),
        "half a request was sent"
    );
}

#[tokio::test]
async fn an_interim_answer_does_not_stop_a_request() {
    let (mut connection, mut socket) = pair().await;
    let body = large_body();
    let length = QUESTION.len() + body.iter().map(Bytes::len).sum::<usize>();
    let answering = tokio::spawn(async move {
        socket
            .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        let mut read = vec![0; length];
        socket.read_exact(&mut read).await.unwrap();
        socket
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            .await
            .unwrap();
        socket
    });
    connection.send(QUESTION, &body).await.unwrap();
    assert_eq!(connection.read_head(LIMITS).await.unwrap().status, 200);
    assert!(connection.reusable());
    answering.await.unwrap();
}

#[tokio::test]
async fn a_send_that_was_dropped_leaves_nothing_to_reuse() {
    let (mut connection, mut socket) = pair().await;
    let body = large_body();
    assert!(
        timeout(Duration::from_millis(50), connection.send(QUESTION, &body))
            .await
            .is_err()
    );
    socket
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(connection.read_head(LIMITS).await.unwrap().status, 200);
    assert!(connection.body_is_done() && !connection.reusable());
}

#[tokio::test]
async fn a_read_that_was_dropped_loses_nothing() {
    let (mut connection, mut socket) = pair().await;
    connection.send(QUESTION, &[]).await.unwrap();
    let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let writer = tokio::spawn(async move {
        for byte in answer {
            socket.write_all(&[*byte]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        socket
    });
    let head = loop {
        if let Ok(head) = timeout(Duration::from_millis(2), connection.read_head(LIMITS)).await {
            break head.unwrap();
        }
    };
    assert_eq!(head.status, 200);
    let mut body = Vec::new();
    loop {
        match timeout(Duration::from_millis(2), connection.read_body()).await {
            Err(_) => {}
            Ok(Ok(Some(piece))) => body.extend_from_slice(&piece),
            Ok(end) => break assert!(end.unwrap().is_none()),
        }
    }
    assert_eq!(body, b"hello");
    assert!(connection.reusable());
    writer.await.unwrap();
}

#[tokio::test]
async fn dropping_a_connection_closes_it() {
    let (connection, mut socket) = pair().await;
    drop(connection);
    assert_eq!(socket.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_works_on_whichever_task_it_is() {
    let (mut connection, mut socket) = pair().await;
    let question = Arc::new(QUESTION.to_vec());
    for _ in 0..20 {
        let question = Arc::clone(&question);
        connection = tokio::spawn(async move {
            connection.send(&question, &[]).await.unwrap();
            connection
        })
        .await
        .unwrap();
        let reading = tokio::spawn(async move {
            connection.read_head(LIMITS).await.unwrap();
            assert_eq!(rest(&mut connection).await.unwrap(), b"ok");
            connection
        });
        socket.read_exact(&mut [0; QUESTION.len()]).await.unwrap();
        socket
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
            .await
            .unwrap();
        tokio::task::yield_now().await;
        socket.write_all(b"ok").await.unwrap();
        connection = reading.await.unwrap();
        connection.renew();
    }
}

#[tokio::test]
async fn what_is_lent_is_the_body_and_then_its_end() {
    let (mut connection, mut socket) = pair().await;
    connection.send(QUESTION, &[]).await.unwrap();
    socket.read_exact(&mut [0; QUESTION.len()]).await.unwrap();
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n";
    socket.write_all(head.as_bytes()).await.unwrap();
    connection.read_head(LIMITS).await.unwrap();
    let mut come = String::new();
    let mut lasts = Vec::new();
    let wires = [
        "3\r\ncde\r\n2\r\nfg\r\n",
        "1\r\nh",
        "\r\n",
        "1\r\ni\r\n0\r\n\r\n",
    ];
    let mut wires = wires.into_iter();
    loop {
        let came = poll_fn(|cx| {
            let take = |lent: Lent<'_>, is_last| {
                (
                    String::from_utf8_lossy(lent.payload()).into_owned(),
                    is_last,
                )
            };
            connection.poll_lend(cx, take).map(Result::unwrap)
        });
        // All payload that was written has come before more of it is.
        match came.await {
            Came::Kept(piece) => come.push_str(std::str::from_utf8(&piece).unwrap()),
            Came::Taken((piece, is_last)) => {
                come.push_str(&piece);
                lasts.push(is_last);
            }
            Came::End => break,
        }
        let next = match come.as_str() {
            "ab" | "abcdefg" => 1,
            "abcdefgh" => 2,
            _ => 0,
        };
        for wire in wires.by_ref().take(next) {
            socket.write_all(wire.as_bytes()).await.unwrap();
        }
    }
    assert_eq!(come, "abcdefghi");
    assert_eq!(lasts.last(), Some(&true));
    assert!(lasts[..lasts.len() - 1].iter().all(|last| !last));
    assert!(connection.reusable());
}

#[tokio::test]
async fn what_has_come_can_be_waited_for_and_is_read_then() {
    let (mut connection, mut socket) = pair().await;
    connection.send(QUESTION, &[]).await.unwrap();
    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    socket.write_all(head).await.unwrap();
    connection.read_head(LIMITS).await.unwrap();
    let nothing = timeout(Duration::from_millis(10), connection.readable());
    assert!(nothing.await.is_err());
    socket.write_all(b"3\r\none\r\n").await.unwrap();
    assert!(connection.readable().await && connection.readable().await);
    assert_eq!(connection.read_body().await.unwrap().unwrap(), "one");
    // The last of it, and then its end.
    socket.write_all(b"3\r\ntwo\r\n0\r\n\r\n").await.unwrap();
    assert!(connection.readable().await);
    assert_eq!(rest(&mut connection).await.unwrap(), b"two");
    assert!(!connection.readable().await);
    let (mut connection, mut socket) = pair().await;
    connection.send(QUESTION, &[]).await.unwrap();
    socket.write_all(head).await.unwrap();
    connection.read_head(LIMITS).await.unwrap();
    drop(socket);
    assert!(!connection.readable().await);
    assert!(rest(&mut connection).await.is_err());
}
