//! The finished shards of a batch to one output.

use super::error::OutputError;
use super::finish::{Files, hex};
use super::manifest::{FileRecord, Manifest, RunIdentity, RunRecord, file_name, manifest_path};
use super::partial::{Partial, for_each_line, head, read_line, seek};
use super::row_list;
use super::shard::id_hash;
use super::start::{bytes, refuse_content, refuse_foreign};
use super::summary::BatchSummary;
use huozi_quant::message::counted;
use huozi_quant::output;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

/// What to merge.
#[derive(Clone, Debug, Default)]
pub struct MergeOptions {
    /// The outputs of all shards, in any order. Manifests among them are passed over: each is found beside
    /// its output.
    pub parts: Vec<PathBuf>,
    /// The output.
    pub out: PathBuf,
    /// Error lines go here, not beside the results.
    pub errors: Option<PathBuf>,
    /// Replace whatever is there.
    pub restart: bool,
}

/// A finished shard.
struct Part {
    path: PathBuf,
    manifest: Manifest,
    identity: RunIdentity,
    record: RunRecord,
}

impl Part {
    /// Its results and its file of errors.
    fn files(&self) -> impl Iterator<Item = (PathBuf, &FileRecord)> {
        let results = (self.path.clone(), &self.record.results);
        let errors = self.record.errors.as_ref().map(|record| {
            // Of a name only the last part: it lies beside the results.
            let name = Path::new(&record.file).file_name().unwrap_or_default();
            (self.path.with_file_name(name), record)
        });
        [Some(results), errors].into_iter().flatten()
    }

    /// Numbers of the manifest are used only as far as files bear them out.
    fn check_lengths(&self) -> Result<(), OutputError> {
        for (path, record) in self.files() {
            let found = bytes(&path)?;
            if found != Some(record.bytes) || record.lines as u64 > record.bytes {
                let found = found.map_or("it is missing".to_owned(), |n| format!("it has {n} bytes"));
                let (path, bytes) = (path.display(), record.bytes);
                return Err(OutputError::Merge(format!("{path}: {found}, its manifest says {bytes}")));
            }
        }
        Ok(())
    }
}

/// Where a line is: the file times 2^40, plus the place in it, times 2, plus 1 for an error line.
const PLACE_BITS: u32 = 41;
const NONE: u64 = u64::MAX;
/// Files that are open at the same time.
const MAX_OPEN: usize = 128;

/// Proves that the parts are all shards of one run and that together they have every row once, and writes
/// their lines in the order of the input, as one process would have.
///
/// # Errors
/// Parts that differ in more than the shard, missing, doubled, unfinished or changed ones; an output of
/// another run; what the system refuses.
pub fn merge(options: &MergeOptions) -> Result<BatchSummary, OutputError> {
    let parts = parts(&options.parts)?;
    let whole = RunIdentity { shard: None, ..check_whole(&parts)? };
    let rows = whole.input.rows;
    let (table, files) = read_parts(&parts, rows)?;
    let target = |path: &Path| -> Result<PathBuf, OutputError> {
        let path = output::file(path)?.path;
        let same =
            |other: &PathBuf| path.canonicalize().ok().is_some_and(|p| other.canonicalize().ok() == Some(p));
        if files.iter().any(same) { Err(OutputError::Source { path }) } else { Ok(path) }
    };
    let out = target(&options.out)?;
    let errors = options.errors.as_deref().map(target).transpose()?;
    if errors.as_ref() == Some(&out) {
        return Err(OutputError::Same { path: out });
    }
    let mut partial = Partial::open(&out)?;
    if options.restart {
        partial.clear()?;
    } else {
        check_out(&out, errors.as_deref(), &whole, &partial)?;
    }
    Manifest::new(&whole, errors.as_deref()).write(&out)?;
    let mut new = Files::create(&out, errors.as_deref(), false)?;
    let (mut readers, mut line) = (Readers::new(&files), Vec::new());
    for (row, &slot) in (0..).zip(&table) {
        readers.read((slot >> PLACE_BITS) as usize, slot >> 1 & ((1 << (PLACE_BITS - 1)) - 1), &mut line)?;
        new.write(row, slot & 1 == 1, &line)?;
    }
    new.publish(&whole, partial)
}

