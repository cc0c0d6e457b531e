//! The search for scales, mins and integers that the encoders of Q2_K to Q6_K share.
//!
//! In come super-blocks of 256 `f32` and, if known, the importance of each column; out go the f16
//! super-scales, the small integer scale (and min) of every sub-block, and 256 integers. Nothing here knows
//! how a format lays its bits out.
//!
//! The error that is made small is `sum w_i (x_i - decoded_i)^2`. It takes four steps:
//!
//! 1. each sub-block alone: integers for a grid of candidate scales, weighted least squares for scale (and
//!    min) given the integers, the candidate with the least error wins;
//! 2. the super-scales that let the largest scale and the largest min reach the ends of their integer range,
//!    rounded to f16 (away from zero where there are no mins);
//! 3. each sub-block again, now with what can be stored: the neighbours of the rounded integer scale and min
//!    are tried, each with integers and error of its own;
//! 4. super-scales by weighted least squares given all integers, rounded to f16; then 3 again. The best of
//!    the rounds is kept.
//!
//! All arithmetic is laid out with one sub-block per lane of a [`batch`](super::batch): one super-block with
//! sixteen sub-blocks, or two with eight. Numbers of a super-block are the same in each of its lanes, and
//! what happens to one super-block does not depend on the other.

#![allow(
    clippy::needless_range_loop,
    reason = "one index walks several arrays of fixed size: the shape that vectorises"
)]

use super::F16;
use super::batch::{
    self, Lane, SMALLEST_F16, WIDE, group_max, group_sum, group_sum_f64, inverses, limit, nearest, neighbour,
    storable,
};
use super::pick::pick;

/// Weights in a super-block.
pub(super) const N: usize = 256;

/// Magnitudes are cut here, far beyond what any of the formats holds (65504 * 63 * 31), so that no sum
/// overflows.
const LARGEST: f32 = 1e9;

/// Scales and mins tried together in step 3: what is added to the integer scale, and to the integer min.
pub(super) type Reach = &'static [(i8, [i8; 3])];

/// How the default weights grow with `|x|`, and how wide the search is.
pub(super) struct Plan<R: 'static> {
    /// `w = 1 + emphasis * |x| / rms + square * (x / rms)^2` without importance. Measured as KL divergence of
    /// a trained model: the fewer the bits, the more the large weights should count, although plain RMSE then
    /// grows a little.
    pub emphasis: f32,
    /// See `emphasis`.
    pub square: f32,
    /// `w = importance * sqrt(1 + (x / rms)^2 / flatness)` with importance.
    pub flatness: f32,
    /// What is added to the importance of a column, in parts of the super-block's mean.
    pub floor: f32,
    /// Candidate scales of step 1. With mins the range of a sub-block is divided by `levels + t` for each
    /// `t`; without, the weight of largest magnitude is to become `-t`, and a negative `t` is a scale of the
    /// other sign.
    pub grid: &'static [f32],
    /// Tried in step 3, one entry a round.
    pub rounds: &'static [R],
}

/// A batch of sub-blocks: `x[i][s]` is weight `i` of sub-block `s`, `w` what its error costs.
struct Lanes<const L: usize> {
    x: [Lane; L],
    w: [Lane; L],
}

