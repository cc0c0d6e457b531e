//! The one road from a model to an engine: every source, every command that takes a model.

use crate::common::{NEVER, Run, arg, finish, fixture, huozi, model, run};
use huozi::engine::{Engine, EngineKind, KvType, Phase, Want};
use huozi::eval;
use huozi::open::{self, Error, Loaded, OpenOptions, OpenStep, Room, Source, silent};
use huozi_convert::plan::Preset;
use huozi_quant::bloom::shape::Shape;
use huozi_quant::bloom::synth::RandomModel;
use huozi_quant::gguf::Reader;
use huozi_quant::map::How;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

fn options() -> OpenOptions {
    OpenOptions { threads: Some(1), kv: KvType::F32, ..OpenOptions::default() }
}

fn load(source: &Source) -> Loaded {
    open::open(source, &options(), &silent, &NEVER).expect("opens")
}

/// The logits after these ids.
fn logits(model: &Loaded) -> Vec<f32> {
    let mut engine = model.engine(Room::single(64), &silent, &NEVER).expect("an engine");
    let engine: &mut dyn Engine = engine.as_mut();
    let seq = engine.seq_new();
    let mut last = Vec::new();
    let sink = &mut |_, row: &[f32]| last = row.to_vec();
    eval::append(engine, seq, &[1, 2, 3], Phase::Given, Want::Last, &NEVER, sink).expect("a step");
    assert_eq!(last.len(), model.shape().n_vocab, "as many logits as the shape says");
    last
}

#[test]
fn a_file_read_mapped_or_in_memory_is_the_same_model() {
    let path = model("nano", Preset::Q8_0);
    let mapped = load(&Source::File(path.clone()));
    let expected = logits(&mapped);
    let steps = Mutex::new(Vec::new());
    let progress = |step, done, total| steps.lock().unwrap().push((step, done, total));
    let mut read = load(&Source::File(path.clone()));
    read.options.mmap = false;
    drop(read.engine(Room::single(64), &progress, &NEVER).expect("an engine"));
    let bytes = fs::metadata(&path).unwrap().len();
    let steps = steps.into_inner().unwrap();
    assert_eq!(steps.first(), Some(&(OpenStep::Read, 0, bytes)));
    assert_eq!(steps.last(), Some(&(OpenStep::Read, bytes, bytes)));
    assert_eq!(logits(&read), expected);
    let reader = Reader::open(&path, How::Read).unwrap();
    let memory = load(&Source::Memory(reader));
    assert_eq!(logits(&memory), expected);
    assert!(mapped.is_file() && !memory.is_file());
    assert_eq!((mapped.name().as_str(), mapped.type_name().as_str()), ("nano-Q8_0", "q8_0"));
}

#[test]
fn random_weights_are_a_model_and_are_not_made_without_memory() {
    let shape = Shape::from_sizes("2x64x4x500").unwrap();
    let random = RandomModel { shape, preset: Preset::Q8_0, seed: 1, name: "random".into() };
    let source = Source::Random(random.clone());
    assert!(logits(&load(&source)).iter().all(|x| x.is_finite()));
    // Keys and values of 2^44 positions fit into no machine.
    let greedy = OpenOptions { expected_positions: 1 << 44, ..options() };
    let error = open::open(&source, &greedy, &silent, &NEVER).unwrap_err();
    assert!(matches!(error, Error::Memory(_)), "{error}");
    let ggml = OpenOptions { engine: EngineKind::Ggml, ..options() };
    let error = open::open(&source, &ggml, &silent, &NEVER).unwrap_err();
    assert!(matches!(error, Error::NoFile | Error::NotBuilt), "{error}");
}

#[test]
fn contradictions_are_refused_before_anything_is_read() {
    let nowhere = Source::File("/nowhere.gguf".into());
    let refused = |options: OpenOptions| open::open(&nowhere, &options, &silent, &NEVER).unwrap_err();
    let flash = OpenOptions { flash_attention: Some(Default::default()), ..options() };
    assert!(matches!(refused(flash), Error::FlashAttentionWithNative));
    let mlock = refused(OpenOptions { engine: EngineKind::Ggml, mlock: true, ..options() });
    assert!(matches!(mlock, Error::MlockWithGgml | Error::NotBuilt), "{mlock}");
    assert!(matches!(refused(options()), Error::File(_)));
}

#[test]
fn cancelling_ends_the_opening() {
    let mut model = load(&Source::File(model("nano", Preset::F16)));
    let cancelled = AtomicBool::new(true);
    for mmap in [true, false] {
        model.options.mmap = mmap;
        let error = model.engine(Room::single(64), &silent, &cancelled).err().expect("no engine");
        assert!(matches!(&error, Error::Cancelled { path } if path == model.path()), "{error}");
    }
}

