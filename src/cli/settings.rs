//! What holds where nothing was typed: flag, then environment, then the configuration file, then what the model file
//! says, then the default.

use super::args::{self, ChatArgs, LoadArgs, SamplingArgs};
use super::exit::{BadFile, Usage};
use crate::engine::KvType;
use crate::sample::Sampling;
use crate::session::catalog::xdg;
use crate::session::open::Wanted;
use anyhow::{Context, Result};
use huozi_quant::gguf::Meta;
use std::path::{Path, PathBuf};

/// The configuration file.
///
/// ```toml
/// model = "/models/huozi.gguf"   # a relative path counts from this file's folder
/// threads = 4
/// kv_type = "f16"                # of run, chat and demo; eval and logits measure in f32 unless --kv-type is typed
/// kv_cache_gib = 4               # what huozi-tui may keep on disk to go on with long conversations at once; 0 = nothing
/// [sampling]
/// temperature = 0.8
/// top_k = 50
/// top_p = 0.95
/// repetition_penalty = 1.03
/// max_new_tokens = 512
/// greedy = false                 # overridden by a typed --temperature, --top-k or --top-p
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// `-q` was typed: no progress, no notes.
    pub quiet: bool,
    /// Model file.
    pub model: Option<PathBuf>,
    /// Threads.
    pub threads: Option<usize>,
    /// KV type of conversations; `eval` and `logits` take it from the flag only.
    pub kv: Option<KvType>,
    /// GiB of keys and values of conversations on disk.
    pub kv_cache_gib: Option<u32>,
    temperature: Option<f32>,
    top_k: Option<u32>,
    top_p: Option<f32>,
    repetition_penalty: Option<f32>,
    greedy: Option<bool>,
    max_new: Option<usize>,
}

