//! How far a batch is, on standard error, or as JSON.

use super::super::load;
use super::super::printer::{Printer, SCHEMA, json_line};
use super::start::Ready;
use crate::batch::RunProgress;
use crate::batch::output::BatchSummary;
use crate::engine::Info;
use anyhow::Result;
use huozi_quant::message::counted;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// Between two lines where standard error is no terminal.
const LINES: Duration = Duration::from_secs(30);
/// Between two JSON objects.
const OBJECTS: Duration = Duration::from_secs(5);
/// Between two changes of the bar.
const REDRAW: Duration = Duration::from_millis(250);

/// Shows how far a run is.
pub(super) struct Progress {
    /// Rows in all, where that is known.
    total: Option<u64>,
    /// Rows that an earlier run has done.
    before: u64,
    json: bool,
    quiet: bool,
    /// Results go to standard output: JSON objects do not.
    results_to_stdout: bool,
    bar: Option<ProgressBar>,
    begun: Instant,
    shown: Instant,
    last: RunProgress,
}

impl Progress {
    pub fn new(total: Option<u64>, before: u64, json: bool, quiet: bool, results_to_stdout: bool) -> Self {
        let bar = (!quiet && !json && total.is_some() && io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::new(total.unwrap_or_default());
            if let Ok(style) = ProgressStyle::with_template("{bar:20} {pos}/{len} rows{msg}") {
                bar.set_style(style);
            }
            bar.set_position(before);
            bar
        });
        let begun = Instant::now();
        let last = RunProgress::default();
        Self { total, before, json, quiet, results_to_stdout, bar, begun, shown: begun, last }
    }

    /// The last state that was given.
    pub fn last(&self) -> RunProgress {
        self.last
    }

    /// Shows a new state, not more often than is useful.
    pub fn show(&mut self, at: &RunProgress) {
        self.last = *at;
        let every = match (&self.bar, self.json) {
            (_, true) => OBJECTS,
            (Some(_), false) => REDRAW,
            (None, false) => LINES,
        };
        if self.shown.elapsed() < every || (self.quiet && !self.json) {
            return;
        }
        self.shown = Instant::now();
        if self.json {
            // The run does not end because its progress cannot be written.
            let _ = self.object();
            return;
        }
        let text = self.text();
        match &self.bar {
            Some(bar) => {
                bar.set_position(self.before + at.rows);
                bar.set_message(text);
            }
            None => {
                let of = self.total.map_or(String::new(), |total| format!("/{total}"));
                eprintln!("huozi: {}{of} rows{text}", self.before + at.rows);
            }
        }
    }

    /// Takes the bar away.
    pub fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    /// What the run came to.
    pub fn summary(
        &self,
        summary: &BatchSummary,
        ready: &Ready,
        info: Option<&Info>,
        printer: &mut Printer,
    ) -> Result<()> {
        if self.json {
            let mut object = totals(summary);
            if let Value::Object(object) = &mut object {
                object.extend(self.numbers());
            }
            if let Some(info) = info {
                object = load::recorded(object, &ready.model, info)?;
            }
            if self.results_to_stdout {
                json_line(&mut io::stderr().lock(), &object)?;
            } else {
                printer.json(&object)?;
            }
        } else if !self.quiet {
            let RunProgress { prompt_tokens, computed_tokens, answer_tokens, .. } = self.last;
            eprintln!(
                "huozi: {}, {} failed | prompts {prompt_tokens} tokens, {computed_tokens} of them read, \
                 {:.1}/s | answers {answer_tokens} tokens, {:.1}/s | {}{}",
                counted(summary.rows as u64, "row"),
                summary.failed,
                self.rate(computed_tokens),
                self.rate(answer_tokens),
                span(self.begun.elapsed().as_secs_f64()),
                if self.results_to_stdout { String::new() } else { format!(" | {}", summary.out.display()) },
            );
        }
        Ok(())
    }

    fn rate(&self, tokens: u64) -> f64 {
        tokens as f64 / self.begun.elapsed().as_secs_f64().max(1e-3)
    }

    /// Seconds until the last row ends, if the others take as long as those so far.
    fn left(&self) -> Option<f64> {
        let left = self.total?.saturating_sub(self.before + self.last.rows);
        let seconds = self.begun.elapsed().as_secs_f64();
        (self.last.rows > 0).then(|| seconds / self.last.rows as f64 * left as f64)
    }

    /// What follows the number of rows.
    fn text(&self) -> String {
        let RunProgress { failed, computed_tokens, answer_tokens, .. } = self.last;
        let left = self.left().map_or(String::new(), |left| format!(", {} left", span(left)));
        format!(
            ", {failed} failed, prompts {:.1} tokens/s, answers {:.1} tokens/s{left}",
            self.rate(computed_tokens),
            self.rate(answer_tokens),
        )
    }

    fn numbers(&self) -> Map<String, Value> {
        let RunProgress { prompt_tokens, computed_tokens, answer_tokens, .. } = self.last;
        Map::from_iter([
            ("prompt_tokens".to_owned(), prompt_tokens.into()),
            ("computed_tokens".to_owned(), computed_tokens.into()),
            ("answer_tokens".to_owned(), answer_tokens.into()),
            ("prompt_tokens_per_second".to_owned(), self.rate(computed_tokens).into()),
            ("answer_tokens_per_second".to_owned(), self.rate(answer_tokens).into()),
            ("seconds".to_owned(), self.begun.elapsed().as_secs_f64().into()),
        ])
    }

    /// The state as JSON, where no results go.
    fn object(&self) -> io::Result<()> {
        let mut object = json!({
            "schema": SCHEMA,
            "kind": "progress",
            "rows": self.total,
            "done": self.before + self.last.rows,
            "failed": self.last.failed,
            "seconds_left": self.left(),
        });
        if let Value::Object(object) = &mut object {
            object.extend(self.numbers());
        }
        if self.results_to_stdout {
            json_line(&mut io::stderr().lock(), &object)
        } else {
            let mut out = io::stdout().lock();
            json_line(&mut out, &object)?;
            out.flush()
        }
    }
}

/// A span of time in its two largest units.
pub(super) fn span(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    match whole {
        0..10 => format!("{seconds:.1} s"),
        10..120 => format!("{whole} s"),
        120..7200 => format!("{} min", whole / 60),
        7200..172_800 => format!("{} h {} min", whole / 3600, whole / 60 % 60),
        _ => format!("{} d {} h", whole / 86_400, whole / 3600 % 24),
    }
}

/// A summary as JSON.
pub(super) fn totals(summary: &BatchSummary) -> serde_json::Value {
    json!({
        "schema": SCHEMA,
        "kind": "summary",
        "rows": summary.rows,
        "failed": summary.failed,
        "already_done": summary.already,
        "output": summary.out.display().to_string(),
        "errors": summary.errors.as_ref().map(|path| path.display().to_string()),
    })
}
