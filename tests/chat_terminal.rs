//! `huozi demo` as a chat in a terminal of its own: what a person types, and what then stands there and is
//! sent. In a binary of its own, as the tests of `huozi-tui`.
#![cfg(target_os = "linux")]

mod terminal_support;

use rustix::termios::{LocalModes, tcgetattr};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use terminal_support::{Terminal, cache};

/// With [`ENDLESS`] the model writes on and on.
const LONG: [&str; 4] = ["-n", "1700", "--greedy", "-v"];
const ENDLESS: &str = "写";
/// Nothing scrolls away.
const SIZE: (u16, u16) = (80, 100);
const SHORT: [&str; 3] = ["-n", "4", "--greedy"];

fn program<'a>(args: &[&'a str]) -> Vec<&'a str> {
    [&[env!("CARGO_BIN_EXE_huozi"), "demo", "-t", "1"], args].concat()
}

fn chat_with(home: &Path, size: (u16, u16), args: &[&str], env: &[(&str, &str)]) -> Terminal {
    let cache = cache();
    let env = [&[("XDG_CACHE_HOME", cache.as_str())], env].concat();
    let mut t = Terminal::run_program(&program(args), home, size, &env);
    t.wait("the prompt", |screen| screen.contains("/help lists") && at_prompt(screen));
    t
}

fn chat(home: &Path, size: (u16, u16), args: &[&str]) -> Terminal {
    chat_with(home, size, args, &[])
}

/// Whether the last row is an empty prompt.
fn at_prompt(screen: &str) -> bool {
    screen.trim_end().ends_with("\n>")
}

/// Sends a line and waits for the prompt after it.
fn say(t: &mut Terminal, line: &str) {
    let before = t.contents().matches("context ").count();
    t.send(line);
    t.send("\r");
    t.wait("an answer", |screen| screen.matches("context ").count() > before && at_prompt(screen));
}

/// Whether the answer to the last [`ENDLESS`] has begun.
fn is_answering(screen: &str) -> bool {
    let answer = screen.rsplit_once(&format!("> {ENDLESS}\n")).map(|(_, answer)| answer.trim());
    answer.is_some_and(|answer| answer.chars().count() > 4)
}

/// The questions of the conversation that was saved as `name`.
fn questions(home: &Path, name: &str) -> Vec<String> {
    let file = home.join(".local/share/huozi/sessions").join(format!("{name}.jsonl"));
    let text = fs::read_to_string(file).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines
        .filter(|line| line["role"] == "user")
        .map(|line| line["text"].as_str().unwrap().to_owned())
        .collect()
}

fn save(t: &mut Terminal, name: &str) {
    t.send(&format!("/save {name}\r"));
    t.wait("where it is", |screen| screen.contains(&format!("saved as {name}")) && at_prompt(screen));
}

fn history(home: &Path) -> std::path::PathBuf {
    home.join(".local/state/huozi/history")
}

/// Ctrl+D ends it, and the terminal is as it was.
fn quit(mut t: Terminal) {
    t.send("\u{4}");
    assert_eq!(t.ended().code(), Some(0));
    is_given_back(&t);
}

fn is_given_back(t: &Terminal) {
    t.is_restored();
    let modes = tcgetattr(&t.master).unwrap().local_modes;
    assert!(modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG), "{modes:?}");
}

#[test]
fn chinese_is_typed_edited_and_recalled() {
    let home = tempfile::tempdir().unwrap();
    let mut t = chat(home.path(), SIZE, &SHORT);
    t.send("床前明月光");
    t.wait("the line", |screen| screen.contains("> 床前明月光"));
    t.send("\u{7f}\u{7f}");
    t.wait("two fewer", |screen| screen.trim_end().ends_with("> 床前明"));
    assert_eq!(t.screen.lock().unwrap().screen().cursor_position().1, 2 + 6);
    // In the middle, by arrow keys.
    t.send("\u{1b}[D\u{1b}[D天\u{1b}[C");
    t.wait("one between", |screen| screen.trim_end().ends_with("> 床天前明"));
    t.settle();
    assert_eq!(t.screen.lock().unwrap().screen().cursor_position().1, 2 + 6);
    t.send("\u{5}雪");
    t.wait("the end", |screen| screen.trim_end().ends_with("> 床天前明雪"));
    say(&mut t, "");
    say(&mut t, "第二句");
    t.send("\u{1b}[A\u{1b}[A");
    t.wait("the first", |screen| screen.trim_end().ends_with("> 床天前明雪"));
    assert!(!t.contents().contains("^["), "{}", t.contents());
    // Unchanged, once more; Down brings the empty line back.
    t.send("\u{1b}[B\u{1b}[B");
    t.wait("an empty line", at_prompt);
    save(&mut t, "a");
    assert_eq!(questions(home.path(), "a"), ["床天前明雪", "第二句"]);
    quit(t);
}

