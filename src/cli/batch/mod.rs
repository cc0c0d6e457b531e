//! `huozi batch`: a file of prompts to a file of results.

mod check;
mod progress;
mod start;

use super::args::{BatchCommand, BatchPart, MergeCommand, ShardChoice};
use super::exit::{Interrupted, RowsFailed, Usage};
use super::load;
use super::printer::Printer;
use super::settings::Config;
use super::show::Counter;
use super::signal::Signals;
use crate::batch::input::{CheckedInput, FollowedInput, InputFile, InputForm, InputOptions};
use crate::batch::output::{
    BatchSummary, FileOptions, InputIdentity, MergeOptions, ModelIdentity, OpenedOutput, ResultOrder,
    ResultWriter, RunIdentity, Shard, merge, partial_path,
};
use crate::batch::{
    MemoryPlan, Results, RowSource, RunProgress, WINDOW_ROWS, common_prefix, plan, run as run_rows,
};
use crate::complete::{self, AnswerOptions, Job, Task};
use crate::engine::Info;
use crate::kv_file::prompt::PromptCache;
use crate::open::Room;
use crate::sample::Sampling;
use crate::schedule::{Scheduler, SchedulerHandle, SchedulerOptions};
use anyhow::{Context, Result};
use huozi_quant::message::counted;
use progress::{Progress, totals};
use start::{KEPT, PARALLEL, Ready};
use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Rows that are sorted together for each that runs, where results leave in the order of the rows.
const STREAM_WINDOW: usize = 4;
/// Sequences of llama.cpp at most.
const MAX_SEQUENCES: usize = 256;

/// Never set: until rows run, a signal ends the process at once.
static NEVER: AtomicBool = AtomicBool::new(false);

/// Runs the command.
///
/// # Errors
/// See [`super::exit`].
pub fn run(args: &BatchCommand, config: &Config, signals: &Signals, printer: &mut Printer) -> Result<()> {
    if let Some(BatchPart::Merge(args)) = &args.command {
        return merged(args, printer);
    }
    let (input, output) = paths(args)?;
    let shard = shard_of(args)?;
    let out = match shard {
        Some(shard) => shard.path(&output),
        None => output.clone(),
    };
    let to_stream = output.as_os_str() == "-";
    let ready = Ready::new(args, config, (!to_stream && !args.restart && !args.check).then_some(&out))?;
    if args.follow {
        return follow(args, &ready, &input, signals, printer);
    }
    // A copy of the input has room where the results have, more than in a folder that may lie in memory.
    let copies = out.parent().filter(|_| !to_stream && !args.check).map(|folder| match folder.as_os_str() {
        name if name.is_empty() => PathBuf::from("."),
        _ => folder.to_owned(),
    });
    let checked = checked(args, &ready, &input, copies)?;
    if args.check {
        return check::show(args, &ready, &checked, shard, signals, printer);
    }
    let rows = rows_of(&checked, shard);
    let parallel = args.parallel.unwrap_or(PARALLEL);
    // Before anything is written.
    let memory = plan(&ready.model, checked.counts().most_positions, parallel + KEPT, args.memory)?;
    let writer = if to_stream {
        ResultWriter::stream(Box::new(io::stdout()), ready.line_context())
    } else {
        match writer(args, &ready, &checked, &rows, (&input, &output), shard)? {
            OpenedOutput::Ready(writer) => writer,
            OpenedOutput::Complete(summary) => return already_done(args, &summary, printer),
        }
    };
    let todo: Vec<u32> = rows.iter().copied().filter(|&row| !writer.is_done(row as usize)).collect();
    let before = (rows.len() - todo.len()) as u64;
    if before > 0 && !args.quiet {
        eprintln!("huozi: {before} of {} rows are done already", rows.len());
    }
    let total = rows.len();
    drop(rows);
    // A stream in the order of its rows flows as long as few rows are read out of order.
    let (mut results, window) = if to_stream && args.order != Some(ResultOrder::Done) {
        (Results::in_order(writer, todo.clone()), STREAM_WINDOW * parallel)
    } else {
        (Results::as_they_end(writer), WINDOW_ROWS)
    };
    let mut progress = Progress::new(Some(total as u64), before, args.json, args.quiet, to_stream);
    let mut info = None;
    if !todo.is_empty() {
        let (scheduler, of_engine) = scheduler(&ready, memory, parallel, args.quiet)?;
        info = Some(of_engine);
        if let Some(path) = &args.prompt_cache {
            let prefix = common_prefix(&checked, &todo)?;
            let cached = signals.while_busy(|cancel| cache(path, &ready, &prefix, &scheduler, cancel));
            signals.check()?;
            cached?;
        }
        let source = RowSource::Input(Arc::new(checked), todo, window);
        let ended = signals.while_busy(|cancel| {
            let watch = &mut |at: &RunProgress| progress.show(at);
            run_rows(source, &scheduler, &ready.tokenizer, parallel, &mut results, watch, cancel)
        });
        progress.end();
        if !matches!(ended, Ok((_, true))) && !args.quiet && !to_stream {
            let done = before + progress.last().rows;
            let partial = partial_path(&out);
            eprintln!(
                "huozi: {done} of {total} rows are done and kept in {}; the same command goes on",
                partial.display()
            );
        }
        let (_, complete) = ended?;
        if !complete {
            signals.check()?;
            return Err(Interrupted(super::exit::INTERRUPTED).into());
        }
    }
    let summary = results.into_writer().finish(total)?;
    progress.summary(&summary, &ready, info.as_ref(), printer)?;
    failed(summary.failed as u64, summary.rows as u64, !to_stream)
}

