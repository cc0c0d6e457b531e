//! From a model to a session that is ready.
//!
//! In: a model, its options, settings. Out: a [`Session`] and what a person wants to know about its model.

pub use crate::open::{Error, Loaded, OpenStep as Step, Source};

use super::{Session, Settings};
use crate::engine::{EngineKind, KvType};
use crate::open::{OpenOptions, OpenProgress, Room};
use crate::schedule::{Scheduler, SchedulerHandle, SchedulerOptions};
use crate::settings::{InvalidSetting, Patch};
use huozi_token::{ChatFormat, HistoryRule, Tokenizer};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Positions of a KV block.
const KV_BLOCK: usize = crate::kv_file::BLOCK;

/// A random seed, short enough to be typed again.
pub fn random_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish() >> 32
}

/// How a front end opens a model for a conversation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SessionOptions {
    /// Threads that compute; `None` is one for each fast physical core.
    pub threads: Option<usize>,
    /// Type of the KV cache; `None` is `f16`.
    pub kv: Option<KvType>,
    /// The inference engine.
    pub engine: EngineKind,
    /// Positions of prompt and answer together; `None` is the length that the model was trained with.
    pub n_ctx: Option<usize>,
    /// Open the model although the forecast exceeds the available memory.
    pub no_memory_check: bool,
}

/// What a person wants to know about a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// Its name: that of the file, or what the file calls itself for the demo model.
    pub name: String,
    /// Its type, e.g. `q4_k_m`; the format of most of its weights, e.g. `q4_k`, where the file does not say.
    pub kind: String,
    /// Instruction set and threads.
    pub runs_on: String,
    /// Threads that compute.
    pub threads: usize,
    /// Type of the KV cache.
    pub kv: KvType,
    /// Fingerprint of the file, see [`crate::open::fingerprint`].
    pub fingerprint: String,
    /// Positions it was trained with.
    pub n_ctx_train: usize,
    /// Bytes of memory it takes, by the forecast.
    pub forecast_bytes: u64,
}

/// A session and its model.
pub struct Opened {
    /// The conversation, empty.
    pub session: Session,
    /// The model.
    pub about: About,
    /// Settings of the model file that are not valid: the session has the defaults instead.
    pub invalid: Vec<InvalidSetting>,
    /// The model's file. That of a demo model that could not be cached goes away with this.
    pub file: Loaded,
}

/// Opens a model for a conversation with the settings `wanted` over those of the file; `cancel` ends the
/// conversion of the demo model and the reading of a file.
///
/// # Errors
/// Everything that can go wrong from the file to the first prompt; also a model without a chat format.
pub fn open(
    source: &Source,
    options: &SessionOptions,
    wanted: &Patch,
    progress: &OpenProgress<'_>,
    cancel: &AtomicBool,
) -> Result<Opened, Error> {
    let model = crate::open::open(source, &options.open_options(), progress, cancel)?;
    let n_ctx = options.n_ctx.unwrap_or(model.shape().n_ctx_train);
    // Before the vocabulary, which takes longer than this.
    model.check_memory(n_ctx)?;
    progress(Step::Build, 0, 0);
    let tokenizer = Arc::new(model.tokenizer()?);
    let format = model.chat_format(&tokenizer)?;
    if matches!(format, ChatFormat::None) {
        return Err(Error::NoChat { path: model.path().to_owned() });
    }
    let (of_file, invalid) = model.settings();
    let patch = Patch { n_ctx: Some(n_ctx), ..wanted.clone().or(of_file) };
    let settings = Settings::new(patch, n_ctx, HistoryRule::TwoThirds);
    let session = start(&model, tokenizer, format, settings, progress, cancel)?;
    let info = session.info();
    let about = About {
        name: model.name(),
        kind: model.type_name(),
        runs_on: info.runs_on.clone(),
        threads: info.threads,
        kv: info.kv,
        fingerprint: model.fingerprint()?,
        n_ctx_train: info.n_ctx_train,
        forecast_bytes: model.forecast(n_ctx).total,
    };
    Ok(Opened { session, about, invalid, file: model })
}

/// An empty session on an engine of `model` with room for `settings.n_ctx` positions.
///
/// # Errors
/// As [`Loaded::engine`].
pub fn start(
    model: &Loaded,
    tokenizer: Arc<Tokenizer>,
    format: ChatFormat,
    settings: Settings,
    progress: &OpenProgress<'_>,
    cancel: &AtomicBool,
) -> Result<Session, Error> {
    let requests = Requests::conversation(settings.n_ctx);
    let scheduler = scheduler(model, &tokenizer, requests, progress, cancel)?;
    Ok(Session::new(scheduler, tokenizer, format, settings))
}

/// The requests that a session's scheduler runs.
#[derive(Clone, Copy, Debug)]
pub struct Requests {
    room: Room,
    options: SchedulerOptions,
}

impl Requests {
    /// One after the other, each continuing the one before, with `n_ctx` positions.
    pub fn conversation(n_ctx: usize) -> Self {
        Self { room: Room::conversation(n_ctx), options: SchedulerOptions::default() }
    }

    /// `answers` at a time that share a prompt, each as if it were alone.
    pub fn answers(settings: &Settings, answers: usize) -> Self {
        let options = SchedulerOptions { exact: true, ..SchedulerOptions::default() };
        // Each has its own last block of the prompt, and one more block that it grows into.
        let own = settings.max_new.saturating_add(2 * KV_BLOCK).min(settings.n_ctx);
        let more = answers.min(options.running).saturating_sub(1);
        let mut room = Room::conversation(settings.n_ctx.saturating_add(own.saturating_mul(more)));
        room.sequences += more;
        Self { room, options }
    }
}

/// The scheduler of a session on an engine of `model`.
///
/// # Errors
/// As [`Loaded::engine`].
pub fn scheduler(
    model: &Loaded,
    tokenizer: &Tokenizer,
    requests: Requests,
    progress: &OpenProgress<'_>,
    cancel: &AtomicBool,
) -> Result<SchedulerHandle, Error> {
    let engine = model.engine(requests.room, progress, cancel)?;
    let never = tokenizer.vocab().never();
    SchedulerHandle::of(Scheduler::with_options(engine, never, requests.options))
        .map_err(|source| Error::Io { path: model.path().to_owned(), source })
}

/// Checks that a file can be a model that this program runs; reads its header only.
///
/// # Errors
/// What the file lacks.
pub fn look(path: &Path) -> Result<(), Error> {
    let never = AtomicBool::new(false);
    let source = Source::File(path.to_owned());
    crate::open::open(&source, &OpenOptions::default(), &crate::open::silent, &never).map(drop)
}
