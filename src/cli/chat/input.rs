//! Messages of a chat: lines of a script or of a terminal, put together.

use super::editor::{EditedLine, LineEditor};
use super::keys::pasted;
use crate::cli::exit::{INTERRUPTED, Interrupted};
use crate::cli::signal::Signals;
use crate::commands::typed_as;
use anyhow::Result;
use std::io::BufRead;

/// What was typed up to the point where it is a message.
#[derive(Debug, PartialEq)]
pub(super) struct TypedMessage {
    /// Its text.
    pub(super) text: String,
    /// It stood between `"""`: no command, whatever it begins with.
    pub(super) block: bool,
}

/// What came of reading a line.
pub(super) enum LineRead {
    /// A line; of several rows if it was pasted.
    Line(String),
    /// What was begun is dropped.
    Dropped,
    /// The end of the input.
    End,
}

/// Where lines come from.
pub(super) trait LineSource {
    /// Reads a line that begins as `begun`; `continues` if it belongs to a message that has begun.
    fn read(&mut self, begun: &str, continues: bool) -> Result<LineRead>;

    /// The editor, where there is one.
    fn editor(&mut self) -> Option<&mut LineEditor> {
        None
    }
}

/// Lines as they are, without an editor.
pub(super) struct PlainLines<'a, R> {
    lines: R,
    /// They are typed: prompts are shown, and keys of a terminal are no part of a message.
    typed: bool,
    signals: &'a Signals,
    /// Set when Ctrl+C dropped a message: the line typed after that, or the end of the input.
    instead: Option<Option<String>>,
}

impl<'a, R: BufRead> PlainLines<'a, R> {
    /// Lines of `lines`, which are `typed` or come from a script.
    pub(super) fn new(lines: R, typed: bool, signals: &'a Signals) -> Self {
        Self { lines, typed, signals, instead: None }
    }

    fn line(&mut self, prompt: &str) -> Result<Option<String>> {
        if self.typed {
            eprint!("{prompt}");
        }
        let mut bytes = Vec::new();
        if self.lines.read_until(b'\n', &mut bytes)? == 0 {
            if self.typed {
                eprintln!();
            }
            return Ok(None);
        }
        // What a terminal in another encoding sends is shown as it was understood, not refused.
        let line = String::from_utf8_lossy(&bytes);
        let line = line.strip_suffix('\n').unwrap_or(&line);
        let line = line.strip_suffix('\r').unwrap_or(line);
        Ok(Some(if self.typed { pasted(line) } else { line.to_owned() }))
    }
}

impl<R: BufRead> LineSource for PlainLines<'_, R> {
    fn read(&mut self, _: &str, continues: bool) -> Result<LineRead> {
        let read = |line: Option<String>| line.map_or(LineRead::End, LineRead::Line);
        if let Some(line) = self.instead.take() {
            return Ok(read(line));
        }
        self.signals.set_composing(continues);
        let line = self.line(if continues { ". " } else { "> " })?;
        if continues && !self.signals.composing() {
            self.instead = Some(line);
            return Ok(LineRead::Dropped);
        }
        self.signals.set_composing(false);
        Ok(read(line))
    }
}

/// Lines of the editor.
pub(super) struct EditedLines<'a> {
    /// The editor.
    pub(super) editor: LineEditor,
    /// Whether a second Ctrl+C quits.
    pub(super) signals: &'a Signals,
}

impl LineSource for EditedLines<'_> {
    fn read(&mut self, begun: &str, continues: bool) -> Result<LineRead> {
        self.signals.set_composing(continues);
        let line = self.editor.read(if continues { ". " } else { "> " }, begun)?;
        let dropped = line == EditedLine::Dropped;
        if dropped && (!begun.is_empty() || self.editor.has_typed()) {
            // What is dropped does not count as the first of two.
            self.signals.set_composing(true);
        }
        let quits = dropped && self.signals.interrupt_line();
        self.signals.set_composing(false);
        match line {
            _ if quits => Err(Interrupted(INTERRUPTED).into()),
            EditedLine::Line(line) => Ok(LineRead::Line(line)),
            EditedLine::Dropped => Ok(LineRead::Dropped),
            EditedLine::End => Ok(LineRead::End),
        }
    }

    fn editor(&mut self) -> Option<&mut LineEditor> {
        Some(&mut self.editor)
    }
}

/// Lines put together to messages.
pub(super) struct ChatInput<'a> {
    source: Box<dyn LineSource + 'a>,
    /// What the next line begins with.
    begun: String,
}

impl<'a> ChatInput<'a> {
    /// Messages of `source`.
    pub(super) fn new(source: impl LineSource + 'a) -> Self {
        Self { source: Box::new(source), begun: String::new() }
    }

    /// The editor, where there is one.
    pub(super) fn editor(&mut self) -> Option<&mut LineEditor> {
        self.source.editor()
    }

    /// Puts a text into the next line, to be changed; whether there is an editor for that.
    pub(super) fn begin_with(&mut self, message: &str) -> bool {
        let edits = self.source.editor().is_some();
        if edits {
            self.begun = typed_as(message).into_owned();
        }
        edits
    }

