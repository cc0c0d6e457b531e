//! The fields of a row: settings, fields that change nothing, and those that are refused.

use super::super::row::RowError;
use crate::sample::{PENALTY_RANGE, SamplingRange, TEMPERATURE_RANGE, TOP_P_RANGE};
use huozi_quant::message::shown;
use serde::Serialize;
use serde_json::Value;
use std::collections::HashSet;

/// Most answers to one row.
pub const MAX_ANSWERS: usize = 128;
/// Most of the likeliest tokens that come with each token.
pub const MAX_TOP_LOGPROBS: usize = 20;
/// Most stop texts of a row.
pub const MAX_STOPS: usize = 16;
/// Longest stop text in bytes.
pub const MAX_STOP_BYTES: usize = 1024;
/// Most choices of a row.
pub const MAX_CHOICES: usize = 1024;

/// The settings that a row has itself; `None`: as the run.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct OwnSettings {
    pub(super) max_new: Option<usize>,
    pub(super) temperature: Option<f32>,
    pub(super) top_p: Option<f32>,
    pub(super) top_k: Option<u32>,
    pub(super) repetition_penalty: Option<f32>,
    pub(super) do_sample: Option<bool>,
    pub(super) seed: Option<u64>,
    pub(super) stop: Option<Vec<String>>,
    pub(super) n: Option<usize>,
    pub(super) log_probs: Option<LogProbs>,
    pub(super) top_log_probs: Option<usize>,
    pub(super) choices: Option<Vec<String>>,
    /// Checked against `n`, then of no use.
    #[serde(skip)]
    pub(super) best_of: Option<usize>,
}

/// What `logprobs` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) enum LogProbs {
    /// `true` or `false`, as in chat.
    Switch(bool),
    /// How many of the likeliest, as in completions.
    Top(usize),
}

/// A value of a wrong type or out of its range.
pub(super) fn invalid(field: &str, message: String) -> RowError {
    RowError { code: "invalid_request", message, param: Some(field.to_owned()) }
}

/// A field or a value that this program has no way to follow.
pub(super) fn unsupported(field: &str, message: String) -> RowError {
    RowError { code: "unsupported_parameter", message, param: Some(field.to_owned()) }
}

/// `value` as it may stand in a message.
pub(super) fn told(value: &Value) -> String {
    match value {
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        Value::String(text) => format!("\"{}\"", shown(text)),
        other => other.to_string(),
    }
}

fn wrong(field: &str, must: &str, value: &Value) -> RowError {
    invalid(field, format!("`{field}` is {}; it must be {must}", told(value)))
}

/// A text.
pub(super) fn text<'v>(field: &str, value: &'v Value) -> Result<&'v str, RowError> {
    value.as_str().ok_or_else(|| wrong(field, "a text", value))
}

fn switch(field: &str, value: &Value) -> Result<bool, RowError> {
    value.as_bool().ok_or_else(|| wrong(field, "true or false", value))
}

/// A whole number; `8.0`, too, as programs write that hold numbers as floats.
fn whole(field: &str, value: &Value, least: u64, most: u64) -> Result<u64, RowError> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let float = || value.as_f64().filter(|x| x.fract() == 0.0 && (0.0..=EXACT).contains(x)).map(|x| x as u64);
    let number = value.as_u64().or_else(float).filter(|n| (least..=most).contains(n));
    number.ok_or_else(|| wrong(field, &format!("a whole number, {least} to {most}"), value))
}

fn number(field: &str, value: &Value, range: SamplingRange) -> Result<f32, RowError> {
    let number = value.as_f64().map(|x| x as f32).filter(|&x| range.contains(x));
    number.ok_or_else(|| wrong(field, &format!("a number, {range}"), value))
}

fn stops(value: &Value) -> Result<Vec<String>, RowError> {
    let texts = match value {
        Value::Array(values) if values.len() > MAX_STOPS => {
            let message = format!("`stop` has {} texts; the most are {MAX_STOPS}", values.len());
            return Err(invalid("stop", message));
        }
        Value::Array(values) => values.iter().map(|v| text("stop", v)).collect::<Result<_, _>>()?,
        Value::String(text) => vec![text.as_str()],
        other => return Err(wrong("stop", "a text or an array of texts", other)),
    };
    for stop in &texts {
        if stop.is_empty() || stop.len() > MAX_STOP_BYTES {
            let len = stop.len();
            let message = format!("`stop` has a text of {len} bytes; it must have 1 to {MAX_STOP_BYTES}");
            return Err(invalid("stop", message));
        }
    }
    Ok(texts.into_iter().map(str::to_owned).collect())
}

