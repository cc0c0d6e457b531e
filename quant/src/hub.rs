//! The local Hugging Face cache: `ORG/NAME` -> the folder of a snapshot. It is looked up; nothing is ever
//! downloaded.
//!
//! In: a name and what the environment says about the place of the cache. Out: a folder. What lies in the
//! folder is the business of the caller: the converter reads checkpoints there, the runtime GGUF files.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// The longest `refs/main` that is read, in bytes: it holds a hash of 40 hex digits.
const MAX_REF_BYTES: u64 = 4096;
/// Characters of a name from outside that go into a message.
const SHOWN_CHARS: usize = 80;

/// What the environment says about the place of the Hugging Face cache. An empty value counts as unset.
#[derive(Clone, Debug, Default)]
pub struct CacheEnv {
    /// `HF_HUB_CACHE`, or the older `HUGGINGFACE_HUB_CACHE`: the cache itself.
    pub hf_hub_cache: Option<PathBuf>,
    /// `HF_HOME`: the cache is `hub` below it.
    pub hf_home: Option<PathBuf>,
    /// `XDG_CACHE_HOME`: the cache is `huggingface/hub` below it.
    pub xdg_cache_home: Option<PathBuf>,
    /// `HOME`: the cache is `.cache/huggingface/hub` below it.
    pub home: Option<PathBuf>,
}

impl CacheEnv {
    /// The variables of this process.
    pub fn from_process() -> Self {
        let get = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        Self {
            hf_hub_cache: get("HF_HUB_CACHE").or_else(|| get("HUGGINGFACE_HUB_CACHE")),
            hf_home: get("HF_HOME"),
            xdg_cache_home: get("XDG_CACHE_HOME"),
            home: get("HOME"),
        }
    }

    /// The folder of the cache: the first of the four that is set.
    pub fn dir(&self) -> Option<PathBuf> {
        let set = |path: &Option<PathBuf>| path.clone().filter(|p| !p.as_os_str().is_empty());
        // The Python library expands a leading ~ in these, which a shell leaves alone inside quotes.
        let expand = |path: PathBuf| match (path.strip_prefix("~"), set(&self.home)) {
            (Ok(rest), Some(home)) => home.join(rest),
            _ => path,
        };
        set(&self.hf_hub_cache)
            .map(expand)
            .or_else(|| Some(expand(set(&self.hf_home)?).join("hub")))
            .or_else(|| Some(expand(set(&self.xdg_cache_home)?).join("huggingface/hub")))
            .or_else(|| Some(set(&self.home)?.join(".cache/huggingface/hub")))
    }
}

/// Why a name leads to no snapshot.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It is not in the cache.
    #[error("{what}; searched: {}", list(looked))]
    NotFound {
        /// What is missing.
        what: String,
        /// Every place that was tried, in order.
        looked: Vec<PathBuf>,
    },
    /// `refs/main` does not hold the name of a snapshot.
    #[error("{}: expected the name of a snapshot, found {found}", path.display())]
    BadRef {
        /// The file.
        path: PathBuf,
        /// What it holds, without control characters.
        found: String,
    },
    /// The operating system refused.
    #[error("{}: cannot read: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// The folder of the snapshot of `name` (`ORG/NAME` or `NAME`), which the caller has found to be no path: the
