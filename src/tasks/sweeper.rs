//! Closes upstream connections that have been idle for too long, or that the engine has closed.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::snapshot::SnapshotCell;

/// How often. An idle connection lives at most `keepalive.idle` and this; with the defaults 4.5 s, so
/// that it is gone before uvicorn closes its side after 5.
const EVERY: Duration = Duration::from_millis(500);

/// Sweeps every endpoint's idle connections, also of those that only draining requests still hold,
/// until `shutdown`.
pub async fn run(cell: Arc<SnapshotCell>, shutdown: impl Future<Output = ()>) {
    tokio::pin!(shutdown);
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = &mut shutdown => return,
            _ = ticks.tick() => {
                let snapshot = cell.load_full();
                let idle = snapshot.config.keepalive.idle;
                let now = Instant::now();
                for endpoint in snapshot.all_endpoints() {
                    endpoint.idle.sweep(now, idle);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::balance::RequestFacts;
    use crate::pool::testing::config;
    use crate::pool::{EndpointState, Tried};
    use crate::snapshot::{Resolved, Snapshot};
    use crate::upstream::{Connection, HeadLimits, RequestHead};

    /// Leaves one connection in the endpoint's pool.
    async fn exchange(endpoint: &EndpointState) {
        let second = Duration::from_secs(1);
        let mut connection = Connection::connect(&endpoint.target, second).await.unwrap();
        let head = RequestHead::start(Vec::new(), "GET", b"/").unwrap();
        connection.send(&head.finish(None), &[]).await.unwrap();
        connection.read_head(HeadLimits::default()).await.unwrap();
        endpoint.idle.put(connection, Instant::now(), 8);
        assert_eq!(endpoint.idle.len(), 1);
    }

    #[tokio::test]
    async fn idle_connections_are_closed_also_where_only_a_stream_holds_the_endpoint() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = listener.local_addr().unwrap().to_string();
        let engine = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await.unwrap();
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
            stream.write_all(answer).await.unwrap();
            stream.read(&mut request).await.unwrap()
        });
        let build = |config| Snapshot::build(Arc::new(config), &Resolved::default(), None);
        let (snapshot, _) = build(config(&[&url])).unwrap();
        let cell = Arc::new(SnapshotCell::new(snapshot));
        let pool = Arc::clone(cell.load().default_pool());
        let mut rng = fastrand::Rng::with_seed(1);
        let lease = pool
            .lease(
                &RequestFacts::default(),
                &Tried::new(),
                Instant::now(),
                &mut rng,
            )
            .unwrap();

        let mut other = config(&["10.0.0.1:8000"]);
        other.keepalive.idle = Duration::from_millis(20);
        cell.apply(Arc::new(other), &Resolved::default()).unwrap();
        exchange(&lease.state).await;
        run(Arc::clone(&cell), async {
            // The engine sees the end.
            assert_eq!(engine.await.unwrap(), 0);
        })
        .await;
        assert_eq!(lease.state.idle.len(), 0);
    }
}
