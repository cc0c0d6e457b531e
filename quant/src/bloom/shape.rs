//! The sizes of a BLOOM model: known ones by name, others from a file, and the memory they need.
//!
//! Numbers only: no weights, no vocabulary.

use std::fmt;

use crate::bloom::extra;
use crate::gguf::{Error, Malformed, Meta, Place, Reader, Rule, Value, shown};
use crate::kv::{BLOCK, KvType};
use crate::message::counted;

/// The context BLOOM was trained with, for files that do not say.
pub const DEFAULT_CTX_TRAIN: usize = 2048;

/// The sizes of a BLOOM model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Rows of the embedding, padding rows included.
    pub n_vocab: usize,
    /// Hidden size.
    pub n_embd: usize,
    /// Layers.
    pub n_layer: usize,
    /// Attention heads; they divide `n_embd`.
    pub n_head: usize,
    /// Width inside the MLP, `4 * n_embd` in every published BLOOM.
    pub n_ff: usize,
    /// Positions the model was trained on.
    pub n_ctx_train: usize,
}

/// Name, hidden size, layers, heads of the published sizes up to 7.1B parameters.
const BLOOM: [(&str, usize, usize, usize); 5] = [
    ("bloom-560m", 1024, 24, 16),
    ("bloom-1b1", 1536, 24, 16),
    ("bloom-1b7", 2048, 24, 16),
    ("bloom-3b", 2560, 30, 32),
    ("bloom-7b1", 4096, 30, 32),
];

// What a file may say. Far above any BLOOM up to 7.1B, far below what could overflow: the largest product
// taken of them, n_layer * n_embd * n_ff, is 2^54.
const MAX_VOCAB: usize = 1 << 24;
const MAX_EMBD: usize = 1 << 20;
const MAX_LAYER: usize = 1 << 12;
const MAX_FF: usize = 1 << 22;
const MAX_CTX: usize = 1 << 24;

impl Shape {
    /// The names that [`named`](Self::named) knows, smallest first.
    pub const NAMES: [&str; 5] = [BLOOM[0].0, BLOOM[1].0, BLOOM[2].0, BLOOM[3].0, BLOOM[4].0];

    /// A published shape, e.g. `bloom-7b1`, which Huozi 1.0 and 2.0 have too.
    pub fn named(name: &str) -> Option<Shape> {
        let &(_, n_embd, n_layer, n_head) = BLOOM.iter().find(|row| row.0 == name)?;
        Some(Shape {
            n_vocab: 250_880,
            n_embd,
            n_layer,
            n_head,
            n_ff: 4 * n_embd,
            n_ctx_train: DEFAULT_CTX_TRAIN,
        })
    }

    /// A shape of one's own, `LAYERSxHIDDENxHEADS` or `LAYERSxHIDDENxHEADSxVOCAB`, e.g. `2x256x4x1000`; the
    /// rest as in every published BLOOM. `None` for other texts, sizes that no file may have, heads that do
    /// not divide the hidden size.
    pub fn from_sizes(text: &str) -> Option<Shape> {
        let sizes: Vec<usize> = text.split('x').map(|n| n.parse().ok()).collect::<Option<_>>()?;
        let (n_layer, n_embd, n_head, n_vocab) = match sizes[..] {
            [layers, embd, heads] => (layers, embd, heads, 250_880),
            [layers, embd, heads, vocab] => (layers, embd, heads, vocab),
            _ => return None,
        };
        let within = |n: usize, max: usize| (1..=max).contains(&n);
        let known = within(n_layer, MAX_LAYER)
            && within(n_embd, MAX_EMBD)
            && within(n_head, n_embd)
            && within(n_vocab, MAX_VOCAB)
            && n_embd.is_multiple_of(n_head);
        known.then(|| Shape {
            n_vocab,
            n_embd,
            n_layer,
            n_head,
            n_ff: 4 * n_embd,
            n_ctx_train: DEFAULT_CTX_TRAIN,
        })
    }

