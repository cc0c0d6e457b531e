//! The metadata of the file to be written: from a checkpoint's files, or copied from a GGUF source.

use huozi_quant::gguf::{Meta, MetaValue};

use crate::chat::Chat;
use crate::config::Config;
use crate::plan::Preset;
use crate::vocab::Vocabulary;

/// What a person may set by hand.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Given<'a> {
    pub name: Option<&'a str>,
    pub n_ctx: Option<u64>,
}

const FILE_TYPE: &str = "general.file_type";

/// Metadata for a checkpoint; `params`: weights of the model, padding rows included. `general.file_type` is that of
/// `preset`.
pub(crate) fn from_checkpoint(
    config: &Config,
    vocab: Vocabulary,
    chat: &Chat,
    name: &str,
    params: u64,
    preset: Preset,
) -> Vec<(String, MetaValue)> {
    use MetaValue::{Bool, F32, I32, I32s, Str, Strings, U32};
    let mut meta: Vec<(String, MetaValue)> = Vec::new();
    let mut put = |key: &str, value: MetaValue| meta.push((key.to_owned(), value));
    // Sizes are capped far below 2^32 by `Config`.
    let n = |value: u64| U32(value as u32);

    put("general.architecture", Str("bloom".into()));
    put("general.type", Str("model".into()));
    put("general.name", Str(name.into()));
    put("general.size_label", Str(size_label(params)));
    put(FILE_TYPE, U32(preset.file_type()));
    put("general.quantization_version", U32(2));
    if let Some(s) = chat.sampling {
        put("general.sampling.top_k", I32(s.top_k));
        put("general.sampling.top_p", F32(s.top_p));
        put("general.sampling.temp", F32(s.temp));
        // Not in the demo; llama.cpp's own default is 0.05.
        put("general.sampling.min_p", F32(0.0));
        put("general.sampling.penalty_repeat", F32(s.penalty_repeat));
        // The whole context. llama.cpp has no sign for that any more: it clamps a negative number to 0, which is off.
        put("general.sampling.penalty_last_n", I32(config.n_ctx as i32));
    }

    put("bloom.context_length", n(config.n_ctx));
    put("bloom.embedding_length", n(config.n_embd));
    put("bloom.feed_forward_length", n(config.n_ff()));
    put("bloom.block_count", n(config.n_layer));
    put("bloom.attention.head_count", n(config.n_head));
    put("bloom.attention.head_count_kv", n(config.n_head));
    put("bloom.attention.layer_norm_epsilon", F32(config.eps));

    let suppress = vocab.unused();
    put("tokenizer.ggml.model", Str("gpt2".into()));
    put("tokenizer.ggml.pre", Str("bloom".into()));
    put("tokenizer.ggml.tokens", Strings(vocab.tokens));
    put("tokenizer.ggml.token_type", I32s(vocab.types.into_iter().map(|t| t as i32).collect()));
    put("tokenizer.ggml.merges", Strings(vocab.merges));
    let ids = [
        ("bos", chat.bos),
        ("eos", chat.eos),
        ("eot", chat.eot),
        ("unknown", chat.unk),
        ("padding", chat.pad),
    ];
    for (key, id) in ids {
        if let Some(id) = id {
            put(&format!("tokenizer.ggml.{key}_token_id"), U32(id));
        }
    }
    put("tokenizer.ggml.add_bos_token", Bool(false));
    if !suppress.is_empty() {
        put("tokenizer.ggml.suppress_tokens", I32s(suppress));
    }
    if let Some(template) = &chat.template {
        put("tokenizer.chat_template", Str(template.clone()));
    }
    meta
}

/// Metadata of a GGUF source, all but what the new file makes untrue.
pub(crate) fn from_gguf(source: Meta<'_>, given: Given<'_>, preset: Preset) -> Vec<(String, MetaValue)> {
    let stale = |key: &str| {
        key == "general.alignment"
            || key == "huozi.tensor_sha256"
            || key.starts_with("split.")
            || key.starts_with("quantize.imatrix.")
    };
    let mut meta: Vec<(String, MetaValue)> = source
        .iter()
        .filter(|(key, _)| !stale(key))
        .map(|(key, value)| (key.to_owned(), value.into()))
        .collect();
    set(&mut meta, FILE_TYPE, MetaValue::U32(preset.file_type()));
    set(&mut meta, "general.quantization_version", MetaValue::U32(2));
    if let Some(name) = given.name {
        set(&mut meta, "general.name", MetaValue::Str(name.into()));
    }
    if let Some(n_ctx) = given.n_ctx {
        set(&mut meta, "bloom.context_length", MetaValue::U32(n_ctx as u32));
    }
    meta
}

/// The same metadata for another type.
pub(crate) fn for_preset(meta: &[(String, MetaValue)], preset: Preset) -> Vec<(String, MetaValue)> {
    let mut meta = meta.to_vec();
    set(&mut meta, FILE_TYPE, MetaValue::U32(preset.file_type()));
    meta
}

fn set(meta: &mut Vec<(String, MetaValue)>, key: &str, value: MetaValue) {
    match meta.iter_mut().find(|(k, _)| k == key) {
        Some((_, old)) => *old = value,
        None => meta.push((key.to_owned(), value)),
    }
}

/// `7.1B`, `559M`, `6.3M`: at least two digits, as the field writes them.
fn size_label(params: u64) -> String {
    let (unit, suffix) = match params {
        0..=1_000_000 => (1e3, "K"),
        1_000_001..=1_000_000_000 => (1e6, "M"),
        1_000_000_001..=1_000_000_000_000 => (1e9, "B"),
        _ => (1e12, "T"),
    };
    let scaled = params as f64 / unit;
    if scaled.round() < 10.0 { format!("{scaled:.1}{suffix}") } else { format!("{scaled:.0}{suffix}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_labels() {
        let cases = [
            (7_069_016_064, "7.1B"),
            (559_214_592, "559M"),
            (6_312_448, "6.3M"),
            (166_000, "166K"),
            (9_960_000, "10M"),
        ];
        for (params, label) in cases {
            assert_eq!(size_label(params), label);
        }
    }
}
