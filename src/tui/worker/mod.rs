//! The two threads behind the screen: one owns the model and the open conversation, the other does what takes
//! a moment on disk. In: [`ModelTask`] and [`DeskTask`]. Out: [`Report`]s. Neither knows the screen.

mod desk;
mod keep;
mod kept;
mod model;
mod part;
mod paths;
mod state;
mod task;

pub use paths::{Completed, path_of};
pub use task::{AskKind, Chosen, DeskTask, ModelEntry, ModelTask, Report, ReportSink, Setup, Talk};

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use task::Pending;

/// Both threads.
pub struct Workers {
    work: Sender<(ModelTask, Pending)>,
    /// Work that the model's thread has not begun, but its end.
    waiting: Arc<AtomicUsize>,
    desk: Sender<(DeskTask, Pending)>,
    /// How many [`Pending`]s there are.
    pending: Arc<AtomicUsize>,
    ending: Arc<AtomicBool>,
    /// Lists that the desk was asked for: while a word is typed only the last matters.
    lists: Arc<AtomicUsize>,
    threads: [JoinHandle<()>; 2],
}

impl Workers {
    /// Starts both.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub fn start(setup: Setup, send: ReportSink) -> std::io::Result<Self> {
        let (work, works) = mpsc::channel();
        let (desk, desks) = mpsc::channel();
        let ending = Arc::new(AtomicBool::new(false));
        let waiting = Arc::new(AtomicUsize::new(0));
        let (lists, pending) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (to, at, wait) = (send.clone(), setup.clone(), waiting.clone());
        let mut desk_of = desk::DeskWorker::new(setup, send, lists.clone(), ending.clone());
        let threads = [
            std::thread::Builder::new().name("model".into()).spawn(move || {
                state::ModelWorker::new(at, to, wait).run(&works);
            })?,
            std::thread::Builder::new().name("desk".into()).spawn(move || {
                desk_of.run(&desks);
            })?,
        ];
        Ok(Self { work, waiting, desk, pending, ending, lists, threads })
    }

    /// Gives work to the model's thread.
    pub fn work(&self, work: ModelTask) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        // It ends only when this does.
        let _ = self.work.send((work, Pending::new(&self.pending)));
    }

    /// Gives work to the other thread.
    pub fn desk(&self, desk: DeskTask) {
        if matches!(desk, DeskTask::List(_)) {
            self.lists.fetch_add(1, Ordering::SeqCst);
        }
        let _ = self.desk.send((desk, Pending::new(&self.pending)));
    }

    /// Ends the model's thread; waits for that until `until` at most. What it tells then can still be given
    /// to the desk.
    pub fn end_model(&self, until: Instant) {
        self.ending.store(true, Ordering::Relaxed);
        let _ = self.work.send((ModelTask::Quit, Pending::new(&self.pending)));
        while !self.threads[0].is_finished() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until both threads have ended, until `until` at most. Whether they have tried to write all that
    /// was said, and all that the desk was given to write: what they could not is told.
    pub fn finish(self, until: Instant) -> bool {
        self.end_model(until);
        let Self { desk, pending, threads, .. } = self;
        // It ends when nothing more can come.
        drop(desk);
        let done = || threads.iter().all(JoinHandle::is_finished);
        while !done() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        pending.load(Ordering::SeqCst) == 0
    }
}
