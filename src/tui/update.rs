//! Message to state. What the outside has to do about it comes back as [`Effect`]s.

use super::app::{App, Busy, Live, Screen, Tone};
use super::ask::{Ask as AskPanel, Wish};
use super::event::{Effect, Msg};
use super::keys::{Action, action};
use super::panels::{self, Choice, Panel};
use super::worker::{AskKind, DeskTask, ModelTask};
use super::{chooser, commands, export, reports, settings, talks};
use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, MouseButton, MouseEvent, MouseEventKind};
use ratatui::layout::{Position, Rect};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A second Ctrl+C quits if it comes this soon.
const TWICE: Duration = Duration::from_secs(2);
/// A second wish to quit without what could not be saved counts if it comes this soon.
const AFTER_ALL: Duration = Duration::from_secs(10);

/// And not sooner than this, in which nobody has read what was said.
const LEAST: Duration = Duration::from_millis(300);

/// Takes a message.
pub fn update(app: &mut App, msg: Msg, now: Instant) -> Vec<Effect> {
    let mut effects = on(app, msg, now);
    // Before something else has the terminal, and before the end.
    let leaves = |effect: &Effect| matches!(effect, Effect::Edit(_) | Effect::Suspend | Effect::Quit);
    if let Some(text) = app.draft_due(app.quitting || effects.iter().any(leaves), now) {
        effects.insert(0, Effect::Desk(DeskTask::Draft(text)));
    }
    effects
}

fn on(app: &mut App, msg: Msg, now: Instant) -> Vec<Effect> {
    if app.flash.as_ref().is_some_and(|flash| now >= flash.until) {
        app.flash = None;
    }
    match msg {
        Msg::Key(event) if event.kind != KeyEventKind::Release => key(app, event, now),
        Msg::Key(_) | Msg::Tick => Vec::new(),
        Msg::Mouse(event) => mouse(app, event, now),
        Msg::Paste(text) => paste(app, &text),
        Msg::Resize(width, height) => {
            app.size = (width, height);
            Vec::new()
        }
        Msg::Report(report) => reports::take(app, report, now),
        Msg::Edited(Ok(text)) => {
            app.input.set(text.strip_suffix('\n').unwrap_or(&text));
            vec![Effect::Redraw]
        }
        Msg::Edited(Err(why)) => {
            app.flash(why, Tone::Error, now);
            vec![Effect::Redraw]
        }
        Msg::Terminate => end(app),
        Msg::Suspend => vec![Effect::Suspend],
        Msg::Continued => vec![Effect::Enter],
    }
}

/// Ends the program; where that would lose what could not be saved, the second time.
pub fn quit(app: &mut App, now: Instant) -> Vec<Effect> {
    if let Some(why) = &app.unsaved {
        let said = format!(
            "{}{}",
            app.say("not saved; again to quit without: ", "尚未保存，再按一次则不保存退出："),
            why.text(app.lang())
        );
        let before = app.leaving.replace(now).map(|then| now.saturating_duration_since(then));
        // A key that is held down is one wish.
        if before.is_none_or(|time| !(LEAST..AFTER_ALL).contains(&time)) {
            app.flash(said, Tone::Error, now);
            return Vec::new();
        }
    }
    end(app)
}

/// Ends the program, and whatever is on its way.
fn end(app: &mut App) -> Vec<Effect> {
    app.stop();
    if let Screen::Load(loading) = &app.screen {
        // Nobody waits for it.
        loading.cancel.store(true, Ordering::Relaxed);
    }
    app.quitting = true;
    vec![Effect::Quit]
}

fn key(app: &mut App, event: KeyEvent, now: Instant) -> Vec<Effect> {
    let what = action(event, &app.prefs);
    if what != Some(Action::Interrupt) {
        // What is done between two of them makes them two first ones.
        app.interrupted = None;
    }
    // These hold wherever one is.
    match what {
        Some(Action::Interrupt) => return interrupt(app, now),
        Some(Action::Quit) => return quit(app, now),
        Some(Action::Redraw) => return vec![Effect::Redraw],
        Some(Action::Suspend) if app.panel.is_none() => return vec![Effect::Suspend],
        _ => {}
    }
    if app.panel.is_some() {
        return panels::key(app, event, now);
    }
    let effects = match app.screen {
        Screen::Chat => match what {
            Some(what) => act(app, what, now),
            None => {
                write(app, event);
                Vec::new()
            }
        },
        // What is typed meanwhile is not lost.
        Screen::Load(_) if event.code != KeyCode::Esc => {
            match what {
                None => write(app, event),
                Some(Action::Newline) => app.input.insert("\n"),
                Some(Action::Send) if commands::is_quit(app.input.text()) => return send(app, now),
                Some(_) => {
                    let said = app.say("the model is not there yet", "模型尚未打开").to_owned();
                    app.flash(said, Tone::Note, now);
                }
            }
            Vec::new()
        }
        _ => chooser::key(app, event, now),
    };
    if app.panel.is_some() {
        // The keys of a panel that opens are what matters now.
        app.flash = None;
    }
    effects
}

