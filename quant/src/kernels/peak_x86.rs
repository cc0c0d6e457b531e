//! The fastest multiply-adds of x86-64, as loops in assembly: no compiler can hoist, fuse or spill what is
//! measured.
//!
//! Operands are whatever the registers hold: integer instructions take the same time for all values; the
//! registers of the f32 loops are zeroed first, since subnormal numbers would not.

use super::peak::Peak;
use std::arch::asm;

/// Rounds of a loop in one piece of work: 0.1 to 1 ms.
const ROUNDS: u64 = 20_000;
/// Independent accumulators: more than latency times throughput of any multiply-add so far.
const UNROLLED: u64 = 12;

macro_rules! peak {
    (
        $name:ident,
        $text:literal,
        $macs:expr,
        $features:literal,
        $before:literal,
        [$($line:literal),* $(,)?],
        [$($clobber:tt),*]
    ) => {
        pub(crate) const $name: Peak = {
            #[target_feature(enable = $features)]
            unsafe fn work() {
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
            Peak { instruction: $text, macs: $macs, work }
        };
    };
}

peak!(
    VPDPBUSD_ZMM,
    "vpdpbusd zmm",
    ROUNDS * UNROLLED * 64,
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

peak!(
    VPDPBUSD_YMM,
    "vpdpbusd ymm",
    ROUNDS * UNROLLED * 32,
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
peak!(
    VPMADDUBSW_ZMM,
    "vpmaddubsw zmm",
    ROUNDS * (UNROLLED / 2) * 64,
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

peak!(
    VPMADDUBSW_YMM,
    "vpmaddubsw ymm",
    ROUNDS * (UNROLLED / 2) * 32,
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

peak!(
    VFMADD_ZMM,
    "vfmadd zmm",
    ROUNDS * UNROLLED * 16,
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

peak!(
    VFMADD_YMM,
    "vfmadd ymm",
    ROUNDS * UNROLLED * 8,
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
