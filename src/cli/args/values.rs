//! What a typed value may be. The messages say what is needed; clap says where.

use super::flags::parse;
use crate::batch::input::InputForm;
use crate::batch::output::{ResultOrder, Shard};
use crate::engine::{EngineKind, FlashAttention, KvType, Phase};
use crate::schedule::LogProbOptions;
use crate::settings::Setting;
use huozi_quant::bloom::shape::Shape;
use huozi_token::HistoryRule;

/// Token ids. A type of its own, or clap would take `--ids` several times.
#[derive(Clone, Debug, PartialEq)]
pub struct Ids(pub Vec<u32>);

/// Texts to choose from, all different. A type of its own, or clap would take `--choices` several times.
#[derive(Clone, Debug, PartialEq)]
pub struct Choices(pub Vec<String>);

/// How rows are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// A Markdown table.
    Markdown,
    /// One JSON array.
    Json,
    /// One JSON object per line.
    JsonLines,
    /// Comma-separated values with a header.
    Csv,
}

/// Which shard was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShardChoice {
    /// This one.
    Shard(Shard),
    /// That of the task of a Slurm array.
    Slurm,
}

// Not `ValueEnum`: documented values would turn every help into clap's long form, two lines and more per
// flag.
pub(super) fn kv_type(text: &str) -> Result<KvType, String> {
    parse(Setting::Kv, text, |patch| patch.kv)
}

pub(super) fn engine(text: &str) -> Result<EngineKind, String> {
    parse(Setting::Engine, text, |patch| patch.engine)
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

/// Sequences measured together at most: llama.cpp's own bound.
const MAX_BATCH: usize = 256;
const MAX_REPETITIONS: usize = 10_000;
/// Positions of a context at most, as in a model file.
const MAX_CTX: usize = 1 << 24;

pub(super) fn threads(text: &str) -> Result<usize, String> {
    parse(Setting::Threads, text, |patch| patch.threads)
}

pub(super) fn context(text: &str) -> Result<usize, String> {
    parse(Setting::CtxSize, text, |patch| patch.n_ctx)
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

pub(super) fn chance(text: &str) -> Result<f64, String> {
    let chance = text.parse().ok().filter(|chance| (0.0..=1.0).contains(chance));
    chance.ok_or_else(|| "a number from 0 to 1 is needed".to_owned())
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

/// Answers to one prompt at most.
const MAX_ANSWERS: usize = 1024;

pub(super) fn answers(text: &str) -> Result<usize, String> {
    between(text, 1, MAX_ANSWERS)
}

pub(super) fn log_probs(text: &str) -> Result<usize, String> {
    between(text, 0, LogProbOptions::MAX_TOP)
}

pub(super) fn not_empty(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("a text is needed".to_owned()) } else { Ok(text.to_owned()) }
}

pub(super) fn choices(text: &str) -> Result<Choices, String> {
    let mut found = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, chars.peek(), found.last_mut()) {
            (',', _, _) => found.push(String::new()),
            ('\\', Some(','), Some(last)) => last.extend(chars.next()),
            (c, _, Some(last)) => last.push(c),
            (_, _, None) => {}
        }
    }
    if found.iter().any(String::is_empty) {
        return Err("texts separated by commas are needed, none of them empty".to_owned());
    }
    match (1..found.len()).find(|&i| found[..i].contains(&found[i])) {
        Some(i) => Err(format!("{:?} is there twice", found[i])),
        None => Ok(Choices(found)),
    }
}

pub(super) fn positive(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(n) if n > 0 => Ok(n),
        _ => Err("a whole number of at least 1 is needed".to_owned()),
    }
}

pub(super) fn input_form(text: &str) -> Result<InputForm, String> {
    InputForm::find(text).ok_or_else(|| "jsonl, text, csv or tsv is needed".to_owned())
}

pub(super) fn result_order(text: &str) -> Result<ResultOrder, String> {
    match text {
        "input" => Ok(ResultOrder::Input),
        "done" => Ok(ResultOrder::Done),
        _ => Err("input or done is needed".to_owned()),
    }
}

/// Rows that run at a time, at most.
const MAX_PARALLEL: usize = 1024;

pub(super) fn parallel(text: &str) -> Result<usize, String> {
    between(text, 1, MAX_PARALLEL)
}

pub(super) fn shard(text: &str) -> Result<ShardChoice, String> {
    if text == "slurm" {
        return Ok(ShardChoice::Slurm);
    }
    text.parse::<Shard>().map(ShardChoice::Shard).map_err(|error| error.to_string())
}

pub(super) fn shards(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(n) if n > 0 => Ok(n),
        _ => Err("a whole number of at least 1 is needed".to_owned()),
    }
}

/// Bytes: a number with K, M, G or T (powers of 1024), also KiB or KB.
pub(super) fn memory_size(text: &str) -> Result<u64, String> {
    let needed = || "a size such as 6G or 512M is needed".to_owned();
    let text = text.trim().to_ascii_lowercase();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim().trim_end_matches('b').trim_end_matches('i');
    let shift = match unit {
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(needed()),
    };
    let number: f64 = number.parse().map_err(|_| needed())?;
    let bytes = number * (1u64 << shift) as f64;
    if bytes >= 1.0 && bytes < u64::MAX as f64 { Ok(bytes as u64) } else { Err(needed()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_a_unit() {
        for (text, bytes) in [("6G", 6 << 30), ("1.5GiB", 3 << 29), ("512 mb", 512 << 20), ("2t", 2 << 40)] {
            assert_eq!(memory_size(text), Ok(bytes), "{text}");
        }
        for text in ["6", "", "G", "-1G", "1.2.3G", "6X", "0G", "nanG", "99999999999999T"] {
            assert!(memory_size(text).is_err(), "{text}");
        }
    }
}
