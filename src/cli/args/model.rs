//! Flags that several commands share: which model, how it is opened, the conversation.

use super::flags::{aliases, help};
use super::values::{context, engine, flash_attention, kv_type, threads};
use crate::engine::{EngineKind, FlashAttention, KvType};
use crate::settings::Setting;
use clap::Args;
use std::path::PathBuf;

/// The model and how it is opened.
#[derive(Clone, Debug, Default, Args)]
pub struct ModelArgs {
    /// GGUF file or Hugging Face ORG/NAME [env HUOZI_MODEL]
    #[arg(short, long, value_name = "FILE")]
    pub model: Option<PathBuf>,
    #[command(flatten)]
    /// How it is opened.
    pub load: LoadArgs,
}

/// How a model is opened and run.
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
    /// Lock the weights in memory, so that they are never paged out
    #[arg(long)]
    pub mlock: bool,
    /// Load even if memory seems too small
    #[arg(long, alias = "no_memory_check")]
    pub no_memory_check: bool,
}

/// The context and the system prompt of a conversation.
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
