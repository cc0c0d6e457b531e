//! `/set` of `huozi chat`.

use crate::cli::exit::Usage;
use crate::lang::Lang;
use crate::session::Settings;
use crate::settings::{self, GivenValue, Patch, Setting, SettingGroup, SettingName};
use anyhow::Result;

/// The settings that `/set` changes: the others are fixed when the model is opened.
fn settable() -> impl Iterator<Item = Setting> {
    Setting::ALL.into_iter().filter(|setting| setting.row().group != SettingGroup::Engine)
}

/// Shows the settings, after changing one if `rest` says which.
///
/// # Errors
/// [`Usage`]: no such setting, or not within its range.
pub(in crate::cli) fn set(settings: &mut Settings, rest: &str) -> Result<String> {
    let (key, value) = rest.split_once(|c: char| c.is_whitespace() || c == '=').unwrap_or((rest, ""));
    let value = value.trim().trim_start_matches('=').trim();
    if !key.is_empty() {
        set_one(settings, key, value).map_err(Usage)?;
    }
    let patch = settings.patch();
    let shown = settable().map(|setting| {
        let default = || format!("({})", setting.default_text(Lang::En));
        let value = patch.get(setting).map_or_else(default, |value| value.show(Lang::En));
        format!("{} {value}", setting.name())
    });
    Ok(Vec::from_iter(shown).join(" | "))
}

fn set_one(settings: &mut Settings, key: &str, text: &str) -> Result<(), String> {
    let Some(name) = SettingName::find(key) else {
        return Err(settings::unknown(key, settable().flat_map(Setting::names), Lang::En));
    };
    match (name.setting, text) {
        (Setting::System, "") => {
            return Err("/set system TEXT; /set system default takes the model's own".into());
        }
        (_, "") => return Err(format!("/set {} VALUE", name.name())),
        (Setting::System, "default") => {
            settings.system = None;
            return Ok(());
        }
        _ => {}
    }
    let reading = Patch::read([(key, GivenValue::Typed(text))]);
    let patch = reading
        .strict()
        .map_err(|invalid| format!("{} {}: {}", name.name(), invalid.given, invalid.needed(Lang::En)))?;
    if name.setting.row().group == SettingGroup::Engine {
        let flag = name.name().replace('_', "-");
        return Err(format!("{} is fixed while the model is open; start with --{flag} {text}", name.name()));
    }
    settings.apply(&patch);
    Ok(())
}
