//! The pane of the settings.

use super::app::{App, Tone};
use super::event::Effect;
use super::input::Input;
use super::look::{Lang, Theme};
use super::panels::{Panel, both_ends, edit, line, list, place, window};
use super::text::{one_line, pad, width};
use super::update::is_switching;
use super::worker::{Chosen, DeskTask, ModelTask};
use crate::session::EngineKind;
use crate::session::KvType;
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::style::Style;
use std::time::Instant;

/// The pane.
#[derive(Default)]
pub struct Settings {
    /// The row that is chosen.
    pub at: usize,
    /// The first row shown.
    pub first: usize,
    /// Its new value, while it is typed.
    pub editing: Option<Input>,
    /// What is typed next takes the place of the value that stands there.
    replaces: bool,
}

/// What can be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// `max_new_tokens`.
    MaxNew,
    /// `temperature`.
    Temperature,
    /// `repetition_penalty`.
    Penalty,
    /// `top_k`.
    TopK,
    /// `top_p`.
    TopP,
    /// `do_sample`.
    DoSample,
    /// The system prompt.
    System,
    /// The seed.
    Seed,
    /// Threads.
    Threads,
    /// Type of the KV cache.
    Kv,
    /// The engine.
    Engine,
    /// Language of the interface.
    Language,
    /// Colours.
    Colours,
    /// The key that sends.
    SendKey,
    /// Whether the mouse is used.
    Mouse,
}

/// All of them, in the order of the pane.
pub const ITEMS: [Item; 15] = [
    Item::MaxNew,
    Item::Temperature,
    Item::Penalty,
    Item::TopK,
    Item::TopP,
    Item::DoSample,
    Item::System,
    Item::Seed,
    Item::Threads,
    Item::Kv,
    Item::Engine,
    Item::Language,
    Item::Colours,
    Item::SendKey,
    Item::Mouse,
];

impl Item {
    /// The name, as flags and files have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::MaxNew => "max_new_tokens",
            Self::Temperature => "temperature",
            Self::Penalty => "repetition_penalty",
            Self::TopK => "top_k",
            Self::TopP => "top_p",
            Self::DoSample => "do_sample",
            Self::System => "system",
            Self::Seed => "seed",
            Self::Threads => "threads",
            Self::Kv => "kv_type",
            Self::Engine => "engine",
            Self::Language => "language",
            Self::Colours => "colours",
            Self::SendKey => "send_key",
            Self::Mouse => "mouse",
        }
    }

    fn explained(self, lang: Lang) -> &'static str {
        match self {
            Self::MaxNew => lang.of("tokens of an answer at most", "回答最多的词元数"),
            Self::Temperature => lang.of("sharpness; 0 takes the likeliest", "随机程度；0 取最可能的"),
            Self::Penalty => lang.of("against repetition; 1 is off", "抑制重复；1 为关闭"),
            Self::TopK => lang.of("keep the K likeliest; 0 is off", "只留前 K 个；0 为关闭"),
            Self::TopP => lang.of("keep the likeliest up to P; 1 is off", "只留累计概率 P；1 为关闭"),
            Self::DoSample => lang.of("draw, or take the likeliest", "随机抽取，或取最可能的"),
            Self::System => lang.of("system prompt; empty: the model's own", "系统提示；空为模型自带"),
            Self::Seed => lang.of("the same seed gives the same text", "相同的种子得到相同的文本"),
            Self::Threads => lang.of("threads that compute", "计算线程数"),
            Self::Kv => lang.of("memory of the context: f32 f16 q8", "上下文缓存：f32 f16 q8"),
            Self::Engine => lang.of("who computes", "计算引擎"),
            Self::Language => lang.of("of the interface", "界面语言"),
            Self::Colours => lang.of("of the interface", "界面颜色"),
            Self::SendKey => lang.of("the key that sends", "发送键"),
            Self::Mouse => lang.of("off: the terminal has it", "关闭：由终端处理"),
        }
    }

    /// Whether it belongs to the conversation, not to the interface.
    fn of_talk(self) -> bool {
        !matches!(self, Self::Language | Self::Colours | Self::SendKey | Self::Mouse)
    }
}

