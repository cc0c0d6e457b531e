//! Vectors side by side: as many lanes as the registers allow.

use super::value::KvValue;
use crate::kernels::vector::Vector;

/// `N` vectors, lanes of f32.
///
/// Every method asks of its callers that the CPU has the features of `V`, and those with a pointer that `N *
/// LANES` values can be read or written there.
#[derive(Clone, Copy)]
pub(super) struct Wide<V: Vector, const N: usize>([V::F; N]);

// SAFETY (of every block below): the caller vouches for the features; vector `i` covers values `i * LANES
// ..`, inside the `N * LANES` that the caller vouches for.
impl<V: Vector, const N: usize> Wide<V, N> {
    #[inline(always)]
    pub(super) unsafe fn splat(x: f32) -> Self {
        // SAFETY: see above; so below.
        Self([unsafe { V::fsplat(x) }; N])
    }
    #[inline(always)]
    pub(super) unsafe fn load(from: *const f32) -> Self {
        // SAFETY: as above.
        unsafe { Self::load_values(from) }
    }
    /// Widens what is stored.
    #[inline(always)]
    pub(super) unsafe fn load_values<T: KvValue>(from: *const T) -> Self {
        // SAFETY: as above.
        unsafe {
            let mut all = [V::fsplat(0.0); N];
            for (i, x) in all.iter_mut().enumerate() {
                *x = T::load::<V>(from.add(i * V::LANES));
            }
            Self(all)
        }
    }
    #[inline(always)]
    pub(super) unsafe fn store(self, to: *mut f32) {
        for (i, x) in self.0.into_iter().enumerate() {
            // SAFETY: as above.
            unsafe { V::fstore(to.add(i * V::LANES), x) }
        }
    }
    #[inline(always)]
    pub(super) unsafe fn mul(mut self, b: Self) -> Self {
        for (x, b) in self.0.iter_mut().zip(b.0) {
            // SAFETY: as above.
            *x = unsafe { V::fmul(*x, b) };
        }
        self
    }
    /// `self * b + c`.
    #[inline(always)]
    pub(super) unsafe fn mul_add(self, b: Self, mut c: Self) -> Self {
        for i in 0..N {
            // SAFETY: as above.
            c.0[i] = unsafe { V::fma(self.0[i], b.0[i], c.0[i]) };
        }
        c
    }
}
