//! An answer over time: admission, prefill, token after token, and everything that may cut it.

mod pace;
mod whole;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use memchr::memmem;
use tokio::sync::watch;
use tokio::time::Instant;

use super::connection::{Connection, End, Gone};
use super::faults;
use super::generation::{Choice, Finish, Step};
use super::http::{LAST_CHUNK, chunk};
use super::render::{Dialect, Usage, dialect};
use super::request::Ask;
use super::responder::Responder;
use super::script::{Cut, Death, EngineError, Fault, QueueFull, Script};
use super::shared::{Running, Shared, State};
use pace::{Admission, Wake};

const EVENT_STREAM: &str = "text/event-stream; charset=utf-8";

/// Makes and sends the whole answer.
pub(super) async fn generate(
    connection: &mut Connection,
    responder: Responder,
    ask: Ask,
    script: &Arc<Script>,
    fault: Option<Fault>,
    arrival: Instant,
    orca: Option<String>,
) -> Result<End, Gone> {
    let shared = Arc::clone(&connection.shared);
    let state = connection.state.clone();
    let dialect = dialect(&ask, script, &shared, &responder.answer_id);
    let chunked = fault != Some(Fault::CloseDelimited);
    let (out, event) = (Vec::new(), Vec::new());
    let mut answer = Answer {
        connection,
        shared,
        state,
        script,
        responder,
        dialect,
        ask,
        fault,
        arrival,
        begun: arrival,
        chunked,
        out,
        event,
        sent: 0,
        last_write: arrival,
    };
    let end = if answer.ask.stream {
        answer.stream().await
    } else {
        answer.whole(orca).await
    };
    if end.is_err() {
        answer.shared.metrics.aborted.fetch_add(1, Relaxed);
    }
    end
}

struct Answer<'a> {
    connection: &'a mut Connection,
    shared: Arc<Shared>,
    state: watch::Receiver<State>,
    script: &'a Script,
    responder: Responder,
    dialect: Box<dyn Dialect>,
    ask: Ask,
    fault: Option<Fault>,
    arrival: Instant,
    /// When prefill began: the arrival, or the end of the wait in the queue.
    begun: Instant,
    /// False when the body ends with the connection.
    chunked: bool,
    /// What is written next; and events before a chunk is made of each.
    out: Vec<u8>,
    event: Vec<u8>,
    /// Content events sent.
    sent: usize,
    last_write: Instant,
}

