//! From a checkpoint and a list of (type, path) to finished GGUF files, each complete under its name or
//! absent.
//!
//! This file makes the decisions that come before the first weight is read; `work` streams the rows,
//! `output` owns the files. The bytes written depend on the source and the options only, never on threads.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use huozi_quant::encode;
use huozi_quant::gguf::Layout;
use huozi_quant::kernels::Isa;

use crate::error::Error;
use crate::forecast;
use crate::forecast::Forecast;
use crate::journal::digest;
use crate::model::SourceModel;
use crate::options::{Options, Source};
use crate::output::{self, Output, OutputPlan, Sealed};
use crate::partial::RunOutcome;
use crate::plan::Preset;
use crate::progress::Progress;
use crate::report::{OutputReport, Report};
use crate::source::Checkpoint;
use crate::verify;
use crate::work::{CHUNK, Chunk, EncodeOptions, Workers, chunks};

/// Converts.
///
/// `cancel` is polled between chunks of 1 MiB. After a cancellation, and after any failure that does not make
/// the finished chunks useless, they stay in `OUT.partial`, and a later run with the same source and options
/// resumes there.
///
/// # Errors
/// See [`Error`]; [`Error::Unfinished`] says that a later run can resume. No output gets its final name
/// before all are complete on the disk; after that only a rename can fail, and [`Error::Partly`] lists the
/// files that have their names.
pub fn run(options: &Options, progress: &dyn Progress, cancel: &AtomicBool) -> Result<Report, Error> {
    let outcome = RunOutcome::default();
    match convert(options, progress, cancel, &outcome) {
        // The messages of these say how to resume.
        Err(error @ (Error::Interrupted | Error::Partly { .. })) => Err(error),
        Err(error) if outcome.is_kept() => Err(Error::Unfinished { source: Box::new(error) }),
        result => result,
    }
}

fn convert(
    options: &Options,
    progress: &dyn Progress,
    cancel: &AtomicBool,
    outcome: &RunOutcome,
) -> Result<Report, Error> {
    let started = Instant::now();
    let targets = output::targets(&options.outputs, options.force)?;
    if targets.is_empty() {
        return Err(Error::Usage("no output: -t TYPE -o OUT.gguf".into()));
    }
    let Opened { checkpoint, pool, isa, note } = Opened::new(options)?;
    let work = Workers { checkpoint: &checkpoint, pool: &pool, cancel, isa };
    let mut model = SourceModel::read(options, &work)?;
    model.notes.extend(note);
    let chunks = chunks(model.tensors.iter().map(|(t, _)| t));
    let identity = checkpoint.identity()?;
    let plans = plans((options, &targets), &model, &work, &chunks, &identity)?;
    let mut sources = checkpoint.opened();
    sources.extend(&model.opened);
    let outputs = Output::create_all(plans, &sources, outcome, cancel, &mut model.notes)?;
    for output in &outputs {
        let there = work.resume(&model.tensors, &chunks, output)?;
        if there > 0 {
            let percent = there * 100 / chunks.len().max(1);
            model.notes.push(format!("{}: resumed at {percent} %", output.path().display()));
        }
    }
    let spoils = |error: &Error| {
        if error.is_worthless() {
            outcome.set_worthless();
        }
    };
    let source_bytes: u64 = model.tensors.iter().map(|(_, source)| checkpoint.tensors()[*source].bytes).sum();
    progress.notes(&model.notes);
    progress.start(source_bytes);
    let encode_options = EncodeOptions { allow_nan: options.allow_nan, imatrix: model.imatrix.as_ref() };
    let converted = match work.convert(&model.tensors, &chunks, &outputs, encode_options, progress) {
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
    let mut written: Vec<OutputReport> =
        outputs.iter().map(|o| OutputReport::new(o, &chunks, weights)).collect();
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
/// Those of `run` before it reads the first weight, except an output that is one of its sources.
pub fn forecast(options: &Options, cancel: &AtomicBool) -> Result<Forecast, Error> {
    let targets = output::targets(&options.outputs, options.force)?;
    let Opened { checkpoint, pool, isa, note } = Opened::new(options)?;
    let work = Workers { checkpoint: &checkpoint, pool: &pool, cancel, isa };
    let mut model = SourceModel::read(options, &work)?;
    model.notes.extend(note);
    let chunks = chunks(model.tensors.iter().map(|(t, _)| t));
    let plans = plans((options, &targets), &model, &work, &chunks, "")?;
    let encode_options = EncodeOptions { allow_nan: options.allow_nan, imatrix: model.imatrix.as_ref() };
    forecast::forecast(&model, &work, &chunks, &plans, encode_options)
}

/// The open source, the threads and the instruction set of a run.
struct Opened {
    checkpoint: Checkpoint,
    pool: rayon::ThreadPool,
    isa: Isa,
    /// That fewer threads run than were asked for.
    note: Option<String>,
}

impl Opened {
    fn new(options: &Options) -> Result<Self, Error> {
        let checkpoint = match &options.source {
            Source::Path(path) => Checkpoint::open(path)?,
            Source::Memory(files) => Checkpoint::from_memory(files.clone())?,
        };
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let wanted = options.threads.unwrap_or(processors).max(1);
        let threads = wanted.min(processors);
        let note = (wanted > threads).then(|| {
            format!(
                "{wanted} threads were asked for, {threads} run: one for each processor that can be used; \
                 more would be slower"
            )
        });
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let pool = pool.map_err(|e| Error::Usage(format!("cannot start {threads} threads: {e}")))?;
        let isa = Isa::from_env().map_err(|e| Error::Usage(e.to_string()))?;
        Ok(Self { checkpoint, pool, isa, note })
    }
}

/// One plan per output, under the name that it will have. `identity`: of the source, as it is now.
fn plans(
    (options, targets): (&Options, &[(Preset, PathBuf)]),
    model: &SourceModel,
    work: &Workers<'_>,
    chunks: &[Chunk],
    identity: &str,
) -> Result<Vec<OutputPlan>, Error> {
    let mapping = model.mapping(work.checkpoint);
    let version = format!("{} {} {CHUNK}", env!("CARGO_PKG_VERSION"), encode::VERSION);
    let one = |(preset, path): &(Preset, PathBuf)| {
        let layout = Layout::new(&model.meta(*preset), model.specs(*preset, options));
        let layout = layout.map_err(|source| Error::Gguf { path: path.clone(), source })?;
        // Everything that decides the bytes of the file: the header, and what is not in it.
        let importance = model.imatrix.as_ref().map_or("", |m| m.digest());
        let nan = [u8::from(options.allow_nan)];
        let texts = [&version, identity, &mapping, importance].map(str::as_bytes);
        let digest = digest(texts.into_iter().chain([&nan[..], layout.header()]));
        Ok(OutputPlan { preset: *preset, path: path.clone(), layout, digest, chunks: chunks.len() })
    };
    targets.iter().map(one).collect()
}
