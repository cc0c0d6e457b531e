//! A checkpoint and a list of (type, path) in; finished GGUF files out, each complete under its name or not there.
//!
//! What is decided before the first weight is read is decided here; the rows stream in `work`, the files are `output`'s.
//! The bytes written depend on the source and the options only, never on threads.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use huozi_quant::encode;
use huozi_quant::gguf::Layout;
use huozi_quant::kernels::Isa;

use crate::Error;
use crate::forecast;
pub use crate::forecast::{Forecast, Memory, Planned, Planning};
use crate::journal::digest;
use crate::model::Model;
use crate::output::{self, Output, Plan, Sealed};
use crate::partial::Fate;
use crate::plan::{Preset, PresetOptions, TensorType};
pub use crate::report::{FormatCount, Report, Worst, Written};
use crate::source::Checkpoint;
use crate::verify;
use crate::work::{CHUNK, Chunk, How, Work, chunks};

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
    pub wishes: PresetOptions,
    /// Formats of tensors by their names, before all other choices; the first that matches counts.
    pub tensor_types: Vec<TensorType>,
    /// Metadata by hand: keys and values.
    pub metadata: Vec<(String, String)>,
    /// A file that holds `tokenizer.chat_template`; `None`: taken from the source.
    pub chat_template: Option<PathBuf>,
    /// A file of llama-imatrix.
    pub imatrix: Option<PathBuf>,
    /// Read each finished file beside the source before it gets its name.
    pub verify: bool,
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
            wishes: PresetOptions::default(),
            tensor_types: Vec::new(),
            metadata: Vec::new(),
            chat_template: None,
            imatrix: None,
            verify: false,
            allow_nan: false,
        }
    }
}

/// Told what happens, from any thread.
pub trait Progress: Sync {
    /// What is worth knowing before the work begins: the first notes of the report.
    fn notes(&self, notes: &[String]) {
        let _ = notes;
    }
    /// The conversion proper begins; `bytes` of source will be read.
    fn start(&self, bytes: u64) {
        let _ = bytes;
    }
    /// So many more bytes of source are done.
    fn advance(&self, bytes: u64) {
        let _ = bytes;
    }
    /// Everything is read and encoded; the files are being put on the disk, and `bytes` of them read back for their sums.
    fn sync(&self, bytes: u64) {
        let _ = bytes;
    }
    /// So many more of them are read back.
    fn summed(&self, bytes: u64) {
        let _ = bytes;
    }
    /// The files are being read again beside the source, `bytes` of it.
    fn verify(&self, bytes: u64) {
        let _ = bytes;
    }
}

/// Silence.
impl Progress for () {}

/// Converts.
///
/// `cancel` is looked at between chunks of 1 MiB. When it is set, and when anything fails that is not the fault of what
/// is done, that stays in `OUT.partial`, and a later run with the same source and options goes on there.
///
/// # Errors
/// See [`Error`]; [`Error::Unfinished`] says that there is something to go on with. No output gets its final name before
/// all are complete on the disk; what can fail after that is the naming itself, and [`Error::Partly`] says which files
/// have their names.
pub fn run(options: &Options, progress: &dyn Progress, cancel: &AtomicBool) -> Result<Report, Error> {
    let fate = Fate::default();
    match convert(options, progress, cancel, &fate) {
        // These say themselves how to go on.
        Err(error @ (Error::Interrupted | Error::Partly { .. })) => Err(error),
        Err(error) if fate.is_kept() => Err(Error::Unfinished { source: Box::new(error) }),
        result => result,
    }
}

