//! The pane of the settings.

use super::app::{App, Tone};
use super::event::Effect;
use super::input::Input;
use super::look::{Lang, Theme};
use super::panels::{Panel, both_ends, edit, line, list, place, window};
use super::text::{one_line, pad, width};
use super::update::is_switching;
use super::worker::{Chosen, DeskTask, ModelTask};
use crate::session::{EngineKind, KvType};
use crate::settings::{
    self, GivenValue, InvalidSetting, Patch, Setting, SettingKind, SettingName, SettingValue,
};
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::style::Style;
use std::borrow::Cow;
use std::time::Instant;

/// The pane.
#[derive(Default)]
pub struct SettingsPane {
    /// The row that is chosen.
    pub at: usize,
    /// The first row shown.
    pub first: usize,
    /// Its new value, while it is typed.
    pub editing: Option<Input>,
    /// The text typed next replaces the present value.
    replaces: bool,
}

/// A row of the pane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// A setting of the conversation.
    Setting(SettingName),
    /// Language of the interface.
    Language,
    /// Colours.
    Colours,
    /// The key that sends.
    SendKey,
    /// Whether the mouse is used.
    Mouse,
}

const fn setting(setting: Setting) -> Item {
    Item::Setting(SettingName { setting, inverse: false })
}

/// All rows, in the order of the pane.
pub const ITEMS: [Item; 15] = [
    setting(Setting::MaxNew),
    setting(Setting::Temperature),
    setting(Setting::Penalty),
    setting(Setting::TopK),
    setting(Setting::TopP),
    setting(Setting::DoSample),
    setting(Setting::System),
    setting(Setting::Seed),
    setting(Setting::Threads),
    setting(Setting::Kv),
    setting(Setting::Engine),
    Item::Language,
    Item::Colours,
    Item::SendKey,
    Item::Mouse,
];

/// Below this width a row has no explanation, and in Chinese one name only.
const WIDE: usize = 60;

impl Item {
    /// The row with this name.
    pub fn find(name: &str) -> Option<Self> {
        match SettingName::find(name) {
            // The context is fixed when the model is opened.
            Some(SettingName { setting: Setting::CtxSize, .. }) => None,
            Some(name) => Some(Self::Setting(name)),
            None => ITEMS.into_iter().find(|item| item.name() == name.replace('-', "_")),
        }
    }

    /// The name, as flags and files have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Setting(name) => name.name(),
            Self::Language => "language",
            Self::Colours => "colours",
            Self::SendKey => "send_key",
            Self::Mouse => "mouse",
        }
    }

    /// The name in the pane; the Chinese one comes first in the Chinese interface.
    fn label(self, lang: Lang, cells: usize) -> Cow<'static, str> {
        let zh = match self {
            Self::Setting(name) => name.setting.row().name_zh,
            Self::Language => "界面语言",
            Self::Colours => "颜色",
            Self::SendKey => "发送键",
            Self::Mouse => "鼠标",
        };
        match lang {
            Lang::En => self.name().into(),
            Lang::Zh if cells < WIDE => zh.into(),
            Lang::Zh => format!("{zh} {}", self.name()).into(),
        }
    }

    fn explained(self, lang: Lang) -> &'static str {
        match self {
            Self::Setting(name) => name.setting.help(lang),
            Self::Language => lang.of("Interface language", "中文 或 English"),
            Self::Colours => lang.of("Interface colours", "深色 浅色 单色"),
            Self::SendKey => lang.of("Key that sends a message", "Enter 或 Alt+Enter"),
            Self::Mouse => lang.of("On: wheel scrolls; off: terminal selects", "开：滚轮翻页，关：终端选字"),
        }
    }

    /// Whether the row has a few values to choose from.
    fn is_choice(self) -> bool {
        match self {
            Self::Setting(name) => {
                matches!(name.setting.row().kind, SettingKind::Switch | SettingKind::Kv | SettingKind::Engine)
            }
            Self::Language | Self::Colours | Self::SendKey | Self::Mouse => true,
        }
    }

    fn is_system(self) -> bool {
        self == setting(Setting::System)
    }
}

