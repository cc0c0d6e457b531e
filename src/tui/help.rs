//! The pane that lists the keys.

use super::interface::{Interface, Ui};
use super::keys::{BINDINGS, shown};
use super::markdown::plain;
use super::prefs::Prefs;
use super::text::{fit, width};
use super::widgets::{inside, place, window};
use crate::commands::CHAT_COMMANDS;
use crossterm::event::{KeyCode, KeyEvent};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Paragraph, Widget};

/// Below this keys and what they do stand in two rows.
const NARROW: usize = 60;

/// The pane.
#[derive(Default)]
pub struct HelpPane {
    /// The first row shown.
    top: usize,
}

impl HelpPane {
    /// Takes a key; whether it closes the pane.
    pub fn key(&mut self, key: KeyEvent, screen: Rect, interface: &Interface) -> bool {
        let inner = inside(window_place(screen));
        let height = usize::from(inner.height);
        let rows = rows(interface.ui(), interface.prefs(), usize::from(inner.width)).len();
        // The last row that may be the first on the screen.
        let last = rows.saturating_sub(height);
        let page = height.saturating_sub(1).max(1);
        // The window may have grown since.
        self.top = self.top.min(last);
        match key.code {
            KeyCode::Up | KeyCode::Char('k') => self.top = self.top.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => self.top = (self.top + 1).min(last),
            KeyCode::PageUp => self.top = self.top.saturating_sub(page),
            KeyCode::PageDown | KeyCode::Char(' ') => self.top = (self.top + page).min(last),
            KeyCode::Home => self.top = 0,
            KeyCode::End => self.top = last,
            KeyCode::Esc | KeyCode::Enter | KeyCode::F(1) => return true,
            _ => {}
        }
        false
    }

    /// Shows the pane.
    pub fn render(&self, interface: &Interface, screen: Rect, buffer: &mut Buffer) {
        let ui = interface.ui();
        let inner = window(window_place(screen), ui.words.help, ui.words.help_keys, ui.look, buffer);
        let rows = rows(ui, interface.prefs(), usize::from(inner.width));
        let top = self.top.min(rows.len().saturating_sub(usize::from(inner.height)));
        Paragraph::new(Text::from(rows)).scroll((top as u16, 0)).render(inner, buffer);
    }
}

fn rows(ui: Ui, prefs: &Prefs, cells: usize) -> Vec<Line<'static>> {
    let words = ui.words;
    let keys = BINDINGS.iter().map(|binding| {
        let (keys, what) = (shown(binding, prefs), (words.action)(binding.action));
        (keys.to_owned(), what)
    });
    let commands = CHAT_COMMANDS.iter().map(|row| (row.usage(ui.lang), row.help_in_tui(ui.lang)));
    let mut rows = table(keys.collect(), ui, cells);
    rows.push(Line::default());
    rows.extend(plain(words.help_text, cells, ui.look.dim()));
    rows.extend(table(commands.collect(), ui, cells));
    rows
}

/// Names, and what they do beside them, or below them where there is little room.
fn table(entries: Vec<(String, &'static str)>, ui: Ui, cells: usize) -> Vec<Line<'static>> {
    let mut rows = Vec::new();
    let column = entries.iter().map(|(name, _)| width(name)).max().unwrap_or(0) + 2;
    for (name, what) in entries {
        if cells >= NARROW {
            let gap = " ".repeat(column.saturating_sub(width(&name)));
            rows.push(Line::from(vec![
                Span::styled(name + &gap, ui.look.code()),
                Span::raw(fit(what, cells.saturating_sub(column)).into_owned()),
            ]));
        } else {
            rows.push(Line::styled(name, ui.look.code()));
            for mut row in plain(what, cells.saturating_sub(2), Style::new()) {
                row.spans.insert(0, Span::raw("  "));
                rows.push(row);
            }
        }
    }
    rows
}

/// The window's place.
pub fn window_place(screen: Rect) -> Rect {
    place(screen, 84, screen.height)
}
