//! A `.bin` shard as `torch.save` writes it: a zip archive of stored members, one of them a pickle that
//! describes tensors, one for each storage.

use super::folder::NewFile;
use super::weights::{CheckpointTensor, WeightSink};
use crate::error::Error;

/// Data begins at a multiple of this, so that it can be mapped; the gap is a field of the member's own
/// header.
const ALIGNMENT: u64 = 64;
/// Version needed to read: 4.5, which has zip64.
const VERSION: u16 = 45;
/// In the 32-bit fields of a record whose 64-bit fields hold the number.
const WIDE: u32 = u32::MAX;

/// Writes one shard; `name`: that of the file, whose stem the members' names begin with.
pub(super) fn write(
    file: &NewFile,
    name: &str,
    tensors: &[CheckpointTensor],
    sink: &WeightSink<'_>,
) -> Result<(), Error> {
    let stem = name.strip_suffix(".bin").unwrap_or(name);
    let mut zip = Zip { file, at: 0, directory: Vec::new(), members: 0 };
    zip.add(&format!("{stem}/data.pkl"), Content::Bytes(&pickle(tensors)))?;
    zip.add(&format!("{stem}/byteorder"), Content::Bytes(b"little"))?;
    for (key, tensor) in tensors.iter().enumerate() {
        zip.add(&format!("{stem}/data/{key}"), Content::Tensor(sink, tensor))?;
    }
    zip.add(&format!("{stem}/version"), Content::Bytes(b"3\n"))?;
    zip.finish()
}

/// A dict of tensors, each alone in the storage whose key is its number.
fn pickle(tensors: &[CheckpointTensor]) -> Vec<u8> {
    // PROTO 2, EMPTY_DICT, MARK.
    let mut out = b"\x80\x02}(".to_vec();
    for (key, t) in tensors.iter().enumerate() {
        string(&mut out, &t.name);
        out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        // The persistent id of a storage: ('storage', type, key, place, elements).
        string(&mut out, "storage");
        out.extend(b"ctorch\nHalfStorage\n");
        string(&mut out, &key.to_string());
        string(&mut out, "cpu");
        integer(&mut out, t.bytes / 2);
        // TUPLE, BINPERSID; first element; shape; strides.
        out.extend(b"tQ");
        integer(&mut out, 0);
        let strides = (0..t.shape.len()).map(|i| t.shape[i + 1..].iter().product());
        tuple(&mut out, t.shape.iter().copied());
        tuple(&mut out, strides);
        // No gradient, no hooks; TUPLE, REDUCE.
        out.extend(b"\x89ccollections\nOrderedDict\n)RtR");
    }
    // SETITEMS, STOP.
    out.extend(b"u.");
    out
}

/// BINUNICODE
fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'X');
    out.extend((text.len() as u32).to_le_bytes());
    out.extend(text.as_bytes());
}

/// LONG1 of eight bytes and a sign.
fn integer(out: &mut Vec<u8>, n: u64) {
    // The reader of the other side takes eight bytes at most: sizes are far below 2^63.
    out.extend([0x8a, 8]);
    out.extend(n.to_le_bytes());
}

/// MARK, integers, TUPLE
fn tuple(out: &mut Vec<u8>, values: impl Iterator<Item = u64>) {
    out.push(b'(');
    values.for_each(|n| integer(out, n));
    out.push(b't');
}

/// What a member holds.
enum Content<'a> {
    Bytes(&'a [u8]),
    Tensor(&'a WeightSink<'a>, &'a CheckpointTensor),
}

/// An archive as far as it is written.
struct Zip<'a> {
    file: &'a NewFile,
    at: u64,
    directory: Vec<u8>,
    members: u64,
}

