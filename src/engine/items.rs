//! The items of a step, the same for every engine: what can be wrong with them, and their tokens one by one.

use super::{EngineError, Seq, StepItem, Want};
use std::collections::HashSet;

/// Checks that every sequence exists (`known`) and stands in one item, and that every item has tokens of the
/// vocabulary.
pub fn check(items: &[StepItem<'_>], n_vocab: usize, known: impl Fn(Seq) -> bool) -> Result<(), EngineError> {
    let mut seen = HashSet::with_capacity(items.len());
    for item in items {
        if !known(item.seq) {
            return Err(EngineError::UnknownSeq(item.seq));
        }
        if !seen.insert(item.seq) {
            return Err(EngineError::SeqTwice(item.seq));
        }
        if item.tokens.is_empty() {
            return Err(EngineError::NoTokens);
        }
        if let Some(&token) = item.tokens.iter().find(|&&t| t as usize >= n_vocab) {
            return Err(EngineError::TokenOutOfRange { token, n_vocab });
        }
    }
    Ok(())
}

/// The tokens of an item: the index of each in the item, its id, and whether its logits are wanted.
pub fn tokens<'a>(item: &StepItem<'a>) -> impl Iterator<Item = (usize, u32, bool)> + use<'a> {
    let (want, last) = (item.want, item.tokens.len().saturating_sub(1));
    item.tokens.iter().enumerate().map(move |(i, &token)| {
        let wanted = match want {
            Want::None => false,
            Want::Last => i == last,
            Want::All => true,
        };
        (i, token, wanted)
    })
}
