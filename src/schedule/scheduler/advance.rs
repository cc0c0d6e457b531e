//! One step of the engine over the running requests: its items, and what came of each.

use super::{OnEvent, Scheduler};
use crate::engine::{EngineError, Sink, StepItem};
use crate::schedule::drafts::Rates;
use crate::schedule::request::{RequestEvent, Stop};
use crate::schedule::running::{RowOutcome, Running};
use std::ops::ControlFlow;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// The longest an engine should be silent while it reads a piece of prompt: progress is promised twice a
/// second.
const SILENCE_SECONDS: f64 = 0.3;
/// The longest step that reads a prompt: what is lost when it is cancelled.
const STEP_SECONDS: f64 = 4.0;
/// The same while others generate: they wait for it.
const SHARED_STEP_SECONDS: f64 = 1.0;
/// The shortest piece beside others that generate: reading the weights for it takes as long as multiplying
/// them with about so many tokens (2.15 s + 33 ms a token; the 7B1 shape, q4_k_m, 2 threads).
const SHARED_PIECE: usize = 64;
/// The shortest time between two events of one prompt.
const EVENT_SECONDS: f64 = 0.1;
/// Maximum number of prompt tokens in one step.
const PIECE_TOKENS: usize = 512;
/// A piece is at most so many times the last one.
const PIECE_GROWTH: usize = 4;

/// A running request's part of a step.
struct Part {
    /// Which running request.
    owner: usize,
    /// Tokens, drafts included.
    tokens: usize,
    /// Drafts among them, the last ones.
    drafts: usize,
}

/// What a step did.
struct Done {
    parts: Vec<Part>,
    /// What the rows of logits of each part led to, in any order.
    outcomes: Vec<Vec<RowOutcome>>,
    seconds: f64,
}

impl Scheduler {
    /// Builds the items of a step, runs it, and deals out what was drawn. Only with `drafting` are tokens
    /// drafted.
    pub(super) fn advance(
        &mut self,
        drafting: bool,
        cancel: &AtomicBool,
        on: &mut OnEvent<'_>,
    ) -> Result<(), EngineError> {
        let drafts = if drafting { self.draft() } else { vec![0; self.running.len()] };
        for (r, &n) in self.running.iter_mut().zip(&drafts) {
            r.add_draft(n);
        }
        let done = self.run_step(&drafts, cancel, on);
        self.running.iter_mut().for_each(Running::drop_draft);
        let Done { parts, outcomes, seconds } = done?;
        let only_generates = !self.running.iter().any(Running::reads);
        if only_generates && self.running.iter().any(|r| r.drafts.is_some()) {
            self.costs.record(parts.iter().map(|part| part.tokens).sum(), seconds);
        }
        let mut ended = Vec::new();
        let mut failed = Ok(());
        for (part, mut rows) in parts.iter().zip(outcomes) {
            rows.sort_by_key(|row| row.position);
            let r = &mut self.running[part.owner];
            ended.extend(took(r, part, seconds, rows, &mut self.rates, on).map(|stop| (part.owner, stop)));
            if let Some(seq) = r.seq.filter(|_| part.drafts > 0) {
                failed = failed.and(self.engine.seq_truncate(seq, r.done));
            }
        }
        for (i, stop) in ended.into_iter().rev() {
            self.end(i, stop, on);
        }
        failed
    }

    /// Makes drafts, and says how many tokens of each running request's are to be verified.
    fn draft(&mut self) -> Vec<usize> {
        let n_vocab = self.engine.info().n_vocab;
        let mut rows = 0;
        // Which running request each offer belongs to.
        let (mut owners, mut offers) = (Vec::new(), Vec::new());
        for (i, r) in self.running.iter_mut().enumerate() {
            if r.reads() {
                continue;
            }
            rows += 1;
            if let Some(offer) = r.offer(n_vocab, &self.rates) {
                owners.push(i);
                offers.push(offer);
            }
        }
        let mut drafts = vec![0; self.running.len()];
        if !offers.is_empty() {
            for (i, n) in owners.into_iter().zip(self.costs.choose(rows, &offers)) {
                drafts[i] = n;
            }
        }
        drafts
    }

