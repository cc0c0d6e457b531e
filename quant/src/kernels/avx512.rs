//! 512-bit vectors: AVX-512 F, BW, DQ, VL, with VNNI or without.

#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "every block here is the body of an unsafe function and rests on the promises of its callers"
)]

use super::peak::Peak;
use super::peak_x86;
use super::unit::{Tiled, Unit};
use super::vector::{Parts, Vector};
use std::arch::x86_64::*;

/// Vectors of 512 bits.
#[derive(Clone, Copy)]
pub(crate) struct V512;

impl Vector for V512 {
    const LANES: usize = 16;
    const REGISTERS: usize = 32;
    const FUSED: bool = true;
    type I = __m512i;
    type F = __m512;

    #[inline(always)]
    unsafe fn splat(x: i32) -> __m512i {
        unsafe { _mm512_set1_epi32(x) }
    }
    #[inline(always)]
    unsafe fn load(p: *const i32) -> __m512i {
        unsafe { _mm512_loadu_si512(p.cast()) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut i32, x: __m512i) {
        unsafe { _mm512_storeu_si512(p.cast(), x) }
    }
    #[inline(always)]
    unsafe fn and(a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_and_si512(a, b) }
    }
    #[inline(always)]
    unsafe fn or(a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_or_si512(a, b) }
    }
    #[inline(always)]
    unsafe fn xor(a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_xor_si512(a, b) }
    }
    #[inline(always)]
    unsafe fn add(a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_add_epi32(a, b) }
    }
    #[inline(always)]
    unsafe fn sub(a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_sub_epi32(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_mullo_epi32(a, b) }
    }
    #[inline(always)]
    unsafe fn shl(a: __m512i, n: u32) -> __m512i {
        unsafe { _mm512_sll_epi32(a, _mm_cvtsi32_si128(n as i32)) }
    }
    #[inline(always)]
    unsafe fn shr(a: __m512i, n: u32) -> __m512i {
        unsafe { _mm512_srl_epi32(a, _mm_cvtsi32_si128(n as i32)) }
    }
    #[inline(always)]
    unsafe fn sra(a: __m512i, n: u32) -> __m512i {
        unsafe { _mm512_sra_epi32(a, _mm_cvtsi32_si128(n as i32)) }
    }
    #[inline(always)]
    unsafe fn max(a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_max_epi32(a, b) }
    }
    #[inline(always)]
    unsafe fn add16(a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_add_epi16(a, b) }
    }
    #[inline(always)]
    unsafe fn mulhrs(a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_mulhrs_epi16(a, b) }
    }
    #[inline(always)]
    unsafe fn lookup(table: &[u8; 16], index: __m512i) -> __m512i {
        unsafe { <Self as Parts>::shuffle(repeat16(table.as_ptr()), index) }
    }
    #[inline(always)]
    unsafe fn columns(p: *const u8, stride: usize) -> [__m512i; 4] {
        unsafe {
            let (r0, r1) = (rows(p, stride, 0), rows(p, stride, 1));
            let (r2, r3) = (rows(p, stride, 2), rows(p, stride, 3));
            let (lo01, hi01) = (_mm512_unpacklo_epi32(r0, r1), _mm512_unpackhi_epi32(r0, r1));
            let (lo23, hi23) = (_mm512_unpacklo_epi32(r2, r3), _mm512_unpackhi_epi32(r2, r3));
            [
                _mm512_unpacklo_epi64(lo01, lo23),
                _mm512_unpackhi_epi64(lo01, lo23),
                _mm512_unpacklo_epi64(hi01, hi23),
                _mm512_unpackhi_epi64(hi01, hi23),
            ]
        }
    }
    #[inline(always)]
    unsafe fn column_u16(p: *const u8, stride: usize) -> __m512i {
        unsafe {
            let v: [u16; 16] = std::array::from_fn(|i| p.add(i * stride).cast::<u16>().read_unaligned());
            _mm512_cvtepu16_epi32(_mm256_loadu_si256(v.as_ptr().cast()))
        }
    }
    #[inline(always)]
    unsafe fn column_u32(p: *const u8, stride: usize) -> __m512i {
        unsafe {
            let v: [u32; 16] = std::array::from_fn(|i| p.add(i * stride).cast::<u32>().read_unaligned());
            _mm512_loadu_si512(v.as_ptr().cast())
        }
    }
    #[inline(always)]
    unsafe fn halves(a: __m512i) -> __m512 {
        unsafe { _mm512_cvtph_ps(_mm512_cvtepi32_epi16(a)) }
    }
    #[inline(always)]
    unsafe fn as_f32(a: __m512i) -> __m512 {
        unsafe { _mm512_castsi512_ps(a) }
    }
    #[inline(always)]
    unsafe fn as_i32(a: __m512) -> __m512i {
        unsafe { _mm512_castps_si512(a) }
    }
    #[inline(always)]
    unsafe fn from_i32(a: __m512i) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(a) }
    }
    #[inline(always)]
    unsafe fn to_i32(a: __m512) -> __m512i {
        unsafe { _mm512_cvtps_epi32(a) }
    }
    #[inline(always)]
    unsafe fn fsplat(x: f32) -> __m512 {
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn fload(p: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn fload_f16(p: *const u8) -> __m512 {
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
    }
    #[inline(always)]
    unsafe fn fload_bf16(p: *const u8) -> __m512 {
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        }
    }
    #[inline(always)]
    unsafe fn fload_i8(p: *const i8) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast()))) }
    }
    #[inline(always)]
    unsafe fn fstore(p: *mut f32, x: __m512) {
        unsafe { _mm512_storeu_ps(p, x) }
    }
    #[inline(always)]
    unsafe fn fstore_f16(p: *mut u8, x: __m512) {
        unsafe { _mm256_storeu_si256(p.cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(x)) }
    }
    #[inline(always)]
    unsafe fn fadd(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn fsub(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn fmul(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn fdiv(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_div_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn fsum(a: __m512) -> f32 {
        unsafe { _mm512_reduce_add_ps(a) }
    }
}

/// 16 bytes of rows `e`, `4 + e`, `8 + e`, `12 + e`, one in each part; loads merge without a shuffle. A
/// function, since a closure that is not inlined is compiled for the baseline.
#[inline(always)]
unsafe fn rows(p: *const u8, stride: usize, e: usize) -> __m512i {
    unsafe {
        let v = _mm512_castsi128_si512(_mm_loadu_si128(p.add(e * stride).cast()));
        let v = _mm512_mask_broadcast_i32x4(v, 0x00f0, _mm_loadu_si128(p.add((4 + e) * stride).cast()));
        let v = _mm512_mask_broadcast_i32x4(v, 0x0f00, _mm_loadu_si128(p.add((8 + e) * stride).cast()));
        _mm512_mask_broadcast_i32x4(v, 0xf000, _mm_loadu_si128(p.add((12 + e) * stride).cast()))
    }
}

/// The 16 bytes at `p` in every part.
#[inline(always)]
unsafe fn repeat16(p: *const u8) -> __m512i {
    unsafe { _mm512_broadcast_i32x4(_mm_loadu_si128(p.cast())) }
}

impl Parts for V512 {
    #[inline(always)]
    unsafe fn shuffle(a: __m512i, index: __m512i) -> __m512i {
        unsafe { _mm512_shuffle_epi8(a, index) }
    }
    #[inline(always)]
    unsafe fn splat64(x: u64) -> __m512i {
        unsafe { _mm512_set1_epi64(x as i64) }
    }
    #[inline(always)]
    unsafe fn splat128(low: u64, high: u64) -> __m512i {
        unsafe { _mm512_broadcast_i32x4(_mm_set_epi64x(high as i64, low as i64)) }
    }
    #[inline(always)]
    unsafe fn two(first: i32, second: i32) -> __m512i {
        unsafe { _mm512_mask_set1_epi32(_mm512_set1_epi32(first), 0xff00, second) }
    }
    #[inline(always)]
    unsafe fn pairs16(p: *const u8, q: *const u8) -> __m512i {
        unsafe {
            let p = _mm512_broadcast_i32x4(_mm_loadu_si128(p.cast()));
            _mm512_mask_broadcast_i32x4(p, 0xff00, _mm_loadu_si128(q.cast()))
        }
    }
    #[inline(always)]
    unsafe fn pairs32(p: *const u8, q: *const u8) -> __m512i {
        unsafe {
            let p = _mm512_castsi256_si512(_mm256_loadu_si256(p.cast()));
            _mm512_inserti64x4::<1>(p, _mm256_loadu_si256(q.cast()))
        }
    }
    #[inline(always)]
    unsafe fn sixteens(x: u32, y: u32) -> __m512i {
        unsafe { _mm512_maskz_set1_epi8(u64::from(x) | u64::from(y) << 32, 16) }
    }
    #[inline(always)]
    unsafe fn shr_each(a: __m512i, n: __m512i) -> __m512i {
        unsafe { _mm512_srlv_epi32(a, n) }
    }
    #[inline(always)]
    unsafe fn rol_each(a: __m512i, n: __m512i) -> __m512i {
        unsafe { _mm512_rolv_epi32(a, n) }
    }
    #[inline(always)]
    unsafe fn sra16<const N: u32>(a: __m512i) -> __m512i {
        unsafe { _mm512_srai_epi16::<N>(a) }
    }
    #[inline(always)]
    unsafe fn pack(a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_packs_epi32(a, b) }
    }
    #[inline(always)]
    unsafe fn widen_i8(p: *const u8) -> __m512i {
        unsafe { _mm512_cvtepi8_epi16(_mm256_loadu_si256(p.cast())) }
    }
    #[inline(always)]
    unsafe fn widen_u8(p: *const u8) -> __m512i {
        unsafe { _mm512_cvtepu8_epi16(_mm256_loadu_si256(p.cast())) }
    }
    #[inline(always)]
    unsafe fn sum4([a, b, c, d]: [__m512i; 4]) -> __m512i {
        unsafe {
            let ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
            let cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
            _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd))
        }
    }
    #[inline(always)]
    unsafe fn fold(p: *const i32) -> __m512i {
        unsafe {
            let at = |i: usize| _mm512_loadu_si512(p.add(16 * i).cast());
            Self::fold_pairs(Self::fold_pairs(at(0), at(1)), Self::fold_pairs(at(2), at(3)))
        }
    }
    #[inline(always)]
    unsafe fn fold_pairs(a: __m512i, b: __m512i) -> __m512i {
        unsafe {
            let even = _mm512_shuffle_i32x4::<0b10_00_10_00>(a, b);
            _mm512_add_epi32(even, _mm512_shuffle_i32x4::<0b11_01_11_01>(a, b))
        }
    }
}

