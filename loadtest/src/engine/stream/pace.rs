//! Waiting: for a place among the running, for the next token, with comments in between.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep_until};

use super::Answer;
use crate::engine::connection::{End, Gone};
use crate::engine::errors::ErrorAnswer;
use crate::engine::render::COMMENT;
use crate::engine::script::{Death, EngineError};
use crate::engine::shared::{State, Waiting, lock};

/// Why a pause ended.
pub(super) enum Wake {
    Due,
    Dying(Death),
}

/// A place among the running, or a place in the queue.
pub(super) enum Admission {
    Slot(OwnedSemaphorePermit),
    Queued(Waiting),
    Full,
}

impl Answer<'_> {
    /// When the next token is due: on the beat, unless the engine was stopped for long.
    pub(super) fn next(&self, due: Instant) -> Instant {
        let (next, now) = (due + self.script.itl, Instant::now());
        if next + Duration::from_secs(1) < now {
            now
        } else {
            next
        }
    }

    pub(super) fn ask_admission(&self) -> Admission {
        let slots = Arc::clone(&lock(&self.shared.active).slots);
        if let Ok(slot) = slots.try_acquire_owned() {
            self.shared.metrics.queue_time.observe_time(Duration::ZERO);
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

    pub(super) async fn refuse(&mut self) -> Result<End, Gone> {
        self.out.clear();
        let error = ErrorAnswer::of_engine(self.script.flavour, EngineError::Busy);
        self.responder
            .error(&mut self.out, &self.ask.api.error(error));
        self.connection.write(&self.out).await?;
        Ok(self.responder.end())
    }

    /// Waits in the queue.
    pub(super) async fn slot(
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
    pub(super) fn comment_time(&self) -> Option<Instant> {
        let interval = self.script.comments.filter(|_| self.ask.stream)?;
        Some(self.last_write + interval)
    }

    pub(super) async fn comment(&mut self) -> Result<(), Gone> {
        self.event.clear();
        self.event.extend_from_slice(COMMENT);
        self.last_write = Instant::now();
        self.emit(false).await?;
        Ok(())
    }

    /// Waits until `due`, as long as the engine is held or frozen, or until it dies.
    pub(super) async fn pause(&mut self, due: Instant, before_first: bool) -> Result<Wake, Gone> {
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
}
