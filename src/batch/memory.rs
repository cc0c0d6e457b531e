//! How much memory a run takes: weights, scratch and as many keys and values as there is room for.

use crate::open::{Loaded, Memory, resident_bytes};
use huozi_quant::message::size;

/// Positions in a block of keys and values of the native engine.
const BLOCK: usize = 64;
/// Bytes left free where no limit is given, at least; and as a part of what is free.
const SPARE_BYTES: u64 = 256 << 20;
const SPARE_PART: u64 = 16;

/// What a run takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Positions of the KV cache.
    pub positions: usize,
    /// Bytes of keys and values.
    pub kv: u64,
    /// Bytes of weights.
    pub weights: u64,
    /// Bytes of scratch memory.
    pub scratch: u64,
    /// Bytes that the program holds already: vocabulary, index of the rows.
    pub program: u64,
    /// Bytes that there are for all of these; `None` where the system does not say.
    pub limit: Option<u64>,
}

impl MemoryPlan {
    /// Bytes in all.
    pub fn total(&self) -> u64 {
        [self.kv, self.weights, self.scratch, self.program].iter().fold(0, |sum, n| sum.saturating_add(*n))
    }
}

/// Too little memory for a single row.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "{name}: {} for weights, {} for scratch, {} held by the program and {} for the KV cache of one row of \
     {row} tokens make {}, but there are only {}{}; fewer tokens (-n, -c), --kv-type q8 or a smaller type \
     need less",
    size(plan.weights), size(plan.scratch), size(plan.program), size(plan.kv), size(plan.total()),
    size(plan.limit.unwrap_or_default()),
    if *asked { " of --memory" } else { " of memory available" },
)]
pub struct TooLittleMemory {
    /// The model.
    pub name: String,
    /// What one row takes.
    pub plan: MemoryPlan,
    /// Tokens of the longest row.
    pub row: usize,
    /// Whether the limit was asked for.
    pub asked: bool,
}

/// Plans memory for a KV cache that holds at least a sequence of `row` tokens, the longest row, and at most
/// `sequences` of them. `limit`: bytes that may be used in all; else what is available, with some left.
///
/// # Errors
/// [`TooLittleMemory`].
pub fn plan(
    model: &Loaded,
    row: usize,
    sequences: usize,
    limit: Option<u64>,
) -> Result<MemoryPlan, TooLittleMemory> {
    let row = row.max(1).next_multiple_of(BLOCK);
    let program = resident_bytes().unwrap_or(0);
    // What the program holds already is not counted as available.
    let available = Memory::now().map(|memory| memory.available.saturating_add(program));
    let allowed = match (limit, available) {
        (Some(limit), Some(available)) => Some(limit.min(available)),
        (limit, available) => limit.or(available),
    };
    let of = |positions: usize| {
        let forecast = model.forecast(positions);
        let weights = if model.is_file() { forecast.file } else { 0 };
        let (kv, scratch) = (forecast.kv, forecast.scratch);
        MemoryPlan { positions, kv, weights, scratch, program, limit: allowed }
    };
    let least = of(row);
    // Each sequence ends within a block.
    let most = of((row + BLOCK).saturating_mul(sequences.max(1)));
    let Some(allowed) = allowed else { return Ok(most) };
    if least.total() > allowed {
        let asked = limit.is_some_and(|limit| Some(limit) == least.limit);
        return Err(TooLittleMemory { name: model.path().display().to_string(), plan: least, row, asked });
    }
    let spare = match limit {
        Some(limit) if available.is_none_or(|available| limit <= available) => 0,
        _ => SPARE_BYTES.max(allowed / SPARE_PART),
    };
    let left = allowed.saturating_sub(least.total()).saturating_sub(spare);
    // Keys and values take the same number of bytes for every block.
    let more = left.saturating_mul(row as u64) / least.kv.max(1);
    let positions = row.saturating_add(usize::try_from(more).unwrap_or(usize::MAX) / BLOCK * BLOCK);
    Ok(if positions >= most.positions { most } else { of(positions) })
}
