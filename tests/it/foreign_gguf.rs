//! GGUF files as other programs write them: split, with tensors that BLOOM does not have, of other types and
//! architectures.

use crate::common::{arg, finish, huozi, model, run};
use huozi_convert::plan::Preset;
use huozi_quant::Format;
use huozi_quant::gguf::{Layout, MetaValue, Reader, TensorInfo, TensorSpec, Writer};
use huozi_quant::map::How;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

const ASK: [&str; 6] = ["-p", "写一首关于月的诗。", "-s", "1", "-n", "12"];

type Meta = Vec<(String, MetaValue)>;

fn nano() -> Reader {
    Reader::open(&model("nano", Preset::F16), How::Map).unwrap()
}

/// The metadata of a file, without the sums of its tensors.
fn meta(reader: &Reader) -> Meta {
    let own = |key: &str| key == "huozi.tensor_sha256";
    reader.meta().iter().filter(|(k, _)| !own(k)).map(|(k, v)| (k.to_owned(), v.into())).collect()
}

/// Writes tensors of `from`, and more that hold zeros.
fn write(path: &Path, meta: &Meta, from: &Reader, tensors: &[TensorInfo], more: &[(&str, u64)]) {
    let spec = |t: &TensorInfo| TensorSpec { name: t.name.clone(), format: t.format, dims: t.dims.clone() };
    let more_specs = more.iter().map(|(name, n)| TensorSpec {
        name: (*name).to_owned(),
        format: Format::F32,
        dims: vec![*n],
    });
    let layout = Layout::new(meta, tensors.iter().map(spec).chain(more_specs).collect()).unwrap();
    let writer = Writer::create(File::create(path).unwrap(), layout).unwrap();
    for (i, t) in tensors.iter().enumerate() {
        writer.write_at(i, 0, &from.bytes(t)).unwrap();
    }
    for (i, (_, n)) in more.iter().enumerate() {
        writer.write_at(tensors.len() + i, 0, &vec![0; 4 * *n as usize]).unwrap();
    }
    writer.finish().unwrap();
}

/// Nano in three parts, as `llama-gguf-split` makes them; gives the path of the first.
fn split(dir: &Path) -> PathBuf {
    let from = nano();
    let parts: Vec<&[TensorInfo]> = from.tensors().chunks(from.tensors().len().div_ceil(3)).collect();
    let path = |i: usize| dir.join(format!("nano-{:05}-of-00003.gguf", i + 1));
    for (i, part) in parts.iter().enumerate() {
        let mut meta = if i == 0 { meta(&from) } else { Meta::new() };
        meta.push(("split.no".into(), MetaValue::U16(i as u16)));
        meta.push(("split.count".into(), MetaValue::U16(3)));
        meta.push(("split.tensors.count".into(), MetaValue::I32(from.tensors().len() as i32)));
        write(&path(i), &meta, &from, part, &[]);
    }
    path(0)
}

/// Gives the tensor `name` of a file another type number.
fn set_type(path: &Path, name: &str, id: u32) {
    let mut bytes = fs::read(path).unwrap();
    let entry = [&(name.len() as u64).to_le_bytes()[..], name.as_bytes()].concat();
    let at = bytes.windows(entry.len()).position(|window| window == entry).unwrap() + entry.len();
    let dims = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    bytes[at + 4 + 8 * dims..][..4].copy_from_slice(&id.to_le_bytes());
    fs::write(path, bytes).unwrap();
}

fn ask(path: &Path, more: &[&str]) -> crate::common::Run {
    run(&[&["run", "-m", &arg(path)], &ASK[..], more].concat(), "")
}

#[test]
fn a_split_model_answers_as_the_whole_one() {
    let dir = tempfile::tempdir().unwrap();
    let first = split(dir.path());
    let whole = ask(&model("nano", Preset::F16), &[]);
    for more in [&[][..], &["--no-mmap"], &["-t", "1"]] {
        assert_eq!(ask(&first, more).ok(), whole.ok(), "{more:?}");
    }
    // Every command takes it as one model.
    let m = arg(&first);
    let json = &run(&["inspect", &m, "--json"], "").json()[0];
    assert_eq!((json["parts"].as_array().unwrap().len(), json["tensors"].as_array().unwrap().len()), (3, 77));
    let total: u64 =
        dir.path().read_dir().unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    assert_eq!(json["bytes"], total);
    assert!(run(&["inspect", &m], "").ok().contains("nano-00003-of-00003.gguf"));
    assert!(run(&["verify", &m], "").ok().contains("77 tensors"));
    let finger = |path: &str| run(&["logits", "-m", path, "--ids", "5", "--json"], "").json()[0].clone();
    let (a, b) = (finger(&m), finger(&arg(&model("nano", Preset::F16))));
    assert_eq!(a["top"], b["top"]);
    assert_ne!(a["model_fingerprint"], b["model_fingerprint"]);
    // A list of models has it once.
    let doctor = finish(huozi(dir.path()).args(["doctor", "--json"]), "");
    let models = doctor.json()[0]["models"].as_array().unwrap().clone();
    assert_eq!(models.len(), 1, "{models:?}");
    assert!(models[0]["model"].as_str().unwrap().contains("00001-of-00003") && models[0]["bytes"] == total);
    // Another content of the last part is another model.
    let last = dir.path().join("nano-00003-of-00003.gguf");
    let mut bytes = fs::read(&last).unwrap();
    // More than lies between two of the places that a fingerprint reads.
    let at = bytes.len() - bytes.len() / 64;
    bytes[at..].iter_mut().for_each(|byte| *byte ^= 1);
    fs::write(&last, bytes).unwrap();
    assert_ne!(finger(&m)["model_fingerprint"], a["model_fingerprint"]);
}

