//! Threads that work through the phases of one step together.
//!
//! A [`Team`] is entered once per step. Inside, the calling thread leads: it runs ordinary sequential code
//! and hands out phases; in a phase all members claim pieces of work from one atomic counter. Between phases
//! the others wait in a bounded spin, then park, so a phase costs two cache-line trips instead of a wake-up
//! of every thread. The threads are a rayon pool used for nothing else.
//!
//! The one idea that needs `unsafe` here: a claim counter hands out every index once, so pieces of a slice
//! cut by index can be given out as `&mut` to different threads.

use crate::tile::Tile;
use std::any::Any;
use std::marker::PhantomData;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

/// Spins before a waiting thread parks: some 20 to 50 microseconds, a little more than the leader's work
/// between two phases of a decode step takes.
const SPINS: u32 = 4000;

/// A persistent team of threads.
pub struct Team {
    pool: Option<rayon::ThreadPool>,
    threads: usize,
    /// Spins before a wait parks.
    spins: u32,
    /// A leader is inside: a second entry would wait forever behind the first.
    entered: AtomicBool,
}

impl Team {
    /// A team of `threads` members (at least one), the thread that enters it being one of them.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn new(threads: usize) -> Result<Self, rayon::ThreadPoolBuildError> {
        let threads = threads.max(1);
        let pool = match threads {
            1 => None,
            _ => Some(
                rayon::ThreadPoolBuilder::new()
                    .num_threads(threads - 1)
                    .thread_name(|i| format!("huozi-{}", i + 1))
                    .build()?,
            ),
        };
        // The pool may have fewer than asked for: rayon has a limit of its own.
        let threads = 1 + pool.as_ref().map_or(0, rayon::ThreadPool::current_num_threads);
        // With more threads than processors a thread that spins keeps another from its work.
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let spins = if threads > processors { 0 } else { SPINS };
        Ok(Self { pool, threads, spins, entered: AtomicBool::new(false) })
    }

    /// Members, the leader included.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Runs `lead` on this thread with the other members ready for phases. Once `cancel` is set no further
    /// piece of work is claimed: what a phase has written is then incomplete.
    ///
    /// A phase is handed out by the leader alone, never from inside a piece of work:
    ///
    /// ```compile_fail
    /// # use huozi_quant::team::Team;
    /// # let team = Team::new(2).unwrap();
    /// team.enter(&Default::default(), |crew| crew.each(4, |_| crew.each(4, |_| {})));
    /// ```
    ///
    /// # Panics
    /// When `lead` or a piece of work panics, or when the team is entered already.
    pub fn enter<R>(&self, cancel: &AtomicBool, lead: impl FnOnce(&Crew<'_>) -> R) -> R {
        assert!(!self.entered.swap(true, Ordering::Acquire), "a team is entered once at a time");
        let _leave = Leave(&self.entered);
        let phases = Phases { spins: self.spins, ..Phases::default() };
        let crew = Crew { phases: &phases, workers: self.threads - 1, cancel, leader: PhantomData };
        match &self.pool {
            None => lead(&crew),
            Some(pool) => pool.in_place_scope(|scope| {
                scope.spawn_broadcast(|_, _| phases.serve());
                // Closes also when `lead` unwinds, or the members would wait for ever.
                let _close = Close(&phases);
                lead(&crew)
            }),
        }
    }
}

struct Leave<'a>(&'a AtomicBool);
impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// The job of the current phase, valid while the phase runs.
#[derive(Clone, Copy)]
struct Job(*const (dyn Fn() + Sync));
// SAFETY: the pointee is `Sync`, and `Crew::run` keeps it alive until every member is done with it.
unsafe impl Send for Job {}

#[derive(Default)]
struct Phases {
    spins: u32,
    /// Phases published so far; stored after `job` is set.
    published: AtomicUsize,
    /// Members that finished a phase, over all phases.
    finished: AtomicUsize,
    closed: AtomicBool,
    /// Threads that gave up spinning. Sequentially consistent with the three above: a thread counts itself
    /// here and then looks at them, a change is stored in them before this is looked at, so one of the two
    /// sees the other.
    parked: AtomicUsize,
    /// The job; also what parked threads wait on.
    job: Mutex<Option<Job>>,
    changed: Condvar,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

struct Close<'a>(&'a Phases);
impl Drop for Close<'_> {
    fn drop(&mut self) {
        self.0.closed.store(true, Ordering::SeqCst);
        self.0.notify();
    }
}

