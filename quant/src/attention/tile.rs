//! The two products of attention for up to six queries and one block: with its keys, and with its values.

#![allow(clippy::needless_range_loop, reason = "an index runs over registers, memory and constants alike")]

use super::head::{HeadBlock, TILE};
use super::value::KvValue;
use super::wide::Wide;
use crate::kernels::vector::Vector;
use crate::kv::BLOCK;
use std::ops::Range;

/// Vectors side by side where six rows of accumulators, the values and a factor fit the register file.
const fn tile<V: Vector>() -> usize {
    V::REGISTERS / 8
}

/// Vectors side by side for a single row of accumulators: enough to hide the latency of a sum, at most 64
/// lanes.
const fn row<V: Vector>() -> usize {
    if V::LANES == 16 { 4 } else { 8 }
}

/// Calls `$f::<V, N, T, W>` with the number of queries of a tile as a constant.
macro_rules! by_width {
    ($w:expr, $f:ident::<$v:ty, $t:ty>($($arg:expr),*)) => {
        if const { tile::<$v>() == 4 } {
            match $w {
                2 => $f::<$v, 4, $t, 2>($($arg),*),
                3 => $f::<$v, 4, $t, 3>($($arg),*),
                4 => $f::<$v, 4, $t, 4>($($arg),*),
                5 => $f::<$v, 4, $t, 5>($($arg),*),
                _ => $f::<$v, 4, $t, TILE>($($arg),*),
            }
        } else {
            match $w {
                2 => $f::<$v, 2, $t, 2>($($arg),*),
                3 => $f::<$v, 2, $t, 3>($($arg),*),
                4 => $f::<$v, 2, $t, 4>($($arg),*),
                5 => $f::<$v, 2, $t, 5>($($arg),*),
                _ => $f::<$v, 2, $t, TILE>($($arg),*),
            }
        }
    };
}

/// Calls `$f::<V, N, T, 1>` for a single query.
macro_rules! alone {
    ($f:ident::<$v:ty, $t:ty>($($arg:expr),*)) => {
        if const { row::<$v>() == 4 } { $f::<$v, 4, $t, 1>($($arg),*) } else { $f::<$v, 8, $t, 1>($($arg),*) }
    };
}

/// What the scores of a tile come from.
pub(super) struct Keys<'a, T> {
    /// The block.
    pub head: &'a HeadBlock<'a, T>,
    /// Values of a key.
    pub d: usize,
    /// What products are multiplied with.
    pub scale: f32,
    /// The ALiBi slope.
    pub slope: f32,
    /// Per query the block's first position minus its own.
    pub behind: &'a [f32; TILE],
}

const RAMP: [f32; BLOCK] = {
    let mut ramp = [0.0; BLOCK];
    let mut i = 0;
    while i < BLOCK {
        ramp[i] = i as f32;
        i += 1;
    }
    ramp
};

/// Scores of `w` queries, see [`score_tile`].
///
/// # Safety
/// As [`score_tile`], `w` being its `W`, at most six.
#[inline(always)]
pub(super) unsafe fn score<V: Vector, T: KvValue>(
    w: usize,
    q: &[f32],
    keys: &Keys<'_, T>,
    scores: &mut [f32],
) {
    // SAFETY: the caller's duty.
    unsafe {
        match w {
            1 => alone!(score_tile::<V, T>(q, keys, scores)),
            _ => by_width!(w, score_tile::<V, T>(q, keys, scores)),
        }
    }
}