    /// The shape of the model in a file: [`from_meta`](Self::from_meta), with `n_vocab` as the rows of
    /// `token_embd.weight`, padding rows included. A file without this tensor keeps the number of its tokens.
    ///
    /// # Errors
    /// As `from_meta`; fewer rows than tokens; tensors of the model in a type that no format is for.
    pub fn from_file(file: &Reader) -> Result<Shape, Error> {
        let mut shape = Shape::from_meta(file.meta())?;
        extra::refuse_types(file, shape.n_layer)?;
        if let Some(embedding) = file.tensor("token_embd.weight") {
            let rows = embedding.rows();
            if rows < shape.n_vocab {
                return Err(Error::Malformed(Box::new(Malformed {
                    rule: Rule::Value,
                    file: file.name().to_owned(),
                    place: Place::Tensor(embedding.name.clone()),
                    byte: None,
                    expected: format!("a row for each of the {}", counted(shape.n_vocab as u64, "token")),
                    found: counted(rows as u64, "row"),
                })));
            }
            shape.n_vocab = rows;
        }
        Ok(shape)
    }

    /// The shape a file's metadata gives.
    ///
    /// `n_vocab` is the length of `tokenizer.ggml.tokens` (or `bloom.vocab_size` in a file without a
    /// vocabulary); an absent `bloom.feed_forward_length` means `4 * n_embd`, an absent
    /// `bloom.context_length` [`DEFAULT_CTX_TRAIN`].
    ///
    /// # Errors
    /// Names the key: another architecture than `bloom`, an absent key, a size that is 0 or absurd, heads
    /// that do not divide the hidden size, fewer KV heads than heads.
    pub fn from_meta(meta: Meta<'_>) -> Result<Shape, Error> {
        refuse_other_kinds(meta)?;
        let key = "general.architecture";
        match meta.str(key)? {
            Some("bloom") => {}
            Some(other) => {
                let expected = "bloom (Huozi, BLOOM, BLOOMZ and models made from them)";
                return Err(meta.refuse(key, expected, format!("{}; llama.cpp may run it", shown(other))));
            }
            None => return Err(meta.missing(key, "bloom")),
        }
        let needed = |key, max| size(meta, key, max)?.ok_or_else(|| meta.missing(key, "a size"));

        let n_embd = needed("bloom.embedding_length", MAX_EMBD)?;
        let n_layer = needed("bloom.block_count", MAX_LAYER)?;
        let heads_key = "bloom.attention.head_count";
        let n_head = needed(heads_key, MAX_EMBD)?;
        if !n_embd.is_multiple_of(n_head) {
            let expected = format!("a number of heads that divides the hidden size {n_embd}");
            return Err(meta.refuse(heads_key, expected, n_head.to_string()));
        }
        let kv_key = "bloom.attention.head_count_kv";
        if let Some(n_head_kv) = size(meta, kv_key, MAX_EMBD)?.filter(|&n| n != n_head) {
            let expected = format!("as many KV heads as heads, {n_head}");
            return Err(meta.refuse(kv_key, expected, n_head_kv.to_string()));
        }
        let n_ff = size(meta, "bloom.feed_forward_length", MAX_FF)?.unwrap_or(4 * n_embd);
        let n_ctx_train = size(meta, "bloom.context_length", MAX_CTX)?.unwrap_or(DEFAULT_CTX_TRAIN);

        let (tokens_key, size_key) = ("tokenizer.ggml.tokens", "bloom.vocab_size");
        let stated = size(meta, size_key, MAX_VOCAB)?;
        let n_vocab = match (meta.strings(tokens_key)?.map(|s| s.len()), stated) {
            (Some(n), Some(stated)) if n != stated => {
                let expected = format!("the {n} of {tokens_key}");
                return Err(meta.refuse(size_key, expected, stated.to_string()));
            }
            (Some(n), _) if n == 0 || n > MAX_VOCAB => {
                return Err(meta.refuse(tokens_key, format!("1 to {MAX_VOCAB} tokens"), n.to_string()));
            }
            (Some(n), _) | (None, Some(n)) => n,
            (None, None) => return Err(meta.missing(tokens_key, "the vocabulary")),
        };
        Ok(Shape { n_vocab, n_embd, n_layer, n_head, n_ff, n_ctx_train })
    }

