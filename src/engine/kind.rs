//! The names of the inference engines.

/// An inference engine. Both kinds exist in every build; [`EngineKind::is_built`] says which of them can be
/// opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum EngineKind {
    /// Huozi's own engine.
    #[default]
    Native,
    /// llama.cpp, in builds with the cargo feature `ggml`.
    Ggml,
}

impl EngineKind {
    /// Both engines.
    pub const ALL: [Self; 2] = [Self::Native, Self::Ggml];

    /// The engines that this build can open.
    pub const BUILT: &[Self] = &[
        Self::Native,
        #[cfg(feature = "ggml")]
        Self::Ggml,
    ];

    /// The name that `--engine` takes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Ggml => "ggml",
        }
    }

    /// The engine called `text`; `llama.cpp` is another name of `ggml`.
    pub fn named(text: &str) -> Option<Self> {
        match text {
            "native" => Some(Self::Native),
            "ggml" | "llama.cpp" => Some(Self::Ggml),
            _ => None,
        }
    }

    /// Whether this build can open the engine.
    pub const fn is_built(self) -> bool {
        match self {
            Self::Native => true,
            Self::Ggml => cfg!(feature = "ggml"),
        }
    }
}
