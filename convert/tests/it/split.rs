//! Split GGUF files as sources.

use std::fs::{self, File};
use std::path::Path;

use crate::convert_support::{go, open, options};
use huozi_convert::plan::Preset;
use huozi_convert::{Options, Source};
use huozi_quant::gguf::{Layout, MetaValue, Reader, TensorInfo, TensorSpec, Writer};

/// Writes `from` again in parts of `most` tensors, as `llama-gguf-split --split-max-tensors` does.
fn split(from: &Reader, dir: &Path, most: usize) -> usize {
    let parts: Vec<&[TensorInfo]> = from.tensors().chunks(most).collect();
    for (i, part) in parts.iter().enumerate() {
        let mut meta: Vec<(String, MetaValue)> = Vec::new();
        if i == 0 {
            meta.extend(
                from.meta()
                    .iter()
                    .filter(|(k, _)| !k.starts_with("huozi."))
                    .map(|(k, v)| (k.to_owned(), v.into())),
            );
        }
        meta.push(("split.no".into(), MetaValue::U16(i as u16)));
        meta.push(("split.count".into(), MetaValue::U16(parts.len() as u16)));
        meta.push(("split.tensors.count".into(), MetaValue::I32(from.tensors().len() as i32)));
        let spec =
            |t: &TensorInfo| TensorSpec { name: t.name.clone(), format: t.format, dims: t.dims.clone() };
        let layout = Layout::new(&meta, part.iter().map(spec).collect()).unwrap();
        let path = dir.join(format!("m-{:05}-of-{:05}.gguf", i + 1, parts.len()));
        let writer = Writer::create(File::create(path).unwrap(), layout).unwrap();
        for (j, t) in part.iter().enumerate() {
            writer.write_at(j, 0, &from.bytes(t)).unwrap();
        }
        writer.finish().unwrap();
    }
    parts.len()
}

#[test]
fn a_split_source_gives_the_file_of_the_whole_one() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole.gguf");
    go(&options("tiny-f32", Preset::F32, &whole)).unwrap();
    let n = split(&open(&whole), dir.path(), 12);
    assert_eq!(n, 3);
    let convert = |source: &Path, out: &str| {
        let path = dir.path().join(out);
        let mut options = Options::new(Source::Path(source.to_owned()), Preset::Q8_0, &path);
        options.verify = true;
        go(&options).map(|report| (fs::read(&path).unwrap(), report.notes))
    };
    let first = dir.path().join("m-00001-of-00003.gguf");
    let (one, _) = convert(&whole, "one.gguf").unwrap();
    let (parts, _) = convert(&first, "parts.gguf").unwrap();
    assert!(one == parts, "the same file");
    let reader = open(&dir.path().join("parts.gguf"));
    assert!(reader.meta().iter().all(|(key, _)| !key.starts_with("split.")));
    // Another part, a part that is gone, an output in the place of a part.
    let error = convert(&dir.path().join("m-00002-of-00003.gguf"), "x.gguf").unwrap_err().to_string();
    assert!(error.contains("give ") && error.contains("m-00001-of-00003.gguf"), "{error}");
    let mut onto =
        Options::new(Source::Path(first.clone()), Preset::Q8_0, dir.path().join("m-00003-of-00003.gguf"));
    onto.force = true;
    let error = go(&onto).unwrap_err().to_string();
    assert!(error.contains("one of the files that are read"), "{error}");
    fs::remove_file(dir.path().join("m-00003-of-00003.gguf")).unwrap();
    let error = convert(&first, "x.gguf").unwrap_err().to_string();
    assert!(error.contains("part 3 of 3") && error.contains("no such file"), "{error}");
}
