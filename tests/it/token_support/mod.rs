//! Tokenizers of the fixtures, ours and that of the `tokenizers` crate, as files and in parts.
//! The test file also has `mod common`.
#![allow(dead_code)] // each test file uses its part

use crate::common::{checkpoint, model};
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use huozi_convert::pipeline;
use huozi_convert::plan::Preset;
use huozi_convert::{Options, Source};
use huozi_quant::gguf::Reader;
use huozi_quant::map::How;
use huozi_token::{Tokenizer, VocabularyParts};
use serde_json::Value;

pub const NANO: &str = "nano";

/// A vocabulary that owns its strings.
#[derive(Clone, Default)]
pub struct Owned {
    pub tokens: Vec<String>,
    pub types: Vec<i64>,
    pub merges: Vec<String>,
    pub special: HashMap<&'static str, u64>,
    pub suppress: Vec<i64>,
}

impl Owned {
    /// Of a `tokenizer.json`, padded to `n_vocab` rows.
    pub fn from_json(json: &Value, n_vocab: usize) -> Self {
        let mut tokens: Vec<Option<String>> = vec![None; n_vocab];
        let mut types = vec![1i64; n_vocab];
        for (text, id) in json["model"]["vocab"].as_object().unwrap() {
            tokens[id.as_u64().unwrap() as usize] = Some(text.clone());
        }
        for added in json["added_tokens"].as_array().unwrap() {
            let id = added["id"].as_u64().unwrap() as usize;
            tokens[id] = Some(added["content"].as_str().unwrap().to_owned());
            types[id] = if added["special"].as_bool().unwrap() { 3 } else { 4 };
        }
        let mut suppress = Vec::new();
        let tokens: Vec<String> = tokens
            .into_iter()
            .enumerate()
            .map(|(id, t)| {
                t.unwrap_or_else(|| {
                    types[id] = 5;
                    suppress.push(id as i64);
                    format!("[PAD{id}]")
                })
            })
            .collect();
        let merges = json["model"]["merges"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| match m {
                Value::String(s) => s.clone(),
                pair => format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap()),
            })
            .collect();
        let mut special = HashMap::new();
        for (name, text) in [
            ("bos", "<s>"),
            ("eos", "</s>"),
            ("unk", "<unk>"),
            ("pad", "<pad>"),
            ("eot", "<|endofutterance|>"),
        ] {
            if let Some(id) = tokens.iter().position(|t| t == text) {
                special.insert(name, id as u64);
            }
        }
        Self { tokens, types, merges, special, suppress }
    }

    pub fn parts(&self) -> VocabularyParts<'_> {
        VocabularyParts {
            tokens: self.tokens.iter().map(String::as_str).collect(),
            types: self.types.clone(),
            merges: self.merges.iter().map(String::as_str).collect(),
            suppress: self.suppress.clone(),
            bos: self.special.get("bos").copied(),
            eos: self.special.get("eos").copied(),
            eot: self.special.get("eot").copied(),
            unk: self.special.get("unk").copied(),
            pad: self.special.get("pad").copied(),
            ..VocabularyParts::default()
        }
    }

    pub fn tokenizer(&self) -> Tokenizer {
        Tokenizer::from_parts(&self.parts()).unwrap()
    }
}

/// The `tokenizer.json` of a checkpoint.
pub fn json(name: &str) -> Value {
    let text = std::fs::read_to_string(checkpoint(name).join("tokenizer.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// A checkpoint's vocabulary, to be changed.
pub fn owned(name: &str) -> Owned {
    Owned::from_json(&json(name), if name == NANO { 6144 } else { 1024 })
}

/// Ours, from the GGUF file that the converter makes of the checkpoint.
pub fn ours(name: &str) -> Tokenizer {
    of_file(&model(name, Preset::F16))
}

/// Ours, from the GGUF file that the converter makes of the checkpoint with another `tokenizer.json`.
pub fn converted(name: &str, json: &Value) -> Tokenizer {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(checkpoint(name)).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    std::fs::write(folder.path().join("tokenizer.json"), json.to_string()).unwrap();
    let out = folder.path().join("out.gguf");
    let options = Options::new(Source::Path(folder.path().to_owned()), Preset::F16, &out);
    pipeline::run(&options, &(), &AtomicBool::new(false)).expect("converts");
    of_file(&out)
}

fn of_file(path: &Path) -> Tokenizer {
    Tokenizer::from_gguf(Reader::open(path, How::Read).unwrap().meta()).unwrap()
}

/// The same with the `tokenizers` crate; `plain` = control tokens are text.
pub fn theirs(json: &Value, plain: bool) -> tokenizers::Tokenizer {
    let mut t: tokenizers::Tokenizer = json.to_string().parse().unwrap();
    t.set_encode_special_tokens(plain);
    t
}

/// A fixture's tokenizer with more added tokens: overlapping ones, special and not.
pub fn with_added_tokens(dir: &str) -> Value {
    let mut json = json(dir);
    let added = [
        ("<|begin", true),
        ("of|>", true),
        ("<|x|>", true),
        ("<|x|>y", true),
        ("<tool>", false),
        ("<|user|>", false),
        ("你好", false),
        (" 的", false),
        ("的。", false),
        ("s>", false),
        ("\n\n", false),
    ];
    for (id, (content, special)) in (1002u64..).zip(added) {
        let token = serde_json::json!({"id": id, "content": content, "single_word": false,
            "lstrip": false, "rstrip": false, "normalized": !special, "special": special});
        json["added_tokens"].as_array_mut().unwrap().push(token);
    }
    json
}
