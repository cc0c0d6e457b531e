//! The pane of the settings.

use super::input::Input;
use super::interface::{Interface, Ui};
use super::look::Theme;
use super::text::{fit, one_line, pad, width};
use super::widgets::{both_ends, edit, first_of, line, list, place, window};
use super::worker::Chosen;
use crate::lang::Lang;
use crate::session::{EngineKind, KvType};
use crate::settings::{
    self, GivenValue, InvalidSetting, Patch, Setting, SettingKind, SettingName, SettingValue,
};
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::style::Style;
use std::borrow::Cow;

/// The pane.
#[derive(Default)]
pub struct SettingsPane {
    /// The row that is chosen.
    at: usize,
    /// The first row shown.
    first: usize,
    /// Its new value, while it is typed.
    editing: Option<Input>,
    /// The text typed next replaces the present value.
    replaces: bool,
}

/// What a key did.
#[derive(Debug, PartialEq)]
pub enum SettingsOutcome {
    /// The pane stays.
    Stay,
    /// It closes.
    Close,
    /// The next value of this row, up or down.
    Step(Item, bool),
    /// The value that was typed for this row.
    Put(Item, String),
    /// The value that a new conversation has in this row.
    Reset(SettingName),
}

/// What the values are read from.
#[derive(Clone, Copy)]
pub struct SettingsSource<'a> {
    /// The interface.
    pub interface: &'a Interface,
    /// The next answer; `None` while no model is open.
    pub chosen: Option<&'a Chosen>,
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

/// The rows of the interface, below those of the settings.
const OF_INTERFACE: [Item; 4] = [Item::Language, Item::Colours, Item::SendKey, Item::Mouse];