/// The settings of an answer as a patch.
fn patch_of(chosen: &Chosen) -> Patch {
    chosen.options.patch().over(chosen.settings.patch())
}

/// The value that is shown, and edited.
pub fn value(app: &App, item: Item) -> String {
    match item {
        Item::Language => app.lang().of("English", "中文").to_owned(),
        Item::Colours => app.look().theme.name(app.lang()).to_owned(),
        Item::SendKey => if app.prefs.enter_sends { "Enter" } else { "Alt+Enter" }.to_owned(),
        Item::Mouse => SettingValue::Switch(app.prefs.mouse).show(app.lang()),
        Item::Setting(name) => {
            let value = app.chosen.as_ref().and_then(|chosen| patch_of(chosen).get(name.setting));
            let missing = if item.is_system() && app.chosen.is_some() { "" } else { "-" };
            value.map_or_else(|| missing.to_owned(), |value| value.show(app.lang()))
        }
    }
}

/// Sets a value that was typed. An empty system prompt is the model's own.
///
/// # Errors
/// A value that the setting does not take.
pub fn set(chosen: &mut Chosen, name: SettingName, text: &str) -> Result<(), InvalidSetting> {
    let value = name.read(GivenValue::Typed(text))?;
    if name.setting == Setting::System && text.trim().is_empty() {
        chosen.settings.system = None;
        return Ok(());
    }
    put_value(chosen, name.setting, value);
    Ok(())
}

fn put_value(chosen: &mut Chosen, setting: Setting, value: SettingValue) {
    let mut patch = Patch::default();
    patch.set(setting, Some(value));
    chosen.settings.apply(&patch);
    chosen.options.apply(&patch);
}

/// Whether on or off is meant.
fn switch(text: &str, lang: Lang) -> Result<bool, String> {
    match SettingName::from(Setting::DoSample).read(GivenValue::Typed(text)) {
        Ok(SettingValue::Switch(on)) => Ok(on),
        Ok(_) => Ok(false),
        Err(invalid) => Err(invalid.needed(lang)),
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
        (Item::Colours, "none" | "plain" | "no colour" | "单色" | "无颜色") => {
            app.set_theme(Theme::Plain)
        }
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
        Item::Setting(_) if is_switching(app, now) => return Vec::new(),
        Item::Setting(name) => {
            let Some(mut chosen) = app.chosen.clone() else { return Vec::new() };
            let Some(value) = next_value(name.setting, patch_of(&chosen).get(name.setting), up) else {
                return Vec::new();
            };
            put_value(&mut chosen, name.setting, value);
            app.chosen = Some(chosen.clone());
            return vec![Effect::Work(ModelTask::Keep(chosen))];
        }
    }
    changed(app, item)
}

