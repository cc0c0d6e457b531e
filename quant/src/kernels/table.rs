//! One row per format: the product of some rows of a quantised matrix with columns of activations.

use super::{Isa, multiversion};
use crate::formats::{self, Format};
use crate::formats::{q8_a::BlockQ8A, q8_k::BlockQ8K};
use crate::team::Tile;

/// Columns whose activations are walked together for each row of weights, so that they stay in the L2 cache.
const COLUMN_GROUP: usize = 16;

macro_rules! product {
    ($(#[$meta:meta])* $name:ident: $module:ident :: $block:ident x $act:ty) => {
        pub(super) mod $module {
            use super::*;

            #[inline(always)]
            pub(super) fn body(w: &[u8], a: &[$act], out: &mut Tile<'_>) {
                let w: &[formats::$module::$block] = bytemuck::cast_slice(w);
                let (rows, columns) = (out.width(), out.rows());
                if rows == 0 || columns == 0 {
                    return;
                }
                assert!(w.len() % rows == 0 && a.len() % columns == 0, "whole rows");
                let (w_row, a_row) = (w.len() / rows, a.len() / columns);
                let mut first = 0;
                while first < columns {
                    let last = (first + COLUMN_GROUP).min(columns);
                    for r in 0..rows {
                        let w = &w[r * w_row..][..w_row];
                        for c in first..last {
                            out.row(c)[r] = formats::$module::dot(w, &a[c * a_row..][..a_row]);
                        }
                    }
                    first = last;
                }
            }
        }
        multiversion! {
            $(#[$meta])*
            fn $name(w: &[u8], a: &[$act], out: &mut Tile<'_>) = $module::body;
        }
    };
}

product!(mul_f32: f32::BlockF32 x f32);
product!(mul_f16: f16::BlockF16 x f32);
product!(mul_bf16: bf16::BlockBf16 x f32);
product!(mul_q4_0: q4_0::BlockQ4_0 x BlockQ8A);
product!(mul_q4_1: q4_1::BlockQ4_1 x BlockQ8A);
product!(mul_q5_0: q5_0::BlockQ5_0 x BlockQ8A);
product!(mul_q5_1: q5_1::BlockQ5_1 x BlockQ8A);
product!(mul_q8_0: q8_0::BlockQ8_0 x BlockQ8A);
product!(mul_iq4_nl: iq4_nl::BlockIq4Nl x BlockQ8A);
product!(mul_q2_k: q2_k::BlockQ2K x BlockQ8K);
product!(mul_q3_k: q3_k::BlockQ3K x BlockQ8K);
product!(mul_q4_k: q4_k::BlockQ4K x BlockQ8K);
product!(mul_q5_k: q5_k::BlockQ5K x BlockQ8K);
product!(mul_q6_k: q6_k::BlockQ6K x BlockQ8K);
product!(mul_iq4_xs: iq4_xs::BlockIq4Xs x BlockQ8K);

/// Rows of weights times columns of activations.
///
/// `w`: whole rows of blocks, as many as the tile is wide. `a`: activations `(m, k)`, as many rows as the tile has.
/// `out`: row `c` receives the products of activation row `c` with every row of `w`.
/// A product's bits depend on its row and column alone.
pub(crate) type Mul<A> = fn(Isa, &[u8], &[A], &mut Tile<'_>);

/// The product for a format, by the activations it takes.
#[derive(Clone, Copy)]
pub(crate) enum Product {
    /// Takes plain `f32`.
    F32(Mul<f32>),
    /// Takes [`BlockQ8A`].
    Q8A(Mul<BlockQ8A>),
    /// Takes [`BlockQ8K`].
    Q8K(Mul<BlockQ8K>),
}

/// The product for `format`.
pub(crate) fn product(format: Format) -> Product {
    match format {
        Format::F32 => Product::F32(mul_f32),
        Format::F16 => Product::F32(mul_f16),
        Format::BF16 => Product::F32(mul_bf16),
        Format::Q4_0 => Product::Q8A(mul_q4_0),
        Format::Q4_1 => Product::Q8A(mul_q4_1),
        Format::Q5_0 => Product::Q8A(mul_q5_0),
        Format::Q5_1 => Product::Q8A(mul_q5_1),
        Format::Q8_0 => Product::Q8A(mul_q8_0),
        Format::IQ4_NL => Product::Q8A(mul_iq4_nl),
        Format::Q2_K => Product::Q8K(mul_q2_k),
        Format::Q3_K => Product::Q8K(mul_q3_k),
        Format::Q4_K => Product::Q8K(mul_q4_k),
        Format::Q5_K => Product::Q8K(mul_q5_k),
        Format::Q6_K => Product::Q8K(mul_q6_k),
        Format::IQ4_XS => Product::Q8K(mul_iq4_xs),
    }
}
