//! Arguments of the commands that packages and shells call.

use clap::{Args, ValueEnum};
use clap_complete::Shell;
use std::path::PathBuf;

/// A program whose arguments this one knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Program {
    #[allow(missing_docs)] // documented values would turn the help into clap's long form
    Huozi,
    #[cfg(feature = "tui")]
    #[allow(missing_docs)]
    HuoziTui,
}

impl Program {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::Huozi,
        #[cfg(feature = "tui")]
        Self::HuoziTui,
    ];
}

/// `huozi completions`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  huozi completions bash > ~/.local/share/bash-completion/completions/huozi
  huozi completions zsh > ~/.zfunc/_huozi     with fpath+=~/.zfunc in ~/.zshrc
  huozi completions fish > ~/.config/fish/completions/huozi.fish
packaging/install.sh installs them with the programs.")]
pub struct CompletionsCommand {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
    /// The program to complete
    #[arg(long, value_name = "NAME", default_value = "huozi")]
    pub program: Program,
}

/// `huozi man`
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  huozi man ~/.local/share/man/man1 && man huozi-run
A page per program and subcommand; `huozi-convert man DIR` writes its own.
packaging/install.sh installs them with the programs.")]
pub struct ManCommand {
    /// Folder to write the pages into; created if missing
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
}
