//! The commands and flags of `huozi`, as `clap` reads them. No input or output happens here.
//!
//! The spellings of the original Python program (`--max_new_tokens`, `--top_k`, ...) are hidden aliases. A
//! value that is `None` was not typed; `settings` decides what it is then.

mod batch;
mod flags;
mod measure;
mod model;
mod scripts;
mod values;

pub use batch::{BatchCommand, BatchPart, MergeCommand};
pub use flags::{ConversationArgs, EngineArgs, SamplingArgs};
pub use measure::{BenchCommand, EvalCommand, EvalWhat, KlCommand, PplCommand};
pub use model::{ChatArgs, LoadArgs, ModelArgs};
pub use scripts::{CompletionsCommand, ManCommand, Program};
pub use values::{Choices, Ids, Output, ShardChoice};

use crate::engine::Phase;
use crate::settings::Setting;
use clap::{Args, Parser, Subcommand};
use flags::aliases;
use huozi_token::HistoryRule;
use std::path::PathBuf;
use values::{answers, choices, context, history, ids, log_probs, not_empty, not_positional, phase};

/// Runs BLOOM-family language models (Huozi, BLOOM, BLOOMZ) on this machine's CPU
#[derive(Debug, Parser)]
#[command(
    name = "huozi",
    version,
    after_help = "\
Examples:
  huozi demo \"写一首关于月的诗。\"       the built-in small model, no download
  huozi chat -m huozi.gguf             a conversation (file: huozi-convert)
  echo 你好 | huozi run -m huozi.gguf  one prompt, the answer on stdout
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 some rows of a batch failed,
4 bad model or input file, 5 not enough memory or disk, 130/143 interrupted.
Settings: flag > HUOZI_MODEL, HUOZI_THREADS, HUOZI_ISA >
~/.config/huozi/config.toml > the model file's own > default."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Answer one prompt
    Run(RunCommand),
    /// Chat, line by line
    Chat(ChatCommand),
    /// Answer a file of prompts
    Batch(Box<BatchCommand>),
    /// Show the token ids of a text, or the text of ids
    Tokenize(TokenizeCommand),
    /// Show or write the logits at every position
    Logits(LogitsCommand),
    /// Show the metadata and tensors of a GGUF file
    Inspect(InspectCommand),
    /// Check a GGUF file: its structure and the SHA-256 of its tensors
    Verify(VerifyCommand),
    /// Measure quality: perplexity, KL divergence
    Eval(EvalCommand),
    /// Measure speed, alone or against llama.cpp
    Bench(BenchCommand),
    /// Show CPU and memory, which models fit, and their maximum speed
    Doctor(DoctorCommand),
    /// Try the built-in small model
    #[cfg(feature = "demo")]
    Demo(DemoCommand),
    /// Print a shell's completion script
    Completions(CompletionsCommand),
    /// Write the manual pages
    Man(ManCommand),
}

impl Command {
    /// Whether `-q` was typed.
    pub fn quiet(&self) -> bool {
        match self {
            Self::Run(args) => args.quiet,
            Self::Verify(args) => args.quiet,
            Self::Chat(args) => args.quiet,
            Self::Batch(args) => args.quiet,
            Self::Bench(args) => args.quiet,
            Self::Eval(EvalCommand { what: EvalWhat::Ppl(args) }) => args.quiet,
            Self::Eval(EvalCommand { what: EvalWhat::Kl(args) }) => args.quiet,
            #[cfg(feature = "demo")]
            Self::Demo(args) => args.quiet,
            Self::Tokenize(_) | Self::Logits(_) | Self::Inspect(_) | Self::Doctor(_) => false,
            Self::Completions(_) | Self::Man(_) => false,
        }
    }
}

/// `huozi run`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  huozi run -m huozi.gguf 写一首关于月的诗。
  huozi run -m bloom.gguf --raw --greedy -n 32 \"The capital of France is\"
  echo 你好 | huozi run -m huozi.gguf      the prompt from standard input
  huozi run -m huozi.gguf -f a.txt -f b.txt --answers 3 --json
  huozi run -m huozi.gguf --choices 好,坏 \"这部电影怎么样？\"