/// Ctrl+C: ends the answer; then empties the input; the second time in a row it quits.
fn interrupt(app: &mut App, now: Instant) -> Vec<Effect> {
    let soon =
        |then: Option<Instant>, most| then.is_some_and(|then| now.saturating_duration_since(then) < most);
    // It is an answer to "once more" as well.
    if soon(app.interrupted, TWICE) || app.unsaved.is_some() && soon(app.leaving, AFTER_ALL) {
        return quit(app, now);
    }
    app.interrupted = Some(now);
    let mut emptied = false;
    if !app.stop() && app.panel.take().is_none() && matches!(app.screen, Screen::Chat) {
        if app.editing {
            app.leave_editing();
        } else if !app.input.is_empty() {
            app.input.take();
            emptied = true;
        }
    }
    let hint = match emptied {
        true => app.say(
            "emptied, Ctrl+_ brings it back; Ctrl+C once more quits",
            "已清空，Ctrl+_ 可恢复；再按一次 Ctrl+C 退出",
        ),
        false => app.say("Ctrl+C once more quits", "再按一次 Ctrl+C 退出"),
    };
    let hint = hint.to_owned();
    app.flash(hint, Tone::Note, now);
    if let Some(flash) = &mut app.flash {
        // As long as it is true.
        flash.until = now + TWICE;
    }
    Vec::new()
}

/// A key that edits the message.
fn write(app: &mut App, event: KeyEvent) {
    let width = usize::from(app.places.input.width);
    match event.code {
        KeyCode::Up if event.modifiers.is_empty() => {
            if !app.input.vertical(true, width) {
                recall(app, true);
            }
        }
        KeyCode::Down if event.modifiers.is_empty() => {
            if !app.input.vertical(false, width) {
                recall(app, false);
            }
        }
        KeyCode::Tab => app.input.insert("\t"),
        _ => {
            panels::edit(&mut app.input, event);
        }
    }
}

/// The question before the one in the input, or the one after it.
fn recall(app: &mut App, older: bool) {
    let (at, draft) = match app.recalled.take() {
        Some((at, draft)) => (at, draft),
        None => (app.history.len(), app.input.text().to_owned()),
    };
    let to = if older { at.checked_sub(1) } else { Some(at + 1) };
    match to.filter(|&to| to <= app.history.len() && at <= app.history.len()) {
        Some(to) if to == app.history.len() => {
            if at < app.history.len() {
                app.input.set(&draft);
            }
        }
        Some(to) => {
            let question = app.history[to].clone();
            app.put_question(&question);
            app.recalled = Some((to, draft));
        }
        None => app.recalled = (at < app.history.len()).then_some((at, draft)),
    }
}

