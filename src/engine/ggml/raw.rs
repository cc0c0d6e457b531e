//! The calls into llama.cpp that its binding has no safe function for: system information, blocks decoded and
//! encoded.
#![allow(unsafe_code)]

use huozi_quant::formats::Format;
use std::ffi::CStr;

/// What llama.cpp was built with, as it prints it: `CPU : SSE3 = 1 | AVX = 1 | ...`.
pub fn system_info() -> String {
    // SAFETY: takes nothing; gives a pointer to a static C string, valid until the next call, and there
    // is none beside this one, which runs inside `OnceLock::get_or_init`.
    unsafe { CStr::from_ptr(llama_cpp_sys_2::llama_print_system_info()) }.to_string_lossy().into_owned()
}

/// Weights as llama.cpp decodes them; `None` when it does not know `format` by the same blocks, or for F32,
/// which it does not decode.
///
/// # Panics
/// When `blocks` is no whole number of blocks.
pub fn dequantize(format: Format, blocks: &[u8]) -> Option<Vec<f32>> {
    let (weights, bytes) = (format.block_weights(), format.block_bytes());
    assert!(blocks.len().is_multiple_of(bytes), "whole blocks of {format}");
    // SAFETY: gives a pointer into a static table for every type below `GGML_TYPE_COUNT`, which the ids
    // of `Format` are: they are those of GGUF files.
    let traits = unsafe { llama_cpp_sys_2::ggml_get_type_traits(format.gguf_id()).as_ref() }?;
    if (traits.blck_size, traits.type_size) != (weights as i64, bytes) {
        return None;
    }
    let to_float = traits.to_float?;
    let mut out = vec![0.0f32; blocks.len() / bytes * weights];
    // Its block structs are aligned like their f16 pairs, to 4.
    let aligned: Vec<u64> = blocks
        .chunks(8)
        .map(|chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            u64::from_ne_bytes(word)
        })
        .collect();
    // SAFETY: reads `out.len() / blck_size` blocks of `type_size` bytes, both compared with those of `format`
    // above, which `aligned` holds; writes `out.len()` floats.
    unsafe { to_float(aligned.as_ptr().cast(), out.as_mut_ptr(), out.len() as i64) };
    Some(out)
}

/// Rows of weights as llama.cpp's quantiser encodes them; `None` when it does not know `format` by the same
/// blocks, or has none for it.
///
/// `x`: `(n, cols)` row-major. `importance`: one weight per column.
///
/// # Panics
/// When `x` is no whole number of rows, `cols` no whole number of blocks, or `importance` not one weight per
/// column.
pub fn quantize(format: Format, x: &[f32], cols: usize, importance: Option<&[f32]>) -> Option<Vec<u8>> {
    let (weights, bytes) = (format.block_weights(), format.block_bytes());
    let row_bytes = format.row_bytes(cols).expect("rows of whole blocks");
    assert!(cols > 0 && x.len().is_multiple_of(cols), "whole rows");
    assert!(importance.is_none_or(|importance| importance.len() == cols), "importance per column");
    // SAFETY: as in `dequantize`.
    let traits = unsafe { llama_cpp_sys_2::ggml_get_type_traits(format.gguf_id()).as_ref() }?;
    if (traits.blck_size, traits.type_size) != (weights as i64, bytes) || format == Format::F32 {
        return None;
    }
    let rows = x.len() / cols;
    // Its block structs are aligned like their f16 pairs, to 4.
    let mut out = vec![0u64; (rows * row_bytes).div_ceil(8)];
    // SAFETY: reads `rows * cols` floats of `x` and, when there is importance, `cols` of it, both
    // asserted above; writes `rows` rows of `cols / blck_size` blocks of `type_size` bytes, compared with
    // those of `format` above, which `out` holds.
    let written = unsafe {
        llama_cpp_sys_2::ggml_quantize_chunk(
            format.gguf_id(),
            x.as_ptr(),
            out.as_mut_ptr().cast(),
            0,
            rows as i64,
            cols as i64,
            importance.map_or(std::ptr::null(), <[f32]>::as_ptr),
        )
    };
    assert_eq!(written, rows * row_bytes, "bytes of the rows");
    Some(out.iter().flat_map(|word| word.to_ne_bytes()).take(written).collect())
}
