//! Runs rows over a scheduler and writes what comes of each.
//!
//! ```text
//! RowSource --feed: windows of rows with equal beginnings, submit--> scheduler --Message--> run --> Results
//! ```
//!
//! A thread of its own prepares rows and submits them: rows of twice as many answers and choices as run at a
//! time. The caller's thread writes results as rows end. Memory does not grow with the number of rows, nor
//! with the number of answers or choices of each.

mod feed;
mod results;
mod window;

pub use feed::{FeedError, RowSource};
pub use results::Results;
pub use window::WINDOW_ROWS;
pub use window::common_prefix;

use super::output::OutputError;
use super::row::RowError;
use crate::complete::JobError;
use crate::schedule::{Refused, RequestError, SchedulerHandle};
use feed::{Feeder, Jobs, Message};
use huozi_token::Tokenizer;
use results::RowResult;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

/// How often the runner looks whether it is cancelled.
const POLL: Duration = Duration::from_millis(50);

/// Why a run ends before its last row. Rows that ended before are written.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// There are no more rows to read.
    #[error(transparent)]
    Feed(#[from] FeedError),
    /// Results cannot be written.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// The engine cannot go on.
    #[error("{0}")]
    Engine(#[source] RequestError),
    /// The system refuses a thread.
    #[error("starting a thread: {0}")]
    Thread(#[source] io::Error),
}

/// How far a run is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunProgress {
    /// Rows that have ended in this run, with an answer or not.
    pub rows: u64,
    /// Those without an answer.
    pub failed: u64,
    /// Tokens of the prompts of ended rows.
    pub prompt_tokens: u64,
    /// Tokens read for them: not those of prefixes that were there already.
    pub computed_tokens: u64,
    /// Tokens generated so far.
    pub answer_tokens: u64,
}

/// Runs the rows of `source`, `parallel` at a time; `watch` is called several times a second. Gives how far
/// it came, and whether that is to the end: `cancel` ends it before.
///
/// # Errors
/// See [`RunError`].
pub fn run(
    source: RowSource,
    scheduler: &SchedulerHandle,
    tokenizer: &Arc<Tokenizer>,
    parallel: usize,
    results: &mut Results,
    watch: &mut dyn FnMut(&RunProgress),
    cancel: &AtomicBool,
) -> Result<(RunProgress, bool), RunError> {
    let jobs = Arc::<Jobs>::default();
    let (tell, messages) = mpsc::channel();
    let most = 2 * parallel.max(1);
    let (places, taken) = mpsc::sync_channel(most);
    let feeder = Feeder {
        scheduler: scheduler.clone(),
        tokenizer: tokenizer.clone(),
        jobs: jobs.clone(),
        tell,
        places,
        most,
    };
    let thread = std::thread::Builder::new().name("feeder".into());
    // Not joined: it may wait for a line that never comes.
    thread.spawn(move || feeder.run(source)).map_err(RunError::Thread)?;
    let mut progress = RunProgress::default();
    let mut all = None;
    let mut ended = Ok(());
    while ended.is_ok() && all != Some(progress.rows) && !cancel.load(Ordering::Relaxed) {
        progress.answer_tokens = jobs.answer_tokens.load(Ordering::Relaxed);
        watch(&progress);
        ended = match messages.recv_timeout(POLL) {
            Ok(Message::All(rows)) => {
                all = Some(rows);
                Ok(())
            }
            Ok(Message::Failed(error)) => Err(error.into()),
            Ok(message) => {
                taken.try_iter().take(message.places()).for_each(drop);
                take(message, &jobs, results, &mut progress)
            }
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Err(RecvTimeoutError::Disconnected) => {
                Err(RunError::Thread(io::Error::other("the thread that reads rows has ended")))
            }
        };
    }
    let complete = ended.is_ok() && all == Some(progress.rows);
    if !complete {
        jobs.stop();
        drop(taken);
        // Rows that had ended already are not lost, unless it is their writer that fails.
        let writes = !matches!(ended, Err(RunError::Output(_)));
        while let (true, Ok(message)) = (writes, messages.try_recv()) {
            let finished = matches!(message, Message::Bad { .. } | Message::Ended { result: Ok(_), .. });
            if finished && let Err(error) = take(message, &jobs, results, &mut progress) {
                ended = ended.and(Err(error));
                break;
            }
        }
    }
    progress.answer_tokens = jobs.answer_tokens.load(Ordering::Relaxed);
    watch(&progress);
    ended.map(|()| (progress, complete))
}

/// Writes what came of a row.
fn take(
    message: Message,
    jobs: &Jobs,
    results: &mut Results,
    progress: &mut RunProgress,
) -> Result<(), RunError> {
    let (row, result) = match message {
        Message::Bad { row, bad } => (row, RowResult::from(bad)),
        Message::Ended { row, asked, result, .. } => {
            jobs.ended(row);
            match result {
                Ok(outcome) => {
                    progress.prompt_tokens += outcome.usage.prompt_tokens as u64;
                    progress.computed_tokens += outcome.usage.computed_tokens as u64;
                    (row, RowResult::Answered(asked, Box::new(outcome)))
                }
                Err(error) => (row, RowResult::Failed(asked.id.clone(), row_error(error)?)),
            }
        }
        Message::All(_) | Message::Failed(_) => return Ok(()),
    };
    progress.failed += u64::from(matches!(result, RowResult::Failed(..)));
    results.put(row, result)?;
    progress.rows += 1;
    Ok(())
}

/// The error of a row that the model did not answer, unless no other row can be answered either.
fn row_error(error: JobError) -> Result<RowError, RunError> {
    let code = match &error {
        // An engine that fails would fail for every row: the run ends, and the same command goes on.
        JobError::Failed(cause) => return Err(RunError::Engine(cause.clone())),
        JobError::Refused(Refused::TooLong { .. }) | JobError::NoRoom { .. } => "context_length_exceeded",
        JobError::Refused(_) => "invalid_request",
        _ => "engine_failed",
    };
    Ok(RowError { code, message: error.to_string(), param: None })
}
