//! `tokenizer.json` -> the vocabulary of a GGUF file: tokens by id, types, merges.
//!
//! The tokenizer is recognised by its structure (byte-level BPE behind BLOOM's split), never by a hash. What
//! would give other ids in GGUF readers is refused by name: other steps or options of the tokenizer, merges
//! with several meanings, bytes without a token, added tokens with options besides their spelling.

use std::collections::{HashMap, HashSet};
use std::fmt;

use huozi_token::markers;
use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use crate::error::Error;
use crate::source::{quoted, shown, shown_json};

/// BLOOM's split, as `tokenizer.json` spells it; readers of GGUF know it as `tokenizer.ggml.pre = bloom`.
pub(crate) const SPLIT: &str = r" ?[^(\s|[.,!?…。，、।۔،])]+";

/// Spellings of one class of characters: BLOOM's own, and without the inner brackets, as llama.cpp has it.
const SPLITS: [&str; 2] = [SPLIT, r" ?[^(\s|.,!?…。，、।۔،)]+"];

/// `tokenizer.ggml.token_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum TokenType {
    /// Part of text.
    Normal = 1,
    /// Controls the model, never shown.
    Control = 3,
    /// Added as a whole, but text.
    UserDefined = 4,
    /// A row of the embedding without a token, named `[PADn]`.
    Unused = 5,
}

/// The tokens of a model.
#[derive(Clone, Debug)]
pub struct Vocabulary {
    /// One string per row of the embedding, byte-level alphabet where the type is normal.
    pub tokens: Vec<String>,
    /// One type per token.
    pub types: Vec<TokenType>,
    /// `"a b"` in order of rank.
    pub merges: Vec<String>,
    /// The added tokens that are normalized, where these are not the ones that are text.
    pub normalized: Option<Vec<u32>>,
    /// Notes for the report.
    pub notes: Vec<String>,
    added: HashMap<String, u32>,
}

impl Vocabulary {
    /// Reads the text of `tokenizer.json` (and of `tokenizer_config.json`, which may add tokens, or name
    /// tokens of the vocabulary as special ones, which makes them control tokens).
    ///
    /// `n_vocab`: rows of the embedding, as found in the weights.
    ///
    /// # Errors
    /// Another kind of tokenizer, ids without a row, two tokens of one spelling or one id, merges of unknown
    /// parts or listed twice, bytes without a token, added tokens with `lstrip`, `rstrip` or `single_word`.
    pub fn read(tokenizer: &[u8], tokenizer_config: Option<&Value>, n_vocab: u64) -> Result<Self, Error> {
        // First the type alone: other models' `vocab` does not even parse.
        let kind: ModelHeader = parse(tokenizer)?;
        if let Some(kind) = kind.model.kind.filter(|k| k != "BPE") {
            let whose = known_model(&kind);
            return Err(bad(format!(
                "model type {}{whose}: expected byte-level BPE as BLOOM has it",
                shown(&kind)
            )));
        }
        let json: TokenizerJson = parse(tokenizer)?;
        check_structure(&json, tokenizer_config)?;

        let mut notes = Vec::new();
        let mut slots = Slots::new(n_vocab);
        let alphabet = byte_alphabet();
        let spells: HashSet<char> = alphabet.iter().copied().collect();
        for (token, id) in &json.model.vocab.0 {
            slots.put(token, *id, TokenType::Normal)?;
        }
        let mut added = json.added_tokens;
        added.extend(from_config(tokenizer_config)?);
        added.extend(from_old_file(tokenizer_config, &added));
        added.extend(promoted(tokenizer_config, &added, &json.model.vocab));
        let mut by_content = HashMap::new();
        for token in &added {
            let marker = [markers::BEGIN, markers::END].contains(&token.content.as_str());
            // The markers are control tokens even where the checkpoint says otherwise: as text they would be
            // printed, and typed.
            let kind = if token.special || marker { TokenType::Control } else { TokenType::UserDefined };
            let id = slots.put(&token.content, token.id, kind)?;
            if token.content.len() > MAX_ADDED_BYTES {
                let (bytes, start) = (token.content.len(), quoted(&token.content));
                let what = format!("more than the {MAX_ADDED_BYTES} that an added token may have");
                return Err(bad(format!("token {id} {start} has {bytes} bytes, {what}")));
            }
            by_content.insert(token.content.clone(), id);
            let asks =
                [("lstrip", token.lstrip), ("rstrip", token.rstrip), ("single_word", token.single_word)];
            if let Some((flag, _)) = asks.iter().find(|(_, set)| *set) {
                let content = quoted(&token.content);
                let what = "which GGUF readers do not do: set it to false if no text needs it";
                return Err(bad(format!("token {id} {content} has {flag}, {what}")));
            }
        }
        let normalized = normalized(&added, &by_content, &slots);
        // Tokens that are not added are text, spelled in the 256 characters that stand for bytes.
        for (token, id) in &json.model.vocab.0 {
            if !by_content.contains_key(token) && !token.chars().all(|c| spells.contains(&c)) {
                let token = quoted(token);
                return Err(bad(format!("token {id} {token} is not spelled in the byte-level alphabet")));
            }
        }
        // Without its token a byte would be dropped here and abort the program there. Bytes that UTF-8 never
        // has do not matter.
        let known: HashSet<&str> = json.model.vocab.0.iter().map(|(t, _)| t.as_str()).collect();
        for (byte, c) in (0u8..=255).zip(&alphabet) {
            let in_text = !matches!(byte, 0xc0 | 0xc1 | 0xf5..);
            if in_text && !known.contains(c.encode_utf8(&mut [0; 4]) as &str) {
                return Err(bad(format!("byte {byte:#04x} has no token: {c:?} is not in the vocabulary")));
            }
        }
        let merges = merges(&json.model)?;
        let (tokens, types) = slots.finish()?;
        let unused = types.iter().filter(|t| **t == TokenType::Unused).count();
        if unused > 0 {
            notes.push(format!(
                "{unused} of {} rows have no token: named [PADn], never sampled",
                tokens.len()
            ));
        }
        Ok(Self { tokens, types, merges, normalized, notes, added: by_content })
    }

