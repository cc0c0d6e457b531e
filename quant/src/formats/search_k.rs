//! The search for scales, mins and integers that the encoders of Q2_K to Q6_K share.
//!
//! In comes one super-block of 256 `f32` and, if known, the importance of each column; out go the f16 super-scales,
//! the small integer scale (and min) of every sub-block, and 256 integers. Nothing here knows how a format lays its
//! bits out.
//!
//! The error that is made small is `sum w_i (x_i - decoded_i)^2`. It takes four steps:
//!
//! 1. each sub-block alone: integers for a grid of candidate scales, weighted least squares for scale (and min)
//!    given the integers, the candidate with the least error wins;
//! 2. the super-scales that let the largest scale and the largest min reach the ends of their integer range, rounded
//!    to f16;
//! 3. each sub-block again, now with what can be stored: the neighbours of the rounded integer scale and min are
//!    tried, each with integers and error of its own;
//! 4. super-scales by weighted least squares given all integers, rounded to f16; then 3 again. The best of the
//!    rounds is kept.
//!
//! All arithmetic is laid out with one sub-block per lane: a sum runs over the weights of a sub-block in their order,
//! in its own lane, so the width of the vector unit cannot change a bit. Multiplication and addition are rounded
//! apart, ties go to the first candidate, and comparisons are written so that a NaN never wins.

#![allow(
    clippy::needless_range_loop,
    reason = "one index walks several arrays of fixed size: the shape that vectorises"
)]

use super::F16;

/// Weights in a super-block.
pub(super) const N: usize = 256;

/// Adding and taking away 1.5 * 2^23 rounds to the nearest integer, ties to even, for magnitudes below 2^22. Two
/// additions vectorise under SSE2, where `round_ties_even` is a call.
#[inline(always)]
fn nearest(x: f32) -> f32 {
    (x + 12_582_912.0) - 12_582_912.0
}

/// `x` between `lo` and `hi`; NaN becomes `lo`. Two compare-and-selects, unlike `f32::clamp`.
#[inline(always)]
fn limit(x: f32, lo: f32, hi: f32) -> f32 {
    let x = if x > lo { x } else { lo };
    if x < hi { x } else { hi }
}

/// Rounds to an f16 that is finite, and not zero unless `x` is: a super-scale of zero would lose the block.
#[inline(always)]
fn storable(x: f32) -> f32 {
    let a = x.abs();
    let a = if a < 65504.0 { a } else { 65504.0 };
    let a = if a > 0.0 && a < SMALLEST_F16 { SMALLEST_F16 } else { a };
    F16::from_f32(if x < 0.0 { -a } else { a }).to_f32()
}

/// The smallest positive f16, 2^-24.
const SMALLEST_F16: f32 = 1.0 / 16_777_216.0;

/// Magnitudes are cut here, far beyond what any of the formats holds (65504 * 63 * 31), so that no sum overflows.
const LARGEST: f32 = 1e9;

/// How the default weights grow with `|x|`, and how wide the search is.
pub(super) struct Plan {
    /// `w = 1 + emphasis * |x| / rms` without importance. Measured as KL divergence of a trained model: the fewer the
    /// bits, the more the large weights should count, although plain RMSE then grows a little.
    pub emphasis: f32,
    /// `w = importance * sqrt(1 + (x / rms)^2 / flatness)` with importance.
    pub flatness: f32,
    /// Candidate scales of step 1. With mins the range of a sub-block is divided by `levels + t` for each `t`; without,
    /// the weight of largest magnitude is to become `-t`, and a negative `t` is a scale of the other sign.
    pub grid: &'static [f32],
    /// Tried in step 3: what is added to the integer scale, and to the integer min. Without mins a negative second
    /// number turns the sign of the scale.
    pub reach: &'static [(i8, i8)],
    /// How often steps 3 and 4 run.
    pub rounds: usize,
}

/// A super-block with one sub-block per lane: `x[i][s]` is weight `i` of sub-block `s`.
struct Lanes<const S: usize, const L: usize> {
    x: [[f32; S]; L],
    w: [[f32; S]; L],
}

