//! The languages that a person can be answered in.

/// The language of the interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lang {
    /// English.
    #[default]
    En,
    /// Chinese.
    Zh,
}

impl Lang {
    /// The language that the values of `LC_ALL`, `LC_MESSAGES` and `LANG` ask for; the first that is not
    /// empty counts.
    pub fn from_locale(values: [Option<&str>; 3]) -> Self {
        let first = values.into_iter().flatten().find(|value| !value.is_empty()).unwrap_or_default();
        if first.starts_with("zh") { Self::Zh } else { Self::En }
    }

    /// The text in this language.
    pub fn of<T>(self, en: T, zh: T) -> T {
        match self {
            Self::En => en,
            Self::Zh => zh,
        }
    }

    /// The other one.
    pub fn other(self) -> Self {
        self.of(Self::Zh, Self::En)
    }
}
