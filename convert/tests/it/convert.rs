//! Whole conversions: what is in the file.

use crate::convert_support::{
    SHAPES, decoded, each_tensor, fixture, from_memory, gguf, go, in_memory, open, options, with_weights,
};
use huozi_convert::pipeline::forecast;
use huozi_convert::plan::Preset;
use huozi_convert::synth::{CheckpointLayout, CheckpointRecipe};
use huozi_convert::{Error, ErrorKind};
use huozi_convert::{Options, Source, TemplateChoice};
use huozi_quant::Format;
use huozi_quant::bloom::shape::Shape;
use huozi_quant::gguf::{MetaValue, Value};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

#[test]
fn every_checkpoint_to_f32_and_f16() {
    let dir = tempfile::tempdir().unwrap();
    for shape in SHAPES {
        for preset in [Preset::F32, Preset::F16, Preset::BF16] {
            let out = dir.path().join(format!("{}.{preset}.gguf", shape.0));
            let report = go(&Options { verify: true, ..options(shape.0, preset, &out) }).unwrap();
            assert_eq!(report.outputs[0].file.bytes, std::fs::metadata(&out).unwrap().len());
            each_tensor(&out, shape, |name, format, got, expected, matrix| {
                assert_eq!(format, if matrix { preset.plain() } else { Format::F32 }, "{} {name}", shape.0);
                let rounded = |x: f32| match (matrix, preset) {
                    (true, Preset::F16) => half::f16::from_f32(x).to_f32(),
                    (true, Preset::BF16) => half::bf16::from_f32(x).to_f32(),
                    _ => x,
                };
                let equal = got.iter().zip(expected).all(|(g, x)| g.to_bits() == rounded(*x).to_bits());
                assert!(equal, "{} {preset}: values of {name}", shape.0);
            });
        }
    }
}

#[test]
fn quantised_rows_are_the_encoder_s() {
    let dir = tempfile::tempdir().unwrap();
    for shape in [SHAPES[2], SHAPES[3], SHAPES[4]] {
        for preset in Preset::ALL.iter().copied().filter(|p| !p.is_float()) {
            let out = dir.path().join(format!("{}.{preset}.gguf", shape.0));
            let report = go(&Options { verify: true, ..options(shape.0, preset, &out) }).unwrap();
            assert!(report.outputs[0].verified && !report.outputs[0].worst.is_empty());
            let count: usize = report.outputs[0].file.formats.iter().map(|f| f.tensors).sum();
            assert_eq!(count, open(&out).tensors().len());
            let mut used = BTreeMap::new();
            let reader = open(&out);
            each_tensor(&out, shape, |name, format, got, expected, matrix| {
                *used.entry(format.name()).or_insert(0) += 1;
                if !matrix {
                    assert_eq!(format, Format::F32);
                }
                let cols = reader.tensor(name).unwrap().cols();
                let mut block = vec![0; format.row_bytes(cols).unwrap()];
                let mut row = vec![0.0; cols];
                for (got, x) in got.chunks_exact(cols).zip(expected.chunks_exact(cols)) {
                    format.encode(x, None, &mut block);
                    format.decode(&block, &mut row);
                    assert_eq!(got, row, "{} {preset} {name}", shape.0);
                }
                // And they are near what they stand for: in two bits, 40 % of the norm at the very most.
                let norm =
                    |x: &mut dyn Iterator<Item = f32>| x.map(|v| f64::from(v).powi(2)).sum::<f64>().sqrt();
                let error = norm(&mut got.iter().zip(expected).map(|(g, x)| g - x));
                assert!(error < 0.4 * norm(&mut expected.iter().copied()), "{} {preset} {name}", shape.0);
            });
            let listed: BTreeMap<_, _> =
                report.outputs[0].file.formats.iter().map(|f| (f.format, f.tensors)).collect();
            assert_eq!(listed, used, "{} {preset}", shape.0);
        }
    }
}