/// Cleans super-blocks of `S` sub-blocks and weighs them; also which lanes hold more than zeros (1) or not
/// (0).
#[inline(always)]
fn prepare<const S: usize, const L: usize, R>(
    x: &[[f32; N]],
    importance: Option<&[[f32; N]]>,
    plan: &Plan<R>,
) -> (Lanes<L>, Lane) {
    const { assert!(S * L == N) };
    let mut lanes = Lanes { x: batch::gather::<L>(x.as_flattened()), w: [[0.0; WIDE]; L] };
    let (mut largest, mut squares) = ([0.0f32; WIDE], [0.0f32; WIDE]);
    for xs in &mut lanes.x {
        for s in 0..WIDE {
            // NaN has no nearest weight; zero does the least harm.
            let v = pick(xs[s].is_nan(), 0.0, limit(xs[s], -LARGEST, LARGEST));
            xs[s] = v;
            largest[s] = pick(v.abs() > largest[s], v.abs(), largest[s]);
            squares[s] += v * v;
        }
    }
    let largest = group_max::<S>(&largest);
    let squares = group_sum::<S>(&squares);
    let (mut live, mut inv_mean) = ([0.0; WIDE], [0.0; WIDE]);
    for s in 0..WIDE {
        // Below half the smallest weight any block can hold, and far above where a square underflows to
        // nothing.
        live[s] = pick(largest[s] < SMALLEST_F16 / 2.0, 0.0, 1.0);
        inv_mean[s] = pick(largest[s] < SMALLEST_F16 / 2.0, 0.0, N as f32 / squares[s]);
    }
    let Some(importance) = importance else {
        let (mut by, mut square) = ([0.0; WIDE], [0.0; WIDE]);
        for s in 0..WIDE {
            by[s] = plan.emphasis * inv_mean[s].sqrt();
            square[s] = plan.square * inv_mean[s];
        }
        for (ws, xs) in lanes.w.iter_mut().zip(&lanes.x) {
            for s in 0..WIDE {
                ws[s] = 1.0 + (by[s] + square[s] * xs[s].abs()) * xs[s].abs();
            }
        }
        return (lanes, live);
    };
    lanes.w = batch::gather::<L>(importance.as_flattened());
    let mut top = [0.0f32; WIDE];
    for ws in &lanes.w {
        for s in 0..WIDE {
            top[s] = pick(ws[s] > top[s] && ws[s] < f32::INFINITY, ws[s], top[s]);
        }
    }
    let top = group_max::<S>(&top);
    let mut sum = [0.0; WIDE];
    for ws in &mut lanes.w {
        for s in 0..WIDE {
            // NaN to nothing. Where no column is ever active all count alike.
            let v = limit(ws[s] / top[s], 0.0, 1.0);
            ws[s] = pick(top[s] > 0.0, v, 1.0);
            sum[s] += ws[s];
        }
    }
    let sum = group_sum::<S>(&sum);
    for (ws, xs) in lanes.w.iter_mut().zip(&lanes.x) {
        for s in 0..WIDE {
            let floor = plan.floor / N as f32 * sum[s];
            ws[s] = (ws[s] + floor) * (1.0 + xs[s] * xs[s] * inv_mean[s] / plan.flatness).sqrt();
        }
    }
    (lanes, live)
}

impl<const L: usize> Lanes<L> {
    /// Sums of `w`, `w x` and `w x^2`.
    #[inline(always)]
    fn moments(&self) -> [Lane; 3] {
        let (mut sw, mut sx, mut sxx) = ([0.0f32; WIDE], [0.0f32; WIDE], [0.0f32; WIDE]);
        for (xs, ws) in self.x.iter().zip(&self.w) {
            for s in 0..WIDE {
                let wx = ws[s] * xs[s];
                sw[s] += ws[s];
                sx[s] += wx;
                sxx[s] += wx * xs[s];
            }
        }
        [sw, sx, sxx]
    }

    /// Sums of `w q`, `w q^2` and `w x q` for the integers `q` nearest to `(x + min) * inv`.
    #[inline(always)]
    fn fit(&self, inv: &Lane, min: &Lane, lo: f32, hi: f32) -> [Lane; 3] {
        let (mut sq, mut sqq, mut sxq) = ([0.0f32; WIDE], [0.0f32; WIDE], [0.0f32; WIDE]);
        for (xs, ws) in self.x.iter().zip(&self.w) {
            for s in 0..WIDE {
                let q = nearest(limit((xs[s] + min[s]) * inv[s], lo, hi));
                let wq = ws[s] * q;
                sq[s] += wq;
                sqq[s] += wq * q;
                sxq[s] += wq * xs[s];
            }
        }
        [sq, sqq, sxq]
    }

    /// The errors left, in squares of a step, when `x * inv + shift` goes to the nearest integer.
    #[inline(always)]
    fn errors<const K: usize>(&self, inv: &Lane, shift: &[Lane; K], lo: f32, hi: f32) -> [Lane; K] {
        let mut out = [[0.0f32; WIDE]; K];
        for (xs, ws) in self.x.iter().zip(&self.w) {
            for k in 0..K {
                for s in 0..WIDE {
                    let t = xs[s] * inv[s] + shift[k][s];
                    let e = t - nearest(limit(t, lo, hi));
                    out[k][s] += ws[s] * e * e;
                }
            }
        }
        out
    }

    /// The integers themselves, less `lo`.
    #[inline(always)]
    fn integers(&self, scale: &Lane, min: &Lane, lo: f32, hi: f32) -> [[u8; L]; WIDE] {
        let inv = inverses(scale);
        let mut out = [[0; WIDE]; L];
        for (q, xs) in out.iter_mut().zip(&self.x) {
            for s in 0..WIDE {
                q[s] = (batch::int(nearest(limit((xs[s] + min[s]) * inv[s], lo, hi))) - lo as i32) as u8;
            }
        }
        batch::scatter(&out)
    }
}

