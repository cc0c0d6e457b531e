//! Every setting from every source: the same value is accepted from all of them or from none.

use super::args::{Cli, Command};
use super::{chat, settings::Config};
use crate::engine::EngineKind;
use crate::lang::Lang;
use crate::open::OpenOptions;
use crate::sample::Sampling;
use crate::session::{Settings, store};
use crate::settings::{self, GivenValue, Patch, Setting, SettingGroup, SettingKind, SettingName};
use clap::Parser;
use huozi_quant::gguf::{Layout, MetaValue, Reader};
use std::path::Path;

/// The verdict of a source's reader on a value; `None` where the source does not have the setting, or its
/// format no such value.
type SourceVerdict = fn(Setting, &str) -> Option<bool>;

/// Every source with the number of settings that it takes.
const SOURCES: &[(&str, usize, SourceVerdict)] = &[
    ("flags", 12, flags),
    ("config.toml", 12, config),
    ("/set in huozi chat", 12, chat_set),
    #[cfg(feature = "tui")]
    ("the pane and /set in huozi-tui", 11, pane),
    ("model file", 4, model_file),
    ("conversation file", 10, conversation),
    ("JSON", 12, json),
    ("sampler", 3, sampler),
];

/// The lowest, the highest, just outside on both sides, and what is no value at all, each with the verdict.
fn values(setting: Setting) -> Vec<(String, bool)> {
    let owned =
        |values: &[(&str, bool)]| values.iter().map(|&(text, good)| (text.to_owned(), good)).collect();
    match setting.row().kind {
        SettingKind::Whole(least, most) => vec![
            (least.to_string(), true),
            (most.to_string(), true),
            ((i128::from(least) - 1).to_string(), false),
            ((i128::from(most) + 1).to_string(), false),
            ("1.5".into(), false),
            ("nan".into(), false),
        ],
        SettingKind::Number(range) => vec![
            (range.least.to_string(), true),
            (range.most.to_string(), true),
            (range.least.next_down().to_string(), false),
            (range.most.next_up().to_string(), false),
            ("nan".into(), false),
            ("inf".into(), false),
            ("-inf".into(), false),
            ("1e300".into(), false),
        ],
        SettingKind::Switch => owned(&[("on", true), ("off", true), ("2", false), ("nan", false)]),
        SettingKind::Kv => {
            owned(&[("f32", true), ("q8", true), ("fp16", true), ("q4", false), ("nan", false)])
        }
        SettingKind::Engine => owned(&[
            ("native", true),
            ("ggml", EngineKind::Ggml.is_built()),
            ("magic", false),
            ("nan", false),
        ]),
        SettingKind::Text => owned(&[("nan", true), ("你是诗人。", true)]),
    }
}

fn flags(setting: Setting, text: &str) -> Option<bool> {
    let flag = format!("--{}={text}", setting.name());
    let parsed = Cli::try_parse_from(["huozi", "run", &flag]);
    if let Ok(cli) = &parsed {
        let Command::Run(run) = &cli.command else { panic!("another command") };
        let typed = settings_of(run);
        assert!(typed.get(setting).is_some(), "{flag} sets nothing");
    }
    // An engine is refused when the model is opened.
    Some(parsed.is_ok_and(|cli| match cli.command {
        Command::Run(run) => {
            let engine = run.model.load.engine.patch.engine.unwrap_or_default();
            OpenOptions { engine, ..OpenOptions::default() }.check().is_ok()
        }
        _ => false,
    }))
}

fn settings_of(run: &super::args::RunCommand) -> Patch {
    let load = run.model.load.engine.patch.clone();
    super::settings::typed_chat(&run.chat, &run.sampling, true).unwrap().over(load)
}

