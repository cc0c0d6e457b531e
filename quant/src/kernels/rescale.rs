//! Weights of any integer format as one byte each and one scale for 256: what the wide arithmetic multiplies
//! with.
//!
//! Scales of 16 or 32 weights cost a micro-kernel a third of its time. A long prompt uses every weight
//! hundreds of times, so it pays to bring a slab to one scale first. Weight `q` of sub-block `s` is `a_s q +
//! b_s`; with `max` = the greatest magnitude that any `q` of these sub-blocks could have (a zero for a
//! sub-block of zeros, and NaN or infinity where there is one), its byte is
//!
//! ```text
//! d = max / 127
//! S = round(a_s * (127 / max) * 2^(6 + BITS))     B = round(b_s * (127 / max) * 2^6) + 128 * 2^6 + 2^5
//! v = (mulhrs(q * 2^(15 - BITS), S) + B) >> 6     weight = d * (v - 128), within 0.52 d of `a_s q + b_s`
//! ```
//!
//! in i16, rounded to nearest even where it says `round`, and `mulhrs(x, y) = (x y + 2^14) >> 15`. Every step
//! is exact or rounded in one way only, so all ISAs make the same bytes.

#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "every block here is the body of an unsafe function and rests on the promises of its callers"
)]

use super::layout::{self, Kind, b, k, r};
use super::portable::Portable;
use super::prefetch::Stream;
use super::unpack::{Out, Unpack};
use super::vector::Vector;
use crate::formats::q8_k::{self, BlockQ8K};

/// Bits below the point of the sums that become bytes.
const FRACTION: u32 = 6;

/// `a` and `b` of sub-block `s` of an unpacked slab.
#[inline(always)]
unsafe fn affine<V: Vector, F: Unpack>(panel: *const i32, rows: usize, s: usize) -> (V::F, V::F) {
    unsafe {
        let mins = <F::Kind as Kind>::MINS;
        let (a, min) = if <F::Kind as Kind>::BLOCK == 256 {
            let at = |entry: usize| panel.add(entry * rows);
            let a = V::fmul(V::fload(at(k::D).cast()), V::from_i32(V::load(at(k::SCALES + s))));
            if !mins {
                (a, a)
            } else {
                // Pairs of sub-blocks (4 i, 4 i + 2), (4 i + 1, 4 i + 3).
                let pair = V::load(at(k::MINS + s / 4 * 2 + s % 2));
                let min = if s % 4 < 2 { V::and(pair, V::splat(0xffff)) } else { V::shr(pair, 16) };
                let min = V::fmul(V::fload(at(k::DMIN).cast()), V::from_i32(min));
                (a, V::fsub(V::fsplat(0.0), min))
            }
        } else {
            let at = |entry: usize| panel.add((s * b::PANEL + entry) * rows).cast();
            (V::fload(at(b::D)), if mins { V::fload(at(b::M)) } else { V::fload(at(b::D)) })
        };
        (a, if mins { min } else { V::fmul(a, V::fsplat(-((1 << F::ZERO) as f32))) })
    }
}

/// One slab of `LANES` rows: `panel` as `F` unpacked it (`ceil(256 / BLOCK)` blocks), `rows` rows to an
/// entry, into the block at `out`. Lanes are the first rows of both.
///
/// # Safety
/// The CPU has what `V` needs; both panels are as long as `layout` says.
#[inline(always)]
pub(crate) unsafe fn rescale<V: Vector, F: Unpack>(panel: *const i32, rows: usize, out: Out) {
    unsafe {
        let small = <F::Kind as Kind>::BLOCK == 32;
        let sub = <F::Kind as Kind>::SUB;
        let subs = layout::SLAB / sub;
        let mut ab = [(V::fsplat(0.0), V::fsplat(0.0)); 16];
        let mut max = V::splat(0);
        let top = V::fsplat(((1u32 << F::BITS) - 1) as f32);
        for (s, ab) in ab.iter_mut().enumerate().take(subs) {
            let (a, b) = affine::<V, F>(panel, rows, s);
            *ab = (a, b);
            // The bits of magnitudes order like the magnitudes, NaN above infinity.
            let magnitude = |x| V::and(V::as_i32(x), V::splat(i32::MAX));
            max = V::max(max, V::max(magnitude(b), magnitude(V::fadd(V::fmul(a, top), b))));
        }
        let max = V::as_f32(max);
        let inverse = V::fdiv(V::fsplat(127.0), max);
        let scaled =
            |x: V::F, shift: u32| V::to_i32(V::fmul(V::fmul(x, inverse), V::fsplat((1u32 << shift) as f32)));
        let both = |x: V::I| V::or(V::and(x, V::splat(0xffff)), V::shl(x, 16));
        let mask = ((1 << F::BITS) - 1) << (15 - F::BITS);
        let mask = V::splat(mask << 16 | mask);
        for (s, &(a, b)) in ab.iter().enumerate().take(subs) {
            let by = both(scaled(a, FRACTION + F::BITS));
            let plus = both(V::add(scaled(b, FRACTION), V::splat((128 << FRACTION) + (1 << (FRACTION - 1)))));
            for i in 0..sub / 4 {
                let from = if small { s * b::PANEL + i } else { s * (sub / 4) + i };
                let q = V::load(panel.add(from * rows));
                let odd = if F::BITS > 7 { V::shr(q, F::BITS - 7) } else { V::shl(q, 7 - F::BITS) };
                let byte = |q| V::add16(V::mulhrs(V::and(q, mask), by), plus);
                let even = V::shr(byte(V::shl(q, 15 - F::BITS)), FRACTION);
                let odd = V::shl(byte(odd), 8 - FRACTION);
                let low = V::splat(0x00ff_00ff);
                let both = V::or(V::and(even, low), V::and(odd, V::splat(0xff00_ff00_u32 as i32)));
                out.set::<V>(s * (sub / 4) + i, both);
            }
        }
        out.fset::<V>(r::D, V::fmul(max, V::fsplat(1.0 / 127.0)));
    }
}

