//! Damaged copies of whole model files, converted: each ends in a file or an error, within 10 seconds and 1
//! GiB.
//!
//! `HUOZI_DAMAGED=5000` makes as many copies of each kind. In a binary of its own: it watches the process's
//! memory.

mod hostile_support;

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};

use hostile_support::damage::{Watch, count, damage};
use huozi_convert::ErrorKind;
use huozi_convert::pipeline::run;
use huozi_convert::plan::Preset;
use huozi_convert::synth::{CheckpointLayout, CheckpointRecipe};
use huozi_convert::{Options, Source};
use huozi_quant::bloom::shape::Shape;
use huozi_quant::random::Random;

/// One test at a time: all watch the same process.
static ALONE: Mutex<()> = Mutex::new(());

/// A model small enough for thousands of conversions.
fn checkpoint(dir: &Path, layout: CheckpointLayout) -> PathBuf {
    let folder = dir.join(format!("{layout:?}"));
    let shape = Shape::from_sizes("1x32x2x300").unwrap();
    CheckpointRecipe::new(shape, layout, 1).write(&folder, &(), &AtomicBool::new(false)).unwrap();
    folder
}

fn options(source: Source, out: &Path) -> Options {
    Options { threads: Some(2), ..Options::new(source, Preset::Q8_0, out) }
}

/// Converts `count` damaged copies of `name` among `files`; `source` makes a source of them.
fn convert_damaged(what: &str, good: &[u8], out: &Path, source: impl Fn(Vec<u8>) -> Source) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let convert = |bytes| run(&options(source(bytes), out), &(), &AtomicBool::new(false));
    convert(good.to_vec()).unwrap();
    fs::remove_file(out).unwrap();
    let mut watch = Watch::new();
    let mut whole = 0;
    let mut said = std::collections::BTreeSet::new();
    for seed in 1..=count() {
        let bytes = damage(&mut Random::new(seed), good, 4096);
        match watch.case(&format!("{what}, seed {seed}"), || convert(bytes)) {
            Ok(_) => {
                whole += 1;
                fs::remove_file(out).unwrap();
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::BadInput, "{what}, seed {seed}: {error}");
                said.insert(error.to_string());
                assert!(!out.exists(), "{what}, seed {seed}");
            }
        }
    }
    eprintln!(
        "{what}: {whole} of {} converted, {} different errors, slowest {:?}, {} MiB more",
        count(),
        said.len(),
        watch.slowest,
        watch.grown_kib() >> 10
    );
    assert!(whole > 0 && whole < count() / 2 && said.len() > 50, "{what}: the damage does not arrive");
}

fn in_memory(what: &str, layout: CheckpointLayout, name: &'static str) {
    let dir = tempfile::tempdir().unwrap();
    let folder = checkpoint(dir.path(), layout);
    let read = |name: &str| fs::read(folder.join(name)).unwrap();
    let texts = ["config.json", "tokenizer.json", "tokenizer_config.json"]
        .map(|name| (name.to_owned(), Cow::<'static, [u8]>::Owned(read(name))));
    convert_damaged(what, &read(name), &dir.path().join("out.gguf"), |bytes| {
        let mut files = texts.to_vec();
        files.push((name.into(), Cow::Owned(bytes)));
        Source::Memory(files)
    });
}

#[test]
fn safetensors() {
    in_memory("safetensors", CheckpointLayout::Safetensors, "model.safetensors");
}

#[test]
fn bin() {
    in_memory("bin", CheckpointLayout::Bin, "pytorch_model.bin");
}

#[test]
fn gguf() {
    let dir = tempfile::tempdir().unwrap();
    let folder = checkpoint(dir.path(), CheckpointLayout::Safetensors);
    let good = dir.path().join("good.gguf");
    run(&Options::new(Source::Path(folder), Preset::F16, &good), &(), &AtomicBool::new(false)).unwrap();
    let good = fs::read(good).unwrap();
    let damaged = dir.path().join("damaged.gguf");
    convert_damaged("gguf", &good, &dir.path().join("out.gguf"), |bytes| {
        fs::write(&damaged, bytes).unwrap();
        Source::Path(damaged.clone())
    });
}

/// What the fuzzer kept: inputs that reach a line that no other reaches, and what it found.
#[test]
fn the_corpus_of_the_fuzzer() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut watch = Watch::new();
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    for (name, parse) in hostile_support::PARSERS {
        let (mut opened, mut refused) = (0, 0);
        for entry in fs::read_dir(corpus.join(name)).unwrap() {
            let path = entry.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            match watch.case(&path.display().to_string(), || parse(&bytes)) {
                true => opened += 1,
                false => refused += 1,
            }
        }
        eprintln!("{name}: {opened} opened, {refused} refused");
        assert!(opened > 0 && refused > 20, "{name}: {opened} {refused}");
    }
}
