//! `huozi batch --check`: what a run would take.

use super::super::args::BatchCommand;
use super::super::exit::{RowsFailed, Usage};
use super::super::printer::{Printer, SCHEMA, bytes, visible};
use super::super::signal::Signals;
use super::progress::span;
use super::start::{KEPT, PARALLEL, Ready};
use crate::batch::input::{BadRow, CheckCounts, CheckedInput};
use crate::batch::output::Shard;
use crate::batch::{MemoryPlan, TooLittleMemory, plan};
use crate::bench::{Floors, ModelCost};
use crate::engine::usable_threads;
use anyhow::Result;
use huozi_quant::kernels::Isa;
use serde_json::json;
use std::fmt::Write;

/// Bytes that are read to measure the memory.
const READ_BYTES: usize = 128 << 20;
/// What the program is taken to reach of the machine's rates.
const EFFICIENCY: f64 = 0.5;

/// Prints what the check found; exit code 3 where rows failed.
pub(super) fn show(
    args: &BatchCommand,
    ready: &Ready,
    checked: &CheckedInput,
    shard: Option<Shard>,
    signals: &Signals,
    printer: &mut Printer,
) -> Result<()> {
    let counts = checked.counts();
    let parallel = args.parallel.unwrap_or(PARALLEL);
    let memory = plan(&ready.model, counts.most_positions, parallel + KEPT, args.memory);
    let rows = shard.map(|shard| checked.shard(shard.index.into(), shard.count.into()).len() as u64);
    let share = rows.map_or(1.0, |rows| rows as f64 / counts.rows as f64);
    let seconds = share * seconds(ready, counts, parallel, signals)?;
    if args.json {
        let planned = memory.as_ref().ok();
        printer.json(&json!({
            "schema": SCHEMA,
            "kind": "check",
            "rows": counts.rows,
            "rows_of_shard": rows,
            "failed": counts.failed(),
            "failures": counts.failures,
            "prompt_tokens": counts.prompt_tokens,
            "longest_prompt": counts.longest_prompt,
            "most_answer_tokens": counts.most_answer_tokens,
            "choice_tokens": counts.choice_tokens,
            "memory_bytes": planned.map(MemoryPlan::total),
            "kv_bytes": planned.map(|plan| plan.kv),
            "kv_positions": planned.map(|plan| plan.positions),
            "memory_error": memory.as_ref().err().map(TooLittleMemory::to_string),
            "seconds": seconds,
            "input": checked.name(),
            "form": checked.form().name(),
        }))?;
    } else {
        for BadRow { id, line, error } in &counts.first_failures {
            let text = format!("{}: line {line} ({id}): {error}", checked.name());
            eprintln!("huozi: {}", visible(&text));
        }
        printer.text(&table(counts, rows, &memory, seconds, parallel)?)?;
    }
    memory?;
    match counts.failed() {
        0 => Ok(()),
        failed => Err(RowsFailed { failed, rows: counts.rows, retry: false }.into()),
    }
}

fn table(
    counts: &CheckCounts,
    rows: Option<u64>,
    memory: &Result<MemoryPlan, TooLittleMemory>,
    seconds: f64,
    parallel: usize,
) -> Result<String> {
    let mut out = String::new();
    let failed = counts.failed();
    writeln!(out, "rows           {}, {failed} of them wrong", counts.rows)?;
    if let Some(rows) = rows {
        writeln!(out, "rows of shard  {rows}")?;
    }
    writeln!(out, "prompt tokens  {}, at most {} in a row", counts.prompt_tokens, counts.longest_prompt)?;
    writeln!(out, "answer tokens  at most {}", counts.most_answer_tokens)?;
    if counts.choice_tokens > 0 {
        writeln!(out, "choice tokens  {}", counts.choice_tokens)?;
    }
    if let Ok(plan) = memory {
        writeln!(
            out,
            "memory         {}: weights {}, KV cache {} for {} tokens, scratch {}, program {}",
            bytes(plan.total()),
            bytes(plan.weights),
            bytes(plan.kv),
            plan.positions,
            bytes(plan.scratch),
            bytes(plan.program),
        )?;
    }
    writeln!(
        out,
        "time           about {}: an estimate from this machine's rates of memory and arithmetic for\n{:15}\
         {parallel} rows at a time, with the longest answers and no shared prefixes",
        span(seconds),
        "",
    )?;
    Ok(out)
}

/// An estimate of the time of a run. No weights are read: the machine's rates are measured over other bytes.
fn seconds(ready: &Ready, counts: &CheckCounts, parallel: usize, signals: &Signals) -> Result<f64> {
    let isa = Isa::from_env().map_err(|error| Usage(error.to_string()))?;
    let threads = usable_threads(ready.model.options.threads);
    let floors = signals.while_busy(|cancel| {
        // Written: pages that were never written all map to one page of zeros.
        Floors::measure(&vec![1u8; READ_BYTES], threads, isa, cancel)
    });
    signals.check()?;
    let floors = floors?;
    let cost = ModelCost::of(ready.model.reader());
    let macs = if cost.float { floors.f32 } else { floors.int8 }.per_second * EFFICIENCY;
    let prompts = (counts.prompt_tokens + counts.choice_tokens) as f64 * cost.layer_macs as f64 / macs;
    let width = (parallel as u64).min(counts.rows).max(1) as f64;
    let step =
        (cost.step_bytes as f64 / floors.read).max(width * (cost.layer_macs + cost.head_macs) as f64 / macs);
    Ok(prompts + counts.most_answer_tokens as f64 / width * step)
}
