//! The pane of the conversations.

use super::input::Input;
use super::interface::Ui;
use super::text::{fit, one_line, width};
use super::widgets::{both_ends, edit, first_of, line, list, place, window};
use super::words::Words;
use crate::session::store::Entry;
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use jiff::ZonedDateTime;
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::style::Style;
use ratatui::text::Line;

/// The conversations on disk, as far as they are known.
#[derive(Default)]
pub struct TalkList {
    entries: Vec<Entry>,
    /// Those that were thrown away in this run, the last at the end.
    trashed: Vec<String>,
}

impl TalkList {
    /// The conversations, the latest first.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Whether one was thrown away that can be brought back.
    pub fn has_trashed(&self) -> bool {
        !self.trashed.is_empty()
    }

    /// One was thrown away, under this name in the trash.
    pub fn trashed(&mut self, name: String) {
        self.trashed.push(name);
    }

    /// That one is back.
    pub fn restored(&mut self, name: &str) {
        self.trashed.retain(|other| other != name);
    }

    /// Gives an entry another title.
    pub fn rename(&mut self, name: &str, title: &str) {
        for entry in self.entries.iter_mut().filter(|entry| entry.name == name) {
            title.clone_into(&mut entry.title);
        }
    }

    /// Takes an entry out.
    pub fn remove(&mut self, name: &str) {
        self.entries.retain(|entry| entry.name != name);
    }
}

/// The pane.
#[derive(Default)]
pub struct TalksPane {
    search: Input,
    /// The row that is chosen.
    at: usize,
    /// The conversation in it: it stays chosen when the list is another one.
    name: Option<String>,
    /// The first row shown.
    first: usize,
    /// Its new title, while it is typed.
    renaming: Option<Input>,
    /// The texts of the conversations are being searched: those shown are found by their titles.
    searching: bool,
}

/// What a key or a click did.
#[derive(Debug, PartialEq)]
pub enum TalksOutcome {
    /// The pane stays.
    Stay,
    /// It closes.
    Close,
    /// It closes: open this one.
    Open(String),
    /// It closes: begin a new one.
    New,
    /// Something else is searched for.
    Search,
    /// Give the first another title.
    Rename(String, String),
    /// Throw this one away.
    Delete(String),
    /// Bring back what was thrown away last: in this run, or else in an earlier one.
    Undelete(Option<String>),
}

impl TalksPane {
    /// What is searched for, without spaces around it.
    pub fn text(&self) -> &str {
        self.search.text().trim()
    }

    /// Chooses a row.
    fn choose(&mut self, at: usize, entries: &[Entry]) {
        self.at = at.min(entries.len().saturating_sub(1));
        self.name = entries.get(self.at).map(|entry| entry.name.clone());
    }

    /// Chooses a conversation, which may not be in the list yet.
    pub fn choose_name(&mut self, name: String) {
        self.name = Some(name);
    }

    /// An entry was taken out of the list: the one in its row is chosen.
    pub fn removed(&mut self, list: &TalkList) {
        self.choose(self.at, &list.entries);
    }

    /// What is searched for is another text: the first of what is found is chosen. Titles are known at once;
    /// an entry that does not match is never shown, and so nothing is done to it.
    fn searched(&mut self, list: &mut TalkList) -> TalksOutcome {
        let text = self.search.text().trim();
        list.entries.retain(|entry| entry.is_titled(text));
        self.searching = true;
        // It stays chosen when others come before it.
        self.choose(0, &list.entries);
        TalksOutcome::Search
    }

    /// Takes the conversations that hold `text`, unless something else is searched for by now.
    pub fn listed(&mut self, text: &str, entries: Vec<Entry>, list: &mut TalkList) {
        if self.text() != text {
            return;
        }
        self.searching = false;
        let place = entries.iter().position(|entry| Some(&entry.name) == self.name.as_ref());
        if place.is_none() {
            self.renaming = None;
        }
        self.choose(place.unwrap_or(self.at), &entries);
        list.entries = entries;
    }

