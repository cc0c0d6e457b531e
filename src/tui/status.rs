//! The lines around the conversation: the title above it, what the model does below it, and figures in the last row.

use super::app::{App, Busy, Flash, Tone};
use super::look::{bytes, seconds};
use super::markdown::plain;
use super::panels::clear;
use super::text::{fit, pad, width};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use std::time::Instant;

/// The title, and the model at the right.
pub fn render_title(app: &App, area: Rect, buffer: &mut Buffer) {
    let look = app.look();
    let cells = usize::from(area.width);
    let mut title = format!(" {}", app.title());
    let mut mark = |on: bool, text: &str| {
        if on {
            title = format!(" [{text}]{title}");
        }
    };
    mark(app.talk.private, app.say("not saved", "不保存"));
    mark(app.unsaved.is_some(), app.say("save failed", "未能保存"));
    mark(app.talk.copy, app.say("copy", "副本"));
    mark(app.prefs.raw, app.say("raw", "原文"));
    mark(app.editing, app.say("editing", "修改中"));
    let model =
        app.about.as_ref().map_or_else(String::new, |about| format!("{} {} ", about.name, about.kind));
    let model = fit(&model, cells * 2 / 5).into_owned();
    let room = cells.saturating_sub(width(&model) + 1);
    buffer.set_string(area.x, area.y, pad(&format!("{} {model}", pad(&title, room)), cells), look.bar());
}

