//! The settings that a model file says about itself: `general.sampling.*`.

use super::patch::Patch;
use super::read::{GivenValue, InvalidSetting};
use super::table::{Setting, SettingName};
use super::value::SettingValue;
use huozi_quant::gguf::{Meta, Value};

/// The settings of the model file with this metadata, and those that are not valid: the file opens without
/// them.
pub fn from_model_file(meta: Meta<'_>) -> (Patch, Vec<InvalidSetting>) {
    let (mut patch, mut invalid) = (Patch::default(), Vec::new());
    for setting in Setting::ALL {
        let Some(value) = setting.row().model_key.and_then(|key| meta.get(key)) else { continue };
        match read(setting, given(&value)) {
            Ok(value) => patch.set(setting, Some(value)),
            Err(why) => invalid.push(why),
        }
    }
    (patch, invalid)
}

fn read(setting: Setting, given: GivenValue<'_>) -> Result<SettingValue, InvalidSetting> {
    match (setting, given) {
        // llama.cpp writes -1 for off.
        (Setting::TopK, GivenValue::Whole(i128::MIN..0)) => Ok(SettingValue::Whole(0)),
        (setting, given) => SettingName::from(setting).read(given),
    }
}

fn given<'a>(value: &Value<'a>) -> GivenValue<'a> {
    match *value {
        Value::U8(n) => GivenValue::Whole(n.into()),
        Value::I8(n) => GivenValue::Whole(n.into()),
        Value::U16(n) => GivenValue::Whole(n.into()),
        Value::I16(n) => GivenValue::Whole(n.into()),
        Value::U32(n) => GivenValue::Whole(n.into()),
        Value::I32(n) => GivenValue::Whole(n.into()),
        Value::U64(n) => GivenValue::Whole(n.into()),
        Value::I64(n) => GivenValue::Whole(n.into()),
        Value::F32(x) => GivenValue::Number(x.into()),
        Value::F64(x) => GivenValue::Number(x),
        Value::Bool(on) => GivenValue::Switch(on),
        Value::Str(text) => GivenValue::Text(text),
        _ => GivenValue::Other,
    }
}
