//! The check of a whole input, and its rows by number afterwards.

use super::super::row::{Prepared, RowError};
use super::error::InputError;
use super::form::InputForm;
use super::index::{Index, Suspect, mark_of};
use super::parse::{Columns, Layout, Parsed, delimited, is_blank, parse};
use super::prepare::{RowPreparer, first_8, line_id};
use super::records::{Ending, Record, Records};
use super::source::{FromOffset, InputFile};
use crate::complete::Task;
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Records that are checked at once, at most this many.
const CHUNK_ROWS: usize = 1024;
/// And together at most this many bytes, but for the last one.
const CHUNK_BYTES: usize = 2 << 20;
/// Rows that fail of which the reason is kept.
const KEPT_FAILURES: usize = 20;

/// A row that has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRow {
    /// Its `custom_id` if that can be read, else `line-N`.
    pub id: String,
    /// The line on which it begins, from 1.
    pub line: u64,
    /// Why.
    pub error: RowError,
}

/// How far a check is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckProgress {
    /// Rows checked.
    pub rows: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Bytes of the input.
    pub total_bytes: u64,
}

/// What a check counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckCounts {
    /// Rows, those that fail included.
    pub rows: u64,
    /// Empty lines, which are no rows.
    pub blank_lines: u64,
    /// Rows that fail, by [`RowError::code`].
    pub failures: BTreeMap<&'static str, u64>,
    /// The first rows that fail.
    pub first_failures: Vec<BadRow>,
    /// Tokens of all prompts.
    pub prompt_tokens: u64,
    /// Tokens of the longest prompt.
    pub longest_prompt: usize,
    /// Tokens of all answers, if each is as long as it may be.
    pub most_answer_tokens: u64,
    /// Positions of the longest prompt and answer together, if it is as long as it may be.
    pub most_positions: usize,
    /// Tokens of choices, those of the prompts left out.
    pub choice_tokens: u64,
}

impl CheckCounts {
    /// Rows that fail.
    pub fn failed(&self) -> u64 {
        self.failures.values().sum()
    }
}

/// An input whose rows were checked. Threads share it by reference.
pub struct CheckedInput {
    name: String,
    file: File,
    layout: Layout,
    index: Index,
    preparer: Arc<RowPreparer>,
    counts: CheckCounts,
    digest: [u8; 32],
    bytes: u64,
    unused_columns: Vec<String>,
}

/// What a row came to.
struct Seen {
    id: Option<String>,
    content: Option<u64>,
    mark: u32,
    result: Result<Size, RowError>,
}

/// The tokens of a row.
struct Size {
    prompt: usize,
    answers: u64,
    positions: usize,
    choices: u64,
}

/// Hashes what is read through it.
struct Hashed<R> {
    from: R,
    hash: Sha256,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(to)?;
        self.hash.update(&to[..read]);
        Ok(read)
    }
}

impl InputFile {
    /// Reads every row, as it will run, on the threads of the current rayon pool. Memory does not grow with
    /// the input but for 28 bytes a row. `progress` is told now and then; `cancel` ends the check.
    ///
    /// # Errors
    /// An input that cannot be read, has no rows or no such column, or two rows of one id. A row that is
    /// wrong is counted, not an error.
    pub fn check(
        self,
        preparer: Arc<RowPreparer>,
        progress: &mut dyn FnMut(CheckProgress),
        cancel: &AtomicBool,
    ) -> Result<CheckedInput, InputError> {
        let Self { name, file, bytes: total_bytes, begin, form, column, raw } = self;
        let ending = form.delimiter().map_or(Ending::Line, Ending::Delimited);
        let mut layout = Layout { form, raw, columns: None };
        if form != InputForm::JsonLines && !raw && !preparer.chats() {
            return Err(InputError::NoChat { name });
        }
        let failed = |cause| InputError::Read { name: name.clone(), cause };
        let mut hashed = Hashed { from: FromOffset { file: &file, offset: 0 }, hash: Sha256::new() };
        hashed.by_ref().take(begin).read_to_end(&mut Vec::new()).map_err(failed)?;
        let mut records = Records::new(BufReader::with_capacity(1 << 16, hashed), ending, begin, 1);
        let mut unused_columns = Vec::new();
        if form.delimiter().is_some() {
            (layout.columns, unused_columns) = names(&mut records, form, &column, &name)?;
        }

        let mut index = Index::default();
        let mut counts = CheckCounts::default();
        let mut bytes = Vec::new();
        let mut chunk: Vec<(Record, Range<usize>)> = Vec::new();
        loop {
            if cancel.load(Ordering::Relaxed) {
                return Err(InputError::Cancelled);
            }
            bytes.clear();
            // One row of many MiB does not stay for the whole run.
            bytes.shrink_to(2 * CHUNK_BYTES);
            chunk.clear();
            while chunk.len() < CHUNK_ROWS && bytes.len() < CHUNK_BYTES {
                let start = bytes.len();
                let Some(record) = records.next(&mut bytes).map_err(failed)? else { break };
                if record.fault.is_none() && is_blank(&bytes[start..]) {
                    counts.blank_lines += 1;
                    bytes.truncate(start);
                } else {
                    chunk.push((record, start..bytes.len()));
                }
            }
            if chunk.is_empty() {
                break;
            }
            let seen = chunk
                .par_iter()
                .map(|(record, range)| see(&layout, &preparer, record, &bytes[range.clone()]));
            for ((record, _), seen) in chunk.iter().zip(seen.collect::<Vec<_>>()) {
                let Seen { id, content, mark, result } = seen;
                if !index.push(record.offset, record.line, mark, id.as_deref(), content) {
                    return Err(InputError::TooMany { name });
                }
                counts.add(record.line, id, result);
            }
            progress(CheckProgress { rows: counts.rows, bytes: records.offset(), total_bytes });
        }
        if counts.rows == 0 {
            return Err(InputError::NoRows { name });
        }
        let bytes = records.offset();
        let digest = records.into_inner().into_inner().hash.finalize().into();
        let suspects = index.finish();
        let checked =
            CheckedInput { name, file, layout, index, preparer, counts, digest, bytes, unused_columns };
        checked.no_duplicates(&suspects)?;
        Ok(checked)
    }
}

