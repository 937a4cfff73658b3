//! The responses an engine remembers (`VLLM_ENABLE_RESPONSES_API_STORE`): in its own memory, and for ever.

use std::collections::HashMap;
use std::sync::Mutex;

use tokio::task::AbortHandle;

use super::errors::ErrorAnswer;
use super::generation::Finish;
use super::render::{Form, Usage};
use super::script::Flavour;
use super::shared::lock;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Queued,
    InProgress,
    Completed,
    Incomplete,
    Cancelled,
}

impl Status {
    /// An answer that was aborted counts as completed.
    pub(super) fn of(finish: Option<&Finish>) -> Self {
        match finish {
            Some(Finish::Length) => Self::Incomplete,
            _ => Self::Completed,
        }
    }

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Incomplete => "incomplete",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A response and what led to it.
#[derive(Debug)]
pub(super) struct Kept {
    pub form: Form,
    pub status: Status,
    /// Its items as JSON, in their brackets.
    pub output: String,
    pub usage: Option<Usage>,
    /// `(role, content)` of all that was said to the model.
    pub turns: Vec<(String, String)>,
    /// What the model said.
    pub said: String,
    /// Makes it, if it is made in the background.
    pub job: Option<AbortHandle>,
}

impl Kept {
    fn json(&self) -> String {
        self.form.json(self.status, &self.output, self.usage)
    }
}

#[derive(Debug, Default)]
pub(super) struct Store(Mutex<HashMap<String, Kept>>);

impl Store {
    pub(super) fn keep(&self, response: Kept) {
        lock(&self.0).insert(response.form.id.clone(), response);
    }

    /// Changes a response that is made in the background, unless it was cancelled meanwhile.
    pub(super) fn change(&self, id: &str, change: impl FnOnce(&mut Kept)) {
        if let Some(kept) = lock(&self.0).get_mut(id)
            && kept.status != Status::Cancelled
        {
            change(kept);
        }
    }

    /// What a next response goes on from: instructions are not handed on.
    pub(super) fn conversation(&self, id: &str) -> Option<Vec<(String, String)>> {
        let responses = lock(&self.0);
        let kept = responses.get(id)?;
        let turns = kept.turns.iter().filter(|(role, _)| role != "system");
        let mut turns: Vec<_> = turns.cloned().collect();
        if !kept.said.is_empty() {
            turns.push(("assistant".to_owned(), kept.said.clone()));
        }
        Some(turns)
    }

    /// `GET /v1/responses/ID`.
    pub(super) fn get(&self, flavour: Flavour, id: &str) -> Result<String, ErrorAnswer> {
        let responses = lock(&self.0);
        let kept = responses.get(id);
        kept.map(Kept::json)
            .ok_or_else(|| ErrorAnswer::no_response(flavour, id))
    }

    /// `POST /v1/responses/ID/cancel`.
    pub(super) fn cancel(&self, flavour: Flavour, id: &str) -> Result<String, ErrorAnswer> {
        let mut responses = lock(&self.0);
        let kept = responses
            .get_mut(id)
            .ok_or_else(|| ErrorAnswer::no_response(flavour, id))?;
        if !matches!(kept.status, Status::Queued | Status::InProgress) {
            let message = "Cannot cancel a synchronous response.";
            let (kind, param) = ("invalid_request_error", Some("response_id"));
            return Err(ErrorAnswer::api(flavour, 400, kind, message, param));
        }
        kept.status = Status::Cancelled;
        if let Some(job) = kept.job.take() {
            job.abort();
        }
        Ok(kept.json())
    }

    /// Forgets everything, as an engine that dies does, and ends what is still being made.
    pub(super) fn clear(&self) {
        for (_, kept) in lock(&self.0).drain() {
            if let Some(job) = kept.job {
                job.abort();
            }
        }
    }
}