impl Phases {
    /// Wakes parked threads. The lock makes sure that none is between its last look and its wait.
    fn notify(&self) {
        if self.parked.load(Ordering::SeqCst) == 0 {
            return;
        }
        drop(self.job.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }

    fn wait(&self, ready: impl Fn() -> bool) {
        for _ in 0..self.spins {
            if ready() {
                return;
            }
            std::hint::spin_loop();
        }
        let mut guard = self.job.lock().unwrap_or_else(PoisonError::into_inner);
        self.parked.fetch_add(1, Ordering::SeqCst);
        while !ready() {
            guard = self.changed.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.parked.fetch_sub(1, Ordering::SeqCst);
    }

    /// What a member other than the leader does until the team is left.
    fn serve(&self) {
        let mut seen = 0;
        loop {
            self.wait(|| self.published.load(Ordering::SeqCst) != seen || self.closed.load(Ordering::SeqCst));
            if self.published.load(Ordering::SeqCst) == seen {
                return;
            }
            seen += 1;
            let job = *self.job.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(Job(job)) = job {
                // SAFETY: `Crew::run` published this job and does not return before `finished` counts this
                // member.
                let outcome = catch_unwind(AssertUnwindSafe(|| unsafe { (*job)() }));
                if let Err(panic) = outcome {
                    self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(panic);
                }
            }
            self.finished.fetch_add(1, Ordering::SeqCst);
            self.notify();
        }
    }
}

/// A team that has been entered: hands out phases.
pub struct Crew<'a> {
    phases: &'a Phases,
    workers: usize,
    cancel: &'a AtomicBool,
    /// Neither `Send` nor `Sync`: phases must not overlap, so only the leader's own code may hand them out.
    leader: PhantomData<*const ()>,
}

impl Crew<'_> {
    /// Members, the leader included.
    pub fn threads(&self) -> usize {
        self.workers + 1
    }

