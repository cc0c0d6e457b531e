//! The search for scales that the plain formats (32 weights a block) and IQ4_XS share.
//!
//! In come 32 weights and what an error in each costs; out goes the f16 scale (and minimum) for which the nearest
//! levels give the smallest weighted squared error. Candidates are judged with their own least-squares scale first;
//! the best few are then refined as what will be stored, a scale rounded to f16, by alternating assignment and fit
//! and by trying the f16 neighbours.
//!
//! Every sum is taken in 16 lanes as in [`lanes`], nothing is fused, a tie goes to the first candidate:
//! the result is the same on every ISA.

use super::{F16, lanes};

/// Weights in a block.
pub(super) const N: usize = 32;

/// Largest magnitude that takes part in a search: past what any format can hold (65504 * 32 * 127), small enough
/// that no sum of squares overflows.
const LARGEST: f32 = (1u64 << 30) as f32;

/// Below this every format's best answer is zero: half of the smallest f16.
const SMALLEST: f32 = 1.0 / (1u64 << 25) as f32;

/// 1.5 * 2^23, see [`round`].
const MAGIC: f32 = 12_582_912.0;

/// Nearest integer, ties to even, of a value below 2^22. SSE2 has no instruction for it; these two additions
/// vectorise everywhere.
#[inline(always)]
pub(super) fn round(v: f32) -> f32 {
    (v + MAGIC) - MAGIC
}

/// The integer in an integral `v` below 2^22.
#[inline(always)]
pub(super) fn int(v: f32) -> i32 {
    ((v + MAGIC).to_bits() as i32).wrapping_sub(MAGIC.to_bits() as i32)
}

/// `v` inside `lo..=hi`, NaN to `hi`. Compiles to one min and one max.
#[inline(always)]
pub(super) fn clamp(v: f32, lo: f32, hi: f32) -> f32 {
    let v = if v < hi { v } else { hi };
    if v > lo { v } else { lo }
}

/// The nearest finite f16.
#[inline(always)]
pub(super) fn half(v: f32) -> F16 {
    F16::from_f32(clamp(v, -65504.0, 65504.0))
}

/// The f16 `steps` away from `h` (away from zero when positive), never across zero or past the largest.
#[inline(always)]
pub(super) fn neighbour(h: F16, steps: i32) -> F16 {
    let magnitude = i32::from(h.to_bits() & 0x7fff);
    let moved = (magnitude + steps).clamp(0, 0x7bff) as u16;
    F16((moved | (h.to_bits() & 0x8000)).to_le_bytes())
}

/// An f16 that is not a number: the scale of a block with a weight that is not finite, so that it decodes to NaN
/// and is not taken for a good block.
pub(super) const NAN: F16 = F16(0x7e00u16.to_le_bytes());

/// 32 weights ready for a search.
pub(super) struct Values {
    /// The weights, magnitudes held below `LARGEST`.
    pub x: [f32; N],
    /// Cost of an error in each, at most 1.
    pub cost: [f32; N],
    /// The weight of the largest magnitude (the first, among equals).
    pub peak: f32,
    /// What `cost` was divided by: errors of blocks of one row compare when multiplied by it. 0 when no column of
    /// the block has any importance (`cost` is then as without).
    pub unit: f32,
}

impl Values {
    /// 32 zeros.
    pub(super) const ZERO: Self = Self { x: [0.0; N], cost: [1.0; N], peak: 0.0, unit: 0.0 };

    /// Weights and costs, 16 at a time.
    #[inline(always)]
    fn lanes(&self) -> impl Iterator<Item = (&[f32; lanes::LANES], &[f32; lanes::LANES])> {
        self.x.as_chunks().0.iter().zip(self.cost.as_chunks().0)
    }
}

/// What a block needs.
#[allow(
    clippy::large_enum_variant,
    reason = "lives on the stack for one block; a box would cost an allocation each"
)]
pub(super) enum Job {
    /// All zero, or too small for any f16 scale.
    Zero,
    /// Some weight is NaN or infinite.
    NotFinite,
    /// A search.
    Search(Values),
}

