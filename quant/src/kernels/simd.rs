//! What a vector unit offers to the kernels: a few operations on 32-bit lanes, one implementation per ISA.
//!
//! Every method is `unsafe` for one reason: the caller must run on a CPU that has the implementation's instruction
//! sets. Methods that take a pointer also read or write what they say behind it. All of them are inlined into the
//! `#[target_feature]` functions that `table` makes of each level; none is ever called on its own.

#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "every block here is the body of an unsafe function and rests on what that function asks of its callers"
)]

/// What unpacking a format takes. See the module for what callers must make sure of.
pub(super) trait Unit: Copy {
    /// 32-bit lanes of a vector.
    const LANES: usize;
    /// Integers: lanes of i32, or four bytes in each, or two i16.
    type I: Copy;
    /// Lanes of f32.
    type F: Copy;
    /// Every lane `x`.
    unsafe fn splat(x: i32) -> Self::I;
    /// Reads `LANES` lanes; no alignment needed.
    unsafe fn load(p: *const i32) -> Self::I;
    /// Writes `LANES` lanes; no alignment needed.
    unsafe fn store(p: *mut i32, x: Self::I);
    /// Bitwise and.
    unsafe fn and(a: Self::I, b: Self::I) -> Self::I;
    /// Bitwise or.
    unsafe fn or(a: Self::I, b: Self::I) -> Self::I;
    /// Bitwise exclusive or.
    unsafe fn xor(a: Self::I, b: Self::I) -> Self::I;
    /// Sum, wrapping.
    unsafe fn add(a: Self::I, b: Self::I) -> Self::I;
    /// Difference, wrapping.
    unsafe fn sub(a: Self::I, b: Self::I) -> Self::I;
    /// Low 32 bits of the product.
    unsafe fn mul(a: Self::I, b: Self::I) -> Self::I;
    /// Logical shift left by `n < 32`.
    unsafe fn shl(a: Self::I, n: u32) -> Self::I;
    /// Logical shift right by `n < 32`.
    unsafe fn shr(a: Self::I, n: u32) -> Self::I;
    /// Arithmetic shift right by `n < 32`.
    unsafe fn sra(a: Self::I, n: u32) -> Self::I;
    /// Each byte of `index` (below 16) replaced by that byte of `table`.
    unsafe fn lookup(table: &[u8; 16], index: Self::I) -> Self::I;
    /// Transposes 16 bytes of each of `LANES` rows, row `i` at `p + i * stride`: lane `i` of vector `t` is the
    /// `t`-th dword of row `i`.
    unsafe fn columns(p: *const u8, stride: usize) -> [Self::I; 4];
    /// Two bytes of each of `LANES` rows, zero-extended.
    unsafe fn column_u16(p: *const u8, stride: usize) -> Self::I;
    /// Four bytes of each of `LANES` rows.
    unsafe fn column_u32(p: *const u8, stride: usize) -> Self::I;
    /// The low 16 bits of each lane as an f16, widened; higher bits are ignored.
    unsafe fn halves(a: Self::I) -> Self::F;
    /// The same bits.
    unsafe fn as_f32(a: Self::I) -> Self::F;
    /// Rounds to nearest, ties to even.
    unsafe fn from_i32(a: Self::I) -> Self::F;
    /// Every lane `x`.
    unsafe fn fsplat(x: f32) -> Self::F;
    /// Reads `LANES` values; no alignment needed.
    unsafe fn fload(p: *const f32) -> Self::F;
    /// Writes `LANES` values; no alignment needed.
    unsafe fn fstore(p: *mut f32, x: Self::F);
    /// Sum.
    unsafe fn fadd(a: Self::F, b: Self::F) -> Self::F;
    /// Difference.
    unsafe fn fsub(a: Self::F, b: Self::F) -> Self::F;
    /// Product.
    unsafe fn fmul(a: Self::F, b: Self::F) -> Self::F;
    /// Sum of i16 lanes, wrapping.
    unsafe fn add16(a: Self::I, b: Self::I) -> Self::I;
    /// `(a * b + 2^14) >> 15` of i16 lanes; not both -2^15.
    unsafe fn mulhrs(a: Self::I, b: Self::I) -> Self::I;
    /// The greater of i32 lanes.
    unsafe fn max(a: Self::I, b: Self::I) -> Self::I;
    /// The same bits.
    unsafe fn as_i32(a: Self::F) -> Self::I;
    /// To the nearest integer, ties to even; `i32::MIN` for what does not fit and for NaN.
    unsafe fn to_i32(a: Self::F) -> Self::I;
    /// Quotient.
    unsafe fn fdiv(a: Self::F, b: Self::F) -> Self::F;
}