/// The columns that a delimited input has: those that are read, and the names of the others.
fn names(
    records: &mut Records<impl io::BufRead>,
    form: InputForm,
    column: &str,
    name: &str,
) -> Result<(Option<Columns>, Vec<String>), InputError> {
    let mut bytes = Vec::new();
    let first = loop {
        bytes.clear();
        let next = records.next(&mut bytes);
        let first = next.map_err(|cause| InputError::Read { name: name.to_owned(), cause })?;
        match first {
            None => return Err(InputError::NoRows { name: name.to_owned() }),
            Some(record) if record.fault.is_some() || !is_blank(&bytes) => break record,
            Some(_) => {}
        }
    };
    let wrong = |fault: &str| InputError::Names { name: name.to_owned(), fault: fault.to_owned() };
    if first.fault.is_some() {
        return Err(wrong("has a quote that does not end or does not end a field"));
    }
    let fields = delimited(&bytes, form.delimiter().unwrap_or(b','));
    let names = fields.iter().map(|field| std::str::from_utf8(field).map(|name| name.trim().to_owned()));
    let names: Vec<String> = names.collect::<Result<_, _>>().map_err(|_| wrong("is not UTF-8"))?;
    let find = |column: &str| {
        let mut found = names.iter().enumerate().filter(|(_, name)| *name == column).map(|(at, _)| at);
        (found.next(), found.next().is_some())
    };
    let (prompt, twice) = find(column);
    let prompt = match prompt {
        Some(at) if !twice => at,
        _ => {
            let (name, column) = (name.to_owned(), column.to_owned());
            return Err(InputError::Column { name, column, columns: names, twice });
        }
    };
    let mut id = None;
    for column in ["custom_id", "id"] {
        let (at, twice) = find(column);
        if twice {
            let (name, column) = (name.to_owned(), column.to_owned());
            return Err(InputError::Column { name, column, columns: names, twice });
        }
        id = id.or(at.filter(|&at| at != prompt));
    }
    let used = |at: usize| at == prompt || Some(at) == id;
    let unused = names.iter().enumerate().filter(|&(at, _)| !used(at)).map(|(_, name)| name.clone());
    Ok((Some(Columns { count: names.len(), prompt, id }), unused.collect()))
}

/// Reads a record as it will run.
fn see(layout: &Layout, preparer: &RowPreparer, record: &Record, bytes: &[u8]) -> Seen {
    let Parsed { id, body } = parse(layout, bytes, record.fault);
    let mark = mark_of(bytes);
    match body {
        Err(error) => Seen { id, content: None, mark, result: Err(error) },
        Ok(body) => {
            let content = id.is_none().then(|| first_8(&preparer.digest(&body)));
            let prepared = preparer.prepare(preparer.row(record.line, id.clone(), body, 0));
            Seen { id, content, mark, result: prepared.map(|prepared| size(&prepared)) }
        }
    }
}

fn size(prepared: &Prepared) -> Size {
    let job = &prepared.job;
    let prompt = job.prompt.len();
    match &job.task {
        Task::Answers(answers) => {
            let longest = answers.max_new.min(job.n_ctx - prompt);
            let all = longest as u64 * answers.seeds.len() as u64;
            Size { prompt, answers: all, positions: prompt + longest, choices: 0 }
        }
        Task::Choices(choices) => {
            let tokens = choices.ids.iter().map(|ids| (ids.len() - choices.from) as u64).sum();
            let positions = choices.ids.iter().map(Vec::len).max().unwrap_or(prompt);
            Size { prompt, answers: 0, positions, choices: tokens }
        }
    }
}

