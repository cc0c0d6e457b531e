//! The native engine: the forward pass of `model` over mapped weights, a team of threads, a pool of KV
//! blocks.

use super::{Engine, EngineError, Info, KvState, Phase, Seq, Sink, StepItem, StepStats, items};
use crate::model::bloom::{Column, Scratch, forward};
use crate::model::kv::{KvType, Pool, Table};
use crate::model::{Error, Weights};
use huozi_quant::gguf::Reader;
use huozi_quant::kernels::Isa;
use huozi_quant::kv::BLOCK;
use huozi_quant::matmul::{Arithmetic, Step};
use huozi_quant::team::Team;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

/// Columns that go through the layers together: bounds the scratch memory (about 40 MB for 7B).
pub const MICRO_BATCH: usize = 512;

/// Options of [`Native::open`].
#[derive(Clone, Copy, Debug)]
pub struct NativeOptions {
    /// Threads that compute; `None` = as many as this process may use.
    pub threads: Option<usize>,
    /// Type of the KV cache.
    pub kv: KvType,
    /// Positions the KV cache holds at most, over all sequences; rounded up to whole blocks. Memory is taken
    /// as it is used.
    pub kv_positions: usize,
}

/// The native engine.
pub struct Native {
    info: Info,
    isa: Isa,
    team: Team,
    /// The file that holds the weights.
    file: Reader,
    weights: Weights,
    pool: Pool,
    tables: BTreeMap<Seq, Table>,
    next_seq: u64,
    scratch: Scratch,
}

impl Native {
    /// Builds the engine over an open file. Weights are used in place, without a copy.
    ///
    /// # Errors
    /// When the file is no BLOOM model, `HUOZI_ISA` names nothing this CPU has, or threads are refused.
    pub fn open(reader: &Reader, options: &NativeOptions) -> Result<Self, Error> {
        let isa =
            Isa::from_env().map_err(|e| Error::System { what: "choosing kernels", source: Box::new(e) })?;
        let weights = Weights::from_gguf(reader)?;
        let threads = options.threads.unwrap_or_else(super::default_threads);
        let team = Team::new(threads)
            .map_err(|e| Error::System { what: "starting threads", source: Box::new(e) })?;
        let threads = team.threads();
        let kv_blocks = options.kv_positions.div_ceil(BLOCK);
        let shape = weights.shape;
        let info = Info {
            architecture: "bloom".into(),
            n_vocab: shape.n_vocab,
            n_embd: shape.n_embd,
            n_layer: shape.n_layer,
            n_head: shape.n_head,
            n_ctx_train: shape.n_ctx_train,
            model_bytes: reader.tensors().iter().map(|t| t.bytes).sum(),
            runs_on: format!("{isa}, {threads} thread{}", if threads == 1 { "" } else { "s" }),
            threads,
            kv: options.kv,
            kv_block_positions: BLOCK,
            kv_blocks,
            kv_block_bytes: shape.kv_block_bytes(options.kv) as usize,
        };
        Ok(Self {
            info,
            isa,
            team,
            file: reader.clone(),
            pool: Pool::new(&shape, options.kv, kv_blocks),
            weights,
            tables: BTreeMap::new(),
            next_seq: 0,
            scratch: Scratch::default(),
        })
    }

    fn table(&self, seq: Seq) -> Result<&Table, EngineError> {
        self.tables.get(&seq).ok_or(EngineError::UnknownSeq(seq))
    }

    fn insert(&mut self, table: Table) -> Seq {
        let seq = Seq(self.next_seq);
        self.next_seq += 1;
        self.tables.insert(seq, table);
        seq
    }

    /// Checks a step before it changes anything.
    fn check(&self, items: &[StepItem<'_>]) -> Result<(), EngineError> {
        items::check(items, self.info.n_vocab, |seq| self.tables.contains_key(&seq))?;
        let mut needed = 0;
        let mut tails = BTreeMap::new();
        for item in items {
            let table = self.table(item.seq)?;
            needed += self.pool.needed(table, item.tokens.len());
            if let Some((tail, owners)) = self.pool.shared_tail(table) {
                let appending = tails.entry(tail).or_insert(0);
                *appending += 1;
                // When all of its owners append, the last keeps the block.
                needed -= usize::from(*appending == owners);
            }
        }
        let free = self.pool.free();
        if needed > free { Err(EngineError::KvFull { needed, free }) } else { Ok(()) }
    }
}

impl Engine for Native {
    fn info(&self) -> &Info {
        &self.info
    }

    fn seq_new(&mut self) -> Seq {
        self.insert(Table::default())
    }

    fn seq_len(&self, seq: Seq) -> usize {
        self.tables.get(&seq).map_or(0, |t| t.len)
    }

    fn seq_fork(&mut self, src: Seq, len: usize) -> Result<Seq, EngineError> {
        let table = self.tables.get(&src).ok_or(EngineError::UnknownSeq(src))?;
        if len > table.len {
            return Err(EngineError::PastEnd { seq: src, len, have: table.len });
        }
        let fork = self.pool.fork(table, len);
        Ok(self.insert(fork))
    }

