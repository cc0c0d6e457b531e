//! ALiBi attention of one head over KV blocks, without a mask tensor.
//!
//! A block holds [`BLOCK`](crate::kv::BLOCK) positions. Keys lie transposed, `[head_dim][64]`, values `[64][head_dim]`, so scores and
//! weighted values are the same product: factors broadcast, rows of stored numbers streamed, one lane per output,
//! nothing summed across lanes. Up to six queries share the stored numbers once they are loaded and widened.
//!
//! Every output is summed in one order (scores over `head_dim`, the rest over positions, oldest first), and far keys
//! are passed over by a rule that looks at one query alone: a query's bits depend neither on how many queries run
//! beside it nor on what else runs in the step. Instruction sets that fuse multiplication and addition agree bit for
//! bit with each other; portable code without it rounds twice and differs in the last places.

#![allow(clippy::needless_range_loop, reason = "an index runs over registers, memory and constants alike")]

mod simd;
mod value;

pub use value::KvValue;

use crate::elementwise::exp;
use crate::formats::lanes::{LANES, fold};
use crate::kernels::Isa;
#[cfg(target_arch = "x86_64")]
use crate::kernels::Level;
use crate::kv::BLOCK;
use simd::{Portable, Simd, Vector};
use std::cell::RefCell;

/// Queries that share stored numbers once they are loaded.
const TILE: usize = 6;

/// The keys and values of one head in one KV block.
#[derive(Clone, Copy, Debug)]
pub struct HeadBlock<'a, T> {
    /// `[head_dim][64]`, row-major.
    pub keys: &'a [T],
    /// `[64][head_dim]`, row-major.
    pub values: &'a [T],
    /// A scale per position for the keys, for types that have one.
    pub key_scales: &'a [f32],
    /// A scale per position for the values.
    pub value_scales: &'a [f32],
    /// Of a full block: no key in it is longer. Infinite when keys or values are not all finite. See [`store`].
    pub bound: f32,
}

/// As [`HeadBlock`], to write to.
#[derive(Debug)]
pub struct HeadBlockMut<'a, T> {
    /// `[head_dim][64]`, row-major.
    pub keys: &'a mut [T],
    /// `[64][head_dim]`, row-major.
    pub values: &'a mut [T],
    /// A scale per position for the keys, for types that have one.
    pub key_scales: &'a mut [f32],
    /// A scale per position for the values.
    pub value_scales: &'a mut [f32],
    /// See [`HeadBlock::bound`].
    pub bound: &'a mut f32,
}

/// Queries of one head at consecutive positions of one sequence.
pub struct Queries<'a, T> {
    /// Values of a query, key or value.
    pub head_dim: usize,
    /// The head's ALiBi slope, not negative.
    pub slope: f32,
    /// Absolute position of the first query.
    pub position: usize,
    /// Queries.
    pub n: usize,
    /// Query `i`: `q[i * stride..][..head_dim]`.
    pub q: &'a [f32],
    /// See `q`.
    pub stride: usize,
    /// Block `b` holds positions `64 b ..` of the sequence, the queries' own included.
    pub blocks: &'a dyn Fn(usize) -> HeadBlock<'a, T>,
}

/// Compiles `body::<S, T>(job)` for each instruction set and defines `name(isa, job)` that runs the right one.
macro_rules! per_isa {
    ($name:ident = $body:ident($job:ty)) => {
        fn $name<T: KvValue>(isa: Isa, job: $job) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma,f16c")]
                fn avx2<T: KvValue>(job: $job) {
                    // SAFETY: this function enables what `Avx2` needs.
                    unsafe { $body::<simd::Avx2, T>(job) }
                }
                #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
                fn avx512<T: KvValue>(job: $job) {
                    // SAFETY: this function enables what `Avx512` needs.
                    unsafe { $body::<simd::Avx512, T>(job) }
                }
                if isa.level() >= Level::Avx512 {
                    // SAFETY: an `Isa` of this level exists only where `Isa::available` detected these features.
                    return unsafe { avx512(job) };
                }
                if isa.level() >= Level::Avx2 {
                    // SAFETY: as above.
                    return unsafe { avx2(job) };
                }
            }
            let _ = isa;
            // SAFETY: portable code needs no feature.
            unsafe { $body::<Portable, T>(job) }
        }
    };
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

/// Most multiply-adds in one call of [`attend`] for [`group`] queries: some 20 ms of portable code.
const GROUP_MACS: usize = 1 << 26;
/// Scores kept at a time: 384 KiB, which stay in the L2 cache.
const GROUP_SCORES: usize = 96 << 10;
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
    /// (n, head_dim): queries side by side, since rows a multiple of 4 KiB apart would share sets of the L1 cache.
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

