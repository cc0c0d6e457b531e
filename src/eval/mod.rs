//! Measuring a model over a text: perplexity, and KL divergence from a base model.
//!
//! In: an engine (or two) and token ids. Out: numbers. Logits are scored inside the sink; perplexity keeps no
//! row, KL divergence the base's rows of one small group of positions.
//!
//! The text is given (read as a prompt) or teacher-forced as if the model had generated it, one step per
//! token.

use crate::engine::{Engine, EngineError, Phase, Seq, Sink, StepItem, Want};
use crate::sample::log_probs::LogSoftmax;
use std::sync::atomic::AtomicBool;

/// How a text is cut into chunks and which tokens are scored.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// Tokens of a chunk; a shorter rest is dropped.
    pub chunk: usize,
    /// Tokens from the beginning of one chunk to the next, 1 to `chunk`.
    pub stride: usize,
    /// Score only the tokens after the middle: positions `chunk / 2 + 1` and later.
    pub second_half: bool,
    /// Maximum number of chunks.
    pub max_chunks: usize,
    /// The arithmetic that reads it: [`Phase::Given`] a chunk or group of tokens at a time,
    /// [`Phase::Generated`] one token at a time.
    pub phase: Phase,
}

impl Cut {
    /// Chunks of `chunk` given tokens side by side; each token is scored but the first of a chunk.
    pub fn plain(chunk: usize) -> Self {
        Self { chunk, stride: chunk, second_half: false, max_chunks: usize::MAX, phase: Phase::Given }
    }

    /// The number of chunks of a text of `tokens` tokens.
    pub fn chunks(&self, tokens: usize) -> usize {
        let all = if tokens < self.chunk { 0 } else { (tokens - self.chunk) / self.stride + 1 };
        all.min(self.max_chunks)
    }

    /// The first scored token of chunk `index`: each token of the text is scored once, and never without
    /// context.
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
    #[error("a stride of {stride} is not valid with chunks of {chunk} tokens")]
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
    /// A row of logits is not finite.
    #[error("the logits at token {token} of the text are not finite")]
    NotFinite {
        /// Index of the token in the text.
        token: usize,
    },
    /// An engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// The result so far, for a progress display.
#[derive(Clone, Copy, Debug)]
pub struct EvalProgress {
    /// Chunks done.
    pub done: usize,
    /// Chunks in all.
    pub chunks: usize,
    /// The perplexity, or the mean KL divergence in nats, of the chunks done.
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
    progress: &mut dyn FnMut(EvalProgress),
) -> Result<Perplexity, Error> {
    let chunks = checked_chunks(ids, cut)?;
    let mut nll = Mean::default();
    for index in 0..chunks {
        let start = index * cut.stride;
        let chunk = &ids[start..start + cut.chunk];
        let first = cut.first_scored(index);
        let mut bad = None;
        let result = with_sequence(engine, |engine, seq| {
            // The row at position p scores token p + 1; the rows before the first scored token are not
            // needed.
            append(engine, seq, &chunk[..first - 1], cut.phase, Want::None, cancel, &mut |_, _| {})?;
            let tokens = &chunk[first - 1..cut.chunk - 1];
            let mut scores = vec![f64::NAN; tokens.len()];
            append(engine, seq, tokens, cut.phase, Want::All, cancel, &mut |position, logits| {
                let score = LogSoftmax::of(logits).at(chunk[position + 1]);
                scores[position - (first - 1)] = -score;
                if !score.is_finite() {
                    bad = Some(start + position);
                }
            })?;
            Ok(scores)
        });
        let scores = result?;
        if let Some(token) = bad {
            return Err(Error::NotFinite { token });
        }
        scores.into_iter().for_each(|score| nll.add(score));
        progress(EvalProgress { done: index + 1, chunks, value: nll.mean().exp() });
    }
    Ok(Perplexity {
        tokens: ids.len(),
        chunks,
        scored: nll.n,
        nll: nll.mean(),
        nll_error: nll.standard_error(),
    })
}

/// The distance of a model from its base.
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
    /// 99th percentile.
    pub kl_99: f64,
    /// Largest.
    pub kl_max: f64,
    /// Share of positions where both have the same likeliest token, 0 to 1.
    pub same_top: f64,
    /// At each other position, by how much the base prefers its likeliest token to the model's, in its
    /// logits; smallest first.
    pub margins: Vec<f32>,
    /// Mean negative log-likelihood under the model.
    pub nll: f64,
    /// Mean negative log-likelihood under the base.
    pub nll_base: f64,
}

