//! One micro-batch of columns through the layers.
//!
//! Phases of a layer: LayerNorm -> quantise; QKV + bias; store keys and values; attention; quantise; output +
//! bias + residual; LayerNorm -> quantise; up + bias + GELU; quantise; down + bias + residual.

use super::kv::{Blocks, Pool, Run};
use super::sink::Sink;
use super::weights::{Linear, Weights};
use huozi_quant::attention::{self, KvValue, Queries, QueryPlace, alibi_slopes, attend};
use huozi_quant::buffer::Buffer;
use huozi_quant::elementwise::{bias_gelu, layer_norm};
use huozi_quant::kv::BLOCK;
use huozi_quant::matmul::{Activations, QMatrix, Step, matmul};
use std::ops::Range;

/// Rows of logits alive at a time: 16 of 250,880 floats are 16 MB.
pub const LOGIT_ROWS: usize = 16;

/// One token on its way through the layers.
#[derive(Clone, Copy, Debug)]
pub struct Column<'a> {
    /// Index in the step of the item it belongs to, for the sink.
    pub item: usize,
    /// Token id, below `n_vocab`.
    pub token: u32,
    /// Absolute position in its sequence.
    pub position: usize,
    /// Blocks of its sequence, `position` included.
    pub blocks: &'a [usize],
    /// Whether it gives logits.
    pub wanted: bool,
}

/// The buffers of a forward pass, kept from step to step.
#[derive(Default)]
pub struct Scratch {
    /// Residual stream, (m, n_embd).
    x: Buffer<f32>,
    /// (m, 3 n_embd).
    qkv: Buffer<f32>,
    /// Outputs of attention, (m, n_embd).
    context: Buffer<f32>,
    /// (m, n_ff).
    ff: Buffer<f32>,
    activations: Activations,
    /// (at most 16, n_vocab).
    logits: Buffer<f32>,
}