/// The value that is shown, and edited.
pub fn value(app: &App, item: Item) -> String {
    let on = |on: bool| if on { app.say("on", "开") } else { app.say("off", "关") }.to_owned();
    match item {
        Item::Language => app.lang().of("English", "中文").to_owned(),
        Item::Colours => app.look().theme.name(app.lang()).to_owned(),
        Item::SendKey => if app.prefs.enter_sends { "Enter" } else { "Alt+Enter" }.to_owned(),
        Item::Mouse => on(app.prefs.mouse),
        item => app.chosen.as_ref().map_or_else(|| "-".to_owned(), |chosen| of(chosen, item, on)),
    }
}

fn of(chosen: &Chosen, item: Item, on: impl Fn(bool) -> String) -> String {
    let (settings, options) = (&chosen.settings, &chosen.options);
    let sampling = &settings.sampling;
    match item {
        Item::MaxNew => settings.max_new.to_string(),
        Item::Temperature => sampling.temperature.to_string(),
        Item::Penalty => sampling.repetition_penalty.to_string(),
        Item::TopK => sampling.top_k.to_string(),
        Item::TopP => sampling.top_p.to_string(),
        Item::DoSample => on(sampling.do_sample),
        Item::System => settings.system.clone().unwrap_or_default(),
        Item::Seed => settings.seed.to_string(),
        Item::Threads => options.threads.map_or_else(|| "-".into(), |n| n.to_string()),
        Item::Kv => options.kv.map_or("f16", KvType::name).to_owned(),
        Item::Engine => options.engine.name().to_owned(),
        Item::Language | Item::Colours | Item::SendKey | Item::Mouse => String::new(),
    }
}

/// Sets a value that was typed.
///
/// # Errors
/// What the value must be.
pub fn set(chosen: &mut Chosen, item: Item, text: &str, lang: Lang) -> Result<(), String> {
    let text = if item == Item::System { text } else { text.trim() };
    let (settings, options) = (&mut chosen.settings, &mut chosen.options);
    let whole = |least: u64, most: u64| {
        let n = text.parse::<u64>().ok().filter(|n| (least..=most).contains(n));
        n.ok_or_else(|| match lang {
            Lang::En if most == u64::MAX => format!("a whole number from {least} is needed"),
            Lang::En => format!("a whole number from {least} to {most} is needed"),
            Lang::Zh if most == u64::MAX => format!("需要不小于 {least} 的整数"),
            Lang::Zh => format!("需要 {least} 到 {most} 的整数"),
        })
    };
    let number = || text.parse::<f32>().map_err(|_| lang.of("a number is needed", "需要数字").to_owned());
    let mut sampling = settings.sampling;
    match item {
        Item::MaxNew => settings.max_new = whole(1, u64::from(u32::MAX))? as usize,
        Item::Temperature => sampling.temperature = number()?,
        Item::Penalty => sampling.repetition_penalty = number()?,
        Item::TopP => sampling.top_p = number()?,
        Item::TopK => sampling.top_k = whole(0, u64::from(u32::MAX))? as u32,
        Item::DoSample => sampling.do_sample = switch(text, lang)?,
        Item::System => settings.system = (!text.trim().is_empty()).then(|| text.to_owned()),
        Item::Seed => settings.seed = whole(0, u64::MAX)?,
        Item::Threads => options.threads = Some(whole(1, 1024)? as usize),
        Item::Kv => {
            options.kv = Some(
                KvType::named(text)
                    .ok_or_else(|| lang.of("f32, f16 or q8 is needed", "需要 f32、f16 或 q8").to_owned())?,
            );
        }
        Item::Engine => {
            let engine = EngineKind::BUILT.iter().find(|engine| engine.name() == text);
            options.engine = *engine.ok_or_else(|| {
                let names: Vec<&str> = EngineKind::BUILT.iter().map(|engine| engine.name()).collect();
                format!("{}: {}", lang.of("this build has", "可用引擎"), names.join(" "))
            })?;
        }
        Item::Language | Item::Colours | Item::SendKey | Item::Mouse => {}
    }
    sampling.check().map_err(|error| error.to_string())?;
    settings.sampling = sampling;
    Ok(())
}

/// Whether on or off is meant.
fn switch(text: &str, lang: Lang) -> Result<bool, String> {
    match text {
        "on" | "true" | "1" | "yes" | "开" => Ok(true),
        "off" | "false" | "0" | "no" | "关" => Ok(false),
        _ => Err(lang.of("on or off is needed", "需要 on 或 off").to_owned()),
    }
}

