//! Settings of which some are set.

use super::read::{GivenValue, InvalidSetting};
use super::table::{Setting, SettingName};
use super::value::{FieldType, SettingValue};
use crate::engine::{EngineKind, KvType};
use crate::sample::Sampling;
use serde_json::Value;

macro_rules! patch {
    ($($(#[$doc:meta])+ $setting:ident = $field:ident: $type:ty,)*) => {
        /// Settings of which some are set; `None` is what the next place in the order of precedence says.
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct Patch {
            $($(#[$doc])+ pub $field: Option<$type>,)*
        }

        impl Patch {
            /// The value of a setting.
            pub fn get(&self, setting: Setting) -> Option<SettingValue> {
                match setting {
                    $(Setting::$setting => self.$field.as_ref().map(FieldType::value),)*
                }
            }

            /// Sets a value that [`SettingName::read`] gave for this setting; `None` takes it back.
            pub fn set(&mut self, setting: Setting, value: Option<SettingValue>) {
                match setting {
                    $(Setting::$setting => self.$field = value.and_then(FieldType::field),)*
                }
            }

            /// Every field of this patch, or else that of `lower`; unlike [`Patch::or`] without any
            /// exception.
            #[must_use]
            pub fn over(self, lower: Self) -> Self {
                Self { $($field: self.$field.or(lower.$field),)* }
            }
        }
    };
}

patch! {
    /// Maximum tokens per answer.
    MaxNew = max_new: usize,
    /// See [`Sampling::temperature`].
    Temperature = temperature: f32,
    /// See [`Sampling::repetition_penalty`].
    Penalty = repetition_penalty: f32,
    /// See [`Sampling::top_k`].
    TopK = top_k: u32,
    /// See [`Sampling::top_p`].
    TopP = top_p: f32,
    /// See [`Sampling::do_sample`].
    DoSample = do_sample: bool,
    /// The system prompt.
    System = system: String,
    /// Seed of the draws.
    Seed = seed: u64,
    /// Threads that compute.
    Threads = threads: usize,
    /// Type of the KV cache.
    Kv = kv: KvType,
    /// The engine.
    Engine = engine: EngineKind,
    /// Positions of prompt and answer together.
    CtxSize = n_ctx: usize,
}

impl Patch {
    /// These settings, and where they say nothing those of `lower`. A patch that says how to draw
    /// (temperature, top-k or top-p) draws, whatever `lower` says about greedy.
    #[must_use]
    pub fn or(mut self, lower: Self) -> Self {
        if self.temperature.is_some() || self.top_k.is_some() || self.top_p.is_some() {
            self.do_sample = self.do_sample.or(Some(true));
        }
        self.over(lower)
    }

    /// All settings of `sampling`, and nothing else.
    pub fn of_sampling(sampling: &Sampling) -> Self {
        Self {
            temperature: Some(sampling.temperature),
            repetition_penalty: Some(sampling.repetition_penalty),
            top_k: Some(sampling.top_k),
            top_p: Some(sampling.top_p),
            do_sample: Some(sampling.do_sample),
            ..Self::default()
        }
    }

    /// Sets what this patch says about sampling.
    pub fn apply(&self, sampling: &mut Sampling) {
        *sampling = Sampling {
            temperature: self.temperature.unwrap_or(sampling.temperature),
            repetition_penalty: self.repetition_penalty.unwrap_or(sampling.repetition_penalty),
            top_k: self.top_k.unwrap_or(sampling.top_k),
            top_p: self.top_p.unwrap_or(sampling.top_p),
            do_sample: self.do_sample.unwrap_or(sampling.do_sample),
        };
    }

    /// [`Sampling`] with the defaults where this patch says nothing.
    pub fn sampling(&self) -> Sampling {
        let mut sampling = Sampling::DEFAULT;
        self.apply(&mut sampling);
        sampling
    }

    /// Maximum tokens per answer, by default [`Patch::DEFAULT_MAX_NEW`].
    pub fn max_new(&self) -> usize {
        self.max_new.unwrap_or(Self::DEFAULT_MAX_NEW)
    }

    /// The default of [`Patch::max_new`].
    pub const DEFAULT_MAX_NEW: usize = super::table::DEFAULT_MAX_NEW as usize;

    /// Reads settings by their names; a later one takes the place of an earlier one.
    pub fn read<'a>(given: impl IntoIterator<Item = (&'a str, GivenValue<'a>)>) -> PatchReading {
        let mut reading = PatchReading::default();
        for (key, given) in given {
            match SettingName::find(key).map(|name| (name, name.read(given))) {
                Some((name, Ok(value))) => reading.patch.set(name.setting, Some(value)),
                Some((_, Err(invalid))) => reading.invalid.push(invalid),
                None => reading.unknown.push(key.to_owned()),
            }
        }
        reading
    }

    /// Reads the settings of a JSON object; `null` sets nothing.
    pub fn from_json(object: &serde_json::Map<String, Value>) -> PatchReading {
        let given = object.iter().filter(|(_, value)| !value.is_null());
        Self::read(given.map(|(key, value)| (key.as_str(), GivenValue::from(value))))
    }
}

/// What was read as a patch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PatchReading {
    /// The settings that are valid.
    pub patch: Patch,
    /// Those that are not.
    pub invalid: Vec<InvalidSetting>,
    /// Names that no setting has.
    pub unknown: Vec<String>,
}

impl PatchReading {
    /// The patch, for a source whose invalid values are refused. The caller handles unknown names.
    ///
    /// # Errors
    /// The first value that is not valid.
    pub fn strict(self) -> Result<Patch, InvalidSetting> {
        self.invalid.into_iter().next().map_or(Ok(self.patch), Err)
    }
}

impl<'a> From<&'a Value> for GivenValue<'a> {
    fn from(value: &'a Value) -> Self {
        match value {
            Value::String(text) => Self::Text(text),
            Value::Bool(on) => Self::Switch(*on),
            Value::Number(n) => {
                let whole = n.as_u64().map(i128::from).or(n.as_i64().map(i128::from));
                whole.map_or_else(|| n.as_f64().map_or(Self::Other, Self::Number), Self::Whole)
            }
            _ => Self::Other,
        }
    }
}
