//! Portable products, row by row, by the `dot` of each format: what all other ISAs are compared with.

use super::packing::Packing;
use super::peak::{self, Peak};
use super::portable::Portable;
use super::rescale;
use super::unit::{Finish, Multiply, Product, Rows, Unit, finish_all};
use super::unpack::{self, Unpack, with_unpack};
use crate::formats::q8_k::{self, BlockQ8K};
use crate::formats::{self, Activation, Format};
use crate::tile::Tile;

/// The unit.
#[derive(Clone, Copy)]
pub(crate) struct Scalar;

impl Unit for Scalar {
    type V = Portable<4>;
    const INT8: Peak = peak::INT8;
    const F32: Peak = peak::F32;
}

/// Columns whose activations are walked together for each row of weights, so that they stay in the L2 cache.
const GROUP: usize = 16;

fn product<B: bytemuck::Pod, A: bytemuck::Pod>(
    w: Rows<'_>,
    a: &[i32],
    out: &mut Tile<'_>,
    dot: fn(&[B], &[A]) -> f32,
) {
    let a: &[A] = bytemuck::cast_slice(a);
    let (rows, columns) = (out.width(), out.rows());
    let len = a.len() / columns;
    assert_eq!(len * columns, a.len(), "whole columns");
    for first in (0..columns).step_by(GROUP) {
        for r in 0..rows {
            let w = bytemuck::cast_slice(&w.data[(w.first + r) * w.row_bytes..][..w.row_bytes]);
            for c in first..(first + GROUP).min(columns) {
                out.row(c)[r] = dot(w, &a[c * len..][..len]);
            }
        }
    }
}

fn rescaled<F: Unpack>(w: Rows<'_>, a: &[i32], out: &mut Tile<'_>) {
    let a: &[BlockQ8K] = bytemuck::cast_slice(a);
    let (rows, columns) = (out.width(), out.rows());
    let blocks = a.len() / columns;
    assert_eq!(blocks * columns, a.len(), "whole columns");
    let (mut qs, mut d) = (vec![[0; q8_k::N]; blocks], vec![0.0; blocks]);
    for r in 0..rows {
        rescale::row::<F>(&w.data[(w.first + r) * w.row_bytes..][..w.row_bytes], &mut qs, &mut d);
        for c in 0..columns {
            out.row(c)[r] = rescale::dot(&qs, &d, &a[c * blocks..][..blocks]);
        }
    }
}

impl Multiply for Scalar {
    fn rows(_: bool) -> usize {
        1
    }

    fn packing(format: Format, rescaled: bool, _: usize) -> Packing {
        match format.activation() {
            Activation::F32 => Packing::F32,
            _ if rescaled => Packing::Q8K { rescaled },
            Activation::Q8A => Packing::Q8A,
            Activation::Q8K => Packing::Q8K { rescaled },
        }
    }

    unsafe fn multiply(product_of: Product<'_>, out: &mut Tile<'_>, finish: Finish<'_>) {
        let Product { format, w, packing, a, .. } = product_of;
        if out.rows() == 0 {
            return;
        }
        match (format, packing) {
            (Format::F32, Packing::F32) => product(w, a, out, formats::f32::dot),
            (Format::F16, Packing::F32) => product(w, a, out, formats::f16::dot),
            (Format::BF16, Packing::F32) => product(w, a, out, formats::bf16::dot),
            (Format::Q4_0, Packing::Q8A) => product(w, a, out, formats::q4_0::dot),
            (Format::Q4_1, Packing::Q8A) => product(w, a, out, formats::q4_1::dot),
            (Format::Q5_0, Packing::Q8A) => product(w, a, out, formats::q5_0::dot),
            (Format::Q5_1, Packing::Q8A) => product(w, a, out, formats::q5_1::dot),
            (Format::Q8_0, Packing::Q8A) => product(w, a, out, formats::q8_0::dot),
            (Format::IQ4_NL, Packing::Q8A) => product(w, a, out, formats::iq4_nl::dot),
            (Format::Q2_K, Packing::Q8K { rescaled: false }) => product(w, a, out, formats::q2_k::dot),
            (Format::Q3_K, Packing::Q8K { rescaled: false }) => product(w, a, out, formats::q3_k::dot),
            (Format::Q4_K, Packing::Q8K { rescaled: false }) => product(w, a, out, formats::q4_k::dot),
            (Format::Q5_K, Packing::Q8K { rescaled: false }) => product(w, a, out, formats::q5_k::dot),
            (Format::Q6_K, Packing::Q8K { rescaled: false }) => product(w, a, out, formats::q6_k::dot),
            (Format::IQ4_XS, Packing::Q8K { rescaled: false }) => product(w, a, out, formats::iq4_xs::dot),
            (format, Packing::Q8K { rescaled: true }) => with_unpack!(format, F => rescaled::<F>(w, a, out)),
            (format, packing) => panic!("{packing:?} for {format}"),
        }
        finish_all(out, w.first, finish);
    }
}
