//! The vocabulary of a GGUF file as the file spells it, and what is assumed where a file says too little.
//!
//! In: the `tokenizer.ggml.*` keys. Out: [`VocabularyParts`], borrowed from the file. Files of other programs
//! name BLOOM's split differently or not at all, and may lack the token types: that is assumed and said in
//! [`VocabularyParts::warnings`]. What cannot be assumed is refused.

use std::collections::HashSet;

use huozi_quant::gguf::Meta;
use huozi_quant::gguf::check::SHA256_KEY;

use crate::error::Error;

/// A vocabulary as a GGUF file spells it, borrowed; the seam for tests and tools without a file.
#[derive(Clone, Debug, Default)]
pub struct VocabularyParts<'a> {
    /// `tokenizer.ggml.tokens`: normal tokens in GPT-2's printable alphabet, all others as they are.
    pub tokens: Vec<&'a str>,
    /// `tokenizer.ggml.token_type`, one per token.
    pub types: Vec<i64>,
    /// `tokenizer.ggml.merges`, the earlier the stronger, each "a b".
    pub merges: Vec<&'a str>,
    /// `tokenizer.ggml.suppress_tokens`.
    pub suppress: Vec<i64>,
    /// `tokenizer.ggml.bos_token_id`.
    pub bos: Option<u64>,
    /// `tokenizer.ggml.eos_token_id`.
    pub eos: Option<u64>,
    /// `tokenizer.ggml.eot_token_id`.
    pub eot: Option<u64>,
    /// `tokenizer.ggml.unknown_token_id`.
    pub unk: Option<u64>,
    /// `tokenizer.ggml.padding_token_id`.
    pub pad: Option<u64>,
    /// Other tokens that end an answer: `tokenizer.ggml.eom_token_id`, those of [`END_IDS`] and, in a file
    /// that the converter did not write, control tokens that llama.cpp knows by their spelling.
    pub ends: Vec<i64>,
    /// The added tokens that are searched for after all others, see [`NORMALIZED_IDS`]; `None`: those that
    /// are text.
    pub normalized: Option<Vec<i64>>,
    /// What was assumed or ignored, for the user: one sentence each.
    pub warnings: Vec<String>,
}

/// End tokens besides `eos` and `eot`, an array of ids; written by the converter, read by this program only.
pub const END_IDS: &str = "huozi.end_token_ids";
/// The added tokens that `tokenizer.json` calls normalized, an array of ids: they are searched for in what is
/// left after all others were found. Absent: the added tokens that are text.
pub const NORMALIZED_IDS: &str = "huozi.normalized_token_ids";
/// The name of the split, see [`SAME_SPLIT`].
pub const PRE: &str = "tokenizer.ggml.pre";
/// One number per token, see [`crate::TokenKind`].
pub const TYPES: &str = "tokenizer.ggml.token_type";
/// The names of BLOOM's split: llama.cpp gives the same regular expression to all of them.
pub const SAME_SPLIT: [&str; 3] = ["bloom", "gpt3-finnish", "poro-chat"];

const MODEL: &str = "tokenizer.ggml.model";
const TOKENS: &str = "tokenizer.ggml.tokens";
const MERGES: &str = "tokenizer.ggml.merges";
pub(crate) const SUPPRESS: &str = "tokenizer.ggml.suppress_tokens";
pub(crate) const BOS: &str = "tokenizer.ggml.bos_token_id";
pub(crate) const EOS: &str = "tokenizer.ggml.eos_token_id";
pub(crate) const EOT: &str = "tokenizer.ggml.eot_token_id";
pub(crate) const EOM: &str = "tokenizer.ggml.eom_token_id";
pub(crate) const UNK: &str = "tokenizer.ggml.unknown_token_id";
pub(crate) const PAD: &str = "tokenizer.ggml.padding_token_id";
const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";

/// Control tokens at which llama.cpp ends an answer, whatever the file says.
const USUAL_ENDS: [&str; 10] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|eom_id|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<EOT>",
];

/// BLOOM's end token.
const END_OF_TEXT: &str = "</s>";

/// `tokenizer.ggml.token_type` of the types that are assumed.
const NORMAL: i64 = 1;
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;
const UNUSED: i64 = 5;

