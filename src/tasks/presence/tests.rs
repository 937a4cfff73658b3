use tokio::net::TcpListener;

use super::*;
use crate::config::{Config, Engine};
use crate::pool::testing::config;
use crate::snapshot::{Resolved, Snapshot};

fn endpoint(config: Config) -> Arc<EndpointState> {
    let build = Snapshot::build(Arc::new(config), &Resolved::default(), None);
    let (snapshot, _) = build.unwrap();
    Arc::clone(snapshot.endpoints().next().unwrap())
}

async fn listener() -> (TcpListener, Config) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = listener.local_addr().unwrap().to_string();
    let config = config(&[&url]);
    (listener, config)
}

#[tokio::test]
async fn a_connection_is_kept_to_engines_that_are_known() {
    let (listener, mut config) = listener().await;
    config.pools[0].engine = Some(Engine::OpenAi);
    let other = tokio::spawn(watch(endpoint(config.clone())));
    let none = tokio::time::timeout(EVERY * 2, listener.accept()).await;
    assert!(none.is_err());
    other.abort();
    config.pools[0].engine = Some(Engine::Vllm);
    let endpoint = endpoint(config);
    let known = tokio::spawn(watch(Arc::clone(&endpoint)));
    let (first, _) = listener.accept().await.unwrap();
    // One that does not want it is not asked again at once.
    let began = Instant::now();
    drop(first);
    let (second, _) = listener.accept().await.unwrap();
    assert!(began.elapsed() >= EVERY / 2, "{:?}", began.elapsed());
    assert!(endpoint.is_up());
    drop((listener, second));
    while endpoint.is_up() {
        tokio::time::sleep(EVERY / 10).await;
    }
    assert!(endpoint.is_refusing());
    known.abort();
}
