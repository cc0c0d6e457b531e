//! The pane of the conversations.

use super::app::App;
use super::event::Effect;
use super::input::Input;
use super::look::Lang;
use super::panels::{Panel, both_ends, edit, line, list, place, window};
use super::text::{fit, one_line};
use super::update::is_switching;
use super::worker::{DeskTask, ModelTask};
use crate::session::store::Entry;
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use jiff::ZonedDateTime;
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::style::Style;
use ratatui::text::Line;
use std::time::Instant;

/// The pane.
#[derive(Default)]
pub struct Talks {
    /// What is searched for.
    pub search: Input,
    /// The row that is chosen.
    pub at: usize,
    /// The conversation in it: it stays chosen when the list is another one.
    name: Option<String>,
    /// The first row shown.
    pub first: usize,
    /// Its new title, while it is typed.
    pub renaming: Option<Input>,
    /// What is said in the conversations is being searched: those shown are found by their titles.
    pub searching: bool,
}

impl Talks {
    /// Chooses a row.
    pub fn choose(&mut self, at: usize, talks: &[Entry]) {
        self.at = at.min(talks.len().saturating_sub(1));
        self.name = talks.get(self.at).map(|entry| entry.name.clone());
    }

    /// Chooses a conversation, which may not be in the list yet.
    pub fn choose_name(&mut self, name: String) {
        self.name = Some(name);
    }

    /// What is searched for, without spaces around it.
    fn text(&self) -> &str {
        self.search.text().trim()
    }

    /// The list is another one.
    fn relisted(&mut self, talks: &[Entry]) {
        self.searching = false;
        let place = talks.iter().position(|entry| Some(&entry.name) == self.name.as_ref());
        if place.is_none() {
            self.renaming = None;
        }
        self.choose(place.unwrap_or(self.at), talks);
    }
}

/// Opens the pane.
pub fn open(app: &mut App) -> Vec<Effect> {
    app.panel = Some(Panel::Talks(Talks::default()));
    relist(app)
}

/// Asks for the list that the pane shows, if it is open.
pub fn relist(app: &App) -> Vec<Effect> {
    match &app.panel {
        Some(Panel::Talks(state)) => vec![Effect::Desk(DeskTask::List(state.text().to_owned()))],
        _ => Vec::new(),
    }
}

/// What is searched for is another text: the first of what is found is chosen. Titles are known at once; what does not
/// hold it is never shown, and so nothing is done to it.
pub fn searched(app: &mut App) -> Vec<Effect> {
    if let Some(Panel::Talks(state)) = &mut app.panel {
        let text = state.text();
        app.talks.retain(|entry| entry.is_titled(text));
        state.searching = true;
        // It stays so when others come before it.
        state.choose(0, &app.talks);
    }
    relist(app)
}

/// Takes the conversations that hold `text`, unless something else is searched for by now.
pub fn listed(app: &mut App, text: &str, talks: Vec<Entry>) {
    match &mut app.panel {
        Some(Panel::Talks(state)) if state.text() == text => {
            app.talks = talks;
            state.relisted(&app.talks);
        }
        _ => {}
    }
}

