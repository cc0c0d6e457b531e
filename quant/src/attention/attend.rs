//! Attention of some queries of one head over the blocks that they see.

#![allow(clippy::needless_range_loop, reason = "an index runs over registers, memory and constants alike")]

use super::head::{Queries, TILE, at_least, seen};
use super::tile::{Keys, score, weigh};
use super::value::KvValue;
use crate::elementwise::exp;
use crate::formats::lanes::{LANES, fold};
use crate::kernels::unit::{Features, Job, Unit};
use crate::kernels::vector::Vector;
use crate::kernels::{Isa, with_vectors};
use crate::kv::BLOCK;
use std::cell::RefCell;
use std::marker::PhantomData;

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

/// Most multiply-adds in one call of [`attend`] for [`group`] queries: some 20 ms of portable code.
pub(super) const GROUP_MACS: usize = 1 << 26;
/// Scores kept at a time: 384 KiB, which stay in the L2 cache.
pub(super) const GROUP_SCORES: usize = 96 << 10;
/// Queries for which the keys and values of a block are fetched once.
const GROUP: usize = 8 * TILE;

/// How many consecutive queries to give to one call of [`attend`] when the last sees `n_keys` positions.
pub fn group(head_dim: usize, n_keys: usize) -> usize {
    let n_keys = n_keys.max(1);
    let macs = GROUP_MACS / (2 * head_dim.max(1)).saturating_mul(n_keys);
    let n = macs.min(GROUP_SCORES / n_keys).min(GROUP);
    if n < TILE { n.max(1) } else { n - n % TILE }
}

/// What one query has come to.
#[derive(Clone, Copy)]
struct State {
    /// Largest score so far.
    max: f32,
    /// No key of length `x` scores above `reach * x` before the bias.
    reach: f32,
    /// Its oldest block; once found, no older one counts.
    start: Option<usize>,
}

/// Buffers of [`attend`], one set per thread, kept from call to call.
#[derive(Default)]
struct Scratch {
    /// (n, head_dim): queries side by side, since rows a multiple of 4 KiB apart would share sets of the L1
    /// cache.
    q: Vec<f32>,
    /// (tile, block, query of the tile, 64): scores, then their exponentials.
    scores: Vec<f32>,
    /// (n, head_dim): sums of weighted values.
    sums: Vec<f32>,
    /// Per block the largest bound of it and all older ones.
    bounds: Vec<f32>,
    states: Vec<State>,
    /// Per tile the oldest block of any of its queries.
    starts: Vec<Option<usize>>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// The work of [`attend`] with the vectors `V`.
struct Attend<'a, 'b, T, V> {
    queries: &'b Queries<'a, T>,
    scratch: &'b mut Scratch,
    out: &'b mut dyn FnMut(usize, &[f32]),
    vectors: PhantomData<V>,
}

/// Attention of some queries of one head: `out(i, values)` gets, for each query `i` in turn at position `p =
/// position + i`, `head_dim` values `softmax over j <= p of (q . k[j] / sqrt(head_dim) - slope (p - j)) v`.
///
/// Nothing is read past a query's own position. Blocks so far behind that even a key as long as the longest
/// in them, parallel to the query, could not add `2^-24` to the sum of exponentials (all such keys together)
/// are not read: what that changes in a result is at most `2^-24` of the largest value. A value or key that
/// is not finite is never passed over.
///
/// # Panics
/// When a slice is too short.
pub fn attend<T: KvValue>(isa: Isa, queries: &Queries<'_, T>, out: &mut dyn FnMut(usize, &[f32])) {
    if queries.n == 0 {
        return;
    }
    SCRATCH.with_borrow_mut(|scratch| {
        with_vectors!(isa, U => {
            let job = Attend::<T, <U as Unit>::V> { queries, scratch, out, vectors: PhantomData };
            // SAFETY: this CPU has every `Isa` that there is, and with it the features of the unit whose
            // vectors it has.
            unsafe { U::run(job) }
        });
    });
}

impl<T: KvValue, V: Vector> Job for Attend<'_, '_, T, V> {
    type Output = ();

