//! Whole conversions: threads, progress, what is refused, and what is left when one does not happen.

use crate::convert_support::{TINY, fixture, from_memory, go, in_memory, open, options, with_weights};
use huozi_convert::pipeline::run;
use huozi_convert::plan::Preset;
use huozi_convert::synth::{CheckpointLayout, CheckpointRecipe};
use huozi_convert::{Error, ErrorKind};
use huozi_convert::{Options, Progress, Source, TemplateChoice};
use huozi_quant::Format;
use huozi_quant::bloom::shape::Shape;
use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

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
            chat_template: TemplateChoice::File(template.clone()),
            ..Options::new(Source::Path(odd.clone()), Preset::F16, &target)
        };
        let error = go(&own).unwrap_err();
        assert!(matches!(error, Error::SameFile(_)), "{}: {error}", target.display());
        assert_eq!(std::fs::read(&target).ok(), before, "{}", target.display());
        assert_eq!(std::fs::read(&template).unwrap(), b"{{ messages }}");
    }
    // A file of the user's behind the name of a partial one, by either kind of link.
    let other = dir.path().join("other");
    std::fs::write(&other, "mine").unwrap();
    std::os::unix::fs::symlink(&other, dir.path().join("x.gguf.partial")).unwrap();
    std::fs::hard_link(&other, dir.path().join("y.gguf.partial")).unwrap();
    for own in ["d.gguf.partial", "e.gguf.journal"] {
        std::fs::create_dir(dir.path().join(own)).unwrap();
        let error = go(&options("tiny-f32", Preset::F16, &dir.path().join(&own[..6]))).unwrap_err();
        let expected = format!("{own} is a directory; move it out of the way");
        assert!(error.kind() == ErrorKind::Usage && error.to_string().contains(&expected), "{error}");
    }
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
    // Another process converts.
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
        chat_template: TemplateChoice::File(template.clone()),
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
        error.kind() == ErrorKind::BadInput
            && error.to_string().contains("transformer.h.0.mlp.dense_4h_to_h.bias"),
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
    // One tensor under both spellings, one whose sides are swapped, one of a layer that the configuration has
    // not.
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
        [("n_layer", 3, "h.2.input_layernorm.weight"), ("vocab_size", 2000, "expected [2000, 64]")]
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
