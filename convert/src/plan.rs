//! Tensor -> format: the presets' choice, and formats chosen by name.

pub use huozi_quant::bloom::plan::{Preset, PresetOptions, fit, format};

use huozi_quant::Format;
use regex_lite::Regex;

use crate::names::{Target, TensorRole};

/// A format for all matrices whose GGUF names a pattern finds, e.g. `ffn_down=q6_k` or `blk\.[0-3]\.=q8_0`.
#[derive(Clone, Debug)]
pub struct NamedFormat {
    /// Found anywhere in the name.
    pub pattern: Regex,
    /// The format.
    pub format: Format,
}

impl std::str::FromStr for NamedFormat {
    type Err = String;

    /// Reads `REGEX=TYPE`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (pattern, format) = text.rsplit_once('=').ok_or("expected REGEX=TYPE, e.g. ffn_down=q6_k")?;
        if pattern.is_empty() {
            return Err("expected a pattern before the =".into());
        }
        let pattern = Regex::new(pattern).map_err(|e| format!("{pattern}: {e}"))?;
        Ok(Self { pattern, format: named_format(format)? })
    }
}

/// The format of single tensors with this name; mixtures have none.
///
/// # Errors
/// Another name; the message lists the valid ones.
pub fn named_format(name: &str) -> Result<Format, String> {
    Format::from_name(name).ok_or_else(|| {
        let all: Vec<String> = Format::ALL.iter().map(|f| f.name().to_lowercase()).collect();
        format!("unknown tensor format {name}; valid: {}", all.join(", "))
    })
}

/// The format of the first pattern that matches the target's name; none for vectors, which are always F32.
pub(crate) fn named(types: &[NamedFormat], target: &Target) -> Option<Format> {
    let found = types.iter().find(|t| t.pattern.is_match(&target.name));
    found.filter(|_| target.role != TensorRole::Vector).map(|t| t.format)
}