#[test]
fn metadata_of_huozi_s_kind() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("nano.gguf");
    let report = go(&options("demo", Preset::F16, &out)).unwrap();
    assert_eq!((report.name.as_str(), report.weights), ("demo", 6_312_448));
    let reader = open(&out);
    let meta = reader.meta();
    for (key, text) in [
        ("general.architecture", "bloom"),
        ("general.type", "model"),
        ("general.name", "demo"),
        ("general.size_label", "6.3M"),
        ("tokenizer.ggml.model", "gpt2"),
        ("tokenizer.ggml.pre", "bloom"),
        ("tokenizer.chat_template", huozi_token::markers::TEMPLATE),
    ] {
        assert_eq!(meta.str(key).unwrap(), Some(text), "{key}");
    }
    for (key, number) in [
        ("general.file_type", 1),
        ("general.quantization_version", 2),
        ("bloom.context_length", 2048),
        ("bloom.embedding_length", 256),
        ("bloom.feed_forward_length", 1024),
        ("bloom.block_count", 6),
        ("bloom.attention.head_count", 4),
        ("bloom.attention.head_count_kv", 4),
        ("tokenizer.ggml.bos_token_id", 1),
        ("tokenizer.ggml.eos_token_id", 2),
        ("tokenizer.ggml.eot_token_id", 6001),
        ("tokenizer.ggml.unknown_token_id", 0),
        ("tokenizer.ggml.padding_token_id", 3),
    ] {
        assert!(matches!(meta.get(key), Some(Value::U32(n)) if n == number), "{key}: {:?}", meta.get(key));
    }
    for (key, number) in [
        ("general.sampling.temp", 0.5),
        ("general.sampling.min_p", 0.0),
        ("general.sampling.top_p", 0.95),
        ("general.sampling.penalty_repeat", 1.03),
        ("bloom.attention.layer_norm_epsilon", 1e-5),
    ] {
        assert!(matches!(meta.get(key), Some(Value::F32(n)) if n == number), "{key}: {:?}", meta.get(key));
    }
    for (key, number) in [("general.sampling.top_k", 50), ("general.sampling.penalty_last_n", 2048)] {
        assert!(matches!(meta.get(key), Some(Value::I32(n)) if n == number), "{key}: {:?}", meta.get(key));
    }
    assert_eq!(meta.bool("tokenizer.ggml.add_bos_token").unwrap(), Some(false));
    let tokens: Vec<&str> = meta.strings("tokenizer.ggml.tokens").unwrap().unwrap().iter().collect();
    let types: Vec<i64> = meta.ints("tokenizer.ggml.token_type").unwrap().unwrap().iter().collect();
    assert_eq!((tokens.len(), types.len()), (6144, 6144));
    assert_eq!(
        (tokens[6000], types[6000], tokens[6001], types[6001]),
        ("<|beginofutterance|>", 3, "<|endofutterance|>", 3)
    );
    assert_eq!((tokens[6002], types[6002], types[5999]), ("[PAD6002]", 5, 1));
    assert_eq!(meta.strings("tokenizer.ggml.merges").unwrap().unwrap().len(), 5740);
    let suppressed: Vec<i64> = meta.ints("tokenizer.ggml.suppress_tokens").unwrap().unwrap().iter().collect();
    assert_eq!(suppressed, (6002..6144).collect::<Vec<i64>>());
    // llama.cpp refuses any other element type here.
    let Some(Value::Array(array)) = meta.get("tokenizer.ggml.suppress_tokens") else { panic!("no array") };
    assert!(matches!(array.iter().next(), Some(Value::I32(6002))));
}

