//! `huozi`: see the library's documentation.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(huozi::cli::main())
}
