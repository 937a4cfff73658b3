//! One request and its answer, timed.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use tokio::time::Instant;

use super::client::{Connection, Pool};
use super::sse::{Event, Splitter, Verifier};
use crate::engine::text::Context;

/// What went wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Failure {
    Connect,
    /// The connection broke before an answer.
    NoAnswer,
    Status(u16),
    /// The body broke off, or a stream ended without `[DONE]` and finish_reason.
    Truncated,
    ErrorEvent,
    /// `finish_reason: "abort"`.
    Aborted,
    /// Not the text this prompt has.
    WrongText,
    Timeout,
    /// Never sent: too many were in flight.
    Dropped,
}

impl Failure {
    pub(super) fn name(&self) -> String {
        match self {
            Self::Connect => "connect".to_owned(),
            Self::NoAnswer => "no_answer".to_owned(),
            Self::Status(status) => format!("status_{status}"),
            Self::Truncated => "truncated".to_owned(),
            Self::ErrorEvent => "error_event".to_owned(),
            Self::Aborted => "aborted".to_owned(),
            Self::WrongText => "wrong_text".to_owned(),
            Self::Timeout => "timeout".to_owned(),
            Self::Dropped => "dropped".to_owned(),
        }
    }
}

/// What one request gave.
#[derive(Debug, Default)]
pub(super) struct Sample {
    /// From the intended start to the end of the answer.
    pub duration: Duration,
    /// From the real start: what a client that was not late sees.
    pub service: Duration,
    pub connect: Option<Duration>,
    /// From the intended start to the first event with content.
    pub ttft: Option<Duration>,
    /// Between content events.
    pub gaps: Vec<Duration>,
    /// Content events, and those that shared a read with the one before.
    pub events: u64,
    pub merged: u64,
    pub tokens: u64,
    pub failure: Option<Failure>,
    /// What the failure said of itself.
    pub detail: Option<String>,
}

/// A request that can be sent any number of times.
#[derive(Debug, Clone)]
pub(super) struct Template {
    pub request: Request<()>,
    pub body: Bytes,
    pub stream: bool,
    /// The context whose answer is expected; `None` leaves texts unread.
    pub expected: Option<Context>,
}

/// Sends one request, reads the whole answer.
pub(super) async fn exchange(pool: &Pool, template: &Template, intended: Instant) -> Sample {
    let mut sample = Sample::default();
    let start = Instant::now();
    let result = match pool.get().await {
        Ok(mut connection) => {
            sample.connect = connection.connect;
            let result = talk(&mut connection, template, intended, &mut sample).await;
            if result.is_ok() {
                pool.put(connection).await;
            }
            result
        }
        Err(error) => {
            sample.detail = Some(error.to_string());
            Err(Failure::Connect)
        }
    };
    let end = Instant::now();
    sample.duration = end - intended.min(end);
    sample.service = end - start;
    sample.failure = result.err();
    sample
}

async fn talk(
    connection: &mut Connection,
    template: &Template,
    intended: Instant,
    sample: &mut Sample,
) -> Result<(), Failure> {
    let mut request = template
        .request
        .clone()
        .map(|()| Full::new(template.body.clone()));
    *request.extensions_mut() = hyper::http::Extensions::new();
    let answer = connection.send(request).await.map_err(|error| {
        sample.detail = Some(explain(&error));
        Failure::NoAnswer
    })?;
    let status = answer.status().as_u16();
    if status != 200 {
        // Read, so that the connection can be used again.
        let body = answer
            .into_body()
            .collect()
            .await
            .map(|body| body.to_bytes())
            .unwrap_or_default();
        sample.detail = Some(String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned());
        return Err(Failure::Status(status));
    }
    if template.stream {
        read_stream(connection, answer, template, intended, sample).await
    } else {
        read_whole(answer, template, sample).await
    }
}

/// An error with its causes.
pub(crate) fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