/// AVX-512 with VNNI: four byte products and their sum in one instruction.
#[derive(Clone, Copy)]
pub(crate) struct Avx512Vnni;

impl Unit for Avx512Vnni {
    type V = V512;
    const INT8: Peak = peak_x86::VPDPBUSD_ZMM;
    const F32: Peak = peak_x86::VFMADD_ZMM;
}

impl Tiled for Avx512Vnni {
    const HEIGHT: usize = 2;
    const COLUMNS: usize = 6;
    const WIDE_SIGNED: bool = false;

    #[inline(always)]
    unsafe fn dot4(acc: __m512i, w: __m512i, a: __m512i) -> __m512i {
        unsafe { _mm512_dpbusd_epi32(acc, w, a) }
    }
    #[inline(always)]
    unsafe fn dot4_wide(acc: __m512i, w: __m512i, a: __m512i) -> __m512i {
        unsafe { Self::dot4(acc, w, a) }
    }
    #[inline(always)]
    unsafe fn dot2(acc: __m512i, w: __m512i, a: __m512i) -> __m512i {
        unsafe { _mm512_dpwssd_epi32(acc, w, a) }
    }
}

/// AVX-512 without VNNI.
#[derive(Clone, Copy)]
pub(crate) struct Avx512;

impl Unit for Avx512 {
    type V = V512;
    const INT8: Peak = peak_x86::VPMADDUBSW_ZMM;
    const F32: Peak = peak_x86::VFMADD_ZMM;
}

