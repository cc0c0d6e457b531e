use super::*;
use crate::engine::{EngineKind, KvType};
use crate::sample::Sampling;
use serde_json::json;

fn typed(name: &str, text: &str) -> Result<SettingValue, InvalidSetting> {
    SettingName::find(name).unwrap_or_else(|| panic!("{name}")).read(GivenValue::Typed(text))
}

#[test]
fn rows_stand_in_the_order_of_the_settings() {
    for (at, setting) in Setting::ALL.into_iter().enumerate() {
        assert_eq!(setting as usize, at);
        assert_eq!(setting.row().setting, setting);
    }
}

#[test]
fn names_are_found_once() {
    let mut seen = std::collections::HashSet::new();
    for setting in Setting::ALL {
        let row = setting.row();
        let names = [row.name].into_iter().chain(row.aliases.iter().copied());
        for (name, inverse) in
            names.map(|name| (name, false)).chain(row.inverse.map(|(name, _)| (name, true)))
        {
            assert!(seen.insert(name), "{name} stands twice");
            assert_eq!(SettingName::find(name), Some(SettingName { setting, inverse }));
            assert_eq!(SettingName::find(&name.replace('_', "-")), SettingName::find(name));
        }
        assert!(row.name_zh.chars().all(|c| !c.is_ascii()), "{}", row.name_zh);
    }
    for name in ["", "temprature", "Temperature", "top k"] {
        assert_eq!(SettingName::find(name), None, "{name}");
    }
}

#[test]
fn defaults_lie_within_the_range_and_are_read_back() {
    for setting in Setting::ALL {
        if let SettingDefault::Value(value) = &setting.row().default {
            for lang in [Lang::En, Lang::Zh] {
                let read = SettingName::from(setting).read(GivenValue::Typed(&value.show(lang)));
                assert_eq!(read.as_ref(), Ok(value), "{setting:?}");
            }
            let mut patch = Patch::default();
            patch.set(setting, Some(value.clone()));
            assert_eq!(patch.get(setting).as_ref(), Some(value), "{setting:?}");
            patch.set(setting, None);
            assert_eq!(patch, Patch::default(), "{setting:?}");
        }
    }
    assert_eq!(Patch::default().sampling(), Sampling::default());
    assert_eq!(Patch::of_sampling(&Sampling::default()).sampling(), Sampling::default());
}

#[test]
fn ranges_are_named_in_both_languages() {
    for (name, text, en, zh) in [
        (
            "temperature",
            "5.1",
            "temperature: a number from 0 to 5 is needed",
            "温度 temperature：需要 0 到 5 的数",
        ),
        (
            "repeat_penalty",
            "0",
            "repetition_penalty: a number from 0.01 to 5 is needed",
            "重复惩罚 repetition_penalty：需要 0.01 到 5 的数",
        ),
        (
            "threads",
            "0",
            "threads: a whole number from 1 to 1024 is needed",
            "线程数 threads：需要 1 到 1024 的整数",
        ),
        ("greedy", "maybe", "greedy: on or off is needed", "greedy：需要 on 或 off"),
        ("kv_type", "q4", "kv_type: f32, f16 or q8 is needed", "缓存类型 kv_type：需要 f32、f16 或 q8"),
    ] {
        let invalid = typed(name, text).unwrap_err();
        assert_eq!(invalid.to_string(), en);
        assert_eq!(invalid.text(Lang::Zh), zh);
    }
    let long = typed("top_p", &"\u{1b}9".repeat(100)).unwrap_err();
    assert!(long.given.chars().count() < 250 && !long.given.contains('\u{1b}'), "{long:?}");
    let note = typed("top_p", "2").unwrap_err();
    assert_eq!(note.note(Lang::En), "top_p \"2\" is not used: a number from 0 to 1 is needed");
    assert!(unknown("temprature", ["a", "b"].into_iter(), Lang::En).ends_with("\"temprature\"; valid: a, b"));
}

#[test]
fn words_for_on_and_off_and_other_names_of_values() {
    for (on, off) in [("on", "off"), ("true", "false"), ("1", "0"), ("yes", "no"), ("开", "关")] {
        assert_eq!(typed("do_sample", on), Ok(SettingValue::Switch(true)));
        assert_eq!(typed("greedy", on), Ok(SettingValue::Switch(false)));
        assert_eq!(typed("greedy", off), Ok(SettingValue::Switch(true)));
    }
    assert_eq!(typed("kv", "fp16"), Ok(SettingValue::Kv(KvType::F16)));
    assert_eq!(typed("engine", "native"), Ok(SettingValue::Engine(EngineKind::Native)));
    assert_eq!(typed("engine", "llama.cpp").is_ok(), EngineKind::Ggml.is_built());
    assert_eq!(typed("system", " 你是诗人。\n"), Ok(SettingValue::Text(" 你是诗人。\n".into())));
}

#[test]
fn a_patch_comes_before_a_lower_one() {
    let low = Patch { top_k: Some(3), max_new: Some(9), do_sample: Some(false), ..Patch::default() };
    let high = Patch { top_k: Some(4), seed: Some(1), repetition_penalty: Some(1.1), ..Patch::default() };
    let both = high.clone().or(low.clone());
    assert_eq!((both.top_k, both.seed, both.max_new), (Some(4), Some(1), Some(9)));
    // A place that says how to draw draws; a penalty says nothing about that.
    assert_eq!(both.do_sample, Some(true));
    assert_eq!(Patch { top_k: None, ..high }.or(low.clone()).do_sample, Some(false));
    let greedy = Patch { temperature: Some(0.8), do_sample: Some(false), ..Patch::default() };
    assert_eq!(greedy.or(low).do_sample, Some(false), "what is said outright holds");
}

#[test]
fn objects_of_json_are_read() {
    let object = json!({
        "temperature": 1, "greedy": true, "max_tokens": 7, "stream": true, "seed": u64::MAX, "top_p": null,
        "kv": "q8", "system": "s",
    });
    let reading = Patch::from_json(object.as_object().unwrap());
    assert_eq!(reading.unknown, ["stream"]);
    let expected = Patch {
        temperature: Some(1.0),
        do_sample: Some(false),
        max_new: Some(7),
        seed: Some(u64::MAX),
        kv: Some(KvType::Q8),
        system: Some("s".into()),
        ..Patch::default()
    };
    assert_eq!(reading.strict(), Ok(expected));
    // Numbers are no text and no truth values, and the other way round.
    for bad in [
        json!({"temperature": "1"}),
        json!({"do_sample": 1}),
        json!({"top_k": 1.5}),
        json!({"top_k": [1]}),
        json!({"seed": 1e20}),
        json!({"system": 1}),
    ] {
        let reading = Patch::from_json(bad.as_object().unwrap());
        assert_eq!((&reading.patch, reading.invalid.len()), (&Patch::default(), 1), "{bad}");
        assert!(reading.strict().is_err());
    }
}
