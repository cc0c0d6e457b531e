//! What the tests of the root share: fixtures, converted on first use.

#![allow(dead_code, reason = "every test file uses its own part")]

use huozi::engine::{KvType, Native, Options};
use huozi_convert::pipeline::{self, Source};
use huozi_quant::gguf::Reader;
use huozi_quant::map::How;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// A cancel flag that nobody sets.
pub static NEVER: AtomicBool = AtomicBool::new(false);

/// The checkpoints with references: folder, and the file of their reference logits.
pub const CHECKPOINTS: [(&str, &str); 6] = [
    ("tests/fixtures/tiny-f32", "tests/fixtures/tiny-f32/reference.safetensors"),
    ("tests/fixtures/tiny-bin-f16", "tests/fixtures/tiny-bin-f16/reference.safetensors"),
    ("tests/fixtures/tiny-6heads-bf16", "tests/fixtures/tiny-6heads-bf16/reference.safetensors"),
    (
        "tests/fixtures/tiny-untied-oldkeys-f16",
        "tests/fixtures/tiny-untied-oldkeys-f16/reference.safetensors",
    ),
    ("tests/fixtures/tiny-k256-f16", "tests/fixtures/tiny-k256-f16/reference.safetensors"),
    ("src/demo", "tests/fixtures/nano-reference.safetensors"),
];

/// A path of the project.
pub fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)
}

/// Converts a checkpoint of the project into `dir`.
pub fn convert(checkpoint: &str, preset: &str, dir: &Path) -> PathBuf {
    let name = Path::new(checkpoint).file_name().unwrap().to_str().unwrap();
    let out = dir.join(format!("{name}-{preset}.gguf"));
    if !out.exists() {
        let options = pipeline::Options::new(Source::Path(path(checkpoint)), preset.parse().unwrap(), &out);
        pipeline::run(&options, &(), &NEVER).unwrap();
    }
    out
}

/// The native engine over a file.
pub fn open(file: &Path, kv: KvType, kv_positions: usize, threads: usize) -> (Reader, Native) {
    let reader = Reader::open(file, How::Map).unwrap();
    let engine = Native::open(&reader, &Options { threads: Some(threads), kv, kv_positions }).unwrap();
    (reader, engine)
}