fn convert(
    options: &Options,
    progress: &dyn Progress,
    cancel: &AtomicBool,
    fate: &Fate,
) -> Result<Report, Error> {
    let started = Instant::now();
    output::check_paths(&options.outputs, options.force)?;
    if options.outputs.is_empty() {
        return Err(Error::Usage("no output: -t TYPE -o OUT.gguf".into()));
    }
    let Opened { checkpoint, pool, isa } = Opened::new(options)?;
    let work = Work { checkpoint: &checkpoint, pool: &pool, cancel, isa };
    let mut model = Model::read(options, &work)?;
    let chunks = chunks(model.tensors.iter().map(|(t, _)| t));
    let identity = checkpoint.identity()?;
    let plans = plans(options, &model, &work, &chunks, &identity)?;
    let mut sources = checkpoint.opened();
    sources.extend(&model.opened);
    let outputs = Output::create_all(plans, &sources, fate, cancel, &mut model.notes)?;
    for output in &outputs {
        let there = work.resume(&model.tensors, &chunks, output)?;
        if there > 0 {
            let percent = there * 100 / chunks.len().max(1);
            model.notes.push(format!("{}: went on at {percent} %", output.path().display()));
        }
    }
    let spoils = |error: &Error| {
        if error.is_worthless() {
            fate.set_worthless();
        }
    };
    let source_bytes: u64 = model.tensors.iter().map(|(_, source)| checkpoint.tensors()[*source].bytes).sum();
    progress.notes(&model.notes);
    progress.start(source_bytes);
    let how = How { allow_nan: options.allow_nan, imatrix: model.imatrix.as_ref() };
    let converted = match work.convert(&model.tensors, &chunks, &outputs, how, progress) {
        Ok(()) | Err(Error::Source(_)) if checkpoint.identity()? != identity => {
            Err(Error::Changed(checkpoint.name().to_owned()))
        }
        converted => converted,
    };
    converted.inspect_err(spoils)?;
    for output in &outputs {
        let zeroed: u64 = output.losses().iter().map(|loss| loss.zeroed).sum();
        if zeroed > 0 {
            let path = output.path().display();
            model.notes.push(format!("{path}: {zeroed} NaN or infinite weights were written as 0"));
        }
    }
    progress.sync(outputs.iter().flat_map(Output::tensors).map(|t| t.bytes).sum());
    let weights = model.weights();
    let mut written: Vec<Written> = outputs.iter().map(|o| Written::new(o, &chunks, weights)).collect();
    let sealed = outputs.into_iter().map(|output| pool.install(|| output.seal(progress, cancel)));
    let sealed: Vec<Sealed<'_>> = sealed.collect::<Result<_, _>>()?;
    if options.verify {
        let summed: u64 = checkpoint.summed().iter().map(|(_, bytes)| bytes).sum();
        progress.verify(summed + source_bytes * sealed.len() as u64);
        work.check_sums(progress).inspect_err(spoils)?;
        for (file, written) in sealed.iter().zip(&mut written) {
            let path = file.partial_path();
            let losses = verify::verify(&work, &model.tensors, &chunks, path, options.allow_nan, progress);
            let losses = losses.inspect_err(spoils)?;
            written.set_losses(&chunks, &losses, true);
        }
    }
    Sealed::name_all(sealed, options.force, cancel)?;
    Ok(Report {
        name: model.name,
        weights,
        source_bytes,
        seconds: started.elapsed().as_secs_f64(),
        outputs: written,
        notes: model.notes,
    })
}

/// What [`run`] would do: nothing is written.
///
/// # Errors
/// Those that `run` would meet before it reads the first weight, but for an output that is one of its sources.
pub fn forecast(options: &Options, cancel: &AtomicBool) -> Result<Forecast, Error> {
    output::check_paths(&options.outputs, options.force)?;
    let Opened { checkpoint, pool, isa } = Opened::new(options)?;
    let work = Work { checkpoint: &checkpoint, pool: &pool, cancel, isa };
    let model = Model::read(options, &work)?;
    let chunks = chunks(model.tensors.iter().map(|(t, _)| t));
    let plans = plans(options, &model, &work, &chunks, "")?;
    let how = How { allow_nan: options.allow_nan, imatrix: model.imatrix.as_ref() };
    forecast::forecast(&model, &work, &chunks, &plans, how)
}

/// What a run needs before anything else.
struct Opened {
    checkpoint: Checkpoint,
    pool: rayon::ThreadPool,
    isa: Isa,
}

impl Opened {
    fn new(options: &Options) -> Result<Self, Error> {
        let checkpoint = match &options.source {
            Source::Path(path) => Checkpoint::open(path)?,
            Source::Memory(files) => Checkpoint::from_memory(files.clone())?,
        };
        let threads =
            options.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.max(1)).build();
        let pool = pool.map_err(|e| Error::Usage(format!("can not start {threads} threads: {e}")))?;
        let isa = Isa::from_env().map_err(|e| Error::Usage(e.to_string()))?;
        Ok(Self { checkpoint, pool, isa })
    }
}

/// One plan per output. `identity`: of the source, as it is now.
fn plans(
    options: &Options,
    model: &Model,
    work: &Work<'_>,
    chunks: &[Chunk],
    identity: &str,
) -> Result<Vec<Plan>, Error> {
    let mapping = model.mapping(work.checkpoint);
    let version = format!("{} {} {CHUNK}", env!("CARGO_PKG_VERSION"), encode::VERSION);
    let one = |(preset, path): &(Preset, PathBuf)| {
        let layout = Layout::new(&model.meta(*preset), model.specs(*preset, options));
        let layout = layout.map_err(|source| Error::Gguf { path: path.clone(), source })?;
        // Everything that decides the bytes of the file: what is not in its header, and the header.
        let importance = model.imatrix.as_ref().map_or("", |m| m.digest());
        let nan = [u8::from(options.allow_nan)];
        let texts = [&version, identity, &mapping, importance].map(str::as_bytes);
        let digest = digest(texts.into_iter().chain([&nan[..], layout.header()]));
        Ok(Plan { preset: *preset, path: path.clone(), layout, digest, chunks: chunks.len() })
    };
    options.outputs.iter().map(one).collect()
}