/// What an encoder of a format with mins stores: `x = d * scale * q - dmin * min`.
#[derive(Clone, Copy)]
pub(super) struct Affine {
    pub d: F16,
    pub dmin: F16,
    /// Per sub-block; the first `256 / weights of a sub-block` entries count.
    pub scales: [u8; 16],
    pub mins: [u8; 16],
    pub q: [u8; N],
}

/// Step 1 with mins: scale and min (positive: it is taken away) of each sub-block on its own.
#[inline(always)]
fn affine_alone<const L: usize>(b: &Lanes<L>, levels: f32, grid: &[f32]) -> (Lane, Lane) {
    let (mut lo, mut hi) = ([0.0f32; WIDE], b.x[0]);
    for xs in &b.x {
        for s in 0..WIDE {
            lo[s] = pick(xs[s] < lo[s], xs[s], lo[s]);
            hi[s] = pick(xs[s] > hi[s], xs[s], hi[s]);
        }
    }
    // From here on weights are measured from `lo`: none is negative.
    let mut y = [[0.0; WIDE]; L];
    let mut wy = [[0.0; WIDE]; L];
    let (mut sw, mut sy) = ([0.0f32; WIDE], [0.0f32; WIDE]);
    for i in 0..L {
        for s in 0..WIDE {
            y[i][s] = b.x[i][s] - lo[s];
            wy[i][s] = b.w[i][s] * y[i][s];
            sw[s] += b.w[i][s];
            sy[s] += wy[i][s];
        }
    }
    let mut inv_range = [0.0; WIDE];
    for s in 0..WIDE {
        let range = hi[s] - lo[s];
        inv_range[s] = pick(range > 0.0, 1.0 / range, 0.0);
    }
    // The best so far: what it explains and its scale, both times its determinant, its determinant.
    let (mut gain, mut slope, mut by) = ([0.0f32; WIDE], [0.0f32; WIDE], [1.0f32; WIDE]);
    let (mut offset, mut seen) = ([0.0f32; WIDE], [0.0f32; WIDE]);
    for &t in grid {
        let mut inv = [0.0; WIDE];
        for s in 0..WIDE {
            inv[s] = (levels + t) * inv_range[s];
        }
        let (mut sq, mut sqq, mut syq) = ([0.0f32; WIDE], [0.0f32; WIDE], [0.0f32; WIDE]);
        for i in 0..L {
            for s in 0..WIDE {
                let v = y[i][s] * inv[s];
                let q = nearest(if v < levels { v } else { levels });
                let wq = b.w[i][s] * q;
                sq[s] += wq;
                sqq[s] += wq * q;
                syq[s] += wy[i][s] * q;
            }
        }
        for s in 0..WIDE {
            // A min can not be negative: where no weight is, the best scale without one.
            let free = lo[s] < 0.0;
            let a = pick(free, sw[s] * syq[s] - sy[s] * sq[s], syq[s]);
            let o = pick(free, sqq[s] * sy[s] - sq[s] * syq[s], 0.0);
            let det = pick(free, sw[s] * sqq[s] - sq[s] * sq[s], sqq[s]);
            let g = a * syq[s] + o * sy[s];
            let better = det > 0.0 && g * by[s] > gain[s] * det;
            gain[s] = pick(better, g, gain[s]);
            slope[s] = pick(better, a, slope[s]);
            offset[s] = pick(better, o, offset[s]);
            by[s] = pick(better, det, by[s]);
            seen[s] = pick(better, 1.0, seen[s]);
        }
    }
    let (mut scale, mut min) = ([0.0; WIDE], [0.0; WIDE]);
    for s in 0..WIDE {
        let found = seen[s] > 0.0;
        scale[s] = pick(found, slope[s] / by[s], (hi[s] - lo[s]) / levels);
        let m = pick(found, -(lo[s] + offset[s] / by[s]), -lo[s]);
        min[s] = pick(m > 0.0, m, 0.0);
    }
    (scale, min)
}

/// `x / d` as integers in `lo..=hi`; `d` may be 0 where all of `x` are.
#[inline(always)]
fn ratios(x: &Lane, d: &Lane, lo: f32, hi: f32) -> Lane {
    let inv = inverses(d);
    let mut out = [0.0; WIDE];
    for s in 0..WIDE {
        out[s] = nearest(limit(x[s] * inv[s], lo, hi));
    }
    out
}

