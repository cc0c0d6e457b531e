//! The search for scales that the plain formats (32 weights a block) and IQ4_XS share.
//!
//! In come up to sixteen blocks of 32 weights and what an error in each weight costs; out goes for each block
//! the f16 scale (and minimum) for which the nearest levels give the smallest weighted squared error.
//! Candidates are judged with their own least-squares scale first; the best few are then refined as what will
//! be stored, a scale rounded to f16, by alternating assignment and fit and by trying the f16 neighbours.
//!
//! One block per lane of a [`batch`](super::batch); no block depends on the others.

#![allow(
    clippy::needless_range_loop,
    reason = "one index walks several arrays of fixed size: the shape that vectorises"
)]

use super::F16;
use super::batch::{self, Lane, WIDE, group_max, inverses, limit, nearest, neighbour};
use super::lanes;
use super::pick::pick;

/// Weights in a block.
pub(super) const N: usize = 32;

/// Largest magnitude that takes part in a search: past what any format can hold (65504 * 32 * 127), small
/// enough that no sum of squares overflows.
const LARGEST: f32 = (1u64 << 30) as f32;

/// Below this every format's best answer is zero: half of the smallest f16.
const SMALLEST: f32 = 1.0 / (1u64 << 25) as f32;

/// The nearest finite f16.
#[inline(always)]
pub(super) fn half(v: f32) -> f32 {
    F16::from_f32(limit(v, -65504.0, 65504.0)).to_f32()
}

/// An f16 that is not a number: the scale of a block with a weight that is not finite, so that it decodes to
/// NaN and is not taken for a good block.
pub(super) const NAN: F16 = F16::from_bits(0x7e00);

/// What a format's integers stand for.
pub(super) trait Levels {
    /// The level nearest to `v`.
    fn level(v: f32) -> f32;
    /// The integer stored for it.
    fn index(v: f32) -> u8;
}

/// What a block is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// All zero, or too small for any f16 scale.
    Zero,
    /// Some weight is NaN or infinite.
    NotFinite,
    /// To be searched.
    Weights,
}

/// What the costs of a row's blocks are measured against.
#[derive(Clone, Copy)]
pub(super) struct Row {
    /// Mean square of the weights that are finite.
    sigma2: f32,
    /// Largest finite importance: all are divided by it, so that neither huge nor tiny ones overflow or
    /// vanish.
    top: f32,
    /// Added to every importance after that.
    floor: f32,
}

impl Row {
    #[inline(always)]
    pub(super) fn new(x: &[f32], importance: Option<&[f32]>) -> Self {
        let mut squares = [0.0f32; WIDE];
        for x in x.as_chunks::<WIDE>().0 {
            for s in 0..WIDE {
                let v = pick(x[s].abs() <= f32::MAX, limit(x[s], -LARGEST, LARGEST), 0.0);
                squares[s] += v * v;
            }
        }
        let sigma2 = lanes::fold(squares) / x.len() as f32;
        let importance = importance.unwrap_or_default().as_chunks::<WIDE>().0;
        let mut top = [0.0f32; WIDE];
        for p in importance {
            for s in 0..WIDE {
                top[s] = pick(p[s] > top[s] && p[s] < f32::INFINITY, p[s], top[s]);
            }
        }
        let top = group_max::<WIDE>(&top)[0];
        let mut sum = [0.0f32; WIDE];
        for p in importance {
            for s in 0..WIDE {
                sum[s] += limit(p[s] / top, 0.0, 1.0);
            }
        }
        // Where no column has any importance all are alike.
        let mean = lanes::fold(sum) / x.len() as f32;
        Self { sigma2, top, floor: if top > 0.0 { FLOOR * mean } else { 1.0 } }
    }
}

/// Up to sixteen blocks ready for a search.
pub(super) struct Batch {
    /// The weights, magnitudes held below `LARGEST`.
    pub x: [Lane; N],
    /// Cost of an error in each, at most 1.
    cost: [Lane; N],
    /// The weight of the largest magnitude (the first, among equals).
    pub peak: Lane,
    /// What `cost` was divided by: errors of blocks of one row compare when multiplied by it.
    pub unit: Lane,
    /// 1 where a weight is not finite.
    odd: Lane,
}

