//! From the name of a file to a model that is ready.

use super::args::{ChatArgs, LoadArgs, SamplingArgs};
use super::exit::{self, BadFile};
use super::printer::bytes;
use super::settings::{self, Config};
use super::show::Counter;
#[cfg(feature = "ggml")]
use crate::engine::ggml;
use crate::engine::{Engine, EngineKind, KvType, MICRO_BATCH, Native, Options};
use crate::model::bloom::LOGIT_ROWS;
use crate::schedule::Scheduler;
use crate::session::{Session, Settings, catalog};
use anyhow::{Context, Result, anyhow};
use huozi_quant::bloom::shape::{Forecast, Shape};
use huozi_quant::gguf::Reader;
use huozi_quant::map::How;
use huozi_token::{ChatFormat, HistoryRule, Tokenizer};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An open file and what its header says.
pub struct File {
    /// Where it lies.
    pub path: PathBuf,
    /// The container.
    pub reader: Reader,
    /// The model's shape; `n_vocab` counts the rows of the embedding, as the engine does.
    pub shape: Shape,
    how: How,
    /// The model lies in memory that is not the file's.
    resident: bool,
}

impl File {
    /// Opens a model file.
    ///
    /// # Errors
    /// It is not there, is no GGUF file, holds no BLOOM, or has tokens without a row in the embedding.
    pub fn open(path: &Path, how: How) -> Result<Self> {
        if path.is_dir() {
            let what = "a folder, not a GGUF file; huozi-convert makes one from a checkpoint";
            return Err(BadFile(format!("{}: {what}", path.display())).into());
        }
        // Mapped for now: nothing large is read before memory has been looked at.
        let reader = Reader::open(path, How::Map)?;
        let mut shape = Shape::from_meta(reader.meta())?;
        if let Some(embedding) = reader.tensor("token_embd.weight") {
            let (rows, tokens) = (embedding.rows(), shape.n_vocab);
            if rows < tokens {
                let what = format!("{tokens} tokens, but token_embd.weight has {rows} rows");
                return Err(BadFile(format!("{}: {what}", path.display())).into());
            }
            shape.n_vocab = rows;
        }
        Ok(Self { path: path.to_owned(), reader, shape, how, resident: false })
    }

    /// A model that is in memory already, under the name of its reader.
    ///
    /// # Errors
    /// It holds no BLOOM.
    pub fn in_memory(reader: Reader) -> Result<Self> {
        let shape = Shape::from_meta(reader.meta())?;
        Ok(Self { path: reader.name().into(), reader, shape, how: How::Map, resident: true })
    }

    /// The tokenizer in it.
    ///
    /// # Errors
    /// The file holds none that works.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        Tokenizer::from_gguf(self.reader.meta()).with_context(|| self.path.display().to_string())
    }

    /// The engine that was asked for, with room for `room`, after a look at the memory.
    ///
    /// # Errors
    /// Too little memory, tensors that are not a BLOOM's, threads that the system refuses, an engine that this build has
    /// not.
    pub fn engine(
        &self,
        config: &Config,
        load: &LoadArgs,
        kv: KvType,
        room: Room,
    ) -> Result<Box<dyn Engine>> {
        known(load)?;
        if !load.no_memory_check {
            let name = self.path.display().to_string();
            let mut forecast = self.forecast(kind(load), kv, room.positions);
            if self.resident {
                // It is in memory already.
                forecast.total -= std::mem::take(&mut forecast.file);
            }
            catalog::check_memory(&name, forecast, room.positions, catalog::Memory::now())?;
        }
        self.open_engine(config, load, kv, room)
    }

    fn open_engine(
        &self,
        config: &Config,
        load: &LoadArgs,
        kv: KvType,
        room: Room,
    ) -> Result<Box<dyn Engine>> {
        let threads = config.threads(load)?;
        match kind(load) {
            EngineKind::Native => {
                let reader = match self.how {
                    How::Map => self.reader.clone(),
                    How::Read => read(&self.path, How::Read, config.quiet)?,
                };
                if let How::Map = self.how {
                    page_in(&reader, config.quiet);
                }
                if load.mlock {
                    lock(&reader)?;
                }
                let options = Options { threads, kv, kv_positions: room.positions };
                Ok(Box::new(Native::open(&reader, &options)?))
            }
            #[cfg(feature = "ggml")]
            EngineKind::Ggml => {
                let options = ggml::Options {
                    threads,
                    kv,
                    kv_positions: room.ggml_positions(),
                    sequences: room.sequences,
                    shared: room.apart.is_none(),
                    flash_attention: load.flash_attn.unwrap_or_default(),
                    mmap: matches!(self.how, How::Map),
                };
                Ok(Box::new(ggml::Ggml::open(&self.path, &options)?))
            }
            #[cfg(not(feature = "ggml"))]
            EngineKind::Ggml => Err(no_ggml().into()),
        }
    }

    /// The memory that the model needs with room for `positions`.
    pub fn forecast(&self, kind: EngineKind, kv: KvType, positions: usize) -> Forecast {
        let (columns, rows) = match kind {
            EngineKind::Native => (MICRO_BATCH, LOGIT_ROWS),
            // llama.cpp keeps the logits of a whole batch twice: in the graph and for its caller.
            #[cfg(feature = "ggml")]
            EngineKind::Ggml => (ggml::MICRO_BATCH, 2 * ggml::logit_rows(self.shape.n_vocab)),
            #[cfg(not(feature = "ggml"))]
            EngineKind::Ggml => (0, 0),
        };
        self.shape.forecast(self.reader.file_bytes(), positions, kv, columns, rows)
    }

    /// A fingerprint of the file, see [`catalog::fingerprint`].
    ///
    /// # Errors
    /// The file went away.
    pub fn fingerprint(&self) -> Result<String> {
        catalog::fingerprint(&self.path, self.reader.data_offset())
            .with_context(|| self.path.display().to_string())
    }
}

