//! The KV cache: a pool of reference-counted blocks of 64 positions.
//!
//! Inside a block: `[layer][head]` of keys `[head_dim][64]` and values `[64][head_dim]`, and for types that
//! have them `[layer][head][k|v][64]` scales. A sequence is a table of blocks; forks share them, and a
//! sequence that appends to a shared block gets a copy of it first. The memory of a block is allocated at its
//! first use and then kept.

use huozi_quant::attention::{HeadBlock, HeadBlockMut, KvValue, Rows, store};
use huozi_quant::bloom::shape::Shape;
use huozi_quant::buffer::Buffer;
use huozi_quant::formats::F16;
use huozi_quant::kernels::Isa;
use huozi_quant::team::Crew;
use std::ops::Range;

use huozi_quant::kv::BLOCK;
pub use huozi_quant::kv::KvType;

/// The number of a block in its pool.
pub type BlockId = usize;

struct Block<T> {
    /// `[layer][head][keys, then values]`.
    values: Buffer<T>,
    /// `[layer][head][of keys, then of values][64]`; empty for types without scales.
    scales: Vec<f32>,
    /// `[layer][head]`, see [`HeadBlock::bound`].
    bounds: Vec<f32>,
    /// Sequences whose table names it; 0 = free.
    owners: usize,
}

/// Blocks of one value type.
pub struct Blocks<T> {
    blocks: Vec<Block<T>>,
    free: Vec<BlockId>,
    /// Blocks there may be; `blocks` grows up to it.
    capacity: usize,
    n_layer: usize,
    n_head: usize,
    head_dim: usize,
}

/// Consecutive columns of a step that write their keys and values into one block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The block; no other run of the step names it.
    pub block: BlockId,
    /// Position inside it of the first column.
    pub offset: usize,
    /// The columns.
    pub columns: Range<usize>,
}