/// The value that follows `now` in a direction; `None` for texts.
fn next_value(setting: Setting, now: Option<SettingValue>, up: bool) -> Option<SettingValue> {
    fn around<T: Copy + PartialEq>(all: &[T], now: T, up: bool) -> T {
        let at = all.iter().position(|&one| one == now).unwrap_or(0);
        all[(at + if up { 1 } else { all.len() - 1 }) % all.len()]
    }
    Some(match (setting.row().kind, now) {
        (SettingKind::Whole(least, most), now) => {
            // Beyond these a value is typed.
            let (step, most) = match setting {
                Setting::MaxNew => (64, 1 << 20),
                Setting::TopK => (5, 1000),
                _ => (1, most),
            };
            let now = if let Some(SettingValue::Whole(now)) = now { now } else { least };
            let next = if up { now.saturating_add(step) } else { now.saturating_sub(step) };
            SettingValue::Whole(next.clamp(least, most))
        }
        (SettingKind::Number(range), Some(SettingValue::Number(now))) => {
            let step = if setting == Setting::Penalty { 0.01 } else { 0.05 };
            let next = if up { now + step } else { now - step };
            SettingValue::Number((next.clamp(range.least, range.most) * 100.0).round() / 100.0)
        }
        (SettingKind::Switch, Some(SettingValue::Switch(on))) => SettingValue::Switch(!on),
        (SettingKind::Kv, Some(SettingValue::Kv(kv))) => SettingValue::Kv(around(&KvType::ALL, kv, up)),
        (SettingKind::Engine, Some(SettingValue::Engine(engine))) => {
            SettingValue::Engine(around(EngineKind::BUILT, engine, up))
        }
        _ => return None,
    })
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
            KeyCode::Enter if newline && item.is_system() => input.insert("\n"),
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
    let choice = item.is_choice();
    match key.code {
        KeyCode::Esc | KeyCode::F(2) | KeyCode::Char('q') => app.panel = None,
        KeyCode::Up | KeyCode::Char('k') => state.at = state.at.saturating_sub(1),
        KeyCode::Down | KeyCode::Char('j') | KeyCode::Tab => state.at = (state.at + 1).min(ITEMS.len() - 1),
        KeyCode::Home => state.at = 0,
        KeyCode::End => state.at = ITEMS.len() - 1,
        KeyCode::Left | KeyCode::Char('-' | 'h') => return step(app, item, false, now),
        KeyCode::Right | KeyCode::Char('+' | '=' | 'l' | ' ') => return step(app, item, true, now),
        // The first digit of another number.
        KeyCode::Char(c @ ('0'..='9' | '.')) if !choice && !item.is_system() => {
            state.editing = Some(Input::of(c.encode_utf8(&mut [0; 4])));
        }
        KeyCode::Delete | KeyCode::Backspace if !is_switching(app, now) => {
            if let (Item::Setting(name), Some(fresh), Some(chosen)) = (item, &app.fresh, app.chosen.as_mut())
            {
                match patch_of(fresh).get(name.setting) {
                    Some(value) => put_value(chosen, name.setting, value),
                    None if item.is_system() => chosen.settings.system = None,
                    None => return Vec::new(),
                }
                return vec![Effect::Work(ModelTask::Keep(chosen.clone()))];
            }
        }
        KeyCode::Enter if choice => return step(app, item, true, now),
        KeyCode::Enter => {
            let text = value(app, item);
            if let Some(Panel::Settings(state)) = &mut app.panel {
                (state.editing, state.replaces) = (Some(Input::of(&text)), !item.is_system());
            }
        }
        _ => {}
    }
    Vec::new()
}

/// Sets what was typed, or says what it must be.
pub fn put(app: &mut App, item: Item, text: &str, now: Instant) -> Vec<Effect> {
    let lang = app.lang();
    let done = match item {
        Item::Setting(_) if is_switching(app, now) => return Vec::new(),
        Item::Setting(name) => {
            let Some(chosen) = &mut app.chosen else { return Vec::new() };
            let done = set(chosen, name, text).map(|()| vec![Effect::Work(ModelTask::Keep(chosen.clone()))]);
            done.map_err(|invalid| invalid.needed(lang))
        }
        item => set_pref(app, item, text.trim()).map(|()| changed(app, item)),
    };
    match done {
        Ok(effects) => effects,
        Err(what) => {
            app.flash(format!("{}{}{what}", item.name(), lang.of(": ", "：")), Tone::Error, now);
            Vec::new()
        }
    }
}

/// What is said about a name that no row has.
pub fn unknown(name: &str, lang: Lang) -> String {
    settings::unknown(name, ITEMS.iter().map(|item| item.name()), lang)
}

/// The window's place.
pub fn window_place(screen: Rect) -> Rect {
    place(screen, 76, ITEMS.len() as u16 + 2)
}