    /// The next message; `None` at the end of the input.
    ///
    /// # Errors
    /// The input cannot be read; Ctrl+C quits.
    pub(super) fn message(&mut self) -> Result<Option<TypedMessage>> {
        loop {
            let begun = std::mem::take(&mut self.begun);
            let message = match self.source.read(&begun, false)? {
                LineRead::End => return Ok(None),
                LineRead::Dropped => None,
                LineRead::Line(line) => self.message_from(line)?,
            };
            let Some(message) = message else { continue };
            if let Some(editor) = self.source.editor() {
                let block = format!("\"\"\"{}\"\"\"", message.text);
                // A block that is no command is the same without its quotes.
                let typed = if message.block && typed_as(&message.text) != message.text {
                    &block
                } else {
                    &message.text
                };
                editor.remember(typed);
            }
            return Ok(Some(message));
        }
    }

    /// The message that begins with the line `first`; `None` if it was dropped.
    fn message_from(&mut self, first: String) -> Result<Option<TypedMessage>> {
        if let Some(start) = first.trim_start().strip_prefix("\"\"\"") {
            if let Some(whole) = start.trim_end().strip_suffix("\"\"\"") {
                let text = whole.trim_matches('\n').to_owned();
                return Ok(Some(TypedMessage { text, block: true }));
            }
            let mut lines = Vec::new();
            if !start.is_empty() {
                lines.push(start.to_owned());
            }
            // The end of the input ends the block, too.
            loop {
                let line = match self.source.read("", true)? {
                    LineRead::Line(line) => line,
                    LineRead::Dropped => return Ok(None),
                    LineRead::End => break,
                };
                if let Some(last) = line.trim_end().strip_suffix("\"\"\"") {
                    if !last.is_empty() {
                        lines.push(last.to_owned());
                    }
                    break;
                }
                lines.push(line);
            }
            return Ok(Some(TypedMessage { text: lines.join("\n"), block: true }));
        }
        let mut text = first;
        while let Some(cut) = text.strip_suffix('\\') {
            text = cut.to_owned();
            match self.source.read("", true)? {
                LineRead::Line(next) => {
                    text.push('\n');
                    text.push_str(&next);
                }
                LineRead::Dropped => return Ok(None),
                LineRead::End => break,
            }
        }
        Ok(Some(TypedMessage { text, block: false }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    fn typed(lines: impl BufRead, signals: &Signals) -> Vec<TypedMessage> {
        let mut input = ChatInput::new(PlainLines::new(lines, false, signals));
        let mut all = Vec::new();
        while let Some(message) = input.message().unwrap() {
            all.push(message);
        }
        all
    }

    fn messages(text: &str) -> Vec<String> {
        typed(text.as_bytes(), &Signals::default()).into_iter().map(|message| message.text).collect()
    }

    /// Reads a script in which the line `^C` is the key.
    struct Script<'a>(std::str::SplitInclusive<'a, char>, &'a Signals, &'a [u8]);

    impl io::Read for Script<'_> {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            unreachable!("lines are read by fill_buf")
        }
    }

    impl BufRead for Script<'_> {
        fn fill_buf(&mut self) -> io::Result<&[u8]> {
            while self.2.is_empty() {
                match self.0.next() {
                    Some("^C\n") => assert!(!self.1.interrupt_line(), "it would end the process"),
                    Some(line) => self.2 = line.as_bytes(),
                    None => break,
                }
            }
            Ok(self.2)
        }

        fn consume(&mut self, n: usize) {
            self.2 = &self.2[n..];
        }
    }

    #[test]
    fn an_interrupt_drops_what_was_begun() {
        for (script, expected) in [
            ("\"\"\"\na\n^C\nb\n", &["b"][..]),
            ("a\\\n^C\nb\n", &["b"]),
            ("\"\"\"\na\n^C\n\"\"\"\nb\n^C\nc\\\nd\ne\n", &["c\nd", "e"]),
            ("^C\n\"\"\"\na\n\"\"\"\nb\n", &["a", "b"]),
            ("\"\"\"\na\n^C\n", &[]),
        ] {
            let signals = Signals::default();
            let keys = Script(script.split_inclusive('\n'), &signals, &[]);
            let texts: Vec<_> = typed(keys, &signals).into_iter().map(|m| m.text).collect();
            assert_eq!(texts, expected, "{script:?}");
        }
    }

    #[test]
    fn a_block_is_a_message_whatever_it_begins_with() {
        let blocks = typed("\"\"\"\n/quit\n\"\"\"\n\"\"\"/x\"\"\"\n/y\n".as_bytes(), &Signals::default());
        let seen: Vec<_> = blocks.iter().map(|m| (m.text.as_str(), m.block)).collect();
        assert_eq!(seen, [("/quit", true), ("/x", true), ("/y", false)]);
    }

    #[test]
    fn lines_become_messages() {
        assert_eq!(messages("你好\r\n\nend"), ["你好", "", "end"]);
        assert_eq!(messages("a\\\nb\\\nc\nd"), ["a\nb\nc", "d"]);
        assert_eq!(messages("a\\"), ["a"]);
        assert_eq!(messages("\"\"\"\na\n\n b\n\"\"\"\nc"), ["a\n\n b", "c"]);
        assert_eq!(messages("\"\"\"a\nb\"\"\""), ["a\nb"]);
        assert_eq!(messages("\"\"\"one\"\"\""), ["one"]);
        assert_eq!(messages("\"\"\"\nopen"), ["open"]);
    }

    #[test]
    fn keys_of_a_terminal_without_an_editor_are_no_part_of_a_message() {
        let signals = Signals::default();
        for (typed, expected) in [(true, "ab"), (false, "a\x1b[Ab")] {
            let mut input = ChatInput::new(PlainLines::new("a\x1b[Ab\n".as_bytes(), typed, &signals));
            assert_eq!(input.message().unwrap().unwrap().text, expected);
        }
    }
}
