//! Vectors of `f32` for the attention kernel: one interface, a register type per instruction set.

use crate::formats::F16;

/// Some `f32` side by side.
///
/// Every method is one instruction or a few; all are inlined into a function that enables the features they need.
pub trait Vector: Copy {
    /// Values in it.
    const LANES: usize;
    /// # Safety
    /// The CPU has the features of this vector's instruction set; so for every method here.
    unsafe fn splat(x: f32) -> Self;
    /// # Safety
    /// `LANES` values can be read at `from`; so for the other loads.
    unsafe fn load(from: *const f32) -> Self;
    /// # Safety
    /// As [`Self::load`].
    unsafe fn load_f16(from: *const F16) -> Self;
    /// # Safety
    /// As [`Self::load`].
    unsafe fn load_i8(from: *const i8) -> Self;
    /// # Safety
    /// `LANES` values can be written at `to`.
    unsafe fn store(self, to: *mut f32);
    /// Rounds to nearest, ties to even.
    ///
    /// # Safety
    /// `LANES` values can be written at `to`.
    unsafe fn store_f16(self, to: *mut F16);
    /// # Safety
    /// See [`Self::splat`].
    unsafe fn mul(self, b: Self) -> Self;
    /// `self * b + c`, rounded once where [`Simd::FUSED`].
    ///
    /// # Safety
    /// See [`Self::splat`].
    unsafe fn mul_add(self, b: Self, c: Self) -> Self;
}

/// An instruction set as the attention kernel sees it.
pub trait Simd {
    /// Whether `mul_add` rounds once: then every such instruction set gives the same bits.
    const FUSED: bool;
    /// One register.
    type One: Vector;
    /// As wide as six rows of accumulators, the values and a factor fit the register file.
    type Tile: Vector;
    /// At most 64 lanes, wide enough to hide the latency of a sum with a single row of accumulators.
    type Row: Vector;
}

/// `N` vectors side by side.
#[derive(Clone, Copy)]
pub struct Wide<V, const N: usize>([V; N]);

// SAFETY (of every block below): part `i` covers lanes `i * V::LANES ..`, inside the `LANES` the caller vouches for.
impl<V: Vector, const N: usize> Vector for Wide<V, N> {
    const LANES: usize = N * V::LANES;
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: the caller vouches for the features.
        Self([unsafe { V::splat(x) }; N])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: see the note above the impl.
        unsafe {
            let mut v = [V::splat(0.0); N];
            for (i, v) in v.iter_mut().enumerate() {
                *v = V::load(from.add(i * V::LANES));
            }
            Self(v)
        }
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const F16) -> Self {
        // SAFETY: see the note above the impl.
        unsafe {
            let mut v = [V::splat(0.0); N];
            for (i, v) in v.iter_mut().enumerate() {
                *v = V::load_f16(from.add(i * V::LANES));
            }
            Self(v)
        }
    }
    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> Self {
        // SAFETY: see the note above the impl.
        unsafe {
            let mut v = [V::splat(0.0); N];
            for (i, v) in v.iter_mut().enumerate() {
                *v = V::load_i8(from.add(i * V::LANES));
            }
            Self(v)
        }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        for (i, v) in self.0.into_iter().enumerate() {
            // SAFETY: see the note above the impl.
            unsafe { v.store(to.add(i * V::LANES)) }
        }
    }
    #[inline(always)]
    unsafe fn store_f16(self, to: *mut F16) {
        for (i, v) in self.0.into_iter().enumerate() {
            // SAFETY: see the note above the impl.
            unsafe { v.store_f16(to.add(i * V::LANES)) }
        }
    }
    #[inline(always)]
    unsafe fn mul(mut self, b: Self) -> Self {
        for (v, b) in self.0.iter_mut().zip(b.0) {
            // SAFETY: the caller vouches for the features.
            *v = unsafe { v.mul(b) };
        }
        self
    }
    #[inline(always)]
    unsafe fn mul_add(self, b: Self, mut c: Self) -> Self {
        for i in 0..N {
            // SAFETY: the caller vouches for the features.
            c.0[i] = unsafe { self.0[i].mul_add(b.0[i], c.0[i]) };
        }
        c
    }
}

/// Four `f32` of portable code: SSE2 and NEON have registers of this size.
#[derive(Clone, Copy)]
pub struct Portable4([f32; 4]);

/// Multiplication and addition in one rounding cost nothing extra on AArch64; elsewhere the portable code must not ask
/// for it, a call of `fmaf` per value.
const PORTABLE_FUSED: bool = cfg!(any(target_arch = "aarch64", target_feature = "fma"));

/// `a b + c` as portable code computes it.
#[inline(always)]
fn portable_mul_add(a: f32, b: f32, c: f32) -> f32 {
    if PORTABLE_FUSED { a.mul_add(b, c) } else { a * b + c }
}

