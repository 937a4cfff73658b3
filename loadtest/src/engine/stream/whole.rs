//! Answers that are made whole before they are sent: those not streamed, and those framed wrongly.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::Answer;
use super::pace::{Admission, Wake};
use crate::engine::connection::{End, Gone};
use crate::engine::errors::ErrorAnswer;
use crate::engine::faults;
use crate::engine::generation::{Finish, Step};
use crate::engine::render::{Usage, Whole};
use crate::engine::script::{Cut, Death, EngineError, Fault};
use crate::engine::shared::Running;

impl Answer<'_> {
    pub(super) fn is_misframed(&self) -> bool {
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

    pub(super) async fn misframe(&mut self, kind: &str, body: &[u8]) -> Result<End, Gone> {
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
    pub(super) fn all_events(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        self.dialect.at_once(&mut body);
        self.dialect.open(&mut body, &self.ask);
        let mut step = Step::default();
        let prompt = self.ask.prompt_tokens();
        let mut produced = 0;
        for (index, choice) in self.choices().iter_mut().enumerate() {
            while !choice.finished {
                choice.step(&mut step);
                let usage = Usage {
                    prompt,
                    completion: choice.produced,
                };
                self.dialect.token(&mut body, index, &step, usage, None);
            }
            produced += choice.produced;
        }
        let usage = Usage {
            prompt,
            completion: produced,
        };
        self.dialect.finish(&mut body, usage);
        body
    }

    /// An answer that is not streamed.
    pub(super) async fn whole(&mut self, orca: Option<String>) -> Result<End, Gone> {
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
        let decode = self.script.itl * u32::try_from(longest.saturating_sub(1)).unwrap_or(u32::MAX);
        let woken = self
            .pause(self.begun + self.script.ttft + decode, true)
            .await?;
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
        let metrics = &self.shared.metrics;
        let queued = self.begun - self.arrival;
        metrics.ttft.observe_time(queued + self.script.ttft);
        metrics.prefill_time.observe_time(self.script.ttft);
        metrics.decode_time.observe_time(decode);
        metrics
            .itl
            .observe_times(self.script.itl, longest.saturating_sub(1));
        metrics.e2el.observe_time(self.arrival.elapsed());
        metrics.answer_lengths.observe(produced as f64);
        let usage = Usage {
            prompt: self.ask.prompt_tokens(),
            completion: produced,
        };
        let body = self.dialect.body(&answers, &self.ask.prompts, usage);
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

    pub(super) fn whole_answers(&self) -> (Vec<Whole>, usize) {
        let mut produced = 0;
        let mut choices = self.choices();
        let answers = choices.iter_mut().map(|choice| {
            let answer = choice.whole();
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

    pub(super) async fn fail_whole(&mut self) -> Result<End, Gone> {
        self.out.clear();
        let error = ErrorAnswer::of_engine(self.script.flavour, EngineError::CoreDead);
        self.responder
            .error(&mut self.out, &self.ask.api.error(error));
        self.connection.write(&self.out).await?;
        Ok(End::Close)
    }

    pub(super) async fn send_whole(
        &mut self,
        body: &[u8],
        load: Option<String>,
    ) -> Result<End, Gone> {
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
