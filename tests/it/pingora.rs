//! What the gateway relies on in Pingora without its documentation saying so, each by itself, against
//! Pingora alone. To be run at each change of its version.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use pingora::Result;
use pingora::apps::ServerApp;
use pingora::http::ResponseHeader;
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::server::configuration::ServerConf;
use pingora::upstreams::peer::HttpPeer;
use pingora_proxy::{HttpProxy, ProxyHttp, Session, http_proxy};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};

use crate::support::{Client, End, Request, get, post, within};

/// A service of which `request_filter` does everything, as ours does.
struct Service {
    gate: Arc<Notify>,
}

#[async_trait]
impl ProxyHttp for Service {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn early_request_filter(&self, session: &mut Session, (): &mut ()) -> Result<()> {
        session.set_pipelining_enabled(true);
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, (): &mut ()) -> Result<bool> {
        let path = session.req_header().uri.path().to_owned();
        if let Some(length) = path.strip_prefix("/short/") {
            session
                .req_header_mut()
                .insert_header("content-length", length)?;
        }
        let downstream = session.as_downstream_mut();
        let mut body = Vec::new();
        while let Some(piece) = downstream.read_request_body().await? {
            body.extend_from_slice(&piece);
        }
        match path.as_str() {
            "/echo" => {
                whole(session, body.into()).await?;
            }
            path if path.starts_with("/short/") => {
                assert!(downstream.is_body_done());
                let ServerSession::H1(h1) = downstream else {
                    unreachable!("these clients speak HTTP/1");
                };
                // The rest is behind the session's back, on the stream that is its own.
                let stream = (**h1.stream()).as_any();
                assert!(stream.is::<pingora::protocols::l4::stream::Stream>());
                whole(session, body.into()).await?;
            }
            "/events" | "/cut" => {
                let mut head = ResponseHeader::build(200, None)?;
                head.insert_header("transfer-encoding", "chunked")?;
                downstream.write_response_header(Box::new(head)).await?;
                for event in ["one", "two", "three"] {
                    self.gate.notified().await;
                    downstream.write_response_body(event.into(), false).await?;
                }
                if path == "/cut" {
                    return pingora::Error::e_explain(pingora::ErrorType::ConnectionClosed, "cut");
                }
            }
            _ => {
                // Watches for a client that leaves, again and again, each time giving the watch up.
                for _ in 0..50 {
                    tokio::select! {
                        biased;
                        () = tokio::time::sleep(Duration::from_millis(1)) => {}
                        left = downstream.read_body_or_idle(true) => {
                            left?;
                            unreachable!("bytes of the next request are no end");
                        }
                    }
                }
                whole(session, "waited".into()).await?;
            }
        }
        Ok(true)
    }

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> Result<Box<HttpPeer>> {
        unreachable!("request_filter answers everything")
    }

    fn suppress_error_log(&self, _: &Session, (): &(), _: &pingora::Error) -> bool {
        true
    }
}

async fn whole(session: &mut Session, body: Bytes) -> Result<()> {
    let mut head = ResponseHeader::build(200, None)?;
    head.insert_header("content-length", body.len())?;
    let downstream = session.as_downstream_mut();
    downstream.write_response_header(Box::new(head)).await?;
    downstream.write_response_body(body, true).await
}

struct Listening {
    address: SocketAddr,
    gate: Arc<Notify>,
    _end: watch::Sender<bool>,
}

async fn listen() -> Listening {
    let gate = Arc::new(Notify::new());
    let service = Service {
        gate: Arc::clone(&gate),
    };
    let proxy = Arc::new(http_proxy(&Arc::new(ServerConf::default()), service));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (end, shutdown) = watch::channel(false);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(serve(Arc::clone(&proxy), socket, shutdown.clone()));
        }
    });
    Listening {
        address,
        gate,
        _end: end,
    }
}

