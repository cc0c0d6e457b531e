//! Arguments of `huozi batch`.

use super::flags::{ConversationArgs, EngineArgs, SamplingArgs};
use super::values::{ShardChoice, input_form, memory_size, parallel, result_order, shard, shards};
use crate::batch::input::InputForm;
use crate::batch::output::ResultOrder;
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `huozi batch`
#[derive(Clone, Debug, Args)]
#[command(
    subcommand_negates_reqs = true,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    help_template = "{about}\n{usage-heading} {usage}\n{options}{after-help}",
    mut_arg("seed", |seed| seed.help("The same seed gives the same text [default: 0]")),
    override_usage = "huozi batch -m FILE -i IN -o OUT [OPTIONS] | huozi batch merge PARTS... -o OUT",
    after_help = "\
Example: huozi batch -m huozi.gguf -i in.jsonl -o out.jsonl
The same command goes on after an interruption. Exit code 3: some rows failed."
)]
pub struct BatchCommand {
    /// Something else to do with a batch.
    #[command(subcommand)]
    pub command: Option<BatchPart>,
    /// GGUF file or Hugging Face ORG/NAME [env HUOZI_MODEL]
    #[arg(short, long, value_name = "FILE")]
    pub model: Option<PathBuf>,
    /// Rows: JSON lines, text, CSV or TSV, also .gz; - is standard input
    #[arg(short, long, value_name = "IN")]
    pub input: Option<PathBuf>,
    /// Results as JSON lines; - is standard output
    #[arg(short, long, value_name = "OUT")]
    pub output: Option<PathBuf>,
    /// Error lines go to FILE, not to OUT
    #[arg(long, value_name = "FILE")]
    pub errors: Option<PathBuf>,
    /// Order of the results: input or done (as rows end) [default: input]
    #[arg(long, value_name = "ORDER", value_parser = result_order)]
    pub order: Option<ResultOrder>,
    /// Rows that run at a time [default: 32]
    #[arg(long, value_name = "N", value_parser = parallel)]
    pub parallel: Option<usize>,
    /// Memory for all, e.g. 6G [default: what is free, less a part]
    #[arg(long, value_name = "SIZE", value_parser = memory_size)]
    pub memory: Option<u64>,
    /// Start anew instead of going on
    #[arg(long, conflicts_with = "retry_errors")]
    pub restart: bool,
    /// Run rows again that ended with an error
    #[arg(long, alias = "retry_errors")]
    pub retry_errors: bool,
    /// Answer each line of standard input as it arrives
    #[arg(
        long,
        conflicts_with_all = ["errors", "order", "restart", "retry_errors", "shard", "check", "column"]
    )]
    pub follow: bool,
    /// Only shard I of N, from 0; slurm: of the array task [--shards N]
    #[arg(long, value_name = "I/N", value_parser = shard)]
    pub shard: Option<ShardChoice>,
    /// Number of shards, with --shard slurm
    #[arg(long, value_name = "N", value_parser = shards, requires = "shard", hide = true)]
    pub shards: Option<u32>,
    /// Check the input and show rows, tokens, memory and time; run nothing
    #[arg(long, conflicts_with_all = ["errors", "order", "restart", "retry_errors"])]
    pub check: bool,
    /// Form of IN: jsonl, text, csv or tsv [default: from name and content]
    #[arg(long, value_name = "FORM", value_parser = input_form)]
    pub format: Option<InputForm>,
    /// Column of CSV and TSV with the prompts [default: prompt]
    #[arg(long, value_name = "NAME")]
    pub column: Option<String>,
    /// Continue lines and columns as they are, without the chat format
    #[arg(long)]
    pub raw: bool,
    /// Draft tokens from the text so far: the same text, often sooner
    #[arg(long)]
    pub speculate: bool,
    /// Keep the KV of what all prompts begin with in FILE, or take it from there
    #[arg(long, alias = "prompt_cache", value_name = "FILE", conflicts_with_all = ["follow", "check"])]
    pub prompt_cache: Option<PathBuf>,
    #[command(flatten)]
    /// Context and system prompt.
    pub conversation: ConversationArgs,
    #[command(flatten)]
    /// Sampling, for rows that do not say.
    pub sampling: SamplingArgs,
    #[command(flatten)]
    /// Threads, KV cache, inference engine.
    pub engine: EngineArgs,
    /// Progress and summary as JSON
    #[arg(long)]
    pub json: bool,
    /// No progress, summary or notes
    #[arg(short, long)]
    pub quiet: bool,
}

/// Other things to do with a batch.
#[derive(Clone, Debug, Subcommand)]
pub enum BatchPart {
    /// Put the outputs of all shards together
    Merge(MergeCommand),
}

/// `huozi batch merge`
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Example:
  huozi batch merge out.jsonl.*-of-8 -o out.jsonl
Refused unless the parts are all shards of one run and hold every row once.")]
pub struct MergeCommand {
    /// Outputs of the shards
    #[arg(value_name = "PARTS", required = true)]
    pub parts: Vec<PathBuf>,
    /// Where the whole goes
    #[arg(short, long, value_name = "OUT")]
    pub output: PathBuf,
    /// Error lines go to FILE, not to OUT
    #[arg(long, value_name = "FILE")]
    pub errors: Option<PathBuf>,
    /// Replace what is there
    #[arg(long)]
    pub restart: bool,
    /// The summary as JSON
    #[arg(long)]
    pub json: bool,
    /// No summary
    #[arg(short, long)]
    pub quiet: bool,
}
