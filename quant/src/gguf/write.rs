//! Writing a file: the layout is fixed first, data comes in any order from any thread, the header comes last.
//!
//! Until [`Writer::finish`] a file begins with zeros, so that one cut short is no GGUF file. Padding is zero.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use super::check::{self, SHA256_KEY, SUM_CHARS};
use super::limits::{self, align_up};
use super::owned::encode_string;
use super::{Error, MetaValue, Place, Rule, TensorInfo, header};
use crate::Format;

/// The name of a file that is being written, in messages: only its descriptor is known here.
const FILE: &str = "new GGUF file";

/// A tensor to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// The name, at most 63 bytes.
    pub name: String,
    /// The encoding.
    pub format: Format,
    /// 1 to 4 sizes, columns first.
    pub dims: Vec<u64>,
}

/// A whole file but for its tensor data: the header's bytes and where every tensor goes.
#[derive(Clone, Debug)]
pub struct Layout {
    header: Vec<u8>,
    file_bytes: u64,
    tensors: Vec<TensorInfo>,
    /// Where in the header the sums of the tensors go, if it has room for them.
    sums_at: Option<usize>,
}

impl Layout {
    /// Lays out a version 3 file: tensors in the given order, each padded to the alignment (32, or what a
    /// `general.alignment` among `meta` says), the last one too. With a [`check::placeholder`] under
    /// [`SHA256_KEY`] the file will carry the sums of its tensors.
    ///
    /// # Errors
    /// The first [`Rule`] that the file would break: what is written here can be read.
    pub fn new(meta: &[(String, MetaValue)], tensors: Vec<TensorSpec>) -> Result<Layout, Error> {
        let mut header = Vec::new();
        header.extend(b"GGUF");
        header.extend(3u32.to_le_bytes());
        header.extend((tensors.len() as u64).to_le_bytes());
        header.extend((meta.len() as u64).to_le_bytes());
        let mut sums_at = None;
        for (key, value) in meta {
            if key == SHA256_KEY && *value == check::placeholder(tensors.len()) {
                // Behind the key, the type of the value, that of the elements and their number.
                sums_at = Some(header.len() + 8 + key.len() + 4 + 4 + 8);
            }
            encode_string(key, &mut header);
            header.extend(value.value_type().id().to_le_bytes());
            value.encode(&mut header).map_err(|other| {
                let found = format!("{} {other}", if other == super::ValueType::I8 { "an" } else { "a" });
                Error::malformed(
                    Rule::ValueType,
                    FILE,
                    Place::Key(key.clone()),
                    None,
                    "an array of arrays",
                    found,
                )
            })?;
        }
        // A bad alignment is refused by `parse` below; until then any will do.
        let alignment = meta.iter().find_map(|(key, value)| match value {
            MetaValue::U32(x) if key == "general.alignment" => Some(u64::from(*x)),
            _ => None,
        });
        let alignment = alignment.filter(|&a| limits::is_alignment(a)).unwrap_or(limits::DEFAULT_ALIGNMENT);

        let mut data_bytes = 0u64;
        for tensor in &tensors {
            let place = || Place::Tensor(tensor.name.clone());
            if tensor.name.len() as u64 > limits::MAX_WRITTEN_TENSOR_NAME_BYTES {
                let expected = format!("a name of at most {} bytes", limits::MAX_WRITTEN_TENSOR_NAME_BYTES);
                let found = format!("{} bytes", tensor.name.len());
                return Err(Error::malformed(Rule::TensorName, FILE, place(), None, expected, found));
            }
            encode_string(&tensor.name, &mut header);
            header.extend((tensor.dims.len() as u32).to_le_bytes());
            tensor.dims.iter().for_each(|d| header.extend(d.to_le_bytes()));
            header.extend(tensor.format.gguf_id().to_le_bytes());
            header.extend(data_bytes.to_le_bytes());
            let end =
                limits::tensor_bytes(tensor.format, &tensor.dims).and_then(|n| data_bytes.checked_add(n));
            data_bytes = end.and_then(|end| align_up(end, alignment)).ok_or_else(|| {
                let found = format!("{} {:?}", tensor.format, tensor.dims);
                Error::malformed(Rule::TensorSize, FILE, place(), None, "a tensor that fits memory", found)
            })?;
        }
        let data_offset = align_up(header.len() as u64, alignment);
        let file_bytes =
            data_offset.and_then(|o| o.checked_add(data_bytes)).filter(|&n| i64::try_from(n).is_ok());
        let file_bytes = file_bytes.ok_or_else(|| {
            let found = format!("{data_bytes} bytes of tensors");
            Error::malformed(Rule::TensorSize, FILE, Place::Header, None, "a file below 2^63 bytes", found)
        })?;
        // Every rule of the reader holds for what is written, checked by the reader itself.
        let tensors = header::parse(FILE, &header, file_bytes)?.tensors;
        Ok(Layout { header, file_bytes, tensors, sums_at })
    }