#[test]
fn a_long_line_of_wide_characters_in_a_narrow_terminal() {
    let home = tempfile::tempdir().unwrap();
    let mut t = chat(home.path(), (40, 100), &SHORT);
    let line = "a床前明月光疑是地上霜举头望明月低头思故乡";
    let text: String = line.repeat(2);
    t.send(&text);
    t.wait("all of it", |screen| screen.replace('\n', "").contains(&text));
    t.send(&"\u{7f}".repeat(text.chars().count() - 1));
    t.wait("one letter", |screen| screen.trim_end().ends_with("\n> a"));
    t.settle();
    assert_eq!(t.contents().matches('床').count(), 0, "{}", t.contents());
    t.send("\u{7f}");
    t.wait("nothing", at_prompt);
    quit(t);
}

#[test]
fn several_pasted_lines_are_one_message() {
    let home = tempfile::tempdir().unwrap();
    let mut t = chat(home.path(), SIZE, &SHORT);
    // Marked by the terminal: it waits for Enter.
    t.paste("一\r二\r三");
    t.wait("the lines", |screen| screen.contains("> 一\n二\n三"));
    say(&mut t, "");
    // Not marked, with and without a line break at the end.
    say(&mut t, "四\r五");
    t.send("六\r\r七");
    t.wait("the lines", |screen| screen.contains("> 六\n\n七"));
    say(&mut t, "");
    // Alt+Enter begins a line; a backslash and a block do so everywhere.
    t.send("八\u{1b}\r九");
    t.wait("two lines", |screen| screen.contains("> 八\n九"));
    say(&mut t, "");
    t.send("十\\\r");
    t.wait("the next line", |screen| screen.trim_end().ends_with("\n."));
    say(&mut t, "百");
    save(&mut t, "a");
    assert_eq!(questions(home.path(), "a"), ["一\n二\n三", "四\n五", "六\n\n七", "八\n九", "十\n百"]);
    // Recalled, it is one message again.
    t.send("\u{1b}[A\u{1b}[A");
    t.wait("the last", |screen| screen.contains("> 十\n百"));
    quit_with_text(t);
}

/// Drops the line, and ends.
fn quit_with_text(mut t: Terminal) {
    t.send("\u{3}");
    t.wait("a hint", |screen| screen.contains("dropped; Ctrl+C twice") && at_prompt(screen));
    quit(t);
}

#[test]
fn what_is_typed_during_an_answer_waits_for_the_next_line() {
    let home = tempfile::tempdir().unwrap();
    let mut t = chat(home.path(), SIZE, &LONG);
    t.send(&format!("{ENDLESS}\r"));
    let first = t.wait("a stream", is_answering);
    t.send("再来x\u{7f}一首\r\u{1b}[A\u{4}");
    t.wait("more of it", |screen| screen != first);
    std::thread::sleep(Duration::from_millis(300));
    let shown = t.contents();
    assert!(!shown.contains("再来") && !shown.contains('^'), "{shown}");
    // Ctrl+C ends the answer, and nothing else.
    t.send("\u{3}");
    t.wait("what was typed, not sent", |screen| screen.trim_end().ends_with("> 再来一首"));
    t.settle();
    t.send("\u{15}");
    t.wait("an empty line", at_prompt);
    save(&mut t, "a");
    assert_eq!(questions(home.path(), "a"), [ENDLESS]);
    quit(t);
}

