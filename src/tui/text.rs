//! Text in cells: what may be shown, how wide it is, where its lines break.
//!
//! The unit is the grapheme cluster: it is never split, and its width is that of the terminal cells it takes.

use std::borrow::Cow;
use std::ops::Range;
use unicode_segmentation::UnicodeSegmentation;
use unicode_width::UnicodeWidthStr;

/// Cells of a tab.
pub const TAB: &str = "    ";

/// Cells that `text`, a line without control characters, takes.
pub fn width(text: &str) -> usize {
    text.width()
}

/// `text` with nothing in it that could move the cursor, change a colour or turn the writing direction:
/// control characters become visible signs, a tab four spaces, every line break `\n`.
pub fn clean(text: &str) -> Cow<'_, str> {
    if !text.chars().any(|c| c != '\n' && is_control(c)) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(with_breaks(text, |out, c| match c {
        '\t' => out.push_str(TAB),
        c if is_control(c) => out.push(sign(c)),
        c => out.push(c),
    }))
}

/// `text` with every line break as `\n`; `put` adds what becomes of any other character.
fn with_breaks(text: &str, put: impl Fn(&mut String, char)) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\r' => {
                if chars.peek() != Some(&'\n') {
                    out.push('\n');
                }
            }
            '\n' => out.push('\n'),
            c => put(&mut out, c),
        }
    }
    out
}

