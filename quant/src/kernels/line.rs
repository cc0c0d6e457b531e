//! The integer product of rows with few columns of int8 activations, a row's weights along the lanes.
//!
//! A tile pays for its unpacked panel with many columns. With one or two there is nothing to pay with: decoding a token
//! reads every weight once, so rows are streamed as they lie in memory and multiplied in registers. A block leaves a
//! vector whose lanes add up to its integer sum; four such vectors are added across at once (`Simd::sum4`), and the
//! scales of a whole row are applied to vectors of blocks. Last, each row's terms are added in the order of its blocks:
//! the same exact integers, the same f32 operations in the same order as in `tile`, so the same bits.
//!
//! Activations of a column, `blocks` rounded up to [`PAD`] with zeros:
//!
//! ```text
//! qs, in the order of the weights in the vectors | d | sums as pairs of i16, or negated sums (32 weights)
//! ```

#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "every block here is the body of an unsafe function and rests on what that function asks of its callers"
)]
#![allow(clippy::needless_range_loop, reason = "an index runs over registers, memory and constants alike")]

use std::mem::MaybeUninit;

use super::simd::Simd;
use super::tile::Kind;
use super::unpack::{self, Unpack};
use crate::formats::{q8_a, q8_k};

/// Blocks of a row are rounded up to a multiple of this in activations and scratch: the lanes of the widest vector.
pub(crate) const PAD: usize = 16;

/// How far ahead of its use a row is asked for, in bytes. Hardware does not look past a page of 4096 bytes.
const AHEAD: usize = 4096;

/// Where the 16 weights of each quarter of a vector come from; vectors have 4 quarters, or 2.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// As they follow each other.
    Natural,
    /// Bytes hold weight `i` of 32 low and weight `i + 32` high (Q4_K, Q5_K).
    Nibbles32,
    /// Bytes hold weight `i` of 16 low and weight `i + 16` high (IQ4_XS).
    Nibbles16,
}

impl Order {
    /// Which 16 weights of a block of 256 lie in quarter `l` of vector `v` of `lanes` lanes.
    const fn sixteen(self, lanes: usize, v: usize, l: usize) -> usize {
        let quarters = lanes / 4;
        // Sixteenth byte group of the packed nibbles, low or high.
        let (byte, high) = (v / 2 * quarters + l, v % 2);
        match self {
            Self::Natural => v * quarters + l,
            Self::Nibbles32 => byte / 2 * 4 + 2 * high + byte % 2,
            Self::Nibbles16 => 2 * byte + high,
        }
    }
}

/// What the columns of a format look like to [`pack_k`] and [`pack_a`].
#[derive(Clone, Copy)]
pub(crate) struct Layout {
    pub lanes: usize,
    pub order: Order,
    /// Sums per block of 256: 8 or 16.
    pub sums: usize,
}

/// i32 in a column of `blocks` blocks of 256 or 32 weights, `sums` sums in each of 256.
pub(crate) const fn column_len(blocks: usize, block: usize, sums: usize) -> usize {
    blocks.next_multiple_of(PAD) * (block / 4 + 1 + if block == 256 { sums / 2 } else { 1 })
}

/// Place of block `b`'s `sums` bytes or sums among those of its group of `lanes` blocks, such that adding across vectors
/// leaves the blocks in order.
const fn slot(lanes: usize, sums: usize, b: usize) -> usize {
    let (quarters, halves) = (lanes / 4, lanes / 8);
    let (r, first) = (b % lanes, b / lanes * lanes);
    let (quad, i) = (r / 4, r % 4);
    first
        + if sums == 8 {
            i * quarters + quad
        } else {
            quad / halves * 4 * halves + i * halves + quad % halves
        }
}

