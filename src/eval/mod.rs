//! Measuring a model over a text: perplexity, and KL divergence from a base model.
//!
//! In: an engine (or two) and token ids. Out: numbers. Logits are scored inside the sink; perplexity keeps no row, KL
//! divergence the base's rows of one small group of positions.

use crate::engine::{Engine, EngineError, Item, Phase, Want};
use std::sync::atomic::AtomicBool;

/// How a text is cut and what of it is scored.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// Tokens of a chunk; a shorter rest is dropped.
    pub chunk: usize,
    /// Tokens from the beginning of one chunk to the next, 1 to `chunk`.
    pub stride: usize,
    /// Score only the tokens after the middle: positions `chunk / 2 + 1` and later.
    pub second_half: bool,
    /// Chunks at most.
    pub max_chunks: usize,
}

impl Cut {
    /// Chunks of `chunk` tokens side by side, everything scored but each first token.
    pub fn plain(chunk: usize) -> Self {
        Self { chunk, stride: chunk, second_half: false, max_chunks: usize::MAX }
    }

    /// How many chunks `tokens` give.
    pub fn chunks(&self, tokens: usize) -> usize {
        let all = if tokens < self.chunk { 0 } else { (tokens - self.chunk) / self.stride + 1 };
        all.min(self.max_chunks)
    }

    /// The first scored token of chunk `index`: each token of the text is scored once, and never without context.
    fn first_scored(&self, index: usize) -> usize {
        if self.second_half {
            self.chunk / 2 + 1
        } else if index == 0 {
            1
        } else {
            (self.chunk - self.stride).max(1)
        }
    }
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text is shorter than one chunk.
    #[error("the text has {tokens} tokens, a chunk needs {chunk}")]
    TooShort {
        /// Tokens of the text.
        tokens: usize,
        /// Tokens of a chunk.
        chunk: usize,
    },
    /// A chunk has no scored tokens, or the stride leaves gaps.
    #[error("a stride of {stride} does not go with chunks of {chunk} tokens")]
    Stride {
        /// The stride.
        stride: usize,
        /// Tokens of a chunk.
        chunk: usize,
    },
    /// The two models do not have the same vocabulary.
    #[error("the models differ in vocabulary: {model} and {base} rows")]
    Vocabulary {
        /// Rows of the model.
        model: usize,
        /// Rows of the base.
        base: usize,
    },
    /// A row of logits has no probabilities.
    #[error("the logits at token {token} of the text are not finite")]
    NotFinite {
        /// The token they stand at.
        token: usize,
    },
    /// An engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// What was measured so far, for a progress display.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Chunks done.
    pub done: usize,
    /// Chunks in all.
    pub chunks: usize,
    /// What is measured, so far: the perplexity, or the mean KL divergence in nats.
    pub value: f64,
}

/// A perplexity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Perplexity {
    /// Tokens of the text.
    pub tokens: usize,
    /// Chunks read.
    pub chunks: usize,
    /// Tokens scored.
    pub scored: usize,
    /// Mean negative log-likelihood of a scored token, in nats.
    pub nll: f64,
    /// Standard error of that mean.
    pub nll_error: f64,
}

impl Perplexity {
    /// `exp(nll)`.
    pub fn ppl(&self) -> f64 {
        self.nll.exp()
    }

    /// Standard error of the perplexity, from that of the mean.
    pub fn ppl_error(&self) -> f64 {
        self.ppl() * self.nll_error
    }
}

