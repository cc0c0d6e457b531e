//! A folder: whether it is a checkpoint that the converter reads, or what else it is.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::diagnosis::{Diagnosis, FileKind, ForeignFormat, QuantMethod, TrainingFormat, UnfinishedSign};
use super::file::{Usable, inspect, is_unfinished, unfinished_in};
use super::hub;
use super::text::shown;
use crate::gguf::split::without_later_parts;

/// Entries of a folder that are looked at.
const MAX_ENTRIES: usize = 20_000;
/// A longer JSON file is left to its reader.
const MAX_JSON_BYTES: u64 = 4 << 20;

/// Ends of the names of files with weights.
const WEIGHTS: [&str; 5] = [".safetensors", ".bin", ".pt", ".pth", ".ckpt"];

/// Texts of a checkpoint that the converter reads.
const TEXTS: [&str; 5] = [
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    "chat_template.jinja",
];

/// The entries of a folder.
struct Listing {
    dir: PathBuf,
    /// Sorted.
    files: Vec<String>,
    folders: Vec<String>,
}

impl Listing {
    fn read(dir: &Path) -> io::Result<Self> {
        let (mut files, mut folders) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(dir)?.take(MAX_ENTRIES) {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if entry.path().is_dir() { folders.push(name) } else { files.push(name) }
        }
        files.sort();
        folders.sort();
        Ok(Self { dir: dir.to_owned(), files, folders })
    }

    fn has(&self, name: &str) -> bool {
        self.files.iter().any(|file| file == name)
    }

    /// Files with one of these ends.
    fn ending(&self, ends: &[&str]) -> Vec<String> {
        self.files.iter().filter(|name| ends.iter().any(|end| name.ends_with(end))).cloned().collect()
    }

    fn folder(&self, matches: impl Fn(&str) -> bool) -> bool {
        self.folders.iter().any(|name| matches(name))
    }

    fn json(&self, name: &str) -> Option<Value> {
        let path = self.dir.join(name);
        let meta = fs::metadata(&path).ok().filter(|meta| meta.is_file() && meta.len() <= MAX_JSON_BYTES);
        serde_json::from_slice(&fs::read(meta.map(|_| path)?).ok()?).ok()
    }

    /// The files of the weights that the converter takes, in its order of preference.
    fn weights(&self) -> Vec<&str> {
        for (single, extension) in [("model.safetensors", ".safetensors"), ("pytorch_model.bin", ".bin")] {
            if self.has(single) {
                return vec![single];
            }
            let index = format!("{single}.index.json");
            let named = if self.has(&index) { self.json(&index) } else { None };
            let named = named.as_ref().and_then(|index| index.get("weight_map")?.as_object());
            let belongs = |name: &&String| match named {
                Some(map) => **name == index || map.values().any(|shard| shard.as_str() == Some(name)),
                None => **name == index || is_shard(name, extension),
            };
            let shards: Vec<&str> = self.files.iter().filter(belongs).map(String::as_str).collect();
            if !shards.is_empty() {
                return shards;
            }
        }
        Vec::new()
    }
}

/// Whether a JSON file of this name belongs to a checkpoint.
pub(super) fn is_part(path: &Path) -> bool {
    let others = ["special_tokens_map.json", "added_tokens.json", "vocab.json", "adapter_config.json"];
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    TEXTS.iter().chain(&others).any(|text| *text == name) || name.ends_with(".index.json")
}

/// `pytorch_model-00001-of-00002.bin`, `model_00001.safetensors`.
fn is_shard(name: &str, extension: &str) -> bool {
    let stems = ["pytorch_model-", "pytorch_model_", "model-", "model_"];
    let base = name.strip_suffix(extension);
    let rest = base.and_then(|base| stems.into_iter().find_map(|stem| base.strip_prefix(stem)));
    rest.is_some_and(|rest| rest.get(..5).is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit())))
}

