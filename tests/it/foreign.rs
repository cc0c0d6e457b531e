//! GGUF files as other programs write them: run, or refused with the cause, and the same at every door.

use crate::common::{arg, finish, huozi, model, run};
use huozi::open::{OpenOptions, Source, open, silent};
use huozi_convert::plan::Preset;
use huozi_convert::{Options, pipeline};
use huozi_quant::gguf::{Layout, MetaValue, Reader, TensorSpec, Writer, check};
use huozi_quant::map::How;
use huozi_token::{Specials, TokenKind, Tokenizer};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

type Keys = Vec<(String, MetaValue)>;
type Change = fn(&mut Keys);

const PRE: &str = "tokenizer.ggml.pre";
const TYPES: &str = "tokenizer.ggml.token_type";

/// The tiny model with other metadata.
fn changed(folder: &Path, name: &str, change: impl FnOnce(&mut Keys)) -> PathBuf {
    let reader = Reader::open(&model("tiny-f32", Preset::F32), How::Read).unwrap();
    let keys = reader.meta().iter().filter(|(key, _)| *key != check::SHA256_KEY);
    let mut keys: Keys = keys.map(|(key, value)| (key.to_owned(), value.into())).collect();
    change(&mut keys);
    let tensors = reader.tensors().iter().map(|t| TensorSpec {
        name: t.name.clone(),
        format: t.format,
        dims: t.dims.clone(),
    });
    let path = folder.join(name);
    let layout = Layout::new(&keys, tensors.collect()).unwrap();
    let writer = Writer::create(File::create(&path).unwrap(), layout).unwrap();
    for (i, t) in reader.tensors().iter().enumerate() {
        writer.write_at(i, 0, &reader.bytes(t)).unwrap();
    }
    writer.finish().unwrap();
    path
}

fn set(keys: &mut Keys, key: &str, value: MetaValue) {
    drop_key(keys, key);
    keys.push((key.to_owned(), value));
}

fn drop_key(keys: &mut Keys, key: &str) {
    keys.retain(|(k, _)| k != key);
}

fn tokenizer(path: &Path) -> Tokenizer {
    Tokenizer::from_gguf(Reader::open(path, How::Read).unwrap().meta()).unwrap()
}

/// Converts the file to another type; `Err`: the message.
fn convert(path: &Path) -> Result<Vec<String>, String> {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.gguf");
    let source = huozi_convert::Source::Path(path.to_owned());
    let options = Options::new(source, Preset::F16, &out);
    let done = pipeline::run(&options, &(), &AtomicBool::new(false));
    assert_eq!(done.is_ok(), out.exists());
    done.map(|report| report.notes).map_err(|error| error.to_string())
}

const TEXT: &str = "白日依山尽，黄河入海流。a  b, c|d (e) 你好</s><|endofutterance|>\n12";

#[test]
fn other_names_of_the_split_and_missing_ones_give_the_same_ids() {
    let folder = tempfile::tempdir().unwrap();
    let usual = tokenizer(&model("tiny-f32", Preset::F32));
    let cases: [(&str, Change, usize); 7] = [
        ("gpt3-finnish.gguf", |keys| set(keys, PRE, MetaValue::Str("gpt3-finnish".into())), 0),
        ("poro.gguf", |keys| set(keys, PRE, MetaValue::Str("poro-chat".into())), 0),
        ("no-pre.gguf", |keys| drop_key(keys, PRE), 1),
        ("default.gguf", |keys| set(keys, PRE, MetaValue::Str("default".into())), 1),
        ("no-types.gguf", |keys| drop_key(keys, TYPES), 1),
        ("all-normal.gguf", |keys| set(keys, TYPES, MetaValue::I32s(vec![1; 1024])), 1),
        (
            "neither.gguf",
            |keys| {
                set(keys, PRE, MetaValue::Str("gpt3-finnish".into()));
                drop_key(keys, TYPES);
                drop_key(keys, "tokenizer.ggml.suppress_tokens");
            },
            1,
        ),
    ];
    for (name, change, warnings) in cases {
        let path = changed(folder.path(), name, change);
        let ours = tokenizer(&path);
        for specials in [Specials::Parse, Specials::Plain] {
            assert_eq!(ours.encode(TEXT, specials), usual.encode(TEXT, specials), "{name} {specials:?}");
        }
        assert_eq!(ours.vocab().stop_ids(), usual.vocab().stop_ids(), "{name}");
        assert_eq!(ours.vocab().controls(), usual.vocab().controls(), "{name}");
        assert_eq!(ours.vocab().never(), usual.vocab().never(), "{name}");
        assert_eq!(ours.vocab().warnings().len(), warnings, "{name}: {:?}", ours.vocab().warnings());
        // The same judgement at every door.
        let options = OpenOptions::default();
        let opened = open(&Source::File(path.clone()), &options, &silent, &AtomicBool::new(false)).unwrap();
        opened.check_usable().unwrap();
        run(&["verify", &arg(&path)], "").ok();
        run(&["run", "-m", &arg(&path), "--raw", "你好", "-n", "2"], "").ok();
        let notes = convert(&path).unwrap();
        for warning in ours.vocab().warnings() {
            assert_eq!(notes.iter().filter(|note| *note == warning).count(), 1, "{name}: {notes:?}");
        }
    }
}

