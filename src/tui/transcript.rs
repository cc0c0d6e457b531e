//! The pane of the conversation. Rows are made once and kept: a frame costs the rows it shows, however long
//! the conversation is.

use super::interface::Ui;
use super::live::Live;
use super::look::Look;
use super::markdown;
use super::worker::Talk;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Scrollbar, ScrollbarOrientation, ScrollbarState, StatefulWidget};

/// Rows that a question may have before it is folded, and those that are left then.
const FOLD: (usize, usize) = (16, 6);

/// What the rows were made for; all are made again when it changes.
#[derive(Clone, Copy)]
pub struct Made {
    /// Cells of a row.
    pub cells: usize,
    /// Language, colours and glyphs.
    pub ui: Ui,
    /// Answers as they are.
    pub raw: bool,
}

impl PartialEq for Made {
    fn eq(&self, other: &Self) -> bool {
        let key = |made: &Self| (made.cells, made.ui.look, made.ui.lang, made.raw);
        key(self) == key(other)
    }
}

/// The rows of a conversation.
#[derive(Default)]
pub struct Transcript {
    made: Option<Made>,
    /// Rows of each turn.
    blocks: Vec<Vec<Line<'static>>>,
    /// Where each block begins, and the end of the last.
    starts: Vec<usize>,
    live: Growing,
    /// The first row on the screen; `None` follows the end.
    top: Option<usize>,
    /// Long questions are shown whole.
    unfolded: bool,
    height: usize,
}

/// Rows of an answer that grows: those of its finished part are kept.
#[derive(Default)]
struct Growing {
    question: Vec<Line<'static>>,
    /// Bytes of the finished part.
    finished: usize,
    done: Vec<Line<'static>>,
    tail: Vec<Line<'static>>,
    /// Bytes that the rows show.
    shown: Option<usize>,
}

impl Growing {
    fn len(&self) -> usize {
        self.question.len() + self.done.len() + self.tail.len()
    }

    fn row(&self, at: usize) -> Option<&Line<'static>> {
        let rows = self.question.iter().chain(&self.done).chain(&self.tail);
        rows.clone().nth(at)
    }
}

impl Transcript {
    /// Forgets the rows of turn `first` and those after it.
    pub fn changed_from(&mut self, first: usize) {
        self.blocks.truncate(first);
    }

    /// Forgets the rows of the answer that grew.
    pub fn live_ended(&mut self) {
        self.live = Growing::default();
    }

    /// Makes the rows that are missing, for a pane of `height` rows.
    pub fn prepare(&mut self, talk: &Talk, live: Option<&Live>, made: Made, height: usize) {
        if self.made != Some(made) {
            // The row at the top stays near it.
            let share = self.top.map(|top| (top as f64, self.len().max(1) as f64));
            self.blocks.clear();
            self.live = Growing::default();
            self.made = Some(made);
            self.fill(talk, live, made);
            self.top = share.map(|(top, len)| (top / len * self.len() as f64) as usize);
        } else {
            self.fill(talk, live, made);
        }
        self.height = height;
        if self.top.is_some_and(|top| top + height >= self.len()) {
            self.top = None;
        }
    }

    fn fill(&mut self, talk: &Talk, live: Option<&Live>, made: Made) {
        let shown = live.map_or(talk.turns.len(), |live| live.shown_before(&talk.turns));
        self.blocks.truncate(shown);
        for (index, turn) in talk.turns[..shown].iter().enumerate().skip(self.blocks.len()) {
            let mut rows = self.question(&turn.question, made);
            rows.extend(answer_rows(&turn.answer, made));
            if turn.is_empty() {
                rows.push(Line::styled(made.ui.words.no_answer, made.ui.look.dim()));
            }
            if let Some(note) = (made.ui.words.stop)(turn.stop) {
                rows.push(Line::styled(format!("[{note}]"), made.ui.look.dim()));
            }
            rows.push(Line::default());
            if index + 1 == talk.dropped {
                rows.extend(dropped_mark(talk.dropped, made));
            }
            self.blocks.push(rows);
        }
        self.starts.clear();
        self.starts.push(0);
        for block in &self.blocks {
            self.starts.push(self.starts.last().copied().unwrap_or(0) + block.len());
        }
        match live {
            Some(live) => self.grow(live, made),
            None => self.live = Growing::default(),
        }
    }

