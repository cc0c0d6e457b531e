//! Conversations on disk: one append-only file of JSON lines each.
//!
//! Every line is an event `{"schema": 1, "id": N, "parent": M or null, "kind": ...}`; ids grow by line.
//!
//! | kind | parent | what else |
//! |---|---|---|
//! | `message` | the message before it, or null | `role` (`user`, `assistant`), `text`; answers: `ids` ff. |
//! | `part` | the message it goes on | `text`, of an answer also `ids`: appended to those of the message |
//! | `end` | an answer | `stop`: `end`, `length`, `context`, `cancelled` |
//! | `settings` | null | `system` (null: the format's own), `choices`: settings (absent: as before) |
//! | `begin` | null | `date`: local date and time at which the conversation began |
//! | `title` | null | `text`; empty: none again |
//! | `head` | the last message of the conversation, or null | |
//! | `deleted` | null | the conversation was thrown away: it is neither read nor added to |
//!
//! An answer has, beside its `ids`, the fingerprint of its `model` and the number of the `attempt`. Other
//! kinds are skipped. Nothing is rewritten: saving a conversation that was undone, retried or edited appends
//! what is new as a branch and moves the head. A last line without its line break is a torn write; it is
//! skipped when read and cut before the next append.

mod choices;
mod draft;
mod file;
mod log;
mod shelf;
mod writer;

pub use draft::Draft;
pub use file::{Conversation, Error, SCHEMA, fresh_name, path};
pub use log::title_of;
pub use shelf::{
    Entry, delete, empty_trash, erase, export, find, latest, list, rename, replace, search, trashed_last,
    undelete,
};
pub use writer::Writer;

use file::{begun, lock, read};
pub(super) use file::{make_private_directory, open_options};
use log::Log;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// `$XDG_DATA_HOME/huozi/sessions`, or below `~/.local/share`; `None` without a home.
pub fn directory() -> Option<PathBuf> {
    super::catalog::xdg("XDG_DATA_HOME", ".local/share").map(|base| base.join("huozi").join("sessions"))
}

/// Reads the conversation `name`; `model` is the fingerprint of the model that goes on with it.
///
/// # Errors
/// No such file, or a line (named by its number) that is not what it should be.
pub fn load(directory: &Path, name: &str, model: &str) -> Result<Conversation, Error> {
    let path = path(directory, name)?;
    let mut file = File::open(&path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => Error::Unknown { name: name.to_owned() },
        _ => Error::Io { path: path.clone(), action: "open", source },
    })?;
    let log = Log::parse(&path, &read(&path, &mut file)?)?;
    if log.whole == 0 {
        return Err(Error::Torn { path });
    }
    Ok(log.conversation(model, || begun(name, &file)))
}

