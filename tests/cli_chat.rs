//! `huozi chat` as a script runs it: stored conversations, signals.

mod common;

use common::{arg, finish, huozi, model};
use huozi_convert::plan::Preset;
use std::fs;
use std::io::{Read, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

fn nano() -> String {
    arg(&model("nano", Preset::F16))
}

#[test]
fn a_typed_system_text_wins_over_a_stored_one_and_replies_are_made_visible() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join(".local/share/huozi/sessions");
    fs::create_dir_all(&folder).unwrap();
    let line = r#"{"schema":1,"id":1,"parent":null,"kind":"settings","system":"stored\u001b[2J"}"#;
    fs::write(folder.join("x.jsonl"), format!("{line}\n")).unwrap();
    let set = |typed: &[&str]| {
        let args = ["chat", "-m", &nano(), "--load", "x"];
        let talk = finish(huozi(home.path()).args(args).args(typed), "/set\n");
        talk.ok();
        talk.stderr
    };
    let stored = set(&[]);
    assert!(stored.contains("system stored\u{241b}[2J") && !stored.contains('\x1b'), "{stored:?}");
    let typed = set(&["--system", "typed"]);
    assert!(typed.contains("system typed"), "{typed}");
}

#[test]
fn a_signal_ends_a_script() {
    for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
        let home = tempfile::tempdir().unwrap();
        let args = ["chat", "-n", "100000", "-c", "100000", "-t", "1", "--no-memory-check", "-q"];
        let mut child = huozi(home.path())
            .args(args)
            .args(["--temperature", "2", "--repetition-penalty", "1.5", "-m", &nano()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Standard input stays open, and holds one more line.
        let mut input = child.stdin.take().unwrap();
        input.write_all("写一首关于月的诗。\n再写一首。\n".as_bytes()).unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0u8; 1]).unwrap();
        let kill = std::process::Command::new("kill").args([signal, &child.id().to_string()]).status();
        assert!(kill.unwrap().success());
        let began = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if began.elapsed() > Duration::from_secs(20) {
                child.kill().unwrap();
                panic!("{signal}: it goes on");
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        assert_eq!(status.code(), Some(code), "{signal}");
    }
}