/// What the costs of a row's blocks are measured against.
#[derive(Clone, Copy)]
pub(super) struct Row {
    /// Mean square of the weights.
    sigma2: f32,
    /// Largest finite importance: all are divided by it, so that neither huge nor tiny ones overflow or vanish.
    top: f32,
}

impl Row {
    #[inline(always)]
    pub(super) fn new(x: &[f32], importance: Option<&[f32]>) -> Self {
        let mut top = f32::MIN_POSITIVE;
        for &p in importance.unwrap_or_default() {
            top = if p > top && p <= f32::MAX { p } else { top };
        }
        Self { sigma2: mean_square(x), top }
    }
}

/// Mean square of the finite weights of a row.
#[inline(always)]
fn mean_square(row: &[f32]) -> f32 {
    if row.is_empty() {
        return 0.0;
    }
    let square = |i: usize| {
        let v = clamp(row[i].abs(), 0.0, LARGEST);
        v * v
    };
    lanes::sum(row.len(), square) / row.len() as f32
}

/// Looks at a block and weighs its errors.
///
/// The cost of an error in `x` is `importance * (sigma2 + EMPHASIS x^2)`, importance 1 where none is given: nearly
/// plain squared error, a little more for large weights. Where no column of the block has any importance the
/// search goes by the weights alone.
#[inline(always)]
pub(super) fn prepare(x: &[f32; N], importance: Option<&[f32; N]>, row: Row) -> Job {
    let mut values = Values::ZERO;
    let mut largest = 0u32;
    for v in x {
        largest = largest.max(v.to_bits() & 0x7fff_ffff);
    }
    if largest >= f32::INFINITY.to_bits() {
        return Job::NotFinite;
    }
    if f32::from_bits(largest) < SMALLEST {
        return Job::Zero;
    }
    for i in (0..N).rev() {
        values.x[i] = clamp(x[i], -LARGEST, LARGEST);
        if x[i].to_bits() & 0x7fff_ffff == largest {
            values.peak = values.x[i];
        }
    }
    let mut costs = |importance: Option<&[f32; N]>| {
        let emphasis = if importance.is_some() { EMPHASIS_OF_IMPORTANT } else { EMPHASIS };
        let mut most = 0.0f32;
        for i in 0..N {
            // NaN counts as no importance, infinity as the largest.
            let p =
                importance.map_or(1.0, |p| if p[i] > 0.0 { clamp(p[i] / row.top, 0.0, 1.0) } else { 0.0 });
            let v = values.x[i];
            values.cost[i] = p * (row.sigma2 + emphasis * (v * v));
            most = if values.cost[i] > most { values.cost[i] } else { most };
        }
        most
    };
    let unit = costs(importance);
    let most = if unit > 0.0 || importance.is_none() { unit } else { costs(None) };
    values.unit = unit;
    if most > 0.0 {
        for c in &mut values.cost {
            *c /= most;
        }
    } else {
        values.cost = [1.0; N];
    }
    Job::Search(values)
}

/// Weight of the square of a weight in the cost of its error, beside the row's mean square. Measured on the embedded
/// model, mean KL divergence of Q4_0, Q4_1, Q5_0, IQ4_NL, IQ4_XS over ggml's (geometric mean): 0.892 at 0, 0.889 at
/// 0.25, 0.944 at 1, 0.974 at 3. At 0.25 the error weighted by x^2 is below ggml's too, on light and heavy tails.
const EMPHASIS: f32 = 0.25;

/// The same where importance is given, which then says most of what there is to say: at 0.25 the error weighted by
/// importance was above ggml's on heavy tails for Q4_0 and Q5_1.
const EMPHASIS_OF_IMPORTANT: f32 = 0.1;

