//! Rows of `f32` to blocks.
//!
//! The encoders are the portable ones of `formats`, compiled for each vector width: they give the same bytes on every
//! ISA and thread count.

use crate::formats::{self, Format};
use crate::kernels::{Isa, multiversion};

macro_rules! encoders {
    ($($variant:ident $module:ident :: $block:ident;)*) => {
        $( multiversion! {
            fn $module(x: &[f32], importance: Option<&[f32]>, out: &mut [formats::$module::$block])
                = formats::$module::encode;
        } )*

        fn encode_row(isa: Isa, format: Format, x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
            match format {
                $( Format::$variant => $module(isa, x, importance, bytemuck::cast_slice_mut(out)), )*
            }
        }
    };
}

encoders! {
    F32 f32::BlockF32;
    F16 f16::BlockF16;
    Q4_0 q4_0::BlockQ4_0;
    Q4_1 q4_1::BlockQ4_1;
    Q5_0 q5_0::BlockQ5_0;
    Q5_1 q5_1::BlockQ5_1;
    Q8_0 q8_0::BlockQ8_0;
    Q2_K q2_k::BlockQ2K;
    Q3_K q3_k::BlockQ3K;
    Q4_K q4_k::BlockQ4K;
    Q5_K q5_k::BlockQ5K;
    Q6_K q6_k::BlockQ6K;
    IQ4_NL iq4_nl::BlockIq4Nl;
    IQ4_XS iq4_xs::BlockIq4Xs;
    BF16 bf16::BlockBf16;
}

/// Encodes rows; the bytes are those of [`Format::encode`] on every ISA.
///
/// `x`: `(n, cols)` row-major. `importance`: one non-negative weight per column, the expected square of that column's
/// activation. `out`: `n` rows of `format.row_bytes(cols)` bytes.
///
/// # Panics
/// When a length does not fit, or `cols` is no whole number of blocks.
pub fn encode_rows(
    isa: Isa,
    format: Format,
    x: &[f32],
    cols: usize,
    importance: Option<&[f32]>,
    out: &mut [u8],
) {
    assert!(cols > 0 && x.len().is_multiple_of(cols), "{} values in rows of {cols}", x.len());
    let row_bytes = format.row_bytes(cols).filter(|&bytes| bytes > 0);
    let row_bytes = row_bytes.unwrap_or_else(|| panic!("rows of {cols} in {format}"));
    assert_eq!(x.len() / cols * row_bytes, out.len(), "bytes of the rows");
    if let Some(importance) = importance {
        assert_eq!(importance.len(), cols, "importance per column");
    }
    for (x, out) in x.chunks_exact(cols).zip(out.chunks_exact_mut(row_bytes)) {
        encode_row(isa, format, x, importance, out);
    }
}
