//! Signals, and this process as a part of a shell's job.

use super::code::SignalCode;
use super::screen::used;
use crate::tui::event::Msg;
use signal_hook::consts::{
    SIGALRM, SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGUSR1, SIGUSR2, SIGWINCH, SIGXCPU, SIGXFSZ,
};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;

/// So long after a signal that ends it the program is ended, whatever holds it.
const AFTER_ALL: Duration = Duration::from_secs(6);

/// This process as a part of a shell's job.
#[derive(Default)]
pub(super) struct Job {
    /// An editor has the terminal, and the signals that its keys give are meant for it.
    pub(super) editing: AtomicBool,
    /// The next SIGTSTP is the one that was sent from here.
    stopping: AtomicBool,
}

impl Job {
    /// Whether a shell would continue this process: none looks after the process group of the session's
    /// leader. There the system ignores SIGTSTP, too.
    pub(super) fn can_stop() -> bool {
        rustix::process::getsid(None).is_ok_and(|session| session != rustix::process::getpgrp())
    }

    /// Stops the whole process group, as Ctrl+Z does outside of raw mode, until it is told to go on.
    pub(super) fn stop(&self) -> io::Result<()> {
        self.stopping.store(true, Ordering::SeqCst);
        // The others may have something to do before they stop; here that is done.
        rustix::process::kill_current_process_group(rustix::process::Signal::TSTP)?;
        signal_hook::low_level::emulate_default_handler(SIGTSTP)
    }

    /// Whether a signal was taken here and is no message.
    fn takes(&self, signal: i32) -> bool {
        match signal {
            SIGTSTP if self.stopping.swap(false, Ordering::SeqCst) => true,
            // The editor has stopped, and the shell waits until all of the job has.
            SIGTSTP if self.editing.load(Ordering::SeqCst) => {
                if Self::can_stop() {
                    let _ = signal_hook::low_level::emulate_default_handler(SIGTSTP);
                }
                true
            }
            SIGINT | SIGQUIT => self.editing.load(Ordering::SeqCst),
            _ => false,
        }
    }
}

/// Starts the thread that takes signals.
pub(super) fn watch_signals(send: Sender<Msg>, code: SignalCode, job: Arc<Job>) -> io::Result<()> {
    const ENDS: [i32; 8] = [SIGTERM, SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGXCPU];
    let others = [SIGTSTP, SIGCONT, SIGXFSZ, SIGWINCH];
    let mut signals = signal_hook::iterator::Signals::new(ENDS.iter().chain(&others))?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            if job.takes(signal) {
                continue;
            }
            let msg = match signal {
                SIGTSTP => Msg::Suspend,
                SIGCONT => Msg::Continued,
                SIGWINCH => match crossterm::terminal::size() {
                    Ok(size) => {
                        let size = used(size.into());
                        Msg::Resize(size.width, size.height)
                    }
                    // The thread that reads keys will tell.
                    Err(_) => continue,
                },
                // The write that was too much fails, and is told like a disk that is full.
                SIGXFSZ => continue,
                signal => {
                    let number = code.ends_by(signal);
                    // A terminal that takes nothing any more may hold the thread that would end.
                    let _ = std::thread::Builder::new().spawn(move || {
                        std::thread::sleep(AFTER_ALL);
                        std::process::exit(number.into());
                    });
                    Msg::Terminate
                }
            };
            if send.send(msg).is_err() {
                break;
            }
        }
    })?;
    Ok(())
}