/// What the model does, between the conversation and the input, and a message beside it; one that finds no room there
/// covers the end of the conversation for a while.
pub fn render_state(app: &App, now: Instant, area: Rect, buffer: &mut Buffer) {
    let look = app.look();
    let cells = usize::from(area.width);
    let room = cells.saturating_sub(4);
    let mut spans = Vec::new();
    let state = fit(&state(app, now, cells), room).into_owned();
    if !state.is_empty() {
        spans.push(Span::styled(format!(" {state} "), look.note()));
    }
    // With a panel open the message stands in its frame.
    if let Some(flash) = app.flash.as_ref().filter(|_| app.panel.is_none()) {
        let before = if state.is_empty() { 0 } else { width(&state) + 3 };
        let above = app.places.transcript;
        if before + width(&flash.text) <= room || above.height == 0 {
            let text = fit(&flash.text, room.saturating_sub(before)).into_owned();
            spans.push(Span::styled(format!(" {text} "), flash_style(app, flash)));
        } else {
            let line = Rect { y: above.bottom() - 1, height: 1, ..above };
            clear(line, buffer);
            render_flash(app, line, above.height - 1, buffer);
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
    if !app.transcript.follows() && right > 12 {
        let more = app.say(" Ctrl+End: latest ", " Ctrl+End 到最新 ");
        if width(more) + 2 < right {
            buffer.set_string(area.right() - width(more) as u16 - 1, area.y, more, look.note());
        }
    }
}

fn flash_style(app: &App, flash: &Flash) -> Style {
    if flash.tone == Tone::Error { app.look().error() } else { app.look().note() }
}

/// Shows the message, if there is one, in `line` and as many rows above it as it needs, at most `above`.
pub fn render_flash(app: &App, line: Rect, above: u16, buffer: &mut Buffer) {
    let Some(flash) = &app.flash else { return };
    let rows = plain(&flash.text, usize::from(line.width).saturating_sub(2).max(2), flash_style(app, flash));
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

/// Idle, reading with progress, or writing.
fn state(app: &App, now: Instant, cells: usize) -> String {
    let gauge = |done: usize, total: usize| {
        let room = if cells >= 60 { 20 } else { 8 };
        app.look().gauge(done as f64 / total.max(1) as f64, room)
    };
    let reading = |what: &str, (done, total): (usize, usize), since: Option<(Instant, usize)>| {
        let mut text = format!("{what} {} {done}/{total}", gauge(done, total));
        if let Some((since, from)) = since {
            let elapsed = now.saturating_duration_since(since).as_secs_f64();
            let rate = done.saturating_sub(from) as f64 / elapsed.max(1e-3);
            if elapsed > 0.5 && rate > 0.0 {
                let left = total.saturating_sub(done) as f64 / rate;
                text += &format!(" {rate:.0} t/s, {} {}", app.say("left:", "剩余"), seconds(left));
            }
        }
        text
    };
    match &app.busy {
        Busy::Idle => String::new(),
        Busy::Warming { done, since, .. } => reading(app.say("re-reading", "重读对话"), *done, *since),
        Busy::Answering(live) if live.stopping => app.say("stopping ...", "正在停止……").to_owned(),
        Busy::Answering(live) if live.tokens == 0 => {
            reading(app.say("reading", "阅读中"), live.prompt, live.reading)
        }
        Busy::Answering(live) => {
            let max = app.chosen.as_ref().map_or(0, |chosen| chosen.settings.max_new);
            let written = format!("{} {}/{max}", app.say("writing", "书写中"), live.tokens);
            format!("{written}  {}", app.say("Esc stops", "Esc 停止"))
        }
    }
}

/// Figures, as many as there is room for: the most important first.
pub fn render_figures(app: &App, now: Instant, area: Rect, buffer: &mut Buffer) {
    let look = app.look();
    let cells = usize::from(area.width);
    let mut parts: Vec<(String, Style)> = Vec::new();
    // While another conversation is on its way nobody knows.
    let context = app.context();
    if context > 0 && app.switching == 0 {
        let used = context_used(app);
        let share = used as f64 / context as f64;
        let style = if share > 0.9 { look.error() } else { Style::new() };
        let room = if cells >= 100 { 16 } else { 6 };
        let label = if cells >= 60 { app.say("context ", "上下文 ") } else { "" };
        parts.push((format!("{label}{} {used}/{context}", look.gauge(share, room)), style));
    }
    let rate = app.live().and_then(|live| {
        let elapsed = now.saturating_duration_since(live.first?).as_secs_f64();
        (live.tokens > 1 && elapsed > 0.05).then(|| (live.tokens - 1) as f64 / elapsed)
    });
    let last = app.stats.as_ref().map(crate::session::Stats::generate_rate).filter(|&rate| rate > 0.0);
    if let Some(rate) = rate.or(last) {
        let spark = if cells >= 60 {
            look.spark(app.rates.iter().copied().rev().take(12).rev())
        } else {
            String::new()
        };
        parts.push((format!("{rate:.1} t/s {spark}").trim_end().to_owned(), look.model()));
    }
    if let Some(memory) = app.memory {
        let label = if cells >= 60 { app.say("mem ", "内存 ") } else { "" };
        parts.push((format!("{label}{}", bytes(memory)), look.dim()));
    }
    // What follows makes room for the way to the help.
    let always = parts.len();
    if let Some(stats) = app.stats.as_ref().filter(|stats| stats.prompt_tokens > 0) {
        parts.push((format!("{} {:.0} t/s", app.say("prompt", "提示"), stats.prompt_rate()), look.dim()));
    }
    if let Some(about) = &app.about
        && cells >= 120
    {
        parts.push((about.runs_on.clone(), look.dim()));
        parts.push((format!("KV {}", about.kv.name()), look.dim()));
    }
    let help = app.say("F1 help", "F1 帮助");
    let mut x = 1;
    let side = format!(" {} ", look.side());
    for (at, (text, style)) in parts.iter().enumerate() {
        let before = if at == 0 { 0 } else { 3 };
        let after = if at < always { 1 } else { width(help) + 3 };
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
    if x + width(help) + 3 <= cells {
        buffer.set_string(area.right() - width(help) as u16 - 1, area.y, help, look.dim());
    }
}

/// Positions filled, the answer on its way among them.
fn context_used(app: &App) -> usize {
    match &app.busy {
        Busy::Answering(live) if live.prompt.1 > 0 => live.prompt.0 + live.tokens,
        Busy::Warming { done, .. } => done.0,
        _ => app.context_used,
    }
}