fn choices(value: &Value) -> Result<Vec<String>, RowError> {
    let must = || wrong("choices", &format!("an array of 1 to {MAX_CHOICES} different texts"), value);
    let values = value.as_array().filter(|v| (1..=MAX_CHOICES).contains(&v.len())).ok_or_else(must)?;
    let mut seen = HashSet::new();
    for value in values {
        let choice = text("choices", value)?;
        if choice.is_empty() {
            return Err(invalid("choices", "`choices` has an empty text".to_owned()));
        }
        if !seen.insert(choice) {
            let message = format!("`choices` has \"{}\" twice", shown(choice));
            return Err(invalid("choices", message));
        }
    }
    Ok(values.iter().filter_map(Value::as_str).map(str::to_owned).collect())
}

impl OwnSettings {
    /// Takes a field of a row that is none of its prompt, its id or its model. `null` sets nothing.
    pub(super) fn take(&mut self, field: &str, value: &Value) -> Result<(), RowError> {
        if value.is_null() {
            return Ok(());
        }
        match field {
            "max_tokens" | "max_completion_tokens" => {
                let max_new = whole(field, value, 1, u64::from(u32::MAX))? as usize;
                if let Some(other) = self.max_new.replace(max_new)
                    && other != max_new
                {
                    let message =
                        format!("`max_tokens` and `max_completion_tokens` differ: {other}, {max_new}");
                    return Err(invalid(field, message));
                }
            }
            "temperature" => self.temperature = Some(number(field, value, TEMPERATURE_RANGE)?),
            "top_p" => self.top_p = Some(number(field, value, TOP_P_RANGE)?),
            // -1 is off in vLLM and Hugging Face's server.
            "top_k" if value.as_i64() == Some(-1) => self.top_k = Some(0),
            "top_k" => self.top_k = Some(whole(field, value, 0, u64::from(u32::MAX))? as u32),
            "repetition_penalty" => self.repetition_penalty = Some(number(field, value, PENALTY_RANGE)?),
            "do_sample" => self.do_sample = Some(switch(field, value)?),
            "seed" => self.seed = Some(whole(field, value, 0, u64::MAX)?),
            "stop" => self.stop = Some(stops(value)?),
            "n" => self.n = Some(whole(field, value, 1, MAX_ANSWERS as u64)? as usize),
            "logprobs" => {
                self.log_probs = Some(match value {
                    Value::Bool(on) => LogProbs::Switch(*on),
                    Value::Number(_) => {
                        LogProbs::Top(whole(field, value, 0, MAX_TOP_LOGPROBS as u64)? as usize)
                    }
                    other => return Err(wrong(field, "true, false or a whole number", other)),
                });
            }
            "top_logprobs" => {
                self.top_log_probs = Some(whole(field, value, 0, MAX_TOP_LOGPROBS as u64)? as usize);
            }
            "choices" => self.choices = Some(choices(value)?),
            "best_of" => self.best_of = Some(whole(field, value, 1, MAX_ANSWERS as u64)? as usize),
            _ => return neutral(field, value),
        }
        Ok(())
    }

    /// Checks what fields say together; `chat`: the row is a conversation.
    pub(super) fn check(&self, chat: bool) -> Result<(), RowError> {
        let wrong = |field: &str, message: &str| Err(invalid(field, message.to_owned()));
        let n = self.n.unwrap_or(1);
        // With as many generated as given back, nothing is chosen.
        if let Some(best_of) = self.best_of.filter(|&best_of| best_of != n) {
            let message =
                format!("`best_of` is {best_of}, which is not supported: only `n` ({n}) or null is");
            return Err(unsupported("best_of", message));
        }
        if self.choices.is_some() {
            if n > 1 {
                return wrong("n", "`n` is over 1, but `choices` are scored once: leave one of them out");
            }
            if self.log_probs.is_some_and(|log_probs| log_probs != LogProbs::Switch(false)) {
                return wrong("logprobs", "a row with `choices` has no generated tokens for `logprobs`");
            }
        }
        match self.log_probs {
            Some(LogProbs::Top(_)) if chat => wrong(
                "logprobs",
                "`logprobs` of a conversation is true or false; the number is `top_logprobs`",
            ),
            Some(LogProbs::Switch(true)) => Ok(()),
            Some(LogProbs::Top(top)) if self.top_log_probs.is_some_and(|other| other != top) => {
                wrong("top_logprobs", "`logprobs` and `top_logprobs` are different numbers")
            }
            Some(LogProbs::Top(_)) => Ok(()),
            _ if self.top_log_probs.is_none_or(|top| top == 0) => Ok(()),
            _ => wrong("top_logprobs", "`top_logprobs` needs `logprobs`: true"),
        }
    }

    /// The settings that are there, spelled in one way: rows of equal settings have equal texts.
    pub(super) fn spelled(&self) -> String {
        let mut settings = serde_json::to_value(self).unwrap_or_default();
        if let Some(settings) = settings.as_object_mut() {
            settings.retain(|_, value| !value.is_null());
        }
        settings.to_string()
    }

    /// Log-probabilities, with so many of the likeliest: what the row says, else `run`.
    pub(super) fn log_probs(&self, run: Option<usize>) -> Option<usize> {
        match self.log_probs {
            None => run,
            Some(LogProbs::Switch(false)) => None,
            Some(LogProbs::Switch(true)) => Some(self.top_log_probs.unwrap_or(0)),
            Some(LogProbs::Top(top)) => Some(top),
        }
    }
}