/// Cleans a super-block and weighs it; `None` when nothing but zeros is left.
#[inline(always)]
fn prepare<const S: usize, const L: usize>(
    x: &[f32; N],
    importance: Option<&[f32; N]>,
    plan: &Plan,
) -> Option<Lanes<S, L>> {
    const { assert!(S * L == N) };
    let mut lanes = Lanes { x: [[0.0; S]; L], w: [[0.0; S]; L] };
    let mut largest = 0.0f32;
    for (s, sub) in x.chunks_exact(L).enumerate() {
        for (i, &v) in sub.iter().enumerate() {
            // NaN has no nearest weight; zero does the least harm.
            let v = if v.is_nan() { 0.0 } else { limit(v, -LARGEST, LARGEST) };
            lanes.x[i][s] = v;
            largest = if v.abs() > largest { v.abs() } else { largest };
        }
    }
    // Below half the smallest weight any block can hold, and far above where a square underflows to nothing.
    if largest < SMALLEST_F16 / 2.0 {
        return None;
    }
    let mut squares = [0.0f32; S];
    for xs in &lanes.x {
        for s in 0..S {
            squares[s] += xs[s] * xs[s];
        }
    }
    let mean = squares.iter().sum::<f32>() / N as f32;
    match importance {
        None => {
            let inv_rms = 1.0 / mean.sqrt();
            for (ws, xs) in lanes.w.iter_mut().zip(&lanes.x) {
                for s in 0..S {
                    ws[s] = 1.0 + plan.emphasis * (xs[s].abs() * inv_rms);
                }
            }
        }
        Some(importance) => {
            let mut top = 0.0f32;
            for &v in importance {
                top = if v > top && v < f32::INFINITY { v } else { top };
            }
            let inv_mean = 1.0 / (plan.flatness * mean);
            for (s, sub) in importance.chunks_exact(L).enumerate() {
                for (i, &v) in sub.iter().enumerate() {
                    // A column that is never active still counts a little, or its sub-block would have no fit.
                    let v = if top > 0.0 { limit(v / top, 1e-6, 1.0) } else { 1.0 };
                    let x = lanes.x[i][s];
                    lanes.w[i][s] = v * (1.0 + x * x * inv_mean).sqrt();
                }
            }
        }
    }
    Some(lanes)
}

/// What an encoder of a format with mins stores: `x = d * scale * q - dmin * min`.
pub(super) struct Affine {
    pub d: F16,
    pub dmin: F16,
    /// Per sub-block; the first `256 / weights of a sub-block` entries count.
    pub scales: [u8; 16],
    pub mins: [u8; 16],
    pub q: [u8; N],
}

/// Sums over each sub-block given its integers `q`, all weighted.
struct Sums<const S: usize> {
    q: [f32; S],
    qq: [f32; S],
    xq: [f32; S],
}

impl<const S: usize, const L: usize> Lanes<S, L> {
    /// The integers that `scale` and `min` give, only their sums.
    #[inline(always)]
    fn fit_sums(&self, inv_scale: &[f32; S], min: &[f32; S], lo: f32, hi: f32) -> Sums<S> {
        let mut out = Sums { q: [0.0; S], qq: [0.0; S], xq: [0.0; S] };
        for (xs, ws) in self.x.iter().zip(&self.w) {
            for s in 0..S {
                let q = nearest(limit((xs[s] + min[s]) * inv_scale[s], lo, hi));
                let wq = ws[s] * q;
                out.q[s] += wq;
                out.qq[s] += wq * q;
                out.xq[s] += wq * xs[s];
            }
        }
        out
    }

    /// The error left when weights are stored with `scale` and `min`.
    #[inline(always)]
    fn error(&self, scale: &[f32; S], min: &[f32; S], lo: f32, hi: f32) -> [f32; S] {
        let inv = inverses(scale);
        let mut out = [0.0; S];
        for (xs, ws) in self.x.iter().zip(&self.w) {
            for s in 0..S {
                let q = nearest(limit((xs[s] + min[s]) * inv[s], lo, hi));
                let e = (scale[s] * q - min[s]) - xs[s];
                out[s] += ws[s] * (e * e);
            }
        }
        out
    }

    /// The integers themselves.
    #[inline(always)]
    fn integers(&self, scale: &[f32; S], min: &[f32; S], lo: f32, hi: f32) -> [i8; N] {
        let inv = inverses(scale);
        let mut out = [0; N];
        for (i, xs) in self.x.iter().enumerate() {
            for s in 0..S {
                out[s * L + i] = nearest(limit((xs[s] + min[s]) * inv[s], lo, hi)) as i8;
            }
        }
        out
    }
}