    /// Takes a key.
    pub fn key(&mut self, key: KeyEvent, list: &mut TalkList) -> TalksOutcome {
        if let Some(input) = &mut self.renaming {
            match key.code {
                KeyCode::Esc => self.renaming = None,
                KeyCode::Enter => {
                    let title = one_line(input.text());
                    self.renaming = None;
                    if let Some(entry) = list.entries.get(self.at).filter(|_| !title.is_empty()) {
                        return TalksOutcome::Rename(entry.name.clone(), title);
                    }
                }
                _ => drop(edit(input, key)),
            }
            return TalksOutcome::Stay;
        }
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Esc if !self.search.is_empty() => {
                self.search = Input::default();
                return self.searched(list);
            }
            KeyCode::Esc | KeyCode::F(3) => return TalksOutcome::Close,
            KeyCode::Up => self.choose(self.at.saturating_sub(1), &list.entries),
            KeyCode::Down => self.choose(self.at + 1, &list.entries),
            KeyCode::PageUp => self.choose(self.at.saturating_sub(10), &list.entries),
            KeyCode::PageDown => self.choose(self.at + 10, &list.entries),
            KeyCode::Enter => {
                if let Some(entry) = list.entries.get(self.at) {
                    return TalksOutcome::Open(entry.name.clone());
                }
            }
            KeyCode::Delete => return self.delete(list),
            KeyCode::Char('d') if control => return self.delete(list),
            // In a line that is not empty Ctrl+U clears the line, as everywhere.
            KeyCode::Char(c) if control && (c == 'z' || c == 'u' && self.search.is_empty()) => {
                return TalksOutcome::Undelete(list.trashed.last().cloned());
            }
            KeyCode::F(6) => self.rename(list),
            KeyCode::Char('r') if control => self.rename(list),
            KeyCode::Char('n') if control => return TalksOutcome::New,
            _ => {
                let before = self.search.text().to_owned();
                if edit(&mut self.search, key) && self.search.text() != before {
                    return self.searched(list);
                }
            }
        }
        TalksOutcome::Stay
    }

    /// Begins a new title for the conversation that is chosen, which then stays so.
    fn rename(&mut self, list: &TalkList) {
        self.choose(self.at, &list.entries);
        self.renaming = list.entries.get(self.at).map(|entry| Input::of(&entry.title));
    }

    fn delete(&self, list: &TalkList) -> TalksOutcome {
        let name = list.entries.get(self.at).map(|entry| entry.name.clone());
        name.map_or(TalksOutcome::Stay, TalksOutcome::Delete)
    }

    /// Takes a pasted text.
    pub fn paste(&mut self, text: &str, list: &mut TalkList) -> TalksOutcome {
        let text = one_line(text);
        if let Some(input) = &mut self.renaming {
            input.insert(&text);
            return TalksOutcome::Stay;
        }
        self.search.insert(&text);
        self.searched(list)
    }

    /// Takes a click: it chooses a row, and opens the one that is chosen.
    pub fn click(&mut self, at: Position, screen: Rect, list: &mut TalkList) -> TalksOutcome {
        let place = list_place(screen);
        if self.renaming.is_none() && place.contains(at) {
            let row = self.first + usize::from(at.y - place.y);
            if row == self.at {
                return self.key(KeyCode::Enter.into(), list);
            }
            self.choose(row, &list.entries);
        }
        TalksOutcome::Stay
    }

    /// Moves the list so that the row that is chosen can be seen.
    pub fn prepare(&mut self, screen: Rect, list: &TalkList) {
        self.first = first_of(self.first, self.at, list.entries.len(), list_place(screen).height);
    }

    /// Shows the pane; gives where the cursor stands. `open` is the name of the open conversation.
    pub fn render(
        &self,
        talks: &TalkList,
        open: Option<&str>,
        ui: Ui,
        screen: Rect,
        buffer: &mut Buffer,
    ) -> Option<Position> {
        let Ui { words, look, .. } = ui;
        let keys = match (&self.renaming, talks.has_trashed()) {
            (Some(_), _) => words.talks_keys_renaming,
            (None, _) if !self.search.is_empty() => words.talks_keys_searching,
            (None, true) => words.talks_keys_deleted,
            (None, false) => words.talks_keys,
        };
        let inner = window(window_place(screen), words.conversations, keys, look, buffer);
        let cells = width(words.search) as u16;
        buffer.set_string(inner.x, inner.y, words.search, look.dim());
        let row =
            Rect { x: inner.x + cells, y: inner.y, width: inner.width.saturating_sub(cells), height: 1 };
        let cursor = line(&self.search, row, Style::new(), buffer);
        let inside = list_place(screen);
        if talks.entries.is_empty() {
            let none = if self.searching { words.searching } else { words.no_conversations };
            buffer.set_string(inside.x, inside.y, none, look.dim());
            return Some(cursor);
        }
        if self.searching {
            // Between what is searched for and what is found already.
            let text = fit(words.searching, usize::from(inside.width));
            buffer.set_string(inside.x, inside.y - 1, text, look.dim());
        }
        let at = self.at.min(talks.entries.len() - 1);
        let now = ZonedDateTime::now();
        let shown = talks.entries.iter().skip(self.first).take(usize::from(inside.height));
        let rows: Vec<Line<'_>> = shown
            .map(|entry| {
                let mark = if open == Some(&entry.name) { "* " } else { "  " };
                let then = ZonedDateTime::try_from(entry.modified).unwrap_or_else(|_| now.clone());
                let title = format!("{mark}{}", one_line(&entry.title));
                let styles = [Style::new(), look.dim()];
                both_ends(&title, &when(&then, &now, words), usize::from(inside.width), styles)
            })
            .collect();
        list(rows, (0, at.checked_sub(self.first)), inside, look, buffer);
        let Some(input) = &self.renaming else { return Some(cursor) };
        let y = inside.y + at.saturating_sub(self.first) as u16;
        for x in inside.left()..inside.right() {
            buffer[(x, y)].reset();
        }
        let row = Rect { x: inside.x + 2, y, width: inside.width.saturating_sub(2), height: 1 };
        Some(line(input, row, Style::new(), buffer))
    }
}

