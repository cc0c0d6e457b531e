//! What the threads tell, to state.

use super::app::{App, Busy, Screen, Tone};
use super::event::Effect;
use super::failure::Failure;
use super::look::Lang;
use super::panels::{Choice, Panel};
use super::worker::{AskKind, Chosen, DeskTask, ModelTask, Report, Talk};
use super::{ask, talks};
use crate::session::open::{About, Source};
use crate::session::{Event, Notice};
use std::time::{Duration, Instant};

/// Between two speeds of the sparkline.
const RATE: Duration = Duration::from_millis(400);

/// Takes a report.
pub fn take(app: &mut App, report: Report, now: Instant) -> Vec<Effect> {
    match report {
        Report::Loading(step, done, total) => {
            if let Screen::Load(loading) = &mut app.screen {
                loading.step = Some((step, done, total));
            }
        }
        Report::Ready { about, fresh, chosen } => return ready(app, *about, *fresh, *chosen),
        Report::LoadFailed(why) => {
            // What was asked is not lost. What it was to replace may be: then it is a question of its own.
            app.leave_editing();
            if let Busy::Answering(mut live) = std::mem::replace(&mut app.busy, Busy::Idle) {
                if live.ask == AskKind::Revise {
                    live.ask = AskKind::New;
                }
                app.give_back(&live);
            }
            app.transcript.live_ended();
            (app.switching, app.warming) = (0, 0);
            (app.about, app.chosen, app.panel) = (None, None, None);
            return choose_again(app, why);
        }
        Report::Refused(why) => return choose_again(app, why),
        Report::Event(event) => on_event(app, event, now),
        Report::Talk(talk) => return on_talk(app, *talk, now),
        Report::Answered(error) => {
            let ended = std::mem::replace(&mut app.busy, Busy::Idle);
            app.transcript.live_ended();
            if let (Busy::Answering(live), Some(error)) = (ended, error) {
                app.fail(&error, now);
                app.give_back(&live);
            }
        }
        Report::Named(name, title) => {
            (app.talk.name, app.talk.title, app.talk.copy) = (Some(name), title, false);
            return talks::relist(app);
        }
        Report::NotOpened(why) => {
            app.switching = app.switching.saturating_sub(1);
            if let Some(why) = why {
                app.fail(&why, now);
            }
            return talks::relist(app);
        }
        Report::Warmed { filled, dropped } => {
            app.warming = app.warming.saturating_sub(1);
            if app.warming == 0 && matches!(app.busy, Busy::Warming { .. }) {
                app.busy = Busy::Idle;
                app.set_dropped(dropped.min(app.talk.turns.len()));
            }
            if filled > 0 {
                app.context_used = filled;
            }
        }
        Report::Reopening => {
            let said = app.say("opening the engine anew ...", "正在重新打开引擎……").to_owned();
            app.flash(said, Tone::Note, now);
        }
        Report::Reopened(about, back) => {
            app.about = Some(*about);
            // It is not being opened any more.
            app.flash = None;
            if let Some((options, why)) = back {
                if let Some(chosen) = &mut app.chosen {
                    chosen.options = *options;
                }
                app.fail(&why, now);
            }
        }
        Report::NotSaved(why) => {
            let what = app.say("not saved", "没有保存");
            let said = format!("{what}{}{}", app.say(": ", "："), why.text(app.lang()));
            app.flash(said, Tone::Error, now);
            (app.unsaved, app.leaving) = (Some(why), None);
        }
        Report::Begun => {
            if let Busy::Answering(live) = &mut app.busy {
                live.begun = true;
            }
        }
        Report::Saved => {
            app.leaving = None;
            if app.unsaved.take().is_some() {
                let said = app.say("the conversation is saved again", "对话已重新保存").to_owned();
                app.flash(said, Tone::Note, now);
            }
        }
        Report::InvalidSettings(invalid) => {
            let notes = Vec::from_iter(invalid.iter().map(|invalid| invalid.note(app.lang())));
            app.flash(notes.join(app.say("; ", "；")), Tone::Note, now);
        }
        Report::Moved => {
            let said = app.say(
                "another program removed or changed the conversation's file: it is kept in a new one",
                "对话文件被其他程序删除或改动：已另存为新文件",
            );
            let said = said.to_owned();
            app.flash(said, Tone::Error, now);
            (app.unsaved, app.leaving) = (None, None);
        }
        Report::DraftNotKept(why) => {
            let said = app.say("what is being written is not kept: ", "输入的草稿未能保存：");
            let said = format!("{said}{}", why.text(app.lang()));
            app.flash(said, Tone::Error, now);
        }
        Report::Draft(text, more) => {
            app.draft_kept.clone_from(&text);
            // What was written since stays, too.
            let since = app.input.text();
            let both = if since.is_empty() { text } else { format!("{text}\n{since}") };
            app.input.set(&both);
            let mut said = app
                .say("what was not sent last time is in the input", "上次未发送的内容已放回输入框")
                .to_owned();
            if more > 0 {
                said += &match app.lang() {
                    Lang::En => format!("; {more} more wait for another start"),
                    Lang::Zh => format!("；另有 {more} 份待下次启动"),
                };
            }
            app.flash(said, Tone::Note, now);
            return vec![Effect::Desk(DeskTask::DraftTaken)];
        }
        Report::Memory(bytes) => app.memory = Some(bytes),
        Report::Models(models, available) => {
            let before = app.sources();
            app.models = (models, available);
            let first = !std::mem::replace(&mut app.looked, true);
            let (now, opening) = (app.sources(), app.opening.clone());
            if let Screen::Choose(choice) = &mut app.screen {
                let place = |source: &Source| now.iter().position(|other| other == source);
                choice.at = match (first, choice.error.is_some(), before.get(choice.at)) {
                    // What did not open, or the row where its path can be mended.
                    (true, true, _) => opening.as_ref().and_then(place).unwrap_or(now.len()),
                    (true, false, _) if choice.at == 0 => 0,
                    // What is chosen stays so, wherever it stands now.
                    (_, _, Some(source)) => place(source).unwrap_or(choice.at.min(now.len())),
                    (_, _, None) => now.len(),
                };
            }
        }
        Report::Talks(text, found) => talks::listed(app, &text, found),
        Report::Deleted(name) => {
            app.trashed.push(name);
            let said = app
                .say("deleted; Ctrl+Z in the list brings it back", "已删除；在列表中按 Ctrl+Z 恢复")
                .to_owned();
            app.flash(said, Tone::Note, now);
            return talks::relist(app);
        }
        Report::Undeleted(trashed, name) => {
            app.trashed.retain(|other| *other != trashed);
            if let Some(Panel::Talks(state)) = &mut app.panel {
                state.choose_name(name);
            }
            return talks::relist(app);
        }
        Report::Exported(path) => {
            let said = format!("{}{}", app.say("written: ", "已写入："), path.display());
            app.flash(said, Tone::Note, now);
        }
        Report::Attached(path, text, encoding) => {
            let name = path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
            let fence = if text.contains("```") { "~~~~" } else { "```" };
            let before = if app.input.is_empty() || app.input.before().ends_with('\n') { "" } else { "\n" };
            app.input.insert(&format!("{before}{name}\n{fence}\n{}\n{fence}\n", text.trim_end()));
            if let Some(encoding) = encoding {
                let said =
                    format!("{}{encoding}", app.say("not UTF-8; read as ", "不是 UTF-8，已按此编码读取："));
                app.flash(said, Tone::Note, now);
            }
        }
        Report::Completed(completed) => ask::completed(app, &completed, now),
        Report::PathFailed(why) => {
            ask::again(app);
            app.fail(&why, now);
        }
        Report::DeskFailed(why) => {
            app.fail(&why, now);
            // What was shown as done already is not.
            return talks::relist(app);
        }
    }
    Vec::new()
}

