//! A row of a batch: what was asked, and what makes it an error.

use crate::complete::Job;
use crate::sample::Sampling;
use huozi_token::Message;

/// A row whose text and settings are valid.
#[derive(Clone, Debug)]
pub struct Row {
    /// The line of the input at which it begins, from 1.
    pub line: u64,
    /// `custom_id`; `line-N` where the input gives none.
    pub id: String,
    /// The form of its result.
    pub endpoint: Endpoint,
    /// What is asked.
    pub prompt: Prompt,
    /// How it is answered.
    pub options: RowOptions,
    /// The name of the model that the row asks for; recorded, never checked.
    pub model: Option<String>,
}

/// The form of a row's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `/v1/chat/completions`.
    Chat,
    /// `/v1/completions`.
    Completions,
}

/// What a row asks.
#[derive(Clone, Debug)]
pub enum Prompt {
    /// A conversation, in the model's chat format.
    Messages(Vec<Message>),
    /// Text to continue as it is, control tokens not parsed.
    Text(String),
    /// Ids to continue.
    Ids(Vec<u32>),
}

/// How a row is answered: its own settings over those of the run.
#[derive(Clone, Debug)]
pub struct RowOptions {
    /// How to choose each token.
    pub sampling: Sampling,
    /// Maximum number of tokens of an answer.
    pub max_new: usize,
    /// Where the seeds of its answers come from.
    pub seed: RowSeed,
    /// Number of answers, at least 1.
    pub n: usize,
    /// Texts that end an answer.
    pub stop: Vec<String>,
    /// Log-probabilities, with this many of the likeliest tokens at each position.
    pub log_probs: Option<usize>,
    /// A closed list of answers to score instead of generating.
    pub choices: Option<Vec<String>>,
}

/// Where the seeds of a row's answers come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowSeed {
    /// The row's own `seed`: answer `i` draws as attempt `i` of `huozi run --seed`.
    Own(u64),
    /// Made from the seed of the run and what the row is: its `custom_id`, or the digest of its content and
    /// how many equal rows come before it.
    Derived(u64),
}

/// A row as ids, ready to run.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// [`Row::id`].
    pub id: String,
    /// [`Row::line`].
    pub line: u64,
    /// [`Row::endpoint`].
    pub endpoint: Endpoint,
    /// [`Row::model`].
    pub model: Option<String>,
    /// The seed that the result's `id` is made from, with [`Row::id`].
    pub seed: u64,
    /// The texts of `choices`, in the order of the job's.
    pub choices: Vec<String>,
    /// What to run.
    pub job: Job,
}

/// Why a row has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RowError {
    /// A short name for programs: `invalid_json`, `invalid_text`, `invalid_request`, `unsupported_parameter`,
    /// `context_length_exceeded`, `duplicate_id`, `line_too_long`, `engine_failed`.
    pub code: &'static str,
    /// The cause and what to do, for a person.
    pub message: String,
    /// The field of the row that is wrong.
    pub param: Option<String>,
}