#[test]
fn escape_sequences_never_reach_the_model() {
    let home = tempfile::tempdir().unwrap();
    let mut t = chat(home.path(), SIZE, &SHORT);
    for sequence in ["\u{1b}[<0;3;3M", "\u{1b}]0;x\u{7}", "\u{1b}[15~", "\u{1b}OP", "\u{1b}[I", "\u{1}\u{1f}"]
    {
        t.send(sequence);
        std::thread::sleep(Duration::from_millis(30));
    }
    say(&mut t, "你好");
    t.paste("红\u{1b}[31m色\u{7}");
    t.wait("the paste", |screen| screen.contains("> 红色"));
    say(&mut t, "");
    save(&mut t, "a");
    assert_eq!(questions(home.path(), "a"), ["你好", "红色"]);
    quit(t);
    // Without an editor: the terminal edits, and what it does not understand is left out.
    let mut t = chat_with(home.path(), SIZE, &SHORT, &[("TERM", "dumb")]);
    say(&mut t, "\u{1b}[A你\u{1b}[D好");
    save(&mut t, "b");
    assert_eq!(questions(home.path(), "b"), ["你好"]);
    quit(t);
}

#[test]
fn commands_values_and_names_are_completed() {
    let home = tempfile::tempdir().unwrap();
    let mut t = chat(home.path(), SIZE, &SHORT);
    t.send("/set temp\t");
    t.wait("a setting", |screen| screen.contains("> /set temperature"));
    t.send("0.3\r");
    t.wait("its value", |screen| screen.contains("temperature 0.3"));
    t.send("/set do_sample of\t\r");
    t.wait("a value", |screen| screen.contains("> /set do_sample off") && screen.contains("do_sample off |"));
    say(&mut t, "你好");
    save(&mut t, "春天的诗");
    t.send("/load 春\t");
    t.wait("a name", |screen| screen.contains("> /load 春天的诗"));
    t.send("\r");
    t.wait("it", |screen| screen.contains("loaded 春天的诗: 1 exchange"));
    t.send("/load\r");
    t.wait("the list", |screen| screen.contains("春天的诗  (just now)") && at_prompt(screen));
    // Several ways to go on are listed.
    t.send("/s\t");
    t.wait("the ways", |screen| screen.contains("/stats") && screen.contains("/show"));
    t.send("tats\r");
    t.wait("the command", |screen| screen.contains("there is no answer in this conversation yet"));
    quit(t);
}

#[test]
fn the_history_is_kept_for_its_owner_and_only_where_it_may_be() {
    let home = tempfile::tempdir().unwrap();
    let mut t = chat(home.path(), SIZE, &SHORT);
    say(&mut t, "第一句");
    t.paste("两\r行");
    say(&mut t, "");
    quit(t);
    let mode = fs::metadata(history(home.path())).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut t = chat(home.path(), SIZE, &SHORT);
    t.send("\u{1b}[A");
    t.wait("the last", |screen| screen.contains("> 两\n行"));
    t.send("\u{15}\u{1b}[A\u{1b}[A\u{1b}[A\u{1b}[A");
    t.wait("the first", |screen| screen.trim_end().ends_with("> 第一句"));
    quit_with_text(t);
    let before = fs::read_to_string(history(home.path())).unwrap();
    // Not kept at all.
    let mut t = chat(home.path(), SIZE, &[&SHORT[..], &["--no-history"]].concat());
    say(&mut t, "不留");
    quit(t);
    assert_eq!(fs::read_to_string(history(home.path())).unwrap(), before);
    // Not what was said in this conversation, before `/private` and after it.
    let mut t = chat(home.path(), SIZE, &SHORT);
    say(&mut t, "秘密一");
    t.send("/private\r");
    t.wait("what it means", |screen| screen.contains("nothing of this conversation is kept"));
    say(&mut t, "秘密二");
    t.send("/save x\r");
    t.wait("a refusal", |screen| screen.contains("/private ends that"));
    t.send("\u{1b}[A\u{1b}[A");
    t.wait("it is known here", |screen| screen.trim_end().ends_with("> 秘密二"));
    t.send("\u{15}/new\r");
    t.wait("another one", |screen| screen.contains("a new conversation"));
    say(&mut t, "公开");
    t.send("\u{1b}[A\u{1b}[A");
    t.wait("nothing secret", |screen| screen.trim_end().ends_with("> 两\n行"));
    quit_with_text(t);
    let after = fs::read_to_string(history(home.path())).unwrap();
    assert!(!after.contains("秘密") && after.contains("公开") && after.starts_with(&before), "{after}");
    assert!(!home.path().join(".local/share/huozi/sessions").exists());
}