impl Zip<'_> {
    fn add(&mut self, name: &str, content: Content<'_>) -> Result<(), Error> {
        let header = self.at;
        let len = match content {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::Tensor(_, tensor) => tensor.bytes,
        };
        let sizes = |wide: bool| if wide { vec![len, len] } else { Vec::new() };
        let wide = len >= WIDE.into();
        let mut extra = zip64(&sizes(wide));
        let fixed = 30 + name.len() as u64 + extra.len() as u64;
        // A field of an id of its own and as many bytes as are missing, four for its head at least.
        let pad = (header + fixed + 4).next_multiple_of(ALIGNMENT) - (header + fixed + 4);
        extra.extend(b"FB");
        extra.extend((pad as u16).to_le_bytes());
        extra.resize(extra.len() + pad as usize, b'Z');
        let data = header + 30 + (name.len() + extra.len()) as u64;

        let crc = match content {
            Content::Bytes(bytes) => {
                self.file.write_at(data, bytes)?;
                crc32fast::hash(bytes)
            }
            Content::Tensor(sink, tensor) => sink.put(self.file, data, tensor)?,
        };
        let narrow = if wide { WIDE } else { len as u32 };
        let common = |extra: &[u8]| {
            let mut out = Vec::new();
            // Version, names in UTF-8, stored, no time.
            [VERSION, 0x800, 0, 0, 0].iter().for_each(|n| out.extend(n.to_le_bytes()));
            [crc, narrow, narrow].iter().for_each(|n| out.extend(n.to_le_bytes()));
            [name.len() as u16, extra.len() as u16].iter().for_each(|n| out.extend(n.to_le_bytes()));
            out
        };
        self.file
            .write_at(header, &[b"PK\x03\x04", &common(&extra)[..], name.as_bytes(), &extra].concat())?;

        let far = header >= WIDE.into();
        let extra = zip64(&[sizes(wide), if far { vec![header] } else { Vec::new() }].concat());
        self.directory.extend(b"PK\x01\x02");
        self.directory.extend(VERSION.to_le_bytes());
        self.directory.extend(common(&extra));
        // No comment, first part, no attributes.
        self.directory.extend([0; 10]);
        self.directory.extend(if far { WIDE } else { header as u32 }.to_le_bytes());
        self.directory.extend(name.as_bytes());
        self.directory.extend(extra);
        self.members += 1;
        self.at = data + len;
        Ok(())
    }

    fn finish(self) -> Result<(), Error> {
        let (at, len, n) = (self.at, self.directory.len() as u64, self.members);
        let mut out = self.directory;
        // The zip64 end record is always there, as from torch: its size without these twelve bytes, versions,
        // parts.
        out.extend(b"PK\x06\x06");
        out.extend(44u64.to_le_bytes());
        out.extend([VERSION, VERSION].iter().flat_map(|n| n.to_le_bytes()));
        out.extend([0; 8]);
        out.extend([n, n, len, at].iter().flat_map(|n| n.to_le_bytes()));
        // Its place, and the number of parts.
        out.extend(b"PK\x06\x07\0\0\0\0");
        out.extend((at + len).to_le_bytes());
        out.extend(1u32.to_le_bytes());
        // The old record, with what fits it.
        let count = u16::try_from(n).unwrap_or(u16::MAX);
        let small = |n: u64| u32::try_from(n).unwrap_or(WIDE);
        out.extend(b"PK\x05\x06\0\0\0\0");
        out.extend([count, count].iter().flat_map(|n| n.to_le_bytes()));
        out.extend([small(len), small(at)].iter().flat_map(|n| n.to_le_bytes()));
        out.extend([0, 0]);
        self.file.write_at(at, &out)
    }
}

/// The zip64 field of these numbers, none for none.
fn zip64(values: &[u64]) -> Vec<u8> {
    if values.is_empty() {
        return Vec::new();
    }
    let head = [1, 8 * values.len() as u16].map(u16::to_le_bytes).concat();
    let values: Vec<u8> = values.iter().flat_map(|n| n.to_le_bytes()).collect();
    [head, values].concat()
}
