//! Keys that were lost or went to the wrong place, each typed as a person does.

use crate::terminal_support::Terminal;
use crate::{IDLE, sent, sessions};

/// An answer of a few tokens, drawn with a fixed seed: a further attempt is another one.
const SHORT: [&str; 6] = ["--new", "-n", "12", "--seed", "7", "--temperature=1"];

/// What stands below the question on the screen.
fn shown_answer(screen: &str) -> String {
    let rows = screen.lines().skip_while(|row| !row.starts_with("活字")).skip(1);
    rows.take_while(|row| !row.starts_with('─')).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_answer_that_was_replaced_comes_back() {
    let home = tempfile::tempdir().unwrap();
    let mut t = Terminal::chat(home.path(), (80, 24), &SHORT);
    t.send("写一首关于月的诗。\r");
    t.wait("an answer", sent("写一首关于月的诗。"));
    let first = shown_answer(&t.settle());
    t.send("\u{12}");
    t.wait("how to bring it back", |screen| screen.contains("Alt+Z 恢复之前的回答"));
    let second = shown_answer(&t.settle());
    assert_ne!(first.trim(), second.trim());
    // Alt+Z, then F10.
    for (key, expected) in [("\u{1b}z", &first), ("\u{1b}[21~", &second), ("\u{1b}z", &first)] {
        t.send(key);
        t.wait("the other answer", |screen| shown_answer(screen).trim() == expected.trim());
    }
    t.quit();
    // And it is the conversation at the next start, from where the other one is still in reach.
    let mut t = Terminal::chat(home.path(), (80, 24), &[]);
    t.wait("the first answer", |screen| shown_answer(screen).trim() == first.trim());
    t.send("\u{1b}z");
    t.wait("the second", |screen| shown_answer(screen).trim() == second.trim());
    t.quit();
    assert_eq!(sessions(home.path()).len(), 1);
}

#[test]
fn keys_of_the_panes_stay_in_them() {
    let home = tempfile::tempdir().unwrap();
    let mut t = Terminal::chat(home.path(), (80, 24), &["--new", "-n", "8"]);
    // F2, down to kv_type.
    t.send("\u{1b}OQ");
    t.wait("the settings", |screen| screen.contains("缓存类型"));
    t.send(&"\u{1b}[B".repeat(9));
    t.send("q8\r");
    t.wait("the value", |screen| screen.contains("缓存类型 kv_type") && screen.contains(" q8 "));
    t.send("quit\r");
    t.wait("a reason", |screen| screen.contains("需要 f32、f16 或 q8"));
    t.send("\u{1b}");
    t.wait("the chat", |screen| !screen.contains("缓存类型"));
    assert!(t.settle().contains("> \n") || t.contents().contains(">\n"), "{}", t.contents());
    assert!(sessions(home.path()).is_empty(), "nothing was sent");
    // The question whether a conversation is to be erased takes no key of a message.
    t.send("写\r");
    t.wait("an answer", sent("写"));
    t.send("\u{1b}p");
    t.wait("whether it is meant", |screen| screen.contains("不保存此对话？"));
    t.send("你好");
    t.wait("all of it", |screen| screen.contains("> 你好") && !screen.contains("不保存此对话？"));
    assert_eq!(sessions(home.path()).len(), 1);
    t.quit();
}

#[test]
fn what_was_recalled_or_undone_is_no_draft() {
    let home = tempfile::tempdir().unwrap();
    let mut t = Terminal::chat(home.path(), (80, 24), &["--new", "-n", "8"]);
    t.send("写\r");
    t.wait("an answer", sent("写"));
    t.send("\u{1b}[A");
    t.wait("the question", |screen| screen.contains("> 写"));
    t.send("\u{e}");
    t.wait("a new conversation", |screen| screen.contains("新对话") && !screen.contains("> 写"));
    t.send("雪\r");
    t.wait("an answer", sent("雪"));
    // The only exchange is taken back: it stays in the list, as its answer can be brought back.
    t.send("\u{1b}u");
    t.wait("its question", |screen| screen.contains("> 雪"));
    t.send("\u{e}\u{f}");
    t.wait("the list", |screen| screen.contains("搜索：") && screen.contains("  写"));
    assert!(t.settle().contains("chat-"), "{}", t.contents());
    t.send("\u{1b}");
    t.wait("the chat", |screen| !screen.contains("搜索："));
    t.send("\u{1b}[A");
    t.wait("a question", |screen| screen.contains("> 雪"));
    t.quit();
    let mut t = Terminal::chat(home.path(), (80, 24), &["--new"]);
    assert!(!t.settle().contains("> 雪"), "{}", t.contents());
    t.quit();
}

#[test]
fn a_paste_without_its_end_and_bytes_that_are_no_text_stop_no_key() {
    let home = tempfile::tempdir().unwrap();
    let mut t = Terminal::chat(home.path(), (80, 24), &["--new", "-n", "8"]);
    t.send("\u{1b}[200~粘贴");
    t.wait("what was pasted", |screen| screen.contains("> 粘贴"));
    t.send("写\r");
    t.wait("an answer", sent("粘贴写"));
    t.send_bytes(b"\xff\xe6");
    t.send("诗");
    t.wait("the next key", |screen| screen.contains("> 诗"));
    // Typed without the marks of a paste, however much it is.
    t.send(&"月".repeat(2000));
    t.send("\u{1}头");
    t.wait("all of it", |screen| screen.contains("> 头诗月"));
    t.send("\u{15}");
    t.wait("IDLE", IDLE);
    t.quit();
}

#[test]
fn what_the_configuration_should_not_hold_is_seen() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join(".config/huozi");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("config.toml"), "temprature = 1\n").unwrap();
    let mut t = Terminal::start(home.path(), (80, 24), &["--new"]);
    t.wait("the key", |screen| screen.contains("未知的设置已忽略：temprature"));
    t.ready().quit();
    // A pipe is not waited for.
    std::fs::remove_file(folder.join("config.toml")).unwrap();
    let made = std::process::Command::new("mkfifo").arg(folder.join("config.toml")).status();
    assert!(made.unwrap().success());
    let mut t = Terminal::start(home.path(), (80, 24), &["--new"]);
    assert_eq!(t.ended().code(), Some(4));
    assert!(t.contents().contains("not a regular file"), "{}", t.contents());
}
