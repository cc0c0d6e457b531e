//! Requests over one engine, a step at a time.
//!
//! In come token ids with their sampling settings, out go events: how much of the prompt is read, each token,
//! its log-probabilities where they are asked for, the reason to stop. The client's answer to an event says
//! stop or go on. The scheduler owns sequences, their phases, the sharing of prefixes and sampling (inside
//! the sink, on all threads of the engine; a row of logits is never kept). It knows no text, no history and
//! no files.
//!
//! A step carries the next token of every request that generates and one piece of the prompts that are being
//! read, sized so that a step takes about a second in company and some seconds alone, and tells how far it is
//! twice a second. The sequence of an ended request is kept as long as there is room: a new request continues
//! from the longest prefix that any sequence has in common with it. When blocks run out, kept sequences go
//! first, those from which waiting requests could continue last; then the youngest request is preempted and
//! read again later, each token in the phase it first had.
//!
//! A request that speculates has its next tokens drafted from prompt and answer so far, and the step that
//! would generate one token verifies several: each position is drawn with the request's own generator, and a
//! draft counts up to the first token that was not drawn. How long drafts are follows from measured times of
//! steps by width and from how many drafts were accepted; the sequence is cut to what counts.
//!
//! A program with one thread drives a [`Scheduler`] itself. Where several clients talk to one engine, a
//! [`SchedulerHandle`] starts a thread that builds the engine and owns the scheduler; the handle is cloned
//! and given to each of them.

mod cancels;
mod drafts;
mod handle;
mod kept;
mod lookup;
mod prefix;
mod request;
mod running;
mod scheduler;
mod step_costs;
mod waiting;

pub use handle::{SchedulerHandle, StartError};
pub use kept::KvBlock;
pub use request::{
    Drafter, LogProbOptions, PositionLogProbs, Refused, Request, RequestError, RequestEvent, RequestId,
    Speculate, Stop, Timings,
};
pub use scheduler::{OnEvent, Scheduler, SchedulerOptions};