async fn read_whole(
    answer: Response<Incoming>,
    template: &Template,
    sample: &mut Sample,
) -> Result<(), Failure> {
    let body = answer
        .into_body()
        .collect()
        .await
        .map_err(|_| Failure::Truncated)?
        .to_bytes();
    let Some(context) = &template.expected else {
        return Ok(());
    };
    let mut verifier = Verifier::new(context.clone());
    let event: Event = serde_json::from_slice(&body).map_err(|_| Failure::WrongText)?;
    let choice = event.choices.first().ok_or(Failure::WrongText)?;
    if !verifier.is_right(choice.text()) {
        return Err(Failure::WrongText);
    }
    sample.tokens = verifier.tokens as u64;
    match choice.finish_reason.as_deref() {
        Some("abort") => Err(Failure::Aborted),
        None => Err(Failure::Truncated),
        Some(_) => Ok(()),
    }
}

/// What a stream has said so far.
struct Progress {
    verifier: Option<Verifier>,
    last: Option<Instant>,
    last_read: u64,
    finished: bool,
    done: bool,
    failure: Option<Failure>,
}

async fn read_stream(
    connection: &Connection,
    answer: Response<Incoming>,
    template: &Template,
    intended: Instant,
    sample: &mut Sample,
) -> Result<(), Failure> {
    let mut body = answer.into_body();
    let mut splitter = Splitter::default();
    let mut progress = Progress {
        verifier: template.expected.clone().map(Verifier::new),
        last: None,
        last_read: 0,
        finished: false,
        done: false,
        failure: None,
    };
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            sample.detail = Some(explain(&error));
            progress.failure.clone().unwrap_or(Failure::Truncated)
        })?;
        let Some(data) = frame.data_ref() else {
            continue;
        };
        let (now, read) = (Instant::now(), connection.traffic.reads.load(Relaxed));
        splitter.feed(data, |event| {
            progress.take(event, now, read, intended, sample)
        });
    }
    if let Some(verifier) = &progress.verifier {
        sample.tokens = verifier.tokens as u64;
    } else {
        sample.tokens = sample.events;
    }
    match progress.failure {
        Some(failure) => Err(failure),
        None if !progress.done || splitter.is_inside_event() => Err(Failure::Truncated),
        None if progress.verifier.is_some() && !progress.finished => Err(Failure::Truncated),
        None => Ok(()),
    }
}

impl Progress {
    fn take(
        &mut self,
        event: &[u8],
        now: Instant,
        read: u64,
        intended: Instant,
        sample: &mut Sample,
    ) {
        if event == b"[DONE]" {
            self.done = true;
            return;
        }
        // The role event and the usage event are no content; this tells them without parsing.
        let is_content = memchr::memmem::find(event, br#""content":"""#).is_none()
            && memchr::memmem::find(event, br#""choices":[]"#).is_none();
        if is_content {
            match self.last {
                None => sample.ttft = Some(now - intended.min(now)),
                Some(last) => sample.gaps.push(now - last),
            }
            if self.last.is_some() && self.last_read == read {
                sample.merged += 1;
            }
            sample.events += 1;
            (self.last, self.last_read) = (Some(now), read);
        }
        if self.verifier.is_some() || event.starts_with(br#"{"error""#) {
            self.verify(event);
        }
    }

    fn verify(&mut self, event: &[u8]) {
        let Ok(event) = serde_json::from_slice::<Event>(event) else {
            self.failure = Some(Failure::WrongText);
            return;
        };
        if event.error.is_some() {
            self.failure = Some(Failure::ErrorEvent);
        }
        for choice in event.choices.iter().filter(|choice| choice.index == 0) {
            if let Some(verifier) = &mut self.verifier
                && !verifier.is_right(choice.text())
            {
                self.failure.get_or_insert(Failure::WrongText);
            }
            match choice.finish_reason.as_deref() {
                Some("abort") => self.failure = Some(Failure::Aborted),
                Some(_) => self.finished = true,
                None => {}
            }
        }
    }
}