/// Lane by lane.
#[inline(always)]
fn product(x: &Lane, y: &Lane) -> Lane {
    let mut out = [0.0; WIDE];
    for s in 0..WIDE {
        out[s] = x[s] * y[s];
    }
    out
}

#[inline(always)]
fn any(x: &Lane) -> bool {
    group_sum::<WIDE>(x)[0] > 0.0
}

/// Encodes super-blocks (as many as fill a batch, or fewer) of `S` sub-blocks with integers in `0..=levels`
/// and scales and mins in `0..=top`.
#[inline(always)]
pub(super) fn affine<const S: usize, const L: usize>(
    x: &[[f32; N]],
    importance: Option<&[[f32; N]]>,
    levels: f32,
    top: f32,
    plan: &Plan<Reach>,
) -> [Affine; 2] {
    let (b, live) = prepare::<S, L, _>(x, importance, plan);
    let [sw, sx, sxx] = b.moments();
    let (scale, min) = affine_alone(&b, levels, plan.grid);
    let (mut d, mut dmin) = (group_max::<S>(&scale), group_max::<S>(&min));
    for s in 0..WIDE {
        d[s] = storable(d[s] / top);
        dmin[s] = storable(dmin[s] / top);
    }
    let (mut ls, mut lm) = (ratios(&scale, &d, 0.0, top), ratios(&min, &dmin, 0.0, top));
    let mut least = [f32::INFINITY; WIDE];
    let mut kept = (d, dmin, ls, lm);
    // 1 while a super-block goes on.
    let mut active = live;
    for (round, reach) in plan.rounds.iter().enumerate() {
        // Step 3.
        let (ls0, lm0) = (ls, lm);
        let mut best = [f32::INFINITY; WIDE];
        for (ds, dm) in *reach {
            let (mut cs, mut scale) = ([0.0; WIDE], [0.0; WIDE]);
            for s in 0..WIDE {
                cs[s] = limit(ls0[s] + f32::from(*ds), 0.0, top);
                scale[s] = d[s] * cs[s];
            }
            let inv = inverses(&scale);
            let (mut cm, mut min, mut shift) = ([[0.0; WIDE]; 3], [[0.0; WIDE]; 3], [[0.0; WIDE]; 3]);
            for k in 0..3 {
                for s in 0..WIDE {
                    cm[k][s] = limit(lm0[s] + f32::from(dm[k]), 0.0, top);
                    min[k][s] = dmin[s] * cm[k][s];
                    shift[k][s] = min[k][s] * inv[s];
                }
            }
            let errors = b.errors(&inv, &shift, 0.0, levels);
            for k in 0..3 {
                for s in 0..WIDE {
                    // Without a scale all weights become the min.
                    let flat = sxx[s] + min[k][s] * (2.0 * sx[s] + min[k][s] * sw[s]);
                    let e = errors[k][s] * (scale[s] * scale[s]);
                    let e = pick(scale[s] > 0.0, e, flat);
                    let better = e < best[s];
                    best[s] = pick(better, e, best[s]);
                    ls[s] = pick(better, cs[s], ls[s]);
                    lm[s] = pick(better, cm[k][s], lm[s]);
                }
            }
        }
        let total = group_sum::<S>(&best);
        for s in 0..WIDE {
            let better = active[s] > 0.0 && total[s] < least[s];
            active[s] = pick(better, 1.0, 0.0);
            least[s] = pick(better, total[s], least[s]);
            kept.0[s] = pick(better, d[s], kept.0[s]);
            kept.1[s] = pick(better, dmin[s], kept.1[s]);
            kept.2[s] = pick(better, ls[s], kept.2[s]);
            kept.3[s] = pick(better, lm[s], kept.3[s]);
        }
        if round + 1 == plan.rounds.len() || !any(&active) {
            break;
        }
        // Step 4: the two super-scales by least squares given everything else.
        let (d1, dmin1) = refit_affine::<S, L>(&b, (&d, &dmin), (&ls, &lm), (&sw, &sx), levels);
        for s in 0..WIDE {
            let same = d1[s] == d[s] && dmin1[s] == dmin[s];
            active[s] = pick(same, 0.0, active[s]);
        }
        if !any(&active) {
            break;
        }
        (d, dmin) = (d1, dmin1);
    }

    let (d, dmin, ls, lm) = kept;
    let q = b.integers(&product(&d, &ls), &product(&dmin, &lm), 0.0, levels);
    let zero = F16::default();
    let mut out = [Affine { d: zero, dmin: zero, scales: [0; 16], mins: [0; 16], q: [0; N] }; 2];
    for (g, out) in out.iter_mut().enumerate().take(WIDE / S) {
        let first = g * S;
        if live[first] == 0.0 {
            continue;
        }
        (out.d, out.dmin) = (F16::from_f32(d[first]), F16::from_f32(dmin[first]));
        for s in 0..S {
            out.scales[s] = ls[first + s] as u8;
            out.mins[s] = lm[first + s] as u8;
            out.q[s * L..][..L].copy_from_slice(&q[first + s]);
        }
    }
    out
}

