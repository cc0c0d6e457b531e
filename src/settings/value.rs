//! The value of one setting.

use crate::engine::{EngineKind, KvType};
use crate::lang::Lang;

/// A value that lies within the range of its setting.
#[derive(Clone, Debug, PartialEq)]
pub enum SettingValue {
    /// A whole number.
    Whole(u64),
    /// A number.
    Number(f32),
    /// On or off.
    Switch(bool),
    /// A type of the KV cache.
    Kv(KvType),
    /// An engine.
    Engine(EngineKind),
    /// A text.
    Text(String),
}

impl SettingValue {
    /// The value as a person reads it, and as every source of text reads it back.
    pub fn show(&self, lang: Lang) -> String {
        match self {
            Self::Whole(n) => n.to_string(),
            Self::Number(x) => x.to_string(),
            Self::Switch(true) => lang.of("on", "开").to_owned(),
            Self::Switch(false) => lang.of("off", "关").to_owned(),
            Self::Kv(kv) => kv.name().to_owned(),
            Self::Engine(engine) => engine.name().to_owned(),
            Self::Text(text) => text.clone(),
        }
    }
}

impl serde::Serialize for SettingValue {
    /// As the formats that have numbers and truth values of their own hold it.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Whole(n) => serializer.serialize_u64(*n),
            Self::Number(x) => serializer.serialize_f32(*x),
            Self::Switch(on) => serializer.serialize_bool(*on),
            Self::Kv(kv) => serializer.serialize_str(kv.name()),
            Self::Engine(engine) => serializer.serialize_str(engine.name()),
            Self::Text(text) => serializer.serialize_str(text),
        }
    }
}

/// A type that a field of a patch holds.
pub(super) trait FieldType: Sized {
    /// The field as a value.
    fn value(&self) -> SettingValue;
    /// The value as a field; `None` for a value of another kind, or one that the type cannot hold.
    fn field(value: SettingValue) -> Option<Self>;
}

macro_rules! field_types {
    ($($type:ty = $kind:ident, $into:expr, $from:expr;)*) => {
        $(impl FieldType for $type {
            fn value(&self) -> SettingValue {
                SettingValue::$kind($into(self))
            }

            fn field(value: SettingValue) -> Option<Self> {
                match value {
                    SettingValue::$kind(value) => $from(value),
                    _ => None,
                }
            }
        })*
    };
}

field_types! {
    u64 = Whole, |n: &Self| *n, Some;
    u32 = Whole, |n: &Self| u64::from(*n), |n| Self::try_from(n).ok();
    usize = Whole, |n: &Self| *n as u64, |n| Self::try_from(n).ok();
    f32 = Number, |x: &Self| *x, Some;
    bool = Switch, |on: &Self| *on, Some;
    KvType = Kv, |kv: &Self| *kv, Some;
    EngineKind = Engine, |engine: &Self| *engine, Some;
    String = Text, Self::clone, Some;
}