/// Weight of the square of a weight in the cost of its error, beside the row's mean square. Measured on the
/// embedded model, mean KL divergence of Q4_0, Q4_1, Q5_0, IQ4_NL, IQ4_XS over ggml's (geometric mean): 0.892
/// at 0, 0.889 at 0.25, 0.944 at 1, 0.974 at 3. At 0.25 the error weighted by x^2 is below ggml's too, on
/// light and heavy tails.
const EMPHASIS: f32 = 0.25;

/// The same where importance is given, which then says most of what there is to say: at 0.25 the error
/// weighted by importance was above ggml's on heavy tails for Q4_0 and Q5_1.
const EMPHASIS_OF_IMPORTANT: f32 = 0.1;

/// What is added to the importance of a column, in parts of the row's mean: takes more from the plain error
/// than it adds to the weighted one.
const FLOOR: f32 = 0.08;

impl Batch {
    /// Looks at blocks and weighs their errors.
    ///
    /// The cost of an error in `x` is `importance * (sigma2 + EMPHASIS x^2)`, importance 1 where none is
    /// given: nearly plain squared error, a little more for large weights.
    #[inline(always)]
    pub(super) fn new(x: &[f32], importance: Option<&[f32]>, row: Row) -> Self {
        let mut b = Self {
            x: batch::gather::<N>(x),
            cost: [[1.0; WIDE]; N],
            peak: [0.0; WIDE],
            unit: [0.0; WIDE],
            odd: [0.0; WIDE],
        };
        for xs in &mut b.x {
            for s in 0..WIDE {
                // Also of a NaN.
                b.odd[s] = pick(xs[s].abs() <= f32::MAX, b.odd[s], 1.0);
                let v = limit(xs[s], -LARGEST, LARGEST);
                b.peak[s] = pick(v.abs() > b.peak[s].abs(), v, b.peak[s]);
                xs[s] = v;
            }
        }
        if let Some(importance) = importance {
            b.cost = batch::gather::<N>(importance);
            for cost in &mut b.cost {
                for s in 0..WIDE {
                    // NaN counts as no importance, infinity as the largest.
                    cost[s] = if row.top > 0.0 { limit(cost[s] / row.top, 0.0, 1.0) } else { 0.0 };
                    cost[s] += row.floor;
                }
            }
        }
        let emphasis = if importance.is_some() { EMPHASIS_OF_IMPORTANT } else { EMPHASIS };
        for (cost, xs) in b.cost.iter_mut().zip(&b.x) {
            for s in 0..WIDE {
                cost[s] *= row.sigma2 + emphasis * (xs[s] * xs[s]);
                b.unit[s] = pick(cost[s] > b.unit[s], cost[s], b.unit[s]);
            }
        }
        for cost in &mut b.cost {
            for s in 0..WIDE {
                cost[s] = pick(b.unit[s] > 0.0, cost[s] / b.unit[s], 1.0);
            }
        }
        b
    }

    /// What block `s` is.
    #[inline(always)]
    pub(super) fn kind(&self, s: usize) -> Kind {
        match (self.odd[s] > 0.0, self.peak[s].abs() < SMALLEST) {
            (true, _) => Kind::NotFinite,
            (false, true) => Kind::Zero,
            (false, false) => Kind::Weights,
        }
    }

    /// For the levels nearest to `x * inverse`: sums of `cost * level * x` and `cost * level^2`. Their
    /// quotient is the least-squares scale; the first squared by the second is what it explains of the sum of
    /// squares.
    #[inline(always)]
    pub(super) fn fit<T: Levels>(&self, inverse: &Lane) -> (Lane, Lane) {
        let (mut lx, mut ll) = ([0.0f32; WIDE], [0.0f32; WIDE]);
        for (xs, cost) in self.x.iter().zip(&self.cost) {
            for s in 0..WIDE {
                let l = T::level(xs[s] * inverse[s]);
                let cl = cost[s] * l;
                lx[s] += cl * xs[s];
                ll[s] += cl * l;
            }
        }
        (lx, ll)
    }

