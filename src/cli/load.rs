//! From the name of a file to a model that is ready.

use super::args::{ChatArgs, HistoryKind, LoadArgs, SamplingArgs};
use super::exit::{self, BadFile};
use super::settings::{self, Config};
use crate::engine::{Engine, KvType, Native, Options};
use crate::schedule::Scheduler;
use crate::session::{Session, Settings, catalog};
use crate::token::{ChatFormat, HistoryRule, Tokenizer};
use anyhow::{Context, Result, anyhow};
use huozi_quant::gguf::Reader;
use huozi_quant::map::How;
use huozi_quant::shape::Shape;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An open file and what its header says.
pub struct File {
    /// Where it lies.
    pub path: PathBuf,
    /// The container.
    pub reader: Reader,
    /// The model's shape.
    pub shape: Shape,
}

impl File {
    /// Opens a model file.
    ///
    /// # Errors
    /// It is not there, is no GGUF file or holds no BLOOM.
    pub fn open(path: &Path, how: How) -> Result<Self> {
        if path.is_dir() {
            let what = "a folder, not a GGUF file; huozi-convert makes one from a checkpoint";
            return Err(BadFile(format!("{}: {what}", path.display())).into());
        }
        let reader = Reader::open(path, how)?;
        let shape = Shape::from_meta(reader.meta())?;
        Ok(Self { path: path.to_owned(), reader, shape })
    }

    /// The tokenizer in it.
    ///
    /// # Errors
    /// The file holds none that works.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        Tokenizer::from_gguf(self.reader.meta()).with_context(|| self.path.display().to_string())
    }

    /// The engine, with room for `positions` in the KV cache, after a look at the memory.
    ///
    /// # Errors
    /// Too little memory, tensors that are not a BLOOM's, threads that the system refuses.
    pub fn engine(&self, config: &Config, load: &LoadArgs, kv: KvType, positions: usize) -> Result<Native> {
        let value_bytes = match kv {
            KvType::F32 => 4,
            KvType::F16 => 2,
        };
        let (columns, rows) = (catalog::STEP_COLUMNS, catalog::STEP_ROWS);
        let forecast = self.shape.forecast(self.reader.file_bytes(), positions, value_bytes, columns, rows);
        if !load.no_memory_check {
            let name = self.path.display().to_string();
            catalog::check_memory(&name, forecast, positions, catalog::Memory::now())?;
        }
        let threads = config.threads(load)?;
        Ok(Native::open(&self.reader, &Options { threads, kv, kv_positions: positions })?)
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
    history: HistoryKind,
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
        history: match history {
            HistoryKind::Demo => HistoryRule::Demo,
            HistoryKind::TwoThirds => HistoryRule::TwoThirds,
        },
        seed: sampling.seed.unwrap_or_else(settings::random_seed),
    };
    let engine = file.engine(config, load, config.kv(load, KvType::F16), n_ctx)?;
    let scheduler = Scheduler::new(Box::new(engine), tokenizer.vocab().never());
    Ok(Session::new(scheduler, tokenizer, format, settings))
}

/// An engine for one sequence of at most `positions`, for `logits` and `eval`.
///
/// # Errors
/// As [`File::engine`].
pub fn engine(file: &File, config: &Config, load: &LoadArgs, positions: usize) -> Result<Box<dyn Engine>> {
    // Measurements get the exact cache; the configuration's choice is meant for talking.
    let kv = load.kv_type.map_or(KvType::F32, KvType::from);
    Ok(Box::new(file.engine(config, load, kv, positions)?))
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
