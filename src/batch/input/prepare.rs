//! A row to the ids that run: settings of the run under those of the row, seeds, prompts, choices.

use super::super::row::{Endpoint, Prepared, Prompt, Row, RowError, RowOptions, RowSeed};
use super::parse::Body;
use crate::complete::{AnswerOptions, ChoiceOptions, Job, Task, answer_end};
use crate::sample::{Sampling, row_seed};
use huozi_token::{ChatError, ChatFormat, DateTime, Message, Role, Specials, Tokenizer};
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// The settings of a run, which hold where a row has none of its own.
#[derive(Clone, Debug)]
pub struct RunDefaults {
    /// How to choose each token.
    pub sampling: Sampling,
    /// Maximum number of tokens of an answer.
    pub max_new: usize,
    /// The seed that rows without one make theirs from.
    pub seed: u64,
    /// Number of answers, at least 1.
    pub n: usize,
    /// Texts that end an answer.
    pub stop: Vec<String>,
    /// Log-probabilities, with this many of the likeliest tokens at each position.
    pub log_probs: Option<usize>,
    /// The system text of conversations that have none.
    pub system: Option<String>,
    /// Whether tokens are drafted and verified several in a step.
    pub speculate: bool,
}

impl Default for RunDefaults {
    fn default() -> Self {
        Self {
            sampling: Sampling::DEFAULT,
            max_new: 512,
            seed: 0,
            n: 1,
            stop: Vec::new(),
            log_probs: None,
            system: None,
            speculate: false,
        }
    }
}

/// Makes rows ready to run. Threads share it by reference.
pub struct RowPreparer {
    tokenizer: Arc<Tokenizer>,
    format: ChatFormat,
    /// The date that templates write: one for the whole run, or a resumed run would have other prompts.
    date: DateTime,
    n_ctx: usize,
    defaults: RunDefaults,
    stop_ids: Vec<u32>,
}

impl RowPreparer {
    /// For a model with this tokenizer and format, and `n_ctx` positions for prompt and answer together.
    /// `date` is written by some chat templates: a run that is resumed must give that of its first start.
    pub fn new(
        tokenizer: Arc<Tokenizer>,
        format: ChatFormat,
        date: DateTime,
        n_ctx: usize,
        defaults: RunDefaults,
    ) -> Self {
        let stop_ids = tokenizer.vocab().stop_ids();
        Self { tokenizer, format, date, n_ctx, defaults, stop_ids }
    }

    /// Whether the model takes conversations.
    pub fn chats(&self) -> bool {
        !matches!(self.format, ChatFormat::None)
    }

    /// The row with its settings over those of the run. `same` rows of equal content and without an id come
    /// before it.
    pub(super) fn row(&self, line: u64, id: Option<String>, body: Body, same: u64) -> Row {
        let digest = id.is_none().then(|| self.digest(&body));
        let Body { endpoint, mut prompt, model, own } = body;
        let run = &self.defaults;
        let seed = match (own.seed, &id, digest) {
            (Some(seed), ..) => RowSeed::Own(seed),
            (None, Some(id), _) => RowSeed::Derived(seed_of(run.seed, &[b"id", id.as_bytes()])),
            (None, None, digest) => {
                let digest = digest.unwrap_or_default();
                RowSeed::Derived(seed_of(run.seed, &[b"row", &digest, &same.to_le_bytes()]))
            }
        };
        if let (Prompt::Messages(messages), Some(system)) = (&mut prompt, &run.system)
            && messages.iter().all(|message| message.role != Role::System)
        {
            messages.insert(0, Message::text(Role::System, system));
        }
        let draws = own.temperature.is_some() || own.top_k.is_some() || own.top_p.is_some();
        let sampling = Sampling {
            // A row that says how to draw draws, whatever the run says about greedy.
            do_sample: own.do_sample.unwrap_or(draws || run.sampling.do_sample),
            temperature: own.temperature.unwrap_or(run.sampling.temperature),
            top_k: own.top_k.unwrap_or(run.sampling.top_k),
            top_p: own.top_p.unwrap_or(run.sampling.top_p),
            repetition_penalty: own.repetition_penalty.unwrap_or(run.sampling.repetition_penalty),
        };
        let options = RowOptions {
            sampling,
            max_new: own.max_new.unwrap_or(run.max_new),
            seed,
            n: own.n.unwrap_or(run.n),
            log_probs: own.log_probs(run.log_probs),
            stop: own.stop.unwrap_or_else(|| run.stop.clone()),
            choices: own.choices,
        };
        Row { line, id: id.unwrap_or_else(|| line_id(line)), endpoint, prompt, options, model }
    }

