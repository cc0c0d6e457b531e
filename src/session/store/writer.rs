//! A conversation file that grows while its conversation does.
//!
//! The writer holds the file's lock as long as it lives. What is said is in the file before anything is done
//! about it: a question before its answer begins, an answer piece by piece. A process that is killed loses
//! nothing but the piece that was not given to it yet.

use super::file::{
    Conversation, Error, MAX_NUMBER, begun, fresh_name, identity, lock, make_private_directory, open_options,
    path, read,
};
use super::log::{Line, Log, Speaker};
use crate::schedule::Stop;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// The answer that is being written.
struct Growing {
    id: u64,
    /// The head moves to it with its first piece: until then an earlier answer stays the one that counts.
    head_waits: bool,
}

/// The one that may write a file.
pub struct Writer {
    name: String,
    path: PathBuf,
    file: File,
    log: Log,
    /// Length of the file when it was last read or written here.
    length: u64,
    /// Fingerprint of the model whose ids are written.
    model: String,
    growing: Option<Growing>,
}

impl Writer {
    /// Takes hold of the conversation `name`; gives what it says.
    ///
    /// # Errors
    /// No such file, one that another process writes, a line that is not what it should be, no whole line at
    /// all.
    pub fn open(directory: &Path, name: &str, model: &str) -> Result<(Self, Conversation), Error> {
        let path = path(directory, name)?;
        let mut file = open_options().open(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => Error::Unknown { name: name.to_owned() },
            _ => Error::Io { path: path.clone(), action: "open", source },
        })?;
        lock(&file, &path)?;
        let bytes = read(&path, &mut file)?;
        let log = Log::parse(&path, &bytes)?;
        if log.whole == 0 {
            return Err(Error::Torn { path });
        }
        let conversation = log.conversation(model, || begun(name, &file));
        let (name, model, length) = (name.to_owned(), model.to_owned(), bytes.len() as u64);
        Ok((Self { name, path, file, log, length, model, growing: None }, conversation))
    }

    /// A new file under a name that no conversation has.
    ///
    /// # Errors
    /// What the system says.
    pub fn create(directory: &Path, model: &str) -> Result<Self, Error> {
        make_private_directory(directory).map_err(|source| Error::Io {
            path: directory.to_owned(),
            action: "create the folder",
            source,
        })?;
        loop {
            let name = fresh_name(directory);
            let path = path(directory, &name)?;
            match open_options().create_new(true).open(&path) {
                // Another process was faster.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(source) => return Err(Error::Io { path, action: "create", source }),
                Ok(file) => {
                    lock(&file, &path)?;
                    let (log, model) = (Log::default(), model.to_owned());
                    return Ok(Self { name, path, file, log, length: 0, model, growing: None });
                }
            }
        }
    }

    /// The name of the conversation.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The title it has.
    pub fn title(&self) -> Option<&str> {
        self.log.title.as_deref()
    }

    /// Whether no whole line is in the file.
    pub fn is_empty(&self) -> bool {
        self.log.whole == 0
    }

    /// Whether an answer has text, in this branch of the conversation or another.
    pub fn has_answers(&self) -> bool {
        self.log.has_answers()
    }

    /// Whether another program changed the file since it was last read or written here.
    pub fn is_touched(&mut self) -> bool {
        !matches!(self.look(), Ok(false))
    }

    /// Whether the file that has its name is another one, or none, or holds something else.
    pub fn is_gone(&mut self) -> bool {
        matches!(self.look(), Err(Error::Gone { .. }))
    }

    /// Another model goes on.
    pub fn set_model(&mut self, model: &str) {
        model.clone_into(&mut self.model);
    }

    /// Writes `question` after what was said `before`, and the beginning of its answer. With `retry` it is
    /// the last question of `before` once more, and the earlier answer counts until the new one has said
    /// something.
    ///
    /// # Errors
    /// What the system says, and [`Error::Gone`]: no answer is begun then.
    pub fn begin(
        &mut self,
        before: &Conversation,
        question: &str,
        attempt: u64,
        retry: bool,
    ) -> Result<(), Error> {
        self.look()?;
        let mut out = Vec::new();
        let mut growing = None;
        let taken = (|| {
            self.log.append(before, &self.model, &mut out)?;
            if before.turns.is_empty() {
                self.log.entitle(question, &mut out)?;
            }
            let parent = if retry { self.log.before_last()? } else { self.log.head };
            let question = self.log.question(parent, question, &mut out)?;
            let line = Line {
                parent: Some(question),
                role: Some(Speaker::Assistant),
                text: Some(String::new()),
                ids: Some(Vec::new()),
                model: Some(self.model.clone()),
                attempt: Some(attempt.min(MAX_NUMBER)),
                ..Line::of("message")
            };
            let id = self.log.push(line, &mut out)?;
            if !retry {
                self.log.push(Line { parent: Some(id), ..Line::of("head") }, &mut out)?;
            }
            growing = Some(Growing { id, head_waits: retry });
            Some(())
        })();
        self.growing = growing;
        self.write(taken, &out)
    }

    /// Writes a piece of the answer begun: text, and the ids that gave it.
    ///
    /// # Errors
    /// What the system says, and [`Error::Gone`], also where no answer is begun in the file any more: then
    /// the next piece needs another [`Writer::begin`].
    pub fn part(&mut self, text: &str, ids: &[u32]) -> Result<(), Error> {
        self.look()?;
        let Some(growing) = &mut self.growing else { return Err(Error::Gone { path: self.path.clone() }) };
        let (id, waited) = (growing.id, std::mem::take(&mut growing.head_waits));
        let mut out = Vec::new();
        let (text, ids) = (Some(text.to_owned()), Some(ids.to_vec()));
        let line = Line { parent: Some(id), text, ids, ..Line::of("part") };
        let mut taken = self.log.push(line, &mut out);
        if waited {
            taken =
                taken.and_then(|_| self.log.push(Line { parent: Some(id), ..Line::of("head") }, &mut out));
        }
        self.write(taken.map(|_| ()), &out)
    }

    /// Writes why the answer begun ended (if it did), and whatever else makes the file say `conversation`.
    ///
    /// # Errors
    /// What the system says, and [`Error::Gone`]; what the file does not say then the next call writes.
    pub fn finish(&mut self, conversation: &Conversation, stop: Option<Stop>) -> Result<(), Error> {
        self.look()?;
        let mut out = Vec::new();
        let growing = self.growing.take();
        let taken = (|| {
            if let Some((growing, stop)) = growing.zip(stop) {
                self.log.end(growing.id, stop, &mut out)?;
            }
            self.log.append(conversation, &self.model, &mut out)
        })();
        self.write(taken, &out)?;
        self.file.sync_data().map_err(|source| Error::Io { path: self.path.clone(), action: "sync", source })
    }

    /// Gives the conversation another title.
    ///
    /// # Errors
    /// What the system says, and [`Error::Gone`]: it has the title it had then.
    pub fn rename(&mut self, title: &str) -> Result<(), Error> {
        self.look()?;
        let mut out = Vec::new();
        let taken = self.log.push(Line { text: Some(title.to_owned()), ..Line::of("title") }, &mut out);
        self.write(taken.map(|_| ()), &out)
    }

    /// Looks at whether another program changed the file: one that was made shorter or longer is read
    /// again, and the answer begun is no part of it. What is lost of it comes back with [`Writer::begin`] and
    /// [`Writer::finish`], which write whatever the file does not say.
    ///
    /// # Errors
    /// [`Error::Gone`]: what is written would be lost; or what the system says.
    fn look(&mut self) -> Result<bool, Error> {
        let gone = || Error::Gone { path: self.path.clone() };
        let io = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => gone(),
            _ => Error::Io { path: self.path.clone(), action: "look at", source },
        };
        let here = self.file.metadata().map_err(io)?;
        let there = std::fs::metadata(&self.path).map_err(io)?;
        if identity(&here) != identity(&there) {
            return Err(gone());
        }
        let touched = here.len() != self.length;
        if touched {
            self.growing = None;
            self.read_again().map_err(|error| match error {
                Error::Io { .. } => error,
                _ => Error::Gone { path: self.path.clone() },
            })?;
        }
        Ok(touched)
    }

    fn read_again(&mut self) -> Result<(), Error> {
        // Until it is read its content is not known.
        self.length = u64::MAX;
        self.file.seek(SeekFrom::Start(0)).map_err(|source| Error::Io {
            path: self.path.clone(),
            action: "seek",
            source,
        })?;
        let bytes = read(&self.path, &mut self.file)?;
        self.log = Log::parse(&self.path, &bytes)?;
        self.length = bytes.len() as u64;
        Ok(())
    }

    /// Appends `out`, which the log has `taken`. After an error the log is what the file says again; a file
    /// that says nothing is removed.
    fn write(&mut self, taken: Option<()>, out: &[u8]) -> Result<(), Error> {
        let last = self.log.last_id;
        let result = match taken {
            None => Err(Error::Full { path: self.path.clone(), last }),
            Some(()) => self.append(out),
        };
        if result.is_err() {
            self.growing = None;
            self.read_again()?;
            if self.is_empty() {
                // What stays then is an empty conversation in every list.
                let _ = std::fs::remove_file(&self.path);
            }
        }
        result
    }

    fn append(&mut self, out: &[u8]) -> Result<(), Error> {
        if out.is_empty() {
            return Ok(());
        }
        let at = self.log.whole;
        let io = |action| {
            let path = self.path.clone();
            move |source| Error::Io { path, action, source }
        };
        if self.length > at {
            // A torn last line, and anything that a reader would not have seen.
            self.file.set_len(at).map_err(io("cut"))?;
        }
        self.file.seek(SeekFrom::Start(at)).map_err(io("seek"))?;
        self.file.write_all(out).map_err(io("write"))?;
        self.log.whole = at + out.len() as u64;
        self.length = self.log.whole;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{delete, empty_trash, erase, list, load, rename, search, trashed_last, undelete};
    use super::*;
    use crate::session::Turn;

    fn turn(question: &str, answer: &str, ids: &[u32], stop: Stop) -> Turn {
        Turn { question: question.into(), answer: answer.into(), ids: Some(ids.to_vec()), attempt: 0, stop }
    }

    fn talk(turns: &[Turn]) -> Conversation {
        Conversation { turns: turns.to_vec(), ..Conversation::default() }
    }

    /// What another process would read.
    fn read_back(directory: &Path, name: &str) -> Vec<Turn> {
        load(directory, name, "m").unwrap().turns
    }

    #[test]
    fn the_title_stays_that_of_the_first_question() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::create(dir.path(), "m").unwrap();
        writer.begin(&talk(&[]), "月", 0, false).unwrap();
        let first = turn("月", "明", &[1], Stop::MaxTokens);
        writer.part("明", &[1]).unwrap();
        writer.finish(&talk(std::slice::from_ref(&first)), Some(Stop::MaxTokens)).unwrap();
        writer.begin(&talk(&[first]), "雪", 0, false).unwrap();
        assert_eq!(list(dir.path())[0].title, "月");
        // Another in its place.
        writer.begin(&talk(&[]), "风", 0, false).unwrap();
        assert_eq!(list(dir.path())[0].title, "风");
    }

    #[test]
    fn an_answer_is_on_disk_while_it_grows() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::create(dir.path(), "m").unwrap();
        let name = writer.name().to_owned();
        writer.begin(&talk(&[]), "月", 0, false).unwrap();
        assert_eq!(read_back(dir.path(), &name), [turn("月", "", &[], Stop::Cancelled)]);
        assert_eq!(list(dir.path())[0].title, "月");
        writer.part("床前", &[1, 2]).unwrap();
        writer.part("明月", &[3]).unwrap();
        assert_eq!(read_back(dir.path(), &name), [turn("月", "床前明月", &[1, 2, 3], Stop::Cancelled)]);
        let first = turn("月", "床前明月", &[1, 2, 3], Stop::MaxTokens);
        writer.finish(&talk(std::slice::from_ref(&first)), Some(Stop::MaxTokens)).unwrap();
        assert_eq!(read_back(dir.path(), &name), std::slice::from_ref(&first));

        // A further attempt counts when it has said something, and not before.
        writer.begin(&talk(std::slice::from_ref(&first)), "月", 1, true).unwrap();
        assert_eq!(read_back(dir.path(), &name), std::slice::from_ref(&first));
        writer.part("疑", &[9]).unwrap();
        let second = Turn { attempt: 1, ..turn("月", "疑", &[9], Stop::Cancelled) };
        assert_eq!(read_back(dir.path(), &name), std::slice::from_ref(&second));
        writer.finish(&talk(std::slice::from_ref(&second)), Some(Stop::Cancelled)).unwrap();

        // One that never said anything leaves the earlier one.
        writer.begin(&talk(std::slice::from_ref(&second)), "月", 2, true).unwrap();
        writer.finish(&talk(std::slice::from_ref(&second)), Some(Stop::Cancelled)).unwrap();
        assert_eq!(read_back(dir.path(), &name), std::slice::from_ref(&second));

        // The question in a new version, and a second exchange.
        writer.begin(&talk(&[]), "雪", 0, false).unwrap();
        let third = turn("雪", "", &[], Stop::Cancelled);
        writer.finish(&talk(std::slice::from_ref(&third)), Some(Stop::Cancelled)).unwrap();
        assert_eq!(read_back(dir.path(), &name), [third]);
        let text = std::fs::read_to_string(dir.path().join(format!("{name}.jsonl"))).unwrap();
        assert!(text.contains("床前") && text.contains('疑'), "nothing is rewritten");
    }

    #[test]
    fn why_an_answer_ended_is_written_when_it_can_be() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::create(dir.path(), "m").unwrap();
        let name = writer.name().to_owned();
        writer.begin(&talk(&[]), "月", 0, false).unwrap();
        writer.part("明", &[1]).unwrap();
        // As after a write that failed.
        writer.growing = None;
        let whole = turn("月", "明", &[1], Stop::MaxTokens);
        writer.finish(&talk(std::slice::from_ref(&whole)), None).unwrap();
        assert_eq!(read_back(dir.path(), &name), [whole]);
        assert!(matches!(writer.part("月", &[2]), Err(Error::Gone { .. })), "no answer is begun");
    }

    #[test]
    fn the_lock_is_held_and_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let mut one = Writer::create(dir.path(), "m").unwrap();
        let mut two = Writer::create(dir.path(), "m").unwrap();
        assert_ne!(one.name(), two.name());
        one.begin(&talk(&[]), "a", 0, false).unwrap();
        two.begin(&talk(&[]), "b", 0, false).unwrap();
        let name = one.name().to_owned();
        assert!(matches!(Writer::open(dir.path(), &name, "m"), Err(Error::Busy { .. })));
        assert!(matches!(delete(dir.path(), &name), Err(Error::Busy { .. })));
        assert!(matches!(rename(dir.path(), &name, "x"), Err(Error::Busy { .. })));
        drop(one);
        let (writer, conversation) = Writer::open(dir.path(), &name, "m").unwrap();
        assert_eq!(conversation.turns.len(), 1);
        drop(writer);
        // A new title is not a new word: the time stays.
        let path = dir.path().join(format!("{name}.jsonl"));
        let then = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
        File::options().append(true).open(&path).unwrap().set_modified(then).unwrap();
        rename(dir.path(), &name, "新名字").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().modified().unwrap(), then);
        assert_eq!(load(dir.path(), &name, "m").unwrap().title.as_deref(), Some("新名字"));
    }

    #[test]
    fn a_torn_line_is_cut_and_the_rest_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::create(dir.path(), "m").unwrap();
        let name = writer.name().to_owned();
        writer.begin(&talk(&[]), "月", 0, false).unwrap();
        writer.part("床", &[1]).unwrap();
        drop(writer);
        let path = dir.path().join(format!("{name}.jsonl"));
        let whole = std::fs::read(&path).unwrap();
        // Killed within the last line, at every place.
        let last = whole[..whole.len() - 1].iter().rposition(|&b| b == b'\n').unwrap() + 1;
        for at in last..whole.len() - 1 {
            std::fs::write(&path, &whole[..at]).unwrap();
            let (mut writer, conversation) = Writer::open(dir.path(), &name, "m").unwrap();
            assert_eq!(conversation.turns, [turn("月", "", &[], Stop::Cancelled)]);
            writer.begin(&talk(&[]), "月", 1, false).unwrap();
            writer.part("明", &[2]).unwrap();
            assert_eq!(read_back(dir.path(), &name)[0].answer, "明");
        }
    }

    #[test]
    fn a_shelf_of_conversations() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(list(dir.path()), []);
        for (question, answer) in [("写一首\"月\"诗\n快", "床前明月光"), ("Borrow", "Checker")] {
            let mut writer = Writer::create(dir.path(), "m").unwrap();
            let said = turn(question, answer, &[1], Stop::EndToken(0));
            writer.finish(&talk(&[said]), None).unwrap();
        }
        std::fs::write(dir.path().join("notes.txt"), "no conversation").unwrap();
        let titles = |dir: &Path| list(dir).into_iter().map(|entry| entry.title).collect::<Vec<_>>();
        let mut found = titles(dir.path());
        found.sort();
        assert_eq!(found, ["Borrow", "写一首\"月\"诗"]);
        let search = |text: &str| search(dir.path(), text, &|| true).unwrap();
        for (text, n) in [("明月", 1), ("checker", 1), ("\"月\"诗\n快", 1), ("none", 0), ("", 2)] {
            assert_eq!(search(text).len(), n, "{text:?}");
        }
        let name = search("checker").remove(0).name;
        let trashed = delete(dir.path(), &name).unwrap();
        assert_eq!(list(dir.path()).len(), 1);
        assert_eq!(undelete(dir.path(), &trashed).unwrap(), name);
        assert_eq!(list(dir.path()).len(), 2);
        // What was thrown away last, by another run.
        assert_eq!(trashed_last(dir.path()), None);
        let other = search("明月").remove(0).name;
        for name in [&name, &other] {
            delete(dir.path(), name).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        assert_eq!(trashed_last(dir.path()).as_ref(), Some(&other));
        empty_trash(dir.path(), 30);
        undelete(dir.path(), &name).unwrap();
        empty_trash(dir.path(), 0);
        assert_eq!((trashed_last(dir.path()), list(dir.path()).len()), (None, 1));
        // Thrown away twice under one name, nothing is hidden.
        delete(dir.path(), &name).unwrap();
        std::fs::copy(
            dir.path().join("trash").join(format!("{name}.jsonl")),
            dir.path().join(format!("{name}.jsonl")),
        )
        .unwrap();
        assert_eq!(delete(dir.path(), &name).unwrap(), format!("{name}-1"));
        erase(dir.path(), &name).unwrap();
        let out = dir.path().join("out.md");
        assert_eq!(super::super::export(&out, "one").unwrap(), out);
        assert_eq!(super::super::export(&out, "two").unwrap(), dir.path().join("out-1.md"));
        assert_eq!(std::fs::read_to_string(&out).unwrap(), "one");
        std::os::unix::fs::symlink("behind.md", dir.path().join("link.md")).unwrap();
        assert_eq!(
            super::super::export(&dir.path().join("link.md"), "x").unwrap(),
            dir.path().join("behind.md")
        );
        for (path, kind) in [
            ("/dev/null".into(), io::ErrorKind::InvalidInput),
            (dir.path().to_owned(), io::ErrorKind::IsADirectory),
            (dir.path().join("new/"), io::ErrorKind::IsADirectory),
            (dir.path().join(".."), io::ErrorKind::IsADirectory),
            (dir.path().join("no/out.md"), io::ErrorKind::NotADirectory),
        ] {
            let error = super::super::export(&path, "three").unwrap_err();
            assert!(matches!(&error, Error::Io { source, .. } if source.kind() == kind), "{path:?}: {error}");
        }
    }

    #[test]
    fn choices_are_kept_and_checked() {
        use crate::engine::KvType;
        use crate::sample::Sampling;
        use crate::settings::Patch;
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::create(dir.path(), "m").unwrap();
        let name = writer.name().to_owned();
        let sampling = Sampling { temperature: 0.7, ..Sampling::default() };
        let chosen = Patch { max_new: Some(64), kv: Some(KvType::Q8), ..Patch::of_sampling(&sampling) };
        writer.finish(&Conversation { choices: Some(chosen.clone()), ..talk(&[]) }, None).unwrap();
        // Saving without choices leaves them.
        writer.finish(&Conversation { system: Some("s".into()), ..talk(&[]) }, None).unwrap();
        assert_eq!(load(dir.path(), &name, "m").unwrap().choices, Some(chosen.clone()));
        drop(writer);
        let path = dir.path().join(format!("{name}.jsonl"));
        let text = std::fs::read_to_string(&path).unwrap();
        // The names that every version has written, and the number with its own digits.
        let mut lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let written = lines.rfind(|line| !line["choices"].is_null()).unwrap();
        let sampling = serde_json::json!({
            "do_sample": true, "temperature": 0.7, "top_k": 50, "top_p": 0.95, "repetition_penalty": 1.03,
        });
        let choices = serde_json::json!({ "sampling": sampling, "max_new": 64, "kv": "q8" });
        assert_eq!(written["choices"], choices);
        // What is not valid has its default, and the file still opens.
        for bad in ["-1.0", "5.01", "1e300", "\"hot\"", "[]"] {
            std::fs::write(&path, text.replace("0.7", bad)).unwrap();
            let read = load(dir.path(), &name, "m").unwrap();
            let default = Some(Sampling::DEFAULT.temperature);
            assert_eq!(read.choices, Some(Patch { temperature: default, ..chosen.clone() }), "{bad}");
            assert_eq!(read.invalid.len(), 1, "{bad}");
        }
    }
}
