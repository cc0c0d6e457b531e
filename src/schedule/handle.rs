//! A thread that owns a scheduler, and the handle that its clients share.
//!
//! Clients submit requests, cancel them, and take keys and values out and in; the thread runs one step after
//! the other while there are requests, and sleeps otherwise. Each client that
//! a failure concerns receives it: those of the requests in a step the engine's error, all clients a panic.

use super::cancels::Cancels;
use super::kept::KvBlock;
use super::request::{Refused, Request, RequestError, RequestEvent, RequestId, Stop, Timings};
use super::scheduler::Scheduler;
use crate::engine::{EngineError, Info, Seq};
use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::io;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long the thread waits, after a client's call and before the next step, for the call that follows it.
const NEXT_CALL: Duration = Duration::from_millis(1);
/// The longest that calls put off a step.
const CALLS: Duration = Duration::from_millis(5);

/// Receives the events of a request, mostly on the scheduler's thread: all requests wait while it works.
/// `Break` ends the request.
type Hook = Box<dyn FnMut(RequestEvent) -> ControlFlow<()> + Send>;

/// A client's request.
struct Client {
    /// Away while it is being called.
    hook: Option<Hook>,
    /// As of the last step.
    timings: Timings,
    /// It was cancelled while its hook was away.
    cancelled: bool,
}

/// What the thread does between two steps.
enum Job {
    Submit(RequestId, Request),
    Cancel(RequestId),
    Call(Box<dyn FnOnce(&mut Scheduler) + Send>),
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    clients: BTreeMap<RequestId, Client>,
    /// No handle is left.
    closed: bool,
    /// Why the thread has ended.
    ended: Option<String>,
}

/// What the handles and the thread share.
#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// There is a job, or no handle any more.
    changed: Condvar,
    cancels: Arc<Cancels>,
}

