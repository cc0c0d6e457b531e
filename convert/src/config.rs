//! `config.json` in all its spellings, or the `bloom.*` keys of a GGUF file -> [`Config`].

use serde_json::{Map, Value};

use huozi_quant::bloom::shape::{DEFAULT_CTX_TRAIN, Shape};
use huozi_quant::gguf::Meta;

use crate::error::Error;
use crate::source::{quoted, shown, shown_json};

/// The trained context when `seq_length` is absent: every published BLOOM, and Huozi.
const DEFAULT_CONTEXT: u64 = DEFAULT_CTX_TRAIN as u64;

const TOKENS: &str = "tokenizer.ggml.tokens";

/// The hyperparameters of a BLOOM, checked: sizes are positive and divide as they must.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Rows of the embedding, padding included.
    pub n_vocab: u64,
    /// Hidden size.
    pub n_embd: u64,
    /// Layers.
    pub n_layer: u64,
    /// Attention heads.
    pub n_head: u64,
    /// Context the model was trained with, in tokens.
    pub n_ctx: u64,
    /// Epsilon of every LayerNorm.
    pub eps: f32,
    /// `tie_word_embeddings` as written; `None` when it is absent.
    pub tied: Option<bool>,
    /// `_name_or_path`, or `general.name`.
    pub name: Option<String>,
}

impl Config {
    /// Width of one head.
    pub fn head_dim(&self) -> u64 {
        self.n_embd / self.n_head
    }

    /// Width of the MLP.
    pub fn n_ff(&self) -> u64 {
        4 * self.n_embd
    }

    /// The sizes alone.
    pub fn shape(&self) -> Shape {
        // Capped far below 2^32 by `check`.
        let n = |value: u64| value as usize;
        Shape {
            n_vocab: n(self.n_vocab),
            n_embd: n(self.n_embd),
            n_layer: n(self.n_layer),
            n_head: n(self.n_head),
            n_ff: n(self.n_ff()),
            n_ctx_train: n(self.n_ctx),
        }
    }

    /// Reads the text of a `config.json`.
    ///
    /// # Errors
    /// Not a BLOOM, a missing or contradicting key, or sizes that do not fit each other.
    pub fn from_json(text: &[u8]) -> Result<Self, Error> {
        let json: Value = serde_json::from_slice(text).map_err(|e| bad(format!("not JSON: {e}")))?;
        let Value::Object(json) = json else { return Err(bad("not a JSON object".into())) };
        check_architecture(&json)?;
        if json.get("apply_residual_connection_post_layernorm") == Some(&Value::Bool(true)) {
            let what = "apply_residual_connection_post_layernorm is true: this variant of BLOOM \
                        (residual after the norm) is not supported";
            return Err(bad(what.into()));
        }
        let n_embd =
            one_of(&json, &["hidden_size", "n_embed", "n_embd"])?.ok_or_else(|| missing("hidden_size"))?;
        if let Some(inner) = one_of(&json, &["n_inner"])?
            && Some(inner) != n_embd.checked_mul(4)
        {
            return Err(bad(format!("n_inner is {inner}, but BLOOM's MLP is 4 x {n_embd} wide")));
        }
        let eps = match json.get("layer_norm_epsilon") {
            None | Some(Value::Null) => 1e-5,
            Some(v) => {
                let what = || format!("layer_norm_epsilon is {}, not a number", shown_json(v));
                v.as_f64().ok_or_else(|| bad(what()))?
            }
        };
        let tied = match json.get("tie_word_embeddings") {
            None | Some(Value::Null) => None,
            Some(Value::Bool(b)) => Some(*b),
            Some(v) => {
                return Err(bad(format!("tie_word_embeddings is {}, not true or false", shown_json(v))));
            }
        };
        let config = Self {
            n_vocab: one_of(&json, &["vocab_size"])?.ok_or_else(|| missing("vocab_size"))?,
            n_embd,
            n_layer: one_of(&json, &["n_layer", "num_hidden_layers"])?.ok_or_else(|| missing("n_layer"))?,
            n_head: one_of(&json, &["n_head", "num_attention_heads"])?.ok_or_else(|| missing("n_head"))?,
            n_ctx: one_of(&json, &["seq_length"])?.unwrap_or(DEFAULT_CONTEXT),
            eps: eps as f32,
            tied,
            name: json.get("_name_or_path").and_then(Value::as_str).map(str::to_owned),
        };
        config.check().map_err(bad)?;
        Ok(config)
    }

