//! What can lie over the chat: one pane each in a file of its own, and the window they share.

use super::app::{App, Screen};
use super::event::Effect;
use super::failure::Failure;
use super::input::Input;
use super::look::Look;
use super::settings::SettingsPane;
use super::talks::Talks;
use super::text::{cells, fit, pad, width};
use super::{ask, chooser, help, settings, status, talks};
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use std::time::Instant;
use unicode_segmentation::UnicodeSegmentation;

/// A choice among models.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// The one that is chosen.
    pub at: usize,
    /// The first row shown.
    pub first: usize,
    /// Why the last one did not open.
    pub error: Option<Failure>,
}

/// What lies over the chat.
pub enum Panel {
    /// Keys and what they do; the first row shown.
    Help(usize),
    /// Settings.
    Settings(SettingsPane),
    /// Conversations.
    Talks(Talks),
    /// A line to type, or a question to answer.
    Ask(ask::Ask),
}

/// Gives a key to the panel that is open.
pub fn key(app: &mut App, key: KeyEvent, now: Instant) -> Vec<Effect> {
    // What was said stood in the place of the panel's keys.
    app.flash = None;
    match &app.panel {
        Some(Panel::Help(_)) => help::key(app, key),
        Some(Panel::Settings(_)) => settings::key(app, key, now),
        Some(Panel::Talks(_)) => talks::key(app, key, now),
        Some(Panel::Ask(_)) => ask::key(app, key, now),
        None => Vec::new(),
    }
}

/// Shows the panel that is open, and a message in its frame; gives where the cursor stands.
pub fn render(app: &App, screen: Rect, buffer: &mut Buffer) -> Option<Position> {
    let (area, cursor) = match app.panel.as_ref()? {
        Panel::Help(top) => (help::window_place(screen), help::render(app, *top, screen, buffer)),
        Panel::Settings(state) => {
            (settings::window_place(screen), settings::render(app, state, screen, buffer))
        }
        Panel::Talks(state) => (talks::window_place(screen), talks::render(app, state, screen, buffer)),
        Panel::Ask(state) => (ask::window_place(screen), ask::render(app, state, screen, buffer)),
    };
    let line = Rect { x: area.x + 1, y: area.bottom() - 1, width: area.width.saturating_sub(2), height: 1 };
    if app.flash.is_some() {
        // The keys make room for it.
        let look = app.look();
        buffer.set_string(line.x, line.y, look.rule().repeat(usize::from(line.width)), look.dim());
    }
    status::render_flash(app, line, area.height.saturating_sub(2), buffer);
    cursor
}

/// Cells beside a window, at each side: where there are fewer, what stands in them cannot be read.
const BESIDE: u16 = 8;

/// The place of a window that wants `width` by `height` cells, its frame included: in the middle, and never on the last
/// row. Where little of the screen would be left beside it, it has the whole width.
pub fn place(screen: Rect, width: u16, height: u16) -> Rect {
    let most = Rect { height: screen.height.saturating_sub(1), ..screen };
    let (width, height) = (width.min(most.width), height.min(most.height));
    let narrow = most.width < width + 2 * BESIDE;
    let (width, x) = if narrow { (most.width, 0) } else { (width, (most.width - width) / 2) };
    Rect { x: screen.x + x, y: screen.y + (most.height - height) / 2, width, height }
}

/// What is inside the frame of a window at `area`.
pub fn inside(area: Rect) -> Rect {
    if area.width < 4 || area.height < 3 {
        return area;
    }
    Rect { x: area.x + 2, y: area.y + 1, width: area.width - 4, height: area.height - 2 }
}

/// Empties the cells of `area`.
pub fn clear(area: Rect, buffer: &mut Buffer) {
    for y in area.top()..area.bottom() {
        for x in area.left()..area.right() {
            // Half of a wide character that reaches into the window would stay.
            if x == area.left() && x > 0 && buffer[(x - 1, y)].symbol().len() > 1 {
                let wide = width(buffer[(x - 1, y)].symbol()) > 1;
                if wide {
                    buffer[(x - 1, y)].set_symbol(" ");
                }
            }
            buffer[(x, y)].reset();
        }
    }
}

/// Clears `area` and frames it; gives what is inside.
pub fn window(area: Rect, title: &str, hint: &str, look: Look, buffer: &mut Buffer) -> Rect {
    clear(area, buffer);
    if area.width < 4 || area.height < 3 {
        return area;
    }
    let cells = usize::from(area.width) - 2;
    let corners = if look.ascii { ["+", "+", "+", "+"] } else { ["┌", "┐", "└", "┘"] };
    let rule = look.rule().repeat(cells);
    buffer.set_string(area.x, area.y, format!("{}{rule}{}", corners[0], corners[1]), look.dim());
    buffer.set_string(area.x, area.bottom() - 1, format!("{}{rule}{}", corners[2], corners[3]), look.dim());
    for y in area.y + 1..area.bottom() - 1 {
        buffer.set_string(area.x, y, look.side(), look.dim());
        buffer.set_string(area.right() - 1, y, look.side(), look.dim());
    }
    buffer.set_string(area.x + 1, area.y, fit(&format!(" {title} "), cells), look.heading());
    if !hint.is_empty() {
        buffer.set_string(area.x + 1, area.bottom() - 1, fit(&format!(" {hint} "), cells), look.dim());
    }
    inside(area)
}

