//! Why a job has no outcome.

use crate::schedule::{Refused, RequestError};

/// Why a job has no outcome.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum JobError {
    /// The scheduler did not take it.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The engine failed.
    #[error(transparent)]
    Failed(#[from] RequestError),
    /// No logit is a number.
    #[error("the model's logits are not numbers: its weights are broken")]
    BrokenLogits,
    /// The prompt fills the context.
    #[error("the prompt's {tokens} tokens fill the context of {n_ctx}: there is no room for an answer")]
    NoRoom {
        /// Tokens of the prompt.
        tokens: usize,
        /// [`Job::n_ctx`](super::Job::n_ctx).
        n_ctx: usize,
    },
    /// The KV cache is smaller than the context of the job.
    #[error("the KV cache is full at {tokens} tokens, before the context of {n_ctx}")]
    KvFull {
        /// Tokens of prompt and answer.
        tokens: usize,
        /// [`Job::n_ctx`](super::Job::n_ctx).
        n_ctx: usize,
    },
    /// It was cancelled.
    #[error("cancelled")]
    Cancelled,
}
