//! What a file or folder is that was given as a model, before any reader takes it: one diagnosis for the
//! converter, the runtime and the list of models.
//!
//! In: a path. Out: where a model in the local Hugging Face cache lies ([`hub`]), or a [`Diagnosis`]: what
//! the file is, why it cannot be used, what to do. A file of the right kind that is damaged inside is left to
//! the reader of its format, whose errors name the place.
//!
//! Little is read: the first bytes of a file, the directory of an archive, the header of safetensors, a
//! folder's names, its `config.json`.

mod diagnosis;
mod file;
mod folder;
pub mod hub;
mod start;
mod tensors;
mod text;

pub use diagnosis::{
    Diagnosis, FileKind, ForeignFormat, QuantMethod, SpecialFile, TrainingFormat, UnfinishedSign,
};
pub use tensors::diagnose as diagnose_tensors;

use std::io;
use std::path::Path;

use file::{Usable, inspect};
use text::convert_command;

/// Why `path`, a file or folder, is no GGUF file of a version that is read; `None` for one that is.
/// A checkpoint is told with the command that converts it.
///
/// # Errors
/// The operating system refuses, e.g. as nothing is there.
pub fn diagnose_model(path: &Path) -> io::Result<Option<Diagnosis>> {
    if path.is_dir() {
        let ggufs = folder::ggufs(path);
        return Ok(Some(match ggufs.is_empty() {
            true => folder::diagnose(path)?,
            false => Diagnosis::new(path, FileKind::GgufFiles { files: ggufs }),
        }));
    }
    diagnose_file(path)
}

/// Why the folder `dir` is no checkpoint that the converter reads; `None` for one that is, as far as names
/// and the beginnings of its files show.
///
/// # Errors
/// It cannot be listed.
pub fn diagnose_checkpoint(dir: &Path) -> io::Result<Option<Diagnosis>> {
    folder::diagnose(dir).map(|diagnosis| Some(diagnosis).filter(|diagnosis| !diagnosis.is_checkpoint()))
}

/// Why the file `path`, whose format its reader knows, was not downloaded, or is another one than it should
/// be; `None` where that is left to the reader.
///
/// # Errors
/// The operating system refuses.
pub fn diagnose_text(path: &Path) -> io::Result<Option<Diagnosis>> {
    Ok(inspect(path)?.err().map(|kind| Diagnosis::new(path, kind)))
}

fn diagnose_file(path: &Path) -> io::Result<Option<Diagnosis>> {
    let kind = match inspect(path)? {
        Ok(Usable::Gguf) => return Ok(None),
        // What keeps the file from being converted is told for the whole checkpoint.
        Err(FileKind::Unmerged { .. } | FileKind::Ungathered { .. } | FileKind::Quantised { .. })
        | Ok(Usable::Weights) => return Ok(Some(part(path))),
        Ok(Usable::Json) if !folder::is_part(path) => FileKind::OtherFormat { what: ForeignFormat::Json },
        Ok(Usable::Json) => return Ok(Some(part(path))),
        Err(FileKind::DanglingLink { link, .. }) => {
            FileKind::DanglingLink { link, model: path.parent().and_then(hub::model_of) }
        }
        Ok(Usable::Other(kind)) | Err(kind) => kind,
    };
    Ok(Some(Diagnosis::new(path, kind)))
}

/// One file of a checkpoint: what is to be said about its folder.
fn part(path: &Path) -> Diagnosis {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let convert = match folder::diagnose(folder) {
        Ok(diagnosis) if diagnosis.is_checkpoint() => Some(convert_command(folder)),
        // That of an adapter, of another model, of a download that did not finish.
        Ok(diagnosis) if !says_nothing(&diagnosis.kind) => return diagnosis,
        _ => None,
    };
    Diagnosis::new(path, FileKind::Part { folder: folder.to_owned(), convert })
}

/// Whether what a folder is says nothing about one file in it.
fn says_nothing(kind: &FileKind) -> bool {
    use FileKind::{Below, Cache, GgufFiles, NoWeights, OtherFramework, Unfinished};
    matches!(
        kind,
        Below { .. }
            | Cache { .. }
            | GgufFiles { .. }
            | NoWeights { .. }
            | OtherFramework { .. }
            | Unfinished { .. }
    )
}
