//! Whole conversions: what is in the file, and what is left when one does not happen.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use huozi_convert::pipeline::{forecast, run};
use huozi_convert::plan::Preset;
use huozi_convert::source::Checkpoint;
use huozi_convert::synth::{CheckpointLayout, CheckpointRecipe};
use huozi_convert::{Error, ErrorKind};
use huozi_convert::{Options, Progress, Report, Source};
use huozi_quant::Format;
use huozi_quant::bloom::shape::Shape;
use huozi_quant::gguf::{Layout, MetaValue, Reader, Value, Writer};
use huozi_quant::map::How;

fn fixture(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    if name == "demo" { root.join("src/demo") } else { root.join("tests/fixtures").join(name) }
}

const TINY: [&str; 5] =
    ["tiny-f32", "tiny-bin-f16", "tiny-6heads-bf16", "tiny-untied-oldkeys-f16", "tiny-k256-f16"];

fn options(source: &str, preset: Preset, out: &Path) -> Options {
    Options { threads: Some(2), ..Options::new(Source::Path(fixture(source)), preset, out) }
}

fn go(options: &Options) -> Result<Report, Error> {
    run(options, &(), &AtomicBool::new(false))
}

fn open(path: &Path) -> Reader {
    Reader::open(path, How::Read).unwrap()
}

fn decoded(reader: &Reader, name: &str) -> Vec<f32> {
    let t = reader.tensor(name).unwrap_or_else(|| panic!("no {name}"));
    let mut out = vec![0.0; t.rows() * t.cols()];
    t.format.decode(&reader.bytes(t), &mut out);
    out
}

/// Everything of a source tensor, by either spelling of its name.
fn source(checkpoint: &Checkpoint, name: &str) -> (Vec<u64>, Vec<f32>) {
    let at = checkpoint.find(name).or_else(|| checkpoint.find(&format!("transformer.{name}")));
    let at = at.unwrap_or_else(|| panic!("no {name}"));
    let t = &checkpoint.tensors()[at];
    let mut out = vec![0.0; t.shape.iter().product::<u64>() as usize];
    let rows = if t.shape.len() == 1 { 1 } else { t.shape[0] };
    checkpoint.read_rows(at, 0..rows, &mut out).unwrap();
    (t.shape.clone(), out)
}

/// The permutation as the Python libraries do it: view as (head, 3, d, rest), then for j: for head: take.
fn stacked(x: &[f32], n_head: usize, cols: usize) -> Vec<f32> {
    let d = x.len() / cols / n_head / 3;
    let mut out = Vec::new();
    for j in 0..3 {
        for head in 0..n_head {
            let start = ((head * 3 + j) * d) * cols;
            out.extend_from_slice(&x[start..start + d * cols]);
        }
    }
    out
}

/// (fixture, heads, layers, width, vocabulary, tied)
const SHAPES: [(&str, usize, u64, u64, u64, bool); 6] = [
    ("tiny-f32", 4, 2, 64, 1024, true),
    ("tiny-bin-f16", 4, 2, 64, 1024, true),
    ("tiny-6heads-bf16", 6, 3, 96, 1024, true),
    ("tiny-untied-oldkeys-f16", 4, 2, 64, 1024, false),
    ("tiny-k256-f16", 2, 2, 256, 1024, true),
    ("demo", 4, 6, 256, 6144, true),
];

