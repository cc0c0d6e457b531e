//! The journal of an unfinished file: a text file beside it with one line per chunk that is on the disk.
//!
//! ```text
//! huozi-convert journal 2 DIGEST
//! CHUNK SHA256 ERROR POWER ZEROED
//! ```
//!
//! A line is written after the chunk's data has been synced, so a line is true even if
//! the machine stops at any moment; a torn last line is cut off. The digest is of everything that decides the
//! bytes of the file: a journal with another one is of another conversion.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use huozi_quant::gguf::check::{Sum, hex};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

/// The largest journal read: that of a 7B model has 3 MB.
const MAX_BYTES: u64 = 256 << 20;

/// What journals of all versions begin with.
const OURS: &str = "huozi-convert journal ";
const TITLE: &str = "huozi-convert journal 2";

/// The error of encoding some weights. The sums of squares are over the sampled rows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Loss {
    /// Squares of the differences.
    pub error: f64,
    /// Squares of the weights.
    pub power: f64,
    /// How many NaN and infinite weights, of all rows, were written as 0.
    pub zeroed: u64,
}

impl Loss {
    /// Of `weights` that came back as `decoded`; nothing of rows that are not finite.
    pub fn of(weights: &[f32], decoded: &[f32]) -> Self {
        // In f64: the difference of two large numbers may be beyond f32.
        let sum = |of: &mut dyn Iterator<Item = f64>| of.map(|x| x * x).sum();
        let error: f64 = sum(&mut weights.iter().zip(decoded).map(|(x, y)| f64::from(*x) - f64::from(*y)));
        let power: f64 = sum(&mut weights.iter().map(|x| f64::from(*x)));
        if error.is_finite() && power.is_finite() {
            Self { error, power, zeroed: 0 }
        } else {
            Self::default()
        }
    }

    pub fn add(&mut self, other: Self) {
        self.error += other.error;
        self.power += other.power;
        self.zeroed += other.zeroed;
    }

    /// Root of the error's share: 0 for a copy, 1 for nothing left.
    pub fn relative(self) -> f64 {
        if self.power > 0.0 {
            (self.error / self.power).sqrt()
        } else {
            f64::from(u8::from(self.error > 0.0))
        }
    }
}

/// A finished chunk.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Record {
    /// Its number.
    pub chunk: usize,
    /// The sum of its bytes.
    pub sum: Sum,
    pub loss: Loss,
}

impl Record {
    fn line(&self) -> String {
        let Loss { error, power, zeroed } = self.loss;
        let (chunk, sum) = (self.chunk, hex(&self.sum));
        format!("{chunk} {sum} {:016x} {:016x} {zeroed}\n", error.to_bits(), power.to_bits())
    }

    fn read(line: &str) -> Option<Self> {
        let mut parts = line.split(' ');
        let chunk = parts.next()?.parse().ok()?;
        let digits = parts.next()?;
        let mut sum = Sum::default();
        if digits.len() != 2 * sum.len() || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        for (i, byte) in sum.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&digits[2 * i..][..2], 16).ok()?;
        }
        let mut number = || Some(f64::from_bits(u64::from_str_radix(parts.next()?, 16).ok()?));
        let (error, power) = (number()?, number()?);
        let loss = Loss { error, power, zeroed: parts.next()?.parse().ok()? };
        parts.next().is_none().then_some(Self { chunk, sum, loss })
    }
}

/// The content of a journal when it was opened.
#[derive(Debug, PartialEq)]
pub(crate) enum JournalState {
    /// Nothing: a new file.
    Nothing,
    /// A journal of another conversion.
    Foreign,
    /// A file that is no journal of this program.
    OtherFile,
    /// The finished chunks of this conversion, each once.
    Same(Vec<Record>),
}

/// An open journal; the owner holds the lock of the file that it describes.
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    records: usize,
}

impl Journal {
    /// Reads what is there. With the same digest it can be added to, else [`begin`](Self::begin) comes first.
    pub fn open(mut file: File, digest: &str) -> io::Result<(Self, JournalState)> {
        let mut text = Vec::new();
        (&mut file).take(MAX_BYTES).read_to_end(&mut text)?;
        let first = format!("{TITLE} {digest}\n");
        if text.is_empty() {
            return Ok((Self { file, records: 0 }, JournalState::Nothing));
        }
        let Some(mut rest) = text.strip_prefix(first.as_bytes()) else {
            // Also one whose first line was not written to its end.
            let ours = text.starts_with(OURS.as_bytes()) || OURS.as_bytes().starts_with(&text);
            let found = if ours { JournalState::Foreign } else { JournalState::OtherFile };
            return Ok((Self { file, records: 0 }, found));
        };
        let (mut records, mut seen, mut good) = (Vec::new(), HashSet::new(), first.len());
        while let Some(end) = rest.iter().position(|&b| b == b'\n') {
            let Some(record) = std::str::from_utf8(&rest[..end]).ok().and_then(Record::read) else { break };
            if seen.insert(record.chunk) {
                records.push(record);
            }
            (good, rest) = (good + end + 1, &rest[end + 1..]);
        }
        file.set_len(good as u64)?;
        file.seek(SeekFrom::End(0))?;
        Ok((Self { file, records: records.len() }, JournalState::Same(records)))
    }