    #[inline(always)]
    unsafe fn run(self) {
        let Self { queries, scratch, out, .. } = self;
        let &Queries { head_dim: d, slope, position, n, q, stride, blocks } = queries;
        let Scratch { q: packed, scores, sums, bounds, states, starts } = scratch;
        let scale = 1.0 / (d as f32).sqrt();
        let n_blocks = (position + n - 1) / BLOCK + 1;
        // Lengths that the unsafe code below counts on.
        let block = |b: usize| {
            let block = blocks(b);
            assert!(
                block.keys.len() == BLOCK * d && block.values.len() == BLOCK * d,
                "a block of {d} wide rows"
            );
            let scales = if T::SCALED { BLOCK } else { 0 };
            assert!(
                block.key_scales.len() == scales && block.value_scales.len() == scales,
                "scales of a block"
            );
            block
        };
        let tile_len = n_blocks * TILE * BLOCK;
        let tiles = n.div_ceil(TILE);
        grow(packed, n * d);
        grow(scores, tiles * tile_len);
        sums.clear();
        sums.resize(n * d, 0.0);
        bounds.clear();
        let mut bound = 0.0f32;
        for b in 0..n_blocks - 1 {
            bound = bound.max(block(b).bound);
            bounds.push(bound);
        }
        states.clear();
        for i in 0..n {
            let row = &q[i * stride..][..d];
            packed[i * d..][..d].copy_from_slice(row);
            states.push(State { max: f32::NEG_INFINITY, reach: scale * length(row), start: None });
        }
        starts.clear();
        starts.resize(tiles, None);

        for b in (0..n_blocks).rev() {
            let head = block(b);
            let mut live = false;
            for t in 0..tiles {
                let first = t * TILE;
                let w = TILE.min(n - first);
                if starts[t].is_some() || position + first + w <= b * BLOCK {
                    live |= starts[t].is_none();
                    continue;
                }
                let states = &mut states[first..first + w];
                let mut wanted = false;
                for (i, state) in states.iter_mut().enumerate() {
                    let position = position + first + i;
                    // Only blocks that the query sees whole have a bound for it.
                    if state.start.is_none()
                        && b < position / BLOCK
                        && too_far(state, slope, bounds[b], position, b)
                    {
                        state.start = Some(b + 1);
                    }
                    wanted |= state.start.is_none();
                }
                if !wanted {
                    starts[t] = Some(b + 1);
                    continue;
                }
                live = true;
                let mut behind = [0.0; TILE];
                for (i, behind) in behind.iter_mut().enumerate() {
                    *behind = (b * BLOCK) as f32 - (position + first + i) as f32;
                }
                let row = &mut scores[t * tile_len + b * TILE * BLOCK..][..TILE * BLOCK];
                let q = &packed[first * d..][..w * d];
                let key = Keys { head: &head, d, scale, slope, behind: &behind };
                // SAFETY: `q` holds `w` rows of `d`, `row` six of 64, the block's lengths are asserted above;
                // the caller vouches for the features.
                unsafe { score::<V, T>(w, q, &key, row) };
                for (i, state) in states.iter_mut().enumerate() {
                    if state.start.is_none() {
                        let row = &row[i * BLOCK..][..seen(position + first + i, b)];
                        state.max = largest(row, state.max);
                    }
                }
            }
            if !live {
                break;
            }
        }

        let start = |state: &State| state.start.unwrap_or(0);
        // The sums of exponentials, over which the results are divided at the end.
        for t in 0..tiles {
            let first = t * TILE;
            let w = TILE.min(n - first);
            let oldest = states[first..first + w].iter().map(start).min().unwrap_or(0);
            starts[t] = Some(oldest);
            for i in 0..w {
                let (position, state) = (position + first + i, &mut states[first + i]);
                let mut lanes = [0.0f32; LANES];
                for b in oldest..=position / BLOCK {
                    let row = &mut scores[t * tile_len + (b * TILE + i) * BLOCK..][..BLOCK];
                    if b < start(state) {
                        row.fill(0.0);
                        continue;
                    }
                    let seen = seen(position, b);
                    exponentials(row, state.max, seen, &mut lanes);
                    if T::SCALED {
                        for (p, scale) in row[..seen].iter_mut().zip(block(b).value_scales) {
                            *p *= scale;
                        }
                    }
                }
                // From here on `max` is what the query's sums are multiplied with.
                state.max = 1.0 / fold(lanes);
            }
        }

        let oldest = starts.iter().flatten().copied().min().unwrap_or(0);
        for b in oldest..n_blocks {
            let values = block(b).values;
            for t in 0..tiles {
                let first = t * TILE;
                let w = TILE.min(n - first);
                if starts[t].is_some_and(|start| b < start) || position + first + w <= b * BLOCK {
                    continue;
                }
                let p = &scores[t * tile_len + b * TILE * BLOCK..][..w * BLOCK];
                let sums = &mut sums[first * d..][..w * d];
                // What every query of the tile sees, then what the later ones see beyond.
                let common = seen(position + first, b);
                if common > 0 {
                    // SAFETY: `p` holds `w` rows of 64, `sums` `w` rows of `d`; `values` has 64 rows of `d`,
                    // asserted above, and `common <= 64`; the caller vouches for the features.
                    unsafe { weigh::<V, T>(w, p, values, d, 0..common, sums) };
                }
                for i in 1..w {
                    let seen = seen(position + first + i, b);
                    if seen > common {
                        let (p, sums) = (&p[i * BLOCK..][..BLOCK], &mut sums[i * d..][..d]);
                        // SAFETY: as above, one row.
                        unsafe { weigh::<V, T>(1, p, values, d, common..seen, sums) };
                    }
                }
            }
        }
        for (i, (sums, state)) in sums.chunks_exact_mut(d).zip(states).enumerate() {
            sums.iter_mut().for_each(|sum| *sum *= state.max);
            out(i, sums);
        }
    }
}

fn grow(x: &mut Vec<f32>, len: usize) {
    if x.len() < len {
        x.resize(len, 0.0);
    }
}

/// The length of `x`, never less than it is: with room for the rounding of a product of it, and for squares
/// below the smallest number.
#[inline(always)]
fn length(x: &[f32]) -> f32 {
    at_least(crate::formats::lanes::sum(x.len(), |i| x[i] * x[i]), x.len())
}

/// Whether no key of block `b` or an older one, `bound` being the longest of them, can matter to a query at
/// `position` whose largest score in newer blocks is known: `n` keys below `max - ln(2^24 n)` add less than
/// `2^-24` of the largest exponential. False when anything is NaN.
#[inline(always)]
fn too_far(state: &State, slope: f32, bound: f32, position: usize, b: usize) -> bool {
    let n = b * BLOCK + BLOCK;
    let bits = (24 + 1 + n.ilog2()) as f32;
    let behind = (position + 1 - n) as f32;
    state.reach * bound - slope * behind < state.max - bits * std::f32::consts::LN_2
}

/// The larger of `max` and what is in `x`; NaN is passed over (it reaches the result through its
/// exponential).
#[inline(always)]
fn largest(x: &[f32], mut max: f32) -> f32 {
    let (lanes, rest) = x.as_chunks::<LANES>();
    let mut top = [max; LANES];
    for x in lanes {
        for l in 0..LANES {
            top[l] = if x[l] > top[l] { x[l] } else { top[l] };
        }
    }
    for &x in top.iter().chain(rest) {
        max = if x > max { x } else { max };
    }
    max
}

/// `row = e^(row - max)` in the first `seen` places, 0 in the others; adds element `i` to lane `i mod 16`.
#[inline(always)]
fn exponentials(row: &mut [f32], max: f32, seen: usize, lanes: &mut [f32; LANES]) {
    for x in row.iter_mut() {
        *x = exp(*x - max);
    }
    // What lies past the query's own position is no score at all.
    row[seen..].fill(0.0);
    for x in row.as_chunks::<LANES>().0 {
        for l in 0..LANES {
            lanes[l] += x[l];
        }
    }
}
