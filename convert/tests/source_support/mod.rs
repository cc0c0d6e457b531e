//! Builders of small checkpoints, right and wrong: zip archives, pickles, safetensors.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::borrow::Cow;

use huozi_convert::source::{Checkpoint, Error};

/// A checkpoint of these files in memory.
pub fn open(files: &[(&str, Vec<u8>)]) -> Result<Checkpoint, Error> {
    Checkpoint::from_memory(files.iter().map(|(n, b)| (n.to_string(), Cow::Owned(b.clone()))).collect())
}

/// All numbers of a tensor.
pub fn values(checkpoint: &Checkpoint, name: &str) -> Vec<f32> {
    let i = checkpoint.find(name).unwrap_or_else(|| panic!("no tensor {name}"));
    let t = &checkpoint.tensors()[i];
    let mut out = vec![f32::NAN; (t.rows() * t.cols()) as usize];
    checkpoint.read_rows(i, 0..t.rows(), &mut out).unwrap();
    out
}

pub fn f32s(values: impl IntoIterator<Item = f32>) -> Vec<u8> {
    values.into_iter().flat_map(f32::to_le_bytes).collect()
}

pub fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

pub fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |c: u32, &b| {
        (0..8).fold(c ^ u32::from(b), |c, _| if c & 1 == 1 { c >> 1 ^ 0xedb8_8320 } else { c >> 1 })
    })
}

/// One member of an archive; every field may lie.
#[derive(Clone)]
pub struct Member {
    pub name: String,
    /// Name in its own header, where it differs.
    pub local_name: Option<String>,
    pub data: Vec<u8>,
    pub method: u16,
    pub flags: u16,
    pub crc: u32,
    /// Size in the directory.
    pub size: u64,
    /// Put sizes and offset into zip64 fields.
    pub wide: bool,
    /// Zeros behind `data` that belong to the member and are written nowhere.
    pub hole: u64,
}

pub fn member(name: &str, data: impl Into<Vec<u8>>) -> Member {
    let data = data.into();
    let (crc, size) = (crc32(&data), data.len() as u64);
    Member { name: name.into(), local_name: None, data, method: 0, flags: 0, crc, size, wide: false, hole: 0 }
}

pub fn zip(members: &[Member]) -> Vec<u8> {
    zip_with(members, members.iter().any(|m| m.wide))
}

pub fn zip_with(members: &[Member], zip64: bool) -> Vec<u8> {
    zip_pieces(members, zip64).into_iter().flat_map(|(_, bytes)| bytes).collect()
}

/// The parts of an archive and where they lie: what is between them is a hole.
pub fn zip_pieces(members: &[Member], zip64: bool) -> Vec<(u64, Vec<u8>)> {
    let (mut pieces, mut at, mut directory) = (Vec::new(), 0, Vec::new());
    for m in members {
        let (offset, mut out) = (at, Vec::new());
        let narrow = if m.wide { u32::MAX } else { m.size as u32 };
        let sizes = [m.size.to_le_bytes(), m.size.to_le_bytes()].concat();
        let wide = |values: &[u8]| {
            let head = [1u16.to_le_bytes(), (values.len() as u16).to_le_bytes()].concat();
            if m.wide { [&head[..], values].concat() } else { Vec::new() }
        };
        let common = |extra: &[u8], name: &str| {
            let mut c = Vec::new();
            c.extend(45u16.to_le_bytes());
            c.extend(m.flags.to_le_bytes());
            c.extend(m.method.to_le_bytes());
            c.extend([0; 4]);
            c.extend(m.crc.to_le_bytes());
            c.extend(narrow.to_le_bytes());
            c.extend(narrow.to_le_bytes());
            c.extend((name.len() as u16).to_le_bytes());
            c.extend((extra.len() as u16).to_le_bytes());
            c
        };
        let extra = wide(&sizes);
        let local = m.local_name.as_ref().unwrap_or(&m.name);
        out.extend(b"PK\x03\x04");
        out.extend(common(&extra, local));
        out.extend(local.as_bytes());
        out.extend(extra);
        out.extend(&m.data);
        at += out.len() as u64 + m.hole;
        pieces.push((offset, out));
        let extra = wide(&[&sizes[..], &offset.to_le_bytes()].concat());
        directory.extend(b"PK\x01\x02\x2d\x00");
        directory.extend(common(&extra, &m.name));
        directory.extend([0; 10]);
        directory.extend(if m.wide { u32::MAX } else { offset as u32 }.to_le_bytes());
        directory.extend(m.name.as_bytes());
        directory.extend(extra);
    }
    let n = members.len() as u64;
    let mut out = directory.clone();
    if zip64 {
        let record = at + out.len() as u64;
        out.extend(b"PK\x06\x06");
        out.extend(44u64.to_le_bytes());
        out.extend([45, 0, 45, 0]);
        out.extend([0; 8]);
        for x in [n, n, directory.len() as u64, at] {
            out.extend(x.to_le_bytes());
        }
        out.extend(b"PK\x06\x07");
        out.extend([0; 4]);
        out.extend(record.to_le_bytes());
        out.extend(1u32.to_le_bytes());
    }
    let (n, len, start) =
        if zip64 { (u16::MAX, u32::MAX, u32::MAX) } else { (n as u16, directory.len() as u32, at as u32) };
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend([n.to_le_bytes(), n.to_le_bytes()].concat());
    out.extend(len.to_le_bytes());
    out.extend(start.to_le_bytes());
    out.extend([0, 0]);
    pieces.push((at, out));
    pieces
}

