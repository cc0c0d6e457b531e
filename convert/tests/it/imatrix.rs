//! Importance matrices in both formats of llama-imatrix: what they change, and what is refused.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use huozi_convert::pipeline::run;
use huozi_convert::plan::Preset;
use huozi_convert::source::Checkpoint;
use huozi_convert::{Error, ErrorKind};
use huozi_convert::{Options, Report, Source};
use huozi_quant::Format;
use huozi_quant::gguf::{Layout, MetaValue, Reader, TensorSpec, Writer};
use huozi_quant::map::How;

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../src/demo")
}

fn convert(preset: Preset, imatrix: Option<&Path>, out: &Path) -> Result<Report, Error> {
    let options = Options {
        imatrix: imatrix.map(Into::into),
        force: true,
        ..Options::new(Source::Path(demo()), preset, out)
    };
    run(&options, &(), &AtomicBool::new(false))
}

/// Every matrix of the demo but the embedding, with a mean square per column.
fn entries() -> BTreeMap<String, Vec<f32>> {
    let mut all = BTreeMap::new();
    for i in 0..6 {
        for (name, cols) in [("attn_qkv", 256), ("attn_output", 256), ("ffn_up", 256), ("ffn_down", 1024)] {
            let value = |c: usize| if (c + i).is_multiple_of(7) { 40.0 } else { 0.5 + c as f32 / 256.0 };
            all.insert(format!("blk.{i}.{name}.weight"), (0..cols).map(value).collect());
        }
    }
    all
}

const CALLS: i32 = 3;

fn dat(entries: &BTreeMap<String, Vec<f32>>) -> Vec<u8> {
    let mut bytes = (entries.len() as i32).to_le_bytes().to_vec();
    for (name, values) in entries {
        bytes.extend((name.len() as i32).to_le_bytes());
        bytes.extend(name.bytes());
        bytes.extend(CALLS.to_le_bytes());
        bytes.extend((values.len() as i32).to_le_bytes());
        values.iter().for_each(|v| bytes.extend((v * CALLS as f32).to_le_bytes()));
    }
    bytes.extend(12i32.to_le_bytes());
    bytes.extend(9i32.to_le_bytes());
    bytes.extend(b"calib.txt");
    bytes
}

fn gguf(entries: &BTreeMap<String, Vec<f32>>, count: f32, path: &Path) {
    let meta = [
        ("general.type", MetaValue::Str("imatrix".into())),
        ("imatrix.datasets", MetaValue::Strings(vec!["calib.txt".into()])),
        ("imatrix.chunk_count", MetaValue::U32(12)),
        ("imatrix.chunk_size", MetaValue::U32(512)),
    ];
    let meta: Vec<_> = meta.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    let spec =
        |name: String, cols: usize| TensorSpec { name, format: Format::F32, dims: vec![cols as u64, 1] };
    let specs = entries.iter().flat_map(|(name, values)| {
        [spec(format!("{name}.in_sum2"), values.len()), spec(format!("{name}.counts"), 1)]
    });
    let layout = Layout::new(&meta, specs.collect()).unwrap();
    let writer = Writer::create(std::fs::File::create(path).unwrap(), layout).unwrap();
    for (i, values) in entries.values().enumerate() {
        let sums: Vec<u8> = values.iter().flat_map(|v| (v * count).to_le_bytes()).collect();
        writer.write_at(2 * i, 0, &sums).unwrap();
        writer.write_at(2 * i + 1, 0, &count.to_le_bytes()).unwrap();
    }
    writer.finish().unwrap();
}

fn open(path: &Path) -> Reader {
    Reader::open(path, How::Read).unwrap()
}

