//! The worker threads: claim some rows, read, permute, encode, write. A few MiB per thread for any model.
//!
//! One more thread syncs the finished chunks to disk and notes them in the journals.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use huozi_quant::Format;
use huozi_quant::encode::encode_rows;
use huozi_quant::kernels::Isa;

use crate::error::Error;
use crate::imatrix::Imatrix;
use crate::journal::Loss;
use crate::names::{Target, TensorRole};
use crate::output::Output;
use crate::progress::Progress;
use crate::source::{Checkpoint, Dtype};

/// Weights per chunk: 1 MiB as `f32`.
pub(crate) const CHUNK: u64 = 1 << 18;
/// One row in so many is decoded again, to report the encoding error.
const SAMPLE: u64 = 16;
/// The least time between two updates of the journals.
const NOTE_EVERY: Duration = Duration::from_millis(50);
/// Syncs take at most one part in so many of the time.
const NOTE_SHARE: u32 = 20;
/// The smallest magnitude that rounds to infinity in F16.
const F16_OVERFLOW: f32 = 65520.0;
/// The same of BF16: half a step above its largest number.
const BF16_OVERFLOW: f32 = f32::from_bits(0x7f7f_8000);

/// Some rows of one target: what is read, encoded, written and noted as a whole.
#[derive(Clone, Debug)]
pub(crate) struct Chunk {
    pub target: usize,
    pub rows: Range<u64>,
}

impl Chunk {
    /// Where in the tensor it lies when that has rows of `row_bytes`: offset and length.
    fn place(&self, row_bytes: usize) -> (u64, usize) {
        (self.rows.start * row_bytes as u64, row_bytes * (self.rows.end - self.rows.start) as usize)
    }
}

/// The chunks of all targets, in order. They depend on the shapes only.
pub(crate) fn chunks<'a>(targets: impl IntoIterator<Item = &'a Target>) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    for (target, t) in targets.into_iter().enumerate() {
        let step = (CHUNK / t.cols).max(1);
        let mut start = 0;
        while start < t.rows {
            let end = (start + step).min(t.rows);
            chunks.push(Chunk { target, rows: start..end });
            start = end;
        }
    }
    chunks
}

/// A chunk with its number, its tensor and the index of that in the source.
#[derive(Clone, Copy)]
struct ChunkJob<'a> {
    number: usize,
    chunk: &'a Chunk,
    target: &'a Target,
    source: usize,
}

/// Buffers of one thread.
#[derive(Default)]
struct Scratch {
    rows: Vec<f32>,
    other: Vec<f32>,
    row: Vec<f32>,
    blocks: Vec<u8>,
}

/// What the worker threads share.
pub(crate) struct Workers<'a> {
    pub checkpoint: &'a Checkpoint,
    pub pool: &'a rayon::ThreadPool,
    pub cancel: &'a AtomicBool,
    pub isa: Isa,
}