/// Takes a key.
pub fn key(app: &mut App, key: KeyEvent, now: Instant) -> Vec<Effect> {
    let Some(Panel::Talks(state)) = &mut app.panel else { return Vec::new() };
    let entry = app.talks.get(state.at);
    if let Some(input) = &mut state.renaming {
        match key.code {
            KeyCode::Esc => state.renaming = None,
            KeyCode::Enter => {
                let title = one_line(input.text());
                state.renaming = None;
                return rename(app, title, now);
            }
            _ => {
                edit(input, key);
            }
        }
        return Vec::new();
    }
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        KeyCode::Esc if !state.search.is_empty() => {
            state.search = Input::default();
            return searched(app);
        }
        KeyCode::Esc | KeyCode::F(3) => app.panel = None,
        KeyCode::Up => state.choose(state.at.saturating_sub(1), &app.talks),
        KeyCode::Down => state.choose(state.at + 1, &app.talks),
        KeyCode::PageUp => state.choose(state.at.saturating_sub(10), &app.talks),
        KeyCode::PageDown => state.choose(state.at + 10, &app.talks),
        KeyCode::Enter => {
            if let Some(entry) = entry {
                let name = entry.name.clone();
                app.panel = None;
                // The one that is open stays as it is, an answer on its way included.
                if app.talk.name.as_ref() != Some(&name) || app.switching > 0 {
                    return switch(app, ModelTask::Open(name));
                }
            }
        }
        KeyCode::Delete => return delete(app, now),
        KeyCode::Char('d') if control => return delete(app, now),
        // In a line that is not empty it clears the line, as everywhere.
        KeyCode::Char(c) if control && (c == 'z' || c == 'u' && state.search.is_empty()) => {
            return vec![Effect::Desk(DeskTask::Undelete(app.trashed.last().cloned()))];
        }
        KeyCode::F(6) => rename_chosen(state, &app.talks),
        KeyCode::Char('r') if control => rename_chosen(state, &app.talks),
        KeyCode::Char('n') if control => {
            app.panel = None;
            return switch(app, ModelTask::New);
        }
        _ => {
            let before = state.search.text().to_owned();
            if edit(&mut state.search, key) && state.search.text() != before {
                return searched(app);
            }
        }
    }
    Vec::new()
}

/// Begins a new title for the conversation that is chosen, which then stays so.
fn rename_chosen(state: &mut Talks, talks: &[Entry]) {
    state.choose(state.at, talks);
    state.renaming = talks.get(state.at).map(|entry| Input::of(&entry.title));
}

/// Whether the conversation that is chosen is the open one; then it is the model's thread that writes it.
fn is_open(app: &App, entry: &Entry) -> bool {
    app.talk.name.as_ref() == Some(&entry.name)
}

/// Gives the conversation that is chosen another title.
fn rename(app: &mut App, title: String, now: Instant) -> Vec<Effect> {
    let Some(Panel::Talks(Talks { at, .. })) = app.panel else { return Vec::new() };
    let Some(entry) = app.talks.get(at).filter(|_| !title.is_empty()) else { return Vec::new() };
    let open = is_open(app, entry);
    if open && is_switching(app, now) {
        return Vec::new();
    }
    app.talks[at].title.clone_from(&title);
    if open {
        return vec![Effect::Work(ModelTask::Rename(title))];
    }
    let mut effects = vec![Effect::Desk(DeskTask::Rename(app.talks[at].name.clone(), title))];
    effects.extend(relist(app));
    effects
}

/// Throws the conversation that is chosen away.
fn delete(app: &mut App, now: Instant) -> Vec<Effect> {
    let Some(Panel::Talks(Talks { at, .. })) = app.panel else { return Vec::new() };
    let Some(entry) = app.talks.get(at) else { return Vec::new() };
    let open = is_open(app, entry);
    if open && is_switching(app, now) {
        return Vec::new();
    }
    let entry = app.talks.remove(at);
    if let Some(Panel::Talks(state)) = &mut app.panel {
        state.choose(at, &app.talks);
    }
    match open {
        true => switch(app, ModelTask::Delete),
        false => vec![Effect::Desk(DeskTask::Delete(entry.name))],
    }
}

/// Puts another conversation on the screen; an answer on its way ends, and what was said of it stays with its own.
pub fn switch(app: &mut App, work: ModelTask) -> Vec<Effect> {
    app.stop();
    app.leave_editing();
    app.transcript.to_end();
    // It was about the other one.
    app.flash = None;
    app.switching += 1;
    vec![Effect::Work(work)]
}

/// The window's place.
pub fn window_place(screen: Rect) -> Rect {
    place(screen, 76, screen.height.min(24))
}

/// Where the list is.
pub fn list_place(screen: Rect) -> Rect {
    let area = window_place(screen);
    Rect {
        x: area.x + 2,
        y: area.y + 3,
        width: area.width.saturating_sub(4),
        height: area.height.saturating_sub(4),
    }
}