    /// The bytes the file begins with, without the padding before the data.
    pub fn header(&self) -> &[u8] {
        &self.header
    }

    /// The length of the file.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// The tensors in file order, with their places in the file.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }
}

/// A file being written.
#[derive(Debug)]
pub struct Writer {
    file: File,
    layout: Layout,
    /// What is written of each tensor.
    written: Vec<Mutex<Ranges>>,
}

impl Writer {
    /// Empties `file`, which must be open for writing, and gives it its length.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn create(file: File, layout: Layout) -> Result<Writer, Error> {
        // Truncated to 0 first, so that old bytes cannot remain in the padding.
        file.set_len(0).and_then(|()| file.set_len(layout.file_bytes)).map_err(io("set the length"))?;
        let written = layout.tensors.iter().map(|_| Mutex::default()).collect();
        Ok(Writer { file, layout, written })
    }

    /// Resumes a file that [`create`](Self::create) made with the same layout and that was not finished;
    /// [`keep`](Self::keep) tells which parts are written already.
    ///
    /// # Errors
    /// [`Rule::Truncated`] when it has another length, [`Error::Io`].
    pub fn resume(file: File, layout: Layout) -> Result<Writer, Error> {
        let found = file.metadata().map_err(io("stat"))?.len();
        if found != layout.file_bytes {
            let expected = format!("{} bytes", layout.file_bytes);
            return Err(Error::malformed(
                Rule::Truncated,
                FILE,
                Place::Header,
                None,
                expected,
                found.to_string(),
            ));
        }
        // An existing header would vouch for data that is missing.
        file.write_all_at(&vec![0; layout.header.len()], 0).map_err(io("write"))?;
        let written = layout.tensors.iter().map(|_| Mutex::default()).collect();
        Ok(Writer { file, layout, written })
    }

    /// Takes bytes of a tensor as written, without writing them.
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at).
    pub fn keep(&self, tensor: usize, offset: u64, bytes: u64) -> Result<(), Error> {
        let Some(part) = self.part(tensor, offset, bytes)? else { return Ok(()) };
        lock(part.written).add(offset, part.end).map_err(|()| part.twice(offset))
    }

    /// Reads bytes of a tensor back.
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at).
    pub fn read_at(&self, tensor: usize, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        let Some(part) = self.part(tensor, offset, out.len() as u64)? else { return Ok(()) };
        self.file.read_exact_at(out, part.info.offset + offset).map_err(io("read back"))
    }

    /// What is being written.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Writes `data` at byte `offset` of tensor number `tensor`, by its place in [`Layout::tensors`].
    ///
    /// Threads may write different parts at the same time. What failed may be written again.
    ///
    /// # Errors
    /// [`Rule::WriteRange`] when there is no such tensor or it is too short, [`Rule::WrittenTwice`] for bytes
    /// that are already there, [`Error::Io`].
    pub fn write_at(&self, tensor: usize, offset: u64, data: &[u8]) -> Result<(), Error> {
        let Some(part) = self.part(tensor, offset, data.len() as u64)? else { return Ok(()) };
        // Asked before, so that nothing good is overwritten; noted after, so that a failed write can be
        // repeated.
        lock(part.written).free(offset, part.end).map_err(|()| part.twice(offset))?;
        self.file.write_all_at(data, part.info.offset + offset).map_err(io("write"))?;
        lock(part.written).add(offset, part.end).map_err(|()| part.twice(offset))
    }

    /// Some bytes of a tensor; `None` for none.
    fn part(&self, tensor: usize, offset: u64, bytes: u64) -> Result<Option<Part<'_>>, Error> {
        let outside = |place, expected: String, found: String| {
            Err(Error::malformed(Rule::WriteRange, FILE, place, None, expected, found))
        };
        let (Some(info), Some(written)) = (self.layout.tensors.get(tensor), self.written.get(tensor)) else {
            let expected = format!("one of {} tensors", self.layout.tensors.len());
            return outside(Place::Header, expected, format!("number {tensor}"));
        };
        let Some(end) = offset.checked_add(bytes).filter(|&end| end <= info.bytes) else {
            let place = Place::Tensor(info.name.clone());
            return outside(
                place,
                format!("at most {} bytes", info.bytes),
                format!("{bytes} bytes at {offset}"),
            );
        };
        Ok((bytes > 0).then_some(Part { info, written, end }))
    }

    /// The sum of every tensor, read back from the file.
    fn sums(&self, on: &(dyn Fn(u64) -> std::io::Result<()> + Sync)) -> Result<Vec<check::Sum>, Error> {
        let sum = |t: &TensorInfo| check::sum_of(&self.file, t.offset, t.bytes, on);
        self.layout.tensors.par_iter().map(sum).collect::<Result<_, _>>().map_err(io("read back"))
    }

    /// Writes the header and waits until everything is on the disk. The sums of the tensors, where the layout
    /// has room for them, are taken of what the file gives back (so `file` must be open for reading too), by
    /// the threads of the current rayon pool.
    ///
    /// # Errors
    /// [`Rule::Incomplete`] when a byte of a tensor is missing, [`Error::Io`].
    pub fn finish(self) -> Result<File, Error> {
        self.finish_watched(&|_| Ok(()))
    }

    /// [`finish`](Self::finish) with progress. `on`: receives the bytes read back, from any thread; an error
    /// from it ends the work before the header is written.
    ///
    /// # Errors
    /// As `finish`; also what `on` gives, as [`Error::Io`].
    pub fn finish_watched(mut self, on: &(dyn Fn(u64) -> std::io::Result<()> + Sync)) -> Result<File, Error> {
        for (info, written) in self.layout.tensors.iter().zip(&self.written) {
            let written = lock(written).total();
            if written != info.bytes {
                let (expected, found) = (format!("{} bytes written", info.bytes), written.to_string());
                let place = Place::Tensor(info.name.clone());
                return Err(Error::malformed(Rule::Incomplete, FILE, place, None, expected, found));
            }
        }
        // The data first: after a crash a header never vouches for data that did not arrive.
        self.file.sync_data().map_err(io("sync"))?;
        if let Some(at) = self.layout.sums_at {
            for (i, sum) in self.sums(on)?.iter().enumerate() {
                let at = at + i * (8 + SUM_CHARS) + 8;
                self.layout.header[at..at + SUM_CHARS].copy_from_slice(check::hex(sum).as_bytes());
            }
        }
        self.file.write_all_at(&self.layout.header, 0).map_err(io("write"))?;
        self.file.sync_all().map_err(io("sync"))?;
        Ok(self.file)
    }
}

