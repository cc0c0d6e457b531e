//! A request on its way: what of it is in the cache, what is read next, and what a row of its logits leads
//! to.

use super::request::{LogProbOptions, PositionLogProbs, Request, RequestId, Stop, Timings};
use crate::engine::{Phase, Seq, Want};
use crate::sample::SamplerPool;
use crate::sample::log_probs::{LogSoftmax, likeliest};

/// A request that waits or runs.
pub(super) struct Running {
    pub id: RequestId,
    pub request: Request,
    /// The prompt and what was generated; the first `done` are in the cache.
    pub ids: Vec<u32>,
    pub seq: Option<Seq>,
    /// Positions in the cache.
    pub done: usize,
    /// Below this position each was computed in its phase here, see
    /// [`Kept::known`](super::kept::Kept::known).
    pub known: usize,
    /// The next position of the prompt whose log-probabilities are told; past the prompt when none is.
    next_told: usize,
    pub timings: Timings,
    /// Why it ends before the next step.
    pub ends: Option<Stop>,
}

/// The next tokens of a request that go into a step.
pub(super) struct Piece<'a> {
    pub tokens: &'a [u32],
    pub phase: Phase,
    pub want: Want,
}

/// What one row of logits led to.
pub(super) struct RowOutcome {
    /// The position that the row predicts.
    pub position: usize,
    /// Whether a token was drawn: `Some(None)` where no logit is a number.
    pub drawn: Option<Option<u32>>,
    pub log_probs: Option<Box<PositionLogProbs>>,
}

impl Running {
    pub fn new(id: RequestId, request: Request) -> Self {
        let first_told = request.log_probs.as_ref().and_then(|wanted| wanted.prompt_from);
        Self {
            id,
            ids: request.ids.clone(),
            seq: None,
            done: 0,
            known: usize::MAX,
            next_told: first_told.map_or(usize::MAX, |first| first.max(1)),
            timings: Timings::default(),
            ends: None,
            request,
        }
    }

    pub fn prompt_len(&self) -> usize {
        self.request.ids.len()
    }

    /// Still reading the prompt or tokens to be recomputed (more than the one token drawn last).
    pub fn reads(&self) -> bool {
        self.done + 1 < self.ids.len() || self.done < self.prompt_len()
    }

    /// The ids whose keys and values may come from another sequence: those before the first row of logits
    /// that is needed.
    pub fn reusable(&self) -> &[u32] {
        let last = self.ids.len() - 1;
        let first_row = if self.next_told < self.prompt_len() { self.next_told - 1 } else { last };
        &self.ids[..first_row.min(last)]
    }

    /// The next piece, at most `budget` tokens, of one phase.
    pub fn piece(&self, budget: usize) -> Piece<'_> {
        let given = self.done < self.prompt_len();
        let mut end = if given { self.prompt_len() } else { self.ids.len() };
        let told = given && self.next_told < self.prompt_len();
        if told && self.done + 1 < self.next_told {
            // No row of logits is needed up to there.
            end = self.next_told - 1;
        }
        let end = end.min(self.done + budget.max(1));
        let want = if told && self.done + 1 >= self.next_told {
            Want::All
        } else if end == self.ids.len() && self.request.max_new > 0 {
            Want::Last
        } else {
            Want::None
        };
        let phase = if given { Phase::Given } else { Phase::Generated };
        Piece { tokens: &self.ids[self.done..end], phase, want }
    }

    /// What the row of logits at `position` leads to; any thread may ask.
    pub fn row(&self, position: usize, logits: &[f32], samplers: &SamplerPool) -> Option<RowOutcome> {
        let next = position + 1;
        let wanted = self.request.log_probs.as_ref();
        let score = |token| wanted.map(|wanted| Box::new(log_probs(wanted, next, token, logits)));
        if next < self.prompt_len() {
            let log_probs = if next >= self.next_told { score(self.ids[next]) } else { None };
            return Some(RowOutcome { position: next, drawn: None, log_probs: Some(log_probs?) });
        }
        if next < self.ids.len() || self.request.max_new == 0 {
            return None;
        }
        let Request { sampling, seed, .. } = &self.request;
        // The settings were checked when the request was taken: what fails is the row.
        let drawn = samplers.sample(logits, &self.ids, sampling, *seed, next as u64).ok();
        Some(RowOutcome { position: next, drawn: Some(drawn), log_probs: drawn.and_then(score) })
    }

    /// Log-probabilities of the prompt before `position` are told.
    pub fn told(&mut self, position: usize) {
        self.next_told = self.next_told.max(position + 1);
    }

    /// The next steps read it from its first position again.
    pub fn restart(&mut self) {
        self.seq = None;
        self.done = 0;
        self.known = usize::MAX;
    }
}

/// What `wanted` says of the row of logits that predicts `token` at `position`.
fn log_probs(wanted: &LogProbOptions, position: usize, token: u32, logits: &[f32]) -> PositionLogProbs {
    let row = LogSoftmax::of(logits);
    PositionLogProbs {
        position,
        token,
        log_prob: row.at(token),
        top: likeliest(logits, wanted.top).into_iter().map(|id| (id, row.at(id))).collect(),
        ids: wanted.ids.iter().map(|&id| row.at(id)).collect(),
    }
}
