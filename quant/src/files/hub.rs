//! The local Hugging Face cache: `ORG/NAME`, or the folder of a model in it -> the folder of a snapshot. It
//! is looked up; nothing is ever downloaded.
//!
//! In: a name or path, and what the environment says about the place of the cache. Out: a folder. The caller
//! reads what lies there: the converter checkpoints, the runtime GGUF files.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::{fs, io};

use super::text::{shown, word};

/// The longest `refs/main` that is read, in bytes: it holds a hash of 40 hex digits.
const MAX_REF_BYTES: u64 = 4096;
/// How the folder of a model in the cache begins.
const MODELS: &str = "models--";

/// What the environment says about the place of the Hugging Face cache. An empty value counts as unset.
#[derive(Clone, Debug, Default)]
pub struct CacheEnv {
    /// `HF_HUB_CACHE`, or the older `HUGGINGFACE_HUB_CACHE`: the cache itself.
    pub hf_hub_cache: Option<PathBuf>,
    /// `TRANSFORMERS_CACHE`: a second cache, which transformers before version 5 wrote.
    pub transformers_cache: Option<PathBuf>,
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
        let get =
            |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(|value| expanded(&value));
        Self {
            hf_hub_cache: get("HF_HUB_CACHE").or_else(|| get("HUGGINGFACE_HUB_CACHE")),
            transformers_cache: get("TRANSFORMERS_CACHE"),
            hf_home: get("HF_HOME"),
            xdg_cache_home: get("XDG_CACHE_HOME"),
            home: get("HOME"),
        }
    }

    /// The folders of the caches, in the order in which a model is looked for: the one that the first of
    /// `HF_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME` and `HOME` gives, and `TRANSFORMERS_CACHE`.
    pub fn dirs(&self) -> Vec<PathBuf> {
        let set = |path: &Option<PathBuf>| path.clone().filter(|p| !p.as_os_str().is_empty());
        // The Python library expands a leading ~ in these, which a shell leaves alone inside quotes.
        let expand = |path: PathBuf| match (path.strip_prefix("~"), set(&self.home)) {
            (Ok(rest), Some(home)) => home.join(rest),
            _ => path,
        };
        let first = set(&self.hf_hub_cache)
            .map(expand)
            .or_else(|| Some(expand(set(&self.hf_home)?).join("hub")))
            .or_else(|| Some(expand(set(&self.xdg_cache_home)?).join("huggingface/hub")))
            .or_else(|| Some(set(&self.home)?.join(".cache/huggingface/hub")));
        let mut dirs = Vec::from_iter(first);
        dirs.extend(set(&self.transformers_cache).map(expand).filter(|second| !dirs.contains(second)));
        dirs
    }
}

/// A path in which `$NAME` and `${NAME}` stand for variables of this process, as the Python library reads it.
/// A variable that is not set stays as it is written.
fn expanded(value: &OsStr) -> PathBuf {
    let Some(mut rest) = value.to_str() else { return value.into() };
    let mut out = String::new();
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let named = match after.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            Some((name, after)) => (name, after),
            None => {
                let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                after.split_at(end.unwrap_or(after.len()))
            }
        };
        match std::env::var(named.0) {
            Ok(value) => {
                out.push_str(&value);
                rest = named.1;
            }
            Err(_) => {
                out.push('$');
                rest = after;
            }
        }
    }
    (out + rest).into()
}

/// The folder of a model's files in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The folder.
    pub dir: PathBuf,
    /// The name of the model.
    pub model: String,
    /// How many other snapshots the cache has of it.
    pub others: usize,
}

impl Snapshot {
    /// Which snapshot is read, where the cache has several.
    pub fn note(&self) -> Option<String> {
        let hash = shown(&self.dir.file_name().unwrap_or_default().to_string_lossy());
        let note = || {
            format!(
                "{}: the Hugging Face cache has {} snapshots of it; {hash} is read, which refs/main names",
                self.model,
                self.others + 1
            )
        };
        (self.others > 0).then(note)
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
    /// The model is in the cache, but not the snapshot that `refs/main` names.
    #[error(
        "the cache's snapshot of {model} that refs/main names is missing; searched: {}, {}",
        main.display(),
        dir.display()
    )]
    NoSuchSnapshot {
        /// The name of the model.
        model: String,
        /// The file that names the snapshot.
        main: PathBuf,
        /// Where the snapshot would be.
        dir: PathBuf,
    },
    /// Several snapshots of the model are in the cache, and no `refs/main` names one of them.
    #[error(
        "the local Hugging Face cache has {} snapshots of {model} and no refs/main; give the path of one: {}",
        snapshots.len(),
        list(snapshots)
    )]
    SeveralSnapshots {
        /// The name of the model.
        model: String,
        /// Their folders.
        snapshots: Vec<PathBuf>,
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

/// The snapshot that `path` stands for: that of a model in the cache, given by its name (`ORG/NAME`, `NAME`
/// or `models--ORG--NAME`, where there is no such path) or by its folder. `None` for a path that exists and
/// is another one.
///
/// # Errors
/// No such path, model, snapshot or cache; more than one snapshot and no `refs/main`.
pub fn locate(path: &Path, env: &CacheEnv) -> Result<Option<Snapshot>, Error> {
    // A link whose file is gone is a path, too.
    if path.symlink_metadata().is_err() {
        return find(path, env).map(Some);
    }
    let is_model = |dir: &Path| {
        let named =
            dir.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(MODELS));
        named && dir.join("snapshots").is_dir()
    };
    let full = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let model = match full.file_name().is_some_and(|name| name == "snapshots") {
        true => full.parent().unwrap_or(&full),
        false => &full,
    };
    if is_model(model) { snapshot(model).map(Some) } else { Ok(None) }
}

