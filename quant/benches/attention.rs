#![allow(clippy::print_stdout)] // what it is for

//! Attention over a cache of the 7B1 shape (32 heads of 128): GMAC/s of a prompt, GB/s of one token at depth
//! 2048.
//!
//!     cargo bench -p huozi-quant --bench attention -- [THREADS]
//!
//! MACs are those of the causal triangle, bytes those of keys and values at all earlier positions, blocks
//! that ALiBi rules out included; "all read" has blocks that no slope rules out. Medians; the layers' caches
//! lie apart.

use huozi_quant::attention::{
    HeadBlock, HeadBlockMut, KvValue, Queries, Rows, alibi_slopes, attend, group, store,
};
use huozi_quant::formats::F16;
use huozi_quant::kernels::Isa;
use huozi_quant::kv::BLOCK;
use huozi_quant::random::Random;
use huozi_quant::team::{Crew, Team};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

const D: usize = 128;
const HEADS: usize = 32;
const EMBD: usize = D * HEADS;
const DEPTH: usize = 2048;
const LAYERS: usize = 8;

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

    /// Queries at `position ..` of one layer, in micro-batches of 512.
    fn run(
        &self,
        crew: &Crew<'_>,
        isa: Isa,
        (layer, position): (usize, usize),
        qkv: &[f32],
        all: bool,
        out: &mut [f32],
    ) {
        let slopes = alibi_slopes(HEADS);
        let n = out.len() / EMBD;
        for first in (0..n).step_by(512) {
            let (mut groups, end) = (Vec::new(), n.min(first + 512));
            let mut c = first;
            while c < end {
                let len = group(D, position + c + 1).min(end - c);
                groups.push(c - first..c - first + len);
                c += len;
            }
            crew.grid(&mut out[first * EMBD..end * EMBD], EMBD, D, &groups, |g, column, mut tile| {
                let (at, head) = (first + groups[g].start, column / D);
                let queries = Queries {
                    head_dim: D,
                    slope: slopes[head],
                    position: position + at,
                    n: tile.rows(),
                    q: &qkv[(position + at) * 3 * EMBD + column..],
                    stride: 3 * EMBD,
                    blocks: &|b| {
                        let block = self.head(layer, b, head);
                        HeadBlock { bound: if all { f32::INFINITY } else { block.bound }, ..block }
                    },
                };
                attend(isa, &queries, &mut |i, values| tile.row(i).copy_from_slice(values));
            });
        }
    }
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

fn bench<T: KvValue>(team: &Team, isa: Isa, qkv: &[f32]) {
    let cache = Cache::<T>::new(isa, qkv);
    team.enter(&AtomicBool::new(false), |crew| {
        let mut out = vec![0.0f32; DEPTH * EMBD];
        for n in [512, DEPTH] {
            for all in [true, false] {
                let runs = if isa == Isa::SCALAR { 1 } else { 5 };
                let seconds = (0..runs)
                    .map(|i| {
                        let began = Instant::now();
                        cache.run(crew, isa, (i % LAYERS, 0), qkv, all, &mut out[..n * EMBD]);
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
            let position = DEPTH - 1;
            let seconds = (0..15)
                .map(|_| {
                    let began = Instant::now();
                    for layer in 0..LAYERS {
                        cache.run(crew, isa, (layer, position), qkv, all, &mut out[..EMBD]);
                    }
                    began.elapsed().as_secs_f64() / LAYERS as f64
                })
                .collect();
            let seconds = median(seconds);
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
    });
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
