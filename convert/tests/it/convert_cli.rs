//! The program from outside: exit codes, what goes to which stream, signals.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name)
}

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_huozi-convert"));
    // An empty cache.
    command.env("HF_HOME", "/nonexistent").env_remove("HF_HUB_CACHE").env_remove("TRANSFORMERS_CACHE");
    command
}

fn convert(source: &Path, args: &[&str]) -> Output {
    program().arg(source).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn result_on_stdout_notes_on_stderr() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a.gguf"), dir.path().join("b.gguf"));
    let (a, b) = (a.to_str().unwrap(), b.to_str().unwrap());
    let done = convert(&fixture("tiny-k256-f16"), &["--outtype", "Q4_K", "--outfile", a]);
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    let out = text(&done.stdout);
    assert!(out.starts_with(&format!("{a}: tiny-k256-f16 Q4_K_M, ")) && out.lines().count() == 2, "{out}");
    assert!(text(&done.stderr).lines().all(|l| l.starts_with("note: ")));
    // Again: refused, told how; then two in one go, as JSON.
    let refused = convert(&fixture("tiny-k256-f16"), &["-t", "q4_k", "-o", a]);
    assert_eq!((refused.status.code(), text(&refused.stdout)), (Some(2), String::new()));
    assert!(text(&refused.stderr).contains("--force"));
    let args =
        ["-t", "f16", "-o", a, "-t", "q8_0", "-o", b, "--force", "--json", "--threads", "1", "--name", "n"];
    let done = convert(&fixture("tiny-k256-f16"), &args);
    let json: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!((&json["schema"], &json["name"]), (&1.into(), &"n".into()));
    assert_eq!((&json["outputs"][0]["type"], &json["outputs"][1]["type"]), (&"F16".into(), &"Q8_0".into()));
    assert_eq!(json["outputs"][1]["bytes"], std::fs::metadata(b).unwrap().len());
    assert_eq!(text(&done.stdout).lines().count(), 1);
}

#[test]
fn more_threads_than_processors_are_not_run() {
    let many = ["-t", "f16", "--dry-run", "--json", "--threads", "1000"];
    let done = convert(&fixture("tiny-k256-f16"), &many);
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    let run = std::thread::available_parallelism().unwrap();
    let note = format!("note: 1000 threads were asked for, {run} run: ");
    assert_eq!(text(&done.stderr).matches(&note).count(), 1, "{}", text(&done.stderr));
}

#[test]
fn types_of_single_tensors() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("a.gguf");
    let out = out.to_str().unwrap();
    let formats = |source: &str, args: &[&str]| {
        let fixed = ["-t", "q4_k_m", "-o", out, "--json", "--force"];
        let done = convert(&fixture(source), &[&fixed[..], args].concat());
        let json: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
        let list = json["outputs"][0]["formats"].as_array().unwrap().clone();
        let matrices = list.iter().filter(|f| f["format"] != "F32");
        matrices.map(|f| format!("{} {}", f["tensors"], f["format"].as_str().unwrap())).collect::<Vec<_>>()
    };
    // Tied: nine matrices, the embedding among them.
    let tied = "tiny-k256-f16";
    assert_eq!(formats(tied, &["--pure"]), ["9 Q4_K"]);
    assert_eq!(formats(tied, &["--pure", "--output-tensor-type", "Q8_0"]), ["1 Q8_0", "8 Q4_K"]);
    let both = ["--pure", "--output-tensor-type", "q8_0", "--token-embedding-type", "f16"];
    assert_eq!(formats(tied, &both), ["1 F16", "8 Q4_K"]);
    assert_eq!(formats(tied, &[&both[..], &["--duplicate-output"]].concat()), ["1 F16", "1 Q8_0", "8 Q4_K"]);
    let mixture = convert(&fixture(tied), &["-t", "f16", "-o", out, "--output-tensor-type", "q4_k_m"]);
    assert_eq!(mixture.status.code(), Some(2));
    assert!(text(&mixture.stderr).contains("unknown tensor format q4_k_m"));
}