    /// Empties the journal and writes its first line.
    pub fn begin(&mut self, digest: &str) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(format!("{TITLE} {digest}\n").as_bytes())?;
        self.records = 0;
        self.file.sync_data()
    }

    /// Takes room on the disk for so many chunks, without changing what is there.
    pub fn reserve(&self, chunks: usize) -> Result<(), Errno> {
        // A sum, twice 16 digits and two numbers of some; the first line is no longer.
        let bytes = (chunks as u64 + 1) * 128;
        fallocate(&self.file, FallocateFlags::KEEP_SIZE, 0, bytes)
    }

    /// Adds chunks whose data is on the disk.
    pub fn add(&mut self, records: &[Record]) -> io::Result<()> {
        let lines: String = records.iter().map(Record::line).collect();
        self.file.write_all(lines.as_bytes())?;
        self.records += records.len();
        self.file.sync_data()
    }

    /// How many chunks are noted.
    pub fn len(&self) -> usize {
        self.records
    }
}

/// The digest of some parts and their lengths.
pub(crate) fn digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hex(&hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(chunk: usize) -> Record {
        Record { chunk, sum: [chunk as u8; 32], loss: Loss { error: 0.5, power: 1e300, zeroed: 12 } }
    }

    #[test]
    fn what_was_noted_is_found_and_a_torn_line_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j");
        let open = |digest: &str| {
            let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
            Journal::open(file.unwrap(), digest).unwrap()
        };
        let (mut journal, found) = open("a");
        assert_eq!(found, JournalState::Nothing);
        journal.begin("a").unwrap();
        journal.add(&[record(7), record(3)]).unwrap();
        journal.add(&[record(7)]).unwrap();
        assert_eq!(open("a").1, JournalState::Same(vec![record(7), record(3)]));
        assert_eq!(open("b").1, JournalState::Foreign);
        // Cut anywhere: the whole lines before it are found, and what is added then is readable.
        let whole = std::fs::read(&path).unwrap();
        let line = record(7).line().len();
        let first = whole.len() - 3 * line;
        for cut in [whole.len() - 1, first + line + 1, first + line, first + line - 1, first] {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let kept = (cut - first) / line;
            let (mut journal, found) = open("a");
            let JournalState::Same(records) = found else { panic!("{found:?}") };
            assert_eq!(records[..], [record(7), record(3)][..kept], "cut at {cut}");
            journal.add(&[record(9)]).unwrap();
            assert_eq!(open("a").1, JournalState::Same([&records[..], &[record(9)]].concat()));
        }
        std::fs::write(&path, &whole[..first - 1]).unwrap();
        assert_eq!(open("a").1, JournalState::Foreign);
        for (text, expected) in [
            (&[0xff; 100][..], JournalState::OtherFile),
            (b"Monday: rain\n", JournalState::OtherFile),
            (&whole[..4], JournalState::Foreign),
            (b"huozi-convert journal 1 a\n", JournalState::Foreign),
        ] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(open("a").1, expected, "{text:?}");
            assert_eq!(std::fs::read(&path).unwrap(), text);
        }
        open("a").0.begin("a").unwrap();
        assert_eq!(open("a").1, JournalState::Same(Vec::new()));
    }

    #[test]
    fn lines_that_are_no_records_end_the_list() {
        let good = record(1).line();
        assert_eq!(Record::read(good.trim_end()), Some(record(1)));
        for bad in [
            "",
            "1",
            "x",
            &good.replace('1', "-1"),
            &good.trim_end()[..good.len() - 2],
            &format!("{} 1", good.trim_end()),
        ] {
            let read = Record::read(bad.trim_end());
            assert!(read.is_none() || bad.len() == good.len() - 2, "{bad:?}: {read:?}");
        }
        assert_ne!(digest([&b"ab"[..], b"c"]), digest([&b"a"[..], b"bc"]));
    }

    #[test]
    fn losses() {
        assert_eq!(Loss::of(&[3.0, 4.0], &[3.0, 4.0]).relative(), 0.0);
        assert_eq!(Loss::of(&[3.0, 4.0], &[0.0, 0.0]).relative(), 1.0);
        assert_eq!(Loss::of(&[0.0], &[1.0]).relative(), 1.0);
        assert_eq!(Loss::of(&[f32::NAN], &[0.0]), Loss::default());
        assert_eq!(Loss::default().relative(), 0.0);
        // Their difference is no f32.
        assert_eq!(Loss::of(&[f32::MAX], &[f32::MIN]).relative(), 2.0);
    }
}