impl Divergence {
    /// Positions where the base prefers its likeliest token to the model's by `margin` or more in its logits:
    /// no tie that rounding could have broken.
    pub fn misses(&self, margin: f32) -> usize {
        self.margins.len() - self.margins.partition_point(|&m| m < margin)
    }
}

/// Compares the rows of a model with those of its base, position by position.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    kl: Vec<f64>,
    kl_mean: Mean,
    margins: Vec<f32>,
    nll: Mean,
    nll_base: Mean,
}

impl Comparison {
    /// Compares two rows of logits of the same length; `next` is the token that follows in the text. False
    /// when a row is not finite or has no logit for `next`.
    pub fn add(&mut self, base: &[f32], model: &[f32], next: u32) -> bool {
        let row = compare(base, model, next);
        self.kl.push(row.kl);
        self.kl_mean.add(row.kl);
        self.nll.add(row.nll);
        self.nll_base.add(row.nll_base);
        self.margins.extend(row.margin);
        row.kl.is_finite() && row.nll.is_finite() && row.nll_base.is_finite()
    }

    /// The result, over a text of `tokens` tokens in `chunks` chunks.
    pub fn finish(mut self, tokens: usize, chunks: usize) -> Divergence {
        self.kl.sort_by(f64::total_cmp);
        self.margins.sort_by(f32::total_cmp);
        let scored = self.kl.len();
        Divergence {
            tokens,
            chunks,
            scored,
            kl_mean: self.kl_mean.mean(),
            kl_error: self.kl_mean.standard_error(),
            kl_median: quantile(&self.kl, 0.5),
            kl_99: quantile(&self.kl, 0.99),
            kl_max: self.kl.last().copied().unwrap_or(f64::NAN),
            same_top: (scored - self.margins.len()) as f64 / scored as f64,
            margins: self.margins,
            nll: self.nll.mean(),
            nll_base: self.nll_base.mean(),
        }
    }
}

/// Floats of base logits kept at a time (32 MiB).
const KEPT_FLOATS: usize = 8 << 20;

