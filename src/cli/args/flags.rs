//! Flags made from the table of settings: names, help, defaults, values.

use crate::lang::Lang;
use crate::settings::{GivenValue, Patch, Setting, SettingName, SettingValue};
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};

/// Sampling settings that were typed: a flag for each.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SamplingArgs {
    /// The settings.
    pub patch: Patch,
}

/// The flags of [`SamplingArgs`] in the order of the help, with their short form and the name of their value.
const FLAGS: [(Setting, Option<char>, &str); 6] = [
    (Setting::MaxNew, Some('n'), "N"),
    (Setting::Seed, Some('s'), "N"),
    (Setting::Temperature, None, "X"),
    (Setting::TopK, None, "K"),
    (Setting::TopP, None, "P"),
    (Setting::Penalty, None, "X"),
];

/// The help of a setting's flag; `more` is said behind the default.
pub(in crate::cli) fn help(setting: Setting, more: &str) -> String {
    format!("{} [default: {}{more}]", setting.help(Lang::En), setting.default_text(Lang::En))
}

/// The other spellings of a setting's flag.
pub(in crate::cli) fn aliases(setting: Setting) -> Vec<String> {
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

impl Args for SamplingArgs {
    fn augment_args(mut command: Command) -> Command {
        for (setting, short, value_name) in FLAGS {
            let flag = Arg::new(setting.name())
                .long(setting.name().replace('_', "-"))
                .aliases(aliases(setting))
                .value_name(value_name)
                .value_parser(move |text: &str| value(setting, text))
                .allow_negative_numbers(true)
                .help(help(setting, ""));
            command = command.arg(flag.short(short));
        }
        let draws = Setting::DoSample;
        if let Some((greedy, [text, _])) = draws.row().inverse {
            // `--greedy`, `--greedy=off`; `--do-sample`, `--do-sample off`, `--do_sample True`.
            let inverse = SettingName { setting: draws, inverse: true };
            let off = Arg::new(greedy)
                .long(greedy)
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("on")
                .value_name("on|off")
                .hide_possible_values(true)
                .value_parser(move |text: &str| named_value(inverse, text))
                .help(text);
            let on = Arg::new(draws.name())
                .long(draws.name().replace('_', "-"))
                .aliases(aliases(draws))
                .num_args(0..=1)
                .default_missing_value("on")
                .value_name("on|off")
                .value_parser(move |text: &str| value(draws, text))
                .conflicts_with(greedy)
                .hide(true);
            command = command.arg(off).arg(on);
        }
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for SamplingArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut args = Self::default();
        args.update_from_arg_matches(matches)?;
        Ok(args)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for setting in FLAGS.map(|(setting, ..)| setting).into_iter().chain([Setting::DoSample]) {
            if let Some(value) = matches.get_one::<SettingValue>(setting.name()) {
                self.patch.set(setting, Some(value.clone()));
            }
        }
        let greedy = Setting::DoSample.row().inverse.and_then(|(greedy, _)| matches.get_one(greedy));
        if let Some(value) = greedy {
            let value: &SettingValue = value;
            self.patch.set(Setting::DoSample, Some(value.clone()));
        }
        Ok(())
    }
}