#[test]
fn the_last_question_is_edited_and_copied() {
    let home = tempfile::tempdir().unwrap();
    let mut t = chat(home.path(), SIZE, &SHORT);
    say(&mut t, "写诗");
    t.send("/edit\r");
    t.wait("the question", |screen| screen.trim_end().ends_with("> 写诗"));
    say(&mut t, "两首");
    t.send("/copy\r");
    t.wait("a copy", |screen| screen.contains("copied, if the terminal allows it"));
    save(&mut t, "a");
    t.send("/stats\r");
    t.wait("one exchange", |screen| screen.contains("[1 exchange, 0 of them"));
    assert_eq!(questions(home.path(), "a"), ["写诗两首"]);
    t.send("/editor\r");
    t.wait("where it is", |screen| screen.contains("/editor works in huozi-tui only"));
    quit(t);
}

#[test]
fn whatever_ends_it_gives_the_terminal_back() {
    let home = tempfile::tempdir().unwrap();
    for (signal, number) in [("-TERM", None), ("-HUP", Some(1)), ("-QUIT", Some(3)), ("-USR1", Some(10))] {
        use std::os::unix::process::ExitStatusExt;
        // While a line is read, and while an answer is generated.
        for text in ["写诗", "写\r"] {
            let mut t = chat(home.path(), SIZE, &LONG);
            t.send(text);
            t.wait("it", |screen| screen.contains(text.trim_end()));
            if text.ends_with('\r') {
                t.wait("a stream", is_answering);
            }
            let pid = t.child.id().to_string();
            assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
            let ended = t.ended();
            let expected = number.map_or(ended.code() == Some(143), |n| ended.signal() == Some(n));
            assert!(expected, "{signal} {text:?}: {ended:?}");
            is_given_back(&t);
        }
    }
    // Twice Ctrl+C.
    let mut t = chat(home.path(), SIZE, &SHORT);
    t.send("\u{3}");
    t.wait("a hint", |screen| screen.contains("Ctrl+C once more"));
    t.send("\u{3}");
    assert_eq!(t.ended().code(), Some(130));
    is_given_back(&t);
}

#[test]
fn ctrl_z_stops_it_where_a_shell_continues_it() {
    const JOBS: &str = r#"set -m; "$0" "$@"; echo "[stopped $?]"; read go; fg; echo "[ended $?]"; read end"#;
    let home = tempfile::tempdir().unwrap();
    let cache = cache();
    let args = [&["sh", "-c", JOBS], &program(&LONG)[..]].concat();
    let mut t = Terminal::run_program(&args, home.path(), SIZE, &[("XDG_CACHE_HOME", &cache)]);
    t.wait("the prompt", |screen| screen.contains("/help lists") && at_prompt(screen));
    t.send("写一首");
    t.wait("the line", |screen| screen.contains("> 写一首"));
    t.send("\u{1a}");
    t.wait("the shell", |screen| screen.contains("[stopped "));
    is_given_back(&t);
    t.send("\n");
    t.wait("the line again", |screen| screen.trim_end().ends_with("> 写一首"));
    t.send("诗");
    t.wait("one more", |screen| screen.trim_end().ends_with("> 写一首诗"));
    // During an answer, too.
    t.send("\u{15}写\r");
    t.wait("a stream", is_answering);
    t.send("\u{1a}");
    t.wait("the shell", |screen| {
        screen.matches("[stopped ").count() + screen.matches("[ended ").count() >= 2
    });
    is_given_back(&t);
}

#[test]
fn a_dropped_line_does_not_quit_and_a_saved_conversation_is_kept_at_the_end() {
    let home = tempfile::tempdir().unwrap();
    // A history that cannot be one.
    let kept = history(home.path());
    fs::create_dir_all(kept.parent().unwrap()).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &kept, rustix::fs::Mode::RWXU).unwrap();
    let mut t = chat(home.path(), SIZE, &SHORT);
    assert!(t.contents().contains("history of typed lines is not kept"), "{}", t.contents());
    for (n, text) in ["你好", "再见", "你"].into_iter().enumerate() {
        t.send(text);
        t.wait("the text", |screen| screen.trim_end().ends_with(text));
        t.send("\u{3}");
        t.wait("a hint", |screen| screen.matches("dropped; Ctrl+C twice").count() > n && at_prompt(screen));
    }
    say(&mut t, "一");
    save(&mut t, "a");
    say(&mut t, "二");
    t.send("\u{4}");
    assert_eq!(t.ended().code(), Some(0));
    assert!(t.contents().trim_end().ends_with("\nsaved as a"), "{}", t.contents());
    assert_eq!(questions(home.path(), "a"), ["一", "二"]);
}