    /// The tokens that were added as a whole, with their ids.
    pub fn all_added(&self) -> impl Iterator<Item = (&str, u32)> {
        self.added.iter().map(|(content, id)| (content.as_str(), *id))
    }

    /// The id of a token that was added as a whole (control or user-defined), by its spelling.
    pub fn added(&self, content: &str) -> Option<u32> {
        self.added.get(content).copied()
    }

    /// The id of any token, by its spelling in the file.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.added(token).or_else(|| self.tokens.iter().position(|t| t == token).map(|i| i as u32))
    }

    /// The rows without a token, to be suppressed.
    pub fn unused(&self) -> Vec<i32> {
        let rows = self.types.iter().enumerate().filter(|(_, t)| **t == TokenType::Unused);
        rows.map(|(i, _)| i as i32).collect()
    }
}

/// One entry per row of the embedding.
struct Slots {
    rows: Vec<Option<(String, TokenType)>>,
}

impl Slots {
    fn new(n_vocab: u64) -> Self {
        Self { rows: vec![None; n_vocab as usize] }
    }

    fn put(&mut self, token: &str, id: u64, kind: TokenType) -> Result<u32, Error> {
        let n = self.rows.len();
        if token.is_empty() {
            return Err(bad(format!("token {id} is empty")));
        }
        let row = usize::try_from(id).ok().and_then(|id| self.rows.get_mut(id));
        let outside = || format!("token {} has id {id}, but the embedding has {n} rows", quoted(token));
        let row = row.ok_or_else(|| bad(outside()))?;
        match row {
            Some((other, _)) if other != token => {
                let (other, token) = (quoted(other), quoted(token));
                return Err(bad(format!("id {id} belongs to {other} and to {token}")));
            }
            _ => *row = Some((token.to_owned(), kind)),
        }
        Ok(id as u32)
    }

    /// Names the rows without a token and refuses a spelling that occurs twice: a duplicate aborts other
    /// readers.
    fn finish(self) -> Result<(Vec<String>, Vec<TokenType>), Error> {
        let filled = self.rows.into_iter().enumerate();
        let (tokens, types): (Vec<String>, Vec<TokenType>) =
            filled.map(|(id, row)| row.unwrap_or_else(|| (format!("[PAD{id}]"), TokenType::Unused))).unzip();
        let mut seen: HashMap<&str, usize> = HashMap::with_capacity(tokens.len());
        for (id, token) in tokens.iter().enumerate() {
            if let Some(first) = seen.insert(token, id) {
                return Err(bad(format!("token {} has two ids, {first} and {id}", quoted(token))));
            }
        }
        Ok((tokens, types))
    }
}

