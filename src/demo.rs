//! The embedded small model: a checkpoint in the program, and the GGUF file made of it.
//!
//! The one room that sees the converter. In: nothing. Out: the path of a model file.

pub use huozi_convert::pipeline::{Progress, Report};
pub use huozi_convert::{Error as ConvertError, Kind};

use huozi_convert::pipeline::{self, Options, Source};
use huozi_convert::plan::Preset;
use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::{fs, io};

/// The files of the checkpoint as Hugging Face has them.
const FILES: [(&str, &[u8]); 4] = [
    ("config.json", include_bytes!("demo/config.json")),
    ("model.safetensors", include_bytes!("demo/model.safetensors")),
    ("tokenizer.json", include_bytes!("demo/tokenizer.json")),
    ("tokenizer_config.json", include_bytes!("demo/tokenizer_config.json")),
];

/// Type of the file: half the size of the checkpoint, and no difference that can be noticed.
const PRESET: Preset = Preset::Q8_0;

/// Why there is no demo model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The conversion failed.
    #[error("the built-in model could not be converted: {0}")]
    Convert(#[from] ConvertError),
    /// There is no place for the file.
    #[error("no place for the demo model: {0}")]
    Place(#[source] io::Error),
}

/// A demo model on disk.
#[derive(Debug)]
pub struct Model {
    /// The file.
    pub path: PathBuf,
    /// What was done; `None` when the file was there already.
    pub report: Option<Report>,
    /// Why it is not in the cache folder but in a temporary one, which goes away with this value.
    pub not_cached: Option<String>,
    _temporary: Option<tempfile::TempDir>,
}

/// The checkpoint as a source of the converter.
pub fn source() -> Source {
    Source::Memory(FILES.iter().map(|(name, bytes)| ((*name).to_owned(), Cow::Borrowed(*bytes))).collect())
}

/// The model file in `cache`, converted if none is there that is `usable`; in a temporary folder if `cache` cannot be
/// written.
///
/// # Errors
/// The conversion fails, or there is no temporary folder either.
pub fn prepare(
    cache: Option<&Path>,
    usable: &dyn Fn(&Path) -> bool,
    progress: &dyn Progress,
    cancel: &AtomicBool,
) -> Result<Model, Error> {
    let why = match cache {
        None => "there is no home folder".to_owned(),
        Some(cache) => match in_cache(cache, usable, progress, cancel) {
            Ok(model) => return Ok(model),
            Err(Error::Convert(error)) if error.kind() == Kind::Interrupted => {
                return Err(error.into());
            }
            Err(error) => format!("{}: {error}", cache.display()),
        },
    };
    let folder = tempfile::Builder::new().prefix("huozi-demo-").tempdir().map_err(Error::Place)?;
    let path = folder.path().join(file_name());
    let report = convert(&path, progress, cancel)?;
    Ok(Model { path, report: Some(report), not_cached: Some(why), _temporary: Some(folder) })
}

fn in_cache(
    cache: &Path,
    usable: &dyn Fn(&Path) -> bool,
    progress: &dyn Progress,
    cancel: &AtomicBool,
) -> Result<Model, Error> {
    let path = cache.join(file_name());
    let done = |report| Model { path: path.clone(), report, not_cached: None, _temporary: None };
    if usable(&path) {
        return Ok(done(None));
    }
    fs::create_dir_all(cache).map_err(Error::Place)?;
    // Under a name of its own first: another process may be doing the same.
    let own = tempfile::Builder::new().prefix(".huozi-demo-").tempdir_in(cache).map_err(Error::Place)?;
    let fresh = own.path().join(file_name());
    let report = convert(&fresh, progress, cancel)?;
    fs::rename(&fresh, &path).map_err(Error::Place)?;
    Ok(done(Some(report)))
}

fn convert(path: &Path, progress: &dyn Progress, cancel: &AtomicBool) -> Result<Report, Error> {
    let options = Options { name: Some("huozi-nano".into()), ..Options::new(source(), PRESET, path) };
    Ok(pipeline::run(&options, progress, cancel)?)
}

/// Changes with the program's version and with every byte of the checkpoint.
fn file_name() -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for (_, bytes) in FILES {
        for word in bytes.chunks(8) {
            let mut le = [0; 8];
            le[..word.len()].copy_from_slice(word);
            hash = (hash ^ u64::from_le_bytes(le)).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29);
        }
    }
    format!("huozi-nano-{}-{:08x}-{}.gguf", env!("CARGO_PKG_VERSION"), (hash >> 32) as u32, PRESET.name())
}