/// What is there may be replaced only by the same.
fn check_out(
    out: &Path,
    errors: Option<&Path>,
    whole: &RunIdentity,
    partial: &Partial,
) -> Result<(), OutputError> {
    let Some(manifest) = Manifest::read(out)? else { return refuse_foreign(out, errors, partial) };
    let differences = manifest.differences(whole);
    if !differences.is_empty() && bytes(out)?.is_some() {
        return Err(OutputError::Different { out: out.to_owned(), differences });
    }
    if !partial.is_empty() {
        let why = "holds the results of an unfinished run";
        return Err(OutputError::Foreign { path: partial.path().to_owned(), why });
    }
    match errors {
        Some(path) if manifest.errors != Some(file_name(path)) => {
            refuse_content(path, "exists and is no file of errors of this run")
        }
        _ => Ok(()),
    }
}

/// The manifests of the parts.
fn parts(paths: &[PathBuf]) -> Result<Vec<Part>, OutputError> {
    let is = |path: &Path, suffix: &str| path.as_os_str().as_encoded_bytes().ends_with(suffix.as_bytes());
    let mut parts = Vec::new();
    for path in paths {
        if is(path, ".manifest.json") {
            continue;
        }
        let refused = |why: &str| OutputError::Merge(format!("{}: {why}", path.display()));
        if is(path, ".partial") {
            return Err(refused("its shard is unfinished: run it to its end first"));
        }
        let manifest = Manifest::read(path)?.ok_or_else(|| {
            let beside = manifest_path(path);
            refused(&format!("no part of a batch: {} is missing", beside.display()))
        })?;
        let identity = manifest.identity(path)?;
        if identity.shard.is_none_or(|shard| shard.index >= shard.count) {
            return Err(refused("it has no share of the rows: only outputs of --shard can be merged"));
        }
        let record = manifest.result.clone();
        let record = record.ok_or_else(|| refused("its shard is unfinished: run it to its end first"))?;
        parts.push(Part { path: path.clone(), manifest, identity, record });
    }
    if parts.is_empty() {
        return Err(OutputError::Merge("no parts are named: nothing can be merged".to_owned()));
    }
    Ok(parts)
}

/// What all parts were run as; all shards are there, once, with as many rows as the input.
fn check_whole(parts: &[Part]) -> Result<RunIdentity, OutputError> {
    let refused = |why: String| Err(OutputError::Merge(why));
    let first = &parts[0];
    let count = first.identity.shard.map_or(0, |shard| shard.count);
    let mut of = Vec::new();
    for part in parts {
        part.check_lengths()?;
        let (path, at) = (part.path.display(), first.path.display());
        let Some(shard) = part.identity.shard else { continue };
        let mut differences = part.manifest.differences_but_shard(&first.identity);
        if shard.count != count {
            differences.insert(0, format!("number of shards: was {}, is {count}", shard.count));
        }
        if !differences.is_empty() {
            let differences = differences.join("; ");
            return refused(format!("{path} (was) and {at} (is) are of different runs: {differences}"));
        }
        of.push((shard.index, &part.path));
    }
    of.sort_unstable();
    if let Some([(index, a), (_, b)]) = of.array_windows().find(|[a, b]| a.0 == b.0) {
        let (a, b) = (a.display(), b.display());
        return refused(format!("shard {index}/{count} is named twice: {a} and {b}"));
    }
    if of.len() < count as usize {
        let missing = (0..count).filter(|index| of.binary_search_by_key(index, |(i, _)| *i).is_err());
        let named: Vec<_> = missing.take(10).map(|index| format!("{index}/{count}")).collect();
        let more = count as usize - of.len() - named.len();
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        return refused(format!(
            "{} of {count} shards missing: {}{more}; merge needs the finished output of every shard",
            count as usize - of.len(),
            named.join(", ")
        ));
    }
    let rows = first.identity.input.rows;
    let lines = parts.iter().fold(0_usize, |sum, part| {
        let errors = part.record.errors.as_ref().map_or(0, |file| file.lines);
        sum.saturating_add(part.record.results.lines).saturating_add(errors)
    });
    if lines != rows {
        let input = counted(rows, "row");
        return refused(format!("the parts have {}, the input has {input}", counted(lines, "line")));
    }
    Ok(first.identity.clone())
}

