//! The integer product of rows with single columns of int8 activations, a row's weights along the lanes.
//!
//! A tile pays for its unpacked panel with many columns. With one there is nothing to pay with: decoding a
//! token reads every weight once, so rows are streamed as they lie in memory and multiplied in registers. A
//! block leaves a vector whose lanes add up to its integer sum; four such vectors are added across at once
//! (`Parts::sum4`), and the scales of a whole row are applied to vectors of blocks. Last, each row's terms
//! are added in the order of its blocks: the same exact integers, the same f32 operations in the same order
//! as in `tile`, so the same bits.

#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "every block here is the body of an unsafe function and rests on the promises of its callers"
)]
#![allow(clippy::needless_range_loop, reason = "an index runs over registers, memory and constants alike")]

mod formats;
pub(crate) mod pack;

use std::mem::MaybeUninit;

use super::layout::Kind;
use super::prefetch;
use super::unit::{Tiled, Unit, biased};
use super::unpack::Unpack;
use super::vector::{Parts, Vector};
use pack::{Layout, Order, PAD, sums_part};

/// How far ahead of its use a row is asked for, in bytes. Hardware does not look past a page of 4096 bytes.
const AHEAD: usize = 4096;

/// The small numbers of a block of 256.
pub(crate) struct Header {
    /// What sub-blocks are multiplied with, a byte each (8 or 16).
    pub scales: [u64; 2],
    /// What the sums of the sub-blocks' activations are multiplied with: mins, or the scales.
    pub corner: [u64; 2],
    /// `d`, and `dmin` in the upper half.
    pub d: u32,
}

/// A format of 256 weights as a line takes it.
pub(crate) trait Line256: Unpack {
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
    unsafe fn weights<V: Parts>(p: *const u8) -> [V::I; 16];
}

/// A format of 32 weights as a line takes it.
pub(crate) trait Line32: Unpack {
    /// The stored bytes of the block at `p` in the first pair of parts, of that at `q` in the second. Vectors
    /// of one part hold half of the block at `p`, the half `h`; for others `h` is 0.
    ///
    /// # Safety
    /// Both blocks can be read and the CPU has what `V` needs.
    unsafe fn weights<V: Parts>(p: *const u8, q: *const u8, h: usize) -> V::I;
}

/// A format as rows of it are multiplied with one column.
pub(crate) trait Line: Unpack {
    /// What its columns look like.
    fn layout(lanes: usize) -> Layout;

    /// The terms of the sum over blocks for one row: `out[b]`.
    ///
    /// `row`: `blocks` blocks. `a`: the column. `scratch`: [`scratch_len`].
    ///
    /// # Safety
    /// The CPU has what `U` needs; the pointers reach as far as said, `out` to a multiple of [`PAD`].
    unsafe fn terms<U: Tiled + Unit<V = V>, V: Parts>(
        row: *const u8,
        blocks: usize,
        a: *const i32,
        scratch: *mut i32,
        out: *mut f32,
    );
}

/// i32 of scratch for `blocks` blocks: sums not yet folded, `d`, and 16 bytes of corner.
pub(crate) const fn scratch_len(blocks: usize) -> usize {
    blocks.next_multiple_of(PAD) * (4 + 1 + 4)
}

/// Zeros behind the copied tail of a row, whose blocks are at most 210 bytes.
const TAIL: usize = 8 * 210;

/// Group `g` of `group` blocks, the last from a copy with zeros behind it; asks for one to come.
#[inline(always)]
unsafe fn nth_group(
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
                prefetch::far(p.wrapping_add(AHEAD + line * 64));
            }
            return p;
        }
        let tail = tail.write([0; TAIL]).as_mut_ptr();
        std::ptr::copy_nonoverlapping(p, tail, (blocks - g * group) * bytes);
        tail
    }
}

