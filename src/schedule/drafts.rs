//! Drafts of a request's next tokens: where they come from, how likely they are, when to try again.

use super::lookup::Lookup;
use super::request::{Drafter, Speculate};
use super::step_costs::Offer;
use std::sync::Arc;

/// Maximum tokens of a draft.
pub(super) const MAX_DRAFT: usize = 8;
/// A rate forgets: it is that of about so many last tokens.
const ROW_MEMORY: f64 = 32.0;
/// The same for the rate of all requests.
const ALL_MEMORY: f64 = 512.0;
/// What is known of other requests counts as so many tokens of a new one.
const PRIOR_TOKENS: f64 = 2.0;
/// No draft is certain.
const MAX_CHANCE: f64 = 0.98;
/// Tokens without a draft after which one is tried, the first time and at most.
const PROBE_TOKENS: (usize, usize) = (8, 128);
/// Repeated ids from which on a draft belongs to the next class.
const CLASSES: [usize; 3] = [0, 4, 8];

/// How many draft tokens of each class were accepted, the latest counting most.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rates([Rate; CLASSES.len()]);

#[derive(Clone, Copy, Debug, Default)]
struct Rate {
    accepted: f64,
    tried: f64,
}

impl Rate {
    fn note(&mut self, accepted: usize, tried: usize, memory: f64) {
        let keep = (1.0 - 1.0 / memory).powi(tried as i32);
        self.accepted = self.accepted * keep + accepted as f64;
        self.tried = self.tried * keep + tried as f64;
    }

    /// With `PRIOR_TOKENS` tokens of which `prior` were accepted.
    fn chance(&self, prior: f64) -> f64 {
        (self.accepted + PRIOR_TOKENS * prior) / (self.tried + PRIOR_TOKENS)
    }
}

#[derive(Debug)]
enum Source {
    Lookup(Lookup),
    Client(Arc<dyn Drafter>),
}

/// What a request that speculates knows of its drafts.
#[derive(Debug)]
pub(super) struct Drafts {
    source: Source,
    rates: Rates,
    draft: Vec<u32>,
    /// The class of `draft`.
    class: usize,
    /// Steps since a draft was verified.
    since: usize,
    /// After how many of them one is tried whatever the rates say.
    wait: usize,
}

impl Drafts {
    /// `None` for a request that does not speculate.
    pub fn new(speculate: &Speculate) -> Option<Self> {
        let source = match speculate {
            Speculate::Off => return None,
            Speculate::Lookup => Source::Lookup(Lookup::default()),
            Speculate::From(drafter) => Source::Client(drafter.clone()),
        };
        let (draft, class, since, wait) = (Vec::new(), 0, 0, PROBE_TOKENS.0);
        Some(Self { source, rates: Rates::default(), draft, class, since, wait })
    }

    /// Makes a draft of at most `most` tokens that may follow `ids`; ids from `n_vocab` on and `stop_ids` end
    /// it. `all`: the rates of all requests.
    pub fn offer(&mut self, ids: &[u32], most: usize, valid: impl Fn(u32) -> bool, all: &Rates) -> Offer {
        self.draft.clear();
        let most = most.min(MAX_DRAFT);
        let repeated = match &mut self.source {
            _ if most == 0 => 0,
            Source::Lookup(lookup) => lookup.draft(ids, most, &mut self.draft),
            Source::Client(drafter) => {
                drafter.draft(ids, most, &mut self.draft);
                0
            }
        };
        let end = self.draft.iter().position(|&id| !valid(id)).unwrap_or(usize::MAX);
        self.draft.truncate(end.min(most));
        self.class = CLASSES.iter().rposition(|&least| repeated >= least).unwrap_or(0);
        let prior = all.0[self.class].chance(0.5);
        let chance = self.rates.0[self.class].chance(prior).min(MAX_CHANCE);
        Offer { chance, len: self.draft.len(), probe: self.since >= self.wait }
    }

    /// The draft that was offered last.
    pub fn draft(&self) -> &[u32] {
        &self.draft
    }

    /// The step went by without a draft of this request.
    pub fn none(&mut self) {
        self.since += 1;
    }

    /// Of the draft's tokens that a step looked at, `tried` in all, `accepted` were what was drawn.
    pub fn verified(&mut self, accepted: usize, tried: usize, all: &mut Rates) {
        self.rates.0[self.class].note(accepted, tried, ROW_MEMORY);
        all.0[self.class].note(accepted, tried, ALL_MEMORY);
        self.wait = match accepted {
            0 if self.since >= self.wait => (self.wait * 2).min(PROBE_TOKENS.1),
            0 => self.wait,
            _ => PROBE_TOKENS.0,
        };
        self.since = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Drafts 1, 2, 3, ...
    #[derive(Debug)]
    struct Counting;

    impl Drafter for Counting {
        fn draft(&self, _: &[u32], most: usize, draft: &mut Vec<u32>) {
            // More than it was asked for.
            draft.extend(1..=most as u32 + 5);
        }
    }

    #[test]
    fn a_draft_ends_where_it_must() {
        let mut drafts = Drafts::new(&Speculate::From(Arc::new(Counting))).unwrap();
        let all = Rates::default();
        assert_eq!(drafts.offer(&[9], 3, |_| true, &all).len, 3);
        assert_eq!(drafts.offer(&[9], 100, |_| true, &all).len, MAX_DRAFT);
        assert_eq!(drafts.offer(&[9], 5, |id| id != 3, &all).len, 2);
        assert_eq!(drafts.draft(), [1, 2]);
        assert_eq!(drafts.offer(&[9], 0, |_| true, &all).len, 0);
        assert!(Drafts::new(&Speculate::Off).is_none());
    }

    #[test]
    fn the_chance_follows_what_was_accepted_and_probes_become_rare() {
        let mut drafts = Drafts::new(&Speculate::From(Arc::new(Counting))).unwrap();
        let mut all = Rates::default();
        let first = drafts.offer(&[9], 3, |_| true, &all).chance;
        assert_eq!(first, 0.5);
        (0..3).for_each(|_| drafts.verified(0, 1, &mut all));
        let low = drafts.offer(&[9], 3, |_| true, &all).chance;
        assert!(low < 0.1, "{low}");
        // A new request begins where the others are.
        let mut other = Drafts::new(&Speculate::From(Arc::new(Counting))).unwrap();
        assert!(other.offer(&[9], 3, |_| true, &all).chance < 0.25);
        let mut steps = Vec::new();
        for step in 0..600 {
            if drafts.offer(&[9], 3, |_| true, &all).probe {
                steps.push(step);
                drafts.verified(0, 1, &mut all);
            } else {
                drafts.none();
            }
        }
        assert_eq!(steps, [8, 25, 58, 123, 252, 381, 510]);
        (0..40).for_each(|_| drafts.verified(3, 3, &mut all));
        assert!(drafts.offer(&[9], 3, |_| true, &all).chance > 0.9);
        // One accepted: what was rare is tried soon again.
        (0..PROBE_TOKENS.0).for_each(|_| drafts.none());
        assert!(drafts.offer(&[9], 3, |_| true, &all).probe);
    }
}
