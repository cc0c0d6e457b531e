//! An answer, or the score of a choice, while its request runs.

use super::error::JobError;
use super::job::{ChoiceScore, Finish, Job, JobAnswer, Task, TokenLogProb};
use crate::sample::Sampling;
use crate::schedule::{LogProbOptions, PositionLogProbs, Request, Speculate, Stop, Timings};
use huozi_token::{TextStream, Vocabulary};

/// The request of an answer or a choice of `job`.
pub(super) fn request(job: &Job, part: usize) -> Request {
    match &job.task {
        Task::Answers(options) => Request {
            ids: job.prompt.clone(),
            sampling: options.sampling,
            seed: options.seeds[part],
            stop_ids: options.stop_ids.clone(),
            max_new: options.max_new,
            n_ctx: job.n_ctx,
            log_probs: options.log_probs.map(|top| LogProbOptions { top, ..LogProbOptions::default() }),
            speculate: if options.speculate { Speculate::Lookup } else { Speculate::Off },
        },
        Task::Choices(options) => Request {
            ids: options.ids[part].clone(),
            sampling: Sampling::DEFAULT,
            seed: 0,
            stop_ids: Vec::new(),
            max_new: 0,
            n_ctx: job.n_ctx,
            log_probs: Some(LogProbOptions { prompt_from: Some(options.from), ..LogProbOptions::default() }),
            speculate: Speculate::Off,
        },
    }
}

/// An answer, or the score of a choice, while its request runs.
pub(super) struct Part {
    ids: Vec<u32>,
    text: String,
    stream: TextStream,
    log_probs: Vec<TokenLogProb>,
    /// Of a choice.
    score: Option<ChoiceScore>,
    finish: Option<Finish>,
    pub(super) timings: Timings,
    prompt_tokens: usize,
    /// Tokens of a choice, from the first on that is scored; 0 of an answer.
    pub(super) choice_tokens: usize,
    n_ctx: usize,
}

impl Part {
    pub(super) fn new(job: &Job, part: usize) -> Self {
        let (stops, score, choice_tokens) = match &job.task {
            Task::Answers(options) => (options.stop.clone(), None, 0),
            Task::Choices(options) => {
                let tokens = options.ids[part].len().saturating_sub(options.from);
                (Vec::new(), Some(ChoiceScore { log_prob: 0.0, tokens: 0 }), tokens)
            }
        };
        Self {
            ids: Vec::new(),
            text: String::new(),
            stream: TextStream::new(stops),
            log_probs: Vec::new(),
            score,
            finish: None,
            timings: Timings::default(),
            prompt_tokens: job.prompt.len(),
            choice_tokens,
            n_ctx: job.n_ctx,
        }
    }

    /// Takes the next token; gives the text that is certain now.
    pub(super) fn token(&mut self, token: u32, vocab: &Vocabulary) -> String {
        self.ids.push(token);
        let text = self.stream.push(token, vocab);
        self.text.push_str(&text);
        text
    }

    pub(super) fn log_probs(&mut self, at: PositionLogProbs) {
        match &mut self.score {
            Some(score) => {
                score.log_prob += at.log_prob;
                score.tokens += 1;
            }
            None => {
                self.log_probs.push(TokenLogProb { token: at.token, log_prob: at.log_prob, top: at.top });
            }
        }
    }

    /// A stop text was generated.
    pub(super) fn is_stopped(&self) -> bool {
        self.stream.stopped().is_some()
    }

    /// The request ended; gives the rest of the text.
    pub(super) fn end(&mut self, stop: Stop, timings: Timings) -> Result<String, JobError> {
        self.timings = timings;
        if self.score.is_some_and(|score| score.log_prob.is_nan()) {
            return Err(JobError::BrokenLogits);
        }
        let rest = self.stream.finish();
        self.text.push_str(&rest);
        self.finish = Some(match (stop, self.stream.stopped()) {
            (_, Some(text)) => Finish::StopText(text.to_owned()),
            (Stop::EndToken(token), None) => Finish::EndToken(token),
            (Stop::MaxTokens, None) => Finish::MaxTokens,
            (Stop::ContextFull, None) => {
                let (tokens, n_ctx) = (self.prompt_tokens + self.ids.len(), self.n_ctx);
                // With more memory the answer would go on.
                if tokens < n_ctx {
                    return Err(JobError::KvFull { tokens, n_ctx });
                }
                if self.ids.is_empty() {
                    return Err(JobError::NoRoom { tokens, n_ctx });
                }
                Finish::ContextFull
            }
            (Stop::BrokenLogits, None) => return Err(JobError::BrokenLogits),
            (Stop::Cancelled | Stop::Hook, None) => return Err(JobError::Cancelled),
        });
        Ok(rest)
    }
}

impl From<Part> for JobAnswer {
    fn from(part: Part) -> Self {
        Self {
            text: part.text,
            ids: part.ids,
            finish: part.finish.unwrap_or(Finish::MaxTokens),
            log_probs: part.log_probs,
        }
    }
}

impl From<Part> for ChoiceScore {
    fn from(part: Part) -> Self {
        part.score.unwrap_or(Self { log_prob: f64::NAN, tokens: 0 })
    }
}
