//! The fastest multiply-adds of a unit, as a loop that does nothing else.

use std::hint::black_box;

/// A loop of multiply-adds.
#[derive(Clone, Copy)]
pub(crate) struct Peak {
    /// The instruction, e.g. `vpdpbusd zmm`.
    pub instruction: &'static str,
    /// Multiply-adds in a call of `work`.
    pub macs: u64,
    /// The loop. To be called only on a CPU that has the features of the unit.
    pub work: unsafe fn(),
}

/// Rounds of a loop in one piece of work: 0.1 to 1 ms.
const ROUNDS: u64 = 200;

/// Multiply-adds of bytes as a compiler makes them of plain code.
pub(crate) const INT8: Peak = {
    fn work() {
        let (a, b) = (black_box([3i8; 1024]), black_box([5i8; 1024]));
        let mut sum = 0;
        for _ in 0..ROUNDS {
            let (a, b) = (black_box(&a), black_box(&b));
            sum += a.iter().zip(b).map(|(&a, &b)| i32::from(a) * i32::from(b)).sum::<i32>() & 1;
        }
        black_box(sum);
    }
    Peak { instruction: "portable code", macs: ROUNDS * 1024, work }
};

/// Multiply-adds of `f32` as a compiler makes them of plain code.
pub(crate) const F32: Peak = {
    fn work() {
        let (a, mut sums) = (black_box([0.5f32; 1024]), [0.0f32; 1024]);
        for _ in 0..ROUNDS {
            let a = black_box(&a);
            sums.iter_mut().zip(a).for_each(|(s, &a)| *s += a * a);
        }
        black_box(sums);
    }
    Peak { instruction: "portable code", macs: ROUNDS * 1024, work }
};
