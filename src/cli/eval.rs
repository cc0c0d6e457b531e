//! `huozi eval`: perplexity and KL divergence.

use super::args::{EvalCommand, EvalWhat, KlCommand, PplCommand};
use super::exit::{BadFile, Usage};
use super::load;
use super::printer::{Printer, SCHEMA, number};
use super::settings::Config;
use super::show::Counter;
use super::signal::Signals;
use super::text;
use crate::engine::{EngineError, Phase};
use crate::eval::{self, Cut, EvalProgress};
use crate::open::Room;
use anyhow::Result;
use huozi_token::Specials;
use serde_json::json;
use std::time::Instant;

/// Runs the command.
///
/// # Errors
/// See [`super::exit`].
pub fn run(args: &EvalCommand, config: &Config, signals: &Signals, printer: &mut Printer) -> Result<()> {
    match &args.what {
        EvalWhat::Ppl(args) => ppl(args, config, signals, printer),
        EvalWhat::Kl(args) => kl(args, config, signals, printer),
    }
}

fn ppl(args: &PplCommand, config: &Config, signals: &Signals, printer: &mut Printer) -> Result<()> {
    let path = config.model(args.model.model.as_deref())?;
    let model = load::open(&path, &load::measuring(config, &args.model.load)?)?;
    let cut = Cut {
        chunk: args.chunk,
        stride: args.stride.unwrap_or(args.chunk),
        second_half: args.second_half,
        max_chunks: args.chunks.unwrap_or(usize::MAX),
        phase: args.phase.unwrap_or(Phase::Given),
    };
    if cut.stride > cut.chunk {
        return Err(Usage(format!("--stride {} is more than --chunk {}", cut.stride, cut.chunk)).into());
    }
    warn_long(cut.chunk, model.shape().n_ctx_train, args.quiet);
    let ids = model.tokenizer()?.encode(&text::of_file(&args.text, args.quiet)?, Specials::Plain);
    load::check_ids(&ids, model.shape().n_vocab)?;
    let mut engine = load::engine(&model, Room::single(cut.chunk), args.quiet)?;
    let began = Instant::now();
    let mut counter = Counter::new(cut.chunks(ids.len()) as u64, false, args.quiet);
    let result = signals.while_busy(|cancel| {
        let mut on = |p: EvalProgress| counter.set(p.done as u64, &format!("ppl {:.3}", p.value));
        eval::perplexity(engine.as_mut(), &ids, &cut, cancel, &mut on)
    });
    drop(counter);
    let result = checked(result, signals)?;
    let seconds = began.elapsed().as_secs_f64();
    if args.json {
        let measured = json!({
            "schema": SCHEMA,
            "ppl": result.ppl(),
            "ppl_error": result.ppl_error(),
            "nll": result.nll,
            "n_tokens": result.tokens,
            "chunk": cut.chunk,
            "stride": cut.stride,
            "second_half": cut.second_half,
            "phase": phase_name(cut.phase),
            "chunks": result.chunks,
            "scored": result.scored,
            "seconds": seconds,
        });
        printer.json(&load::recorded(measured, &model, engine.info())?)?;
    } else {
        printer.line(&format!(
            "perplexity {:.3} +- {:.3} ({} tokens, {} chunks of {}, {} scored)",
            result.ppl(),
            result.ppl_error(),
            result.tokens,
            result.chunks,
            cut.chunk,
            result.scored
        ))?;
    }
    Ok(())
}