/// Packs one column of `blocks` into `out`, [`column_len`] long.
pub(crate) fn pack_k(blocks: &[q8_k::BlockQ8K], layout: Layout, out: &mut [i32]) {
    let Layout { lanes, order, sums } = layout;
    let padded = blocks.len().next_multiple_of(PAD);
    out.fill(0);
    let (qs, rest) = out.split_at_mut(padded * 64);
    let (d, pairs) = rest.split_at_mut(padded);
    for (b, block) in blocks.iter().enumerate() {
        let (from, to) = (block.qs.as_chunks::<16>().0, qs[b * 64..][..64].as_chunks_mut::<4>().0);
        for (i, to) in to.iter_mut().enumerate() {
            *to = bytemuck::cast(from[order.sixteen(lanes, i / (lanes / 4), i % (lanes / 4))]);
        }
        d[b] = block.d.to_bits() as i32;
        let pair = |x: i16, y: i16| i32::from(x as u16) | i32::from(y) << 16;
        let s = &block.bsums;
        for (i, to) in pairs[slot(lanes, sums, b) * (sums / 2)..][..sums / 2].iter_mut().enumerate() {
            *to = match sums {
                8 => pair(s[4 * i] + s[4 * i + 1], s[4 * i + 2] + s[4 * i + 3]),
                _ => pair(s[2 * i], s[2 * i + 1]),
            };
        }
    }
}

/// Packs one column of `blocks` into `out`, [`column_len`] long.
pub(crate) fn pack_a(blocks: &[q8_a::BlockQ8A], layout: Layout, out: &mut [i32]) {
    let halves = layout.lanes / 8;
    let padded = blocks.len().next_multiple_of(PAD);
    out.fill(0);
    let (qs, rest) = out.split_at_mut(padded * 8);
    let (d, negated) = rest.split_at_mut(padded);
    for (b, block) in blocks.iter().enumerate() {
        let r = b % (4 * halves);
        let at = b - r + r % 4 * halves + r / 4;
        qs[at * 8..][..8].copy_from_slice(&bytemuck::cast::<_, [i32; 8]>(block.qs));
        d[b] = block.d.to_bits() as i32;
        negated[b] = -block.sum;
    }
}

/// The small numbers of a block of 256.
pub(super) struct Header {
    /// What sub-blocks are multiplied with, a byte each (8 or 16).
    pub scales: [u64; 2],
    /// What the sums of the sub-blocks' activations are multiplied with: mins, or the scales.
    pub corner: [u64; 2],
    /// `d`, and `dmin` in the upper half.
    pub d: u32,
}

/// A format of 256 weights as a line takes it.
pub(super) trait Line256: Unpack {
    const ORDER: Order;
    /// Whether scales and corner have signs.
    const SIGNED: bool;
    /// # Safety
    /// The block at `p` can be read.
    unsafe fn header(p: *const u8) -> Header;
    /// The first `64 / LANES` vectors hold the stored bytes in this order.
    ///
    /// # Safety
    /// As above, and the CPU has what `V` needs.
    unsafe fn weights<V: Simd>(p: *const u8) -> [V::I; 8];
}

/// A format of 32 weights as a line takes it.
pub(super) trait Line32: Unpack {
    /// The stored bytes of the block at `p` in the lower half, of that at `q` in the upper; where a vector holds one block,
    /// that at `p`.
    ///
    /// # Safety
    /// Both blocks can be read and the CPU has what `V` needs.
    unsafe fn weights<V: Simd>(p: *const u8, q: *const u8) -> V::I;
}

/// One row and `W` columns at a time.
pub(super) trait Line: Unpack {
    /// What its columns look like.
    fn layout(lanes: usize) -> Layout;

    /// The terms of the sum over blocks for one row: `out[j * pitch + b]` for column `j`.
    ///
    /// `row`: `blocks` blocks. `a`: `W` columns one behind the other. `scratch`: [`scratch_len`].
    ///
    /// # Safety
    /// The CPU has what `V` needs; the pointers reach as far as said, `out` to a multiple of [`PAD`] in each column.
    unsafe fn terms<V: Simd, const W: usize>(
        row: *const u8,
        blocks: usize,
        a: *const i32,
        scratch: *mut i32,
        out: *mut f32,
        pitch: usize,
    );
}

