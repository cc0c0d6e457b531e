//! A file or standard input as UTF-8 that can be read at any offset.
//!
//! A plain file in UTF-8 is read where it is. Standard input, pipes, gzip data and texts in other encodings
//! are copied first, into a file without a name that is gone when the program ends.

use super::error::InputError;
use super::form::InputForm;
use super::strict;
use crate::text_file::{self, TextError};
use flate2::read::MultiGzDecoder;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes at the start that tell what an input is.
const START_BYTES: usize = 64 << 10;
/// Bytes around the first one that is not UTF-8 that tell the encoding.
const SAMPLE_BYTES: usize = 1 << 20;

/// How an input is read.
#[derive(Clone, Debug, Default)]
pub struct InputOptions {
    /// What its records are; `None`: as its name and its first lines tell.
    pub form: Option<InputForm>,
    /// The column of CSV and TSV that holds the prompt; `None`: `prompt`.
    pub column: Option<String>,
    /// Whether lines of text and values of a column are continued as they are; else they are messages of the
    /// user.
    pub raw: bool,
    /// Where a copy is made, if one is needed; `None`: the system's folder for temporary files.
    pub copy_folder: Option<PathBuf>,
}

/// An input that is open, not checked yet.
#[derive(Debug)]
pub struct InputFile {
    pub(super) name: String,
    pub(super) file: File,
    pub(super) bytes: u64,
    /// 3 where a byte order mark is skipped.
    pub(super) begin: u64,
    pub(super) form: InputForm,
    pub(super) column: String,
    pub(super) raw: bool,
}

impl InputFile {
    /// Opens a file, or standard input for `-`. Copies it where it cannot be read by offset, until `cancel`
    /// is set.
    ///
    /// # Errors
    /// Everything but what is told by [`InputFile::check`].
    pub fn open(path: &Path, options: &InputOptions, cancel: &AtomicBool) -> Result<Self, InputError> {
        if path.as_os_str() == "-" {
            return Self::from_reader(io::stdin().lock(), "standard input", options, cancel);
        }
        let name = path.display().to_string();
        let failed = |cause| InputError::Read { name: name.clone(), cause };
        let file = File::open(path).map_err(failed)?;
        let kind = file.metadata().map_err(failed)?.file_type();
        if kind.is_dir() {
            return Err(failed(io::ErrorKind::IsADirectory.into()));
        }
        if !kind.is_file() {
            return Self::from_reader(file, &name, options, cancel);
        }
        let start = start_of(&file).map_err(failed)?;
        if is_gzip(&start) {
            return Self::from_reader(file, &name, options, cancel);
        }
        Self::of_file(file, name, options, cancel)
    }

    /// Copies an input that can be read once.
    ///
    /// # Errors
    /// As [`InputFile::open`].
    pub fn from_reader(
        mut from: impl Read,
        name: &str,
        options: &InputOptions,
        cancel: &AtomicBool,
    ) -> Result<Self, InputError> {
        let failed = |cause| InputError::Read { name: name.to_owned(), cause };
        let mut start = Vec::new();
        from.by_ref().take(2).read_to_end(&mut start).map_err(failed)?;
        let zipped = is_gzip(&start);
        let whole = io::Cursor::new(start).chain(from);
        let file = if zipped {
            let broken = |cause| InputError::Gzip { name: name.to_owned(), cause };
            copy(MultiGzDecoder::new(whole), name, options, cancel, &broken)?
        } else {
            copy(whole, name, options, cancel, &failed)?
        };
        Self::of_file(file, name.to_owned(), options, cancel)
    }

