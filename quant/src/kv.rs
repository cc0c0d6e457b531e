//! The shape of the KV cache: positions in a block, types of its values, bytes of a row.

/// Positions in a KV block.
pub const BLOCK: usize = 64;

/// Type of the values in the KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KvType {
    /// 4 bytes a value.
    F32,
    /// 2 bytes a value.
    F16,
    /// int8, and one `f32` scale for the keys and one for the values of a head at a position.
    Q8,
}

impl KvType {
    /// All of them, widest first.
    pub const ALL: [Self; 3] = [Self::F32, Self::F16, Self::Q8];

    /// The name as `--kv-type` takes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Q8 => "q8",
        }
    }

    /// The one called `name`.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kv| kv.name() == name)
    }

    /// Bytes of the keys, or the values, of one head at one position.
    pub const fn row_bytes(self, head_dim: usize) -> usize {
        match self {
            Self::F32 => 4 * head_dim,
            Self::F16 => 2 * head_dim,
            Self::Q8 => head_dim + 4,
        }
    }
}