impl<T: KvValue> Blocks<T> {
    fn new(shape: &Shape, capacity: usize) -> Self {
        Self {
            blocks: Vec::new(),
            free: Vec::new(),
            capacity,
            n_layer: shape.n_layer,
            n_head: shape.n_head,
            head_dim: shape.head_dim(),
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
        let heads = self.n_layer * self.n_head;
        self.blocks.push(Block {
            values: Buffer::zeroed(heads * self.head_len()),
            scales: vec![0.0; heads * self.head_scales()],
            bounds: vec![0.0; heads],
            owners: 1,
        });
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

    /// Keys and values of one head in a block.
    fn head_len(&self) -> usize {
        2 * BLOCK * self.head_dim
    }

    /// Their scales.
    fn head_scales(&self) -> usize {
        if T::SCALED { 2 * BLOCK } else { 0 }
    }

    /// Keys and values of `head` in `layer`.
    pub fn head(&self, id: BlockId, layer: usize, head: usize) -> HeadBlock<'_, T> {
        let block = &self.blocks[id];
        let head = layer * self.n_head + head;
        let (len, scales) = (self.head_len(), self.head_scales());
        let (keys, values) = block.values[head * len..][..len].split_at(len / 2);
        let (key_scales, value_scales) = block.scales[head * scales..][..scales].split_at(scales / 2);
        HeadBlock { keys, values, key_scales, value_scales, bound: block.bounds[head] }
    }

    /// Stores the keys and values of a step's columns: one phase over the heads of the blocks that are
    /// written to.
    ///
    /// `runs`: by ascending block. `qkv`: `(columns, 3 n_embd)` row-major, each row queries, keys, values.
    ///
    /// # Panics
    /// When a block does not exist or runs are not ascending.
    pub fn store(&mut self, crew: &Crew<'_>, isa: Isa, layer: usize, runs: &[Run], qkv: &[f32]) {
        let (n_head, d) = (self.n_head, self.head_dim);
        let (n_embd, first) = (n_head * d, layer * n_head);
        let (len, scales) = (self.head_len(), self.head_scales());
        let mut pieces = Vec::with_capacity(runs.len() * n_head);
        let mut blocks = self.blocks.iter_mut();
        let mut passed = 0;
        for run in runs {
            let block = blocks.nth(run.block - passed).expect("runs name ascending blocks that exist");
            passed = run.block + 1;
            let mut values = block.values[first * len..][..n_head * len].chunks_exact_mut(len);
            let mut scales_left = &mut block.scales[first * scales..][..n_head * scales];
            for (head, bound) in block.bounds[first..][..n_head].iter_mut().enumerate() {
                let (keys, values) = values.next().expect("a piece per head").split_at_mut(len / 2);
                let (own, rest) = std::mem::take(&mut scales_left).split_at_mut(scales);
                scales_left = rest;
                let (key_scales, value_scales) = own.split_at_mut(scales / 2);
                let to = HeadBlockMut { keys, values, key_scales, value_scales, bound };
                pieces.push((run, head, Some(to)));
            }
        }
        crew.rows(&mut pieces, 1, |_, piece| {
            let (run, head, to) = &mut piece[0];
            let Some(to) = to.take() else { return };
            let k = &qkv[run.columns.start * 3 * n_embd + n_embd + *head * d..];
            let rows = Rows {
                head_dim: d,
                offset: run.offset,
                n: run.columns.len(),
                k,
                v: &k[n_embd..],
                stride: 3 * n_embd,
            };
            store(isa, to, rows);
        });
    }

    fn copy(&mut self, from: BlockId, to: BlockId) {
        let Ok([from, to]) = self.blocks.get_disjoint_mut([from, to]) else {
            unreachable!("a block is copied to another one")
        };
        to.values.copy_from_slice(&from.values);
        to.scales.copy_from_slice(&from.scales);
        to.bounds.copy_from_slice(&from.bounds);
    }

    /// Bytes of what [`Self::export`] gives.
    fn export_bytes(&self) -> usize {
        let heads = self.n_layer * self.n_head;
        heads * (self.head_len() * size_of::<T>() + 4 * self.head_scales() + 4)
    }

    /// Appends the first `n` positions of a block to `out`: values, scales and bounds as they lie in memory,
    /// numbers little-endian. The other positions are written as zeros: the block may hold rows of another
    /// sequence there.
    fn export(&self, id: BlockId, n: usize, out: &mut Vec<u8>) {
        let block = &self.blocks[id];
        let start = out.len();
        out.extend_from_slice(block.values.bytes());
        let numbers = block.scales.len();
        out.extend(block.scales.iter().chain(&block.bounds).flat_map(|x| x.to_le_bytes()));
        if n == BLOCK {
            return;
        }
        let (values, rest) = out[start..].split_at_mut(block.values.bytes().len());
        let (scales, bounds) = rest.split_at_mut(4 * numbers);
        let size = size_of::<T>();
        for head in values.chunks_exact_mut(self.head_len() * size) {
            let (keys, values) = head.split_at_mut(head.len() / 2);
            keys.chunks_exact_mut(BLOCK * size).for_each(|key| key[n * size..].fill(0));
            values[n * self.head_dim * size..].fill(0);
        }
        scales.chunks_exact_mut(4 * BLOCK).for_each(|scales| scales[4 * n..].fill(0));
        // The bound of a block is known when it is full.
        bounds.fill(0);
    }

    /// The opposite of [`Self::export`].
    fn import(&mut self, id: BlockId, bytes: &[u8]) {
        let block = &mut self.blocks[id];
        let (values, rest) = bytes.split_at(block.values.bytes().len());
        block.values.bytes_mut().copy_from_slice(values);
        let numbers = rest.as_chunks::<4>().0.iter().map(|x| f32::from_le_bytes(*x));
        for (to, x) in block.scales.iter_mut().chain(&mut block.bounds).zip(numbers) {
            *to = x;
        }
    }
}

/// A pool of blocks of one of the value types.
pub enum Pool {
    /// Values in f32.
    F32(Blocks<f32>),
    /// Values in f16.
    F16(Blocks<F16>),
    /// Values in int8 with scales.
    Q8(Blocks<i8>),
}

macro_rules! with {
    ($pool:expr, $blocks:ident => $do:expr) => {
        match $pool {
            Pool::F32($blocks) => $do,
            Pool::F16($blocks) => $do,
            Pool::Q8($blocks) => $do,
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
            KvType::Q8 => Self::Q8(Blocks::new(shape, capacity)),
        }
    }

    /// Free blocks.
    pub fn free(&self) -> usize {
        with!(self, b => b.available())
    }

    /// Blocks that [`Self::reserve`] would take.
    pub fn needed(&self, table: &Table, tokens: usize) -> usize {
        let blocks = (table.len + tokens).div_ceil(BLOCK) - table.blocks.len();
        blocks + usize::from(self.shared_tail(table).is_some())
    }

    /// The last block when the next position falls into it and others use it too, and how many use it.
    pub fn shared_tail(&self, table: &Table) -> Option<(BlockId, usize)> {
        if table.len.is_multiple_of(BLOCK) {
            return None;
        }
        let id = *table.blocks.last()?;
        let owners = with!(self, b => b.blocks[id].owners);
        (owners > 1).then_some((id, owners))
    }

    /// Gives `table` blocks of its own for `tokens` more positions. Its length stays.
    ///
    /// # Panics
    /// When fewer than [`Self::needed`] blocks are free.
    pub fn reserve(&mut self, table: &mut Table, tokens: usize) {
        let tail = self.shared_tail(table);
        let blocks = (table.len + tokens).div_ceil(BLOCK);
        with!(self, b => {
            if let Some((id, _)) = tail {
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

    /// Bytes of an exported block.
    pub fn export_bytes(&self) -> usize {
        with!(self, b => b.export_bytes())
    }

    /// Appends the first `n` positions of block `block` of `table` to `out`, as they lie in memory: for each
    /// layer and head keys and values, then all scales, then all bounds; zeros for positions from `n` on.
    ///
    /// # Panics
    /// When the table has no such block.
    pub fn export(&self, table: &Table, block: usize, n: usize, out: &mut Vec<u8>) {
        with!(self, b => b.export(table.blocks[block], n, out));
    }

    /// Appends a block that was exported with `n` positions to `table`, which ends with a whole block.
    ///
    /// # Panics
    /// When no block is free, or `bytes` are not [`Self::export_bytes`].
    pub fn import(&mut self, table: &mut Table, n: usize, bytes: &[u8]) {
        assert!(table.len.is_multiple_of(BLOCK) && n <= BLOCK && bytes.len() == self.export_bytes());
        self.reserve(table, n);
        let id = *table.blocks.last().expect("reserved");
        with!(self, b => b.import(id, bytes));
        table.len += n;
    }

    /// A table that shares the blocks of the first `len` positions of `table`; a partly filled last block is
    /// copied when one of its sequences appends to it.
    pub fn fork(&mut self, table: &Table, len: usize) -> Table {
        let blocks = table.blocks[..len.div_ceil(BLOCK)].to_vec();
        with!(self, b => blocks.iter().for_each(|&id| b.blocks[id].owners += 1));
        Table { blocks, len }
    }
}
