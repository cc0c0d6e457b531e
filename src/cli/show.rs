//! A session's events on a terminal or in a pipe: the answer to standard output, everything else to standard
//! error.

use super::args::SamplingArgs;
use super::printer::{Printer, bytes};
use crate::schedule::Stop;
use crate::session::{Event, Settings, Stats, dropped_note};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What goes to standard error.
#[derive(Clone, Copy, Debug)]
pub struct Verbosity {
    /// Statistics after each answer.
    pub stats: bool,
    /// Progress.
    pub progress: bool,
    /// Notices that are not errors.
    pub notes: bool,
    /// The seed, where no statistics show it.
    pub seed: bool,
}

impl Verbosity {
    /// From `-q`, `-v` and whether standard error is a terminal. A random seed is shown if the answer depends
    /// on it.
    pub fn new(quiet: bool, verbose: bool, typed: &SamplingArgs, settings: &Settings) -> Self {
        let terminal = io::stderr().is_terminal();
        let stats = !quiet && (verbose || terminal);
        let draws = settings.sampling.do_sample && settings.sampling.temperature > 0.0;
        Self {
            stats,
            progress: !quiet && terminal,
            notes: !quiet,
            seed: !quiet && !stats && draws && typed.patch.seed.is_none(),
        }
    }
}

/// Shows events as they come.
pub struct Show<'a> {
    printer: &'a mut Printer,
    verbosity: Verbosity,
    /// Whether text is streamed, or kept back for a JSON object.
    stream: bool,
    cancel: &'a AtomicBool,
    bar: Option<ProgressBar>,
    failed: Option<io::Error>,
    /// Ends the answer after standard output was closed by its reader.
    stop: bool,
}

impl<'a> Show<'a> {
    /// `cancel` is set when standard output can no longer be written.
    pub fn new(printer: &'a mut Printer, verbosity: Verbosity, stream: bool, cancel: &'a AtomicBool) -> Self {
        Self { printer, verbosity, stream, cancel, bar: None, failed: None, stop: false }
    }

    /// Takes one event.
    pub fn event(&mut self, event: &Event) {
        match event {
            Event::Prompt { done, total } => self.prompt(*done, *total),
            Event::Token(_) => {}
            Event::Text(text) => {
                self.clear();
                if self.stream
                    && self.failed.is_none()
                    && let Err(error) = self.printer.text(text)
                {
                    self.failed = Some(error);
                    self.stop = true;
                    self.cancel.store(true, Ordering::Relaxed);
                }
            }
            Event::Dropped { exchanges, limit } => self.note(&dropped_note(*exchanges, *limit)),
            Event::Notice(notice) => self.note(&notice.to_string()),
            Event::Stopped(stop) => {
                self.clear();
                if self.stream && self.failed.is_none() {
                    self.failed = self.printer.end_line().err();
                }
                if self.verbosity.notes && !self.stop {
                    match stop {
                        Stop::MaxTokens => eprintln!("[stopped: the limit of -n is reached]"),
                        Stop::ContextFull => eprintln!("[stopped: the context is full]"),
                        Stop::Cancelled if self.verbosity.stats => eprintln!("[stopped]"),
                        Stop::Cancelled | Stop::EndToken(_) | Stop::Hook | Stop::BrokenLogits => {}
                    }
                }
            }
            Event::Stats(stats) => {
                if self.verbosity.stats && !self.stop {
                    eprintln!("{}", stats_line(stats));
                } else if self.verbosity.seed && !self.stop {
                    eprintln!("[seed {}]", stats.seed);
                }
            }
        }
    }

    /// Ends the display; the error of standard output, if it failed.
    ///
    /// # Errors
    /// The first error of standard output.
    pub fn finish(mut self) -> io::Result<()> {
        self.clear();
        self.failed.take().map_or(Ok(()), Err)
    }

    fn note(&mut self, text: &str) {
        self.clear();
        if self.verbosity.notes {
            eprintln!("huozi: {text}");
        }
    }

    fn prompt(&mut self, done: usize, total: usize) {
        if !self.verbosity.progress {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            let bar = ProgressBar::new(total as u64);
            if let Ok(style) = ProgressStyle::with_template("reading {bar:30} {pos}/{len} tokens") {
                bar.set_style(style);
            }
            bar
        });
        bar.set_position(done as u64);
        if done >= total {
            self.clear();
        }
    }

    fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

/// Tokens, rates and seed of a turn in one line.
pub fn stats_line(stats: &Stats) -> String {
    let reused = match stats.reused_tokens {
        0 => String::new(),
        n => format!(" (+{n} kept)"),
    };
    format!(
        "[prompt {} tokens{reused}, {:.1}/s | answer {} tokens, {:.1}/s | context {}/{} | seed {}{}]",
        stats.prompt_tokens,
        stats.prompt_rate(),
        stats.generated_tokens,
        stats.generate_rate(),
        stats.context_used,
        stats.context,
        stats.seed,
        if stats.attempt > 0 {
            format!(", attempt {}", stats.attempt.saturating_add(1))
        } else {
            String::new()
        },
    )
}

/// A counter on standard error: a bar on a terminal, a line every ten seconds elsewhere, nothing when quiet.
pub struct Counter {
    bar: Option<ProgressBar>,
    /// Nothing is shown before.
    from: Instant,
    plain: bool,
    last: Instant,
    total: u64,
    bytes: bool,
}

/// Work that takes less time needs no progress.
const PATIENCE: Duration = Duration::from_millis(500);

impl Counter {
    /// Counts to `total`, bytes if `is_bytes`.
    pub fn new(total: u64, is_bytes: bool, quiet: bool) -> Self {
        let terminal = io::stderr().is_terminal();
        let bar = (!quiet && terminal).then(|| {
            let bar = ProgressBar::new(total);
            let template = if is_bytes {
                "{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta} left {msg}"
            } else {
                "{bar:30} {pos}/{len} {eta} left {msg}"
            };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar
        });
        let now = Instant::now();
        Self { bar, from: now, plain: !quiet && !terminal, last: now, total, bytes: is_bytes }
    }

    /// As [`new`](Self::new) for work that is mostly done at once: shows nothing unless it takes time.
    pub fn patient(total: u64, is_bytes: bool, quiet: bool) -> Self {
        let mut counter = Self::new(total, is_bytes, quiet);
        counter.from += PATIENCE;
        counter
    }

    /// Runs `print`, which writes to the terminal, with the bar hidden.
    pub fn hidden<T>(&self, print: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    /// Shows that `done` are done.
    pub fn set(&mut self, done: u64, message: &str) {
        if Instant::now() < self.from {
            return;
        }
        if let Some(bar) = &self.bar {
            bar.set_message(message.to_owned());
            bar.set_position(done);
        } else if self.plain && self.last.elapsed() > Duration::from_secs(10) {
            self.last = Instant::now();
            let show = |n| if self.bytes { bytes(n) } else { n.to_string() };
            eprintln!("{}/{} {message}", show(done), show(self.total));
        }
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
