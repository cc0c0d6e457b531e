//! `huozi chat` as a script runs it: stored conversations, signals.

use crate::common::{arg, finish, huozi, model};
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
fn saving_and_loading_lose_nothing() {
    let home = tempfile::tempdir().unwrap();
    let talk = |args: &[&str], script: &str| {
        let fixed = ["chat", "-m", &nano(), "-s", "1", "-n", "4"];
        let talk = finish(huozi(home.path()).args(fixed).args(args), script);
        // A script in which something failed goes on and says so in the end.
        assert_eq!(talk.code, Some(talk.stderr.contains("of the lines failed").into()), "{}", talk.stderr);
        talk.stderr
    };
    let folder = home.path().join(".local/share/huozi/sessions");
    let read = |name: &str| fs::read_to_string(folder.join(format!("{name}.jsonl"))).unwrap();
    talk(&[], "春\n/save a\n");
    let first = read("a");
    assert!(first.contains(r#""kind":"title","text":"a""#), "a name that was given is the title: {first}");
    // Another conversation, and an empty one.
    let refused = talk(&[], "/save a\n夏\n/save a\n/clear\n/save! a\n");
    assert!(refused.contains("/save! a puts this one in its place"), "{refused}");
    assert_eq!(refused.matches("nothing was said yet: a stays as it is").count(), 2, "{refused}");
    assert!(refused.ends_with("huozi: 3 of the lines failed\n"), "{refused}");
    assert_eq!(read("a"), first);
    // The same one, in this process, in a later one, and under a second name.
    let on = talk(&[], "/load a\n秋\n/save\n/save b\n冬\n/save b\n");
    assert_eq!(on.matches("saved as a (").count(), 1, "{on}");
    assert_eq!(on.matches("saved as b (").count(), 2, "{on}");
    assert!(talk(&["--load", "a"], "冬\n/save\n/save a\n/stats\n").contains("[3 exchanges, 0 of them"));
    // Told to.
    assert!(talk(&[], "夏\n/save! a\n/stats\n").contains("[1 exchange, 0 of them"));
    assert!(talk(&[], "/load a\n").contains("loaded a: 1 exchange\n"));
    // An unsaved conversation is kept; one that is saved or empty needs no keeping.
    let kept = talk(&[], "雪\n/load b\n/load a\n月\n/load none\n/load a\n");
    let names: Vec<&str> =
        kept.lines().filter_map(|l| l.strip_prefix("the unsaved conversation is kept as ")).collect();
    assert_eq!(names.len(), 2, "{kept}");
    assert_ne!(names[0], names[1]);
    assert!(read(names[0]).contains("雪") && read(names[1]).contains("月"));
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 4);
}

#[test]
fn settings_and_statistics_say_what_is_wrong() {
    let home = tempfile::tempdir().unwrap();
    let script = "/set foo\n/set seed 99999999999999999999\n/set top_k -1\n/set system\n/set top_p\n\
                  /set system 系统\n/set system default\n\"\"\"\n/set\n\"\"\"\n/stats\n/clear\n/stats\n";
    let talk = finish(huozi(home.path()).args(["chat", "-m", &nano(), "-s", "1", "-n", "4"]), script);
    assert_eq!(talk.code, Some(1), "{}", talk.stderr);
    assert!(!talk.out().trim().is_empty(), "the block is a message");
    for said in [
        "unknown setting \"foo\"; valid: max_new_tokens, temperature",
        "from 0 to 18446744073709551615",
        "from 0 to 4294967295",
        "/set system TEXT; /set system default",
        "huozi: /set top_p VALUE",
        "system 系统 | ",
        "system (the model's own) | ",
        "[1 exchange, 0 of them",
        "there is no answer in this conversation yet",
        "huozi: 5 of the lines failed\n",
    ] {
        assert_eq!(talk.stderr.matches(said).count(), 1, "{said:?} in {}", talk.stderr);
    }
}

#[test]
fn the_notice_names_the_limit_for_which_history_is_dropped() {
    let home = tempfile::tempdir().unwrap();
    let talk = |args: &[&str]| {
        let fixed = ["chat", "-m", &nano(), "-s", "1", "-n", "2"];
        let talk = finish(huozi(home.path()).args(fixed).args(args), &"写一首关于月的诗。\n".repeat(17));
        talk.ok();
        talk.stderr
    };
    let said = talk(&["--history", "demo", "-c", "4096"]);
    let one = "huozi: dropped the oldest exchange from the prompt (limit: 15 exchanges)\n";
    assert_eq!((said.matches(one).count(), said.matches("dropped").count()), (2, 2), "{said}");
    assert!(!talk(&["-c", "4096"]).contains("dropped"), "by tokens there is room");
    let said = talk(&["-c", "448"]);
    assert!(said.contains(" oldest exchanges from the prompt (limit: 224 tokens)\n"), "{said}");
    assert!(!said.contains("exchanges)"), "{said}");
}

#[test]
fn commands_that_need_a_terminal_or_huozi_tui_say_so_and_others_do_what_they_do_there() {
    let home = tempfile::tempdir().unwrap();
    let script = "春\n/edit\n/edit 夏\n/stats\n/copy\n/export a.md\n/save 诗\n/new\n秋\n/new\n/list\n\
                  /load 诗\n/back\n/rename 夏天\n/load 夏天\n/nosuch\n/usr/bin\n";
    let talk = finish(huozi(home.path()).args(["chat", "-m", &nano(), "-s", "1", "-n", "4"]), script);
    assert_eq!(talk.code, Some(1), "{}", talk.stderr);
    for said in [
        "/edit TEXT asks TEXT in place of the last question",
        "[1 exchange, 0 of them",
        "there is no terminal whose clipboard could take it",
        "/export works in huozi-tui only: /save NAME, then /export in huozi-tui",
        "saved as 诗 (",
        "the unsaved conversation is kept as chat-",
        "诗  (just now)",
        "there is no earlier answer to bring back",
        "诗 is called 夏天",
        "/nosuch is no command; /help lists them",
        "huozi: 4 of the lines failed\n",
    ] {
        assert_eq!(talk.stderr.matches(said).count(), 1, "{said:?} in {}", talk.stderr);
    }
    assert_eq!(talk.stderr.matches("loaded 诗: 1 exchange").count(), 2, "by name and by title");
    let folder = home.path().join(".local/share/huozi/sessions");
    let file = fs::read_to_string(folder.join("诗.jsonl")).unwrap();
    assert!(file.contains("夏") && !file.contains("\"春\""), "{file}");
}

#[test]
fn a_loaded_conversation_has_its_earlier_answer_and_is_not_private() {
    let home = tempfile::tempdir().unwrap();
    let talk = |options: &[&str], script: &str| {
        let chat = ["chat", "-m", &nano(), "-s", "1", "-n", "4"];
        finish(huozi(home.path()).args(chat).args(options), script).stderr
    };
    talk(&[], "春\n/save a\n/retry\n/save\n");
    for said in [talk(&[], "/load a\n/back\n"), talk(&["--load", "a"], "/back\n")] {
        assert!(said.contains("brought back: 春\n"), "{said}");
    }
    let said = talk(&[], "/private\n/load a\n/load a\n");
    let public = "loaded a: 1 exchange; this one can be saved, and lines are kept again\n";
    assert_eq!(said.matches(public).count(), 1, "{said}");
    assert!(said.contains("loaded a: 1 exchange\n"), "{said}");
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

#[test]
fn settings_of_files_out_of_range_are_replaced_with_a_note() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join(".local/share/huozi/sessions");
    fs::create_dir_all(&folder).unwrap();
    let line =
        r#"{"schema":1,"id":1,"parent":null,"kind":"settings","choices":{"sampling":{"temperature":-1}}}"#;
    fs::write(folder.join("x.jsonl"), format!("{line}\n")).unwrap();
    let talk = finish(huozi(home.path()).args(["chat", "-m", &nano(), "--load", "x"]), "/set\n");
    talk.ok();
    let note = "huozi: x: temperature -1 is not used: a number from 0 to 5 is needed\n";
    assert!(talk.stderr.contains(note), "{}", talk.stderr);
    // The key of a model file, spelled by hand: a converted one has none of these.
    let file = home.path().join("hot.gguf");
    let mut options = huozi_convert::Options::new(
        huozi_convert::Source::Path(crate::common::checkpoint("tiny-f32")),
        Preset::F32,
        &file,
    );
    options.metadata =
        vec![("general.sampling.temp".into(), "9.5".into()), ("general.sampling.top_p".into(), "0".into())];
    huozi_convert::pipeline::run(&options, &(), &std::sync::atomic::AtomicBool::new(false)).unwrap();
    let file = crate::common::arg(&file);
    let talk = finish(huozi(home.path()).args(["chat", "-m", &file]), "/set\n");
    talk.ok();
    assert!(
        talk.stderr.contains("temperature 0.5 | ") && talk.stderr.contains("top_p 0 | "),
        "{}",
        talk.stderr
    );
    let note = format!("huozi: {file}: temperature 9.5 is not used: a number from 0 to 5 is needed\n");
    assert!(talk.stderr.contains(&note), "{}", talk.stderr);
    // A configuration is typed: refused with the range.
    let config = home.path().join(".config/huozi");
    fs::create_dir_all(&config).unwrap();
    fs::write(config.join("config.toml"), "[sampling]\ntop_p = 1.01\n").unwrap();
    let refused = finish(huozi(home.path()).args(["chat", "-m", &file]), "");
    refused.fails(4, "config.toml: top_p: a number from 0 to 1 is needed");
}
