//! The settings of a conversation, as its file holds them.

use crate::sample::Sampling;
use crate::settings::{InvalidSetting, Patch};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

/// The settings of one line.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct SavedSettings {
    pub(super) patch: Patch,
    /// Settings of the file that are not valid: it is read without them.
    pub(super) invalid: Vec<InvalidSetting>,
}

/// The fields in the order in which they are written.
#[derive(Serialize)]
struct Fields {
    #[serde(skip_serializing_if = "Option::is_none")]
    sampling: Option<SamplingFields>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_new: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    threads: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kv: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    engine: Option<&'static str>,
}

#[derive(PartialEq, Serialize)]
struct SamplingFields {
    #[serde(skip_serializing_if = "Option::is_none")]
    do_sample: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_k: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    repetition_penalty: Option<f32>,
}

impl SamplingFields {
    fn of(patch: &Patch) -> Self {
        Self {
            do_sample: patch.do_sample,
            temperature: patch.temperature,
            top_k: patch.top_k,
            top_p: patch.top_p,
            repetition_penalty: patch.repetition_penalty,
        }
    }
}

impl Serialize for SavedSettings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let patch = &self.patch;
        let fields = Fields {
            sampling: Some(SamplingFields::of(patch))
                .filter(|fields| *fields != SamplingFields::of(&Patch::default())),
            max_new: patch.max_new,
            seed: patch.seed,
            threads: patch.threads,
            kv: patch.kv.map(|kv| kv.name()),
            engine: patch.engine.map(|engine| engine.name()),
        };
        fields.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SavedSettings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut object = Map::deserialize(deserializer)?;
        let mut base = Patch::default();
        match object.remove("sampling") {
            None | Some(Value::Null) => {}
            Some(Value::Object(sampling)) => {
                // A setting that is missing here has the default, not the value of the model file.
                base = Patch::of_sampling(&Sampling::DEFAULT);
                object.extend(sampling);
            }
            Some(_) => return Err(D::Error::custom("the sampling settings are no object")),
        }
        let reading = Patch::from_json(&object);
        // These stand elsewhere in the file, or nowhere.
        let patch = Patch { system: None, n_ctx: None, ..reading.patch.over(base) };
        Ok(Self { patch, invalid: reading.invalid })
    }
}
