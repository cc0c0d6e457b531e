//! The pane that chooses a model, and the one that shows how it is opened.

use super::app::{App, Loading, Screen, Tone};
use super::ask::{Ask, Wish};
use super::event::Effect;
use super::look::{Lang, bytes, seconds};
use super::markdown::plain;
use super::panels::{Choice, Panel, both_ends, list};
use super::status::render_flash;
use super::text::{fit, one_line};
use super::view;
use crate::session::open::{Source, Step};
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::style::Style;
use ratatui::text::Line;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Takes a key while a model is chosen or opened.
pub fn key(app: &mut App, key: KeyEvent, now: Instant) -> Vec<Effect> {
    let sources = app.sources();
    let begun = !app.input.is_empty() && app.about.is_none();
    // After the models: a path to type.
    let last = sources.len();
    match &mut app.screen {
        Screen::Load(loading) => {
            if matches!(key.code, KeyCode::Esc) {
                loading.cancel.store(true, Ordering::Relaxed);
            }
            Vec::new()
        }
        Screen::Choose(choice) => {
            let control = key.modifiers.contains(KeyModifiers::CONTROL);
            match key.code {
                // A message was begun while a model was opened, and this one did not: its letters are no wishes.
                KeyCode::Char(c) if key.modifiers.difference(KeyModifiers::SHIFT).is_empty() && begun => {
                    app.input.insert(c.encode_utf8(&mut [0; 4]));
                    let said = app.say("the message that was begun waits", "已写的消息会保留").to_owned();
                    app.flash(said, Tone::Note, now);
                }
                KeyCode::Up => choice.at = choice.at.min(last).saturating_sub(1),
                KeyCode::Down | KeyCode::Tab => choice.at = (choice.at + 1).min(last),
                KeyCode::Char('k') if !control => choice.at = choice.at.min(last).saturating_sub(1),
                KeyCode::Char('j') if !control => choice.at = (choice.at + 1).min(last),
                KeyCode::Home => choice.at = 0,
                KeyCode::End => choice.at = last,
                KeyCode::Enter => return open(app, now),
                KeyCode::Esc | KeyCode::Char('q') => {
                    if app.about.is_some() {
                        app.screen = Screen::Chat;
                    } else {
                        return super::update::quit(app, now);
                    }
                }
                KeyCode::F(1) | KeyCode::Char('?') => app.panel = Some(Panel::Help(0)),
                KeyCode::Char('l') if key.modifiers.contains(KeyModifiers::ALT) => {
                    app.set_lang(app.lang().other());
                    return super::settings::keep_prefs(app);
                }
                KeyCode::Char('d') if !control => {
                    #[cfg(feature = "demo")]
                    return vec![app.load(Source::Demo, now)];
                }
                _ => {}
            }
            Vec::new()
        }
        Screen::Chat => Vec::new(),
    }
}

/// Opens what is chosen.
pub fn open(app: &mut App, now: Instant) -> Vec<Effect> {
    let Screen::Choose(choice) = &app.screen else { return Vec::new() };
    let sources = app.sources();
    match sources.get(choice.at) {
        Some(source) => vec![app.load(source.clone(), now)],
        None => {
            // What was typed before and did not open can be mended.
            let failed =
                app.opening.as_ref().filter(|source| choice.error.is_some() && !sources.contains(source));
            let typed = match failed {
                Some(Source::File(path)) => path.display().to_string(),
                _ => String::new(),
            };
            app.panel = Some(Panel::Ask(Ask::new(Wish::Model, &typed)));
            Vec::new()
        }
    }
}

/// Where the list is, below `above` rows of text.
pub fn list_place(app: &App, screen: Rect, choice: &Choice) -> Rect {
    let above = above(app, screen, choice).len() as u16 + 1;
    let height = screen.height.saturating_sub(above + 2);
    Rect { x: screen.x + 1, y: screen.y + above, width: screen.width.saturating_sub(2), height }
}

/// What stands above the list.
fn above(app: &App, screen: Rect, choice: &Choice) -> Vec<Line<'static>> {
    let look = app.look();
    let cells = usize::from(screen.width).saturating_sub(2);
    let mut rows = vec![Line::styled(app.say("Choose a model", "选择模型").to_owned(), look.heading())];
    if let Some(error) = &choice.error {
        let room = usize::from(screen.height / 3).max(2);
        let mut said = plain(error.text(app.lang()), cells, look.error());
        said.truncate(room);
        rows.extend(said);
    }
    if !app.looked {
        rows.push(Line::styled(app.say("looking for models ...", "正在查找模型……").to_owned(), look.dim()));
    } else if app.models.0.is_empty() {
        let none = app.say(
            "No GGUF file was found: huozi-convert makes one from a checkpoint. The demo model needs none.",
            "没有找到 GGUF 文件：可用 huozi-convert 从检查点转换。演示模型无需文件。",
        );
        rows.extend(plain(none, cells, look.dim()));
    }
    // Below it there is a row for the list at least, and the last two rows.
    rows.truncate(usize::from(screen.height.saturating_sub(4)).max(1));
    rows
}

