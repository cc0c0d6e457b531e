//! Inference engines: sequences of tokens in, rows of logits out.
//!
//! One step carries items of many sequences. Logits leave through a sink, a few rows at a time, and are never
//! kept. An engine knows nothing about text, sampling or requests.

#[cfg(feature = "ggml")]
pub mod ggml;
mod items;
mod kind;
mod native;
mod threads;

pub use crate::model::bloom::LOGIT_ROWS;
pub use crate::model::kv::KvType;
pub use crate::model::sink::Sink;
pub use kind::EngineKind;
pub use native::{MICRO_BATCH, Native, NativeOptions};
pub use threads::{default as default_threads, usable as usable_threads};

use std::sync::atomic::AtomicBool;

/// A sequence of an engine. Its number is never used twice by one engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Seq(pub(crate) u64);

/// How a token came to be: which arithmetic it gets is chosen by this, never by how many run beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Part of a prompt.
    Given,
    /// Generated, or verified as if it had been.
    Generated,
}

/// Which positions of an item give logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// None: the tokens only fill the KV cache.
    None,
    /// The last position.
    Last,
    /// Every position.
    All,
}

/// Tokens to append to one sequence.
#[derive(Clone, Copy, Debug)]
pub struct StepItem<'a> {
    /// The sequence; at most one item of a step names it.
    pub seq: Seq,
    /// Token ids, at least one.
    pub tokens: &'a [u32],
    /// How these tokens came to be.
    pub phase: Phase,
    /// Which positions give logits.
    pub want: Want,
}

/// What a step did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepStats {
    /// Tokens read.
    pub tokens: usize,
    /// Rows of logits given to the sink.
    pub rows: usize,
}

/// How llama.cpp computes attention. The native engine has one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FlashAttention {
    /// As llama.cpp chooses.
    #[default]
    Auto,
    /// Fused, over blocks of keys.
    On,
    /// As matrix products with a mask.
    Off,
}

impl FlashAttention {
    /// The name as `--flash-attn` takes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::On => "on",
            Self::Off => "off",
        }
    }
}

/// What an engine is.
#[derive(Clone, Debug)]
pub struct Info {
    /// `general.architecture` of the file.
    pub architecture: String,
    /// Rows of the head, padding rows included.
    pub n_vocab: usize,
    /// Hidden size.
    pub n_embd: usize,
    /// Layers.
    pub n_layer: usize,
    /// Attention heads.
    pub n_head: usize,
    /// Context length the model was trained with.
    pub n_ctx_train: usize,
    /// Bytes of weights.
    pub model_bytes: u64,
    /// What it runs on: instruction set and threads, for a person to read.
    pub runs_on: String,
    /// Threads that compute.
    pub threads: usize,
    /// Type of the KV cache.
    pub kv: KvType,
    /// Positions in one KV block.
    pub kv_block_positions: usize,
    /// KV blocks the engine may use.
    pub kv_blocks: usize,
    /// Bytes of one KV block.
    pub kv_block_bytes: usize,
}

/// Why a step or a change to a sequence did not happen. Every sequence is then as it was before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The KV cache has too few free blocks.
    #[error("the KV cache is full: {needed} blocks needed, {free} free")]
    KvFull {
        /// Blocks needed.
        needed: usize,
        /// Blocks free.
        free: usize,
    },
    /// `cancel` was set.
    #[error("cancelled")]
    Cancelled,
    /// The sequence does not exist (any more).
    #[error("sequence {0:?} does not exist")]
    UnknownSeq(Seq),
    /// A sequence is named by two items of a step.
    #[error("sequence {0:?} stands twice in one step")]
    SeqTwice(Seq),
    /// An item without tokens.
    #[error("an item of a step has no tokens")]
    NoTokens,
    /// A token id past the vocabulary.
    #[error("token {token} is not below n_vocab {n_vocab}")]
    TokenOutOfRange {
        /// The id.
        token: u32,
        /// Rows of the embedding.
        n_vocab: usize,
    },
    /// A length past the end of the sequence.
    #[error("length {len} is past the end of sequence {seq:?}, which has {have} positions")]
    PastEnd {
        /// The sequence.
        seq: Seq,
        /// The length asked for.
        len: usize,
        /// The length it has.
        have: usize,
    },
    /// More sequences with positions than the engine was built for.
    #[error("the engine was built for {max} sequences at a time")]
    TooManySeqs {
        /// Sequences it was built for.
        max: usize,
    },
    /// The model file has changed since it was opened.
    #[error("{0}")]
    File(String),
    /// The library below failed.
    #[error("{0}")]
    Failed(String),
}

