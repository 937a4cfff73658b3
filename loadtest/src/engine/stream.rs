//! An answer over time: admission, prefill, token after token, and everything that may cut it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, sleep_until};

use super::connection::{Connection, End, Gone};
use super::errors::{ErrorAnswer, error_event};
use super::faults;
use super::generation::{Bounds, Choice, Finish, Step};
use super::http::{LAST_CHUNK, chunk};
use super::render::{COMMENT, DONE, Renderer, Usage, Whole};
use super::request::{Api, Ask};
use super::routes::{Responder, now};
use super::script::{Cut, Death, EngineError, Fault, QueueFull, Script};
use super::shared::{Running, Shared, State, Waiting, lock};

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
    let renderer = Renderer::new(
        &ask,
        script.flavour,
        &script.model,
        &responder.answer_id,
        now(),
        script.prompt_tokens_details,
    );
    let chunked = fault != Some(Fault::CloseDelimited);
    let (out, event) = (Vec::new(), Vec::new());
    let mut answer = Answer {
        connection,
        shared,
        state,
        script,
        responder,
        renderer,
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
    renderer: Renderer,
    ask: Ask,
    fault: Option<Fault>,
    arrival: Instant,
    /// When prefill began: the arrival, or the end of the wait in the queue.
    begun: Instant,
    /// False when the body ends with the connection.
    chunked: bool,
    /// What is written next; and an event before it is made a chunk of.
    out: Vec<u8>,
    event: Vec<u8>,
    /// Content events sent.
    sent: usize,
    last_write: Instant,
}

/// Why a pause ended.
enum Wake {
    Due,
    Dying(Death),
}