    fn grow(&mut self, live: &Live, made: Made) {
        if self.live.shown.is_none() {
            self.live.question = self.question(&live.question, made);
            self.live.question.push(name(made.ui.words.model, made.ui.look.model()));
        }
        if self.live.shown == Some(live.text.len()) {
            return;
        }
        self.live.shown = Some(live.text.len());
        let open = &live.text[self.live.finished..];
        let cut = if made.raw { open.rfind('\n').map_or(0, |at| at + 1) } else { markdown::finished(open) };
        if cut > 0 {
            let mut rows = body(&open[..cut], made);
            if !made.raw && !rows.is_empty() {
                rows.push(Line::default());
            }
            self.live.done.extend(rows);
            self.live.finished += cut;
        }
        self.live.tail = body(&live.text[self.live.finished..], made);
        if live.text.is_empty() {
            self.live.tail = vec![Line::styled(made.ui.words.waiting, made.ui.look.dim())];
        }
    }

    fn question(&self, text: &str, made: Made) -> Vec<Line<'static>> {
        let mut rows = vec![name(made.ui.words.you, made.ui.look.user())];
        let mut said = markdown::plain(text.trim_end(), made.cells, Style::new());
        if said.len() > FOLD.0 && !self.unfolded {
            let more = said.len() - FOLD.1;
            said.truncate(FOLD.1);
            let note = (made.ui.words.folded)(more);
            said.push(Line::styled(note, made.ui.look.dim()));
        }
        rows.extend(said);
        rows.push(Line::default());
        rows
    }

    /// Rows there are.
    pub fn len(&self) -> usize {
        self.starts.last().copied().unwrap_or(0) + self.live.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first row on the screen.
    pub fn first(&self) -> usize {
        self.top.unwrap_or_else(|| self.len().saturating_sub(self.height))
    }

    /// Whether the end is on the screen and stays there.
    pub fn follows(&self) -> bool {
        self.top.is_none()
    }

    /// Scrolls by rows, up if negative.
    pub fn scroll(&mut self, rows: isize) {
        let last = self.len().saturating_sub(self.height);
        let top = self.first().saturating_add_signed(rows).min(last);
        self.top = (top < last).then_some(top);
    }

    /// Scrolls by pages, up if negative; a row of the old page stays.
    pub fn page(&mut self, pages: isize) {
        self.scroll(pages * self.height.saturating_sub(1).max(1) as isize);
    }

    /// Scrolls to the beginning.
    pub fn to_top(&mut self) {
        self.scroll(isize::MIN / 2);
    }

    /// Scrolls to the end, and follows it.
    pub fn to_end(&mut self) {
        self.top = None;
    }

    /// Shows long questions whole, or folds them.
    pub fn unfold(&mut self) {
        self.unfolded = !self.unfolded;
        self.made = None;
    }

    fn row(&self, at: usize) -> Option<&Line<'static>> {
        let block = self.starts.partition_point(|&start| start <= at) - 1;
        match self.blocks.get(block) {
            Some(rows) => rows.get(at - self.starts[block]),
            None => self.live.row(at - self.starts.last()?),
        }
    }

    /// Shows the rows, with a bar at the right when there are more.
    pub fn render(&self, area: Rect, buffer: &mut Buffer, look: Look) {
        let first = self.first();
        for y in 0..area.height {
            if let Some(row) = self.row(first + usize::from(y)) {
                buffer.set_line(area.x, area.y + y, row, area.width.saturating_sub(1));
            }
        }
        let (len, height) = (self.len(), usize::from(area.height));
        if len > height && area.width > 0 && height > 0 {
            let bar = Scrollbar::new(ScrollbarOrientation::VerticalRight)
                .begin_symbol(None)
                .end_symbol(None)
                .track_symbol(Some(look.side()))
                .track_style(look.dim())
                .thumb_symbol(" ")
                .thumb_style(look.bar());
            // Positions that the first row can have, not rows: the thumb reaches the end with the last of
            // them.
            let mut state =
                ScrollbarState::new(len - height + 1).position(first).viewport_content_length(height);
            bar.render(area, buffer, &mut state);
        }
    }
}

fn name(text: &'static str, style: Style) -> Line<'static> {
    Line::from(Span::styled(text, style))
}

fn body(text: &str, made: Made) -> Vec<Line<'static>> {
    if made.raw {
        markdown::plain(text.trim_end(), made.cells, Style::new())
    } else {
        markdown::rows(text, made.cells, made.ui.look)
    }
}

fn answer_rows(text: &str, made: Made) -> Vec<Line<'static>> {
    let mut rows = vec![name(made.ui.words.model, made.ui.look.model())];
    if !text.is_empty() {
        rows.extend(body(text, made));
    }
    rows
}

/// What stands between the turns that the model no longer sees and those that it does.
fn dropped_mark(turns: usize, made: Made) -> Vec<Line<'static>> {
    let text = (made.ui.words.dropped_above)(turns);
    let mut rows = markdown::plain(&text, made.cells, made.ui.look.note());
    rows.push(Line::styled(made.ui.look.rule().repeat(made.cells.min(60)), made.ui.look.note()));
    rows
}
