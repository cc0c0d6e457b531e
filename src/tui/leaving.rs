//! The part of the state that knows whether the program is about to end.

use std::time::{Duration, Instant};

/// A second Ctrl+C quits if it comes this soon.
pub const TWICE: Duration = Duration::from_secs(2);
/// A second wish to quit without what could not be saved counts if it comes this soon.
const AGAIN: Duration = Duration::from_secs(10);
/// And not sooner than this: a key that is held down is one wish.
const LEAST: Duration = Duration::from_millis(300);

/// The part.
#[derive(Default)]
pub struct Leaving {
    /// When Ctrl+C was pressed with nothing to stop.
    interrupted: Option<Instant>,
    /// When it was last asked to quit without what could not be saved.
    asked: Option<Instant>,
    quitting: bool,
}

impl Leaving {
    /// Whether the program ends.
    pub fn is_quitting(&self) -> bool {
        self.quitting
    }

    /// The program ends.
    pub fn quit(&mut self) {
        self.quitting = true;
    }

    /// Something else happened since Ctrl+C: the next one is a first one again.
    pub fn forget_interrupt(&mut self) {
        self.interrupted = None;
    }

    /// What could not be saved is saved, or cannot be for another reason: the next wish is a first one.
    pub fn forget_wish(&mut self) {
        self.asked = None;
    }

    /// Takes a Ctrl+C; whether it quits. With something `unsaved` it is an answer to that question as well.
    pub fn interrupt(&mut self, unsaved: bool, now: Instant) -> bool {
        let soon =
            |then: Option<Instant>, most| then.is_some_and(|then| now.saturating_duration_since(then) < most);
        let quits = soon(self.interrupted, TWICE) || unsaved && soon(self.asked, AGAIN);
        if !quits {
            self.interrupted = Some(now);
        }
        quits
    }

    /// Takes a wish to quit although something is not saved; whether it is the second one.
    pub fn insists(&mut self, now: Instant) -> bool {
        let before = self.asked.replace(now).map(|then| now.saturating_duration_since(then));
        before.is_some_and(|time| (LEAST..AGAIN).contains(&time))
    }
}
