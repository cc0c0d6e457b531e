//! Random checkpoints: both layouts give the same model, and nothing is ever half there.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use huozi_convert::Error;
use huozi_convert::pipeline::run;
use huozi_convert::plan::Preset;
use huozi_convert::source::{Checkpoint, Dtype};
use huozi_convert::synth::{CheckpointLayout, CheckpointRecipe, MadeCheckpoint};
use huozi_convert::{Options, Progress, Source};
use huozi_quant::bloom::shape::Shape;
use huozi_quant::gguf::Reader;
use huozi_quant::map::How;

const SIZES: &str = "2x256x4x2000";

/// In shards of some tensors each.
fn recipe(layout: CheckpointLayout) -> CheckpointRecipe {
    CheckpointRecipe {
        shard_bytes: 1_500_000,
        ..CheckpointRecipe::new(Shape::from_sizes(SIZES).unwrap(), layout, 7)
    }
}

fn make(recipe: &CheckpointRecipe, dir: &Path) -> MadeCheckpoint {
    recipe.write(dir, &(), &AtomicBool::new(false)).unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn both_layouts_convert_to_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    for (layout, stem, end) in [
        (CheckpointLayout::Safetensors, "model", "safetensors"),
        (CheckpointLayout::Bin, "pytorch_model", "bin"),
    ] {
        let (folder, out) = (dir.path().join(end), dir.path().join(format!("{end}.gguf")));
        let made = make(&recipe(layout), &folder);
        // The embedding fills one, two layers of 1.58 MB take two each or three.
        assert!(made.shards > 2, "{}", made.shards);
        let mut expected: Vec<String> =
            ["README.md", "config.json", "tokenizer.json", "tokenizer_config.json"]
                .map(String::from)
                .into_iter()
                .chain((1..=made.shards).map(|i| format!("{stem}-{i:05}-of-{:05}.{end}", made.shards)))
                .chain([format!("{stem}.{end}.index.json")])
                .collect();
        expected.sort();
        assert_eq!(names(&folder), expected);
        let checkpoint = Checkpoint::open(&folder).unwrap();
        assert!(checkpoint.tensors().iter().all(|t| t.dtype == Dtype::F16));
        assert_eq!(checkpoint.tensors().iter().map(|t| t.bytes).sum::<u64>(), made.bytes);
        assert_eq!(made.bytes, 2 * recipe(layout).shape.weights());
        let options = Options {
            name: Some("random".into()),
            ..Options::new(Source::Path(folder), Preset::Q4_K_M, &out)
        };
        run(&options, &(), &AtomicBool::new(false)).unwrap();
        files.push(fs::read(&out).unwrap());
    }
    assert!(files[0] == files[1]);
    // What a chat needs.
    let reader = Reader::open(&dir.path().join("bin.gguf"), How::Read).unwrap();
    let meta = reader.meta();
    assert_eq!(meta.strings("tokenizer.ggml.tokens").unwrap().unwrap().len(), 2000);
    // 2 of 2000 rows have no token; the markers are the last that have.
    assert_eq!(meta.uint("tokenizer.ggml.eot_token_id").unwrap(), Some(1997));
    assert!(meta.str("tokenizer.chat_template").unwrap().unwrap().contains("<|beginofutterance|>"));
}

#[test]
fn weights_have_the_scale_of_a_trained_model_and_follow_the_seed() {
    let dir = tempfile::tempdir().unwrap();
    let read = |seed: u64| {
        let folder = dir.path().join(seed.to_string());
        // One file: no index.
        let whole = CheckpointRecipe { seed, shard_bytes: u64::MAX, ..recipe(CheckpointLayout::Bin) };
        assert_eq!(make(&whole, &folder).shards, 1);
        assert!(folder.join("pytorch_model.bin").exists() && names(&folder).len() == 5);
        let checkpoint = Checkpoint::open(&folder).unwrap();
        let i = checkpoint.find("transformer.h.1.mlp.dense_4h_to_h.weight").unwrap();
        assert_eq!(checkpoint.tensors()[i].shape, [256, 1024]);
        let mut x = vec![f32::NAN; 256 * 1024];
        checkpoint.read_rows(i, 0..256, &mut x).unwrap();
        x
    };
    let x = read(1);
    let square = x.iter().map(|x| f64::from(x * x)).sum::<f64>() / x.len() as f64;
    // 1 / sqrt(1024), smaller by sqrt(2 layers of 2 additions).
    assert!((square.sqrt() - 1.0 / 64.0).abs() < 1e-3, "{}", square.sqrt());
    assert_ne!(x, read(2));
}

