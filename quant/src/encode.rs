//! Rows of `f32` to blocks.
//!
//! The encoders are the portable ones of `formats`, compiled for each vector width: they give the same bytes
//! on every ISA and thread count.

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

/// Number of the encoders: another one wherever some rows give other bytes than before, so that a conversion
/// begun by another program is not gone on with.
pub const VERSION: u32 = 2;

/// Encodes rows; the bytes are those of [`Format::encode`] on every ISA.
///
/// `x`: `(n, cols)` row-major. `importance`: one non-negative weight per column, the expected square of that
/// column's activation. `out`: `n` rows of `format.row_bytes(cols)` bytes.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// Rows of `cols` of every kind: whole and half batches of good blocks, blocks that are nothing, flat,
    /// huge, tiny, not finite, or any bits at all, beside each other.
    fn rows(r: &mut Random, n: usize, cols: usize) -> Vec<f32> {
        let mut x = Vec::new();
        for i in 0..n * cols / 32 {
            let kind = if i < cols / 32 { 0 } else { r.bits() % 16 };
            let scale = 10f32.powi((r.bits() % 60) as i32 - 30);
            let odd = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX][(r.bits() % 4) as usize];
            let at = (r.bits() % 32) as usize;
            x.extend((0..32).map(|j| match kind {
                0..7 => r.normal() * 0.02,
                7 => r.normal() / (r.unit() + 1e-3) * 0.02,
                8 => 0.0,
                9 => r.normal() * scale,
                10 => scale,
                11 => r.unit() + 0.5,
                12 => -r.unit() - 0.1,
                13 => f32::from_bits(r.bits() as u32),
                14 if j == at => odd,
                15 => r.normal() * 1e-6,
                _ => r.normal(),
            }));
        }
        x
    }

    fn encode(isa: Isa, format: Format, x: &[f32], cols: usize, importance: Option<&[f32]>) -> Vec<u8> {
        let mut out = vec![0xa5; x.len() / cols * format.row_bytes(cols).unwrap()];
        encode_rows(isa, format, x, cols, importance, &mut out);
        out
    }

    #[test]
    fn every_isa_writes_the_bytes_of_scalar() {
        eprintln!("ISAs: {:?}", Isa::all());
        let mut r = Random::new(1);
        // Half a batch, one, one and a half, some and a bit.
        for (cols, n) in [(256, 40), (512, 20), (768, 20), (2304, 8)] {
            let x = rows(&mut r, n, cols);
            let tame: Vec<f32> = (0..cols).map(|_| r.normal().exp()).collect();
            let wild: Vec<f32> = (0..cols).map(|_| f32::from_bits(r.bits() as u32)).collect();
            for &format in Format::ALL {
                for importance in [None, Some(&tame[..]), Some(&wild)] {
                    let scalar = encode(Isa::SCALAR, format, &x, cols, importance);
                    let row_bytes = format.row_bytes(cols).unwrap();
                    for (x, blocks) in x.chunks(cols).zip(scalar.chunks(row_bytes)) {
                        let mut own = vec![0; row_bytes];
                        format.encode(x, importance, &mut own);
                        assert!(own == blocks, "{format}: another row matters");
                    }
                    for isa in Isa::all() {
                        let bytes = encode(isa, format, &x, cols, importance);
                        let same = bytes == scalar;
                        let at = bytes.iter().zip(&scalar).position(|(a, b)| a != b);
                        assert!(same, "{format} in rows of {cols}: {isa} differs from scalar at {at:?}");
                    }
                }
            }
        }
    }

    /// Blocks share vectors when they are searched: what is in one must not reach another.
    #[test]
    fn no_block_depends_on_what_the_others_are() {
        let mut r = Random::new(2);
        let cols = 1024;
        let x = rows(&mut r, 1, cols);
        for &format in Format::ALL.iter().filter(|f| f.block_weights() == 256) {
            // The formats of 32 weights and IQ4_XS weigh errors against the whole row.
            if format == Format::IQ4_XS {
                continue;
            }
            let whole = encode(Isa::SCALAR, format, &x, cols, None);
            for (k, block) in x.chunks(256).enumerate() {
                let alone = encode(Isa::SCALAR, format, block, 256, None);
                let at = k * format.block_bytes();
                assert!(whole[at..at + format.block_bytes()] == alone, "{format} block {k}");
            }
        }
        // There a block keeps its bytes when others change places, so that their lanes change.
        for format in [Format::Q4_0, Format::Q4_1, Format::Q5_0, Format::Q8_0, Format::IQ4_NL, Format::IQ4_XS]
        {
            let turned: Vec<f32> = x.chunks(256).rev().flatten().copied().collect();
            let size = format.row_bytes(256).unwrap();
            let (a, b) = (
                encode(Isa::SCALAR, format, &x, cols, None),
                encode(Isa::SCALAR, format, &turned, cols, None),
            );
            // The mean square of the row rounds with the order of its sum: only nearly always the same bytes.
            let same = a.chunks(size).zip(b.chunks(size).rev()).filter(|(a, b)| a == b).count();
            assert!(same >= 3, "{format}: {same} of 4");
        }
    }
}