/// Reads all parts once. Gives where the line of each row is, and the files.
fn read_parts(parts: &[Part], rows: usize) -> Result<(Vec<u64>, Vec<PathBuf>), OutputError> {
    // Reserved as lines are found: numbers in a manifest are not trusted.
    let (mut table, mut files, mut hashes) = (Vec::new(), Vec::new(), Vec::new());
    for part in parts {
        for (path, record) in part.files() {
            let lines = Lines { path: &path, record, part, file: files.len() as u64, rows };
            lines.read(&mut table, &mut hashes)?;
            files.push(path);
        }
    }
    hashes.sort_unstable();
    if hashes.array_windows().any(|[a, b]| a == b) {
        return Err(OutputError::Merge("two lines of the parts have the same custom_id".to_owned()));
    }
    // As many lines as rows, and no row twice: none is missing.
    Ok((table, files))
}

/// A file of a part.
struct Lines<'a> {
    path: &'a Path,
    record: &'a FileRecord,
    part: &'a Part,
    /// Its number among all files.
    file: u64,
    /// Rows of the input.
    rows: usize,
}

impl Lines<'_> {
    /// Adds where each line is, and the hash of its id.
    fn read(&self, table: &mut Vec<u64>, hashes: &mut Vec<u64>) -> Result<(), OutputError> {
        let Self { path, record, part, file, rows } = *self;
        let refused = |why: &str| OutputError::Merge(format!("{}: {why}", path.display()));
        let changed = || refused("its content is not what its manifest says: it was changed or cut");
        let list = record.rows.as_deref().and_then(|text| row_list::decode(text, record.lines, rows));
        let list = list.ok_or_else(|| refused("its manifest does not say which rows its lines are"))?;
        let reader = File::open(path).map_err(OutputError::io(path, "open"))?;
        let (mut digest, mut begin, mut list) = (Sha256::new(), 0_u64, list.into_iter());
        for_each_line(path, BufReader::with_capacity(1 << 18, reader), |number, line| {
            let head = head(path, number, line)?;
            let row = list.next().ok_or_else(changed)? as usize;
            if part.identity.shard.is_none_or(|shard| !shard.holds(&head.id)) {
                let why = "its custom_id belongs to another shard".to_owned();
                return Err(OutputError::Line { path: path.to_owned(), line: number, why });
            }
            if table.len() <= row {
                table.resize(row + 1, NONE);
            }
            if table[row] != NONE {
                let why = format!("row {row} of the input (from 0) has a line already");
                return Err(OutputError::Line { path: path.to_owned(), line: number, why });
            }
            table[row] = file << PLACE_BITS | begin << 1 | u64::from(head.failed);
            hashes.push(id_hash(&head.id));
            digest.update(line);
            begin += line.len() as u64;
            Ok(())
        })?;
        if list.next().is_some() || hex(&digest.finalize()) != record.sha256 {
            return Err(changed());
        }
        Ok(())
    }
}

/// Reads lines of many files, of which few are open at the same time.
struct Readers<'a> {
    files: &'a [PathBuf],
    /// With the place that each is at.
    open: Vec<Option<(BufReader<File>, u64)>>,
    opened: usize,
}

impl<'a> Readers<'a> {
    fn new(files: &'a [PathBuf]) -> Self {
        Self { files, open: files.iter().map(|_| None).collect(), opened: 0 }
    }

    /// The line that begins at `begin`.
    fn read(&mut self, file: usize, begin: u64, line: &mut Vec<u8>) -> Result<(), OutputError> {
        let path = &self.files[file];
        if self.open[file].is_none() {
            if self.opened == MAX_OPEN {
                self.open.fill_with(|| None);
                self.opened = 0;
            }
            let reader = File::open(path).map_err(OutputError::io(path, "open"))?;
            self.open[file] = Some((BufReader::with_capacity(1 << 16, reader), 0));
            self.opened += 1;
        }
        let Some((reader, at)) = &mut self.open[file] else { return Ok(()) };
        seek(reader, at, begin).map_err(OutputError::io(path, "read"))?;
        read_line(path, reader, 0, line)?;
        *at += line.len() as u64;
        Ok(())
    }
}
