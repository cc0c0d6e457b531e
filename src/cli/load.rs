//! From what was typed to a model that is ready: options, progress on standard error.

use super::args::{ChatArgs, LoadArgs, SamplingArgs};
use super::exit;
use super::printer::visible;
use super::settings::{self, Config};
use super::show::Counter;
use crate::engine::{Engine, EngineKind, Info, KvType};
use crate::open::{self, Loaded, OpenOptions, OpenStep, Room, Source};
use crate::session::open::{self as session_open, Requests, SessionOptions};
use crate::session::{Notice, Session, Settings};
use anyhow::Result;
use huozi_token::{ChatFormat, HistoryRule};
use serde_json::{Map, Value};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

/// Never set: while a model is opened, a signal ends the process at once.
static NEVER: AtomicBool = AtomicBool::new(false);

/// The options for talking, typed or configured.
///
/// # Errors
/// [`exit::Usage`] for a number of threads that the environment spells wrongly.
pub fn talking(config: &Config, load: &LoadArgs) -> Result<OpenOptions> {
    let mut options = SessionOptions { no_memory_check: load.no_memory_check, ..SessionOptions::default() };
    options.apply(&config.settings(load.engine.patch.clone())?);
    Ok(OpenOptions {
        flash_attention: load.flash_attn,
        mmap: !load.no_mmap,
        mlock: load.mlock,
        ..options.open_options()
    })
}

/// The options for measuring: the engine is native and the KV cache exact unless others were typed; those of
/// the configuration are meant for talking.
///
/// # Errors
/// As [`talking`].
pub fn measuring(config: &Config, load: &LoadArgs) -> Result<OpenOptions> {
    let typed = &load.engine.patch;
    let (engine, kv) = (typed.engine.unwrap_or_default(), typed.kv.unwrap_or(KvType::F32));
    Ok(OpenOptions { engine, kv, ..talking(config, load)? })
}

/// Opens a model as far as its header.
///
/// # Errors
/// As [`open::open`].
pub fn open(path: &Path, options: &OpenOptions) -> Result<Loaded> {
    Ok(open::open(&Source::File(path.to_owned()), options, &open::silent, &NEVER)?)
}

/// The engine of a model with `room`; reading the weights is shown unless `quiet`.
///
/// # Errors
/// As [`Loaded::engine`].
pub fn engine(model: &Loaded, room: Room, quiet: bool) -> Result<Box<dyn Engine>> {
    show_notes(model, quiet);
    let watch = Watch::new(quiet);
    let engine = model.engine(room, &|step, done, total| watch.set(step, done, total), &NEVER)?;
    drop(watch);
    note_threads(model.options.threads, engine.info().threads, quiet);
    Ok(engine)
}

/// Says so where fewer threads run than were asked for.
pub fn note_threads(wanted: Option<usize>, used: usize, quiet: bool) {
    if let Some(notice) = Notice::fewer_threads(wanted, used).filter(|_| !quiet) {
        eprintln!("huozi: {notice}");
    }
}

/// The notes on a model, on standard error unless `quiet`.
pub fn show_notes(model: &Loaded, quiet: bool) {
    if !quiet {
        for note in model.notes() {
            eprintln!("huozi: {}", visible(&format!("{}: {note}", model.path().display())));
        }
    }
}

/// Options for the two sides of a comparison, as `measuring` gives them: the model and its base, which
/// `base_engine` runs with a cache of `base_kv`, or else of the model's type. `--flash-attn` goes to the side
/// that llama.cpp runs.
///
/// # Errors
/// As [`talking`].
pub fn sides(
    config: &Config,
    load: &LoadArgs,
    base_engine: EngineKind,
    base_kv: Option<KvType>,
) -> Result<[OpenOptions; 2]> {
    let model = measuring(config, load)?;
    let base = OpenOptions { engine: base_engine, kv: base_kv.unwrap_or(model.kv), ..model.clone() };
    let mut sides = [model, base];
    if sides.iter().any(|side| side.engine == EngineKind::Ggml) {
        for side in sides.iter_mut().filter(|side| side.engine == EngineKind::Native) {
            side.flash_attention = None;
        }
    }
    Ok(sides)
}

/// The engines of two models that are open at the same time.
///
/// # Errors
/// As [`open::engines`].
pub fn engines(models: [&Loaded; 2], room: Room, quiet: bool) -> Result<[Box<dyn Engine>; 2]> {
    models.into_iter().for_each(|model| show_notes(model, quiet));
    let watch = Watch::new(quiet);
    let engines = open::engines(models, room, &|step, done, total| watch.set(step, done, total), &NEVER)?;
    drop(watch);
    // Both have the same number.
    note_threads(models[0].options.threads, engines[0].info().threads, quiet);
    Ok(engines)
}

/// What every JSON object about work of an engine says of the model and the engine.
///
/// # Errors
/// The file cannot be read any more.
pub fn record(model: &Loaded, info: &Info) -> Result<Map<String, Value>> {
    Ok(Map::from_iter([
        ("model".to_owned(), model.path().display().to_string().into()),
        ("model_fingerprint".to_owned(), model.fingerprint()?.into()),
        ("runs_on".to_owned(), info.runs_on.clone().into()),
        ("threads".to_owned(), info.threads.into()),
        ("kv_type".to_owned(), info.kv.name().into()),
    ]))
}

