//! The terminal of a chat: what is typed, whether a line is read or an answer is generated.
//!
//! A thread reads the terminal, which has no echo during the whole chat, and gives the line editor what it
//! understands, by a pseudoterminal in the place of standard input: the editor can neither tell a paste that
//! the terminal does not mark nor keep what is typed during an answer. While no line is read, keys are kept
//! for the next one; Ctrl+C is SIGINT then. Whatever ends or stops the process gives the terminal back first,
//! see [`crate::cli::terminal`].

use super::keys::{Key, Keys, MAX_BYTES, for_editor, is_several_lines, typed_ahead};
use crate::cli::terminal::{TakenTerminal, Taking, give_back, take, take_again};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Signal, getpgrp, getpid, getsid, kill_current_process_group, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{InputModes, LocalModes, OptionalActions, SpecialCodeIndex, tcgetattr, tcsetattr};
use signal_hook::consts::{SIGALRM, SIGHUP, SIGQUIT, SIGTSTP, SIGUSR1, SIGUSR2, SIGXCPU};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// A sequence or a paste is sent faster than this, a person types slower.
const BURST_MS: i64 = 20;
/// The rest of a sequence that has begun comes within this time.
const SEQUENCE_MS: i64 = 100;
/// What is said when more than [`MAX_BYTES`] come at once, or between two lines.
const TOO_LONG: &str = "huozi: more than 1 MiB was pasted or typed at once: that is left out";
/// The key that makes the editor draw its line again; see [`super::editor`].
const REDRAW: &[u8] = b"\x1b[24~";

/// What the reading thread does with keys.
#[derive(Default)]
struct Reading {
    /// A line is read: keys go to the editor.
    line: bool,
    /// Keys that came while none was.
    ahead: Vec<Key>,
    /// Their length in bytes.
    ahead_bytes: usize,
    /// Some of them were left out.
    full: bool,
    /// Something was typed in the line, or waited for it.
    typed: bool,
    /// The chat has ended.
    ended: bool,
}

/// The keys of the terminal. Dropped, the terminal is as it was before.
pub(super) struct Keyboard {
    reading: Arc<Mutex<Reading>>,
    /// Gives the terminal back.
    _taking: Taking,
}

impl Keyboard {
    /// Takes the terminal that standard input is, and puts what the editor reads in its place.
    ///
    /// # Errors
    /// There is no pseudoterminal, or standard input is no terminal.
    pub(super) fn take() -> io::Result<Self> {
        let terminal = rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3)?;
        let before = tcgetattr(&terminal)?;
        let mut chat = before.clone();
        chat.input_modes -= InputModes::ICRNL | InputModes::INLCR | InputModes::ISTRIP | InputModes::IXON;
        chat.local_modes -= LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG | LocalModes::IEXTEN;
        chat.special_codes[SpecialCodeIndex::VMIN] = 1;
        chat.special_codes[SpecialCodeIndex::VTIME] = 0;
        let editor = Arc::new(openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?);
        grantpt(&*editor)?;
        unlockpt(&*editor)?;
        let name = ptsname(&*editor, Vec::new())?;
        let lines = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
        tcsetattr(&lines, OptionalActions::Now, &chat)?;
        let from = rustix::io::fcntl_dupfd_cloexec(&terminal, 3)?;
        let reading: Arc<Mutex<Reading>> = Arc::default();
        watch_signals(reading.clone(), Arc::downgrade(&editor))?;
        let taking = take(TakenTerminal { terminal, before, chat })?;
        let keyboard = Self { reading, _taking: taking };
        rustix::stdio::dup2_stdin(&lines)?;
        let reading = keyboard.reading.clone();
        std::thread::Builder::new().name("keyboard".into()).spawn(move || read(&from, &editor, &reading))?;
        Ok(keyboard)
    }

    /// A line is read from now on; gives what was typed since the last one.
    pub(super) fn begin_line(&self) -> String {
        let mut reading = lock(&self.reading);
        reading.line = true;
        reading.ahead_bytes = 0;
        if std::mem::take(&mut reading.full) {
            eprintln!("{TOO_LONG}");
        }
        let text = typed_ahead(&std::mem::take(&mut reading.ahead));
        reading.typed = !text.is_empty();
        text
    }

    /// Whether something was typed in the line, or waited for it.
    pub(super) fn has_typed(&self) -> bool {
        lock(&self.reading).typed
    }

    /// No line is read from now on.
    pub(super) fn end_line(&self) {
        lock(&self.reading).line = false;
    }
}

impl Drop for Keyboard {
    fn drop(&mut self) {
        lock(&self.reading).ended = true;
    }
}

fn lock(reading: &Mutex<Reading>) -> MutexGuard<'_, Reading> {
    reading.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether `terminal` has something to read within `ms`; `None` waits for ever.
fn is_ready(terminal: &OwnedFd, ms: Option<i64>) -> bool {
    let time = ms.map(|ms| Timespec { tv_sec: 0, tv_nsec: ms * 1_000_000 });
    let mut fds = [PollFd::new(terminal, PollFlags::IN)];
    loop {
        match poll(&mut fds, time.as_ref()) {
            Err(rustix::io::Errno::INTR) => {}
            result => return result.is_ok_and(|ready| ready > 0),
        }
    }
}