/// Shows rows of a list: from the first one given on, with one of them chosen.
pub fn list(
    rows: &[Line<'_>],
    (first, at): (usize, Option<usize>),
    area: Rect,
    look: Look,
    buffer: &mut Buffer,
) {
    for (y, row) in rows.iter().enumerate().skip(first).take(usize::from(area.height)) {
        let line = area.y + (y - first) as u16;
        buffer.set_line(area.x, line, row, area.width);
        if Some(y) == at {
            buffer.set_style(Rect { y: line, height: 1, ..area }, look.chosen());
        }
    }
}

/// The first of `rows` on a pane of `height`: the one it was, unless row `at` would not be there.
fn first_of(first: usize, at: usize, rows: usize, height: u16) -> usize {
    let height = usize::from(height).max(1);
    first.clamp((at + 1).saturating_sub(height), at).min(rows.saturating_sub(height))
}

/// Moves lists so that the row that is chosen can be seen.
pub fn prepare(app: &mut App, screen: Rect) {
    match &mut app.panel {
        Some(Panel::Talks(state)) => {
            let height = talks::list_place(screen).height;
            state.first = first_of(state.first, state.at, app.talks.len(), height);
        }
        Some(Panel::Settings(state)) => {
            let height = settings::window_place(screen).height.saturating_sub(2);
            state.first = first_of(state.first, state.at, settings::ITEMS.len(), height);
        }
        _ => {}
    }
    if let Screen::Choose(choice) = &app.screen {
        let height = chooser::list_place(app, screen, choice).height;
        let first = first_of(choice.first, choice.at, app.sources().len() + 1, height);
        if let Screen::Choose(choice) = &mut app.screen {
            choice.first = first;
        }
    }
}

/// A line that is being typed, in `area`'s first row; gives where the cursor stands.
pub fn line(input: &Input, area: Rect, style: Style, buffer: &mut Buffer) -> Position {
    let room = usize::from(area.width).max(2);
    // One row: line breaks and tabs are shown as spaces.
    let shown = |text: &str| text.replace(['\n', '\t'], " ");
    let column: usize = shown(input.before()).graphemes(true).map(cells).sum();
    // What stands before the first cell that is shown.
    let (mut left_out, mut x) = (0, 0);
    for grapheme in shown(input.text()).graphemes(true) {
        let w = cells(grapheme);
        if left_out + room <= column {
            left_out += w;
        } else if x + w > room {
            break;
        } else {
            buffer.set_string(area.x + x as u16, area.y, grapheme, style);
            x += w;
        }
    }
    Position { x: area.x + (column - left_out).min(room - 1) as u16, y: area.y }
}

/// Gives an editing key to a line; whether it was one.
pub fn edit(input: &mut Input, key: KeyEvent) -> bool {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    let alt = key.modifiers.contains(KeyModifiers::ALT);
    match key.code {
        KeyCode::Char('a') if control => input.home(),
        KeyCode::Char('e') if control => input.end(),
        KeyCode::Char('k') if control => input.kill_to_end(),
        KeyCode::Char('u') if control => input.kill_to_start(),
        KeyCode::Char('w') if control => input.kill_word(),
        KeyCode::Char('y') if control => input.yank(),
        KeyCode::Char('b') if control => input.left(),
        KeyCode::Char('f') if control => input.right(),
        KeyCode::Char('h') if control => input.backspace(),
        KeyCode::Char('b') if alt => input.word_left(),
        KeyCode::Char('f') if alt => input.word_right(),
        KeyCode::Char(c) if !control && !alt => input.insert(c.encode_utf8(&mut [0; 4])),
        KeyCode::Backspace if alt || control => input.kill_word(),
        KeyCode::Backspace => input.backspace(),
        KeyCode::Delete => input.delete(),
        KeyCode::Left if alt || control => input.word_left(),
        KeyCode::Right if alt || control => input.word_right(),
        KeyCode::Left => input.left(),
        KeyCode::Right => input.right(),
        KeyCode::Home => input.home(),
        KeyCode::End => input.end(),
        _ => return false,
    }
    true
}

/// A row of two parts, the second at the right end of `cells`.
pub fn both_ends(left: &str, right: &str, cells: usize, styles: [Style; 2]) -> Line<'static> {
    let right_cells = width(right);
    if right_cells + 2 > cells {
        return Line::from(Span::styled(fit(left, cells).into_owned(), styles[0]));
    }
    let left = pad(left, cells - right_cells - 1);
    Line::from(vec![Span::styled(left + " ", styles[0]), Span::styled(right.to_owned(), styles[1])])
}
