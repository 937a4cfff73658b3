//! One request of OTLP over HTTP, on the gateway's own upstream leg
//! (<https://opentelemetry.io/docs/specs/otlp/#otlphttp>).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use tokio::time::{Instant, timeout};

use super::otlp::Response;
use crate::config::OtlpUrl;
use crate::upstream::{
    Address, Connection, HeadLimits, IdlePool, ReadError, RequestHead, ResponseHead, Target,
    TlsClient, TlsError,
};

/// One request, look-up and connect included (`OTEL_EXPORTER_OTLP_TIMEOUT`).
const LIMIT: Duration = Duration::from_secs(10);
/// How long a connection waits for the next batch. Go's receivers close theirs after minutes.
const IDLE: Duration = Duration::from_secs(30);
/// More of an answer is not looked at.
const ANSWER: usize = 64 * 1024;

/// A receiver of spans.
pub(super) struct Receiver {
    url: OtlpUrl,
    tls: Option<Arc<TlsClient>>,
    idle: IdlePool,
}

/// What became of a batch.
#[derive(Debug)]
pub(super) enum Posted {
    Taken,
    /// Some of its spans are lost for good.
    TakenInPart {
        rejected: u64,
        why: String,
    },
    /// Another try may help.
    Busy {
        after: Option<Duration>,
        why: String,
    },
    /// No other try would help.
    Refused {
        why: String,
    },
}

impl Receiver {
    /// Reads the system's roots where the receiver is reached over TLS.
    pub(super) fn new(url: OtlpUrl) -> Result<Self, TlsError> {
        let tls = match url.tls {
            true => Some(Arc::new(TlsClient::new(&url.host, None, true)?)),
            false => None,
        };
        Ok(Self {
            url,
            tls,
            idle: IdlePool::new(),
        })
    }

    pub(super) fn url(&self) -> &OtlpUrl {
        &self.url
    }

    pub(super) async fn post(&self, body: &Bytes) -> Posted {
        match timeout(LIMIT, self.exchange(body)).await {
            Ok(Ok((head, answer))) => judge(&head, &answer),
            Ok(Err(why)) => Posted::Busy { after: None, why },
            Err(_elapsed) => Posted::Busy {
                after: None,
                why: format!("no answer within {} s", LIMIT.as_secs()),
            },
        }
    }

    async fn exchange(&self, body: &Bytes) -> Result<(ResponseHead, Vec<u8>), String> {
        if let Some(connection) = self.idle.take(Instant::now(), IDLE)
            && let Ok(answer) = self.ask(connection, body).await
        {
            // On one that has died in the meantime a fresh one is tried.
            return Ok(answer);
        }
        let connection = self.connect().await?;
        self.ask(connection, body).await.map_err(|e| e.to_string())
    }

    async fn connect(&self) -> Result<Connection, String> {
        let name = (self.url.host.as_str(), self.url.port);
        let addresses = tokio::net::lookup_host(name)
            .await
            .map_err(|e| format!("{} does not resolve: {e}", self.url.host))?;
        let mut why = format!("{} has no address", self.url.host);
        for address in addresses {
            let target = Target {
                address: Address::Tcp(address),
                authority: self.url.authority(),
                tls: self.tls.clone(),
            };
            match Connection::connect(&target, LIMIT).await {
                Ok(connection) => return Ok(connection),
                Err(e) => why = e.to_string(),
            }
        }
        Err(why)
    }

    async fn ask(
        &self,
        mut connection: Connection,
        body: &Bytes,
    ) -> Result<(ResponseHead, Vec<u8>), ReadError> {
        let head = self.head(body.len()).map_err(|_| {
            // The configuration lets no such URL through.
            ReadError::Malformed("the receiver's URL cannot be asked for")
        })?;
        // A receiver that refuses early makes the sending fail, and its answer tells why.
        let _ = connection.send(&head, std::slice::from_ref(body)).await;
        let head = connection.read_head(HeadLimits::default()).await?;
        let mut answer = Vec::new();
        while let Some(piece) = connection.read_body().await? {
            if answer.len() + piece.len() > ANSWER {
                return Ok((head, answer));
            }
            answer.extend_from_slice(&piece);
        }
        self.idle.put(connection, Instant::now(), 1);
        Ok((head, answer))
    }

    fn head(&self, length: usize) -> Result<Vec<u8>, crate::upstream::HeadError> {
        let mut head = RequestHead::start(Vec::new(), "POST", self.url.path.as_bytes())?;
        head.field("Host", self.url.authority())?;
        head.field(
            "User-Agent",
            concat!("sluicegate/", env!("CARGO_PKG_VERSION")),
        )?;
        head.field("Content-Type", "application/x-protobuf")?;
        Ok(head.finish(Some(length as u64)))
    }
}

/// By OTLP's own list of what may be sent again; everything else may not.
fn judge(head: &ResponseHead, answer: &[u8]) -> Posted {
    match head.status {
        200..=299 => match partial(head, answer) {
            Some((rejected, why)) => Posted::TakenInPart { rejected, why },
            None => Posted::Taken,
        },
        status @ (429 | 502 | 503 | 504) => Posted::Busy {
            after: head.get("retry-after").and_then(seconds),
            why: format!("status {status}"),
        },
        status => Posted::Refused {
            why: format!("status {status}"),
        },
    }
}

/// Spans that a receiver did not want although it took the batch, and why.
fn partial(head: &ResponseHead, answer: &[u8]) -> Option<(u64, String)> {
    let is_protobuf = |value: &[u8]| value.starts_with(b"application/x-protobuf");
    let partial = head
        .get("content-type")
        .filter(|value| is_protobuf(value))
        .and_then(|_| Response::decode(answer).ok())?
        .partial_success?;
    let rejected = u64::try_from(partial.rejected_spans).ok()?;
    (rejected > 0).then_some((rejected, partial.error_message))
}

/// `Retry-After` in seconds; a date is not looked at.
fn seconds(value: &[u8]) -> Option<Duration> {
    let text = std::str::from_utf8(value).ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}