/// One over each, zero for zero.
#[inline(always)]
fn inverses<const S: usize>(scale: &[f32; S]) -> [f32; S] {
    let mut out = [0.0; S];
    for s in 0..S {
        out[s] = if scale[s] != 0.0 { 1.0 / scale[s] } else { 0.0 };
    }
    out
}

/// Step 1 with mins: scale and min (positive: it is taken away) of each sub-block on its own.
#[inline(always)]
fn affine_alone<const S: usize, const L: usize>(
    b: &Lanes<S, L>,
    levels: f32,
    grid: &[f32],
) -> ([f32; S], [f32; S]) {
    let (mut lo, mut hi) = ([0.0f32; S], b.x[0]);
    let (mut sw, mut sx, mut sxx) = ([0.0f32; S], [0.0f32; S], [0.0f32; S]);
    for (xs, ws) in b.x.iter().zip(&b.w) {
        for s in 0..S {
            lo[s] = if xs[s] < lo[s] { xs[s] } else { lo[s] };
            hi[s] = if xs[s] > hi[s] { xs[s] } else { hi[s] };
            let wx = ws[s] * xs[s];
            sw[s] += ws[s];
            sx[s] += wx;
            sxx[s] += wx * xs[s];
        }
    }
    let (mut scale, mut min) = ([0.0; S], [0.0; S]);
    let mut inv_range = [0.0; S];
    for s in 0..S {
        let range = hi[s] - lo[s];
        inv_range[s] = if range > 0.0 { 1.0 / range } else { 0.0 };
        scale[s] = range / levels;
        min[s] = -lo[s];
    }
    let shift = min;
    let mut best = [f32::INFINITY; S];
    for &t in grid {
        let mut inv = [0.0; S];
        for s in 0..S {
            inv[s] = (levels + t) * inv_range[s];
        }
        let sums = b.fit_sums(&inv, &shift, 0.0, levels);
        for s in 0..S {
            let det = sw[s] * sums.qq[s] - sums.q[s] * sums.q[s];
            let joint = (sw[s] * sums.xq[s] - sx[s] * sums.q[s]) / det;
            let offset = (sums.qq[s] * sx[s] - sums.q[s] * sums.xq[s]) / det;
            // A min cannot be negative: then the best scale without one.
            let (a, o) = if offset > 0.0 { (sums.xq[s] / sums.qq[s], 0.0) } else { (joint, offset) };
            let error = sxx[s] - a * sums.xq[s] - o * sx[s];
            let better = det > 0.0 && error < best[s];
            best[s] = if better { error } else { best[s] };
            scale[s] = if better { a } else { scale[s] };
            min[s] = if better { -o } else { min[s] };
        }
    }
    (scale, min)
}