/// i32 of scratch for `W` columns of `blocks` blocks: sums not yet folded, `d`, and 16 bytes of corner.
pub(super) const fn scratch_len(blocks: usize, columns: usize) -> usize {
    blocks.next_multiple_of(PAD) * (4 * columns + 1 + 4)
}

/// Zeros behind the copied tail of a row, whose blocks are at most 210 bytes.
const TAIL: usize = 8 * 210;

/// Group `g` of `group` blocks, the last from a copy with zeros behind it; asks for one to come.
#[inline(always)]
unsafe fn nth_group<V: Simd>(
    row: *const u8,
    blocks: usize,
    (g, group): (usize, usize),
    bytes: usize,
    tail: &mut MaybeUninit<[u8; TAIL]>,
) -> *const u8 {
    unsafe {
        let p = row.add(g * group * bytes);
        if (g + 1) * group <= blocks {
            for line in 0..(group * bytes).div_ceil(64) {
                V::prefetch(p.wrapping_add(AHEAD + line * 64));
            }
            return p;
        }
        let tail = tail.write([0; TAIL]).as_mut_ptr();
        std::ptr::copy_nonoverlapping(p, tail, (blocks - g * group) * bytes);
        tail
    }
}

/// Byte indices that bring a block's scales beside its products: after `pack`, or to the top of a dword (wide formats).
const fn scale_index<F: Line256>(lanes: usize) -> [[u8; 64]; 4] {
    let mut index = [[0x80; 64]; 4];
    let sub = <F::Kind as Kind>::SUB / 16;
    let mut i = 0;
    while i < 32 / lanes {
        let mut l = 0;
        while l < lanes / 4 {
            let mut x = 0;
            while x < 8 {
                if <F::Kind as Kind>::WIDE {
                    if x % 2 == 1 {
                        let s = F::ORDER.sixteen(lanes, 2 * i, l) / sub;
                        index[i][16 * l + 2 * x + 1] = s as u8;
                    }
                } else {
                    let s = F::ORDER.sixteen(lanes, 2 * i + x / 4, l) / sub;
                    index[i][16 * l + 2 * x + F::SIGNED as usize] = s as u8;
                }
                x += 1;
            }
            l += 1;
        }
        i += 1;
    }
    index
}

/// One block: for each column a vector whose lanes sum to the integer.
#[inline(always)]
unsafe fn block<V: Simd, F: Line256, const W: usize>(
    p: *const u8,
    scales: [u64; 2],
    a: *const i32,
    column: usize,
) -> [V::I; W] {
    unsafe {
        let index = const { &[scale_index::<F>(8), scale_index::<F>(16)] };
        let index = &index[V::LANES / 16];
        let w = F::weights::<V>(p);
        let scales = match <F::Kind as Kind>::SUB {
            32 => V::splat64(scales[0]),
            _ => V::splat128(scales[0], scales[1]),
        };
        let mut sum = [V::splat(0); W];
        for i in 0..32 / V::LANES {
            let scale = V::shuffle(scales, V::load(index[i].as_ptr().cast()));
            let (w0, w1) = (w[2 * i], w[2 * i + 1]);
            for (j, sum) in sum.iter_mut().enumerate() {
                let a = a.add(j * column + 2 * i * V::LANES);
                let (a0, a1) = (V::load(a), V::load(a.add(V::LANES)));
                let zero = V::splat(0);
                if <F::Kind as Kind>::WIDE {
                    // Products of two vectors share a sub-block and are too large for i16.
                    let dot = if V::DOT4_WIDE {
                        V::dot4(V::dot4(zero, w0, a0), w1, a1)
                    } else {
                        let sign = V::splat(0x8080_8080_u32 as i32);
                        V::dot4_signed(V::dot4_signed(zero, V::xor(w0, sign), a0), V::xor(w1, sign), a1)
                    };
                    *sum = V::add(*sum, V::mul(dot, V::sra(scale, 24)));
                } else {
                    // Four products of at most 63 * 127 fit i16.
                    let dot = V::pack(V::dot4(zero, w0, a0), V::dot4(zero, w1, a1));
                    *sum = V::dot2(*sum, dot, if F::SIGNED { V::sra16::<8>(scale) } else { scale });
                }
            }
        }
        sum
    }
}

