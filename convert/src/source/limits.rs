//! What a checkpoint may have at most.

/// Dimensions of a tensor at most.
pub(super) const MAX_DIMS: usize = 8;
/// Tensors of a checkpoint at most, as in a GGUF file. A BLOOM of 30 layers has 365.
pub(super) const MAX_TENSORS: usize = 1 << 16;
/// `tokenizer.json` of a 250,000-token vocabulary has 15 MB.
pub(crate) const MAX_TOKENIZER_BYTES: u64 = 256 << 20;
/// The other texts have some KB each, and are held as whole trees of values.
pub(super) const MAX_TEXT_BYTES: u64 = 4 << 20;
