//! What to do with the files that are there when a batch starts.

use super::error::OutputError;
use super::manifest::{Manifest, RunIdentity, RunRecord, beside, file_name, manifest_path};
use super::partial::{Partial, for_each_line, head};
use super::summary::BatchSummary;
use huozi_quant::output;
use std::fs::{self, File};
use std::io::BufReader;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where results go and what becomes of files that are there.
#[derive(Clone, Debug, Default)]
pub struct FileOptions {
    /// `OUT`. A shard adds [`.I-of-N`](super::Shard::path) to its name and to that of `errors`.
    pub out: PathBuf,
    /// Error lines go here, not beside the results.
    pub errors: Option<PathBuf>,
    /// The order of the results.
    pub order: ResultOrder,
    /// Start anew, whatever is there.
    pub restart: bool,
    /// Run rows again that ended with an error.
    pub retry_errors: bool,
    /// Files that must not be replaced: the input, the model.
    pub sources: Vec<PathBuf>,
}

/// The order of the lines in a finished output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResultOrder {
    /// Of the rows in the input.
    #[default]
    Input,
    /// In which they were done.
    Done,
}

/// The row of the input that has an id, an index below
/// [`InputIdentity::rows`](super::InputIdentity::rows).
pub type FindRow<'f> =
    &'f mut dyn FnMut(&str) -> Result<Option<usize>, Box<dyn std::error::Error + Send + Sync>>;

/// Where the line of each row is.
pub(super) struct RowTable(Vec<u64>);

/// The mark of a row without a line. Others: where the line begins, times 2, plus 1 for an error line.
const NONE: u64 = u64::MAX;

impl RowTable {
    fn new(rows: usize) -> Self {
        Self(vec![NONE; rows])
    }

    /// Number of rows, done or not.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Where the line of a row begins, and whether it is an error line.
    pub fn get(&self, row: usize) -> Option<(u64, bool)> {
        self.0.get(row).filter(|&&slot| slot != NONE).map(|slot| (slot >> 1, slot & 1 == 1))
    }

    pub fn set(&mut self, row: usize, begin: u64, failed: bool) {
        self.0[row] = begin << 1 | u64::from(failed);
    }
}

/// The files of a run that goes on.
pub(super) struct Begun {
    pub out: PathBuf,
    pub errors: Option<PathBuf>,
    pub partial: Partial,
    pub table: RowTable,
}

/// What the files that are there ask for.
pub(super) enum Start {
    /// Nothing is left to do.
    Complete(BatchSummary),
    /// Rows are to be run.
    Run(Begun),
}

/// Looks at the files that are there, and writes the manifest. `find`: the row with an id.
pub(super) fn start(
    options: &FileOptions,
    identity: &RunIdentity,
    find: FindRow<'_>,
) -> Result<Start, OutputError> {
    let (out, errors) = targets(options, identity)?;
    let mut partial = Partial::open(&out)?;
    let manifest = if options.restart { None } else { Manifest::read(&out)? };
    let run =
        |partial, table| Ok(Start::Run(Begun { out: out.clone(), errors: errors.clone(), partial, table }));
    let fresh = Manifest::new(identity, errors.as_deref());
    let rows = identity.input.rows;
    let Some(manifest) = manifest else {
        if options.restart {
            partial.clear()?;
        } else {
            refuse_foreign(&out, errors.as_deref(), &partial)?;
        }
        fresh.write(&out)?;
        return run(partial, RowTable::new(rows));
    };
    let differences = manifest.differences(identity);
    let out_bytes = bytes(&out)?;
    if let Some(result) = &manifest.result
        && (out_bytes.is_some() || !partial.is_empty())
    {
        if !differences.is_empty() {
            return Err(OutputError::Different { out, differences });
        }
        match out_bytes {
            Some(bytes) if bytes == result.results.bytes => {
                if result.failed == 0 || !options.retry_errors {
                    complete_errors(&manifest, result, &out, errors.as_deref())?;
                    partial.clear()?;
                    let summary = BatchSummary {
                        rows: result.rows,
                        failed: result.failed,
                        already: true,
                        errors: manifest.errors.as_ref().map(|name| out.with_file_name(name)),
                        out,
                    };
                    return Ok(Start::Complete(summary));
                }
                // In place: until the manifest says that the run goes on, OUT is what counts.
                partial.clear()?;
                keep_results(&out, &mut partial)?;
            }
            Some(_) => {
                let why = "was changed since the batch wrote it";
                return Err(OutputError::Foreign { path: out, why });
            }
            // The process ended before the file was removed, and OUT is gone since.
            None => {}
        }
    } else if manifest.result.is_none() && !differences.is_empty() {
        return Err(OutputError::Different { out, differences });
    }
    if let Some(path) = &errors
        && manifest.errors != Some(file_name(path))
    {
        refuse_content(path, "exists and is no file of errors of this run")?;
    }
    let table = take_up(&mut partial, rows, find)?;
    partial.sync()?;
    fresh.write(&out)?;
    run(partial, table)
}

