//! Flags that several commands share: which model, how it is opened, the conversation.

use super::flags::{aliases, help};
use super::values::{context, engine, flash_attention, kv_type, threads};
use crate::engine::{EngineKind, FlashAttention, KvType};
use crate::settings::Setting;
use clap::Args;
use std::path::PathBuf;

/// Which model, and how it is loaded.
#[derive(Clone, Debug, Default, Args)]
pub struct ModelArgs {
    /// GGUF file [env HUOZI_MODEL]
    #[arg(short, long, value_name = "FILE")]
    pub model: Option<PathBuf>,
    #[command(flatten)]
    /// How it is run.
    pub load: LoadArgs,
}

/// How a model is loaded and run.
#[derive(Clone, Debug, Default, Args)]
pub struct LoadArgs {
    #[arg(
        short, long, value_name = "N", value_parser = threads, allow_negative_numbers = true,
        help = help(Setting::Threads, "; env HUOZI_THREADS"),
    )]
    /// Compute threads.
    pub threads: Option<usize>,
    #[arg(long, value_name = "ENGINE", value_parser = engine, help = help(Setting::Engine, ""))]
    /// Inference engine.
    pub engine: Option<EngineKind>,
    /// Flash attention of llama.cpp: auto, on or off [default: auto]
    #[arg(long, alias = "flash_attn", value_name = "HOW", value_parser = flash_attention)]
    pub flash_attn: Option<FlashAttention>,
    #[arg(
        long, aliases = aliases(Setting::Kv), value_name = "TYPE", value_parser = kv_type,
        help = help(Setting::Kv, "; logits, eval: f32"),
    )]
    /// KV cache type.
    pub kv_type: Option<KvType>,
    /// Read the file into memory instead of mapping it
    #[arg(long, alias = "no_mmap")]
    pub no_mmap: bool,
    /// Lock the weights in memory: nothing else pushes them out
    #[arg(long)]
    pub mlock: bool,
    /// Load even if memory looks too small
    #[arg(long, alias = "no_memory_check")]
    pub no_memory_check: bool,
}

/// What stands before the first message and which messages are kept.
#[derive(Clone, Debug, Default, Args)]
pub struct ChatArgs {
    #[arg(
        short, long, aliases = aliases(Setting::CtxSize), value_name = "N", value_parser = context,
        allow_negative_numbers = true, help = help(Setting::CtxSize, ""),
    )]
    /// Positions of prompt and answer together.
    pub ctx_size: Option<usize>,
    #[arg(long, value_name = "TEXT", conflicts_with = "system_file", help = help(Setting::System, ""))]
    /// System prompt.
    pub system: Option<String>,
    /// File with the system prompt
    #[arg(long, alias = "system_file", value_name = "FILE")]
    pub system_file: Option<PathBuf>,
}
