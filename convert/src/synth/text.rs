//! The texts beside the weights: `config.json`, the tokenizer, a card that says what this is.

use huozi_quant::bloom::shape::Shape;
use huozi_quant::bloom::synth::{self, SyntheticVocabulary};
use huozi_token::markers;
use serde_json::{Map, Value, json};

use crate::error::Error;
use crate::vocab::SPLIT;

/// Huozi's markers: the last tokens, as a fine-tuned model adds them.
pub(super) const MARKERS: [&str; 2] = [markers::BEGIN, markers::END];
/// Rows of the real embedding that have no token.
const UNUSED: usize = 198;

const CARD: &str = "\
# Random weights

A checkpoint of a BLOOM's shape, made by `huozi-convert make-checkpoint` to try programs and to measure them.
Its text is meaningless.
";

/// Names and contents.
pub(super) fn files(shape: &Shape) -> Result<Vec<(&'static str, Vec<u8>)>, Error> {
    Ok(vec![
        ("README.md", CARD.into()),
        ("config.json", config(shape)),
        ("tokenizer_config.json", tokenizer_config()),
        ("tokenizer.json", tokenizer(shape.n_vocab)?),
    ])
}

pub(super) fn pretty(value: &Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}

/// The keys of a published `config.json`.
fn config(shape: &Shape) -> Vec<u8> {
    pretty(&json!({
        "apply_residual_connection_post_layernorm": false,
        "architectures": ["BloomForCausalLM"],
        "attention_dropout": 0.0,
        "attention_softmax_in_fp32": true,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_dropout": 0.0,
        "hidden_size": shape.n_embd,
        "initializer_range": 0.02,
        "layer_norm_epsilon": 1e-5,
        "model_type": "bloom",
        "n_head": shape.n_head,
        "n_layer": shape.n_layer,
        "pad_token_id": 3,
        "seq_length": shape.n_ctx_train,
        "tie_word_embeddings": true,
        "torch_dtype": "float16",
        "unk_token_id": 0,
        "use_cache": true,
        "vocab_size": shape.n_vocab,
    }))
}

fn tokenizer_config() -> Vec<u8> {
    pretty(&json!({
        "tokenizer_class": "BloomTokenizerFast",
        "unk_token": "<unk>",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "padding_side": "left",
    }))
}

/// BLOOM's pipeline over a synthetic vocabulary, the markers behind it, then rows without a token as in the
/// real one.
fn tokenizer(n_vocab: usize) -> Result<Vec<u8>, Error> {
    let unused = (n_vocab / 1000).min(UNUSED);
    let words = n_vocab - unused - MARKERS.len();
    let SyntheticVocabulary { tokens, merges, .. } = SyntheticVocabulary::new(words).ok_or_else(|| {
        let error = synth::Error::Vocabulary { n_vocab: words };
        Error::Usage(error.to_string())
    })?;
    let added = |(id, content): (usize, &str)| {
        json!({
            "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true,
        })
    };
    let special = tokens.iter().take(4).map(String::as_str).enumerate();
    let markers = MARKERS.into_iter().enumerate().map(|(i, marker)| (words + i, marker));
    let added: Vec<Value> = special.chain(markers).map(added).collect();
    let vocab: Map<String, Value> = tokens.into_iter().zip(0..).map(|(t, id)| (t, json!(id))).collect();
    let bytes =
        json!({ "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true });
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": { "type": "Sequence", "pretokenizers": [
            { "type": "Split", "pattern": { "Regex": SPLIT }, "behavior": "Isolated", "invert": false },
            { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false },
        ] },
        "post_processor": bytes,
        "decoder": bytes,
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "vocab": vocab,
            "merges": merges,
        },
    })
    .to_string()
    .into_bytes())
}
