//! What a step costs by the number of tokens it generates or verifies, and how many drafts pay.

use std::collections::{BTreeMap, VecDeque};

/// Reading the weights takes as long as multiplying them with about so many columns: how the time of a step
/// grows where it was not measured.
const READ_COLUMNS: f64 = 8.0;
/// A token more costs at least this part of what is assumed, whatever was measured: on a busy machine a wider
/// step may seem to cost nothing.
const LEAST_COST: f64 = 0.25;
/// Times that are kept of each width; their median counts.
const TIMES: usize = 5;
/// A time is forgotten after so many steps: the machine may be busier or less busy by then.
const FORGET_STEPS: u64 = 128;
/// Times of steps without drafts that must be known before any are made.
const BASE_TIMES: usize = 2;
/// A step without drafts is measured again after so many others.
const BASE_STEPS: u64 = 32;
/// From so many times of a width on it may count as dearer than assumed: one slow step says nothing.
const SURE_TIMES: usize = 3;
/// Drafts must promise so many times the tokens per second.
const GAIN: f64 = 1.01;

/// A draft that a request could have verified in the next step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offer {
    /// Chance of each of its tokens, after accepted ones, to be accepted; below 1.
    pub chance: f64,
    /// Its tokens.
    pub len: usize,
    /// One of them is to be tried even if it does not seem to pay, to learn the chance anew.
    pub probe: bool,
}

/// Measured times of steps that only generate, by width: the tokens that they carry. Widths are compared as
/// multiples of a common unit that follows the speed of the machine: what was measured while it was busy can
/// be compared with what was measured before.
#[derive(Debug, Default)]
pub(super) struct StepCosts {
    /// Steps measured so far.
    steps: u64,
    /// Seconds of the unit.
    unit: f64,
    /// Times in units of then, each with the number of its step.
    times: BTreeMap<usize, VecDeque<(u64, f64)>>,
}

impl StepCosts {
    /// A step of `width` tokens took `seconds`.
    pub fn record(&mut self, width: usize, seconds: f64) {
        self.steps += 1;
        if self.steps == 1 {
            self.unit = seconds.max(1e-9);
        }
        let time = seconds / self.unit;
        if let Some(known) = self.times.get(&width).map(|times| middle((&width, times)).1) {
            // Halfway, so that a change counts for the machine and not for this width.
            self.unit *= (time / known).clamp(0.25, 4.0).sqrt();
        }
        let times = self.times.entry(width).or_default();
        times.push_back((self.steps, time));
        if times.len() > TIMES {
            times.pop_front();
        }
    }

    /// How many tokens of each offer to verify in a step in which `rows` requests generate, so that most
    /// tokens per second come out.
    pub fn choose(&mut self, rows: usize, offers: &[Offer]) -> Vec<usize> {
        let mut chosen = vec![0; offers.len()];
        let oldest = self.steps.saturating_sub(FORGET_STEPS);
        self.times.retain(|_, times| {
            times.retain(|&(step, _)| step > oldest);
            !times.is_empty()
        });
        let lately = |times: &VecDeque<(u64, f64)>| {
            let last = times.back().map_or(0, |&(step, _)| step);
            times.len() >= BASE_TIMES && last + BASE_STEPS > self.steps
        };
        if !self.times.get(&rows).is_some_and(lately) {
            return chosen;
        }
        let plain = self.times.get(&rows).map_or(1.0, |times| middle((&rows, times)).1);
        let assumed = |width: f64| plain * (READ_COLUMNS + width) / (READ_COLUMNS + rows as f64);
        let measured = self.times.iter().map(|(width, times)| {
            let (at, time) = middle((width, times));
            let sure = times.len() >= SURE_TIMES || *width == rows;
            (at, if sure { time } else { time.min(assumed(at)) })
        });
        let measured: Vec<(f64, f64)> = measured.collect();
        let rate = |tokens: f64, width: usize| {
            let more = (width - rows) as f64 / (READ_COLUMNS + rows as f64);
            tokens / time(&measured, width).max(plain * (1.0 + LEAST_COST * more))
        };
        let none = rate(rows as f64, rows);
        // The j-th token of a draft is accepted with chance^j. Each row's own come in their order.
        let gains = |(i, offer): (usize, &Offer)| {
            let chance = offer.chance;
            (1..=offer.len).map(move |j| (chance.powi(j as i32), i))
        };
        let mut gains: Vec<(f64, usize)> = offers.iter().enumerate().flat_map(gains).collect();
        gains.sort_by(|a, b| b.0.total_cmp(&a.0));
        let (mut tokens, mut best, mut most) = (rows as f64, none * GAIN, 0);
        for (n, (gain, _)) in (1..).zip(&gains) {
            tokens += gain;
            let rate = rate(tokens, rows + n);
            if rate > best {
                (best, most) = (rate, n);
            }
        }
        for &(_, i) in &gains[..most] {
            chosen[i] += 1;
        }
        for (n, offer) in chosen.iter_mut().zip(offers).filter(|(_, offer)| offer.probe) {
            *n = (*n).max(offer.len.min(1));
        }
        chosen
    }
}

