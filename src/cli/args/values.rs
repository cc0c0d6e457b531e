//! What a typed value may be. The messages say what is needed; clap says where.

use super::{Ids, Output};
use crate::engine::{EngineKind, FlashAttention, KvType, Phase};
use huozi_quant::bloom::shape::Shape;
use huozi_token::HistoryRule;

// Not `ValueEnum`: documented values would turn every help into clap's long form, two lines and more per flag.
/// Parses a type of the KV cache; also for the configuration file.
pub fn kv_type(text: &str) -> Result<KvType, String> {
    match text {
        "f32" | "fp32" => Ok(KvType::F32),
        "f16" | "fp16" => Ok(KvType::F16),
        "q8" => Ok(KvType::Q8),
        _ => Err("f32, f16 or q8 is needed".to_owned()),
    }
}

/// Parses the name of an inference engine.
///
/// # Errors
/// No engine has this name.
pub fn engine(text: &str) -> Result<EngineKind, String> {
    EngineKind::named(text).ok_or_else(|| "native or ggml is needed".to_owned())
}

pub(super) fn flash_attention(text: &str) -> Result<FlashAttention, String> {
    match text {
        "auto" => Ok(FlashAttention::Auto),
        "on" | "1" => Ok(FlashAttention::On),
        "off" | "0" => Ok(FlashAttention::Off),
        _ => Err("auto, on or off is needed".to_owned()),
    }
}

pub(super) fn phase(text: &str) -> Result<Phase, String> {
    match text {
        "given" => Ok(Phase::Given),
        "generated" => Ok(Phase::Generated),
        _ => Err("given or generated is needed".to_owned()),
    }
}

pub(super) fn history(text: &str) -> Result<HistoryRule, String> {
    match text {
        "demo" => Ok(HistoryRule::Demo),
        "two-thirds" | "two_thirds" => Ok(HistoryRule::TwoThirds),
        _ => Err("demo or two-thirds is needed".to_owned()),
    }
}

/// Threads at most: more than any machine has, fewer than the system refuses.
const MAX_THREADS: usize = 1024;
/// Sequences measured together at most: llama.cpp's own bound.
const MAX_BATCH: usize = 256;
const MAX_REPETITIONS: usize = 10_000;
/// Positions of a context at most, as in a model file.
const MAX_CTX: usize = 1 << 24;

/// Parses a number of threads; also for the environment and the configuration file.
pub fn threads(text: &str) -> Result<usize, String> {
    between(text, 1, MAX_THREADS)
}

pub(super) fn context(text: &str) -> Result<usize, String> {
    between(text, 1, MAX_CTX)
}

pub(super) fn position(text: &str) -> Result<usize, String> {
    between(text, 0, MAX_CTX)
}

/// `32,64`: prompt tokens and generated tokens, both at least 1.
pub(super) fn pair(text: &str) -> Result<(usize, usize), String> {
    let (prompt, n) = text.split_once(',').ok_or("expected PROMPT,GENERATED, e.g. 32,64")?;
    Ok((between(prompt, 1, MAX_CTX)?, between(n, 1, MAX_CTX)?))
}

pub(super) fn batch(text: &str) -> Result<usize, String> {
    between(text, 1, MAX_BATCH)
}

pub(super) fn repetitions(text: &str) -> Result<usize, String> {
    between(text, 1, MAX_REPETITIONS)
}

pub(super) fn shape(text: &str) -> Result<(String, Shape), String> {
    let shape = Shape::named(text).or_else(|| Shape::from_sizes(text));
    let named = Shape::NAMES.join(", ");
    shape.map(|shape| (text.to_owned(), shape)).ok_or_else(|| {
        format!("{named}, or LAYERSxHIDDENxHEADS(xVOCAB) with heads that divide the hidden size, is needed")
    })
}

pub(super) fn output(text: &str) -> Result<Output, String> {
    match text {
        "md" => Ok(Output::Markdown),
        "json" => Ok(Output::Json),
        "jsonl" => Ok(Output::JsonLines),
        "csv" => Ok(Output::Csv),
        _ => Err("md, json, jsonl or csv is needed".to_owned()),
    }
}

pub(super) fn chunk_2(text: &str) -> Result<usize, String> {
    between(text, 2, MAX_CTX)
}

pub(super) fn chunk_4(text: &str) -> Result<usize, String> {
    between(text, 4, MAX_CTX)
}

fn between(text: &str, least: usize, most: usize) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(n) if (least..=most).contains(&n) => Ok(n),
        _ => Err(format!("a whole number from {least} to {most} is needed")),
    }
}

pub(super) fn not_positional(_: &str) -> Result<std::convert::Infallible, String> {
    Err("the model file goes behind -m".to_owned())
}

pub(super) fn ids(text: &str) -> Result<Ids, String> {
    let between = |c: char| c.is_whitespace() || matches!(c, ',' | '，' | '、');
    text.split(between)
        .filter(|id| !id.is_empty())
        .map(|id| id.parse().map_err(|_| format!("{id:?} is no token id")))
        .collect::<Result<_, _>>()
        .map(Ids)
}

/// Parses a top-k: 0 is off.
pub fn top_k(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("a whole number from 0 to {} is needed", u32::MAX))
}

/// Parses a seed.
pub fn seed(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("a whole number from 0 to {} is needed", u64::MAX))
}

/// Parses a count: 1 or more.
pub fn positive(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(n) if n > 0 => Ok(n),
        _ => Err("a whole number of at least 1 is needed".to_owned()),
    }
}

/// Parses a temperature: finite, 0 or more.
pub fn temperature(text: &str) -> Result<f32, String> {
    in_range(text, |x| x >= 0.0, "a number of at least 0 is needed")
}

/// Parses a top-p: above 0, 1 at most.
pub fn top_p(text: &str) -> Result<f32, String> {
    in_range(text, |x| x > 0.0 && x <= 1.0, "a number above 0 and at most 1 is needed")
}

/// Parses a repetition penalty: above 0.
pub fn penalty(text: &str) -> Result<f32, String> {
    in_range(text, |x| x > 0.0, "a number above 0 is needed")
}

fn in_range(text: &str, good: impl Fn(f32) -> bool, otherwise: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(x) if x.is_finite() && good(x) => Ok(x),
        _ => Err(otherwise.to_owned()),
    }
}
