//! What a chat needs beside the tokens: special ids, the template, sampling defaults.
//!
//! Reads `config.json`, `tokenizer_config.json` and `generation_config.json`; Huozi
//! stores neither a template nor its real end token, so both are supplied when its two markers are there.

use huozi_token::markers;
use huozi_token::parts::END_IDS;
use serde_json::Value;

use crate::error::Error;
use crate::source::{quoted, shown_json};
use crate::template;
use crate::vocab::{TokenType, Vocabulary};

/// Defaults of sampling, for programs that read them from the file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplingDefaults {
    /// Temperature; 0 takes the most probable token.
    pub temp: f32,
    /// How many candidates are kept.
    pub top_k: i32,
    /// How much probability is kept.
    pub top_p: f32,
    /// Repetition penalty.
    pub penalty_repeat: f32,
}

/// Those of the original demo.
impl Default for SamplingDefaults {
    fn default() -> Self {
        Self { temp: 0.5, top_k: 50, top_p: 0.95, penalty_repeat: 1.03 }
    }
}

/// Special ids and chat behaviour.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChatSetup {
    /// Begins a text.
    pub bos: Option<u32>,
    /// Ends a text: the end token of the tokenizer.
    pub eos: Option<u32>,
    /// Ends a turn, as far as that is known without the template: Huozi's marker, else the first other end
    /// token.
    pub eot: Option<u32>,
    /// Every token that ends an answer, `eos` and `eot` among them, in the order of the files.
    pub ends: Vec<u32>,
    /// Unknown.
    pub unk: Option<u32>,
    /// Padding.
    pub pad: Option<u32>,
    /// Jinja; `None` for a model that only completes.
    pub template: Option<String>,
    /// Separator, class and mask, where the template names them: keys of GGUF without `_token_id`.
    pub of_template: Vec<(&'static str, u32)>,
    /// The texts of `additional_special_tokens`, where the template names them.
    pub additional: Vec<String>,
    /// `None` for a model that only completes.
    pub sampling: Option<SamplingDefaults>,
    /// Notes for the report.
    pub notes: Vec<String>,
}

/// The files read here; absent ones are `None`.
#[derive(Clone, Copy, Debug, Default)]
pub struct ChatFiles<'a> {
    /// `config.json`.
    pub config: Option<&'a Value>,
    /// `tokenizer_config.json`.
    pub tokenizer_config: Option<&'a Value>,
    /// `generation_config.json`.
    pub generation_config: Option<&'a Value>,
    /// The chat template that is given, or that of the checkpoint's template files.
    pub chat_template: Option<&'a str>,
    /// Whether the template is left out.
    pub omit_template: bool,
}

impl ChatSetup {
    /// Puts together what the files say and what Huozi's files do not say.
    ///
    /// # Errors
    /// An end token outside the vocabulary, or a template of an unknown form.
    pub fn read(files: &ChatFiles<'_>, vocab: &Vocabulary) -> Result<Self, Error> {
        let mut chat = Self::default();
        chat.bos = chat.unused(files, vocab, "bos", "<s>");
        chat.unk = chat.unused(files, vocab, "unk", "<unk>");
        chat.pad = chat.unused(files, vocab, "pad", "<pad>");
        chat.ends = chat.end_tokens(files, vocab)?;
        chat.eos = chat.ends.first().copied();
        chat.template = match (files.chat_template, files.tokenizer_config) {
            _ if files.omit_template => None,
            (Some(text), _) => Some(text.to_owned()),
            (None, Some(config)) => template::of_tokenizer_config(config, &mut chat.notes)?,
            (None, None) => None,
        };
        if let Some([_, end]) = markers::find(|text| vocab.added(text)) {
            chat.eot = Some(end);
            // Readers stop at eos and at eot: naming the marker twice would lose </s>.
            if chat.eos.is_none_or(|eos| eos == end) {
                chat.eos = vocab.added("</s>").or(chat.eos);
            }
            if chat.template.is_none() && !files.omit_template {
                chat.template = Some(markers::TEMPLATE.to_owned());
                chat.notes.push("no chat template in the checkpoint: Huozi's format written".into());
            }
            for id in chat.eos.into_iter().chain([end]) {
                if !chat.ends.contains(&id) {
                    chat.ends.push(id);
                }
            }
        } else {
            chat.eot = chat.ends.get(1).copied();
        }
        if let Some(template) = &chat.template {
            let tokens = template::TemplateTokens::read(template, files.tokenizer_config);
            let known = tokens.named.iter().filter_map(|(key, text)| Some((*key, vocab.id(text)?)));
            chat.of_template = known.collect();
            chat.additional = tokens.additional;
        }
        chat.sampling = chat.template.is_some().then(|| sampling(files.generation_config, &mut chat.notes));
        Ok(chat)
    }

    /// The id of the spelling in `tokenizer_config.json`.
    fn spelled(&mut self, files: &ChatFiles<'_>, vocab: &Vocabulary, key: &str) -> Option<u32> {
        let spelled = files.tokenizer_config.map(|c| &c[format!("{key}_token")])?;
        let text = spelled.as_str().or_else(|| spelled["content"].as_str())?;
        let id = vocab.id(text);
        if id.is_none() {
            let text = quoted(text);
            self.notes.push(format!("tokenizer_config.json: {key}_token {text} is no token, ignored"));
        }
        id
    }

