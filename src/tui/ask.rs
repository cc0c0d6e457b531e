//! The pane that asks for a line, or whether it is meant.

use super::app::{App, Screen, Tone};
use super::event::Effect;
use super::export;
use super::input::Input;
use super::panels::{Panel, edit, line, place, window};
use super::worker::{Completed, DeskTask, ModelTask, path_of};
use crate::session::open::Source;
use crossterm::event::{KeyCode, KeyEvent};
use jiff::ZonedDateTime;
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::style::Style;
use std::time::Instant;

/// Ways to go on that are shown at most.
const NAMES: usize = 20;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// The file to put into the message.
    Attach,
    /// The file to export to.
    Export,
    /// The model file to open.
    Model,
    /// Whether a saved conversation is to leave nothing.
    Forget,
}

/// The pane.
pub struct Ask {
    /// What is asked for.
    pub wish: Wish,
    /// What is typed.
    pub input: Input,
}

impl Ask {
    /// Asks, with a text to begin with.
    pub fn new(wish: Wish, text: &str) -> Self {
        Self { wish, input: Input::of(text) }
    }
}

/// Takes a key.
pub fn key(app: &mut App, key: KeyEvent, now: Instant) -> Vec<Effect> {
    let Some(Panel::Ask(ask)) = &mut app.panel else { return Vec::new() };
    match (key.code, ask.wish) {
        (KeyCode::Esc, _) => app.panel = None,
        (KeyCode::Char('y' | 'Y') | KeyCode::Enter, Wish::Forget) => {
            app.panel = None;
            app.talk.private = true;
            return vec![Effect::Work(ModelTask::Private(true))];
        }
        (_, Wish::Forget) => app.panel = None,
        (KeyCode::Enter, wish) => {
            let text = ask.input.text().trim().to_owned();
            app.panel = None;
            if !text.is_empty() {
                return wish_for(app, wish, &text, now);
            }
        }
        (KeyCode::Tab, _) => return vec![Effect::Desk(DeskTask::Complete(ask.input.text().to_owned()))],
        _ => {
            edit(&mut ask.input, key);
        }
    }
    Vec::new()
}

/// Takes a path that was completed, unless something else is typed by now.
pub fn completed(app: &mut App, completed: &Completed, now: Instant) {
    if let Some(Panel::Ask(ask)) = &mut app.panel
        && ask.input.text() == completed.typed
    {
        ask.input.set(&completed.text);
        if completed.names.is_empty() && completed.text == completed.typed {
            let said = app.say("nothing else begins so", "没有更多可补全的").to_owned();
            return app.flash(said, Tone::Note, now);
        }
        if !completed.names.is_empty() && completed.text == completed.typed {
            let more = if completed.names.len() > NAMES { "  ..." } else { "" };
            let names = &completed.names[..completed.names.len().min(NAMES)];
            app.flash(names.join("  ") + more, Tone::Note, now);
        }
    }
}

/// The file that was asked for last could not be read or written: its path can be mended.
pub fn again(app: &mut App) {
    if let (None, Screen::Chat, Some((wish, text))) = (&app.panel, &app.screen, app.asked.take()) {
        app.panel = Some(Panel::Ask(Ask::new(wish, &text)));
    }
}

/// Does what was asked for with the line that was typed.
pub fn wish_for(app: &mut App, wish: Wish, text: &str, now: Instant) -> Vec<Effect> {
    let path = path_of(text);
    app.asked = matches!(wish, Wish::Attach | Wish::Export).then(|| (wish, text.to_owned()));
    match wish {
        Wish::Attach => vec![Effect::Desk(DeskTask::Attach(path))],
        Wish::Export => {
            vec![Effect::Desk(DeskTask::Export(path, export::markdown(app, &ZonedDateTime::now())))]
        }
        Wish::Model => vec![app.load(Source::File(path), now)],
        Wish::Forget => Vec::new(),
    }
}

/// The window's place.
pub fn window_place(screen: Rect) -> Rect {
    place(screen, 64, 5)
}

/// Shows the pane.
pub fn render(app: &App, state: &Ask, screen: Rect, buffer: &mut Buffer) -> Option<Position> {
    let area = window_place(screen);
    let (title, hint) = match state.wish {
        Wish::Attach => (
            app.say("Text file to put into the message", "附加文本文件"),
            app.say("Enter attaches, Tab completes, Esc closes", "Enter 附加，Tab 补全，Esc 关闭"),
        ),
        Wish::Export => (
            app.say("Export to a Markdown file", "导出为 Markdown 文件"),
            app.say("Enter writes, Tab completes, Esc closes", "Enter 写入，Tab 补全，Esc 关闭"),
        ),
        Wish::Model => (
            app.say("Path of a GGUF file", "GGUF 文件路径"),
            app.say("Enter opens, Tab completes, Esc closes", "Enter 打开，Tab 补全，Esc 关闭"),
        ),
        Wish::Forget => (
            app.say("Do not save this conversation?", "不保存此对话？"),
            app.say("Enter: erase, Esc: keep", "Enter 删除，Esc 保留"),
        ),
    };
    let inner = window(area, title, hint, app.look(), buffer);
    if state.wish == Wish::Forget {
        let text = app.say("Its file is erased for good.", "它的文件会被彻底删除。");
        buffer.set_string(
            inner.x,
            inner.y + 1,
            super::text::fit(text, usize::from(inner.width)),
            Style::new(),
        );
        return None;
    }
    let row = Rect { y: inner.y + 1, height: 1, ..inner };
    Some(line(&state.input, row, Style::new(), buffer))
}
