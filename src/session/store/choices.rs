//! The settings of a conversation, as its file holds them: those of the table that have a name there.

use crate::sample::Sampling;
use crate::settings::{InvalidSetting, Patch, Setting, SettingValue};
use serde::de::Error as _;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

/// The object in which the settings of the sampler stand.
const SAMPLING: &str = "sampling";

/// The settings of one line.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct SavedSettings {
    pub(super) patch: Patch,
    /// Settings of the file that are not valid: it is read without them.
    pub(super) invalid: Vec<InvalidSetting>,
}

/// The settings that are one of the sampler's, or that are none of them, under their names in the file.
fn saved(patch: &Patch, of_sampler: bool) -> impl Iterator<Item = (&'static str, SettingValue)> {
    let sampler = Patch::of_sampling(&Sampling::DEFAULT);
    Setting::ALL.into_iter().filter_map(move |setting| {
        let name = setting.row().saved?;
        let value = patch.get(setting)?;
        (sampler.get(setting).is_some() == of_sampler).then_some((name, value))
    })
}

struct OfSampler<'a>(&'a Patch);

impl Serialize for OfSampler<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(saved(self.0, true))
    }
}

impl Serialize for SavedSettings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if saved(&self.patch, true).next().is_some() {
            map.serialize_entry(SAMPLING, &OfSampler(&self.patch))?;
        }
        for (name, value) in saved(&self.patch, false) {
            map.serialize_entry(name, &value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for SavedSettings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut object = Map::deserialize(deserializer)?;
        let mut base = Patch::default();
        match object.remove(SAMPLING) {
            None | Some(Value::Null) => {}
            Some(Value::Object(sampling)) => {
                // A setting that is missing here has the default, not the value of the model file.
                base = Patch::of_sampling(&Sampling::DEFAULT);
                object.extend(sampling);
            }
            Some(_) => return Err(D::Error::custom("the sampling settings are no object")),
        }
        let reading = Patch::from_json(&object);
        let mut patch = reading.patch.over(base);
        // The others stand elsewhere in the file, or nowhere.
        for setting in Setting::ALL.into_iter().filter(|setting| setting.row().saved.is_none()) {
            patch.set(setting, None);
        }
        Ok(Self { patch, invalid: reading.invalid })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{SettingKind, SettingName};

    #[test]
    fn every_setting_with_a_name_is_written_and_read_back() {
        for setting in Setting::ALL {
            let row = setting.row();
            let value = match row.kind {
                SettingKind::Whole(_, most) => SettingValue::Whole(most.min(7)),
                SettingKind::Number(range) => SettingValue::Number(range.most),
                SettingKind::Switch => SettingValue::Switch(false),
                SettingKind::Kv => SettingValue::Kv(crate::engine::KvType::Q8),
                SettingKind::Engine => SettingValue::Engine(crate::engine::EngineKind::Native),
                SettingKind::Text => SettingValue::Text("你是诗人。".into()),
            };
            let mut patch = Patch::default();
            patch.set(setting, Some(value.clone()));
            let text = serde_json::to_string(&SavedSettings { patch, invalid: Vec::new() }).unwrap();
            let read: SavedSettings = serde_json::from_str(&text).unwrap();
            assert!(read.invalid.is_empty(), "{text}");
            match row.saved {
                Some(name) => {
                    assert_eq!(SettingName::find(name), Some(setting.into()), "{name} is read again");
                    assert!(text.contains(&format!("\"{name}\":")), "{text}");
                    assert_eq!(read.patch.get(setting), Some(value), "{text}");
                }
                None => assert_eq!((text.as_str(), read.patch), ("{}", Patch::default())),
            }
        }
    }

    #[test]
    fn what_stands_elsewhere_is_not_taken_from_here() {
        let read: SavedSettings = serde_json::from_str(r#"{"system":"s","ctx_size":9,"seed":1}"#).unwrap();
        assert_eq!(read.patch, Patch { seed: Some(1), ..Patch::default() });
    }
}