/// Saves a conversation under `name`, appending to the file if there is one; gives the file's path.
///
/// # Errors
/// What the system says; a file that holds something else; another process that is writing it.
pub fn save(
    directory: &Path,
    name: &str,
    conversation: &Conversation,
    model: &str,
) -> Result<PathBuf, Error> {
    let path = path(directory, name)?;
    let io = |action| {
        let path = path.clone();
        move |source| Error::Io { path, action, source }
    };
    make_private_directory(directory).map_err(io("create its folder"))?;
    let mut file = open_options().create(true).open(&path).map_err(io("open"))?;
    lock(&file, &path)?;
    let mut log = Log::parse(&path, &read(&path, &mut file)?)?;
    let mut out = Vec::new();
    if log.append(conversation, model, &mut out).is_none() {
        return Err(Error::Full { path, last: log.last_id });
    }
    // Cuts a torn last line, and anything that a reader would not have seen.
    file.set_len(log.whole).map_err(io("cut"))?;
    file.seek(SeekFrom::Start(log.whole)).map_err(io("seek"))?;
    file.write_all(&out).map_err(io("write"))?;
    file.sync_all().map_err(io("sync"))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::file::MAX_NUMBER;
    use super::*;
    use crate::schedule::Stop;
    use crate::session::Turn;
    use huozi_token::DateTime;
    use std::fs;
    use std::time::Duration;

    fn turn(question: &str, answer: &str, ids: &[u32]) -> Turn {
        Turn {
            question: question.into(),
            answer: answer.into(),
            ids: Some(ids.to_vec()),
            attempt: 0,
            stop: Stop::MaxTokens,
        }
    }

    const DATE: DateTime = DateTime::constant(2026, 11, 30, 22, 5, 9, 0);

    fn talk(turns: &[Turn]) -> Conversation {
        let (system, turns) = (Some("系统".into()), turns.to_vec());
        Conversation { system, turns, date: Some(DATE), ..Conversation::default() }
    }

    #[test]
    fn saved_and_loaded_again() {
        let dir = tempfile::tempdir().unwrap();
        let one = talk(&[turn("你好", "再见\n", &[1, 2]), turn("q", "a", &[3])]);
        let path = save(dir.path(), "对话", &one, "m1").unwrap();
        let loaded = load(dir.path(), "对话", "m1").unwrap();
        assert_eq!(loaded, Conversation { title: Some("你好".into()), ..one });
        let other = load(dir.path(), "对话", "m2").unwrap();
        assert!(other.turns.iter().all(|t| t.ids.is_none()), "another model's ids mean nothing");
        assert_eq!(other.turns[0].answer, "再见\n");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_conversation_keeps_the_date_of_its_beginning() {
        let dir = tempfile::tempdir().unwrap();
        let turns = [turn("a", "b", &[1])];
        let path = save(dir.path(), "chat-1700000000", &talk(&turns), "m").unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let line = "\"kind\":\"begin\",\"date\":\"2026-11-30T22:05:09\"}\n";
        assert!(text.contains(line), "{text}");
        assert_eq!(load(dir.path(), "chat-1700000000", "m").unwrap().date, Some(DATE));
        // As older versions wrote it: the time in the name, else the last change.
        let old: String = text.split_inclusive('\n').filter(|l| !l.contains("begin")).collect();
        fs::write(&path, &old).unwrap();
        let at = |seconds| crate::session::date::local(std::time::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(load(dir.path(), "chat-1700000000", "m").unwrap().date, at(1_700_000_000));
        let other = dir.path().join("chat-99999999999.jsonl");
        fs::write(&other, &old).unwrap();
        let changed = std::time::UNIX_EPOCH + Duration::from_secs(1_600_000_000);
        File::options().append(true).open(&other).unwrap().set_modified(changed).unwrap();
        assert_eq!(load(dir.path(), "chat-99999999999", "m").unwrap().date, at(1_600_000_000));
        // It is written when the conversation goes on.
        let known = load(dir.path(), "chat-1700000000", "m").unwrap();
        save(dir.path(), "chat-1700000000", &known, "m").unwrap();
        assert!(fs::read_to_string(&path).unwrap().contains("\"begin\""));
    }

    #[test]
    fn saving_again_only_appends() {
        let dir = tempfile::tempdir().unwrap();
        let mut turns = vec![turn("a", "b", &[1]), turn("c", "d", &[2])];
        let path = save(dir.path(), "x", &talk(&turns), "m").unwrap();
        let first = fs::read(&path).unwrap();
        save(dir.path(), "x", &talk(&turns), "m").unwrap();
        assert_eq!(fs::read(&path).unwrap(), first, "nothing new, nothing written");
        let empty = Conversation::default();
        let once = fs::read(save(dir.path(), "empty", &empty, "m").unwrap()).unwrap();
        let twice = fs::read(save(dir.path(), "empty", &empty, "m").unwrap()).unwrap();
        assert_eq!(once, twice);
        // Retried: the old answer stays in the file, the head moves.
        turns[1] = Turn { attempt: 1, ..turn("c", "e", &[9]) };
        save(dir.path(), "x", &talk(&turns), "m").unwrap();
        let second = fs::read(&path).unwrap();
        assert!(second.starts_with(&first) && second.len() > first.len());
        assert_eq!(load(dir.path(), "x", "m").unwrap().turns, turns);
        // Undone, then everything forgotten.
        turns.pop();
        save(dir.path(), "x", &talk(&turns), "m").unwrap();
        assert_eq!(load(dir.path(), "x", "m").unwrap().turns, turns);
        save(dir.path(), "x", &talk(&[]), "m").unwrap();
        assert_eq!(load(dir.path(), "x", "m").unwrap().turns, []);
    }

    #[test]
    fn a_torn_last_line_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let mut turns = vec![turn("a", "b", &[1])];
        let path = save(dir.path(), "x", &talk(&turns), "m").unwrap();
        let whole = fs::read(&path).unwrap();
        let mut torn = whole.clone();
        torn.extend_from_slice(br#"{"schema":1,"id":99,"par"#);
        fs::write(&path, &torn).unwrap();
        assert_eq!(load(dir.path(), "x", "m").unwrap().turns, turns);
        turns.push(turn("c", "d", &[2]));
        save(dir.path(), "x", &talk(&turns), "m").unwrap();
        assert_eq!(load(dir.path(), "x", "m").unwrap().turns, turns);
        assert!(fs::read(&path).unwrap().starts_with(&whole));
    }

    #[test]
    fn what_holds_no_conversation_is_no_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        let error = load(dir.path(), "x", "m").unwrap_err();
        assert_eq!(error.to_string(), "there is no conversation called \"x\"");
        for torn in ["", r#"{"schema":1,"id":1,"parent":nu"#] {
            fs::write(dir.path().join("x.jsonl"), torn).unwrap();
            let error = load(dir.path(), "x", "m").unwrap_err();
            assert!(matches!(error, Error::Torn { .. }), "{error}");
            // It is no obstacle to a new one.
            save(dir.path(), "x", &talk(&[turn("a", "b", &[1])]), "m").unwrap();
            assert_eq!(load(dir.path(), "x", "m").unwrap().turns.len(), 1);
        }
    }

    #[test]
    fn hostile_lines_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let good = r#"{"schema":1,"id":1,"parent":null,"kind":"message","role":"user","text":"a"}"#;
        let cases = [
            ("[]", "invalid length"),
            ("\u{0}\u{1}", "expected value"),
            (r#"{"schema":2,"id":2,"parent":null,"kind":"head"}"#, "schema 2"),
            (r#"{"schema":1,"id":1,"parent":null,"kind":"head"}"#, "does not follow"),
            (r#"{"schema":1,"id":2,"parent":2,"kind":"head"}"#, "parent 2"),
            (r#"{"schema":1,"id":2,"parent":1,"kind":"message","role":"user","text":"b"}"#, "must go"),
            (
                r#"{"schema":1,"id":2,"parent":null,"kind":"message","role":"assistant","text":"b"}"#,
                "must go",
            ),
            (r#"{"schema":1,"id":2,"parent":1,"kind":"message","role":"assistant"}"#, "without a text"),
            (
                r#"{"schema":1,"id":2,"parent":1,"kind":"message","role":"root","text":"b"}"#,
                "unknown variant",
            ),
            (r#"{"schema":1,"id":2,"parent":1,"kind":"end","stop":"never"}"#, "no reason"),
            (r#"{"schema":1,"id":2,"parent":1,"kind":"part"}"#, "part without a text"),
            (r#"{"schema":1,"id":2,"parent":null,"kind":"begin","date":"today"}"#, "no date and time"),
            (r#"{"schema":1,"id":2,"parent":7,"kind":"part","text":"b"}"#, "parent 7"),
            (
                r#"{"schema":1,"id":18446744073709551615,"parent":null,"kind":"head"}"#,
                "id 18446744073709551615",
            ),
            (
                concat!(
                    r#"{"schema":1,"id":2,"parent":1,"kind":"message","role":"assistant","text":"b","#,
                    r#""attempt":9223372036854775808}"#
                ),
                "attempt 9223372036854775808",
            ),
            (
                r#"{"schema":1,"id":2,"parent":1,"kind":"message","role":"assistant","text":"b","ids":[-1]}"#,
                "invalid value",
            ),
        ];
        for (line, what) in cases {
            fs::write(dir.path().join("x.jsonl"), format!("{good}\n{line}\n")).unwrap();
            let message = load(dir.path(), "x", "m").unwrap_err().to_string();
            assert!(message.contains("x.jsonl:2: ") && message.contains(what), "{line}: {message}");
        }
        let deep = format!("{}\n", "[".repeat(100_000));
        fs::write(dir.path().join("x.jsonl"), deep).unwrap();
        assert!(load(dir.path(), "x", "m").is_err());
    }

    #[test]
    fn a_file_with_the_largest_id_is_read_and_not_made_unreadable() {
        let dir = tempfile::tempdir().unwrap();
        let line = format!(r#"{{"schema":1,"id":{MAX_NUMBER},"parent":null,"kind":"settings"}}"#);
        fs::write(dir.path().join("x.jsonl"), format!("{line}\n")).unwrap();
        assert_eq!(load(dir.path(), "x", "m").unwrap(), Conversation::default());
        let error = save(dir.path(), "x", &talk(&[turn("a", "b", &[1])]), "m").unwrap_err();
        assert!(matches!(error, Error::Full { last: MAX_NUMBER, .. }), "{error}");
        assert_eq!(load(dir.path(), "x", "m").unwrap(), Conversation::default());
        let many = Turn { attempt: u64::MAX, ..turn("a", "b", &[1]) };
        save(dir.path(), "y", &talk(&[many]), "m").unwrap();
        assert_eq!(load(dir.path(), "y", "m").unwrap().turns[0].attempt, MAX_NUMBER);
    }

    #[test]
    fn parts_are_put_together() {
        let dir = tempfile::tempdir().unwrap();
        let lines = [
            r#"{"schema":1,"id":1,"parent":null,"kind":"message","role":"user","text":"a"}"#,
            concat!(
                r#"{"schema":1,"id":2,"parent":1,"kind":"message","role":"assistant","text":"春","#,
                r#""ids":[1],"model":"m"}"#
            ),
            r#"{"schema":1,"id":3,"parent":2,"kind":"head"}"#,
            r#"{"schema":1,"id":4,"parent":2,"kind":"part","text":"眠","ids":[2,3]}"#,
            r#"{"schema":1,"id":5,"parent":2,"kind":"part","text":"不觉"}"#,
        ];
        let first = |n: usize| {
            fs::write(dir.path().join("x.jsonl"), lines[..n].join("\n") + "\n").unwrap();
            load(dir.path(), "x", "m").unwrap().turns.remove(0)
        };
        // Killed while it wrote: no `end`.
        assert_eq!(first(4), Turn { stop: Stop::Cancelled, ..turn("a", "春眠", &[1, 2, 3]) });
        let whole = first(5);
        assert_eq!((whole.answer.as_str(), &whole.ids), ("春眠不觉", &None), "not all of the text has ids");
        // It is known again when it is saved.
        let talk = Conversation { turns: vec![whole], ..Conversation::default() };
        save(dir.path(), "x", &talk, "m").unwrap();
        assert_eq!(load(dir.path(), "x", "m").unwrap().turns, talk.turns);
        assert_eq!(fs::read_to_string(dir.path().join("x.jsonl")).unwrap().matches("message").count(), 2);
    }

    #[test]
    fn a_deleted_conversation_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = save(dir.path(), "x", &talk(&[turn("a", "b", &[1])]), "m").unwrap();
        let line = "{\"schema\":1,\"id\":99,\"parent\":null,\"kind\":\"deleted\"}\n";
        fs::write(&path, fs::read_to_string(&path).unwrap() + line).unwrap();
        let before = fs::read(&path).unwrap();
        let error = load(dir.path(), "x", "m").unwrap_err();
        assert!(matches!(error, Error::Deleted { .. }) && error.to_string().contains("deleted"));
        assert!(matches!(save(dir.path(), "x", &talk(&[]), "m"), Err(Error::Deleted { .. })));
        assert_eq!(fs::read(&path).unwrap(), before);
    }

    #[test]
    fn names_stay_in_the_folder() {
        let dir = Path::new("/d");
        for bad in ["", ".", "..", "../x", "a/b", ".hidden", "a\0", "a\nb", "a\\b"] {
            assert!(path(dir, bad).is_err(), "{bad:?}");
        }
        assert_eq!(path(dir, "春天-1").unwrap(), Path::new("/d/春天-1.jsonl"));
    }

    #[test]
    fn a_second_writer_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = save(dir.path(), "x", &talk(&[]), "m").unwrap();
        let held = File::open(&path).unwrap();
        held.try_lock().unwrap();
        assert!(matches!(save(dir.path(), "x", &talk(&[]), "m"), Err(Error::Busy { .. })));
    }
}