    /// Reads the metadata of a GGUF file; `file` is its name for messages.
    ///
    /// # Errors
    /// As [`from_json`](Self::from_json). The number of tokens stands for the vocabulary size.
    pub fn from_gguf(file: &str, meta: Meta<'_>) -> Result<Self, Error> {
        let bad = |what: String| Error::Config { file: file.to_owned(), what };
        // These errors name file and key themselves.
        let broken = |e: huozi_quant::gguf::Error| Error::Source(e.into());
        let shape = Shape::from_meta(meta).map_err(broken)?;
        // A shape does not need it, a copy of the metadata does.
        if meta.strings(TOKENS).map_err(broken)?.is_none() {
            return Err(broken(meta.missing(TOKENS, "the vocabulary")));
        }
        let eps = meta.float("bloom.attention.layer_norm_epsilon").map_err(broken)?;
        let config = Self {
            n_vocab: shape.n_vocab as u64,
            n_embd: shape.n_embd as u64,
            n_layer: shape.n_layer as u64,
            n_head: shape.n_head as u64,
            n_ctx: shape.n_ctx_train as u64,
            eps: eps.unwrap_or(1e-5) as f32,
            tied: None,
            name: meta.str("general.name").map_err(broken)?.map(str::to_owned),
        };
        if shape.n_ff as u64 != config.n_ff() {
            let key = "bloom.feed_forward_length";
            return Err(broken(meta.refuse(key, format!("4 x {}", shape.n_embd), shape.n_ff.to_string())));
        }
        config.check().map_err(bad)?;
        Ok(config)
    }

    /// The configuration of a checkpoint of this shape.
    pub(crate) fn of(shape: &Shape) -> Self {
        let n = |size: usize| size as u64;
        Self {
            n_vocab: n(shape.n_vocab),
            n_embd: n(shape.n_embd),
            n_layer: n(shape.n_layer),
            n_head: n(shape.n_head),
            n_ctx: n(shape.n_ctx_train),
            eps: 1e-5,
            tied: Some(true),
            name: None,
        }
    }

    /// Checks that a model can have these sizes; `Err`: the reason.
    pub(crate) fn check(&self) -> Result<(), String> {
        // Far above any BLOOM, far below where a product of three of them leaves u64.
        let caps = [
            // One entry of the vocabulary per row is allocated before anything else bounds their number.
            ("vocab_size", self.n_vocab, 1 << 20),
            ("hidden_size", self.n_embd, 1 << 18),
            ("n_layer", self.n_layer, 1 << 12),
            ("n_head", self.n_head, 1 << 12),
            ("seq_length", self.n_ctx, 1 << 24),
        ];
        for (key, value, cap) in caps {
            if value == 0 || value > cap {
                return Err(format!("{key} is {value}, expected 1 to {cap}"));
            }
        }
        if !self.n_embd.is_multiple_of(self.n_head) {
            return Err(format!("hidden_size {} is not a multiple of n_head {}", self.n_embd, self.n_head));
        }
        if !(self.eps.is_finite() && self.eps > 0.0) {
            return Err(format!("layer_norm_epsilon is {}", self.eps));
        }
        Ok(())
    }
}

