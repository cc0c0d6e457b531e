//! Checkpoints with more than a BLOOM model has: left out with a note where it cannot change the output,
//! refused with a way out where it may.

use std::borrow::Cow;

use crate::convert_support::{from_memory, go, in_memory, open, with_weights};
use crate::source_support::{dict, global, int, ints, pickle, storage, tensor, text, tuple};
use huozi_convert::plan::Preset;
use huozi_convert::{ErrorKind, Options, Report};

type Files = Vec<(String, Cow<'static, [u8]>)>;

/// The tensors of tiny-f32 and one more, under other names.
fn with(rename: impl Fn(&str) -> String, more: &[(&str, &[usize], f32)]) -> Files {
    with_weights("tiny-f32", |list| {
        list.iter_mut().for_each(|t| t.0 = rename(&t.0));
        for (name, shape, value) in more {
            let data = value.to_le_bytes().repeat(shape.iter().product());
            list.push(((*name).to_owned(), shape.to_vec(), data));
        }
    })
}

fn same(name: &str) -> String {
    name.to_owned()
}

/// Converts and compares with the conversion of the fixture as it is.
#[track_caller]
fn converted(files: Files) -> Report {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a.gguf"), dir.path().join("b.gguf"));
    let report = go(&from_memory(files, Preset::F16, &a)).unwrap();
    go(&from_memory(in_memory("tiny-f32"), Preset::F16, &b)).unwrap();
    let (a, b) = (open(&a), open(&b));
    assert_eq!(a.tensors(), b.tensors());
    for t in a.tensors() {
        assert_eq!(*a.bytes(t), *b.bytes(t), "{}", t.name);
    }
    report
}

#[track_caller]
fn noted(report: &Report, says: &[&str]) {
    let notes = report.notes.join("\n");
    for part in says {
        assert!(notes.contains(part), "{part:?} not in: {notes}");
    }
}

#[track_caller]
fn refused(options: &Options, says: &[&str]) {
    let error = go(options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadInput, "{error}");
    for part in says {
        assert!(error.to_string().contains(part), "{part:?} not in: {error}");
    }
}

#[test]
fn what_cannot_change_the_output_is_left_out_with_a_note() {
    let report = converted(with(
        same,
        &[("v_head.summary.weight", &[1, 64], 0.5), ("v_head.summary.bias", &[1], 0.0)],
    ));
    noted(&report, &["2 tensors that BLOOM does not have", "v_head.summary.weight", "v_head.summary.bias"]);
    for name in [
        "score.weight",
        "classifier.weight",
        "transformer.h.0.self_attention.masked_bias",
        "transformer.h.1.self_attention.rotary_emb.inv_freq",
        "h.0.attn.bias",
        "transformer.alibi",
        "optimizer.state.0.exp_avg",
        "ref_model.transformer.ln_f.weight",
    ] {
        noted(&converted(with(same, &[(name, &[3], 1.0)])), &["1 tensor that BLOOM does not have", name]);
    }
    // A bias of zeros adds nothing.
    noted(&converted(with(same, &[("lm_head.bias", &[1024], 0.0)])), &["lm_head.bias"]);
}

#[test]
fn what_wraps_the_model_does_not_matter() {
    let bare = |name: &str| name.strip_prefix("transformer.").unwrap_or(name).to_owned();
    for around in [
        "",
        "transformer.",
        "module.",
        "module.transformer.",
        "model.",
        "base_model.model.transformer.",
        "_orig_mod.",
    ] {
        converted(with(|name| format!("{around}{}", bare(name)), &[]));
    }
    converted(with(|name| bare(name).replace("mlp.", "mlp._fsdp_wrapped_module."), &[]));
}

#[test]
fn what_may_change_the_output_is_refused_with_a_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("a.gguf");
    for (name, says) in [
        ("lm_head.bias", "--skip-tensor"),
        ("transformer.wpe.weight", "--skip-tensor"),
        ("transformer.h.0.mlp.adapter.up.weight", "--skip-tensor"),
        ("transformer.h.2.input_layernorm.weight", "no BLOOM of this configuration"),
        ("prompt_encoder.default.embedding.weight", "--skip-tensor"),
    ] {
        let files = with(same, &[(name, &[64], 1.0)]);
        refused(&from_memory(files.clone(), Preset::F16, &out), &[name, says]);
        // What a person leaves out, although it may matter.
        let skip_tensors = vec![regex_lite::Regex::new(&regex_lite::escape(name)).unwrap()];
        let options = Options { skip_tensors, force: true, ..from_memory(files, Preset::F16, &out) };
        noted(&go(&options).unwrap(), &["left out", name]);
        std::fs::remove_file(&out).unwrap();
    }
    let lora = "transformer.h.0.self_attention.query_key_value.lora_A.default.weight";
    refused(&from_memory(with(same, &[(lora, &[64], 1.0)]), Preset::F16, &out), &[lora, "merge_and_unload"]);
    // What BLOOM needs is never left out; missing and doubled tensors stay errors.
    let skip_tensors = vec![regex_lite::Regex::new("ln_f").unwrap()];
    let all = Options { skip_tensors, ..from_memory(in_memory("tiny-f32"), Preset::F16, &out) };
    assert_eq!(go(&all).unwrap().notes.iter().filter(|note| note.contains("ln_f")).count(), 0);
    let doubled = with(same, &[("module.transformer.ln_f.bias", &[64], 1.0)]);
    refused(
        &Options { force: true, ..from_memory(doubled, Preset::F16, &out) },
        &["stored twice", "ln_f.bias"],
    );
}

