//! Memory: how much there is, how much a model needs.

use crate::engine::{EngineKind, KvType, LOGIT_ROWS, MICRO_BATCH};
use huozi_quant::bloom::shape::{MemoryForecast, Shape};
use std::fs;
use std::path::Path;

/// The memory that a model of `shape` in a file of `file_bytes` needs on `engine` with a KV cache of type
/// `kv` for `positions`. Of an engine that this build does not have, the scratch memory is not known and
/// counts as 0.
pub fn forecast(
    shape: &Shape,
    file_bytes: u64,
    engine: EngineKind,
    kv: KvType,
    positions: usize,
) -> MemoryForecast {
    let (columns, rows) = match engine {
        EngineKind::Native => (MICRO_BATCH, LOGIT_ROWS),
        // llama.cpp keeps the logits of a whole batch twice: in the graph and for its caller.
        #[cfg(feature = "ggml")]
        EngineKind::Ggml => {
            use crate::engine::ggml;
            (ggml::MICRO_BATCH, 2 * ggml::logit_rows(shape.n_vocab))
        }
        #[cfg(not(feature = "ggml"))]
        EngineKind::Ggml => (0, 0),
    };
    shape.forecast(file_bytes, positions, kv, columns, rows)
}

/// The memory of two models that are open at the same time.
pub(super) fn both([a, b]: [MemoryForecast; 2]) -> MemoryForecast {
    MemoryForecast {
        file: a.file.saturating_add(b.file),
        kv: a.kv.saturating_add(b.kv),
        scratch: a.scratch.saturating_add(b.scratch),
        total: a.total.saturating_add(b.total),
    }
}

/// Memory of this machine, or of the container that this process runs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// All bytes.
    pub total: u64,
    /// Bytes available without swapping, page cache that can be dropped included.
    pub available: u64,
    /// The smallest limit of a control group above this process.
    pub limit: Option<u64>,
}

impl Memory {
    /// The current figures of the operating system; `None` where it has none in `/proc`.
    pub fn now() -> Option<Self> {
        Self::read(Path::new("/"))
    }

    /// As [`Memory::now`] with `root` in place of `/`.
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
        // Inside a container the path may be the host's: then only the mounted root exists.
        while folder.starts_with(&base) {
            let number = |name: &str| fs::read_to_string(folder.join(name)).ok()?.trim().parse::<u64>().ok();
            if let Some(limit) = number(limit_file) {
                let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
                // Pages of files can be dropped, active ones as well.
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
    "{name} needs about {forecast} for a context of {positions} tokens, but only {} MiB are available; \
     a shorter context (-c), --kv-type q8 or a smaller type needs less, --no-memory-check loads it anyway",
    available >> 20
)]
pub struct NotEnoughMemory {
    /// The file.
    pub name: String,
    /// What it needs.
    pub forecast: MemoryForecast,
    /// Positions of the KV cache.
    pub positions: usize,
    /// Bytes available.
    pub available: u64,
}

/// Checks that a model fits into `memory`.
///
/// # Errors
/// [`NotEnoughMemory`] when it does not fit; never when `memory` is unknown.
pub fn check_memory(
    name: &str,
    forecast: MemoryForecast,
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

/// Bytes of memory that this process holds, the mapped pages of its model among them; `None` where `/proc`
/// does not say.
pub fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
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
        let forecast = Shape::named("bloom-7b1").unwrap().forecast(4 << 30, 2048, KvType::F16, 256, 16);
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
    fn two_models_need_what_both_need() {
        let shape = Shape::named("bloom-560m").expect("known");
        let one = |file| forecast(&shape, file, EngineKind::Native, KvType::F32, 256);
        let sum = both([one(1000), one(500)]);
        assert_eq!((sum.file, sum.kv), (1500, 2 * one(0).kv));
        assert_eq!(sum.total, one(1000).total + one(500).total);
        assert_eq!(both([one(u64::MAX), one(1)]).total, u64::MAX);
    }
}