/// Back to the choice of a model. The one that failed stays chosen; a path that was typed is in no list.
fn choose_again(app: &mut App, why: Failure) -> Vec<Effect> {
    let sources = app.sources();
    let place = |source| sources.iter().position(|other| other == source);
    let at = app.opening.as_ref().map_or(0, |source| place(source).unwrap_or(sources.len()));
    app.screen = Screen::Choose(Choice { at, error: Some(why), ..Choice::default() });
    vec![Effect::Desk(DeskTask::Models)]
}

/// A model is there.
fn ready(app: &mut App, about: About, fresh: Chosen, chosen: Chosen) -> Vec<Effect> {
    (app.about, app.fresh, app.chosen) = (Some(about), Some(fresh), Some(chosen));
    app.screen = Screen::Chat;
    app.stats = None;
    app.context_used = 0;
    let first = !std::mem::replace(&mut app.was_ready, true);
    if !first && !app.talk.turns.is_empty() {
        // What this model makes of it.
        return vec![app.warm()];
    }
    if !first || app.start.fresh {
        return Vec::new();
    }
    app.switching += 1;
    vec![Effect::Work(ModelTask::Resume)]
}

fn on_talk(app: &mut App, mut talk: Talk, now: Instant) -> Vec<Effect> {
    let switched = std::mem::take(&mut talk.opened);
    // Rows of turns that are the same stay.
    let same = app.talk.turns.iter().zip(&talk.turns).take_while(|(a, b)| a == b).count();
    let same = match app.talk.dropped == talk.dropped {
        true => same,
        // The mark stands below the last of them.
        false => same.min(app.talk.dropped.min(talk.dropped).saturating_sub(1)),
    };
    app.transcript.changed_from(same);
    let chosen = talk.chosen.take();
    let copy = talk.copy;
    if switched && app.talk.private {
        // It leaves nothing, also of what was begun or is remembered.
        app.input_private = !app.input.is_empty();
        app.input.forget();
        let left = std::mem::take(&mut app.talk.turns);
        app.history.retain(|question| left.iter().all(|turn| turn.question != *question));
        app.history.truncate(app.private_from);
        app.recalled = None;
    }
    if talk.private && !app.talk.private {
        app.private_from = app.history.len();
    }
    if talk.private || switched {
        app.unsaved = None;
    }
    app.talk = talk;
    // The list shows titles and times.
    let mut effects = talks::relist(app);
    if switched {
        app.chosen = chosen.or(app.chosen.take());
        app.switching = app.switching.saturating_sub(1);
        app.stats = None;
        app.context_used = 0;
        app.transcript.to_end();
        let questions: Vec<String> = app.talk.turns.iter().map(|turn| turn.question.clone()).collect();
        questions.iter().for_each(|question| app.remember(question));
        // Ids are only known of what this model said.
        let others = app.talk.turns.last().is_some_and(|turn| turn.ids.is_none());
        let said = match (copy, others) {
            (true, _) => app.say(
                "it cannot be written here (another huozi has it, or it is read-only): this goes on in a copy",
                "此处无法写入（另一个 huozi 正在使用，或为只读）：在副本中继续",
            ),
            (false, true) => app.say(
                "the last answer is another model's; this one goes on (Ctrl+N: a new conversation)",
                "上一个回答出自另一个模型，现由此模型继续（Ctrl+N 新建对话）",
            ),
            (false, false) => "",
        };
        if !said.is_empty() {
            app.flash(said.to_owned(), Tone::Note, now);
        }
        if !app.talk.turns.is_empty() && matches!(app.busy, Busy::Idle) {
            effects.push(app.warm());
        }
    }
    effects
}