/// Perplexity over `ids`.
///
/// # Errors
/// See [`Error`]; `cancel` gives [`EngineError::Cancelled`].
pub fn perplexity(
    engine: &mut dyn Engine,
    ids: &[u32],
    cut: &Cut,
    cancel: &AtomicBool,
    progress: &mut dyn FnMut(Progress),
) -> Result<Perplexity, Error> {
    let chunks = checked_chunks(ids, cut)?;
    let mut nll = Mean::default();
    for index in 0..chunks {
        let start = index * cut.stride;
        let chunk = &ids[start..start + cut.chunk];
        let first = cut.first_scored(index);
        let mut bad = None;
        let result = with_sequence(engine, |engine, seq| {
            // The row at position p scores token p + 1; the rows before the first scored token are not needed.
            if first > 1 {
                let item = Item { seq, tokens: &chunk[..first - 1], phase: Phase::Given, want: Want::None };
                engine.step(&[item], &mut |_, _, _| {}, cancel)?;
            }
            let tokens = &chunk[first - 1..cut.chunk - 1];
            let item = Item { seq, tokens, phase: Phase::Given, want: Want::All };
            let mut scores = vec![f64::NAN; tokens.len()];
            engine.step(
                &[item],
                &mut |_, position, logits| {
                    let score = log_softmax_at(logits, chunk[position + 1]);
                    scores[position - (first - 1)] = -score;
                    if !score.is_finite() {
                        bad = Some(start + position);
                    }
                },
                cancel,
            )?;
            Ok(scores)
        });
        let scores = result?;
        if let Some(token) = bad {
            return Err(Error::NotFinite { token });
        }
        scores.into_iter().for_each(|score| nll.add(score));
        progress(Progress { done: index + 1, chunks, value: nll.mean().exp() });
    }
    Ok(Perplexity {
        tokens: ids.len(),
        chunks,
        scored: nll.n,
        nll: nll.mean(),
        nll_error: nll.standard_error(),
    })
}

/// How far a model is from its base.
#[derive(Clone, Debug, PartialEq)]
pub struct Divergence {
    /// Tokens of the text.
    pub tokens: usize,
    /// Chunks read.
    pub chunks: usize,
    /// Positions compared.
    pub scored: usize,
    /// Mean of KL(base || model), in nats.
    pub kl_mean: f64,
    /// Standard error of that mean.
    pub kl_error: f64,
    /// Median.
    pub kl_median: f64,
    /// The value 99 % of the positions do not pass.
    pub kl_99: f64,
    /// Largest.
    pub kl_max: f64,
    /// Share of positions where both have the same likeliest token, 0 to 1.
    pub same_top: f64,
    /// Mean negative log-likelihood under the model.
    pub nll: f64,
    /// Mean negative log-likelihood under the base.
    pub nll_base: f64,
}

/// Floats of base logits kept at a time (32 MiB).
const KEPT_FLOATS: usize = 8 << 20;

/// KL divergence of `model` from `base` over `ids`.
///
/// Chunks side by side; the second half of each is scored, as llama-perplexity does: the rows at positions
/// `chunk / 2 ..= chunk - 2`, each predicting the next token.
///
/// # Errors
/// See [`Error`]; `cancel` gives [`EngineError::Cancelled`].
pub fn divergence(
    model: &mut dyn Engine,
    base: &mut dyn Engine,
    ids: &[u32],
    cut: &Cut,
    cancel: &AtomicBool,
    progress: &mut dyn FnMut(Progress),
) -> Result<Divergence, Error> {
    let cut = &Cut { second_half: true, stride: cut.chunk, ..*cut };
    let chunks = checked_chunks(ids, cut)?;
    let n_vocab = model.info().n_vocab;
    if base.info().n_vocab != n_vocab {
        return Err(Error::Vocabulary { model: n_vocab, base: base.info().n_vocab });
    }
    let group = (KEPT_FLOATS / n_vocab.max(1)).clamp(16, 128);
    let mut rows = vec![0.0f32; group.min(cut.chunk) * n_vocab];
    let (mut kl, mut mean) = (Vec::new(), Mean::default());
    let (mut nll, mut nll_base) = (Mean::default(), Mean::default());
    let mut same_top = 0usize;
    let half = cut.chunk / 2;
    for index in 0..chunks {
        let start = index * cut.chunk;
        let chunk = &ids[start..start + cut.chunk];
        let before = kl.len();
        let mut bad = None;
        with_sequence(model, |model, seq| {
            with_sequence(base, |base, base_seq| {
                let given = |seq, tokens, want| [Item { seq, tokens, phase: Phase::Given, want }];
                let head = &chunk[..half];
                model.step(&given(seq, head, Want::None), &mut |_, _, _| {}, cancel)?;
                base.step(&given(base_seq, head, Want::None), &mut |_, _, _| {}, cancel)?;
                let mut at = half;
                while at < cut.chunk - 1 {
                    let tokens = &chunk[at..(at + group).min(cut.chunk - 1)];
                    base.step(
                        &given(base_seq, tokens, Want::All),
                        &mut |_, position, logits| {
                            let row = position - at;
                            rows[row * n_vocab..][..n_vocab].copy_from_slice(logits);
                        },
                        cancel,
                    )?;
                    model.step(
                        &given(seq, tokens, Want::All),
                        &mut |_, position, logits| {
                            let base_row = &rows[(position - at) * n_vocab..][..n_vocab];
                            let row = compare(base_row, logits, chunk[position + 1]);
                            if !(row.kl.is_finite() && row.nll.is_finite() && row.nll_base.is_finite()) {
                                bad = Some(start + position);
                            }
                            kl.push(row.kl);
                            nll.add(row.nll);
                            nll_base.add(row.nll_base);
                            same_top += usize::from(row.same_top);
                        },
                        cancel,
                    )?;
                    at += tokens.len();
                }
                Ok(())
            })
        })?;
        if let Some(token) = bad {
            return Err(Error::NotFinite { token });
        }
        kl[before..].iter().for_each(|&x| mean.add(x));
        progress(Progress { done: index + 1, chunks, value: mean.mean() });
    }
    kl.sort_by(f64::total_cmp);
    Ok(Divergence {
        tokens: ids.len(),
        chunks,
        scored: kl.len(),
        kl_mean: mean.mean(),
        kl_error: mean.standard_error(),
        kl_median: quantile(&kl, 0.5),
        kl_99: quantile(&kl, 0.99),
        kl_max: kl.last().copied().unwrap_or(f64::NAN),
        same_top: same_top as f64 / kl.len() as f64,
        nll: nll.mean(),
        nll_base: nll_base.mean(),
    })
}

