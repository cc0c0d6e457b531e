//! Logits to the id of the next token.
//!
//! [`log_probs`]: the same row to log-probabilities.
//!
//! In: one row of logits, the ids so far, settings, a seed and the position to fill. Out: an id.
//! Knows nothing of text.
//!
//! The order is that of Hugging Face `generate`: repetition penalty, temperature, top-k, top-p,
//! softmax, draw. Ids without a token are taken out before everything else.
//!
//! The draw at a position depends on the seed and the position only, never on what was drawn
//! before: text is the same when rows are batched, speculated on or resumed.

pub mod log_probs;

use std::sync::{Arc, Mutex, PoisonError};

/// Numbers that a setting takes: `least` to `most`, both included.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplingRange {
    /// The smallest.
    pub least: f32,
    /// The largest.
    pub most: f32,
}

impl SamplingRange {
    /// Whether `x` lies within; NaN does not.
    pub fn contains(self, x: f32) -> bool {
        (self.least..=self.most).contains(&x)
    }
}

impl std::fmt::Display for SamplingRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} to {}", self.least, self.most)
    }
}

/// The range of [`Sampling::temperature`].
pub const TEMPERATURE_RANGE: SamplingRange = SamplingRange { least: 0.0, most: 5.0 };
/// The range of [`Sampling::top_p`].
pub const TOP_P_RANGE: SamplingRange = SamplingRange { least: 0.0, most: 1.0 };
/// The range of [`Sampling::repetition_penalty`].
pub const PENALTY_RANGE: SamplingRange = SamplingRange { least: 0.01, most: 5.0 };

/// How to choose the next token. The default is that of Huozi's demo.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Sampling {
    /// Draw; otherwise the largest logit after the penalty is taken.
    pub do_sample: bool,
    /// Logits are divided by it, 0 to 5; 0 means as if `do_sample` were false.
    pub temperature: f32,
    /// Keep the k largest logits and all equal to the k-th; 0 keeps all.
    pub top_k: u32,
    /// Keep the smallest set whose probability reaches this, at least one, 0 to 1; 0 keeps the most likely
    /// alone, 1 keeps all.
    pub top_p: f32,
    /// Logits of ids already seen are divided (if positive) or multiplied by it, 0.01 to 5; 1 is none.
    pub repetition_penalty: f32,
}

impl Default for Sampling {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl Sampling {
    /// The settings of Huozi's demo.
    pub const DEFAULT: Self =
        Self { do_sample: true, temperature: 0.5, top_k: 50, top_p: 0.95, repetition_penalty: 1.03 };

    /// # Errors
    /// A setting outside of its range.
    pub fn check(&self) -> Result<(), SettingError> {
        for (name, value, range) in [
            ("temperature", self.temperature, TEMPERATURE_RANGE),
            ("top_p", self.top_p, TOP_P_RANGE),
            ("repetition_penalty", self.repetition_penalty, PENALTY_RANGE),
        ] {
            if !range.contains(value) {
                return Err(SettingError { name, value, range });
            }
        }
        Ok(())
    }
}

/// A setting outside of its range.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("{name} is {value}, but must be {range}")]
pub struct SettingError {
    /// The field of [`Sampling`].
    pub name: &'static str,
    /// The value it has.
    pub value: f32,
    /// The values it takes.
    pub range: SamplingRange,
}

/// Why no token could be chosen.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SampleError {
    /// A setting is out of its range.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// Every id with a token has the logit NaN or minus infinity: the model is broken.
    #[error("no token can be chosen: of {n_vocab} logits none is a number above minus infinity")]
    Nothing {
        /// Number of logits given.
        n_vocab: usize,
    },
}

/// Chooses tokens; keeps its memory from one to the next.
///
/// NaN counts as minus infinity: never chosen. Plus infinity counts as the largest float.
pub struct Sampler {
    never: Arc<[bool]>,
    /// Logits after mask, penalty and temperature; minus infinity = out.
    logits: Vec<f32>,
    /// Ids the penalty was applied to; all false between calls.
    penalised: Vec<bool>,
    /// The largest values seen while the k-th largest is searched.
    largest: Vec<f32>,
    kept: Vec<Candidate>,
}

/// Samplers for several threads: each call takes an idle one, or a new one where all are busy.
pub struct SamplerPool {
    never: Arc<[bool]>,
    idle: Mutex<Vec<Sampler>>,
}

impl SamplerPool {
    /// `never` as for [`Sampler::new`].
    #[must_use]
    pub fn new(never: Arc<[bool]>) -> Self {
        Self { never, idle: Mutex::default() }
    }