/// The time of a width: the median, of an even number the lower one.
fn middle((&width, times): (&usize, &VecDeque<(u64, f64)>)) -> (f64, f64) {
    let mut times: Vec<f64> = times.iter().map(|&(_, time)| time).collect();
    times.sort_by(f64::total_cmp);
    (width as f64, times[(times.len() - 1) / 2])
}

/// The time of a step of `width` tokens: on a line between two measured widths; beyond them in proportion to
/// the assumed cost, or as the first and the last measured width say if that is more. `measured` has at least
/// one, by ascending width.
fn time(measured: &[(f64, f64)], width: usize) -> f64 {
    let width = width as f64;
    let line = |(a, ta): (f64, f64), (b, tb): (f64, f64)| ta + (tb - ta) * (width - a) / (b - a);
    let assumed = |(at, t): (f64, f64)| t * (READ_COLUMNS + width) / (READ_COLUMNS + at);
    let above = measured.partition_point(|&(measured, _)| measured < width);
    match (measured[..above].last(), measured.get(above)) {
        (Some(&last), Some(&next)) => line(last, next),
        (Some(&last), None) if above > 1 => assumed(last).max(line(measured[0], last)),
        (Some(&only), None) | (None, Some(&only)) => assumed(only),
        (None, None) => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(chance: f64, len: usize) -> Offer {
        Offer { chance, len, probe: false }
    }

    /// Measured at these widths, each `n` times.
    fn measured(times: &[(usize, f64)], n: usize) -> StepCosts {
        let mut costs = StepCosts::default();
        for _ in 0..n {
            times.iter().for_each(|&(width, seconds)| costs.record(width, seconds));
        }
        costs
    }

    #[test]
    fn drafts_are_as_long_as_pays() {
        let mut costs = measured(&[(1, 1.0), (2, 1.08), (5, 1.25), (9, 2.0)], 3);
        assert_eq!(costs.choose(1, &[offer(0.0, 8)]), [0]);
        assert_eq!(costs.choose(1, &[offer(0.05, 8)]), [0], "1.05 tokens in 1.08 s");
        assert_eq!(costs.choose(1, &[offer(0.2, 8)]), [1], "1.2 in 1.08 s, 1.24 in 1.14 s");
        assert_eq!(costs.choose(1, &[offer(0.6, 8)]), [4], "2.31 in 1.25 s");
        assert_eq!(costs.choose(1, &[offer(0.6, 3)]), [3]);
        assert_eq!(costs.choose(1, &[offer(0.99, 8)]), [8]);
        // A machine on which each token costs as much as the first.
        for widths in [&[(1, 1.0), (2, 2.0), (9, 9.0)][..], &[(1, 1.0), (3, 3.0)]] {
            assert_eq!(measured(widths, 3).choose(1, &[offer(0.97, 8)]), [0]);
        }
    }

    #[test]
    fn the_whole_step_is_looked_at() {
        // Sixteen rows: one more column costs a twentieth, and brings a sixteenth of the tokens at most.
        let mut costs = measured(&[(16, 1.0), (32, 1.8)], 3);
        let mut offers = vec![offer(0.3, 8); 16];
        assert_eq!(costs.choose(16, &offers), [0; 16]);
        offers[5] = offer(0.97, 8);
        let chosen = costs.choose(16, &offers);
        assert!(chosen[5] >= 3 && chosen.iter().sum::<usize>() == chosen[5], "{chosen:?}");
    }

    #[test]
    fn nothing_is_drafted_before_the_plain_step_is_known() {
        let sure = [offer(0.97, 8)];
        assert_eq!(StepCosts::default().choose(1, &sure), [0]);
        assert_eq!(measured(&[(1, 1.0)], 1).choose(1, &sure), [0]);
        assert!(measured(&[(1, 1.0)], 2).choose(1, &sure)[0] > 0);
        assert_eq!(measured(&[(1, 1.0)], 2).choose(2, &[sure[0]; 2]), [0, 0], "another number of rows");
        // Now and then it is measured again.
        let mut costs = measured(&[(1, 1.0)], 2);
        (1..BASE_STEPS).for_each(|_| costs.record(9, 1.1));
        assert_eq!(costs.choose(1, &sure), [8]);
        costs.record(9, 1.1);
        assert_eq!(costs.choose(1, &sure), [0]);
        costs.record(1, 1.0);
        assert_eq!(costs.choose(1, &sure), [8]);
        // What is long ago does not count.
        (0..FORGET_STEPS).for_each(|_| costs.record(1, 1.0));
        assert!(costs.choose(1, &sure)[0] > 0 && !costs.times.contains_key(&9));
    }

    #[test]
    fn one_slow_step_changes_nothing() {
        let mut costs = measured(&[(1, 1.0), (2, 1.1), (5, 1.3)], 3);
        let before = costs.choose(1, &[offer(0.6, 4)]);
        costs.record(5, 40.0);
        assert_eq!(costs.choose(1, &[offer(0.6, 4)]), before);
    }

    #[test]
    fn a_machine_that_gets_busy_makes_no_width_dear() {
        let mut costs = measured(&[(1, 1.0), (3, 1.2), (9, 1.8)], 3);
        let sure = [offer(0.95, 8)];
        assert_eq!(costs.choose(1, &sure), [8]);
        for _ in 0..20 {
            costs.record(9, 4.0);
            assert_eq!(costs.choose(1, &sure), [8]);
        }
        (0..20).for_each(|_| costs.record(9, 1.8));
        costs.record(1, 1.0);
        assert_eq!(costs.choose(1, &sure), [8]);
        // The width itself.
        (0..20).for_each(|_| [(1, 1.0), (9, 9.0)].iter().for_each(|&(width, t)| costs.record(width, t)));
        assert!(costs.choose(1, &sure)[0] < 8);
    }

    #[test]
    fn no_token_is_free() {
        let mut costs = measured(&[(1, 1.0), (2, 0.9), (9, 0.8)], 3);
        assert_eq!(costs.choose(1, &[offer(0.03, 8)]), [0]);
        assert!(costs.choose(1, &[offer(0.3, 8)])[0] > 0);
    }

    #[test]
    fn a_probe_is_made_although_it_does_not_seem_to_pay() {
        let probe = [Offer { probe: true, ..offer(0.0, 8) }];
        assert_eq!(measured(&[(1, 1.0), (2, 1.2)], 3).choose(1, &probe), [1]);
        let none = [Offer { len: 0, ..probe[0] }];
        assert_eq!(measured(&[(1, 1.0), (2, 1.2)], 3).choose(1, &none), [0]);
    }
}
