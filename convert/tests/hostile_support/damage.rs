//! Seeded damage, and the time and memory it costs.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use huozi_quant::random::Random;

const MOST_TIME: Duration = Duration::from_secs(10);
const MOST_KIB: u64 = 1 << 20;

/// One to four changes of single bytes, whole words, cuts, or copies; most of them within `edge` bytes of
/// the beginning or the end, where a file says what it is.
pub fn damage(random: &mut Random, bytes: &[u8], edge: usize) -> Vec<u8> {
    let mut next = |below: usize| random.below(below as u64) as usize;
    let mut out = bytes.to_vec();
    for _ in 0..1 + next(4) {
        let near = next(out.len().clamp(1, edge));
        let at = match next(8) {
            0..=2 => near,
            3..=5 => out.len().saturating_sub(near + 1),
            _ => next(out.len().max(1)),
        };
        match next(8) {
            _ if out.is_empty() => {}
            0..=2 => out[at] = next(256) as u8,
            3 => out[at] ^= 1 << next(8),
            4 => {
                let extreme = [[0xff; 8], [0; 8], [0x7f; 8], (1u64 << 40).to_le_bytes()][next(4)];
                let n = (1 << next(4)).min(out.len() - at);
                out[at..at + n].copy_from_slice(&extreme[..n]);
            }
            5 => out.truncate(at),
            6 => {
                let n = next(16).min(out.len() - at);
                let copy = out[at..at + n].to_vec();
                let to = next(out.len());
                out.splice(to..to, copy);
            }
            _ => {
                let n = next(16).min(out.len() - at);
                out.drain(at..at + n);
            }
        }
    }
    out
}

/// Most address space the process had.
pub fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmPeak:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Cases of each kind: `HUOZI_DAMAGED`, or few enough for every run of the tests.
pub fn count() -> u64 {
    std::env::var("HUOZI_DAMAGED").map_or(300, |n| n.parse().expect("HUOZI_DAMAGED is a number"))
}

/// Watches case after case, each for 10 seconds and 1 GiB at most.
pub struct Watch {
    now: Arc<Mutex<Option<(String, Instant)>>>,
    before_kib: u64,
    pub slowest: Duration,
}

impl Watch {
    /// To be made when the first good case is done: what the process takes once is not the damage's.
    pub fn new() -> Self {
        let now: Arc<Mutex<Option<(String, Instant)>>> = Arc::default();
        let seen = now.clone();
        std::thread::spawn(move || {
            // A loop without end could not be reported otherwise.
            while Arc::strong_count(&seen) > 1 {
                std::thread::sleep(Duration::from_millis(100));
                if let Some((what, started)) = &*seen.lock().unwrap()
                    && started.elapsed() > MOST_TIME
                {
                    eprintln!("{what}: still going on after {MOST_TIME:?}");
                    std::process::exit(1);
                }
            }
        });
        Self { now, before_kib: peak_kib(), slowest: Duration::ZERO }
    }

    /// Runs `job`, which `what` names when it fails. The limit is on address space: memory that was asked for
    /// counts, used or not.
    pub fn case<T>(&mut self, what: &str, job: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        *self.now.lock().unwrap() = Some((what.to_owned(), started));
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
        *self.now.lock().unwrap() = None;
        let grown = self.grown_kib();
        assert!(grown < MOST_KIB, "{what}: {grown} KiB");
        self.slowest = self.slowest.max(started.elapsed());
        done.unwrap_or_else(|_| panic!("{what}: see the panic above"))
    }

    /// Address space that was taken since this was made.
    pub fn grown_kib(&self) -> u64 {
        peak_kib() - self.before_kib
    }
}