    /// [`Sampler::sample`], from any thread.
    ///
    /// # Errors
    /// As [`Sampler::sample`].
    pub fn sample(
        &self,
        logits: &[f32],
        seen: &[u32],
        settings: &Sampling,
        seed: u64,
        position: u64,
    ) -> Result<u32, SampleError> {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = idle().pop();
        let mut sampler = taken.unwrap_or_else(|| Sampler::new(self.never.clone()));
        let result = sampler.sample(logits, seen, settings, seed, position);
        idle().push(sampler);
        result
    }
}

/// A token that may be drawn.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    id: u32,
    logit: f32,
    /// `exp(logit - largest)`, f64 because a quarter of a million of them are added up.
    weight: f64,
}

impl Sampler {
    /// `never[id]` is true for ids that must never be chosen; ids past its end have no token and
    /// are never chosen either.
    #[must_use]
    pub fn new(never: Arc<[bool]>) -> Self {
        Self { never, logits: Vec::new(), penalised: Vec::new(), largest: Vec::new(), kept: Vec::new() }
    }

    /// The token to put at `position`.
    ///
    /// `logits`: one per id. `seen`: the ids of prompt and output so far, in any order, any number
    /// of times; ids past the end of `logits` are ignored.
    ///
    /// # Errors
    /// Settings out of range; no logit to choose from.
    pub fn sample(
        &mut self,
        logits: &[f32],
        seen: &[u32],
        settings: &Sampling,
        seed: u64,
        position: u64,
    ) -> Result<u32, SampleError> {
        self.filter(logits, seen, settings)?;
        let total: f64 = self.kept.iter().map(|c| c.weight).sum();
        let mut left = uniform(seed, position) * total;
        let mut last = None;
        // In id order: where a draw falls depends little on small differences between logits.
        for c in &self.kept {
            if c.weight > 0.0 {
                last = Some(c.id);
                left -= c.weight;
                if left < 0.0 {
                    break;
                }
            }
        }
        // Rounding may leave a rest beyond the last one.
        last.ok_or(SampleError::Nothing { n_vocab: logits.len() })
    }

    /// The ids that [`Sampler::sample`] draws from and their probabilities, the largest first, of
    /// equal ones the smaller id first. One id of probability 1 when nothing is drawn.
    ///
    /// # Errors
    /// As [`Sampler::sample`].
    pub fn candidates(
        &mut self,
        logits: &[f32],
        seen: &[u32],
        settings: &Sampling,
    ) -> Result<Vec<(u32, f32)>, SampleError> {
        self.filter(logits, seen, settings)?;
        self.kept.sort_unstable_by(|a, b| b.logit.total_cmp(&a.logit).then(a.id.cmp(&b.id)));
        let total: f64 = self.kept.iter().map(|c| c.weight).sum();
        Ok(self.kept.iter().map(|c| (c.id, (c.weight / total) as f32)).collect())
    }

    /// Fills `kept` with what may be drawn, in id order; never empty on success.
    fn filter(&mut self, logits: &[f32], seen: &[u32], settings: &Sampling) -> Result<(), SampleError> {
        settings.check()?;
        self.load(logits);
        self.penalise(seen, settings.repetition_penalty);
        self.kept.clear();

        // The first of the largest.
        let mut best = Candidate { id: 0, logit: f32::NEG_INFINITY, weight: 1.0 };
        for (id, &logit) in (0u32..).zip(&self.logits) {
            if logit > best.logit {
                best = Candidate { id, logit, weight: 1.0 };
            }
        }
        if best.logit == f32::NEG_INFINITY {
            return Err(SampleError::Nothing { n_vocab: logits.len() });
        }
        let top = best.logit / settings.temperature;
        // A temperature so small that dividing by it overflows is as good as 0.
        if !settings.do_sample || settings.temperature == 0.0 || !top.is_finite() {
            self.kept.push(best);
            return Ok(());
        }
        if settings.temperature != 1.0 {
            for logit in &mut self.logits {
                *logit /= settings.temperature;
            }
        }

        let least = self.kth_largest(settings.top_k as usize);
        for (id, &logit) in (0u32..).zip(&self.logits) {
            if logit >= least && logit > f32::NEG_INFINITY {
                let weight = (f64::from(logit) - f64::from(top)).exp();
                self.kept.push(Candidate { id, logit, weight });
            }
        }
        if settings.top_p < 1.0 {
            self.keep_top_p(settings.top_p);
        }
        Ok(())
    }

    /// Copies the logits; NaN and those that must never be chosen become minus infinity.
    fn load(&mut self, logits: &[f32]) {
        self.logits.clear();
        self.logits.extend(logits.iter().zip(self.never.iter()).map(|(&logit, &never)| {
            if never || logit.is_nan() { f32::NEG_INFINITY } else { logit.min(f32::MAX) }
        }));
    }

