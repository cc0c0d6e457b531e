//! Requests over one engine, a step at a time.
//!
//! In come token ids with their sampling settings, out go events: how much of the prompt is read, each token, the
//! reason to stop. It owns sequences, their phases, the sharing of prefixes and sampling (inside the sink; a row of
//! logits is never kept). It knows no text, no history and no files.

use crate::engine::{Engine, EngineError, Info};
use crate::sample::Sampling;
use std::sync::atomic::AtomicBool;

/// A request of a scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(u64);

/// A prompt and how to continue it.
#[derive(Clone, Debug)]
pub struct Request {
    /// The prompt; at least one id.
    pub ids: Vec<u32>,
    /// How to choose each token.
    pub sampling: Sampling,
    /// Seed of this row: the draw at position `p` depends on `(seed, p)` only.
    pub seed: u64,
    /// Generation ends when one of these is drawn; that token is not part of the answer.
    pub stop_ids: Vec<u32>,
    /// Tokens to generate at most; 0 only reads the prompt.
    pub max_new: usize,
    /// Positions the sequence may have at most, prompt and answer together.
    pub n_ctx: usize,
}

/// Why a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// This stop id was drawn.
    EndToken(u32),
    /// `max_new` tokens were generated.
    MaxTokens,
    /// `n_ctx` positions are filled.
    ContextFull,
    /// [`Scheduler::cancel`] was called.
    Cancelled,
}

/// How long things took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timings {
    /// Prompt tokens read in this request (those of a reused prefix are not among them).
    pub prompt_tokens: usize,
    /// Prompt tokens whose keys and values were already there.
    pub reused_tokens: usize,
    /// Seconds spent reading the prompt.
    pub prompt_seconds: f64,
    /// Tokens generated, a stop id included.
    pub generated_tokens: usize,
    /// Seconds spent generating, after the prompt was read.
    pub generate_seconds: f64,
}

/// What happened in a step.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// `done` of `total` prompt tokens are read.
    Prompt {
        /// The request.
        id: RequestId,
        /// Tokens whose keys and values are in the cache.
        done: usize,
        /// Tokens of the prompt.
        total: usize,
    },
    /// A token of the answer.
    Token {
        /// The request.
        id: RequestId,
        /// The token.
        token: u32,
    },
    /// The request ended; nothing follows for it.
    Stopped {
        /// The request.
        id: RequestId,
        /// Why.
        stop: Stop,
        /// How long it took.
        timings: Timings,
    },
}

/// Runs requests over one engine.
pub struct Scheduler {
    engine: Box<dyn Engine>,
}

impl Scheduler {
    /// `never[id]`: ids that are never sampled; shorter than `n_vocab` means the rest may be.
    pub fn new(engine: Box<dyn Engine>, never: Vec<bool>) -> Self {
        let _ = never;
        Self { engine }
    }

    /// What the engine is.
    pub fn info(&self) -> &Info {
        self.engine.info()
    }

    /// Queues a request.
    pub fn submit(&mut self, request: Request) -> RequestId {
        let _ = request;
        todo!()
    }

    /// Ends a request; its `Stopped` event comes with the next step. Unknown or ended ids are ignored.
    pub fn cancel(&mut self, id: RequestId) {
        let _ = id;
        todo!()
    }

    /// One step of the engine over what is queued. Returns whether requests remain.
    ///
    /// # Errors
    /// What the engine says; after `Cancelled` the same step can be taken again.
    pub fn step(&mut self, cancel: &AtomicBool, on: &mut dyn FnMut(Event)) -> Result<bool, EngineError> {
        let _ = (cancel, on);
        todo!()
    }
}