/// For the levels nearest to `x * inverse`: sums of `cost * level * x` and `cost * level^2`. Their quotient is the
/// least-squares scale; the first squared by the second is what it explains of the sum of squares.
#[inline(always)]
pub(super) fn fit(v: &Values, inverse: f32, level: impl Fn(f32) -> f32) -> (f32, f32) {
    let (mut lx, mut ll) = ([0.0f32; lanes::LANES], [0.0f32; lanes::LANES]);
    for (x, cost) in v.lanes() {
        for i in 0..lanes::LANES {
            let l = level(x[i] * inverse);
            let cl = cost[i] * l;
            lx[i] += cl * x[i];
            ll[i] += cl * l;
        }
    }
    (lanes::fold(lx), lanes::fold(ll))
}

/// The weighted squared error with scale `d` and nearest levels.
#[inline(always)]
pub(super) fn error(v: &Values, d: f32, level: impl Fn(f32) -> f32) -> f32 {
    let inverse = 1.0 / d;
    let mut sum = [0.0f32; lanes::LANES];
    for (x, cost) in v.lanes() {
        for i in 0..lanes::LANES {
            let e = x[i] - d * level(x[i] * inverse);
            sum[i] += cost[i] * (e * e);
        }
    }
    lanes::fold(sum)
}

/// The best `K` candidates seen, best first; `score` the larger the better.
pub(super) struct Best<T, const K: usize> {
    /// Negative where there is none.
    pub scores: [f32; K],
    pub items: [T; K],
}

impl<T: Copy, const K: usize> Best<T, K> {
    #[inline(always)]
    pub(super) fn new(none: T) -> Self {
        Self { scores: [-1.0; K], items: [none; K] }
    }

    #[inline(always)]
    pub(super) fn offer(&mut self, score: f32, item: T) {
        if score > self.scores[K - 1] {
            let mut at = K - 1;
            while at > 0 && score > self.scores[at - 1] {
                self.scores[at] = self.scores[at - 1];
                self.items[at] = self.items[at - 1];
                at -= 1;
            }
            (self.scores[at], self.items[at]) = (score, item);
        }
    }
}

/// The least-squares scales of the `K` best of `peaks`, see [`scale`].
#[inline(always)]
pub(super) fn candidates<const K: usize>(
    v: &Values,
    peaks: &[f32],
    level: impl Fn(f32) -> f32,
) -> Best<f32, K> {
    let mut best = Best::new(0.0);
    for p in peaks {
        let (lx, ll) = fit(v, p / v.peak, &level);
        if ll > 0.0 {
            best.offer(lx * lx / ll, lx / ll);
        }
    }
    best
}

/// The scale for levels around zero.
///
/// `peaks`: candidates, each the (fractional, signed) level that the largest weight is put on. `level`: the level
/// nearest to its argument.
#[inline(always)]
pub(super) fn scale(v: &Values, peaks: &[f32], level: impl Fn(f32) -> f32 + Copy) -> F16 {
    let best = candidates::<REFINED>(v, peaks, level);
    let mut d = F16::default();
    let mut least = f32::INFINITY;
    for (&start, &score) in best.items.iter().zip(&best.scores) {
        if score < 0.0 {
            break;
        }
        let (e, h) = refine(v, start, level);
        if e < least {
            (least, d) = (e, h);
        }
    }
    neighbourhood(v, least, d, level)
}

/// Candidates of the first pass that are refined.
const REFINED: usize = 2;

/// From a scale, by fit and assignment in turn, to an f16 with a small error.
#[inline(always)]
fn refine(v: &Values, start: f32, level: impl Fn(f32) -> f32 + Copy) -> (f32, F16) {
    let mut d = half(start);
    let mut least = error(v, d.to_f32(), level);
    for _ in 0..ROUNDS {
        let (lx, ll) = fit(v, 1.0 / d.to_f32(), level);
        let h = half(lx / ll);
        if h == d || ll <= 0.0 {
            break;
        }
        let e = error(v, h.to_f32(), level);
        if e >= least {
            break;
        }
        (least, d) = (e, h);
    }
    (least, d)
}

/// The best of the f16 scales around `d`, whose error is `least`.
#[inline(always)]
fn neighbourhood(v: &Values, mut least: f32, mut d: F16, level: impl Fn(f32) -> f32 + Copy) -> F16 {
    let centre = d;
    for k in 1..=NEIGHBOURS {
        for steps in [k * STRIDE, -k * STRIDE] {
            let h = neighbour(centre, steps);
            let e = error(v, h.to_f32(), level);
            if e < least {
                (least, d) = (e, h);
            }
        }
    }
    d
}

