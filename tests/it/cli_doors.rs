//! The same rule wherever a text, a number of threads or `--json` is given.

use crate::common::{Run, arg, finish, fixture, huozi, model, run};
use huozi_convert::plan::Preset;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn nano() -> String {
    arg(&model("nano", Preset::F16))
}

const POEM: &str = "床前明月光，\r\n疑是地上霜。\r\n";

/// [`POEM`] in every encoding that is read, with the name of the encoding.
fn encodings() -> Vec<(Vec<u8>, &'static str)> {
    // GB18030 of the poem, as Python's codec writes it.
    let gb = b"\xb4\xb2\xc7\xb0\xc3\xf7\xd4\xc2\xb9\xe2\xa3\xac\r\n\
        \xd2\xc9\xca\xc7\xb5\xd8\xc9\xcf\xcb\xaa\xa1\xa3\r\n";
    let units = |text: &str, little: bool| {
        let of = |unit: u16| if little { unit.to_le_bytes() } else { unit.to_be_bytes() };
        text.encode_utf16().flat_map(of).collect::<Vec<u8>>()
    };
    let marked = format!("\u{feff}{POEM}");
    vec![
        (POEM.into(), ""),
        (marked.clone().into(), ""),
        (gb.to_vec(), "gb18030"),
        (units(&marked, true), "UTF-16LE"),
        (units(&marked, false), "UTF-16BE"),
        (units(POEM, true), "UTF-16LE"),
    ]
}