#[test]
fn both_formats_weigh_the_columns() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("i.dat"), dat(&entries())).unwrap();
    // A power of two: the mean is the value again, exactly.
    gguf(&entries(), 1024.0, &path("i.gguf"));
    let old = convert(Preset::Q4_K_M, Some(&path("i.dat")), &path("old.gguf")).unwrap();
    assert!(!old.notes.iter().any(|n| n.contains("importance")), "{:?}", old.notes);
    convert(Preset::Q4_K_M, Some(&path("i.gguf")), &path("new.gguf")).unwrap();
    convert(Preset::Q4_K_M, None, &path("none.gguf")).unwrap();
    let (old, new, none) = (open(&path("old.gguf")), open(&path("new.gguf")), open(&path("none.gguf")));
    let checkpoint = Checkpoint::open(&demo()).unwrap();
    let source = checkpoint.find("transformer.h.3.mlp.dense_h_to_4h.weight").unwrap();
    let mut weights = vec![0.0; 1024 * 256];
    checkpoint.read_rows(source, 0..1024, &mut weights).unwrap();
    for t in new.tensors() {
        // 3 * x / 3 is not always x: the older format is as near as it gets.
        let same = |a: &Reader, b: &Reader| {
            let (a, b) = (a.bytes(a.tensor(&t.name).unwrap()), b.bytes(b.tensor(&t.name).unwrap()));
            a.iter().zip(b.iter()).filter(|(a, b)| a != b).count() as f64 / a.len() as f64
        };
        assert!(same(&old, &new) < 0.01, "{}", t.name);
        let weighed = entries().contains_key(&t.name);
        assert_eq!(same(&new, &none) > 0.01, weighed, "{}", t.name);
        if t.name == "blk.3.ffn_up.weight" {
            let importance = &entries()[&t.name];
            let mut blocks = vec![0; t.bytes as usize];
            let row = blocks.len() / 1024;
            for (x, out) in weights.chunks_exact(256).zip(blocks.chunks_exact_mut(row)) {
                t.format.encode(x, Some(importance), out);
            }
            assert!(new.bytes(t)[..] == blocks[..]);
        }
    }
    for (file, name) in [(&old, "i.dat"), (&new, "i.gguf")] {
        let meta = file.meta();
        assert_eq!(meta.str("quantize.imatrix.file").unwrap(), Some(name));
        assert_eq!(meta.str("quantize.imatrix.dataset").unwrap(), Some("calib.txt"));
        assert_eq!(meta.uint("quantize.imatrix.entries_count").unwrap(), Some(24));
        assert_eq!(meta.uint("quantize.imatrix.chunks_count").unwrap(), Some(12));
    }
}

#[test]
fn what_is_missing_is_said_and_what_is_wrong_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("i.dat");
    let out = dir.path().join("a.gguf");
    let go = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        convert(Preset::Q4_0, Some(&path), &out)
    };
    let mut some = entries();
    some.remove("blk.2.ffn_up.weight");
    let report = go(&dat(&some)).unwrap();
    assert!(report.notes.iter().any(|n| n.contains("no entry: blk.2.ffn_up.weight")), "{:?}", report.notes);
    let refused = |bytes: &[u8], part: &str| {
        std::fs::remove_file(&out).ok();
        let error = go(bytes).unwrap_err();
        assert!(error.kind() == ErrorKind::BadInput && error.to_string().contains(part), "{error}");
        assert!(error.to_string().contains("i.dat") && !out.exists(), "{error}");
    };
    let with = |values: Vec<f32>| {
        let mut all = entries();
        all.insert("blk.0.ffn_up.weight".into(), values);
        dat(&all)
    };
    refused(&with(vec![1.0; 255]), "blk.0.ffn_up.weight has 255 columns, the model 256");
    refused(&with(vec![-1.0; 256]), "negative");
    refused(&with(vec![f32::NAN; 256]), "no numbers");
    let good = dat(&entries());
    // The text at the end may be missing, the entries may not.
    go(&good[..good.len() - 17]).unwrap();
    for cut in [0, 3, 4, 40, good.len() / 2, good.len() - 18] {
        refused(&good[..cut], "");
    }
    refused(&i32::MAX.to_le_bytes().repeat(8), "cut short");
    refused(&0i32.to_le_bytes(), "no entries");
    refused(b"GGUF....", "i.dat");
    // A model is no importance matrix.
    convert(Preset::Q4_0, None, &path).unwrap();
    let error = convert(Preset::Q4_0, Some(&path), &out).unwrap_err();
    assert!(error.to_string().contains("no entries"), "{error}");
    // Nothing there, too large, endless.
    let none = convert(Preset::Q4_0, Some(&dir.path().join("none")), &out).unwrap_err();
    assert_eq!(none.kind(), ErrorKind::BadInput);
    assert!(none.to_string().contains("none"), "{none}");
    std::fs::File::create(&path).unwrap().set_len((64 << 20) + 1).unwrap();
    for path in [&path, Path::new("/dev/zero")] {
        let error = convert(Preset::Q4_0, Some(path), &out).unwrap_err();
        assert!(
            error.kind() == ErrorKind::BadInput && error.to_string().contains("at most 67108864"),
            "{error}"
        );
    }
    // What stands in the file may be anything.
    let mut all = entries();
    all.insert(format!("\u{1b}[2J{}", "x".repeat(100_000)), vec![-1.0]);
    std::fs::write(&path, dat(&all)).unwrap();
    let error = convert(Preset::Q4_0, Some(&path), &out).unwrap_err().to_string();
    assert!(error.len() < 400 && !error.contains('\u{1b}'), "{}", error.len());
}