/// Shows the pane.
pub fn render(app: &App, state: &Talks, screen: Rect, buffer: &mut Buffer) -> Option<Position> {
    let look = app.look();
    let area = window_place(screen);
    let hint = match (&state.renaming, !app.trashed.is_empty()) {
        (Some(_), _) => app.say("Enter renames, Esc leaves it", "Enter 改名，Esc 取消"),
        (None, _) if !state.search.is_empty() => app.say(
            "Enter open, Ctrl+R rename, Del delete, Esc clears the search",
            "Enter 打开，Ctrl+R 改名，Del 删除，Esc 清除搜索",
        ),
        (None, true) => app.say("Ctrl+Z brings back what was deleted", "Ctrl+Z 恢复已删除的对话"),
        (None, false) => app.say(
            "Enter open, Ctrl+R rename, Del delete, Esc close",
            "Enter 打开，Ctrl+R 改名，Del 删除，Esc 关闭",
        ),
    };
    let inner = window(area, app.say("Conversations", "对话"), hint, look, buffer);
    let label = app.say("Search: ", "搜索：");
    let cells = super::text::width(label) as u16;
    buffer.set_string(inner.x, inner.y, label, look.dim());
    let row = Rect { x: inner.x + cells, y: inner.y, width: inner.width.saturating_sub(cells), height: 1 };
    let cursor = line(&state.search, row, Style::new(), buffer);
    let inside = list_place(screen);
    let searching = app.say("searching ...", "正在搜索……");
    if app.talks.is_empty() {
        let none = if state.searching { searching } else { app.say("none", "没有对话") };
        buffer.set_string(inside.x, inside.y, none, look.dim());
        return Some(cursor);
    }
    if state.searching {
        // Between what is searched for and what is found already.
        buffer.set_string(inside.x, inside.y - 1, fit(searching, usize::from(inside.width)), look.dim());
    }
    let at = state.at.min(app.talks.len() - 1);
    let now = ZonedDateTime::now();
    let rows: Vec<Line<'_>> = app
        .talks
        .iter()
        .skip(state.first)
        .take(usize::from(inside.height))
        .map(|entry| {
            let mark = if is_open(app, entry) { "* " } else { "  " };
            let then = ZonedDateTime::try_from(entry.modified).unwrap_or_else(|_| now.clone());
            let title = format!("{mark}{}", one_line(&entry.title));
            both_ends(
                &title,
                &when(&then, &now, app.lang()),
                usize::from(inside.width),
                [Style::new(), look.dim()],
            )
        })
        .collect();
    list(&rows, (0, at.checked_sub(state.first)), inside, look, buffer);
    let Some(input) = &state.renaming else { return Some(cursor) };
    let y = inside.y + at.saturating_sub(state.first) as u16;
    for x in inside.left()..inside.right() {
        buffer[(x, y)].reset();
    }
    Some(line(
        input,
        Rect { x: inside.x + 2, y, width: inside.width.saturating_sub(2), height: 1 },
        Style::new(),
        buffer,
    ))
}

/// When something was, for a person: how long ago, or the day where that is not today's.
fn when(then: &ZonedDateTime, now: &ZonedDateTime, lang: Lang) -> String {
    let seconds = now.duration_since(then).as_secs().max(0);
    let days = (now.date() - then.date()).get_days();
    let time = then.strftime("%H:%M");
    match lang {
        _ if seconds < 60 => lang.of("just now", "刚刚").into(),
        Lang::En if seconds < 3600 => format!("{} min ago", seconds / 60),
        Lang::Zh if seconds < 3600 => format!("{} 分钟前", seconds / 60),
        // Late in the evening it is not yet yesterday's.
        Lang::En if days == 0 || seconds < 6 * 3600 => format!("{} h ago", seconds / 3600),
        Lang::Zh if days == 0 || seconds < 6 * 3600 => format!("{} 小时前", seconds / 3600),
        _ if days == 1 => format!("{} {time}", lang.of("yesterday", "昨天")),
        _ if then.year() == now.year() => then.strftime("%m-%d %H:%M").to_string(),
        _ => then.strftime("%Y-%m-%d").to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert_eq!([when(&then, &now, Lang::En), when(&then, &now, Lang::Zh)], [en, zh]);
        }
        let night: ZonedDateTime = "2026-11-28T00:30[Asia/Shanghai]".parse().unwrap();
        let then = "2026-11-27T22:30[Asia/Shanghai]".parse().unwrap();
        assert_eq!(when(&then, &night, Lang::Zh), "2 小时前");
    }
}
