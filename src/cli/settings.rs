//! Settings from flags, the environment and the configuration file, in this order of precedence; the settings
//! of the model file and the defaults come after them.

use super::args::{ChatArgs, SamplingArgs};
use super::exit::{BadFile, Usage};
use super::printer::visible;
use super::text;
use crate::engine::EngineKind;
use crate::lang::Lang;
use crate::open::{is_model_name, snapshot_note};
use crate::session::catalog::xdg;
use crate::settings::{GivenValue, InvalidSetting, Patch, Setting, SettingGroup, SettingName};
use crate::text_file::{self, TextError};
use anyhow::Result;
use std::path::{Path, PathBuf};

/// The configuration file. Beside `model` and `kv_cache_gib` it takes every setting of the table, sampling in
/// a table of its own:
///
/// ```toml
/// model = "/models/huozi.gguf"   # a relative path counts from this file's folder; or ORG/NAME, as for -m
/// kv_cache_gib = 4               # disk space for keys and values of conversations in huozi-tui; 0 = none
/// threads = 4
/// kv_type = "f16"                # of conversations; eval and logits measure in f32 unless typed
/// [sampling]
/// temperature = 0.8
/// max_new_tokens = 512
/// greedy = false                 # overridden by a typed --temperature, --top-k or --top-p
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// `-q` was typed: no progress, no notes.
    pub quiet: bool,
    /// Model file.
    pub model: Option<PathBuf>,
    /// GiB of keys and values of conversations on disk.
    pub kv_cache_gib: Option<u32>,
    /// Keys of the file that mean nothing.
    pub unknown: Vec<String>,
    /// The settings. The KV type and the engine are those of conversations; `eval` and `logits` take the
    /// flags only.
    pub settings: Patch,
}

impl Config {
    /// Where the file is; `None` without a home.
    pub fn path() -> Option<PathBuf> {
        xdg("XDG_CONFIG_HOME", ".config").map(|base| base.join("huozi").join("config.toml"))
    }

