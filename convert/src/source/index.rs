//! Which files of a folder hold the weights: one file, an index with its shards, or shards alone.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};

use super::error::{Error, shown};
use super::input::{Folder, Input, is_plain};
use super::limits::MAX_TENSORS;

/// An index of 72 shards and 1000 tensors has 100 KB.
const MAX_INDEX_BYTES: u64 = 64 << 20;

/// The weight files of a checkpoint, in order.
#[derive(Debug, PartialEq)]
pub(super) struct Shards {
    pub files: Vec<String>,
    /// Whether they are pickles, else safetensors.
    pub torch: bool,
    pub index: Option<Index>,
}

/// What `*.index.json` promises.
#[derive(Debug, PartialEq)]
pub(super) struct Index {
    /// Its path, for messages.
    pub file: String,
    /// Tensor name and the shard that has to hold it.
    pub map: Vec<(String, String)>,
}

/// Finds the weight files; safetensors before pickles. Other files of a trainer do not matter.
pub(super) fn find(folder: &Folder) -> Result<Shards, Error> {
    let names = folder.names()?;
    let has = |name: &str| names.iter().any(|n| n == name);
    // An index whose shards were not downloaded, where the other format was.
    let mut without_files = None;
    for (single, torch) in [("model.safetensors", false), ("pytorch_model.bin", true)] {
        if has(single) {
            return Ok(Shards { files: vec![single.into()], torch, index: None });
        }
        let index = format!("{single}.index.json");
        if let Some(input) = if has(&index) { folder.open(&index)? } else { None } {
            let index = read(&input)?;
            let files: BTreeSet<_> = index.map.iter().map(|(_, file)| file.clone()).collect();
            let there = files.iter().any(|file| has(file));
            let shards = Shards { files: files.into_iter().collect(), torch, index: Some(index) };
            if there {
                return Ok(shards);
            }
            without_files = without_files.or(Some(shards));
        }
        if let Some(files) = unindexed(folder, &names, if torch { "bin" } else { "safetensors" })? {
            return Ok(Shards { files, torch, index: None });
        }
    }
    if let Some(shards) = without_files {
        return Ok(shards);
    }
    Err(Error::layout(
        folder.name(),
        "model.safetensors, pytorch_model.bin, either with .index.json, or numbered shards",
        if names.is_empty() { "an empty folder".into() } else { shown(&names.join(", ")) },
    ))
}

/// Reads `weight_map` of an index; anything else in it does not matter.
fn read(input: &Input) -> Result<Index, Error> {
    let bytes = input.read_vec(0, input.len(), MAX_INDEX_BYTES, "an index")?;
    let parsed: Raw = serde_json::from_slice(&bytes).map_err(|e| {
        let before: usize =
            bytes.split_inclusive(|&b| b == b'\n').take(e.line().saturating_sub(1)).map(<[u8]>::len).sum();
        let at = before as u64 + e.column().saturating_sub(1) as u64;
        Error::format(input.name(), at, "a JSON object with a weight_map", shown(&e.to_string()))
    })?;
    let map = parsed.weight_map.0;
    if map.is_empty() {
        return Err(Error::layout(input.name(), "at least one tensor in weight_map", "none"));
    }
    for (tensor, shard) in &map {
        if !is_plain(shard) {
            let expected = format!("a plain file name for tensor {}", shown(tensor));
            return Err(Error::layout(input.name(), expected, shown(shard)));
        }
    }
    Ok(Index { file: input.name().into(), map })
}

#[derive(serde::Deserialize)]
struct Raw {
    weight_map: WeightMap,
}

struct WeightMap(Vec<(String, String)>);

