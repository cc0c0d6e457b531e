//! A checkpoint and a list of (type, path) in; finished GGUF files out, each complete under its name or not there.
//!
//! What is decided before the first weight is read is decided here; the rows stream in `work`, the files are `output`'s.
//! The bytes written depend on the source and the options only, never on threads.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use huozi_quant::gguf::{Layout, MetaValue, Reader, TensorSpec};
use huozi_quant::kernels::Isa;
use serde::Serialize;
use serde_json::Value;

use crate::Error;
use crate::chat::{self, Chat};
use crate::config::Config;
use crate::meta::{self, Given};
use crate::names::{self, Role, Spelling, Target};
use crate::output::{self, Output};
use crate::plan::{self, Preset, Wishes};
use crate::source::{Checkpoint, Kind};
use crate::vocab::Vocabulary;
use crate::work::Work;

/// Where the weights come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A directory, a GGUF file, or a name in the local Hugging Face cache.
    Path(PathBuf),
    /// Files in memory: names and contents.
    Memory(Vec<(String, Cow<'static, [u8]>)>),
}

/// What to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Read from here.
    pub source: Source,
    /// One file per entry, all written in one pass over the source.
    pub outputs: Vec<(Preset, PathBuf)>,
    /// Threads; `None`: as many as the machine gives.
    pub threads: Option<usize>,
    /// Replace outputs that exist.
    pub force: bool,
    /// `general.name`; `None`: taken from the source.
    pub name: Option<String>,
    /// `bloom.context_length`; `None`: taken from the source.
    pub context_length: Option<u64>,
    /// Write a tied embedding a second time as `output.weight`, for readers that need it.
    pub duplicate_output: bool,
    /// Formats that are not the presets' choice, for all outputs.
    pub wishes: Wishes,
    /// Convert NaN and infinite weights instead of refusing: kept by the float formats, 0 in all others.
    pub allow_nan: bool,
}

impl Options {
    /// One output, everything else as usual.
    pub fn new(source: Source, preset: Preset, path: impl Into<PathBuf>) -> Self {
        Self {
            source,
            outputs: vec![(preset, path.into())],
            threads: None,
            force: false,
            name: None,
            context_length: None,
            duplicate_output: false,
            wishes: Wishes::default(),
            allow_nan: false,
        }
    }
}

/// Told what happens, from any thread.
pub trait Progress: Sync {
    /// The conversion proper begins; `bytes` of source will be read.
    fn start(&self, bytes: u64) {
        let _ = bytes;
    }
    /// So many more bytes of source are done.
    fn advance(&self, bytes: u64) {
        let _ = bytes;
    }
    /// Everything is read and encoded; the files are being put on the disk.
    fn sync(&self) {}
}

/// Silence.
impl Progress for () {}

/// What was written.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// `general.name`.
    pub name: String,
    /// Weights of the model, a duplicated output not counted.
    pub weights: u64,
    /// Bytes of source tensors read.
    pub source_bytes: u64,
    /// From the first byte read to the last rename.
    pub seconds: f64,
    /// One per output, in the order asked for.
    pub outputs: Vec<Written>,
    /// What a person may want to know.
    pub notes: Vec<String>,
}

/// One file written.
#[derive(Clone, Debug, Serialize)]
pub struct Written {
    /// Its final name.
    pub path: PathBuf,
    /// The preset.
    #[serde(rename = "type")]
    pub preset: String,
    /// Its length.
    pub bytes: u64,
    /// Bits of tensor data per weight of the model.
    pub bits_per_weight: f64,
    /// How many tensors each format has, in the order of their GGUF ids.
    pub formats: Vec<FormatCount>,
}

/// A format's share of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FormatCount {
    /// Its name.
    pub format: &'static str,
    /// Tensors.
    pub tensors: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// Converts.
