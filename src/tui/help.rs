//! The pane that lists the keys.

use super::app::App;
use super::event::Effect;
use super::keys::{BINDINGS, shown};
use super::markdown::plain;
use super::panels::{Panel, inside, place, window};
use super::text::fit;
use crossterm::event::{KeyCode, KeyEvent};
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::text::{Line, Span};

/// Below this keys and what they do stand in two rows.
const NARROW: usize = 60;

/// Takes a key.
pub fn key(app: &mut App, key: KeyEvent) -> Vec<Effect> {
    let screen = Rect { x: 0, y: 0, width: app.size.0, height: app.size.1 };
    let inner = inside(window_place(screen));
    // The rows on the screen, and the last of them that may be the first there.
    let height = usize::from(inner.height);
    let last = rows(app, usize::from(inner.width)).len().saturating_sub(height);
    let page = height.saturating_sub(1).max(1);
    if let Some(Panel::Help(top)) = &mut app.panel {
        // The window may have grown since.
        *top = (*top).min(last);
        match key.code {
            KeyCode::Up | KeyCode::Char('k') => *top = top.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => *top = (*top + 1).min(last),
            KeyCode::PageUp => *top = top.saturating_sub(page),
            KeyCode::PageDown | KeyCode::Char(' ') => *top = (*top + page).min(last),
            KeyCode::Home => *top = 0,
            KeyCode::End => *top = last,
            KeyCode::Esc | KeyCode::Enter | KeyCode::F(1) | KeyCode::Char(_) => app.panel = None,
            _ => {}
        }
    }
    Vec::new()
}

fn rows(app: &App, cells: usize) -> Vec<Line<'static>> {
    let (lang, look) = (app.lang(), app.look());
    let mut rows = Vec::new();
    let column = BINDINGS.iter().map(|b| shown(b, &app.prefs, lang).0.len()).max().unwrap_or(0) + 2;
    for binding in BINDINGS {
        let (keys, what) = shown(binding, &app.prefs, lang);
        if cells >= NARROW {
            rows.push(Line::from(vec![
                Span::styled(format!("{keys:<column$}"), look.code()),
                Span::raw(fit(what, cells.saturating_sub(column)).into_owned()),
            ]));
        } else {
            rows.push(Line::styled(keys, look.code()));
            rows.push(Line::raw(format!("  {}", fit(what, cells.saturating_sub(2)))));
        }
    }
    rows.push(Line::default());
    let text = lang.of(
        "The terminal cursor stands where the text goes, so that an input method shows its candidates there. \
         Commands for terminals without these keys: /help /new /retry /undo /edit /copy /attach FILE /export [FILE] \
         /list /settings /set KEY VALUE /model /private /raw /lang /quit; // begins a message with a slash. \
         Shift and the mouse select text as the terminal does.",
        "终端光标始终在输入位置，输入法的候选框也在那里。没有这些按键的终端可用命令：/help /new /retry /undo /edit /copy \
         /attach 文件 /export [文件] /list /settings /set 名称 值 /model /private /raw /lang /quit；以 // 开头发送以斜杠\
         开头的消息。按住 Shift 用鼠标可像平常一样选择文字。",
    );
    rows.extend(plain(text, cells, look.dim()));
    rows
}

/// The window's place.
pub fn window_place(screen: Rect) -> Rect {
    place(screen, 84, screen.height)
}

/// Shows the pane.
pub fn render(app: &App, top: usize, screen: Rect, buffer: &mut Buffer) -> Option<Position> {
    let area = window_place(screen);
    let (title, hint) =
        (app.say("Help", "帮助"), app.say("Up Down scroll, Esc closes", "上下滚动，Esc 关闭"));
    let inner = window(area, title, hint, app.look(), buffer);
    let rows = rows(app, usize::from(inner.width));
    let top = top.min(rows.len().saturating_sub(usize::from(inner.height)));
    for (y, row) in rows.iter().skip(top).take(usize::from(inner.height)).enumerate() {
        buffer.set_line(inner.x, inner.y + y as u16, row, inner.width);
    }
    None
}
