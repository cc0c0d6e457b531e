//! The metadata of the file to be written: from a checkpoint's files, or copied from a GGUF source.

use huozi_quant::gguf::check::SHA256_KEY;
use huozi_quant::gguf::{Meta, MetaValue};
use huozi_token::parts::{END_IDS, NORMALIZED_IDS, PRE, TYPES};
use huozi_token::{VocabularyParts, markers};

use crate::chat::ChatSetup;
use crate::config::Config;
use crate::plan::Preset;
use crate::template::GivenTemplate;
use crate::vocab::Vocabulary;

/// Metadata that options replace.
#[derive(Clone, Debug, Default)]
pub(crate) struct MetadataOverrides<'a> {
    pub name: Option<&'a str>,
    pub n_ctx: Option<u64>,
    pub template: GivenTemplate,
}

const TEMPLATE: &str = "tokenizer.chat_template";
const FILE_TYPE: &str = "general.file_type";
const CONTEXT: &str = "bloom.context_length";
const PENALTY: &str = "general.sampling.penalty_last_n";

/// Metadata for a checkpoint, all but the type; `params`: weights of the model, padding rows included;
/// `license`: that of its model card.
pub(crate) fn from_checkpoint(
    config: &Config,
    vocab: Vocabulary,
    chat: &ChatSetup,
    name: &str,
    params: u64,
    license: Option<&str>,
) -> Vec<(String, MetaValue)> {
    use MetaValue::{Bool, F32, I32, I32s, Str, Strings, U32, U32s};
    let mut meta: Vec<(String, MetaValue)> = Vec::new();
    let mut put = |key: &str, value: MetaValue| meta.push((key.to_owned(), value));
    // Sizes are capped far below 2^32 by `Config`.
    let n = |value: u64| U32(value as u32);

    put("general.architecture", Str("bloom".into()));
    put("general.type", Str("model".into()));
    put("general.name", Str(name.into()));
    put("general.size_label", Str(size_label(params)));
    if let Some(license) = license {
        put("general.license", Str(license.into()));
    }
    put("general.quantization_version", U32(2));
    if let Some(s) = chat.sampling {
        put("general.sampling.top_k", I32(s.top_k));
        put("general.sampling.top_p", F32(s.top_p));
        put("general.sampling.temp", F32(s.temp));
        // Not in the demo; llama.cpp's own default is 0.05.
        put("general.sampling.min_p", F32(0.0));
        put("general.sampling.penalty_repeat", F32(s.penalty_repeat));
        // The whole context. llama.cpp has no value for that any more: it clamps a negative number to 0,
        // which is off.
        put(PENALTY, I32(config.n_ctx as i32));
    }

    put(CONTEXT, n(config.n_ctx));
    put("bloom.embedding_length", n(config.n_embd));
    put("bloom.feed_forward_length", n(config.n_ff()));
    put("bloom.block_count", n(config.n_layer));
    put("bloom.attention.head_count", n(config.n_head));
    put("bloom.attention.head_count_kv", n(config.n_head));
    put("bloom.attention.layer_norm_epsilon", F32(config.eps));

    let (suppress, normalized) = (vocab.unused(), vocab.normalized);
    put("tokenizer.ggml.model", Str("gpt2".into()));
    put("tokenizer.ggml.pre", Str("bloom".into()));
    put("tokenizer.ggml.tokens", Strings(vocab.tokens));
    put("tokenizer.ggml.token_type", I32s(vocab.types.into_iter().map(|t| t as i32).collect()));
    put("tokenizer.ggml.merges", Strings(vocab.merges));
    let ids = [("bos", chat.bos), ("eos", chat.eos), ("unknown", chat.unk), ("padding", chat.pad)];
    for (key, id) in ids {
        if let Some(id) = id {
            put(&format!("tokenizer.ggml.{key}_token_id"), U32(id));
        }
    }
    for (key, id) in &chat.of_template {
        put(&format!("tokenizer.ggml.{key}_token_id"), U32(*id));
    }
    put("tokenizer.ggml.add_bos_token", Bool(false));
    if !suppress.is_empty() {
        put("tokenizer.ggml.suppress_tokens", I32s(suppress));
    }
    if let Some(template) = &chat.template {
        put(TEMPLATE, Str(template.clone()));
    }
    if !chat.additional.is_empty() {
        put(markers::ADDITIONAL_SPECIAL_TOKENS, Strings(chat.additional.clone()));
    }
    if let Some(ids) = normalized {
        put(NORMALIZED_IDS, U32s(ids));
    }
    meta
}

