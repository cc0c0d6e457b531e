//! What a terminal sends: characters, keys, pastes.
//!
//! In: bytes as they come. Out: keys, and from these either what the line editor is given or the text that
//! was typed ahead. A sequence that the line editor does not know is left out here: the editor would take its
//! end for text. A burst of several lines is a paste, whether the terminal marks it as one or not.

/// A key, or what was pasted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// A character that is text.
    Char(char),
    /// Enter.
    Enter,
    /// Enter with Alt: a line break in the message.
    Newline,
    /// A control character, e.g. 3 for Ctrl+C; Backspace is 127.
    Control(u8),
    /// A key with a sequence of its own that edits or moves.
    Sequence(Vec<u8>),
    /// What was pasted; lines end in `\n`.
    Paste(String),
    /// A paste of more than [`MAX_BYTES`], which is left out.
    TooLong,
}

impl Key {
    /// Bytes that it takes.
    pub(super) fn len(&self) -> usize {
        match self {
            Key::Char(c) => c.len_utf8(),
            Key::Sequence(sequence) => sequence.len(),
            Key::Paste(text) => text.len(),
            Key::Enter | Key::Newline | Key::Control(_) | Key::TooLong => 1,
        }
    }
}

/// Bytes that are taken of what is pasted at once, and of what is typed ahead.
pub(super) const MAX_BYTES: usize = 1 << 20;

/// A longer sequence is none that a key sends.
const MAX_SEQUENCE: usize = 4096;
const PASTE_BEGINS: &[u8] = b"\x1b[200~";
const PASTE_ENDS: &[u8] = b"\x1b[201~";

/// Bytes to keys. What is not complete waits for more bytes.
#[derive(Debug, Default)]
pub(super) struct Keys {
    waiting: Vec<u8>,
    /// Where the end of a paste that has begun is looked for: it does not begin before this.
    searched: usize,
    /// The paste is too long: what came of it so far is left out.
    too_long: bool,
}

impl Keys {
    /// Takes bytes; gives the keys that are complete.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<Key> {
        self.waiting.extend_from_slice(bytes);
        let mut keys = Vec::new();
        let mut at = 0;
        loop {
            let first = match self.waiting[at..].starts_with(PASTE_BEGINS) {
                true => self.paste(at),
                false => first_key(&self.waiting[at..]),
            };
            let Some((key, length)) = first else { break };
            keys.extend(key);
            at += length;
        }
        self.waiting.drain(..at);
        self.searched = self.searched.saturating_sub(at);
        keys
    }

    /// The paste that begins at `at` and its length, as [`first_key`].
    fn paste(&mut self, at: usize) -> Option<(Option<Key>, usize)> {
        let begin = at + PASTE_BEGINS.len();
        let from = self.searched.max(begin);
        let end = self.waiting[from..].windows(PASTE_ENDS.len()).position(|window| window == PASTE_ENDS);
        let Some(end) = end.map(|end| from + end) else {
            if self.waiting.len() - begin > MAX_BYTES {
                self.too_long = true;
                // The end may have begun.
                self.waiting.drain(begin..self.waiting.len() - PASTE_ENDS.len());
            }
            self.searched = (self.waiting.len() + 1).saturating_sub(PASTE_ENDS.len());
            return None;
        };
        self.searched = 0;
        let key = match std::mem::take(&mut self.too_long) || end - begin > MAX_BYTES {
            true => Key::TooLong,
            false => Key::Paste(pasted(&String::from_utf8_lossy(&self.waiting[begin..end]))),
        };
        Some((Some(key), end + PASTE_ENDS.len() - at))
    }

    /// Whether a sequence has begun that is not complete.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether what is waited for is the end of a paste, however long it takes.
    pub(super) fn is_in_paste(&self) -> bool {
        self.waiting.starts_with(PASTE_BEGINS)
    }

    /// Nothing came for a while: what has begun was the Esc key, or is broken.
    pub(super) fn give_up(&mut self) {
        *self = Self::default();
    }
}