fn kl(args: &KlCommand, config: &Config, signals: &Signals, printer: &mut Printer) -> Result<()> {
    let path = config.model(args.model.model.as_deref())?;
    let base_engine = args.base_engine.unwrap_or_default();
    let [options, base_options] = load::sides(config, &args.model.load, base_engine, args.base_kv_type)?;
    let model = load::open(&path, &options)?;
    let base_model = load::open(&args.base, &base_options)?;
    let cut = Cut {
        max_chunks: args.chunks.unwrap_or(usize::MAX),
        second_half: true,
        phase: args.phase.unwrap_or(Phase::Given),
        ..Cut::plain(args.chunk)
    };
    let base_phase = args.base_phase.unwrap_or(cut.phase);
    warn_long(cut.chunk, model.shape().n_ctx_train, args.quiet);
    let text = text::of_file(&args.text, args.quiet)?;
    let ids = model.tokenizer()?.encode(&text, Specials::Plain);
    if base_model.tokenizer()?.encode(&text, Specials::Plain) != ids {
        return Err(
            BadFile("the tokenizers of the two models give different tokens for this text".into()).into()
        );
    }
    load::check_ids(&ids, model.shape().n_vocab.min(base_model.shape().n_vocab))?;
    let [mut engine, mut base] = load::engines([&model, &base_model], Room::single(cut.chunk), args.quiet)?;
    let began = Instant::now();
    let mut counter = Counter::new(cut.chunks(ids.len()) as u64, false, args.quiet);
    let result = signals.while_busy(|cancel| {
        let mut on = |p: EvalProgress| counter.set(p.done as u64, &format!("kl {:.6}", p.value));
        eval::divergence(engine.as_mut(), base.as_mut(), &ids, &cut, base_phase, cancel, &mut on)
    });
    drop(counter);
    let d = checked(result, signals)?;
    let seconds = began.elapsed().as_secs_f64();
    if args.json {
        let measured = json!({
            "schema": SCHEMA,
            "kl_mean": d.kl_mean,
            "kl_error": d.kl_error,
            "kl_median": d.kl_median,
            "kl_99": d.kl_99,
            "kl_max": d.kl_max,
            "same_top": d.same_top,
            "margin_max": d.margins.last().map(|&margin| number(margin)),
            "phase": phase_name(cut.phase),
            "base_phase": phase_name(base_phase),
            "ppl": d.nll.exp(),
            "ppl_base": d.nll_base.exp(),
            "n_tokens": d.tokens,
            "chunk": cut.chunk,
            "chunks": d.chunks,
            "scored": d.scored,
            "seconds": seconds,
            "base": base_model.path().display().to_string(),
            "base_fingerprint": base_model.fingerprint()?,
            "base_runs_on": base.info().runs_on,
            "base_kv_type": base.info().kv.name(),
        });
        printer.json(&load::recorded(measured, &model, engine.info())?)?;
    } else {
        printer.line(&format!("mean KL divergence  {:.6} +- {:.6}", d.kl_mean, d.kl_error))?;
        printer.line(&format!("median, 99 %, max   {:.6}, {:.6}, {:.6}", d.kl_median, d.kl_99, d.kl_max))?;
        let preferred = d.margins.last().copied().unwrap_or(0.0);
        printer.line(&format!(
            "same top token      {:.2} %, elsewhere the base prefers its own by {preferred:.3} at most",
            d.same_top * 100.0
        ))?;
        printer.line(&format!("perplexity          {:.3}, base {:.3}", d.nll.exp(), d.nll_base.exp()))?;
        printer
            .line(&format!("scored              {} of {} tokens, {} chunks", d.scored, d.tokens, d.chunks))?;
    }
    Ok(())
}

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Given => "given",
        Phase::Generated => "generated",
    }
}

fn warn_long(chunk: usize, trained: usize, quiet: bool) {
    if chunk > trained && !quiet {
        eprintln!(
            "huozi: chunks of {chunk} tokens are longer than the {trained} this model was trained with"
        );
    }
}

fn checked<T>(result: Result<T, eval::Error>, signals: &Signals) -> Result<T> {
    match result {
        Ok(value) => Ok(value),
        Err(error) => {
            if matches!(error, eval::Error::Engine(EngineError::Cancelled)) {
                signals.check()?;
            }
            Err(error.into())
        }
    }
}