    /// Width of one head.
    ///
    /// # Panics
    /// When `n_head` is 0.
    pub const fn head_dim(&self) -> usize {
        self.n_embd / self.n_head
    }

    /// Weights, norms and biases included, the output head being the embedding. An output head of its own
    /// adds `n_vocab * n_embd`.
    pub const fn weights(&self) -> u64 {
        let [e, f] = [self.n_embd as u64, self.n_ff as u64];
        let norm = 2 * e;
        let attention = (3 * e * e + 3 * e) + (e * e + e);
        let mlp = (e * f + f) + (f * e + e);
        // The norm of the embeddings and the last one; two per layer.
        self.n_vocab as u64 * e + 2 * norm + self.n_layer as u64 * (2 * norm + attention + mlp)
    }

    /// Bytes of keys and values that one position holds in all layers.
    pub const fn kv_bytes_per_position(&self, kv: KvType) -> u64 {
        (2 * self.n_layer as u64 * self.n_head as u64).saturating_mul(kv.row_bytes(self.head_dim()) as u64)
    }

    /// Bytes of one block of [`BLOCK`] positions.
    pub const fn kv_block_bytes(&self, kv: KvType) -> u64 {
        self.kv_bytes_per_position(kv).saturating_mul(BLOCK as u64)
    }

    /// Bytes of keys and values for a sequence of `positions`, in whole blocks; `u64::MAX` past 64 bits.
    pub const fn kv_bytes(&self, positions: usize, kv: KvType) -> u64 {
        let blocks = positions.div_ceil(BLOCK) as u64;
        self.kv_block_bytes(kv).saturating_mul(blocks)
    }

    /// An estimate of the working memory of a step that takes `columns` tokens and keeps `rows` rows of
    /// logits: per column 8 activations of the hidden size (residual, norm, fused QKV, attention, output, and
    /// what quantised operands take) and 2 of the MLP's width, and the logits, all `f32`.
    pub const fn scratch_bytes(&self, columns: usize, rows: usize) -> u64 {
        let per_column = 4 * (8 * self.n_embd as u64 + 2 * self.n_ff as u64);
        let per_row = 4 * self.n_vocab as u64;
        per_column.saturating_mul(columns as u64).saturating_add(per_row.saturating_mul(rows as u64))
    }

    /// The memory that a model file of `file` bytes needs with KV of type `kv` for `positions` and steps of
    /// at most `columns` tokens and `rows` rows of logits.
    pub const fn forecast(
        &self,
        file: u64,
        positions: usize,
        kv: KvType,
        columns: usize,
        rows: usize,
    ) -> MemoryForecast {
        let kv = self.kv_bytes(positions, kv);
        let scratch = self.scratch_bytes(columns, rows);
        MemoryForecast { file, kv, scratch, total: file.saturating_add(kv).saturating_add(scratch) }
    }
}

/// Refuses GGUF files that hold something else than a model: `general.type` says what.
fn refuse_other_kinds(meta: Meta<'_>) -> Result<(), Error> {
    let key = "general.type";
    // The key is old, and not every program writes it.
    let Some(Value::Str(kind)) = meta.get(key) else { return Ok(()) };
    let found = match kind {
        "adapter" => "a LoRA adapter alone; merge it into its base model first (llama-export-lora)",
        "imatrix" => "an importance matrix; huozi-convert takes it with --imatrix",
        "mmproj" => "the image encoder of a model that sees pictures, which is not supported",
        _ => return Ok(()),
    };
    Err(meta.refuse(key, "model", found))
}

