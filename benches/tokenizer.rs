#![allow(clippy::print_stdout)] // what it is for

//! Text to ids and back: MB/s and tokens/s on one thread, and how long a vocabulary takes to load.
//!
//!     cargo bench --bench tokenizer
//!
//! Two vocabularies: the embedded model's with the poems it was trained on, and one of full size (250,880
//! tokens over the letters a to z, see `huozi_quant::bloom::synth`) with random words. Best of some runs.
//! That the text comes back is asserted.

use huozi_quant::bloom::plan::Preset;
use huozi_quant::bloom::shape::Shape;
use huozi_quant::bloom::synth::RandomModel;
use huozi_quant::gguf::Reader;
use huozi_quant::map::How;
use huozi_quant::random::Random;
use huozi_token::{Specials, Tokenizer};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// How long one thing is measured.
const TIME: Duration = Duration::from_millis(500);

/// Seconds of the best of the runs that fit [`TIME`], and what the last gave.
fn best<T>(mut work: impl FnMut() -> T) -> (f64, T) {
    let (mut best, began) = (f64::INFINITY, Instant::now());
    loop {
        let start = Instant::now();
        let result = work();
        best = best.min(start.elapsed().as_secs_f64());
        if began.elapsed() >= TIME {
            return (best, result);
        }
    }
}

fn bench(name: &str, file: &Path, text: &str) {
    let reader = Reader::open(file, How::Map).expect("a model file");
    let (load, tokenizer) = best(|| Tokenizer::from_gguf(reader.meta()).expect("a vocabulary"));
    let (encode, ids) = best(|| tokenizer.encode(text, Specials::Plain));
    let (decode, back) = best(|| tokenizer.decode(&ids, false));
    assert_eq!(back, text, "{name}: the text comes back");
    let (bytes, tokens) = (text.len() as f64 / 1e6, ids.len() as f64 / 1e6);
    println!(
        "| {name} | {} | {:.0} | {:.1} | {:.2} | {:.1} |",
        tokenizer.vocab().n_vocab(),
        load * 1e3,
        bytes / encode,
        tokens / encode,
        bytes / decode
    );
}

fn main() {
    // `cargo bench` adds `--bench`; `cargo test --benches` does not, and only checks that this builds and
    // starts.
    if !std::env::args().any(|arg| arg == "--bench") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let cancel = AtomicBool::new(false);
    println!("| text | vocabulary | load, ms | encode, MB/s | million tokens/s | decode, MB/s |");
    println!("| --- | ---: | ---: | ---: | ---: | ---: |");

    let demo = huozi::demo::prepare(Some(folder.path()), &(), &cancel).expect("the embedded model");
    let poems = include_str!("../tests/fixtures/nano-sampled.txt");
    bench("Chinese poems", &demo.path, &poems.repeat(16));

    let (file, shape) = (folder.path().join("full.gguf"), Shape::from_sizes("1x32x1").expect("sizes"));
    let model = RandomModel { shape, preset: Preset::F16, seed: 1, name: "vocabulary".into() };
    model.write(&file, &cancel, &|_, _| {}).expect("a file");
    let mut random = Random::new(1);
    let mut words = String::new();
    while words.len() < 1 << 20 {
        for _ in 0..2 + random.below(8) {
            words.push(char::from(b'a' + random.below(26) as u8));
        }
        words.push(' ');
    }
    bench("random words", &file, &words);
}