/// Adds the end tokens besides `eos`, unless a person has set their keys.
pub(crate) fn add_ends(meta: &mut Vec<(String, MetaValue)>, eot: Option<u32>, rest: Vec<u32>) {
    const EOT: &str = "tokenizer.ggml.eot_token_id";
    if let Some(eot) = eot.filter(|_| meta.iter().all(|(key, _)| key != EOT)) {
        let eos = meta.iter().position(|(key, _)| key == "tokenizer.ggml.eos_token_id");
        let value = (EOT.to_owned(), MetaValue::U32(eot));
        meta.insert(eos.map_or(meta.len(), |at| at + 1), value);
    }
    if !rest.is_empty() {
        meta.push((END_IDS.to_owned(), MetaValue::U32s(rest)));
    }
}

/// Metadata of a GGUF source, without the type and the keys that are wrong for the new file. `config`: what
/// the source says, or a person instead of it.
pub(crate) fn from_gguf(
    source: Meta<'_>,
    given: MetadataOverrides<'_>,
    config: &Config,
) -> Vec<(String, MetaValue)> {
    let stale = |key: &str| {
        key == "general.alignment"
            || key == FILE_TYPE
            || key == SHA256_KEY
            || key.starts_with("split.")
            || key.starts_with("quantize.imatrix.")
    };
    let mut meta: Vec<(String, MetaValue)> = source
        .iter()
        .filter(|(key, _)| !stale(key))
        .map(|(key, value)| (key.to_owned(), value.into()))
        .collect();
    set(&mut meta, "general.quantization_version", MetaValue::U32(2));
    if let Some(name) = given.name {
        set(&mut meta, "general.name", MetaValue::Str(name.into()));
    }
    match given.template {
        GivenTemplate::Source => {}
        // With the named ones beside it.
        GivenTemplate::Omit => meta.retain(|(key, _)| !key.starts_with(TEMPLATE)),
        GivenTemplate::Text(template) => set(&mut meta, TEMPLATE, MetaValue::Str(template)),
    }
    let n_ctx = config.n_ctx;
    // This program has a default, but others need the key.
    if given.n_ctx.is_some() || source.get(CONTEXT).is_none() {
        set(&mut meta, CONTEXT, MetaValue::U32(n_ctx as u32));
    }
    // The penalty covers the whole context.
    if given.n_ctx.is_some() && source.get(PENALTY).is_some() {
        set(&mut meta, PENALTY, MetaValue::I32(n_ctx as i32));
    }
    meta
}

/// Writes down what was assumed about the vocabulary of a GGUF source (the name of its split, the types of
/// its tokens) and its end tokens that GGUF has no key for: in files of other programs these are known by
/// their spelling, in the converter's own by their ids. Gives the warnings.
pub(crate) fn complete(meta: &mut Vec<(String, MetaValue)>, source: Meta<'_>) -> Vec<String> {
    // Whether the source can be used is asked later.
    let Ok(parts) = VocabularyParts::from_gguf(source) else { return Vec::new() };
    let named = [parts.eos, parts.eot].map(|id| id.and_then(|id| i64::try_from(id).ok()));
    let rest = parts.ends.iter().filter(|id| !named.contains(&Some(**id)));
    let mut rest: Vec<u32> = rest.filter_map(|&id| id.try_into().ok()).collect();
    rest.sort_unstable();
    rest.dedup();
    if !rest.is_empty() {
        set(meta, END_IDS, MetaValue::U32s(rest));
    }
    let named = meta.iter().find(|(key, _)| key == PRE).map(|(_, value)| value);
    if named.is_none_or(|name| ["", "default"].iter().any(|none| *name == MetaValue::Str((*none).into()))) {
        set(meta, PRE, MetaValue::Str("bloom".into()));
    }
    let types: Vec<i32> = parts.types.iter().filter_map(|&kind| kind.try_into().ok()).collect();
    let written = source.ints(TYPES).ok().flatten().map(|types| types.iter().collect::<Vec<i64>>());
    if written.as_ref() != Some(&parts.types) && types.len() == parts.types.len() {
        set(meta, TYPES, MetaValue::I32s(types));
    }
    parts.warnings
}

