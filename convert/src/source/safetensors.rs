//! The header of a safetensors file: names, types, shapes and places.
//!
//! Only the header is read. It is parsed here and not by the crate of that name because the crate wants the
//! whole file in memory, keeps the last of two tensors with one name, and gives up at a type it does not
//! know, used or not.

use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::dtype::Dtype;
use super::error::{Error, shown};
use super::input::Input;
use super::limits::{MAX_DIMS, MAX_TENSORS};
use super::rows::{Place, contiguous, product};
use super::tensor::{Entry, SourceTensor};

/// The format's own limit.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// Lists the tensors of `input`, which is number `index` of the checkpoint.
pub(super) fn list(input: &Input, index: usize) -> Result<Vec<Entry>, Error> {
    let file = input.name();
    let mut length = [0; 8];
    input.read_at(0, &mut length)?;
    let length = u64::from_le_bytes(length);
    let header = input.read_vec(8, length, MAX_HEADER_BYTES, "a header")?;
    let data = 8 + length;
    let data_bytes = input.len() - data;
    let mut raw = parse(file, &header)?;
    raw.sort_by_key(|t| (t.offsets, t.at));
    let mut end = 0;
    let mut entries = Vec::with_capacity(raw.len());
    for t in raw {
        let wrong = |expected: String, found: String| {
            Err(Error::format(file, 8, format!("tensor {} with {expected}", shown(&t.name)), found))
        };
        let (from, to) = t.offsets;
        if from > to {
            return wrong(format!("data inside 0..{data_bytes}"), format!("{from}..{to}"));
        }
        if to > data_bytes {
            let found = format!("{from}..{to}: the file is cut short, or its header is wrong");
            return wrong(format!("data inside 0..{data_bytes}"), found);
        }
        if from != end {
            let what = if from < end { "overlaps" } else { "leaves a hole after" };
            return wrong(format!("data from {end}"), format!("{from}..{to}, which {what} the one before"));
        }
        end = to;
        let Some(count) = product(&t.shape) else {
            return wrong("a shape that fits 64 bits".into(), format!("{:?}", t.shape));
        };
        // A type that the crate does not know can be listed; its size cannot be checked.
        let known: Option<::safetensors::Dtype> =
            serde_json::from_value(serde_json::Value::String(t.dtype.clone())).ok();
        if let Some(known) = known {
            let bits = count.checked_mul(known.bitsize() as u64);
            if bits.is_none_or(|bits| bits % 8 != 0 || bits / 8 != to - from) {
                let expected = format!("the bytes of {known} {:?}", t.shape);
                return wrong(expected, format!("{from}..{to}, {} bytes", to - from));
            }
        }
        let dtype = match known {
            Some(::safetensors::Dtype::F32) => Dtype::F32,
            Some(::safetensors::Dtype::F16) => Dtype::F16,
            Some(::safetensors::Dtype::BF16) => Dtype::BF16,
            _ => Dtype::Other(shown(&t.dtype)),
        };
        let place = Place {
            input: index,
            base: data + from,
            storage: count,
            first: 0,
            strides: contiguous_of(&t.shape),
            sum: None,
        };
        entries.push(Entry {
            tensor: SourceTensor { name: t.name, shape: t.shape, dtype, file: file.into(), bytes: to - from },
            place,
        });
    }
    if end != data_bytes {
        return Err(Error::format(
            file,
            data + end,
            "the end of the file",
            format!("{} bytes more: download it again", data_bytes - end),
        ));
    }
    Ok(entries)
}

/// Strides where they mean something; a tensor without elements needs none that could overflow.
fn contiguous_of(shape: &[u64]) -> Vec<u64> {
    if shape.contains(&0) { vec![1; shape.len()] } else { contiguous(shape) }
}

struct Raw {
    name: String,
    /// Position among the header's tensors: the order for empty tensors at one offset.
    at: usize,
    dtype: String,
    shape: Vec<u64>,
    offsets: (u64, u64),
}

fn parse(file: &str, header: &[u8]) -> Result<Vec<Raw>, Error> {
    let bad = |e: serde_json::Error| {
        // The header is one line as a rule; serde counts columns from 1.
        let at = if e.line() == 1 { 8 + e.column().saturating_sub(1) as u64 } else { 8 };
        Error::format(file, at, "a JSON header of tensors", shown(&e.to_string()))
    };
    let mut json = serde_json::Deserializer::from_slice(header);
    let tensors = json.deserialize_map(Header).map_err(bad)?;
    json.end().map_err(bad)?;
    Ok(tensors)
}

struct Header;

impl<'de> Visitor<'de> for Header {
    type Value = Vec<Raw>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<Raw>, A::Error> {
        let mut out = Vec::new();
        let mut names = std::collections::HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            if out.len() == MAX_TENSORS {
                return Err(serde::de::Error::custom(format_args!("more than {MAX_TENSORS} tensors")));
            }
            if !names.insert(name.clone()) {
                return Err(serde::de::Error::custom(format_args!("tensor {} twice", shown(&name))));
            }
            let info: Info = map.next_value()?;
            out.push(Raw {
                name,
                at: out.len(),
                dtype: info.dtype,
                shape: info.shape.0,
                offsets: info.data_offsets,
            });
        }
        Ok(out)
    }
}

#[derive(serde::Deserialize)]
struct Info {
    dtype: String,
    shape: Dims,
    data_offsets: (u64, u64),
}

/// A shape of at most [`MAX_DIMS`]: a header of nothing but `1,1,1,..` is stopped while it is read.
struct Dims(Vec<u64>);

impl<'de> serde::Deserialize<'de> for Dims {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Vec<u64>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a shape of at most {MAX_DIMS} dimensions")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<u64>, A::Error> {
                let mut out = Vec::new();
                while let Some(d) = seq.next_element()? {
                    if out.len() == MAX_DIMS {
                        return Err(serde::de::Error::invalid_length(MAX_DIMS + 1, &self));
                    }
                    out.push(d);
                }
                Ok(out)
            }
        }
        d.deserialize_seq(V).map(Dims)
    }
}
