//! What this machine could do at best: bytes read per second, multiply-adds per second.
//!
//! A decode step cannot be faster than its weights are read, a prompt not faster than its multiply-adds are done.
//! Both are measured with loops that do nothing else, on the threads of a team. Knows nothing about models.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::kernels::{Isa, multiversion};
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

/// Bytes per second at which `team` reads `bytes`: the best of five reads, with and without prefetch in turn, after one
/// that brings the pages in. Less than `bytes` are read when `limit` seconds are over before.
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
    let (how, macs, work) = int8_loop();
    Macs { per_second: rate(team, macs, work, cancel), how }
}

/// Multiply-adds of `f32` per second, by the best instruction of this CPU.
pub fn f32_macs(team: &Team, cancel: &AtomicBool) -> Macs {
    let (how, macs, work) = f32_loop();
    Macs { per_second: rate(team, macs, work, cancel), how }
}

/// The best rate of `work`, which does `macs` multiply-adds, over [`MACS_TIME`].
fn rate(team: &Team, macs: u64, work: fn(), cancel: &AtomicBool) -> f64 {
    // Enough that the wake-up of the team and the last piece's end weigh nothing.
    let pieces = 32 * team.threads();
    let began = Instant::now();
    team.enter(cancel, |crew| {
        let mut best = 0.0f64;
        loop {
            let start = Instant::now();
            crew.each(pieces, |_| work());
            let seconds = start.elapsed().as_secs_f64();
            if crew.cancelled() {
                return 0.0;
            }
            best = best.max((pieces as u64 * macs) as f64 / seconds);
            if began.elapsed() > MACS_TIME {
                return best;
            }
        }
    })
}

