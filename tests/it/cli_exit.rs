//! The exit codes of `huozi`, and that a failure is one clear line on standard error.

use crate::common::{arg, finish, huozi, model, run};
use huozi_convert::plan::Preset;
use std::fs;
use std::io::Read;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

fn nano() -> String {
    arg(&model("nano", Preset::F16))
}

#[test]
fn wrong_usage_is_2() {
    assert_eq!(run(&["run", "--no-such-flag"], "").code, Some(2));
    assert_eq!(run(&["run", "-p", "a", "-f", "b"], "").code, Some(2));
    assert_eq!(run::<&str>(&[], "").code, Some(2));
    run(&["run", "-p", "x"], "").fails(2, "huozi demo");
    run(&["run", "-m", &nano(), "-p", ""], "").fails(2, "the prompt is empty");
    run(&["run", "-m", &nano()], "").fails(2, "the prompt is empty");
    run(&["logits", "-m", &nano(), "--ids", "7000"], "").fails(2, "id 7000");
    for (flag, value, most) in [("-c", "16777217", "16777216"), ("-t", "1025", "1024")] {
        let refused = run(&["run", "-m", &nano(), "-p", "x", flag, value], "");
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert!(refused.stderr.contains(&format!("from 1 to {most}")), "{refused:?}");
    }
    let home = tempfile::tempdir().unwrap();
    finish(huozi(home.path()).args(["run", "-m", &nano(), "-p", "x"]).env("HUOZI_THREADS", "many"), "")
        .fails(2, "HUOZI_THREADS");
    finish(huozi(home.path()).args(["run", "-m", &nano(), "-p", "x"]).env("HUOZI_THREADS", "1025"), "")
        .fails(2, "from 1 to 1024");
    finish(huozi(home.path()).args(["run", "-m", &nano(), "-p", "x"]).env("HUOZI_ISA", "mmx"), "")
        .fails(2, "HUOZI_ISA=mmx");
}

/// A build without llama.cpp says how to get one with it, before it reads anything.
#[cfg(not(feature = "ggml"))]
#[test]
fn an_engine_that_is_not_built_in_is_2() {
    let text = arg(&crate::common::fixture("famous-poems.txt"));
    for args in [
        &["run", "-p", "x", "--engine", "ggml"][..],
        &["chat", "--engine", "ggml"],
        &["logits", "-p", "x", "--engine", "ggml"],
        &["eval", "ppl", &text, "--engine", "ggml"],
        &["eval", "kl", &text, "--base", &nano(), "--base-engine", "ggml"],
    ] {
        run(&[args, &["-m", &nano()]].concat(), "").fails(2, "--features ggml");
    }
}

#[test]
fn help_and_version_are_0() {
    for args in [&["--help"][..], &["--version"], &["run", "--help"], &["eval", "kl", "-h"]] {
        let help = run(args, "");
        assert!(!help.ok().is_empty() && help.stderr.is_empty(), "{help:?}");
    }
}

#[test]
fn a_bad_file_is_4() {
    let home = tempfile::tempdir().unwrap();
    let path = |name: &str| arg(&home.path().join(name));
    run(&["run", "-m", &path("none.gguf"), "-p", "x"], "").fails(4, "none.gguf");
    fs::write(path("text.gguf"), "Once upon a time").unwrap();
    for command in ["run", "inspect", "tokenize"] {
        run(&[command, "-m", &path("text.gguf")], "x").fails(4, "text.gguf");
    }
    run(&["run", "-m", &arg(home.path()), "-p", "x"], "").fails(4, "a folder");
    let whole = fs::read(nano()).unwrap();
    fs::write(path("cut.gguf"), &whole[..whole.len() / 2]).unwrap();
    run(&["run", "-m", &path("cut.gguf"), "-p", "x"], "").fails(4, "cut.gguf");
    fs::write(path("latin1.txt"), [b'a', 0xe9]).unwrap();
    run(&["run", "-m", &nano(), "-f", &path("latin1.txt")], "").fails(4, "not UTF-8 at byte 1");
    run(&["run", "-m", &nano(), "-f", &path("no.txt")], "").fails(4, "no.txt");
    fs::write(path("short.txt"), "春").unwrap();
    run(&["eval", "ppl", "-m", &nano(), &path("short.txt")], "").fails(4, "a chunk needs 256");
    // Tokens without a row: the number of rows is the last thing said about the shape of the embedding.
    let mut few = whole;
    let name = b"token_embd.weight";
    let at = few.windows(name.len()).position(|w| w == name).unwrap() + name.len() + 4 + 8;
    assert_eq!(few[at..at + 8], 6144u64.to_le_bytes());
    few[at..at + 8].copy_from_slice(&6000u64.to_le_bytes());
    fs::write(path("few.gguf"), few).unwrap();
    for args in [&["run", "-p", "x"][..], &["logits", "-p", "x"]] {
        run(&[args, &["-m", &path("few.gguf")]].concat(), "")
            .fails(4, "expected a row for each of the 6144 tokens, found 6000 rows");
    }
    let config = home.path().join(".config/huozi");
    fs::create_dir_all(&config).unwrap();
    fs::write(config.join("config.toml"), "threads = [").unwrap();
    finish(huozi(home.path()).args(["doctor"]), "").fails(4, "config.toml");
}

