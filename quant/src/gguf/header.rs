//! Reading a header: every rule of the format and of [`limits`](super::limits) is checked here, once.

use std::fmt;

use super::foreign::{ForeignTensor, TensorType};
use super::limits::{self, align_up, max_count};
use super::meta::{Entry, Held, Table, ValueType};
use super::{Error, Meta, Place, Rule, TensorInfo};
use crate::Format;
use crate::message::counted;

/// What may have happened to a file that ends too early, and what to do.
const CUT: &str = ": the file was cut, or its download did not finish; download or convert it again";

/// No vocabulary has more elements: a larger number is damage, and no sign that the file was cut.
const MAX_ELEMENTS: u64 = 1 << 24;

/// What a header says, checked against the length of its file.
pub(super) struct Header {
    pub version: u32,
    pub alignment: u64,
    pub data_offset: u64,
    pub table: Table,
    /// In file order.
    pub tensors: Vec<TensorInfo>,
    /// Tensors of types that cannot be decoded, in file order.
    pub foreign: Vec<ForeignTensor>,
}

/// A tensor before its place in the file is known.
struct Described {
    name: String,
    of: TensorType,
    dims: Vec<u64>,
    /// From the start of the tensor data, then from the start of the file.
    offset: u64,
    bytes: u64,
    type_at: u64,
    offset_at: usize,
}

/// Walks the header; every step checks what is left.
struct Cursor<'a> {
    file: &'a str,
    bytes: &'a [u8],
    at: usize,
    /// What is being read, for messages.
    place: Place,
}

impl<'a> Cursor<'a> {
    // `what` is formatted in an error only: there is no allocation per string of an array.

    /// An error about what begins at byte `at`.
    fn error_at(
        &self,
        at: usize,
        rule: Rule,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Error {
        Error::malformed(rule, self.file, self.place.clone(), Some(at as u64), expected, found)
    }

    fn remaining(&self) -> u64 {
        (self.bytes.len() - self.at) as u64
    }

    fn take(&mut self, n: u64, what: impl fmt::Display) -> Result<&'a [u8], Error> {
        if n > self.remaining() {
            let left = self.remaining();
            let found = if left == 0 {
                format!("the end of the file{CUT}")
            } else {
                format!("{} to its end{CUT}", counted(left, "byte"))
            };
            return Err(self.error_at(
                self.at,
                Rule::Truncated,
                format!("{} of {what}", counted(n, "byte")),
                found,
            ));
        }
        // Fits: not more than the length of a slice.
        let (start, n) = (self.at, n as usize);
        self.at += n;
        Ok(&self.bytes[start..self.at])
    }