impl CheckCounts {
    fn add(&mut self, line: u64, id: Option<String>, result: Result<Size, RowError>) {
        self.rows += 1;
        match result {
            Ok(size) => {
                self.prompt_tokens += size.prompt as u64;
                self.longest_prompt = self.longest_prompt.max(size.prompt);
                self.most_answer_tokens += size.answers;
                self.most_positions = self.most_positions.max(size.positions);
                self.choice_tokens += size.choices;
            }
            Err(error) => {
                *self.failures.entry(error.code).or_default() += 1;
                if self.first_failures.len() < KEPT_FAILURES {
                    let id = id.unwrap_or_else(|| line_id(line));
                    self.first_failures.push(BadRow { id, line, error });
                }
            }
        }
    }
}

impl CheckedInput {
    /// Number of rows, those that fail included; at least 1.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Never: an input without rows is refused.
    pub fn is_empty(&self) -> bool {
        self.index.len() == 0
    }

    /// Its file, or `standard input`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What its records are.
    pub fn form(&self) -> InputForm {
        self.layout.form
    }

    /// What the check counted.
    pub fn counts(&self) -> &CheckCounts {
        &self.counts
    }

    /// SHA-256 of the whole input, decompressed and in UTF-8.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// Bytes of the whole input, decompressed and in UTF-8.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Columns of CSV and TSV that are neither the prompt nor the id: they change nothing.
    pub fn unused_columns(&self) -> &[String] {
        &self.unused_columns
    }

    /// Bytes of memory that the rows take.
    pub fn index_bytes(&self) -> usize {
        self.index.bytes()
    }

    /// Row `row` of the input, from 0 to below [`CheckedInput::len`].
    ///
    /// # Errors
    /// [`InputError::Changed`] if the row is not the one that was checked, [`InputError::Read`]. The inner
    /// error is that of a row that fails, the same each time.
    pub fn prepared(&self, row: usize) -> Result<Result<Prepared, BadRow>, InputError> {
        let line = self.index.get(row).line;
        let Parsed { id, body } = self.parsed(row)?;
        let id_or_line = || id.clone().unwrap_or_else(|| line_id(line));
        let same = self.index.same_before(row);
        let prepared = body
            .and_then(|body| self.preparer.prepare(self.preparer.row(line, id.clone(), body, same)))
            .map_err(|error| BadRow { id: id_or_line(), line, error });
        Ok(prepared)
    }

    /// The row with this id, that of a row without one being `line-N`.
    ///
    /// # Errors
    /// As [`CheckedInput::prepared`].
    pub fn find(&self, id: &str) -> Result<Option<usize>, InputError> {
        match self.index.find(id).as_slice() {
            [] => Ok(None),
            &[row] => Ok(Some(row)),
            rows => {
                for &row in rows {
                    if self.id(row)? == id {
                        return Ok(Some(row));
                    }
                }
                Ok(None)
            }
        }
    }

    /// The id of row `row`.
    ///
    /// # Errors
    /// As [`CheckedInput::prepared`].
    pub fn id(&self, row: usize) -> Result<String, InputError> {
        let own = self.parsed(row)?.id;
        Ok(own.unwrap_or_else(|| line_id(self.index.get(row).line)))
    }

    /// The line on which row `row` begins, from 1.
    pub fn line(&self, row: usize) -> u64 {
        self.index.get(row).line
    }

    /// The rows of shard `shard` of `shards`, in the input's order: which one a row belongs to depends on its
    /// id alone, on every machine. `shard < shards`.
    pub fn shard(&self, shard: u64, shards: u64) -> Vec<u32> {
        self.index.part(shard, shards.max(1))
    }

    fn parsed(&self, row: usize) -> Result<Parsed, InputError> {
        let entry = self.index.get(row);
        let from = BufReader::new(FromOffset { file: &self.file, offset: entry.offset });
        let ending = self.layout.form.delimiter().map_or(Ending::Line, Ending::Delimited);
        let mut bytes = Vec::new();
        let record = Records::new(from, ending, entry.offset, entry.line).next(&mut bytes);
        let record = record.map_err(|cause| InputError::Read { name: self.name.clone(), cause })?;
        match record {
            Some(record) if mark_of(&bytes) == entry.mark => Ok(parse(&self.layout, &bytes, record.fault)),
            _ => Err(InputError::Changed { name: self.name.clone(), line: entry.line }),
        }
    }

    fn no_duplicates(&self, suspects: &[Suspect]) -> Result<(), InputError> {
        for suspect in suspects {
            let id = self.id(suspect.first)?;
            if self.id(suspect.second)? == id {
                let [first, second] = [suspect.first, suspect.second].map(|row| self.line(row));
                return Err(InputError::Duplicate { name: self.name.clone(), id, first, second });
            }
        }
        Ok(())
    }
}
