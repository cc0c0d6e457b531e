//! Rows of `f32` to blocks.
//!
//! The encoders are the portable ones of `formats`, which give the same bytes on every ISA and thread count.

use crate::formats::Format;

/// Number of the encoders: another one wherever some rows give other bytes than before, so that a conversion begun by
/// another program is not gone on with.
pub const VERSION: u32 = 1;

/// Encodes rows.
///
/// `x`: `(n, cols)` row-major. `importance`: one non-negative weight per column, the expected square of that column's
/// activation. `out`: `n` rows of `format.row_bytes(cols)` bytes.
///
/// # Panics
/// When a length does not fit, or `cols` is no whole number of blocks.
pub fn encode_rows(format: Format, x: &[f32], cols: usize, importance: Option<&[f32]>, out: &mut [u8]) {
    assert!(cols > 0 && x.len().is_multiple_of(cols), "{} values in rows of {cols}", x.len());
    let row_bytes = format.row_bytes(cols).filter(|&bytes| bytes > 0);
    let row_bytes = row_bytes.unwrap_or_else(|| panic!("rows of {cols} in {format}"));
    assert_eq!(x.len() / cols * row_bytes, out.len(), "bytes of the rows");
    for (x, out) in x.chunks_exact(cols).zip(out.chunks_exact_mut(row_bytes)) {
        format.encode(x, importance, out);
    }
}
