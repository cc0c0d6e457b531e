//! Models on this machine: their files and the memory they need.
//!
//! In: folders, and what the environment says. Out: files, their sizes and forecasts. No model is run here.

pub use crate::open::{Memory, resident_bytes, xdg};
pub use huozi_quant::files::hub::Error as HubError;
pub use huozi_quant::files::{
    Diagnosis, FileKind, ForeignFormat, QuantMethod, SpecialFile, TrainingFormat, UnfinishedSign,
};
pub use huozi_quant::gguf::{Error as FileError, Place, Rule};

use crate::engine::{EngineKind, KvType};
use crate::open::{Error, forecast, hub_folders, locate};
use huozi_quant::bloom::shape::{MemoryForecast, Shape};
use huozi_quant::gguf::Reader;
use huozi_quant::gguf::split::without_later_parts;
use huozi_quant::map::How;
use std::fs;
use std::path::{Path, PathBuf};

/// A model file.
#[derive(Debug)]
pub struct Found {
    /// Its path; of a split model that of the first part.
    pub path: PathBuf,
    /// Its length; of a split model that of all parts.
    pub bytes: u64,
    /// Its shape, or why this program cannot use it.
    pub shape: Result<Shape, Error>,
}

impl Found {
    /// Looks at one file, or at the model in the local Hugging Face cache that `path` names; reads the header
    /// only.
    pub fn look(path: &Path) -> Self {
        let read = || -> Result<(Shape, u64), Error> {
            let reader = Reader::open(&locate(path)?, How::Map)?;
            Ok((Shape::from_file(&reader)?, reader.file_bytes()))
        };
        let (shape, bytes) = match read() {
            Ok((shape, bytes)) => (Ok(shape), bytes),
            Err(why) => (Err(why), fs::metadata(path).map_or(0, |meta| meta.len())),
        };
        Self { path: path.to_owned(), bytes, shape }
    }

    /// Bytes of memory that it needs for a conversation as long as it was trained with, or why this program
    /// cannot use it.
    ///
    /// # Errors
    /// As [`Found::shape`].
    pub fn needs(&self) -> Result<u64, &Error> {
        let shape = self.shape.as_ref()?;
        Ok(self.forecast(shape, shape.n_ctx_train).total)
    }

    /// The memory that it needs with a context of `positions`, a KV cache of `f16` and the native engine.
    pub fn forecast(&self, shape: &Shape, positions: usize) -> MemoryForecast {
        forecast(shape, self.bytes, EngineKind::Native, KvType::F16, positions)
    }

    /// Why this program cannot use it, without its path: a list of models shows the path in front of it.
    pub fn why(&self) -> Option<String> {
        let error = self.shape.as_ref().err()?.to_string();
        Some(error.replacen(&format!("{}: ", self.path.display()), "", 1))
    }
}

/// All model files: `first`, `HUOZI_MODEL`, those of [`folders`], and those in the local Hugging Face caches
/// ([`CacheEnv::dirs`](huozi_quant::files::hub::CacheEnv::dirs)). What `first` and `HUOZI_MODEL` name is in
/// the list even where it is no usable model: [`Found::look`] says why.
pub fn everywhere(first: &[PathBuf]) -> Vec<PathBuf> {
    let chosen = std::env::var_os("HUOZI_MODEL").filter(|v| !v.is_empty()).map(PathBuf::from);
    let named = first.iter().cloned().chain(chosen).filter_map(|path| match locate(&path) {
        Ok(file) => file.is_file().then_some(file),
        Err(_) => Some(path),
    });
    let mut found: Vec<PathBuf> = named.collect();
    found.extend(files(&folders()));
    let below =
        |folder: PathBuf| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    for model in hub_folders().into_iter().flat_map(below) {
        let mut snapshots: Vec<PathBuf> = below(model.join("snapshots")).collect();
        snapshots.sort();
        found.extend(files(&snapshots));
    }
    let mut seen = std::collections::BTreeSet::new();
    found.retain(|path| seen.insert(fs::canonicalize(path).unwrap_or_else(|_| path.clone())));
    found
}

/// The folders that are searched for models: `$XDG_DATA_HOME/huozi` and the current one.
pub fn folders() -> Vec<PathBuf> {
    let mut folders = Vec::new();
    folders.extend(xdg("XDG_DATA_HOME", ".local/share").map(|base| base.join("huozi")));
    folders.push(PathBuf::from("."));
    folders
}

/// The `.gguf` files directly in `folders`, by name. A split model is one of them, under the name of its
/// first part. A link whose file is gone is one of them: its download did not finish.
pub fn files(folders: &[PathBuf]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in folders {
        let Ok(entries) = fs::read_dir(folder) else { continue };
        let mut here: Vec<PathBuf> = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf")) && !path.is_dir())
            .collect();
        here.sort();
        found.append(&mut without_later_parts(here));
    }
    found
}
