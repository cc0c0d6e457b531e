//! Where the rows of an input are: at most 28 bytes a row, whatever its length.

use super::prepare::first_8;
use sha2::{Digest, Sha256};

/// A row.
#[derive(Clone, Copy, Debug)]
struct Place {
    offset: u64,
    line: u32,
    /// The lower 31 bits: a digest of the record's bytes. The highest: whether the row has an id of its own.
    mark: u32,
}

const OWN_ID: u32 = 1 << 31;

/// A digest and the row that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Keyed {
    high: u32,
    low: u32,
    row: u32,
}

impl Keyed {
    fn new(key: u64, row: u32) -> Self {
        Self { high: (key >> 32) as u32, low: key as u32, row }
    }

    fn key(self) -> u64 {
        u64::from(self.high) << 32 | u64::from(self.low)
    }
}

/// What is kept of a row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) offset: u64,
    pub(super) line: u64,
    pub(super) mark: u32,
}

/// The rows of an input in its order.
#[derive(Debug, Default)]
pub(super) struct Index {
    rows: Vec<Place>,
    /// Rows with an id of their own, by the digest of the id.
    ids: Vec<Keyed>,
    /// Rows without one, by the digest of what they ask; empty once sorted out.
    contents: Vec<Keyed>,
    /// For each row without an id that others of its content precede: the row, how many precede it.
    same: Vec<(u32, u32)>,
    /// Rows whose own id is `line-N`: N, the row; empty once sorted out.
    lines: Vec<(u32, u32)>,
}

/// Two rows that may have one id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Suspect {
    /// The later row.
    pub(super) second: usize,
    /// The earlier row.
    pub(super) first: usize,
}

impl Index {
    /// Adds a row; false when there are more rows or lines than an index has numbers for.
    pub(super) fn push(
        &mut self,
        offset: u64,
        line: u64,
        mark: u32,
        id: Option<&str>,
        content: Option<u64>,
    ) -> bool {
        let (Ok(row), Ok(line)) = (u32::try_from(self.rows.len()), u32::try_from(line)) else { return false };
        let own = if id.is_some() { OWN_ID } else { 0 };
        self.rows.push(Place { offset, line, mark: mark & !OWN_ID | own });
        if let Some(id) = id {
            self.ids.push(Keyed::new(id_digest(id), row));
            if let Some(line) = line_of(id) {
                self.lines.push((line, row));
            }
        } else if let Some(content) = content {
            self.contents.push(Keyed::new(content, row));
        }
        true
    }

    /// Sorts out which rows are alike; gives those that may have the id of another, in the input's order.
    pub(super) fn finish(&mut self) -> Vec<Suspect> {
        let mut suspects = Vec::new();
        self.ids.sort_unstable();
        for group in self.ids.chunk_by(|a, b| a.key() == b.key()).filter(|group| group.len() > 1) {
            for pair in group.windows(2) {
                suspects.push(Suspect { second: pair[1].row as usize, first: pair[0].row as usize });
            }
        }
        for (line, row) in std::mem::take(&mut self.lines) {
            if let Some(other) = self.without_id(line) {
                let (first, second) = (other.min(row as usize), other.max(row as usize));
                suspects.push(Suspect { second, first });
            }
        }
        suspects.sort_unstable();

        let mut contents = std::mem::take(&mut self.contents);
        contents.sort_unstable();
        for group in contents.chunk_by(|a, b| a.key() == b.key()) {
            self.same.extend((0..).zip(group).skip(1).map(|(before, keyed)| (keyed.row, before)));
        }
        self.same.sort_unstable();
        self.rows.shrink_to_fit();
        self.ids.shrink_to_fit();
        suspects
    }

    /// The row without an id at a line.
    fn without_id(&self, line: u32) -> Option<usize> {
        let row = self.rows.binary_search_by_key(&line, |place| place.line).ok()?;
        (self.rows[row].mark & OWN_ID == 0).then_some(row)
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// `row < len`.
    pub(super) fn get(&self, row: usize) -> Entry {
        let Place { offset, line, mark } = self.rows[row];
        Entry { offset, line: u64::from(line), mark: mark & !OWN_ID }
    }

    /// How many rows of the same content and without an id come before a row without an id.
    pub(super) fn same_before(&self, row: usize) -> u64 {
        let found = self.same.binary_search_by_key(&(row as u64), |&(row, _)| u64::from(row));
        found.map_or(0, |at| u64::from(self.same[at].1))
    }

    /// The rows whose ids may be `id`: one at most, unless digests of 64 bits collide.
    pub(super) fn find(&self, id: &str) -> Vec<usize> {
        let key = id_digest(id);
        let first = self.ids.partition_point(|keyed| keyed.key() < key);
        let own = self.ids[first..].iter().take_while(|keyed| keyed.key() == key);
        let mut rows = Vec::from_iter(own.map(|keyed| keyed.row as usize));
        rows.extend(line_of(id).and_then(|line| self.without_id(line)));
        rows
    }

    /// The rows of part `part` of `parts`, by the digests of their ids, in the input's order.
    pub(super) fn part(&self, part: u64, parts: u64) -> Vec<u32> {
        let mine = |key: u64| key % parts == part;
        let own = self.ids.iter().filter(|keyed| mine(keyed.key())).map(|keyed| keyed.row);
        let mut rows = Vec::from_iter(own);
        for (row, place) in (0..).zip(&self.rows) {
            if place.mark & OWN_ID == 0 && mine(id_digest(&super::prepare::line_id(u64::from(place.line)))) {
                rows.push(row);
            }
        }
        rows.sort_unstable();
        rows
    }

    /// Bytes that the index takes.
    pub(super) fn bytes(&self) -> usize {
        self.rows.capacity() * size_of::<Place>()
            + (self.ids.capacity() + self.contents.capacity()) * size_of::<Keyed>()
            + (self.same.capacity() + self.lines.capacity()) * size_of::<(u32, u32)>()
    }
}

/// A digest of an id, the same on every machine.
pub(super) fn id_digest(id: &str) -> u64 {
    first_8(&Sha256::digest(id.as_bytes()))
}

/// A digest of the bytes of a record, of 31 bits.
pub(super) fn mark_of(bytes: &[u8]) -> u32 {
    first_8(&Sha256::digest(bytes)) as u32 & !OWN_ID
}

/// The N of `line-N`.
fn line_of(id: &str) -> Option<u32> {
    let digits = id.strip_prefix("line-")?;
    let plain = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
    digits.parse().ok().filter(|_| plain)
}