/// The window's place.
pub fn window_place(screen: Rect) -> Rect {
    place(screen, 76, screen.height.min(24))
}

/// Where the list is.
fn list_place(screen: Rect) -> Rect {
    let area = window_place(screen);
    Rect {
        x: area.x + 2,
        y: area.y + 3,
        width: area.width.saturating_sub(4),
        height: area.height.saturating_sub(4),
    }
}

/// When something was, for a person: how long ago, or the day where that is not today's.
fn when(then: &ZonedDateTime, now: &ZonedDateTime, words: &Words) -> String {
    let seconds = now.duration_since(then).as_secs().max(0);
    let days = (now.date() - then.date()).get_days();
    let time = then.strftime("%H:%M");
    match days {
        _ if seconds < 60 => words.just_now.into(),
        _ if seconds < 3600 => (words.minutes_ago)(seconds / 60),
        // What was half an hour before midnight is hours ago, not of another day.
        _ if days == 0 || seconds < 6 * 3600 => (words.hours_ago)(seconds / 3600),
        1 => format!("{} {time}", words.yesterday),
        _ if then.year() == now.year() => then.strftime("%m-%d %H:%M").to_string(),
        _ => then.strftime("%Y-%m-%d").to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::look::Lang;
    use crate::tui::words::words;

    #[test]
    fn how_long_ago_or_which_day() {
        let now: ZonedDateTime = "2026-11-28T14:00[Asia/Shanghai]".parse().unwrap();
        for (then, en, zh) in [
            ("2026-11-28T14:00:30", "just now", "刚刚"),
            ("2026-11-28T13:59:30", "just now", "刚刚"),
            ("2026-11-28T13:01", "59 min ago", "59 分钟前"),
            ("2026-11-28T00:01", "13 h ago", "13 小时前"),
            ("2026-11-27T23:59", "yesterday 23:59", "昨天 23:59"),
            ("2026-11-26T23:59", "11-26 23:59", "11-26 23:59"),
            ("2025-12-31T08:00", "2025-12-31", "2025-12-31"),
        ] {
            let then = format!("{then}[Asia/Shanghai]").parse().unwrap();
            let shown = [Lang::En, Lang::Zh].map(|lang| when(&then, &now, words(lang)));
            assert_eq!(shown, [en, zh]);
        }
        let night: ZonedDateTime = "2026-11-28T00:30[Asia/Shanghai]".parse().unwrap();
        let then = "2026-11-27T22:30[Asia/Shanghai]".parse().unwrap();
        assert_eq!(when(&then, &night, words(Lang::Zh)), "2 小时前");
    }
}
