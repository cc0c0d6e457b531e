//! What panes are made of: windows, lists, a line that is typed.

use super::input::Input;
use super::look::Look;
use super::text::{cells, fit, pad, width};
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::style::Style;
use ratatui::symbols::border;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, List, ListState, StatefulWidget, Widget};
use unicode_segmentation::UnicodeSegmentation;

/// Cells beside a window, at each side: where there are fewer, what stands in them cannot be read.
const BESIDE: u16 = 8;

/// The place of a window that wants `width` by `height` cells, its frame included: in the middle, and never
/// on the last row. Where little of the screen would be left beside it, it has the whole width.
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

/// Empties the cells of `area`, and a wide character that reaches into it from the left.
pub fn clear(area: Rect, buffer: &mut Buffer) {
    for y in area.top()..area.bottom() {
        if area.x > 0 && width(buffer[(area.x - 1, y)].symbol()) > 1 {
            buffer[(area.x - 1, y)].set_symbol(" ");
        }
    }
    Clear.render(area, buffer);
}

/// Clears `area` and frames it; gives what is inside.
pub fn window(area: Rect, title: &str, hint: &str, look: Look, buffer: &mut Buffer) -> Rect {
    clear(area, buffer);
    if area.width < 4 || area.height < 3 {
        return area;
    }
    let cells = usize::from(area.width) - 2;
    let mut block = Block::bordered()
        .border_set(if look.ascii { ASCII } else { border::PLAIN })
        .border_style(look.dim())
        .title_top(Line::styled(fit(&format!(" {title} "), cells).into_owned(), look.heading()));
    if !hint.is_empty() {
        let hint = hints(hint, cells.saturating_sub(2));
        block = block.title_bottom(Line::styled(format!(" {hint} "), look.dim()));
    }
    block.render(area, buffer);
    inside(area)
}

/// Hints separated by commas, as many as `cells` have room for, each of them whole: of those that find none
/// the last stays longest, then the first.
pub fn hints(all: &str, cells: usize) -> String {
    let comma = if all.contains('，') { "，" } else { ", " };
    let mut parts: Vec<&str> = all.split(comma).collect();
    let mut shown = all.to_owned();
    while width(&shown) > cells && parts.len() > 1 {
        parts.remove(parts.len() - 2);
        shown = parts.join(comma);
    }
    fit(&shown, cells).into_owned()
}

/// A frame of ASCII.
const ASCII: border::Set<'_> = border::Set {
    top_left: "+",
    top_right: "+",
    bottom_left: "+",
    bottom_right: "+",
    vertical_left: "|",
    vertical_right: "|",
    horizontal_top: "-",
    horizontal_bottom: "-",
};

/// Shows rows of a list from row `first` on, row `at` as the one that is chosen.
pub fn list(
    rows: Vec<Line<'_>>,
    (first, at): (usize, Option<usize>),
    area: Rect,
    look: Look,
    buffer: &mut Buffer,
) {
    let mut state = ListState::default().with_offset(first).with_selected(at);
    StatefulWidget::render(List::new(rows).highlight_style(look.chosen()), area, buffer, &mut state);
}

/// The first of `rows` on a pane of `height`: the one it was, unless row `at` would not be there.
pub fn first_of(first: usize, at: usize, rows: usize, height: u16) -> usize {
    let height = usize::from(height).max(1);
    first.clamp((at + 1).saturating_sub(height), at).min(rows.saturating_sub(height))
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