/// A row of blocks of 256 weights: `qs` has their bytes less 128 in order, `d` their scales.
///
/// # Panics
/// When `row` is not `d.len()` slabs of `F`'s blocks, or `qs` is not as many blocks.
pub(crate) fn row<F: Unpack>(row: &[u8], qs: &mut [[i8; q8_k::N]], d: &mut [f32]) {
    let blocks = layout::SLAB / <F::Kind as Kind>::BLOCK;
    assert!(row.len() == d.len() * blocks * F::BYTES && qs.len() == d.len(), "{} slabs", d.len());
    for (i, (qs, d)) in qs.iter_mut().zip(d).enumerate() {
        let mut unpacked = [0i32; layout::PANEL];
        let mut panel = [0i32; r::PANEL];
        let ahead = &mut Stream::none() as *mut Stream;
        // SAFETY: `row` has the blocks, asserted above; a row's panels are as long as `layout` says. portable
        // code needs nothing of the CPU.
        unsafe {
            for j in 0..blocks {
                let first = unpacked.as_mut_ptr().add(j * layout::panel_entries::<F::Kind>());
                F::unpack::<Portable<1>>(
                    row.as_ptr().add((i * blocks + j) * F::BYTES),
                    0,
                    Out { first, rows: 1, ahead },
                );
            }
            rescale::<Portable<1>, F>(
                unpacked.as_ptr(),
                1,
                Out { first: panel.as_mut_ptr(), rows: 1, ahead },
            );
        }
        for (qs, v) in qs.as_chunks_mut::<4>().0.iter_mut().zip(panel) {
            *qs = v.to_le_bytes().map(|v| (v ^ 0x80) as i8);
        }
        *d = f32::from_bits(panel[r::D] as u32);
    }
}

/// A row with a column of activations, as a tile multiplies them: the same bits.
#[inline]
pub(crate) fn dot(qs: &[[i8; q8_k::N]], d: &[f32], a: &[BlockQ8K]) -> f32 {
    let mut sum = 0.0;
    for ((qs, d), a) in qs.iter().zip(d).zip(a) {
        let total: i32 = qs.iter().zip(&a.qs).map(|(&q, &a)| i32::from(q) * i32::from(a)).sum();
        sum += a.d * (d * total as f32);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Format;
    use crate::kernels::unpack::{self, with_unpack};

    fn check<F: Unpack>(format: Format, blocks: &[u8]) {
        let n = blocks.len() / format.block_bytes() * format.block_weights() / q8_k::N;
        let (mut qs, mut d) = (vec![[0; q8_k::N]; n], vec![0.0; n]);
        row::<F>(blocks, &mut qs, &mut d);
        let mut weights = vec![0.0; n * q8_k::N];
        format.decode(blocks, &mut weights);
        for ((qs, d), weights) in qs.iter().zip(d).zip(weights.as_chunks::<{ q8_k::N }>().0) {
            for (i, (&q, &w)) in qs.iter().zip(weights).enumerate() {
                // Half a step, three roundings of 1/128 of one, and those of f32.
                assert!((f32::from(q) * d - w).abs() <= 0.52 * d, "{format} {i}: {q} x {d} for {w}");
            }
        }
    }

    #[test]
    fn rescaled_weights_are_the_decoded_ones_to_half_a_step() {
        let mut random = crate::random::Random::new(1);
        let integers = Format::ALL.iter().filter(|f| !matches!(f, Format::F32 | Format::F16 | Format::BF16));
        for &format in integers {
            for scale in [1e-6, 1.0, 1e3, 0.0] {
                let mut weight = |i| random.signed_unit() * scale * (1 + i / 32 % 9) as f32;
                let x: Vec<f32> = (0..8 * 256).map(&mut weight).collect();
                let mut blocks = vec![0; format.row_bytes(x.len()).unwrap()];
                format.encode(&x, None, &mut blocks);
                with_unpack!(format, F => check::<F>(format, &blocks));
            }
        }
    }
}