/// What the folder `dir` is. [`FileKind::Checkpoint`]: a checkpoint that the converter reads, as far as names
/// and the beginnings of its files show.
///
/// # Errors
/// It cannot be listed.
pub(super) fn diagnose(dir: &Path) -> io::Result<Diagnosis> {
    let listing = Listing::read(dir)?;
    let of_folder = |kind| Ok(Diagnosis::new(dir, kind));
    if listing.folder(|name| name.starts_with("models--")) {
        return of_folder(FileKind::Cache { names: hub::models_in(dir) });
    }
    let weights = listing.weights();
    if let Some(wrong) = wrong_file(&listing, &weights) {
        return Ok(wrong);
    }
    if weights.is_empty() {
        return Ok(without_weights(&listing));
    }
    of_folder(other_model(&listing).unwrap_or(FileKind::Checkpoint { convert: String::new() }))
}

/// The first file of a checkpoint that is not what its name says.
fn wrong_file(listing: &Listing, weights: &[&str]) -> Option<Diagnosis> {
    let texts = TEXTS.into_iter().filter(|name| listing.has(name));
    // An adapter is one whether or not its weights can be read, unless they are not there.
    let adapters = listing.files.iter().filter(|name| weights.is_empty() && is_adapter(name));
    for name in weights.iter().copied().chain(texts).chain(adapters.map(String::as_str)) {
        let path = listing.dir.join(name);
        // What the system refuses is told by the reader of the file.
        let Ok(verdict) = inspect(&path) else { continue };
        let is_text = TEXTS.contains(&name) || name.ends_with(".json");
        let kind = match verdict {
            // Told about the snapshot: the link itself says nothing.
            Err(FileKind::DanglingLink { link, .. }) => {
                let kind = FileKind::DanglingLink { link, model: hub::model_of(&listing.dir) };
                return Some(Diagnosis::new(&listing.dir, kind));
            }
            Err(FileKind::Quantised { method }) => {
                let method = quantised(listing).map_or(method, QuantMethod::Named);
                return Some(Diagnosis::new(&listing.dir, FileKind::Quantised { method }));
            }
            Err(kind) if is_adapter(name) => match kind {
                FileKind::Pointer { .. } | FileKind::WebPage { .. } | FileKind::ServerError { .. } => kind,
                _ => continue,
            },
            // An empty template is a template.
            Err(FileKind::Empty) if name.ends_with(".jinja") => continue,
            Err(kind) => kind,
            Ok(Usable::Gguf) if !is_text => FileKind::OtherFormat { what: ForeignFormat::GgufUnderOtherName },
            Ok(Usable::Json) if !is_text => FileKind::OtherFormat { what: ForeignFormat::JsonAsWeights },
            Ok(_) => continue,
        };
        return Some(Diagnosis::new(&path, kind));
    }
    None
}

fn is_adapter(name: &str) -> bool {
    ["adapter_model.", "adapter_model-", "pytorch_lora_weights."].iter().any(|stem| name.starts_with(stem))
}

fn adapter(listing: &Listing) -> Option<FileKind> {
    let config = listing.has("adapter_config.json");
    if !config && !listing.files.iter().any(|name| is_adapter(name)) {
        return None;
    }
    let config = listing.json("adapter_config.json");
    let base = config.as_ref().and_then(|config| config.get("base_model_name_or_path")?.as_str());
    Some(FileKind::Adapter { folder: listing.dir.clone(), base: base.filter(|b| !b.is_empty()).map(shown) })
}

/// Another kind of model than BLOOM, by its `config.json`.
fn other_model(listing: &Listing) -> Option<FileKind> {
    let config = listing.json("config.json")?;
    let class = || config.get("architectures")?.get(0)?.as_str();
    let model = match config.get("model_type").and_then(Value::as_str) {
        Some("bloom") => return None,
        Some(other) => other,
        None => class().filter(|class| !class.starts_with("Bloom"))?,
    };
    Some(FileKind::OtherModel { model: shown(model) })
}

