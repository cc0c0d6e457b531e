//! `huozi-tui`: what was typed and configured, before the screen is taken.

use super::args::{ChatArgs, EngineArgs, SamplingArgs};
use super::exit::{self, Usage};
use super::settings::{self, Config};
use crate::lang::Lang;
use crate::open::OpenOptions;
use crate::session::catalog::xdg;
use crate::session::open::{SessionOptions, Source};
use crate::session::store;
use crate::tui::app::Start;
use crate::tui::interface::Surroundings;
use crate::tui::look::Theme;
use crate::tui::prefs::Prefs;
use crate::tui::worker::Setup;
use anyhow::Result;
use clap::{CommandFactory, Parser};
use std::io::IsTerminal;
use std::path::PathBuf;

/// Four conversations of a 7B1 model whose context is full.
const DEFAULT_KV_CACHE_GIB: u32 = 4;

/// Talk to a model, full screen
#[derive(Debug, Parser)]
#[command(
    name = "huozi-tui",
    version,
    after_help = "\
Examples:
  huozi-tui                     choose among the models that are found
  huozi-tui -m huozi.gguf       open this one and the last conversation
  huozi-tui --demo              the built-in demo model
F1 shows the keys. Conversations are kept in $XDG_DATA_HOME/huozi/sessions."
)]
struct Args {
    /// GGUF file or Hugging Face ORG/NAME [default: choose among those found]
    #[arg(short, long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// Open the built-in demo model
    #[cfg(feature = "demo")]
    #[arg(long, conflicts_with = "model")]
    demo: bool,
    /// Begin a new conversation instead of going on with the last
    #[arg(long)]
    new: bool,
    #[command(flatten)]
    engine: EngineArgs,
    /// Load even if memory looks too small
    #[arg(long, alias = "no_memory_check")]
    no_memory_check: bool,
    #[command(flatten)]
    chat: ChatArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Language of the interface: zh or en [default: of LANG; en on the Linux console]
    #[arg(long, value_name = "LANG", value_parser = lang)]
    lang: Option<Lang>,
    /// Lines and bars of ASCII only
    #[arg(long)]
    ascii: bool,
}

fn lang(text: &str) -> Result<Lang, String> {
    match text {
        "en" => Ok(Lang::En),
        "zh" => Ok(Lang::Zh),
        _ => Err("zh or en is needed".into()),
    }
}

/// The definition of the arguments of `huozi-tui`.
pub(super) fn command() -> clap::Command {
    Args::command()
}

/// Reads arguments, environment and configuration; what to start with, or the exit code.
///
/// # Errors
/// The exit code, after what was wrong has been said.
pub fn start() -> Result<(Start, Setup), u8> {
    let args = Args::try_parse().map_err(|error| {
        let code = if error.use_stderr() { exit::USAGE } else { exit::DONE };
        // A closed pipe ends quietly.
        let _ = error.print();
        code
    })?;
    prepare(args).map_err(|error| {
        eprintln!("huozi-tui: {}", exit::line(&error));
        exit::code(&error)
    })
}

fn prepare(args: Args) -> Result<(Start, Setup)> {
    if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
        let what = "a terminal is needed for input and output; `huozi chat` and `huozi run` work in pipes";
        return Err(Usage(what.into()).into());
    }
    // The screen shows what the file has and should not.
    let config = Config::load(true)?;
    let typed = args.engine.patch.over(settings::typed_chat(&args.chat, &args.sampling, false)?);
    let wanted = config.settings(typed.clone())?;
    let mut options = SessionOptions { no_memory_check: args.no_memory_check, ..SessionOptions::default() };
    options.apply(&wanted);
    OpenOptions { engine: options.engine, ..OpenOptions::default() }.check()?;
    let source = args.model.map(Source::File);
    #[cfg(feature = "demo")]
    let source = if args.demo { Some(Source::Demo) } else { source };
    let var = |key: &str| std::env::var(key).ok();
    let [all, messages, language] = ["LC_ALL", "LC_MESSAGES", "LANG"].map(var);
    let locale = [all.as_deref(), messages.as_deref(), language.as_deref()];
    let term = var("TERM").unwrap_or_default();
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let encoding = [&all, &var("LC_CTYPE"), &language].into_iter().flatten().find(|v| !v.is_empty()).cloned();
    let utf8 = encoding.is_none_or(|e| e.to_lowercase().replace('-', "").contains("utf8"));
    let state = xdg("XDG_STATE_HOME", ".local/state").map(|base| base.join("huozi"));
    let prefs_file = state.as_ref().map(|state| state.join("tui.json"));
    // A broken file counts as none: it is replaced at the next change.
    let prefs = prefs_file.as_ref().and_then(|path| settings::read_regular(path).ok());
    let prefs: Prefs = prefs.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    let around = Surroundings {
        // The Linux console has no Chinese characters.
        lang: if term == "linux" { Lang::En } else { Lang::from_locale(locale) },
        theme: Theme::from_env(no_color, &term, var("COLORFGBG").as_deref()),
        ascii: args.ascii || term == "linux" || !utf8,
        typed_lang: args.lang,
        no_color,
    };
    let unknown_keys = Config::path().filter(|_| !config.unknown.is_empty());
    let unknown_keys = unknown_keys.map(|path| (path, config.unknown));
    let start = Start { source, options, fresh: args.new, around, prefs, unknown_keys };
    let setup = Setup {
        wanted,
        typed,
        folder: store::directory(),
        kv_folder: xdg("XDG_CACHE_HOME", ".cache").map(|base| base.join("huozi").join("kv")),
        kv_bytes: u64::from(config.kv_cache_gib.unwrap_or(DEFAULT_KV_CACHE_GIB)) << 30,
        prefs: prefs_file,
        drafts: state.map(|state| state.join("drafts")),
        models: config.model.into_iter().collect(),
    };
    Ok((start, setup))
}
