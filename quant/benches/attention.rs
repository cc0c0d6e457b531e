#![allow(clippy::print_stdout)] // what it is for

//! Attention over a cache of the 7B1 shape (32 heads of 128): GMAC/s of a prompt, GB/s of one token at depth
//! 2048, and one token of each of 16 sequences that have their first 1024 positions in common and 64 of
//! their own, each in a claim of its own or all in one.
//!
//!     cargo bench -p huozi-quant --bench attention -- [THREADS]
//!
//! MACs are those of the causal triangle, bytes those of keys and values at all earlier positions, blocks
//! that ALiBi rules out included; "all read" has blocks that no slope rules out. Medians; the layers' caches
//! lie apart.

use huozi_quant::attention::{
    HeadBlock, HeadBlockMut, KvValue, Queries, QueryPlace, Rows, alibi_slopes, attend, group, store,
};
use huozi_quant::formats::F16;
use huozi_quant::kernels::Isa;
use huozi_quant::kv::BLOCK;
use huozi_quant::random::Random;
use huozi_quant::team::{Crew, Team};
use std::ops::Range;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

const D: usize = 128;
const HEADS: usize = 32;
const EMBD: usize = D * HEADS;
const DEPTH: usize = 2048;
const LAYERS: usize = 8;
/// Sequences with a common beginning, and its blocks.
const SEQUENCES: usize = 16;
const SHARED: usize = 16;

fn values(n: usize, seed: u32) -> Vec<f32> {
    let mut random = Random::new(seed.into());
    (0..n).map(|_| random.signed_unit()).collect()
}

/// `[layer][block][head]`.
struct Cache<T> {
    values: Vec<T>,
    scales: Vec<f32>,
    bounds: Vec<f32>,
}

impl<T: KvValue> Cache<T> {
    const LEN: usize = 2 * BLOCK * D;
    const SCALES: usize = if T::SCALED { 2 * BLOCK } else { 0 };

    fn new(isa: Isa, qkv: &[f32]) -> Self {
        let pieces = LAYERS * (DEPTH / BLOCK) * HEADS;
        let mut cache = Self {
            values: vec![T::zeroed(); pieces * Self::LEN],
            scales: vec![0.0; pieces * Self::SCALES],
            bounds: vec![0.0; pieces],
        };
        for i in 0..pieces {
            let (head, b) = (i % HEADS, i / HEADS % (DEPTH / BLOCK));
            let (keys, values) = cache.values[i * Self::LEN..][..Self::LEN].split_at_mut(Self::LEN / 2);
            let (key_scales, value_scales) =
                cache.scales[i * Self::SCALES..][..Self::SCALES].split_at_mut(Self::SCALES / 2);
            let k = &qkv[b * BLOCK * 3 * EMBD + EMBD + head * D..];
            let rows = Rows { head_dim: D, offset: 0, n: BLOCK, k, v: &k[EMBD..], stride: 3 * EMBD };
            let to = HeadBlockMut { keys, values, key_scales, value_scales, bound: &mut cache.bounds[i] };
            store(isa, to, rows);
        }
        cache
    }

    fn head(&self, layer: usize, b: usize, head: usize) -> HeadBlock<'_, T> {
        let i = (layer * (DEPTH / BLOCK) + b) * HEADS + head;
        let (keys, values) = self.values[i * Self::LEN..][..Self::LEN].split_at(Self::LEN / 2);
        let (key_scales, value_scales) =
            self.scales[i * Self::SCALES..][..Self::SCALES].split_at(Self::SCALES / 2);
        HeadBlock { keys, values, key_scales, value_scales, bound: self.bounds[i] }
    }

    /// Queries at `places` of one layer, whose rows of `qkv` begin at `first`, in claims of `groups` (ranges
    /// of `places`).
    fn attend(&self, crew: &Crew<'_>, at: &At<'_>, groups: &[Range<usize>], out: &mut [f32]) {
        let slopes = alibi_slopes(HEADS);
        crew.grid(out, EMBD, D, groups, |g, column, mut tile| {
            let (group, head) = (groups[g].clone(), column / D);
            let queries = Queries {
                head_dim: D,
                slope: slopes[head],
                q: &at.qkv[(at.first + group.start) * 3 * EMBD + column..],
                stride: 3 * EMBD,
                places: &at.places[group],
                block: &|id| {
                    let block = self.head(at.layer, id, head);
                    HeadBlock { bound: if at.all { f32::INFINITY } else { block.bound }, ..block }
                },
            };
            attend(at.isa, &queries, &mut |i, values| tile.row(i).copy_from_slice(values));
        });
    }

    /// Queries of one sequence at `at.places`, in micro-batches of 512.
    fn run(&self, crew: &Crew<'_>, at: At<'_>, out: &mut [f32]) {
        for first in (0..at.places.len()).step_by(512) {
            let places = &at.places[first..at.places.len().min(first + 512)];
            let (mut groups, mut c) = (Vec::new(), 0);
            while c < places.len() {
                let len = group(D, places[c].position + 1).min(places.len() - c);
                groups.push(c..c + len);
                c += len;
            }
            let out = &mut out[first * EMBD..][..places.len() * EMBD];
            self.attend(crew, &At { places, first: at.first + first, ..at }, &groups, out);
        }
    }
}

