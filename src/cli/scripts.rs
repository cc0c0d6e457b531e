//! `huozi completions` and `huozi man`: completion scripts and manual pages, generated from the definitions
//! that also parse the arguments.

use super::args::{Cli, CompletionsCommand, ManCommand, Program};
use super::printer::Printer;
use anyhow::{Context, Result};
use clap::{Command, CommandFactory};
use clap_mangen::Man;
use huozi_quant::output;
use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Prints the completion script of a shell.
///
/// # Errors
/// Those of standard output.
pub fn completions(args: &CompletionsCommand, printer: &mut Printer) -> Result<()> {
    let mut command = definition(args.program);
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    let mut out = printer.bulk();
    out.write_all(&script)?;
    Ok(out.flush()?)
}

/// Writes the manual pages of every program and subcommand; prints their paths.
///
/// # Errors
/// The folder or a page cannot be written.
pub fn man(args: &ManCommand, printer: &mut Printer) -> Result<()> {
    let folder = output::directory(&args.folder)?.path;
    fs::create_dir_all(&folder).with_context(|| format!("{}: cannot create it", folder.display()))?;
    for &program in Program::ALL {
        // `huozi help` has no page: each page is the help.
        let mut command = definition(program).disable_help_subcommand(true);
        command.build();
        pages(&command, &folder, printer)?;
    }
    Ok(())
}

fn definition(program: Program) -> Command {
    match program {
        Program::Huozi => Cli::command(),
        #[cfg(feature = "tui")]
        Program::HuoziTui => super::tui::command(),
    }
}

/// The page of a command, and those of its subcommands.
fn pages(command: &Command, folder: &Path, printer: &mut Printer) -> Result<()> {
    let page = Man::new(command.clone());
    let path = folder.join(page.get_filename());
    write(&page, folder, &path).with_context(|| format!("{}: cannot write it", path.display()))?;
    printer.line(&path.display().to_string())?;
    command.get_subcommands().filter(|sub| !sub.is_hide_set()).try_for_each(|sub| pages(sub, folder, printer))
}

fn write(page: &Man, folder: &Path, path: &Path) -> io::Result<()> {
    // Everyone may read a manual page.
    let mut file = tempfile::Builder::new().permissions(Permissions::from_mode(0o666)).tempfile_in(folder)?;
    page.render(&mut file)?;
    file.persist(path)?;
    Ok(())
}