    fn array<const N: usize>(&mut self, what: impl fmt::Display) -> Result<[u8; N], Error> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N as u64, what)?);
        Ok(out)
    }

    fn u32(&mut self, what: impl fmt::Display) -> Result<u32, Error> {
        self.array(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: impl fmt::Display) -> Result<u64, Error> {
        self.array(what).map(u64::from_le_bytes)
    }

    fn string(&mut self, what: &str, rule: Rule, lengths: (u64, u64)) -> Result<&'a str, Error> {
        let at = self.at;
        let len = self.u64(format_args!("the length of {what}"))?;
        if len < lengths.0 || len > lengths.1 {
            let expected = match lengths.0 {
                0 => format!("{what} of at most {} bytes", lengths.1),
                least => format!("{what} of {least} to {} bytes", lengths.1),
            };
            return Err(self.error_at(at, rule, expected, format!("a length of {len}")));
        }
        let at = self.at;
        let bytes = self.take(len, what)?;
        std::str::from_utf8(bytes).map_err(|e| {
            let bad = e.valid_up_to();
            let found = format!("the byte {:#04x} at position {bad} of {len}", bytes[bad]);
            self.error_at(at + bad, Rule::Utf8, format!("{what} in UTF-8"), found)
        })
    }

    /// A count of things that have at least `min_bytes` each, at most `cap`.
    fn count(&mut self, what: &str, cap: u64, min_bytes: u64) -> Result<usize, Error> {
        let at = self.at;
        let count = self.u64(format_args!("the number of {what}"))?;
        let most = max_count(cap, self.remaining(), min_bytes);
        if count > most {
            let left = self.remaining();
            let expected = format!("at most {most} {what} ({left} bytes are left)");
            // A number that a file may have: the rest of this one is missing.
            let cut = if count <= cap.min(MAX_ELEMENTS) { CUT } else { "" };
            return Err(self.error_at(at, Rule::Count, expected, format!("{count}{cut}")));
        }
        usize::try_from(count).map_err(|_| {
            self.error_at(at, Rule::Count, format!("a number of {what} that fits memory"), count.to_string())
        })
    }

    fn value_type(&mut self, what: &str) -> Result<ValueType, Error> {
        let at = self.at;
        let id = self.u32(what)?;
        let known = || format!("{what}, 0 to {}", ValueType::ALL.len() - 1);
        ValueType::from_id(id).ok_or_else(|| self.error_at(at, Rule::ValueType, known(), id.to_string()))
    }

    /// Checks the value that begins here and steps over it.
    fn value(&mut self) -> Result<Held, Error> {
        let of = self.value_type("a value type")?;
        if of == ValueType::Array {
            return self.elements(1);
        }
        let start = self.at;
        self.scalar(of)?;
        Ok(Held::One(of, start..self.at))
    }

    fn scalar(&mut self, of: ValueType) -> Result<(), Error> {
        match of.fixed_bytes() {
            Some(n) => {
                let at = self.at;
                let bytes = self.take(n as u64, of.name())?;
                if of == ValueType::Bool { self.truth(at, bytes) } else { Ok(()) }
            }
            None => self.string("a string", Rule::StringLength, (0, limits::MAX_STRING_BYTES)).map(drop),
        }
    }

    fn truth(&self, at: usize, bytes: &[u8]) -> Result<(), Error> {
        match bytes.iter().position(|&b| b > 1) {
            None => Ok(()),
            Some(i) => Err(self.error_at(at + i, Rule::Bool, "a BOOL, 0 or 1", bytes[i].to_string())),
        }
    }

    /// Checks the array that begins here with its element type, and steps over it.
    fn elements(&mut self, depth: usize) -> Result<Held, Error> {
        if depth > limits::MAX_ARRAY_DEPTH {
            let expected = format!("arrays at most {} deep", limits::MAX_ARRAY_DEPTH);
            return Err(self.error_at(self.at, Rule::ArrayDepth, expected, "one more array inside"));
        }
        let of = self.value_type("an array element type")?;
        let len = self.count("array elements", u64::MAX, of.min_bytes())?;
        let start = self.at;
        match of.fixed_bytes() {
            Some(n) => {
                // No overflow: `len` elements fit what is left.
                let bytes = self.take((len * n) as u64, "array elements")?;
                if of == ValueType::Bool {
                    self.truth(start, bytes)?;
                }
            }
            None if of == ValueType::Array => {
                (0..len).try_for_each(|_| self.elements(depth + 1).map(drop))?
            }
            None => (0..len).try_for_each(|_| self.scalar(of))?,
        }
        Ok(Held::Many(of, len, start..self.at))
    }

    fn entry(&mut self, number: usize) -> Result<Entry, Error> {
        self.place = Place::Key(format!("#{number}"));
        let key = self.string("a key", Rule::KeyName, (1, limits::MAX_KEY_BYTES))?.to_owned();
        self.place = Place::Key(key.clone());
        Ok(Entry { key, held: self.value()? })
    }

    /// A tensor, its offset still counted from the start of the tensor data.
    fn tensor(&mut self, number: usize) -> Result<Described, Error> {
        self.place = Place::Tensor(format!("#{number}"));
        let name =
            self.string("a tensor name", Rule::TensorName, (1, limits::MAX_TENSOR_NAME_BYTES))?.to_owned();
        self.place = Place::Tensor(name.clone());
        let at = self.at;
        let n_dims = self.u32("the number of dimensions")?;
        if !(1..=limits::MAX_DIMS).contains(&n_dims) {
            let expected = format!("1 to {} dimensions", limits::MAX_DIMS);
            return Err(self.error_at(at, Rule::DimCount, expected, n_dims.to_string()));
        }
        let dims_at = self.at;
        let dims = (0..n_dims).map(|_| self.u64("a dimension")).collect::<Result<Vec<u64>, Error>>()?;
        if dims.contains(&0) {
            return Err(self.error_at(dims_at, Rule::DimZero, "dimensions above 0", format!("{dims:?}")));
        }
        let type_at = self.at;
        let id = self.u32("a tensor type")?;
        let of = TensorType::from_id(id).map_err(|removed| {
            let found = match removed {
                Some(name) => format!("type {id} ({name})"),
                None => format!(
                    "type {id}, which has no name yet: the file is newer than this program, or damaged"
                ),
            };
            self.error_at(type_at, Rule::TensorType, format!("one of {}", Format::names()), found)
        })?;
        let block = of.block_weights();
        if !dims[0].is_multiple_of(block) {
            let expected = format!("rows in whole {} blocks of {block} weights", of.name());
            return Err(self.error_at(dims_at, Rule::Block, expected, format!("rows of {}", dims[0])));
        }
        let bytes = limits::blocks_bytes((block, of.block_bytes()), &dims).ok_or_else(|| {
            let found = format!("{} {dims:?}", of.name());
            self.error_at(dims_at, Rule::TensorSize, "a tensor that fits memory", found)
        })?;
        let offset_at = self.at;
        let offset = self.u64("a tensor offset")?;
        Ok(Described { name, of, dims, offset, bytes, type_at: type_at as u64, offset_at })
    }
}