#[test]
fn metadata_from_old_keys_and_from_flags() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("a.gguf");
    go(&options("tiny-untied-oldkeys-f16", Preset::Q4_K_M, &out)).unwrap();
    let reader = open(&out);
    assert_eq!(reader.meta().uint("bloom.context_length").unwrap(), Some(1024));
    assert_eq!(reader.meta().uint("general.file_type").unwrap(), Some(15));
    let template =
        std::fs::read_to_string(fixture("tiny-untied-oldkeys-f16").join("chat_template.jinja")).unwrap();
    assert_eq!(reader.meta().str("tokenizer.chat_template").unwrap(), Some(template.as_str()));

    let out = dir.path().join("b.gguf");
    let given = Options {
        name: Some("活字".into()),
        context_length: Some(512),
        ..options("tiny-f32", Preset::F16, &out)
    };
    go(&given).unwrap();
    let reader = open(&out);
    assert_eq!(reader.meta().str("general.name").unwrap(), Some("活字"));
    assert_eq!(reader.meta().uint("bloom.context_length").unwrap(), Some(512));
    assert_eq!(reader.meta().uint("general.sampling.penalty_last_n").unwrap(), Some(512));
    // From that file another: a new context is a new range of the penalty, else both stay.
    for (n_ctx, expected) in [(None, 512), (Some(256), 256)] {
        let out = dir.path().join("c.gguf");
        let again = Options {
            context_length: n_ctx,
            force: true,
            ..Options::new(Source::Path(dir.path().join("b.gguf")), Preset::Q8_0, &out)
        };
        go(&again).unwrap();
        for key in ["bloom.context_length", "general.sampling.penalty_last_n"] {
            assert_eq!(open(&out).meta().uint(key).unwrap(), Some(expected), "{key}");
        }
        assert_eq!(open(&out).meta().uint("general.file_type").unwrap(), Some(7));
    }
    let wrong = Options { context_length: Some(0), force: true, ..given };
    assert_eq!(go(&wrong).unwrap_err().kind(), ErrorKind::Usage);
}

#[test]
fn the_license_of_the_card() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("a.gguf");
    let mut files = in_memory("tiny-f32");
    files.push(("README.md".into(), Cow::Borrowed(b"---\nlicense: apache-2.0\n---\n# Model\n")));
    go(&from_memory(files.clone(), Preset::F16, &out)).unwrap();
    assert_eq!(open(&out).meta().str("general.license").unwrap(), Some("apache-2.0"));
    // No more than the beginning of a card is looked at.
    let long = [&b"---\n"[..], &b"#\n".repeat(40_000), b"license: mit\n---\n"].concat();
    files.last_mut().unwrap().1 = Cow::Owned(long);
    go(&Options { force: true, ..from_memory(files, Preset::F16, &out) }).unwrap();
    assert_eq!(open(&out).meta().str("general.license").unwrap(), None);
}

#[test]
fn keys_of_a_gguf_source_are_checked() {
    use MetaValue::{Str, Strings, U32};
    let dir = tempfile::tempdir().unwrap();
    let (path, out) = (dir.path().join("in.gguf"), dir.path().join("out.gguf"));
    let good = [
        ("general.architecture", Str("bloom".into())),
        ("bloom.embedding_length", U32(64)),
        ("bloom.block_count", U32(2)),
        ("bloom.attention.head_count", U32(4)),
        ("bloom.feed_forward_length", U32(256)),
        ("bloom.context_length", U32(64)),
        ("tokenizer.ggml.tokens", Strings(vec!["a".into()])),
    ];
    let with = |key: &'static str, value: Option<MetaValue>| {
        let mut meta: Vec<_> = good.iter().filter(|(k, _)| *k != key).cloned().collect();
        meta.extend(value.map(|v| (key, v)));
        gguf(&path, &meta);
        let error = go(&Options::new(Source::Path(path.clone()), Preset::F16, &out)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadInput);
        error.to_string()
    };
    // Complete but for its tensors.
    assert!(with("x", None).contains("tensors missing"));
    for (key, value) in [
        ("general.architecture", Some(Str("llama".into()))),
        ("bloom.embedding_length", None),
        ("bloom.attention.head_count", Some(U32(5))),
        ("bloom.attention.head_count_kv", Some(U32(2))),
        ("bloom.feed_forward_length", Some(U32(255))),
        ("bloom.vocab_size", Some(U32(2))),
        ("tokenizer.ggml.tokens", None),
    ] {
        let error = with(key, value);
        assert!(error.contains(key) && error.matches("in.gguf").count() == 1, "{key}: {error}");
    }
}