/// The metadata with its type.
pub(crate) fn for_preset(meta: &[(String, MetaValue)], preset: Preset) -> Vec<(String, MetaValue)> {
    let mut meta = meta.to_vec();
    set(&mut meta, FILE_TYPE, MetaValue::U32(preset.file_type()));
    meta
}

/// Sets `key` to a typed value. An existing key keeps its type; for a new one `true`, `false` and numbers are
/// taken as such, everything else, and text after `str:`, as a string.
///
/// `Err`: the reason, for the person who typed it.
pub(crate) fn set_by_hand(meta: &mut Vec<(String, MetaValue)>, key: &str, text: &str) -> Result<(), String> {
    use MetaValue::{Bool, F32, F64, I8, I16, I32, I64, Str, U8, U16, U32, U64};
    let refuse = |why: &str| Err(format!("--metadata {key}: {why}"));
    let own = [
        ("bloom.", "the model's sizes come from the source; use --context-length"),
        ("huozi.", "written by the converter"),
        ("split.", "the file is whole"),
        ("quantize.imatrix.", "written by the converter, from --imatrix"),
        ("general.alignment", "fixed"),
        ("general.architecture", "always bloom"),
        ("general.file_type", "follows from the type"),
        ("general.quantization_version", "follows from the formats"),
    ];
    if let Some((_, why)) = own.iter().find(|(own, _)| key.starts_with(own)) {
        return refuse(why);
    }
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-.".contains(c);
    if key.is_empty() || key.len() > 255 || !key.chars().all(plain) {
        return refuse("a key consists of lower-case letters, digits, ., _ and -");
    }
    let string = || Str(text.strip_prefix("str:").unwrap_or(text).to_owned());
    macro_rules! number {
        ($of:ident) => {
            match text.parse() {
                Ok(x) => $of(x),
                Err(_) => {
                    return refuse(&format!(
                        "{text:?} is not what it holds (a number of type {})",
                        stringify!($of)
                    ))
                }
            }
        };
    }
    let value = match meta.iter().find(|(k, _)| k == key).map(|(_, v)| v) {
        Some(Str(_)) => string(),
        Some(Bool(_)) => match text.parse() {
            Ok(x) => Bool(x),
            Err(_) => return refuse("holds true or false"),
        },
        Some(U8(_)) => number!(U8),
        Some(I8(_)) => number!(I8),
        Some(U16(_)) => number!(U16),
        Some(I16(_)) => number!(I16),
        Some(U32(_)) => number!(U32),
        Some(I32(_)) => number!(I32),
        Some(U64(_)) => number!(U64),
        Some(I64(_)) => number!(I64),
        Some(F32(_)) if text.parse().is_ok_and(|x: f32| !x.is_finite()) => return refuse("must be finite"),
        Some(F64(_)) if text.parse().is_ok_and(|x: f64| !x.is_finite()) => return refuse("must be finite"),
        Some(F32(_)) => number!(F32),
        Some(F64(_)) => number!(F64),
        Some(_) => return refuse("holds a list, which cannot be typed"),
        None => {
            let whole = text.parse().map(U32).or_else(|_| text.parse().map(I64));
            let finite = || text.parse().ok().filter(|x: &f32| x.is_finite()).map(F32);
            text.parse().map(Bool).ok().or(whole.ok()).or_else(finite).unwrap_or_else(string)
        }
    };
    set(meta, key, value);
    Ok(())
}

/// The license that a model card names: `license:` in the YAML between two `---` lines at its very beginning.
///
/// `card`: the beginning of a `README.md`. Knows plain one-line values only; anything else counts as
/// nothing.
pub(crate) fn license(card: &[u8]) -> Option<String> {
    let card = String::from_utf8_lossy(card);
    let mut lines = card.strip_prefix('\u{feff}').unwrap_or(&card).lines();
    if lines.next()?.trim_end() != "---" {
        return None;
    }
    let header: Vec<&str> = lines.by_ref().map(str::trim_end).take_while(|line| *line != "---").collect();
    let value = header.iter().find_map(|line| line.strip_prefix("license:"))?;
    // A comment needs a space before it.
    let value = value.split(" #").next().unwrap_or_default().trim();
    let quoted = |q: char| value.strip_prefix(q).and_then(|v| v.strip_suffix(q));
    let value = quoted('"').or_else(|| quoted('\'')).unwrap_or(value);
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._+ ".contains(c);
    (!value.is_empty() && value.len() <= 64 && value.chars().all(plain)).then(|| value.to_owned())
}

