//! Gives rows to the scheduler, as many at a time as keep it busy.

use super::super::input::{BadRow, CheckedInput, FollowedInput, InputError};
use super::super::row::Prepared;
use super::window::Windows;
use crate::complete::{JobError, JobEvent, Outcome, Submitted, submit};
use crate::schedule::SchedulerHandle;
use huozi_token::Tokenizer;
use std::collections::HashMap;
use std::io::{self, BufRead};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};

/// Where rows come from.
pub enum RowSource {
    /// Rows of a checked input, by number, ascending, and how many are sorted together by their prompts: a
    /// result waits for no row of a later window.
    Input(Arc<CheckedInput>, Vec<u32>, usize),
    /// Rows as they arrive.
    Followed(FollowedInput<Box<dyn BufRead + Send>>),
}

/// Why there are no more rows.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// The input changed or cannot be read.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The stream cannot be read.
    #[error("standard input: cannot read: {0}")]
    Stream(#[from] io::Error),
}

/// What the runner receives.
pub(super) enum Message {
    /// A row that ran has ended; it had so many places.
    Ended { row: u32, asked: Box<Prepared>, result: Result<Outcome, JobError>, places: usize },
    /// A row that is wrong.
    Bad { row: u32, bad: BadRow },
    /// These were all rows, so many.
    All(u64),
    /// There are no more rows.
    Failed(FeedError),
}

impl Message {
    /// The places that its row had.
    pub fn places(&self) -> usize {
        match self {
            Self::Ended { places, .. } => *places,
            Self::Bad { .. } => 1,
            Self::All(_) | Self::Failed(_) => 0,
        }
    }
}

/// The jobs that run.
#[derive(Default)]
pub(super) struct Jobs {
    state: Mutex<JobsState>,
    /// Tokens generated so far.
    pub answer_tokens: AtomicU64,
}

#[derive(Default)]
struct JobsState {
    running: HashMap<u32, Submitted>,
    stopped: bool,
}

impl Jobs {
    /// A job has ended.
    pub fn ended(&self, row: u32) {
        let ended = self.state.lock().unwrap_or_else(PoisonError::into_inner).running.remove(&row);
        drop(ended);
    }

    /// Cancels those that run; none is submitted any more.
    pub fn stop(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.stopped = true;
        let running = std::mem::take(&mut state.running);
        drop(state);
        running.values().for_each(Submitted::cancel);
    }
}

/// Submits rows and tells what came of them.
pub(super) struct Feeder {
    pub scheduler: SchedulerHandle,
    pub tokenizer: Arc<Tokenizer>,
    pub jobs: Arc<Jobs>,
    pub tell: Sender<Message>,
    /// Takes a place for each answer or choice of a row that has not ended; waits where there is none.
    pub places: SyncSender<()>,
    /// How many places there are. A row of more takes all.
    pub most: usize,
}

/// The runner needs no more rows.
struct Stopped;

impl Feeder {
    /// Submits all rows.
    pub fn run(self, source: RowSource) {
        let fed = match source {
            RowSource::Input(input, rows, most) => self.windows(&input, Windows::new(rows, most)),
            RowSource::Followed(mut rows) => self.follow(&mut rows),
        };
        let last = match fed {
            Ok(Ok(rows)) => Message::All(rows),
            Ok(Err(Stopped)) => return,
            Err(error) => Message::Failed(error),
        };
        let _ = self.tell.send(last);
    }

    fn windows(&self, input: &CheckedInput, mut windows: Windows) -> Result<Result<u64, Stopped>, FeedError> {
        let mut fed = 0;
        while let Some(window) = windows.next(input)? {
            for row in window {
                if self.put(row, input.prepared(row as usize)?).is_err() {
                    return Ok(Err(Stopped));
                }
                fed += 1;
            }
        }
        Ok(Ok(fed))
    }

    fn follow<R: BufRead>(&self, rows: &mut FollowedInput<R>) -> Result<Result<u64, Stopped>, FeedError> {
        let mut fed = 0u32;
        while let Some(row) = rows.next_row()? {
            if self.put(fed, row).is_err() {
                return Ok(Err(Stopped));
            }
            fed = fed.checked_add(1).ok_or_else(|| io::Error::other("more than 2^32 rows"))?;
        }
        Ok(Ok(fed.into()))
    }

    fn put(&self, row: u32, prepared: Result<Prepared, BadRow>) -> Result<(), Stopped> {
        let places = prepared.as_ref().map_or(1, |row| row.job.parts().clamp(1, self.most));
        (0..places).try_for_each(|_| self.places.send(())).map_err(|_| Stopped)?;
        let prepared = match prepared {
            Ok(prepared) => prepared,
            Err(bad) => return self.tell.send(Message::Bad { row, bad }).map_err(|_| Stopped),
        };
        let mut asked = Some(Box::new(prepared.clone()));
        let (tell, jobs) = (self.tell.clone(), self.jobs.clone());
        let on = move |event| {
            match event {
                JobEvent::Token { .. } => {
                    jobs.answer_tokens.fetch_add(1, Ordering::Relaxed);
                }
                JobEvent::Ended(result) => {
                    if let Some(asked) = asked.take() {
                        let _ = tell.send(Message::Ended { row, asked, result, places });
                    }
                }
                JobEvent::Prompt { .. } | JobEvent::Text { .. } => {}
            }
            ControlFlow::Continue(())
        };
        let mut state = self.jobs.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.stopped {
            return Err(Stopped);
        }
        match submit(&self.scheduler, &self.tokenizer, &prepared.job, on) {
            Ok(submitted) => {
                state.running.insert(row, submitted);
                Ok(())
            }
            Err(refused) => {
                let (asked, result) = (Box::new(prepared), Err(refused.into()));
                self.tell.send(Message::Ended { row, asked, result, places }).map_err(|_| Stopped)
            }
        }
    }
}
