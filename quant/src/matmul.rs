//! Quantised matrix times activations: the part that one step of a team does.

use crate::buffer::Buffer;
use crate::formats::{Format, q8_k};
use crate::kernels::packing::{Packing, Quantised};
use crate::kernels::unit::{Product, Rows};
use crate::kernels::{Isa, table};
use crate::map::Bytes;
use crate::team::Crew;

/// A matrix of blocks as it lies in a file: `rows` rows of `cols` weights, row-major, never copied.
#[derive(Clone)]
pub struct QMatrix {
    format: Format,
    rows: usize,
    cols: usize,
    row_bytes: usize,
    data: Bytes,
}

/// The bytes given are no matrix of that shape.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{rows} x {cols} weights in {format} do not fit {bytes} bytes")]
pub struct ShapeError {
    format: Format,
    rows: usize,
    cols: usize,
    bytes: usize,
}

impl QMatrix {
    /// A view of `data` as a matrix.
    ///
    /// # Errors
    /// When `cols` is zero or no whole number of blocks, or `data` is not exactly that many bytes.
    pub fn new(format: Format, rows: usize, cols: usize, data: Bytes) -> Result<Self, ShapeError> {
        let row_bytes = format.row_bytes(cols).filter(|&bytes| bytes > 0);
        match row_bytes {
            Some(row_bytes) if row_bytes.checked_mul(rows) == Some(data.len()) => {
                Ok(Self { format, rows, cols, row_bytes, data })
            }
            _ => Err(ShapeError { format, rows, cols, bytes: data.len() }),
        }
    }

    /// Format of the blocks.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Rows, the outputs of a product.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns, the summed dimension of a product.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Bytes of all blocks.
    pub fn bytes(&self) -> usize {
        self.data.len()
    }

    /// Decodes row `r` into `out` (`cols` values).
    ///
    /// # Panics
    /// When `r` is not a row or `out` has another length.
    pub fn row(&self, r: usize, out: &mut [f32]) {
        assert!(r < self.rows && out.len() == self.cols, "row {r} of {} into {}", self.rows, out.len());
        self.format.decode(&self.data[r * self.row_bytes..][..self.row_bytes], out);
    }
}

/// Which arithmetic a product uses: chosen by what a token is, never by how many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arithmetic {
    /// Weights as they are stored, every scale in its place: for tokens generated one by one.
    Narrow,
    /// Weights of [formats that allow it](Format::rescales) brought to one scale for 256: for given tokens.
    Wide,
}

impl Arithmetic {
    /// Whether weights of `format` in rows of `k` are rescaled.
    fn rescales(self, format: Format, k: usize) -> bool {
        self == Self::Wide && format.rescales() && k.is_multiple_of(q8_k::N)
    }
}

/// What all products of a step have in common.
#[derive(Clone, Copy)]
pub struct Step<'a> {
    /// The team that works through it.
    pub crew: &'a Crew<'a>,
    /// Whose kernels it runs.
    pub isa: Isa,
    /// What its tokens get.
    pub arithmetic: Arithmetic,
}

/// Activations `(m, k)` in the form a format multiplies with. Keeps its memory from use to use.
#[derive(Default)]
pub struct Activations {
    made: Option<Made>,
    data: Buffer<i32>,
}

/// What the memory of [`Activations`] holds.
#[derive(Clone, Copy)]
struct Made {
    /// The format they were made to multiply with, and on which ISA.
    made_for: (Format, Isa),
    /// Whether that format's weights are rescaled.
    rescaled: bool,
    m: usize,
    k: usize,
    packing: Packing,
}

impl Activations {
    /// Makes `m` rows of `k` values to multiply with weights of `format`: one phase in which `produce(row,
    /// values)` fills each row, which is quantised at once where the format wants it so.
    ///
    /// # Panics
    /// When `k` is not a whole number of blocks.
    pub fn fill(
        &mut self,
        step: Step<'_>,
        format: Format,
        (m, k): (usize, usize),
        produce: impl Fn(usize, &mut [f32]) + Sync,
    ) {
        let Step { crew, isa, arithmetic } = step;
        let rescaled = arithmetic.rescales(format, k);
        let packing = table::packing(isa, format, rescaled, m);
        self.made = Some(Made { made_for: (format, isa), rescaled, m, k, packing });
        let (columns, len) = (packing.columns(), packing.len(k));
        self.data.resize(m.div_ceil(columns) * len);
        if packing == Packing::F32 {
            return crew.rows(&mut self.data, len, |i, out| produce(i, bytemuck::cast_slice_mut(out)));
        }
        crew.rows(&mut self.data, len, |group, out| {
            let first = group * columns;
            let w = columns.min(m - first);
            let (mut x, mut q) = (vec![0.0; k], Quantised::new(format, rescaled, k));
            for j in 0..w {
                produce(first + j, &mut x);
                table::quantise(isa, &x, &mut q);
                packing.pack(&q, (j, w), out);
            }
        });
    }
}