    fn penalise(&mut self, seen: &[u32], penalty: f32) {
        if penalty == 1.0 {
            return;
        }
        self.penalised.resize(self.logits.len(), false);
        for &id in seen {
            if let Some(logit) = self.logits.get_mut(id as usize)
                && !std::mem::replace(&mut self.penalised[id as usize], true)
            {
                let new = if *logit < 0.0 { *logit * penalty } else { *logit / penalty };
                *logit = new.min(f32::MAX);
            }
        }
        for &id in seen {
            if let Some(mark) = self.penalised.get_mut(id as usize) {
                *mark = false;
            }
        }
    }

    /// The `k`-th largest logit; minus infinity if there are no more than `k`, or `k` is 0.
    fn kth_largest(&mut self, k: usize) -> f32 {
        if k == 0 || k >= self.logits.len() {
            return f32::NEG_INFINITY;
        }
        // One pass: collect what is above the k-th largest of what was collected before. Almost
        // nothing of a row of logits is.
        let room = (4 * k).max(1024);
        let mut least = f32::NEG_INFINITY;
        self.largest.clear();
        for &logit in &self.logits {
            if logit > least {
                self.largest.push(logit);
                if self.largest.len() == room {
                    least = select(&mut self.largest, k);
                }
            }
        }
        if self.largest.len() >= k { select(&mut self.largest, k) } else { least }
    }

    /// Takes out the least likely as long as their probabilities add up to at most `1 - p`, in
    /// Hugging Face's order: ascending, of equal ones the smaller id first. One always stays.
    fn keep_top_p(&mut self, p: f32) {
        let total: f64 = self.kept.iter().map(|c| c.weight).sum();
        // transformers compares in f32; 1 - p is taken in f64 and rounded, as Python does.
        let out = (1.0 - f64::from(p)) as f32;
        let goes = |below: f64| (below / total) as f32 <= out;

        // Sort only as many of the largest as it takes: if all the others together go, their
        // order does not matter.
        let descending = |a: &Candidate, b: &Candidate| b.logit.total_cmp(&a.logit).then(b.id.cmp(&a.id));
        let mut n = 256;
        let (head, mut below) = loop {
            if n >= self.kept.len() {
                break (self.kept.len(), 0.0);
            }
            self.kept.select_nth_unstable_by(n, descending);
            let rest: f64 = self.kept[n..].iter().map(|c| c.weight).sum();
            if goes(rest) {
                break (n, rest);
            }
            n *= 8;
        };
        self.kept.truncate(head);
        self.kept.sort_unstable_by(descending);
        while self.kept.len() > 1 {
            below += self.kept[self.kept.len() - 1].weight;
            if !goes(below) {
                break;
            }
            self.kept.pop();
        }
        self.kept.sort_unstable_by_key(|c| c.id);
    }
}

/// Cuts `values` to its `k` largest and returns the least of them; `1 <= k <= values.len()`.
fn select(values: &mut Vec<f32>, k: usize) -> f32 {
    let (_, &mut least, _) = values.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
    values.truncate(k);
    least
}

/// The seed of a row: SplitMix64 of the conversation's seed and the number of the attempt at the turn.
pub fn row_seed(seed: u64, attempt: u64) -> u64 {
    let mut z = seed.wrapping_add(attempt.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The number in [0, 1) that belongs to a seed and a position: 53 bits of Philox.
#[must_use]
pub fn uniform(seed: u64, position: u64) -> f64 {
    let [a, b, ..] = philox([position as u32, (position >> 32) as u32, 0, 0], seed);
    let bits = (u64::from(a) << 32 | u64::from(b)) >> 11;
    let fraction = bits as f64;
    fraction / (1u64 << 53) as f64
}

/// Philox4x32-10: four random words of a counter and a key, without any state. Salmon et al.,
/// "Parallel random numbers: as easy as 1, 2, 3" (2011); the tests hold its published vectors.
fn philox(mut counter: [u32; 4], key: u64) -> [u32; 4] {
    let (mut k0, mut k1) = (key as u32, (key >> 32) as u32);
    for _ in 0..10 {
        let p0 = 0xD251_1F53 * u64::from(counter[0]);
        let p1 = 0xCD9E_8D57 * u64::from(counter[2]);
        let next =
            [(p1 >> 32) as u32 ^ counter[1] ^ k0, p1 as u32, (p0 >> 32) as u32 ^ counter[3] ^ k1, p0 as u32];
        counter = next;
        k0 = k0.wrapping_add(0x9E37_79B9);
        k1 = k1.wrapping_add(0xBB67_AE85);
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::philox;

    #[test]
    fn philox_gives_the_published_words() {
        let ones = u32::MAX;
        for (counter, key, want) in [
            ([0; 4], 0, [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([ones; 4], u64::MAX, [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                0x299f_31d0_a409_3822,
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ] {
            assert_eq!(philox(counter, key), want);
        }
    }
}
