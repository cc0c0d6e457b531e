//! The KV cache: a pool of reference-counted blocks of 64 positions.
//!
//! Inside a block: `[layer][k|v][head][64][head_dim]`. A sequence is a table of blocks; forks share them, and whoever
//! appends to a shared block gets a copy of his own first. Memory of a block is taken on its first use and then kept.

use huozi_quant::attention::{BLOCK, KvValue};
use huozi_quant::formats::F16;
use huozi_quant::shape::Shape;

/// Type of the values in the KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KvType {
    /// 4 bytes a value.
    F32,
    /// 2 bytes a value.
    F16,
}

impl KvType {
    /// Bytes of one value.
    pub const fn value_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
        }
    }

    /// The name as `--kv-type` takes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
        }
    }
}

/// The number of a block in its pool.
pub type BlockId = usize;

struct Block<T> {
    values: Vec<T>,
    /// Sequences whose table names it; 0 = free.
    owners: usize,
}

/// Blocks of one value type.
pub struct Blocks<T> {
    blocks: Vec<Block<T>>,
    free: Vec<BlockId>,
    /// Blocks there may be; `blocks` grows up to it.
    capacity: usize,
    n_head: usize,
    head_dim: usize,
    /// Values of one block.
    block_len: usize,
}

/// Where a column of a step writes its keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The block.
    pub block: BlockId,
    /// Position inside it.
    pub offset: usize,
}

impl<T: KvValue> Blocks<T> {
    fn new(shape: &Shape, capacity: usize) -> Self {
        Self {
            blocks: Vec::new(),
            free: Vec::new(),
            capacity,
            n_head: shape.n_head,
            head_dim: shape.head_dim(),
            block_len: shape.n_layer * 2 * shape.n_embd * BLOCK,
        }
    }

    fn take(&mut self) -> Option<BlockId> {
        if let Some(id) = self.free.pop() {
            self.blocks[id].owners = 1;
            return Some(id);
        }
        if self.blocks.len() == self.capacity {
            return None;
        }
        self.blocks.push(Block { values: vec![T::zeroed(); self.block_len], owners: 1 });
        Some(self.blocks.len() - 1)
    }

    fn available(&self) -> usize {
        self.free.len() + self.capacity - self.blocks.len()
    }

    fn release(&mut self, id: BlockId) {
        let block = &mut self.blocks[id];
        block.owners -= 1;
        if block.owners == 0 {
            self.free.push(id);
        }
    }

    /// Start of the keys of a head in a block; its values follow `n_head` heads later.
    fn start(&self, layer: usize, head: usize) -> usize {
        (layer * 2 * self.n_head + head) * BLOCK * self.head_dim
    }

    /// Keys and values of `head` in `layer`, each `[64][head_dim]`.
    pub fn head(&self, id: BlockId, layer: usize, head: usize) -> (&[T], &[T]) {
        let len = BLOCK * self.head_dim;
        let keys = self.start(layer, head);
        let values = keys + self.n_head * len;
        let block = &self.blocks[id].values;
        (&block[keys..keys + len], &block[values..values + len])
    }

    /// Stores the keys and values of a step's columns: one phase over the blocks that are written to.
    ///
    /// `slots[c]`: where column `c` goes. `qkv`: `(columns, 3 n_embd)` row-major, each row queries, keys, values.
    pub fn store(&mut self, crew: &huozi_quant::team::Crew<'_>, layer: usize, slots: &[Slot], qkv: &[f32]) {
        let (n_head, d) = (self.n_head, self.head_dim);
        let n_embd = n_head * d;
        let first = self.start(layer, 0);
        let mut written: Vec<(BlockId, &mut [T])> = self
            .blocks
            .iter_mut()
            .enumerate()
            .filter(|(id, _)| slots.iter().any(|slot| slot.block == *id))
            .map(|(id, block)| (id, &mut block.values[first..first + 2 * n_embd * BLOCK]))
            .collect();
        crew.rows(&mut written, 1, |_, row| {
            let (id, kv) = &mut row[0];
            for (c, slot) in slots.iter().enumerate().filter(|(_, slot)| slot.block == *id) {
                let (keys, values) = qkv[c * 3 * n_embd..][n_embd..3 * n_embd].split_at(n_embd);
                for head in 0..n_head {
                    for (part, x) in [(0, keys), (n_head, values)] {
                        let to = &mut kv[((part + head) * BLOCK + slot.offset) * d..][..d];
                        for (to, &x) in to.iter_mut().zip(&x[head * d..][..d]) {
                            *to = T::from_f32(x);
                        }
                    }
                }
            }
        });
    }

