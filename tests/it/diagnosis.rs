//! What people give as a model that is none: each kind of file and folder at each place that takes a model,
//! with the same words.

use crate::common::{Run, arg, checkpoint, fixture, huozi};
use huozi_convert::plan::Preset;
use huozi_convert::{Options, Source, pipeline};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// A file or folder, and what is said about it.
struct Case {
    path: PathBuf,
    en: Vec<&'static str>,
    #[cfg_attr(not(feature = "tui"), expect(dead_code))]
    zh: &'static str,
    /// It is no model, but the converter takes it.
    converts: bool,
}

fn case(path: impl Into<PathBuf>, en: &[&'static str], zh: &'static str) -> Case {
    Case { path: path.into(), en: en.to_vec(), zh, converts: false }
}

fn lfs(bytes: u64) -> String {
    let oid = "4d7a".repeat(16);
    format!("version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {bytes}\n")
}

/// A safetensors file of zeros with these tensors.
fn safetensors(tensors: &[(&str, &[u64])]) -> Vec<u8> {
    let (mut header, mut end) = (serde_json::Map::new(), 0);
    for (name, shape) in tensors {
        let start = end;
        end += shape.iter().product::<u64>() as usize * 4;
        let tensor = serde_json::json!({ "dtype": "F32", "shape": shape, "data_offsets": [start, end] });
        header.insert((*name).to_owned(), tensor);
    }
    let header = serde_json::to_vec(&header).unwrap();
    [&(header.len() as u64).to_le_bytes()[..], &header, &vec![0; end]].concat()
}

/// What a zip archive with these members has in its directory; nothing else of it is looked at.
fn zip(members: &[&str]) -> Vec<u8> {
    [&b"PK\x03\x04"[..], members.join("\n").as_bytes(), b"PK\x05\x06", &[0; 18]].concat()
}

/// A folder with the config and the tokenizer of a small BLOOM, and these files over them.
fn folder(dir: &Path, name: &str, files: &[(&str, &[u8])]) -> PathBuf {
    let made = dir.join(name);
    fs::create_dir_all(&made).unwrap();
    for file in ["config.json", "tokenizer.json"] {
        fs::copy(fixture("tiny-f32").join(file), made.join(file)).unwrap();
    }
    for (file, content) in files {
        let path = made.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    made
}

/// A file in `dir`.
fn file(dir: &Path, name: &str, content: &[u8]) -> PathBuf {
    fs::write(dir.join(name), content).unwrap();
    dir.join(name)
}

fn weights() -> Vec<u8> {
    fs::read(fixture("tiny-f32").join("model.safetensors")).unwrap()
}

/// What was not downloaded, or not whole.
fn downloads(dir: &Path) -> Vec<Case> {
    let cut = weights();
    let beside = file(dir, "beside.gguf", b"GGUF\x03\0\0\0");
    file(dir, "beside.gguf.aria2", b"x");
    std::os::unix::fs::symlink("gone", dir.join("link.gguf")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, dir.join("pipe.gguf"), rustix::fs::Mode::RWXU).unwrap();
    let page = "\u{feff}<!DOCTYPE html>\n<html><head><title>Sign in · Hugging Face</title></head></html>";
    let denied = "Access to model org/x is restricted and you are not in the authorized list.";
    let pointer = "a Git LFS pointer: the file itself was not downloaded";
    vec![
        case(
            file(dir, "lfs.gguf", lfs(4_370_123_456).as_bytes()),
            &[pointer, "4370123456 bytes", "git lfs pull"],
            "Git LFS 的指针",
        ),
        case(
            folder(dir, "lfs-safetensors", &[("model.safetensors", lfs(14_138_192_896).as_bytes())]),
            &["model.safetensors: ", pointer, "14138192896 bytes"],
            "14138192896 字节，约 14.1 GB",
        ),
        case(
            folder(
                dir,
                "lfs-tokenizer",
                &[("model.safetensors", &weights()), ("tokenizer.json", lfs(14_500_438).as_bytes())],
            ),
            &["tokenizer.json: ", pointer, "14500438 bytes"],
            "文件本身还没有下载",
        ),
        case(
            folder(dir, "lfs-config", &[("pytorch_model.bin", lfs(1).as_bytes()), ("config.json", b"{}")]),
            &["pytorch_model.bin: ", pointer],
            "指针",
        ),
        case(
            file(dir, "xet.gguf", b"# xet version 0\nfilesize = 99\nhash = 'ab'\n"),
            &["a Xet pointer", "99 bytes"],
            "Xet 的指针",
        ),
        case(
            file(dir, "page.gguf", page.as_bytes()),
            &["a web page titled \"Sign in · Hugging Face\"", "/resolve/"],
            "是网页“Sign in",
        ),
        case(
            folder(dir, "denied", &[("model.safetensors", denied.as_bytes())]),
            &["model.safetensors: a server's error message", "Access to model org/x", "hf auth login"],
            "服务器的错误消息",
        ),
        case(
            folder(
                dir,
                "blob",
                &[
                    ("model.safetensors", &weights()),
                    (
                        "config.json",
                        "\u{feff}<?xml version=\"1.0\"?><Error><Code>BlobNotFound</Code></Error>".as_bytes(),
                    ),
                ],
            ),
            &["config.json: a server's error message", "BlobNotFound"],
            "服务器的错误消息",
        ),
        case(
            file(dir, "error.gguf", b"{\"error\":\"Invalid username or password.\"}"),
            &["a server's error message", "Invalid username or password."],
            "Invalid username",
        ),
        case(file(dir, "m.gguf.gz", b"\x1f\x8b\x08\0\0\0"), &["(gzip)", "gunzip "], "压缩文件（gzip）"),
        case(file(dir, "all.zip", &zip(&["config.json"])), &["(zip)", "unzip "], "请先解压"),
        case(file(dir, "m.tar", &[&[b'a'; 257][..], b"ustar\0"].concat()), &["(tar)", "tar -xf "], "tar"),
        case(file(dir, "empty.gguf", b""), &["an empty file", "download it again"], "是空文件"),
        case(file(dir, "zeros.gguf", &[0; 100_000]), &["100000 bytes", "all of them zero"], "全为零"),
        case(
            folder(dir, "cut", &[("model.safetensors", &cut[..cut.len() - 1234])]),
            &["model.safetensors: the file is cut short by 1234 bytes"],
            "末尾 1234 字节",
        ),
        case(
            folder(dir, "cut-zip", &[("pytorch_model.bin", b"PK\x03\x04\0\0archive/data.pkl")]),
            &["pytorch_model.bin: the file is cut short"],
            "文件不完整",
        ),
        case(
            file(dir, "m.gguf.crdownload", b"GGUF\x03\0\0\0"),
            &["an unfinished download"],
            "文件名以 .crdownload 结尾",
        ),
        case(file(dir, "m.baiduyun.p.downloading", b"GGUF"), &["an unfinished download"], "下载没有完成"),
        case(
            beside,
            &["an unfinished download (beside.gguf.aria2 lies beside it)"],
            "旁边有 beside.gguf.aria2",
        ),
        case(
            file(dir, "b.gguf.part1of2", b"GGUF\x03\0\0\0"),
            &["a piece of a file", "b.gguf.part?of* > "],
            "请先合并：cat",
        ),
        case(dir.join("link.gguf"), &["link.gguf links to a file that does not exist"], "指向的文件不存在"),
        case(dir.join("pipe.gguf"), &["a FIFO (pipe), not a regular file"], "命名管道"),
        case("/dev/null", &["a device, not a regular file"], "是设备"),
    ]
}

/// Models in formats that are not read.
fn formats(dir: &Path) -> Vec<Case> {
    let header = [0u8; 64];
    let old = |magic: &[u8]| [magic, &header[..]].concat();
    let torch =
        [&[0x80, 2, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19][..], b".."];
    let script = zip(&["m/code/__torch__.py", "m/constants.pkl", "m/data.pkl"]);
    vec![
        case(
            file(dir, "ggjt.bin", &old(b"tjgg\x03\0\0\0")),
            &[
                "a model in the GGJT format",
                "convert the model's original checkpoint",
                "huozi-convert FOLDER",
            ],
            "GGJT 格式",
        ),
        case(file(dir, "ggml.bin", &old(b"lmgg")), &["in the GGML format"], "GGML 格式"),
        case(file(dir, "ggmf.bin", &old(b"fmgg")), &["in the GGMF format"], "GGMF 格式"),
        case(file(dir, "lora.bin", &old(b"algg")), &["a LoRA adapter in the GGLA format"], "GGLA"),
        case(file(dir, "v1.gguf", &old(b"GGUF\x01\0\0\0")), &["GGUF version 1"], "这个版本的 GGUF：1"),
        case(file(dir, "big.gguf", &old(b"GGUF\0\0\0\x03")), &["a big-endian GGUF file"], "大端字节序"),
        case(
            folder(dir, "old-torch", &[("pytorch_model.bin", &torch.concat())]),
            &["pytorch_model.bin: a pickle in the format of torch.save before PyTorch 1.6", "torch.load("],
            "PyTorch 1.6 以前",
        ),
        case(
            folder(dir, "script", &[("pytorch_model.bin", &script)]),
            &["pytorch_model.bin: a TorchScript program"],
            "TorchScript",
        ),
        case(
            file(dir, "tf_model.h5", b"\x89HDF\r\n\x1a\n0000"),
            &["weights for TensorFlow only", "from_tf=True"],
            "TensorFlow",
        ),
        case(file(dir, "llama.exe", b"\x7fELF\x02"), &["a program"], "是可执行程序"),
        case(file(dir, "notes.txt", "随便写的。".as_bytes()), &["not a GGUF file: it begins with"], "开头是"),
    ]
}

/// Folders with other weights than those of a BLOOM.
fn folders(dir: &Path) -> Vec<Case> {
    let adapter = br#"{"base_model_name_or_path":"bigscience/bloomz-7b1-mt","peft_type":"LORA"}"#;
    let tensor = "transformer.h.0.self_attention.query_key_value";
    let (a, b) = (format!("base_model.model.{tensor}.lora_A.weight"), format!("{tensor}.qweight"));
    let (scb, embedding) = (format!("{tensor}.SCB"), "transformer.word_embeddings.weight");
    let lora = safetensors(&[(&a, &[8, 64]), (&format!("base_model.model.{tensor}.weight"), &[192, 64])]);
    let zero3 = |shape: &[u64]| safetensors(&[(embedding, shape), ("transformer.ln_f.weight", &[64])]);
    let gptq = br#"{"model_type":"bloom","quantization_config":{"quant_method":"gptq","bits":4}}"#;
    let llama = br#"{"model_type":"llama","architectures":["LlamaForCausalLM"]}"#;
    vec![
        case(
            folder(
                dir,
                "lora-only",
                &[("adapter_config.json", adapter), ("adapter_model.bin", b"PK\x03\x04xx")],
            ),
            &["a LoRA adapter trained on bigscience/bloomz-7b1-mt", "merge_and_unload()"],
            "基础模型 bigscience/bloomz-7b1-mt",
        ),
        case(
            folder(dir, "unmerged", &[("model.safetensors", &lora)]),
            &["an unmerged LoRA adapter", "lora_A", "merge_and_unload()"],
            "尚未合并",
        ),
        case(
            folder(dir, "zero3-empty", &[("model.safetensors", &zero3(&[0]))]),
            &["has the shape [0]", "ZeRO-3 without gathering", "zero_to_fp32.py"],
            "形状是 [0]",
        ),
        case(
            folder(dir, "zero3-one", &[("model.safetensors", &zero3(&[1]))]),
            &["has the shape [1]", "ZeRO-3"],
            "ZeRO-3",
        ),
        case(
            folder(
                dir,
                "deepspeed",
                &[("latest", b"global_step9"), ("global_step9/mp_rank_00_model_states.pt", b"x")],
            ),
            &["a training checkpoint of DeepSpeed", "zero_to_fp32.py"],
            "DeepSpeed 的训练检查点",
        ),
        case(
            folder(dir, "megatron", &[("global_step9/layer_01-model_00-model_states.pt", b"x")]),
            &["a training checkpoint of Megatron", "convert_bloom_original_checkpoint_to_pytorch.py"],
            "Megatron",
        ),
        case(
            folder(dir, "fsdp", &[("pytorch_model_fsdp_0/__0_0.distcp", b"x")]),
            &["PyTorch FSDP", "accelerate merge-weights"],
            "FSDP",
        ),
        case(
            folder(
                dir,
                "gptq",
                &[("config.json", gptq), ("model.safetensors", &safetensors(&[(&b, &[8, 8])]))],
            ),
            &["quantised by gptq", "original checkpoint"],
            "已由 gptq 量化",
        ),
        case(
            folder(dir, "int8", &[("model.safetensors", &safetensors(&[(&scb, &[8])]))]),
            &["quantised by bitsandbytes"],
            "bitsandbytes",
        ),
        case(
            folder(dir, "belle", &[("bloom7b-2m-4bit-128g.pt", &zip(&["archive/data.pkl"]))]),
            &["quantised by GPTQ"],
            "GPTQ",
        ),
        case(
            folder(dir, "llama", &[("config.json", llama), ("model.safetensors", &weights())]),
            &["a model of type \"llama\"", "models of type bloom only", "llama.cpp"],
            "模型类型是 \"llama\"",
        ),
        case(
            folder(dir, "flax", &[("flax_model.msgpack", b"\x81\xa1")]),
            &["weights for Flax only (flax_model.msgpack)", "from_flax=True"],
            "只有 Flax 的权重",
        ),
        case(folder(dir, "onnx", &[("model.onnx", b"\x08\x07")]), &["weights for ONNX only"], "ONNX"),
        case(
            folder(dir, "odd", &[("model (1).safetensors", &weights())]),
            &["model (1).safetensors", "rename it to model.safetensors"],
            "请改名为 model.safetensors",
        ),
        case(
            folder(dir, "train", &[("checkpoint-500/model.safetensors", &weights())]),
            &["a folder without weights", "train/checkpoint-500"],
            "checkpoint-500",
        ),
        case(
            folder(dir, "part", &[("model.safetensors.part", b"x")]),
            &["an unfinished download (model.safetensors.part)"],
            "下载没有完成",
        ),
        case(
            folder(dir, "ggufs", &[("a.gguf", b"GGUF"), ("b.gguf", b"GGUF")]),
            &["a folder with 2 GGUF files", "ggufs/a.gguf"],
            "2 个 GGUF 文件",
        ),
        case(folder(dir, "none", &[]), &["a folder without weights, with config.json"], "没有权重"),
    ]
}

/// A checkpoint and its files, given where a GGUF file is needed.
fn checkpoints(dir: &Path) -> Vec<Case> {
    let good = folder(dir, "good", &[("model.safetensors", &weights())]);
    let command = "huozi-convert ";
    let whole = Case {
        converts: true,
        ..case(&good, &["a checkpoint, not a GGUF file", command], "请先转换：")
    };
    let part = |name: &str| {
        case(
            good.join(name),
            &["one file of a checkpoint", "good -t q4_k_m -o good-q4_k_m.gguf"],
            "整个文件夹",
        )
    };
    vec![whole, part("model.safetensors"), part("config.json"), part("tokenizer.json")]
}

fn cases(dir: &Path) -> Vec<Case> {
    let mut cases = downloads(dir);
    cases.extend(formats(dir));
    cases.extend(folders(dir));
    cases.extend(checkpoints(dir));
    cases
}

/// What huozi-convert says about a source.
fn refused_by_converter(source: &Path, out: &Path) -> Option<String> {
    let options = Options::new(Source::Path(source.to_owned()), Preset::F32, out);
    pipeline::run(&options, &(), &AtomicBool::new(false)).err().map(|error| error.to_string())
}

#[test]
fn every_kind_of_file_is_told_at_every_place_that_takes_a_model() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path();
    for Case { path, en, converts, .. } in cases(dir) {
        let path = arg(&path);
        let text = arg(&fixture("famous-poems.txt"));
        let places = [
            &["run", "-p", "x", "-m", &path][..],
            &["tokenize", "-p", "x", "-m", &path],
            &["inspect", &path],
            &["verify", &path],
            &["logits", "-p", "x", "-m", &path],
            &["eval", "ppl", &text, "-m", &path],
            &["bench", "-p", "4", "-n", "1", "-r", "1", "-m", &path],
            &["chat", "-m", &path],
        ];
        for place in places {
            let run: Run = crate::common::finish(huozi(dir).args(place), "");
            for what in &en {
                run.fails(4, what);
            }
        }
        let converted = refused_by_converter(Path::new(&path), &dir.join("out.gguf"));
        match converted {
            Some(error) => {
                assert!(en.iter().all(|what| error.contains(what)) && !converts, "{path}: {error}");
                assert!(!dir.join("out.gguf").exists());
            }
            None => assert!(converts, "{path} was converted"),
        }
        let _ = fs::remove_file(dir.join("out.gguf"));
    }
}

#[cfg(feature = "tui")]
#[test]
fn the_terminal_chat_tells_every_kind_in_both_languages() {
    use huozi::session::catalog::Found;
    use huozi::session::open;
    use huozi::tui::failure::Failure;
    use huozi::tui::look::Lang;
    use huozi::tui::words::words;
    use std::sync::Arc;

    let home = tempfile::tempdir().unwrap();
    for Case { path, en, zh, .. } in cases(home.path()) {
        let listed = Failure::Unusable(Arc::new(Found::look(&path)));
        let opened = Failure::from(open::look(&path).expect_err("no model"));
        for failure in [listed, opened] {
            let (in_en, in_zh) = ((words(Lang::En).failure)(&failure), (words(Lang::Zh).failure)(&failure));
            assert!(en.iter().all(|what| in_en.contains(what) || what.ends_with(": ")), "{in_en}");
            assert!(in_zh.contains(zh) && in_zh.contains('；'), "{in_zh}");
        }
    }
}

/// A Hugging Face cache in which `org/tiny` has the snapshots `hashes`, each with `files` as links into
/// `blobs`; a file without content is not there.
fn cache(cache: &Path, hashes: &[&str], files: &[(&str, Option<&[u8]>)]) -> PathBuf {
    let model = cache.join("models--org--tiny");
    fs::create_dir_all(model.join("blobs")).unwrap();
    fs::create_dir_all(model.join("refs")).unwrap();
    for hash in hashes {
        let snapshot = model.join("snapshots").join(hash);
        fs::create_dir_all(&snapshot).unwrap();
        for (name, content) in files {
            let blob = model.join("blobs").join(format!("{hash}{name}"));
            match content {
                Some(content) => fs::write(&blob, content).unwrap(),
                None => fs::write(blob.with_extension("incomplete"), "half").unwrap(),
            }
            let link = format!("../../blobs/{hash}{name}");
            std::os::unix::fs::symlink(link, snapshot.join(name)).unwrap();
        }
    }
    fs::write(model.join("refs/main"), hashes.last().unwrap()).unwrap();
    model
}

/// The program with a cache given by these variables.
fn cached(home: &Path, vars: &[(&str, &Path)], args: &[&str]) -> Run {
    let mut command = huozi(home);
    command.args(args).envs(vars.iter().copied());
    crate::common::finish(&mut command, "")
}

#[test]
fn a_model_of_the_cache_is_found_by_every_variable_and_by_its_folder() {
    let home = tempfile::tempdir().unwrap();
    let model = crate::common::model("tiny-f32", Preset::Q8_0);
    let file = fs::read(model).unwrap();
    let files: [(&str, Option<&[u8]>); 1] = [("m.gguf", Some(&file))];
    let ask = ["inspect", "org/tiny"];
    for (var, below) in [
        ("HF_HUB_CACHE", ""),
        ("HUGGINGFACE_HUB_CACHE", ""),
        ("TRANSFORMERS_CACHE", ""),
        ("HF_HOME", "hub"),
        ("XDG_CACHE_HOME", "huggingface/hub"),
        ("HOME", ".cache/huggingface/hub"),
    ] {
        let root = home.path().join(var);
        cache(&root.join(below), &["aaaa"], &files);
        cached(home.path(), &[(var, &root)], &ask).ok();
    }
    // Between quotes a shell expands neither.
    let root = Path::new("$HOME/HF_HUB_CACHE");
    cached(home.path(), &[("HF_HUB_CACHE", root)], &ask).ok();
    cached(home.path(), &[("HF_HUB_CACHE", Path::new("~/HF_HUB_CACHE"))], &ask).ok();
    // By its folder, that of its snapshots, and a snapshot.
    let folder = home.path().join("HF_HUB_CACHE/models--org--tiny");
    for path in [folder.clone(), folder.join("snapshots")] {
        cached(home.path(), &[], &["inspect", &arg(&path)]).ok();
    }
    let snapshot = arg(&folder.join("snapshots/aaaa"));
    cached(home.path(), &[], &["inspect", &snapshot]).fails(4, "a folder with a GGUF file; give the path");
    cached(home.path(), &[], &["inspect", &arg(folder.parent().unwrap())]).fails(4, "org/tiny");
    // Of several snapshots the one of refs/main is read, which is said.
    let root = home.path().join("several");
    cache(&root, &["aaaa", "bbbb"], &files);
    let run = cached(home.path(), &[("HF_HUB_CACHE", &root)], &ask);
    run.ok();
    assert!(
        run.stderr.contains("has 2 snapshots of it; bbbb is read, which refs/main names"),
        "{}",
        run.stderr
    );
    fs::remove_file(root.join("models--org--tiny/refs/main")).unwrap();
    let run = cached(home.path(), &[("HF_HUB_CACHE", &root)], &ask);
    run.fails(4, "2 snapshots of org/tiny and no refs/main; give the path of one");
}

#[cfg(feature = "tui")]
#[test]
fn snapshots_that_cannot_be_chosen_are_told_in_chinese() {
    use huozi::session::open;
    use huozi::tui::failure::Failure;
    use huozi::tui::look::Lang;
    use huozi::tui::words::words;

    let home = tempfile::tempdir().unwrap();
    let model = cache(home.path(), &["aaaa", "bbbb"], &[]);
    let said = || (words(Lang::Zh).failure)(&Failure::from(open::look(&model).expect_err("no snapshot")));
    fs::write(model.join("refs/main"), "cccc").unwrap();
    let missing = said();
    assert!(missing.contains("没有") && missing.contains("refs/main 所指的快照"), "{missing}");
    fs::remove_file(model.join("refs/main")).unwrap();
    let several = said();
    assert!(
        several.contains("2 个快照") && several.contains("bbbb") && !several.contains("下载"),
        "{several}"
    );
}

#[test]
fn a_name_of_the_cache_that_is_no_gguf_file_says_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    let read = |name: &str| fs::read(checkpoint("tiny-f32").join(name)).unwrap();
    let [config, tokenizer] = ["config.json", "tokenizer.json"].map(read);
    let with = |root: &str, weights: Option<&[u8]>| {
        let root = home.path().join(root);
        let files = [("config.json", Some(&config[..])), ("tokenizer.json", Some(&tokenizer[..]))];
        cache(&root, &["2222"], &[&files[..], &[("model.safetensors", weights)]].concat());
        root
    };
    let weights = weights();
    let (good, dangling) = (with("good", Some(&weights)), with("dangling", None));
    let unfinished = "model.safetensors links to a file that does not exist: its download did not finish";
    for place in [&["run", "-p", "x", "-m"][..], &["inspect"], &["verify"], &["bench", "-m"], &["chat", "-m"]]
    {
        let at = |root: &Path, name: &str| {
            cached(home.path(), &[("HF_HUB_CACHE", root)], &[place, &[name]].concat())
        };
        at(&good, "org/tiny").fails(
            4,
            "org/tiny: a checkpoint, not a GGUF file; convert it: \
             huozi-convert org/tiny -t q4_k_m -o tiny-q4_k_m.gguf",
        );
        for name in ["org/tiny", "models--org--tiny", &arg(&dangling.join("models--org--tiny"))] {
            at(&dangling, name).fails(4, unfinished);
            at(&dangling, name).fails(4, "`hf download org/tiny` goes on where it stopped");
        }
        at(&good, "org/none").fails(4, "nothing is downloaded; `hf download org/none` does that");
    }
    let source = dangling.join("models--org--tiny");
    let error = refused_by_converter(&source, &home.path().join("out.gguf")).unwrap();
    assert!(error.contains(unfinished) && error.contains("hf download org/tiny"), "{error}");
    let source = good.join("models--org--tiny");
    assert_eq!(refused_by_converter(&source, &home.path().join("out.gguf")), None);
}

