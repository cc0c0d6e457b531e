//! The flags of `huozi eval` and `huozi bench`.

use super::flags::aliases;
use super::model::ModelArgs;
use super::values::{
    Output, batch, chance, chunk_2, chunk_4, engine, flash_attention, kv_type, output, pair, phase, position,
    positive, repetitions, shape, threads,
};
use crate::engine::{EngineKind, FlashAttention, KvType, Phase};
use crate::settings::Setting;
use clap::{Args, Subcommand};
use huozi_quant::bloom::plan::Preset;
use huozi_quant::bloom::shape::Shape;
use std::path::PathBuf;

/// `huozi eval`
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  huozi eval ppl -m huozi.gguf poems.txt")]
pub struct EvalCommand {
    /// What to measure.
    #[command(subcommand)]
    pub what: EvalWhat,
}

/// What `huozi eval` measures.
#[derive(Debug, Subcommand)]
pub enum EvalWhat {
    /// Perplexity over a text
    Ppl(PplCommand),
    /// KL divergence from a base model over a text
    Kl(KlCommand),
}

/// `huozi eval ppl`
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  huozi eval ppl -m huozi.gguf poems.txt --chunk 256
The ids of the text, without special tokens, are cut into chunks; a shorter
rest is dropped. The context of a token begins with its chunk; the perplexity
is exp of the mean negative log-likelihood of positions 1 and later.")]
pub struct PplCommand {
    #[command(flatten)]
    /// The model.
    pub model: ModelArgs,
    /// Text file; - is standard input
    #[arg(value_name = "TEXT_FILE")]
    pub text: PathBuf,
    /// Tokens per chunk
    #[arg(
        short, long, visible_alias = "ctx-size", aliases = aliases(Setting::CtxSize), value_name = "N",
        default_value_t = 256, value_parser = chunk_2, allow_negative_numbers = true,
    )]
    pub chunk: usize,
    /// Tokens from one chunk to the next; each token is scored once [default: the chunk]
    #[arg(long, value_name = "N", value_parser = positive, allow_negative_numbers = true)]
    pub stride: Option<usize>,
    /// Maximum number of chunks
    #[arg(long, value_name = "N", value_parser = positive, allow_negative_numbers = true)]
    pub chunks: Option<usize>,
    /// Arithmetic: given (a prompt) or generated (token by token) [default: given]
    #[arg(long, value_name = "PHASE", value_parser = phase)]
    pub phase: Option<Phase>,
    /// Score only the second half of each chunk, as llama-perplexity and `eval kl` do
    #[arg(long, alias = "second_half", conflicts_with = "stride")]
    pub second_half: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// No progress
    #[arg(short, long)]
    pub quiet: bool,
}

/// `huozi eval kl`
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  huozi eval kl -m huozi-q4_k_m.gguf --base huozi-f16.gguf poems.txt
  huozi eval kl -m q.gguf --base q.gguf --base-engine ggml poems.txt
Both models read the text chunk by chunk. Only the second half of each chunk is
scored (positions n/2 .. n-2, each predicting the next token), as by
llama-perplexity --kl-divergence, so that the figures can be compared.
`eval ppl --second-half` gives the perplexity of the same positions. No logits
file is written.")]
pub struct KlCommand {
    #[command(flatten)]
    /// The model.
    pub model: ModelArgs,
    /// The reference model: GGUF file or Hugging Face ORG/NAME
    #[arg(long, value_name = "FILE")]
    pub base: PathBuf,
    /// Inference engine of the base: native or ggml [default: native]
    #[arg(long, alias = "base_engine", value_name = "ENGINE", value_parser = engine)]
    pub base_engine: Option<EngineKind>,
    /// KV cache type of the base [default: as --kv-type]
    #[arg(long, alias = "base_kv_type", value_name = "TYPE", value_parser = kv_type)]
    pub base_kv_type: Option<KvType>,
    /// Text file; - is standard input
    #[arg(value_name = "TEXT_FILE")]
    pub text: PathBuf,
    /// Tokens per chunk
    #[arg(
        short, long, visible_alias = "ctx-size", aliases = aliases(Setting::CtxSize), value_name = "N",
        default_value_t = 256, value_parser = chunk_4, allow_negative_numbers = true,
    )]
    pub chunk: usize,
    /// Maximum number of chunks
    #[arg(long, value_name = "N", value_parser = positive, allow_negative_numbers = true)]
    pub chunks: Option<usize>,
    /// Arithmetic: given (a prompt) or generated (token by token) [default: given]
    #[arg(long, value_name = "PHASE", value_parser = phase)]
    pub phase: Option<Phase>,
    /// Arithmetic of the base [default: as --phase]
    #[arg(long, alias = "base_phase", value_name = "PHASE", value_parser = phase)]
    pub base_phase: Option<Phase>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// No progress
    #[arg(short, long)]
    pub quiet: bool,
}