/// Reads the terminal until the chat ends. The end of the terminal is the end of what the editor reads.
fn read(terminal: &OwnedFd, editor: &OwnedFd, reading: &Mutex<Reading>) {
    let mut keys = Keys::default();
    let mut bytes = [0; 4096];
    loop {
        let wait = (keys.is_waiting() && !keys.is_in_paste()).then_some(SEQUENCE_MS);
        if !is_ready(terminal, wait) {
            keys.give_up();
            continue;
        }
        let (mut burst, mut length) = (Vec::new(), 0);
        loop {
            match rustix::io::read(terminal, &mut bytes) {
                Err(rustix::io::Errno::INTR) => continue,
                Ok(n) if n > 0 => {
                    burst.extend(keys.push(&bytes[..n]));
                    length += n;
                }
                // It is gone: SIGHUP ends the process, or else what the editor reads ends with this thread.
                Ok(_) | Err(_) => return,
            }
            // A line in one piece may be the first of several; one that is typed comes key by key.
            let lines = burst.len() > 1 && burst.contains(&Key::Enter);
            if !(lines || keys.is_in_paste()) || length > MAX_BYTES || !is_ready(terminal, Some(BURST_MS)) {
                break;
            }
        }
        let (stops, keys): (Vec<Key>, Vec<Key>) =
            burst.into_iter().partition(|key| *key == Key::Control(0x1a));
        if !stops.is_empty() {
            stop();
        }
        let mut reading = lock(reading);
        if reading.ended {
            return;
        }
        let too_long = reading.line && keys.contains(&Key::TooLong);
        let mut bytes = reading.take(keys);
        if too_long {
            eprintln!("\n{TOO_LONG}");
            bytes.extend_from_slice(REDRAW);
        }
        // Unlocked: the editor may have to read before all of it can be written.
        drop(reading);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            match rustix::io::write(editor, rest) {
                Ok(n) => rest = &rest[n..],
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }
}

impl Reading {
    /// Takes keys that came at once; gives what the editor is to read.
    fn take(&mut self, keys: Vec<Key>) -> Vec<u8> {
        if self.line {
            // After an Enter no line is read until the next one begins.
            let several = is_several_lines(&keys);
            let sent = keys.iter().position(|key| *key == Key::Enter).filter(|_| !several);
            let (now, later) = keys.split_at(sent.map_or(keys.len(), |at| at + 1));
            self.typed |= now.iter().any(|key| *key != Key::Control(3));
            let bytes = for_editor(now);
            later.iter().for_each(|key| self.keep(key.clone()));
            return bytes;
        }
        for key in keys {
            match key {
                Key::Control(3) => drop(kill_process(getpid(), Signal::INT)),
                Key::Control(0x1c) => drop(kill_process(getpid(), Signal::QUIT)),
                key => self.keep(key),
            }
        }
        Vec::new()
    }

    /// Keeps a key for the next line, as long as all of them are at most [`MAX_BYTES`].
    fn keep(&mut self, key: Key) {
        let length = self.ahead_bytes + key.len();
        if key == Key::TooLong || length > MAX_BYTES {
            self.full = true;
            return;
        }
        self.ahead_bytes = length;
        self.ahead.push(key);
    }
}

/// Stops the process group, as Ctrl+Z does outside of a chat, where a shell would let it go on.
fn stop() {
    if getsid(None).is_ok_and(|session| session != getpgrp()) {
        let _ = kill_current_process_group(Signal::TSTP);
    }
}

/// Starts the thread that gives the terminal back before a signal ends or stops the process. SIGINT and
/// SIGTERM are those of [`crate::cli::signal`].
fn watch_signals(reading: Arc<Mutex<Reading>>, editor: Weak<OwnedFd>) -> io::Result<()> {
    const ENDS: [i32; 6] = [SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGXCPU];
    let mut signals = signal_hook::iterator::Signals::new(ENDS.iter().chain(&[SIGTSTP]))?;
    std::thread::Builder::new().name("chat signals".into()).spawn(move || {
        for signal in signals.forever() {
            give_back();
            // Ends the process, or returns when it goes on after a stop.
            let _ = signal_hook::low_level::emulate_default_handler(signal);
            let _ = take_again();
            if let Some(editor) = editor.upgrade().filter(|_| lock(&reading).line) {
                let _ = rustix::io::write(&*editor, REDRAW);
            }
        }
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_for_a_line_is_counted_in_bytes() {
        let mut reading = Reading::default();
        let paste = || Key::Paste("a".repeat(MAX_BYTES / 2));
        assert!(reading.take(vec![paste(), paste()]).is_empty() && !reading.full);
        reading.take(vec![Key::Char('a')]);
        assert!(reading.full && reading.ahead.len() == 2);
        // Nor more of what comes after an Enter.
        let mut reading = Reading { line: true, ..Reading::default() };
        let keys = vec![Key::Control(3)];
        assert_eq!((reading.take(keys), reading.typed), (b"\x03".to_vec(), false));
        reading.take(vec![Key::Char('a'), Key::Enter, paste(), paste(), paste()]);
        assert!(reading.typed && reading.full && reading.ahead.len() == 2);
    }
}
