//! A file as records: a line each, or in CSV and TSV a record each, which quotes may spread over lines.
//!
//! In: bytes. Out: the bytes of each record with its offset and line, never more than [`MAX_RECORD_BYTES`] of
//! one. Knows nothing of what is in a record.

use std::io::{self, BufRead};

/// The longest record: of a longer one only its place is told.
pub const MAX_RECORD_BYTES: usize = 16 << 20;

/// Where records end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// At every line break.
    Line,
    /// At a line break outside of quotes, with this byte between fields.
    Delimited(u8),
}

/// What is wrong with the bytes of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is longer than [`MAX_RECORD_BYTES`]; its bytes are not given.
    TooLong,
    /// A quoted field does not end.
    Unclosed,
    /// Text follows the quote that ends a field.
    AfterQuote,
}

/// The place of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Its first byte, from 0.
    pub(super) offset: u64,
    /// The line on which it begins, from 1.
    pub(super) line: u64,
    /// What is wrong with its bytes.
    pub(super) fault: Option<Fault>,
}

/// Where a byte stands in a delimited record.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    FieldStart,
    Field,
    Quoted,
    /// After a quote in a quoted field: its end, or the first of two.
    Quote,
}

/// Reads records one by one.
pub(super) struct Records<R> {
    from: R,
    ending: Ending,
    offset: u64,
    line: u64,
}

impl<R: BufRead> Records<R> {
    /// `from` begins at byte `offset`, which is in line `line`.
    pub(super) fn new(from: R, ending: Ending, offset: u64, line: u64) -> Self {
        Self { from, ending, offset, line }
    }

    /// The bytes read so far, those before the first record included.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// What the bytes are read from.
    pub(super) fn into_inner(self) -> R {
        self.from
    }

    /// Appends the next record to `bytes`, without its line break; `None` at the end. At the end of the input
    /// a last record needs no line break.
    pub(super) fn next(&mut self, bytes: &mut Vec<u8>) -> io::Result<Option<Record>> {
        let start = bytes.len();
        let mut record = Record { offset: self.offset, line: self.line, fault: None };
        let mut place = Place::FieldStart;
        loop {
            let chunk = match self.from.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                chunk => chunk?,
            };
            if chunk.is_empty() {
                if self.offset == record.offset {
                    return Ok(None);
                }
                if place == Place::Quoted && record.fault.is_none() {
                    record.fault = Some(Fault::Unclosed);
                }
                break;
            }
            let end = match self.ending {
                Ending::Line => chunk.iter().position(|&b| b == b'\n'),
                Ending::Delimited(delimiter) => {
                    scan(chunk, delimiter, &mut place, &mut record.fault, &mut self.line)
                }
            };
            let part = end.unwrap_or(chunk.len());
            if record.fault != Some(Fault::TooLong) {
                if bytes.len() - start + part > MAX_RECORD_BYTES {
                    record.fault = Some(Fault::TooLong);
                    bytes.truncate(start);
                } else {
                    bytes.extend_from_slice(&chunk[..part]);
                }
            }
            let used = part + usize::from(end.is_some());
            self.from.consume(used);
            self.offset += used as u64;
            if end.is_some() {
                break;
            }
        }
        self.line += 1;
        if bytes.len() > start && bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
        Ok(Some(record))
    }
}

/// The index of the line break that ends the record, as the `csv` crate sees it; counts those before.
fn scan(
    chunk: &[u8],
    delimiter: u8,
    place: &mut Place,
    fault: &mut Option<Fault>,
    line: &mut u64,
) -> Option<usize> {
    for (i, &byte) in chunk.iter().enumerate() {
        *place = match (*place, byte) {
            (Place::Quoted, b'"') => Place::Quote,
            (Place::Quoted, _) => {
                *line += u64::from(byte == b'\n');
                Place::Quoted
            }
            (_, b'\n') => return Some(i),
            (Place::Quote, b'"') => Place::Quoted,
            (Place::FieldStart, b'"') => Place::Quoted,
            (_, byte) if byte == delimiter => Place::FieldStart,
            // The carriage return of a line break, or else text after the field's end.
            (Place::Quote, b'\r') => Place::Quote,
            (Place::Quote, _) => {
                fault.get_or_insert(Fault::AfterQuote);
                Place::Field
            }
            _ => Place::Field,
        };
    }
    None
}