/// Pickle opcodes: an integer, a string, a tuple of what `parts` push, a global.
pub fn int(n: i64) -> Vec<u8> {
    [&[0x8a, 8][..], &n.to_le_bytes()].concat()
}
pub fn text(s: &str) -> Vec<u8> {
    [b"X", &(s.len() as u32).to_le_bytes()[..], s.as_bytes()].concat()
}
pub fn tuple(parts: &[Vec<u8>]) -> Vec<u8> {
    [b"(".to_vec(), parts.concat(), b"t".to_vec()].concat()
}
pub fn ints(values: &[i64]) -> Vec<u8> {
    tuple(&values.iter().map(|&n| int(n)).collect::<Vec<_>>())
}
pub fn global(module: &str, name: &str) -> Vec<u8> {
    format!("c{module}\n{name}\n").into_bytes()
}

pub fn storage(class: &str, key: &str, count: i64) -> Vec<u8> {
    let id = tuple(&[text("storage"), global("torch", class), text(key), text("cpu"), int(count)]);
    [id, b"Q".to_vec()].concat()
}

pub fn tensor(storage: Vec<u8>, offset: i64, shape: &[i64], strides: &[i64]) -> Vec<u8> {
    let hooks = [global("collections", "OrderedDict"), b")R".to_vec()].concat();
    let args = tuple(&[storage, int(offset), ints(shape), ints(strides), vec![0x89], hooks]);
    [global("torch._utils", "_rebuild_tensor_v2"), args, b"R".to_vec()].concat()
}

/// A whole pickle of a dict of (name, what pushes its value).
pub fn dict(items: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let items: Vec<u8> =
        items.iter().flat_map(|(name, value)| [text(name), value.clone()].concat()).collect();
    [b"}(".to_vec(), items, b"u".to_vec()].concat()
}
pub fn pickle(body: Vec<u8>) -> Vec<u8> {
    [b"\x80\x02".to_vec(), body, b".".to_vec()].concat()
}

/// An archive of this pickle and twelve f32 numbers 0..12 under key 0.
pub fn bin(pickle: Vec<u8>) -> Vec<u8> {
    zip(&[member("a/data.pkl", pickle), member("a/data/0", f32s((0..12).map(|i| i as f32)))])
}

pub fn open_pickle(pickle: Vec<u8>) -> Result<Checkpoint, Error> {
    open(&[("pytorch_model.bin", bin(pickle))])
}

/// The message of what must not open, with everything it has to say.
#[track_caller]
pub fn refused(what: &str, result: Result<Checkpoint, Error>, says: &[&str]) {
    let error = match result {
        Ok(checkpoint) => panic!("{what}: opened, {:?}", checkpoint.tensors()),
        Err(e) => e.to_string(),
    };
    for part in says {
        assert!(error.contains(part), "{what}: {error:?} does not say {part:?}");
    }
    assert!(!error.chars().any(char::is_control), "{what}: {error:?}");
}
