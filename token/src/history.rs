//! Fits a conversation into the limits of a prompt.
//!
//! In: all messages, the current one last. Out: the ids of the prompt, how many of the oldest exchanges were
//! dropped, and which limit they passed. An exchange is a message of the person and what follows up to the
//! next one; system messages in front stay.

use crate::chat::{ChatError, ChatFormat, DateTime, Message, Role};
use crate::tokenizer::Tokenizer;
use std::fmt;

/// When exchanges are dropped, and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HistoryRule {
    /// As Huozi's demo: at most 15 exchanges, and no more tokens than fit; as few exchanges as possible are
    /// dropped. At a limit almost the whole prompt is read again in every turn.
    Demo,
    /// Tokens alone count. When they do not fit, exchanges are dropped down to two thirds of the limit, so
    /// that the next turns only add. The current exchange stays if it alone is longer than that.
    TwoThirds,
}

/// The limits of a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PromptLimits {
    /// Tokens of a prompt.
    pub prompt_tokens: usize,
    /// Exchanges, the current one included; `None` sets no limit.
    pub exchanges: Option<usize>,
}

/// Positions that a prompt leaves for the answer: 2048 - 1800.
const RESERVED_TOKENS: usize = 248;
/// Exchanges of [`HistoryRule::Demo`].
const EXCHANGES: usize = 15;

impl PromptLimits {
    /// The limits of `rule` in a context of `n_ctx` positions: `n_ctx - 248` tokens, and 15 exchanges for
    /// [`HistoryRule::Demo`].
    #[must_use]
    pub fn of_context(n_ctx: usize, rule: HistoryRule) -> Self {
        let prompt_tokens = n_ctx.saturating_sub(RESERVED_TOKENS);
        let exchanges = match rule {
            HistoryRule::Demo => Some(EXCHANGES),
            HistoryRule::TwoThirds => None,
        };
        Self { prompt_tokens, exchanges }
    }
}

/// The limit for which exchanges were dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HistoryLimit {
    /// So many exchanges.
    Exchanges(usize),
    /// So many tokens of the prompt.
    Tokens(usize),
}

impl fmt::Display for HistoryLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exchanges(n) => write!(f, "{n} exchanges"),
            Self::Tokens(n) => write!(f, "{n} tokens"),
        }
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
    /// The limit for which the last of them was dropped; `None` if none was.
    pub limit: Option<HistoryLimit>,
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
    let without = |dropped: usize| {
        let from = begins.get(dropped).copied().unwrap_or(head);
        let kept = [&messages[..head], &messages[from..]].concat();
        format.prompt_ids(&kept, date, tokenizer)
    };
    let (mut dropped, mut limit) = (0, None);
    if let Some(most) = limits.exchanges.filter(|&most| begins.len() > most) {
        dropped = (begins.len() - most).min(last);
        limit = (dropped > 0).then_some(HistoryLimit::Exchanges(most));
    }
    let mut ids = without(dropped)?;
    let most = limits.prompt_tokens;
    if ids.len() > most {
        if dropped < last {
            ids = without(last)?;
        }
        if ids.len() > most {
            return Err(ChatError::TooLong { tokens: ids.len(), limit: most });
        }
        let allowed = match rule {
            HistoryRule::Demo => most,
            HistoryRule::TwoThirds => most / 3 * 2 + most % 3 * 2 / 3,
        };
        // Without `dropped` exchanges it is too long, without `fewest` it fits: halve what lies between. A
        // prompt gets shorter with every exchange that is dropped.
        let mut fewest = last;
        while fewest - dropped > 1 {
            let half = dropped + (fewest - dropped) / 2;
            let shorter = without(half)?;
            if shorter.len() <= allowed {
                (fewest, ids) = (half, shorter);
            } else {
                dropped = half;
            }
        }
        (dropped, limit) = (fewest, Some(HistoryLimit::Tokens(most)));
    }
    Ok(FittedPrompt { ids, dropped_exchanges: dropped, limit })
}
