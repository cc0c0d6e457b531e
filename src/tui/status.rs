//! The lines around the conversation: the title above it, what the model does below it, and figures in the
//! last row.

use super::app::App;
use super::interface::Ui;
use super::live::Busy;
use super::look::{bytes, seconds};
use super::markdown::plain;
use super::messages::{Flash, Tone};
use super::text::{fit, pad, width};
use super::widgets::clear;
use super::words::Words;
use crate::session::Stats;
use crate::session::open::About;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use std::time::Instant;

/// The title, and the model at the right.
pub fn render_title(app: &App, area: Rect, buffer: &mut Buffer) {
    let Ui { words, look, .. } = app.interface().ui();
    let talk = app.talk();
    let cells = usize::from(area.width);
    let mut title = format!(" {}", talk.title(words));
    let marks = [
        (talk.is_private(), words.mark_private),
        (talk.unsaved().is_some(), words.mark_unsaved),
        (talk.is_copy(), words.mark_copy),
        (app.interface().prefs().raw, words.mark_raw),
        (app.composer().is_editing(), words.mark_editing),
    ];
    for (_, mark) in marks.iter().filter(|(on, _)| *on) {
        title = format!(" [{mark}]{title}");
    }
    let about = app.models().about();
    let model = about.map_or_else(String::new, |about| format!("{} {} ", about.name, about.kind));
    let model = fit(&model, cells * 2 / 5).into_owned();
    let room = cells.saturating_sub(width(&model) + 1);
    buffer.set_string(area.x, area.y, pad(&format!("{} {model}", pad(&title, room)), cells), look.bar());
}

/// What the model does, between the conversation and the input, and a message beside it; one that finds no
/// room there covers the end of the conversation for a while.
pub fn render_state(app: &App, now: Instant, area: Rect, buffer: &mut Buffer) {
    let ui = app.interface().ui();
    let look = ui.look;
    let cells = usize::from(area.width);
    let room = cells.saturating_sub(4);
    let mut spans = Vec::new();
    let state = fit(&state(app, now, cells), room).into_owned();
    if !state.is_empty() {
        spans.push(Span::styled(format!(" {state} "), look.note()));
    }
    // With a panel open the message stands in its frame.
    if let Some(flash) = app.messages().current().filter(|_| app.panels().open().is_none()) {
        let before = if state.is_empty() { 0 } else { width(&state) + 3 };
        let above = app.places().transcript;
        if before + width(flash.text()) <= room || above.height == 0 {
            let text = fit(flash.text(), room.saturating_sub(before)).into_owned();
            spans.push(Span::styled(format!(" {text} "), flash_style(ui, flash)));
        } else {
            let line = Rect { y: above.bottom() - 1, height: 1, ..above };
            clear(line, buffer);
            render_flash(flash, ui, line, above.height - 1, buffer);
        }
    }
    let line = Line::from(spans);
    let (left, right) = match line.width() {
        0 => (0, cells),
        width => (2.min(cells), cells.saturating_sub(width + 2)),
    };
    let rule = look.rule();
    buffer.set_string(area.x, area.y, rule.repeat(left), look.dim());
    buffer.set_line(area.x + left as u16, area.y, &line, area.width - left as u16);
    buffer.set_string(area.x + (cells - right) as u16, area.y, rule.repeat(right), look.dim());
    if !app.talk().transcript().follows() && right > 12 {
        let more = ui.words.latest;
        if width(more) + 2 < right {
            buffer.set_string(area.right() - width(more) as u16 - 1, area.y, more, look.note());
        }
    }
}

fn flash_style(ui: Ui, flash: &Flash) -> Style {
    match flash.tone() {
        Tone::Error => ui.look.error(),
        Tone::Note => ui.look.note(),
    }
}

/// Shows a message in `line` and as many rows above it as it needs, at most `above`.
pub fn render_flash(flash: &Flash, ui: Ui, line: Rect, above: u16, buffer: &mut Buffer) {
    let room = usize::from(line.width).saturating_sub(2).max(2);
    let rows = plain(flash.text(), room, flash_style(ui, flash));
    let shown = rows.len().min(usize::from(above) + 1);
    for (n, row) in rows.iter().take(shown).enumerate() {
        let y = line.y - (shown - 1 - n) as u16;
        // One row stands in a frame and leaves the rest of it.
        let width = if rows.len() == 1 { row.width() as u16 + 2 } else { line.width };
        let place = Rect { y, height: 1, width: width.min(line.width), ..line };
        clear(place, buffer);
        buffer.set_line(place.x + 1, y, row, place.width.saturating_sub(1));
    }
}

/// What a model runs on: the engine tells its instruction set and then its threads.
pub fn runs_on(about: &About, words: &Words) -> String {
    let isa = about.runs_on.rsplit_once(", ").map_or(about.runs_on.as_str(), |(isa, _)| isa);
    (words.runs_on)(isa, about.threads)
}

