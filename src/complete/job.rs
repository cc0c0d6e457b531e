//! What is asked of a model about one prompt, and what comes back.

use crate::sample::Sampling;

/// A prompt and what to do with it.
#[derive(Clone, Debug)]
pub struct Job {
    /// The ids of the prompt; at least one.
    pub prompt: Vec<u32>,
    /// What to do with it.
    pub task: Task,
    /// Maximum number of positions, prompt and answer together.
    pub n_ctx: usize,
}

impl Job {
    /// How many answers or choices it has.
    pub fn parts(&self) -> usize {
        match &self.task {
            Task::Answers(options) => options.seeds.len(),
            Task::Choices(options) => options.ids.len(),
        }
    }
}

/// What to do with a prompt.
#[derive(Clone, Debug)]
pub enum Task {
    /// Generate answers.
    Answers(AnswerOptions),
    /// Score a closed list of choices.
    Choices(ChoiceOptions),
}

/// How answers are generated.
#[derive(Clone, Debug)]
pub struct AnswerOptions {
    /// How to choose each token.
    pub sampling: Sampling,
    /// The seed of each answer: as many answers as seeds.
    pub seeds: Vec<u64>,
    /// Maximum number of tokens of an answer; 0 only reads the prompt.
    pub max_new: usize,
    /// Ids that end an answer.
    pub stop_ids: Vec<u32>,
    /// Texts that end an answer; it ends before them.
    pub stop: Vec<String>,
    /// With log-probabilities of each token and of this many of the likeliest; `None`: without.
    pub log_probs: Option<usize>,
    /// Whether tokens are drafted from prompt and text so far and verified several in a step.
    pub speculate: bool,
}

/// Choices to score.
#[derive(Clone, Debug)]
pub struct ChoiceOptions {
    /// For each choice the ids of the prompt and the choice tokenised together, and the id that ends an
    /// answer.
    pub ids: Vec<Vec<u32>>,
    /// The position from which log-probabilities are summed: the first at which one of `ids` differs from the
    /// ids of the prompt alone. At least 1, so that a row of logits predicts it.
    pub from: usize,
}

/// What came of a job.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Answers or scores.
    pub completed: JobResult,
    /// What it cost.
    pub usage: JobUsage,
}

/// The result of a [`Task`].
#[derive(Clone, Debug, PartialEq)]
pub enum JobResult {
    /// The answers, in the order of [`AnswerOptions::seeds`].
    Answers(Vec<JobAnswer>),
    /// The scores, in the order of [`ChoiceOptions::ids`].
    Choices(Vec<ChoiceScore>),
}

/// A generated answer.
#[derive(Clone, Debug, PartialEq)]
pub struct JobAnswer {
    /// Its text, up to the stop text that ended it.
    pub text: String,
    /// The ids generated, without the end token; with a stop text as far as they were generated.
    pub ids: Vec<u32>,
    /// Why it ended.
    pub finish: Finish,
    /// One for each generated token, the end token included; empty without [`AnswerOptions::log_probs`].
    pub log_probs: Vec<TokenLogProb>,
}

/// Why an answer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finish {
    /// This end token was drawn.
    EndToken(u32),
    /// This stop text was generated.
    StopText(String),
    /// The maximum of tokens is reached.
    MaxTokens,
    /// The context is full.
    ContextFull,
}

/// Log-probabilities at a position of an answer: natural logarithms over the raw logits.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogProb {
    /// The token drawn.
    pub token: u32,
    /// Its log-probability.
    pub log_prob: f64,
    /// The likeliest ids with theirs, the likeliest first.
    pub top: Vec<(u32, f64)>,
}

/// The log-likelihood of a choice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChoiceScore {
    /// Sum of the log-probabilities of the choice's tokens and the end token.
    pub log_prob: f64,
    /// How many tokens were summed.
    pub tokens: usize,
}

/// What a job cost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct JobUsage {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens of the prompt that the engine read for this job.
    pub computed_tokens: usize,
    /// Tokens of choices that it read, end tokens included.
    pub choice_tokens: usize,
    /// Tokens of the prompt whose keys and values were there already for the first answer.
    pub reused_tokens: usize,
    /// Tokens generated in all answers, end tokens included.
    pub generated_tokens: usize,
    /// Seconds of the steps that read the prompt, of the answer or choice for which they took longest.
    pub prompt_seconds: f64,
    /// Seconds of the steps that generated, of the answer for which they took longest.
    pub generate_seconds: f64,
    /// Draft tokens verified.
    pub drafted_tokens: usize,
    /// Draft tokens that were what was drawn.
    pub accepted_tokens: usize,
}
