//! The GGUF files of a model in the local Hugging Face cache.

use super::error::Error;
use huozi_quant::files::hub::{CacheEnv, Snapshot};
use huozi_quant::files::{Diagnosis, FileKind, diagnose_model};
use huozi_quant::gguf::split::without_later_parts;
use std::fs;
use std::path::{Path, PathBuf};

/// Folders below a snapshot that are searched: some models keep each type in a folder of its own.
const DEPTH: usize = 2;

/// The folders of the local Hugging Face cache; none where the environment does not say where it is.
pub fn hub_folders() -> Vec<PathBuf> {
    CacheEnv::from_process().dirs()
}

/// The one GGUF file of a snapshot; of a split one its first part.
pub(super) fn gguf_file(snapshot: &Snapshot) -> Result<PathBuf, Error> {
    let mut files = gguf_files(&snapshot.dir, DEPTH);
    files.sort();
    // A link whose file is gone is a download that did not finish: no choice as long as there is another.
    let (here, gone): (Vec<_>, Vec<_>) =
        without_later_parts(files).into_iter().partition(|path| path.is_file());
    match (here.as_slice(), gone.first()) {
        ([one], _) => Ok(one.clone()),
        ([], Some(gone)) => {
            let link = gone.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let kind = FileKind::DanglingLink { link, model: Some(snapshot.model.clone()) };
            Err(Diagnosis::new(&snapshot.dir, kind).into())
        }
        ([], None) => Err(without_gguf(snapshot)),
        _ => Err(Error::SeveralFiles { name: snapshot.model.clone(), files: here }),
    }
}

/// Why a snapshot without GGUF files is no model. The converter takes a checkpoint by its name.
fn without_gguf(snapshot: &Snapshot) -> Error {
    match diagnose_model(&snapshot.dir) {
        Ok(Some(diagnosis)) if diagnosis.is_checkpoint() => {
            Diagnosis::new(Path::new(&snapshot.model), *diagnosis.kind).into()
        }
        Ok(Some(diagnosis)) => diagnosis.into(),
        // A folder is no GGUF file.
        Ok(None) => Diagnosis::new(&snapshot.dir, FileKind::NoWeights { files: Vec::new() }).into(),
        Err(source) => Error::Io { path: snapshot.dir.clone(), source },
    }
}

/// The GGUF files in `folder` and in folders up to `depth` below it, links without their file among them.
fn gguf_files(folder: &Path, depth: usize) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            if depth > 0 && !path.is_symlink() {
                found.append(&mut gguf_files(&path, depth - 1));
            }
        } else if path.extension().is_some_and(|end| end.eq_ignore_ascii_case("gguf")) {
            found.push(path);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A snapshot of `org/name` with these files.
    fn snapshot(files: &[&str]) -> (tempfile::TempDir, Snapshot) {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("models--org--name/snapshots/abc");
        fs::create_dir_all(&dir).unwrap();
        for file in files {
            let path = dir.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "GGUF\x03\0\0\0").unwrap();
        }
        (folder, Snapshot { dir, model: "org/name".into(), others: 0 })
    }

    #[test]
    fn the_only_gguf_file_of_a_snapshot_is_taken() {
        for files in [
            &["m.gguf", "README.md"][..],
            &["config.json", "q4/M.GGUF"],
            &["m-00002-of-00002.gguf", "m-00001-of-00002.gguf"],
        ] {
            let (_folder, snapshot) = snapshot(files);
            let found = gguf_file(&snapshot).unwrap();
            assert!(found.is_file() && found.extension().unwrap().eq_ignore_ascii_case("gguf"), "{found:?}");
            assert!(!found.to_string_lossy().contains("00002-of"), "{found:?}");
        }
    }

    #[test]
    fn what_is_no_single_gguf_file_is_told_with_the_remedy() {
        let refused = |files: &[&str]| {
            let (_folder, snapshot) = snapshot(files);
            gguf_file(&snapshot).unwrap_err().to_string()
        };
        let several = refused(&["b.gguf", "a.gguf"]);
        assert!(
            several.contains("2 GGUF files") && several.find("a.gguf") < several.find("b.gguf"),
            "{several}"
        );
        assert!(refused(&["README.md"]).contains("a folder without weights, with README.md"));
        // A link to a blob that is not there.
        let (_folder, snapshot) = snapshot(&[]);
        std::os::unix::fs::symlink("../../blobs/0", snapshot.dir.join("m.gguf")).unwrap();
        let gone = gguf_file(&snapshot).unwrap_err().to_string();
        assert!(gone.contains("m.gguf links to a file that does not exist"), "{gone}");
        assert!(gone.contains("hf download org/name"), "{gone}");
    }
}