/// Encodes a super-block of `S` sub-blocks with integers in `0..=levels` and scales and mins in `0..=top`.
#[inline(always)]
pub(super) fn affine<const S: usize, const L: usize>(
    x: &[f32; N],
    importance: Option<&[f32; N]>,
    levels: f32,
    top: f32,
    plan: &Plan,
) -> Affine {
    let zero = F16::default();
    let mut out = Affine { d: zero, dmin: zero, scales: [0; 16], mins: [0; 16], q: [0; N] };
    let Some(b) = prepare::<S, L>(x, importance, plan) else { return out };
    let (scale, min) = affine_alone(&b, levels, plan.grid);
    let largest = |v: &[f32; S]| v.iter().fold(0.0f32, |m, &v| if v > m { v } else { m });
    let mut d = storable(largest(&scale) / top);
    let mut dmin = storable(largest(&min) / top);
    let ratio = |v: &[f32; S], d: f32| {
        let inv = if d > 0.0 { 1.0 / d } else { 0.0 };
        let mut out = [0.0; S];
        for s in 0..S {
            out[s] = nearest(limit(v[s] * inv, 0.0, top));
        }
        out
    };
    let mut ls = ratio(&scale, d);
    let mut lm = ratio(&min, dmin);

    let mut least = f64::INFINITY;
    let mut kept = (d, dmin, ls, lm);
    for round in 0..plan.rounds {
        // Step 3.
        let (ls0, lm0) = (ls, lm);
        let mut best = [f32::INFINITY; S];
        for &(ds, dm) in plan.reach {
            let (mut cs, mut cm, mut scale, mut min) = ([0.0; S], [0.0; S], [0.0; S], [0.0; S]);
            for s in 0..S {
                cs[s] = limit(ls0[s] + f32::from(ds), 0.0, top);
                cm[s] = limit(lm0[s] + f32::from(dm), 0.0, top);
                scale[s] = d * cs[s];
                min[s] = dmin * cm[s];
            }
            let error = b.error(&scale, &min, 0.0, levels);
            for s in 0..S {
                let better = error[s] < best[s];
                best[s] = if better { error[s] } else { best[s] };
                ls[s] = if better { cs[s] } else { ls[s] };
                lm[s] = if better { cm[s] } else { lm[s] };
            }
        }
        let total: f64 = best.iter().map(|&e| f64::from(e)).sum();
        if total < least {
            least = total;
            kept = (d, dmin, ls, lm);
        } else if round > 0 {
            break;
        }
        if round + 1 == plan.rounds {
            break;
        }
        // Step 4: the two super-scales by least squares given everything else.
        let (d1, dmin1) = refit_affine(&b, d, dmin, &ls, &lm, levels);
        if d1 == d && dmin1 == dmin {
            break;
        }
        (d, dmin) = (d1, dmin1);
    }

    let (d, dmin, ls, lm) = kept;
    let (mut scale, mut min) = ([0.0; S], [0.0; S]);
    for s in 0..S {
        scale[s] = d * ls[s];
        min[s] = dmin * lm[s];
        out.scales[s] = ls[s] as u8;
        out.mins[s] = lm[s] as u8;
    }
    out.q = b.integers(&scale, &min, 0.0, levels).map(|q| q as u8);
    (out.d, out.dmin) = (F16::from_f32(d), F16::from_f32(dmin));
    out
}

/// Step 4 with mins: `d` and `dmin`, as f16 can hold them.
#[inline(always)]
fn refit_affine<const S: usize, const L: usize>(
    b: &Lanes<S, L>,
    d: f32,
    dmin: f32,
    ls: &[f32; S],
    lm: &[f32; S],
    levels: f32,
) -> (f32, f32) {
    let (mut scale, mut min) = ([0.0; S], [0.0; S]);
    for s in 0..S {
        scale[s] = d * ls[s];
        min[s] = dmin * lm[s];
    }
    let sums = b.fit_sums(&inverses(&scale), &min, 0.0, levels);
    let (mut sw, mut sx) = ([0.0f32; S], [0.0f32; S]);
    for (xs, ws) in b.x.iter().zip(&b.w) {
        for s in 0..S {
            sw[s] += ws[s];
            sx[s] += ws[s] * xs[s];
        }
    }
    // With u = scale * q and v = min: sums of w u u, w u v, w v v, w x u, w x v.
    let (mut uu, mut uv, mut vv, mut xu, mut xv) = (0.0f64, 0.0f64, 0.0f64, 0.0f64, 0.0f64);
    for s in 0..S {
        let (l, m) = (f64::from(ls[s]), f64::from(lm[s]));
        uu += l * l * f64::from(sums.qq[s]);
        uv += l * m * f64::from(sums.q[s]);
        vv += m * m * f64::from(sw[s]);
        xu += l * f64::from(sums.xq[s]);
        xv += m * f64::from(sx[s]);
    }
    let det = uu * vv - uv * uv;
    let (d1, dmin1) = if det > 1e-9 * uu * vv {
        ((vv * xu - uv * xv) / det, (uv * xu - uu * xv) / det)
    } else if uu > 0.0 {
        ((xu + f64::from(dmin) * uv) / uu, f64::from(dmin))
    } else {
        (f64::from(d), f64::from(dmin))
    };
    // Neither can be negative; where the fit wants that, it stays.
    let (d1, dmin1) = (d1 as f32, dmin1 as f32);
    (if d1 > 0.0 { storable(d1) } else { d }, if dmin1 > 0.0 { storable(dmin1) } else { dmin })
}

/// What an encoder of a format without mins stores: `x = d * scale * q`.
pub(super) struct Symmetric {
    pub d: F16,
    pub scales: [i8; 16],
    pub q: [i8; N],
}

