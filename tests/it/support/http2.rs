use std::future::poll_fn;
use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, SendStream};
use http::{Request, Response};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::{Certificate, Gateway, within};

/// An h2 connection over TLS.
pub struct H2 {
    send: SendRequest<Bytes>,
    driver: JoinHandle<()>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum H2End {
    /// END_STREAM.
    Whole,
    /// RST_STREAM.
    Reset(Reason),
}

#[derive(Debug)]
pub struct H2Answer {
    pub response: Response<()>,
    pub body: Vec<u8>,
    pub end: H2End,
}

/// A POST of JSON. `declared` adds the Content-Length.
pub fn h2_post(path: &str, body_length: usize, declared: bool) -> Request<()> {
    let mut request = Request::post(format!("https://gateway.example{path}"))
        .header("content-type", "application/json");
    if declared {
        request = request.header("content-length", body_length);
    }
    request.body(()).expect("a request")
}

impl H2 {
    pub async fn connect(gateway: &Gateway) -> Self {
        let (address, certificate) = gateway.tls.as_ref().expect("a gateway with TLS");
        Self::connect_to(*address, certificate).await
    }

    pub async fn connect_to(address: SocketAddr, certificate: &Certificate) -> Self {
        Self::with_window(address, certificate, 1 << 20).await
    }

    /// Of each stream the client takes so many bytes before it says that it has read them.
    pub async fn with_window(address: SocketAddr, certificate: &Certificate, window: u32) -> Self {
        let stream = TcpStream::connect(address).await.expect("a listener");
        stream.set_nodelay(true).expect("TCP_NODELAY");
        let name = ServerName::try_from("localhost").expect("a name");
        let connector = TlsConnector::from(certificate.client(&[b"h2"]));
        let stream = within("TLS", connector.connect(name, stream))
            .await
            .expect("a handshake");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (send, connection) = h2::client::Builder::new()
            .initial_window_size(window)
            // Streams are read one after the other: none may take the room of the others.
            .initial_connection_window_size(64 << 20)
            .handshake(stream)
            .await
            .expect("an h2 preface");
        // Its error is seen by the streams.
        let driver = tokio::spawn(async move { drop(connection.await) });
        Self { send, driver }
    }

    /// Opens a stream with this head.
    pub async fn open(
        &mut self,
        request: Request<()>,
        is_all: bool,
    ) -> (ResponseFuture, SendStream<Bytes>) {
        let ready = within("a free stream", self.send.clone().ready()).await;
        self.send = ready.expect("an open connection");
        self.send.send_request(request, is_all).expect("a stream")
    }

    pub async fn ask(&mut self, request: Request<()>, body: &[u8]) -> H2Answer {
        let (response, mut stream) = self.open(request, body.is_empty()).await;
        if !body.is_empty() {
            within("the body", send_all(&mut stream, body)).await;
        }
        answer(response).await
    }

    /// Waits until the gateway has closed the connection.
    pub async fn closed(&mut self) {
        within("the connection to close", &mut self.driver)
            .await
            .expect("no panic");
    }

    /// Closes the connection without a word.
    pub fn abort(self) {
        self.driver.abort();
    }
}

/// The whole answer, or what came of it.
pub async fn answer(response: ResponseFuture) -> H2Answer {
    let response = within("an answer", response).await.expect("a head");
    let (parts, mut stream) = response.into_parts();
    let mut body = Vec::new();
    let end = loop {
        match within("data", stream.data()).await {
            None => break H2End::Whole,
            Some(Ok(data)) => {
                // Cannot fail: it gives back what it just got.
                let _ = stream.flow_control().release_capacity(data.len());
                body.extend_from_slice(&data);
            }
            Some(Err(e)) => match e.reason() {
                Some(reason) if e.is_reset() => break H2End::Reset(reason),
                _ => panic!("the connection broke: {e}"),
            },
        }
    };
    H2Answer {
        response: Response::from_parts(parts, ()),
        body,
        end,
    }
}

async fn send_all(stream: &mut SendStream<Bytes>, mut body: &[u8]) {
    while !body.is_empty() {
        stream.reserve_capacity(body.len());
        let Some(Ok(granted)) = poll_fn(|cx| stream.poll_capacity(cx)).await else {
            // The gateway answers before it has it all; the answer tells.
            return;
        };
        let (now, later) = body.split_at(granted.min(body.len()));
        body = later;
        if stream
            .send_data(Bytes::copy_from_slice(now), body.is_empty())
            .is_err()
        {
            return;
        }
    }
}

impl H2Answer {
    pub fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        self.response
            .headers()
            .get(name)
            .map(|value| value.to_str().expect("text"))
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    pub fn code(&self) -> String {
        let body: serde_json::Value = serde_json::from_slice(&self.body).expect("JSON");
        body["error"]["code"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }
}
