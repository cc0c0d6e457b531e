//! The terminal as a screen: taken, drawn, given back.

use crate::tui::app::App;
use crate::tui::view;
use crossterm::event::{
    DisableBracketedPaste, DisableMouseCapture, EnableBracketedPaste, EnableMouseCapture,
};
use crossterm::terminal::{
    BeginSynchronizedUpdate, EndSynchronizedUpdate, EnterAlternateScreen, LeaveAlternateScreen,
    disable_raw_mode, enable_raw_mode,
};
use crossterm::{cursor, execute, queue};
use ratatui::backend::CrosstermBackend;
use ratatui::layout::{Rect, Size};
use ratatui::{Terminal, TerminalOptions, Viewport};
use std::io::{self, BufWriter, Stdout, Write};
use std::time::Instant;

/// Columns and rows that are used at most: a terminal may say that it has thousands of millions of cells.
const MOST_CELLS: (u16, u16) = (1000, 500);

/// The terminal with its two last frames.
pub(super) type TerminalScreen = Terminal<CrosstermBackend<BufWriter<Stdout>>>;

/// The screen, of the size that the terminal has; after [`enter`].
pub(super) fn screen() -> io::Result<TerminalScreen> {
    let backend = CrosstermBackend::new(BufWriter::with_capacity(1 << 16, io::stdout()));
    let viewport = Viewport::Fixed(used(crossterm::terminal::size()?.into()));
    Terminal::with_options(backend, TerminalOptions { viewport })
}

/// Takes the terminal; with the mouse, or without.
pub(super) fn enter(mouse: bool) -> io::Result<()> {
    enable_raw_mode()?;
    execute!(io::stdout(), EnterAlternateScreen, EnableBracketedPaste)?;
    if mouse {
        execute!(io::stdout(), EnableMouseCapture)?;
    }
    Ok(())
}

/// Gives the terminal back as it was; nothing can be done where that fails.
pub(super) fn leave() {
    let _ = execute!(
        io::stdout(),
        EndSynchronizedUpdate,
        DisableMouseCapture,
        DisableBracketedPaste,
        LeaveAlternateScreen,
        cursor::Show
    );
    let _ = disable_raw_mode();
}

/// What of a terminal is used.
pub(super) fn used(size: Size) -> Rect {
    Rect::new(0, 0, size.width.min(MOST_CELLS.0), size.height.min(MOST_CELLS.1))
}

/// Gives the terminal back when it goes.
pub(super) struct Restore;

impl Drop for Restore {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The rest is done, and the reason stands on the screen; it would be hidden by a frame that has
            // no end.
            let _ = execute!(io::stdout(), EndSynchronizedUpdate);
        } else {
            leave();
        }
    }
}

/// One frame; afterwards the cursor stands where text goes.
pub(super) fn draw(terminal: &mut TerminalScreen, app: &mut App) -> io::Result<()> {
    let size = used(terminal.size()?);
    queue!(terminal.backend_mut(), BeginSynchronizedUpdate)?;
    if terminal.get_frame().area() != size {
        terminal.resize(size)?;
    }
    terminal.draw(|frame| {
        let area = frame.area();
        app.resize(area.width, area.height);
        app.prepare();
        if let Some(position) = view::render(app, Instant::now(), frame.buffer_mut()) {
            frame.set_cursor_position(position);
        }
    })?;
    queue!(terminal.backend_mut(), EndSynchronizedUpdate)?;
    terminal.backend_mut().flush()
}

/// Clears the screen; the next frame draws all of it. (`Terminal::clear` would ask the terminal where its
/// cursor is, and the answer would go to the thread that reads keys.)
pub(super) fn redraw(terminal: &mut TerminalScreen) -> io::Result<()> {
    let size = used(terminal.size()?);
    terminal.resize(size)
}