impl Answer<'_> {
    async fn stream(&mut self) -> Result<End, Gone> {
        let admission = self.ask_admission();
        if matches!(admission, Admission::Full) && self.script.queue_full == QueueFull::Status {
            return self.refuse().await;
        }
        if self.is_misframed() {
            let body = self.all_events();
            return self.misframe(EVENT_STREAM, &body).await;
        }
        if !self.chunked {
            self.responder.close();
        }
        // uvicorn sends the head before the request is even admitted.
        let mut head = Vec::new();
        self.responder.head(
            &mut head,
            200,
            &[("content-type", EVENT_STREAM)],
            self.chunked,
        );
        faults::write_head(self.connection, &head, self.fault.as_ref()).await?;
        self.event.clear();
        self.dialect.at_once(&mut self.event);
        self.emit(false).await?;
        let slot = match admission {
            Admission::Full => return self.fail(EngineError::Busy).await,
            Admission::Slot(slot) => slot,
            Admission::Queued(waiting) => match self.slot(waiting).await? {
                Ok(slot) => slot,
                Err(death) => return self.die(death, &mut []).await,
            },
        };
        let mut running = Running::enter(&self.shared, self.ask.prompt_tokens(), slot);
        let mut choices = self.choices();
        let mut step = Step::default();
        let mut due = self.begun + self.script.ttft;
        let mut first = true;
        let (mut first_at, mut last_at) = (self.begun, self.begun);
        while choices.iter().any(|choice| !choice.finished) {
            if let Wake::Dying(death) = self.pause(due, first).await? {
                return self.die(death, &mut choices).await;
            }
            let now = Instant::now();
            if first {
                first_at = now;
                self.shared.metrics.ttft.observe_time(now - self.arrival);
                self.shared
                    .metrics
                    .prefill_time
                    .observe_time(now - self.begun);
            } else {
                self.shared.metrics.itl.observe_time(now - last_at);
            }
            last_at = now;
            for index in 0..choices.len() {
                if choices[index].finished {
                    continue;
                }
                if let Some(end) = self.strike(&mut choices).await? {
                    return Ok(end);
                }
                if std::mem::take(&mut first)
                    && let Some(end) = self.open().await?
                {
                    return Ok(end);
                }
                choices[index].step(&mut step);
                running.generated(1);
                if let Some(end) = self.show(index, &step, choices[index].produced).await? {
                    return Ok(end);
                }
            }
            due = self.next(due);
        }
        drop(running);
        self.shared
            .metrics
            .decode_time
            .observe_time(last_at - first_at);
        let produced = choices.iter().map(|choice| choice.produced).sum();
        self.finish(produced).await
    }

    fn choices(&self) -> Vec<Choice> {
        Choice::all(self.script, &self.ask)
    }

    /// What comes before the first token's event.
    async fn open(&mut self) -> Result<Option<End>, Gone> {
        self.event.clear();
        self.dialect.open(&mut self.event, &self.ask);
        self.emit(true).await
    }

    /// The event of one token, if it has one.
    async fn show(
        &mut self,
        index: usize,
        step: &Step,
        produced: usize,
    ) -> Result<Option<End>, Gone> {
        match &step.finish {
            Some(Finish::Stop(_)) => _ = self.shared.metrics.stopped.fetch_add(1, Relaxed),
            Some(Finish::Length) => _ = self.shared.metrics.at_length.fetch_add(1, Relaxed),
            _ => {}
        }
        let prompt = &self.ask.prompts[index / self.ask.n];
        let usage = Usage {
            prompt: prompt.context.length,
            completion: produced,
        };
        let prompt_ids = (produced == 1).then_some(prompt.ids.as_slice());
        self.event.clear();
        self.dialect
            .token(&mut self.event, index, step, usage, prompt_ids);
        if self.event.is_empty() {
            return Ok(None);
        }
        let end = self.emit(true).await?;
        self.sent += 1;
        Ok(end)
    }

    /// Sends the events, each as one chunk. A cut inside an event strikes in the last of them.
    async fn emit(&mut self, content: bool) -> Result<Option<End>, Gone> {
        if self.event.is_empty() {
            return Ok(None);
        }
        self.out.clear();
        let last = self.take_events();
        if let Some(Fault::Cut {
            after,
            how: Cut::InEvent,
        }) = self.fault
            && content
            && self.sent >= after
        {
            let half = last + (self.out.len() - last) / 2;
            self.connection.write(&self.out[..half]).await?;
            return Ok(Some(End::Close));
        }
        self.connection.write(&self.out).await?;
        if self.script.comments.is_some() {
            self.last_write = Instant::now();
        }
        Ok(None)
    }

    /// Moves the events into `out`, each as a chunk unless the body ends with the connection. Says where the last
    /// one begins.
    fn take_events(&mut self) -> usize {
        let mut last = self.out.len();
        let mut rest = self.event.as_slice();
        while !rest.is_empty() {
            let end = memmem::find(rest, b"\n\n").map_or(rest.len(), |at| at + 2);
            let (event, others) = rest.split_at(end);
            last = self.out.len();
            if self.chunked {
                chunk(&mut self.out, &[event]);
            } else {
                self.out.extend_from_slice(event);
            }
            rest = others;
        }
        last
    }

    /// The fault that is due before the next content event.
    async fn strike(&mut self, choices: &mut [Choice]) -> Result<Option<End>, Gone> {
        match self.fault {
            Some(Fault::Cut { after, how }) if self.sent >= after => match how {
                Cut::Reset => {
                    // What was sent must arrive before the reset throws it away.
                    self.connection.wait(Duration::from_millis(20)).await?;
                    Ok(Some(End::Reset))
                }
                Cut::Close => Ok(Some(End::Close)),
                Cut::Clean => {
                    if self.chunked {
                        self.connection.write(LAST_CHUNK).await?;
                    }
                    Ok(Some(self.responder.end()))
                }
                Cut::InEvent => Ok(None),
                Cut::Silence => Err(self.connection.gone().await),
            },
            Some(Fault::Error { after, error }) if self.sent >= after => {
                self.fail(error).await.map(Some)
            }
            Some(Fault::Abort { after }) if self.sent >= after => {
                self.abort(choices).await.map(Some)
            }
            Some(Fault::BadChunk { after }) if self.sent >= after => {
                self.connection
                    .write(b"zz\r\ndata: {}\n\n\r\n0\r\n\r\n")
                    .await?;
                Ok(Some(End::Close))
            }
            _ => Ok(None),
        }
    }

    /// An error event and a clean end, or a cut where the API has no such event.
    async fn fail(&mut self, error: EngineError) -> Result<End, Gone> {
        self.shared.metrics.failed.fetch_add(1, Relaxed);
        self.event.clear();
        if !self.dialect.error(&mut self.event, error) {
            return Ok(End::Close);
        }
        self.end_body().await
    }

    /// Aborted as its reason for each choice, then the end of a good answer.
    async fn abort(&mut self, choices: &mut [Choice]) -> Result<End, Gone> {
        self.shared.metrics.aborted.fetch_add(1, Relaxed);
        let step = Step {
            finish: Some(Finish::Abort),
            ..Step::default()
        };
        self.event.clear();
        for (index, choice) in choices
            .iter()
            .enumerate()
            .filter(|(_, choice)| !choice.finished)
        {
            let usage = Usage {
                prompt: self.ask.prompt_tokens(),
                completion: choice.produced,
            };
            self.dialect
                .token(&mut self.event, index, &step, usage, None);
        }
        self.emit(false).await?;
        let produced = choices.iter().map(|choice| choice.produced).sum();
        self.finish(produced).await
    }

    async fn die(&mut self, death: Death, choices: &mut [Choice]) -> Result<End, Gone> {
        match death {
            Death::Abort => self.abort(choices).await?,
            _ => self.fail(EngineError::CoreDead).await?,
        };
        Ok(End::Close)
    }

    /// The events after the last token, then the end.
    async fn finish(&mut self, produced: usize) -> Result<End, Gone> {
        self.shared
            .metrics
            .e2el
            .observe_time(self.arrival.elapsed());
        self.shared.metrics.answer_lengths.observe(produced as f64);
        let usage = Usage {
            prompt: self.ask.prompt_tokens(),
            completion: produced,
        };
        self.event.clear();
        self.dialect.finish(&mut self.event, usage);
        self.end_body().await
    }

    /// The events that are left, and the end of the body.
    async fn end_body(&mut self) -> Result<End, Gone> {
        self.out.clear();
        self.take_events();
        if self.chunked {
            self.out.extend_from_slice(LAST_CHUNK);
        }
        self.connection.write(&self.out).await?;
        Ok(self.responder.end())
    }
}
