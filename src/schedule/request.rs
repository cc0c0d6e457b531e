//! What a client of the scheduler asks for, and the events that it receives.

use crate::engine::{EngineError, Info};
use crate::sample::{Sampling, SettingError};
use std::fmt;
use std::sync::Arc;

/// A request of a scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub(super) u64);

/// A prompt and how to continue it.
#[derive(Clone, Debug)]
pub struct Request {
    /// The prompt; at least one id.
    pub ids: Vec<u32>,
    /// How to choose each token.
    pub sampling: Sampling,
    /// Seed of this row: the draw at position `p` depends on `(seed, p)` only.
    pub seed: u64,
    /// Generation ends when one of these is drawn; that token is not part of the answer.
    pub stop_ids: Vec<u32>,
    /// Maximum number of tokens to generate; 0 only reads the prompt.
    pub max_new: usize,
    /// Maximum number of positions of the sequence, prompt and answer together.
    pub n_ctx: usize,
    /// Which log-probabilities come with the request's events; `None`: none are computed.
    pub log_probs: Option<LogProbOptions>,
    /// Whether tokens are drafted and verified several in a step.
    pub speculate: Speculate,
}

/// Where drafts of a request's next tokens come from. Drafts are verified in the step that would have
/// generated one token: each position is drawn as without them, and a draft counts as far as it is what was
/// drawn. Events, text and reasons to stop are those of [`Self::Off`]. How long drafts are follows from how
/// many were accepted and from what steps cost in this scheduler: where they do not pay, none are made.
#[derive(Clone, Debug, Default)]
pub enum Speculate {
    /// One token a step.
    #[default]
    Off,
    /// What followed the last tokens where they stood before in prompt and answer (prompt lookup).
    Lookup,
    /// A source of the client's own, for measurements and tests.
    From(Arc<dyn Drafter>),
}

/// A source of drafts. The scheduler calls it between two steps.
pub trait Drafter: fmt::Debug + Send + Sync {
    /// Appends at most `most` ids to `draft` that may follow `ids` (prompt and answer so far).
    fn draft(&self, ids: &[u32], most: usize, draft: &mut Vec<u32>);
}

impl Request {
    /// Whether an engine with `info` can run this.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn check(&self, info: &Info) -> Result<(), Refused> {
        let n_vocab = info.n_vocab;
        self.sampling.check()?;
        if self.ids.is_empty() {
            return Err(EngineError::NoTokens.into());
        }
        if let Some(LogProbOptions { top, ids, .. }) = &self.log_probs {
            for (list, asked, max) in
                [("top", *top, LogProbOptions::MAX_TOP), ("ids", ids.len(), LogProbOptions::MAX_IDS)]
            {
                if asked > max {
                    return Err(Refused::TooManyLogProbs { list, asked, max });
                }
            }
        }
        let named = self.log_probs.iter().flat_map(|wanted| &wanted.ids);
        if let Some(&token) = self.ids.iter().chain(named).find(|&&t| t as usize >= n_vocab) {
            return Err(EngineError::TokenOutOfRange { token, n_vocab }.into());
        }
        if self.ids.len() > self.n_ctx {
            return Err(Refused::TooLong { tokens: self.ids.len(), n_ctx: self.n_ctx });
        }
        let needed = self.ids.len().div_ceil(info.kv_block_positions);
        if needed > info.kv_blocks {
            return Err(EngineError::KvFull { needed, free: info.kv_blocks }.into());
        }
        Ok(())
    }
}

/// Which log-probabilities a request receives for each position that it asks about. Such a request reuses
/// keys and values only of tokens that were computed in the same phase, as [`SchedulerOptions::exact`] does:
/// its numbers do not depend on what was kept.
///
/// [`SchedulerOptions::exact`]: super::SchedulerOptions::exact
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogProbOptions {
    /// How many of the likeliest ids, at most [`Self::MAX_TOP`].
    pub top: usize,
    /// Ids of the vocabulary to report whatever their rank, at most [`Self::MAX_IDS`].
    pub ids: Vec<u32>,
    /// The first position of the prompt that is told, from 1 (no row of logits predicts position 0); the rows
    /// from the position before it on are computed, a prefix that was read for another request is reused only
    /// up to there. `None`: only generated positions are told.
    pub prompt_from: Option<usize>,
}

impl LogProbOptions {
    /// Maximum of [`Self::top`]: each position of a prompt has a list of that length.
    pub const MAX_TOP: usize = 1024;
    /// Maximum length of [`Self::ids`].
    pub const MAX_IDS: usize = 4096;
}

