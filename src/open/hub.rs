//! Models by name in the local Hugging Face cache.

use super::error::Error;
use huozi_quant::gguf::split::without_later_parts;
use huozi_quant::hub::{self, CacheEnv};
use std::fs;
use std::path::{Path, PathBuf};

/// Folders below a snapshot that are searched: some models keep each type in a folder of its own.
const DEPTH: usize = 2;

/// The folder of the local Hugging Face cache; `None` where the environment does not say where it is.
pub fn hub_folder() -> Option<PathBuf> {
    CacheEnv::from_process().dir()
}

/// The name of a model that `text` can be: `ORG/NAME`, `NAME` or `models--ORG--NAME`. The name of a GGUF file
/// is none.
pub(super) fn model_name(text: &Path) -> Option<PathBuf> {
    if text.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf")) {
        return None;
    }
    let name = match text.to_str()?.strip_prefix("models--") {
        Some(folder) => PathBuf::from(folder.replacen("--", "/", 1)),
        None => text.to_owned(),
    };
    hub::folder_name(&name).map(|_| name)
}

/// The one GGUF file of the model `name`.
pub(super) fn resolve(name: &Path, env: &CacheEnv) -> Result<PathBuf, Error> {
    let snapshot = hub::find(name, env)?;
    let mut files = files(&snapshot, DEPTH);
    let is_gguf = |path: &PathBuf| path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf"));
    let is_checkpoint = files.iter().any(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name == "config.json" || name.ends_with(".safetensors") || name.starts_with("pytorch_model")
    });
    files.retain(is_gguf);
    files.sort();
    let mut files = without_later_parts(files);
    let name = name.display().to_string();
    match files.len() {
        1 => Ok(files.remove(0)),
        0 if is_checkpoint => Err(Error::Checkpoint { name }),
        0 => Err(Error::NoModel { name, snapshot }),
        _ => Err(Error::SeveralFiles { name, files }),
    }
}

/// The files in `folder` and in folders up to `depth` below it. A link to a file that is gone is none.
fn files(folder: &Path, depth: usize) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
        if path.is_file() {
            found.push(path);
        } else if depth > 0 && path.is_dir() && !path.is_symlink() {
            found.append(&mut files(&path, depth - 1));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cache in which `org/name` has a snapshot with these files.
    fn cache(files: &[&str]) -> (tempfile::TempDir, CacheEnv) {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("models--org--name");
        let snapshot = model.join("snapshots/abc");
        fs::create_dir_all(model.join("refs")).unwrap();
        fs::create_dir_all(&snapshot).unwrap();
        fs::write(model.join("refs/main"), "abc").unwrap();
        for file in files {
            let path = snapshot.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let env = CacheEnv { hf_hub_cache: Some(folder.path().into()), ..CacheEnv::default() };
        (folder, env)
    }

    #[test]
    fn the_only_gguf_file_of_a_snapshot_is_taken() {
        let split = ["a-00002-of-00002.gguf", "a-00001-of-00002.gguf"];
        for files in [&["m.gguf", "README.md"][..], &["config.json", "q4/M.GGUF"], &split] {
            let (_folder, env) = cache(files);
            let name = model_name(Path::new("models--org--name")).unwrap();
            let found = resolve(&name, &env).unwrap();
            assert!(found.is_file() && found.extension().unwrap().eq_ignore_ascii_case("gguf"), "{found:?}");
            assert_eq!(resolve(Path::new("org/name"), &env).unwrap(), found);
        }
    }

    #[test]
    fn what_is_no_single_gguf_file_is_told_with_the_remedy() {
        let refused = |files: &[&str]| {
            let (_folder, env) = cache(files);
            resolve(Path::new("org/name"), &env).unwrap_err().to_string()
        };
        let several = refused(&["b.gguf", "a.gguf"]);
        assert!(
            several.contains("2 GGUF files") && several.find("a.gguf") < several.find("b.gguf"),
            "{several}"
        );
        let checkpoint = refused(&["config.json", "model.safetensors"]);
        assert!(checkpoint.ends_with("huozi-convert org/name -t q4_k_m -o name-q4_k_m.gguf"), "{checkpoint}");
        assert!(refused(&["README.md"]).contains("holds no GGUF file"));
        let (_folder, env) = cache(&[]);
        let missing = resolve(Path::new("other/name"), &env).unwrap_err().to_string();
        assert!(missing.contains("nothing is downloaded") && missing.contains("org/name"), "{missing}");
    }

    #[test]
    fn paths_are_no_names() {
        for path in ["model.gguf", "a/model.gguf", "/a/b", "./a", "a/b/c", "a b", "../a"] {
            assert_eq!(model_name(Path::new(path)), None, "{path}");
        }
        assert_eq!(model_name(Path::new("org/name-GGUF")), Some("org/name-GGUF".into()));
    }
}
