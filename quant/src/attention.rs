//! ALiBi attention of one head over KV blocks, without a mask tensor.
//!
//! A block holds [`BLOCK`] positions, `[64][head_dim]` keys and as many values per head. Every score, the maximum, the
//! sum and the weighted values are taken in the order of absolute positions, block by block, so the result for a
//! query does not depend on what else runs in the step.

use crate::elementwise::exp_minus;
use crate::formats::F16;
use crate::formats::lanes::{self, Widen};
use crate::kernels::{Isa, multiversion};

/// Positions in a KV block.
pub const BLOCK: usize = 64;

/// A value in the KV cache.
pub trait KvValue: bytemuck::Pod + Widen + Send + Sync {
    /// Rounds to nearest, ties to even.
    fn from_f32(x: f32) -> Self;
    /// `scores[j] = q . keys[j]`; `keys`: `(scores.len(), q.len())` row-major.
    fn scores(isa: Isa, q: &[f32], keys: &[Self], scores: &mut [f32]);
    /// `out += sum over j of p[j] values[j]`, in the order of `j`; `values`: `(p.len(), out.len())` row-major.
    fn accumulate(isa: Isa, p: &[f32], values: &[Self], out: &mut [f32]);
}

#[inline(always)]
fn scores_body<T: KvValue>(q: &[f32], keys: &[T], scores: &mut [f32]) {
    let d = q.len();
    assert_eq!(keys.len(), d * scores.len());
    for (key, score) in keys.chunks_exact(d).zip(scores) {
        *score = lanes::dot(key, q);
    }
}

#[inline(always)]
fn accumulate_body<T: KvValue>(p: &[f32], values: &[T], out: &mut [f32]) {
    let d = out.len();
    assert_eq!(values.len(), d * p.len());
    for (value, &p) in values.chunks_exact(d).zip(p) {
        for (o, v) in out.iter_mut().zip(value) {
            *o += p * v.widen();
        }
    }
}

multiversion! { fn scores_f32(q: &[f32], keys: &[f32], scores: &mut [f32]) = scores_body; }
multiversion! { fn scores_f16(q: &[f32], keys: &[F16], scores: &mut [f32]) = scores_body; }
multiversion! { fn accumulate_f32(p: &[f32], values: &[f32], out: &mut [f32]) = accumulate_body; }
multiversion! { fn accumulate_f16(p: &[f32], values: &[F16], out: &mut [f32]) = accumulate_body; }

impl KvValue for f32 {
    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        x
    }
    fn scores(isa: Isa, q: &[f32], keys: &[Self], scores: &mut [f32]) {
        scores_f32(isa, q, keys, scores);
    }
    fn accumulate(isa: Isa, p: &[f32], values: &[Self], out: &mut [f32]) {
        accumulate_f32(isa, p, values, out);
    }
}

impl KvValue for F16 {
    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        F16::from_f32(x)
    }
    fn scores(isa: Isa, q: &[f32], keys: &[Self], scores: &mut [f32]) {
        scores_f16(isa, q, keys, scores);
    }
    fn accumulate(isa: Isa, p: &[f32], values: &[Self], out: &mut [f32]) {
        accumulate_f16(isa, p, values, out);
    }
}

/// ALiBi slopes of `n_head` heads: with `p` the largest power of two not above `n_head`, head `i < p` has
/// `2^(-8 (i + 1) / p)`; the others take every other slope of the series for `2p`, `2^(-4 (2k + 1) / p)`.
///
/// From the ALiBi paper's reference code, as Hugging Face's `build_alibi_tensor` has it.
pub fn alibi_slopes(n_head: usize) -> Vec<f32> {
    if n_head == 0 {
        return Vec::new();
    }
    let p = 1usize << n_head.ilog2();
    (0..n_head)
        .map(|i| {
            let exponent = if i < p {
                8.0 * (i + 1) as f64 / p as f64
            } else {
                4.0 * (2 * (i - p) + 1) as f64 / p as f64
            };
            (-exponent).exp2() as f32
        })
        .collect()
}

