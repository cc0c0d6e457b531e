//! Attention of some queries of one head over the blocks that they see.

#![allow(clippy::needless_range_loop, reason = "an index runs over registers, memory and constants alike")]

use super::head::{Queries, QueryPlace, TILE, at_least};
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
use std::ops::Range;

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

/// How many queries to give to one call of [`attend`] when none sees more than `n_keys` positions.
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
    /// Blocks that its table has in common with that of the query before it.
    shared: usize,
    /// Its row of bounds.
    bounds: Bounds,
    /// The sum of its exponentials, in lanes.
    lanes: [f32; LANES],
}

/// A row of bounds, which neighbours may have in common: for each block of a table the largest bound of it
/// and all older ones.
#[derive(Clone, Copy)]
struct Bounds {
    first: usize,
    /// Blocks of the table whose bounds are in the row.
    n: usize,
}

impl State {
    fn counts(&self, b: usize) -> bool {
        self.start.is_none_or(|start| b >= start)
    }
}

/// Buffers of [`attend`], one set per thread, kept from call to call.
#[derive(Default)]
struct Scratch {
    /// (n, head_dim): queries side by side, since rows a multiple of 4 KiB apart would share sets of the L1
    /// cache.
    q: Vec<f32>,
    /// (block, query, 64): scores, then their exponentials.
    scores: Vec<f32>,
    /// (n, head_dim): sums of weighted values.
    sums: Vec<f32>,
    /// See [`Bounds`].
    bounds: Vec<f32>,
    states: Vec<State>,
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

/// Attention of some queries of one head: `out(i, values)` gets, for each query `i` in turn at position `p`,
/// `head_dim` values `softmax over j <= p of (q . k[j] / sqrt(head_dim) - slope (p - j)) v`, with the keys
/// and values of its own sequence.
///
/// A block that neighbours in [`Queries::places`] have in common is fetched once for all of them.
///
/// Nothing is read past a query's own position. Blocks so far behind that even a key as long as the longest
/// in them, parallel to the query, could not add `2^-24` to the sum of exponentials (all such keys together)
/// are not read: what that changes in a result is at most `2^-24` of the largest value. A value or key that
/// is not finite is never passed over.
///
/// # Panics
/// When a slice or a table is too short.
pub fn attend<T: KvValue>(isa: Isa, queries: &Queries<'_, T>, out: &mut dyn FnMut(usize, &[f32])) {
    if queries.places.is_empty() {
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
        let &Queries { head_dim: d, slope, places, q, stride, block } = queries;
        let Scratch { q: packed, scores, sums, bounds, states } = scratch;
        let n = places.len();
        let scale = 1.0 / (d as f32).sqrt();
        let n_blocks = places.iter().map(QueryPlace::newest).max().unwrap_or(0) + 1;
        // Lengths that the unsafe code below counts on.
        let block = |id: usize| {
            let block = block(id);
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
        grow(packed, n * d);
        grow(scores, n_blocks * n * BLOCK);
        sums.clear();
        sums.resize(n * d, 0.0);
        states.clear();
        bounds.clear();
        for (i, place) in places.iter().enumerate() {
            let row = &q[i * stride..][..d];
            packed[i * d..][..d].copy_from_slice(row);
            let shared = if i == 0 { 0 } else { place.shared(&places[i - 1]) };
            let last = states.last().map(|last| last.bounds);
            let bounds = table_bounds(place, shared, last, bounds, |id| block(id).bound);
            states.push(State {
                max: f32::NEG_INFINITY,
                reach: scale * length(row),
                start: None,
                shared,
                bounds,
                lanes: [0.0; LANES],
            });
        }

        for b in (0..n_blocks).rev() {
            if states.iter().all(|state| state.start.is_some()) {
                break;
            }
            let mut next = 0;
            while let Some(span) = next_span(places, states, b, next) {
                next = span.end;
                for (place, state) in places[span.clone()].iter().zip(&mut states[span.clone()]) {
                    // Only blocks that the query sees whole have a bound for it.
                    if state.start.is_none()
                        && b < place.newest()
                        && too_far(state, slope, bounds[state.bounds.first + b], place.position, b)
                    {
                        state.start = Some(b + 1);
                    }
                }
                let mut head = None;
                let mut rest = span.clone();
                while let Some(tile) = next_tile(&mut rest, |i| states[i].start.is_none()) {
                    let head = head.get_or_insert_with(|| block(places[span.start].blocks[b]));
                    let (first, w) = (tile.start, tile.len());
                    let mut behind = [0.0; TILE];
                    for (behind, place) in behind.iter_mut().zip(&places[tile.clone()]) {
                        *behind = (b * BLOCK) as f32 - place.position as f32;
                    }
                    let rows = &mut scores[(b * n + first) * BLOCK..][..w * BLOCK];
                    let q = &packed[first * d..][..w * d];
                    let key = Keys { head, d, scale, slope, behind: &behind };
                    // SAFETY: `q` holds `w` rows of `d`, `rows` `w` of 64, the block's lengths are asserted
                    // above; the caller vouches for the features.
                    unsafe { score::<V, T>(w, q, &key, rows) };
                    for ((row, i), state) in rows.chunks_exact(BLOCK).zip(tile.clone()).zip(&mut states[tile])
                    {
                        if state.start.is_none() {
                            state.max = largest(&row[..places[i].seen(b)], state.max);
                        }
                    }
                }
            }
        }

        let oldest = states.iter().map(|state| state.start.unwrap_or(0)).min().unwrap_or(0);
        for b in oldest..n_blocks {
            let mut next = 0;
            while let Some(span) = next_span(places, states, b, next) {
                next = span.end;
                let mut head = None;
                let mut rest = span.clone();
                while let Some(tile) = next_tile(&mut rest, |i| states[i].counts(b)) {
                    let head = head.get_or_insert_with(|| block(places[span.start].blocks[b]));
                    let (first, w) = (tile.start, tile.len());
                    let p = &mut scores[(b * n + first) * BLOCK..][..w * BLOCK];
                    let mut common = BLOCK;
                    for (row, i) in p.chunks_exact_mut(BLOCK).zip(tile.clone()) {
                        let (seen, state) = (places[i].seen(b), &mut states[i]);
                        common = common.min(seen);
                        if !state.counts(b) {
                            row.fill(0.0);
                            continue;
                        }
                        exponentials(row, state.max, seen, &mut state.lanes);
                        if T::SCALED {
                            for (p, scale) in row[..seen].iter_mut().zip(head.value_scales) {
                                *p *= scale;
                            }
                        }
                    }
                    let sums = &mut sums[first * d..][..w * d];
                    // What every query of the tile sees, then what some see beyond.
                    // SAFETY: `p` holds `w` rows of 64, `sums` `w` rows of `d`; `values` has 64 rows of `d`,
                    // asserted above, and `common <= 64`; the caller vouches for the features.
                    unsafe { weigh::<V, T>(w, p, head.values, d, 0..common, sums) };
                    for (i, place) in places[tile].iter().enumerate() {
                        let seen = place.seen(b);
                        if seen > common {
                            let (p, sums) = (&p[i * BLOCK..][..BLOCK], &mut sums[i * d..][..d]);
                            // SAFETY: as above, one row.
                            unsafe { weigh::<V, T>(1, p, head.values, d, common..seen, sums) };
                        }
                    }
                }
            }
        }
        for (i, (sums, state)) in sums.chunks_exact_mut(d).zip(states).enumerate() {
            let share = 1.0 / fold(state.lanes);
            sums.iter_mut().for_each(|sum| *sum *= share);
            out(i, sums);
        }
    }
}

/// The next queries from `next` on that see block `b` of their tables, and for which it is the same block.
#[inline(always)]
fn next_span(places: &[QueryPlace<'_>], states: &[State], b: usize, next: usize) -> Option<Range<usize>> {
    let sees = |place: &QueryPlace<'_>| b <= place.newest();
    let first = next + places[next..].iter().position(sees)?;
    let more = places[first + 1..].iter().zip(&states[first + 1..]);
    let more = more.take_while(|(place, state)| state.shared > b && sees(place)).count();
    Some(first..first + 1 + more)
}

/// Cuts the next tile, which begins with a query that is `wanted`, from the front of `rest`.
#[inline(always)]
fn next_tile(rest: &mut Range<usize>, wanted: impl Fn(usize) -> bool) -> Option<Range<usize>> {
    let first = rest.find(|&i| wanted(i))?;
    let end = rest.end.min(first + TILE);
    rest.start = end;
    Some(first..end)
}

/// The row in `bounds` for the blocks of `place` before its newest. `last`: the row of the query before it,
/// whose table has its first `shared` blocks in common.
fn table_bounds(
    place: &QueryPlace<'_>,
    shared: usize,
    last: Option<Bounds>,
    bounds: &mut Vec<f32>,
    bound: impl Fn(usize) -> f32,
) -> Bounds {
    let (first, n) = (bounds.len(), place.newest());
    let known = last.map_or(0, |last| shared.min(last.n));
    if let Some(last) = last {
        if known >= n {
            return Bounds { n: known, ..last };
        }
        bounds.extend_from_within(last.first..last.first + known);
    }
    let mut largest = bounds[first..].last().copied().unwrap_or(0.0);
    for &id in &place.blocks[known..n] {
        largest = largest.max(bound(id));
        bounds.push(largest);
    }
    Bounds { first, n }
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