/// Most multiply-adds in one claim: with scalar code some 20 ms, the time in which a cancel must be seen.
pub const CLAIM_MACS: usize = 1 << 24;
/// Bytes of weights in one claim, where the number of columns allows it.
const CLAIM_BYTES: usize = 64 << 10;

/// `y = a w^T`, then `finish` on each piece: one phase.
///
/// `a`: `(m, k)` filled for `w.format()`. `y`: `(m, w.rows())`, row-major. `finish(i, first, piece)`
/// gets `piece = y[i][first .. first + piece.len()]` once its sums are complete (for bias, GELU, residual).
/// An output's bits depend on its row of `w` and its row of `a` alone: not on `m`, not on threads.
///
/// # Panics
/// When a length does not fit.
pub fn matmul(
    step: Step<'_>,
    w: &QMatrix,
    a: &Activations,
    y: &mut [f32],
    finish: impl Fn(usize, usize, &mut [f32]) + Sync,
) {
    let Step { crew, isa, .. } = step;
    let Some(Made { made_for, rescaled, m, k, packing }) = a.made else {
        panic!("activations are filled first")
    };
    assert_eq!(made_for, (w.format, isa), "activations for {}", w.format);
    assert_eq!(k, w.cols, "summed dimension");
    assert_eq!(y.len(), m * w.rows, "outputs");
    // Whole tiles, so that none is computed twice.
    let tile = table::rows(isa, rescaled);
    let most = (CLAIM_BYTES / w.row_bytes).min(CLAIM_MACS / (w.cols * m.max(1)));
    let chunk = most.next_multiple_of(tile).clamp(tile, w.rows.max(tile));
    crew.strips(y, w.rows, chunk, |first, next, mut out| {
        let rows = Rows { data: &w.data, row_bytes: w.row_bytes, rows: w.rows, first, next };
        let product = Product { format: w.format, w: rows, packing, a: &a.data, k };
        table::multiply(isa, product, &mut out, &finish);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::Activation;
    use crate::random::Random;
    use crate::team::Team;
    use std::sync::atomic::AtomicBool;

    fn values(n: usize, seed: u32) -> Vec<f32> {
        let mut random = Random::new(seed.into());
        (0..n).map(|_| random.signed_unit()).collect()
    }

    fn matrix(format: Format, rows: usize, cols: usize) -> QMatrix {
        let x = values(rows * cols, 7);
        let mut data = vec![0; rows * format.row_bytes(cols).unwrap()];
        crate::encode::encode_rows(Isa::SCALAR, format, &x, cols, None, &mut data);
        QMatrix::new(format, rows, cols, Bytes::from(data)).unwrap()
    }

    fn run(threads: usize, isa: Isa, arithmetic: Arithmetic, w: &QMatrix, x: &[f32]) -> Vec<f32> {
        let m = x.len() / w.cols();
        let mut y = vec![f32::NAN; m * w.rows()];
        let mut a = Activations::default();
        Team::new(threads).unwrap().enter(&AtomicBool::new(false), |crew| {
            let step = Step { crew, isa, arithmetic };
            a.fill(step, w.format(), (m, w.cols()), |i, row| {
                row.copy_from_slice(&x[i * w.cols()..][..w.cols()]);
            });
            matmul(step, w, &a, &mut y, |_, _, _| {});
        });
        y
    }

    const BOTH: [Arithmetic; 2] = [Arithmetic::Narrow, Arithmetic::Wide];

    #[test]
    fn every_format_multiplies_what_it_decodes_and_alike_on_every_isa_width_and_team() {
        let (cols, m) = (512, 19);
        eprintln!("formats on {:?}", Isa::all());
        let x = values(m * cols, 3);
        for (&format, arithmetic) in Format::ALL.iter().flat_map(|f| BOTH.map(|a| (f, a))) {
            // Odd, and more than two claims in every format.
            let rows = 2 * CLAIM_BYTES / format.row_bytes(cols).unwrap() + 37;
            let w = matrix(format, rows, cols);
            let y = run(1, Isa::SCALAR, arithmetic, &w, &x);
            let mut row = vec![0.0; cols];
            for r in 0..rows {
                w.row(r, &mut row);
                for c in 0..m {
                    let exact: f64 =
                        row.iter().zip(&x[c * cols..]).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
                    // int8 activations: an error of half a step (1/254 of the largest) per product, random in
                    // sign.
                    assert!(
                        (f64::from(y[c * rows + r]) - exact).abs() < 0.25,
                        "{format} {arithmetic:?}: {} {exact}",
                        y[c * rows + r]
                    );
                }
            }
            for isa in Isa::all() {
                let z = run(1, isa, arithmetic, &w, &x);
                match format.activation() {
                    // Lanes are summed in another order, by FMA: n roundings of the largest partial sum at
                    // most.
                    Activation::F32 => {
                        for (z, y) in z.iter().zip(&y) {
                            assert!((z - y).abs() < 1e-4, "{format} {arithmetic:?} on {isa}: {z} {y}");
                        }
                    }
                    Activation::Q8A | Activation::Q8K => {
                        assert_eq!(z, y, "{format} {arithmetic:?} on {isa}: other bits")
                    }
                }
                for threads in [2, 4] {
                    assert_eq!(
                        run(threads, isa, arithmetic, &w, &x),
                        z,
                        "{format} {arithmetic:?} on {isa}, {threads} threads"
                    );
                }
                for (first, last) in [(5, 6), (0, 2), (3, 6), (7, 11), (1, 6), (2, 8), (4, 11), (0, 13)] {
                    assert_eq!(
                        run(1, isa, arithmetic, &w, &x[first * cols..last * cols]),
                        z[first * rows..last * rows],
                        "{format} {arithmetic:?} on {isa}: columns {first}..{last} alone"
                    );
                }
            }
        }
    }

    /// Groups of columns are cut in another way for each number of them.
    #[test]
    fn a_column_has_the_same_bits_beside_any_number_of_others() {
        let (rows, cols, most) = (33, 256, 40);
        let x = values(most * cols, 9);
        for (&format, arithmetic) in Format::ALL.iter().flat_map(|f| BOTH.map(|a| (f, a))) {
            let w = matrix(format, rows, cols);
            for isa in Isa::all() {
                let all = run(1, isa, arithmetic, &w, &x);
                for m in 1..most {
                    // The last `m`, so that each column stands at another place of its group, too.
                    let first = most - m;
                    let some = run(1, isa, arithmetic, &w, &x[first * cols..]);
                    assert_eq!(some, all[first * rows..], "{format} {arithmetic:?} on {isa}: {m} columns");
                }
            }
        }
    }

    /// Few rows, odd rows, one less and one more than a tile, sums that end inside a slab.
    #[test]
    fn every_shape_of_every_format_has_the_bits_of_the_scalar_code() {
        for (&format, arithmetic) in Format::ALL.iter().flat_map(|f| BOTH.map(|a| (f, a))) {
            for blocks in [1, 2, 3, 9, 11] {
                let cols = blocks * format.block_weights();
                for rows in [1, 7, 31, 32, 33, 63, 64, 65, 70] {
                    let w = matrix(format, rows, cols);
                    let x = values(3 * cols, 5);
                    let y = run(1, Isa::SCALAR, arithmetic, &w, &x);
                    for isa in Isa::all() {
                        let z = run(1, isa, arithmetic, &w, &x);
                        if format.activation() == Activation::F32 {
                            assert!(
                                z.iter().zip(&y).all(|(z, y)| (z - y).abs() < 1e-5),
                                "{format} {arithmetic:?} {isa}"
                            );
                        } else {
                            assert_eq!(z, y, "{format} {arithmetic:?} on {isa}: {rows} x {cols}");
                        }
                    }
                }
            }
        }
    }

    /// Blocks of any bytes, scales that are not finite among them: what a hostile file may hold.
    #[test]
    fn arbitrary_blocks_have_the_bits_of_the_scalar_code() {
        let mut random = Random::new(1);
        let mut byte = || random.bits() as u8;
        let same = |a: &[f32], b: &[f32]| {
            a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()))
        };
        let integers = Format::ALL.iter().filter(|f| f.activation() != Activation::F32);
        for (&format, arithmetic) in integers.flat_map(|f| BOTH.map(|a| (f, a))) {
            for fill in [None, Some(0x00), Some(0xff), Some(0x80), Some(0x7f)] {
                // More than the tallest tile: a whole one, and one that begins before the first ends.
                let (rows, cols) = (70, 512);
                let n = rows * format.row_bytes(cols).unwrap();
                let data: Vec<u8> = (0..n).map(|_| fill.unwrap_or_else(&mut byte)).collect();
                let w = QMatrix::new(format, rows, cols, Bytes::from(data)).unwrap();
                let mut x = values(9 * cols, 11);
                x[..cols].fill(1.0);
                x[cols..2 * cols].fill(-3.0);
                x[2 * cols] = f32::INFINITY;
                x[3 * cols + 300] = f32::NAN;
                let y = run(1, Isa::SCALAR, arithmetic, &w, &x);
                for isa in Isa::all() {
                    assert!(
                        same(&run(1, isa, arithmetic, &w, &x), &y),
                        "{format} {arithmetic:?} on {isa}, bytes {fill:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn bytes_that_do_not_fit_are_refused() {
        for (format, rows, cols, bytes) in [
            (Format::Q4_K, 1, 255, 144),
            (Format::Q4_K, 2, 256, 144),
            (Format::F32, 1, 0, 0),
            (Format::F32, usize::MAX, 4, 16),
        ] {
            assert!(
                QMatrix::new(format, rows, cols, Bytes::from(vec![0; bytes])).is_err(),
                "{format} {rows} {cols}"
            );
        }
    }
}