/// What was assumed is written down, so that llama.cpp, which assumes otherwise, reads the new file right. A
/// wrong name can be corrected.
#[test]
fn a_conversion_writes_down_what_was_assumed() {
    let folder = tempfile::tempdir().unwrap();
    let foreign = changed(folder.path(), "foreign.gguf", |keys| {
        drop_key(keys, PRE);
        drop_key(keys, TYPES);
    });
    let out = folder.path().join("out.gguf");
    let source = |path: &Path| huozi_convert::Source::Path(path.to_owned());
    let go = |options: &Options| pipeline::run(options, &(), &AtomicBool::new(false));
    go(&Options::new(source(&foreign), Preset::F16, &out)).unwrap();
    let usual = Reader::open(&model("tiny-f32", Preset::F32), How::Read).unwrap();
    let new = Reader::open(&out, How::Read).unwrap();
    assert_eq!(new.meta().str(PRE).unwrap(), Some("bloom"));
    let types = |reader: &Reader| reader.meta().ints(TYPES).unwrap().unwrap().iter().collect::<Vec<_>>();
    assert_eq!(types(&new), types(&usual));
    assert!(tokenizer(&out).vocab().warnings().is_empty());

    let wrong =
        changed(folder.path(), "wrong.gguf", |keys| set(keys, PRE, MetaValue::Str("smaug-bpe".into())));
    assert!(convert(&wrong).unwrap_err().contains("--metadata tokenizer.ggml.pre=bloom"));
    let metadata = vec![(PRE.to_owned(), "bloom".to_owned())];
    let right = folder.path().join("right.gguf");
    go(&Options { metadata, ..Options::new(source(&wrong), Preset::F16, &right) }).unwrap();
    assert_eq!(
        tokenizer(&right).encode(TEXT, Specials::Parse),
        tokenizer(&out).encode(TEXT, Specials::Parse)
    );
}

#[test]
fn the_user_is_told_once_what_was_assumed() {
    let folder = tempfile::tempdir().unwrap();
    let path = arg(&changed(folder.path(), "no-pre.gguf", |keys| drop_key(keys, PRE)));
    let told = run(&["run", "-m", &path, "--raw", "你好", "-n", "2"], "");
    told.ok();
    assert_eq!(told.stderr.matches("`tokenizer.ggml.pre` is missing").count(), 1, "{}", told.stderr);
    let quiet = run(&["run", "-q", "-m", &path, "--raw", "你好", "-n", "2"], "");
    quiet.ok();
    assert!(!quiet.stderr.contains("pre"), "{}", quiet.stderr);
}

#[test]
fn what_cannot_run_is_refused_with_one_reason_at_every_door() {
    let cases: [(&str, Change); 6] = [
        ("GPT-2's way of splitting text (FLOR", |keys| set(keys, PRE, MetaValue::Str("gpt-2".into()))),
        ("SentencePiece", |keys| set(keys, "tokenizer.ggml.model", MetaValue::Str("llama".into()))),
        ("without the merges", |keys| drop_key(keys, "tokenizer.ggml.merges")),
        ("begins with a begin token", |keys| {
            set(keys, "tokenizer.ggml.add_bos_token", MetaValue::Bool(true));
        }),
        ("`tokenizer.ggml.eos_token_id` is 4000", |keys| {
            set(keys, "tokenizer.ggml.eos_token_id", MetaValue::U32(4000));
        }),
        ("syntax error", |keys| {
            set(keys, "tokenizer.chat_template", MetaValue::Str("{% for m in messages %}".into()));
        }),
    ];
    for (what, change) in cases {
        let home = tempfile::tempdir().unwrap();
        let path = changed(home.path(), "m.gguf", change);
        run(&["run", "-m", &arg(&path), "你好"], "").fails(4, what);
        // Text is continued without the template.
        let raw = run(&["run", "-m", &arg(&path), "--raw", "-n", "2", "你好"], "");
        assert_eq!(raw.code == Some(0), what == "syntax error", "{raw:?}");
        run(&["verify", &arg(&path)], "").fails(4, what);
        let doctor = finish(huozi(home.path()).arg("doctor"), "");
        let line = doctor.ok().lines().find(|line| line.contains("m.gguf")).unwrap();
        assert!(line.contains("not usable") && line.contains(what), "{line}");
        let error = convert(&path).unwrap_err();
        assert!(error.contains(what), "{error}");
    }
}

