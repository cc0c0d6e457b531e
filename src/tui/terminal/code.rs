//! The exit code, once a signal ends the program.

use crate::tui::event::Msg;
use signal_hook::consts::SIGHUP;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// The code, shared by the threads; 0 until a signal came.
#[derive(Clone, Default)]
pub(super) struct SignalCode(Arc<AtomicU8>);

impl SignalCode {
    /// The code; 0 while no signal came.
    pub(super) fn get(&self) -> u8 {
        self.0.load(Ordering::SeqCst)
    }

    /// A signal ends the program; the first one gives the code.
    pub(super) fn ends_by(&self, signal: i32) -> u8 {
        let code = 128 + signal as u8;
        let _ = self.0.compare_exchange(0, code, Ordering::SeqCst, Ordering::SeqCst);
        code
    }

    /// The terminal went away, whether a signal says so or not.
    pub(super) fn hung_up(&self) -> Msg {
        self.ends_by(SIGHUP);
        Msg::Terminate
    }
}
