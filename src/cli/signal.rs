//! SIGINT and SIGTERM.
//!
//! While work runs, the first signal sets the cancel flag that the engine polls; the work ends in order and
//! the program says so with its exit code, within two seconds. While nothing runs (the program waits for
//! input or loads a file), or when a second signal comes, the process ends at once. A chat is different: at
//! its prompt SIGINT drops what is being typed and gives a hint; only the second one in a row ends the
//! process.

use super::exit::{INTERRUPTED, Interrupted, TERMINATED};
use super::terminal::give_back;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// A second Ctrl+C quits a chat if it comes this soon. The terminal does not tell what stands on a line
/// before it is ended, so that time is what tells "quit" from "drop this line, too".
const TWICE: Duration = Duration::from_secs(2);

/// How long work may take to end in order after the first signal; then the process ends at once.
const IN_ORDER: Duration = Duration::from_millis(1800);

#[derive(Default)]
struct State {
    cancel: AtomicBool,
    busy: AtomicBool,
    chatting: AtomicBool,
    /// A message of several lines is being typed.
    composing: AtomicBool,
    /// When the hint was given, unless something was typed after it.
    hinted: Mutex<Option<Instant>>,
    /// Exit code of the first signal, 0 while there was none.
    code: AtomicU8,
}

/// The handle on the signals of this process.
#[derive(Clone, Default)]
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

    /// Whether a message of several lines is being typed from now on: SIGINT then drops it.
    pub fn set_composing(&self, composing: bool) {
        self.0.composing.store(composing, Ordering::SeqCst);
    }

    /// Whether it still is: SIGINT ends it.
    pub fn composing(&self) -> bool {
        self.0.composing.load(Ordering::SeqCst)
    }

    /// Ctrl+C in the line that is being typed, which the line editor has dropped; whether it quits. Otherwise
    /// it is said what does.
    pub fn interrupt_line(&self) -> bool {
        match self.0.at_prompt(Instant::now()) {
            AtPrompt::Quit => true,
            AtPrompt::Hint(hint) => {
                eprintln!("huozi: {hint}");
                false
            }
        }
    }

    /// A new line was typed: an earlier Ctrl+C no longer counts.
    pub fn rearm(&self) {
        self.0.forget_hint();
        if self.0.code.load(Ordering::SeqCst) != TERMINATED {
            self.0.code.store(0, Ordering::SeqCst);
            self.0.cancel.store(false, Ordering::SeqCst);
        }
    }
}

/// What SIGINT does while a chat waits for input.
#[derive(Debug, PartialEq)]
enum AtPrompt {
    /// It ends the process.
    Quit,
    /// What was typed is dropped, and this is said.
    Hint(&'static str),
}

impl State {
    fn forget_hint(&self) -> Option<Instant> {
        self.hinted.lock().ok().and_then(|mut hinted| hinted.take())
    }

    /// SIGINT while a chat waits for input. The terminal or the line editor has thrown away the unfinished
    /// line.
    fn at_prompt(&self, now: Instant) -> AtPrompt {
        let before = self.forget_hint();
        if self.composing.swap(false, Ordering::SeqCst) {
            return AtPrompt::Hint("dropped; Ctrl+C twice or Ctrl+D quits");
        }
        if before.is_some_and(|then| now.saturating_duration_since(then) < TWICE) {
            return AtPrompt::Quit;
        }
        if let Ok(mut hinted) = self.hinted.lock() {
            *hinted = Some(now);
        }
        AtPrompt::Hint("Ctrl+C once more within two seconds, or Ctrl+D, quits")
    }

    fn on(self: &Arc<Self>, signal: i32) {
        let code = if signal == SIGTERM { TERMINATED } else { INTERRUPTED };
        let busy = self.busy.load(Ordering::SeqCst);
        if !busy && self.chatting.load(Ordering::SeqCst) && code == INTERRUPTED {
            match self.at_prompt(Instant::now()) {
                AtPrompt::Quit => {
                    eprintln!();
                    end(code);
                }
                AtPrompt::Hint(hint) => eprint!("\nhuozi: {hint}\n> "),
            }
            return;
        }
        let again = self.cancel.swap(true, Ordering::SeqCst);
        self.code.store(code, Ordering::SeqCst);
        if !busy || again {
            end(code);
        }
        if code == TERMINATED || !self.chatting.load(Ordering::SeqCst) {
            // What waits for a reader of its output, or for a disk, does not see the flag. A service manager
            // that sends SIGTERM sends SIGKILL next, and a person does not wait long after Ctrl+C.
            let spawned = std::thread::Builder::new().spawn(move || {
                std::thread::sleep(IN_ORDER);
                end(code);
            });
            if spawned.is_err() {
                end(code);
            }
        }
    }
}

/// Ends the process, which gives a terminal back that a chat has taken.
fn end(code: u8) -> ! {
    give_back();
    std::process::exit(code.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_second_in_a_row_at_an_empty_prompt_quits() {
        let signals = Signals::default();
        let (state, start) = (&signals.0, Instant::now());
        let quits = |ms| state.at_prompt(start + Duration::from_millis(ms)) == AtPrompt::Quit;
        assert!(!quits(0));
        assert!(quits(500));
        // A line between them.
        assert!(!quits(1000));
        signals.rearm();
        assert!(!quits(1500));
        // A line that was begun and not ended takes longer to type.
        assert!(!quits(9000));
        // A message of several lines is dropped, and does not count.
        signals.set_composing(true);
        assert!(!quits(9100) && !signals.composing());
        assert!(!quits(9200));
        assert!(quits(9300));
    }
}
