//! From a model file to a session that is ready: what a full-screen front end opens, with progress and without a word on
//! the terminal.
//!
//! In: a path, or the embedded model; options. Out: a [`Session`] and what a person wants to know about its model.

use super::catalog::{self, Memory, NotEnoughMemory};
use super::{Session, Settings};
#[cfg(feature = "demo")]
use crate::demo;
#[cfg(feature = "ggml")]
use crate::engine::ggml;
use crate::engine::{Engine, KvType, LOGIT_ROWS, MICRO_BATCH, Native, Options as NativeOptions};
use crate::sample::Sampling;
use crate::schedule::Scheduler;
use huozi_quant::bloom::plan::Preset;
use huozi_quant::bloom::shape::Shape;
use huozi_quant::gguf::{self, Meta, Reader, Value};
use huozi_quant::map::How;
use huozi_token::{ChatError, ChatFormat, HistoryRule, Tokenizer};
use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Tokens of an answer at most, unless something else is said.
pub const DEFAULT_MAX_NEW: usize = 512;

/// Sampling settings that somebody chose; what is `None` comes from the model file, then from the defaults.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wanted {
    /// Take the likeliest token.
    pub greedy: bool,
    /// See [`Sampling::temperature`].
    pub temperature: Option<f32>,
    /// See [`Sampling::top_k`].
    pub top_k: Option<u32>,
    /// See [`Sampling::top_p`].
    pub top_p: Option<f32>,
    /// See [`Sampling::repetition_penalty`].
    pub repetition_penalty: Option<f32>,
    /// See [`Settings::max_new`].
    pub max_new: Option<usize>,
}

impl Wanted {
    /// Sampling and tokens of an answer at most, over what the file with `meta` says.
    ///
    /// # Errors
    /// The file's own settings are of the wrong kind.
    pub fn over(&self, meta: Meta<'_>) -> Result<(Sampling, usize), gguf::Error> {
        let of_file = |key: &str| meta.float(key).map(|x| x.map(|x| x as f32));
        let valid = |x: Option<f32>, good: fn(f32) -> bool| x.filter(|&x| x.is_finite() && good(x));
        let default = Sampling::default();
        let sampling = Sampling {
            do_sample: !self.greedy,
            temperature: self
                .temperature
                .or(valid(of_file("general.sampling.temp")?, |x| x >= 0.0))
                .unwrap_or(default.temperature),
            top_k: match self.top_k {
                Some(k) => k,
                // llama.cpp writes -1 for off.
                None => match meta.get("general.sampling.top_k") {
                    Some(_) => signed(meta, "general.sampling.top_k")?,
                    None => default.top_k,
                },
            },
            top_p: self
                .top_p
                .or(valid(of_file("general.sampling.top_p")?, |x| x > 0.0 && x <= 1.0))
                .unwrap_or(default.top_p),
            repetition_penalty: self
                .repetition_penalty
                .or(valid(of_file("general.sampling.penalty_repeat")?, |x| x > 0.0))
                .unwrap_or(default.repetition_penalty),
        };
        Ok((sampling, self.max_new.unwrap_or(DEFAULT_MAX_NEW)))
    }
}

fn signed(meta: Meta<'_>, key: &str) -> Result<u32, gguf::Error> {
    let n = match meta.get(key) {
        Some(Value::I8(n)) => i64::from(n),
        Some(Value::I16(n)) => i64::from(n),
        Some(Value::I32(n)) => i64::from(n),
        Some(Value::I64(n)) => n,
        _ => return Ok(meta.uint(key)?.map_or(0, |n| u32::try_from(n).unwrap_or(0))),
    };
    Ok(u32::try_from(n).unwrap_or(0))
}

/// A seed nobody chose, short enough to be typed again.
pub fn random_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish() >> 32
}

/// Which model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A GGUF file.
    File(PathBuf),
    /// The embedded small model.
    #[cfg(feature = "demo")]
    Demo,
}

/// Who computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Runs {
    /// Our engine.
    #[default]
    Native,
    /// llama.cpp.
    #[cfg(feature = "ggml")]
    Ggml,
}

impl Runs {
    /// All that this build has.
    pub const ALL: &[Self] = &[
        Self::Native,
        #[cfg(feature = "ggml")]
        Self::Ggml,
    ];

    /// The name as `--engine` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            #[cfg(feature = "ggml")]
            Self::Ggml => "ggml",
        }
    }
}

/// How to open a model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// Threads that compute; `None` chooses.
    pub threads: Option<usize>,
    /// Type of the KV cache; `None` is `f16`.
    pub kv: Option<KvType>,
    /// Who computes.
    pub runs: Runs,
    /// Positions of prompt and answer together; `None` is what the model was trained with.
    pub n_ctx: Option<usize>,
    /// Open it although the forecast does not fit into the memory there is.
    pub no_memory_check: bool,
}