/// Step 4 with mins: `d` and `dmin`, as f16 can hold them.
#[inline(always)]
fn refit_affine<const S: usize, const L: usize>(
    b: &Lanes<L>,
    (d, dmin): (&Lane, &Lane),
    (ls, lm): (&Lane, &Lane),
    (sw, sx): (&Lane, &Lane),
    levels: f32,
) -> (Lane, Lane) {
    let [sq, sqq, sxq] = b.fit(&inverses(&product(d, ls)), &product(dmin, lm), 0.0, levels);
    // With u = scale * q and v = min: sums of w u u, w u v, w v v, w x u, w x v. f64, for they cancel.
    let mut sums = [[0.0f64; WIDE]; 5];
    for s in 0..WIDE {
        let (l, m) = (f64::from(ls[s]), f64::from(lm[s]));
        sums[0][s] = l * l * f64::from(sqq[s]);
        sums[1][s] = l * m * f64::from(sq[s]);
        sums[2][s] = m * m * f64::from(sw[s]);
        sums[3][s] = l * f64::from(sxq[s]);
        sums[4][s] = m * f64::from(sx[s]);
    }
    for sum in &mut sums {
        *sum = group_sum_f64::<S>(sum);
    }
    let [uu, uv, vv, xu, xv] = sums;
    let (mut d1, mut dmin1) = (*d, *dmin);
    for s in 0..WIDE {
        let det = uu[s] * vv[s] - uv[s] * uv[s];
        let joint = det > 1e-9 * uu[s] * vv[s];
        let a = pick(joint, vv[s] * xu[s] - uv[s] * xv[s], xu[s] + f64::from(dmin[s]) * uv[s]);
        let a = a / pick(joint, det, uu[s]);
        let m = (uv[s] * xu[s] - uu[s] * xv[s]) / det;
        let (a, m) = (a as f32, m as f32);
        // Neither can be negative; where the fit wants that, or there is none (NaN), it stays.
        d1[s] = pick(a > 0.0, storable(a), d[s]);
        dmin1[s] = pick(joint && m > 0.0, storable(m), dmin[s]);
    }
    (d1, dmin1)
}

/// What an encoder of a format without mins stores: `x = d * scale * q`.
pub(super) struct Symmetric {
    pub d: F16,
    pub scales: [i8; 16],
    /// Plus `half`.
    pub q: [u8; N],
}

/// Step 1 without mins. Integers reach one further down than up, so each sign of the scale is tried.
#[inline(always)]
fn symmetric_alone<const L: usize>(b: &Lanes<L>, half: f32, grid: &[f32]) -> Lane {
    let (mut lo, mut hi) = ([0.0f32; WIDE], [0.0f32; WIDE]);
    let mut wx = [[0.0; WIDE]; L];
    for i in 0..L {
        for s in 0..WIDE {
            let v = b.x[i][s];
            lo[s] = pick(v < lo[s], v, lo[s]);
            hi[s] = pick(v > hi[s], v, hi[s]);
            wx[i][s] = b.w[i][s] * v;
        }
    }
    // The weight of largest magnitude goes to the end that reaches further: -half.
    let (mut end, mut inv_end) = ([0.0; WIDE], [0.0; WIDE]);
    for s in 0..WIDE {
        end[s] = pick(hi[s] > -lo[s], hi[s], lo[s]);
        inv_end[s] = pick(end[s] != 0.0, -1.0 / end[s], 0.0);
    }
    // Sums of the best so far; what they explain is `xq^2 / qq`.
    let (mut xq, mut qq, mut seen) = ([0.0f32; WIDE], [1.0f32; WIDE], [0.0f32; WIDE]);
    for &t in grid {
        let mut inv = [0.0; WIDE];
        for s in 0..WIDE {
            inv[s] = t * inv_end[s];
        }
        let (mut sqq, mut sxq) = ([0.0f32; WIDE], [0.0f32; WIDE]);
        for i in 0..L {
            for s in 0..WIDE {
                let q = nearest(limit(b.x[i][s] * inv[s], -half, half - 1.0));
                sqq[s] += b.w[i][s] * q * q;
                sxq[s] += wx[i][s] * q;
            }
        }
        for s in 0..WIDE {
            let better = sxq[s] * sxq[s] * qq[s] > xq[s] * xq[s] * sqq[s];
            xq[s] = pick(better, sxq[s], xq[s]);
            qq[s] = pick(better, sqq[s], qq[s]);
            seen[s] = pick(better, 1.0, seen[s]);
        }
    }
    let mut scale = [0.0; WIDE];
    for s in 0..WIDE {
        scale[s] = pick(seen[s] > 0.0, xq[s] / qq[s], -end[s] / half);
    }
    scale
}