/// Calls `check` with every tensor of the file, its expected values in GGUF's order, and whether it is a matrix.
fn each_tensor(
    path: &Path,
    shape: (&str, usize, u64, u64, u64, bool),
    mut check: impl FnMut(&str, Format, &[f32], &[f32], bool),
) {
    let (name, n_head, n_layer, e, n_vocab, tied) = shape;
    let checkpoint = Checkpoint::open(&fixture(name)).unwrap();
    let reader = open(path);
    let mut pairs = vec![
        ("token_embd.weight".to_owned(), "word_embeddings.weight".to_owned(), vec![n_vocab, e]),
        ("token_embd_norm.weight".into(), "word_embeddings_layernorm.weight".into(), vec![e]),
        ("token_embd_norm.bias".into(), "word_embeddings_layernorm.bias".into(), vec![e]),
        ("output_norm.weight".into(), "ln_f.weight".into(), vec![e]),
        ("output_norm.bias".into(), "ln_f.bias".into(), vec![e]),
    ];
    if !tied {
        pairs.push(("output.weight".into(), "lm_head.weight".into(), vec![n_vocab, e]));
    }
    for i in 0..n_layer {
        for (gguf, hf, rows, cols) in [
            ("attn_norm", "input_layernorm", e, 0),
            ("attn_qkv", "self_attention.query_key_value", 3 * e, e),
            ("attn_output", "self_attention.dense", e, e),
            ("ffn_norm", "post_attention_layernorm", e, 0),
            ("ffn_up", "mlp.dense_h_to_4h", 4 * e, e),
            ("ffn_down", "mlp.dense_4h_to_h", e, 4 * e),
        ] {
            let matrix = if cols == 0 { vec![rows] } else { vec![rows, cols] };
            pairs.push((format!("blk.{i}.{gguf}.weight"), format!("h.{i}.{hf}.weight"), matrix));
            pairs.push((format!("blk.{i}.{gguf}.bias"), format!("h.{i}.{hf}.bias"), vec![rows]));
        }
    }
    assert_eq!(reader.tensors().len(), pairs.len(), "{name}");
    for (gguf, hf, shape) in pairs {
        let (stored_shape, stored) = source(&checkpoint, &hf);
        assert_eq!(stored_shape, shape, "{name} {hf}");
        let info = reader.tensor(&gguf).unwrap_or_else(|| panic!("{name}: no {gguf}"));
        assert_eq!(info.dims, shape.iter().rev().copied().collect::<Vec<_>>(), "{name} {gguf}");
        let cols = if shape.len() == 1 { 1 } else { shape[1] as usize };
        let expected = if gguf.contains("attn_qkv") { stacked(&stored, n_head, cols) } else { stored };
        check(&gguf, info.format, &decoded(&reader, &gguf), &expected, shape.len() == 2);
    }
}

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

/// The files of a fixture, to be changed.
fn in_memory(name: &str) -> Vec<(String, Cow<'static, [u8]>)> {
    let entries = std::fs::read_dir(fixture(name)).unwrap().map(|e| e.unwrap());
    let wanted = entries.filter(|e| !e.file_name().to_string_lossy().starts_with("reference"));
    wanted
        .map(|e| (e.file_name().into_string().unwrap(), Cow::Owned(std::fs::read(e.path()).unwrap())))
        .collect()
}

/// Rewrites `model.safetensors`: `change` gets name, shape and raw bytes of each tensor and may add more.
fn with_weights(
    name: &str,
    change: impl FnOnce(&mut Vec<(String, Vec<usize>, Vec<u8>)>),
) -> Vec<(String, Cow<'static, [u8]>)> {
    use safetensors::{Dtype, SafeTensors, serialize, tensor::TensorView};
    let mut files = in_memory(name);
    let file = files.iter_mut().find(|(n, _)| n == "model.safetensors").unwrap();
    let (mut list, dtype) = {
        let parsed = SafeTensors::deserialize(&file.1).unwrap();
        let list: Vec<_> =
            parsed.tensors().into_iter().map(|(n, t)| (n, t.shape().to_vec(), t.data().to_vec())).collect();
        (list, if name == "tiny-f32" { Dtype::F32 } else { Dtype::F16 })
    };
    change(&mut list);
    let views = list.iter().map(|(n, s, d)| (n.clone(), TensorView::new(dtype, s.clone(), d).unwrap()));
    file.1 = Cow::Owned(serialize(views, None).unwrap());
    files
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

/// A GGUF file of these keys, without tensors.
fn gguf(path: &Path, meta: &[(&str, MetaValue)]) {
    let meta: Vec<_> = meta.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
    let layout = Layout::new(&meta, Vec::new()).unwrap();
    Writer::create(std::fs::File::create(path).unwrap(), layout).unwrap().finish().unwrap();
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

fn from_memory(files: Vec<(String, Cow<'static, [u8]>)>, preset: Preset, out: &Path) -> Options {
    Options::new(Source::Memory(files), preset, out)
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
    let endless =
        Options { chat_template: Some("/dev/zero".into()), ..options("tiny-f32", Preset::F16, &out) };
    let error = go(&endless).unwrap_err();
    assert!(error.kind() == ErrorKind::BadInput && error.to_string().contains("/dev/zero"), "{error}");
}

#[test]
fn same_bytes_for_any_threads_and_in_company() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = |options: &Options| {
        go(options).unwrap();
        options.outputs.iter().map(|(_, path)| std::fs::read(path).unwrap()).collect::<Vec<_>>()
    };
    let out = |n: &str| dir.path().join(n);
    let one = bytes(&Options { threads: Some(1), ..options("demo", Preset::Q4_0, &out("1")) });
    let two = bytes(&Options { threads: Some(2), ..options("demo", Preset::Q4_0, &out("2")) });
    let company = bytes(&Options {
        outputs: vec![(Preset::Q8_0, out("3")), (Preset::Q4_0, out("4"))],
        threads: Some(3),
        ..options("demo", Preset::Q8_0, &out("3"))
    });
    assert!(one[0] == two[0], "threads change the file");
    assert!(one[0] == company[1], "company changes the file");
    let again = bytes(&Options { force: true, ..options("demo", Preset::Q4_0, &out("4")) });
    assert!(one[0] == again[0], "what was there before changes the file");
}

#[test]
fn cancelling_gives_no_name_and_keeps_what_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("a.gguf");
    let names = || {
        let mut names: Vec<_> =
            std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    };
    // Before the first chunk: nothing is worth keeping.
    let cancel = AtomicBool::new(true);
    let result = run(&options("demo", Preset::F32, &out), &(), &cancel);
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Interrupted);
    assert!(names().is_empty(), "{:?}", names());
    // The last moment: everything encoded, nothing renamed.
    struct AtSync<'a>(&'a AtomicBool);
    impl Progress for AtSync<'_> {
        fn sync(&self, _: u64) {
            self.0.store(true, Relaxed);
        }
    }
    std::fs::write(&out, "mine").unwrap();
    let cancel = AtomicBool::new(false);
    let forced = Options { force: true, ..options("demo", Preset::Q8_0, &out) };
    assert_eq!(run(&forced, &AtSync(&cancel), &cancel).unwrap_err().kind(), ErrorKind::Interrupted);
    assert_eq!(names(), ["a.gguf", "a.gguf.journal", "a.gguf.partial"]);
    assert_eq!(std::fs::read(&out).unwrap(), b"mine");
    // The sums were not waited for: no header yet.
    assert_eq!(std::fs::read(dir.path().join("a.gguf.partial")).unwrap()[..4], [0; 4]);
    go(&forced).unwrap();
    assert_eq!(names(), ["a.gguf"]);
}

