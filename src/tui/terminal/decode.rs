//! From the bytes of a terminal to keys, mouse and pasted text: the sequences of xterm, and those of the
//! Linux console, rxvt and kitty that differ.
//!
//! The time comes in as an argument. A sequence that is begun and not ended ends when nothing has come for a
//! while: an Esc that nothing follows is the key, and a paste without its end mark does not take the keys
//! that follow it.

use crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use std::time::Duration;

/// The bytes of a key come together, over a slow line too.
const KEY: Duration = Duration::from_millis(30);
/// A pasted text may come in pieces.
const PASTE: Duration = Duration::from_secs(1);
/// A sequence is not longer than this.
const LONGEST: usize = 64;
/// What ends a pasted text.
const PASTE_END: &[u8] = b"\x1b[201~";

/// What has come, as far as it is not decoded.
#[derive(Default)]
pub(super) struct Decoder {
    bytes: Vec<u8>,
    /// Bytes of it that are decoded.
    done: usize,
    /// They are a pasted text, of which so many bytes are known to hold no end mark.
    pasting: Option<usize>,
}

/// What the bytes begin with.
#[derive(Debug, PartialEq)]
enum Found {
    /// An event, and its length.
    Event(Event, usize),
    /// So many bytes that mean nothing here.
    Nothing(usize),
    /// A pasted text follows after so many bytes.
    Paste(usize),
    /// The beginning of something.
    More,
}