Only the answer goes to standard output.")]
pub struct RunCommand {
    /// The prompt [default: standard input, when piped]
    #[arg(value_name = "PROMPT", conflicts_with_all = ["prompt", "file"])]
    pub positional: Option<String>,
    #[command(flatten)]
    /// The model.
    pub model: ModelArgs,
    /// Prompt text (may begin with -)
    #[arg(short, long, value_name = "TEXT", conflicts_with = "file", allow_hyphen_values = true)]
    pub prompt: Option<String>,
    /// File with the prompt; - is standard input; may be repeated
    #[arg(short, long, value_name = "FILE")]
    pub file: Vec<PathBuf>,
    /// Continue the text as it is, without the chat format
    #[arg(long, conflicts_with_all = ["system", "system_file"])]
    pub raw: bool,
    /// With --raw: parse control tokens in the prompt
    #[arg(long, requires = "raw")]
    pub specials: bool,
    #[command(flatten)]
    /// The conversation.
    pub chat: ChatArgs,
    #[command(flatten)]
    /// Sampling.
    pub sampling: SamplingArgs,
    /// End the answer before this text; may be repeated
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, value_parser = not_empty)]
    pub stop: Vec<String>,
    /// Number of answers, which share the prompt's KV cache
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = answers, hide_default_value = true)]
    pub answers: usize,
    /// With --json: log-probabilities of each token and of the K likeliest
    #[arg(long, value_name = "K", value_parser = log_probs, requires = "json")]
    pub logprobs: Option<usize>,
    /// Score these texts as answers, best first; \, is a comma in a text
    #[arg(
        long, value_name = "A,B,C", allow_hyphen_values = true, value_parser = choices,
        conflicts_with_all = ["stop", "answers", "logprobs", "speculate"],
    )]
    pub choices: Option<Choices>,
    /// Draft tokens from the text so far: the same text, often sooner
    #[arg(long)]
    pub speculate: bool,
    /// Keep the prompt's KV cache in FILE, and begin from it the next time
    #[arg(long, alias = "prompt_cache", value_name = "FILE")]
    pub prompt_cache: Option<PathBuf>,
    /// One JSON object per answer instead of the text
    #[arg(long)]
    pub json: bool,
    /// No statistics, progress or notes
    #[arg(short, long, overrides_with = "verbose")]
    pub quiet: bool,
    /// Statistics even if standard error is not a terminal
    #[arg(short, long, overrides_with = "quiet")]
    pub verbose: bool,
}

/// `huozi chat`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  huozi chat -m huozi.gguf --temperature 0.8
  printf '你好\\n你是谁？\\n' | huozi chat -m huozi.gguf
/help lists the commands. A paste of several lines is one message; Alt+Enter, or
\\ at the end of a line, begins another. Up recalls, Tab completes. Ctrl+C stops
the answer or drops the input; twice at an empty prompt, or Ctrl+D, quits.
--history two-thirds: when the prompt is full, old exchanges go until a third of
it is free; demo: at most 15 exchanges and as few dropped as possible, as by
Huozi's own demo, so that more is read again.")]
pub struct ChatCommand {
    /// Never a value: refuses a model typed without -m.
    #[arg(hide = true, value_name = "FILE", value_parser = not_positional)]
    pub stray: Option<std::convert::Infallible>,
    #[command(flatten)]
    /// The model.
    pub model: ModelArgs,
    #[command(flatten)]
    /// The conversation.
    pub chat: ChatArgs,
    #[command(flatten)]
    /// Sampling.
    pub sampling: SamplingArgs,
    /// When old exchanges are dropped: two-thirds or demo, see below
    #[arg(long, value_name = "RULE", default_value = "two-thirds", value_parser = history)]
    pub history: HistoryRule,
    /// Load this saved conversation first
    #[arg(long, value_name = "NAME")]
    pub load: Option<String>,
    /// Keep no history of typed lines on disk
    #[arg(long, alias = "no_history")]
    pub no_history: bool,
    /// No statistics, progress or notes
    #[arg(short, long, overrides_with = "verbose")]
    pub quiet: bool,
    /// Statistics even if standard error is not a terminal
    #[arg(short, long, overrides_with = "quiet")]
    pub verbose: bool,
}

/// A text or ids.
#[derive(Clone, Debug, Default, Args)]
pub struct TextArgs {
    /// The text
    #[arg(short, long, value_name = "TEXT", conflicts_with_all = ["file", "ids"], allow_hyphen_values = true)]
    pub prompt: Option<String>,
    /// File with the text; - is standard input
    #[arg(short, long, value_name = "FILE", conflicts_with = "ids")]
    pub file: Option<PathBuf>,
    /// Token ids, separated by commas or spaces
    #[arg(long, value_name = "IDS", value_parser = ids, allow_negative_numbers = true)]
    pub ids: Option<Ids>,
    /// Parse control tokens in the text
    #[arg(long, conflicts_with = "ids")]
    pub specials: bool,
}

/// `huozi tokenize`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  huozi tokenize -m huozi.gguf -p 白日依山尽   a line per token: id, tab, piece
  huozi tokenize -m huozi.gguf --ids 409,1276  the text of ids