/// Byte indices that bring a block's scales beside its products: after `pack`, or to the top of a dword (wide
/// formats).
const fn scale_index<F: Line256>(lanes: usize) -> [[u8; 64]; 8] {
    let mut index = [[0x80; 64]; 8];
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

/// One block: a vector whose lanes sum to the integer.
#[inline(always)]
unsafe fn block<U: Tiled + Unit<V = V>, V: Parts, F: Line256>(
    p: *const u8,
    scales: [u64; 2],
    a: *const i32,
) -> V::I {
    unsafe {
        let index = const { &scale_index::<F>(V::LANES) };
        let w = F::weights::<V>(p);
        let scales = match <F::Kind as Kind>::SUB {
            32 => V::splat64(scales[0]),
            _ => V::splat128(scales[0], scales[1]),
        };
        let mut sum = V::splat(0);
        for i in 0..32 / V::LANES {
            let scale = V::shuffle(scales, V::load(index[i].as_ptr().cast()));
            let (w0, w1) = (w[2 * i], w[2 * i + 1]);
            let a = a.add(2 * i * V::LANES);
            let (a0, a1) = (V::load(a), V::load(a.add(V::LANES)));
            let zero = V::splat(0);
            if <F::Kind as Kind>::WIDE {
                // Products of two vectors share a sub-block and are too large for i16.
                let dot = U::dot4_wide(U::dot4_wide(zero, w0, a0), w1, a1);
                sum = V::add(sum, V::mul(dot, V::sra(scale, 24)));
            } else {
                // Four products of at most 63 * 127 fit i16.
                let dot = V::pack(U::dot4(zero, w0, a0), U::dot4(zero, w1, a1));
                sum = U::dot2(sum, dot, if F::SIGNED { V::sra16::<8>(scale) } else { scale });
            }
        }
        sum
    }
}

impl<F: Line256> Line for F {
    fn layout(lanes: usize) -> Layout {
        Layout { lanes, order: F::ORDER, block: 256, sums: 256 / <F::Kind as Kind>::SUB }
    }

    #[inline(always)]
    unsafe fn terms<U: Tiled + Unit<V = V>, V: Parts>(
        row: *const u8,
        blocks: usize,
        a: *const i32,
        scratch: *mut i32,
        out: *mut f32,
    ) {
        unsafe {
            let sums = 256 / <F::Kind as Kind>::SUB;
            let padded = blocks.next_multiple_of(PAD);
            let (ds, corners) = (scratch, scratch.add(padded).cast::<u8>());
            let quads = scratch.add(5 * padded);
            let mut tail = MaybeUninit::uninit();
            for quad in 0..blocks.div_ceil(4) {
                let p = nth_group(row, blocks, (quad, 4), F::BYTES, &mut tail);
                let mut acc = [V::splat(0); 4];
                for i in 0..4 {
                    let (b, p) = (4 * quad + i, p.add(i * F::BYTES));
                    let header = F::header(p);
                    ds.add(b).write(header.d as i32);
                    for h in 0..sums / 8 {
                        let corner = corners.add(8 * sums_part(V::LANES, sums, b, h)).cast::<u64>();
                        corner.write_unaligned(header.corner[h]);
                    }
                    acc[i] = block::<U, V, F>(p, header.scales, a.add(64 * b));
                }
                V::store(quads.add(quad * V::LANES), V::sum4(acc));
            }
            for g in 0..blocks.div_ceil(V::LANES) {
                let first = g * V::LANES;
                let d = V::load(ds.add(first));
                let (d, dmin) = (V::halves(d), V::halves(V::shr(d, 16)));
                let total = V::fold(quads.add(first / 4 * V::LANES));
                // Products of the corner: as many bytes and sums as fill a vector at a time.
                let pairs = a.add(65 * padded + first * sums / 2);
                let mut parts = [V::splat(0); 8];
                for (i, part) in parts.iter_mut().enumerate().take(sums / 2) {
                    let bytes = corners.add(first * sums + 2 * i * V::LANES);
                    let wide = if F::SIGNED { V::widen_i8(bytes) } else { V::widen_u8(bytes) };
                    *part = U::dot2(V::splat(0), wide, V::load(pairs.add(i * V::LANES)));
                }
                let [p0, p1, p2, p3, p4, p5, p6, p7] = parts;
                let corner = match sums {
                    8 => V::sum4([p0, p1, p2, p3]),
                    _ => V::fold_pairs(V::sum4([p0, p1, p2, p3]), V::sum4([p4, p5, p6, p7])),
                };
                let x = if <F::Kind as Kind>::MINS {
                    V::fsub(V::fmul(d, V::from_i32(total)), V::fmul(dmin, V::from_i32(corner)))
                } else if biased::<U, F::Kind>() {
                    V::fmul(d, V::from_i32(V::sub(total, V::shl(corner, F::ZERO))))
                } else {
                    V::fmul(d, V::from_i32(total))
                };
                let scale = V::fload(a.add(64 * padded + first).cast());
                V::fstore(out.add(first), V::fmul(scale, x));
            }
        }
    }
}

/// [`Line::terms`] of a format of 32 weights.
#[inline(always)]
unsafe fn terms32<U: Tiled + Unit<V = V>, V: Parts, F: Line32>(
    row: *const u8,
    blocks: usize,
    a: *const i32,
    scratch: *mut i32,
    out: *mut f32,
) {
    unsafe {
        let padded = blocks.next_multiple_of(PAD);
        let (ds, quads) = (scratch, scratch.add(padded));
        // A block is a pair of parts: four vectors hold four or eight blocks, or half of four.
        let (group, halves) = if V::LANES == 4 { (4, 2) } else { (V::LANES / 2, 1) };
        let mut tail = MaybeUninit::uninit();
        for g in 0..blocks.div_ceil(group) {
            let p = nth_group(row, blocks, (g, group), F::BYTES, &mut tail);
            let mut sums = [V::splat(0); 2];
            for h in 0..halves {
                let mut acc = [V::splat(0); 4];
                for i in 0..4 {
                    let w = F::weights::<V>(p.add(i * F::BYTES), p.add((i + group - 4) * F::BYTES), h);
                    let a = V::load(a.add(((g * halves + h) * 4 + i) * V::LANES));
                    acc[i] = match <F::Kind as Kind>::WIDE {
                        true => U::dot4_wide(V::splat(0), w, a),
                        false => U::dot4(V::splat(0), w, a),
                    };
                }
                sums[h] = V::sum4(acc);
            }
            for i in 0..group {
                let d = p.add(i * F::BYTES).cast::<i32>().read_unaligned();
                ds.add(g * group + i).write(d);
            }
            for h in 0..halves {
                V::store(quads.add((g * halves + h) * V::LANES), sums[h]);
            }
        }
        for g in 0..blocks.div_ceil(V::LANES) {
            let first = g * V::LANES;
            let d = V::load(ds.add(first));
            let (d, m) = (V::halves(d), V::halves(V::shr(d, 16)));
            let quad = quads.add(2 * first);
            let total = V::fold_pairs(V::load(quad), V::load(quad.add(V::LANES)));
            let negated = V::load(a.add(9 * padded + first));
            let x = if <F::Kind as Kind>::MINS {
                V::fsub(V::fmul(d, V::from_i32(total)), V::fmul(m, V::from_i32(negated)))
            } else if biased::<U, F::Kind>() {
                V::fmul(d, V::from_i32(V::add(total, V::shl(negated, F::ZERO))))
            } else {
                V::fmul(d, V::from_i32(total))
            };
            let scale = V::fload(a.add(8 * padded + first).cast());
            V::fstore(out.add(first), V::fmul(scale, x));
        }
    }
}

/// Sums of the terms of `LANES` rows, each in the order of its blocks from 0.0. Row `r` at `terms + r *
/// pitch`.
///
/// # Safety
/// The CPU has what `V` needs, `LANES` rows can be read to `blocks` rounded up to [`PAD`] and `out` takes as
/// many sums.
#[inline(always)]
pub(crate) unsafe fn sums<V: Vector>(terms: *const f32, pitch: usize, blocks: usize, out: *mut f32) {
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
