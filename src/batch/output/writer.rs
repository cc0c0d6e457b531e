//! Takes what came of each row.

use super::error::OutputError;
use super::finish::finish;
use super::line::{self, LineContext};
use super::manifest::RunIdentity;
use super::partial::MAX_LINE_BYTES;
use super::start::{Begun, FileOptions, FindRow, ResultOrder, Start, start};
use super::summary::BatchSummary;
use crate::batch::{Prepared, RowError};
use crate::complete::Outcome;
use std::io::Write;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// Writes a line for each row, to a file that can be taken up again or to a stream.
pub struct ResultWriter {
    context: LineContext,
    to: Target,
}

/// What opening an output gives.
pub enum OpenedOutput {
    /// Rows are to be run.
    Ready(ResultWriter),
    /// Nothing is left to do.
    Complete(BatchSummary),
}

enum Target {
    File(Box<FileRun>),
    Stream(Stream),
}

struct FileRun {
    begun: Begun,
    identity: RunIdentity,
    order: ResultOrder,
    retry_errors: bool,
}

struct Stream {
    results: Box<dyn Write + Send>,
    rows: usize,
    failed: usize,
}

impl ResultWriter {
    /// To a file, from where an earlier process left it. `find`: see [`FindRow`].
    ///
    /// # Errors
    /// Another process writes it; the files that are there are of another run or of none; what the system
    /// refuses.
    pub fn open(
        options: &FileOptions,
        identity: RunIdentity,
        context: LineContext,
        find: FindRow<'_>,
    ) -> Result<OpenedOutput, OutputError> {
        let begun = match start(options, &identity, find)? {
            Start::Complete(summary) => return Ok(OpenedOutput::Complete(summary)),
            Start::Run(begun) => begun,
        };
        let (order, retry_errors) = (options.order, options.retry_errors);
        let run = Box::new(FileRun { begun, identity, order, retry_errors });
        Ok(OpenedOutput::Ready(Self { context, to: Target::File(run) }))
    }

    /// To a stream, each line flushed; errors beside the results, in the order in which rows are done. It
    /// cannot be taken up again.
    pub fn stream(results: Box<dyn Write + Send>, context: LineContext) -> Self {
        Self { context, to: Target::Stream(Stream { results, rows: 0, failed: 0 }) }
    }

    /// Whether a row is done: it needs no running. Of a stream none is.
    pub fn is_done(&self, row: usize) -> bool {
        match &self.to {
            Target::File(run) => {
                run.begun.table.get(row).is_some_and(|(_, failed)| !(failed && run.retry_errors))
            }
            Target::Stream(_) => false,
        }
    }

    /// A row has an answer. `row`: its index in the input.
    ///
    /// # Errors
    /// The line cannot be written; what was written before is kept.
    pub fn result(&mut self, row: usize, asked: &Prepared, outcome: &Outcome) -> Result<(), OutputError> {
        let line = line::result(&self.context, asked, outcome, now());
        let line = line.and_then(|line| match line.len() {
            0..=MAX_LINE_BYTES => Ok(line),
            bytes => Err(RowError {
                code: "result_too_long",
                message: format!(
                    "the result has {} MiB, at most {} can be written: ask for fewer answers or fewer \
                     log-probabilities",
                    bytes >> 20,
                    MAX_LINE_BYTES >> 20
                ),
                param: None,
            }),
        });
        match line {
            Ok(line) => self.write(row, false, &line),
            Err(error) => self.error(row, &asked.id, &error),
        }
    }

    /// A row has no answer. `row`: its index in the input.
    ///
    /// # Errors
    /// As [`Self::result`].
    pub fn error(&mut self, row: usize, id: &str, error: &RowError) -> Result<(), OutputError> {
        let line = line::error(&self.context, id, error);
        self.write(row, true, &line)
    }

    /// All rows are done: the lines in order under the final name. `rows`: the number of rows of this run, of
    /// a shard those that it has.
    ///
    /// # Errors
    /// Rows without a line; what the system refuses. The lines are kept, and the same run can finish later.
    pub fn finish(self, rows: usize) -> Result<BatchSummary, OutputError> {
        match self.to {
            Target::File(run) => {
                let FileRun { begun, identity, order, .. } = *run;
                let done = (0..begun.table.len()).filter(|&row| begun.table.get(row).is_some()).count();
                if done != rows {
                    let missing = rows.saturating_sub(done);
                    return Err(OutputError::Unfinished { out: begun.out.clone(), missing, rows });
                }
                finish(begun, &identity, order)
            }
            Target::Stream(Stream { rows, failed, .. }) => {
                Ok(BatchSummary { rows, failed, already: false, out: PathBuf::from("-"), errors: None })
            }
        }
    }

    fn write(&mut self, row: usize, failed: bool, line: &str) -> Result<(), OutputError> {
        match &mut self.to {
            Target::File(run) => {
                let Begun { partial, table, .. } = &mut run.begun;
                assert!(row < table.len(), "row {row} of {}", table.len());
                let begin = partial.append(line.as_bytes())?;
                table.set(row, begin, failed);
            }
            Target::Stream(stream) => {
                let written = stream.results.write_all(line.as_bytes());
                written.and_then(|()| stream.results.flush()).map_err(OutputError::Stream)?;
                stream.rows += 1;
                stream.failed += usize::from(failed);
            }
        }
        Ok(())
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
