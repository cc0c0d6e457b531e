//! The text that is being written: a cursor between grapheme clusters, undo, and rows that are wrapped once
//! for text and cursor alike. It knows no keys and no terminal.

use super::text::{cells, next, previous, typed, wrap};
use std::ops::Range;
use unicode_segmentation::{GraphemeCursor, UnicodeSegmentation};

/// Bytes of earlier states kept for undo.
const UNDO_BYTES: usize = 4 << 20;

/// What a change was: changes of one kind in a row are undone together.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Typing,
    Erasing,
    Other,
}

/// A text with a cursor.
#[derive(Clone, Default)]
pub struct Input {
    text: String,
    /// Byte offset, between clusters.
    cursor: usize,
    /// The column that moving up and down aims at.
    goal: Option<usize>,
    undo: Vec<(String, usize)>,
    redo: Vec<(String, usize)>,
    last: Option<Change>,
    killed: String,
    /// The first row that is shown.
    pub scroll: usize,
    /// Width and its rows.
    wrapped: Option<(usize, Vec<Range<usize>>)>,
}

impl Input {
    /// A text with the cursor at its end.
    pub fn of(text: &str) -> Self {
        Self { text: typed(text), cursor: typed(text).len(), ..Self::default() }
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What stands before the cursor.
    pub fn before(&self) -> &str {
        &self.text[..self.cursor]
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Takes the text away; it can be undone.
    pub fn take(&mut self) -> String {
        let text = self.text.clone();
        self.set("");
        text
    }

    /// Puts another text in its place, the cursor at its end; it can be undone.
    pub fn set(&mut self, text: &str) {
        self.remember(Change::Other);
        self.text = typed(text);
        self.moved(self.text.len());
        self.scroll = 0;
    }

    /// Inserts text at the cursor.
    pub fn insert(&mut self, text: &str) {
        let text = typed(text);
        if text.is_empty() {
            return;
        }
        let word_ends = text.chars().all(char::is_whitespace);
        self.remember(if text.len() <= 4 && !word_ends { Change::Typing } else { Change::Other });
        self.text.insert_str(self.cursor, &text);
        let mut to = self.cursor + text.len();
        // A combining mark joins what stands before it: the cursor goes behind the whole cluster.
        if !self.boundary(to) {
            to = self.after(to);
        }
        self.moved(to);
    }

    /// Forgets what could be brought back.
    pub fn forget(&mut self) {
        (self.undo, self.redo, self.killed) = Default::default();
        self.last = None;
    }

    fn boundary(&self, at: usize) -> bool {
        // Looks only as far around it as it must: a long line may be typed.
        GraphemeCursor::new(at, self.text.len(), true).is_boundary(&self.text, 0).unwrap_or(true)
    }

    /// The first boundary after byte `at`.
    fn after(&self, at: usize) -> usize {
        let mut cursor = GraphemeCursor::new(at, self.text.len(), true);
        cursor.next_boundary(&self.text, 0).ok().flatten().unwrap_or(self.text.len())
    }

    /// The line that byte `at` is in, without its break.
    fn line(&self, at: usize) -> Range<usize> {
        let start = self.text[..at].rfind('\n').map_or(0, |n| n + 1);
        let end = self.text[at..].find('\n').map_or(self.text.len(), |n| at + n);
        start..end
    }

    fn moved(&mut self, to: usize) {
        self.cursor = to;
        self.goal = None;
        self.wrapped = None;
    }

    fn remember(&mut self, change: Change) {
        let goes_on = self.last == Some(change) && change != Change::Other;
        self.last = Some(change);
        self.redo.clear();
        if goes_on {
            return;
        }
        self.undo.push((self.text.clone(), self.cursor));
        let mut bytes: usize = self.undo.iter().map(|(text, _)| text.len() + 64).sum();
        while bytes > UNDO_BYTES && self.undo.len() > 1 {
            bytes -= self.undo.remove(0).0.len() + 64;
        }
    }

    /// Takes the last change back.
    pub fn undo(&mut self) {
        if let Some((text, cursor)) = self.undo.pop() {
            self.redo.push((std::mem::replace(&mut self.text, text), self.cursor));
            self.last = None;
            self.moved(cursor);
        }
    }

    /// Makes the change again that was taken back last.
    pub fn redo(&mut self) {
        if let Some((text, cursor)) = self.redo.pop() {
            self.undo.push((std::mem::replace(&mut self.text, text), self.cursor));
            self.last = None;
            self.moved(cursor);
        }
    }

    fn erase(&mut self, range: Range<usize>, change: Change) {
        if !range.is_empty() {
            self.remember(change);
            self.text.replace_range(range.clone(), "");
            self.moved(range.start);
        }
    }

    fn kill(&mut self, range: Range<usize>) {
        if !range.is_empty() {
            self.killed = self.text[range.clone()].to_owned();
            self.erase(range, Change::Other);
        }
    }

    /// Erases the cluster before the cursor.
    pub fn backspace(&mut self) {
        self.erase(previous(&self.text, self.cursor)..self.cursor, Change::Erasing);
    }

    /// Erases the cluster at the cursor.
    pub fn delete(&mut self) {
        self.erase(self.cursor..next(&self.text, self.cursor), Change::Erasing);
    }

    /// Kills up to the end of the line; its break if the cursor is there.
    pub fn kill_to_end(&mut self) {
        let end = self.line(self.cursor).end;
        let end = if end == self.cursor { next(&self.text, end) } else { end };
        self.kill(self.cursor..end);
    }

    /// Kills back to the beginning of the line; the break before it if the cursor is there.
    pub fn kill_to_start(&mut self) {
        let start = self.line(self.cursor).start;
        let start = if start == self.cursor { previous(&self.text, start) } else { start };
        self.kill(start..self.cursor);
    }

    /// Kills the word before the cursor.
    pub fn kill_word(&mut self) {
        self.kill(self.word_before()..self.cursor);
    }

    /// Puts what was killed last at the cursor.
    pub fn yank(&mut self) {
        let killed = self.killed.clone();
        self.insert(&killed);
    }

    fn word_before(&self) -> usize {
        let before = &self.text[..self.cursor];
        let mut words = before.unicode_word_indices();
        words.next_back().map_or(0, |(start, _)| start)
    }

    fn word_after(&self) -> usize {
        let after = &self.text[self.cursor..];
        after
            .unicode_word_indices()
            .next()
            .map_or(self.text.len(), |(at, word)| self.cursor + at + word.len())
    }

    /// One cluster to the left.
    pub fn left(&mut self) {
        self.go(previous(&self.text, self.cursor));
    }

    /// One cluster to the right.
    pub fn right(&mut self) {
        self.go(next(&self.text, self.cursor));
    }

    /// One word to the left.
    pub fn word_left(&mut self) {
        self.go(self.word_before());
    }

    /// One word to the right.
    pub fn word_right(&mut self) {
        self.go(self.word_after());
    }

    /// The beginning of the line.
    pub fn home(&mut self) {
        self.go(self.line(self.cursor).start);
    }

    /// The end of the line.
    pub fn end(&mut self) {
        self.go(self.line(self.cursor).end);
    }

    fn go(&mut self, to: usize) {
        self.cursor = to;
        self.goal = None;
        self.last = None;
    }

    /// The rows of the text in `width` cells, the last of which is left for the cursor.
    pub fn rows(&mut self, width: usize) -> &[Range<usize>] {
        if self.wrapped.as_ref().is_none_or(|(w, _)| *w != width) {
            self.wrapped = Some((width, wrap(&self.text, width.saturating_sub(1).max(2))));
        }
        self.wrapped.as_ref().map_or(&[], |(_, rows)| rows)
    }

    /// The rows that were made last, and where the cursor stands in them.
    pub fn laid_out(&self) -> (&[Range<usize>], (usize, usize)) {
        let rows = self.wrapped.as_ref().map_or(&[][..], |(_, rows)| rows);
        (rows, if rows.is_empty() { (0, 0) } else { self.position_in(rows) })
    }

    fn position_in(&self, rows: &[Range<usize>]) -> (usize, usize) {
        // At a soft break the cursor stands before what comes next.
        let row = rows.partition_point(|row| row.start <= self.cursor).saturating_sub(1);
        (row, self.text[rows[row].start..self.cursor].graphemes(true).map(cells).sum())
    }

    /// Row and column of the cursor.
    pub fn position(&mut self, width: usize) -> (usize, usize) {
        self.rows(width);
        self.laid_out().1
    }

    /// One row up or down; false at the first or last.
    pub fn vertical(&mut self, up: bool, width: usize) -> bool {
        let (row, column) = self.position(width);
        let goal = self.goal.unwrap_or(column);
        let to = if up { row.checked_sub(1) } else { Some(row + 1) };
        let Some(to) = to.filter(|&to| to < self.rows(width).len()) else { return false };
        self.cursor = self.at(to, goal, width);
        self.goal = Some(goal);
        self.last = None;
        true
    }

    /// Puts the cursor into a row, at the cluster that covers the column.
    pub fn click(&mut self, row: usize, column: usize, width: usize) {
        let row = row.min(self.rows(width).len().saturating_sub(1));
        self.go(self.clone().at(row, column, width));
    }

    fn at(&mut self, row: usize, column: usize, width: usize) -> usize {
        let range = self.rows(width)[row].clone();
        // The end of a soft row is the beginning of the next.
        let soft = self.rows(width).get(row + 1).is_some_and(|next| next.start == range.end);
        let mut used = 0;
        let mut last = range.start;
        for (start, grapheme) in self.text[range.clone()].grapheme_indices(true) {
            last = range.start + start;
            used += cells(grapheme);
            if used > column {
                return last;
            }
        }
        if soft { last } else { range.end }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_are_edited_whole() {
        let mut input = Input::of("a");
        input.insert("e");
        input.insert("\u{301}");
        input.insert("👨\u{200d}👩\u{200d}👧");
        input.insert("汉");
        assert_eq!(input.position(20), (0, 1 + 1 + 2 + 2));
        input.left();
        input.backspace();
        assert_eq!(input.text(), "ae\u{301}汉");
        input.backspace();
        assert_eq!(input.text(), "a汉");
        input.delete();
        assert_eq!(input.text(), "a");
        // A mark before which nothing stands, then one that joins the letter before it.
        let mut input = Input::of("ab");
        input.left();
        input.insert("\u{301}");
        input.insert("x");
        assert_eq!(input.text(), "a\u{301}xb");
        // A letter before one: the cursor goes behind both.
        let mut input = Input::of("\u{301}b");
        input.home();
        input.insert("e");
        assert_eq!(input.before(), "e\u{301}");
    }

    #[test]
    fn a_wide_character_at_every_column() {
        for width in 4..20 {
            for n in 0..40 {
                let mut input = Input::of(&"x".repeat(n));
                input.insert("汉");
                let (row, column) = input.position(width);
                let rows = input.rows(width).len();
                assert!(column < width && row < rows, "{n} in {width}: {row} {column}");
                input.left();
                let (_, before) = input.position(width);
                assert!(before + 2 < width + 1, "the character is whole: {n} in {width}");
            }
        }
    }

    #[test]
    fn up_and_down_keep_the_column() {
        let mut input = Input::of("床前明月光\nab\n疑是地上霜");
        assert_eq!(input.position(20), (2, 10));
        assert!(input.vertical(true, 20));
        assert_eq!(input.position(20), (1, 2));
        assert!(input.vertical(true, 20));
        assert_eq!(input.position(20), (0, 10));
        assert!(!input.vertical(true, 20));
        input.click(0, 3, 20);
        assert_eq!(input.position(20), (0, 2), "the cluster that covers the column");
        // Through soft rows.
        let mut input = Input::of("abcdefgh");
        input.click(0, 9, 5);
        assert_eq!(input.position(5), (0, 3));
        assert!(input.vertical(false, 5));
        assert_eq!(input.position(5), (1, 3));
    }

    #[test]
    fn kill_yank_undo_redo() {
        let mut input = Input::of("one two\nthree");
        input.kill_word();
        assert_eq!(input.text(), "one two\n");
        input.kill_to_start();
        assert_eq!(input.text(), "one two");
        input.home();
        input.kill_to_end();
        assert_eq!(input.text(), "");
        input.yank();
        input.yank();
        assert_eq!(input.text(), "one twoone two");
        for expected in ["one two", "", "one two", "one two\n", "one two\nthree"] {
            input.undo();
            assert_eq!(input.text(), expected);
        }
        input.undo();
        assert_eq!(input.text(), "one two\nthree");
        input.redo();
        input.redo();
        assert_eq!(input.text(), "one two");
        // Typing is one step.
        let mut input = Input::default();
        "床前".chars().for_each(|c| input.insert(&c.to_string()));
        input.undo();
        assert_eq!(input.text(), "");
        assert_eq!(Input::of("床前明月").take(), "床前明月");
    }
}