/// `huozi bench`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  huozi bench -m huozi.gguf -p 512 -n 64 -d 0,2048
  huozi bench --shape bloom-7b1 --type q4_k_m    random weights, no file
  huozi bench -m huozi.gguf --compare -r 3       alternating with llama.cpp
Lists are separated by commas. pp512: a prompt of 512 tokens; tg64: 64 generated
tokens; b16: 16 sequences at once; @ d2048: after 2048 tokens. `floor`: share of
the maximum rate of memory or multiply-adds, measured in the same run.")]
pub struct BenchCommand {
    /// GGUF file or Hugging Face ORG/NAME [env HUOZI_MODEL]
    #[arg(short, long, value_name = "FILE", conflicts_with = "shape")]
    pub model: Option<PathBuf>,
    /// Random weights: bloom-560m ... bloom-7b1, or LAYERSxHIDDENxHEADS(xVOCAB)
    #[arg(long, value_name = "NAME", value_parser = shape)]
    pub shape: Option<(String, Shape)>,
    /// Type of the random weights
    #[arg(long, value_name = "TYPE", default_value = "q4_k_m", requires = "shape")]
    pub r#type: Preset,
    /// Only write the random model to FILE
    #[arg(long, value_name = "FILE", requires = "shape", conflicts_with = "compare")]
    pub write: Option<PathBuf>,
    /// Prompt tokens; 0 = none
    #[arg(
        short = 'p', long, alias = "n_prompt", value_name = "N", value_delimiter = ',',
        default_value = "512", value_parser = position,
    )]
    pub n_prompt: Vec<usize>,
    /// Generated tokens; 0 = none
    #[arg(
        short = 'n', long, alias = "n_gen", value_name = "N", value_delimiter = ',',
        default_value = "128", value_parser = position,
    )]
    pub n_gen: Vec<usize>,
    /// A prompt and an answer measured together, e.g. 32,64
    #[arg(long, value_name = "P,N", value_parser = pair)]
    pub pg: Vec<(usize, usize)>,
    /// Tokens before the measured ones
    #[arg(
        short = 'd', long, alias = "n_depth", value_name = "N", value_delimiter = ',',
        default_value = "0", value_parser = position,
    )]
    pub n_depth: Vec<usize>,
    /// Sequences generated together
    #[arg(short, long, value_name = "N", value_delimiter = ',', default_value = "1", value_parser = batch)]
    pub batch: Vec<usize>,
    /// Repetitions, or pairs of a comparison
    #[arg(short, long, value_name = "N", default_value_t = 5, value_parser = repetitions)]
    pub repetitions: usize,
    /// Threads [default: fast physical cores; env HUOZI_THREADS]
    #[arg(short, long, value_name = "N", value_delimiter = ',', value_parser = threads)]
    pub threads: Vec<usize>,
    /// md, json, jsonl or csv
    #[arg(short, long, value_name = "FORMAT", default_value = "md", value_parser = output)]
    pub output: Output,
    /// The same as -o jsonl
    #[arg(long, conflicts_with = "output")]
    pub json: bool,
    /// Seed of weights and token ids
    #[arg(short, long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Alternate with llama.cpp on the same file; its better setting of flash attention counts
    #[arg(long, conflicts_with_all = ["shape", "engine", "flash_attn"])]
    pub compare: bool,
    /// Speed of -n tokens with drafts of which each token is right with these chances, e.g. 0,0.6,1
    #[arg(
        long, value_name = "CHANCES", value_delimiter = ',', value_parser = chance,
        conflicts_with_all = ["compare", "write"],
    )]
    pub speculate: Vec<f64>,
    /// Inference engine: native or ggml (llama.cpp) [default: native]
    #[arg(long, value_name = "ENGINE", value_parser = engine)]
    pub engine: Option<EngineKind>,
    /// Flash attention of llama.cpp: auto, on or off [default: auto]
    #[arg(long, alias = "flash_attn", value_name = "HOW", value_parser = flash_attention)]
    pub flash_attn: Option<FlashAttention>,
    /// KV cache type [default: f16]
    #[arg(long, alias = "kv_type", value_name = "TYPE", value_parser = kv_type)]
    pub kv_type: Option<KvType>,
    /// Read the file into memory instead of mapping it
    #[arg(long, alias = "no_mmap")]
    pub no_mmap: bool,
    /// Lock the weights in memory
    #[arg(long, conflicts_with = "compare")]
    pub mlock: bool,
    /// Load even if memory seems too small
    #[arg(long, alias = "no_memory_check")]
    pub no_memory_check: bool,
    /// No progress
    #[arg(short, long)]
    pub quiet: bool,
}

impl BenchCommand {
    /// How rows are printed.
    pub fn output(&self) -> Output {
        if self.json { Output::JsonLines } else { self.output }
    }
}