impl<'a> VocabularyParts<'a> {
    /// Reads the arrays; checks that the tokenizer is BLOOM's and that nothing needed is absent.
    ///
    /// # Errors
    /// A missing key that nothing can be assumed for, a wrong type, another kind of tokenizer.
    pub fn from_gguf(meta: Meta<'a>) -> Result<Self, Error> {
        let mut warnings = Vec::new();
        let Some(tokens) = meta.strings(TOKENS)? else { return Err(Error::Missing { key: TOKENS }) };
        let model = meta.str(MODEL)?.ok_or(Error::Missing { key: MODEL })?;
        if model != "gpt2" {
            return Err(Error::unsupported(MODEL, model, "gpt2"));
        }
        check_split(meta, &mut warnings)?;
        // BLOOM's texts begin without one; a model trained otherwise would get prompts it does not know.
        if meta.bool(ADD_BOS)?.unwrap_or(false) {
            return Err(Error::AddBos { key: ADD_BOS });
        }
        let tokens: Vec<&str> = tokens.iter().collect();
        let merges = meta.strings(MERGES)?.ok_or(Error::Missing { key: MERGES })?.iter().collect();
        let n = tokens.len();
        let mut unused = |key| unused_id(meta, key, n, &mut warnings);
        let (bos, unk, pad) = (unused(BOS), unused(UNK), unused(PAD));
        let mut ends = Vec::new();
        if let Some(id) = meta.uint(EOM)? {
            let id = id.try_into().unwrap_or(i64::MAX);
            if !in_range(id, n) {
                return Err(Error::SpecialId { key: EOM, id, n_vocab: n });
            }
            ends.push(id);
        }
        ends.extend(meta.ints(END_IDS)?.iter().flat_map(|ids| ids.iter()));
        let listed = meta.ints(SUPPRESS)?;
        let suppress: Vec<i64> =
            listed.iter().flat_map(|ids| ids.iter()).filter(|id| in_range(*id, n)).collect();
        let outside = listed.map_or(0, |ids| ids.len()) - suppress.len();
        if outside > 0 {
            warnings.push(format!("`{SUPPRESS}`: {outside} ids without a token are ignored"));
        }
        let mut parts = Self {
            tokens,
            types: meta.ints(TYPES)?.map(|types| types.iter().collect()).unwrap_or_default(),
            merges,
            suppress,
            bos,
            eos: meta.uint(EOS)?,
            eot: meta.uint(EOT)?,
            unk,
            pad,
            ends,
            normalized: meta.ints(NORMALIZED_IDS)?.map(|ids| ids.iter().collect()),
            warnings,
        };
        parts.assume_types(meta.get(TYPES).is_none());
        // Converters of 2023 called the rows without a token text.
        let rows = parts.types.iter_mut().zip(&parts.tokens).enumerate();
        for (id, (kind, text)) in rows {
            if *kind == USER_DEFINED && text.starts_with("[PAD") && **text == format!("[PAD{id}]") {
                *kind = UNUSED;
            }
        }
        if meta.get(SHA256_KEY).is_none() {
            parts.add_usual_ends();
            parts.warn_without_end();
        }
        Ok(parts)
    }

    /// For a file of another program: the control tokens that llama.cpp stops at by their spelling, since
    /// such files name one end token even where the model has several.
    fn add_usual_ends(&mut self) {
        let spelled = (0i64..).zip(self.tokens.iter().zip(&self.types));
        let ends = spelled.filter(|(_, (text, kind))| **kind == CONTROL && USUAL_ENDS.contains(text));
        self.ends.extend(ends.map(|(id, _)| id));
    }

    /// For a file that names no end token: what is taken for one.
    fn warn_without_end(&mut self) {
        if self.eos.is_some() || self.eot.is_some() {
            return;
        }
        let spelled = self.tokens.iter().zip(&self.types).enumerate();
        let ends = spelled.filter(|(id, (text, kind))| {
            self.ends.contains(&(*id as i64)) || **kind == CONTROL && **text == END_OF_TEXT
        });
        let ends: Vec<String> = ends.map(|(_, (text, _))| format!("{text:?}")).take(8).collect();
        let taken = if ends.is_empty() { "none".into() } else { ends.join(", ") };
        self.warnings.push(format!("`{EOS}` is missing: assumed end tokens: {taken}"));
    }