impl<F: Line256> Line for F {
    fn layout(lanes: usize) -> Layout {
        Layout { lanes, order: F::ORDER, sums: 256 / <F::Kind as Kind>::SUB }
    }

    #[inline(always)]
    unsafe fn terms<V: Simd, const W: usize>(
        row: *const u8,
        blocks: usize,
        a: *const i32,
        scratch: *mut i32,
        out: *mut f32,
        pitch: usize,
    ) {
        unsafe {
            let sums = 256 / <F::Kind as Kind>::SUB;
            let padded = blocks.next_multiple_of(PAD);
            let column = column_len(blocks, 256, sums);
            let (ds, corners) = (scratch, scratch.add(padded).cast::<u8>());
            let quads = scratch.add(5 * padded);
            let mut tail = MaybeUninit::uninit();
            for quad in 0..blocks.div_ceil(4) {
                let p = nth_group::<V>(row, blocks, (quad, 4), F::BYTES, &mut tail);
                let mut acc = [[V::splat(0); 4]; W];
                for i in 0..4 {
                    let (b, p) = (4 * quad + i, p.add(i * F::BYTES));
                    let header = F::header(p);
                    ds.add(b).write(header.d as i32);
                    let corner = corners.add(slot(V::LANES, sums, b) * sums).cast::<u64>();
                    corner.write_unaligned(header.corner[0]);
                    if sums == 16 {
                        corner.add(1).write_unaligned(header.corner[1]);
                    }
                    let x = block::<V, F, W>(p, header.scales, a.add(64 * b), column);
                    for j in 0..W {
                        acc[j][i] = x[j];
                    }
                }
                for (j, acc) in acc.into_iter().enumerate() {
                    V::store(quads.add(4 * padded * j + quad * V::LANES), V::sum4(acc));
                }
            }
            for g in 0..blocks.div_ceil(V::LANES) {
                let first = g * V::LANES;
                let d = V::load(ds.add(first));
                let (d, dmin) = (V::halves(d), V::halves(V::shr(d, 16)));
                for j in 0..W {
                    let a = a.add(j * column);
                    let total = V::fold(quads.add(4 * padded * j + first / 4 * V::LANES));
                    // Products of the corner: as many bytes and sums as fill a vector at a time.
                    let pairs = a.add(65 * padded + first * sums / 2);
                    let mut parts = [V::splat(0); 8];
                    for (i, part) in parts.iter_mut().enumerate().take(sums / 2) {
                        let bytes = corners.add(first * sums + 2 * i * V::LANES);
                        let wide = if F::SIGNED { V::widen_i8(bytes) } else { V::widen_u8(bytes) };
                        *part = V::dot2(V::splat(0), wide, V::load(pairs.add(i * V::LANES)));
                    }
                    let [p0, p1, p2, p3, p4, p5, p6, p7] = parts;
                    let corner = match sums {
                        8 => V::sum4([p0, p1, p2, p3]),
                        _ => V::fold_halves(V::sum4([p0, p1, p2, p3]), V::sum4([p4, p5, p6, p7])),
                    };
                    let x = if <F::Kind as Kind>::MINS {
                        V::fsub(V::fmul(d, V::from_i32(total)), V::fmul(dmin, V::from_i32(corner)))
                    } else if V::DOT4_WIDE || !<F::Kind as Kind>::WIDE {
                        V::fmul(d, V::from_i32(V::sub(total, V::shl(corner, F::ZERO))))
                    } else {
                        V::fmul(d, V::from_i32(total))
                    };
                    let scale = V::fload(a.add(64 * padded + first).cast());
                    V::fstore(out.add(j * pitch + first), V::fmul(scale, x));
                }
            }
        }
    }
}

