//! Four lanes and a product of two rows with two columns, eight bytes of each, in portable code: the
//! reference of a unit for ARM's i8mm, which multiplies so in one instruction (`usmmla`: unsigned rows,
//! signed columns, four sums).
//!
//! It is slow, and taken only where `HUOZI_ISA` names it.

#![allow(clippy::needless_range_loop, reason = "an index runs over registers, memory and constants alike")]

use super::layout::Kind;
use super::peak::{self, Peak};
use super::portable::{self, Portable, bytes};
use super::unit::{Tiled, Unit, padded};
use super::vector::Vector;

/// The unit.
#[derive(Clone, Copy)]
pub(crate) struct Portable2x8;

impl Unit for Portable2x8 {
    type V = Portable<4>;
    const INT8: Peak = peak::INT8;
    const F32: Peak = peak::F32;
}

/// Two rows of eight unsigned bytes times two columns of eight signed ones: `acc[2 i + j]` plus row `i` times
/// column `j`.
#[inline(always)]
fn matrix(mut acc: [i32; 4], rows: [i32; 4], columns: [i32; 4]) -> [i32; 4] {
    let (rows, columns) = (bytes(rows), bytes(columns));
    for i in 0..2 {
        for j in 0..2 {
            for t in 0..8 {
                let product = i32::from(rows[8 * i + t]) * i32::from(columns[8 * j + t] as i8);
                acc[2 * i + j] = acc[2 * i + j].wrapping_add(product);
            }
        }
    }
    acc
}

/// Pairs of columns in the widest group.
const PAIRS: usize = 3;

impl Tiled for Portable2x8 {
    const HEIGHT: usize = 2;
    const COLUMNS: usize = 2 * PAIRS;
    const ACROSS: usize = 2;
    const DEPTH: usize = 2;
    const WIDE_SIGNED: bool = false;

    #[inline(always)]
    unsafe fn dot4(acc: [i32; 4], w: [i32; 4], a: [i32; 4]) -> [i32; 4] {
        portable::dot4(acc, w, a, i32::from)
    }
    #[inline(always)]
    unsafe fn dot4_wide(acc: [i32; 4], w: [i32; 4], a: [i32; 4]) -> [i32; 4] {
        // SAFETY: portable code needs no feature.
        unsafe { Self::dot4(acc, w, a) }
    }
    #[inline(always)]
    unsafe fn dot2(acc: [i32; 4], w: [i32; 4], a: [i32; 4]) -> [i32; 4] {
        portable::dot2(acc, w, a)
    }

    #[inline(always)]
    unsafe fn dots<K: Kind, const R: usize, const W: usize>(
        acc: &mut [[[i32; 4]; R]; W],
        qs: *const i32,
        a: *const i32,
        n: usize,
    ) {
        let pairs = W.div_ceil(2);
        // Per pair of columns and vector of rows: two pairs of rows.
        let mut sums = [[[[0i32; 4]; 2]; R]; PAIRS];
        for i in (0..n).step_by(2) {
            for r in 0..R {
                // SAFETY: the caller's promises: `n` entries of `R * 4` rows, `n / 2` pieces of `pairs` pairs
                // of columns.
                let (x, y) = unsafe {
                    let at = |entry: usize| <Self::V>::load(qs.add((entry * R + r) * 4));
                    (at(i), at(i + 1))
                };
                let rows = [[x[0], y[0], x[1], y[1]], [x[2], y[2], x[3], y[3]]];
                for pair in 0..pairs {
                    // SAFETY: as above.
                    let columns = unsafe { <Self::V>::load(a.add(i * padded::<Self>(W) + 4 * pair)) };
                    for (sum, rows) in sums[pair][r].iter_mut().zip(rows) {
                        *sum = matrix(*sum, rows, columns);
                    }
                }
            }
        }
        for j in 0..W {
            for r in 0..R {
                for lane in 0..4 {
                    let sum = sums[j / 2][r][lane / 2][2 * (lane % 2) + j % 2];
                    acc[j][r][lane] = acc[j][r][lane].wrapping_add(sum);
                }
            }
        }
    }
}
