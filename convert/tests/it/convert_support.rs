//! What the tests of whole conversions share.

use huozi_convert::Error;
use huozi_convert::pipeline::run;
use huozi_convert::plan::Preset;
use huozi_convert::source::Checkpoint;
use huozi_convert::{Options, Report, Source};
use huozi_quant::Format;
use huozi_quant::gguf::{Layout, MetaValue, Reader, Writer};
use huozi_quant::map::How;
use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

pub fn fixture(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    if name == "demo" { root.join("src/demo") } else { root.join("tests/fixtures").join(name) }
}

pub const TINY: [&str; 5] =
    ["tiny-f32", "tiny-bin-f16", "tiny-6heads-bf16", "tiny-untied-oldkeys-f16", "tiny-k256-f16"];

pub fn options(source: &str, preset: Preset, out: &Path) -> Options {
    Options { threads: Some(2), ..Options::new(Source::Path(fixture(source)), preset, out) }
}

pub fn go(options: &Options) -> Result<Report, Error> {
    run(options, &(), &AtomicBool::new(false))
}

pub fn open(path: &Path) -> Reader {
    Reader::open(path, How::Read).unwrap()
}

pub fn decoded(reader: &Reader, name: &str) -> Vec<f32> {
    let t = reader.tensor(name).unwrap_or_else(|| panic!("no {name}"));
    let mut out = vec![0.0; t.rows() * t.cols()];
    t.format.decode(&reader.bytes(t), &mut out);
    out
}

/// Everything of a source tensor, by either spelling of its name.
pub fn source(checkpoint: &Checkpoint, name: &str) -> (Vec<u64>, Vec<f32>) {
    let at = checkpoint.find(name).or_else(|| checkpoint.find(&format!("transformer.{name}")));
    let at = at.unwrap_or_else(|| panic!("no {name}"));
    let t = &checkpoint.tensors()[at];
    let mut out = vec![0.0; t.shape.iter().product::<u64>() as usize];
    let rows = if t.shape.len() == 1 { 1 } else { t.shape[0] };
    checkpoint.read_rows(at, 0..rows, &mut out).unwrap();
    (t.shape.clone(), out)
}

/// The permutation as the Python libraries do it: view as (head, 3, d, rest), then for j: for head: take.
pub fn stacked(x: &[f32], n_head: usize, cols: usize) -> Vec<f32> {
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
pub const SHAPES: [(&str, usize, u64, u64, u64, bool); 6] = [
    ("tiny-f32", 4, 2, 64, 1024, true),
    ("tiny-bin-f16", 4, 2, 64, 1024, true),
    ("tiny-6heads-bf16", 6, 3, 96, 1024, true),
    ("tiny-untied-oldkeys-f16", 4, 2, 64, 1024, false),
    ("tiny-k256-f16", 2, 2, 256, 1024, true),
    ("demo", 4, 6, 256, 6144, true),
];

/// Calls `check` with every tensor of the file, its expected values in GGUF's order, and whether it is a
/// matrix.
pub fn each_tensor(
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

/// The files of a fixture, to be changed.
pub fn in_memory(name: &str) -> Vec<(String, Cow<'static, [u8]>)> {
    let entries = std::fs::read_dir(fixture(name)).unwrap().map(|e| e.unwrap());
    let wanted = entries.filter(|e| !e.file_name().to_string_lossy().starts_with("reference"));
    wanted
        .map(|e| (e.file_name().into_string().unwrap(), Cow::Owned(std::fs::read(e.path()).unwrap())))
        .collect()
}

/// Rewrites `model.safetensors`: `change` gets name, shape and raw bytes of each tensor and may add more.
pub fn with_weights(
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

/// A GGUF file of these keys, without tensors.
pub fn gguf(path: &Path, meta: &[(&str, MetaValue)]) {
    let meta: Vec<_> = meta.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
    let layout = Layout::new(&meta, Vec::new()).unwrap();
    Writer::create(std::fs::File::create(path).unwrap(), layout).unwrap().finish().unwrap();
}

pub fn from_memory(files: Vec<(String, Cow<'static, [u8]>)>, preset: Preset, out: &Path) -> Options {
    Options::new(Source::Memory(files), preset, out)
}