/// Runs `columns` as one part of a step and gives each wanted column's logits to `sink`.
///
/// The keys and values of every column's earlier positions must be in `pool` or among the columns before it.
/// Gives up as soon as the crew is cancelled; what `pool` holds for these columns is then undefined.
/// `progress` hears after each matrix of a layer which share of the layers is done, from 0 to 1.
pub fn forward(
    step: Step<'_>,
    weights: &Weights,
    pool: &mut Pool,
    columns: &[Column<'_>],
    scratch: &mut Scratch,
    progress: &mut dyn FnMut(f64),
    sink: &mut Sink<'_>,
) {
    match pool {
        Pool::F32(blocks) => run(step, weights, blocks, columns, scratch, progress, sink),
        Pool::F16(blocks) => run(step, weights, blocks, columns, scratch, progress, sink),
        Pool::Q8(blocks) => run(step, weights, blocks, columns, scratch, progress, sink),
    }
}

/// Matrices of a layer.
const MATRICES: usize = 4;

fn run<T: KvValue>(
    step: Step<'_>,
    w: &Weights,
    kv: &mut Blocks<T>,
    columns: &[Column<'_>],
    scratch: &mut Scratch,
    progress: &mut dyn FnMut(f64),
    sink: &mut Sink<'_>,
) {
    let Step { crew, isa, .. } = step;
    let m = columns.len();
    let (n_embd, n_ff, d) = (w.shape.n_embd, w.shape.n_ff, w.shape.head_dim());
    let slopes = alibi_slopes(w.shape.n_head);
    let runs = runs(columns);
    let places: Vec<_> =
        columns.iter().map(|c| QueryPlace { position: c.position, blocks: c.blocks }).collect();
    let groups = groups(&places, d, w.shape.n_head, crew.threads());
    let Scratch { x, qkv, context, ff, activations, logits } = scratch;
    x.resize(m * n_embd);
    qkv.resize(m * 3 * n_embd);
    context.resize(m * n_embd);
    ff.resize(m * n_ff);

    crew.rows(x, n_embd, |c, x| {
        let mut row = vec![0.0; n_embd];
        w.token_embd.row(columns[c].token as usize, &mut row);
        layer_norm(isa, &row, &w.token_embd_norm.weight, &w.token_embd_norm.bias, w.eps, x);
    });
    for (i, layer) in w.layers.iter().enumerate() {
        if crew.cancelled() {
            return;
        }
        let mut matrix = 0;
        let mut matrix_done = || {
            matrix += 1;
            progress((i * MATRICES + matrix) as f64 / (w.layers.len() * MATRICES) as f64);
        };
        let format = layer.attn_qkv.weight.format();
        activations.fill(step, format, (m, n_embd), |c, y| {
            layer_norm(isa, row(x, c, n_embd), &layer.attn_norm.weight, &layer.attn_norm.bias, w.eps, y);
        });
        linear(step, &layer.attn_qkv, activations, qkv, add);
        matrix_done();
        kv.store(crew, isa, i, &runs, qkv);
        let kv = &*kv;
        crew.grid(context, n_embd, d, &groups, |group, first, mut tile| {
            let (group, head) = (groups[group].clone(), first / d);
            let queries = Queries {
                head_dim: d,
                slope: slopes[head],
                q: &qkv[group.start * 3 * n_embd + first..],
                stride: 3 * n_embd,
                places: &places[group],
                block: &|id| kv.head(id, i, head),
            };
            attend(isa, &queries, &mut |c, values| tile.row(c).copy_from_slice(values));
        });
        let format = layer.attn_output.weight.format();
        activations.fill(step, format, (m, n_embd), |c, y| y.copy_from_slice(row(context, c, n_embd)));
        residual(step, &layer.attn_output, activations, context, x);
        matrix_done();

        let format = layer.ffn_up.weight.format();
        activations.fill(step, format, (m, n_embd), |c, y| {
            layer_norm(isa, row(x, c, n_embd), &layer.ffn_norm.weight, &layer.ffn_norm.bias, w.eps, y);
        });
        linear(step, &layer.ffn_up, activations, ff, |y, bias| bias_gelu(isa, y, bias));
        matrix_done();
        let format = layer.ffn_down.weight.format();
        activations.fill(step, format, (m, n_ff), |c, y| y.copy_from_slice(row(ff, c, n_ff)));
        residual(step, &layer.ffn_down, activations, context, x);
        matrix_done();
    }

    let head: &QMatrix = w.head();
    let wanted: Vec<usize> = (0..m).filter(|&c| columns[c].wanted).collect();
    for group in wanted.chunks(LOGIT_ROWS) {
        activations.fill(step, head.format(), (group.len(), n_embd), |i, y| {
            layer_norm(isa, row(x, group[i], n_embd), &w.output_norm.weight, &w.output_norm.bias, w.eps, y);
        });
        logits.resize(group.len() * head.rows());
        matmul(step, head, activations, logits, |_, _, _| {});
        if crew.cancelled() {
            return;
        }
        let rows: Vec<_> = group.iter().map(|&c| (columns[c].item, columns[c].position)).collect();
        sink.give_all(crew, &rows, logits, head.rows());
    }
}

/// Whether column `c` is the next position of the sequence that column `c - 1` belongs to.
fn follows(columns: &[Column<'_>], c: usize) -> bool {
    let (last, next) = (&columns[c - 1], &columns[c]);
    // Tables of different sequences differ in the block that is written to.
    next.position == last.position + 1 && std::ptr::eq(next.blocks, last.blocks)
}

/// Where `columns` write: their consecutive positions within a block, by ascending block.
fn runs(columns: &[Column<'_>]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (c, column) in columns.iter().enumerate() {
        let offset = column.position % BLOCK;
        match runs.last_mut() {
            Some(run) if offset > 0 && follows(columns, c) => run.columns.end = c + 1,
            _ => {
                let block = column.blocks[column.position / BLOCK];
                runs.push(Run { block, offset, columns: c..c + 1 });
            }
        }
    }
    runs.sort_unstable_by_key(|run| run.block);
    runs
}

/// Claims of attention that each thread should find at least, where there are so many queries: the last ones
/// end together.
const CLAIMS_PER_THREAD: usize = 2;

/// The columns of each claim of attention (of one head): neighbours whose tables begin with the same block.
fn groups(places: &[QueryPlace<'_>], head_dim: usize, n_head: usize, threads: usize) -> Vec<Range<usize>> {
    let busy = (places.len() * n_head / (CLAIMS_PER_THREAD * threads)).max(1);
    let mut groups: Vec<Range<usize>> = Vec::new();
    // Positions that the last group sees at most.
    let mut keys = 0;
    for (c, place) in places.iter().enumerate() {
        let all = keys.max(place.position + 1);
        match groups.last_mut() {
            Some(group)
                if group.len() < attention::group(head_dim, all).min(busy)
                    && place.blocks.first() == places[c - 1].blocks.first() =>
            {
                group.end = c + 1;
                keys = all;
            }
            _ => {
                groups.push(c..c + 1);
                keys = place.position + 1;
            }
        }
    }
    groups
}

/// Row `i` of `x`, `(_, len)` row-major.
fn row(x: &[f32], i: usize, len: usize) -> &[f32] {
    &x[i * len..][..len]
}

fn add(y: &mut [f32], x: &[f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += x;
    }
}

/// `y = finish(w a, bias)`, one phase.
fn linear(
    step: Step<'_>,
    linear: &Linear,
    a: &Activations,
    y: &mut [f32],
    finish: impl Fn(&mut [f32], &[f32]) + Sync,
) {
    matmul(step, &linear.weight, a, y, |_, first, piece| {
        finish(piece, &linear.bias[first..first + piece.len()]);
    });
}

/// `x += w a + bias`, with `y` as scratch of the same shape.
fn residual(step: Step<'_>, layer: &Linear, a: &Activations, y: &mut [f32], x: &mut [f32]) {
    linear(step, layer, a, y, add);
    let n_embd = layer.weight.rows();
    step.crew.rows(x, n_embd, |c, x| add(x, row(y, c, n_embd)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column<'a>(position: usize, blocks: &'a [usize]) -> Column<'a> {
        Column { item: 0, token: 0, position, blocks, wanted: false }
    }

    fn place<'a>(position: usize, blocks: &'a [usize]) -> QueryPlace<'a> {
        QueryPlace { position, blocks }
    }

    #[test]
    fn a_run_stays_within_a_block_and_a_sequence() {
        let (a, b) = ([7, 3, 9], [7, 2]);
        let columns: Vec<_> =
            (120..130).map(|p| column(p, &a)).chain((64..66).map(|p| column(p, &b))).collect();
        let run = |block, offset, columns| Run { block, offset, columns };
        assert_eq!(runs(&columns), [run(2, 0, 10..12), run(3, 56, 0..8), run(9, 0, 8..10)]);
    }

    #[test]
    fn sequences_with_a_common_first_block_are_one_claim() {
        let tables: Vec<Vec<usize>> = (0..16).map(|i| vec![0, 1, 2 + i]).collect();
        let other = [40, 41];
        let mut places: Vec<_> = tables.iter().map(|table| place(130, table)).collect();
        places.extend((60..70).map(|p| place(p, &other)));
        assert_eq!(groups(&places, 128, 32, 2), [0..16, 16..26]);
        // With so many threads that each would not find two claims, claims are smaller.
        assert_eq!(groups(&places[..16], 128, 32, 64), [0..4, 4..8, 8..12, 12..16]);
        assert_eq!(groups(&places[..3], 128, 1, 64), [0..1, 1..2, 2..3]);
    }

    #[test]
    fn a_claim_is_no_larger_than_its_longest_sequence_allows() {
        let table: Vec<usize> = (0..100).collect();
        // 6 x 6400 keys, 24 x 4000 keys: within the scores that are kept at a time.
        let mut places: Vec<_> = (0..30).map(|_| place(3999, &table)).collect();
        assert_eq!(groups(&places, 128, 32, 2), [0..24, 24..30]);
        places[20].position = 6399;
        assert_eq!(groups(&places, 128, 32, 2), [0..20, 20..30]);
        for range in groups(&places, 128, 32, 2) {
            let keys = places[range.clone()].iter().map(|p| p.position + 1).max().unwrap();
            assert!(range.len() <= attention::group(128, keys));
        }
    }
}
