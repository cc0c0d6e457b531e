use super::head::{TILE, seen};
use super::*;
use crate::formats::F16;
use crate::kernels::unit::Unit;
use crate::kernels::vector::Vector;
use crate::kernels::{Isa, with_vectors};
use crate::kv::BLOCK;
use crate::random::Random;
use std::cell::Cell;

#[test]
fn slopes_on_and_off_the_power_of_two() {
    assert_eq!(alibi_slopes(4), [0.25, 0.0625, 0.015625, 0.00390625]);
    // p = 4: the four of 4 heads, then 2^-1 and 2^-3 from the series of 8.
    assert_eq!(alibi_slopes(6), [0.25, 0.0625, 0.015625, 0.00390625, 0.5, 0.125]);
    assert_eq!(alibi_slopes(1), [0.00390625]);
    assert!((alibi_slopes(32)[0] - 0.840_896_4).abs() < 1e-7);
}

fn values(n: usize, seed: u32) -> Vec<f32> {
    let mut random = Random::new(seed.into());
    (0..n).map(|_| random.signed_unit()).collect()
}

/// One head's cache.
struct Cache<T> {
    d: usize,
    keys: Vec<T>,
    values: Vec<T>,
    key_scales: Vec<f32>,
    value_scales: Vec<f32>,
    bounds: Vec<f32>,
}

impl<T: KvValue> Cache<T> {
    fn new(d: usize, positions: usize) -> Self {
        let n = positions.div_ceil(BLOCK);
        let scales = if T::SCALED { n * BLOCK } else { 0 };
        // The old content must not matter: every byte is all ones, NaN in the float types.
        let mut junk = vec![T::zeroed(); n * BLOCK * d];
        bytemuck::cast_slice_mut::<T, u8>(&mut junk).fill(0xff);
        Self {
            d,
            keys: junk.clone(),
            values: junk,
            key_scales: vec![f32::NAN; scales],
            value_scales: vec![f32::NAN; scales],
            bounds: vec![f32::NAN; n],
        }
    }

    fn block(&self, b: usize) -> HeadBlock<'_, T> {
        let (len, scales) = (BLOCK * self.d, if T::SCALED { BLOCK } else { 0 });
        HeadBlock {
            keys: &self.keys[b * len..][..len],
            values: &self.values[b * len..][..len],
            key_scales: &self.key_scales[b * scales..][..scales],
            value_scales: &self.value_scales[b * scales..][..scales],
            bound: self.bounds[b],
        }
    }

    /// Appends `(n, d)` keys and values from `position` on, in pieces of `chunk`.
    fn store(&mut self, isa: Isa, position: usize, k: &[f32], v: &[f32], chunk: usize) {
        let (d, n) = (self.d, k.len() / self.d);
        let (len, scales) = (BLOCK * d, if T::SCALED { BLOCK } else { 0 });
        let mut i = 0;
        while i < n {
            let (b, offset) = ((position + i) / BLOCK, (position + i) % BLOCK);
            let m = chunk.min(n - i).min(BLOCK - offset);
            let head = HeadBlockMut {
                keys: &mut self.keys[b * len..][..len],
                values: &mut self.values[b * len..][..len],
                key_scales: &mut self.key_scales[b * scales..][..scales],
                value_scales: &mut self.value_scales[b * scales..][..scales],
                bound: &mut self.bounds[b],
            };
            store(isa, head, Rows { head_dim: d, offset, n: m, k: &k[i * d..], v: &v[i * d..], stride: d });
            i += m;
        }
    }

    /// Key and value of a position as stored.
    fn row(&self, j: usize) -> (Vec<f64>, Vec<f64>) {
        let (block, at, d) = (self.block(j / BLOCK), j % BLOCK, self.d);
        let scale = |s: &[f32]| if T::SCALED { f64::from(s[at]) } else { 1.0 };
        let (k, v) = (scale(block.key_scales), scale(block.value_scales));
        (
            (0..d).map(|i| f64::from(block.keys[i * BLOCK + at].widen()) * k).collect(),
            (0..d).map(|i| f64::from(block.values[at * d + i].widen()) * v).collect(),
        )
    }

    /// The results of `n` queries from `position` on, `(n, d)`; `all`: no block is passed over.
    fn attend(&self, isa: Isa, slope: f32, position: usize, q: &[f32], all: bool) -> Vec<f32> {
        let table: Vec<usize> = (0..self.bounds.len()).collect();
        let places: Vec<_> = (position..position + q.len() / self.d)
            .map(|position| QueryPlace { position, blocks: &table })
            .collect();
        self.attend_at(isa, slope, &places, q, all).0
    }

    /// The results of queries `(n, d)` at `places`, and how often each block was looked up.
    fn attend_at(
        &self,
        isa: Isa,
        slope: f32,
        places: &[QueryPlace<'_>],
        q: &[f32],
        all: bool,
    ) -> (Vec<f32>, Vec<usize>) {
        let d = self.d;
        let looked_up = vec![Cell::new(0); self.bounds.len()];
        let block = |id: usize| {
            looked_up[id].set(looked_up[id].get() + 1);
            let block = self.block(id);
            HeadBlock { bound: if all { f32::INFINITY } else { block.bound }, ..block }
        };
        let queries = Queries { head_dim: d, slope, places, q, stride: d, block: &block };
        let mut out = Vec::new();
        attend(isa, &queries, &mut |i, row| {
            assert_eq!(i * d, out.len());
            out.extend_from_slice(row);
        });
        assert_eq!(out.len(), q.len());
        (out, looked_up.into_iter().map(Cell::into_inner).collect())
    }

    fn exact(&self, slope: f32, position: usize, q: &[f32]) -> Vec<f64> {
        let rows: Vec<_> = (0..=position).map(|j| self.row(j)).collect();
        let scores: Vec<f64> = rows
            .iter()
            .enumerate()
            .map(|(j, (k, _))| {
                let dot: f64 = q.iter().zip(k).map(|(q, k)| f64::from(*q) * k).sum();
                dot / (self.d as f64).sqrt() - f64::from(slope) * (position - j) as f64
            })
            .collect();
        let max = scores.iter().copied().fold(f64::MIN, f64::max);
        let p: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
        let sum: f64 = p.iter().sum();
        (0..self.d).map(|i| rows.iter().zip(&p).map(|((_, v), p)| p * v[i]).sum::<f64>() / sum).collect()
    }
}