    /// The weighted squared error with scale `d` and nearest levels, and what [`fit`](Self::fit) gives for
    /// them.
    #[inline(always)]
    fn error_and_fit<T: Levels>(&self, d: &Lane) -> (Lane, Lane, Lane) {
        let inverse = inverses(d);
        let (mut error, mut lx, mut ll) = ([0.0f32; WIDE], [0.0f32; WIDE], [0.0f32; WIDE]);
        for (xs, cost) in self.x.iter().zip(&self.cost) {
            for s in 0..WIDE {
                let l = T::level(xs[s] * inverse[s]);
                let e = xs[s] - d[s] * l;
                let cl = cost[s] * l;
                error[s] += cost[s] * e * e;
                lx[s] += cl * xs[s];
                ll[s] += cl * l;
            }
        }
        (error, lx, ll)
    }

    /// The weighted squared errors with each of the scales `d` and nearest levels.
    #[inline(always)]
    pub(super) fn errors<T: Levels, const K: usize>(&self, d: &[Lane; K]) -> [Lane; K] {
        let mut inverse = [[0.0; WIDE]; K];
        for k in 0..K {
            inverse[k] = inverses(&d[k]);
        }
        let mut error = [[0.0f32; WIDE]; K];
        for (xs, cost) in self.x.iter().zip(&self.cost) {
            for k in 0..K {
                for s in 0..WIDE {
                    let e = xs[s] - d[k][s] * T::level(xs[s] * inverse[k][s]);
                    error[k][s] += cost[s] * e * e;
                }
            }
        }
        error
    }

    /// The integers for scales `d`, block by block.
    #[inline(always)]
    pub(super) fn indices<T: Levels>(&self, d: &Lane) -> [[u8; N]; WIDE] {
        let inverse = inverses(d);
        let mut out = [[0; WIDE]; N];
        for (q, xs) in out.iter_mut().zip(&self.x) {
            for s in 0..WIDE {
                q[s] = T::index(xs[s] * inverse[s]);
            }
        }
        batch::scatter(&out)
    }
}

/// The best `K` candidates seen of each block, best first; `score` the larger the better.
pub(super) struct Best<const K: usize, const I: usize> {
    /// Negative where there is none.
    pub scores: [Lane; K],
    pub items: [[Lane; I]; K],
}

impl<const K: usize, const I: usize> Best<K, I> {
    #[inline(always)]
    pub(super) fn new() -> Self {
        Self { scores: [[-1.0; WIDE]; K], items: [[[0.0; WIDE]; I]; K] }
    }

    #[inline(always)]
    pub(super) fn offer(&mut self, score: &Lane, item: &[Lane; I]) {
        let (mut score, mut item) = (*score, *item);
        for k in 0..K {
            for s in 0..WIDE {
                let better = score[s] > self.scores[k][s];
                let old = self.scores[k][s];
                self.scores[k][s] = pick(better, score[s], old);
                score[s] = pick(better, old, score[s]);
                for i in 0..I {
                    let old = self.items[k][i][s];
                    self.items[k][i][s] = pick(better, item[i][s], old);
                    item[i][s] = pick(better, old, item[i][s]);
                }
            }
        }
    }
}

/// The least-squares scales of the `K` best of `peaks`, see [`scale`].
#[inline(always)]
pub(super) fn candidates<T: Levels, const K: usize>(b: &Batch, peaks: &[f32]) -> Best<K, 1> {
    let mut best = Best::new();
    let by_peak = inverses(&b.peak);
    for p in peaks {
        let mut inverse = [0.0; WIDE];
        for s in 0..WIDE {
            inverse[s] = p * by_peak[s];
        }
        let (lx, ll) = b.fit::<T>(&inverse);
        let (mut score, mut d) = ([-1.0; WIDE], [0.0; WIDE]);
        for s in 0..WIDE {
            let found = ll[s] > 0.0;
            d[s] = pick(found, lx[s] / ll[s], 0.0);
            score[s] = pick(found, lx[s] * d[s], -1.0);
        }
        best.offer(&score, &[d]);
    }
    best
}