impl Decoder {
    /// Takes bytes.
    pub(super) fn take(&mut self, bytes: &[u8]) {
        if self.pasting.is_none() {
            self.bytes.drain(..std::mem::take(&mut self.done));
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// How long after the last bytes that have come what is begun ends; `None` where nothing is begun.
    pub(super) fn patience(&self) -> Option<Duration> {
        match self.pasting {
            Some(_) => Some(PASTE),
            None => (self.done < self.bytes.len()).then_some(KEY),
        }
    }

    /// The next event; `silent` is the time since the last bytes came.
    pub(super) fn next(&mut self, silent: Duration) -> Option<Event> {
        loop {
            let rest = &self.bytes[self.done..];
            if let Some(searched) = self.pasting {
                // The mark may be in two pieces.
                let from = searched.saturating_sub(PASTE_END.len());
                let end =
                    rest[from..].windows(PASTE_END.len()).position(|w| w == PASTE_END).map(|at| from + at);
                let (text, used) = match end {
                    Some(end) => (&rest[..end], end + PASTE_END.len()),
                    None if silent >= PASTE => (rest, rest.len()),
                    None => {
                        self.pasting = Some(rest.len());
                        return None;
                    }
                };
                let text = String::from_utf8_lossy(text).into_owned();
                self.done += used;
                self.pasting = None;
                return Some(Event::Paste(text));
            }
            if rest.is_empty() {
                return None;
            }
            match decode(rest, silent >= KEY) {
                Found::Event(event, used) => {
                    self.done += used;
                    return Some(event);
                }
                Found::Nothing(used) => self.done += used,
                Found::Paste(used) => {
                    self.done += used;
                    self.pasting = Some(0);
                }
                Found::More => return None,
            }
        }
    }
}

fn key(code: KeyCode, modifiers: KeyModifiers, used: usize) -> Found {
    Found::Event(Event::Key(KeyEvent::new(code, modifiers)), used)
}

/// What `bytes`, of which there is one at least, begin with; they are all there are, if nothing follows.
fn decode(bytes: &[u8], ended: bool) -> Found {
    if bytes[0] != 0x1b {
        return plain(bytes, ended);
    }
    let alone = key(KeyCode::Esc, KeyModifiers::NONE, 1);
    let found = match bytes.get(1) {
        None => Found::More,
        Some(b'[') => csi(bytes),
        Some(b'O') => ss3(bytes),
        // Alt and a key that is a sequence itself.
        Some(0x1b) if bytes.len() == 2 => Found::More,
        Some(0x1b) if !matches!(bytes[2], b'[' | b'O') => return alone,
        Some(_) => match decode(&bytes[1..], ended) {
            Found::Event(Event::Key(KeyEvent { code, modifiers, .. }), used) => {
                return key(code, modifiers | KeyModifiers::ALT, used + 1);
            }
            Found::Event(event, used) => return Found::Event(event, used + 1),
            Found::Nothing(used) => return Found::Nothing(used + 1),
            Found::Paste(used) => return Found::Paste(used + 1),
            Found::More => Found::More,
        },
    };
    match (found, bytes.get(1)) {
        (Found::More, Some(&second @ (b'[' | b'O'))) if ended && bytes.len() == 2 => {
            let shift = if second == b'O' { KeyModifiers::SHIFT } else { KeyModifiers::NONE };
            key(KeyCode::Char(second.into()), KeyModifiers::ALT | shift, 2)
        }
        (Found::More, _) if ended && bytes.len() <= 2 => alone,
        (Found::More, _) if ended => Found::Nothing(bytes.len()),
        (found, _) => found,
    }
}

/// A character, or what a key with Ctrl gives.
fn plain(bytes: &[u8], ended: bool) -> Found {
    let control = |c: u8| key(KeyCode::Char(c.into()), KeyModifiers::CONTROL, 1);
    match bytes[0] {
        b'\r' => key(KeyCode::Enter, KeyModifiers::NONE, 1),
        b'\t' => key(KeyCode::Tab, KeyModifiers::NONE, 1),
        0x7f => key(KeyCode::Backspace, KeyModifiers::NONE, 1),
        0 => control(b' '),
        c @ 0x01..=0x1a => control(c - 1 + b'a'),
        c @ 0x1c..=0x1f => control(c - 0x1c + b'4'),
        first => {
            let length = match first {
                0..0x80 => 1,
                0xc2..0xe0 => 2,
                0xe0..0xf0 => 3,
                0xf0..0xf5 => 4,
                _ => return Found::Nothing(1),
            };
            let begun = &bytes[..length.min(bytes.len())];
            match std::str::from_utf8(begun) {
                Ok(text) => text.chars().next().map_or(Found::Nothing(1), |c| character(c, length)),
                // Only what is missing is wrong with it.
                Err(error) if error.error_len().is_none() && !ended => Found::More,
                Err(_) => Found::Nothing(1),
            }
        }
    }
}

fn character(c: char, used: usize) -> Found {
    let shift = if c.is_uppercase() { KeyModifiers::SHIFT } else { KeyModifiers::NONE };
    key(KeyCode::Char(c), shift, used)
}

/// `ESC O` and a letter.
fn ss3(bytes: &[u8]) -> Found {
    let Some(&last) = bytes.get(2) else { return Found::More };
    let code = match last {
        b'M' => Some(KeyCode::Enter),
        last => letter(last),
    };
    code.map_or(Found::Nothing(3), |code| key(code, KeyModifiers::NONE, 3))
}

/// The key of a letter that ends a sequence.
fn letter(last: u8) -> Option<KeyCode> {
    Some(match last {
        b'A' => KeyCode::Up,
        b'B' => KeyCode::Down,
        b'C' => KeyCode::Right,
        b'D' => KeyCode::Left,
        b'H' => KeyCode::Home,
        b'F' => KeyCode::End,
        b'P'..=b'S' => KeyCode::F(1 + last - b'P'),
        _ => return None,
    })
}

/// `ESC [`, parameters, and a letter.
fn csi(bytes: &[u8]) -> Found {
    match bytes.get(2) {
        // The Linux console.
        Some(b'[') => {
            let Some(&last) = bytes.get(3) else { return Found::More };
            let code = matches!(last, b'A'..=b'E').then(|| KeyCode::F(1 + last - b'A'));
            return code.map_or(Found::Nothing(4), |code| key(code, KeyModifiers::NONE, 4));
        }
        // The mouse, as the first xterm had it.
        Some(b'M') => {
            let Some(&[button, x, y]) = bytes.get(3..6) else { return Found::More };
            let [button, x, y] = [button, x, y].map(|byte| u16::from(byte.saturating_sub(32)));
            return mouse([button, x, y], true, 6);
        }
        _ => {}
    }
    let body = &bytes[2..bytes.len().min(LONGEST)];
    let Some(length) = body.iter().position(|byte| !(0x20..0x40).contains(byte)) else {
        return if bytes.len() < LONGEST { Found::More } else { Found::Nothing(bytes.len().min(LONGEST)) };
    };
    let (last, used) = (body[length], length + 3);
    // What is no sequence ends before the byte that is none of it.
    if !(0x40..0x7f).contains(&last) {
        return Found::Nothing(used - 1);
    }
    let text = std::str::from_utf8(&body[..length]).unwrap_or_default();
    let numbers = |text: &str| {
        let first = |part: &str| part.split(':').next().and_then(|n| n.parse().ok()).unwrap_or(0);
        text.split(';').map(first).collect::<Vec<u32>>()
    };
    if let Some(text) = text.strip_prefix('<') {
        let numbers = numbers(text);
        let Some(&[button, x, y]) = numbers.first_chunk::<3>() else { return Found::Nothing(used) };
        return mouse([button, x, y].map(|n| n.min(u16::MAX.into()) as u16), last == b'M', used);
    }
    let numbers = numbers(text);
    let number = |at: usize| numbers.get(at).copied().unwrap_or(0);
    let modifiers = modifiers(number(1));
    // A key that goes up, where a terminal tells that.
    let up = text.split(';').nth(1).is_some_and(|part| part.ends_with(":3"));
    let code = match last {
        b'~' if number(0) == 200 => return Found::Paste(used),
        b'~' if number(0) == 27 => KeyCode::Char('\0'),
        b'~' => match tilde(number(0)) {
            Some(code) => code,
            None => return Found::Nothing(used),
        },
        b'u' => KeyCode::Char('\0'),
        b'Z' => return key(KeyCode::BackTab, KeyModifiers::SHIFT, used),
        b'M' => {
            let event = [number(0).saturating_sub(32), number(1), number(2)];
            return mouse(event.map(|n| n.min(u16::MAX.into()) as u16), true, used);
        }
        last => match letter(last) {
            Some(code) => code,
            None => return Found::Nothing(used),
        },
    };
    // Keys by the number of their character.
    let code = match (code, last) {
        (KeyCode::Char(_), b'u') => numbered(number(0)),
        (KeyCode::Char(_), _) => numbered(number(2)),
        (code, _) => Some(code),
    };
    match code.filter(|_| !up) {
        Some(code) => key(code, modifiers, used),
        None => Found::Nothing(used),
    }
}

fn numbered(number: u32) -> Option<KeyCode> {
    Some(match number {
        9 => KeyCode::Tab,
        13 => KeyCode::Enter,
        27 => KeyCode::Esc,
        127 => KeyCode::Backspace,
        number => KeyCode::Char(char::from_u32(number).filter(|c| !c.is_control())?),
    })
}

/// The key of a number before `~`.
fn tilde(number: u32) -> Option<KeyCode> {
    Some(match number {
        1 | 7 => KeyCode::Home,
        2 => KeyCode::Insert,
        3 => KeyCode::Delete,
        4 | 8 => KeyCode::End,
        5 => KeyCode::PageUp,
        6 => KeyCode::PageDown,
        11..=15 => KeyCode::F(number as u8 - 10),
        17..=21 => KeyCode::F(number as u8 - 11),
        23..=26 => KeyCode::F(number as u8 - 12),
        28..=29 => KeyCode::F(number as u8 - 13),
        31..=34 => KeyCode::F(number as u8 - 14),
        _ => return None,
    })
}

/// Modifiers of a key, from 1.
fn modifiers(number: u32) -> KeyModifiers {
    let bits = number.saturating_sub(1);
    let mut modifiers = KeyModifiers::NONE;
    for (bit, modifier) in [(1, KeyModifiers::SHIFT), (2, KeyModifiers::ALT), (4, KeyModifiers::CONTROL)] {
        if bits & bit != 0 {
            modifiers |= modifier;
        }
    }
    modifiers
}

/// The wheel and the left button going down; nothing follows the rest. Column and row count from 1.
fn mouse([button, column, row]: [u16; 3], down: bool, used: usize) -> Found {
    let mut modifiers = KeyModifiers::NONE;
    for (bit, modifier) in [(4, KeyModifiers::SHIFT), (8, KeyModifiers::ALT), (16, KeyModifiers::CONTROL)] {
        if button & bit != 0 {
            modifiers |= modifier;
        }
    }
    let kind = match button & !(4 | 8 | 16) {
        0 if down => MouseEventKind::Down(MouseButton::Left),
        64 => MouseEventKind::ScrollUp,
        65 => MouseEventKind::ScrollDown,
        _ => return Found::Nothing(used),
    };
    let (column, row) = (column.saturating_sub(1), row.saturating_sub(1));
    Found::Event(Event::Mouse(MouseEvent { kind, column, row, modifiers }), used)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossterm::event::KeyEventKind;

    const AT_ONCE: Duration = Duration::ZERO;

    /// What a key is called, for a table.
    fn name(event: &Event) -> String {
        match event {
            Event::Key(KeyEvent { code, modifiers, kind: KeyEventKind::Press, .. }) => {
                let code = match code {
                    KeyCode::Char(c) => c.to_string(),
                    KeyCode::F(n) => format!("F{n}"),
                    code => format!("{code:?}"),
                };
                let modifiers = [
                    (KeyModifiers::CONTROL, "Ctrl+"),
                    (KeyModifiers::ALT, "Alt+"),
                    (KeyModifiers::SHIFT, "Shift+"),
                ]
                .map(|(modifier, name)| if modifiers.contains(modifier) { name } else { "" });
                modifiers.concat() + &code
            }
            Event::Paste(text) => format!("{text:?}"),
            Event::Mouse(MouseEvent { kind, column, row, .. }) => format!("{kind:?}@{column},{row}"),
            event => format!("{event:?}"),
        }
    }

    /// What the pieces of bytes give, if each comes at once after the other and nothing follows for `silent`.
    fn events(pieces: &[&[u8]], silent: Duration) -> Vec<String> {
        let mut decoder = Decoder::default();
        let mut all = Vec::new();
        for piece in pieces {
            decoder.take(piece);
            all.extend(std::iter::from_fn(|| decoder.next(AT_ONCE)));
        }
        all.extend(std::iter::from_fn(|| decoder.next(silent)));
        all.iter().map(name).collect()
    }

    const KEYS: &[(&str, &[&str])] = &[
        ("a汉A👧", &["a", "汉", "Shift+A", "👧"]),
        ("\r\t\x7f\n\x01\x1f\0", &["Enter", "Tab", "Backspace", "Ctrl+j", "Ctrl+a", "Ctrl+7", "Ctrl+ "]),
        ("\x1ba\x1bZ\x1b汉\x1b\r\x1b\x7f", &["Alt+a", "Alt+Shift+Z", "Alt+汉", "Alt+Enter", "Alt+Backspace"]),
        ("\x1b[A\x1b[1;5H\x1b[1;3B\x1bOA\x1bOH", &["Up", "Ctrl+Home", "Alt+Down", "Up", "Home"]),
        ("\x1bOP\x1b[[B\x1b[13~\x1b[15~\x1b[21~\x1b[24;2~", &["F1", "F2", "F3", "F5", "F10", "Shift+F12"]),
        ("\x1b[1;2R\x1b[Z\x1b[3~\x1b[5~\x1b[8~", &["Shift+F3", "Shift+BackTab", "Delete", "PageUp", "End"]),
        ("\x1b[13;2u\x1b[27;5;9~\x1b[97;5:1u\x1b[97;5:3u", &["Shift+Enter", "Ctrl+Tab", "Ctrl+a"]),
        ("\x1b\x1b[A\x1b\x1b[21~", &["Alt+Up", "Alt+F10"]),
        ("\x1b[200~a\rb\x1b[A\x1b[201~c", &["\"a\\rb\\u{1b}[A\"", "c"]),
        ("\x1b[<0;3;4M\x1b[<0;3;4m\x1b[<64;1;1M\x1b[<35;9;9Mx", &["Down(Left)@2,3", "ScrollUp@0,0", "x"]),
        ("\x1b[M !\"\x1b[97;5;6M", &["Down(Left)@0,1", "ScrollDown@4,5"]),
        // What is not known, or none of it, takes no key with it.
        ("\x1b[99~\x1b[I\x1b[201~\x1bOzx", &["x"]),
        ("\x1b[12\rx", &["Enter", "x"]),
    ];

    #[test]
    fn keys_of_every_terminal_in_pieces_of_any_size() {
        for (bytes, expected) in KEYS {
            let bytes = bytes.as_bytes();
            assert_eq!(events(&[bytes], AT_ONCE), *expected, "{bytes:?}");
            for at in 1..bytes.len() {
                assert_eq!(events(&[&bytes[..at], &bytes[at..]], AT_ONCE), *expected, "{bytes:?} at {at}");
            }
            let one_by_one: Vec<&[u8]> = bytes.chunks(1).collect();
            assert_eq!(events(&one_by_one, AT_ONCE), *expected, "{bytes:?}");
        }
    }

    #[test]
    fn what_is_begun_ends_when_nothing_follows() {
        let cases: [(&str, &[&str]); 5] = [
            ("\x1b", &["Esc"]),
            ("\x1b\x1b", &["Esc", "Esc"]),
            ("\x1b[", &["Alt+["]),
            ("\x1bO", &["Alt+Shift+O"]),
            ("x\x1b[1;", &["x"]),
        ];
        for (bytes, expected) in cases {
            assert_eq!(events(&[bytes.as_bytes()], KEY), expected, "{bytes:?}");
        }
        assert_eq!(events(&[b"\x1b"], AT_ONCE), [""; 0], "something may follow");
    }

    #[test]
    fn a_paste_without_its_end_takes_no_key_that_follows() {
        let mut decoder = Decoder::default();
        decoder.take("\x1b[200~月".as_bytes());
        assert_eq!((decoder.next(KEY), decoder.patience()), (None, Some(PASTE)));
        decoder.take("光".as_bytes());
        assert_eq!(decoder.next(AT_ONCE), None);
        assert_eq!(decoder.next(PASTE), Some(Event::Paste("月光".into())));
        assert_eq!(decoder.patience(), None);
        decoder.take(b"q\x1b[201~");
        assert_eq!(decoder.next(AT_ONCE).as_ref().map(name).as_deref(), Some("q"));
        assert_eq!(decoder.next(AT_ONCE), None, "a late mark is nothing");
    }

    #[test]
    fn bytes_that_are_no_text_take_no_key_with_them() {
        for bad in [&b"\xff"[..], b"\xe6\x9c", b"\xc0", b"\xf5", b"\xe6", b"\xed\xa0\x80"] {
            let bytes = [bad, b"q"].concat();
            assert_eq!(events(&[&bytes[..]], AT_ONCE), ["q"], "{bad:?}");
            assert_eq!(events(&[bad], KEY), [""; 0], "{bad:?}");
        }
    }

    #[test]
    fn no_bytes_stop_it() {
        let mut seed = 0x9e37_79b9_7f4a_7c15u64;
        let mut decoder = Decoder::default();
        for _ in 0..20_000 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            let some = b"\x1b\x1b[[O<M;;0123~u:ABZ\xe6\x9c\x88\xff\rq";
            decoder.take(&[some[(seed % some.len() as u64) as usize]]);
            while decoder.next(if seed & 0x700 == 0 { PASTE } else { AT_ONCE }).is_some() {}
        }
        while decoder.next(PASTE).is_some() {}
        assert_eq!(decoder.patience(), None);
    }
}
