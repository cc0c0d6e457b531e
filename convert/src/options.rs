//! The options of a conversion: sources, outputs, formats, metadata.

use std::borrow::Cow;
use std::path::PathBuf;

use regex_lite::Regex;

use crate::plan::{NamedFormat, Preset, PresetOptions};

/// Where the weights come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A directory, a GGUF file, or a name in the local Hugging Face cache.
    Path(PathBuf),
    /// Files in memory: names and contents.
    Memory(Vec<(String, Cow<'static, [u8]>)>),
}

/// Which chat template the file gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TemplateChoice {
    /// That of the source; Huozi's format where a checkpoint of Huozi has none.
    #[default]
    Source,
    /// None.
    Omit,
    /// The text of this file.
    File(PathBuf),
}

impl TemplateChoice {
    /// As `--chat-template` says it: `none`, or the path of a file.
    #[must_use]
    pub fn from_argument(argument: PathBuf) -> Self {
        if argument.as_os_str() == "none" { Self::Omit } else { Self::File(argument) }
    }
}

/// The options of a conversion.
#[derive(Clone, Debug)]
pub struct Options {
    /// Read from here.
    pub source: Source,
    /// One file per entry, all written in one pass over the source.
    pub outputs: Vec<(Preset, PathBuf)>,
    /// Threads; `None`: as many as the machine gives.
    pub threads: Option<usize>,
    /// Replace outputs that exist.
    pub force: bool,
    /// `general.name`; `None`: taken from the source.
    pub name: Option<String>,
    /// `bloom.context_length`; `None`: taken from the source.
    pub context_length: Option<u64>,
    /// Write a tied embedding a second time as `output.weight`, for readers that need it.
    pub duplicate_output: bool,
    /// Departures from the presets' choice of formats, for all outputs.
    pub preset_options: PresetOptions,
    /// Formats of tensors by their names, before all other choices; the first match counts.
    pub tensor_types: Vec<NamedFormat>,
    /// Source tensors that are left out although they might change the output: patterns of their names in the
    /// source. What a BLOOM model has is never left out.
    pub skip_tensors: Vec<Regex>,
    /// Metadata set by hand: keys and values.
    pub metadata: Vec<(String, String)>,
    /// `tokenizer.chat_template`.
    pub chat_template: TemplateChoice,
    /// An importance matrix, as `llama-imatrix` writes it.
    pub imatrix: Option<PathBuf>,
    /// Compare each finished file with the source before it is renamed into place.
    pub verify: bool,
    /// Convert NaN and infinite weights instead of refusing: kept by the float formats, 0 in all others.
    pub allow_nan: bool,
}

impl Options {
    /// One output, everything else as usual.
    pub fn new(source: Source, preset: Preset, path: impl Into<PathBuf>) -> Self {
        Self {
            source,
            outputs: vec![(preset, path.into())],
            threads: None,
            force: false,
            name: None,
            context_length: None,
            duplicate_output: false,
            preset_options: PresetOptions::default(),
            tensor_types: Vec::new(),
            skip_tensors: Vec::new(),
            metadata: Vec::new(),
            chat_template: TemplateChoice::Source,
            imatrix: None,
            verify: false,
            allow_nan: false,
        }
    }
}