/// Values that leave an answer as it is.
enum Neutral {
    /// All.
    Any,
    /// This number.
    Number(f64),
    /// This switch.
    Switch(bool),
    /// An empty text, array or object.
    Empty,
    /// One of these texts.
    Text(&'static [&'static str]),
    /// An object with this `type` alone, or the text itself.
    Type(&'static str),
    /// An array of this text.
    Only(&'static str),
}

/// Fields that are accepted where they change nothing.
const NEUTRAL: &[(&str, Neutral)] = &[
    ("user", Neutral::Any),
    ("metadata", Neutral::Any),
    ("store", Neutral::Any),
    ("service_tier", Neutral::Any),
    ("safety_identifier", Neutral::Any),
    ("prompt_cache_key", Neutral::Any),
    ("prompt_cache_retention", Neutral::Any),
    ("stream_options", Neutral::Any),
    ("parallel_tool_calls", Neutral::Any),
    ("stream", Neutral::Switch(false)),
    ("presence_penalty", Neutral::Number(0.0)),
    ("frequency_penalty", Neutral::Number(0.0)),
    ("length_penalty", Neutral::Number(1.0)),
    ("min_p", Neutral::Number(0.0)),
    ("min_tokens", Neutral::Number(0.0)),
    ("typical_p", Neutral::Number(1.0)),
    ("echo", Neutral::Switch(false)),
    ("ignore_eos", Neutral::Switch(false)),
    ("use_beam_search", Neutral::Switch(false)),
    ("skip_special_tokens", Neutral::Switch(true)),
    ("include_stop_str_in_output", Neutral::Switch(false)),
    ("add_generation_prompt", Neutral::Switch(true)),
    ("continue_final_message", Neutral::Switch(false)),
    ("suffix", Neutral::Empty),
    ("logit_bias", Neutral::Empty),
    ("tools", Neutral::Empty),
    ("functions", Neutral::Empty),
    ("stop_token_ids", Neutral::Empty),
    ("tool_choice", Neutral::Text(&["none", "auto"])),
    ("function_call", Neutral::Text(&["none", "auto"])),
    ("reasoning_effort", Neutral::Text(&["none"])),
    ("verbosity", Neutral::Text(&["medium"])),
    ("response_format", Neutral::Type("text")),
    ("modalities", Neutral::Only("text")),
];

/// Names that other programs use, and ours.
const OTHER_NAMES: &[(&str, &str)] = &[
    ("max_new_tokens", "max_tokens"),
    ("max_length", "max_tokens"),
    ("n_predict", "max_tokens"),
    ("repeat_penalty", "repetition_penalty"),
    ("temp", "temperature"),
    ("num_return_sequences", "n"),
    ("stop_sequences", "stop"),
    ("text", "prompt"),
    ("input", "prompt"),
    ("inputs", "prompt"),
    ("question", "prompt"),
    ("conversation", "conversations"),
];

/// Accepts a field that changes nothing.
fn neutral(field: &str, value: &Value) -> Result<(), RowError> {
    let Some((_, neutral)) = NEUTRAL.iter().find(|(name, _)| *name == field) else {
        let ours = OTHER_NAMES.iter().find(|(name, _)| *name == field);
        let hint = ours.map_or_else(
            || "remove it, or put data that belongs to the row into `metadata`".to_owned(),
            |(_, ours)| format!("the name here is `{ours}`"),
        );
        let field = shown(field);
        return Err(unsupported(&field, format!("the field `{field}` is not supported: {hint}")));
    };
    let (fine, only) = match neutral {
        Neutral::Any => return Ok(()),
        Neutral::Number(x) => (value.as_f64() == Some(*x), x.to_string()),
        Neutral::Switch(on) => (value.as_bool() == Some(*on), on.to_string()),
        Neutral::Empty => {
            let empty = match value {
                Value::String(text) => text.is_empty(),
                Value::Array(values) => values.is_empty(),
                Value::Object(fields) => fields.is_empty(),
                _ => false,
            };
            (empty, "an empty one".to_owned())
        }
        Neutral::Text(texts) => (
            value.as_str().is_some_and(|text| texts.contains(&text)),
            format!("\"{}\"", texts.join("\" or \"")),
        ),
        Neutral::Type(kind) => {
            let object = value.as_object().filter(|object| object.len() == 1);
            let is = object.and_then(|object| object.get("type")).and_then(Value::as_str) == Some(kind);
            (is || value == kind, format!("{{\"type\":\"{kind}\"}}"))
        }
        Neutral::Only(text) => {
            let values = value.as_array().map_or(&[][..], Vec::as_slice);
            (values.len() == 1 && values[0] == *text, format!("[\"{text}\"]"))
        }
    };
    if fine {
        return Ok(());
    }
    let message = format!("`{field}` is {}, which is not supported: only {only} or null is", told(value));
    Err(unsupported(field, message))
}