#[test]
fn a_dry_run_says_what_a_run_would_do_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a.gguf"), dir.path().join("b.gguf"));
    let (a, b) = (a.to_str().unwrap(), b.to_str().unwrap());
    let args = ["-t", "q4_k_m", "-o", a, "-t", "q8_0", "-o", b, "--tensor-type", "ffn_up=f16"];
    let dry = convert(&fixture("tiny-k256-f16"), &[&args[..], &["--dry-run", "--json"]].concat());
    assert!(dry.status.success() && std::fs::read_dir(dir.path()).unwrap().next().is_none());
    let dry: serde_json::Value = serde_json::from_slice(&dry.stdout).unwrap();
    let real = convert(&fixture("tiny-k256-f16"), &[&args[..], &["--json"]].concat());
    let real: serde_json::Value = serde_json::from_slice(&real.stdout).unwrap();
    assert_eq!((&dry["schema"], &dry["dry_run"]), (&1.into(), &true.into()));
    assert!(dry["seconds"].as_f64() > Some(0.0));
    let real_all = real["outputs"].as_array().unwrap();
    for i in [0, 1] {
        let (dry, real) = (&dry["outputs"][i], &real["outputs"][i]);
        for key in ["path", "type", "bytes", "bits_per_weight", "formats"] {
            assert_eq!(dry[key], real[key], "{key}");
        }
        let tensors = dry["tensors"].as_array().unwrap();
        let up = tensors.iter().find(|t| t["name"] == "blk.1.ffn_up.weight").unwrap();
        assert_eq!(
            (&up["type"], &up["dims"][1], &up["source_type"]),
            (&"F16".into(), &1024.into(), &"F16".into())
        );
        assert!(dry["free_bytes"].as_u64() > Some(1 << 20));
        // Both go to one disk.
        let both: u64 = [0, 1].iter().map(|i| real_all[*i]["bytes"].as_u64().unwrap()).sum();
        assert_eq!(dry["disk_bytes"], both);
        let memory: Vec<u64> =
            dry["memory"].as_array().unwrap().iter().map(|m| m["bytes"].as_u64().unwrap()).collect();
        // 2 layers, keys and values of 256 numbers, 2048 positions: f32 needs twice what f16 does.
        assert_eq!(memory[0] - memory[1], 2 * 2 * 256 * 2 * 2048);
        assert!(memory[2] < memory[1] && memory[2] > dry["bytes"].as_u64().unwrap());
    }
    // In words; without a name for a file that will not be; an output that is there is refused as ever.
    let words = convert(&fixture("tiny-k256-f16"), &["-t", "q4_0", "--dry-run"]);
    let out = text(&words.stdout);
    for part in [
        "blk.0.attn_qkv.weight",
        "F16 -> Q4_0",
        "q4_0.gguf: ",
        "context of 2048",
        "free on its disk",
        "nothing was written",
    ] {
        assert!(out.contains(part), "{part}: {out}");
    }
    let there = convert(&fixture("tiny-k256-f16"), &["-t", "q4_0", "-o", a, "--dry-run"]);
    assert_eq!(there.status.code(), Some(2));
    // One type by two names.
    let twice = convert(&fixture("tiny-k256-f16"), &["-t", "q4_k", "-t", "q4_k_m", "--dry-run"]);
    assert_eq!(twice.status.code(), Some(0), "{}", text(&twice.stderr));
    let out = text(&twice.stdout);
    assert!(out.contains("\nq4_k_m.gguf: ") && out.contains("\nq4_k_m-2.gguf: "), "{out}");
}

