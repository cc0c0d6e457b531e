//! 256-bit vectors: AVX2, FMA, F16C, with VNNI or without.

#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "every block here is the body of an unsafe function and rests on the promises of its callers"
)]

use super::peak::Peak;
use super::peak_x86;
use super::unit::{Tiled, Unit};
use super::vector::{Parts, Vector};
use std::arch::x86_64::*;

/// Vectors of 256 bits.
#[derive(Clone, Copy)]
pub(crate) struct V256;

impl Vector for V256 {
    const LANES: usize = 8;
    const REGISTERS: usize = 16;
    const FUSED: bool = true;
    type I = __m256i;
    type F = __m256;

    #[inline(always)]
    unsafe fn splat(x: i32) -> __m256i {
        unsafe { _mm256_set1_epi32(x) }
    }
    #[inline(always)]
    unsafe fn load(p: *const i32) -> __m256i {
        unsafe { _mm256_loadu_si256(p.cast()) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut i32, x: __m256i) {
        unsafe { _mm256_storeu_si256(p.cast(), x) }
    }
    #[inline(always)]
    unsafe fn and(a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_and_si256(a, b) }
    }
    #[inline(always)]
    unsafe fn or(a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_or_si256(a, b) }
    }
    #[inline(always)]
    unsafe fn xor(a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_xor_si256(a, b) }
    }
    #[inline(always)]
    unsafe fn add(a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_add_epi32(a, b) }
    }
    #[inline(always)]
    unsafe fn sub(a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_sub_epi32(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_mullo_epi32(a, b) }
    }
    #[inline(always)]
    unsafe fn shl(a: __m256i, n: u32) -> __m256i {
        unsafe { _mm256_sll_epi32(a, _mm_cvtsi32_si128(n as i32)) }
    }
    #[inline(always)]
    unsafe fn shr(a: __m256i, n: u32) -> __m256i {
        unsafe { _mm256_srl_epi32(a, _mm_cvtsi32_si128(n as i32)) }
    }
    #[inline(always)]
    unsafe fn sra(a: __m256i, n: u32) -> __m256i {
        unsafe { _mm256_sra_epi32(a, _mm_cvtsi32_si128(n as i32)) }
    }
    #[inline(always)]
    unsafe fn max(a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_max_epi32(a, b) }
    }
    #[inline(always)]
    unsafe fn add16(a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_add_epi16(a, b) }
    }
    #[inline(always)]
    unsafe fn mulhrs(a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_mulhrs_epi16(a, b) }
    }
    #[inline(always)]
    unsafe fn lookup(table: &[u8; 16], index: __m256i) -> __m256i {
        unsafe { <Self as Parts>::shuffle(repeat16(table.as_ptr()), index) }
    }
    #[inline(always)]
    unsafe fn columns(p: *const u8, stride: usize) -> [__m256i; 4] {
        unsafe {
            let (r0, r1) = (rows(p, stride, 0), rows(p, stride, 1));
            let (r2, r3) = (rows(p, stride, 2), rows(p, stride, 3));
            let (lo01, hi01) = (_mm256_unpacklo_epi32(r0, r1), _mm256_unpackhi_epi32(r0, r1));
            let (lo23, hi23) = (_mm256_unpacklo_epi32(r2, r3), _mm256_unpackhi_epi32(r2, r3));
            [
                _mm256_unpacklo_epi64(lo01, lo23),
                _mm256_unpackhi_epi64(lo01, lo23),
                _mm256_unpacklo_epi64(hi01, hi23),
                _mm256_unpackhi_epi64(hi01, hi23),
            ]
        }
    }
    #[inline(always)]
    unsafe fn column_u16(p: *const u8, stride: usize) -> __m256i {
        unsafe {
            let v: [u16; 8] = std::array::from_fn(|i| p.add(i * stride).cast::<u16>().read_unaligned());
            _mm256_cvtepu16_epi32(_mm_loadu_si128(v.as_ptr().cast()))
        }
    }
    #[inline(always)]
    unsafe fn column_u32(p: *const u8, stride: usize) -> __m256i {
        unsafe {
            let v: [u32; 8] = std::array::from_fn(|i| p.add(i * stride).cast::<u32>().read_unaligned());
            _mm256_loadu_si256(v.as_ptr().cast())
        }
    }
    #[inline(always)]
    unsafe fn halves(a: __m256i) -> __m256 {
        unsafe {
            // Packing saturates, so the high bits go first; it works within halves, so the quarters move
            // after.
            let low = _mm256_and_si256(a, _mm256_set1_epi32(0xffff));
            let packed = _mm256_permute4x64_epi64::<0b1000>(_mm256_packus_epi32(low, low));
            _mm256_cvtph_ps(_mm256_castsi256_si128(packed))
        }
    }
    #[inline(always)]
    unsafe fn as_f32(a: __m256i) -> __m256 {
        unsafe { _mm256_castsi256_ps(a) }
    }
    #[inline(always)]
    unsafe fn as_i32(a: __m256) -> __m256i {
        unsafe { _mm256_castps_si256(a) }
    }
    #[inline(always)]
    unsafe fn from_i32(a: __m256i) -> __m256 {
        unsafe { _mm256_cvtepi32_ps(a) }
    }
    #[inline(always)]
    unsafe fn to_i32(a: __m256) -> __m256i {
        unsafe { _mm256_cvtps_epi32(a) }
    }
    #[inline(always)]
    unsafe fn fsplat(x: f32) -> __m256 {
        unsafe { _mm256_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn fload(p: *const f32) -> __m256 {
        unsafe { _mm256_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn fload_f16(p: *const u8) -> __m256 {
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(p.cast())) }
    }
    #[inline(always)]
    unsafe fn fload_bf16(p: *const u8) -> __m256 {
        unsafe {
            let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
        }
    }
    #[inline(always)]
    unsafe fn fload_i8(p: *const i8) -> __m256 {
        unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(p.cast()))) }
    }
    #[inline(always)]
    unsafe fn fstore(p: *mut f32, x: __m256) {
        unsafe { _mm256_storeu_ps(p, x) }
    }
    #[inline(always)]
    unsafe fn fstore_f16(p: *mut u8, x: __m256) {
        unsafe { _mm_storeu_si128(p.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(x)) }
    }
    #[inline(always)]
    unsafe fn fadd(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn fsub(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_sub_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn fmul(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn fdiv(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_div_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn fsum(a: __m256) -> f32 {
        unsafe {
            let x = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)))
        }
    }
}

