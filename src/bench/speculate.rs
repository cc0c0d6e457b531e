//! What speculation brings where each token of a draft is right with a given chance.
//!
//! The true answer is generated first, without drafts. Then the same request runs with drafts from it, wrong
//! where a hash of seed and position says so, through the same scheduler as every other request: it chooses
//! how long drafts are, and whether to make any. The answers must be equal.

use super::{Error, median};
use crate::engine::{Engine, EngineError, Phase, Sink, StepItem, Want};
use crate::sample::{SamplerPool, Sampling};
use crate::schedule::{
    Drafter, Request, RequestEvent, RequestId, Scheduler, SchedulerOptions, Speculate, Stop, Timings,
};
use huozi_quant::random::Random;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

/// Tokens of the wide step that is compared with a step of one token.
pub const VERIFY_TOKENS: usize = 5;
/// Times that each of the two steps is measured, alternating.
const VERIFY_TIMES: usize = 9;

/// What is measured.
#[derive(Clone, Debug, PartialEq)]
pub struct SpeculateTest {
    /// Tokens of the prompt, at least 1.
    pub prompt: usize,
    /// Tokens that are generated.
    pub generated: usize,
    /// Chances of each draft token after accepted ones, from 0 to 1.
    pub chances: Vec<f64>,
    /// How often each chance is measured.
    pub repetitions: usize,
    /// Seed of the prompt, of the draws and of the drafts.
    pub seed: u64,
}

impl SpeculateTest {
    /// KV positions that it needs.
    pub fn positions(&self) -> usize {
        self.prompt + self.generated + 1 + VERIFY_TOKENS
    }
}

/// One answer, with and without drafts.
#[derive(Clone, Debug, PartialEq)]
pub struct SpeculateRow {
    /// The chance of a draft token.
    pub chance: f64,
    /// Tokens generated in each of the measured times.
    pub generated: usize,
    /// Seconds of each repetition with drafts.
    pub seconds: Vec<f64>,
    /// Seconds without, each measured just before.
    pub plain: Vec<f64>,
    /// Draft tokens that were verified in the last repetition.
    pub drafted: usize,
    /// Those that were accepted.
    pub accepted: usize,
}

impl SpeculateRow {
    /// Tokens per second: the median.
    pub fn rate(&self) -> f64 {
        self.generated as f64 / median(&self.seconds)
    }

    /// The same without drafts.
    pub fn plain_rate(&self) -> f64 {
        self.generated as f64 / median(&self.plain)
    }

    /// How many times faster with drafts: the median of the pairs.
    pub fn ratio(&self) -> f64 {
        let ratios: Vec<f64> = self.plain.iter().zip(&self.seconds).map(|(a, b)| a / b).collect();
        median(&ratios)
    }
}

/// What was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct SpeculateRun {
    /// A row for each chance.
    pub rows: Vec<SpeculateRow>,
    /// Seconds of a step of one generated token and of one of [`VERIFY_TOKENS`], medians.
    pub steps: (f64, f64),
}

/// The true answer, and where drafts are wrong.
#[derive(Debug)]
struct Script {
    /// Prompt and answer.
    ids: Vec<u32>,
    chance: f64,
    seed: u64,
    n_vocab: u32,
}

impl Drafter for Script {
    fn draft(&self, ids: &[u32], most: usize, draft: &mut Vec<u32>) {
        for (at, &id) in self.ids.iter().enumerate().skip(ids.len()).take(most) {
            let right = Random::of_part(self.seed, [at as u64, 0]).open_unit() < self.chance;
            draft.push(if right { id } else { (id + 1) % self.n_vocab });
        }
    }
}