/// What an engine has room for.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Positions of the KV cache, over all sequences.
    pub positions: usize,
    /// Sequences with positions at a time.
    #[cfg_attr(not(feature = "ggml"), expect(dead_code, reason = "only llama.cpp wants to know beforehand"))]
    pub sequences: usize,
    /// Positions of the longest sequence, where none has anything in common with another.
    #[cfg_attr(not(feature = "ggml"), expect(dead_code, reason = "only llama.cpp makes a difference"))]
    pub apart: Option<usize>,
}

impl Room {
    /// One sequence.
    pub fn single(positions: usize) -> Self {
        Self { positions, sequences: 1, apart: None }
    }

    /// Positions of llama.cpp's cache: it deals them out evenly, 256 at a time.
    #[cfg(feature = "ggml")]
    fn ggml_positions(&self) -> usize {
        self.apart.map_or(self.positions, |each| each.next_multiple_of(256).saturating_mul(self.sequences))
    }
}

/// Sequences of a conversation: the one that runs and those that the scheduler keeps for their prefixes.
const SESSION_SEQUENCES: usize = 8;

/// The engine that was asked for.
pub fn kind(load: &LoadArgs) -> EngineKind {
    load.engine.unwrap_or_default()
}

/// Refuses what this build or the engine has not, before anything is read.
///
/// # Errors
/// [`exit::Usage`] says what.
pub fn known(load: &LoadArgs) -> Result<()> {
    match kind(load) {
        #[cfg(not(feature = "ggml"))]
        EngineKind::Ggml => Err(no_ggml().into()),
        #[cfg(feature = "ggml")]
        EngineKind::Ggml if load.mlock => {
            let what = "--mlock is for our own engine: llama.cpp does not say whether it could lock";
            Err(exit::Usage(what.into()).into())
        }
        EngineKind::Native if load.flash_attn.is_some() => {
            let what = "--flash-attn is a choice of llama.cpp's: it goes with --engine ggml";
            Err(exit::Usage(what.into()).into())
        }
        _ => Ok(()),
    }
}

#[cfg(not(feature = "ggml"))]
fn no_ggml() -> exit::Usage {
    exit::Usage(
        "this build has no llama.cpp; `env $(.ci/ggml-env) cargo build --release --features ggml` makes one that has \
         (cmake and libclang are needed, see README.md)"
            .into(),
    )
}

/// A model file brought into memory, with progress if that takes time.
///
/// # Errors
/// As [`Reader::open`].
pub fn read(path: &Path, how: How, quiet: bool) -> Result<Reader> {
    let bytes = std::fs::metadata(path).map_or(0, |m| m.len());
    let mut counter = Counter::patient(bytes, quiet);
    let reader = Reader::open_watched(path, how, &mut |done| counter.set(done, "of the model"))?;
    if how == How::Map {
        drop(counter);
        page_in(&reader, quiet);
    }
    Ok(reader)
}

/// Brings a mapped file in, unless it would push itself out again.
fn page_in(reader: &Reader, quiet: bool) {
    if catalog::Memory::now().is_none_or(|memory| reader.file_bytes() <= memory.available) {
        let mut counter = Counter::patient(reader.file_bytes(), quiet);
        reader.page_in(&mut |done| {
            counter.set(done, "of the model");
            ControlFlow::Continue(())
        });
    }
}

fn lock(reader: &Reader) -> Result<()> {
    reader.lock().map_err(|e| {
        let (name, size) = (reader.name(), bytes(reader.file_bytes()));
        let what = format!(
            "{name}: --mlock: cannot lock {size} in memory: {e}; `ulimit -l` says how much is allowed"
        );
        // Whatever the system calls it: there is no room that may be locked.
        std::io::Error::new(std::io::ErrorKind::OutOfMemory, what).into()
    })
}