/// [`Line::terms`] of a format of 32 weights.
#[inline(always)]
unsafe fn terms32<V: Simd, F: Line32, const W: usize>(
    row: *const u8,
    blocks: usize,
    a: *const i32,
    scratch: *mut i32,
    out: *mut f32,
    pitch: usize,
) {
    unsafe {
        let padded = blocks.next_multiple_of(PAD);
        let column = column_len(blocks, 32, 0);
        let (ds, quads) = (scratch, scratch.add(padded));
        let halves = V::LANES / 8;
        let group = 4 * halves;
        let mut tail = MaybeUninit::uninit();
        for g in 0..blocks.div_ceil(group) {
            let p = nth_group::<V>(row, blocks, (g, group), F::BYTES, &mut tail);
            let mut acc = [[V::splat(0); 4]; W];
            for i in 0..4 {
                let w = F::weights::<V>(p.add(i * F::BYTES), p.add((i + group - 4) * F::BYTES));
                for (j, acc) in acc.iter_mut().enumerate() {
                    let a = V::load(a.add(j * column + (g * group + i * halves) * 8));
                    acc[i] = if <F::Kind as Kind>::WIDE && !V::DOT4_WIDE {
                        V::dot4_signed(V::splat(0), V::xor(w, V::splat(0x8080_8080_u32 as i32)), a)
                    } else {
                        V::dot4(V::splat(0), w, a)
                    };
                }
            }
            for i in 0..group {
                let d = p.add(i * F::BYTES).cast::<i32>().read_unaligned();
                ds.add(g * group + i).write(d);
            }
            for (j, acc) in acc.into_iter().enumerate() {
                V::store(quads.add(4 * padded * j + g * V::LANES), V::sum4(acc));
            }
        }
        for g in 0..blocks.div_ceil(V::LANES) {
            let first = g * V::LANES;
            let d = V::load(ds.add(first));
            let (d, m) = (V::halves(d), V::halves(V::shr(d, 16)));
            for j in 0..W {
                let a = a.add(j * column);
                let quad = quads.add(4 * padded * j + first / group * V::LANES);
                let total = V::fold_halves(V::load(quad), V::load(quad.add(V::LANES)));
                let negated = V::load(a.add(9 * padded + first));
                let x = if <F::Kind as Kind>::MINS {
                    V::fsub(V::fmul(d, V::from_i32(total)), V::fmul(m, V::from_i32(negated)))
                } else if V::DOT4_WIDE || !<F::Kind as Kind>::WIDE {
                    V::fmul(d, V::from_i32(V::add(total, V::shl(negated, F::ZERO))))
                } else {
                    V::fmul(d, V::from_i32(total))
                };
                let scale = V::fload(a.add(8 * padded + first).cast());
                V::fstore(out.add(j * pitch + first), V::fmul(scale, x));
            }
        }
    }
}

/// Sums of the terms of `LANES` rows, each in the order of its blocks from 0.0. Row `r` at `terms + r * pitch`.
///
/// # Safety
/// The CPU has what `V` needs, `LANES` rows can be read to `blocks` rounded up to [`PAD`] and `out` takes as many sums.
#[inline(always)]
pub(super) unsafe fn sums<V: Simd>(terms: *const f32, pitch: usize, blocks: usize, out: *mut f32) {
    unsafe {
        let mut sum = V::fsplat(0.0);
        for first in (0..blocks / 4 * 4).step_by(4) {
            for column in V::columns(terms.add(first).cast(), 4 * pitch) {
                sum = V::fadd(sum, V::as_f32(column));
            }
        }
        if !blocks.is_multiple_of(4) {
            let columns = V::columns(terms.add(blocks / 4 * 4).cast(), 4 * pitch);
            for column in columns.into_iter().take(blocks % 4) {
                sum = V::fadd(sum, V::as_f32(column));
            }
        }
        V::fstore(out, sum);
    }
}