struct Attend<'a, 'b, T> {
    queries: &'b Queries<'a, T>,
    scratch: &'b mut Scratch,
    out: &'b mut dyn FnMut(usize, &[f32]),
}

per_isa!(run_attend = attend_body(Attend<'_, '_, T>));

/// Attention of some queries of one head: `out(i, values)` gets, for each query `i` in turn at position
/// `p = position + i`, `head_dim` values `softmax over j <= p of (q . k[j] / sqrt(head_dim) - slope (p - j)) v`.
///
/// Nothing is read past a query's own position. Blocks so far behind that even a key as long as the longest in them,
/// parallel to the query, could not add `2^-24` to the sum of exponentials (all such keys together) are not read: what
/// that changes in a result is at most `2^-24` of the largest value. A value or key that is not finite is never passed over.
///
/// # Panics
/// When a slice is too short.
pub fn attend<T: KvValue>(isa: Isa, queries: &Queries<'_, T>, out: &mut dyn FnMut(usize, &[f32])) {
    if queries.n == 0 {
        return;
    }
    SCRATCH.with_borrow_mut(|scratch| run_attend(isa, Attend { queries, scratch, out }));
}

/// Positions of block `b` that a query at `position` sees.
#[inline(always)]
fn seen(position: usize, b: usize) -> usize {
    (position + 1).saturating_sub(b * BLOCK).min(BLOCK)
}

/// Calls `$f::<.., W>` with the number of queries of a tile as a constant.
macro_rules! by_width {
    ($w:expr, $f:ident::<$s:ty, $t:ty>($($arg:expr),*)) => {
        match $w {
            1 => $f::<$s, <$s>::Row, $t, 1>($($arg),*),
            2 => $f::<$s, <$s>::Tile, $t, 2>($($arg),*),
            3 => $f::<$s, <$s>::Tile, $t, 3>($($arg),*),
            4 => $f::<$s, <$s>::Tile, $t, 4>($($arg),*),
            5 => $f::<$s, <$s>::Tile, $t, 5>($($arg),*),
            _ => $f::<$s, <$s>::Tile, $t, TILE>($($arg),*),
        }
    };
}

/// # Safety
/// The CPU has the features of `S`.
#[inline(always)]
unsafe fn attend_body<S: Simd, T: KvValue>(job: Attend<'_, '_, T>) {
    let Attend { queries, scratch, out } = job;
    let &Queries { head_dim: d, slope, position, n, q, stride, blocks } = queries;
    let Scratch { q: packed, scores, sums, bounds, states, starts } = scratch;
    let scale = 1.0 / (d as f32).sqrt();
    let n_blocks = (position + n - 1) / BLOCK + 1;
    // Lengths that the unsafe code below counts on.
    let block = |b: usize| {
        let block = blocks(b);
        assert!(block.keys.len() == BLOCK * d && block.values.len() == BLOCK * d, "a block of {d} wide rows");
        let scales = if T::SCALED { BLOCK } else { 0 };
        assert!(block.key_scales.len() == scales && block.value_scales.len() == scales, "scales of a block");
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
            // SAFETY: `q` holds `w` rows of `d`, `row` six of 64, the block's lengths are asserted above; the caller
            // vouches for the features.
            unsafe { by_width!(w, score_tile::<S, T>(q, &key, row)) };
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
                // SAFETY: `p` holds `w` rows of 64, `sums` `w` rows of `d`; `values` has 64 rows of `d`, asserted
                // above, and `common <= 64`; the caller vouches for the features.
                unsafe { by_width!(w, value_tile::<S, T>(p, values, d, 0..common, sums)) };
            }
            for i in 1..w {
                let seen = seen(position + first + i, b);
                if seen > common {
                    let (p, sums) = (&p[i * BLOCK..][..BLOCK], &mut sums[i * d..][..d]);
                    // SAFETY: as above, one row.
                    unsafe { value_tile::<S, S::Row, T, 1>(p, values, d, common..seen, sums) };
                }
            }
        }
    }
    for (i, (sums, state)) in sums.chunks_exact_mut(d).zip(states).enumerate() {
        sums.iter_mut().for_each(|sum| *sum *= state.max);
        out(i, sums);
    }
}

fn grow(x: &mut Vec<f32>, len: usize) {
    if x.len() < len {
        x.resize(len, 0.0);
    }
}

/// The length of `x`, never less than it is: with room for the rounding of a product of it, and for squares below the
/// smallest number.
#[inline(always)]
fn length(x: &[f32]) -> f32 {
    at_least(crate::formats::lanes::sum(x.len(), |i| x[i] * x[i]), x.len())
}