fn on_event(app: &mut App, event: Event, now: Instant) {
    if let (Busy::Warming { done, since, .. }, Event::Prompt { done: read, total }) = (&mut app.busy, &event)
    {
        since.get_or_insert((now, *read));
        *done = (*read, *total);
        return;
    }
    let lang = app.lang();
    match event {
        Event::Prompt { done, total } => {
            if let Busy::Answering(live) = &mut app.busy {
                live.reading.get_or_insert((now, done));
                live.prompt = (done, total);
            }
        }
        Event::Token(_) => {
            let mut rate = None;
            if let Busy::Answering(live) = &mut app.busy {
                live.tokens += 1;
                live.first.get_or_insert(now);
                let (since, tokens) = *live.taken.get_or_insert((now, live.tokens));
                let elapsed = now.saturating_duration_since(since);
                if elapsed >= RATE {
                    rate = Some((live.tokens - tokens) as f64 / elapsed.as_secs_f64());
                    live.taken = Some((now, live.tokens));
                }
            }
            if let Some(rate) = rate {
                app.rate(rate);
            }
        }
        Event::Text(text) => {
            if let Busy::Answering(live) = &mut app.busy {
                live.text.push_str(&text);
            }
        }
        Event::Dropped { exchanges } => {
            app.set_dropped(app.talk.dropped + exchanges);
            let said = match lang {
                Lang::En => {
                    format!("the oldest {exchanges} exchange(s) no longer fit and are left out of the prompt")
                }
                Lang::Zh => format!("最早的 {exchanges} 轮对话放不下，已不在上下文中"),
            };
            app.flash(said, Tone::Note, now);
        }
        Event::Notice(notice) => {
            let said = match (lang, notice) {
                (Lang::En, notice) => notice.to_string(),
                (Lang::Zh, Notice::EmptyAnswer) => "模型的回答是空的；可再试一次或换个问法".to_owned(),
                (Lang::Zh, Notice::LongContext { n_ctx, trained }) => {
                    format!("{n_ctx} 个词元的上下文超过模型训练时的 {trained} 个，质量可能下降")
                }
            };
            app.flash(said, Tone::Note, now);
        }
        Event::Stopped(_) => {}
        Event::Stats(stats) => {
            app.context_used = stats.context_used;
            app.rate(stats.generate_rate());
            app.stats = Some(stats);
        }
    }
}
