//! Which files make a checkpoint, and where a name is looked up.

use std::fs;
use std::path::{Path, PathBuf};

use crate::source_support::*;
use huozi_convert::source::{CacheEnv, Checkpoint, Error};

fn one(name: &str, value: f32) -> Vec<u8> {
    let header = format!(r#"{{"{name}":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}}}"#);
    safetensors(&header, &f32s([value]))
}

fn one_bin(name: &str) -> Vec<u8> {
    bin(pickle(dict(&[(name, tensor(storage("FloatStorage", "0", 12), 0, &[12], &[1]))])))
}

fn names(checkpoint: &Checkpoint) -> Vec<&str> {
    checkpoint.tensors().iter().map(|t| t.name.as_str()).collect()
}

#[test]
fn safetensors_come_before_pickles() {
    let all = open(&[("pytorch_model.bin", one_bin("p")), ("model.safetensors", one("s", 1.0))]).unwrap();
    assert_eq!(names(&all), ["s"]);
    let shards = open(&[
        ("pytorch_model.bin", one_bin("p")),
        ("model-00001-of-00002.safetensors", one("a", 1.0)),
        ("model-00002-of-00002.safetensors", one("b", 2.0)),
    ]);
    assert_eq!(names(&shards.unwrap()), ["a", "b"]);
    // Other files in the directory do not matter.
    let others = ["x.bin", ".bin", "模型模型模型.bin", "a.safetensors", "model_.bin", "optimizer.bin"];
    let mut files: Vec<_> = others.into_iter().map(|name| (name, vec![0])).collect();
    refused("others only", open(&files), &["x.bin"]);
    files.push(("model_00001-of-00001.bin", one_bin("p")));
    assert_eq!(names(&open(&files).unwrap()), ["p"]);
    refused("nothing", open(&[("readme.md", vec![])]), &["model.safetensors", "readme.md"]);
}

#[test]
fn shards_without_an_index_are_all_taken_in_order() {
    for form in ["pytorch_model_{}-of-00003.bin", "pytorch_model-{}-of-00003.bin", "model_{}.bin"] {
        let name = |i: u32| form.replace("{}", &format!("{i:05}"));
        let files = [(name(2), "b"), (name(1), "a"), (name(3), "c")];
        let files: Vec<_> = files.iter().map(|(f, t)| (f.as_str(), one_bin(t))).collect();
        assert_eq!(names(&open(&files).unwrap()), ["a", "b", "c"], "{form}");
        refused("one missing", open(&files[1..]), &["number 2 is missing"]);
    }
    let two = [("model_00001.bin", one_bin("a")), ("pytorch_model_00001.bin", one_bin("b"))];
    refused("two series", open(&two), &["one series of shards"]);
    let twice = [("model_00001.bin", one_bin("a")), ("model_00002.bin", one_bin("a"))];
    refused("a tensor twice", open(&twice), &["tensor a in one shard", "model_00001.bin"]);
}

#[test]
fn an_index_must_be_true() {
    let with = |index: &str| {
        open(&[
            ("model.safetensors.index.json", index.as_bytes().to_vec()),
            ("s1", one("a", 1.0)),
            ("s2", one("b", 2.0)),
            ("s3", one("a", 3.0)),
        ])
    };
    let good = with(r#"{"metadata":{"x":[1]},"weight_map":{"a":"s1","b":"s2"}}"#).unwrap();
    assert_eq!(values(&good, "b"), [2.0]);
    // Only what the map names is opened, and a tensor it does not name may be there.
    assert_eq!(names(&good), ["a", "b"]);
    // What the index names and no shard has is listed: only the model knows whether it is needed.
    let absent = with(r#"{"weight_map":{"x":"s2","b":"s2"}}"#).unwrap();
    assert_eq!(absent.absent().iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["x"]);
    // The index of a format that was not downloaded does not matter, where the other one is there.
    let other = open(&[
        ("model.safetensors.index.json", br#"{"weight_map":{"a":"s8","b":"s9"}}"#.to_vec()),
        ("pytorch_model.bin", one_bin("p")),
    ]);
    assert_eq!(names(&other.unwrap()), ["p"]);
    let cases: [(&str, &[&str]); 9] = [
        (r#"{"weight_map":{"a":"s2","b":"s1"}}"#, &["tensor a in s2", "it in s1"]),
        (r#"{"weight_map":{"a":"s9"}}"#, &["shard s9", "no such file"]),
        (r#"{"weight_map":{"a":"../s1"}}"#, &["plain file name for tensor a", "../s1"]),
        (r#"{"weight_map":{"a":"/etc/passwd"}}"#, &["plain file name for tensor a"]),
        (r#"{"weight_map":{"a":"s1","b":"s2","c":"s3"}}"#, &["tensor a in one shard"]),
        (r#"{"weight_map":{"a":"s1","a":"s2"}}"#, &["tensor a twice"]),
        (r#"{"weight_map":{}}"#, &["at least one tensor"]),
        (r#"{"weight_map":["a"]}"#, &["at byte", "index.json"]),
        ("{\"weight_map\":\n{\"a\":1}}", &["at byte 20", "a string"]),
    ];
    for (index, says) in cases {
        refused(index, with(index), says);
    }
    let many: Vec<String> = (0..=65536).map(|i| format!("\"{i}\":\"s1\"")).collect();
    refused(
        "many tensors",
        with(&format!("{{\"weight_map\":{{{}}}}}", many.join(","))),
        &["more than 65536 tensors"],
    );
}

#[test]
fn embedded_names_are_plain_and_unique() {
    for files in [vec!["a", "a"], vec!["../a"], vec!["x/y"], vec![""], vec!["."]] {
        let files = files.into_iter().map(|n| (n, vec![])).collect::<Vec<_>>();
        refused("names", open(&files), &["plain file names, each once"]);
    }
}

fn env(cache: &Path) -> CacheEnv {
    CacheEnv { hf_hub_cache: Some(cache.into()), ..Default::default() }
}

fn snapshot(cache: &Path, model: &str, hash: &str, value: f32) {
    let dir = cache.join(model).join("snapshots").join(hash);
    fs::create_dir_all(&dir).unwrap();
    // As the cache does it: the snapshot is a link into blobs.
    let blobs = cache.join(model).join("blobs");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(blobs.join(hash), one("a", value)).unwrap();
    std::os::unix::fs::symlink(format!("../../blobs/{hash}"), dir.join("model.safetensors")).unwrap();
}

#[test]
fn a_name_is_looked_up_in_the_cache() {
    let dir = tempfile::tempdir().unwrap();
    let (cache, model) = (dir.path(), "models--HIT-SCIR--huozi-7b-rlhf");
    let open = || Checkpoint::open_with(Path::new("HIT-SCIR/huozi-7b-rlhf"), &env(cache));
    refused("no model", open(), &["nothing is downloaded", model]);
    snapshot(cache, model, "aaaa", 1.0);
    assert_eq!(values(&open().unwrap(), "a"), [1.0]);
    snapshot(cache, model, "bbbb", 2.0);
    refused("two", open(), &["2 snapshots", "refs/main"]);
    fs::create_dir_all(cache.join(model).join("refs")).unwrap();
    let main = cache.join(model).join("refs/main");
    fs::write(&main, "bbbb\n").unwrap();
    assert_eq!(values(&open().unwrap(), "a"), [2.0]);
    fs::write(&main, "cccc").unwrap();
    refused("a lost snapshot", open(), &["cccc"]);
    for bad in ["../../..", "", "x\u{1b}[2J"] {
        fs::write(&main, bad).unwrap();
        refused("a bad ref", open(), &["refs/main", "the name of a snapshot"]);
    }
    for path in ["./nowhere", "/no/such/dir", "a/b/c", "../x", "a--b/c"] {
        let error = Checkpoint::open_with(Path::new(path), &env(cache)).unwrap_err();
        assert!(
            matches!(&error, Error::NotFound { looked, .. } if looked == &[PathBuf::from(path)]),
            "{error}"
        );
    }
}

#[test]
fn the_cache_is_where_the_first_variable_says() {
    let p = |s: &str| Some(PathBuf::from(s));
    let mut env = CacheEnv {
        hf_hub_cache: p("/c"),
        transformers_cache: p("~/t"),
        hf_home: p("/h"),
        xdg_cache_home: p("/x"),
        home: p("/u"),
    };
    assert_eq!(env.dirs(), ["/c", "/u/t"].map(PathBuf::from));
    env.transformers_cache = p("/c");
    assert_eq!(env.dirs(), ["/c"].map(PathBuf::from));
    env.transformers_cache = None;
    assert_eq!(env.dirs().pop(), p("/c"));
    env.hf_hub_cache = p("");
    assert_eq!(env.dirs().pop(), p("/h/hub"));
    env.hf_home = p("~/hf");
    assert_eq!(env.dirs().pop(), p("/u/hf/hub"));
    env.hf_home = None;
    assert_eq!(env.dirs().pop(), p("/x/huggingface/hub"));
    env.xdg_cache_home = None;
    assert_eq!(env.dirs().pop(), p("/u/.cache/huggingface/hub"));
    env.home = None;
    assert_eq!(env.dirs().pop(), None);
    refused("no cache", Checkpoint::open_with(Path::new("no/such"), &env), &["HOME is not set"]);
}