/// The first key of `bytes` (`None` where it is left out) and its length; `None` where more bytes are needed.
fn first_key(bytes: &[u8]) -> Option<(Option<Key>, usize)> {
    let &first = bytes.first()?;
    match first {
        b'\x1b' => return escape(bytes),
        b'\r' if bytes.get(1) == Some(&b'\n') => return Some((Some(Key::Enter), 2)),
        b'\r' | b'\n' => return Some((Some(Key::Enter), 1)),
        0..0x20 | 0x7f => return Some((Some(Key::Control(first)), 1)),
        _ => {}
    }
    let character = match std::str::from_utf8(&bytes[..bytes.len().min(4)]) {
        Ok(text) => text.chars().next(),
        Err(error) if error.valid_up_to() > 0 => {
            std::str::from_utf8(&bytes[..error.valid_up_to()]).ok().and_then(|text| text.chars().next())
        }
        // What a terminal in another encoding sends is shown as it was understood.
        Err(error) => {
            let length = error.error_len()?;
            return Some((Some(Key::Char(char::REPLACEMENT_CHARACTER)), length));
        }
    };
    let c = character?;
    Some(((!c.is_control()).then_some(Key::Char(c)), c.len_utf8()))
}

fn escape(bytes: &[u8]) -> Option<(Option<Key>, usize)> {
    let &second = bytes.get(1)?;
    match second {
        // F1 to F5 of the Linux console.
        b'[' if bytes.get(2) == Some(&b'[') => bytes.get(3).map(|_| (None, 4)),
        b'[' => {
            let end = bytes[2..].iter().position(|b| !(0x20..0x40).contains(b));
            let Some(end) = end else { return (bytes.len() > MAX_SEQUENCE).then_some((None, bytes.len())) };
            let (inner, last) = (&bytes[2..2 + end], bytes[2 + end]);
            if !(0x40..0x7f).contains(&last) {
                // Broken off: what comes is no part of it.
                return Some((None, 2 + end));
            }
            let plain = inner.iter().all(|b| b.is_ascii_digit() || *b == b';');
            let number = inner.split(|&b| b == b';').next().unwrap_or_default();
            let known = match last {
                b'A' | b'B' | b'C' | b'D' | b'F' | b'H' => inner.is_empty() || inner.starts_with(b"1;"),
                // Home, Delete, End, and the same of other terminals.
                b'~' => matches!(number, b"1" | b"3" | b"4" | b"7" | b"8"),
                _ => false,
            };
            let sequence = (plain && known).then(|| Key::Sequence(bytes[..3 + end].to_vec()));
            Some((sequence, 3 + end))
        }
        b'O' => {
            let &last = bytes.get(2)?;
            Some(match last {
                b'A' | b'B' | b'C' | b'D' | b'F' | b'H' => (Some(Key::Sequence(bytes[..3].to_vec())), 3),
                b'M' => (Some(Key::Enter), 3),
                _ => (None, 3),
            })
        }
        // Strings that end in BEL or in ESC \.
        b']' | b'P' | b'_' | b'^' | b'X' => {
            let end = bytes.iter().skip(2).position(|&b| b == 7);
            let st = bytes[2..].windows(2).position(|window| window == b"\x1b\\").map(|at| at + 1);
            let end = end.into_iter().chain(st).min();
            match end {
                Some(end) => Some((None, 3 + end)),
                None => (bytes.len() > MAX_SEQUENCE).then_some((None, bytes.len())),
            }
        }
        b'\r' | b'\n' => Some((Some(Key::Newline), 2)),
        b'b' | b'f' | b'd' | b'B' | b'F' | b'D' | b'\x7f' | b'\x08' => {
            Some((Some(Key::Sequence(bytes[..2].to_vec())), 2))
        }
        // Esc, then something that is no part of it.
        b'\x1b' | 0x80.. => Some((None, 1)),
        _ => Some((None, 2)),
    }
}

