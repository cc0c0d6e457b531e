//! The thread that reads keys, mouse and pasted text.

use super::code::SignalCode;
use super::decode::Decoder;
use crate::tui::event::Msg;
use crossterm::event::Event;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::termios::tcgetwinsize;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

/// The longest wait of the thread: how soon it lets an editor read keys.
const POLL: Duration = Duration::from_millis(100);
/// Bytes that are read at a time.
const READ: usize = 1 << 16;
/// The wait after a read that gave nothing.
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
        let stdin = io::stdin();
        let mut decoder = Decoder::default();
        let mut bytes = vec![0; READ];
        let mut last = Instant::now();
        loop {
            if keys.paused.load(Ordering::SeqCst) {
                keys.quiet.store(true, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(20));
                continue;
            }
            keys.quiet.store(false, Ordering::SeqCst);
            let wait = decoder.patience().map_or(POLL, |time| time.saturating_sub(last.elapsed()).min(POLL));
            let wait = Timespec::try_from(wait).unwrap_or_default();
            match rustix::event::poll(&mut [PollFd::new(&stdin, PollFlags::IN)], Some(&wait)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                _ => match rustix::io::read(&stdin, &mut bytes[..]) {
                    Ok(0) if tcgetwinsize(&stdin).is_ok() => std::thread::sleep(AT_ONCE),
                    // One that hung up says so, and gives nothing.
                    Ok(0) => return drop(send.send(code.hung_up())),
                    Ok(read) => {
                        decoder.take(&bytes[..read]);
                        last = Instant::now();
                    }
                    Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                    Err(_) => return drop(send.send(code.hung_up())),
                },
            }
            while let Some(event) = decoder.next(last.elapsed()) {
                let msg = match event {
                    Event::Key(key) => Msg::Key(key),
                    Event::Mouse(mouse) => Msg::Mouse(mouse),
                    Event::Paste(text) => Msg::Paste(text),
                    // The size of the terminal is told by a signal.
                    Event::Resize(..) | Event::FocusGained | Event::FocusLost => continue,
                };
                if send.send(msg).is_err() {
                    return;
                }
            }
        }
    })?;
    Ok(())
}
