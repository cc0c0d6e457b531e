//! How a model is opened, and what its engine has room for.

use super::error::Error;
use crate::engine::{EngineKind, FlashAttention, KvType};

/// How a model is opened and run.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenOptions {
    /// The inference engine.
    pub engine: EngineKind,
    /// Threads that compute, of which at most one for each processor runs; `None` is one for each fast
    /// physical core.
    pub threads: Option<usize>,
    /// Type of the KV cache.
    pub kv: KvType,
    /// How llama.cpp computes attention; only `None` with the native engine.
    pub flash_attention: Option<FlashAttention>,
    /// Map the file; otherwise it is read into memory of the process.
    pub mmap: bool,
    /// Lock the weights in memory; native engine only.
    pub mlock: bool,
    /// Refuse a model that needs more memory than is available.
    pub check_memory: bool,
    /// Positions that [`Loaded::engine`](super::Loaded::engine) will be asked for, as far as the caller
    /// knows: random weights are made only if there is memory for these, too.
    pub expected_positions: usize,
}

impl Default for OpenOptions {
    /// The native engine with an `f16` KV cache over a mapped file, memory checked.
    fn default() -> Self {
        Self {
            engine: EngineKind::Native,
            threads: None,
            kv: KvType::F16,
            flash_attention: None,
            mmap: true,
            mlock: false,
            check_memory: true,
            expected_positions: 0,
        }
    }
}

impl OpenOptions {
    /// Refuses an engine that this build does not have, and options that the engine does not have.
    ///
    /// # Errors
    /// [`Error::NotBuilt`], [`Error::MlockWithGgml`], [`Error::FlashAttentionWithNative`].
    pub fn check(&self) -> Result<(), Error> {
        match self.engine {
            kind if !kind.is_built() => Err(Error::NotBuilt),
            EngineKind::Ggml if self.mlock => Err(Error::MlockWithGgml),
            EngineKind::Native if self.flash_attention.is_some() => Err(Error::FlashAttentionWithNative),
            _ => Ok(()),
        }
    }
}

/// Sequences of a conversation: the one that runs and those that the scheduler keeps for their prefixes.
const CONVERSATION_SEQUENCES: usize = 8;

/// What an engine has room for. The native engine needs the positions only; llama.cpp must know the sequences
/// before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Positions of the KV cache, over all sequences.
    pub positions: usize,
    /// Sequences with positions at a time.
    pub sequences: usize,
    /// Positions of the longest sequence, where no two sequences share a prefix.
    pub apart: Option<usize>,
}

impl Room {
    /// One sequence of at most `positions`.
    pub const fn single(positions: usize) -> Self {
        Self { positions, sequences: 1, apart: None }
    }

    /// A conversation with a context of `positions`.
    pub const fn conversation(positions: usize) -> Self {
        Self { positions, sequences: CONVERSATION_SEQUENCES, apart: None }
    }

    /// Positions of the KV cache that an engine of `kind` allocates. llama.cpp gives each sequence an equal
    /// part, in units of 256, where no two sequences share a prefix.
    pub(super) fn engine_positions(&self, kind: EngineKind) -> usize {
        match (kind, self.apart) {
            (EngineKind::Ggml, Some(each)) => each.next_multiple_of(256).saturating_mul(self.sequences),
            _ => self.positions,
        }
    }
}

/// A step on the way from a source to an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenStep {
    /// The built-in demo model is converted, for the first time.
    Convert,
    /// The vocabulary is built.
    Build,
    /// The file is brought into memory.
    Read,
}

/// Called with the step, the bytes done and the bytes of the whole step; both 0 where a step does not count
/// bytes.
pub type OpenProgress<'a> = dyn Fn(OpenStep, u64, u64) + Sync + 'a;

/// A progress callback that shows nothing.
pub fn silent(_: OpenStep, _: u64, _: u64) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llama_cpp_gives_each_sequence_whole_units_of_256_positions() {
        let room = Room { positions: 700, sequences: 3, apart: Some(257) };
        assert_eq!(room.engine_positions(EngineKind::Native), 700);
        assert_eq!(room.engine_positions(EngineKind::Ggml), 3 * 512);
        assert_eq!(Room::single(700).engine_positions(EngineKind::Ggml), 700);
    }
}