fn with_bytes(args: &[&str], home: &Path, stdin: &[u8]) -> Run {
    fs::write(home.join("stdin"), stdin).unwrap();
    let output = huozi(home)
        .args(args)
        .stdin(Stdio::from(fs::File::open(home.join("stdin")).unwrap()))
        .output()
        .unwrap();
    Run {
        code: output.status.code(),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

#[test]
fn a_text_is_read_in_every_encoding_at_every_door() {
    let (m, home) = (nano(), tempfile::tempdir().unwrap());
    let path = arg(&home.path().join("poem.txt"));
    let doors: [(&[&str], bool); 6] = [
        (&["tokenize", "-m", &m, "-f"], false),
        (&["logits", "-m", &m, "-k", "1", "--last", "-f"], false),
        (&["eval", "ppl", "-m", &m, "-c", "8"], true),
        (&["eval", "kl", "-m", &m, "--base", &m, "-c", "8"], true),
        (&["run", "-m", &m, "--raw", "-s", "1", "-n", "3", "-f"], true),
        (&["run", "-m", &m, "-s", "1", "-n", "3", "-p", "你好", "--system-file"], true),
    ];
    for (door, can_be_quiet) in doors {
        let mut first = None;
        for (bytes, encoding) in encodings() {
            fs::write(&path, &bytes).unwrap();
            let seen = run(&[door, &[&path]].concat(), "");
            assert_eq!(seen.ok(), first.get_or_insert_with(|| seen.out().to_owned()), "{door:?} {encoding}");
            let told = seen.stderr.contains(&format!("poem.txt: not UTF-8; read as {encoding}\n"));
            assert_eq!(told, !encoding.is_empty(), "{door:?} {encoding}: {}", seen.stderr);
            if can_be_quiet {
                let quiet = run(&[door, &[&path, "-q"]].concat(), "");
                assert_eq!((quiet.ok(), quiet.stderr.as_str()), (seen.out(), ""), "{door:?}");
            }
            // Standard input is a file like any other.
            let typed = with_bytes(&[door, &["-"]].concat(), home.path(), &bytes);
            assert_eq!(typed.ok(), seen.out(), "{door:?} {encoding}");
        }
    }
}

#[test]
fn carriage_returns_stay_and_byte_order_marks_go() {
    let (m, home) = (nano(), tempfile::tempdir().unwrap());
    let path = arg(&home.path().join("poem.txt"));
    for (bytes, encoding) in encodings() {
        fs::write(&path, &bytes).unwrap();
        let json = run(&["tokenize", "-m", &m, "--json", "-f", &path], "").json();
        assert_eq!(json[0]["text"], POEM, "{encoding}");
    }
}

#[test]
fn a_quarter_of_a_million_lines_in_any_encoding() {
    let (m, home) = (nano(), tempfile::tempdir().unwrap());
    let path = arg(&home.path().join("many.txt"));
    for (bytes, encoding) in [encodings().swap_remove(2), encodings().swap_remove(5)] {
        fs::write(&path, bytes.repeat(125_000)).unwrap();
        let shown = run(&["tokenize", "-m", &m, "-f", &path], "");
        let lines = shown.ok().lines().filter(|line| line.contains("\\n")).count();
        assert_eq!(lines, 250_000, "{encoding}");
    }
}

#[test]
fn a_file_that_is_no_text_is_refused_by_byte_and_line() {
    let (m, home) = (nano(), tempfile::tempdir().unwrap());
    let path = arg(&home.path().join("poem.txt"));
    let mut cut = POEM.repeat(3).into_bytes();
    cut.remove(23);
    let picture = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    for (bytes, what) in [
        (cut, "not UTF-8 at byte 23 (line 2), as the rest of it is"),
        (picture, "not UTF-8 at byte 0 (line 1), and neither GB18030 nor UTF-16"),
        (b"abc\n\xe9 d".to_vec(), "convert it with `iconv -f ENCODING -t UTF-8`"),
        (b"\xff\xfea\0\n\0\x00\xd8\n\0".to_vec(), "not UTF-16LE at byte 6 (line 2)"),
    ] {
        fs::write(&path, bytes).unwrap();
        for door in [&["tokenize", "-f"][..], &["run", "-f"], &["logits", "-f"], &["eval", "ppl"]] {
            run(&[door, &[&path, "-m", &m]].concat(), "").fails(4, what);
        }
    }
}

/// The number of threads that run where `-t 1000` is typed.
fn processors() -> usize {
    std::thread::available_parallelism().unwrap().get()
}

#[test]
fn more_threads_than_processors_are_not_run() {
    let (m, n) = (nano(), processors());
    let note = format!("huozi: 1000 threads were asked for, {n} run");
    let began = Instant::now();
    let answer = run(&["run", "-m", &m, "-s", "1", "-n", "32", "-t", "1000", "--json", "写一首诗。"], "");
    assert_eq!(answer.json()[0]["threads"], n);
    assert!(answer.stderr.starts_with(&note), "{}", answer.stderr);
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    let quiet = run(&["run", "-m", &m, "-s", "1", "-n", "2", "-t", "1000", "-q", "写一首诗。"], "");
    assert_eq!(quiet.stderr, "");
    let noted = |seen: &Run| {
        assert_eq!(seen.stderr.matches(&note).count(), 1, "{}", seen.stderr);
    };
    let text = arg(&fixture("famous-poems.txt"));
    let ppl = run(&["eval", "ppl", "-m", &m, &text, "--chunks", "1", "-t", "1000", "--json"], "");
    assert_eq!(ppl.json()[0]["threads"], n);
    noted(&ppl);
    let kl = run(&["eval", "kl", "-m", &m, "--base", &m, &text, "--chunks", "1", "-t", "1000", "--json"], "");
    assert_eq!(kl.json()[0]["threads"], n);
    noted(&kl);
    let logits = run(&["logits", "-m", &m, "-p", "春", "-t", "1000", "--json"], "");
    assert_eq!(logits.json()[0]["threads"], n);
    noted(&logits);
    noted(&run(&["chat", "-m", &m, "-t", "1000", "-n", "1"], "你好\n"));
    // The same number twice is measured once.
    let bench = ["bench", "-m", &m, "-p", "4", "-n", "0", "-r", "1", "-t", "1000,999", "--json"];
    let rows = run(&bench, "");
    assert_eq!(rows.json().len(), 1);
    assert_eq!(rows.json()[0]["n_threads"], n);
    noted(&rows);
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join(".config/huozi");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("config.toml"), "threads = 1000\n").unwrap();
    let configured = |command: &mut Command| finish(command, "");
    noted(&configured(huozi(home.path()).args(["run", "-m", &m, "-p", "春", "-n", "1"])));
    let env = configured(huozi(home.path()).args(["doctor", "--json"]).env("HUOZI_THREADS", "1000"));
    assert_eq!(env.json()[0]["threads"], n);
    noted(&env);
}

#[test]
fn every_command_but_chat_has_json_with_a_schema() {
    let (m, text) = (nano(), arg(&fixture("famous-poems.txt")));
    let home = tempfile::tempdir().unwrap();
    let written = arg(&home.path().join("random.gguf"));
    let commands: [(&[&str], &[&str]); 11] = [
        (&["run", "-m", &m, "-p", "春", "-n", "1"], &["text", "ids", "model_fingerprint", "runs_on"]),
        (&["demo", "春", "-n", "1"], &["text", "ids", "model_fingerprint", "runs_on"]),
        (&["tokenize", "-m", &m, "-p", "春"], &["n_tokens", "ids", "tokens"]),
        (&["logits", "-m", &m, "-p", "春"], &["id", "piece", "top", "model_fingerprint", "runs_on"]),
        (&["inspect", &m], &["model", "bytes", "metadata"]),
        (&["verify", &m], &["model", "bytes", "ok"]),
        (&["eval", "ppl", "-m", &m, &text, "--chunks", "1"], &["n_tokens", "ppl", "model", "threads"]),
        (&["bench", "-m", &m, "-p", "4", "-n", "0", "-r", "1"], &["test", "runs_on", "n_threads"]),
        (&["bench", "--shape", "1x64x2x512", "--write", &written], &["model", "bytes"]),
        (
            &["bench", "-m", &m, "-n", "24", "-r", "1", "--speculate", "0,1"],
            &["speculate_chance", "ratio", "verify_ratio", "text_equal", "accepted_tokens"],
        ),
        (&["doctor"], &["threads", "models", "isa"]),
    ];
    for (command, keys) in commands {
        let seen = run(&[command, &["--json"]].concat(), "");
        let object: &Value = &seen.json()[0];
        for key in keys {
            assert!(!object[*key].is_null(), "{command:?}: {key} missing in {object}");
        }
    }
    // A failure is told on standard error, as without --json.
    run(&["inspect", "/nowhere.gguf", "--json"], "").fails(4, "/nowhere.gguf");
}