/// Exit code 3 where rows failed.
fn failed(failed: u64, rows: u64, retry: bool) -> Result<()> {
    if failed > 0 { Err(RowsFailed { failed, rows, retry }.into()) } else { Ok(()) }
}

/// Input and output; `-` where there is a default.
fn paths(args: &BatchCommand) -> Result<(PathBuf, PathBuf)> {
    let usage = |text: &str| Usage(text.to_owned());
    let stream = PathBuf::from("-");
    let input = match &args.input {
        Some(input) => input.clone(),
        None if args.follow => stream.clone(),
        None => {
            return Err(usage("-i IN is needed: the file with the prompts, or - for standard input").into());
        }
    };
    if input == stream && io::stdin().is_terminal() {
        return Err(usage("no rows: give a file with -i FILE, or pipe them in").into());
    }
    let output = match &args.output {
        Some(output) => output.clone(),
        None if args.follow || args.check => stream.clone(),
        None => {
            return Err(usage("-o OUT is needed: the file for the results, or - for standard output").into());
        }
    };
    if args.follow && output != stream {
        return Err(usage("--follow writes to standard output: leave -o away, or say -o -").into());
    }
    if output == stream && (args.errors.is_some() || args.restart || args.retry_errors) {
        return Err(usage("--errors, --restart and --retry-errors need a file: -o OUT").into());
    }
    if args.errors.as_deref() == Some(Path::new("-")) {
        return Err(usage("--errors needs a file: standard output has no room for both").into());
    }
    Ok((input, output))
}

fn shard_of(args: &BatchCommand) -> Result<Option<Shard>> {
    Ok(match args.shard {
        None => None,
        Some(ShardChoice::Shard(shard)) => {
            if args.shards.is_some_and(|shards| shards != shard.count) {
                return Err(Usage(format!("--shard {shard} and --shards: two numbers of shards")).into());
            }
            Some(shard)
        }
        Some(ShardChoice::Slurm) => Some(Shard::slurm(|name| std::env::var(name).ok(), args.shards)?),
    })
}

