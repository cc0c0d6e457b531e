//! From a value as its source gives it to a value within the range of its setting.

use super::table::{SettingKind, SettingName};
use super::value::SettingValue;
use crate::engine::{EngineKind, KvType};
use crate::lang::Lang;
use std::fmt;

/// A value as its source gives it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum GivenValue<'a> {
    /// Typed by a person: numbers and switches are text, too.
    Typed(&'a str),
    /// A text, from a file format that has numbers and truth values of their own.
    Text(&'a str),
    /// A whole number.
    Whole(i128),
    /// Another number.
    Number(f64),
    /// A truth value.
    Switch(bool),
    /// Something else: a list, a table.
    Other,
}

/// What a build without llama.cpp says about another engine.
const NATIVE_ONLY: [&str; 2] = [
    "native is needed: this build has no llama.cpp; \
     `env $(.ci/ggml-env) cargo build --release --features ggml` makes one that has (see README.md)",
    "需要 native：此程序不含 llama.cpp；用 `env $(.ci/ggml-env) cargo build --release --features ggml` 编译的才有\
     （见 README.zh.md）",
];
/// Characters of a refused value that are shown.
const SHOWN_CHARS: usize = 40;

impl GivenValue<'_> {
    /// The value for a message: short, without control characters.
    fn shown(self) -> String {
        match self {
            Self::Typed(text) | Self::Text(text) => {
                let cut: String = text.chars().take(SHOWN_CHARS).collect();
                format!("{cut:?}{}", if cut.len() < text.len() { "..." } else { "" })
            }
            Self::Whole(n) => n.to_string(),
            // 1e300 has 301 digits.
            Self::Number(x) if x.abs() >= 1e9 => format!("{x:e}"),
            Self::Number(x) => x.to_string(),
            Self::Switch(on) => on.to_string(),
            Self::Other => "(not a single value)".to_owned(),
        }
    }

    fn whole(self) -> Option<i128> {
        match self {
            Self::Typed(text) => text.trim().parse().ok(),
            Self::Whole(n) => Some(n),
            _ => None,
        }
    }

    /// Rounded to f32 once from f64, whatever the source: the same decimal digits give the same number.
    fn number(self) -> Option<f32> {
        match self {
            Self::Typed(text) => text.trim().parse::<f64>().ok().map(|x| x as f32),
            Self::Whole(n) => Some(n as f32),
            Self::Number(x) => Some(x as f32),
            _ => None,
        }
    }

    fn switch(self) -> Option<bool> {
        match self {
            Self::Typed(text) => match text.trim().to_ascii_lowercase().as_str() {
                "on" | "true" | "1" | "yes" | "开" => Some(true),
                "off" | "false" | "0" | "no" | "关" => Some(false),
                _ => None,
            },
            Self::Switch(on) => Some(on),
            _ => None,
        }
    }

    fn name(&self) -> Option<&str> {
        match self {
            Self::Typed(text) => Some(text.trim()),
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// A value that a setting does not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidSetting {
    /// The name under which it came.
    pub name: SettingName,
    /// The value, for a message: short, without control characters.
    pub given: String,
    /// A person typed it: otherwise it is from a format with truth values of its own.
    pub typed: bool,
}

impl InvalidSetting {
    /// What the setting takes: `a number from 0 to 5 is needed`.
    pub fn needed(&self, lang: Lang) -> String {
        let row = self.name.setting.row();
        match row.kind {
            SettingKind::Whole(least, most) => lang.of(
                format!("a whole number from {least} to {most} is needed"),
                format!("需要 {least} 到 {most} 的整数"),
            ),
            SettingKind::Number(range) => {
                let (least, most) = (range.least, range.most);
                lang.of(
                    format!("a number from {least} to {most} is needed"),
                    format!("需要 {least} 到 {most} 的数"),
                )
            }
            SettingKind::Switch if self.typed => lang.of("on or off is needed", "需要 on 或 off").to_owned(),
            SettingKind::Switch => lang.of("true or false is needed", "需要 true 或 false").to_owned(),
            SettingKind::Kv => lang.of("f32, f16 or q8 is needed", "需要 f32、f16 或 q8").to_owned(),
            SettingKind::Engine if EngineKind::Ggml.is_built() => {
                lang.of("native or ggml is needed", "需要 native 或 ggml").to_owned()
            }
            SettingKind::Engine => lang.of(NATIVE_ONLY[0], NATIVE_ONLY[1]).to_owned(),
            SettingKind::Text => lang.of("a text is needed", "需要文字").to_owned(),
        }
    }

    /// The name and what the setting takes: `temperature: a number from 0 to 5 is needed`.
    pub fn text(&self, lang: Lang) -> String {
        format!("{}{}{}", self.name.shown(lang), lang.of(": ", "："), self.needed(lang))
    }

    /// The note about a value of a file that is not used.
    pub fn note(&self, lang: Lang) -> String {
        let (name, given, needed) = (self.name.shown(lang), &self.given, self.needed(lang));
        match lang {
            Lang::En => format!("{name} {given} is not used: {needed}"),
            Lang::Zh => format!("未使用 {name} 的值 {given}：{needed}"),
        }
    }
}

impl fmt::Display for InvalidSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text(Lang::En))
    }
}

impl std::error::Error for InvalidSetting {}

impl SettingName {
    /// Reads a value for the setting of this name.
    ///
    /// # Errors
    /// A value of another kind, or outside of the range.
    pub fn read(self, given: GivenValue<'_>) -> Result<SettingValue, InvalidSetting> {
        let value = match self.setting.row().kind {
            SettingKind::Whole(least, most) => given
                .whole()
                .filter(|n| (i128::from(least)..=i128::from(most)).contains(n))
                .and_then(|n| u64::try_from(n).ok())
                .map(SettingValue::Whole),
            SettingKind::Number(range) => {
                given.number().filter(|&x| range.contains(x)).map(SettingValue::Number)
            }
            SettingKind::Switch => given.switch().map(|on| SettingValue::Switch(on != self.inverse)),
            SettingKind::Kv => given.name().and_then(kv_named).map(SettingValue::Kv),
            SettingKind::Engine => given
                .name()
                .and_then(EngineKind::named)
                .filter(|engine| engine.is_built())
                .map(SettingValue::Engine),
            SettingKind::Text => match given {
                GivenValue::Typed(text) | GivenValue::Text(text) => Some(SettingValue::Text(text.to_owned())),
                _ => None,
            },
        };
        let typed = matches!(given, GivenValue::Typed(_));
        value.ok_or_else(|| InvalidSetting { name: self, given: given.shown(), typed })
    }
}

/// The type of the KV cache with this name, or with the name that PyTorch's users give it.
fn kv_named(text: &str) -> Option<KvType> {
    KvType::named(match text {
        "fp32" => "f32",
        "fp16" => "f16",
        text => text,
    })
}