fn merges(model: &TokenizerModel) -> Result<Vec<String>, Error> {
    let known: HashSet<&str> = model.vocab.0.iter().map(|(t, _)| t.as_str()).collect();
    let mut joined = String::new();
    let mut ranks: HashMap<(&str, &str), usize> = HashMap::with_capacity(model.merges.len());
    let mut merges = Vec::with_capacity(model.merges.len());
    for (rank, merge) in model.merges.iter().enumerate() {
        let (a, b) = match merge {
            Merge::Pair((a, b)) => (a.as_str(), b.as_str()),
            Merge::Text(text) => {
                let whole = || bad(format!("merge {rank} {} has no space", quoted(text)));
                text.split_once(' ').ok_or_else(whole)?
            }
        };
        for part in [a, b] {
            // A space would be read back as the separator; the byte-level alphabet has none.
            if part.is_empty() || part.contains(' ') {
                return Err(bad(format!("merge {rank}: {} cannot be a token", quoted(part))));
            }
            if !known.contains(part) {
                return Err(bad(format!("merge {rank}: {} is no token", quoted(part))));
            }
        }
        joined.clear();
        joined.push_str(a);
        joined.push_str(b);
        if !known.contains(joined.as_str()) {
            let (a, b, joined) = (quoted(a), quoted(b), quoted(&joined));
            return Err(bad(format!("merge {rank}: {a} and {b} give {joined}, which is no token")));
        }
        // Some readers keep the first rank, some the last.
        if let Some(first) = ranks.insert((a, b), rank) {
            let (a, b) = (quoted(a), quoted(b));
            return Err(bad(format!("merge {rank}: {a} and {b} are merge {first} already")));
        }
        merges.push(format!("{a} {b}"));
    }
    Ok(merges)
}

/// Everything that changes ids must be what GGUF readers do for `gpt2` + `bloom`.
fn check_structure(json: &TokenizerJson, config: Option<&Value>) -> Result<(), Error> {
    let set = |v: &Value| !v.is_null();
    let no_steps =
        |v: &Value, steps: &str| v["type"] == "Sequence" && v[steps].as_array().is_some_and(Vec::is_empty);
    if set(&json.normalizer) && !no_steps(&json.normalizer, "normalizers") {
        let normalizer = shown_json(&json.normalizer);
        return Err(bad(format!("normalizer {normalizer} is not supported, expected none")));
    }
    check_pre_tokenizer(&json.pre_tokenizer)?;
    if !adds_nothing(&json.post_processor) {
        return Err(bad(format!(
            "post_processor {} adds tokens to texts, which BLOOM does not do: expected ByteLevel or none",
            shown_json(&json.post_processor["type"])
        )));
    }
    let m = &json.model;
    if m.dropout.is_some_and(|d| d != 0.0) {
        return Err(bad("model.dropout is set: ids would be random".into()));
    }
    if m.byte_fallback {
        return Err(bad("model.byte_fallback is set, which byte-level BPE does not need".into()));
    }
    if m.ignore_merges {
        return Err(bad("model.ignore_merges is set, which BLOOM's readers do not do".into()));
    }
    for (key, text) in [
        ("continuing_subword_prefix", &m.continuing_subword_prefix),
        ("end_of_word_suffix", &m.end_of_word_suffix),
    ] {
        if text.as_deref().is_some_and(|t| !t.is_empty()) {
            return Err(bad(format!("model.{key} is set, which is not byte-level BPE")));
        }
    }
    if config.is_some_and(|c| c["add_prefix_space"] == true) {
        return Err(Error::Vocabulary {
            file: "tokenizer_config.json",
            what: "add_prefix_space is true, which GGUF readers do not do".into(),
        });
    }
    Ok(())
}

/// Whether a post-processor leaves the ids as they are: none, one that changes offsets only, a template of
/// nothing but the text, or a sequence of such.
fn adds_nothing(post: &Value) -> bool {
    match post["type"].as_str() {
        None => post.is_null(),
        Some("ByteLevel") => true,
        Some("Sequence") => post["processors"].as_array().is_some_and(|all| all.iter().all(adds_nothing)),
        Some("TemplateProcessing") => {
            let single = post["single"].as_array().map(Vec::as_slice);
            matches!(single, Some([one]) if one.get("Sequence").is_some())
        }
        Some(_) => false,
    }
}

/// Which tokenizers have a type of model; with the comma in front.
fn known_model(kind: &str) -> &'static str {
    match kind {
        "Unigram" => ", a SentencePiece tokenizer as T5 and XLM-R have it",
        "WordPiece" => ", the tokenizer of BERT",
        "WordLevel" => ", a tokenizer of whole words",
        _ => "",
    }
}