/// Sets a value of the interface that was typed.
fn set_pref(app: &mut App, item: Item, text: &str) -> Result<(), String> {
    let lang = app.lang();
    let one_of = |what: &str| format!("{} {what}", lang.of("one of these is needed:", "可选："));
    match (item, text.to_lowercase().as_str()) {
        (Item::Language, "zh" | "chinese" | "中文") => app.set_lang(Lang::Zh),
        (Item::Language, "en" | "english" | "英文") => app.set_lang(Lang::En),
        (Item::Language, _) => return Err(one_of("zh en")),
        (Item::Colours, "dark" | "深色") => app.set_theme(Theme::Dark),
        (Item::Colours, "light" | "浅色") => app.set_theme(Theme::Light),
        (Item::Colours, "none" | "plain" | "no colour" | "无颜色") => app.set_theme(Theme::Plain),
        (Item::Colours, _) => return Err(one_of("dark light none")),
        (Item::SendKey, "enter") => app.prefs.enter_sends = true,
        (Item::SendKey, "alt+enter") => app.prefs.enter_sends = false,
        (Item::SendKey, _) => return Err(one_of("Enter Alt+Enter")),
        (_, text) => app.prefs.mouse = switch(text, lang)?,
    }
    Ok(())
}

/// The next value in a direction; what is a choice among a few goes round.
fn step(app: &mut App, item: Item, up: bool, now: Instant) -> Vec<Effect> {
    match item {
        Item::Language => app.set_lang(app.lang().other()),
        Item::Colours => {
            let at = Theme::ALL.iter().position(|&theme| theme == app.look().theme).unwrap_or(0);
            app.set_theme(Theme::ALL[(at + if up { 1 } else { Theme::ALL.len() - 1 }) % Theme::ALL.len()]);
        }
        Item::SendKey => app.prefs.enter_sends = !app.prefs.enter_sends,
        Item::Mouse => app.prefs.mouse = !app.prefs.mouse,
        _ if is_switching(app, now) => return Vec::new(),
        item => {
            let Some(mut chosen) = app.chosen.clone() else { return Vec::new() };
            let (settings, options) = (&mut chosen.settings, &mut chosen.options);
            let sampling = &mut settings.sampling;
            let by = |value: f32, step: f32, least: f32, most: f32| {
                let next = if up { value + step } else { value - step };
                ((next.clamp(least, most)) * 100.0).round() / 100.0
            };
            let count = |value: usize, step: usize, least: usize, most: usize| {
                (if up { value.saturating_add(step) } else { value.saturating_sub(step) }).clamp(least, most)
            };
            match item {
                Item::MaxNew => settings.max_new = count(settings.max_new, 64, 1, 1 << 20),
                Item::Temperature => sampling.temperature = by(sampling.temperature, 0.05, 0.0, 5.0),
                Item::Penalty => {
                    sampling.repetition_penalty = by(sampling.repetition_penalty, 0.01, 0.01, 5.0);
                }
                Item::TopK => sampling.top_k = count(sampling.top_k as usize, 5, 0, 1000) as u32,
                Item::TopP => sampling.top_p = by(sampling.top_p, 0.05, 0.0, 1.0),
                Item::DoSample => sampling.do_sample = !sampling.do_sample,
                Item::Seed => settings.seed = count(settings.seed as usize, 1, 0, usize::MAX) as u64,
                Item::Threads => options.threads = Some(count(options.threads.unwrap_or(1), 1, 1, 1024)),
                Item::Kv => {
                    options.kv = Some(match (options.kv.unwrap_or(KvType::F16), up) {
                        (KvType::F32, true) | (KvType::Q8, false) => KvType::F16,
                        (KvType::F16, true) | (KvType::F32, false) => KvType::Q8,
                        (KvType::Q8, true) | (KvType::F16, false) => KvType::F32,
                    });
                }
                Item::Engine => {
                    let at =
                        EngineKind::BUILT.iter().position(|&engine| engine == options.engine).unwrap_or(0);
                    options.engine = EngineKind::BUILT[(at + 1) % EngineKind::BUILT.len()];
                }
                _ => {}
            }
            app.chosen = Some(chosen.clone());
            return vec![Effect::Work(ModelTask::Keep(chosen))];
        }
    }
    changed(app, item)
}

