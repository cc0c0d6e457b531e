//! A job as requests of a scheduler, and what comes back of them.

use super::error::JobError;
use super::job::{ChoiceScore, Job, JobAnswer, JobResult, JobUsage, Outcome, Task};
use super::part::{Part, request};
use crate::schedule::{Refused, RequestError, RequestEvent, RequestId, SchedulerHandle, Stop};
use huozi_token::Tokenizer;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How often [`run`] looks whether it is cancelled.
const POLL: Duration = Duration::from_millis(20);

/// What the client of a job receives while it runs.
#[derive(Clone, Debug, PartialEq)]
pub enum JobEvent {
    /// `done` of `total` tokens are read of the prompt of an answer, or of a choice.
    Prompt {
        /// Which answer or choice.
        part: usize,
        /// Tokens whose keys and values are there.
        done: usize,
        /// Tokens of the prompt; of a choice, tokens of both.
        total: usize,
    },
    /// A token of an answer.
    Token {
        /// Which answer.
        part: usize,
        /// The token.
        token: u32,
    },
    /// Text of an answer that is certain, never empty: no part of a stop text, no piece of a character.
    Text {
        /// Which answer.
        part: usize,
        /// The text.
        text: String,
    },
    /// The job ended; nothing follows.
    Ended(Result<Outcome, JobError>),
}

/// A job that the scheduler has taken.
pub struct Submitted {
    scheduler: SchedulerHandle,
    requests: Vec<RequestId>,
}

impl Submitted {
    /// Ends the job; it is told before this returns, unless it has ended already. Must not be called by the
    /// job's own receiver of events.
    pub fn cancel(&self) {
        self.requests.iter().for_each(|&id| self.scheduler.cancel(id));
    }
}

/// Queues a job: a request for each answer or choice, which share the prompt. `on` receives its events,
/// mostly on the scheduler's thread, must be quick and ask nothing of the scheduler; `Break` cancels the job.
///
/// # Errors
/// A request that the scheduler refuses; then nothing is queued and `on` is not called.
pub fn submit(
    scheduler: &SchedulerHandle,
    tokenizer: &Arc<Tokenizer>,
    job: &Job,
    on: impl FnMut(JobEvent) -> ControlFlow<()> + Send + 'static,
) -> Result<Submitted, Refused> {
    let parts = job.parts();
    let requests = (0..parts).map(|part| request(job, part)).collect::<Vec<_>>();
    requests.iter().try_for_each(|request| request.check(scheduler.info()))?;
    let mut state = State {
        parts: (0..parts).map(|part| Part::new(job, part)).collect(),
        left: parts,
        ended: false,
        prompt_tokens: job.prompt.len(),
        choices: matches!(job.task, Task::Choices(_)),
        tokenizer: tokenizer.clone(),
        on: Box::new(on),
    };
    if parts == 0 {
        state.end();
    }
    let state = Arc::new(Mutex::new(state));
    let mut submitted = Submitted { scheduler: scheduler.clone(), requests: Vec::with_capacity(parts) };
    for (part, request) in requests.into_iter().enumerate() {
        let state = state.clone();
        let hook = move |event| state.lock().unwrap_or_else(PoisonError::into_inner).take(part, event);
        submitted.requests.push(scheduler.submit(request, hook)?);
    }
    Ok(submitted)
}

/// Runs a job to its end; its events come on this thread. `cancel` ends it.
///
/// # Errors
/// See [`JobError`].
pub fn run(
    scheduler: &SchedulerHandle,
    tokenizer: &Arc<Tokenizer>,
    job: &Job,
    cancel: &AtomicBool,
    on: &mut dyn FnMut(JobEvent),
) -> Result<Outcome, JobError> {
    let (tell, events) = mpsc::channel();
    let submitted = submit(scheduler, tokenizer, job, move |event| match tell.send(event) {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    })?;
    let mut cancelled = false;
    loop {
        match events.recv_timeout(POLL) {
            Ok(JobEvent::Ended(result)) => return result,
            Ok(event) => on(event),
            Err(RecvTimeoutError::Timeout) => {}
            // The scheduler's thread has ended without a word.
            Err(RecvTimeoutError::Disconnected) => {
                return Err(RequestError::Ended("its thread is gone".into()).into());
            }
        }
        if !cancelled && cancel.load(Ordering::Relaxed) {
            cancelled = true;
            submitted.cancel();
        }
    }
}

