//! The program's output: results on standard output, all else on standard error.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use huozi_convert::source::shown;
use huozi_convert::{Forecast, FormatCount, OutputFile, Progress, Report};
use huozi_quant::message::{counted, size};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

/// Writes a line to standard error; an error of that is ignored.
pub fn say(what: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{what}");
}

/// One JSON object on one line, with its schema first.
fn line(out: &mut impl Write, what: &impl Serialize, dry: bool) -> io::Result<()> {
    let mut object = serde_json::json!({ "schema": 1 });
    if let (Some(object), serde_json::Value::Object(fields)) =
        (object.as_object_mut(), serde_json::to_value(what)?)
    {
        if dry {
            object.insert("dry_run".into(), true.into());
        }
        object.extend(fields);
    }
    writeln!(out, "{object}")
}

/// A file in one line; `more` follows its sizes.
fn summary(file: &OutputFile, name: &str, more: &str) -> String {
    let each = |f: &FormatCount| format!("{} {}", f.tensors, f.format);
    let formats = file.formats.iter().map(each).collect::<Vec<_>>().join(", ");
    let tensors = counted(file.formats.iter().map(|f| f.tensors).sum::<usize>(), "tensor");
    let (path, name, preset) = (file.path.display(), shown(name), &file.preset);
    let (bytes, bits) = (size(file.bytes), file.bits_per_weight);
    format!("{path}: {name} {preset}, {bytes}, {bits:.2} bits per weight{more} ({tensors}: {formats})")
}

/// What was written.
pub fn report(report: &Report, json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        line(&mut out, report, false)?;
        return out.flush();
    }
    for file in &report.outputs {
        let seconds = format!(", {:.1} s", report.seconds);
        writeln!(out, "{}", summary(&file.file, &report.name, &seconds))?;
        let worst: Vec<String> = file
            .worst
            .iter()
            .map(|w| format!("{} {} {:.2} %", w.tensor, w.format, w.relative_error * 100.0))
            .collect();
        if !worst.is_empty() {
            let how = if file.verified { "compared with the source, " } else { "" };
            writeln!(out, "  {how}largest relative errors: {}", worst.join(", "))?;
        } else if file.verified {
            writeln!(out, "  compared with the source, no error")?;
        }
    }
    out.flush()
}

/// What would be written.
pub fn forecast(forecast: &Forecast, json: bool) -> io::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    if json {
        line(&mut out, forecast, true)?;
        return out.flush();
    }
    for file in &forecast.outputs {
        for t in &file.tensors {
            let dims = t.dims.iter().map(u64::to_string).collect::<Vec<_>>().join(" x ");
            let size = size(t.bytes);
            writeln!(out, "{:<28} {dims:<16} {:>5} -> {:<7} {size:>11}", t.name, t.source_type, t.format)?;
        }
        writeln!(out, "{}", summary(&file.file, &forecast.name, ""))?;
        let memory: Vec<String> = file
            .memory
            .iter()
            .map(|m| format!("{} with a KV cache of type {}", size(m.bytes), m.kv_type))
            .collect();
        writeln!(out, "  memory at a context of 2048 tokens: {}", memory.join(", "))?;
        if let Some(free) = file.free_bytes {
            let short = if free < file.disk_bytes { ", too little" } else { "" };
            writeln!(out, "  free on its disk: {}{short}", size(free))?;
        }
    }
    writeln!(
        out,
        "reads {}, about {:.0} s; nothing was written",
        size(forecast.source_bytes),
        forecast.seconds.max(1.0)
    )?;
    out.flush()
}

/// Progress on standard error: a bar on a terminal, else a line every ten seconds.
pub struct ProgressPrinter {
    bar: Option<ProgressBar>,
    lines: Mutex<Lines>,
    done: AtomicU64,
    total: AtomicU64,
    notes_printed: AtomicUsize,
}

struct Lines {
    started: Instant,
    last: Instant,
}

const EVERY: Duration = Duration::from_secs(10);

impl ProgressPrinter {
    pub fn new() -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(5));
            let style = "{bar:30} {percent:>3}%  {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left  {msg}";
            bar.set_style(
                ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()),
            );
            bar
        });
        let now = Instant::now();
        let lines = Mutex::new(Lines { started: now, last: now });
        Self {
            bar,
            lines,
            done: AtomicU64::new(0),
            total: AtomicU64::new(0),
            notes_printed: AtomicUsize::new(0),
        }
    }

    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    /// How many of the report's notes have been printed already.
    pub fn notes_printed(&self) -> usize {
        self.notes_printed.load(Relaxed)
    }

    /// Restarts the count, up to `bytes`.
    fn next(&self, message: &'static str, bytes: u64) {
        self.done.store(0, Relaxed);
        self.start(bytes);
        if let Some(bar) = &self.bar {
            bar.reset();
            bar.set_message(message);
        }
    }
}

impl Progress for ProgressPrinter {
    fn notes(&self, notes: &[String]) {
        for text in notes {
            say(format_args!("note: {text}"));
        }
        self.notes_printed.store(notes.len(), Relaxed);
    }

    fn start(&self, bytes: u64) {
        self.total.store(bytes, Relaxed);
        if let Ok(mut lines) = self.lines.lock() {
            lines.started = Instant::now();
            lines.last = lines.started;
        }
        if let Some(bar) = &self.bar {
            bar.set_length(bytes);
            bar.reset_eta();
        }
    }

    fn advance(&self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(bytes);
            return;
        }
        let done = self.done.fetch_add(bytes, Relaxed) + bytes;
        // Without the lock there is nothing to print: another thread has just checked.
        let Ok(mut lines) = self.lines.try_lock() else { return };
        if lines.last.elapsed() < EVERY {
            return;
        }
        lines.last = Instant::now();
        let (seconds, total) = (lines.started.elapsed().as_secs_f64(), self.total.load(Relaxed));
        let rate = done as f64 / seconds;
        say(format_args!(
            "{} of {}, {}/s, {:.0} s left",
            size(done),
            size(total),
            size(rate as u64),
            (total.saturating_sub(done)) as f64 / rate
        ));
    }

    fn sync(&self, bytes: u64) {
        const MESSAGE: &str = "writing to disk";
        match &self.bar {
            // Nothing to count.
            Some(bar) if bytes == 0 => bar.set_message(MESSAGE),
            _ => self.next(MESSAGE, bytes),
        }
    }

    fn summed(&self, bytes: u64) {
        self.advance(bytes);
    }

    fn verify(&self, bytes: u64) {
        if self.bar.is_none() {
            say(format_args!("comparing with the source"));
        }
        self.next("comparing with the source", bytes);
    }
}