    /// Fills in the types where the file has none (`absent`), or has only the type of normal text, as some
    /// converters wrote it for every token.
    ///
    /// A token that neither is a byte nor comes out of a merge can never be a part of text. Such a token is a
    /// control token if a special id names it or if it is spelled as one, and no token at all if it is called
    /// `[PADn]`; the others stay normal.
    fn assume_types(&mut self, absent: bool) {
        if !absent && (self.types.is_empty() || self.types.iter().any(|&t| t != NORMAL)) {
            return;
        }
        let special = [self.bos, self.eos, self.eot, self.unk, self.pad].into_iter().flatten();
        let special: HashSet<u64> =
            special.chain(self.ends.iter().filter_map(|&id| id.try_into().ok())).collect();
        let mut candidates: HashSet<&str> = (0u64..)
            .zip(&self.tokens)
            .filter(|(id, text)| special.contains(id) || looks_like_control(text))
            .map(|(_, text)| *text)
            .filter(|text| text.chars().nth(1).is_some())
            .collect();
        let mut joined = String::new();
        for merge in &self.merges {
            if candidates.is_empty() {
                break;
            }
            joined.clear();
            joined.extend(merge.split(' '));
            candidates.remove(joined.as_str());
        }
        let mut types = vec![NORMAL; self.tokens.len()];
        let mut controls = Vec::new();
        for (id, text) in self.tokens.iter().enumerate() {
            if text.starts_with("[PAD") && **text == format!("[PAD{id}]") {
                types[id] = UNUSED;
            } else if candidates.contains(text) {
                types[id] = CONTROL;
                controls.push(*text);
            }
        }
        if absent || types.iter().any(|&t| t != NORMAL) {
            let said = if absent { "is missing" } else { "calls every token normal text" };
            let some = controls.iter().take(8).map(|text| format!("{text:?}")).collect::<Vec<_>>().join(", ");
            let more =
                if controls.len() > 8 { format!(" and {} more", controls.len() - 8) } else { String::new() };
            let taken = if controls.is_empty() { "none".into() } else { format!("{some}{more}") };
            self.warnings.push(format!("`{TYPES}` {said}: assumed control tokens: {taken}"));
        }
        self.types = types;
    }
}

/// Checks that the file names BLOOM's split; one that names none is assumed to have it if its architecture is
/// BLOOM.
fn check_split(meta: Meta<'_>, warnings: &mut Vec<String>) -> Result<(), Error> {
    // "default" is what old converters wrote for a split that they did not know.
    let named = meta.str(PRE)?.filter(|name| !["", "default"].contains(name));
    match named {
        Some(name) if SAME_SPLIT.contains(&name) => Ok(()),
        Some(name) => Err(Error::unsupported(PRE, name, "bloom")),
        None if meta.str("general.architecture")? == Some("bloom") => {
            warnings.push(format!("`{PRE}` is missing: BLOOM's way of splitting text is assumed"));
            Ok(())
        }
        None => Err(Error::Missing { key: PRE }),
    }
}

/// An id that no answer depends on; one that is no token is ignored, with a warning.
fn unused_id(meta: Meta<'_>, key: &'static str, n: usize, warnings: &mut Vec<String>) -> Option<u64> {
    meta.get(key)?;
    let id = meta.uint(key).ok().flatten().filter(|&id| id < n as u64);
    if id.is_none() {
        warnings.push(format!("`{key}` names no token: ignored"));
    }
    id
}

fn in_range(id: i64, n: usize) -> bool {
    usize::try_from(id).is_ok_and(|id| id < n)
}

/// Spelled as control tokens are: `</s>`, `<|im_end|>`, `[INST]`.
fn looks_like_control(text: &str) -> bool {
    let inside = text.strip_prefix('<').and_then(|t| t.strip_suffix('>'));
    let inside = inside.or_else(|| text.strip_prefix('[').and_then(|t| t.strip_suffix(']')));
    inside.is_some_and(|t| t.len() > 1 || t.chars().all(|c| c.is_ascii_alphabetic()) && !t.is_empty())
}