#[test]
fn a_part_alone_says_what_to_give() {
    let dir = tempfile::tempdir().unwrap();
    let first = split(dir.path());
    let second = dir.path().join("nano-00002-of-00003.gguf");
    let what = format!("give {}", first.display());
    for command in ["run", "tokenize", "inspect", "verify"] {
        run(&[command, "-m", &arg(&second)], "").fails(4, &what);
    }
    fs::remove_file(&second).unwrap();
    ask(&first, &[]).fails(4, "part 2 of 3 beside it");
}

#[test]
fn tensors_that_bloom_does_not_have_are_left_out_with_a_note() {
    let dir = tempfile::tempdir().unwrap();
    let (from, path) = (nano(), dir.path().join("more.gguf"));
    let more = [("rope_freqs.weight", 16), ("v_head.summary.bias", 1), ("blk.0.attn_mask", 256)];
    write(&path, &meta(&from), &from, from.tensors(), &more);
    // A type that is not decoded here does not matter for a tensor that is not used.
    set_type(&path, "blk.0.attn_mask", 24);
    let answer = ask(&path, &[]);
    assert_eq!(answer.ok(), ask(&model("nano", Preset::F16), &[]).ok());
    for part in ["3 tensors that BLOOM does not have", "rope_freqs.weight", "blk.0.attn_mask"] {
        assert!(answer.stderr.contains(part), "{}", answer.stderr);
    }
    assert!(!ask(&path, &["-q"]).stderr.contains("rope_freqs"));
    assert!(run(&["inspect", &arg(&path)], "").ok().contains("I8"));
    run(&["verify", &arg(&path)], "").ok();
    // Dimensions of 1 at the end say nothing.
    let mut flat = from.tensors().to_vec();
    flat.iter_mut().filter(|t| t.dims.len() == 1).for_each(|t| t.dims.push(1));
    write(&path, &meta(&from), &from, &flat, &[]);
    assert_eq!(ask(&path, &[]).ok(), answer.ok());
    for name in ["blk.0.attn_qkv.weight.lora_a", "output.bias", "blk.6.ffn_up.bias", "position_embd.weight"] {
        write(&path, &meta(&from), &from, from.tensors(), &[(name, 4)]);
        let refused = ask(&path, &[]);
        refused.fails(4, name);
        assert!(refused.stderr.contains("--skip-tensor"), "{}", refused.stderr);
    }
}

#[test]
fn other_types_and_architectures_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let (from, path) = (nano(), dir.path().join("m.gguf"));
    write(&path, &meta(&from), &from, from.tensors(), &[]);
    set_type(&path, "blk.3.ffn_up.weight", 16);
    for command in ["run", "verify"] {
        run(&[command, "-m", &arg(&path)], "").fails(4, "blk.3.ffn_up.weight");
    }
    assert!(ask(&path, &[]).stderr.contains("IQ2_XXS") && ask(&path, &[]).stderr.contains("huozi-convert"));
    assert!(run(&["inspect", &arg(&path)], "").ok().contains("IQ2_XXS"), "still shown");
    let with = |key: &str, value: &str| {
        let mut meta = meta(&from);
        meta.retain(|(k, _)| k != key);
        meta.push((key.into(), MetaValue::Str(value.into())));
        write(&path, &meta, &from, &from.tensors()[..1], &[]);
        ask(&path, &[])
    };
    with("general.architecture", "llama").fails(4, "\"llama\"; llama.cpp may run it");
    with("general.type", "adapter").fails(4, "merge it into its base model");
    with("general.type", "imatrix").fails(4, "--imatrix");
    write(&path, &meta(&from), &from, &[], &[]);
    ask(&path, &[]).fails(4, "no weights; give the file with the weights");
}