/// Step 1 without mins. Integers reach one further down than up, so each sign of the scale is tried.
#[inline(always)]
fn symmetric_alone<const S: usize, const L: usize>(b: &Lanes<S, L>, half: f32, grid: &[f32]) -> [f32; S] {
    let (mut lo, mut hi) = ([0.0f32; S], [0.0f32; S]);
    for xs in &b.x {
        for s in 0..S {
            lo[s] = if xs[s] < lo[s] { xs[s] } else { lo[s] };
            hi[s] = if xs[s] > hi[s] { xs[s] } else { hi[s] };
        }
    }
    // The weight of largest magnitude goes to the end that reaches further: -half.
    let (mut scale, mut inv_end) = ([0.0; S], [0.0; S]);
    for s in 0..S {
        let end = if hi[s] > -lo[s] { hi[s] } else { lo[s] };
        inv_end[s] = if end != 0.0 { -1.0 / end } else { 0.0 };
        scale[s] = -end / half;
    }
    let zero = [0.0; S];
    let mut best = [0.0f32; S];
    for &t in grid {
        let mut inv = [0.0; S];
        for s in 0..S {
            inv[s] = t * inv_end[s];
        }
        let sums = b.fit_sums(&inv, &zero, -half, half - 1.0);
        for s in 0..S {
            let a = sums.xq[s] / sums.qq[s];
            let gain = a * sums.xq[s];
            let better = gain > best[s];
            best[s] = if better { gain } else { best[s] };
            scale[s] = if better { a } else { scale[s] };
        }
    }
    scale
}

/// Encodes a super-block of `S` sub-blocks with integers in `-half..half` and scales in `-top..top`.
#[inline(always)]
pub(super) fn symmetric<const S: usize, const L: usize>(
    x: &[f32; N],
    importance: Option<&[f32; N]>,
    half: f32,
    top: f32,
    plan: &Plan,
) -> Symmetric {
    let mut out = Symmetric { d: F16::default(), scales: [0; 16], q: [0; N] };
    let Some(b) = prepare::<S, L>(x, importance, plan) else { return out };
    let scale = symmetric_alone(&b, half, plan.grid);
    let largest = scale.iter().fold(0.0f32, |m, &v| if v.abs() > m.abs() { v } else { m });
    let mut d = storable(-largest / top);
    let mut ls = [0.0; S];
    for s in 0..S {
        ls[s] = nearest(limit(scale[s] / d, -top, top - 1.0));
    }
    let zero = [0.0; S];
    let mut least = f64::INFINITY;
    let mut kept = (d, ls);
    for round in 0..plan.rounds {
        let ls0 = ls;
        let mut best = [f32::INFINITY; S];
        for &(ds, flip) in plan.reach {
            let (mut cs, mut scale) = ([0.0; S], [0.0; S]);
            let sign = if flip < 0 { -1.0 } else { 1.0 };
            for s in 0..S {
                cs[s] = limit(sign * ls0[s] + f32::from(ds), -top, top - 1.0);
                scale[s] = d * cs[s];
            }
            let error = b.error(&scale, &zero, -half, half - 1.0);
            for s in 0..S {
                let better = error[s] < best[s];
                best[s] = if better { error[s] } else { best[s] };
                ls[s] = if better { cs[s] } else { ls[s] };
            }
        }
        let total: f64 = best.iter().map(|&e| f64::from(e)).sum();
        if total < least {
            least = total;
            kept = (d, ls);
        } else if round > 0 {
            break;
        }
        if round + 1 == plan.rounds {
            break;
        }
        let mut scale = [0.0; S];
        for s in 0..S {
            scale[s] = d * ls[s];
        }
        let sums = b.fit_sums(&inverses(&scale), &zero, -half, half - 1.0);
        let (mut uu, mut xu) = (0.0f64, 0.0f64);
        for s in 0..S {
            let l = f64::from(ls[s]);
            uu += l * l * f64::from(sums.qq[s]);
            xu += l * f64::from(sums.xq[s]);
        }
        let d1 = (xu / uu) as f32;
        // Also false for NaN (nothing but zeros stored): then there is nothing to refit.
        let same_sign = d1 * d > 0.0;
        if !same_sign {
            break;
        }
        let d1 = storable(d1);
        if d1 == d {
            break;
        }
        d = d1;
    }
    let (d, ls) = kept;
    let mut scale = [0.0; S];
    for s in 0..S {
        scale[s] = d * ls[s];
        out.scales[s] = ls[s] as i8;
    }
    out.q = b.integers(&scale, &zero, -half, half - 1.0);
    out.d = F16::from_f32(d);
    out
}