impl Tiled for Avx512 {
    const HEIGHT: usize = 2;
    const COLUMNS: usize = 6;
    const WIDE_SIGNED: bool = true;

    #[inline(always)]
    unsafe fn dot4(acc: __m512i, w: __m512i, a: __m512i) -> __m512i {
        // Two products of a byte below 128 and one of at most 127 in magnitude fit i16: 2 * 127 * 128 < 2^15.
        unsafe {
            let pairs = _mm512_maddubs_epi16(w, a);
            _mm512_add_epi32(acc, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)))
        }
    }
    #[inline(always)]
    unsafe fn dot4_wide(acc: __m512i, w: __m512i, a: __m512i) -> __m512i {
        // |w| * (a with the sign of w); AVX-512 has no sign instruction. Sums are at most
        // 2 * 128 * 127 < 2^15.
        unsafe {
            let w = _mm512_xor_si512(w, _mm512_set1_epi8(-128));
            let negative = _mm512_movepi8_mask(w);
            let signed = _mm512_mask_sub_epi8(a, negative, _mm512_setzero_si512(), a);
            let pairs = _mm512_maddubs_epi16(_mm512_abs_epi8(w), signed);
            _mm512_add_epi32(acc, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)))
        }
    }
    #[inline(always)]
    unsafe fn dot2(acc: __m512i, w: __m512i, a: __m512i) -> __m512i {
        unsafe { _mm512_add_epi32(acc, _mm512_madd_epi16(w, a)) }
    }
}
