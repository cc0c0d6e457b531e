#![allow(clippy::print_stdout)] // what it is for

//! Products with rows of 4096 weights, every cell of the kernels table: one column as a token is generated, 5
//! as drafts are verified, 16 and 32 as several sequences are, 510 as a prompt is read, in both arithmetics.
//!
//!     cargo bench -p huozi-quant --bench matmul -- [THREADS] [FORMAT...]
//!
//! GB/s are bytes of weights, GMAC/s multiply-adds. Behind a slash: of rows that fit the second-level cache,
//! what the arithmetic could do were memory free. Best of some runs; the floors of the machine stand above.
//! Every result is compared with the portable code: integer formats to the bit.

use huozi_quant::bloom::synth::RandomPage;
use huozi_quant::buffer::Buffer;
use huozi_quant::floor;
use huozi_quant::formats::{Activation, Format};
use huozi_quant::kernels::Isa;
use huozi_quant::map::Bytes;
use huozi_quant::matmul::{Activations, Arithmetic, QMatrix, Step, matmul};
use huozi_quant::random::Random;
use huozi_quant::team::Team;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

const K: usize = 4096;
/// Bytes of a matrix that memory is read for.
const LARGE: usize = 256 << 20;
/// Bytes of one that stays in a second-level cache.
const SMALL: usize = 512 << 10;
/// How long one cell is measured.
const TIME: Duration = Duration::from_millis(200);

/// Columns of the narrow arithmetic.
const NARROW: [usize; 6] = [1, 2, 5, 8, 16, 32];
/// Columns of a prompt.
const PROMPT: usize = 510;

fn matrix(format: Format, bytes: usize) -> QMatrix {
    let row = format.row_bytes(K).expect("whole blocks");
    let rows = (bytes / row).next_multiple_of(64);
    let mut data = vec![0; rows * row];
    RandomPage::new(format, 0.0, 1.0 / 64.0, 1).fill(1, 0, &mut data);
    QMatrix::new(format, rows, K, Bytes::from(data)).expect("whole rows")
}

/// Seconds of the best run, and the outputs of the last.
fn run(
    team: &Team,
    isa: Isa,
    w: &QMatrix,
    x: &[f32],
    arithmetic: Arithmetic,
    time: Duration,
) -> (f64, Vec<f32>) {
    let m = x.len() / K;
    let mut y = Buffer::zeroed(m * w.rows());
    let mut a = Activations::default();
    let best = team.enter(&AtomicBool::new(false), |crew| {
        let step = Step { crew, isa, arithmetic };
        a.fill(step, w.format(), (m, K), |i, row| row.copy_from_slice(&x[i * K..][..K]));
        let (mut best, began) = (f64::INFINITY, Instant::now());
        loop {
            let start = Instant::now();
            matmul(step, w, &a, &mut y, |_, _, _| {});
            best = best.min(start.elapsed().as_secs_f64());
            if began.elapsed() >= time {
                return best;
            }
        }
    });
    (best, y.to_vec())
}

/// The first row of outputs against the portable code.
fn check(team: &Team, isa: Isa, w: &QMatrix, x: &[f32], arithmetic: Arithmetic, y: &[f32]) {
    let (_, expected) = run(team, Isa::SCALAR, w, &x[..K], arithmetic, Duration::ZERO);
    let close = |a: f32, b: f32| match w.format().activation() {
        Activation::F32 => (a - b).abs() < 1e-4,
        _ => a.to_bits() == b.to_bits(),
    };
    let wrong = y[..w.rows()].iter().zip(&expected).position(|(&a, &b)| !close(a, b));
    assert_eq!(wrong, None, "{} on {isa}: an output is not the portable code's", w.format());
    assert!(expected.iter().any(|&y| y != 0.0), "{}: weights of zeros", w.format());
}

fn main() {
    // `cargo bench` adds `--bench`; `cargo test --benches` does not, and only checks that this builds and
    // starts.
    let args: Vec<String> = std::env::args().skip(1).collect();
    if !args.iter().any(|arg| arg == "--bench") {
        return;
    }
    let threads = args.iter().find_map(|arg| arg.parse().ok()).unwrap_or(2);
    let named: Vec<Format> = args.iter().filter_map(|arg| Format::from_name(arg)).collect();
    let team = Team::new(threads).expect("threads");
    let asked = std::env::var("HUOZI_ISA").is_ok();
    let isas = if asked { vec![Isa::from_env().expect("HUOZI_ISA")] } else { Isa::available() };
    let idle = AtomicBool::new(false);
    let mut bytes = vec![1u8; LARGE];
    RandomPage::new(Format::Q8_0, 0.0, 1.0, 1).fill(1, 0, &mut bytes[..LARGE / 34 * 34]);
    let read = floor::read(&team, isas[isas.len() - 1], &bytes, Duration::from_secs(5), &idle);
    drop(bytes);
    let (int8, f32) = (floor::int8_macs(&team, &idle), floor::f32_macs(&team, &idle));
    println!(
        "{threads} threads; memory {:.1} GB/s; {} {:.0}, {} {:.0} GMAC/s\n",
        read / 1e9,
        int8.how,
        int8.per_second / 1e9,
        f32.how,
        f32.per_second / 1e9
    );
    println!("| format | ISA | 1, GB/s | 2 | 5 | 8 | 16, GMAC/s | 32 | 510 | wide |");
    println!("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    let mut random = Random::new(1);
    let x: Vec<f32> = (0..PROMPT * K).map(|_| random.normal()).collect();
    for &format in Format::ALL.iter().filter(|f| named.is_empty() || named.contains(f)) {
        let [large, small, prompt] = [LARGE, SMALL, LARGE / 64].map(|bytes| matrix(format, bytes));
        for &isa in isas.iter().filter(|&&isa| asked || isa != Isa::SCALAR) {
            let rate = |w: &QMatrix, m: usize, arithmetic: Arithmetic| {
                let x = &x[..m * K];
                let (seconds, y) = run(&team, isa, w, x, arithmetic, TIME);
                check(&team, isa, w, x, arithmetic, &y);
                let amount = if m < 16 { w.bytes() } else { m * w.rows() * K };
                amount as f64 / seconds / 1e9
            };
            let mut line = format!("| {format} | {isa} |");
            for m in NARROW {
                let both = [&large, &small].map(|w| rate(w, m, Arithmetic::Narrow));
                line.push_str(&format!(" {:.1} / {:.1} |", both[0], both[1]));
            }
            for arithmetic in [Arithmetic::Narrow, Arithmetic::Wide] {
                line.push_str(&format!(" {:.0} |", rate(&prompt, PROMPT, arithmetic)));
            }
            println!("{line}");
        }
    }
}
