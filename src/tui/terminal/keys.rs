//! The thread that reads keys, mouse and pasted text.

use super::code::SignalCode;
use crate::tui::event::Msg;
use crossterm::event::{self, Event, MouseEvent, MouseEventKind};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::termios::tcgetwinsize;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

/// The longest wait of the thread: how soon it lets an editor read keys.
const POLL: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// The shortest wait in which what has come is read.
const AT_ONCE: Duration = Duration::from_millis(1);
/// How long the thread may take at most to stop reading.
const PAUSE: Duration = Duration::from_millis(300);

/// Whether the thread may read keys.
#[derive(Default)]
pub(super) struct Keys {
    paused: AtomicBool,
    quiet: AtomicBool,
}

impl Keys {
    /// Returns when the thread reads no keys.
    pub(super) fn pause(&self) {
        self.paused.store(true, Ordering::SeqCst);
        let until = Instant::now() + PAUSE;
        while !self.quiet.load(Ordering::SeqCst) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Keys are read again.
    pub(super) fn go_on(&self) {
        self.paused.store(false, Ordering::SeqCst);
    }
}

/// Starts the thread.
pub(super) fn read_keys(keys: Arc<Keys>, send: Sender<Msg>, code: SignalCode) -> io::Result<()> {
    std::thread::Builder::new().name("keys".into()).spawn(move || {
        loop {
            if keys.paused.load(Ordering::SeqCst) {
                keys.quiet.store(true, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(20));
                continue;
            }
            keys.quiet.store(false, Ordering::SeqCst);
            let stdin = io::stdin();
            match rustix::event::poll(&mut [PollFd::new(&stdin, PollFlags::IN)], Some(&POLL)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => continue,
                _ => {}
            }
            // All that is there.
            let mut read = false;
            loop {
                let msg = match event::poll(AT_ONCE)
                    .and_then(|there| if there { event::read().map(Some) } else { Ok(None) })
                {
                    // One that hung up says so, and gives nothing.
                    Ok(None) if !read && tcgetwinsize(&stdin).is_err() => code.hung_up(),
                    Ok(None) => break,
                    Ok(Some(event)) => {
                        read = true;
                        match of_event(event) {
                            Some(msg) => msg,
                            None => continue,
                        }
                    }
                    Err(_) => code.hung_up(),
                };
                let last = matches!(msg, Msg::Terminate);
                if send.send(msg).is_err() || last {
                    return;
                }
            }
        }
    })?;
    Ok(())
}

/// What matters of what the terminal says. Its size is told by a signal.
fn of_event(event: Event) -> Option<Msg> {
    match event {
        Event::Key(key) => Some(Msg::Key(key)),
        // Nothing follows a mouse that is only moved.
        Event::Mouse(MouseEvent {
            kind: MouseEventKind::Moved | MouseEventKind::Drag(_) | MouseEventKind::Up(_),
            ..
        }) => None,
        Event::Mouse(mouse) => Some(Msg::Mouse(mouse)),
        Event::Paste(text) => Some(Msg::Paste(text)),
        Event::Resize(..) | Event::FocusGained | Event::FocusLost => None,
    }
}