#[test]
fn progress_tells_each_byte_once() {
    #[derive(Default)]
    struct Told {
        start: AtomicU64,
        advance: AtomicU64,
        sync: AtomicU64,
        summed: AtomicU64,
    }
    impl Progress for Told {
        fn start(&self, bytes: u64) {
            self.start.fetch_add(bytes, Relaxed);
        }
        fn advance(&self, bytes: u64) {
            self.advance.fetch_add(bytes, Relaxed);
        }
        fn sync(&self, bytes: u64) {
            self.sync.fetch_add(bytes, Relaxed);
        }
        fn summed(&self, bytes: u64) {
            self.summed.fetch_add(bytes, Relaxed);
        }
        fn verify(&self, bytes: u64) {
            self.start(bytes);
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let both = Options {
        outputs: vec![(Preset::Q8_0, dir.path().join("a")), (Preset::F16, dir.path().join("b"))],
        verify: true,
        ..options("tiny-bin-f16", Preset::Q8_0, dir.path())
    };
    let told = Told::default();
    let report = run(&both, &told, &AtomicBool::new(false)).unwrap();
    // Converted, compared with each file, summed as the archive says (other numbers than weights too).
    let Told { start, advance, sync, summed } = told;
    let (start, advance) = (start.into_inner(), advance.into_inner());
    assert!(start == advance && start > 3 * report.source_bytes, "{start} {advance} {}", report.source_bytes);
    let (sync, summed) = (sync.into_inner(), summed.into_inner());
    let data = report.outputs.iter().flat_map(|o| &o.file.formats).map(|f| f.bytes).sum::<u64>();
    assert_eq!((sync, summed), (data, data));
}

#[test]
fn outputs_that_would_destroy_something_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("a.gguf");
    std::fs::write(&out, "mine").unwrap();
    let error = go(&options("tiny-f32", Preset::F16, &out)).unwrap_err();
    assert!(matches!(error, Error::Exists(_)) && error.kind() == ErrorKind::Usage, "{error}");
    assert_eq!(std::fs::read(&out).unwrap(), b"mine");
    assert_eq!(go(&options("tiny-f32", Preset::F16, dir.path())).unwrap_err().kind(), ErrorKind::Usage);
    let twice = Options {
        outputs: vec![(Preset::F16, dir.path().join("b")), (Preset::F32, dir.path().join("./b"))],
        ..options("tiny-f32", Preset::F16, &out)
    };
    assert_eq!(go(&twice).unwrap_err().kind(), ErrorKind::Usage);
    assert!(go(&options("tiny-f32", Preset::F16, &dir.path().join("no/such/dir.gguf"))).is_err());

    // Its own input: by name, by hard link, by symbolic link, by the name of the partial file.
    let model = dir.path().join("model");
    std::fs::create_dir(&model).unwrap();
    for (name, bytes) in in_memory("tiny-f32") {
        std::fs::write(model.join(name), bytes).unwrap();
    }
    let weights = model.join("model.safetensors");
    let before = std::fs::read(&weights).unwrap();
    std::fs::hard_link(&weights, dir.path().join("hard")).unwrap();
    std::os::unix::fs::symlink(&weights, dir.path().join("soft")).unwrap();
    std::fs::hard_link(&weights, dir.path().join("new.partial")).unwrap();
    for target in [
        weights.clone(),
        model.join("tokenizer.json"),
        dir.path().join("hard"),
        dir.path().join("soft"),
        dir.path().join("new"),
    ] {
        let own = Options { force: true, ..Options::new(Source::Path(model.clone()), Preset::F16, &target) };
        let error = go(&own).unwrap_err();
        assert!(matches!(error, Error::SameFile(_)), "{}: {error}", target.display());
        assert!(std::fs::read(&weights).unwrap() == before, "{}", target.display());
    }
    // Whatever else is read, by any name.
    use std::os::unix::ffi::OsStrExt;
    let odd = dir.path().join(std::ffi::OsStr::from_bytes(b"odd\xff"));
    let recipe = CheckpointRecipe {
        shard_bytes: 30_000,
        ..CheckpointRecipe::new(Shape::from_sizes("1x32x2x300").unwrap(), CheckpointLayout::Safetensors, 1)
    };
    recipe.write(&odd, &(), &AtomicBool::new(false)).unwrap();
    let (imatrix, template) = (dir.path().join("i.dat"), dir.path().join("t.partial"));
    let entry = [&[1, 0, 0, 0, 1, 0, 0, 0, b'x', 1, 0, 0, 0, 1, 0, 0, 0][..], &1f32.to_le_bytes()].concat();
    std::fs::write(&imatrix, entry).unwrap();
    std::fs::write(&template, "{{ messages }}").unwrap();
    for target in [
        odd.join("model-00001-of-00002.safetensors"),
        odd.join("model.safetensors.index.json"),
        odd.join("config.json"),
        odd.join("tokenizer_config.json"),
        odd.join("README.md"),
        imatrix.clone(),
        template.clone(),
        dir.path().join("t"),
    ] {
        let before = std::fs::read(&target).ok();
        let own = Options {
            force: true,
            imatrix: Some(imatrix.clone()),
            chat_template: Some(template.clone()),
            ..Options::new(Source::Path(odd.clone()), Preset::F16, &target)
        };
        let error = go(&own).unwrap_err();
        assert!(matches!(error, Error::SameFile(_)), "{}: {error}", target.display());
        assert_eq!(std::fs::read(&target).ok(), before, "{}", target.display());
        assert_eq!(std::fs::read(&template).unwrap(), b"{{ messages }}");
    }
    // Somebody's file behind the name of a partial one, by either kind of link.
    let other = dir.path().join("other");
    std::fs::write(&other, "mine").unwrap();
    std::os::unix::fs::symlink(&other, dir.path().join("x.gguf.partial")).unwrap();
    std::fs::hard_link(&other, dir.path().join("y.gguf.partial")).unwrap();
    for name in ["x.gguf", "y.gguf"] {
        let error = go(&options("tiny-f32", Preset::F16, &dir.path().join(name))).unwrap_err();
        assert!(error.kind() == ErrorKind::Usage && error.to_string().contains(".partial is a "), "{error}");
        assert_eq!(std::fs::read(&other).unwrap(), b"mine");
        assert!(dir.path().join(format!("{name}.partial")).exists());
    }
    // One output where another is being written.
    let crossed = Options {
        outputs: vec![(Preset::F16, dir.path().join("z.partial")), (Preset::F32, dir.path().join("z"))],
        ..options("tiny-f32", Preset::F16, &out)
    };
    assert_eq!(go(&crossed).unwrap_err().kind(), ErrorKind::Usage);
    // Somebody else is at it.
    let busy = dir.path().join("busy.gguf");
    let lock = std::fs::File::create(dir.path().join("busy.gguf.partial")).unwrap();
    lock.lock().unwrap();
    assert!(matches!(go(&options("tiny-f32", Preset::F16, &busy)), Err(Error::Busy(_))));
    assert!(dir.path().join("busy.gguf.partial").exists());
    drop(lock);
    // Left over by a process that was killed: no obstacle.
    go(&options("tiny-f32", Preset::F16, &busy)).unwrap();
    assert!(!dir.path().join("busy.gguf.partial").exists());
}

#[test]
fn a_gguf_source_keeps_its_metadata() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second, direct) =
        (dir.path().join("1.gguf"), dir.path().join("2.gguf"), dir.path().join("3.gguf"));
    for name in TINY {
        let force = |o: Options| Options { force: true, ..o };
        go(&force(options(name, Preset::F32, &first))).unwrap();
        go(&force(Options {
            threads: Some(2),
            ..Options::new(Source::Path(first.clone()), Preset::Q4_K_M, &second)
        }))
        .unwrap();
        go(&force(options(name, Preset::Q4_K_M, &direct))).unwrap();
        assert!(
            std::fs::read(&second).unwrap() == std::fs::read(&direct).unwrap(),
            "{name}: a way round changes the file"
        );
        // A quantised source says so; its own file is refused.
        let again =
            force(Options::new(Source::Path(second.clone()), Preset::Q8_0, dir.path().join("4.gguf")));
        let report = go(&again).unwrap();
        assert!(report.notes.iter().any(|n| n.contains("quantised already")), "{:?}", report.notes);
        let own = force(Options::new(Source::Path(second.clone()), Preset::Q8_0, &second));
        assert!(matches!(go(&own), Err(Error::SameFile(_))));
    }
}