#[test]
fn a_stored_output_equal_to_the_embedding_is_dropped_else_kept() {
    let dir = tempfile::tempdir().unwrap();
    let out = |n: u32| dir.path().join(format!("{n}.gguf"));
    let with_head = |flip: bool| {
        with_weights("tiny-f32", |list| {
            let (_, shape, mut data) =
                list.iter().find(|t| t.0.ends_with("word_embeddings.weight")).unwrap().clone();
            if flip {
                // The last bit of the last weight.
                *data.iter_mut().rev().nth(3).unwrap() ^= 1;
            }
            list.push(("lm_head.weight".into(), shape, data));
        })
    };
    let same = go(&from_memory(with_head(false), Preset::F32, &out(1))).unwrap();
    assert!(same.notes.iter().any(|n| n.contains("equals the embedding")), "{:?}", same.notes);
    assert!(open(&out(1)).tensor("output.weight").is_none());
    let other = go(&from_memory(with_head(true), Preset::F32, &out(2))).unwrap();
    assert!(other.notes.iter().any(|n| n.contains("differs")), "{:?}", other.notes);
    let reader = open(&out(2));
    assert_eq!(reader.tensors().last().unwrap().name, "output.weight");
    let (embd, output) = (decoded(&reader, "token_embd.weight"), decoded(&reader, "output.weight"));
    assert_eq!(embd.iter().zip(&output).filter(|(a, b)| a != b).count(), 1);
    assert_eq!(other.weights, same.weights + 1024 * 64);

    // On request both, and then the embedding has the plain type.
    let twice = Options { duplicate_output: true, ..options("tiny-k256-f16", Preset::Q4_0, &out(3)) };
    let report = go(&twice).unwrap();
    let reader = open(&out(3));
    assert_eq!(reader.tensor("token_embd.weight").unwrap().format, Format::Q4_0);
    assert_eq!(reader.tensor("output.weight").unwrap().format, Format::Q6_K);
    assert_eq!(report.weights, go(&options("tiny-k256-f16", Preset::Q4_0, &out(4))).unwrap().weights);
    assert_eq!(open(&out(4)).tensor("token_embd.weight").unwrap().format, Format::Q6_K);
}

