//! Models on this machine: where their files lie, what they need, and what memory there is.
//!
//! In: folders, and what the operating system says. Out: sizes and forecasts. No model is run here.

pub use huozi_quant::gguf::{Error as FileError, Place, Rule};

use crate::engine::{KvType, LOGIT_ROWS, MICRO_BATCH};
use huozi_quant::bloom::shape::{Forecast, Shape};
use huozi_quant::gguf::Reader;
use huozi_quant::map::How;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// The folder in environment variable `key` if it is absolute, else `fallback` below the home folder.
pub fn xdg(key: &str, fallback: &str) -> Option<PathBuf> {
    // The XDG rules say that a relative path is to be ignored.
    let set = std::env::var_os(key).map(PathBuf::from).filter(|path| path.is_absolute());
    set.or_else(|| {
        let home = std::env::var_os("HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        home.map(|home| home.join(fallback))
    })
}

/// Memory of this machine, or of the container this process lives in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Bytes there are.
    pub total: u64,
    /// Bytes that can be had without swapping; page cache that can be dropped counts.
    pub available: u64,
    /// The smallest limit of a control group above this process.
    pub limit: Option<u64>,
}

impl Memory {
    /// What the operating system says; `None` where it does not say it in `/proc`.
    pub fn now() -> Option<Self> {
        Self::read(Path::new("/"))
    }

    /// As [`Memory::now`] with another folder for `/`.
    fn read(root: &Path) -> Option<Self> {
        let info = fs::read_to_string(root.join("proc/meminfo")).ok()?;
        let field = |name: &str| {
            let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
            kib.checked_mul(1024)
        };
        let (total, available) = (field("MemTotal")?, field("MemAvailable")?);
        let mut memory = Self { total, available, limit: None };
        for (limit, used) in cgroup_limits(root) {
            // Without a limit version 1 reports a number near 2^63.
            if limit < total {
                memory.limit = Some(memory.limit.map_or(limit, |l| l.min(limit)));
                memory.available = memory.available.min(limit.saturating_sub(used));
            }
        }
        Some(memory)
    }
}

/// `(limit, in use and not reclaimable)` of every control group above this process that has a limit.
fn cgroup_limits(root: &Path) -> Vec<(u64, u64)> {
    let Ok(groups) = fs::read_to_string(root.join("proc/self/cgroup")) else { return Vec::new() };
    let mut found = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(group)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let (base, limit_file, used_file, cache_keys) = if controllers.is_empty() {
            ("sys/fs/cgroup", "memory.max", "memory.current", ["inactive_file ", "active_file "])
        } else if controllers.split(',').any(|c| c == "memory") {
            (
                "sys/fs/cgroup/memory",
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                ["total_inactive_file ", "total_active_file "],
            )
        } else {
            continue;
        };
        let base = root.join(base);
        let mut folder = base.join(group.trim_start_matches('/'));
        // Inside a container the path may be the host's: then only the mounted root is there.
        while folder.starts_with(&base) {
            let number = |name: &str| fs::read_to_string(folder.join(name)).ok()?.trim().parse::<u64>().ok();
            if let Some(limit) = number(limit_file) {
                let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
                // Pages of files can be dropped, those that were used twice too.
                let field =
                    |key: &str| stat.lines().find_map(|l| l.strip_prefix(key)?.trim().parse::<u64>().ok());
                let cache: u64 = cache_keys.iter().filter_map(|key| field(key)).sum();
                let used = number(used_file).unwrap_or(0).saturating_sub(cache);
                found.push((limit, used));
            }
            if !folder.pop() {
                break;
            }
        }
    }
    found
}

/// A model needs more memory than there is.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "{name} needs about {forecast} for a context of {positions} tokens, {} MiB are available; a shorter context (-c), \
     --kv-type q8 or a smaller type would help, --no-memory-check loads it all the same",
    available >> 20
)]
pub struct NotEnoughMemory {
    /// The file.
    pub name: String,
    /// What it needs.
    pub forecast: Forecast,
    /// Positions of the KV cache.
    pub positions: usize,
    /// Bytes there are.
    pub available: u64,
}

/// Checks that a model fits into `memory`.
///
/// # Errors
/// [`NotEnoughMemory`] when it does not; never when `memory` is unknown.
pub fn check_memory(
    name: &str,
    forecast: Forecast,
    positions: usize,
    memory: Option<Memory>,
) -> Result<(), NotEnoughMemory> {
    match memory {
        Some(Memory { available, .. }) if forecast.total > available => {
            Err(NotEnoughMemory { name: name.to_owned(), forecast, positions, available })
        }
        _ => Ok(()),
    }
}

/// Bytes of memory that this process holds, the mapped pages of its model among them; `None` where `/proc` does not say.
pub fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// A model file.
#[derive(Debug)]
pub struct Found {
    /// Where it lies.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// Its shape, or why it is no model for us.
    pub shape: Result<Shape, FileError>,
}

impl Found {
    /// Looks at one file; reads its header only.
    pub fn look(path: &Path) -> Self {
        let bytes = fs::metadata(path).map_or(0, |m| m.len());
        let shape = Reader::open(path, How::Map).and_then(|reader| Shape::from_meta(reader.meta()));
        Self { path: path.to_owned(), bytes, shape }
    }

    /// Bytes of memory that it needs for a conversation as long as it was trained with, or why it is no model for us.
    ///
    /// # Errors
    /// As [`Found::shape`].
    pub fn needs(&self) -> Result<u64, &FileError> {
        let shape = self.shape.as_ref()?;
        Ok(shape.forecast(self.bytes, shape.n_ctx_train, KvType::F16, MICRO_BATCH, LOGIT_ROWS).total)
    }