#[test]
fn quantised_blocks_that_stay_as_they_are_are_copied() {
    let dir = tempfile::tempdir().unwrap();
    for preset in [Preset::Q8_0, Preset::Q4_K_M, Preset::Q2_K, Preset::IQ4_XS] {
        let (first, second) = (dir.path().join("1.gguf"), dir.path().join("2.gguf"));
        let force = |o: Options| Options { force: true, ..o };
        go(&force(options("tiny-k256-f16", preset, &first))).unwrap();
        let report = go(&force(Options::new(Source::Path(first.clone()), preset, &second))).unwrap();
        assert!(report.outputs[0].worst.is_empty(), "{preset}");
        assert!(std::fs::read(&first).unwrap() == std::fs::read(&second).unwrap(), "{preset}");
        // Q8_0 is near enough to its source to be one.
        assert_eq!(report.notes.iter().any(|n| n.contains("quantised already")), preset != Preset::Q8_0);
    }
}

#[test]
fn types_by_name_metadata_and_template_by_hand() {
    let dir = tempfile::tempdir().unwrap();
    let (out, template) = (dir.path().join("a.gguf"), dir.path().join("t.jinja"));
    std::fs::write(&template, "{{ messages }} 春").unwrap();
    let types = ["blk\\.0\\.ffn=q8_0", "ffn_down=q6_k", "norm|bias|nothing=f16", "token_embd=q5_0"];
    let given = |source| Options {
        tensor_types: types.iter().map(|t| t.parse().unwrap()).collect(),
        metadata: vec![
            ("general.author".into(), "HIT".into()),
            ("tokenizer.ggml.eos_token_id".into(), "3".into()),
        ],
        chat_template: Some(template.clone()),
        force: true,
        ..Options::new(source, Preset::Q4_K_M, &out)
    };
    let check = || {
        let reader = open(&out);
        for (name, format) in [
            ("blk.0.ffn_down.weight", Format::Q8_0),
            ("blk.0.ffn_up.weight", Format::Q8_0),
            ("blk.1.ffn_down.weight", Format::Q6_K),
            ("blk.1.ffn_up.weight", Format::Q4_K),
            ("blk.0.ffn_up.bias", Format::F32),
            ("output_norm.weight", Format::F32),
            ("token_embd.weight", Format::Q5_0),
        ] {
            assert_eq!(reader.tensor(name).unwrap().format, format, "{name}");
        }
        assert_eq!(reader.meta().str("general.author").unwrap(), Some("HIT"));
        assert_eq!(reader.meta().uint("tokenizer.ggml.eos_token_id").unwrap(), Some(3));
        assert_eq!(reader.meta().str("tokenizer.chat_template").unwrap(), Some("{{ messages }} 春"));
    };
    go(&given(Source::Path(fixture("tiny-k256-f16")))).unwrap();
    check();
    let f16 = dir.path().join("f16.gguf");
    go(&options("tiny-k256-f16", Preset::F16, &f16)).unwrap();
    go(&given(Source::Path(f16))).unwrap();
    check();
    // Rows that hold no block get the nearest that fits.
    let small = Options {
        tensor_types: vec!["ffn_up=q4_k".parse().unwrap()],
        force: true,
        ..options("tiny-f32", Preset::F16, &out)
    };
    go(&small).unwrap();
    assert_eq!(open(&out).tensor("blk.0.ffn_up.weight").unwrap().format, Format::Q5_0);
    let wrong = Options { metadata: vec![("bloom.block_count".into(), "1".into())], ..small };
    assert_eq!(go(&wrong).unwrap_err().kind(), ErrorKind::Usage);
    for bad in ["q4_0", "=q4_0", "a=q9", "(=q4_0"] {
        assert!(bad.parse::<huozi_convert::plan::NamedFormat>().is_err(), "{bad}");
    }
}