/// All rows, in the order of the pane: every setting but the context, which is fixed when the model is
/// opened.
pub const ITEMS: [Item; Setting::ALL.len() - 1 + OF_INTERFACE.len()] = {
    let mut items = [Item::Mouse; Setting::ALL.len() - 1 + OF_INTERFACE.len()];
    let (mut at, mut i) = (0, 0);
    while i < Setting::ALL.len() {
        if !matches!(Setting::ALL[i], Setting::CtxSize) {
            items[at] = setting(Setting::ALL[i]);
            at += 1;
        }
        i += 1;
    }
    let (_, rest) = items.split_at_mut(at);
    rest.copy_from_slice(&OF_INTERFACE);
    items
};

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
    fn label(self, ui: Ui, cells: usize) -> Cow<'static, str> {
        let local = match self {
            Self::Setting(name) => match ui.lang {
                Lang::En => name.name(),
                Lang::Zh => name.setting.row().name_zh,
            },
            Self::Language => ui.words.row_language[0],
            Self::Colours => ui.words.row_colours[0],
            Self::SendKey => ui.words.row_send_key[0],
            Self::Mouse => ui.words.row_mouse[0],
        };
        match local == self.name() || cells < WIDE {
            true => local.into(),
            false => format!("{local} {}", self.name()).into(),
        }
    }

    /// The name in a message: in Chinese the Chinese one leads.
    pub fn shown(self, ui: Ui) -> Cow<'static, str> {
        match self {
            Self::Setting(name) => name.shown(ui.lang).into(),
            item => item.label(ui, WIDE),
        }
    }

    fn explained(self, ui: Ui) -> &'static str {
        match self {
            Self::Setting(name) => name.setting.help(ui.lang),
            Self::Language => ui.words.row_language[1],
            Self::Colours => ui.words.row_colours[1],
            Self::SendKey => ui.words.row_send_key[1],
            Self::Mouse => ui.words.row_mouse[1],
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
fn value(source: SettingsSource<'_>, item: Item) -> String {
    let SettingsSource { interface, chosen } = source;
    let (words, lang) = (interface.words(), interface.lang());
    match item {
        Item::Language => words.language.to_owned(),
        Item::Colours => (words.theme)(interface.look().theme).to_owned(),
        Item::SendKey => interface.prefs().send_and_newline()[0].to_owned(),
        Item::Mouse => SettingValue::Switch(interface.prefs().mouse).show(lang),
        Item::Setting(name) => {
            let value = chosen.and_then(|chosen| patch_of(chosen).get(name.setting));
            let missing = if item.is_system() && chosen.is_some() { "" } else { "-" };
            value.map_or_else(|| missing.to_owned(), |value| value.show(lang))
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
///
/// # Errors
/// What the value must be.
pub fn set_pref(interface: &mut Interface, item: Item, text: &str) -> Result<(), String> {
    let (lang, words) = (interface.lang(), interface.words());
    match (item, text.to_lowercase().as_str()) {
        (Item::Language, "zh" | "chinese" | "中文") => interface.set_lang(Lang::Zh),
        (Item::Language, "en" | "english" | "英文") => interface.set_lang(Lang::En),
        (Item::Language, _) => return Err((words.one_of)("zh en")),
        (Item::Colours, "dark" | "深色") => interface.set_theme(Theme::Dark),
        (Item::Colours, "light" | "浅色") => interface.set_theme(Theme::Light),
        (Item::Colours, "none" | "plain" | "monochrome" | "no colour" | "单色" | "无颜色") => {
            interface.set_theme(Theme::Plain);
        }
        (Item::Colours, _) => return Err((words.one_of)("dark light none")),
        (Item::SendKey, "enter") => interface.set_enter_sends(true),
        (Item::SendKey, "alt+enter") => interface.set_enter_sends(false),
        (Item::SendKey, _) => return Err((words.one_of)("Enter Alt+Enter")),
        (_, text) => interface.set_mouse(switch(text, lang)?),
    }
    Ok(())
}

/// Takes the next value of the interface in a direction; a choice among a few goes round.
pub fn step_pref(interface: &mut Interface, item: Item, up: bool) {
    match item {
        Item::Language => interface.set_lang(interface.lang().other()),
        Item::Colours => {
            let at = Theme::ALL.iter().position(|&theme| theme == interface.look().theme).unwrap_or(0);
            let next = at + if up { 1 } else { Theme::ALL.len() - 1 };
            interface.set_theme(Theme::ALL[next % Theme::ALL.len()]);
        }
        Item::SendKey => interface.set_enter_sends(!interface.prefs().enter_sends),
        Item::Mouse => interface.set_mouse(!interface.prefs().mouse),
        Item::Setting(_) => {}
    }
}

/// Takes the next value of the next answer in a direction; false where there is none.
pub fn step(chosen: &mut Chosen, name: SettingName, up: bool) -> bool {
    let next = next_value(name.setting, patch_of(chosen).get(name.setting), up);
    next.map(|value| put_value(chosen, name.setting, value)).is_some()
}

/// Sets the value that a new conversation has; false where it has none.
pub fn reset(chosen: &mut Chosen, fresh: &Chosen, name: SettingName) -> bool {
    match patch_of(fresh).get(name.setting) {
        Some(value) => put_value(chosen, name.setting, value),
        None if name.setting == Setting::System => chosen.settings.system = None,
        None => return false,
    }
    true
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

/// What is said about a name that no row has.
pub fn unknown(name: &str, lang: Lang) -> String {
    settings::unknown(name, ITEMS.iter().map(|item| item.name()), lang)
}

/// The window's place.
pub fn window_place(screen: Rect) -> Rect {
    place(screen, 76, ITEMS.len() as u16 + 2)
}

impl SettingsPane {
    /// Takes a key.
    pub fn key(&mut self, key: KeyEvent, source: SettingsSource<'_>) -> SettingsOutcome {
        let item = ITEMS[self.at.min(ITEMS.len() - 1)];
        if self.editing.is_some() {
            return self.type_value(key, item);
        }
        match key.code {
            KeyCode::Esc | KeyCode::F(2) => return SettingsOutcome::Close,
            KeyCode::Up | KeyCode::BackTab => self.at = self.at.saturating_sub(1),
            KeyCode::Down | KeyCode::Tab => self.at = (self.at + 1).min(ITEMS.len() - 1),
            KeyCode::Home => self.at = 0,
            KeyCode::End => self.at = ITEMS.len() - 1,
            KeyCode::Left => return SettingsOutcome::Step(item, false),
            KeyCode::Right | KeyCode::Char(' ') => return SettingsOutcome::Step(item, true),
            // The beginning of another value, of whatever row: no character closes the pane.
            KeyCode::Char(c) if key.modifiers.difference(KeyModifiers::SHIFT).is_empty() => {
                self.begin(item, c.encode_utf8(&mut [0; 4]), source);
            }
            KeyCode::Delete | KeyCode::Backspace => {
                if let Item::Setting(name) = item {
                    return SettingsOutcome::Reset(name);
                }
            }
            KeyCode::Enter if item.is_choice() => return SettingsOutcome::Step(item, true),
            KeyCode::Enter => {
                let text = value(source, item);
                (self.editing, self.replaces) = (Some(Input::of(&text)), !item.is_system());
            }
            _ => {}
        }
        SettingsOutcome::Stay
    }

    /// Begins to type a value in the place of the present one; a system prompt is added to.
    fn begin(&mut self, item: Item, text: &str, source: SettingsSource<'_>) {
        let before = if item.is_system() { value(source, item) } else { String::new() };
        self.editing = Some(Input::of(&format!("{before}{text}")));
        self.replaces = false;
    }

    /// Takes a key while a value is typed.
    fn type_value(&mut self, key: KeyEvent, item: Item) -> SettingsOutcome {
        let Some(input) = &mut self.editing else { return SettingsOutcome::Stay };
        let newline = key.code == KeyCode::Enter && key.modifiers.contains(KeyModifiers::ALT);
        let replaces = std::mem::take(&mut self.replaces);
        let plain = key.modifiers.difference(KeyModifiers::SHIFT).is_empty();
        if replaces && plain && matches!(key.code, KeyCode::Char(_)) {
            input.set("");
        }
        match key.code {
            KeyCode::Esc => self.editing = None,
            KeyCode::Enter if newline && item.is_system() => input.insert("\n"),
            KeyCode::Enter => {
                let text = input.text().to_owned();
                self.editing = None;
                return SettingsOutcome::Put(item, text);
            }
            _ => drop(edit(input, key)),
        }
        SettingsOutcome::Stay
    }

    /// Takes a pasted text.
    pub fn paste(&mut self, text: &str, source: SettingsSource<'_>) {
        match &mut self.editing {
            Some(input) => {
                if std::mem::take(&mut self.replaces) {
                    input.set("");
                }
                input.insert(text);
            }
            None => self.begin(ITEMS[self.at.min(ITEMS.len() - 1)], text, source),
        }
    }

    /// Moves the list so that the row that is chosen can be seen.
    pub fn prepare(&mut self, screen: Rect) {
        let height = window_place(screen).height.saturating_sub(2);
        self.first = first_of(self.first, self.at, ITEMS.len(), height);
    }

    /// Shows the pane; gives where the cursor stands.
    pub fn render(&self, source: SettingsSource<'_>, screen: Rect, buffer: &mut Buffer) -> Option<Position> {
        let ui = source.interface.ui();
        let Ui { words, look, lang } = ui;
        let keys = if self.editing.is_some() { words.settings_keys_typing } else { words.settings_keys };
        let inner = window(window_place(screen), words.settings, keys, look, buffer);
        let cells = usize::from(inner.width);
        let names = ITEMS.iter().map(|item| width(&item.label(ui, cells))).max().unwrap_or(0) + 2;
        let rows: Vec<_> = ITEMS
            .iter()
            .map(|&item| {
                let mut shown = one_line(&value(source, item));
                if item.is_system() && shown.is_empty() {
                    shown = (words.in_brackets)(&Setting::System.default_text(lang));
                }
                let explained = if cells >= WIDE { item.explained(ui) } else { "" };
                let taken = if explained.is_empty() { 0 } else { width(explained) + 2 };
                let room = cells.saturating_sub(names + taken);
                let left = format!("{}{}", pad(&item.label(ui, cells), names), fit(&shown, room));
                both_ends(&left, explained, cells, [Style::new(), look.dim()])
            })
            .collect();
        list(rows, (self.first, Some(self.at)), inner, look, buffer);
        let y = inner.y + self.at.saturating_sub(self.first) as u16;
        let input = self.editing.as_ref()?;
        let (x, width) = (inner.x + names as u16, inner.width.saturating_sub(names as u16));
        let row = Rect { x, y, width, height: 1 };
        for x in row.left()..row.right() {
            buffer[(x, y)].reset();
        }
        Some(line(input, row, Style::new(), buffer))
    }
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