/// Attention of one head for the query at position `n_keys - 1`.
///
/// `q`: (head_dim). `blocks(b)`: keys and values of positions `64 b ..`, each `[64][head_dim]` row-major. `slope`: the
/// head's ALiBi slope. `scores`: scratch, resized. `out`: (head_dim), overwritten with
/// `softmax(q . k / sqrt(head_dim) - slope (n_keys - 1 - j)) v`.
///
/// # Panics
/// When a block is shorter than the positions taken from it.
pub fn attend<'a, T: KvValue>(
    isa: Isa,
    q: &[f32],
    blocks: impl Fn(usize) -> (&'a [T], &'a [T]),
    n_keys: usize,
    slope: f32,
    scores: &mut Vec<f32>,
    out: &mut [f32],
) {
    let d = q.len();
    let scale = 1.0 / (d as f32).sqrt();
    scores.resize(n_keys, 0.0);
    let mut max = f32::NEG_INFINITY;
    for (b, scores) in scores.chunks_mut(BLOCK).enumerate() {
        T::scores(isa, q, &blocks(b).0[..scores.len() * d], scores);
        let behind = (n_keys - 1 - b * BLOCK) as f32;
        for (j, s) in scores.iter_mut().enumerate() {
            *s = *s * scale - slope * (behind - j as f32);
            max = max.max(*s);
        }
    }
    let sum = exp_minus(isa, scores, max);
    out.fill(0.0);
    for (b, p) in scores.chunks(BLOCK).enumerate() {
        T::accumulate(isa, p, &blocks(b).1[..p.len() * d], out);
    }
    let scale = 1.0 / sum;
    out.iter_mut().for_each(|o| *o *= scale);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_on_and_off_the_power_of_two() {
        assert_eq!(alibi_slopes(4), [0.25, 0.0625, 0.015625, 0.00390625]);
        // p = 4: the four of 4 heads, then 2^-1 and 2^-3 from the series of 8.
        assert_eq!(alibi_slopes(6), [0.25, 0.0625, 0.015625, 0.00390625, 0.5, 0.125]);
        assert_eq!(alibi_slopes(1), [0.00390625]);
        assert!((alibi_slopes(32)[0] - 0.840_896_4).abs() < 1e-7);
    }

    fn values(n: usize, seed: u32) -> Vec<f32> {
        let mut s = seed;
        (0..n)
            .map(|_| {
                s = s.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (s >> 8) as f32 / (1 << 23) as f32 - 1.0
            })
            .collect()
    }

    #[test]
    fn attend_equals_softmax_in_f64_on_every_isa() {
        for d in [16, 80, 128] {
            for n in [1, 2, 63, 64, 65, 200] {
                let (q, k, v) = (values(d, 1), values(256 * d, 2), values(256 * d, 3));
                let slope = 0.25f32;
                let scores: Vec<f64> = (0..n)
                    .map(|j| {
                        let dot: f64 = (0..d).map(|i| f64::from(q[i]) * f64::from(k[j * d + i])).sum();
                        dot / (d as f64).sqrt() - f64::from(slope) * (n - 1 - j) as f64
                    })
                    .collect();
                let max = scores.iter().copied().fold(f64::MIN, f64::max);
                let p: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
                let sum: f64 = p.iter().sum();
                let mut first = None;
                for isa in Isa::available() {
                    let mut out = vec![9.0f32; d];
                    let at = |b: usize| (&k[b * BLOCK * d..][..BLOCK * d], &v[b * BLOCK * d..][..BLOCK * d]);
                    attend(isa, &q, at, n, slope, &mut Vec::new(), &mut out);
                    for i in 0..d {
                        let exact: f64 = (0..n).map(|j| p[j] * f64::from(v[j * d + i])).sum::<f64>() / sum;
                        assert!(
                            (f64::from(out[i]) - exact).abs() < 2e-6,
                            "{isa} d {d} n {n}: {} {exact}",
                            out[i]
                        );
                    }
                    assert_eq!(*first.get_or_insert(out.clone()), out, "{isa}: other bits than scalar");
                }
            }
        }
    }
}
