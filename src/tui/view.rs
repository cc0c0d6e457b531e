//! State to frame.

use super::app::{App, MARK, Screen};
use super::interface::Ui;
use super::look::bytes;
use super::markdown::plain;
use super::status::{self, runs_on};
use super::text::{TAB, width};
use super::widgets::clear;
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::style::Style;
use ratatui::text::Text;
use ratatui::widgets::{Paragraph, Widget};
use std::time::Instant;

/// A screen below this is told so.
const LEAST: (u16, u16) = (20, 6);

/// Shows the state in a buffer; gives where the terminal's cursor is to stand, if text can be typed. After
/// [`App::prepare`].
pub fn render(app: &App, now: Instant, buffer: &mut Buffer) -> Option<Position> {
    let screen = *buffer.area();
    let ui = app.interface().ui();
    if screen.is_empty() {
        return None;
    }
    if screen.width < LEAST.0 || screen.height < LEAST.1 {
        buffer.set_stringn(0, 0, ui.words.too_small, usize::from(screen.width), Style::new());
        return None;
    }
    let flash = app.messages().current();
    let mut cursor = None;
    match app.screen() {
        Screen::Choose(chooser) => {
            let list = chooser.render(app.models(), ui, screen, buffer);
            if let Some(flash) = flash {
                let line = Rect { y: screen.bottom() - 2, height: 1, ..list };
                status::render_flash(flash, ui, line, list.height, buffer);
            }
        }
        Screen::Load(loading) => {
            let y = loading.render(ui, now, screen, buffer);
            let place = app.places().input;
            // A message can be begun meanwhile.
            cursor = (place.y > y).then(|| input(app, place, buffer));
            if let Some(flash) = flash {
                // Above the message.
                let cells = screen.width.saturating_sub(4);
                let line =
                    Rect { x: screen.x + 2, y: place.y.saturating_sub(1).max(y), width: cells, height: 1 };
                status::render_flash(flash, ui, line, line.y - y, buffer);
            }
        }
        Screen::Chat => {
            let row = |y: u16| Rect { x: 0, y, width: screen.width, height: 1 };
            status::render_title(app, row(0), buffer);
            let (transcript, place) = (app.talk().transcript(), app.places().transcript);
            match transcript.is_empty() {
                true => welcome(app, place, buffer),
                false => transcript.render(place, buffer, ui.look),
            }
            status::render_state(app, now, row(place.bottom()), buffer);
            cursor = Some(input(app, app.places().input, buffer));
            status::render_figures(app, now, row(screen.height - 1), buffer);
        }
    }
    if let Some(area) = app.panels().place(screen) {
        cursor = app.panels().render(app.panel_source(), buffer);
        if let Some(flash) = flash {
            let width = area.width.saturating_sub(2);
            let line = Rect { x: area.x + 1, y: area.bottom() - 1, width, height: 1 };
            // The keys make room for it.
            buffer.set_string(line.x, line.y, ui.look.rule().repeat(usize::from(width)), ui.look.dim());
            status::render_flash(flash, ui, line, area.height.saturating_sub(2), buffer);
        }
    }
    if ui.look.ascii {
        without_ellipses(buffer);
    }
    // Never on the last row: what an input method shows below the cursor would be hidden.
    cursor.map(|at| Position { x: at.x.min(screen.width - 1), y: at.y.min(screen.height - 2) })
}

/// An ellipsis in ASCII: three dots where the cells after it are free, else one sign.
fn without_ellipses(buffer: &mut Buffer) {
    let area = buffer.area;
    for y in area.top()..area.bottom() {
        for x in area.left()..area.right() {
            if buffer[(x, y)].symbol() != "…" {
                continue;
            }
            let free = |x: u16| x < area.right() && buffer[(x, y)].symbol() == " ";
            if free(x + 1) && free(x + 2) {
                for x in x..x + 3 {
                    buffer[(x, y)].set_symbol(".");
                }
            } else {
                buffer[(x, y)].set_symbol("~");
            }
        }
    }
}

/// What an empty conversation says.
fn welcome(app: &App, area: Rect, buffer: &mut Buffer) {
    let Ui { words, look, .. } = app.interface().ui();
    let about = app.models().about();
    let mut text = String::new();
    if let Some(about) = about {
        let (memory, comma) = (words.memory, words.comma);
        let needs = bytes(about.forecast_bytes);
        let runs_on = runs_on(about, words);
        text += &format!("{} {}{comma}{runs_on}{comma}{memory} {needs}\n\n", about.name, about.kind);
    }
    let [sends, breaks] = app.interface().prefs().send_and_newline();
    text += &(words.welcome)(sends, breaks);
    #[cfg(feature = "demo")]
    if about.is_some_and(|about| about.name.starts_with("huozi-nano")) {
        text += words.welcome_demo;
    }
    let cells = usize::from(area.width).saturating_sub(4).min(72);
    let rows = plain(&text, cells, look.dim());
    // Away from the edges, with an empty row below.
    let width = area.width.saturating_sub(2);
    let inside = Rect { x: area.x + 2, y: area.y + 1, width, height: area.height.saturating_sub(2) };
    Paragraph::new(Text::from(rows)).render(inside, buffer);
}

/// Shows the message that is being written; gives where the cursor stands.
fn input(app: &App, area: Rect, buffer: &mut Buffer) -> Position {
    let look = app.interface().look();
    buffer.set_string(0, area.y, MARK, look.user());
    let input = app.composer().input();
    let (rows, (row, column)) = input.laid_out();
    let scroll = input.scroll;
    for (y, range) in rows.iter().skip(scroll).take(usize::from(area.height)).enumerate() {
        let text = input.text()[range.clone()].replace('\t', TAB);
        buffer.set_string(area.x, area.y + y as u16, text, Style::new());
    }
    if rows.len() > usize::from(area.height) && area.height > 1 {
        let more = format!("{}/{}", row + 1, rows.len());
        let cells = (width(&more) as u16).min(area.width);
        let place = Rect { x: area.right() - cells, y: area.y - 1, width: cells, height: 1 };
        clear(place, buffer);
        buffer.set_string(place.x, place.y, more, look.dim());
    }
    let column = (column as u16).min(area.width.saturating_sub(1));
    Position { x: area.x + column, y: area.y + (row.saturating_sub(scroll) as u16).min(area.height - 1) }
}
