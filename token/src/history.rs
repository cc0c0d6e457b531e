//! Fits a conversation into the limits of a prompt.
//!
//! In: all messages, the current one last. Out: the ids of the prompt, and how many of the oldest
//! exchanges were dropped. An exchange is a message of the person and what follows up to
//! the next one; system messages in front stay.

use crate::chat::{ChatError, ChatFormat, DateTime, Message, Role};
use crate::tokenizer::Tokenizer;

/// How many exchanges are dropped when a limit is exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HistoryRule {
    /// As Huozi's demo: as few as possible. At the limit almost the whole prompt is read again in every turn.
    Demo,
    /// Down to two thirds of the limit passed, so that the next turns only add. The current
    /// exchange stays if it alone is longer than that.
    TwoThirds,
}

/// The limits of a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PromptLimits {
    /// Tokens of a prompt.
    pub prompt_tokens: usize,
    /// Exchanges, the current one included.
    pub exchanges: usize,
}

/// Positions that a prompt leaves for the answer: 2048 - 1800.
const RESERVED_TOKENS: usize = 248;
const EXCHANGES: usize = 15;

impl PromptLimits {
    /// The limits of a context of `n_ctx` positions: `n_ctx - 248` tokens, 15 exchanges.
    #[must_use]
    pub fn of_context(n_ctx: usize) -> Self {
        let prompt_tokens = n_ctx.saturating_sub(RESERVED_TOKENS);
        Self { prompt_tokens, exchanges: EXCHANGES }
    }
}

/// A prompt that fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FittedPrompt {
    /// The ids, up to where the answer begins.
    pub ids: Vec<u32>,
    /// How many of the oldest exchanges were dropped. The caller continues without them:
    /// given again they would be counted and dropped again.
    pub dropped_exchanges: usize,
}

/// The prompt of `messages`, of a conversation of `date`, within `limits`.
///
/// # Errors
/// [`ChatError::TooLong`] if the current exchange alone passes the limit; what
/// [`ChatFormat::prompt_ids`] returns.
pub fn fit(
    messages: &[Message],
    date: DateTime,
    format: &ChatFormat,
    tokenizer: &Tokenizer,
    rule: HistoryRule,
    limits: PromptLimits,
) -> Result<FittedPrompt, ChatError> {
    let head = messages.iter().take_while(|m| m.role == Role::System).count();
    // Where each exchange begins; what stands in front of the first question belongs to it.
    let mut begins: Vec<usize> = (head..messages.len()).filter(|&i| messages[i].role == Role::User).collect();
    if let Some(first) = begins.first_mut() {
        *first = head;
    }
    // The current one always stays.
    let last = begins.len().saturating_sub(1);
    let target = |limit: usize| match rule {
        HistoryRule::Demo => limit,
        HistoryRule::TwoThirds => limit / 3 * 2 + limit % 3 * 2 / 3,
    };
    let mut dropped = 0;
    if begins.len() > limits.exchanges {
        dropped = (begins.len() - target(limits.exchanges)).min(last);
    }
    let mut allowed = limits.prompt_tokens;
    loop {
        let from = begins.get(dropped).copied().unwrap_or(head);
        let kept = [&messages[..head], &messages[from..]].concat();
        let ids = format.prompt_ids(&kept, date, tokenizer)?;
        let fits = ids.len() <= allowed;
        if fits || (dropped == last && ids.len() <= limits.prompt_tokens) {
            return Ok(FittedPrompt { ids, dropped_exchanges: dropped });
        }
        if dropped == last {
            return Err(ChatError::TooLong { tokens: ids.len(), limit: limits.prompt_tokens });
        }
        allowed = target(limits.prompt_tokens);
        dropped += 1;
    }
}