#[test]
fn damaged_weights_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("a.gguf");
    let spoil = |values: &'static [f32]| {
        with_weights("tiny-f32", move |list| {
            let (_, _, data) =
                list.iter_mut().find(|t| t.0.ends_with("h.1.mlp.dense_h_to_4h.weight")).unwrap();
            for (i, v) in values.iter().enumerate() {
                data[i * 4000..][..4].copy_from_slice(&v.to_le_bytes());
            }
        })
    };
    let bad: &[f32] = &[f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
    let error = go(&from_memory(spoil(bad), Preset::Q8_0, &out)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadInput);
    let text = error.to_string();
    assert!(text.contains("h.1.mlp.dense_h_to_4h.weight: 3 of 16384"), "{text}");
    assert!(text.starts_with("model.safetensors: tensor "), "{text}");
    // Finite, but not in F16.
    let large: &[f32] = &[65504.0, -65520.0];
    let text = go(&from_memory(spoil(large), Preset::F16, &out)).unwrap_err().to_string();
    assert!(text.contains("dense_h_to_4h.weight: 1 of 16384") && text.contains("F16"), "{text}");
    assert!(!out.exists() && std::fs::read_dir(dir.path()).unwrap().next().is_none());
    go(&from_memory(spoil(large), Preset::BF16, &out)).unwrap();
    // A check that sees what became infinite unasked, and what was asked for.
    let beyond: &[f32] = &[f32::MAX, -70_000.0];
    let checked = |preset, allow_nan| {
        let options = from_memory(spoil(beyond), preset, &out);
        go(&Options { allow_nan, verify: true, force: true, ..options })
    };
    let error = checked(Preset::BF16, false).unwrap_err();
    assert!(matches!(error, Error::Verify { .. }) && error.to_string().contains("row 0 has inf"), "{error}");
    assert!(!dir.path().join("a.gguf.partial").exists());
    for preset in [Preset::BF16, Preset::F16] {
        assert!(checked(preset, true).unwrap().outputs[0].verified, "{preset}");
    }
    // On request: kept where it can be, else 0.
    let both = Options {
        outputs: vec![(Preset::F32, dir.path().join("f.gguf")), (Preset::Q8_0, dir.path().join("q.gguf"))],
        allow_nan: true,
        ..from_memory(spoil(bad), Preset::F32, &out)
    };
    let report = go(&both).unwrap();
    assert!(report.notes.iter().any(|n| n.contains("q.gguf: 3 NaN")), "{:?}", report.notes);
    let name = "blk.1.ffn_up.weight";
    assert_eq!(decoded(&open(&both.outputs[0].1), name).iter().filter(|x| !x.is_finite()).count(), 3);
    assert!(decoded(&open(&both.outputs[1].1), name).iter().all(|x| x.is_finite()));
}

#[test]
fn blocks_without_a_scale_are_not_copied() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("1.gguf"), dir.path().join("2.gguf"));
    go(&options("tiny-k256-f16", Preset::Q8_0, &first)).unwrap();
    let name = "blk.1.ffn_up.weight";
    let at = open(&first).tensor(name).unwrap().offset;
    let file = std::fs::File::options().write(true).open(&first).unwrap();
    // The scale of the second block: NaN in F16.
    std::os::unix::fs::FileExt::write_all_at(&file, &[0, 0x7e], at + 34).unwrap();
    let again = Options::new(Source::Path(first.clone()), Preset::Q8_0, &second);
    assert!(matches!(go(&again), Err(Error::NotFinite { count: 32, .. })));
    let report = go(&Options { allow_nan: true, verify: true, ..again }).unwrap();
    assert!(report.notes.iter().any(|n| n.contains(": 32 NaN")), "{:?}", report.notes);
    let (before, after) = (decoded(&open(&first), name), decoded(&open(&second), name));
    assert!(after[32..64].iter().all(|x| *x == 0.0));
    assert!(after[64..].iter().zip(&before[64..]).all(|(a, b)| (a - b).abs() <= 0.01 * b.abs() + 1e-6));
}

#[test]
fn wishes_that_come_to_nothing_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("a.gguf");
    let notes = |change: &dyn Fn(&mut Options)| {
        let mut options = Options { force: true, ..options("tiny-k256-f16", Preset::Q4_K_M, &out) };
        change(&mut options);
        go(&options).unwrap().notes
    };
    let types = |list: &[&str]| list.iter().map(|t| t.parse().unwrap()).collect::<Vec<_>>();
    let has = |notes: &[String], part: &str| notes.iter().any(|n| n.contains(part));
    let plain = notes(&|_| {});
    assert!(!has(&plain, "--") && !has(&plain, "blocks"), "{plain:?}");
    let said = notes(&|o| o.tensor_types = types(&["ffn_up=q8_0", "ffn_gate=q8_0", "norm=f16"]));
    assert!(!has(&said, "ffn_up"), "{said:?}");
    assert!(has(&said, "--tensor-type ffn_gate: ") && has(&said, "--tensor-type norm: "), "{said:?}");
    let output = |o: &mut Options| o.preset_options.output = Some(Format::Q8_0);
    assert!(!has(&notes(&output), "--output-tensor-type"));
    let both = notes(&|o| {
        output(o);
        o.preset_options.embedding = Some(Format::F16);
    });
    assert!(has(&both, "--output-tensor-type has no effect"), "{both:?}");
    let by_name = notes(&|o| {
        output(o);
        o.tensor_types = types(&["token_embd=f16"]);
    });
    assert!(has(&by_name, "--output-tensor-type has no effect"), "{by_name:?}");
    // Rows of 64 hold no block of 256.
    let report = go(&Options { force: true, ..options("tiny-f32", Preset::Q4_K_M, &out) }).unwrap();
    assert!(
        has(&report.notes, "Q4_K_M: other types where rows hold no whole blocks: "),
        "{:?}",
        report.notes
    );
    assert!(has(&report.notes, "blk.0.attn_output.weight Q5_0 for Q4_K"), "{:?}", report.notes);
}

