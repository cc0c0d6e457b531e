//! The threads: claim some rows, read, permute, encode, write. A few MiB per thread, whatever the model.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use huozi_quant::Format;
use huozi_quant::encode::encode_rows;
use huozi_quant::kernels::Isa;

use crate::Error;
use crate::names::{Role, Target};
use crate::output::Output;
use crate::pipeline::Progress;
use crate::source::Checkpoint;

/// Weights per work item: 1 MiB as `f32`.
const CHUNK: u64 = 1 << 18;
/// The smallest magnitude that rounds to infinity in F16.
const F16_OVERFLOW: f32 = 65520.0;

/// Some rows of one target.
#[derive(Clone, Debug)]
struct Item {
    target: usize,
    rows: Range<u64>,
}

fn items<'a>(targets: impl IntoIterator<Item = &'a Target>) -> Vec<Item> {
    let mut items = Vec::new();
    for (target, t) in targets.into_iter().enumerate() {
        let step = (CHUNK / t.cols).max(1);
        let mut start = 0;
        while start < t.rows {
            let end = (start + step).min(t.rows);
            items.push(Item { target, rows: start..end });
            start = end;
        }
    }
    items
}

/// Buffers of one thread.
#[derive(Default)]
struct Scratch {
    rows: Vec<f32>,
    other: Vec<f32>,
    blocks: Vec<u8>,
}

/// What the threads share.
pub(crate) struct Work<'a> {
    pub checkpoint: &'a Checkpoint,
    pub pool: &'a rayon::ThreadPool,
    pub cancel: &'a AtomicBool,
    pub isa: Isa,
}

impl Work<'_> {
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

    /// Encodes everything into every output; gives back how many weights were replaced by 0.
    pub(crate) fn convert(
        &self,
        tensors: &[(Target, usize)],
        outputs: &[Output],
        allow_nan: bool,
        progress: &dyn Progress,
    ) -> Result<u64, Error> {
        let items = items(tensors.iter().map(|(t, _)| t));
        let zeroed = AtomicU64::new(0);
        let done = self.each(items.len(), |scratch, i| {
            let Item { target: index, rows } = &items[i];
            let (target, source) = &tensors[*index];
            let Scratch { rows: weights, other, blocks } = scratch;
            self.read(target, *source, rows, weights, other)?;
            let weights = weights.as_slice();
            let has = |p: fn(Format) -> bool| outputs.iter().any(|o| p(o.format(*index)));
            // What goes into formats that keep NaN, and what goes into those whose scales it would spoil.
            let mut clean = weights;
            if !allow_nan {
                self.refuse_unfit(target, *source, weights, has(|f| f == Format::F16))?;
            } else if has(|f| f.block_weights() > 1) && weights.iter().any(|x| !x.is_finite()) {
                zeroed.fetch_add(weights.iter().filter(|x| !x.is_finite()).count() as u64, Relaxed);
                other.clear();
                other.extend(weights.iter().map(|x| if x.is_finite() { *x } else { 0.0 }));
                clean = other;
            }
            let cols = target.cols as usize;
            for output in outputs {
                let format = output.format(*index);
                let weights = if format.block_weights() > 1 { clean } else { weights };
                let row_bytes =
                    format.row_bytes(cols).expect("the plan chose a format whose blocks divide the row");
                blocks.clear();
                blocks.resize(row_bytes * (rows.end - rows.start) as usize, 0);
                encode_rows(self.isa, format, weights, cols, None, blocks);
                output.write(*index, rows.start * row_bytes as u64, blocks)?;
            }
            let bytes = self.checkpoint.tensors()[*source].bytes;
            progress.advance(share(bytes, target.rows, rows));
            Ok(())
        });
        match done {
            Ok(()) => Ok(zeroed.into_inner()),
            Err((item, error @ (Error::NotFinite { .. } | Error::Overflow { .. }))) => {
                let (target, source) = &tensors[items[item].target];
                Err(self.count_whole(target, *source, error)?)
            }
            Err((_, error)) => Err(error),
        }
    }

    /// Rows `rows` of the target, in GGUF's row order.
    fn read(
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
        if target.role == Role::Vector {
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
        let tensor = || self.checkpoint.tensors()[source].name.clone();
        let total = target.rows * target.cols;
        match unfit(weights) {
            (0, 0) => Ok(()),
            (0, count) if to_f16 => Err(Error::Overflow { tensor: tensor(), count, total }),
            (0, _) => Ok(()),
            (count, _) => Err(Error::NotFinite { tensor: tensor(), count, total }),
        }
    }

    /// The error of one chunk, told for the whole tensor.
    fn count_whole(&self, target: &Target, source: usize, error: Error) -> Result<Error, Error> {
        let (bad, large) = (AtomicU64::new(0), AtomicU64::new(0));
        let parts = items([target]);
        let counted = self.each(parts.len(), |scratch, i| {
            let Scratch { rows, other, .. } = scratch;
            self.read(target, source, &parts[i].rows, rows, other)?;
            let (b, l) = unfit(rows);
            bad.fetch_add(b, Relaxed);
            large.fetch_add(l, Relaxed);
            Ok(())
        });
        counted.map_err(|(_, e)| e)?;
        Ok(match error {
            Error::NotFinite { tensor, total, .. } => {
                Error::NotFinite { tensor, count: bad.into_inner(), total }
            }
            Error::Overflow { tensor, total, .. } => {
                Error::Overflow { tensor, count: large.into_inner(), total }
            }
            other => other,
        })
    }

    /// Whether two tensors of the target's shape hold the same bits.
    pub(crate) fn equal(&self, target: &Target, a: usize, b: usize) -> Result<bool, Error> {
        let parts = items([target]);
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

/// How many weights are NaN or infinite, and how many finite ones F16 can not hold.
fn unfit(weights: &[f32]) -> (u64, u64) {
    // NaN compares false. One cheap pass for the usual case.
    if weights.iter().all(|x| x.abs() < F16_OVERFLOW) {
        return (0, 0);
    }
    let bad = weights.iter().filter(|x| !x.is_finite()).count() as u64;
    let large = weights.iter().filter(|x| x.is_finite() && x.abs() >= F16_OVERFLOW).count() as u64;
    (bad, large)
}

/// The bytes of a tensor that belong to some of its rows; the shares add up to `bytes`.
fn share(bytes: u64, rows: u64, part: &Range<u64>) -> u64 {
    let upto = |row: u64| (u128::from(bytes) * u128::from(row) / u128::from(rows)) as u64;
    upto(part.end) - upto(part.start)
}
