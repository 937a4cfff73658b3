//! One answer, read by our decoder and by hyper's client.
//!
//! Whatever we accept, hyper must read in the same way: the same status, fields and payload, and the
//! same judgement of whether it is complete. Where we refuse what hyper takes, the rule must be one
//! of those on which we mean to be stricter.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::rt::{Read, ReadBufCursor, Write};

use super::decoder::{Decoder, Event, HeadLimits, MAX_FIELDS, RequestKind};
use super::error::DecodeError;

/// The rules that we enforce and hyper does not. README.md says why, one by one.
pub const STRICTER: &[&str] = &[
    "not an answer of HTTP/1",
    "line of the head not ended by CRLF",
    "101 that nobody asked for",
    "too many interim answers",
    "more than one Content-Length",
    "Content-Length that is not one number",
    "Transfer-Encoding other than chunked",
    "Transfer-Encoding together with Content-Length",
    "Transfer-Encoding in an HTTP/1.0 answer",
    "chunk size with a byte that is no hex digit",
    "chunk size with too many digits",
    "control character in a chunk extension",
    "chunk extension too long",
    "trailer section too long",
    "trailer name that is not a token",
    "control character in a trailer",
];

/// An answer as far as it could be read.
#[derive(Debug, Default, PartialEq)]
struct Reading {
    head: Option<(u16, Vec<Field>)>,
    payload: Vec<u8>,
    complete: bool,
}

/// Name in lower case, and value.
type Field = (Vec<u8>, Vec<u8>);

/// What the two do not agree on, if anything. `text` is all that the peer sends before it closes.
pub fn disagreement(request: RequestKind, text: &[u8]) -> Option<String> {
    let (ours, failure) = read(request, [text]);
    let bytewise = read(request, text.chunks(1));
    if (&ours, &failure) != (&bytewise.0, &bytewise.1) {
        return Some(format!(
            "whole: {ours:?} {failure:?}; byte by byte: {bytewise:?}"
        ));
    }
    let theirs = read_with_hyper(request, text);
    let agreed = match failure {
        None => ours == theirs,
        Some(failure) if theirs.complete => is_stricter(failure),
        // Both failed; the one that went further says how the rest was to be read.
        Some(failure) => {
            let heads = ours.head == theirs.head || is_stricter(failure) && ours.head.is_none();
            heads
                && (ours.payload.starts_with(&theirs.payload)
                    || theirs.payload.starts_with(&ours.payload))
        }
    };
    (!agreed).then(|| format!("ours: {ours:?} {failure:?}; hyper: {theirs:?}"))
}

/// Whether hyper takes this for a complete answer.
pub fn hyper_accepts(request: RequestKind, text: &[u8]) -> bool {
    read_with_hyper(request, text).complete
}

fn is_stricter(failure: DecodeError) -> bool {
    match failure {
        DecodeError::Malformed(rule) => STRICTER.contains(&rule),
        DecodeError::HeadTooLarge => true,
        DecodeError::Closed => false,
    }
}

fn read<'a>(
    request: RequestKind,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Reading, Option<DecodeError>) {
    let mut decoder = Decoder::new(request, HeadLimits::default());
    let mut reading = Reading::default();
    for piece in pieces {
        let mut at = 0;
        while let Ok((used, event)) = decoder.decode(&piece[at..]) {
            match event {
                Event::Head(head) => {
                    let fields = head
                        .iter()
                        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_vec()));
                    reading.head = Some((head.status, sorted(fields.collect())));
                }
                Event::Data(range) => reading.payload.extend_from_slice(&piece[at..][range]),
                Event::More | Event::End => break,
            }
            at += used;
        }
    }
    reading.complete = decoder.end_of_input().is_ok();
    (reading, decoder.failure())
}

fn read_with_hyper(request: RequestKind, text: &[u8]) -> Reading {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().build().expect("a runtime without drivers");
    }
    let reading = RefCell::new(Reading::default());
    RUNTIME.with(|runtime| {
        // An error ends the exchange where it is; what was read before it stays.
        let _ = runtime.block_on(exchange(request, text, &reading));
    });
    reading.into_inner()
}

async fn exchange(
    request: RequestKind,
    text: &[u8],
    reading: &RefCell<Reading>,
) -> hyper::Result<()> {
    let peer = Peer {
        text: text.to_vec(),
        sent: 0,
        asked: false,
        reader: None,
    };
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_headers(MAX_FIELDS)
        .handshake(peer)
        .await?;
    let method = if request == RequestKind::Head {
        hyper::Method::HEAD
    } else {
        hyper::Method::POST
    };
    let mut question = hyper::Request::new(Empty::<Bytes>::new());
    *question.method_mut() = method;
    let ask = async {
        let (head, mut body) = sender.send_request(question).await?.into_parts();
        let fields = head
            .headers
            .iter()
            .map(|(name, value)| (name.as_str().into(), value.as_bytes().into()));
        reading.borrow_mut().head = Some((head.status.as_u16(), sorted(fields.collect())));
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame?.into_data() {
                reading.borrow_mut().payload.extend_from_slice(&data);
            }
        }
        reading.borrow_mut().complete = true;
        hyper::Result::Ok(())
    };
    let drive = async {
        // Bytes after the end are an error of the connection, not of the answer.
        let _ = connection.await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        answer = ask => answer,
        () = drive => Ok(()),
    }
}

/// By name, in the order they came among equals: a map of hyper's keeps no other order.
fn sorted(mut fields: Vec<Field>) -> Vec<Field> {
    fields.sort_by(|a, b| a.0.cmp(&b.0));
    fields
}

/// A peer that waits for a request, sends its text and closes.
struct Peer {
    text: Vec<u8>,
    sent: usize,
    asked: bool,
    reader: Option<Waker>,
}

impl Read for Peer {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.asked {
            self.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let end = self.text.len().min(self.sent + buf.remaining());
        buf.put_slice(&self.text[self.sent..end]);
        self.sent = end;
        Poll::Ready(Ok(()))
    }
}

impl Write for Peer {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.asked = true;
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
