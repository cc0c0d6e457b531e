//! Results to their writer, in the order of the rows where that is asked of a stream.

use super::super::input::BadRow;
use super::super::output::{OutputError, ResultWriter};
use super::super::row::{Prepared, RowError};
use crate::complete::Outcome;
use std::collections::BTreeMap;

/// What came of a row.
pub(super) enum RowResult {
    Answered(Box<Prepared>, Box<Outcome>),
    Failed(String, RowError),
}

impl From<BadRow> for RowResult {
    fn from(bad: BadRow) -> Self {
        Self::Failed(bad.id, bad.error)
    }
}

/// Results on their way to the writer.
pub struct Results {
    writer: ResultWriter,
    /// Of a stream in the order of its rows: those that are still to come, and results that wait for them.
    ordered: Option<(std::vec::IntoIter<u32>, BTreeMap<u32, RowResult>)>,
    next: Option<u32>,
}

impl Results {
    /// In the order in which rows end; a file is put in order when it is finished.
    pub fn as_they_end(writer: ResultWriter) -> Self {
        Self { writer, ordered: None, next: None }
    }

    /// In the order of `rows`.
    pub fn in_order(writer: ResultWriter, rows: Vec<u32>) -> Self {
        let mut rows = rows.into_iter();
        let next = rows.next();
        Self { writer, ordered: Some((rows, BTreeMap::new())), next }
    }

    /// The writer. Results that still wait for earlier rows are dropped.
    pub fn into_writer(self) -> ResultWriter {
        self.writer
    }

    pub(super) fn put(&mut self, row: u32, result: RowResult) -> Result<(), OutputError> {
        let Some((rows, waiting)) = &mut self.ordered else { return write(&mut self.writer, row, result) };
        waiting.insert(row, result);
        while let Some(next) = self.next {
            let Some(result) = waiting.remove(&next) else { break };
            write(&mut self.writer, next, result)?;
            self.next = rows.next();
        }
        Ok(())
    }
}

fn write(writer: &mut ResultWriter, row: u32, result: RowResult) -> Result<(), OutputError> {
    match result {
        RowResult::Answered(asked, outcome) => writer.result(row as usize, &asked, &outcome),
        RowResult::Failed(id, error) => writer.error(row as usize, &id, &error),
    }
}
