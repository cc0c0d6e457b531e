//! One prompt to answers, or to the scores of a closed list of choices.
//!
//! In: ids of a prompt and what to do with it ([`Job`]). Out: texts with their reasons to stop and
//! log-probabilities, or the log-likelihood of each choice ([`Outcome`]). A client of
//! [`SchedulerHandle`](crate::schedule::SchedulerHandle) with as many requests as the job has answers or
//! choices; they share the prompt. [`submit`] queues a job, [`run`] waits for one. It knows no files, no JSON
//! and no chat format.

mod choices;
mod error;
mod job;
mod part;
mod submit;

pub use choices::answer_end;
pub use error::JobError;
pub use job::{
    AnswerOptions, ChoiceOptions, ChoiceScore, Finish, Job, JobAnswer, JobResult, JobUsage, Outcome, Task,
    TokenLogProb,
};
pub use submit::{JobEvent, Submitted, run, submit};