    /// Runs the engine; `drafts`: how many of each running request's ids are a draft.
    fn run_step(
        &mut self,
        drafts: &[usize],
        cancel: &AtomicBool,
        on: &mut OnEvent<'_>,
    ) -> Result<Done, EngineError> {
        let mut budget = self.piece;
        let mut parts = Vec::new();
        let mut items = Vec::new();
        for (owner, r) in self.running.iter().enumerate() {
            let Some(seq) = r.seq else { continue };
            if r.reads() && budget == 0 {
                continue;
            }
            let piece = r.piece(budget);
            if r.reads() {
                budget -= piece.tokens.len();
            }
            parts.push(Part { owner, tokens: piece.tokens.len(), drafts: drafts[owner] });
            items.push(StepItem { seq, tokens: piece.tokens, phase: piece.phase, want: piece.want });
        }
        let outcomes: Vec<Mutex<Vec<RowOutcome>>> = items.iter().map(|_| Mutex::default()).collect();
        let (running, samplers) = (&self.running, &self.samplers);
        let row = |item: usize, position: usize, logits: &[f32]| {
            let outcome = running[parts[item].owner].row(position, logits, samplers);
            outcomes[item].lock().unwrap_or_else(PoisonError::into_inner).extend(outcome);
        };
        let start = Instant::now();
        let (mut spoke, mut told, mut silence) = (start, start, 0.0f64);
        let mut stopped = Vec::new();
        let mut progress = |share: f64| {
            silence = silence.max(spoke.elapsed().as_secs_f64());
            spoke = Instant::now();
            if told.elapsed().as_secs_f64() < EVENT_SECONDS {
                return;
            }
            told = spoke;
            for (part, r) in parts.iter().map(|part| (part, &running[part.owner])) {
                if r.done < r.prompt_len() {
                    let done = r.done + (share * part.tokens as f64) as usize;
                    if on(RequestEvent::Prompt { id: r.id, done, total: r.prompt_len() }).is_break() {
                        stopped.push(r.id);
                    }
                }
            }
        };
        if let Some(cancels) = &self.cancels {
            cancels.begin(parts.iter().map(|part| running[part.owner].id).collect());
        }
        let result = self.engine.step_watched(&items, &mut Sink::Shared(&row), &mut progress, cancel);
        if let Some(cancels) = &self.cancels {
            cancels.end();
        }
        let seconds = start.elapsed().as_secs_f64();
        let silence = silence.max(spoke.elapsed().as_secs_f64());
        let outcomes = outcomes.into_iter();
        let outcomes = outcomes.map(|rows| rows.into_inner().unwrap_or_else(PoisonError::into_inner));
        let outcomes = outcomes.collect();
        for id in stopped {
            self.end_later(id, Stop::Hook);
        }
        result?;
        // Budget that is left says nothing about speed: only a full piece may grow or shrink the next.
        if budget == 0 {
            let (least, most) = match parts.len() {
                _ if self.options.grouped => (SHARED_PIECE, f64::INFINITY),
                1 => (1, STEP_SECONDS),
                _ => (SHARED_PIECE, SHARED_STEP_SECONDS),
            };
            let share = (SILENCE_SECONDS / silence.max(1e-6)).min(most / seconds.max(1e-6));
            let fits = (self.piece as f64 * share) as usize;
            self.piece = fits.min(self.piece * PIECE_GROWTH).clamp(least, PIECE_TOKENS);
        }
        Ok(Done { parts, outcomes, seconds })
    }
}

/// Notes that `r` took its part of a step of `seconds`, and tells what its rows of logits, by position, led
/// to; says whether it ends. Of drafts those count that are what was drawn, up to the first that is not.
fn took(
    r: &mut Running,
    part: &Part,
    seconds: f64,
    rows: Vec<RowOutcome>,
    all: &mut Rates,
    on: &mut OnEvent<'_>,
) -> Option<Stop> {
    let (id, total, read) = (r.id, r.prompt_len(), part.tokens - part.drafts);
    let mut goes_on = ControlFlow::Continue(());
    let generates = r.done >= total && !r.reads();
    if r.done < total {
        r.timings.prompt_tokens += read;
        r.timings.prompt_seconds += seconds;
        goes_on = on(RequestEvent::Prompt { id, done: r.done + read, total });
    } else {
        r.timings.generate_seconds += seconds;
    }
    r.done += read;
    let (mut accepted, mut rejected) = (0, 0);
    let mut stop = None;
    for row in rows {
        if let Some(Some(_)) = row.drawn {
            r.timings.generated_tokens += 1;
        }
        if let (Some(at), ControlFlow::Continue(())) = (row.log_probs, goes_on) {
            r.told(at.position);
            goes_on = on(RequestEvent::LogProbs { id, at });
        }
        let Some(drawn) = row.drawn else { continue };
        stop = match drawn {
            _ if goes_on.is_break() => Some(Stop::Hook),
            None => Some(Stop::BrokenLogits),
            Some(token) => r.append(token, on),
        };
        if stop.is_some() || accepted == part.drafts {
            break;
        }
        if drawn != r.drafted(accepted) {
            rejected = 1;
            break;
        }
        accepted += 1;
        r.done += 1;
    }
    if goes_on.is_break() {
        stop = Some(Stop::Hook);
    }
    if generates {
        r.verified(part.drafts, accepted, rejected, all);
    }
    stop.or_else(|| (r.done == r.ids.len()).then_some(Stop::MaxTokens))
}
