//! Every checkpoint of the repository opens, and its numbers are those that NumPy reads.

use std::path::{Path, PathBuf};

use huozi_convert::source::{Checkpoint, CheckpointKind, Dtype, Error};
use huozi_quant::Format;
use huozi_quant::gguf::{Layout, MetaValue, TensorSpec, Writer};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn read(checkpoint: &Checkpoint, i: usize) -> Vec<f32> {
    let t = &checkpoint.tensors()[i];
    let mut out = vec![f32::NAN; (t.rows() * t.cols()) as usize];
    checkpoint.read_rows(i, 0..t.rows(), &mut out).unwrap();
    out
}

/// The files of a directory as they would be embedded.
fn in_memory(dir: &Path) -> Checkpoint {
    let files = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    let files = files
        .map(|p| (p.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(p).unwrap().into()));
    Checkpoint::from_memory(files.collect()).unwrap()
}

#[test]
fn all_checkpoints_hold_what_numpy_reads() {
    let sums: serde_json::Value =
        serde_json::from_str(include_str!("../fixtures/source-checksums.json")).unwrap();
    assert_eq!(sums.as_object().unwrap().len(), 6);
    for (dir, want) in sums.as_object().unwrap() {
        let dir = root().join(dir);
        let checkpoint = Checkpoint::open(&dir).unwrap();
        assert!(matches!(checkpoint.kind(), CheckpointKind::Hf));
        assert_eq!(checkpoint.quantised().count(), 0);
        let memory = in_memory(&dir);
        let want = want.as_object().unwrap();
        assert_eq!(checkpoint.tensors().len(), want.len(), "{}", dir.display());
        for (i, t) in checkpoint.tensors().iter().enumerate() {
            let want = &want[&t.name];
            assert_eq!(t.dtype.name(), want[0], "{}", t.name);
            assert_eq!(serde_json::json!(t.shape), want[1], "{}", t.name);
            let x = read(&checkpoint, i);
            assert_eq!(t.bytes, (x.len() * t.dtype.format().unwrap().block_bytes()) as u64);
            for (got, want) in x.iter().zip(want[2].as_array().unwrap()) {
                // To f32: serde_json may be one unit off in f64.
                assert_eq!(*got, want.as_f64().unwrap() as f32, "{}", t.name);
            }
            let sum: f64 = x.iter().map(|&x| f64::from(x)).sum();
            let weighted: f64 = x.iter().enumerate().map(|(i, &x)| f64::from(x) * (1 + i % 7) as f64).sum();
            for (got, want) in [(sum, &want[3]), (weighted, &want[4])] {
                let want = want.as_f64().unwrap();
                assert!((got - want).abs() <= 1e-9 * x.len() as f64, "{}: {got} {want}", t.name);
            }
            assert_eq!(read(&memory, memory.find(&t.name).unwrap()), x, "{}", t.name);
        }
    }
}

#[test]
fn rows_in_pieces_are_the_rows_of_the_whole() {
    let checkpoint = Checkpoint::open(&root().join("tests/fixtures/tiny-bin-f16")).unwrap();
    let i = checkpoint.find("transformer.word_embeddings.weight").unwrap();
    let (whole, cols) = (read(&checkpoint, i), checkpoint.tensors()[i].cols());
    std::thread::scope(|s| {
        for start in [0, 1, 500, 1019] {
            let (checkpoint, whole) = (&checkpoint, &whole);
            s.spawn(move || {
                let mut out = vec![0.0; (5 * cols) as usize];
                checkpoint.read_rows(i, start..start + 5, &mut out).unwrap();
                assert_eq!(out, whole[(start * cols) as usize..((start + 5) * cols) as usize]);
            });
        }
    });
    let mut out = vec![0.0; cols as usize];
    assert!(matches!(checkpoint.read_rows(i, 1024..1025, &mut out), Err(Error::Rows { .. })));
    assert!(matches!(checkpoint.read_rows(i, 0..2, &mut out), Err(Error::Rows { .. })));
    assert!(matches!(checkpoint.read_rows(999, 0..1, &mut out), Err(Error::Rows { .. })));
    #[allow(clippy::reversed_empty_ranges, reason = "the point")]
    let reversed = checkpoint.read_rows(i, 2..1, &mut out);
    assert!(matches!(reversed, Err(Error::Rows { .. })));
    checkpoint.read_rows(i, 3..3, &mut []).unwrap();
}

#[test]
fn small_files_beside_the_weights() {
    let checkpoint = Checkpoint::open(&root().join("tests/fixtures/tiny-untied-oldkeys-f16")).unwrap();
    assert!(checkpoint.text("config.json").unwrap().unwrap().contains("n_embed"));
    assert!(checkpoint.text("chat_template.jinja").unwrap().unwrap().contains("messages"));
    assert_eq!(checkpoint.text("generation_config.json").unwrap(), None);
    for path in ["../tiny-f32/config.json", "/etc/hostname", "..", ""] {
        assert!(matches!(checkpoint.text(path), Err(Error::Layout { .. })), "{path}");
    }
    let file = root().join("tests/fixtures/tiny-f32/model.safetensors");
    let error = Checkpoint::open(&file).unwrap_err().to_string();
    assert!(error.contains("one file of a checkpoint; convert its folder"), "{error}");
}

#[test]
fn gguf_rows_are_decoded() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    let (rows, cols) = (3usize, 512usize);
    let x: Vec<f32> = (0..rows * cols).map(|i| (i as f32 * 0.37).sin()).collect();
    let formats = [Format::F32, Format::F16, Format::BF16, Format::Q8_0, Format::Q4_K];
    let specs = formats.map(|format| TensorSpec {
        name: format!("t.{format}"),
        format,
        dims: vec![cols as u64, rows as u64],
    });
    let meta = [("general.architecture".to_owned(), MetaValue::Str("bloom".into()))];
    let layout = Layout::new(&meta, specs.to_vec()).unwrap();
    let writer = Writer::create(std::fs::File::create(&path).unwrap(), layout).unwrap();
    let mut want = Vec::new();
    for (i, format) in formats.into_iter().enumerate() {
        let mut blocks = vec![0; rows * format.row_bytes(cols).unwrap()];
        format.encode(&x, None, &mut blocks);
        writer.write_at(i, 0, &blocks).unwrap();
        let mut decoded = vec![0.0; x.len()];
        format.decode(&blocks, &mut decoded);
        want.push(decoded);
    }
    writer.finish().unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    let CheckpointKind::Gguf(reader) = checkpoint.kind() else { panic!() };
    assert_eq!(reader.meta().str("general.architecture").unwrap(), Some("bloom"));
    let warned: Vec<_> = checkpoint.quantised().map(|t| t.dtype.clone()).collect();
    assert_eq!(warned, [Dtype::Quantised(Format::Q8_0), Dtype::Quantised(Format::Q4_K)]);
    for (i, want) in want.iter().enumerate() {
        assert_eq!(checkpoint.tensors()[i].shape, [rows as u64, cols as u64]);
        assert_eq!(&read(&checkpoint, i), want, "{}", formats[i]);
        let mut last = vec![0.0; cols];
        checkpoint.read_rows(i, 2..3, &mut last).unwrap();
        assert_eq!(last, want[2 * cols..]);
    }
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    assert!(matches!(Checkpoint::open(&path), Err(Error::Gguf(_))));
}
