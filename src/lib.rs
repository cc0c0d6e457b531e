//! `huozi` runs BLOOM-family language models (Huozi 1.0 and 2.0, BLOOM, BLOOMZ) on CPUs: offline, no Python, no daemon.
//!
//! # The flow
//!
//! ```text
//! checkpoint --huozi_convert--> model.gguf
//! model.gguf --quant::map--> quant::gguf::Reader --> weights where they lie in the file
//! text --token--> ids --schedule, engine (model, KV blocks)--> logits --sample--> id
//!   --token::DecodeStream--> text --session::Event--> cli (standard output) | tui (screen)
//! ```
//!
//! Data only ever moves to the right.
//!
//! # Rooms
//!
//! | room | what it does | may import |
//! |---|---|---|
//! | [`sample`] | logits to an id: filters in Hugging Face's order, a draw that depends on seed and position only; log-probabilities | |
//! | [`lang`] | the languages of the interface | |
//! | [`settings`] | the one table of settings: names, ranges, help; what they are set to, read at every door | `engine`, `lang`, `quant`, `sample` |
//! | [`model`] | the forward pass over mapped weights, KV blocks | `quant` |
//! | [`engine`] | `trait Engine`: sequences of tokens in, rows of logits out; `Native` is ours, `ggml` (a cargo feature) is llama.cpp | `model`, `quant` |
//! | [`schedule`] | requests over one engine, a step at a time; prefixes are shared; a thread for several clients | `engine`, `sample` |
//! | [`mod@open`] | from a model (file, name in the Hugging Face cache, demo, memory, random weights) to an engine; memory | `demo`, `engine`, `model`, `quant`, `token` |
//! | [`session`] | one conversation; its files on disk, its keys and values there; the model files of this machine | `engine`, `open`, `sample`, `schedule`, `token`; its catalog and open `quant` |
//! | [`mod@bench`] | speed of any engine, floors of the machine, comparisons | `engine`, `quant` |
//! | [`eval`] | perplexity, KL divergence | `engine`, `sample` |
//! | `demo` | the embedded small model, and the only place that sees `huozi_convert` | `convert` |
//! | `tui` | the terminal chat `huozi-tui`: state, update, view | `session` |
//! | [`cli`] | the program `huozi`: a file per subcommand, exit codes, the printer | everything |
//!
//! `tests/layering.rs` holds these arrows. `huozi_quant` (formats, kernels, matrix products, attention, the GGUF container,
//! mmap) holds all `unsafe` of the workspace, but for two calls into llama.cpp in `engine::ggml`. `huozi_token`
//! (vocabulary, BPE, decoding from bytes, chat formats, limits of a conversation) imports `quant` only.
//! `huozi_convert` never sees the runtime.
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
//! Weights are used where mmap puts them. Arithmetic is chosen by phase (prompt or generated), never by width, threads
//! or company, so the same seed gives the same text. The instruction set is chosen at run time. Bytes from outside give an
//! answer or an error, never a panic. Message text never becomes a control token. Nothing half-written is found under
//! its final name.

// The rows of `bench` in JSON have more keys than the macro recurses by default.
#![recursion_limit = "256"]
#![deny(unsafe_code)] // not `forbid`: `engine::ggml` has the one exception

pub mod bench;
pub mod cli;
#[cfg(feature = "demo")]
pub mod demo;
pub mod engine;
pub mod eval;
pub mod lang;
pub mod model;
pub mod open;
pub mod sample;
pub mod schedule;
pub mod session;
pub mod settings;
#[cfg(feature = "tui")]
pub mod tui;
