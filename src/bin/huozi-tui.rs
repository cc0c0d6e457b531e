//! `huozi-tui`: command line and configuration to the terminal chat.
#![forbid(unsafe_code)]

use huozi::{cli, tui};
use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::tui::start() {
        Ok((start, setup)) => tui::terminal::run(start, setup),
        Err(code) => ExitCode::from(code),
    }
}