/// Runs a model over sequences of tokens.
pub trait Engine: Send {
    /// What this engine is.
    fn info(&self) -> &Info;

    /// An empty sequence.
    fn seq_new(&mut self) -> Seq;

    /// Positions in `seq`; 0 for an unknown one.
    fn seq_len(&self, seq: Seq) -> usize;

    /// A new sequence that begins with the first `len` positions of `src`. Shares whole KV blocks, copies the
    /// last one.
    ///
    /// # Errors
    /// `UnknownSeq`, `PastEnd`, `KvFull`.
    fn seq_fork(&mut self, src: Seq, len: usize) -> Result<Seq, EngineError>;

    /// Drops every position from `len` on.
    ///
    /// # Errors
    /// `UnknownSeq`, `PastEnd`.
    fn seq_truncate(&mut self, seq: Seq, len: usize) -> Result<(), EngineError>;

    /// Frees a sequence; an unknown one is ignored.
    fn seq_free(&mut self, seq: Seq);

    /// KV blocks that are free.
    fn kv_free_blocks(&self) -> usize;

    /// Appends the tokens of every item and gives the wanted logits to `sink`.
    ///
    /// All blocks are reserved before anything is computed. `cancel` is polled at every claim of work.
    /// `progress` is called now and then with the share of the step that is done, from 0 to 1.
    ///
    /// # Errors
    /// After any error every sequence has its length from before the step, and rows given to the sink are
    /// void.
    fn step_watched(
        &mut self,
        items: &[StepItem<'_>],
        sink: &mut Sink<'_>,
        progress: &mut dyn FnMut(f64),
        cancel: &AtomicBool,
    ) -> Result<StepStats, EngineError>;

    /// [`Self::step_watched`] without progress.
    ///
    /// # Errors
    /// The same.
    fn step(
        &mut self,
        items: &[StepItem<'_>],
        sink: &mut Sink<'_>,
        cancel: &AtomicBool,
    ) -> Result<StepStats, EngineError> {
        self.step_watched(items, sink, &mut |_| {}, cancel)
    }

    /// Export and import of keys and values; `None` for an engine that has none.
    fn kv_state(&mut self) -> Option<&mut dyn KvState> {
        None
    }
}

/// Takes keys and values out of an engine and puts them back, a block at a time. What is put back continues
/// bit for bit as what was taken out.
pub trait KvState {
    /// What the bytes of a block mean, in lines `NAME: VALUE`: only an engine that says the same can take
    /// them back.
    fn kv_layout(&self) -> String;

    /// Bytes of a block.
    fn kv_export_bytes(&self) -> usize;

    /// Appends the keys and values of positions `block * kv_block_positions ..`, `n` of them, to `out`.
    ///
    /// # Errors
    /// `UnknownSeq`, `PastEnd`.
    fn kv_export(&self, seq: Seq, block: usize, n: usize, out: &mut Vec<u8>) -> Result<(), EngineError>;

    /// Appends `n` positions to `seq`, which ends with a whole block.
    ///
    /// # Errors
    /// `UnknownSeq`, `KvFull`, `Failed` when the bytes are not those of a block or the sequence does not end
    /// with one.
    fn kv_import(&mut self, seq: Seq, n: usize, bytes: &[u8]) -> Result<(), EngineError>;
}