    /// A digest of what a row asks and of its own settings, whatever the order and spelling of its fields.
    pub(super) fn digest(&self, body: &Body) -> [u8; 32] {
        let mut hash = Sha256::new();
        let mut put = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        match &body.prompt {
            Prompt::Text(text) => [b"text", text.as_bytes()].into_iter().for_each(&mut put),
            Prompt::Ids(ids) => {
                put(b"ids");
                let bytes = Vec::from_iter(ids.iter().flat_map(|id| id.to_le_bytes()));
                put(&bytes);
            }
            Prompt::Messages(messages) => {
                for message in messages {
                    put(message.role.name().as_bytes());
                    if let huozi_token::Content::Text(text) = &message.content {
                        put(text.as_bytes());
                    }
                }
            }
        }
        put(body.own.spelled().as_bytes());
        hash.finalize().into()
    }

    /// The row as ids.
    ///
    /// # Errors
    /// A conversation that the format does not take, a prompt that is empty or too long, ids that no token
    /// has, choices that cannot be told apart.
    pub fn prepare(&self, row: Row) -> Result<Prepared, RowError> {
        let Row { line, id, endpoint, prompt, options, model } = row;
        let ids = self.prompt(&prompt)?;
        if ids.is_empty() {
            let field = if endpoint == Endpoint::Chat { "messages" } else { "prompt" };
            return Err(invalid(field, "the prompt is empty".to_owned()));
        }
        self.fits(&ids)?;
        let (seed, seeds) = match options.seed {
            RowSeed::Own(seed) | RowSeed::Derived(seed) => {
                (seed, (0..options.n as u64).map(|attempt| row_seed(seed, attempt)).collect())
            }
        };
        let (task, choices) = match options.choices {
            Some(choices) => (Task::Choices(self.choices(&prompt, &ids, &choices)?), choices),
            None => {
                let answers = AnswerOptions {
                    sampling: options.sampling,
                    seeds,
                    max_new: options.max_new,
                    stop_ids: self.stop_ids.clone(),
                    stop: options.stop,
                    log_probs: options.log_probs,
                    speculate: self.defaults.speculate,
                };
                (Task::Answers(answers), Vec::new())
            }
        };
        let job = Job { prompt: ids, task, n_ctx: self.n_ctx };
        Ok(Prepared { id, line, endpoint, model, seed, choices, job })
    }

    fn prompt(&self, prompt: &Prompt) -> Result<Vec<u32>, RowError> {
        match prompt {
            Prompt::Text(text) => Ok(self.tokenizer.encode(text, Specials::Plain)),
            Prompt::Ids(ids) => {
                let n_vocab = self.tokenizer.vocab().n_vocab();
                match ids.iter().find(|&&id| id as usize >= n_vocab) {
                    None => Ok(ids.clone()),
                    Some(id) => {
                        let message = format!("`prompt` has the id {id}, but there are {n_vocab} tokens");
                        Err(invalid("prompt", message))
                    }
                }
            }
            Prompt::Messages(messages) => {
                self.format.prompt_ids(messages, self.date, &self.tokenizer).map_err(|error| match error {
                    ChatError::NoFormat => invalid(
                        "messages",
                        "this model has no chat format and only continues text: use `prompt`".to_owned(),
                    ),
                    error => invalid("messages", error.to_string()),
                })
            }
        }
    }

    fn fits(&self, ids: &[u32]) -> Result<(), RowError> {
        let (tokens, n_ctx) = (ids.len(), self.n_ctx);
        if tokens < n_ctx {
            return Ok(());
        }
        let message = format!(
            "the prompt has {tokens} tokens; the context has {n_ctx}, and an answer needs one of them: \
             shorten the prompt or raise --ctx-size"
        );
        Err(RowError { code: "context_length_exceeded", message, param: None })
    }

    /// The ids of prompt and choice together, for each choice.
    fn choices(&self, prompt: &Prompt, ids: &[u32], choices: &[String]) -> Result<ChoiceOptions, RowError> {
        let format = matches!(prompt, Prompt::Messages(_)).then_some(&self.format);
        let Some(end) = answer_end(format, &self.tokenizer) else {
            let message = "this model has no token that ends an answer: choices cannot be scored";
            return Err(invalid("choices", message.to_owned()));
        };
        let options = ChoiceOptions::of(ids, choices, end, &self.tokenizer);
        options.ids.iter().filter(|both| both.len() > self.n_ctx).try_for_each(|both| self.fits(both))?;
        let mut sorted = Vec::from_iter(&options.ids);
        sorted.sort_unstable();
        if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
            let message = "`choices` has two texts of the same tokens: they would have one score";
            return Err(invalid("choices", message.to_owned()));
        }
        Ok(options)
    }
}

/// The id of a row that has none.
pub(super) fn line_id(line: u64) -> String {
    format!("line-{line}")
}

fn invalid(field: &str, message: String) -> RowError {
    super::fields::invalid(field, message)
}

/// A seed of what a row is.
fn seed_of(run: u64, parts: &[&[u8]]) -> u64 {
    let mut hash = Sha256::new();
    hash.update(run.to_le_bytes());
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    first_8(hash.finalize().as_slice())
}

/// The first eight bytes of a digest.
pub(super) fn first_8(digest: &[u8]) -> u64 {
    digest.iter().take(8).rev().fold(0, |sum, &byte| sum << 8 | u64::from(byte))
}
