//! Requests over one engine, a step at a time.
//!
//! In come token ids with their sampling settings, out go events: how much of the prompt is read, each token, the
//! reason to stop. It owns sequences, their phases, the sharing of prefixes and sampling (inside the sink; a row of
//! logits is never kept). It knows no text, no history and no files.
//!
//! A step carries the next token of every request that generates and one piece of the prompts that are being read,
//! sized so that a step takes about a second in company and some seconds alone, and tells how far it is twice a second. The sequence of an ended request is kept as long as there is
//! room: a new request continues from the longest prefix that any sequence has in common with it. When blocks run
//! out, kept sequences go first, then the youngest request steps back and is read again later, each token in the
//! phase it first had.

use crate::engine::{Engine, EngineError, Info, Item, Phase, Seq, Sink, Want};
use crate::sample::{SamplerPool, Sampling, SettingError};
use std::collections::VecDeque;
use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// Sequences of ended requests that are kept for their prefix.
const KEPT: usize = 4;
/// The longest an engine should be silent while it reads a piece of prompt: progress is promised twice a second.
const SILENCE_SECONDS: f64 = 0.3;
/// The longest step that reads a prompt: what is lost when it is cancelled.
const STEP_SECONDS: f64 = 4.0;
/// The same while others generate: they wait for it.
const COMPANY_SECONDS: f64 = 1.0;
/// The shortest time between two events of one prompt.
const EVENT_SECONDS: f64 = 0.1;
/// Prompt tokens in one step at most.
const PIECE_TOKENS: usize = 512;
/// Prompt tokens in the first step, when nothing is known of the engine's speed.
const FIRST_PIECE: usize = 64;
/// A piece is at most so many times the last one.
const PIECE_GROWTH: usize = 4;
/// Requests that run at a time at most: their tokens share a step.
const RUNNING: usize = 32;

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
    /// `n_ctx` positions, or all blocks of the cache, are filled.
    ContextFull,
    /// [`Scheduler::cancel`] was called.
    Cancelled,
    /// No logit of an id that has a token is a number: the weights are broken.
    BrokenLogits,
}

