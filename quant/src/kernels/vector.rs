//! What a vector unit offers to all code that is written for any number of lanes: products, unpacking,
//! attention.
//!
//! Every method is `unsafe` for one reason: the caller must run on a CPU that has the implementation's
//! instruction sets. Methods that take a pointer also read or write what they say behind it. All of them are
//! inlined into the functions that [`Features::run`](super::unit::Features::run) compiles for an ISA; none is
//! ever called on its own.

#![allow(clippy::missing_safety_doc, reason = "what every method asks of its callers is said above, once")]

/// Vectors of `LANES` lanes of 32 bits.
pub trait Vector: Copy + 'static {
    /// 32-bit lanes of a vector.
    const LANES: usize;
    /// Vectors that the register file holds: how many accumulators a loop may have.
    const REGISTERS: usize;
    /// Whether [`fma`](Self::fma) rounds once. All units for which it does give the same bits in attention.
    const FUSED: bool;
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
    /// The greater of i32 lanes.
    unsafe fn max(a: Self::I, b: Self::I) -> Self::I;
    /// Sum of i16 lanes, wrapping.
    unsafe fn add16(a: Self::I, b: Self::I) -> Self::I;
    /// `(a * b + 2^14) >> 15` of i16 lanes; not both -2^15.
    unsafe fn mulhrs(a: Self::I, b: Self::I) -> Self::I;
    /// Each byte of `index` (below 16) replaced by that byte of `table`.
    unsafe fn lookup(table: &[u8; 16], index: Self::I) -> Self::I;
    /// Transposes 16 bytes of each of `LANES` rows, row `i` at `p + i * stride`: lane `i` of vector `t` is
    /// the `t`-th dword of row `i`.
    unsafe fn columns(p: *const u8, stride: usize) -> [Self::I; 4];
    /// Two bytes of each of `LANES` rows, zero-extended.
    unsafe fn column_u16(p: *const u8, stride: usize) -> Self::I;
    /// Four bytes of each of `LANES` rows.
    unsafe fn column_u32(p: *const u8, stride: usize) -> Self::I;
    /// The low 16 bits of each lane as an f16, widened; higher bits are ignored.
    unsafe fn halves(a: Self::I) -> Self::F;
    /// The same bits.
    unsafe fn as_f32(a: Self::I) -> Self::F;
    /// The same bits.
    unsafe fn as_i32(a: Self::F) -> Self::I;
    /// Rounds to nearest, ties to even.
    unsafe fn from_i32(a: Self::I) -> Self::F;
    /// To the nearest integer, ties to even; `i32::MIN` for what does not fit and for NaN.
    unsafe fn to_i32(a: Self::F) -> Self::I;

    /// Every lane `x`.
    unsafe fn fsplat(x: f32) -> Self::F;
    /// Reads `LANES` values; no alignment needed, as for the loads and stores below.
    unsafe fn fload(p: *const f32) -> Self::F;
    /// Reads and widens `LANES` halves.
    unsafe fn fload_f16(p: *const u8) -> Self::F;
    /// Reads and widens `LANES` bfloat16.
    unsafe fn fload_bf16(p: *const u8) -> Self::F;
    /// Reads and widens `LANES` signed bytes.
    unsafe fn fload_i8(p: *const i8) -> Self::F;
    /// Writes `LANES` values.
    unsafe fn fstore(p: *mut f32, x: Self::F);
    /// Writes `LANES` halves, rounded to nearest, ties to even.
    unsafe fn fstore_f16(p: *mut u8, x: Self::F);
    /// Sum.
    unsafe fn fadd(a: Self::F, b: Self::F) -> Self::F;
    /// Difference.
    unsafe fn fsub(a: Self::F, b: Self::F) -> Self::F;
    /// Product.
    unsafe fn fmul(a: Self::F, b: Self::F) -> Self::F;
    /// Quotient.
    unsafe fn fdiv(a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`, rounded once where [`FUSED`](Self::FUSED).
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// Sum of the lanes, halves folded onto each other.
    unsafe fn fsum(a: Self::F) -> f32;
}

/// What the kernel of single columns (`line`) takes besides: a vector as *parts* of 16 bytes.
///
/// A vector has `LANES / 4` parts: one, two or four. Two parts are a *pair*; a vector of one part is half of
/// a pair. Methods that name two pairs ignore the second where a vector has no room for it.
pub trait Parts: Vector {
    /// In every part: byte `index` of `a`'s part, 0 where `index` is 128 or more; other indices are below 16.
    unsafe fn shuffle(a: Self::I, index: Self::I) -> Self::I;
    /// `x` in every 64 bits.
    unsafe fn splat64(x: u64) -> Self::I;
    /// `low` and `high` in every part.
    unsafe fn splat128(low: u64, high: u64) -> Self::I;
    /// `first` in the lanes of the first pair, `second` in those of the second.
    unsafe fn two(first: i32, second: i32) -> Self::I;
    /// The 16 bytes at `p` in each part of the first pair, those at `q` in each of the second.
    unsafe fn pairs16(p: *const u8, q: *const u8) -> Self::I;
    /// The 32 bytes at `p` in the first pair, those at `q` in the second; a vector of one part takes 16 bytes
    /// at `p`.
    unsafe fn pairs32(p: *const u8, q: *const u8) -> Self::I;
    /// 16 in byte `i` of the first pair where bit `i` of `x` is set, likewise of the second for `y`.
    unsafe fn sixteens(x: u32, y: u32) -> Self::I;
    /// Logical shift right of each lane by that lane of `n`.
    unsafe fn shr_each(a: Self::I, n: Self::I) -> Self::I;
    /// Rotates each lane left by that lane of `n < 32`.
    unsafe fn rol_each(a: Self::I, n: Self::I) -> Self::I;
    /// Arithmetic shift right of i16 lanes.
    unsafe fn sra16<const N: u32>(a: Self::I) -> Self::I;
    /// Lanes to i16, saturating; in every part four of `a`, then four of `b`.
    unsafe fn pack(a: Self::I, b: Self::I) -> Self::I;
    /// `2 LANES` signed bytes at `p` to i16.
    unsafe fn widen_i8(p: *const u8) -> Self::I;
    /// `2 LANES` unsigned bytes at `p` to i16.
    unsafe fn widen_u8(p: *const u8) -> Self::I;
    /// In every part: the sums of the part's lanes of each of four vectors.
    unsafe fn sum4(x: [Self::I; 4]) -> Self::I;
    /// Adds the parts of each of the `LANES / 4` vectors at `p`: the first vector's four sums, then the next
    /// one's.
    unsafe fn fold(p: *const i32) -> Self::I;
    /// Adds the two parts of each pair: `a`'s pairs, four sums each, then `b`'s. Vectors of one part are the
    /// two parts of a pair themselves.
    unsafe fn fold_pairs(a: Self::I, b: Self::I) -> Self::I;
}