fn check_pre_tokenizer(pre: &Value) -> Result<(), Error> {
    let fail = |what: String| bad(format!("pre_tokenizer is not BLOOM's (Split, then ByteLevel): {what}"));
    if pre["type"] == "ByteLevel" {
        let whose = "that of GPT-2, which FLOR has too: this program has the tokenizer of BLOOM only; use a \
             program with that tokenizer, e.g. llama.cpp";
        return Err(fail(format!("ByteLevel alone is {whose}")));
    }
    if pre["type"] != "Sequence" {
        return Err(fail(format!("type {}", shown_json(&pre["type"]))));
    }
    let steps = pre["pretokenizers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let [split, bytes] = steps else { return Err(fail(format!("{} steps", steps.len()))) };
    if split["type"] != "Split" || bytes["type"] != "ByteLevel" {
        return Err(fail(format!("{} and {}", shown_json(&split["type"]), shown_json(&bytes["type"]))));
    }
    if !SPLITS.iter().any(|same| split["pattern"]["Regex"] == *same) {
        return Err(fail(format!("pattern {}", shown_json(&split["pattern"]))));
    }
    if split["behavior"] != "Isolated" || split["invert"] == true {
        let (behavior, invert) = (shown_json(&split["behavior"]), shown_json(&split["invert"]));
        return Err(fail(format!("behavior {behavior}, invert {invert}")));
    }
    // Both default to true when absent.
    if bytes["add_prefix_space"] != false || bytes["use_regex"] != false {
        let (prefix, regex) = (shown_json(&bytes["add_prefix_space"]), shown_json(&bytes["use_regex"]));
        return Err(fail(format!("add_prefix_space {prefix}, use_regex {regex}")));
    }
    Ok(())
}

/// Tokens of the vocabulary that the configuration names as special ones although they were not added:
/// transformers adds them. One of a single character stays text: its byte has no other token.
fn promoted(config: Option<&Value>, added: &[AddedToken], vocab: &VocabularyEntries) -> Vec<AddedToken> {
    let mut names = special_names(config);
    names.retain(|name| name.chars().nth(1).is_some() && added.iter().all(|token| token.content != *name));
    if names.is_empty() {
        return Vec::new();
    }
    let found = vocab.0.iter().filter(|(token, _)| names.contains(&token.as_str()));
    found.map(|(token, id)| AddedToken { special: true, ..AddedToken::new(token, *id) }).collect()
}

/// `added_tokens.json`, `{"<token>": id}`: tokens that are not in other files. See [`with_old_files`].
fn from_old_file(config: Option<&Value>, added: &[AddedToken]) -> Vec<AddedToken> {
    let Some(Value::Object(map)) = config.map(|c| &c[ADDED_TOKENS]) else { return Vec::new() };
    let special = special_names(config);
    let ids = map.iter().filter_map(|(content, id)| Some((content, id.as_u64()?)));
    let new = ids.filter(|(content, _)| added.iter().all(|token| token.content != **content));
    new.map(|(content, id)| AddedToken {
        special: special.contains(&content.as_str()),
        ..AddedToken::new(content, id)
    })
    .collect()
}

/// Longer added tokens are refused by what runs the file.
const MAX_ADDED_BYTES: usize = 4096;

/// The file of older checkpoints with added tokens.
pub(crate) const ADDED_TOKENS: &str = "added_tokens.json";

/// `tokenizer_config.json` with what older checkpoints have in `special_tokens_map.json` (which wins) and in
/// `added_tokens.json`; transformers reads these two only where the configuration has no
/// `added_tokens_decoder`.
pub(crate) fn with_old_files(
    config: Option<Value>,
    map: Option<Value>,
    added: Option<Value>,
) -> Option<Value> {
    let (map, added) = (map.filter(Value::is_object), added.filter(Value::is_object));
    if map.is_none() && added.is_none() {
        return config;
    }
    let mut all = match config {
        Some(Value::Object(all)) => all,
        _ => serde_json::Map::new(),
    };
    if let Some(Value::Object(map)) = map {
        all.extend(map);
    }
    all.extend(added.map(|added| (ADDED_TOKENS.to_owned(), added)));
    Some(Value::Object(all))
}

/// What `tokenizer_config.json` names as special tokens.
pub(crate) fn special_names(config: Option<&Value>) -> Vec<&str> {
    let mut names = Vec::new();
    let Some(config) = config else { return names };
    fn text(token: &Value) -> Option<&str> {
        token.as_str().or_else(|| token["content"].as_str())
    }
    for key in ["bos", "eos", "unk", "sep", "pad", "cls", "mask"] {
        names.extend(config.get(format!("{key}_token")).and_then(text));
    }
    for key in ["additional_special_tokens", "extra_special_tokens"] {
        match config.get(key) {
            Some(Value::Array(list)) => names.extend(list.iter().filter_map(text)),
            Some(Value::Object(map)) => names.extend(map.values().filter_map(text)),
            _ => {}
        }
    }
    names
}

/// The ids of the normalized tokens, unless they are just those that are text.
fn normalized(added: &[AddedToken], ids: &HashMap<String, u32>, slots: &Slots) -> Option<Vec<u32>> {
    let is_text = |id: u32| matches!(slots.rows[id as usize], Some((_, TokenType::UserDefined)));
    // A later entry for one token replaces an earlier one.
    let mut normalized: HashMap<u32, bool> = HashMap::new();
    for token in added {
        normalized.insert(ids[&token.content], token.normalized.unwrap_or(!token.special));
    }
    if normalized.iter().all(|(id, normalized)| *normalized == is_text(*id)) {
        return None;
    }
    let mut list: Vec<u32> = normalized.into_iter().filter(|(_, yes)| *yes).map(|(id, _)| id).collect();
    list.sort_unstable();
    Some(list)
}

/// The printable characters that stand for the 256 bytes, by byte: printable Latin-1 for itself, the rest
/// from U+0100 on.
fn byte_alphabet() -> Vec<char> {
    let itself = |b: u8| matches!(b, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let mut others = '\u{100}'..;
    (0..=255u8).map(|b| if itself(b) { b.into() } else { others.next().expect("there are 68") }).collect()
}

/// `added_tokens_decoder` of `tokenizer_config.json`: `{"250681": {"content": ..., "special": ...}}`.
fn from_config(config: Option<&Value>) -> Result<Vec<AddedToken>, Error> {
    let Some(Value::Object(map)) = config.map(|c| &c["added_tokens_decoder"]) else { return Ok(Vec::new()) };
    let bad = |what: String| Error::Vocabulary { file: "tokenizer_config.json", what };
    let one = |(id, token): (&String, &Value)| {
        let id: u64 =
            id.parse().map_err(|_| bad(format!("added_tokens_decoder: {} is no id", quoted(id))))?;
        let content = token["content"]
            .as_str()
            .ok_or_else(|| bad(format!("added_tokens_decoder: {id} has no content")))?;
        let flag = |key: &str| token[key] == true;
        Ok(AddedToken {
            special: flag("special"),
            normalized: token["normalized"].as_bool(),
            lstrip: flag("lstrip"),
            rstrip: flag("rstrip"),
            single_word: flag("single_word"),
            ..AddedToken::new(content, id)
        })
    };
    map.iter().map(one).collect()
}

fn parse<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, Error> {
    serde_json::from_slice(text).map_err(|e| bad(shown(&e.to_string())))
}

fn bad(what: String) -> Error {
    Error::Vocabulary { file: "tokenizer.json", what }
}

#[derive(Deserialize)]
struct ModelHeader {
    model: ModelType,
}

#[derive(Deserialize)]
struct ModelType {
    /// Absent in old files; those are BPE if the rest parses.
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(rename = "vocab")]
    _vocab: IgnoredAny,
}

#[derive(Deserialize)]
struct TokenizerJson {
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    post_processor: Value,
    model: TokenizerModel,
}

#[derive(Deserialize)]
struct AddedToken {
    id: u64,
    content: String,
    #[serde(default)]
    special: bool,
    /// Absent: only if it is not special.
    normalized: Option<bool>,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    single_word: bool,
}

impl AddedToken {
    fn new(content: &str, id: u64) -> Self {
        let (content, normalized) = (content.to_owned(), None);
        Self { id, content, special: false, normalized, lstrip: false, rstrip: false, single_word: false }
    }
}

#[derive(Deserialize)]
struct TokenizerModel {
    dropout: Option<f64>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
    vocab: VocabularyEntries,
    merges: Vec<Merge>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Pair((String, String)),
    Text(String),
}

/// A JSON object in its written order: a map type would hide a duplicate key.
struct VocabularyEntries(Vec<(String, u64)>);

impl<'de> Deserialize<'de> for VocabularyEntries {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = VocabularyEntries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tokens and ids")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<VocabularyEntries, A::Error> {
                let mut pairs = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    pairs.push(entry);
                }
                Ok(VocabularyEntries(pairs))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}