/// Does what a key of the chat stands for.
pub fn act(app: &mut App, what: Action, now: Instant) -> Vec<Effect> {
    match what {
        Action::Send => return send(app, now),
        Action::Newline => app.input.insert("\n"),
        Action::Stop => {
            if !app.stop() {
                app.leave_editing();
                // It told how to leave.
                app.flash = None;
            }
        }
        Action::EndOfInput if app.input.is_empty() => return quit(app, now),
        Action::EndOfInput => app.input.delete(),
        Action::Help => app.panel = Some(Panel::Help(0)),
        Action::Settings => app.panel = Some(Panel::Settings(settings::SettingsPane::default())),
        Action::Talks => return talks::open(app),
        Action::Models => {
            if is_free(app, now) {
                app.screen = Screen::Choose(Choice::default());
                return vec![Effect::Desk(DeskTask::Models)];
            }
        }
        Action::Retry => {
            if is_free(app, now) {
                match app.talk.turns.last().map(|turn| turn.question.clone()) {
                    Some(question) => return ask(app, AskKind::Retry, question),
                    None => nothing(app, now),
                }
            }
        }
        Action::Undo => {
            if is_free(app, now) {
                match app.talk.turns.pop() {
                    Some(turn) => return undone(app, &turn.question, now),
                    None => nothing(app, now),
                }
            }
        }
        Action::EditLast => match app.talk.turns.last().map(|turn| turn.question.clone()) {
            // What is the last question is known when the answer has ended.
            _ if is_busy(app, now) => {}
            Some(question) => {
                if !app.editing {
                    app.draft = app.written().into_owned();
                    app.recalled = None;
                }
                app.editing = true;
                app.put_question(&question);
                let [sends, _] = app.prefs.send_and_newline();
                let said = app.say("asks it anew, Esc leaves it", "重新提问，Esc 取消");
                let said = format!("{sends} {said}");
                app.flash(said, Tone::Note, now);
            }
            None => nothing(app, now),
        },
        Action::Copy => {
            let live = app.live().map(|live| live.text.clone()).filter(|text| !text.is_empty());
            match live.or_else(|| app.talk.turns.last().map(|turn| turn.answer.clone())) {
                Some(text) => {
                    let said = app
                        .say("copied, if the terminal allows it (OSC 52)", "已复制（需终端支持 OSC 52）")
                        .to_owned();
                    app.flash(said, Tone::Note, now);
                    return vec![Effect::Copy(text)];
                }
                None => nothing(app, now),
            }
        }
        Action::Attach => app.panel = Some(Panel::Ask(AskPanel::new(Wish::Attach, ""))),
        Action::New => return talks::switch(app, ModelTask::New),
        Action::Export => {
            let name = export::name(app);
            app.panel = Some(Panel::Ask(AskPanel::new(Wish::Export, &name)));
        }
        Action::Raw => {
            app.prefs.raw = !app.prefs.raw;
            return settings::keep_prefs(app);
        }
        Action::Unfold => app.transcript.unfold(),
        Action::Private => {
            if is_free(app, now) {
                if app.talk.private {
                    return vec![Effect::Work(ModelTask::Private(false))];
                }
                if app.talk.name.is_some() {
                    app.panel = Some(Panel::Ask(AskPanel::new(Wish::Forget, "")));
                } else {
                    return vec![Effect::Work(ModelTask::Private(true))];
                }
            }
        }
        Action::Language => {
            app.set_lang(app.lang().other());
            return settings::keep_prefs(app);
        }
        Action::Editor => return vec![Effect::Edit(app.input.text().to_owned())],
        Action::PageUp => app.transcript.page(-1),
        Action::PageDown => app.transcript.page(1),
        Action::RowUp => app.transcript.scroll(-1),
        Action::RowDown => app.transcript.scroll(1),
        Action::Top => app.transcript.to_top(),
        Action::End => app.transcript.to_end(),
        Action::InputUndo => app.input.undo(),
        Action::InputRedo => app.input.redo(),
        Action::Yank => app.input.yank(),
        Action::Interrupt | Action::Quit | Action::Redraw | Action::Suspend => {}
    }
    Vec::new()
}

fn nothing(app: &mut App, now: Instant) {
    let said = app.say("nothing was said yet", "还没有对话内容").to_owned();
    app.flash(said, Tone::Note, now);
}

/// What follows when the last exchange, which began with `question`, was taken back.
fn undone(app: &mut App, question: &str, now: Instant) -> Vec<Effect> {
    let left = app.talk.turns.len();
    app.transcript.changed_from(left);
    forget_dropped(app, left);
    app.remember(question);
    app.leave_editing();
    let said = if app.input.is_empty() {
        app.put_question(question);
        app.say("taken back; the question is in the input", "已撤回；问题已放回输入框")
    } else {
        app.say("taken back; Up brings the question back", "已撤回；按上键可找回问题")
    };
    let said = said.to_owned();
    app.flash(said, Tone::Note, now);
    app.context_used = 0;
    let mut effects = vec![Effect::Work(ModelTask::Undo)];
    // Most of it is still there: this tells how much of the context is full now.
    if left > 0 {
        effects.push(app.warm());
    }
    effects
}

/// Where nothing before turn `turn` is part of the prompt, there is room again for all.
fn forget_dropped(app: &mut App, turn: usize) {
    if app.talk.dropped >= turn {
        app.set_dropped(0);
    }
}

/// Whether another conversation is on its way to the screen; says so.
pub fn is_switching(app: &mut App, now: Instant) -> bool {
    if app.switching > 0 {
        let said = app.say("the conversation is being opened ...", "正在打开对话……").to_owned();
        app.flash(said, Tone::Note, now);
    }
    app.switching > 0
}

/// Whether the model writes, or another conversation is on its way; says so.
fn is_busy(app: &mut App, now: Instant) -> bool {
    if app.live().is_some() {
        let said = app.say("the model is writing; Esc stops it", "模型正在书写；Esc 停止").to_owned();
        app.flash(said, Tone::Note, now);
        return true;
    }
    is_switching(app, now)
}

/// Whether the model is there for something new; says why not.
fn is_free(app: &mut App, now: Instant) -> bool {
    let free = !is_busy(app, now);
    if free {
        // Nobody waits for what it reads.
        app.stop();
    }
    free
}

