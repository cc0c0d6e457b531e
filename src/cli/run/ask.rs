//! A prompt from the command line as a job, and what came of it.

use crate::cli::chat::failed;
use crate::cli::exit::Usage;
use crate::cli::printer::Printer;
use crate::cli::show::{Show, Verbosity};
use crate::cli::signal::Signals;
use crate::complete::{
    self, AnswerOptions, ChoiceOptions, ChoiceScore, Finish, Job, JobError, JobEvent, JobResult, JobUsage,
    Outcome, Task, TokenLogProb,
};
use crate::sample::row_seed;
use crate::session::{Event, Notice, Session, Stats, Stop};
use anyhow::Result;
use huozi_token::Specials;

/// A chat turn or the completion of a text.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    /// In the model's chat format.
    Chat,
    /// The text as it is.
    Raw(Specials),
}

/// What is asked about each prompt of a call.
#[derive(Clone, Debug)]
pub struct Ask {
    /// How a text becomes a prompt.
    pub way: Way,
    /// Number of answers, at least 1; answer `i` draws as attempt `i` at the prompt.
    pub answers: usize,
    /// Texts that end an answer.
    pub stop: Vec<String>,
    /// Log-probabilities of each token, with this many of the likeliest.
    pub log_probs: Option<usize>,
    /// Choices to score instead of answering.
    pub choices: Option<Vec<String>>,
    /// Whether tokens are drafted from prompt and text so far.
    pub speculate: bool,
}

/// One answer of one prompt.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// The text, up to the stop text that ended it.
    pub text: String,
    /// The ids generated.
    pub ids: Vec<u32>,
    /// Why it ended; `None`: it was interrupted.
    pub finish: Option<Finish>,
    /// One for each generated token, if asked for.
    pub log_probs: Vec<TokenLogProb>,
}

/// What came of a prompt.
#[derive(Clone, Debug)]
pub enum Reply {
    /// The answers.
    Answers(Vec<Given>),
    /// Choices with their scores, the best first.
    Choices(Vec<(String, ChoiceScore)>),
}

/// A prompt and what came of it.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The ids of the prompt.
    pub prompt: Vec<u32>,
    /// What came of it.
    pub reply: Reply,
    /// What it cost; zeros after an interruption.
    pub usage: JobUsage,
}

impl Given {
    /// Why it ended, as sessions say it.
    pub fn stop(&self) -> Stop {
        match &self.finish {
            Some(Finish::EndToken(token)) => Stop::EndToken(*token),
            Some(Finish::StopText(_)) => Stop::Hook,
            Some(Finish::MaxTokens) => Stop::MaxTokens,
            Some(Finish::ContextFull) => Stop::ContextFull,
            None => Stop::Cancelled,
        }
    }
}

impl Ask {
    /// One answer in the model's chat format.
    #[cfg(feature = "demo")]
    pub fn chat() -> Self {
        let (way, stop) = (Way::Chat, Vec::new());
        Self { way, answers: 1, stop, log_probs: None, choices: None, speculate: false }
    }

    /// The ids of the prompt of `text`.
    ///
    /// # Errors
    /// It is too long; the template fails.
    pub fn prompt_ids(&self, session: &mut Session, text: &str) -> Result<Vec<u32>> {
        let ids = match self.way {
            Way::Chat => session.question_ids(text),
            Way::Raw(specials) => session.text_ids(text, specials),
        };
        ids.map_err(failed)
    }

    fn job(&self, session: &mut Session, text: &str) -> Result<Job> {
        let prompt = self.prompt_ids(session, text)?;
        let task = match &self.choices {
            Some(choices) => {
                let format = matches!(self.way, Way::Chat).then(|| session.format());
                let unknown = "this model names no token that ends an answer: choices cannot be scored";
                let end = complete::answer_end(format, session.tokenizer());
                let end = end.ok_or_else(|| Usage(unknown.into()))?;
                Task::Choices(ChoiceOptions::of(&prompt, choices, end, session.tokenizer()))
            }
            None => {
                let settings = session.settings();
                let attempts = 0..self.answers as u64;
                Task::Answers(AnswerOptions {
                    sampling: settings.sampling,
                    seeds: attempts.map(|attempt| row_seed(settings.seed, attempt)).collect(),
                    max_new: settings.max_new,
                    stop_ids: session.tokenizer().vocab().stop_ids(),
                    stop: self.stop.clone(),
                    log_probs: self.log_probs,
                    speculate: self.speculate,
                })
            }
        };
        Ok(Job { prompt, task, n_ctx: session.settings().n_ctx })
    }
}