/// What a file that is no GGUF begins like.
fn looks_like(bytes: &[u8]) -> String {
    let known: [(&[u8], &str); 4] = [
        (b"version https://git-lfs", "a Git LFS pointer: the file itself was not downloaded"),
        (b"PK\x03\x04", "a zip archive, perhaps a PyTorch checkpoint"),
        (b"tjgg", "the GGJT format that GGUF replaced"),
        (b"lmgg", "the GGML format that GGUF replaced"),
    ];
    match known.iter().find(|(start, _)| bytes.starts_with(start)) {
        Some((_, what)) => (*what).to_owned(),
        None if bytes.is_empty() => "an empty file".to_owned(),
        None => format!("\"{}\"", bytes[..bytes.len().min(4)].escape_ascii()),
    }
}

/// Indices `0..n` sorted by `key`; `Err` with the later index of two equal keys.
pub(super) fn sorted<'a>(n: usize, key: impl Fn(usize) -> &'a str) -> Result<Vec<u32>, usize> {
    // n is at most 2^16. Stable: of equal keys the earlier index comes first.
    let mut order: Vec<u32> = (0..n as u32).collect();
    order.sort_by_key(|&i| key(i as usize));
    match order.windows(2).find(|w| key(w[0] as usize) == key(w[1] as usize)) {
        Some(twice) => Err(twice[1] as usize),
        None => Ok(order),
    }
}

/// Reads and checks a header.
///
/// `bytes`: at least the header of a file of `file_bytes` bytes.
pub(super) fn parse(file: &str, bytes: &[u8], file_bytes: u64) -> Result<Header, Error> {
    let mut cursor = Cursor { file, bytes, at: 0, place: Place::Header };
    if !bytes.starts_with(b"GGUF") {
        return Err(cursor.error_at(
            0,
            Rule::Magic,
            "a GGUF file, beginning with \"GGUF\"",
            looks_like(bytes),
        ));
    }
    cursor.at = 4;
    let version = cursor.u32("the version")?;
    match version {
        2 | 3 => {}
        // The low half of a version is 0 only when the bytes are in the other order.
        _ if version != 0 && version & 0xffff == 0 => {
            let found = format!("a big-endian file (version {})", version.swap_bytes());
            return Err(cursor.error_at(4, Rule::Endianness, "a little-endian file", found));
        }
        _ => return Err(cursor.error_at(4, Rule::Version, "GGUF version 2 or 3", version.to_string())),
    }
    let n_tensors_at = cursor.at;
    let n_tensors = cursor.count("tensors", limits::MAX_TENSORS, limits::MIN_TENSOR_BYTES)?;
    let n_kv = cursor.count("metadata entries", limits::MAX_KV, limits::MIN_KV_BYTES)?;

    let mut entries = Vec::with_capacity(n_kv);
    for number in 0..n_kv {
        entries.push(cursor.entry(number)?);
    }
    let by_key = sorted(n_kv, |i| &entries[i].key).map_err(|i| {
        let place = Place::Key(entries[i].key.clone());
        Error::malformed(Rule::KeyTwice, file, place, None, "every key once", "it a second time")
    })?;
    let table = Table { entries, by_key };
    let alignment = alignment(&Meta::new(file, bytes, &table))?;

    cursor.place = Place::Header;
    // Once more, with the bytes that are left behind the metadata, before anything is allocated.
    let most = max_count(limits::MAX_TENSORS, cursor.remaining(), limits::MIN_TENSOR_BYTES);
    if n_tensors as u64 > most {
        let expected = format!("at most {most} tensors ({} bytes are left for them)", cursor.remaining());
        return Err(cursor.error_at(n_tensors_at, Rule::Count, expected, format!("{n_tensors}{CUT}")));
    }
    let mut described = Vec::with_capacity(n_tensors);
    for number in 0..n_tensors {
        described.push(cursor.tensor(number)?);
    }
    sorted(n_tensors, |i| &described[i].name).map_err(|i| {
        let place = Place::Tensor(described[i].name.clone());
        Error::malformed(Rule::TensorTwice, file, place, None, "every tensor once", "it a second time")
    })?;

    // No overflow: the length of a slice plus less than 64 KiB.
    let data_offset = align_up(cursor.at as u64, alignment).unwrap_or(u64::MAX);
    place_tensors(&mut cursor, &mut described, alignment, data_offset, file_bytes)?;
    let (mut tensors, mut foreign) = (Vec::with_capacity(n_tensors), Vec::new());
    for Described { name, of, dims, offset, bytes, type_at, .. } in described {
        match of {
            TensorType::Known(format) => {
                tensors.push(TensorInfo { name, format, dims, part: 0, offset, bytes });
            }
            TensorType::Foreign(type_name, ..) => {
                foreign.push(ForeignTensor { name, type_name, dims, part: 0, type_at });
            }
        }
    }
    Ok(Header { version, alignment, data_offset, table, tensors, foreign })
}

