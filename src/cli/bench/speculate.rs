//! `huozi bench --speculate`: what drafts bring where each token is right with a given chance.

use super::super::args::{BenchCommand, Output};
use super::super::load::Watch;
use super::super::printer::{Printer, SCHEMA};
use super::super::settings::Config;
use super::super::show::Counter;
use super::super::signal::Signals;
use super::subject::{BenchSubject, checked};
use super::table::{csv_head, csv_row};
use crate::bench::speculate::{self, SpeculateRow, SpeculateRun, SpeculateTest, VERIFY_TOKENS};
use crate::bench::{BenchTest, BenchWork};
use crate::engine::Info;
use crate::open::Room;
use anyhow::Result;
use serde_json::{Value, json};
use std::sync::Arc;

/// Measures the first of `-n` after the first of `-d`.
///
/// # Errors
/// See [`super::super::exit`].
pub fn run(
    args: &BenchCommand,
    config: &Config,
    threads: &[usize],
    signals: &Signals,
    printer: &mut Printer,
) -> Result<()> {
    let first = |list: &[usize]| list.iter().copied().find(|&n| n > 0);
    let test = SpeculateTest {
        prompt: first(&args.n_depth).unwrap_or(1),
        generated: first(&args.n_gen).unwrap_or(1),
        chances: args.speculate.clone(),
        repetitions: args.repetitions,
        seed: args.seed,
    };
    let total = threads.len() * (1 + 2 * test.chances.len() * test.repetitions);
    let mut counter = Counter::new(total as u64, false, args.quiet);
    let mut runs = Vec::new();
    let result = signals.while_busy(|cancel| -> Result<()> {
        let work = BenchWork::Generate(test.generated);
        let as_row = BenchTest { work, depth: test.prompt, sequences: 1 };
        let mut subject = BenchSubject::open(args, config, &[as_row], cancel)?;
        for (i, &threads) in threads.iter().enumerate() {
            subject.model.options.threads = Some(threads);
            let watch = Watch::new(args.quiet);
            let progress = &|step, done, total| watch.set(step, done, total);
            let room = Room { positions: test.positions(), sequences: 1, apart: None };
            let engine = subject.model.engine(room, progress, cancel)?;
            drop(watch);
            let info = engine.info().clone();
            let never = Arc::from(vec![false; info.n_vocab]);
            let before = i * (1 + 2 * test.chances.len() * test.repetitions);
            let name = test_name(&test);
            let mut on = |done: usize| counter.set((before + done) as u64, &name);
            let run = speculate::measure(engine, &test, &never, cancel, &mut on)?;
            runs.push((info, run));
        }
        Ok(())
    });
    drop(counter);
    checked(result, signals)?;
    print(args.output(), &test, &runs, printer)
}

/// `tg256 @ d32`.
fn test_name(test: &SpeculateTest) -> String {
    format!("tg{} @ d{}", test.generated, test.prompt)
}

fn print(
    output: Output,
    test: &SpeculateTest,
    runs: &[(Info, SpeculateRun)],
    printer: &mut Printer,
) -> Result<()> {
    let described = runs.iter().flat_map(|(info, run)| {
        let of = move |row: &SpeculateRow| describe(test, info, run, row);
        run.rows.iter().map(of).collect::<Vec<Value>>()
    });
    match output {
        Output::Markdown => {
            for (info, run) in runs {
                let (one, wide) = run.steps;
                printer.line(&format!(
                    "{}; a step of 1 token {:.1} ms, of {VERIFY_TOKENS} tokens {:.1} ms: {:.2} x\n",
                    info.runs_on,
                    one * 1e3,
                    wide * 1e3,
                    wide / one
                ))?;
                printer.line("| test | chance | t/s | without | ratio | drafted | accepted |")?;
                printer.line("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")?;
                for row in &run.rows {
                    printer.line(&format!(
                        "| {} | {} | {:.2} | {:.2} | {:.3} | {} | {} |",
                        test_name(test),
                        row.chance,
                        row.rate(),
                        row.plain_rate(),
                        row.ratio(),
                        row.drafted,
                        row.accepted
                    ))?;
                }
            }
        }
        Output::Csv => {
            for (i, row) in described.enumerate() {
                if i == 0 {
                    printer.line(&csv_head(&row))?;
                }
                printer.line(&csv_row(&row))?;
            }
        }
        Output::JsonLines => described.into_iter().try_for_each(|row| printer.json(&row))?,
        Output::Json => printer.json(&Value::Array(described.collect()))?,
    }
    Ok(())
}

fn describe(test: &SpeculateTest, info: &Info, run: &SpeculateRun, row: &SpeculateRow) -> Value {
    json!({
        "schema": SCHEMA,
        "test": test_name(test),
        "version": env!("CARGO_PKG_VERSION"),
        "runs_on": info.runs_on,
        "n_threads": info.threads,
        "model_size": info.model_bytes,
        "n_gen": test.generated,
        "n_depth": test.prompt,
        "seed": test.seed,
        "speculate_chance": row.chance,
        "samples_s": row.seconds,
        "plain_samples_s": row.plain,
        "median_ts": row.rate(),
        "plain_median_ts": row.plain_rate(),
        "ratio": row.ratio(),
        "drafted_tokens": row.drafted,
        "accepted_tokens": row.accepted,
        "text_equal": true,
        "step_1_s": run.steps.0,
        "verify_tokens": VERIFY_TOKENS,
        "verify_s": run.steps.1,
        "verify_ratio": run.steps.1 / run.steps.0,
    })
}
