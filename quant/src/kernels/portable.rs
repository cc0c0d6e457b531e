//! Vectors of portable code: plain arrays, of any number of lanes.
//!
//! One lane decodes rescaled weights row by row. Four lanes are what the baseline of every architecture has
//! (SSE2, NEON): attention of the scalar ISA, and the products of the units that are references for NEON.

#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "every block here is the body of an unsafe function and rests on the promises of its callers"
)]

use super::vector::{Parts, Vector};
use crate::formats::F16;
use std::array::from_fn;

/// `N` lanes.
#[derive(Clone, Copy)]
pub(crate) struct Portable<const N: usize>;

/// Multiplication and addition in one rounding cost nothing extra on AArch64; elsewhere the portable code
/// must not ask for it, a call of `fmaf` per value.
const FUSED: bool = cfg!(any(target_arch = "aarch64", target_feature = "fma"));

/// `f` of each lane.
#[inline(always)]
fn each<A: Copy, B: Copy, const N: usize>(a: [A; N], f: impl Fn(A) -> B) -> [B; N] {
    from_fn(|i| f(a[i]))
}

/// `f` of each pair of lanes.
#[inline(always)]
fn zip<A: Copy, const N: usize>(a: [A; N], b: [A; N], f: impl Fn(A, A) -> A) -> [A; N] {
    from_fn(|i| f(a[i], b[i]))
}

/// The i16 halves of a lane, the low one first.
#[inline(always)]
fn words(a: i32) -> [i16; 2] {
    [a as i16, (a >> 16) as i16]
}

/// The other way round.
#[inline(always)]
fn join([low, high]: [i16; 2]) -> i32 {
    i32::from(low as u16) | i32::from(high) << 16
}

/// `f` of each i16 half of a lane.
#[inline(always)]
fn zip16<const N: usize>(a: [i32; N], b: [i32; N], f: impl Fn(i16, i16) -> i16) -> [i32; N] {
    zip(a, b, |a, b| {
        let (a, b) = (words(a), words(b));
        join([f(a[0], b[0]), f(a[1], b[1])])
    })
}

impl<const N: usize> Vector for Portable<N> {
    const LANES: usize = N;
    const REGISTERS: usize = 16;
    const FUSED: bool = FUSED;
    type I = [i32; N];
    type F = [f32; N];

