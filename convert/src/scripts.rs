//! `huozi-convert completions` and `huozi-convert man`, generated from the definitions of the arguments.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Command, Parser};
use clap_complete::Shell;
use clap_mangen::Man;

use crate::make_checkpoint;
use crate::print::say;

/// The first arguments that select these commands. A checkpoint of such a name is `./man`.
pub(crate) const NAMES: [&str; 2] = ["completions", "man"];

/// Shell completions and manual pages of huozi-convert
#[derive(Parser)]
#[command(name = "huozi-convert", version)]
enum Args {
    /// Print a shell's completion script
    #[command(version)]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write the manual pages
    #[command(version)]
    Man {
        /// Folder to write the pages into; created if missing
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
}

/// `program`: the arguments of a conversion.
pub(crate) fn main(program: Command) -> ExitCode {
    let mut program = program.name("huozi-convert").subcommand(make_checkpoint::command());
    let done = match Args::parse() {
        Args::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut program, "huozi-convert", &mut script);
            io::stdout().write_all(&script).and_then(|()| io::stdout().flush())
        }
        Args::Man { folder } => {
            program = program.disable_help_subcommand(true);
            program.build();
            let subcommands = program.get_subcommands();
            fs::create_dir_all(&folder)
                .and_then(|()| [&program].into_iter().chain(subcommands).try_for_each(|c| page(c, &folder)))
                .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", folder.display())))
        }
    };
    match done {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            say(format_args!("error: {e}"));
            ExitCode::from(if e.kind() == io::ErrorKind::StorageFull { 5 } else { 1 })
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Writes the page of a command and prints its path.
fn page(command: &Command, folder: &Path) -> io::Result<()> {
    let page = Man::new(command.clone());
    let path = folder.join(page.get_filename());
    // Everyone may read a manual page.
    let mut file = tempfile::Builder::new().permissions(Permissions::from_mode(0o666)).tempfile_in(folder)?;
    page.render(&mut file)?;
    file.persist(&path)?;
    writeln!(io::stdout(), "{}", path.display())
}
