//! Where a model comes from.

use super::error::Error;
use super::hub;
use huozi_quant::bloom::synth::RandomModel;
use huozi_quant::files::diagnose_model;
use huozi_quant::files::hub::{self as cache, CacheEnv, Snapshot};
use huozi_quant::gguf::Reader;
use std::path::{Path, PathBuf};

/// Where a model comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// The path of a GGUF file or, where no such path exists, the name of a model in the local Hugging Face
    /// cache.
    File(PathBuf),
    /// The built-in demo model.
    #[cfg(feature = "demo")]
    Demo,
    /// A GGUF in memory.
    Memory(Reader),
    /// Random weights of a shape, made in memory.
    Random(RandomModel),
}

impl PartialEq for Source {
    /// Equal sources give the same model: the same path, the demo model, the same bytes in memory, the same
    /// random weights.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File(a), Self::File(b)) => a == b,
            #[cfg(feature = "demo")]
            (Self::Demo, Self::Demo) => true,
            (Self::Memory(a), Self::Memory(b)) => std::ptr::eq(a.parts(), b.parts()),
            (Self::Random(a), Self::Random(b)) => {
                (a.shape, a.preset, a.seed, &a.name) == (b.shape, b.preset, b.seed, &b.name)
            }
            _ => false,
        }
    }
}

impl Eq for Source {}

/// The GGUF file that `path` stands for: itself, or that of the model in the local Hugging Face cache which
/// `path` names, where there is no such path, or whose folder it is.
///
/// # Errors
/// The path is another file or a folder, which is told with what to do; the cache does not have the model,
/// has several GGUF files of it or only a checkpoint. A path that does not exist and can be no name is given
/// back as it is: opening it says what is wrong.
pub fn locate(path: &Path) -> Result<PathBuf, Error> {
    if path.symlink_metadata().is_err() && cache::model_name(path).is_none() {
        return Ok(path.to_owned());
    }
    let file = match cache::locate(path, &CacheEnv::from_process())? {
        Some(snapshot) => hub::gguf_file(&snapshot)?,
        None => path.to_owned(),
    };
    match diagnose_model(&file) {
        Ok(Some(diagnosis)) => Err(diagnosis.into()),
        // What the system refuses, it refuses to the reader, too.
        Ok(None) | Err(_) => Ok(file),
    }
}

/// Which snapshot of the model `path` is read, where the Hugging Face cache has several.
pub fn snapshot_note(path: &Path) -> Option<String> {
    cache::locate(path, &CacheEnv::from_process()).ok().flatten().as_ref().and_then(Snapshot::note)
}

/// Whether `text`, which is no path that exists, can be the name of a model in the Hugging Face cache.
pub fn is_model_name(text: &Path) -> bool {
    cache::model_name(text).is_some()
}
