//! What the formats Q2_K to Q6_K share: exact integer sums, and the packing of 6-bit scales.

#![allow(
    clippy::needless_range_loop,
    reason = "one index walks several arrays of fixed size: the shape that vectorises"
)]

use super::search_k::N;

/// Weights that share one scale in [`scaled_sum`]; a format with larger sub-blocks repeats its scales.
pub(super) const SUB: usize = 16;

/// `sum_s scales[s] * sum_i q[16 s + i] * a[16 s + i]`, exact.
///
/// Needs `|q| <= 64`: then two products fit i16, and the whole sum is below 2^30 for any i8 scale and 6-bit
/// scale. Eight running sums, fixed sizes, no branch: one multiply-add per sixteen products on a unit that
/// has it.
#[inline(always)]
pub(super) fn scaled_sum(q: &[i8; N], a: &[i8; N], scales: &[i16; N / SUB]) -> i32 {
    let mut acc = [0i32; SUB / 2];
    for s in 0..N / SUB {
        let scale = i32::from(scales[s]);
        for l in 0..SUB / 2 {
            let (i, j) = (SUB * s + l, SUB * s + l + SUB / 2);
            let pair = i16::from(q[i]) * i16::from(a[i]) + i16::from(q[j]) * i16::from(a[j]);
            acc[l] += scale * i32::from(pair);
        }
    }
    acc.iter().sum()
}

/// `sum_s mins[s] * bsums[s]`, exact.
#[inline(always)]
pub(super) fn min_sum(mins: &[i16; N / SUB], bsums: &[i16; N / SUB]) -> i32 {
    let mut sum = 0;
    for s in 0..N / SUB {
        sum += i32::from(mins[s]) * i32::from(bsums[s]);
    }
    sum
}

/// Each of the eight values twice: scales of 32 weights as scales of 16.
#[inline(always)]
pub(super) fn twice(scales: &[u8; 8]) -> [i16; N / SUB] {
    let mut out = [0; N / SUB];
    for s in 0..8 {
        out[2 * s] = i16::from(scales[s]);
        out[2 * s + 1] = i16::from(scales[s]);
    }
    out
}

/// Eight 6-bit scales and eight 6-bit mins from the 12 bytes of Q4_K and Q5_K.
///
/// ```text
/// byte 0..4   scale j (low 6 bits)       | scale j + 4, its bits 4..6 (high 2)
/// byte 4..8   min j (low 6 bits)         | min j + 4, its bits 4..6 (high 2)
/// byte 8..12  scale j + 4, low 4 bits    | min j + 4, low 4 bits (high nibble)
/// ```
#[inline(always)]
pub(super) fn unpack_6bit(packed: &[u8; 12]) -> ([u8; 8], [u8; 8]) {
    let (mut scales, mut mins) = ([0; 8], [0; 8]);
    for j in 0..4 {
        scales[j] = packed[j] & 63;
        mins[j] = packed[j + 4] & 63;
        scales[j + 4] = (packed[j + 8] & 15) | (packed[j] >> 6 << 4);
        mins[j + 4] = (packed[j + 8] >> 4) | (packed[j + 4] >> 6 << 4);
    }
    (scales, mins)
}

/// The inverse of [`unpack_6bit`]; values are below 64.
#[inline(always)]
pub(super) fn pack_6bit(scales: &[u8; 8], mins: &[u8; 8]) -> [u8; 12] {
    let mut packed = [0; 12];
    for j in 0..4 {
        packed[j] = scales[j] | (scales[j + 4] >> 4 << 6);
        packed[j + 4] = mins[j] | (mins[j + 4] >> 4 << 6);
        packed[j + 8] = (scales[j + 4] & 15) | (mins[j + 4] << 4);
    }
    packed
}

/// 256 two-bit values: byte `32 h + l` holds weights `128 h + 32 k + l`, k = 0..4, in bits `2 k`.
#[inline(always)]
pub(super) fn unpack_2bit(packed: &[u8; 64]) -> [i8; N] {
    let mut q = [0; N];
    for h in 0..2 {
        for k in 0..4 {
            for l in 0..32 {
                q[128 * h + 32 * k + l] = ((packed[32 * h + l] >> (2 * k)) & 3) as i8;
            }
        }
    }
    q
}

/// The inverse of [`unpack_2bit`]; only the low two bits of each value count.
#[inline(always)]
pub(super) fn pack_2bit(q: &[u8; N]) -> [u8; 64] {
    let mut packed = [0; 64];
    for h in 0..2 {
        for k in 0..4 {
            for l in 0..32 {
                packed[32 * h + l] |= (q[128 * h + 32 * k + l] & 3) << (2 * k);
            }
        }
    }
    packed
}

/// The first eight values.
#[inline(always)]
pub(super) fn first_8(values: &[u8; 16]) -> [u8; 8] {
    std::array::from_fn(|i| values[i])
}

#[cfg(test)]
#[path = "k_tests.rs"]
mod tests;
