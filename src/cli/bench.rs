//! `huozi bench`: tokens per second, and the share of the machine's best rates.

mod compare;
mod speculate;
mod subject;
mod table;

use super::args;
use super::exit::Usage;
use super::load::{Watch, note_threads};
use super::printer::{Printer, SCHEMA, bytes};
use super::settings::Config;
use super::show::Counter;
use super::signal::Signals;
use crate::bench::{self, BenchRow, BenchTest};
use crate::engine::usable_threads;
use crate::open::Room;
use crate::settings::Patch;
use anyhow::Result;
use huozi_quant::bloom::plan;
use huozi_quant::bloom::shape::Shape;
use huozi_quant::kernels::Isa;
use serde_json::json;
use std::path::Path;
use std::sync::Mutex;
use subject::{BenchSubject, checked, random_model};
use table::{RowTable, describe};

/// Runs the command.
///
/// # Errors
/// See [`super::exit`].
pub fn run(
    args: &args::BenchCommand,
    config: &Config,
    signals: &Signals,
    printer: &mut Printer,
) -> Result<()> {
    if let (Some(shape), Some(path)) = (&args.shape, &args.write) {
        return write(args, shape, path, signals, printer);
    }
    let tests = BenchTest::all(&args.n_prompt, &args.n_gen, &args.pg, &args.n_depth, &args.batch);
    if tests.is_empty() {
        return Err(Usage("nothing to measure: -p and -n are 0, and there is no --pg".into()).into());
    }
    let threads = threads(args, config)?;
    if !args.speculate.is_empty() {
        return speculate::run(args, config, &threads, signals, printer);
    }
    if args.compare {
        return compare::run(args, config, &threads, signals, printer);
    }
    let mut table = RowTable::new(args.output());
    let total = tests.len() * threads.len() * args.repetitions;
    let mut counter = Counter::new(total as u64, false, args.quiet);
    let result = signals.while_busy(|cancel| -> Result<()> {
        let mut subject = BenchSubject::open(args, config, &tests, cancel)?;
        for (i, &threads) in threads.iter().enumerate() {
            let room = Room {
                positions: tests.iter().map(|t| t.kv_positions(huozi_quant::kv::BLOCK)).max().unwrap_or(1),
                sequences: tests.iter().map(|t| t.sequences).max().unwrap_or(1),
                apart: tests.iter().map(BenchTest::positions).max(),
            };
            let isa = Isa::from_env()?;
            let floors = subject.floors(args, threads, isa, cancel)?;
            subject.model.options.threads = Some(threads);
            let watch = Watch::new(args.quiet);
            let progress = &|step, done, total| watch.set(step, done, total);
            let mut engine = subject.model.engine(room, progress, cancel)?;
            drop(watch);
            for (j, &test) in tests.iter().enumerate() {
                let before = (i * tests.len() + j) * args.repetitions;
                let name = test.to_string();
                let mut on = |done: usize| counter.set((before + done) as u64, &name);
                let seconds =
                    bench::measure(engine.as_mut(), test, args.repetitions, args.seed, cancel, &mut on)?;
                let row = BenchRow { test, seconds, cost: subject.cost, floors };
                let described = describe(args, &subject, engine.as_ref(), isa, &row);
                counter.hidden(|| table.row(printer, &row, &described))?;
            }
        }
        Ok(())
    });
    drop(counter);
    checked(result, signals)?;
    table.end(printer)
}

/// The numbers of threads to measure: those that were typed, or else one; where a number is more than can
/// run, that which does.
fn threads(args: &args::BenchCommand, config: &Config) -> Result<Vec<usize>> {
    let wanted = match &args.threads[..] {
        [] => vec![config.settings(Patch::default())?.threads],
        typed => typed.iter().copied().map(Some).collect(),
    };
    let mut threads = Vec::new();
    for wanted in wanted {
        let used = usable_threads(wanted);
        note_threads(wanted, used, args.quiet);
        let fewer = wanted.is_some_and(|wanted| wanted > used);
        if !(fewer && threads.contains(&used)) {
            threads.push(used);
        }
    }
    Ok(threads)
}

fn write(
    args: &args::BenchCommand,
    shape: &(String, Shape),
    path: &Path,
    signals: &Signals,
    printer: &mut Printer,
) -> Result<()> {
    let model = random_model(args, shape);
    let total = plan::tensor_bytes(&model.shape, model.preset, true);
    let counter = Mutex::new(Counter::new(total, true, args.quiet));
    let progress = |done: u64, _total: u64| {
        if let Ok(mut counter) = counter.try_lock() {
            counter.set(done, "");
        }
    };
    let result = signals.while_busy(|cancel| model.write(path, cancel, &progress));
    drop(counter);
    checked(result.map_err(Into::into), signals)?;
    let length = std::fs::metadata(path)?.len();
    if args.json {
        let model = path.display().to_string();
        printer.json(&json!({ "schema": SCHEMA, "model": model, "bytes": length }))?;
    } else if !args.quiet {
        eprintln!("huozi: wrote {} ({})", path.display(), bytes(length));
    }
    Ok(())
}