/// How the file comes into memory.
pub fn how(load: &LoadArgs) -> How {
    if load.no_mmap { How::Read } else { How::Map }
}

/// A session on a model file.
///
/// # Errors
/// Everything that can go wrong from the file to the first prompt.
pub fn session(
    file: &File,
    config: &Config,
    load: &LoadArgs,
    chat: &ChatArgs,
    sampling: &SamplingArgs,
    history: HistoryRule,
) -> Result<Session> {
    let meta = file.reader.meta();
    let tokenizer = Arc::new(file.tokenizer()?);
    let format = ChatFormat::from_gguf(meta, &tokenizer)
        .map_err(|e| anyhow!(BadFile(format!("{}: {e}", file.path.display()))))?;
    let (sampling_settings, max_new) = config.sampling(sampling, meta)?;
    let n_ctx = chat.ctx_size.unwrap_or(file.shape.n_ctx_train);
    let settings = Settings {
        sampling: sampling_settings,
        max_new,
        n_ctx,
        system: settings::system(chat)?,
        history,
        seed: sampling.seed.unwrap_or_else(crate::session::open::random_seed),
    };
    let room = Room { positions: n_ctx, sequences: SESSION_SEQUENCES, apart: None };
    let engine = file.engine(config, load, config.kv(load, KvType::F16), room)?;
    let scheduler = Scheduler::new(engine, tokenizer.vocab().never());
    Ok(Session::new(scheduler, tokenizer, format, settings))
}

/// An engine for one sequence of at most `positions`, for `logits` and `eval`.
///
/// # Errors
/// As [`File::engine`].
pub fn engine(file: &File, config: &Config, load: &LoadArgs, positions: usize) -> Result<Box<dyn Engine>> {
    file.engine(config, load, exact_kv(load), Room::single(positions))
}

/// A model and its base, there at the same time, each as [`engine`] gives it: memory is checked for both together.
/// `base_engine` runs the base, with a cache of `base_kv` or else of the model's type.
///
/// # Errors
/// As [`File::engine`].
pub fn engines(
    [model, base]: [&File; 2],
    config: &Config,
    load: &LoadArgs,
    base_engine: EngineKind,
    base_kv: Option<KvType>,
    positions: usize,
) -> Result<[Box<dyn Engine>; 2]> {
    let kv = exact_kv(load);
    let base_kv = base_kv.unwrap_or(kv);
    // How llama.cpp computes attention goes to whichever side it runs.
    let of = |engine| LoadArgs {
        engine: Some(engine),
        flash_attn: load.flash_attn.filter(|_| engine == EngineKind::Ggml),
        ..load.clone()
    };
    if kind(load) == EngineKind::Native && base_engine == EngineKind::Native {
        known(load)?;
    }
    let (load, base_load) = (of(kind(load)), of(base_engine));
    known(&load)?;
    known(&base_load)?;
    if !load.no_memory_check {
        let name = format!("{} with {}", model.path.display(), base.path.display());
        let forecast = both([
            model.forecast(kind(&load), kv, positions),
            base.forecast(base_engine, base_kv, positions),
        ]);
        catalog::check_memory(&name, forecast, positions, catalog::Memory::now())?;
    }
    let room = Room::single(positions);
    Ok([model.open_engine(config, &load, kv, room)?, base.open_engine(config, &base_load, base_kv, room)?])
}

fn both([a, b]: [Forecast; 2]) -> Forecast {
    Forecast {
        file: a.file.saturating_add(b.file),
        kv: a.kv.saturating_add(b.kv),
        scratch: a.scratch.saturating_add(b.scratch),
        total: a.total.saturating_add(b.total),
    }
}

/// Measurements get the exact cache unless another was typed; the configuration's choice is meant for talking.
fn exact_kv(load: &LoadArgs) -> KvType {
    load.kv_type.unwrap_or(KvType::F32)
}

/// Ids that the model has rows for.
///
/// # Errors
/// [`exit::Usage`] names the first that it has not, and an empty list.
pub fn check_ids(ids: &[u32], n_vocab: usize) -> Result<()> {
    if ids.is_empty() {
        return Err(exit::Usage("the text is empty: there is no token to read".into()).into());
    }
    match ids.iter().find(|&&id| id as usize >= n_vocab) {
        Some(id) => Err(exit::Usage(format!("id {id} does not exist: there are {n_vocab}")).into()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_models_need_what_both_need() {
        let shape = Shape::named("bloom-560m").expect("known");
        let one = |file| shape.forecast(file, 256, KvType::F32, MICRO_BATCH, LOGIT_ROWS);
        let sum = both([one(1000), one(500)]);
        assert_eq!((sum.file, sum.kv), (1500, 2 * one(0).kv));
        assert_eq!(sum.total, one(1000).total + one(500).total);
        assert_eq!(both([one(u64::MAX), one(1)]).total, u64::MAX);
    }
}
