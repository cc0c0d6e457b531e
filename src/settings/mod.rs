//! The one table of settings: what can be set, under which names, within which range, explained in both
//! languages.
//!
//! Every source of settings is read through this table: command-line flags, `config.toml`, `/set`, the
//! settings pane of `huozi-tui`, the metadata of a model file, conversation files, and JSON objects. So a
//! value is accepted from every source or from none.
//!
//! In: names and values as their source gives them ([`GivenValue`]). Out: a [`Patch`], or an
//! [`InvalidSetting`] that names the range. Where a person types or sends an invalid value, it is refused; a
//! conversation or a model file with one opens without that value, and the front end shows a note.
//!
//! A new setting is a row in [`table`](Setting::row), a field of [`Patch`], and the place that acts on it.

mod model_file;
mod patch;
mod read;
mod table;
mod value;

pub use model_file::from_model_file;
pub use patch::{Patch, PatchReading};
pub use read::{GivenValue, InvalidSetting};
pub use table::{MAX_THREADS, Setting, SettingDefault, SettingGroup, SettingKind, SettingName, SettingRow};
pub use value::SettingValue;

use crate::lang::Lang;

/// What is said about a name that no setting has; `valid` are the names that the source takes.
pub fn unknown<'a>(name: &str, valid: impl Iterator<Item = &'a str>, lang: Lang) -> String {
    let valid = Vec::from_iter(valid).join(", ");
    match lang {
        Lang::En => format!("unknown setting {name:?}; valid: {valid}"),
        Lang::Zh => format!("没有名为 {name:?} 的设置；可用：{valid}"),
    }
}

#[cfg(test)]
mod tests;
