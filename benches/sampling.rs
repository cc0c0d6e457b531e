#![allow(clippy::print_stdout)] // prints a table

//! Milliseconds to sample a step's rows: 16 rows of 250,880 logits, by one thread and shared among a team.
//!
//!     cargo bench --bench sampling [-- THREADS]
//!
//! The logits are random: a normal distribution with deviation 3, near that of a model. Best of 25 runs. That
//! both ways draw the same tokens is asserted.

use huozi::engine::default_threads;
use huozi::sample::{Sampler, SamplerPool, Sampling};
use huozi_quant::random::Random;
use huozi_quant::team::Team;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Instant;

const ROWS: usize = 16;
const N_VOCAB: usize = 250_880;
const RUNS: usize = 25;

/// Milliseconds of `work`: the best of all runs.
fn best(mut work: impl FnMut()) -> f64 {
    let runs: Vec<f64> = (0..RUNS)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    runs.into_iter().fold(f64::INFINITY, f64::min)
}

fn main() {
    let typed = std::env::args().skip(1).find_map(|arg| arg.parse().ok());
    let team = Team::new(typed.unwrap_or_else(default_threads)).expect("threads");
    let mut random = Random::new(1);
    let logits: Vec<f32> = (0..ROWS * N_VOCAB).map(|_| 3.0 * random.normal()).collect();
    let seen: Vec<u32> = (0..1000).map(|i| i * 241).collect();
    let never: Arc<[bool]> = vec![false; N_VOCAB].into();
    println!("| settings | one thread, ms | {} threads, ms |", team.threads());
    println!("|---|---|---|");
    let default = Sampling::default();
    for (name, settings) in [
        ("default (temperature 0.5, top_k 50, top_p 0.95, penalty 1.03)", default),
        ("temperature 1, top_p 0.95 alone", Sampling { temperature: 1.0, top_k: 0, ..default }),
        (
            "temperature 1, nothing else",
            Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, repetition_penalty: 1.0, ..default },
        ),
        ("greedy", Sampling { do_sample: false, ..default }),
    ] {
        let mut sampler = Sampler::new(never.clone());
        let mut expected = [0; ROWS];
        let one = best(|| {
            for (i, row) in logits.chunks_exact(N_VOCAB).enumerate() {
                expected[i] = sampler.sample(row, &seen, &settings, i as u64, 1001).expect("a token");
            }
        });
        let samplers = SamplerPool::new(never.clone());
        let drawn: Vec<AtomicU32> = (0..ROWS).map(|_| AtomicU32::new(0)).collect();
        let shared = best(|| {
            team.enter(&AtomicBool::new(false), |crew| {
                crew.each(ROWS, |i| {
                    let row = &logits[i * N_VOCAB..][..N_VOCAB];
                    let token = samplers.sample(row, &seen, &settings, i as u64, 1001).expect("a token");
                    drawn[i].store(token, Ordering::Relaxed);
                });
            });
        });
        let drawn: Vec<u32> = drawn.into_iter().map(AtomicU32::into_inner).collect();
        assert_eq!(drawn, expected, "{name}: the same tokens");
        println!("| {name} | {one:.1} | {shared:.1} |");
    }
}