/// Closes the thread when the last handle goes.
struct Thread {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// Why there is no handle.
#[derive(Debug, thiserror::Error)]
pub enum StartError<E> {
    /// The scheduler could not be built.
    #[error(transparent)]
    Build(E),
    /// The system refuses a thread, or building the scheduler panicked.
    #[error("starting the engine: {0}")]
    Thread(io::Error),
}

/// A scheduler on a thread of its own. Clones talk to the same one; when the last is dropped the thread ends,
/// and the drop waits until the engine's memory is free.
#[derive(Clone)]
pub struct SchedulerHandle {
    shared: Arc<Shared>,
    info: Arc<Info>,
    next_id: Arc<AtomicU64>,
    _thread: Arc<Thread>,
}

impl SchedulerHandle {
    /// Starts the thread and builds the scheduler, and with it the engine, inside it.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start<E: Send + 'static>(
        build: impl FnOnce() -> Result<Scheduler, E> + Send + 'static,
    ) -> Result<Self, StartError<E>> {
        let shared = Arc::<Shared>::default();
        let (tell, built) = mpsc::channel();
        let at = shared.clone();
        let thread = std::thread::Builder::new().name("scheduler".into());
        let thread = thread.spawn(move || {
            let mut tell = Some(tell);
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                let mut scheduler = match build() {
                    Ok(scheduler) => scheduler,
                    Err(error) => {
                        if let Some(tell) = tell.take() {
                            let _ = tell.send(Err(error));
                        }
                        return;
                    }
                };
                scheduler.watched_by(at.cancels.clone());
                let start = (scheduler.info().clone(), scheduler.next_id());
                if let Some(tell) = tell.take() {
                    let _ = tell.send(Ok(start));
                }
                at.run(scheduler);
            }));
            let panic = outcome.err().map(|panic| message(&*panic));
            // A panic of `build` has no client yet: `start` finds it here.
            at.end(panic.unwrap_or_else(|| "it was closed".into()));
        });
        let thread = thread.map_err(StartError::Thread)?;
        let thread = Arc::new(Thread { shared: shared.clone(), thread: Some(thread) });
        match built.recv() {
            Ok(Ok((info, next_id))) => {
                let next_id = Arc::new(AtomicU64::new(next_id));
                Ok(Self { shared, info: info.into(), next_id, _thread: thread })
            }
            Ok(Err(error)) => Err(StartError::Build(error)),
            Err(_) => {
                drop(thread);
                let why = shared.lock().ended.clone();
                Err(StartError::Thread(io::Error::other(why.unwrap_or_default())))
            }
        }
    }

    /// Moves a scheduler that is built already to a thread of its own. Requests that it has run to their end,
    /// but no client receives their events.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub fn of(scheduler: Scheduler) -> io::Result<Self> {
        Self::start(move || Ok::<_, Infallible>(scheduler)).map_err(|error| match error {
            StartError::Build(never) => match never {},
            StartError::Thread(error) => error,
        })
    }

    /// What the engine is.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// Queues a request; its events go to `hook`, the last one is [`RequestEvent::is_last`]. The hook answers
    /// `Break` to end the request; it must be quick, and must not ask anything of this handle that waits for
    /// the scheduler.
    ///
    /// # Errors
    /// See [`Refused`]. That the thread has ended comes as an event.
    pub fn submit(
        &self,
        request: Request,
        hook: impl FnMut(RequestEvent) -> ControlFlow<()> + Send + 'static,
    ) -> Result<RequestId, Refused> {
        request.check(&self.info)?;
        let id = RequestId(self.next_id.fetch_add(1, Ordering::Relaxed));
        let mut hook: Hook = Box::new(hook);
        let mut state = self.shared.lock();
        if let Some(why) = state.ended.clone() {
            drop(state);
            let _ = call_hook(&mut hook, RequestEvent::Failed { id, error: RequestError::Ended(why) });
            return Ok(id);
        }
        let client = Client { hook: Some(hook), timings: Timings::default(), cancelled: false };
        state.clients.insert(id, client);
        state.jobs.push_back(Job::Submit(id, request));
        drop(state);
        self.shared.changed.notify_one();
        Ok(id)
    }

    /// Ends a request; unknown or ended ones are ignored. The client receives the end now, on this thread,
    /// with the timings of the last step: an engine may take long to end a step. The running step
    /// ends as soon as the engine can, unless it carries other requests; the place of this one is free then.
    pub fn cancel(&self, id: RequestId) {
        let mut state = self.shared.lock();
        if !state.clients.contains_key(&id) {
            return;
        }
        self.shared.cancels.cancel(id);
        state.jobs.push_back(Job::Cancel(id));
        drop(state);
        self.shared.changed.notify_one();
        self.shared.tell_cancelled(id);
    }

    /// How many of `ids`, from the first on, have their keys and values in one kept sequence. Waits for the
    /// running step.
    ///
    /// # Errors
    /// The thread has ended.
    pub fn kept(&self, ids: &[u32]) -> Result<usize, RequestError> {
        let ids = ids.to_vec();
        self.call(move |scheduler| scheduler.kept(&ids))
    }

    /// [`Scheduler::kv_layout`]. Waits for the running step.
    ///
    /// # Errors
    /// The thread has ended.
    pub fn kv_layout(&self) -> Result<Option<(String, usize)>, RequestError> {
        self.call(Scheduler::kv_layout)
    }

    /// [`Scheduler::export_block`]. Waits for the running step.
    ///
    /// # Errors
    /// What the engine says; the thread has ended.
    pub fn export_block(&self, ids: Arc<[u32]>, block: usize) -> Result<Option<KvBlock>, RequestError> {
        Ok(self.call(move |scheduler| scheduler.export_block(&ids, block))??)
    }

    /// [`Scheduler::import_block`]. Waits for the running step.
    ///
    /// # Errors
    /// The thread has ended.
    pub fn import_block(
        &self,
        to: Option<Seq>,
        before: &[u32],
        block: KvBlock,
    ) -> Result<Option<Seq>, RequestError> {
        let before = before.to_vec();
        self.call(move |scheduler| scheduler.import_block(to, &before, &block))
    }

    /// Has the thread do `work` before its next step, and waits for it.
    fn call<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Scheduler) -> R + Send + 'static,
    ) -> Result<R, RequestError> {
        let (tell, done) = mpsc::channel();
        let mut state = self.shared.lock();
        if let Some(why) = &state.ended {
            return Err(RequestError::Ended(why.clone()));
        }
        state.jobs.push_back(Job::Call(Box::new(move |scheduler| drop(tell.send(work(scheduler))))));
        drop(state);
        self.shared.changed.notify_one();
        done.recv().map_err(|_| {
            let why = self.shared.lock().ended.clone();
            RequestError::Ended(why.unwrap_or_else(|| "it panicked".into()))
        })
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs steps until no handle is left.
    fn run(&self, mut scheduler: Scheduler) {
        loop {
            let mut jobs = {
                let mut state = self.lock();
                while state.jobs.is_empty() && !state.closed && scheduler.is_idle() {
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                if state.closed {
                    return;
                }
                std::mem::take(&mut state.jobs)
            };
            // A client that saves or loads makes many calls, one after the other: not each waits for a step.
            let begun = Instant::now();
            while self.work_off(jobs, &mut scheduler) && !scheduler.is_idle() && begun.elapsed() < CALLS {
                jobs = self.next_jobs();
            }
            match scheduler.step(self.cancels.flag(), &mut |event| self.tell(event)) {
                // What was cancelled ends before the next step.
                Ok(_) | Err(EngineError::Cancelled) => {}
                Err(error) => {
                    for id in scheduler.abandon() {
                        let error = RequestError::Engine(error.clone());
                        let _ = self.tell(RequestEvent::Failed { id, error });
                    }
                }
            }
            let mut state = self.lock();
            for (id, timings) in scheduler.timings() {
                if let Some(client) = state.clients.get_mut(&id) {
                    client.timings = timings;
                }
            }
        }
    }

    /// Does `jobs`; says whether a client's call was among them.
    fn work_off(&self, jobs: VecDeque<Job>, scheduler: &mut Scheduler) -> bool {
        let mut called = false;
        for job in jobs {
            match job {
                Job::Submit(id, request) => scheduler.push(id, request),
                Job::Cancel(id) => {
                    scheduler.cancel(id);
                    self.cancels.forget(id);
                }
                Job::Call(work) => {
                    work(scheduler);
                    called = true;
                }
            }
        }
        called
    }

    /// The jobs that come within [`NEXT_CALL`].
    fn next_jobs(&self) -> VecDeque<Job> {
        let wait = |state: &mut State| state.jobs.is_empty() && !state.closed;
        let waited = self.changed.wait_timeout_while(self.lock(), NEXT_CALL, wait);
        std::mem::take(&mut waited.unwrap_or_else(PoisonError::into_inner).0.jobs)
    }

    /// Calls a client's hook and gives its answer. A client receives nothing after its last event.
    fn tell(&self, event: RequestEvent) -> ControlFlow<()> {
        let (id, last) = (event.id(), event.is_last());
        let mut state = self.lock();
        let Some(mut hook) = state.clients.get_mut(&id).and_then(|client| client.hook.take()) else {
            return ControlFlow::Continue(());
        };
        if last {
            state.clients.remove(&id);
        }
        // Without the lock: a hook may cancel a request.
        drop(state);
        let answer = call_hook(&mut hook, event);
        if last {
            return answer;
        }
        let mut state = self.lock();
        let cancelled = match state.clients.get_mut(&id) {
            Some(client) if !client.cancelled => {
                client.hook = Some(hook);
                return answer;
            }
            client => client.map(|client| client.timings),
        };
        state.clients.remove(&id);
        drop(state);
        if let Some(timings) = cancelled {
            let _ = call_hook(&mut hook, RequestEvent::Stopped { id, stop: Stop::Cancelled, timings });
        }
        answer
    }

    /// Tells a client that its request is cancelled.
    fn tell_cancelled(&self, id: RequestId) {
        let mut state = self.lock();
        match state.clients.get_mut(&id) {
            // Its hook is being called: the end follows when it returns.
            Some(client @ Client { hook: None, .. }) => client.cancelled = true,
            Some(&mut Client { timings, .. }) => {
                drop(state);
                let _ = self.tell(RequestEvent::Stopped { id, stop: Stop::Cancelled, timings });
            }
            None => {}
        }
    }

    /// The thread ends: tells every client why.
    fn end(&self, why: String) {
        let mut state = self.lock();
        state.ended = Some(why.clone());
        let (clients, jobs) = (std::mem::take(&mut state.clients), std::mem::take(&mut state.jobs));
        drop(state);
        // Callers waiting for a job get a receive error.
        drop(jobs);
        for (id, client) in clients {
            if let Some(mut hook) = client.hook {
                let error = RequestError::Ended(why.clone());
                let _ = call_hook(&mut hook, RequestEvent::Failed { id, error });
            }
        }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.cancels.close();
        self.shared.changed.notify_one();
        // A hook may hold the last handle: a thread does not wait for itself.
        if let Some(thread) = self.thread.take().filter(|at| at.thread().id() != std::thread::current().id())
        {
            let _ = thread.join();
        }
    }
}

/// Calls a client's hook. One that panics ends its own request only.
fn call_hook(hook: &mut Hook, event: RequestEvent) -> ControlFlow<()> {
    catch_unwind(AssertUnwindSafe(|| hook(event))).unwrap_or(ControlFlow::Break(()))
}

/// What a thread panicked with.
fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("unknown panic").to_owned()
}