/// Why a request was not taken.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// The prompt is empty, holds an id past the vocabulary, or is longer than the whole cache.
    #[error(transparent)]
    Prompt(#[from] EngineError),
    /// The prompt is longer than the context.
    #[error("the prompt has {tokens} tokens, the context {n_ctx}")]
    TooLong {
        /// Tokens of the prompt.
        tokens: usize,
        /// [`Request::n_ctx`].
        n_ctx: usize,
    },
    /// A setting out of range.
    #[error(transparent)]
    Setting(#[from] SettingError),
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

/// Takes a block of keys and values: its ids, how many of them were given, its bytes.
pub type TakeBlock<'a> = dyn FnMut(&[u32], usize, &[u8]) -> io::Result<()> + 'a;
/// Appends a block's ids and bytes; says how many of the ids were given, or that there is no block more.
pub type GiveBlock<'a> = dyn FnMut(&mut Vec<u32>, &mut Vec<u8>) -> io::Result<Option<usize>> + 'a;

/// A request on its way.
struct Running {
    id: RequestId,
    request: Request,
    /// The prompt and what was generated; all but `unread` are in the cache.
    ids: Vec<u32>,
    seq: Option<Seq>,
    /// Positions in the cache.
    done: usize,
    timings: Timings,
    cancelled: bool,
}

impl Running {
    fn prompt_len(&self) -> usize {
        self.request.ids.len()
    }

    /// Still reading what was there before (more than the one token drawn last).
    fn reads(&self) -> bool {
        self.done + 1 < self.ids.len() || self.done < self.prompt_len()
    }

    /// The next piece, at most `budget` tokens, of one phase.
    fn piece(&self, budget: usize) -> (&[u32], Phase) {
        let (end, phase) = match self.done < self.prompt_len() {
            true => (self.prompt_len(), Phase::Given),
            false => (self.ids.len(), Phase::Generated),
        };
        (&self.ids[self.done..end.min(self.done + budget.max(1))], phase)
    }
}

/// The token that a row of logits led to; `None` where no logit is a number.
type Drawn = Option<u32>;

/// A sequence that nobody runs, kept for its prefix.
struct Kept {
    seq: Seq,
    ids: Vec<u32>,
    /// Positions below were given, the others generated.
    given: usize,
}

/// Runs requests over one engine.
pub struct Scheduler {
    engine: Box<dyn Engine>,
    samplers: SamplerPool,
    waiting: VecDeque<Running>,
    running: Vec<Running>,
    /// Oldest first.
    kept: VecDeque<Kept>,
    next_id: u64,
    /// Prompt tokens of the next step at most.
    piece: usize,
    /// A request stepped back and none has ended since: letting one in now would push out another.
    crowded: bool,
    exact: bool,
}

impl Scheduler {
    /// `never[id]`: ids that are never sampled; those past its end have no token and are not sampled either.
    pub fn new(engine: Box<dyn Engine>, never: Arc<[bool]>) -> Self {
        Self {
            engine,
            samplers: SamplerPool::new(never),
            waiting: VecDeque::new(),
            running: Vec::new(),
            kept: VecDeque::new(),
            next_id: 0,
            piece: FIRST_PIECE,
            crowded: false,
            exact: false,
        }
    }

    /// Reuses keys and values only for tokens of the phase they were computed in, so that a row's text is the same in
    /// any company. Without it a prompt that repeats an earlier answer, as the next turn of a chat does, continues from
    /// what was computed while that answer was generated.
    #[must_use]
    pub fn exact(mut self) -> Self {
        self.exact = true;
        self
    }

    /// What the engine is.
    pub fn info(&self) -> &Info {
        self.engine.info()
    }

    /// How many of `ids`, from the first on, have their keys and values in one kept sequence.
    pub fn kept(&self, ids: &[u32]) -> usize {
        self.kept_like(ids).map_or(0, |(_, n)| n)
    }

    fn kept_like(&self, ids: &[u32]) -> Option<(&Kept, usize)> {
        let common = |k: &Kept| k.ids.iter().zip(ids).take_while(|(a, b)| a == b).count();
        self.kept.iter().map(|k| (k, common(k))).filter(|&(_, n)| n > 0).max_by_key(|&(_, n)| n)
    }

    /// What keys and values taken out mean, and bytes of a block of them; `None` for an engine that gives none.
    pub fn kv_layout(&mut self) -> Option<(String, usize)> {
        self.engine.kv_state().map(|state| (state.kv_layout(), state.kv_export_bytes()))
    }

    /// Takes out the keys and values of `ids` that [`Self::kept`] counts, from block `first` on: each block's ids, how
    /// many of them were given and not generated, and its bytes go to `to`.
    ///
    /// # Errors
    /// What `to` says.
    pub fn export(&mut self, ids: &[u32], first: usize, to: &mut TakeBlock<'_>) -> io::Result<()> {
        let Some((seq, given, n)) = self.kept_like(ids).map(|(k, n)| (k.seq, k.given, n)) else {
            return Ok(());
        };
        let size = self.engine.info().kv_block_positions;
        let Some(state) = self.engine.kv_state() else { return Ok(()) };
        let mut bytes = Vec::with_capacity(state.kv_export_bytes());
        for (block, ids) in ids[..n].chunks(size).enumerate().skip(first) {
            bytes.clear();
            state.kv_export(seq, block, ids.len(), &mut bytes).map_err(io::Error::other)?;
            to(ids, given.saturating_sub(block * size).min(ids.len()), &bytes)?;
        }
        Ok(())
    }

    /// Puts back what [`Self::export`] gave, as a kept sequence. `next` appends a block's ids and bytes to what it is
    /// given, and says how many of the ids were given, or that there is none. Ends before a block that does not fit.
    /// Gives the positions that are there.
    ///
    /// # Errors
    /// What `next` says; what came before is kept.
    pub fn import(&mut self, next: &mut GiveBlock<'_>) -> io::Result<usize> {
        if self.engine.kv_state().is_none() {
            return Ok(0);
        }
        let size = self.engine.info().kv_block_positions;
        let seq = self.engine.seq_new();
        let mut kept = Kept { seq, ids: Vec::new(), given: 0 };
        let (mut ids, mut bytes) = (Vec::new(), Vec::new());
        let result = loop {
            ids.clear();
            bytes.clear();
            let given = match next(&mut ids, &mut bytes) {
                Ok(Some(given)) => given,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            };
            if self.engine.kv_free_blocks() == 0 {
                self.evict();
            }
            let Some(state) = self.engine.kv_state() else { break Ok(()) };
            if state.kv_import(seq, ids.len(), &bytes).is_err() {
                break Ok(());
            }
            // Given ids come before generated ones.
            if kept.given == kept.ids.len() {
                kept.given += given.min(ids.len());
            }
            kept.ids.extend_from_slice(&ids);
            if !kept.ids.len().is_multiple_of(size) {
                break Ok(());
            }
        };
        let positions = kept.ids.len();
        if positions == 0 {
            self.engine.seq_free(seq);
        } else {
            self.keep(kept);
        }
        result.map(|()| positions)
    }

    /// Queues a request.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn submit(&mut self, request: Request) -> Result<RequestId, Refused> {
        let info = self.engine.info();
        request.sampling.check()?;
        if request.ids.is_empty() {
            return Err(EngineError::NoTokens.into());
        }
        if let Some(&token) = request.ids.iter().find(|&&t| t as usize >= info.n_vocab) {
            return Err(EngineError::TokenOutOfRange { token, n_vocab: info.n_vocab }.into());
        }
        if request.ids.len() > request.n_ctx {
            return Err(Refused::TooLong { tokens: request.ids.len(), n_ctx: request.n_ctx });
        }
        let needed = request.ids.len().div_ceil(info.kv_block_positions);
        if needed > info.kv_blocks {
            return Err(EngineError::KvFull { needed, free: info.kv_blocks }.into());
        }
        let id = RequestId(self.next_id);
        self.next_id += 1;
        let ids = request.ids.clone();
        let timings = Timings::default();
        self.waiting.push_back(Running { id, request, ids, seq: None, done: 0, timings, cancelled: false });
        Ok(id)
    }

    /// Ends a request; its `Stopped` event comes with the next step. Unknown or ended ids are ignored.
    pub fn cancel(&mut self, id: RequestId) {
        for r in self.running.iter_mut().chain(&mut self.waiting).filter(|r| r.id == id) {
            r.cancelled = true;
        }
    }

    /// One step of the engine over what is queued. Returns whether requests remain.
    ///
    /// # Errors
    /// What the engine says; after `Cancelled` the same step can be taken again.
    pub fn step(&mut self, cancel: &AtomicBool, on: &mut dyn FnMut(Event)) -> Result<bool, EngineError> {
        self.drop_cancelled(on);
        self.admit(on)?;
        if self.running.is_empty() {
            return Ok(!self.waiting.is_empty());
        }
        loop {
            match self.advance(cancel, on) {
                Err(EngineError::KvFull { .. }) if !self.kept.is_empty() => self.evict(),
                Err(EngineError::KvFull { .. }) if self.running.len() > 1 => self.step_back(),
                Err(EngineError::KvFull { .. }) => self.end(0, Stop::ContextFull, on),
                Err(error) => return Err(error),
                Ok(()) => break,
            }
            if self.running.is_empty() {
                break;
            }
        }
        Ok(!self.running.is_empty() || !self.waiting.is_empty())
    }

    fn drop_cancelled(&mut self, on: &mut dyn FnMut(Event)) {
        for i in (0..self.running.len()).rev() {
            if self.running[i].cancelled {
                self.end(i, Stop::Cancelled, on);
            }
        }
        self.waiting.retain(|r| {
            if r.cancelled {
                on(Event::Stopped { id: r.id, stop: Stop::Cancelled, timings: r.timings });
            }
            !r.cancelled
        });
    }

    /// Lets waiting requests in while the cache has room for their prompts.
    fn admit(&mut self, on: &mut dyn FnMut(Event)) -> Result<(), EngineError> {
        while let Some(next) = self.waiting.front() {
            let block = self.engine.info().kv_block_positions;
            let alone = self.running.is_empty();
            if !alone && (self.crowded || self.running.len() >= RUNNING) {
                return Ok(());
            }
            let reach = self.best_prefix(next);
            let shared = reach.map_or(0, |(_, common)| common / block);
            if self.coming_prefix(next) / block > shared {
                return Ok(());
            }
            // One block more for each that runs: it is about to grow.
            let needed = next.ids.len().div_ceil(block) + self.running.len();
            if !alone && needed > self.engine.kv_free_blocks() + shared {
                if self.kept.is_empty() {
                    return Ok(());
                }
                self.evict();
                continue;
            }
            let (seq, common) = match reach {
                None => (self.engine.seq_new(), 0),
                Some((source, common)) => match self.take_prefix(source, common) {
                    Ok(seq) => (seq, common),
                    Err(EngineError::KvFull { .. }) if !self.kept.is_empty() => {
                        self.evict();
                        continue;
                    }
                    Err(EngineError::KvFull { .. }) => return Ok(()),
                    Err(error) => return Err(error),
                },
            };
            let mut r = self.waiting.pop_front().expect("looked at");
            r.seq = Some(seq);
            r.done = common;
            r.timings.reused_tokens = common.min(r.prompt_len());
            on(Event::Prompt { id: r.id, done: common.min(r.prompt_len()), total: r.prompt_len() });
            self.running.push(r);
        }
        Ok(())
    }

    /// The sequence with the longest prefix that `r` can continue from, and its length. The last id is always read anew:
    /// its logits are wanted.
    fn best_prefix(&self, r: &Running) -> Option<(Seq, usize)> {
        let kept = self.kept.iter().map(|k| (k.seq, &k.ids[..], k.given));
        let running = self.running.iter().filter_map(|o| Some((o.seq?, &o.ids[..o.done], o.prompt_len())));
        kept.chain(running)
            .map(|(seq, have, given)| (seq, self.common(have, given, r)))
            .filter(|&(_, common)| common > 0)
            .max_by_key(|&(_, common)| common)
    }

    /// The longest prefix that `r` could continue from once the prompts being read are read.
    fn coming_prefix(&self, r: &Running) -> usize {
        let reading = self.running.iter().filter(|o| o.done < o.prompt_len());
        reading.map(|o| self.common(&o.request.ids, o.prompt_len(), r)).max().unwrap_or(0)
    }

    /// Positions of `have`, given below `given` and generated above, that `r` can use.
    fn common(&self, have: &[u32], given: usize, r: &Running) -> usize {
        let ids = &r.ids[..r.ids.len() - 1];
        let common = have.iter().zip(ids).take_while(|(a, b)| a == b).count();
        // Between the two boundaries one is given and the other generated.
        let (low, high) = (given.min(r.prompt_len()), given.max(r.prompt_len()));
        if self.exact && low != high { common.min(low) } else { common }
    }

    /// A sequence with the first `common` positions of `source`: the kept sequence itself where little of it is lost,
    /// a fork otherwise.
    fn take_prefix(&mut self, source: Seq, common: usize) -> Result<Seq, EngineError> {
        let lost = self.engine.info().kv_block_positions;
        let kept = self.kept.iter().position(|k| k.seq == source && k.ids.len() < common + lost);
        match kept {
            Some(i) => {
                self.kept.remove(i);
                self.engine.seq_truncate(source, common)?;
                Ok(source)
            }
            None => self.engine.seq_fork(source, common),
        }
    }

    fn keep(&mut self, kept: Kept) {
        self.kept.push_back(kept);
        if self.kept.len() > KEPT {
            self.evict();
        }
    }

    /// Frees the oldest kept sequence.
    fn evict(&mut self) {
        if let Some(k) = self.kept.pop_front() {
            self.engine.seq_free(k.seq);
        }
    }

    /// The youngest request gives its blocks back and waits.
    fn step_back(&mut self) {
        if let Some(mut r) = self.running.pop() {
            if let Some(seq) = r.seq.take() {
                self.engine.seq_free(seq);
            }
            r.done = 0;
            self.waiting.push_front(r);
            self.crowded = true;
        }
    }

    /// Ends running request `i`; its sequence is kept for its prefix.
    fn end(&mut self, i: usize, stop: Stop, on: &mut dyn FnMut(Event)) {
        let mut r = self.running.remove(i);
        self.crowded = false;
        if let Some(seq) = r.seq {
            r.ids.truncate(r.done);
            let given = r.request.ids.len();
            self.keep(Kept { seq, ids: r.ids, given });
        }
        on(Event::Stopped { id: r.id, stop, timings: r.timings });
    }

    /// Builds the items of a step, runs it, and deals out what was drawn.
    fn advance(&mut self, cancel: &AtomicBool, on: &mut dyn FnMut(Event)) -> Result<(), EngineError> {
        let mut budget = self.piece;
        // Which running request each item belongs to.
        let mut whose = Vec::new();
        let mut items = Vec::new();
        for (i, r) in self.running.iter().enumerate() {
            let Some(seq) = r.seq else { continue };
            if r.reads() && budget == 0 {
                continue;
            }
            let (tokens, phase) = r.piece(budget);
            if r.reads() {
                budget -= tokens.len();
            }
            let last = r.done + tokens.len() == r.ids.len() && r.request.max_new > 0;
            whose.push(i);
            items.push(Item { seq, tokens, phase, want: if last { Want::Last } else { Want::None } });
        }
        let sizes: Vec<usize> = items.iter().map(|item| item.tokens.len()).collect();
        let drawn: Vec<OnceLock<Drawn>> = items.iter().map(|_| OnceLock::new()).collect();
        let (running, samplers) = (&self.running, &self.samplers);
        let start = Instant::now();
        let (mut spoke, mut told, mut silence) = (start, start, 0.0f64);
        self.engine.step_watched(
            &items,
            &mut Sink::Shared(&|item, position, logits| {
                let r = &running[whose[item]];
                let next = position as u64 + 1;
                // The settings were checked when the request was taken.
                let token = samplers.sample(logits, &r.ids, &r.request.sampling, r.request.seed, next).ok();
                let _ = drawn[item].set(token);
            }),
            &mut |share| {
                silence = silence.max(spoke.elapsed().as_secs_f64());
                spoke = Instant::now();
                if told.elapsed().as_secs_f64() < EVENT_SECONDS {
                    return;
                }
                told = spoke;
                for (r, n) in whose.iter().map(|&i| &running[i]).zip(&sizes) {
                    if r.done < r.prompt_len() {
                        let done = r.done + (share * *n as f64) as usize;
                        on(Event::Prompt { id: r.id, done, total: r.prompt_len() });
                    }
                }
            },
            cancel,
        )?;
        let seconds = start.elapsed().as_secs_f64();
        silence = silence.max(spoke.elapsed().as_secs_f64());
        // Budget that is left says nothing about speed: only a full piece may grow or shrink the next.
        if budget == 0 {
            let most = if sizes.len() > 1 { COMPANY_SECONDS } else { STEP_SECONDS };
            let share = (SILENCE_SECONDS / silence.max(1e-6)).min(most / seconds.max(1e-6));
            let fits = self.piece as f64 * share;
            self.piece = (fits as usize).clamp(1, (self.piece * PIECE_GROWTH).min(PIECE_TOKENS));
        }
        let mut ended = Vec::new();
        for (item, &i) in whose.iter().enumerate() {
            let stop = self.took(i, sizes[item], drawn[item].get().copied(), seconds, on);
            ended.extend(stop.map(|stop| (i, stop)));
        }
        for (i, stop) in ended.into_iter().rev() {
            self.end(i, stop, on);
        }
        Ok(())
    }

    /// Notes that request `i` took a piece of `n` tokens and drew a token or none; says whether it ends.
    fn took(
        &mut self,
        i: usize,
        n: usize,
        drawn: Option<Drawn>,
        seconds: f64,
        on: &mut dyn FnMut(Event),
    ) -> Option<Stop> {
        let r = &mut self.running[i];
        let total = r.prompt_len();
        if r.done < total {
            r.timings.prompt_tokens += n;
            r.timings.prompt_seconds += seconds;
            on(Event::Prompt { id: r.id, done: r.done + n, total });
        } else {
            r.timings.generate_seconds += seconds;
        }
        r.done += n;
        let token = match drawn {
            None => return (r.done == r.ids.len()).then_some(Stop::MaxTokens),
            Some(None) => return Some(Stop::BrokenLogits),
            Some(Some(token)) => token,
        };
        r.timings.generated_tokens += 1;
        if r.request.stop_ids.contains(&token) {
            return Some(Stop::EndToken(token));
        }
        if r.ids.len() >= r.request.n_ctx {
            return Some(Stop::ContextFull);
        }
        on(Event::Token { id: r.id, token });
        r.ids.push(token);
        if r.ids.len() >= r.request.n_ctx {
            return Some(Stop::ContextFull);
        }
        (r.ids.len() - total >= r.request.max_new).then_some(Stop::MaxTokens)
    }
}