#[test]
fn the_configuration_names_a_model_as_the_flag_does() {
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join(".config/huozi");
    fs::create_dir_all(&config).unwrap();
    let file = fs::read(crate::common::model("tiny-f32", Preset::Q8_0)).unwrap();
    let root = home.path().join("cache");
    cache(&root, &["aaaa"], &[("m.gguf", Some(&file))]);
    let ask = |model: &str| {
        fs::write(config.join("config.toml"), format!("model = {model:?}\n")).unwrap();
        cached(home.path(), &[("HF_HUB_CACHE", &root)], &["inspect"])
    };
    ask("org/tiny").ok();
    ask("org/none").fails(4, "org/none is neither a path nor in the local Hugging Face cache");
    // A path that exists wins, beside this file.
    fs::create_dir(config.join("org")).unwrap();
    fs::write(config.join("org/tiny"), lfs(7)).unwrap();
    ask("org/tiny").fails(4, "a Git LFS pointer");
    fs::write(config.join("m.gguf"), &file).unwrap();
    ask("m.gguf").ok();
    // As Notepad saves it.
    fs::write(config.join("config.toml"), "\u{feff}model = \"m.gguf\"\r\n").unwrap();
    cached(home.path(), &[], &["inspect"]).ok();
    fs::write(config.join("config.toml"), " ".repeat((1 << 20) + 1)).unwrap();
    cached(home.path(), &[], &["inspect"]).fails(4, "config.toml: cannot read: ");
    // A pipe is refused, not waited for.
    fs::remove_file(config.join("config.toml")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, config.join("config.toml"), rustix::fs::Mode::RWXU).unwrap();
    cached(home.path(), &[], &["inspect"]).fails(4, "config.toml: cannot read: not a regular file");
}
