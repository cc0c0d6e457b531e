//! The one place that writes to standard output.
//!
//! Only results are printed here. On a terminal, control characters that a model or a file produced are made
//! visible, or they could move the cursor, retitle the window or worse; into a pipe or file bytes go as they
//! are.

pub use huozi_quant::message::size as bytes;
use std::io::{self, IsTerminal, Write};

/// The number under `schema` in every JSON object that a command prints. It changes when a key that was there
/// goes away or means something else.
pub const SCHEMA: u32 = 2;

/// Standard output.
pub struct Printer {
    terminal: bool,
    /// Whether the last character written was a line break.
    at_line_start: bool,
}

impl Printer {
    /// Standard output as it is.
    pub fn new() -> Self {
        Self { terminal: io::stdout().is_terminal(), at_line_start: true }
    }

    /// Whether standard output is a terminal.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Writes a piece of text and flushes it.
    ///
    /// # Errors
    /// The operating system's error; `BrokenPipe` when the reader closed it.
    pub fn text(&mut self, text: &str) -> io::Result<()> {
        let Some(last) = text.chars().next_back() else { return Ok(()) };
        self.at_line_start = last == '\n';
        let mut out = io::stdout().lock();
        if self.terminal {
            out.write_all(visible(text).as_bytes())?;
        } else {
            out.write_all(text.as_bytes())?;
        }
        out.flush()
    }

    /// Writes a line.
    ///
    /// # Errors
    /// As [`Printer::text`].
    pub fn line(&mut self, text: &str) -> io::Result<()> {
        self.text(text)?;
        self.text("\n")
    }

    /// Ends the line unless one has just been ended.
    ///
    /// # Errors
    /// As [`Printer::text`].
    pub fn end_line(&mut self) -> io::Result<()> {
        if self.at_line_start { Ok(()) } else { self.text("\n") }
    }

    /// Writes a value as one line of JSON. An object has its number of [`SCHEMA`].
    ///
    /// # Errors
    /// As [`Printer::text`].
    pub fn json(&mut self, value: &impl serde::Serialize) -> io::Result<()> {
        let mut out = self.bulk();
        json_line(&mut out, value)?;
        out.flush()
    }

    /// Standard output for bulk lines, buffered; the caller flushes.
    pub fn bulk(&mut self) -> io::BufWriter<io::StdoutLock<'static>> {
        io::BufWriter::new(io::stdout().lock())
    }
}

impl Default for Printer {
    fn default() -> Self {
        Self::new()
    }
}

/// Writes a value as one line of JSON.
///
/// # Errors
/// Those of `out`.
pub fn json_line(out: &mut impl Write, value: &impl serde::Serialize) -> io::Result<()> {
    // JSON escapes control characters itself.
    serde_json::to_writer(&mut *out, value).map_err(io::Error::from)?;
    out.write_all(b"\n")
}

/// A number with the fewest digits that give this `f32` again: 0.1 and not 0.10000000149011612; `null` where
/// JSON has none.
pub fn number(x: f32) -> serde_json::Value {
    x.to_string().parse::<f64>().map_or(serde_json::Value::Null, serde_json::Value::from)
}

/// `text` with every control character but line break and tab replaced by a visible sign, and characters that
/// reorder the text around them by U+FFFD.
pub fn visible(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\t' => c,
            '\0'..='\x1f' => char::from_u32(0x2400 + c as u32).unwrap_or('\u{fffd}'),
            '\x7f' => '\u{2421}',
            '\u{80}'..='\u{9f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
            _ => c,
        })
        .collect()
}

/// Bytes as one field of a line: text as it is, control characters as `\n`, `\t`, `\u{..}`, bytes that are no
/// character as `\xNN`, a backslash doubled.
pub fn escaped(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut out = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                c if c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c) => {
                    let _ = write!(out, "{}", c.escape_unicode());
                }
                c => out.push(c),
            }
        }
        for b in chunk.invalid() {
            let _ = write!(out, "\\x{b:02x}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_are_made_visible() {
        assert_eq!(
            visible("a\x1b[2Jb\r\n\tc\x07\u{9b}\u{202e}"),
            "a\u{241b}[2Jb\u{240d}\n\tc\u{2407}\u{fffd}\u{fffd}"
        );
        assert_eq!(visible("春，眠 😀"), "春，眠 😀");
    }

    #[test]
    fn pieces_fit_one_field() {
        assert_eq!(escaped("a\t春\n\\".as_bytes()), "a\\t春\\n\\\\");
        assert_eq!(escaped(&[0xe6, 0x98, b'x', 0xff]), "\\xe6\\x98x\\xff");
        assert_eq!(escaped(b"\x1b"), "\\u{1b}");
    }

    #[test]
    fn numbers_are_short_and_exact() {
        for (x, text) in [(0.1f32, "0.1"), (1e-5, "0.00001"), (-3.0, "-3.0"), (16777217.0, "16777216.0")] {
            assert_eq!(number(x).to_string(), text);
        }
        let mut state = 1u32;
        for _ in 0..1000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let x = f32::from_bits(state);
            let back = number(x).as_f64().map(|x| x as f32);
            assert_eq!(back.map(f32::to_bits), x.is_finite().then_some(x.to_bits()));
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(bytes(17), "17 B");
        assert_eq!(bytes(1536), "1.50 KiB");
        assert_eq!(bytes(12 << 30), "12.0 GiB");
    }
}