/// A job on its way.
struct State {
    parts: Vec<Part>,
    /// Parts that have not ended.
    left: usize,
    /// Its end was told.
    ended: bool,
    prompt_tokens: usize,
    choices: bool,
    tokenizer: Arc<Tokenizer>,
    on: Box<dyn FnMut(JobEvent) -> ControlFlow<()> + Send>,
}

impl State {
    /// Takes an event of the request of a part.
    fn take(&mut self, part: usize, event: RequestEvent) -> ControlFlow<()> {
        if self.ended {
            return ControlFlow::Break(());
        }
        let at = &mut self.parts[part];
        match event {
            RequestEvent::Prompt { done, total, .. } => self.tell(JobEvent::Prompt { part, done, total }),
            RequestEvent::LogProbs { at: log_probs, .. } => {
                at.log_probs(*log_probs);
                ControlFlow::Continue(())
            }
            RequestEvent::Token { token, .. } => {
                let text = at.token(token, self.tokenizer.vocab());
                let stopped = at.is_stopped();
                self.tell(JobEvent::Token { part, token })?;
                self.tell_text(part, text)?;
                if stopped { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            }
            RequestEvent::Stopped { stop: Stop::Cancelled, .. } => self.fail(JobError::Cancelled),
            RequestEvent::Stopped { stop, timings, .. } => {
                let text = match at.end(stop, timings) {
                    Ok(text) => text,
                    Err(error) => return self.fail(error),
                };
                self.tell_text(part, text)?;
                self.left -= 1;
                if self.left == 0 {
                    self.end();
                }
                ControlFlow::Continue(())
            }
            RequestEvent::Failed { error, .. } => self.fail(error.into()),
        }
    }

    fn tell_text(&mut self, part: usize, text: String) -> ControlFlow<()> {
        if text.is_empty() { ControlFlow::Continue(()) } else { self.tell(JobEvent::Text { part, text }) }
    }

    fn tell(&mut self, event: JobEvent) -> ControlFlow<()> {
        if (self.on)(event).is_break() { self.fail(JobError::Cancelled) } else { ControlFlow::Continue(()) }
    }

    /// Ends the job; its other requests end with their next event.
    fn fail(&mut self, error: JobError) -> ControlFlow<()> {
        self.ended = true;
        let _ = (self.on)(JobEvent::Ended(Err(error)));
        ControlFlow::Break(())
    }

    /// Every part has ended.
    fn end(&mut self) {
        self.ended = true;
        let parts = std::mem::take(&mut self.parts);
        let mut usage = JobUsage { prompt_tokens: self.prompt_tokens, ..JobUsage::default() };
        if let Some(first) = parts.first() {
            usage.reused_tokens = first.timings.reused_tokens.min(self.prompt_tokens);
        }
        for (timings, of_choice) in parts.iter().map(|part| (part.timings, part.choice_tokens)) {
            let of_choice = of_choice.min(timings.prompt_tokens);
            usage.choice_tokens += of_choice;
            usage.computed_tokens += timings.prompt_tokens - of_choice;
            usage.generated_tokens += timings.generated_tokens;
            usage.prompt_seconds = usage.prompt_seconds.max(timings.prompt_seconds);
            usage.generate_seconds = usage.generate_seconds.max(timings.generate_seconds);
            usage.drafted_tokens += timings.drafted_tokens;
            usage.accepted_tokens += timings.accepted_tokens;
        }
        let completed = if self.choices {
            JobResult::Choices(parts.into_iter().map(ChoiceScore::from).collect())
        } else {
            JobResult::Answers(parts.into_iter().map(JobAnswer::from).collect())
        };
        let _ = (self.on)(JobEvent::Ended(Ok(Outcome { completed, usage })));
    }
}