/// Eight bytes from `p`.
#[inline(always)]
unsafe fn u64_at(p: *const u8) -> u64 {
    unsafe { u64::from_le(p.cast::<u64>().read_unaligned()) }
}
/// Four bytes from `p`.
#[inline(always)]
unsafe fn u32_at(p: *const u8) -> u32 {
    unsafe { u32::from_le(p.cast::<u32>().read_unaligned()) }
}
/// Two bytes from `p`.
#[inline(always)]
unsafe fn u16_at(p: *const u8) -> u32 {
    unsafe { u32::from(u16::from_le(p.cast::<u16>().read_unaligned())) }
}

const fn bytes(x: u8) -> u64 {
    u64::from_le_bytes([x; 8])
}

/// `x - 32` in every byte below 64.
const fn minus_32(x: u64) -> u64 {
    // No byte borrows: each is at least 96 before, and the last step takes the helping bit back.
    ((x | bytes(0x80)) - bytes(32)) ^ bytes(0x80)
}

/// Two dwords, the first low.
fn join(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

/// Header of Q4_K and Q5_K.
#[inline(always)]
unsafe fn six_bit_header(p: *const u8) -> Header {
    unsafe {
        let (scales, mins, rest) = (u32_at(p.add(4)), u32_at(p.add(8)), u32_at(p.add(12)));
        let (six, four, top) = (0x3f3f_3f3f, 0x0f0f_0f0f, 0x3030_3030);
        Header {
            scales: [join(scales & six, rest & four | scales >> 2 & top), 0],
            corner: [join(mins & six, rest >> 4 & four | mins >> 2 & top), 0],
            d: u32_at(p),
        }
    }
}

impl Line256 for unpack::Q4K {
    const ORDER: Order = Order::Nibbles32;
    const SIGNED: bool = false;

    #[inline(always)]
    unsafe fn header(p: *const u8) -> Header {
        unsafe { six_bit_header(p) }
    }
    #[inline(always)]
    unsafe fn weights<V: Simd>(p: *const u8) -> [V::I; 8] {
        unsafe {
            let mut w = [V::splat(0); 8];
            for c in 0..32 / V::LANES {
                let qs = V::load(p.add(16 + c * 4 * V::LANES).cast());
                w[2 * c] = unpack::low::<V>(qs);
                w[2 * c + 1] = unpack::high::<V>(qs);
            }
            w
        }
    }
}

/// Left turns by which the halves of a vector are turned; a vector of one half takes the first.
#[inline(always)]
unsafe fn turned<V: Simd>(x: V::I, lower: i32, upper: i32, mask: u8) -> V::I {
    unsafe { V::and(V::rol_each(x, V::two(lower & 31, upper & 31)), unpack::bytes::<V>(mask)) }
}

impl Line256 for unpack::Q5K {
    const ORDER: Order = Order::Nibbles32;
    const SIGNED: bool = false;

    #[inline(always)]
    unsafe fn header(p: *const u8) -> Header {
        unsafe { six_bit_header(p) }
    }
    #[inline(always)]
    unsafe fn weights<V: Simd>(p: *const u8) -> [V::I; 8] {
        unsafe {
            let mut w = [V::splat(0); 8];
            let fifth = V::pair32(p.add(16), p.add(16));
            let halves = V::LANES as i32 / 8;
            for c in 0..32 / V::LANES {
                let qs = V::load(p.add(48 + c * 4 * V::LANES).cast());
                // Bit s for the 32 weights s; halves hold neighbouring pairs of 32.
                let s = 2 * c as i32 * halves;
                w[2 * c] = V::or(unpack::low::<V>(qs), turned::<V>(fifth, 4 - s, 2 - s, 16));
                w[2 * c + 1] = V::or(unpack::high::<V>(qs), turned::<V>(fifth, 3 - s, 1 - s, 16));
            }
            w
        }
    }
}

impl Line256 for unpack::Q6K {
    const ORDER: Order = Order::Natural;
    const SIGNED: bool = true;

    #[inline(always)]
    unsafe fn header(p: *const u8) -> Header {
        unsafe {
            let scales = [u64_at(p.add(192)), u64_at(p.add(200))];
            Header { scales, corner: scales, d: u16_at(p.add(208)) }
        }
    }
    #[inline(always)]
    unsafe fn weights<V: Simd>(p: *const u8) -> [V::I; 8] {
        unsafe {
            let mut w = [V::splat(0); 8];
            let per = 16 / V::LANES; // vectors in 64 weights
            for h in 0..2 {
                let top = V::pair32(p.add(128 + 32 * h), p.add(128 + 32 * h));
                for c in 0..per {
                    let qs = V::load(p.add(64 * h + c * 4 * V::LANES).cast());
                    let s = 2 * c as i32;
                    let at = 2 * per * h + c;
                    w[at] = V::or(unpack::low::<V>(qs), turned::<V>(top, 4 - s, 2 - s, 48));
                    w[at + per] = V::or(unpack::high::<V>(qs), turned::<V>(top, -s, -2 - s, 48));
                }
            }
            w
        }
    }
}

/// The two-bit numbers of Q2_K and Q3_K, 64 bytes at `p`.
#[inline(always)]
unsafe fn two_bits<V: Simd>(p: *const u8) -> [V::I; 8] {
    unsafe {
        let mut w = [V::splat(0); 8];
        let halves = V::LANES / 8;
        for h in 0..2 {
            let qs = V::pair32(p.add(32 * h), p.add(32 * h));
            for c in 0..4 / halves {
                let s = 2 * (c * halves) as i32;
                w[4 / halves * h + c] = turned::<V>(qs, -s, -s - 2, 3);
            }
        }
        w
    }
}

impl Line256 for unpack::Q3K {
    const ORDER: Order = Order::Natural;
    const SIGNED: bool = true;

    #[inline(always)]
    unsafe fn header(p: *const u8) -> Header {
        unsafe {
            let (low, top) = (u64_at(p.add(96)), u32_at(p.add(104)));
            let two =
                |n: u32| u64::from(top >> n) & 0x0303_0303 | (u64::from(top >> (n + 2)) & 0x0303_0303) << 32;
            let scale = |low: u64, n: u32| minus_32(low & bytes(15) | two(n) << 4);
            let scales = [scale(low, 0), scale(low >> 4, 4)];
            Header { scales, corner: scales, d: u16_at(p.add(108)) }
        }
    }
    #[inline(always)]
    unsafe fn weights<V: Simd>(p: *const u8) -> [V::I; 8] {
        unsafe {
            let mut w = two_bits::<V>(p.add(32));
            let third = V::pair32(p, p);
            let halves = V::LANES / 8;
            for (i, w) in w.iter_mut().enumerate().take(64 / V::LANES) {
                let s = (i * halves) as i32;
                *w = V::or(*w, turned::<V>(third, 2 - s, 1 - s, 4));
            }
            w
        }
    }
}

impl Line256 for unpack::Q2K {
    const ORDER: Order = Order::Natural;
    const SIGNED: bool = false;

    #[inline(always)]
    unsafe fn header(p: *const u8) -> Header {
        unsafe {
            let both = [u64_at(p), u64_at(p.add(8))];
            Header {
                scales: both.map(|x| x & bytes(15)),
                corner: both.map(|x| x >> 4 & bytes(15)),
                d: u32_at(p.add(80)),
            }
        }
    }
    #[inline(always)]
    unsafe fn weights<V: Simd>(p: *const u8) -> [V::I; 8] {
        unsafe { two_bits::<V>(p.add(16)) }
    }
}

impl Line256 for unpack::Iq4Xs {
    const ORDER: Order = Order::Nibbles16;
    const SIGNED: bool = true;

    #[inline(always)]
    unsafe fn header(p: *const u8) -> Header {
        unsafe {
            // Eight numbers of 4 and of 2 bits, spread to a byte each.
            let mut low = u64::from(u32_at(p.add(4)));
            low = (low | low << 16) & 0x0000_ffff_0000_ffff;
            low = (low | low << 8) & 0x00ff_00ff_00ff_00ff;
            low = (low | low << 4) & bytes(15);
            let mut high = u64::from(u16_at(p.add(2)));
            high = (high | high << 24) & 0x0000_00ff_0000_00ff;
            high = (high | high << 12) & 0x000f_000f_000f_000f;
            high = (high | high << 6) & bytes(3);
            let scales = [minus_32(low | high << 4), 0];
            Header { scales, corner: scales, d: u16_at(p) }
        }
    }
    #[inline(always)]
    unsafe fn weights<V: Simd>(p: *const u8) -> [V::I; 8] {
        unsafe {
            let mut w = [V::splat(0); 8];
            for c in 0..32 / V::LANES {
                let qs = V::load(p.add(8 + c * 4 * V::LANES).cast());
                w[2 * c] = V::lookup(&unpack::TABLE, unpack::low::<V>(qs));
                w[2 * c + 1] = V::lookup(&unpack::TABLE, unpack::high::<V>(qs));
            }
            w
        }
    }
}

/// 16 bytes of nibbles of one or two blocks: low ones first, then high ones.
#[inline(always)]
unsafe fn nibbles<V: Simd>(p: *const u8, q: *const u8) -> V::I {
    const SHIFTS: [i32; 16] = [0, 0, 0, 0, 4, 4, 4, 4, 0, 0, 0, 0, 4, 4, 4, 4];
    unsafe { unpack::low::<V>(V::shr_each(V::pair16(p, q), V::load(SHIFTS.as_ptr()))) }
}

macro_rules! line32 {
    ($($name:ident: |$v:ident, $p:ident, $q:ident| $weights:expr;)*) => {
        $(impl Line32 for unpack::$name {
            #[inline(always)]
            unsafe fn weights<$v: Simd>($p: *const u8, $q: *const u8) -> $v::I {
                unsafe { $weights }
            }
        }
        impl Line for unpack::$name {
            fn layout(lanes: usize) -> Layout {
                Layout { lanes, order: Order::Natural, sums: 0 }
            }
            #[inline(always)]
            unsafe fn terms<V: Simd, const W: usize>(
                row: *const u8,
                blocks: usize,
                a: *const i32,
                scratch: *mut i32,
                out: *mut f32,
                pitch: usize,
            ) {
                unsafe { terms32::<V, Self, W>(row, blocks, a, scratch, out, pitch) }
            }
        })*
    };
}
line32! {
    Q4_0: |V, p, q| nibbles::<V>(p.add(2), q.add(2));
    Q4_1: |V, p, q| nibbles::<V>(p.add(4), q.add(4));
    Q5_0: |V, p, q| V::or(nibbles::<V>(p.add(6), q.add(6)), V::sixteens(u32_at(p.add(2)), u32_at(q.add(2))));
    Q5_1: |V, p, q| V::or(nibbles::<V>(p.add(8), q.add(8)), V::sixteens(u32_at(p.add(4)), u32_at(q.add(4))));
    Q8_0: |V, p, q| V::xor(V::pair32(p.add(2), q.add(2)), unpack::bytes::<V>(128));
    Iq4Nl: |V, p, q| V::lookup(&unpack::TABLE, nibbles::<V>(p.add(2), q.add(2)));
}