/// KL divergence of `model` from `base` over `ids`; the base reads them in the arithmetic of `base_phase`.
///
/// Chunks are side by side; the stride is ignored. With [`Cut::second_half`] it is as in llama-perplexity:
/// the rows at positions `chunk / 2 ..= chunk - 2` are compared, each predicting the next token; without,
/// every row but the last.
///
/// # Errors
/// See [`Error`]; `cancel` gives [`EngineError::Cancelled`].
pub fn divergence(
    model: &mut dyn Engine,
    base: &mut dyn Engine,
    ids: &[u32],
    cut: &Cut,
    base_phase: Phase,
    cancel: &AtomicBool,
    progress: &mut dyn FnMut(EvalProgress),
) -> Result<Divergence, Error> {
    let cut = &Cut { stride: cut.chunk, ..*cut };
    let chunks = checked_chunks(ids, cut)?;
    let n_vocab = model.info().n_vocab;
    if base.info().n_vocab != n_vocab {
        return Err(Error::Vocabulary { model: n_vocab, base: base.info().n_vocab });
    }
    let group = (KEPT_FLOATS / n_vocab.max(1)).clamp(16, 128);
    let mut rows = vec![0.0f32; group.min(cut.chunk) * n_vocab];
    let mut comparison = Comparison::default();
    let first = if cut.second_half { cut.chunk / 2 } else { 0 };
    for index in 0..chunks {
        let start = index * cut.chunk;
        let chunk = &ids[start..start + cut.chunk];
        let mut bad = None;
        with_sequence(model, |model, seq| {
            with_sequence(base, |base, base_seq| {
                append(model, seq, &chunk[..first], cut.phase, Want::None, cancel, &mut |_, _| {})?;
                append(base, base_seq, &chunk[..first], base_phase, Want::None, cancel, &mut |_, _| {})?;
                let mut at = first;
                while at < cut.chunk - 1 {
                    let tokens = &chunk[at..(at + group).min(cut.chunk - 1)];
                    append(
                        base,
                        base_seq,
                        tokens,
                        base_phase,
                        Want::All,
                        cancel,
                        &mut |position, logits| {
                            rows[(position - at) * n_vocab..][..n_vocab].copy_from_slice(logits);
                        },
                    )?;
                    append(model, seq, tokens, cut.phase, Want::All, cancel, &mut |position, logits| {
                        let base_row = &rows[(position - at) * n_vocab..][..n_vocab];
                        if !comparison.add(base_row, logits, chunk[position + 1]) {
                            bad = Some(start + position);
                        }
                    })?;
                    at += tokens.len();
                }
                Ok(())
            })
        })?;
        if let Some(token) = bad {
            return Err(Error::NotFinite { token });
        }
        progress(EvalProgress { done: index + 1, chunks, value: comparison.kl_mean.mean() });
    }
    Ok(comparison.finish(ids.len(), chunks))
}

/// Appends `tokens` to `seq` in the arithmetic of `phase`: given ones in one step, generated ones a step
/// each. Rows go to `sink` as `(position, logits)`. Without tokens there is no step.
///
/// # Errors
/// Those of [`Engine::step`]; the tokens of the steps before it stay.
pub fn append(
    engine: &mut dyn Engine,
    seq: Seq,
    tokens: &[u32],
    phase: Phase,
    want: Want,
    cancel: &AtomicBool,
    sink: &mut dyn FnMut(usize, &[f32]),
) -> Result<(), EngineError> {
    let size = match phase {
        Phase::Given => tokens.len().max(1),
        Phase::Generated => 1,
    };
    let steps = tokens.len().div_ceil(size);
    for (i, tokens) in tokens.chunks(size).enumerate() {
        let want = if want == Want::Last && i + 1 < steps { Want::None } else { want };
        let item = StepItem { seq, tokens, phase, want };
        let mut rows = |_: usize, position: usize, logits: &[f32]| sink(position, logits);
        engine.step(&[item], &mut Sink::InOrder(&mut rows), cancel)?;
    }
    Ok(())
}