///
/// `cancel` is looked at between chunks of 1 MiB; when it is set nothing is left behind.
///
/// # Errors
/// See [`Error`]. No output gets its final name before all are complete on the disk; what can fail after that is the
/// naming itself, and [`Error::Partly`] says which files have their names.
pub fn run(options: &Options, progress: &dyn Progress, cancel: &AtomicBool) -> Result<Report, Error> {
    let started = Instant::now();
    output::check_paths(&options.outputs, options.force)?;
    let checkpoint = match &options.source {
        Source::Path(path) => Checkpoint::open(path)?,
        Source::Memory(files) => Checkpoint::from_memory(files.clone())?,
    };
    let threads =
        options.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.max(1)).build();
    let pool = pool.map_err(|e| Error::Usage(format!("can not start {threads} threads: {e}")))?;
    let isa = Isa::from_env().map_err(|e| Error::Usage(e.to_string()))?;
    let work = Work { checkpoint: &checkpoint, pool: &pool, cancel, isa };

    let mut model = Model::read(options, &work)?;
    let mut layouts = Vec::new();
    for (preset, path) in &options.outputs {
        let layout =
            Layout::new(&meta::for_preset(&model.meta, *preset), model.specs(*preset, options.wishes));
        let layout = layout.map_err(|source| Error::Gguf { path: path.clone(), source })?;
        layouts.push((*preset, path.clone(), layout));
    }
    let outputs = Output::create_all(layouts, &source_files(&checkpoint))?;

    let source_bytes = model.tensors.iter().map(|(_, source)| checkpoint.tensors()[*source].bytes).sum();
    progress.start(source_bytes);
    let zeroed = work.convert(&model.tensors, &outputs, options.allow_nan, progress)?;
    if zeroed > 0 {
        model.notes.push(format!("{zeroed} NaN or infinite weights were written as 0"));
    }
    progress.sync();
    let weights = model.weights();
    let written = outputs.iter().map(|o| o.report(weights)).collect();
    Output::finish_all(outputs, options.force, cancel)?;
    Ok(Report {
        name: model.name,
        weights,
        source_bytes,
        seconds: started.elapsed().as_secs_f64(),
        outputs: written,
        notes: model.notes,
    })
}

/// The small files beside the weights.
const TEXT_FILES: [&str; 6] = [
    "README.md",
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    "chat_template.jinja",
];

/// How much of a model card is looked at.
const CARD_BYTES: u64 = 1 << 16;

/// Every file of the source that must not become an output.
fn source_files(checkpoint: &Checkpoint) -> Vec<PathBuf> {
    let base = Path::new(checkpoint.name());
    let mut files: Vec<PathBuf> = vec![base.to_owned()];
    files.extend(TEXT_FILES.map(|f| base.join(f)));
    for tensor in checkpoint.tensors() {
        // As named by the source: a path already, or an entry of the directory. The one that does not exist is harmless.
        for path in [PathBuf::from(&tensor.file), base.join(&tensor.file)] {
            if files.last() != Some(&path) && !files.contains(&path) {
                files.push(path);
            }
        }
    }
    files
}

/// What is known before the first weight is converted.
struct Model {
    name: String,
    config: Config,
    /// Each target with the index of its source tensor.
    tensors: Vec<(Target, usize)>,
    meta: Vec<(String, MetaValue)>,
    notes: Vec<String>,
    duplicated: bool,
}

impl Model {
    fn read(options: &Options, work: &Work<'_>) -> Result<Self, Error> {
        let checkpoint = work.checkpoint;
        let mut notes = Vec::new();
        let reader = gguf_reader(checkpoint);
        let (mut config, spelling) = match reader {
            Some(reader) => (Config::from_gguf(reader.name(), reader.meta())?, Spelling::Gguf),
            None => (Config::from_json(&need(checkpoint, "config.json")?)?, Spelling::HuggingFace),
        };
        if let Some(n_ctx) = options.context_length {
            if n_ctx == 0 || n_ctx > 1 << 24 {
                return Err(Error::Usage(format!("--context-length {n_ctx}: expected 1 to {}", 1 << 24)));
            }
            config.n_ctx = n_ctx;
        }
        let sources = checkpoint.tensors().iter().map(|t| (t.name.as_str(), t.shape.as_slice()));
        let names::Assignment { mut tensors, ignored } = names::assign(&config, spelling, sources)?;
        if !ignored.is_empty() {
            notes.push(format!("buffers without weights left out: {}", names::some_of(&ignored)));
        }
        if spelling == Spelling::Gguf {
            // Already in GGUF's row order.
            tensors.iter_mut().for_each(|(target, _)| target.qkv = None);
        }
        if checkpoint.quantised().next().is_some() {
            notes.push("the source is quantised already: its error is added to that of the new type".into());
        }
        let duplicated = resolve_output(&mut tensors, &config, options, work, &mut notes)?;
        let name = options.name.clone().unwrap_or_else(|| match (reader, &config.name) {
            (Some(_), Some(name)) => name.clone(),
            _ => name_of(&options.source, config.name.as_deref()),
        });
        let mut model = Self { name, config, tensors, meta: Vec::new(), notes, duplicated };
        model.meta = match reader {
            Some(reader) => {
                let name = options.name.as_deref();
                meta::from_gguf(reader.meta(), Given { name, n_ctx: options.context_length }, &model.config)
            }
            None => {
                let json = Json::read(checkpoint)?;
                let tokenizer = need(checkpoint, "tokenizer.json")?;
                let vocab =
                    Vocabulary::read(&tokenizer, json.tokenizer_config.as_ref(), model.config.n_vocab)?;
                let chat = Chat::read(&json.files(), &vocab)?;
                model.notes.extend(vocab.notes.iter().chain(&chat.notes).cloned());
                // A card is for people: one that can not be read is none.
                let card = checkpoint.file_start("README.md", CARD_BYTES).ok().flatten();
                let license = card.and_then(|card| meta::license(&card));
                let (config, params) = (&model.config, model.weights());
                meta::from_checkpoint(config, vocab, &chat, &model.name, params, license.as_deref())
            }
        };
        Ok(model)
    }