fn filled<T: KvValue>(d: usize, n: usize, gain: f32) -> (Cache<T>, Vec<f32>) {
    let scaled = |seed| values(n * d, seed).iter().map(|x| x * gain).collect::<Vec<_>>();
    let mut cache = Cache::new(d, n);
    cache.store(Isa::SCALAR, 0, &scaled(2), &values(n * d, 3), n);
    (cache, scaled(1))
}

fn is_close_to_f64<T: KvValue>() {
    let mut worst = 0.0f64;
    for (d, n) in [(1, 70), (8, 130), (16, 65), (24, 200), (64, 129), (80, 200), (128, 300)] {
        for slope in [0.84, 0.25, 0.0039] {
            // Of keys and queries three times as long, a few keys have most of the weight.
            let (cache, q) = filled::<T>(d, n, 3.0);
            for isa in Isa::all() {
                let out = cache.attend(isa, slope, 0, &q, false);
                for position in [0, 1, 2, 62, 63, 64, 65, n - 1].into_iter().filter(|&p| p < n) {
                    let at = position * d..(position + 1) * d;
                    let exact = cache.exact(slope, position, &q[at.clone()]);
                    for (got, exact) in out[at].iter().zip(exact) {
                        let off = (f64::from(*got) - exact).abs();
                        worst = worst.max(off);
                        // Values are below 1; scores up to some 30 carry errors of a few 2^-24 of themselves.
                        assert!(off < 1e-5, "{:?} {isa} d {d} at {position}: {got} {exact}", T::TYPE);
                    }
                }
            }
        }
    }
    eprintln!("{:?} on {:?}: off by {worst:.2e} at most", T::TYPE, Isa::all());
}

#[test]
fn every_isa_and_type_is_close_to_softmax_in_f64() {
    is_close_to_f64::<f32>();
    is_close_to_f64::<F16>();
    is_close_to_f64::<i8>();
}

fn has_the_same_bits_beside_others<T: KvValue>() {
    for (d, n) in [(16, 150), (80, 200), (128, 330)] {
        let (cache, q) = filled::<T>(d, n, 2.0);
        for slope in [0.7, 0.02] {
            let mut fused = None;
            for isa in Isa::all() {
                let all = cache.attend(isa, slope, 0, &q, false);
                for piece in [1, 2, 5, 7, 48, 64] {
                    let pieces: Vec<f32> = (0..n)
                        .step_by(piece)
                        .flat_map(|i| {
                            let q = &q[i * d..(i + piece).min(n) * d];
                            cache.attend(isa, slope, i, q, false)
                        })
                        .collect();
                    assert!(pieces == all, "{:?} {isa} d {d}: by {piece}", T::TYPE);
                }
                if with_vectors!(isa, U => <<U as Unit>::V as Vector>::FUSED) {
                    assert_eq!(*fused.get_or_insert(all.clone()), all, "{isa}: other bits");
                }
            }
        }
    }
}

