//! How many threads compute: by default one for each physical performance core that this process may use,
//! never more than the processors that it may use.
//!
//! Decoding waits for memory and prefill fills the vector units: a second thread on a core adds nothing, and
//! a slow core makes the fast ones wait at the end of each phase.

use std::collections::BTreeSet;

/// Of the largest capacity, what a core has that is worth a thread: the middle cores of an ARM chip, not the
/// little ones.
const FAST: f64 = 0.5;

/// Physical performance cores inside the affinity mask, at most as many as the cgroup's quota allows; at
/// least 1.
pub fn default() -> usize {
    let allowed = processors();
    let read = |path: &str| std::fs::read_to_string(path).ok();
    cores(&read).map_or(allowed, |n| n.clamp(1, allowed))
}

/// The threads that run where `wanted` were asked for, `None` being [`default`]: at most one for each
/// processor that this process may use. The threads of a step wait for each other, so a thread that waits
/// for a processor holds up all of them: 64 threads on 2 processors are six to nine times slower than 2.
pub fn usable(wanted: Option<usize>) -> usize {
    wanted.map_or_else(default, |wanted| wanted.clamp(1, processors()))
}

/// Processors that this process may use, by affinity mask and quota.
fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Physical performance cores inside the affinity mask; `None` where `/proc` does not say. `read` gives a
/// file's text.
fn cores(read: &dyn Fn(&str) -> Option<String>) -> Option<usize> {
    let status = read("/proc/self/status")?;
    let mut allowed = list(status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?)?;
    // x86 hybrids name their performance cores.
    let fast = read("/sys/devices/cpu_core/cpus").and_then(|text| list(&text)).unwrap_or_default();
    if !allowed.is_disjoint(&fast) {
        allowed.retain(|cpu| fast.contains(cpu));
    }
    let cpu = |cpu: usize, file: &str| read(&format!("/sys/devices/system/cpu/cpu{cpu}/{file}"));
    let capacity = |n: usize| cpu(n, "cpu_capacity")?.trim().parse::<f64>().ok();
    let most = allowed.iter().filter_map(|&n| capacity(n)).fold(0.0, f64::max);
    allowed.retain(|&n| capacity(n).is_none_or(|c| c >= FAST * most));
    // A core is known by the first of its threads.
    let core = |n: usize| {
        let siblings = cpu(n, "topology/thread_siblings_list").and_then(|text| list(&text));
        siblings.and_then(|s| s.first().copied()).unwrap_or(n)
    };
    Some(allowed.into_iter().map(core).collect::<BTreeSet<_>>().len())
}

/// `0-3,8` as numbers; `None` when it is nothing like it.
fn list(text: &str) -> Option<BTreeSet<usize>> {
    let mut all = BTreeSet::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.trim().parse::<usize>().ok()?, last.trim().parse::<usize>().ok()?);
        // More than Linux has anywhere.
        if last >= 1 << 16 {
            return None;
        }
        all.extend(first..=last);
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn count(allowed: &str, files: &[(&str, &str)]) -> Option<usize> {
        let mut tree: BTreeMap<String, String> =
            files.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        tree.insert("/proc/self/status".into(), format!("Name:\tx\nCpus_allowed_list:\t{allowed}\n"));
        cores(&|path| tree.get(path).cloned())
    }

    fn siblings(pairs: &[(usize, &'static str)]) -> Vec<(String, &'static str)> {
        let path = |n| format!("/sys/devices/system/cpu/cpu{n}/topology/thread_siblings_list");
        pairs.iter().map(|&(n, s)| (path(n), s)).collect()
    }

    fn with(
        files: &[(String, &'static str)],
        allowed: &str,
        more: &[(&'static str, &'static str)],
    ) -> Option<usize> {
        let mut all: Vec<(&str, &str)> = files.iter().map(|(k, v)| (k.as_str(), *v)).collect();
        all.extend_from_slice(more);
        count(allowed, &all)
    }

    #[test]
    fn threads_of_a_core_count_once_and_only_allowed_ones() {
        let smt = siblings(&[
            (0, "0,4\n"),
            (1, "1,5\n"),
            (2, "2,6"),
            (3, "3,7"),
            (4, "0,4"),
            (5, "1,5"),
            (6, "2,6"),
            (7, "3,7"),
        ]);
        assert_eq!(with(&smt, "0-7", &[]), Some(4));
        assert_eq!(with(&smt, "4-5,7", &[]), Some(3));
        assert_eq!(with(&smt, "0,4", &[]), Some(1));
    }

    #[test]
    fn efficiency_cores_are_left_out_unless_there_is_nothing_else() {
        let hybrid = siblings(&[(0, "0-1"), (1, "0-1"), (2, "2-3"), (3, "2-3"), (4, "4"), (5, "5")]);
        let core = [("/sys/devices/cpu_core/cpus", "0-3\n")];
        assert_eq!(with(&hybrid, "0-5", &core), Some(2));
        assert_eq!(with(&hybrid, "4-5", &core), Some(2));
    }

    #[test]
    fn little_cores_are_left_out() {
        let capacity = |n| format!("/sys/devices/system/cpu/cpu{n}/cpu_capacity");
        let board: Vec<(String, &'static str)> =
            [(0, "414\n"), (1, "414\n"), (2, "1024\n"), (3, "800\n")].map(|(n, c)| (capacity(n), c)).to_vec();
        assert_eq!(with(&board, "0-3", &[]), Some(2));
        assert_eq!(with(&board, "0-1", &[]), Some(2));
    }

    #[test]
    fn a_processor_gets_at_most_one_thread() {
        assert_eq!(usable(None), default());
        assert_eq!(usable(Some(1)), 1);
        assert_eq!(usable(Some(1000)), processors());
        assert_eq!(usable(Some(0)), 1);
    }

    #[test]
    fn without_topology_every_processor_counts_and_nonsense_is_no_list() {
        assert_eq!(count("0-3,8", &[]), Some(5));
        assert_eq!(count("x", &[]), None);
        assert_eq!(count("0-99999999", &[]), None);
        assert_eq!(cores(&|_| None), None);
        assert!(default() >= 1);
    }
}
