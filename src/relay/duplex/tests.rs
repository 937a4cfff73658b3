use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex, split};
use tokio::task::JoinHandle;

use super::*;

const PATIENCE: Patience = Patience {
    silence: Duration::from_secs(300),
    client: Duration::from_secs(20),
    engine: Duration::from_secs(10),
};
/// Of each connection, as a socket's buffers.
const ROOM: usize = 256;

/// How a relay ended, and what went up and down.
type Ended = (Over, u64, u64);

fn relay(up: Way, down: Way) -> (DuplexStream, DuplexStream, JoinHandle<Ended>) {
    let (client, mut our_client) = duplex(ROOM);
    let (engine, mut our_engine) = duplex(ROOM);
    let relayed = tokio::spawn(async move {
        let (mut up, mut down) = (up, down);
        let (client, engine) = (&mut our_client, &mut our_engine);
        let over = run(client, engine, &mut up, &mut down, PATIENCE, |_| ()).await;
        (over, up.bytes, down.bytes)
    });
    (client, engine, relayed)
}

fn fresh() -> (DuplexStream, DuplexStream, JoinHandle<Ended>) {
    relay(Way::default(), Way::default())
}

#[tokio::test]
async fn what_was_read_before_goes_first() {
    let up = Way::new(Bytes::from_static(b"1"));
    let down = Way::new(Bytes::from_static(b"a"));
    let (mut client, mut engine, relayed) = relay(up, down);
    client.write_all(b"23").await.unwrap();
    engine.write_all(b"bc").await.unwrap();
    let mut three = [0; 3];
    engine.read_exact(&mut three).await.unwrap();
    assert_eq!(&three, b"123");
    client.read_exact(&mut three).await.unwrap();
    assert_eq!(&three, b"abc");
    drop(client);
    let (over, up, down) = relayed.await.unwrap();
    assert!(matches!(over, Over::ClientEnded), "{over:?}");
    assert_eq!((up, down), (3, 3));
}

#[tokio::test]
async fn neither_way_waits_for_the_other() {
    const BYTES: usize = 1 << 20;
    let (client, engine, relayed) = fresh();
    // Both write all of it before they read any, with room for next to nothing in between.
    let talk = |stream: DuplexStream| async move {
        let (mut reader, mut writer) = split(stream);
        let writing = tokio::spawn(async move {
            writer.write_all(&vec![b'x'; BYTES]).await.unwrap();
            writer
        });
        let mut got = vec![0; BYTES];
        reader.read_exact(&mut got).await.unwrap();
        (reader, writing.await.unwrap())
    };
    let (_client, engine) = tokio::join!(talk(client), talk(engine));
    drop(engine);
    let (over, up, down) = relayed.await.unwrap();
    assert!(matches!(over, Over::EngineEnded), "{over:?}");
    assert_eq!((up, down), (BYTES as u64, BYTES as u64));
}

#[tokio::test]
async fn whoever_ends_the_other_has_all_that_came_before() {
    let sent = vec![b'y'; 100 * ROOM];
    let (mut client, mut engine, relayed) = fresh();
    let reading = tokio::spawn(async move {
        let mut all = Vec::new();
        engine.read_to_end(&mut all).await.unwrap();
        all
    });
    client.write_all(&sent).await.unwrap();
    client.shutdown().await.unwrap();
    assert!(matches!(relayed.await.unwrap().0, Over::ClientEnded));
    assert_eq!(reading.await.unwrap(), sent);

    let (_client, _engine, relayed) = relay(Way::default().ended(), Way::default());
    assert!(matches!(relayed.await.unwrap().0, Over::ClientEnded));
}

#[tokio::test(start_paused = true)]
async fn silence_is_counted_from_the_last_byte_of_either() {
    let (mut client, mut engine, relayed) = fresh();
    let begun = Instant::now();
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(250)).await;
        client.write_all(b"x").await.unwrap();
        engine.read_u8().await.unwrap();
        tokio::time::sleep(Duration::from_secs(250)).await;
        engine.write_all(b"y").await.unwrap();
        client.read_u8().await.unwrap();
    }
    let (over, ..) = relayed.await.unwrap();
    assert!(matches!(over, Over::Silent), "{over:?}");
    assert_eq!(begun.elapsed().as_secs(), 6 * 250 + 300);
}

#[tokio::test(start_paused = true)]
async fn who_takes_nothing_is_given_up() {
    let (_client, mut engine, relayed) = fresh();
    let begun = Instant::now();
    let flood = tokio::spawn(async move { engine.write_all(&vec![0; 1 << 20]).await });
    let (over, up, down) = relayed.await.unwrap();
    assert!(matches!(over, Over::ClientFull), "{over:?}");
    assert_eq!((up, down), (0, ROOM as u64));
    assert_eq!(begun.elapsed().as_secs(), PATIENCE.client.as_secs());
    flood.await.unwrap().unwrap_err();

    let (mut client, _engine, relayed) = fresh();
    let begun = Instant::now();
    let flood = tokio::spawn(async move { client.write_all(&vec![0; 1 << 20]).await });
    let (over, ..) = relayed.await.unwrap();
    assert!(matches!(over, Over::EngineFull), "{over:?}");
    assert_eq!(begun.elapsed().as_secs(), PATIENCE.engine.as_secs());
    flood.await.unwrap().unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_is_given_time_for_each_piece_anew() {
    let (mut client, mut engine, relayed) = fresh();
    let flood = tokio::spawn(async move {
        engine.write_all(&vec![0; 10 * ROOM]).await.unwrap();
        engine
    });
    let mut piece = [0; ROOM];
    for _ in 0..10 {
        tokio::time::sleep(PATIENCE.client - Duration::from_secs(1)).await;
        client.read_exact(&mut piece).await.unwrap();
    }
    drop(flood.await.unwrap());
    let (over, _, down) = relayed.await.unwrap();
    assert!(matches!(over, Over::EngineEnded), "{over:?}");
    assert_eq!(down, 10 * ROOM as u64);
}

/// A connection that was reset.
struct Broken;

impl AsyncRead for Broken {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
    }
}

impl AsyncWrite for Broken {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn a_reset_is_of_the_side_that_it_came_from() {
    let (mut whole, _peer) = duplex(ROOM);
    for first in [Bytes::new(), Bytes::from_static(b"x")] {
        let (mut up, mut down) = (Way::new(first.clone()), Way::new(first));
        let over = run(
            &mut Broken,
            &mut whole,
            &mut up,
            &mut down,
            PATIENCE,
            |_| (),
        )
        .await;
        assert!(matches!(over, Over::ClientLost(_)), "{over:?}");
        let over = run(
            &mut whole,
            &mut Broken,
            &mut up,
            &mut down,
            PATIENCE,
            |_| (),
        )
        .await;
        assert!(matches!(over, Over::EngineLost(_)), "{over:?}");
    }
}