    /// Why it is no model for us, without its path: whoever shows this shows the path in front of it.
    pub fn why(&self) -> Option<String> {
        let error = self.shape.as_ref().err()?.to_string();
        Some(error.replacen(&format!("{}: ", self.path.display()), "", 1))
    }
}

/// Every model file there is: `first`, `HUOZI_MODEL`, those of [`folders`], and those in the local Hugging Face cache
/// (`HF_HUB_CACHE`, `HF_HOME`, `~/.cache/huggingface`).
pub fn everywhere(first: &[PathBuf]) -> Vec<PathBuf> {
    let chosen = std::env::var_os("HUOZI_MODEL").filter(|v| !v.is_empty()).map(PathBuf::from);
    let mut found: Vec<PathBuf> = first.iter().cloned().chain(chosen).filter(|path| path.is_file()).collect();
    found.extend(files(&folders()));
    let hub = std::env::var_os("HF_HUB_CACHE").map(PathBuf::from);
    let hub = hub.or_else(|| std::env::var_os("HF_HOME").map(|home| PathBuf::from(home).join("hub")));
    let hub = hub.or_else(|| xdg("XDG_CACHE_HOME", ".cache").map(|base| base.join("huggingface/hub")));
    let below =
        |folder: PathBuf| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    for model in hub.into_iter().flat_map(below) {
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

/// The `.gguf` files directly in `folders`, by name.
pub fn files(folders: &[PathBuf]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in folders {
        let Ok(entries) = fs::read_dir(folder) else { continue };
        let mut here: Vec<PathBuf> = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf")) && path.is_file())
            .collect();
        here.sort();
        found.append(&mut here);
    }
    found
}

/// Bytes looked at by [`fingerprint`] in each of its places.
const WINDOW: u64 = 4096;
/// Places in the weights that [`fingerprint`] looks at.
const WINDOWS: u64 = 256;

/// A short name for the content of a model file, to recognise it again: 16 hex digits from its length, its header and
/// 256 windows of its weights. It tells models apart; it does not protect from anyone.
///
/// # Errors
/// What the operating system says.
pub fn fingerprint(path: &Path, header_bytes: u64) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut hash = Fnv::new();
    hash.update(&length.to_le_bytes());
    let mut buffer = Vec::new();
    (&mut file).take(header_bytes.min(length)).read_to_end(&mut buffer)?;
    hash.update(&buffer);
    let weights = length.saturating_sub(header_bytes);
    for k in 0..WINDOWS {
        file.seek(SeekFrom::Start(header_bytes.min(length) + weights / WINDOWS * k))?;
        buffer.clear();
        (&mut file).take(WINDOW).read_to_end(&mut buffer)?;
        hash.update(&buffer);
    }
    Ok(format!("{:016x}", hash.0))
}

/// FNV-1a, 64 bits.
struct Fnv(u64);

impl Fnv {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn update(&mut self, bytes: &[u8]) {
        for &b in bytes {
            self.0 = (self.0 ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    const MEMINFO: &str = "MemTotal:       16000 kB\nMemFree:         100 kB\nMemAvailable:   12000 kB\n";

    #[test]
    fn memory_without_a_limit() {
        let root = root(&[("proc/meminfo", MEMINFO)]);
        let memory = Memory::read(root.path()).unwrap();
        assert_eq!(memory, Memory { total: 16000 << 10, available: 12000 << 10, limit: None });
    }

    #[test]
    fn the_tightest_group_counts() {
        let root = root(&[
            ("proc/meminfo", MEMINFO),
            ("proc/self/cgroup", "0::/a/b\n"),
            ("sys/fs/cgroup/a/memory.max", "4096000\n"),
            ("sys/fs/cgroup/a/memory.current", "3096000\n"),
            ("sys/fs/cgroup/a/memory.stat", "anon 1\ninactive_file 66000\nactive_file 30000\n"),
            ("sys/fs/cgroup/a/b/memory.max", "max\n"),
        ]);
        let memory = Memory::read(root.path()).unwrap();
        assert_eq!(memory.limit, Some(4_096_000));
        assert_eq!(memory.available, 1_096_000);
    }

    #[test]
    fn version_1_without_a_limit_has_none() {
        let root = root(&[
            ("proc/meminfo", MEMINFO),
            ("proc/self/cgroup", "7:cpu:/x\n5:hugetlb,memory:/host/path\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ]);
        assert_eq!(Memory::read(root.path()).unwrap().limit, None);
    }

    #[test]
    fn too_little_memory_is_said() {
        let forecast =
            Shape::named("bloom-7b1").unwrap().forecast(4 << 30, 2048, crate::engine::KvType::F16, 256, 16);
        let memory = |available| Some(Memory { total: available, available, limit: None });
        assert!(check_memory("m", forecast, 2048, memory(6 << 30)).is_ok());
        assert!(check_memory("m", forecast, 2048, None).is_ok());
        let error = check_memory("m.gguf", forecast, 2048, memory(1 << 30)).unwrap_err().to_string();
        assert!(
            error.starts_with("m.gguf needs about") && error.contains("1024 MiB are available"),
            "{error}"
        );
        assert!(!error.contains('\n') && !error.contains("  "), "{error}");
    }

    #[test]
    fn fingerprints_tell_files_apart() {
        let root = root(&[("a", "header weights"), ("b", "header weighty"), ("c", "Header weights")]);
        let of = |name: &str| fingerprint(&root.path().join(name), 7).unwrap();
        assert_eq!(of("a"), of("a"));
        assert_ne!(of("a"), of("b"));
        assert_ne!(of("a"), of("c"));
    }
}