/// A pasted text without control characters, escape sequences among them; lines end in `\n`.
pub(super) fn pasted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let length = match c {
            '\x1b' if rest.as_bytes().starts_with(PASTE_BEGINS) => PASTE_BEGINS.len(),
            '\x1b' => match escape(rest.as_bytes()) {
                // Alt and a character, as far as it is one: the Esc alone goes.
                Some((_, length)) if length > 2 && rest.is_char_boundary(length) => length,
                _ => 1,
            },
            '\r' => {
                out.push('\n');
                if rest.starts_with("\r\n") { 2 } else { 1 }
            }
            '\n' | '\t' => {
                out.push(c);
                1
            }
            c => {
                out.extend((!c.is_control()).then_some(c));
                c.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    out
}

/// Whether keys that came at once are several lines: after a line break comes more.
pub(super) fn is_several_lines(keys: &[Key]) -> bool {
    let text = |key: &Key| matches!(key, Key::Char(_) | Key::Enter | Key::Newline | Key::Control(b'\t'));
    let first = keys.iter().position(|key| *key == Key::Enter);
    first.is_some_and(|at| keys[at..].iter().any(|key| matches!(key, Key::Char(_)))) && keys.iter().all(text)
}

/// The bytes that the line editor reads for `keys`, which came at once.
pub(super) fn for_editor(keys: &[Key]) -> Vec<u8> {
    let mut out = Vec::new();
    if is_several_lines(keys) {
        // A line break at the end is the Enter that sends them.
        let sends = keys.last() == Some(&Key::Enter);
        put_paste(typed_ahead(keys).trim_end_matches('\n'), &mut out);
        out.extend(sends.then_some(b'\r'));
        return out;
    }
    for key in keys {
        match key {
            Key::Char(c) => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            Key::Enter => out.push(b'\r'),
            Key::Newline => put_paste("\n", &mut out),
            // Ctrl+V, Ctrl+X and Ctrl+] would wait for another key.
            Key::Control(0 | 0x16 | 0x18 | 0x1d | 0x1e) => {}
            Key::Control(control) => out.push(*control),
            Key::Sequence(sequence) => out.extend_from_slice(sequence),
            Key::Paste(text) => put_paste(text, &mut out),
            Key::TooLong => {}
        }
    }
    out
}

fn put_paste(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(PASTE_BEGINS);
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(PASTE_ENDS);
}

/// The text that `keys` make in an empty line, typed while no line was read.
pub(super) fn typed_ahead(keys: &[Key]) -> String {
    let mut text = String::new();
    for key in keys {
        match key {
            Key::Char(c) => text.push(*c),
            Key::Enter | Key::Newline => text.push('\n'),
            Key::Control(b'\t') => text.push('\t'),
            Key::Control(0x7f | 0x08) => drop(text.pop()),
            // Ctrl+U.
            Key::Control(0x15) => text.truncate(text.rfind('\n').map_or(0, |at| at + 1)),
            // Ctrl+W.
            Key::Control(0x17) => {
                let word = text.trim_end_matches(' ').rfind([' ', '\n']).map_or(0, |at| at + 1);
                text.truncate(word);
            }
            Key::Control(_) | Key::Sequence(_) | Key::TooLong => {}
            Key::Paste(pasted) => text.push_str(pasted),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(bytes: &[u8]) -> Vec<Key> {
        let mut keys = Keys::default();
        let all = keys.push(bytes);
        if !bytes.contains(&b'\r') {
            // Byte by byte it is the same.
            let mut single = Keys::default();
            let one_by_one: Vec<Key> = bytes.iter().flat_map(|byte| single.push(&[*byte])).collect();
            assert_eq!((one_by_one, single.waiting), (all.clone(), keys.waiting), "{bytes:?}");
        }
        all
    }

    fn editor(bytes: &[u8]) -> String {
        String::from_utf8(for_editor(&keys(bytes))).unwrap()
    }

    #[test]
    fn text_and_editing_keys_go_on_as_they_are() {
        for sent in
            ["床前 a", "a\r", "\x1b[A", "\x1b[1;5D", "\x1bOB", "\x1b[3~", "\x1bb", "\x7f", "\x03", "\t"]
        {
            assert_eq!(editor(sent.as_bytes()), sent, "{sent:?}");
        }
        assert_eq!(editor(b"a\n"), "a\r");
        assert_eq!(editor(b"\x1bOM"), "\r");
    }

    #[test]
    fn other_sequences_and_bytes_leave_nothing() {
        for sent in [
            "\x1b[<0;12;7M",
            "\x1b[?1;2c",
            "\x1b[200;1~",
            "\x1b[12;34R",
            "\x1b]0;title\x07",
            "\x1bPq\x1b\\",
            "\x1b[I",
            "\x1b[5~",
            "\x1bOP",
            "\x1b[[A",
            "\x1b[15~",
            "\x1b1",
            "\x16",
            "\u{9b}",
            "\0",
        ] {
            assert_eq!(editor(format!("{sent}x").as_bytes()), "x", "{sent:?}");
        }
        assert_eq!(editor(b"\xff\xfex"), "\u{fffd}\u{fffd}x");
        assert_eq!(editor("\x1b春".as_bytes()), "春");
        // The Esc key alone.
        let mut esc = Keys::default();
        assert!(esc.push(b"\x1b").is_empty() && esc.is_waiting() && !esc.is_in_paste());
        esc.give_up();
        assert_eq!(esc.push(b"d"), [Key::Char('d')]);
    }

    #[test]
    fn lines_that_come_at_once_are_a_paste() {
        assert_eq!(editor("一\r二\r".as_bytes()), "\x1b[200~一\n二\x1b[201~\r");
        assert_eq!(editor("一\r\n\r\n二".as_bytes()), "\x1b[200~一\n\n二\x1b[201~");
        assert_eq!(editor(b"one\r\r"), "one\r\r");
        assert_eq!(
            editor("\x1b[200~一\r\n二\x1b[5m\x07\r\x1b[201~".as_bytes()),
            "\x1b[200~一\n二\n\x1b[201~"
        );
        assert_eq!(editor(b"\x1b\r"), "\x1b[200~\n\x1b[201~");
        let mut part = Keys::default();
        assert!(part.push("\x1b[200~一".as_bytes()).is_empty() && part.is_in_paste());
    }

    #[test]
    fn a_long_paste_comes_in_parts_and_a_longer_one_is_left_out() {
        for (length, expected) in [
            (MAX_BYTES, Key::Paste("a".repeat(MAX_BYTES))),
            (MAX_BYTES + 1, Key::TooLong),
            (16 * MAX_BYTES, Key::TooLong),
        ] {
            let sent = [PASTE_BEGINS, &vec![b'a'; length], PASTE_ENDS, b"b"].concat();
            let mut keys = Keys::default();
            let mut most = 0;
            let mut all = Vec::new();
            for part in sent.chunks(4093) {
                all.extend(keys.push(part));
                most = most.max(keys.waiting.len());
            }
            assert!(all == [expected, Key::Char('b')], "{length}");
            assert!(most < 2 * MAX_BYTES && !keys.is_waiting());
        }
    }

    #[test]
    fn what_is_typed_ahead_is_edited() {
        let ahead = |bytes: &str| typed_ahead(&keys(bytes.as_bytes()));
        assert_eq!(ahead("床前月\x7f明月\r"), "床前明月\n");
        assert_eq!(ahead("ab cd\x17ef\x1b[A\x04"), "ab ef");
        assert_eq!(ahead("ab\rcd\x15e"), "ab\ne");
        assert_eq!(ahead("\x1b[200~a\rb\x1b[201~"), "a\nb");
    }

    #[test]
    fn pasted_texts_have_no_control_characters() {
        assert_eq!(pasted("a\x1b[31mb\x1b]0;t\x07c\x1b\u{9b}d\te\r\nf\rg\0"), "abcd\te\nf\ng");
        assert_eq!(pasted("\x1b春\x1b"), "春");
    }
}