/// `text` on one line.
pub fn one_line(text: &str) -> String {
    clean(text).split('\n').map(str::trim).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Control characters, and those that only change how others are shown.
fn is_control(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// What is shown for a control character.
fn sign(c: char) -> char {
    match u32::from(c) {
        n @ 0..0x20 => char::from_u32(0x2400 + n).unwrap_or('?'),
        0x7f => '\u{2421}',
        _ => '\u{fffd}',
    }
}

/// What typed or pasted text is before it goes into a message: line breaks are `\n`, tabs stay, what cannot
/// be seen goes.
pub fn typed(text: &str) -> String {
    with_breaks(text, |out, c| {
        if c == '\t' || !is_control(c) {
            out.push(c);
        }
    })
}

/// What stands in the cells of a grapheme cluster.
pub fn shown(grapheme: &str) -> &str {
    if grapheme == "\t" { TAB } else { grapheme }
}

/// Cells of a grapheme cluster.
pub fn cells(grapheme: &str) -> usize {
    match grapheme.as_bytes() {
        b"\t" => TAB.len(),
        [b' '..=b'~'] => 1,
        _ => grapheme.width(),
    }
}

/// The beginning of `text` that takes at most `cells`.
pub fn cut(text: &str, cells: usize) -> &str {
    let mut used = 0;
    for (at, grapheme) in text.grapheme_indices(true) {
        used += self::cells(grapheme);
        if used > cells {
            return &text[..at];
        }
    }
    text
}

/// `text`, or its beginning and `…` where it takes more than `cells`.
pub fn fit(text: &str, cells: usize) -> Cow<'_, str> {
    if width(text) <= cells {
        return Cow::Borrowed(text);
    }
    match cells {
        0..=3 => Cow::Borrowed(cut(text, cells)),
        _ => Cow::Owned(format!("{}…", cut(text, cells - 1))),
    }
}

/// `text` with spaces after it up to `cells`.
pub fn pad(text: &str, cells: usize) -> String {
    let text = fit(text, cells);
    let missing = cells.saturating_sub(width(&text));
    format!("{text}{}", " ".repeat(missing))
}

/// Punctuation that no line should begin with.
fn closes(grapheme: &str) -> bool {
    matches!(
        grapheme,
        "，" | "。"
            | "、"
            | "；"
            | "："
            | "？"
            | "！"
            | "）"
            | "」"
            | "』"
            | "》"
            | "〉"
            | "】"
            | "”"
            | "’"
            | "…"
            | ","
            | "."
            | ";"
            | ":"
            | "?"
            | "!"
            | ")"
    )
}

/// The rows of a text, as byte ranges without their line breaks, each at most `width` cells wide (a cluster
/// wider than that has a row of its own). Breaks stand after spaces and beside wide characters, anywhere else
/// only if need be.
pub fn wrap(text: &str, width: usize) -> Vec<Range<usize>> {
    let mut rows = Vec::new();
    let mut start = 0;
    for line in text.split('\n') {
        wrap_line(line, start, width.max(1), &mut rows);
        start += line.len() + 1;
    }
    rows
}

/// One line of a text, that begins at byte `base`.
fn wrap_line(line: &str, base: usize, width: usize, rows: &mut Vec<Range<usize>>) {
    if line.len() <= width && line.bytes().all(|b| matches!(b, b' '..=b'~')) {
        rows.push(base..base + line.len());
        return;
    }
    let mut start = 0;
    // Cells from `start`, and from the last place where the row may be broken.
    let (mut used, mut since) = (0, 0);
    let mut may_break = 0;
    let mut before: Option<(&str, usize)> = None;
    for (at, grapheme) in line.grapheme_indices(true) {
        let w = cells(grapheme);
        if let Some((last, last_cells)) = before {
            let here = last == " " || last == "\t" || (w > 1 || last_cells > 1) && !closes(grapheme);
            if here {
                (may_break, since) = (at, 0);
            }
        }
        if used + w > width && at > start {
            if may_break > start {
                (start, used) = {
                    rows.push(base + start..base + may_break);
                    (may_break, since)
                };
            } else {
                rows.push(base + start..base + at);
                (start, used) = (at, 0);
            }
            // What was carried over may be as long as a row already.
            if used + w > width && at > start {
                rows.push(base + start..base + at);
                (start, used) = (at, 0);
            }
            since = used;
            may_break = start;
        }
        used += w;
        since += w;
        before = Some((grapheme, w));
    }
    rows.push(base + start..base + line.len());
}

/// The start of the grapheme cluster before byte `at`.
pub fn previous(text: &str, at: usize) -> usize {
    text[..at].grapheme_indices(true).next_back().map_or(0, |(start, _)| start)
}

/// The end of the grapheme cluster that begins at byte `at`.
pub fn next(text: &str, at: usize) -> usize {
    text[at..].graphemes(true).next().map_or(text.len(), |g| at + g.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rows(text: &str, width: usize) -> Vec<&str> {
        wrap(text, width).into_iter().map(|range| &text[range]).collect()
    }

    #[test]
    fn lines_break_where_they_may() {
        assert_eq!(rows("the quick brown fox", 10), ["the quick ", "brown fox"]);
        assert_eq!(rows("abcdefghijkl", 5), ["abcde", "fghij", "kl"]);
        assert_eq!(rows("床前明月光", 4), ["床前", "明月", "光"]);
        assert_eq!(rows("a床前明月光", 4), ["a床", "前明", "月光"]);
        assert_eq!(rows("", 4), [""]);
        assert_eq!(rows("a\n\nb", 4), ["a", "", "b"]);
        assert_eq!(rows("word床前明月", 6), ["word床", "前明月"]);
    }

    #[test]
    fn closing_punctuation_begins_no_row() {
        assert_eq!(rows("床前明月，疑是", 8), ["床前明", "月，疑是"]);
        assert_eq!(rows("明月，，，，", 4), ["明", "月，", "，，", "，"]);
    }

    #[test]
    fn clusters_stay_whole() {
        let family = "👨\u{200d}👩\u{200d}👧";
        for w in 1..6 {
            let text = format!("e\u{301}{family}x{family}");
            for row in rows(&text, w) {
                assert!(!row.starts_with(['\u{301}', '\u{200d}']), "{w}: {row:?}");
            }
        }
    }

    #[test]
    fn nothing_reaches_the_terminal_that_could_act() {
        let evil = "a\u{1b}]0;x\u{7}\u{9b}31m\u{202e}b\tc\rd\r\ne\u{85}";
        let clean = clean(evil);
        assert!(clean.chars().all(|c| c == '\n' || !is_control(c)), "{clean:?}");
        assert_eq!(clean, "a␛]0;x␇\u{fffd}31m\u{fffd}b    c\nd\ne\u{fffd}");
        assert_eq!(typed("a\u{1b}[31m\tb\r\nc\rd"), "a[31m\tb\nc\nd");
    }

    #[test]
    fn texts_are_cut_by_cells() {
        assert_eq!(fit("床前明月光", 10), "床前明月光");
        assert_eq!(fit("床前明月光", 9), "床前明月…");
        assert_eq!(fit("床前明月光", 8), "床前明…");
        assert_eq!(pad("床", 4), "床  ");
        assert_eq!(width(&pad("床前明月光", 8)), 8);
        assert_eq!(cut("a床", 2), "a");
    }

    proptest! {
        #[test]
        fn every_byte_is_in_one_row_and_no_row_is_too_wide(
            text in "[a-d 床前明，。\u{301}👧\u{200d}\n\t]{0,60}", w in 1usize..12
        ) {
            let mut at = 0;
            for range in wrap(&text, w) {
                prop_assert!(range.start == at || text[at..range.start] == *"\n");
                let row = &text[range.clone()];
                let cells: usize = row.graphemes(true).map(cells).sum();
                prop_assert!(cells <= w || row.graphemes(true).count() == 1, "{row:?} in {w}");
                at = range.end;
            }
            prop_assert_eq!(at, text.len());
        }
    }
}