    /// `$XDG_CONFIG_HOME/huozi/config.toml`; defaults when there is none. Unknown keys are warned about on
    /// stderr unless `quiet`.
    ///
    /// # Errors
    /// A file that cannot be read, is no TOML, or holds a value of the wrong kind.
    pub fn load(quiet: bool) -> Result<Self> {
        let Some(path) = Self::path() else {
            return Ok(Self { quiet, ..Self::default() });
        };
        let text = match read_regular(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self { quiet, ..Self::default() });
            }
            Err(e) => return Err(BadFile(format!("{}: cannot read: {e}", path.display())).into()),
        };
        let (config, unknown) = Self::parse(&path, &text)?;
        for key in unknown.iter().filter(|_| !quiet) {
            eprintln!("huozi: {}: unknown key {key:?} is ignored", path.display());
        }
        Ok(Self { quiet, unknown, ..config })
    }

    /// The configuration and the keys that mean nothing.
    pub(super) fn parse(path: &Path, text: &str) -> Result<(Self, Vec<String>)> {
        let bad = |what: String| BadFile(format!("{}: {what}", path.display()));
        let table: toml::Table = toml::from_str(text).map_err(|e| bad(e.to_string()))?;
        let mut config = Self::default();
        let mut unknown = Vec::new();
        for (key, value) in &table {
            match key.as_str() {
                "model" => {
                    let name = value.as_str().ok_or_else(|| bad("model is a path".into()))?;
                    let file = path.parent().unwrap_or(Path::new("")).join(name);
                    // As with -m: a path if there is such a file, else perhaps the name of a model.
                    let is_name = file.symlink_metadata().is_err() && is_model_name(Path::new(name));
                    config.model = Some(if is_name { name.into() } else { file });
                }
                "kv_cache_gib" => {
                    let gib = value.as_integer().and_then(|n| u32::try_from(n).ok());
                    let what = "kv_cache_gib: a whole number from 0 to 4294967295 is needed";
                    config.kv_cache_gib = Some(gib.ok_or_else(|| bad(what.into()))?);
                }
                "sampling" => {
                    let table = value.as_table().ok_or_else(|| bad("sampling is a table".into()))?;
                    for (key, value) in table {
                        if !config.set(path, key, value, true)? {
                            unknown.push(format!("sampling.{key}"));
                        }
                    }
                }
                _ if config.set(path, key, value, false)? => {}
                _ => unknown.push(key.clone()),
            }
        }
        Ok((config, unknown))
    }

    /// Sets the setting called `key`; `false` if there is none, or if it belongs to the other part of the
    /// file.
    fn set(&mut self, path: &Path, key: &str, value: &toml::Value, sampling: bool) -> Result<bool> {
        let Some(name) = SettingName::find(key) else { return Ok(false) };
        if sampling != (name.setting.row().group == SettingGroup::Sampling) {
            return Ok(false);
        }
        // An engine that this build does not have is refused when a model is opened: a flag may name another.
        if name.setting == Setting::Engine
            && let Some(engine) = value.as_str().and_then(EngineKind::named)
        {
            self.settings.engine = Some(engine);
            return Ok(true);
        }
        let given = match value {
            toml::Value::Integer(n) => GivenValue::Whole((*n).into()),
            toml::Value::Float(x) => GivenValue::Number(*x),
            toml::Value::Boolean(on) => GivenValue::Switch(*on),
            toml::Value::String(text) => GivenValue::Text(text),
            _ => GivenValue::Other,
        };
        let value = name.read(given).map_err(|invalid| {
            let what = format!("{}: {invalid}", path.display());
            // A number of threads is usage, wherever it is typed.
            match name.setting {
                Setting::Threads => anyhow::Error::from(Usage(what)),
                _ => BadFile(what).into(),
            }
        })?;
        self.settings.set(name.setting, Some(value));
        Ok(true)
    }

    /// The model: what was typed, `HUOZI_MODEL`, this file.
    ///
    /// # Errors
    /// [`Usage`] when none of them names one.
    pub fn model(&self, typed: Option<&Path>) -> Result<PathBuf> {
        let env = std::env::var_os("HUOZI_MODEL").filter(|v| !v.is_empty()).map(PathBuf::from);
        let given = typed.map(Path::to_owned).or(env).or_else(|| self.model.clone());
        if let Some(note) = given.as_deref().filter(|_| !self.quiet).and_then(snapshot_note) {
            eprintln!("huozi: {}", visible(&note));
        }
        given.ok_or_else(|| {
            Usage(
                "no model: give one with -m FILE, HUOZI_MODEL or `model` in ~/.config/huozi/config.toml \
                 (`huozi doctor` lists the files it finds); `huozi demo` needs none"
                    .into(),
            )
            .into()
        })
    }

    /// The settings that were typed, else those of the environment, else those of this file.
    ///
    /// # Errors
    /// [`Usage`] when `HUOZI_THREADS` is not valid.
    pub fn settings(&self, typed: Patch) -> Result<Patch> {
        let mut env = Patch::default();
        if typed.threads.is_none()
            && let Ok(text) = std::env::var("HUOZI_THREADS")
            && !text.is_empty()
        {
            let value = SettingName::from(Setting::Threads).read(GivenValue::Typed(&text));
            let failed = |invalid: InvalidSetting| {
                Usage(format!("HUOZI_THREADS={text:?}: {}", invalid.needed(Lang::En)))
            };
            env.set(Setting::Threads, Some(value.map_err(failed)?));
        }
        Ok(typed.or(env).or(self.settings.clone()))
    }
}

/// The text of a regular file of at most 1 MiB, in any encoding of [`text_file`]. Anything else, which
/// reading might wait for, is refused.
///
/// # Errors
/// The system's, `InvalidInput` for a FIFO, a device, a folder, `InvalidData` for a file that is longer or no
/// text.
pub fn read_regular(path: &Path) -> std::io::Result<String> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "not a regular file"));
    }
    match text_file::read(std::fs::File::open(path)?, MAX_CONFIG_BYTES) {
        Ok(file) => Ok(file.text),
        Err(TextError::Io(error)) => Err(error),
        Err(error) => Err(std::io::Error::new(std::io::ErrorKind::InvalidData, error)),
    }
}

/// Far more than all settings with their comments take.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// The typed settings of the conversation and of sampling; `quiet` as for [`text::of_file`].
///
/// # Errors
/// The file with the system prompt cannot be read.
pub fn typed_chat(chat: &ChatArgs, sampling: &SamplingArgs, quiet: bool) -> Result<Patch> {
    let of_file = Patch { system: system_of_file(chat, quiet)?, ..Patch::default() };
    Ok(of_file.over(chat.typed.patch.clone()).over(sampling.patch.clone()))
}

/// Shows the notes about settings of a file that are not used.
pub fn show_notes(of: &str, invalid: &[InvalidSetting], quiet: bool) {
    for invalid in invalid.iter().filter(|_| !quiet) {
        eprintln!("huozi: {}", visible(&format!("{of}: {}", invalid.note(Lang::En))));
    }
}