/// Log-probabilities of the token at one position: natural logarithms, `ln softmax` of the raw logits over
/// all rows of the head, before penalty, temperature and filters. NaN where the logits have no softmax.
#[derive(Clone, Debug, PartialEq)]
pub struct PositionLogProbs {
    /// The token's position; it is predicted by the row of logits at the position before.
    pub position: usize,
    /// The token: of the prompt, or the one that was drawn (a stop id, too).
    pub token: u32,
    /// Its log-probability.
    pub log_prob: f64,
    /// The likeliest ids with their log-probabilities, the likeliest first, of equal ones the smaller id
    /// first.
    pub top: Vec<(u32, f64)>,
    /// The log-probabilities of [`LogProbOptions::ids`], in that order.
    pub ids: Vec<f64>,
}

/// Why a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// This stop id was drawn.
    EndToken(u32),
    /// `max_new` tokens were generated.
    MaxTokens,
    /// `n_ctx` positions, or all blocks of the cache, are filled.
    ContextFull,
    /// The client cancelled it.
    Cancelled,
    /// The client answered an event with `Break`, e.g. because the text ends with a stop string.
    Hook,
    /// No logit of an id that has a token is a number: the weights are broken.
    BrokenLogits,
}

/// Why a request was not taken.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// The prompt is empty, an id is past the vocabulary, or the prompt is longer than the whole cache.
    #[error(transparent)]
    Prompt(#[from] EngineError),
    /// The prompt is longer than the context.
    #[error("the prompt has {tokens} tokens, the context {n_ctx}")]
    TooLong {
        /// Tokens of the prompt.
        tokens: usize,
        /// [`Request::n_ctx`].
        n_ctx: usize,
    },
    /// [`Request::log_probs`] asks for more at each position than is computed.
    #[error("log-probabilities: {asked} entries of `{list}`, at most {max}")]
    TooManyLogProbs {
        /// `top` or `ids`, the field of [`LogProbOptions`].
        list: &'static str,
        /// Entries asked for.
        asked: usize,
        /// [`LogProbOptions::MAX_TOP`] or [`LogProbOptions::MAX_IDS`].
        max: usize,
    },
    /// A setting out of range.
    #[error(transparent)]
    Setting(#[from] SettingError),
}

/// How long things took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Timings {
    /// Prompt tokens read in this request (those of a reused prefix are not among them).
    pub prompt_tokens: usize,
    /// Prompt tokens whose keys and values were already there.
    pub reused_tokens: usize,
    /// Seconds spent reading the prompt.
    pub prompt_seconds: f64,
    /// Tokens generated, a stop id included.
    pub generated_tokens: usize,
    /// Seconds spent generating, after the prompt was read.
    pub generate_seconds: f64,
    /// Draft tokens that were verified, see [`Request::speculate`].
    pub drafted_tokens: usize,
    /// Those among them that were what was drawn; they are generated tokens, too.
    pub accepted_tokens: usize,
}

/// Why a request failed although it was taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The engine failed in the step that carried the request. Other requests can still be made.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The thread that owns the scheduler has ended, by a panic or because it was closed: nothing can be
    /// asked of it.
    #[error("the engine has ended: {0}")]
    Ended(String),
}

/// What a request's client receives. The events of one request come in the order of its positions.
#[derive(Clone, Debug, PartialEq)]
pub enum RequestEvent {
    /// `done` of `total` prompt tokens are read.
    Prompt {
        /// The request.
        id: RequestId,
        /// Tokens whose keys and values are in the cache.
        done: usize,
        /// Tokens of the prompt.
        total: usize,
    },
    /// Log-probabilities at one position; for a generated one it comes before its token. Only with
    /// [`Request::log_probs`].
    LogProbs {
        /// The request.
        id: RequestId,
        /// The position and its log-probabilities.
        at: Box<PositionLogProbs>,
    },
    /// A token of the answer.
    Token {
        /// The request.
        id: RequestId,
        /// The token.
        token: u32,
    },
    /// The request ended; nothing follows for it.
    Stopped {
        /// The request.
        id: RequestId,
        /// Why.
        stop: Stop,
        /// How long it took.
        timings: Timings,
    },
    /// The request failed; nothing follows for it. Told by the thread of a
    /// [`SchedulerHandle`](super::SchedulerHandle) only: [`Scheduler::step`](super::Scheduler::step) returns
    /// its error.
    Failed {
        /// The request.
        id: RequestId,
        /// Why.
        error: RequestError,
    },
}

impl RequestEvent {
    /// The request it belongs to.
    pub fn id(&self) -> RequestId {
        match *self {
            Self::Prompt { id, .. }
            | Self::LogProbs { id, .. }
            | Self::Token { id, .. }
            | Self::Stopped { id, .. }
            | Self::Failed { id, .. } => id,
        }
    }

    /// Whether nothing follows for the request.
    pub fn is_last(&self) -> bool {
        matches!(self, Self::Stopped { .. } | Self::Failed { .. })
    }
}