/// The value as it stands in TOML or JSON, where numbers and switches are no texts.
fn literal(setting: Setting, text: &str, toml: bool) -> Option<String> {
    Some(match (setting.row().kind, text) {
        (SettingKind::Switch, "on") => "true".into(),
        (SettingKind::Switch, "off") => "false".into(),
        (SettingKind::Whole(..) | SettingKind::Number(_), "nan" | "inf" | "-inf") if !toml => return None,
        // The largest integer of TOML.
        (SettingKind::Whole(..), text) if toml && text.parse::<i128>().is_ok_and(|n| n > i64::MAX.into()) => {
            return None;
        }
        (SettingKind::Whole(..) | SettingKind::Number(_), text) => text.into(),
        (_, text) => format!("{text:?}"),
    })
}

fn config(setting: Setting, text: &str) -> Option<bool> {
    let table = if setting.row().group == SettingGroup::Sampling { "[sampling]\n" } else { "" };
    let text = format!("{table}{} = {}\n", setting.name(), literal(setting, text, true)?);
    let parsed = Config::parse(Path::new("config.toml"), &text);
    if let Ok((config, unknown)) = &parsed {
        assert!(unknown.is_empty() && config.settings.get(setting).is_some(), "{text}");
    }
    // An engine is refused when the model is opened.
    Some(parsed.is_ok_and(|(config, _)| {
        let engine = config.settings.engine.unwrap_or_default();
        OpenOptions { engine, ..OpenOptions::default() }.check().is_ok()
    }))
}

fn session_settings() -> Settings {
    Settings {
        sampling: Sampling::default(),
        max_new: 512,
        n_ctx: 2048,
        system: None,
        history: huozi_token::HistoryRule::TwoThirds,
        seed: 1,
    }
}

fn chat_set(setting: Setting, text: &str) -> Option<bool> {
    let set = chat::set(&mut session_settings(), &format!("{} {text}", setting.name()));
    match set {
        Ok(_) => Some(true),
        // Valid, but the model is open.
        Err(error) if error.to_string().contains("is fixed while the model is open") => Some(true),
        Err(error) => {
            assert!(error.to_string().contains(" is needed"), "{error}");
            Some(false)
        }
    }
}

#[cfg(feature = "tui")]
fn pane(setting: Setting, text: &str) -> Option<bool> {
    use crate::tui::settings::{Item, set};
    let Some(Item::Setting(name)) = Item::find(setting.name()) else { return None };
    let options = Default::default();
    let mut chosen = crate::tui::worker::Chosen { settings: session_settings(), options };
    Some(set(&mut chosen, name, text).is_ok())
}

fn model_file(setting: Setting, text: &str) -> Option<bool> {
    let key = setting.row().model_key?;
    let value = match (setting.row().kind, text) {
        // llama.cpp's spelling of off.
        (SettingKind::Whole(..), "-1") => return None,
        (SettingKind::Whole(..), text) => match text.parse() {
            Ok(n) => MetaValue::U64(n),
            Err(_) => MetaValue::F32(text.parse().unwrap()),
        },
        (_, text) => MetaValue::F64(text.parse().unwrap()),
    };
    let layout = Layout::new(&[(key.to_owned(), value)], Vec::new()).unwrap();
    let reader = Reader::from_bytes("m", layout.header().to_vec()).unwrap();
    let (patch, invalid) = settings::from_model_file(reader.meta());
    assert_eq!(patch.get(setting).is_some(), invalid.is_empty(), "{key} {text}");
    Some(invalid.is_empty())
}