/// What a folder is in which the converter finds no weights.
fn without_weights(listing: &Listing) -> Diagnosis {
    let known = adapter(listing)
        .or_else(|| training(listing).map(FileKind::Training))
        .or_else(|| quantised(listing).map(|name| FileKind::Quantised { method: QuantMethod::Named(name) }))
        .or_else(|| other_model(listing))
        .or_else(|| {
            unfinished_in(&listing.dir).map(|name| FileKind::Unfinished { by: UnfinishedSign::Inside(name) })
        })
        .or_else(|| Some(FileKind::GgufFiles { files: ggufs_in(listing) }).filter(|_| has_gguf(listing)))
        .or_else(|| other_framework(listing))
        .or_else(|| below(listing));
    match known {
        Some(kind) => Diagnosis::new(&listing.dir, kind),
        None => odd_names(listing).unwrap_or_else(|| {
            let files = listing.files.iter().chain(&listing.folders).map(|name| shown(name)).collect();
            Diagnosis::new(&listing.dir, FileKind::NoWeights { files })
        }),
    }
}

/// Folders below that have weights, as `checkpoint-500` of a training run.
fn below(listing: &Listing) -> Option<FileKind> {
    let dirs = listing.folders.iter().map(|name| listing.dir.join(name));
    let with_weights = |dir: &PathBuf| Listing::read(dir).is_ok_and(|inner| !inner.weights().is_empty());
    let folders: Vec<PathBuf> = dirs.take(64).filter(with_weights).take(8).collect();
    (!folders.is_empty()).then_some(FileKind::Below { folders })
}

fn training(listing: &Listing) -> Option<TrainingFormat> {
    let file = |matches: &dyn Fn(&str) -> bool| listing.files.iter().any(|name| matches(name));
    let starts = |start: &'static str| move |name: &str| name.starts_with(start);
    let layers = |name: &str| name.starts_with("layer_") && name.contains("-model_");
    let steps = listing.folders.iter().filter(|name| name.starts_with("global_step"));
    let mut steps = steps.filter_map(|name| Listing::read(&listing.dir.join(name)).ok());
    if listing.folder(starts("iter_"))
        || listing.has("latest_checkpointed_iteration.txt")
        || listing.has("model_optim_rng.pt")
        || file(&layers)
        || steps.any(|step| step.files.iter().any(|name| layers(name)))
    {
        return Some(TrainingFormat::Megatron);
    }
    if listing.folder(starts("global_step"))
        || listing.has("zero_to_fp32.py")
        || file(&|name| {
            name.starts_with("zero_pp_rank_")
                || name.starts_with("bf16_zero_pp_rank_")
                || name.starts_with("mp_rank_")
                || name.ends_with("_optim_states.pt")
        })
        || listing.folder(starts("mp_rank_"))
    {
        return Some(TrainingFormat::DeepSpeed);
    }
    let fsdp = file(&|name| name.ends_with(".distcp")) || listing.folder(starts("pytorch_model_fsdp"));
    fsdp.then_some(TrainingFormat::Fsdp)
}

fn quantised(listing: &Listing) -> Option<String> {
    let config = listing.json("config.json");
    let of_config = config.as_ref().and_then(|config| config.get("quantization_config"));
    if let Some(config) = of_config {
        let method = config.get("quant_method").and_then(Value::as_str);
        return Some(method.map_or_else(|| "bitsandbytes".to_owned(), shown));
    }
    if let Some(config) = listing.json("quantize_config.json") {
        let method = config.get("quant_method").and_then(Value::as_str);
        return Some(method.map_or_else(|| "GPTQ".to_owned(), shown));
    }
    if listing.has("quant_config.json") {
        return Some("AWQ".to_owned());
    }
    // `bloom7b-2m-4bit-128g.pt`, without a word about it.
    let named = |name: &String| {
        let name = name.to_ascii_lowercase();
        ["gptq", "-4bit", "-8bit"].iter().any(|part| name.contains(part))
    };
    listing.ending(&WEIGHTS).iter().any(named).then(|| "GPTQ".to_owned())
}

