//! What the three parsers are put through, in the tests and by the fuzzer (`fuzz/`): any bytes at all, to an
//! answer or an error. A panic, a long wait or much memory is a fault.
#![allow(dead_code, reason = "each test binary and each fuzz target uses a part")]

pub mod damage;

use std::borrow::Cow;

use huozi_convert::source::Checkpoint;
use huozi_quant::bloom::shape::Shape;
use huozi_quant::gguf::{Reader, Value};

/// Whether the bytes were taken.
pub type Parser = fn(&[u8]) -> bool;

/// The parsers by name, as the folders of the corpus are called.
pub const PARSERS: [(&str, Parser); 3] = [("gguf", gguf), ("safetensors", safetensors), ("bin", bin)];

/// A GGUF file: its metadata, its shape, a row of each tensor. Whether it is one.
pub fn gguf(bytes: &[u8]) -> bool {
    let Ok(reader) = Reader::from_bytes("x.gguf", bytes.to_vec()) else { return false };
    for (key, value) in reader.meta().iter() {
        assert!(reader.meta().get(key).is_some());
        match value {
            Value::Array(array) => drop(array.iter().count()),
            value => drop(format!("{value:?}")),
        }
    }
    let _ = Shape::from_meta(reader.meta());
    for t in reader.tensors() {
        let (bytes, row) = (reader.bytes(t), t.format.row_bytes(t.cols()));
        if let Some(first) = row.and_then(|row| bytes.get(..row)) {
            let mut out = vec![0.0; t.cols()];
            t.format.decode(first, &mut out);
        }
    }
    true
}

/// A checkpoint of one safetensors file.
pub fn safetensors(bytes: &[u8]) -> bool {
    checkpoint("model.safetensors", bytes.to_vec())
}

/// A checkpoint of one `.bin` file. What is no archive is taken for the pickle in one: its checksum would
/// keep all but whole pickles from the interpreter.
pub fn bin(bytes: &[u8]) -> bool {
    let file = if bytes.starts_with(b"PK") { bytes.to_vec() } else { archive(bytes) };
    checkpoint("pytorch_model.bin", file)
}

/// Whether it opens; its tensors are read.
fn checkpoint(name: &str, bytes: Vec<u8>) -> bool {
    let most = 1 << 16;
    let Ok(checkpoint) = Checkpoint::from_memory(vec![(name.into(), Cow::Owned(bytes))]) else {
        return false;
    };
    for (i, t) in checkpoint.tensors().iter().enumerate().take(64) {
        let rows = t.rows().min(most / t.cols().max(1));
        let mut out = vec![f32::NAN; (rows * t.cols()) as usize];
        let read = checkpoint.read_rows(i, 0..rows, &mut out);
        assert_eq!(read.is_ok(), t.dtype.format().is_some(), "{t:?}: {read:?}");
    }
    true
}

/// An archive of this pickle and 48 bytes of storage 0.
fn archive(pickle: &[u8]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (name, data) in [("a/data.pkl", pickle), ("a/data/0", &[0x3c; 48])] {
        let header = out.len() as u32;
        let mut common = Vec::new();
        [20u16, 0, 0, 0, 0].iter().for_each(|n| common.extend(n.to_le_bytes()));
        let (crc, len) = (crc32fast::hash(data), data.len() as u32);
        [crc, len, len].iter().for_each(|n| common.extend(n.to_le_bytes()));
        [name.len() as u16, 0].iter().for_each(|n| common.extend(n.to_le_bytes()));
        out.extend([b"PK\x03\x04", &common[..], name.as_bytes(), data].concat());
        directory.extend([b"PK\x01\x02\x14\0", &common[..], &[0; 10], &header.to_le_bytes()].concat());
        directory.extend(name.as_bytes());
    }
    let (at, len) = (out.len() as u32, directory.len() as u32);
    out.extend(directory);
    out.extend(b"PK\x05\x06\0\0\0\0\x02\0\x02\0");
    out.extend([len.to_le_bytes(), at.to_le_bytes()].concat());
    out.extend([0, 0]);
    out
}