/// Rounds of fit and assignment; it settles in two or three.
const ROUNDS: usize = 4;
/// Neighbours tried on each side, `STRIDE` f16 steps apart.
const NEIGHBOURS: i32 = 3;
/// See [`NEIGHBOURS`].
const STRIDE: i32 = 3;

/// A scale and a minimum.
#[derive(Clone, Copy)]
pub(super) struct Affine {
    pub d: F16,
    pub m: F16,
}

/// The level in `0..=top` nearest to `x` under scale `1 / inverse` and minimum `m`.
#[inline(always)]
pub(super) fn affine_level(x: f32, m: f32, inverse: f32, top: f32) -> f32 {
    round(clamp((x - m) * inverse, 0.0, top))
}

/// Least squares for the levels that `(inverse, m)` gives: `(explained, d, m)`; `x` is measured from `origin`.
#[inline(always)]
fn affine_fit(
    v: &Values,
    cost: f32,
    first: f32,
    origin: f32,
    inverse: f32,
    m: f32,
    top: f32,
) -> (f32, f32, f32) {
    let (mut l1, mut lx, mut ll) = ([0.0f32; lanes::LANES], [0.0f32; lanes::LANES], [0.0f32; lanes::LANES]);
    for (x, cost) in v.lanes() {
        for i in 0..lanes::LANES {
            let l = affine_level(x[i], m, inverse, top);
            let cl = cost[i] * l;
            l1[i] += cl;
            lx[i] += cl * (x[i] - origin);
            ll[i] += cl * l;
        }
    }
    let (l1, lx, ll) = (lanes::fold(l1), lanes::fold(lx), lanes::fold(ll));
    let determinant = cost * ll - l1 * l1;
    if determinant > 0.0 {
        let d = (cost * lx - l1 * first) / determinant;
        let m = (first - d * l1) / cost;
        (d * (lx - l1 * first / cost), d, origin + m)
    } else {
        (-1.0, 0.0, 0.0)
    }
}

/// The weighted squared error of a stored scale and minimum.
#[inline(always)]
fn affine_error(v: &Values, a: Affine, top: f32) -> f32 {
    let (d, m) = (a.d.to_f32(), a.m.to_f32());
    let inverse = 1.0 / d;
    let mut sum = [0.0f32; lanes::LANES];
    for (x, cost) in v.lanes() {
        for i in 0..lanes::LANES {
            let e = x[i] - (d * affine_level(x[i], m, inverse, top) + m);
            sum[i] += cost[i] * (e * e);
        }
    }
    lanes::fold(sum)
}

/// The minimum that fits best to a stored scale, for the levels that `m` gives.
#[inline(always)]
fn affine_minimum(v: &Values, cost: f32, d: F16, m: f32, top: f32) -> Affine {
    let scale = d.to_f32();
    let inverse = 1.0 / scale;
    let mut sum = [0.0f32; lanes::LANES];
    for (x, cost) in v.lanes() {
        for i in 0..lanes::LANES {
            let l = affine_level(x[i], m, inverse, top);
            sum[i] += cost[i] * (x[i] - m - scale * l);
        }
    }
    Affine { d, m: half(m + lanes::fold(sum) / cost) }
}