impl Vector for Portable4 {
    const LANES: usize = 4;
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Self([x; 4])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller vouches for four values.
        Self(unsafe { from.cast::<[f32; 4]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const F16) -> Self {
        // SAFETY: the caller vouches for four values.
        Self(unsafe { from.cast::<[F16; 4]>().read_unaligned() }.map(F16::to_f32))
    }
    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> Self {
        // SAFETY: the caller vouches for four values.
        Self(unsafe { from.cast::<[i8; 4]>().read_unaligned() }.map(f32::from))
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller vouches for four values.
        unsafe { to.cast::<[f32; 4]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn store_f16(self, to: *mut F16) {
        // SAFETY: the caller vouches for four values.
        unsafe { to.cast::<[F16; 4]>().write_unaligned(self.0.map(F16::from_f32)) }
    }
    #[inline(always)]
    unsafe fn mul(mut self, b: Self) -> Self {
        for i in 0..4 {
            self.0[i] *= b.0[i];
        }
        self
    }
    #[inline(always)]
    unsafe fn mul_add(self, b: Self, mut c: Self) -> Self {
        for i in 0..4 {
            c.0[i] = portable_mul_add(self.0[i], b.0[i], c.0[i]);
        }
        c
    }
}

/// What the architecture guarantees.
pub struct Portable;

impl Simd for Portable {
    const FUSED: bool = PORTABLE_FUSED;
    type One = Portable4;
    type Tile = Wide<Portable4, 2>;
    type Row = Wide<Portable4, 8>;
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{F16, Simd, Vector, Wide};
    use std::arch::x86_64::*;

    // SAFETY (of every block below): the caller vouches for the CPU's features and for as many values as the access
    // takes; `loadu` and `storeu` need no alignment.

    impl Vector for __m256 {
        const LANES: usize = 8;
        #[inline(always)]
        unsafe fn splat(x: f32) -> Self {
            // SAFETY: see the note at the top of the module; so below.
            unsafe { _mm256_set1_ps(x) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: as above.
            unsafe { _mm256_loadu_ps(from) }
        }
        #[inline(always)]
        unsafe fn load_f16(from: *const F16) -> Self {
            // SAFETY: as above.
            unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
        }
        #[inline(always)]
        unsafe fn load_i8(from: *const i8) -> Self {
            // SAFETY: as above.
            unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast()))) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: as above.
            unsafe { _mm256_storeu_ps(to, self) }
        }
        #[inline(always)]
        unsafe fn store_f16(self, to: *mut F16) {
            // SAFETY: as above.
            unsafe { _mm_storeu_si128(to.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self)) }
        }
        #[inline(always)]
        unsafe fn mul(self, b: Self) -> Self {
            // SAFETY: as above.
            unsafe { _mm256_mul_ps(self, b) }
        }
        #[inline(always)]
        unsafe fn mul_add(self, b: Self, c: Self) -> Self {
            // SAFETY: as above.
            unsafe { _mm256_fmadd_ps(self, b, c) }
        }
    }

    impl Vector for __m512 {
        const LANES: usize = 16;
        #[inline(always)]
        unsafe fn splat(x: f32) -> Self {
            // SAFETY: as above.
            unsafe { _mm512_set1_ps(x) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: as above.
            unsafe { _mm512_loadu_ps(from) }
        }
        #[inline(always)]
        unsafe fn load_f16(from: *const F16) -> Self {
            // SAFETY: as above.
            unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
        }
        #[inline(always)]
        unsafe fn load_i8(from: *const i8) -> Self {
            // SAFETY: as above.
            unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast()))) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: as above.
            unsafe { _mm512_storeu_ps(to, self) }
        }
        #[inline(always)]
        unsafe fn store_f16(self, to: *mut F16) {
            // SAFETY: as above.
            unsafe { _mm256_storeu_si256(to.cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self)) }
        }
        #[inline(always)]
        unsafe fn mul(self, b: Self) -> Self {
            // SAFETY: as above.
            unsafe { _mm512_mul_ps(self, b) }
        }
        #[inline(always)]
        unsafe fn mul_add(self, b: Self, c: Self) -> Self {
            // SAFETY: as above.
            unsafe { _mm512_fmadd_ps(self, b, c) }
        }
    }

    /// 16 registers of 8: 12 accumulators, two of values, a factor.
    pub struct Avx2;
    impl Simd for Avx2 {
        const FUSED: bool = true;
        type One = __m256;
        type Tile = Wide<__m256, 2>;
        type Row = Wide<__m256, 8>;
    }

    /// 32 registers of 16: 24 accumulators, four of values, a factor.
    pub struct Avx512;
    impl Simd for Avx512 {
        const FUSED: bool = true;
        type One = __m512;
        type Tile = Wide<__m512, 4>;
        type Row = Wide<__m512, 4>;
    }
}
#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2, Avx512};