    /// An input that can be read by offset.
    fn of_file(
        file: File,
        name: String,
        options: &InputOptions,
        cancel: &AtomicBool,
    ) -> Result<Self, InputError> {
        let failed = |cause| InputError::Read { name: name.clone(), cause };
        let start = start_of(&file).map_err(failed)?;
        if let Some((kind, help)) = refused(&start) {
            return Err(InputError::Kind { name, kind, help });
        }
        let told = options.form.or_else(|| InputForm::of_name(&name));
        let encoding = match &start[..] {
            [0xff, 0xfe, ..] => Some("UTF-16LE"),
            [0xfe, 0xff, ..] => Some("UTF-16BE"),
            _ if told.unwrap_or_else(|| InputForm::of_start(&start)) == InputForm::JsonLines => None,
            _ => {
                let found = other_encoding(&file, &start).map_err(failed)?;
                found.map_err(|cause| InputError::Encoding { name: name.clone(), cause })?
            }
        };
        let (file, start) = match encoding {
            None => (file, start),
            Some(encoding) => {
                let file = rewritten(file, &name, encoding, options)?;
                let start = start_of(&file).map_err(failed)?;
                (file, start)
            }
        };
        check_cancel(cancel)?;
        let begin = if start.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
        let text = start[begin as usize..].trim_ascii_start();
        let form = told.unwrap_or_else(|| InputForm::of_start(text));
        if form == InputForm::JsonLines && is_array(&file, text).map_err(failed)? {
            let kind = "this is one JSON array, not an object a line";
            let help = "convert it with `jq -c '.[]'`";
            return Err(InputError::Kind { name, kind, help });
        }
        let bytes = file.metadata().map_err(failed)?.len();
        let column = options.column.clone().unwrap_or_else(|| "prompt".to_owned());
        Ok(Self { form, column, raw: options.raw, name, file, bytes, begin })
    }

    /// What its records are.
    pub fn form(&self) -> InputForm {
        self.form
    }

    /// Its file, or `standard input`.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Reads a file from an offset on without moving anything that others see.
#[derive(Debug)]
pub(super) struct FromOffset<'f> {
    pub(super) file: &'f File,
    pub(super) offset: u64,
}

