//! SIGINT and SIGTERM.
//!
//! While work runs, the first signal sets the cancel flag that the engine polls; the work ends in order and the program
//! says so with its exit code. While nothing runs (the program waits for input or loads a file), or when a second signal
//! comes, the process ends at once. A chat is different in one point: SIGINT at its prompt first gives a hint.

use super::exit::{INTERRUPTED, Interrupted, TERMINATED};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

#[derive(Default)]
struct State {
    cancel: AtomicBool,
    busy: AtomicBool,
    chatting: AtomicBool,
    hinted: AtomicBool,
    /// Exit code of the first signal, 0 while there was none.
    code: AtomicU8,
}

/// The handle on the signals of this process.
#[derive(Clone)]
pub struct Signals(Arc<State>);

impl Signals {
    /// Installs the handlers; every further call gives the same handle.
    ///
    /// # Errors
    /// The operating system refuses a handler.
    pub fn install() -> io::Result<Self> {
        static STATE: OnceLock<Arc<State>> = OnceLock::new();
        if let Some(state) = STATE.get() {
            return Ok(Self(state.clone()));
        }
        let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
        let state = STATE.get_or_init(Default::default).clone();
        let handle = Self(state.clone());
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            for signal in signals.forever() {
                state.on(signal);
            }
        })?;
        Ok(handle)
    }

    /// The flag that ends running work.
    pub fn cancel(&self) -> &AtomicBool {
        &self.0.cancel
    }

    /// Runs `work` with signals cancelling it instead of ending the process.
    pub fn while_busy<T>(&self, work: impl FnOnce(&AtomicBool) -> T) -> T {
        self.0.busy.store(true, Ordering::SeqCst);
        let result = work(&self.0.cancel);
        self.0.busy.store(false, Ordering::SeqCst);
        result
    }

    /// An error if a signal came.
    ///
    /// # Errors
    /// [`Interrupted`] with the exit code of the signal.
    pub fn check(&self) -> Result<(), Interrupted> {
        match self.0.code.load(Ordering::SeqCst) {
            0 => Ok(()),
            code => Err(Interrupted(code)),
        }
    }

    /// From now on SIGINT stops an answer only, and the program goes on.
    pub fn chat_mode(&self) {
        self.0.chatting.store(true, Ordering::SeqCst);
    }

    /// A new line was typed: an earlier Ctrl+C no longer counts.
    pub fn rearm(&self) {
        self.0.hinted.store(false, Ordering::SeqCst);
        if self.0.code.load(Ordering::SeqCst) != TERMINATED {
            self.0.code.store(0, Ordering::SeqCst);
            self.0.cancel.store(false, Ordering::SeqCst);
        }
    }
}

impl State {
    fn on(self: &Arc<Self>, signal: i32) {
        let code = if signal == SIGTERM { TERMINATED } else { INTERRUPTED };
        let busy = self.busy.load(Ordering::SeqCst);
        if !busy && self.chatting.load(Ordering::SeqCst) && code == INTERRUPTED {
            if self.hinted.swap(true, Ordering::SeqCst) {
                std::process::exit(code.into());
            }
            eprintln!("\nhuozi: Ctrl+C again or Ctrl+D quits");
            return;
        }
        let again = self.cancel.swap(true, Ordering::SeqCst);
        self.code.store(code, Ordering::SeqCst);
        if !busy || again {
            std::process::exit(code.into());
        }
        if code == TERMINATED {
            // Whoever sends SIGTERM sends SIGKILL next: never outlive the patience of a service manager.
            let spawned = std::thread::Builder::new().spawn(move || {
                std::thread::sleep(Duration::from_secs(3));
                std::process::exit(code.into());
            });
            if spawned.is_err() {
                std::process::exit(code.into());
            }
        }
    }
}
