//! Rows that are answered as they arrive.

use super::super::row::{Prepared, RowError};
use super::check::BadRow;
use super::form::InputForm;
use super::index::id_digest;
use super::parse::{Layout, Parsed, is_blank, parse};
use super::prepare::{RowPreparer, first_8, line_id};
use super::records::{Ending, Records};
use huozi_quant::message::shown;
use std::collections::{HashMap, HashSet};
use std::io::{self, BufRead};
use std::sync::Arc;

/// Rows of a stream, in JSON lines or text, each ready to run as soon as its line break is there. A row
/// whose id was there before fails.
pub struct FollowedInput<R> {
    records: Records<R>,
    layout: Layout,
    preparer: Arc<RowPreparer>,
    /// Digests of the ids so far.
    ids: HashSet<u64>,
    /// How many rows without an id there were of each content.
    contents: HashMap<u64, u64>,
    bytes: Vec<u8>,
}

impl<R: BufRead> FollowedInput<R> {
    /// `text`: lines are prompts, continued as they are if `raw`, else messages of the user; otherwise they
    /// are JSON objects.
    pub fn new(from: R, text: bool, raw: bool, preparer: Arc<RowPreparer>) -> Self {
        let form = if text { InputForm::Text } else { InputForm::JsonLines };
        Self {
            records: Records::new(from, Ending::Line, 0, 1),
            layout: Layout { form, raw, columns: None },
            preparer,
            ids: HashSet::new(),
            contents: HashMap::new(),
            bytes: Vec::new(),
        }
    }

    /// Waits for the next row; `None` at the end of the stream.
    ///
    /// # Errors
    /// The stream cannot be read.
    pub fn next_row(&mut self) -> io::Result<Option<Result<Prepared, BadRow>>> {
        loop {
            self.bytes.clear();
            self.bytes.shrink_to(1 << 20);
            let Some(record) = self.records.next(&mut self.bytes)? else { return Ok(None) };
            let bytes = match self.bytes.strip_prefix(b"\xef\xbb\xbf") {
                Some(bytes) if record.line == 1 => bytes,
                _ => &self.bytes,
            };
            if record.fault.is_none() && is_blank(bytes) {
                continue;
            }
            let Parsed { id, body } = parse(&self.layout, bytes, record.fault);
            let told = id.clone().unwrap_or_else(|| line_id(record.line));
            let line = record.line;
            if !self.ids.insert(id_digest(&told)) {
                let message = format!("the id \"{}\" was there before: each row needs its own", shown(&told));
                let error = RowError { code: "duplicate_id", message, param: Some("custom_id".to_owned()) };
                return Ok(Some(Err(BadRow { id: told, line, error })));
            }
            let prepared = body.and_then(|body| {
                let mut same = 0;
                if id.is_none() {
                    let count = self.contents.entry(first_8(&self.preparer.digest(&body))).or_default();
                    same = *count;
                    *count += 1;
                }
                self.preparer.prepare(self.preparer.row(line, id, body, same))
            });
            return Ok(Some(prepared.map_err(|error| BadRow { id: told, line, error })));
        }
    }
}