/// The scales for levels around zero.
///
/// `peaks`: candidates, each the (fractional, signed) level that the largest weight is put on.
#[inline(always)]
pub(super) fn scale<T: Levels>(b: &Batch, peaks: &[f32]) -> Lane {
    let best = candidates::<T, REFINED>(b, peaks);
    let (mut d, mut least) = ([0.0; WIDE], [f32::INFINITY; WIDE]);
    for [start] in &best.items {
        // By fit and assignment in turn, to an f16 with a small error; a block that gets no better changes no
        // more.
        let mut tried = *start;
        let mut before = [f32::INFINITY; WIDE];
        for s in 0..WIDE {
            tried[s] = half(tried[s]);
        }
        for _ in 0..=ROUNDS {
            let (error, lx, ll) = b.error_and_fit::<T>(&tried);
            let mut moving = [0.0; WIDE];
            for s in 0..WIDE {
                let better = error[s] < least[s];
                least[s] = pick(better, error[s], least[s]);
                d[s] = pick(better, tried[s], d[s]);
                let goes_on = error[s] < before[s] && ll[s] > 0.0;
                before[s] = error[s];
                let next = pick(goes_on, half(lx[s] / ll[s]), tried[s]);
                moving[s] = pick(next != tried[s], 1.0, 0.0);
                tried[s] = next;
            }
            if group_max::<WIDE>(&moving)[0] == 0.0 {
                break;
            }
        }
    }
    // The f16 scales around.
    let centre = d;
    for steps in NEIGHBOURS {
        let mut around = [[0.0; WIDE]; 2];
        for s in 0..WIDE {
            around[0][s] = neighbour(centre[s], steps);
            around[1][s] = neighbour(centre[s], -steps);
        }
        let errors = b.errors::<T, 2>(&around);
        for k in 0..2 {
            for s in 0..WIDE {
                let better = errors[k][s] < least[s];
                least[s] = pick(better, errors[k][s], least[s]);
                d[s] = pick(better, around[k][s], d[s]);
            }
        }
    }
    d
}

/// Candidates of the first pass that are refined.
const REFINED: usize = 2;
/// Rounds of fit and assignment; it settles in two or three.
const ROUNDS: usize = 3;
/// Neighbours tried on each side, in f16 steps.
const NEIGHBOURS: [i32; 3] = [3, 6, 9];

/// Scales and minimums, and what is the same for every candidate: the sum of costs and of `cost * (x - lo)`.
struct Affine<'a> {
    b: &'a Batch,
    top: f32,
    lo: Lane,
    cost: Lane,
    first: Lane,
}