/// Says so where the context is longer than the model was trained with.
pub fn warn(session: &Session, verbosity: Verbosity) {
    let (n_ctx, trained) = (session.settings().n_ctx, session.info().n_ctx_train);
    if n_ctx > trained && verbosity.notes {
        eprintln!("huozi: {}", Notice::LongContext { n_ctx, trained });
    }
}

/// Answers one prompt. A single answer is shown as it grows if `stream`.
///
/// # Errors
/// A prompt that is empty or too long, what the job says, the errors of standard output; a signal, unless the
/// answer is kept back.
pub fn once(
    session: &mut Session,
    text: &str,
    ask: &Ask,
    verbosity: Verbosity,
    stream: bool,
    signals: &Signals,
    printer: &mut Printer,
) -> Result<Asked> {
    if text.is_empty() {
        return Err(Usage("the prompt is empty".into()).into());
    }
    let job = ask.job(session, text)?;
    let single = ask.choices.is_none() && ask.answers == 1;
    let mut show = Show::new(printer, verbosity, stream && single, signals.cancel());
    let mut growing = vec![Given::default(); if ask.choices.is_some() { 0 } else { ask.answers }];
    let result = signals.while_busy(|cancel| {
        complete::run(session.scheduler(), session.tokenizer(), &job, cancel, &mut |event| match event {
            JobEvent::Prompt { part: 0, done, total } => show.event(&Event::Prompt { done, total }),
            JobEvent::Prompt { .. } | JobEvent::Ended(_) => {}
            JobEvent::Token { part, token } => growing[part].ids.push(token),
            JobEvent::Text { part, text } => {
                growing[part].text.push_str(&text);
                show.event(&Event::Text(text));
            }
        })
    });
    let asked = match result {
        Ok(outcome) => Some(finished(outcome, ask, &job)),
        Err(JobError::Cancelled) => None,
        Err(error) => {
            show.finish()?;
            return Err(error.into());
        }
    };
    let Some(asked) = asked else {
        show.event(&Event::Stopped(Stop::Cancelled));
        // A closed pipe cancels the answer: its error counts, not the cancellation.
        show.finish()?;
        if stream || growing.is_empty() {
            signals.check()?;
        }
        return Ok(Asked { prompt: job.prompt, reply: Reply::Answers(growing), usage: JobUsage::default() });
    };
    if let Reply::Answers(answers) = &asked.reply {
        if answers.iter().all(|answer| answer.text.trim().is_empty()) {
            show.event(&Event::Notice(Notice::EmptyAnswer));
        }
        if let ([answer], true) = (&answers[..], single) {
            show.event(&Event::Stopped(answer.stop()));
        }
        show.event(&Event::Stats(stats(&asked, session)));
    }
    show.finish()?;
    Ok(asked)
}

fn finished(outcome: Outcome, ask: &Ask, job: &Job) -> Asked {
    let reply = match outcome.completed {
        JobResult::Answers(answers) => {
            let given = |answer: complete::JobAnswer| Given {
                text: answer.text,
                ids: answer.ids,
                finish: Some(answer.finish),
                log_probs: answer.log_probs,
            };
            Reply::Answers(answers.into_iter().map(given).collect())
        }
        JobResult::Choices(scores) => {
            let texts = ask.choices.iter().flatten().cloned();
            let mut scored = texts.zip(scores).collect::<Vec<_>>();
            // Of equal ones the first stays first.
            scored.sort_by(|a, b| b.1.log_prob.total_cmp(&a.1.log_prob));
            Reply::Choices(scored)
        }
    };
    Asked { prompt: job.prompt.clone(), reply, usage: outcome.usage }
}

/// The cost as sessions say it: of all answers together.
pub fn stats(asked: &Asked, session: &Session) -> Stats {
    let (usage, settings) = (asked.usage, session.settings());
    let longest = match &asked.reply {
        Reply::Answers(answers) => answers.iter().map(|answer| answer.ids.len()).max().unwrap_or(0),
        Reply::Choices(_) => 0,
    };
    Stats {
        prompt_tokens: usage.prompt_tokens.saturating_sub(usage.reused_tokens),
        reused_tokens: usage.reused_tokens,
        prompt_seconds: usage.prompt_seconds,
        generated_tokens: usage.generated_tokens,
        generate_seconds: usage.generate_seconds,
        context_used: asked.prompt.len() + longest,
        context: settings.n_ctx,
        seed: settings.seed,
        attempt: 0,
    }
}
