//! A text that a command reads: from a flag, a file or standard input, in the encodings of
//! [`crate::text_file`].

use super::exit::{BadFile, Usage};
use crate::text_file::{self, MAX_TEXT_BYTES, TextError};
use anyhow::{Context, Result};
use std::fs::File;
use std::io::IsTerminal;
use std::path::Path;

/// The text of a file, or of standard input for `-`. A note says which encoding it is read as, where that is
/// another than UTF-8, unless `quiet`.
///
/// # Errors
/// [`BadFile`] when it cannot be read, is no text, or is too long.
pub fn of_file(path: &Path, quiet: bool) -> Result<String> {
    let stdin = path.as_os_str() == "-";
    let name = if stdin { "standard input".to_owned() } else { path.display().to_string() };
    let read = if stdin {
        text_file::read(std::io::stdin().lock(), MAX_TEXT_BYTES)
    } else {
        File::open(path).map_err(TextError::Io).and_then(|file| text_file::read(file, MAX_TEXT_BYTES))
    };
    let file = read.map_err(|error| BadFile(format!("{name}: {error}")))?;
    if let Some(encoding) = file.other_encoding().filter(|_| !quiet) {
        eprintln!("huozi: {name}: not UTF-8; read as {encoding}");
    }
    Ok(file.text)
}

/// The text of `prompt`, of the file, or else of standard input; the last line break of a file or of standard
/// input is taken off when `trim`.
///
/// # Errors
/// As [`of_file`]; [`Usage`] when standard input is a terminal.
pub fn given(prompt: Option<&str>, file: Option<&Path>, trim: bool, quiet: bool) -> Result<String> {
    if let Some(text) = prompt {
        return Ok(text.to_owned());
    }
    if file.is_none() && std::io::stdin().is_terminal() {
        return Err(Usage("no text: give it with -p TEXT or -f FILE, or pipe it in".into()).into());
    }
    let mut text = of_file(file.unwrap_or(Path::new("-")), quiet).context("the text")?;
    if trim && text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}
