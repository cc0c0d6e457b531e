//! A request on its way: what of it is in the cache, what is read next, and what a row of its logits leads
//! to.

use super::drafts::{Drafts, Rates};
use super::request::{LogProbOptions, PositionLogProbs, Request, RequestEvent, RequestId, Stop, Timings};
use super::step_costs::Offer;
use crate::engine::{Phase, Seq, Want};
use crate::sample::SamplerPool;
use crate::sample::log_probs::{LogSoftmax, likeliest};
use std::ops::ControlFlow;

/// A request that waits or runs.
pub(super) struct Running {
    pub id: RequestId,
    /// Its `ids` are in [`Self::ids`].
    pub request: Request,
    prompt_len: usize,
    /// The prompt and what was generated; the first `done` are in the cache. During a step the tokens of a
    /// draft follow.
    pub ids: Vec<u32>,
    /// How many of `ids` are a draft.
    n_draft: usize,
    /// Only of a request that speculates.
    pub drafts: Option<Drafts>,
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
    /// How many requests were let in before it although they came after it.
    pub passed: usize,
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
    pub fn new(id: RequestId, mut request: Request) -> Self {
        let first_told = request.log_probs.as_ref().and_then(|wanted| wanted.prompt_from);
        Self {
            id,
            prompt_len: request.ids.len(),
            ids: std::mem::take(&mut request.ids),
            n_draft: 0,
            drafts: Drafts::new(&request.speculate),
            seq: None,
            done: 0,
            known: usize::MAX,
            next_told: first_told.map_or(usize::MAX, |first| first.max(1)),
            timings: Timings::default(),
            ends: None,
            passed: 0,
            request,
        }
    }

    pub fn prompt_len(&self) -> usize {
        self.prompt_len
    }

    pub fn prompt(&self) -> &[u32] {
        &self.ids[..self.prompt_len]
    }

    /// Prompt and answer so far, without a draft.
    fn len(&self) -> usize {
        self.ids.len() - self.n_draft
    }

    /// Still reading the prompt or tokens to be recomputed (more than the one token drawn last).
    pub fn reads(&self) -> bool {
        self.done + 1 < self.len() || self.done < self.prompt_len()
    }

    /// The ids whose keys and values may come from another sequence: those before the first row of logits
    /// that is needed.
    pub fn reusable(&self) -> &[u32] {
        let last = self.len() - 1;
        let first_row = if self.next_told < self.prompt_len() { self.next_told - 1 } else { last };
        &self.ids[..first_row.min(last)]
    }

    /// A draft of the next tokens; `None` if the request has none or does not speculate.
    pub fn offer(&mut self, n_vocab: usize, all: &Rates) -> Option<Offer> {
        let Request { max_new, n_ctx, stop_ids, .. } = &self.request;
        // The step itself draws one token more than it verifies.
        let left = self.prompt_len.saturating_add(*max_new).min(*n_ctx).saturating_sub(self.ids.len() + 1);
        let valid = |id: u32| (id as usize) < n_vocab && !stop_ids.contains(&id);
        let offer = self.drafts.as_mut()?.offer(&self.ids, left, valid, all);
        (offer.len > 0).then_some(offer)
    }

    /// Appends `n` tokens of the draft for a step.
    pub fn add_draft(&mut self, n: usize) {
        if let Some(drafts) = self.drafts.as_ref().filter(|_| n > 0) {
            self.ids.extend_from_slice(&drafts.draft()[..n]);
            self.n_draft = n;
        }
    }

    /// Takes them away again.
    pub fn drop_draft(&mut self) {
        self.ids.truncate(self.len());
        self.n_draft = 0;
    }

    /// Token `i` of the draft.
    pub fn drafted(&self, i: usize) -> Option<u32> {
        self.drafts.as_ref().and_then(|drafts| drafts.draft().get(i).copied())
    }

    /// A step generated, and verified `n` draft tokens: `accepted` were drawn, after them `rejected` (one or
    /// none) was not.
    pub fn verified(&mut self, n: usize, accepted: usize, rejected: usize, all: &mut Rates) {
        let Some(drafts) = &mut self.drafts else { return };
        if n == 0 {
            return drafts.none();
        }
        drafts.verified(accepted, accepted + rejected, all);
        self.timings.drafted_tokens += n;
        self.timings.accepted_tokens += accepted;
    }

    /// The next piece, at most `budget` tokens, of one phase.
    pub fn piece(&self, budget: usize) -> Piece<'_> {
        let given = self.done < self.prompt_len();
        // A draft goes with the one token that it follows.
        let budget = if self.reads() { budget } else { 1 + self.n_draft };
        let mut end = if given { self.prompt_len() } else { self.ids.len() };
        let told = given && self.next_told < self.prompt_len();
        if told && self.done + 1 < self.next_told {
            // No row of logits is needed up to there.
            end = self.next_told - 1;
        }
        let end = end.min(self.done + budget.max(1));
        let want = if self.n_draft > 0 || (told && self.done + 1 >= self.next_told) {
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
        if next < self.len() || self.request.max_new == 0 {
            return None;
        }
        let Request { sampling, seed, .. } = &self.request;
        // The settings were checked when the request was taken: what fails is the row.
        let drawn = samplers.sample(logits, &self.ids[..next], sampling, *seed, next as u64).ok();
        Some(RowOutcome { position: next, drawn: Some(drawn), log_probs: drawn.and_then(score) })
    }

    /// Takes a token that was drawn, and tells it; says whether the request ends with it.
    pub fn append(
        &mut self,
        token: u32,
        on: &mut dyn FnMut(RequestEvent) -> ControlFlow<()>,
    ) -> Option<Stop> {
        let (id, &Request { n_ctx, max_new, .. }) = (self.id, &self.request);
        if self.request.stop_ids.contains(&token) {
            return Some(Stop::EndToken(token));
        }
        if self.ids.len() >= n_ctx {
            return Some(Stop::ContextFull);
        }
        self.ids.push(token);
        if on(RequestEvent::Token { id, token }).is_break() {
            return Some(Stop::Hook);
        }
        if self.ids.len() >= n_ctx {
            return Some(Stop::ContextFull);
        }
        (self.ids.len() - self.prompt_len >= max_new).then_some(Stop::MaxTokens)
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
