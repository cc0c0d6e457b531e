//! From the lines in the order in which they were written to finished files.

use super::error::OutputError;
use super::manifest::{FileRecord, Manifest, RunIdentity, RunRecord, beside, create, file_name, rename};
use super::partial::{Partial, read_line, seek};
use super::row_list;
use super::start::{Begun, ResultOrder};
use super::summary::BatchSummary;
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// Copies the lines in order, names the files, and notes them in the manifest.
pub(super) fn finish(
    begun: Begun,
    identity: &RunIdentity,
    order: ResultOrder,
) -> Result<BatchSummary, OutputError> {
    let Begun { out, errors, mut partial, table } = begun;
    partial.sync()?;
    let mut rows: Vec<u32> =
        (0..table.len()).filter(|&row| table.get(row).is_some()).map(|row| row as u32).collect();
    if order == ResultOrder::Done {
        rows.sort_unstable_by_key(|&row| table.get(row as usize));
    }
    let mut files = Files::create(&out, errors.as_deref(), identity.shard.is_some())?;
    let (mut reader, mut at, mut line) = (partial.reader()?, 0, Vec::new());
    for row in rows {
        let Some((begin, failed)) = table.get(row as usize) else { continue };
        seek(&mut reader, &mut at, begin).map_err(OutputError::io(partial.path(), "read"))?;
        read_line(partial.path(), &mut reader, 0, &mut line)?;
        at += line.len() as u64;
        files.write(row, failed, &line)?;
    }
    files.publish(identity, partial)
}

/// The files of a finished run, under their working names.
pub(super) struct Files {
    out: NewFile,
    errors: Option<NewFile>,
    failed: usize,
}

impl Files {
    /// `shard`: note which rows the lines are.
    pub fn create(out: &Path, errors: Option<&Path>, shard: bool) -> Result<Self, OutputError> {
        let errors = errors.map(|path| NewFile::create(path, shard)).transpose()?;
        Ok(Self { out: NewFile::create(out, shard)?, errors, failed: 0 })
    }

    /// The next line.
    pub fn write(&mut self, row: u32, failed: bool, line: &[u8]) -> Result<(), OutputError> {
        self.failed += usize::from(failed);
        match &mut self.errors {
            Some(errors) if failed => errors.write(row, line),
            _ => self.out.write(row, line),
        }
    }

    /// Gives the files their names and notes them in the manifest; then the partial file is not needed any
    /// more.
    pub fn publish(self, identity: &RunIdentity, partial: Partial) -> Result<BatchSummary, OutputError> {
        let Self { out, errors, failed } = self;
        let errors = errors.map(NewFile::close).transpose()?;
        let out = out.close()?;
        if let Some(errors) = &errors {
            rename(&errors.working, &errors.path)?;
        }
        rename(&out.working, &out.path)?;
        let mut manifest = Manifest::new(identity, errors.as_ref().map(|errors| errors.path.as_path()));
        let (out, errors) = (out.keep(), errors.map(Closed::keep));
        let rows = out.1.lines + errors.as_ref().map_or(0, |(_, record)| record.lines);
        let (errors, errors_record) = errors.unzip();
        manifest.result = Some(RunRecord { rows, failed, results: out.1, errors: errors_record });
        manifest.write(&out.0)?;
        partial.remove()?;
        Ok(BatchSummary { rows, failed, already: false, out: out.0, errors })
    }
}

/// A file that is written under a working name, which goes with it unless it is closed.
struct NewFile {
    path: PathBuf,
    working: Working,
    file: BufWriter<File>,
    digest: Sha256,
    bytes: u64,
    lines: usize,
    rows: Option<Vec<u32>>,
}

impl NewFile {
    fn create(path: &Path, shard: bool) -> Result<Self, OutputError> {
        let working = beside(path, ".finishing");
        let file = BufWriter::with_capacity(1 << 18, create(&working)?);
        let (working, path) = (Working(Some(working)), path.to_owned());
        let rows = shard.then(Vec::new);
        Ok(Self { path, working, file, digest: Sha256::new(), bytes: 0, lines: 0, rows })
    }

    fn write(&mut self, row: u32, line: &[u8]) -> Result<(), OutputError> {
        self.file.write_all(line).map_err(OutputError::io(&self.path, "write"))?;
        self.digest.update(line);
        self.bytes += line.len() as u64;
        self.lines += 1;
        if let Some(rows) = &mut self.rows {
            rows.push(row);
        }
        Ok(())
    }

    /// On the disk.
    fn close(self) -> Result<Closed, OutputError> {
        let Self { path, working, file, digest, bytes, lines, rows } = self;
        let file = file.into_inner().map_err(|e| OutputError::io(&path, "write")(e.into_error()))?;
        file.sync_all().map_err(OutputError::io(&path, "write"))?;
        let record = FileRecord {
            file: file_name(&path),
            bytes,
            sha256: hex(&digest.finalize()),
            lines,
            rows: rows.map(row_list::encode),
        };
        Ok(Closed { path, working, record })
    }
}

/// A file that is complete under its working name.
struct Closed {
    path: PathBuf,
    working: Working,
    record: FileRecord,
}

impl Closed {
    /// After it has its name.
    fn keep(mut self) -> (PathBuf, FileRecord) {
        self.working.0 = None;
        (self.path, self.record)
    }
}

/// A name that is removed when it is dropped.
struct Working(Option<PathBuf>);

impl std::ops::Deref for Working {
    type Target = Path;

    fn deref(&self) -> &Path {
        self.0.as_deref().unwrap_or(Path::new(""))
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // A leftover is replaced by the next attempt.
            let _ = fs::remove_file(path);
        }
    }
}

/// Bytes as hex digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        // Writing into a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
