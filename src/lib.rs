//! `huozi` runs BLOOM-family language models (Huozi 1.0 and 2.0, BLOOM, BLOOMZ) on CPUs: offline, no Python,
//! no daemon.
//!
//! # The flow
//!
//! ```text
//! checkpoint --huozi_convert--> model.gguf
//! model.gguf --open, quant::map--> quant::gguf::Reader --> weights, used in place in the mapped file
//! text --token--> ids --schedule, engine (model, KV blocks)--> logits --sample--> id
//!   --token::TextStream--> text --session::Event--> cli (standard output) | tui (screen)
//! ```
//!
//! Data moves to the right only, except that the sampled id is the next token of its sequence. `session` (one
//! conversation) drives `schedule` (many requests).
//!
//! # Modules
//!
//! Module `x` is `src/x.rs` or `src/x/mod.rs`; `src/main.rs` only starts `cli`, `src/bin/huozi-tui.rs` gives
//! what `cli::tui` read from the command line to `tui`.
//!
//! - [`sample`]: logits to an id, with filters in Hugging Face's order and a draw that depends on seed and
//!   position only; log-probabilities. Imports no other module.
//! - [`lang`]: the enum of the languages of the interface; texts are where they are shown. Imports no other
//!   module.
//! - [`commands`]: the one table of chat commands (`/NAME`), the same in `cli` and `tui`. Imports `lang`.
//! - [`text_file`]: text files in UTF-8, UTF-16 and GB18030. Imports no other module.
//! - [`settings`]: the one table of settings (names, ranges, help) and the patch that every source of
//!   settings is read into. Imports `engine`, `lang`, `quant`, `sample`.
//! - [`model`]: the forward pass over mapped weights, KV blocks. Imports `quant`.
//! - [`engine`]: `trait Engine`, sequences of tokens in, rows of logits out; `Native` is ours, `ggml` (a
//!   cargo feature) is llama.cpp. Imports `model`, `quant`.
//! - [`schedule`]: requests over one engine, a step at a time; shared prefixes; a thread that several clients
//!   can use. Imports `engine`, `sample`.
//! - [`complete`]: one prompt to answers or scored choices. Imports `sample`, `schedule`, `token`.
//! - [`batch`]: rows of a file to a file of results, with resume: `batch::input` reads and checks them,
//!   `batch::run` runs them, `batch::output` writes results. Imports `complete`, `open`, `quant`
//!   (paths and texts of messages), `sample`, `schedule`, `text_file`, `token`.
//! - [`mod@open`]: from a model (file, name in the Hugging Face cache, demo, memory, random weights) to an
//!   engine; memory checks. Imports `demo`, `engine`, `model`, `quant`, `settings`, `token`.
//! - [`kv_file`]: keys and values of sequences in files, prompt caches. Imports `quant`, `schedule`.
//! - [`session`]: one conversation, its files, its cached keys and values; the model files of this machine.
//!   Imports `engine`, `kv_file`, `open`, `sample`, `schedule`, `settings`, `token`; `session::catalog` and
//!   `session::open` also `quant`.
//! - [`mod@bench`]: speed of any engine and of speculation, floors of the machine, comparisons. Imports
//!   `engine`, `quant`, `sample`, `schedule`.
//! - [`eval`]: perplexity, KL divergence. Imports `engine`, `sample`.
//! - `demo`: the embedded small model, and the only module that sees `huozi_convert`.
//! - `tui`: the terminal chat `huozi-tui`: state, update, view. Imports `commands`, `lang`, `session`,
//!   `settings`, `text_file`.
//! - [`cli`]: the program `huozi`: a file per subcommand, exit codes, the printer. May import every module.
//!
//! `tests/layering.rs` enforces these imports, and those of the other packages:
//!
//! - `huozi_quant` (`quant/src/`): formats, kernels, matrix products, attention, the GGUF container, mmap;
//!   BLOOM's sizes and tensors.
//! - `huozi_token` (`token/src/`): vocabulary, BPE, text from ids, chat formats and templates, limits of a
//!   conversation. Imports `quant`.
//! - `huozi_convert` (`convert/src/`): checkpoint to GGUF. Imports `quant` and `token`, never the runtime.
//!
//! `huozi_quant` holds all `unsafe` code of the workspace, except two calls into llama.cpp in `engine::ggml`.
//!
//! # Where to change what
//!
//! - A weight format or an instruction set: the recipes in README. A type of `huozi-convert -t`:
//!   `quant/src/bloom/plan.rs`.
//! - A setting: a row in `src/settings/table.rs` and a field in `src/settings/patch.rs`; its flag,
//!   `config.toml`, `/set`, the settings pane and conversation files follow from these. What a conversation
//!   acts on is a field of [`session::Settings`], filled from the patch in `src/session/patched.rs`.
//! - A chat command: a row in `src/commands.rs`; what it does is in `src/cli/chat/commands.rs` and
//!   `src/tui/commands.rs`.
//! - A sampling rule: `src/sample/mod.rs`, and its setting as above.
//! - A subcommand: a file in `src/cli/`, its arguments in `src/cli/args/`, its line in `src/cli/mod.rs`.
//! - A pane of the terminal chat: a file in `src/tui/` and its variant in `src/tui/panels.rs`; its key in
//!   `src/tui/keys.rs`; what its outcome does in `src/tui/app/act.rs` and `outcomes.rs`; its texts in both
//!   languages in `src/tui/words/`. A screen of its own: `Screen` in `src/tui/app/mod.rs`, drawn in
//!   `src/tui/view.rs`.
//! - A chat template: `token/src/chat/template.rs`; Huozi's own format: `token/src/chat/huozi.rs`.
//! - A key of GGUF metadata: `token/src/parts.rs` reads those of the tokenizer (`stop_ids` are the
//!   tokens that end an answer), `quant/src/bloom/shape.rs` those of the model; `convert/src/meta.rs` writes
//!   both, those of the tokenizer as `convert/src/vocab.rs` has collected them. `huozi.tensor_sha256` is
//!   neither: `convert/src/model.rs` makes room for it, `quant/src/gguf/write.rs` fills it in and
//!   `quant/src/gguf/check.rs` reads it.
//! - A field of a row of a batch: `src/batch/input/fields.rs`; what a result line says:
//!   `src/batch/output/line.rs`; what a run may be taken up again with: [`batch::output::RunIdentity`],
//!   filled in `src/cli/batch/`.
//! - A kind of file that is told with what to do: `quant/src/files/diagnosis.rs`; in Chinese
//!   `src/tui/words/zh_files.rs`.
//! - A message of the converter: `convert/src/progress.rs` says what is reported, `convert/src/print.rs`
//!   prints it.
//! - A front end: a folder beside `tui` that is a client of [`session`] (one conversation) or of
//!   [`schedule::SchedulerHandle`] with `huozi_token` (many requests), a file in `src/cli/`, its imports in
//!   `tests/layering.rs`. A client of the scheduler opens the model with [`open::open`], takes an engine with
//!   a [`open::Room`] for its requests, and hands it over with [`schedule::SchedulerHandle::start`].
//! - The encodings of text files: `src/text_file.rs`. Keys of `--json` that several commands print:
//!   `record` in `src/cli/load.rs`.
//!
//! # A conversation
//!
//! ```no_run
//! use huozi::open::{self, OpenOptions, Source};
//! use huozi::session::{self, Event, Settings};
//! use huozi_token::HistoryRule;
//! use std::sync::{Arc, atomic::AtomicBool};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let never = AtomicBool::new(false);
//! let source = Source::File("huozi.gguf".into());
//! let model = open::open(&source, &OpenOptions::default(), &open::silent, &never)?;
//! let tokenizer = Arc::new(model.tokenizer()?);
//! let format = model.chat_format(&tokenizer)?;
//! let settings = Settings {
//!     sampling: Default::default(),
//!     max_new: 512,
//!     n_ctx: 2048,
//!     system: None,
//!     history: HistoryRule::TwoThirds,
//!     seed: 1,
//! };
//! let mut session = session::open::start(&model, tokenizer, format, settings, &open::silent, &never)?;
//! let answer = session.ask("写一首关于月的诗。", &never, &mut |event| {
//!     if let Event::Text(text) = event {
//!         eprint!("{text}");
//!     }
//! })?;
//! assert!(answer.stats.generated_tokens > 0);
//! # Ok(())
//! # }
//! ```
//!
//! # What stays true
//!
//! The engine uses weights in place, where mmap put them. Arithmetic is chosen by phase (prompt or
//! generated), never by batch width, threads or other sequences, so the same seed gives the same text. The
//! instruction set is chosen at run time. Untrusted bytes give an answer or an error, never a panic. Message
//! text never becomes a control token. An unfinished file never has its final name.

// The rows of `bench` in JSON have more keys than the macro recurses by default.
#![recursion_limit = "256"]
#![deny(unsafe_code)] // not `forbid`: `engine::ggml` has the one exception

pub mod batch;
pub mod bench;
pub mod cli;
pub mod commands;
pub mod complete;
#[cfg(feature = "demo")]
pub mod demo;
pub mod engine;
pub mod eval;
pub mod kv_file;
pub mod lang;
pub mod model;
pub mod open;
pub mod sample;
pub mod schedule;
pub mod session;
pub mod settings;
pub mod text_file;
#[cfg(feature = "tui")]
pub mod tui;