/// A complete run is one whose file of errors is there as it was written, where this run asks for it.
fn complete_errors(
    manifest: &Manifest,
    result: &RunRecord,
    out: &Path,
    errors: Option<&Path>,
) -> Result<(), OutputError> {
    let asked = errors.map(file_name);
    if asked.is_some() && asked != manifest.errors {
        let before = manifest.errors.as_ref().map_or("among the results", |name| name.as_str());
        let differences = vec![format!("errors: {before} then, {} now", asked.unwrap_or_default())];
        return Err(OutputError::Different { out: out.to_owned(), differences });
    }
    let Some(record) = &result.errors else { return Ok(()) };
    let path = match errors {
        Some(path) => path.to_owned(),
        None => out.with_file_name(&record.file),
    };
    match bytes(&path)? {
        Some(bytes) if bytes == record.bytes => Ok(()),
        Some(_) => Err(OutputError::Foreign { path, why: "was changed since the batch wrote it" }),
        // An empty one says nothing that is lost.
        None if record.bytes == 0 => Ok(()),
        None => Err(OutputError::ErrorsGone { path, out: out.to_owned() }),
    }
}

/// The files that results and errors go to.
fn targets(options: &FileOptions, identity: &RunIdentity) -> Result<(PathBuf, Option<PathBuf>), OutputError> {
    let named = |path: &Path| match identity.shard {
        Some(shard) => shard.path(path),
        None => path.to_owned(),
    };
    let sources: Vec<_> = options.sources.iter().filter_map(|path| inode(path)).collect();
    let target = |path: &Path| {
        let target = output::file(&named(path))?.path;
        match inode(&target) {
            Some(own) if sources.contains(&own) => Err(OutputError::Source { path: target }),
            _ => Ok(target),
        }
    };
    let out = target(&options.out)?;
    let errors = options.errors.as_deref().map(target).transpose()?;
    // A folder that is missing is told before rows run.
    let place = |path: &Path| {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = fs::canonicalize(folder.unwrap_or(Path::new(".")));
        folder.map(|folder| folder.join(file_name(path))).map_err(OutputError::io(path, "create"))
    };
    let beside_them: Vec<PathBuf> = std::iter::once(&out).chain(&errors).flat_map(|path| own(path)).collect();
    if let Some(path) = beside_them.iter().find(|&path| inode(path).is_some_and(|own| sources.contains(&own)))
    {
        return Err(OutputError::Source { path: path.clone() });
    }
    if let Some(errors) = &errors {
        let (errors_at, mut taken) = (place(errors)?, vec![place(&out)?]);
        for path in own(&out) {
            taken.push(place(&path)?);
        }
        if fs::symlink_metadata(manifest_path(errors)).is_ok() {
            return Err(OutputError::OtherOutput { path: errors.clone() });
        }
        let same = inode(errors).is_some_and(|errors| inode(&out) == Some(errors));
        let beside_errors = own(&errors_at);
        if same || taken.contains(&errors_at) || beside_errors.contains(&taken[0]) {
            return Err(OutputError::Same { path: out });
        }
    }
    Ok((out, errors))
}

/// The files that a run writes beside one of its outputs.
fn own(path: &Path) -> [PathBuf; 3] {
    [".partial", ".manifest.json", ".finishing"].map(|end| beside(path, end))
}

/// What tells a file from all others.
fn inode(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

/// Its length; `None` where there is no file.
pub(super) fn bytes(path: &Path) -> Result<Option<u64>, OutputError> {
    Ok(output::file(path)?.metadata.map(|meta| meta.len()))
}

/// Without a manifest, files with content are not ours.
pub(super) fn refuse_foreign(
    out: &Path,
    errors: Option<&Path>,
    partial: &Partial,
) -> Result<(), OutputError> {
    if !partial.is_empty() {
        let why = "holds something, but the manifest that says of which run is missing";
        return Err(OutputError::Foreign { path: partial.path().to_owned(), why });
    }
    for path in [Some(out), errors].into_iter().flatten() {
        let why = "exists, and no manifest says that a batch wrote it";
        refuse_content(path, why)?;
        refuse_content(&beside(path, ".finishing"), why)?;
    }
    Ok(())
}

pub(super) fn refuse_content(path: &Path, why: &'static str) -> Result<(), OutputError> {
    match bytes(path)? {
        None | Some(0) => Ok(()),
        Some(_) => Err(OutputError::Foreign { path: path.to_owned(), why }),
    }
}

/// Copies the lines of a finished output that are no errors.
fn keep_results(out: &Path, partial: &mut Partial) -> Result<(), OutputError> {
    let file = File::open(out).map_err(OutputError::io(out, "open"))?;
    for_each_line(out, BufReader::with_capacity(1 << 18, file), |number, line| {
        if !head(out, number, line)?.failed {
            partial.append(line)?;
        }
        Ok(())
    })
}

/// The rows that have a line.
fn take_up(partial: &mut Partial, rows: usize, find: FindRow<'_>) -> Result<RowTable, OutputError> {
    let mut table = RowTable::new(rows);
    let path = partial.path().to_owned();
    partial.take_up(|number, begin, line| {
        let bad = |why: String| OutputError::Line { path: path.clone(), line: number, why };
        let head = head(&path, number, line)?;
        let id = || huozi_quant::message::shown(&head.id);
        let Some(row) = find(&head.id).map_err(OutputError::Input)?.filter(|&row| row < rows) else {
            return Err(bad(format!("the input has no row {:?}; remove this line, or use --restart", id())));
        };
        // A row that failed may have been run again: the last line counts.
        if let Some((_, false)) = table.get(row) {
            return Err(bad(format!(
                "a second result of row {:?}; remove one of them, or use --restart",
                id()
            )));
        }
        table.set(row, begin, head.failed);
        Ok(())
    })?;
    Ok(table)
}
