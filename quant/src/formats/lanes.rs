//! Sums of `f32` in 16 lanes: element `i` goes to lane `i mod 16`, lanes are folded 8, 4, 2, 1.
//!
//! Sums of `f32` over a row go through here, so that a vector unit of any width up to 16 lanes gives the same
//! bits as the scalar code. (The encoders keep one block per lane instead, and products with integer blocks
//! add one number per block in order: orders as fixed as this one.) Multiplication and addition are rounded
//! apart (no FMA).

/// Lanes of a sum.
pub const LANES: usize = 16;

/// Folds the lanes: 16 to 8, 8 to 4, 4 to 2, 2 to 1, lane `i` plus lane `i + half`.
#[inline(always)]
pub fn fold(mut lanes: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// A stored number that widens to `f32` exactly.
pub trait Widen: Copy {
    /// Its value.
    fn widen(self) -> f32;
}

impl Widen for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
}

/// Sum of `w[i] a[i]`. Written out, not by [`sum`]: LLVM does not inline a closure into every kernel built
/// from here, and a call per element is ten times slower.
///
/// # Panics
/// When the slices differ in length.
#[inline(always)]
pub fn dot<W: Widen>(w: &[W], a: &[f32]) -> f32 {
    assert_eq!(w.len(), a.len(), "lengths of a product");
    let (w, w_rest) = w.as_chunks::<LANES>();
    let (a, a_rest) = a.as_chunks::<LANES>();
    let mut lanes = [0.0f32; LANES];
    let mut i = 0;
    while i < w.len() {
        let (w, a) = (&w[i], &a[i]);
        let mut l = 0;
        while l < LANES {
            lanes[l] += w[l].widen() * a[l];
            l += 1;
        }
        i += 1;
    }
    let mut l = 0;
    while l < w_rest.len() {
        lanes[l] += w_rest[l].widen() * a_rest[l];
        l += 1;
    }
    fold(lanes)
}

/// Sum of `term(i)` for `i` in `0..n`.
#[inline(always)]
pub fn sum(n: usize, term: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let whole = n - n % LANES;
    let mut i = 0;
    while i < whole {
        for (l, lane) in lanes.iter_mut().enumerate() {
            *lane += term(i + l);
        }
        i += LANES;
    }
    for (l, lane) in lanes.iter_mut().enumerate().take(n - whole) {
        *lane += term(whole + l);
    }
    fold(lanes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn element_i_goes_to_lane_i_mod_16_and_lanes_fold_by_halves() {
        // 2^24 + 1 - 2^24: only an order that adds the two large terms first keeps the 1.
        let big = 16_777_216.0f32;
        let x = |i: usize| match i {
            0 => big,
            8 => -big,
            1 => 1.0,
            _ => 0.0,
        };
        assert_eq!(sum(16, x), 1.0);
        // In lane order 0 + 1 the 1 would be lost: the same terms with 8 and 1 exchanged.
        let y = |i: usize| match i {
            0 => big,
            8 => 1.0,
            1 => -big,
            _ => 0.0,
        };
        assert_eq!(sum(16, y), 0.0);
        assert_eq!(sum(37, |i| i as f32), (0..37).sum::<usize>() as f32);
        assert_eq!(sum(0, |_| unreachable!()), 0.0);
        for n in [0, 1, 15, 16, 17, 100] {
            let (w, a): (Vec<f32>, Vec<f32>) = (0..n).map(|i| (0.1 * i as f32, 1.0 / (i + 1) as f32)).unzip();
            assert_eq!(dot(&w, &a), sum(n, |i| w[i] * a[i]), "{n}");
        }
    }
}
