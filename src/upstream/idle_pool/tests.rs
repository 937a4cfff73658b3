use tokio::time::Instant as Clock;

use super::*;
use crate::upstream::connection::tests::{exchange, peer};
use crate::upstream::{Connection, HeadLimits};

const IDLE: Duration = Duration::from_secs(4);
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn now() -> Instant {
    Clock::now()
}

/// Connections that have had one exchange, and the peers' ends of them.
async fn used(count: usize) -> Vec<(Connection, tokio::net::TcpStream)> {
    let (target, listener) = peer().await;
    let mut all = Vec::new();
    for _ in 0..count {
        let mut connection = Connection::connect(&target, Duration::from_secs(5))
            .await
            .unwrap();
        let (mut socket, _) = listener.accept().await.unwrap();
        exchange(&mut connection, &mut socket, OK).await;
        all.push((connection, socket));
    }
    all
}

/// Lets the reactor see what the peers did.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}

#[tokio::test]
async fn a_connection_serves_again_and_says_so() {
    let pool = IdlePool::new();
    let (connection, mut socket) = used(1).await.pop().unwrap();
    assert!(!connection.is_reused());
    pool.put(connection, now(), 8);
    assert_eq!(pool.len(), 1);
    let mut again = pool.take(now(), IDLE).unwrap();
    assert!(again.is_reused() && !again.received_any() && !again.reusable());
    assert!(pool.is_empty());
    exchange(&mut again, &mut socket, OK).await;
    assert!(again.reusable());
}

#[tokio::test]
async fn the_last_one_used_is_picked_first() {
    let pool = IdlePool::new();
    let mut sockets = Vec::new();
    for (connection, socket) in used(3).await {
        pool.put(connection, now(), 8);
        sockets.push(socket);
    }
    for socket in sockets.iter_mut().rev() {
        let mut picked = pool.take(now(), IDLE).unwrap();
        exchange(&mut picked, socket, OK).await;
    }
    assert!(pool.take(now(), IDLE).is_none());
}

#[tokio::test]
async fn beyond_the_cap_the_longest_idle_is_closed() {
    let pool = IdlePool::new();
    let mut sockets = Vec::new();
    for (connection, socket) in used(3).await {
        pool.put(connection, now(), 2);
        sockets.push(socket);
    }
    assert_eq!(pool.len(), 2);
    assert_eq!(closed(&sockets[0]).await, 0);
    let (connection, _socket) = used(1).await.pop().unwrap();
    pool.put(connection, now(), 0);
    assert_eq!(pool.len(), 2, "a cap of zero keeps nothing");
    let (connection, _socket) = used(1).await.pop().unwrap();
    pool.put(connection, now(), 1);
    assert_eq!(pool.len(), 1, "a cap that was lowered is kept at once");
}

/// Bytes before the close.
async fn closed(socket: &tokio::net::TcpStream) -> usize {
    socket.readable().await.unwrap();
    socket.try_read(&mut [0]).unwrap()
}

#[tokio::test]
async fn a_connection_is_given_out_for_less_than_its_idle_limit() {
    let pool = IdlePool::new();
    let [(first, _a), (second, _b), (third, _c)] = used(3).await.try_into().unwrap();
    tokio::time::pause();
    pool.put(first, now(), 8);
    tokio::time::advance(Duration::from_millis(3999)).await;
    pool.put(second, now(), 8);
    assert_eq!(pool.sweep(now(), IDLE), 0);
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(pool.sweep(now(), IDLE), 1, "the first is four seconds old");
    assert!(pool.take(now(), IDLE).is_some());

    pool.put(third, now(), 8);
    tokio::time::advance(IDLE).await;
    assert!(
        pool.take(now(), IDLE).is_none(),
        "take looks at the clock as well"
    );
    assert!(pool.is_empty());
}

#[tokio::test]
async fn a_connection_that_the_peer_closed_is_skipped() {
    let pool = IdlePool::new();
    let mut used = used(2).await;
    let (second, closing) = used.pop().unwrap();
    let (first, mut living) = used.pop().unwrap();
    pool.put(first, now(), 8);
    pool.put(second, now(), 8);
    drop(closing);
    settle().await;
    let mut picked = pool.take(now(), IDLE).unwrap();
    exchange(&mut picked, &mut living, OK).await;
    assert!(pool.is_empty());
}

#[tokio::test]
async fn a_connection_that_the_peer_wrote_to_is_skipped_and_swept() {
    let pool = IdlePool::new();
    let mut sockets = Vec::new();
    for (connection, socket) in used(2).await {
        socket
            .try_write(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
            .unwrap();
        pool.put(connection, now(), 8);
        sockets.push(socket);
    }
    settle().await;
    assert_eq!(pool.sweep(now(), IDLE), 2);
    let (connection, socket) = used(1).await.pop().unwrap();
    pool.put(connection, now(), 8);
    socket.try_write(b"x").unwrap();
    settle().await;
    assert!(pool.take(now(), IDLE).is_none());
}

#[tokio::test]
async fn a_connection_that_is_not_reusable_is_not_kept() {
    let pool = IdlePool::new();
    let (target, listener) = peer().await;
    let fresh = Connection::connect(&target, Duration::from_secs(5))
        .await
        .unwrap();
    pool.put(fresh, now(), 8);
    let mut closing = Connection::connect(&target, Duration::from_secs(5))
        .await
        .unwrap();
    listener.accept().await.unwrap();
    let (mut socket, _) = listener.accept().await.unwrap();
    exchange(
        &mut closing,
        &mut socket,
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    )
    .await;
    pool.put(closing, now(), 8);
    assert!(pool.is_empty());
}

#[tokio::test]
async fn clearing_closes_all() {
    let pool = IdlePool::new();
    let (connection, socket) = used(1).await.pop().unwrap();
    pool.put(connection, now(), 8);
    pool.clear();
    assert!(pool.is_empty());
    assert_eq!(closed(&socket).await, 0);
}

#[test]
fn a_pool_can_be_shared_and_a_connection_moves_between_runtimes() {
    fn shared<T: Send + Sync>(_: &T) {}
    let pool = IdlePool::new();
    shared(&pool);
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let (release, held) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let (hand_over, received) = std::sync::mpsc::channel();
        let pool = &pool;
        // The runtime where the connection is registered must go on turning its reactor.
        scope.spawn(move || {
            runtime().block_on(async {
                let (connection, socket) = used(1).await.pop().unwrap();
                pool.put(connection, now(), 8);
                hand_over.send(socket.into_std().unwrap()).unwrap();
                while held.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            });
        });
        let socket = received.recv().unwrap();
        runtime().block_on(async {
            let mut socket = tokio::net::TcpStream::from_std(socket).unwrap();
            let mut connection = pool.take(now(), IDLE).unwrap();
            connection
                .send(b"GET / HTTP/1.1\r\n\r\n", &[])
                .await
                .unwrap();
            let answer = tokio::spawn(async move {
                connection.read_head(HeadLimits::default()).await.unwrap();
                connection.read_body().await.unwrap()
            });
            tokio::io::AsyncWriteExt::write_all(&mut socket, OK)
                .await
                .unwrap();
            assert_eq!(answer.await.unwrap().as_deref(), Some(b"ok".as_slice()));
        });
        release.send(()).unwrap();
    });
}