/// Shows the pane.
pub fn render(app: &App, state: &SettingsPane, screen: Rect, buffer: &mut Buffer) -> Option<Position> {
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
    let label = |item: Item| item.label(app.lang(), cells);
    let names = ITEMS.iter().map(|&item| width(&label(item))).max().unwrap_or(0) + 2;
    let rows: Vec<_> = ITEMS
        .iter()
        .map(|&item| {
            let mut shown = one_line(&value(app, item));
            if item.is_system() && shown.is_empty() {
                let default = Setting::System.default_text(app.lang());
                shown = app.lang().of(format!("({default})"), format!("（{default}）"));
            }
            let explained = if cells >= WIDE { item.explained(app.lang()) } else { "" };
            let room =
                cells.saturating_sub(names + if explained.is_empty() { 0 } else { width(explained) + 2 });
            let left = format!("{}{}", pad(&label(item), names), super::text::fit(&shown, room));
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
    use crate::session::Settings;
    use crate::session::open::SessionOptions;

    fn chosen() -> Chosen {
        let settings = Settings {
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

    fn find(name: &str) -> SettingName {
        let Some(Item::Setting(name)) = Item::find(name) else { panic!("{name}") };
        name
    }

    #[test]
    fn values_are_checked() {
        for (name, good, bad) in [
            ("max_new_tokens", "64", "0"),
            ("temperature", "1.5", "-1"),
            ("repetition_penalty", "1.1", "0"),
            ("top_k", "0", "-1"),
            ("top_p", "0.5", "2"),
            ("do_sample", "off", "maybe"),
            ("seed", "18446744073709551615", "x"),
            ("threads", "3", "0"),
            ("kv_type", "q8", "q4"),
            ("engine", "native", "magic"),
        ] {
            let (mut c, name) = (chosen(), find(name));
            let before = c.clone();
            assert!(set(&mut c, name, bad).is_err(), "{name:?} {bad}");
            assert_eq!(c, before, "{name:?}: a refused value changes nothing");
            set(&mut c, name, good).unwrap();
            assert_eq!(patch_of(&c).get(name.setting).unwrap().show(Lang::En), good, "{name:?}");
        }
        let mut c = chosen();
        set(&mut c, find("greedy"), "on").unwrap();
        assert!(!c.settings.sampling.do_sample);
        set(&mut c, find("system"), "你是诗人\n").unwrap();
        assert_eq!(c.settings.system.as_deref(), Some("你是诗人\n"));
        set(&mut c, find("system"), "  ").unwrap();
        assert_eq!(c.settings.system, None);
        assert_eq!((Item::find("ctx_size"), Item::find("send-key")), (None, Some(Item::SendKey)));
    }

    #[test]
    fn rows_are_the_settings_that_can_change() {
        let listed = ITEMS.into_iter().filter_map(|item| match item {
            Item::Setting(name) => Some(name.setting),
            _ => None,
        });
        let expected = Setting::ALL.into_iter().filter(|&setting| setting != Setting::CtxSize);
        assert_eq!(Vec::from_iter(listed), Vec::from_iter(expected));
    }

    #[test]
    fn arrows_stay_within_the_range() {
        let next = |setting, now, up| next_value(setting, Some(now), up).unwrap();
        assert_eq!(next(Setting::TopP, SettingValue::Number(1.0), true), SettingValue::Number(1.0));
        assert_eq!(next(Setting::Temperature, SettingValue::Number(0.5), true), SettingValue::Number(0.55));
        assert_eq!(next(Setting::Penalty, SettingValue::Number(0.01), false), SettingValue::Number(0.01));
        assert_eq!(next(Setting::MaxNew, SettingValue::Whole(64), false), SettingValue::Whole(1));
        assert_eq!(next(Setting::Kv, SettingValue::Kv(KvType::Q8), true), SettingValue::Kv(KvType::F32));
        assert_eq!(next(Setting::Kv, SettingValue::Kv(KvType::F32), false), SettingValue::Kv(KvType::Q8));
    }
}
