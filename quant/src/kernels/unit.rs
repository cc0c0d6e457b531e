//! What an ISA is to the code that is compiled for it: its vectors, its products of bytes, its features.

#![allow(clippy::needless_range_loop, reason = "an index runs over registers, memory and constants alike")]

use super::layout::Kind;
use super::packing::Packing;
use super::peak::Peak;
use super::vector::{Parts, Vector};
use crate::formats::Format;
use crate::tile::Tile;

/// An ISA as its row in the list names it.
pub(crate) trait Unit: Copy + 'static {
    /// Its vectors.
    type V: Vector;
    /// Its fastest multiply-adds of bytes.
    const INT8: Peak;
    /// Its fastest multiply-adds of `f32`.
    const F32: Peak;
}

/// Integer vectors of a unit.
pub(crate) type Int<U> = <<U as Unit>::V as Vector>::I;

/// Work that is compiled for the features of an ISA.
///
/// `run` is `#[inline(always)]`, as is everything it calls that uses vectors: what is not inlined into
/// [`Features::run`] is compiled for the baseline.
pub(crate) trait Job {
    /// Its result.
    type Output;
    /// Does the work.
    ///
    /// # Safety
    /// The CPU has the features of the unit that the job is for; what a job's values promise holds.
    unsafe fn run(self) -> Self::Output;
}

/// Runs jobs with the instructions of an ISA. The list in `isa` implements it for every unit.
pub(crate) trait Features: Unit {
    /// Runs `job`, compiled for this ISA.
    ///
    /// # Safety
    /// The CPU has the features, and what `job` asks of its callers holds.
    unsafe fn run<J: Job>(job: J) -> J::Output;
}

/// Some rows of a matrix that lies in whole rows of blocks.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    /// All rows of the matrix.
    pub data: &'a [u8],
    /// Bytes of a row.
    pub row_bytes: usize,
    /// Rows of the matrix.
    pub rows: usize,
    /// The first row wanted; the tile of outputs says how many.
    pub first: usize,
    /// The first of those that will be wanted next, if it is known.
    pub next: Option<usize>,
}

/// Rows of weights and the activations that they are multiplied with.
#[derive(Clone, Copy)]
pub(crate) struct Product<'a> {
    /// Format of the weights.
    pub format: Format,
    /// The weights.
    pub w: Rows<'a>,
    /// How the activations lie in `a`.
    pub packing: Packing,
    /// All columns of activations.
    pub a: &'a [i32],
    /// The summed dimension.
    pub k: usize,
}

/// What becomes of sums: `(column, first row, sums of rows from there on)`, once for each output.
pub(crate) type Finish<'a> = &'a dyn Fn(usize, usize, &mut [f32]);

/// [`Finish`] for outputs that are all in place.
pub(crate) fn finish_all(out: &mut Tile<'_>, first: usize, finish: Finish<'_>) {
    for column in 0..out.rows() {
        finish(column, first, out.row(column));
    }
}

/// An ISA as it multiplies matrices. Implemented for every [`Tiled`] unit by the driver.
pub(crate) trait Multiply: Features {
    /// Rows that it takes together, of weights as they are stored or rescaled.
    fn rows(rescaled: bool) -> usize;
    /// How it takes `m` columns of activations for weights of `format`.
    fn packing(format: Format, rescaled: bool, m: usize) -> Packing;
    /// `out[c][r] = w row (first + r) . a row c`, then `finish`.
    ///
    /// # Panics
    /// When activations are packed otherwise than [`packing`](Self::packing) says, or lengths do not fit each
    /// other.
    ///
    /// # Safety
    /// The CPU has the features of the unit. `data` of the weights holds `rows` whole rows of `row_bytes`
    /// bytes, each of them `k` weights in `format`; the rows wanted are rows of the matrix.
    unsafe fn multiply(product: Product<'_>, out: &mut Tile<'_>, finish: Finish<'_>);
}

/// A unit that multiplies tiles: some rows, one a lane, with some columns.
///
/// Weights come from a panel, `[k / 4][row][4]`, that `unpack` fills. Activations are packed in pieces of
/// [`ACROSS`](Self::ACROSS) columns and [`DEPTH`](Self::DEPTH) dwords of four, so that one load is one
/// operand: `[k / (4 DEPTH)][column][4 DEPTH]`, columns rounded up to a multiple of `ACROSS`.
pub(crate) trait Tiled: Features + Unit<V: Parts> {
    /// Vectors of rows in a tile: 1, or 2 where the register file holds their sums. Rescaled weights, which
    /// need no registers beside their sums, take twice as many.
    const HEIGHT: usize;
    /// Most columns in a group, at most 6.
    const COLUMNS: usize;
    /// Columns of activations that lie together; padding columns are multiplied, too.
    const ACROSS: usize = 1;
    /// Dwords of a column of activations that lie together: 1 or 2.
    const DEPTH: usize = 1;
    /// Whether bytes of [wide](Kind::WIDE) formats, stored plus 128, are multiplied less 128, as signed
    /// bytes.
    const WIDE_SIGNED: bool;

    /// `acc` plus, per lane, the four products of bytes `w` below 128 with signed bytes `a`, which are not
    /// -128. Exact.
    ///
    /// # Safety
    /// The CPU has the unit's features, as for every method here.
    unsafe fn dot4(acc: Int<Self>, w: Int<Self>, a: Int<Self>) -> Int<Self>;
    /// The same of stored bytes that use all 8 bits, see [`WIDE_SIGNED`](Self::WIDE_SIGNED).
    ///
    /// # Safety
    /// As above.
    unsafe fn dot4_wide(acc: Int<Self>, w: Int<Self>, a: Int<Self>) -> Int<Self>;
    /// `acc` plus, per lane, the two products of i16. Exact.
    ///
    /// # Safety
    /// As above.
    unsafe fn dot2(acc: Int<Self>, w: Int<Self>, a: Int<Self>) -> Int<Self>;

    /// `acc[j][r]` plus, per row, the products of `n` dwords of bytes, a multiple of `DEPTH`, with those of
    /// column `j`.
    ///
    /// `qs`: `n` entries of `R * LANES` rows. `a`: as many of a group of `W` columns. What is here suits
    /// pieces of one column and one dword.
    ///
    /// # Safety
    /// As above; the pointers reach as far as said.
    #[inline(always)]
    unsafe fn dots<K: Kind, const R: usize, const W: usize>(
        acc: &mut [[Int<Self>; R]; W],
        qs: *const i32,
        a: *const i32,
        n: usize,
    ) {
        // SAFETY: the caller's promises.
        unsafe {
            for i in 0..n {
                let mut w = [<Self::V>::splat(0); R];
                for r in 0..R {
                    w[r] = <Self::V>::load(qs.add((i * R + r) * <Self::V>::LANES));
                }
                for j in 0..W {
                    let a = <Self::V>::splat(*a.add(i * W + j));
                    for r in 0..R {
                        acc[j][r] = match K::WIDE {
                            true => Self::dot4_wide(acc[j][r], w[r], a),
                            false => Self::dot4(acc[j][r], w[r], a),
                        };
                    }
                }
            }
        }
    }
}

/// Columns of a group of `w` with those that fill the last piece.
#[inline(always)]
pub(crate) const fn padded<U: Tiled>(w: usize) -> usize {
    w.next_multiple_of(U::ACROSS)
}

/// Whether stored bytes are multiplied as they are, so that what was added to each has to be taken back.
#[inline(always)]
pub(crate) const fn biased<U: Tiled, K: Kind>() -> bool {
    !(K::WIDE && U::WIDE_SIGNED)
}
