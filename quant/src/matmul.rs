//! Quantised matrix times activations: the part that one step of a team does.

use crate::formats::{Activation, Format, q8_a, q8_k};
use crate::kernels::table::{Product, product};
use crate::kernels::{Isa, multiversion};
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

multiversion! {
    fn quantize_q8_a(x: &[f32], out: &mut [q8_a::BlockQ8A]) = q8_a::quantize;
}
multiversion! {
    fn quantize_q8_k(x: &[f32], out: &mut [q8_k::BlockQ8K]) = q8_k::quantize;
}

/// Activations `(m, k)`, row-major, in the form a format multiplies with. Keeps its memory from use to use.
#[derive(Default)]
pub struct Activations {
    /// Which of the buffers was filled last.
    kind: Option<Activation>,
    m: usize,
    k: usize,
    f32: Vec<f32>,
    q8_a: Vec<q8_a::BlockQ8A>,
    q8_k: Vec<q8_k::BlockQ8K>,
}

impl Activations {
    /// Makes `m` rows of `k` values: one phase in which `produce(row, values)` fills each row, which is quantised at
    /// once where `kind` wants it so.
    ///
    /// # Panics
    /// When `k` is not a whole number of blocks of `kind`.
    pub fn fill(
        &mut self,
        crew: &Crew<'_>,
        isa: Isa,
        kind: Activation,
        (m, k): (usize, usize),
        produce: impl Fn(usize, &mut [f32]) + Sync,
    ) {
        (self.kind, self.m, self.k) = (Some(kind), m, k);
        match kind {
            Activation::F32 => {
                self.f32.resize(m * k, 0.0);
                crew.rows(&mut self.f32, k, produce);
            }
            Activation::Q8A => {
                assert!(k.is_multiple_of(q8_a::N), "k = {k}");
                self.q8_a.resize(m * k / q8_a::N, bytemuck::Zeroable::zeroed());
                crew.rows(&mut self.q8_a, k / q8_a::N, |i, row| {
                    let mut x = vec![0.0; k];
                    produce(i, &mut x);
                    quantize_q8_a(isa, &x, row);
                });
            }
            Activation::Q8K => {
                assert!(k.is_multiple_of(q8_k::N), "k = {k}");
                self.q8_k.resize(m * k / q8_k::N, bytemuck::Zeroable::zeroed());
                crew.rows(&mut self.q8_k, k / q8_k::N, |i, row| {
                    let mut x = vec![0.0; k];
                    produce(i, &mut x);
                    quantize_q8_k(isa, &x, row);
                });
            }
        }
    }
}

/// Most multiply-adds in one claim: with scalar code some 20 ms, the time in which a cancel must be seen.
pub const CLAIM_MACS: usize = 1 << 24;
/// Bytes of weights in one claim, where the number of columns allows it.
const CLAIM_BYTES: usize = 64 << 10;

/// `y = a w^T`, then `finish` on each piece: one phase.
///
/// `a`: `(m, k)` filled with `w.format().activation()`. `y`: `(m, w.rows())`, row-major. `finish(i, first, piece)`
/// gets `piece = y[i][first .. first + piece.len()]` once its sums are complete (for bias, GELU, residual).
/// An output's bits depend on its row of `w` and its row of `a` alone: not on `m`, not on threads.
///
/// # Panics
/// When a length does not fit.
pub fn matmul(
    crew: &Crew<'_>,
    isa: Isa,
    w: &QMatrix,
    a: &Activations,
    y: &mut [f32],
    finish: impl Fn(usize, usize, &mut [f32]) + Sync,
) {
    assert_eq!(a.kind, Some(w.format.activation()), "activations for {}", w.format);
    assert_eq!(a.k, w.cols, "summed dimension");
    assert_eq!(y.len(), a.m * w.rows, "outputs");
    let product = product(w.format);
    let chunk = (CLAIM_BYTES / w.row_bytes).min(CLAIM_MACS / (w.cols * a.m.max(1))).clamp(1, w.rows.max(1));
    crew.strips(y, w.rows, chunk, |first, mut tile| {
        let blocks = &w.data[first * w.row_bytes..][..tile.width() * w.row_bytes];
        match product {
            Product::F32(mul) => mul(isa, blocks, &a.f32, &mut tile),
            Product::Q8A(mul) => mul(isa, blocks, &a.q8_a, &mut tile),
            Product::Q8K(mul) => mul(isa, blocks, &a.q8_k, &mut tile),
        }
        for i in 0..tile.rows() {
            finish(i, first, tile.row(i));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::team::Team;
    use std::sync::atomic::AtomicBool;

    fn values(n: usize, seed: u32) -> Vec<f32> {
        let mut s = seed;
        (0..n)
            .map(|_| {
                s = s.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (s >> 8) as f32 / (1 << 23) as f32 - 1.0
            })
            .collect()
    }

    fn matrix(format: Format, rows: usize, cols: usize) -> QMatrix {
        let x = values(rows * cols, 7);
        let mut data = vec![0; rows * format.row_bytes(cols).unwrap()];
        crate::encode::encode_rows(format, &x, cols, None, &mut data);
        QMatrix::new(format, rows, cols, Bytes::from(data)).unwrap()
    }

    fn run(threads: usize, isa: Isa, w: &QMatrix, x: &[f32]) -> Vec<f32> {
        let m = x.len() / w.cols();
        let mut y = vec![f32::NAN; m * w.rows()];
        let mut a = Activations::default();
        Team::new(threads).unwrap().enter(&AtomicBool::new(false), |crew| {
            a.fill(crew, isa, w.format().activation(), (m, w.cols()), |i, row| {
                row.copy_from_slice(&x[i * w.cols()..][..w.cols()]);
            });
            matmul(crew, isa, w, &a, &mut y, |_, _, _| {});
        });
        y
    }

    #[test]
    fn every_format_multiplies_what_it_decodes_and_alike_on_every_isa_width_and_team() {
        let (cols, m) = (512, 19);
        eprintln!("formats on {:?}", Isa::available());
        let x = values(m * cols, 3);
        for &format in Format::ALL {
            // Odd, and more than two claims in every format.
            let rows = 2 * CLAIM_BYTES / format.row_bytes(cols).unwrap() + 37;
            let w = matrix(format, rows, cols);
            let y = run(1, Isa::SCALAR, &w, &x);
            let mut row = vec![0.0; cols];
            for r in 0..rows {
                w.row(r, &mut row);
                for c in 0..m {
                    let exact: f64 =
                        row.iter().zip(&x[c * cols..]).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
                    // int8 activations: an error of half a step (1/254 of the largest) per product, random in sign.
                    assert!(
                        (f64::from(y[c * rows + r]) - exact).abs() < 0.25,
                        "{format}: {} {exact}",
                        y[c * rows + r]
                    );
                }
            }
            for isa in Isa::available() {
                for threads in [1, 2, 4] {
                    assert_eq!(
                        run(threads, isa, &w, &x),
                        y,
                        "{format} on {isa}, {threads} threads: other bits"
                    );
                }
                assert_eq!(run(1, isa, &w, &x[5 * cols..6 * cols]), y[5 * rows..6 * rows], "{format}: alone");
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
