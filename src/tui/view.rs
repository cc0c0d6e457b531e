//! State to frame.

use super::app::{App, Places, Screen};
use super::look::Lang;
use super::transcript::Made;
use super::{chooser, panels, status};
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::style::Style;
use std::time::Instant;

/// What stands before the input.
const MARK: &str = "> ";
/// Rows of text are not wider than this: longer ones are hard to read.
const MOST: usize = 110;
/// A screen below this is told so.
const LEAST: (u16, u16) = (20, 6);

/// Lays out the screen, and makes the rows that are missing. Before every frame, and before a message that needs to know
/// where things are.
pub fn prepare(app: &mut App) {
    let (width, height) = app.size;
    let mark = MARK.len() as u16;
    let room = width.saturating_sub(mark);
    // Title, state and figures have a row each; the input at most a third of the screen.
    let most = (height / 3).max(1);
    let rows = app.input.rows(usize::from(room)).len();
    let input_height = (rows.min(usize::from(most)) as u16).max(1);
    let transcript = Rect { x: 0, y: 1, width, height: height.saturating_sub(input_height + 3) };
    let input = Rect { x: mark, y: transcript.bottom() + 1, width: room, height: input_height };
    app.places = Places { transcript, input };
    let (row, _) = app.input.position(usize::from(room));
    let shown = usize::from(input_height);
    app.input.scroll =
        app.input.scroll.clamp(row.saturating_sub(shown - 1), row).min(rows.saturating_sub(shown));
    panels::prepare(app, Rect { x: 0, y: 0, width, height });
    if matches!(app.screen, Screen::Chat) {
        // The last column is for the bar, and one stays free before it.
        let cells = usize::from(width).saturating_sub(2).clamp(2, MOST);
        let made = Made { cells, look: app.look(), lang: app.lang(), raw: app.prefs.raw };
        let live = match &app.busy {
            super::app::Busy::Answering(live) => Some(&**live),
            _ => None,
        };
        app.transcript.prepare(&app.talk, live, made, usize::from(transcript.height));
    }
}

/// Shows the state in a buffer; gives where the terminal's cursor is to stand, if text can be typed. After
/// [`prepare`].
pub fn render(app: &App, now: Instant, buffer: &mut Buffer) -> Option<Position> {
    let screen = *buffer.area();
    if screen.width < LEAST.0 || screen.height < LEAST.1 {
        buffer.set_stringn(0, 0, app.say("too small", "窗口太小"), usize::from(screen.width), Style::new());
        return None;
    }
    let mut cursor = None;
    match &app.screen {
        Screen::Choose(choice) => chooser::render(app, choice, screen, buffer),
        Screen::Load(loading) => cursor = chooser::render_loading(app, loading, now, screen, buffer),
        Screen::Chat => {
            let row = |y: u16| Rect { x: 0, y, width: screen.width, height: 1 };
            status::render_title(app, row(0), buffer);
            match app.transcript.is_empty() {
                true => welcome(app, app.places.transcript, buffer),
                false => app.transcript.render(app.places.transcript, buffer, app.look()),
            }
            status::render_state(app, now, row(app.places.transcript.bottom()), buffer);
            cursor = Some(input(app, app.places.input, buffer));
            status::render_figures(app, now, row(screen.height - 1), buffer);
        }
    }
    if app.panel.is_some() {
        cursor = panels::render(app, screen, buffer);
    }
    // Never on the last row: what an input method shows below the cursor would be hidden.
    cursor.map(|at| Position { x: at.x.min(screen.width - 1), y: at.y.min(screen.height - 2) })
}

/// What an empty conversation says.
fn welcome(app: &App, area: Rect, buffer: &mut Buffer) {
    let look = app.look();
    let mut text = String::new();
    if let Some(about) = &app.about {
        let kib = super::look::bytes(about.forecast_bytes);
        let (memory, comma) = app.lang().of(("memory", ", "), ("内存", "，"));
        text += &format!("{} {}{comma}{}{comma}{memory} {kib}\n\n", about.name, about.kind, about.runs_on);
    }
    let [sends, breaks] = app.prefs.send_and_newline();
    text += &match app.lang() {
        Lang::En => format!(
            "Type a message and press {sends}. {breaks} begins a new line, F2 shows the settings, F3 the conversations, \
             F1 all keys."
        ),
        Lang::Zh => format!("输入消息后按 {sends} 发送。{breaks} 换行，F2 设置，F3 对话列表，F1 全部按键。"),
    };
    #[cfg(feature = "demo")]
    if app.about.as_ref().is_some_and(|about| about.name.starts_with("huozi-nano")) {
        text += app.say(
            "\n\nThe demo model writes poems: 写一首关于月的诗。",
            "\n\n演示模型会写诗，例如：写一首关于月的诗。",
        );
    }
    let cells = usize::from(area.width).saturating_sub(4).min(72);
    for (y, row) in super::markdown::plain(&text, cells, look.dim()).iter().enumerate() {
        if (y as u16) + 1 < area.height {
            buffer.set_line(area.x + 2, area.y + 1 + y as u16, row, area.width.saturating_sub(2));
        }
    }
}

/// Shows what is being written; gives where the cursor stands.
pub fn input(app: &App, area: Rect, buffer: &mut Buffer) -> Position {
    let look = app.look();
    buffer.set_string(0, area.y, MARK, look.user());
    let (rows, (row, column)) = app.input.laid_out();
    let scroll = app.input.scroll;
    for (y, range) in rows.iter().skip(scroll).take(usize::from(area.height)).enumerate() {
        let text = app.input.text()[range.clone()].replace('\t', super::text::TAB);
        buffer.set_string(area.x, area.y + y as u16, text, Style::new());
    }
    if rows.len() > usize::from(area.height) && area.height > 1 {
        let more = format!("{}/{}", row + 1, rows.len());
        let cells = (super::text::width(&more) as u16).min(area.width);
        let place = Rect { x: area.right() - cells, y: area.y - 1, width: cells, height: 1 };
        panels::clear(place, buffer);
        buffer.set_string(place.x, place.y, more, look.dim());
    }
    let column = (column as u16).min(area.width.saturating_sub(1));
    Position { x: area.x + column, y: area.y + (row.saturating_sub(scroll) as u16).min(area.height - 1) }
}