impl Read for FromOffset<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(to, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

fn check_cancel(cancel: &AtomicBool) -> Result<(), InputError> {
    if cancel.load(Ordering::Relaxed) { Err(InputError::Cancelled) } else { Ok(()) }
}

fn start_of(file: &File) -> io::Result<Vec<u8>> {
    let mut start = Vec::new();
    FromOffset { file, offset: 0 }.take(START_BYTES as u64).read_to_end(&mut start)?;
    Ok(start)
}

fn is_gzip(start: &[u8]) -> bool {
    start.starts_with(&[0x1f, 0x8b])
}

/// Kinds of files that are not read, by their first bytes.
fn refused(start: &[u8]) -> Option<(&'static str, &'static str)> {
    const KINDS: &[(&[u8], &str, &str)] = &[
        (b"\x28\xb5\x2f\xfd", "it is compressed with zstd", "decompress it with `zstd -d`, or use gzip"),
        (b"\xfd7zXZ\0", "it is compressed with xz", "decompress it with `unxz`, or use gzip"),
        (b"BZh", "it is compressed with bzip2", "decompress it with `bunzip2`, or use gzip"),
        (b"PK\x03\x04", "it is a ZIP archive or an Excel file", "unpack it, or save the sheet as CSV"),
        (b"PAR1", "it is a Parquet file", "write it as JSON lines"),
        (b"GGUF", "it is a model in the GGUF format", "give the model with -m, the input with -i"),
        (b"\x1f\x8b", "it is compressed with gzip twice", "decompress it once"),
    ];
    KINDS.iter().find(|(magic, ..)| start.starts_with(magic)).map(|&(_, kind, help)| (kind, help))
}

/// Whether an input is one JSON array, over one line or several; `start`: its text, without blanks in front.
fn is_array(file: &File, start: &[u8]) -> io::Result<bool> {
    if !start.starts_with(b"[") {
        return Ok(false);
    }
    let mut end = Vec::new();
    FromOffset { file, offset: file.metadata()?.len().saturating_sub(4096) }.read_to_end(&mut end)?;
    let first = start.split(|&b| b == b'\n').next().unwrap_or_default();
    let more = !start[first.len()..].trim_ascii().is_empty();
    // Arrays that are lines of their own are rows that fail.
    let whole = std::str::from_utf8(first).is_ok_and(|line| strict::read(line).is_ok());
    Ok(end.trim_ascii_end().ends_with(b"]") && !(whole && more))
}

/// A file without a name.
fn nameless(name: &str, options: &InputOptions) -> Result<File, InputError> {
    let folder = options.copy_folder.clone().unwrap_or_else(std::env::temp_dir);
    tempfile::tempfile_in(&folder).map_err(|cause| copy_failed(name, options, cause))
}

fn copy_failed(name: &str, options: &InputOptions, cause: io::Error) -> InputError {
    let folder = options.copy_folder.clone().unwrap_or_else(std::env::temp_dir);
    InputError::Copy { name: name.to_owned(), folder: folder.display().to_string(), cause }
}

fn copy(
    mut from: impl Read,
    name: &str,
    options: &InputOptions,
    cancel: &AtomicBool,
    failed: &dyn Fn(io::Error) -> InputError,
) -> Result<File, InputError> {
    let mut file = nameless(name, options)?;
    let mut bytes = vec![0; 1 << 16];
    loop {
        check_cancel(cancel)?;
        let read = match from.read(&mut bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read.map_err(failed)?,
        };
        if read == 0 {
            return Ok(file);
        }
        file.write_all(&bytes[..read]).map_err(|cause| copy_failed(name, options, cause))?;
    }
}

fn rewritten(mut file: File, name: &str, encoding: &str, options: &InputOptions) -> Result<File, InputError> {
    let read_failed = |cause| InputError::Read { name: name.to_owned(), cause };
    file.seek(SeekFrom::Start(0)).map_err(read_failed)?;
    let mut copy = nameless(name, options)?;
    match text_file::rewrite(encoding, file, &mut copy) {
        Ok(()) => Ok(copy),
        Err(TextError::Io(cause)) => Err(copy_failed(name, options, cause)),
        Err(cause) => Err(InputError::Encoding { name: name.to_owned(), cause }),
    }
}

/// The encoding of a text, where it is another than UTF-8; a text that is UTF-8 but for some bytes is UTF-8.
fn other_encoding(file: &File, start: &[u8]) -> io::Result<Result<Option<&'static str>, TextError>> {
    let at = match start.iter().position(|&b| b == 0) {
        Some(_) => 0,
        None => match first_not_utf_8(file)? {
            None => return Ok(Ok(None)),
            Some(at) => at,
        },
    };
    // UTF-16 has two bytes a character: the sample begins at an even offset there, as the file does.
    let begin = if at < SAMPLE_BYTES as u64 / 2 { 0 } else { line_before(file, at)? };
    let mut sample = Vec::new();
    FromOffset { file, offset: begin }.take(SAMPLE_BYTES as u64).read_to_end(&mut sample)?;
    if sample.len() == SAMPLE_BYTES
        && let Some(end) = sample.iter().rposition(|&b| b == b'\n')
        && !sample.contains(&0)
    {
        sample.truncate(end + 1);
    }
    Ok(match text_file::decode(sample) {
        Ok(text) => Ok(text.other_encoding()),
        // The lines that are wrong are rows that fail.
        Err(TextError::Damaged { encoding: "UTF-8", .. }) => Ok(None),
        Err(error) => Err(error),
    })
}

/// The offset of the first byte that is not UTF-8.
fn first_not_utf_8(file: &File) -> io::Result<Option<u64>> {
    let mut from = FromOffset { file, offset: 0 };
    let (mut bytes, mut held) = (vec![0; 1 << 16], 0);
    loop {
        let read = from.read(&mut bytes[held..])?;
        let have = held + read;
        let begin = from.offset - have as u64;
        match std::str::from_utf8(&bytes[..have]) {
            Ok(_) if read == 0 => return Ok(None),
            Ok(_) => held = 0,
            Err(error) if error.error_len().is_some() || read == 0 => {
                return Ok(Some(begin + error.valid_up_to() as u64));
            }
            Err(error) => {
                bytes.copy_within(error.valid_up_to()..have, 0);
                held = have - error.valid_up_to();
            }
        }
    }
}

/// The offset at which the line of byte `at` begins, or a byte some way before it.
fn line_before(file: &File, at: u64) -> io::Result<u64> {
    let begin = at.saturating_sub(SAMPLE_BYTES as u64 / 2);
    let mut before = Vec::new();
    FromOffset { file, offset: begin }.take(at - begin).read_to_end(&mut before)?;
    Ok(before.iter().rposition(|&b| b == b'\n').map_or(begin, |end| begin + end as u64 + 1))
}