impl Config {
    /// `$XDG_CONFIG_HOME/huozi/config.toml`; defaults when there is none. Unknown keys are warned about on stderr
    /// unless `quiet`.
    ///
    /// # Errors
    /// A file that cannot be read, is no TOML, or holds a value of the wrong kind.
    pub fn load(quiet: bool) -> Result<Self> {
        let Some(path) = xdg("XDG_CONFIG_HOME", ".config").map(|base| base.join("huozi").join("config.toml"))
        else {
            return Ok(Self { quiet, ..Self::default() });
        };
        let text = match std::fs::read_to_string(&path) {
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
        Ok(Self { quiet, ..config })
    }

    /// The configuration and the keys that mean nothing.
    fn parse(path: &Path, text: &str) -> Result<(Self, Vec<String>)> {
        let bad = |what: String| BadFile(format!("{}: {what}", path.display()));
        let table: toml::Table = toml::from_str(text).map_err(|e| bad(e.to_string()))?;
        let mut config = Self::default();
        let mut unknown = Vec::new();
        for (key, value) in &table {
            match key.as_str() {
                "model" => {
                    let name = value.as_str().ok_or_else(|| bad("model is a path".into()))?;
                    let folder = path.parent().unwrap_or(Path::new(""));
                    config.model = Some(folder.join(name));
                }
                "threads" => {
                    let n = value.as_integer().and_then(|n| args::threads(&n.to_string()).ok());
                    // How many may be typed is usage, wherever it is typed.
                    let Some(n) = n else {
                        let what = needs(key, "a whole number from 1 to 1024");
                        return Err(Usage(format!("{}: {what}", path.display())).into());
                    };
                    config.threads = Some(n);
                }
                "kv_type" => {
                    let kv = value.as_str().and_then(|text| args::kv_type(text).ok());
                    config.kv = Some(kv.ok_or_else(|| bad(needs(key, "\"f32\", \"f16\" or \"q8\"")))?);
                }
                "kv_cache_gib" => {
                    let gib = value.as_integer().and_then(|n| u32::try_from(n).ok());
                    config.kv_cache_gib = Some(gib.ok_or_else(|| bad(needs(key, "0 or more")))?);
                }
                "sampling" => {
                    let table = value.as_table().ok_or_else(|| bad("sampling is a table".into()))?;
                    for (key, value) in table {
                        if !config.sampling_key(key, value).map_err(&bad)? {
                            unknown.push(format!("sampling.{key}"));
                        }
                    }
                }
                _ => unknown.push(key.clone()),
            }
        }
        Ok((config, unknown))
    }

    fn sampling_key(&mut self, key: &str, value: &toml::Value) -> Result<bool, String> {
        let number = || match value {
            toml::Value::Float(x) => Ok(*x as f32),
            toml::Value::Integer(n) => Ok(*n as f32),
            _ => Err(needs(key, "a number")),
        };
        let within = |x: f32, good: bool, what: &str| if good { Ok(x) } else { Err(needs(key, what)) };
        match key {
            "temperature" => {
                let x = number()?;
                self.temperature = Some(within(x, x.is_finite() && x >= 0.0, "0 or more")?);
            }
            "top_p" => {
                let x = number()?;
                self.top_p = Some(within(x, x > 0.0 && x <= 1.0, "above 0 and at most 1")?);
            }
            "repetition_penalty" => {
                let x = number()?;
                self.repetition_penalty = Some(within(x, x.is_finite() && x > 0.0, "above 0")?);
            }
            "top_k" => {
                let k = value.as_integer().and_then(|k| u32::try_from(k).ok());
                self.top_k = Some(k.ok_or_else(|| needs(key, "0 or more"))?);
            }
            "max_new_tokens" => self.max_new = Some(count(value).ok_or_else(|| needs(key, "1 or more"))?),
            "greedy" => self.greedy = Some(value.as_bool().ok_or_else(|| needs(key, "true or false"))?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The model: what was typed, `HUOZI_MODEL`, this file.
    ///
    /// # Errors
    /// [`Usage`] when none of them names one.
    pub fn model(&self, typed: Option<&Path>) -> Result<PathBuf> {
        let env = std::env::var_os("HUOZI_MODEL").filter(|v| !v.is_empty()).map(PathBuf::from);
        typed.map(Path::to_owned).or(env).or_else(|| self.model.clone()).ok_or_else(|| {
            Usage(
                "no model: give one with -m FILE, HUOZI_MODEL or `model` in ~/.config/huozi/config.toml \
                 (`huozi doctor` lists the files it finds); `huozi demo` needs none"
                    .into(),
            )
            .into()
        })
    }

    /// Threads: what was typed, `HUOZI_THREADS`, this file; `None` is all.
    ///
    /// # Errors
    /// [`Usage`] when `HUOZI_THREADS` is no number.
    pub fn threads(&self, typed: &LoadArgs) -> Result<Option<usize>> {
        if typed.threads.is_some() {
            return Ok(typed.threads);
        }
        match std::env::var("HUOZI_THREADS") {
            Ok(text) if !text.is_empty() => match args::threads(&text) {
                Ok(n) => Ok(Some(n)),
                Err(what) => Err(Usage(format!("HUOZI_THREADS={text:?}: {what}")).into()),
            },
            _ => Ok(self.threads),
        }
    }

    /// The type of the KV cache.
    pub fn kv(&self, typed: &LoadArgs, default: KvType) -> KvType {
        typed.kv_type.or(self.kv).unwrap_or(default)
    }

    /// Sampling, tokens of an answer at most.
    ///
    /// # Errors
    /// The model file's own settings are of the wrong kind.
    pub fn sampling(&self, typed: &SamplingArgs, meta: Meta<'_>) -> Result<(Sampling, usize)> {
        Ok(self.wanted(typed).over(meta)?)
    }

    /// Sampling that was typed or configured.
    pub fn wanted(&self, typed: &SamplingArgs) -> Wanted {
        // Who types how to draw wants to draw, whatever the configuration prefers.
        let drawn = typed.temperature.is_some() || typed.top_k.is_some() || typed.top_p.is_some();
        Wanted {
            greedy: typed.greedy || !drawn && self.greedy.unwrap_or(false),
            temperature: typed.temperature.or(self.temperature),
            top_k: typed.top_k.or(self.top_k),
            top_p: typed.top_p.or(self.top_p),
            repetition_penalty: typed.repetition_penalty.or(self.repetition_penalty),
            max_new: typed.max_new_tokens.or(self.max_new),
        }
    }
}

fn needs(key: &str, what: &str) -> String {
    format!("{key} must be {what}")
}

fn count(value: &toml::Value) -> Option<usize> {
    value.as_integer().and_then(|n| usize::try_from(n).ok()).filter(|&n| n > 0)
}

/// The system text that was typed.
///
/// # Errors
/// Its file cannot be read.
pub fn system(args: &ChatArgs) -> Result<Option<String>> {
    match (&args.system, &args.system_file) {
        (Some(text), _) => Ok(Some(text.clone())),
        (None, Some(path)) => Ok(Some(read_text(path)?.trim_end_matches(['\r', '\n']).to_owned())),
        (None, None) => Ok(None),
    }
}

/// The text of a file, or of standard input for `-`.
///
/// # Errors
/// [`BadFile`] when it cannot be read or is not UTF-8.
pub fn read_text(path: &Path) -> Result<String> {
    let stdin = path.as_os_str() == "-";
    let name = if stdin { "standard input".to_owned() } else { path.display().to_string() };
    let bytes = if stdin { read_stdin() } else { std::fs::read(path) }
        .map_err(|e| BadFile(format!("{name}: cannot read: {e}")))?;
    let text = String::from_utf8(bytes)
        .map_err(|e| BadFile(format!("{name}: not UTF-8 at byte {}", e.utf8_error().valid_up_to())))?;
    // A byte order mark is no part of a text.
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

fn read_stdin() -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    std::io::stdin().lock().read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A text from `-p`, `-f` or standard input; the last line break of a file or of standard input is taken off when
/// `trim`.
///
/// # Errors
/// As [`read_text`]; [`Usage`] when standard input is a terminal that nobody was told to type into.
pub fn text(prompt: Option<&str>, file: Option<&Path>, trim: bool) -> Result<String> {
    use std::io::IsTerminal;
    if let Some(text) = prompt {
        return Ok(text.to_owned());
    }
    let path = file.unwrap_or(Path::new("-"));
    if file.is_none() && std::io::stdin().is_terminal() {
        return Err(Usage("no text: give it with -p TEXT or -f FILE, or pipe it in".into()).into());
    }
    let text = read_text(path).context("the text")?;
    if !trim {
        return Ok(text);
    }
    let cut = text.strip_suffix('\n').map(|t| t.strip_suffix('\r').unwrap_or(t));
    Ok(cut.unwrap_or(&text).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<(Config, Vec<String>)> {
        Config::parse(Path::new("/c/huozi/config.toml"), text)
    }

    #[test]
    fn a_whole_file() {
        let (config, unknown) = parse(
            "model = \"m.gguf\"\nthreads = 3\nkv_type = \"f32\"\ncolour = 1\n[sampling]\ntemperature = 1\ntop_k = 0\n\
             max_new_tokens = 9\ngreedy = true\nfoo = 2\n",
        )
        .unwrap();
        assert_eq!(config.model.as_deref(), Some(Path::new("/c/huozi/m.gguf")));
        assert_eq!((config.threads, config.kv), (Some(3), Some(KvType::F32)));
        assert_eq!((config.temperature, config.top_k, config.max_new), (Some(1.0), Some(0), Some(9)));
        assert_eq!(config.greedy, Some(true));
        assert_eq!(unknown, ["colour", "sampling.foo"]);
    }

    #[test]
    fn wrong_values_are_named() {
        for (text, what) in [
            ("threads = 0", "threads must be"),
            ("threads = \"2\"", "threads must be"),
            ("kv_type = \"q4\"", "kv_type must be"),
            ("model = 1", "model is a path"),
            ("[sampling]\ntop_p = 2.0", "top_p must be"),
            ("[sampling]\ntemperature = nan", "temperature must be"),
            ("sampling = 1", "sampling is a table"),
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
            assert_eq!(parse(&format!("kv_type = \"{text}\"")).unwrap().0.kv, Some(kv));
        }
    }

    #[test]
    fn what_is_typed_beats_greedy_in_the_file() {
        let (config, _) = parse("[sampling]\ngreedy = true\n").unwrap();
        let layout = huozi_quant::gguf::Layout::new(&[], Vec::new()).unwrap();
        let reader = huozi_quant::gguf::Reader::from_bytes("m", layout.header().to_vec()).unwrap();
        let draws = |typed: SamplingArgs| config.sampling(&typed, reader.meta()).unwrap().0.do_sample;
        assert!(!draws(SamplingArgs::default()));
        assert!(draws(SamplingArgs { temperature: Some(0.8), ..Default::default() }));
        assert!(draws(SamplingArgs { top_k: Some(5), ..Default::default() }));
        assert!(draws(SamplingArgs { top_p: Some(0.5), ..Default::default() }));
        assert!(!draws(SamplingArgs { temperature: Some(0.8), greedy: true, ..Default::default() }));
        assert!(!draws(SamplingArgs { repetition_penalty: Some(1.1), ..Default::default() }));
    }
}