#[test]
fn one_query_gets_the_bits_it_gets_among_many() {
    has_the_same_bits_beside_others::<f32>();
    has_the_same_bits_beside_others::<F16>();
    has_the_same_bits_beside_others::<i8>();
}

/// Sequences that are forks of each other, in one pool of blocks.
struct Forks<T> {
    cache: Cache<T>,
    taken: usize,
    /// Of each its table, its length, and how many of its positions are its own: the last ones.
    sequences: Vec<(Vec<usize>, usize, usize)>,
}

impl<T: KvValue> Forks<T> {
    fn new(d: usize, blocks: usize) -> Self {
        Self { cache: Cache::new(d, blocks * BLOCK), taken: 0, sequences: Vec::new() }
    }

    fn take(&mut self) -> usize {
        self.taken += 1;
        self.taken - 1
    }

    /// A new sequence: the first `len` positions of `source`, then `more` rows of its own.
    fn fork(&mut self, source: Option<usize>, len: usize, more: usize, random: &mut Random) {
        let d = self.cache.d;
        let mut table = source.map_or(Vec::new(), |s| self.sequences[s].0[..len.div_ceil(BLOCK)].to_vec());
        if !len.is_multiple_of(BLOCK) {
            let (from, to) = (table[len / BLOCK], self.take());
            let (len, scales) = (BLOCK * d, if T::SCALED { BLOCK } else { 0 });
            self.cache.keys.copy_within(from * len..(from + 1) * len, to * len);
            self.cache.values.copy_within(from * len..(from + 1) * len, to * len);
            self.cache.key_scales.copy_within(from * scales..(from + 1) * scales, to * scales);
            self.cache.value_scales.copy_within(from * scales..(from + 1) * scales, to * scales);
            self.cache.bounds[to] = self.cache.bounds[from];
            *table.last_mut().unwrap() = to;
        }
        for position in len..len + more {
            if position.is_multiple_of(BLOCK) {
                table.push(self.take());
            }
            let row = |random: &mut Random| (0..d).map(|_| 2.0 * random.signed_unit()).collect::<Vec<_>>();
            let (k, v) = (row(random), row(random));
            self.cache.store(Isa::SCALAR, table[position / BLOCK] * BLOCK + position % BLOCK, &k, &v, 1);
        }
        self.sequences.push((table, len + more, more));
    }
}

/// Queries of `n` sequences of a random tree, together and each alone: the same bits, and a block is looked
/// up for its bound, its keys and its values once, however many have it in common.
fn shares<T: KvValue>(d: usize, n: usize, seed: u64) {
    let random = &mut Random::new(seed);
    let mut below = |n: usize| random.below(n as u64) as usize;
    let mut forks = Forks::<T>::new(d, 8 * n);
    let rows = &mut Random::new(seed + 1);
    for i in 0..n {
        let source = (i > 0 && below(5) > 0).then(|| below(i));
        let len = source.map_or(0, |s| forks.sequences[s].1);
        let len = [len, below(len + 1), len - len % BLOCK][below(3)].min(300);
        forks.fork(source, len, 1 + below(140), rows);
    }
    forks.sequences.sort();
    // The last few positions of each: one as when text is generated, some as in a piece of a prompt.
    let mut places = Vec::new();
    for (blocks, len, own) in &forks.sequences {
        let last = [1, 1 + below(7), 1 + below(70)][below(3)].min(*own);
        places.extend((len - last..*len).map(|position| QueryPlace { position, blocks }));
    }
    let q: Vec<f32> = (0..places.len() * d).map(|_| 2.0 * rows.signed_unit()).collect();
    for isa in Isa::all() {
        for slope in [0.5, 0.05, 0.003] {
            let (together, looked_up) = forks.cache.attend_at(isa, slope, &places, &q, false);
            let most = looked_up.iter().max().unwrap();
            assert!(*most <= 3, "{isa} seed {seed}: a block was looked up {most} times");
            for (i, place) in places.iter().enumerate() {
                let at = i * d..(i + 1) * d;
                let place = std::slice::from_ref(place);
                let (alone, _) = forks.cache.attend_at(isa, slope, place, &q[at.clone()], false);
                assert!(
                    together[at] == alone,
                    "{:?} {isa} d {d} slope {slope} seed {seed}: query {i}",
                    T::TYPE
                );
            }
        }
    }
}