#[test]
fn exit_codes() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("a.gguf");
    let out = out.to_str().unwrap();
    let nowhere = dir.path().join("no-folder/a.gguf");
    let nowhere = nowhere.to_str().unwrap();
    let cases: [(PathBuf, Vec<&str>, i32, &str); 10] = [
        (fixture("tiny-f32"), vec!["-t", "q9", "-o", out], 2, "unknown type q9; valid: f32, "),
        (
            fixture("tiny-f32"),
            vec!["-t", "Q4", "-o", out],
            2,
            "unknown type Q4; did you mean q4_k_m, q4_k_s, q4_1, q4_0?\n",
        ),
        (fixture("tiny-f32"), vec!["-t", "", "-o", out], 2, "valid: f32, "),
        (fixture("tiny-f32"), vec!["-t", "f16"], 2, "--output"),
        (fixture("tiny-f32"), vec!["-t", "f16", "-t", "f32", "-o", out], 2, "in pairs"),
        (fixture("tiny-f32"), vec!["-t", "f16", "-o", out, "--threads", "0"], 2, "threads"),
        (fixture("no-such"), vec!["-t", "f16", "-o", out], 4, "no-such"),
        (fixture("famous-poems.txt"), vec!["-t", "f16", "-o", out], 4, "famous-poems"),
        (dir.path().to_owned(), vec!["-t", "f16", "-o", out], 4, "error: "),
        (fixture("tiny-f32"), vec!["-t", "f16", "-o", nowhere], 1, "no-folder"),
    ];
    for (source, args, code, part) in cases {
        let done = convert(&source, &args);
        let error = text(&done.stderr);
        assert_eq!(done.status.code(), Some(code), "{args:?}: {error}");
        assert!(error.contains(part) && done.stdout.is_empty(), "{args:?}: {error}");
        assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none(), "{args:?} left something");
    }
    // A file that was not copied to its end, and a header that ends nowhere.
    let cut = tempfile::tempdir().unwrap();
    std::fs::copy(fixture("tiny-f32/config.json"), cut.path().join("config.json")).unwrap();
    std::fs::copy(fixture("tiny-f32/tokenizer.json"), cut.path().join("tokenizer.json")).unwrap();
    let whole = std::fs::read(fixture("tiny-f32/model.safetensors")).unwrap();
    std::fs::write(cut.path().join("model.safetensors"), &whole[..whole.len() - 5]).unwrap();
    let done = convert(cut.path(), &["-t", "f16", "-o", out]);
    let error = text(&done.stderr);
    assert_eq!(done.status.code(), Some(4), "{error}");
    assert!(error.contains("the file is cut short"), "{error}");
    // A checkpoint without its tokenizer.
    let model = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(fixture("tiny-f32").join(file), model.path().join(file)).unwrap();
    }
    let done = convert(model.path(), &["-t", "f16", "-o", out]);
    let error = text(&done.stderr);
    assert_eq!(done.status.code(), Some(4), "{error}");
    assert!(error.contains("tokenizer.json: not found") && error.contains(model.path().to_str().unwrap()));
    // What is given beside the source is input too.
    let (none, full) = (cut.path().join("none"), "/dev/zero");
    for option in ["--imatrix", "--chat-template"] {
        for file in [none.to_str().unwrap(), full, cut.path().to_str().unwrap()] {
            let done = convert(&fixture("tiny-f32"), &["-t", "q8_0", "-o", out, option, file]);
            let error = text(&done.stderr);
            assert_eq!(done.status.code(), Some(4), "{option} {file}: {error}");
            assert!(error.contains(file), "{option} {file}: {error}");
        }
    }
    // Standard output is closed; the file is written nevertheless.
    if let Ok(full) = std::fs::File::options().write(true).open("/dev/full") {
        let mut command = program();
        command.arg(fixture("tiny-f32")).args(["-t", "f16", "-o", out]);
        assert_eq!(command.stdout(full).stderr(Stdio::null()).status().unwrap().code(), Some(5));
    }
}

#[test]
fn a_name_without_its_owner_is_offered_with_it() {
    let cache = tempfile::tempdir().unwrap();
    for name in ["models--HIT-SCIR--huozi-7b-rlhf", "models--other--bloom", "datasets--x--huozi-7b-rlhf"] {
        std::fs::create_dir(cache.path().join(name)).unwrap();
    }
    let error = |name: &str| {
        let mut command = program();
        command.env("HF_HUB_CACHE", cache.path()).args([name, "-t", "f16", "-o"]).arg(cache.path().join("a"));
        let done = command.output().unwrap();
        assert_eq!(done.status.code(), Some(4));
        text(&done.stderr)
    };
    assert!(
        error("huozi-7b-rlhf").contains("; the cache has HIT-SCIR/huozi-7b-rlhf; "),
        "{}",
        error("huozi-7b-rlhf")
    );
    assert!(error("hit/Huozi-7B-RLHF").contains("the cache has HIT-SCIR/huozi-7b-rlhf"));
    assert!(!error("huozi").contains("the cache has"));
}