    /// A special id that no answer depends on: the spelling in `tokenizer_config.json`, else the id in
    /// `config.json`, else in `generation_config.json`, else the usual spelling if it is a control token. An
    /// id that is no token is ignored, with a note.
    fn unused(&mut self, files: &ChatFiles<'_>, vocab: &Vocabulary, key: &str, usual: &str) -> Option<u32> {
        if let Some(id) = self.spelled(files, vocab, key) {
            return Some(id);
        }
        for (file, json) in [(CONFIG, files.config), (GENERATION, files.generation_config)] {
            match ids(file, json, &format!("{key}_token_id"), vocab) {
                Ok(ids) => match ids.first() {
                    Some(id) => return Some(*id),
                    None => continue,
                },
                Err(error) => self.notes.push(format!("{error}: ignored, no answer depends on it")),
            }
        }
        vocab.added(usual).filter(|id| vocab.types[*id as usize] == TokenType::Control)
    }

    /// The tokens that end an answer, each once: that of `tokenizer_config.json`, those of `config.json`,
    /// those of `generation_config.json`; `</s>` where these name none and it is a control token.
    fn end_tokens(&mut self, files: &ChatFiles<'_>, vocab: &Vocabulary) -> Result<Vec<u32>, Error> {
        let mut ends: Vec<u32> = self.spelled(files, vocab, "eos").into_iter().collect();
        ends.extend(ids(CONFIG, files.config, "eos_token_id", vocab)?);
        ends.extend(ids(GENERATION, files.generation_config, "eos_token_id", vocab)?);
        if ends.is_empty() {
            let usual = vocab.added("</s>");
            ends.extend(usual.filter(|id| vocab.types[*id as usize] == TokenType::Control));
        }
        let mut seen = std::collections::HashSet::new();
        ends.retain(|id| seen.insert(*id));
        Ok(ends)
    }

    /// Sets `eot` to the end token that the template writes after an answer, `written`, unless that is `eos`
    /// already; then the first other one stays. Returns the end tokens that are neither.
    pub(crate) fn place_ends(&mut self, written: Option<u32>, vocab: impl Fn(u32) -> String) -> Vec<u32> {
        if let Some(id) = written.filter(|id| Some(*id) != self.eos && self.ends.contains(id)) {
            self.eot = Some(id);
        }
        let named = [self.eos, self.eot];
        let rest: Vec<u32> = self.ends.iter().copied().filter(|id| !named.contains(&Some(*id))).collect();
        if !rest.is_empty() {
            let list: Vec<String> = rest.iter().map(|&id| format!("{id} {}", quoted(&vocab(id)))).collect();
            let list = list.join(", ");
            self.notes.push(format!(
                "GGUF has keys for two end tokens: {list} are in {END_IDS} instead, which only huozi \
                 reads; other programs may run on after them"
            ));
        }
        rest
    }
}

const CONFIG: &str = "config.json";
const GENERATION: &str = "generation_config.json";

/// The id, or the list of ids, under `key` of `json`, the content of `file`.
fn ids(file: &str, json: Option<&Value>, key: &str, vocab: &Vocabulary) -> Result<Vec<u32>, Error> {
    let list = match json.map(|j| &j[key]) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(list)) => list.as_slice(),
        Some(one) => std::slice::from_ref(one),
    };
    let id = |v: &Value| {
        let id = v.as_u64().filter(|id| *id < vocab.tokens.len() as u64);
        let what = || format!("{key} is {}, not an id below {}", shown_json(v), vocab.tokens.len());
        id.map(|id| id as u32).ok_or_else(|| Error::Config { file: file.to_owned(), what: what() })
    };
    list.iter().map(id).collect()
}

/// The values of Huozi's demo, replaced by those that `generation_config.json` states and that the runtime
/// takes; `notes` receives the others.
fn sampling(generation: Option<&Value>, notes: &mut Vec<String>) -> SamplingDefaults {
    let mut s = SamplingDefaults::default();
    let mut number = |key: &str, least: f64, most: f64| {
        let value = generation.map(|g| &g[key]).filter(|value| !value.is_null())?;
        let number = value.as_f64().filter(|x| (least..=most).contains(x));
        if number.is_none() {
            let value = shown_json(value);
            let what = format!("{key} is {value}, expected {least} to {most}; not written into the file");
            notes.push(format!("generation_config.json: {what}"));
        }
        number
    };
    // The ranges of the runtime's settings.
    let (temperature, top_p) = (number("temperature", 0.0, 5.0), number("top_p", 0.0, 1.0));
    let penalty = number("repetition_penalty", 0.01, 5.0);
    let top_k = number("top_k", 0.0, f64::from(i32::MAX)).filter(|k| k.fract() == 0.0);
    // Only what the file states: an absent `do_sample` means false, but most files leave it out.
    if generation.is_some_and(|g| g["do_sample"] == false) {
        s.temp = 0.0;
    } else if let Some(v) = temperature {
        s.temp = v as f32;
    }
    if let Some(v) = top_k {
        s.top_k = v as i32;
    }
    if let Some(v) = top_p {
        s.top_p = v as f32;
    }
    if let Some(v) = penalty {
        s.penalty_repeat = v as f32;
    }
    s
}