impl Affine<'_> {
    /// For the levels in `0..=top` nearest to `(x - m) * inverse`: the error with scale `d`, then sums of
    /// `cost * level`, `cost * level * (x - lo)` and `cost * level^2`.
    #[inline(always)]
    fn sums(&self, inverse: &Lane, d: &Lane, m: &Lane) -> [Lane; 4] {
        let mut out = [[0.0f32; WIDE]; 4];
        for (xs, cost) in self.b.x.iter().zip(&self.b.cost) {
            for s in 0..WIDE {
                let v = xs[s] - m[s];
                let l = nearest(limit(v * inverse[s], 0.0, self.top));
                let e = v - d[s] * l;
                let cl = cost[s] * l;
                out[0][s] += cost[s] * e * e;
                out[1][s] += cl;
                out[2][s] += cl * (xs[s] - self.lo[s]);
                out[3][s] += cl * l;
            }
        }
        out
    }

    /// Least squares from such sums: what it explains (negative: nothing to be had), scale, minimum.
    #[inline(always)]
    fn solve(&self, [_, l1, lx, ll]: &[Lane; 4]) -> [Lane; 3] {
        let (mut explained, mut d, mut m) = ([-1.0; WIDE], [0.0; WIDE], [0.0; WIDE]);
        for s in 0..WIDE {
            let determinant = self.cost[s] * ll[s] - l1[s] * l1[s];
            let part = lx[s] - l1[s] * self.first[s] / self.cost[s];
            let scale = self.cost[s] * part / determinant;
            let found = determinant > 0.0;
            d[s] = pick(found, scale, 0.0);
            m[s] = self.lo[s] + (self.first[s] - d[s] * l1[s]) / self.cost[s];
            explained[s] = pick(found, scale * part, -1.0);
        }
        [explained, d, m]
    }

    /// The minimum that fits best to a stored scale, for the levels that `m` gives, and the error with it.
    #[inline(always)]
    fn minimum(&self, d: &Lane, m: &Lane) -> Lane {
        let inverse = inverses(d);
        let mut sum = [0.0f32; WIDE];
        for (xs, cost) in self.b.x.iter().zip(&self.b.cost) {
            for s in 0..WIDE {
                let v = xs[s] - m[s];
                let l = nearest(limit(v * inverse[s], 0.0, self.top));
                sum[s] += cost[s] * (v - d[s] * l);
            }
        }
        for s in 0..WIDE {
            sum[s] = half(m[s] + sum[s] / self.cost[s]);
        }
        sum
    }

    /// The weighted squared error of a stored scale and minimum.
    #[inline(always)]
    fn error(&self, d: &Lane, m: &Lane) -> Lane {
        let inverse = inverses(d);
        let mut sum = [0.0f32; WIDE];
        for (xs, cost) in self.b.x.iter().zip(&self.b.cost) {
            for s in 0..WIDE {
                let v = xs[s] - m[s];
                let e = v - d[s] * nearest(limit(v * inverse[s], 0.0, self.top));
                sum[s] += cost[s] * e * e;
            }
        }
        sum
    }
}

/// Takes over what is better.
#[inline(always)]
fn take(least: &mut Lane, chosen: &mut [Lane; 2], error: &Lane, d: &Lane, m: &Lane) {
    for s in 0..WIDE {
        let better = error[s] < least[s];
        least[s] = pick(better, error[s], least[s]);
        chosen[0][s] = pick(better, d[s], chosen[0][s]);
        chosen[1][s] = pick(better, m[s], chosen[1][s]);
    }
}

/// Scales and minimums for levels `0..=top`.
///
/// `cuts`: how many levels of the plain step (range / top) each end of the range is moved inwards, all pairs
/// tried.
#[inline(always)]
pub(super) fn affine(b: &Batch, top: f32, cuts: &[f32]) -> [Lane; 2] {
    let (mut lo, mut hi) = ([f32::INFINITY; WIDE], [f32::NEG_INFINITY; WIDE]);
    for xs in &b.x {
        for s in 0..WIDE {
            lo[s] = pick(xs[s] < lo[s], xs[s], lo[s]);
            hi[s] = pick(xs[s] > hi[s], xs[s], hi[s]);
        }
    }
    let (mut cost, mut first) = ([0.0f32; WIDE], [0.0f32; WIDE]);
    for (xs, costs) in b.x.iter().zip(&b.cost) {
        for s in 0..WIDE {
            cost[s] += costs[s];
            first[s] += costs[s] * (xs[s] - lo[s]);
        }
    }
    let a = Affine { b, top, lo, cost, first };
    let mut best = Best::<AFFINE_REFINED, 2>::new();
    for &from in cuts {
        for &to in cuts {
            let (mut m, mut width) = ([0.0; WIDE], [0.0; WIDE]);
            for s in 0..WIDE {
                let step = (hi[s] - lo[s]) / top;
                m[s] = lo[s] + from * step;
                width[s] = ((hi[s] - to * step) - m[s]) / top;
            }
            let [explained, d, m] = a.solve(&a.sums(&inverses(&width), &[0.0; WIDE], &m));
            best.offer(&explained, &[d, m]);
        }
    }
    // A flat block has no scale: its minimum alone.
    let zero = [0.0; WIDE];
    let mut chosen = [zero, zero];
    for s in 0..WIDE {
        chosen[1][s] = half(lo[s] + first[s] / cost[s]);
    }
    let mut least = a.error(&zero, &chosen[1]);
    for [d, m] in &best.items {
        let (mut d, mut m) = (*d, *m);
        for _ in 0..AFFINE_ROUNDS {
            for s in 0..WIDE {
                d[s] = half(d[s]);
            }
            m = a.minimum(&d, &m);
            let sums = a.sums(&inverses(&d), &d, &m);
            take(&mut least, &mut chosen, &sums[0], &d, &m);
            let [explained, d1, m1] = a.solve(&sums);
            for s in 0..WIDE {
                d[s] = pick(explained[s] >= 0.0, d1[s], d[s]);
                m[s] = pick(explained[s] >= 0.0, m1[s], m[s]);
            }
        }
    }
    let centre = chosen;
    for steps in AFFINE_NEIGHBOURS {
        let (mut d, mut m) = (zero, zero);
        for s in 0..WIDE {
            // The middle of the range stays where it is.
            d[s] = neighbour(centre[0][s], steps);
            m[s] = centre[1][s] + (centre[0][s] - d[s]) * (top / 2.0);
        }
        let m = a.minimum(&d, &m);
        take(&mut least, &mut chosen, &a.error(&d, &m), &d, &m);
    }
    let centre = chosen;
    for steps in [1, -1] {
        let mut m = zero;
        for s in 0..WIDE {
            m[s] = neighbour(centre[1][s], steps);
        }
        take(&mut least, &mut chosen, &a.error(&centre[0], &m), &centre[0], &m);
    }
    chosen
}