/// Idle, reading with progress, or generating.
fn state(app: &App, now: Instant, cells: usize) -> String {
    let Ui { words, look, .. } = app.interface().ui();
    let gauge = |done: usize, total: usize| {
        let room = if cells >= 60 { 20 } else { 8 };
        look.gauge(done as f64 / total.max(1) as f64, room)
    };
    let reading = |what: &str, (done, total): (usize, usize), since: Option<(Instant, usize)>| {
        let mut text = format!("{what} {} {done}/{total}", gauge(done, total));
        if let Some((since, from)) = since {
            let elapsed = now.saturating_duration_since(since).as_secs_f64();
            let rate = done.saturating_sub(from) as f64 / elapsed.max(1e-3);
            if elapsed > 0.5 && rate > 0.0 {
                let left = seconds(total.saturating_sub(done) as f64 / rate);
                let unit = if cells >= 60 { words.tokens_per_second } else { words.tokens_per_second_short };
                let comma = words.comma;
                text += &format!(" {rate:.0} {unit}{comma}{} {left}", words.left);
            }
        }
        text
    };
    match app.talk().busy() {
        Busy::Idle => String::new(),
        Busy::Warming { done, since, .. } => reading(words.rereading, *done, *since),
        Busy::Answering(live) if live.stopping => words.stopping.to_owned(),
        Busy::Answering(live) if live.tokens == 0 => reading(words.reading, live.prompt, live.reading),
        Busy::Answering(live) => {
            let max = app.models().chosen().map_or(0, |chosen| chosen.settings.max_new);
            format!("{} {}/{max}  {}", words.generating, live.tokens, words.esc_stops)
        }
    }
}

/// Figures, as many as there is room for: the most important first.
pub fn render_figures(app: &App, now: Instant, area: Rect, buffer: &mut Buffer) {
    let Ui { words, look, .. } = app.interface().ui();
    let cells = usize::from(area.width);
    let (parts, always) = figures(app, now, cells);
    let mut x = 1;
    let side = format!(" {} ", look.side());
    for (at, (text, style)) in parts.iter().enumerate() {
        let before = if at == 0 { 0 } else { 3 };
        // The parts that are not always shown make room for the way to the help.
        let after = if at < always { 1 } else { width(words.f1_help) + 3 };
        // The first is cut rather than left out.
        if at > 0 && x + before + width(text) + after > cells {
            break;
        }
        if at > 0 {
            buffer.set_string(area.x + x as u16, area.y, &side, look.dim());
        }
        let shown = fit(text, cells.saturating_sub(x + before));
        buffer.set_string(area.x + (x + before) as u16, area.y, &shown, *style);
        x += before + width(&shown);
    }
    let help = words.f1_help;
    if x + width(help) + 3 <= cells {
        buffer.set_string(area.right() - width(help) as u16 - 1, area.y, help, look.dim());
    }
}

/// The figures, and how many of them are shown before the way to the help.
fn figures(app: &App, now: Instant, cells: usize) -> (Vec<(String, Style)>, usize) {
    let Ui { words, look, .. } = app.interface().ui();
    let talk = app.talk();
    let mut parts: Vec<(String, Style)> = Vec::new();
    // While another conversation is on its way it is not known.
    let context = app.models().context();
    if context > 0 && !talk.is_switching() {
        let used = talk.context_used();
        let share = used as f64 / context as f64;
        let style = if share > 0.9 { look.error() } else { Style::new() };
        let room = if cells >= 100 { 16 } else { 6 };
        let label = if cells >= 60 { words.context } else { "" };
        parts.push((format!("{label}{} {used}/{context}", look.gauge(share, room)), style));
    }
    let rate = talk.live().and_then(|live| live.rate(now));
    let last = talk.stats().map(Stats::generate_rate).filter(|&rate| rate > 0.0);
    let unit = if cells >= 60 { words.tokens_per_second } else { words.tokens_per_second_short };
    if let Some(rate) = rate.or(last) {
        let spark = match cells >= 60 {
            true => look.spark(talk.rates().iter().copied().rev().take(12).rev()),
            false => String::new(),
        };
        parts.push((format!("{rate:.1} {unit} {spark}").trim_end().to_owned(), look.model()));
    }
    if let Some(memory) = app.memory() {
        let label = if cells >= 60 { words.memory_in_use } else { "" };
        parts.push((format!("{label}{}", bytes(memory)), look.dim()));
    }
    let always = parts.len();
    if let Some(stats) = talk.stats().filter(|stats| stats.prompt_tokens > 0) {
        parts.push((format!("{} {:.0} {unit}", words.prefill, stats.prompt_rate()), look.dim()));
    }
    if let Some(about) = app.models().about()
        && cells >= 120
    {
        parts.push((runs_on(about, words), look.dim()));
        parts.push((format!("KV {}", about.kv.name()), look.dim()));
    }
    (parts, always)
}
