//! Completions and manual pages know every subcommand and flag, and the packages install them.

use crate::common::{Run, arg, finish, huozi, run};
use clap::{Arg, Command, CommandFactory};
use huozi::cli::args::Cli;
use std::fs;
use std::path::Path;
use std::process;

const SHELLS: [&str; 5] = ["bash", "zsh", "fish", "powershell", "elvish"];

/// The long names of the flags that a command's help shows.
fn flags(command: &Command) -> Vec<String> {
    let shown = command.get_arguments().filter(|flag| !flag.is_hide_set());
    shown.filter_map(Arg::get_long).map(str::to_owned).collect()
}

/// A command and all below it, each with the name of its manual page.
fn all(command: &Command, page: &str, found: &mut Vec<(String, Command)>) {
    found.push((page.to_owned(), command.clone()));
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help" && !sub.is_hide_set()) {
        all(sub, &format!("{page}-{}", sub.get_name()), found);
    }
}

fn commands() -> Vec<(String, Command)> {
    let mut command = Cli::command();
    command.build();
    let mut found = Vec::new();
    all(&command, "huozi", &mut found);
    assert!(found.len() > 10 && found.iter().any(|(page, _)| page == "huozi-eval-ppl"));
    found
}

#[test]
fn every_subcommand_has_a_page_with_its_flags() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("new").join("man1");
    let printed = run(&["man", &arg(&folder)], "");
    for (page, command) in commands() {
        let path = folder.join(format!("{page}.1"));
        assert!(printed.ok().lines().any(|line| Path::new(line) == path), "{page}");
        // In roff a hyphen of a flag is written `\-`.
        let text = fs::read_to_string(path).unwrap().replace("\\-", "-");
        for flag in flags(&command) {
            assert!(text.contains(&format!("--{flag}")), "{page} lacks --{flag}:\n{text}");
        }
        assert!(text.contains("EXTRA") && text.contains("Example"), "{page} shows no example");
    }
    #[cfg(feature = "tui")]
    assert!(fs::read_to_string(folder.join("huozi-tui.1")).unwrap().contains("ascii"));
    // A page is never there in part, and can be read by all.
    let names: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(names.iter().all(|path| path.extension().is_some_and(|e| e == "1")), "{names:?}");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(folder.join("huozi.1")).unwrap().permissions().mode();
        assert_ne!(mode & 0o077, 0, "{mode:o}");
    }
    let file = home.path().join("file");
    fs::write(&file, "kept").unwrap();
    run(&["man", &arg(&file)], "").fails(2, "must be a directory");
    assert_eq!(fs::read_to_string(&file).unwrap(), "kept");
}

#[test]
fn every_shell_completes_every_flag() {
    for shell in SHELLS {
        let script = run(&["completions", shell], "");
        for (page, command) in commands() {
            for flag in flags(&command) {
                // Fish names flags without their hyphens.
                let named = if shell == "fish" { format!("-l {flag}") } else { format!("--{flag}") };
                assert!(script.ok().contains(&named), "{shell}: {page} lacks --{flag}");
            }
        }
    }
    let unknown = run(&["completions", "tcsh"], "");
    assert_eq!((unknown.code, unknown.out()), (Some(2), ""), "{unknown:?}");
    assert!(unknown.stderr.contains("zsh"), "{unknown:?}");
    #[cfg(feature = "tui")]
    assert!(run(&["completions", "zsh", "--program", "huozi-tui"], "").ok().contains("#compdef huozi-tui"));
}

#[test]
fn a_broken_configuration_does_not_matter_to_scripts() {
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join(".config/huozi");
    fs::create_dir_all(&config).unwrap();
    fs::write(config.join("config.toml"), "top_k = ").unwrap();
    let script = finish(huozi(home.path()).args(["completions", "fish"]), "");
    assert!(script.ok().contains("complete -c huozi"), "{script:?}");
    assert_eq!(script.stderr, "");
}

/// Runs a script of bash; `$1` and on are `args`.
fn bash(script: &str, args: &[&str]) -> Run {
    let output = process::Command::new("bash").arg("-c").arg(script).arg("bash").args(args).output().unwrap();
    Run {
        code: output.status.code(),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

#[test]
fn the_packages_install_programs_completions_and_pages() {
    let home = tempfile::tempdir().unwrap();
    let (bin, stage) = (home.path().join("bin"), home.path().join("a stage"));
    fs::create_dir(&bin).unwrap();
    let programs = if cfg!(feature = "tui") { vec!["huozi", "huozi-tui"] } else { vec!["huozi"] };
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_huozi"), bin.join("huozi")).unwrap();
    #[cfg(feature = "tui")]
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_huozi-tui"), bin.join("huozi-tui")).unwrap();
    let install = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/install.sh");
    let script = "DESTDIR=$1 exec \"$2\" \"${@:3}\"";
    let installed = bash(script, &[&arg(&stage), &arg(&install), "/usr", &arg(&bin)]);
    assert!(installed.ok().contains(&programs.join(" ")), "{installed:?}");
    let usr = stage.join("usr");
    for program in programs {
        for path in [
            format!("bin/{program}"),
            format!("share/man/man1/{program}.1"),
            format!("share/bash-completion/completions/{program}"),
            format!("share/zsh/site-functions/_{program}"),
            format!("share/fish/vendor_completions.d/{program}.fish"),
        ] {
            assert!(fs::metadata(usr.join(&path)).unwrap().len() > 1000, "{path}");
        }
    }
    assert!(usr.join("share/man/man1/huozi-run.1").exists());
    assert!(!usr.join("bin/huozi-convert").exists() && !usr.join("share/man/man1/huozi-convert.1").exists());
    // Bash itself completes subcommands and flags with what was installed.
    let complete = "source \"$1\" && COMP_WORDS=(huozi ${2:+$2} \"$3\") COMP_CWORD=$((${2:+1}+1)) \
        && _huozi huozi \"$3\" \"${2:-huozi}\" && echo \"${COMPREPLY[@]}\"";
    let of_huozi = arg(&usr.join("share/bash-completion/completions/huozi"));
    assert_eq!(bash(complete, &[&of_huozi, "", "insp"]).ok(), "inspect\n");
    assert_eq!(bash(complete, &[&of_huozi, "run", "--max-new"]).ok(), "--max-new-tokens\n");
    // Nothing to install, a relative folder: one line, and nothing is made.
    let empty = bash(script, &[&arg(&home.path().join("s")), &arg(&install), "/usr", &arg(home.path())]);
    assert!(empty.code == Some(1) && empty.stderr.contains("cargo build --release"), "{empty:?}");
    let relative = bash(script, &["", &arg(&install), "usr", &arg(&bin)]);
    assert!(relative.code == Some(2) && relative.stderr.contains("absolute"), "{relative:?}");
    assert!(!home.path().join("s").exists());
}
