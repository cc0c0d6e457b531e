//! What a file may ask for, and the overflow-safe arithmetic on its numbers.
//!
//! A reader of untrusted bytes allocates nothing before a number has passed here.

use crate::Format;

/// Metadata entries in a file. Real files have some dozens.
pub const MAX_KV: u64 = 1 << 16;
/// Tensors of a model, over all its parts. BLOOM-7B1 has 365.
pub const MAX_TENSORS: u64 = 1 << 16;
/// Bytes of a metadata key, GGUF's own limit.
pub const MAX_KEY_BYTES: u64 = (1 << 16) - 1;
/// Bytes of a string value.
pub const MAX_STRING_BYTES: u64 = 64 << 20;
/// Bytes of a tensor name that is read.
pub const MAX_TENSOR_NAME_BYTES: u64 = 255;
/// Bytes of a tensor name that is written: llama.cpp keeps names in 64 bytes, the final 0 included.
pub const MAX_WRITTEN_TENSOR_NAME_BYTES: u64 = 63;
/// Arrays in arrays: a plain array has depth 1.
pub const MAX_ARRAY_DEPTH: usize = 4;
/// Dimensions of a tensor.
pub const MAX_DIMS: u32 = 4;
/// The alignment of a file that does not say.
pub const DEFAULT_ALIGNMENT: u64 = 32;
/// The least alignment: GGUF wants a multiple of 8.
pub const MIN_ALIGNMENT: u64 = 8;
/// The largest alignment: the largest page size in use.
pub const MAX_ALIGNMENT: u64 = 64 << 10;

// Shortest by structure: an empty name or no dimension breaks a rule of its own, which should be the one
// reported.

/// Shortest metadata entry: key length, type, one value byte.
pub const MIN_KV_BYTES: u64 = 8 + 4 + 1;
/// Shortest tensor entry: name length, count of dimensions, type, offset.
pub const MIN_TENSOR_BYTES: u64 = 8 + 4 + 4 + 8;

/// The most entries there can be: the cap, or what `remaining` bytes hold at `min_bytes` each.
pub const fn max_count(cap: u64, remaining: u64, min_bytes: u64) -> u64 {
    let fits = remaining / min_bytes;
    if fits < cap { fits } else { cap }
}

/// Whether tensors may be aligned to `alignment`: a power of two from [`MIN_ALIGNMENT`] to [`MAX_ALIGNMENT`].
pub const fn is_alignment(alignment: u64) -> bool {
    alignment.is_power_of_two() && alignment >= MIN_ALIGNMENT && alignment <= MAX_ALIGNMENT
}

/// `x` rounded up to a multiple of `alignment` (a power of two); `None` on overflow.
pub const fn align_up(x: u64, alignment: u64) -> Option<u64> {
    match x.checked_add(alignment - 1) {
        Some(y) => Some(y & !(alignment - 1)),
        None => None,
    }
}

/// Bytes of a tensor; `None` when its weights or bytes do not fit 63 bits or the address space.
///
/// The first of `dims` is a multiple of the format's block, none is 0.
pub fn tensor_bytes(format: Format, dims: &[u64]) -> Option<u64> {
    blocks_bytes((format.block_weights() as u64, format.block_bytes() as u64), dims)
}

/// As [`tensor_bytes`], of blocks of so many weights and bytes.
pub(super) fn blocks_bytes((block_weights, block_bytes): (u64, u64), dims: &[u64]) -> Option<u64> {
    let weights = dims.iter().try_fold(1u64, |n, &d| n.checked_mul(d))?;
    let bytes = (weights / block_weights).checked_mul(block_bytes)?;
    // Both: a block may have fewer bytes than weights, and rows and columns are counted in usize.
    let fits = |x: u64| i64::try_from(x).is_ok() && isize::try_from(x).is_ok();
    (fits(weights) && fits(bytes)).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_wrap_are_none() {
        assert_eq!(tensor_bytes(Format::F32, &[3, 5]), Some(60));
        assert_eq!(tensor_bytes(Format::Q4_K, &[512, 3]), Some(2 * 3 * 144));
        assert_eq!(tensor_bytes(Format::F32, &[1 << 32, 1 << 32]), None);
        assert_eq!(tensor_bytes(Format::F32, &[1 << 61]), None, "2^63 bytes");
        assert_eq!(tensor_bytes(Format::Q4_0, &[1 << 63]), None, "2^63 weights in fewer bytes");
        assert_eq!(
            tensor_bytes(Format::F32, &[(1 << 42) + 1, 1 << 20, 4]),
            None,
            "wraps to 16 MiB in 64 bits"
        );
    }

    #[test]
    fn alignment_is_a_power_of_two_from_8_to_64_kib() {
        let good: Vec<u64> = (0..=1 << 17).filter(|&a| is_alignment(a)).collect();
        assert_eq!(good, (3..=16).map(|b| 1 << b).collect::<Vec<u64>>());
        assert!(!is_alignment(1 << 63));
        assert_eq!((align_up(0, 32), align_up(33, 32), align_up(64, 32)), (Some(0), Some(64), Some(64)));
        assert_eq!(align_up(u64::MAX - 30, 32), None);
    }
}