fn checked_chunks(ids: &[u32], cut: &Cut) -> Result<usize, Error> {
    let Cut { chunk, stride, .. } = *cut;
    if stride == 0 || stride > chunk || cut.first_scored(0) >= chunk {
        return Err(Error::Stride { stride, chunk });
    }
    match cut.chunks(ids.len()) {
        0 => Err(Error::TooShort { tokens: ids.len(), chunk }),
        chunks => Ok(chunks),
    }
}

/// Runs `f` with a new sequence that is freed whatever happens.
fn with_sequence<T>(
    engine: &mut dyn Engine,
    f: impl FnOnce(&mut dyn Engine, crate::engine::Seq) -> Result<T, EngineError>,
) -> Result<T, EngineError> {
    let seq = engine.seq_new();
    let result = f(engine, seq);
    engine.seq_free(seq);
    result
}

/// Largest logit and `ln(sum(exp(x - largest)))`, in f64.
fn normaliser(logits: &[f32]) -> (f64, f64) {
    let largest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = logits.iter().map(|&x| (f64::from(x) - largest).exp()).sum();
    (largest, sum.ln())
}

/// `ln(sum(exp(logits)))`, what is taken off a logit to get its log-probability.
pub fn log_sum_exp(logits: &[f32]) -> f64 {
    let (largest, log_sum) = normaliser(logits);
    largest + log_sum
}

/// `ln softmax(logits)[id]`; NaN when `id` is past the end.
pub fn log_softmax_at(logits: &[f32], id: u32) -> f64 {
    let (largest, log_sum) = normaliser(logits);
    logits.get(id as usize).map_or(f64::NAN, |&x| f64::from(x) - largest - log_sum)
}

struct Compared {
    kl: f64,
    nll: f64,
    nll_base: f64,
    same_top: bool,
}

fn compare(base: &[f32], model: &[f32], next: u32) -> Compared {
    let (base_max, base_log) = normaliser(base);
    let (model_max, model_log) = normaliser(model);
    let (base_shift, model_shift) = (base_max + base_log, model_max + model_log);
    let kl: f64 = base
        .iter()
        .zip(model)
        .map(|(&b, &m)| {
            let b = f64::from(b) - base_shift;
            let p = b.exp();
            // An id the base rules out adds nothing, whatever the model says.
            if p > 0.0 { p * (b - (f64::from(m) - model_shift)) } else { 0.0 }
        })
        .sum();
    let at = |row: &[f32], shift: f64| row.get(next as usize).map_or(f64::NAN, |&x| shift - f64::from(x));
    Compared {
        // Rounding may bring two equal rows a hair below zero.
        kl: kl.max(0.0),
        nll: at(model, model_shift),
        nll_base: at(base, base_shift),
        same_top: top(base) == top(model),
    }
}

