//! Text files in the encodings that people have: UTF-8, GB18030 (with GBK and GB2312), UTF-16.
//!
//! In: a file or a stream, at most so many bytes of it. Out: its text, and the name of its encoding. A byte
//! order mark decides and is dropped. Without one, bytes that are UTF-8 are UTF-8; bytes that are mostly
//! UTF-8 are damaged UTF-8; others are UTF-16 or GB18030 if they are valid as such. Nothing else changes:
//! carriage returns stay. Knows nothing about prompts, models or screens.

use encoding_rs::{DecoderResult, Encoding, GB18030, UTF_8, UTF_16BE, UTF_16LE};
use std::io::{self, Read};

/// The longest text that a command reads: a prompt or a text to measure is held in memory as a whole.
pub const MAX_TEXT_BYTES: u64 = 1 << 30;

/// The text of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextFile {
    /// The text, without a byte order mark.
    pub text: String,
    /// The name of the encoding that it was read from, e.g. `UTF-8` or `gb18030`.
    pub encoding: &'static str,
}

impl TextFile {
    /// The encoding, where it is another than UTF-8.
    pub fn other_encoding(&self) -> Option<&'static str> {
        Some(self.encoding).filter(|&name| name != UTF_8.name())
    }
}

/// Why the text of a file cannot be had. Bytes count from 0, lines from 1.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// The system cannot read it.
    #[error("cannot read: {0}")]
    Io(#[from] io::Error),
    /// It is longer than the caller allows.
    #[error("larger than {} MiB, the most that is read as one text; split it", .most_bytes >> 20)]
    TooLong {
        /// The limit.
        most_bytes: u64,
    },
    /// It is in one of the encodings but for some bytes.
    #[error("not {encoding} at byte {at} (line {line}), as the rest of it is: correct or remove these bytes")]
    Damaged {
        /// The encoding of the rest.
        encoding: &'static str,
        /// The first byte that is wrong.
        at: usize,
        /// Its line.
        line: usize,
    },
    /// It is in none of the encodings.
    #[error(
        "not UTF-8 at byte {at} (line {line}), and neither GB18030 nor UTF-16: if it is a text, \
         convert it with `iconv -f ENCODING -t UTF-8`"
    )]
    NotText {
        /// The first byte that is not UTF-8, or that no text holds.
        at: usize,
        /// Its line.
        line: usize,
    },
}

impl TextError {
    /// The byte and the line that are wrong, where the content is.
    pub fn place(&self) -> Option<(usize, usize)> {
        match self {
            Self::Damaged { at, line, .. } | Self::NotText { at, line } => Some((*at, *line)),
            Self::Io(_) | Self::TooLong { .. } => None,
        }
    }
}

