//! Where a model comes from.

use super::error::Error;
use super::hub;
use huozi_quant::bloom::synth::RandomModel;
use huozi_quant::gguf::Reader;
use huozi_quant::hub::CacheEnv;
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

/// The file that `path` stands for: itself, or where there is no such path but it can be the name of a model,
/// the GGUF file of that model in the local Hugging Face cache.
///
/// # Errors
/// The path is a folder; the cache does not have the model, has several GGUF files of it or only a
/// checkpoint. A path that does not exist and can be no name is given back as it is: opening it says what is
/// wrong.
pub fn locate(path: &Path) -> Result<PathBuf, Error> {
    if path.is_dir() {
        return Err(Error::Folder { path: path.to_owned() });
    }
    match hub::model_name(path) {
        Some(name) if path.symlink_metadata().is_err() => hub::resolve(&name, &CacheEnv::from_process()),
        _ => Ok(path.to_owned()),
    }
}