    #[inline(always)]
    unsafe fn splat(x: i32) -> [i32; N] {
        [x; N]
    }
    #[inline(always)]
    unsafe fn load(p: *const i32) -> [i32; N] {
        unsafe { p.cast::<[i32; N]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(p: *mut i32, x: [i32; N]) {
        unsafe { p.cast::<[i32; N]>().write_unaligned(x) }
    }
    #[inline(always)]
    unsafe fn and(a: [i32; N], b: [i32; N]) -> [i32; N] {
        zip(a, b, |a, b| a & b)
    }
    #[inline(always)]
    unsafe fn or(a: [i32; N], b: [i32; N]) -> [i32; N] {
        zip(a, b, |a, b| a | b)
    }
    #[inline(always)]
    unsafe fn xor(a: [i32; N], b: [i32; N]) -> [i32; N] {
        zip(a, b, |a, b| a ^ b)
    }
    #[inline(always)]
    unsafe fn add(a: [i32; N], b: [i32; N]) -> [i32; N] {
        zip(a, b, i32::wrapping_add)
    }
    #[inline(always)]
    unsafe fn sub(a: [i32; N], b: [i32; N]) -> [i32; N] {
        zip(a, b, i32::wrapping_sub)
    }
    #[inline(always)]
    unsafe fn mul(a: [i32; N], b: [i32; N]) -> [i32; N] {
        zip(a, b, i32::wrapping_mul)
    }
    #[inline(always)]
    unsafe fn shl(a: [i32; N], n: u32) -> [i32; N] {
        each(a, |a| a << n)
    }
    #[inline(always)]
    unsafe fn shr(a: [i32; N], n: u32) -> [i32; N] {
        each(a, |a| (a as u32 >> n) as i32)
    }
    #[inline(always)]
    unsafe fn sra(a: [i32; N], n: u32) -> [i32; N] {
        each(a, |a| a >> n)
    }
    #[inline(always)]
    unsafe fn max(a: [i32; N], b: [i32; N]) -> [i32; N] {
        zip(a, b, i32::max)
    }
    #[inline(always)]
    unsafe fn add16(a: [i32; N], b: [i32; N]) -> [i32; N] {
        zip16(a, b, i16::wrapping_add)
    }
    #[inline(always)]
    unsafe fn mulhrs(a: [i32; N], b: [i32; N]) -> [i32; N] {
        zip16(a, b, |a, b| ((i32::from(a) * i32::from(b) + (1 << 14)) >> 15) as i16)
    }
    #[inline(always)]
    unsafe fn lookup(table: &[u8; 16], index: [i32; N]) -> [i32; N] {
        each(index, |i| i32::from_le_bytes(i.to_le_bytes().map(|i| table[usize::from(i & 15)])))
    }
    #[inline(always)]
    unsafe fn columns(p: *const u8, stride: usize) -> [[i32; N]; 4] {
        let dword = |row: usize, t: usize| unsafe { p.add(row * stride + 4 * t).cast::<[u8; 4]>().read() };
        from_fn(|t| from_fn(|row| i32::from_le_bytes(dword(row, t))))
    }
    #[inline(always)]
    unsafe fn column_u16(p: *const u8, stride: usize) -> [i32; N] {
        let word = |row: usize| unsafe { p.add(row * stride).cast::<[u8; 2]>().read() };
        from_fn(|row| i32::from(u16::from_le_bytes(word(row))))
    }
    #[inline(always)]
    unsafe fn column_u32(p: *const u8, stride: usize) -> [i32; N] {
        let dword = |row: usize| unsafe { p.add(row * stride).cast::<[u8; 4]>().read() };
        from_fn(|row| i32::from_le_bytes(dword(row)))
    }
    #[inline(always)]
    unsafe fn halves(a: [i32; N]) -> [f32; N] {
        each(a, |a| bytemuck::cast::<_, F16>((a as u16).to_le_bytes()).to_f32())
    }
    #[inline(always)]
    unsafe fn as_f32(a: [i32; N]) -> [f32; N] {
        each(a, |a| f32::from_bits(a as u32))
    }
    #[inline(always)]
    unsafe fn as_i32(a: [f32; N]) -> [i32; N] {
        each(a, |a| a.to_bits() as i32)
    }
    #[inline(always)]
    unsafe fn from_i32(a: [i32; N]) -> [f32; N] {
        each(a, |a| a as f32)
    }
    #[inline(always)]
    unsafe fn to_i32(a: [f32; N]) -> [i32; N] {
        // 2^31 is a float.
        each(a, |a| if a.abs() < 2_147_483_648.0 { a.round_ties_even() as i32 } else { i32::MIN })
    }
    #[inline(always)]
    unsafe fn fsplat(x: f32) -> [f32; N] {
        [x; N]
    }
    #[inline(always)]
    unsafe fn fload(p: *const f32) -> [f32; N] {
        unsafe { p.cast::<[f32; N]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn fload_f16(p: *const u8) -> [f32; N] {
        each(unsafe { p.cast::<[F16; N]>().read() }, F16::to_f32)
    }
    #[inline(always)]
    unsafe fn fload_bf16(p: *const u8) -> [f32; N] {
        each(unsafe { p.cast::<[[u8; 2]; N]>().read() }, |x| {
            f32::from_bits(u32::from(u16::from_le_bytes(x)) << 16)
        })
    }
    #[inline(always)]
    unsafe fn fload_i8(p: *const i8) -> [f32; N] {
        each(unsafe { p.cast::<[i8; N]>().read() }, f32::from)
    }
    #[inline(always)]
    unsafe fn fstore(p: *mut f32, x: [f32; N]) {
        unsafe { p.cast::<[f32; N]>().write_unaligned(x) }
    }
    #[inline(always)]
    unsafe fn fstore_f16(p: *mut u8, x: [f32; N]) {
        unsafe { p.cast::<[F16; N]>().write(each(x, F16::from_f32)) }
    }
    #[inline(always)]
    unsafe fn fadd(a: [f32; N], b: [f32; N]) -> [f32; N] {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn fsub(a: [f32; N], b: [f32; N]) -> [f32; N] {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn fmul(a: [f32; N], b: [f32; N]) -> [f32; N] {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn fdiv(a: [f32; N], b: [f32; N]) -> [f32; N] {
        zip(a, b, |a, b| a / b)
    }
    #[inline(always)]
    unsafe fn fma(a: [f32; N], b: [f32; N], c: [f32; N]) -> [f32; N] {
        from_fn(|i| if FUSED { a[i].mul_add(b[i], c[i]) } else { a[i] * b[i] + c[i] })
    }
    #[inline(always)]
    unsafe fn fsum(mut a: [f32; N]) -> f32 {
        let mut n = N;
        while n > 1 {
            n /= 2;
            for i in 0..n {
                a[i] += a[i + n];
            }
        }
        a[0]
    }
}

/// The bytes of four lanes.
#[inline(always)]
pub(crate) fn bytes(a: [i32; 4]) -> [u8; 16] {
    bytemuck::cast(a.map(i32::to_le))
}

/// The other way round.
#[inline(always)]
fn lanes(a: [u8; 16]) -> [i32; 4] {
    bytemuck::cast::<_, [i32; 4]>(a).map(i32::from_le)
}

/// `acc` plus, per lane, the four products of bytes `w`, that `widen` takes as signed or unsigned, with
/// signed bytes `a`.
#[inline(always)]
pub(crate) fn dot4<const N: usize>(
    acc: [i32; N],
    w: [i32; N],
    a: [i32; N],
    widen: impl Fn(u8) -> i32,
) -> [i32; N] {
    from_fn(|i| {
        let (w, a) = (w[i].to_le_bytes(), a[i].to_le_bytes());
        w.iter().zip(a).fold(acc[i], |sum, (&w, a)| sum.wrapping_add(widen(w) * i32::from(a as i8)))
    })
}

/// `acc` plus, per lane, the two products of i16.
#[inline(always)]
pub(crate) fn dot2<const N: usize>(acc: [i32; N], w: [i32; N], a: [i32; N]) -> [i32; N] {
    from_fn(|i| {
        let ([w0, w1], [a0, a1]) = (words(w[i]), words(a[i]));
        let sum = i32::from(w0).wrapping_mul(i32::from(a0)).wrapping_add(i32::from(w1) * i32::from(a1));
        acc[i].wrapping_add(sum)
    })
}

/// One part.
impl Parts for Portable<4> {
    #[inline(always)]
    unsafe fn shuffle(a: [i32; 4], index: [i32; 4]) -> [i32; 4] {
        let a = bytes(a);
        lanes(each(bytes(index), |i| if i < 128 { a[usize::from(i & 15)] } else { 0 }))
    }
    #[inline(always)]
    unsafe fn splat64(x: u64) -> [i32; 4] {
        [x as i32, (x >> 32) as i32, x as i32, (x >> 32) as i32]
    }
    #[inline(always)]
    unsafe fn splat128(low: u64, high: u64) -> [i32; 4] {
        [low as i32, (low >> 32) as i32, high as i32, (high >> 32) as i32]
    }
    #[inline(always)]
    unsafe fn two(first: i32, _: i32) -> [i32; 4] {
        [first; 4]
    }
    #[inline(always)]
    unsafe fn pairs16(p: *const u8, _: *const u8) -> [i32; 4] {
        lanes(unsafe { p.cast::<[u8; 16]>().read() })
    }
    #[inline(always)]
    unsafe fn pairs32(p: *const u8, _: *const u8) -> [i32; 4] {
        lanes(unsafe { p.cast::<[u8; 16]>().read() })
    }
    #[inline(always)]
    unsafe fn sixteens(x: u32, _: u32) -> [i32; 4] {
        lanes(from_fn(|i| (x >> i & 1) as u8 * 16))
    }
    #[inline(always)]
    unsafe fn shr_each(a: [i32; 4], n: [i32; 4]) -> [i32; 4] {
        zip(a, n, |a, n| (a as u32 >> n) as i32)
    }
    #[inline(always)]
    unsafe fn rol_each(a: [i32; 4], n: [i32; 4]) -> [i32; 4] {
        zip(a, n, |a, n| a.rotate_left(n as u32))
    }
    #[inline(always)]
    unsafe fn sra16<const S: u32>(a: [i32; 4]) -> [i32; 4] {
        each(a, |a| join(words(a).map(|a| a >> S)))
    }
    #[inline(always)]
    unsafe fn pack(a: [i32; 4], b: [i32; 4]) -> [i32; 4] {
        let word = |x: i32| x.clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16;
        let two = |x: [i32; 4], i: usize| join([word(x[i]), word(x[i + 1])]);
        [two(a, 0), two(a, 2), two(b, 0), two(b, 2)]
    }
    #[inline(always)]
    unsafe fn widen_i8(p: *const u8) -> [i32; 4] {
        let x = unsafe { p.cast::<[i8; 8]>().read() };
        from_fn(|i| join([i16::from(x[2 * i]), i16::from(x[2 * i + 1])]))
    }
    #[inline(always)]
    unsafe fn widen_u8(p: *const u8) -> [i32; 4] {
        let x = unsafe { p.cast::<[u8; 8]>().read() };
        from_fn(|i| join([i16::from(x[2 * i]), i16::from(x[2 * i + 1])]))
    }
    #[inline(always)]
    unsafe fn sum4(x: [[i32; 4]; 4]) -> [i32; 4] {
        each(x, |x| x[0].wrapping_add(x[1]).wrapping_add(x[2]).wrapping_add(x[3]))
    }
    #[inline(always)]
    unsafe fn fold(p: *const i32) -> [i32; 4] {
        unsafe { Self::load(p) }
    }
    #[inline(always)]
    unsafe fn fold_pairs(a: [i32; 4], b: [i32; 4]) -> [i32; 4] {
        zip(a, b, i32::wrapping_add)
    }
}