    /// A separate output is part of the model, a duplicate of the embedding is not.
    fn weights(&self) -> u64 {
        let own = self.tensors.iter().filter(|(t, _)| !(self.duplicated && t.role == Role::Output));
        own.map(|(t, _)| t.rows * t.cols).sum()
    }

    fn specs(&self, preset: Preset, wishes: Wishes) -> Vec<TensorSpec> {
        let tied = !self.tensors.iter().any(|(t, _)| t.role == Role::Output);
        let spec = |(t, _): &(Target, usize)| TensorSpec {
            name: t.name.clone(),
            format: plan::format(preset, wishes, t.role, self.config.n_layer, t.cols, tied),
            dims: t.dims(),
        };
        self.tensors.iter().map(spec).collect()
    }
}

/// Drops an output equal to the embedding, or adds one on request. Says whether the file will have a duplicate.
fn resolve_output(
    tensors: &mut Vec<(Target, usize)>,
    config: &Config,
    options: &Options,
    work: &Work<'_>,
    notes: &mut Vec<String>,
) -> Result<bool, Error> {
    let embd = tensors.iter().find(|(t, _)| t.role == Role::TokenEmbd).map(|(_, source)| *source);
    let embd = embd.expect("names::assign gives every target");
    let stored = tensors.iter().position(|(t, _)| t.role == Role::Output);
    if let Some(at) = stored {
        let (target, source) = &tensors[at];
        if !work.equal(target, embd, *source)? {
            if config.tied == Some(true) {
                notes.push(
                    "the configuration says tied, but the stored output differs from the embedding: kept"
                        .into(),
                );
            }
            return Ok(false);
        }
        tensors.remove(at);
        if !options.duplicate_output {
            notes.push("the stored output equals the embedding: written once".into());
        }
    } else if config.tied == Some(false) {
        return Err(Error::Tensors("tie_word_embeddings is false, but there is no lm_head.weight".into()));
    }
    if options.duplicate_output {
        let target = names::targets(config, true).pop().expect("the output is the last target");
        tensors.push((target, embd));
    }
    Ok(options.duplicate_output)
}

/// The last part of a path that is a name; a snapshot in the Hugging Face cache is named by its repository.
fn name_of(source: &Source, given: Option<&str>) -> String {
    let last = |text: &str| text.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned();
    let from_path = match source {
        Source::Memory(_) => None,
        Source::Path(path) => {
            let full = path.canonicalize().unwrap_or_else(|_| path.clone());
            let parts: Vec<Cow<'_, str>> = full.iter().map(|p| p.to_string_lossy()).collect();
            let repository = parts.iter().rev().find_map(|p| p.strip_prefix("models--")?.rsplit("--").next());
            match repository {
                Some(name) => Some(name.to_owned()),
                None if full.extension().is_some_and(|e| e == "gguf") => None,
                None => full.file_name().map(|n| n.to_string_lossy().into_owned()),
            }
        }
    };
    from_path.or_else(|| given.map(last)).filter(|n| !n.is_empty()).unwrap_or_else(|| "bloom".into())
}

/// The texts that say something about the chat.
struct Json {
    config: Option<Value>,
    tokenizer_config: Option<Value>,
    generation_config: Option<Value>,
    chat_template: Option<String>,
}

impl Json {
    fn read(checkpoint: &Checkpoint) -> Result<Self, Error> {
        let json = |file: &'static str| -> Result<Option<Value>, Error> {
            let Some(text) = checkpoint.file(file)? else { return Ok(None) };
            let parsed = serde_json::from_slice(&text);
            parsed.map(Some).map_err(|e| Error::Config { file: file.into(), what: format!("not JSON: {e}") })
        };
        Ok(Self {
            config: json("config.json")?,
            tokenizer_config: json("tokenizer_config.json")?,
            generation_config: json("generation_config.json")?,
            chat_template: checkpoint.text("chat_template.jinja")?,
        })
    }

    fn files(&self) -> chat::Files<'_> {
        chat::Files {
            config: self.config.as_ref(),
            tokenizer_config: self.tokenizer_config.as_ref(),
            generation_config: self.generation_config.as_ref(),
            chat_template: self.chat_template.as_deref(),
        }
    }
}

fn gguf_reader(checkpoint: &Checkpoint) -> Option<&Reader> {
    match checkpoint.kind() {
        Kind::Gguf(reader) => Some(reader),
        _ => None,
    }
}

fn need(checkpoint: &Checkpoint, file: &'static str) -> Result<Vec<u8>, Error> {
    let missing = || Error::Config {
        file: file.into(),
        what: format!("not found beside the weights in {}", checkpoint.name()),
    };
    checkpoint.file(file)?.ok_or_else(missing)
}
