//! Models in several files: read as one, or refused with the cause.

use std::fs::{self, File};
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};

use huozi_quant::Format;
use huozi_quant::gguf::check::{SHA256_KEY, check, hex, sum};
use huozi_quant::gguf::{Error, Layout, MetaValue, Reader, Rule, TensorSpec, Writer};
use huozi_quant::map::How;
use huozi_quant::random::Random;

type Meta = Vec<(String, MetaValue)>;

/// A part as it is written: its metadata without the keys of the split, its tensors with their lengths.
#[derive(Clone)]
struct Raw {
    meta: Meta,
    number: MetaValue,
    count: MetaValue,
    tensors_count: Option<MetaValue>,
    tensors: Vec<(&'static str, u64)>,
}

fn kv(key: &str, value: MetaValue) -> (String, MetaValue) {
    (key.to_owned(), value)
}

fn content(name: &str, n: u64) -> Vec<u8> {
    (0..4 * n).map(|i| (i * 7 % 251) as u8 ^ name.as_bytes()[0]).collect()
}

/// Three parts with five tensors, as `llama-gguf-split` writes them: the metadata is in the first.
fn good() -> Vec<Raw> {
    let sums = [("a", 5), ("b", 9), ("c", 3), ("d", 1), ("e", 40)];
    let sums = sums.map(|(name, n)| hex(&sum(&content(name, n)))).to_vec();
    let part = |number: u16, meta: Meta, tensors: &[(&'static str, u64)]| Raw {
        meta,
        number: MetaValue::U16(number),
        count: MetaValue::U16(3),
        tensors_count: Some(MetaValue::I32(5)),
        tensors: tensors.to_vec(),
    };
    let whole = vec![
        kv("general.architecture", MetaValue::Str("bloom".into())),
        kv(SHA256_KEY, MetaValue::Strings(sums)),
    ];
    // Each part may have its own alignment.
    let aligned = vec![kv("general.alignment", MetaValue::U32(64))];
    vec![
        part(0, whole, &[("a", 5), ("b", 9)]),
        part(1, Vec::new(), &[("c", 3)]),
        part(2, aligned, &[("d", 1), ("e", 40)]),
    ]
}

fn path(dir: &Path, number: usize) -> PathBuf {
    dir.join(format!("m-{number:05}-of-00003.gguf"))
}

fn write(path: &Path, raw: &Raw) {
    let mut meta = raw.meta.clone();
    meta.push(kv("split.no", raw.number.clone()));
    meta.push(kv("split.count", raw.count.clone()));
    meta.extend(raw.tensors_count.clone().map(|n| kv("split.tensors.count", n)));
    // The sums stand as they are given: the writer would compute those of its own tensors.
    let sums = meta.iter().position(|(key, _)| key == SHA256_KEY);
    if let Some(at) = sums {
        meta[at].0 = "huozi.tensor_sha25X".into();
    }
    let spec =
        |(name, n): &(&str, u64)| TensorSpec { name: (*name).into(), format: Format::F32, dims: vec![*n] };
    let layout = Layout::new(&meta, raw.tensors.iter().map(spec).collect()).unwrap();
    let file = File::options().read(true).write(true).create(true).truncate(true).open(path).unwrap();
    let writer = Writer::create(file, layout).unwrap();
    for (i, (name, n)) in raw.tensors.iter().enumerate() {
        writer.write_at(i, 0, &content(name, *n)).unwrap();
    }
    writer.finish().unwrap();
    let mut bytes = fs::read(path).unwrap();
    let key = b"huozi.tensor_sha25X";
    if let Some(at) = bytes.windows(key.len()).position(|window| window == key) {
        bytes[at + key.len() - 1] = b'6';
        fs::write(path, bytes).unwrap();
    }
}

fn folder(parts: &[Raw]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (i, raw) in parts.iter().enumerate() {
        write(&path(dir.path(), i + 1), raw);
    }
    dir
}

fn open(path: &Path) -> Result<Reader, Error> {
    Reader::open(path, How::Map)
}

/// Opening part 1 of `parts` breaks `rule` and says each of `words`.
#[track_caller]
fn refused(parts: &[Raw], rule: Rule, words: &[&str]) {
    let dir = folder(parts);
    said(open(&path(dir.path(), 1)), rule, words);
}

#[track_caller]
fn said(opened: Result<Reader, Error>, rule: Rule, words: &[&str]) {
    let error = opened.expect_err("opened");
    assert_eq!(error.rule(), Some(rule), "{error}");
    for word in words {
        assert!(error.to_string().contains(word), "{word:?} not in: {error}");
    }
}

#[test]
fn the_parts_are_read_as_one() {
    let dir = folder(&good());
    let first = path(dir.path(), 1);
    let total: u64 = (1..=3).map(|n| fs::metadata(path(dir.path(), n)).unwrap().len()).sum();
    for how in [How::Map, How::Read] {
        let mut seen = Vec::new();
        let reader = Reader::open_watched(&first, how, &mut |done| {
            seen.push(done);
            ControlFlow::Continue(())
        });
        let reader = reader.unwrap();
        if how == How::Read {
            assert!(seen.is_sorted() && seen.last() == Some(&total), "{seen:?} of {total}");
        }
        assert_eq!((reader.file_bytes(), reader.parts().len()), (total, 3));
        assert_eq!(reader.name(), first.display().to_string());
        assert_eq!(reader.meta().str("general.architecture").unwrap(), Some("bloom"));
        let all: Vec<_> = reader.tensors().iter().map(|t| (t.name.as_str(), t.part)).collect();
        assert_eq!(all, [("a", 0), ("b", 0), ("c", 1), ("d", 2), ("e", 2)]);
        for (name, n) in [("a", 5), ("b", 9), ("c", 3), ("d", 1), ("e", 40)] {
            let tensor = reader.tensor(name).unwrap();
            assert_eq!(*reader.bytes(tensor), content(name, n), "{name}");
        }
        let mut paged = Vec::new();
        reader.page_in(&mut |done| {
            paged.push(done);
            ControlFlow::Continue(())
        });
        assert!(paged.is_sorted() && paged.iter().all(|&done| done <= total));
        reader.check_length().unwrap();
    }
    // The sums of the whole are in the first part, over the tensors of all.
    let checked = check(&first, &|_| Ok(())).unwrap();
    assert_eq!((checked.tensors, checked.sums, checked.damaged), (5, true, vec![]));
    let reader = open(&first).unwrap();
    let tensor = reader.tensor("e").unwrap().clone();
    File::options()
        .write(true)
        .open(path(dir.path(), 3))
        .unwrap()
        .write_all_at(&[1], tensor.offset + 9)
        .unwrap();
    assert_eq!(check(&first, &|_| Ok(())).unwrap().damaged, ["e"]);
    // A part that shrinks is noticed.
    File::options().write(true).open(path(dir.path(), 3)).unwrap().set_len(100).unwrap();
    assert!(reader.check_length().is_err());
}

#[test]
fn links_lead_to_the_parts() {
    let dir = folder(&good());
    let links = tempfile::tempdir().unwrap();
    // As in the Hugging Face cache: the links have the names of the parts, the files have not.
    for number in 1..=3 {
        let blob = links.path().join(format!("blob{number}"));
        fs::copy(path(dir.path(), number), &blob).unwrap();
        symlink(&blob, path(links.path(), number)).unwrap();
    }
    assert_eq!(open(&path(links.path(), 1)).unwrap().tensors().len(), 5);
    // One link with a name of its own to the first part.
    let own = links.path().join("model.gguf");
    symlink(path(dir.path(), 1), &own).unwrap();
    assert_eq!(open(&own).unwrap().tensors().len(), 5);
    // And a link to that.
    let chain = links.path().join("chain.gguf");
    symlink("model.gguf", &chain).unwrap();
    assert_eq!(open(&chain).unwrap().tensors().len(), 5);
    // A file that says that it is the only part is whole, whatever its name.
    let mut single = good()[0].clone();
    (single.count, single.tensors_count) = (MetaValue::U16(1), None);
    let whole = links.path().join("whole.gguf");
    write(&whole, &single);
    assert_eq!(open(&whole).unwrap().tensors().len(), 2);
    let bytes = fs::read(&whole).unwrap();
    assert!(Reader::from_bytes("whole", bytes).is_ok());
}

#[test]
fn another_part_or_name_is_refused_with_the_way_out() {
    let dir = folder(&good());
    let first = path(dir.path(), 1).display().to_string();
    for number in [2, 3] {
        let words = [&format!("give {first}")[..], &format!("part {number} of 3")];
        said(open(&path(dir.path(), number)), Rule::Split, &words);
    }
    let odd = dir.path().join("part-b.gguf");
    fs::rename(path(dir.path(), 2), &odd).unwrap();
    said(open(&odd), Rule::Split, &["-00001-of-00003.gguf", "part 2 of 3"]);
    said(
        open(&path(dir.path(), 1)),
        Rule::Split,
        &["part 2 of 3", &path(dir.path(), 2).display().to_string(), "no such file"],
    );
    let renamed = dir.path().join("huozi.gguf");
    fs::rename(path(dir.path(), 1), &renamed).unwrap();
    said(open(&renamed), Rule::Split, &["ends in -00001-of-00003.gguf", "huozi.gguf", "part 1 of 3"]);
    // The name says another count than the file.
    let wrong = dir.path().join("m-00001-of-00002.gguf");
    fs::rename(&renamed, &wrong).unwrap();
    said(open(&wrong), Rule::Split, &["-00001-of-00003.gguf"]);
    let bytes = fs::read(&wrong).unwrap();
    said(Reader::from_bytes("m", bytes), Rule::Split, &["part 1 of 3 without the others"]);
    // A part that is there and cannot be opened is told by its own name.
    let dir = folder(&good());
    fs::remove_file(path(dir.path(), 3)).unwrap();
    fs::create_dir(path(dir.path(), 3)).unwrap();
    let error = open(&path(dir.path(), 1)).unwrap_err();
    assert!(error.rule().is_none() && error.to_string().contains("m-00003-of-00003.gguf"), "{error}");
}

#[test]
fn parts_that_do_not_fit_together_are_refused() {
    let with = |change: &dyn Fn(&mut Vec<Raw>)| {
        let mut parts = good();
        change(&mut parts);
        parts
    };
    let second = "m-00002-of-00003.gguf";
    refused(&with(&|p| p[1].number = MetaValue::U16(2)), Rule::Split, &[second, "split.no"]);
    refused(&with(&|p| p[1].count = MetaValue::U16(4)), Rule::Split, &[second, "split.count"]);
    refused(&with(&|p| p[1].tensors_count = Some(MetaValue::I32(6))), Rule::Split, &["split.tensors.count"]);
    refused(&with(&|p| p[1].tensors = vec![("b", 9)]), Rule::TensorTwice, &[second, "\"b\"", "00001-of"]);
    refused(&with(&|p| p[1].tensors.clear()), Rule::Split, &["5 tensors", "found 4"]);
    refused(&with(&|p| p[1].tensors.push(("f", 1))), Rule::Split, &["found 6"]);
    let named = |name: &str| vec![kv("general.architecture", MetaValue::Str(name.into()))];
    refused(&with(&|p| p[2].meta = named("llama")), Rule::Split, &["00003-of", "llama", "another model"]);
    assert_eq!(
        open(&path(folder(&with(&|p| p[2].meta = named("bloom"))).path(), 1)).unwrap().parts().len(),
        3
    );
    // Every part is the first one.
    let dir = folder(&good());
    for number in [2, 3] {
        fs::remove_file(path(dir.path(), number)).unwrap();
        symlink(path(dir.path(), 1), path(dir.path(), number)).unwrap();
    }
    said(open(&path(dir.path(), 1)), Rule::Split, &[second, "split.no", "found 0"]);
    // Counts that no model has, and those without a number.
    refused(&with(&|p| p[0].count = MetaValue::U16(u16::MAX)), Rule::Split, &["at most 1024"]);
    refused(&with(&|p| p[0].count = MetaValue::U64(u64::MAX)), Rule::Split, &["at most 1024"]);
    refused(&with(&|p| p[0].count = MetaValue::I32(-1)), Rule::WrongType, &["split.count"]);
    refused(&with(&|p| p[0].count = MetaValue::Str("3".into())), Rule::WrongType, &["split.count"]);
    refused(&with(&|p| p[0].number = MetaValue::U16(7)), Rule::Split, &["split.no", "below the 3"]);
    refused(&with(&|p| p[0].number = MetaValue::Bool(false)), Rule::WrongType, &["split.no"]);
}

#[test]
fn damaged_parts_give_a_reader_or_an_error() {
    let dir = folder(&good());
    let parts: Vec<Vec<u8>> = (1..=3).map(|n| fs::read(path(dir.path(), n)).unwrap()).collect();
    let (mut opened, mut refused) = (0, 0);
    for seed in 0..600 {
        let mut random = Random::new(seed);
        let mut below = |n: usize| random.below(n as u64) as usize;
        let victim = below(3);
        let mut bytes = parts[victim].clone();
        for _ in 0..=below(3) {
            let at = below(bytes.len().min(500));
            match below(3) {
                0 => bytes[at] = below(256) as u8,
                1 => bytes[at] ^= 1 << below(8),
                _ => bytes.truncate(at + 1),
            }
        }
        fs::write(path(dir.path(), victim + 1), &bytes).unwrap();
        match open(&path(dir.path(), 1)) {
            Ok(reader) => {
                opened += 1;
                // Every tensor lies in its part.
                for t in reader.tensors() {
                    assert_eq!(reader.bytes(t).len() as u64, t.bytes, "seed {seed}");
                }
            }
            Err(_) => refused += 1,
        }
        fs::write(path(dir.path(), victim + 1), &parts[victim]).unwrap();
    }
    assert!(opened > 20 && refused > 100, "{opened} opened, {refused} refused: the damage does not arrive");
}