/// Shows the models.
pub fn render(app: &App, choice: &Choice, screen: Rect, buffer: &mut Buffer) {
    let look = app.look();
    for (y, row) in above(app, screen, choice).iter().enumerate() {
        buffer.set_line(screen.x + 1, screen.y + y as u16, row, screen.width.saturating_sub(1));
    }
    let area = list_place(app, screen, choice);
    let cells = usize::from(area.width);
    let available = app.models.1;
    let mut rows: Vec<Line<'_>> = Vec::new();
    for model in &app.models.0 {
        let name = model.path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        let folder = model.path.parent().map_or_else(String::new, |p| p.display().to_string());
        let name = one_line(&name);
        let (right, style) = match &model.needs {
            Ok(needs) => {
                let fits = available.is_none_or(|available| *needs <= available);
                let verdict = if fits { "" } else { app.say(", does not fit", "，内存不足") };
                let needs = format!("{} {}{verdict}", app.say("needs", "需内存"), bytes(*needs));
                let size = if cells >= 60 {
                    format!("{}{}", bytes(model.bytes), app.say(", ", "，"))
                } else {
                    String::new()
                };
                (size + &needs, if fits { Style::new() } else { look.dim() })
            }
            Err(_) => (app.say("not usable", "不可用").to_owned(), look.dim()),
        };
        let left = if cells >= 90 { format!("{name}  {}", fit(&one_line(&folder), cells / 3)) } else { name };
        rows.push(both_ends(&left, &right, cells, [style, look.dim()]));
    }
    if app.sources().len() > app.models.0.len() {
        let demo = app.say("Demo: a small model that is built in", "演示：内置的小模型");
        let what = app.say("classical Chinese poems", "古典诗词");
        rows.push(both_ends(demo, what, cells, [Style::new(), look.dim()]));
    }
    rows.push(Line::raw(app.say("Another file ...", "其他文件……")));
    let at = choice.at.min(rows.len() - 1);
    list(&rows, (choice.first, Some(at)), area, look, buffer);
    // Why a file is not usable, or where it lies.
    let y = screen.bottom().saturating_sub(2);
    if let Some(model) = app.models.0.get(at) {
        let (text, style) = match &model.needs {
            Err(why) => (why.text(app.lang()).to_owned(), look.error()),
            Ok(_) => (model.path.display().to_string(), look.dim()),
        };
        buffer.set_string(area.x, y, fit(&one_line(&text), cells), style);
    }
    let leaves = match app.about {
        Some(_) => app.say("goes back", "返回"),
        None => app.say("quits", "退出"),
    };
    let mut keys = match app.lang() {
        Lang::En => format!("Enter opens, Esc {leaves}, F1 help, Alt+L 中文"),
        Lang::Zh => format!("Enter 打开，Esc {leaves}，F1 帮助，Alt+L English"),
    };
    if let Some(available) = available {
        keys += &format!("  {}{}", app.say("memory available: ", "可用内存："), bytes(available));
    }
    buffer.set_string(area.x, screen.bottom() - 1, fit(&keys, cells), look.dim());
    render_flash(app, Rect { y, height: 1, ..area }, area.height, buffer);
}

/// Shows how a model is opened; gives where the cursor stands.
pub fn render_loading(
    app: &App,
    loading: &Loading,
    now: Instant,
    screen: Rect,
    buffer: &mut Buffer,
) -> Option<Position> {
    let look = app.look();
    let cells = usize::from(screen.width).saturating_sub(4);
    let x = screen.x + 2;
    let mut y = screen.y + screen.height / 3;
    let mut put = |text: &str, style: Style| {
        buffer.set_string(x, y, fit(text, cells), style);
        y += 1;
    };
    put(&format!("{} {}", app.say("Opening", "正在打开"), one_line(&loading.name)), look.heading());
    let (what, done) = match loading.step {
        None => (app.say("starting", "开始"), 0.0),
        Some((step, done, total)) => {
            let share = if total == 0 { 1.0 } else { done as f64 / total as f64 };
            match step {
                Step::Convert => {
                    (app.say("converting the built-in model, this once", "首次使用：转换内置模型"), share)
                }
                Step::Read => (app.say("reading the file", "读取文件"), share),
                Step::Build => (app.say("building the vocabulary", "建立词表"), 0.0),
            }
        }
    };
    put(&look.gauge(done, cells.min(50)), look.model());
    let elapsed = now.saturating_duration_since(loading.since).as_secs_f64();
    let mut line = what.to_owned();
    if let Some((_, of, total)) = loading.step.filter(|&(_, _, total)| total > 0) {
        line += &format!("  {} / {}", bytes(of), bytes(total));
        if done > 0.02 && done < 1.0 && elapsed > 1.0 {
            line += &format!("  {} {}", app.say("left:", "剩余"), seconds(elapsed / done * (1.0 - done)));
        }
    }
    put(&line, look.dim());
    // A message can be begun meanwhile.
    let cursor = (app.places.input.y > y).then(|| view::input(app, app.places.input, buffer));
    let last = Rect { x, y: screen.bottom() - 1, width: cells as u16, height: 1 };
    let stopping = loading.cancel.load(Ordering::Relaxed);
    let keys = match stopping {
        true => app.say("stopping ...", "正在停止……"),
        false => app.say("Esc stops", "Esc 停止"),
    };
    buffer.set_string(last.x, last.y, fit(keys, cells), look.dim());
    // Above what is being written.
    let line = Rect { y: app.places.input.y.saturating_sub(1).max(y), ..last };
    render_flash(app, line, line.y - y, buffer);
    cursor
}
