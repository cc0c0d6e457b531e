//! One row of logits to natural logarithms of probabilities: `ln softmax(logits)` over all rows of the head,
//! summed in f64, before any penalty or temperature.

/// `ln softmax` of one row of logits.
#[derive(Clone, Copy, Debug)]
pub struct LogSoftmax<'a> {
    logits: &'a [f32],
    largest: f64,
    /// `ln(sum(exp(x - largest)))`
    log_sum: f64,
}

impl<'a> LogSoftmax<'a> {
    /// Sums the row.
    pub fn of(logits: &'a [f32]) -> Self {
        let largest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        let sum: f64 = logits.iter().map(|&x| (f64::from(x) - largest).exp()).sum();
        Self { logits, largest, log_sum: sum.ln() }
    }

    /// The log-probability of an id; NaN when it is past the end.
    pub fn at(&self, id: u32) -> f64 {
        self.logits.get(id as usize).map_or(f64::NAN, |&x| self.of_logit(x))
    }

    /// The log-probability of an id with this logit in the row.
    pub fn of_logit(&self, logit: f32) -> f64 {
        f64::from(logit) - self.largest - self.log_sum
    }
}

/// The ids of the `k` largest logits, the largest first, of equal ones the smaller id first; fewer where
/// there are fewer numbers.
pub fn likeliest(logits: &[f32], k: usize) -> Vec<u32> {
    if k == 0 {
        return Vec::new();
    }
    let first = |a: &(f32, u32), b: &(f32, u32)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
    let room = k.saturating_mul(4).max(1024);
    let mut found: Vec<(f32, u32)> = Vec::new();
    // An id that comes later and is only equal to the k-th so far is not among the k.
    let mut least = f32::NEG_INFINITY;
    for (id, &logit) in (0u32..).zip(logits) {
        if logit > least || (logit == f32::NEG_INFINITY && found.len() < k) {
            found.push((logit, id));
            if found.len() == room {
                let (_, last, _) = found.select_nth_unstable_by(k - 1, first);
                least = last.0;
                found.truncate(k);
            }
        }
    }
    found.sort_unstable_by(first);
    found.truncate(k);
    found.into_iter().map(|(_, id)| id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_probabilities_by_hand() {
        let logits = [1.0f32, 2.0, f32::NEG_INFINITY, 0.0];
        let sum = 1f64.exp() + 2f64.exp() + 1.0;
        let row = LogSoftmax::of(&logits);
        assert!((row.at(1) - (2.0 - sum.ln())).abs() < 1e-12);
        assert_eq!(row.at(2), f64::NEG_INFINITY);
        assert!(row.at(4).is_nan());
        // Large logits do not overflow.
        assert!((LogSoftmax::of(&[1e4, 1e4]).at(0) - 0.5f64.ln()).abs() < 1e-12);
    }

    #[test]
    fn the_likeliest_are_those_of_a_full_sort() {
        let mut logits: Vec<f32> = (0..5000u64).map(|i| ((i * i * 7919) % 997) as f32).collect();
        logits[17] = f32::NAN;
        logits[18] = f32::NEG_INFINITY;
        let mut sorted: Vec<u32> = (0..5000).filter(|&i| i != 17).collect();
        sorted.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b)));
        for k in [0, 1, 5, 300, 4998] {
            assert_eq!(likeliest(&logits, k), sorted[..k], "{k}");
        }
        assert!(likeliest(&[f32::NAN; 9], 3).is_empty());
        assert_eq!(likeliest(&[f32::NEG_INFINITY, 1.0], 5), [1, 0]);
    }
}
