//! Flags that several commands share: which model, how it is opened, the conversation.

use super::flags::{ConversationArgs, EngineArgs};
use super::values::flash_attention;
use crate::engine::FlashAttention;
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
    #[command(flatten)]
    /// Threads, KV cache, inference engine.
    pub engine: EngineArgs,
    /// Flash attention of llama.cpp: auto, on or off [default: auto]
    #[arg(long, alias = "flash_attn", value_name = "HOW", value_parser = flash_attention)]
    pub flash_attn: Option<FlashAttention>,
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
    #[command(flatten)]
    /// Context and system prompt.
    pub typed: ConversationArgs,
    /// File with the system prompt
    #[arg(long, alias = "system_file", value_name = "FILE", conflicts_with = "system")]
    pub system_file: Option<PathBuf>,
}
