//! The local Hugging Face cache: `ORG/NAME` -> a snapshot directory. Looked up, never fetched.

use std::path::{Path, PathBuf};

use super::error::{Error, shown};
use super::input::is_plain;

/// What the environment says about the place of the Hugging Face cache. An empty value counts as unset.
#[derive(Clone, Debug, Default)]
pub struct CacheEnv {
    /// `HF_HUB_CACHE`: the cache itself.
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
        let get = |name| std::env::var_os(name).map(PathBuf::from);
        Self {
            hf_hub_cache: get("HF_HUB_CACHE"),
            hf_home: get("HF_HOME"),
            xdg_cache_home: get("XDG_CACHE_HOME"),
            home: get("HOME"),
        }
    }

    /// The cache directory: the first of the four that is set.
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

/// The snapshot directory of `name` (`ORG/NAME` or `NAME`), a path that does not exist.
pub(super) fn find(name: &Path, env: &CacheEnv) -> Result<PathBuf, Error> {
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
            missing(
                format!("the cache's snapshot of {shown_name} that refs/main names is not there"),
                vec![main, dir],
            )
        }
        Some(hash) => Err(Error::layout(main.display().to_string(), "the name of a snapshot", shown(&hash))),
        None => {
            let mut found: Vec<_> = std::fs::read_dir(&snapshots)
                .into_iter()
                .flatten()
                .flatten()
                .map(|e| e.path())
                .filter(|p| p.is_dir())
                .collect();
            match (found.pop(), found.len()) {
                (Some(only), 0) => Ok(only),
                (None, _) => missing(
                    format!("the local Hugging Face cache has no snapshot of {shown_name}"),
                    vec![main, snapshots],
                ),
                (Some(_), others) => missing(
                    format!(
                        "the local Hugging Face cache has {} snapshots of {shown_name} and no refs/main; give the path of one",
                        others + 1
                    ),
                    vec![main, snapshots],
                ),
            }
        }
    }
}

/// `ORG/NAME` -> `models--ORG--NAME`; `None` for what is no model's name.
fn folder_name(name: &Path) -> Option<String> {
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

/// The cached models `ORG/NAME` whose last part is that of `name`, in any case.
fn same_name(name: &Path, cache: &Path) -> Vec<String> {
    let Some(last) = name.file_name().and_then(|last| last.to_str()) else { return Vec::new() };
    let mut found: Vec<String> = std::fs::read_dir(cache)
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
    let input = match super::input::Input::open(path) {
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        input => input?,
    };
    let bytes = input.read_vec(0, input.len(), 4096, "the name of a snapshot")?;
    Ok(Some(String::from_utf8_lossy(&bytes).trim().to_owned()))
}