#[test]
fn sequences_that_share_blocks_read_them_once_and_keep_their_bits() {
    for seed in 0..4 {
        for (d, n) in [(8, 30), (16, 9), (64, 12), (80, 3), (128, 16)] {
            shares::<f32>(d, n, seed);
            shares::<F16>(d, n, seed);
            shares::<i8>(d, n, seed);
        }
    }
}

#[test]
fn queries_out_of_order_keep_their_bits() {
    let mut forks = Forks::<F16>::new(16, 40);
    let random = &mut Random::new(5);
    forks.fork(None, 0, 200, random);
    for len in [200, 130, 128, 64, 10] {
        forks.fork(Some(0), len, 70, random);
    }
    let order = [3, 0, 5, 1, 4, 2, 0, 3];
    let place = |&s: &usize| {
        let (blocks, len, _) = &forks.sequences[s];
        QueryPlace { position: len - 1 - s, blocks }
    };
    let places: Vec<_> = order.iter().map(place).collect();
    let q = values(order.len() * 16, 8);
    let (together, _) = forks.cache.attend_at(Isa::SCALAR, 0.01, &places, &q, false);
    for (i, place) in places.iter().enumerate() {
        let at = i * 16..(i + 1) * 16;
        let alone = forks.cache.attend_at(Isa::SCALAR, 0.01, &[*place], &q[at.clone()], false).0;
        assert_eq!(together[at], alone, "query {i}");
    }
}

fn stores_alike<T: KvValue>() {
    let (d, n) = (80, 200);
    let (k, v) = (values(n * d, 5), values(n * d, 6));
    let mut whole = Cache::<T>::new(d, n);
    whole.store(Isa::SCALAR, 0, &k, &v, n);
    for isa in Isa::all() {
        for chunk in [1, 7, 64] {
            let mut pieces = Cache::<T>::new(d, n);
            // Larger ones first, cut off at 100 and written anew: nothing of them stays.
            let large: Vec<f32> = k.iter().map(|x| x * 9.0).collect();
            pieces.store(isa, 0, &k[..100 * d], &v[..100 * d], chunk);
            pieces.store(isa, 100, &large[100 * d..], &v[100 * d..], chunk);
            pieces.store(isa, 100, &k[100 * d..], &v[100 * d..], chunk);
            for b in 0..n.div_ceil(BLOCK) {
                let (x, y) = (whole.block(b), pieces.block(b));
                let seen = seen(n - 1, b);
                for row in 0..d {
                    let at = row * BLOCK..row * BLOCK + seen;
                    assert!(
                        bytemuck::cast_slice::<T, u8>(&x.keys[at.clone()])
                            == bytemuck::cast_slice::<T, u8>(&y.keys[at])
                    );
                }
                let at = ..seen * d;
                assert!(
                    bytemuck::cast_slice::<T, u8>(&x.values[at])
                        == bytemuck::cast_slice::<T, u8>(&y.values[at])
                );
                if T::SCALED {
                    assert_eq!(x.key_scales[..seen], y.key_scales[..seen], "{isa}");
                    assert_eq!(x.value_scales[..seen], y.value_scales[..seen], "{isa}");
                }
                if seen == BLOCK {
                    assert_eq!(x.bound, y.bound, "{isa} by {chunk}");
                    for j in b * BLOCK..(b + 1) * BLOCK {
                        let length = whole.row(j).0.iter().map(|x| x * x).sum::<f64>().sqrt();
                        assert!(length <= f64::from(x.bound) && length > 0.1, "{length} {}", x.bound);
                    }
                }
            }
        }
    }
}

#[test]
fn what_is_stored_and_its_bound_depend_on_the_rows_alone() {
    stores_alike::<f32>();
    stores_alike::<F16>();
    stores_alike::<i8>();
}