fn conversation(setting: Setting, text: &str) -> Option<bool> {
    if matches!(setting, Setting::System | Setting::CtxSize) {
        return None;
    }
    let value = literal(setting, text, false)?;
    let dir = tempfile::tempdir().unwrap();
    let one = format!("{:?}:{value}", setting.name());
    let sampling = matches!(setting.row().kind, SettingKind::Number(_) | SettingKind::Switch)
        || setting == Setting::TopK;
    let choices = if sampling { format!("{{\"sampling\":{{{one}}}}}") } else { format!("{{{one}}}") };
    let line = format!(r#"{{"schema":1,"id":1,"parent":null,"kind":"settings","choices":{choices}}}"#);
    std::fs::write(dir.path().join("x.jsonl"), line + "\n").unwrap();
    let read =
        store::load(dir.path(), "x", "m").unwrap_or_else(|error| panic!("it opens all the same: {error}"));
    let patch = read.choices.unwrap();
    if !read.invalid.is_empty() && sampling {
        let default = Patch::of_sampling(&Sampling::DEFAULT).get(setting);
        assert_eq!(patch.get(setting), default, "{one}");
    }
    Some(read.invalid.is_empty())
}

fn json(setting: Setting, text: &str) -> Option<bool> {
    let text = format!("{{{:?}:{}}}", setting.name(), literal(setting, text, false)?);
    let reading = Patch::from_json(&serde_json::from_str(&text).unwrap());
    assert!(reading.unknown.is_empty());
    Some(reading.strict().is_ok())
}

fn sampler(setting: Setting, text: &str) -> Option<bool> {
    let mut s = Sampling::default();
    let field = match setting {
        Setting::Temperature => &mut s.temperature,
        Setting::Penalty => &mut s.repetition_penalty,
        Setting::TopP => &mut s.top_p,
        _ => return None,
    };
    *field = text.parse().unwrap();
    Some(s.check().is_ok())
}

#[test]
fn every_setting_has_the_same_verdict_from_every_source() {
    for &(source, takes, verdict) in SOURCES {
        let mut taken = 0;
        for setting in Setting::ALL {
            let verdicts =
                values(setting).into_iter().map(|(text, good)| (verdict(setting, &text), text, good));
            let verdicts = Vec::from_iter(verdicts.filter(|(verdict, ..)| verdict.is_some()));
            for (verdict, text, good) in &verdicts {
                assert_eq!(*verdict, Some(*good), "{source}: {} = {text}", setting.name());
            }
            taken += usize::from(!verdicts.is_empty());
        }
        assert_eq!(taken, takes, "{source}");
    }
}

#[test]
fn model_files_of_llama_cpp_turn_top_k_off_with_minus_one() {
    let key = Setting::TopK.row().model_key.unwrap();
    let layout = Layout::new(&[(key.to_owned(), MetaValue::I32(-1))], Vec::new()).unwrap();
    let reader = Reader::from_bytes("m", layout.header().to_vec()).unwrap();
    let (patch, invalid) = settings::from_model_file(reader.meta());
    assert_eq!((patch.top_k, invalid), (Some(0), Vec::new()));
}

#[test]
fn every_name_is_known_where_it_is_typed() {
    for setting in Setting::ALL {
        let (row, value) = (setting.row(), values(setting).remove(0).0);
        let names = [row.name].into_iter().chain(row.aliases.iter().copied());
        for name in names.flat_map(|name| [name.to_owned(), name.replace('_', "-")]) {
            let flag = format!("--{name}={value}");
            assert!(Cli::try_parse_from(["huozi", "run", &flag]).is_ok(), "{flag}");
            let set = chat::set(&mut session_settings(), &format!("{name} {value}"));
            assert!(set.as_ref().err().is_none_or(|error| error.to_string().contains("fixed")), "{name}");
        }
    }
    let mut settings = session_settings();
    chat::set(&mut settings, "greedy=on").unwrap();
    assert!(!settings.sampling.do_sample);
    let error = chat::set(&mut settings, "temprature 1").unwrap_err().to_string();
    assert!(
        error.starts_with("unknown setting \"temprature\"; valid: max_new_tokens, temperature, "),
        "{error}"
    );
    let refused = SettingName::find("temp").unwrap().read(GivenValue::Typed("7")).unwrap_err();
    assert_eq!(refused.text(Lang::Zh), "温度 temperature：需要 0 到 5 的数");
}