/// A place among the running, or a place in the queue.
enum Admission {
    Slot(OwnedSemaphorePermit),
    Queued(Waiting),
    Full,
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
        while choices.iter().any(|choice| !choice.finished) {
            if let Wake::Dying(death) = self.pause(due, first).await? {
                return self.die(death, &mut choices).await;
            }
            if first {
                self.shared
                    .metrics
                    .ttft
                    .observe_time(self.arrival.elapsed());
            } else {
                self.shared.metrics.itl.observe_time(self.script.itl);
            }
            for index in 0..choices.len() {
                if choices[index].finished {
                    continue;
                }
                if let Some(end) = self.strike(&mut choices).await? {
                    return Ok(end);
                }
                if std::mem::take(&mut first)
                    && let Some(end) = self.open_chat().await?
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
        let produced = choices.iter().map(|choice| choice.produced).sum();
        self.finish(produced).await
    }

    /// When the next token is due: on the beat, unless the engine was stopped for long.
    fn next(&self, due: Instant) -> Instant {
        let (next, now) = (due + self.script.itl, Instant::now());
        if next + Duration::from_secs(1) < now {
            now
        } else {
            next
        }
    }

    /// The answers to each prompt, in the order of their index.
    fn choices(&self) -> Vec<Choice> {
        let ask = &self.ask;
        let bounds = Bounds {
            max_tokens: ask.max_tokens,
            min_tokens: ask.min_tokens,
            ignore_eos: ask.ignore_eos,
            stop: &ask.stop,
        };
        let of_prompt = |prompt| (0..ask.n).map(move |index| (prompt, index));
        ask.prompts
            .iter()
            .flat_map(of_prompt)
            .map(|(prompt, index)| Choice::new(self.script, prompt, index, &bounds))
            .collect()
    }

    fn ask_admission(&self) -> Admission {
        let slots = Arc::clone(&lock(&self.shared.active).slots);
        if let Ok(slot) = slots.try_acquire_owned() {
            return Admission::Slot(slot);
        }
        match Waiting::enter(&self.shared, self.script.max_queued) {
            Some(waiting) => Admission::Queued(waiting),
            None => {
                self.shared.metrics.rejected.fetch_add(1, Relaxed);
                Admission::Full
            }
        }
    }

    async fn refuse(&mut self) -> Result<End, Gone> {
        self.out.clear();
        self.responder.error(
            &mut self.out,
            &ErrorAnswer::of_engine(self.script.flavour, EngineError::Busy),
        );
        self.connection.write(&self.out).await?;
        Ok(self.responder.end())
    }

    /// Waits in the queue.
    async fn slot(
        &mut self,
        waiting: Waiting,
    ) -> Result<Result<OwnedSemaphorePermit, Death>, Gone> {
        let slots = Arc::clone(&lock(&self.shared.active).slots);
        let acquire = slots.acquire_owned();
        tokio::pin!(acquire);
        loop {
            let comment = self.comment_time();
            tokio::select! {
                slot = &mut acquire => {
                    drop(waiting);
                    self.shared.metrics.queue_time.observe_time(self.arrival.elapsed());
                    self.begun = Instant::now();
                    return slot.map(Ok).map_err(|_| Gone);
                }
                gone = self.connection.gone() => return Err(gone),
                _ = self.state.changed() => {
                    let state = *self.state.borrow_and_update();
                    match state {
                        State::Dying(Death::Freeze) => return Err(self.connection.gone().await),
                        State::Dying(death) => return Ok(Err(death)),
                        _ => {}
                    }
                }
                () = sleep_until(comment.unwrap_or(self.arrival)), if comment.is_some() => self.comment().await?,
            }
        }
    }

    /// When the stream has been silent long enough for a comment.
    fn comment_time(&self) -> Option<Instant> {
        let interval = self.script.comments.filter(|_| self.ask.stream)?;
        Some(self.last_write + interval)
    }

    async fn comment(&mut self) -> Result<(), Gone> {
        self.event.clear();
        self.event.extend_from_slice(COMMENT);
        self.last_write = Instant::now();
        self.emit(false).await?;
        Ok(())
    }

    /// Waits until `due`, as long as the engine is held or frozen, or until it dies.
    async fn pause(&mut self, due: Instant, before_first: bool) -> Result<Wake, Gone> {
        loop {
            let state = *self.state.borrow_and_update();
            let blocked = match state {
                State::Dying(Death::Freeze) => return Err(self.connection.gone().await),
                State::Dying(death) => return Ok(Wake::Dying(death)),
                State::Running => false,
                State::Held => before_first,
                State::Frozen => true,
            };
            if !blocked && Instant::now() >= due {
                if self.sent % 32 == 31 {
                    tokio::task::yield_now().await;
                }
                return Ok(Wake::Due);
            }
            let comment = self.comment_time();
            let timer = match (blocked, comment) {
                (true, comment) => comment,
                (false, comment) => Some(comment.map_or(due, |comment| comment.min(due))),
            };
            tokio::select! {
                gone = self.connection.gone() => return Err(gone),
                _ = self.state.changed() => {}
                () = sleep_until(timer.unwrap_or(due)), if timer.is_some() => {
                    if comment.is_some_and(|comment| comment <= Instant::now()) {
                        self.comment().await?;
                    }
                }
            }
        }
    }

    /// The role events of a chat.
    async fn open_chat(&mut self) -> Result<Option<End>, Gone> {
        if self.ask.api == Api::Completions {
            return Ok(None);
        }
        for index in 0..self.ask.n {
            self.event.clear();
            self.renderer
                .role_event(&mut self.event, index, &self.ask.prompts[0].ids);
            if let Some(end) = self.emit(true).await? {
                return Ok(Some(end));
            }
        }
        Ok(None)
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
        if !self.renderer.shows(step) {
            return Ok(None);
        }
        let prompt = &self.ask.prompts[index / self.ask.n];
        let usage = Usage {
            prompt: prompt.context.length,
            completion: produced,
        };
        let prompt_ids = (produced == 1).then_some(prompt.ids.as_slice());
        self.event.clear();
        self.renderer
            .token_event(&mut self.event, index, step, usage, prompt_ids);
        let end = self.emit(true).await?;
        self.sent += 1;
        Ok(end)
    }

    /// Sends the event as one chunk. A cut inside an event strikes here.
    async fn emit(&mut self, content: bool) -> Result<Option<End>, Gone> {
        self.out.clear();
        self.take_event();
        if let Some(Fault::Cut {
            after,
            how: Cut::InEvent,
        }) = self.fault
            && content
            && self.sent >= after
        {
            self.connection
                .write(&self.out[..self.out.len() / 2])
                .await?;
            return Ok(Some(End::Close));
        }
        self.connection.write(&self.out).await?;
        if self.script.comments.is_some() {
            self.last_write = Instant::now();
        }
        Ok(None)
    }

    /// Moves the event into `out`, as a chunk unless the body ends with the connection.
    fn take_event(&mut self) {
        if self.chunked {
            chunk(&mut self.out, &[&self.event]);
        } else {
            self.out.extend_from_slice(&self.event);
        }
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

    /// An error event, `[DONE]`, a clean end.
    async fn fail(&mut self, error: EngineError) -> Result<End, Gone> {
        self.shared.metrics.failed.fetch_add(1, Relaxed);
        self.event.clear();
        self.event.extend_from_slice(error_event(error).as_bytes());
        self.emit(false).await?;
        self.end_body().await
    }

    /// `finish_reason: "abort"` for each choice, `[DONE]`, a clean end.
    async fn abort(&mut self, choices: &mut [Choice]) -> Result<End, Gone> {
        self.shared.metrics.aborted.fetch_add(1, Relaxed);
        let step = Step {
            finish: Some(Finish::Abort),
            ..Step::default()
        };
        for (index, choice) in choices
            .iter()
            .enumerate()
            .filter(|(_, choice)| !choice.finished)
        {
            let usage = Usage {
                prompt: self.ask.prompt_tokens(),
                completion: choice.produced,
            };
            self.event.clear();
            self.renderer
                .token_event(&mut self.event, index, &step, usage, None);
            self.emit(false).await?;
        }
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

    /// The usage event where it was asked for, then the end.
    async fn finish(&mut self, produced: usize) -> Result<End, Gone> {
        self.shared
            .metrics
            .e2el
            .observe_time(self.arrival.elapsed());
        self.shared.metrics.answer_lengths.observe(produced as f64);
        if self.ask.include_usage {
            self.event.clear();
            let usage = Usage {
                prompt: self.ask.prompt_tokens(),
                completion: produced,
            };
            self.renderer.usage_event(&mut self.event, usage);
            self.emit(false).await?;
        }
        self.end_body().await
    }

    async fn end_body(&mut self) -> Result<End, Gone> {
        self.event.clear();
        self.event.extend_from_slice(DONE);
        self.out.clear();
        self.take_event();
        if self.chunked {
            self.out.extend_from_slice(LAST_CHUNK);
        }
        self.connection.write(&self.out).await?;
        Ok(self.responder.end())
    }

    fn is_misframed(&self) -> bool {
        matches!(
            self.fault,
            Some(
                Fault::LengthTooLong
                    | Fault::LengthTooShort
                    | Fault::BytesAfterEnd
                    | Fault::TwoLengths
                    | Fault::LengthAndChunked
            )
        )
    }

    async fn misframe(&mut self, kind: &str, body: &[u8]) -> Result<End, Gone> {
        let end = faults::misframe(
            self.connection,
            &mut self.responder,
            kind,
            body,
            self.fault.as_ref(),
        )
        .await?;
        Ok(end.unwrap_or(End::Close))
    }

    /// All events of a stream at once, for answers with wrong framing.
    fn all_events(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        let mut step = Step::default();
        for (index, choice) in self.choices().iter_mut().enumerate() {
            while !choice.finished {
                choice.step(&mut step);
                let usage = Usage {
                    prompt: self.ask.prompt_tokens(),
                    completion: choice.produced,
                };
                self.renderer
                    .token_event(&mut body, index, &step, usage, None);
            }
        }
        body.extend_from_slice(DONE);
        body
    }

    /// An answer that is not streamed.
    async fn whole(&mut self, orca: Option<String>) -> Result<End, Gone> {
        let slot = match self.ask_admission() {
            Admission::Full => return self.refuse().await,
            Admission::Slot(slot) => slot,
            Admission::Queued(waiting) => match self.slot(waiting).await? {
                Ok(slot) => slot,
                Err(_) => return self.fail_whole().await,
            },
        };
        let mut running = Running::enter(&self.shared, self.ask.prompt_tokens(), slot);
        let (mut answers, produced) = self.whole_answers();
        let longest = answers
            .iter()
            .map(|answer| answer.ids.len())
            .max()
            .unwrap_or(1);
        let time = self.script.ttft
            + self.script.itl * u32::try_from(longest.saturating_sub(1)).unwrap_or(u32::MAX);
        let woken = self.pause(self.begun + time, true).await?;
        if matches!(woken, Wake::Dying(Death::Error)) {
            return self.fail_whole().await;
        }
        if matches!(woken, Wake::Dying(_)) || matches!(self.fault, Some(Fault::Abort { .. })) {
            for answer in &mut answers {
                answer.finish = Some(Finish::Abort);
            }
        }
        running.generated(produced);
        drop(running);
        self.shared
            .metrics
            .e2el
            .observe_time(self.arrival.elapsed());
        self.shared.metrics.answer_lengths.observe(produced as f64);
        let prompt_ids: Vec<_> = self
            .ask
            .prompts
            .iter()
            .map(|prompt| prompt.ids.as_slice())
            .collect();
        let usage = Usage {
            prompt: self.ask.prompt_tokens(),
            completion: produced,
        };
        let body = self.renderer.body(&answers, &prompt_ids, usage);
        let end = self
            .send_whole(
                &body,
                orca.and_then(|format| self.shared.metrics.orca(&format)),
            )
            .await?;
        Ok(if matches!(woken, Wake::Dying(_)) {
            End::Close
        } else {
            end
        })
    }

    fn whole_answers(&self) -> (Vec<Whole>, usize) {
        let mut step = Step::default();
        let mut produced = 0;
        let mut choices = self.choices();
        let answers = choices.iter_mut().map(|choice| {
            let mut answer = Whole::default();
            while !choice.finished {
                choice.step(&mut step);
                answer.text.push_str(&step.text);
                answer.ids.push(step.id);
            }
            answer.finish = step.finish.take();
            match answer.finish {
                Some(Finish::Length) => self.shared.metrics.at_length.fetch_add(1, Relaxed),
                _ => self.shared.metrics.stopped.fetch_add(1, Relaxed),
            };
            produced += choice.produced;
            answer
        });
        let answers = answers.collect();
        (answers, produced)
    }

    async fn fail_whole(&mut self) -> Result<End, Gone> {
        self.out.clear();
        self.responder.error(
            &mut self.out,
            &ErrorAnswer::of_engine(self.script.flavour, EngineError::CoreDead),
        );
        self.connection.write(&self.out).await?;
        Ok(End::Close)
    }

    async fn send_whole(&mut self, body: &[u8], load: Option<String>) -> Result<End, Gone> {
        if self.is_misframed() || self.fault == Some(Fault::CloseDelimited) {
            return self.misframe("application/json", body).await;
        }
        self.out.clear();
        match self.fault {
            Some(Fault::BadChunk { .. }) => {
                self.responder.head(
                    &mut self.out,
                    200,
                    &[("content-type", "application/json")],
                    true,
                );
                self.out.extend_from_slice(b"zz\r\n{}\r\n0\r\n\r\n");
                self.connection.write(&self.out).await?;
                Ok(End::Close)
            }
            Some(Fault::Cut { after, how }) => {
                self.responder.json(&mut self.out, body, load.as_deref());
                let head = self.out.len() - body.len();
                self.out
                    .truncate(head + after.min(body.len().saturating_sub(1)));
                self.connection.write(&self.out).await?;
                match how {
                    Cut::Silence => Err(self.connection.gone().await),
                    Cut::Reset => {
                        self.connection.wait(Duration::from_millis(20)).await?;
                        Ok(End::Reset)
                    }
                    _ => Ok(End::Close),
                }
            }
            _ => {
                self.responder.json(&mut self.out, body, load.as_deref());
                let out = std::mem::take(&mut self.out);
                if matches!(self.fault, Some(Fault::SlowHead { .. })) {
                    let head = out.len() - body.len();
                    faults::write_head(self.connection, &out[..head], self.fault.as_ref()).await?;
                    self.connection.write(&out[head..]).await?;
                } else {
                    self.connection.write(&out).await?;
                }
                Ok(self.responder.end())
            }
        }
    }
}