/// An upper bound of a length from its square as computed, `n` squares summed.
#[inline(always)]
fn at_least(square: f32, n: usize) -> f32 {
    square.sqrt() * 1.001 + 1.1e-19 * (n as f32).sqrt()
}

/// Whether no key of block `b` or an older one, `bound` being the longest of them, can matter to a query at `position`
/// whose largest score in newer blocks is known: `n` keys below `max - ln(2^24 n)` add less than `2^-24` of the
/// largest exponential. False when anything is NaN.
#[inline(always)]
fn too_far(state: &State, slope: f32, bound: f32, position: usize, b: usize) -> bool {
    let n = b * BLOCK + BLOCK;
    let bits = (24 + 1 + n.ilog2()) as f32;
    let behind = (position + 1 - n) as f32;
    state.reach * bound - slope * behind < state.max - bits * std::f32::consts::LN_2
}

/// The larger of `max` and what is in `x`; NaN is passed over (it reaches the result through its exponential).
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

struct Keys<'a, T> {
    head: &'a HeadBlock<'a, T>,
    d: usize,
    scale: f32,
    slope: f32,
    /// Per query the block's first position minus its own.
    behind: &'a [f32; TILE],
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

/// `scores[w][j] = q[w] . key[j] scale + slope (behind[w] + j)`; `q`: (W, d), `scores`: (W, 64).
///
/// # Safety
/// `q` holds `W * d` values, `scores` `W * 64`, the block's slices have the lengths that [`HeadBlock`] states, the CPU
/// has the features of `S`.
#[inline(always)]
unsafe fn score_tile<S: Simd, V: Vector, T: KvValue, const W: usize>(
    q: &[f32],
    keys: &Keys<'_, T>,
    scores: &mut [f32],
) {
    let d = keys.d;
    let (q, out) = (q.as_ptr(), scores.as_mut_ptr());
    let mut c = 0;
    while c < BLOCK {
        // SAFETY: `c + V::LANES <= 64`, as 64 is a multiple of the lanes of every `V`; the rest is the caller's duty.
        unsafe {
            let mut sums = [V::splat(0.0); W];
            for i in 0..d {
                let key = T::load::<V>(keys.head.keys.as_ptr().add(i * BLOCK + c));
                for w in 0..W {
                    sums[w] = V::splat(*q.add(w * d + i)).mul_add(key, sums[w]);
                }
            }
            let ramp = V::load(RAMP.as_ptr().add(c));
            let mut scale = V::splat(keys.scale);
            if T::SCALED {
                scale = scale.mul(V::load(keys.head.key_scales.as_ptr().add(c)));
            }
            for w in 0..W {
                // Whole numbers below 2^24: exact.
                let behind = ramp.mul_add(V::splat(1.0), V::splat(keys.behind[w]));
                let bias = behind.mul(V::splat(keys.slope));
                sums[w].mul_add(scale, bias).store(out.add(w * BLOCK + c));
            }
        }
        c += V::LANES;
    }
}

/// `sums[w] += p[w][j] values[j]` for `j` in `rows`; `p`: (W, 64), `values`: (64, d), `sums`: (W, d).
///
/// # Safety
/// `p` holds `W * 64` values, `values` `rows.end * d`, `sums` `W * d`; `rows.end <= 64`; the CPU has the features of `S`.
#[inline(always)]
unsafe fn value_tile<S: Simd, V: Vector, T: KvValue, const W: usize>(
    p: &[f32],
    values: &[T],
    d: usize,
    rows: std::ops::Range<usize>,
    sums: &mut [f32],
) {
    let mut c = 0;
    // SAFETY: `c` plus the lanes is at most `d` in each call; the rest is the caller's duty.
    unsafe {
        while c + V::LANES <= d {
            value_strip::<V, T, W>(p, values, d, rows.clone(), sums, c);
            c += V::LANES;
        }
        while c + S::One::LANES <= d {
            value_strip::<S::One, T, W>(p, values, d, rows.clone(), sums, c);
            c += S::One::LANES;
        }
    }
    for c in c..d {
        for w in 0..W {
            for j in rows.clone() {
                let (a, b, sum) = (p[w * BLOCK + j], values[j * d + c].widen(), &mut sums[w * d + c]);
                *sum = if S::FUSED { a.mul_add(b, *sum) } else { a * b + *sum };
            }
        }
    }
}