/// The snapshot of the model `name`, which is no path that exists.
fn find(name: &Path, env: &CacheEnv) -> Result<Snapshot, Error> {
    let missing = |what: String, looked: Vec<PathBuf>| Err(Error::NotFound { what, looked });
    let shown_name = shown(&name.display().to_string());
    let named = model_name(name).and_then(|repo| folder_name(&repo).map(|folder| (repo, folder)));
    let Some((repo, folder)) = named else {
        return missing(format!("{shown_name} does not exist"), vec![name.into()]);
    };
    let caches = env.dirs();
    if caches.is_empty() {
        let what =
            format!("{shown_name} does not exist, and no Hugging Face cache is known (HOME is not set)");
        return missing(what, vec![name.into()]);
    }
    let models: Vec<PathBuf> = caches.iter().map(|cache| cache.join(&folder)).collect();
    if let Some(model) = models.iter().find(|model| model.is_dir()) {
        return snapshot(model);
    }
    let mut what = format!(
        "{shown_name} is neither a path nor in the local Hugging Face cache (nothing is downloaded; \
         `hf download {}` does that)",
        word(&repo)
    );
    let named: Vec<String> = caches.iter().flat_map(|cache| same_name(&repo, cache)).collect();
    if !named.is_empty() {
        what.push_str(&format!("; the cache has {}", named.join(", ")));
    }
    missing(what, [vec![name.to_owned()], models].concat())
}

/// The snapshot of the model in the folder `model` of a cache: the one that `refs/main` names, or the only
/// one there is.
fn snapshot(model: &Path) -> Result<Snapshot, Error> {
    let name = repository(model).unwrap_or_default();
    let snapshots = model.join("snapshots");
    let entries = fs::read_dir(&snapshots).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    found.sort();
    let of = |dir: PathBuf, others: usize| Ok(Snapshot { dir, model: name.clone(), others });
    let main = model.join("refs/main");
    match read_ref(&main)? {
        Some(hash) if is_plain(&hash) => {
            let dir = snapshots.join(&hash);
            if dir.is_dir() {
                return of(dir, found.len().saturating_sub(1));
            }
            Err(Error::NoSuchSnapshot { model: name, main, dir })
        }
        Some(hash) => Err(Error::BadRef { path: main, found: shown(&hash) }),
        None => match found.as_slice() {
            [only] => of(only.clone(), 0),
            [] => {
                let what = format!(
                    "the local Hugging Face cache has no snapshot of {name}: `hf download {}` downloads one",
                    word(Path::new(&name))
                );
                Err(Error::NotFound { what, looked: vec![main, snapshots] })
            }
            _ => Err(Error::SeveralSnapshots { model: name, snapshots: found }),
        },
    }
}

/// The name of a model that `text` can be: `ORG/NAME`, `NAME` or `models--ORG--NAME`. The name of a GGUF file
/// is none.
pub fn model_name(text: &Path) -> Option<PathBuf> {
    if text.extension().is_some_and(|end| end.eq_ignore_ascii_case("gguf")) {
        return None;
    }
    let name = match text.to_str()?.strip_prefix(MODELS) {
        Some(folder) => PathBuf::from(folder.replacen("--", "/", 1)),
        None => text.to_owned(),
    };
    folder_name(&name).map(|_| name)
}

/// The folder of a model in the cache: `ORG/NAME` -> `models--ORG--NAME`; `None` for text that cannot be the
/// name of a model.
fn folder_name(name: &Path) -> Option<String> {
    let name = name.to_str()?;
    let parts: Vec<_> = name.split('/').collect();
    let good = |part: &&str| {
        !part.is_empty()
            && !part.starts_with('.')
            && !part.contains("--")
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    (parts.len() <= 2 && parts.iter().all(good)).then(|| format!("{MODELS}{}", parts.join("--")))
}

/// The name of the model whose folder in the cache is `model`.
fn repository(model: &Path) -> Option<String> {
    Some(shown(&model.file_name()?.to_str()?.strip_prefix(MODELS)?.replacen("--", "/", 1)))
}

/// The name of the model in the cache that the snapshot `dir` belongs to.
pub(super) fn model_of(dir: &Path) -> Option<String> {
    let snapshots =
        dir.parent().filter(|parent| parent.file_name().is_some_and(|name| name == "snapshots"))?;
    repository(snapshots.parent()?)
}

/// The models `ORG/NAME` in a cache.
pub(super) fn models_in(cache: &Path) -> Vec<String> {
    let entries = fs::read_dir(cache).into_iter().flatten().flatten();
    let mut found: Vec<String> = entries.filter_map(|entry| repository(&entry.path())).collect();
    found.sort();
    found
}

/// The cached models `ORG/NAME` whose last part is that of `name`, upper and lower case alike.
fn same_name(name: &Path, cache: &Path) -> Vec<String> {
    let Some(last) = name.file_name().and_then(|last| last.to_str()) else { return Vec::new() };
    let mut found = models_in(cache);
    found.retain(|repo| repo.rsplit('/').next().is_some_and(|part| part.eq_ignore_ascii_case(last)));
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
