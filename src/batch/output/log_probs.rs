//! Log-probabilities in the two forms of OpenAI's results.

use crate::complete::TokenLogProb;
use huozi_token::{DecodeStream, Vocabulary};
use serde_json::{Map, Value, json};
use std::fmt::Write;

/// What stands for minus infinity, which JSON has not; as in OpenAI's results.
const LEAST: f64 = -9999.0;

/// `logprobs` of a chat completion: a list of `token`, `logprob`, `bytes`, `top_logprobs`.
pub(super) fn chat(vocab: &Vocabulary, log_probs: &[TokenLogProb]) -> Value {
    let one = |id: u32, log_prob: f64| {
        // A control token is no part of the text.
        let bytes = (!vocab.kind(id).is_control()).then(|| vocab.bytes(id));
        json!({ "token": name(vocab, id), "logprob": finite(log_prob), "bytes": bytes })
    };
    let content = log_probs.iter().map(|at| {
        let mut token = one(at.token, at.log_prob);
        token["top_logprobs"] = at.top.iter().map(|&(id, log_prob)| one(id, log_prob)).collect();
        token
    });
    json!({ "content": content.collect::<Vec<_>>(), "refusal": null })
}

/// `logprobs` of a completion: parallel lists of tokens, their log-probabilities, the likeliest with theirs,
/// and where each token begins in the text, in characters. A token that continues a character begins where
/// the character does.
pub(super) fn completion(vocab: &Vocabulary, log_probs: &[TokenLogProb]) -> Value {
    let (mut text, mut offset) = (DecodeStream::new(), 0);
    let (mut tokens, mut values, mut tops, mut offsets) = (vec![], vec![], vec![], vec![]);
    for at in log_probs {
        tokens.push(name(vocab, at.token));
        values.push(finite(at.log_prob));
        let mut top = Map::new();
        for &(id, log_prob) in at.top.iter().chain([&(at.token, at.log_prob)]) {
            top.entry(name(vocab, id)).or_insert_with(|| finite(log_prob).into());
        }
        tops.push(top);
        offsets.push(offset);
        if !vocab.kind(at.token).is_control() {
            offset += text.push(vocab.bytes(at.token)).chars().count();
        }
    }
    json!({ "tokens": tokens, "token_logprobs": values, "top_logprobs": tops, "text_offset": offsets })
}

/// The text of a token; `bytes:\xe9` for bytes that are no UTF-8 by themselves, so that no two tokens have
/// one name.
fn name(vocab: &Vocabulary, id: u32) -> String {
    let bytes = vocab.bytes(id);
    if let Ok(text) = std::str::from_utf8(bytes) {
        return text.to_owned();
    }
    bytes.iter().fold("bytes:".to_owned(), |mut name, byte| {
        // Writing into a string cannot fail.
        let _ = write!(name, "\\x{byte:02x}");
        name
    })
}

/// The value, or [`LEAST`] where JSON has no number for it.
pub(super) fn finite(log_prob: f64) -> f64 {
    if log_prob.is_finite() { log_prob } else { LEAST }
}
