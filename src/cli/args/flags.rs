//! Flags made from the table of settings: names, help, defaults, values.

use crate::engine::EngineKind;
use crate::lang::Lang;
use crate::settings::{GivenValue, Patch, Setting, SettingGroup, SettingKind, SettingName, SettingValue};
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};

/// A flag for each setting of sampling.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SamplingArgs {
    /// The settings that were typed.
    pub patch: Patch,
}

/// A flag for each setting of the engine but the context, which only a conversation has.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EngineArgs {
    /// The settings that were typed.
    pub patch: Patch,
}

/// A flag for each setting of a conversation, and for its context.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConversationArgs {
    /// The settings that were typed.
    pub patch: Patch,
}

impl SamplingArgs {
    fn takes(setting: &Setting) -> bool {
        setting.row().group == SettingGroup::Sampling
    }
}

impl EngineArgs {
    fn takes(setting: &Setting) -> bool {
        setting.row().group == SettingGroup::Engine && *setting != Setting::CtxSize
    }
}

impl ConversationArgs {
    fn takes(setting: &Setting) -> bool {
        setting.row().group == SettingGroup::Conversation || *setting == Setting::CtxSize
    }
}

macro_rules! flags_of_settings {
    ($($args:ident)+) => {$(
        impl Args for $args {
            fn augment_args(command: Command) -> Command {
                Setting::ALL.into_iter().filter(Self::takes).fold(command, with_flag)
            }

            fn augment_args_for_update(command: Command) -> Command {
                Self::augment_args(command)
            }
        }

        impl FromArgMatches for $args {
            fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
                let mut args = Self::default();
                args.update_from_arg_matches(matches)?;
                Ok(args)
            }

            fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
                let settings = Setting::ALL.into_iter().filter(Self::takes);
                settings.for_each(|setting| take(&mut self.patch, setting, matches));
                Ok(())
            }
        }
    )+};
}

flags_of_settings!(SamplingArgs EngineArgs ConversationArgs);

/// `command` with the flag of a setting. Where on has a name under which it means off, that is a flag, too,
/// and the one that is shown: `--greedy`, `--greedy=off`; `--do-sample`, `--do-sample off`.
fn with_flag(command: Command, setting: Setting) -> Command {
    let (short, value_name) = setting.row().flag;
    let flag = Arg::new(setting.name())
        .long(setting.name().replace('_', "-"))
        .aliases(aliases(setting))
        .value_name(value_name)
        .value_parser(move |text: &str| value(setting, text))
        .allow_negative_numbers(setting.row().kind != SettingKind::Text)
        .help(help(setting, command.get_name()))
        .short(short);
    match setting.row().inverse {
        Some((name, [text, _])) => {
            let inverse = SettingName { setting, inverse: true };
            let shown = Arg::new(name)
                .long(name)
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("on")
                .value_name(value_name)
                .value_parser(move |text: &str| named_value(inverse, text))
                .help(text);
            let hidden = flag.num_args(0..=1).default_missing_value("on").conflicts_with(name).hide(true);
            command.arg(shown).arg(hidden)
        }
        None => command.arg(flag),
    }
}

fn take(patch: &mut Patch, setting: Setting, matches: &ArgMatches) {
    for name in setting.names() {
        if let Some(value) = matches.get_one::<SettingValue>(name) {
            patch.set(setting, Some(value.clone()));
        }
    }
}

/// The help of a setting's flag of a command.
fn help(setting: Setting, command: &str) -> String {
    let default = match (setting, command) {
        // Measurements are exact unless another type is typed.
        (Setting::Kv, "logits" | "ppl" | "kl") => "f32".to_owned(),
        // A run that goes on must draw as before.
        (Setting::Seed, "batch") => "0".to_owned(),
        (Setting::Threads, _) => format!("{}; env HUOZI_THREADS", setting.default_text(Lang::En)),
        _ => setting.default_text(Lang::En),
    };
    format!("{} [default: {default}]", setting.help(Lang::En))
}

/// The other spellings of a setting's flag.
pub(super) fn aliases(setting: Setting) -> Vec<String> {
    let row = setting.row();
    let mut names = Vec::new();
    for name in [row.name].iter().chain(row.aliases) {
        for spelling in [name.replace('_', "-"), (*name).to_owned()] {
            if spelling != row.name.replace('_', "-") && !names.contains(&spelling) {
                names.push(spelling);
            }
        }
    }
    names
}

fn value(setting: Setting, text: &str) -> Result<SettingValue, String> {
    // An engine that this build does not have is refused when the model is opened, with the way to get it.
    if let (SettingKind::Engine, Some(engine)) = (setting.row().kind, EngineKind::named(text)) {
        return Ok(SettingValue::Engine(engine));
    }
    named_value(setting.into(), text)
}

fn named_value(name: SettingName, text: &str) -> Result<SettingValue, String> {
    name.read(GivenValue::Typed(text)).map_err(|invalid| invalid.needed(Lang::En))
}

/// Parses a value that was typed; `field` is where the setting stands in a patch.
pub(super) fn parse<T>(setting: Setting, text: &str, field: fn(Patch) -> Option<T>) -> Result<T, String> {
    let mut patch = Patch::default();
    patch.set(setting, Some(value(setting, text)?));
    field(patch).ok_or_else(|| "is out of range".to_owned())
}