/// 16 bytes of rows `e` and `4 + e`, one in each part. A function, since a closure that is not inlined is
/// compiled for the baseline.
#[inline(always)]
unsafe fn rows(p: *const u8, stride: usize, e: usize) -> __m256i {
    unsafe {
        let low = _mm256_castsi128_si256(_mm_loadu_si128(p.add(e * stride).cast()));
        _mm256_inserti128_si256::<1>(low, _mm_loadu_si128(p.add((4 + e) * stride).cast()))
    }
}

/// The 16 bytes at `p` in every part.
#[inline(always)]
unsafe fn repeat16(p: *const u8) -> __m256i {
    unsafe { _mm256_broadcastsi128_si256(_mm_loadu_si128(p.cast())) }
}

impl Parts for V256 {
    #[inline(always)]
    unsafe fn shuffle(a: __m256i, index: __m256i) -> __m256i {
        unsafe { _mm256_shuffle_epi8(a, index) }
    }
    #[inline(always)]
    unsafe fn splat64(x: u64) -> __m256i {
        unsafe { _mm256_set1_epi64x(x as i64) }
    }
    #[inline(always)]
    unsafe fn splat128(low: u64, high: u64) -> __m256i {
        unsafe { _mm256_broadcastsi128_si256(_mm_set_epi64x(high as i64, low as i64)) }
    }
    #[inline(always)]
    unsafe fn two(first: i32, _: i32) -> __m256i {
        unsafe { _mm256_set1_epi32(first) }
    }
    #[inline(always)]
    unsafe fn pairs16(p: *const u8, _: *const u8) -> __m256i {
        unsafe { repeat16(p) }
    }
    #[inline(always)]
    unsafe fn pairs32(p: *const u8, _: *const u8) -> __m256i {
        unsafe { _mm256_loadu_si256(p.cast()) }
    }
    #[inline(always)]
    unsafe fn sixteens(x: u32, _: u32) -> __m256i {
        unsafe {
            // Byte i / 8 of `x` to byte i, then bit i % 8 of it.
            let to =
                _mm256_setr_epi64x(0, 0x0101_0101_0101_0101, 0x0202_0202_0202_0202, 0x0303_0303_0303_0303);
            let bit = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
            let x = _mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32(x as i32), to), bit);
            _mm256_and_si256(_mm256_cmpeq_epi8(x, bit), _mm256_set1_epi8(16))
        }
    }
    #[inline(always)]
    unsafe fn shr_each(a: __m256i, n: __m256i) -> __m256i {
        unsafe { _mm256_srlv_epi32(a, n) }
    }
    #[inline(always)]
    unsafe fn rol_each(a: __m256i, n: __m256i) -> __m256i {
        // A shift by 32 gives 0.
        unsafe {
            let back = _mm256_sub_epi32(_mm256_set1_epi32(32), n);
            _mm256_or_si256(_mm256_sllv_epi32(a, n), _mm256_srlv_epi32(a, back))
        }
    }
    #[inline(always)]
    unsafe fn sra16<const N: u32>(a: __m256i) -> __m256i {
        unsafe { _mm256_sra_epi16(a, _mm_cvtsi32_si128(N as i32)) }
    }
    #[inline(always)]
    unsafe fn pack(a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_packs_epi32(a, b) }
    }
    #[inline(always)]
    unsafe fn widen_i8(p: *const u8) -> __m256i {
        unsafe { _mm256_cvtepi8_epi16(_mm_loadu_si128(p.cast())) }
    }
    #[inline(always)]
    unsafe fn widen_u8(p: *const u8) -> __m256i {
        unsafe { _mm256_cvtepu8_epi16(_mm_loadu_si128(p.cast())) }
    }
    #[inline(always)]
    unsafe fn sum4([a, b, c, d]: [__m256i; 4]) -> __m256i {
        unsafe {
            let ab = _mm256_add_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
            let cd = _mm256_add_epi32(_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
            _mm256_add_epi32(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd))
        }
    }
    #[inline(always)]
    unsafe fn fold(p: *const i32) -> __m256i {
        unsafe { Self::fold_pairs(Self::load(p), Self::load(p.add(8))) }
    }
    #[inline(always)]
    unsafe fn fold_pairs(a: __m256i, b: __m256i) -> __m256i {
        unsafe {
            let even = _mm256_permute2x128_si256::<0x20>(a, b);
            _mm256_add_epi32(even, _mm256_permute2x128_si256::<0x31>(a, b))
        }
    }
}

