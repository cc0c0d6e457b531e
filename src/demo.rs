//! The embedded small model: a checkpoint in the program, and the GGUF file made of it.
//!
//! The only module that sees the converter. In: nothing. Out: the path of a model file.

pub use huozi_convert::{Error as ConvertError, ErrorKind, Progress, Report};

use huozi_convert::pipeline;
use huozi_convert::plan::Preset;
use huozi_convert::{Options, Source};
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
pub struct DemoModel {
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

/// The model file in `cache`, converted if none is there that is whole; in a temporary folder if `cache`
/// cannot be written.
///
/// # Errors
/// The conversion fails, or there is no temporary folder either.
pub fn prepare(
    cache: Option<&Path>,
    progress: &dyn Progress,
    cancel: &AtomicBool,
) -> Result<DemoModel, Error> {
    let why = match cache {
        None => "there is no home folder".to_owned(),
        Some(cache) => match in_cache(cache, progress, cancel) {
            Ok(model) => return Ok(model),
            Err(Error::Convert(error)) if error.kind() == ErrorKind::Interrupted => {
                return Err(error.into());
            }
            Err(error) => format!("{}: {error}", cache.display()),
        },
    };
    let folder = tempfile::Builder::new().prefix("huozi-demo-").tempdir().map_err(Error::Place)?;
    let path = folder.path().join(format!("{}.gguf", stem()));
    let report = convert(&path, progress, cancel)?;
    Ok(DemoModel { path, report: Some(report), not_cached: Some(why), _temporary: Some(folder) })
}

fn in_cache(cache: &Path, progress: &dyn Progress, cancel: &AtomicBool) -> Result<DemoModel, Error> {
    let done = |path, report| DemoModel { path, report, not_cached: None, _temporary: None };
    if let Some(path) = kept(cache) {
        return Ok(done(path, None));
    }
    fs::create_dir_all(cache).map_err(Error::Place)?;
    // Under a name of its own first: another process may be doing the same.
    let own = tempfile::Builder::new().prefix(".huozi-demo-").tempdir_in(cache).map_err(Error::Place)?;
    let fresh = own.path().join("model.gguf");
    let report = convert(&fresh, progress, cancel)?;
    let path = cache.join(file_name(&fs::read(&fresh).map_err(Error::Place)?));
    fs::rename(&fresh, &path).map_err(Error::Place)?;
    Ok(done(path, Some(report)))
}

/// The file of an earlier run. Its name says what its bytes were: one that was damaged since is none.
fn kept(cache: &Path) -> Option<PathBuf> {
    let stem = stem();
    let whole = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).filter(|name| name.starts_with(&stem));
        name.is_some_and(|name| fs::read(path).is_ok_and(|bytes| name == file_name(&bytes)))
    };
    fs::read_dir(cache).ok()?.flatten().map(|entry| entry.path()).find(whole)
}

fn convert(path: &Path, progress: &dyn Progress, cancel: &AtomicBool) -> Result<Report, Error> {
    let options = Options { name: Some("huozi-nano".into()), ..Options::new(source(), PRESET, path) };
    Ok(pipeline::run(&options, progress, cancel)?)
}

/// Changes with the program's version and with every byte of the checkpoint.
fn stem() -> String {
    let hash = FILES.iter().fold(HASH_OF_NOTHING, |hash, (_, bytes)| add_to_hash(hash, bytes));
    format!("huozi-nano-{}-{:08x}-{}", env!("CARGO_PKG_VERSION"), (hash >> 32) as u32, PRESET.name())
}

/// The name of a model file of these bytes.
fn file_name(bytes: &[u8]) -> String {
    format!("{}-{:016x}.gguf", stem(), add_to_hash(HASH_OF_NOTHING, bytes))
}

const HASH_OF_NOTHING: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a by words, turned so that high bits come down too. Finds damage, not malice: who can write into the
/// cache could change the name too.
fn add_to_hash(hash: u64, bytes: &[u8]) -> u64 {
    bytes.chunks(8).fold(hash, |hash, word| {
        let mut le = [0; 8];
        le[..word.len()].copy_from_slice(word);
        (hash ^ u64::from_le_bytes(le)).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29)
    })
}
