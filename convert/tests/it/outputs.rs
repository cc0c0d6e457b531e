//! Where outputs go: a regular file, through links to it, and nothing else.

use std::fs;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output};

use crate::convert_support::fixture;

fn convert(out: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_huozi-convert"));
    command.arg(fixture("tiny-f32")).args(["-t", "q8_0", "-o"]).arg(out).args(args).output().unwrap()
}

fn error(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Refused with and without `--force`, and never told to use it.
#[track_caller]
fn refused(out: &Path, what: &str) {
    for args in [&[][..], &["--force"], &["--force", "--dry-run"]] {
        let output = convert(out, args);
        let said = error(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(what) && !said.contains("force"), "{said}");
    }
}

#[test]
fn devices_fifos_sockets_and_directories_stay() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    assert!(Command::new("mkfifo").arg(at("fifo")).status().unwrap().success());
    let _socket = UnixListener::bind(at("socket")).unwrap();
    fs::create_dir(at("folder")).unwrap();
    symlink("fifo", at("to-fifo")).unwrap();
    symlink("round", at("round")).unwrap();
    refused(&at("fifo"), "a FIFO");
    refused(&at("socket"), "a socket");
    refused(&at("folder"), "a directory");
    refused(&at("to-fifo"), "a FIFO");
    refused(&at("round"), "leads back to itself");
    refused(Path::new("/dev/null"), "a character device");
    let node = at("node");
    if Command::new("mknod").arg(&node).args(["c", "1", "3"]).output().is_ok_and(|o| o.status.success()) {
        refused(&node, "a character device");
        assert!(fs::metadata(&node).unwrap().file_type().is_char_device());
    } else {
        eprintln!("skipped: this user may not make a device node");
    }
    assert!(fs::metadata(at("fifo")).unwrap().file_type().is_fifo());
    assert!(fs::metadata(at("socket")).unwrap().file_type().is_socket());
    assert!(at("folder").read_dir().unwrap().next().is_none());
    let left = dir.path().read_dir().unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let left: Vec<_> = left.filter(|name| name.contains("partial") || name.contains("journal")).collect();
    assert_eq!(left, [""; 0]);
}

#[test]
fn a_link_leads_to_the_file_and_stays() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("models")).unwrap();
    fs::write(at("models/old.gguf"), "old").unwrap();
    symlink("models/old.gguf", at("link")).unwrap();
    symlink("link", at("chain")).unwrap();
    symlink("models/new.gguf", at("dangling")).unwrap();
    // Without --force the file behind the link stays.
    let kept = convert(&at("chain"), &[]);
    assert!(kept.status.code() == Some(2) && error(&kept).contains("models/old.gguf exists; --force"));
    assert_eq!(fs::read(at("models/old.gguf")).unwrap(), b"old");
    for (given, target, args) in
        [("chain", "models/old.gguf", &["--force"][..]), ("dangling", "models/new.gguf", &[])]
    {
        let output = convert(&at(given), args);
        assert!(output.status.success(), "{}", error(&output));
        assert!(fs::symlink_metadata(at(given)).unwrap().is_symlink(), "{given}");
        assert!(fs::read(at(target)).unwrap().starts_with(b"GGUF"), "{target}");
    }
    assert_eq!(at("models").read_dir().unwrap().count(), 2, "nothing else is left");
    // Two names of one file.
    let mut command = Command::new(env!("CARGO_BIN_EXE_huozi-convert"));
    let twice = command.arg(fixture("tiny-f32")).args(["-t", "f16", "-o"]).arg(at("link"));
    let twice = twice.args(["-t", "q8_0", "--force", "-o"]).arg(at("models/old.gguf")).output().unwrap();
    assert!(twice.status.code() == Some(2) && error(&twice).contains("written twice"), "{}", error(&twice));
}

#[test]
fn make_checkpoint_writes_a_directory_or_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    assert!(Command::new("mkfifo").arg(at("fifo")).status().unwrap().success());
    symlink("real", at("link")).unwrap();
    let make = |to: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_huozi-convert"));
        command.args(["make-checkpoint", "1x32x2x300"]).arg(to).output().unwrap()
    };
    let refused = make(&at("fifo"));
    assert!(refused.status.code() == Some(2) && error(&refused).contains("a FIFO"), "{}", error(&refused));
    let made = make(&at("link"));
    assert!(made.status.success(), "{}", error(&made));
    assert!(at("real/config.json").is_file() && fs::symlink_metadata(at("link")).unwrap().is_symlink());
    let full = make(&at("link"));
    assert!(full.status.code() == Some(2) && error(&full).contains("is not empty"), "{}", error(&full));
}

#[test]
fn a_dry_run_shows_sizes_in_units_that_suit_them() {
    let output = convert(&tempfile::tempdir().unwrap().path().join("a.gguf"), &["--dry-run"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let line = |name: &str| text.lines().find(|l| l.starts_with(name)).unwrap_or_else(|| panic!("{text}"));
    assert!(line("output_norm.bias ").ends_with(" 256 B"), "{text}");
    assert!(line("token_embd.weight ").ends_with(" 68.0 KiB"), "{text}");
    assert!(!text.contains("0.00 ") && !text.contains(" 0 MiB"), "{text}");
}