/// What queries there are.
#[derive(Clone, Copy)]
struct At<'a> {
    isa: Isa,
    layer: usize,
    places: &'a [QueryPlace<'a>],
    qkv: &'a [f32],
    first: usize,
    /// No block is passed over.
    all: bool,
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

fn bench<T: KvValue>(team: &Team, isa: Isa, qkv: &[f32]) {
    let cache = Cache::<T>::new(isa, qkv);
    let table: Vec<usize> = (0..DEPTH / BLOCK).collect();
    let places: Vec<_> = (0..DEPTH).map(|position| QueryPlace { position, blocks: &table }).collect();
    team.enter(&AtomicBool::new(false), |crew| {
        let mut out = vec![0.0f32; DEPTH * EMBD];
        for n in [512, DEPTH] {
            for all in [true, false] {
                let runs = if isa == Isa::SCALAR { 1 } else { 5 };
                let seconds = (0..runs)
                    .map(|i| {
                        let began = Instant::now();
                        let at = At { isa, layer: i % LAYERS, places: &places[..n], qkv, first: 0, all };
                        cache.run(crew, at, &mut out[..n * EMBD]);
                        began.elapsed().as_secs_f64()
                    })
                    .collect();
                let seconds = median(seconds);
                let macs = (HEADS * D) as f64 * (n * (n + 1)) as f64;
                println!(
                    "{isa:8} {:4} prompt of {n:4}{}: {:6.1} GMAC/s, {:7.2} ms a layer",
                    T::TYPE.name(),
                    if all { ", all read" } else { "          " },
                    macs / seconds / 1e9,
                    seconds * 1e3
                );
            }
        }
        assert!(
            out.iter().all(|x| x.abs() < 1.0) && out.iter().any(|&x| x != 0.0),
            "averages of values below 1"
        );
        for all in [true, false] {
            let (places, first) = (&places[DEPTH - 1..], DEPTH - 1);
            let seconds = per_layer(|layer| {
                cache.run(crew, At { isa, layer, places, qkv, first, all }, &mut out[..EMBD]);
            });
            let bytes = (2 * HEADS * DEPTH * T::TYPE.row_bytes(D)) as f64;
            println!(
                "{isa:8} {:4} token at {DEPTH}   {}: {:6.1} GB/s,   {:7.2} ms a layer, {:6.1} ms for 30",
                T::TYPE.name(),
                if all { ", all read" } else { "          " },
                bytes / seconds / 1e9,
                seconds * 1e3,
                30.0 * seconds * 1e3
            );
        }
        // Blocks of their own after the shared ones.
        let tables: Vec<Vec<usize>> =
            (0..SEQUENCES).map(|s| (0..SHARED).chain([SHARED + s]).collect()).collect();
        let position = SHARED * BLOCK + BLOCK - 1;
        let places: Vec<_> = tables.iter().map(|blocks| QueryPlace { position, blocks }).collect();
        let apart: Vec<_> = (0..SEQUENCES).map(|s| s..s + 1).collect();
        let together: Vec<_> = std::iter::once(0..SEQUENCES).collect();
        for all in [true, false] {
            for (name, groups) in [("apart   ", &apart[..]), ("together", &together[..])] {
                let out = &mut out[..SEQUENCES * EMBD];
                let seconds = per_layer(|layer| {
                    cache.attend(crew, &At { isa, layer, places: &places, qkv, first: 0, all }, groups, out);
                });
                let macs = (2 * SEQUENCES * HEADS * D * (position + 1)) as f64;
                println!(
                    "{isa:8} {:4} 16 of 1024 + 64 {name}{}: {:6.1} GMAC/s, {:7.2} ms a layer",
                    T::TYPE.name(),
                    if all { ", all read" } else { "          " },
                    macs / seconds / 1e9,
                    seconds * 1e3
                );
            }
        }
    });
}

/// Seconds for a layer, over all layers in turn: the median of 15 rounds.
fn per_layer(mut layer: impl FnMut(usize)) -> f64 {
    let round = |_| {
        let began = Instant::now();
        (0..LAYERS).for_each(&mut layer);
        began.elapsed().as_secs_f64() / LAYERS as f64
    };
    median((0..15).map(round).collect())
}

fn main() {
    // `cargo bench` adds `--bench`; `cargo test --benches` does not, and only checks that this builds and
    // starts.
    let args: Vec<String> = std::env::args().skip(1).collect();
    if !args.iter().any(|arg| arg == "--bench") {
        return;
    }
    let threads = args.iter().find_map(|arg| arg.parse().ok()).unwrap_or(2);
    let team = Team::new(threads).expect("threads");
    let asked = std::env::var("HUOZI_ISA").is_ok();
    let isas = if asked { vec![Isa::from_env().expect("HUOZI_ISA")] } else { Isa::available() };
    let qkv = values(DEPTH * 3 * EMBD, 1);
    println!("{threads} threads");
    for isa in isas {
        bench::<F16>(&team, isa, &qkv);
        bench::<i8>(&team, isa, &qkv);
        bench::<f32>(&team, isa, &qkv);
    }
}
