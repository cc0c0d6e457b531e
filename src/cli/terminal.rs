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

/// Dropped, also by a panic, it gives the terminal back for good.
pub(super) struct Taking(());

impl Drop for Taking {
    fn drop(&mut self) {
        give_back();
        *taken() = None;
    }
}

/// Takes a terminal: whatever ends the process from here on gives it back first.
///
/// # Errors
/// The mode cannot be set.
pub(super) fn take(terminal: TakenTerminal) -> io::Result<Taking> {
    *taken() = Some(terminal);
    let taking = Taking(());
    take_again()?;
    Ok(taking)
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

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{Mode, OFlags};
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    use rustix::termios::{LocalModes, tcgetattr};
    use std::panic::{AssertUnwindSafe, catch_unwind};

    #[test]
    fn a_panic_gives_the_terminal_back() {
        let pair = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&pair).unwrap();
        unlockpt(&pair).unwrap();
        let name = ptsname(&pair, Vec::new()).unwrap();
        let open = || rustix::fs::open(&name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        let (terminal, seen) = (open(), open());
        let echoes = || tcgetattr(&seen).unwrap().local_modes.contains(LocalModes::ECHO);
        let before = tcgetattr(&terminal).unwrap();
        let mut chat = before.clone();
        chat.local_modes -= LocalModes::ECHO;
        assert!(echoes());
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _taking = take(TakenTerminal { terminal, before, chat }).unwrap();
            assert!(!echoes());
            panic!("in a chat");
        }));
        let why = panicked.unwrap_err();
        assert_eq!(why.downcast_ref::<&str>(), Some(&"in a chat"));
        assert!(echoes());
    }
}
