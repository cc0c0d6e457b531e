//! A line of results: OpenAI's batch output, with a chat completion or a completion in it.

use super::log_probs;
use crate::batch::{Endpoint, Prepared, RowError};
use crate::complete::{Finish, JobResult, JobUsage, Outcome, Task};
use huozi_token::Tokenizer;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::sync::Arc;

/// What all lines of a run have in common.
#[derive(Clone)]
pub struct LineContext {
    /// For the text of tokens.
    pub tokenizer: Arc<Tokenizer>,
    /// The name of the model, for rows that name none.
    pub model: String,
    /// The seed of the run, for the `id` of error lines.
    pub seed: u64,
}

/// The line of a row with an answer, with its line feed. `created`: seconds since 1970. Apart from that, from
/// `timings` and from the number of cached tokens it is the same whenever the row is run.
pub(super) fn result(
    context: &LineContext,
    row: &Prepared,
    outcome: &Outcome,
    created: u64,
) -> Result<String, RowError> {
    let hex = id(row.seed, &row.id);
    let (prefix, object) = match row.endpoint {
        Endpoint::Chat => ("chatcmpl", "chat.completion"),
        Endpoint::Completions => ("cmpl", "text_completion"),
    };
    let mut body = Map::from_iter([
        ("id".to_owned(), format!("{prefix}-{hex}").into()),
        ("object".to_owned(), object.into()),
        ("created".to_owned(), created.into()),
        ("model".to_owned(), row.model.as_ref().unwrap_or(&context.model).as_str().into()),
    ]);
    match &outcome.completed {
        JobResult::Answers(answers) => {
            let with_log_probs =
                matches!(&row.job.task, Task::Answers(options) if options.log_probs.is_some());
            let choices = answers.iter().enumerate().map(|(index, answer)| {
                let finish = match answer.finish {
                    Finish::EndToken(_) | Finish::StopText(_) => "stop",
                    Finish::MaxTokens | Finish::ContextFull => "length",
                };
                let vocab = context.tokenizer.vocab();
                let log_probs = with_log_probs.then(|| match row.endpoint {
                    Endpoint::Chat => log_probs::chat(vocab, &answer.log_probs),
                    Endpoint::Completions => log_probs::completion(vocab, &answer.log_probs),
                });
                choice(row.endpoint, index, &answer.text, log_probs, finish)
            });
            body.insert("choices".to_owned(), choices.collect());
        }
        JobResult::Choices(scores) => {
            // The first of equal ones; what is no number is never the best.
            let numbers = (0..scores.len()).filter(|&i| !scores[i].log_prob.is_nan());
            let best =
                numbers.reduce(|best, i| if scores[i].log_prob > scores[best].log_prob { i } else { best });
            let best = best.and_then(|i| row.choices.get(i));
            let Some(best) = best else {
                return Err(RowError {
                    code: "engine_failed",
                    message: "no choice has a log-probability: the model's logits are no numbers".to_owned(),
                    param: Some("choices".to_owned()),
                });
            };
            body.insert("choices".to_owned(), json!([choice(row.endpoint, 0, best, None, "stop")]));
            let scores = row.choices.iter().zip(scores).map(|(choice, score)| {
                let log_prob = log_probs::finite(score.log_prob);
                json!({ "choice": choice, "log_prob": log_prob, "tokens": score.tokens })
            });
            body.insert("scores".to_owned(), scores.collect());
        }
    }
    body.insert("usage".to_owned(), usage(&outcome.usage));
    body.insert("timings".to_owned(), timings(&outcome.usage));
    let response = json!({ "status_code": 200, "request_id": format!("req_{hex}"), "body": body });
    Ok(line(&row.id, &hex, response, Value::Null))
}

/// The line of a row without an answer, with its line feed.
pub(super) fn error(context: &LineContext, id: &str, error: &RowError) -> String {
    let hex = self::id(context.seed, id);
    let error = json!({ "code": error.code, "message": error.message, "param": error.param });
    line(id, &hex, Value::Null, error)
}

fn line(custom_id: &str, hex: &str, response: Value, error: Value) -> String {
    let id = format!("batch_req_{hex}");
    let mut line =
        json!({ "id": id, "custom_id": custom_id, "response": response, "error": error }).to_string();
    line.push('\n');
    line
}

fn choice(
    endpoint: Endpoint,
    index: usize,
    text: &str,
    log_probs: Option<Value>,
    finish_reason: &str,
) -> Value {
    match endpoint {
        Endpoint::Chat => json!({
            "index": index,
            "message": { "role": "assistant", "content": text, "refusal": null },
            "logprobs": log_probs,
            "finish_reason": finish_reason,
        }),
        Endpoint::Completions => json!({
            "index": index,
            "text": text,
            "logprobs": log_probs,
            "finish_reason": finish_reason,
        }),
    }
}

fn usage(usage: &JobUsage) -> Value {
    json!({
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.generated_tokens,
        "total_tokens": usage.prompt_tokens + usage.generated_tokens,
        "prompt_tokens_details": { "cached_tokens": usage.reused_tokens },
    })
}

/// Seconds to the microsecond, and what the engine computed.
fn timings(usage: &JobUsage) -> Value {
    let seconds = |s: f64| (s * 1e6).round() / 1e6;
    json!({
        "prompt_seconds": seconds(usage.prompt_seconds),
        "generate_seconds": seconds(usage.generate_seconds),
        "computed_tokens": usage.computed_tokens,
        "choice_tokens": usage.choice_tokens,
        "drafted_tokens": usage.drafted_tokens,
        "accepted_tokens": usage.accepted_tokens,
    })
}

/// 32 hex digits made from a seed and the id of a row.
fn id(seed: u64, custom_id: &str) -> String {
    let digest = Sha256::new()
        .chain_update(b"huozi batch result\0")
        .chain_update(seed.to_le_bytes())
        .chain_update(custom_id)
        .finalize();
    digest.iter().take(16).fold(String::new(), |mut hex, byte| {
        // Writing into a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
