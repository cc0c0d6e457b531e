//! Cancelling from other threads while a step runs: a step ends at once when all its requests are cancelled.

use super::request::RequestId;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Which requests the running step carries, and which of all requests are cancelled.
#[derive(Default)]
pub(super) struct Cancels {
    state: Mutex<CancelState>,
    /// Ends the running step.
    stop: AtomicBool,
}

#[derive(Default)]
struct CancelState {
    /// Requests that the running step carries; none between two steps.
    in_step: Vec<RequestId>,
    cancelled: BTreeSet<RequestId>,
    closed: bool,
}

impl CancelState {
    fn is_void(&self) -> bool {
        let cancelled = |id| self.cancelled.contains(id);
        self.closed || (!self.in_step.is_empty() && self.in_step.iter().all(cancelled))
    }
}

impl Cancels {
    fn lock(&self) -> MutexGuard<'_, CancelState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The flag that the engine polls.
    pub fn flag(&self) -> &AtomicBool {
        &self.stop
    }

    /// A step with these requests begins.
    pub fn begin(&self, ids: Vec<RequestId>) {
        let mut state = self.lock();
        state.in_step = ids;
        self.stop.store(state.is_void(), Ordering::Relaxed);
    }

    /// The step ended.
    pub fn end(&self) {
        self.lock().in_step.clear();
    }

    /// Cancels a request; ends the running step if it carries no other that goes on.
    pub fn cancel(&self, id: RequestId) {
        let mut state = self.lock();
        state.cancelled.insert(id);
        if state.in_step.contains(&id) && state.is_void() {
            self.stop.store(true, Ordering::Relaxed);
        }
    }

    /// The scheduler has been told of this request's end.
    pub fn forget(&self, id: RequestId) {
        self.lock().cancelled.remove(&id);
    }

    /// Ends the running step and all that begin later.
    pub fn close(&self) {
        self.lock().closed = true;
        self.stop.store(true, Ordering::Relaxed);
    }
}