    /// Whether the step was cancelled.
    pub fn cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }

    /// One phase: `work(i)` for every `i` in `0..n`, each by whichever member claims it.
    ///
    /// # Panics
    /// When `work` panics.
    pub fn each(&self, n: usize, work: impl Fn(usize) + Sync) {
        let next = AtomicUsize::new(0);
        let cancel = self.cancel;
        let claim = || {
            while !cancel.load(Ordering::Relaxed) {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= n {
                    return;
                }
                work(i);
            }
        };
        // A single piece is done by the leader alone.
        if self.workers == 0 || n <= 1 { claim() } else { self.run(&claim) }
    }

    /// Publishes `job` to every member, takes part, and waits for all.
    fn run(&self, job: &(dyn Fn() + Sync)) {
        let phases = self.phases;
        // SAFETY: only the lifetime changes. Phases never overlap, since a `Crew` stays with its leader
        // (`!Sync`) and a team is entered once at a time. The pointer is dereferenced between the store to
        // `published` below and the count of `finished` that this function waits for before it returns or
        // unwinds.
        let job_static: &'static (dyn Fn() + Sync) = unsafe { std::mem::transmute(job) };
        *phases.job.lock().unwrap_or_else(PoisonError::into_inner) = Some(Job(job_static));
        let phase = phases.published.load(Ordering::Relaxed) + 1;
        phases.published.store(phase, Ordering::SeqCst);
        phases.notify();
        let own = catch_unwind(AssertUnwindSafe(job));
        phases.wait(|| phases.finished.load(Ordering::SeqCst) == phase * self.workers);
        *phases.job.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let others = phases.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(panic) = own.err().or(others) {
            resume_unwind(panic);
        }
    }

    /// One phase over the rows of `data`, `(n, row_len)` row-major: `work(i, row i)`.
    ///
    /// # Panics
    /// When `data` is not whole rows, or `work` panics.
    pub fn rows<T: Send>(&self, data: &mut [T], row_len: usize, work: impl Fn(usize, &mut [T]) + Sync) {
        if data.is_empty() {
            return;
        }
        assert!(row_len > 0 && data.len().is_multiple_of(row_len), "whole rows");
        let n = data.len() / row_len;
        let base = Base(data.as_mut_ptr());
        self.each(n, |i| {
            assert!(i < n);
            // SAFETY: row `i < n` lies inside `data`, which is borrowed mutably for the whole phase; the
            // counter in `each` gives every `i` to one member only, so rows never overlap.
            let row = unsafe { std::slice::from_raw_parts_mut(base.at(i * row_len), row_len) };
            work(i, row);
        });
    }

    /// One phase over vertical strips of `data`, `(m, width)` row-major: strips of `chunk` columns (the last
    /// may be narrower), `work(first column, strip)`.
    ///
    /// # Panics
    /// When `data` is not whole rows, or `work` panics.
    pub fn strips(
        &self,
        data: &mut [f32],
        width: usize,
        chunk: usize,
        work: impl Fn(usize, Tile<'_>) + Sync,
    ) {
        if data.is_empty() {
            return;
        }
        assert!(chunk > 0 && width > 0 && data.len().is_multiple_of(width), "whole rows");
        let rows = data.len() / width;
        // From first to last: weights are streamed in the order they lie in.
        let all = 0..rows;
        self.pieces(
            data,
            width,
            chunk,
            std::slice::from_ref(&all),
            |i, _| i,
            |_, first, tile| work(first, tile),
        );
    }

    /// One phase over pieces of `data`, `(m, width)` row-major: for each group of rows its strips of `chunk`
    /// columns (the last may be narrower), `work(group, first column, piece)`. Claimed from the last group
    /// and strip to the first.
    ///
    /// # Panics
    /// When `data` is not whole rows, `groups` are not ascending ranges of rows without overlap, or `work`
    /// panics.
    pub fn grid(
        &self,
        data: &mut [f32],
        width: usize,
        chunk: usize,
        groups: &[Range<usize>],
        work: impl Fn(usize, usize, Tile<'_>) + Sync,
    ) {
        if !data.is_empty() {
            self.pieces(data, width, chunk, groups, |i, n| n - 1 - i, work);
        }
    }

    /// [`Self::grid`] with the `i`-th claim of `n` going to piece `order(i, n)`; `data` is not empty.
    fn pieces(
        &self,
        data: &mut [f32],
        width: usize,
        chunk: usize,
        groups: &[Range<usize>],
        order: impl Fn(usize, usize) -> usize + Sync,
        work: impl Fn(usize, usize, Tile<'_>) + Sync,
    ) {
        assert!(chunk > 0 && width > 0 && data.len().is_multiple_of(width), "whole rows");
        let rows = data.len() / width;
        let mut end = 0;
        for group in groups {
            assert!(end <= group.start && group.start <= group.end && group.end <= rows, "groups of rows");
            end = group.end;
        }
        let strips = width.div_ceil(chunk);
        let n = strips * groups.len();
        let base = Base(data.as_mut_ptr());
        self.each(n, |i| {
            let i = order(i, n);
            let (group, first) = (i / strips, i % strips * chunk);
            let Range { start, end } = groups[group];
            assert!(first < width);
            // SAFETY: `start <= rows` and `first < width`; a group without rows at the very end is not read.
            // The rows of the groups do not overlap, nor do the strips of a row, and each piece is claimed
            // once; `data` is borrowed mutably for the whole phase.
            let tile = unsafe {
                let corner = base.at((start * width + first).min(rows * width));
                Tile::new(corner, end - start, width, chunk.min(width - first))
            };
            work(group, first, tile);
        });
    }
}

/// The start of a slice that members cut disjoint pieces from.
struct Base<T>(*mut T);
// SAFETY: pieces are disjoint (see `rows` and `strips`) and `T: Send`, so handing them to threads is sending
// `T`s.
unsafe impl<T: Send> Sync for Base<T> {}
impl<T> Base<T> {
    /// # Safety
    /// `i` must not be past the end of the slice.
    unsafe fn at(&self, i: usize) -> *mut T {
        // SAFETY: the caller's duty.
        unsafe { self.0.add(i) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNS: [usize; 4] = [1, 2, 3, 8];

    #[test]
    fn every_row_is_visited_once() {
        for threads in RUNS {
            let team = Team::new(threads).unwrap();
            let mut data = vec![0u32; 7 * 1001];
            team.enter(&AtomicBool::new(false), |crew| {
                for _ in 0..50 {
                    crew.rows(&mut data, 7, |i, row| row.iter_mut().for_each(|x| *x += i as u32));
                }
            });
            assert!(data.chunks(7).enumerate().all(|(i, row)| row.iter().all(|&x| x == 50 * i as u32)));
        }
    }

    #[test]
    fn strips_cover_every_column_once() {
        for threads in RUNS {
            let team = Team::new(threads).unwrap();
            let mut data = vec![0.0f32; 5 * 103];
            team.enter(&AtomicBool::new(false), |crew| {
                crew.strips(&mut data, 103, 10, |first, mut tile| {
                    for r in 0..tile.rows() {
                        for (j, x) in tile.row(r).iter_mut().enumerate() {
                            *x += (r * 1000 + first + j) as f32;
                        }
                    }
                });
            });
            assert!(data.iter().enumerate().all(|(i, &x)| x == (i / 103 * 1000 + i % 103) as f32));
        }
    }

    #[test]
    fn grids_cover_the_groups_and_nothing_else() {
        for threads in RUNS {
            let team = Team::new(threads).unwrap();
            let mut data = vec![0.0f32; 9 * 103];
            team.enter(&AtomicBool::new(false), |crew| {
                crew.grid(&mut data, 103, 10, &[1..2, 2..2, 3..8], |group, first, mut tile| {
                    assert_eq!(tile.rows(), [1, 0, 5][group]);
                    for r in 0..tile.rows() {
                        for (j, x) in tile.row(r).iter_mut().enumerate() {
                            *x += (group * 10_000 + r * 1000 + first + j) as f32;
                        }
                    }
                });
            });
            for (r, row) in data.chunks(103).enumerate() {
                let expected = |j: usize| match r {
                    1 => j,
                    3..8 => 20_000 + (r - 3) * 1000 + j,
                    _ => 0,
                };
                assert!(row.iter().enumerate().all(|(j, &x)| x == expected(j) as f32), "row {r}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "groups of rows")]
    fn groups_that_overlap_are_refused() {
        let team = Team::new(1).unwrap();
        team.enter(&AtomicBool::new(false), |crew| {
            crew.grid(&mut [0.0; 12], 3, 3, &[0..2, 1..4], |_, _, _| {});
        });
    }

    #[test]
    fn a_panic_in_a_piece_of_work_reaches_the_caller_and_the_team_survives() {
        for threads in RUNS {
            let team = Team::new(threads).unwrap();
            let cancel = AtomicBool::new(false);
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                team.enter(&cancel, |crew| crew.each(100, |i| assert!(i != 57, "piece 57")));
            }));
            assert!(outcome.is_err());
            let sum = AtomicUsize::new(0);
            team.enter(&cancel, |crew| {
                crew.each(100, |i| {
                    sum.fetch_add(i, Ordering::Relaxed);
                });
            });
            assert_eq!(sum.into_inner(), 4950);
        }
    }

    #[test]
    fn members_that_parked_are_woken() {
        let team = Team::new(3).unwrap();
        let sum = AtomicUsize::new(0);
        let pause = || std::thread::sleep(std::time::Duration::from_millis(2));
        team.enter(&AtomicBool::new(false), |crew| {
            for round in 0..30 {
                if round % 2 == 0 {
                    pause(); // the others park
                }
                crew.each(3, |i| {
                    if i == round % 3 {
                        pause(); // the leader parks, or one of the others does
                    }
                    sum.fetch_add(i, Ordering::Relaxed);
                });
            }
        });
        assert_eq!(sum.into_inner(), 90);
    }

    #[test]
    #[should_panic(expected = "once at a time")]
    fn a_second_entry_panics_instead_of_hanging() {
        let team = Team::new(2).unwrap();
        let cancel = AtomicBool::new(false);
        team.enter(&cancel, |_| team.enter(&cancel, |_| {}));
    }

    #[test]
    fn a_panic_of_the_leader_does_not_hang() {
        let team = Team::new(3).unwrap();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            team.enter(&AtomicBool::new(false), |_| panic!("leader"));
        }));
        assert!(outcome.is_err());
    }

    #[test]
    fn cancel_stops_the_claims() {
        let team = Team::new(2).unwrap();
        let cancel = AtomicBool::new(false);
        let done = AtomicUsize::new(0);
        team.enter(&cancel, |crew| {
            crew.each(1_000_000, |_| {
                if done.fetch_add(1, Ordering::Relaxed) >= 10 {
                    cancel.store(true, Ordering::Relaxed);
                }
            });
        });
        assert!(done.into_inner() < 1000);
    }
}