/// Keeps what was chosen for the interface.
pub fn keep_prefs(app: &App) -> Vec<Effect> {
    let text = serde_json::to_string_pretty(&app.prefs);
    text.into_iter().map(|text| Effect::Desk(DeskTask::Prefs(text))).collect()
}

/// What follows a change of the interface.
fn changed(app: &App, item: Item) -> Vec<Effect> {
    let mut effects = keep_prefs(app);
    match item {
        Item::Mouse => effects.push(Effect::Mouse(app.prefs.mouse)),
        Item::Colours => effects.push(Effect::Redraw),
        _ => {}
    }
    effects
}

/// Takes a key.
pub fn key(app: &mut App, key: KeyEvent, now: Instant) -> Vec<Effect> {
    let Some(Panel::Settings(state)) = &mut app.panel else { return Vec::new() };
    let item = ITEMS[state.at.min(ITEMS.len() - 1)];
    if let Some(input) = &mut state.editing {
        let newline = key.code == KeyCode::Enter && key.modifiers.contains(KeyModifiers::ALT);
        let replaces = std::mem::take(&mut state.replaces);
        let plain = key.modifiers.difference(KeyModifiers::SHIFT).is_empty();
        if replaces && plain && matches!(key.code, KeyCode::Char(_)) {
            input.set("");
        }
        match key.code {
            KeyCode::Esc => state.editing = None,
            KeyCode::Enter if newline && item == Item::System => input.insert("\n"),
            KeyCode::Enter => {
                let text = input.text().to_owned();
                state.editing = None;
                return put(app, item, &text, now);
            }
            _ => {
                edit(input, key);
            }
        }
        return Vec::new();
    }
    let choice = matches!(item, Item::DoSample | Item::Kv | Item::Engine) || !item.of_talk();
    match key.code {
        KeyCode::Esc | KeyCode::F(2) | KeyCode::Char('q') => app.panel = None,
        KeyCode::Up | KeyCode::Char('k') => state.at = state.at.saturating_sub(1),
        KeyCode::Down | KeyCode::Char('j') | KeyCode::Tab => state.at = (state.at + 1).min(ITEMS.len() - 1),
        KeyCode::Home => state.at = 0,
        KeyCode::End => state.at = ITEMS.len() - 1,
        KeyCode::Left | KeyCode::Char('-' | 'h') => return step(app, item, false, now),
        KeyCode::Right | KeyCode::Char('+' | '=' | 'l' | ' ') => return step(app, item, true, now),
        // The first digit of another number.
        KeyCode::Char(c @ ('0'..='9' | '.')) if !choice && item != Item::System => {
            state.editing = Some(Input::of(c.encode_utf8(&mut [0; 4])));
        }
        KeyCode::Delete | KeyCode::Backspace if item.of_talk() && !is_switching(app, now) => {
            if let (Some(fresh), Some(chosen)) = (app.fresh.clone(), app.chosen.as_mut()) {
                let text = of(&fresh, item, |on| if on { "on" } else { "off" }.to_owned());
                if set(chosen, item, &text, Lang::En).is_ok() {
                    return vec![Effect::Work(ModelTask::Keep(chosen.clone()))];
                }
            }
        }
        KeyCode::Enter if choice => return step(app, item, true, now),
        KeyCode::Enter => {
            let text = value(app, item);
            if let Some(Panel::Settings(state)) = &mut app.panel {
                (state.editing, state.replaces) = (Some(Input::of(&text)), item != Item::System);
            }
        }
        _ => {}
    }
    Vec::new()
}

/// Sets what was typed, or says what it must be.
pub fn put(app: &mut App, item: Item, text: &str, now: Instant) -> Vec<Effect> {
    let lang = app.lang();
    let done = match item.of_talk() {
        false => set_pref(app, item, text.trim()).map(|()| changed(app, item)),
        true if is_switching(app, now) => return Vec::new(),
        true => {
            let Some(chosen) = &mut app.chosen else { return Vec::new() };
            set(chosen, item, text, lang).map(|()| vec![Effect::Work(ModelTask::Keep(chosen.clone()))])
        }
    };
    match done {
        Ok(effects) => effects,
        Err(what) => {
            app.flash(format!("{}: {what}", item.name()), Tone::Error, now);
            Vec::new()
        }
    }
}