fn set(meta: &mut Vec<(String, MetaValue)>, key: &str, value: MetaValue) {
    match meta.iter_mut().find(|(k, _)| k == key) {
        Some((_, old)) => *old = value,
        None => {
            // After the keys of its group, not after the long vocabulary.
            let group = key.split('.').next();
            let at = meta.iter().rposition(|(k, _)| k.split('.').next() == group);
            meta.insert(at.map_or(meta.len(), |i| i + 1), (key.to_owned(), value));
        }
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
    fn licenses_of_cards() {
        for (card, expected) in [
            ("---\nlicense: apache-2.0\n---\n# Model", Some("apache-2.0")),
            (
                "\u{feff}---\r\ntags:\r\n- a\r\nlicense: \"bigscience-bloom-rail-1.0\" # ours\r\n---\r\n",
                Some("bigscience-bloom-rail-1.0"),
            ),
            ("---\nlicense: 'mit'\n", Some("mit")),
            ("---\nlicense:\n- mit\n---\n", None),
            ("---\nlicense: [mit]\n---\n", None),
            ("---\nlicense: \u{1b}[2J\n---\n", None),
            ("---\nx: 1\n---\nlicense: mit\n", None),
            ("---\nsub:\n  license: mit\n---\n", None),
            ("# Model\nlicense: mit\n", None),
            ("", None),
        ] {
            assert_eq!(license(card.as_bytes()).as_deref(), expected, "{card:?}");
        }
        assert_eq!(license(b"---\n\xff\xfe\nlicense: mit\n---").as_deref(), Some("mit"));
    }

    #[test]
    fn keys_by_hand() {
        let mut meta = vec![
            ("general.name".to_owned(), MetaValue::Str("old".into())),
            ("tokenizer.ggml.eos_token_id".into(), MetaValue::U32(2)),
            ("general.sampling.temp".into(), MetaValue::F32(0.5)),
            ("tokenizer.ggml.tokens".into(), MetaValue::Strings(vec![])),
        ];
        for (key, text, expected) in [
            ("general.name", "1", MetaValue::Str("1".into())),
            ("tokenizer.ggml.eos_token_id", "7", MetaValue::U32(7)),
            ("general.sampling.temp", "1", MetaValue::F32(1.0)),
            ("general.author", "HIT = 哈工大", MetaValue::Str("HIT = 哈工大".into())),
            ("general.version", "str:2", MetaValue::Str("2".into())),
            ("my.count", "2", MetaValue::U32(2)),
            ("my.debt", "-2", MetaValue::I64(-2)),
            ("my.share", "0.25", MetaValue::F32(0.25)),
            ("my.flag", "true", MetaValue::Bool(true)),
            ("my.nan", "nan", MetaValue::Str("nan".into())),
        ] {
            set_by_hand(&mut meta, key, text).unwrap();
            let set: Vec<_> = meta.iter().filter(|(k, _)| k == key).map(|(_, v)| v).collect();
            assert_eq!(set, [&expected], "{key}");
        }
        for (key, text) in [
            ("tokenizer.ggml.eos_token_id", "-1"),
            ("general.sampling.temp", "warm"),
            ("general.sampling.temp", "nan"),
            ("general.sampling.temp", "-inf"),
            ("general.sampling.temp", "1e39"),
            ("quantize.imatrix.file", "x"),
            ("tokenizer.ggml.tokens", "a"),
            ("bloom.block_count", "1"),
            ("general.architecture", "llama"),
            ("huozi.tensor_sha256", "0"),
            ("", "x"),
            ("Big Key", "x"),
        ] {
            let error = set_by_hand(&mut meta, key, text).unwrap_err();
            assert!(error.starts_with(&format!("--metadata {key}: ")), "{error}");
        }
    }

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