/// Memory is checked for both models of a comparison together.
#[test]
fn two_models_need_memory_for_both() {
    let [mut a, mut b] = [(); 2].map(|()| load(&Source::File(model("nano", Preset::F16))));
    let Some(memory) = open::Memory::now() else { return };
    // As many positions as fit once, not twice.
    let each = a.shape().kv_bytes_per_position(KvType::F32);
    let room = Room::single(usize::try_from(memory.available / each * 3 / 4).unwrap());
    assert!(a.check_memory(room.positions).is_ok());
    let error = open::engines([&a, &b], room, &silent, &NEVER).err().expect("too large");
    let said = error.to_string();
    assert!(matches!(error, Error::Memory(_)) && said.contains(" with "), "{said}");
    (a.options.check_memory, b.options.check_memory) = (false, false);
    assert!(open::engines([&a, &b], Room::single(64), &silent, &NEVER).is_ok());
}

/// A Hugging Face cache in `home` in which `org/tiny` has a snapshot with these files, each a link into
/// `blobs`.
fn cache(home: &Path, files: &[(&str, &Path)]) -> PathBuf {
    let model = home.join("hf/hub/models--org--tiny");
    let snapshot = model.join("snapshots/0123abcd");
    for folder in [&snapshot, &model.join("blobs"), &model.join("refs")] {
        fs::create_dir_all(folder).unwrap();
    }
    fs::write(model.join("refs/main"), "0123abcd").unwrap();
    for (name, file) in files {
        let blob = model.join("blobs").join(name);
        fs::copy(file, &blob).unwrap();
        std::os::unix::fs::symlink(&blob, snapshot.join(name)).unwrap();
    }
    snapshot
}

fn cached(home: &Path, args: &[&str]) -> Run {
    finish(huozi(home).args(args).env("HF_HOME", home.join("hf")), "")
}

#[test]
fn every_command_takes_a_name_from_the_hugging_face_cache() {
    let home = tempfile::tempdir().unwrap();
    let file = model("nano", Preset::Q8_0);
    let snapshot = cache(home.path(), &[("m.gguf", &file)]);
    let text = arg(&fixture("famous-poems.txt"));
    for name in ["org/tiny", "models--org--tiny"] {
        cached(home.path(), &["tokenize", "-m", name, "-p", "春"]).ok();
    }
    for args in [
        &["run", "-p", "春", "-n", "1", "-m", "org/tiny"][..],
        &["chat", "-m", "org/tiny"],
        &["logits", "-p", "春", "--last", "-m", "org/tiny"],
        &["inspect", "org/tiny"],
        &["verify", "org/tiny"],
        &["eval", "ppl", &text, "--chunks", "1", "-m", "org/tiny"],
        &["eval", "kl", &text, "--chunks", "1", "-m", "org/tiny", "--base", "org/tiny"],
        &["bench", "-p", "4", "-n", "1", "-r", "1", "-m", "org/tiny"],
    ] {
        let done = cached(home.path(), args);
        assert_eq!(done.code, Some(0), "{args:?}: {}", done.stderr);
    }
    let json = cached(home.path(), &["run", "-p", "春", "-n", "1", "--json", "-m", "org/tiny"]).json();
    assert_eq!(json[0]["model"], arg(&snapshot.join("m.gguf")), "the file behind the name");
    let doctor = finish(
        huozi(home.path())
            .args(["doctor", "--json"])
            .envs([("HUOZI_MODEL", "org/tiny")])
            .env("HF_HOME", home.path().join("hf")),
        "",
    );
    assert_eq!(doctor.json()[0]["models"][0]["model"], arg(&snapshot.join("m.gguf")));
    // A path that exists wins over a name.
    fs::create_dir(home.path().join("org")).unwrap();
    fs::write(home.path().join("org/tiny"), "not a model").unwrap();
    cached(home.path(), &["run", "-p", "春", "-m", "org/tiny"])
        .fails(4, "org/tiny: not a GGUF file: it begins with");
}

#[test]
fn a_name_that_leads_to_no_single_file_says_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    let file = model("nano", Preset::Q8_0);
    let snapshot = cache(home.path(), &[("b.gguf", &file), ("a.gguf", &file)]);
    let ask = |name: &str| cached(home.path(), &["run", "-p", "x", "-m", name]);
    ask("org/tiny").fails(4, "has 2 GGUF files of it; give the path of one");
    ask("org/tiny").fails(4, &format!("{}, ", arg(&snapshot.join("a.gguf"))));
    ask("org/other").fails(4, "nothing is downloaded");
    ask(&arg(&snapshot)).fails(4, "a folder with 2 GGUF files; give the path of one");
    fs::remove_file(snapshot.join("a.gguf")).unwrap();
    fs::remove_file(snapshot.join("b.gguf")).unwrap();
    fs::copy(fixture("tiny-f32/model.safetensors"), snapshot.join("model.safetensors")).unwrap();
    ask("org/tiny").fails(4, "huozi-convert org/tiny -t q4_k_m -o tiny-q4_k_m.gguf");
    ask(&arg(&snapshot)).fails(4, "a checkpoint, not a GGUF file");
    // What can be no name is a path that does not exist.
    ask("org/tiny.gguf").fails(4, "org/tiny.gguf: cannot open");
    run(&["inspect", "/no/such"], "").fails(4, "/no/such: cannot open");
}