/// Some bytes of a tensor that is being written.
struct Part<'a> {
    info: &'a TensorInfo,
    written: &'a Mutex<Ranges>,
    end: u64,
}

impl Part<'_> {
    fn twice(&self, offset: u64) -> Error {
        let (place, found) =
            (Place::Tensor(self.info.name.clone()), format!("some of {offset}..{} a second time", self.end));
        Error::malformed(Rule::WrittenTwice, FILE, place, None, "every byte once", found)
    }
}

fn io(action: &'static str) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::Io { file: FILE.to_owned(), action, source }
}

/// A panic in another thread leaves `Ranges` as it was: nothing in it panics half-way.
fn lock(ranges: &Mutex<Ranges>) -> std::sync::MutexGuard<'_, Ranges> {
    ranges.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Disjoint ranges, start to end; neighbours are merged, so that writing in rough order keeps it short.
#[derive(Debug, Default)]
struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    /// `Ok` when no byte of the non-empty `start..end` is in here.
    fn free(&self, start: u64, end: u64) -> Result<(), ()> {
        // The last range that begins before `end` is the only one that can reach past `start` if any does.
        match self.0.range(..end).next_back() {
            Some((_, &before_end)) if before_end > start => Err(()),
            _ => Ok(()),
        }
    }

    fn add(&mut self, mut start: u64, mut end: u64) -> Result<(), ()> {
        self.free(start, end)?;
        if let Some((&before, &before_end)) = self.0.range(..start).next_back()
            && before_end == start
        {
            start = before;
        }
        if let Some(after_end) = self.0.remove(&end) {
            end = after_end;
        }
        self.0.insert(start, end);
        Ok(())
    }

    fn total(&self) -> u64 {
        self.0.iter().map(|(start, end)| end - start).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_merge_and_refuse_every_kind_of_overlap() {
        let mut r = Ranges::default();
        for (start, end) in [(10, 20), (30, 40), (20, 25), (0, 5), (25, 30)] {
            r.add(start, end).unwrap();
        }
        assert_eq!(r.0, BTreeMap::from([(0, 5), (10, 40)]));
        assert_eq!(r.total(), 35);
        for (start, end) in [(10, 20), (39, 50), (5, 11), (0, 1), (4, 6), (0, 100), (15, 16), (9, 41)] {
            assert_eq!(r.add(start, end), Err(()), "{start}..{end}");
        }
        r.add(5, 10).unwrap();
        assert_eq!(r.0, BTreeMap::from([(0, 40)]));
    }
}