/// What a person wants to know about a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// Its name: that of the file, or what the file calls itself for the embedded model.
    pub name: String,
    /// Its type, e.g. `q4_k_m`; the format of most of its weights, e.g. `q4_k`, where the file does not say.
    pub kind: String,
    /// Instruction set and threads.
    pub runs_on: String,
    /// Threads that compute.
    pub threads: usize,
    /// Type of the KV cache.
    pub kv: KvType,
    /// Fingerprint of the file, see [`catalog::fingerprint`].
    pub fingerprint: String,
    /// Positions it was trained with.
    pub n_ctx_train: usize,
    /// Bytes of memory it takes, by the forecast.
    pub forecast_bytes: u64,
}

/// A step on the way to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The embedded model is converted, for the first time.
    Convert,
    /// The vocabulary is built.
    Build,
    /// The file is brought into memory.
    Read,
}

/// Why a model did not open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file is not there, or is no model.
    #[error(transparent)]
    File(#[from] gguf::Error),
    /// What lies there cannot be a model.
    #[error("{}: a folder, not a GGUF file; huozi-convert makes one from a checkpoint", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
    },
    /// Too little memory.
    #[error(transparent)]
    Memory(#[from] NotEnoughMemory),
    /// Its vocabulary does not work.
    #[error("{}: {what}", path.display())]
    Vocabulary {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// It has no chat format.
    #[error("{}: {}", path.display(), ChatError::NoFormat)]
    NoChat {
        /// The file.
        path: PathBuf,
    },
    /// Its chat format does not work.
    #[error("{}: {source}", path.display())]
    Chat {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: ChatError,
    },
    /// The engine does not take it.
    #[error("{}: {what}", path.display())]
    Engine {
        /// The file.
        path: PathBuf,
        /// What it says.
        what: String,
    },
    /// The file went away while it was read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Somebody stopped it.
    #[error("{}: stopped while it was opened", path.display())]
    Stopped {
        /// The file.
        path: PathBuf,
    },
    /// The embedded model.
    #[cfg(feature = "demo")]
    #[error(transparent)]
    Demo(#[from] demo::Error),
}

/// A session and its model.
pub struct Opened {
    /// The conversation, empty.
    pub session: Session,
    /// The model.
    pub about: About,
    /// The file of an embedded model that could not be cached: it goes away with this.
    pub keep: Option<Keep>,
}

/// See [`Opened::keep`].
#[cfg(feature = "demo")]
pub type Keep = demo::Model;
/// See [`Opened::keep`].
#[cfg(not(feature = "demo"))]
pub type Keep = std::convert::Infallible;

/// Told the step, and bytes done of all of it.
pub type Progress<'a> = dyn Fn(Step, u64, u64) + Sync + 'a;

/// Opens a model; `cancel` ends a conversion of the embedded one and the reading of a file.
///
/// # Errors
/// Everything that can go wrong from the file to the first prompt.
pub fn open(
    source: &Source,
    options: &Options,
    wanted: &Wanted,
    progress: &Progress<'_>,
    cancel: &AtomicBool,
) -> Result<Opened, Error> {
    match source {
        Source::File(path) => file(path, options, wanted, progress, cancel, None),
        #[cfg(feature = "demo")]
        Source::Demo => {
            let cache = catalog::xdg("XDG_CACHE_HOME", ".cache").map(|base| base.join("huozi"));
            let watch = Converting { progress, state: std::sync::Mutex::new((0, 0)) };
            let model = demo::prepare(cache.as_deref(), &watch, cancel)?;
            let path = model.path.clone();
            file(&path, options, wanted, progress, cancel, Some(model))
        }
    }
}

#[cfg(feature = "demo")]
struct Converting<'a> {
    progress: &'a Progress<'a>,
    /// Bytes done and of all.
    state: std::sync::Mutex<(u64, u64)>,
}

#[cfg(feature = "demo")]
impl demo::Progress for Converting<'_> {
    fn start(&self, total: u64) {
        if let Ok(mut state) = self.state.lock() {
            *state = (0, total);
        }
    }

    fn advance(&self, more: u64) {
        if let Ok(mut state) = self.state.lock() {
            state.0 += more;
            (self.progress)(Step::Convert, state.0, state.1);
        }
    }
}