#[test]
fn a_closed_pipe_is_quiet() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("a.gguf");
    let mut child = program()
        .arg(fixture("tiny-f32"))
        .args(["-t", "f16", "-o"])
        .arg(&out)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut error = String::new();
    child.stderr.take().unwrap().read_to_string(&mut error).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(out.exists() && !error.contains("rror"), "{error}");
}

#[test]
fn nobody_at_standard_error_is_no_reason_to_stop() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("a.gguf");
    let folder = dir.path().join("made");
    for full in [true, false] {
        let stderr = || match std::fs::File::options().write(true).open("/dev/full") {
            Ok(file) if full => Stdio::from(file),
            // A pipe whose reader is gone.
            _ => std::io::pipe().unwrap().1.into(),
        };
        // It says that it compares, and in the end a note.
        let mut command = program();
        command.arg(fixture("tiny-f32")).args(["-t", "q4_k_m", "--verify", "-o"]).arg(&out);
        assert_eq!(command.stderr(stderr()).stdout(Stdio::null()).status().unwrap().code(), Some(0));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        std::fs::remove_file(&out).unwrap();
        // An error has its code, whether it is read or not.
        let mut command = program();
        command.arg(fixture("no-such")).args(["-t", "f16", "-o"]).arg(&out);
        assert_eq!(command.stderr(stderr()).status().unwrap().code(), Some(4));
        let mut command = program();
        command.args(["make-checkpoint", "1x64x4x10"]).arg(&folder);
        assert_eq!(command.stderr(stderr()).status().unwrap().code(), Some(2));
    }
}

#[test]
fn names_of_any_bytes() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join(OsStr::from_bytes(b"\xff.gguf"));
    for args in [&["--json"][..], &["--json", "--dry-run", "--force"], &["--force", "--name", "\u{1b}[2J"]] {
        let mut command = program();
        let done = command.arg(fixture("tiny-f32")).args(["-t", "f16", "-o"]).arg(&out).args(args).output();
        let done = done.unwrap();
        assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
        let said = text(&done.stdout);
        assert!(said.contains("\u{fffd}.gguf") && !said.contains('\u{1b}'), "{said}");
    }
    let folder = dir.path().join(OsStr::from_bytes(b"made\xff"));
    let done = program().args(["make-checkpoint", "1x64x4x300", "--json"]).arg(&folder).output().unwrap();
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    assert!(text(&done.stdout).contains("made\u{fffd}") && folder.is_dir());
}

#[test]
fn help_fits_a_screen_and_has_an_example() {
    let help = text(&program().arg("--help").output().unwrap().stdout);
    assert!(help.lines().count() <= 62 && help.contains("Example:") && help.contains("q4_k_m"), "{help}");
    // The order of the list in an error.
    let names = huozi_convert::plan::Preset::ALL.iter().map(|p| p.name().to_lowercase()).collect::<Vec<_>>();
    let list = help[help.find("Types:").unwrap() + 6..].split_whitespace().take(names.len());
    assert_eq!(list.collect::<Vec<_>>(), names);
    let wide = help[help.find("Types:").unwrap()..].lines().map(|l| l.chars().count()).max();
    assert!(wide <= Some(80), "{help}");
}

#[test]
fn completions_and_manual_pages_know_the_flags() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("man1");
    let made = program().arg("man").arg(&folder).output().unwrap();
    assert_eq!(made.status.code(), Some(0), "{}", text(&made.stderr));
    assert_eq!(text(&made.stdout).lines().count(), 2);
    let page = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap().replace("\\-", "-");
    let (main, made) = (page("huozi-convert.1"), page("huozi-convert-make-checkpoint.1"));
    assert!(main.contains("--imatrix") && main.contains("--dry-run") && made.contains("--layout"), "{main}");
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = program().args(["completions", shell]).output().unwrap();
        let script = text(&script.stdout);
        for name in ["output-tensor-type", "make-checkpoint", "layout"] {
            assert!(script.contains(name), "{shell} lacks {name}");
        }
    }
    let unknown = program().args(["completions", "tcsh"]).output().unwrap();
    assert_eq!((unknown.status.code(), text(&unknown.stdout)), (Some(2), String::new()));
}