/// one that `refs/main` names, or the only one there is.
///
/// # Errors
/// No such model, snapshot or cache; more than one snapshot and no `refs/main`.
pub fn find(name: &Path, env: &CacheEnv) -> Result<PathBuf, Error> {
    let missing = |what: String, looked: Vec<PathBuf>| Err(Error::NotFound { what, looked });
    let shown_name = shown(&name.display().to_string());
    let Some(folder) = folder_name(name) else {
        return missing(format!("{shown_name} does not exist"), vec![name.into()]);
    };
    let Some(cache) = env.dir() else {
        let what =
            format!("{shown_name} does not exist, and no Hugging Face cache is known (HOME is not set)");
        return missing(what, vec![name.into()]);
    };
    let model = cache.join(folder);
    if !model.is_dir() {
        let mut what = format!(
            "{shown_name} is neither a path nor in the local Hugging Face cache (nothing is downloaded)"
        );
        let named = same_name(name, &cache);
        if !named.is_empty() {
            what.push_str(&format!("; the cache has {}", named.join(", ")));
        }
        return missing(what, vec![name.into(), model]);
    }
    let snapshots = model.join("snapshots");
    let main = model.join("refs/main");
    match read_ref(&main)? {
        Some(hash) if is_plain(&hash) => {
            let dir = snapshots.join(&hash);
            if dir.is_dir() {
                return Ok(dir);
            }
            let what = format!("the cache's snapshot of {shown_name} that refs/main names is missing");
            missing(what, vec![main, dir])
        }
        Some(hash) => Err(Error::BadRef { path: main, found: shown(&hash) }),
        None => {
            let mut found: Vec<_> = fs::read_dir(&snapshots)
                .into_iter()
                .flatten()
                .flatten()
                .map(|e| e.path())
                .filter(|p| p.is_dir())
                .collect();
            match (found.pop(), found.len()) {
                (Some(only), 0) => Ok(only),
                (None, _) => {
                    let what = format!("the local Hugging Face cache has no snapshot of {shown_name}");
                    missing(what, vec![main, snapshots])
                }
                (Some(_), others) => {
                    let n = others + 1;
                    let what = format!(
                        "the local Hugging Face cache has {n} snapshots of {shown_name} and no refs/main; \
                         give the path of one"
                    );
                    missing(what, vec![main, snapshots])
                }
            }
        }
    }
}

/// The folder of a model in the cache: `ORG/NAME` -> `models--ORG--NAME`; `None` for text that cannot be the
/// name of a model.
pub fn folder_name(name: &Path) -> Option<String> {
    let name = name.to_str()?;
    let parts: Vec<_> = name.split('/').collect();
    let good = |part: &&str| {
        !part.is_empty()
            && !part.starts_with('.')
            && !part.contains("--")
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    (parts.len() <= 2 && parts.iter().all(good)).then(|| format!("models--{}", parts.join("--")))
}

/// The cached models `ORG/NAME` whose last part is that of `name`, upper and lower case alike.
fn same_name(name: &Path, cache: &Path) -> Vec<String> {
    let Some(last) = name.file_name().and_then(|last| last.to_str()) else { return Vec::new() };
    let mut found: Vec<String> = fs::read_dir(cache)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some(entry.file_name().to_str()?.strip_prefix("models--")?.replace("--", "/")))
        .filter(|repo| repo.rsplit('/').next().is_some_and(|part| part.eq_ignore_ascii_case(last)))
        .map(|repo| shown(&repo))
        .collect();
    found.sort();
    found
}

/// The content of `refs/main` without white space at its ends; `None` without such a file.
fn read_ref(path: &Path) -> Result<Option<String>, Error> {
    let failed = |source| Error::Io { path: path.to_owned(), source };
    match fs::metadata(path) {
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(failed(source)),
        // Opening a pipe could block for ever.
        Ok(meta) if !meta.is_file() || meta.len() > MAX_REF_BYTES => {
            let found = if meta.is_file() { format!("{} bytes", meta.len()) } else { "no file".to_owned() };
            return Err(Error::BadRef { path: path.to_owned(), found });
        }
        Ok(_) => {}
    }
    let bytes = fs::read(path).map_err(failed)?;
    Ok(Some(String::from_utf8_lossy(&bytes).trim().to_owned()))
}

/// Whether `name` is the plain name of a file: no separators, no `..`.
fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 255
        && name != "."
        && name != ".."
        && !name.chars().any(|c| c == '/' || c == '\\' || c == ':' || c.is_control())
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// Text from outside as it may stand in a message: at most 80 characters, no control characters (they could
/// drive the reader's terminal).
fn shown(text: &str) -> String {
    let mut out: String = text.chars().take(SHOWN_CHARS).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN_CHARS).is_some() {
        out.push('…');
    }
    out
}