/// Opens a file and sees whether it can be a model of ours.
///
/// # Errors
/// What the file lacks.
pub fn look(path: &Path) -> Result<(Reader, Shape), Error> {
    if path.is_dir() {
        return Err(Error::Folder { path: path.to_owned() });
    }
    let reader = Reader::open(path, How::Map)?;
    let shape = Shape::from_meta(reader.meta())?;
    if let Some(embedding) = reader.tensor("token_embd.weight")
        && embedding.rows() < shape.n_vocab
    {
        let what = format!("{} tokens, but token_embd.weight has {} rows", shape.n_vocab, embedding.rows());
        return Err(Error::Vocabulary { path: path.to_owned(), what });
    }
    Ok((reader, shape))
}

fn file(
    path: &Path,
    options: &Options,
    wanted: &Wanted,
    progress: &Progress<'_>,
    cancel: &AtomicBool,
    keep: Option<Keep>,
) -> Result<Opened, Error> {
    let (reader, shape) = look(path)?;
    let meta = reader.meta();
    let bytes = reader.file_bytes();
    let n_ctx = options.n_ctx.unwrap_or(shape.n_ctx_train);
    let kv = options.kv.unwrap_or(KvType::F16);
    let forecast = shape.forecast(bytes, n_ctx, kv, MICRO_BATCH, LOGIT_ROWS);
    let memory = Memory::now();
    if !options.no_memory_check {
        catalog::check_memory(&path.display().to_string(), forecast, n_ctx, memory)?;
    }
    progress(Step::Build, 0, 0);
    let vocabulary = |what: String| Error::Vocabulary { path: path.to_owned(), what };
    let tokenizer = Arc::new(Tokenizer::from_gguf(meta).map_err(|e| vocabulary(e.to_string()))?);
    let chat = |source| Error::Chat { path: path.to_owned(), source };
    let format = ChatFormat::from_gguf(meta, &tokenizer).map_err(chat)?;
    if matches!(format, ChatFormat::None) {
        return Err(Error::NoChat { path: path.to_owned() });
    }
    let (sampling, max_new) = wanted.over(meta)?;
    // A file that would push itself out again is better read as it is needed.
    if memory.is_none_or(|memory| bytes <= memory.available) {
        progress(Step::Read, 0, bytes);
        reader.page_in(&mut |done| {
            progress(Step::Read, done, bytes);
            if cancel.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
    }
    if cancel.load(Ordering::Relaxed) {
        return Err(Error::Stopped { path: path.to_owned() });
    }
    let settings = Settings {
        sampling,
        max_new,
        n_ctx,
        system: None,
        history: HistoryRule::TwoThirds,
        seed: random_seed(),
    };
    let engine = engine(path, &reader, options, kv, n_ctx)?;
    let info = engine.info();
    let fingerprint = catalog::fingerprint(path, reader.data_offset())
        .map_err(|source| Error::Io { path: path.to_owned(), source })?;
    let about = About {
        name: match &keep {
            Some(_) => meta.str("general.name")?.unwrap_or("demo").to_owned(),
            None => path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        },
        kind: kind(&reader),
        runs_on: info.runs_on.clone(),
        threads: info.threads,
        kv: info.kv,
        fingerprint,
        n_ctx_train: info.n_ctx_train,
        forecast_bytes: forecast.total,
    };
    let scheduler = Scheduler::new(engine, tokenizer.vocab().never());
    Ok(Opened { session: Session::new(scheduler, tokenizer, format, settings), about, keep })
}

fn engine(
    path: &Path,
    reader: &Reader,
    options: &Options,
    kv: KvType,
    n_ctx: usize,
) -> Result<Box<dyn Engine>, Error> {
    let failed = |what: String| Error::Engine { path: path.to_owned(), what };
    match options.runs {
        Runs::Native => {
            let options = NativeOptions { threads: options.threads, kv, kv_positions: n_ctx };
            Ok(Box::new(Native::open(reader, &options).map_err(|e| failed(e.to_string()))?))
        }
        #[cfg(feature = "ggml")]
        Runs::Ggml => {
            let options = ggml::Options {
                threads: options.threads,
                kv,
                kv_positions: n_ctx,
                sequences: 8,
                shared: true,
                flash_attention: Default::default(),
                mmap: true,
            };
            Ok(Box::new(ggml::Ggml::open(path, &options).map_err(|e| failed(e.to_string()))?))
        }
    }
}

/// The type that the file says it has, as `huozi-convert -t` takes it; else the format that most bytes of the weights have.
fn kind(reader: &Reader) -> String {
    if let Ok(Some(id)) = reader.meta().uint("general.file_type")
        && let Some(preset) = Preset::from_file_type(id)
    {
        return preset.name().to_lowercase();
    }
    let mut bytes: BTreeMap<&str, u64> = BTreeMap::new();
    for tensor in reader.tensors() {
        *bytes.entry(tensor.format.name()).or_default() += tensor.bytes;
    }
    bytes.into_iter().max_by_key(|&(_, n)| n).map_or(String::new(), |(name, _)| name.to_lowercase())
}
