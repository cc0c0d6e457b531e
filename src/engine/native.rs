//! Our own engine: the forward pass of `model` over mapped weights.

use super::KvType;

/// How to build a [`Native`].
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Threads that compute; `None` = all that this process may use.
    pub threads: Option<usize>,
    /// Type of the KV cache.
    pub kv: KvType,
    /// Positions the KV cache holds at most, over all sequences; rounded up to whole blocks.
    pub kv_positions: usize,
}

/// Our own engine.
pub struct Native {}

impl Native {
    /// Builds the engine from an open file: `Native::open(&reader, &options) -> Result<Native, model::Error>`.
    pub fn open(
        reader: &huozi_quant::gguf::Reader,
        options: &Options,
    ) -> Result<Self, crate::model::Error> {
        let _ = (reader, options);
        todo!()
    }
}