/// The size under `key`, from 1 to `max`; `None` when the key is absent.
fn size(meta: Meta<'_>, key: &str, max: usize) -> Result<Option<usize>, Error> {
    let Some(found) = meta.uint(key)? else { return Ok(None) };
    match usize::try_from(found) {
        Ok(n) if (1..=max).contains(&n) => Ok(Some(n)),
        _ => Err(meta.refuse(key, format!("1 to {max}"), found.to_string())),
    }
}

/// Bytes of memory that a model takes while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryForecast {
    /// The model file, mapped: pages that other processes share and the system may drop and read again.
    pub file: u64,
    /// Keys and values.
    pub kv: u64,
    /// Activations and logits.
    pub scratch: u64,
    /// All three.
    pub total: u64,
}

impl fmt::Display for MemoryForecast {
    /// In MiB, e.g. `4500 MiB = 4000 model + 480 KV + 20 scratch`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        let [file, kv, scratch] = [mib(self.file), mib(self.kv), mib(self.scratch)];
        let total = file.saturating_add(kv).saturating_add(scratch);
        write!(f, "{total} MiB = {file} model + {kv} KV + {scratch} scratch")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::{Layout, MetaValue};

    #[test]
    fn published_shapes_have_the_published_numbers_of_weights() {
        let weights = Shape::NAMES.map(|name| Shape::named(name).unwrap().weights());
        assert_eq!(weights, [559_214_592, 1_065_314_304, 1_722_408_960, 3_002_557_440, 7_069_016_064]);
        assert_eq!(Shape::named("bloom-3b").unwrap().head_dim(), 80);
        assert_eq!(Shape::named("bloom"), None);
    }

    #[test]
    fn sizes_make_a_shape() {
        let own = Shape::from_sizes("30x4096x32");
        assert_eq!(own, Shape::named("bloom-7b1"));
        assert_eq!(Shape::from_sizes("2x256x4x1000").unwrap().n_vocab, 1000);
        for bad in [
            "",
            "x",
            "2x256",
            "2x256x3",
            "0x256x4",
            "2x0x0",
            "2x256x0",
            "2x256x4x0",
            "2x256x4x1x1",
            "-2x256x4",
            "9999999x256x4",
            "2x99999999999999999999x4",
        ] {
            assert_eq!(Shape::from_sizes(bad), None, "{bad}");
        }
    }

    #[test]
    fn kv_takes_whole_blocks() {
        let huozi = Shape::named("bloom-7b1").unwrap();
        // 2 (k, v) * 30 layers * 4096 * 2 bytes
        assert_eq!(huozi.kv_bytes_per_position(KvType::F16), 491_520);
        // 2 * 30 layers * 32 heads * (128 + 4) bytes
        assert_eq!(huozi.kv_bytes_per_position(KvType::Q8), 253_440);
        assert_eq!(huozi.kv_bytes(2048, KvType::F16), 491_520 * 2048);
        assert_eq!(huozi.kv_bytes(0, KvType::F16), 0);
        assert_eq!(huozi.kv_bytes(1, KvType::F16), huozi.kv_block_bytes(KvType::F16));
        assert_eq!(huozi.kv_bytes(65, KvType::F32), 2 * huozi.kv_block_bytes(KvType::F32));
        assert_eq!(huozi.kv_bytes(usize::MAX, KvType::F32), u64::MAX);
        let forecast = huozi.forecast(4_000 << 20, 2048, KvType::F16, 512, 16);
        assert_eq!(forecast.total, forecast.file + forecast.kv + forecast.scratch);
        // 512 columns of 4 * (8 * 4096 + 2 * 16384) bytes = 128 MiB; 16 rows of 250880 floats = 15.3 MiB.
        assert_eq!(forecast.to_string(), "5104 MiB = 4000 model + 960 KV + 144 scratch");
    }