/// Encodes one super-block of 16 sub-blocks with integers in `-half..half` and scales in `-top..top`. In a
/// round's reach a negative second number turns the sign of the scale.
#[inline(always)]
pub(super) fn symmetric(
    x: &[f32; N],
    importance: Option<&[f32; N]>,
    half: f32,
    top: f32,
    plan: &Plan<&'static [(i8, i8)]>,
) -> Symmetric {
    let importance = importance.map(std::slice::from_ref);
    let (b, live) = prepare::<WIDE, 16, _>(std::slice::from_ref(x), importance, plan);
    let mut out = Symmetric { d: F16::default(), scales: [0; 16], q: [half as u8; N] };
    if live[0] == 0.0 {
        return out;
    }
    let [_, _, sxx] = b.moments();
    let scale = symmetric_alone(&b, half, plan.grid);
    let largest = scale.iter().fold(0.0f32, |m, &v| if v.abs() > m.abs() { v } else { m });
    // Never below what was asked for: f16 is coarse where weights are small, and then no integer would reach
    // the largest scale.
    let wanted = -largest / top;
    let mut d = storable(wanted);
    d = if d.abs() < wanted.abs() { neighbour(d, 1) } else { d };
    let mut ls = ratios(&scale, &[d; WIDE], -top, top - 1.0);
    let (mut least, mut kept) = (f32::INFINITY, (d, ls));
    for (round, reach) in plan.rounds.iter().enumerate() {
        let ls0 = ls;
        let mut best = [f32::INFINITY; WIDE];
        for &(ds, flip) in *reach {
            let (mut cs, mut scale) = ([0.0; WIDE], [0.0; WIDE]);
            let sign = if flip < 0 { -1.0 } else { 1.0 };
            for s in 0..WIDE {
                cs[s] = limit(sign * ls0[s] + f32::from(ds), -top, top - 1.0);
                scale[s] = d * cs[s];
            }
            let [errors] = b.errors(&inverses(&scale), &[[0.0; WIDE]], -half, half - 1.0);
            for s in 0..WIDE {
                let e = errors[s] * (scale[s] * scale[s]);
                let e = pick(scale[s] != 0.0, e, sxx[s]);
                let better = e < best[s];
                best[s] = pick(better, e, best[s]);
                ls[s] = pick(better, cs[s], ls[s]);
            }
        }
        let total = group_sum::<WIDE>(&best)[0];
        if total < least {
            least = total;
            kept = (d, ls);
        } else {
            break;
        }
        if round + 1 == plan.rounds.len() {
            break;
        }
        let [_, sqq, sxq] = b.fit(&inverses(&product(&[d; WIDE], &ls)), &[0.0; WIDE], -half, half - 1.0);
        let (mut uu, mut xu) = ([0.0; WIDE], [0.0; WIDE]);
        for s in 0..WIDE {
            uu[s] = ls[s] * ls[s] * sqq[s];
            xu[s] = ls[s] * sxq[s];
        }
        let d1 = group_sum::<WIDE>(&xu)[0] / group_sum::<WIDE>(&uu)[0];
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
    out.d = F16::from_f32(d);
    for s in 0..WIDE {
        out.scales[s] = ls[s] as i8;
    }
    let q = b.integers(&product(&[d; WIDE], &ls), &[0.0; WIDE], -half, half - 1.0);
    out.q.copy_from_slice(q.as_flattened());
    out
}
