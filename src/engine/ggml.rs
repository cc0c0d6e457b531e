//! llama.cpp as a second engine, to compare with: the same file, the same threads, the same trait.
//!
//! In: a model file that Huozi's reader has accepted, since llama.cpp stops the process over some broken
//! ones. Out: its logits. Nothing of llama.cpp is named outside this module.
//!
//! Given tokens go in micro-batches of [`MICRO_BATCH`]; generated ones one at a time per sequence, those of
//! several sequences together, as `llama-batched-bench` does: llama.cpp chooses its arithmetic by the width
//! of a batch, not by phase. `cancel` is polled between micro-batches, no finer. The KV cache is one pool of
//! cells for all sequences, a "block" is one position, and forks share cells.

mod raw;

pub use raw::{dequantize, quantize};

use super::{
    Engine, EngineError, FlashAttention, Info, KvType, Phase, Seq, Sink, StepItem, StepStats, items,
};
use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::params::{KvCacheType, LlamaContextParams};
use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::model::params::LlamaModelParams;
use llama_cpp_2::token::LlamaToken;
use llama_cpp_2::{LogOptions, send_logs_to_tracing};
use rayon::iter::{IntoParallelIterator, ParallelIterator};
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// Tokens that go through the layers together: llama.cpp's default `n_ubatch`.
pub const MICRO_BATCH: usize = 512;
/// Floats of logits alive at a time at most (128 MiB): a micro-batch that wants more rows is cut.
const LOGIT_FLOATS: usize = 32 << 20;
/// Sequences at most, llama.cpp's own bound.
pub const MAX_SEQUENCES: usize = 256;
/// The crate that brings llama.cpp, and with its version the commit.
const SOURCE: &str = "llama-cpp-sys-2 0.1.161";

/// Options of [`Ggml::open`].
#[derive(Clone, Copy, Debug)]
pub struct GgmlOptions {
    /// Threads that compute; `None` = as many as this process may use.
    pub threads: Option<usize>,
    /// Type of the KV cache, keys and values alike.
    pub kv: KvType,
    /// Positions the KV cache holds, over all sequences. Memory is taken at once.
    pub kv_positions: usize,
    /// Sequences with positions at a time, 1 to [`MAX_SEQUENCES`].
    pub sequences: usize,
    /// One cache that all sequences share, as forks need; otherwise each has its part of the positions for
    /// itself, which is faster where they have nothing in common.
    pub shared: bool,
    /// How attention is computed.
    pub flash_attention: FlashAttention,
    /// Map the file instead of reading it. Weights that llama.cpp repacks are copied either way.
    pub mmap: bool,
}

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be used.
    #[error("{}: llama.cpp cannot load it: {reason}", path.display())]
    Load {
        /// The file.
        path: PathBuf,
        /// What its binding says.
        reason: String,
    },
    /// An option is out of llama.cpp's range.
    #[error("llama.cpp takes {what} from 1 to {most}, not {asked}")]
    Option {
        /// The option.
        what: &'static str,
        /// Its value.
        asked: usize,
        /// The largest.
        most: usize,
    },
    /// The library or a context could not be set up.
    #[error("llama.cpp: {0}")]
    Setup(String),
}

/// llama.cpp with one model and one context.
pub struct Ggml {
    info: Info,
    model: &'static LlamaModel,
    context: LlamaContext<'static>,
    /// As many threads as llama.cpp's, for rows of logits.
    pool: rayon::ThreadPool,
    batch: LlamaBatch<'static>,
    sequences: BTreeMap<Seq, Sequence>,
    next_seq: u64,
    cells: Cells,
    /// llama.cpp's sequence numbers that are free. The lowest is used first: llama.cpp decodes
    /// sequences together when their numbers follow each other.
    free_ids: BTreeSet<u32>,
    max_sequences: usize,
}

/// A sequence: its positions' cells, and llama.cpp's number for it from its first position on.
#[derive(Default)]
struct Sequence {
    id: Option<u32>,
    cells: Vec<u32>,
}