    fn seq_truncate(&mut self, seq: Seq, len: usize) -> Result<(), EngineError> {
        let table = self.tables.get_mut(&seq).ok_or(EngineError::UnknownSeq(seq))?;
        if len > table.len {
            return Err(EngineError::PastEnd { seq, len, have: table.len });
        }
        self.pool.truncate(table, len);
        Ok(())
    }

    fn seq_free(&mut self, seq: Seq) {
        if let Some(mut table) = self.tables.remove(&seq) {
            self.pool.truncate(&mut table, 0);
        }
    }

    fn kv_free_blocks(&self) -> usize {
        self.pool.free()
    }

    fn step_watched(
        &mut self,
        items: &[StepItem<'_>],
        sink: &mut Sink<'_>,
        progress: &mut dyn FnMut(f64),
        cancel: &AtomicBool,
    ) -> Result<StepStats, EngineError> {
        self.check(items)?;
        // Takes a microsecond, and turns most truncations of the file, which would end the process with
        // SIGBUS, into an error.
        self.file.check_length().map_err(|e| EngineError::File(format!("{}: {e}", self.file.name())))?;
        for item in items {
            let table = self.tables.get_mut(&item.seq).expect("checked");
            self.pool.reserve(table, item.tokens.len());
        }
        let Self { team, weights, pool, tables, scratch, isa, .. } = self;
        let columns = |phase: Phase| -> Vec<Column<'_>> {
            let of_phase = items.iter().enumerate().filter(|(_, item)| item.phase == phase);
            let mut of_phase: Vec<_> = of_phase.collect();
            // Sequences that share blocks side by side, those that share most next to each other: attention
            // reads these blocks once for them.
            of_phase.sort_by_cached_key(|(_, item)| &tables[&item.seq].blocks);
            of_phase
                .into_iter()
                .flat_map(|(index, item)| {
                    let table = &tables[&item.seq];
                    items::tokens(item).map(move |(j, token, wanted)| Column {
                        item: index,
                        token,
                        position: table.len + j,
                        blocks: &table.blocks,
                        wanted,
                    })
                })
                .collect()
        };
        // Generated tokens go first, so that answers do not wait for prompts.
        let phases =
            [(Arithmetic::Narrow, columns(Phase::Generated)), (Arithmetic::Wide, columns(Phase::Given))];
        let all = || phases.iter().flat_map(|(_, columns)| columns);
        let (tokens, rows) = (all().count(), all().filter(|column| column.wanted).count());
        team.enter(cancel, |crew| {
            let mut done = 0;
            let batches = phases.iter().flat_map(|(arithmetic, columns)| {
                columns.chunks(MICRO_BATCH).map(|batch| (*arithmetic, batch))
            });
            for (arithmetic, batch) in batches {
                let mut watch = |share: f64| {
                    progress((done as f64 + share * batch.len() as f64) / tokens as f64);
                };
                let step = Step { crew, isa: *isa, arithmetic };
                forward(step, weights, pool, batch, scratch, &mut watch, sink);
                done += batch.len();
            }
        });
        let cancelled = cancel.load(Ordering::Relaxed);
        for item in items {
            let table = self.tables.get_mut(&item.seq).expect("checked");
            let len = table.len + if cancelled { 0 } else { item.tokens.len() };
            self.pool.truncate(table, len);
        }
        if cancelled { Err(EngineError::Cancelled) } else { Ok(StepStats { tokens, rows }) }
    }

    fn kv_state(&mut self) -> Option<&mut dyn KvState> {
        Some(self)
    }
}

/// Version of the exported bytes: changes with the values of keys and values for the same file and
/// instruction set, and with their order in a block.
const KV_LAYOUT: u32 = 1;

impl KvState for Native {
    fn kv_layout(&self) -> String {
        let Info { n_layer, n_head, n_embd, kv, .. } = &self.info;
        let (isa, kv, head_dim) = (self.isa, kv.name(), n_embd / n_head);
        format!(
            "engine: native {KV_LAYOUT}\narithmetic: {isa}\nKV type: {kv}\n\
             shape: {n_layer} x {n_head} x {head_dim} x {BLOCK}"
        )
    }

    fn kv_export_bytes(&self) -> usize {
        self.pool.export_bytes()
    }

    fn kv_export(&self, seq: Seq, block: usize, n: usize, out: &mut Vec<u8>) -> Result<(), EngineError> {
        let table = self.table(seq)?;
        let len = block.saturating_mul(BLOCK).saturating_add(n);
        if n == 0 || n > BLOCK || len > table.len {
            return Err(EngineError::PastEnd { seq, len, have: table.len });
        }
        self.pool.export(table, block, n, out);
        Ok(())
    }

    fn kv_import(&mut self, seq: Seq, n: usize, bytes: &[u8]) -> Result<(), EngineError> {
        let expected = self.pool.export_bytes();
        let table = self.tables.get_mut(&seq).ok_or(EngineError::UnknownSeq(seq))?;
        if bytes.len() != expected || n == 0 || n > BLOCK || !table.len.is_multiple_of(BLOCK) {
            let (have, len) = (bytes.len(), table.len);
            let what = format!("{have} bytes for {n} positions after {len}, a block has {expected} bytes");
            return Err(EngineError::Failed(what));
        }
        let free = self.pool.free();
        if free == 0 {
            return Err(EngineError::KvFull { needed: 1, free });
        }
        self.pool.import(table, n, bytes);
        Ok(())
    }
}