impl Workers<'_> {
    /// Runs `job` for each number below `n`, claimed in order so that the source is read forward.
    ///
    /// The error is that of the lowest number that fails: everything before it was claimed before it.
    fn each(
        &self,
        n: usize,
        job: impl Fn(&mut Scratch, usize) -> Result<(), Error> + Sync,
    ) -> Result<(), (usize, Error)> {
        let next = AtomicUsize::new(0);
        let failed: Mutex<Option<(usize, Error)>> = Mutex::new(None);
        let stop = AtomicBool::new(false);
        self.pool.broadcast(|_| {
            let mut scratch = Scratch::default();
            while !stop.load(Relaxed) {
                let i = next.fetch_add(1, Relaxed);
                if i >= n {
                    break;
                }
                let result =
                    if self.cancel.load(Relaxed) { Err(Error::Interrupted) } else { job(&mut scratch, i) };
                if let Err(error) = result {
                    stop.store(true, Relaxed);
                    let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                    if failed.as_ref().is_none_or(|(first, _)| i < *first) {
                        *failed = Some((i, error));
                    }
                }
            }
        });
        match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(first) => Err(first),
            None => Ok(()),
        }
    }

    /// Checks the chunks that the journals list and marks the good ones as done. Returns their number.
    pub(crate) fn resume(
        &self,
        tensors: &[(Target, usize)],
        chunks: &[Chunk],
        output: &Output<'_>,
    ) -> Result<usize, Error> {
        let found = output.found();
        let done = AtomicUsize::new(0);
        let looked = self.each(found.len(), |scratch, i| {
            let record = &found[i];
            let Some(chunk) = chunks.get(record.chunk) else { return Ok(()) };
            let row_bytes = row_bytes(output.format(chunk.target), &tensors[chunk.target].0);
            let (offset, bytes) = chunk.place(row_bytes);
            scratch.blocks.resize(bytes, 0);
            output.accept(record, chunk.target, offset, &mut scratch.blocks)?;
            done.fetch_add(usize::from(output.is_done(record.chunk)), Relaxed);
            Ok(())
        });
        looked.map_err(|(_, e)| e)?;
        Ok(done.into_inner())
    }

    /// Encodes everything into every output.
    pub(crate) fn convert(
        &self,
        tensors: &[(Target, usize)],
        chunks: &[Chunk],
        outputs: &[Output<'_>],
        options: EncodeOptions<'_>,
        progress: &dyn Progress,
    ) -> Result<(), Error> {
        let broken = AtomicBool::new(false);
        let (done, noted) = std::thread::scope(|scope| {
            let (end, ended) = mpsc::channel::<()>();
            let notes = scope.spawn(|| {
                let noted = note_all(outputs, ended);
                broken.store(noted.is_err(), Relaxed);
                noted
            });
            let done = self.each(chunks.len(), |scratch, i| {
                if broken.load(Relaxed) {
                    // The journal thread reports the error.
                    return Err(Error::Interrupted);
                }
                let (target, source) = &tensors[chunks[i].target];
                let job = ChunkJob { number: i, chunk: &chunks[i], target, source: *source };
                self.chunk(job, outputs, options, scratch)?;
                let bytes = self.checkpoint.tensors()[*source].bytes;
                progress.advance(share(bytes, target.rows, &chunks[i].rows));
                Ok(())
            });
            drop(end);
            (done, notes.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        });
        noted?;
        match done {
            Ok(()) => Ok(()),
            Err((i, error @ (Error::NotFinite { .. } | Error::Overflow { .. }))) => {
                let (target, source) = &tensors[chunks[i].target];
                Err(self.count_whole(target, *source, error)?)
            }
            Err((_, error)) => Err(error),
        }
    }

    /// Encodes one chunk into the outputs that lack it.
    fn chunk(
        &self,
        job: ChunkJob<'_>,
        outputs: &[Output<'_>],
        options: EncodeOptions<'_>,
        scratch: &mut Scratch,
    ) -> Result<(), Error> {
        let ChunkJob { number, chunk, target, source } = job;
        let lacking = || outputs.iter().filter(|o| !o.is_done(number));
        if lacking().next().is_none() {
            return Ok(());
        }
        let Scratch { rows: weights, other, row, blocks } = scratch;
        self.read(target, source, &chunk.rows, weights, other)?;
        let weights = weights.as_slice();
        // Of all outputs, not only of those that lack it: a refusal must not depend on resumed chunks.
        let has = |p: fn(Format) -> bool| outputs.iter().any(|o| p(o.format(chunk.target)));
        // Weights for formats that keep NaN, and weights for formats whose scales a NaN would spoil.
        let (mut clean, mut zeroed) = (weights, 0);
        if !options.allow_nan {
            self.refuse_unfit(target, source, weights, has(|f| f == Format::F16))?;
        } else if has(|f| f.block_weights() > 1) && weights.iter().any(|x| !x.is_finite()) {
            zeroed = weights.iter().filter(|x| !x.is_finite()).count() as u64;
            other.clear();
            other.extend(weights.iter().map(|x| if x.is_finite() { *x } else { 0.0 }));
            clean = other;
        }
        let cols = target.cols as usize;
        for output in lacking() {
            let format = output.format(chunk.target);
            let row_bytes = row_bytes(format, target);
            let (offset, bytes) = chunk.place(row_bytes);
            blocks.clear();
            blocks.resize(bytes, 0);
            let mut loss = Loss::default();
            if self.checkpoint.tensors()[source].dtype == Dtype::Quantised(format) && zeroed == 0 {
                // Copied: encoding again would add an error.
                self.checkpoint.read_blocks(source, chunk.rows.clone(), blocks)?;
            } else {
                let weights = if format.block_weights() > 1 {
                    loss.zeroed = zeroed;
                    clean
                } else {
                    weights
                };
                encode_rows(
                    self.isa,
                    format,
                    weights,
                    cols,
                    options.imatrix.and_then(|m| m.of(target)),
                    blocks,
                );
                row.resize(cols, 0.0);
                let all = weights.chunks_exact(cols).zip(blocks.chunks_exact(row_bytes));
                for (_, (weights, blocks)) in
                    chunk.rows.clone().zip(all).filter(|(at, _)| at.is_multiple_of(SAMPLE))
                {
                    format.decode(blocks, row);
                    loss.add(Loss::of(weights, row));
                }
            }
            output.write(number, chunk.target, offset, blocks, loss)?;
        }
        Ok(())
    }

    /// Checks every storage of the source whose file has a checksum of it.
    ///
    /// # Errors
    /// The first whose checksum does not match.
    pub(crate) fn check_sums(&self, progress: &dyn Progress) -> Result<(), Error> {
        let storages = self.checkpoint.summed();
        let on = |bytes| {
            progress.advance(bytes);
            if self.cancel.load(Relaxed) { Err(Error::Interrupted) } else { Ok(()) }
        };
        let checked = self.each(storages.len(), |_, i| self.checkpoint.check_sum(storages[i].0, &on));
        checked.map_err(|(_, e)| e)
    }

    /// Compares a finished file with the source: the error of each chunk, over all its rows.
    ///
    /// # Errors
    /// [`Error::Verify`] names the first tensor that is not in the file, or where that has NaN or infinity
    /// and the source a number. `allow_nan`: except numbers that the format cannot hold.
    pub(crate) fn compare(
        &self,
        tensors: &[(Target, usize)],
        chunks: &[Chunk],
        file: &Checkpoint,
        allow_nan: bool,
        progress: &dyn Progress,
    ) -> Result<Vec<Loss>, Error> {
        let losses: Mutex<Vec<Loss>> = Mutex::new(vec![Loss::default(); chunks.len()]);
        let compared = self.each(chunks.len(), |scratch, i| {
            let (target, source) = &tensors[chunks[i].target];
            let Scratch { rows, other, row, .. } = scratch;
            self.read(target, *source, &chunks[i].rows, rows, other)?;
            let at = file.find(&target.name).ok_or_else(|| Error::Verify {
                tensor: target.name.clone(),
                what: "it is not in the file".into(),
            })?;
            row.resize(rows.len(), 0.0);
            file.read_rows(at, chunks[i].rows.clone(), row)?;
            // Infinite numbers and NaN count as exact where the options allow them.
            let format = file.tensors()[at].dtype.format();
            for (n, (x, y)) in rows.iter_mut().zip(row.iter_mut()).enumerate() {
                if !x.is_finite() || (allow_nan && y.is_infinite() && overflows(format, *x)) {
                    (*x, *y) = (0.0, 0.0);
                } else if !y.is_finite() {
                    let row = chunks[i].rows.start + n as u64 / target.cols;
                    let what = format!("row {row} has {y} where the source has {x}");
                    return Err(Error::Verify { tensor: target.name.clone(), what });
                }
            }
            let loss = Loss::of(rows, row);
            losses.lock().unwrap_or_else(PoisonError::into_inner)[i] = loss;
            progress.advance(share(self.checkpoint.tensors()[*source].bytes, target.rows, &chunks[i].rows));
            Ok(())
        });
        compared.map_err(|(_, e)| e)?;
        Ok(losses.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// Rows `rows` of the target, in GGUF's row order.
    pub(crate) fn read(
        &self,
        target: &Target,
        source: usize,
        rows: &Range<u64>,
        out: &mut Vec<f32>,
        other: &mut Vec<f32>,
    ) -> Result<(), Error> {
        let cols = target.cols as usize;
        out.resize((rows.end - rows.start) as usize * cols, 0.0);
        let Some(heads) = target.qkv else {
            return Ok(self.checkpoint.read_rows(source, rows.clone(), out)?);
        };
        if target.role == TensorRole::Vector {
            // One row whose elements are permuted as the rows of the matrix are.
            other.resize(cols, 0.0);
            self.checkpoint.read_rows(source, 0..1, other)?;
            for (i, x) in out.iter_mut().enumerate() {
                *x = other[heads.source_row(i as u64) as usize];
            }
            return Ok(());
        }
        // Rows of one head and one of q, k, v lie together in both orders.
        let (mut row, mut rest) = (rows.start, out.as_mut_slice());
        while row < rows.end {
            let run = (heads.head_dim - row % heads.head_dim).min(rows.end - row);
            let from = heads.source_row(row);
            let (part, left) = rest.split_at_mut(run as usize * cols);
            self.checkpoint.read_rows(source, from..from + run, part)?;
            (row, rest) = (row + run, left);
        }
        Ok(())
    }

    fn refuse_unfit(
        &self,
        target: &Target,
        source: usize,
        weights: &[f32],
        to_f16: bool,
    ) -> Result<(), Error> {
        let (bad, large) = unfit(weights);
        if bad == 0 && (large == 0 || !to_f16) {
            return Ok(());
        }
        let t = &self.checkpoint.tensors()[source];
        let (file, tensor, total) = (t.file.clone(), t.name.clone(), target.rows * target.cols);
        Err(match bad {
            0 => Error::Overflow { file, tensor, count: large, total },
            count => Error::NotFinite { file, tensor, count, total },
        })
    }

    /// Turns the error of one chunk into one with the counts of the whole tensor.
    fn count_whole(&self, target: &Target, source: usize, mut error: Error) -> Result<Error, Error> {
        let (bad, large) = (AtomicU64::new(0), AtomicU64::new(0));
        let parts = chunks([target]);
        let counted = self.each(parts.len(), |scratch, i| {
            let Scratch { rows, other, .. } = scratch;
            self.read(target, source, &parts[i].rows, rows, other)?;
            let (b, l) = unfit(rows);
            bad.fetch_add(b, Relaxed);
            large.fetch_add(l, Relaxed);
            Ok(())
        });
        counted.map_err(|(_, e)| e)?;
        match &mut error {
            Error::NotFinite { count, .. } => *count = bad.into_inner(),
            Error::Overflow { count, .. } => *count = large.into_inner(),
            _ => {}
        }
        Ok(error)
    }

    /// Whether two tensors of the target's shape hold the same bits.
    pub(crate) fn equal(&self, target: &Target, a: usize, b: usize) -> Result<bool, Error> {
        let parts = chunks([target]);
        let differs = AtomicBool::new(false);
        let compared = self.each(parts.len(), |scratch, i| {
            if differs.load(Relaxed) {
                return Ok(());
            }
            let Scratch { rows: x, other: y, .. } = scratch;
            let rows = &parts[i].rows;
            let n = ((rows.end - rows.start) * target.cols) as usize;
            x.resize(n, 0.0);
            y.resize(n, 0.0);
            self.checkpoint.read_rows(a, rows.clone(), x)?;
            self.checkpoint.read_rows(b, rows.clone(), y)?;
            if x.iter().zip(y.iter()).any(|(x, y)| x.to_bits() != y.to_bits()) {
                differs.store(true, Relaxed);
            }
            Ok(())
        });
        compared.map_err(|(_, e)| e)?;
        Ok(!differs.into_inner())
    }
}

/// How chunks are encoded.
#[derive(Clone, Copy)]
pub(crate) struct EncodeOptions<'a> {
    pub allow_nan: bool,
    pub imatrix: Option<&'a Imatrix>,
}

/// Bytes of a row of the target.
pub(crate) fn row_bytes(format: Format, target: &Target) -> usize {
    format.row_bytes(target.cols as usize).expect("the plan chose a format whose blocks divide the row")
}

/// Notes the finished chunks from time to time until the other end is dropped, and once more then.
fn note_all(outputs: &[Output<'_>], ended: mpsc::Receiver<()>) -> Result<(), Error> {
    let mut wait = NOTE_EVERY;
    loop {
        let end = ended.recv_timeout(wait) != Err(RecvTimeoutError::Timeout);
        let started = Instant::now();
        for output in outputs {
            output.note()?;
        }
        if end {
            return Ok(());
        }
        wait = NOTE_EVERY.max(started.elapsed() * NOTE_SHARE);
    }
}

/// How many weights are NaN or infinite, and how many finite ones F16 cannot hold.
fn unfit(weights: &[f32]) -> (u64, u64) {
    // NaN compares false. One cheap pass for the usual case.
    if weights.iter().all(|x| x.abs() < F16_OVERFLOW) {
        return (0, 0);
    }
    let bad = weights.iter().filter(|x| !x.is_finite()).count() as u64;
    let large = weights.iter().filter(|x| x.is_finite() && x.abs() >= F16_OVERFLOW).count() as u64;
    (bad, large)
}

/// Whether a finite weight rounds to infinity in a format.
fn overflows(format: Option<Format>, x: f32) -> bool {
    match format {
        Some(Format::F16) => x.abs() >= F16_OVERFLOW,
        Some(Format::BF16) => x.abs() >= BF16_OVERFLOW,
        _ => false,
    }
}

/// The bytes of a tensor that belong to some of its rows; the shares add up to `bytes`.
fn share(bytes: u64, rows: u64, part: &Range<u64>) -> u64 {
    let upto = |row: u64| (u128::from(bytes) * u128::from(row) / u128::from(rows)) as u64;
    upto(part.end) - upto(part.start)
}
