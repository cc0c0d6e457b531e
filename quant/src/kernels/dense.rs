//! Rows of F32, F16 or BF16 weights times rows of f32 activations, the summed dimension along the lanes.
//!
//! Element `i` goes to lane `i mod LANES` by fused multiply-add; the lanes are folded at the end and what is
//! left past the last whole vector is added one by one. So an output's bits depend on its row and its column
//! alone.

#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "every block here is the body of an unsafe function and rests on the promises of its callers"
)]
#![allow(clippy::needless_range_loop, reason = "an index runs over registers, memory and constants alike")]

use super::vector::Vector;
use crate::formats::lanes::Widen;
use crate::formats::{bf16::BlockBf16, f16::BlockF16, f32::BlockF32};

/// A weight that a vector unit widens to f32 as it loads it.
pub(crate) trait Stored: bytemuck::Pod + Widen {
    /// `LANES` weights from `p` on.
    ///
    /// # Safety
    /// The CPU has what `V` needs, and the weights can be read.
    unsafe fn load<V: Vector>(p: *const Self) -> V::F;
}

impl Stored for BlockF32 {
    #[inline(always)]
    unsafe fn load<V: Vector>(p: *const Self) -> V::F {
        unsafe { V::fload(p.cast()) }
    }
}
impl Stored for BlockF16 {
    #[inline(always)]
    unsafe fn load<V: Vector>(p: *const Self) -> V::F {
        unsafe { V::fload_f16(p.cast()) }
    }
}
impl Stored for BlockBf16 {
    #[inline(always)]
    unsafe fn load<V: Vector>(p: *const Self) -> V::F {
        unsafe { V::fload_bf16(p.cast()) }
    }
}

/// `R` rows times `W` columns: `out[j][r]` is row `r` times column `j`.
///
/// `w`: row `r` at `r * k`. `a`: column `j` at `j * k`.
///
/// # Safety
/// The CPU has what `V` needs; `w` holds `R` rows, `a` holds `W` columns of `k`.
#[inline(always)]
pub(crate) unsafe fn micro<V: Vector, S: Stored, const R: usize, const W: usize>(
    w: *const S,
    a: *const f32,
    k: usize,
) -> [[f32; R]; W] {
    // SAFETY: every index below is under `R * k` for `w` and `W * k` for `a`.
    unsafe {
        let mut acc = [[V::fsplat(0.0); R]; W];
        let whole = k - k % V::LANES;
        let mut i = 0;
        while i < whole {
            let mut x = [V::fsplat(0.0); R];
            for r in 0..R {
                x[r] = S::load::<V>(w.add(r * k + i));
            }
            for j in 0..W {
                let a = V::fload(a.add(j * k + i));
                for r in 0..R {
                    acc[j][r] = V::fma(x[r], a, acc[j][r]);
                }
            }
            i += V::LANES;
        }
        let mut out = [[0.0; R]; W];
        for j in 0..W {
            for r in 0..R {
                let mut sum = V::fsum(acc[j][r]);
                for i in whole..k {
                    sum += (*w.add(r * k + i)).widen() * *a.add(j * k + i);
                }
                out[j][r] = sum;
            }
        }
        out
    }
}
