//! The pane that shows how a model is opened.

use super::interface::Ui;
use super::look::{bytes, seconds};
use super::text::{fit, one_line};
use crate::session::open::Step;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// A model that is being opened.
#[derive(Clone, Debug)]
pub struct Loading {
    name: String,
    /// How far: the step, bytes done and of all.
    step: Option<(Step, u64, u64)>,
    since: Instant,
    cancel: Arc<AtomicBool>,
}

impl Loading {
    /// The model called `name` is opened from `since` on, until `cancel`.
    pub fn new(name: String, since: Instant, cancel: Arc<AtomicBool>) -> Self {
        Self { name, step: None, since, cancel }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What ends it.
    pub fn cancel(&self) -> &Arc<AtomicBool> {
        &self.cancel
    }

    /// Ends it.
    pub fn stop(&self) {
        self.cancel.store(true, Ordering::Relaxed);
    }

    /// How far it is: the step, bytes done and of all.
    pub fn progress(&mut self, step: Step, done: u64, total: u64) {
        self.step = Some((step, done, total));
    }

    /// Shows the pane; gives the row below it.
    pub fn render(&self, ui: Ui, now: Instant, screen: Rect, buffer: &mut Buffer) -> u16 {
        let Ui { words, look, .. } = ui;
        let cells = usize::from(screen.width).saturating_sub(4);
        let x = screen.x + 2;
        let mut y = screen.y + screen.height / 3;
        let mut put = |text: &str, style: Style| {
            buffer.set_string(x, y, fit(text, cells), style);
            y += 1;
        };
        put(&format!("{} {}", words.opening, one_line(&self.name)), look.heading());
        let (what, done) = match self.step {
            None => (words.step_start, 0.0),
            Some((step, done, total)) => {
                let share = if total == 0 { 1.0 } else { done as f64 / total as f64 };
                match step {
                    Step::Convert => (words.step_convert, share),
                    Step::Read => (words.step_read, share),
                    Step::Build => (words.step_build, 0.0),
                }
            }
        };
        put(&look.gauge(done, cells.min(50)), look.model());
        let elapsed = now.saturating_duration_since(self.since).as_secs_f64();
        let mut line = what.to_owned();
        if let Some((_, of, total)) = self.step.filter(|&(_, _, total)| total > 0) {
            line += &format!("  {} / {}", bytes(of), bytes(total));
            if done > 0.02 && done < 1.0 && elapsed > 1.0 {
                line += &format!("  {} {}", words.left, seconds(elapsed / done * (1.0 - done)));
            }
        }
        put(&line, look.dim());
        let keys = if self.cancel.load(Ordering::Relaxed) { words.stopping } else { words.esc_stops };
        buffer.set_string(x, screen.bottom() - 1, fit(keys, cells), look.dim());
        y
    }
}