Without -p, -f and --ids the text is read from standard input, when piped.
Bytes of incomplete characters show as \\xNN.")]
pub struct TokenizeCommand {
    /// GGUF file or Hugging Face ORG/NAME [env HUOZI_MODEL]
    #[arg(short, long, value_name = "FILE")]
    pub model: Option<PathBuf>,
    #[command(flatten)]
    /// The text or the ids.
    pub text: TextArgs,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `huozi logits`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  huozi logits -m huozi.gguf -p 白日依山    the 10 likeliest at every position
  huozi logits -m huozi.gguf --ids 1,2,3 --all -o out.f32
With -o: raw little-endian f32, one row of n_vocab values per id, padding rows
included.")]
pub struct LogitsCommand {
    #[command(flatten)]
    /// The model.
    pub model: ModelArgs,
    #[command(flatten)]
    /// The text or the ids.
    pub text: TextArgs,
    /// Show the K likeliest tokens
    #[arg(
        short = 'k',
        long,
        alias = "top_k",
        value_name = "K",
        default_value_t = 10,
        conflicts_with = "all"
    )]
    pub top_k: usize,
    /// Show every logit, in the order of the ids
    #[arg(long)]
    pub all: bool,
    /// Only the last position
    #[arg(long)]
    pub last: bool,
    /// Arithmetic: given (a prompt) or generated (token by token) [default: given]
    #[arg(long, value_name = "PHASE", value_parser = phase)]
    pub phase: Option<Phase>,
    /// Write every logit as raw f32 into FILE
    #[arg(short, long, value_name = "FILE", conflicts_with = "json")]
    pub output: Option<PathBuf>,
    /// One JSON object per position
    #[arg(long)]
    pub json: bool,
}

/// `huozi inspect`
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  huozi inspect huozi.gguf
  huozi inspect huozi.gguf --json | jq .types")]
pub struct InspectCommand {
    /// GGUF file or Hugging Face ORG/NAME [env HUOZI_MODEL]
    #[arg(value_name = "FILE", conflicts_with = "model")]
    pub path: Option<PathBuf>,
    /// The same as FILE
    #[arg(short, long, value_name = "FILE")]
    pub model: Option<PathBuf>,
    /// Show whole arrays
    #[arg(long)]
    pub full: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `huozi verify`
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  huozi verify huozi.gguf
A file of huozi-convert carries the SHA-256 of each tensor. Of other files the
structure is checked. Exit code 4 if a checksum does not match.")]
pub struct VerifyCommand {
    /// GGUF file or Hugging Face ORG/NAME [env HUOZI_MODEL]
    #[arg(value_name = "FILE", conflicts_with = "model")]
    pub path: Option<PathBuf>,
    /// The same as FILE
    #[arg(short, long, value_name = "FILE")]
    pub model: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// No progress
    #[arg(short, long)]
    pub quiet: bool,
}

/// `huozi doctor`
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  huozi doctor
  HUOZI_ISA=scalar huozi doctor --json
Looks for models in HUOZI_MODEL, $XDG_DATA_HOME/huozi and the current folder.")]
pub struct DoctorCommand {
    /// Context of the memory forecast, in tokens
    #[arg(
        short, long, aliases = aliases(Setting::CtxSize), value_name = "N", default_value_t = 2048,
        value_parser = context, allow_negative_numbers = true,
    )]
    pub ctx_size: usize,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `huozi demo`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  huozi demo                       a conversation (in a terminal)
  huozi demo \"写一首关于月的诗。\"  one answer
The model has 6.3 million weights and knows classical Chinese poems, nothing
else. It is built into the program, converted once and kept in ~/.cache/huozi.")]
pub struct DemoCommand {
    /// Prompt text
    #[arg(value_name = "PROMPT")]
    pub prompt: Option<String>,
    /// Keep no history of typed lines on disk
    #[arg(long, alias = "no_history")]
    pub no_history: bool,
    #[command(flatten)]
    /// How it is run.
    pub load: LoadArgs,
    #[command(flatten)]
    /// The conversation.
    pub chat: ChatArgs,
    #[command(flatten)]
    /// Sampling.
    pub sampling: SamplingArgs,
    /// With a prompt: one JSON object instead of the text
    #[arg(long)]
    pub json: bool,
    /// No statistics, progress or notes
    #[arg(short, long, overrides_with = "verbose")]
    pub quiet: bool,
    /// Statistics even if standard error is not a terminal
    #[arg(short, long, overrides_with = "quiet")]
    pub verbose: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::KvType;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn underscore_spellings_are_accepted() {
        let cli = Cli::try_parse_from([
            "huozi",
            "run",
            "--max_new_tokens",
            "7",
            "--top_k",
            "3",
            "--top_p",
            "0.5",
            "--repetition_penalty",
            "1.1",
            "--ctx_size",
            "99",
            "--kv_type",
            "f32",
        ])
        .unwrap();
        let Command::Run(run) = cli.command else { panic!() };
        assert_eq!(run.sampling.patch.max_new, Some(7));
        assert_eq!(run.sampling.patch.top_k, Some(3));
        assert_eq!(run.sampling.patch.top_p, Some(0.5));
        assert_eq!(run.sampling.patch.repetition_penalty, Some(1.1));
        assert_eq!(run.chat.typed.patch.n_ctx, Some(99));
        assert_eq!(run.model.load.engine.patch.kv, Some(KvType::F32));
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        for bad in [
            ["--temperature", "-1"],
            ["--temperature", "NaN"],
            ["--temperature", "inf"],
            ["--temperature", "5.1"],
            ["--top-p", "1.5"],
            ["--repetition-penalty", "0"],
            ["--repetition-penalty", "5.1"],
            ["--max-new-tokens", "4294967296"],
            ["-n", "0"],
            ["-t", "0"],
            ["-t", "1025"],
            ["-c", "0"],
            ["-c", "16777217"],
            ["-n", "-1"],
            ["-c", "-1"],
            ["-t", "-1"],
            ["--seed", "-1"],
            ["--seed", "18446744073709551616"],
            ["--top-k", "-1"],
            ["--top-p", "-0.5"],
        ] {
            let error = Cli::try_parse_from(["huozi", "run", bad[0], bad[1]]).unwrap_err().to_string();
            assert!(error.contains("invalid value") && error.contains(" is needed"), "{bad:?}: {error}");
        }
    }

