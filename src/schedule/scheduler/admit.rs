//! Which waiting requests are let in, and from what they continue.

use super::{OnEvent, Scheduler, is_full};
use crate::engine::{EngineError, Seq};
use crate::schedule::prefix::common;
use crate::schedule::request::{RequestEvent, Stop};
use crate::schedule::running::Running;
use std::ops::ControlFlow;

/// Tokens that a request need not read if it waits for a prefix that is being read; for fewer it does not
/// wait. A question after shared examples may be shorter than a block, and several choices share it.
const WORTH_WAITING: usize = 16;

/// Prompt tokens that are read at once although few requests share the step.
const GROUP_TOKENS: usize = 256;

/// A sequence whose first positions a request can continue from.
struct Prefix {
    seq: Seq,
    /// How many positions.
    len: usize,
    /// What [`Running::known`] of the request becomes.
    known: usize,
}

/// Whether a waiting request was let in.
enum Entry {
    In,
    /// What it waits for is being read: others may go before it.
    Later,
    /// The cache has no room for it: those behind it wait, too.
    Full,
}

impl Scheduler {
    /// Lets waiting requests in, in their order, while the cache has room for their prompts. Requests whose
    /// prefix is just being read for another one are passed by as many as run at a time, each.
    pub(super) fn admit(&mut self, on: &mut OnEvent<'_>) -> Result<(), EngineError> {
        let most = self.options.running.max(1);
        if self.options.grouped && self.waits_for_more(most) {
            return Ok(());
        }
        let mut i = 0;
        while i < most {
            let Some(next) = self.waiting.get(i) else { break };
            if !self.running.is_empty() && (self.crowded || self.running.len() >= most) {
                break;
            }
            let passed = next.passed;
            self.admitting = Some(next.id);
            match self.let_in(i, on)? {
                Entry::In => self.waiting.iter_mut().take(i).for_each(|r| r.passed += 1),
                Entry::Later if passed < most => i += 1,
                Entry::Later | Entry::Full => break,
            }
        }
        self.admitting = None;
        Ok(())
    }

    /// Whether requests would be let in that are better read together with others: fewer places are free than
    /// a group takes, requests wait for all of them, and those that fit have little to read.
    fn waits_for_more(&self, most: usize) -> bool {
        let (group, free) = (most.div_ceil(4), most.saturating_sub(self.running.len()));
        let reads = self.running.iter().any(Running::reads);
        if self.running.is_empty() || reads || free >= group || self.waiting.len() < group {
            return false;
        }
        let unread = (0..free)
            .filter_map(|i| self.waiting.get(i))
            .map(|r| r.ids.len() - self.best_prefix(r).map_or(0, |prefix| prefix.len));
        unread.sum::<usize>() < GROUP_TOKENS
    }

    /// Lets waiting request `i` in if it can run.
    fn let_in(&mut self, i: usize, on: &mut OnEvent<'_>) -> Result<Entry, EngineError> {
        let block = self.engine.info().kv_block_positions;
        let alone = self.running.is_empty();
        let (seq, len, known) = loop {
            let Some(next) = self.waiting.get(i) else { return Ok(Entry::Full) };
            let reach = self.best_prefix(next);
            let shared = reach.as_ref().map_or(0, |prefix| prefix.len / block);
            let have = reach.as_ref().map_or(0, |prefix| prefix.len);
            if self.coming_prefix(next) >= have + WORTH_WAITING {
                return Ok(Entry::Later);
            }
            // One block more for each that runs: it is about to grow.
            let needed = next.ids.len().div_ceil(block) + self.running.len();
            if !alone && needed > self.engine.kv_free_blocks() + shared {
                // What it continues from makes no room for it.
                if self.evict(reach.map(|prefix| prefix.seq)) {
                    continue;
                }
                return Ok(Entry::Full);
            }
            let Some(Prefix { seq, len, known }) = reach else {
                break (self.engine.seq_new(), 0, usize::MAX);
            };
            match self.take_prefix(seq, len) {
                Ok(seq) => break (seq, len, known),
                Err(error) if is_full(&error) && self.evict(None) => {}
                Err(error) if is_full(&error) && !alone => return Ok(Entry::Full),
                Err(error) => return Err(error),
            }
        };
        let Some(mut r) = self.waiting.remove(i) else { return Ok(Entry::Full) };
        (r.seq, r.done, r.known, r.passed) = (Some(seq), len, known, 0);
        let (id, total) = (r.id, r.prompt_len());
        r.timings.reused_tokens = len.min(total);
        if let ControlFlow::Break(()) = on(RequestEvent::Prompt { id, done: len.min(total), total }) {
            r.ends = Some(Stop::Hook);
        }
        self.running.push(r);
        Ok(Entry::In)
    }

    /// The longest prefix that `r` can continue from.
    fn best_prefix(&self, r: &Running) -> Option<Prefix> {
        let kept = self.kept.iter().map(|k| (k.seq, &k.ids[..], k.given, k.known));
        let running = self.running.iter();
        let running = running.filter_map(|o| Some((o.seq?, &o.ids[..o.done], o.prompt_len(), o.known)));
        kept.chain(running)
            .map(|(seq, have, given, known)| {
                let (len, known) = self.common(have, given, known, r);
                Prefix { seq, len, known }
            })
            .filter(|prefix| prefix.len > 0)
            .max_by_key(|prefix| prefix.len)
    }

    /// The longest prefix that `r` could continue from once the prompts being read are read.
    fn coming_prefix(&self, r: &Running) -> usize {
        let reading = self.running.iter().filter(|o| o.done < o.prompt_len());
        reading.map(|o| self.common(o.prompt(), o.prompt_len(), o.known, r).0).max().unwrap_or(0)
    }

    /// Positions of `have`, given below `given` and generated above as far as `known`, that `r` can use; and
    /// how far `r` then has [`Running::known`] phases. A request with log-probabilities uses only those that
    /// it has itself, and so does every request where rows must be exact.
    fn common(&self, have: &[u32], given: usize, known: usize, r: &Running) -> (usize, usize) {
        let common = common(have, r.reusable());
        // Between the two boundaries one is given and the other generated.
        let (low, high) = (given.min(r.prompt_len()), given.max(r.prompt_len()));
        let same = if low == high { known } else { known.min(low) };
        if common <= same {
            (common, usize::MAX)
        } else if self.options.exact || r.request.log_probs.is_some() {
            (same, usize::MAX)
        } else {
            (common, same)
        }
    }

    /// A sequence with the first `common` positions of `source`: the kept sequence itself where little of it
    /// is lost, a fork otherwise.
    fn take_prefix(&mut self, source: Seq, common: usize) -> Result<Seq, EngineError> {
        let lost = self.engine.info().kv_block_positions;
        if self.kept.take(source, common, lost) {
            self.engine.seq_truncate(source, common)?;
            return Ok(source);
        }
        self.engine.seq_fork(source, common)
    }
}
