//! Responses that are made after their answer: the client asks for them again until they are there.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep_until};

use super::errors::ErrorAnswer;
use super::generation::{Choice, Finish};
use super::render::{Form, Usage, message};
use super::request::{Api, Ask, Response};
use super::script::{EngineError, Script};
use super::shared::{InFlight, Running, Shared, State, Waiting, lock};
use super::store::{Kept, Status};

/// Puts a response in the queue; the answer is what it is now. The error is that of a queue that is full.
pub(super) fn begin(
    in_flight: InFlight,
    shared: &Arc<Shared>,
    ask: &Ask,
    response: &Response,
    script: &Arc<Script>,
) -> Result<String, ErrorAnswer> {
    let slots = Arc::clone(&lock(&shared.active).slots);
    let place = match slots.try_acquire_owned() {
        Ok(slot) => Place::Slot(slot),
        Err(_) => match Waiting::enter(shared, script.max_queued) {
            Some(waiting) => Place::Queue(waiting),
            None => {
                shared.metrics.rejected.fetch_add(1, Relaxed);
                let full = ErrorAnswer::of_engine(script.flavour, EngineError::Busy);
                return Err(Api::Responses.error(full));
            }
        },
    };
    let form = Form::new(shared, script, &response.echo);
    let (id, json) = (form.id.clone(), form.json(Status::Queued, "[]", None));
    shared.responses.keep(Kept {
        form,
        status: Status::Queued,
        output: "[]".to_owned(),
        usage: None,
        turns: response.turns.clone(),
        said: String::new(),
        job: None,
    });
    let job = Job {
        shared: Arc::clone(shared),
        script: Arc::clone(script),
        choices: Choice::all(script, ask),
        id: id.clone(),
        prompt_tokens: ask.prompt_tokens(),
        _in_flight: in_flight,
    };
    let job = tokio::spawn(job.run(place));
    shared
        .responses
        .change(&id, |kept| kept.job = Some(job.abort_handle()));
    Ok(json)
}

enum Place {
    Slot(OwnedSemaphorePermit),
    Queue(Waiting),
}

struct Job {
    shared: Arc<Shared>,
    script: Arc<Script>,
    choices: Vec<Choice>,
    id: String,
    prompt_tokens: usize,
    _in_flight: InFlight,
}

impl Job {
    async fn run(mut self, place: Place) {
        let slot = match place {
            Place::Slot(slot) => slot,
            Place::Queue(waiting) => {
                let slots = Arc::clone(&lock(&self.shared.active).slots);
                let Ok(slot) = slots.acquire_owned().await else {
                    return;
                };
                drop(waiting);
                slot
            }
        };
        let mut running = Running::enter(&self.shared, self.prompt_tokens, slot);
        let answers: Vec<_> = self.choices.iter_mut().map(Choice::whole).collect();
        let tokens: usize = answers.iter().map(|answer| answer.ids.len()).sum();
        let gaps = u32::try_from(tokens.saturating_sub(1)).unwrap_or(u32::MAX);
        let due = Instant::now() + self.script.ttft + self.script.itl * gaps;
        if !self.made(due).await {
            return;
        }
        running.generated(tokens);
        drop(running);
        let Some(answer) = answers.into_iter().next() else {
            return;
        };
        let metrics = &self.shared.metrics;
        match answer.finish {
            Some(Finish::Length) => metrics.at_length.fetch_add(1, Relaxed),
            _ => metrics.stopped.fetch_add(1, Relaxed),
        };
        let item = message(&format!("msg_{}", self.shared.new_id()), &answer.text);
        self.shared.responses.change(&self.id, |kept| {
            kept.status = Status::of(answer.finish.as_ref());
            kept.output = format!("[{item}]");
            kept.usage = Some(Usage {
                prompt: self.prompt_tokens,
                completion: tokens,
            });
            kept.said = answer.text;
        });
        self.shared.completed.fetch_add(1, Relaxed);
    }

    /// Waits until the last token is due, as long as the engine is held or frozen; false when it dies.
    async fn made(&self, due: Instant) -> bool {
        let mut state = self.shared.state.subscribe();
        loop {
            let now = *state.borrow_and_update();
            let time = match now {
                State::Dying(_) => return false,
                State::Running if Instant::now() >= due => return true,
                State::Running => Some(due),
                State::Held | State::Frozen => None,
            };
            tokio::select! {
                changed = state.changed() => if changed.is_err() {
                    return false;
                },
                () = sleep_until(due), if time.is_some() => {}
            }
        }
    }
}