fn passes_over_nothing_that_matters<T: KvValue>() {
    let (d, n) = (64, 1000);
    let mut fewer = 0;
    for gain in [0.5, 3.0, 8.0] {
        let (mut cache, q) = filled::<T>(d, n, gain);
        // One long key far back that beats its distance for the last query.
        let last = &q[(n - 1) * d..];
        let long: Vec<f32> = last.iter().map(|x| x * 40.0 / (gain * gain)).collect();
        let (_, v) = (0, values(d, 77));
        let rewritten: Vec<f32> = (0..BLOCK).flat_map(|_| long.iter().copied()).collect();
        let rows: Vec<f32> = (0..BLOCK).flat_map(|_| v.iter().copied()).collect();
        cache.store(Isa::SCALAR, 2 * BLOCK, &rewritten, &rows, BLOCK);
        for slope in [0.84, 0.2, 0.05] {
            for isa in Isa::all() {
                let all = cache.attend(isa, slope, 0, &q, true);
                let some = cache.attend(isa, slope, 0, &q, false);
                for (i, (a, b)) in all.iter().zip(&some).enumerate() {
                    // 2^-24 of the largest value, and the rounding of a sum begun elsewhere.
                    assert!((a - b).abs() <= 5e-7, "{:?} {isa} slope {slope} at {}: {a} {b}", T::TYPE, i / d);
                }
                fewer += usize::from(all != some);
            }
        }
        // Of a query that sees everything as in f64, whichever blocks are passed over.
        let exact = cache.exact(0.2, n - 1, last);
        let got = cache.attend(Isa::SCALAR, 0.2, n - 1, last, false);
        for (got, exact) in got.iter().zip(exact) {
            assert!((f64::from(*got) - exact).abs() < 1e-5, "{got} {exact}");
        }
    }
    assert!(fewer > 0, "nothing was passed over");
}

#[test]
fn far_blocks_are_passed_over_only_where_they_round_away() {
    passes_over_nothing_that_matters::<f32>();
    passes_over_nothing_that_matters::<F16>();
    passes_over_nothing_that_matters::<i8>();
}

fn keeps_bad_rows_to_those_that_see_them<T: KvValue>() {
    let (d, n, bad) = (16, 200, 70);
    let (good, q) = filled::<T>(d, n, 1.0);
    for (is_key, x) in [(true, f32::NAN), (false, f32::NAN), (true, f32::INFINITY), (false, f32::INFINITY)] {
        let (mut cache, _) = filled::<T>(d, n, 1.0);
        let mut rows = (values(d, 8), values(d, 9));
        if is_key {
            rows.0[3] = x
        } else {
            rows.1[3] = x
        }
        let (after_k, after_v) = (values(n * d, 2), values(n * d, 3));
        cache.store(Isa::SCALAR, bad, &rows.0, &rows.1, 1);
        // The rest of its block again, so that the block gets its bound.
        let rest = (bad + 1) * d..128 * d;
        cache.store(Isa::SCALAR, bad + 1, &after_k[rest.clone()], &after_v[rest], 64);
        assert_eq!(cache.bounds[1], f32::INFINITY);
        for isa in Isa::all() {
            for slope in [0.8, 0.01] {
                let (got, want) =
                    (cache.attend(isa, slope, 0, &q, false), good.attend(isa, slope, 0, &q, false));
                assert_eq!(got[..bad * d], want[..bad * d], "{isa}: {x} reached back");
                for i in bad..n {
                    let row = &got[i * d..][..d];
                    // An infinite key may also score minus infinity and drop out.
                    assert!(
                        row.iter().any(|x| !x.is_finite()) || is_key && x.is_infinite(),
                        "{isa}: {i} {row:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_row_that_is_not_finite_stays_with_those_that_see_it() {
    keeps_bad_rows_to_those_that_see_them::<f32>();
    keeps_bad_rows_to_those_that_see_them::<F16>();
    keeps_bad_rows_to_those_that_see_them::<i8>();
}

#[test]
fn groups_are_whole_tiles_of_bounded_work() {
    assert_eq!(group(128, 1), 48);
    assert_eq!(group(128, 2048), 48);
    assert_eq!(group(128, 4096), 24);
    assert_eq!(group(128, 1 << 20), 1);
    assert_eq!(group(1, usize::MAX), 1);
    for n_keys in [1, 100, 5000, 100_000, 10_000_000] {
        let n = group(80, n_keys);
        assert!(
            n == 1
                || n * n_keys * 160 <= super::attend::GROUP_MACS
                    && n * n_keys <= super::attend::GROUP_SCORES
                    && (n < TILE || n.is_multiple_of(TILE))
        );
    }
}