/// The input, read and checked once.
fn checked(
    args: &BatchCommand,
    ready: &Ready,
    path: &Path,
    copy_folder: Option<PathBuf>,
) -> Result<CheckedInput> {
    let options = InputOptions { form: args.format, column: args.column.clone(), raw: args.raw, copy_folder };
    let input = InputFile::open(path, &options, &NEVER)?;
    let mut counter = None;
    let checked = input.check(
        ready.preparer.clone(),
        &mut |at| {
            let counter = counter.get_or_insert_with(|| Counter::patient(at.total_bytes, true, args.quiet));
            counter.set(at.bytes, "checked");
        },
        &NEVER,
    );
    drop(counter);
    let checked = checked?;
    if !args.quiet {
        for column in checked.unused_columns() {
            eprintln!("huozi: {}: column {column:?} is not used", checked.name());
        }
    }
    Ok(checked)
}

/// The rows of this run.
fn rows_of(checked: &CheckedInput, shard: Option<Shard>) -> Vec<u32> {
    match shard {
        Some(shard) => checked.shard(shard.index.into(), shard.count.into()),
        None => (0..checked.len() as u32).collect(),
    }
}

/// The output file, from where an earlier run left it.
fn writer(
    args: &BatchCommand,
    ready: &Ready,
    checked: &CheckedInput,
    rows: &[u32],
    (input, output): (&Path, &Path),
    shard: Option<Shard>,
) -> Result<OpenedOutput> {
    let options = FileOptions {
        out: output.to_owned(),
        errors: args.errors.clone(),
        order: args.order.unwrap_or_default(),
        restart: args.restart,
        retry_errors: args.retry_errors,
        sources: std::iter::once(input)
            .chain(ready.model.reader().parts().iter().map(|part| part.path()))
            .chain(args.prompt_cache.as_deref())
            .map(Path::to_owned)
            .collect(),
    };
    let sha256 = checked.digest().iter().map(|byte| format!("{byte:02x}")).collect();
    let mut form = checked.form().name().to_owned();
    if matches!(checked.form(), InputForm::Csv | InputForm::Tsv) {
        form = format!("{form}, column {:?}", args.column.as_deref().unwrap_or("prompt"));
    }
    let identity = RunIdentity {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        model: ModelIdentity { name: ready.model.name(), fingerprint: ready.model.fingerprint()? },
        engine: ready.model.options.engine.name().to_owned(),
        kv_type: ready.model.options.kv.name().to_owned(),
        isa_class: ready.model.bits_class().map_err(|error| Usage(error.to_string()))?,
        date: ready.date.clone(),
        input: InputIdentity { sha256, rows: checked.len(), form },
        settings: ready.settings.clone(),
        shard,
    };
    let find = &mut |id: &str| {
        // None of another shard.
        let row = checked.find(id)?;
        Ok(row.filter(|&row| rows.binary_search(&(row as u32)).is_ok()))
    };
    Ok(ResultWriter::open(&options, identity, ready.line_context(), find)?)
}

/// A scheduler with as much room as is planned.
fn scheduler(
    ready: &Ready,
    memory: MemoryPlan,
    parallel: usize,
    quiet: bool,
) -> Result<(SchedulerHandle, Info)> {
    let sequences = (parallel + KEPT + 1).min(MAX_SEQUENCES);
    let room = Room { positions: memory.positions, sequences, apart: None };
    let engine = load::engine(&ready.model, room, quiet)?;
    let info = engine.info().clone();
    let options = SchedulerOptions { running: parallel, kept: KEPT, exact: true, grouped: true };
    let scheduler = Scheduler::with_options(engine, ready.tokenizer.vocab().never(), options);
    Ok((SchedulerHandle::of(scheduler).context("starting the engine")?, info))
}