/// Measures `test`. `on` is called with the number of answers generated, before the first and after each one.
///
/// # Errors
/// The engine's errors; [`Error::Drafts`] where an answer differs.
pub fn measure(
    mut engine: Box<dyn Engine>,
    test: &SpeculateTest,
    never: &Arc<[bool]>,
    cancel: &AtomicBool,
    on: &mut dyn FnMut(usize),
) -> Result<SpeculateRun, Error> {
    let n_vocab = engine.info().n_vocab as u64;
    let mut random = Random::new(test.seed);
    let ids: Vec<u32> = (0..test.prompt).map(|_| random.below(n_vocab) as u32).collect();
    let mut answers = 0;
    let mut answer = |engine, speculate| -> Result<_, Error> {
        on(answers);
        answers += 1;
        let request = Request {
            ids: ids.clone(),
            sampling: Sampling::DEFAULT,
            seed: test.seed,
            stop_ids: Vec::new(),
            // The step that reads the prompt draws the first.
            max_new: test.generated + 1,
            n_ctx: test.positions(),
            log_probs: None,
            speculate,
        };
        generate(engine, request, never, cancel)
    };
    let Generated { engine: mut back, tokens: truth, .. } = answer(engine, Speculate::Off)?;
    let whole = [&ids[..], &truth].concat();
    let mut rows = Vec::new();
    for &chance in &test.chances {
        let mut row = SpeculateRow {
            chance,
            generated: test.generated,
            seconds: Vec::new(),
            plain: Vec::new(),
            drafted: 0,
            accepted: 0,
        };
        let script = Script { ids: whole.clone(), chance, seed: test.seed, n_vocab: n_vocab as u32 };
        let script: Arc<dyn Drafter> = Arc::new(script);
        for _ in 0..test.repetitions {
            for speculate in [Speculate::Off, Speculate::From(script.clone())] {
                let plain = matches!(speculate, Speculate::Off);
                let Generated { engine, tokens, timings } = answer(back, speculate)?;
                back = engine;
                if tokens != truth {
                    return Err(Error::Drafts { chance });
                }
                let list = if plain { &mut row.plain } else { &mut row.seconds };
                list.push(timings.generate_seconds);
                (row.drafted, row.accepted) = (timings.drafted_tokens, timings.accepted_tokens);
            }
        }
        rows.push(row);
    }
    on(answers);
    engine = back;
    let steps = steps(engine.as_mut(), &whole[..test.prompt + test.generated / 2], never, cancel)?;
    Ok(SpeculateRun { rows, steps })
}

/// What one request gave, and the engine back.
struct Generated {
    engine: Box<dyn Engine>,
    tokens: Vec<u32>,
    timings: Timings,
}

/// Runs one request in a scheduler of its own.
fn generate(
    engine: Box<dyn Engine>,
    request: Request,
    never: &Arc<[bool]>,
    cancel: &AtomicBool,
) -> Result<Generated, Error> {
    let options = SchedulerOptions { running: 1, kept: 0, exact: true, grouped: false };
    let mut scheduler = Scheduler::with_options(engine, never.clone(), options);
    let _: RequestId = scheduler.submit(request).map_err(|refused| Error::Refused(refused.to_string()))?;
    let (mut tokens, mut end) = (Vec::new(), None);
    let mut on = |event| {
        match event {
            RequestEvent::Token { token, .. } => tokens.push(token),
            RequestEvent::Stopped { stop, timings, .. } => end = Some((stop, timings)),
            _ => {}
        }
        ControlFlow::Continue(())
    };
    while scheduler.step(cancel, &mut on)? {}
    match end {
        Some((Stop::MaxTokens, timings)) => {
            Ok(Generated { engine: scheduler.into_engine(), tokens, timings })
        }
        Some((Stop::BrokenLogits, _)) => {
            Err(Error::Refused("the model gives logits that are not finite".into()))
        }
        _ => Err(EngineError::Cancelled.into()),
    }
}

/// Seconds of a step of one generated token and of one of [`VERIFY_TOKENS`] after `ids`, each token drawn.
fn steps(
    engine: &mut dyn Engine,
    ids: &[u32],
    never: &Arc<[bool]>,
    cancel: &AtomicBool,
) -> Result<(f64, f64), Error> {
    let samplers = SamplerPool::new(never.clone());
    let seq = engine.seq_new();
    let sampling = Sampling::DEFAULT;
    let row = |_: usize, position: usize, logits: &[f32]| {
        let _ = samplers.sample(logits, ids, &sampling, 1, position as u64);
    };
    let read = StepItem { seq, tokens: ids, phase: Phase::Given, want: Want::None };
    let mut result = engine.step(&[read], &mut Sink::Shared(&row), cancel).map(drop);
    let (mut one, mut wide) = (Vec::new(), Vec::new());
    // The first pair warms up.
    for i in 0..=VERIFY_TIMES {
        for (n, list) in [(1, &mut one), (VERIFY_TOKENS, &mut wide)] {
            let tokens: Vec<u32> = ids.iter().copied().cycle().take(n).collect();
            let item = StepItem { seq, tokens: &tokens, phase: Phase::Generated, want: Want::All };
            let start = Instant::now();
            result = result.and_then(|()| engine.step(&[item], &mut Sink::Shared(&row), cancel).map(drop));
            if i > 0 {
                list.push(start.elapsed().as_secs_f64());
            }
            result = result.and_then(|()| engine.seq_truncate(seq, ids.len()));
        }
    }
    engine.seq_free(seq);
    result?;
    Ok((median(&one), median(&wide)))
}
