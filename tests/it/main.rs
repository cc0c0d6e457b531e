//! The integration tests of package `huozi` in one binary, a module per subject: one link instead of twenty.

#[path = "../common/mod.rs"]
mod common;
mod token_support;

mod batch_files;
mod batch_input;
mod batch_merge;
mod batch_output;
mod batch_output_support;
mod batch_run;
mod chat;
mod cli_chat;
mod cli_commands;
mod cli_doors;
mod cli_exit;
mod cli_run;
mod cli_scripts;
mod complete;
mod diagnosis;
mod end_tokens;
mod engine;
mod examples;
mod foreign;
mod foreign_gguf;
#[cfg(feature = "ggml")]
mod ggml;
#[cfg(feature = "ggml")]
mod ggml_engine;
mod log_probs;
mod open;
mod prompt_cache;
mod reference;
mod sample;
mod schedule;
mod schedule_admit;
mod schedule_handle;
mod schedule_speculate;
mod schedule_support;
mod session;
mod session_kv;
mod session_support;
mod templates;
mod token;

#[cfg(feature = "tui")]
mod tui;
#[cfg(feature = "tui")]
mod tui_branches;
#[cfg(feature = "tui")]
mod tui_cases;
#[cfg(feature = "tui")]
mod tui_drafts;
#[cfg(feature = "tui")]
mod tui_faults;
#[cfg(feature = "tui")]
mod tui_kept;
#[cfg(feature = "tui")]
mod tui_random;
#[cfg(feature = "tui")]
mod tui_shown;
#[cfg(feature = "tui")]
#[path = "../tui_support/mod.rs"]
mod tui_support;
#[cfg(feature = "tui")]
mod tui_worker;
#[cfg(feature = "tui")]
mod worker_support;