/// Sends the message, or does the command that it is.
fn send(app: &mut App, now: Instant) -> Vec<Effect> {
    let text = app.input.text().to_owned();
    if text.trim().is_empty() {
        return Vec::new();
    }
    if let Some((name, rest)) = commands::parse(&text) {
        let (name, rest) = (name.to_owned(), rest.to_owned());
        return commands::run(app, &name, &rest, now);
    }
    if !is_free(app, now) {
        return Vec::new();
    }
    app.input.take();
    let message = commands::message(&text).trim_end().to_owned();
    let revises = app.editing && !app.talk.turns.is_empty();
    // What stood there before an old question was looked at is there again, as after an edit.
    let before = app.recalled.take().filter(|_| !app.editing).map(|(_, draft)| draft);
    app.leave_editing();
    if let Some(before) = before.filter(|draft| !draft.is_empty()) {
        app.input.set(&before);
    }
    ask(app, if revises { AskKind::Revise } else { AskKind::New }, message)
}

fn ask(app: &mut App, ask: AskKind, question: String) -> Vec<Effect> {
    let Some(chosen) = app.chosen.clone() else { return Vec::new() };
    app.remember(&question);
    app.transcript.to_end();
    app.rates.clear();
    let last = app.talk.turns.len().saturating_sub(1);
    match ask {
        AskKind::New => {}
        AskKind::Retry => app.set_dropped(app.talk.dropped.min(last)),
        AskKind::Revise => forget_dropped(app, last),
    }
    // What the model does is what matters now.
    app.flash = None;
    let cancel = Arc::new(AtomicBool::new(false));
    let live = Live {
        ask,
        question: question.clone(),
        text: String::new(),
        tokens: 0,
        prompt: (0, 0),
        reading: None,
        first: None,
        taken: None,
        begun: false,
        stopping: false,
        cancel: cancel.clone(),
    };
    app.busy = Busy::Answering(Box::new(live));
    app.interrupted = None;
    vec![Effect::Work(ModelTask::Ask { ask, question, chosen, cancel })]
}

fn paste(app: &mut App, text: &str) -> Vec<Effect> {
    app.interrupted = None;
    match &mut app.panel {
        Some(Panel::Ask(ask)) if ask.wish != Wish::Forget => ask.input.insert(text.trim_end()),
        Some(Panel::Settings(state)) => {
            if let Some(input) = &mut state.editing {
                input.insert(text);
            }
        }
        Some(Panel::Talks(state)) => {
            let line = super::text::one_line(text);
            if let Some(input) = &mut state.renaming {
                input.insert(&line);
            } else {
                state.search.insert(&line);
                return talks::searched(app);
            }
        }
        Some(_) => {}
        None if !matches!(app.screen, Screen::Choose(_)) => app.input.insert(text),
        None => {}
    }
    Vec::new()
}

fn mouse(app: &mut App, event: MouseEvent, now: Instant) -> Vec<Effect> {
    let at = Position { x: event.column, y: event.row };
    let screen = Rect { x: 0, y: 0, width: app.size.0, height: app.size.1 };
    let wheel = match event.kind {
        MouseEventKind::ScrollUp => Some((-3, KeyCode::Up)),
        MouseEventKind::ScrollDown => Some((3, KeyCode::Down)),
        _ => None,
    };
    if let Some((rows, code)) = wheel {
        if app.panel.is_some() || !matches!(app.screen, Screen::Chat) {
            return match app.panel {
                Some(_) => panels::key(app, code.into(), now),
                None => chooser::key(app, code.into(), now),
            };
        }
        app.transcript.scroll(rows);
        return Vec::new();
    }
    if event.kind != MouseEventKind::Down(MouseButton::Left) {
        return Vec::new();
    }
    // A click chooses; a click on what is chosen opens it.
    match (&mut app.panel, &app.screen) {
        (Some(Panel::Talks(state)), _) => {
            let place = talks::list_place(screen);
            if state.renaming.is_none() && place.contains(at) {
                let row = state.first + usize::from(at.y - place.y);
                if row == state.at {
                    return talks::key(app, KeyCode::Enter.into(), now);
                }
                state.choose(row, &app.talks);
            }
        }
        (Some(_), _) => {}
        (None, Screen::Choose(choice)) => {
            let place = chooser::list_place(app, screen, choice);
            let rows = app.sources().len() + 1;
            let row = choice.first + usize::from(at.y.saturating_sub(place.y));
            if place.contains(at) && row < rows {
                if row == choice.at {
                    return chooser::open(app, now);
                }
                if let Screen::Choose(choice) = &mut app.screen {
                    choice.at = row;
                }
            }
        }
        (None, Screen::Chat | Screen::Load(_)) if app.places.input.contains(at) => {
            let place = app.places.input;
            let row = app.input.scroll + usize::from(at.y - place.y);
            app.input.click(row, usize::from(at.x - place.x), usize::from(place.width));
        }
        (None, Screen::Chat | Screen::Load(_)) => {}
    }
    Vec::new()
}
