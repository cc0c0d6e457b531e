//! The terminal that a chat has taken, for whatever ends or stops the process.

use rustix::fd::OwnedFd;
use rustix::termios::{OptionalActions, Termios, tcsetattr};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A terminal and its modes before and during the chat.
pub(super) struct TakenTerminal {
    /// The terminal.
    pub(super) terminal: OwnedFd,
    /// Its mode before.
    pub(super) before: Termios,
    /// Its mode during the chat.
    pub(super) chat: Termios,
}

static TAKEN: Mutex<Option<TakenTerminal>> = Mutex::new(None);

fn taken() -> MutexGuard<'static, Option<TakenTerminal>> {
    TAKEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes a terminal: whatever ends the process from here on gives it back first.
///
/// # Errors
/// The mode cannot be set.
pub(super) fn take(terminal: TakenTerminal) -> io::Result<()> {
    *taken() = Some(terminal);
    take_again()
}

/// Sets the mode of the chat once more, after the process was stopped.
///
/// # Errors
/// The mode cannot be set.
pub(super) fn take_again() -> io::Result<()> {
    match &*taken() {
        Some(taken) => Ok(tcsetattr(&taken.terminal, OptionalActions::Now, &taken.chat)?),
        None => Ok(()),
    }
}

/// Sets the mode that the terminal had before, if a chat has taken it; nothing can be done where that fails.
pub(super) fn give_back() {
    if let Some(taken) = &*taken() {
        // No paste is marked any more, and the cursor is shown. Not by `stdout`: another thread may hold it.
        let _ = rustix::io::write(&taken.terminal, b"\x1b[?2004l\x1b[?25h");
        let _ = tcsetattr(&taken.terminal, OptionalActions::Now, &taken.before);
    }
}

/// Gives it back for good.
pub(super) fn leave() {
    give_back();
    *taken() = None;
}