/// `general.alignment`, checked, or the default.
fn alignment(meta: &Meta<'_>) -> Result<u64, Error> {
    let key = "general.alignment";
    let refuse = |found: String| {
        let expected =
            format!("a UINT32, a power of two from {} to {}", limits::MIN_ALIGNMENT, limits::MAX_ALIGNMENT);
        meta.error(Rule::Alignment, key, &expected, &found)
    };
    match meta.get(key) {
        None => Ok(limits::DEFAULT_ALIGNMENT),
        Some(super::Value::U32(x)) if limits::is_alignment(x.into()) => Ok(x.into()),
        Some(other) => Err(refuse(other.describe())),
    }
}

/// Turns offsets into the data into offsets into the file, and checks them: aligned, inside, apart.
fn place_tensors(
    cursor: &mut Cursor<'_>,
    tensors: &mut [Described],
    alignment: u64,
    data_offset: u64,
    file_bytes: u64,
) -> Result<(), Error> {
    let end_of = |tensor: &Described| data_offset.checked_add(tensor.offset)?.checked_add(tensor.bytes);
    let last = tensors.iter().filter_map(end_of).max().unwrap_or(0);
    for tensor in tensors.iter_mut() {
        let at = tensor.offset_at;
        cursor.place = Place::Tensor(tensor.name.clone());
        if !tensor.offset.is_multiple_of(alignment) {
            let expected = format!("an offset that is a multiple of {alignment}");
            return Err(cursor.error_at(at, Rule::Offset, expected, tensor.offset.to_string()));
        }
        let start = data_offset.checked_add(tensor.offset);
        let end = start.and_then(|start| start.checked_add(tensor.bytes));
        match (start, end) {
            (Some(start), Some(end)) if end <= file_bytes => tensor.offset = start,
            _ => {
                let expected = format!(
                    "{} bytes at {} + {}, inside the file's {file_bytes} bytes",
                    tensor.bytes, data_offset, tensor.offset
                );
                let found = match end {
                    // What the whole file lacks, not only this tensor.
                    Some(end) => {
                        format!("its end {} earlier{CUT}", counted(last.max(end) - file_bytes, "byte"))
                    }
                    None => "an end past 2^64".to_owned(),
                };
                return Err(cursor.error_at(at, Rule::OutsideFile, expected, found));
            }
        }
    }
    let mut by_offset: Vec<usize> = (0..tensors.len()).collect();
    by_offset.sort_by_key(|&i| tensors[i].offset);
    for pair in by_offset.windows(2) {
        let (first, second) = (&tensors[pair[0]], &tensors[pair[1]]);
        // No overflow: both ends are inside the file.
        let end = first.offset + first.bytes;
        if second.offset < end {
            cursor.place = Place::Tensor(second.name.clone());
            let expected =
                format!("a start at or after {end}, the end of tensor {}", super::shown(&first.name));
            let found = second.offset.to_string();
            return Err(cursor.error_at(second.offset_at, Rule::Overlap, expected, found));
        }
    }
    Ok(())
}