/// The columns `c .. c + V::LANES` of [`value_tile`].
///
/// # Safety
/// As [`value_tile`], and `c + V::LANES <= d`.
#[inline(always)]
unsafe fn value_strip<V: Vector, T: KvValue, const W: usize>(
    p: &[f32],
    values: &[T],
    d: usize,
    rows: std::ops::Range<usize>,
    sums: &mut [f32],
    c: usize,
) {
    let (p, values, out) = (p.as_ptr(), values.as_ptr(), sums.as_mut_ptr());
    // SAFETY: the caller's duty.
    unsafe {
        let mut sums = [V::splat(0.0); W];
        for w in 0..W {
            sums[w] = V::load(out.add(w * d + c));
        }
        for j in rows {
            let value = T::load::<V>(values.add(j * d + c));
            for w in 0..W {
                sums[w] = V::splat(*p.add(w * BLOCK + j)).mul_add(value, sums[w]);
            }
        }
        for w in 0..W {
            sums[w].store(out.add(w * d + c));
        }
    }
}

/// Rows of keys and values of one head, to be stored at consecutive positions of a block.
pub struct Rows<'a> {
    /// Values of a key or value.
    pub head_dim: usize,
    /// Position in the block of the first row.
    pub offset: usize,
    /// Rows.
    pub n: usize,
    /// Key `i`: `k[i * stride..][..head_dim]`.
    pub k: &'a [f32],
    /// Value `i`: `v[i * stride..][..head_dim]`.
    pub v: &'a [f32],
    /// See `k` and `v`.
    pub stride: usize,
}

struct Store<'a, 'b, T> {
    head: HeadBlockMut<'a, T>,
    rows: Rows<'b>,
}

per_isa!(run_store = store_body(Store<'_, '_, T>));

/// Stores `rows` in a block. With its last position the block is full and gets its bound, which is a function of what
/// is stored in it, however it came there.
///
/// # Panics
/// When a slice is too short.
pub fn store<T: KvValue>(isa: Isa, head: HeadBlockMut<'_, T>, rows: Rows<'_>) {
    run_store(isa, Store { head, rows });
}

/// # Safety
/// The CPU has the features of `S`.
#[inline(always)]
unsafe fn store_body<S: Simd, T: KvValue>(job: Store<'_, '_, T>) {
    let Store { head, rows } = job;
    let Rows { head_dim: d, offset, n, k, v, stride } = rows;
    assert!(head.keys.len() == BLOCK * d && head.values.len() == BLOCK * d && offset + n <= BLOCK);
    let mut piece = [T::zeroed(); BLOCK];
    for i in 0..n {
        let (k, v, at) = (&k[i * stride..][..d], &v[i * stride..][..d], offset + i);
        let (k_scale, v_scale) = (T::scale(k), T::scale(v));
        if T::SCALED {
            head.key_scales[at] = k_scale;
            head.value_scales[at] = v_scale;
        }
        for (k, keys) in k.chunks(BLOCK).zip(head.keys.chunks_mut(BLOCK * BLOCK)) {
            let piece = &mut piece[..k.len()];
            // SAFETY: the caller vouches for the features.
            unsafe { T::encode::<S>(k, k_scale, piece) };
            for (key, &x) in keys.chunks_exact_mut(BLOCK).zip(&*piece) {
                key[at] = x;
            }
        }
        // SAFETY: the caller vouches for the features.
        unsafe { T::encode::<S>(v, v_scale, &mut head.values[at * d..][..d]) };
    }
    if n > 0 && offset + n == BLOCK {
        *head.bound = longest(head.keys, head.key_scales, head.values, head.value_scales);
    }
}

/// The bound of a full block, see [`HeadBlock::bound`].
#[inline(always)]
fn longest<T: KvValue>(keys: &[T], key_scales: &[f32], values: &[T], value_scales: &[f32]) -> f32 {
    let mut squares = [0.0f32; BLOCK];
    for row in keys.as_chunks::<BLOCK>().0 {
        for j in 0..BLOCK {
            squares[j] += row[j].widen() * row[j].widen();
        }
    }
    // 0 as long as all is finite, then NaN.
    let mut odd = [0.0f32; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for x in chunks {
        for l in 0..LANES {
            odd[l] += x[l].widen() * 0.0;
        }
    }
    let odd = odd.iter().sum::<f32>()
        + rest.iter().map(|x| x.widen() * 0.0).sum::<f32>()
        + value_scales.iter().map(|x| x * 0.0).sum::<f32>();
    let n = keys.len() / BLOCK;
    let mut max = 0.0f32;
    for j in 0..BLOCK {
        let scale = if T::SCALED { key_scales[j] } else { 1.0 };
        let length = at_least(squares[j], n) * scale;
        // Not `f32::max`, which passes over NaN.
        max = if length <= max { max } else { length };
        if !(max + odd).is_finite() {
            return f32::INFINITY;
        }
    }
    max
}

#[cfg(test)]
mod tests;