/// Which cells of the KV cache are taken, counted here because llama.cpp does not tell: a cell belongs to
/// every sequence that was forked over it.
struct Cells {
    owners: Vec<u32>,
    free: Vec<u32>,
}

impl Cells {
    fn new(count: u32) -> Self {
        Self { owners: vec![0; count as usize], free: (0..count).rev().collect() }
    }

    /// Appends `count` cells to `to`; there must be as many.
    fn take(&mut self, count: usize, to: &mut Vec<u32>) {
        for cell in self.free.drain(self.free.len() - count..) {
            self.owners[cell as usize] = 1;
            to.push(cell);
        }
    }

    fn share(&mut self, cells: &[u32]) -> Vec<u32> {
        cells.iter().for_each(|&cell| self.owners[cell as usize] += 1);
        cells.to_vec()
    }

    fn release(&mut self, cells: impl Iterator<Item = u32>) {
        for cell in cells {
            self.owners[cell as usize] -= 1;
            if self.owners[cell as usize] == 0 {
                self.free.push(cell);
            }
        }
    }
}

/// A token on its way through llama.cpp.
#[derive(Clone, Copy)]
struct Column {
    item: usize,
    token: u32,
    position: usize,
    id: u32,
    wanted: bool,
}

impl Ggml {
    /// Loads `path`. The model stays in memory until the process ends.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn open(path: &Path, options: &GgmlOptions) -> Result<Self, Error> {
        let within = |what, asked: usize, most: usize| match asked {
            asked if (1..=most).contains(&asked) => Ok(asked as u32),
            asked => Err(Error::Option { what, asked, most }),
        };
        let threads = options.threads.unwrap_or_else(super::default_threads);
        let n_threads = within("threads", threads, 512)? as i32;
        let n_seq_max = within("sequences", options.sequences, MAX_SEQUENCES)?;
        let n_ctx = within("positions of the KV cache", options.kv_positions, 1 << 30)?;
        let load_error = |reason: String| Error::Load { path: path.to_owned(), reason };
        // The binding asserts that the file is there.
        std::fs::metadata(path).map_err(|e| load_error(e.to_string()))?;
        let backend = backend()?;
        let model = LlamaModelParams::default().with_use_mmap(options.mmap);
        let model =
            LlamaModel::load_from_file(backend, path, &model).map_err(|e| load_error(e.to_string()))?;
        // A context borrows its model: one that is never dropped spares a struct that borrows from itself.
        let model: &'static LlamaModel = Box::leak(Box::new(model));
        let kv = match options.kv {
            KvType::F32 => KvCacheType::F32,
            KvType::F16 => KvCacheType::F16,
            // Its own: 32 values to a scale in f16. llama.cpp takes it for values with flash attention only.
            KvType::Q8 => KvCacheType::Q8_0,
        };
        let flash = match options.flash_attention {
            FlashAttention::Auto => llama_cpp_sys_2::LLAMA_FLASH_ATTN_TYPE_AUTO,
            FlashAttention::On => llama_cpp_sys_2::LLAMA_FLASH_ATTN_TYPE_ENABLED,
            FlashAttention::Off => llama_cpp_sys_2::LLAMA_FLASH_ATTN_TYPE_DISABLED,
        };
        let params = LlamaContextParams::default()
            .with_n_ctx(NonZeroU32::new(n_ctx))
            .with_n_ubatch(MICRO_BATCH as u32)
            .with_n_seq_max(n_seq_max)
            .with_kv_unified(options.shared)
            .with_n_threads(n_threads)
            .with_n_threads_batch(n_threads)
            .with_type_k(kv)
            .with_type_v(kv)
            .with_flash_attention_policy(flash);
        let context = model.new_context(backend, params).map_err(|e| Error::Setup(e.to_string()))?;
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let pool = pool.map_err(|e| Error::Setup(e.to_string()))?;
        let n_embd = usize::try_from(model.n_embd()).unwrap_or(0);
        let n_layer = model.n_layer() as usize;
        let plural = if threads == 1 { "" } else { "s" };
        let info = Info {
            architecture: model.meta_val_str("general.architecture").unwrap_or_default(),
            n_vocab: usize::try_from(model.n_vocab()).unwrap_or(0),
            n_embd,
            n_layer,
            n_head: model.n_head() as usize,
            n_ctx_train: model.n_ctx_train() as usize,
            model_bytes: model.size(),
            runs_on: format!(
                "llama.cpp ({SOURCE}; {}), flash attention {}, {threads} thread{plural}",
                features().join(" "),
                options.flash_attention.name()
            ),
            threads,
            kv: options.kv,
            kv_block_positions: 1,
            kv_blocks: options.kv_positions,
            kv_block_bytes: n_layer
                * 2
                * match options.kv {
                    KvType::F32 => 4 * n_embd,
                    KvType::F16 => 2 * n_embd,
                    KvType::Q8 => n_embd / 32 * 34,
                },
        };
        Ok(Self {
            info,
            model,
            context,
            pool,
            batch: LlamaBatch::new(MICRO_BATCH, 1),
            sequences: BTreeMap::new(),
            next_seq: 0,
            cells: Cells::new(n_ctx),
            free_ids: (0..n_seq_max).collect(),
            max_sequences: options.sequences,
        })
    }

    /// The ids that llama.cpp's tokenizer gives for `text`, nothing added; `specials`: control tokens spelled
    /// in it become control tokens.
    pub fn tokenize(&self, text: &str, specials: bool) -> Vec<u32> {
        let ids = self.model.vocab().tokenize(text.as_bytes(), false, specials);
        ids.into_iter().map(|id| id.0 as u32).collect()
    }

    fn sequence(&self, seq: Seq) -> Result<&Sequence, EngineError> {
        self.sequences.get(&seq).ok_or(EngineError::UnknownSeq(seq))
    }

    fn insert(&mut self, sequence: Sequence) -> Seq {
        let seq = Seq(self.next_seq);
        self.next_seq += 1;
        self.sequences.insert(seq, sequence);
        seq
    }

    /// Everything that can be wrong with a step, before it changes anything.
    fn check(&self, items: &[StepItem<'_>]) -> Result<(), EngineError> {
        items::check(items, self.info.n_vocab, |seq| self.sequences.contains_key(&seq))?;
        let (mut needed, mut new) = (0, 0);
        for item in items {
            needed += item.tokens.len();
            new += usize::from(self.sequence(item.seq)?.id.is_none());
        }
        let free = self.cells.free.len();
        if needed > free {
            return Err(EngineError::KvFull { needed, free });
        }
        if new > self.free_ids.len() { Err(self.too_many()) } else { Ok(()) }
    }

    fn too_many(&self) -> EngineError {
        EngineError::TooManySeqs { max: self.max_sequences }
    }

    /// Cuts a sequence here and in llama.cpp.
    fn cut(&mut self, seq: Seq, len: usize) -> Result<(), EngineError> {
        let Some(sequence) = self.sequences.get_mut(&seq) else { return Ok(()) };
        if let Some(id) = sequence.id {
            let from = if len == 0 { None } else { Some(len as u32) };
            let cut = self.context.clear_kv_cache_seq(Some(id), from, None).map_err(|e| e.to_string());
            if cut != Ok(true) {
                return Err(EngineError::Failed(format!(
                    "llama.cpp does not truncate sequence {id}: {cut:?}"
                )));
            }
            if len == 0 {
                self.free_ids.insert(id);
                sequence.id = None;
            }
        }
        self.cells.release(sequence.cells.drain(len..));
        Ok(())
    }

    fn run(
        &mut self,
        items: &[StepItem<'_>],
        sink: &mut Sink<'_>,
        progress: &mut dyn FnMut(f64),
        cancel: &AtomicBool,
    ) -> Result<StepStats, EngineError> {
        let columns = |i: usize| {
            let item = &items[i];
            let sequence = &self.sequences[&item.seq];
            let old = sequence.cells.len() - item.tokens.len();
            let id = sequence.id.expect("given before");
            items::tokens(item).map(move |(j, token, wanted)| Column {
                item: i,
                token,
                position: old + j,
                id,
                wanted,
            })
        };
        let of_phase = |phase| (0..items.len()).filter(move |&i| items[i].phase == phase);
        let given: Vec<Column> = of_phase(Phase::Given).flat_map(columns).collect();
        let mut turns: Vec<Vec<Column>> = Vec::new();
        for i in of_phase(Phase::Generated) {
            for (turn, column) in columns(i).enumerate() {
                if turn == turns.len() {
                    turns.push(Vec::new());
                }
                turns[turn].push(column);
            }
        }
        let mut stats = StepStats { tokens: items.iter().map(|item| item.tokens.len()).sum(), rows: 0 };
        let mut done = 0;
        for columns in turns.iter().chain([&given]) {
            let mut watch = |read: usize| progress((done + read) as f64 / stats.tokens as f64);
            stats.rows += self.micro_batches(columns, sink, &mut watch, cancel)?;
            done += columns.len();
        }
        Ok(stats)
    }

    /// Decodes `columns` in their order, telling `watch` how many are done; gives the number of rows.
    fn micro_batches(
        &mut self,
        mut columns: &[Column],
        sink: &mut Sink<'_>,
        watch: &mut dyn FnMut(usize),
        cancel: &AtomicBool,
    ) -> Result<usize, EngineError> {
        let most_rows = logit_rows(self.info.n_vocab);
        let failed = |what: &dyn std::fmt::Display| EngineError::Failed(format!("llama.cpp: {what}"));
        let (all, mut rows) = (columns.len(), 0);
        while !columns.is_empty() {
            if cancel.load(Ordering::Relaxed) {
                return Err(EngineError::Cancelled);
            }
            let mut wanted = 0;
            let fits = |c: &&Column| {
                wanted += usize::from(c.wanted);
                wanted <= most_rows
            };
            let len = columns.iter().take(MICRO_BATCH).take_while(fits).count();
            let (batch, rest) = columns.split_at(len);
            self.batch.clear();
            for c in batch {
                self.batch
                    .add(LlamaToken(c.token as i32), c.position as i32, &[c.id as i32], c.wanted)
                    .map_err(|e| failed(&e))?;
            }
            self.context.decode(&mut self.batch).map_err(|e| failed(&e))?;
            let row = |(i, c): (usize, &Column)| (c.item, c.position, self.context.get_logits_ith(i as i32));
            let given: Vec<_> = batch.iter().enumerate().filter(|(_, c)| c.wanted).map(row).collect();
            rows += given.len();
            match sink {
                // llama.cpp's own threads are idle now.
                Sink::Shared(sink) => self
                    .pool
                    .install(|| given.into_par_iter().for_each(|(item, at, row)| sink(item, at, row))),
                Sink::InOrder(sink) => given.into_iter().for_each(|(item, at, row)| sink(item, at, row)),
            }
            columns = rest;
            watch(all - columns.len());
        }
        if cancel.load(Ordering::Relaxed) { Err(EngineError::Cancelled) } else { Ok(rows) }
    }
}

impl Engine for Ggml {
    fn info(&self) -> &Info {
        &self.info
    }

    fn seq_new(&mut self) -> Seq {
        self.insert(Sequence::default())
    }

    fn seq_len(&self, seq: Seq) -> usize {
        self.sequences.get(&seq).map_or(0, |s| s.cells.len())
    }

    fn seq_fork(&mut self, src: Seq, len: usize) -> Result<Seq, EngineError> {
        let source = self.sequence(src)?;
        let have = source.cells.len();
        if len > have {
            return Err(EngineError::PastEnd { seq: src, len, have });
        }
        let mut fork = Sequence::default();
        if len > 0 {
            let from = source.id.expect("a sequence with positions has a number") as i32;
            let Some(id) = self.free_ids.pop_first() else { return Err(self.too_many()) };
            if let Err(error) = self.context.kv_cache_seq_cp(from, id as i32, Some(0), Some(len as u32)) {
                self.free_ids.insert(id);
                return Err(EngineError::Failed(format!("llama.cpp: {error}")));
            }
            fork = Sequence { id: Some(id), cells: self.cells.share(&self.sequences[&src].cells[..len]) };
        }
        Ok(self.insert(fork))
    }

    fn seq_truncate(&mut self, seq: Seq, len: usize) -> Result<(), EngineError> {
        let have = self.sequence(seq)?.cells.len();
        if len > have {
            return Err(EngineError::PastEnd { seq, len, have });
        }
        self.cut(seq, len)
    }

    fn seq_free(&mut self, seq: Seq) {
        // Whole sequences can always be removed.
        let _ = self.cut(seq, 0);
        self.sequences.remove(&seq);
    }

    fn kv_free_blocks(&self) -> usize {
        self.cells.free.len()
    }

    fn step_watched(
        &mut self,
        items: &[StepItem<'_>],
        sink: &mut Sink<'_>,
        progress: &mut dyn FnMut(f64),
        cancel: &AtomicBool,
    ) -> Result<StepStats, EngineError> {
        self.check(items)?;
        for item in items {
            let sequence = self.sequences.get_mut(&item.seq).expect("checked");
            if sequence.id.is_none() {
                sequence.id = self.free_ids.pop_first();
            }
            self.cells.take(item.tokens.len(), &mut sequence.cells);
        }
        let mut outcome = self.run(items, sink, progress, cancel);
        if outcome.is_err() {
            for item in items {
                let old = self.seq_len(item.seq) - item.tokens.len();
                if let Err(error) = self.cut(item.seq, old) {
                    outcome = Err(error);
                }
            }
        }
        outcome
    }
}

/// llama.cpp, set up once per process. What it logs is dropped: the standard streams are not its own.
fn backend() -> Result<&'static LlamaBackend, Error> {
    static BACKEND: OnceLock<Result<LlamaBackend, String>> = OnceLock::new();
    let backend = BACKEND.get_or_init(|| {
        send_logs_to_tracing(LogOptions::default().with_logs_enabled(false));
        LlamaBackend::init().map_err(|e| e.to_string())
    });
    backend.as_ref().map_err(|e| Error::Setup(e.clone()))
}

/// Rows of logits alive at a time at most, of `n_vocab` values each.
pub fn logit_rows(n_vocab: usize) -> usize {
    (LOGIT_FLOATS / n_vocab.max(1)).clamp(1, MICRO_BATCH)
}

/// The features that llama.cpp was built with, by the names in its system information: `AVX2`, `AVX512_VNNI`,
/// `REPACK`, ...
pub fn features() -> &'static [String] {
    static FEATURES: OnceLock<Vec<String>> = OnceLock::new();
    FEATURES.get_or_init(|| {
        // `CPU : SSE3 = 1 | AVX = 1 | ... | `
        let info = raw::system_info();
        let features = info.split(['|', ':']).filter_map(|part| part.trim().strip_suffix(" = 1"));
        features.map(str::to_owned).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_is_the_one_built() {
        let manifest = include_str!("../../Cargo.toml");
        let (name, version) = SOURCE.split_once(' ').unwrap();
        assert!(manifest.contains(&format!("\n{name} = {{ version = \"={version}\"")), "{SOURCE}");
    }

    #[test]
    fn cells_are_free_when_the_last_owner_goes() {
        let mut cells = Cells::new(5);
        let (mut a, mut c) = (Vec::new(), Vec::new());
        cells.take(3, &mut a);
        let b = cells.share(&a[..2]);
        cells.release(a.drain(1..));
        assert_eq!(cells.free.len(), 3, "the second is still the fork's");
        cells.take(3, &mut c);
        assert!(c.iter().all(|cell| !a.contains(cell) && !b.contains(cell)));
        cells.release(a.into_iter().chain(b).chain(c));
        assert_eq!(cells.free.len(), 5);
    }
}