impl<'de> serde::Deserialize<'de> for WeightMap {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Vec<(String, String)>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensor names and shard names")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut out: HashMap<String, (usize, String)> = HashMap::new();
                while let Some((tensor, shard)) = map.next_entry::<String, String>()? {
                    let n = out.len();
                    if n == MAX_TENSORS {
                        return Err(serde::de::Error::custom(format_args!(
                            "more than {MAX_TENSORS} tensors"
                        )));
                    }
                    if let Some((_, other)) = out.insert(tensor.clone(), (n, shard)) {
                        let (tensor, other) = (shown(&tensor), shown(&other));
                        return Err(serde::de::Error::custom(format_args!(
                            "tensor {tensor} twice, first in {other}"
                        )));
                    }
                }
                let mut out: Vec<_> =
                    out.into_iter().map(|(tensor, (n, shard))| (n, tensor, shard)).collect();
                out.sort_unstable();
                Ok(out.into_iter().map(|(_, tensor, shard)| (tensor, shard)).collect())
            }
        }
        d.deserialize_map(V).map(WeightMap)
    }
}

/// Numbered shards without an index: all of one series, complete.
fn unindexed(folder: &Folder, names: &[String], extension: &str) -> Result<Option<Vec<String>>, Error> {
    let mut series: BTreeMap<(&str, Option<u32>), BTreeMap<u32, &str>> = BTreeMap::new();
    for name in names {
        let Some((stem, number, total)) = numbered(name, extension) else { continue };
        if let Some(other) = series.entry((stem, total)).or_default().insert(number, name) {
            let expected = format!("one shard number {number}");
            return Err(Error::layout(
                folder.name(),
                expected,
                format!("{} and {}", shown(other), shown(name)),
            ));
        }
    }
    if series.len() > 1 {
        let found: Vec<_> = series.values().filter_map(|s| s.values().next().map(|n| shown(n))).collect();
        return Err(Error::layout(folder.name(), "one series of shards, or an index", found.join(", ")));
    }
    let Some(((_, total), shards)) = series.pop_first() else { return Ok(None) };
    // Counted from 1, in some old checkpoints from 0.
    let first = if shards.contains_key(&0) { 0 } else { 1 };
    let count = total.unwrap_or(shards.len() as u32);
    let missing = (0..count).map(|i| i + first).find(|i| !shards.contains_key(i));
    if missing.is_some() || shards.len() as u64 != u64::from(count) {
        let missing = missing.map_or_else(String::new, |i| format!("; number {i} is missing"));
        return Err(Error::layout(
            folder.name(),
            format!("{count} shards numbered from {first} (there is no index)"),
            format!("{}{missing}", shards.len()),
        ));
    }
    Ok(Some(shards.into_values().map(String::from).collect()))
}

/// `pytorch_model_00001-of-00072.bin` -> (`pytorch_model_`, 1, Some(72)); `model_00001.bin` -> (`model_`, 1,
/// None).
fn numbered(name: &str, extension: &str) -> Option<(&'static str, u32, Option<u32>)> {
    let base = name.strip_suffix(extension)?.strip_suffix('.')?;
    let (stem, rest) = ["pytorch_model-", "pytorch_model_", "model-", "model_"]
        .into_iter()
        .find_map(|stem| Some((stem, base.strip_prefix(stem)?)))?;
    let digits = |s: &str| {
        (s.len() == 5 && s.bytes().all(|b| b.is_ascii_digit())).then(|| s.parse::<u32>().ok()).flatten()
    };
    match rest.split_once("-of-") {
        Some((number, total)) => Some((stem, digits(number)?, Some(digits(total)?))),
        None => Some((stem, digits(rest)?, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shard_names() {
        assert_eq!(
            numbered("pytorch_model_00001-of-00072.bin", "bin"),
            Some(("pytorch_model_", 1, Some(72)))
        );
        assert_eq!(numbered("pytorch_model-00002-of-00002.bin", "bin"), Some(("pytorch_model-", 2, Some(2))));
        assert_eq!(numbered("model_00003.bin", "bin"), Some(("model_", 3, None)));
        for other in [
            "model_3.bin",
            "x.bin",
            ".bin",
            "模型模型模型.bin",
            "model_00003.bin.bin",
            "training_model_00003.bin",
            "model_+0003.bin",
            "model_00001-of-x.bin",
        ] {
            assert_eq!(numbered(other, "bin"), None, "{other}");
        }
    }
}