/// `scores[w][j] = q[w] . key[j] scale + slope (behind[w] + j)`; `q`: (W, d), `scores`: (W, 64).
///
/// # Safety
/// `q` holds `W * d` values, `scores` `W * 64`, the block's slices have the lengths that [`HeadBlock`]
/// states, the CPU has the features of `V`.
#[inline(always)]
unsafe fn score_tile<V: Vector, const N: usize, T: KvValue, const W: usize>(
    q: &[f32],
    keys: &Keys<'_, T>,
    scores: &mut [f32],
) {
    let d = keys.d;
    let (q, out) = (q.as_ptr(), scores.as_mut_ptr());
    let mut c = 0;
    while c < BLOCK {
        // SAFETY: `c` plus the lanes is at most 64, a multiple of the lanes; the rest is the caller's duty.
        unsafe {
            let mut sums = [Wide::<V, N>::splat(0.0); W];
            for i in 0..d {
                let key = Wide::<V, N>::load_values(keys.head.keys.as_ptr().add(i * BLOCK + c));
                for w in 0..W {
                    sums[w] = Wide::splat(*q.add(w * d + i)).mul_add(key, sums[w]);
                }
            }
            let ramp = Wide::<V, N>::load(RAMP.as_ptr().add(c));
            let mut scale = Wide::<V, N>::splat(keys.scale);
            if T::SCALED {
                scale = scale.mul(Wide::load(keys.head.key_scales.as_ptr().add(c)));
            }
            for w in 0..W {
                // Whole numbers below 2^24: exact.
                let behind = ramp.mul_add(Wide::splat(1.0), Wide::splat(keys.behind[w]));
                let bias = behind.mul(Wide::splat(keys.slope));
                sums[w].mul_add(scale, bias).store(out.add(w * BLOCK + c));
            }
        }
        c += N * V::LANES;
    }
}

/// Adds weighted values for `w` queries, see [`value_tile`].
///
/// # Safety
/// As [`value_tile`], `w` being its `W`, at most six.
#[inline(always)]
pub(super) unsafe fn weigh<V: Vector, T: KvValue>(
    w: usize,
    p: &[f32],
    values: &[T],
    d: usize,
    rows: Range<usize>,
    sums: &mut [f32],
) {
    // SAFETY: the caller's duty.
    unsafe {
        match w {
            1 => alone!(value_tile::<V, T>(p, values, d, rows, sums)),
            _ => by_width!(w, value_tile::<V, T>(p, values, d, rows, sums)),
        }
    }
}

/// `sums[w] += p[w][j] values[j]` for `j` in `rows`; `p`: (W, 64), `values`: (64, d), `sums`: (W, d).
///
/// # Safety
/// `p` holds `W * 64` values, `values` `rows.end * d`, `sums` `W * d`; `rows.end <= 64`; the CPU has the
/// features of `V`.
#[inline(always)]
unsafe fn value_tile<V: Vector, const N: usize, T: KvValue, const W: usize>(
    p: &[f32],
    values: &[T],
    d: usize,
    rows: Range<usize>,
    sums: &mut [f32],
) {
    let mut c = 0;
    // SAFETY: `c` plus the lanes is at most `d` in each call; the rest is the caller's duty.
    unsafe {
        while c + N * V::LANES <= d {
            value_strip::<V, N, T, W>(p, values, d, rows.clone(), sums, c);
            c += N * V::LANES;
        }
        while c + V::LANES <= d {
            value_strip::<V, 1, T, W>(p, values, d, rows.clone(), sums, c);
            c += V::LANES;
        }
    }
    for c in c..d {
        for w in 0..W {
            for j in rows.clone() {
                let (a, b, sum) = (p[w * BLOCK + j], values[j * d + c].widen(), &mut sums[w * d + c]);
                *sum = if V::FUSED { a.mul_add(b, *sum) } else { a * b + *sum };
            }
        }
    }
}

/// The columns `c .. c + N * V::LANES` of [`value_tile`].
///
/// # Safety
/// As [`value_tile`], and `c + N * V::LANES <= d`.
#[inline(always)]
unsafe fn value_strip<V: Vector, const N: usize, T: KvValue, const W: usize>(
    p: &[f32],
    values: &[T],
    d: usize,
    rows: Range<usize>,
    sums: &mut [f32],
    c: usize,
) {
    let (p, values, out) = (p.as_ptr(), values.as_ptr(), sums.as_mut_ptr());
    // SAFETY: the caller's duty.
    unsafe {
        let mut sums = [Wide::<V, N>::splat(0.0); W];
        for w in 0..W {
            sums[w] = Wide::load(out.add(w * d + c));
        }
        for j in rows {
            let value = Wide::<V, N>::load_values(values.add(j * d + c));
            for w in 0..W {
                sums[w] = Wide::splat(*p.add(w * BLOCK + j)).mul_add(value, sums[w]);
            }
        }
        for w in 0..W {
            sums[w].store(out.add(w * d + c));
        }
    }
}