/// Every row of `chunks`, each in a sequence of its own, to `sink` as `(chunk, position, logits)`: given ones
/// a chunk in one step, generated ones side by side, a token of each in one step.
///
/// # Errors
/// Those of [`Engine::step`].
pub fn read(
    engine: &mut dyn Engine,
    chunks: &[&[u32]],
    phase: Phase,
    cancel: &AtomicBool,
    sink: &mut dyn FnMut(usize, usize, &[f32]),
) -> Result<(), EngineError> {
    let seqs: Vec<Seq> = chunks.iter().map(|_| engine.seq_new()).collect();
    let result = match phase {
        Phase::Given => seqs.iter().zip(chunks).enumerate().try_for_each(|(c, (&seq, tokens))| {
            append(engine, seq, tokens, phase, Want::All, cancel, &mut |position, row| sink(c, position, row))
        }),
        Phase::Generated => {
            let longest = chunks.iter().map(|chunk| chunk.len()).max().unwrap_or(0);
            (0..longest).try_for_each(|position| {
                let there: Vec<usize> = (0..chunks.len()).filter(|&c| position < chunks[c].len()).collect();
                let item = |&c: &usize| {
                    let tokens = &chunks[c][position..=position];
                    StepItem { seq: seqs[c], tokens, phase, want: Want::All }
                };
                let items: Vec<StepItem<'_>> = there.iter().map(item).collect();
                let mut rows = |i: usize, position: usize, row: &[f32]| sink(there[i], position, row);
                engine.step(&items, &mut Sink::InOrder(&mut rows), cancel).map(drop)
            })
        }
    };
    seqs.into_iter().for_each(|seq| engine.seq_free(seq));
    result
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

/// Runs `f` with a new sequence, which is freed in any case.
fn with_sequence<T>(
    engine: &mut dyn Engine,
    f: impl FnOnce(&mut dyn Engine, Seq) -> Result<T, EngineError>,
) -> Result<T, EngineError> {
    let seq = engine.seq_new();
    let result = f(engine, seq);
    engine.seq_free(seq);
    result
}

struct Compared {
    kl: f64,
    nll: f64,
    nll_base: f64,
    /// By how much the base prefers its top to the model's, where they differ.
    margin: Option<f32>,
}

fn compare(base: &[f32], model: &[f32], next: u32) -> Compared {
    let (of_base, of_model) = (LogSoftmax::of(base), LogSoftmax::of(model));
    let kl: f64 = base
        .iter()
        .zip(model)
        .map(|(&b, &m)| {
            let b = of_base.of_logit(b);
            let p = b.exp();
            // An id that the base rules out adds nothing.
            if p > 0.0 { p * (b - of_model.of_logit(m)) } else { 0.0 }
        })
        .sum();
    let (base_top, model_top) = (top(base), top(model));
    Compared {
        // Rounding may bring two equal rows a hair below zero.
        kl: kl.max(0.0),
        nll: -of_model.at(next),
        nll_base: -of_base.at(next),
        margin: (base_top != model_top).then(|| base[base_top] - base[model_top]),
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
    fn divergence_of_known_rows() {
        let base = [0.0f32, 0.0];
        let model = [0.0f32, 3f32.ln()];
        let row = compare(&base, &model, 1);
        let expected = 0.5 * (0.5f64 / 0.25).ln() + 0.5 * (0.5f64 / 0.75).ln();
        assert!((row.kl - expected).abs() < 1e-7);
        assert!((row.nll + 0.75f64.ln()).abs() < 1e-7 && (row.nll_base + 0.5f64.ln()).abs() < 1e-12);
        assert_eq!(row.margin, Some(0.0), "of equal ones the first is the top");
        let same = compare(&model, &model, 0);
        assert!(same.kl == 0.0 && same.margin.is_none());
        // Not symmetric: an id ruled out by the base costs nothing, one ruled out by the model everything.
        let sure = [0.0f32, f32::NEG_INFINITY];
        assert!((compare(&sure, &base, 0).kl - 2f64.ln()).abs() < 1e-12);
        assert!(compare(&base, &sure, 0).kl.is_infinite());
    }

    #[test]
    fn misses_are_counted_by_how_clear_they_are() {
        let mut comparison = Comparison::default();
        let base = [0.0f32, 0.25, 1.0];
        for model in [[0.0f32, 0.0, 1.0], [0.0, 2.0, 1.0], [2.0, 0.0, 1.0]] {
            assert!(comparison.add(&base, &model, 0));
        }
        assert!(!comparison.add(&base, &[f32::NAN; 3], 0) && !comparison.add(&base, &base, 3));
        let d = comparison.finish(9, 1);
        assert_eq!((d.scored, d.tokens, d.chunks), (5, 9, 1));
        // The row of NaN has its first as top.
        assert_eq!(d.margins, [0.75, 1.0, 1.0]);
        assert_eq!((d.misses(0.0), d.misses(0.75), d.misses(0.8), d.misses(1.1)), (3, 3, 2, 0));
        assert_eq!(d.same_top, 2.0 / 5.0);
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