#[test]
fn numbers_of_an_unknown_type_are_found_before_the_first_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut files = in_memory("tiny-f32");
    let file = files.iter_mut().find(|(n, _)| n == "model.safetensors").unwrap();
    // A vector of the last layer, which is far from what a forecast reads: as many bytes of another type.
    let mut bytes = file.1.to_vec();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    header["transformer.h.1.input_layernorm.bias"]["dtype"] = "U32".into();
    let mut header = header.to_string().into_bytes();
    header.resize(header.len().max(length), b' ');
    let data = bytes.split_off(8 + length);
    file.1 = Cow::Owned([&(header.len() as u64).to_le_bytes()[..], &header, &data].concat());
    let options = from_memory(files, Preset::F16, &dir.path().join("a.gguf"));
    let error = forecast(&options, &AtomicBool::new(false)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadInput);
    let text = error.to_string();
    assert!(
        text.contains("model.safetensors: tensor transformer.h.1.input_layernorm.bias has type U32"),
        "{text}"
    );
}

#[test]
fn sums_of_pickled_storages_are_checked_on_request() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, out) = (dir.path().join("bin"), dir.path().join("a.gguf"));
    let recipe = CheckpointRecipe::new(Shape::from_sizes("1x32x2x300").unwrap(), CheckpointLayout::Bin, 1);
    recipe.write(&folder, &(), &AtomicBool::new(false)).unwrap();
    let plain = Options::new(Source::Path(folder.clone()), Preset::F16, &out);
    let verified = Options { verify: true, force: true, ..plain.clone() };
    go(&verified).unwrap();
    // A small weight, changed a little: no number in it is odd, and no tensor looks wrong.
    let weights = folder.join("pytorch_model.bin");
    let mut bytes = std::fs::read(&weights).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    go(&Options { force: true, ..plain }).unwrap();
    std::fs::remove_file(&out).unwrap();
    let error = go(&verified).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadInput);
    assert!(
        error.to_string().contains("pytorch_model.bin: ") && error.to_string().contains("CRC-32"),
        "{error}"
    );
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "only the checkpoint");
}

#[test]
fn texts_beside_the_weights_are_small() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("a.gguf");
    for name in ["config.json", "tokenizer_config.json", "generation_config.json"] {
        let mut files = in_memory("tiny-f32");
        let content = files.iter().find(|(n, _)| n == name).map_or(b"{}".to_vec(), |(_, c)| c.to_vec());
        files.retain(|(n, _)| n != name);
        let long = [content, vec![b' '; 4 << 20]].concat();
        files.push((name.into(), Cow::Owned(long)));
        let error = go(&from_memory(files, Preset::F16, &out)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadInput);
        assert!(error.to_string().contains(name) && error.to_string().contains("at most 4194304"), "{error}");
    }
    let endless = Options {
        chat_template: TemplateChoice::File("/dev/zero".into()),
        ..options("tiny-f32", Preset::F16, &out)
    };
    let error = go(&endless).unwrap_err();
    assert!(error.kind() == ErrorKind::BadInput && error.to_string().contains("/dev/zero"), "{error}");
}