/// Takes keys and values of `prefix` from the file `path`; where there is none, reads it and makes the file.
fn cache(
    path: &Path,
    ready: &Ready,
    prefix: &[u32],
    scheduler: &SchedulerHandle,
    cancel: &AtomicBool,
) -> Result<()> {
    let cache = PromptCache::at(path, ready.model.fingerprint()?)?;
    if let Some(saved) = cache.open(scheduler)? {
        let common = saved.ids().iter().zip(prefix).take_while(|(a, b)| a == b).count();
        if saved.load(scheduler, common)? == 0 {
            eprintln!("huozi: {}: the prompts begin differently: nothing of it is used", path.display());
        }
        return Ok(());
    }
    if prefix.is_empty() {
        eprintln!("huozi: {}: not made: the prompts have no beginning in common", path.display());
        return Ok(());
    }
    let read = AnswerOptions {
        sampling: Sampling::DEFAULT,
        seeds: vec![0],
        max_new: 0,
        stop_ids: Vec::new(),
        stop: Vec::new(),
        log_probs: None,
        speculate: false,
    };
    let job = Job { prompt: prefix.to_vec(), task: Task::Answers(read), n_ctx: ready.n_ctx };
    complete::run(scheduler, &ready.tokenizer, &job, cancel, &mut |_| {})?;
    Ok(cache.save(scheduler, prefix)?)
}

/// Answers rows as they arrive.
fn follow(
    args: &BatchCommand,
    ready: &Ready,
    input: &Path,
    signals: &Signals,
    printer: &mut Printer,
) -> Result<()> {
    let text = match args.format {
        None | Some(InputForm::JsonLines) => false,
        Some(InputForm::Text) => true,
        Some(_) => {
            return Err(Usage("--follow reads JSON lines, or with --format text prompts".into()).into());
        }
    };
    let parallel = args.parallel.unwrap_or(PARALLEL);
    let memory = plan(&ready.model, ready.n_ctx, parallel + KEPT, args.memory)?;
    let (scheduler, info) = scheduler(ready, memory, parallel, args.quiet)?;
    let from: Box<dyn BufRead + Send> = if input.as_os_str() == "-" {
        Box::new(BufReader::new(io::stdin()))
    } else {
        let opened = File::open(input);
        let file = opened.with_context(|| format!("{}: cannot open", input.display()))?;
        Box::new(BufReader::new(file))
    };
    let rows = FollowedInput::new(from, text, args.raw, ready.preparer.clone());
    let writer = ResultWriter::stream(Box::new(io::stdout()), ready.line_context());
    let mut results = Results::as_they_end(writer);
    let mut progress = Progress::new(None, 0, args.json, args.quiet, true);
    let ended = signals.while_busy(|cancel| {
        let watch = &mut |at: &RunProgress| progress.show(at);
        let source = RowSource::Followed(rows);
        run_rows(source, &scheduler, &ready.tokenizer, parallel, &mut results, watch, cancel)
    });
    progress.end();
    let (at, complete) = ended?;
    if !complete {
        signals.check()?;
        return Err(Interrupted(super::exit::INTERRUPTED).into());
    }
    let summary = results.into_writer().finish(at.rows as usize)?;
    progress.summary(&summary, ready, Some(&info), printer)?;
    failed(summary.failed as u64, at.rows, false)
}

/// There is nothing to run.
fn already_done(args: &BatchCommand, summary: &BatchSummary, printer: &mut Printer) -> Result<()> {
    if !args.quiet {
        eprintln!("huozi: {}: all {} rows are done already", summary.out.display(), summary.rows);
    }
    if args.json {
        printer.json(&totals(summary))?;
    }
    failed(summary.failed as u64, summary.rows as u64, true)
}

/// `huozi batch merge`
fn merged(args: &MergeCommand, printer: &mut Printer) -> Result<()> {
    let options = MergeOptions {
        parts: args.parts.clone(),
        out: args.output.clone(),
        errors: args.errors.clone(),
        restart: args.restart,
    };
    let summary = merge(&options)?;
    if args.json {
        printer.json(&totals(&summary))?;
    } else if !args.quiet {
        let BatchSummary { rows, failed, out, .. } = &summary;
        let rows = counted(*rows as u64, "row");
        eprintln!("huozi: {rows}, {failed} of them failed: {}", out.display());
    }
    failed(summary.failed as u64, summary.rows as u64, false)
}
