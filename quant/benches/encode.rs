#![allow(clippy::print_stdout)] // what it is for

//! The encoders on one thread: millions of weights a second into each format, without and with importance.
//!
//!     cargo bench -p huozi-quant --bench encode -- [FORMAT ...]
//!
//! Rows of 4096 close to normal, medians. The bytes of every ISA are compared with the scalar encoder's.

use huozi_quant::Format;
use huozi_quant::encode::encode_rows;
use huozi_quant::kernels::Isa;
use huozi_quant::random::Random;
use std::time::Instant;

const COLS: usize = 4096;
const ROWS: usize = 16;

fn values(n: usize, seed: u32) -> Vec<f32> {
    let mut random = Random::new(seed.into());
    (0..n).map(|_| random.normal() * 0.02).collect()
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

fn main() {
    // `cargo bench` adds `--bench`; `cargo test --benches` does not, and only checks that this builds and
    // starts.
    let args: Vec<String> = std::env::args().skip(1).collect();
    if !args.iter().any(|arg| arg == "--bench") {
        return;
    }
    let mut formats: Vec<Format> = args.iter().filter_map(|arg| Format::from_name(arg)).collect();
    if formats.is_empty() {
        formats = Format::ALL.to_vec();
    }
    let asked = std::env::var("HUOZI_ISA").is_ok();
    let isas = if asked { vec![Isa::from_env().expect("HUOZI_ISA")] } else { Isa::available() };
    let x = values(ROWS * COLS, 1);
    let importance: Vec<f32> = values(COLS, 2).iter().map(|v| v * v).collect();
    println!("million weights a second: plain, with importance");
    for format in formats {
        let mut out = vec![0; ROWS * format.row_bytes(COLS).expect("whole blocks")];
        let mut run = |isa: Isa, importance: Option<&[f32]>, runs: usize| {
            let seconds = (0..runs)
                .map(|_| {
                    let began = Instant::now();
                    encode_rows(isa, format, &x, COLS, importance, &mut out);
                    began.elapsed().as_secs_f64()
                })
                .collect();
            (out.clone(), (ROWS * COLS) as f64 / median(seconds) / 1e6)
        };
        let scalar = [None, Some(&importance[..])].map(|p| run(Isa::SCALAR, p, 1).0);
        for &isa in &isas {
            let runs = if isa == Isa::SCALAR { 3 } else { 9 };
            let plain = run(isa, None, runs);
            let weighted = run(isa, Some(&importance), runs);
            assert!(plain.0 == scalar[0] && weighted.0 == scalar[1], "{format}: other bytes with {isa}");
            println!("{:7} {:11} {:9.2} {:9.2}", format.name(), isa.name(), plain.1, weighted.1);
        }
    }
}