/// The sum of all whole words, so that nobody can leave a load out.
#[inline(always)]
fn sum_body(bytes: &[u8], prefetch: bool) -> u64 {
    const LINE: usize = 64;
    const LINES: usize = 4;
    let mut sums = [[0u64; LINE / 8]; LINES];
    let (chunks, rest) = bytes.as_chunks::<{ LINES * LINE }>();
    for chunk in chunks {
        if prefetch {
            for line in 0..LINES {
                ahead(&chunk[line * LINE..]);
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

/// Asks for the line [`AHEAD`] bytes behind the start of `bytes`.
#[inline(always)]
fn ahead(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: SSE is part of x86-64, and a prefetch reads nothing: an address without a page is ignored.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(bytes.as_ptr().wrapping_add(AHEAD).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = bytes;
}

multiversion! {
    fn sum(bytes: &[u8], prefetch: bool) -> u64 = sum_body;
}

/// Rounds of a loop of [`UNROLLED`] instructions in one piece of work: 0.1 to 1 ms.
const ROUNDS: u64 = 20_000;
/// Independent accumulators: more than latency times throughput of any multiply-add so far.
const UNROLLED: u64 = 12;

/// What is done, multiply-adds per call, and the loop.
type Loop = (&'static str, u64, fn());

#[cfg(target_arch = "x86_64")]
fn int8_loop() -> Loop {
    if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni") {
        return ("vpdpbusd zmm", ROUNDS * UNROLLED * 64, x86::vpdpbusd_zmm);
    }
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("avxvnni") {
        return ("vpdpbusd ymm", ROUNDS * UNROLLED * 32, x86::vpdpbusd_ymm);
    }
    if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") {
        return ("vpmaddubsw zmm", ROUNDS * (UNROLLED / 2) * 64, x86::vpmaddubsw_zmm);
    }
    if is_x86_feature_detected!("avx2") {
        return ("vpmaddubsw ymm", ROUNDS * (UNROLLED / 2) * 32, x86::vpmaddubsw_ymm);
    }
    portable_int8()
}

#[cfg(target_arch = "x86_64")]
fn f32_loop() -> Loop {
    if is_x86_feature_detected!("avx512f") {
        return ("vfmadd zmm", ROUNDS * UNROLLED * 16, x86::vfmadd_zmm);
    }
    if is_x86_feature_detected!("fma") {
        return ("vfmadd ymm", ROUNDS * UNROLLED * 8, x86::vfmadd_ymm);
    }
    portable_f32()
}

#[cfg(not(target_arch = "x86_64"))]
fn int8_loop() -> Loop {
    portable_int8()
}

#[cfg(not(target_arch = "x86_64"))]
fn f32_loop() -> Loop {
    portable_f32()
}

/// What a compiler makes of plain code where there is no loop of our own.
fn portable_int8() -> Loop {
    fn work() {
        let (a, b) = (black_box([3i8; 1024]), black_box([5i8; 1024]));
        let mut sum = 0;
        for _ in 0..PORTABLE_ROUNDS {
            let (a, b) = (black_box(&a), black_box(&b));
            sum += a.iter().zip(b).map(|(&a, &b)| i32::from(a) * i32::from(b)).sum::<i32>() & 1;
        }
        black_box(sum);
    }
    ("portable code", PORTABLE_ROUNDS * 1024, work)
}

fn portable_f32() -> Loop {
    fn work() {
        let (a, mut sums) = (black_box([0.5f32; 1024]), [0.0f32; 1024]);
        for _ in 0..PORTABLE_ROUNDS {
            let a = black_box(&a);
            sums.iter_mut().zip(a).for_each(|(s, &a)| *s += a * a);
        }
        black_box(sums);
    }
    ("portable code", PORTABLE_ROUNDS * 1024, work)
}

const PORTABLE_ROUNDS: u64 = 200;

/// The loops in assembly: no compiler can hoist, fuse or spill what is measured. Operands are whatever the registers
/// hold: integer instructions take the same time for all values; the registers of the f32 loops are zeroed first, since
/// subnormal numbers would not.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::ROUNDS;
    use std::arch::asm;

    macro_rules! asm_loop {
        ($name:ident, $features:literal, $before:literal, [$($line:literal),* $(,)?], [$($clobber:tt),*]) => {
            pub(super) fn $name() {
                #[target_feature(enable = $features)]
                fn inner() {
                    // SAFETY: registers and flags only, all of them declared; no memory is touched.
                    unsafe {
                        asm!(
                            $before,
                            "2:",
                            $($line,)*
                            "dec {n}",
                            "jnz 2b",
                            n = inout(reg) ROUNDS => _,
                            $(out($clobber) _,)*
                            options(nostack, nomem),
                        );
                    }
                }
                // SAFETY: `int8_loop` and `f32_loop` detected these features before they gave this function away.
                unsafe { inner() }
            }
        };
    }

    asm_loop!(
        vpdpbusd_zmm,
        "avx512f,avx512vnni",
        "",
        [
            "vpdpbusd zmm0, zmm14, zmm15",
            "vpdpbusd zmm1, zmm14, zmm15",
            "vpdpbusd zmm2, zmm14, zmm15",
            "vpdpbusd zmm3, zmm14, zmm15",
            "vpdpbusd zmm4, zmm14, zmm15",
            "vpdpbusd zmm5, zmm14, zmm15",
            "vpdpbusd zmm6, zmm14, zmm15",
            "vpdpbusd zmm7, zmm14, zmm15",
            "vpdpbusd zmm8, zmm14, zmm15",
            "vpdpbusd zmm9, zmm14, zmm15",
            "vpdpbusd zmm10, zmm14, zmm15",
            "vpdpbusd zmm11, zmm14, zmm15",
        ],
        ["zmm0", "zmm1", "zmm2", "zmm3", "zmm4", "zmm5", "zmm6", "zmm7", "zmm8", "zmm9", "zmm10", "zmm11"]
    );

    asm_loop!(
        vpdpbusd_ymm,
        "avx2,avxvnni",
        "",
        [
            "{{vex}} vpdpbusd ymm0, ymm14, ymm15",
            "{{vex}} vpdpbusd ymm1, ymm14, ymm15",
            "{{vex}} vpdpbusd ymm2, ymm14, ymm15",
            "{{vex}} vpdpbusd ymm3, ymm14, ymm15",
            "{{vex}} vpdpbusd ymm4, ymm14, ymm15",
            "{{vex}} vpdpbusd ymm5, ymm14, ymm15",
            "{{vex}} vpdpbusd ymm6, ymm14, ymm15",
            "{{vex}} vpdpbusd ymm7, ymm14, ymm15",
            "{{vex}} vpdpbusd ymm8, ymm14, ymm15",
            "{{vex}} vpdpbusd ymm9, ymm14, ymm15",
            "{{vex}} vpdpbusd ymm10, ymm14, ymm15",
            "{{vex}} vpdpbusd ymm11, ymm14, ymm15",
        ],
        ["ymm0", "ymm1", "ymm2", "ymm3", "ymm4", "ymm5", "ymm6", "ymm7", "ymm8", "ymm9", "ymm10", "ymm11"]
    );

    // Without a dot product: bytes to 16 bits, 16 to 32, add.
    asm_loop!(
        vpmaddubsw_zmm,
        "avx512f,avx512bw",
        "",
        [
            "vpmaddubsw zmm6, zmm14, zmm15",
            "vpmaddwd zmm6, zmm6, zmm13",
            "vpaddd zmm0, zmm0, zmm6",
            "vpmaddubsw zmm7, zmm14, zmm15",
            "vpmaddwd zmm7, zmm7, zmm13",
            "vpaddd zmm1, zmm1, zmm7",
            "vpmaddubsw zmm8, zmm14, zmm15",
            "vpmaddwd zmm8, zmm8, zmm13",
            "vpaddd zmm2, zmm2, zmm8",
            "vpmaddubsw zmm9, zmm14, zmm15",
            "vpmaddwd zmm9, zmm9, zmm13",
            "vpaddd zmm3, zmm3, zmm9",
            "vpmaddubsw zmm10, zmm14, zmm15",
            "vpmaddwd zmm10, zmm10, zmm13",
            "vpaddd zmm4, zmm4, zmm10",
            "vpmaddubsw zmm11, zmm14, zmm15",
            "vpmaddwd zmm11, zmm11, zmm13",
            "vpaddd zmm5, zmm5, zmm11",
        ],
        ["zmm0", "zmm1", "zmm2", "zmm3", "zmm4", "zmm5", "zmm6", "zmm7", "zmm8", "zmm9", "zmm10", "zmm11"]
    );

    asm_loop!(
        vpmaddubsw_ymm,
        "avx2",
        "",
        [
            "vpmaddubsw ymm6, ymm14, ymm15",
            "vpmaddwd ymm6, ymm6, ymm13",
            "vpaddd ymm0, ymm0, ymm6",
            "vpmaddubsw ymm7, ymm14, ymm15",
            "vpmaddwd ymm7, ymm7, ymm13",
            "vpaddd ymm1, ymm1, ymm7",
            "vpmaddubsw ymm8, ymm14, ymm15",
            "vpmaddwd ymm8, ymm8, ymm13",
            "vpaddd ymm2, ymm2, ymm8",
            "vpmaddubsw ymm9, ymm14, ymm15",
            "vpmaddwd ymm9, ymm9, ymm13",
            "vpaddd ymm3, ymm3, ymm9",
            "vpmaddubsw ymm10, ymm14, ymm15",
            "vpmaddwd ymm10, ymm10, ymm13",
            "vpaddd ymm4, ymm4, ymm10",
            "vpmaddubsw ymm11, ymm14, ymm15",
            "vpmaddwd ymm11, ymm11, ymm13",
            "vpaddd ymm5, ymm5, ymm11",
        ],
        ["ymm0", "ymm1", "ymm2", "ymm3", "ymm4", "ymm5", "ymm6", "ymm7", "ymm8", "ymm9", "ymm10", "ymm11"]
    );

    asm_loop!(
        vfmadd_zmm,
        "avx512f",
        "vzeroall",
        [
            "vfmadd231ps zmm0, zmm14, zmm15",
            "vfmadd231ps zmm1, zmm14, zmm15",
            "vfmadd231ps zmm2, zmm14, zmm15",
            "vfmadd231ps zmm3, zmm14, zmm15",
            "vfmadd231ps zmm4, zmm14, zmm15",
            "vfmadd231ps zmm5, zmm14, zmm15",
            "vfmadd231ps zmm6, zmm14, zmm15",
            "vfmadd231ps zmm7, zmm14, zmm15",
            "vfmadd231ps zmm8, zmm14, zmm15",
            "vfmadd231ps zmm9, zmm14, zmm15",
            "vfmadd231ps zmm10, zmm14, zmm15",
            "vfmadd231ps zmm11, zmm14, zmm15",
        ],
        [
            "zmm0", "zmm1", "zmm2", "zmm3", "zmm4", "zmm5", "zmm6", "zmm7", "zmm8", "zmm9", "zmm10", "zmm11",
            "zmm12", "zmm13", "zmm14", "zmm15"
        ]
    );

    asm_loop!(
        vfmadd_ymm,
        "avx,fma",
        "vzeroall",
        [
            "vfmadd231ps ymm0, ymm14, ymm15",
            "vfmadd231ps ymm1, ymm14, ymm15",
            "vfmadd231ps ymm2, ymm14, ymm15",
            "vfmadd231ps ymm3, ymm14, ymm15",
            "vfmadd231ps ymm4, ymm14, ymm15",
            "vfmadd231ps ymm5, ymm14, ymm15",
            "vfmadd231ps ymm6, ymm14, ymm15",
            "vfmadd231ps ymm7, ymm14, ymm15",
            "vfmadd231ps ymm8, ymm14, ymm15",
            "vfmadd231ps ymm9, ymm14, ymm15",
            "vfmadd231ps ymm10, ymm14, ymm15",
            "vfmadd231ps ymm11, ymm14, ymm15",
        ],
        [
            "ymm0", "ymm1", "ymm2", "ymm3", "ymm4", "ymm5", "ymm6", "ymm7", "ymm8", "ymm9", "ymm10", "ymm11",
            "ymm12", "ymm13", "ymm14", "ymm15"
        ]
    );
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
        for isa in Isa::available() {
            let rate = read(&team, isa, &bytes, LONG, &NEVER);
            eprintln!("{isa}: {rate:.3e} bytes/s");
            assert!((1e7..1e13).contains(&rate), "{isa}: {rate}");
        }
    }

    #[test]
    fn every_loop_of_this_cpu_runs() {
        for (how, macs, work) in [int8_loop(), f32_loop(), portable_int8(), portable_f32()] {
            work();
            assert!(macs > 0 && !how.is_empty());
        }
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") {
                x86::vpmaddubsw_ymm();
            }
            if is_x86_feature_detected!("fma") {
                x86::vfmadd_ymm();
            }
            if is_x86_feature_detected!("avx512bw") {
                x86::vpmaddubsw_zmm();
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("avxvnni") {
                x86::vpdpbusd_ymm();
            }
        }
    }

    #[test]
    fn the_sum_sees_every_byte() {
        // Not a multiple of a chunk; every byte in turn changes the sum.
        let mut bytes = vec![0u8; 1000];
        for isa in Isa::available() {
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