fn check_architecture(json: &Map<String, Value>) -> Result<(), Error> {
    let model_type = json.get("model_type").and_then(Value::as_str);
    let classes: Vec<&str> = match json.get("architectures") {
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    match model_type {
        Some("bloom") => Ok(()),
        Some(other) => Err(bad(format!("model_type is {}, expected bloom", quoted(other)))),
        None if classes.iter().any(|c| c.starts_with("Bloom")) => Ok(()),
        None if classes.is_empty() => Err(bad("names no model: neither model_type nor architectures".into())),
        None => Err(bad(format!("architectures is {}, expected Bloom...", shown(&classes.join(", "))))),
    }
}

/// The value under any of the spellings of a key; several present ones must agree.
fn one_of(json: &Map<String, Value>, keys: &[&str]) -> Result<Option<u64>, Error> {
    let mut found: Option<(&str, u64)> = None;
    for key in keys {
        let value = match json.get(*key) {
            None | Some(Value::Null) => continue,
            Some(v) => {
                let what = || format!("{key} is {}, not a whole number", shown_json(v));
                v.as_u64().ok_or_else(|| bad(what()))?
            }
        };
        match found {
            Some((other, v)) if v != value => {
                return Err(bad(format!("{other} is {v}, but {key} is {value}")));
            }
            _ => found = Some((key, value)),
        }
    }
    Ok(found.map(|(_, v)| v))
}

fn bad(what: String) -> Error {
    Error::Config { file: "config.json".into(), what }
}

fn missing(key: &str) -> Error {
    bad(format!("{key} is missing"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Config, String> {
        Config::from_json(json.as_bytes()).map_err(|e| e.to_string())
    }

    #[test]
    fn all_spellings() {
        let new = read(
            r#"{"model_type":"bloom","hidden_size":64,"n_head":4,"n_layer":2,"vocab_size":1024,
                "layer_norm_epsilon":1e-6}"#,
        )
        .unwrap();
        assert_eq!((new.n_embd, new.n_head, new.n_layer, new.n_vocab, new.n_ctx), (64, 4, 2, 1024, 2048));
        assert_eq!((new.eps, new.tied, new.head_dim(), new.n_ff()), (1e-6, None, 16, 256));
        let old = read(
            r#"{"architectures":["BloomModel"],"n_embed":64,"num_attention_heads":4,"num_hidden_layers":2,
                "vocab_size":1024,"seq_length":1024,"n_inner":null,"tie_word_embeddings":false}"#,
        )
        .unwrap();
        assert_eq!(
            (old.n_embd, old.n_head, old.n_layer, old.n_ctx, old.eps, old.tied),
            (64, 4, 2, 1024, 1e-5, Some(false))
        );
    }

    #[test]
    fn refusals_name_the_reason() {
        let base = r#""hidden_size":64,"n_head":4,"n_layer":2,"vocab_size":1024"#;
        let cases = [
            (format!(r#"{{"model_type":"llama",{base}}}"#), "llama"),
            (format!(r#"{{"architectures":["GPT2LMHeadModel"],{base}}}"#), "GPT2LMHeadModel"),
            (format!("{{{base}}}"), "names no model"),
            (
                format!(r#"{{"model_type":"bloom","apply_residual_connection_post_layernorm":true,{base}}}"#),
                "post_layernorm",
            ),
            (format!(r#"{{"model_type":"bloom","n_embed":65,{base}}}"#), "n_embed is 65"),
            (format!(r#"{{"model_type":"bloom","n_inner":65,{base}}}"#), "n_inner"),
            (
                r#"{"model_type":"bloom","hidden_size":64,"n_head":5,"n_layer":2,"vocab_size":9}"#.into(),
                "multiple of n_head",
            ),
            (
                r#"{"model_type":"bloom","hidden_size":64,"n_head":0,"n_layer":2,"vocab_size":9}"#.into(),
                "n_head is 0",
            ),
            (
                r#"{"model_type":"bloom","hidden_size":-64,"n_head":4,"n_layer":2,"vocab_size":9}"#.into(),
                "not a whole number",
            ),
            (
                r#"{"model_type":"bloom","n_head":4,"n_layer":2,"vocab_size":9}"#.into(),
                "hidden_size is missing",
            ),
            (format!(r#"{{"model_type":"bloom","layer_norm_epsilon":0,{base}}}"#), "epsilon"),
            (
                r#"{"model_type":"bloom","hidden_size":64,"n_head":4,"n_layer":99999999999,"vocab_size":9}"#
                    .into(),
                "n_layer",
            ),
            (
                r#"{"model_type":"bloom","hidden_size":64,"n_head":4,"n_layer":2,"vocab_size":1048577}"#
                    .into(),
                "vocab_size is 1048577, expected 1 to 1048576",
            ),
            (format!("{{\"model_type\":\"\\u001b[2J\u{9b}{}\",{base}}}", "x".repeat(9999)), "model_type is"),
            (
                format!("{{\"architectures\":[\"\\u001b[2J\u{202e}{}\"],{base}}}", "x".repeat(9999)),
                "architectures is",
            ),
            (
                format!("{{\"model_type\":\"bloom\",\"hidden_size\":\"\\u001b\u{9b}{}\"}}", "x".repeat(9999)),
                "hidden_size is",
            ),
            ("[]".into(), "not a JSON object"),
            ("{".into(), "not JSON"),
        ];
        for (json, part) in cases {
            let error = read(&json).unwrap_err();
            assert!(error.contains(part), "{json}: {error}");
            let tame = |c: char| !c.is_control() && c != '\u{202e}';
            assert!(error.chars().all(tame) && error.len() < 300, "{error}");
        }
    }
}