    fn nano() -> Vec<(String, MetaValue)> {
        let kv = |key: &str, value| (key.to_owned(), value);
        vec![
            kv("general.architecture", MetaValue::Str("bloom".into())),
            kv("bloom.context_length", MetaValue::U32(512)),
            kv("bloom.embedding_length", MetaValue::U32(96)),
            kv("bloom.feed_forward_length", MetaValue::U64(400)),
            kv("bloom.block_count", MetaValue::U32(3)),
            kv("bloom.attention.head_count", MetaValue::U32(6)),
            kv("bloom.attention.head_count_kv", MetaValue::U32(6)),
            kv("tokenizer.ggml.tokens", MetaValue::Strings(vec!["a".into(); 5])),
        ]
    }

    fn shape(meta: &[(String, MetaValue)]) -> Result<Shape, Error> {
        let header = Layout::new(meta, vec![]).unwrap().header().to_vec();
        Shape::from_meta(Reader::from_bytes("test.gguf", header).unwrap().meta())
    }

    #[test]
    fn a_shape_is_read_from_metadata() {
        let full = Shape { n_vocab: 5, n_embd: 96, n_layer: 3, n_head: 6, n_ff: 400, n_ctx_train: 512 };
        assert_eq!(shape(&nano()).unwrap(), full);
        let mut meta = nano();
        meta.retain(|(k, _)| {
            !["bloom.context_length", "bloom.feed_forward_length", "bloom.attention.head_count_kv"]
                .contains(&k.as_str())
        });
        assert_eq!(shape(&meta).unwrap(), Shape { n_ff: 384, n_ctx_train: 2048, ..full });
        meta.retain(|(k, _)| k != "tokenizer.ggml.tokens");
        meta.push(("bloom.vocab_size".into(), MetaValue::U32(7)));
        assert_eq!(shape(&meta).unwrap().n_vocab, 7);
    }

    #[test]
    fn every_bad_value_is_refused_by_its_key() {
        let bad = [
            ("general.architecture", MetaValue::Str("llama".into()), Rule::Value),
            ("general.architecture", MetaValue::U32(1), Rule::WrongType),
            ("bloom.context_length", MetaValue::U32(0), Rule::Value),
            ("bloom.embedding_length", MetaValue::U32(0), Rule::Value),
            ("bloom.embedding_length", MetaValue::U64(u64::MAX), Rule::Value),
            ("bloom.embedding_length", MetaValue::I32(-96), Rule::WrongType),
            ("bloom.embedding_length", MetaValue::F32(96.0), Rule::WrongType),
            ("bloom.feed_forward_length", MetaValue::U32(u32::MAX), Rule::Value),
            ("bloom.block_count", MetaValue::U32(1 << 20), Rule::Value),
            ("bloom.attention.head_count", MetaValue::U32(0), Rule::Value),
            ("bloom.attention.head_count", MetaValue::U32(7), Rule::Value),
            ("bloom.attention.head_count_kv", MetaValue::U32(3), Rule::Value),
            ("tokenizer.ggml.tokens", MetaValue::Strings(vec![]), Rule::Value),
            ("tokenizer.ggml.tokens", MetaValue::I32s(vec![1]), Rule::WrongType),
            ("bloom.vocab_size", MetaValue::U32(6), Rule::Value),
        ];
        for (key, value, rule) in bad {
            let mut meta = nano();
            meta.retain(|(k, _)| k != key);
            meta.push((key.to_owned(), value.clone()));
            let error = shape(&meta).unwrap_err();
            assert_eq!(error.rule(), Some(rule), "{key} {value:?}: {error}");
            assert!(error.to_string().starts_with(&format!("test.gguf: metadata key {key:?}: ")), "{error}");
        }
        for key in
            ["general.architecture", "bloom.embedding_length", "bloom.block_count", "tokenizer.ggml.tokens"]
        {
            let mut meta = nano();
            meta.retain(|(k, _)| k != key);
            let error = shape(&meta).unwrap_err();
            assert_eq!(error.rule(), Some(Rule::Missing), "{error}");
        }
    }
}