/// The system prompt of `--system-file`.
///
/// # Errors
/// The file cannot be read.
fn system_of_file(args: &ChatArgs, quiet: bool) -> Result<Option<String>> {
    let Some(path) = &args.system_file else { return Ok(None) };
    Ok(Some(text::of_file(path, quiet)?.trim_end_matches(['\r', '\n']).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::KvType;

    fn parse(text: &str) -> Result<(Config, Vec<String>)> {
        Config::parse(Path::new("/c/huozi/config.toml"), text)
    }

    #[test]
    fn a_whole_file() {
        let (config, unknown) = parse(
            "model = \"m.gguf\"\nthreads = 3\nkv_type = \"f32\"\ncolour = 1\n\
             [sampling]\ntemperature = 1\ntop_k = 0\nmax_new_tokens = 9\ngreedy = true\nfoo = 2\n",
        )
        .unwrap();
        assert_eq!(config.model.as_deref(), Some(Path::new("/c/huozi/m.gguf")));
        let expected = Patch {
            threads: Some(3),
            kv: Some(KvType::F32),
            temperature: Some(1.0),
            top_k: Some(0),
            max_new: Some(9),
            do_sample: Some(false),
            ..Patch::default()
        };
        assert_eq!(config.settings, expected);
        assert_eq!(unknown, ["colour", "sampling.foo"]);
        let (config, unknown) = parse(
            "system = \"s\"\nengine = \"native\"\nctx_size = 99\ntop_k = 1\n\
             [sampling]\nseed = 7\nthreads = 2\n",
        )
        .unwrap();
        assert_eq!(unknown, ["sampling.threads", "top_k"], "each has one place");
        assert_eq!((config.settings.seed, config.settings.n_ctx), (Some(7), Some(99)));
    }

    #[test]
    fn wrong_values_are_named() {
        for (text, what) in [
            ("threads = 0", "threads: "),
            ("threads = \"2\"", "threads: "),
            ("kv_type = \"q4\"", "kv_type: "),
            ("model = 1", "model is a path"),
            ("[sampling]\ntop_p = 2.0", "top_p: "),
            ("[sampling]\ntemperature = nan", "temperature: "),
            ("sampling = 1", "sampling is a table"),
            ("[sampling]\ngreedy = \"yes\"", "greedy: true or false is needed"),
            ("engine = \"cuda\"", "engine: "),
            ("threads = ", "config.toml"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.to_string().contains(what), "{text}: {error}");
            let code = if text.starts_with("threads = \"2") || text.starts_with("threads = 0") {
                super::super::exit::USAGE
            } else {
                super::super::exit::BAD_FILE
            };
            assert_eq!(super::super::exit::code(&error), code, "{text}");
        }
        let error = parse("threads = 1025").unwrap_err();
        assert_eq!(super::super::exit::code(&error), super::super::exit::USAGE);
        assert!(error.to_string().contains("from 1 to 1024"), "{error}");
    }

    #[test]
    fn the_file_spells_kv_types_as_the_flag_does() {
        for (text, kv) in [
            ("f32", KvType::F32),
            ("fp32", KvType::F32),
            ("f16", KvType::F16),
            ("fp16", KvType::F16),
            ("q8", KvType::Q8),
        ] {
            assert_eq!(parse(&format!("kv_type = \"{text}\"")).unwrap().0.settings.kv, Some(kv));
        }
    }

    #[test]
    fn what_is_typed_beats_greedy_in_the_file() {
        let (config, _) = parse("[sampling]\ngreedy = true\n").unwrap();
        let draws = |typed: Patch| config.settings(typed).unwrap().sampling().do_sample;
        assert!(!draws(Patch::default()));
        assert!(draws(Patch { temperature: Some(0.8), ..Default::default() }));
        assert!(draws(Patch { top_k: Some(5), ..Default::default() }));
        assert!(draws(Patch { top_p: Some(0.5), ..Default::default() }));
        assert!(!draws(Patch { temperature: Some(0.8), do_sample: Some(false), ..Default::default() }));
        assert!(!draws(Patch { repetition_penalty: Some(1.1), ..Default::default() }));
    }

    #[test]
    fn an_engine_of_another_build_is_refused_only_when_a_model_is_opened() {
        let (config, _) = parse("engine = \"ggml\"").unwrap();
        assert_eq!(config.settings.engine, Some(EngineKind::Ggml));
    }
}