async fn serve(
    proxy: Arc<HttpProxy<Service>>,
    socket: tokio::net::TcpStream,
    shutdown: watch::Receiver<bool>,
) {
    let mut stream: Stream = Box::new(pingora::protocols::l4::stream::Stream::from(socket));
    while let Some(next) = proxy.process_new(stream, &shutdown).await {
        stream = next;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_answer_and_ok_true_keep_the_connection() {
    let service = listen().await;
    let mut client = Client::connect(service.address).await;
    for n in 0..5 {
        let body = "x".repeat(n * 1000);
        let answer = client.ask(&post("/echo", body.clone())).await;
        assert_eq!((answer.status, answer.text()), (200, body.as_str()));
        assert!(answer.keeps_alive());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ok_true_writes_the_last_chunk_and_keeps_the_connection() {
    let service = listen().await;
    let mut client = Client::connect(service.address).await;
    for _ in 0..2 {
        client.send(get("/events").bytes()).await;
        for _ in 0..3 {
            service.gate.notify_one();
            tokio::task::yield_now().await;
        }
        client.head().await;
        let mut rest = Vec::new();
        // A gate opened twice before it was reached opens once.
        loop {
            service.gate.notify_one();
            match client.piece().await.unwrap() {
                Some(piece) => rest.extend(piece),
                None => break,
            }
        }
        assert_eq!(rest, b"onetwothree");
    }
    assert_eq!(client.ask(&post("/echo", "well")).await.text(), "well");
}

/// The length is read from the head when the body is first asked for, not before, and what came beyond it
/// is taken for the next request: the reader must be told at least as much as it has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_reads_as_much_of_a_body_as_its_head_says_when_it_is_first_asked() {
    let service = listen().await;
    for told in [0, 3] {
        let mut client = Client::connect(service.address).await;
        let rest = get("/echo").bytes();
        let body = [&b"abc"[..told], &rest].concat();
        let request = post(&format!("/short/{told}"), body);
        client.send(request.bytes()).await;
        assert_eq!(client.answer().await.body.len(), told);
        assert_eq!(client.answer().await.status, 200, "what followed was read");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_chunk_is_flushed_by_itself_and_so_is_a_head_without_a_length() {
    let service = listen().await;
    let mut client = Client::connect(service.address).await;
    client.send(get("/events").bytes()).await;
    assert_eq!(
        client.head().await.field("transfer-encoding"),
        Some("chunked")
    );
    for event in ["one", "two", "three"] {
        service.gate.notify_one();
        assert_eq!(client.piece().await, Ok(Some(event.into())));
    }
    assert_eq!(client.rest().await, (Vec::new(), End::Framed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_after_chunks_writes_no_last_chunk() {
    let service = listen().await;
    let mut client = Client::connect(service.address).await;
    client.send(get("/cut").bytes()).await;
    client.head().await;
    for event in ["one", "two", "three"] {
        service.gate.notify_one();
        assert_eq!(client.piece().await, Ok(Some(event.into())));
    }
    assert_eq!(client.rest().await, (Vec::new(), End::Closed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_for_the_client_that_is_given_up_loses_no_byte_of_the_next_request() {
    let service = listen().await;
    let mut client = Client::connect(service.address).await;
    client.send(get("/wait").bytes()).await;
    // Byte by byte, while the watch is begun and given up.
    for byte in post("/echo", "the next request").bytes() {
        client.send([byte]).await;
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    let waited: Request = get("/wait");
    assert_eq!(client.answer_to(&waited).await.text(), "waited");
    assert_eq!(client.answer().await.text(), "the next request");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_for_the_client_sees_it_leave() {
    let service = listen().await;
    let mut client = Client::connect(service.address).await;
    client.send(get("/wait").bytes()).await;
    client.half_close().await;
    let begun = std::time::Instant::now();
    assert!(matches!(
        within("the end", client.rest_of_connection()).await,
        End::Closed | End::Reset
    ));
    assert!(
        begun.elapsed() < Duration::from_millis(45),
        "{:?}",
        begun.elapsed()
    );
}