#[test]
fn too_long_is_1_with_counts() {
    let long = "春".repeat(400);
    let asked = run(&["run", "-m", &nano(), "-c", "300"], &long);
    asked.fails(1, "150 of the context's 300 are allowed");
    asked.fails(1, "larger context with -c");
    run(&["run", "-m", &nano(), "-c", "300", "--raw"], &long).fails(1, "299 of the context's 300");
}

#[test]
fn no_memory_is_5() {
    let args = ["run", "-m", &nano(), "-p", "x", "-c", "16777216"];
    run(&args, "").fails(5, "--no-memory-check");
    #[cfg(target_os = "linux")]
    if fs::metadata("/dev/full").is_ok() {
        let home = tempfile::tempdir().unwrap();
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut command = huozi(home.path());
        let command =
            command.args(["tokenize", "-m", &nano(), "-p", "x"]).stdout(full).stderr(Stdio::piped());
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(5), "{output:?}");
    }
}

#[test]
fn a_closed_pipe_ends_quietly() {
    for args in [
        &["run", "-p", "写一首关于月的诗。", "-n", "400", "--repetition-penalty", "1"][..],
        &["logits", "-p", "写一首关于月的诗。", "--all"],
        &["inspect", "--full"],
    ] {
        let home = tempfile::tempdir().unwrap();
        let mut child = huozi(home.path())
            .args(args)
            .args(["-m", &nano()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = child.stdout.take().unwrap();
        out.read_exact(&mut [0u8; 1]).unwrap();
        drop(out);
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), &*output.stderr), (Some(0), &b""[..]), "{args:?}: {output:?}");
    }
}

/// Starts an answer that takes a while and waits for its first byte.
fn answering(home: &tempfile::TempDir) -> Child {
    let mut child = huozi(home.path())
        .args([
            "run",
            "-m",
            &nano(),
            "--raw",
            "-n",
            "100000",
            "-c",
            "100000",
            "-t",
            "1",
            "--no-memory-check",
            "-q",
        ])
        // Without a penalty the likeliest tokens go in a circle: this one never comes to an end token.
        .args(["--greedy", "--repetition-penalty", "1", "-p", "春"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let out = child.stdout.as_mut().unwrap();
    out.read_exact(&mut [0u8; 1]).unwrap();
    child
}

fn kill(child: &Child, signal: &str) {
    let status = std::process::Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

#[test]
fn signals_are_130_and_143() {
    for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
        let home = tempfile::tempdir().unwrap();
        let child = answering(&home);
        let sent = Instant::now();
        kill(&child, signal);
        let output = child.wait_with_output().unwrap();
        assert_eq!(
            output.status.code(),
            Some(code),
            "{signal}: {:?}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(sent.elapsed() < Duration::from_secs(5));
        assert!(output.stdout.ends_with(b"\n"), "the line is ended");
    }
}

#[test]
fn a_program_that_waits_for_input_ends_at_once() {
    let home = tempfile::tempdir().unwrap();
    let mut child = huozi(home.path())
        .args(["run", "-m", &nano()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(700));
    assert!(child.try_wait().unwrap().is_none());
    kill(&child, "-INT");
    // Its standard input stays open: nothing but the signal can end it.
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(began.elapsed() < Duration::from_secs(10), "still waiting");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(status.code(), Some(130));
}