/// The window's place.
pub fn window_place(screen: Rect) -> Rect {
    place(screen, 76, ITEMS.len() as u16 + 2)
}

/// Shows the pane.
pub fn render(app: &App, state: &Settings, screen: Rect, buffer: &mut Buffer) -> Option<Position> {
    let look = app.look();
    let area = window_place(screen);
    let hint = match state.editing {
        Some(_) => app.say("Enter sets, Esc leaves it", "Enter 确定，Esc 取消"),
        None => app.say(
            "Left Right change, Enter types, Del resets, Esc closes",
            "左右修改，Enter 输入，Del 复原，Esc 关闭",
        ),
    };
    let inner = window(
        area,
        app.say("Settings: this conversation, the interface", "设置：此对话、界面"),
        hint,
        look,
        buffer,
    );
    let cells = usize::from(inner.width);
    let names = ITEMS.iter().map(|item| item.name().len()).max().unwrap_or(0) + 2;
    let rows: Vec<_> = ITEMS
        .iter()
        .map(|&item| {
            let mut shown = one_line(&value(app, item));
            if item == Item::System && shown.is_empty() {
                shown = app.say("(the model's own)", "（模型自带）").to_owned();
            }
            let explained = if cells >= 60 { item.explained(app.lang()) } else { "" };
            let room =
                cells.saturating_sub(names + if explained.is_empty() { 0 } else { width(explained) + 2 });
            let left = format!("{}{}", pad(item.name(), names), super::text::fit(&shown, room));
            both_ends(&left, explained, cells, [Style::new(), look.dim()])
        })
        .collect();
    let inside = Rect { y: inner.y, height: inner.height, ..inner };
    list(&rows, (state.first, Some(state.at)), inside, look, buffer);
    let y = inner.y + state.at.saturating_sub(state.first) as u16;
    let input = state.editing.as_ref()?;
    let row =
        Rect { x: inner.x + names as u16, y, width: inner.width.saturating_sub(names as u16), height: 1 };
    for x in row.left()..row.right() {
        buffer[(x, y)].reset();
    }
    Some(line(input, row, Style::new(), buffer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Settings as Session;
    use crate::session::open::SessionOptions;

    fn chosen() -> Chosen {
        let settings = Session {
            sampling: Default::default(),
            max_new: 512,
            n_ctx: 2048,
            system: None,
            history: huozi_token::HistoryRule::TwoThirds,
            seed: 1,
        };
        Chosen {
            settings,
            options: SessionOptions { threads: Some(2), kv: Some(KvType::F16), ..SessionOptions::default() },
        }
    }

    #[test]
    fn values_are_checked() {
        for (item, good, bad) in [
            (Item::MaxNew, "64", "0"),
            (Item::Temperature, "1.5", "-1"),
            (Item::Penalty, "1.1", "0"),
            (Item::TopK, "0", "-1"),
            (Item::TopP, "0.5", "2"),
            (Item::DoSample, "off", "maybe"),
            (Item::Seed, "18446744073709551615", "x"),
            (Item::Threads, "3", "0"),
            (Item::Kv, "q8", "q4"),
            (Item::Engine, "native", "magic"),
        ] {
            let mut c = chosen();
            let before = c.clone();
            assert!(set(&mut c, item, bad, Lang::En).is_err(), "{item:?} {bad}");
            assert_eq!(c, before, "{item:?}: a refused value changes nothing");
            set(&mut c, item, good, Lang::Zh).unwrap();
            assert_eq!(of(&c, item, |on| if on { "on" } else { "off" }.into()), good, "{item:?}");
        }
        let mut c = chosen();
        set(&mut c, Item::System, "你是诗人\n", Lang::En).unwrap();
        assert_eq!(c.settings.system.as_deref(), Some("你是诗人\n"));
        set(&mut c, Item::System, "  ", Lang::En).unwrap();
        assert_eq!(c.settings.system, None);
        for bad in ["nan", "inf"] {
            assert!(set(&mut c, Item::Temperature, bad, Lang::En).is_err(), "{bad}");
        }
    }
}