/// As [`REFINED`], [`ROUNDS`] and [`NEIGHBOURS`].
const AFFINE_REFINED: usize = 2;
/// See [`AFFINE_REFINED`].
const AFFINE_ROUNDS: usize = 3;
/// See [`AFFINE_REFINED`].
const AFFINE_NEIGHBOURS: [i32; 4] = [3, -3, 6, -6];

/// The levels for stored scales and minimums, block by block.
#[inline(always)]
pub(super) fn affine_levels(b: &Batch, [d, m]: &[Lane; 2], top: f32) -> [[u8; N]; WIDE] {
    let inverse = inverses(d);
    let mut out = [[0; WIDE]; N];
    for (q, xs) in out.iter_mut().zip(&b.x) {
        for s in 0..WIDE {
            q[s] = batch::int(nearest(limit((xs[s] - m[s]) * inverse[s], 0.0, top))) as u8;
        }
    }
    batch::scatter(&out)
}

/// The best of every `stride`-th f16 scale that puts the largest weight on levels `most` down to `least`.
#[inline(always)]
pub(super) fn walk<T: Levels>(b: &Batch, (most, least, stride): (f32, f32, i32)) -> Lane {
    let (mut at, mut end) = ([0i32; WIDE], [0i32; WIDE]);
    for s in 0..WIDE {
        let top = b.peak[s].abs();
        at[s] = i32::from(F16::from_f32(half(top / most)).to_bits());
        end[s] = i32::from(F16::from_f32(half(top / least)).to_bits());
    }
    let (mut d, mut smallest) = ([0.0; WIDE], [f32::INFINITY; WIDE]);
    loop {
        let (mut tried, mut left) = ([[0.0; WIDE]; 2], [0.0; WIDE]);
        for k in 0..2 {
            for s in 0..WIDE {
                // Past the end it stays there: the same error again changes nothing.
                let bits = pick(at[s] < end[s], at[s], end[s]);
                tried[k][s] = F16::from_bits(bits as u16).to_f32();
                at[s] = bits + stride;
            }
        }
        let errors = b.errors::<T, 2>(&tried);
        for k in 0..2 {
            for s in 0..WIDE {
                let better = errors[k][s] < smallest[s];
                smallest[s] = pick(better, errors[k][s], smallest[s]);
                d[s] = pick(better, tried[k][s], d[s]);
            }
        }
        for s in 0..WIDE {
            left[s] = pick(at[s] <= end[s], 1.0, 0.0);
        }
        if group_max::<WIDE>(&left)[0] == 0.0 {
            return d;
        }
    }
}
