//! Sequences of ended requests, kept for the prefix they have in common with a later one.

use super::prefix::{Wanted, common, keys};
use crate::engine::{Engine, EngineError, Seq};
use std::collections::{HashSet, VecDeque};

/// A sequence of an ended request.
pub(super) struct Kept {
    pub seq: Seq,
    pub ids: Vec<u32>,
    /// Positions below were given, the others generated.
    pub given: usize,
    /// Below this position that is certain: a prefix taken from another sequence need not have been computed
    /// in the phases that its ids have here.
    pub known: usize,
    /// The numbers of the prefixes of `ids`, see [`keys`]; made when it is kept.
    pub prefixes: Vec<u64>,
}

/// A block of keys and values, as it is taken out of an engine and put back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvBlock {
    /// The ids of its positions; fewer than a block has only at the end of a sequence.
    pub ids: Vec<u32>,
    /// How many of them, from the first on, were given and not generated.
    pub given: usize,
    /// Whether it is certain that each position was computed in the phase that `given` says: only then an
    /// exact scheduler, or a request with log-probabilities, continues from it.
    pub certain: bool,
    /// Keys and values, see [`crate::engine::KvState`].
    pub bytes: Vec<u8>,
}

/// The kept sequences, in the order in which they ended or were last continued from.
pub(super) struct KeptSequences {
    list: VecDeque<Kept>,
    /// How many may be kept.
    most: usize,
}

impl KeptSequences {
    pub fn new(most: usize) -> Self {
        Self { list: VecDeque::new(), most }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Kept> {
        self.list.iter()
    }

    /// The sequence that has the most of `ids`, from the first on, and how many.
    pub fn like(&self, ids: &[u32]) -> Option<(&Kept, usize)> {
        let with_common = self.list.iter().map(|k| (k, common(&k.ids, ids)));
        with_common.filter(|&(_, n)| n > 0).max_by_key(|&(_, n)| n)
    }

    pub fn keep(&mut self, mut kept: Kept, wanted: &Wanted, engine: &mut dyn Engine) {
        kept.prefixes = keys(&kept.ids, engine.info().kv_block_positions);
        self.list.push_back(kept);
        if self.list.len() > self.most {
            self.evict(None, wanted, engine);
        }
    }

    /// A request continues from the first `common` positions of `seq`: takes it out of the list if no more
    /// than `lost` positions above them go with it.
    pub fn take(&mut self, seq: Seq, common: usize, lost: usize) -> bool {
        let Some(kept) = self.list.iter().position(|k| k.seq == seq).and_then(|i| self.list.remove(i)) else {
            return false;
        };
        let taken = kept.ids.len() < common + lost;
        if !taken {
            self.list.push_back(kept);
        }
        taken
    }

    /// Frees a sequence other than `spared`: one from which no waiting request could continue or not further
    /// than from a later one, else that with the shortest such prefix; of equal ones the oldest. Says whether
    /// there was one.
    pub fn evict(&mut self, spared: Option<Seq>, wanted: &Wanted, engine: &mut dyn Engine) -> bool {
        let mut seen = HashSet::new();
        let mut least = None;
        for (i, kept) in self.list.iter().enumerate().rev() {
            let (blocks, prefix) = wanted.longest(&kept.prefixes).unwrap_or_default();
            let blocks = if seen.insert(prefix) { blocks } else { 0 };
            if spared != Some(kept.seq) && least.is_none_or(|(_, fewest)| blocks <= fewest) {
                least = Some((i, blocks));
            }
        }
        let evicted = least.and_then(|(i, _)| self.list.remove(i));
        evicted.map(|kept| engine.seq_free(kept.seq)).is_some()
    }

    /// Block `block` of the sequence that has the most of `ids`, as far as they are the same; `None` past
    /// their end, and for an engine that gives no keys and values.
    pub fn export_block(
        &self,
        ids: &[u32],
        block: usize,
        engine: &mut dyn Engine,
    ) -> Result<Option<KvBlock>, EngineError> {
        let size = engine.info().kv_block_positions;
        let Some((kept, n)) = self.like(ids) else { return Ok(None) };
        let (Some(ids), Some(state)) = (ids[..n].chunks(size).nth(block), engine.kv_state()) else {
            return Ok(None);
        };
        let mut bytes = Vec::with_capacity(state.kv_export_bytes());
        state.kv_export(kept.seq, block, ids.len(), &mut bytes)?;
        let given = kept.given.saturating_sub(block * size).min(ids.len());
        let certain = kept.known >= block * size + ids.len();
        Ok(Some(KvBlock { ids: ids.to_vec(), given, certain, bytes }))
    }

    /// Appends `block` to the kept sequence `to`, or to a new one, and gives that sequence. `before`: the ids
    /// that `to` must have, empty for a new one. `None` where the block does not fit: the sequence is gone,
    /// has other ids, or ends within a block; no other sequence is left that could make room; none are kept.
    pub fn import_block(
        &mut self,
        to: Option<Seq>,
        before: &[u32],
        block: &KvBlock,
        wanted: &Wanted,
        engine: &mut dyn Engine,
    ) -> Option<Seq> {
        if self.most == 0 || (to.is_none() && !before.is_empty()) {
            return None;
        }
        engine.kv_state()?;
        let size = engine.info().kv_block_positions;
        let mut kept = match to {
            Some(seq) => {
                if !before.len().is_multiple_of(size) {
                    return None;
                }
                let i = self.list.iter().position(|k| k.seq == seq && k.ids == before)?;
                self.list.remove(i)?
            }
            None => {
                let (seq, ids, prefixes) = (engine.seq_new(), Vec::new(), Vec::new());
                Kept { seq, ids, given: 0, known: usize::MAX, prefixes }
            }
        };
        if engine.kv_free_blocks() == 0 {
            self.evict(None, wanted, engine);
        }
        let fits = engine.kv_state()?.kv_import(kept.seq, block.ids.len(), &block.bytes).is_ok();
        if fits {
            // Given ids come before generated ones.
            if kept.given == kept.ids.len() {
                kept.given += block.given.min(block.ids.len());
            }
            if !block.certain {
                kept.known = kept.known.min(kept.ids.len());
            }
            kept.ids.extend_from_slice(&block.ids);
        }
        let seq = kept.seq;
        if kept.ids.is_empty() {
            engine.seq_free(seq);
        } else {
            self.keep(kept, wanted, engine);
        }
        fits.then_some(seq)
    }
}