/// A vector unit: what products take besides.
pub(super) trait Simd: Unit {
    /// Whether [`dot4`](Self::dot4) takes every unsigned byte. Where it does not, bytes must be below 128, and wide
    /// formats go through [`dot4_signed`](Self::dot4_signed).
    const DOT4_WIDE: bool;
    /// `acc` plus, per lane, the four products of unsigned bytes `w` with signed bytes `a`. Exact.
    unsafe fn dot4(acc: Self::I, w: Self::I, a: Self::I) -> Self::I;
    /// The same with signed bytes `w`; `a` must not be -128.
    unsafe fn dot4_signed(acc: Self::I, w: Self::I, a: Self::I) -> Self::I;
    /// `acc` plus, per lane, the two products of i16. Exact.
    unsafe fn dot2(acc: Self::I, w: Self::I, a: Self::I) -> Self::I;
    /// In every quarter: byte `index` of `a`'s quarter, 0 where `index` is 128 or more.
    unsafe fn shuffle(a: Self::I, index: Self::I) -> Self::I;
    /// The 16 bytes at `p` in every quarter.
    unsafe fn quarters(p: *const u8) -> Self::I;
    /// `x` in every 64 bits.
    unsafe fn splat64(x: u64) -> Self::I;
    /// `low` and `high` in every 128 bits.
    unsafe fn splat128(low: u64, high: u64) -> Self::I;
    /// `lower` in the lanes of the lower half, `upper` in the others; a vector of 256 bits is one half, the lower.
    unsafe fn two(lower: i32, upper: i32) -> Self::I;
    /// The 16 bytes at `p` in the quarters of the lower half, those at `q` in the upper; halves as above.
    unsafe fn pair16(p: *const u8, q: *const u8) -> Self::I;
    /// The 32 bytes at `p` in the lower half, those at `q` in the upper; halves as above.
    unsafe fn pair32(p: *const u8, q: *const u8) -> Self::I;
    /// 16 in byte `i` of the lower half where bit `i` of `x` is set, likewise of the upper for `y`; halves as above.
    unsafe fn sixteens(x: u32, y: u32) -> Self::I;
    /// Logical shift right of each lane by that lane of `n`.
    unsafe fn shr_each(a: Self::I, n: Self::I) -> Self::I;
    /// Rotates each lane left by that lane of `n < 32`.
    unsafe fn rol_each(a: Self::I, n: Self::I) -> Self::I;
    /// Arithmetic shift right of i16 lanes.
    unsafe fn sra16<const N: u32>(a: Self::I) -> Self::I;
    /// Lanes to i16, saturating; in every quarter four of `a`, then four of `b`.
    unsafe fn pack(a: Self::I, b: Self::I) -> Self::I;
    /// `2 LANES` signed bytes at `p` to i16.
    unsafe fn widen_i8(p: *const u8) -> Self::I;
    /// `2 LANES` unsigned bytes at `p` to i16.
    unsafe fn widen_u8(p: *const u8) -> Self::I;
    /// In every quarter: the sums of the quarter's lanes of each of four vectors.
    unsafe fn sum4(x: [Self::I; 4]) -> Self::I;
    /// Adds the quarters of each of the `LANES / 4` vectors at `p`: the first vector's four sums, then the next one's.
    unsafe fn fold(p: *const i32) -> Self::I;
    /// Adds the two quarters of each half: `a`'s halves, four sums each, then `b`'s. Halves as above.
    unsafe fn fold_halves(a: Self::I, b: Self::I) -> Self::I;
    /// Reads and widens `LANES` halves; no alignment needed.
    unsafe fn fload_f16(p: *const u8) -> Self::F;
    /// Reads and widens `LANES` bfloat16; no alignment needed.
    unsafe fn fload_bf16(p: *const u8) -> Self::F;
    /// `a * b + c`, rounded once.
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// Sum of the lanes, halves folded onto each other.
    unsafe fn fsum(a: Self::F) -> f32;
    /// Asks for the cache line at `p`, which may lie anywhere.
    unsafe fn prefetch(p: *const u8);
}