#[test]
fn special_ids_that_no_answer_depends_on_are_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let path = changed(folder.path(), "ids.gguf", |keys| {
        set(keys, "tokenizer.ggml.padding_token_id", MetaValue::I32(-1));
        set(keys, "tokenizer.ggml.bos_token_id", MetaValue::U32(u32::MAX));
        set(keys, "tokenizer.ggml.unknown_token_id", MetaValue::U32(1024));
        set(keys, "tokenizer.ggml.suppress_tokens", MetaValue::I32s(vec![7, 5000, -3]));
        set(keys, "tokenizer.ggml.eom_token_id", MetaValue::U32(900));
        set(keys, "huozi.end_token_ids", MetaValue::U32s(vec![901, 905]));
    });
    let vocab = tokenizer(&path);
    let vocab = vocab.vocab();
    assert_eq!((vocab.pad(), vocab.bos(), vocab.unk(), vocab.eos()), (None, None, None, Some(2)));
    assert_eq!(vocab.warnings().len(), 4, "{:?}", vocab.warnings());
    assert!(vocab.never()[7] && !vocab.never()[8]);
    assert_eq!(vocab.stop_ids(), [2, 900, 901, 905, 1000, 1001]);
    run(&["verify", &arg(&path)], "").ok();
    for bad in [vec![901, 1024], vec![u32::MAX]] {
        let path = changed(folder.path(), "bad.gguf", |keys| {
            set(keys, "huozi.end_token_ids", MetaValue::U32s(bad));
        });
        run(&["run", "-m", &arg(&path), "--raw", "a"], "").fails(4, "`huozi.end_token_ids` is");
    }
}

/// llama.cpp stops at some tokens by their spelling; files of other programs rely on it. What the converter
/// makes of such a file stops there, too.
#[test]
fn usual_end_tokens_of_foreign_files_stop_an_answer() {
    let folder = tempfile::tempdir().unwrap();
    let path = changed(folder.path(), "im_end.gguf", |keys| {
        for (key, value) in keys {
            match (key.as_str(), value) {
                ("tokenizer.ggml.tokens", MetaValue::Strings(tokens)) => {
                    tokens[1002] = "<|im_end|>".into();
                    tokens[1003] = "<|endoftext|>".into();
                }
                (TYPES, MetaValue::I32s(types)) => (types[1002], types[1003]) = (3, 4),
                _ => {}
            }
        }
    });
    assert_eq!(tokenizer(&path).vocab().stop_ids(), [2, 1000, 1001, 1002]);
    let again = folder.path().join("again.gguf");
    let options = Options::new(huozi_convert::Source::Path(path), Preset::F16, &again);
    pipeline::run(&options, &(), &AtomicBool::new(false)).unwrap();
    assert_eq!(tokenizer(&again).vocab().stop_ids(), [2, 1000, 1001, 1002]);
    // A file of the converter's own stops at what its checkpoint names.
    let reader = Reader::open(&again, How::Read).unwrap();
    let ids: Vec<i64> = reader.meta().ints("huozi.end_token_ids").unwrap().unwrap().iter().collect();
    assert_eq!(ids, [1002]);
}

/// Without types, a token spelled like a marker is text where a merge makes it of smaller ones.
#[test]
fn assumed_types_leave_text_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = changed(folder.path(), "text.gguf", |keys| {
        drop_key(keys, TYPES);
        for (key, value) in keys {
            match (key.as_str(), value) {
                ("tokenizer.ggml.tokens", MetaValue::Strings(tokens)) => {
                    for (id, text) in [(1002, "<b"), (1003, "<b>"), (1004, "<br>"), (1005, "[甲]x")] {
                        tokens[id] = text.into();
                    }
                }
                ("tokenizer.ggml.merges", MetaValue::Strings(merges)) => {
                    merges.extend(["< b".to_owned(), "<b >".to_owned()]);
                }
                _ => {}
            }
        }
    });
    let tokenizer = tokenizer(&path);
    let kinds = [1002, 1003, 1004, 1005, 1006, 1007].map(|id| tokenizer.vocab().kind(id));
    use TokenKind::{Control, Normal, Unused};
    assert_eq!(kinds, [Normal, Normal, Control, Normal, Unused, Unused]);
    assert_eq!(tokenizer.encode("<b>", Specials::Plain), [1003]);
}