#[test]
fn nothing_is_replaced_and_nothing_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("made");
    let write = |recipe: &CheckpointRecipe| {
        recipe.write(&folder, &(), &AtomicBool::new(false)).map(|made| made.shards)
    };
    let usage = |recipe: &CheckpointRecipe, part: &str| match write(recipe) {
        Err(error @ (Error::Usage(_) | Error::Output(_))) => {
            assert!(error.to_string().contains(part), "{error}");
        }
        other => panic!("{other:?}"),
    };
    let good = recipe(CheckpointLayout::Safetensors);
    usage(
        &CheckpointRecipe { shape: Shape::from_sizes("1x64x4x261").unwrap(), ..good.clone() },
        "at least 262",
    );
    // What the converter would not take.
    usage(
        &CheckpointRecipe { shape: Shape::from_sizes("1x8192x8192x300").unwrap(), ..good.clone() },
        "n_head is 8192",
    );
    fs::write(&folder, "mine").unwrap();
    usage(&good, "is a file; an output must be a directory");
    assert_eq!(fs::read(&folder).unwrap(), b"mine");
    fs::remove_file(&folder).unwrap();
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("mine"), "").unwrap();
    usage(&good, "not empty");
    fs::remove_file(folder.join("mine")).unwrap();
    let partial = dir.path().join("made.partial");
    fs::create_dir(&partial).unwrap();
    usage(&good, "made.partial exists");
    assert!(partial.is_dir(), "not ours");
    fs::remove_dir(&partial).unwrap();
    // Cancelled in the middle.
    struct After(AtomicU64, AtomicBool);
    impl Progress for After {
        fn advance(&self, bytes: u64) {
            if self.0.fetch_add(bytes, Relaxed) > 2_000_000 {
                self.1.store(true, Relaxed);
            }
        }
    }
    let after = After(AtomicU64::new(0), AtomicBool::new(false));
    let error = good.write(&folder, &after, &after.1).unwrap_err();
    assert!(matches!(error, Error::Interrupted), "{error}");
    assert_eq!(names(dir.path()), ["made"]);
    assert!(names(&folder).is_empty());
    // An empty folder is filled; a slash behind the name is none of its own.
    assert!(good.write(&folder.join(""), &(), &AtomicBool::new(false)).is_ok());
    usage(&good, "not empty");
    for no_name in ["/", ".."] {
        assert!(matches!(good.write(Path::new(no_name), &(), &AtomicBool::new(false)), Err(Error::Usage(_))));
    }
}

fn program(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_huozi-convert"));
    command.arg("make-checkpoint").args(args);
    command
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn the_program() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("made");
    let folder = folder.to_str().unwrap();
    let go = |args: &[&str]| -> Output { program(args).output().unwrap() };
    let done = go(&[SIZES, folder, "--layout", "bin", "--seed", "3"]);
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    assert!(text(&done.stdout).starts_with(&format!("{folder}: 0.00 GB of weights in 1 file, ")));
    assert_eq!(text(&done.stderr), "");
    let again = go(&[SIZES, folder]);
    assert_eq!((again.status.code(), text(&again.stdout)), (Some(2), ""));
    assert!(text(&again.stderr).contains("not empty"), "{}", text(&again.stderr));
    for bad in [&["bloom", folder][..], &["bloom-3b"], &[SIZES, folder, "--layout", "onnx"]] {
        assert_eq!(go(bad).status.code(), Some(2), "{bad:?}");
    }
    let other = format!("{folder}2");
    let json = go(&["--json", SIZES, &other]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((&json["schema"], &json["shards"]), (&1.into(), &1.into()));
}

#[test]
fn an_interrupted_program_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("made");
    // 3 GB would be written; a few MB are.
    let mut child = program(&["bloom-1b7", folder.to_str().unwrap()])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let started = Instant::now();
    let weights = dir.path().join("made.partial/model.safetensors");
    while !weights.exists() {
        assert!(started.elapsed() < Duration::from_secs(60) && child.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(2));
    }
    let kill = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(143), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("interrupted; nothing was written"));
    assert_eq!(names(dir.path()), [""; 0]);
}