    fn parsed(typed: &[&str]) -> Command {
        Cli::try_parse_from([&["huozi"], typed].concat()).unwrap().command
    }

    #[test]
    fn the_last_of_quiet_and_verbose_holds() {
        for (typed, expected) in [(["-q", "-v"], (false, true)), (["-v", "-q"], (true, false))] {
            let Command::Run(run) = parsed(&[&["run"], &typed[..]].concat()) else { panic!() };
            assert_eq!((run.quiet, run.verbose), expected, "{typed:?}");
            let Command::Chat(chat) = parsed(&[&["chat"], &typed[..]].concat()) else { panic!() };
            assert_eq!((chat.quiet, chat.verbose), expected, "{typed:?}");
        }
    }

    #[test]
    fn a_prompt_may_stand_alone_and_a_model_may_not() {
        let Command::Run(run) = parsed(&["run", "-m", "M", "你好"]) else { panic!() };
        assert_eq!(run.positional.as_deref(), Some("你好"));
        assert!(Cli::try_parse_from(["huozi", "run", "a", "-p", "b"]).is_err());
        let error = Cli::try_parse_from(["huozi", "chat", "m.gguf"]).unwrap_err().to_string();
        assert!(error.contains("behind -m"), "{error}");
    }

    #[test]
    fn choices_are_separated_by_commas() {
        let of = |text: &str| choices(text).map(|choices| choices.0);
        assert_eq!(of("a,b c,-1").unwrap(), ["a", "b c", "-1"]);
        assert_eq!(of("a\\,b,c\\d").unwrap(), ["a,b", "c\\d"]);
        for bad in ["", "a,", "a,,b", "a,b,a"] {
            assert!(of(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn ids_are_separated_by_commas_and_spaces() {
        for text in ["1,22,3", "1 22 3", " 1, 22，3\n", "1、22 ,3"] {
            assert_eq!(ids(text), Ok(Ids(vec![1, 22, 3])), "{text:?}");
        }
        for (text, bad) in [("1 x", "x"), ("-1", "-1"), ("1.5", "1.5"), ("4294967296", "4294967296")] {
            assert!(ids(text).unwrap_err().contains(bad), "{text:?}");
        }
    }

    #[test]
    fn every_help_has_at_most_48_lines_at_100_columns_and_an_example() {
        for path in [
            &["run"][..],
            &["chat"],
            &["batch"],
            &["batch", "merge"],
            &["tokenize"],
            &["logits"],
            &["inspect"],
            &["eval"],
            &["eval", "ppl"],
            &["eval", "kl"],
            &["bench"],
            &["doctor"],
            #[cfg(feature = "demo")]
            &["demo"],
            &["completions"],
            &["man"],
            &[],
        ] {
            let typed = [&["huozi"], path, &["--help"]].concat();
            let help = Cli::command().term_width(100).try_get_matches_from(&typed).unwrap_err().to_string();
            let lines = help.lines().count();
            assert!(lines <= 48, "{path:?}: {lines} lines\n{help}");
            assert!(help.contains("Example"), "{path:?} shows no example");
            // Clap breaks no line of this one again on the usual terminal.
            let narrow = Cli::command().term_width(80).try_get_matches_from(&typed).unwrap_err().to_string();
            let footer = |help: &str| help[help.find("Example").unwrap()..].to_owned();
            assert_eq!(footer(&narrow), footer(&help), "{path:?}");
        }
    }
}