/// Reads a text of at most `most_bytes` to its end.
///
/// # Errors
/// Everything that [`TextError`] names.
pub fn read(from: impl Read, most_bytes: u64) -> Result<TextFile, TextError> {
    // Files that are longer than they say, as those of the system are, end here, too.
    let mut bytes = Vec::new();
    from.take(most_bytes.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most_bytes {
        return Err(TextError::TooLong { most_bytes });
    }
    decode(bytes)
}

/// The text that these bytes are.
///
/// # Errors
/// [`TextError::Damaged`], [`TextError::NotText`].
pub fn decode(mut bytes: Vec<u8>) -> Result<TextFile, TextError> {
    match Encoding::for_bom(&bytes) {
        Some((encoding, mark)) if encoding == UTF_8 => {
            bytes.drain(..mark);
            return String::from_utf8(bytes).map(utf_8).map_err(|error| damaged_utf_8(&error, mark));
        }
        Some((encoding, mark)) => {
            let text = decoded(encoding, &bytes[mark..]);
            return text.ok_or_else(|| damaged(encoding, &bytes, mark));
        }
        None => {}
    }
    let error = match String::from_utf8(bytes) {
        // In UTF-16, ASCII is valid UTF-8 with a zero beside every character.
        Ok(text) => return Ok(utf_16_without_mark(text.as_bytes()).unwrap_or_else(|| utf_8(text))),
        Err(error) => error,
    };
    if is_mostly_utf_8(error.as_bytes()) {
        return Err(damaged_utf_8(&error, 0));
    }
    let bytes = error.as_bytes();
    utf_16_without_mark(bytes).or_else(|| decoded(GB18030, bytes)).ok_or_else(|| {
        let at = error.utf8_error().valid_up_to();
        TextError::NotText { at, line: line_of(bytes, at) }
    })
}

/// Rewrites a text as UTF-8 without a byte order mark, in bounded memory. `encoding` is a name as
/// [`TextFile::encoding`] has it.
///
/// # Errors
/// [`TextError::Damaged`], [`TextError::Io`] of either side.
pub fn rewrite(encoding: &str, mut from: impl Read, mut to: impl io::Write) -> Result<(), TextError> {
    let encoding = Encoding::for_label(encoding.as_bytes()).unwrap_or(UTF_8);
    let mut decoder = encoding.new_decoder_with_bom_removal();
    let (mut bytes, mut text) = (vec![0; 1 << 16], vec![0; 1 << 18]);
    let (mut at, mut line) = (0, 1);
    loop {
        let read = match from.read(&mut bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        let mut done = 0;
        loop {
            let last = read == 0;
            let (result, used, made) =
                decoder.decode_to_utf8_without_replacement(&bytes[done..read], &mut text, last);
            to.write_all(&text[..made])?;
            line += text[..made].iter().filter(|&&b| b == b'\n').count();
            done += used;
            match result {
                DecoderResult::InputEmpty if last => return Ok(()),
                DecoderResult::InputEmpty => break,
                DecoderResult::OutputFull => {}
                DecoderResult::Malformed(wrong, after) => {
                    let at = (at + done).saturating_sub(usize::from(wrong) + usize::from(after));
                    return Err(TextError::Damaged { encoding: encoding.name(), at, line });
                }
            }
        }
        at += read;
    }
}

fn utf_8(text: String) -> TextFile {
    TextFile { text, encoding: UTF_8.name() }
}

/// The text, unless a byte is wrong or it holds a zero: much that is no text can be read as one by chance.
fn decoded(encoding: &'static Encoding, bytes: &[u8]) -> Option<TextFile> {
    let text = encoding.decode_without_bom_handling_and_without_replacement(bytes)?;
    (!text.contains('\0')).then(|| TextFile { text: text.into_owned(), encoding: encoding.name() })
}

/// The text of bytes that look like UTF-16 without a byte order mark: of the two orders of bytes, that in
/// which nearly every character is a usual one.
fn utf_16_without_mark(bytes: &[u8]) -> Option<TextFile> {
    // Less than four characters look like anything.
    if bytes.len() < 8 || !bytes.len().is_multiple_of(2) || !bytes.contains(&0) {
        return None;
    }
    let found = [UTF_16LE, UTF_16BE].into_iter().filter_map(|encoding| decoded(encoding, bytes));
    let usual = |file: &TextFile| {
        let is_usual = |c: &char| {
            matches!(c, '\t' | '\n' | '\r' | ' '..='~' | '\u{3000}'..='\u{303f}' | '\u{4e00}'..='\u{9fff}')
                || matches!(c, '\u{a1}'..='\u{ff}' | '\u{2010}'..='\u{2026}' | '\u{ff00}'..='\u{ffef}')
        };
        let usual = file.text.chars().filter(is_usual).count();
        (4 * usual >= 3 * file.text.chars().count()).then_some(usual)
    };
    let mut scored = Vec::from_iter(found.filter_map(|file| Some((usual(&file)?, file))));
    // Where both orders give usual characters, as for ASCII, that with line breaks, blanks and letters.
    scored.sort_by_key(|(usual, file)| (*usual, file.text.chars().filter(char::is_ascii).count()));
    scored.pop().map(|(_, file)| file)
}

/// Whether the bytes are UTF-8 but for a few of them. Of a text in GB18030, at least a third of the bytes
/// that are not ASCII are no UTF-8, fewer only in the shortest ones.
fn is_mostly_utf_8(bytes: &[u8]) -> bool {
    let (mut good, mut bad) = (0, 0);
    for chunk in bytes.utf8_chunks() {
        good += chunk.valid().bytes().filter(|b| !b.is_ascii()).count();
        bad += chunk.invalid().len();
    }
    good >= 12 && 6 * bad < good + bad
}

fn damaged_utf_8(error: &std::string::FromUtf8Error, mark: usize) -> TextError {
    let at = error.utf8_error().valid_up_to();
    TextError::Damaged { encoding: UTF_8.name(), at: mark + at, line: line_of(error.as_bytes(), at) }
}

/// Where the bytes behind the `mark` are no text of this encoding.
fn damaged(encoding: &'static Encoding, bytes: &[u8], mark: usize) -> TextError {
    let mut decoder = encoding.new_decoder_without_bom_handling();
    let mut piece = [0; 4096];
    let (mut at, mut line) = (mark, 1);
    loop {
        let (result, read, written) =
            decoder.decode_to_utf8_without_replacement(&bytes[at..], &mut piece, true);
        let piece = &piece[..written];
        // Only two bytes that are zero give a zero.
        if let Some(zero) = piece.iter().position(|&b| b == 0) {
            line += line_of(piece, zero) - 1;
            let pairs = bytes[mark..].chunks(2);
            let at = mark + 2 * pairs.take_while(|pair| *pair != [0, 0]).count();
            return TextError::Damaged { encoding: encoding.name(), at, line };
        }
        line += line_of(piece, written) - 1;
        at += read;
        match result {
            DecoderResult::OutputFull => {}
            DecoderResult::Malformed(wrong, after) => {
                at = at.saturating_sub(usize::from(wrong) + usize::from(after));
                return TextError::Damaged { encoding: encoding.name(), at, line };
            }
            DecoderResult::InputEmpty => {
                return TextError::Damaged { encoding: encoding.name(), at, line };
            }
        }
    }
}

/// The line in which byte `at` stands.
fn line_of(bytes: &[u8], at: usize) -> usize {
    1 + bytes[..at].iter().filter(|&&b| b == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8]) -> (String, &'static str) {
        let file = decode(bytes.to_vec()).unwrap_or_else(|error| panic!("{error}"));
        (file.text, file.encoding)
    }

    fn utf_16(text: &str, little: bool, mark: bool) -> Vec<u8> {
        let mark = if mark { "\u{feff}" } else { "" };
        let units = mark.encode_utf16().chain(text.encode_utf16());
        units.flat_map(|unit| if little { unit.to_le_bytes() } else { unit.to_be_bytes() }).collect()
    }

    #[test]
    fn the_encodings_that_people_have() {
        let of = |text: &str, encoding| (text.to_owned(), encoding);
        assert_eq!(text("月，\r\nmoon".as_bytes()), of("月，\r\nmoon", "UTF-8"));
        assert_eq!(text(b"\xef\xbb\xbf\xe6\x9c\x88"), of("月", "UTF-8"));
        assert_eq!(text(b"\xc7\xb0\xd4\xc2\xb9\xe2 a\r\n"), of("前月光 a\r\n", "gb18030"));
        // Four bytes for one character: 𠀀 and 😀.
        assert_eq!(text(b"\x95\x32\x82\x36\x94\x39\xfc\x36"), of("𠀀😀", "gb18030"));
        assert_eq!(text(b"\xff\xfe\x08\x67a\0"), of("月a", "UTF-16LE"));
        assert_eq!(text(b""), of("", "UTF-8"));
        assert_eq!(text(b"a\0b"), of("a\0b", "UTF-8"));
        for poem in ["一二三\r\n一月a\n", "hello\n", "😀 月光\n床前\n", "abcd"] {
            for (little, name) in [(true, "UTF-16LE"), (false, "UTF-16BE")] {
                for mark in [true, false] {
                    assert_eq!(text(&utf_16(poem, little, mark)), of(poem, name), "{mark} {poem:?}");
                }
            }
        }
    }

    #[test]
    fn many_lines_in_every_encoding() {
        let lines = "床前明月光，疑是地上霜。\r\n".repeat(250_000);
        let (gb, _, lossy) = GB18030.encode(&lines);
        assert!(!lossy);
        for bytes in [gb.into_owned(), utf_16(&lines, true, true), utf_16(&lines, false, true)] {
            assert!(text(&bytes).0 == lines);
        }
    }

    fn wrong(bytes: &[u8]) -> (String, (usize, usize)) {
        let error = decode(bytes.to_vec()).unwrap_err();
        (error.to_string(), error.place().unwrap())
    }

    #[test]
    fn what_is_wrong_is_found_by_byte_and_line() {
        // A picture, half a character, Latin-1.
        for (bytes, place) in [
            (&b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"[..], (0, 1)),
            (b"ab\xc7", (2, 1)),
            (b"a\n\xe9 b", (2, 2)),
            (b"\xff\xfe\0\0a\0\0\0", (2, 1)),
        ] {
            assert_eq!(wrong(bytes).1, place, "{bytes:?}");
        }
        let poem = "床前明月光，\n疑是地上霜。\n";
        // A text of UTF-8 with a character cut in half is valid GB18030 by chance.
        let mut cut = poem.as_bytes().to_vec();
        cut.remove(21);
        let (error, place) = wrong(&cut);
        assert!(place == (19, 2) && error.starts_with("not UTF-8 at byte 19 (line 2)"), "{error} {place:?}");
        let marked = [&b"\xef\xbb\xbf"[..], &cut].concat();
        assert_eq!(wrong(&marked).1, (22, 2));
        let mut half = utf_16(poem, true, true);
        half.extend([0x00, 0xd8, 0x0a, 0x00]);
        let (error, place) = wrong(&half);
        assert!(place == (30, 3) && error.contains("UTF-16LE"), "{error} {place:?}");
        half.truncate(29);
        assert_eq!(wrong(&half).1.1, 2, "an odd number of bytes");
    }

    #[test]
    fn a_text_is_as_long_as_the_caller_allows() {
        assert_eq!(read(&b"abc"[..], 3).unwrap().text, "abc");
        assert!(matches!(read(&b"abcd"[..], 3), Err(TextError::TooLong { most_bytes: 3 })));
        assert!(matches!(read(io::repeat(b'a'), 1 << 20), Err(TextError::TooLong { .. })));
    }
}