/// AVX2 with VNNI: four byte products and their sum in one instruction.
#[derive(Clone, Copy)]
pub(crate) struct AvxVnni;

impl Unit for AvxVnni {
    type V = V256;
    const INT8: Peak = peak_x86::VPDPBUSD_YMM;
    const F32: Peak = peak_x86::VFMADD_YMM;
}

impl Tiled for AvxVnni {
    const HEIGHT: usize = 1;
    const COLUMNS: usize = 6;
    const WIDE_SIGNED: bool = false;

    #[inline(always)]
    unsafe fn dot4(acc: __m256i, w: __m256i, a: __m256i) -> __m256i {
        unsafe { _mm256_dpbusd_avx_epi32(acc, w, a) }
    }
    #[inline(always)]
    unsafe fn dot4_wide(acc: __m256i, w: __m256i, a: __m256i) -> __m256i {
        unsafe { Self::dot4(acc, w, a) }
    }
    #[inline(always)]
    unsafe fn dot2(acc: __m256i, w: __m256i, a: __m256i) -> __m256i {
        unsafe { _mm256_dpwssd_avx_epi32(acc, w, a) }
    }
}

/// AVX2 without VNNI.
#[derive(Clone, Copy)]
pub(crate) struct Avx2;

impl Unit for Avx2 {
    type V = V256;
    const INT8: Peak = peak_x86::VPMADDUBSW_YMM;
    const F32: Peak = peak_x86::VFMADD_YMM;
}

impl Tiled for Avx2 {
    const HEIGHT: usize = 1;
    const COLUMNS: usize = 4;
    const WIDE_SIGNED: bool = true;

    #[inline(always)]
    unsafe fn dot4(acc: __m256i, w: __m256i, a: __m256i) -> __m256i {
        // Two products of a byte below 128 and one of at most 127 in magnitude fit i16: 2 * 127 * 128 < 2^15.
        unsafe {
            let pairs = _mm256_maddubs_epi16(w, a);
            _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
    }
    #[inline(always)]
    unsafe fn dot4_wide(acc: __m256i, w: __m256i, a: __m256i) -> __m256i {
        // |w| * (a with the sign of w); sums are at most 2 * 128 * 127 < 2^15.
        unsafe {
            let w = _mm256_xor_si256(w, _mm256_set1_epi8(-128));
            let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(a, w));
            _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
    }
    #[inline(always)]
    unsafe fn dot2(acc: __m256i, w: __m256i, a: __m256i) -> __m256i {
        unsafe { _mm256_add_epi32(acc, _mm256_madd_epi16(w, a)) }
    }
}
