//! A safetensors file: eight bytes of length, a JSON header, the tensors one behind the other.

use serde_json::{Map, Value, json};

use super::folder::NewFile;
use super::weights::{CheckpointTensor, WeightSink};
use crate::error::Error;

/// Writes one shard. Inside it tensors lie in the order of their names, as that library sorts them.
pub(super) fn write(
    file: &NewFile,
    tensors: &[CheckpointTensor],
    sink: &WeightSink<'_>,
) -> Result<(), Error> {
    let mut tensors: Vec<&CheckpointTensor> = tensors.iter().collect();
    tensors.sort_by_key(|t| &t.name);
    let mut header = Map::new();
    header.insert("__metadata__".into(), json!({ "format": "pt" }));
    let mut end = 0;
    for t in &tensors {
        let from = end;
        end += t.bytes;
        let info = json!({ "dtype": "F16", "shape": t.shape, "data_offsets": [from, end] });
        header.insert(t.name.clone(), info);
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    file.write_at(0, &[&(header.len() as u64).to_le_bytes(), &header[..]].concat())?;
    let mut at = 8 + header.len() as u64;
    for t in tensors {
        sink.put(file, at, t)?;
        at += t.bytes;
    }
    Ok(())
}