    fn copy(&mut self, from: BlockId, to: BlockId) {
        let values = std::mem::take(&mut self.blocks[from].values);
        self.blocks[to].values.copy_from_slice(&values);
        self.blocks[from].values = values;
    }
}

/// A pool of blocks of either value type.
pub enum Pool {
    /// Values in f32.
    F32(Blocks<f32>),
    /// Values in f16.
    F16(Blocks<F16>),
}

macro_rules! with {
    ($pool:expr, $blocks:ident => $do:expr) => {
        match $pool {
            Pool::F32($blocks) => $do,
            Pool::F16($blocks) => $do,
        }
    };
}

/// The blocks of a sequence, in order of position, and how many positions are filled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Blocks; position `p` lies in block `p / 64`.
    pub blocks: Vec<BlockId>,
    /// Positions filled.
    pub len: usize,
}

impl Pool {
    /// A pool of `capacity` blocks.
    pub fn new(shape: &Shape, kv: KvType, capacity: usize) -> Self {
        match kv {
            KvType::F32 => Self::F32(Blocks::new(shape, capacity)),
            KvType::F16 => Self::F16(Blocks::new(shape, capacity)),
        }
    }

    /// Blocks nobody uses.
    pub fn free(&self) -> usize {
        with!(self, b => b.available())
    }

    /// Blocks that [`Self::reserve`] would take.
    pub fn needed(&self, table: &Table, tokens: usize) -> usize {
        let blocks = (table.len + tokens).div_ceil(BLOCK) - table.blocks.len();
        blocks + usize::from(self.shared_tail(table).is_some())
    }

    /// The last block when the next position falls into it and others use it too.
    fn shared_tail(&self, table: &Table) -> Option<BlockId> {
        if table.len.is_multiple_of(BLOCK) {
            return None;
        }
        let id = *table.blocks.last()?;
        with!(self, b => b.blocks[id].owners > 1).then_some(id)
    }

    /// Gives `table` blocks of its own for `tokens` more positions. Its length stays.
    ///
    /// # Panics
    /// When fewer than [`Self::needed`] blocks are free.
    pub fn reserve(&mut self, table: &mut Table, tokens: usize) {
        let tail = self.shared_tail(table);
        let blocks = (table.len + tokens).div_ceil(BLOCK);
        with!(self, b => {
            if let Some(id) = tail {
                let own = b.take().expect("blocks were counted");
                b.copy(id, own);
                b.release(id);
                *table.blocks.last_mut().expect("a tail") = own;
            }
            while table.blocks.len() < blocks {
                table.blocks.push(b.take().expect("blocks were counted"));
            }
        });
    }

    /// Cuts `table` to `len` positions and frees the blocks past them.
    pub fn truncate(&mut self, table: &mut Table, len: usize) {
        table.len = len;
        with!(self, b => {
            for id in table.blocks.drain(len.div_ceil(BLOCK)..) {
                b.release(id);
            }
        });
    }

    /// A table that shares the blocks of the first `len` positions of `table`; a partly filled last block is copied
    /// when somebody appends to it.
    pub fn fork(&mut self, table: &Table, len: usize) -> Table {
        let blocks = table.blocks[..len.div_ceil(BLOCK)].to_vec();
        with!(self, b => blocks.iter().for_each(|&id| b.blocks[id].owners += 1));
        Table { blocks, len }
    }
}