/// Scale and minimum for levels `0..=top`.
///
/// `cuts`: how many levels of the plain step (range / top) each end of the range is moved inwards, all pairs tried.
#[inline(always)]
pub(super) fn affine(v: &Values, top: f32, cuts: &[f32]) -> Affine {
    let (mut lo, mut hi) = (f32::INFINITY, f32::NEG_INFINITY);
    for &x in &v.x {
        lo = if x < lo { x } else { lo };
        hi = if x > hi { x } else { hi };
    }
    let cost = lanes::sum(N, |i| v.cost[i]);
    let first = lanes::sum(N, |i| v.cost[i] * (v.x[i] - lo));
    let step = (hi - lo) / top;
    let mut best = Best::<(f32, f32), AFFINE_REFINED>::new((0.0, lo));
    if step > 0.0 {
        for &from in cuts {
            for &to in cuts {
                let m = lo + from * step;
                let inverse = top / ((hi - to * step) - m);
                let (explained, d, m) = affine_fit(v, cost, first, lo, inverse, m, top);
                best.offer(explained, (d, m));
            }
        }
    }
    // A flat block has no scale: its minimum alone.
    let mut chosen = Affine { d: F16::default(), m: half(lo + first / cost) };
    let mut least = affine_error(v, chosen, top);
    for (&(d, m), &score) in best.items.iter().zip(&best.scores) {
        if score < 0.0 {
            break;
        }
        let (mut d, mut m) = (d, m);
        let mut tried = F16::default();
        for _ in 0..ROUNDS {
            let h = half(d);
            let a = affine_minimum(v, cost, h, m, top);
            let e = affine_error(v, a, top);
            if e < least {
                (least, chosen) = (e, a);
            }
            if h == tried {
                break;
            }
            tried = h;
            let inverse = 1.0 / h.to_f32();
            let (explained, d2, m2) = affine_fit(v, cost, first, lo, inverse, a.m.to_f32(), top);
            if explained < 0.0 {
                break;
            }
            (d, m) = (d2, m2);
        }
    }
    let centre = chosen;
    for k in 1..=AFFINE_NEIGHBOURS {
        for steps in [k * AFFINE_STRIDE, -k * AFFINE_STRIDE] {
            // The middle of the range stays where it is.
            let h = neighbour(centre.d, steps);
            let m = centre.m.to_f32() + (centre.d.to_f32() - h.to_f32()) * (top / 2.0);
            let a = affine_minimum(v, cost, h, m, top);
            let e = affine_error(v, a, top);
            if e < least {
                (least, chosen) = (e, a);
            }
        }
    }
    for steps in [1, -1] {
        let a = Affine { d: chosen.d, m: neighbour(chosen.m, steps) };
        let e = affine_error(v, a, top);
        if e < least {
            (least, chosen) = (e, a);
        }
    }
    chosen
}

/// As [`REFINED`], [`NEIGHBOURS`] and [`STRIDE`].
const AFFINE_REFINED: usize = 2;
/// See [`AFFINE_REFINED`].
const AFFINE_NEIGHBOURS: i32 = 2;
/// See [`AFFINE_REFINED`].
const AFFINE_STRIDE: i32 = 3;

/// Encodes the blocks of a row, each by `block`.
#[inline(always)]
pub(super) fn blocks<B>(x: &[f32], importance: Option<&[f32]>, out: &mut [B], block: impl Fn(Job) -> B) {
    let row = Row::new(x, importance);
    let importance = importance.map(|p| p.as_chunks::<N>().0);
    for (i, (x, out)) in x.as_chunks::<N>().0.iter().zip(out).enumerate() {
        *out = block(prepare(x, importance.map(|p| &p[i]), row));
    }
}

/// The levels for a stored scale and minimum.
#[inline(always)]
pub(super) fn affine_levels(v: &Values, d: F16, m: F16, top: f32) -> [u8; N] {
    let (m, inverse) = (m.to_f32(), 1.0 / d.to_f32());
    v.x.map(|x| int(affine_level(x, m, inverse, top)) as u8)
}

/// The best of every `stride`-th f16 scale that puts the largest weight on levels `most` down to `least`.
#[inline(always)]
pub(super) fn walk(
    v: &Values,
    (most, least, stride): (f32, f32, usize),
    level: impl Fn(f32) -> f32 + Copy,
) -> F16 {
    let top = v.peak.abs();
    let (from, to) = (half(top / most).to_bits(), half(top / least).to_bits());
    let mut d = F16::default();
    let mut smallest = f32::INFINITY;
    for bits in (from..=to).step_by(stride) {
        let h = F16(bits.to_le_bytes());
        let e = error(v, h.to_f32(), level);
        if e < smallest {
            (smallest, d) = (e, h);
        }
    }
    d
}