fn other_framework(listing: &Listing) -> Option<FileKind> {
    let frameworks: [(&str, &[&str]); 7] = [
        ("TensorFlow", &["tf_model.h5", ".ckpt.index", "saved_model.pb", "tf_model.h5.index.json"]),
        ("Flax", &["flax_model.msgpack", "flax_model.msgpack.index.json"]),
        ("ONNX", &[".onnx"]),
        ("OpenVINO", &["openvino_model.xml"]),
        ("Rust (rust-bert)", &["rust_model.ot"]),
        ("Core ML", &[".mlmodel"]),
        ("TFLite", &[".tflite"]),
    ];
    let found =
        frameworks.iter().find_map(|(name, ends)| Some((*name, listing.ending(ends).into_iter().next()?)));
    if let Some((framework, file)) = found {
        return Some(FileKind::OtherFramework { framework, file: shown(&file) });
    }
    // CTranslate2: its weights have a name that PyTorch's could have, too.
    let ct2 = listing.has("model.bin")
        && ["shared_vocabulary.json", "shared_vocabulary.txt", "vocabulary.json", "vocabulary.txt"]
            .iter()
            .any(|name| listing.has(name));
    ct2.then(|| FileKind::OtherFramework { framework: "CTranslate2", file: "model.bin".into() })
}

/// Weights, of which the names do not say it.
fn odd_names(listing: &Listing) -> Option<Diagnosis> {
    // What a training program keeps beside the weights.
    let others =
        ["optimizer", "scheduler", "training_args", "rng_state", "random_states", "scaler", "trainer_state"];
    let mut files = listing.ending(&WEIGHTS);
    // As wget names them.
    let with_query = |name: &String| name.contains(".safetensors?") || name.contains(".bin?");
    files.extend(listing.files.iter().filter(|name| with_query(name)).cloned());
    files.retain(|name| !others.iter().any(|other| name.starts_with(other)));
    let first = files.first()?;
    // A file of another kind has a diagnosis of its own.
    let path = listing.dir.join(first);
    if let Ok(Err(kind)) = inspect(&path) {
        return Some(Diagnosis::new(&path, kind));
    }
    let safetensors = first.contains(".safetensors");
    let rename = if safetensors { "model.safetensors" } else { "pytorch_model.bin" };
    let files: Vec<String> = files.iter().map(|name| shown(name)).collect();
    let kind = FileKind::OddNames { rename: (files.len() == 1).then_some(rename), files };
    Some(Diagnosis::new(&listing.dir, kind))
}

fn ggufs_in(listing: &Listing) -> Vec<PathBuf> {
    let names = listing.files.iter().filter(|name| is_gguf(name) && !is_unfinished(name));
    without_later_parts(names.map(|name| listing.dir.join(name)).collect())
}

fn has_gguf(listing: &Listing) -> bool {
    listing.files.iter().any(|name| is_gguf(name))
}

/// The GGUF files directly in `dir`, of a split one the first part.
pub(super) fn ggufs(dir: &Path) -> Vec<PathBuf> {
    Listing::read(dir).map_or(Vec::new(), |listing| ggufs_in(&listing))
}

fn is_gguf(name: &str) -> bool {
    name.len() > 5 && name.get(name.len() - 5..).is_some_and(|end| end.eq_ignore_ascii_case(".gguf"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_split_files_the_first_part_is_listed() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.gguf", "m-00001-of-00002.gguf", "m-00002-of-00002.gguf", "n-00002-of-00003.gguf"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        fs::write(dir.path().join("n-00003-of-00003.gguf"), "").unwrap();
        let expected = ["a.gguf", "m-00001-of-00002.gguf", "n-00002-of-00003.gguf"];
        assert_eq!(ggufs(dir.path()), expected.map(|name| dir.path().join(name)));
    }
}