/// tiny-f32 in one shard with an index that names `more` too.
fn indexed(more: &[&str]) -> Files {
    let mut files = with(same, &[]);
    let file = files.iter_mut().find(|(name, _)| name == "model.safetensors").unwrap();
    let shard = "model-00001-of-00001.safetensors";
    file.0 = shard.into();
    let parsed = safetensors::SafeTensors::deserialize(&file.1).unwrap();
    let names: Vec<String> = parsed.names().into_iter().map(str::to_owned).collect();
    let all = names.iter().map(String::as_str).chain(more.iter().copied());
    let map: serde_json::Map<_, _> = all.map(|name| (name.to_owned(), shard.into())).collect();
    let index = serde_json::json!({ "metadata": { "total_size": 1 }, "weight_map": map });
    files.push(("model.safetensors.index.json".into(), Cow::Owned(index.to_string().into_bytes())));
    files
}

#[test]
fn an_index_may_name_what_bloom_does_not_need() {
    let names = ["transformer.h.0.self_attention.masked_bias", "v_head.weight", "lm_head.weight"];
    noted(
        &converted(indexed(&names)),
        &["the index names", "masked_bias", "v_head.weight", "lm_head.weight"],
    );
    let dir = tempfile::tempdir().unwrap();
    for name in ["transformer.h.2.input_layernorm.weight", "transformer.wpe.weight"] {
        let options = from_memory(indexed(&[name]), Preset::F16, &dir.path().join("a"));
        refused(&options, &[&format!("tensor {name} in model-00001"), "no shard"]);
    }
}

#[test]
fn leftovers_of_training_in_the_folder_do_not_matter() {
    let mut files = in_memory("tiny-f32");
    for name in [
        "optimizer.pt",
        "scheduler.pt",
        "rng_state.pth",
        "rng_state_0.pth",
        "training_args.bin",
        "trainer_state.json",
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
        "zero_to_fp32.py",
    ] {
        files.push((name.into(), Cow::Borrowed(b"not what it seems")));
    }
    converted(files);
}

#[test]
fn a_state_dict_may_hold_other_things() {
    let weights = || {
        let shape = [("w", tensor(storage("FloatStorage", "0", 12), 0, &[3, 4], &[4, 1]))];
        let others = [
            ("step", int(7)),
            ("name", text("x")),
            ("none", b"N".to_vec()),
            ("shape", [global("torch", "Size"), tuple(&[ints(&[3, 4])]), b"R".to_vec()].concat()),
            ("dtype", global("torch", "float16")),
            ("device", [global("torch", "device"), tuple(&[text("cpu")]), b"R".to_vec()].concat()),
        ];
        dict(&[&shape[..], &others[..]].concat())
    };
    let generator = || tensor(storage("ByteStorage", "0", 48), 0, &[48], &[1]);
    for whole in [
        weights(),
        dict(&[("model_state_dict", weights()), ("epoch", int(3)), ("model", dict(&[("layers", int(2))]))]),
        dict(&[("rng_state", generator()), ("state_dict", dict(&[("module", weights())]))]),
    ] {
        let checkpoint = crate::source_support::open_pickle(pickle(whole)).unwrap();
        assert_eq!(checkpoint.tensors().iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["w"]);
        let others = checkpoint.objects().join(", ");
        assert!(others.contains("an integer under step") && checkpoint.objects().len() == 6, "{others}");
    }
}
