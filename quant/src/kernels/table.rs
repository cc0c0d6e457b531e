//! Products on any ISA: which packing of activations it takes, and the call of its kernels.

use super::isa::{Isa, multiversion, with_unit};
use super::packing::{Packing, Quantised};
use super::unit::{Finish, Multiply, Product};
use crate::formats::Format;
use crate::formats::q8_a::{self, BlockQ8A};
use crate::formats::q8_k::{self, BlockQ8K};
use crate::tile::Tile;

multiversion! {
    fn quantize_q8_a(x: &[f32], out: &mut [BlockQ8A]) = q8_a::quantize;
}
multiversion! {
    fn quantize_q8_k(x: &[f32], out: &mut [BlockQ8K]) = q8_k::quantize;
}

/// Quantises `x`.
///
/// # Panics
/// When `q` is no room for as many values.
pub(crate) fn quantise(isa: Isa, x: &[f32], q: &mut Quantised) {
    match q {
        Quantised::Q8A(q) => quantize_q8_a(isa, x, q),
        Quantised::Q8K(q) => quantize_q8_k(isa, x, q),
    }
}

/// How an ISA takes `m` columns of activations for weights of `format`, rescaled or not.
pub(crate) fn packing(isa: Isa, format: Format, rescaled: bool, m: usize) -> Packing {
    with_unit!(isa, U => U::packing(format, rescaled, m))
}

/// Rows that an ISA takes together, of weights as they are stored or rescaled.
pub(crate) fn rows(isa: Isa, rescaled: bool) -> usize {
    with_unit!(isa, U => U::rows(rescaled))
}

/// `out[c][r] = w row (first + r) . a row c`, then `finish`. Bits depend on that row and that column alone.
///
/// # Panics
/// When lengths do not fit each other, or activations are packed for another ISA.
pub(crate) fn multiply(isa: Isa, product: Product<'_>, out: &mut Tile<'_>, finish: Finish<'_>) {
    let Product { format, w, k, .. } = product;
    // What every pointer in the kernels rests on.
    assert_eq!(w.row_bytes.checked_mul(w.rows), Some(w.data.len()), "whole rows");
    assert_eq!(format.row_bytes(k), Some(w.row_bytes), "rows of {k} weights in {format}");
    assert!(w.first + out.width() <= w.rows, "rows of the matrix");
    with_unit!(isa, U => {
        // SAFETY: `isa` is in hand, and an `Isa` of this unit exists only where its features were detected;
        // the lengths of the weights and the rows wanted were asserted above.
        unsafe { U::multiply(product, out, finish) }
    });
}