/// The first of the largest.
fn top(row: &[f32]) -> usize {
    let mut best = 0;
    for (i, &x) in row.iter().enumerate() {
        if x > row[best] {
            best = i;
        }
    }
    best
}

/// Between the two nearest of `sorted`, linearly.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let place = q * last as f64;
    let below = place.floor() as usize;
    let above = (below + 1).min(last);
    sorted[below] + (sorted[above] - sorted[below]) * (place - below as f64)
}

/// Mean and spread of numbers, Welford's way.
#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    n: usize,
    mean: f64,
    squares: f64,
}

impl Mean {
    fn add(&mut self, x: f64) {
        self.n += 1;
        let from = x - self.mean;
        self.mean += from / self.n as f64;
        self.squares += from * (x - self.mean);
    }

    fn mean(&self) -> f64 {
        if self.n == 0 { f64::NAN } else { self.mean }
    }

    fn standard_error(&self) -> f64 {
        if self.n < 2 { 0.0 } else { (self.squares / (self.n - 1) as f64 / self.n as f64).sqrt() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_and_strides() {
        let cut = |chunk, stride| Cut { stride, ..Cut::plain(chunk) };
        assert_eq!(Cut::plain(256).chunks(1426), 5);
        assert_eq!(Cut::plain(256).chunks(255), 0);
        assert_eq!(cut(256, 128).chunks(512), 3);
        assert_eq!(cut(256, 128).first_scored(0), 1);
        assert_eq!(cut(256, 128).first_scored(1), 128);
        assert_eq!(cut(256, 256).first_scored(3), 1);
        let half = Cut { second_half: true, ..Cut::plain(256) };
        assert_eq!(half.first_scored(2), 129, "the row at 128 scores token 129");
        assert_eq!(Cut { max_chunks: 2, ..Cut::plain(256) }.chunks(1426), 2);
    }

    #[test]
    fn softmax_of_known_rows() {
        let row = [0.0f32, 3f32.ln(), f32::NEG_INFINITY];
        assert!((log_softmax_at(&row, 1) - 0.75f64.ln()).abs() < 1e-7);
        assert!(log_softmax_at(&row, 9).is_nan());
        // Large logits do not overflow.
        assert!((log_softmax_at(&[1e4, 1e4], 0) - 0.5f64.ln()).abs() < 1e-12);
    }

    #[test]
    fn divergence_of_known_rows() {
        let base = [0.0f32, 0.0];
        let model = [0.0f32, 3f32.ln()];
        let row = compare(&base, &model, 1);
        let expected = 0.5 * (0.5f64 / 0.25).ln() + 0.5 * (0.5f64 / 0.75).ln();
        assert!((row.kl - expected).abs() < 1e-7);
        assert!((row.nll + 0.75f64.ln()).abs() < 1e-7 && (row.nll_base + 0.5f64.ln()).abs() < 1e-12);
        assert!(!row.same_top, "of equal ones the first is the top");
        let same = compare(&model, &model, 0);
        assert!(same.kl == 0.0 && same.same_top);
        // Not symmetric: an id ruled out by the base costs nothing, one ruled out by the model everything.
        let sure = [0.0f32, f32::NEG_INFINITY];
        assert!((compare(&sure, &base, 0).kl - 2f64.ln()).abs() < 1e-12);
        assert!(compare(&base, &sure, 0).kl.is_infinite());
    }

    #[test]
    fn statistics() {
        let mut mean = Mean::default();
        [1.0, 2.0, 3.0, 4.0].iter().for_each(|&x| mean.add(x));
        assert_eq!(mean.mean(), 2.5);
        assert!((mean.standard_error() - (5.0f64 / 3.0 / 4.0).sqrt()).abs() < 1e-12);
        assert_eq!(quantile(&[1.0, 2.0, 3.0, 4.0, 5.0], 0.5), 3.0);
        assert!((quantile(&[0.0, 1.0], 0.99) - 0.99).abs() < 1e-12);
    }
}
