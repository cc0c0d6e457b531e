//! What this machine could do at best: bytes read per second, multiply-adds per second.
//!
//! A decode step cannot be faster than its weights are read, a prompt not faster than its multiply-adds are
//! done. Both are measured with loops that do nothing else, on the threads of a team. Knows nothing about
//! models.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::kernels::peak::Peak;
use crate::kernels::unit::Unit;
use crate::kernels::{Isa, multiversion, prefetch, with_unit};
use crate::team::{Crew, Team};

/// Reads of which the best counts.
const READS: usize = 5;
/// Bytes in one claim of a read.
const CLAIM: usize = 1 << 20;
/// How far ahead of the reading a prefetch goes: 2 KiB gained 10 % on a Zen 4 with a quiet memory bus.
const AHEAD: usize = 2048;
/// How long one kind of multiply-add is measured.
const MACS_TIME: Duration = Duration::from_millis(150);

/// A rate and the instruction that reached it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Macs {
    /// Multiply-adds per second, all threads together.
    pub per_second: f64,
    /// The instruction, e.g. `vpdpbusd zmm`.
    pub how: &'static str,
}

/// Bytes per second at which `team` reads `bytes`: the best of five reads, with and without prefetch in turn,
/// after one that brings the pages in. Less than `bytes` are read when `limit` seconds are over before.
///
/// Gives 0 for no bytes, and when `cancel` is set.
pub fn read(team: &Team, isa: Isa, bytes: &[u8], limit: Duration, cancel: &AtomicBool) -> f64 {
    let claims = bytes.len().div_ceil(CLAIM);
    let total = AtomicU64::new(0);
    let began = Instant::now();
    team.enter(cancel, |crew| {
        let once = |crew: &Crew<'_>, prefetch: bool| {
            let start = Instant::now();
            crew.each(claims, |i| {
                let piece = &bytes[i * CLAIM..bytes.len().min((i + 1) * CLAIM)];
                total.fetch_add(sum(isa, piece, prefetch), Ordering::Relaxed);
            });
            start.elapsed().as_secs_f64()
        };
        once(crew, false);
        let mut best = f64::INFINITY;
        for i in 0..READS {
            let seconds = once(crew, i % 2 == 0);
            if crew.cancelled() {
                return 0.0;
            }
            best = best.min(seconds);
            if began.elapsed() > limit {
                break;
            }
        }
        black_box(total.load(Ordering::Relaxed));
        if bytes.is_empty() || best <= 0.0 { 0.0 } else { bytes.len() as f64 / best }
    })
}

/// Multiply-adds of 8-bit integers per second, by the best instruction of this CPU.
pub fn int8_macs(team: &Team, cancel: &AtomicBool) -> Macs {
    rate(team, with_unit!(Isa::best(), U => U::INT8), cancel)
}

/// Multiply-adds of `f32` per second, by the best instruction of this CPU.
pub fn f32_macs(team: &Team, cancel: &AtomicBool) -> Macs {
    rate(team, with_unit!(Isa::best(), U => U::F32), cancel)
}

/// The best rate of the loop over [`MACS_TIME`].
fn rate(team: &Team, peak: Peak, cancel: &AtomicBool) -> Macs {
    // Enough that the wake-up of the team and the last piece's end weigh nothing.
    let pieces = 32 * team.threads();
    let began = Instant::now();
    let per_second = team.enter(cancel, |crew| {
        let mut best = 0.0f64;
        loop {
            let start = Instant::now();
            crew.each(pieces, |_| {
                // SAFETY: `Isa::best` gives an ISA that this CPU has.
                unsafe { (peak.work)() }
            });
            let seconds = start.elapsed().as_secs_f64();
            if crew.cancelled() {
                return 0.0;
            }
            best = best.max((pieces as u64 * peak.macs) as f64 / seconds);
            if began.elapsed() > MACS_TIME {
                return best;
            }
        }
    });
    Macs { per_second, how: peak.instruction }
}

/// The sum of all whole words, so that the compiler can leave no load out.
#[inline(always)]
fn sum_body(bytes: &[u8], prefetch: bool) -> u64 {
    const LINE: usize = 64;
    const LINES: usize = 4;
    let mut sums = [[0u64; LINE / 8]; LINES];
    let (chunks, rest) = bytes.as_chunks::<{ LINES * LINE }>();
    for chunk in chunks {
        if prefetch {
            for line in 0..LINES {
                prefetch::near(chunk.as_ptr().wrapping_add(line * LINE + AHEAD));
            }
        }
        for (sums, line) in sums.iter_mut().zip(chunk.as_chunks::<LINE>().0) {
            for (sum, word) in sums.iter_mut().zip(line.as_chunks::<8>().0) {
                *sum = sum.wrapping_add(u64::from_le_bytes(*word));
            }
        }
    }
    let all = sums.iter().flatten().fold(0u64, |a, &b| a.wrapping_add(b));
    rest.iter().fold(all, |a, &b| a.wrapping_add(u64::from(b)))
}

multiversion! {
    fn sum(bytes: &[u8], prefetch: bool) -> u64 = sum_body;
}

#[cfg(test)]
mod tests {
    use super::*;

    static NEVER: AtomicBool = AtomicBool::new(false);
    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn floors_are_positive_and_plausible() {
        let team = Team::new(2).unwrap();
        for macs in [int8_macs(&team, &NEVER), f32_macs(&team, &NEVER)] {
            eprintln!("{macs:?}");
            // No CPU does less than a million or more than 10^14 in two threads.
            assert!((1e6..1e14).contains(&macs.per_second), "{macs:?}");
        }
        let bytes = vec![1; (16 << 20) + 100];
        for isa in Isa::all() {
            let rate = read(&team, isa, &bytes, LONG, &NEVER);
            eprintln!("{isa}: {rate:.3e} bytes/s");
            assert!((1e7..1e13).contains(&rate), "{isa}: {rate}");
        }
    }

    #[test]
    fn every_loop_of_this_cpu_runs() {
        for isa in Isa::all() {
            for peak in with_unit!(isa, U => [U::INT8, U::F32]) {
                // SAFETY: this CPU has every ISA of `all`.
                unsafe { (peak.work)() };
                assert!(peak.macs > 0 && !peak.instruction.is_empty(), "{isa}");
            }
        }
    }

    #[test]
    fn the_sum_sees_every_byte() {
        // Not a multiple of a chunk; every byte in turn changes the sum.
        let mut bytes = vec![0u8; 1000];
        for isa in Isa::all() {
            for prefetch in [false, true] {
                for i in 0..bytes.len() {
                    bytes[i] = 1;
                    assert_ne!(sum(isa, &bytes, prefetch), 0, "{isa}, byte {i}");
                    bytes[i] = 0;
                }
            }
        }
    }

    #[test]
    fn nothing_to_read_and_cancelled_are_zero() {
        let team = Team::new(1).unwrap();
        assert_eq!(read(&team, Isa::SCALAR, &[], LONG, &NEVER), 0.0);
        let set = AtomicBool::new(true);
        assert_eq!(read(&team, Isa::SCALAR, &[1; 100], LONG, &set), 0.0);
        assert_eq!(int8_macs(&team, &set).per_second, 0.0);
    }
}