/// The JSON object `value` with the keys of [`record`] behind its own.
///
/// # Errors
/// As [`record`].
pub fn recorded(mut value: Value, model: &Loaded, info: &Info) -> Result<Value> {
    if let Value::Object(object) = &mut value {
        object.extend(record(model, info)?);
    }
    Ok(value)
}

/// What a session is for.
pub struct SessionArgs<'a> {
    /// Context and system prompt.
    pub chat: &'a ChatArgs,
    /// Sampling.
    pub sampling: &'a SamplingArgs,
    /// When old exchanges are dropped.
    pub history: HistoryRule,
    /// Whether the model's chat format is needed.
    pub chats: bool,
    /// So many answers to each of a few prompts, all as if they were alone; `None`: a conversation.
    pub answers: Option<usize>,
}

/// A session on a model.
///
/// # Errors
/// Everything that can go wrong from the header to the first prompt.
pub fn session(model: &Loaded, config: &Config, talk: &SessionArgs<'_>) -> Result<Session> {
    let tokenizer = Arc::new(model.tokenizer()?);
    // Text is continued without a template, so a broken one does not matter.
    let format = if talk.chats { model.chat_format(&tokenizer)? } else { ChatFormat::None };
    show_notes(model, config.quiet);
    let (of_file, invalid) = model.settings();
    settings::show_notes(&model.path().display().to_string(), &invalid, config.quiet);
    let patch = config.settings(settings::typed_chat(talk.chat, talk.sampling, config.quiet)?)?.or(of_file);
    let settings = Settings::new(patch, model.shape().n_ctx_train, talk.history);
    let requests = match talk.answers {
        None => Requests::conversation(settings.n_ctx),
        Some(answers) => Requests::answers(&settings, answers),
    };
    let watch = Watch::new(config.quiet);
    let progress = &|step, done, total| watch.set(step, done, total);
    let scheduler = session_open::scheduler(model, &tokenizer, requests, progress, &NEVER)?;
    let session = Session::new(scheduler, tokenizer, format, settings);
    drop(watch);
    note_threads(model.options.threads, session.info().threads, config.quiet);
    Ok(session)
}

/// Ids that the model has rows for.
///
/// # Errors
/// [`exit::Usage`] names the first id without a row; also for an empty list.
pub fn check_ids(ids: &[u32], n_vocab: usize) -> Result<()> {
    if ids.is_empty() {
        return Err(exit::Usage("the text is empty: there is no token to read".into()).into());
    }
    match ids.iter().find(|&&id| id as usize >= n_vocab) {
        Some(id) => Err(exit::Usage(format!("id {id} is out of range: the model has {n_vocab} ids")).into()),
        None => Ok(()),
    }
}

/// Progress of opening a model on standard error: a counter for each step that takes time.
pub struct Watch {
    quiet: bool,
    now: Mutex<Option<(OpenStep, Counter)>>,
}

impl Watch {
    /// Shows nothing when `quiet`.
    pub fn new(quiet: bool) -> Self {
        Self { quiet, now: Mutex::new(None) }
    }

    /// Shows that `done` of `total` bytes of `step` are done.
    pub fn set(&self, step: OpenStep, done: u64, total: u64) {
        let Ok(mut now) = self.now.lock() else { return };
        let (counter, what) = match step {
            // Too short for a counter.
            OpenStep::Build => return,
            OpenStep::Convert => (Counter::new as fn(_, _, _) -> _, ""),
            OpenStep::Read => (Counter::patient as fn(_, _, _) -> _, "of the model"),
        };
        if now.as_ref().is_none_or(|(shown, _)| *shown != step) {
            // The old bar goes before the new one comes.
            *now = None;
            *now = Some((step, counter(total, true, self.quiet)));
        }
        if let Some((_, counter)) = now.as_mut() {
            counter.set(done, what);
        }
        if step == OpenStep::Read && done >= total {
            *now = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::EngineArgs;
    use crate::engine::FlashAttention;
    use crate::settings::Patch;

    #[test]
    fn flash_attention_goes_to_the_side_that_llama_cpp_runs() {
        let flash = |engine, base| {
            let patch = Patch { engine: Some(engine), threads: Some(1), ..Patch::default() };
            let flash_attn = Some(FlashAttention::On);
            let load = LoadArgs { engine: EngineArgs { patch }, flash_attn, ..LoadArgs::default() };
            sides(&Config::default(), &load, base, None).unwrap().map(|side| side.flash_attention.is_some())
        };
        use EngineKind::{Ggml, Native};
        assert_eq!(flash(Native, Ggml), [false, true]);
        assert_eq!(flash(Ggml, Native), [true, false]);
        assert_eq!(flash(Ggml, Ggml), [true, true]);
        // No side takes it: opening either refuses it.
        assert_eq!(flash(Native, Native), [true, true]);
    }
}