#[test]
fn missing_and_foreign_parts_are_bad_input() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("a.gguf");
    let without =
        |file: &str| in_memory("tiny-f32").into_iter().filter(|(n, _)| n != file).collect::<Vec<_>>();
    for file in ["config.json", "tokenizer.json"] {
        let error = go(&from_memory(without(file), Preset::F16, &out)).unwrap_err();
        assert!(error.kind() == ErrorKind::BadInput && error.to_string().contains(file), "{error}");
    }
    let files = with_weights("tiny-f32", |list| {
        list.retain(|t| !t.0.ends_with("h.0.mlp.dense_4h_to_h.bias"));
    });
    let error = go(&from_memory(files, Preset::F16, &out)).unwrap_err();
    assert!(
        error.kind() == ErrorKind::BadInput && error.to_string().contains("blk.0.ffn_down.bias"),
        "{error}"
    );
    let mut files = without("config.json");
    files.push(("config.json".into(), Cow::Borrowed(b"{\"model_type\": \"gpt2\"}")));
    let error = go(&from_memory(files, Preset::F16, &out)).unwrap_err();
    assert!(error.kind() == ErrorKind::BadInput && error.to_string().contains("gpt2"), "{error}");
    assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none());
}

#[test]
fn doubled_and_misshapen_tensors_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("a.gguf");
    let refused = |files, says: &[&str]| {
        let error = go(&from_memory(files, Preset::F16, &out)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadInput, "{error}");
        for part in says {
            assert!(error.to_string().contains(part), "{error}");
        }
    };
    // One tensor under both spellings, one whose sides are swapped, one of a layer that the configuration has not.
    let doubled = with_weights("tiny-f32", |list| {
        let (name, shape, data) = list.iter().find(|t| t.0.ends_with("ln_f.bias")).unwrap().clone();
        let other = name.strip_prefix("transformer.").map_or(format!("transformer.{name}"), str::to_owned);
        list.push((other, shape, data));
    });
    refused(doubled, &["stored twice", "ln_f.bias and "]);
    let swapped = with_weights("tiny-f32", |list| {
        list.iter_mut().find(|t| t.0.ends_with("h.1.mlp.dense_4h_to_h.weight")).unwrap().1.reverse();
    });
    refused(swapped, &["wrong shape", "h.1.mlp.dense_4h_to_h.weight is [256, 64], expected [64, 256]"]);
    let foreign = with_weights("tiny-f32", |list| {
        let (_, shape, data) = list.iter().find(|t| t.0.ends_with("ln_f.bias")).unwrap().clone();
        list.push(("transformer.h.2.input_layernorm.bias".into(), shape, data));
    });
    refused(foreign, &["no BLOOM of this configuration", "h.2.input_layernorm.bias"]);
    // More layers, or a larger vocabulary, than the weights have.
    for (key, value, says) in
        [("n_layer", 3, "blk.2.attn_norm.weight"), ("vocab_size", 2000, "expected [2000, 64]")]
    {
        let mut files = in_memory("tiny-f32");
        let config = files.iter_mut().find(|(n, _)| n == "config.json").unwrap();
        let mut json: serde_json::Value = serde_json::from_slice(&config.1).unwrap();
        json[key] = value.into();
        config.1 = Cow::Owned(json.to_string().into_bytes());
        refused(files, &[says]);
    }
    assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none());
}
