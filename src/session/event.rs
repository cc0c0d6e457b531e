//! What a session tells while it makes an answer, and the answer.

use crate::schedule::Stop;
use huozi_token::HistoryLimit;

/// What a turn cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stats {
    /// Prompt tokens read in this turn.
    pub prompt_tokens: usize,
    /// Prompt tokens that needed no reading: their keys and values were still there.
    pub reused_tokens: usize,
    /// Seconds spent reading.
    pub prompt_seconds: f64,
    /// Tokens generated, the one that ended the answer included.
    pub generated_tokens: usize,
    /// Seconds spent generating.
    pub generate_seconds: f64,
    /// Positions filled: prompt and answer.
    pub context_used: usize,
    /// Positions there are.
    pub context: usize,
    /// The seed of the conversation.
    pub seed: u64,
    /// The number of the attempt.
    pub attempt: u64,
}

impl Stats {
    /// Prompt tokens read per second.
    pub fn prompt_rate(&self) -> f64 {
        rate(self.prompt_tokens, self.prompt_seconds)
    }

    /// Tokens generated per second. The first came with the prompt's last piece.
    pub fn generate_rate(&self) -> f64 {
        rate(self.generated_tokens.saturating_sub(1), self.generate_seconds)
    }
}

fn rate(tokens: usize, seconds: f64) -> f64 {
    if seconds > 0.0 { tokens as f64 / seconds } else { 0.0 }
}

/// What the user should be told although nothing failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The model ended its answer without any text.
    EmptyAnswer,
    /// Fewer threads run than were asked for: there are not as many processors.
    FewerThreads {
        /// Threads asked for.
        wanted: usize,
        /// Threads that run.
        used: usize,
    },
    /// The context is longer than the model was trained with.
    LongContext {
        /// Positions asked for.
        n_ctx: usize,
        /// Positions the model was trained with.
        trained: usize,
    },
}

impl Notice {
    /// [`Notice::FewerThreads`], where an engine that was to run `wanted` threads runs fewer.
    pub fn fewer_threads(wanted: Option<usize>, used: usize) -> Option<Self> {
        wanted.filter(|&wanted| wanted > used).map(|wanted| Self::FewerThreads { wanted, used })
    }
}

impl std::fmt::Display for Notice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::EmptyAnswer => f.write_str("the model gave an empty answer; try again or ask differently"),
            Self::FewerThreads { wanted, used } => write!(
                f,
                "{wanted} threads were asked for, {used} run: one for each processor that can be used; \
                 more would be slower"
            ),
            Self::LongContext { n_ctx, trained } => write!(
                f,
                "a context of {n_ctx} tokens is more than the {trained} this model was trained with; \
                 quality may suffer"
            ),
        }
    }
}

/// What happens during a turn.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The next id of the answer; the text that it completes, if any, follows.
    Token(u32),
    /// A piece of the answer, whole characters only.
    Text(String),
    /// So much of the prompt is read; comes at least twice a second while it is.
    Prompt {
        /// Tokens whose keys and values are there.
        done: usize,
        /// Tokens of the prompt.
        total: usize,
    },
    /// So many of the oldest exchanges were dropped from the prompt.
    Dropped {
        /// Exchanges.
        exchanges: usize,
        /// The limit that the prompt passed.
        limit: HistoryLimit,
    },
    /// Something to tell the user.
    Notice(Notice),
    /// The answer ended. Statistics follow, nothing else.
    Stopped(Stop),
    /// What the turn cost; the last event.
    Stats(Stats),
}

/// What is said about [`Event::Dropped`], in English.
pub fn dropped_note(exchanges: usize, limit: HistoryLimit) -> String {
    let which = match exchanges {
        1 => "oldest exchange".to_owned(),
        n => format!("{n} oldest exchanges"),
    };
    format!("dropped the {which} from the prompt (limit: {limit})")
}

/// The name of a reason to stop, in JSON and in stored conversations.
pub fn stop_name(stop: Stop) -> &'static str {
    match stop {
        Stop::EndToken(_) => "end",
        Stop::MaxTokens => "length",
        Stop::ContextFull => "context",
        Stop::Cancelled => "cancelled",
        Stop::Hook => "stop",
        Stop::BrokenLogits => "broken",
    }
}

/// The result of one turn or completion, for front ends that want it whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The text, control tokens left out.
    pub text: String,
    /// The ids generated, without the one that ended it.
    pub ids: Vec<u32>,
    /// Why it ended.
    pub stop: Stop,
    /// What it cost.
    pub stats: Stats,
}
