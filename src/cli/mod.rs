//! `huozi` and its subcommands.
//!
//! [`args`] is what was typed, [`exit`] the exit codes; every subcommand is a file. Results go through
//! [`printer::Printer`] to standard output, everything else to standard error.

pub mod args;
mod batch;
mod bench;
mod chat;
#[cfg(feature = "demo")]
mod demo;
mod doctor;
mod eval;
pub mod exit;
mod inspect;
mod load;
mod logits;
pub mod printer;
mod run;
mod scripts;
#[cfg(test)]
mod setting_sources;
mod settings;
mod show;
mod signal;
mod terminal;
mod text;
mod tokenize;
#[cfg(feature = "tui")]
pub mod tui;
mod verify;

use anyhow::Result;
use args::{Cli, Command};
use clap::Parser;
use printer::Printer;
use settings::Config;
use signal::Signals;

/// Runs the program with the arguments it was started with; gives the exit code.
pub fn main() -> u8 {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output and are no error.
            let code = if error.use_stderr() { exit::USAGE } else { exit::DONE };
            // A closed pipe ends quietly.
            let _ = error.print();
            return code;
        }
    };
    match dispatch(&cli) {
        Ok(()) => exit::DONE,
        Err(error) => {
            let code = exit::code(&error);
            let silent =
                code == exit::INTERRUPTED || code == exit::TERMINATED || exit::is_closed_pipe(&error);
            if !silent {
                eprintln!("huozi: {}", exit::line(&error));
            }
            code
        }
    }
}

fn dispatch(cli: &Cli) -> Result<()> {
    let printer = &mut Printer::new();
    // Packages are built where a user's configuration does not matter.
    match &cli.command {
        Command::Completions(args) => return scripts::completions(args, printer),
        Command::Man(args) => return scripts::man(args, printer),
        _ => {}
    }
    let signals = Signals::install()?;
    let config = Config::load(cli.command.quiet())?;
    match &cli.command {
        Command::Run(args) => run::run(args, &config, &signals, printer),
        Command::Chat(args) => chat::run(args, &config, &signals, printer),
        Command::Batch(args) => batch::run(args, &config, &signals, printer),
        Command::Tokenize(args) => tokenize::run(args, &config, printer),
        Command::Logits(args) => logits::run(args, &config, &signals, printer),
        Command::Inspect(args) => inspect::run(args, &config, printer),
        Command::Verify(args) => verify::run(args, &config, printer),
        Command::Eval(args) => eval::run(args, &config, &signals, printer),
        Command::Bench(args) => bench::run(args, &config, &signals, printer),
        Command::Doctor(args) => doctor::run(args, &config, &signals, printer),
        #[cfg(feature = "demo")]
        Command::Demo(args) => demo::run(args, &config, &signals, printer),
        Command::Completions(_) | Command::Man(_) => Ok(()),
    }
}
